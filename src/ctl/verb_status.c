/* SPDX-License-Identifier: Apache-2.0 */
/* status, listeners, history: reads that answer at once. */
#include "ctl/context.h"
#include "ctl/status.h"
#include "ctl/text.h"

static void print_status(struct output *o, json_t *reply, void *userdata)
{
	const json_t *services = json_object_get(reply, "services"), *service;
	const struct options *options = userdata;
	size_t i;

	if (o->quiet)
		return;
	if (!options->args || !options->args[0]) {
		status_overview(o, services, text_now_usec());
		return;
	}
	json_array_foreach (services, i, service) {
		if (i > 0)
			fputc('\n', o->file);
		status_detail(o, service, text_now_usec());
	}
}

/* All services, or those named, in one answer as the daemon gives it. */
static int list(struct context *context, json_t **ret)
{
	_cleanup_json_ json_t *all = json_pack("{s:[]}", "services");
	char **args = context->options->args;

	if (!args || !args[0])
		return context_call_take(context, "List", json_object(), NULL, ret);
	if (!all)
		return context_out_of_memory(context);
	for (; *args; args++) {
		_cleanup_json_ json_t *reply = NULL;
		int r = context_call_take(
			context, "List", json_pack("{s:s}", "service", *args), *args, &reply);

		if (r != EXIT_DONE)
			return r;
		json_array_extend(
			json_object_get(all, "services"), json_object_get(reply, "services"));
	}
	*ret = TAKE_PTR(all);
	return EXIT_DONE;
}

int verb_status(struct context *context)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *services, *service;
	size_t i;
	int r;

	r = list(context, &reply);
	if (r != EXIT_DONE)
		return r;
	output_document(&context->output, reply, print_status, (void *)(uintptr_t)context->options);
	services = json_object_get(reply, "services");
	json_array_foreach (services, i, service)
		if (!field_true(service, "healthy"))
			return EXIT_FAILED;
	return EXIT_DONE;
}

static void print_listeners(struct output *o, json_t *reply, void *userdata)
{
	const json_t *listeners = json_object_get(reply, "listeners");

	(void)userdata;
	if (o->quiet)
		return;
	if (json_array_size(listeners) == 0)
		output_printf(o, "no listeners\n");
	status_listeners(o, listeners, true, 0);
	status_options(o, listeners);
}

int verb_listeners(struct context *context)
{
	char **args = context->options->args;
	const char *service = args ? args[0] : NULL;
	_cleanup_json_ json_t *reply = NULL;
	int r;

	r = context_call_take(context, "Listeners",
		service ? json_pack("{s:s}", "service", service) : json_object(), service, &reply);
	if (r == EXIT_DONE)
		output_document(&context->output, reply, print_listeners, NULL);
	return r;
}

static const char *moment(const json_t *entry, const char *key, char buf[static TEXT_TIME_MAX])
{
	uint64_t at = field_usec(entry, key);

	return at == 0 ? NULL : text_time(at, false, buf);
}

static void print_history(struct output *o, json_t *reply, void *userdata)
{
	static const struct table_column columns[] = {
		{"GENERATION", true,  false},
		{"STARTED",    false, false},
		{"SERVING",    false, false},
		{"ENDED",	  false, false},
		{"OUTCOME",    false, false},
		{"BY",	       false, false},
		{"DIRECTORY",  false, true },
		{"EXECUTABLE", false, true },
		{"REASON",	   false, true },
	};
	_cleanup_table_ struct table table = TABLE_INIT(columns);
	const json_t *entries = json_object_get(reply, "entries"), *entry;
	char buf[TEXT_TIME_MAX];
	size_t i;

	(void)userdata;
	if (o->quiet)
		return;
	json_array_foreach (entries, i, entry) {
		table_addf(&table, PAINT_BOLD, "%lld", field_int(entry, "generation", 0));
		table_add(&table, PAINT_PLAIN, moment(entry, "startedUsec", buf));
		table_add(&table, PAINT_PLAIN, moment(entry, "servingUsec", buf));
		table_add(&table, PAINT_PLAIN, moment(entry, "endedUsec", buf));
		table_add(&table, PAINT_PLAIN, field_text(entry, "outcome"));
		table_add(&table, PAINT_PLAIN, field_text(entry, "requestedBy"));
		table_add(&table, PAINT_PLAIN, field_text(entry, "directory"));
		table_add(&table, PAINT_PLAIN, field_text(entry, "executable"));
		table_add(&table, PAINT_PLAIN, field_text(entry, "reason"));
	}
	if (i == 0)
		output_printf(o, "no generation was started yet\n");
	table_print(&table, o, 0);
}

int verb_history(struct context *context)
{
	const char *service = context->options->args[0];
	_cleanup_json_ json_t *reply = NULL;
	int r;

	r = context_call_take(
		context, "History", json_pack("{s:s}", "service", service), service, &reply);
	if (r == EXIT_DONE)
		output_document(&context->output, reply, print_history, NULL);
	return r;
}

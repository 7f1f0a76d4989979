/* SPDX-License-Identifier: Apache-2.0 */
/* reload and diff: the configuration against what runs. */
#include "ctl/follow.h"
#include "ctl/text.h"

static bool has_effect(const json_t *change)
{
	return !streq(field_text_or(change, "action", ""), "none");
}

/* What was or would be done to one service. The caller frees. */
static char *describe(const struct output *o, const json_t *change, bool done)
{
	static const struct {
		const char *action, *done, *planned;
	} actions[] = {
		{"add",	"added",				 "would be added"		 },
		{"remove",  "removed",			      "would be removed"		},
		{"upgrade", "upgraded",				"would be upgraded"		   },
		{"scale",	  "scaled",				    "would be scaled"		     },
		{"update",  "updated, not upgraded",		    "would be updated, not upgraded"},
		{"listen",  "given other listeners, not upgraded",
			"would be given other listeners, not upgraded"				      },
		{"none",	 "unchanged, not upgraded",		    "unchanged"		       },
	};
	const char *action = field_text_or(change, "action", "?"), *words = action;
	const json_t *reasons = json_object_get(change, "reasons"), *reason;
	_cleanup_free_ char *line = NULL;
	const char *between = " (";
	size_t i;

	for (i = 0; i < ARRAY_SIZE(actions); i++)
		if (streq(actions[i].action, action))
			words = done ? actions[i].done : actions[i].planned;
	line = xasprintf("%s: %s", field_text_or(change, "service", "?"), words);
	json_array_foreach (reasons, i, reason) {
		char *longer =
			line ? xasprintf("%s%s%s", line, between,
				       json_is_string(reason) ? json_string_value(reason) : "?")
			     : NULL;

		free(line);
		line = longer;
		between = ", ";
	}
	if (line && json_array_size(reasons) > 0) {
		char *longer = xasprintf("%s)", line);

		free(line);
		line = longer;
	}
	return text_safe(line, o->utf8);
}

static void print_changes(struct context *context, json_t *reply)
{
	const json_t *changes = json_object_get(reply, "changes");
	json_t *change;
	size_t i;

	json_array_foreach (changes, i, change) {
		_cleanup_free_ char *line = describe(&context->output, change, true);

		if (line)
			output_record(&context->output, change, line);
	}
}

int verb_reload(struct context *context)
{
	_cleanup_follow_ struct follow f = {
		.method = "Reload", .noun = "reload", .answer = print_changes};

	f.calls = calloc(1, sizeof(f.calls[0]));
	if (!f.calls)
		return context_out_of_memory(context);
	f.n_calls = 1;
	f.calls[0].parameters =
		context->options->upgrade ? json_pack("{s:b}", "upgrade", 1) : json_object();
	return follow_run(&f, context);
}

static void print_diff(struct output *o, json_t *reply, void *userdata)
{
	const json_t *changes = json_object_get(reply, "changes"), *change;
	size_t i, n = 0;

	(void)userdata;
	if (o->quiet)
		return;
	json_array_foreach (changes, i, change) {
		_cleanup_free_ char *line = describe(o, change, false);

		if (!has_effect(change) || !line)
			continue;
		n++;
		output_printf(o, "%s\n", line);
	}
	if (n == 0)
		output_printf(o, "nothing to do: what runs is what the configuration says\n");
	else
		output_printf(o, "`tenurectl reload` does it\n");
}

int verb_diff(struct context *context)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *changes, *change;
	size_t i;
	int r;

	r = context_call_take(context, "Diff", json_object(), NULL, &reply);
	if (r != EXIT_DONE)
		return r;
	output_document(&context->output, reply, print_diff, NULL);
	changes = json_object_get(reply, "changes");
	json_array_foreach (changes, i, change)
		if (context->options->exit_code && has_effect(change))
			return EXIT_FAILED;
	return EXIT_DONE;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* reexec: the daemon replaces its own program. The answer comes from the new one. */
#include "ctl/context.h"
#include "ctl/text.h"

static void print_replaced(struct output *o, json_t *reply, void *userdata)
{
	const char *before = field_text_or(reply, "previousVersion", "?"),
		   *now = field_text_or(reply, "version", "?");
	_cleanup_free_ char *safe_before = text_safe(before, o->utf8),
			    *safe_now = text_safe(now, o->utf8);

	(void)userdata;
	if (o->quiet || !safe_before || !safe_now)
		return;
	output_printf(o, "tenured replaced itself in %.1fms: version %s",
		(double)field_int(reply, "tookUsec", 0) / USEC_PER_MSEC, safe_now);
	if (!streq(before, now))
		output_printf(o, ", it was %s", safe_before);
	output_printf(o, "%s\n",
		streq(field_text_or(reply, "keeper", ""), "replaced") ? "; its keeper too" : "");
}

int verb_reexec(struct context *context)
{
	_cleanup_json_ json_t *reply = NULL;
	_cleanup_free_ char *safe = NULL;
	const char *keeper;
	int r = context_call_take(context, "Reexec", json_object(), NULL, &reply);

	if (r != EXIT_DONE)
		return r;
	output_document(&context->output, reply, print_replaced, NULL);
	keeper = field_text(reply, "keeper");
	if (!keeper || streq(keeper, "replaced"))
		return EXIT_DONE;
	safe = text_safe(keeper, context->output.utf8);
	output_error(&context->output, "the keeper was not replaced: %s; it goes on as before",
		safe ? safe : "?");
	return EXIT_FAILED;
}

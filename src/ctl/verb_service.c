/* SPDX-License-Identifier: Apache-2.0 */
/* start, stop, scale: whether a service runs, and with how many workers; promote, pause, abort:
 * what becomes of the rollout that is in progress. */
#include "base/parse.h"
#include "ctl/follow.h"
#include "ctl/problem.h"
#include "ctl/text.h"

#define WORKERS_MAX 100000U /* the daemon knows its own limit */

static int follow_simple(struct context *context, const char *method, const char *noun)
{
	_cleanup_follow_ struct follow f = {.method = method, .noun = noun};

	if (follow_services(&f, context) < 0)
		return context_out_of_memory(context);
	return follow_run(&f, context);
}

int verb_start(struct context *context)
{
	return follow_simple(context, "Start", "start");
}

int verb_stop(struct context *context)
{
	return follow_simple(context, "Stop", "stop");
}

int verb_scale(struct context *context)
{
	_cleanup_follow_ struct follow f = {.method = "Scale", .noun = "scaling"};
	char *const *args = context->options->args;
	unsigned workers;

	if (parse_uint(args[1], 0, WORKERS_MAX, &workers) < 0)
		return problem_local(&context->output, EXIT_USAGE,
			"usage: tenurectl scale SERVICE N; N is the number of workers");
	f.calls = calloc(1, sizeof(f.calls[0]));
	if (!f.calls)
		return context_out_of_memory(context);
	f.n_calls = 1;
	f.calls[0] = (struct follow_call){.service = args[0],
		.parameters = json_pack("{s:s, s:i}", "service", args[0], "workers", (int)workers)};
	return follow_run(&f, context);
}

static int for_each(struct context *context, const char *method, bool full, const char *done)
{
	struct output *o = &context->output;
	int code = EXIT_DONE;

	for (char **arg = context->options->args; *arg; arg++) {
		_cleanup_free_ char *service = text_safe(*arg, o->utf8);
		json_t *parameters = json_pack("{s:s}", "service", *arg), *record;
		int r;

		if (parameters && full)
			json_object_set_new(parameters, "full", json_true());
		r = context_call_take(context, method, parameters, *arg, NULL);
		if (r != EXIT_DONE) {
			code = code == EXIT_DONE ? r : code;
			continue;
		}
		record = json_pack("{s:s, s:s}", "service", *arg, "message", done);
		if (service && record)
			output_remark(o, "%s: %s", service, done);
		if (record && o->renderer == &renderer_json)
			output_record(o, record, done);
		json_decref(record);
	}
	return code;
}

int verb_promote(struct context *context)
{
	bool full = context->options->full;

	return for_each(context, "Promote", full,
		full ? "goes on to all new connections" : "goes on with the next step");
}

int verb_pause(struct context *context)
{
	return for_each(context, "Pause", false,
		"paused; `tenurectl promote` goes on, `tenurectl abort` goes back");
}

int verb_abort(struct context *context)
{
	return for_each(
		context, "Abort", false, "aborted; the old generation has all new connections");
}

/* SPDX-License-Identifier: Apache-2.0 */
/* adopt: take the listening sockets out of a server that runs, and hand them to the daemon with a
 * pidfd of it. The rest is a rollout. */
#include <signal.h>

#include "ctl/follow.h"
#include "ctl/live_sockets.h"
#include "ctl/path_guard.h"
#include "ctl/problem.h"
#include "ctl/text.h"

static int signal_number(const char *name)
{
	if (strncmp(name, "SIG", 3) == 0)
		name += 3;
	for (int i = 1; i < NSIG; i++) {
		const char *known = sigabbrev_np(i);

		if (known && streq(known, name))
			return i;
	}
	return -EINVAL;
}

static int add_call(struct follow *f, struct context *context)
{
	const struct options *options = context->options;
	const char *service = options->args[0];
	int signal = options->signal ? signal_number(options->signal) : 0;
	json_t *parameters;

	if (signal < 0)
		return problem_local(&context->output, EXIT_USAGE,
			"--signal: there is no such signal; write it as SIGQUIT");
	parameters = json_pack("{s:s, s:i}", "service", service, "pid", (int)options->pid);
	if (parameters && signal > 0)
		json_object_set_new(parameters, "signal", json_integer(signal));
	f->calls = calloc(1, sizeof(f->calls[0]));
	if (!f->calls || !parameters) {
		json_decref(parameters);
		return context_out_of_memory(context);
	}
	f->n_calls = 1;
	f->calls[0] = (struct follow_call){.service = service, .parameters = parameters};
	return EXIT_DONE;
}

int verb_adopt(struct context *context)
{
	_cleanup_follow_ struct follow f = {
		.method = "Adopt", .noun = "takeover", .abortable = true};
	_cleanup_live_sockets_ struct live_sockets sockets = {0};
	_cleanup_path_guard_ struct path_guard guard = {.fd = -1};
	_cleanup_error_ struct error error = ERROR_NULL;
	const struct options *options = context->options;
	struct address at;
	int r;

	if (options->pid == 0)
		return problem_local(&context->output, EXIT_USAGE,
			"say which process with --pid: tenurectl adopt SERVICE --pid PID");
	if (options->address && address_parse(options->address, false, &at) < 0)
		return problem_local(&context->output, EXIT_USAGE,
			"--address: write it as in the configuration: 8080, 127.0.0.1:8080, "
			"udp:53, unix:/run/web.sock");
	r = live_sockets_of((pid_t)options->pid, options->address ? &at : NULL, &sockets, &error);
	if (r < 0) {
		_cleanup_free_ char *text = text_safe(error_message(&error), context->output.utf8);

		return problem_local(&context->output,
			r == -EPERM ? EXIT_NOT_PERMITTED : EXIT_FAILED, "%s",
			text ? text : "out of memory");
	}
	r = add_call(&f, context);
	if (r != EXIT_DONE)
		return r;
	/* Who does not wait does not know when it would have to end. */
	if (!options->detach)
		path_guard_begin(&guard, &sockets);
	context->give = &sockets.fds;
	r = follow_run(&f, context);
	context->give = NULL;
	/* Who is tired of waiting ends nothing. */
	if (r == EXIT_DONE || r == EXIT_TIMED_OUT)
		path_guard_leave(&guard);
	return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* tenurectl: asks a running tenured to do things, and shows what it says. */
#include <limits.h>
#include <locale.h>

#include "ctl/context.h"
#include "ctl/socket.h"

/* clang-format off */
static const struct verb verbs[] = {
	{"status", "[SERVICE...]", "What runs, at a glance; exit 1 when a service is unhealthy",
	 0, UINT_MAX, 0, false, verb_status},
	{"upgrade", "SERVICE...", "Move to a new generation; back again if it fails",
	 1, UINT_MAX, OPTION_STRATEGY | OPTION_FOLLOW | OPTION_ABORT, false, verb_upgrade},
	{"promote", "SERVICE...", "Go on with the next step of a rollout",
	 1, UINT_MAX, OPTION_FULL, false, verb_promote},
	{"pause", "SERVICE...", "Stay at the present step of a rollout",
	 1, UINT_MAX, 0, false, verb_pause},
	{"abort", "SERVICE...", "End a rollout; the old generation has all traffic",
	 1, UINT_MAX, 0, false, verb_abort},
	{"preview", "SERVICE", "How to see the new generation before anybody else",
	 1, 1, 0, false, verb_preview},
	{"rollback", "SERVICE...", "Go back to the last good generation",
	 1, UINT_MAX, OPTION_TO | OPTION_FOLLOW, false, verb_rollback},
	{"restart", "SERVICE...", "New processes of the same program, new before old",
	 1, UINT_MAX, OPTION_HARD | OPTION_FOLLOW | OPTION_ABORT, false, verb_restart},
	{"start", "SERVICE...", "Start it; done already if it runs",
	 1, UINT_MAX, OPTION_FOLLOW, false, verb_start},
	{"stop", "SERVICE...", "Stop it, and close its sockets",
	 1, UINT_MAX, OPTION_FOLLOW, false, verb_stop},
	{"adopt", "SERVICE --pid PID", "Take over a server that runs already, and replace it",
	 1, 1, OPTION_ADOPT | OPTION_FOLLOW | OPTION_ABORT, false, verb_adopt},
	{"exec", "SERVICE -- COMMAND", "Run a command as one of its workers would be",
	 2, UINT_MAX, OPTION_TAKE, false, verb_exec},
	{"scale", "SERVICE N", "Run N workers, until the next reload",
	 2, 2, OPTION_FOLLOW, false, verb_scale},
	{"reload", "", "Read the configuration again, and do what it asks",
	 0, 0, OPTION_UPGRADE | OPTION_FOLLOW, false, verb_reload},
	{"diff", "", "What reload would do",
	 0, 0, OPTION_EXIT_CODE, false, verb_diff},
	{"check", "[--as PATH] [FILE]", "Check a configuration, without a daemon",
	 0, UINT_MAX, OPTION_AS, true, verb_check},
	{"presets", "[NAME]", "What is known of servers, and how they are run",
	 0, UINT_MAX, 0, true, verb_presets},
	{"listeners", "[SERVICE]", "The sockets, and how upgrades treat them",
	 0, 1, 0, false, verb_listeners},
	{"events", "[SERVICE]", "What happened; with -f what happens",
	 0, 1, OPTION_EVENTS, false, verb_events},
	{"wait", "SERVICE...", "Wait until no rollout is in progress and it is healthy",
	 1, UINT_MAX, OPTION_TIMEOUT, false, verb_wait},
	{"history", "SERVICE", "Its generations, and what became of them",
	 1, 1, 0, false, verb_history},
	{"reexec", "", "Replace the daemon by the program that is on disk now",
	 0, 0, 0, false, verb_reexec},
	{"version", "", "The versions of tenurectl and tenured",
	 0, 0, 0, false, verb_version},
	{"help", "[VERB]", "This help, or that of one verb",
	 0, 1, 0, false, verb_help},
	{0},
};
/* clang-format on */

static int run(struct context *context)
{
	const struct options *o = context->options;

	if (o->help) {
		options_help(context->output.file, verbs, o->verb);
		return EXIT_DONE;
	}
	if (o->version)
		return verb_version(context);
	return o->verb->run(context);
}

int main(int argc, char **argv)
{
	_cleanup_(options_done) struct options options = {0};
	_cleanup_error_ struct error error = ERROR_NULL;
	struct context context = {.verbs = verbs, .options = &options};
	int code;

	/* Only how characters are encoded: numbers are for programs too. */
	setlocale(LC_CTYPE, "");
	if (options_parse(argc, argv, verbs, &options, &error) < 0) {
		fprintf(stderr, "tenurectl: %s\nTry `tenurectl help`.\n", error_message(&error));
		return EXIT_USAGE;
	}
	output_init(&context.output, options.json, options.quiet, options.no_color);
	if (socket_path(options.socket, options.instance, &context.socket) < 0)
		code = context_out_of_memory(&context);
	else
		code = run(&context);
	free(context.socket);
	/* A full disk or a closed pipe must not look like success. */
	if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_DONE) {
		output_error(&context.output, "cannot write the result: %s", strerror(errno));
		return EXIT_FAILED;
	}
	return code;
}

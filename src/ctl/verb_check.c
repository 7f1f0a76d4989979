/* SPDX-License-Identifier: Apache-2.0 */
/* check, presets: what a configuration means, and what is known of servers, is the daemon's
 * knowledge, so its own program is asked. The one beside this program first, lest another version
 * answer. */
#include <limits.h>

#include "ctl/context.h"
#include "ctl/problem.h"

/* Replaces this process if that program is there. */
static void try_exec(char *const *argv, const char *directory, const char *relative)
{
	_cleanup_free_ char *path = xasprintf("%s/%stenured", directory, relative);

	if (path && access(path, X_OK) == 0)
		execv(path, argv);
}

static int ask_daemon(struct context *context, const char *word, const char *option)
{
	_cleanup_strv_ char **argv = NULL;
	char own[PATH_MAX], *slash;
	ssize_t len;

	if (strv_append(&argv, "tenured") < 0 || strv_append(&argv, word) < 0 ||
		(option && strv_append(&argv, option) < 0))
		return context_out_of_memory(context);
	for (char **arg = context->options->args; arg && *arg; arg++)
		if (strv_append(&argv, *arg) < 0)
			return context_out_of_memory(context);
	len = readlink("/proc/self/exe", own, sizeof(own) - 1);
	if (len > 0) {
		own[len] = '\0';
		slash = strrchr(own, '/');
		if (slash)
			*slash = '\0';
		try_exec(argv, own, "");
		try_exec(argv, own, "../sbin/");
	}
	try_exec(argv, TENURED_SBINDIR, "");
	execvp("tenured", argv);
	return problem_local(&context->output, EXIT_FAILED,
		"cannot run tenured, which knows the configuration: %s; looked beside tenurectl, "
		"in %s and in PATH",
		strerror(errno), TENURED_SBINDIR);
}

int verb_check(struct context *context)
{
	return ask_daemon(context, "check", NULL);
}

int verb_presets(struct context *context)
{
	return ask_daemon(context, "presets", context->options->json ? "--json" : NULL);
}

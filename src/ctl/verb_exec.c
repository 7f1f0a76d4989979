/* SPDX-License-Identifier: Apache-2.0 */
/* exec: a command with the user, directory, environment and, if asked for, listeners of a service.
 * It runs in place of tenurectl, in the caller's terminal; the daemon has nothing to do with it. */
#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>

#include "ctl/context.h"
#include "ctl/problem.h"
#include "ctl/text.h"

enum {
	FIRST_FD = 3,
	/* As env(1), chroot(1) and shells have it. */
	EXIT_CANNOT_RUN = 126,
	EXIT_NO_COMMAND = 127,
};

static int become(struct context *context, const json_t *reply)
{
	uid_t uid = (uid_t)field_int(reply, "uid", -1);
	gid_t gid = (gid_t)field_int(reply, "gid", -1), groups[1024];
	const json_t *list = json_object_get(reply, "groups");
	size_t n = MIN(json_array_size(list), ARRAY_SIZE(groups));
	_cleanup_free_ char *name =
		text_safe(field_text_or(reply, "user", "of the daemon"), context->output.utf8);

	if (geteuid() == uid && getegid() == gid)
		return EXIT_DONE;
	if (geteuid() != 0)
		return problem_local(&context->output, EXIT_NOT_PERMITTED,
			"the service runs as user %s: to become that user tenurectl exec must be "
			"run as root",
			name ? name : "?");
	for (size_t i = 0; i < n; i++)
		groups[i] = (gid_t)json_integer_value(json_array_get(list, i));
	if (setgroups(n, groups) < 0 || setresgid(gid, gid, gid) < 0 ||
		setresuid(uid, uid, uid) < 0)
		return problem_local(&context->output, EXIT_FAILED, "cannot become user %s: %s",
			name ? name : "?", strerror(errno));
	return EXIT_DONE;
}

static int set_environment(const json_t *reply)
{
	const json_t *list = json_object_get(reply, "environment"), *entry;
	const char *terminal = getenv("TERM");
	_cleanup_free_ char *term = terminal ? strdup(terminal) : NULL;
	size_t i;

	if (clearenv() != 0)
		return -ENOMEM;
	json_array_foreach (list, i, entry) {
		const char *text = json_string_value(entry),
			   *equals = text ? strchr(text, '=') : NULL;
		_cleanup_free_ char *name = equals ? strndup(text, (size_t)(equals - text)) : NULL;

		if (name && setenv(name, equals + 1, 1) < 0)
			return -errno;
	}
	/* The caller's terminal is what it is. */
	return term && setenv("TERM", term, 0) < 0 ? -errno : 0;
}

/* LISTEN_FDS: sd_listen_fds(3). From FIRST_FD on, in order; as they come they are all above. */
static int hand_over(struct client_fds *fds, const json_t *names)
{
	char text[32], *all = NULL;
	const json_t *name;
	size_t i;
	int r = 0;

	/* None may be in another's place. */
	for (i = 0; i < fds->n; i++) {
		int high = fcntl(fds->list[i], F_DUPFD_CLOEXEC, FIRST_FD + CLIENT_FDS_MAX);

		if (high < 0)
			return -errno;
		(void)close_fd(fds->list[i]);
		fds->list[i] = high;
	}
	for (i = 0; i < fds->n; i++)
		if (dup2(fds->list[i], FIRST_FD + (int)i) < 0)
			return -errno;
	json_array_foreach (names, i, name) {
		char *longer = xasprintf("%s%s%s", all ? all : "", all ? ":" : "",
			json_is_string(name) ? json_string_value(name) : "unknown");

		free(all);
		all = longer;
	}
	snprintf(text, sizeof(text), "%zu", fds->n);
	if (!all || setenv("LISTEN_FDS", text, 1) < 0 || setenv("LISTEN_FDNAMES", all, 1) < 0)
		r = -ENOMEM;
	free(all);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	return r < 0 ? r : setenv("LISTEN_PID", text, 1) < 0 ? -ENOMEM : 0;
}

static json_t *parameters_of(const struct options *options)
{
	json_t *parameters = json_pack("{s:s}", "service", options->args[0]), *names;

	if (!parameters || !options->take)
		return parameters;
	names = json_array();
	for (char **name = options->take; names && *name; name++)
		json_array_append_new(names, json_string(*name));
	json_object_set_new(parameters, "listeners", names);
	return parameters;
}

static int run(struct context *context, const json_t *reply, struct client_fds *fds)
{
	char **command = context->options->args + 1;
	const char *directory = field_text_or(reply, "directory", "/");
	struct output *o = &context->output;
	_cleanup_free_ char *program = text_safe(command[0], o->utf8);
	int r = become(context, reply);

	if (r != EXIT_DONE)
		return r;
	if (chdir(directory) < 0)
		return problem_local(
			o, EXIT_FAILED, "directory of the service: %s", strerror(errno));
	r = set_environment(reply);
	if (r >= 0 && fds->n > 0)
		r = hand_over(fds, json_object_get(reply, "names"));
	if (r < 0)
		return problem_local(
			o, EXIT_FAILED, "cannot prepare the command: %s", strerror(-r));
	execvp(command[0], command);
	r = errno == ENOENT ? EXIT_NO_COMMAND : EXIT_CANNOT_RUN;
	return problem_local(o, r, "cannot run %s (with the service's PATH): %s",
		program ? program : "?", strerror(errno));
}

int verb_exec(struct context *context)
{
	struct client_fds fds = {.n = 0};
	_cleanup_json_ json_t *reply = NULL;
	int r;

	context->take = &fds;
	r = context_call_take(context, "Take", parameters_of(context->options),
		context->options->args[0], &reply);
	context->take = NULL;
	if (r == EXIT_DONE)
		r = run(context, reply, &fds);
	client_fds_done(&fds);
	return r;
}

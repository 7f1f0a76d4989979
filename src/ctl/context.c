/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/context.h"

#include <signal.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>

#include "ctl/problem.h"
#include "ctl/text.h"

int context_out_of_memory(struct context *context)
{
	output_error(&context->output, "out of memory");
	return EXIT_FAILED;
}

int context_connect(struct context *context, struct client *ret)
{
	struct output *o = &context->output;
	_cleanup_free_ char *path = text_safe(context->socket, o->utf8);
	const char *instance = context->options->instance;
	int r = client_connect(context->socket, ret);

	if (r >= 0) {
		ret->give = context->give;
		ret->take = context->take;
		return EXIT_DONE;
	}
	if (!path)
		return context_out_of_memory(context);
	if (r == -EACCES || r == -EPERM)
		return problem_local(o, EXIT_NOT_PERMITTED,
			"not permitted to open %s; ask as root, or as a user whom `control:` in "
			"tenured's configuration names",
			path);
	if (r == -ENOENT || r == -ECONNREFUSED || r == -ENOTDIR)
		return problem_local(o, EXIT_NO_DAEMON,
			"tenured does not run (%s %s); start it with `systemctl start "
			"tenured%s%s`, or `tenured -c FILE`, or say where it is with --socket",
			r == -ECONNREFUSED ? "nobody listens on" : "no socket at", path,
			instance ? "@" : "", instance ? instance : "");
	return problem_local(o, EXIT_NO_DAEMON, "cannot connect to %s: %s", path, strerror(-r));
}

int context_lost(struct context *context, const char *what, int r)
{
	struct output *o = &context->output;

	if (r == -ENOMEM)
		return context_out_of_memory(context);
	if (r == -ETIMEDOUT)
		return problem_local(o, EXIT_TIMED_OUT,
			"%s: tenured did not answer in time; what was asked may still be done",
			what);
	if (r == -ECONNRESET || r == -EPIPE)
		return problem_local(o, EXIT_NO_DAEMON,
			"%s: tenured closed the connection before it answered; see its log, and "
			"`tenurectl status`",
			what);
	return problem_local(o, EXIT_FAILED, "%s: no usable answer came from %s: %s", what,
		"tenured", strerror(-r));
}

/* --- when the daemon dies ------------------------------------------------- */

bool context_is_gone(int r)
{
	/* A command of a unit, as ExecReload=: systemd starts no other daemon before it has ended.
	 */
	if (getenv("MAINPID"))
		return false;
	return r == -ECONNRESET || r == -EPIPE;
}

int context_not_back(struct context *context, const char *what)
{
	return problem_local(&context->output, EXIT_NO_DAEMON,
		"%s: tenured closed the connection before it answered, and none came in its place "
		"within %u s; what was asked may have been done; see its log",
		what, (unsigned)(CONTEXT_RETURN_USEC / USEC_PER_SEC));
}

int context_name_request(json_t *parameters)
{
	uint8_t bytes[16];
	char name[2 * sizeof(bytes) + 1];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return -EIO;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(name + 2 * i, 3, "%02x", bytes[i]);
	return json_object_set_new(parameters, "request", json_string(name)) < 0 ? -ENOMEM : 0;
}

int context_ask_again(json_t *parameters)
{
	/* What only reads can be asked as often as one likes. */
	if (!json_object_get(parameters, "request"))
		return 0;
	return json_object_set_new(parameters, "again", json_true()) < 0 ? -ENOMEM : 0;
}

static bool is_change(const char *method)
{
	static const char *const changes[] = {"Upgrade", "Promote", "Pause", "Rollback", "Abort",
		"Scale", "Restart", "Start", "Stop", "Reload", "Adopt"};

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
		if (streq(changes[i], method))
			return true;
	return false;
}

/* Try until somebody listens. 0, or -ECONNRESET: nobody did until then. */
static int connect_again(const struct context *context, uint64_t until_usec, struct client *ret)
{
	const struct timespec wait = {.tv_nsec = CONTEXT_RETURN_EVERY_USEC * NSEC_PER_USEC};

	while (text_monotonic_usec() < until_usec) {
		/* Whoever hangs up at once is not asked as fast as can be either. */
		(void)nanosleep(&wait, NULL);
		if (client_connect(context->socket, ret) >= 0)
			return 0;
	}
	return -ECONNRESET;
}

/* A program that ends the daemon each time it is put in its place would be for ever. */
static bool may_ask_again(const char *method, unsigned n_lost)
{
	return n_lost <= 1 || !streq(method, "Reexec");
}

/* Make the call on that connection, and again on others. 0 or -errno. */
static int call(struct context *context, const char *method, json_t *parameters,
	struct client *client, struct varlink_reply *ret)
{
	_cleanup_free_ char *name =
		xasprintf("%s%s", strchr(method, '.') ? "" : CLIENT_INTERFACE, method);
	uint64_t limit = MIN(CONTEXT_ANSWER_USEC, context->options->timeout_usec), until = 0;
	unsigned n_lost = 0;
	int r;

	if (!name)
		return -ENOMEM;
	for (;;) {
		r = client_call(client, name, parameters, limit, ret);
		if (!context_is_gone(r) || !may_ask_again(method, ++n_lost))
			return r;
		client_done(client);
		if (until == 0) {
			until = text_monotonic_usec() + MIN(limit, CONTEXT_RETURN_USEC);
			output_remark(
				&context->output, "tenured is gone; waiting for the next one");
		}
		limit = MIN(limit, CONTEXT_RETURN_USEC);
		r = context_ask_again(parameters);
		if (r >= 0)
			r = connect_again(context, until, client);
		if (r < 0)
			return r;
	}
}

int context_call_take(struct context *context, const char *method, json_t *parameters,
	const char *service, json_t **ret)
{
	_cleanup_json_ json_t *owned = parameters;
	_cleanup_client_ struct client client = CLIENT_NULL;
	_cleanup_varlink_reply_ struct varlink_reply reply = {0};
	int r;

	if (!owned || (is_change(method) && context_name_request(owned) < 0))
		return context_out_of_memory(context);
	r = context_connect(context, &client);
	if (r != EXIT_DONE)
		return r;
	r = call(context, method, owned, &client, &reply);
	if (context_is_gone(r))
		return context_not_back(context, method);
	if (r < 0)
		return context_lost(context, method, r);
	if (reply.error)
		return problem_report(&context->output, service, reply.error, reply.parameters);
	if (ret)
		*ret = TAKE_PTR(reply.parameters);
	return EXIT_DONE;
}

int context_signals(void)
{
	sigset_t mask;
	int fd;

	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
		return -errno;
	fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int context_take_signal(int fd)
{
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return 0;
	return (int)info.ssi_signo;
}

const char *field_text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

const char *field_text_or(const json_t *object, const char *key, const char *otherwise)
{
	const char *s = field_text(object, key);

	return s ? s : otherwise;
}

long long field_int(const json_t *object, const char *key, long long otherwise)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

uint64_t field_usec(const json_t *object, const char *key)
{
	long long value = field_int(object, key, 0);

	return value < 0 ? 0 : (uint64_t)value;
}

double field_number(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

bool field_true(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

bool field_null(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return !value || json_is_null(value);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/context.h"

#include <signal.h>
#include <sys/signalfd.h>

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

	if (r >= 0)
		return EXIT_DONE;
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
			"tenured%s%s`, "
			"or `tenured -c FILE`, or say where it is with --socket",
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

int context_call_take(struct context *context, const char *method, json_t *parameters,
	const char *service, json_t **ret)
{
	_cleanup_json_ json_t *owned = parameters;
	_cleanup_client_ struct client client = CLIENT_NULL;
	_cleanup_varlink_reply_ struct varlink_reply reply = {0};
	_cleanup_free_ char *name =
		xasprintf("%s%s", strchr(method, '.') ? "" : CLIENT_INTERFACE, method);
	int r;

	if (!owned || !name)
		return context_out_of_memory(context);
	r = context_connect(context, &client);
	if (r != EXIT_DONE)
		return r;
	r = client_call(&client, name, owned, CONTEXT_ANSWER_USEC, &reply);
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

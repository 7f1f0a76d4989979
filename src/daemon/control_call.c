/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: from the message to the method, and from the method's answers to messages. */
#include "daemon/control_internal.h"

#include <assert.h>
#include <fcntl.h>
#include <stdarg.h>
#include <syslog.h>

#include "sys/user.h"

struct control_call *control_call_ref(struct control_call *call)
{
	assert(call->n_ref > 0);
	call->n_ref++;
	return call;
}

struct control_call *control_call_unref(struct control_call *call)
{
	if (!call)
		return NULL;
	assert(call->n_ref > 0);
	if (call->n_ref == 1 && call->conn)
		(void)control_call_failed(call, "the daemon has no answer to this");
	if (--call->n_ref == 0) {
		varlink_call_done(&call->wire);
		free(call);
	}
	return NULL;
}

void control_call_detach(struct control_call *call, bool tell)
{
	call->conn = NULL;
	call->member = NULL;
	if (tell && call->gone) {
		control_gone_t gone = call->gone;

		/* It may well let go of what it holds. */
		(void)control_call_ref(call);
		call->gone = NULL;
		gone(call, call->gone_userdata);
		(void)control_call_unref(call);
	}
}

/* The answer is given: the connection is free for its next call. */
static void end(struct control_call *call)
{
	struct control_conn *conn = call->conn;

	call->answered = true;
	call->conn = NULL;
	call->member = NULL;
	conn->call = NULL;
	control_conn_later(conn);
}

static void check_answer(
	const struct control_call *call, const char *error, const json_t *parameters)
{
	struct control_server *server = call->conn->server;
	_cleanup_json_ json_t *empty = parameters ? NULL : json_object();
	char path[VARLINK_PATH_MAX];

	if (!parameters && !empty)
		return;
	if (varlink_service_accepts_reply(
		    &server->service, call->member, error, parameters ? parameters : empty, path))
		return;
	if (server->ops.bad_reply)
		server->ops.bad_reply(control_call_method(call), path, server->ops.userdata);
	else
		control_report(server, LOG_ERR,
			"control: the answer to %s does not fit the interface at \"%s\"; please "
			"report this",
			control_call_method(call), path);
}

static int answer(
	struct control_call *call, const char *error, bool continues, json_t *parameters_take)
{
	_cleanup_json_ json_t *parameters = parameters_take;
	int r = 0;

	if (call->answered)
		return -ESTALE;
	if (!call->conn)
		return -ENOTCONN;
	if (continues && !call->wire.more)
		return 0;
	if (!call->wire.oneway) {
		check_answer(call, error, parameters);
		r = control_conn_send(call->conn, parameters, continues, error);
	}
	if (!continues)
		end(call);
	return r;
}

int control_call_reply(struct control_call *call, json_t *parameters_take)
{
	return answer(call, NULL, false, parameters_take);
}

size_t control_call_take_fds(struct control_call *call, int *ret)
{
	size_t n = call->conn ? call->conn->n_fds : 0;

	if (n == 0)
		return 0;
	memcpy(ret, call->conn->fds, n * sizeof(*ret));
	call->conn->n_fds = 0;
	return n;
}

int control_call_reply_fds(
	struct control_call *call, json_t *parameters_take, const int *fds, size_t n_fds)
{
	struct control_conn *conn = call->conn;

	for (size_t i = 0; conn && !call->wire.oneway && i < n_fds && i < CONTROL_FDS_MAX; i++) {
		int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);

		if (fd < 0) {
			int r = -errno;

			while (conn->n_out_fds > 0)
				close_fd(conn->out_fds[--conn->n_out_fds]);
			json_decref(parameters_take);
			return r;
		}
		conn->out_fds[conn->n_out_fds++] = fd;
	}
	return answer(call, NULL, false, parameters_take);
}

int control_call_notify(struct control_call *call, json_t *parameters_take)
{
	return answer(call, NULL, true, parameters_take);
}

int control_call_error(struct control_call *call, const char *name, json_t *parameters_take)
{
	_cleanup_free_ char *full = NULL;

	if (!strchr(name, '.')) {
		full = xasprintf("%s.%s", VARLINK_SUPERVISOR, name);
		name = full ? full : VARLINK_SUPERVISOR ".Failed";
	}
	return answer(call, name, false, parameters_take);
}

int control_call_failed(struct control_call *call, const char *format, ...)
{
	_cleanup_free_ char *message = NULL;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&message, format, ap) < 0)
		message = NULL;
	va_end(ap);

	json_t *text = message ? json_string(message) : NULL;
	if (!text)
		text = json_string(message ? "the reason cannot be shown" : "out of memory");
	return control_call_error(call, "Failed", json_pack("{s:o}", "message", text));
}

int control_call_invalid_parameter(struct control_call *call, const char *parameter)
{
	return control_call_error(
		call, VARLINK_INVALID_PARAMETER, json_pack("{s:s}", "parameter", parameter));
}

static int not_permitted(struct control_call *call, enum control_role role)
{
	_cleanup_free_ char *message = NULL;

	if (role == CONTROL_OPERATOR)
		message = xasprintf("%s may not change anything here: operators may, and the "
				    "configuration names them in control: operators:",
			control_call_peer_text(call));
	else
		message = xasprintf("%s may not look here: observers and operators may, and the "
				    "configuration names them in control:",
			control_call_peer_text(call));
	return control_call_error(call, "NotPermitted",
		json_pack("{s:s, s:s}", "method", control_call_method(call), "message",
			message ? message : "not permitted"));
}

bool control_call_require(struct control_call *call, enum control_role role)
{
	if (call->role >= role)
		return true;
	(void)not_permitted(call, role);
	return false;
}

enum control_role control_call_role(const struct control_call *call)
{
	return call->role;
}

bool control_call_wants_more(const struct control_call *call)
{
	return call->wire.more;
}

bool control_call_is_over(const struct control_call *call)
{
	return !call->conn;
}

const char *control_call_method(const struct control_call *call)
{
	const char *dot = strrchr(call->wire.method, '.');

	return dot ? dot + 1 : call->wire.method;
}

const struct peer *control_call_peer(const struct control_call *call)
{
	return call->conn ? &call->conn->peer : NULL;
}

const char *control_call_peer_text(struct control_call *call)
{
	if (call->peer_text[0])
		return call->peer_text;

	/* Looked up only where somebody reads it: name services can be slow. */
	_cleanup_free_ char *name = user_name_of(call->uid);
	if (call->pid > 0) /* 0: from another pid namespace */
		(void)snprintf(call->peer_text, sizeof(call->peer_text), "%.40s (pid %d)",
			name ? name : "?", (int)call->pid);
	else
		(void)snprintf(
			call->peer_text, sizeof(call->peer_text), "%.40s", name ? name : "?");
	return call->peer_text;
}

void control_call_on_gone(struct control_call *call, control_gone_t callback, void *userdata)
{
	call->gone = callback;
	call->gone_userdata = userdata;
}

static void dispatch(struct control_conn *conn, struct control_call *call)
{
	struct control_server *server = conn->server;

	if (!control_call_require(call, CONTROL_OBSERVER))
		return;
	int r = server->ops.dispatch(
		call, control_call_method(call), call->wire.parameters, server->ops.userdata);
	if (r < 0 && call->conn)
		(void)control_call_failed(call, "%s", strerror(-r));
}

static int parse(
	struct control_conn *conn, const char *message, size_t len, struct varlink_call *ret)
{
	int r = varlink_call_parse(message, len, conn->server->limits.depth, ret);

	if (r == -ENOMEM)
		control_conn_kill(conn, "out of memory");
	else if (r == -ELOOP)
		control_conn_kill(conn, "its message is nested too deep");
	else if (r < 0)
		control_conn_kill(conn, "its message is not a Varlink call");
	return r;
}

static struct control_call *call_new(
	struct control_conn *conn, struct varlink_call *wire, const struct varlink_member *member)
{
	struct control_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	*call = (struct control_call){
		.n_ref = 1,
		.conn = conn,
		.wire = *wire,
		.member = member,
		.role = control_server_role(conn->server, &conn->peer),
		.uid = conn->peer.uid,
		.pid = conn->peer.pid,
	};
	*wire = (struct varlink_call){0};
	conn->call = call;
	return call;
}

int control_conn_resume(struct control_conn *conn, const char *message, size_t len,
	const json_t *saved, const struct control_exec_ops *ops)
{
	const struct varlink_member *member = NULL;
	struct varlink_answer ready = {0};
	_cleanup_varlink_call_ struct varlink_call wire = {0};
	struct control_call *call;
	int r = varlink_call_parse(message, len, conn->server->limits.depth, &wire);

	if (r >= 0)
		r = varlink_service_handle(&conn->server->service, &wire, &member, &ready);
	if (r > 0) {
		json_decref(ready.parameters);
		return -EBADMSG;
	}
	call = r < 0 ? NULL : call_new(conn, &wire, member);
	if (!call)
		return r < 0 ? r : -ENOMEM;
	ops->load(call, saved, ops->userdata);
	(void)control_call_unref(call);
	return 0;
}

void control_conn_handle(struct control_conn *conn, const char *message, size_t len)
{
	const struct varlink_member *member = NULL;
	struct varlink_answer ready = {0};
	_cleanup_varlink_call_ struct varlink_call wire = {0};

	int r = parse(conn, message, len, &wire);
	varlink_framing_pop(&conn->in); /* message is gone with it */
	if (r < 0)
		return;

	r = varlink_service_handle(&conn->server->service, &wire, &member, &ready);
	if (r > 0) {
		if (!wire.oneway)
			(void)control_conn_send(conn, ready.parameters, false, ready.error);
		json_decref(ready.parameters);
		return;
	}
	struct control_call *call = r < 0 ? NULL : call_new(conn, &wire, member);
	if (!call) {
		control_conn_kill(conn, "out of memory");
		return;
	}
	dispatch(conn, call);
	(void)control_call_unref(call);
}

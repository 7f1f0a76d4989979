/* SPDX-License-Identifier: Apache-2.0 */
/* The server: its socket, who is let in, what is held against whom. */
#include "daemon/control_internal.h"
#include "daemon/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <syslog.h>

#include "base/clock.h"
#include "sys/listen.h"

enum {
	BACKLOG = 128,
	ACCEPTS_PER_TURN = 16,
	OPERATOR_EXTRA = 16,
};
#define ACCEPT_PAUSE_USEC (1 * USEC_PER_SEC)
#define COMPLAINT_INTERVAL_USEC (10 * USEC_PER_SEC)

static const struct varlink_identity identity = {
	.vendor = "tenured",
	.product = "tenured",
	.version = PACKAGE_VERSION,
	.url = PACKAGE_URL,
};

void control_report(const struct control_server *server, int priority, const char *format, ...)
{
	_cleanup_free_ char *message = NULL;
	va_list ap;

	if (!server->ops.report)
		return;
	va_start(ap, format);
	if (vasprintf(&message, format, ap) < 0)
		message = NULL;
	va_end(ap);
	server->ops.report(
		priority, message ? message : "control: out of memory", server->ops.userdata);
}

void control_complain(struct control_server *server, const char *format, ...)
{
	_cleanup_free_ char *message = NULL;
	uint64_t now_usec = control_now_usec(server);
	va_list ap;

	if (server->last_complaint_usec > 0 &&
		now_usec - server->last_complaint_usec < COMPLAINT_INTERVAL_USEC) {
		server->n_complaints_held++;
		return;
	}
	va_start(ap, format);
	if (vasprintf(&message, format, ap) < 0)
		message = NULL;
	va_end(ap);
	if (server->n_complaints_held > 0)
		control_report(server, LOG_NOTICE,
			"%s (and %u more complaints of clients before it)",
			message ? message : "out of memory", server->n_complaints_held);
	else
		control_report(server, LOG_NOTICE, "%s", message ? message : "out of memory");
	server->last_complaint_usec = now_usec;
	server->n_complaints_held = 0;
}

uint64_t control_now_usec(const struct control_server *server)
{
	uint64_t now_usec = 0;

	/* 1: the loop has not turned yet, the time is right all the same. */
	(void)sd_event_now(server->event, CLOCK_MONOTONIC, &now_usec);
	return now_usec;
}

/* --- who is let in --- */

void control_resume_accept(struct control_server *server)
{
	int enabled;

	if (!server->accept_timer ||
		sd_event_source_get_enabled(server->accept_timer, &enabled) <= 0)
		return;
	(void)sd_event_source_set_enabled(server->accept_timer, SD_EVENT_OFF);
	(void)sd_event_source_set_enabled(server->accept_source, SD_EVENT_ON);
}

static int on_accept_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	struct control_server *server = userdata;

	(void)sd_event_source_set_enabled(server->accept_source, SD_EVENT_ON);
	return 0;
}

/* The connection stays in the queue and the socket readable: without a pause the loop would spin.
 */
static void pause_accept(struct control_server *server, int error)
{
	control_complain(server, "control: cannot take connections for now: %s", strerror(error));
	if (sd_event_source_set_time(
		    server->accept_timer, control_now_usec(server) + ACCEPT_PAUSE_USEC) < 0 ||
		sd_event_source_set_enabled(server->accept_timer, SD_EVENT_ONESHOT) < 0)
		return; /* then rather spin than never accept again */
	(void)sd_event_source_set_enabled(server->accept_source, SD_EVENT_OFF);
}

static const char *why_not(const struct control_server *server, const struct peer *peer)
{
	const struct control_limits *limits = &server->limits;
	unsigned n = 0;

	/* A crowd of others must not lock an operator out. */
	if (control_server_role(server, peer) == CONTROL_OPERATOR)
		return server->n_conns < limits->connections + OPERATOR_EXTRA
			       ? NULL
			       : "too many connections";
	if (server->n_conns >= limits->connections)
		return "too many connections";
	for (const struct control_conn *c = server->conns; c; c = c->next)
		if (c->peer.uid == peer->uid)
			n++;
	return n < limits->connections_per_uid ? NULL : "its user has too many connections";
}

static int take_connection(struct control_server *server, int *fd)
{
	struct peer peer = {0};

	int r = peer_of(*fd, &peer);
	if (r >= 0) {
		const char *reason = why_not(server, &peer);

		if (reason)
			control_complain(server,
				"control: connection of pid %d, uid %u refused: %s", (int)peer.pid,
				(unsigned)peer.uid, reason);
		else
			r = control_conn_new(server, fd, &peer);
	}
	peer_done(&peer);
	return r;
}

static int on_accept(sd_event_source *source, int listen_fd, uint32_t revents, void *userdata)
{
	struct control_server *server = userdata;

	(void)source;
	(void)revents;
	for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
		_cleanup_close_ int fd =
			accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0) {
			if (errno != EAGAIN)
				pause_accept(server, errno);
			break;
		}
		int r = take_connection(server, &fd);
		if (r < 0)
			control_complain(server, "control: connection refused: %s", strerror(-r));
	}
	return 0;
}

/* --- what waits --- */

static int on_later(sd_event_source *source, void *userdata)
{
	struct control_server *server = userdata;

	(void)source;
	for (struct control_conn *c = server->conns, *next; c; c = next) {
		next = c->next;
		if (c->dirty)
			control_conn_advance(c);
	}
	return 0;
}

void control_arm_stall_timer(struct control_server *server, uint64_t at_usec)
{
	int enabled;

	/* It looks at all connections when it fires, so an earlier time than needed does no harm.
	 */
	if (sd_event_source_get_enabled(server->stall_timer, &enabled) > 0)
		return;
	(void)sd_event_source_set_time(server->stall_timer, at_usec);
	(void)sd_event_source_set_enabled(server->stall_timer, SD_EVENT_ONESHOT);
}

static int on_stall_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct control_server *server = userdata;
	uint64_t now_usec = control_now_usec(server), oldest_usec = 0;

	(void)source;
	(void)usec;
	for (struct control_conn *c = server->conns; c; c = c->next) {
		const uint64_t since_usec[] = {c->in_since_usec, c->out_since_usec};

		for (size_t i = 0; i < ARRAY_SIZE(since_usec); i++) {
			if (since_usec[i] == 0)
				continue;
			if (now_usec - since_usec[i] >= server->limits.stall_usec)
				control_conn_kill(
					c, i == 0 ? "it began a message and does not end it"
						  : "it does not read what it is sent");
			else if (oldest_usec == 0 || since_usec[i] < oldest_usec)
				oldest_usec = since_usec[i];
		}
	}
	if (oldest_usec > 0)
		control_arm_stall_timer(server, oldest_usec + server->limits.stall_usec);
	return 0;
}

/* --- the socket --- */

/* /run/tenured or a user's runtime directory may not have ours yet. */
static int make_parents(const char *path)
{
	_cleanup_free_ char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

static int parse_path(const char *path, struct address *ret, struct error *ret_error)
{
	_cleanup_free_ char *text = xasprintf("unix:%s", path ? path : "");

	if (!text)
		return error_set(ret_error, -ENOMEM, "out of memory");
	int r = path && path[0] ? address_parse(text, false, ret) : -EINVAL;
	if (r == -ENAMETOOLONG)
		return error_set(
			ret_error, r, "control socket %s: the path is longer than 107 bytes", path);
	if (r < 0)
		return error_set(ret_error, r,
			"control socket \"%s\": an absolute path or @NAME is expected",
			path ? path : "");
	return 0;
}

static int bind_path(
	const char *path, const struct address *address, mode_t mode, struct error *ret_error)
{
	const struct listen_options options = {
		.backlog = BACKLOG,
		.mode = mode,
		.mode_set = true,
		.owner = (uid_t)-1,
		.group = (gid_t)-1,
		.socket_uid = (uid_t)-1,
	};

	int r = path[0] == '/' ? make_parents(path) : 0;
	if (r < 0) {
		error_set_errno(ret_error, r, "control socket %s: cannot make its directory", path);
		return sandbox_explain(ret_error, r, SANDBOX_FILE, path);
	}
	int fd = listen_open_unix(address, &options);
	if (fd == -EADDRINUSE)
		return error_set(ret_error, fd,
			"control socket %s: another daemon answers there; stop it, or use another "
			"path",
			path);
	if (fd == -EEXIST)
		return error_set(ret_error, fd,
			"control socket %s: there is a file that is not a socket; remove it, or "
			"use another path",
			path);
	if (fd < 0) {
		error_set_errno(ret_error, fd, "control socket %s", path);
		(void)sandbox_explain(ret_error, fd, SANDBOX_FILE, path);
	}
	return fd;
}

/* One that was made by the daemon before us. */
static int adopt_socket(int listen_fd, const char *path, struct error *ret_error)
{
	int listening = 0, domain = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(listen_fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening ||
		getsockopt(listen_fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
		domain != AF_UNIX)
		return error_set(ret_error, -EINVAL,
			"control socket %s: what was handed over for it is no listening Unix "
			"socket",
			path);
	if (fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK) < 0 ||
		fcntl(listen_fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_set_errno(ret_error, -errno, "control socket %s", path);
	return listen_fd;
}

static void remove_path(struct control_server *server)
{
	if (server->ino != 0 && !server->keep_path)
		(void)listen_unlink(&server->address, server->dev, server->ino);
	server->ino = 0;
}

/* Serve what fd listens on in place of what was served so far. Takes fd and path on success. */
static int serve_socket(
	struct control_server *server, int *fd, char **path, const struct address *address)
{
	_cleanup_(sd_event_source_disable_unrefp) sd_event_source *source = NULL;

	int r = sd_event_add_io(server->event, &source, *fd, EPOLLIN, on_accept, server);
	if (r >= 0)
		r = sd_event_source_set_priority(source, server->priority);
	if (r < 0)
		return r;
	(void)sd_event_source_set_description(source, "control-accept");

	sd_event_source_disable_unref(server->accept_source);
	remove_path(server);
	(void)close_fd(server->fd);
	free(server->path);
	server->accept_source = TAKE_PTR(source);
	server->fd = TAKE_FD(*fd);
	server->path = TAKE_PTR(*path);
	server->address = *address;
	if (listen_path_identity(address, &server->dev, &server->ino) < 0)
		server->ino = 0;
	return 0;
}

/* --- settings --- */

static void or_default(size_t *value, size_t default_value)
{
	if (*value == 0)
		*value = default_value;
}

static struct control_limits with_defaults(struct control_limits limits)
{
	or_default(&limits.message, VARLINK_MESSAGE_MAX);
	or_default(&limits.output, 4 * 1024 * 1024);
	or_default(&limits.bytes_per_uid, 16 * 1024 * 1024);
	limits.connections = limits.connections ? limits.connections : 256;
	limits.connections_per_uid = limits.connections_per_uid ? limits.connections_per_uid : 32;
	limits.depth = limits.depth ? limits.depth : VARLINK_DEPTH_MAX;
	limits.stall_usec = limits.stall_usec ? limits.stall_usec : 30 * USEC_PER_SEC;
	return limits;
}

struct settings {
	struct address address;
	char *path;
	int fd; /* -1: the path stays as it is */
	struct control_roles operators, observers;
};

static void settings_done(struct settings *settings)
{
	free(settings->path);
	settings->fd = close_fd(settings->fd);
	control_roles_done(&settings->operators);
	control_roles_done(&settings->observers);
}

/* All that can fail but the socket, into *ret, which the caller cleans up in any case. */
static int prepare(const struct control_server *server,
	const struct control_server_options *options, struct settings *ret, struct error *ret_error)
{
	int r = parse_path(options->path, &ret->address, ret_error);
	if (r < 0)
		return r;
	ret->path = strdup(options->path);
	if (!ret->path ||
		control_roles_resolve(server, options->operators, "operators", &ret->operators) <
			0 ||
		control_roles_resolve(server, options->observers, "observers", &ret->observers) < 0)
		return error_set(ret_error, -ENOMEM, "out of memory");
	return 0;
}

static void apply(struct control_server *server, const struct control_server_options *options,
	struct settings *settings)
{
	control_roles_done(&server->operators);
	control_roles_done(&server->observers);
	server->operators = settings->operators;
	server->observers = settings->observers;
	settings->operators = settings->observers = (struct control_roles){0};
	/* A list of names none of which exists still shuts the others out. */
	server->observers_all = !options->observers || !options->observers[0];
	server->limits = with_defaults(options->limits);
	for (struct control_conn *c = server->conns; c; c = c->next) {
		c->in.max_message = server->limits.message;
		c->out.limit = server->limits.output;
	}
}

int control_server_reconfigure(struct control_server *server,
	const struct control_server_options *options, struct error *ret_error)
{
	_cleanup_(settings_done) struct settings settings = {.fd = -1};

	int r = prepare(server, options, &settings, ret_error);
	if (r < 0)
		return r;
	if (!streq(settings.path, server->path)) {
		settings.fd = bind_path(settings.path, &settings.address, options->mode, ret_error);
		if (settings.fd < 0)
			return settings.fd;
		r = serve_socket(server, &settings.fd, &settings.path, &settings.address);
		if (r < 0) {
			if (options->path[0] == '/')
				(void)unlink(options->path);
			return error_set_errno(ret_error, r, "control socket %s", options->path);
		}
	} else if (settings.path[0] == '/' && chmod(settings.path, options->mode) < 0) {
		return error_set_errno(
			ret_error, -errno, "control socket %s: cannot set its mode", settings.path);
	}
	apply(server, options, &settings);
	return 0;
}

static int add_timers(struct control_server *server)
{
	struct {
		sd_event_source **source;
		sd_event_time_handler_t handler;
	} timers[] = {
		{&server->accept_timer, on_accept_timer},
		{&server->stall_timer,  on_stall_timer },
	};

	for (size_t i = 0; i < ARRAY_SIZE(timers); i++) {
		int r = sd_event_add_time(server->event, timers[i].source, CLOCK_MONOTONIC, 0, 0,
			timers[i].handler, server);
		if (r >= 0)
			r = sd_event_source_set_enabled(*timers[i].source, SD_EVENT_OFF);
		if (r >= 0)
			r = sd_event_source_set_priority(*timers[i].source, server->priority);
		if (r < 0)
			return r;
	}
	int r = sd_event_add_defer(server->event, &server->later, on_later, server);
	if (r >= 0)
		r = sd_event_source_set_enabled(server->later, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_source_set_priority(server->later, server->priority);
	return r;
}

int control_server_new(sd_event *event, const struct control_server_options *options,
	const struct control_server_ops *ops, struct control_server **ret, struct error *ret_error)
{
	_cleanup_(control_server_free_p) struct control_server *server = calloc(1, sizeof(*server));
	_cleanup_(settings_done) struct settings settings = {.fd = -1};

	if (!server)
		return error_set(ret_error, -ENOMEM, "out of memory");
	server->event = sd_event_ref(event);
	server->ops = *ops;
	server->priority = options->priority;
	server->fd = -1;
	int r = varlink_service_init(&server->service, &identity, ret_error);
	if (r < 0)
		return r;
	r = prepare(server, options, &settings, ret_error);
	if (r < 0)
		return r;
	r = add_timers(server);
	if (r < 0)
		return error_set_errno(ret_error, r, "control socket %s", options->path);

	int fd = options->listen_fd >= 0
			 ? adopt_socket(options->listen_fd, options->path, ret_error)
			 : bind_path(options->path, &settings.address, options->mode, ret_error);
	if (fd < 0)
		return fd;
	r = serve_socket(server, &fd, &settings.path, &settings.address);
	if (r < 0) {
		if (options->listen_fd < 0)
			(void)close_fd(fd);
		return error_set_errno(ret_error, r, "control socket %s", options->path);
	}
	apply(server, options, &settings);
	*ret = TAKE_PTR(server);
	return 0;
}

struct control_server *control_server_free(struct control_server *server)
{
	if (!server)
		return NULL;
	sd_event_source_disable_unref(server->accept_source);
	server->accept_source = NULL;
	server->accept_timer = sd_event_source_disable_unref(server->accept_timer);
	while (server->conns)
		control_conn_free(server->conns, false);
	sd_event_source_disable_unref(server->stall_timer);
	sd_event_source_disable_unref(server->later);
	remove_path(server);
	(void)close_fd(server->fd);
	free(server->path);
	control_roles_done(&server->operators);
	control_roles_done(&server->observers);
	varlink_service_done(&server->service);
	sd_event_unref(server->event);
	free(server);
	return NULL;
}

void control_server_keep_path(struct control_server *server)
{
	server->keep_path = true;
}

int control_server_fd(const struct control_server *server)
{
	return server->fd;
}

const char *control_server_path(const struct control_server *server)
{
	return server->path;
}

unsigned control_server_n_connections(const struct control_server *server)
{
	return server->n_conns;
}

void control_server_flush(struct control_server *server, uint64_t timeout_usec)
{
	uint64_t end_usec = monotonic_usec() + timeout_usec;

	for (struct control_conn *c = server->conns; c; c = c->next) {
		while (!c->dead && c->out.len > 0) {
			struct pollfd pollfd = {.fd = c->fd, .events = POLLOUT};
			uint64_t now_usec = monotonic_usec();

			if (now_usec >= end_usec ||
				poll(&pollfd, 1,
					(int)((end_usec - now_usec) / USEC_PER_MSEC) + 1) <= 0)
				return;
			(void)control_conn_write(c);
		}
	}
}

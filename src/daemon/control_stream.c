/* SPDX-License-Identifier: Apache-2.0 */
/* One connection's bytes. Strictly one call at a time: nothing is read while a call is being
 * answered or its answer was not taken, so a client that sends much or reads little is slowed down
 * by its own socket buffers, and what the daemon keeps for it is bounded by one message and one
 * answer (or, with "more", by the output limit). */
#include "daemon/control_internal.h"

#include <assert.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { READ_SIZE = 16 * 1024, CALLS_PER_TURN = 32 };

static bool is_idle(const struct control_conn *conn)
{
	return !conn->dead && !conn->call && conn->out.len == 0;
}

void control_conn_later(struct control_conn *conn)
{
	if (conn->busy)
		return; /* it is being advanced just now */
	conn->dirty = true;
	(void)sd_event_source_set_enabled(conn->server->later, SD_EVENT_ONESHOT);
}

void control_conn_kill(struct control_conn *conn, const char *reason)
{
	if (conn->dead)
		return;
	if (reason)
		control_complain(conn->server, "control: connection of pid %d, uid %u closed: %s",
			(int)conn->peer.pid, (unsigned)conn->peer.uid, reason);
	conn->dead = true;
	control_conn_later(conn);
}

static size_t held_bytes(const struct control_conn *conn)
{
	return conn->in.bytes.len + conn->out.len;
}

/* All connections of a uid share one allowance, so that many of them are no way around the limits
 * of one. */
static bool over_allowance(const struct control_conn *conn)
{
	const struct control_server *server = conn->server;
	size_t sum = 0;

	if (held_bytes(conn) < READ_SIZE ||
		control_server_role(server, &conn->peer) == CONTROL_OPERATOR)
		return false;
	for (const struct control_conn *c = server->conns; c; c = c->next)
		if (c->peer.uid == conn->peer.uid)
			sum += held_bytes(c);
	return sum > server->limits.bytes_per_uid;
}

int control_conn_write(struct control_conn *conn)
{
	while (conn->out.len > 0) {
		ssize_t n = fdpass_send(conn->fd, buffer_data(&conn->out), conn->out.len,
			conn->out_fds, conn->n_out_fds);

		if (n == -EAGAIN)
			return 0;
		if (n < 0) {
			control_conn_kill(conn, NULL);
			return -ENOTCONN;
		}
		while (conn->n_out_fds > 0)
			close_fd(conn->out_fds[--conn->n_out_fds]);
		buffer_consume(&conn->out, (size_t)n);
		conn->out_since_usec = 0; /* the time begins anew with each byte taken */
	}
	return 0;
}

int control_conn_send(
	struct control_conn *conn, const json_t *parameters, bool continues, const char *error)
{
	bool first = conn->out.len == 0;

	if (conn->dead)
		return -ENOTCONN;
	int r = varlink_reply_write(parameters, continues, error, &conn->out);
	if (r >= 0 && over_allowance(conn))
		r = -EMSGSIZE;
	if (r < 0) {
		control_conn_kill(conn,
			r == -EMSGSIZE ? "it does not read what it is sent" : "out of memory");
		return r == -EMSGSIZE ? -ENOBUFS : r;
	}
	if (first)
		r = control_conn_write(conn);
	control_conn_later(conn);
	return r;
}

void control_conn_drop_fds(struct control_conn *conn)
{
	while (conn->n_fds > 0)
		close_fd(conn->fds[--conn->n_fds]);
}

static void read_some(struct control_conn *conn)
{
	uint8_t data[READ_SIZE];
	size_t n_fds = 0;
	ssize_t n = fdpass_receive(conn->fd, data, sizeof(data), conn->fds + conn->n_fds,
		CONTROL_FDS_MAX - conn->n_fds, &n_fds);

	conn->n_fds += n_fds;
	/* Nobody else has a use for them. */
	if (conn->n_fds > 0 && control_server_role(conn->server, &conn->peer) != CONTROL_OPERATOR)
		control_conn_drop_fds(conn);
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		conn->end_of_input = true;
		return;
	}
	int r = varlink_framing_append(&conn->in, data, (size_t)n);
	if (r == -EMSGSIZE)
		control_conn_kill(conn, "its message is too long");
	else if (r < 0)
		control_conn_kill(conn, "out of memory");
	else if (over_allowance(conn))
		control_conn_kill(conn, "its user has too much waiting");
}

static bool is_finished(const struct control_conn *conn)
{
	if (conn->dead)
		return true;
	return is_idle(conn) && conn->end_of_input && !varlink_framing_ready(&conn->in);
}

/* Only the client's own slowness is timed, not the daemon's: what it began while we read, and what
 * we sent. */
static void time_client(struct control_conn *conn, bool reading)
{
	uint64_t now_usec = control_now_usec(conn->server);

	if (!reading || conn->in.unfinished == 0)
		conn->in_since_usec = 0;
	else if (conn->in_since_usec == 0)
		conn->in_since_usec = now_usec;
	if (conn->out.len == 0)
		conn->out_since_usec = 0;
	else if (conn->out_since_usec == 0)
		conn->out_since_usec = now_usec;
	if (conn->in_since_usec > 0 || conn->out_since_usec > 0)
		control_arm_stall_timer(conn->server, now_usec + conn->server->limits.stall_usec);
}

static int watch(struct control_conn *conn)
{
	bool reading = is_idle(conn) && !conn->end_of_input && !varlink_framing_ready(&conn->in);
	uint32_t events = (reading ? EPOLLIN : 0) | (conn->out.len > 0 ? EPOLLOUT : 0);

	time_client(conn, reading);
	/* A hangup cannot be masked. Where it has been seen and there is still something to do
	 * without the client, look away until it is done. */
	bool look = !conn->hung_up || reading || conn->out.len > 0;
	int r = sd_event_source_set_io_events(conn->source, events);
	if (r >= 0)
		r = sd_event_source_set_enabled(conn->source, look ? SD_EVENT_ON : SD_EVENT_OFF);
	return r;
}

void control_conn_advance(struct control_conn *conn)
{
	unsigned n = 0;

	conn->busy = true;
	conn->dirty = false;
	while (is_idle(conn) && varlink_framing_ready(&conn->in) && n++ < CALLS_PER_TURN) {
		const char *message;
		size_t len;

		(void)varlink_framing_peek(&conn->in, &message, &len);
		control_conn_handle(conn, message, len);
		/* What its call did not take belongs to nobody. */
		if (!varlink_framing_ready(&conn->in) && conn->in.unfinished == 0)
			control_conn_drop_fds(conn);
	}
	/* Nobody is there to read the answer. A oneway call has none, and what was sent with it
	 * still counts. */
	if (conn->hung_up && conn->call && !conn->call->wire.oneway)
		control_conn_kill(conn, NULL);
	if (!is_finished(conn) && watch(conn) < 0)
		control_conn_kill(conn, "out of memory");
	conn->busy = false;

	if (is_finished(conn))
		control_conn_free(conn, true);
	else if (is_idle(conn) && varlink_framing_ready(&conn->in))
		control_conn_later(conn); /* others first */
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct control_conn *conn = userdata;

	(void)source;
	(void)fd;
	if (revents & (EPOLLHUP | EPOLLERR))
		conn->hung_up = true;
	if (revents & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		(void)control_conn_write(conn);
	if ((revents & (EPOLLIN | EPOLLHUP | EPOLLERR)) && is_idle(conn) && !conn->end_of_input &&
		!varlink_framing_ready(&conn->in))
		read_some(conn);
	control_conn_advance(conn);
	return 0;
}

int control_conn_new(struct control_server *server, int *fd, struct peer *peer)
{
	struct control_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return -ENOMEM;
	conn->server = server;
	conn->in = VARLINK_FRAMING_INIT(server->limits.message);
	conn->out = BUFFER_INIT(server->limits.output);
	int r = sd_event_add_io(server->event, &conn->source, *fd, EPOLLIN, on_io, conn);
	if (r >= 0)
		r = sd_event_source_set_priority(conn->source, server->priority);
	if (r < 0) {
		sd_event_source_disable_unref(conn->source);
		free(conn);
		return r;
	}
	conn->fd = TAKE_FD(*fd);
	conn->peer = *peer;
	*peer = (struct peer){0};
	conn->next = server->conns;
	if (conn->next)
		conn->next->previous = conn;
	server->conns = conn;
	server->n_conns++;
	return 0;
}

void control_conn_free(struct control_conn *conn, bool tell)
{
	struct control_server *server = conn->server;
	struct control_call *call = conn->call;

	if (conn->previous)
		conn->previous->next = conn->next;
	else
		server->conns = conn->next;
	if (conn->next)
		conn->next->previous = conn->previous;
	server->n_conns--;

	sd_event_source_disable_unref(conn->source);
	conn->fd = close_fd(conn->fd);
	varlink_framing_done(&conn->in);
	buffer_done(&conn->out);
	control_conn_drop_fds(conn);
	while (conn->n_out_fds > 0)
		close_fd(conn->out_fds[--conn->n_out_fds]);
	peer_done(&conn->peer);
	free(conn);
	control_resume_accept(server);
	if (call)
		control_call_detach(call, tell);
}

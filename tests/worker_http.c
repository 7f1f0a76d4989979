/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum connection_state {
	CONNECTION_IDLE,    /* no byte of a request is here */
	CONNECTION_READING, /* some are */
	CONNECTION_SLEEPING,
	CONNECTION_WRITING,
	CONNECTION_SILENT, /* never answers; ends when the client closes */
};

struct connection {
	struct source source;
	enum connection_state state;
	bool keep, watched;
	uint32_t watched_for;
	struct connection *previous, *next;

	char in[REQUEST_MAX];
	size_t n_in;

	struct answer answer;
	char head[2048];       /* and a short body, to send both in one */
	size_t n_head, n_sent; /* sent: of head, body and filler together */
	uint64_t wake_usec;    /* when sleeping */
};

static void connection_free(struct worker *worker, struct connection *connection)
{
	if (connection->previous)
		connection->previous->next = connection->next;
	else
		worker->connections = connection->next;
	if (connection->next)
		connection->next->previous = connection->previous;
	worker->n_connections--;

	close(connection->source.fd);
	free(connection->answer.body);
	free(connection);
}

static void connection_watch(struct worker *worker, struct connection *connection, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = connection};

	if (connection->watched && connection->watched_for == events)
		return;
	if (epoll_ctl(worker->epoll_fd, connection->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
		    connection->source.fd, &event) < 0)
		tool_die(EXIT_USAGE, "epoll_ctl: %s", strerror(errno));
	connection->watched = true;
	connection->watched_for = events;
}

/* ---- answering ---- */

/* Content-Length even of a chunked body is known here: a chunk is the body in one. */
static void make_head(struct worker *worker, struct connection *connection)
{
	struct answer *answer = &connection->answer;
	uint64_t length = answer->n_body + answer->filler + answer->missing;
	char framing[64], generation[96] = "", index[96] = "";

	connection->n_head = 0;
	if (answer->status == 0)
		return;
	if (answer->chunked) {
		char *body;
		int n = asprintf(&body, "%zx\r\n%s\r\n0\r\n\r\n", answer->n_body, answer->body);

		if (n < 0)
			tool_die(EXIT_USAGE, "out of memory");
		free(answer->body);
		answer->body = body;
		answer->n_body = (size_t)n;
		(void)snprintf(framing, sizeof(framing), "Transfer-Encoding: chunked");
	} else
		(void)snprintf(framing, sizeof(framing), "Content-Length: %ju", (uintmax_t)length);

	if (worker->generation)
		(void)snprintf(generation, sizeof(generation), "X-Tenure-Generation: %.60s\r\n",
			worker->generation);
	if (worker->index)
		(void)snprintf(index, sizeof(index), "X-Tenure-Worker: %.60s\r\n", worker->index);
	connection->n_head = (size_t)snprintf(connection->head, sizeof(connection->head),
		"HTTP/1.1 %u %s\r\n%sX-Pid: %d\r\n%s%s\r\nConnection: %s\r\n\r\n", answer->status,
		answer->status < 400 ? "OK" : "Error", generation, (int)worker->pid, index, framing,
		connection->keep ? "keep-alive" : "close");
	if (answer->n_body > 0 && answer->n_body < sizeof(connection->head) - connection->n_head &&
		answer->mid_delay_usec == 0) {
		memcpy(connection->head + connection->n_head, answer->body, answer->n_body);
		connection->n_head += answer->n_body;
		answer->n_body = 0;
	}
}

/* The next bytes to send, from wherever the last write stopped. */
static size_t next_bytes(const struct connection *connection, const char **ret)
{
	static char filler[65536];
	const struct answer *answer = &connection->answer;
	uint64_t at = connection->n_sent;

	if (at < connection->n_head) {
		*ret = connection->head + at;
		return connection->n_head - (size_t)at;
	}
	at -= connection->n_head;
	if (at < answer->n_body) {
		*ret = answer->body + at;
		return answer->n_body - (size_t)at;
	}
	at -= answer->n_body;
	if (filler[0] == '\0')
		memset(filler, '.', sizeof(filler));
	*ret = filler;
	if (at >= answer->filler)
		return 0;
	return answer->filler - at < sizeof(filler) ? (size_t)(answer->filler - at)
						    : sizeof(filler);
}

static void connection_sleep(struct worker *worker, struct connection *connection, uint64_t usec)
{
	connection->state = CONNECTION_SLEEPING;
	connection->wake_usec = tool_now_usec() + usec;
	if (connection->wake_usec < worker->next_wake_usec)
		worker->next_wake_usec = connection->wake_usec;
	connection_watch(worker, connection, 0);
}

/* All was sent. Returns false when the connection is gone. */
static bool connection_finish(struct worker *worker, struct connection *connection)
{
	static const struct linger zero = {.l_onoff = 1};

	worker->n_served++;
	switch (connection->answer.end) {
	case END_KEEP:
		if (!connection->keep)
			break;
		free(connection->answer.body);
		connection->answer.body = NULL;
		connection->state = connection->n_in > 0 ? CONNECTION_READING : CONNECTION_IDLE;
		return true;
	case END_CLOSE:
		break;
	case END_RESET:
		(void)setsockopt(connection->source.fd, SOL_SOCKET, SO_LINGER, &zero, sizeof(zero));
		break;
	case END_SILENT:
		connection->state = CONNECTION_SILENT;
		connection_watch(worker, connection, EPOLLIN | EPOLLRDHUP);
		return true;
	case END_CRASH:
		manners_crash(worker);
	}
	connection_free(worker, connection);
	return false;
}

/* Returns false when the connection is gone. */
static bool connection_write(struct worker *worker, struct connection *connection)
{
	struct answer *answer = &connection->answer;
	const char *bytes;
	size_t len;

	connection->state = CONNECTION_WRITING;
	while ((len = next_bytes(connection, &bytes)) > 0 || answer->mid_delay_usec > 0) {
		ssize_t n;

		if (connection->n_sent == connection->n_head && answer->mid_delay_usec > 0) {
			uint64_t usec = answer->mid_delay_usec;

			answer->mid_delay_usec = 0;
			connection_sleep(worker, connection, usec);
			return true;
		}
		n = send(connection->source.fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			connection_watch(worker, connection, EPOLLOUT);
			return true;
		}
		if (n < 0) {
			connection_free(worker, connection);
			return false;
		}
		connection->n_sent += (size_t)n;
	}
	return connection_finish(worker, connection);
}

/* ---- reading ---- */

/* "GET /path HTTP/1.1": cuts out the target and returns it, or NULL. */
static char *parse_request(char *head, bool *ret_keep)
{
	char *target, *version, *line_end;

	line_end = strstr(head, "\r\n");
	target = strchr(head, ' ');
	if (!target || !line_end || target > line_end)
		return NULL;
	target++;
	version = strchr(target, ' ');
	if (!version || version > line_end)
		return NULL;
	*version++ = '\0';
	if (strncmp(version, "HTTP/1.", 7) != 0)
		return NULL;

	*ret_keep = version[7] == '1';
	if (strcasestr(line_end, "\r\nConnection: close"))
		*ret_keep = false;
	else if (strcasestr(line_end, "\r\nConnection: keep-alive"))
		*ret_keep = true;
	return target;
}

/* A whole request is in the buffer, up to `end`. Returns false when the connection is gone. */
static bool connection_answer(struct worker *worker, struct connection *connection, char *end)
{
	char saved = *end;
	char *target;
	size_t n_request = (size_t)(end - connection->in);

	*end = '\0';
	target = parse_request(connection->in, &connection->keep);
	if (worker->draining)
		connection->keep = false;
	connection->n_sent = 0;
	if (target)
		paths_answer(worker, target, connection->source.fd, &connection->answer);
	else {
		connection->answer = (struct answer){.status = 400, .end = END_CLOSE};
		connection->keep = false;
	}
	*end = saved;
	connection->n_in -= n_request;
	memmove(connection->in, end, connection->n_in);

	make_head(worker, connection);
	if (connection->answer.delay_usec > 0) {
		connection_sleep(worker, connection, connection->answer.delay_usec);
		return true;
	}
	return connection_write(worker, connection);
}

/* Answers what is complete in the buffer. Returns false when the connection is gone. */
static bool connection_serve(struct worker *worker, struct connection *connection)
{
	while (connection->state == CONNECTION_READING) {
		char *end;

		connection->in[connection->n_in] = '\0';
		end = strstr(connection->in, "\r\n\r\n");
		if (!end)
			return true;
		if (!connection_answer(worker, connection, end + 4))
			return false;
	}
	return true;
}

/* Returns false when the connection is gone. */
static bool connection_read(struct worker *worker, struct connection *connection)
{
	ssize_t n = recv(connection->source.fd, connection->in + connection->n_in,
		sizeof(connection->in) - 1 - connection->n_in, MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		connection_free(worker, connection);
		return false;
	}
	if (n > 0 && connection->state != CONNECTION_SILENT) {
		connection->n_in += (size_t)n;
		connection->state = CONNECTION_READING;
		if (!connection_serve(worker, connection))
			return false;
	}
	/* Only what waits for more bytes; the others are watched for what they wait for. */
	if (connection->state == CONNECTION_IDLE || connection->state == CONNECTION_READING)
		connection_watch(worker, connection, EPOLLIN);
	return true;
}

void connection_accept(struct worker *worker, int fd)
{
	struct connection *connection = tool_allocate(1, sizeof(*connection));

	connection->source.kind = SOURCE_CONNECTION;
	connection->source.fd = fd;
	connection->state = CONNECTION_IDLE;
	connection->next = worker->connections;
	if (connection->next)
		connection->next->previous = connection;
	worker->connections = connection;
	worker->n_connections++;
	/* Mostly the request is here already. */
	(void)connection_read(worker, connection);
}

void connection_event(struct worker *worker, struct connection *connection, uint32_t events)
{
	switch (connection->state) {
	case CONNECTION_SLEEPING:
		/* Nothing was asked for, so the client has reset or gone. */
		if (events & (EPOLLERR | EPOLLHUP))
			connection_free(worker, connection);
		break;
	case CONNECTION_WRITING:
		if (connection_write(worker, connection) &&
			connection->state != CONNECTION_SLEEPING &&
			connection->state != CONNECTION_WRITING &&
			connection_serve(worker, connection) &&
			(connection->state == CONNECTION_IDLE ||
				connection->state == CONNECTION_READING))
			connection_watch(worker, connection, EPOLLIN);
		break;
	case CONNECTION_IDLE:
	case CONNECTION_READING:
	case CONNECTION_SILENT:
		(void)connection_read(worker, connection);
		break;
	}
}

static bool is_idle(const struct connection *connection)
{
	return connection->state == CONNECTION_IDLE || connection->state == CONNECTION_SILENT;
}

void connections_tick(struct worker *worker, uint64_t now_usec)
{
	bool close_idle = worker->draining && now_usec >= worker->idle_until;
	struct connection *next;

	if (now_usec < worker->next_wake_usec && !close_idle)
		return;
	worker->next_wake_usec = TOOL_NEVER;

	for (struct connection *connection = worker->connections; connection; connection = next) {
		next = connection->next;
		if (connection->state == CONNECTION_SLEEPING) {
			if (connection->wake_usec > now_usec) {
				if (connection->wake_usec < worker->next_wake_usec)
					worker->next_wake_usec = connection->wake_usec;
				continue;
			}
			/* connection_event() goes on as after a full socket buffer. */
			connection->state = CONNECTION_WRITING;
			connection_event(worker, connection, 0);
		} else if (close_idle && is_idle(connection)) {
			/* A request that has just come is answered all the same. */
			if (connection_read(worker, connection) && is_idle(connection))
				connection_free(worker, connection);
		}
	}
}

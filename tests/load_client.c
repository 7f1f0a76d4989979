/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* What one client does:
 *
 *   FREE ─► CONNECTING ─► (DELAYING) ─► WAITING ─► READING ─► LINGERING ─► THINKING ─► FREE
 *     │        ▲  (a kept connection goes from FREE to WAITING)    ▲
 *     └► RETRYING (Unix queue full)                                └ not when kept
 *
 * A failure closes the connection, counts, and pauses the client for FAILED_USEC, so that an outage
 * of a second is some hundred failures and not a million.
 *
 * After a complete reply that announced it the client waits for the server to close first, as
 * browsers do: TIME_WAIT then stays at the server's port and the client's ports are free at once.
 */

#define FAILED_USEC (2 * TOOL_USEC_PER_MSEC)
#define RETRY_USEC (1 * TOOL_USEC_PER_MSEC)
#define LINGER_USEC (100 * TOOL_USEC_PER_MSEC)

/* ---- waits ---- */

static void list_append(struct client_list *list, struct client *client)
{
	client->next = NULL;
	client->previous = list->last;
	if (list->last)
		list->last->next = client;
	else
		list->first = client;
	list->last = client;
}

static void list_remove(struct client_list *list, struct client *client)
{
	if (client->previous)
		client->previous->next = client->next;
	else
		list->first = client->next;
	if (client->next)
		client->next->previous = client->previous;
	else
		list->last = client->previous;
	client->previous = client->next = NULL;
}

static void client_unwait(struct load *load, struct client *client)
{
	if (client->wait != WAIT_NONE)
		list_remove(&load->waits[client->wait], client);
	client->wait = WAIT_NONE;
}

static void client_wait(struct load *load, struct client *client, enum wait_kind wait)
{
	client_unwait(load, client);
	client->wait = wait;
	client->wake_usec = tool_now_usec() + load->wait_usec[wait];
	list_append(&load->waits[wait], client);
}

/* ---- connections ---- */

static void client_close(struct load *load, struct client *client)
{
	static const struct linger zero = {.l_onoff = 1};

	if (client->fd < 0)
		return;
	if (load->options.linger_zero)
		(void)setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &zero, sizeof(zero));
	close(client->fd); /* leaves the epoll set with it: nobody else has this description */
	client->fd = -1;
	client->watched = false;
	client->n_on_connection = 0;
}

static void client_watch(struct load *load, struct client *client, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = client};

	if (client->watched && client->watched_for == events)
		return;
	if (epoll_ctl(load->epoll_fd, client->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, client->fd,
		    &event) < 0)
		tool_die(2, "epoll_ctl: %s", strerror(errno));
	client->watched = true;
	client->watched_for = events;
}

/* The request is over, one way or the other. */
static void client_rest(struct load *load, struct client *client, enum wait_kind wait)
{
	load->n_busy--;
	if (load->wait_usec[wait] > 0) {
		client->state = CLIENT_THINKING;
		client_wait(load, client, wait);
		return;
	}
	client_unwait(load, client);
	client->state = CLIENT_FREE;
	list_append(&load->free_list, client);
}

static struct request_facts client_facts(const struct client *client)
{
	static const char *const phases[] = {
		[CLIENT_FREE] = "idle",
		[CLIENT_THINKING] = "idle",
		[CLIENT_RETRYING] = "connecting",
		[CLIENT_CONNECTING] = "connecting",
		[CLIENT_DELAYING] = "connected",
		[CLIENT_WAITING] = "waiting",
		[CLIENT_READING] = "reading",
		[CLIENT_LINGERING] = "lingering",
	};
	struct request_facts facts = {
		.connect_usec = client->connect_usec,
		.since_usec = client->since_usec,
		.reused = client->n_on_connection > 1,
		.phase = phases[client->state],
	};
	struct sockaddr_in6 local = {0};
	socklen_t len = sizeof(local);

	if (client->fd >= 0 && getsockname(client->fd, (struct sockaddr *)&local, &len) == 0 &&
		local.sin6_family != AF_UNIX)
		facts.local_port = ntohs(local.sin6_port);
	return facts;
}

static void client_fail(struct load *load, struct client *client, enum failure_kind kind, int error)
{
	struct request_facts facts = client_facts(client);

	report_failure(&load->report, kind, error, client->reply.status, &facts, tool_now_usec());
	client_close(load, client);
	client_rest(load, client, WAIT_FAILED);
}

/* An error of a socket call, by how far the request had come. */
static void client_error(struct load *load, struct client *client, int error)
{
	enum failure_kind kind = FAILURE_OTHER;

	if (client->state == CLIENT_CONNECTING || client->state == CLIENT_RETRYING) {
		if (error == ECONNREFUSED || error == ENOENT)
			kind = FAILURE_REFUSED;
		else if (error == ETIMEDOUT)
			kind = FAILURE_TIMEOUT;
		else if (error == ECONNRESET || error == EPIPE)
			kind = FAILURE_RESET_BEFORE_REPLY;
	} else if (error == ECONNRESET || error == EPIPE)
		kind = client->state == CLIENT_READING ? FAILURE_RESET_MID_REPLY
						       : FAILURE_RESET_BEFORE_REPLY;
	client_fail(load, client, kind, error);
}

static void client_lingered(struct load *load, struct client *client)
{
	client_close(load, client);
	client_rest(load, client, WAIT_THINK);
}

/* The reply is complete. */
static void client_succeed(struct load *load, struct client *client)
{
	struct request_facts facts = {
		.connect_usec = client->connect_usec,
		.since_usec = client->since_usec,
		.reused = client->n_on_connection > 1,
	};
	unsigned status = client->reply.status, expected = load->options.expect_status;
	bool good = expected ? status == expected : status >= 200 && status <= 299;

	if (good)
		report_ok(&load->report, &client->reply, &facts, tool_now_usec());
	else {
		facts = client_facts(client);
		report_failure(
			&load->report, FAILURE_BAD_STATUS, 0, status, &facts, tool_now_usec());
	}

	if (client->keep && client->reply.keep_alive)
		client_rest(load, client, good ? WAIT_THINK : WAIT_FAILED);
	else if (load->options.linger_zero || load->stopping)
		client_lingered(load, client);
	else {
		client->state = CLIENT_LINGERING;
		client_wait(load, client, WAIT_LINGER);
	}
}

/* ---- reading ---- */

static void client_eof(struct load *load, struct client *client)
{
	switch (client->state) {
	case CLIENT_FREE:
	case CLIENT_THINKING:
		load->report.n_idle_closed++;
		client_close(load, client);
		break;
	case CLIENT_LINGERING:
		client_lingered(load, client);
		break;
	case CLIENT_READING:
		if (reply_end(&client->reply)) {
			client_succeed(load, client);
			if (client->state == CLIENT_LINGERING)
				client_lingered(load, client);
		} else
			client_fail(load, client, FAILURE_SHORT_REPLY, 0);
		break;
	case CLIENT_CONNECTING:
	case CLIENT_DELAYING:
	case CLIENT_WAITING:
		client_fail(load, client, FAILURE_EOF_BEFORE_REPLY, 0);
		break;
	case CLIENT_RETRYING:
		break;
	}
}

/* A kept connection was reset while no request was under way. Its next request would have gone to a
 * new connection, but a server has no business to reset: it counts. */
static void client_idle_reset(struct load *load, struct client *client, int error)
{
	struct request_facts facts;

	client->since_usec = tool_now_usec();
	facts = client_facts(client);
	report_failure(&load->report, FAILURE_RESET_IDLE, error, 0, &facts, client->since_usec);
	client_close(load, client);
}

static void client_read_error(struct load *load, struct client *client, int error)
{
	switch (client->state) {
	case CLIENT_FREE:
	case CLIENT_THINKING:
		client_idle_reset(load, client, error);
		break;
	case CLIENT_LINGERING:
		load->report.n_reset_after_reply++;
		client_lingered(load, client);
		break;
	case CLIENT_RETRYING:
	case CLIENT_CONNECTING:
	case CLIENT_DELAYING:
	case CLIENT_WAITING:
	case CLIENT_READING:
		client_error(load, client, error);
		break;
	}
}

static bool client_is_idle(const struct client *client)
{
	return client->state == CLIENT_FREE || client->state == CLIENT_THINKING;
}

static void client_read(struct load *load, struct client *client)
{
	static char bytes[65536];
	ssize_t n;
	int r;

	do {
		n = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n == 0) {
			client_eof(load, client);
			return;
		}
		if (n < 0) {
			if (errno != EAGAIN && errno != EINTR)
				client_read_error(load, client, errno);
			return;
		}
		if (client->state == CLIENT_LINGERING)
			continue;
		if (client_is_idle(client)) {
			/* A reply nobody asked for, such as "408": the server is about to close. */
			load->report.n_idle_closed++;
			client_close(load, client);
			return;
		}

		client->state = CLIENT_READING;
		r = reply_feed(&client->reply, bytes, (size_t)n);
		if (r < 0)
			client_fail(load, client, FAILURE_OTHER, -r);
		else if (r > 0)
			client_succeed(load, client);
		/* The server's FIN mostly comes with its last bytes. */
	} while (client->fd >= 0 &&
		 (client->state == CLIENT_LINGERING || (size_t)n == sizeof(bytes)));
}

/* ---- sending ---- */

static void client_send(struct load *load, struct client *client)
{
	size_t len = strlen(client->request);
	ssize_t n;

	n = send(client->fd, client->request + client->n_sent, len - client->n_sent,
		MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		client_error(load, client, errno);
		return;
	}
	if (n < 0) {
		/* Mostly the handshake that is not over. */
		client_watch(load, client, EPOLLOUT | (client->n_sent ? EPOLLIN : 0));
		return;
	}

	if (client->state == CLIENT_CONNECTING)
		histogram_add(&load->report.connect, tool_now_usec() - client->connect_usec);
	client->state = CLIENT_WAITING;
	client->n_sent += (size_t)n;
	client_watch(load, client, EPOLLIN | (client->n_sent < len ? EPOLLOUT : 0));
}

static void client_connected(struct load *load, struct client *client)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error) {
		client_error(load, client, error);
		return;
	}
	if (load->wait_usec[WAIT_DELAY] == 0) {
		client_send(load, client);
		return;
	}
	histogram_add(&load->report.connect, tool_now_usec() - client->connect_usec);
	client->state = CLIENT_DELAYING;
	client_watch(load, client, EPOLLIN);
	client_wait(load, client, WAIT_DELAY);
}

static int client_bind(struct load *load, struct client *client)
{
	const struct load_options *options = &load->options;
	const struct tool_address *source;

	if (options->n_sources == 0)
		return 0;
	source = &options->sources[load->next_source++ % options->n_sources];
	/* Without it a port would be reserved for each source alone, not for source and target. */
	if (setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int)) < 0)
		return -errno;
	if (bind(client->fd, (const struct sockaddr *)&source->storage, source->len) < 0)
		return -errno;
	return 0;
}

static void client_connect(struct load *load, struct client *client)
{
	const struct tool_address *target = &load->options.target;
	int r;

	client->state = CLIENT_CONNECTING;
	client->fd =
		socket(target->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	r = client->fd < 0 ? -errno : client_bind(load, client);
	if (r == 0 &&
		connect(client->fd, (const struct sockaddr *)&target->storage, target->len) < 0)
		r = -errno;

	if (r == -EAGAIN && target->storage.ss_family == AF_UNIX) {
		/* The queue is full. A blocking connect() would wait, so do the same. */
		client_close(load, client);
		client->state = CLIENT_RETRYING;
		client_wait(load, client, WAIT_RETRY);
		return;
	}
	if (r < 0 && r != -EINPROGRESS) {
		client_error(load, client, -r);
		return;
	}

	load->report.n_connections++;
	client->n_on_connection = 1;
	client_wait(load, client, WAIT_TIMEOUT);
	if (load->wait_usec[WAIT_DELAY] > 0)
		client_watch(load, client, EPOLLOUT);
	else
		client_send(load, client); /* on loopback the handshake is over by now */
}

/* Whether the kept connection is still good; RFC 9112 section 9.5 makes the client look. */
static void client_check_kept(struct load *load, struct client *client)
{
	char byte;
	ssize_t n = recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n >= 0) {
		load->report.n_idle_closed++;
		client_close(load, client);
	} else if (errno != EAGAIN && errno != EINTR)
		client_idle_reset(load, client, errno);
}

static void client_begin(struct load *load, struct client *client, uint64_t since_usec)
{
	const struct load_options *options = &load->options;
	uint64_t now_usec = tool_now_usec(), nth;

	if (client->fd >= 0)
		client_check_kept(load, client);

	nth = client->fd >= 0 ? client->n_on_connection + 1 : 1;
	client->keep = options->keep_alive && (options->requests_per_connection == 0 ||
						      nth < options->requests_per_connection);
	client->request = options->requests[client->keep][load->n_started % options->n_paths];
	client->n_sent = 0;
	client->since_usec = since_usec;
	client->give_up_usec = now_usec + options->timeout_usec;
	reply_reset(&client->reply);
	load->n_started++;
	load->n_busy++;

	if (client->fd < 0) {
		client->connect_usec = now_usec;
		client_connect(load, client);
		return;
	}
	client->state = CLIENT_WAITING;
	client->n_on_connection = nth;
	client_wait(load, client, WAIT_TIMEOUT);
	client_send(load, client);
}

/* ---- the loop's side ---- */

int clients_start(struct load *load)
{
	const struct load_options *options = &load->options;

	load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (load->epoll_fd < 0)
		return -errno;

	load->wait_usec[WAIT_THINK] = options->think_usec;
	load->wait_usec[WAIT_FAILED] =
		options->think_usec > FAILED_USEC ? options->think_usec : FAILED_USEC;
	load->wait_usec[WAIT_RETRY] = RETRY_USEC;
	load->wait_usec[WAIT_DELAY] = options->send_delay_usec;
	load->wait_usec[WAIT_LINGER] = LINGER_USEC;
	load->wait_usec[WAIT_TIMEOUT] = options->timeout_usec;

	load->clients = tool_allocate(options->n_clients, sizeof(*load->clients));
	for (size_t i = 0; i < options->n_clients; i++) {
		struct client *client = &load->clients[i];

		client->fd = -1;
		client->wait = WAIT_NONE;
		client->state = CLIENT_FREE;
		list_append(&load->free_list, client);
	}
	load->report.start_usec = tool_now_usec();
	return 0;
}

void client_event(struct load *load, struct client *client, uint32_t events)
{
	if (client->fd < 0)
		return;
	if (client->state == CLIENT_CONNECTING)
		client_connected(load, client);
	else if (client->state == CLIENT_WAITING && (events & EPOLLOUT))
		client_send(load, client);
	else
		client_read(load, client);
}

static void client_wake(struct load *load, struct client *client, enum wait_kind wait)
{
	switch (wait) {
	case WAIT_THINK:
	case WAIT_FAILED:
		client->state = CLIENT_FREE;
		list_append(&load->free_list, client);
		break;
	case WAIT_RETRY:
		if (tool_now_usec() >= client->give_up_usec)
			client_fail(load, client, FAILURE_TIMEOUT, EAGAIN);
		else
			client_connect(load, client);
		break;
	case WAIT_DELAY:
		client_wait(load, client, WAIT_TIMEOUT);
		client_send(load, client);
		break;
	case WAIT_LINGER:
		client_lingered(load, client);
		break;
	case WAIT_TIMEOUT:
		client_fail(load, client, FAILURE_TIMEOUT, 0);
		break;
	case N_WAIT_KINDS:
		break;
	}
}

static uint64_t due_usec(const struct load *load, uint64_t nth)
{
	return load->report.start_usec + (uint64_t)((double)nth * 1e6 / load->options.rate);
}

static bool all_started(const struct load *load)
{
	return load->stopping ||
	       (load->options.max_requests > 0 && load->n_started >= load->options.max_requests);
}

void clients_tick(struct load *load)
{
	uint64_t now_usec = tool_now_usec();

	for (enum wait_kind wait = 0; wait < N_WAIT_KINDS; wait++) {
		struct client *client;

		while ((client = load->waits[wait].first) && client->wake_usec <= now_usec) {
			client_unwait(load, client);
			client_wake(load, client, wait);
		}
	}

	while (load->free_list.first && !all_started(load)) {
		struct client *client = load->free_list.first;
		uint64_t since_usec = tool_now_usec();

		if (load->options.rate > 0) {
			/* Latency counts from when the request should have been made, so that
			 * a stall is seen by all the requests that it held up. */
			if (due_usec(load, load->n_started) > since_usec)
				break;
			since_usec = due_usec(load, load->n_started);
		}
		list_remove(&load->free_list, client);
		client_begin(load, client, since_usec);
	}

	if (!load->stopping && all_started(load))
		clients_stop(load);
}

uint64_t clients_next_usec(const struct load *load)
{
	uint64_t next_usec = TOOL_NEVER;

	for (enum wait_kind wait = 0; wait < N_WAIT_KINDS; wait++)
		if (load->waits[wait].first && load->waits[wait].first->wake_usec < next_usec)
			next_usec = load->waits[wait].first->wake_usec;

	if (load->free_list.first && !all_started(load)) {
		uint64_t due = load->options.rate > 0 ? due_usec(load, load->n_started) : 0;

		if (due < next_usec)
			next_usec = due;
	}
	return next_usec;
}

void clients_stop(struct load *load)
{
	uint64_t now_usec = tool_now_usec();

	if (load->stopping)
		return;
	/* What is due and waits for a free client was never tried. */
	if (load->options.rate > 0 && !load->free_list.first)
		while (!all_started(load) && due_usec(load, load->n_started) < now_usec) {
			load->n_started++;
			load->report.n_not_started++;
		}
	load->stopping = true;
	report_stop(&load->report, now_usec);
}

void clients_done(struct load *load)
{
	for (size_t i = 0; load->clients && i < load->options.n_clients; i++)
		client_close(load, &load->clients[i]);
	free(load->clients);
	if (load->epoll_fd >= 0)
		close(load->epoll_fd);
}

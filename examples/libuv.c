/* SPDX-License-Identifier: Apache-2.0 */
/* A web server on libuv and libtenure (Debian: apt-get install libuv1-dev). When it is drained it
 * says goodbye with the next answer to each client, and ends when all have gone.
 *
 * cc libuv.c $(pkg-config --cflags --libs tenure libuv) */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <tenure.h>
#include <uv.h>

struct client {
	uv_tcp_t tcp;
	uv_write_t write;
	size_t len;
	int last; /* it is closed when it has its answer */
	char request[4096], reply[512];
};

static struct tenure *tenure;
static uv_poll_t *listeners[64], events;
static uv_signal_t term;
static int draining;

static void die(const char *what, int error)
{
	fprintf(stderr, "%s: %s\n", what, strerror(error));
	if (tenure)
		(void)tenure_failed(tenure, error);
	exit(1);
}

static void free_handle(uv_handle_t *handle)
{
	free(handle);
}

/* --- clients ------------------------------------------------------------------ */

static void close_client(struct client *c)
{
	if (!uv_is_closing((uv_handle_t *)&c->tcp))
		uv_close((uv_handle_t *)&c->tcp, free_handle);
}

static void answer(struct client *c);

static void on_written(uv_write_t *write, int status)
{
	struct client *c = write->data;

	if (status < 0 || c->last)
		close_client(c);
	else
		answer(c); /* the next one may be here already */
}

static void answer(struct client *c)
{
	char body[64], *end = strstr(c->request, "\r\n\r\n");
	int body_len, len;
	uv_buf_t buf;

	if (!end)
		return;
	*end = '\0';
	c->last = draining || strcasestr(c->request, "connection: close");
	c->len -= (size_t)(end + 4 - c->request);
	memmove(c->request, end + 4, c->len + 1);
	body_len = snprintf(
		body, sizeof(body), "hello from generation %u\n", tenure_generation(tenure));
	len = snprintf(c->reply, sizeof(c->reply),
		"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n"
		"X-Tenure-Generation: %u\r\n\r\n%s",
		body_len, c->last ? "close" : "keep-alive", tenure_generation(tenure), body);
	buf = uv_buf_init(c->reply, (unsigned)len);
	c->write.data = c;
	if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) < 0)
		close_client(c);
}

static void give_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct client *c = handle->data;

	(void)suggested;
	*buf = uv_buf_init(c->request + c->len, (unsigned)(sizeof(c->request) - 1 - c->len));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct client *c = stream->data;

	(void)buf;
	if (n < 0) {
		close_client(c);
		return;
	}
	c->len += (size_t)n;
	c->request[c->len] = '\0';
	if (!uv_is_writable(stream) || uv_stream_get_write_queue_size(stream) > 0)
		return;
	answer(c);
}

static void on_connection(uv_poll_t *handle, int status, int happened)
{
	int fd, listener;
	struct client *c;

	(void)happened;
	if (status < 0 || uv_fileno((uv_handle_t *)handle, &listener) < 0)
		return;
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return; /* another worker was faster */
	c = calloc(1, sizeof(*c));
	if (!c || uv_tcp_init(uv_default_loop(), &c->tcp) < 0)
		die("client", ENOMEM);
	c->tcp.data = c;
	if (uv_tcp_open(&c->tcp, fd) < 0 ||
		uv_read_start((uv_stream_t *)&c->tcp, give_room, on_read) < 0)
		close_client(c);
}

/* --- listeners ------------------------------------------------------------------ */

/* uv_listen() would call listen(2) on a socket that is not ours alone: it is polled instead. */
static void add_listener(int fd)
{
	for (size_t i = 0; i < sizeof(listeners) / sizeof(listeners[0]); i++) {
		if (listeners[i])
			continue;
		listeners[i] = calloc(1, sizeof(*listeners[i]));
		if (!listeners[i] || uv_poll_init(uv_default_loop(), listeners[i], fd) < 0 ||
			uv_poll_start(listeners[i], UV_READABLE, on_connection) < 0)
			die("listener", ENOMEM);
		return;
	}
}

static void remove_listener(int fd)
{
	int other;

	for (size_t i = 0; i < sizeof(listeners) / sizeof(listeners[0]); i++) {
		if (!listeners[i] || uv_fileno((uv_handle_t *)listeners[i], &other) < 0 ||
			(fd >= 0 && other != fd))
			continue;
		uv_poll_stop(listeners[i]);
		uv_close((uv_handle_t *)listeners[i], free_handle);
		listeners[i] = NULL;
		close(other);
	}
}

/* The loop ends when nothing is left in it. */
static void drain(void)
{
	if (draining)
		return;
	draining = 1;
	(void)tenure_stopping(tenure);
	remove_listener(-1);
	uv_unref((uv_handle_t *)&events);
	uv_close((uv_handle_t *)&term, NULL);
}

static void on_term(uv_signal_t *handle, int number)
{
	(void)handle;
	(void)number;
	drain();
}

static void on_event(uv_poll_t *handle, int status, int happened)
{
	struct tenure_event e;

	(void)handle;
	(void)status;
	(void)happened;
	while (tenure_next_event(tenure, &e) > 0)
		if (e.kind == TENURE_EVENT_DRAIN)
			drain();
		else if (e.kind == TENURE_EVENT_LISTENER_ADDED)
			add_listener(e.fd);
		else if (e.kind == TENURE_EVENT_LISTENER_REMOVED)
			remove_listener(e.fd);
		else if (e.kind == TENURE_EVENT_DESCRIPTOR)
			close(e.fd);
}

static int bind_port_8080(void)
{
	const struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(8080),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4096) < 0)
		die("port 8080", errno);
	return fd;
}

int main(void)
{
	struct tenure_listener l;
	int r = tenure_new(&tenure, TENURE_NONBLOCK);

	if (r < 0)
		die("tenure_new", -r);
	if (uv_poll_init(uv_default_loop(), &events, tenure_fd(tenure)) < 0 ||
		uv_poll_start(&events, UV_READABLE, on_event) < 0 ||
		uv_signal_init(uv_default_loop(), &term) < 0 ||
		uv_signal_start(&term, on_term, SIGTERM) < 0)
		die("libuv", ENOMEM);
	for (size_t i = 0; tenure_listener(tenure, i, &l) == 0; i++)
		add_listener(l.fd);
	if (tenure_find_listener(tenure, NULL, NULL, 0, &l) == -ENXIO)
		add_listener(bind_port_8080());
	(void)tenure_ready(tenure);
	(void)uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	tenure_free(tenure);
	return 0;
}

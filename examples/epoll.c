/* SPDX-License-Identifier: Apache-2.0 */
/* A web server on epoll and libtenure. Under tenured it takes listeners as they come and go; when
 * it is drained it hands its clients' connections, and what it has counted, to its successor
 * instead of closing them; by hand it binds port 8080 itself.
 *
 *     GET /         hello, with the generation and how many requests this place has answered, ever
 *
 * cc epoll.c $(pkg-config --cflags --libs tenure) */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tenure.h>

enum { CONNECTIONS_MAX = 1000, REQUEST_MAX = 4096 };
enum kind { LISTENER, CONNECTION, EVENTS, SIGNALS };

struct watched {
	enum kind kind;
	int fd;
	size_t len; /* CONNECTION: of a request that is not whole yet */
	char data[REQUEST_MAX];
};

/* What is to outlive every process: in a memfd. */
struct state {
	unsigned long requests;
};

static struct tenure *tenure;
static struct state *state;
static int epoll = -1, n_connections;
static struct watched *connections[CONNECTIONS_MAX], *listeners[64], *signals, *events;

static void die(const char *what, int r)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-r));
	if (tenure)
		(void)tenure_failed(tenure, -r);
	exit(1);
}

static struct watched *watch(enum kind kind, int fd)
{
	struct watched *w = calloc(1, sizeof(*w));
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = w};

	if (!w)
		die("watch", -ENOMEM);
	w->kind = kind;
	w->fd = fd;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0)
		die("epoll_ctl", -errno);
	return w;
}

/* end: nobody else goes on with it. */
static void unwatch(struct watched *w, int end)
{
	(void)epoll_ctl(epoll, EPOLL_CTL_DEL, w->fd, NULL);
	if (end && w->kind == CONNECTION)
		(void)shutdown(w->fd, SHUT_RDWR); /* also for those who still keep a copy of it */
	close(w->fd);
	for (int i = 0; w->kind == CONNECTION && i < n_connections; i++)
		if (connections[i] == w)
			connections[i] = connections[--n_connections];
	free(w);
}

/* --- clients ------------------------------------------------------------------ */

static void add_connection(int fd)
{
	if (n_connections == CONNECTIONS_MAX)
		close(fd);
	else
		connections[n_connections++] = watch(CONNECTION, fd);
}

static void accept_one(int listener)
{
	/* When another worker was faster there is none. */
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0)
		add_connection(fd);
}

/* False: it is to be closed. */
static int answer(struct watched *w)
{
	char body[128], reply[512];
	int body_len, len, keep = !strcasestr(w->data, "connection: close");

	state->requests++;
	body_len = snprintf(body, sizeof(body), "hello from generation %u, request %lu\n",
		tenure_generation(tenure), state->requests);
	len = snprintf(reply, sizeof(reply),
		"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n"
		"X-Tenure-Generation: %u\r\n\r\n%s",
		body_len, keep ? "keep-alive" : "close", tenure_generation(tenure), body);
	return send(w->fd, reply, (size_t)len, MSG_NOSIGNAL) == len && keep;
}

static void read_request(struct watched *w)
{
	ssize_t n = recv(w->fd, w->data + w->len, sizeof(w->data) - 1 - w->len, 0);
	char *end;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		unwatch(w, 1);
		return;
	}
	w->len += (size_t)n;
	w->data[w->len] = '\0';
	while ((end = strstr(w->data, "\r\n\r\n"))) {
		end[3] = '\0';
		if (!answer(w)) {
			unwatch(w, 1);
			return;
		}
		w->len -= (size_t)(end + 4 - w->data);
		memmove(w->data, end + 4, w->len + 1);
	}
	if (w->len == sizeof(w->data) - 1)
		unwatch(w, 1);
}

/* --- those who come before and after ------------------------------------------- */

/* The predecessor's memory, or a new one that is kept for the next. */
static void take_state(void)
{
	int fd = tenure_take(tenure, "state", NULL);

	if (fd < 0) {
		fd = memfd_create("state", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, sizeof(*state)) < 0)
			die("memfd", -errno);
		(void)tenure_store(tenure, "state", &fd, 1, TENURE_STORE_NO_POLL);
	}
	state = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (state == MAP_FAILED)
		die("mmap", -errno);
	close(fd);
}

/* Every client between two requests goes to the successor; who is in the middle of one is waited
 * for. */
static void hand_over(void)
{
	for (int i = n_connections; i-- > 0;) {
		struct watched *w = connections[i];

		if (w->len == 0 && tenure_store(tenure, "client", &w->fd, 1, 0) == 1)
			unwatch(w, 0);
	}
}

/* Who comes after us shall not be given what we have closed by then: it is ours now. */
static void take_clients(void)
{
	int fd;

	while ((fd = tenure_take(tenure, "client", NULL)) >= 0)
		add_connection(fd);
	(void)tenure_unstore(tenure, "client");
}

/* --- events --------------------------------------------------------------------- */

static void add_listener(int fd)
{
	for (size_t i = 0; i < sizeof(listeners) / sizeof(listeners[0]); i++)
		if (!listeners[i]) {
			listeners[i] = watch(LISTENER, fd);
			return;
		}
}

static void remove_listener(int fd)
{
	for (size_t i = 0; i < sizeof(listeners) / sizeof(listeners[0]); i++)
		if (listeners[i] && listeners[i]->fd == fd) {
			unwatch(listeners[i], 0);
			listeners[i] = NULL;
		}
}

static int drain(void)
{
	(void)tenure_stopping(tenure);
	for (size_t i = 0; i < sizeof(listeners) / sizeof(listeners[0]); i++)
		if (listeners[i])
			remove_listener(listeners[i]->fd);
	return 1;
}

static int handle_events(int draining)
{
	struct tenure_event e;

	while (tenure_next_event(tenure, &e) > 0)
		switch (e.kind) {
		case TENURE_EVENT_DRAIN:
			draining = drain();
			break;
		case TENURE_EVENT_LISTENER_ADDED:
			add_listener(e.fd);
			break;
		case TENURE_EVENT_LISTENER_REMOVED:
			remove_listener(e.fd);
			break;
		case TENURE_EVENT_DESCRIPTOR:
			if (strcmp(e.name, "client") == 0) {
				add_connection(e.fd);
				(void)tenure_unstore(tenure, "client");
			} else {
				close(e.fd);
			}
			break;
		default:
			break;
		}
	return draining;
}

static int bind_port_8080(void)
{
	const struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(8080),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4096) < 0)
		die("port 8080", -errno);
	return fd;
}

static void begin(void)
{
	struct tenure_listener l;
	sigset_t set;
	int r = tenure_new(&tenure, TENURE_NONBLOCK);

	if (r < 0)
		die("tenure_new", r);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = watch(SIGNALS, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
	events = watch(EVENTS, tenure_fd(tenure));
	take_state();
	for (size_t i = 0; tenure_listener(tenure, i, &l) == 0; i++)
		add_listener(l.fd);
	if (tenure_find_listener(tenure, NULL, NULL, 0, &l) == -ENXIO)
		add_listener(bind_port_8080());
	take_clients();
	(void)tenure_ready(tenure);
}

int main(void)
{
	int draining = 0;

	begin();
	while (!draining || n_connections > 0) {
		struct epoll_event e;

		/* One at a time: what is done about one may be the end of another. */
		if (epoll_wait(epoll, &e, 1, draining ? 100 : -1) == 1) {
			struct watched *w = e.data.ptr;

			if (w->kind == LISTENER)
				accept_one(w->fd);
			else if (w->kind == CONNECTION)
				read_request(w);
			else if (w->kind == EVENTS)
				draining = handle_events(draining);
			else
				draining = drain();
		}
		if (draining)
			hand_over();
	}
	unwatch(signals, 0);
	free(events);
	tenure_free(tenure);
	return 0;
}

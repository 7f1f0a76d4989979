/* SPDX-License-Identifier: Apache-2.0 */
/* A reuseport group on loopback and clients that find out which socket of it they come to.
 * Everything is checked here, for the tests that use it are about something else. */
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "sys/listen.h"
#include "../unit/unit.h"

#define REQUIRE(x)                                                                                 \
	do {                                                                                       \
		if (!(x))                                                                          \
			ck_abort_msg("%s (errno %s)", #x, strerror(errno));                        \
	} while (0)

enum { GROUP_MAX = 600, GROUP_BACKLOG = 1024 };

struct group {
	struct address address; /* with the port it got */
	bool v6only;
	int fds[GROUP_MAX]; /* by the order of listen(), as long as nothing leaves */
	unsigned n;
};

static inline struct listen_options group_options(const struct group *g)
{
	return (struct listen_options){.v6only = g->v6only, .socket_uid = (uid_t)-1};
}

/* The first socket, bound, steered to itself, not listening yet. */
static inline int group_open_first(struct group *g, const char *address, bool v6only)
{
	struct sock_filter to_first = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = {.len = 1, .filter = &to_first};
	struct listen_options options;
	int fd;

	memset(g, 0, sizeof(*g));
	memset(g->fds, 0xff, sizeof(g->fds));
	g->v6only = v6only;
	REQUIRE(address_parse(address, true, &g->address) == 0);
	options = group_options(g);
	fd = listen_open_first(&g->address, &options, &program);
	if (fd < 0)
		ck_abort_msg("%s: %s", address, strerror(-fd));
	REQUIRE(socket_address(fd, &g->address) == 0);
	return fd;
}

static inline int group_open_member(const struct group *g)
{
	struct listen_options options = group_options(g);
	int fd = listen_open_member(&g->address, &options);

	if (fd < 0)
		ck_abort_msg("a member: %s", strerror(-fd));
	return fd;
}

/* n sockets, all listening. */
static inline void group_open(struct group *g, const char *address, bool v6only, unsigned n)
{
	int first = group_open_first(g, address, v6only);

	REQUIRE(n <= GROUP_MAX);
	for (g->n = 0; g->n < n; g->n++) {
		g->fds[g->n] = g->n == 0 ? first : group_open_member(g);
		REQUIRE(listen_start(g->fds[g->n], GROUP_BACKLOG) == 0);
	}
}

static inline void group_close(struct group *g)
{
	for (unsigned i = 0; i < g->n; i++)
		g->fds[i] = close_fd(g->fds[i]);
	g->n = 0;
}

/* Where a client connects to, by the family it uses: a dual-stack group is reached by both. */
static inline struct address group_target(const struct group *g, int family)
{
	struct address a = g->address;

	if (family == AF_INET6) {
		a.len = sizeof(a.in6);
		a.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6,
			.sin6_addr = IN6ADDR_LOOPBACK_INIT,
			.sin6_port = htons((uint16_t)address_port(&g->address))};
	} else {
		a.len = sizeof(a.in4);
		a.in4 = (struct sockaddr_in){.sin_family = AF_INET,
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
			.sin_port = htons((uint16_t)address_port(&g->address))};
	}
	return a;
}

/* A client of the group, bound to source ("127.0.0.2", "::1"; its port is *port, 0: any, and then
 * told), which says goodbye by a reset, so that thousands leave nothing behind. */
static inline int group_client(const struct group *g, const char *source, uint16_t *port)
{
	static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
	int family = strchr(source, ':') ? AF_INET6 : AF_INET, one = 1;
	struct address from = group_target(g, family);
	socklen_t len = from.len;
	int fd = socket(family, address_socket_type(&g->address) | SOCK_CLOEXEC, 0);

	REQUIRE(fd >= 0);
	if (family == AF_INET) {
		from.in4.sin_port = htons(*port);
		REQUIRE(inet_pton(family, source, &from.in4.sin_addr) == 1);
	} else {
		from.in6.sin6_port = htons(*port);
		REQUIRE(inet_pton(family, source, &from.in6.sin6_addr) == 1);
	}
	REQUIRE(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) == 0);
	if (*port != 0)
		REQUIRE(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
	REQUIRE(bind(fd, &from.sa, from.len) == 0);
	REQUIRE(getsockname(fd, &from.sa, &len) == 0);
	*port = ntohs(family == AF_INET ? from.in4.sin_port : from.in6.sin6_port);
	return fd;
}

/* It knocks: a connection, or one datagram. */
static inline void group_knock(const struct group *g, int client, int family)
{
	struct address to = group_target(g, family);

	REQUIRE(connect(client, &to.sa, to.len) == 0);
	if (g->address.kind == ADDRESS_UDP)
		REQUIRE(send(client, "x", 1, 0) == 1);
}

/* Takes everything that waits at fd: how much it was. */
static inline unsigned group_take(const struct group *g, int fd)
{
	unsigned n = 0;

	for (;; n++) {
		char byte;
		int connection;

		if (g->address.kind == ADDRESS_UDP) {
			if (recv(fd, &byte, 1, MSG_DONTWAIT) < 0)
				break;
			continue;
		}
		connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (connection < 0)
			break;
		close_fd(connection);
	}
	REQUIRE(errno == EAGAIN);
	return n;
}

/* Which of the fds does this client, bound to an address of the family, come to? */
static inline unsigned group_reach_by(struct group *g, int client, int family)
{
	struct pollfd p[GROUP_MAX];
	unsigned found = GROUP_MAX;

	for (unsigned i = 0; i < g->n; i++)
		p[i] = (struct pollfd){.fd = g->fds[i], .events = POLLIN};
	group_knock(g, client, family);
	REQUIRE(poll(p, g->n, 2000) == 1);
	for (unsigned i = 0; i < g->n; i++)
		if (p[i].revents & POLLIN)
			found = i;
	REQUIRE(found < g->n);
	REQUIRE(group_take(g, g->fds[found]) == 1);
	return found;
}

/* As that, for a new client from source and port (0: any). */
static inline unsigned group_reach(struct group *g, const char *source, uint16_t port)
{
	_cleanup_close_ int client = group_client(g, source, &port);

	return group_reach_by(g, client, strchr(source, ':') ? AF_INET6 : AF_INET);
}

/* n clients, hundred by hundred, counted at each socket. */
static inline void group_load(struct group *g, const char *source, unsigned n, unsigned *hits)
{
	int clients[100];
	unsigned n_done = 0, n_taken = 0;

	memset(hits, 0, g->n * sizeof(*hits));
	while (n_done < n) {
		unsigned now = MIN(n - n_done, (unsigned)ARRAY_SIZE(clients));

		for (unsigned i = 0; i < now; i++) {
			uint16_t port = 0;

			clients[i] = group_client(g, source, &port);
			group_knock(g, clients[i], strchr(source, ':') ? AF_INET6 : AF_INET);
		}
		n_done += now;
		/* On loopback everything has arrived but, rarely, the last acknowledgements. */
		for (unsigned tries = 0; n_taken < n_done && tries < 1000; tries++) {
			if (tries > 0)
				(void)usleep(2000);
			for (unsigned i = 0; i < g->n; i++) {
				unsigned taken = group_take(g, g->fds[i]);

				hits[i] += taken;
				n_taken += taken;
			}
		}
		REQUIRE(n_taken == n_done);
		for (unsigned i = 0; i < now; i++)
			close_fd(clients[i]);
	}
}

static inline void group_write_proc(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		ck_abort_msg("%s: %s", path, strerror(errno));
}

static inline void group_loopback_up(void)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};

	REQUIRE(fd >= 0);
	REQUIRE(ioctl(fd, SIOCSIFFLAGS, &request) == 0);
}

/* f in a child with a network of its own, whose settings it may change. */
static inline void group_in_own_network(void (*f)(void))
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		/* An ordinary user needs a user namespace for it; where that is forbidden, so is
		 * this test. */
		if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
			_exit(77);
		group_loopback_up();
		f();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		fprintf(stderr, "not run: no network namespace can be made here\n");
	else
		ck_assert_int_eq(WEXITSTATUS(status), 0);
}

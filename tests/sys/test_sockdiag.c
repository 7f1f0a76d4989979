/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/sockdiag.h"

#include "sys_test.h"

#include <netinet/tcp.h>
#include <sys/un.h>

static int nl = -1;

static void setup(void)
{
	nl = sockdiag_open();
	ck_assert_int_ge(nl, 0);
}

static void teardown(void)
{
	nl = close_fd(nl);
}

static int listen_on(struct address *a, unsigned backlog)
{
	const struct listen_options o = OPTIONS;
	int fd = listen_open_first(a, &o, NULL);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(listen_start(fd, backlog), 0);
	*a = bound_address(fd);
	return fd;
}

/* Where we listen, and where a client goes. */
static const struct {
	const char *listen, *connect;
} families[] = {
	{"127.0.0.1:0", "127.0.0.1:0"},
	{"[::1]:0",	    "[::1]:0"    },
	{"[::]:0",	   "[::1]:0"    },
	{"[::]:0",	   "127.0.0.1:0"},
};

static int listen_and_aim(int i, struct address *ret_to)
{
	struct address a = address_of(families[i].listen);
	int fd = listen_on(&a, 16);

	*ret_to = address_of(families[i].connect);
	/* At the same place in both. */
	ret_to->in4.sin_port = htons((uint16_t)address_port(&a));
	return fd;
}

START_TEST(from_queued_to_accepted)
{
	struct address to, from;
	int fd = listen_and_aim(_i, &to), client = client_of(&to), accepted;
	uint64_t inode = 1, expected;

	ck_assert_int_ge(client, 0);
	from = bound_address(client);
	ck_assert_int_eq(sockdiag_connection(nl, &to, &from, &inode), SOCKDIAG_QUEUED);
	ck_assert_uint_eq(inode, 0);
	accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(accepted, 0);
	ck_assert_int_eq(socket_inode(accepted, &expected), 0);
	ck_assert_int_eq(sockdiag_connection(nl, &to, &from, &inode), SOCKDIAG_ACCEPTED);
	ck_assert_uint_eq(inode, expected);
	/* The client's own end is another connection. */
	ck_assert_int_eq(socket_inode(client, &expected), 0);
	ck_assert_int_eq(sockdiag_connection(nl, &from, &to, &inode), SOCKDIAG_ACCEPTED);
	ck_assert_uint_eq(inode, expected);

	/* Accepted and closed is accepted. */
	close(accepted);
	ck_assert_int_eq(sockdiag_connection(nl, &to, &from, &inode), SOCKDIAG_ACCEPTED);
	ck_assert_uint_eq(inode, 0);
	close(client);
	close(fd);
}
END_TEST

START_TEST(closed_by_the_client)
{
	struct address to, from;
	int fd = listen_and_aim(_i, &to), client = client_of(&to), accepted;
	uint64_t inode;

	from = bound_address(client);
	ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
	ck_assert_int_eq(sockdiag_connection(nl, &to, &from, &inode), SOCKDIAG_QUEUED);
	accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_eq(sockdiag_connection(nl, &to, &from, &inode), SOCKDIAG_ACCEPTED);
	ck_assert_uint_ne(inode, 0);
	close(accepted);
	close(client);
	close(fd);
}
END_TEST

START_TEST(absent)
{
	const struct linger reset = {.l_onoff = 1, .l_linger = 0};
	struct address to, from;
	int fd = listen_and_aim(_i, &to), client = client_of(&to), accepted;
	uint64_t inode;

	from = bound_address(client);
	accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	(void)setsockopt(accepted, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(accepted);
	close(client);
	/* The look-up finds the listener, and nothing when that is gone too. */
	ck_assert_int_eq(sockdiag_connection(nl, &to, &from, &inode), SOCKDIAG_ABSENT);
	close(fd);
	ck_assert_int_eq(sockdiag_connection(nl, &to, &from, &inode), SOCKDIAG_ABSENT);
}
END_TEST

/* Until its client has said something, a deferred connection is established for that client alone.
 */
START_TEST(handshake)
{
	struct address to, from;
	int fd = listen_and_aim(_i, &to), client;
	const int seconds = 5;
	uint64_t inode;

	ck_assert_int_eq(
		setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds)), 0);
	client = client_of(&to);
	from = bound_address(client);
	ck_assert_int_eq(sockdiag_connection(nl, &to, &from, &inode), SOCKDIAG_HANDSHAKE);
	ck_assert_uint_eq(inode, 0);
	ck_assert_int_eq(write(client, "x", 1), 1);
	ck_assert_int_eq(sockdiag_connection(nl, &to, &from, &inode), SOCKDIAG_QUEUED);
	close(client);
	close(fd);
}
END_TEST

START_TEST(mapped_addresses)
{
	struct address to, from, mapped[2];
	int fd = listen_and_aim(3, &to), client = client_of(&to);
	uint64_t inode;

	from = bound_address(client);
	for (int i = 0; i < 2; i++) {
		const struct address *a = i ? &from : &to;

		mapped[i] = address_of("[::ffff:127.0.0.1]:0");
		mapped[i].in6.sin6_port = a->in4.sin_port;
	}
	ck_assert_int_eq(sockdiag_connection(nl, &mapped[0], &mapped[1], &inode), SOCKDIAG_QUEUED);
	ck_assert_int_eq(sockdiag_connection(nl, &mapped[0], &from, &inode), SOCKDIAG_QUEUED);
	mapped[0] = address_of("[::1]:80");
	ck_assert_int_eq(sockdiag_connection(nl, &mapped[0], &from, &inode), -EINVAL);
	close(client);
	close(fd);
}
END_TEST

START_TEST(listeners_of_a_port)
{
	const struct listen_options o = OPTIONS;
	struct address a, b;
	struct sockdiag_listener *list = NULL;
	int fds[2] = {-1, -1}, client;
	uint64_t inode;
	size_t n = 0;

	/* A port that is free in both families: the kernel chooses it in one, and somebody may have
	 * it in the other. */
	for (int i = 0; i < 50 && fds[1] < 0; i++) {
		close_fd(fds[0]);
		a = address_of("127.0.0.1:0");
		fds[0] = listen_on(&a, 7);
		b = address_of("[::1]:0");
		b.in6.sin6_port = a.in4.sin_port;
		fds[1] = listen_open_first(&b, &o, NULL);
	}
	ck_assert_int_ge(fds[1], 0);
	ck_assert_int_eq(listen_start(fds[1], 9), 0);
	client = client_of(&b);
	ck_assert_int_eq(sockdiag_listeners(nl, address_port(&a), &list, &n), 0);
	ck_assert_uint_eq(n, 2);
	ck_assert(address_equal(&list[0].address, &a));
	ck_assert(address_equal(&list[1].address, &b));
	for (size_t i = 0; i < 2; i++) {
		ck_assert_int_eq(socket_inode(fds[i], &inode), 0);
		ck_assert_uint_eq(list[i].inode, inode);
		ck_assert_uint_eq(list[i].uid, geteuid());
		ck_assert_uint_eq(list[i].queue, i);
		ck_assert_uint_eq(list[i].queue_max, i ? 9 : 7);
	}
	free(list);

	/* All ports: ours are among them. */
	ck_assert_int_eq(sockdiag_listeners(nl, 0, &list, &n), 0);
	ck_assert_uint_ge(n, 2);
	free(list);
	close(client);
	close(fds[0]);
	close(fds[1]);
	ck_assert_int_eq(sockdiag_listeners(nl, address_port(&a), &list, &n), 0);
	ck_assert_uint_eq(n, 0);
	free(list);
	ck_assert_int_eq(sockdiag_listeners(nl, 65536, &list, &n), -EINVAL);
}
END_TEST

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

struct seen {
	unsigned port;
	const char *name;
	size_t name_len;
	uint64_t inodes[1000], cookies[1000];
	size_t n, n_others, n_queued;
};

static int see(const struct sockdiag_entry *e, void *userdata)
{
	struct seen *seen = userdata;
	bool ours = seen->name ? e->name_len == seen->name_len &&
					 memcmp(e->name, seen->name, e->name_len) == 0
			       : e->port == seen->port;

	ck_assert_uint_ne(e->cookie, 0);
	if (!ours) {
		seen->n_others++;
		return 0;
	}
	ck_assert_uint_lt(seen->n, ARRAY_SIZE(seen->inodes));
	seen->n_queued += e->inode == 0;
	seen->cookies[seen->n] = e->cookie;
	seen->inodes[seen->n++] = e->inode;
	return 0;
}

static unsigned dump(struct sockdiag_dump *d, struct seen *seen)
{
	unsigned n_steps = 1;
	int r;

	seen->n = seen->n_others = seen->n_queued = 0;
	while ((r = sockdiag_dump_step(d, see, seen)) > 0)
		n_steps++;
	ck_assert_int_eq(r, 0);
	sockdiag_dump_done(d);
	qsort(seen->inodes, seen->n, sizeof(seen->inodes[0]), compare);
	qsort(seen->cookies, seen->n, sizeof(seen->cookies[0]), compare);
	return n_steps;
}

static unsigned dump_tcp(unsigned port, bool waiting, struct seen *seen)
{
	struct sockdiag_dump d;

	ck_assert_int_eq(sockdiag_dump_tcp(port, waiting, &d), 0);
	return dump(&d, seen);
}

START_TEST(connections_of_a_port)
{
	enum { N = 600, ACCEPTED = 400 };
	struct address to;
	int fd = listen_and_aim(_i, &to), clients[N], accepted[ACCEPTED];
	uint64_t expected[N] = {0}, cookies[N];
	struct seen seen = {.port = address_port(&to)};
	size_t total;

	ck_assert_int_eq(listen_start(fd, N), 0);
	for (int i = 0; i < N; i++) {
		clients[i] = client_of(&to);
		ck_assert_int_ge(clients[i], 0);
	}
	ck_assert_uint_gt(dump_tcp(seen.port, false, &seen), 1);
	ck_assert_uint_eq(seen.n, N);
	ck_assert_uint_eq(seen.n_queued, N);
	memcpy(cookies, seen.cookies, sizeof(cookies));
	for (int i = 0; i < ACCEPTED; i++) {
		accepted[i] = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		ck_assert_int_eq(socket_inode(accepted[i], &expected[i]), 0);
	}
	qsort(expected, N, sizeof(expected[0]), compare);
	(void)dump_tcp(seen.port, false, &seen);
	ck_assert_uint_eq(seen.n, N);
	ck_assert_uint_eq(seen.n_others, 0);
	ck_assert_mem_eq(seen.inodes, expected, sizeof(expected));
	/* Accepting gave them inodes; they are the same connections. */
	ck_assert_mem_eq(seen.cookies, cookies, sizeof(cookies));

	/* Among all others: their clients' ends, for one. */
	for (int i = 0; i < 2; i++) {
		(void)dump_tcp(0, i == 1, &seen);
		ck_assert_uint_eq(seen.n, N);
		ck_assert_uint_ge(seen.n_others, N);
		ck_assert_mem_eq(seen.inodes, expected, sizeof(expected));
	}
	ck_assert_int_eq(sockdiag_tcp_total(&total), 0);
	ck_assert_uint_ge(total, 2 * N);

	/* What was accepted and closed is nobody's any more, half closed is. */
	close(accepted[0]);
	ck_assert_int_eq(shutdown(accepted[1], SHUT_WR), 0);
	(void)dump_tcp(seen.port, false, &seen);
	ck_assert_uint_eq(seen.n, N - 1);
	for (int i = 0; i < N; i++)
		close(clients[i]);
	for (int i = 1; i < ACCEPTED; i++)
		close(accepted[i]);
	close(fd);
}
END_TEST

static int refuse(const struct sockdiag_entry *e, void *userdata)
{
	(void)e;
	(void)userdata;
	return -ECANCELED;
}

static int take_tag(const struct sockdiag_entry *e, void *userdata)
{
	int *tags = userdata;

	ck_assert_int_lt(tags[0], 2);
	tags[++tags[0]] = e->tag;
	return 0;
}

/* Of one that waits, and of one that was accepted. */
START_TEST(tags)
{
	for (unsigned tag = 0; tag < LISTEN_TAGS; tag++) {
		struct address to;
		int fd = listen_and_aim(_i, &to), clients[2], accepted, seen[3] = {0};
		struct sockdiag_dump d;

		ck_assert_int_eq(listen_tag(fd, LISTEN_TAGS - 1 - tag), 0);
		ck_assert_int_eq(listen_tag(fd, tag), 0);
		for (int i = 0; i < 2; i++)
			ck_assert_int_ge(clients[i] = client_of(&to), 0);
		accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		ck_assert_int_ge(accepted, 0);
		ck_assert_int_eq(sockdiag_dump_tcp(address_port(&to), false, &d), 0);
		while (sockdiag_dump_step(&d, take_tag, seen) > 0)
			;
		sockdiag_dump_done(&d);
		ck_assert_int_eq(seen[0], 2);
		ck_assert_int_eq(seen[1], (int)tag);
		ck_assert_int_eq(seen[2], (int)tag);
		close(accepted);
		close(clients[0]);
		close(clients[1]);
		close(fd);
	}
}
END_TEST

START_TEST(a_dump_that_is_left)
{
	enum { N = 600 };
	struct address to;
	int fd = listen_and_aim(0, &to), clients[N];
	struct seen seen = {.port = address_port(&to)};
	struct sockdiag_dump d;

	ck_assert_int_eq(listen_start(fd, N), 0);
	for (int i = 0; i < N; i++)
		clients[i] = client_of(&to);
	ck_assert_int_eq(sockdiag_dump_tcp(seen.port, false, &d), 0);
	ck_assert_int_eq(sockdiag_dump_step(&d, refuse, NULL), -ECANCELED);
	sockdiag_dump_done(&d);
	(void)dump_tcp(seen.port, false, &seen);
	ck_assert_uint_eq(seen.n, N);
	for (int i = 0; i < N; i++)
		close(clients[i]);
	close(fd);
}
END_TEST

START_TEST(unix_connections)
{
	/* In the abstract namespace, or a file. */
	const char first = _i == 0 ? '\0' : '/';
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int type = _i == 2 ? SOCK_SEQPACKET : SOCK_STREAM, fd, clients[3], accepted[2], pair[2];
	struct seen seen = {.name = a.sun_path};
	uint64_t expected[2];
	struct sockdiag_dump d;
	socklen_t len;

	len = (socklen_t)snprintf(
		a.sun_path, sizeof(a.sun_path), "/tmp/test-sockdiag-%d-%d", _i, (int)getpid());
	a.sun_path[0] = first;
	seen.name_len = len;
	len += (socklen_t)offsetof(struct sockaddr_un, sun_path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&a, len), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	for (size_t i = 0; i < 3; i++) {
		clients[i] = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(connect(clients[i], (const struct sockaddr *)&a, len), 0);
	}
	for (size_t i = 0; i < 2; i++) {
		accepted[i] = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		ck_assert_int_eq(socket_inode(accepted[i], &expected[i]), 0);
	}
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	qsort(expected, 2, sizeof(expected[0]), compare);
	ck_assert_int_eq(sockdiag_dump_unix(&d), 0);
	(void)dump(&d, &seen);
	ck_assert_uint_eq(seen.n, 2);
	ck_assert_mem_eq(seen.inodes, expected, sizeof(expected));
	for (size_t i = 0; i < 3; i++)
		close(clients[i]);
	/* Its process still has it. */
	ck_assert_int_eq(sockdiag_dump_unix(&d), 0);
	(void)dump(&d, &seen);
	ck_assert_uint_eq(seen.n, 2);
	close(accepted[0]);
	close(accepted[1]);
	ck_assert_int_eq(sockdiag_dump_unix(&d), 0);
	(void)dump(&d, &seen);
	ck_assert_uint_eq(seen.n, 0);
	if (first == '/')
		unlink(a.sun_path);
	close(fd);
	close(pair[0]);
	close(pair[1]);
}
END_TEST

START_TEST(quick)
{
	enum { N = 5000 };
	struct address to, from;
	int fd = listen_and_aim(0, &to), client = client_of(&to);
	uint64_t inode, start = now_usec();

	from = bound_address(client);
	for (int i = 0; i < N; i++)
		ck_assert(sockdiag_connection(nl, &to, &from, &inode) == SOCKDIAG_QUEUED);
	start = now_usec() - start;
	printf("sockdiag_connection: %.2f us\n", (double)start / N);
	ck_assert_uint_lt(start / N, 100);
	close(client);
	close(fd);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("sockdiag");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, from_queued_to_accepted, 0, ARRAY_SIZE(families));
	tcase_add_loop_test(tcase, closed_by_the_client, 0, ARRAY_SIZE(families));
	tcase_add_loop_test(tcase, absent, 0, ARRAY_SIZE(families));
	tcase_add_loop_test(tcase, handshake, 0, ARRAY_SIZE(families));
	tcase_add_test(tcase, mapped_addresses);
	tcase_add_test(tcase, listeners_of_a_port);
	tcase_add_loop_test(tcase, connections_of_a_port, 0, ARRAY_SIZE(families));
	tcase_add_loop_test(tcase, tags, 0, ARRAY_SIZE(families));
	tcase_add_test(tcase, a_dump_that_is_left);
	tcase_add_loop_test(tcase, unix_connections, 0, 3);
	tcase_add_test(tcase, quick);
	return run_case("sockdiag", tcase);
}

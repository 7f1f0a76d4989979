/* SPDX-License-Identifier: Apache-2.0 */
#include "sys_test.h"

#include <sys/epoll.h>

enum { GROUP = 4 };

static int steer_to(int fd, unsigned index)
{
	const struct sock_filter filter = BPF_STMT(BPF_RET | BPF_K, index);

	return listen_steer(fd, &filter, 1);
}

/* A group of n members that listen in the order of fds; *a gets its port. */
static void open_group(struct address *a, const struct listen_options *o, int *fds, size_t n)
{
	struct sock_filter filter = BPF_STMT(BPF_RET | BPF_K, 0);
	const struct sock_fprog program = {.len = 1, .filter = &filter};

	fds[0] = listen_open_first(a, o, &program);
	ck_assert_int_ge(fds[0], 0);
	*a = bound_address(fds[0]);
	ck_assert_int_eq(listen_start(fds[0], o->backlog), 0);
	for (size_t i = 1; i < n; i++) {
		fds[i] = listen_open_member(a, o);
		ck_assert_int_ge(fds[i], 0);
		ck_assert_int_eq(listen_start(fds[i], o->backlog), 0);
	}
}

/* Which of fds gets a connection now? Takes it out of the queue. -1: more or less than one. */
static int receiver(const struct address *a, const int *fds, size_t n)
{
	_cleanup_close_ int client = client_of(a);
	int found = -1;

	ck_assert_int_ge(client, 0);
	for (size_t i = 0; i < n; i++) {
		struct listen_state state;

		if (fds[i] < 0 || listen_query(fds[i], &state) < 0 || state.queue == 0)
			continue;
		if (found >= 0 || state.queue != 1)
			return -1;
		found = (int)i;
		ck_assert_int_eq(listen_reset_queue(fds[i], 2), 1);
	}
	return found;
}

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close_fd(fds[i]);
}

static const char *const families[] = {"127.0.0.1:0", "[::1]:0", "[::]:0"};

START_TEST(index_is_order_of_listen)
{
	struct address a = address_of(families[_i]), to;
	int fds[GROUP];
	const struct listen_options o = OPTIONS;

	open_group(&a, &o, fds, 1);
	/* Bound in one order, listening in the other. */
	fds[1] = listen_open_member(&a, &o);
	fds[2] = listen_open_member(&a, &o);
	fds[3] = listen_open_member(&a, &o);
	for (size_t i = 3; i > 0; i--)
		ck_assert_int_eq(listen_start(fds[i], 16), 0);
	address_loopback_of(&a, &to);
	for (unsigned i = 0; i < GROUP; i++) {
		ck_assert_int_eq(steer_to(fds[i], i), 0);
		ck_assert_int_eq(receiver(&to, fds, GROUP), i == 0 ? 0 : GROUP - (int)i);
	}
	close_all(fds, GROUP);
}
END_TEST

START_TEST(last_moves_into_the_hole)
{
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	int fds[GROUP];

	open_group(&a, &o, fds, GROUP);
	fds[1] = close_fd(fds[1]);
	ck_assert_int_eq(steer_to(fds[0], 1), 0);
	ck_assert_int_eq(receiver(&a, fds, GROUP), 3);
	ck_assert_int_eq(steer_to(fds[0], 2), 0);
	ck_assert_int_eq(receiver(&a, fds, GROUP), 2);
	close_all(fds, GROUP);
}
END_TEST

/* A worker may shut a listener down for everybody. Who holds it sees that, and can revive it: at
 * the end. */
START_TEST(revived_moves_to_the_end)
{
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	struct listen_state state;
	int fds[GROUP];
	struct pollfd p;

	open_group(&a, &o, fds, GROUP);
	ck_assert_int_eq(shutdown(fds[0], SHUT_RD), 0);
	ck_assert_int_eq(listen_query(fds[0], &state), 0);
	ck_assert(!state.accepting);
	ck_assert_int_eq(listen_nudge(fds[0]), -ENOTCONN);
	p = (struct pollfd){.fd = fds[0]};
	ck_assert_int_eq(poll(&p, 1, 0), 1);
	ck_assert(p.revents & POLLHUP);

	ck_assert_int_eq(listen_start(fds[0], 16), 0);
	ck_assert_int_eq(listen_query(fds[0], &state), 0);
	ck_assert(state.accepting);
	static const int order[GROUP] = {3, 1, 2, 0};
	for (unsigned i = 0; i < GROUP; i++) {
		ck_assert_int_eq(steer_to(fds[2], i), 0);
		ck_assert_int_eq(receiver(&a, fds, GROUP), order[i]);
	}
	close_all(fds, GROUP);
}
END_TEST

START_TEST(no_moment_without_the_program)
{
	struct sock_filter to_1 = BPF_STMT(BPF_RET | BPF_K, 1);
	const struct sock_fprog program = {.len = 1, .filter = &to_1};
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	int fds[2];

	/* The program that came with the first socket governs the second without being attached
	 * again. */
	fds[0] = listen_open_first(&a, &o, &program);
	ck_assert_int_ge(fds[0], 0);
	a = bound_address(fds[0]);
	fds[1] = listen_open_member(&a, &o);
	ck_assert_int_eq(listen_start(fds[0], 16), 0);
	ck_assert_int_eq(listen_start(fds[1], 16), 0);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(receiver(&a, fds, 2), 1);
	close_all(fds, 2);
}
END_TEST

START_TEST(unsteer_twice)
{
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	int fds[2], n[2] = {0, 0};

	open_group(&a, &o, fds, 2);
	ck_assert_int_eq(listen_unsteer(fds[0]), 0);
	ck_assert_int_eq(listen_unsteer(fds[1]), 0);
	/* By hash: 40 clients that all come to one of two would be one case in 2^39. */
	for (int i = 0; i < 40; i++)
		n[receiver(&a, fds, 2)]++;
	ck_assert_int_gt(n[0], 0);
	ck_assert_int_gt(n[1], 0);
	ck_assert_int_eq(listen_steer(fds[0], NULL, 0), -EINVAL);
	close_all(fds, 2);
}
END_TEST

/* One that listens without being a group, as a service manager passes it. */
START_TEST(foreign_socket_becomes_a_group)
{
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	int fds[3];

	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fds[0], &a.sa, a.len), 0);
	ck_assert_int_eq(listen(fds[0], 16), 0);
	a = bound_address(fds[0]);
	ck_assert_int_eq(steer_to(fds[0], 0), -EINVAL);
	ck_assert_int_eq(listen_open_member(&a, &o), -EADDRINUSE);
	ck_assert_int_eq(listen_make_group(fds[0]), 0);
	fds[1] = listen_open_member(&a, &o);
	ck_assert_int_ge(fds[1], 0);
	ck_assert_int_eq(listen_start(fds[1], 16), 0);
	fds[2] = listen_open_member(&a, &o);
	ck_assert_int_eq(listen_start(fds[2], 16), 0);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(steer_to(fds[0], i), 0);
		ck_assert_int_eq(receiver(&a, fds, 3), (int)i);
	}
	close_all(fds, 3);
}
END_TEST

/* Also one of our own uid that is ready to share. */
START_TEST(stranger_on_the_port)
{
	struct address a = address_of(_i & 1 ? "[::]:0" : "127.0.0.1:0");
	const int share = (_i & 2) != 0, type = _i & 4 ? SOCK_DGRAM : SOCK_STREAM;
	_cleanup_close_ int stranger = socket(address_family(&a), type | SOCK_CLOEXEC, 0);
	const struct listen_options o = OPTIONS;

	if (type == SOCK_DGRAM)
		a.kind = ADDRESS_UDP;
	ck_assert_int_eq(setsockopt(stranger, SOL_SOCKET, SO_REUSEPORT, &share, sizeof(share)), 0);
	ck_assert_int_eq(setsockopt(stranger, SOL_SOCKET, SO_REUSEADDR, &share, sizeof(share)), 0);
	ck_assert_int_eq(bind(stranger, &a.sa, a.len), 0);
	if (type == SOCK_STREAM)
		ck_assert_int_eq(listen(stranger, 5), 0);
	a = bound_address(stranger);
	ck_assert_int_eq(listen_open_first(&a, &o, NULL), -EADDRINUSE);
	if (_i & 1) {
		/* Dual-stack: its IPv4 half too. */
		struct address half =
			address_of(type == SOCK_DGRAM ? "udp:0.0.0.0:0" : "0.0.0.0:0");

		half.in4.sin_port = a.in6.sin6_port;
		ck_assert_int_eq(listen_open_first(&half, &o, NULL), -EADDRINUSE);
	}
}
END_TEST

START_TEST(dual_stack)
{
	struct listen_options o = OPTIONS;
	struct address a = address_of("[::]:0"), v4 = address_of("127.0.0.1:0");
	int fds[2], client;

	o.v6only = _i == 1;
	open_group(&a, &o, fds, 2);
	v4.in4.sin_port = a.in6.sin6_port;
	ck_assert_int_eq(steer_to(fds[0], 1), 0);
	if (o.v6only) {
		ck_assert_int_eq(client_of(&v4), -ECONNREFUSED);
		/* The other half is free. */
		client = listen_open_first(&v4, &o, NULL);
		ck_assert_int_ge(client, 0);
		close(client);
	} else
		ck_assert_int_eq(receiver(&v4, fds, 2), 1);
	close_all(fds, 2);
}
END_TEST

START_TEST(query_tells_the_queue)
{
	struct address a = address_of("127.0.0.1:0");
	struct listen_options o = OPTIONS;
	int fds[1], clients[3];
	struct listen_state state;

	o.backlog = 7;
	open_group(&a, &o, fds, 1);
	for (unsigned i = 0; i < 3; i++) {
		clients[i] = client_of(&a);
		ck_assert_int_ge(clients[i], 0);
		ck_assert_int_eq(listen_query(fds[0], &state), 0);
		ck_assert_uint_eq(state.queue, i + 1);
		ck_assert_uint_eq(state.queue_max, 7);
	}
	ck_assert_int_eq(listen_start(fds[0], 9), 0);
	ck_assert_int_eq(listen_query(fds[0], &state), 0);
	ck_assert_uint_eq(state.queue_max, 9);
	ck_assert_int_eq(listen_reset_queue(fds[0], 2), 2);
	ck_assert_int_eq(listen_query(fds[0], &state), 0);
	ck_assert_uint_eq(state.queue, 1);
	/* Reset, not closed. */
	ck_assert_int_eq(read(clients[0], &state, 1), -1);
	ck_assert_int_eq(errno, ECONNRESET);
	ck_assert_int_eq(listen_reset_queue(fds[0], 10), 1);
	ck_assert_int_eq(listen_reset_queue(fds[0], 10), 0);
	close_all(clients, 3);
	close_all(fds, 1);
}
END_TEST

START_TEST(query_is_quick)
{
	enum { N = 20000 };
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	struct listen_state state;
	uint64_t start;
	int fds[1];

	open_group(&a, &o, fds, 1);
	start = now_usec();
	for (int i = 0; i < N; i++)
		ck_assert(listen_query(fds[0], &state) == 0);
	start = now_usec() - start;
	printf("listen_query: %.2f us\n", (double)start / N);
	ck_assert_uint_lt(start / N, 50);
	close_all(fds, 1);
}
END_TEST

/* Two that wait as workers do; the one that was woken goes away without accepting. */
START_TEST(nudge_wakes_the_other)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	int fds[1], epolls[2], client, first;
	struct pollfd p[2];
	struct listen_state state;
	char path[32];

	if (_i == 0)
		open_group(&a, &o, fds, 1);
	else {
		make_directory(path);
		_cleanup_free_ char *name = xasprintf("unix:%s/s", path);
		a = address_of(name);
		fds[0] = listen_open_unix(&a, &o);
		ck_assert_int_ge(fds[0], 0);
	}
	for (size_t i = 0; i < 2; i++) {
		epolls[i] = epoll_create1(EPOLL_CLOEXEC);
		ck_assert_int_eq(epoll_ctl(epolls[i], EPOLL_CTL_ADD, fds[0], &event), 0);
		p[i] = (struct pollfd){.fd = epolls[i], .events = POLLIN};
	}
	client = client_of(&a);
	ck_assert_int_eq(poll(p, 2, 1000), 2);
	/* One is told, and forgets it. */
	first = epoll_wait(epolls[0], &event, 1, 0) == 1 ? 0 : 1;
	close(epolls[first]);
	ck_assert_int_eq(listen_nudge(fds[0]), 0);
	ck_assert_int_eq(epoll_wait(epolls[!first], &event, 1, 1000), 1);
	ck_assert(event.events & EPOLLIN);
	/* Nothing else has changed. */
	ck_assert(listen_query(fds[0], &state) == (_i == 0 ? 0 : -EOPNOTSUPP));
	ck_assert(state.accepting);
	ck_assert_int_eq(listen_reset_queue(fds[0], 5), 1);
	close(client);
	client = client_of(&a);
	ck_assert_int_ge(client, 0);
	close(client);
	close(epolls[!first]);
	close_all(fds, 1);
	if (_i == 1) {
		ck_assert_int_eq(unlink(a.un.sun_path), 0);
		ck_assert_int_eq(rmdir(path), 0);
	}
}
END_TEST

START_TEST(shutdown_ends_it_for_every_holder)
{
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	int fds[2], other, queued;
	char byte;

	open_group(&a, &o, fds, 2);
	ck_assert_int_eq(steer_to(fds[0], 1), 0);
	queued = client_of(&a);
	other = dup(fds[1]);
	ck_assert_int_eq(steer_to(fds[0], 0), 0);
	listen_shutdown_take(&fds[1]);
	ck_assert_int_eq(fds[1], -1);
	ck_assert_int_eq(read(queued, &byte, 1), -1);
	ck_assert_int_eq(errno, ECONNRESET);
	/* It has left the array: an index out of range goes to whoever is left, never to it. */
	ck_assert_int_eq(steer_to(fds[0], 1), 0);
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(receiver(&a, fds, 1), 0);
	close(queued);
	close(other);
	close_all(fds, 1);
	fds[0] = -1;
	listen_shutdown_take(&fds[0]);
}
END_TEST

START_TEST(options_reach_the_socket)
{
	struct address a = address_of("127.0.0.1:0");
	struct listen_options o = OPTIONS;
	socklen_t len = sizeof(int);
	int fds[2], value, flags;
	struct {
		int level, option, expected;
	} expected[] = {
		{SOL_SOCKET,  SO_RCVBUF,		2 * 65536},
		{SOL_SOCKET,  SO_SNDBUF,		2 * 32768},
		{SOL_SOCKET,  SO_REUSEPORT,	   1	    },
		{SOL_SOCKET,  SO_REUSEADDR,	   1	    },
		{IPPROTO_TCP, 1 /* TCP_NODELAY */, 1	    },
	};

	static const struct sockopt options[] = {
		{.level = SOL_SOCKET,  .name = SO_RCVBUF,		 .value = 65536},
		{.level = SOL_SOCKET,  .name = SO_SNDBUF,		 .value = 32768},
		{.level = IPPROTO_TCP, .name = 1 /* TCP_NODELAY */, .value = 1    },
	};

	o.options = options;
	o.n_options = ARRAY_SIZE(options);
	open_group(&a, &o, fds, 2);
	for (size_t i = 0; i < 2; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(expected); k++) {
			ck_assert_int_eq(getsockopt(fds[i], expected[k].level, expected[k].option,
						 &value, &len),
				0);
			ck_assert_int_eq(value, expected[k].expected);
		}
		flags = fcntl(fds[i], F_GETFD);
		ck_assert(flags & FD_CLOEXEC);
		ck_assert(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
	}
	close_all(fds, 2);
}
END_TEST

START_TEST(status_flags_stay_as_they_are)
{
	struct address a = address_of("127.0.0.1:0");
	struct listen_options o = OPTIONS;
	struct listen_state state;
	int fds[1], client;

	o.blocking = true;
	open_group(&a, &o, fds, 1);
	ck_assert_int_eq(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_eq(listen_query(fds[0], &state), 0);
	ck_assert_int_eq(listen_nudge(fds[0]), 0);
	/* Blocking and empty: must not wait for a client. */
	ck_assert_int_eq(listen_reset_queue(fds[0], 5), 0);
	client = client_of(&a);
	ck_assert_int_eq(listen_reset_queue(fds[0], 5), 1);
	close(client);
	ck_assert_int_eq(steer_to(fds[0], 0), 0);
	ck_assert_int_eq(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
	close_all(fds, 1);
}
END_TEST

static int accept_on(void *userdata)
{
	const int fd = *(int *)userdata;

	while (fd >= 0)
		close_fd(accept(fd, NULL, NULL));
	return 1;
}

/* Somebody else takes what the queue had a moment ago. */
START_TEST(reset_never_waits)
{
	struct address a = address_of("127.0.0.1:0");
	struct listen_options o = OPTIONS;
	int fds[1], n_reset = 0;
	pid_t rival;

	o.blocking = true;
	open_group(&a, &o, fds, 1);
	rival = fork_child(accept_on, fds);
	for (uint64_t end = now_usec() + 300000; now_usec() < end;) {
		int client = client_of(&a), r = listen_reset_queue(fds[0], 3);

		ck_assert_int_ge(r, 0);
		n_reset += r;
		close(client);
	}
	end_child(rival);
	ck_assert_int_eq(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_gt(n_reset, 0);
	close_all(fds, 1);
}
END_TEST

START_TEST(datagrams)
{
	struct sock_filter filter = BPF_STMT(BPF_RET | BPF_K, 0);
	const struct sock_fprog program = {.len = 1, .filter = &filter};
	struct address a = address_of(_i ? "udp:[::1]:0" : "udp:127.0.0.1:0");
	_cleanup_close_ int client = socket(address_family(&a), SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const struct listen_options o = OPTIONS;
	struct listen_state state;
	int fds[3], other;

	fds[0] = listen_open_first(&a, &o, &program);
	ck_assert_int_ge(fds[0], 0);
	a = bound_address(fds[0]);
	for (size_t i = 1; i < 3; i++) {
		fds[i] = listen_open_member(&a, &o);
		ck_assert_int_ge(fds[i], 0);
		ck_assert_int_eq(listen_start(fds[i], 16), 0);
	}
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(steer_to(fds[0], i), 0);
		for (int k = 0; k < 3; k++)
			ck_assert_int_eq(sendto(client, "x", 1, 0, &a.sa, a.len), 1);
		for (unsigned k = 0; k < 3; k++) {
			ck_assert_int_eq(listen_query(fds[k], &state), 0);
			ck_assert(state.accepting);
			ck_assert_uint_eq(state.queue, i == k);
			ck_assert_int_eq(listen_nudge(fds[k]), 0);
			ck_assert_int_eq(listen_reset_queue(fds[k], 10), i == k ? 3 : 0);
		}
	}
	/* Retired for the other holder too, even when steered to. */
	other = dup(fds[2]);
	listen_shutdown_take(&fds[2]);
	ck_assert_int_eq(sendto(client, "x", 1, 0, &a.sa, a.len), 1);
	ck_assert(!is_readable(other, 20));
	ck_assert(is_readable(fds[0], 0) || is_readable(fds[1], 0));
	close(other);
	close_all(fds, 2);
}
END_TEST

START_TEST(identities)
{
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	uint64_t inodes[2], cookies[2];
	char path[64], link[64], expected[64];
	int fds[2];
	ssize_t n;

	open_group(&a, &o, fds, 2);
	for (size_t i = 0; i < 2; i++) {
		ck_assert_int_eq(socket_inode(fds[i], &inodes[i]), 0);
		ck_assert_int_eq(socket_cookie(fds[i], &cookies[i]), 0);
	}
	ck_assert(inodes[0] != inodes[1] && cookies[0] != cookies[1]);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[1]);
	(void)snprintf(expected, sizeof(expected), "socket:[%llu]", (unsigned long long)inodes[1]);
	n = readlink(path, link, sizeof(link) - 1);
	ck_assert_int_gt(n, 0);
	link[n] = '\0';
	ck_assert_str_eq(link, expected);
	ck_assert_int_eq(socket_inode(STDIN_FILENO, &inodes[0]), -ENOTSOCK);
	close_all(fds, 2);
}
END_TEST

/* Connections that are there stay, and are accepted; none is begun any more, and who tries waits.
 */
START_TEST(no_more_connections)
{
	static const char *const addresses[] = {"127.0.0.1:0", "[::1]:0", "udp:127.0.0.1:0"};
	struct address a = address_of(addresses[_i]);
	const struct listen_options o = OPTIONS;
	_cleanup_close_ int before = -1, after = -1, accepted = -1;
	struct pollfd p = {.events = POLLOUT};
	char byte = 'x';
	int fds[1];

	open_group(&a, &o, fds, 1);
	if (_i == 2) {
		ck_assert_int_eq(listen_begin_no_more(fds[0]), 0);
		before = client_of(&a);
		ck_assert_int_eq(send(before, &byte, 1, 0), 1);
		ck_assert_int_eq(recv(fds[0], &byte, 1, MSG_DONTWAIT), -1);
		close_all(fds, 1);
		return;
	}
	before = client_of(&a);
	ck_assert_int_ge(before, 0);
	ck_assert_int_eq(listen_begin_no_more(fds[0]), 0);
	after = socket(address_family(&a), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(after, &a.sa, a.len), -1);
	ck_assert_int_eq(errno, EINPROGRESS);
	p.fd = after;
	ck_assert_int_eq(poll(&p, 1, 300), 0);
	/* The one that was there talks on. */
	ck_assert_int_eq(send(before, &byte, 1, 0), 1);
	accepted = accept(fds[0], NULL, NULL);
	ck_assert_int_ge(accepted, 0);
	ck_assert_int_eq(recv(accepted, &byte, 1, 0), 1);
	ck_assert_int_eq(send(accepted, &byte, 1, 0), 1);
	ck_assert_int_eq(recv(before, &byte, 1, 0), 1);
	/* When nobody listens any more, whoever waits is refused. */
	close_all(fds, 1);
	ck_assert_int_eq(poll(&p, 1, 20000), 1);
	ck_assert(p.revents & POLLERR);
}
END_TEST

START_TEST(selftest)
{
	uint64_t start = now_usec();

	ck_assert_int_eq(listen_selftest(), 0);
	printf("listen_selftest: %llu us\n", (unsigned long long)(now_usec() - start));
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("listen");

	tcase_add_loop_test(tcase, index_is_order_of_listen, 0, ARRAY_SIZE(families));
	tcase_add_test(tcase, last_moves_into_the_hole);
	tcase_add_test(tcase, revived_moves_to_the_end);
	tcase_add_test(tcase, no_moment_without_the_program);
	tcase_add_test(tcase, unsteer_twice);
	tcase_add_test(tcase, foreign_socket_becomes_a_group);
	tcase_add_loop_test(tcase, stranger_on_the_port, 0, 8);
	tcase_add_loop_test(tcase, dual_stack, 0, 2);
	tcase_add_test(tcase, query_tells_the_queue);
	tcase_add_test(tcase, query_is_quick);
	tcase_add_loop_test(tcase, nudge_wakes_the_other, 0, 2);
	tcase_add_test(tcase, shutdown_ends_it_for_every_holder);
	tcase_add_test(tcase, options_reach_the_socket);
	tcase_add_test(tcase, status_flags_stay_as_they_are);
	tcase_add_test(tcase, reset_never_waits);
	tcase_add_loop_test(tcase, datagrams, 0, 2);
	tcase_add_test(tcase, identities);
	tcase_add_loop_test(tcase, no_more_connections, 0, 3);
	tcase_add_test(tcase, selftest);
	return run_case("listen", tcase);
}

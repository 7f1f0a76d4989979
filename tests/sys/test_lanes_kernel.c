/* SPDX-License-Identifier: Apache-2.0 */
/* Does the kernel keep the array as the model says? After each random change the group is steered
 * to every index in turn, and a client must come to the socket that the model has there. */
#include "core/lanes.h"
#include "group.h"

enum { LANES = 2, SLOTS = 5, SOCKETS = LANES * SLOTS, CHANGES = 60 };

/* A socket is opened, listens, is shut down (bound still), listens again, is closed; in any order
 * that can be. */
struct world {
	struct group group; /* fds[] by lane and slot; n is SOCKETS, absent ones are -1 */
	struct lanes lanes;
	bool listening[SOCKETS];
	uint64_t random;
};

static unsigned draw(struct world *w, unsigned n)
{
	w->random = w->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(w->random >> 33) % n;
}

static void world_done(struct world *w)
{
	w->group.n = SOCKETS;
	group_close(&w->group);
	lanes_done(&w->lanes);
}

static void begin_to_listen(struct world *w, unsigned i)
{
	ck_assert_int_eq(listen_start(w->group.fds[i], GROUP_BACKLOG), 0);
	ck_assert_int_eq(lanes_append(&w->lanes, i / SLOTS, i % SLOTS, w->group.fds[i]),
		(int)w->lanes.n - 1);
	w->listening[i] = true;
}

static void leave(struct world *w, unsigned i)
{
	int fd = -1;

	ck_assert_int_eq(lanes_remove(&w->lanes, i / SLOTS, i % SLOTS, &fd), 0);
	ck_assert_int_eq(fd, w->group.fds[i]);
	w->listening[i] = false;
}

static void world_init(struct world *w, const char *address, bool v6only, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->random = seed;
	w->group.fds[0] = group_open_first(&w->group, address, v6only);
	w->group.n = SOCKETS;
	begin_to_listen(w, 0);
}

static void change_tcp(struct world *w, unsigned i)
{
	int *fd = &w->group.fds[i];

	if (*fd < 0) {
		*fd = group_open_member(&w->group);
		if (draw(w, 3) > 0) /* else it stays bound for a while, and others come first */
			begin_to_listen(w, i);
		return;
	}
	if (!w->listening[i]) {
		if (draw(w, 4) > 0)
			begin_to_listen(w, i);
		else
			*fd = close_fd(*fd);
		return;
	}
	if (w->lanes.n == 1)
		return; /* the group would be gone; see the_last_one_takes_the_program_along */
	switch (draw(w, 4)) {
	case 0:
		leave(w, i);
		*fd = close_fd(*fd);
		break;
	case 1:
		leave(w, i);
		listen_shutdown_take(fd);
		break;
	case 2: /* a worker does it; seen and repaired later */
		ck_assert_int_eq(shutdown(*fd, draw(w, 2) ? SHUT_RD : SHUT_RDWR), 0);
		leave(w, i);
		break;
	default: /* at once */
		ck_assert_int_eq(shutdown(*fd, SHUT_RD), 0);
		ck_assert_int_eq(listen_start(*fd, GROUP_BACKLOG), 0);
		ck_assert_int_eq(
			lanes_relisten(&w->lanes, i / SLOTS, i % SLOTS), (int)w->lanes.n - 1);
		break;
	}
}

/* Things that must not change the array: another backlog, a nudge. */
static void change_nothing(struct world *w, unsigned i)
{
	if (!w->listening[i])
		return;
	ck_assert_int_eq(listen_start(w->group.fds[i], 1 + draw(w, GROUP_BACKLOG)), 0);
	ck_assert_int_eq(listen_nudge(w->group.fds[i]), 0);
	ck_assert_int_eq(listen_start(w->group.fds[i], GROUP_BACKLOG), 0);
}

static void change_udp(struct world *w, unsigned i)
{
	int *fd = &w->group.fds[i];

	if (*fd < 0) {
		*fd = group_open_member(&w->group);
		begin_to_listen(w, i);
	} else if (w->lanes.n > 1) {
		leave(w, i);
		*fd = close_fd(*fd);
	}
}

static void check_every_index(struct world *w, const char *source)
{
	struct group listening = w->group;

	/* One that was shut down looks as if a client had come. */
	for (unsigned i = 0; i < SOCKETS; i++)
		if (!w->listening[i])
			listening.fds[i] = -1;
	for (uint32_t index = 0; index < w->lanes.n; index++) {
		struct sock_filter to_index = BPF_STMT(BPF_RET | BPF_K, index);
		const struct lane_socket *s = &w->lanes.sockets[index];
		unsigned reached;

		ck_assert_int_eq(listen_steer(s->fd, &to_index, 1), 0);
		reached = group_reach(&listening, source, 0);
		ck_assert_msg(reached == s->lane * SLOTS + s->slot,
			"index %u of %zu: expected %u.%u, came to %u.%u", index, w->lanes.n,
			s->lane, s->slot, reached / SLOTS, reached % SLOTS);
	}
}

static void check_sequences(const char *address, bool v6only, const char *source, uint64_t n_seeds)
{
	for (uint64_t seed = 1; seed <= n_seeds; seed++) {
		_cleanup_(world_done) struct world w;
		size_t largest = 0;

		world_init(&w, address, v6only, seed);
		for (unsigned n = 0; n < CHANGES; n++) {
			unsigned i = draw(&w, SOCKETS);

			if (w.group.address.kind == ADDRESS_UDP)
				change_udp(&w, i);
			else if (draw(&w, 8) == 0)
				change_nothing(&w, i);
			else
				change_tcp(&w, i);
			check_every_index(&w, source);
			largest = MAX(largest, w.lanes.n);
		}
		ck_assert_uint_ge(largest, 4);
	}
}

START_TEST(tcp_v4)
{
	check_sequences("tcp:127.0.0.1:0", false, "127.0.0.1", 20);
}
END_TEST

START_TEST(tcp_v6)
{
	check_sequences("tcp:[::1]:0", true, "::1", 10);
}
END_TEST

START_TEST(tcp_dual_stack)
{
	check_sequences("tcp:[::]:0", false, "::1", 10);
	check_sequences("tcp:[::]:0", false, "127.0.0.1", 10);
}
END_TEST

START_TEST(udp)
{
	check_sequences("udp:127.0.0.1:0", false, "127.0.0.1", 10);
	check_sequences("udp:[::]:0", false, "::1", 10);
}
END_TEST

/* With this setting the kernel keeps what was shut down in a second part of the array, from which
 * listen() takes it back. The part that counts is the same. */
static void with_migration(void)
{
	group_write_proc("/proc/sys/net/ipv4/tcp_migrate_req", "1");
	check_sequences("tcp:127.0.0.1:0", false, "127.0.0.1", 10);
	check_sequences("tcp:[::]:0", false, "::1", 10);
}

START_TEST(own_network)
{
	group_in_own_network(with_migration);
}
END_TEST

/* As many as a large service has, through the kernel's own growing of the array; then every other
 * one leaves. */
START_TEST(many)
{
	enum { N = 260 };
	_cleanup_(group_close) struct group g;
	_cleanup_(lanes_done) struct lanes l = {NULL, 0, 0};

	group_open(&g, "tcp:127.0.0.1:0", false, N);
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(lanes_append(&l, i % 2, i / 2, g.fds[i]), (int)i);
	for (unsigned round = 0; round < 2; round++) {
		for (uint32_t index = 0; index < l.n; index++) {
			struct sock_filter to_index = BPF_STMT(BPF_RET | BPF_K, index);
			unsigned reached;

			ck_assert_int_eq(listen_steer(l.sockets[0].fd, &to_index, 1), 0);
			reached = group_reach(&g, "127.0.0.1", 0);
			ck_assert_int_eq(g.fds[reached], l.sockets[index].fd);
		}
		for (unsigned i = 0; round == 0 && i < N; i += 2) {
			ck_assert_int_eq(lanes_remove(&l, i % 2, i / 2, NULL), 0);
			listen_shutdown_take(&g.fds[i]);
		}
	}
	ck_assert_uint_eq(l.n, N / 2);
}
END_TEST

/* Where the only member of a group is shut down the group ends, and with it the program: who
 * repairs it attaches again. That is why each lane's change ends in an attach, and why the model
 * alone is not enough. */
START_TEST(the_last_one_takes_the_program_along)
{
	_cleanup_(group_close) struct group g;
	unsigned hits[2];

	group_open(&g, "tcp:127.0.0.1:0", false, 1);
	ck_assert_int_eq(shutdown(g.fds[0], SHUT_RD), 0);
	ck_assert_int_eq(listen_start(g.fds[0], GROUP_BACKLOG), 0);
	g.fds[1] = group_open_member(&g);
	g.n = 2;
	ck_assert_int_eq(listen_start(g.fds[1], GROUP_BACKLOG), 0);
	group_load(&g, "127.0.0.1", 400, hits);
	ck_assert_uint_gt(hits[1], 0); /* "always the first", from group_open(), is forgotten */
}
END_TEST

int main(void)
{
	const TTest *tests[] = {tcp_v4, tcp_v6, tcp_dual_stack, udp, own_network, many,
		the_last_one_takes_the_program_along};

	/* Thousands of connections beside whatever else the machine does. */
	(void)setenv("CK_DEFAULT_TIMEOUT", "60", 0);
	return run_tests("lanes_kernel", tests, ARRAY_SIZE(tests));
}

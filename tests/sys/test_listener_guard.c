/* SPDX-License-Identifier: Apache-2.0 */
/* Strangers in a listener's group: sockets of the same user that the listener knows nothing of.
 * They come and go as they like; every connection still comes to the socket that the model names.
 */
#include "listener_scene.h"

enum { STRANGERS = 5, WORKERS_MAX = 8 };

static int strangers[STRANGERS] = {-1, -1, -1, -1, -1};
static uint64_t state;

static unsigned draw(unsigned n)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(state >> 33) % n;
}

static int stranger_on(const char *address, unsigned port)
{
	struct address a = address_of(address);
	int fd;

	a.in4.sin_port = htons((uint16_t)port);
	fd = listen_open_member(&a, &OPTIONS);
	ck_assert_msg(fd >= 0, "%s", strerror(-fd));
	ck_assert_int_eq(listen_start(fd, 64), 0);
	return fd;
}

static int join(const struct listener *l)
{
	return stranger_on("127.0.0.1:0", address_port(&l->config.address));
}

static void leave_all(void)
{
	for (unsigned i = 0; i < STRANGERS; i++)
		strangers[i] = close_fd(strangers[i]);
}

static unsigned n_members(const struct listener *l)
{
	unsigned n = 0;

	for (size_t i = 0; i < l->guard.n_foreign; i++)
		n += l->guard.foreign[i].member;
	return n;
}

/* Nothing waits at any of them. */
static void expect_nothing_for_strangers(void)
{
	for (unsigned i = 0; i < STRANGERS; i++) {
		struct pollfd p = {.fd = strangers[i], .events = POLLIN};

		ck_assert_int_eq(strangers[i] >= 0 ? poll(&p, 1, 0) : 0, 0);
	}
}

static void prepare(struct listener *l, unsigned lane, unsigned n_workers)
{
	_cleanup_error_ struct error error = ERROR_NULL;

	ck_assert_int_eq(listener_prepare_lane(l, lane, n_workers, true, &error), 0);
}

/* The story that the guards are for: one of ours joins behind a stranger, who leaves. */
START_TEST(a_stranger_leaves_from_the_middle)
{
	struct listener *l;
	int stranger;

	wanted.sockets = SOCKETS_PER_WORKER;
	l = scene_open(0);
	scene_add(0, SHARE_MAX, 4);
	stranger = join(l);
	expect_model(l); /* not even seen */
	prepare(l, 0, 4);
	ck_assert_uint_eq(n_members(l), 1);
	ck_assert_uint_ge(l->guard.n_fds, 1);
	listener_steer(l);
	expect_model(l);
	ck_assert_uint_eq(count_hits(l, 100).lane[0], 100);
	close(stranger);
	/* Not seen either: a guard is where it was. */
	expect_model(l);
	ck_assert_uint_eq(count_hits(l, 100).lane[0], 100);
	listener_guard_look(l);
	ck_assert_uint_eq(n_members(l), 0);
	expect_model(l);
	prepare(l, 0, 6);
	prepare(l, 1, 6);
	expect_model(l);
	service->listeners[0] = listener_close(l);
}
END_TEST

/* It sits in the place of one that was shut down, which now comes after it. */
START_TEST(a_stranger_moves)
{
	struct listener *l;
	int stranger;

	wanted.sockets = SOCKETS_PER_WORKER;
	l = scene_open(0);
	scene_add(0, SHARE_MAX, 4);
	prepare(l, 0, 4);
	stranger = join(l);
	for (unsigned slot = 0; slot < 4; slot++) {
		ck_assert_int_eq(shutdown(listener_socket(l, 0, slot), SHUT_RD), 0);
		scene_turn();
		expect_model(l);
		ck_assert_uint_eq(count_hits(l, 50).lane[0], 50);
	}
	close(stranger);
	expect_model(l);
	listener_guard_look(l);
	expect_model(l);
	service->listeners[0] = listener_close(l);
}
END_TEST

static void any_change(struct listener *l, unsigned *n_workers)
{
	unsigned i = draw(STRANGERS), lane = draw(2);

	switch (draw(8)) {
	case 0:
	case 1:
	case 2:
		if (strangers[i] < 0)
			strangers[i] = join(l);
		else
			strangers[i] = close_fd(strangers[i]);
		break;
	case 3:
		if (n_workers[lane] < WORKERS_MAX)
			n_workers[lane]++;
		prepare(l, lane, n_workers[lane]);
		break;
	case 4:
		/* A worker does it. */
		ck_assert_int_eq(
			shutdown(listener_socket(l, lane, draw(n_workers[lane])), SHUT_RD), 0);
		scene_turn();
		break;
	case 5:
		listener_taint_lane(l, 1);
		prepare(l, 1, n_workers[1]);
		break;
	default:
		listener_guard_look(l);
		ck_assert_uint_eq(n_members(l),
			(unsigned)(strangers[0] >= 0) + (unsigned)(strangers[1] >= 0) +
				(unsigned)(strangers[2] >= 0) + (unsigned)(strangers[3] >= 0) +
				(unsigned)(strangers[4] >= 0));
		break;
	}
}

START_TEST(any_changes)
{
	unsigned n_workers[2] = {1, 1}, n_seen = 0;
	struct listener *l;

	state = (unsigned)_i + 1;
	wanted.sockets = SOCKETS_PER_WORKER;
	l = scene_open(0);
	scene_add(0, SHARE_MAX, 1);
	for (unsigned i = 0; i < 60; i++) {
		any_change(l, n_workers);
		listener_steer(l);
		ck_assert_uint_eq(count_hits(l, 5).lane[0], 5);
		expect_model(l);
		expect_nothing_for_strangers();
		n_seen += n_members(l) > 0;
	}
	ck_assert_uint_gt(n_seen, 0);
	leave_all();
	listener_guard_look(l);
	ck_assert_uint_eq(l->guard.n_foreign, 0);
	ck_assert_uint_eq(lanes_others_at_end(&l->lanes), 0);
	expect_model(l);
	service->listeners[0] = listener_close(l);
}
END_TEST

/* Found, named, and not asked for more often than needed. */
START_TEST(who_it_is)
{
	struct listener *l = scene_open(0);
	int stranger = join(l);
	const struct listener_foreign *f = l->guard.foreign;

	listener_guard_look(l);
	f = l->guard.foreign;
	ck_assert_uint_eq(l->guard.n_foreign, 1);
	ck_assert(f->member);
	/* Whoever looks does not wait for it to be found. */
	ck_assert_int_eq(f->pid, 0);
	ck_assert(!f->reported);
	scene_turn();
	ck_assert(f->reported);
	ck_assert_ptr_null(l->guard.search);
	ck_assert_uint_eq(f->uid, geteuid());
	ck_assert_int_gt(f->pid, 0);
	ck_assert_ptr_nonnull(f->program);
	ck_assert(address_equal(&f->address, &l->config.address));
	/* No guard is needed behind the last. */
	ck_assert_uint_eq(l->guard.n_fds, 0);
	close(stranger);
	listener_guard_look_again(l);
	ck_assert_uint_eq(l->guard.n_foreign, 1); /* too soon */
	listener_guard_look(l);
	ck_assert_uint_eq(l->guard.n_foreign, 0);
	service->listeners[0] = listener_close(l);
}
END_TEST

/* Not of the group, but in front of it. */
START_TEST(the_more_specific_wins)
{
	struct listener *l;
	struct address to;
	int stranger, client;

	wanted.address.in4.sin_addr.s_addr = htonl(INADDR_ANY);
	l = scene_open(0);
	stranger = stranger_on("127.0.0.1:0", address_port(&l->config.address));
	listener_guard_look(l);
	ck_assert_uint_eq(l->guard.n_foreign, 1);
	ck_assert(!l->guard.foreign[0].member);
	ck_assert_uint_eq(lanes_others_at_end(&l->lanes), 0);
	/* It is true: the connection is the stranger's. */
	to = l->config.address;
	to.in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	client = client_from(&to, "127.0.0.1");
	ck_assert_int_eq(poll(&(struct pollfd){.fd = stranger, .events = POLLIN}, 1, 2000), 1);
	close(client);
	close(stranger);
	/* The less specific one does not matter. */
	l = (service->listeners[0] = listener_close(l));
	wanted.address.in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	l = scene_open(0);
	stranger = stranger_on("0.0.0.0:0", address_port(&l->config.address));
	listener_guard_look(l);
	ck_assert_uint_eq(l->guard.n_foreign, 0);
	close(stranger);
	service->listeners[0] = listener_close(l);
}
END_TEST

static void reload_with_keepalive(struct listener *l, bool on)
{
	const struct config_place nowhere = {0};
	struct listener_config c;

	ck_assert_int_eq(listener_config_copy(&wanted, &c), 0);
	if (on)
		ck_assert_int_eq(
			socket_options_set(&c.options, OPTION_KEEPALIVE, 1, "", nowhere), 0);
	listener_update(l, &c);
	listener_config_done(&c);
}

static void expect_keepalive(const struct listener *l, int wanted_value)
{
	unsigned n = 0;

	for (size_t i = 0; i < l->lanes.n; i++) {
		int value = -1;
		socklen_t len = sizeof(value);

		if (l->lanes.sockets[i].fd < 0)
			continue;
		ck_assert_int_eq(
			getsockopt(l->lanes.sockets[i].fd, SOL_SOCKET, SO_KEEPALIVE, &value, &len),
			0);
		ck_assert_int_eq(value, wanted_value);
		n++;
	}
	ck_assert_uint_ge(n, 4);
}

/* What a reload says to our sockets is said to those behind a stranger's, too. */
START_TEST(options_behind_a_stranger)
{
	struct listener *l;
	int stranger;

	wanted.sockets = SOCKETS_PER_WORKER;
	l = scene_open(0);
	stranger = join(l);
	prepare(l, 0, 4);
	ck_assert_uint_eq(n_members(l), 1);
	reload_with_keepalive(l, true);
	expect_keepalive(l, 1);
	reload_with_keepalive(l, false);
	expect_keepalive(l, 0);
	close(stranger);
	service->listeners[0] = listener_close(l);
}
END_TEST

static int datagram_stranger(const struct listener *l)
{
	int fd = listen_open_member(&l->config.address, &OPTIONS);

	ck_assert_msg(fd >= 0, "%s", strerror(-fd));
	return fd;
}

/* Some of the strangers come or go between these of ours, each once: what came and went again
 * cannot be seen. */
static void join_among(struct listener *l, unsigned lane, unsigned first, unsigned n)
{
	bool changed[STRANGERS] = {false};
	size_t mark;

	listener_guard_look(l);
	mark = l->lanes.n;
	for (unsigned slot = first; slot < first + n; slot++) {
		unsigned i = draw(2 * STRANGERS);

		ck_assert_int_eq(listener_add_member(l, lane, slot), 0);
		if (i >= STRANGERS || changed[i])
			continue;
		changed[i] = true;
		if (strangers[i] < 0)
			strangers[i] = join(l);
		else
			strangers[i] = close_fd(strangers[i]);
	}
	ck_assert_int_eq(listener_guard_settle(l, mark), 0);
}

/* Between two of ours: whether it is before or behind one cannot be seen afterwards. */
START_TEST(at_the_same_moment)
{
	unsigned n_met = 0;

	wanted.sockets = SOCKETS_PER_WORKER;
	for (unsigned round = 0; round < 40; round++) {
		struct listener *l = scene_open(0);

		state = round;
		for (unsigned i = 0; i < 6; i++) {
			join_among(l, i % 2, 1 + i / 2 * 4, 4);
			n_met += n_members(l) > 0;
			expect_model(l);
			expect_nothing_for_strangers();
		}
		leave_all();
		expect_model(l);
		listener_guard_look(l);
		ck_assert_uint_eq(n_members(l), 0);
		expect_model(l);
		service->listeners[0] = listener_close(l);
	}
	ck_assert_uint_gt(n_met, 0);
}
END_TEST

/* Datagrams: a socket is a member from its bind on, until it is connected, or, before Linux 6.13,
 * until it is closed. From 6.13 on none can join while a connected one is there. */
START_TEST(datagrams)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct address peer = address_of("127.0.0.1:9");
	const unsigned connected = scene.connected_leaves ? 0 : 1;
	struct listener *l;
	int first, second;

	wanted.address.kind = ADDRESS_UDP;
	wanted.sockets = SOCKETS_PER_WORKER;
	l = scene_open(0);
	ck_assert_int_eq(l->kind, LISTENER_GROUP);
	first = datagram_stranger(l);
	second = datagram_stranger(l);
	prepare(l, 0, 3);
	ck_assert_uint_eq(n_members(l), 2);
	ck_assert_uint_ge(lanes_others_at_end(&l->lanes), 2);
	expect_datagram_model(l);
	ck_assert_int_eq(connect(second, &peer.sa, peer.len), 0);
	listener_guard_look(l);
	ck_assert_uint_eq(n_members(l), 1 + connected);
	expect_datagram_model(l);
	ck_assert_int_eq(listener_prepare_lane(l, 0, 5, true, &error), connected ? 0 : -EBUSY);
	expect_datagram_model(l);
	close(first);
	listener_guard_look(l);
	ck_assert_uint_eq(n_members(l), connected);
	expect_datagram_model(l);
	close(second);
	listener_guard_look(l);
	ck_assert_uint_eq(n_members(l), 0);
	prepare(l, 0, 5);
	expect_datagram_model(l);
	service->listeners[0] = listener_close(l);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("listener_guard");

	tcase_add_checked_fixture(tcase, scene_set_up, scene_tear_down);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, a_stranger_leaves_from_the_middle);
	tcase_add_test(tcase, a_stranger_moves);
	tcase_add_loop_test(tcase, any_changes, 0, 8);
	tcase_add_test(tcase, at_the_same_moment);
	tcase_add_test(tcase, who_it_is);
	tcase_add_test(tcase, the_more_specific_wins);
	tcase_add_test(tcase, options_behind_a_stranger);
	tcase_add_test(tcase, datagrams);
	return run_case("listener_guard", tcase);
}

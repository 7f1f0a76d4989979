/* SPDX-License-Identifier: Apache-2.0 */
/* UDP listeners against the kernel: its array of sockets is as our model says, whatever happens to
 * them, and nothing that is steered right gets lost. */
#include "listener_scene.h"

#include "daemon/listener_inherit.h"

/* Loop tests: every family, and specific and wildcard addresses, which the kernel treats otherwise
 * when a socket is connected. */
static const char *const hosts[] = {"127.0.0.1", "0.0.0.0", "[::1]", "[::]"};

static void want(int i)
{
	_cleanup_free_ char *text = xasprintf("udp:%s:%u", hosts[i], address_port(&wanted.address));

	ck_assert_int_eq(address_parse(text, false, &wanted.address), 0);
	wanted.sockets = SOCKETS_PER_WORKER;
	service->config->workers = 3;
}

static int prepare(struct listener *l, unsigned lane, unsigned n)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	int r = listener_prepare_lane(l, lane, n, true, &error);

	ck_assert_msg(r == 0, "%s", error_message(&error));
	return r;
}

START_TEST(order_and_shares)
{
	struct generation *a, *b;
	struct listener *l;
	unsigned hits[2] = {0};

	want(_i);
	service->core.queue_lane = 1;
	l = scene_open(1);
	ck_assert_int_eq(l->kind, LISTENER_GROUP);
	ck_assert_uint_eq(l->lanes.n, 6);
	/* Before anybody serves it waits where the first generation will be. */
	send_datagram(l);
	ck_assert_uint_eq(take_datagram(l).lane, 1);
	expect_datagram_model(l);
	prepare(l, 0, 5);
	expect_datagram_model(l);
	a = scene_add(0, SHARE_MAX / 2, 5);
	b = scene_add(1, SHARE_MAX / 2, 3);
	set_weights(l, a, SHARE_MAX / 2, b);
	for (unsigned i = 0; i < 200; i++) {
		send_datagram(l);
		hits[take_datagram(l).lane]++;
	}
	ck_assert_uint_ge(hits[0], 50);
	ck_assert_uint_ge(hits[1], 50);
	set_weights(l, a, 0, b);
	for (unsigned i = 0; i < 50; i++) {
		send_datagram(l);
		ck_assert_uint_eq(take_datagram(l).lane, 1);
	}
	service->listeners[0] = listener_close(l);
}
END_TEST

/* Somebody who could not be ended holds the lane's sockets; they are replaced, and the group is as
 * the model says although nobody closed them. */
START_TEST(held_by_a_stray)
{
	struct listener *l;
	int stray[3];

	want(_i);
	l = scene_open(0);
	for (unsigned i = 0; i < 3; i++)
		stray[i] = held_by_worker(l, 1, i);
	scene_add(0, SHARE_MAX, 3);
	listener_taint_lane(l, 1);
	prepare(l, 1, 3);
	ck_assert_uint_eq(l->lanes.n, 6);
	expect_datagram_model(l);
	for (unsigned i = 0; i < 3; i++) {
		char byte;

		ck_assert_int_lt(recv(stray[i], &byte, 1, MSG_DONTWAIT), 0);
		close(stray[i]);
		expect_datagram_model(l);
	}
	service->listeners[0] = listener_close(l);
}
END_TEST

/* A worker connects the socket that it shares with us: it has left the group, which is mended; the
 * workers are to be replaced. */
START_TEST(connected)
{
	struct address peer = address_of(_i < 2 ? "127.0.0.1:9" : "[::1]:9");
	struct listener *l;
	int worker, before;

	want(_i);
	l = scene_open(0);
	scene_add(0, SHARE_MAX, 3);
	worker = held_by_worker(l, 0, 1);
	before = listener_socket(l, 0, 1);
	ck_assert_int_eq(connect(worker, &peer.sa, peer.len), 0);
	listener_mend(l);
	ck_assert(service->holds_dead_socket);
	ck_assert_uint_eq(l->lanes.n, 6);
	ck_assert_int_ge(listener_socket(l, 0, 1), 0);
	ck_assert(listener_socket(l, 0, 1) != before || l->lanes.sockets[5].slot == 1);
	expect_datagram_model(l);
	close(worker);
	expect_datagram_model(l);
	/* Nothing is left to be done. */
	service->holds_dead_socket = false;
	listener_mend(l);
	ck_assert(!service->holds_dead_socket);
	service->listeners[0] = listener_close(l);
}
END_TEST

/* A socket that was shut down still receives: it is used until others are there; an idle one is
 * replaced at once. */
START_TEST(shut_down)
{
	struct listener *l;
	uint64_t before;
	int worker;

	want(_i);
	l = scene_open(0);
	scene_add(0, SHARE_MAX, 3);
	worker = held_by_worker(l, 0, 2);
	(void)shutdown(worker, SHUT_RD);
	before = inode_of(l, 0, 2);
	listener_mend(l);
	ck_assert(service->holds_dead_socket);
	ck_assert(l->dirty_lanes[0]);
	ck_assert_uint_eq(inode_of(l, 0, 2), before);
	expect_datagram_model(l);
	close(worker);

	service->holds_dead_socket = false;
	worker = held_by_worker(l, 1, 0);
	(void)shutdown(worker, SHUT_RDWR);
	before = inode_of(l, 1, 0);
	listener_mend(l);
	ck_assert(!service->holds_dead_socket);
	ck_assert_uint_ne(inode_of(l, 1, 0), before);
	expect_datagram_model(l);
	close(worker);
	service->listeners[0] = listener_close(l);
}
END_TEST

/* Datagrams in a queue that nobody serves are discarded and counted; errors there do not keep the
 * loop busy. */
START_TEST(stragglers)
{
	struct sock_filter to_other = BPF_STMT(BPF_RET | BPF_K, 3);
	struct listener *l;
	int on = 1;

	want(_i);
	l = scene_open(0);
	scene_add(0, SHARE_MAX, 3);
	listener_steer(l);
	listener_watch_idle(l);
	ck_assert_int_eq(listen_steer(l->lanes.sockets[0].fd, &to_other, 1), 0);
	for (unsigned i = 0; i < 5; i++)
		send_datagram(l);
	scene_turn();
	ck_assert_uint_eq(l->resets, 5);
	ck_assert_int_eq(take_datagram(l).fd, -1);
	/* It was steered anew. */
	send_datagram(l);
	ck_assert_uint_eq(take_datagram(l).lane, 0);
	if (_i < 2) {
		struct address nobody = address_of("127.0.0.1:9");
		int fd = listener_socket(l, 1, 1);

		ck_assert_int_eq(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)), 0);
		ck_assert_int_eq(sendto(fd, "x", 1, 0, &nobody.sa, nobody.len), 1);
		scene_turn();
	}
	service->listeners[0] = listener_close(l);
}
END_TEST

START_TEST(drops)
{
	struct listener *l;
	unsigned dropped = 99;

	want(_i);
	l = scene_open(0);
	ck_assert_uint_eq(listener_look_at_drops(l), 0);
	ck_assert_int_eq(listen_dropped(l->lanes.sockets[0].fd, &dropped), 0);
	ck_assert_uint_eq(dropped, 0);
	for (size_t i = 0; i < l->lanes.n; i++)
		ck_assert_int_eq(setsockopt(l->lanes.sockets[i].fd, SOL_SOCKET, SO_RCVBUF,
					 &(int){2048}, sizeof(int)),
			0);
	for (unsigned i = 0; i < 50; i++)
		send_datagram(l);
	ck_assert_uint_gt(listener_look_at_drops(l), 10);
	ck_assert_uint_lt(listener_look_at_drops(l), 50);
	service->listeners[0] = listener_close(l);
}
END_TEST

/* --- sockets that came ----------------------------------------------------------------------- */

static int came(const char *name, const struct address *a)
{
	struct activation_socket *list =
		reallocarray(scene.activation.sockets, scene.activation.n + 1, sizeof(*list));
	int fd = socket(address_family(a), SOCK_DGRAM | SOCK_CLOEXEC, 0);

	ck_assert_ptr_nonnull(list);
	ck_assert_int_eq(bind(fd, &a->sa, a->len), 0);
	scene.activation.sockets = list;
	list[scene.activation.n++] = (struct activation_socket){
		.fd = fd, .name = strdup(name), .address = *a, .is_socket = true, .uid = geteuid()};
	return fd;
}

START_TEST(inherited)
{
	struct listener *l;
	struct generation *a;
	int fd;
	char byte;

	want(_i);
	fd = came("dns", &wanted.address);
	wanted.inherited = true;
	wanted.inherit = strdup("dns");
	l = scene_open(0);
	ck_assert_int_eq(l->kind, LISTENER_GROUP);
	ck_assert(address_equal(&l->config.address, &scene.activation.sockets[0].address));
	expect_datagram_model(l);
	/* The first generation is in another lane than it was opened for: the socket that came,
	 * where somebody may wait, goes there. */
	send_datagram(l);
	prepare(l, 1, 3);
	ck_assert_int_eq(listener_socket(l, 1, 0), l->inherited_fd);
	a = scene_add(1, SHARE_MAX, 3);
	listener_steer(l);
	ck_assert_uint_eq(take_datagram(l).lane, 1);
	expect_datagram_model(l);
	/* Strays have it: it is put aside, but stays in the group. */
	a->weight = 0;
	listener_taint_lane(l, 1);
	scene_add(0, SHARE_MAX, 3);
	prepare(l, 1, 3);
	ck_assert_int_ne(listener_socket(l, 1, 0), l->inherited_fd);
	ck_assert_uint_eq(l->lanes.n, 7);
	expect_datagram_model(l);
	/* Given back: alone, unsteered, as it came. */
	service->listeners[0] = listener_close(l);
	ck_assert(!scene.activation.sockets[0].in_use);
	ck_assert_int_eq(listen_is_group(fd), 0);
	{
		struct listener at = {.config = wanted};

		send_datagram(&at);
	}
	ck_assert_int_eq(recv(fd, &byte, 1, MSG_DONTWAIT), 1);
	/* And again. */
	l = scene_open(0);
	service->core.n_generations = 0;
	expect_datagram_model(l);
	service->listeners[0] = listener_close(l);
	activation_done(&scene.activation);
	generation_free(service->core.generations[0]);
	generation_free(service->core.generations[1]);
}
END_TEST

/* What cannot be closed and is not used is of no concern, whatever strays do to it. */
START_TEST(put_aside)
{
	struct listener *l;
	int fd;

	want(_i);
	fd = came("dns", &wanted.address);
	wanted.inherited = true;
	wanted.inherit = strdup("dns");
	l = scene_open(0);
	prepare(l, 0, 3);
	scene_add(1, SHARE_MAX, 3);
	listener_taint_lane(l, 0);
	prepare(l, 0, 3);
	ck_assert_int_ne(listener_socket(l, 0, 0), l->inherited_fd);
	ck_assert_uint_eq(l->lanes.n, 7);
	ck_assert_uint_eq(lanes_others_at_end(&l->lanes), 0);
	(void)shutdown(fd, SHUT_RD);
	scene_turn();
	listener_mend(l);
	ck_assert_uint_eq(l->lanes.n, 7);
	ck_assert(!service->holds_dead_socket);
	listener_steer(l);
	expect_datagram_model(l);
	service->listeners[0] = listener_close(l);
	activation_done(&scene.activation);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("listener_udp");
	const int n = (int)ARRAY_SIZE(hosts);

	tcase_add_checked_fixture(tcase, scene_set_up, scene_tear_down);
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, order_and_shares, 0, n);
	tcase_add_loop_test(tcase, held_by_a_stray, 0, n);
	tcase_add_loop_test(tcase, connected, 0, n);
	tcase_add_loop_test(tcase, shut_down, 0, n);
	tcase_add_loop_test(tcase, stragglers, 0, n);
	tcase_add_loop_test(tcase, drops, 0, n);
	tcase_add_loop_test(tcase, inherited, 0, n);
	tcase_add_loop_test(tcase, put_aside, 0, n);
	return run_case("listener_udp", tcase);
}

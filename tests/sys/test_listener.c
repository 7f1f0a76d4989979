/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's listeners against the kernel: each connection comes to the lane it should, whatever
 * happens to the sockets. */
#include "listener_scene.h"

#include <sys/stat.h>
#include <sys/un.h>

START_TEST(before_anybody_serves)
{
	struct listener *l = scene_open(1);

	ck_assert_int_eq(l->kind, LISTENER_GROUP);
	ck_assert_ptr_null(l->held_reason);
	ck_assert_uint_eq(l->lanes.n, 2);
	service->core.queue_lane = 1;
	service->core.queue_listeners = 1;
	listener_steer(l);
	/* They wait where the first generation will accept. */
	ck_assert_uint_eq(count_hits(l, 20).lane[1], 20);
	scene_add(1, 0, 1);
	listener_steer(l);
	ck_assert_uint_eq(count_hits(l, 20).lane[1], 20);
	expect_model(l);
}
END_TEST

START_TEST(shares)
{
	struct listener *l = scene_open(0);
	struct generation *a = scene_add(0, SHARE_MAX, 1), *b = scene_add(1, 0, 1);
	struct hits hits;

	listener_steer(l);
	ck_assert_uint_eq(count_hits(l, 50).lane[0], 50);
	set_weights(l, a, 5000, b);
	hits = count_hits(l, 400);
	/* Five standard deviations. */
	ck_assert_uint_ge(hits.lane[0], 150);
	ck_assert_uint_le(hits.lane[0], 250);
	ck_assert_uint_eq(hits.lane[0] + hits.lane[1], 400);
	set_weights(l, a, 0, b);
	ck_assert_uint_eq(count_hits(l, 50).lane[1], 50);
	/* Back at once. */
	set_weights(l, a, SHARE_MAX, b);
	ck_assert_uint_eq(count_hits(l, 50).lane[0], 50);
	/* A generation that was not given this listener counts for nothing here. */
	b->listeners = 2;
	set_weights(l, a, 1, b);
	ck_assert_uint_eq(count_hits(l, 50).lane[0], 50);
}
END_TEST

START_TEST(rules)
{
	struct listener *l = scene_open(0);
	int any, second, port_rule;
	_kept_ int client = -1;
	struct address from;

	scene_add(0, SHARE_MAX, 1);
	scene_add(1, 0, 1);
	any = rule_to(l, "127.0.0.2", 0, 1, LISTENER_ANY_SLOT);
	ck_assert_int_gt(any, 0);
	for (unsigned i = 0; i < 20; i++) {
		ck_assert_uint_eq(reach(l, "127.0.0.2").lane, 1);
		ck_assert_uint_eq(reach(l, "127.0.0.1").lane, 0);
	}
	second = rule_to(l, "127.0.0.4", 0, 1, 0);
	ck_assert(second > 0 && second != any);
	listener_drop_rule(l, (unsigned)any);
	ck_assert_uint_eq(reach(l, "127.0.0.2").lane, 0);
	ck_assert_uint_eq(reach(l, "127.0.0.4").lane, 1);
	listener_drop_rule(l, (unsigned)any); /* gone already */
	ck_assert_uint_eq(l->n_rules, 1);
	listener_drop_rule(l, (unsigned)second);

	/* One port of an address that others use too. */
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	from = address_of("tcp:127.0.0.1:0");
	ck_assert_int_eq(bind(client, &from.sa, from.len), 0);
	from = bound_address(client);
	port_rule = rule_to(l, "127.0.0.1", (uint16_t)address_port(&from), 1, LISTENER_ANY_SLOT);
	ck_assert_int_gt(port_rule, 0);
	ck_assert_uint_eq(count_hits(l, 20).lane[0], 20);
	ck_assert_int_eq(connect(client, &l->config.address.sa, l->config.address.len), 0);
	ck_assert_uint_eq(take_one(l).lane, 1);
}
END_TEST

START_TEST(too_many_rules)
{
	struct listener *l = scene_open(0);

	scene_add(0, SHARE_MAX, 1);
	for (unsigned i = 0; i < STEERING_RULES_MAX; i++)
		ck_assert_int_gt(rule_to(l, "127.0.0.2", (uint16_t)(1000 + i), 1, 0), 0);
	ck_assert_int_eq(rule_to(l, "127.0.0.2", 0, 1, 0), -ENOSPC);
	ck_assert_uint_eq(count_hits(l, 20).lane[0], 20);
	while (l->n_rules > 0)
		listener_drop_rule(l, l->rules[0].id);
	/* A rule for a lane that is not there changes nothing. */
	ck_assert_int_gt(rule_to(l, "127.0.0.2", 0, 3, 0), 0);
	ck_assert_uint_eq(reach(l, "127.0.0.2").lane, 0);
}
END_TEST

START_TEST(one_socket_per_worker)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct listener *l;
	struct generation *a, *b;
	struct hits hits;

	wanted.sockets = SOCKETS_PER_WORKER;
	service->config->workers = 4;
	l = scene_open(0);
	ck_assert_uint_eq(l->lanes.n, 8);
	a = scene_add(0, SHARE_MAX, 4);
	listener_steer(l);
	hits = count_hits(l, 200);
	for (unsigned slot = 0; slot < 4; slot++)
		ck_assert_uint_gt(hits.of[0][slot], 20);
	expect_model(l);

	/* Four more: sockets first, workers then, connections only when those are ready. */
	ck_assert_int_eq(listener_prepare_lane(l, 0, 8, true, &error), 0);
	ck_assert_uint_eq(lanes_slots(&l->lanes, 0), 8);
	expect_model(l);
	ck_assert_int_eq(generation_grow(a, 8), 0);
	listener_steer(l);
	hits = count_hits(l, 200);
	for (unsigned slot = 0; slot < 8; slot++)
		ck_assert_uint_eq(hits.of[0][slot] > 0, slot < 4);
	for (unsigned slot = 4; slot < 8; slot++)
		a->workers[slot].state = WORKER_READY;
	listener_steer(l);
	hits = count_hits(l, 400);
	for (unsigned slot = 0; slot < 8; slot++)
		ck_assert_uint_gt(hits.of[0][slot], 20);

	/* Two: steered away from the others, which settle and are gone. Their sockets stay,
	 * watched, and nothing moves. */
	for (unsigned slot = 2; slot < 8; slot++)
		a->workers[slot].state = WORKER_SETTLING;
	listener_steer(l);
	hits = count_hits(l, 100);
	ck_assert_uint_eq(hits.of[0][0] + hits.of[0][1], 100);
	_kept_ int waiting = client_from(&l->config.address, "127.0.0.1");
	a->n_workers = 2;
	listener_watch_idle(l);
	ck_assert_int_eq(listener_prepare_lane(l, 0, 2, true, &error), 0);
	scene_turn();
	ck_assert_uint_eq(listener_queue(l, 0, 0) + listener_queue(l, 0, 1), 1);
	(void)take_one(l);
	expect_model(l);
	hits = count_hits(l, 100);
	ck_assert_uint_eq(hits.of[0][0] + hits.of[0][1], 100);
	/* One that comes late where the sixth was. */
	int rule = rule_to(l, "127.0.0.2", 0, 0, 5);
	_kept_ int late = client_from(&l->config.address, "127.0.0.2");
	scene_turn();
	ck_assert(was_reset(late));
	ck_assert_uint_eq(l->resets, 1);
	listener_drop_rule(l, (unsigned)rule);
	a->n_workers = 8;

	/* The next generation has fewer workers than its lane has sockets. */
	ck_assert_int_eq(listener_prepare_lane(l, 1, 3, true, &error), 0);
	b = scene_add(1, 0, 3);
	set_weights(l, a, 0, b);
	hits = count_hits(l, 60);
	ck_assert_uint_eq(hits.of[1][0] + hits.of[1][1] + hits.of[1][2], 60);
	expect_model(l);

	/* And the one after it has one for all: that is where they come, and nowhere else. */
	service->core.generations[0] = b;
	service->core.n_generations = 1;
	generation_free(a);
	ck_assert_int_eq(listener_prepare_lane(l, 0, 4, false, &error), 0);
	a = scene_add(0, 0, 4);
	set_weights(l, b, 0, a);
	ck_assert_uint_eq(count_hits(l, 60).of[0][0], 60);
	ck_assert_int_eq(listener_socket(l, 0, 3), listener_socket(l, 0, 0));
}
END_TEST

START_TEST(shut_down_by_a_worker)
{
	struct listener *l;
	struct generation *a, *b;
	struct hits hits;
	int index;

	wanted.sockets = SOCKETS_PER_WORKER;
	service->config->workers = 3;
	l = scene_open(0);
	a = scene_add(0, SHARE_MAX, 3);
	b = scene_add(1, 0, 3);
	listener_steer(l);
	for (unsigned slot = 0; slot < 3; slot++) {
		_kept_ int worker = held_by_worker(l, 0, slot);
		uint64_t inode = inode_of(l, 0, slot);

		ck_assert_int_eq(shutdown(worker, SHUT_RD), 0);
		scene_turn();
		/* The same socket, at the end of the array now. */
		ck_assert_uint_eq(inode_of(l, 0, slot), inode);
		index = lanes_index(&l->lanes, 0, slot);
		ck_assert_int_eq(index, (int)l->lanes.n - 1);
		expect_model(l);
		hits = count_hits(l, 60);
		ck_assert_uint_eq(hits.lane[0], 60);
		for (unsigned i = 0; i < 3; i++)
			ck_assert_uint_gt(hits.of[0][i], 0);
	}
	set_weights(l, a, 0, b);
	ck_assert_uint_eq(count_hits(l, 50).lane[1], 50);
	/* The loop is quiet again. */
	ck_assert_int_eq(sd_event_run(scene.event, 0), 0);
}
END_TEST

START_TEST(several_shut_down_at_once)
{
	struct listener *l;

	wanted.sockets = SOCKETS_PER_WORKER;
	service->config->workers = 4;
	l = scene_open(0);
	scene_add(0, SHARE_MAX, 4);
	for (unsigned slot = 0; slot < 4; slot += 1)
		ck_assert_int_eq(shutdown(listener_socket(l, slot % 2, slot), SHUT_RD), 0);
	scene_turn();
	expect_model(l);
	ck_assert_uint_eq(count_hits(l, 50).lane[0], 50);
}
END_TEST

START_TEST(program_taken_away)
{
	struct listener *l = scene_open(0);
	_kept_ int worker = held_by_worker(l, 0, 0);

	scene_add(0, SHARE_MAX, 1);
	listener_steer(l);
	ck_assert_int_eq(listen_unsteer(worker), 0);
	ck_assert_uint_gt(count_hits(l, 50).lane[1], 0);
	listener_steer(l);
	ck_assert_uint_eq(count_hits(l, 50).lane[0], 50);
}
END_TEST

START_TEST(stragglers)
{
	struct listener *l = scene_open(0);
	struct generation *old;
	int rule;

	scene_add(0, SHARE_MAX, 1);
	rule = rule_to(l, "127.0.0.2", 0, 1, LISTENER_ANY_SLOT);
	ck_assert_int_gt(rule, 0);
	listener_watch_idle(l);
	/* Nobody serves the other lane. */
	for (unsigned i = 1; i <= 3; i++) {
		_kept_ int client = client_from(&l->config.address, "127.0.0.2");

		scene_turn();
		ck_assert(was_reset(client));
		ck_assert_uint_eq(l->resets, i);
		ck_assert_uint_eq(listener_queue(l, 1, 0), 0);
	}
	/* Somebody does, though without a share: theirs to accept. */
	old = scene_add(1, 0, 1);
	old->state = GENERATION_RETIRING;
	listener_watch_idle(l);
	_kept_ int client = client_from(&l->config.address, "127.0.0.2");
	_kept_ int other = client_from(&l->config.address, "127.0.0.1");
	scene_turn();
	ck_assert_uint_eq(l->resets, 3);
	ck_assert_uint_eq(listener_queue(l, 1, 0), 1);
	ck_assert_uint_eq(listener_queue(l, 0, 0), 1);
	ck_assert(!is_readable(client, 0) && !is_readable(other, 0));
	/* Until it is gone. */
	service->core.n_generations = 1;
	generation_free(old);
	listener_watch_idle(l);
	scene_turn();
	ck_assert(was_reset(client));
	ck_assert_uint_eq(listener_queue(l, 0, 0), 1);
}
END_TEST

START_TEST(a_lane_somebody_clings_to)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct listener *l;
	struct generation *a;
	uint64_t before[2][2];

	wanted.sockets = SOCKETS_PER_WORKER;
	service->config->workers = 2;
	l = scene_open(0);
	a = scene_add(0, SHARE_MAX, 2);
	listener_steer(l);
	for (unsigned lane = 0; lane < 2; lane++)
		for (unsigned slot = 0; slot < 2; slot++)
			before[lane][slot] = inode_of(l, lane, slot);
	_cleanup_close_ int stuck = held_by_worker(l, 1, 0);
	_kept_ int waiting = client_from(&l->config.address, "127.0.0.1");

	/* Untainted, the same sockets serve again. */
	ck_assert_int_eq(listener_prepare_lane(l, 1, 2, true, &error), 0);
	ck_assert_uint_eq(inode_of(l, 1, 0), before[1][0]);
	listener_taint_lane(l, 1);
	ck_assert_int_eq(listener_prepare_lane(l, 1, 2, true, &error), 0);
	for (unsigned slot = 0; slot < 2; slot++) {
		ck_assert_uint_eq(inode_of(l, 0, slot), before[0][slot]);
		ck_assert_uint_ne(inode_of(l, 1, slot), before[1][slot]);
	}
	/* What the stuck process holds is dead, and who waited elsewhere still waits. */
	ck_assert_int_eq(fcntl(stuck, F_SETFL, O_NONBLOCK), 0);
	ck_assert_int_lt(accept4(stuck, NULL, NULL, SOCK_CLOEXEC), 0);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(listener_queue(l, 0, 0) + listener_queue(l, 0, 1), 1);
	(void)take_one(l);
	expect_model(l);
	set_weights(l, a, 0, scene_add(1, 0, 2));
	ck_assert_uint_eq(count_hits(l, 50).lane[1], 50);
	/* Not while it has a share, for connections may wait there: later. */
	listener_taint_lane(l, 1);
	before[1][0] = inode_of(l, 1, 0);
	ck_assert_int_eq(listener_prepare_lane(l, 1, 2, true, &error), 0);
	ck_assert_uint_eq(inode_of(l, 1, 0), before[1][0]);
	set_weights(l, a, SHARE_MAX, service->core.generations[1]);
	ck_assert_int_eq(listener_prepare_lane(l, 1, 2, true, &error), 0);
	ck_assert_uint_ne(inode_of(l, 1, 0), before[1][0]);
	/* Once. */
	before[1][0] = inode_of(l, 1, 0);
	ck_assert_int_eq(listener_prepare_lane(l, 1, 2, true, &error), 0);
	ck_assert_uint_eq(inode_of(l, 1, 0), before[1][0]);
	scene_turn();
}
END_TEST

START_TEST(a_third_lane)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct listener *l = scene_open(0);
	struct generation *a = scene_add(0, SHARE_MAX, 1);

	ck_assert_int_eq(listener_socket(l, 2, 0), -1);
	ck_assert_int_eq(listener_prepare_lane(l, 2, 1, false, &error), 0);
	ck_assert_int_ge(listener_socket(l, 2, 0), 0);
	expect_model(l);
	set_weights(l, a, 0, scene_add(2, 0, 1));
	ck_assert_uint_eq(count_hits(l, 50).lane[2], 50);
	ck_assert_int_eq(listener_prepare_lane(l, 1000, 1, false, &error), -ERANGE);
}
END_TEST

START_TEST(held)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct listener *l;

	wanted.steering = false;
	l = scene_open(0);
	ck_assert_int_eq(l->kind, LISTENER_HELD);
	ck_assert_str_eq(l->held_reason, "steering: off");
	ck_assert_uint_eq(l->lanes.n, 1);
	ck_assert_int_eq(listener_socket(l, 0, 0), listener_socket(l, 5, 7));
	ck_assert_int_eq(rule_to(l, "127.0.0.2", 0, 1, 0), -EOPNOTSUPP);
	listener_steer(l);
	listener_watch_idle(l);
	/* Shut down by one of its workers: nothing to move, but to listen again. */
	ck_assert_int_eq(shutdown(listener_socket(l, 0, 0), SHUT_RD), 0);
	scene_turn();
	_kept_ int client = client_from(&l->config.address, "127.0.0.1");
	scene_turn();
	ck_assert_uint_eq(listener_queue(l, 3, 0), 1);
	ck_assert(!is_readable(client, 0));
	/* Where the kernel did not pass its test. */
	service->listeners[0] = listener_close(l);
	wanted.steering = true;
	ck_assert_int_eq(listener_open(service, &wanted, 0, false, 0, &l, &error), 0);
	service->listeners[0] = l;
	ck_assert_int_eq(l->kind, LISTENER_HELD);
	ck_assert(strstr(l->held_reason, "this kernel") != NULL);
}
END_TEST

START_TEST(backlog)
{
	struct listener *l = scene_open(0);
	struct listen_state state;
	struct listener_config changed;

	scene_add(0, SHARE_MAX, 1);
	ck_assert_int_eq(listener_config_copy(&wanted, &changed), 0);
	changed.backlog = 7;
	listener_update(l, &changed);
	listener_config_done(&changed);
	for (unsigned lane = 0; lane < 2; lane++) {
		ck_assert_int_eq(listen_query(listener_socket(l, lane, 0), &state), 0);
		ck_assert_uint_eq(state.queue_max, 7);
	}
	/* A worker says its own number. */
	ck_assert_int_eq(listen(listener_socket(l, 0, 0), 3), 0);
	listener_mend(l);
	ck_assert_int_eq(listen_query(listener_socket(l, 0, 0), &state), 0);
	ck_assert_uint_eq(state.queue_max, 7);
	/* Nobody lost its place by that. */
	expect_model(l);
	ck_assert_uint_eq(l->config.backlog, 7);
}
END_TEST

START_TEST(closed_for_everybody)
{
	struct listener *l = scene_open(0);
	_kept_ int worker = held_by_worker(l, 0, 0), again = -1;
	_cleanup_free_ char *text = listener_address(l);
	struct address address = l->config.address;
	char want[64];

	(void)snprintf(want, sizeof(want), "127.0.0.1:%u", address_port(&address));
	ck_assert_msg(strstr(text, want), "%s", text);
	service->listeners[0] = listener_close(l);
	ck_assert_ptr_null(service->listeners[0]);
	ck_assert_int_eq(client_of(&address), -ECONNREFUSED);
	/* Its worker may cling to it; the port is free all the same. */
	again = listen_open_first(&address, &OPTIONS, NULL);
	ck_assert_int_ge(again, 0);
	ck_assert_ptr_null(listener_close(NULL));
}
END_TEST

/* Opening fails, and says so. */
static void refused(int code, const char *first, const char *second)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct listener *l = NULL;
	size_t n = count_fds();

	ck_assert_int_eq(listener_open(service, &wanted, 0, true, 0, &l, &error), code);
	ck_assert_ptr_null(l);
	ck_assert_msg(strstr(error_message(&error), first), "%s: not \"%s\"", error_message(&error),
		first);
	ck_assert_msg(strstr(error_message(&error), second), "%s: not \"%s\"",
		error_message(&error), second);
	ck_assert_uint_eq(count_fds(), n);
}

START_TEST(who_has_the_port)
{
	struct address any = wanted.address;
	_cleanup_close_ int holder = listen_open_first(&wanted.address, &OPTIONS, NULL);
	_cleanup_free_ char *address = address_format(&wanted.address);
	char bind_text[128], want[64];

	ck_assert_int_ge(holder, 0);
	ck_assert_int_eq(listen_start(holder, 1), 0);
	(void)snprintf(
		bind_text, sizeof(bind_text), "web: bind %s: Address already in use", address);
	(void)snprintf(want, sizeof(want), "; held by test_listener (pid %d,", (int)getpid());
	refused(-EADDRINUSE, bind_text, want);
	any.in4.sin_addr.s_addr = htonl(INADDR_ANY);
	wanted.address = any;
	refused(-EADDRINUSE, "Address already in use", want);
	/* A group of its own does not let us in either. */
	ck_assert_int_eq(listen_make_group(holder), 0);
	refused(-EADDRINUSE, "Address already in use", want);
	wanted.address = address_of("tcp:203.0.113.7:8080");
	refused(-EADDRNOTAVAIL, "203.0.113.7:8080",
		"no interface of this machine has that address; write freebind: true");
	if (geteuid() != 0) {
		wanted.address = address_of("tcp:127.0.0.1:1");
		refused(-EACCES, "127.0.0.1:1:", "CAP_NET_BIND_SERVICE");
	}
}
END_TEST

START_TEST(unix_refusals)
{
	char directory[32], path[64];
	int fd;

	make_directory(directory);
	(void)snprintf(path, sizeof(path), "unix:%s/none/s", directory);
	wanted.address = address_of(path);
	refused(-ENOENT, path + strlen("unix:"), "there is no directory");
	(void)snprintf(path, sizeof(path), "unix:%s/file", directory);
	fd = open(path + strlen("unix:"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close_fd(fd);
	wanted.address = address_of(path);
	refused(-EEXIST, path + strlen("unix:"), "is not a socket");
	wanted.owner = strdup("no-such-user");
	refused(-ENOENT, "web: listener http", "no user no-such-user");
	free(wanted.owner);
	wanted.owner = NULL;
	wanted.group = strdup("no-such-group");
	refused(-ESRCH, "web: listener http", "no group no-such-group");
	ck_assert_int_eq(unlink(path + strlen("unix:")), 0);
	ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

START_TEST(unix_shut_down_by_a_worker)
{
	char directory[32], path[64];
	struct listener *l;
	struct stat before, after;
	uint64_t inode;

	make_directory(directory);
	(void)snprintf(path, sizeof(path), "unix:%s/s", directory);
	wanted.address = address_of(path);
	wanted.mode = 0640;
	wanted.mode_set = true;
	if (geteuid() == 0) {
		wanted.owner = strdup("nobody");
		wanted.group = strdup("daemon");
	}
	l = scene_open(0);
	ck_assert_int_eq(l->kind, LISTENER_HELD);
	ck_assert_str_eq(l->held_reason, "Unix sockets have one queue");
	ck_assert_int_eq(stat(path + strlen("unix:"), &before), 0);
	ck_assert_uint_eq(before.st_mode & 07777, 0640);
	inode = inode_of(l, 0, 0);
	_kept_ int worker = held_by_worker(l, 0, 0);
	ck_assert_int_eq(shutdown(worker, SHUT_RD), 0);
	ck_assert_int_eq(client_of(&l->config.address), -ECONNREFUSED);
	scene_turn();
	ck_assert_uint_ne(inode_of(l, 0, 0), inode);
	_kept_ int client = client_of(&l->config.address);
	ck_assert_int_ge(client, 0);
	ck_assert(is_readable(listener_socket(l, 0, 0), 1000));
	/* As it was asked for. */
	ck_assert_int_eq(stat(path + strlen("unix:"), &after), 0);
	ck_assert_uint_eq(after.st_mode, before.st_mode);
	ck_assert_uint_eq(after.st_uid, before.st_uid);
	ck_assert_uint_eq(after.st_gid, before.st_gid);
	/* And again. */
	ck_assert_int_eq(shutdown(listener_socket(l, 0, 0), SHUT_RD), 0);
	scene_turn();
	_kept_ int second = client_of(&l->config.address);
	ck_assert_int_ge(second, 0);
	service->listeners[0] = listener_close(l);
	ck_assert_int_lt(stat(path + strlen("unix:"), &after), 0);
	ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

START_TEST(inherited)
{
	wanted.inherited = true;
	wanted.inherit = strdup("https");
	refused(-ENOENT, "web: listener http: no socket \"https\" came",
		"FileDescriptorName=https");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {before_anybody_serves, shares, rules, too_many_rules,
		one_socket_per_worker, shut_down_by_a_worker, several_shut_down_at_once,
		program_taken_away, stragglers, a_lane_somebody_clings_to, a_third_lane, held,
		backlog, closed_for_everybody, who_has_the_port, unix_refusals,
		unix_shut_down_by_a_worker, inherited};

	return scene_run("listener", tests, ARRAY_SIZE(tests));
}

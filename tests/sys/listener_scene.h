/* SPDX-License-Identifier: Apache-2.0 */
/* A service with real listeners and no workers: its generations are set by hand, and clients find
 * out where they land. For tests of what the daemon does with sockets. */
#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>

#include "daemon/manager.h"
#include "sys/sockdiag.h"
#include "sys_test.h"

/* A descriptor that is to be open, not to be used. */
#define _kept_ __attribute__((unused)) _cleanup_close_

static struct manager scene;
static struct manager_service *service;
static struct listener_config wanted; /* what scene_open() opens */
static size_t scene_fds;

/* 127.0.0.1 with a port that nobody has on any address: below those that the kernel gives to
 * clients, which could take it at any moment. */
static inline struct address free_address(void)
{
	for (unsigned i = 0; i < 1000; i++) {
		unsigned port = 10000 + ((unsigned)getpid() * 7 + i * 13) % 20000;
		struct address a;
		int fd;

		ck_assert_int_eq(address_parse("tcp:0.0.0.0:1", true, &a), 0);
		a.in4.sin_port = htons((uint16_t)port);
		fd = listen_open_first(&a, &OPTIONS, NULL);
		if (fd < 0)
			continue;
		close_fd(fd);
		a.in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return a;
	}
	ck_abort_msg("no port is free");
}

static inline void scene_set_up(void)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct service_config config;

	scene_fds = count_fds();
	scene = (struct manager){.sockdiag_fd = sockdiag_open()};
	ck_assert_int_ge(scene.sockdiag_fd, 0);
	scene.connected_leaves = listen_connected_leaves() > 0;
	ck_assert_int_ge(sd_event_new(&scene.event), 0);
	ck_assert_int_eq(service_config_init(&config, "web"), 0);
	config.workers = 1;
	service = manager_service_new(&scene, &config, &error);
	ck_assert_ptr_nonnull(service);
	service_config_done(&config);
	listener_config_init(&wanted);
	wanted.name = strdup("http");
	wanted.address = free_address();
	wanted.backlog = 64;
}

static inline void scene_tear_down(void)
{
	listener_config_done(&wanted);
	service = manager_service_free(service);
	for (size_t i = 0; i < EVENTS_MAX; i++) {
		free(scene.events[i].service);
		free(scene.events[i].message);
	}
	scene.event = sd_event_unref(scene.event);
	scene.sockdiag_fd = close_fd(scene.sockdiag_fd);
	ck_assert_uint_eq(count_fds(), scene_fds);
}

/* Whatever the loop has to do. */
static inline void scene_turn(void)
{
	unsigned n = 0;

	while (sd_event_run(scene.event, 0) > 0)
		ck_assert_uint_lt(++n, 10000);
}

static inline struct listener *scene_open(unsigned lane)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct listener *l = NULL;
	int r = listener_open(service, &wanted, 0, true, lane, &l, &error);

	ck_assert_msg(r == 0, "%s", error_message(&error));
	service->listeners[0] = l;
	return l;
}

/* A generation on a lane, with all its workers ready. */
static inline struct generation *scene_add(unsigned lane, unsigned weight, unsigned n_workers)
{
	struct service *core = &service->core;
	struct policy policy;
	struct generation *g;

	policy_from_config(&policy, service->config);
	policy.workers = n_workers;
	policy.steered = true;
	g = generation_new(++core->last_number, &policy, 1);
	ck_assert_ptr_nonnull(g);
	ck_assert_int_eq(generation_grow(g, n_workers), 0);
	for (unsigned i = 0; i < n_workers; i++)
		g->workers[i].state = WORKER_READY;
	g->lane = lane;
	g->weight = weight;
	g->state = GENERATION_SERVING;
	core->generations[core->n_generations++] = g;
	return g;
}

static inline void set_weights(
	struct listener *l, struct generation *a, unsigned of_a, struct generation *b)
{
	a->weight = of_a;
	b->weight = SHARE_MAX - of_a;
	listener_steer(l);
}

static inline int client_from(const struct address *to, const char *source)
{
	struct address from = *to;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	from.in4.sin_port = 0;
	ck_assert_int_eq(inet_pton(AF_INET, source, &from.in4.sin_addr), 1);
	ck_assert_int_eq(bind(fd, &from.sa, from.len), 0);
	ck_assert_int_eq(connect(fd, &to->sa, to->len), 0);
	return fd;
}

/* Which socket has a connection waiting; it is taken. Exactly one has. */
static inline struct lane_socket take_one(const struct listener *l)
{
	struct lane_socket found = {0};
	struct pollfd p[400];
	int connection;

	ck_assert_uint_le(l->lanes.n, ARRAY_SIZE(p));
	for (size_t i = 0; i < l->lanes.n; i++)
		p[i] = (struct pollfd){.fd = l->lanes.sockets[i].fd, .events = POLLIN};
	ck_assert_int_eq(poll(p, l->lanes.n, 2000), 1);
	for (size_t i = 0; i < l->lanes.n; i++)
		if (p[i].revents & POLLIN)
			found = l->lanes.sockets[i];
	connection = accept4(found.fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(connection, 0);
	close(connection);
	return found;
}

static inline struct lane_socket reach(const struct listener *l, const char *source)
{
	_kept_ int client = client_from(&l->config.address, source);

	return take_one(l);
}

/* n connections, counted by lane and slot. */
enum { SCENE_LANES = 4, SCENE_SLOTS = 16 };
struct hits {
	unsigned of[SCENE_LANES][SCENE_SLOTS];
	unsigned lane[SCENE_LANES];
};
static inline struct hits count_hits(const struct listener *l, unsigned n)
{
	struct hits hits = {0};

	for (unsigned i = 0; i < n; i++) {
		struct lane_socket found = reach(l, "127.0.0.1");

		ck_assert(found.lane < SCENE_LANES && found.slot < SCENE_SLOTS);
		hits.of[found.lane][found.slot]++;
		hits.lane[found.lane]++;
	}
	return hits;
}

static inline int rule_to(
	struct listener *l, const char *source, uint16_t port, unsigned lane, unsigned slot)
{
	uint8_t address[16] = {0};

	ck_assert_int_eq(inet_pton(AF_INET, source, address), 1);
	return listener_add_rule(l, AF_INET, address, port, lane, slot);
}

/* What the model says of every socket is so in the kernel. */
static inline void expect_model(struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++) {
		struct lane_socket s = l->lanes.sockets[i], found;
		int rule;

		if (s.lane == LANES_OTHER)
			continue;
		rule = rule_to(l, "127.0.0.3", 0, s.lane, s.slot);
		ck_assert_int_gt(rule, 0);
		found = reach(l, "127.0.0.3");
		ck_assert_msg(found.lane == s.lane && found.slot == s.slot,
			"index %zu: lane %u slot %u, not lane %u slot %u", i, found.lane,
			found.slot, s.lane, s.slot);
		listener_drop_rule(l, (unsigned)rule);
	}
	ck_assert_uint_eq(l->n_rules, 0);
}

static inline void send_datagram(const struct listener *l)
{
	int client = socket(address_family(&l->config.address), SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct address to;

	address_loopback_of(&l->config.address, &to);
	ck_assert_int_ge(client, 0);
	ck_assert_int_eq(sendto(client, "x", 1, 0, &to.sa, to.len), 1);
	close(client);
}

/* The socket that has a datagram waiting; it is taken. fd -1: none. */
static inline struct lane_socket take_datagram(const struct listener *l)
{
	struct lane_socket found = {.lane = 999, .slot = 999, .fd = -1};
	char byte;

	for (size_t i = 0; i < l->lanes.n; i++) {
		const struct lane_socket *s = &l->lanes.sockets[i];

		if (s->fd < 0 || recv(s->fd, &byte, 1, MSG_DONTWAIT) < 0)
			continue;
		ck_assert_int_eq(found.fd, -1);
		found = *s;
	}
	return found;
}

/* As expect_model(), by the indices themselves; several times, for a hash may be right by chance.
 */
static inline void expect_datagram_model(struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++) {
		struct sock_filter program = BPF_STMT(BPF_RET | BPF_K, (uint32_t)i);

		if (l->lanes.sockets[i].fd < 0)
			continue;
		ck_assert_int_eq(listen_steer(l->lanes.sockets[0].fd, &program, 1), 0);
		for (unsigned k = 0; k < 4; k++) {
			struct lane_socket found;

			send_datagram(l);
			found = take_datagram(l);
			ck_assert_msg(found.fd == l->lanes.sockets[i].fd,
				"index %zu: lane %u slot %u, not lane %u slot %u", i, found.lane,
				found.slot, l->lanes.sockets[i].lane, l->lanes.sockets[i].slot);
		}
	}
	listener_steer(l);
}

static inline uint64_t inode_of(const struct listener *l, unsigned lane, unsigned slot)
{
	uint64_t inode = 0;

	ck_assert_int_eq(socket_inode(listener_socket(l, lane, slot), &inode), 0);
	return inode;
}

/* Another process, as far as the kernel can tell, that holds the worker's socket. */
static inline int held_by_worker(const struct listener *l, unsigned lane, unsigned slot)
{
	int fd = fcntl(listener_socket(l, lane, slot), F_DUPFD_CLOEXEC, 3);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static inline bool was_reset(int client)
{
	struct pollfd p = {.fd = client, .events = POLLIN};
	char byte;

	return poll(&p, 1, 1000) == 1 && recv(client, &byte, 1, MSG_DONTWAIT) < 0 &&
	       errno == ECONNRESET;
}

static inline int scene_run(const char *name, const TTest *const *tests, size_t n)
{
	TCase *tcase = tcase_create(name);

	tcase_add_checked_fixture(tcase, scene_set_up, scene_tear_down);
	tcase_set_timeout(tcase, 30);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(tcase, tests[i]);
	return run_case(name, tcase);
}

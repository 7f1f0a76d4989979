/* SPDX-License-Identifier: Apache-2.0 */
/* Probes against real sockets: they say "accepted" when, and only when, somebody accepted in that
 * lane; and the first line of an HTTP reply. */
#include "daemon/probe.h"

#include "daemon/check_http.h"
#include "listener_scene.h"

/* What sock_diag knows, and what is left where it may not be asked. */
static int netlink_of(int i)
{
	return i == 0 ? scene.sockdiag_fd : -1;
}

static struct listener *open_two(enum sockets_mode sockets)
{
	struct listener *l;

	wanted.sockets = sockets;
	service->config->workers = 2;
	l = scene_open(0);
	scene_add(0, SHARE_MAX, 2);
	scene_add(1, 0, 2);
	listener_steer(l);
	ck_assert(listener_lane_is_per_worker(l, 1) == (sockets == SOCKETS_PER_WORKER));
	return l;
}

static int accept_at(const struct listener *l, unsigned lane, unsigned slot)
{
	int fd = listener_socket(l, lane, slot), connection;

	ck_assert(is_readable(fd, 1000));
	connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(connection, 0);
	return connection;
}

/* TCP_DEFER_ACCEPT keeps a connection on which nothing was sent from being accepted: it is ended,
 * and accepted then; but not proved by that alone. */
START_TEST(deferred)
{
	struct listener *l;
	struct probe p = PROBE_NULL;
	const struct config_place nowhere = {0};
	char byte;

	ck_assert_int_eq(
		socket_options_set(&wanted.options, OPTION_DEFER_ACCEPT, 60, NULL, nowhere), 0);
	l = open_two(SOCKETS_SHARED);
	ck_assert_int_eq(probe_begin(&p, l, 1, 0), 0);
	ck_assert(!is_readable(listener_socket(l, 1, 0), 20));
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_WAITING);
	ck_assert(p.ended);
	_kept_ int connection = accept_at(l, 1, 0);
	ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_ACCEPTED);
	/* An end and nothing else. */
	ck_assert_int_eq(recv(connection, &byte, 1, 0), 0);
	probe_done(&p);
	socket_options_done(&wanted.options);
}
END_TEST

START_TEST(accepted)
{
	struct listener *l = open_two(SOCKETS_SHARED);
	struct probe p = PROBE_NULL;
	uint64_t inode;

	ck_assert_int_eq(probe_begin(&p, l, 1, 0), 0);
	/* In the queue of the lane it is for, which has no share. */
	ck_assert_uint_eq(listener_queue(l, 1, 0), 1);
	ck_assert_uint_eq(listener_queue(l, 0, 0), 0);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_WAITING);
	_kept_ int connection = accept_at(l, 1, 0);
	ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_ACCEPTED);
	ck_assert(!p.readable);
	if (_i == 0) {
		ck_assert_int_eq(socket_inode(connection, &inode), 0);
		ck_assert_uint_eq(p.inode, inode);
	}
	/* It stays so, whatever comes. */
	connection = close_fd(connection);
	ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_ACCEPTED);
	ck_assert_uint_eq(l->n_rules, 1);
	probe_done(&p);
	ck_assert_uint_eq(l->n_rules, 0);
	ck_assert_int_eq(p.fd, -1);
	probe_done(&p);
}
END_TEST

START_TEST(beside_clients)
{
	struct listener *l = open_two(SOCKETS_SHARED);
	struct probe p = PROBE_NULL;

	ck_assert_int_eq(probe_begin(&p, l, 1, 0), 0);
	/* Clients come to the other lane, and are accepted there: that proves nothing. */
	for (unsigned i = 0; i < 20; i++) {
		_kept_ int client = client_from(&l->config.address, "127.0.0.1");
		_kept_ int connection = accept_at(l, 0, 0);

		ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_WAITING);
	}
	probe_done(&p);
}
END_TEST

START_TEST(the_workers_own_socket)
{
	struct listener *l = open_two(SOCKETS_PER_WORKER);

	for (unsigned slot = 0; slot < 2; slot++) {
		struct probe p = PROBE_NULL;

		ck_assert_int_eq(probe_begin(&p, l, 1, slot), 0);
		ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_WAITING);
		ck_assert_uint_eq(listener_queue(l, 1, slot), 1);
		_kept_ int connection = accept_at(l, 1, slot);
		ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_ACCEPTED);
		probe_done(&p);
	}
}
END_TEST

START_TEST(several_at_once)
{
	struct listener *l = open_two(SOCKETS_PER_WORKER);
	struct probe p[2] = {PROBE_NULL, PROBE_NULL};

	for (unsigned slot = 0; slot < 2; slot++)
		ck_assert_int_eq(probe_begin(&p[slot], l, 1, slot), 0);
	ck_assert_uint_eq(l->n_rules, 2);
	_kept_ int connection = accept_at(l, 1, 1);
	ck_assert_int_eq(probe_look(&p[0], netlink_of(_i)), PROBE_WAITING);
	ck_assert_int_eq(probe_look(&p[1], netlink_of(_i)), PROBE_ACCEPTED);
	probe_done(&p[1]);
	/* The rule of the other is still in force. */
	ck_assert_uint_eq(l->n_rules, 1);
	_kept_ int other = accept_at(l, 1, 0);
	ck_assert_int_eq(probe_look(&p[0], netlink_of(_i)), PROBE_ACCEPTED);
	probe_done(&p[0]);
}
END_TEST

/* The other side spoke, or went: accepted in any case. */
START_TEST(answered_or_closed)
{
	struct listener *l = open_two(SOCKETS_SHARED);

	for (unsigned i = 0; i < 2; i++) {
		struct probe p = PROBE_NULL;

		ck_assert_int_eq(probe_begin(&p, l, 1, 0), 0);
		_kept_ int connection = accept_at(l, 1, 0);
		if (i == 0)
			ck_assert_int_eq(send(connection, "220 hello\n", 10, MSG_NOSIGNAL), 10);
		else
			connection = close_fd(connection);
		ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_ACCEPTED);
		ck_assert(p.readable);
		probe_done(&p);
	}
}
END_TEST

/* The socket is shut down while it waits: reset, which is no success. */
START_TEST(reset_in_the_queue)
{
	struct listener *l = open_two(SOCKETS_SHARED);
	struct probe p = PROBE_NULL;

	ck_assert_int_eq(probe_begin(&p, l, 1, 0), 0);
	ck_assert_int_eq(shutdown(listener_socket(l, 1, 0), SHUT_RD), 0);
	ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_FAILED);
	probe_done(&p);
	scene_turn();
	/* The next one comes to the socket that listens again. */
	ck_assert_int_eq(probe_begin(&p, l, 1, 0), 0);
	_kept_ int connection = accept_at(l, 1, 0);
	ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_ACCEPTED);
	probe_done(&p);
}
END_TEST

START_TEST(refused)
{
	struct listener *l = open_two(SOCKETS_SHARED);
	struct probe p = PROBE_NULL;
	int r;

	/* Before the loop has seen that a worker shut all of it down. */
	for (unsigned lane = 0; lane < 2; lane++)
		ck_assert_int_eq(shutdown(listener_socket(l, lane, 0), SHUT_RD), 0);
	r = probe_begin(&p, l, 1, 0);
	ck_assert(r == 0 || r == -ECONNREFUSED);
	if (r == 0)
		ck_assert_int_eq(probe_look(&p, netlink_of(_i)), PROBE_FAILED);
	probe_done(&p);
	ck_assert_uint_eq(l->n_rules, 0);
}
END_TEST

START_TEST(too_many)
{
	struct listener *l = open_two(SOCKETS_SHARED);
	struct probe p = PROBE_NULL;

	for (unsigned i = 0; i < STEERING_RULES_MAX; i++)
		ck_assert_int_gt(rule_to(l, "127.0.0.2", (uint16_t)(1000 + i), 1, 0), 0);
	ck_assert_int_eq(probe_begin(&p, l, 1, 0), -ENOSPC);
	ck_assert_int_eq(p.fd, -1);
	listener_drop_rule(l, l->rules[0].id);
	ck_assert_int_eq(probe_begin(&p, l, 1, 0), 0);
	probe_done(&p);
	/* One that was never begun. */
	p = PROBE_NULL;
	probe_done(&p);
	(void)_i;
}
END_TEST

/* Addresses a client cannot connect to as they are, and both families. */
static void wildcard(const char *text, int i)
{
	struct probe p = PROBE_NULL;
	struct address a = address_of(text);
	struct listener *l;

	if (a.sa.sa_family == AF_INET6)
		a.in6.sin6_port = wanted.address.in4.sin_port;
	else
		a.in4.sin_port = wanted.address.in4.sin_port;
	wanted.address = a;
	l = open_two(SOCKETS_SHARED);
	ck_assert_int_eq(probe_begin(&p, l, 1, 0), 0);
	ck_assert_int_eq(probe_look(&p, netlink_of(i)), PROBE_WAITING);
	_kept_ int connection = accept_at(l, 1, 0);
	ck_assert_int_eq(probe_look(&p, netlink_of(i)), PROBE_ACCEPTED);
	probe_done(&p);
	service->listeners[0] = listener_close(l);
	for (size_t k = 0; k < service->core.n_generations; k++)
		generation_free(service->core.generations[k]);
	service->core.n_generations = 0;
}

START_TEST(wildcards)
{
	wildcard("tcp:0.0.0.0:1", _i);
	wildcard("tcp:127.0.0.9:1", _i);
	if (access("/proc/net/if_inet6", F_OK) == 0) {
		wildcard("tcp:[::]:1", _i);
		wanted.v6only = true;
		wildcard("tcp:[::]:1", _i);
		wildcard("tcp:[::1]:1", _i);
	}
}
END_TEST

START_TEST(first_lines)
{
	static const struct {
		const char *text;
		int status;
	} cases[] = {
		{"HTTP/1.1 200 OK\r\n",	200	   },
		{"HTTP/1.0 404 Not Found\r\n", 404	  },
		{"HTTP/1.1 503",		 503	    },
		{"HTTP/1.1 100 Continue\r\n",  100	 },
		{"HTTP/1.1 999 \r\n",	      999	 },
		{"HTTP/1.1 204\r\n\r\n",	 204	    },
 /* Not complete yet. */
		{"",			   0	      },
		{"H",			  0       },
		{"HTTP/1.",		    0	     },
		{"HTTP/1.1 ",		      0       },
		{"HTTP/1.1 20",		0	 },
 /* Something else. */
		{"HTTP/2 200\r\n",		   -EBADMSG},
		{"SSH-2.0-OpenSSH",	    -EBADMSG},
		{"X",			  -EBADMSG},
		{"http/1.1 200 OK\r\n",	-EBADMSG},
		{"HTTP/1.x 200 OK\r\n",	-EBADMSG},
		{"HTTP/1.1\t200 OK\r\n",	 -EBADMSG},
		{"HTTP/1.1 2x0 OK\r\n",	-EBADMSG},
		{"HTTP/1.1 -20 OK\r\n",	-EBADMSG},
		{"HTTP/1.1 020 OK\r\n",	-EBADMSG},
		{"HTTP/1.1 2000 OK\r\n",	 -EBADMSG},
		{"HTTP/1.1  200 OK\r\n",	 -EBADMSG},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_msg(http_status(cases[i].text, strlen(cases[i].text)) == cases[i].status,
			"[%s] gave %d", cases[i].text,
			http_status(cases[i].text, strlen(cases[i].text)));
	/* What lies behind the end is not looked at. */
	ck_assert_int_eq(http_status("HTTP/1.1 200", 11), 0);
	(void)_i;
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {accepted, deferred, beside_clients, the_workers_own_socket,
		several_at_once, answered_or_closed, reset_in_the_queue, refused, wildcards};
	TCase *tcase = tcase_create("probe");

	tcase_add_checked_fixture(tcase, scene_set_up, scene_tear_down);
	tcase_set_timeout(tcase, 30);
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		tcase_add_loop_test(tcase, tests[i], 0, 2);
	tcase_add_test(tcase, too_many);
	tcase_add_test(tcase, first_lines);
	return run_case("probe", tcase);
}

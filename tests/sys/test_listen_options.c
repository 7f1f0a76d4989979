/* SPDX-License-Identifier: Apache-2.0 */
/* Every option of the table on real sockets of each kind: told, read back, and inherited by the
 * connections. In a network of our own, whose settings we may change. */
#include "sys/listen_options.h"

#include <netinet/tcp.h>

#include "core/socket_options.h"
#include "group.h"
#include "sys_test.h"

static const char *const kinds[] = {
	"127.0.0.1:0", "[::1]:0", "[::]:0", "udp:127.0.0.1:0", "udp:[::1]:0", "udp:[::]:0"};

/* Something that is not the default. */
static const struct sample {
	enum socket_option option;
	int64_t value;
	const char *text;
} samples[] = {
	{OPTION_REUSEADDR,	   0,	      NULL  },
	{OPTION_BINDTODEVICE,   0,		 "lo"  },
	{OPTION_FREEBIND,	  1,	     NULL	 },
	{OPTION_TRANSPARENT,    1,		NULL  },
	{OPTION_MARK,	      0xfffffff7, NULL  },
	{OPTION_TOS,	     0x28,	   NULL  },
	{OPTION_TCLASS,		1,	   NULL  },
	{OPTION_PRIORITY,	  3,	     NULL	 },
	{OPTION_TTL,	     33,	 NULL  },
	{OPTION_RCVBUF,		65536,      NULL  },
	{OPTION_RCVBUF_FORCE,   9 << 20,    NULL  },
	{OPTION_SNDBUF,		32768,      NULL  },
	{OPTION_SNDBUF_FORCE,   9 << 20,    NULL  },
	{OPTION_RCVLOWAT,	  100,	       NULL  },
	{OPTION_RCVTIMEO,	  1500000,	   NULL  },
	{OPTION_SNDTIMEO,	  30000000,   NULL	},
	{OPTION_KEEPALIVE,	   1,	      NULL  },
	{OPTION_KEEPIDLE,	  61,	      NULL  },
	{OPTION_KEEPINTVL,	   11,	       NULL  },
	{OPTION_KEEPCNT,	 6,	    NULL	},
	{OPTION_LINGER,		5,	   NULL  },
	{OPTION_LINGER,		0,	   NULL  },
	{OPTION_OOBINLINE,	   1,	      NULL  },
	{OPTION_DONTROUTE,	   1,	      NULL  },
	{OPTION_DEBUG,	       1,	  NULL  },
	{OPTION_INCOMING_CPU,   0,		 NULL  },
	{OPTION_BUSY_POLL,	   50,	       NULL  },
	{OPTION_NODELAY,	 1,	    NULL	},
	{OPTION_DEFER_ACCEPT,   5,		 NULL  },
	{OPTION_FASTOPEN,	  16,	      NULL  },
	{OPTION_CONGESTION,	    0,	       "reno"},
	{OPTION_USER_TIMEOUT,   1500,	    NULL	},
	{OPTION_MAXSEG,		1000,	      NULL  },
	{OPTION_BROADCAST,	   1,	      NULL  },
	{OPTION_MULTICAST_TTL,  7,	  NULL  },
	{OPTION_MULTICAST_LOOP, 0,	   NULL  },
	{OPTION_RXQ_OVFL,	  1,	     NULL	 },
	{OPTION_NONBLOCKING,    1,		NULL  },
};

static struct socket_option_limits limits;

/* 1: applied and read back; 0: this machine does not have it or we may not, which is said. */
static int apply(int fd, const struct sample *sample, const struct address *a, struct sockopt *ret)
{
	struct socket_option_setting s = {.option = sample->option, .value = sample->value};
	struct sockopt list[2], got;
	_cleanup_free_ char *note = NULL;
	size_t n;
	int r;

	if (sample->text)
		memcpy(s.text, sample->text, strlen(sample->text));
	n = socket_option_kernel(&s, a, false, list);
	REQUIRE(n > 0);
	for (size_t i = 0; i < n; i++) {
		r = listen_option_set(fd, &list[i]);
		if (r == -EPERM || r == -EACCES || r == -ENOPROTOOPT) {
			fprintf(stderr, "not tried: %s: %s\n",
				socket_option_info(sample->option)->key, strerror(-r));
			return 0;
		}
		REQUIRE(r == 0);
		got = list[i];
		memset(got.text, 0, sizeof(got.text));
		got.value = -7;
		REQUIRE(listen_option_get(fd, &got) == 0);
		got.value = socket_option_from_kernel(sample->option, got.value);
		if (sample->text) {
			REQUIRE(streq(got.text, sample->text));
		} else if (got.value != sample->value) {
			/* What differs has its explanation. */
			note = socket_option_note(
				sample->option, sample->value, got.value, &limits);
			if (!note)
				fprintf(stderr, "%s: %lld instead of %lld\n",
					socket_option_info(sample->option)->key,
					(long long)got.value, (long long)sample->value);
			REQUIRE(note);
		}
		*ret = got;
	}
	return 1;
}

/* Connections of a listening socket have what it has; but for these. */
static bool is_inherited(enum socket_option o)
{
	return o != OPTION_REUSEADDR && o != OPTION_PRIORITY && o != OPTION_DEFER_ACCEPT &&
	       o != OPTION_FASTOPEN && o != OPTION_INCOMING_CPU && o != OPTION_MAXSEG &&
	       o != OPTION_TRANSPARENT && o != OPTION_NONBLOCKING;
}

static void check_connection(int fd, const struct sample *sample, const struct sockopt *listener)
{
	struct address to = bound_address(fd), loopback;
	_cleanup_close_ int client = -1, connection = -1;
	struct sockopt got = *listener;

	REQUIRE(listen(fd, 4) == 0);
	address_loopback_of(&to, &loopback);
	client = client_of(&loopback);
	REQUIRE(client >= 0);
	REQUIRE(send(client, "x", 1, 0) == 1);
	connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	REQUIRE(connection >= 0);
	memset(got.text, 0, sizeof(got.text));
	REQUIRE(listen_option_get(connection, &got) == 0);
	got.value = socket_option_from_kernel(sample->option, got.value);
	if (got.value != listener->value || !streq(got.text, listener->text))
		fprintf(stderr, "%s: not inherited: %lld, %lld\n",
			socket_option_info(sample->option)->key, (long long)listener->value,
			(long long)got.value);
	REQUIRE(got.value == listener->value && streq(got.text, listener->text));
}

static void each_option_on(const char *kind)
{
	struct address a = address_of(kind);

	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		_cleanup_close_ int fd = -1;
		struct sockopt o;

		if (socket_option_misfit(samples[i].option, &a))
			continue;
		fd = listen_options_blank(&a, false);
		REQUIRE(fd >= 0);
		if (apply(fd, &samples[i], &a, &o) == 0)
			continue;
		REQUIRE(bind(fd, &a.sa, a.len) == 0);
		if (a.kind == ADDRESS_TCP && is_inherited(samples[i].option))
			check_connection(fd, &samples[i], &o);
	}
}

static void all_kinds(void)
{
	(void)listen_sysctl("net/core/rmem_max", &limits.rmem_max);
	(void)listen_sysctl("net/core/wmem_max", &limits.wmem_max);
	(void)listen_sysctl("net/core/somaxconn", &limits.somaxconn);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		each_option_on(kinds[i]);
}

START_TEST(each_option)
{
	for (unsigned o = 0; o < SOCKET_OPTIONS_N; o++) {
		bool found = o == OPTION_REUSEPORT || o == OPTION_V6ONLY || o == OPTION_BACKLOG ||
			     o == OPTION_SNDLOWAT || o == OPTION_MULTICAST;

		for (size_t i = 0; i < ARRAY_SIZE(samples); i++)
			found = found || samples[i].option == o;
		ck_assert_msg(found, "%s has no sample", socket_option_info(o)->key);
	}
	group_in_own_network(all_kinds);
}
END_TEST

START_TEST(refused)
{
	const struct sockopt list[] = {
		{.level = SOL_SOCKET,     .name = SO_KEEPALIVE, .value = 1},
		{ .level = IPPROTO_TCP,
			.name = TCP_CONGESTION,
			.type = SOCKOPT_TEXT,
			.text = "no-such-one"},
		{				     .level = SOL_SOCKET,
			.name = SO_BINDTODEVICE,
			.type = SOCKOPT_TEXT,
			.text = "no-such-dev"},
	};
	struct address a = address_of("127.0.0.1:0");
	struct listen_options o = OPTIONS;
	size_t failed = SIZE_MAX;

	o.options = list;
	o.n_options = 3;
	o.ret_refused = &failed;
	ck_assert_int_eq(listen_open_first(&a, &o, NULL), -ENOENT);
	ck_assert_uint_eq(failed, 1);
	o.options = &list[2];
	o.n_options = 1;
	ck_assert_int_eq(listen_open_first(&a, &o, NULL), -ENODEV);
	ck_assert_uint_eq(failed, 0);
	/* What is not the options' fault does not name one. */
	failed = SIZE_MAX;
	o.options = list;
	a = address_of("203.0.113.9:80");
	ck_assert_int_eq(listen_open_first(&a, &o, NULL), -EADDRNOTAVAIL);
	ck_assert_uint_eq(failed, SIZE_MAX);
}
END_TEST

START_TEST(back_to_the_default)
{
	struct address a = address_of("127.0.0.1:0");
	_cleanup_close_ int blank = listen_options_blank(&a, false),
			    fd = listen_options_blank(&a, false);
	struct sockopt o = {.level = SOL_SOCKET, .name = SO_RCVBUF, .value = 4096}, before = o;
	int locks = -1;
	socklen_t len = sizeof(locks);

	ck_assert(blank >= 0 && fd >= 0);
	ck_assert_int_eq(listen_option_get(fd, &before), 0);
	ck_assert_int_eq(listen_option_set(fd, &o), 0);
	ck_assert_int_eq(listen_option_get(fd, &o), 0);
	ck_assert_int_eq(o.value, 8192);
	ck_assert_int_eq(listen_option_get(blank, &o), 0);
	ck_assert_int_eq(o.value, before.value);
	o.value /= 2;
	ck_assert_int_eq(listen_option_set(fd, &o), 0);
	ck_assert_int_eq(listen_option_unlock(fd, &o), 0);
	ck_assert_int_eq(listen_option_get(fd, &o), 0);
	ck_assert_int_eq(o.value, before.value);
	if (getsockopt(fd, SOL_SOCKET, 72 /* SO_BUF_LOCK */, &locks, &len) == 0)
		ck_assert_int_eq(locks, 0);
}
END_TEST

static struct multicast_group group_of(const char *text)
{
	struct socket_options o = {0};
	struct multicast_group g;

	REQUIRE(socket_options_add_group(&o, text, NULL, NULL) == 0);
	g = o.groups[0];
	socket_options_done(&o);
	return g;
}

/* A device that was just brought up has its carrier, and with it its routes, up to a second later.
 */
static void send_when_there_is_a_route(int fd, const struct address *to)
{
	for (unsigned i = 0; i < 1000; i++) {
		if (sendto(fd, "x", 1, 0, &to->sa, to->len) == 1)
			return;
		REQUIRE(errno == ENETUNREACH || errno == EADDRNOTAVAIL);
		(void)poll(NULL, 0, 10);
	}
	REQUIRE(false); /* no route came in ten seconds */
}

static bool comes(int fd, const struct address *to, const char *group)
{
	_cleanup_close_ int from = socket(address_family(to), SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct multicast_group g = group_of(group);
	struct address at = *to;
	int device = (int)if_nametoindex(g.interface);
	struct ip_mreqn via = {.imr_ifindex = device};
	char byte;

	if (g.family == AF_INET) {
		REQUIRE(setsockopt(from, IPPROTO_IP, IP_MULTICAST_IF, &via, sizeof(via)) == 0);
		memcpy(&at.in4.sin_addr, g.address, 4);
	} else {
		REQUIRE(setsockopt(from, IPPROTO_IPV6, IPV6_MULTICAST_IF, &device,
				sizeof(device)) == 0);
		memcpy(&at.in6.sin6_addr, g.address, 16);
	}
	send_when_there_is_a_route(from, &at);
	if (!is_readable(fd, 200))
		return false;
	REQUIRE(recv(fd, &byte, 1, 0) == 1);
	return true;
}

static void membership_of(const char *address, const char *group)
{
	struct address a = address_of(address);
	struct multicast_group g = group_of(group);
	_cleanup_close_ int fd = listen_options_blank(&a, false);
	struct sockopt join, leave;

	REQUIRE(fd >= 0 && bind(fd, &a.sa, a.len) == 0);
	a = bound_address(fd);
	multicast_group_kernel(&g, false, &join);
	multicast_group_kernel(&g, true, &leave);
	REQUIRE(!comes(fd, &a, group));
	REQUIRE(listen_option_set(fd, &join) == 0);
	REQUIRE(listen_option_set(fd, &join) == 0); /* is no error */
	REQUIRE(comes(fd, &a, group));
	REQUIRE(listen_option_get(fd, &join) == -EOPNOTSUPP);
	REQUIRE(listen_option_set(fd, &leave) == 0);
	REQUIRE(!comes(fd, &a, group));
	REQUIRE(listen_option_set(fd, &leave) == 0);
	(void)snprintf(join.text, sizeof(join.text), "none9");
	REQUIRE(listen_option_set(fd, &join) == -ENODEV);
}

/* Loopback takes no groups of IPv6. */
static bool make_device(void)
{
	return system("ip link add tenure0 type veth peer name tenure1 2>/dev/null &&"
		      "echo 0 >/proc/sys/net/ipv6/conf/tenure0/accept_dad &&"
		      "ip link set tenure0 up && ip link set tenure1 up") == 0;
}

static void memberships(void)
{
	membership_of("udp:0.0.0.0:0", "239.1.2.3%lo");
	if (make_device())
		membership_of("udp:[::]:0", "ff15::7%tenure0");
	else
		fprintf(stderr, "not tried: groups of IPv6: no device can be made here\n");
}

START_TEST(multicast)
{
	group_in_own_network(memberships);
}
END_TEST

START_TEST(addresses_of_a_device)
{
	struct address a = address_of("0.0.0.0:77"), six = address_of("[::]:78");
	_cleanup_free_ char *text = NULL;

	ck_assert_int_eq(listen_device_address("lo", AF_INET, &a), 0);
	text = address_format(&a);
	ck_assert_str_eq(text, "tcp:127.0.0.1:77");
	ck_assert_int_eq(listen_device_address("none9", AF_INET, &a), -ENODEV);
	if (listen_device_address("lo", AF_INET6, &six) == 0)
		ck_assert_uint_eq(address_port(&six), 78);
}
END_TEST

/* A device that is given to all sockets of a group that listen, and to one that joins it later. */
static void devices(void)
{
	struct sock_filter filter = BPF_STMT(BPF_RET | BPF_K, 1);
	const struct sockopt device = {
		.level = SOL_SOCKET, .name = SO_BINDTODEVICE, .type = SOCKOPT_TEXT, .text = "lo"};
	struct address a = address_of("0.0.0.0:0"), to;
	struct listen_options o = OPTIONS;
	struct listen_state state;
	int fds[3];

	fds[0] = listen_open_first(&a, &o, NULL);
	REQUIRE(fds[0] >= 0 && listen_start(fds[0], 8) == 0);
	a = bound_address(fds[0]);
	address_loopback_of(&a, &to);
	fds[1] = listen_open_member(&a, &o);
	REQUIRE(fds[1] >= 0 && listen_start(fds[1], 8) == 0);
	REQUIRE(listen_steer(fds[0], &filter, 1) == 0);
	REQUIRE(client_of(&to) >= 0);
	REQUIRE(listen_query(fds[1], &state) == 0 && state.queue == 1);
	for (int i = 0; i < 2; i++) {
		REQUIRE(listen_option_set(fds[i], &device) == 0);
		/* Also between the two. */
		REQUIRE(client_of(&to) >= 0);
	}
	REQUIRE(listen_query(fds[1], &state) == 0 && state.queue == 3);
	o.options = &device;
	o.n_options = 1;
	fds[2] = listen_open_member(&a, &o);
	REQUIRE(fds[2] >= 0 && listen_start(fds[2], 8) == 0);
	filter.k = 2;
	REQUIRE(listen_steer(fds[0], &filter, 1) == 0);
	REQUIRE(client_of(&to) >= 0);
	REQUIRE(listen_query(fds[2], &state) == 0 && state.queue == 1);
}

START_TEST(a_device_for_a_group)
{
	group_in_own_network(devices);
}
END_TEST

/* With TCP_DEFER_ACCEPT nothing is accepted until something came; the client's end is something. */
START_TEST(the_end_is_something)
{
	const struct sockopt defer = {.level = IPPROTO_TCP, .name = TCP_DEFER_ACCEPT, .value = 30};
	struct address a = address_of("127.0.0.1:0");
	struct listen_options o = OPTIONS;
	_cleanup_close_ int fd = -1, client = -1, connection = -1;
	char byte;

	o.options = &defer;
	o.n_options = 1;
	fd = listen_open_first(&a, &o, NULL);
	ck_assert(fd >= 0 && listen_start(fd, 4) == 0);
	a = bound_address(fd);
	client = client_of(&a);
	ck_assert_int_ge(client, 0);
	ck_assert(!is_readable(fd, 50));
	ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
	ck_assert(is_readable(fd, 5000));
	connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_eq(recv(connection, &byte, 1, 0), 0);
}
END_TEST

/* One that knows the machine already sends its first bytes with its SYN: to the lane that steering
 * says, of all that have the option. */
static void fast_open(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/sys/net/ipv4/tcp_fastopen", "we");
	const struct sockopt option = {.level = IPPROTO_TCP, .name = TCP_FASTOPEN, .value = 8};
	struct sock_filter filter = BPF_STMT(BPF_RET | BPF_K, 0);
	struct address a = address_of("127.0.0.1:0");
	struct listen_options o = OPTIONS;
	int fds[2];

	if (!f || fputs("3", f) < 0 || fflush(f) != 0)
		_exit(77);
	o.options = &option;
	o.n_options = 1;
	fds[0] = listen_open_first(&a, &o, NULL);
	REQUIRE(fds[0] >= 0 && listen_start(fds[0], 8) == 0);
	a = bound_address(fds[0]);
	fds[1] = listen_open_member(&a, &o);
	REQUIRE(fds[1] >= 0 && listen_start(fds[1], 8) == 0);
	for (unsigned i = 0; i < 4; i++) {
		_cleanup_close_ int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
				    got = -1;
		struct tcp_info info;
		socklen_t len = sizeof(info);
		char byte;

		filter.k = i % 2;
		REQUIRE(listen_steer(fds[0], &filter, 1) == 0);
		REQUIRE(sendto(client, "x", 1, MSG_FASTOPEN, &a.sa, a.len) == 1);
		REQUIRE(is_readable(fds[i % 2], 1000));
		got = accept4(fds[i % 2], NULL, NULL, SOCK_CLOEXEC);
		REQUIRE(got >= 0 && recv(got, &byte, 1, 0) == 1 && byte == 'x');
		REQUIRE(getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
		/* The first one asks for a cookie; it holds for both sockets. */
		REQUIRE(((info.tcpi_options & TCPI_OPT_SYN_DATA) != 0) == (i > 0));
	}
}

START_TEST(fast_open_is_steered)
{
	group_in_own_network(fast_open);
}
END_TEST

int main(void)
{
	const TTest *tests[] = {each_option, refused, back_to_the_default, multicast,
		addresses_of_a_device, a_device_for_a_group, the_end_is_something,
		fast_open_is_steered};

	return run_tests("listen_options", tests, ARRAY_SIZE(tests));
}

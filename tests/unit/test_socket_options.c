/* SPDX-License-Identifier: Apache-2.0 */
/* The table of socket options: every key, good, bad, out of range, on the wrong kind of socket. */
#include "core/socket_options.h"

#include <netinet/tcp.h>

#include "unit.h"

static struct address address_of(const char *text)
{
	struct address a;

	ck_assert_int_eq(address_parse(text, true, &a), 0);
	return a;
}

static const struct config_place nowhere = {0};

/* What a value is shown as, or the error. The caller frees. */
static char *answer(const char *key, const char *text)
{
	struct socket_options o = {0};
	_cleanup_error_ struct error error = ERROR_NULL;
	enum socket_option option;
	char *shown;
	int r;

	ck_assert_int_eq(socket_option_from_key(key, &option), 0);
	r = socket_options_parse(&o, option, text, nowhere, &error);
	if (r < 0) {
		ck_assert_uint_eq(o.n, 0);
		ck_assert_int_eq(error.code, r);
		ck_assert_msg(startswith(error_message(&error), key), "%s", error_message(&error));
		return strdup(error_message(&error));
	}
	ck_assert_uint_eq(o.n, 1);
	ck_assert_int_eq(o.list[0].option, option);
	shown = socket_option_format(option, o.list[0].value, o.list[0].text);
	socket_options_done(&o);
	return shown;
}

struct row {
	const char *key;
	const char *good[4];	/* shown as they are written */
	const char *same[3][2]; /* shown otherwise */
	const char *bad[4];	/* not of that form */
	const char *beyond[3];	/* out of range */
};

/* clang-format off */
#define SWITCH(k)                                                                                  \
	{.key = (k), .good = {"true", "false"}, .same = {{"on", "true"}, {"no", "false"}},         \
		.bad = {"", "1", "maybe"}}
#define BUFFER(k)                                                                                  \
	{.key = (k), .good = {"1K", "64K", "512M"}, .same = {{"65536", "64K"}},                    \
		.bad = {"", "big", "-1"}, .beyond = {"1023", "513M", "99999999T"}}

static const struct row rows[] = {
	SWITCH("reuseaddr"),
	SWITCH("freebind"),
	SWITCH("transparent"),
	SWITCH("keepalive"),
	SWITCH("oobinline"),
	SWITCH("dontroute"),
	SWITCH("debug"),
	SWITCH("nodelay"),
	SWITCH("broadcast"),
	SWITCH("multicast_loop"),
	SWITCH("rxq_ovfl"),
	SWITCH("nonblocking"),
	BUFFER("rcvbuf"),
	BUFFER("rcvbuf_force"),
	BUFFER("sndbuf"),
	BUFFER("sndbuf_force"),
	{.key = "reuseport",
		.good = {"true"},
		.same = {{"on", "true"}},
		.bad = {"false", "x"}},
	{.key = "bindtodevice",
		.good = {"eth0", "br-1.2@x", "a23456789012345"},
		.bad = {"", "a b", "a/b", "a234567890123456"}},
	{.key = "congestion",
		.good = {"bbr", "cubic"},
		.bad = {"", "..", "b\xc3\xa4r"}},
	{.key = "mark",
		.good = {"0x0", "0xffffffff"},
		.same = {{"7", "0x7"}, {"0xFf", "0xff"}},
		.bad = {"", "0x", "-1", "0xg"},
		.beyond = {"4294967296", "0x1ffffffffffffffff"}},
	{.key = "tos",
		.good = {"0", "255"},
		.same = {{"0x28", "40"}},
		.bad = {"", "low", "1.5"},
		.beyond = {"256"}},
	{.key = "tclass",
		.good = {"0", "255"},
		.same = {{"0x28", "40"}},
		.bad = {"", "low"},
		.beyond = {"256"}},
	{.key = "priority",
		.good = {"0", "6", "2147483647"},
		.bad = {"", "high", "-1"},
		.beyond = {"2147483648"}},
	{.key = "ttl",
		.good = {"1", "255"},
		.bad = {"", "off"},
		.beyond = {"0", "256"}},
	{.key = "multicast_ttl",
		.good = {"0", "255"},
		.bad = {"", "off"},
		.beyond = {"256"}},
	{.key = "rcvlowat",
		.good = {"1", "64K"},
		.same = {{"1024", "1K"}},
		.bad = {"", "x"},
		.beyond = {"0", "1T"}},
	{.key = "rcvtimeo",
		.good = {"off", "1us", "1.5s", "1d"},
		.same = {{"0", "off"}, {"1500ms", "1.5s"}},
		.bad = {"", "5", "on"},
		.beyond = {"25h"}},
	{.key = "sndtimeo",
		.good = {"off", "30s"},
		.same = {{"0s", "off"}},
		.bad = {"", "5"},
		.beyond = {"25h"}},
	{.key = "keepidle",
		.good = {"1s", "2h"},
		.same = {{"60s", "1m"}},
		.bad = {"", "5", "off", "1500ms"},
		.beyond = {"0s", "32768s"}},
	{.key = "keepintvl",
		.good = {"1s", "1m15s"},
		.bad = {"", "x"},
		.beyond = {"0", "40000s"}},
	{.key = "keepcnt",
		.good = {"1", "127"},
		.bad = {"", "off"},
		.beyond = {"0", "128"}},
	{.key = "linger",
		.good = {"off", "0s", "1h"},
		.same = {{"no", "off"}, {"60s", "1m"}},
		.bad = {"", "5", "on", "1ms"},
		.beyond = {"61m"}},
	{.key = "incoming_cpu",
		.good = {"0", "8191"},
		.bad = {"", "all", "-1"},
		.beyond = {"8192"}},
	{.key = "busy_poll",
		.good = {"off", "50us", "1s"},
		.same = {{"0", "off"}},
		.bad = {"", "50", "on"},
		.beyond = {"2s"}},
	{.key = "defer_accept",
		.good = {"off", "1s", "1h"},
		.same = {{"0s", "off"}},
		.bad = {"", "5", "1500ms"},
		.beyond = {"61m"}},
	{.key = "fastopen",
		.good = {"0", "65535"},
		.bad = {"", "on", "-1"},
		.beyond = {"65536"}},
	{.key = "user_timeout",
		.good = {"off", "1ms", "30s"},
		.same = {{"1500ms", "1.5s"}},
		.bad = {"", "5", "1us"},
		.beyond = {"25h"}},
	{.key = "maxseg",
		.good = {"88", "32767"},
		.bad = {"", "x"},
		.beyond = {"0", "87", "32768"}},
};
/* clang-format on */

static const struct row *row_of(const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (streq(rows[i].key, key))
			return &rows[i];
	return NULL;
}

START_TEST(values)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];

		for (size_t k = 0; k < ARRAY_SIZE(row->good) && row->good[k]; k++) {
			_cleanup_free_ char *got = answer(row->key, row->good[k]);

			ck_assert_str_eq(got, row->good[k]);
		}
		for (size_t k = 0; k < ARRAY_SIZE(row->same) && row->same[k][0]; k++) {
			_cleanup_free_ char *got = answer(row->key, row->same[k][0]);

			ck_assert_str_eq(got, row->same[k][1]);
		}
		for (size_t k = 0; k < ARRAY_SIZE(row->bad) && row->bad[k]; k++) {
			_cleanup_free_ char *got = answer(row->key, row->bad[k]);

			ck_assert_msg(!strstr(got, "not between") && strchr(got, ' '), "%s: %s: %s",
				row->key, row->bad[k], got);
		}
		for (size_t k = 0; k < ARRAY_SIZE(row->beyond) && row->beyond[k]; k++) {
			_cleanup_free_ char *got = answer(row->key, row->beyond[k]);

			ck_assert_msg(strstr(got, "is not between"), "%s: %s: %s", row->key,
				row->beyond[k], got);
		}
	}
}
END_TEST

/* Those that are not in the rows above are kept elsewhere, or cannot be had. */
START_TEST(every_key)
{
	for (unsigned i = 0; i < SOCKET_OPTIONS_N; i++) {
		const struct socket_option_info *info = socket_option_info(i);
		enum socket_option option;

		ck_assert_ptr_nonnull(info->key);
		ck_assert_ptr_nonnull(info->kernel);
		ck_assert_int_ne((int)info->fits, 0);
		ck_assert_int_eq(socket_option_from_key(info->key, &option), 0);
		ck_assert_uint_eq(option, i);
		if (i == OPTION_V6ONLY || i == OPTION_BACKLOG || i == OPTION_MULTICAST) {
			ck_assert_ptr_null(row_of(info->key));
			continue;
		}
		if (i == OPTION_SNDLOWAT) {
			_cleanup_free_ char *got = answer("sndlowat", "1");

			ck_assert_str_eq(got, "sndlowat cannot be set on Linux, where it is always "
					      "1 (SO_SNDLOWAT); leave it out");
			continue;
		}
		ck_assert_msg(row_of(info->key), "%s: not tested", info->key);
	}
	ck_assert_int_eq(socket_option_from_key("nothing", &(enum socket_option){0}), -EINVAL);
}
END_TEST

START_TEST(kinds_of_sockets)
{
	static const char *const tcp_only[] = {"rcvlowat", "keepalive", "keepidle", "keepintvl",
		"keepcnt", "linger", "oobinline", "nodelay", "defer_accept", "fastopen",
		"congestion", "user_timeout", "maxseg", "backlog", NULL};
	static const char *const udp_only[] = {
		"broadcast", "multicast", "multicast_ttl", "multicast_loop", "rxq_ovfl", NULL};
	struct address tcp4 = address_of("127.0.0.1:1"), tcp6 = address_of("[::]:1"),
		       udp4 = address_of("udp:127.0.0.1:1"), udp6 = address_of("udp:[::1]:1"),
		       path = address_of("unix:/x");

	for (unsigned i = 0; i < SOCKET_OPTIONS_N; i++) {
		const char *key = socket_option_info(i)->key;
		bool tcp = true, udp = true, v4 = true;

		for (size_t k = 0; tcp_only[k]; k++)
			udp = udp && !streq(tcp_only[k], key);
		for (size_t k = 0; udp_only[k]; k++)
			tcp = tcp && !streq(udp_only[k], key);
		v4 = !streq(key, "v6only") && !streq(key, "tclass");
		ck_assert_msg(!socket_option_misfit(i, &tcp6) == tcp, "%s", key);
		ck_assert_msg(!socket_option_misfit(i, &udp6) == udp, "%s", key);
		ck_assert_msg(!socket_option_misfit(i, &tcp4) == (tcp && v4), "%s", key);
		ck_assert_msg(!socket_option_misfit(i, &udp4) == (udp && v4), "%s", key);
		ck_assert_msg(!socket_option_misfit(i, &path) ==
				      (streq(key, "backlog") || streq(key, "nonblocking")),
			"%s", key);
		ck_assert_ptr_null(socket_option_misfit(i, NULL));
	}
	ck_assert_str_eq(
		socket_option_misfit(OPTION_NODELAY, &udp4), "is for TCP, this is a UDP address");
	ck_assert_str_eq(
		socket_option_misfit(OPTION_RXQ_OVFL, &tcp4), "is for UDP, this is a TCP address");
	ck_assert_str_eq(
		socket_option_misfit(OPTION_TCLASS, &tcp4), "is for IPv6, this is an IPv4 address");
}
END_TEST

static void expect_kernel(enum socket_option option, const char *address, bool v6only,
	const int (*expected)[2], size_t n)
{
	struct socket_option_setting s = {.option = option, .value = 9};
	struct address a = address_of(address);
	struct sockopt list[2];

	ck_assert_uint_eq(socket_option_kernel(&s, &a, v6only, list), n);
	for (size_t i = 0; i < n; i++) {
		ck_assert_int_eq(list[i].level, expected[i][0]);
		ck_assert_int_eq(list[i].name, expected[i][1]);
		ck_assert_int_eq(list[i].value, 9);
		ck_assert_uint_eq(list[i].tag, option);
	}
}

START_TEST(families)
{
	static const int both[][2] = {
		{IPPROTO_IPV6, IPV6_TCLASS},
		     {IPPROTO_IP,	  IP_TOS	}
	 };
	static const int hops[][2] = {
		{IPPROTO_IPV6, IPV6_UNICAST_HOPS},
		   {IPPROTO_IP,	IP_TTL	      }
	       };
	static const int freebind[][2] = {
		{IPPROTO_IPV6, IPV6_FREEBIND},
		       {IPPROTO_IP,   IP_FREEBIND  }
	};
	static const int mark[][2] = {
		{SOL_SOCKET, SO_MARK}
	     };
	struct sockopt o = {.level = IPPROTO_IPV6, .name = IPV6_TCLASS};
	_cleanup_free_ char *v6 = socket_option_kernel_name(OPTION_TOS, &o), *v4 = NULL;

	expect_kernel(OPTION_TOS, "[::]:1", false, both, 2);
	expect_kernel(OPTION_TOS, "[::]:1", true, both, 1);
	expect_kernel(OPTION_TOS, "0.0.0.0:1", false, &both[1], 1);
	expect_kernel(OPTION_TTL, "udp:[::]:1", false, hops, 2);
	/* One flag of the kernel's, by two names. */
	expect_kernel(OPTION_FREEBIND, "[::]:1", false, freebind, 1);
	expect_kernel(OPTION_FREEBIND, "1.2.3.4:1", false, &freebind[1], 1);
	expect_kernel(OPTION_MARK, "[::]:1", false, mark, 1);
	expect_kernel(OPTION_MARK, "unix:/x", false, mark, 0);
	ck_assert_str_eq(v6, "IPV6_TCLASS");
	o = (struct sockopt){.level = IPPROTO_IP, .name = IP_TOS};
	v4 = socket_option_kernel_name(OPTION_TOS, &o);
	ck_assert_str_eq(v4, "IP_TOS");
}
END_TEST

START_TEST(sets)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct socket_options a = {0}, b = {0};
	const struct config_place place = {.file = "f", .line = 3};

	ck_assert_int_eq(socket_options_parse(&a, OPTION_NODELAY, "on", place, &error), 0);
	ck_assert_int_eq(socket_options_parse(&a, OPTION_TOS, "8", place, &error), 0);
	ck_assert_int_eq(socket_options_parse(&a, OPTION_PRIORITY, "1", place, &error), 0);
	ck_assert_int_eq(socket_options_parse(&a, OPTION_TOS, "16", place, &error), 0);
	ck_assert_int_eq(socket_options_parse(&a, OPTION_CONGESTION, "bbr", place, &error), 0);
	ck_assert_int_eq(socket_options_add_group(&a, "239.1.2.3%eth0", NULL, &error), 0);
	/* The later value counts; a type of service comes before the priority that it would set. */
	ck_assert_uint_eq(a.n, 4);
	ck_assert_int_eq(a.list[0].option, OPTION_TOS);
	ck_assert_int_eq(a.list[1].option, OPTION_PRIORITY);
	ck_assert_int_eq(socket_options_value(&a, OPTION_TOS, -1), 16);
	ck_assert_int_eq(socket_options_value(&a, OPTION_TTL, -1), -1);
	ck_assert_uint_eq(a.list[0].place.line, 3);

	ck_assert_int_eq(socket_options_copy(&a, &b), 0);
	for (unsigned i = 0; i < SOCKET_OPTIONS_N; i++)
		ck_assert(socket_options_same(&a, &b, i));
	ck_assert_ptr_null(b.list[0].place.file);
	b.list[0].value = 8;
	memcpy(b.list[3].text, "reno", 5);
	b.groups[0].interface[0] = 'w';
	ck_assert(!socket_options_same(&a, &b, OPTION_TOS));
	ck_assert(!socket_options_same(&a, &b, OPTION_CONGESTION));
	ck_assert(!socket_options_same(&a, &b, OPTION_MULTICAST));
	ck_assert(socket_options_same(&a, &b, OPTION_NODELAY));
	ck_assert(socket_options_same(&a, &b, OPTION_TTL));
	socket_options_done(&b);
	ck_assert(!socket_options_same(&a, &b, OPTION_NODELAY));
	ck_assert(!socket_options_same(&a, &b, OPTION_MULTICAST));
	ck_assert(socket_options_spread(&a) && !socket_options_spread(&b));
	ck_assert_int_eq(socket_options_set(&b, OPTION_BROADCAST, 0, NULL, nowhere), 0);
	ck_assert(!socket_options_spread(&b));
	ck_assert_int_eq(socket_options_set(&b, OPTION_BROADCAST, 1, NULL, nowhere), 0);
	ck_assert(socket_options_spread(&b));
	socket_options_done(&a);
	socket_options_done(&b);
}
END_TEST

START_TEST(groups)
{
	static const char *const bad[] = {"10.0.0.1", "240.0.0.1", "::1", "fe80::1", "",
		"239.1.2.3%", "239.1.2.3%a/b", "239.1.2.3%a234567890123456", "x%eth0"};
	struct socket_options o = {0};
	struct sockopt kernel;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_error_ struct error error = ERROR_NULL;

		ck_assert_msg(socket_options_add_group(&o, bad[i], NULL, &error) == -EINVAL, "%s",
			bad[i]);
		ck_assert_ptr_nonnull(strstr(error_message(&error), "multicast: "));
	}
	ck_assert_int_eq(socket_options_add_group(&o, "239.1.2.3", "eth0", NULL), 0);
	ck_assert_int_eq(socket_options_add_group(&o, "239.1.2.3%eth0", NULL, NULL), -EINVAL);
	ck_assert_int_eq(socket_options_add_group(&o, "239.1.2.3", NULL, NULL), 0);
	ck_assert_int_eq(socket_options_add_group(&o, "ff05::1:3%lo", NULL, NULL), 0);
	for (unsigned i = 3; i < MULTICAST_GROUPS_MAX; i++) {
		char text[32];

		(void)snprintf(text, sizeof(text), "239.0.0.%u", i);
		ck_assert_int_eq(socket_options_add_group(&o, text, NULL, NULL), 0);
	}
	ck_assert_int_eq(socket_options_add_group(&o, "239.9.9.9", NULL, NULL), -ERANGE);
	for (size_t i = 0; i < 3; i++) {
		static const char *const shown[] = {"239.1.2.3%eth0", "239.1.2.3", "ff05::1:3%lo"};
		_cleanup_free_ char *text = multicast_group_format(&o.groups[i]);

		ck_assert_str_eq(text, shown[i]);
	}
	multicast_group_kernel(&o.groups[0], true, &kernel);
	ck_assert_int_eq(kernel.type, SOCKOPT_LEAVE);
	ck_assert_int_eq(kernel.family, AF_INET);
	ck_assert_str_eq(kernel.text, "eth0");
	ck_assert_int_eq(memcmp(kernel.group, (uint8_t[]){239, 1, 2, 3}, 4), 0);
	socket_options_done(&o);
}
END_TEST

/* By its own key, or by one that decides about it as well. */
START_TEST(has)
{
	static const struct {
		enum socket_option asked, other;
		bool has;
	} asks[] = {
		{OPTION_TTL,	     OPTION_TTL,		 true },
		{OPTION_TTL,	     OPTION_TOS,		 false},
		{OPTION_RCVBUF,	OPTION_RCVBUF_FORCE, true },
		{OPTION_RCVBUF_FORCE, OPTION_RCVBUF,	     true },
		{OPTION_SNDBUF,	OPTION_SNDBUF_FORCE, true },
		{OPTION_SNDBUF,	OPTION_RCVBUF,       false},
		{OPTION_TOS,	     OPTION_TCLASS,	    true },
		{OPTION_TOS,	     OPTION_PRIORITY,     true },
		{OPTION_TCLASS,	OPTION_TOS,	    false},
		{OPTION_PRIORITY,	  OPTION_TOS,	      false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
		struct socket_options o = {0};

		ck_assert_int_eq(
			socket_options_set(&o, asks[i].asked, 1, NULL, (struct config_place){0}),
			0);
		ck_assert_int_eq(socket_options_has(&o, asks[i].other), asks[i].has);
		socket_options_done(&o);
	}
}
END_TEST

START_TEST(deferred)
{
	static const int64_t seconds[][2] = {
		{0,    0   },
		{1,    1   },
		{2,    3   },
		{3,    3   },
		{4,    7   },
		{7,    7   },
		{8,    15  },
		 {60,   63	},
		   {64,	127 },
		{128,  247 },
		    {3600, 3607}
	};

	for (size_t i = 0; i < ARRAY_SIZE(seconds); i++) {
		struct socket_options o = {0};

		ck_assert_int_eq(
			socket_options_set(&o, OPTION_DEFER_ACCEPT, seconds[i][0], NULL, nowhere),
			0);
		ck_assert_uint_eq(
			socket_options_defer_usec(&o), (uint64_t)seconds[i][1] * USEC_PER_SEC);
		socket_options_done(&o);
	}
	ck_assert_uint_eq(socket_options_defer_usec(&(struct socket_options){0}), 0);
}
END_TEST

START_TEST(refusals)
{
	/* clang-format off */
	static const struct {
		enum socket_option option;
		int64_t value;
		const char *text;
		int code;
		const char *parts[3];
	} cases[] = {
		{OPTION_MARK, 7, NULL, -EPERM, {"mark: 0x7 (SO_MARK) is refused: ", "it needs CAP_NET_ADMIN", "AmbientCapabilities=CAP_NET_ADMIN"}},
		{OPTION_PRIORITY, 7, NULL, -EPERM, {"priority: 7 (SO_PRIORITY)", "more than 6 needs CAP_NET_ADMIN"} },
		{OPTION_CONGESTION, 0, "bbr2", -ENOENT, {"congestion: bbr2 (TCP_CONGESTION)", "no algorithm \"bbr2\"", "tcp_bbr2"} },
		{OPTION_CONGESTION, 0, "x", -EPERM, {"tcp_allowed_congestion_control"} },
		{OPTION_BINDTODEVICE, 0, "eth9", -ENODEV, {"bindtodevice: eth9 (SO_BINDTODEVICE)", "no network interface \"eth9\""} },
		{OPTION_MULTICAST, 0, "eth9", -ENODEV, {"multicast: ", "no network interface \"eth9\""} },
		{OPTION_MULTICAST, 0, "", -ENODEV, {"name one"} },
		{OPTION_MULTICAST, 0, "", -ENOBUFS, {"igmp_max_memberships"} },
		{OPTION_BUSY_POLL, 50, NULL, -ENOPROTOOPT, {"busy_poll: 50us (SO_BUSY_POLL)", "leave it out"} },
		{OPTION_MAXSEG, 99, NULL, -EINVAL, {"maxseg: 99", "does not take this value"} },
	};
	/* clang-format on */

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *text = socket_option_refusal(
			cases[i].option, cases[i].value, cases[i].text, cases[i].code);

		ck_assert_ptr_nonnull(strstr(text, strerror(-cases[i].code)));
		for (size_t k = 0; k < 3 && cases[i].parts[k]; k++)
			ck_assert_msg(strstr(text, cases[i].parts[k]), "\"%s\" not in \"%s\"",
				cases[i].parts[k], text);
	}
}
END_TEST

START_TEST(notes)
{
	static const struct socket_option_limits limits = {
		.rmem_max = 212992, .wmem_max = 212992, .somaxconn = 4096};
	/* clang-format off */
	static const struct {
		enum socket_option option;
		int64_t wanted, actual;
		const char *note;
	} cases[] = {
		{OPTION_RCVBUF, 65536, 131072, "the kernel doubles it" },
		{OPTION_RCVBUF, 8388608, 425984, "net.core.rmem_max is 208K; the kernel doubles it"},
		{OPTION_SNDBUF, 425984, 425984, "net.core.wmem_max is 208K; the kernel doubles it"},
		{OPTION_SNDBUF, 1024, 4608, "the least that the kernel takes" },
		{OPTION_RCVBUF, 65536, 70000, NULL },
		{OPTION_RCVBUF_FORCE, 65536, 131072, "the kernel doubles it" },
		{OPTION_BACKLOG, 65536, 4096, "net.core.somaxconn is 4096" },
		{OPTION_BACKLOG, 4096, 4096, NULL },
		{OPTION_BACKLOG, 1000, 10, NULL },
		{OPTION_FASTOPEN, 65535, 4096, "net.core.somaxconn is 4096" },
		{OPTION_DEFER_ACCEPT, 5, 7, "the kernel rounds up" },
		{OPTION_TOS, 43, 40, "two lowest bits" },
		{OPTION_TOS, 43, 0, NULL },
		{OPTION_RCVLOWAT, 9999999, 65536, "half of the receive buffer" },
		{OPTION_RCVTIMEO, 1501000, 1504000, "ticks" },
		{OPTION_KEEPIDLE, 60, 60, NULL },
		{OPTION_KEEPIDLE, 60, 61, NULL },
	};
	/* clang-format on */

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *note = socket_option_note(
			cases[i].option, cases[i].wanted, cases[i].actual, &limits);

		if (cases[i].note)
			ck_assert_msg(note && strstr(note, cases[i].note), "%zu: %s", i,
				note ? note : "nothing");
		else
			ck_assert_msg(!note, "%zu: %s", i, note);
	}
}
END_TEST

START_TEST(from_the_kernel)
{
	/* A mark uses all bits of an int. */
	ck_assert_int_eq(socket_option_from_kernel(OPTION_MARK, -1), UINT32_MAX);
	ck_assert_int_eq(socket_option_from_kernel(OPTION_DEBUG, 8), 1);
	ck_assert_int_eq(socket_option_from_kernel(OPTION_INCOMING_CPU, -1), -1);
}
END_TEST

int main(void)
{
	const TTest *tests[] = {values, every_key, kinds_of_sockets, families, sets, groups, has,
		deferred, refusals, notes, from_the_kernel};

	return run_tests("socket_options", tests, ARRAY_SIZE(tests));
}

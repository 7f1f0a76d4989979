/* SPDX-License-Identifier: Apache-2.0 */
/* Compiled programs in the kernel, over loopback: what the interpreter of
 * tests/unit/test_steering.c says must be what real connections do. */
#include <math.h>

#include "core/steering.h"
#include "group.h"

enum { OLD = 4, NEW = 4, CONNECTIONS = 4000 };

static const uint32_t old[OLD] = {0, 1, 2, 3}, new[NEW] = {4, 5, 6, 7}, probed[] = {6};
static struct sock_filter code[STEERING_INSTRUCTIONS_MAX];

/* The listeners that a configuration can have, and where their clients come from. */
static const struct {
	const char *address;
	bool v6only;
	const char *sources[2];
} listeners[] = {
	{"tcp:127.0.0.1:0", false, {"127.0.0.1"}	},
	{"tcp:0.0.0.0:0",	  false, {"127.0.0.1"}	      },
	{"tcp:[::1]:0",	true,  {"::1"}	     },
	{"tcp:[::]:0",      true,  {"::1"}		    },
	{"tcp:[::]:0",      false, {"::1", "127.0.0.1"}},
	{"udp:127.0.0.1:0", false, {"127.0.0.1"}	},
	{"udp:[::1]:0",	true,  {"::1"}	     },
	{"udp:[::]:0",      false, {"::1", "127.0.0.1"}},
};

static void steer(const struct group *g, const struct steering *s)
{
	size_t n;

	ck_assert_int_eq(steering_compile(s, code, &n), 0);
	ck_assert_int_eq(listen_steer(g->fds[0], code, n), 0);
}

static struct steering two_lanes(unsigned weight_of_new)
{
	return (struct steering){
		.n_lanes = 2,
		.lanes = {{10000 - weight_of_new, old, OLD, NULL, STEERING_RANDOM},
			  {weight_of_new, new, NEW, NULL, STEERING_RANDOM}}
	 };
}

static struct steering_rule rule(
	const char *source, uint16_t port, const uint32_t *indices, size_t n)
{
	struct steering_rule r = {.source_port = port, .indices = indices, .n_indices = n};

	r.family = strchr(source, ':') ? AF_INET6 : AF_INET;
	ck_assert_int_eq(inet_pton(r.family, source, r.source), 1);
	return r;
}

static void check_share(unsigned hits, double share, unsigned n, const char *what)
{
	double expected = share * n, sigma = sqrt(n * share * (1 - share));

	ck_assert_msg(fabs(hits - expected) <= 5 * sigma + 1e-9,
		"%s: %u of %u, expected %.1f, sigma %.1f", what, hits, n, expected, sigma);
}

static void check_weight(struct group *g, const char *source, unsigned weight, unsigned n)
{
	struct steering s = two_lanes(weight);
	unsigned hits[OLD + NEW], n_new = 0;

	steer(g, &s);
	group_load(g, source, n, hits);
	for (unsigned i = 0; i < OLD + NEW; i++) {
		bool is_new = i >= OLD;

		check_share(hits[i], (is_new ? weight : 10000 - weight) / 10000.0 / 4, n, source);
		n_new += is_new ? hits[i] : 0;
	}
	check_share(n_new, weight / 10000.0, n, source);
}

START_TEST(weights)
{
	static const unsigned shares[] = {0, 500, 5000, 10000};

	for (size_t i = 0; i < ARRAY_SIZE(listeners); i++) {
		_cleanup_(group_close) struct group g;
		unsigned n = listeners[i].sources[1] ? CONNECTIONS / 2 : CONNECTIONS;

		group_open(&g, listeners[i].address, listeners[i].v6only, OLD + NEW);
		for (size_t j = 0; j < ARRAY_SIZE(shares); j++)
			for (size_t k = 0; k < 2 && listeners[i].sources[k]; k++)
				check_weight(&g, listeners[i].sources[k], shares[j],
					shares[j] % 10000 == 0 ? 300 : n);
	}
}
END_TEST

/* A probe with this port: the rule names it, or (change) a port that differs in these bits. */
static unsigned probe(struct group *g, const char *source, uint16_t change)
{
	struct steering s = two_lanes(0);
	uint16_t port = 0;
	_cleanup_close_ int client = group_client(g, source, &port);

	s.n_rules = 1;
	s.rules[0] = rule(source, port ^ change, probed, 1);
	steer(g, &s);
	return group_reach_by(g, client, s.rules[0].family);
}

/* A probe, known by its address and port, reaches the socket it names at weight 0; its neighbours
 * do not. */
START_TEST(probes_by_source_port)
{
	for (size_t i = 0; i < ARRAY_SIZE(listeners); i++) {
		_cleanup_(group_close) struct group g;

		group_open(&g, listeners[i].address, listeners[i].v6only, OLD + NEW);
		for (size_t k = 0; k < 2 && listeners[i].sources[k]; k++) {
			const char *source = listeners[i].sources[k];

			for (unsigned round = 0; round < 20; round++)
				ck_assert_uint_eq(probe(&g, source, 0), 6);
			for (unsigned bit = 0; bit < 15; bit++)
				ck_assert_uint_lt(probe(&g, source, (uint16_t)(1U << bit)), OLD);
		}
	}
}
END_TEST

/* preview_from: everything from that address goes to the new lane, to all of its sockets; nothing
 * else does. */
START_TEST(previews_by_source_address)
{
	static const struct {
		const char *listener, *preview, *other;
		bool v6only;
	} cases[] = {
		{"tcp:0.0.0.0:0",	  "127.0.0.2", "127.0.0.1", false},
		{"tcp:127.0.0.1:0", "127.0.0.2", "127.0.0.3", false},
		{"tcp:[::]:0",      "127.0.0.2", "127.0.0.1", false},
		{"tcp:[::]:0",      "127.0.0.2", "::1",	   false},
		{"tcp:[::]:0",      "::1",	      "127.0.0.2", false},
		{"tcp:[::1]:0",	"::1",       NULL,	     true },
		{"udp:[::]:0",      "127.0.0.2", "127.0.0.1", false},
		{"udp:[::]:0",      "::1",	      "127.0.0.1", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(group_close) struct group g;
		struct steering s = two_lanes(0);
		unsigned hits[OLD + NEW];

		group_open(&g, cases[i].listener, cases[i].v6only, OLD + NEW);
		s.n_rules = 2;
		s.rules[0] = rule("192.0.2.1", 0, old, OLD);
		s.rules[1] = rule(cases[i].preview, 0, new, NEW);
		steer(&g, &s);
		group_load(&g, cases[i].preview, 1000, hits);
		for (unsigned j = 0; j < OLD + NEW; j++)
			check_share(hits[j], j < OLD ? 0 : 0.25, 1000, "preview");
		if (!cases[i].other)
			continue;
		group_load(&g, cases[i].other, 1000, hits);
		for (unsigned j = 0; j < OLD + NEW; j++)
			check_share(hits[j], j < OLD ? 0.25 : 0, 1000, "others");
	}
}
END_TEST

/* With IP options the port is not where it usually is: the rule must not match what stands there,
 * nor leave the packet. */
START_TEST(options_move_the_port)
{
	static const uint8_t options[40] = {[0 ... 39] = 1}; /* all "no operation" */
	_cleanup_(group_close) struct group g;
	struct steering s = two_lanes(0);

	group_open(&g, "tcp:127.0.0.1:0", false, OLD + NEW);
	s.n_rules = 1;
	for (socklen_t len = 0; len <= 40; len += 20) {
		for (unsigned kind = 0; kind < 3; kind++) {
			uint16_t port = 0;
			_cleanup_close_ int client = group_client(&g, "127.0.0.1", &port);
			/* By address; by its port; by what stands in its place. */
			uint16_t ports[3] = {0, port, 0x0101};
			bool expect_new = kind == 0 || (kind == 1 && len == 0);

			ck_assert_int_eq(
				setsockopt(client, IPPROTO_IP, IP_OPTIONS, options, len), 0);
			s.rules[0] = rule("127.0.0.1", ports[kind], new, NEW);
			steer(&g, &s);
			ck_assert_int_eq(group_reach_by(&g, client, AF_INET) >= OLD, expect_new);
		}
	}
}
END_TEST

/* Programs of every length that a group needs: 260 sockets in two lanes that alternate, each
 * reached. */
START_TEST(many_sockets)
{
	enum { N = 260 };
	_cleanup_(group_close) struct group g;
	uint32_t even[N / 2], odd[N / 2];
	unsigned hits[N];
	struct steering s = {
		.n_lanes = 2,
		.lanes = {{7500, even, N / 2, NULL, STEERING_RANDOM},
			  {2500, odd, N / 2, NULL, STEERING_RANDOM}}
	  };

	for (uint32_t i = 0; i < N / 2; i++) {
		even[i] = 2 * i;
		odd[i] = 2 * i + 1;
	}
	group_open(&g, "tcp:127.0.0.1:0", false, N);
	s.n_rules = STEERING_RULES_MAX;
	for (size_t i = 0; i < STEERING_RULES_MAX; i++)
		s.rules[i] = rule(i % 2 ? "127.0.0.1" : "::1", (uint16_t)(1 + i), odd + i, 1);
	steer(&g, &s);
	group_load(&g, "127.0.0.1", 3 * CONNECTIONS, hits);
	for (unsigned i = 0; i < N; i++)
		check_share(
			hits[i], (i % 2 ? 0.25 : 0.75) / (N / 2), 3 * CONNECTIONS, "one of many");
}
END_TEST

/* The kernel charges a program to the socket's option memory. Until that is full every program we
 * can make is taken. */
START_TEST(longest_programs)
{
	static uint32_t scattered[2][512];
	_cleanup_(group_close) struct group g;
	struct steering s = {
		.n_lanes = 2,
		.lanes = {{5000, scattered[0], 1, NULL, STEERING_RANDOM},
			  {5000, scattered[1], 1, NULL, STEERING_RANDOM}}
	       };
	size_t n, n_longest = 0;
	unsigned long memory;
	FILE *f = fopen("/proc/sys/net/core/optmem_max", "re");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fscanf(f, "%lu", &memory), 1);
	ck_assert_int_eq(fclose(f), 0);
	for (uint32_t i = 0; i < 512; i++) {
		scattered[0][i] = 2 * i;
		scattered[1][i] = 2 * i + 1;
	}
	group_open(&g, "tcp:127.0.0.1:0", false, 2);
	for (size_t i = 1; i <= 512; i++) {
		int r;

		s.lanes[0].n_indices = s.lanes[1].n_indices = i;
		ck_assert_int_eq(steering_compile(&s, code, &n), 0);
		r = listen_steer(g.fds[0], code, n);
		if (r == -ENOMEM && n * 12 > memory / 2)
			break; /* each becomes one to several instructions of 8 bytes */
		ck_assert_int_eq(r, 0);
		n_longest = n;
	}
	ck_assert_uint_gt(n_longest, 1000);
}
END_TEST

static const char *source_of(unsigned i, char ret[static 16])
{
	snprintf(ret, 16, "127.%u.%u.%u", 3 + i % 5, i / 250, 1 + i % 250);
	return ret;
}

/* Many clients, three times each while the new lane's share grows: each stays where it is, or goes
 * over to the new lane, once. */
static void check_clients(const char *address, bool v6only)
{
	static const unsigned shares[] = {0, 500, 2500, 9900};
	enum { CLIENTS = 600 };
	_cleanup_(group_close) struct group g;
	unsigned before[CLIENTS] = {0};

	group_open(&g, address, v6only, OLD + NEW);
	for (size_t i = 0; i < ARRAY_SIZE(shares); i++) {
		struct steering s = {.lane_draw = STEERING_CLIENT, .seed = 3, .n_lanes = 2};
		unsigned n_new = 0;

		s.lanes[0] = (struct steering_lane){shares[i], new, NEW, NULL, STEERING_CLIENT};
		s.lanes[1] =
			(struct steering_lane){10000 - shares[i], old, OLD, NULL, STEERING_CLIENT};
		steer(&g, &s);
		for (unsigned c = 0; c < CLIENTS; c++) {
			char source[16];
			unsigned now = group_reach(&g, source_of(c, source), 0);

			REQUIRE(group_reach(&g, source, 0) == now);
			REQUIRE(group_reach(&g, source, 0) == now);
			REQUIRE(i == 0 || now == before[c] || (before[c] < OLD && now >= OLD));
			before[c] = now;
			n_new += now >= OLD;
		}
		check_share(n_new, shares[i] / 10000.0, CLIENTS, address);
	}
}

START_TEST(clients_stay)
{
	check_clients("tcp:127.0.0.1:0", false);
	check_clients("tcp:0.0.0.0:0", false);
	check_clients("tcp:[::]:0", false);
	check_clients("udp:0.0.0.0:0", false);
	check_clients("udp:[::]:0", false);
}
END_TEST

/* All datagrams of a flow to one socket; the flows of one client to all. */
START_TEST(flows_stay)
{
	static const char *const addresses[] = {"udp:127.0.0.1:0", "udp:[::]:0"};

	for (size_t i = 0; i < 2 * ARRAY_SIZE(addresses); i++) {
		const char *source = i < 3 ? "127.0.0.1" : "::1";
		struct steering s = {.n_lanes = 1};
		_cleanup_(group_close) struct group g;
		unsigned hits[OLD] = {0};

		group_open(&g, addresses[i / 2], false, OLD + NEW);
		s.lanes[0] = (struct steering_lane){10000, old, OLD, NULL, STEERING_FLOW};
		steer(&g, &s);
		for (unsigned flow = 0; flow < 400; flow++) {
			uint16_t port = 0;
			_cleanup_close_ int client = group_client(&g, source, &port);
			int family = strchr(source, ':') ? AF_INET6 : AF_INET;
			unsigned first = group_reach_by(&g, client, family);

			REQUIRE(first < OLD);
			for (unsigned again = 0; again < 3; again++)
				REQUIRE(group_reach_by(&g, client, family) == first);
			hits[first]++;
		}
		for (unsigned j = 0; j < OLD; j++)
			check_share(hits[j], 0.25, 400, "flows");
	}
}
END_TEST

static void run_on(const cpu_set_t *cpus)
{
	REQUIRE(sched_setaffinity(0, sizeof(*cpus), cpus) == 0);
}

/* On loopback a connection arrives on the CPU of its client: it comes to that CPU's socket, and
 * says so (SO_INCOMING_CPU). From a CPU that has none it comes to any. */
START_TEST(by_cpu)
{
	uint32_t cpus[OLD], n_cpus = 0;
	struct steering s = {.n_lanes = 1};
	_cleanup_(group_close) struct group g;
	cpu_set_t ours, one;

	REQUIRE(sched_getaffinity(0, sizeof(ours), &ours) == 0);
	for (uint32_t cpu = 0; cpu < CPU_SETSIZE && n_cpus < OLD; cpu++)
		if (CPU_ISSET(cpu, &ours))
			cpus[n_cpus++] = cpu;
	/* Those that are left are on CPUs that are not ours. */
	for (uint32_t i = n_cpus; i < OLD; i++)
		cpus[i] = 5000 + i;
	group_open(&g, "tcp:[::]:0", false, OLD + NEW);
	s.lanes[0] = (struct steering_lane){10000, new, NEW, cpus, STEERING_CPU};
	steer(&g, &s);
	for (uint32_t i = 0; i < n_cpus; i++) {
		uint32_t cpu = cpus[i];

		CPU_ZERO(&one);
		CPU_SET(cpus[i], &one);
		run_on(&one);
		for (unsigned again = 0; again < 100; again++)
			REQUIRE(group_reach(&g, again % 2 ? "::1" : "127.0.0.1", 0) == OLD + i);
		/* Nobody is on this CPU any more. */
		cpus[i] = 6000 + i;
		steer(&g, &s);
		for (unsigned again = 0; again < 50; again++)
			REQUIRE(group_reach(&g, "127.0.0.1", 0) >= OLD);
		cpus[i] = cpu;
		steer(&g, &s);
		run_on(&ours);
	}
}
END_TEST

START_TEST(incoming_cpu)
{
	static const uint32_t first[] = {0, 1};
	uint32_t cpus[2] = {5000, 5001}, n = 0;
	struct steering s = {.n_lanes = 1};
	_cleanup_(group_close) struct group g;
	cpu_set_t ours, one;

	REQUIRE(sched_getaffinity(0, sizeof(ours), &ours) == 0);
	for (uint32_t cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
		if (CPU_ISSET(cpu, &ours))
			cpus[n++] = cpu;
	group_open(&g, "tcp:127.0.0.1:0", false, 2);
	s.lanes[0] = (struct steering_lane){10000, first, 2, cpus, STEERING_CPU};
	steer(&g, &s);
	for (uint32_t i = 0; i < 100 * n; i++) {
		uint32_t at = i % n;
		uint16_t port = 0;
		_cleanup_close_ int client = -1, accepted = -1;
		int cpu = -1;
		socklen_t len = sizeof(cpu);

		CPU_ZERO(&one);
		CPU_SET(cpus[at], &one);
		run_on(&one);
		client = group_client(&g, "127.0.0.1", &port);
		group_knock(&g, client, AF_INET);
		accepted = accept4(g.fds[at], NULL, NULL, SOCK_CLOEXEC);
		REQUIRE(accepted >= 0);
		REQUIRE(getsockopt(accepted, SOL_SOCKET, SO_INCOMING_CPU, &cpu, &len) == 0);
		REQUIRE(cpu == (int)cpus[at]);
	}
	run_on(&ours);
}
END_TEST

/* All packets with an extension header in front, which only the privileged may ask for. */
static void check_extension_headers(struct group *g)
{
	static const uint8_t padding[8] = {[2] = 1, 4};
	struct steering s = two_lanes(0);

	s.n_rules = 1;
	for (unsigned by_address = 0; by_address < 2; by_address++) {
		_cleanup_close_ int client = -1;
		uint16_t port = 0;

		client = group_client(g, "::1", &port);
		REQUIRE(setsockopt(client, IPPROTO_IPV6, IPV6_DSTOPTS, padding, sizeof(padding)) ==
			0);
		s.rules[0] = rule("::1", by_address ? 0 : port, new, NEW);
		steer(g, &s);
		REQUIRE((group_reach_by(g, client, AF_INET6) >= OLD) == (by_address != 0));
	}
}

/* In a network of its own: with SYN cookies the program runs at the last packet of the handshake,
 * not at the first. */
static void in_own_network(void)
{
	for (unsigned cookies = 0; cookies <= 2; cookies++) {
		char text[2] = {(char)('0' + cookies), 0};

		group_write_proc("/proc/sys/net/ipv4/tcp_syncookies", text);
		for (unsigned dual = 0; dual < 2; dual++) {
			_cleanup_(group_close) struct group g;
			struct steering s = two_lanes(0);
			uint16_t port = 0;

			group_open(&g, dual ? "tcp:[::]:0" : "tcp:127.0.0.1:0", false, OLD + NEW);
			check_weight(&g, "127.0.0.1", 2500, CONNECTIONS / 2);
			close_fd(group_client(&g, "127.0.0.1", &port));
			s.n_rules = 2;
			s.rules[0] = rule("127.0.0.1", port, probed, 1);
			s.rules[1] = rule("127.0.0.2", 0, new, NEW);
			steer(&g, &s);
			REQUIRE(group_reach(&g, "127.0.0.1", port) == 6);
			REQUIRE(group_reach(&g, "127.0.0.1", 0) < OLD);
			REQUIRE(group_reach(&g, "127.0.0.2", 0) >= OLD);
			if (dual) {
				check_weight(&g, "::1", 2500, CONNECTIONS / 2);
				check_extension_headers(&g);
			}
		}
	}
}

START_TEST(own_network)
{
	group_in_own_network(in_own_network);
}
END_TEST

int main(void)
{
	const TTest *tests[] = {weights, probes_by_source_port, previews_by_source_address,
		options_move_the_port, many_sockets, longest_programs, clients_stay, flows_stay,
		by_cpu, incoming_cpu, own_network};

	/* Thousands of connections beside whatever else the machine does. */
	(void)setenv("CK_DEFAULT_TIMEOUT", "60", 0);
	return run_tests("steering_kernel", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Programs are checked as the kernel would, then run over synthetic packets against what was asked
 * for. */
#include <arpa/inet.h>
#include <math.h>

#include "bpf.h"
#include "core/steering.h"
#include "unit.h"

/* For what is done millions of times: a ck_assert writes to a pipe each time. */
#define REQUIRE(x)                                                                                 \
	do {                                                                                       \
		if (!(x))                                                                          \
			ck_abort_msg("%s", #x);                                                    \
	} while (0)

static struct sock_filter code[STEERING_INSTRUCTIONS_MAX];
static size_t n_code;
static uint64_t seed;

static uint32_t draw(uint32_t n)
{
	return (uint32_t)(bpf_next_random(&seed) % n);
}

static void compile(const struct steering *s)
{
	const char *wrong;

	n_code = 0;
	ck_assert_int_eq(steering_compile(s, code, &n_code), 0);
	wrong = bpf_check(code, n_code);
	ck_assert_msg(!wrong, "%s", wrong);
}

static uint32_t run(const struct bpf_packet *p)
{
	static uint64_t random = 12345;
	struct bpf_run r = {.random = random, .cpu = (uint32_t)(random % 240)};
	uint32_t index = bpf_execute(code, n_code, p, &r);

	random = r.random;
	REQUIRE(!r.out_of_bounds);
	REQUIRE(r.n_draws <= 2);
	return index;
}

/* A packet of any kind that a listener can get, from anywhere. */
static void any_packet(struct bpf_packet *p)
{
	uint8_t source[16];

	for (size_t i = 0; i < sizeof(source); i++)
		source[i] = (uint8_t)draw(256);
	bpf_packet_make(p, draw(2) ? AF_INET : AF_INET6, source, (uint16_t)draw(65536),
		draw(2) ? IPPROTO_TCP : IPPROTO_UDP, (int)draw(2), (uint16_t)draw(65536));
}

static struct bpf_packet packet_from(const char *address, uint16_t port, int protocol)
{
	struct bpf_packet p;
	uint8_t source[16];
	int family = strchr(address, ':') ? AF_INET6 : AF_INET;

	ck_assert_int_eq(inet_pton(family, address, source), 1);
	bpf_packet_make(&p, family, source, port, protocol, BPF_OPTIONS_NONE, 0);
	return p;
}

static struct steering_rule rule(
	const char *address, uint16_t port, const uint32_t *indices, size_t n)
{
	struct steering_rule r = {.source_port = port, .indices = indices, .n_indices = n};

	r.family = strchr(address, ':') ? AF_INET6 : AF_INET;
	ck_assert_int_eq(inet_pton(r.family, address, r.source), 1);
	return r;
}

/* Is `hits` of n draws with chance share within five sigma? (And never when it may never be.) */
static void check_share(uint64_t hits, double share, uint64_t n, const char *what)
{
	double expected = share * (double)n, sigma = sqrt((double)n * share * (1 - share));

	ck_assert_msg(fabs((double)hits - expected) <= 5 * sigma + 1e-9,
		"%s: %lu of %lu, expected %.1f, sigma %.1f", what, (unsigned long)hits,
		(unsigned long)n, expected, sigma);
}

/* Every random number of the first draw, one by one: the shares are exact, not only likely. */
static void check_exact_weights(const unsigned *weights, size_t n)
{
	static const uint32_t indices[STEERING_LANES_MAX] = {
		3, 0, 1, 2, 9, 8, 7, 4, 5, 6, 15, 14, 11, 10, 12, 13};
	struct steering s = {.n_lanes = n};
	struct bpf_packet p = packet_from("192.0.2.1", 1, IPPROTO_TCP);
	unsigned hits[STEERING_LANES_MAX] = {0};

	for (size_t i = 0; i < n; i++)
		s.lanes[i] =
			(struct steering_lane){weights[i], &indices[i], 1, NULL, STEERING_RANDOM};
	compile(&s);
	for (uint32_t i = 0; i < 10000; i++) {
		/* One socket for each lane: the only draw is the lane's. It is replaced by i. */
		struct sock_filter constant = BPF_STMT(BPF_LD | BPF_IMM, i);
		struct bpf_run r = {.random = 1};
		uint32_t index;
		size_t lane = 0;

		if (BPF_CLASS(code[0].code) == BPF_LD)
			code[0] = constant;
		index = bpf_execute(code, n_code, &p, &r);
		while (lane < n && indices[lane] != index)
			lane++;
		REQUIRE(lane < n);
		hits[lane]++;
	}
	for (size_t i = 0; i < n; i++)
		ck_assert_uint_eq(hits[i], weights[i]);
}

START_TEST(weights_are_exact)
{
	static const struct {
		unsigned weights[STEERING_LANES_MAX];
		size_t n;
	} cases[] = {
		{{10000},									  1 },
		{{10000, 0},								       2 },
		{{0, 10000},								       2 },
		{{9999, 1},									2 },
		{{1, 9999},									2 },
		{{9990, 10},								       2 },
		{{5000, 5000},								     2 },
		{{3333, 3333, 3334},							       3 },
		{{0, 2500, 0, 7500, 0},							    5 },
		{{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 9985},			      16},
		{{625, 625, 625, 625, 625, 625, 625, 625, 625, 625, 625, 625, 625, 625, 625, 625},
			16										  },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_exact_weights(cases[i].weights, cases[i].n);
	for (unsigned w = 0; w <= 10000; w += 37) {
		unsigned weights[2] = {10000 - w, w};

		check_exact_weights(weights, 2);
	}
}
END_TEST

/* The second draw is a fresh one: which lane was drawn says nothing about the socket in it. If the
 * first number were used again, a lane of 5 % of the numbers modulo 10000 would never reach some of
 * its sockets evenly. */
START_TEST(draws_are_independent)
{
	static const uint32_t a[] = {0, 1, 2, 3}, b[] = {4, 5, 6, 7};
	struct steering s = {
		.n_lanes = 2,
		.lanes = {{9998, a, 4, NULL, STEERING_RANDOM}, {2, b, 4, NULL, STEERING_RANDOM}}
	};
	struct bpf_packet p = packet_from("192.0.2.1", 1, IPPROTO_TCP);
	uint64_t hits[8] = {0}, n = 4000000;

	compile(&s);
	for (uint64_t i = 0; i < n; i++) {
		uint32_t index = run(&p);

		REQUIRE(index < 8);
		hits[index]++;
	}
	for (size_t i = 0; i < 8; i++)
		check_share(hits[i], (i < 4 ? 0.9998 : 0.0002) / 4, n, "socket");
	for (size_t i = 0; i < n_code; i++)
		ck_assert(BPF_CLASS(code[i].code) != BPF_LD ||
			  code[i].k == (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM));
}
END_TEST

/* Distinct indices in any order: runs, holes, single ones. */
static void any_indices(uint32_t *ret, size_t n, uint32_t *next, unsigned holes)
{
	for (size_t i = 0; i < n; i++) {
		if (draw(100) < holes)
			*next += 1 + draw(3);
		ret[i] = (*next)++;
	}
	for (size_t i = n; i > 1; i--) {
		size_t j = draw((uint32_t)i);
		uint32_t other = ret[j];

		ret[j] = ret[i - 1];
		ret[i - 1] = other;
	}
}

/* Any sets, shuffled among each other like after many moves: each socket gets its part, no other
 * gets anything. */
START_TEST(any_index_sets)
{
	static const size_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 100, 129, 256, 260};

	for (size_t round = 0; round < 3 * ARRAY_SIZE(sizes); round++) {
		size_t n = sizes[round % ARRAY_SIZE(sizes)];
		unsigned weight = 1 + draw(9999), holes = draw(3) * 50;
		uint32_t indices[2 * 260], next = draw(2);
		uint64_t hits[2000] = {0}, n_draws = 40000 + 400 * n;
		struct steering s = {.n_lanes = 2};
		struct bpf_packet p;

		any_indices(indices, 2 * n, &next, holes);
		s.lanes[0] = (struct steering_lane){weight, indices, n, NULL, STEERING_RANDOM};
		s.lanes[1] = (struct steering_lane){
			10000 - weight, indices + n, n, NULL, STEERING_RANDOM};
		ck_assert_uint_lt(next, ARRAY_SIZE(hits));
		compile(&s);
		any_packet(&p);
		for (uint64_t i = 0; i < n_draws; i++) {
			uint32_t index = run(&p);

			REQUIRE(index < ARRAY_SIZE(hits));
			hits[index]++;
		}
		for (size_t i = 0; i < 2 * n; i++) {
			double share = (i < n ? weight : 10000 - weight) / 10000.0 / (double)n;

			check_share(hits[indices[i]], share, n_draws, "socket");
			hits[indices[i]] = 0;
		}
		for (size_t i = 0; i < ARRAY_SIZE(hits); i++)
			REQUIRE(hits[i] == 0);
	}
}
END_TEST

/* Every number of the second draw, for every count up to 260 and over: an even spread by
 * construction. */
START_TEST(selection_is_even)
{
	for (uint32_t n = 2; n <= 300; n++) {
		uint32_t indices[300], next = 0;
		bool seen[2000] = {false};
		struct steering s = {
			.n_lanes = 1, .lanes = {{10000, indices, n, NULL, STEERING_RANDOM}}};
		struct bpf_packet p = packet_from("2001:db8::1", 1, IPPROTO_UDP);

		any_indices(indices, n, &next, n % 3 * 50);
		compile(&s);
		ck_assert_uint_eq(code[1].code, BPF_ALU | BPF_MOD | BPF_K);
		ck_assert_uint_eq(code[1].k, n);
		for (uint32_t i = 0; i < n; i++) {
			struct bpf_run r = {.random = 1};
			uint32_t index;

			code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_IMM, i);
			index = bpf_execute(code, n_code, &p, &r);
			REQUIRE(index < ARRAY_SIZE(seen));
			REQUIRE(!seen[index]);
			seen[index] = true;
			REQUIRE(r.n_steps <= 16); /* a tree, not a list */
		}
		for (uint32_t i = 0; i < n; i++)
			REQUIRE(seen[indices[i]]);
	}
}
END_TEST

START_TEST(one_socket_needs_one_instruction)
{
	static const uint32_t index = 70000;
	struct steering s = {
		.n_lanes = 3,
		.lanes = {{0, NULL, 0, NULL, STEERING_RANDOM},
			  {10000, &index, 1, NULL, STEERING_RANDOM},
			  {0, &index, 1, NULL, STEERING_RANDOM}}
	      };

	compile(&s);
	ck_assert_uint_eq(n_code, 1);
	ck_assert_uint_eq(code[0].code, BPF_RET | BPF_K);
	ck_assert_uint_eq(code[0].k, 70000);
}
END_TEST

static const uint32_t old[] = {0, 1}, new[] = {2, 3}, probe_only[] = {3};

static bool is_new(const char *address, uint16_t port, int protocol)
{
	struct bpf_packet p = packet_from(address, port, protocol);
	uint32_t index = run(&p);

	REQUIRE(index < 4);
	return index >= 2;
}

/* A preview by address, a probe by address and port, of both families, at weight 0. */
START_TEST(rules_by_source)
{
	struct steering s = {
		.n_lanes = 2,
		.lanes = {{10000, old, 2, NULL, STEERING_RANDOM},
			  {0, new, 2, NULL, STEERING_RANDOM}},
		.n_rules = 4
	    };
	unsigned n_three = 0;

	s.rules[0] = rule("127.0.0.2", 0, new, 2);
	s.rules[1] = rule("127.0.0.1", 40001, probe_only, 1);
	s.rules[2] = rule("2001:db8::2", 0, new, 2);
	s.rules[3] = rule("::1", 40001, probe_only, 1);
	compile(&s);
	for (unsigned i = 0; i < 1000; i++) {
		int protocol = i % 2 ? IPPROTO_TCP : IPPROTO_UDP;
		struct bpf_packet p = packet_from("127.0.0.2", (uint16_t)i, protocol);

		n_three += run(&p) == 3;
		REQUIRE(is_new("127.0.0.2", 40001, protocol));
		REQUIRE(is_new("2001:db8::2", (uint16_t)(i * 60), protocol));
		REQUIRE(is_new("127.0.0.1", 40001, protocol));
		REQUIRE(is_new("::1", 40001, protocol));
		REQUIRE(!is_new("127.0.0.1", 40000, protocol));
		REQUIRE(!is_new("127.0.0.1", (uint16_t)i, protocol));
		REQUIRE(!is_new("::1", 40002, protocol));
		REQUIRE(!is_new("127.0.0.3", 40001, protocol));
		REQUIRE(!is_new("126.0.0.2", 0, protocol));
		REQUIRE(!is_new("::2", 40001, protocol));
		REQUIRE(!is_new("2001:db8:1::2", 1, protocol));
		REQUIRE(!is_new("2001:db8::1:0:2", 1, protocol));
		REQUIRE(!is_new("2001:db9::2", 1, protocol));
		/* The same bytes in the other family's place are another address. */
		REQUIRE(!is_new("::127.0.0.2", 1, protocol));
		REQUIRE(!is_new("::ffff:127.0.0.2", 1, protocol));
	}
	check_share(n_three, 0.5, 1000, "socket of the preview");
}
END_TEST

START_TEST(first_rule_wins)
{
	static const uint32_t five[] = {5}, six[] = {6}, seven[] = {7};
	struct steering s = {
		.n_lanes = 1, .lanes = {{10000, old, 2, NULL, STEERING_RANDOM}}, .n_rules = 3};
	struct bpf_packet probe = packet_from("10.0.0.1", 99, IPPROTO_TCP),
			  other = packet_from("10.0.0.1", 98, IPPROTO_TCP);

	s.rules[0] = rule("10.0.0.1", 99, five, 1);
	s.rules[1] = rule("10.0.0.1", 0, six, 1);
	s.rules[2] = rule("10.0.0.1", 98, seven, 1);
	compile(&s);
	ck_assert_uint_eq(run(&probe), 5);
	ck_assert_uint_eq(run(&other), 6);
	s.rules[0] = rule("10.0.0.1", 0, six, 1);
	s.rules[1] = rule("10.0.0.1", 99, five, 1);
	compile(&s);
	ck_assert_uint_eq(run(&probe), 6);
	ck_assert_uint_eq(run(&other), 6);
}
END_TEST

/* With options or extension headers the ports are elsewhere: whatever stands in their place must
 * not match. The address still does. */
START_TEST(options_never_match_a_port)
{
	static const uint8_t lo4[] = {127, 0, 0, 1}, lo6[16] = {[15] = 1};
	static const int protocols[] = {IPPROTO_TCP, IPPROTO_UDP};
	struct steering by_port = {
		.n_lanes = 1, .lanes = {{10000, old, 2, NULL, STEERING_RANDOM}}, .n_rules = 2};
	struct steering by_address = {
		.n_lanes = 1, .lanes = {{10000, old, 2, NULL, STEERING_RANDOM}}, .n_rules = 2};
	struct bpf_packet p;

	by_port.rules[0] = rule("127.0.0.1", 4711, new, 2);
	by_port.rules[1] = rule("::1", 4711, new, 2);
	by_address.rules[0] = rule("127.0.0.1", 0, new, 2);
	by_address.rules[1] = rule("::1", 0, new, 2);
	for (size_t i = 0; i < 8; i++) {
		int family = i % 2 ? AF_INET : AF_INET6, options = (int)(i / 2 % 2);

		bpf_packet_make(&p, family, family == AF_INET ? lo4 : lo6, 4711, protocols[i / 4],
			options, 4711);
		compile(&by_port);
		ck_assert_int_eq(run(&p) >= 2, !options);
		compile(&by_address);
		ck_assert_uint_ge(run(&p), 2);
	}
}
END_TEST

/* An IPv4 packet is never read as IPv6, also where what was last looked at is a 6 and the bytes
 * would match. */
START_TEST(families_stay_apart)
{
	struct steering s = {
		.n_lanes = 1, .lanes = {{10000, old, 2, NULL, STEERING_RANDOM}}, .n_rules = 2};
	struct bpf_packet p = packet_from("10.0.0.1", 6, IPPROTO_UDP);

	s.rules[0] = rule("10.0.0.1", 7, new, 2);
	s.rules[1] = rule("::", 0, new, 2);
	memcpy(s.rules[1].source, p.bytes + 8, 16);
	compile(&s);
	ck_assert_uint_lt(run(&p), 2);
}
END_TEST

/* What a program can say about a packet, written down naively. */
static bool expected(const struct steering *s, const struct bpf_packet *p, uint32_t index)
{
	int family = p->bytes[0] >> 4 == 4 ? AF_INET : AF_INET6;
	size_t len = family == AF_INET ? 4 : 16, at = family == AF_INET ? 20 : 40;
	bool port_known =
		family == AF_INET ? p->bytes[0] == 0x45 : p->bytes[6] == 6 || p->bytes[6] == 17;
	unsigned port = (unsigned)p->bytes[at] << 8 | p->bytes[at + 1];

	for (size_t i = 0; i < s->n_rules; i++) {
		const struct steering_rule *r = &s->rules[i];

		if (r->family != family ||
			memcmp(r->source, p->bytes + (family == AF_INET ? 12 : 8), len) != 0)
			continue;
		if (r->source_port != 0 && (!port_known || r->source_port != port))
			continue;
		for (size_t j = 0; j < r->n_indices; j++)
			if (r->indices[j] == index)
				return true;
		return false;
	}
	for (size_t i = 0; i < s->n_lanes; i++)
		for (size_t j = 0; s->lanes[i].weight > 0 && j < s->lanes[i].n_indices; j++)
			if (s->lanes[i].indices[j] == index)
				return true;
	return false;
}

static void any_steering(struct steering *s, uint32_t (*indices)[64])
{
	static uint32_t cpus[64];
	unsigned left = 10000;
	uint32_t next = 0;

	*s = (struct steering){.n_lanes = 1 + draw(STEERING_LANES_MAX), .n_rules = draw(20)};
	for (size_t i = 0; i < s->n_lanes; i++) {
		bool last = i == s->n_lanes - 1;
		unsigned weight = last ? left : draw(4) ? draw(left + 1) : 0;

		any_indices(indices[i], 64, &next, draw(3) * 50);
		s->lanes[i] = (struct steering_lane){
			weight, indices[i], 1 + draw(64), NULL, STEERING_RANDOM};
		s->lanes[i].draw = (enum steering_draw)draw(4);
		for (size_t j = 0; j < 64; j++)
			cpus[j] = draw(24) + (draw(8) ? 0 : 200);
		if (draw(4))
			s->lanes[i].cpus = cpus;
		left -= weight;
	}
	s->lane_draw = (enum steering_draw)draw(3);
	s->seed = draw(100);
	for (size_t i = 0; i < s->n_rules; i++) {
		struct steering_rule *r = &s->rules[i];

		r->family = draw(2) ? AF_INET : AF_INET6;
		/* Few addresses and ports, so that many packets match several rules or just miss.
		 */
		for (size_t j = 0; j < (r->family == AF_INET ? 4U : 16U); j++)
			r->source[j] = (uint8_t)draw(16) ? 7 : 8;
		r->source_port = (uint16_t)(draw(2) ? 0 : 1 + draw(3));
		r->indices = indices[draw((uint32_t)s->n_lanes)];
		r->n_indices = 1 + draw(64);
		r->draw = (enum steering_draw)draw(4);
	}
}

static void packet_near(struct bpf_packet *p, const struct steering *s)
{
	const struct steering_rule *r = &s->rules[draw((uint32_t)s->n_rules)];
	uint8_t source[16];

	memcpy(source, r->source, sizeof(source));
	if (draw(4) == 0)
		source[draw(r->family == AF_INET ? 4 : 16)] ^= 15;
	bpf_packet_make(p, r->family, source, (uint16_t)draw(5),
		draw(2) ? IPPROTO_TCP : IPPROTO_UDP, draw(4) == 0, (uint16_t)draw(5));
}

/* Any steering, any packet: an index that was given for it, no load outside, at most two draws. */
START_TEST(random_programs)
{
	static uint32_t indices[STEERING_LANES_MAX][64];
	unsigned n_compiled = 0, n_by_rule = 0;

	for (unsigned round = 0; round < 3000; round++) {
		struct steering s;
		int r;

		memset(indices, 0, sizeof(indices));
		any_steering(&s, indices);
		r = steering_compile(&s, code, &n_code);
		ck_assert_msg(r == 0 || r == -E2BIG, "%d", r);
		if (r < 0)
			continue;
		compile(&s);
		n_compiled++;
		for (unsigned i = 0; i < 100; i++) {
			struct bpf_packet p;
			uint32_t index;

			if (s.n_rules > 0 && draw(2)) {
				packet_near(&p, &s);
				n_by_rule++;
			} else
				any_packet(&p);
			index = run(&p);
			if (!expected(&s, &p, index))
				ck_abort_msg("round %u: index %u", round, index);
		}
	}
	ck_assert_uint_gt(n_compiled, 2900);
	ck_assert_uint_gt(n_by_rule, 50000);
}
END_TEST

START_TEST(what_is_refused)
{
	static const uint32_t twice[] = {1, 2, 1};
	struct steering s = {
		.n_lanes = 2,
		.lanes = {{5000, old, 2, NULL, STEERING_RANDOM},
			  {5000, new, 2, NULL, STEERING_RANDOM}}
	      };
	struct steering bad;

	compile(&s);
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		bad = s;                                                                           \
		change;                                                                            \
		n_code = 77;                                                                       \
		ck_assert_int_eq(steering_compile(&bad, code, &n_code), -EINVAL);                  \
		ck_assert_uint_eq(n_code, 77);                                                     \
	} while (0)
	REFUSED(bad.n_lanes = 0);
	REFUSED(bad.lane_draw = STEERING_CPU);
	REFUSED(bad.n_lanes = 1);
	REFUSED(bad.n_lanes = STEERING_LANES_MAX + 1);
	REFUSED(bad.n_rules = STEERING_RULES_MAX + 1);
	REFUSED(bad.lanes[0].weight = 4999);
	REFUSED(bad.lanes[0].weight = 5001);
	REFUSED(bad.lanes[0].weight = 0; bad.lanes[1].weight = 0);
	/* The sum alone would be right, by overflow. */
	REFUSED(bad.lanes[0].weight = 10001; bad.lanes[1].weight = UINT32_MAX);
	REFUSED(bad.lanes[1].n_indices = 0);
	REFUSED(bad.lanes[1] = ((struct steering_lane){5000, twice, 3, NULL, STEERING_RANDOM}));
	REFUSED(bad.n_rules = 1; bad.rules[0] = rule("::1", 0, NULL, 0));
	REFUSED(bad.n_rules = 1; bad.rules[0] = rule("::1", 0, twice, 3));
	REFUSED(bad.n_rules = 1; bad.rules[0] = rule("::1", 0, new, 2);
		bad.rules[0].family = AF_UNIX);
#undef REFUSED
}
END_TEST

/* Full of everything it still fits, or says so; without rules it fits again. */
START_TEST(limits_of_length)
{
	static uint32_t scattered[STEERING_LANES_MAX][512];
	static struct sock_filter exact[STEERING_INSTRUCTIONS_MAX + 1];
	struct steering s = {.n_lanes = 2, .n_rules = STEERING_RULES_MAX};
	static const struct sock_filter guard = {.code = 0xdead, .k = 0xdeadbeef};
	size_t n;

	for (uint32_t i = 0; i < STEERING_LANES_MAX; i++)
		for (uint32_t j = 0; j < 512; j++)
			scattered[i][j] = 2 * j + i % 2;
	/* 1,024 sockets, all of both lanes apart, and probes of single sockets. */
	s.lanes[0] = (struct steering_lane){5000, scattered[0], 512, NULL, STEERING_RANDOM};
	s.lanes[1] = (struct steering_lane){5000, scattered[1], 512, NULL, STEERING_RANDOM};
	s.n_rules = 24;
	for (size_t i = 0; i < STEERING_RULES_MAX; i++)
		s.rules[i] = rule(
			i % 2 ? "127.0.0.1" : "::1", (uint16_t)(40000 + i), scattered[1] + i, 1);
	compile(&s);
	ck_assert_uint_gt(n_code, 3000);

	/* A full rule list over plain ranges fits with ease. */
	s.n_rules = STEERING_RULES_MAX;
	for (uint32_t j = 0; j < 512; j++)
		scattered[2][j] = j;
	s.lanes[0] = (struct steering_lane){5000, scattered[2], 256, NULL, STEERING_RANDOM};
	s.lanes[1] = (struct steering_lane){5000, scattered[2] + 256, 256, NULL, STEERING_RANDOM};
	compile(&s);
	ck_assert_uint_lt(n_code, 1000);

	/* Too much: said so, with nothing written beyond the room. */
	s.lanes[0] = (struct steering_lane){5000, scattered[0], 512, NULL, STEERING_RANDOM};
	s.lanes[1] = (struct steering_lane){5000, scattered[1], 512, NULL, STEERING_RANDOM};
	for (size_t i = 0; i < STEERING_RULES_MAX; i++) {
		s.rules[i].indices = scattered[0];
		s.rules[i].n_indices = 1 + 7 * i;
	}
	exact[STEERING_INSTRUCTIONS_MAX] = guard;
	n = 77;
	ck_assert_int_eq(steering_compile(&s, exact, &n), -E2BIG);
	ck_assert_uint_eq(n, 77);
	ck_assert_mem_eq(&exact[STEERING_INSTRUCTIONS_MAX], &guard, sizeof(guard));
	s.n_rules = 0;
	compile(&s);
}
END_TEST

/* Long selections are jumped over by the long jump: the lane behind them is still found exactly. */
START_TEST(long_jumps)
{
	static uint32_t scattered[400];
	static const uint32_t last = 1;
	struct steering s = {
		.n_lanes = 2,
		.lanes = {{9000, scattered, 400, NULL, STEERING_RANDOM},
			  {1000, &last, 1, NULL, STEERING_RANDOM}},
		.n_rules = 1
	    };
	uint64_t hits = 0, n = 200000;

	for (uint32_t i = 0; i < 400; i++)
		scattered[i] = 2 * i;
	s.rules[0] = rule("127.0.0.9", 0, scattered, 400);
	compile(&s);
	ck_assert_uint_gt(n_code, 2 * 1000);
	for (uint64_t i = 0; i < n; i++) {
		struct bpf_packet p = packet_from(i % 2 ? "127.0.0.1" : "::1", 1, IPPROTO_TCP);
		uint32_t index = run(&p);

		REQUIRE(index == 1 || index % 2 == 0);
		hits += index == 1;
		p = packet_from("127.0.0.9", 1, IPPROTO_TCP);
		REQUIRE(run(&p) % 2 == 0);
	}
	check_share(hits, 0.1, n, "lane behind a long one");
}
END_TEST

int main(void)
{
	const TTest *tests[] = {weights_are_exact, draws_are_independent, any_index_sets,
		selection_is_even, one_socket_needs_one_instruction, rules_by_source,
		first_rule_wins, options_never_match_a_port, families_stay_apart, random_programs,
		what_is_refused, limits_of_length, long_jumps};

	/* Millions of draws, perhaps beside a sanitizer. */
	(void)setenv("CK_DEFAULT_TIMEOUT", "60", 0);
	return run_tests("steering", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Draws that are no chance: by the client, by the flow, by the CPU. */
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

enum { CLIENTS = 20000 };

static const uint32_t old[] = {0, 1, 2, 3}, new[] = {4, 5, 6, 7};
static struct sock_filter code[STEERING_INSTRUCTIONS_MAX];
static size_t n_code;

static void compile(const struct steering *s)
{
	const char *wrong;

	ck_assert_int_eq(steering_compile(s, code, &n_code), 0);
	wrong = bpf_check(code, n_code);
	ck_assert_msg(!wrong, "%s", wrong);
}

static uint32_t run_on(const struct bpf_packet *p, uint32_t cpu)
{
	static uint64_t random = 4711;
	struct bpf_run r = {.random = random, .cpu = cpu};
	uint32_t index = bpf_execute(code, n_code, p, &r);

	random = r.random;
	REQUIRE(!r.out_of_bounds);
	return index;
}

static uint32_t run(const struct bpf_packet *p)
{
	return run_on(p, 0);
}

static void check_share(unsigned hits, double share, unsigned n, const char *what)
{
	double expected = share * n, sigma = sqrt(n * share * (1 - share));

	ck_assert_msg(fabs(hits - expected) <= 5 * sigma + 1e-9,
		"%s: %u of %u, expected %.1f, sigma %.1f", what, hits, n, expected, sigma);
}

/* Who the clients are. Neighbours, because that is what real ones are. */
enum crowd {
	NEIGHBOURS4,  /* 10.0.0.1, 10.0.0.2 ... */
	NETWORKS4,    /* 10.0.0.1, 10.1.0.1 ..., the last byte always the same */
	NETWORKS6,    /* 2001:db8:0:1::1, 2001:db8:0:2::1 ... */
	FAR_NETWORKS6 /* 2001:db8::1, 2001:db9::1 ... */
};
enum { N_CROWDS = FAR_NETWORKS6 + 1 };

static int client_address(enum crowd crowd, unsigned i, uint8_t source[static 16])
{
	memset(source, 0, 16);
	switch (crowd) {
	case NEIGHBOURS4:
		source[0] = 10;
		source[1] = (uint8_t)(i >> 16);
		source[2] = (uint8_t)(i >> 8);
		source[3] = (uint8_t)i;
		return AF_INET;
	case NETWORKS4:
		source[0] = (uint8_t)(10 + (i >> 16));
		source[1] = (uint8_t)(i >> 8);
		source[2] = (uint8_t)i;
		source[3] = 1;
		return AF_INET;
	case NETWORKS6:
		memcpy(source, (uint8_t[]){0x20, 0x01, 0x0d, 0xb8, 0, 0}, 6);
		source[6] = (uint8_t)(i >> 8);
		source[7] = (uint8_t)i;
		break;
	case FAR_NETWORKS6:
		source[0] = 0x20;
		source[2] = (uint8_t)(i >> 8);
		source[3] = (uint8_t)i;
		break;
	}
	source[15] = 1;
	return AF_INET6;
}

static struct bpf_packet packet_of(
	enum crowd crowd, unsigned i, uint16_t port, int protocol, int options)
{
	struct bpf_packet p;
	uint8_t source[16];
	int family = client_address(crowd, i, source);

	bpf_packet_make(&p, family, source, port, protocol, options, 0x0101);
	return p;
}

static struct steering sticky(unsigned weight_of_new, unsigned seed)
{
	struct steering s = {
		.lane_draw = STEERING_CLIENT,
		.seed = seed,
		.n_lanes = 2,
	};

	s.lanes[0] = (struct steering_lane){weight_of_new, new, 4, NULL, STEERING_CLIENT};
	s.lanes[1] = (struct steering_lane){10000 - weight_of_new, old, 4, NULL, STEERING_CLIENT};
	return s;
}

/* While the new lane's share grows its clients stay, each on its socket, whatever their ports and
 * options are; the share is right; and the sockets of a lane have equal parts. */
static void check_growing(enum crowd crowd, unsigned seed)
{
	static const unsigned shares[] = {0, 10, 100, 500, 2500, 5000, 9900, 10000};
	static uint8_t before[CLIENTS];
	unsigned n_moved = 0;

	for (size_t i = 0; i < ARRAY_SIZE(shares); i++) {
		struct steering s = sticky(shares[i], seed);
		unsigned hits[8] = {0}, n_new = 0;

		compile(&s);
		for (unsigned c = 0; c < CLIENTS; c++) {
			uint32_t index = 0;

			for (unsigned again = 0; again < 3; again++) {
				struct bpf_packet p = packet_of(crowd, c, (uint16_t)(1000 + again),
					again == 1 ? IPPROTO_UDP : IPPROTO_TCP, again == 2);
				uint32_t now = run(&p);

				REQUIRE(now < 8);
				REQUIRE(again == 0 || now == index);
				index = now;
			}
			/* Nobody goes back, nor to another socket of the same lane. */
			REQUIRE(i == 0 || before[c] == index || (before[c] < 4 && index >= 4));
			n_moved += i > 0 && before[c] != index;
			before[c] = (uint8_t)index;
			hits[index]++;
			n_new += index >= 4;
		}
		check_share(n_new, shares[i] / 10000.0, CLIENTS, "new lane");
		for (unsigned j = 0; j < 8; j++)
			check_share(hits[j], (j < 4 ? 10000 - shares[i] : shares[i]) / 40000.0,
				CLIENTS, "socket");
	}
	ck_assert_uint_eq(n_moved, CLIENTS);
}

START_TEST(clients_stay_while_shares_grow)
{
	for (unsigned crowd = 0; crowd < N_CROWDS; crowd++)
		for (unsigned seed = 1; seed < 4; seed++)
			check_growing((enum crowd)crowd, seed);
}
END_TEST

/* Another rollout tries other clients: of those who were first, the same share is first again. */
START_TEST(seeds_choose_other_clients)
{
	static bool first[CLIENTS];

	for (unsigned crowd = 0; crowd < N_CROWDS; crowd++)
		for (unsigned seed = 0; seed < 8; seed++) {
			struct steering s = sticky(2000, seed);
			unsigned n_first = 0, n_both = 0;

			compile(&s);
			for (unsigned c = 0; c < CLIENTS; c++) {
				struct bpf_packet p = packet_of(
					(enum crowd)crowd, c, 1, IPPROTO_TCP, BPF_OPTIONS_NONE);
				bool is_new = run(&p) >= 4;

				n_first += first[c];
				n_both += first[c] && is_new;
				first[c] = is_new;
			}
			if (seed > 0)
				check_share(n_both, 0.2, n_first, "first once more");
		}
}
END_TEST

/* All of one network's addresses are one client. */
START_TEST(a_network_is_one_client)
{
	struct steering s = sticky(5000, 3);

	compile(&s);
	for (unsigned c = 0; c < 500; c++) {
		uint8_t source[16];
		uint32_t index = 0;

		client_address(NETWORKS6, c, source);
		for (unsigned i = 0; i < 64; i++) {
			struct bpf_packet p;

			source[8 + i / 8] ^= (uint8_t)(1U << i % 8);
			bpf_packet_make(&p, AF_INET6, source, (uint16_t)i, IPPROTO_TCP,
				BPF_OPTIONS_NONE, 0);
			REQUIRE(i == 0 || run(&p) == index);
			index = run(&p);
		}
	}
}
END_TEST

/* Three lanes have their parts one after the other; one whose share is 0 is passed over. */
START_TEST(lanes_in_order)
{
	static const uint32_t a = 0, b = 1, c = 2;
	struct steering s = {.lane_draw = STEERING_CLIENT, .n_lanes = 4};
	unsigned hits[3] = {0};

	s.lanes[0] = (struct steering_lane){2000, &a, 1, NULL, STEERING_RANDOM};
	s.lanes[1] = (struct steering_lane){0, NULL, 0, NULL, STEERING_RANDOM};
	s.lanes[2] = (struct steering_lane){3000, &b, 1, NULL, STEERING_RANDOM};
	s.lanes[3] = (struct steering_lane){5000, &c, 1, NULL, STEERING_RANDOM};
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct bpf_packet p = packet_of(NEIGHBOURS4, i, 1, IPPROTO_TCP, BPF_OPTIONS_NONE);
		uint32_t before, after;

		s.lanes[0].weight = 2000;
		s.lanes[2].weight = 3000;
		compile(&s);
		before = run(&p);
		REQUIRE(before < 3);
		hits[before]++;
		if (i >= 500)
			continue;
		/* What the first takes from the second leaves the third alone. */
		s.lanes[0].weight = 4000;
		s.lanes[2].weight = 1000;
		compile(&s);
		after = run(&p);
		REQUIRE(after == before || (before == 1 && after == 0));
	}
	check_share(hits[0], 0.2, CLIENTS, "first");
	check_share(hits[1], 0.3, CLIENTS, "second");
	check_share(hits[2], 0.5, CLIENTS, "third");
}
END_TEST

/* Packets of one flow go to one socket. Flows of one client are spread, whatever ports the system
 * gives out; where the port cannot be told they stay together. */
static void check_flows(enum crowd crowd, unsigned step)
{
	enum { FLOWS = 8000 };
	struct steering s = {.n_lanes = 1};
	unsigned hits[4] = {0};
	uint32_t without_port;
	struct bpf_packet p;

	s.lanes[0] = (struct steering_lane){10000, old, 4, NULL, STEERING_FLOW};
	compile(&s);
	p = packet_of(crowd, 1, 1, IPPROTO_UDP, BPF_OPTIONS_SOME);
	without_port = run(&p);
	for (unsigned i = 0; i < FLOWS; i++) {
		uint16_t port = (uint16_t)(1024 + step * i);
		uint32_t index;

		p = packet_of(crowd, 1, port, IPPROTO_UDP, BPF_OPTIONS_NONE);
		index = run(&p);
		REQUIRE(index < 4);
		for (unsigned again = 0; again < 3; again++)
			REQUIRE(run(&p) == index);
		hits[index]++;
		p = packet_of(crowd, 1, port, IPPROTO_UDP, BPF_OPTIONS_SOME);
		REQUIRE(run(&p) == without_port);
	}
	for (unsigned i = 0; i < 4; i++)
		check_share(hits[i], 0.25, FLOWS, "flows");
}

START_TEST(flows_stay_together)
{
	for (unsigned crowd = 0; crowd < N_CROWDS; crowd++)
		for (unsigned step = 1; step <= 8; step *= 2)
			check_flows((enum crowd)crowd, step);
}
END_TEST

/* A flow of IPv6 is of one address, not of a network. */
START_TEST(flows_of_hosts)
{
	struct steering s = {.n_lanes = 1};
	unsigned hits[4] = {0};

	s.lanes[0] = (struct steering_lane){10000, old, 4, NULL, STEERING_FLOW};
	compile(&s);
	for (unsigned i = 0; i < CLIENTS; i++) {
		uint8_t source[16] = {0x20, 1, 0xd, 0xb8};
		struct bpf_packet p;

		source[8 + i % 2] = (uint8_t)(i / 2);
		source[12 + i % 4] = (uint8_t)(i >> 8);
		bpf_packet_make(&p, AF_INET6, source, 53, IPPROTO_UDP, BPF_OPTIONS_NONE, 0);
		hits[run(&p)]++;
	}
	for (unsigned i = 0; i < 4; i++)
		check_share(hits[i], 0.25, CLIENTS, "hosts");
}
END_TEST

/* Who is on which CPU, by CPU: all of its sockets, or none. */
static void check_cpus(const uint32_t *indices, const uint32_t *cpus, size_t n, uint32_t max_cpu)
{
	struct steering s = {.n_lanes = 1};
	struct bpf_packet p = packet_of(NEIGHBOURS4, 1, 1, IPPROTO_TCP, BPF_OPTIONS_NONE);

	s.lanes[0] = (struct steering_lane){10000, indices, n, cpus, STEERING_CPU};
	compile(&s);
	for (uint32_t cpu = 0; cpu < max_cpu; cpu++) {
		unsigned hits[4096] = {0}, n_here = 0, n_draws;

		for (size_t i = 0; i < n; i++)
			n_here += cpus[i] == cpu;
		n_draws = n_here == 1 ? 3 : 200 * (unsigned)(n_here > 0 ? n_here : n);
		for (unsigned i = 0; i < n_draws; i++) {
			uint32_t index = run_on(&p, cpu);

			REQUIRE(index < ARRAY_SIZE(hits));
			hits[index]++;
		}
		for (size_t i = 0; i < n; i++) {
			double share =
				n_here > 0 ? (cpus[i] == cpu ? 1.0 / n_here : 0) : 1.0 / (double)n;

			check_share(hits[indices[i]], share, n_draws, "CPU");
		}
	}
}

START_TEST(each_cpu_has_its_socket)
{
	static const uint32_t plain[] = {0, 1, 2, 3}, behind[] = {4, 5, 6, 7},
			      twice[] = {0, 1, 0, 1}, odd[] = {1, 3, 5, 7}, mixed[] = {9, 2, 2, 3},
			      high[] = {8, 9, 10, 11}, scattered[] = {40, 7, 23, 1};

	check_cpus(plain, plain, 4, 8);
	check_cpus(behind, plain, 4, 8);
	check_cpus(plain, high, 4, 16); /* the index is the smaller one */
	check_cpus(plain, twice, 4, 4);
	check_cpus(behind, odd, 4, 10);
	check_cpus(scattered, mixed, 4, 12);
	check_cpus(scattered, odd, 4, 12);
	check_cpus(plain, (uint32_t[]){1023, 0, 512, 511}, 4, 1024);
	check_cpus((uint32_t[]){5}, (uint32_t[]){1}, 1, 4);
}
END_TEST

START_TEST(any_cpus)
{
	uint64_t seed = 99;

	for (unsigned round = 0; round < 60; round++) {
		uint32_t indices[96], cpus[96], next = 0;
		size_t n = 1 + bpf_next_random(&seed) % 96;
		uint32_t range = 1 + (uint32_t)(bpf_next_random(&seed) % 40);

		for (size_t i = 0; i < n; i++) {
			next += 1 + (uint32_t)(bpf_next_random(&seed) % 3 == 0);
			indices[i] = next;
			cpus[i] =
				(uint32_t)(round % 2 ? i % range : bpf_next_random(&seed) % range);
		}
		check_cpus(indices, cpus, n, range + 2);
	}
}
END_TEST

/* The usual case is short: one run of CPUs for each lane, however many there are. */
START_TEST(length_by_cpu)
{
	static uint32_t a[1024], b[1024], cpus[1024];
	struct steering s = {.n_lanes = 2};

	for (uint32_t i = 0; i < 1024; i++) {
		a[i] = i;
		b[i] = 1024 + i;
		cpus[i] = i;
	}
	s.lanes[0] = (struct steering_lane){5000, a, 1024, cpus, STEERING_CPU};
	s.lanes[1] = (struct steering_lane){5000, b, 1024, cpus, STEERING_CPU};
	compile(&s);
	ck_assert_uint_lt(n_code, 32);
	/* Sixteen workers on each of 64 CPUs, of two lanes apart. */
	for (uint32_t i = 0; i < 1024; i++)
		cpus[i] = i % 64;
	s.n_lanes = 1;
	s.lanes[0].weight = 10000;
	compile(&s);
	/* The worst that there can be is refused, and fits without. */
	for (uint32_t i = 0; i < 1024; i++) {
		a[i] = 2 * i;
		b[i] = 2 * i + 1;
		cpus[i] = i * 37 % 1024;
	}
	s.n_lanes = 2;
	s.lanes[0].weight = 5000;
	s.lanes[0].n_indices = s.lanes[1].n_indices = 400;
	ck_assert_int_eq(steering_compile(&s, code, &n_code), -E2BIG);
	s.lanes[0].draw = s.lanes[1].draw = STEERING_RANDOM;
	compile(&s);
}
END_TEST

/* The hashes cost a bounded number of instructions, whatever is drawn by them. */
START_TEST(length_by_hash)
{
	struct steering s = sticky(5000, 1);
	size_t n_random;

	s.lane_draw = s.lanes[0].draw = s.lanes[1].draw = STEERING_RANDOM;
	compile(&s);
	n_random = n_code;
	s.lane_draw = s.lanes[0].draw = STEERING_CLIENT;
	s.lanes[1].draw = STEERING_FLOW;
	compile(&s);
	ck_assert_uint_lt(n_code, n_random + 160);
	/* What gets everything is not drawn, and needs no look at the packet. */
	s.lanes[0].weight = 10000;
	s.lanes[1].weight = 0;
	s.lanes[0].n_indices = 1;
	compile(&s);
	ck_assert_uint_eq(n_code, 1);
}
END_TEST

int main(void)
{
	const TTest *tests[] = {clients_stay_while_shares_grow, seeds_choose_other_clients,
		a_network_is_one_client, lanes_in_order, flows_stay_together, flows_of_hosts,
		each_cpu_has_its_socket, any_cpus, length_by_cpu, length_by_hash};

	(void)setenv("CK_DEFAULT_TIMEOUT", "60", 0);
	return run_tests("steering_draws", tests, ARRAY_SIZE(tests));
}

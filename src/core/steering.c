/* SPDX-License-Identifier: Apache-2.0 */
/* How a program is laid out, and why:
 *
 *     v4 or v6?            only when there are rules; else the program begins with the weights
 *     rules of that family source (and port) against each rule, in order: a match selects and
 * returns weights              a draw, and the lanes' shares one after the other selection a second
 * draw, and the runs of neighbouring indices as a binary tree
 *
 * - A load outside the packet would end the program with 0, that is, send the connection to socket
 * 0. So only what every TCP or UDP packet has is loaded: the fixed IP header, and the ports after
 * it only where nothing can stand between.
 * - The ports are taken into the draw nowhere: Linux gives out source ports of one parity, and a
 * share of them is no share.
 * - Conditional jumps reach 255 instructions, the unconditional one all: what can be longer is
 * jumped over by the latter. */
#include "core/steering.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "core/config.h"

enum {
	/* Where things are, from the network header. */
	IP_FIRST_BYTE = 0,
	IP4_SOURCE = 12,
	IP4_PORT_WITHOUT_OPTIONS = 20,
	IP6_NEXT_HEADER = 6,
	IP6_SOURCE = 8,
	IP6_PORT_WITHOUT_EXTENSIONS = 40,
	IP4_NO_OPTIONS = 0x45, /* version 4, a header of five words */
	/* Words of the program's own memory: the source address, then the port. */
	MEMORY_SOURCE = 0,
	MEMORY_PORT = 4,
};
/* Instead of a port where none can be told: no rule can name it. */
#define NO_PORT UINT32_MAX

struct program {
	struct sock_filter *code;
	size_t n; /* counts on beyond the end, where nothing is written any more */
};

/* Neighbouring indices: first, first + 1 ...; `before` of the selection's sockets are in earlier
 * runs. */
struct run {
	uint32_t first;
	uint32_t before;
};

struct selection {
	struct run *runs;
	size_t n_runs;
	uint32_t n_sockets;
};

static void selection_done(struct selection *s)
{
	free(s->runs);
}

static int compare_indices(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int selection_init(struct selection *s, const uint32_t *indices, size_t n)
{
	_cleanup_free_ uint32_t *sorted = NULL;
	struct run *runs;

	*s = (struct selection){NULL, 0, 0};
	if (n == 0 || n > UINT16_MAX) /* the kernel's own limit of a group */
		return -EINVAL;
	sorted = calloc(n, sizeof(*sorted));
	runs = calloc(n, sizeof(*runs));
	if (!sorted || !runs) {
		free(runs);
		return -ENOMEM;
	}
	s->runs = runs;
	s->n_sockets = (uint32_t)n;
	memcpy(sorted, indices, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_indices);
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && sorted[i] == sorted[i - 1])
			return -EINVAL;
		if (i == 0 || sorted[i] != sorted[i - 1] + 1)
			runs[s->n_runs++] = (struct run){sorted[i], (uint32_t)i};
	}
	return 0;
}

static void emit(struct program *p, struct sock_filter instruction)
{
	if (p->n < STEERING_INSTRUCTIONS_MAX)
		p->code[p->n] = instruction;
	p->n++;
}

static void emit_statement(struct program *p, unsigned code, uint32_t k)
{
	emit(p, (struct sock_filter){.code = (uint16_t)code, .k = k});
}

static void emit_jump(struct program *p, unsigned code, uint32_t k, size_t jt, size_t jf)
{
	emit(p, (struct sock_filter){.code = (uint16_t)(BPF_JMP | code | BPF_K),
			.jt = (uint8_t)jt,
			.jf = (uint8_t)jf,
			.k = k});
}

/* A jump whose length is not known yet; land_here() sets it. */
static size_t emit_jump_ahead(struct program *p)
{
	emit_statement(p, BPF_JMP | BPF_JA, 0);
	return p->n - 1;
}

static void land_here(struct program *p, size_t jump)
{
	if (jump < STEERING_INSTRUCTIONS_MAX)
		p->code[jump].k = (uint32_t)(p->n - jump - 1);
}

static void emit_packet_load(struct program *p, unsigned size, unsigned offset)
{
	emit_statement(p, BPF_LD | size | BPF_ABS, (uint32_t)SKF_NET_OFF + offset);
}

static void emit_draw(struct program *p, uint32_t n)
{
	emit_statement(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM));
	emit_statement(p, BPF_ALU | BPF_MOD | BPF_K, n);
}

/* Go on with the next `size` instructions while A < k, beyond them otherwise. */
static void emit_below(struct program *p, uint32_t k, size_t size)
{
	if (size <= UINT8_MAX) {
		emit_jump(p, BPF_JGE, k, size, 0);
	} else {
		emit_jump(p, BPF_JGE, k, 0, 1);
		emit_statement(p, BPF_JMP | BPF_JA, (uint32_t)size);
	}
}

static size_t below_size(size_t size)
{
	return size <= UINT8_MAX ? 1 : 2;
}

/* The tree over n runs from the first: A is the number of the socket within the selection. */
static size_t tree_size(const struct run *runs, size_t n)
{
	size_t left;

	if (n == 1)
		return runs->first == runs->before ? 1 : 2;
	left = tree_size(runs, n / 2);
	return below_size(left) + left + tree_size(runs + n / 2, n - n / 2);
}

static void emit_tree(struct program *p, const struct run *runs, size_t n)
{
	if (n == 1) {
		/* Sorted and distinct, so never less than what is before. */
		if (runs->first != runs->before)
			emit_statement(p, BPF_ALU | BPF_ADD | BPF_K, runs->first - runs->before);
		emit_statement(p, BPF_RET | BPF_A, 0);
		return;
	}
	emit_below(p, runs[n / 2].before, tree_size(runs, n / 2));
	emit_tree(p, runs, n / 2);
	emit_tree(p, runs + n / 2, n - n / 2);
}

static size_t selection_size(const struct selection *s)
{
	return s->n_sockets == 1 ? 1 : 2 + tree_size(s->runs, s->n_runs);
}

/* One of the sockets, all with the same chance: the end of every path. */
static void emit_selection(struct program *p, const struct selection *s)
{
	if (s->n_sockets == 1) {
		emit_statement(p, BPF_RET | BPF_K, s->runs[0].first);
		return;
	}
	emit_draw(p, s->n_sockets);
	emit_tree(p, s->runs, s->n_runs);
}

static int emit_weights(struct program *p, const struct steering *s)
{
	unsigned share = 0;

	for (size_t i = 0; i < s->n_lanes; i++) {
		const struct steering_lane *lane = &s->lanes[i];
		_cleanup_(selection_done) struct selection selection = {NULL, 0, 0};
		int r;

		if (lane->weight == 0)
			continue;
		r = selection_init(&selection, lane->indices, lane->n_indices);
		if (r < 0)
			return r;
		if (share == 0 && lane->weight < SHARE_MAX)
			emit_draw(p, SHARE_MAX);
		share += lane->weight;
		if (share < SHARE_MAX)
			emit_below(p, share, selection_size(&selection));
		emit_selection(p, &selection);
	}
	return 0;
}

static uint32_t source_word(const struct steering_rule *rule, size_t i)
{
	const uint8_t *b = rule->source + 4 * i;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static int emit_rule(struct program *p, const struct steering_rule *rule)
{
	size_t n_words = rule->family == AF_INET ? 1 : 4;
	size_t n_tests = n_words + (rule->source_port != 0);
	_cleanup_(selection_done) struct selection selection = {NULL, 0, 0};
	int r;

	r = selection_init(&selection, rule->indices, rule->n_indices);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_tests; i++) {
		bool is_port = i == n_words, last = i == n_tests - 1;

		emit_statement(
			p, BPF_LD | BPF_MEM, is_port ? MEMORY_PORT : MEMORY_SOURCE + (uint32_t)i);
		/* The last one steps over the jump below it, the others lead to it, two
		 * instructions for each test in between. */
		emit_jump(p, BPF_JEQ, is_port ? rule->source_port : source_word(rule, i), last,
			2 * (n_tests - 1 - i));
	}
	emit_statement(p, BPF_JMP | BPF_JA, (uint32_t)selection_size(&selection));
	emit_selection(p, &selection);
	return 0;
}

/* The port into memory: loaded where the header is known to be before it. */
static void emit_port_to_memory(struct program *p, int family)
{
	if (family == AF_INET) {
		emit_packet_load(p, BPF_B, IP_FIRST_BYTE);
		emit_jump(p, BPF_JEQ, IP4_NO_OPTIONS, 0, 2);
		emit_packet_load(p, BPF_H, IP4_PORT_WITHOUT_OPTIONS);
	} else {
		emit_packet_load(p, BPF_B, IP6_NEXT_HEADER);
		emit_jump(p, BPF_JEQ, IPPROTO_TCP, 1, 0);
		emit_jump(p, BPF_JEQ, IPPROTO_UDP, 0, 2);
		emit_packet_load(p, BPF_H, IP6_PORT_WITHOUT_EXTENSIONS);
	}
	emit_statement(p, BPF_JMP | BPF_JA, 1);
	emit_statement(p, BPF_LD | BPF_IMM, NO_PORT);
	emit_statement(p, BPF_ST, MEMORY_PORT);
}

/* The rules of one family; where none matches it goes on after them. */
static int emit_family(struct program *p, const struct steering *s, int family)
{
	unsigned source = family == AF_INET ? IP4_SOURCE : IP6_SOURCE;
	unsigned n_words = family == AF_INET ? 1 : 4;
	bool wants_source = false, wants_port = false;

	for (size_t i = 0; i < s->n_rules; i++) {
		if (s->rules[i].family != family)
			continue;
		wants_source = true;
		wants_port = wants_port || s->rules[i].source_port != 0;
	}
	if (!wants_source)
		return 0;
	if (wants_port)
		emit_port_to_memory(p, family);
	for (unsigned i = 0; i < n_words; i++) {
		emit_packet_load(p, BPF_W, source + 4 * i);
		emit_statement(p, BPF_ST, MEMORY_SOURCE + i);
	}
	for (size_t i = 0; i < s->n_rules; i++) {
		int r;

		if (s->rules[i].family != family)
			continue;
		r = emit_rule(p, &s->rules[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int emit_rules(struct program *p, const struct steering *s)
{
	size_t not_v4, from_v4, not_v6;
	int r;

	/* A dual-stack socket gets packets of both kinds, so the packet itself is asked. */
	emit_packet_load(p, BPF_B, IP_FIRST_BYTE);
	emit_statement(p, BPF_ALU | BPF_RSH | BPF_K, 4);
	emit_jump(p, BPF_JEQ, 4, 1, 0);
	not_v4 = emit_jump_ahead(p);
	r = emit_family(p, s, AF_INET);
	if (r < 0)
		return r;
	from_v4 = emit_jump_ahead(p);
	land_here(p, not_v4);
	emit_jump(p, BPF_JEQ, 6, 1, 0);
	not_v6 = emit_jump_ahead(p);
	r = emit_family(p, s, AF_INET6);
	if (r < 0)
		return r;
	land_here(p, from_v4);
	land_here(p, not_v6);
	return 0;
}

static bool steering_is_valid(const struct steering *s)
{
	unsigned sum = 0;

	if (s->n_lanes > STEERING_LANES_MAX || s->n_rules > STEERING_RULES_MAX)
		return false;
	for (size_t i = 0; i < s->n_lanes; i++) {
		const struct steering_lane *lane = &s->lanes[i];

		if (lane->weight > SHARE_MAX || (lane->weight > 0 && lane->n_indices == 0))
			return false;
		sum += lane->weight;
	}
	for (size_t i = 0; i < s->n_rules; i++)
		if (s->rules[i].n_indices == 0 ||
			(s->rules[i].family != AF_INET && s->rules[i].family != AF_INET6))
			return false;
	return sum == SHARE_MAX;
}

int steering_compile(const struct steering *s, struct sock_filter *ret, size_t *ret_n)
{
	struct program p = {ret, 0};
	int r;

	if (!steering_is_valid(s))
		return -EINVAL;
	if (s->n_rules > 0) {
		r = emit_rules(&p, s);
		if (r < 0)
			return r;
	}
	r = emit_weights(&p, s);
	if (r < 0)
		return r;
	if (p.n > STEERING_INSTRUCTIONS_MAX)
		return -E2BIG;
	*ret_n = p.n;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* How a program is laid out, and why:
 *
 *     v4 or v6?             only with rules or hashes; else the program begins with the weights
 *     hashes of that family of client or flow, into memory: where a draw wants them
 *     rules of that family  source (and port) against each rule, in order: a match selects, returns
 *     weights               a draw, and the lanes' shares one after the other
 *     selection             a second draw, and the runs of neighbouring indices as a binary tree
 *
 * - A load outside the packet would end the program with 0, that is, send the connection to socket
 * 0. So only what every TCP or UDP packet has is loaded: the fixed IP header, and the ports after
 * it only where nothing can stand between.
 * - Ports are taken into a draw through the hash only: Linux gives out source ports of one parity,
 * and a share of them is no share. */
#include "core/steering_program.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "core/config.h"

/* Instead of a port where none can be told: no rule can name it. */
#define NO_PORT UINT32_MAX

static void emit_lane_draw(struct program *p, enum steering_draw draw)
{
	if (draw == STEERING_RANDOM)
		emit_statement(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM));
	else
		emit_statement(p, BPF_LD | BPF_MEM, MEMORY_LANE);
	emit_statement(p, BPF_ALU | BPF_MOD | BPF_K, SHARE_MAX);
}

static int emit_weights(struct program *p, const struct steering *s)
{
	unsigned share = 0;

	for (size_t i = 0; i < s->n_lanes; i++) {
		const struct steering_lane *lane = &s->lanes[i];
		_cleanup_(selection_done) struct selection selection = {.runs = NULL};
		int r;

		if (lane->weight == 0)
			continue;
		r = selection_init(
			&selection, lane->draw, lane->indices, lane->cpus, lane->n_indices);
		if (r < 0)
			return r;
		if (share == 0 && lane->weight < SHARE_MAX)
			emit_lane_draw(p, s->lane_draw);
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
	_cleanup_(selection_done) struct selection selection = {.runs = NULL};
	int r;

	r = selection_init(&selection, rule->draw, rule->indices, NULL, rule->n_indices);
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

/* Hashes and rules of one family; where no rule matches it goes on after them. */
static int emit_family(struct program *p, const struct steering *s, int family)
{
	unsigned source = family == AF_INET ? IP4_SOURCE : IP6_SOURCE;
	unsigned n_words = family == AF_INET ? 1 : 4;
	bool wants_source = false, wants_port = steering_hashes_flows(s);

	for (size_t i = 0; i < s->n_rules; i++) {
		if (s->rules[i].family != family)
			continue;
		wants_source = true;
		wants_port = wants_port || s->rules[i].source_port != 0;
	}
	if (wants_port)
		emit_port_to_memory(p, family);
	emit_hashes(p, s, family);
	if (!wants_source)
		return 0;
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

static int emit_families(struct program *p, const struct steering *s)
{
	size_t not_v4, from_v4, not_v6, from_v6;
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
	from_v6 = emit_jump_ahead(p);
	land_here(p, not_v6);
	emit_no_hashes(p, s);
	land_here(p, from_v4);
	land_here(p, from_v6);
	return 0;
}

static bool steering_is_valid(const struct steering *s)
{
	unsigned sum = 0;

	if (s->n_lanes > STEERING_LANES_MAX || s->n_rules > STEERING_RULES_MAX ||
		s->lane_draw == STEERING_CPU)
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
	if (s->n_rules > 0 || steering_hashes(s)) {
		r = emit_families(&p, s);
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

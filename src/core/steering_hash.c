/* SPDX-License-Identifier: Apache-2.0 */
/* A hash of who sends the packet, in the instructions of classic BPF: the words of the address one
 * after the other, each a one-to-one step, and at the end the finalizer of MurmurHash3, in which
 * every bit reaches every other. Neighbouring addresses, and ports of one parity, are no neighbours
 * any more. Two draws from one packet use two keys, so that the clients of a lane are spread over
 * its sockets as if the lane had not been drawn. */
#include "core/steering_program.h"

#include <sys/socket.h>

#define WORD_FACTOR 0x9e3779b1U /* odd: nothing is lost */
#define MIX_FACTOR_1 0x85ebca6bU
#define MIX_FACTOR_2 0xc2b2ae35U
#define SOCKET_KEY 0x51ed270bU

/* The same as emit_mix(), of a seed: small neighbouring numbers become keys without a pattern. */
static uint32_t mix(uint32_t h)
{
	h ^= h >> 16;
	h *= MIX_FACTOR_1;
	h ^= h >> 13;
	h *= MIX_FACTOR_2;
	return h ^ h >> 16;
}

static void emit_fold(struct program *p, uint32_t shift)
{
	emit_statement(p, BPF_MISC | BPF_TAX, 0);
	emit_statement(p, BPF_ALU | BPF_RSH | BPF_K, shift);
	emit_statement(p, BPF_ALU | BPF_XOR | BPF_X, 0);
}

static void emit_mix(struct program *p, uint32_t key)
{
	emit_statement(p, BPF_ALU | BPF_XOR | BPF_K, key);
	emit_fold(p, 16);
	emit_statement(p, BPF_ALU | BPF_MUL | BPF_K, MIX_FACTOR_1);
	emit_fold(p, 13);
	emit_statement(p, BPF_ALU | BPF_MUL | BPF_K, MIX_FACTOR_2);
	emit_fold(p, 16);
}

/* A goes into X, for the next word to be joined to it. */
static void emit_keep(struct program *p)
{
	emit_statement(p, BPF_ALU | BPF_MUL | BPF_K, WORD_FACTOR);
	emit_statement(p, BPF_MISC | BPF_TAX, 0);
}

static void emit_join(struct program *p)
{
	emit_statement(p, BPF_ALU | BPF_XOR | BPF_X, 0);
}

static void emit_hash(
	struct program *p, enum steering_draw draw, int family, uint32_t key, uint32_t memory)
{
	/* Of an IPv6 client its network alone: it changes the rest as it likes. */
	unsigned n = family == AF_INET ? 1 : draw == STEERING_CLIENT ? 2 : 4;

	for (unsigned i = 0; i < n; i++) {
		if (i > 0)
			emit_keep(p);
		emit_packet_load(
			p, BPF_W, (family == AF_INET ? (unsigned)IP4_SOURCE : IP6_SOURCE) + 4 * i);
		if (i > 0)
			emit_join(p);
	}
	if (draw == STEERING_FLOW) {
		emit_keep(p);
		emit_statement(p, BPF_LD | BPF_MEM, MEMORY_PORT);
		emit_join(p);
	}
	emit_mix(p, key);
	emit_statement(p, BPF_ST, memory);
}

static bool is_hash(enum steering_draw draw)
{
	return draw == STEERING_CLIENT || draw == STEERING_FLOW;
}

static bool sockets_draw(const struct steering *s, enum steering_draw draw)
{
	for (size_t i = 0; i < s->n_lanes; i++)
		if (s->lanes[i].weight > 0 && s->lanes[i].n_indices > 1 && s->lanes[i].draw == draw)
			return true;
	for (size_t i = 0; i < s->n_rules; i++)
		if (s->rules[i].n_indices > 1 && s->rules[i].draw == draw)
			return true;
	return false;
}

/* One lane that gets everything is not drawn. */
static bool lanes_draw(const struct steering *s, enum steering_draw draw)
{
	unsigned n = 0;

	for (size_t i = 0; i < s->n_lanes; i++)
		n += s->lanes[i].weight > 0;
	return n > 1 && s->lane_draw == draw;
}

bool steering_hashes_flows(const struct steering *s)
{
	return lanes_draw(s, STEERING_FLOW) || sockets_draw(s, STEERING_FLOW);
}

bool steering_hashes(const struct steering *s)
{
	return steering_hashes_flows(s) || lanes_draw(s, STEERING_CLIENT) ||
	       sockets_draw(s, STEERING_CLIENT);
}

void emit_hashes(struct program *p, const struct steering *s, int family)
{
	if (is_hash(s->lane_draw) && lanes_draw(s, s->lane_draw))
		emit_hash(p, s->lane_draw, family, mix(s->seed + 1), MEMORY_LANE);
	if (sockets_draw(s, STEERING_CLIENT))
		emit_hash(p, STEERING_CLIENT, family, SOCKET_KEY, MEMORY_CLIENT);
	if (sockets_draw(s, STEERING_FLOW))
		emit_hash(p, STEERING_FLOW, family, SOCKET_KEY, MEMORY_FLOW);
}

void emit_no_hashes(struct program *p, const struct steering *s)
{
	if (!steering_hashes(s))
		return;
	emit_statement(p, BPF_LD | BPF_IMM, 0);
	emit_statement(p, BPF_ST, MEMORY_LANE);
	emit_statement(p, BPF_ST, MEMORY_CLIENT);
	emit_statement(p, BPF_ST, MEMORY_FLOW);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of steering.c and its parts: a program that is being written. Conditional jumps reach 255
 * instructions, the unconditional one all: what can be longer is jumped over by the latter. */
#pragma once

#include "core/steering.h"

/* Where things are, from the network header. */
enum {
	IP_FIRST_BYTE = 0,
	IP4_SOURCE = 12,
	IP4_PORT_WITHOUT_OPTIONS = 20,
	IP6_NEXT_HEADER = 6,
	IP6_SOURCE = 8,
	IP6_PORT_WITHOUT_EXTENSIONS = 40,
	IP4_NO_OPTIONS = 0x45, /* version 4, a header of five words */
};

/* Words of the program's own memory. */
enum {
	MEMORY_SOURCE = 0, /* the source address, up to four */
	MEMORY_PORT = 4,
	MEMORY_LANE = 5,   /* the hash that draws the lane */
	MEMORY_CLIENT = 6, /* the hashes that draw the socket */
	MEMORY_FLOW = 7,
};

struct program {
	struct sock_filter *code; /* NULL: only counted */
	size_t n;		  /* counts on beyond the end, where nothing is written any more */
};

static inline void emit(struct program *p, struct sock_filter instruction)
{
	if (p->code && p->n < STEERING_INSTRUCTIONS_MAX)
		p->code[p->n] = instruction;
	p->n++;
}

static inline void emit_statement(struct program *p, unsigned code, uint32_t k)
{
	emit(p, (struct sock_filter){.code = (uint16_t)code, .k = k});
}

static inline void emit_jump(struct program *p, unsigned code, uint32_t k, size_t jt, size_t jf)
{
	emit(p, (struct sock_filter){.code = (uint16_t)(BPF_JMP | code | BPF_K),
			.jt = (uint8_t)jt,
			.jf = (uint8_t)jf,
			.k = k});
}

/* A jump whose length is not known yet; land_here() sets it. */
static inline size_t emit_jump_ahead(struct program *p)
{
	emit_statement(p, BPF_JMP | BPF_JA, 0);
	return p->n - 1;
}

static inline void land_here(struct program *p, size_t jump)
{
	if (p->code && jump < STEERING_INSTRUCTIONS_MAX)
		p->code[jump].k = (uint32_t)(p->n - jump - 1);
}

static inline void emit_packet_load(struct program *p, unsigned size, unsigned offset)
{
	emit_statement(p, BPF_LD | size | BPF_ABS, (uint32_t)SKF_NET_OFF + offset);
}

/* Go on with the next `size` instructions while A < k, beyond them otherwise. */
static inline void emit_below(struct program *p, uint32_t k, size_t size)
{
	if (size <= UINT8_MAX) {
		emit_jump(p, BPF_JGE, k, size, 0);
	} else {
		emit_jump(p, BPF_JGE, k, 0, 1);
		emit_statement(p, BPF_JMP | BPF_JA, (uint32_t)size);
	}
}

/* --- steering_select.c: from a set of sockets to one of them ------------------------------- */

/* Neighbouring indices: first, first + 1 ...; `before` of the selection's sockets are in earlier
 * runs. */
struct run {
	uint32_t first;
	uint32_t before;
};

/* Sockets of which a connection gets one. */
struct selection {
	enum steering_draw draw;
	struct run *runs;
	size_t n_runs;
	uint32_t n_sockets;
	/* STEERING_CPU: sorted by CPU, then index; NULL: none are known */
	struct cpu_socket {
		uint32_t cpu, index;
	} * cpus;
	struct cpu_leaf {
		const struct cpu_socket *first;
		size_t n;
	} * leaves; /* parts of cpus */
	size_t n_leaves;
	/* Room, so that writing the program cannot fail between being counted and being done. */
	struct run *sharing;
	size_t *others;
};

/* 0, -EINVAL (none, too many, one twice), -ENOMEM. cpus: parallel to indices, or NULL. */
int selection_init(struct selection *s, enum steering_draw draw, const uint32_t *indices,
	const uint32_t *cpus, size_t n);
void selection_done(struct selection *s);
size_t selection_size(const struct selection *s);
/* The end of every path. */
void emit_selection(struct program *p, const struct selection *s);

/* --- steering_hash.c: who the packet is from, as a number ---------------------------------- */

/* Does steering need a hash of any packet? */
bool steering_hashes(const struct steering *s);
/* All that s needs, into memory. The port must be in memory where a flow's is needed. */
void emit_hashes(struct program *p, const struct steering *s, int family);
/* Of a packet of neither family. */
void emit_no_hashes(struct program *p, const struct steering *s);
bool steering_hashes_flows(const struct steering *s);

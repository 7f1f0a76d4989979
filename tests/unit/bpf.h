/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's classic BPF, as far as a reuseport program can use it, for tests: the checks that
 * are made when a program is attached, and an interpreter over one synthetic packet. Written
 * against Documentation/networking/filter.rst; a load outside of the packet ends the program with
 * 0, as there. */
#pragma once

#include <linux/filter.h>
#include <netinet/in.h>

#include "base/util.h"

/* What a program sees: the network header and what follows; the transport payload is its data. */
struct bpf_packet {
	uint8_t bytes[256];
	size_t len;	/* from the network header to the end of the packet */
	size_t payload; /* where the transport payload begins */
};

struct bpf_run {
	uint64_t random;    /* state of SKF_AD_RANDOM's generator */
	uint32_t cpu;	    /* on which the packet arrives */
	bool out_of_bounds; /* a load was outside: the result is the kernel's 0 */
	unsigned n_draws;   /* how often SKF_AD_RANDOM was loaded */
	unsigned n_steps;
};

/* splitmix64: reproducible, and good enough for five sigma. */
static inline uint64_t bpf_next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static inline bool bpf_load(
	const struct bpf_packet *p, struct bpf_run *run, uint32_t k, size_t size, uint32_t *ret)
{
	int32_t offset = (int32_t)k;
	int64_t at;

	if (offset >= 0)
		at = (int64_t)p->payload + offset;
	else if (offset >= SKF_AD_OFF) {
		if (offset == SKF_AD_OFF + SKF_AD_CPU && size == 4) {
			*ret = run->cpu;
			return true;
		}
		if (offset != SKF_AD_OFF + SKF_AD_RANDOM || size != 4)
			return false;
		run->n_draws++;
		*ret = (uint32_t)bpf_next_random(&run->random);
		return true;
	} else if (offset >= SKF_NET_OFF)
		at = offset - SKF_NET_OFF;
	else
		return false;
	if (at + (int64_t)size > (int64_t)p->len)
		return false;
	*ret = 0;
	for (size_t i = 0; i < size; i++)
		*ret = *ret << 8 | p->bytes[(size_t)at + i];
	return true;
}

static inline bool bpf_condition(unsigned code, uint32_t a, uint32_t k)
{
	switch (code) {
	case BPF_JMP | BPF_JEQ | BPF_K:
		return a == k;
	case BPF_JMP | BPF_JGE | BPF_K:
		return a >= k;
	case BPF_JMP | BPF_JGT | BPF_K:
		return a > k;
	case BPF_JMP | BPF_JSET | BPF_K:
		return (a & k) != 0;
	}
	abort();
}

static inline uint32_t bpf_alu(unsigned code, uint32_t a, uint32_t k, uint32_t x)
{
	switch (code) {
	case BPF_ALU | BPF_XOR | BPF_X:
		return a ^ x;
	case BPF_ALU | BPF_XOR | BPF_K:
		return a ^ k;
	case BPF_ALU | BPF_MUL | BPF_K:
		return a * k;
	case BPF_ALU | BPF_ADD | BPF_K:
		return a + k;
	case BPF_ALU | BPF_MOD | BPF_K:
		return a % k;
	case BPF_ALU | BPF_RSH | BPF_K:
		return a >> k;
	case BPF_ALU | BPF_AND | BPF_K:
		return a & k;
	}
	abort(); /* nothing else is used; a program that does wants it here */
}

/* The index that the program returns. The program is a checked one. */
static inline uint32_t bpf_execute(
	const struct sock_filter *code, size_t n, const struct bpf_packet *p, struct bpf_run *run)
{
	uint32_t a = 0, x = 0, memory[BPF_MEMWORDS];

	memset(memory, 0xa5, sizeof(memory));
	for (size_t pc = 0; pc < n; pc++) {
		const struct sock_filter *i = &code[pc];

		run->n_steps++;
		switch (BPF_CLASS(i->code)) {
		case BPF_RET:
			return BPF_RVAL(i->code) == BPF_A ? a : i->k;
		case BPF_LD:
			if (BPF_MODE(i->code) == BPF_IMM)
				a = i->k;
			else if (BPF_MODE(i->code) == BPF_MEM)
				a = memory[i->k];
			else if (!bpf_load(p, run, i->k,
					 BPF_SIZE(i->code) == BPF_W   ? 4
					 : BPF_SIZE(i->code) == BPF_H ? 2
								      : 1,
					 &a)) {
				run->out_of_bounds = true;
				return 0;
			}
			break;
		case BPF_ST:
			memory[i->k] = a;
			break;
		case BPF_ALU:
			a = bpf_alu(i->code, a, i->k, x);
			break;
		case BPF_MISC:
			if (BPF_MISCOP(i->code) != BPF_TAX)
				abort();
			x = a;
			break;
		case BPF_JMP:
			if (BPF_OP(i->code) == BPF_JA)
				pc += i->k;
			else
				pc += bpf_condition(i->code, a, i->k) ? i->jt : i->jf;
			break;
		default:
			abort();
		}
	}
	abort();
}

/* Would the kernel take it? Jumps inside and forward, no division by 0, memory stored before it is
 * loaded on every path, a return at the end; and, stricter than the kernel, every instruction can
 * be reached. NULL, or what is wrong. */
static inline const char *bpf_check(const struct sock_filter *code, size_t n)
{
	static uint32_t stored[BPF_MAXINSNS +
			       1]; /* words stored on every path to here; set bit 31: reachable */
	const uint32_t reachable = UINT32_C(1) << 31;

	if (n == 0 || n > BPF_MAXINSNS)
		return "length";
	for (size_t i = 0; i <= n; i++)
		stored[i] = ~UINT32_C(0) & ~reachable;
	stored[0] = reachable;
	for (size_t pc = 0; pc < n; pc++) {
		const struct sock_filter *i = &code[pc];
		size_t next[2] = {pc + 1, pc + 1};
		uint32_t now = stored[pc];

		if (!(now & reachable))
			return "an instruction that is never reached";
		switch (BPF_CLASS(i->code)) {
		case BPF_RET:
			continue;
		case BPF_LD:
			if (BPF_MODE(i->code) == BPF_MEM &&
				(i->k >= BPF_MEMWORDS || !(now & UINT32_C(1) << i->k)))
				return "memory that was not stored";
			break;
		case BPF_ST:
			if (i->k >= BPF_MEMWORDS)
				return "memory out of range";
			now |= UINT32_C(1) << i->k;
			break;
		case BPF_ALU:
			if (BPF_OP(i->code) == BPF_MOD && i->k == 0)
				return "modulo 0";
			if (BPF_OP(i->code) == BPF_RSH && i->k >= 32)
				return "a shift out of range";
			break;
		case BPF_MISC:
			break;
		case BPF_JMP:
			if (BPF_OP(i->code) == BPF_JA)
				next[0] = next[1] = pc + 1 + i->k;
			else {
				next[0] = pc + 1 + i->jt;
				next[1] = pc + 1 + i->jf;
			}
			break;
		default:
			return "an unknown class";
		}
		for (size_t j = 0; j < 2; j++) {
			if (next[j] >= n)
				return "a way past the end";
			stored[next[j]] = (stored[next[j]] & now & ~reachable) | reachable;
		}
	}
	return NULL;
}

enum { BPF_OPTIONS_NONE, BPF_OPTIONS_SOME };

/* A first packet from source (4 or 16 bytes) and port. With options the IPv4 header has some, the
 * IPv6 header is followed by a destination options header; both move the ports away from their
 * usual place, where `decoy` is found instead. */
static inline void bpf_packet_make(struct bpf_packet *p, int family, const uint8_t *source,
	uint16_t port, int protocol, int options, uint16_t decoy)
{
	size_t ip = family == AF_INET ? 20 : 40, transport = ip + (options ? 8 : 0);
	size_t transport_len = protocol == IPPROTO_TCP ? 20 : 8;

	memset(p, 0, sizeof(*p));
	if (family == AF_INET) {
		p->bytes[0] = options ? 0x47 : 0x45;
		p->bytes[9] = (uint8_t)protocol;
		memcpy(p->bytes + 12, source, 4);
		memset(p->bytes + 16, 127, 4);
	} else {
		p->bytes[0] = 0x60;
		p->bytes[6] = (uint8_t)(options ? IPPROTO_DSTOPTS : protocol);
		memcpy(p->bytes + 8, source, 16);
		memset(p->bytes + 24, 1, 16);
	}
	if (options) {
		p->bytes[ip] = (uint8_t)(decoy >> 8);
		p->bytes[ip + 1] = (uint8_t)decoy;
	}
	p->bytes[transport] = (uint8_t)(port >> 8);
	p->bytes[transport + 1] = (uint8_t)port;
	p->payload = transport + transport_len;
	p->len = p->payload; /* a SYN carries nothing, and a datagram may */
}

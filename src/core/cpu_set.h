/* SPDX-License-Identifier: Apache-2.0 */
/* A set of CPUs, as sched_setaffinity(2) and cpuset(7) know them. */
#pragma once

#include "base/util.h"

enum { CPU_SET_MAX = 1024 };

struct cpu_set {
	uint64_t bits[CPU_SET_MAX / 64];
};

static inline void cpu_set_add(struct cpu_set *set, unsigned cpu)
{
	set->bits[cpu / 64] |= UINT64_C(1) << (cpu % 64);
}

static inline bool cpu_set_has(const struct cpu_set *set, unsigned cpu)
{
	return cpu < CPU_SET_MAX && (set->bits[cpu / 64] >> (cpu % 64) & 1) != 0;
}

static inline unsigned cpu_set_count(const struct cpu_set *set)
{
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(set->bits); i++)
		n += (unsigned)__builtin_popcountll(set->bits[i]);
	return n;
}

/* The i-th of them, beginning again from the first after the last. The set is not empty. */
unsigned cpu_set_nth(const struct cpu_set *set, unsigned i);
/* "0-3,8"; "" for the empty set. The caller frees; NULL: out of memory. */
char *cpu_set_format(const struct cpu_set *set);
/* "0-3,8", the list format of cpuset(7). 0; -EINVAL; -ERANGE: a CPU of CPU_SET_MAX or more;
 * -ENOMEM. *ret is touched on success only. */
int cpu_set_parse(const char *s, struct cpu_set *ret);

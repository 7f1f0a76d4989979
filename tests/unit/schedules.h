/* SPDX-License-Identifier: Apache-2.0 */
/* Random schedules of a service: a random configuration, then requests, deaths, delays and time
 * jumps in random order, against a world that does what the effects ask for, and sometimes not. The
 * promises are checked after each step; at the end the world behaves, and the service must come to
 * rest. No process, socket or clock is involved. */
#pragma once

#include "base/util.h"

/* Where decisions come from: a pseudo-random sequence, or the bytes of a fuzzer (then all further
 * decisions are 0 when they are used up). */
struct schedule_source {
	uint64_t state;
	const uint8_t *bytes; /* NULL: the sequence that begins with state */
	size_t n_bytes, position;
};

/* What a run of schedules met, to see that nothing of importance was left out by chance. */
struct schedule_counts {
	uint64_t schedules, steps, effects;
	uint64_t rollouts_done, rollouts_failed, rollbacks, rescues, given_up, stopped, restored;
	uint64_t verified, verify_failed, recycled, recycle_failed, warm, warm_rollbacks,
		warm_crashes, deaths, handovers, rests, adopted, let_go;
};

/* One schedule. trace: each step is written there; NULL: nothing. counts may be NULL. Returns NULL,
 * or what went wrong (the caller frees). */
char *schedule_run(struct schedule_source *source, FILE *trace, struct schedule_counts *counts);
/* The schedules with seeds first to first + n - 1. At the first that fails, its seed, its steps and
 * the reason are written to stderr, and -1 is returned. seconds: stop after that long, 0: never. */
int schedules_run(uint64_t first, uint64_t n, double seconds, struct schedule_counts *counts);

/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an upgrade: from one generation to the next, step by step, or back. It counts, so it
 * is functions, not a table.
 *
 *   WAITING ----> STARTING <-------------------+         (recreate: STOPPING_OLD before STARTING)
 *  (for room)        | step's workers ready    | next step
 *                    v                         |
 *                 SOAKING ---------------------+
 *                    | last step's soak is over: promoted
 *                    v
 *                 SETTLING ---> ended: done
 *
 *   any failure before promotion ---> ended: rolled back  (recreate: RESTORING until the old one is
 * started again) */
#pragma once

#include "core/generation.h"

struct service;
struct upgrade_spec;

enum rollout_phase {
	ROLLOUT_NONE,
	ROLLOUT_WAITING,
	ROLLOUT_STOPPING_OLD,
	ROLLOUT_STARTING,
	ROLLOUT_SOAKING,
	ROLLOUT_SETTLING,
	ROLLOUT_RESTORING,
};

struct rollout_step {
	unsigned workers; /* of the new generation that must be ready */
	unsigned weight;  /* what it then gets */
};

struct rollout {
	enum rollout_phase phase;
	unsigned id;	   /* grows with each */
	unsigned from, to; /* generation numbers; from 0: there was none */
	struct rollout_step steps[CONFIG_WORKERS_MAX];
	unsigned n_steps;
	unsigned step;		/* the one being reached or soaked */
	uint64_t deadline_usec; /* of SOAKING */
	unsigned pause_at;	/* share at which it pauses by itself; 0: nowhere */
	bool paused;
	bool cut_short;	    /* WAITING: the oldest drain ends when nothing waits in its queues */
	bool took_over;	    /* the new one has the sockets of the old one, which is down */
	enum reason reason; /* RESTORING: why */
};

/* The steps a strategy makes of n workers. Returns how many. ret: room for CONFIG_WORKERS_MAX. */
unsigned rollout_plan(const struct policy *p, unsigned pause_at, struct rollout_step *ret);
/* Begin; the generation is s->generations' newest. */
void rollout_begin(
	struct service *s, struct generation *to, unsigned pause_at, struct effects *ret);
/* Go as far as state and time allow. Called after every event. */
void rollout_advance(struct service *s, uint64_t now_usec, struct effects *ret);
/* Go back to the old generation because of reason (worker: who, or NO_WORKER). Only before
 * promotion. */
void rollout_fail(struct service *s, enum reason reason, unsigned worker, uint64_t now_usec,
	struct effects *ret);
/* Give it up without going anywhere: the service stops. */
void rollout_cancel(struct service *s, enum reason reason, struct effects *ret);
void rollout_promote(struct service *s, bool full, uint64_t now_usec, struct effects *ret);
/* Does what happens to this generation fail the rollout? */
bool rollout_depends_on(const struct service *s, const struct generation *g);
/* Begun and not yet promoted. */
bool rollout_is_open(const struct rollout *r);
const char *rollout_phase_to_string(enum rollout_phase p);

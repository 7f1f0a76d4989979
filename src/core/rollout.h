/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an upgrade: from one generation to the next, step by step, or back. It counts, so it
 * is functions, not a table.
 *
 *   WAITING ----> STARTING <-------------------+         (recreate: STOPPING_OLD before STARTING)
 *  (for room)        | step's workers ready    | next step
 *                    v                         |
 *                 SOAKING ---------------------+
 *                    | last step's soak is over, and it is verified: promoted
 *                    v
 *                 SETTLING ---> ended: done
 *
 *   any failure before promotion ---> ended: rolled back  (recreate: RESTORING until the old one is
 * started again)
 *
 * A step fails when a worker of the new generation exits, misses its watchdog or says ERRNO=, at
 * any time before promotion, also while paused; and when a run of verify fails.
 *
 * verify: the first run begins with the step, when its share is in force; with an interval further
 * ones follow, each that long after the end of the one before, until the soak is over; while paused
 * they go on. A step ends when its soak is over, it had a good run, and none is under way. The
 * first start has nothing to go back to and is not verified. `promote` ends the soak, not the
 * verify: it waits for the run that is under way. `promote --full` is the operator's word: the
 * rollout goes to its last step at once, the run under way is stopped, and verify is not asked any
 * more. */
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
	/* Of the present step */
	bool soaked;		  /* its soak is over */
	bool verified;		  /* it had a good run of verify */
	bool verifying;		  /* a run is under way */
	bool verify_waived;	  /* promote --full: not asked any more */
	unsigned verify_run;	  /* number of the last run; grows from rollout to rollout */
	uint64_t verify_due_usec; /* the next run; USEC_INFINITY: none */
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
/* May the number of workers change now? In a canary, and in blue-green. */
bool rollout_can_scale(const struct service *s);
/* The new generation will have n workers (it has room for them): its steps need their part of
 * them, the present one at once. */
void rollout_scale(struct service *s, unsigned n, uint64_t now_usec, struct effects *ret);
void rollout_promote(struct service *s, bool full, uint64_t now_usec, struct effects *ret);
/* Does what happens to this generation fail the rollout? */
bool rollout_depends_on(const struct service *s, const struct generation *g);
/* Begun and not yet promoted. */
bool rollout_is_open(const struct rollout *r);
const char *rollout_phase_to_string(enum rollout_phase p);
/* When rollout_advance() has to be called although nothing happened; USEC_INFINITY: not. */
uint64_t rollout_next_deadline(const struct service *s);

/* rollout_verify.c. Of the present step: none: nothing is to be verified (no rollout, no verify,
 * the first start, promote --full); pending: its share is not in force yet; running: no good run
 * yet. */
enum verify_state {
	VERIFY_STATE_NONE,
	VERIFY_STATE_PENDING,
	VERIFY_STATE_RUNNING,
	VERIFY_STATE_PASSED
};
enum verify_state rollout_verify_state(const struct service *s);
/* When the present step's soak ends (it may then still wait for verify); USEC_INFINITY: while
 * paused, or when there is none. */
uint64_t rollout_soak_end(const struct service *s);
/* Inside the machines: a step has its share; leave it; must it wait; time; the end of a run (of any
 * other than the present run nothing is heard). */
void rollout_verify_begin(struct service *s, struct effects *ret);
/* A run that is under way has got lost: another one, for the same. */
void rollout_verify_again(struct service *s, struct effects *ret);
void rollout_verify_stop(struct rollout *r, struct effects *ret);
bool rollout_verify_holds(const struct service *s);
void rollout_verify_tick(struct service *s, uint64_t now_usec, struct effects *ret);
uint64_t rollout_verify_next(const struct service *s);
void rollout_verify_result(struct service *s, unsigned generation, unsigned number, bool good,
	uint64_t now_usec, struct effects *ret);

/* SPDX-License-Identifier: Apache-2.0 */
/* A generation: the workers started from one snapshot, the lane they accept from, its share of new
 * connections.
 *
 *     STARTING --(rollout promoted)--> SERVING --(replaced)--> WARM --(keep_warm over)--> RETIRING
 * --> forgotten |                               ^  \________________________________________/^
 *        +--(failed, aborted)--> RETIRING |                                           |
 *                                       PARKED (recreate: stopped first, kept for the way back)
 */
#pragma once

#include "core/config.h"
#include "core/effect.h"
#include "core/worker.h"

/* The numbers of a configuration that the machines need, taken when the generation is made. */
struct policy {
	unsigned workers;
	bool steered;	 /* at least one listener has lanes */
	bool per_worker; /* all listeners with lanes have one socket per worker */
	enum strategy strategy;
	unsigned surge;
	unsigned steps[CONFIG_STEPS_MAX];
	size_t n_steps;
	uint64_t soak_usec;
	uint64_t keep_warm_usec;
	bool contained; /* it can be seen when nobody is left of it (a cgroup of its own) */
	bool sticky;	/* shares are drawn by the client's address */
	bool verify;	/* each step needs a good run of verify */
	uint64_t verify_interval_usec; /* 0: one per step */
	uint64_t recycle_after_usec;   /* 0: never */
	enum overlap overlap;
	uint64_t ready_timeout_usec;
	struct drain_config drain;
	enum restart_policy restart;
	struct backoff_policy backoff;
};

/* A connection whose first byte is waited for (defer_accept) belongs to the socket that it came to:
 * settling lasts as long as that may take, and a second. Part of policy_from_config(), and for
 * generations that run when their sockets are told to wait. */
void policy_defer(struct policy *p, const struct service_config *c);
/* The same, for sockets that were told so by somebody else. usec: how long; 0: they do not wait. */
void policy_defer_usec(struct policy *p, uint64_t usec);
/* steered, per_worker and contained are the caller's to set: they depend on what could be bound,
 * and made. */
void policy_from_config(struct policy *p, const struct service_config *c);

enum generation_state {
	GENERATION_STARTING,
	GENERATION_SERVING,
	GENERATION_WARM,
	GENERATION_PARKED,
	GENERATION_RETIRING,
};

enum { LANE_NONE = UINT32_MAX };

struct generation {
	unsigned number;
	enum generation_state state;
	unsigned lane;	 /* LANE_NONE until it is prepared */
	unsigned weight; /* 0..10000 of new connections */
	bool had_weight; /* something may be in its queues */
	bool proven;	 /* all its workers were ready at once: respawned for ever */
	bool failed;
	bool given_up;
	bool adopted; /* its worker was running before us: until it is replaced it is only let go,
			 never ended */
	enum reason reason;	  /* why it is leaving */
	uint64_t zero_since_usec; /* when it lost its share */
	uint64_t since_usec;
	uint64_t warm_until_usec;
	uint64_t empty_until_usec; /* its workers are gone, and until then it is waited for what
				      they left behind; 0: not yet */
	uint64_t listeners;	   /* bit per listener of the service it was given */
	struct policy policy;
	struct worker *workers; /* n_workers of them, index = position */
	unsigned n_workers;	/* may exceed wanted while some are leaving */
	unsigned wanted;
};

const char *generation_state_to_string(enum generation_state s);
struct generation *generation_new(unsigned number, const struct policy *policy, uint64_t listeners);
struct generation *generation_free(struct generation *g);

/* One event for one worker: look up, change state, add effects, set deadlines. 0, or -EPROTO (no
 * such line; nothing changed). */
int generation_worker_event(struct generation *g, struct worker *w, enum worker_event on,
	uint64_t now_usec, struct effects *ret);
/* So many connections were counted (COUNT_UNKNOWN: they could not be). It is idle when two counts
 * in a row found none. */
int generation_worker_counted(struct generation *g, struct worker *w, unsigned n_connections,
	uint64_t now_usec, struct effects *ret);
/* Make sure workers 0..n-1 exist and are wanted. 0 or -ENOMEM. */
int generation_grow(struct generation *g, unsigned n);
/* Start workers 0..n-1 that have no process. */
void generation_start(struct generation *g, unsigned n, uint64_t now_usec, struct effects *ret);
/* Its lane is to have a socket for each worker, in every listener. */
void generation_prepare_lane(const struct generation *g, struct effects *ret);
/* New connections are to be divided anew, for its sake. */
void generation_steer(const struct generation *g, struct effects *ret);
/* All workers leave. at_once: without settle and idle wait. */
void generation_retire(struct generation *g, enum reason reason, bool at_once, uint64_t now_usec,
	struct effects *ret);
void generation_retire_worker(struct generation *g, struct worker *w, bool at_once,
	uint64_t now_usec, struct effects *ret);
/* Take back one worker, as if it had never been told to go; started again when it is gone, if it
 * was. */
void generation_unretire_worker(
	struct generation *g, struct worker *w, uint64_t now_usec, struct effects *ret);
/* Take back every worker; those without a process are started. */
void generation_unretire(struct generation *g, uint64_t now_usec, struct effects *ret);
void generation_kill(struct generation *g, uint64_t now_usec, struct effects *ret);

/* What the end of a worker's process means where no rollout depends on it. clean: exit status 0.
 * Returns the event to give it; sets w->backoff_usec and g->given_up. */
enum worker_event generation_exit_event(
	struct generation *g, struct worker *w, bool clean, uint64_t now_usec);

/* Does the restart policy want a worker that ended so to run again? */
bool generation_wants_restart(const struct generation *g, bool clean);

unsigned generation_ready(const struct generation *g); /* workers that are READY */
bool generation_first_ready(
	const struct generation *g, unsigned n); /* are workers 0..n-1 all READY */
bool generation_has_process(const struct generation *g);
bool generation_is_settled(const struct generation *g); /* none still accepts for settle's sake */
/* Are at least half of its workers (and one) ready? With fewer it could not carry the load. */
bool generation_can_carry(const struct generation *g);
/* Can it have all new connections at once, as a way back? A warm one when it can carry them: those
 * of its workers that are down are started meanwhile, and until then the others serve. One that
 * leaves: when none of its workers was told to go yet. Otherwise the way back is a new generation
 * from its snapshot, which proves itself before it serves: nothing fails, it only takes longer. */
bool generation_can_return(const struct generation *g);
void generation_set_weight(struct generation *g, unsigned weight, uint64_t now_usec);
/* Deadlines of its workers that are due become events; polls become questions. */
void generation_tick(struct generation *g, uint64_t now_usec, struct effects *ret);
uint64_t generation_next_deadline(const struct generation *g);
/* Which slots may get new connections: those of READY workers, or when none is the one where they
 * wait for somebody. ret: n_workers entries. */
void generation_active_slots(const struct generation *g, bool *ret);
/* They are as above now: remember who got some. */
void generation_note_shares(struct generation *g);

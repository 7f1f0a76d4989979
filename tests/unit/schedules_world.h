/* SPDX-License-Identifier: Apache-2.0 */
/* The world of a schedule: processes, queues and time. */
#pragma once

#include "core/service.h"
#include "schedules.h"

enum {
	WORLD_WORKERS = 8,
	WORLD_GENERATIONS = CONFIG_GENERATIONS_MAX + 2,
	WORLD_LANES = 16,
	WORLD_LISTENERS = 2,
	WORLD_PENDING = 256,
};

struct world_worker {
	/* The present process, and how it will behave */
	bool alive;
	bool watched; /* somebody waits for its readiness */
	bool never_ready, ignores_signals;
	bool told, termed, killed, aborted;
	bool asked;   /* somebody wants it recycled */
	bool adopted; /* ran before the service did */
	uint64_t spawned_usec, ready_usec, told_usec, termed_usec, killed_usec, aborted_usec;
	/* What its queue gets, over all its processes */
	bool share, had_share;
	bool empty_seen; /* the core was told that its queue is empty after it lost its share */
	uint64_t share_lost_usec;
};

struct world_generation {
	unsigned number; /* 0: free */
	unsigned lane;	 /* whose sockets were prepared for it; LANE_NONE */
	unsigned n_slots;
	uint64_t
		rest_until_usec; /* somebody is left whom its workers have left behind; 0: nobody */
	struct world_worker workers[WORLD_WORKERS];
};

struct world_share {
	unsigned lane, weight;
	unsigned slots; /* bit per slot */
	bool owned;	/* by a generation */
};
struct world_shares {
	size_t n;
	struct world_share list[WORLD_GENERATIONS];
};

struct world {
	struct schedule_source *source;
	struct service service;
	struct effects effects;
	uint64_t now_usec;
	struct upgrade_spec base; /* what upgrades ask for, with variations */
	struct upgrade_spec spec; /* of the present request */
	unsigned hostility;	  /* how often something goes wrong, in percent */
	bool behaves;		  /* nothing goes wrong any more */
	bool want_start;
	struct world_generation generations[WORLD_GENERATIONS];
	struct world_shares applied[WORLD_LISTENERS];
	unsigned queues[WORLD_LANES][WORLD_WORKERS]; /* connections that wait */
	bool excused[WORLD_LANES]; /* what is left in those queues could not be saved */
	struct service_event pending[WORLD_PENDING]; /* what comes of effects */
	size_t n_pending;
	struct service_event event; /* the present one */
	unsigned n_open_reports;    /* rollouts that were reported as begun and not as ended */
	/* Workers of the last step that rollout came to, and which step that was. */
	unsigned reached_id, reached_step, reached;
	/* The run of verify that is under way, and what the present step of the rollout had */
	bool verifying, step_verified, failed_run, failed_verify;
	unsigned verify_run, verify_generation, step_id;
	uint64_t verify_ended_usec;
	bool closed; /* listeners were closed since the last start */
	/* Whoever drives the service dies in the next step; has died, when so many effects were
	 * applied. The service as it was before. */
	bool dying, dead, has_copy;
	size_t stop_at;
	struct service copy;
	char *failure;
	FILE *trace;
	struct schedule_counts counts;
};

unsigned pick(struct world *w, unsigned n); /* 0..n-1 */
static inline bool chance(struct world *w, unsigned percent)
{
	return pick(w, 100) < percent;
}

/* The first thing that goes wrong is kept. */
void world_fail(struct world *w, const char *format, ...) _printf_(2, 3);
#define REQUIRE(w, condition, ...)                                                                 \
	do {                                                                                       \
		if (__builtin_expect(!(condition), 0))                                             \
			world_fail((w), __VA_ARGS__);                                              \
	} while (0)

struct world_generation *world_generation(struct world *w, unsigned number);
/* Give the service one event, do what it asks for, deliver what comes of that, check everything.
 * Returns service_step()'s answer. */
int world_step(struct world *w, struct service_event event);

/* schedules_effects.c: the world's part of each effect. */
void world_apply(struct world *w);
/* Shares as they are now (not as they were last applied). */
void world_shares(const struct world *w, unsigned listener, struct world_shares *ret);
void world_excuse(struct world *w, unsigned generation);
/* Where a worker's connections wait. */
unsigned *world_queue(struct world *w, const struct generation *g, unsigned worker);

/* The process that was adopted with the present step. */
void world_adopted(struct world *w);
void world_apply_one(struct world *w, const struct effect *e);
void world_steer(struct world *w);
void world_release_lane(struct world *w, struct world_generation *wg);
void world_cut_lane(struct world *w, const struct world_generation *wg, const struct generation *g);

/* schedules_death.c: the end of whoever drives the service, and the next one. */
void world_note_dying(struct world *w); /* before a step */
void world_die(struct world *w);	/* after it, before its effects are applied */
void world_take_over(struct world *w);
/* Between two steps, and nothing gets lost. */
void world_hand_over(struct world *w);

/* schedules_traffic.c: verify, recycling, warm generations: what there was before a step, and what
 * must hold after it. */
struct world_before {
	enum rollout_phase phase;
	unsigned id, step;
	unsigned current, n_ready; /* of the generation that serves */
	bool was_ready, was_warm;  /* the worker of the event; its generation */
	enum service_state state;
	bool healthy;
	struct world_shares shares[WORLD_LISTENERS];
};
void note_before(const struct world *w, struct world_before *ret);
void check_after(struct world *w, const struct world_before *before);
void check_traffic(struct world *w);
void check_recycled(struct world *w, const struct effect *e);
void check_step_end(struct world *w, const struct effect *e);
void world_verify(struct world *w, const struct effect *e);
void world_verified(struct world *w); /* the present event says so, or that it failed */

/* schedules_trace.c */
const char *event_to_string(enum service_event_kind kind);
void trace_step(const struct world *w, int r);

/* schedules_check.c: the promises. */
void check_signal(struct world *w, const struct effect *e, const struct generation *g,
	const struct world_worker *p);
void check_service(struct world *w);
void check_rest(struct world *w, bool stopped);

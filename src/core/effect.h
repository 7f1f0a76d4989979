/* SPDX-License-Identifier: Apache-2.0 */
/* All that the core may ask of the world, as plain data. The manager (daemon/manager.c) applies a
 * list of effects in order with one exhaustive switch; what comes of an effect (a spawn that
 * failed, a queue that was looked at) comes back later as an event, never as a call from inside. */
#pragma once

#include "base/util.h"

enum effect_kind {
	EFFECT_PREPARE_LANE, /* sockets of generation's lane: bound, listening, one slot per worker
				where per-worker */
	EFFECT_SPAWN,	     /* start the worker's process; on failure EVENT_SPAWN_FAILED */
	EFFECT_WATCH_READINESS, /* find out when the worker is ready, then EVENT_READY */
	EFFECT_SIGNAL_DRAIN,	/* the drain signal to the worker's main process */
	EFFECT_SIGNAL_TERM,	/* SIGTERM to its whole group */
	EFFECT_SIGNAL_KILL,	/* SIGKILL to group and descendants */
	EFFECT_SIGNAL_ABORT,	/* SIGABRT to the main process: its watchdog has expired */
	EFFECT_STEER,	    /* shares or ready workers changed: compute and attach the programs */
	EFFECT_QUERY_QUEUE, /* look into the worker's accept queue; EVENT_QUEUE */
	EFFECT_COUNT_CONNECTIONS, /* count the worker's live connections; EVENT_CONNECTIONS */
	EFFECT_VERIFY, /* value: number of the run; EVENT_VERIFIED or EVENT_VERIFY_FAILED with it */
	EFFECT_VERIFY_STOP, /* end the run that may be under way; its result is not wanted */
	EFFECT_END_REST,    /* its workers are gone: end what they left behind (in its cgroup), then
			       EVENT_EMPTY */
	EFFECT_RELEASE_LANE, /* value: a lane whose generation has no process left */
	EFFECT_SWAP_LANES,   /* value: the lane the generation now owns (processes on neither) */
	EFFECT_FORGET_GENERATION, /* nothing of it is left; it will not be named again */
	EFFECT_CLOSE_LISTENERS,	  /* the service has stopped */
	EFFECT_START_AGAIN,	  /* a start was asked for while stopping, and now it can be done */
	EFFECT_REPORT,		  /* something an operator may want to know */
};

#define REPORT_LIST(X)                                                                             \
	X(WORKER_READY, "worker-ready")                                                            \
	X(WORKER_RESPAWN, "worker-respawn")                                                        \
	X(WORKER_BACKOFF, "worker-backoff")                                                        \
	X(WORKER_DRAINING, "worker-draining")                                                      \
	X(WORKER_ESCALATED, "worker-escalated")                                                    \
	X(WORKER_KILLED, "worker-killed")                                                          \
	X(WORKER_GONE, "worker-gone")                                                              \
	X(WORKER_RECYCLED, "worker-recycled")                                                      \
	X(RECYCLE_FAILED, "recycle-failed")                                                        \
	X(QUEUE_ABANDONED, "queue-abandoned")                                                      \
	X(GENERATION_STARTING, "generation-starting")                                              \
	X(GENERATION_SERVING, "generation-serving")                                                \
	X(GENERATION_WARM, "generation-warm")                                                      \
	X(GENERATION_DRAINING, "generation-draining")                                              \
	X(GENERATION_GONE, "generation-gone")                                                      \
	X(GENERATION_GIVEN_UP, "generation-given-up")                                              \
	X(ROLLOUT_STARTED, "rollout-started")                                                      \
	X(ROLLOUT_WAITING, "rollout-waiting")                                                      \
	X(ROLLOUT_STEP, "rollout-step")                                                            \
	X(ROLLOUT_VERIFIED, "rollout-verified")                                                    \
	X(ROLLOUT_PAUSED, "rollout-paused")                                                        \
	X(ROLLOUT_PROMOTED, "rollout-promoted")                                                    \
	X(ROLLOUT_ENDED, "rollout-ended")                                                          \
	X(SCALED, "scaled")                                                                        \
	X(SERVICE_STOPPING, "service-stopping")                                                    \
	X(SERVICE_STOPPED, "service-stopped")

enum report {
#define X(name, text) REPORT_##name,
	REPORT_LIST(X)
#undef X
};
enum { N_REPORTS = REPORT_SERVICE_STOPPED + 1 };
const char *report_to_string(enum report r);

/* Why a rollout ended, or a generation leaves. */
#define REASON_LIST(X)                                                                             \
	X(NONE, "none")                                                                            \
	X(DONE, "done")                                                                            \
	X(SPAWN_FAILED, "could not be started")                                                    \
	X(EXITED_BEFORE_READY, "exited before it was ready")                                       \
	X(NOT_READY_IN_TIME, "was not ready in time")                                              \
	X(EXITED_IN_SOAK, "exited while it soaked")                                                \
	X(VERIFY_FAILED, "was not verified")                                                       \
	X(WATCHDOG, "missed its watchdog")                                                         \
	X(SAID_ERROR, "reported an error")                                                         \
	X(LANE_FAILED, "its sockets could not be made")                                            \
	X(ABORTED, "aborted")                                                                      \
	X(ROLLED_BACK, "rolled back on request")                                                   \
	X(SUPERSEDED, "superseded by a later upgrade")                                             \
	X(STOPPED, "the service was stopped")                                                      \
	X(REPLACED, "replaced by a newer generation")                                              \
	X(SCALED_DOWN, "scaled down")                                                              \
	X(TOO_OLD, "reached the age at which it is recycled")                                      \
	X(TOO_BIG, "reached the memory at which it is recycled")                                   \
	X(START_LIMIT, "was started too often without becoming ready")

enum reason {
#define X(name, text) REASON_##name,
	REASON_LIST(X)
#undef X
};
enum { N_REASONS = REASON_START_LIMIT + 1 };
const char *reason_to_string(enum reason r);

enum { NO_WORKER = UINT32_MAX };

struct effect {
	enum effect_kind kind;
	enum report report; /* of EFFECT_REPORT */
	enum reason reason;
	unsigned generation; /* its number */
	unsigned worker;     /* its index, or NO_WORKER */
	unsigned value;	     /* lane, share, step: as the kind says */
};

struct effects {
	struct effect *list;
	size_t n, capacity;
};

/* Room for n more, so that adding cannot fail in the middle of a step. 0 or -ENOMEM. */
int effects_reserve(struct effects *e, size_t n);
/* Within what was reserved it cannot fail. */
void effects_add(struct effects *e, struct effect effect);
void effects_done(struct effects *e);

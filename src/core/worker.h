/* SPDX-License-Identifier: Apache-2.0 */
/* The life of one worker: a flat table of transitions, one per line, in worker.c.
 *
 *                  START                READY                 RETIRE               SETTLED
 *     STOPPED ------------> STARTING ----------> READY --------------> SETTLING ----------->
 * EMPTYING ^                   ^    |                |                  (still accepts)          |
 * EMPTY | EXIT_FINAL        |    | EXIT_BACKOFF   | EXIT_RESPAWN                              v |
 * BACKOFF_OVER |    v                v                                        IDLING | BACKOFF
 * STARTING                                        | IDLE | v
 *        +---- any ---- KILLED <--KILL_TIMEOUT-- ESCALATED <--DRAIN_TIMEOUT-- DRAINING <-------+
 *
 * RETIRE_NOW goes straight to DRAINING (nothing was ever steered to it, or its queue has other
 * owners). EXIT_RESCUE starts a process again while SETTLING or EMPTYING, or for a worker that was
 * killed before it came to that, because its queue may hold connections that nobody else would
 * serve. UNRETIRE takes back a worker that was not
 * signalled yet. Guards become events before the look-up: what an exit means is decided by the
 * generation. */
#pragma once

#include "core/backoff.h"
#include "core/effect.h"

#define WORKER_STATE_LIST(X)                                                                       \
	X(STOPPED, "stopped")                                                                      \
	X(STARTING, "starting")                                                                    \
	X(READY, "ready")                                                                          \
	X(SETTLING, "settling")                                                                    \
	X(EMPTYING, "emptying")                                                                    \
	X(IDLING, "idling")                                                                        \
	X(DRAINING, "draining")                                                                    \
	X(ESCALATED, "escalated")                                                                  \
	X(KILLED, "killed")                                                                        \
	X(BACKOFF, "backoff")

enum worker_state {
#define X(name, text) WORKER_##name,
	WORKER_STATE_LIST(X)
#undef X
};
enum { N_WORKER_STATES = WORKER_BACKOFF + 1 };

#define WORKER_EVENT_LIST(X)                                                                       \
	X(START, "start")                                                                          \
	X(BECAME_READY, "became-ready")                                                            \
	X(READY_TIMEOUT, "ready-timeout")                                                          \
	X(EXIT_RESPAWN, "exit-respawn")                                                            \
	X(EXIT_BACKOFF, "exit-backoff")                                                            \
	X(EXIT_RESCUE, "exit-rescue")                                                              \
	X(EXIT_FINAL, "exit-final")                                                                \
	X(BACKOFF_OVER, "backoff-over")                                                            \
	X(RETIRE, "retire")                                                                        \
	X(RETIRE_NOW, "retire-now")                                                                \
	X(UNRETIRE, "unretire")                                                                    \
	X(SETTLED, "settled")                                                                      \
	X(EMPTY, "empty")                                                                          \
	X(IDLE, "idle")                                                                            \
	X(DRAIN_TIMEOUT, "drain-timeout")                                                          \
	X(KILL_TIMEOUT, "kill-timeout")                                                            \
	X(KILL, "kill")                                                                            \
	X(WATCHDOG, "watchdog")

enum worker_event {
#define X(name, text) WORKER_ON_##name,
	WORKER_EVENT_LIST(X)
#undef X
};
enum { N_WORKER_EVENTS = WORKER_ON_WATCHDOG + 1 };

/* What a transition asks for; generation.c turns it into effects and deadlines. */
enum worker_action {
	WORKER_DO_SPAWN = 1 << 0,
	WORKER_DO_WATCH_READINESS = 1 << 1,
	WORKER_DO_ARM_READY = 1 << 2,
	WORKER_DO_ARM_BACKOFF = 1 << 3,
	WORKER_DO_ARM_SETTLE = 1 << 4,
	WORKER_DO_ARM_EMPTY = 1 << 5,
	WORKER_DO_ARM_IDLE = 1 << 6,
	WORKER_DO_ARM_DRAIN = 1 << 7,
	WORKER_DO_ARM_KILL = 1 << 8,
	WORKER_DO_DISARM = 1 << 9,
	WORKER_DO_SIGNAL_DRAIN = 1 << 10,
	WORKER_DO_SIGNAL_TERM = 1 << 11,
	WORKER_DO_SIGNAL_KILL = 1 << 12,
	WORKER_DO_SIGNAL_ABORT = 1 << 13,
	WORKER_DO_STEER = 1 << 14,
};

struct worker_transition {
	enum worker_state from;
	enum worker_event on;
	enum worker_state to;
	unsigned actions; /* set of enum worker_action */
};

struct worker {
	unsigned index;
	enum worker_state state;
	bool was_ready;	  /* the present process */
	bool had_share;	  /* of connections, where it has sockets of its own: some may wait there */
	bool retiring;	  /* it shall go; an exit is final */
	bool seen_idle;	  /* IDLING: the last count found no connections */
	bool unsettled;	  /* EMPTYING, IDLING: its lane had a share again, and has lost it */
	bool owes_settle; /* it was being killed when it was to settle: its queue still has to */
	unsigned restarts; /* respawns in this generation */
	unsigned rescues;  /* respawns while retiring, for the sake of its queue */
	struct backoff backoff;
	uint64_t since_usec; /* in this state */
	uint64_t ready_usec; /* when the present process became ready, if it did */
	enum reason
		recycle; /* the present process is to be replaced: why; REASON_NONE: it is not */
	uint64_t deadline_usec; /* of this state; USEC_INFINITY: none */
	uint64_t poll_usec;	/* next look at queue or connections; USEC_INFINITY: none */
	uint64_t backoff_usec;	/* set before EXIT_BACKOFF: how long */
};

/* The line for (from, on), or NULL: an error that leaves the state unchanged. */
const struct worker_transition *worker_transition(enum worker_state from, enum worker_event on);
/* All lines, for tests. */
const struct worker_transition *worker_transitions(size_t *ret_n);

static inline bool worker_state_has_process(enum worker_state s)
{
	return s != WORKER_STOPPED && s != WORKER_BACKOFF;
}
/* Retiring, but not yet told: it still accepts. */
static inline bool worker_state_is_leaving(enum worker_state s)
{
	return s == WORKER_SETTLING || s == WORKER_EMPTYING || s == WORKER_IDLING;
}

const char *worker_state_to_string(enum worker_state s);
const char *worker_event_to_string(enum worker_event e);

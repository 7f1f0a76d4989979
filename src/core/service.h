/* SPDX-License-Identifier: Apache-2.0 */
/* A service: its generations, the rollout between two of them, and the one function that moves all
 * of it: service_step(state, event, time) -> new state and effects. No system call, no clock, no
 * callback. */
#pragma once

#include "core/generation.h"
#include "core/recycle.h"
#include "core/rollout.h"

enum service_event_kind {
	/* What people ask for */
	EVENT_UPGRADE, /* spec: a new generation. Also the first start. */
	EVENT_START, /* while stopping: start again when everything is gone (EFFECT_START_AGAIN) */
	EVENT_STOP,
	EVENT_KILL,    /* stop, without waiting for anything */
	EVENT_PROMOTE, /* value: 1 = full */
	EVENT_PAUSE,
	EVENT_ABORT,	/* reason */
	EVENT_ROLLBACK, /* generation: one that is still alive and was told nothing */
	EVENT_SCALE,	/* value: workers */
	EVENT_ADOPT,  /* spec: a generation of one worker that runs already, somebody else's. It has
			 all the connections at once; an upgrade that follows takes them from it.
			 Only  while nothing runs */
	EVENT_LET_GO, /* generation: an adopted one: forget it; it goes on by itself */
	/* What the world says */
	EVENT_SPAWN_FAILED,	    /* generation, worker; value: 1 = trying again is useless until
				       something is changed */
	EVENT_READY,		    /* generation, worker */
	EVENT_EXITED,		    /* generation, worker; value: 1 = clean (status 0) */
	EVENT_WATCHDOG,		    /* generation, worker */
	EVENT_SAID_ERROR,	    /* generation, worker: sd_notify ERRNO= */
	EVENT_QUEUE,		    /* generation, worker; value: connections waiting */
	EVENT_CONNECTIONS,	    /* generation, worker; value: live ones, COUNT_UNKNOWN */
	EVENT_VERIFIED,		    /* generation; value: the run's number */
	EVENT_VERIFY_FAILED,	    /* as above */
	EVENT_RECYCLE,		    /* generation, worker; reason: TOO_OLD, TOO_BIG */
	EVENT_LANE_FAILED,	    /* generation */
	EVENT_EMPTY,		    /* generation: nobody is left of it */
	EVENT_EXTEND_READY_TIMEOUT, /* generation, worker; usec: from now */
	EVENT_TIME,		    /* a deadline may have passed */
	EVENT_LISTENERS, /* generation: what it listens on has changed while it runs; spec: the
			    listeners, and of its policy steered and per_worker */
};

enum { COUNT_UNKNOWN = UINT32_MAX };

/* What an upgrade is to be. */
struct upgrade_spec {
	struct policy policy;
	uint64_t listeners; /* bit per listener id */
	unsigned pause_at;  /* share; 0: nowhere */
	bool restart;	    /* the same snapshot again */
};

struct service_event {
	enum service_event_kind kind;
	unsigned generation;
	unsigned worker;
	unsigned value;
	uint64_t usec;
	enum reason reason;
	const struct upgrade_spec *spec;
};

/* Answers to requests that cannot be done now; nothing was changed. */
enum {
	SERVICE_E_ROLLOUT_IN_PROGRESS =
		1, /* overlap says reject or queue: the caller keeps it for REPORT_ROLLOUT_ENDED */
	SERVICE_E_TOO_MANY_GENERATIONS,
	SERVICE_E_NO_ROLLOUT,
	SERVICE_E_NOT_RUNNING,
	SERVICE_E_NOT_ALIVE, /* rollback: that generation is gone or was told to go: upgrade from
				its snapshot */
	SERVICE_E_STOPPING,
	SERVICE_E_ADOPTED, /* what was adopted has not been replaced, and could not come back */
};

enum service_state {
	SERVICE_STOPPED,
	SERVICE_STARTING,
	SERVICE_SERVING,
	SERVICE_UPGRADING,
	SERVICE_FAILING
};

struct service {
	struct generation *generations[CONFIG_GENERATIONS_MAX + 2]; /* oldest first */
	size_t n_generations;
	unsigned last_number;
	unsigned current; /* number of the generation that serves; 0: none */
	bool wanted;	  /* somebody wants it to run */
	bool stopping;
	bool start_again;
	bool gave_up;		  /* its last start was given up, nothing runs */
	unsigned queue_lane;	  /* where new connections wait while no generation has a share */
	uint64_t queue_listeners; /* those that have sockets there */
	struct rollout rollout;
	struct recycle recycle;
};

void service_init(struct service *s);
void service_done(struct service *s);

/* 0; SERVICE_E_* as above; -ENOMEM (nothing changed); -EPROTO: the event makes no sense for that
 * object now, nothing changed; -ESRCH: no such generation or worker. Effects are appended to ret.
 * For EVENT_UPGRADE the new generation's number is s->last_number afterwards. */
int service_step(struct service *s, const struct service_event *event, uint64_t now_usec,
	struct effects *ret);

/* Go on with machines that another process drove until it died (service_resume.c): they are as they
 * were when their last step was written down, before anything of it was done. What that step and
 * earlier ones asked for is asked for again, as far as it can be seen from the state; whoever
 * applies effects must take those that were done already. The rules:
 *   - nothing that came due while nobody was there is held against anybody: deadlines of workers
 *     begin anew, and a step of a rollout soaks (and is verified) anew;
 *   - a rollout goes on where it was; what happened to its workers meanwhile is told by the usual
 *     events, and fails it or not as it always does;
 *   - workers that are STARTING are watched anew; DRAINING ones get the drain signal (again: the
 *     caller knows whether it was sent), ESCALATED ones SIGTERM as well, KILLED ones SIGKILL when
 *     kill_after has passed;
 *   - lanes of all generations are prepared again, and steering is attached.
 * EFFECT_SPAWN is never asked for: the caller knows which processes there are, and starts those
 * that are missing. Send EVENT_TIME afterwards. 0 or -ENOMEM (nothing changed). */
int service_resume(struct service *s, uint64_t now_usec, struct effects *ret);
/* Go on with machines that were handed over between two steps, at once: all that was asked for was
 * done, and somebody watched up to now. So deadlines stay as they are, and a step goes on soaking.
 * Only what was being found out is asked for again: the readiness of STARTING workers, and a run of
 * verify that was under way, which gets another number. Otherwise as service_resume(). */
int service_continue(struct service *s, struct effects *ret);
/* Could the machines have come to be like that? For what was read from outside: service_step()
 * works on what is valid. */
bool service_is_valid(const struct service *s);

/* When EVENT_TIME is due; USEC_INFINITY: nothing waits. */
uint64_t service_next_deadline(const struct service *s);
enum service_state service_state(const struct service *s);
const char *service_state_to_string(enum service_state s);
bool service_is_healthy(const struct service *s);
/* It should run, and nothing could even be started: from now on it is failing, not stopped, until
 * it is started or stopped. */
void service_start_failed(struct service *s);
struct generation *service_generation(const struct service *s, unsigned number);
/* Connections that come while no generation has a share wait in the lane of this one. */
void service_keep_queue(struct service *s, const struct generation *g);
/* The oldest generation that is leaving, or NULL. */
struct generation *service_oldest_leaving(const struct service *s);

struct lane_share {
	unsigned lane;
	unsigned weight;		     /* sum over the result: 10000 */
	const struct generation *generation; /* NULL: nobody's lane, connections wait there */
};
/* Who gets new connections of one listener (its bit). Generations that were not given the listener
 * count for nothing. Returns how many lanes have a share (at least 1). ret: room for
 * CONFIG_GENERATIONS_MAX + 2. */
size_t service_shares(const struct service *s, uint64_t listener, struct lane_share *ret);

/* SPDX-License-Identifier: Apache-2.0 */
/* What a keeper (daemon/keeper.h) does about its daemon: when to start it, when it is taken to be
 * hung, what its end means, and with which status the keeper ends itself.
 *
 *     WAITING --due--> STARTING --READY--> SERVING
 *        ^                |                   |
 *        |                +--- it failed -----+          and the keeper, or whoever made the daemon
 *        +------------------------------------+          stop, has not asked for an end
 *
 *     STARTING, SERVING --told to stop, or it says STOPPING--> STOPPING --it has ended--+
 *                                                                                       |
 *     ended well: ENDED      ended badly: SWEEPING (workers get TERM, then KILL) --> ENDED
 *
 * A daemon that fails is started again for ever: at once when it had been ready and lived for a
 * while, else more and more slowly; its workers serve on meanwhile. Only the very first one, that
 * was never ready and has left nothing to go on with, is not: what is wrong with it is for whoever
 * started the keeper. When a daemon cannot be started several times in a row, every other try takes
 * the executable that was there when the keeper began: a broken file on disk is not the end.
 *
 * Pure: events and the time in, what is to be done out. */
#pragma once

#include "core/backoff.h"

enum keep_state {
	KEEP_WAITING,  /* there is no daemon; the next start is due at deadline_usec */
	KEEP_STARTING, /* until it says READY */
	KEEP_SERVING,
	KEEP_STOPPING, /* it runs, and will not be started again */
	KEEP_SWEEPING, /* it is gone, and did not end its workers */
	KEEP_ENDED,
};

enum keep_event_kind {
	KEEP_TIME,	    /* nothing happened; now_usec is past the deadline, or is not */
	KEEP_SPAWN_FAILED,  /* it could not be started */
	KEEP_READY,	    /* READY=1 */
	KEEP_SAYS_STOPPING, /* STOPPING=1 */
	KEEP_ALIVE,	    /* WATCHDOG=1 */
	KEEP_HUNG,	    /* WATCHDOG=trigger */
	KEEP_WATCHDOG,	    /* WATCHDOG_USEC=value; 0 or USEC_INFINITY: none */
	KEEP_EXTEND,	    /* EXTEND_TIMEOUT_USEC=value */
	KEEP_EXITED,	    /* its process ended */
	KEEP_SIGNAL,	    /* the keeper got signal number value */
	KEEP_ALONE,	    /* SWEEPING: no worker is left */
};

struct keep_event {
	enum keep_event_kind kind;
	uint64_t value;
	bool killed; /* KEEP_EXITED: by signal number value; else with exit status value */
	bool holds;  /* KEEP_EXITED, KEEP_SPAWN_FAILED: a state to go on with is held */
};

/* Worth a line in the log, in this order. */
enum keep_note {
	KEEP_NOTE_NONE,
	KEEP_NOTE_DETACHED,  /* it ended and left its work to the next one */
	KEEP_NOTE_FAILED,    /* it ended badly; the next start is in wait_usec */
	KEEP_NOTE_HUNG,	     /* it did not answer in time, and is aborted */
	KEEP_NOTE_KILLED,    /* it did not end then either */
	KEEP_NOTE_NO_DAEMON, /* there is nobody to pass that signal on to */
	KEEP_NOTE_SWEEP,     /* its workers are ended in its place */
	KEEP_NOTE_SWEEP_NOW, /* they did not end in time, or nobody wants to wait */
	KEEP_NOTE_RECOVERED, /* it is ready again */
};

/* What is to be done, in the order of the members. */
struct keep_effects {
	enum keep_note note;
	uint64_t wait_usec;   /* of KEEP_NOTE_FAILED */
	unsigned n_failures;  /* in a row, of KEEP_NOTE_FAILED and KEEP_NOTE_RECOVERED */
	int signal;	      /* to the daemon; 0: none */
	bool drop;	      /* close all that is held for it */
	int sweep;	      /* signal to everything that its workers are; 0: none */
	bool spawn, old_file; /* start a daemon; from the file as it was when the keeper began */
	bool end;	      /* with exit_status */
};

struct keep {
	enum keep_state state;
	uint64_t deadline_usec;	   /* KEEP_TIME is due then; USEC_INFINITY: nothing is */
	bool ever_ready, is_ready; /* a daemon; the present one */
	bool told;		   /* by a signal to end */
	int later; /* a signal for the daemon that starts, which may not know yet what to do with it
		    */
	int aborting; /* the signal that the hung one, or what is swept, was sent last; 0: none */
	uint64_t asked_watchdog_usec, watchdog_usec; /* of each; of the present one. 0: none */
	struct backoff backoff;
	uint64_t waited_usec; /* before the present one was started */
	unsigned n_failures;  /* since one was last ready */
	int exit_status;      /* of the keeper */
};

/* The first start is due at once. watchdog_usec: a daemon that has sent WATCHDOG=1 once and then no
 * other for that long is hung; 0: it is not watched unless it asks to be. */
void keep_init(struct keep *k, uint64_t watchdog_usec);
/* Of a keeper that goes on with a daemon that serves, and is watched. */
void keep_resume(
	struct keep *k, uint64_t asked_watchdog_usec, uint64_t watchdog_usec, uint64_t now_usec);
void keep_step(
	struct keep *k, const struct keep_event *e, uint64_t now_usec, struct keep_effects *ret);

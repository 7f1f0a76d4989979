/* SPDX-License-Identifier: Apache-2.0 */
/* What follow.c and follow_exec.c share; nobody else's. */
#pragma once

#include "daemon/follow.h"

enum follow_kind {
	FOLLOW_ROLLOUT,	    /* until it has ended */
	FOLLOW_ABORT,	    /* until it has ended by being aborted */
	FOLLOW_DRAIN,	    /* promoted; until `from` is gone */
	FOLLOW_QUEUED,	    /* becomes FOLLOW_ROLLOUT of what begins next */
	FOLLOW_START_AGAIN, /* the same, when the stop is over */
	FOLLOW_STOP,
	FOLLOW_SCALE,
};

/* A call that waits, for at least one follower or for its creator. */
struct waiter {
	struct manager *manager;
	struct control_call *call;
	bool waits;	 /* "more" */
	unsigned n_held; /* followers, and 1 until waiter_end() */
	json_t *changes; /* NULL: no Reload */
	json_t *last;	 /* the last progress */
	char *error;
	json_t *error_parameters;
};

struct follower {
	struct waiter *waiter;
	enum follow_kind kind;
	unsigned generation, from;
	unsigned workers;
	bool wait_drain;
	struct follower *next;
};

/* NULL: it does not wait (and has its answer), or there is no memory. */
struct follower *follower_add(
	struct waiter *w, struct manager_service *s, struct follower follower);

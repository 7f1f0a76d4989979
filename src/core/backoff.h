/* SPDX-License-Identifier: Apache-2.0 */
/* When may a worker be started again? The first respawn of a worker that had been ready is
 * immediate; the second within the window waits `from`, each further one twice as long, up to `to`.
 * A quiet window forgets all. A worker that was never ready waits from its first failure on. */
#pragma once

#include "base/util.h"

struct backoff_policy {
	uint64_t from_usec, to_usec;
	uint64_t window_usec;  /* restart.limit.within */
	unsigned limit_starts; /* 0: no limit */
};

struct backoff {
	uint64_t window_start_usec; /* of the first failure that counts for the limit;
				       USEC_INFINITY: none */
	uint64_t last_usec;	    /* when the start after the last failure was due */
	unsigned failures;	    /* since window_start_usec */
	unsigned steps;		    /* of waiting taken since it was last quiet */
};

#define BACKOFF_NULL ((struct backoff){USEC_INFINITY, 0, 0, 0})

/* A failure at now_usec: how long to wait before the next start (0: at once, USEC_INFINITY: the
 * limit of starts is reached). may_give_up false: never USEC_INFINITY, the ceiling instead. Pure:
 * same inputs, same answer. */
uint64_t backoff_failed(struct backoff *b, const struct backoff_policy *p, uint64_t now_usec,
	bool was_ready, bool may_give_up);

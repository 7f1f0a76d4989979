/* SPDX-License-Identifier: Apache-2.0 */
/* Workers of the generation that serves are replaced one at a time, new before old, because of
 * their age (recycle.after) or because somebody asks for it (EVENT_RECYCLE: recycle.memory).
 *
 *   NONE --(one is due)--> SPARE --(spare ready)--> LEAVING --(old one gone)--> RETURNING
 *    ^                       |                         ^                           |
 *    |<--(spare not ready)---'                         '--(next one is due)--------|
 *    '<----------------------(successor ready: the spare retires)-----------------'
 *
 * The spare has the index after the last. It is ready before the old worker begins to leave, and
 * stands in for it until its successor, which gets the old one's index, is ready: so as many are
 * ready as before, and indices stay. Old worker and spare leave as a worker that is scaled away,
 * and nobody is sent away while another is down.
 *
 * Only while no rollout is under way, and never in warm or leaving generations. What people ask for
 * goes first: then the old worker stays if it was not told to go, or is started again when it is
 * gone, and the spare goes when that one is ready. A spare that does not get ready is given up and
 * tried again later; the old workers go on, and nothing has failed but the recycling. So is one
 * that ends before the old worker was told to go. */
#pragma once

#include "core/generation.h"

struct service;

enum recycle_phase {
	RECYCLE_NONE,
	RECYCLE_SPARE,
	RECYCLE_LEAVING,
	RECYCLE_RETURNING,
	RECYCLE_ENDING, /* something else goes first; the spare stands in for who was told to go */
};

struct recycle {
	enum recycle_phase phase;
	unsigned generation;	/* its number */
	unsigned spare, worker; /* indices; worker: who leaves, from LEAVING on */
	unsigned failures;	/* of spares in a row */
	uint64_t retry_usec;	/* not before */
	enum reason reason;	/* why the spare failed */
	bool served;		/* the spare was ready: something may be in its queue */
};

/* Go as far as state and time allow. Called after every event. */
void recycle_advance(struct service *s, uint64_t now_usec, struct effects *ret);
/* When recycle_advance() has to be called although nothing happened; USEC_INFINITY: not. */
uint64_t recycle_next_deadline(const struct service *s);
/* Somebody wants that worker replaced (TOO_OLD, TOO_BIG): remembered until its process ends, unless
 * it is none that is recycled. */
void recycle_request(
	struct service *s, const struct generation *g, struct worker *w, enum reason reason);
/* Something else goes first. */
void recycle_yield(struct service *s, uint64_t now_usec, struct effects *ret);
/* There are to be n workers: a spare that is among them is one like any other from now on (and who
 * was to leave is taken back with the others), or what people ask for goes first. */
void recycle_scale(struct service *s, unsigned n, uint64_t now_usec, struct effects *ret);
/* Does that worker stand in for one that will be ready again? Then it is not the time to retire it.
 */
bool recycle_needs(const struct service *s, const struct generation *g, const struct worker *w);
/* The worker's process has ended, or its sockets could not be made: is it a spare that was not
 * ready yet? Then the caller sees to it that it is not started again. */
bool recycle_spare_failed(
	struct service *s, const struct generation *g, enum reason reason, unsigned worker);
/* When that worker is too old; USEC_INFINITY: never, or it is not ready. The age at which one is
 * replaced is up to a tenth less than configured, differing by worker, so that those that started
 * together are not replaced together. */
uint64_t recycle_age_deadline(const struct generation *g, const struct worker *w);

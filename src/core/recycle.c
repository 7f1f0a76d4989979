/* SPDX-License-Identifier: Apache-2.0 */
#include "core/recycle.h"

#include "core/service.h"

/* Between tries after a spare that did not get ready: twice as long each time. */
#define RETRY_FIRST_USEC (30 * USEC_PER_SEC)
#define RETRY_MOST_USEC (3600 * USEC_PER_SEC)

/* Evenly spread, the same for the same worker each time. */
static uint64_t hash(uint64_t generation, uint64_t worker, uint64_t restarts)
{
	uint64_t z = generation << 42 ^ worker << 21 ^ restarts;

	z += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t recycle_age_deadline(const struct generation *g, const struct worker *w)
{
	uint64_t after = g->policy.recycle_after_usec;

	if (after == 0 || w->state != WORKER_READY)
		return USEC_INFINITY;
	return usec_add(
		w->ready_usec, after - hash(g->number, w->index, w->restarts) % (after / 10 + 1));
}

/* When that worker is to be replaced: 0: it was asked for. */
static uint64_t due(const struct generation *g, const struct worker *w)
{
	if (w->state != WORKER_READY)
		return USEC_INFINITY;
	return w->recycle != REASON_NONE ? 0 : recycle_age_deadline(g, w);
}

/* Who is replaced first, or NULL without workers. */
static struct worker *first_due(const struct generation *g, uint64_t *ret_due)
{
	struct worker *first = NULL;

	*ret_due = USEC_INFINITY;
	for (unsigned i = 0; i < g->wanted; i++) {
		uint64_t at = due(g, &g->workers[i]);

		if (first && at >= *ret_due)
			continue;
		first = &g->workers[i];
		*ret_due = at;
	}
	return first;
}

/* How many more are ready than are wanted; less than 0 while one is down. Who ended by its own
 * will, and is not to be started again, is not missed. */
static int surplus(const struct generation *g)
{
	int n = (int)generation_ready(g) - (int)g->wanted;

	for (unsigned i = 0; i < g->wanted; i++)
		n += g->workers[i].state == WORKER_STOPPED;
	return n;
}

/* The generation whose workers may be recycled now, or NULL. */
static struct generation *candidate(const struct service *s)
{
	struct generation *g = service_generation(s, s->current);

	return g && g->state == GENERATION_SERVING && !s->stopping &&
			       s->rollout.phase == ROLLOUT_NONE && g->n_workers == g->wanted &&
			       surplus(g) >= 0
		       ? g
		       : NULL;
}

/* Where nobody is ready, those that wait do so in the queue of one that will be. */
static struct worker *spare_of(const struct recycle *r, const struct generation *g)
{
	return r->spare < g->n_workers ? &g->workers[r->spare] : NULL;
}

/* Whoever waits in its queue is served first. */
static void retire_spare(struct recycle *r, struct generation *g, uint64_t now, struct effects *ret)
{
	struct worker *spare = spare_of(r, g);

	r->phase = RECYCLE_NONE;
	if (spare)
		generation_retire_worker(g, spare, !r->served, now, ret);
}

static bool begin(struct service *s, uint64_t now, struct effects *ret)
{
	struct recycle *r = &s->recycle;
	struct generation *g = candidate(s);
	unsigned wanted;
	uint64_t at;

	if (!g || now < r->retry_usec || !first_due(g, &at) || at > now)
		return false;
	wanted = g->wanted;
	if (generation_grow(g, wanted + 1) < 0) {
		r->retry_usec = usec_add(now, RETRY_FIRST_USEC);
		return false;
	}
	g->wanted = wanted;
	r->phase = RECYCLE_SPARE;
	r->generation = g->number;
	r->spare = r->worker = wanted;
	r->reason = REASON_NOT_READY_IN_TIME;
	r->served = false;
	generation_prepare_lane(g, ret);
	(void)generation_worker_event(g, &g->workers[wanted], WORKER_ON_START, now, ret);
	return true;
}

/* The spare is of no use: another time. */
static uint64_t put_off(struct recycle *r, uint64_t now)
{
	unsigned doublings = MIN(r->failures, 7U);
	uint64_t wait = MIN(RETRY_FIRST_USEC << doublings, RETRY_MOST_USEC);

	r->failures++;
	r->retry_usec = usec_add(now, wait);
	return wait;
}

/* It has not got ready, or is no longer. */
static void fail(struct service *s, struct generation *g, uint64_t now, struct effects *ret)
{
	struct recycle *r = &s->recycle;
	uint64_t wait = put_off(r, now);

	if (!r->served)
		effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
					 .report = REPORT_RECYCLE_FAILED,
					 .reason = r->reason,
					 .generation = g->number,
					 .worker = NO_WORKER,
					 .value = (unsigned)(wait / USEC_PER_SEC)});
	retire_spare(r, g, now, ret);
}

/* With a spare that is ready: the next one that is due leaves, or the spare does. Nobody is sent
 * away while another is down. */
static bool go_on(struct service *s, struct generation *g, uint64_t now, struct effects *ret)
{
	struct recycle *r = &s->recycle;
	const struct worker *spare = spare_of(r, g);
	uint64_t at;
	struct worker *w = first_due(g, &at);

	if (!spare || spare->state != WORKER_READY) {
		retire_spare(r, g, now, ret);
		return true;
	}
	if (surplus(g) <= 0)
		return false;
	if (!w || at > now) {
		retire_spare(r, g, now, ret);
		return true;
	}
	r->phase = RECYCLE_LEAVING;
	r->worker = w->index;
	effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
				 .report = REPORT_WORKER_RECYCLED,
				 .reason = w->recycle != REASON_NONE ? w->recycle : REASON_TOO_OLD,
				 .generation = g->number,
				 .worker = w->index});
	generation_retire_worker(g, w, false, now, ret);
	return true;
}

/* Is the worker that was to leave as it was, or of no further concern? One that ended by its own
 * will and is not to be started again does not come back. */
static bool is_back(const struct recycle *r, const struct generation *g)
{
	return r->worker >= g->wanted || g->workers[r->worker].state == WORKER_READY ||
	       g->workers[r->worker].state == WORKER_STOPPED;
}

/* Does the spare have to stay, whatever else goes on? */
static bool is_needed(const struct recycle *r, const struct generation *g)
{
	const struct worker *spare = spare_of(r, g);

	if (!spare)
		return false;
	return spare->state == WORKER_READY ? surplus(g) <= 0 : !is_back(r, g);
}

static bool advance_once(struct service *s, uint64_t now, struct effects *ret)
{
	struct recycle *r = &s->recycle;
	struct generation *g = service_generation(s, r->generation);
	struct worker *w, *spare;

	if (r->phase == RECYCLE_NONE)
		return begin(s, now, ret);
	if (!g || g->state == GENERATION_RETIRING || g->state == GENERATION_PARKED) {
		/* All of its workers leave. */
		r->phase = RECYCLE_NONE;
		return true;
	}
	if (g->state != GENERATION_SERVING) {
		retire_spare(r, g, now, ret);
		return true;
	}
	switch (r->phase) {
	case RECYCLE_NONE:
		return false;
	case RECYCLE_SPARE:
		w = spare_of(r, g);
		if (w && w->state == WORKER_STARTING && !w->retiring)
			return false;
		if (!w || w->state != WORKER_READY) {
			fail(s, g, now, ret);
			return true;
		}
		r->served = true;
		return go_on(s, g, now, ret);
	case RECYCLE_LEAVING:
		w = &g->workers[r->worker];
		spare = spare_of(r, g);
		if (worker_state_is_leaving(w->state) && (!spare || spare->state != WORKER_READY)) {
			/* Nobody stands in for it any more, and it was not told anything. */
			generation_unretire_worker(g, w, now, ret);
			(void)put_off(r, now);
			retire_spare(r, g, now, ret);
			return true;
		}
		if (w->state != WORKER_STOPPED)
			return false;
		r->failures = 0;
		r->phase = RECYCLE_RETURNING;
		w->retiring = w->owes_settle = false;
		w->rescues = 0;
		(void)generation_worker_event(g, w, WORKER_ON_START, now, ret);
		generation_steer(g, ret);
		return true;
	case RECYCLE_RETURNING:
		return is_back(r, g) && go_on(s, g, now, ret);
	case RECYCLE_ENDING:
		if (is_needed(r, g))
			return false;
		retire_spare(r, g, now, ret);
		return true;
	}
	return false;
}

void recycle_advance(struct service *s, uint64_t now, struct effects *ret)
{
	while (advance_once(s, now, ret))
		;
}

uint64_t recycle_next_deadline(const struct service *s)
{
	const struct generation *g = candidate(s);
	uint64_t at;

	if (s->recycle.phase != RECYCLE_NONE || !g || !first_due(g, &at) || at == USEC_INFINITY)
		return USEC_INFINITY;
	return MAX(at, s->recycle.retry_usec);
}

void recycle_request(
	struct service *s, const struct generation *g, struct worker *w, enum reason reason)
{
	if (g->number == s->current && g->state == GENERATION_SERVING && w->index < g->wanted &&
		w->state == WORKER_READY)
		w->recycle = reason != REASON_NONE ? reason : REASON_TOO_BIG;
}

void recycle_yield(struct service *s, uint64_t now, struct effects *ret)
{
	struct recycle *r = &s->recycle;
	struct generation *g = service_generation(s, r->generation);

	if (r->phase == RECYCLE_NONE || r->phase == RECYCLE_ENDING || !g)
		return;
	/* One that waits for another that is down stands in for that one. */
	if (r->phase == RECYCLE_SPARE && !r->served) {
		retire_spare(r, g, now, ret);
		return;
	}
	if (r->phase == RECYCLE_LEAVING) {
		generation_unretire_worker(g, &g->workers[r->worker], now, ret);
		generation_steer(g, ret);
	}
	r->phase = RECYCLE_ENDING;
}

void recycle_scale(struct service *s, unsigned n, uint64_t now, struct effects *ret)
{
	struct recycle *r = &s->recycle;

	if (r->spare < n)
		r->phase = RECYCLE_NONE;
	else
		recycle_yield(s, now, ret);
}

bool recycle_needs(const struct service *s, const struct generation *g, const struct worker *w)
{
	const struct recycle *r = &s->recycle;

	return r->phase == RECYCLE_ENDING && r->generation == g->number && r->spare == w->index &&
	       is_needed(r, g);
}

bool recycle_spare_failed(
	struct service *s, const struct generation *g, enum reason reason, unsigned worker)
{
	struct recycle *r = &s->recycle;

	if (r->phase != RECYCLE_SPARE || r->served || r->generation != g->number ||
		r->spare != worker)
		return false;
	r->reason = reason;
	return true;
}

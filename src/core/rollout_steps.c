/* SPDX-License-Identifier: Apache-2.0 */
/* How many workers of the new generation there are at each share, and when that number changes. */
#include "core/service.h"

static void plan_add(struct rollout_step *steps, unsigned *n, unsigned workers, unsigned weight)
{
	if (*n < CONFIG_WORKERS_MAX)
		steps[(*n)++] = (struct rollout_step){workers, weight};
}

/* Workers for a share of new connections: as many as carry that share, at least one. */
static unsigned workers_for(unsigned workers, unsigned share)
{
	return MAX(1u, (unsigned)(((uint64_t)workers * share + SHARE_MAX - 1) / SHARE_MAX));
}

unsigned rollout_plan(const struct policy *p, unsigned pause_at, struct rollout_step *ret)
{
	struct rollout_step steps[CONFIG_WORKERS_MAX];
	unsigned n = 0, out = 0, batch, last = 0;

	switch (p->strategy) {
	case STRATEGY_ROLLING:
		batch = workers_for(p->workers, p->surge);
		for (unsigned k = batch; k < p->workers; k += batch)
			plan_add(steps, &n, k, (unsigned)((uint64_t)SHARE_MAX * k / p->workers));
		break;
	case STRATEGY_CANARY:
		for (size_t i = 0; i < p->n_steps; i++)
			if (p->steps[i] < SHARE_MAX)
				plan_add(steps, &n, workers_for(p->workers, p->steps[i]),
					p->steps[i]);
		break;
	case STRATEGY_BLUE_GREEN:
	case STRATEGY_RECREATE:
		break;
	}
	/* Room for the last, and for one to pause at. */
	n = MIN(n, (unsigned)CONFIG_WORKERS_MAX - 2);
	plan_add(steps, &n, p->workers, SHARE_MAX);

	/* A pause needs a step that ends at its share. */
	for (unsigned i = 0; i < n; i++) {
		if (p->strategy != STRATEGY_RECREATE && last < pause_at &&
			pause_at < steps[i].weight)
			plan_add(ret, &out,
				MAX(workers_for(p->workers, pause_at),
					i ? steps[i - 1].workers : 1),
				pause_at);
		last = steps[i].weight;
		plan_add(ret, &out, steps[i].workers, steps[i].weight);
	}
	ret[out - 1] = (struct rollout_step){p->workers, SHARE_MAX};
	return out;
}

bool rollout_can_scale(const struct service *s)
{
	const struct rollout *r = &s->rollout;
	const struct generation *to = service_generation(s, r->to),
				*from = service_generation(s, r->from);

	/* Workers that go one by one, or are all gone to come back, are counted on as they are. */
	return (r->phase == ROLLOUT_STARTING || r->phase == ROLLOUT_SOAKING) && to && from &&
	       from->state == GENERATION_SERVING &&
	       (to->policy.strategy == STRATEGY_CANARY ||
		       to->policy.strategy == STRATEGY_BLUE_GREEN);
}

void rollout_scale(struct service *s, unsigned n, uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;
	struct generation *to = service_generation(s, r->to);
	unsigned now_needed;

	for (unsigned i = 0; i < r->n_steps; i++)
		r->steps[i].workers = workers_for(n, r->steps[i].weight);
	now_needed = r->steps[r->step].workers;
	/* Those that an earlier scaling down sent away; who has gone waits for its step. */
	for (unsigned i = 0; i < n; i++) {
		struct worker *w = &to->workers[i];

		if (w->state == WORKER_STOPPED && i >= now_needed)
			w->retiring = w->owes_settle = false;
		else if (w->retiring)
			generation_unretire_worker(to, w, now, ret);
	}
	generation_start(to, now_needed, now, ret);
}

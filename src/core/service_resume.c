/* SPDX-License-Identifier: Apache-2.0 */
/* Whoever drove the machines died, and another one takes over from what was written down. It is
 * known what was to be done, not whether it was. Or it handed over in good order: then all was
 * done, and nothing was missed. */
#include "core/service_internal.h"

/* As generation.c has it for processes that do not die of SIGKILL at once. */
#define KILL_AGAIN_USEC USEC_PER_SEC

static void add(struct effects *ret, enum effect_kind kind, const struct generation *g,
	const struct worker *w)
{
	effects_add(
		ret, (struct effect){.kind = kind, .generation = g->number, .worker = w->index});
}

static void resume_worker(struct generation *g, struct worker *w, uint64_t now, struct effects *ret)
{
	const struct drain_config *drain = &g->policy.drain;

	switch (w->state) {
	case WORKER_STARTING:
		w->deadline_usec = usec_add(now, g->policy.ready_timeout_usec);
		add(ret, EFFECT_WATCH_READINESS, g, w);
		break;
	case WORKER_SETTLING:
		w->deadline_usec = usec_add(now, drain->settle_usec);
		break;
	case WORKER_EMPTYING:
		w->deadline_usec = usec_add(now, drain->settle_timeout_usec);
		w->poll_usec = now;
		break;
	case WORKER_IDLING:
		w->deadline_usec = usec_add(now, drain->idle_wait_usec);
		w->poll_usec = now;
		w->seen_idle = false;
		break;
	case WORKER_DRAINING:
		w->deadline_usec = usec_add(now, drain->timeout_usec);
		add(ret, EFFECT_SIGNAL_DRAIN, g, w);
		break;
	case WORKER_ESCALATED:
		w->deadline_usec = usec_add(now, drain->kill_after_usec);
		/* With a drain.timeout of 0 one comes with the other. */
		add(ret, EFFECT_SIGNAL_DRAIN, g, w);
		add(ret, EFFECT_SIGNAL_TERM, g, w);
		break;
	case WORKER_KILLED:
		/* It may have been told to abort, and be writing its core dump. */
		w->deadline_usec = usec_add(now, MAX(drain->kill_after_usec, KILL_AGAIN_USEC));
		break;
	case WORKER_STOPPED:
	case WORKER_READY:
	case WORKER_BACKOFF:
		break;
	}
}

/* Whoever looked for what its workers left behind is gone. */
static void end_rest(const struct generation *g, struct effects *ret)
{
	if (g->empty_until_usec != 0)
		effects_add(ret, (struct effect){.kind = EFFECT_END_REST,
					 .generation = g->number,
					 .worker = NO_WORKER});
}

static void resume_rollout(struct service *s, uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;
	const struct generation *to = service_generation(s, r->to);

	r->verifying = false;
	r->verify_due_usec = USEC_INFINITY;
	if (r->phase != ROLLOUT_SOAKING || !to)
		return;
	/* What nobody has watched proves nothing. */
	r->soaked = false;
	r->deadline_usec = r->from == 0 ? now : usec_add(now, to->policy.soak_usec);
	rollout_verify_begin(s, ret);
}

/* Room for all of it, and its first part: sockets and shares. 0 or -ENOMEM. */
static int resume_sockets(const struct service *s, struct effects *ret)
{
	size_t workers = 0;
	int r;

	for (size_t i = 0; i < s->n_generations; i++)
		workers += s->generations[i]->n_workers;
	r = effects_reserve(ret, ret->n + 2 * ARRAY_SIZE(s->generations) + 8 + 3 * workers);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->lane != LANE_NONE)
			generation_prepare_lane(s->generations[i], ret);
	effects_add(ret, (struct effect){.kind = EFFECT_STEER, .worker = NO_WORKER});
	return 0;
}

int service_resume(struct service *s, uint64_t now, struct effects *ret)
{
	int r = resume_sockets(s, ret);

	if (r < 0)
		return r;
	/* Perhaps nobody has been told until now that it lost its share. */
	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->weight == 0)
			s->generations[i]->zero_since_usec = now;
	for (size_t i = 0; i < s->n_generations; i++) {
		struct generation *g = s->generations[i];

		for (unsigned k = 0; k < g->n_workers; k++)
			resume_worker(g, &g->workers[k], now, ret);
		if (g->empty_until_usec != 0)
			g->empty_until_usec = service_empty_until(g, now);
		end_rest(g, ret);
	}
	resume_rollout(s, now, ret);
	return 0;
}

int service_continue(struct service *s, struct effects *ret)
{
	int r = resume_sockets(s, ret);

	if (r < 0)
		return r;
	for (size_t i = 0; i < s->n_generations; i++) {
		struct generation *g = s->generations[i];

		for (unsigned k = 0; k < g->n_workers; k++)
			if (g->workers[k].state == WORKER_STARTING)
				add(ret, EFFECT_WATCH_READINESS, g, &g->workers[k]);
		end_rest(g, ret);
	}
	rollout_verify_again(s, ret);
	return 0;
}

static bool rollout_is_valid(const struct service *s)
{
	const struct rollout *r = &s->rollout;
	const struct generation *to = service_generation(s, r->to);

	if (r->phase == ROLLOUT_NONE)
		return true;
	if (r->n_steps == 0 || r->step >= r->n_steps)
		return false;
	/* Who is settled may be forgotten. */
	if (r->phase == ROLLOUT_SETTLING)
		return true;
	for (unsigned i = 0; to && i < r->n_steps; i++)
		if (r->steps[i].workers > to->n_workers)
			return false;
	return to && (r->phase == ROLLOUT_WAITING || to->lane != LANE_NONE) &&
	       (r->phase != ROLLOUT_RESTORING || service_generation(s, r->from));
}

bool service_is_valid(const struct service *s)
{
	const struct generation *recycled = service_generation(s, s->recycle.generation);

	for (size_t i = 0; i < s->n_generations; i++) {
		const struct generation *g = s->generations[i];

		if (g->number == 0 || g->number > s->last_number ||
			(i > 0 && g->number <= s->generations[i - 1]->number) ||
			g->wanted > g->n_workers || g->policy.drain.max_generations < 2 ||
			(g->lane != LANE_NONE && g->lane > CONFIG_GENERATIONS_MAX + 1))
			return false;
		for (size_t k = 0; k < i; k++)
			if (g->lane != LANE_NONE && g->lane == s->generations[k]->lane)
				return false;
		for (unsigned k = 0; k < g->n_workers; k++)
			if (g->workers[k].index != k)
				return false;
	}
	if (s->current != 0 && !service_generation(s, s->current))
		return false;
	if (s->recycle.phase == RECYCLE_LEAVING && recycled &&
		s->recycle.worker >= recycled->n_workers)
		return false;
	return rollout_is_valid(s);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What people ask of a service. */
#include "core/service_internal.h"

/* Make room, or say that there is none. Warm generations end first; then the oldest that drains is
 * cut short, unless overlap says that a request has to wait for nobody. What a superseded rollout
 * leaves is room to come. Nothing changes when there is none. */
static int make_room(struct service *s, const struct policy *p, bool superseding, uint64_t now,
	bool *ret_cut_short, struct effects *ret)
{
	bool warm = false, leaving = service_oldest_leaving(s) != NULL;

	*ret_cut_short = false;
	if (s->n_generations < p->drain.max_generations)
		return 0;
	if (s->n_generations >= ARRAY_SIZE(s->generations))
		return SERVICE_E_TOO_MANY_GENERATIONS;
	for (size_t i = 0; i < s->n_generations; i++)
		warm |= s->generations[i]->state == GENERATION_WARM;
	if (!warm && !superseding && (p->overlap == OVERLAP_REJECT || !leaving))
		return SERVICE_E_TOO_MANY_GENERATIONS;
	service_retire_warm(s, now, ret);
	*ret_cut_short = !warm && leaving && p->overlap != OVERLAP_REJECT;
	return 0;
}

static int on_upgrade(
	struct service *s, const struct service_event *event, uint64_t now, struct effects *ret)
{
	const struct upgrade_spec *spec = event->spec;
	struct generation *g;
	const struct generation *from = service_generation(s, s->rollout.from),
				*current = service_generation(s, s->current);
	bool open = rollout_is_open(&s->rollout), cut_short;
	int r;

	if (s->stopping)
		return SERVICE_E_STOPPING;
	/* A first start that does not get ready is not worth waiting for: what comes now may be the
	 * cure. */
	if (open && s->rollout.from != 0 && spec->policy.overlap != OVERLAP_SUPERSEDE)
		return SERVICE_E_ROLLOUT_IN_PROGRESS;
	/* recreate: the old one would have to be started again first. */
	if (open && (s->rollout.phase == ROLLOUT_RESTORING ||
			    (from && from->state == GENERATION_PARKED)))
		return SERVICE_E_ROLLOUT_IN_PROGRESS;
	/* Which would end it first, and had nothing to go back to. */
	if (current && current->adopted && current->state == GENERATION_SERVING &&
		spec->policy.strategy == STRATEGY_RECREATE)
		return SERVICE_E_ADOPTED;
	g = generation_new(s->last_number + 1, &spec->policy, spec->listeners);
	if (!g)
		return -ENOMEM;
	r = make_room(s, &spec->policy, open, now, &cut_short, ret);
	if (r != 0) {
		generation_free(g);
		return r;
	}
	recycle_yield(s, now, ret);
	if (open)
		rollout_fail(s, REASON_SUPERSEDED, NO_WORKER, now, ret);
	else
		rollout_cancel(s, REASON_SUPERSEDED, ret);
	s->last_number++;
	s->generations[s->n_generations++] = g;
	s->wanted = true;
	s->gave_up = false;
	rollout_begin(s, g, spec->pause_at, ret);
	s->rollout.cut_short = cut_short;
	return 0;
}

/* Its worker is ready, and whoever connects is served by it. */
static int on_adopt(
	struct service *s, const struct service_event *event, uint64_t now, struct effects *ret)
{
	const struct upgrade_spec *spec = event->spec;
	struct generation *g;

	if (s->stopping)
		return SERVICE_E_STOPPING;
	if (s->n_generations > 0)
		return SERVICE_E_ROLLOUT_IN_PROGRESS;
	g = generation_new(s->last_number + 1, &spec->policy, spec->listeners);
	if (!g)
		return -ENOMEM;
	g->adopted = g->proven = true;
	g->state = GENERATION_SERVING;
	g->lane = s->queue_lane;
	g->since_usec = now;
	for (unsigned i = 0; i < g->n_workers; i++) {
		struct worker *w = &g->workers[i];

		w->state = WORKER_READY;
		w->was_ready = w->had_share = true;
		w->since_usec = w->ready_usec = now;
	}
	generation_set_weight(g, SHARE_MAX, now);
	s->generations[s->n_generations++] = g;
	s->current = ++s->last_number;
	s->wanted = true;
	s->gave_up = false;
	s->rollout.from = s->rollout.to = 0;
	service_keep_queue(s, g);
	generation_prepare_lane(g, ret);
	generation_steer(g, ret);
	return 0;
}

static int on_let_go(struct service *s, unsigned generation, struct effects *ret)
{
	struct generation *g = service_generation(s, generation);

	if (!g || !g->adopted || s->n_generations > 1)
		return -ESRCH;
	service_let_go(s, ret);
	return 0;
}

/* What is to replace an adopted generation goes, and that one stays with everything. */
static void leave_adopted(struct service *s, uint64_t now, struct effects *ret)
{
	s->wanted = false;
	s->stopping = true;
	s->start_again = false;
	if (rollout_is_open(&s->rollout))
		rollout_fail(s, REASON_STOPPED, NO_WORKER, now, ret);
	if (s->n_generations == 1)
		service_let_go(s, ret);
	for (size_t i = 0; i < s->n_generations; i++)
		if (!s->generations[i]->adopted)
			generation_retire(s->generations[i], REASON_STOPPED, true, now, ret);
}

static int on_stop(struct service *s, bool kill, uint64_t now, struct effects *ret)
{
	const struct generation *current = service_generation(s, s->current);

	if (!s->wanted && s->n_generations == 0 && !s->stopping)
		return SERVICE_E_NOT_RUNNING;
	if (current && current->adopted && current->state == GENERATION_SERVING) {
		if (!s->stopping)
			service_report(ret, REPORT_SERVICE_STOPPING, s->current, 0);
		leave_adopted(s, now, ret);
		for (size_t i = 0; kill && i < s->n_generations; i++)
			if (!s->generations[i]->adopted)
				generation_kill(s->generations[i], now, ret);
		return 0;
	}
	if (!s->stopping)
		service_report(ret, REPORT_SERVICE_STOPPING, s->current, 0);
	s->wanted = false;
	s->stopping = true;
	s->start_again = false;
	rollout_cancel(s, REASON_STOPPED, ret);
	for (size_t i = 0; i < s->n_generations; i++) {
		struct generation *g = s->generations[i];

		if (kill)
			generation_kill(g, now, ret);
		/* Who asks for a stop has no more use for the sockets: no settling, but what is in
		 * flight is finished. */
		generation_retire(g, REASON_STOPPED, true, now, ret);
	}
	return 0;
}

static int on_rollback(
	struct service *s, const struct service_event *event, uint64_t now, struct effects *ret)
{
	struct generation *to = service_generation(s, event->generation),
			  *from = service_generation(s, s->current);
	struct rollout *r = &s->rollout;

	if (s->stopping || !s->wanted)
		return SERVICE_E_NOT_RUNNING;
	if (rollout_is_open(r))
		return SERVICE_E_ROLLOUT_IN_PROGRESS;
	if (!to || to == from || !from || !generation_can_return(to) ||
		(to->state != GENERATION_WARM && to->state != GENERATION_RETIRING))
		return SERVICE_E_NOT_ALIVE;
	/* First of all: who comes from now on is served by the generation we go back to. */
	generation_steer(to, ret);
	rollout_cancel(s, REASON_ROLLED_BACK, ret);
	r->id++;
	r->from = from->number;
	r->to = to->number;
	r->n_steps = 1;
	r->step = 0;
	r->steps[0] = (struct rollout_step){to->wanted, SHARE_MAX};
	r->phase = ROLLOUT_SETTLING;
	to->state = GENERATION_SERVING;
	to->reason = REASON_NONE;
	to->since_usec = now;
	to->warm_until_usec = USEC_INFINITY;
	s->current = to->number;
	service_keep_queue(s, to);
	generation_set_weight(to, SHARE_MAX, now);
	generation_set_weight(from, 0, now);
	generation_unretire(to, now, ret);
	service_report(ret, REPORT_GENERATION_SERVING, to->number, 0);
	generation_retire(from, REASON_ROLLED_BACK, false, now, ret);
	return 0;
}

/* started: by the rollout, as its steps need them. */
static void scale(struct service *s, struct generation *g, unsigned n, bool started, uint64_t now,
	struct effects *ret)
{
	unsigned first = g->wanted;

	g->wanted = n;
	if (n > first) {
		generation_prepare_lane(g, ret);
		if (!started)
			generation_unretire(g, now, ret);
	}
	for (unsigned i = n; i < g->n_workers; i++)
		if (!g->workers[i].retiring && !recycle_needs(s, g, &g->workers[i]))
			generation_retire_worker(g, &g->workers[i], false, now, ret);
	if (started)
		rollout_scale(s, n, now, ret);
	generation_steer(g, ret);
}

/* Who serves; who is about to; and a warm one: who goes back to it needs as many workers there.
 * What was adopted is as many as it is. */
static bool is_scaled(const struct service *s, const struct generation *g)
{
	if (g->adopted)
		return false;
	return g->number == s->current || g->state == GENERATION_WARM ||
	       (rollout_is_open(&s->rollout) && g->number == s->rollout.to);
}

static int on_scale(struct service *s, unsigned n, uint64_t now, struct effects *ret)
{
	struct generation *current = service_generation(s, s->current);
	bool open = rollout_is_open(&s->rollout);
	int r;

	if (!current || s->stopping)
		return SERVICE_E_NOT_RUNNING;
	if (current->adopted)
		return SERVICE_E_ADOPTED;
	if (open && !rollout_can_scale(s))
		return SERVICE_E_ROLLOUT_IN_PROGRESS;
	for (size_t i = 0; i < s->n_generations; i++) {
		struct generation *g = s->generations[i];
		unsigned wanted = g->wanted;

		if (!is_scaled(s, g))
			continue;
		r = generation_grow(g, n);
		g->wanted = wanted;
		if (r < 0)
			return r;
	}
	recycle_scale(s, n, now, ret);
	scale(s, current, n, false, now, ret);
	for (size_t i = 0; i < s->n_generations; i++) {
		struct generation *g = s->generations[i];

		if (g != current && is_scaled(s, g))
			scale(s, g, n, open && g->number == s->rollout.to, now, ret);
	}
	service_report(ret, REPORT_SCALED, current->number, n);
	return 0;
}

int service_request(
	struct service *s, const struct service_event *event, uint64_t now, struct effects *ret)
{
	switch (event->kind) {
	case EVENT_UPGRADE:
		return on_upgrade(s, event, now, ret);
	case EVENT_START:
		if (!s->stopping)
			return -EPROTO;
		s->start_again = true;
		return 0;
	case EVENT_STOP:
		return on_stop(s, false, now, ret);
	case EVENT_KILL:
		return on_stop(s, true, now, ret);
	case EVENT_PROMOTE:
	case EVENT_PAUSE:
		if (!rollout_is_open(&s->rollout) || s->rollout.phase == ROLLOUT_RESTORING ||
			s->rollout.from == 0)
			return SERVICE_E_NO_ROLLOUT;
		if (event->kind == EVENT_PROMOTE) {
			rollout_promote(s, event->value == 1, now, ret);
			return 0;
		}
		if (!s->rollout.paused)
			effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
						 .report = REPORT_ROLLOUT_PAUSED,
						 .generation = s->rollout.to,
						 .worker = NO_WORKER});
		s->rollout.paused = true;
		return 0;
	case EVENT_ABORT:
		if (!rollout_is_open(&s->rollout) || s->rollout.phase == ROLLOUT_RESTORING ||
			s->rollout.from == 0)
			return SERVICE_E_NO_ROLLOUT;
		rollout_fail(
			s, event->reason ? event->reason : REASON_ABORTED, NO_WORKER, now, ret);
		return 0;
	case EVENT_ROLLBACK:
		return on_rollback(s, event, now, ret);
	case EVENT_SCALE:
		return on_scale(s, event->value, now, ret);
	case EVENT_ADOPT:
		return on_adopt(s, event, now, ret);
	case EVENT_LET_GO:
		return on_let_go(s, event->generation, ret);
	case EVENT_SPAWN_FAILED:
	case EVENT_READY:
	case EVENT_EXITED:
	case EVENT_WATCHDOG:
	case EVENT_SAID_ERROR:
	case EVENT_QUEUE:
	case EVENT_CONNECTIONS:
	case EVENT_EXTEND_READY_TIMEOUT:
	case EVENT_VERIFIED:
	case EVENT_VERIFY_FAILED:
	case EVENT_RECYCLE:
	case EVENT_LANE_FAILED:
	case EVENT_EMPTY:
	case EVENT_TIME:
	case EVENT_LISTENERS:
		break;
	}
	return -EPROTO;
}

bool service_event_is_request(enum service_event_kind kind)
{
	return kind == EVENT_UPGRADE || kind == EVENT_START || kind == EVENT_STOP ||
	       kind == EVENT_KILL || kind == EVENT_PROMOTE || kind == EVENT_PAUSE ||
	       kind == EVENT_ABORT || kind == EVENT_ROLLBACK || kind == EVENT_SCALE ||
	       kind == EVENT_ADOPT || kind == EVENT_LET_GO;
}

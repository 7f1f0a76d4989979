/* SPDX-License-Identifier: Apache-2.0 */
/* The promises, as what must hold for each signal, after each step, and at rest. */
#include "schedules_world.h"

static uint64_t after(uint64_t usec, uint64_t wait)
{
	return wait >= USEC_INFINITY - usec ? USEC_INFINITY : usec + wait;
}

static const struct generation *serving(const struct service *s)
{
	const struct generation *g = service_generation(s, s->current);

	return g && g->state == GENERATION_SERVING ? g : NULL;
}

static bool queue_has_others(const struct generation *g, unsigned worker)
{
	for (unsigned i = 0; i < g->n_workers && !g->policy.per_worker; i++)
		/* One that is being killed is replaced for it if it was to settle. */
		if (i != worker && (g->workers[i].state == WORKER_READY ||
					   worker_state_is_leaving(g->workers[i].state) ||
					   g->workers[i].owes_settle))
			return true;
	return false;
}

/* The drain signal: nothing new may be on its way to the worker, and its queue is empty or had its
 * time. */
static void check_drain(struct world *w, const struct effect *e, const struct generation *g,
	const struct world_worker *p)
{
	const struct service *s = &w->service;
	const struct drain_config *drain = &g->policy.drain;
	uint64_t lost = w->now_usec - p->share_lost_usec;

	REQUIRE(w, !p->told, "worker %u.%u is told to go twice", e->generation, e->worker);
	/* Held sockets: the kernel lets nobody be kept from them. After a stop there is no next. */
	if (s->stopping || !g->policy.steered || !p->had_share)
		return;
	/* While nobody serves, who comes waits in this queue for the next. */
	if (!serving(s))
		return;
	/* Where ended workers are not replaced, there may be nobody else. */
	for (unsigned i = 0; i < g->n_workers; i++)
		if (g->policy.restart != RESTART_ALWAYS && g->workers[i].state == WORKER_STOPPED)
			return;
	if (p->share) {
		const struct recycle *r = &s->recycle;
		bool recycled = r->phase == RECYCLE_LEAVING && r->generation == g->number &&
				r->worker == e->worker && generation_ready(g) > 0;
		bool scaled_down = !g->policy.per_worker && e->worker >= g->wanted &&
				   (g->state == GENERATION_SERVING || g->number == s->rollout.to);
		REQUIRE(w, scaled_down || (recycled && !g->policy.per_worker),
			"worker %u.%u is told to go while it gets new connections", e->generation,
			e->worker);
		return;
	}
	if ((g->state == GENERATION_SERVING ||
		    (rollout_is_open(&s->rollout) && g->number == s->rollout.to)) &&
		!g->policy.per_worker)
		return;
	/* Scaled away: the others go on with the queue. A spare that never was of use: its queue
	 * was another's, if it is anybody's. */
	if (e->worker >= g->wanted &&
		(queue_has_others(g, e->worker) ||
			!(g->policy.per_worker ? g->workers[e->worker].had_share
					       : g->workers[e->worker].was_ready)))
		return;
	REQUIRE(w, lost >= drain->settle_usec,
		"worker %u.%u is told to go %llu us after it lost its share", e->generation,
		e->worker, (unsigned long long)lost);
	REQUIRE(w, p->empty_seen || lost >= drain->settle_timeout_usec,
		"worker %u.%u is told to go with connections in its queue", e->generation,
		e->worker);
}

static void check_kill(struct world *w, const struct effect *e, const struct generation *g,
	const struct world_worker *p)
{
	uint64_t kill_after = g->policy.drain.kill_after_usec, now = w->now_usec;
	bool not_ready = now >= after(p->spawned_usec, g->policy.ready_timeout_usec),
	     escalated = p->termed && now >= after(p->termed_usec, kill_after),
	     hung = p->aborted && now >= after(p->aborted_usec, kill_after),
	     again = p->killed && now >= after(p->killed_usec, kill_after);

	if (w->event.kind == EVENT_KILL)
		return;
	/* Room for another: only a drain may be cut short, not a queue. */
	if (w->service.rollout.cut_short && g == service_oldest_leaving(&w->service) &&
		(p->told || p->empty_seen || !p->had_share ||
			now >= after(p->share_lost_usec, g->policy.drain.settle_timeout_usec) ||
			!g->policy.steered || !serving(&w->service)))
		return;
	REQUIRE(w, not_ready || escalated || hung || again, "worker %u.%u is killed for no reason",
		e->generation, e->worker);
}

void check_signal(struct world *w, const struct effect *e, const struct generation *g,
	const struct world_worker *p)
{
	if (!g) {
		world_fail(w, "a signal for a worker of an unknown generation");
		return;
	}
	/* Until others have all that it had, it is not ours. */
	REQUIRE(w,
		!p->adopted || (g->state != GENERATION_SERVING && w->service.current != g->number),
		"adopted worker %u.%u gets a signal and was not replaced", e->generation,
		e->worker);
	switch ((unsigned)e->kind) {
	case EFFECT_SIGNAL_DRAIN:
		check_drain(w, e, g, p);
		break;
	case EFFECT_SIGNAL_TERM:
		REQUIRE(w,
			p->told && w->now_usec >= after(p->told_usec, g->policy.drain.timeout_usec),
			"worker %u.%u gets SIGTERM before its time", e->generation, e->worker);
		break;
	case EFFECT_SIGNAL_ABORT:
		REQUIRE(w, w->event.kind == EVENT_WATCHDOG, "worker %u.%u is aborted",
			e->generation, e->worker);
		break;
	case EFFECT_SIGNAL_KILL:
		check_kill(w, e, g, p);
		break;
	}
}

static void check_worker(struct world *w, const struct generation *g, const struct worker *k,
	const struct world_worker *p)
{
	uint64_t ready_timeout = g->policy.ready_timeout_usec;

	REQUIRE(w, worker_state_has_process(k->state) == (p && p->alive),
		"worker %u.%u is %s, its process is %s", g->number, k->index,
		worker_state_to_string(k->state), p && p->alive ? "alive" : "gone");
	if (k->state == WORKER_STARTING)
		REQUIRE(w, p && p->watched, "nobody watches for worker %u.%u to be ready",
			g->number, k->index);
	/* Every wait is bounded. */
	if (k->state != WORKER_STOPPED && k->state != WORKER_READY &&
		!(k->state == WORKER_STARTING && ready_timeout == USEC_INFINITY))
		REQUIRE(w, k->deadline_usec != USEC_INFINITY, "worker %u.%u stays %s for ever",
			g->number, k->index, worker_state_to_string(k->state));
	/* What shall go and is gone does not come back by itself, what is proven does. */
	if (g->proven && g->state == GENERATION_SERVING && !k->retiring &&
		g->policy.restart == RESTART_ALWAYS && k->index < g->wanted)
		REQUIRE(w, k->state != WORKER_STOPPED, "worker %u.%u is not started again",
			g->number, k->index);
}

static void check_generation(struct world *w, const struct generation *g)
{
	const struct service *s = &w->service;
	const struct generation *other = serving(s);
	const struct world_generation *wg = world_generation(w, g->number);
	const struct rollout *r = &s->rollout;
	bool needed = (g->number == r->from || g->number == r->to) && rollout_is_open(r);

	REQUIRE(w, g->n_workers <= WORLD_WORKERS, "%u workers", g->n_workers);
	REQUIRE(w, g->lane == (wg ? wg->lane : LANE_NONE), "generation %u: lane %u, prepared %u",
		g->number, g->lane, wg ? wg->lane : LANE_NONE);
	REQUIRE(w, !g->proven || !g->given_up, "generation %u was proven, and given up", g->number);
	if (other && other != g && !s->stopping &&
		(g->failed || g->state == GENERATION_RETIRING || g->state == GENERATION_WARM ||
			g->state == GENERATION_PARKED))
		REQUIRE(w, g->weight == 0, "generation %u is %s and has %u of the connections",
			g->number, generation_state_to_string(g->state), g->weight);
	REQUIRE(w, g->state != GENERATION_SERVING || s->stopping || s->current == g->number,
		"generation %u serves, and %u is current", g->number, s->current);
	if (g->state == GENERATION_RETIRING)
		REQUIRE(w, needed || generation_has_process(g) || g->empty_until_usec != 0,
			"generation %u has ended, and is kept", g->number);
	for (unsigned i = 0; i < g->n_workers && i < WORLD_WORKERS; i++)
		check_worker(w, g, &g->workers[i], wg ? &wg->workers[i] : NULL);
}

/* How many workers must be ready for the share that the new generation has. Who is added to a step
 * that was reached comes when it can. */
static void note_reached(struct world *w, const struct generation *to)
{
	const struct rollout *r = &w->service.rollout;
	unsigned workers = r->steps[r->step].workers;

	if (r->phase != ROLLOUT_SOAKING) {
		if (r->step > 0)
			w->reached = MIN(w->reached, r->steps[r->step - 1].workers);
		return;
	}
	if (w->reached_id != r->id || w->reached_step != r->step ||
		generation_first_ready(to, workers))
		w->reached = workers;
	w->reached = MIN(w->reached, workers);
	w->reached_id = r->id;
	w->reached_step = r->step;
}

/* An open rollout: the old generation serves until the new one has proved itself, and it ends. */
static void check_rollout(struct world *w)
{
	const struct service *s = &w->service;
	const struct rollout *r = &s->rollout;
	const struct generation *to = service_generation(s, r->to),
				*from = service_generation(s, r->from);
	bool leaving = false;

	if (!rollout_is_open(r))
		return;
	REQUIRE(w, to != NULL, "a rollout to nowhere");
	REQUIRE(w, r->from == 0 || from, "a rollout from generation %u, which is gone", r->from);
	if (!to || (r->from != 0 && !from) || s->stopping)
		return;
	for (size_t i = 0; i < s->n_generations; i++)
		leaving |= s->generations[i]->state == GENERATION_RETIRING ||
			   s->generations[i]->state == GENERATION_WARM;
	if (r->phase == ROLLOUT_WAITING)
		REQUIRE(w, leaving, "a rollout waits for room that nobody makes");
	if (r->phase == ROLLOUT_STARTING)
		for (unsigned i = 0; i < r->steps[r->step].workers && i < to->n_workers; i++)
			REQUIRE(w, to->workers[i].state != WORKER_STOPPED,
				"a rollout waits for worker %u.%u, which does not run", to->number,
				i);
	if (r->phase == ROLLOUT_SOAKING)
		REQUIRE(w, r->paused || r->deadline_usec != USEC_INFINITY, "a soak without an end");
	if (!from || from->state == GENERATION_PARKED)
		return;
	REQUIRE(w, from->state == GENERATION_SERVING && s->current == from->number,
		"generation %u is left before %u has proved itself", from->number, to->number);
	REQUIRE(w, from->weight + to->weight == SHARE_MAX, "shares %u and %u", from->weight,
		to->weight);
	/* No traffic before ready. */
	note_reached(w, to);
	REQUIRE(w,
		to->weight == 0 || generation_first_ready(
					   to, w->reached_id == r->id ? MAX(w->reached, 1U) : 1),
		"generation %u gets connections before it is ready", to->number);
	/* Somebody of the old one has not been told to go. */
	leaving = true;
	for (unsigned i = 0; i < from->wanted; i++)
		leaving &= from->workers[i].retiring;
	REQUIRE(w, !leaving, "all of generation %u were told to go before %u has proved itself",
		from->number, to->number);
}

/* Who would take a connection that comes to that slot? */
static bool slot_is_served(const struct generation *g, unsigned slots)
{
	for (unsigned i = 0; i < g->n_workers; i++) {
		const struct worker *k = &g->workers[i];
		if ((slots >> i & 1) && k->state == WORKER_STOPPED && k->retiring)
			return false;
	}
	return true;
}

static void check_shares(struct world *w, unsigned listener)
{
	const struct service *s = &w->service;
	const struct world_shares *applied = &w->applied[listener];
	struct world_shares now;
	bool given = false;
	unsigned sum = 0;

	/* A listener that nobody was given is none. */
	for (size_t i = 0; i < s->n_generations; i++)
		given |= s->generations[i]->lane != LANE_NONE &&
			 (s->generations[i]->listeners >> listener & 1);
	if (!given)
		return;
	world_shares(w, listener, &now);
	REQUIRE(w, now.n > 0, "nobody gets the connections of listener %u", listener);
	for (size_t i = 0; i < now.n && !w->failure; i++) {
		const struct world_share *share = &now.list[i];
		const struct generation *owner = NULL, *other = serving(s);

		sum += share->weight;
		for (size_t k = 0; k < s->n_generations; k++)
			if (s->generations[k]->lane == share->lane)
				owner = s->generations[k];
		REQUIRE(w, owner || share->lane == s->queue_lane,
			"lane %u has a share and belongs to nobody", share->lane);
		if (owner && other && owner != other && !s->stopping &&
			(other->listeners >> listener & 1))
			REQUIRE(w, !owner->failed && owner->state != GENERATION_RETIRING,
				"generation %u has gone and gets the connections of listener %u",
				owner->number, listener);
		REQUIRE(w, share->slots != 0, "nobody of lane %u gets its share", share->lane);
		/* Ready ones only, where there are any. */
		for (unsigned k = 0; owner && owner->policy.per_worker &&
				     (owner->listeners >> listener & 1) && k < owner->n_workers;
			k++)
			REQUIRE(w,
				!(share->slots >> k & 1) ||
					owner->workers[k].state == WORKER_READY ||
					generation_ready(owner) == 0,
				"worker %u.%u gets connections and is %s", owner->number, k,
				worker_state_to_string(owner->workers[k].state));
		if (owner && owner->policy.per_worker && owner == other && !s->stopping &&
			owner->policy.restart == RESTART_ALWAYS)
			REQUIRE(w, slot_is_served(owner, share->slots),
				"connections go to workers of %u that are gone", owner->number);
		/* As the kernel was told? Where nobody serves it does not matter in which queue one
		 * waits.
		 */
		REQUIRE(w,
			i < applied->n && applied->list[i].lane == share->lane &&
				applied->list[i].weight == share->weight &&
				(applied->list[i].slots == share->slots || !owner ||
					owner->weight == 0 || s->stopping),
			"the shares of listener %u have changed, the steering has not", listener);
	}
	REQUIRE(w, sum == SHARE_MAX, "shares of listener %u: %u in all", listener, sum);
	REQUIRE(w, applied->n == now.n, "listener %u: %zu lanes are steered to, not %zu", listener,
		applied->n, now.n);
}

void check_service(struct world *w)
{
	const struct service *s = &w->service;
	unsigned sum = 0;

	REQUIRE(w, s->n_generations <= WORLD_GENERATIONS, "%zu generations", s->n_generations);
	for (size_t i = 0; i < s->n_generations && !w->failure; i++) {
		const struct generation *g = s->generations[i];

		check_generation(w, g);
		sum += g->weight;
		for (size_t k = 0; k < i; k++)
			REQUIRE(w, g->lane == LANE_NONE || g->lane != s->generations[k]->lane,
				"generations %u and %u have lane %u", g->number,
				s->generations[k]->number, g->lane);
	}
	REQUIRE(w, sum == 0 || sum == SHARE_MAX || s->stopping, "weights are %u in all", sum);
	REQUIRE(w, s->current == 0 || service_generation(s, s->current),
		"generation %u is current and gone", s->current);
	REQUIRE(w, w->n_open_reports == (s->rollout.phase != ROLLOUT_NONE),
		"%u rollouts are open by the reports, phase %s", w->n_open_reports,
		rollout_phase_to_string(s->rollout.phase));
	REQUIRE(w, !s->stopping || s->n_generations > 0,
		"everything has stopped, and nobody noticed");
	for (size_t i = 0; i < WORLD_GENERATIONS; i++)
		REQUIRE(w,
			w->generations[i].number == 0 ||
				service_generation(s, w->generations[i].number),
			"generation %u was dropped without a word", w->generations[i].number);
	if (!w->failure)
		check_rollout(w);
	if (!w->failure)
		check_traffic(w);
	for (unsigned id = 0; id < WORLD_LISTENERS && !w->closed && !w->failure; id++)
		check_shares(w, id);
}

static void check_rest_generation(struct world *w, const struct generation *g)
{
	REQUIRE(w, g->n_workers == g->wanted, "at rest: %u workers, wanted %u", g->n_workers,
		g->wanted);
	for (unsigned i = 0; i < g->n_workers; i++)
		REQUIRE(w,
			g->workers[i].state == WORKER_READY ||
				(g->policy.restart != RESTART_ALWAYS &&
					g->workers[i].state == WORKER_STOPPED),
			"at rest: worker %u.%u is %s", g->number, i,
			worker_state_to_string(g->workers[i].state));
}

void check_rest(struct world *w, bool stopped)
{
	const struct service *s = &w->service;
	const struct generation *g = serving(s);

	REQUIRE(w, s->recycle.phase == RECYCLE_NONE, "at rest: a worker is being recycled");
	REQUIRE(w, s->rollout.phase == ROLLOUT_NONE, "at rest: the rollout is %s",
		rollout_phase_to_string(s->rollout.phase));
	REQUIRE(w, !s->stopping, "at rest: still stopping");
	REQUIRE(w, !stopped || (s->n_generations == 0 && !s->wanted && w->closed),
		"at rest: not stopped");
	REQUIRE(w, g || s->n_generations == 0, "at rest: nobody serves");
	for (size_t i = 0; i < s->n_generations; i++) {
		const struct generation *o = s->generations[i];

		REQUIRE(w, o == g || o->state == GENERATION_WARM, "at rest: generation %u is %s",
			o->number, generation_state_to_string(o->state));
		check_rest_generation(w, o);
	}
}

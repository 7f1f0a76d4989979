/* SPDX-License-Identifier: Apache-2.0 */
/* What the effects do to the world, and what must hold for each of them. */
#include "schedules_world.h"

struct world_generation *world_generation(struct world *w, unsigned number)
{
	for (size_t i = 0; number != 0 && i < WORLD_GENERATIONS; i++)
		if (w->generations[i].number == number)
			return &w->generations[i];
	return NULL;
}

static struct world_generation *world_generation_make(struct world *w, unsigned number)
{
	for (size_t i = 0; i < WORLD_GENERATIONS; i++)
		if (w->generations[i].number == 0) {
			w->generations[i] =
				(struct world_generation){.number = number, .lane = LANE_NONE};
			return &w->generations[i];
		}
	return NULL;
}

void world_shares(const struct world *w, unsigned listener, struct world_shares *ret)
{
	struct lane_share shares[WORLD_GENERATIONS];
	bool active[WORLD_WORKERS * 2];

	ret->n = service_shares(&w->service, UINT64_C(1) << listener, shares);
	for (size_t i = 0; i < ret->n; i++) {
		const struct generation *g = shares[i].generation;

		ret->list[i] = (struct world_share){
			shares[i].lane, shares[i].weight, UINT32_MAX, g != NULL};
		if (!g || !g->policy.per_worker || g->n_workers > ARRAY_SIZE(active))
			continue;
		generation_active_slots(g, active);
		ret->list[i].slots = 0;
		for (unsigned k = 0; k < g->n_workers; k++)
			ret->list[i].slots |= (unsigned)active[k] << k;
	}
}

unsigned *world_queue(struct world *w, const struct generation *g, unsigned worker)
{
	if (g->lane >= WORLD_LANES || worker >= WORLD_WORKERS)
		return NULL;
	return &w->queues[g->lane][g->policy.per_worker ? worker : 0];
}

/* New connections go where the service says now. A listener that only one generation was given, and
 * that has not been ready yet, was never served: nothing is promised for it. */
void world_steer(struct world *w)
{
	for (unsigned id = 0; id < WORLD_LISTENERS; id++)
		world_shares(w, id, &w->applied[id]);
	for (size_t i = 0; i < WORLD_GENERATIONS; i++) {
		struct world_generation *wg = &w->generations[i];
		const struct generation *g = service_generation(&w->service, wg->number);
		bool served = g && (g->weight > 0 || (w->service.current == 0 &&
							     g->lane == w->service.queue_lane));

		if (wg->number == 0 || wg->lane == LANE_NONE)
			continue;
		for (unsigned k = 0; k < WORLD_WORKERS; k++) {
			struct world_worker *p = &wg->workers[k];
			bool share = false;

			for (unsigned id = 0; id < WORLD_LISTENERS; id++)
				for (size_t n = 0; n < w->applied[id].n; n++)
					share |= served && w->applied[id].list[n].owned &&
						 w->applied[id].list[n].lane == wg->lane &&
						 (w->applied[id].list[n].slots >> k & 1);
			if (p->share && !share) {
				p->share_lost_usec = w->now_usec;
				p->empty_seen = false;
			}
			p->share = share;
			p->had_share |= share;
		}
	}
}

void world_excuse(struct world *w, unsigned generation)
{
	const struct world_generation *wg = world_generation(w, generation);

	if (wg && wg->lane < WORLD_LANES)
		w->excused[wg->lane] = true;
}

static void later(
	struct world *w, enum service_event_kind kind, const struct effect *e, unsigned value)
{
	if (w->n_pending == WORLD_PENDING) {
		world_fail(w, "too many answers at once");
		return;
	}
	w->pending[w->n_pending++] = (struct service_event){
		.kind = kind, .generation = e->generation, .worker = e->worker, .value = value};
}

/* Who takes over a lane with fewer workers than had it before leaves the rest: what workers that
 * were ready in a start that failed as a whole left behind. */
void world_cut_lane(struct world *w, const struct world_generation *wg, const struct generation *g)
{
	unsigned n = g->policy.per_worker ? wg->n_slots : 1;

	for (unsigned k = n; k < WORLD_WORKERS && wg->lane < WORLD_LANES; k++)
		w->queues[wg->lane][k] = 0;
}

static void prepare_lane(struct world *w, const struct effect *e)
{
	const struct generation *g = service_generation(&w->service, e->generation);
	struct world_generation *wg = world_generation(w, e->generation);
	unsigned n_alive = 0;

	if (!g) {
		world_fail(w, "lane %u is prepared for an unknown generation", e->value);
		return;
	}
	/* Of one that takes over the old one's sockets the swap follows in the same step. */
	REQUIRE(w, g->lane == e->value || w->service.rollout.took_over,
		"generation %u owns lane %u, not %u", g->number, g->lane, e->value);
	REQUIRE(w, e->value < WORLD_LANES, "lane %u", e->value);
	for (size_t i = 0; i < WORLD_GENERATIONS; i++)
		REQUIRE(w,
			w->generations[i].number == 0 || w->generations[i].number == g->number ||
				w->generations[i].lane != e->value,
			"lane %u still belongs to generation %u", e->value,
			w->generations[i].number);
	if (!wg)
		wg = world_generation_make(w, e->generation);
	if (!wg) {
		world_fail(w, "too many generations");
		return;
	}
	if (wg->lane == LANE_NONE) {
		for (size_t i = 0; i < w->service.n_generations; i++)
			n_alive += w->service.generations[i]->lane != LANE_NONE;
		REQUIRE(w, n_alive <= g->policy.drain.max_generations,
			"%u generations are alive, more than %u", n_alive,
			g->policy.drain.max_generations);
	}
	wg->lane = e->value;
	wg->n_slots = g->n_workers;
	world_cut_lane(w, wg, g);
	/* Held sockets have one queue, whoever serves. */
	if (!g->policy.steered)
		world_excuse(w, g->number);
	/* Of one that was prepared before, the sockets are there. */
	if (!w->behaves && !w->dead && chance(w, 2))
		later(w, EVENT_LANE_FAILED, e, 0);
}

static void spawn(struct world *w, const struct effect *e, struct world_generation *wg,
	struct world_worker *p)
{
	const struct generation *g = service_generation(&w->service, e->generation);
	struct world_worker old = *p;

	REQUIRE(w, !p->alive, "worker %u.%u is started while it runs", e->generation, e->worker);
	REQUIRE(w, wg->lane != LANE_NONE && e->worker < wg->n_slots,
		"worker %u.%u is started without sockets", e->generation, e->worker);
	if (g && g->workers[e->worker].rescues > 0)
		w->counts.rescues++;
	*p = (struct world_worker){
		.alive = true,
		.spawned_usec = w->now_usec,
		.share = old.share,
		.had_share = old.had_share,
		.empty_seen = old.empty_seen,
		.share_lost_usec = old.share_lost_usec,
	};
	if (w->behaves)
		return;
	p->never_ready = chance(w, w->hostility);
	p->ignores_signals = chance(w, w->hostility);
	if (chance(w, w->hostility / 3)) {
		/* It does not exist, but the core has to be told. */
		if (g && g->workers[e->worker].retiring)
			world_excuse(w, e->generation);
		later(w, EVENT_SPAWN_FAILED, e, pick(w, 2));
	}
}

static void signal_process(struct world *w, const struct effect *e, struct world_worker *p)
{
	const struct generation *g = service_generation(&w->service, e->generation);

	if (!p->alive) {
		world_fail(w, "a signal for worker %u.%u, which does not run", e->generation,
			e->worker);
		return;
	}
	check_signal(w, e, g, p);
	switch ((unsigned)e->kind) {
	case EFFECT_SIGNAL_DRAIN:
		p->told = true;
		p->told_usec = w->now_usec;
		break;
	case EFFECT_SIGNAL_TERM:
		p->termed = true;
		p->termed_usec = w->now_usec;
		break;
	case EFFECT_SIGNAL_KILL:
		p->killed = true;
		p->killed_usec = w->now_usec;
		break;
	case EFFECT_SIGNAL_ABORT:
		p->aborted = true;
		p->aborted_usec = w->now_usec;
		break;
	}
}

static void query_queue(struct world *w, const struct effect *e, struct world_worker *p)
{
	const struct generation *g = service_generation(&w->service, e->generation);
	unsigned *queue = g ? world_queue(w, g, e->worker) : NULL;

	if (!queue)
		return;
	if (p->alive && !p->told && !p->killed && (w->behaves || chance(w, 50)))
		*queue = 0;
	later(w, EVENT_QUEUE, e, *queue);
}

static void end_rest(struct world *w, const struct effect *e, struct world_generation *wg)
{
	const struct generation *g = service_generation(&w->service, e->generation);

	REQUIRE(w, wg && g && g->policy.contained && g->number != w->service.current,
		"the rest of generation %u is to be ended", e->generation);
	for (unsigned k = 0; wg && k < WORLD_WORKERS; k++)
		REQUIRE(w, !wg->workers[k].alive,
			"the rest of generation %u is to be ended while worker %u runs",
			e->generation, k);
	if (!wg || !g)
		return;
	w->counts.rests++;
	/* What cannot be ended is not answered. Who asks again may go on waiting as before. */
	if (wg->rest_until_usec == 0)
		wg->rest_until_usec =
			w->now_usec + MAX(g->policy.drain.kill_after_usec, USEC_PER_SEC);
	if (!w->behaves && chance(w, 50))
		return;
	wg->rest_until_usec = 0;
	later(w, EVENT_EMPTY, e, 0);
}

static void release_lane(struct world *w, const struct effect *e, struct world_generation *wg)
{
	bool kept = e->value == w->service.queue_lane;

	if (!wg)
		return;
	REQUIRE(w, w->now_usec >= wg->rest_until_usec,
		"lane %u is released while somebody is left of generation %u", e->value,
		wg->number);
	wg->rest_until_usec = 0;
	for (unsigned k = 0; k < WORLD_WORKERS; k++) {
		const struct world_worker *p = &wg->workers[k];
		unsigned *queue = e->value < WORLD_LANES ? &w->queues[e->value][k] : NULL;

		/* It goes on by itself, with its queue. */
		if (p->adopted && p->alive && !p->told) {
			w->counts.let_go++;
			world_excuse(w, wg->number);
			wg->workers[k].alive = false;
		}
		REQUIRE(w, !p->alive, "lane %u is released while worker %u.%u runs", e->value,
			wg->number, k);
		if (!queue || *queue == 0 || kept)
			continue;
		REQUIRE(w, w->excused[e->value] || !w->service.wanted,
			"lane %u is released with %u connections in its queue %u", e->value, *queue,
			k);
		*queue = 0;
	}
	if (e->value < WORLD_LANES)
		w->excused[e->value] = false;
	wg->lane = LANE_NONE;
}

void world_adopted(struct world *w)
{
	struct world_generation *wg = world_generation(w, w->service.current);

	if (!wg) {
		world_fail(w, "generation %u was adopted without a lane", w->service.current);
		return;
	}
	/* Of what ran before, what waits is its own. */
	world_excuse(w, wg->number);
	wg->workers[0].alive = wg->workers[0].adopted = true;
	wg->workers[0].ignores_signals = chance(w, w->hostility);
	wg->workers[0].spawned_usec = wg->workers[0].ready_usec = w->now_usec;
	w->counts.adopted++;
}

void world_release_lane(struct world *w, struct world_generation *wg)
{
	release_lane(w, &(struct effect){.kind = EFFECT_RELEASE_LANE, .value = wg->lane}, wg);
}

static void swap_lanes(struct world *w, const struct effect *e)
{
	struct world_generation *a = world_generation(w, e->generation),
				*b = world_generation(w, e->worker);
	const struct generation *g = service_generation(&w->service, e->generation);
	unsigned lane;

	if (!a || !b) {
		world_fail(w, "lanes of unknown generations are swapped");
		return;
	}
	for (unsigned k = 0; k < WORLD_WORKERS; k++) {
		REQUIRE(w, !a->workers[k].alive && !b->workers[k].alive,
			"lanes of running workers are swapped");
		/* What is on its way goes to sockets, not to generations. */
		a->workers[k].had_share = b->workers[k].had_share = false;
	}
	lane = a->lane;
	a->lane = b->lane;
	b->lane = lane;
	REQUIRE(w, a->lane == e->value, "swapped to lane %u, not %u", a->lane, e->value);
	if (g) {
		a->n_slots = g->n_workers;
		world_cut_lane(w, a, g);
		if (!g->policy.steered)
			world_excuse(w, g->number);
	}
	w->counts.restored++;
}

static void close_listeners(struct world *w)
{
	REQUIRE(w, w->service.n_generations == 0, "listeners are closed under a generation");
	for (size_t i = 0; i < WORLD_GENERATIONS; i++)
		REQUIRE(w, w->generations[i].number == 0, "listeners are closed too early");
	memset(w->queues, 0, sizeof(w->queues));
	w->closed = true;
	w->counts.stopped++;
}

static void hear(struct world *w, const struct effect *e, struct world_generation *wg)
{
	bool good;

	switch ((unsigned)e->report) {
	case REPORT_ROLLOUT_STARTED:
		REQUIRE(w, w->n_open_reports == 0, "a rollout starts before the other has ended");
		w->n_open_reports = 1;
		break;
	case REPORT_ROLLOUT_ENDED:
		REQUIRE(w, w->n_open_reports == 1, "a rollout ends that has not begun");
		w->n_open_reports = 0;
		REQUIRE(w, e->reason != REASON_VERIFY_FAILED || w->failed_verify,
			"a rollout ends because of a run of verify that has not failed");
		w->failed_verify = false;
		good = e->reason == REASON_DONE;
		w->counts.rollouts_done += good;
		w->counts.rollouts_failed += !good;
		break;
	case REPORT_GENERATION_SERVING:
		/* A rollback is a rollout of one move. */
		if (w->event.kind == EVENT_ROLLBACK)
			w->n_open_reports++;
		break;
	case REPORT_GENERATION_GIVEN_UP:
		w->counts.given_up++;
		break;
	case REPORT_ROLLOUT_STEP:
	case REPORT_ROLLOUT_PROMOTED:
		check_step_end(w, e);
		break;
	case REPORT_ROLLOUT_VERIFIED:
		REQUIRE(w, w->step_verified, "a step is verified without a good run");
		break;
	case REPORT_WORKER_RECYCLED:
		check_recycled(w, e);
		break;
	case REPORT_RECYCLE_FAILED:
		w->counts.recycle_failed++;
		break;
	case REPORT_GENERATION_WARM:
		w->counts.warm++;
		break;
	case REPORT_QUEUE_ABANDONED:
		if (wg)
			world_excuse(w, wg->number);
		break;
	}
}

static void apply_to_worker(struct world *w, const struct effect *e, struct world_generation *wg)
{
	const struct generation *g = service_generation(&w->service, e->generation);
	struct world_worker *p;

	/* Its end fails the rollout, and it is told to go with the others: that signal is lost. */
	if (e->kind == EFFECT_SIGNAL_DRAIN &&
		(w->event.kind == EVENT_EXITED || w->event.kind == EVENT_SPAWN_FAILED) &&
		w->event.generation == e->generation && w->event.worker == e->worker &&
		(!wg || e->worker >= WORLD_WORKERS || !wg->workers[e->worker].alive))
		return;
	if (!wg || !g || e->worker >= WORLD_WORKERS || e->worker >= g->n_workers) {
		world_fail(w, "effect %d for unknown worker %u.%u", (int)e->kind, e->generation,
			e->worker);
		return;
	}
	p = &wg->workers[e->worker];
	switch ((unsigned)e->kind) {
	case EFFECT_SPAWN:
		spawn(w, e, wg, p);
		break;
	case EFFECT_WATCH_READINESS:
		p->watched = p->alive && g->workers[e->worker].state == WORKER_STARTING;
		break;
	case EFFECT_SIGNAL_DRAIN:
	case EFFECT_SIGNAL_TERM:
	case EFFECT_SIGNAL_KILL:
	case EFFECT_SIGNAL_ABORT:
		signal_process(w, e, p);
		break;
	case EFFECT_QUERY_QUEUE:
		query_queue(w, e, p);
		break;
	case EFFECT_COUNT_CONNECTIONS:
		/* What cannot be counted is not answered. */
		if (w->behaves || chance(w, 80))
			later(w, EVENT_CONNECTIONS, e, w->behaves ? 0 : pick(w, 2));
		break;
	}
}

void world_apply_one(struct world *w, const struct effect *e)
{
	struct world_generation *wg = world_generation(w, e->generation);

	switch (e->kind) {
	case EFFECT_PREPARE_LANE:
		prepare_lane(w, e);
		break;
	case EFFECT_SPAWN:
	case EFFECT_WATCH_READINESS:
	case EFFECT_SIGNAL_DRAIN:
	case EFFECT_SIGNAL_TERM:
	case EFFECT_SIGNAL_KILL:
	case EFFECT_SIGNAL_ABORT:
	case EFFECT_QUERY_QUEUE:
	case EFFECT_COUNT_CONNECTIONS:
		apply_to_worker(w, e, wg);
		break;
	case EFFECT_STEER:
		break;
	case EFFECT_VERIFY:
	case EFFECT_VERIFY_STOP:
		world_verify(w, e);
		break;
	case EFFECT_END_REST:
		end_rest(w, e, wg);
		break;
	case EFFECT_RELEASE_LANE:
		REQUIRE(w, wg && wg->lane == e->value, "lane %u is released by who does not own it",
			e->value);
		release_lane(w, e, wg);
		break;
	case EFFECT_SWAP_LANES:
		swap_lanes(w, e);
		break;
	case EFFECT_FORGET_GENERATION:
		REQUIRE(w, !service_generation(&w->service, e->generation),
			"generation %u is forgotten and still there", e->generation);
		if (!wg)
			break;
		REQUIRE(w, wg->lane == LANE_NONE, "generation %u is forgotten with a lane",
			e->generation);
		for (unsigned k = 0; k < WORLD_WORKERS; k++)
			REQUIRE(w, !wg->workers[k].alive, "generation %u is forgotten alive",
				e->generation);
		wg->number = 0;
		break;
	case EFFECT_CLOSE_LISTENERS:
		close_listeners(w);
		break;
	case EFFECT_START_AGAIN:
		w->want_start = true;
		break;
	case EFFECT_REPORT:
		hear(w, e, wg);
		break;
	}
}

void world_apply(struct world *w)
{
	bool steering = false;
	size_t n = w->dead ? w->stop_at : w->effects.n;

	for (size_t i = 0; i < n && !w->failure; i++) {
		const struct effect *e = &w->effects.list[i];

		/* Once for many, but before whatever else follows. */
		if (steering && e->kind != EFFECT_STEER && e->kind != EFFECT_REPORT) {
			world_steer(w);
			steering = false;
		}
		steering |= e->kind == EFFECT_STEER;
		world_apply_one(w, e);
	}
	if (steering && !w->failure && !w->dead)
		world_steer(w);
}

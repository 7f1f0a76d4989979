/* SPDX-License-Identifier: Apache-2.0 */
/* Verify, recycling and warm generations: the world's part of them, and what they promise. */
#include "schedules_world.h"

static const struct generation *current(const struct service *s)
{
	return service_generation(s, s->current);
}

/* --- verify ------------------------------------------------------------------------------ */

void world_verify(struct world *w, const struct effect *e)
{
	const struct rollout *r = &w->service.rollout;

	if (e->kind == EFFECT_VERIFY_STOP) {
		REQUIRE(w, w->verifying, "a run is stopped, and none is under way");
		w->verifying = false;
		return;
	}
	REQUIRE(w, !w->verifying, "two runs of verify at once");
	REQUIRE(w, e->value > w->verify_run, "run %u comes after %u", e->value, w->verify_run);
	REQUIRE(w, rollout_is_open(r) && e->generation == r->to && r->from != 0,
		"generation %u is verified for no reason", e->generation);
	w->verifying = true;
	w->verify_run = e->value;
	w->verify_generation = e->generation;
}

void world_verified(struct world *w)
{
	if (!w->verifying || w->event.generation != w->verify_generation ||
		w->event.value != w->verify_run)
		return;
	w->verifying = false;
	w->verify_ended_usec = w->now_usec;
	w->failed_run = w->failed_verify = w->event.kind == EVENT_VERIFY_FAILED;
	w->step_verified |= !w->failed_run;
	w->counts.verified += !w->failed_run;
	w->counts.verify_failed += w->failed_run;
}

/* The rollout goes on: what it leaves behind was verified. */
void check_step_end(struct world *w, const struct effect *e)
{
	const struct rollout *r = &w->service.rollout;
	const struct generation *to = service_generation(&w->service, e->generation);

	if (w->step_id == r->id && to && to->policy.verify && r->from != 0 && !r->verify_waived) {
		REQUIRE(w, w->step_verified, "a step of generation %u ends without its verify",
			to->number);
		REQUIRE(w, !w->verifying || e->report == REPORT_ROLLOUT_STEP,
			"generation %u is promoted while it is verified", to->number);
	}
	w->step_id = r->id;
	w->step_verified = false;
}

static void check_verify(struct world *w)
{
	const struct service *s = &w->service;
	const struct rollout *r = &s->rollout;
	const struct generation *to = service_generation(s, r->to);
	enum verify_state state = rollout_verify_state(s);
	uint64_t due;

	REQUIRE(w, r->verifying == w->verifying, "a run of verify is%s under way",
		w->verifying ? "" : " not");
	REQUIRE(w, !w->verifying || (r->phase == ROLLOUT_SOAKING && r->to == w->verify_generation),
		"generation %u is verified while %s", w->verify_generation,
		rollout_phase_to_string(r->phase));
	if (!to || !to->policy.verify || r->phase != ROLLOUT_SOAKING || r->from == 0 ||
		r->verify_waived) {
		REQUIRE(w, state == VERIFY_STATE_NONE || state == VERIFY_STATE_PENDING,
			"verify is in state %d", (int)state);
		return;
	}
	REQUIRE(w, state == (w->step_verified ? VERIFY_STATE_PASSED : VERIFY_STATE_RUNNING),
		"verify is in state %d", (int)state);
	REQUIRE(w, w->step_verified || w->verifying, "nobody verifies generation %u", to->number);
	/* The next run comes in time. */
	due = w->verify_ended_usec + to->policy.verify_interval_usec;
	if (!w->verifying && to->policy.verify_interval_usec > 0 &&
		(r->paused || (!r->soaked && due < r->deadline_usec)))
		REQUIRE(w, service_next_deadline(s) <= MAX(due, w->now_usec),
			"the next run of verify is forgotten");
}

/* --- recycling ------------------------------------------------------------------------------ */

void check_recycled(struct world *w, const struct effect *e)
{
	const struct service *s = &w->service;
	const struct generation *g = service_generation(s, e->generation);
	const struct world_generation *wg = world_generation(w, e->generation);
	const struct world_worker *p;
	unsigned ended = 0;

	w->counts.recycled++;
	if (!g || !wg || e->worker >= WORLD_WORKERS) {
		world_fail(w, "worker %u.%u is recycled, and unknown", e->generation, e->worker);
		return;
	}
	p = &wg->workers[e->worker];
	REQUIRE(w,
		g->number == s->current && g->state == GENERATION_SERVING &&
			s->rollout.phase == ROLLOUT_NONE && e->worker < g->wanted,
		"worker %u.%u is recycled at the wrong time", e->generation, e->worker);
	/* Without it there are as many as are wanted. */
	for (unsigned i = 0; i < g->wanted; i++)
		ended += g->workers[i].state == WORKER_STOPPED;
	REQUIRE(w, generation_ready(g) + ended >= g->wanted,
		"worker %u.%u is recycled, and only %u others are ready", e->generation, e->worker,
		generation_ready(g));
	if (e->reason == REASON_TOO_BIG)
		REQUIRE(w, p->asked, "nobody asked for worker %u.%u to be recycled", e->generation,
			e->worker);
	else
		REQUIRE(w,
			e->reason == REASON_TOO_OLD && g->policy.recycle_after_usec > 0 &&
				w->now_usec - p->ready_usec >=
					g->policy.recycle_after_usec / 10 * 9,
			"worker %u.%u is recycled too early", e->generation, e->worker);
}

/* One at a time, with another that stands in for it. */
static void check_recycle(struct world *w)
{
	const struct service *s = &w->service;
	const struct recycle *r = &s->recycle;
	const struct generation *g = current(s);

	if (!g || g->state != GENERATION_SERVING || s->rollout.phase != ROLLOUT_NONE)
		return;
	for (unsigned i = 0; i < g->wanted; i++)
		REQUIRE(w,
			!g->workers[i].retiring ||
				(r->phase == RECYCLE_LEAVING && r->generation == g->number &&
					r->worker == i),
			"worker %u.%u leaves, and nobody wants it to", g->number, i);
	if (r->phase != RECYCLE_NONE)
		REQUIRE(w, r->generation == g->number && r->spare >= g->wanted,
			"the spare of generation %u is %u", r->generation, r->spare);
	for (unsigned i = g->wanted; i < g->n_workers; i++)
		REQUIRE(w,
			g->workers[i].retiring || g->workers[i].state == WORKER_STOPPED ||
				(r->phase != RECYCLE_NONE && r->spare == i),
			"worker %u.%u is one too many", g->number, i);
}

/* --- before and after a step --------------------------------------------------------------------
 */

void note_before(const struct world *w, struct world_before *ret)
{
	const struct service *s = &w->service;
	const struct generation *serves = current(s),
				*g = service_generation(s, w->event.generation);

	ret->phase = s->rollout.phase;
	ret->id = s->rollout.id;
	ret->step = s->rollout.step;
	ret->current = s->current;
	ret->n_ready = serves ? generation_ready(serves) : 0;
	ret->was_ready = g && w->event.worker < g->n_workers && g == serves &&
			 g->workers[w->event.worker].state == WORKER_READY;
	ret->was_warm = g && g->state == GENERATION_WARM && w->event.kind == EVENT_EXITED;
	if (!ret->was_warm)
		return;
	ret->state = service_state(s);
	ret->healthy = service_is_healthy(s);
	for (unsigned id = 0; id < WORLD_LISTENERS; id++)
		world_shares(w, id, &ret->shares[id]);
}

/* Nobody notices. */
static void check_warm_crash(struct world *w, const struct world_before *before)
{
	const struct service *s = &w->service;

	w->counts.warm_crashes++;
	/* Something else was due at the same time. */
	if (before->phase != s->rollout.phase || before->step != s->rollout.step)
		return;
	REQUIRE(w, before->id == s->rollout.id && before->current == s->current,
		"a warm worker's end changes the rollout");
	REQUIRE(w, before->state == service_state(s) && before->healthy == service_is_healthy(s),
		"a warm worker's end makes the service %s",
		service_state_to_string(service_state(s)));
	for (unsigned id = 0; id < WORLD_LISTENERS; id++) {
		const struct generation *g = current(s);
		struct world_shares now;

		/* Of one that nobody else has any more it serves what comes. */
		if (!g || !(g->listeners >> id & 1))
			continue;
		world_shares(w, id, &now);
		REQUIRE(w, now.n == before->shares[id].n, "a warm worker's end changes shares");
		for (size_t i = 0; i < now.n && !w->failure; i++)
			REQUIRE(w,
				now.list[i].lane == before->shares[id].list[i].lane &&
					now.list[i].weight == before->shares[id].list[i].weight &&
					now.list[i].slots == before->shares[id].list[i].slots,
				"a warm worker's end changes shares");
	}
}

static void check_rollback(struct world *w)
{
	const struct service *s = &w->service;
	const struct generation *to = service_generation(s, w->event.generation);

	REQUIRE(w, w->effects.n > 0 && w->effects.list[0].kind == EFFECT_STEER,
		"a rollback does something else before it steers");
	REQUIRE(w, to && to->weight == SHARE_MAX && s->current == to->number && !to->failed,
		"a rollback has not moved the connections");
}

void check_after(struct world *w, const struct world_before *before)
{
	const struct service *s = &w->service;
	const struct generation *g = current(s);
	enum service_event_kind kind = w->event.kind;
	unsigned lost = before->was_ready && (kind == EVENT_EXITED || kind == EVENT_SPAWN_FAILED ||
						     kind == EVENT_WATCHDOG);

	if (before->was_warm)
		check_warm_crash(w, before);
	if (kind == EVENT_ROLLBACK)
		check_rollback(w);
	if (w->failed_run) {
		w->failed_run = false;
		REQUIRE(w, !rollout_is_open(&s->rollout) || s->rollout.phase == ROLLOUT_RESTORING,
			"a run of verify has failed, and the rollout has not");
	}
	/* Whatever becomes of workers that are recycled, as many are ready as before. */
	if (g && g->number == before->current && g->state == GENERATION_SERVING &&
		g->policy.restart == RESTART_ALWAYS && before->phase == ROLLOUT_NONE &&
		s->rollout.phase == ROLLOUT_NONE && kind != EVENT_SCALE && !s->stopping)
		REQUIRE(w, generation_ready(g) >= MIN(before->n_ready - lost, g->wanted),
			"%u of generation %u were ready, and now %u", before->n_ready, g->number,
			generation_ready(g));
}

/* Who is to be whole until the new one is promoted, because it is promised, or to be warm. */
static void check_whole(struct world *w)
{
	const struct service *s = &w->service;
	const struct generation *to = service_generation(s, s->rollout.to),
				*from = service_generation(s, s->rollout.from);

	if (!rollout_is_open(&s->rollout) || !to || !from || from->state != GENERATION_SERVING ||
		(to->policy.strategy == STRATEGY_ROLLING &&
			(to->policy.keep_warm_usec == 0 || !from->policy.steered)))
		return;
	for (unsigned i = 0; i < from->wanted; i++)
		REQUIRE(w, !from->workers[i].retiring,
			"worker %u.%u leaves before generation %u is promoted", from->number, i,
			to->number);
}

void check_traffic(struct world *w)
{
	check_verify(w);
	check_recycle(w);
	check_whole(w);
}

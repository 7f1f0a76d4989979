/* SPDX-License-Identifier: Apache-2.0 */
/* Whoever drives the service dies at some moment of a step: the state was written down, and some of
 * what it asks for was done. The world goes on alone for a while; then somebody takes over with
 * service_resume(). After that everything must hold that always holds. Or it hands over in good
 * order: service_continue(). */
#include "schedules_world.h"

/* --- dying -------------------------------------------------------------------- */

static void forget_copy(struct world *w)
{
	service_done(&w->copy);
	w->has_copy = false;
}

static struct generation *copy_generation(const struct generation *g)
{
	struct generation *copy = malloc(sizeof(*copy));

	if (!copy)
		abort();
	*copy = *g;
	copy->workers = calloc(g->n_workers + 1, sizeof(*copy->workers));
	if (!copy->workers)
		abort();
	memcpy(copy->workers, g->workers, g->n_workers * sizeof(*copy->workers));
	return copy;
}

static void note_copy(struct world *w)
{
	w->copy = w->service;
	for (size_t i = 0; i < w->service.n_generations; i++)
		w->copy.generations[i] = copy_generation(w->service.generations[i]);
	w->has_copy = true;
}

void world_note_dying(struct world *w)
{
	if (w->dying)
		note_copy(w);
}

/* It ends when so many of the effects were applied. What changed nothing that anybody has to do
 * need not have been written down. */
void world_die(struct world *w)
{
	bool unwritten = w->effects.n == 0 && w->event.kind > EVENT_SCALE && chance(w, 50);

	w->dying = false;
	w->dead = true;
	w->stop_at = pick(w, (unsigned)w->effects.n + 1);
	if (unwritten) {
		struct service newer = w->service;

		w->service = w->copy;
		w->copy = newer;
	}
	forget_copy(w);
	for (size_t i = 0; i < w->effects.n; i++) {
		const struct effect *e = &w->effects.list[i];

		/* This is written down at once, too. */
		w->want_start |= e->kind == EFFECT_START_AGAIN;
		if (e->kind == EFFECT_REPORT && e->report == REPORT_QUEUE_ABANDONED)
			world_excuse(w, e->generation);
	}
	if (w->trace)
		fprintf(w->trace, "  and dies when %zu of %zu effects are applied%s\n", w->stop_at,
			w->effects.n, unwritten ? ", before this is written down" : "");
}

/* --- meanwhile ------------------------------------------------------------------ */

/* Some processes end, others that had ended were not told of: as long as nobody has been told they
 * are processes. */
static void go_on_alone(struct world *w, bool *ended)
{
	w->now_usec += (const uint64_t[]){
		0, USEC_PER_MSEC, USEC_PER_SEC, 20 * USEC_PER_SEC, 1000 * USEC_PER_SEC}[pick(w, 5)];
	for (size_t i = 0; i < WORLD_GENERATIONS; i++)
		for (unsigned k = 0; k < WORLD_WORKERS && w->generations[i].number != 0; k++) {
			struct world_generation *wg = &w->generations[i];
			const struct generation *g = service_generation(&w->service, wg->number);
			struct world_worker *p = &wg->workers[k];
			bool has_process = g && k < g->n_workers &&
					   worker_state_has_process(g->workers[k].state);

			p->watched = false;
			/* Its end was not written down. */
			if (has_process && !p->alive && w->event.kind == EVENT_EXITED &&
				w->event.generation == wg->number && w->event.worker == k &&
				w->stop_at == 0 && w->effects.n == 0)
				p->alive = ended[i * WORLD_WORKERS + k] = true;
			/* It is not known by which signal it was to go. */
			if (has_process && g->workers[k].state == WORKER_KILLED && !p->killed &&
				!p->aborted) {
				p->aborted = true;
				p->aborted_usec = w->now_usec;
			}
			if (!p->alive || !chance(w, p->told || p->killed ? 50 : w->hostility))
				continue;
			ended[i * WORLD_WORKERS + k] = true;
			if (!g || g->policy.restart != RESTART_ALWAYS ||
				(k < g->n_workers && g->workers[k].rescues >= 3))
				world_excuse(w, wg->number);
		}
}

/* --- taking over ------------------------------------------------------------------ */

/* Lanes are whose the service says; what became of the others was not done. */
static void take_lanes_back(struct world *w)
{
	for (size_t i = 0; i < WORLD_GENERATIONS && !w->failure; i++) {
		struct world_generation *wg = &w->generations[i];
		const struct generation *g = service_generation(&w->service, wg->number);

		if (wg->number == 0)
			continue;
		if ((!g || g->lane == LANE_NONE) && wg->lane != LANE_NONE)
			world_release_lane(w, wg);
		if (!g)
			wg->number = 0;
		else if (g->lane != wg->lane && wg->lane != LANE_NONE) {
			/* They were to be swapped. */
			for (unsigned k = 0; k < WORLD_WORKERS; k++)
				wg->workers[k].had_share = false;
			wg->lane = g->lane;
			wg->n_slots = g->n_workers;
			world_cut_lane(w, wg, g);
		}
	}
}

static void start_missing(struct world *w)
{
	for (size_t i = 0; i < w->service.n_generations && !w->failure; i++) {
		const struct generation *g = w->service.generations[i];
		struct world_generation *wg = world_generation(w, g->number);

		for (unsigned k = 0; k < g->n_workers && k < WORLD_WORKERS; k++)
			if (worker_state_has_process(g->workers[k].state) &&
				(!wg || !wg->workers[k].alive))
				world_apply_one(w, &(struct effect){.kind = EFFECT_SPAWN,
							   .generation = g->number,
							   .worker = k});
	}
}

/* Was it done already, or is there nobody any more for whom it could be? */
static bool is_done(struct world *w, const struct effect *e)
{
	const struct world_generation *wg = world_generation(w, e->generation);
	const struct world_worker *p =
		wg && e->worker < WORLD_WORKERS ? &wg->workers[e->worker] : NULL;

	switch ((unsigned)e->kind) {
	case EFFECT_SIGNAL_DRAIN:
		return !p || !p->alive || p->told;
	case EFFECT_SIGNAL_TERM:
		return !p || !p->alive || p->termed;
	default:
		return false;
	}
}

static void apply_resumed(struct world *w, bool sockets)
{
	for (size_t i = 0; i < w->effects.n && !w->failure; i++) {
		const struct effect *e = &w->effects.list[i];
		bool is_socket = e->kind == EFFECT_PREPARE_LANE || e->kind == EFFECT_STEER;

		if (is_socket == sockets && !is_done(w, e))
			world_apply_one(w, e);
	}
}

static void tell_ended(struct world *w, const bool *ended)
{
	for (unsigned i = 0; i < WORLD_GENERATIONS; i++)
		for (unsigned k = 0; k < WORLD_WORKERS && !w->failure; k++) {
			const struct world_generation *wg = &w->generations[i];

			if (ended[i * WORLD_WORKERS + k] && wg->number != 0 && wg->workers[k].alive)
				(void)world_step(w, (struct service_event){.kind = EVENT_EXITED,
							    .generation = wg->number,
							    .worker = k,
							    .value = pick(w, 2)});
		}
}

static void trace_resume(const struct world *w)
{
	fprintf(w->trace, "%.3f s: somebody takes over: %zu generations, %zu effects\n",
		(double)w->now_usec / 1e6, w->service.n_generations, w->effects.n);
}

void world_take_over(struct world *w)
{
	bool ended[WORLD_GENERATIONS * WORLD_WORKERS] = {false};
	struct service *s = &w->service;

	w->counts.deaths++;
	w->n_pending = 0;
	REQUIRE(w, service_is_valid(s), "what was written down is not valid");
	go_on_alone(w, ended);
	take_lanes_back(w);
	w->effects.n = 0;
	w->event = (struct service_event){.kind = EVENT_TIME};
	w->verifying = false;
	if (service_resume(s, w->now_usec, &w->effects) < 0)
		abort();
	if (w->trace)
		trace_resume(w);
	/* Reports of what happened just before were heard by nobody. */
	w->n_open_reports = s->rollout.phase != ROLLOUT_NONE;
	w->step_id = s->rollout.phase == ROLLOUT_SOAKING || s->rollout.step > 0 ? s->rollout.id : 0;
	w->step_verified = s->rollout.verified;
	w->failed_run = false;
	w->failed_verify =
		s->rollout.phase != ROLLOUT_NONE && s->rollout.reason == REASON_VERIFY_FAILED;
	apply_resumed(w, true);
	w->dead = false;
	world_steer(w);
	start_missing(w);
	apply_resumed(w, false);
	if (s->n_generations == 0 && !w->failure) {
		w->want_start |= s->wanted && !s->gave_up;
		if (!w->want_start && !w->closed)
			world_apply_one(w, &(struct effect){.kind = EFFECT_CLOSE_LISTENERS});
	}
	if (!w->failure)
		(void)world_step(w, (struct service_event){.kind = EVENT_TIME});
	tell_ended(w, ended);
}

/* --- handing over ------------------------------------------------------------------ */

/* But for the number of a run of verify. */
static void check_unchanged(struct world *w)
{
	const struct service *s = &w->service;

	w->copy.rollout.verify_run = s->rollout.verify_run;
	w->copy.rollout.verify_due_usec = s->rollout.verify_due_usec;
	REQUIRE(w, memcmp(&w->copy.rollout, &s->rollout, sizeof(s->rollout)) == 0,
		"the rollout has changed while it was handed over");
	for (size_t i = 0; i < s->n_generations && !w->failure; i++) {
		const struct generation *g = s->generations[i], *before = w->copy.generations[i];

		REQUIRE(w,
			before->zero_since_usec == g->zero_since_usec &&
				before->warm_until_usec == g->warm_until_usec &&
				memcmp(before->workers, g->workers,
					g->n_workers * sizeof(*g->workers)) == 0,
			"generation %u has changed while it was handed over", g->number);
	}
}

void world_hand_over(struct world *w)
{
	struct service *s = &w->service;

	w->counts.handovers++;
	REQUIRE(w, service_is_valid(s), "what was written down is not valid");
	note_copy(w);
	w->effects.n = 0;
	w->event = (struct service_event){.kind = EVENT_TIME};
	/* Who was finding something out is gone. */
	w->verifying = false;
	for (size_t i = 0; i < WORLD_GENERATIONS; i++)
		for (unsigned k = 0; k < WORLD_WORKERS; k++)
			w->generations[i].workers[k].watched = false;
	if (service_continue(s, &w->effects) < 0)
		abort();
	if (w->trace)
		trace_resume(w);
	check_unchanged(w);
	forget_copy(w);
	/* Sockets that are there need not be made. */
	w->dead = true;
	apply_resumed(w, true);
	w->dead = false;
	world_steer(w);
	apply_resumed(w, false);
	if (!w->failure)
		(void)world_step(w, (struct service_event){.kind = EVENT_TIME});
}

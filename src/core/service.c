/* SPDX-License-Identifier: Apache-2.0 */
#include "core/service_internal.h"

/* Between two tries to start a process that could not even be created. */
#define RETRY_USEC (100 * USEC_PER_MSEC)

void service_init(struct service *s)
{
	*s = (struct service){.rollout = {.deadline_usec = USEC_INFINITY}};
}

void service_done(struct service *s)
{
	for (size_t i = 0; i < s->n_generations; i++)
		generation_free(s->generations[i]);
	s->n_generations = 0;
}

struct generation *service_generation(const struct service *s, unsigned number)
{
	for (size_t i = 0; i < s->n_generations; i++)
		if (number != 0 && s->generations[i]->number == number)
			return s->generations[i];
	return NULL;
}

struct generation *service_oldest_leaving(const struct service *s)
{
	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->state == GENERATION_RETIRING)
			return s->generations[i];
	return NULL;
}

const char *service_state_to_string(enum service_state s)
{
	switch (s) {
	case SERVICE_STOPPED:
		return "stopped";
	case SERVICE_STARTING:
		return "starting";
	case SERVICE_SERVING:
		return "serving";
	case SERVICE_UPGRADING:
		return "upgrading";
	case SERVICE_FAILING:
		return "failing";
	}
	return "unknown";
}

enum service_state service_state(const struct service *s)
{
	const struct generation *current = service_generation(s, s->current);

	if (!s->wanted)
		return SERVICE_STOPPED;
	if (!current)
		return s->rollout.phase != ROLLOUT_NONE ? SERVICE_STARTING : SERVICE_FAILING;
	if (rollout_is_open(&s->rollout))
		return SERVICE_UPGRADING;
	return generation_ready(current) > 0 ? SERVICE_SERVING : SERVICE_FAILING;
}

void service_start_failed(struct service *s)
{
	if (s->n_generations == 0 && !s->stopping)
		s->wanted = true;
}

bool service_is_healthy(const struct service *s)
{
	const struct generation *current = service_generation(s, s->current);

	if (!s->wanted)
		return true;
	/* While workers are replaced one by one, both generations together are what is wanted. */
	if (current && rollout_is_open(&s->rollout)) {
		const struct generation *to = service_generation(s, s->rollout.to);
		return generation_ready(current) + (to ? generation_ready(to) : 0) >=
		       current->wanted;
	}
	/* While one is recycled another stands in for it. */
	return current && generation_ready(current) >= current->wanted;
}

void service_report(struct effects *ret, enum report what, unsigned generation, unsigned value)
{
	effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
				 .report = what,
				 .generation = generation,
				 .worker = NO_WORKER,
				 .value = value});
}

void service_keep_queue(struct service *s, const struct generation *g)
{
	s->queue_lane = g->lane;
	s->queue_listeners = g->listeners;
}

static void drop_generation(struct service *s, size_t i, struct effects *ret)
{
	struct generation *g = s->generations[i];

	service_report(ret, REPORT_GENERATION_GONE, g->number, 0);
	/* The connections of a listener that only generations on their way out have go to another
	 * of them. */
	if (g->lane != LANE_NONE)
		generation_steer(g, ret);
	if (g->lane != LANE_NONE)
		effects_add(ret, (struct effect){.kind = EFFECT_RELEASE_LANE,
					 .generation = g->number,
					 .worker = NO_WORKER,
					 .value = g->lane});
	effects_add(ret, (struct effect){.kind = EFFECT_FORGET_GENERATION,
				 .generation = g->number,
				 .worker = NO_WORKER});
	if (s->current == g->number)
		s->current = 0;
	generation_free(g);
	memmove(&s->generations[i], &s->generations[i + 1],
		(s->n_generations - i - 1) * sizeof(s->generations[0]));
	s->n_generations--;
}

/* Workers that were scaled away and are gone are forgotten, from the top. */
static void trim(struct generation *g)
{
	while (g->n_workers > g->wanted && g->workers[g->n_workers - 1].state == WORKER_STOPPED)
		g->n_workers--;
}

static bool is_needed(const struct service *s, const struct generation *g)
{
	/* The old one's workers rolled away may all be gone while the new one's last batch soaks.
	 */
	return s->rollout.phase != ROLLOUT_NONE && s->rollout.phase != ROLLOUT_SETTLING &&
	       (g->number == s->rollout.from || g->number == s->rollout.to);
}

/* A generation that serves, or could again, and whose workers have all ended by their own will
 * (restart: never, on-failure). */
static bool has_ended(const struct service *s, const struct generation *g)
{
	return ((g->state == GENERATION_SERVING && g->number == s->current) ||
		       g->state == GENERATION_WARM) &&
	       g->policy.restart != RESTART_ALWAYS && !generation_has_process(g);
}

/* One warm generation is enough, and none when there is nothing to go back from. */
void service_retire_warm(struct service *s, uint64_t now, struct effects *ret)
{
	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->state == GENERATION_WARM)
			generation_retire(s->generations[i], REASON_REPLACED, false, now, ret);
}

uint64_t service_empty_until(const struct generation *g, uint64_t now)
{
	return usec_add(now, MAX(g->policy.drain.kill_after_usec, USEC_PER_SEC));
}

/* Who is forgotten may be followed by another in the same lane, and by a stop that says that
 * nothing runs: then nobody may be left. What cannot be ended is waited for no longer than the last
 * of workers. */
static bool is_empty(struct service *s, struct generation *g, uint64_t now, struct effects *ret)
{
	if (!g->policy.contained || g->lane == LANE_NONE)
		return true;
	if (g->empty_until_usec != 0)
		return g->empty_until_usec <= now;
	g->empty_until_usec = service_empty_until(g, now);
	/* It is nobody's way back any more. */
	if (s->current == g->number)
		s->current = 0;
	generation_set_weight(g, 0, now);
	effects_add(ret,
		(struct effect){
			.kind = EFFECT_END_REST, .generation = g->number, .worker = NO_WORKER});
	generation_steer(g, ret);
	return false;
}

void service_let_go(struct service *s, struct effects *ret)
{
	s->wanted = false;
	s->stopping = true;
	/* Its process lives: a lane that others may hold is not for anybody else. */
	drop_generation(s, 0, ret);
}

/* An adopted generation stays until it is replaced. What was to replace it has failed, and is gone.
 */
static bool shall_let_go(const struct service *s)
{
	const struct generation *g = s->n_generations == 1 ? s->generations[0] : NULL;

	return g && g->adopted && g->state == GENERATION_SERVING &&
	       s->rollout.phase == ROLLOUT_NONE &&
	       (s->rollout.from == g->number || s->rollout.to == g->number);
}

static void collect(struct service *s, uint64_t now, struct effects *ret)
{
	for (size_t i = 0; i < s->n_generations; i++) {
		struct generation *g = s->generations[i];

		trim(g);
		if (!has_ended(s, g) || is_needed(s, g))
			continue;
		if (g->state == GENERATION_SERVING) {
			service_keep_queue(s, g);
			service_retire_warm(s, now, ret);
		}
		g->state = GENERATION_RETIRING;
	}
	for (size_t i = 0; i < s->n_generations;) {
		struct generation *g = s->generations[i];

		if (g->state == GENERATION_RETIRING && !generation_has_process(g) &&
			!is_needed(s, g) && is_empty(s, g, now, ret))
			drop_generation(s, i, ret);
		else
			i++;
	}
	if (shall_let_go(s))
		service_let_go(s, ret);
	if (!s->stopping || s->n_generations > 0)
		return;
	s->stopping = false;
	if (s->start_again) {
		s->start_again = false;
		effects_add(ret, (struct effect){.kind = EFFECT_START_AGAIN, .worker = NO_WORKER});
		return;
	}
	effects_add(ret, (struct effect){.kind = EFFECT_CLOSE_LISTENERS, .worker = NO_WORKER});
	service_report(ret, REPORT_SERVICE_STOPPED, 0, 0);
}

/* A start that had been given up leaves nothing running: the rest of it goes too. */
static void give_up(struct service *s, struct generation *g, enum reason reason, uint64_t now,
	struct effects *ret)
{
	effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
				 .report = REPORT_GENERATION_GIVEN_UP,
				 .reason = reason,
				 .generation = g->number,
				 .worker = NO_WORKER});
	g->failed = true;
	s->gave_up = true;
	service_keep_queue(s, g);
	if (rollout_is_open(&s->rollout) && s->rollout.to == g->number)
		rollout_fail(s, reason, NO_WORKER, now, ret);
	else
		generation_retire(g, reason, true, now, ret);
}

/* Does the end of this worker, or what it says, speak against its generation? Not when it was told
 * to go, although it is wanted again by now. */
static bool speaks_for(const struct service *s, const struct generation *g, const struct worker *w)
{
	return rollout_depends_on(s, g) && !w->retiring && w->state != WORKER_DRAINING &&
	       w->state != WORKER_ESCALATED && w->state != WORKER_KILLED;
}

static int on_exited(struct service *s, struct generation *g, struct worker *w,
	const struct service_event *event, uint64_t now, struct effects *ret)
{
	enum reason reason = REASON_EXITED_IN_SOAK;
	bool failed = event->kind == EVENT_SPAWN_FAILED, clean = !failed && event->value == 1;
	bool useless;
	enum worker_event on;

	if (!worker_state_has_process(w->state))
		return -EPROTO;
	if (failed)
		reason = REASON_SPAWN_FAILED;
	else if (w->state == WORKER_KILLED)
		reason = w->was_ready ? REASON_WATCHDOG : REASON_NOT_READY_IN_TIME;
	else if (!w->was_ready)
		reason = REASON_EXITED_BEFORE_READY;
	if (speaks_for(s, g, w))
		rollout_fail(s, reason, w->index, now, ret);
	if (recycle_spare_failed(s, g, reason, w->index))
		w->retiring = true;
	/* A rescue that cannot even be started ends there. */
	if (failed && w->retiring)
		w->rescues = UINT32_MAX / 2;
	/* Who comes in its place is ours, and after a stop nobody does. */
	if (g->adopted && s->stopping)
		generation_retire(g, REASON_STOPPED, true, now, ret);
	g->adopted = false;
	on = generation_exit_event(g, w, clean, now);
	/* The first start of what cannot be started as it is. */
	useless = failed && event->value == 1 && g->state == GENERATION_STARTING && !g->failed;
	if (useless) {
		g->given_up = true;
		on = WORKER_ON_EXIT_FINAL;
	}
	if (failed && on == WORKER_ON_EXIT_RESPAWN) {
		/* No process ran that would have taken time: whatever the backoff says, trying for
		 * ever must leave time for everything else. */
		w->backoff_usec = RETRY_USEC;
		on = WORKER_ON_EXIT_BACKOFF;
	}
	(void)generation_worker_event(g, w, on, now, ret);
	if (g->given_up && !g->failed)
		give_up(s, g,
			!useless && generation_wants_restart(g, clean) ? REASON_START_LIMIT
								       : reason,
			now, ret);
	return 0;
}

/* Time out a worker's readiness: with a rollout, that is its end; alone, it is killed and counts as
 * a failure. */
static void on_time(struct service *s, uint64_t now, struct effects *ret)
{
	struct generation *to = service_generation(s, s->rollout.to);

	if (to && rollout_depends_on(s, to))
		for (unsigned i = 0; i < to->n_workers; i++)
			if (to->workers[i].state == WORKER_STARTING &&
				to->workers[i].deadline_usec <= now) {
				rollout_fail(s, REASON_NOT_READY_IN_TIME, i, now, ret);
				break;
			}
	for (size_t i = 0; i < s->n_generations; i++) {
		struct generation *g = s->generations[i];

		generation_tick(g, now, ret);
		if (g->state == GENERATION_WARM && g->warm_until_usec <= now)
			generation_retire(g, REASON_REPLACED, false, now, ret);
	}
	rollout_verify_tick(s, now, ret);
}

static int on_worker(struct service *s, struct generation *g, struct worker *w,
	const struct service_event *event, uint64_t now, struct effects *ret)
{
	bool hung;
	int r;

	switch (event->kind) {
	case EVENT_SPAWN_FAILED:
	case EVENT_EXITED:
		return on_exited(s, g, w, event, now, ret);
	case EVENT_READY:
		return generation_worker_event(g, w, WORKER_ON_BECAME_READY, now, ret);
	case EVENT_WATCHDOG:
		if (g->adopted)
			return 0;
		hung = w->state == WORKER_READY;
		r = generation_worker_event(g, w, WORKER_ON_WATCHDOG, now, ret);
		if (hung && rollout_depends_on(s, g))
			rollout_fail(s, REASON_WATCHDOG, w->index, now, ret);
		return r;
	case EVENT_SAID_ERROR:
		if (speaks_for(s, g, w))
			rollout_fail(s, REASON_SAID_ERROR, w->index, now, ret);
		return 0;
	case EVENT_QUEUE:
		if (w->state != WORKER_EMPTYING || event->value != 0)
			return 0;
		return generation_worker_event(g, w, WORKER_ON_EMPTY, now, ret);
	case EVENT_CONNECTIONS:
		return generation_worker_counted(g, w, event->value, now, ret);
	case EVENT_RECYCLE:
		if (!g->adopted)
			recycle_request(s, g, w, event->reason);
		return 0;
	case EVENT_EXTEND_READY_TIMEOUT:
		if (w->state == WORKER_STARTING || w->state == WORKER_DRAINING)
			w->deadline_usec =
				MAX(w->deadline_usec, now + MIN(event->usec, 3600 * USEC_PER_SEC));
		return 0;
	case EVENT_UPGRADE:
	case EVENT_START:
	case EVENT_STOP:
	case EVENT_KILL:
	case EVENT_PROMOTE:
	case EVENT_PAUSE:
	case EVENT_ABORT:
	case EVENT_ROLLBACK:
	case EVENT_SCALE:
	case EVENT_ADOPT:
	case EVENT_LET_GO:
	case EVENT_VERIFIED:
	case EVENT_VERIFY_FAILED:
	case EVENT_LANE_FAILED:
	case EVENT_EMPTY:
	case EVENT_TIME:
	case EVENT_LISTENERS:
		break;
	}
	return -EPROTO;
}

/* Its lane gets sockets in those that are new, before anybody is sent there. */
static int on_listeners(struct service *s, struct generation *g, const struct upgrade_spec *spec,
	struct effects *ret)
{
	if (!g || !spec)
		return -ESRCH;
	g->listeners = spec->listeners;
	g->policy.steered = spec->policy.steered;
	g->policy.per_worker = spec->policy.per_worker;
	if (g->lane == LANE_NONE)
		return 0;
	if (g->lane == s->queue_lane)
		service_keep_queue(s, g);
	generation_prepare_lane(g, ret);
	generation_steer(g, ret);
	return 0;
}

/* What the world says of a whole generation. */
static int on_world(
	struct service *s, const struct service_event *event, uint64_t now, struct effects *ret)
{
	struct generation *g = service_generation(s, event->generation);
	bool verified = event->kind == EVENT_VERIFIED;

	if (event->kind == EVENT_TIME) {
		on_time(s, now, ret);
		return 0;
	}
	if (verified || event->kind == EVENT_VERIFY_FAILED) {
		/* That of another run than the present one comes too late. */
		rollout_verify_result(s, event->generation, event->value, verified, now, ret);
		return 0;
	}
	if (event->kind == EVENT_LISTENERS)
		return on_listeners(s, g, event->spec, ret);
	if (event->kind == EVENT_EMPTY) {
		if (!g || g->empty_until_usec == 0)
			return -ESRCH;
		g->empty_until_usec = now;
		return 0;
	}
	if (event->kind != EVENT_LANE_FAILED)
		return -EPROTO;
	if (g && recycle_spare_failed(s, g, REASON_LANE_FAILED, s->recycle.spare)) {
		g->workers[s->recycle.spare].retiring = true;
		return 0;
	}
	if (!g || !rollout_is_open(&s->rollout) || s->rollout.to != g->number)
		return -ESRCH;
	if (s->rollout.from == 0)
		give_up(s, g, REASON_LANE_FAILED, now, ret);
	else
		rollout_fail(s, REASON_LANE_FAILED, NO_WORKER, now, ret);
	return 0;
}

static bool event_is_of_worker(enum service_event_kind kind)
{
	return kind == EVENT_SPAWN_FAILED || kind == EVENT_READY || kind == EVENT_EXITED ||
	       kind == EVENT_WATCHDOG || kind == EVENT_SAID_ERROR || kind == EVENT_QUEUE ||
	       kind == EVENT_CONNECTIONS || kind == EVENT_EXTEND_READY_TIMEOUT ||
	       kind == EVENT_RECYCLE;
}

int service_step(
	struct service *s, const struct service_event *event, uint64_t now, struct effects *ret)
{
	struct generation *g;
	size_t workers = 1; /* a spare */
	int r;

	for (size_t i = 0; i < s->n_generations; i++)
		workers += s->generations[i]->n_workers;
	if (event->kind == EVENT_UPGRADE || event->kind == EVENT_ADOPT)
		workers += event->spec->policy.workers;
	if (event->kind == EVENT_SCALE)
		workers += 3 * event->value; /* the next and a warm one as well */
	/* No worker changes state more than a few times in a step, each time with a few effects. */
	r = effects_reserve(ret, 64 + 24 * workers);
	if (r < 0)
		return r;
	if (event_is_of_worker(event->kind)) {
		g = service_generation(s, event->generation);
		if (!g || event->worker >= g->n_workers)
			return -ESRCH;
		r = on_worker(s, g, &g->workers[event->worker], event, now, ret);
	} else if (service_event_is_request(event->kind)) {
		r = service_request(s, event, now, ret);
	} else {
		r = on_world(s, event, now, ret);
	}
	if (r != 0)
		return r;
	rollout_advance(s, now, ret);
	/* A successor is started before anybody could think that nobody is left. */
	recycle_advance(s, now, ret);
	collect(s, now, ret);
	/* What was collected may be the room a rollout waited for. */
	rollout_advance(s, now, ret);
	recycle_advance(s, now, ret);
	for (size_t i = 0; i < s->n_generations; i++)
		generation_note_shares(s->generations[i]);
	return 0;
}

uint64_t service_next_deadline(const struct service *s)
{
	uint64_t next = MIN(rollout_next_deadline(s), recycle_next_deadline(s));

	for (size_t i = 0; i < s->n_generations; i++)
		next = MIN(next, generation_next_deadline(s->generations[i]));
	return next;
}

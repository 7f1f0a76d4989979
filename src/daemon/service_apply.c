/* SPDX-License-Identifier: Apache-2.0 */
/* Effects meet the world: the one exhaustive switch. An effect never calls back into the core; what
 * goes wrong becomes an event that is handled when the present one is done. */
#include "daemon/cgroup.h"
#include "daemon/connections.h"
#include "daemon/fault.h"
#include "daemon/listener_live.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/output.h"
#include "daemon/ready.h"
#include "daemon/reexec.h"
#include "daemon/state_save.h"
#include "daemon/strays.h"
#include "daemon/verify.h"
#include "daemon/worker_channel.h"
#include "daemon/worker_process.h"
#include "daemon/worker_store.h"

struct manager_generation *manager_service_generation(
	const struct manager_service *s, unsigned number)
{
	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->number == number)
			return s->generations[i];
	return NULL;
}

struct worker_process *manager_service_worker(
	const struct manager_service *s, unsigned generation, unsigned index)
{
	struct manager_generation *g = manager_service_generation(s, generation);

	return g && index < g->n_workers ? g->workers[index] : NULL;
}

static void queue_event(struct manager_service *s, struct service_event e)
{
	if (array_reserve(&s->events, &s->events_capacity, s->n_events + 1, sizeof(e)) < 0) {
		log_error("%s: out of memory, an event was lost", s->name);
		return;
	}
	s->events[s->n_events++] = e;
}

void manager_service_queue_event(struct manager_service *s, const struct service_event *e)
{
	queue_event(s, *e);
}

struct worker_process *manager_service_make_worker(
	struct manager_service *s, unsigned generation, unsigned index)
{
	struct manager_generation *g = manager_service_generation(s, generation);
	struct worker_process **workers;

	if (!g)
		return NULL;
	if (index >= g->n_workers) {
		workers = realloc(g->workers, (index + 1) * sizeof(*workers));
		if (!workers)
			return NULL;
		memset(workers + g->n_workers, 0, (index + 1 - g->n_workers) * sizeof(*workers));
		g->workers = workers;
		g->n_workers = index + 1;
	}
	if (!g->workers[index])
		g->workers[index] = worker_process_new(s, generation, index);
	return g->workers[index];
}

static void apply_spawn(struct manager_service *s, const struct effect *e)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct manager_generation *g = manager_service_generation(s, e->generation);
	struct worker_process *p = manager_service_make_worker(s, e->generation, e->worker);
	struct service_event failed = {
		.kind = EVENT_SPAWN_FAILED, .generation = e->generation, .worker = e->worker};
	int r;

	if (!p || !g) {
		log_error("%s: out of memory, worker %u of generation %u is not started", s->name,
			e->worker, e->generation);
		queue_event(s, failed);
		return;
	}
	r = worker_process_spawn(p, g, &error);
	if (r < 0) {
		/* What cannot be executed today cannot be in a second either. */
		failed.value = r == -ENOENT || r == -EACCES || r == -ENOEXEC;
		/* Several may fail before the first of these events is handled. */
		p->spawn_failure = strdup(error_message(&error));
		manager_report(s->manager, s, e->generation, e->worker, LOG_ERR, "worker-failed",
			"%s", error_message(&error));
		manager_service_note_trouble(s, p, e->generation, e->worker, error_message(&error));
		queue_event(s, failed);
		return;
	}
	if (!g->snapshot->config.environment_inherited && snapshot_program_changed(g->snapshot))
		log_warning("%s: %s was changed since generation %u was made; a worker started now "
			    "runs the changed one",
			s->name, g->snapshot->executable, g->number);
	manager_report(s->manager, s, e->generation, e->worker, LOG_DEBUG, "worker-spawned",
		"%s: generation %u: worker %u started (pid %d)", s->name, e->generation, e->worker,
		(int)p->pid);
}

static void apply_watch_readiness(struct manager_service *s, const struct effect *e)
{
	struct manager_generation *g = manager_service_generation(s, e->generation);
	struct worker_process *p = manager_service_worker(s, e->generation, e->worker);
	const struct generation *core = service_generation(&s->core, e->generation);
	int r;

	/* It may have failed to start, or have been taken back in a state that needs no watching.
	 */
	if (!g || !p || p->pid == 0 || p->ready || !core ||
		core->workers[e->worker].state != WORKER_STARTING)
		return;
	r = ready_watch_new(p, g, &p->ready);
	if (r < 0)
		log_error("%s: generation %u: cannot find out when worker %u is ready: %s", s->name,
			e->generation, e->worker, strerror(-r));
}

void manager_service_ready(struct worker_process *p)
{
	struct service_event e = {
		.kind = EVENT_READY, .generation = p->generation, .worker = p->index};

	p->ready = ready_watch_free(p->ready);
	(void)manager_service_event(p->service, &e);
}

static void apply_signal(struct manager_service *s, const struct effect *e, int signal, bool group)
{
	struct worker_process *p = manager_service_worker(s, e->generation, e->worker);

	if (!p || p->pid == 0)
		return;
	if (signal == SIGKILL)
		worker_process_kill(p);
	else
		worker_process_signal(p, signal, group);
}

/* When the core escalates. */
static uint64_t drain_deadline(struct manager_service *s, unsigned generation)
{
	const struct generation *core = service_generation(&s->core, generation);

	return core ? usec_add(manager_now(s->manager), core->policy.drain.timeout_usec)
		    : USEC_INFINITY;
}

/* Once for each process: to many programs a second signal means "at once". */
static void apply_signal_drain(struct manager_service *s, const struct effect *e, int signal)
{
	struct worker_process *p = manager_service_worker(s, e->generation, e->worker);

	if (!p || p->pid == 0 || p->told_to_go)
		return;
	if (!worker_channel_drain(p, drain_deadline(s, e->generation)))
		worker_process_signal(p, signal, false);
	p->told_to_go = p->changed = true;
	state_save_service(s);
}

/* As the generation was made, whatever the configuration says by now. */
static bool wants_own_sockets(const struct manager_generation *g, const struct listener *l)
{
	const struct service_config *c = &g->snapshot->config;

	for (size_t i = 0; i < c->n_listeners; i++)
		if (plan_listener_same(&c->listeners[i], &l->config))
			return c->listeners[i].sockets == SOCKETS_PER_WORKER;
	return l->config.sockets == SOCKETS_PER_WORKER;
}

static void apply_prepare_lane(struct manager_service *s, const struct effect *e)
{
	const struct manager_generation *g = manager_service_generation(s, e->generation);
	const struct generation *core = service_generation(&s->core, e->generation);

	if (!core || !g)
		return;
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		_cleanup_error_ struct error error = ERROR_NULL;
		struct listener *l = s->listeners[id];
		int r;

		if (!l || l->kind != LISTENER_GROUP || !(core->listeners & (UINT64_C(1) << id)))
			continue;
		r = listener_prepare_lane(
			l, e->value, core->n_workers, wants_own_sockets(g, l), &error);
		if (r >= 0)
			continue;
		manager_report(s->manager, s, e->generation, NO_WORKER, LOG_ERR, "lane-failed",
			"%s: generation %u: %s", s->name, e->generation, error_message(&error));
		queue_event(s, (struct service_event){
				       .kind = EVENT_LANE_FAILED, .generation = e->generation});
		return;
	}
}

static void apply_query_queue(struct manager_service *s, const struct effect *e)
{
	const struct generation *core = service_generation(&s->core, e->generation);
	unsigned waiting = 0;

	if (!core)
		return;
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		struct listener *l = s->listeners[id];
		if (l && l->kind == LISTENER_GROUP && (core->listeners & (UINT64_C(1) << id)))
			waiting += listener_queue(l, core->lane, e->worker);
	}
	queue_event(s, (struct service_event){.kind = EVENT_QUEUE,
			       .generation = e->generation,
			       .worker = e->worker,
			       .value = waiting});
}

static void apply_count_connections(struct manager_service *s, const struct effect *e)
{
	const struct worker_process *p = manager_service_worker(s, e->generation, e->worker);

	if (p && p->pid)
		connections_ask(s, e->generation, e->worker);
	else
		queue_event(s, (struct service_event){.kind = EVENT_CONNECTIONS,
				       .generation = e->generation,
				       .worker = e->worker});
}

/* Its workers are gone. What they left behind elsewhere may still hold the lane's sockets: then
 * these are not used again. */
static void apply_release_lane(struct manager_service *s, const struct effect *e)
{
	const struct manager_generation *g = manager_service_generation(s, e->generation);
	const struct worker_process *p = manager_service_worker(s, e->generation, 0);
	unsigned n;
	bool populated;

	/* It is let go of, with all that it has. */
	if (p && p->pid != 0)
		return;
	n = strays_kill(s->manager, s->name, e->generation);
	populated = g && generation_cgroup_is_populated(g);

	if (n == 0 && !populated)
		return;
	if (n > 0)
		manager_report(s->manager, s, e->generation, NO_WORKER, LOG_WARNING,
			"strays-killed",
			"%s: generation %u left %u processes behind, killed; its sockets are "
			"replaced before they are used again",
			s->name, e->generation, n);
	else
		log_warning("%s: processes that generation %u has left do not end; its sockets are "
			    "replaced before they are used again",
			s->name, e->generation);
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id])
			listener_taint_lane(s->listeners[id], e->value);
}

static void apply_swap_lanes(struct manager_service *s, const struct effect *e)
{
	/* The core has swapped the numbers; sockets stay where they are, and a restored generation
	 * may want more of them. */
	struct effect prepare = *e;

	/* Whom the other's workers have left behind would accept from what is not theirs now. */
	generation_cgroup_kill_all(manager_service_generation(s, e->worker));
	prepare.value = e->value;
	apply_prepare_lane(s, &prepare);
}

static void apply_forget(struct manager_service *s, const struct effect *e)
{
	if (verify_is_of(s, e->generation))
		verify_stop(s);
	for (size_t i = 0; i < s->n_generations; i++) {
		struct manager_generation *g = s->generations[i];

		if (g->number != e->generation)
			continue;
		manager_generation_free(g);
		memmove(&s->generations[i], &s->generations[i + 1],
			(s->n_generations - i - 1) * sizeof(g));
		s->n_generations--;
		break;
	}
	manager_service_drop_unused_listeners(s);
}

static void apply_close_listeners(struct manager_service *s)
{
	worker_store_clear(s);
	verify_stop(s); /* it may have a connection to one */
	memset(s->preview_rules, 0, sizeof(s->preview_rules));
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id])
			s->listeners[id] = listener_close(s->listeners[id]);
}

static int drain_signal(const struct manager_service *s, unsigned generation)
{
	const struct manager_generation *g = manager_service_generation(s, generation);

	return g ? g->snapshot->config.drain.signal : SIGTERM;
}

/* What the effects of one event share. */
struct round {
	bool steer; /* programs are to be attached */
};

static void apply(struct manager_service *s, const struct effect *e, struct round *round)
{
	/* Steering comes before whatever follows it, but once for many. Who is told that a
	 * generation has its share, or has lost it, may rely on it; what is said of a worker can
	 * wait. */
	bool worker_news = e->kind == EFFECT_REPORT && e->report != REPORT_ROLLOUT_ENDED &&
			   e->worker != NO_WORKER;

	if (round->steer && e->kind != EFFECT_STEER && !worker_news) {
		manager_service_steer(s);
		round->steer = false;
	}
	switch (e->kind) {
	case EFFECT_PREPARE_LANE:
		apply_prepare_lane(s, e);
		break;
	case EFFECT_SPAWN:
		apply_spawn(s, e);
		break;
	case EFFECT_WATCH_READINESS:
		apply_watch_readiness(s, e);
		break;
	case EFFECT_SIGNAL_DRAIN:
		apply_signal_drain(s, e, drain_signal(s, e->generation));
		break;
	case EFFECT_SIGNAL_TERM:
		apply_signal(s, e, SIGTERM, true);
		break;
	case EFFECT_SIGNAL_KILL:
		apply_signal(s, e, SIGKILL, true);
		break;
	case EFFECT_SIGNAL_ABORT:
		apply_signal(s, e, SIGABRT, false);
		break;
	case EFFECT_STEER:
		round->steer = true;
		break;
	case EFFECT_QUERY_QUEUE:
		apply_query_queue(s, e);
		break;
	case EFFECT_COUNT_CONNECTIONS:
		apply_count_connections(s, e);
		break;
	case EFFECT_VERIFY:
		verify_start(s, e->generation, e->value);
		break;
	case EFFECT_VERIFY_STOP:
		verify_stop(s);
		break;
	case EFFECT_END_REST:
		generation_cgroup_end(s, e->generation);
		break;
	case EFFECT_RELEASE_LANE:
		apply_release_lane(s, e);
		break;
	case EFFECT_SWAP_LANES:
		apply_swap_lanes(s, e);
		break;
	case EFFECT_FORGET_GENERATION:
		apply_forget(s, e);
		break;
	case EFFECT_CLOSE_LISTENERS:
		apply_close_listeners(s);
		break;
	case EFFECT_START_AGAIN:
		/* It needs steps of its own: after this one. */
		s->start_again = true;
		break;
	case EFFECT_REPORT:
		manager_service_report_effect(s, e);
		break;
	}
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct service_event e = {.kind = EVENT_TIME};

	(void)source;
	(void)usec;
	(void)manager_service_event(userdata, &e);
	return 0;
}

static void arm_timer(struct manager_service *s)
{
	uint64_t next = service_next_deadline(&s->core);
	int r;

	if (!s->timer) {
		r = sd_event_add_time(
			s->manager->event, &s->timer, CLOCK_MONOTONIC, next, 1, on_timer, s);
		if (r >= 0)
			r = sd_event_source_set_priority(s->timer, PRIORITY_TIMER);
	} else {
		r = sd_event_source_set_time(s->timer, next);
	}
	if (r >= 0)
		r = sd_event_source_set_enabled(
			s->timer, next == USEC_INFINITY ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
	if (r < 0)
		log_error("%s: its timer cannot be set: %s", s->name, strerror(-r));
}

/* A worker that was woken for a connection and ended without taking it must not leave the others
 * asleep. */
static void nudge_others(struct manager_service *s, const struct service_event *e)
{
	const struct generation *g = service_generation(&s->core, e->generation);

	if (!g || g->lane == LANE_NONE)
		return;
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id] && (g->listeners & (UINT64_C(1) << id)))
			listener_nudge(s->listeners[id], g->lane);
}

/* The name of an effect as a fault point has it. */
static const char *effect_name(enum effect_kind kind)
{
	static const char *const names[] = {
		[EFFECT_PREPARE_LANE] = "prepare-lane",
		[EFFECT_SPAWN] = "spawn",
		[EFFECT_WATCH_READINESS] = "watch-readiness",
		[EFFECT_SIGNAL_DRAIN] = "signal-drain",
		[EFFECT_SIGNAL_TERM] = "signal-term",
		[EFFECT_SIGNAL_KILL] = "signal-kill",
		[EFFECT_SIGNAL_ABORT] = "signal-abort",
		[EFFECT_STEER] = "steer",
		[EFFECT_QUERY_QUEUE] = "query-queue",
		[EFFECT_COUNT_CONNECTIONS] = "count-connections",
		[EFFECT_VERIFY] = "verify",
		[EFFECT_VERIFY_STOP] = "verify-stop",
		[EFFECT_END_REST] = "end-rest",
		[EFFECT_RELEASE_LANE] = "release-lane",
		[EFFECT_SWAP_LANES] = "swap-lanes",
		[EFFECT_FORGET_GENERATION] = "forget-generation",
		[EFFECT_CLOSE_LISTENERS] = "close-listeners",
		[EFFECT_START_AGAIN] = "start-again",
		[EFFECT_REPORT] = "report",
	};
	return names[kind];
}

static void apply_all(struct manager_service *s, const struct effects *effects, struct round *round)
{
	/* Who dies from here on leaves word of what was to be done. */
	for (size_t i = 0; i < effects->n; i++)
		if (effects->list[i].kind == EFFECT_START_AGAIN)
			s->start_again = s->changed = true;
	state_save_service(s);
	for (size_t i = 0; i < effects->n; i++) {
		if (fault_is_on())
			fault_point_of("effect", effect_name(effects->list[i].kind));
		apply(s, &effects->list[i], round);
	}
}

static int step(struct manager_service *s, const struct service_event *e)
{
	struct effects effects = {0};
	struct round round = {0};
	uint64_t now;
	int r;

	(void)sd_event_now(s->manager->event, CLOCK_MONOTONIC, &now);
	/* The loop's time may be older than a deadline that is just due. */
	if (e->kind == EVENT_TIME)
		now = MAX(now, manager_now(s->manager));
	r = service_step(&s->core, e, now, &effects);
	if (r == -ENOMEM)
		log_error("%s: out of memory, an event was not handled", s->name);
	else if (r < 0)
		log_debug("%s: event %d of worker %u of generation %u makes no sense now, ignoring",
			s->name, (int)e->kind, e->worker, e->generation);
	if (r == 0)
		asked_note(s, e, false);
	if (effects.n > 0 || (r == 0 && e->kind <= EVENT_SCALE))
		apply_all(s, &effects, &round);
	if (effects.n > 0)
		manager_service_preview(s);
	/* Whoever asks for something may rely on the shares that are said to be: a worker can have
	 * taken the program away. */
	if (r == 0)
		state_save_later(s->manager);
	if (round.steer || (r == 0 && e->kind <= EVENT_SCALE))
		manager_service_steer(s);
	else if (effects.n > 0)
		for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
			if (s->listeners[id] && s->listeners[id]->kind == LISTENER_GROUP)
				listener_watch_idle(s->listeners[id]);
	effects_done(&effects);
	if (e->kind == EVENT_EXITED)
		nudge_others(s, e);
	return r;
}

int manager_service_event(struct manager_service *s, const struct service_event *e)
{
	int r;

	if (s->in_step) {
		queue_event(s, *e);
		return 0;
	}
	s->in_step = true;
	r = step(s, e);
	for (size_t i = 0; i < s->n_events; i++) {
		struct service_event queued = s->events[i];
		(void)step(s, &queued);
	}
	s->n_events = 0;
	s->in_step = false;
	worker_store_tidy(s);
	arm_timer(s);
	connections_shares_changed(s);
	followers_check(s);
	manager_service_after(s);
	return r;
}

/* It has ended; what comes of that is the core's to say. */
static bool end_is_told(const struct manager_service *s, unsigned generation, unsigned worker)
{
	for (size_t i = 0; i < s->n_events; i++)
		if (s->events[i].kind == EVENT_EXITED && s->events[i].generation == generation &&
			s->events[i].worker == worker)
			return true;
	return false;
}

/* Workers that should have a process, and of which nobody knows one. */
static void spawn_missing(struct manager_service *s)
{
	for (size_t i = 0; i < s->core.n_generations; i++) {
		const struct generation *g = s->core.generations[i];

		for (unsigned k = 0; k < g->n_workers; k++) {
			const struct worker_process *p = manager_service_worker(s, g->number, k);

			if (worker_state_has_process(g->workers[k].state) && (!p || p->pid == 0) &&
				!end_is_told(s, g->number, k))
				apply_spawn(s, &(struct effect){.kind = EFFECT_SPAWN,
						       .generation = g->number,
						       .worker = k});
		}
	}
}

int manager_service_resume(struct manager_service *s)
{
	struct service_event time = {.kind = EVENT_TIME};
	struct effects effects = {0};
	struct round round = {0};
	int r = reexec_was_done(s->manager)
			? service_continue(&s->core, &effects)
			: service_resume(&s->core, manager_now(s->manager), &effects);

	if (r < 0)
		return r;
	s->in_step = true;
	/* Sockets and shares first, then who uses them, then how they do. */
	for (size_t i = 0; i < effects.n; i++)
		if (effects.list[i].kind == EFFECT_PREPARE_LANE ||
			effects.list[i].kind == EFFECT_STEER)
			apply(s, &effects.list[i], &round);
	manager_service_steer(s);
	spawn_missing(s);
	round.steer = false;
	for (size_t i = 0; i < effects.n; i++)
		if (effects.list[i].kind != EFFECT_PREPARE_LANE &&
			effects.list[i].kind != EFFECT_STEER)
			apply(s, &effects.list[i], &round);
	s->in_step = false;
	effects_done(&effects);
	manager_service_preview(s);
	listener_live_resume(s);
	(void)manager_service_event(s, &time);
	return 0;
}

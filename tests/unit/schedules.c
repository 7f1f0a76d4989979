/* SPDX-License-Identifier: Apache-2.0 */
#include "schedules.h"

#include <stdarg.h>
#include <time.h>

#include "schedules_world.h"

/* A world that behaves comes to rest within this many steps, or something turns in circles. */
enum { REST_STEPS_MAX = 600 };

static uint64_t next_random(struct schedule_source *s)
{
	/* splitmix64: any seed is as good as any other */
	uint64_t z = s->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

unsigned pick(struct world *w, unsigned n)
{
	struct schedule_source *s = w->source;

	if (!s->bytes)
		return (unsigned)(((next_random(s) >> 32) * n) >> 32);
	return s->position < s->n_bytes ? s->bytes[s->position++] % n : 0;
}

void world_fail(struct world *w, const char *format, ...)
{
	va_list arguments;

	if (w->failure)
		return;
	va_start(arguments, format);
	if (vasprintf(&w->failure, format, arguments) < 0)
		abort();
	va_end(arguments);
	if (w->trace)
		fprintf(w->trace, "FAILED: %s\n", w->failure);
}

/* --- configurations ----------------------------------------------------------- */

#define PICK(w, ...)                                                                               \
	((const uint64_t[]){__VA_ARGS__}[pick(                                                     \
		(w), (unsigned)(sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t)))])

static void vary_upgrade(struct world *w, struct upgrade_spec *u)
{
	struct policy *p = &u->policy;

	p->strategy = (enum strategy)pick(w, 4);
	p->overlap = (enum overlap)pick(w, 3);
	p->surge = (unsigned)PICK(w, 1, 2500, 5000, SHARE_MAX);
	p->soak_usec = PICK(w, 0, USEC_PER_SEC, 5 * USEC_PER_SEC);
	p->keep_warm_usec = PICK(w, 0, 0, 10 * USEC_PER_SEC, USEC_INFINITY);
	p->steps[0] = (unsigned)PICK(w, 1, 500, 5000, SHARE_MAX);
	p->steps[1] = (unsigned)PICK(w, 6000, 7500, SHARE_MAX);
	p->steps[2] = SHARE_MAX;
	p->n_steps = 3;
	p->sticky = chance(w, 20);
	p->verify = chance(w, 40);
	p->verify_interval_usec = PICK(w, 0, 0, USEC_PER_SEC, 3 * USEC_PER_SEC);
	u->pause_at = (unsigned)PICK(w, 0, 0, 0, 300, 5000, 9999, SHARE_MAX);
}

static void vary_policy(struct world *w, struct upgrade_spec *u)
{
	struct policy *p = &u->policy;

	p->workers = 1 + pick(w, 4);
	p->drain = (struct drain_config){
		.settle_usec = PICK(w, 0, 50 * USEC_PER_MSEC, USEC_PER_SEC),
		.settle_timeout_usec = PICK(w, USEC_PER_SEC, 30 * USEC_PER_SEC),
		.idle_wait_usec = PICK(w, 0, 5 * USEC_PER_SEC),
		.timeout_usec = PICK(w, 0, USEC_PER_SEC, 30 * USEC_PER_SEC),
		.kill_after_usec = PICK(w, 0, 5 * USEC_PER_SEC),
		.max_generations = 2 + pick(w, 3),
	};
	p->ready_timeout_usec = PICK(w, USEC_PER_SEC, 60 * USEC_PER_SEC);
	p->restart = (enum restart_policy)PICK(w, RESTART_ALWAYS, RESTART_ALWAYS, RESTART_ALWAYS,
		RESTART_ON_FAILURE, RESTART_NEVER);
	p->recycle_after_usec = PICK(w, 0, 0, 0, USEC_PER_SEC, 20 * USEC_PER_SEC);
	p->backoff = (struct backoff_policy){
		.from_usec = PICK(w, 0, 100 * USEC_PER_MSEC),
		.to_usec = PICK(w, USEC_PER_SEC, 30 * USEC_PER_SEC),
		.window_usec = PICK(w, USEC_PER_SEC, 60 * USEC_PER_SEC),
		.limit_starts = (unsigned)PICK(w, 0, 1, 3, 5),
	};
	u->listeners = PICK(w, 1, 1, 1, 1, 1, 1, 2, 3);
}

static void vary_sockets(struct world *w, struct upgrade_spec *u)
{
	u->policy.steered = pick(w, 7) != 0;
	u->policy.contained = chance(w, 50);
	u->policy.per_worker = u->policy.steered && chance(w, 40);
}

static struct service_event upgrade(struct world *w)
{
	w->spec = w->base;
	if (chance(w, 30))
		vary_upgrade(w, &w->spec);
	if (chance(w, 20))
		w->spec.policy.workers = 1 + pick(w, 4);
	if (chance(w, 5))
		vary_policy(w, &w->spec);
	if (chance(w, 3))
		vary_sockets(w, &w->spec);
	/* Who is replaced when it is old never comes to rest. */
	if (w->behaves)
		w->spec.policy.recycle_after_usec = 0;
	return (struct service_event){.kind = EVENT_UPGRADE, .spec = &w->spec};
}

/* Somebody else's process. */
static struct service_event adopt(struct world *w)
{
	w->spec = w->base;
	w->spec.policy.workers = 1;
	w->spec.policy.contained = w->spec.policy.verify = false;
	w->spec.policy.recycle_after_usec = 0;
	w->spec.policy.restart = RESTART_ALWAYS;
	return (struct service_event){.kind = EVENT_ADOPT, .spec = &w->spec};
}

/* --- steps ----------------------------------------------------------------------- */

static bool is_of_process(enum service_event_kind kind)
{
	return kind == EVENT_SPAWN_FAILED || kind == EVENT_READY || kind == EVENT_EXITED ||
	       kind == EVENT_WATCHDOG || kind == EVENT_SAID_ERROR || kind == EVENT_RECYCLE ||
	       kind == EVENT_EXTEND_READY_TIMEOUT;
}

/* What the world knows before the service does. */
static void happen(struct world *w)
{
	struct world_generation *wg = world_generation(w, w->event.generation);
	struct world_worker *p =
		wg && w->event.worker < WORLD_WORKERS ? &wg->workers[w->event.worker] : NULL;

	if (w->event.kind == EVENT_VERIFIED || w->event.kind == EVENT_VERIFY_FAILED)
		world_verified(w);
	if (!p)
		return;
	if (w->event.kind == EVENT_EXITED || w->event.kind == EVENT_SPAWN_FAILED) {
		const struct generation *g = service_generation(&w->service, wg->number);

		p->alive = p->watched = false;
		/* Nobody may replace it, or several that did have died as well. */
		if (g && w->event.worker < g->n_workers &&
			(g->policy.restart != RESTART_ALWAYS ||
				g->workers[w->event.worker].rescues >= 3))
			world_excuse(w, wg->number);
	}
	if (w->event.kind == EVENT_READY) {
		if (p->watched && !p->ready_usec)
			p->ready_usec = w->now_usec;
		p->watched = false;
	}
	if (w->event.kind == EVENT_RECYCLE)
		p->asked = true;
	if (w->event.kind == EVENT_QUEUE && w->event.value == 0) {
		const struct generation *g = service_generation(&w->service, wg->number);

		/* One queue for all of them, or one each. */
		for (unsigned k = 0; k < WORLD_WORKERS; k++)
			if (&wg->workers[k] == p || (g && !g->policy.per_worker))
				wg->workers[k].empty_seen |= !wg->workers[k].share;
	}
}

static int step_once(struct world *w, struct service_event event)
{
	const struct service *s = &w->service;
	struct world_before before;
	size_t room = 64 + 24, n_generations = s->n_generations;
	int r;

	for (size_t i = 0; i < s->n_generations; i++)
		room += 24 * s->generations[i]->n_workers;
	if (event.kind == EVENT_UPGRADE || event.kind == EVENT_ADOPT)
		room += 24 * event.spec->policy.workers;
	if (event.kind == EVENT_SCALE)
		room += 72 * event.value;

	w->event = event;
	w->effects.n = 0;
	happen(w);
	note_before(w, &before);
	world_note_dying(w);
	r = service_step(&w->service, &event, w->now_usec, &w->effects);
	w->counts.steps++;
	w->counts.effects += w->effects.n;
	if (w->trace)
		trace_step(w, r);
	REQUIRE(w, w->effects.n <= room, "%zu effects, room for %zu", w->effects.n, room);
	if (is_of_process(event.kind) || event.kind == EVENT_TIME)
		REQUIRE(w, r == 0, "event %s of worker %u.%u: %d", event_to_string(event.kind),
			event.generation, event.worker, r);
	/* The answer came too late, or concerns sockets that only more workers would have had. */
	if (event.kind == EVENT_QUEUE || event.kind == EVENT_CONNECTIONS ||
		event.kind == EVENT_LANE_FAILED || event.kind == EVENT_EMPTY)
		REQUIRE(w, r == 0 || r == -ESRCH, "event %s: %d", event_to_string(event.kind), r);
	REQUIRE(w, r >= 0 || r == -ESRCH || (event.kind == EVENT_START && r == -EPROTO),
		"event %s: %d", event_to_string(event.kind), r);
	if (r != 0)
		REQUIRE(w,
			w->effects.n == 0 && before.phase == s->rollout.phase &&
				before.id == s->rollout.id && before.step == s->rollout.step &&
				n_generations == s->n_generations,
			"event %s was refused with %d, and changed something",
			event_to_string(event.kind), r);
	if ((event.kind == EVENT_UPGRADE || event.kind == EVENT_ADOPT) && r == 0)
		w->closed = false;
	if (w->dying)
		world_die(w);
	world_apply(w);
	if (event.kind == EVENT_ADOPT && r == 0 && !w->failure)
		world_adopted(w);
	if (!w->failure && r == 0 && !w->dead)
		check_after(w, &before);
	return r;
}

int world_step(struct world *w, struct service_event event)
{
	int r;

	if (w->dead)
		return 0;
	r = step_once(w, event);
	if (w->dead)
		return r;
	for (size_t i = 0; i < w->n_pending && !w->failure; i++)
		(void)step_once(w, w->pending[i]);
	w->n_pending = 0;
	while (w->want_start && !w->failure) {
		w->want_start = false;
		(void)step_once(w, upgrade(w));
		for (size_t i = 0; i < w->n_pending && !w->failure; i++)
			(void)step_once(w, w->pending[i]);
		w->n_pending = 0;
	}
	if (!w->failure)
		check_service(w);
	return r;
}

/* --- what happens -------------------------------------------------------------------- */

static void pass_time(struct world *w)
{
	uint64_t next = service_next_deadline(&w->service);

	if (next == USEC_INFINITY)
		next = w->now_usec + USEC_PER_SEC;
	w->now_usec = MAX(w->now_usec, next);
	(void)world_step(w, (struct service_event){.kind = EVENT_TIME});
	/* Questions that were answered may make the next thing due at once, nothing else. */
	for (unsigned i = 0; i < 6 && !w->failure; i++) {
		if (service_next_deadline(&w->service) > w->now_usec)
			return;
		(void)world_step(w, (struct service_event){.kind = EVENT_TIME});
	}
	REQUIRE(w, w->dead || service_next_deadline(&w->service) > w->now_usec,
		"time stands still");
}

static struct world_worker *any_process(
	struct world *w, unsigned *ret_generation, unsigned *ret_worker)
{
	unsigned n = 0, start = pick(w, WORLD_GENERATIONS * WORLD_WORKERS);

	for (; n < WORLD_GENERATIONS * WORLD_WORKERS; n++) {
		unsigned at = (start + n) % (WORLD_GENERATIONS * WORLD_WORKERS);
		struct world_generation *wg = &w->generations[at / WORLD_WORKERS];

		if (wg->number == 0) {
			n += WORLD_WORKERS - 1 - at % WORLD_WORKERS;
			continue;
		}
		if (!wg->workers[at % WORLD_WORKERS].alive)
			continue;
		*ret_generation = wg->number;
		*ret_worker = at % WORLD_WORKERS;
		return &wg->workers[*ret_worker];
	}
	return NULL;
}

static bool is_leaving_by_order(const struct world_worker *p)
{
	return p->killed || ((p->told || p->termed || p->aborted) && !p->ignores_signals);
}

static void random_process_event(struct world *w)
{
	struct service_event e = {.kind = EVENT_EXITED};
	struct world_worker *p = any_process(w, &e.generation, &e.worker);
	struct generation *g = service_generation(&w->service, e.generation);
	unsigned *queue, n = pick(w, 100);

	if (!p || !g) {
		pass_time(w);
		return;
	}
	queue = world_queue(w, g, e.worker);
	e.value = pick(w, 2);
	if (is_leaving_by_order(p) && n < 60) {
		(void)world_step(w, e);
		return;
	}
	if (p->watched && !p->never_ready && n < 90) {
		e.kind = EVENT_READY;
	} else if (!chance(w, 10 + 4 * w->hostility)) {
		return;
	} else if (n < 45) {
		e.kind = EVENT_EXITED;
	} else if (n < 57) {
		e.kind = EVENT_WATCHDOG;
	} else if (n < 61) {
		e.kind = EVENT_SAID_ERROR;
	} else if (n < 65) {
		e.kind = EVENT_EXTEND_READY_TIMEOUT;
		e.usec = USEC_PER_SEC;
	} else if (n < 75) {
		e.kind = EVENT_RECYCLE;
		e.reason = REASON_TOO_BIG;
	} else {
		if (queue && !p->told)
			*queue = 0;
		return;
	}
	(void)world_step(w, e);
}

/* The run that is under way ends, or one that should have been stopped. */
static void random_verify(struct world *w)
{
	bool right = w->verifying && chance(w, 80);

	(void)world_step(w,
		(struct service_event){
			.kind = chance(w, 10 + w->hostility) ? EVENT_VERIFY_FAILED : EVENT_VERIFIED,
			.generation =
				right ? w->verify_generation : w->service.last_number - pick(w, 2),
			.value = right ? w->verify_run : w->verify_run - 1 + 2 * pick(w, 2)});
}

/* A connection comes: where the steering says, or, on its way since before, where it said. */
static void random_connection(struct world *w)
{
	const struct world_shares *shares = &w->applied[0];
	struct world_generation *wg = &w->generations[pick(w, WORLD_GENERATIONS)];
	const struct generation *g = service_generation(&w->service, wg->number);
	unsigned worker = pick(w, WORLD_WORKERS), *queue;

	if (w->closed)
		return;
	/* To sockets whose workers are all gone it comes as to those of nobody. */
	if (g && g->empty_until_usec != 0)
		return;
	if (g && worker < g->n_workers && g->policy.steered) {
		const struct world_worker *p = &wg->workers[worker];
		bool late = p->had_share && !p->share && !p->empty_seen && !p->told &&
			    w->now_usec < p->share_lost_usec + g->policy.drain.settle_usec;
		queue = world_queue(w, g, worker);
		if (queue && (p->share || late)) {
			++*queue;
			if (w->trace)
				fprintf(w->trace, "%.3f s: a connection for %u.%u, %u wait\n",
					(double)w->now_usec / 1e6, g->number, worker, *queue);
		}
		return;
	}
	if (w->service.n_generations == 0 && shares->n > 0 && shares->list[0].lane < WORLD_LANES)
		w->queues[shares->list[0].lane][0]++;
}

/* One that can be gone back to, if there is one. */
static unsigned rollback_target(struct world *w)
{
	const struct service *s = &w->service;

	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->number != s->current &&
			generation_can_return(s->generations[i]))
			return s->generations[i]->number;
	return s->generations[pick(w, (unsigned)s->n_generations)]->number;
}

static void random_request(struct world *w)
{
	static const struct {
		unsigned weight;
		enum service_event_kind kind;
	} requests[] = {
		{40, EVENT_UPGRADE },
		{10, EVENT_PROMOTE },
		{5,  EVENT_PAUSE   },
		{8,  EVENT_ABORT   },
		{12, EVENT_ROLLBACK},
		{15, EVENT_SCALE	},
		{5,  EVENT_STOP    },
		{3,  EVENT_START   },
		{2,  EVENT_KILL    },
	};
	struct service *s = &w->service;
	struct service_event e = {0};
	const struct generation *to;
	unsigned n = pick(w, 100), i = 0;
	bool warm;
	int r;

	for (; n >= requests[i].weight; i++)
		n -= requests[i].weight;
	e.kind = requests[i].kind;
	if (e.kind == EVENT_UPGRADE)
		e = upgrade(w);
	if (e.kind == EVENT_PROMOTE)
		e.value = pick(w, 2);
	if (e.kind == EVENT_SCALE)
		e.value = 1 + pick(w, 5);
	if (e.kind == EVENT_ROLLBACK && s->n_generations > 0)
		e.generation = rollback_target(w);
	to = service_generation(s, e.generation);
	warm = e.kind == EVENT_ROLLBACK && to && to->state == GENERATION_WARM;
	r = world_step(w, e);
	w->counts.rollbacks += e.kind == EVENT_ROLLBACK && r == 0;
	w->counts.warm_rollbacks += warm && r == 0;
}

/* --- the end ---------------------------------------------------------------------------- */

/* What the world still has to do, one thing of it: true when there was one. A world that behaves
 * has no process that is stuck, and leaves no rollout paused. */
static bool behave(struct world *w)
{
	struct service *s = &w->service;

	for (size_t i = 0; i < s->n_generations; i++) {
		const struct generation *g = s->generations[i];
		struct world_generation *wg = world_generation(w, g->number);

		for (unsigned k = 0; wg && k < g->n_workers && k < WORLD_WORKERS; k++) {
			struct world_worker *p = &wg->workers[k];
			struct service_event e = {.generation = g->number, .worker = k, .value = 1};

			if (!p->alive)
				continue;
			if (w->behaves)
				p->never_ready = p->ignores_signals = false;
			if (is_leaving_by_order(p))
				e.kind = EVENT_EXITED;
			else if (p->watched && !p->never_ready)
				e.kind = EVENT_READY;
			else
				continue;
			(void)world_step(w, e);
			return true;
		}
	}
	if (w->verifying) {
		(void)world_step(
			w, (struct service_event){.kind = w->behaves || !chance(w, w->hostility)
								  ? EVENT_VERIFIED
								  : EVENT_VERIFY_FAILED,
				   .generation = w->verify_generation,
				   .value = w->verify_run});
		return true;
	}
	if (s->rollout.paused && w->behaves) {
		(void)world_step(w, (struct service_event){.kind = EVENT_PROMOTE, .value = 1});
		return true;
	}
	return false;
}

/* What nobody has written down yet cannot die. */
static void begin(struct world *w)
{
	struct service_event e;

	if (!w->dying && chance(w, 20) && world_step(w, adopt(w)) != 0)
		return;
	e = upgrade(w);
	/* Nobody asks to end it first. */
	if (w->service.current != 0 && w->spec.policy.strategy == STRATEGY_RECREATE)
		w->spec.policy.strategy = STRATEGY_ROLLING;
	if (!w->failure)
		(void)world_step(w, e);
}

static void random_event(struct world *w)
{
	unsigned n = pick(w, 100);

	if (w->service.n_generations == 0 && chance(w, 70)) {
		begin(w);
		return;
	}
	if (n < 30) {
		/* Worlds differ in how much gets done before the time is up. */
		if (!chance(w, 90 - 4 * w->hostility) || !behave(w))
			pass_time(w);
	} else if (n < 38) {
		w->now_usec += PICK(w, 1, USEC_PER_MSEC, 60 * USEC_PER_MSEC, USEC_PER_SEC,
			10 * USEC_PER_SEC, 100 * USEC_PER_SEC);
		if (chance(w, 50))
			(void)world_step(w, (struct service_event){.kind = EVENT_TIME});
	} else if (n < 80) {
		random_process_event(w);
	} else if (n < 83) {
		random_verify(w);
	} else if (n < 88) {
		random_connection(w);
	} else {
		random_request(w);
	}
}

/* The same, and whoever drives the service dies of it. */
static void random_death(struct world *w)
{
	w->dying = true;
	random_event(w);
	w->dying = false;
	if (w->dead && !w->failure)
		world_take_over(w);
	w->dead = false;
}

static void random_handover(struct world *w)
{
	random_event(w);
	if (!w->failure)
		world_hand_over(w);
}

static void come_to_rest(struct world *w, bool stopped)
{
	w->behaves = true;
	for (size_t i = 0; i < w->service.n_generations; i++)
		w->service.generations[i]->policy.recycle_after_usec = 0;
	for (unsigned i = 0; i < REST_STEPS_MAX && !w->failure; i++) {
		if (behave(w))
			continue;
		if (service_next_deadline(&w->service) == USEC_INFINITY) {
			check_rest(w, stopped);
			return;
		}
		pass_time(w);
	}
	world_fail(w, "the service does not come to rest");
}

char *schedule_run(struct schedule_source *source, FILE *trace, struct schedule_counts *counts)
{
	struct world w = {.source = source, .trace = trace, .now_usec = 1000 * USEC_PER_SEC};
	unsigned n;

	if (counts)
		w.counts = *counts;
	service_init(&w.service);
	w.closed = true;
	vary_policy(&w, &w.base);
	vary_upgrade(&w, &w.base);
	vary_sockets(&w, &w.base);
	w.hostility = (unsigned)PICK(&w, 0, 2, 10, 20);
	begin(&w);
	n = 25 + pick(&w, 56);
	for (unsigned i = 0; i < n && !w.failure; i++) {
		if (chance(&w, 3))
			random_death(&w);
		else if (chance(&w, 1))
			random_handover(&w);
		else
			random_event(&w);
	}
	if (!w.failure)
		come_to_rest(&w, !w.service.wanted && !w.service.start_again);
	if (!w.failure && chance(&w, 25)) {
		(void)world_step(&w,
			(struct service_event){.kind = chance(&w, 50) ? EVENT_STOP : EVENT_KILL});
		if (!w.failure)
			come_to_rest(&w, true);
	}
	service_done(&w.service);
	effects_done(&w.effects);
	w.counts.schedules++;
	if (counts)
		*counts = w.counts;
	return w.failure;
}

static double seconds_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int schedules_run(uint64_t first, uint64_t n, double seconds, struct schedule_counts *counts)
{
	double end = seconds_now() + seconds;

	for (uint64_t i = 0; i < n; i++) {
		struct schedule_source source = {.state = first + i};
		_cleanup_free_ char *failure = NULL, *again = NULL;

		if (seconds > 0 && i % 256 == 0 && seconds_now() > end)
			break;
		failure = schedule_run(&source, NULL, counts);
		if (!failure)
			continue;
		source = (struct schedule_source){.state = first + i};
		again = schedule_run(&source, stderr, NULL);
		fprintf(stderr, "seed %llu: %s\nagain: tests/schedules --seed %llu --steps\n",
			(unsigned long long)(first + i), failure, (unsigned long long)(first + i));
		return -1;
	}
	return 0;
}

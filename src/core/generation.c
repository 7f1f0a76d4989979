/* SPDX-License-Identifier: Apache-2.0 */
#include "core/generation.h"

/* How often a retiring worker's queue and connections are looked at: soon at first, then less
 * often. */
#define POLL_FIRST_USEC (2 * USEC_PER_MSEC)
#define POLL_MOST_USEC (250 * USEC_PER_MSEC)
/* From the first count that finds no connections to the one that must agree. */
#define IDLE_AGAIN_USEC (10 * USEC_PER_MSEC)
/* A queue whose owners keep dying is given up after this many processes. */
#define RESCUES_MAX 3u
/* A process that does not die of SIGKILL at once is in the kernel's hands; asking again without a
 * pause helps nobody. Also what an aborted one has for its core dump. */
#define KILL_AGAIN_USEC USEC_PER_SEC

const char *generation_state_to_string(enum generation_state s)
{
	switch (s) {
	case GENERATION_STARTING:
		return "starting";
	case GENERATION_SERVING:
		return "serving";
	case GENERATION_WARM:
		return "warm";
	case GENERATION_PARKED:
		return "parked";
	case GENERATION_RETIRING:
		return "draining";
	}
	return "unknown";
}

void policy_defer(struct policy *p, const struct service_config *c)
{
	for (size_t i = 0; i < c->n_listeners; i++)
		policy_defer_usec(p, socket_options_defer_usec(&c->listeners[i].options));
}

void policy_defer_usec(struct policy *p, uint64_t usec)
{
	if (usec > 0)
		p->drain.settle_usec = MAX(p->drain.settle_usec, usec + USEC_PER_SEC);
}

void policy_from_config(struct policy *p, const struct service_config *c)
{
	*p = (struct policy){
		.workers = c->workers,
		.strategy = c->upgrade.strategy,
		.surge = c->upgrade.surge,
		.n_steps = c->upgrade.n_steps,
		.soak_usec = c->upgrade.soak_usec,
		.keep_warm_usec = c->upgrade.keep_warm_usec,
		.sticky = c->upgrade.sticky == STICKY_CLIENT,
		.verify = c->upgrade.verify.by != VERIFY_NONE,
		.verify_interval_usec = c->upgrade.verify.interval_usec,
		.recycle_after_usec = c->recycle.after_usec,
		.overlap = c->upgrade.overlap,
		.ready_timeout_usec = c->ready.timeout_usec,
		.drain = c->drain,
		.restart = c->restart.policy,
		.backoff = {c->restart.backoff_from_usec, c->restart.backoff_to_usec,
			    c->restart.limit_within_usec, c->restart.limit_starts},
	};
	memcpy(p->steps, c->upgrade.steps, sizeof(p->steps));
	policy_defer(p, c);
}

struct generation *generation_new(unsigned number, const struct policy *policy, uint64_t listeners)
{
	struct generation *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->number = number;
	g->lane = LANE_NONE;
	g->policy = *policy;
	g->listeners = listeners;
	g->warm_until_usec = USEC_INFINITY;
	if (generation_grow(g, policy->workers) < 0)
		return generation_free(g);
	return g;
}

struct generation *generation_free(struct generation *g)
{
	if (g)
		free(g->workers);
	free(g);
	return NULL;
}

int generation_grow(struct generation *g, unsigned n)
{
	struct worker *workers;

	if (n > g->n_workers) {
		workers = realloc(g->workers, n * sizeof(*workers));
		if (!workers)
			return -ENOMEM;
		g->workers = workers;
		for (; g->n_workers < n; g->n_workers++)
			workers[g->n_workers] = (struct worker){
				.index = g->n_workers,
				.state = WORKER_STOPPED,
				.backoff = BACKOFF_NULL,
				.deadline_usec = USEC_INFINITY,
				.poll_usec = USEC_INFINITY,
			};
	}
	g->wanted = n;
	return 0;
}

static void add(struct effects *ret, enum effect_kind kind, const struct generation *g,
	const struct worker *w)
{
	effects_add(
		ret, (struct effect){.kind = kind, .generation = g->number, .worker = w->index});
}

static void report(
	struct effects *ret, enum report what, const struct generation *g, const struct worker *w)
{
	effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
				 .report = what,
				 .reason = g->reason,
				 .generation = g->number,
				 .worker = w ? w->index : NO_WORKER});
}

/* Deadlines a transition asks for. A state without one never waits. */
static void arm(struct generation *g, struct worker *w, unsigned actions, uint64_t now)
{
	const struct drain_config *drain = &g->policy.drain;

	if (actions & WORKER_DO_DISARM)
		w->deadline_usec = w->poll_usec = USEC_INFINITY;
	if (actions & WORKER_DO_ARM_READY)
		w->deadline_usec = usec_add(now, g->policy.ready_timeout_usec);
	if (actions & WORKER_DO_ARM_BACKOFF)
		w->deadline_usec = usec_add(now, w->backoff_usec);
	if (actions & WORKER_DO_ARM_SETTLE) {
		/* The share was lost when steering changed, not when the retirement began. A single
		 * worker of a lane that keeps its share (scaling down) loses it now. */
		uint64_t lost = g->weight == 0 ? g->zero_since_usec : now;
		w->deadline_usec = MAX(now, usec_add(lost, drain->settle_usec));
	}
	if (actions & WORKER_DO_ARM_EMPTY)
		w->deadline_usec = usec_add(now, drain->settle_timeout_usec);
	if (actions & WORKER_DO_ARM_IDLE) {
		w->deadline_usec = usec_add(now, drain->idle_wait_usec);
		w->seen_idle = false;
	}
	if (actions & WORKER_DO_ARM_DRAIN)
		w->deadline_usec = usec_add(now, drain->timeout_usec);
	if (actions & WORKER_DO_ARM_KILL)
		w->deadline_usec = usec_add(now,
			w->state == WORKER_KILLED ? MAX(drain->kill_after_usec, KILL_AGAIN_USEC)
						  : drain->kill_after_usec);
	if (actions & (WORKER_DO_ARM_EMPTY | WORKER_DO_ARM_IDLE))
		w->poll_usec = now;
	else if (actions & (WORKER_DO_ARM_SETTLE | WORKER_DO_ARM_READY | WORKER_DO_ARM_DRAIN |
				   WORKER_DO_ARM_KILL | WORKER_DO_ARM_BACKOFF))
		w->poll_usec = USEC_INFINITY;
}

static void act(struct generation *g, struct worker *w, unsigned actions, struct effects *ret)
{
	static const struct {
		unsigned action;
		enum effect_kind effect;
	} map[] = {
	/* Steering first: nothing new may be on its way to a worker that is about to be
  told to go. */
		{WORKER_DO_STEER,		  EFFECT_STEER	      },
		{WORKER_DO_SIGNAL_DRAIN,	 EFFECT_SIGNAL_DRAIN   },
		{WORKER_DO_SIGNAL_TERM,	EFFECT_SIGNAL_TERM	  },
		{WORKER_DO_SIGNAL_ABORT,	 EFFECT_SIGNAL_ABORT   },
		{WORKER_DO_SIGNAL_KILL,	EFFECT_SIGNAL_KILL	  },
		{WORKER_DO_SPAWN,		  EFFECT_SPAWN	      },
		{WORKER_DO_WATCH_READINESS, EFFECT_WATCH_READINESS},
	};

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (actions & map[i].action)
			add(ret, map[i].effect, g, w);
}

static void tell(struct generation *g, struct worker *w, enum worker_state from,
	enum worker_event on, struct effects *ret)
{
	if (w->state == WORKER_READY && from == WORKER_STARTING)
		report(ret, REPORT_WORKER_READY, g, w);
	else if (on == WORKER_ON_EXIT_RESPAWN || on == WORKER_ON_EXIT_RESCUE)
		report(ret, REPORT_WORKER_RESPAWN, g, w);
	else if (w->state == WORKER_BACKOFF && from != WORKER_BACKOFF)
		report(ret, REPORT_WORKER_BACKOFF, g, w);
	else if (w->state == WORKER_DRAINING && from != WORKER_DRAINING)
		report(ret, REPORT_WORKER_DRAINING, g, w);
	else if (w->state == WORKER_ESCALATED && from != WORKER_ESCALATED)
		report(ret, REPORT_WORKER_ESCALATED, g, w);
	else if (w->state == WORKER_KILLED && from != WORKER_KILLED)
		report(ret, REPORT_WORKER_KILLED, g, w);
	else if (w->state == WORKER_STOPPED && from != WORKER_STOPPED)
		report(ret, REPORT_WORKER_GONE, g, w);
}

int generation_worker_event(struct generation *g, struct worker *w, enum worker_event on,
	uint64_t now, struct effects *ret)
{
	const struct worker_transition *t = worker_transition(w->state, on);
	enum worker_state from = w->state;

	if (!t)
		return -EPROTO;
	if (t->actions & WORKER_DO_SPAWN) {
		w->was_ready = false;
		w->recycle = REASON_NONE;
		w->restarts += on != WORKER_ON_START && on != WORKER_ON_UNRETIRE;
	}
	if (t->to == WORKER_READY && !w->was_ready) {
		w->was_ready = true;
		w->ready_usec = now;
	}
	/* One queue for all: nothing is left in it for those that are still being killed. */
	for (unsigned i = 0; on == WORKER_ON_EMPTY && !g->policy.per_worker && i < g->n_workers;
		i++)
		g->workers[i].owes_settle = false;
	if (t->to != w->state)
		w->since_usec = now;
	w->unsettled &= t->to == WORKER_EMPTYING || t->to == WORKER_IDLING;
	w->state = t->to;
	arm(g, w, t->actions, now);
	act(g, w, t->actions, ret);
	tell(g, w, from, on, ret);
	return 0;
}

static int worker_is_idle(struct generation *g, struct worker *w, uint64_t now, struct effects *ret)
{
	return generation_worker_event(
		g, w, w->unsettled ? WORKER_ON_RETIRE : WORKER_ON_IDLE, now, ret);
}

/* A connection that is just being taken from the queue is in no process yet for those who look, nor
 * is one for which a child is just being forked. What cannot be counted may be there: then the
 * deadline ends the wait. */
int generation_worker_counted(struct generation *g, struct worker *w, unsigned n_connections,
	uint64_t now, struct effects *ret)
{
	if (w->state != WORKER_IDLING)
		return 0;
	if (n_connections != 0) {
		w->seen_idle = false;
		return 0;
	}
	if (w->seen_idle)
		return worker_is_idle(g, w, now, ret);
	w->seen_idle = true;
	w->poll_usec = usec_add(now, IDLE_AGAIN_USEC);
	return 0;
}

void generation_start(struct generation *g, unsigned n, uint64_t now, struct effects *ret)
{
	for (unsigned i = 0; i < MIN(n, g->n_workers); i++)
		if (g->workers[i].state == WORKER_STOPPED)
			(void)generation_worker_event(g, &g->workers[i], WORKER_ON_START, now, ret);
}

/* Would somebody else accept what is in this worker's queue? */
static bool queue_has_other_owner(const struct generation *g, const struct worker *w)
{
	if (g->policy.per_worker)
		return false;
	for (unsigned i = 0; i < g->n_workers; i++) {
		const struct worker *other = &g->workers[i];
		if (other != w &&
			(other->state == WORKER_READY || worker_state_is_leaving(other->state)))
			return true;
	}
	return false;
}

void generation_retire_worker(
	struct generation *g, struct worker *w, bool at_once, uint64_t now, struct effects *ret)
{
	/* Where the lane was never steered to there is nothing to settle. Where others go on
	 * accepting from the same queue, or the kernel lets nobody be kept from it, only the worker
	 * itself can stop. */
	bool settle = !at_once && g->policy.steered && g->had_weight &&
		      (g->policy.per_worker || g->weight == 0);

	/* Who is scaled away, or only stood in for another, leaves the queue to those that stay. */
	if (w->index >= g->wanted && queue_has_other_owner(g, w))
		settle = false;
	/* Where nobody was ever sent nobody waits, but our own probes. */
	if (g->policy.per_worker && !w->had_share)
		settle = false;
	if (!settle)
		w->owes_settle = false;
	else if (!w->retiring && (w->state == WORKER_KILLED || w->state == WORKER_DRAINING ||
					 w->state == WORKER_ESCALATED))
		w->owes_settle = true;
	w->retiring = true;
	/* On its way already. */
	if (settle && worker_state_is_leaving(w->state) && !w->unsettled)
		return;
	if (w->state == WORKER_BACKOFF && queue_has_other_owner(g, w))
		settle = false;
	(void)generation_worker_event(
		g, w, settle ? WORKER_ON_RETIRE : WORKER_ON_RETIRE_NOW, now, ret);
}

void generation_prepare_lane(const struct generation *g, struct effects *ret)
{
	effects_add(ret, (struct effect){.kind = EFFECT_PREPARE_LANE,
				 .generation = g->number,
				 .worker = NO_WORKER,
				 .value = g->lane});
}

void generation_steer(const struct generation *g, struct effects *ret)
{
	effects_add(
		ret, (struct effect){
			     .kind = EFFECT_STEER, .generation = g->number, .worker = NO_WORKER});
}

void generation_retire(
	struct generation *g, enum reason reason, bool at_once, uint64_t now, struct effects *ret)
{
	if (g->state != GENERATION_RETIRING) {
		g->state = GENERATION_RETIRING;
		g->since_usec = now;
		g->reason = reason;
		report(ret, REPORT_GENERATION_DRAINING, g, NULL);
		/* Listeners that no serving generation has go to who leaves last. */
		generation_steer(g, ret);
	}
	for (unsigned i = 0; i < g->n_workers; i++)
		generation_retire_worker(g, &g->workers[i], at_once, now, ret);
}

void generation_unretire_worker(
	struct generation *g, struct worker *w, uint64_t now, struct effects *ret)
{
	w->retiring = w->owes_settle = false;
	w->rescues = 0;
	(void)generation_worker_event(g, w, WORKER_ON_UNRETIRE, now, ret);
	/* One that had been ready and was not told anything is ready still. */
	if (w->state == WORKER_STARTING && w->was_ready)
		(void)generation_worker_event(g, w, WORKER_ON_BECAME_READY, now, ret);
}

void generation_unretire(struct generation *g, uint64_t now, struct effects *ret)
{
	for (unsigned i = 0; i < g->wanted; i++)
		generation_unretire_worker(g, &g->workers[i], now, ret);
}

void generation_kill(struct generation *g, uint64_t now, struct effects *ret)
{
	for (unsigned i = 0; i < g->n_workers; i++) {
		g->workers[i].retiring = true;
		g->workers[i].owes_settle = false;
		(void)generation_worker_event(g, &g->workers[i], WORKER_ON_KILL, now, ret);
	}
}

static bool shall_rescue(const struct generation *g, const struct worker *w)
{
	return (w->state == WORKER_SETTLING || w->state == WORKER_EMPTYING || w->owes_settle) &&
	       w->rescues < RESCUES_MAX && !queue_has_other_owner(g, w);
}

bool generation_wants_restart(const struct generation *g, bool clean)
{
	return g->policy.restart == RESTART_ALWAYS ||
	       (g->policy.restart == RESTART_ON_FAILURE && !clean);
}

enum worker_event generation_exit_event(
	struct generation *g, struct worker *w, bool clean, uint64_t now)
{
	uint64_t wait;

	if (g->state == GENERATION_RETIRING || g->state == GENERATION_PARKED || w->retiring) {
		if (!shall_rescue(g, w))
			return WORKER_ON_EXIT_FINAL;
		w->rescues++;
		w->owes_settle = false;
		return WORKER_ON_EXIT_RESCUE;
	}
	if (!generation_wants_restart(g, clean)) {
		/* Nothing will make the others complete: a start must not wait for that for ever.
		 */
		g->given_up = !g->proven;
		return WORKER_ON_EXIT_FINAL;
	}
	/* Told to go, then wanted again: not a failure. */
	if (w->state == WORKER_DRAINING || w->state == WORKER_ESCALATED)
		return WORKER_ON_EXIT_RESPAWN;
	wait = backoff_failed(&w->backoff, &g->policy.backoff, now, w->was_ready, !g->proven);
	if (wait == USEC_INFINITY) {
		g->given_up = true;
		return WORKER_ON_EXIT_FINAL;
	}
	if (wait == 0)
		return WORKER_ON_EXIT_RESPAWN;
	w->backoff_usec = wait;
	return WORKER_ON_EXIT_BACKOFF;
}

unsigned generation_ready(const struct generation *g)
{
	unsigned n = 0;

	for (unsigned i = 0; i < g->n_workers; i++)
		n += g->workers[i].state == WORKER_READY;
	return n;
}

bool generation_first_ready(const struct generation *g, unsigned n)
{
	for (unsigned i = 0; i < MIN(n, g->n_workers); i++)
		if (g->workers[i].state != WORKER_READY)
			return false;
	return true;
}

bool generation_has_process(const struct generation *g)
{
	for (unsigned i = 0; i < g->n_workers; i++)
		if (g->workers[i].state != WORKER_STOPPED)
			return true;
	return false;
}

bool generation_is_settled(const struct generation *g)
{
	for (unsigned i = 0; i < g->n_workers; i++)
		if (g->workers[i].state == WORKER_SETTLING ||
			g->workers[i].state == WORKER_EMPTYING)
			return false;
	return true;
}

bool generation_can_carry(const struct generation *g)
{
	unsigned n = 0;

	for (unsigned i = 0; i < g->wanted; i++)
		n += g->workers[i].state == WORKER_READY;
	return n > 0 && 2 * n >= g->wanted;
}

bool generation_can_return(const struct generation *g)
{
	unsigned n = 0;

	if (g->failed || g->empty_until_usec != 0)
		return false;
	if (g->state == GENERATION_WARM)
		return generation_can_carry(g);
	for (unsigned i = 0; i < g->wanted; i++)
		n += g->workers[i].was_ready &&
		     (g->workers[i].state == WORKER_READY ||
			     worker_state_is_leaving(g->workers[i].state));
	return n == g->wanted;
}

/* What those that leave have settled for, or are about to (scaling down, say), was an earlier loss.
 */
static void settle_again(struct generation *g, uint64_t now)
{
	if (!g->policy.steered || g->policy.per_worker)
		return;
	for (unsigned i = 0; i < g->n_workers; i++) {
		struct worker *w = &g->workers[i];

		if (w->state == WORKER_SETTLING)
			w->deadline_usec =
				MAX(w->deadline_usec, usec_add(now, g->policy.drain.settle_usec));
		w->unsettled = w->state == WORKER_EMPTYING || w->state == WORKER_IDLING;
	}
}

void generation_set_weight(struct generation *g, unsigned weight, uint64_t now)
{
	if (g->weight != 0 && weight == 0) {
		g->zero_since_usec = now;
		settle_again(g, now);
	}
	g->weight = weight;
	g->had_weight |= weight > 0;
}

/* Twice as long each time, from POLL_FIRST to POLL_MOST, measured from the start of the state. */
static uint64_t next_poll(const struct worker *w, uint64_t now)
{
	uint64_t age = now - w->since_usec;

	return usec_add(now, MIN(MAX(age, POLL_FIRST_USEC), POLL_MOST_USEC));
}

static void worker_tick(struct generation *g, struct worker *w, uint64_t now, struct effects *ret)
{
	static const struct {
		enum worker_state state;
		enum worker_event on;
	} due[] = {
		{WORKER_STARTING,  WORKER_ON_READY_TIMEOUT},
		{WORKER_BACKOFF,	 WORKER_ON_BACKOFF_OVER },
		{WORKER_SETTLING,  WORKER_ON_SETTLED	   },
		{WORKER_EMPTYING,  WORKER_ON_EMPTY	 },
		{WORKER_DRAINING,  WORKER_ON_DRAIN_TIMEOUT},
		{WORKER_ESCALATED, WORKER_ON_KILL_TIMEOUT },
		{WORKER_KILLED,	WORKER_ON_KILL_TIMEOUT },
	};

	if (w->deadline_usec <= now) {
		enum worker_state state = w->state;
		w->deadline_usec = USEC_INFINITY;
		if (state == WORKER_EMPTYING)
			report(ret, REPORT_QUEUE_ABANDONED, g, w);
		if (state == WORKER_IDLING)
			(void)worker_is_idle(g, w, now, ret);
		for (size_t i = 0; i < ARRAY_SIZE(due); i++)
			if (due[i].state == state) {
				(void)generation_worker_event(g, w, due[i].on, now, ret);
				break;
			}
	}
	if (w->poll_usec <= now) {
		w->poll_usec = next_poll(w, now);
		if (w->state == WORKER_EMPTYING)
			add(ret, EFFECT_QUERY_QUEUE, g, w);
		else if (w->state == WORKER_IDLING)
			add(ret, EFFECT_COUNT_CONNECTIONS, g, w);
		else
			w->poll_usec = USEC_INFINITY;
	}
}

void generation_tick(struct generation *g, uint64_t now, struct effects *ret)
{
	for (unsigned i = 0; i < g->n_workers; i++)
		worker_tick(g, &g->workers[i], now, ret);
}

uint64_t generation_next_deadline(const struct generation *g)
{
	uint64_t next = g->state == GENERATION_WARM ? g->warm_until_usec : USEC_INFINITY;

	if (g->empty_until_usec != 0)
		next = MIN(next, g->empty_until_usec);
	for (unsigned i = 0; i < g->n_workers; i++)
		next = MIN(next, MIN(g->workers[i].deadline_usec, g->workers[i].poll_usec));
	return next;
}

/* The one queue to wait in while nobody is ready: of a worker that will be there again, rather than
 * of one that was told to go or has ended; the first of them, because whoever takes this lane over
 * after a failed start may have fewer. */
static unsigned waiting_slot(const struct generation *g)
{
	for (unsigned i = 0; i < g->wanted; i++)
		if (!g->workers[i].retiring && g->workers[i].state != WORKER_STOPPED)
			return i;
	return 0;
}

void generation_active_slots(const struct generation *g, bool *ret)
{
	bool any = false;

	for (unsigned i = 0; i < g->n_workers; i++)
		any |= ret[i] = g->workers[i].state == WORKER_READY;
	if (!any && g->n_workers > 0)
		ret[waiting_slot(g)] = true;
}

void generation_note_shares(struct generation *g)
{
	bool any = false;

	if (!g->policy.per_worker || g->n_workers == 0)
		return;
	for (unsigned i = 0; i < g->n_workers; i++)
		if (g->workers[i].state == WORKER_READY)
			any = g->workers[i].had_share = true;
	if (!any)
		g->workers[waiting_slot(g)].had_share = true;
}

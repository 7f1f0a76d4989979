/* SPDX-License-Identifier: Apache-2.0 */
#include "core/rollout.h"

#include "core/service.h"

const char *rollout_phase_to_string(enum rollout_phase p)
{
	switch (p) {
	case ROLLOUT_NONE:
		return "none";
	case ROLLOUT_WAITING:
	case ROLLOUT_STOPPING_OLD:
	case ROLLOUT_STARTING:
		return "starting";
	case ROLLOUT_SOAKING:
		return "soaking";
	case ROLLOUT_SETTLING:
		return "settling";
	case ROLLOUT_RESTORING:
		return "rollingBack";
	}
	return "unknown";
}

static void report(struct effects *ret, enum report what, const struct rollout *r,
	enum reason reason, unsigned worker, unsigned value)
{
	effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
				 .report = what,
				 .reason = reason,
				 .generation = r->to,
				 .worker = worker,
				 .value = value});
}

static void steer(const struct rollout *r, struct effects *ret)
{
	effects_add(ret,
		(struct effect){.kind = EFFECT_STEER, .generation = r->to, .worker = NO_WORKER});
}

bool rollout_is_open(const struct rollout *r)
{
	return r->phase != ROLLOUT_NONE && r->phase != ROLLOUT_SETTLING;
}

bool rollout_depends_on(const struct service *s, const struct generation *g)
{
	const struct rollout *r = &s->rollout;

	return r->to == g->number && r->from != 0 &&
	       (r->phase == ROLLOUT_STARTING || r->phase == ROLLOUT_SOAKING);
}

static bool lane_is_used(const struct service *s, unsigned lane)
{
	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->lane == lane)
			return true;
	return false;
}

static unsigned free_lane(const struct service *s)
{
	unsigned lane = 0;

	while (lane_is_used(s, lane))
		lane++;
	return lane;
}

/* Generations that still have, or may get, processes; the one that waits for room does not count.
 */
static unsigned alive(const struct service *s)
{
	unsigned n = 0;

	for (size_t i = 0; i < s->n_generations; i++)
		n += s->generations[i]->lane != LANE_NONE;
	return n;
}

static void set_weights(struct service *s, struct generation *to, unsigned weight, uint64_t now)
{
	struct generation *from = service_generation(s, s->rollout.from);

	/* An old one whose workers have all ended (restart: never) serves nobody. */
	if (!from || !generation_has_process(from))
		weight = SHARE_MAX;
	generation_set_weight(to, weight, now);
	if (from)
		generation_set_weight(from, SHARE_MAX - weight, now);
}

static void end(struct service *s, enum reason reason, unsigned worker, struct effects *ret)
{
	struct rollout *r = &s->rollout;

	rollout_verify_stop(r, ret);
	r->phase = ROLLOUT_NONE;
	r->paused = false;
	r->reason = reason;
	r->deadline_usec = USEC_INFINITY;
	report(ret, REPORT_ROLLOUT_ENDED, r, reason, worker, 0);
}

/* Is the old generation of no use to anybody who waits in its queue, because its workers end as
 * soon as they are started? And the new one of use to all of them? */
static bool can_take_over(const struct generation *from, const struct generation *to)
{
	for (unsigned i = 0; i < from->n_workers; i++) {
		const struct worker *w = &from->workers[i];

		if (w->state != WORKER_BACKOFF && w->state != WORKER_STOPPED &&
			(w->state != WORKER_STARTING || w->backoff.steps < 2))
			return false;
	}
	return generation_has_process(from) && from->lane != LANE_NONE && from->policy.steered &&
	       (from->listeners & ~to->listeners) == 0 &&
	       from->policy.per_worker == to->policy.per_worker &&
	       (!from->policy.per_worker || to->n_workers >= from->n_workers);
}

/* It has sockets that were another's: somebody may wait in the queue of each of them. */
static void inherit_queues(struct generation *g)
{
	for (unsigned i = 0; i < g->n_workers; i++)
		g->workers[i].had_share = true;
}

/* Nobody accepts what waits for the old generation: the new one does, from the same sockets. */
static void take_over(struct service *s, struct generation *from, struct generation *to,
	uint64_t now, struct effects *ret)
{
	unsigned lane = to->lane;

	to->lane = from->lane;
	from->lane = lane;
	s->rollout.took_over = true;
	effects_add(ret, (struct effect){.kind = EFFECT_SWAP_LANES,
				 .generation = to->number,
				 .worker = from->number,
				 .value = to->lane});
	inherit_queues(to);
	set_weights(s, to, SHARE_MAX, now);
	steer(&s->rollout, ret);
}

/* There is room: give the new generation its lane and start. */
static void open_lane(struct service *s, struct generation *to, uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;
	struct generation *from = service_generation(s, r->from);

	to->lane = from ? free_lane(s) : s->queue_lane;
	if (!from)
		inherit_queues(to);
	to->since_usec = now;
	generation_prepare_lane(to, ret);
	r->phase = ROLLOUT_STARTING;
	if (!from) {
		/* Nobody else serves: whoever comes waits in the new one's queue. */
		generation_set_weight(to, SHARE_MAX, now);
		steer(r, ret);
	} else if (to->policy.strategy == STRATEGY_RECREATE) {
		r->phase = ROLLOUT_STOPPING_OLD;
		set_weights(s, to, SHARE_MAX, now);
		steer(r, ret);
		generation_retire(from, REASON_REPLACED, false, now, ret);
		from->state = GENERATION_PARKED;
		return;
	} else if (can_take_over(from, to)) {
		r->phase = ROLLOUT_STOPPING_OLD;
		generation_retire(from, REASON_REPLACED, true, now, ret);
		from->state = GENERATION_PARKED;
		return;
	} else if (to->listeners & ~from->listeners) {
		/* Nobody else has the new listeners. */
		steer(r, ret);
	}
	generation_start(to, r->steps[0].workers, now, ret);
}

void rollout_begin(struct service *s, struct generation *to, unsigned pause_at, struct effects *ret)
{
	struct rollout *r = &s->rollout;

	r->phase = ROLLOUT_WAITING;
	r->id++;
	r->from = s->current;
	r->to = to->number;
	r->step = 0;
	r->paused = r->cut_short = r->took_over = false;
	r->soaked = r->verified = r->verifying = r->verify_waived = false;
	r->verify_due_usec = USEC_INFINITY;
	r->pause_at = pause_at;
	r->reason = REASON_NONE;
	r->deadline_usec = USEC_INFINITY;
	r->n_steps = rollout_plan(&to->policy, pause_at, r->steps);
	if (r->from == 0) {
		r->steps[0] = r->steps[r->n_steps - 1];
		r->n_steps = 1;
	}
	report(ret, REPORT_ROLLOUT_STARTED, r, REASON_NONE, NO_WORKER, 0);
	if (alive(s) >= to->policy.drain.max_generations)
		report(ret, REPORT_ROLLOUT_WAITING, r, REASON_NONE, NO_WORKER, 0);
}

static void reach_step(struct service *s, struct generation *to, uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;
	const struct rollout_step *step = &r->steps[r->step];

	set_weights(s, to, step->weight, now);
	r->phase = ROLLOUT_SOAKING;
	r->soaked = false;
	r->deadline_usec = usec_add(now, to->policy.soak_usec);
	/* The first start has nothing to go back to: there is nothing to soak for. */
	if (r->from == 0)
		r->deadline_usec = now;
	steer(r, ret);
	report(ret, REPORT_ROLLOUT_STEP, r, REASON_NONE, NO_WORKER, step->weight);
	if (r->pause_at != 0 && step->weight >= r->pause_at && step->weight < SHARE_MAX) {
		r->pause_at = 0;
		r->paused = true;
		report(ret, REPORT_ROLLOUT_PAUSED, r, REASON_NONE, NO_WORKER, step->weight);
	}
	rollout_verify_begin(s, ret);
}

/* Is the old generation to be kept as a way back? What shares its queue with the new one, because
 * the kernel cannot keep them apart, would go on getting connections. */
static bool keeps_warm(const struct generation *from, const struct generation *to)
{
	return to->policy.keep_warm_usec > 0 && from->policy.steered;
}

/* Rolling: old workers leave as the new ones take over, so that there are never many more than
 * configured. With a shared queue an old worker cannot be kept from it, only told to go, and may
 * not know how to do that without loss: those leave together at the end, when nothing comes to
 * their queue any more. And where the old generation is to be kept warm nobody leaves. */
static void retire_replaced(
	struct service *s, const struct generation *to, uint64_t now, struct effects *ret)
{
	struct generation *from = service_generation(s, s->rollout.from);
	unsigned weight = s->rollout.steps[s->rollout.step].weight, n;

	if (!from || to->policy.strategy != STRATEGY_ROLLING || keeps_warm(from, to) ||
		(from->policy.steered && !from->policy.per_worker))
		return;
	/* By the share that is gone, so that somebody stays for as long as there is one; and first
	 * those that serve nobody as it is. */
	n = (unsigned)((uint64_t)from->wanted * weight / SHARE_MAX);
	for (unsigned i = 0; i < from->wanted; i++)
		n -= n > 0 && from->workers[i].retiring;
	for (unsigned pass = 0; pass < 3; pass++)
		for (unsigned i = 0; n > 0 && i < from->wanted; i++) {
			struct worker *w = &from->workers[i];

			if (w->retiring || (pass == 0 && w->state != WORKER_STOPPED) ||
				(pass == 1 && w->state == WORKER_READY))
				continue;
			generation_retire_worker(from, w, false, now, ret);
			n--;
		}
	/* With nobody ready, those that wait may wait for another now. */
	steer(&s->rollout, ret);
}

static void replace_old(struct service *s, struct generation *to, uint64_t now, struct effects *ret)
{
	struct generation *from = service_generation(s, s->rollout.from);

	if (!from)
		return;
	if (from->state == GENERATION_PARKED) {
		generation_retire(from, REASON_REPLACED, false, now, ret);
		return;
	}
	/* One warm generation is enough: the way back is to the last good one. */
	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->state == GENERATION_WARM)
			generation_retire(s->generations[i], REASON_REPLACED, false, now, ret);
	if (!keeps_warm(from, to) || !generation_can_carry(from)) {
		generation_retire(from, REASON_REPLACED, false, now, ret);
		return;
	}
	from->state = GENERATION_WARM;
	from->since_usec = now;
	from->warm_until_usec = usec_add(now, to->policy.keep_warm_usec);
	effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
				 .report = REPORT_GENERATION_WARM,
				 .generation = from->number,
				 .worker = NO_WORKER});
}

static void promote(struct service *s, struct generation *to, uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;

	to->state = GENERATION_SERVING;
	to->since_usec = now;
	to->proven = true;
	s->current = to->number;
	service_keep_queue(s, to);
	s->gave_up = false;
	replace_old(s, to, now, ret);
	r->phase = ROLLOUT_SETTLING;
	report(ret, REPORT_ROLLOUT_PROMOTED, r, REASON_NONE, NO_WORKER, SHARE_MAX);
	effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
				 .report = REPORT_GENERATION_SERVING,
				 .generation = to->number,
				 .worker = NO_WORKER});
}

static bool old_is_settled(const struct service *s, uint64_t now)
{
	const struct generation *from = service_generation(s, s->rollout.from);

	if (!from)
		return true;
	if (from->state == GENERATION_WARM)
		return now >= from->zero_since_usec + from->policy.drain.settle_usec;
	return generation_is_settled(from);
}

/* The failed one's processes are gone, its queue is not: the old generation takes over its sockets
 * with everything that waits there. */
static void restore_old(struct service *s, struct generation *from, struct generation *to,
	uint64_t now, struct effects *ret)
{
	unsigned lane = to->lane;

	to->lane = from->lane;
	from->lane = lane;
	effects_add(ret, (struct effect){.kind = EFFECT_SWAP_LANES,
				 .generation = from->number,
				 .worker = to->number,
				 .value = lane});
	inherit_queues(from);
	generation_set_weight(to, 0, now);
	generation_set_weight(from, SHARE_MAX, now);
	from->state = GENERATION_SERVING;
	from->reason = REASON_NONE;
	steer(&s->rollout, ret);
	generation_unretire(from, now, ret);
	service_keep_queue(s, from);
	end(s, s->rollout.reason, NO_WORKER, ret);
}

/* Room is wanted: the oldest generation that leaves does not get all the time it could have for its
 * connections. Those in its queues are served first: they would be lost. */
static void cut_drain_short(struct service *s, uint64_t now, struct effects *ret)
{
	struct generation *oldest = service_oldest_leaving(s);

	if (!s->rollout.cut_short || !oldest || !generation_is_settled(oldest))
		return;
	for (unsigned i = 0; i < oldest->n_workers; i++)
		if (oldest->workers[i].state != WORKER_KILLED)
			(void)generation_worker_event(
				oldest, &oldest->workers[i], WORKER_ON_KILL, now, ret);
}

/* One move, if there is one to make. */
static bool advance_once(struct service *s, uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;
	struct generation *to = service_generation(s, r->to),
			  *from = service_generation(s, r->from);

	switch (r->phase) {
	case ROLLOUT_NONE:
		return false;
	case ROLLOUT_WAITING:
		if (alive(s) >= to->policy.drain.max_generations) {
			cut_drain_short(s, now, ret);
			return false;
		}
		/* What waits in the queue of a start that failed is for this one, once nobody else
		 * can take it. */
		if (!from && lane_is_used(s, s->queue_lane))
			return false;
		open_lane(s, to, now, ret);
		return true;
	case ROLLOUT_STOPPING_OLD:
		if (from && generation_has_process(from))
			return false;
		r->phase = ROLLOUT_STARTING;
		if (from && to->policy.strategy != STRATEGY_RECREATE)
			take_over(s, from, to, now, ret);
		generation_start(to, r->steps[r->step].workers, now, ret);
		return true;
	case ROLLOUT_STARTING:
		if (!generation_first_ready(to, r->steps[r->step].workers))
			return false;
		reach_step(s, to, now, ret);
		return true;
	case ROLLOUT_SOAKING:
		r->soaked |= !r->paused && now >= r->deadline_usec;
		if (r->paused || !r->soaked || rollout_verify_holds(s) ||
			!generation_first_ready(to, r->steps[r->step].workers))
			return false;
		r->deadline_usec = USEC_INFINITY;
		if (r->step + 1 == r->n_steps) {
			promote(s, to, now, ret);
			return true;
		}
		retire_replaced(s, to, now, ret);
		rollout_verify_stop(r, ret);
		r->step++;
		r->phase = ROLLOUT_STARTING;
		generation_start(to, r->steps[r->step].workers, now, ret);
		return true;
	case ROLLOUT_SETTLING:
		if (!old_is_settled(s, now))
			return false;
		end(s, REASON_DONE, NO_WORKER, ret);
		return true;
	case ROLLOUT_RESTORING:
		if (generation_has_process(from) || generation_has_process(to))
			return false;
		restore_old(s, from, to, now, ret);
		return true;
	}
	return false;
}

void rollout_advance(struct service *s, uint64_t now, struct effects *ret)
{
	while (advance_once(s, now, ret))
		;
}

void rollout_promote(struct service *s, bool full, uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;

	r->paused = false;
	r->pause_at = 0;
	if (full) {
		r->verify_waived = true;
		rollout_verify_stop(r, ret);
	}
	if (full && r->step + 1 < r->n_steps) {
		r->steps[r->step] = r->steps[r->n_steps - 1];
		r->n_steps = r->step + 1;
		if (r->phase == ROLLOUT_SOAKING || r->phase == ROLLOUT_STARTING) {
			r->phase = ROLLOUT_STARTING;
			generation_start(
				service_generation(s, r->to), r->steps[r->step].workers, now, ret);
		}
		return;
	}
	if (r->phase == ROLLOUT_SOAKING)
		r->deadline_usec = now;
}

void rollout_fail(
	struct service *s, enum reason reason, unsigned worker, uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;
	struct generation *to = service_generation(s, r->to),
			  *from = service_generation(s, r->from);
	/* Without sockets there is no queue to take over: the old one goes on with its own, and
	 * those of its workers that were told to go are started again when they are gone. */
	bool has_queue = r->took_over ||
			 (to->policy.strategy == STRATEGY_RECREATE && reason != REASON_LANE_FAILED);

	to->failed = true;
	r->paused = false;
	rollout_verify_stop(r, ret);
	if (from && from->state == GENERATION_PARKED && has_queue) {
		/* Its lane keeps the queue for the old generation: no settling, just out of the
		 * way. */
		r->phase = ROLLOUT_RESTORING;
		r->reason = reason;
		generation_retire(to, reason, true, now, ret);
		return;
	}
	if (from) {
		from->state = GENERATION_SERVING;
		from->reason = REASON_NONE;
		generation_set_weight(to, 0, now);
		generation_set_weight(from, SHARE_MAX, now);
		steer(r, ret);
		generation_unretire(from, now, ret);
	} else if (to->lane != LANE_NONE) {
		generation_set_weight(to, 0, now);
		service_keep_queue(s, to);
		steer(r, ret);
	}
	end(s, reason, worker, ret);
	/* Where nobody else serves, its queue is for the next: it does not stay to empty it. */
	generation_retire(to, reason, !from, now, ret);
}

uint64_t rollout_next_deadline(const struct service *s)
{
	const struct rollout *r = &s->rollout;
	const struct generation *from = service_generation(s, r->from);

	if (r->phase == ROLLOUT_SETTLING && from && from->state == GENERATION_WARM)
		return from->zero_since_usec + from->policy.drain.settle_usec;
	if (r->phase != ROLLOUT_SOAKING)
		return USEC_INFINITY;
	return MIN(
		rollout_verify_next(s), r->paused || r->soaked ? USEC_INFINITY : r->deadline_usec);
}

void rollout_cancel(struct service *s, enum reason reason, struct effects *ret)
{
	if (s->rollout.phase == ROLLOUT_NONE)
		return;
	/* Promoted already: it did what it was asked to. */
	end(s, s->rollout.phase == ROLLOUT_SETTLING ? REASON_DONE : reason, NO_WORKER, ret);
}

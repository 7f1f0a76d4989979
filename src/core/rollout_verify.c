/* SPDX-License-Identifier: Apache-2.0 */
/* Is the new generation right, at the share it has now? Somebody else finds out; here is when it is
 * asked, and what the answers mean for the step. */
#include "core/service.h"

/* The generation whose steps need a verify, or NULL. The first start has nothing to go back to. */
static const struct generation *verified_generation(const struct service *s)
{
	const struct rollout *r = &s->rollout;
	const struct generation *to = service_generation(s, r->to);

	return rollout_is_open(r) && r->phase != ROLLOUT_RESTORING && r->from != 0 &&
			       !r->verify_waived && to && to->policy.verify
		       ? to
		       : NULL;
}

static void run(struct rollout *r, struct effects *ret)
{
	r->verifying = true;
	r->verify_run++;
	r->verify_due_usec = USEC_INFINITY;
	effects_add(ret, (struct effect){.kind = EFFECT_VERIFY,
				 .generation = r->to,
				 .worker = NO_WORKER,
				 .value = r->verify_run});
}

void rollout_verify_begin(struct service *s, struct effects *ret)
{
	struct rollout *r = &s->rollout;

	r->verified = false;
	if (verified_generation(s))
		run(r, ret);
}

void rollout_verify_again(struct service *s, struct effects *ret)
{
	if (s->rollout.verifying)
		run(&s->rollout, ret);
}

void rollout_verify_stop(struct rollout *r, struct effects *ret)
{
	r->verify_due_usec = USEC_INFINITY;
	if (!r->verifying)
		return;
	r->verifying = false;
	effects_add(ret, (struct effect){.kind = EFFECT_VERIFY_STOP,
				 .generation = r->to,
				 .worker = NO_WORKER,
				 .value = r->verify_run});
}

bool rollout_verify_holds(const struct service *s)
{
	const struct rollout *r = &s->rollout;

	return verified_generation(s) && (!r->verified || r->verifying);
}

/* Runs go on for as long as the step soaks: the last one that counts has begun before its end. */
static bool next_run_counts(const struct rollout *r, uint64_t at)
{
	return r->phase == ROLLOUT_SOAKING && !r->verifying &&
	       (r->paused || (!r->soaked && at < r->deadline_usec));
}

void rollout_verify_tick(struct service *s, uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;

	if (verified_generation(s) && r->verify_due_usec <= now && next_run_counts(r, now))
		run(r, ret);
}

uint64_t rollout_verify_next(const struct service *s)
{
	const struct rollout *r = &s->rollout;

	return verified_generation(s) && next_run_counts(r, r->verify_due_usec) ? r->verify_due_usec
										: USEC_INFINITY;
}

void rollout_verify_result(struct service *s, unsigned generation, unsigned number, bool good,
	uint64_t now, struct effects *ret)
{
	struct rollout *r = &s->rollout;
	const struct generation *to = verified_generation(s);

	if (!to || !r->verifying || generation != r->to || number != r->verify_run)
		return;
	r->verifying = false;
	if (!good) {
		rollout_fail(s, REASON_VERIFY_FAILED, NO_WORKER, now, ret);
		return;
	}
	if (!r->verified)
		effects_add(ret, (struct effect){.kind = EFFECT_REPORT,
					 .report = REPORT_ROLLOUT_VERIFIED,
					 .generation = r->to,
					 .worker = NO_WORKER,
					 .value = r->steps[r->step].weight});
	r->verified = true;
	if (to->policy.verify_interval_usec > 0)
		r->verify_due_usec = usec_add(now, to->policy.verify_interval_usec);
}

enum verify_state rollout_verify_state(const struct service *s)
{
	const struct rollout *r = &s->rollout;

	if (!verified_generation(s))
		return VERIFY_STATE_NONE;
	if (r->phase != ROLLOUT_SOAKING)
		return VERIFY_STATE_PENDING;
	return r->verified ? VERIFY_STATE_PASSED : VERIFY_STATE_RUNNING;
}

uint64_t rollout_soak_end(const struct service *s)
{
	const struct rollout *r = &s->rollout;

	return r->phase == ROLLOUT_SOAKING && r->from != 0 && !r->paused ? r->deadline_usec
									 : USEC_INFINITY;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Two clocks run side by side. The wait grows with every failure until a whole window passes
 * without one, counted from the start that followed the last failure, so that a long wait is no
 * quiet time by itself. The limit counts failures in windows that begin with a failure and end
 * after their length, as the limit of a systemd unit does. */
#include "core/backoff.h"

#include <limits.h>

/* from * 2^doublings, at most `to`, and never the value that means "not at all". */
static uint64_t backoff_wait(const struct backoff_policy *p, unsigned doublings)
{
	uint64_t ceiling = MIN(p->to_usec, USEC_INFINITY - 1);

	if (p->from_usec == 0)
		return 0;
	if (doublings >= 64 || p->from_usec > ceiling >> doublings)
		return ceiling;
	return p->from_usec << doublings;
}

static bool backoff_passed(uint64_t since_usec, uint64_t now_usec, uint64_t length_usec)
{
	return now_usec > since_usec && now_usec - since_usec >= length_usec;
}

uint64_t backoff_failed(struct backoff *b, const struct backoff_policy *p, uint64_t now_usec,
	bool was_ready, bool may_give_up)
{
	/* Without a limit there may be no window: then quiet is what the longest wait would be. */
	uint64_t quiet = p->window_usec > 0 ? p->window_usec : p->to_usec;
	uint64_t wait;
	bool limited;

	if (b->window_start_usec == USEC_INFINITY || backoff_passed(b->last_usec, now_usec, quiet))
		*b = (struct backoff){.window_start_usec = now_usec};
	else if (backoff_passed(b->window_start_usec, now_usec, p->window_usec)) {
		b->window_start_usec = now_usec;
		b->failures = 0;
	}
	if (b->failures < UINT_MAX)
		b->failures++;

	limited = p->limit_starts > 0 && b->failures >= p->limit_starts;
	if (limited && may_give_up)
		return USEC_INFINITY;
	if (b->steps == 0 && was_ready) {
		b->steps = 1;
		wait = 0;
	} else if (limited) {
		/* It stays at the ceiling until it has been quiet. */
		b->steps = UINT_MAX;
		wait = MIN(p->to_usec, USEC_INFINITY - 1);
	} else {
		b->steps = MAX(b->steps, 1U);
		wait = backoff_wait(p, b->steps - 1);
		if (b->steps < UINT_MAX)
			b->steps++;
	}
	b->last_usec = wait > USEC_INFINITY - 1 - now_usec ? USEC_INFINITY - 1 : now_usec + wait;
	return wait;
}

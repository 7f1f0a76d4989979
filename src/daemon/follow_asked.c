/* SPDX-License-Identifier: Apache-2.0 */
/* A change that was asked for before, of this daemon or of one that has died: what became of it. */
#include "daemon/follow_internal.h"

static bool was_good(const struct manager_service *s, unsigned generation)
{
	for (size_t i = s->n_history; i-- > 0;)
		if (s->history[i].generation == generation)
			return s->history[i].was_good;
	return false;
}

/* It has begun, as that generation; or is queued, or waits for a stop to be over. */
static void follow_upgrade(
	struct waiter *w, struct manager_service *s, unsigned generation, bool wait_drain)
{
	_cleanup_free_ char *text = NULL;
	const struct rollout *r = &s->core.rollout;

	if (s->core.last_number < generation) {
		if (s->queued.config)
			waiter_follow_queued(w, s, wait_drain);
		else
			waiter_follow_start_again(w, s);
		return;
	}
	/* It may have been left again since, for the next one. */
	if (!was_good(s, generation) || (r->phase != ROLLOUT_NONE && r->to == generation)) {
		waiter_follow_generation(w, s, generation, wait_drain);
		return;
	}
	text = xasprintf("%s: generation %u came into service", s->name, generation);
	waiter_done(w, s, generation, text ? text : "done");
	if (wait_drain && r->to == generation && service_generation(&s->core, r->from))
		(void)follower_add(w, s,
			(struct follower){.kind = FOLLOW_DRAIN,
				.generation = generation,
				.from = r->from,
				.wait_drain = true});
}

void waiter_follow_asked(
	struct waiter *w, struct manager_service *s, const struct asked *a, bool wait_drain)
{
	if (!w)
		return;
	switch ((unsigned)a->kind) {
	case EVENT_UPGRADE:
	case EVENT_START:
		follow_upgrade(w, s, a->number, wait_drain);
		break;
	case EVENT_ABORT:
		waiter_follow_abort(w, s, a->number);
		break;
	case EVENT_ROLLBACK:
		waiter_follow_generation(w, s, a->number, false);
		break;
	case EVENT_STOP:
		waiter_follow_stop(w, s);
		break;
	case EVENT_SCALE:
		waiter_follow_scale(w, s, a->number);
		break;
	default:
		break;
	}
	/* What cannot begin any more is not waited for. */
	followers_check(s);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The way back: during a rollout its abort, to a generation that is still there at once, else by a
 * new generation from what the last good one was made from. */
#include "daemon/log.h"
#include "daemon/manager.h"

/* The way back never leads to what is serving now, under whatever number: going back twice goes
 * back two releases. */
static const struct history_entry *rollback_target(const struct manager_service *s, unsigned to)
{
	const struct manager_generation *serving = manager_service_generation(s, s->core.current);

	for (size_t i = s->n_history; i-- > 0;) {
		const struct history_entry *h = &s->history[i];
		if (to != 0 ? h->generation == to
			    : h->was_good && h->generation != s->core.current &&
					(!serving || h->snapshot != serving->snapshot) &&
					(h->snapshot ||
						manager_service_generation(s, h->generation)))
			return h;
	}
	return NULL;
}

/* Somebody wanted to get away from it: it is no place to go back to, unless it is named. */
static void mark_left(struct manager_service *s, unsigned generation)
{
	for (size_t i = 0; i < s->n_history; i++)
		if (s->history[i].generation == generation)
			s->history[i].was_good = false;
}

/* The programs are attached when the event was handled: this is when clients feel it. */
static void report_moved(struct manager_service *s, unsigned generation, uint64_t asked_usec)
{
	s->moved_usec = MAX(manager_now(s->manager) - asked_usec, UINT64_C(1));
	manager_report(s->manager, s, generation, NO_WORKER, LOG_INFO, "connections-moved",
		"%s: generation %u has all new connections again, %.1fms after it was asked for",
		s->name, generation, (double)s->moved_usec / USEC_PER_MSEC);
}

int manager_service_rollback(
	struct manager_service *s, unsigned to, const char *requested_by, struct error *ret_error)
{
	/* It has proved itself before, and what is left may be on fire: no soak. */
	static const uint64_t no_soak = 0;
	struct request_options o = {.requested_by = requested_by, .soak_usec = &no_soak};
	_cleanup_snapshot_ struct snapshot *snapshot = NULL;
	const struct history_entry *h;
	struct service_event e = {.kind = EVENT_ROLLBACK};
	unsigned left = s->core.current;
	uint64_t asked = manager_now(s->manager);
	int r;

	s->moved_usec = 0;
	if (rollout_is_open(&s->core.rollout) && s->core.rollout.from != 0) {
		e = (struct service_event){.kind = EVENT_ABORT, .reason = REASON_ROLLED_BACK};
		r = manager_service_event(s, &e);
		if (r != 0)
			return error_set(
				ret_error, r, "%s: %s", s->name, service_refusal_to_string(r));
		if (s->core.rollout.phase == ROLLOUT_NONE)
			report_moved(s, s->core.current, asked);
		return 0;
	}
	h = rollback_target(s, to);
	if (!h)
		return error_set(ret_error, SERVICE_E_NOT_ALIVE,
			to ? "%s: generation %u is not known any more; see `tenurectl history %s`"
			   : "%s: there is no earlier good generation to go back to (%u known; see "
			     "`tenurectl history %s`)",
			s->name, to ? to : (unsigned)s->n_history, s->name);
	e.generation = h->generation;
	r = manager_service_event(s, &e);
	if (r == 0) {
		report_moved(s, h->generation, asked);
		mark_left(s, left);
		manager_service_adopt_snapshot(s, h->generation);
		return 0;
	}
	if (r != SERVICE_E_NOT_ALIVE)
		return error_set(ret_error, r, "%s: %s", s->name, service_refusal_to_string(r));
	if (!h->snapshot)
		return error_set(ret_error, SERVICE_E_NOT_ALIVE,
			"%s: what generation %u was made from is not kept any more", s->name,
			h->generation);
	snapshot = snapshot_ref(h->snapshot);
	r = manager_service_upgrade_from(s, &snapshot->config, snapshot, &o, ret_error);
	if (r == 0)
		mark_left(s, left);
	return r;
}

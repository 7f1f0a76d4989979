/* SPDX-License-Identifier: Apache-2.0 */
/* A service's listeners as a whole: who is shown the new generation, programs, and which of them
 * are still needed. */
#include "daemon/listener_options.h"
#include "daemon/log.h"
#include "daemon/manager.h"

static void drop_preview(struct manager_service *s, unsigned id)
{
	if (s->preview_rules[id] > 0 && s->listeners[id])
		listener_drop_rule(s->listeners[id], (unsigned)s->preview_rules[id]);
	s->preview_rules[id] = 0;
}

/* Connections of preview_from see the new generation while its rollout is open. At other times they
 * go where all go. */
void manager_service_preview(struct manager_service *s)
{
	const struct generation *to = rollout_is_open(&s->core.rollout) && s->core.rollout.from != 0
					      ? service_generation(&s->core, s->core.rollout.to)
					      : NULL;
	const char *from = s->config->upgrade.preview_from;
	struct manager_preview now = {0};

	if (!from || !to || to->lane == LANE_NONE || to->failed ||
		address_parse_ip(from, &now.family, now.source) < 0)
		now = (struct manager_preview){0};
	else
		now.lane = to->lane;
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		struct listener *l = s->listeners[id];
		bool want = l && l->kind == LISTENER_GROUP && now.family != 0 &&
			    (to->listeners & (UINT64_C(1) << id));

		if (!want || memcmp(&now, &s->preview, sizeof(now)) != 0)
			drop_preview(s, id);
		if (want && s->preview_rules[id] <= 0)
			s->preview_rules[id] = listener_add_rule(
				l, now.family, now.source, 0, now.lane, LISTENER_ANY_SLOT);
	}
	s->preview = now;
}

/* Workers can have their sockets wait for a client's first bytes, as nginx's "deferred" does: such
 * clients belong to the sockets they came to, which settle for so much longer. */
static void note_deferring(struct manager_service *s)
{
	for (size_t i = 0; i < s->core.n_generations; i++) {
		struct generation *g = s->core.generations[i];
		uint64_t before = g->policy.drain.settle_usec, defer;

		for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
			const struct listener *l = s->listeners[id];

			if (!l || l->kind != LISTENER_GROUP || g->lane == LANE_NONE ||
				!(g->listeners & (UINT64_C(1) << id)))
				continue;
			defer = listener_defer_usec(l, g->lane);
			policy_defer_usec(&g->policy, defer);
			if (g->policy.drain.settle_usec == before)
				continue;
			before = g->policy.drain.settle_usec;
			log_notice("%s: generation %u: listener %s waits %llu s for the first "
				   "bytes of a connection (TCP_DEFER_ACCEPT), which was not asked "
				   "for by defer_accept; it settles for a second more than that",
				s->name, g->number, l->config.name,
				(unsigned long long)(defer / USEC_PER_SEC));
		}
	}
}

void manager_service_steer(struct manager_service *s)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		struct listener *l = s->listeners[id];

		if (!l)
			continue;
		listener_mend(l);
		if (l->kind == LISTENER_GROUP) {
			listener_steer(l);
			listener_watch_idle(l);
		}
	}
	note_deferring(s);
}

void manager_service_tend(struct manager_service *s)
{
	manager_service_steer(s);
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id]) {
			listener_guard_look(s->listeners[id]);
			(void)listener_look_at_drops(s->listeners[id]);
		}
	/* A socket may have been found that its workers have to be rid of. */
	manager_service_after(s);
}

void manager_service_drop_unused_listeners(struct manager_service *s)
{
	uint64_t used = 0;

	for (size_t i = 0; i < s->n_generations; i++)
		used |= s->generations[i]->listeners;
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		struct listener *l = s->listeners[id];
		bool wanted = false;

		if (!l || (used & (UINT64_C(1) << id)))
			continue;
		for (size_t i = 0; i < s->config->n_listeners; i++)
			wanted |= plan_listener_same(&s->config->listeners[i], &l->config);
		if (!wanted) {
			manager_report(s->manager, s, 0, NO_WORKER, LOG_INFO, "listener-closed",
				"%s: listener %s closed", s->name, l->config.name);
			s->preview_rules[id] = 0;
			s->listeners[id] = listener_close(l);
		}
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/listener_live.h"

#include <poll.h>

#include "daemon/log.h"
#include "daemon/state_save.h"
#include "daemon/worker_channel.h"
#include "sys/listen.h"

#define LOOK_USEC (20 * USEC_PER_MSEC)
/* How long a worker may take to close a socket that it was told to close. */
#define CLOSE_USEC (5 * USEC_PER_SEC)

bool listener_live_is_possible(const struct manager_service *s)
{
	const struct generation *g = service_generation(&s->core, s->core.current);

	if (!g || g->lane == LANE_NONE || g->failed || rollout_is_open(&s->core.rollout) ||
		s->core.stopping || s->queued.config || listener_live_leaving(s) != 0)
		return false;
	/* The way back to one that is kept is with the listeners that it had. */
	for (size_t i = 0; i < s->core.n_generations; i++)
		if (s->core.generations[i] != g &&
			s->core.generations[i]->state != GENERATION_RETIRING)
			return false;
	for (unsigned i = 0; i < g->n_workers; i++) {
		const struct worker_process *p = manager_service_worker(s, g->number, i);

		/* Whoever is being started, or has just died, gets what the generation has then. */
		if (g->workers[i].state != WORKER_READY || g->workers[i].retiring || !p ||
			!worker_channel_takes_listeners(p))
			return false;
	}
	return g->n_workers > 0;
}

uint64_t listener_live_leaving(const struct manager_service *s)
{
	uint64_t mask = 0;

	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id] && s->listeners[id]->leaving)
			mask |= UINT64_C(1) << id;
	return mask;
}

static void sync_workers(struct manager_service *s)
{
	for (size_t i = 0; i < s->n_generations; i++)
		for (unsigned k = 0; k < s->generations[i]->n_workers; k++)
			if (s->generations[i]->workers[k])
				worker_channel_sync(s->generations[i]->workers[k]);
}

/* What a generation listens on, for the core, and for whoever is started from now on. */
static void set_mask(struct manager_service *s, struct manager_generation *g, uint64_t mask)
{
	struct upgrade_spec spec = {.listeners = mask};

	g->listeners = mask;
	manager_service_steering_of(s, &g->snapshot->config, mask, &spec.policy);
	(void)manager_service_event(
		s, &(struct service_event){
			   .kind = EVENT_LISTENERS, .generation = g->number, .spec = &spec});
}

/* --- one that leaves ------------------------------------------------------------ */

static bool queues_are_empty(const struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++) {
		struct pollfd p = {.fd = l->lanes.sockets[i].fd, .events = POLLIN};

		if (p.fd >= 0 && poll(&p, 1, 0) > 0 && (p.revents & POLLIN))
			return false;
	}
	return true;
}

static bool somebody_has(const struct listener *l)
{
	const struct manager_service *s = l->service;

	for (size_t i = 0; i < s->n_generations; i++)
		for (unsigned k = 0; k < s->generations[i]->n_workers; k++) {
			const struct worker_process *p = s->generations[i]->workers[k];

			if (p && p->pid != 0 && p->channel_fd >= 0 &&
				(p->has_listeners & (UINT64_C(1) << l->id)))
				return true;
		}
	return false;
}

static void forget(struct listener *l)
{
	struct manager_service *s = l->service;
	uint64_t bit = UINT64_C(1) << l->id;

	l->leave_timer = sd_event_source_disable_unref(l->leave_timer);
	/* Generations may end while we go through them. */
	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->listeners & bit) {
			set_mask(s, s->generations[i], s->generations[i]->listeners & ~bit);
			i = SIZE_MAX;
		}
	for (size_t i = 0; i < s->n_generations; i++)
		for (unsigned k = 0; k < s->generations[i]->n_workers; k++) {
			struct worker_process *p = s->generations[i]->workers[k];

			if (!p || !((p->has_listeners | p->told_remove) & bit))
				continue;
			p->has_listeners &= ~bit;
			p->told_leave &= ~bit;
			p->told_remove &= ~bit;
			worker_process_changed(p);
		}
	/* l is gone behind this. */
	manager_service_drop_unused_listeners(s);
	manager_service_changed(s);
}

static int on_leave_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct listener *l = userdata;
	uint64_t now = manager_now(l->service->manager);

	(void)usec;
	if (!l->left && (queues_are_empty(l) || now >= l->leave_until_usec)) {
		if (now >= l->leave_until_usec && !queues_are_empty(l))
			log_warning("%s: listener %s is closed although connections wait in its "
				    "queue: nobody has accepted them in settle_timeout",
				l->service->name, l->config.name);
		l->left = l->changed = true;
		l->leave_until_usec = usec_add(now, CLOSE_USEC);
		sync_workers(l->service);
		state_save_service(l->service);
	}
	if (l->left && (!somebody_has(l) || now >= l->leave_until_usec)) {
		forget(l);
		return 0;
	}
	(void)sd_event_source_set_time_relative(source, LOOK_USEC);
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static void begin_to_leave(struct listener *l)
{
	struct manager *m = l->service->manager;
	const struct drain_config *drain = &l->service->config->drain;
	const struct generation *g =
		service_generation(&l->service->core, l->service->core.current);
	/* It may be longer where connections are waited for (defer_accept). */
	uint64_t settle =
		g ? MAX(drain->settle_usec, g->policy.drain.settle_usec) : drain->settle_usec;
	int r;

	if (address_is_unix(&l->config.address)) {
		if (l->ino != 0)
			(void)listen_unlink(&l->config.address, l->dev, l->ino);
		l->ino = 0;
	}
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd >= 0)
			(void)listen_begin_no_more(l->lanes.sockets[i].fd);
	l->leaving = l->changed = true;
	l->leave_until_usec =
		usec_add(manager_now(m), usec_add(settle, drain->settle_timeout_usec));
	r = sd_event_add_time_relative(
		m->event, &l->leave_timer, CLOCK_MONOTONIC, settle, 0, on_leave_timer, l);
	if (r >= 0)
		r = sd_event_source_set_priority(l->leave_timer, PRIORITY_TIMER);
	if (r < 0)
		log_error("%s: listener %s cannot be closed: %s", l->service->name, l->config.name,
			strerror(-r));
}

void listener_live_resume(struct manager_service *s)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id] && s->listeners[id]->leaving && !s->listeners[id]->leave_timer)
			begin_to_leave(s->listeners[id]);
}

/* --- the change ------------------------------------------------------------------ */

/* Whoever is started from this snapshot from now on listens there. */
static int replace_listeners(
	struct manager_service *s, struct snapshot *snap, const struct service_config *config)
{
	struct service_config *own = &snap->config, copy;
	struct listener_config *listeners = own->listeners;
	size_t n = own->n_listeners;

	if (service_config_copy(config, &copy) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < copy.n_listeners; i++)
		copy.listeners[i].place.file = NULL;
	own->listeners = copy.listeners;
	own->n_listeners = copy.n_listeners;
	copy.listeners = listeners;
	copy.n_listeners = n;
	service_config_done(&copy);
	state_snapshot_changed(s, snap);
	return 0;
}

int listener_live_change(
	struct manager_service *s, const struct service_config *config, struct error *ret_error)
{
	struct manager_generation *g = manager_service_generation(s, s->core.current);
	uint64_t mask = 0;
	int r;

	if (!g || !listener_live_is_possible(s))
		return error_set(ret_error, -EAGAIN, "%s: its workers have just changed; try again",
			s->name);
	r = manager_service_bind(s, config, &mask, ret_error);
	if (r < 0)
		return r;
	if (replace_listeners(s, g->snapshot, config) < 0)
		return error_set(ret_error, -ENOMEM, "%s: out of memory", s->name);
	r = manager_service_update(s, config, ret_error);
	if (r < 0)
		return r;
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		struct listener *l = s->listeners[id];
		uint64_t bit = UINT64_C(1) << id;

		if (!l || (mask & bit)) {
			if (l && !(g->listeners & bit))
				manager_report(s->manager, s, g->number, NO_WORKER, LOG_NOTICE,
					"listener-added",
					"%s: listener %s is given to the workers of generation %u",
					s->name, l->config.name, g->number);
			continue;
		}
		if (g->listeners & bit) {
			manager_report(s->manager, s, g->number, NO_WORKER, LOG_NOTICE,
				"listener-leaving",
				"%s: listener %s is taken from the workers of generation %u",
				s->name, l->config.name, g->number);
			l->leaving = l->changed = true;
		}
	}
	set_mask(s, g, g->listeners | mask);
	/* If we are killed now, the next one goes on with it. Before, a socket must not have begun
	 * to turn clients away, and no worker may have one that nobody else knows of. */
	state_save_service(s);
	listener_live_resume(s);
	sync_workers(s);
	return 0;
}

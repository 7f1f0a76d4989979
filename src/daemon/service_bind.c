/* SPDX-License-Identifier: Apache-2.0 */
/* What a service listens on: which of its listeners there are, and which have to be bound. */
#include "daemon/manager.h"

struct listener *manager_service_listener(
	const struct manager_service *s, const struct listener_config *c, unsigned *ret_id)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id] && plan_listener_same(&s->listeners[id]->config, c)) {
			*ret_id = id;
			return s->listeners[id];
		}
	return NULL;
}

static int free_listener_id(const struct manager_service *s)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (!s->listeners[id])
			return (int)id;
	return -ENOSPC;
}

int manager_service_bind(struct manager_service *s, const struct service_config *c,
	uint64_t *ret_mask, struct error *ret_error)
{
	uint64_t mask = 0, fresh = 0;
	unsigned id;
	int r = 0;

	for (size_t i = 0; i < c->n_listeners; i++) {
		struct listener *there = manager_service_listener(s, &c->listeners[i], &id);

		if (there && there->leaving) {
			r = error_set(ret_error, -EBUSY,
				"%s: listener %s is just being closed; try again in a moment",
				s->name, there->config.name);
			break;
		}
		if (there) {
			mask |= UINT64_C(1) << id;
			continue;
		}
		r = free_listener_id(s);
		if (r < 0) {
			error_set(ret_error, r, "%s: more than %zu listeners at once", s->name,
				ARRAY_SIZE(s->listeners));
			break;
		}
		id = (unsigned)r;
		r = listener_open(s, &c->listeners[i], id, s->manager->may_group,
			s->core.queue_lane, &s->listeners[id], ret_error);
		if (r < 0)
			break;
		mask |= UINT64_C(1) << id;
		fresh |= UINT64_C(1) << id;
	}
	if (r < 0) {
		for (id = 0; id < ARRAY_SIZE(s->listeners); id++)
			if (fresh & (UINT64_C(1) << id))
				s->listeners[id] = listener_close(s->listeners[id]);
		return r;
	}
	*ret_mask = mask;
	return 0;
}

void manager_service_steering_of(const struct manager_service *s, const struct service_config *c,
	uint64_t mask, struct policy *p)
{
	p->steered = false;
	p->per_worker = true;
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		const struct listener *l = s->listeners[id];
		if (!l || !(mask & (UINT64_C(1) << id)) || l->kind != LISTENER_GROUP)
			continue;
		p->steered = true;
		for (size_t i = 0; i < c->n_listeners; i++)
			if (plan_listener_same(&c->listeners[i], &l->config))
				p->per_worker &= c->listeners[i].sockets == SOCKETS_PER_WORKER;
	}
	p->per_worker &= p->steered;
}

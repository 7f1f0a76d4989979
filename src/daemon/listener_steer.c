/* SPDX-License-Identifier: Apache-2.0 */
/* From the service's shares and the wanted rules to the program that is attached. */
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "sys/listen.h"

int listener_add_rule(struct listener *l, int family, const uint8_t source[static 16],
	uint16_t port, unsigned lane, unsigned slot)
{
	struct listener_rule *rule;
	int r;

	if (l->kind != LISTENER_GROUP)
		return -EOPNOTSUPP;
	if (l->n_rules >= STEERING_RULES_MAX)
		return -ENOSPC;
	r = array_reserve(&l->rules, &l->rules_capacity, l->n_rules + 1, sizeof(*rule));
	if (r < 0)
		return r;
	rule = &l->rules[l->n_rules++];
	l->next_rule = l->next_rule % (INT32_MAX - 1) + 1;
	*rule = (struct listener_rule){
		.id = l->next_rule,
		.rule = {.family = family, .source_port = port},
		.lane = lane,
		.slot = slot
	    };
	memcpy(rule->rule.source, source, 16);
	listener_steer(l);
	return (int)l->next_rule;
}

void listener_drop_rule(struct listener *l, unsigned id)
{
	for (size_t i = 0; i < l->n_rules; i++)
		if (l->rules[i].id == id) {
			l->rules[i] = l->rules[--l->n_rules];
			listener_steer(l);
			return;
		}
}

/* The sockets of a share that may get connections: with one per worker, those of its ready workers;
 * else the one. A lane may have more than its generation needs: nobody would ever accept there.
 * Where nobody is, connections wait in the first, which every generation has. */
static size_t indices_of(const struct listener *l, const struct lane_share *share, uint32_t *ret)
{
	static const bool first = true;
	_cleanup_free_ bool *active = NULL;
	size_t n = 0;

	if (listener_lane_is_per_worker(l, share->lane) && share->generation) {
		active = calloc(share->generation->n_workers + 1, sizeof(*active));
		if (active) {
			generation_active_slots(share->generation, active);
			n = lanes_indices(
				&l->lanes, share->lane, active, share->generation->n_workers, ret);
		}
	}
	if (n == 0)
		n = lanes_indices(&l->lanes, share->lane, &first, 1, ret);
	return n > 0 ? n : lanes_indices(&l->lanes, share->lane, NULL, 0, ret);
}

static const struct generation *generation_of_lane(const struct listener *l, unsigned lane)
{
	const struct service *core = &l->service->core;

	for (size_t i = 0; i < core->n_generations; i++)
		if (core->generations[i]->lane == lane)
			return core->generations[i];
	return NULL;
}

static size_t rule_indices(
	const struct listener *l, const struct listener_rule *rule, uint32_t *ret)
{
	static const bool first = true;
	int index;

	if (!listener_lane_is_per_worker(l, rule->lane))
		return lanes_indices(&l->lanes, rule->lane, &first, 1, ret);
	if (rule->slot == LISTENER_ANY_SLOT) {
		struct lane_share share = {
			.lane = rule->lane, .generation = generation_of_lane(l, rule->lane)};
		return indices_of(l, &share, ret);
	}
	index = lanes_index(&l->lanes, rule->lane, rule->slot);
	if (index < 0)
		return 0;
	ret[0] = (uint32_t)index;
	return 1;
}

/* indices: room for every lane and rule of the whole array. False: a lane with a share has no
 * socket. */
static bool describe(const struct listener *l, struct steering *ret, uint32_t *indices)
{
	struct lane_share shares[CONFIG_GENERATIONS_MAX + 2];
	size_t n = service_shares(&l->service->core, UINT64_C(1) << l->id, shares), used;

	for (size_t i = 0; i < n; i++) {
		used = indices_of(l, &shares[i], indices);
		if (used == 0)
			return false;
		ret->lanes[ret->n_lanes++] = (struct steering_lane){
			.weight = shares[i].weight, .indices = indices, .n_indices = used};
		indices += used;
	}
	for (size_t i = 0; i < l->n_rules; i++) {
		used = rule_indices(l, &l->rules[i], indices);
		if (used == 0)
			continue;
		ret->rules[ret->n_rules] = l->rules[i].rule;
		ret->rules[ret->n_rules].indices = indices;
		ret->rules[ret->n_rules++].n_indices = used;
		indices += used;
	}
	return true;
}

static void fail(struct listener *l, const char *what, int r)
{
	if (l->steer_failed)
		return;
	l->steer_failed = true;
	log_error("%s: listener %s: new connections cannot be steered: %s%s%s; the earlier shares "
		  "stay in force",
		l->service->name, l->config.name, what, r < 0 ? ": " : "",
		r < 0 ? strerror(-r) : "");
}

void listener_steer(struct listener *l)
{
	struct sock_filter program[STEERING_INSTRUCTIONS_MAX];
	struct steering steering = {0};
	_cleanup_free_ uint32_t *indices = NULL;
	size_t n;
	int r;

	if (l->kind != LISTENER_GROUP || l->lanes.n == 0)
		return;
	indices = calloc(l->lanes.n * (STEERING_LANES_MAX + l->n_rules + 1), sizeof(*indices));
	if (!indices) {
		fail(l, "out of memory", 0);
		return;
	}
	if (!describe(l, &steering, indices)) {
		fail(l, "a generation with a share has no socket", 0);
		return;
	}
	r = steering_compile(&steering, program, &n);
	if (r == -E2BIG && steering.n_rules > 0) {
		/* Shares come before probes: those try again. */
		steering.n_rules = 0;
		r = steering_compile(&steering, program, &n);
	}
	if (r >= 0)
		r = listen_steer(l->lanes.sockets[0].fd, program, n);
	if (r < 0) {
		fail(l, "attaching the program", r);
		return;
	}
	l->steer_failed = false;
}

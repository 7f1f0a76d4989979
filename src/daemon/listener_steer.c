/* SPDX-License-Identifier: Apache-2.0 */
/* From the service's shares and the wanted rules to the program that is attached.
 *
 * How it is drawn. Shares: by chance, a connection (a datagram) at a time; with `sticky: client` by
 * the client. The socket within a generation's lane, where each worker has one: by chance; with
 * `sticky: client` by the client, so that it also stays with its worker; with `cpu_affinity:
 * per-worker` by the CPU, which goes before for connections, but not for datagrams, where it would
 * tear a client's state apart; and of datagrams without all that by the flow, because they are part
 * of one. */
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/worker_process.h"
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

static bool is_by_cpu(const struct listener *l, const struct generation *g)
{
	const struct manager_generation *made =
		g ? manager_service_generation(l->service, g->number) : NULL;

	return made && made->snapshot->config.cpu_affinity == CPU_AFFINITY_PER_WORKER &&
	       listener_lane_is_per_worker(l, g->lane);
}

static enum steering_draw draw_of(const struct listener *l, const struct generation *g)
{
	bool sticky = g && g->policy.sticky, datagrams = l->config.address.kind == ADDRESS_UDP;

	if (is_by_cpu(l, g) && !(sticky && datagrams))
		return STEERING_CPU;
	if (sticky)
		return STEERING_CLIENT;
	return datagrams ? STEERING_FLOW : STEERING_RANDOM;
}

/* The CPUs of the workers whose sockets these are; one that is nobody's counts for none. */
static void cpus_of(const struct listener *l, const struct generation *g, const uint32_t *indices,
	size_t n, uint32_t *ret)
{
	for (size_t i = 0; i < n; i++) {
		unsigned slot = l->lanes.sockets[indices[i]].slot;
		const struct worker_process *p =
			manager_service_worker(l->service, g->number, slot);

		ret[i] = p && p->bound ? cpu_set_nth(&p->cpus, 0) : UINT32_MAX;
	}
}

/* Newest first: its clients stay with it while its share grows. */
static int compare_shares(const void *a, const void *b)
{
	const struct lane_share *x = a, *y = b;
	unsigned first = x->generation ? x->generation->number : 0;
	unsigned second = y->generation ? y->generation->number : 0;

	return (first < second) - (first > second);
}

/* What a program is made of, with room for every lane and rule of the whole array. */
struct description {
	struct steering steering;
	uint32_t *indices, *cpus;
};

static void description_done(struct description *d)
{
	free(d->indices);
	free(d->cpus);
}

static void describe_rules(const struct listener *l, struct description *d, uint32_t *indices)
{
	struct steering *s = &d->steering;

	for (size_t i = 0; i < l->n_rules; i++) {
		const struct generation *g = generation_of_lane(l, l->rules[i].lane);
		size_t used = rule_indices(l, &l->rules[i], indices);

		if (used == 0)
			continue;
		s->rules[s->n_rules] = l->rules[i].rule;
		s->rules[s->n_rules].indices = indices;
		/* A preview's connections shall see all workers, its flows one. */
		if (l->config.address.kind == ADDRESS_UDP)
			s->rules[s->n_rules].draw = draw_of(l, g);
		s->rules[s->n_rules++].n_indices = used;
		indices += used;
	}
}

/* False: a lane with a share has no socket. */
static bool describe(const struct listener *l, struct description *d)
{
	struct lane_share shares[CONFIG_GENERATIONS_MAX + 2];
	size_t n = service_shares(&l->service->core, UINT64_C(1) << l->id, shares), used;
	struct steering *s = &d->steering;
	uint32_t *indices = d->indices, *cpus = d->cpus;

	qsort(shares, n, sizeof(*shares), compare_shares);
	if (shares[0].generation && shares[0].generation->policy.sticky) {
		s->lane_draw = STEERING_CLIENT;
		s->seed = shares[0].generation->number;
	}
	for (size_t i = 0; i < n; i++) {
		struct steering_lane *lane = &s->lanes[s->n_lanes++];

		used = indices_of(l, &shares[i], indices);
		if (used == 0)
			return false;
		*lane = (struct steering_lane){
			.weight = shares[i].weight,
			.indices = indices,
			.n_indices = used,
			.draw = draw_of(l, shares[i].generation),
		};
		if (lane->draw == STEERING_CPU) {
			cpus_of(l, shares[i].generation, indices, used, cpus);
			lane->cpus = cpus;
		}
		indices += used;
		cpus += used;
	}
	describe_rules(l, d, indices);
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

/* Shares come before probes, which try again, and before the CPU. */
static int compile(struct steering *s, struct sock_filter *program, size_t *ret_n)
{
	int r = steering_compile(s, program, ret_n);

	if (r == -E2BIG && s->n_rules > 0) {
		s->n_rules = 0;
		r = steering_compile(s, program, ret_n);
	}
	for (size_t i = 0; r == -E2BIG && i < s->n_lanes; i++) {
		if (s->lanes[i].draw != STEERING_CPU)
			continue;
		s->lanes[i].draw = STEERING_RANDOM;
		r = steering_compile(s, program, ret_n);
	}
	return r;
}

int listener_any_socket(const struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd >= 0)
			return l->lanes.sockets[i].fd;
	return -1;
}

void listener_steer(struct listener *l)
{
	struct sock_filter program[STEERING_INSTRUCTIONS_MAX];
	_cleanup_(description_done) struct description d = {.indices = NULL};
	size_t n, room = l->lanes.n * (STEERING_LANES_MAX + l->n_rules + 1);
	int r;

	if (l->kind != LISTENER_GROUP || listener_any_socket(l) < 0)
		return;
	d.indices = calloc(room, sizeof(*d.indices));
	d.cpus = calloc(room, sizeof(*d.cpus));
	if (!d.indices || !d.cpus) {
		fail(l, "out of memory", 0);
		return;
	}
	if (!describe(l, &d)) {
		fail(l, "a generation with a share has no socket", 0);
		return;
	}
	r = compile(&d.steering, program, &n);
	if (r >= 0)
		r = listen_steer(listener_any_socket(l), program, n);
	if (r < 0) {
		fail(l, "attaching the program", r);
		return;
	}
	l->steer_failed = false;
}

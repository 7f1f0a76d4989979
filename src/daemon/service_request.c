/* SPDX-License-Identifier: Apache-2.0 */
/* What people ask of a service: start, upgrade, rollback, scale, stop. Everything that can fail is
 * done before anything is changed. */
#include "daemon/cgroup.h"
#include "daemon/connections.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/memory.h"
#include "daemon/state_save.h"
#include "daemon/unit.h"
#include "daemon/verify.h"
#include "daemon/worker_process.h"
#include "daemon/worker_store.h"

const char *service_refusal_to_string(int r)
{
	switch (r) {
	case SERVICE_E_ROLLOUT_IN_PROGRESS:
		return "a rollout is in progress";
	case SERVICE_E_TOO_MANY_GENERATIONS:
		return "too many generations are still draining";
	case SERVICE_E_NO_ROLLOUT:
		return "no rollout is in progress";
	case SERVICE_E_NOT_RUNNING:
		return "the service is not running";
	case SERVICE_E_NOT_ALIVE:
		return "that generation is gone";
	case SERVICE_E_STOPPING:
		return "the service is stopping";
	case SERVICE_E_ADOPTED:
		return "the process that was taken over has not been replaced yet";
	default:
		return "refused";
	}
}

static struct service_config *copy_config(const struct service_config *c)
{
	struct service_config *copy = calloc(1, sizeof(*copy));

	if (copy && service_config_copy(c, copy) < 0) {
		free(copy);
		return NULL;
	}
	/* The list of files belongs to a configuration that may be gone tomorrow. */
	if (copy) {
		copy->place.file = NULL;
		for (size_t i = 0; i < copy->n_listeners; i++)
			copy->listeners[i].place.file = NULL;
	}
	return copy;
}

static void forget_config(struct service_config *c)
{
	if (c)
		service_config_done(c);
	free(c);
}

struct manager_service *manager_service_new(
	struct manager *m, const struct service_config *c, struct error *ret_error)
{
	struct manager_service *s = calloc(1, sizeof(*s));

	if (s) {
		s->manager = m;
		service_init(&s->core);
		s->config = copy_config(c);
		s->name = strdup(c->name);
		memory_watch(s);
	}
	if (s && s->config && s->name)
		return s;
	error_set(ret_error, -ENOMEM, "%s: out of memory", c->name);
	return manager_service_free(s);
}

static void pending_done(struct pending_upgrade *p)
{
	forget_config(p->config);
	snapshot_unref(p->snapshot);
	free(p->requested_by);
	*p = (struct pending_upgrade){0};
}

static void history_entry_done(struct history_entry *h)
{
	free(h->reason);
	free(h->requested_by);
	free(h->directory);
	free(h->executable);
	snapshot_unref(h->snapshot);
}

struct manager_generation *manager_generation_free(struct manager_generation *g)
{
	/* With a worker its probe ends, and connections are steered anew: by the workers that are
	 * left. */
	for (unsigned k = 0; k < g->n_workers; k++)
		g->workers[k] = worker_process_free(g->workers[k]);
	generation_cgroup_free(g->cgroup);
	free(g->workers);
	free(g->requested_by);
	snapshot_unref(g->snapshot);
	free(g);
	return NULL;
}

struct manager_service *manager_service_free(struct manager_service *s)
{
	if (!s)
		return NULL;
	if (!s->manager->detached)
		state_forget_service(s);
	saved_service_free(s->saved);
	followers_free(s);
	connections_forget(s);
	verify_stop(s);
	memory_watch_end(s);
	for (; s->n_generations > 0; s->n_generations--)
		manager_generation_free(s->generations[s->n_generations - 1]);
	free(s->generations);
	for (size_t i = 0; i < ARRAY_SIZE(s->listeners); i++)
		listener_close(s->listeners[i]);
	s->worker_store = worker_store_free(s);
	for (size_t i = 0; i < s->n_history; i++)
		history_entry_done(&s->history[i]);
	pending_done(&s->queued);
	failure_done(&s->failure);
	failure_done(&s->trouble);
	if (s->timer)
		sd_event_source_disable_unref(s->timer);
	forget_config(s->config);
	forget_config(s->config_before);
	service_done(&s->core);
	free(s->events);
	free(s->name);
	free(s);
	return NULL;
}

/* What the machines need to know that only the bound sockets tell. */
static void fill_policy(const struct manager_service *s, const struct service_config *c,
	uint64_t mask, struct policy *p)
{
	policy_from_config(p, c);
	manager_service_steering_of(s, c, mask, p);
	p->contained = s->manager->cgroups != NULL;
	if (s->scaled > 0)
		p->workers = s->scaled;
}

static void apply_options(struct upgrade_spec *spec, const struct request_options *o)
{
	struct policy *p = &spec->policy;

	if (o->strategy)
		p->strategy = *o->strategy;
	if (o->steps) {
		p->n_steps = MIN(o->n_steps, (size_t)CONFIG_STEPS_MAX);
		memcpy(p->steps, o->steps, p->n_steps * sizeof(o->steps[0]));
		if (!o->strategy)
			p->strategy = STRATEGY_CANARY;
	}
	if (o->soak_usec)
		p->soak_usec = *o->soak_usec;
	if (o->overlap)
		p->overlap = *o->overlap;
	if (o->hard)
		p->strategy = STRATEGY_RECREATE;
	spec->pause_at = o->pause_at;
	spec->restart = o->restart;
}

static int add_generation(struct manager_service *s, unsigned number, struct snapshot *snapshot,
	uint64_t mask, const char *requested_by, bool contained)
{
	struct manager_generation *g;

	if (array_reserve(&s->generations, &s->generations_capacity, s->n_generations + 1,
		    sizeof(*s->generations)) < 0)
		return -ENOMEM;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->number = number;
	g->snapshot = snapshot_ref(snapshot);
	g->listeners = mask;
	g->requested_by = strdup(requested_by ? requested_by : "");
	g->started_usec = realtime_now();
	s->generations[s->n_generations++] = g;
	worker_store_begin(s, number);
	if (contained)
		generation_cgroup_make(s, g);
	return 0;
}

static void drop_generation_entry(struct manager_service *s)
{
	manager_generation_free(s->generations[--s->n_generations]);
}

static void remember(struct manager_service *s, const struct manager_generation *g)
{
	struct history_entry *h;
	size_t kept = 0;

	if (s->n_history == HISTORY_MAX) {
		history_entry_done(&s->history[0]);
		memmove(&s->history[0], &s->history[1], (HISTORY_MAX - 1) * sizeof(s->history[0]));
		s->n_history--;
	}
	h = &s->history[s->n_history++];
	*h = (struct history_entry){.generation = g->number,
		.started_usec = g->started_usec,
		.requested_by = strdup(g->requested_by ? g->requested_by : ""),
		.directory = strdup(g->snapshot->directory),
		.executable = strdup(g->snapshot->executable),
		.snapshot = snapshot_ref(g->snapshot)};
	/* A snapshot holds descriptors: only the newest are kept for the way back. */
	for (size_t i = s->n_history; i-- > 0;)
		if (s->history[i].snapshot && ++kept > HISTORY_SNAPSHOTS_MAX)
			s->history[i].snapshot = snapshot_unref(s->history[i].snapshot);
	manager_service_changed(s);
}

/* There is a way back to it as long as it lives, and none to another like it. */
static void remember_adopted(struct manager_service *s, const struct manager_generation *g)
{
	struct history_entry *h;

	remember(s, g);
	h = &s->history[s->n_history - 1];
	h->snapshot = snapshot_unref(h->snapshot);
	h->was_good = true;
	h->serving_usec = g->started_usec;
}

/* What the old process has a share of: one worker that is never replaced as it is. */
int manager_service_adopt(struct manager_service *s, struct snapshot *snapshot,
	const char *requested_by, struct error *ret_error)
{
	struct upgrade_spec spec = {0};
	struct service_event e = {.kind = EVENT_ADOPT, .spec = &spec};
	struct policy *p = &spec.policy;
	int r = manager_service_bind(s, s->config, &spec.listeners, ret_error);

	if (r < 0)
		return r;
	fill_policy(s, &snapshot->config, spec.listeners, p);
	p->workers = 1;
	p->contained = p->verify = false;
	p->recycle_after_usec = 0;
	/* If it ends by itself meanwhile, the configured command takes its place. */
	p->restart = RESTART_ALWAYS;
	r = add_generation(
		s, s->core.last_number + 1, snapshot, spec.listeners, requested_by, false);
	if (r >= 0)
		r = manager_service_event(s, &e);
	if (r == 0) {
		remember_adopted(s, s->generations[s->n_generations - 1]);
		return 0;
	}
	if (s->n_generations > 0)
		drop_generation_entry(s);
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		s->listeners[id] = listener_close(s->listeners[id]);
	return error_set(ret_error, r, "%s: %s", s->name,
		r < 0 ? strerror(-r) : service_refusal_to_string(r));
}

/* The core decides; then the rest of the daemon follows. */
static int submit(struct manager_service *s, const struct upgrade_spec *spec,
	struct snapshot *snapshot, const char *requested_by)
{
	struct service_event e = {.kind = EVENT_UPGRADE, .spec = spec};
	int r;

	/* Effects of the step name the generation already: its entry must be there before. */
	r = add_generation(
		s, s->core.last_number + 1, snapshot, spec->listeners, requested_by, true);
	if (r < 0)
		return r;
	remember(s, s->generations[s->n_generations - 1]);
	r = manager_service_event(s, &e);
	if (r != 0) {
		history_entry_done(&s->history[--s->n_history]);
		drop_generation_entry(s);
	}
	return r;
}

static void queue_upgrade(struct manager_service *s, struct service_config *config_take,
	struct snapshot *snapshot, const struct upgrade_spec *spec, const char *requested_by)
{
	if (s->queued.config)
		log_notice("%s: the queued upgrade is replaced by a later one", s->name);
	pending_done(&s->queued);
	s->queued = (struct pending_upgrade){.config = config_take,
		.snapshot = snapshot_ref(snapshot),
		.spec = *spec,
		.requested_by = strdup(requested_by ? requested_by : "")};
	asked_note(s, &(struct service_event){.kind = EVENT_UPGRADE}, true);
	manager_service_changed(s);
}

static void adopt_config(struct manager_service *s, struct service_config *config_take)
{
	unsigned id;

	forget_config(s->config);
	s->config = config_take;
	manager_service_changed(s);
	manager_service_preview(s);
	memory_watch(s);
	for (size_t i = 0; i < config_take->n_listeners; i++) {
		struct listener *l = manager_service_listener(s, &config_take->listeners[i], &id);
		if (l)
			listener_update(l, &config_take->listeners[i]);
	}
	for (size_t i = 0; i < s->core.n_generations; i++)
		policy_defer(&s->core.generations[i]->policy, s->config);
}

/* For a rollout that has begun: the present one comes back if it fails. */
static void adopt_config_for_now(struct manager_service *s, struct service_config *config_take)
{
	if (s->core.rollout.phase != ROLLOUT_NONE && s->core.rollout.from != 0 && !s->config_before)
		s->config_before = TAKE_PTR(s->config);
	adopt_config(s, config_take);
}

void manager_service_rollout_ended(struct manager_service *s, bool good)
{
	struct service_config *before = TAKE_PTR(s->config_before);

	if (before && !good)
		adopt_config(s, before);
	else
		forget_config(before);
	manager_service_changed(s);
}

/* Failed at once, before submit() was back. */
static bool is_over_already(const struct manager_service *s, unsigned generation)
{
	return s->core.current != 0 && s->core.current != generation &&
	       (s->core.rollout.phase == ROLLOUT_NONE || s->core.rollout.to != generation);
}

void manager_service_adopt_snapshot(struct manager_service *s, unsigned generation)
{
	const struct manager_generation *g = manager_service_generation(s, generation);
	struct service_config *copy = g ? copy_config(&g->snapshot->config) : NULL;

	if (!copy)
		return;
	copy->workers = s->config->workers;
	copy->workers_auto = s->config->workers_auto;
	adopt_config_for_now(s, copy);
}

static bool asks_for_shares(const struct request_options *o)
{
	return o->steps || o->pause_at > 0 || (o->strategy && *o->strategy == STRATEGY_CANARY);
}

int manager_service_upgrade_from(struct manager_service *s, const struct service_config *config,
	struct snapshot *snapshot, const struct request_options *o, struct error *ret_error)
{
	struct service_config *copy = copy_config(config);
	struct upgrade_spec spec = {0};
	int r;

	if (!copy)
		return error_set(ret_error, -ENOMEM, "%s: out of memory", s->name);
	/* What workers are made of may be old, how many there are to be is not. */
	if (config == &snapshot->config) {
		copy->workers = s->config->workers;
		copy->workers_auto = s->config->workers_auto;
	}
	r = manager_service_bind(s, copy, &spec.listeners, ret_error);
	if (r < 0)
		goto out;
	fill_policy(s, copy, spec.listeners, &spec.policy);
	apply_options(&spec, o);
	if (asks_for_shares(o) && !spec.policy.steered) {
		manager_service_drop_unused_listeners(s);
		r = error_set(ret_error, -EINVAL,
			"%s: a share of the connections (canary, steps, a pause at a share) needs "
			"a "
			"TCP listener with steering: on a queue that both generations share, the "
			"programs decide who accepts; use another strategy",
			s->name);
		goto out;
	}
	r = submit(s, &spec, snapshot, o->requested_by);
	if (r == 0) {
		/* The same workers anew say nothing about what the service shall be. */
		if (!o->restart && !is_over_already(s, s->core.last_number))
			adopt_config_for_now(s, TAKE_PTR(copy));
	} else if (r == SERVICE_E_ROLLOUT_IN_PROGRESS && spec.policy.overlap == OVERLAP_QUEUE) {
		queue_upgrade(s, TAKE_PTR(copy), snapshot, &spec, o->requested_by);
		manager_report(s->manager, s, 0, NO_WORKER, LOG_INFO, "upgrade-queued",
			"%s: upgrade queued until the rollout to generation %u has ended", s->name,
			s->core.rollout.to);
		/* Nobody serves them yet: they are bound again when its turn comes. */
		manager_service_drop_unused_listeners(s);
		r = 0;
	} else {
		manager_service_drop_unused_listeners(s);
		error_set(ret_error, r, "%s: %s", s->name,
			r < 0 ? strerror(-r) : service_refusal_to_string(r));
	}
out:
	forget_config(copy);
	return r;
}

int manager_service_upgrade(struct manager_service *s, const struct service_config *config,
	const struct request_options *o, struct error *ret_error)
{
	_cleanup_snapshot_ struct snapshot *snapshot = NULL;
	const struct manager_generation *serving = manager_service_generation(s, s->core.current);
	int r;

	if (!config)
		config = s->config;
	if (o->restart) {
		if (!serving)
			return error_set(ret_error, SERVICE_E_NOT_RUNNING,
				"%s: the service is not running", s->name);
		snapshot = snapshot_ref(serving->snapshot);
		config = &snapshot->config;
	} else {
		r = snapshot_new(config, &s->manager->worker_nofile, &snapshot, ret_error);
		if (r < 0)
			return r;
		/* A new release decides about its own number of workers. */
		if (config != s->config && config->workers != s->config->workers)
			s->scaled = 0;
	}
	return manager_service_upgrade_from(s, config, snapshot, o, ret_error);
}

int manager_service_start(
	struct manager_service *s, const char *requested_by, struct error *ret_error)
{
	struct request_options o = {.requested_by = requested_by};
	int r;

	if (s->core.stopping) {
		struct service_event e = {.kind = EVENT_START};
		r = manager_service_event(s, &e);
		return r == 0 ? 0
			      : error_set(ret_error, r, "%s: %s", s->name,
					service_refusal_to_string(r));
	}
	if (s->core.wanted && s->core.n_generations > 0)
		return 0;
	return manager_service_upgrade(s, NULL, &o, ret_error);
}

int manager_service_scale(struct manager_service *s, unsigned workers, struct error *ret_error)
{
	struct service_event e = {.kind = EVENT_SCALE, .value = workers};
	int r;

	if (workers < 1 || workers > CONFIG_WORKERS_MAX)
		return error_set(ret_error, -ERANGE, "%s: workers must be 1 to %d, not %u", s->name,
			CONFIG_WORKERS_MAX, workers);
	r = manager_service_event(s, &e);
	if (r != 0)
		return error_set(ret_error, r, "%s: %s", s->name,
			r < 0 ? strerror(-r) : service_refusal_to_string(r));
	s->scaled = workers == s->config->workers ? 0 : workers;
	manager_service_changed(s);
	return 0;
}

int manager_service_stop(struct manager_service *s, bool now)
{
	struct service_event e = {.kind = now ? EVENT_KILL : EVENT_STOP};

	pending_done(&s->queued);
	manager_service_changed(s);
	return manager_service_event(s, &e);
}

int manager_service_update(
	struct manager_service *s, const struct service_config *config, struct error *ret_error)
{
	struct generation *g = service_generation(&s->core, s->core.current);
	struct service_config *copy = copy_config(config);

	if (!copy)
		return error_set(ret_error, -ENOMEM, "%s: out of memory", s->name);
	adopt_config(s, copy);
	s->scaled = 0;
	if (g) {
		struct policy p;
		fill_policy(s, s->config, g->listeners, &p);
		p.workers = g->policy.workers;
		p.per_worker = g->policy.per_worker;
		g->policy = p;
	}
	return 0;
}

int manager_service_pending(const struct manager_service *s, char ***ret)
{
	const struct manager_generation *g = manager_service_generation(s, s->core.current);

	return g ? snapshot_pending(g->snapshot, ret) : 0;
}

/* A held Unix socket was killed by a worker and bound anew: those who hold the old one must be
 * replaced. */
void manager_service_listener_replaced(struct manager_service *s)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct request_options o = {
		.requested_by = "a socket had to be bound anew", .restart = true};

	/* Those that it brings hold the dead one too. */
	s->holds_dead_socket = rollout_is_open(&s->core.rollout);
	if (s->holds_dead_socket)
		return;
	if (manager_service_upgrade(s, NULL, &o, &error) != 0)
		log_error("%s: its workers still hold the dead socket: %s", s->name,
			error_message(&error));
}

/* A restart is of what serves when its turn comes, not of what did when it was asked for. */
static int submit_queued(struct manager_service *s, const struct pending_upgrade *q,
	struct request_options *o, struct error *ret_error)
{
	if (!q->spec.restart)
		return manager_service_upgrade_from(s, q->config, q->snapshot, o, ret_error);
	o->restart = true;
	return manager_service_upgrade(s, NULL, o, ret_error);
}

static void start_queued(struct manager_service *s)
{
	struct pending_upgrade q = s->queued;
	struct error error = ERROR_NULL;
	struct request_options o = {.requested_by = q.requested_by,
		.strategy = &q.spec.policy.strategy,
		.soak_usec = &q.spec.policy.soak_usec,
		.overlap = &q.spec.policy.overlap,
		.pause_at = q.spec.pause_at};

	s->queued = (struct pending_upgrade){0};
	manager_service_changed(s);
	if (q.spec.policy.n_steps > 0) {
		o.steps = q.spec.policy.steps;
		o.n_steps = q.spec.policy.n_steps;
	}
	if (submit_queued(s, &q, &o, &error) != 0) {
		manager_report(s->manager, s, 0, NO_WORKER, LOG_ERR, "upgrade-failed",
			"%s: the queued upgrade failed: %s", s->name, error_message(&error));
		followers_check(s);
	}
	error_done(&error);
	pending_done(&q);
}

static void start_again(struct manager_service *s)
{
	_cleanup_error_ struct error error = ERROR_NULL;

	s->start_again = false;
	s->changed = true;
	if (manager_service_start(s, "start while it stopped", &error) == 0)
		return;
	manager_report(s->manager, s, 0, NO_WORKER, LOG_ERR, "service-failed",
		"%s: cannot be started again: %s", s->name, error_message(&error));
	followers_check(s);
}

void manager_service_after(struct manager_service *s)
{
	unit_changed(s->manager->unit);
	if (s->start_again)
		start_again(s);
	if (s->core.stopping)
		s->holds_dead_socket = false;
	if (s->queued.config && !rollout_is_open(&s->core.rollout) && !s->core.stopping)
		start_queued(s);
	if (s->holds_dead_socket && !rollout_is_open(&s->core.rollout))
		manager_service_listener_replaced(s);
	manager_check_stopped(s->manager);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What is, as the JSON of io.tenured.Supervisor.varlink. Nothing here changes anything. */
#include <limits.h>

#include "base/utf8.h"
#include "daemon/cgroup.h"
#include "daemon/control_methods.h"
#include "daemon/worker_process.h"
#include "sys/listen.h"
#include "sys/sockdiag.h"
#include "varlink/message.h"

json_t *control_json_text(const char *s)
{
	_cleanup_free_ char *printable = NULL;
	json_t *text;

	if (!s)
		return json_null();
	text = json_string(s);
	if (text)
		return text;
	/* Names of files and the like may be any bytes; JSON is UTF-8. */
	printable = utf8_printable(s, strlen(s), 4096);
	text = printable ? json_string(printable) : NULL;
	return text ? text : json_string("?");
}

static json_t *integer_unless(bool unknown, uint64_t value)
{
	return unknown ? json_null() : json_integer((json_int_t)value);
}

static json_t *share(unsigned weight)
{
	return json_real((double)weight / 100.0);
}

/* A moment of the monotonic clock as the wall clock has it. */
static uint64_t realtime_of(struct manager *m, uint64_t monotonic_usec)
{
	uint64_t now = manager_now(m);

	return monotonic_usec > now ? realtime_now() + (monotonic_usec - now)
				    : realtime_now() - (now - monotonic_usec);
}

static json_t *strings(char *const *list)
{
	json_t *array = json_array();

	for (; array && list && *list; list++)
		json_array_append_new(array, control_json_text(*list));
	return array;
}

static const char *worker_state_name(enum worker_state s)
{
	switch (s) {
	case WORKER_STOPPED:
		return "stopped";
	case WORKER_STARTING:
		return "starting";
	case WORKER_READY:
		return "ready";
	case WORKER_SETTLING:
	case WORKER_EMPTYING:
	case WORKER_IDLING:
	case WORKER_DRAINING:
	case WORKER_ESCALATED:
	case WORKER_KILLED:
		return "draining";
	case WORKER_BACKOFF:
		return "backoff";
	}
	return "stopped";
}

static json_t *worker_json(
	struct manager_service *s, const struct generation *g, const struct worker *w)
{
	const struct worker_process *p = manager_service_worker(s, g->number, w->index);
	bool gone = !p || p->pid == 0;
	/* One that was not started yet waits as long as its generation exists. */
	uint64_t since = w->since_usec > 0   ? w->since_usec
			 : g->since_usec > 0 ? g->since_usec
					     : manager_now(s->manager);

	int n = connections_of_worker(s, g->number, w->index);
	_cleanup_free_ char *cpus = !gone && p->bound ? cpu_set_format(&p->cpus) : NULL;

	return json_pack("{s:i, s:o, s:s, s:I, s:o, s:o, s:o, s:o, s:I}", "index", (int)w->index,
		"pid", integer_unless(gone, gone ? 0 : (uint64_t)p->main_pid), "state",
		worker_state_name(w->state), "restarts", (json_int_t)w->restarts, "status",
		control_json_text(p ? p->status : NULL), "connections",
		integer_unless(n < 0, (uint64_t)MAX(n, 0)), "memory",
		integer_unless(gone || p->memory == 0, gone ? 0 : p->memory), "cpus",
		control_json_text(cpus), "sinceUsec", (json_int_t)realtime_of(s->manager, since));
}

/* null where there is none. */
static json_t *moment(struct manager *m, uint64_t monotonic_usec)
{
	return integer_unless(monotonic_usec == USEC_INFINITY, realtime_of(m, monotonic_usec));
}

static const char *generation_state_name(const struct generation *g)
{
	if (g->failed)
		return "failed";
	switch (g->state) {
	case GENERATION_STARTING:
		return g->wanted > 0 && generation_first_ready(g, g->wanted) ? "ready" : "starting";
	case GENERATION_SERVING:
		return "serving";
	case GENERATION_WARM:
		return "warm";
	case GENERATION_PARKED:
	case GENERATION_RETIRING:
		return "draining";
	}
	return "draining";
}

void control_json_add_measured(json_t *object, const struct manager_service *s, unsigned generation)
{
	unsigned n = 0, of = 0;
	bool known = connections_measured(s, generation, &n, &of);

	if (!object)
		return;
	json_object_set_new(object, "measured", of > 0 ? json_real(100.0 * n / of) : json_null());
	json_object_set_new(object, "measuredOf", integer_unless(!known, of));
}

static json_t *figure(uint64_t value)
{
	return integer_unless(value == UINT64_MAX, value);
}

static json_t *cgroup_json(const struct manager_generation *g)
{
	struct cgroup_figures f;
	_cleanup_free_ char *path = NULL;

	if (!g || !generation_cgroup_figures(g, &f, &path))
		return json_null();
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "path", control_json_text(path),
		"memory", figure(f.memory), "memoryPeak", figure(f.memory_peak), "cpuUsec",
		figure(f.cpu_usec), "tasks", figure(f.tasks), "oomKills", figure(f.oom_kills));
}

/* What runs there, "cwd" or "exe". Of what was adopted the kernel tells, for we have not started
 * it. */
static json_t *place_of(const struct manager_service *s, const struct generation *g,
	const char *link, const char *made)
{
	const struct worker_process *p = manager_service_worker(s, g->number, 0);
	char path[64], target[PATH_MAX];
	ssize_t n;

	if (!g->adopted || !p || p->pid == 0)
		return control_json_text(made ? made : "");
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)p->pid, link);
	n = readlink(path, target, sizeof(target) - 1);
	target[n < 0 ? 0 : n] = '\0';
	return control_json_text(target);
}

static json_t *generation_json(struct manager_service *s, const struct generation *g)
{
	const struct manager_generation *made = manager_service_generation(s, g->number);
	int n = connections_of_generation(s, g->number);
	uint64_t since = g->since_usec > 0 ? realtime_of(s->manager, g->since_usec)
			 : made		   ? made->started_usec
					   : 0;
	json_t *workers = json_array(), *generation;

	for (unsigned i = 0; workers && i < g->n_workers; i++)
		json_array_append_new(workers, worker_json(s, g, &g->workers[i]));
	generation = json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:b}", "number",
		(int)g->number, "state", generation_state_name(g), "traffic", share(g->weight),
		"connections", integer_unless(n < 0, (uint64_t)MAX(n, 0)), "directory",
		place_of(s, g, "cwd", made ? made->snapshot->directory : NULL), "executable",
		place_of(s, g, "exe", made ? made->snapshot->executable : NULL), "sinceUsec",
		(json_int_t)since, "reason",
		g->reason == REASON_NONE ? json_null() : json_string(reason_to_string(g->reason)),
		"workers", workers, "adopted", g->adopted);
	control_json_add_measured(generation, s, g->number);
	if (generation)
		json_object_set_new(generation, "cgroup", cgroup_json(made));
	if (generation && g->state == GENERATION_WARM)
		json_object_set_new(
			generation, "warmUntilUsec", moment(s->manager, g->warm_until_usec));
	return generation;
}

static const struct generation *lane_owner(const struct manager_service *s, unsigned lane)
{
	for (size_t i = 0; i < s->core.n_generations; i++)
		if (s->core.generations[i]->lane == lane)
			return s->core.generations[i];
	return NULL;
}

/* The part of new connections one socket gets: its lane's, spread over the sockets in use. */
static double socket_share(const struct listener *l, const struct lane_socket *socket)
{
	struct lane_share shares[CONFIG_GENERATIONS_MAX + 2];
	size_t n = service_shares(&l->service->core, UINT64_C(1) << l->id, shares);
	_cleanup_free_ bool *active = NULL;
	const struct lane_share *found = NULL;
	unsigned used = 0, slots;

	for (size_t i = 0; i < n; i++)
		if (shares[i].lane == socket->lane)
			found = &shares[i];
	if (!found)
		return 0.0;
	slots = found->generation ? found->generation->n_workers : 0;
	active = listener_lane_is_per_worker(l, socket->lane) && slots > 0
			 ? calloc(slots, sizeof(*active))
			 : NULL;
	if (!active)
		return socket->slot == 0 ? (double)found->weight / 100.0 : 0.0;
	generation_active_slots(found->generation, active);
	for (unsigned i = 0; i < slots; i++)
		used += active[i];
	return socket->slot < slots && active[socket->slot] ? (double)found->weight / 100.0 / used
							    : 0.0;
}

static void look_into(const struct listener *l, int fd, struct listen_state *ret)
{
	uint64_t inode;

	*ret = (struct listen_state){.queue_max = l->config.backlog};
	if (!address_is_unix(&l->config.address)) {
		(void)listen_query(fd, ret);
		return;
	}
	if (l->service->manager->sockdiag_fd >= 0 && socket_inode(fd, &inode) >= 0)
		(void)sockdiag_unix_queue(
			l->service->manager->sockdiag_fd, inode, &ret->queue, &ret->queue_max);
}

static json_t *queue_json(const struct listener *l, const struct lane_socket *socket)
{
	bool held = l->kind == LISTENER_HELD;
	const struct generation *g = held ? NULL : lane_owner(l->service, socket->lane);
	struct listen_state state;
	unsigned dropped = 0;

	look_into(l, socket->fd, &state);
	(void)listen_dropped(socket->fd, &dropped);
	return json_pack("{s:o, s:o, s:i, s:i, s:I, s:o}", "generation",
		integer_unless(!g, g ? g->number : 0), "worker",
		integer_unless(
			held || !g || !listener_lane_is_per_worker(l, socket->lane), socket->slot),
		"waiting", (int)state.queue, "limit", (int)state.queue_max, "dropped",
		(json_int_t)dropped, "traffic", json_real(held ? 100.0 : socket_share(l, socket)));
}

static json_t *foreign_json(const struct listener *l)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < l->guard.n_foreign; i++) {
		const struct listener_foreign *f = &l->guard.foreign[i];
		_cleanup_free_ char *address = address_format(&f->address);

		if (!f->reported)
			continue;
		json_array_append_new(array, json_pack("{s:o, s:I, s:o, s:o}", "address",
						     control_json_text(address ? address : "?"),
						     "uid", (json_int_t)f->uid, "pid",
						     integer_unless(f->pid == 0, (uint64_t)f->pid),
						     "program", control_json_text(f->program)));
	}
	return array;
}

json_t *control_json_listener(struct listener *l)
{
	_cleanup_free_ char *address = listener_address(l);
	json_t *queue = json_array();

	(void)listener_look_at_drops(l);

	for (size_t i = 0; queue && i < l->lanes.n; i++)
		if (l->lanes.sockets[i].lane != LANES_OTHER)
			json_array_append_new(queue, queue_json(l, &l->lanes.sockets[i]));
	return json_pack("{s:s, s:s, s:o, s:s, s:o, s:s, s:s, s:i, s:o, s:o, s:o}", "service",
		l->service->name, "name", l->config.name, "address",
		control_json_text(address ? address : "?"), "kind",
		l->kind == LISTENER_GROUP ? "group" : "held", "reason",
		control_json_text(l->held_reason), "origin",
		l->config.inherited ? "inherited" : "own", "sockets",
		l->config.sockets == SOCKETS_PER_WORKER ? "perWorker" : "shared", "backlog",
		(int)l->config.backlog, "options", control_json_options(l), "foreign",
		foreign_json(l), "queue", queue);
}

static json_t *verify_json(const struct manager_service *s)
{
	switch (rollout_verify_state(&s->core)) {
	case VERIFY_STATE_NONE:
		break;
	case VERIFY_STATE_PENDING:
		return json_string("pending");
	case VERIFY_STATE_RUNNING:
		return json_string("running");
	case VERIFY_STATE_PASSED:
		return json_string("passed");
	}
	return json_null();
}

json_t *control_json_rollout(struct manager_service *s)
{
	const struct rollout *r = &s->core.rollout;
	const struct generation *to = service_generation(&s->core, r->to);
	const struct manager_generation *made = manager_service_generation(s, r->to);
	bool back = r->to < r->from;
	json_t *rollout;
	uint64_t since;

	if (r->phase == ROLLOUT_NONE || !to)
		return json_null();
	since = back || !made ? realtime_of(s->manager, to->since_usec) : made->started_usec;
	rollout = json_pack("{s:i, s:o, s:i, s:s, s:s, s:i, s:i, s:o, s:i, s:i, s:o, s:I}", "id",
		(int)r->id, "fromGeneration", integer_unless(r->from == 0, r->from), "toGeneration",
		(int)r->to, "strategy", back ? "rollback" : strategy_to_string(to->policy.strategy),
		"phase", r->paused ? "paused" : rollout_phase_to_string(r->phase), "step",
		(int)r->step + 1, "steps", (int)r->n_steps, "traffic", share(to->weight), "ready",
		(int)generation_ready(to), "workers", (int)to->wanted, "requestedBy",
		control_json_text(made && made->requested_by ? made->requested_by : ""),
		"sinceUsec", (json_int_t)since);
	control_json_add_measured(rollout, s, r->to);
	if (rollout) {
		json_object_set_new(
			rollout, "soakUntilUsec", moment(s->manager, rollout_soak_end(&s->core)));
		json_object_set_new(rollout, "verify", verify_json(s));
	}
	return rollout;
}

json_t *control_json_progress(
	struct manager_service *s, unsigned generation, const char *message, bool done)
{
	bool present = generation == 0 || s->core.rollout.to == generation ||
		       s->core.current == generation;

	return json_pack("{s:o, s:o, s:b, s:o}", "message", control_json_text(message), "rollout",
		present ? control_json_rollout(s) : json_null(), "done", done, "generation",
		integer_unless(generation == 0, generation));
}

static json_t *failure_json(const struct failure *f)
{
	if (f->generation == 0 && !f->reason)
		return json_null();
	return json_pack("{s:i, s:o, s:o, s:o, s:o, s:I}", "generation", (int)f->generation,
		"worker", integer_unless(f->worker == NO_WORKER, f->worker), "reason",
		control_json_text(f->reason ? f->reason : "failed"), "status",
		control_json_text(f->status), "output", control_json_text(f->output), "atUsec",
		(json_int_t)f->at_usec);
}

json_t *control_json_rolled_back(
	const struct manager_service *s, unsigned generation, enum reason reason)
{
	const struct failure *f = &s->failure;
	bool known = f->generation == generation && f->reason && reason != REASON_ABORTED &&
		     reason != REASON_ROLLED_BACK;

	return json_pack("{s:s, s:i, s:o, s:o, s:o, s:o}", "service", s->name, "generation",
		(int)generation, "reason",
		control_json_text(known ? f->reason : reason_to_string(reason)), "worker",
		integer_unless(!known || f->worker == NO_WORKER, f->worker), "status",
		control_json_text(known ? f->status : NULL), "output",
		control_json_text(known ? f->output : NULL));
}

static json_t *generations_json(struct manager_service *s)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < s->core.n_generations; i++)
		json_array_append_new(array, generation_json(s, s->core.generations[i]));
	return array;
}

static json_t *listeners_json(const struct manager_service *s)
{
	json_t *array = json_array();

	for (unsigned id = 0; array && id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id])
			json_array_append_new(array, control_json_listener(s->listeners[id]));
	return array;
}

json_t *control_json_service(struct manager_service *s)
{
	const struct generation *current = service_generation(&s->core, s->core.current);
	unsigned wanted = current	  ? current->wanted
			  : s->scaled > 0 ? s->scaled
					  : s->config->workers;
	_cleanup_strv_ char **pending = NULL;

	/* What cannot be looked at is not known to differ. */
	(void)manager_service_pending(s, &pending);
	return json_pack("{s:s, s:s, s:o, s:i, s:b, s:b, s:o, s:b, s:o, s:o, s:o, s:o, s:o}",
		"name", s->name, "state", service_state_to_string(service_state(&s->core)),
		"generation", integer_unless(s->core.current == 0, s->core.current),
		"workersWanted", (int)wanted, "scaled", s->scaled > 0, "healthy",
		service_is_healthy(&s->core), "rollout", control_json_rollout(s), "queued",
		s->queued.config != NULL, "pending", strings(pending), "previewFrom",
		control_json_text(s->config->upgrade.preview_from), "lastFailure",
		failure_json(&s->failure), "generations", generations_json(s), "listeners",
		listeners_json(s));
}

static json_t *traffic_json(const struct manager_service *s)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < s->core.n_generations; i++) {
		const struct generation *g = s->core.generations[i];
		int n = connections_of_generation(s, g->number);
		json_t *one = json_pack("{s:i, s:o, s:o}", "generation", (int)g->number, "traffic",
			share(g->weight), "connections",
			integer_unless(n < 0, (uint64_t)MAX(n, 0)));

		control_json_add_measured(one, s, g->number);
		json_array_append_new(array, one);
	}
	return array;
}

json_t *control_json_event(const struct manager_event *e)
{
	json_t *event = json_pack("{s:I, s:I, s:o, s:o, s:o, s:s, s:o}", "sequence",
		(json_int_t)e->sequence, "atUsec", (json_int_t)e->at_usec, "service",
		control_json_text(e->service), "generation",
		integer_unless(e->generation == 0, e->generation), "worker",
		integer_unless(e->worker == NO_WORKER, e->worker), "event", e->event, "message",
		control_json_text(e->message));

	if (event && e->traffic_of)
		json_object_set_new(event, "traffic", traffic_json(e->traffic_of));
	return event;
}

json_t *control_json_problems(const struct config_problems *p)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < p->n; i++) {
		const struct config_problem *problem = &p->list[i];

		json_array_append_new(array,
			json_pack("{s:o, s:i, s:i, s:o, s:b}", "file",
				control_json_text(problem->place.file ? problem->place.file : ""),
				"line", (int)problem->place.line, "column",
				(int)problem->place.column, "message",
				control_json_text(
					problem->message ? problem->message : "out of memory"),
				"warning", problem->warning));
	}
	return array;
}

json_t *control_json_changes(const struct plan *plan)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < plan->n; i++) {
		const struct plan_entry *e = &plan->entries[i];

		json_array_append_new(array,
			json_pack("{s:s, s:s, s:o}", "service", e->service, "action",
				plan_action_to_string(e->action), "reasons", strings(e->reasons)));
	}
	return array;
}

static const char *outcome_name(const struct manager_service *s, const struct history_entry *h)
{
	const struct generation *g = service_generation(&s->core, h->generation);

	if (g)
		return generation_state_name(g);
	switch (h->outcome) {
	case REASON_NONE:
	case REASON_DONE:
		return "ended";
	case REASON_SPAWN_FAILED:
	case REASON_EXITED_BEFORE_READY:
	case REASON_NOT_READY_IN_TIME:
	case REASON_EXITED_IN_SOAK:
	case REASON_VERIFY_FAILED:
	case REASON_WATCHDOG:
	case REASON_SAID_ERROR:
	case REASON_LANE_FAILED:
	case REASON_START_LIMIT:
		return "failed";
	case REASON_ABORTED:
		return "aborted";
	case REASON_ROLLED_BACK:
		return "rolled back";
	case REASON_SUPERSEDED:
		return "superseded";
	case REASON_STOPPED:
		return "stopped";
	case REASON_REPLACED:
	case REASON_SCALED_DOWN:
	case REASON_TOO_OLD:
	case REASON_TOO_BIG:
		return "replaced";
	}
	return "ended";
}

json_t *control_json_history(const struct manager_service *s)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < s->n_history; i++) {
		const struct history_entry *h = &s->history[i];

		json_array_append_new(array,
			json_pack("{s:i, s:I, s:o, s:o, s:s, s:o, s:o, s:o, s:o}", "generation",
				(int)h->generation, "startedUsec", (json_int_t)h->started_usec,
				"servingUsec",
				integer_unless(h->serving_usec == 0, h->serving_usec), "endedUsec",
				integer_unless(h->ended_usec == 0, h->ended_usec), "outcome",
				outcome_name(s, h), "reason", control_json_text(h->reason),
				"requestedBy",
				control_json_text(h->requested_by ? h->requested_by : ""),
				"directory", control_json_text(h->directory ? h->directory : ""),
				"executable",
				control_json_text(h->executable ? h->executable : "")));
	}
	return array;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* One generation's cgroup, and those of its workers in it. */
#include <poll.h>

#include "daemon/cgroup_internal.h"
#include "daemon/log.h"
#include "sys/process.h"
#include "sys/spawn.h"

/* Who was told to end with its worker is given that long. */
#define MOMENT_USEC (100 * USEC_PER_MSEC)
#define KILL_AGAIN_USEC USEC_PER_SEC
enum { NAMES_MAX = 4, TRIES_MAX = 1000, NAME_SIZE = 256, ESCAPED_MAX = 128 };

struct generation_cgroup {
	struct manager_service *service;
	unsigned generation;
	char *name;
	int fd;
	uint64_t oom_kills; /* that were told */
	/* While it is waited for its end */
	int events_fd;
	sd_event_source *events, *timer;
	bool reported;
};

/* --- making it ------------------------------------------------------------ */

/* A service may be called like a file that the kernel has in each cgroup, "cpu.8", or will have. */
static bool must_be_escaped(const char *name)
{
	static const char *const begins[] = {"cgroup.", "cpu.", "cpuset.", "dmem.", "hugetlb.",
		"io.", "irq.", "memory.", "misc.", "pids.", "rdma."};

	if (name[0] == '_' || name[0] == '.')
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(begins); i++)
		if (startswith(name, begins[i]))
			return true;
	return false;
}

/* Of one that was taken over blindly there may be processes in the cgroup of the first choice. */
static void make_name(
	char ret[static NAME_SIZE], const char *service, unsigned generation, unsigned attempt)
{
	char plain[NAME_SIZE];

	snprintf(plain, sizeof(plain), "%.*s.%u", ESCAPED_MAX, service, generation);
	if (attempt == 0)
		snprintf(ret, NAME_SIZE, "%.2s%.200s", must_be_escaped(plain) ? "_" : "", plain);
	else
		snprintf(ret, NAME_SIZE, "%.2s%.200s-%u", must_be_escaped(plain) ? "_" : "", plain,
			attempt);
}

static struct generation_cgroup *cgroup_new(struct manager_service *s, unsigned generation)
{
	struct generation_cgroup *c = calloc(1, sizeof(*c));

	if (c)
		*c = (struct generation_cgroup){
			.service = s, .generation = generation, .fd = -1, .events_fd = -1};
	return c;
}

static int make_empty(struct generation_cgroup *c, int directory)
{
	for (unsigned attempt = 0; attempt < TRIES_MAX; attempt++) {
		char name[NAME_SIZE];
		int r;

		make_name(name, c->service->name, c->generation, attempt);
		/* An earlier one's limits are not ours. */
		if (cgroup_remove(directory, name) < 0)
			continue;
		r = cgroup_make(directory, name, &c->fd);
		if (r < 0)
			return r;
		c->name = strdup(name);
		return c->name ? 0 : -ENOMEM;
	}
	return -EEXIST;
}

static void say_unlimited(
	const struct manager_service *s, unsigned generation, const char *keys, const char *why)
{
	log_warning("%s: generation %u: %s not applied: %s", s->name, generation, keys, why);
}

static const char *why_missing(const struct cgroups *c, int r)
{
	if (r == -EBUSY)
		return "other processes are in the cgroup of tenured itself, so that it cannot "
		       "have controllers; start it by itself";
	if (r == -EDEADLK)
		return "systemd could not start the next daemon while there are limits; the unit "
		       "of tenured needs ExecStopPost=tenured reap, or since systemd 254 "
		       "DelegateSubgroup=";
	if (r < 0)
		return strerror(-r);
	return c->self_moved || getenv("INVOCATION_ID")
		       ? "the cgroup of tenured has no such controller; write Delegate=yes in its "
			 "unit, and see that the kernel has it for cgroup version 2"
		       : "the cgroup of tenured has no such controller";
}

/* What cannot be limited runs without that limit: that is said, but keeps nobody from serving. */
static void apply_limits(struct manager_service *s, const struct manager_generation *g)
{
	struct resource_setting settings[RESOURCES_MAX];
	size_t n = resources_settings(&g->snapshot->config.resources, settings);
	struct cgroups *c = s->manager->cgroups;
	_cleanup_free_ char *unlimited = NULL;
	unsigned wanted = 0, missing = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		wanted |= cgroup_controllers_from_string(settings[i].controller);
	if (!c || !g->cgroup) {
		if (n > 0)
			say_unlimited(s, g->number, "resources are",
				"there is no cgroup for it; write Delegate=yes in the unit of "
				"tenured");
		return;
	}
	r = n > 0 ? cgroups_need(c, wanted, &missing) : 0;
	for (size_t i = 0; i < n; i++) {
		bool has = !(cgroup_controllers_from_string(settings[i].controller) & missing);
		int q = has ? cgroup_set(g->cgroup->fd, settings[i].file, settings[i].value) : 0;
		char *longer;

		if (q < 0)
			log_warning("%s: generation %u: %s is not applied: %s", s->name, g->number,
				settings[i].key,
				q == -ENOENT ? "this kernel has no such limit" : strerror(-q));
		if (has)
			continue;
		longer = xasprintf("%s%s%s", unlimited ? unlimited : "", unlimited ? ", " : "",
			settings[i].key);
		free(unlimited);
		unlimited = longer;
	}
	if (unlimited) {
		_cleanup_free_ char *keys =
			xasprintf("%s %s", unlimited, strchr(unlimited, ',') ? "are" : "is");

		say_unlimited(s, g->number, keys ? keys : "resources are", why_missing(c, r));
	}
}

void generation_cgroup_make(struct manager_service *s, struct manager_generation *g)
{
	struct cgroups *parent = s->manager->cgroups;
	int r;

	if (parent) {
		g->cgroup = cgroup_new(s, g->number);
		r = g->cgroup ? make_empty(g->cgroup, parent->fd) : -ENOMEM;
		if (r < 0) {
			log_warning("%s: generation %u gets no cgroup: %s", s->name, g->number,
				strerror(-r));
			g->cgroup = generation_cgroup_free(g->cgroup);
		}
	}
	apply_limits(s, g);
}

void generation_cgroup_restore(
	struct manager_service *s, struct manager_generation *g, const char *name)
{
	struct cgroups *parent = s->manager->cgroups;
	int r;

	if (!parent || !name || !*name || strchr(name, '/') || name[0] == '.')
		return;
	g->cgroup = cgroup_new(s, g->number);
	r = g->cgroup ? cgroup_open(parent->fd, name, &g->cgroup->fd) : -ENOMEM;
	if (r >= 0) {
		g->cgroup->name = strdup(name);
		r = g->cgroup->name ? 0 : -ENOMEM;
	}
	if (r < 0) {
		g->cgroup = generation_cgroup_free(g->cgroup);
		return;
	}
	/* Whoever was killed until now was told of by the daemon before us. */
	g->cgroup->oom_kills = cgroup_oom_kills(g->cgroup->fd);
	/* They may have been taken away while nobody was there: cgroups_make_room(). */
	apply_limits(s, g);
}

const char *generation_cgroup_name(const struct manager_generation *g)
{
	return g->cgroup ? g->cgroup->name : NULL;
}

static void stop_waiting(struct generation_cgroup *c)
{
	if (c->events)
		sd_event_source_disable_unref(c->events);
	if (c->timer)
		sd_event_source_disable_unref(c->timer);
	c->events = c->timer = NULL;
	c->events_fd = close_fd(c->events_fd);
}

struct generation_cgroup *generation_cgroup_free(struct generation_cgroup *c)
{
	if (!c)
		return NULL;
	stop_waiting(c);
	c->fd = close_fd(c->fd);
	/* Who is still in it is looked for again once a minute: cgroups_sweep(). */
	if (c->name && !c->service->manager->detached)
		(void)cgroup_remove(c->service->manager->cgroups->fd, c->name);
	free(c->name);
	free(c);
	return NULL;
}

/* --- workers in it -------------------------------------------------------- */

static void worker_name(char ret[static 16], unsigned worker)
{
	snprintf(ret, 16, "%u", worker);
}

int generation_cgroup_spawn(const struct manager_generation *g, unsigned worker,
	struct spawn_request *request, struct spawn_result *ret)
{
	_cleanup_close_ int fd = -1;
	char name[16];
	int r;

	worker_name(name, worker);
	r = g->cgroup ? cgroup_make(g->cgroup->fd, name, &fd) : 0;
	if (r < 0)
		log_warning("%s: worker %u of generation %u gets no cgroup: %s",
			g->cgroup->service->name, worker, g->number, strerror(-r));
	request->cgroup_fd = fd;
	r = spawn_process(request, ret);
	if (r >= 0 || fd < 0 || ret->failed_at != SPAWN_CGROUP)
		return r;
	log_warning("%s: worker %u of generation %u cannot be put into its cgroup: %s",
		g->cgroup->service->name, worker, g->number, strerror(-r));
	request->cgroup_fd = -1;
	return spawn_process(request, ret);
}

void generation_cgroup_kill(const struct manager_generation *g, unsigned worker)
{
	_cleanup_close_ int fd = -1;
	char name[16];

	worker_name(name, worker);
	if (g && g->cgroup && cgroup_open(g->cgroup->fd, name, &fd) >= 0)
		(void)cgroup_kill(fd);
}

void generation_cgroup_kill_all(const struct manager_generation *g)
{
	if (g && g->cgroup && cgroup_populated(g->cgroup->fd) > 0)
		(void)cgroup_kill(g->cgroup->fd);
}

/* --- its end -------------------------------------------------------------- */

bool generation_cgroup_is_populated(const struct manager_generation *g)
{
	return g->cgroup && cgroup_populated(g->cgroup->fd) > 0;
}

static void is_empty(struct generation_cgroup *c)
{
	struct service_event empty = {.kind = EVENT_EMPTY, .generation = c->generation};

	stop_waiting(c);
	/* It may free us. */
	(void)manager_service_event(c->service, &empty);
}

/* "sleep (pid 12), logger (pid 13) and 4 more" */
static char *describe(const pid_t *pids, size_t n)
{
	char *text = NULL;

	for (size_t i = 0; i < n && i < NAMES_MAX; i++) {
		_cleanup_free_ char *name = NULL;
		char *longer;

		(void)process_name(pids[i], &name);
		longer = xasprintf("%s%s%s (pid %d)", text ? text : "", text ? ", " : "",
			name ? name : "a process", (int)pids[i]);
		free(text);
		text = longer;
	}
	if (text && n > NAMES_MAX) {
		char *longer = xasprintf("%s and %zu more", text, n - NAMES_MAX);

		free(text);
		text = longer;
	}
	return text;
}

static void end_now(struct generation_cgroup *c)
{
	_cleanup_free_ pid_t *pids = NULL;
	_cleanup_free_ char *who = NULL;
	size_t n = 0;

	if (cgroup_processes(c->fd, &pids, &n) >= 0 && n > 0 && !c->reported) {
		who = describe(pids, n);
		manager_report(c->service->manager, c->service, c->generation, NO_WORKER,
			LOG_WARNING, "strays-killed",
			"%s: generation %u left %zu process%s behind, killed: %s", c->service->name,
			c->generation, n, n == 1 ? "" : "es", who ? who : "?");
		c->reported = true;
	}
	(void)cgroup_kill(c->fd);
}

static int on_events(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct generation_cgroup *c = userdata;
	char text[64];

	(void)source;
	(void)revents;
	/* Or it would be told again. */
	(void)!pread(fd, text, sizeof(text), 0);
	if (cgroup_populated(c->fd) <= 0)
		is_empty(c);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct generation_cgroup *c = userdata;

	(void)usec;
	if (cgroup_populated(c->fd) <= 0) {
		is_empty(c);
		return 0;
	}
	end_now(c);
	(void)sd_event_source_set_time_relative(source, KILL_AGAIN_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int wait_for_end(struct generation_cgroup *c)
{
	sd_event *event = c->service->manager->event;
	int r = cgroup_watch(c->fd, &c->events_fd);

	if (r >= 0)
		r = sd_event_add_io(event, &c->events, c->events_fd, EPOLLPRI, on_events, c);
	if (r >= 0)
		r = sd_event_source_set_priority(c->events, PRIORITY_CHILD);
	if (r >= 0)
		r = sd_event_add_time_relative(
			event, &c->timer, CLOCK_MONOTONIC, MOMENT_USEC, 1, on_timer, c);
	return r < 0 ? r : sd_event_source_set_priority(c->timer, PRIORITY_TIMER);
}

void generation_cgroup_end(struct manager_service *s, unsigned generation)
{
	const struct service_event empty = {.kind = EVENT_EMPTY, .generation = generation};
	const struct manager_generation *g = manager_service_generation(s, generation);
	struct generation_cgroup *c = g ? g->cgroup : NULL;
	int r;

	if (c && c->events)
		return;
	/* The watch before the look, so that nothing is missed. */
	r = c ? wait_for_end(c) : 0;
	if (r < 0)
		log_warning("%s: generation %u: its cgroup cannot be watched: %s", s->name,
			generation, strerror(-r));
	if (c && r >= 0 && cgroup_populated(c->fd) > 0)
		return;
	if (c)
		stop_waiting(c);
	manager_service_queue_event(s, &empty);
}

/* --- figures -------------------------------------------------------------- */

bool generation_cgroup_was_short(struct manager_generation *g)
{
	uint64_t n = g && g->cgroup ? cgroup_oom_kills(g->cgroup->fd) : UINT64_MAX;

	if (n == UINT64_MAX)
		return false;
	/* It begins anew with another controller. */
	g->cgroup->oom_kills = MIN(g->cgroup->oom_kills, n);
	if (n == g->cgroup->oom_kills)
		return false;
	/* Another's may be told with the next. */
	g->cgroup->oom_kills++;
	return true;
}

bool generation_cgroup_figures(
	const struct manager_generation *g, struct cgroup_figures *ret, char **ret_path)
{
	if (!g->cgroup)
		return false;
	*ret_path = xasprintf("%s/%s", g->cgroup->service->manager->cgroups->path, g->cgroup->name);
	cgroup_read_figures(g->cgroup->fd, ret);
	return true;
}

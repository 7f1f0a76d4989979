/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/strays.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/parse.h"
#include "daemon/log.h"
#include "daemon/worker_process.h"
#include "sys/process.h"

/* Does it descend from a worker that lives? */
static bool has_owner(const struct manager *m, pid_t pid)
{
	pid_t self = getpid();

	while (pid > 1 && pid != self) {
		if (manager_is_worker(m, pid))
			return true;
		if (process_parent(pid, &pid) < 0)
			return false;
	}
	return false;
}

static bool belongs_to(pid_t pid, const char *service, unsigned generation)
{
	_cleanup_free_ char *name = NULL, *number = NULL;
	unsigned n;

	return process_environment(pid, "TENURE_SERVICE", &name) >= 0 && streq(name, service) &&
	       process_environment(pid, "TENURE_GENERATION", &number) >= 0 &&
	       parse_uint(number, 0, UINT32_MAX, &n) >= 0 && n == generation;
}

static bool lane_is_used(const struct service *core, unsigned lane)
{
	for (size_t i = 0; i < core->n_generations; i++)
		if (core->generations[i]->lane == lane)
			return true;
	return false;
}

static bool end(struct manager *m, pid_t pid, const char *service)
{
	_cleanup_free_ char *name = NULL;

	if (has_owner(m, pid))
		return false;
	(void)process_name(pid, &name);
	if (kill(pid, SIGKILL) < 0)
		return false;
	log_warning("%s%skilled %s (pid %d), which a worker had left behind",
		service ? service : "", service ? ": " : "", name ? name : "a process", (int)pid);
	return true;
}

/* Those of workers that an earlier daemon started are nobody's descendants: known by their
 * environment. */
static int find_strangers(const struct manager *m, pid_t **ret, size_t *ret_n)
{
	if (!m->restored || !m->instance[0])
		return -ENOENT;
	return process_find_by_environment("TENURE_INSTANCE", m->instance, ret, ret_n);
}

unsigned strays_kill(struct manager *m, const char *service, unsigned generation)
{
	_cleanup_free_ pid_t *pids = NULL, *strangers = NULL;
	unsigned killed = 0;
	size_t n = 0;

	/* The first is ourselves. */
	if (process_descendants(getpid(), false, &pids, &n) >= 0)
		for (size_t i = 1; i < n; i++)
			if (!service || belongs_to(pids[i], service, generation))
				killed += end(m, pids[i], service);
	n = 0;
	if (find_strangers(m, &strangers, &n) >= 0)
		for (size_t i = 0; i < n; i++)
			if (!process_is_zombie(strangers[i]) &&
				(!service || belongs_to(strangers[i], service, generation)))
				killed += end(m, strangers[i], service);
	return killed;
}

/* Does its generation still have workers? */
static bool has_generation(const struct manager *m, pid_t pid)
{
	for (size_t i = 0; i < m->n_services; i++)
		for (size_t k = 0; k < m->services[i]->n_generations; k++)
			if (belongs_to(pid, m->services[i]->name,
				    m->services[i]->generations[k]->number))
				return true;
	return false;
}

/* Commands of readiness and verify: whoever asks for them again has others. */
void strays_kill_checks(const struct manager *m)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;

	if (!m->instance[0] ||
		process_find_by_environment("TENURE_CHECK", m->instance, &pids, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		(void)kill(pids[i], SIGKILL);
}

unsigned strays_kill_orphaned(struct manager *m)
{
	_cleanup_free_ pid_t *pids = NULL;
	unsigned killed = 0;
	size_t n = 0;

	if (find_strangers(m, &pids, &n) < 0)
		return 0;
	for (size_t i = 0; i < n; i++)
		if (!has_generation(m, pids[i]) && !process_is_zombie(pids[i]))
			killed += end(m, pids[i], NULL);
	/* They may have held sockets of any lane that is free now. */
	for (size_t i = 0; killed > 0 && i < m->n_services; i++)
		for (unsigned id = 0; id < ARRAY_SIZE(m->services[i]->listeners); id++)
			for (unsigned lane = 0;
				m->services[i]->listeners[id] && lane <= CONFIG_GENERATIONS_MAX + 1;
				lane++)
				if (!lane_is_used(&m->services[i]->core, lane))
					listener_taint_lane(m->services[i]->listeners[id], lane);
	return killed;
}

/* False: there are no children. */
static bool reap(void)
{
	siginfo_t info;

	for (;;) {
		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) < 0)
			return errno != ECHILD;
		if (info.si_pid == 0)
			return true;
	}
}

void strays_end(struct manager *m)
{
	enum { KILL_AFTER_MSEC = 20, GIVE_UP_AFTER_MSEC = 1000 };
	const struct timespec msec = {.tv_nsec = 1000000};

	if (m->restored)
		(void)strays_kill(m, NULL, 0);
	for (unsigned i = 0; reap() && i < GIVE_UP_AFTER_MSEC; i++) {
		if (i == KILL_AFTER_MSEC)
			(void)strays_kill(m, NULL, 0);
		(void)nanosleep(&msec, NULL);
	}
}

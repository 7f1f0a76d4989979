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

unsigned strays_kill(struct manager *m, const char *service, unsigned generation)
{
	_cleanup_free_ pid_t *pids = NULL;
	unsigned killed = 0;
	size_t n;

	if (process_descendants(getpid(), false, &pids, &n) < 0)
		return 0;
	/* The first is ourselves. */
	for (size_t i = 1; i < n; i++) {
		_cleanup_free_ char *name = NULL;

		if (has_owner(m, pids[i]) || (service && !belongs_to(pids[i], service, generation)))
			continue;
		(void)process_name(pids[i], &name);
		if (kill(pids[i], SIGKILL) < 0)
			continue;
		log_warning("%s%skilled %s (pid %d), which a worker had left behind",
			service ? service : "", service ? ": " : "", name ? name : "a process",
			(int)pids[i]);
		killed++;
	}
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

	for (unsigned i = 0; reap() && i < GIVE_UP_AFTER_MSEC; i++) {
		if (i == KILL_AFTER_MSEC)
			(void)strays_kill(m, NULL, 0);
		(void)nanosleep(&msec, NULL);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What KillMode=process leaves alive is wanted by the next daemon, and by nobody when there will be
 * none: systemd.service(5), ExecStopPost=. */
#include <fcntl.h>
#include <signal.h>
#include <time.h>

#include "base/util.h"
#include "daemon/cgroup.h"
#include "daemon/log.h"
#include "daemon/unit_job.h"
#include "sys/cgroup.h"
#include "sys/process.h"

enum { TERM_MSEC = 2000, KILL_MSEC = 5000, STEP_MSEC = 20 };

/* Is somebody going to take over what there is? */
static bool goes_on(void)
{
	const char *result = getenv("SERVICE_RESULT");

	switch (unit_job()) {
	case UNIT_JOB_RESTART:
		return true;
	case UNIT_JOB_STOP:
		return false;
	case UNIT_JOB_UNKNOWN:
	case UNIT_JOB_NONE:
	case UNIT_JOB_OTHER:
	default:
		/* What failed by itself is started again by Restart=. */
		return result && !streq(result, "success");
	}
}

static bool has_variable(pid_t pid, const char *name)
{
	_cleanup_free_ char *value = NULL;

	return process_environment(pid, name, &value) >= 0;
}

static bool is_among(pid_t pid, const pid_t *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == pid)
			return true;
	return false;
}

/* Send the signal (0: none) to all in the unit's cgroup but us and the unit's own commands.
 * variable: only to those that were started with an environment variable of this name, or NULL. How
 * many there are, or -errno. */
static int signal_all(const char *cgroup, const char *variable, int signal)
{
	_cleanup_close_ int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC), control = -1;
	_cleanup_free_ pid_t *pids = NULL, *commands = NULL;
	size_t n_pids = 0, n_commands = 0;
	int r = fd < 0 ? -errno : cgroup_processes(fd, &pids, &n_pids), n = 0;

	/* After the whole: of those that it has, none is missed. */
	if (r >= 0) {
		r = cgroup_open(fd, CGROUP_CONTROL, &control);
		r = r >= 0	   ? cgroup_processes(control, &commands, &n_commands)
		    : r == -ENOENT ? 0
				   : r;
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_pids; i++) {
		if (pids[i] == getpid() || is_among(pids[i], commands, n_commands) ||
			(variable && !has_variable(pids[i], variable)))
			continue;
		n++;
		if (signal != 0)
			(void)kill(pids[i], signal);
	}
	return n;
}

/* How many are left after at most that time. variable: as above. */
static int end_them(const char *cgroup, const char *variable, int signal, unsigned msec)
{
	const struct timespec step = {.tv_nsec = STEP_MSEC * 1000000L};
	int n = 0;

	for (unsigned waited = 0; waited <= msec; waited += STEP_MSEC) {
		/* Whoever was forked meanwhile is told to end too; for SIGTERM once is enough. */
		n = signal_all(cgroup, variable, waited == 0 || signal == SIGKILL ? signal : 0);
		if (n <= 0)
			break;
		(void)nanosleep(&step, NULL);
	}
	return n;
}

/* Politely, then not. How many are left, or -errno. */
static int end_all(const char *cgroup, const char *variable)
{
	int n = cgroup ? end_them(cgroup, variable, SIGTERM, TERM_MSEC) : -ENOENT;

	if (n > 0) {
		log_warning("%d processes of workers that were left do not end, and are killed", n);
		n = end_them(cgroup, variable, SIGKILL, KILL_MSEC);
	}
	return n;
}

/* Not a session's, a container's or the whole machine's: there SERVICE_RESULT would be somebody's
 * mistake, and everything would be ended. */
static bool is_units(const char *cgroup)
{
	static const char suffix[] = ".service";
	size_t len = strlen(cgroup), n = sizeof(suffix) - 1;

	return unit_is_main_process() || (len > n && streq(cgroup + len - n, suffix));
}

int unit_reap(void)
{
	_cleanup_free_ char *cgroup = NULL;
	int n;

	if (!getenv("SERVICE_RESULT")) {
		log_error("reap is for ExecStopPost= in the unit of tenured");
		return EXIT_FAILURE;
	}
	cgroup = cgroups_unit();
	if (cgroup && !is_units(cgroup)) {
		log_error("reap is for ExecStopPost= in the unit of tenured, and %s is no unit's "
			  "control group: nothing is done",
			cgroup);
		return EXIT_FAILURE;
	}
	if (cgroup)
		cgroups_make_room(cgroup);
	if (goes_on())
		return EXIT_SUCCESS;
	n = end_all(cgroup, NULL);
	if (n == 0)
		return EXIT_SUCCESS;
	if (n < 0)
		log_error("what is left of workers cannot be found: %s", strerror(-n));
	else
		log_error("%d processes of workers cannot be ended", n);
	return EXIT_FAILURE;
}

void unit_end_leftovers(void)
{
	/* Only workers: who else is there may belong to a command before us. */
	static const char variable[] = "TENURE_SERVICE";
	_cleanup_free_ char *cgroup = unit_is_main_process() ? cgroups_unit() : NULL;
	int n = cgroup ? signal_all(cgroup, variable, 0) : 0;

	if (n <= 0)
		return;
	log_warning(
		"%d processes of workers are left of an earlier daemon, and systemd has not kept "
		"its sockets; they are ended",
		n);
	(void)end_all(cgroup, variable);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What KillMode=process leaves alive is wanted by the next daemon, and by nobody when there will be
 * none: systemd.service(5), ExecStopPost=. */
#include <time.h>

#include "base/util.h"
#include "daemon/cgroup.h"
#include "daemon/log.h"
#include "daemon/unit_job.h"
#include "sys/cgroup_members.h"

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

/* How many are left after at most that time. variable: see cgroup_signal_members(). */
static int end_them(const char *cgroup, const char *variable, int signal, unsigned msec)
{
	const struct timespec step = {.tv_nsec = STEP_MSEC * 1000000L};
	int n = 0;

	for (unsigned waited = 0; waited <= msec; waited += STEP_MSEC) {
		/* Whoever was forked meanwhile is told to end too; for SIGTERM once is enough. */
		n = cgroup_signal_members(cgroup, CGROUP_CONTROL, variable,
			waited == 0 || signal == SIGKILL ? signal : 0);
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
	int n = cgroup ? cgroup_signal_members(cgroup, CGROUP_CONTROL, variable, 0) : 0;

	if (n <= 0)
		return;
	log_warning(
		"%d processes of workers are left of an earlier daemon, and systemd has not kept "
		"its sockets; they are ended",
		n);
	(void)end_all(cgroup, variable);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What systemd is doing with the unit that we run in: org.freedesktop.systemd1(5). */
#pragma once

enum unit_job {
	UNIT_JOB_UNKNOWN, /* not run by systemd, or it does not answer */
	UNIT_JOB_NONE,
	UNIT_JOB_RESTART, /* stopped only to be started again */
	UNIT_JOB_OTHER,	  /* stop, and what else there is */
};

/* Waits for the answer, a few seconds at most. */
enum unit_job unit_job(void);
/* `tenured reap`, for ExecStopPost=: end the processes that are left of the unit, unless they are
 * for the next daemon: it is being restarted, or has failed and will be. An exit status. */
int unit_reap(void);

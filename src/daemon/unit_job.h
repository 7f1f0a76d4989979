/* SPDX-License-Identifier: Apache-2.0 */
/* What systemd is doing with the unit that we run in: org.freedesktop.systemd1(5). */
#pragma once

#include "base/util.h"

enum unit_job {
	UNIT_JOB_UNKNOWN, /* not run by systemd, or it does not answer */
	UNIT_JOB_NONE,
	UNIT_JOB_RESTART, /* stopped only to be started again */
	UNIT_JOB_STOP,
	UNIT_JOB_OTHER, /* start, also of one that died before it was ready; reload ... */
};

/* Waits for the answer, five seconds at most in all. */
enum unit_job unit_job(void);
/* Are we the process that systemd has started for the unit (or for one of its commands), and not
 * one that has inherited its environment? */
bool unit_is_main_process(void);
/* FileDescriptorStoreMax= of the unit; 0 or -errno. Waits two seconds at most. */
int unit_store_max(unsigned *ret);
/* Is `tenured reap` among its ExecStopPost=? 1, 0, or -errno. Waits as long. */
int unit_has_reap(void);
/* `tenured reap`, for ExecStopPost=: end the processes that are left of the unit, unless they are
 * for the next daemon: it is being restarted, or has failed and will be. An exit status. */
int unit_reap(void);
/* Before anything is bound, when systemd has given nothing back: what workers are left in our unit
 * (it was stopped while there was no daemon that could end them) have its sockets. They are ended.
 */
void unit_end_leftovers(void);

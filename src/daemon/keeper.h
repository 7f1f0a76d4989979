/* SPDX-License-Identifier: Apache-2.0 */
/* `tenured --keeper`: a small parent process that does for the daemon what systemd does elsewhere.
 * It is what `tenured` and `tenured run` are where nobody else is there to do it.
 *
 *     keeper (pid 1 of a container, or any)      holds descriptors, starts, reaps, passes signals
 * on
 *       `- daemon                                 everything else; may die at any moment
 *            `- workers                           become the keeper's children then, and serve on
 *
 * It holds what the daemon sends it with FDSTORE=1 (sd_notify(3)) and gives all of it back to the
 * next one as LISTEN_FDS, together with the sockets that came with its own start. Its notify socket
 * has an abstract, random name; only the daemon is listened to, whom the kernel names in each
 * message's credentials. Understood: READY, STOPPING, RELOADING, STATUS, WATCHDOG, WATCHDOG_USEC,
 * EXTEND_TIMEOUT_USEC, MAINPID, FDSTORE, FDNAME, FDSTOREREMOVE, BARRIER. All that is stored is held
 * as if with FDPOLL=0. What a caller with a NOTIFY_SOCKET of its own should know is passed on to
 * it.
 *
 * When the daemon is started again, what a signal means, with which status all of this ends: that
 * is decided in core/keep.h. The daemon knows its keeper by $TENURE_KEEPER, the keeper's pid.
 *
 * Memory: the keeper touches neither the configuration nor the event loop nor JSON, and frees all
 * that it needed for a start. So it needs none of the daemon's libraries either, and `tenured
 * --keeper` becomes the small program tenured-keeper (keeper_main.c) where that is found; otherwise
 * it is the keeper itself. */
#pragma once

#include "base/util.h"

enum keeper_choice {
	KEEPER_AUTO, /* unless there is one already: $NOTIFY_SOCKET is set */
	KEEPER_YES,  /* also then */
	KEEPER_NO,
};

/* Is this process to be a keeper? Never below another keeper, and not after an exec of the
 * daemon's.
 */
bool keeper_is_wanted(enum keeper_choice choice);
/* keeper_begin.c: be one, as tenured-keeper if it is beside our own program or is `installed`, else
 * as we are. argv: the daemon's command line, the same as ours. The exit status. */
int keeper_begin(char *const *argv, const char *installed, int log_level);
/* Start the daemon, the program at path with these arguments, and keep it until it ends for good;
 * or go on with the one that an earlier image of this process had started (keeper_exec.h). whole:
 * the own command line, for another image. The exit status; log_init() was called. */
int keeper_run(const char *path, char *const *argv, char *const *whole);
/* In the daemon: its keeper's pid, 0 when it has none (systemd is none of ours), or it is gone. */
pid_t keeper_pid(void);

/* SPDX-License-Identifier: Apache-2.0 */
/* Most servers remove the path of their Unix socket when they end, although others serve it by
 * then. No file can be kept from that without an error in the server, so it is put back: tenured
 * does so, but it may have to wait for its turn on a busy machine, and may not ask for better (its
 * unit has no realtime). Who calls tenurectl as root may. A process of its own, for as long as that
 * is needed: it does nothing but that. inotify(7), sched(7), linkat(2). */
#pragma once

#include "ctl/live_sockets.h"

struct path_guard {
	pid_t pid; /* 0: there is none */
	int fd;	   /* without a word through this it ends with us */
};

/* The paths of these sockets, until their process has ended. Without paths there is nothing to do;
 * where it is not possible tenured does it alone: there are no errors. */
void path_guard_begin(struct path_guard *g, const struct live_sockets *s);
/* The process is being ended: it goes on alone until that is so. */
void path_guard_leave(struct path_guard *g);
/* No more of it, unless it was left. */
void path_guard_done(struct path_guard *g);
#define _cleanup_path_guard_ _cleanup_(path_guard_done)

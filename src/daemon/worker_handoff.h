/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker is started with: which descriptors under which numbers, and what its environment
 * and arguments say of them. How conventions are spoken is core/dialect.h. */
#pragma once

#include "daemon/worker_process.h"
#include "daemon/worker_store.h"
#include "sys/spawn.h"

/* The listeners' descriptors (twice, where the first is on standard input too), 0-2, what was
 * stored for it, the one to say that it is ready, its channel, and nothing else. */
enum { SPAWN_FDS_MAX = CONFIG_LISTENERS_MAX + WORKER_STORE_MAX + 6 };

struct worker_handoff {
	struct spawn_fd fds[SPAWN_FDS_MAX]; /* sources borrowed, but for ready_fd and channel_fd */
	size_t n_fds;
	int next;	  /* the first number that is free behind all of them */
	int ready_fd;	  /* the worker's end, closed with this; -1: none */
	int ready_number; /* its number there */
	int channel_fd;	  /* the worker's end, closed with this; -1: none */
	char **environment;
	char **argv; /* NULL: the snapshot's */
};
#define WORKER_HANDOFF_NULL                                                                        \
	{                                                                                          \
		.ready_fd = -1, .channel_fd = -1                                                   \
	}
void worker_handoff_done(struct worker_handoff *h);
#define _cleanup_handoff_ _cleanup_(worker_handoff_done)

/* Everything but its output. p has its notify socket; it gets its end of the descriptor on which
 * the worker says that it is ready, when it has one. 0 or -errno with a message. */
int worker_handoff_prepare(struct worker_process *p, const struct manager_generation *g,
	struct worker_handoff *ret, struct error *ret_error);
/* The sockets that this worker listens on, as the service has them, in the order of its listeners.
 * ret: room for CONFIG_LISTENERS_MAX. 0 or -errno with a message. */
int worker_handoff_sockets(struct worker_process *p, const struct manager_generation *g, int *ret,
	struct error *ret_error);

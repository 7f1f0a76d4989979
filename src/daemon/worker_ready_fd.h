/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptor on which a worker says that it is ready, for programs that were written for s6
 * (notification-fd), dinit (pipefd, pipevar) or einhorn (EINHORN_SOCK_FD). Our end lives as long as
 * the process, is read to the end, and outlives the daemon as the notify socket does. */
#pragma once

#include "daemon/worker_handoff.h"

/* Make it, if the configuration asks for one, and put it into h. 0 or -errno. */
int worker_ready_fd_open(
	struct worker_process *p, const struct service_config *c, struct worker_handoff *h);
/* Watch our end, if there is one. 0 or -errno. */
int worker_ready_fd_watch(struct worker_process *p);
/* An earlier daemon's, by its number in the store. */
void worker_ready_fd_restore(struct worker_process *p, unsigned number);
/* Close it; unless the next daemon has it. */
void worker_ready_fd_done(struct worker_process *p);
/* The worker has said that it is ready. */
void worker_ready_fd_said(struct worker_process *p);

/* SPDX-License-Identifier: Apache-2.0 */
/* Taking over a server that runs already and was started by somebody else. Its listening sockets
 * and a pidfd of it are handed to us; it becomes a generation of its service, with all the
 * connections, that is replaced by a rollout as any other. As long as it has not been replaced it
 * is not ours to end: a rollout that fails, a stop, and the daemon's own end let go of it, and of
 * its sockets as they came. pidfd_open(2), unix(7). */
#pragma once

#include "daemon/manager.h"

struct activation_socket;
struct listener_config;

struct adopt_request {
	pid_t pid;		 /* the process, or of several the one that leads the others */
	const int *fds;		 /* a pidfd of it, then its sockets; borrowed */
	size_t n_fds;		 /* at least 2 */
	int signal;		 /* that has it end gracefully; 0: as configured */
	const struct peer *peer; /* who asks */
	const char *requested_by;
};

/* Check all of it, and begin. The rollout that follows is that to generation
 * s->core.last_number. 0, SERVICE_E_*, or -errno with a message; then nothing has changed. */
int adopt_begin(
	struct manager_service *s, const struct adopt_request *request, struct error *ret_error);
/* For listener.c while that is done: is there a socket for this listener? Take it: the caller's.
 * -ENOENT or -ENOMEM. */
bool adopt_has(const struct manager_service *s, const struct listener_config *c);
int adopt_take(
	struct manager_service *s, const struct listener_config *c, struct activation_socket **ret);
/* A worker's process has ended. If it was the adopted one its sockets are ours now. */
void adopt_ended(struct manager_service *s, unsigned generation);

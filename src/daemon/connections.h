/* SPDX-License-Identifier: Apache-2.0 */
/* How many live connections a generation or a worker still has. The kernel only has a list of all
 * the machine's connections, which takes milliseconds to walk, so one look serves for many. */
#pragma once

#include "daemon/manager.h"

/* All zero: not looked yet. */
struct connections {
	uint64_t *inodes;
	size_t n;
	bool looked;
	bool known; /* false: too many, no sock_diag, or they are such as cannot be told */
};

/* Those of all listeners of the service. */
void connections_look(const struct manager_service *s, struct connections *ret);
/* How many of them the workers of g have; -1: cannot be known. */
int connections_of(const struct connections *c, const struct manager_generation *g);
/* How many TCP connections p has; -1: cannot be known. Looks only when p has sockets that may be
 * connections, and when *c was not looked yet. */
int connections_of_worker(
	const struct manager_service *s, const struct worker_process *p, struct connections *c);
/* Back to not looked yet. */
void connections_done(struct connections *c);

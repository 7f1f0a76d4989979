/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that workers leave behind: those that left their group (setsid, double fork) become our
 * children, because we are their subreaper. prctl(2). */
#pragma once

#include "daemon/manager.h"

/* Kill the descendants of ours that belong to no live worker and whose environment names that
 * service and generation (service NULL: all that belong to no live worker). Those that changed
 * their environment's memory are not found until the end: best effort. Returns how many were
 * killed. */
unsigned strays_kill(struct manager *m, const char *service, unsigned generation);
/* After a restore: kill what earlier daemon's workers left behind of generations that are gone, and
 * have the sockets that it may have held replaced. Returns how many were killed. */
unsigned strays_kill_orphaned(struct manager *m);
/* After a restore, before anything is begun: end the commands of readiness and verify that an
 * earlier daemon had begun. */
void strays_kill_checks(const struct manager *m);
/* At the daemon's end, when there is no worker any more: wait for those that are dying, end the
 * rest, and wait for these, a second at most. */
void strays_end(struct manager *m);

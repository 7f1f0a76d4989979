/* SPDX-License-Identifier: Apache-2.0 */
/* Live restore: going on with the work of a daemon that died, was stopped with on_terminate:
 * detach, or replaced itself. Its workers have served on; everything else is in the store: what
 * there was to know in the state (state_save.h), the descriptors with the keeper (store.h).
 *
 * What is found is checked against what is: sockets by their address, processes by pidfd, or by pid
 * and start time. A worker that was spawned and not yet written down is found by its notify socket
 * in /proc/PID/environ; one that ended meanwhile is told to the core as if it had ended now. Rules
 * for what was under way are in core/service.h, service_resume().
 *
 * The configuration on disk is not applied: that the daemon died is no reason to deploy what may be
 * half edited. Services, `control` and `on_terminate` are as they were, until somebody reloads. A
 * file with errors does not keep the daemon from going on.
 *
 * A state that cannot be used (damaged, of a newer version) is refused as a whole; then
 * restore_blind() keeps clients served while everything is started again. */
#pragma once

#include "daemon/manager.h"

/* Was anything passed to this process that it can go on with? To be asked before anything was
 * taken. */
bool restore_is_possible(const struct activation *received);
/* Take everything back; m has no services yet. config may be NULL when the file could not be used.
 * 1: done, call restore_resume() before the loop runs; 0: there is nothing to go on with; -errno
 * with a message: the state cannot be used, and nothing of it was. */
int restore_manager(struct manager *m, struct error *ret_error);
/* The machines go on: what was to be done is done. */
void restore_resume(struct manager *m);

/* restore_service.c: a service of that name, from its records, into m. 0, -ENOMEM or -EBADMSG (a
 * part may be there then). */
int restore_service(struct manager *m, const char *name, const json_t *values);
/* restore_worker.c: the process of a worker, from its record. Its generation is there. 0, -ENOMEM
 * or -EBADMSG. */
int worker_restore(
	struct manager_service *s, unsigned generation, unsigned index, const json_t *value);
/* Watch it, or find it, now that all are known; it may end or be told that it has ended. */
void worker_restore_finish(struct worker_process *p);
/* listener_restore.c: a listener's record. NULL: out of memory. */
json_t *listener_save(const struct listener *l);
/* s->listeners[id] from it. Its service's workers are there. 0, -ENOMEM
 * or -EBADMSG. */
int listener_restore(struct manager_service *s, unsigned id, const json_t *value);
/* Could it be? No descriptor is needed or touched. 0, -ENOMEM or -EBADMSG. */
int listener_restore_check(const json_t *value);
/* When nobody else's sockets are in its group any more: see what became of its own meanwhile, and
 * watch them. It may be gone then (logged), when it can neither be taken back nor made anew. 0 or
 * -errno. */
int listener_restore_finish(struct listener *l);

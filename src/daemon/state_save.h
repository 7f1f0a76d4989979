/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon knows, written into the store so that the next one can go on with it (restore.h).
 * The records, all JSON objects:
 *
 *   m                 the manager: names of the services in order, control and on_terminate of the
 *                     configuration, boot id, numbers that must not be used again
 *   s/SERVICE/core    struct service: who serves, the rollout, recycling
 *   s/SERVICE/steps   of its rollout
 *   s/SERVICE/meta    configurations, history, what waits, the last failure
 *   s/SERVICE/stored  what workers had stored, with its descriptors' numbers
 *   s/SERVICE/gN      generation N: core's part, who asked for it, its snapshot's number
 *   s/SERVICE/wN.I    worker I of it: core's part, its process, its descriptors' numbers
 *   s/SERVICE/pN      a snapshot, with its descriptors' numbers
 *   s/SERVICE/lN      listener N: configuration, the kernel's array as it should be, strangers in
 * it
 *
 * Written is only what differs from what was written before; for workers that is found by comparing
 * memory, so that a step of a service with a thousand of them stays cheap. */
#pragma once

#include "daemon/manager.h"

/* The intent: before anything that the core's step asks for is done, and wherever the order of what
 * happens matters. Nothing where there is no keeper. */
void state_save_service(struct manager_service *s);
/* Everything that has changed, soon, from the event loop. For what is not urgent. */
void state_save_later(struct manager *m);
/* Everything that has changed, now. */
void state_save_all(struct manager *m);
/* manager_service.changed or manager.changed, and state_save_later(). */
void manager_service_changed(struct manager_service *s);
void manager_changed(struct manager *m);
/* The service is gone, and so are its records. */
void state_forget_service(struct manager_service *s);
/* Nothing of the service is in the state: the next time everything is written. */
void state_save_anew(struct manager_service *s);
struct saved_service *saved_service_free(struct saved_service *saved);
/* It is not what was saved any more. */
void state_snapshot_changed(struct manager_service *s, const struct snapshot *snap);
/* restore.c: a snapshot that is in the state already, under snap->number. */
/* A generation with so many workers is, too: should it be forgotten before it is saved again, so
 * are its records. 0 or -ENOMEM. */
int state_generation_is_saved(struct manager_service *s, unsigned number, unsigned n_workers);
int state_snapshot_is_saved(struct manager_service *s, const struct snapshot *snap,
	unsigned directory, unsigned executable);

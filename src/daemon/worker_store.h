/* SPDX-License-Identifier: Apache-2.0 */
/* What workers ask to be kept for them: sd_notify(3), FDSTORE=1, FDNAME=, FDPOLL=0,
 * FDSTOREREMOVE=1, or the same by their channel (wire/channel.h). Kept for the worker's place, and
 * passed on from generation to generation:
 *
 *   - each generation has a view of its own: which of the descriptors are there for its worker of
 *     that place. A new one begins with the view of the one that serves;
 *   - whoever is started there gets what is in the view, after its listeners (LISTEN_FDS,
 *     LISTEN_FDNAMES); who runs already, and reads its channel, gets what comes later by that;
 *   - what is stored goes into the storer's view and into those of later generations; of one that
 *     had served and was rolled back, into that of the one that serves now;
 *   - what is removed leaves the storer's view, and those of later ones that have not got it yet;
 *   - a view ends with its generation: so nothing of a failed upgrade is left, and nothing is
 *     missing in the old one's. When that serves again after the new one did, it gets the new one's
 *     view.
 *
 * A descriptor that is in no view any more, hangs up (unless FDPOLL=0), or whose place or service
 * is gone, is closed. The keeper holds it, too. */
#pragma once

#include "daemon/manager.h"
#include "sys/notify_socket.h"
#include "sys/spawn.h"
#include "wire/notify.h"

enum {
	WORKER_STORE_MAX = 1024,       /* of one place, in one view */
	WORKER_STORE_TOTAL_MAX = 4096, /* of one service */
	/* Bytes of their names, in the one variable that tells them at a start. */
	WORKER_STORE_NAMES_MAX = 65536,
};

struct worker_store; /* NULL: nothing was ever stored */

/* As a message of that worker asks; takes the datagram's descriptors (those that are not stored are
 * closed with it). */
void worker_store_handle(struct manager_service *s, unsigned generation, unsigned index,
	const struct notify_message *m, struct notify_datagram *d);
/* What a worker that is about to be started gets, numbered from number on, and their names behind
 * names (":a:b", owned by the caller, NULL when there are none). ret: room for room of them, at
 * most WORKER_STORE_MAX; what does not fit is there for its channel. Returns how many, or -ENOMEM.
 */
int worker_store_list(struct manager_service *s, unsigned generation, unsigned index, int number,
	size_t room, struct spawn_fd *ret, char **ret_names);
/* Those of one name that a running worker has not got yet; fds: room for max, borrowed. *ret_name
 * is borrowed. 0: there are none. Say that it has got them by worker_store_given(). */
size_t worker_store_next(const struct manager_service *s, unsigned generation, unsigned index,
	int *fds, size_t max, const char **ret_name);
void worker_store_given(
	struct manager_service *s, unsigned generation, unsigned index, const int *fds, size_t n);
/* A new generation begins, beside the one that serves. */
void worker_store_begin(struct manager_service *s, unsigned generation);
/* After each event: views of generations and places that are gone end, and who serves again gets
 * what the other one had. */
void worker_store_tidy(struct manager_service *s);
/* The service has stopped. */
void worker_store_clear(struct manager_service *s);
struct worker_store *worker_store_free(struct manager_service *s);

/* For the next daemon: has it changed since it was saved; the value; and back. 0, -ENOMEM or
 * -EBADMSG. */
bool worker_store_changed(const struct manager_service *s);
json_t *worker_store_save(struct manager_service *s);
/* Numbers for those that have none, for an exec of ours (store.h). */
void worker_store_lend(struct manager_service *s);
int worker_store_restore(struct manager_service *s, const json_t *value);

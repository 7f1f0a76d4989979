/* SPDX-License-Identifier: Apache-2.0 */
/* What workers ask to be kept for them: sd_notify(3), FDSTORE=1, FDNAME=, FDPOLL=0,
 * FDSTOREREMOVE=1. Kept for the worker's place, not for its process: whoever is started there next,
 * of whatever generation, gets it after its listeners (LISTEN_FDS, LISTEN_FDNAMES). Until it is
 * removed, hangs up (unless FDPOLL=0), the place is gone, or the service has stopped. The keeper
 * holds it, too. */
#pragma once

#include "daemon/manager.h"
#include "sys/notify_socket.h"
#include "sys/spawn.h"
#include "wire/notify.h"

enum {
	WORKER_STORE_MAX = 64,	       /* of one place */
	WORKER_STORE_TOTAL_MAX = 4096, /* of one service */
};

struct worker_store; /* NULL: nothing was ever stored */

/* As the message asks; takes the datagram's descriptors (those that are not stored are closed with
 * it). */
void worker_store_handle(struct manager_service *s, unsigned index, const struct notify_message *m,
	struct notify_datagram *d);
/* Those of a place, numbered from number on, and their names behind names (":a:b", owned by the
 * caller, NULL when there are none). ret: room for WORKER_STORE_MAX. Returns how many, or -ENOMEM.
 */
int worker_store_list(const struct manager_service *s, unsigned index, int number,
	struct spawn_fd *ret, char **ret_names);
/* Places from n on are gone. */
void worker_store_trim(struct manager_service *s, unsigned n);
struct worker_store *worker_store_free(struct manager_service *s);

/* For the next daemon: has it changed since it was saved; the value; and back. 0, -ENOMEM or
 * -EBADMSG. */
bool worker_store_changed(const struct manager_service *s);
json_t *worker_store_save(struct manager_service *s);
/* Numbers for those that have none, for an exec of ours (store.h). */
void worker_store_lend(struct manager_service *s);
int worker_store_restore(struct manager_service *s, const json_t *value);

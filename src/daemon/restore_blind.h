/* SPDX-License-Identifier: Apache-2.0 */
/* When the saved state cannot be used: nobody knows any more which socket has which place, and
 * which process is which worker. But the sockets are there, and who serves them. So services are
 * started as the configuration says, on sockets that join those that are there; new connections
 * wait in these from the first moment on until the new workers are ready; the old ones finish what
 * they have, settle and end. No connection is refused or reset, but for those that the old workers
 * leave behind.
 *
 * Sockets that cannot have others beside them (Unix, `steering: off`) are taken over as they are.
 */
#pragma once

#include <jansson.h>

#include "daemon/manager.h"

struct blind;

/* Take what the store has, before services are made. 0 or -ENOMEM. *ret: NULL when there is
 * nothing. */
int blind_new(struct manager *m, struct blind **ret);
/* For the state: what is still there, should this daemon die as well. NULL for NULL. */
json_t *blind_save(const struct blind *b);
/* m->blind again, from that; nothing if there is none. 0 or -ENOMEM (a part may be there then). */
int blind_restore(struct manager *m, const json_t *record);
/* Lets go of everything at once. Returns NULL. */
struct blind *blind_free(struct blind *b);
/* The daemon ends, and nobody is to go on with it: the workers are told to end, and waited for, a
 * few seconds at most. NULL is fine. */
void blind_end(struct blind *b);
/* The services have been started, or could not be: see to the end of what was before. Also if that
 * has begun already. */
void blind_begin(struct blind *b);
/* Does the daemon still have sockets of that address from before? NULL has none. */
bool blind_has(const struct blind *b, const struct address *a);
/* One of them, to be used as it is: fd, the caller's; -1: there is none. */
int blind_take(struct blind *b, const struct address *a);

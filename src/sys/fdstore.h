/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper, who holds our descriptors while we are gone: systemd with FileDescriptorStoreMax=, or
 * `tenured --keeper`. Both are told by sd_notify(3) messages to $NOTIFY_SOCKET, and give everything
 * back to the next daemon as LISTEN_FDS and LISTEN_FDNAMES (sys/activation.h). Neither answers:
 * what the keeper has no room for is simply not there the next time. */
#pragma once

#include "base/util.h"

struct fdstore {
	int fd; /* connected to $NOTIFY_SOCKET; -1: there is no keeper */
};

#define FDSTORE_NULL ((struct fdstore){-1})

/* 1: there is one; 0: $NOTIFY_SOCKET is not set, or of a kind that carries no descriptors; -errno.
 */
int fdstore_open(struct fdstore *ret);
void fdstore_done(struct fdstore *s);
/* None of these waits, but for the last two: -EAGAIN, the keeper has not read what it was told, and
 * there is no room for more. Where the socket at that address is another one by now (the service
 * manager was replaced), they connect to that; s->fd changes then. -ECONNREFUSED, -ENOENT: nobody
 * is there any more.
 *
 * FDSTORE=1 with FDPOLL=0: the keeper does not look at it, so that dead pidfds and sockets that do
 * not listen stay. name: no colon, no control characters. The keeper's copy is the same open file
 * description as ours. */
int fdstore_push(struct fdstore *s, int fd, const char *name);
/* FDSTOREREMOVE=1: everything of that name. */
int fdstore_remove(struct fdstore *s, const char *name);
/* Whatever else sd_notify(3) has: lines of "KEY=value". */
int fdstore_tell(struct fdstore *s, const char *text);
/* The same with a descriptor beside it. */
int fdstore_tell_with(struct fdstore *s, const char *text, int fd);
/* Wait until there is room again. 0, or -ETIMEDOUT. */
int fdstore_wait(const struct fdstore *s, uint64_t timeout_usec);
/* Wait until the keeper has done all of the above. -ETIMEDOUT. sd_notify_barrier(3). */
int fdstore_barrier(struct fdstore *s, uint64_t timeout_usec);

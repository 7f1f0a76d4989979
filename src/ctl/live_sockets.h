/* SPDX-License-Identifier: Apache-2.0 */
/* The listening sockets of a process that runs: pidfd_open(2), pidfd_getfd(2), with the caller's
 * own rights. */
#pragma once

#include <sys/types.h>

#include "base/address.h"
#include "base/error.h"
#include "ctl/client.h"

struct live_sockets {
	struct client_fds fds;			  /* a pidfd, then sockets */
	struct address addresses[CLIENT_FDS_MAX]; /* of those, from 1 on */
};
void live_sockets_done(struct live_sockets *s);
#define _cleanup_live_sockets_ _cleanup_(live_sockets_done)

/* All of them, or those at that address (NULL: all); and of bound datagram sockets. 0 or -errno
 * with a message: -ESRCH, -EPERM, -ENOENT (no such socket: it says which there are), -E2BIG (more
 * than fit) ... */
int live_sockets_of(
	pid_t pid, const struct address *at, struct live_sockets *ret, struct error *ret_error);

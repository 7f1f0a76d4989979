/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors over Unix sockets (SCM_RIGHTS) and who is at the other end. unix(7). */
#pragma once

#include <sys/types.h>

#include "base/util.h"

struct peer {
	pid_t pid; /* as it connected; 0 when it is not in our pid namespace */
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* supplementary; owned */
	size_t n_groups;
};
void peer_done(struct peer *p);
#define _cleanup_peer_ _cleanup_(peer_done)
/* SO_PEERCRED and SO_PEERGROUPS. -ENODATA: not a connected Unix socket. */
int peer_of(int fd, struct peer *ret);
/* As its primary or a supplementary group. */
bool peer_in_group(const struct peer *p, gid_t gid);

/* The kernel's own limit for one message. */
enum { FDPASS_MAX = 253 };
/* sendmsg(2) of a stream with descriptors beside the bytes; SIGPIPE is not raised. len must not be
 * 0. When fewer bytes than len were taken the descriptors have gone with them, and the rest is sent
 * without. Bytes, or -errno (-EAGAIN: nothing was sent, no descriptor either). */
ssize_t fdpass_send(int socket, const void *data, size_t len, const int *fds, size_t n_fds);
/* recvmsg(2), as blocking as the socket is. Descriptors are CLOEXEC and the caller's; at most
 * max_fds are kept, others closed. Returns bytes, 0 at the end, -errno. */
ssize_t fdpass_receive(
	int socket, void *data, size_t len, int *fds, size_t max_fds, size_t *ret_n_fds);
/* Closing what somebody else has made must not keep us waiting for its peer (SO_LINGER): what is
 * still to be sent goes on its way in the background. For as long as we have it nobody's close
 * waits, so that this takes nothing from its owner. */
void fdpass_forget_linger(int fd);

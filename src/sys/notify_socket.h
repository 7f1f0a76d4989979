/* SPDX-License-Identifier: Apache-2.0 */
/* One sd_notify socket per worker: sd_notify(3). An abstract-named datagram socket (workers share
 * our network namespace), with SO_PASSCRED. */
#pragma once

#include <sys/types.h>

#include "base/util.h"

/* *ret_fd: receiving end, non-blocking; *ret_address: what NOTIFY_SOCKET shall be ("@tenured/..."),
 * the caller frees. The name is unguessable (random) and bound at once. */
int notify_socket_open(int *ret_fd, char **ret_address);

/* The same under a name of an earlier one, for a process that still has it: the fd, or -EADDRINUSE.
 */
int notify_socket_reopen(const char *address);

enum { NOTIFY_FDS_MAX = 253, NOTIFY_MESSAGE_MAX = 4096 };
struct notify_datagram {
	pid_t pid; /* SCM_CREDENTIALS of the sender; 0 when it is not in our pid namespace */
	uid_t uid;
	char data[NOTIFY_MESSAGE_MAX + 1]; /* NUL after len bytes; may have other NULs */
	size_t len;
	bool truncated; /* the message was longer, or descriptors were lost (our limit of them) */
	int fds[NOTIFY_FDS_MAX]; /* CLOEXEC, owned by the caller: notify_datagram_close() */
	size_t n_fds;
};
/* 0, -EAGAIN, or -errno. Nothing needs to be closed but after 0. */
int notify_socket_receive(int fd, struct notify_datagram *ret);
void notify_datagram_close(struct notify_datagram *d);

/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to the kernel about sockets that are not ours, over NETLINK_SOCK_DIAG. sock_diag(7). No
 * privilege needed. One netlink socket is kept by the caller and may be shared by all calls; every
 * call takes all of its answer, so nothing is left for the next one. */
#pragma once

#include "base/address.h"

/* A CLOEXEC netlink socket, or -errno: -EAFNOSUPPORT under seccomp without AF_NETLINK,
 * -EPROTONOSUPPORT where the kernel has no tcp_diag. */
int sockdiag_open(void);

enum sockdiag_accept_state {
	SOCKDIAG_ABSENT = 0, /* no such connection (any more) */
	SOCKDIAG_HANDSHAKE,  /* SYN_RECV: not yet in an accept queue */
	SOCKDIAG_QUEUED,     /* established, nobody accepted it yet (inode 0) */
	SOCKDIAG_ACCEPTED,   /* some process accepted it */
};
/* The server side of one TCP connection: local = server's address and port, peer = client's (as a
 * getsockname and getpeername of the client's socket swapped). IPv4 clients on dual-stack sockets:
 * as the client sees them (AF_INET), or mapped. ret_inode: the accepted socket's inode, for
 * SOCKDIAG_ACCEPTED; 0 there when it was accepted and is closed again, but still lingers in the
 * kernel. Returns enum sockdiag_accept_state or -errno. An exact look-up, not a dump: microseconds.
 */
int sockdiag_connection(
	int nl, const struct address *local, const struct address *peer, uint64_t *ret_inode);

/* Established (and closing) TCP connections whose local port is port: their inodes (0 = not
 * accepted), into a growing array the caller frees. family: that of the listening socket, whose
 * connections have the same also when a dual-stack one accepts IPv4; AF_UNSPEC: both, which takes
 * twice the time. Those that their process has
 * closed are left out. Bounded: keeps max entries, then *ret_truncated is set. A walk over all the
 * machine's connections: about 14 ms for 10,000. */
int sockdiag_connections(int nl, int family, unsigned port, size_t max, uint64_t **ret_inodes,
	size_t *ret_n, bool *ret_truncated);

struct sockdiag_listener {
	uid_t uid;
	uint64_t inode;
	struct address address;
	unsigned queue, queue_max;
};
/* Listening TCP sockets with that local port, both families; port 0: all of them (for "the worker
 * listens on its own port"). The caller frees the array. At most SOCKDIAG_LISTENERS_MAX. */
enum { SOCKDIAG_LISTENERS_MAX = 65536 };
int sockdiag_listeners(int nl, unsigned port, struct sockdiag_listener **ret, size_t *ret_n);

/* The accept queue of a listening Unix socket, by socket_inode(). -ENOENT. */
int sockdiag_unix_queue(int nl, uint64_t inode, unsigned *ret_queue, unsigned *ret_queue_max);

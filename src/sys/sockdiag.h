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
/* The same when the server's socket is bound to an interface (SO_BINDTODEVICE), by its index: its
 * connections are found by no other. */
int sockdiag_connection_on(int nl, const struct address *local, const struct address *peer,
	unsigned interface, uint64_t *ret_inode);

/* All connections of the machine (of this network namespace), a piece at a time, for callers that
 * must not be kept long. With each its own netlink socket, apart from all else. */
struct sockdiag_dump {
	int fd;
	uint8_t *buf;
	bool is_unix;
};
/* One connection, as its local end is seen. */
struct sockdiag_entry {
	uint64_t inode;	  /* of the socket; 0: nobody has accepted it yet */
	uint64_t cookie;  /* the kernel's name of it, also before that; not 0 */
	uint16_t port;	  /* TCP */
	int tag;	  /* TCP: listen_tag() of the socket it came to; -1: not known */
	const char *name; /* Unix: as sun_path, not terminated; borrowed for the call */
	size_t name_len;
};
/* Negative ends the dump and is its result. */
typedef int (*sockdiag_entry_fn)(const struct sockdiag_entry *e, void *userdata);
/* TCP, both families: those whose process has not closed them. port: only of this local port; 0:
 * all. A piece takes about 0.3 ms if most sockets of the machine are in the answer. The kernel
 * passes those that are not at 0.1 to 0.3 us each without a pause, and looks into its table of
 * connections, which takes about a millisecond even when it is empty. waiting: connections in
 * TIME_WAIT count for what is answered (they are not given to the function). */
int sockdiag_dump_tcp(unsigned port, bool waiting, struct sockdiag_dump *ret);
/* Connected Unix stream and seqpacket sockets that have a name: accepted ones have that of the
 * socket they came from. Not those that still wait in its queue. */
int sockdiag_dump_unix(struct sockdiag_dump *ret);
/* The next piece. 1: there is more; 0: that was all; -errno. */
int sockdiag_dump_step(struct sockdiag_dump *d, sockdiag_entry_fn function, void *userdata);
void sockdiag_dump_done(struct sockdiag_dump *d);
/* About how many TCP sockets there are to pass, those in TIME_WAIT too. */
int sockdiag_tcp_total(size_t *ret_total);

struct sockdiag_listener {
	uid_t uid;
	uint64_t inode;
	struct address address;
	unsigned queue, queue_max;
	unsigned interface; /* it is bound to, SO_BINDTODEVICE; 0: none */
	int v6only;	    /* of IPv6; -1: not told */
	bool connected;	    /* UDP: it has a peer */
};
/* Listening TCP sockets with that local port, both families; port 0: all of them (for "the worker
 * listens on its own port"). The caller frees the array. At most SOCKDIAG_LISTENERS_MAX. */
enum { SOCKDIAG_LISTENERS_MAX = 65536 };
int sockdiag_listeners(int nl, unsigned port, struct sockdiag_listener **ret, size_t *ret_n);
/* The same for bound UDP sockets, connected ones included. -EPROTONOSUPPORT or -ENOENT: the kernel
 * has no udp_diag. */
int sockdiag_datagrams(int nl, unsigned port, struct sockdiag_listener **ret, size_t *ret_n);

/* The accept queue of a listening Unix socket, by socket_inode(). -ENOENT. */
int sockdiag_unix_queue(int nl, uint64_t inode, unsigned *ret_queue, unsigned *ret_queue_max);
/* The file that it was bound to, wherever that is by now: the lower half of st_ino, which is all
 * that the kernel tells. -ENOENT; -EBADMSG: it has none. */
int sockdiag_unix_file(int nl, uint64_t inode, uint32_t *ret_ino);

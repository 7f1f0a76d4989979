/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets: made, joined into SO_REUSEPORT groups, watched, given up. socket(7), tcp(7),
 * ip(7), ipv6(7), unix(7). All descriptors are CLOEXEC, and non-blocking unless asked; nothing here
 * changes the status flags of a socket that workers serve. */
#pragma once

#include <linux/filter.h>

#include "base/address.h"
#include "base/sockopt.h"

struct listen_options {
	/* As workers expect it from a socket they are given: O_NONBLOCK is not set, like systemd's
	 * NonBlocking=no and every pre-forking server. Most that want the other set it. */
	bool blocking;
	unsigned backlog; /* used by listen_open_unix() alone; TCP says it in listen_start() */
	bool v6only;
	const struct sockopt *options; /* of TCP and UDP: set before bind; borrowed */
	size_t n_options;
	size_t *ret_refused; /* set to the index of the option that was refused, else left alone; or
				NULL */
	mode_t mode;	     /* Unix path: applied when mode_set, else 0777 less the umask */
	bool mode_set;
	uid_t owner; /* Unix path: (uid_t)-1 leaves it */
	gid_t group;
	uid_t socket_uid; /* uid the group needs: fchown() before bind; (uid_t)-1: ours */
};

/* The first socket of an own TCP or UDP listener: bound WITHOUT SO_REUSEPORT, so that a stranger on
 * the port gives -EADDRINUSE instead of a silent share; then SO_REUSEPORT is set. The program, when
 * filter is given, governs it from its first connection or datagram on. TCP is not listening yet:
 * call listen_start(). UDP is live, and has its place in the array, when it is bound. Port 0:
 * the kernel chooses one, see socket_address(). Returns the fd or -errno. */
int listen_open_first(
	const struct address *a, const struct listen_options *o, const struct sock_fprog *filter);
/* A further member of that group: SO_REUSEPORT before bind. TCP is not listening yet; UDP takes the
 * next place in the array. fd or -errno; -EADDRINUSE also when the group belongs to another uid. */
int listen_open_member(const struct address *a, const struct listen_options *o);
/* listen(2): a TCP socket gets its place at the end of the group's array now. Also changes the
 * backlog of one that listens, and revives one that was shut down (at the END of the array).
 * Nothing to do for datagram sockets: 0. */
int listen_start(int fd, unsigned backlog);
/* A Unix socket of any type. Mode and owner are right before it answers. Where the path exists it
 * is bound beside it and renamed over it when it listens already, so that no client ever finds the
 * path missing; getsockname(2) then keeps the name beside it. Where nothing is there it is bound
 * directly. Missing parent directories are not made. A path that is not a socket (a symbolic link
 * neither) is -EEXIST; a socket on which somebody answers is -EADDRINUSE, one we may not ask is
 * -EACCES. Abstract names are bound directly. Listening, unless datagram. fd or -errno. */
int listen_open_unix(const struct address *a, const struct listen_options *o);
/* Who listens on that Unix socket, as of their listen(2). Connects to it for a moment. *ret_pid: 0
 * when they are in a namespace that we do not see. -errno of connect(2). */
int listen_unix_holder(const struct address *a, pid_t *ret_pid, uid_t *ret_uid);
/* Which file the path is now, to be recorded right after listen_open_unix(). -ENOENT; abstract:
 * -EOPNOTSUPP. */
int listen_path_identity(const struct address *a, dev_t *ret_dev, ino_t *ret_ino);
/* Workers may remove a path that they think is theirs. This gives its file, as recorded, a second
 * name in the same directory (".NAME.tenured"), and makes the path again from that name when it is
 * gone: 1, else 0. -ESTALE when something else is at the path, -ENOENT when both names are gone, or
 * -errno. Abstract: -EOPNOTSUPP. */
int listen_keep_path(const struct address *a, dev_t dev, ino_t ino);
/* Remove the path, and the second name, if it is still that file: 0, -ENOENT, or -ESTALE when
 * something else is there. Call it while the socket is open: as long as it lives its inode cannot
 * be given to another file. Abstract: 0. */
int listen_unlink(const struct address *a, dev_t dev, ino_t ino);
/* Remove the second name alone. 0 or -errno. */
int listen_drop_spare(const struct address *a, dev_t dev, ino_t ino);

/* Replace the steering program of the group fd belongs to / take it away (0 also when none was
 * attached). SO_ATTACH_REUSEPORT_CBPF. -EINVAL: fd is in no group (a listening socket after
 * listen_make_group() is one when the second member has joined) or the program is not a valid one.
 */
int listen_steer(int fd, const struct sock_filter *filter, size_t n);
int listen_unsteer(int fd);
/* Make a socket that was bound without it a group: sets SO_REUSEPORT. It is the array's number 0
 * when the next one joins, and can be steered from then on. */
int listen_make_group(int fd);
/* The reverse, for a socket that is to be as it was: SO_REUSEPORT is not set any more. It must be
 * its group's only member. 0 or -errno. */
int listen_leave_group(int fd);
/* Is SO_REUSEPORT set? 0, 1 or -errno. A socket for which it was set before bind(2), or listen(2)
 * of TCP, is a group by itself, and can be steered at once. */
int listen_is_group(int fd);
/* Mark a listening TCP socket with a number below LISTEN_TAGS: the connections that come to it have
 * it too, from their begin (struct sockdiag_entry). 0: as an ordinary one. 0 or -errno. */
enum { LISTEN_TAGS = 8 };
int listen_tag(int fd, unsigned tag);
/* Does an IPv6 socket take no IPv4? False for others. */
bool listen_is_v6only(int fd);
/* Drop whatever arrives for the socket itself (SO_ATTACH_FILTER, else IP_MINTTL), or no longer. A
 * TCP client whose SYN was dropped sends another a second later; datagrams are lost. 0 or -errno.
 */
int listen_hold_back(int fd, bool hold);

struct listen_state {
	bool accepting;	    /* SO_ACCEPTCONN; a datagram socket: nobody has shut it down, or
			       connected it, for all who hold it */
	unsigned queue;	    /* connections waiting in the accept queue; UDP: 1 when at least one
			       datagram waits */
	unsigned queue_max; /* queue may be one more when full; UDP: 0 */
};
/* TCP_INFO of a held socket (tcpi_unacked, tcpi_sacked), under a microsecond. Unix sockets:
 * -EOPNOTSUPP for the queue (accepting is set; sockdiag_unix_queue() knows it). */
int listen_query(int fd, struct listen_state *ret);
/* How many connections (SYNs, too) or datagrams the kernel has dropped since the socket was made,
 * mostly because its queue was full: SO_MEMINFO. Wraps at 2^32. -EOPNOTSUPP with TCP_DEFER_ACCEPT,
 * where what is dropped is no connection. 0 or -errno. */
int listen_dropped(int fd, unsigned *ret);
/* Wake every waiter once, harmlessly: shutdown(SHUT_WR) on a listening socket changes nothing else.
 * Datagram sockets are left alone (they could not send any more). -ENOTCONN when it does not
 * listen. */
int listen_nudge(int fd);
/* From now on no new connection is begun at it: who tries waits, and tries again. Those that are
 * being set up go on, and what is queued is not touched. A UDP socket takes no more datagrams. A
 * Unix socket cannot be kept from it: take its path away. 0 or -errno. SO_ATTACH_FILTER in
 * socket(7). */
int listen_begin_no_more(int fd);
/* End a lane's socket for every holder: what is queued is reset, the socket leaves the group.
 * A UDP socket is connected to a port nobody uses, so that whoever holds it gets nothing more.
 * Takes the fd (-1: nothing). */
void listen_shutdown_take(int *fd);
/* Accept and reset (SO_LINGER 0) up to max waiting connections of a socket nobody serves; datagrams
 * are discarded. Never blocks; for that a blocking socket is made non-blocking for the moment, the
 * one exception of this file: who serves it all the same may see an EAGAIN. Nothing is touched when
 * the queue is empty. Returns how many of them a client was still waiting for, or -errno. */
int listen_reset_queue(int fd, unsigned max);
/* The device-independent identity of a socket: its inode, as /proc/PID/fd shows it. */
int socket_inode(int fd, uint64_t *ret);
int socket_cookie(int fd, uint64_t *ret);
/* Where it is bound (getsockname) and of which kind. -EAFNOSUPPORT for other families. */
int socket_address(int fd, struct address *ret);

/* Does attach and order work on this kernel as the model expects? A throw-away group on loopback:
 * attach before listen, two members, steer to each in turn, close one, check the move. 0, or -errno
 * / -ENOTSUP when the order is not as expected. Bounded to 2 s. */
int listen_selftest(void);
/* Does a UDP socket leave its group's array when it is connected? 1 (Linux 6.13 and later), 0 (it
 * keeps its place if it was bound to a specific address), or -errno. Asked on loopback. */
int listen_connected_leaves(void);

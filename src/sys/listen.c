/* SPDX-License-Identifier: Apache-2.0 */
/* Two rules explain most of this file. A socket that others may hold as well is never given other
 * status flags: O_NONBLOCK belongs to the open file description that all holders share. And a
 * socket is fit for traffic (options, owner, steering) before the first connection can reach it,
 * not a moment after. */
#include "sys/listen.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <poll.h>
#include <sys/stat.h>

#include "sys/listen_options.h"

static int set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int get_option(int fd, int level, int option, int *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, level, option, ret, &len) < 0 ? -errno : 0;
}

/* All that must be said before bind(2). */
static int open_inet(const struct address *a, const struct listen_options *o)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (address_is_unix(a))
		return -EINVAL;
	fd = socket(address_family(a),
		address_socket_type(a) | SOCK_CLOEXEC | (o->blocking ? 0 : SOCK_NONBLOCK), 0);
	if (fd < 0)
		return -errno;

	/* On UDP it would be a silent share, as SO_REUSEPORT is. */
	if (a->kind == ADDRESS_TCP) {
		r = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
		if (r < 0)
			return r;
	}
	if (address_family(a) == AF_INET6) {
		r = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, o->v6only);
		if (r < 0)
			return r;
	}
	r = listen_options_set(fd, o->options, o->n_options, o->ret_refused);
	if (r < 0)
		return r;
	if (o->socket_uid != (uid_t)-1 && fchown(fd, o->socket_uid, (gid_t)-1) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int attach(int fd, const struct sock_fprog *filter)
{
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, filter, sizeof(*filter)) < 0
		       ? -errno
		       : 0;
}

/* A socket that did not ask for its port by number loses it when it is shut down, and would be
 * revived on another. So have the kernel choose one, and ask for that. */
static int open_first_anywhere(
	const struct address *a, const struct listen_options *o, const struct sock_fprog *filter)
{
	int r = -EADDRINUSE;

	for (int i = 0; i < 16 && r == -EADDRINUSE; i++) {
		_cleanup_close_ int fd = open_inet(a, o);
		struct address chosen;

		if (fd < 0)
			return fd;
		if (bind(fd, &a->sa, a->len) < 0)
			return -errno;
		r = socket_address(fd, &chosen);
		if (r < 0)
			return r;
		fd = close_fd(fd);
		r = listen_open_first(&chosen, o, filter);
	}
	return r;
}

int listen_open_first(
	const struct address *a, const struct listen_options *o, const struct sock_fprog *filter)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (!address_is_unix(a) && address_port(a) == 0)
		return open_first_anywhere(a, o, filter);
	fd = open_inet(a, o);
	if (fd < 0)
		return fd;

	/* The group, to which the program belongs, is made by attaching it to a socket that the
	 * kernel's look-up tables do not know yet: TCP until listen(2), UDP only until bind(2). */
	if (filter && a->kind == ADDRESS_UDP) {
		r = listen_make_group(fd);
		if (r < 0)
			return r;
		r = attach(fd, filter);
		if (r < 0)
			return r;
		r = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 0);
		if (r < 0)
			return r;
	}
	if (bind(fd, &a->sa, a->len) < 0)
		return -errno;
	r = listen_make_group(fd);
	if (r < 0)
		return r;
	if (filter && a->kind == ADDRESS_TCP) {
		r = attach(fd, filter);
		if (r < 0)
			return r;
	}
	return TAKE_FD(fd);
}

int listen_open_member(const struct address *a, const struct listen_options *o)
{
	_cleanup_close_ int fd = open_inet(a, o);
	int r;

	if (fd < 0)
		return fd;
	r = listen_make_group(fd);
	if (r < 0)
		return r;
	if (bind(fd, &a->sa, a->len) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Packets with a smaller TTL are dropped. 255: those of nearly everybody, who begin with 64 or 128.
 * ip(7). */
static int set_least_ttl(int fd, int ttl)
{
	int r4 = set_option(fd, IPPROTO_IP, IP_MINTTL, ttl);
	int r6 = set_option(fd, IPPROTO_IPV6, IPV6_MINHOPCOUNT, ttl);

	/* A socket of IPv6 has both. */
	return r4 < 0 && r6 < 0 ? r4 : 0;
}

int listen_hold_back(int fd, bool hold)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = {.len = 1, .filter = &nothing};
	int unused = 0, r;

	if (hold)
		r = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
	else
		r = setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
	/* Some kernels keep filters, not those that steer, from ordinary users. */
	if (r < 0 && errno == (hold ? EPERM : ENOENT))
		return set_least_ttl(fd, hold ? 255 : 0);
	return r < 0 ? -errno : 0;
}

int listen_leave_group(int fd)
{
	return set_option(fd, SOL_SOCKET, SO_REUSEPORT, 0);
}

int listen_is_group(int fd)
{
	int value, r = get_option(fd, SOL_SOCKET, SO_REUSEPORT, &value);

	return r < 0 ? r : value != 0;
}

/* By three options that mean nothing to a TCP socket that is bound, that connections inherit, and
 * that sock_diag(7) tells of each: a mark (SO_MARK) would take a privilege, and change routes. */
int listen_tag(int fd, unsigned tag)
{
	int r = set_option(fd, IPPROTO_IP, IP_MULTICAST_ALL, !(tag & 1));

	if (r >= 0)
		r = set_option(fd, IPPROTO_IP, IP_MULTICAST_LOOP, !(tag & 2));
	if (r >= 0)
		r = set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, (tag & 4) != 0);
	return r;
}

bool listen_is_v6only(int fd)
{
	int value;

	return get_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, &value) >= 0 && value != 0;
}

static int socket_type(int fd)
{
	int type, r;

	r = get_option(fd, SOL_SOCKET, SO_TYPE, &type);
	return r < 0 ? r : type;
}

int listen_start(int fd, unsigned backlog)
{
	int type = socket_type(fd);

	if (type < 0 || type == SOCK_DGRAM)
		return MIN(type, 0);
	return listen(fd, backlog > INT_MAX ? INT_MAX : (int)backlog) < 0 ? -errno : 0;
}

int listen_steer(int fd, const struct sock_filter *filter, size_t n)
{
	/* The kernel only reads it, but the structure's pointer is not const. */
	union {
		const struct sock_filter *in;
		struct sock_filter *out;
	} u = {.in = filter};
	struct sock_fprog program = {.len = (unsigned short)n, .filter = u.out};

	if (n == 0 || n > USHRT_MAX)
		return -EINVAL;
	return attach(fd, &program);
}

int listen_unsteer(int fd)
{
	int unused = 0;

	/* ENOENT: there is no program. EINVAL: there is no group, or none of a kernel's kind. */
	if (setsockopt(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &unused, sizeof(unused)) < 0 &&
		errno != ENOENT && errno != EINVAL)
		return -errno;
	return 0;
}

int listen_make_group(int fd)
{
	return set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
}

static bool is_connected(int fd)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	return getpeername(fd, (struct sockaddr *)&peer, &len) >= 0;
}

static int query_datagram(int fd, struct listen_state *ret)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
	bool down, waiting;
	char byte;

	if (poll(&p, 1, 0) < 0)
		return -errno;
	down = (p.revents & (POLLRDHUP | POLLHUP)) != 0;
	waiting = (p.revents & POLLIN) != 0;
	/* One that was shut down is always readable. */
	if (down)
		waiting = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
	*ret = (struct listen_state){.accepting = !down && !is_connected(fd), .queue = waiting};
	return 0;
}

int listen_query(int fd, struct listen_state *ret)
{
	struct tcp_info info;
	socklen_t len = offsetof(struct tcp_info, tcpi_lost);
	int accepting, r;

	r = get_option(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting);
	if (r < 0)
		return r;
	*ret = (struct listen_state){.accepting = accepting != 0};

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) >= 0) {
		/* In other states the two fields count segments. */
		if (accepting) {
			ret->queue = info.tcpi_unacked;
			ret->queue_max = info.tcpi_sacked;
		}
		return 0;
	}
	if (socket_type(fd) == SOCK_DGRAM)
		return query_datagram(fd, ret);
	return -EOPNOTSUPP;
}

int listen_dropped(int fd, unsigned *ret)
{
	uint32_t info[SK_MEMINFO_VARS] = {0};
	socklen_t len = sizeof(info);
	int deferred;

	/* Each acknowledgment that brought no data yet counts as dropped then. */
	if (get_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &deferred) >= 0 && deferred > 0)
		return -EOPNOTSUPP;
	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0)
		return -errno;
	if (len <= SK_MEMINFO_DROPS * sizeof(info[0]))
		return -EOPNOTSUPP;
	*ret = info[SK_MEMINFO_DROPS];
	return 0;
}

int listen_nudge(int fd)
{
	int accepting, type = socket_type(fd), r;

	if (type < 0 || type == SOCK_DGRAM)
		return MIN(type, 0);
	r = get_option(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting);
	if (r < 0)
		return r;
	if (!accepting)
		return -ENOTCONN;
	return shutdown(fd, SHUT_WR) < 0 ? -errno : 0;
}

int listen_begin_no_more(int fd)
{
	/* The filter sees the segment from its TCP header on: SYN, and no ACK with it. */
	static const struct sock_filter no_syn[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	static const struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
	int type = socket_type(fd);
	bool datagram = type == SOCK_DGRAM;
	struct sock_fprog program = {.len = datagram ? ARRAY_SIZE(nothing) : ARRAY_SIZE(no_syn)};
	const struct sock_filter *filter = datagram ? nothing : no_syn;
	struct address own;
	int r;

	if (type < 0)
		return type;
	r = socket_address(fd, &own);
	if (r < 0 || address_is_unix(&own))
		return r;
	memcpy(&program.filter, &filter, sizeof(filter)); /* the kernel only reads it */
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno
											   : 0;
}

/* shutdown(2) does not keep datagrams from an unconnected socket; a peer does. Its own address is
 * one that can be reached from it; the port is discard's. Where the address was a specific one
 * kernels before 6.13 leave a connected socket its place in the array; one whose device changes
 * has to go. */
static void retire_datagram(int fd)
{
	struct address own, peer;

	if (socket_address(fd, &own) < 0 || address_is_unix(&own))
		return;
	address_loopback_of(&own, &peer);
	if (address_family(&peer) == AF_INET)
		peer.in4.sin_port = htons(9);
	else
		peer.in6.sin6_port = htons(9);
	(void)connect(fd, &peer.sa, peer.len);
	(void)setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", sizeof("lo"));
}

void listen_shutdown_take(int *fd)
{
	if (*fd < 0)
		return;
	if (socket_type(*fd) == SOCK_DGRAM)
		retire_datagram(*fd);
	else
		(void)shutdown(*fd, SHUT_RDWR);
	*fd = close_fd(*fd);
}

/* Its client has closed it without a word: nobody is waiting there. */
static bool is_given_up(int connection)
{
	char byte;

	return recv(connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* 1: one less, which somebody was waiting for when *waited is set; 0: none is left. */
static int reset_one(int fd, bool datagram, bool *waited)
{
	static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
	_cleanup_close_ int connection = -1;

	*waited = datagram;
	if (datagram)
		return recv(fd, NULL, 0, MSG_DONTWAIT) >= 0;
	connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (connection < 0) {
		/* A connection that its client has given up is one less to reset. */
		if (errno == ECONNABORTED || errno == EINTR)
			return 1;
		/* EINVAL: it was shut down. */
		return errno == EAGAIN || errno == EINVAL ? 0 : -errno;
	}
	(void)setsockopt(connection, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	*waited = !is_given_up(connection);
	return 1;
}

/* What was reported about datagrams that were sent from it: nobody is there to read it. */
static void discard_errors(int fd)
{
	int error;

	for (int i = 0; i < 64; i++) {
		struct msghdr message = {.msg_name = NULL};

		if (recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			break;
	}
	(void)get_option(fd, SOL_SOCKET, SO_ERROR, &error);
}

int listen_reset_queue(int fd, unsigned max)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int flags, type, n_waited = 0, r = 1;

	if (poll(&p, 1, 0) < 0)
		return -errno;
	if (!(p.revents & (POLLIN | POLLERR)))
		return 0;
	type = socket_type(fd);
	flags = fcntl(fd, F_GETFL);
	if (type < 0 || flags < 0)
		return -errno;
	if (type == SOCK_DGRAM)
		discard_errors(fd);
	if (!(p.revents & POLLIN))
		return 0;
	/* accept(2) can be told not to wait in no other way, and somebody may take the connection
	 * before us. */
	if (type != SOCK_DGRAM && !(flags & O_NONBLOCK) &&
		fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	for (unsigned i = 0; r > 0 && i < MIN(max, (unsigned)INT_MAX); i++) {
		bool waited;

		r = reset_one(fd, type == SOCK_DGRAM, &waited);
		n_waited += r > 0 && waited;
	}
	if (type != SOCK_DGRAM && !(flags & O_NONBLOCK))
		(void)fcntl(fd, F_SETFL, flags);
	return r < 0 ? r : n_waited;
}

int socket_inode(int fd, uint64_t *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	*ret = st.st_ino;
	return 0;
}

int socket_cookie(int fd, uint64_t *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &len) < 0 ? -errno : 0;
}

int socket_address(int fd, struct address *ret)
{
	struct sockaddr_storage storage;
	socklen_t len = sizeof(storage);
	int type = socket_type(fd);

	if (type < 0)
		return type;
	if (getsockname(fd, (struct sockaddr *)&storage, &len) < 0)
		return -errno;
	return address_from_sockaddr(
		(const struct sockaddr *)&storage, MIN(len, (socklen_t)sizeof(storage)), type, ret);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/probe.h"

#include <netinet/tcp.h>
#include <poll.h>

#include "daemon/listener_options.h"
#include "sys/listen.h"
#include "sys/sockdiag.h"

static int bind_source(const struct address *to, struct probe *p)
{
	struct address from = *to;
	socklen_t len;
	int fd = socket(address_family(to), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (from.sa.sa_family == AF_INET)
		from.in4.sin_port = 0;
	else
		from.in6.sin6_port = 0;
	len = sizeof(from.storage);
	if (bind(fd, &from.sa, from.len) < 0 || getsockname(fd, &from.sa, &len) < 0) {
		int r = -errno;
		close_fd(fd);
		return r;
	}
	from.len = len;
	p->fd = fd;
	p->local = from;
	p->peer = *to;
	return 0;
}

static int add_rule(struct probe *p)
{
	uint8_t source[16] = {0};
	uint16_t port;
	int r;

	if (p->local.sa.sa_family == AF_INET) {
		memcpy(source, &p->local.in4.sin_addr, 4);
		port = ntohs(p->local.in4.sin_port);
	} else {
		memcpy(source, &p->local.in6.sin6_addr, 16);
		port = ntohs(p->local.in6.sin6_port);
	}
	r = listener_add_rule(p->listener, p->local.sa.sa_family, source, port, p->lane, p->slot);
	if (r < 0)
		return r;
	p->rule = (unsigned)r;
	return 0;
}

/* The wildcard [::] is reached by ::1, or by 127.0.0.1 where IPv6 is off. */
static int open_client(struct probe *p)
{
	struct address to;
	int r;

	listener_local_address(p->listener, &to);
	r = bind_source(&to, p);
	if (r < 0 && to.sa.sa_family == AF_INET6 &&
		address_is_wildcard(&p->listener->config.address) && !p->listener->config.v6only) {
		struct address v4 = {.kind = ADDRESS_TCP, .len = sizeof(v4.in4)};
		v4.in4.sin_family = AF_INET;
		v4.in4.sin_port = to.in6.sin6_port;
		v4.in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		r = bind_source(&v4, p);
	}
	return r;
}

int probe_begin(struct probe *p, struct listener *l, unsigned lane, unsigned slot)
{
	int r;

	*p = (struct probe){
		.listener = l, .fd = -1, .lane = lane, .slot = slot, .state = PROBE_WAITING};
	r = open_client(p);
	if (r >= 0)
		r = add_rule(p);
	if (r >= 0 && connect(p->fd, &p->peer.sa, p->peer.len) < 0 && errno != EINPROGRESS)
		r = -errno;
	if (r < 0)
		probe_done(p);
	return r;
}

/* With TCP_DEFER_ACCEPT, which a worker may have set as well, a connection on which nothing came is
 * in no queue. Its end is something, and disturbs a server less than any byte would. */
static bool is_deferred(const struct probe *p)
{
	int fd = listener_socket(p->listener, p->lane, p->slot), value = 0;
	socklen_t len = sizeof(value);

	return fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &value, &len) >= 0 &&
	       value > 0;
}

static void end_deferred(struct probe *p)
{
	struct pollfd client = {.fd = p->fd, .events = POLLOUT};

	if (p->ended || !is_deferred(p) || poll(&client, 1, 0) <= 0)
		return;
	p->ended = shutdown(p->fd, SHUT_WR) >= 0;
}

/* Whose connections these are, for the kernel's tables. A worker may have bound the socket, too. */
static unsigned interface_of(const struct probe *p)
{
	int fd = listener_socket(p->listener, p->lane, p->slot);
	int index = 0;
	socklen_t len = sizeof(index);

	if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, &len) >= 0 && index > 0)
		return (unsigned)index;
	return address_family(&p->peer) == AF_INET6 ? p->peer.in6.sin6_scope_id : 0;
}

enum probe_state probe_look(struct probe *p, int nl)
{
	struct pollfd poll_client = {.fd = p->fd, .events = POLLIN | POLLRDHUP};
	struct listen_state queue;
	int error = 0, r, fd;
	socklen_t len = sizeof(error);

	if (p->state != PROBE_WAITING || p->fd < 0)
		return p->state;
	if (poll(&poll_client, 1, 0) > 0) {
		(void)getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len);
		/* A reset comes from a queue that was thrown away; data or an end from somebody who
		 * accepted. */
		p->readable = true;
		p->state = error != 0 || (poll_client.revents & POLLERR) ? PROBE_FAILED
									 : PROBE_ACCEPTED;
		return p->state;
	}
	end_deferred(p);
	if (nl >= 0) {
		r = sockdiag_connection_on(nl, &p->peer, &p->local, interface_of(p), &p->inode);
		if (r == SOCKDIAG_ACCEPTED)
			p->state = PROBE_ACCEPTED;
		return p->state;
	}
	/* Without sock_diag: nobody else comes to this lane yet, so an empty queue means that ours
	 * was taken. */
	fd = listener_socket(p->listener, p->lane, p->slot);
	len = sizeof(error);
	poll_client.events = POLLOUT;
	if (fd >= 0 && poll(&poll_client, 1, 0) > 0 && (p->ended || !is_deferred(p)) &&
		listen_query(fd, &queue) >= 0 && queue.queue == 0)
		p->state = PROBE_ACCEPTED;
	return p->state;
}

void probe_done(struct probe *p)
{
	if (p->rule != 0)
		listener_drop_rule(p->listener, p->rule);
	p->rule = 0;
	p->fd = close_fd(p->fd);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A request is one netlink message; the answer is one message for a look-up, and any number of
 * them, in several datagrams, for a dump. Each message of an answer goes to a function that takes
 * from it what was asked for. */
#include "sys/sockdiag.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
#include <sys/time.h>
#include <time.h>

#define STATE(s) (1U << (s))

enum { RECEIVE_SIZE = 32 << 10, LISTENING = STATE(TCP_LISTEN) };

struct request {
	struct nlmsghdr header;
	union {
		struct inet_diag_req_v2 inet;
		struct unix_diag_req un;
	};
};

/* len: bytes of the message's payload. */
typedef int (*message_fn)(void *payload, size_t len, void *userdata);

static uint32_t new_sequence(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint32_t)t.tv_nsec ^ (uint32_t)t.tv_sec << 30;
}

static int send_request(int nl, struct request *request, size_t len, uint16_t flags)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	ssize_t n;

	request->header = (struct nlmsghdr){
		.nlmsg_len = (uint32_t)(NLMSG_HDRLEN + len),
		.nlmsg_type = SOCK_DIAG_BY_FAMILY,
		.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
		.nlmsg_seq = new_sequence(),
	};
	do
		n = sendto(nl, request, request->header.nlmsg_len, MSG_NOSIGNAL,
			(const struct sockaddr *)&kernel, sizeof(kernel));
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* What follows an item of that length. The macros for it trust the last one to be padded. */
static void *after(void *item, size_t len, size_t *left)
{
	size_t step = MIN(NLMSG_ALIGN((uint32_t)len), *left);

	*left -= step;
	return (uint8_t *)item + step;
}

/* 1: more is to come; 0: the end. */
static int take_message(struct nlmsghdr *h, bool dump, message_fn message, void *userdata)
{
	int r;

	if (h->nlmsg_type == NLMSG_DONE) {
		const int *error = NLMSG_DATA(h);

		return h->nlmsg_len < NLMSG_LENGTH(sizeof(*error)) ? 0 : MIN(*error, 0);
	}
	if (h->nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *e = NLMSG_DATA(h);

		if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*e)))
			return -EBADMSG;
		return MIN(e->error, 0);
	}
	if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return -EBADMSG;
	r = message(NLMSG_DATA(h), h->nlmsg_len - NLMSG_HDRLEN, userdata);
	return r < 0 ? r : dump;
}

/* The kernel answers while we send or receive, so nothing of this ever waits for anybody. An error
 * of message() does not end the reading: the rest would be taken for the next call's. */
static int ask(
	int nl, struct request *request, size_t len, bool dump, message_fn message, void *userdata)
{
	_Alignas(struct nlmsghdr) uint8_t buf[RECEIVE_SIZE];
	int r, result = 0;

	r = send_request(nl, request, len, dump ? NLM_F_DUMP : 0);
	if (r < 0)
		return r;
	for (;;) {
		struct nlmsghdr *h = (struct nlmsghdr *)buf;
		ssize_t n;

		n = recv(nl, buf, sizeof(buf), 0);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		for (size_t left = (size_t)n; NLMSG_OK(h, left);
			h = after(h, h->nlmsg_len, &left)) {
			if (h->nlmsg_seq != request->header.nlmsg_seq)
				continue;
			r = take_message(h, dump, message, userdata);
			if (r < 0 && result == 0)
				result = r;
			if (r == 0 || !dump || h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
				return result;
		}
	}
}

static int ignore_message(void *payload, size_t len, void *userdata)
{
	(void)payload;
	(void)len;
	(void)userdata;
	return 0;
}

int sockdiag_open(void)
{
	const struct timeval bound = {.tv_sec = 2};
	_cleanup_close_ int fd = -1;
	/* No state at all: only whether there is somebody to answer. */
	struct request request = {
		.inet = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP},
	};
	int r;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound)) < 0)
		return -errno;
	r = ask(fd, &request, sizeof(request.inet), true, ignore_message, NULL);
	if (r < 0)
		return r == -ENOENT ? -EPROTONOSUPPORT : r;
	return TAKE_FD(fd);
}

/* --- one connection ----------------------------------------------------------------------- */

/* Family, or AF_INET for a mapped address; bytes as sock_diag wants them. */
static int address_bytes(const struct address *a, __be32 ret[static 4], __be16 *ret_port)
{
	memset(ret, 0, 4 * sizeof(*ret));
	if (a->sa.sa_family == AF_INET) {
		ret[0] = a->in4.sin_addr.s_addr;
		*ret_port = a->in4.sin_port;
		return AF_INET;
	}
	if (a->sa.sa_family != AF_INET6)
		return -EAFNOSUPPORT;
	*ret_port = a->in6.sin6_port;
	if (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
		memcpy(ret, &a->in6.sin6_addr.s6_addr[12], 4);
		return AF_INET;
	}
	memcpy(ret, &a->in6.sin6_addr, 16);
	return AF_INET6;
}

struct connection {
	enum sockdiag_accept_state state;
	uint64_t inode;
};

static int connection_message(void *payload, size_t len, void *userdata)
{
	const struct inet_diag_msg *m = payload;
	struct connection *c = userdata;

	if (len < sizeof(*m))
		return -EBADMSG;
	switch (m->idiag_state) {
	case TCP_SYN_RECV:
		c->state = SOCKDIAG_HANDSHAKE;
		break;
	case TCP_ESTABLISHED:
	case TCP_CLOSE_WAIT:
		c->state = m->idiag_inode ? SOCKDIAG_ACCEPTED : SOCKDIAG_QUEUED;
		break;
	case TCP_FIN_WAIT1:
	case TCP_FIN_WAIT2:
	case TCP_CLOSING:
	case TCP_LAST_ACK:
	case TCP_TIME_WAIT:
		/* Only who has accepted it can have closed it: one in the queue is reset. */
		c->state = SOCKDIAG_ACCEPTED;
		break;
	default:
		/* The look-up ends at the listener when there is no connection. */
		return 0;
	}
	c->inode = m->idiag_inode;
	return 0;
}

int sockdiag_connection(
	int nl, const struct address *local, const struct address *peer, uint64_t *ret_inode)
{
	return sockdiag_connection_on(nl, local, peer,
		address_family(local) == AF_INET6 ? local->in6.sin6_scope_id : 0, ret_inode);
}

int sockdiag_connection_on(int nl, const struct address *local, const struct address *peer,
	unsigned interface, uint64_t *ret_inode)
{
	struct request request = {
		.inet = {.sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0U},
	};
	struct inet_diag_sockid id = {
		.idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE},
	};
	struct connection c = {.state = SOCKDIAG_ABSENT};
	__be32 source[4], destination[4];
	int family, r;

	family = address_bytes(local, source, &id.idiag_sport);
	if (family < 0)
		return family;
	r = address_bytes(peer, destination, &id.idiag_dport);
	if (r < 0)
		return r;
	if (r != family)
		return -EINVAL;
	memcpy(id.idiag_src, source, sizeof(source));
	memcpy(id.idiag_dst, destination, sizeof(destination));
	id.idiag_if = interface;
	request.inet.sdiag_family = (uint8_t)family;
	request.inet.id = id;

	r = ask(nl, &request, sizeof(request.inet), false, connection_message, &c);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_inode = c.inode;
	return (int)c.state;
}

/* --- dumps -------------------------------------------------------------------------------- */

/* Both families, one after the other; a kernel without IPv6 has only one. */
static int dump_inet(int nl, uint8_t protocol, unsigned port, uint32_t states, message_fn message,
	void *userdata)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct request request = {
			.inet =
				{
					.sdiag_family = families[i],
					.sdiag_protocol = protocol,
					.idiag_states = states,
					.id.idiag_sport = htons((uint16_t)port),
				       },
		};
		int r;

		r = ask(nl, &request, sizeof(request.inet), true, message, userdata);
		if (r < 0 && !(r == -ENOENT && families[i] == AF_INET6))
			return r;
	}
	return 0;
}

struct listeners {
	enum address_kind kind;
	struct sockdiag_listener *list;
	size_t n, capacity;
};

/* For those of IPv6 that have no peer; -1: not told. */
static int told_v6only(const struct inet_diag_msg *m, size_t len)
{
	union {
		const void *in;
		void *out;
	} u = {.in = m + 1};
	struct rtattr *a = u.out;

	for (size_t left = len - sizeof(*m); RTA_OK(a, left); a = after(a, a->rta_len, &left))
		if (a->rta_type == INET_DIAG_SKV6ONLY && RTA_PAYLOAD(a) >= 1)
			return *(const uint8_t *)RTA_DATA(a) != 0;
	return -1;
}

static int listeners_message(void *payload, size_t len, void *userdata)
{
	const struct inet_diag_msg *m = payload;
	struct listeners *l = userdata;
	struct sockdiag_listener *out;
	int r;

	if (len < sizeof(*m))
		return -EBADMSG;
	if (l->n >= SOCKDIAG_LISTENERS_MAX)
		return 0;
	r = array_reserve(&l->list, &l->capacity, l->n + 1, sizeof(*l->list));
	if (r < 0)
		return r;
	out = &l->list[l->n++];
	memset(out, 0, sizeof(*out));
	out->uid = m->idiag_uid;
	out->inode = m->idiag_inode;
	out->queue = m->idiag_rqueue;
	out->queue_max = m->idiag_wqueue;
	out->interface = m->id.idiag_if;
	out->connected = m->idiag_state == TCP_ESTABLISHED;
	out->v6only = m->idiag_family == AF_INET6 ? told_v6only(m, len) : -1;
	out->address.kind = l->kind;
	if (m->idiag_family == AF_INET) {
		out->address.len = sizeof(out->address.in4);
		out->address.in4.sin_family = AF_INET;
		out->address.in4.sin_port = m->id.idiag_sport;
		memcpy(&out->address.in4.sin_addr, m->id.idiag_src, 4);
	} else {
		out->address.len = sizeof(out->address.in6);
		out->address.in6.sin6_family = AF_INET6;
		out->address.in6.sin6_port = m->id.idiag_sport;
		out->address.in6.sin6_scope_id = m->id.idiag_if;
		memcpy(&out->address.in6.sin6_addr, m->id.idiag_src, 16);
	}
	return 0;
}

static int list_inet(int nl, enum address_kind kind, unsigned port, uint32_t states,
	struct sockdiag_listener **ret, size_t *ret_n)
{
	struct listeners l = {.kind = kind};
	int r;

	if (port > UINT16_MAX)
		return -EINVAL;
	r = dump_inet(nl, kind == ADDRESS_UDP ? IPPROTO_UDP : IPPROTO_TCP, port, states,
		listeners_message, &l);
	if (r < 0) {
		free(l.list);
		return r;
	}
	*ret = l.list;
	*ret_n = l.n;
	return 0;
}

int sockdiag_listeners(int nl, unsigned port, struct sockdiag_listener **ret, size_t *ret_n)
{
	return list_inet(nl, ADDRESS_TCP, port, LISTENING, ret, ret_n);
}

int sockdiag_datagrams(int nl, unsigned port, struct sockdiag_listener **ret, size_t *ret_n)
{
	/* A UDP socket is "closed" until it is connected. */
	return list_inet(nl, ADDRESS_UDP, port, ~0U, ret, ret_n);
}

/* --- Unix sockets ------------------------------------------------------------------------- */

/* One attribute of one socket. */
struct unix_question {
	uint32_t show;
	unsigned short type;
	void *ret;
	size_t size;
};

static int unix_message(void *payload, size_t len, void *userdata)
{
	struct unix_diag_msg *m = payload;
	struct rtattr *a = (struct rtattr *)(m + 1);
	const struct unix_question *q = userdata;

	if (len < sizeof(*m))
		return -EBADMSG;
	for (size_t left = len - sizeof(*m); RTA_OK(a, left); a = after(a, a->rta_len, &left))
		if (a->rta_type == q->type && RTA_PAYLOAD(a) >= q->size) {
			memcpy(q->ret, RTA_DATA(a), q->size);
			return 0;
		}
	return -EBADMSG;
}

static int ask_unix(int nl, uint64_t inode, struct unix_question *q)
{
	struct request request = {
		.un =
			{
				.sdiag_family = AF_UNIX,
				.udiag_states = ~0U,
				.udiag_ino = (uint32_t)inode,
				.udiag_show = q->show,
				.udiag_cookie = {~0U, ~0U},
			     },
	};

	if (inode == 0 || inode > UINT32_MAX)
		return -ENOENT;
	return ask(nl, &request, sizeof(request.un), false, unix_message, q);
}

int sockdiag_unix_queue(int nl, uint64_t inode, unsigned *ret_queue, unsigned *ret_queue_max)
{
	struct unix_diag_rqlen lengths;
	int r = ask_unix(nl, inode,
		&(struct unix_question){
			UDIAG_SHOW_RQLEN, UNIX_DIAG_RQLEN, &lengths, sizeof(lengths)});

	if (r < 0)
		return r;
	*ret_queue = lengths.udiag_rqueue;
	*ret_queue_max = lengths.udiag_wqueue;
	return 0;
}

int sockdiag_unix_file(int nl, uint64_t inode, uint32_t *ret_ino)
{
	struct unix_diag_vfs file;
	int r = ask_unix(nl, inode,
		&(struct unix_question){UDIAG_SHOW_VFS, UNIX_DIAG_VFS, &file, sizeof(file)});

	if (r < 0)
		return r;
	*ret_ino = file.udiag_vfs_ino;
	return 0;
}

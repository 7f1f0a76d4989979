/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of connections, a piece at a time. The kernel fills the next piece while the last one is
 * received, and stops when it is full; what matches nothing fills nothing. So a question that lets
 * few of many sockets through takes long in one piece, and one that lets all of them through takes
 * longer in all, but never long at once. */
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
#include <sys/time.h>

#include "sys/sockdiag.h"

#define STATE(s) (1U << (s))

/* A third of a millisecond's work. */
enum { PIECE_SIZE = 32 << 10 };

/* All that hash tables of connections have: neither listening nor closed ones. */
static const uint32_t live_states =
	STATE(TCP_ESTABLISHED) | STATE(TCP_SYN_SENT) | STATE(TCP_SYN_RECV) | STATE(TCP_FIN_WAIT1) |
	STATE(TCP_FIN_WAIT2) | STATE(TCP_CLOSE_WAIT) | STATE(TCP_LAST_ACK) | STATE(TCP_CLOSING);

int sockdiag_tcp_total(size_t *ret_total)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/net/sockstat", "re");
	char line[256];

	if (!f)
		return -errno;
	/* TCP: inuse 12 orphan 0 tw 3 alloc 14 mem 1 */
	while (fgets(line, sizeof(line), f)) {
		size_t waiting, allocated;

		if (sscanf(line, "TCP: inuse %*u orphan %*u tw %zu alloc %zu", &waiting,
			    &allocated) == 2) {
			*ret_total = waiting + allocated;
			return 0;
		}
	}
	return -EBADMSG;
}

static int begin(struct nlmsghdr *request, struct sockdiag_dump *ret)
{
	const struct timeval bound = {.tv_sec = 2};
	const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	_cleanup_free_ uint8_t *buf = malloc(PIECE_SIZE);
	_cleanup_close_ int fd = -1;
	ssize_t n;

	if (!buf)
		return -ENOMEM;
	/* Of its own: while it is read nobody else's answers may come between, and closing it ends
	 * it whatever is left. */
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound)) < 0)
		return -errno;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	request->nlmsg_seq = 1;
	do
		n = sendto(fd, request, request->nlmsg_len, MSG_NOSIGNAL,
			(const struct sockaddr *)&kernel, sizeof(kernel));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*ret = (struct sockdiag_dump){.fd = TAKE_FD(fd), .buf = TAKE_PTR(buf)};
	return 0;
}

int sockdiag_dump_tcp(unsigned port, bool waiting, struct sockdiag_dump *ret)
{
	/* The older form of the request is the only one that is answered for both families: with
	 * the other, each would be a walk of its own past all of the other's. */
	struct {
		struct nlmsghdr header;
		struct inet_diag_req inet;
	} request = {
		.header = {.nlmsg_len = sizeof(request), .nlmsg_type = TCPDIAG_GETSOCK},
		.inet =
			{
				.idiag_family = AF_INET,
				.id.idiag_sport = htons((uint16_t)port),
				.idiag_states = live_states | (waiting ? STATE(TCP_TIME_WAIT) : 0),
			   },
	};

	return begin(&request.header, ret);
}

int sockdiag_dump_unix(struct sockdiag_dump *ret)
{
	struct {
		struct nlmsghdr header;
		struct unix_diag_req un;
	} request = {
		.header = {.nlmsg_len = sizeof(request), .nlmsg_type = SOCK_DIAG_BY_FAMILY},
		.un =
			{
				.sdiag_family = AF_UNIX,
				.udiag_states = STATE(TCP_ESTABLISHED),
				.udiag_show = UDIAG_SHOW_NAME,
			   },
	};
	int r = begin(&request.header, ret);

	if (r >= 0)
		ret->is_unix = true;
	return r;
}

static uint64_t cookie_of(const __u32 cookie[static 2])
{
	return (uint64_t)cookie[1] << 32 | cookie[0];
}

/* As listen_tag() makes it. */
static int tag_of(struct nlmsghdr *h)
{
	struct inet_diag_msg *m = NLMSG_DATA(h);
	struct rtattr *a = (struct rtattr *)(m + 1);
	size_t left = h->nlmsg_len - NLMSG_LENGTH(sizeof(*m));

	while (RTA_OK(a, left)) {
		size_t step = MIN(RTA_ALIGN((size_t)a->rta_len), left);
		const struct inet_diag_sockopt *o = RTA_DATA(a);

		if (a->rta_type == INET_DIAG_SOCKOPT && RTA_PAYLOAD(a) >= sizeof(*o))
			return (o->mc_all ? 0 : 1) + (o->mc_loop ? 0 : 2) +
			       (o->bind_address_no_port ? 4 : 0);
		left -= step;
		a = (struct rtattr *)((uint8_t *)a + step);
	}
	return -1;
}

static bool take_tcp(struct nlmsghdr *h, struct sockdiag_entry *ret)
{
	const struct inet_diag_msg *m = NLMSG_DATA(h);

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return false;
	*ret = (struct sockdiag_entry){.inode = m->idiag_inode,
		.cookie = cookie_of(m->id.idiag_cookie),
		.port = ntohs(m->id.idiag_sport),
		.tag = tag_of(h)};
	/* Without an inode it waits in a queue, or its process has closed it. */
	return m->idiag_inode != 0 || m->idiag_state == TCP_ESTABLISHED ||
	       m->idiag_state == TCP_CLOSE_WAIT;
}

static bool take_unix(struct nlmsghdr *h, struct sockdiag_entry *ret)
{
	struct unix_diag_msg *m = NLMSG_DATA(h);
	struct rtattr *a = (struct rtattr *)(m + 1);
	size_t left;

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return false;
	*ret = (struct sockdiag_entry){
		.inode = m->udiag_ino, .cookie = cookie_of(m->udiag_cookie), .tag = -1};
	left = h->nlmsg_len - NLMSG_LENGTH(sizeof(*m));
	while (RTA_OK(a, left)) {
		size_t step = MIN(RTA_ALIGN((size_t)a->rta_len), left);

		if (a->rta_type == UNIX_DIAG_NAME) {
			ret->name = RTA_DATA(a);
			ret->name_len = RTA_PAYLOAD(a);
			/* Of a path, the end may be counted or not. */
			if (ret->name_len > 0 && ret->name[0])
				ret->name_len = strnlen(ret->name, ret->name_len);
		}
		left -= step;
		a = (struct rtattr *)((uint8_t *)a + step);
	}
	return ret->name_len > 0;
}

int sockdiag_dump_step(struct sockdiag_dump *d, sockdiag_entry_fn function, void *userdata)
{
	struct nlmsghdr *h = (struct nlmsghdr *)d->buf;
	ssize_t n;

	do
		n = recv(d->fd, d->buf, PIECE_SIZE, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (size_t left = (size_t)n; NLMSG_OK(h, left);) {
		size_t step = MIN(NLMSG_ALIGN((size_t)h->nlmsg_len), left);
		struct sockdiag_entry entry;

		if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
			const int *error = NLMSG_DATA(h);

			return h->nlmsg_len < NLMSG_LENGTH(sizeof(*error)) ? 0 : MIN(*error, 0);
		}
		if (d->is_unix ? take_unix(h, &entry) : take_tcp(h, &entry)) {
			int r = function(&entry, userdata);

			if (r < 0)
				return r;
		}
		left -= step;
		h = (struct nlmsghdr *)((uint8_t *)h + step);
	}
	return 1;
}

void sockdiag_dump_done(struct sockdiag_dump *d)
{
	close_fd(d->fd);
	free(d->buf);
	*d = (struct sockdiag_dump){.fd = -1};
}

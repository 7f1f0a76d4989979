/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/listen_options.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/time.h>

#include "base/parse.h"

/* Since Linux 5.14; not in the headers of every distribution that has it. */
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
enum { BUF_LOCK_SEND = 1, BUF_LOCK_RECEIVE = 2 };

static int set(int fd, int level, int name, const void *value, size_t len)
{
	return setsockopt(fd, level, name, value, (socklen_t)len) < 0 ? -errno : 0;
}

static int set_text(int fd, const struct sockopt *o)
{
	/* No interface is the empty name; no algorithm there is not. */
	return set(fd, o->level, o->name, o->text, strlen(o->text));
}

static int join_v4(int fd, const struct sockopt *o, unsigned interface)
{
	struct ip_mreqn m = {.imr_ifindex = (int)interface};

	memcpy(&m.imr_multiaddr, o->group, sizeof(m.imr_multiaddr));
	return set(fd, IPPROTO_IP,
		o->type == SOCKOPT_LEAVE ? IP_DROP_MEMBERSHIP : IP_ADD_MEMBERSHIP, &m, sizeof(m));
}

static int join_v6(int fd, const struct sockopt *o, unsigned interface)
{
	struct ipv6_mreq m = {.ipv6mr_interface = interface};

	memcpy(&m.ipv6mr_multiaddr, o->group, sizeof(m.ipv6mr_multiaddr));
	return set(fd, IPPROTO_IPV6, o->type == SOCKOPT_LEAVE ? IPV6_LEAVE_GROUP : IPV6_JOIN_GROUP,
		&m, sizeof(m));
}

static int join(int fd, const struct sockopt *o)
{
	unsigned interface = 0;
	int r;

	if (o->text[0]) {
		interface = if_nametoindex(o->text);
		/* With its interface goes the membership. */
		if (interface == 0)
			return o->type == SOCKOPT_LEAVE ? 0 : -ENODEV;
	}
	r = o->family == AF_INET ? join_v4(fd, o, interface) : join_v6(fd, o, interface);
	if (r == -EADDRINUSE || (r == -EADDRNOTAVAIL && o->type == SOCKOPT_LEAVE))
		return 0;
	return r;
}

static int set_nonblocking(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	if (!(flags & O_NONBLOCK) == !on)
		return 0;
	return fcntl(fd, F_SETFL, flags ^ O_NONBLOCK) < 0 ? -errno : 0;
}

int listen_option_set(int fd, const struct sockopt *o)
{
	struct linger linger = {.l_onoff = o->value >= 0, .l_linger = (int)MAX(o->value, 0)};
	struct timeval time = {.tv_sec = (time_t)(o->value / (int64_t)USEC_PER_SEC),
		.tv_usec = (suseconds_t)(o->value % (int64_t)USEC_PER_SEC)};
	int value = (int)(uint32_t)o->value; /* a mark uses all bits */

	switch (o->type) {
	case SOCKOPT_INT:
		return set(fd, o->level, o->name, &value, sizeof(value));
	case SOCKOPT_LINGER:
		return set(fd, o->level, o->name, &linger, sizeof(linger));
	case SOCKOPT_TIMEVAL:
		return set(fd, o->level, o->name, &time, sizeof(time));
	case SOCKOPT_TEXT:
		return set_text(fd, o);
	case SOCKOPT_JOIN:
	case SOCKOPT_LEAVE:
		return join(fd, o);
	case SOCKOPT_NONBLOCK:
		return set_nonblocking(fd, o->value);
	}
	return -EINVAL;
}

static int get(int fd, const struct sockopt *o, void *ret, socklen_t *len)
{
	int name = o->name;

	/* These two are only for setting. */
	if (o->level == SOL_SOCKET && (name == SO_RCVBUFFORCE || name == SO_SNDBUFFORCE))
		name = name == SO_RCVBUFFORCE ? SO_RCVBUF : SO_SNDBUF;
	return getsockopt(fd, o->level, name, ret, len) < 0 ? -errno : 0;
}

static int get_text(int fd, struct sockopt *o)
{
	char text[64] = "";
	socklen_t len = sizeof(text) - 1;
	int r = get(fd, o, text, &len);

	if (r < 0)
		return r;
	text[MIN(len, (socklen_t)SOCKOPT_TEXT_MAX)] = '\0';
	memset(o->text, 0, sizeof(o->text));
	memcpy(o->text, text, strlen(text));
	return 0;
}

int listen_option_get(int fd, struct sockopt *o)
{
	struct linger linger = {0};
	struct timeval time = {0};
	socklen_t len;
	int value = 0, r;

	switch (o->type) {
	case SOCKOPT_INT:
		len = sizeof(value);
		/* Some are a byte where the length says so; none is here. */
		r = get(fd, o, &value, &len);
		if (r >= 0)
			o->value = value;
		return r;
	case SOCKOPT_LINGER:
		len = sizeof(linger);
		r = get(fd, o, &linger, &len);
		if (r >= 0)
			o->value = linger.l_onoff ? linger.l_linger : -1;
		return r;
	case SOCKOPT_TIMEVAL:
		len = sizeof(time);
		r = get(fd, o, &time, &len);
		if (r >= 0)
			o->value = (int64_t)time.tv_sec * (int64_t)USEC_PER_SEC + time.tv_usec;
		return r;
	case SOCKOPT_TEXT:
		return get_text(fd, o);
	case SOCKOPT_NONBLOCK:
		r = fcntl(fd, F_GETFL);
		if (r < 0)
			return -errno;
		o->value = (r & O_NONBLOCK) != 0;
		return 0;
	case SOCKOPT_JOIN:
	case SOCKOPT_LEAVE:
		return -EOPNOTSUPP;
	}
	return -EINVAL;
}

int listen_options_set(int fd, const struct sockopt *list, size_t n, size_t *ret_failed)
{
	for (size_t i = 0; i < n; i++) {
		int r = listen_option_set(fd, &list[i]);

		if (r >= 0)
			continue;
		if (ret_failed)
			*ret_failed = i;
		return r;
	}
	return 0;
}

int listen_options_blank(const struct address *a, bool v6only)
{
	_cleanup_close_ int fd = -1;
	int value = v6only, r;

	fd = socket(address_family(a), address_socket_type(a) | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (address_family(a) == AF_INET6) {
		r = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, &value, sizeof(value));
		if (r < 0)
			return r;
	}
	return TAKE_FD(fd);
}

int listen_option_unlock(int fd, const struct sockopt *o)
{
	bool receive = o->name == SO_RCVBUF || o->name == SO_RCVBUFFORCE;
	int locks = 0, r;
	socklen_t len = sizeof(locks);

	if (getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &locks, &len) < 0)
		return errno == ENOPROTOOPT ? 0 : -errno;
	locks &= receive ? ~BUF_LOCK_RECEIVE : ~BUF_LOCK_SEND;
	r = set(fd, SOL_SOCKET, SO_BUF_LOCK, &locks, sizeof(locks));
	return r == -ENOPROTOOPT ? 0 : r;
}

static void take_address(const struct sockaddr *from, struct address *a)
{
	if (from->sa_family == AF_INET) {
		struct sockaddr_in in;

		memcpy(&in, from, sizeof(in));
		a->in4.sin_addr = in.sin_addr;
	} else {
		struct sockaddr_in6 in;

		memcpy(&in, from, sizeof(in));
		a->in6.sin6_addr = in.sin6_addr;
		a->in6.sin6_scope_id = in.sin6_scope_id;
	}
}

int listen_device_address(const char *interface, int family, struct address *a)
{
	struct ifaddrs *all = NULL;
	uint16_t port = htons((uint16_t)address_port(a));
	int r = -EADDRNOTAVAIL;

	if (if_nametoindex(interface) == 0)
		return -ENODEV;
	if (getifaddrs(&all) < 0)
		return -errno;
	for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != family ||
			!streq(i->ifa_name, interface))
			continue;
		memset(&a->storage, 0, sizeof(a->storage));
		a->sa.sa_family = (sa_family_t)family;
		a->len = family == AF_INET ? sizeof(a->in4) : sizeof(a->in6);
		take_address(i->ifa_addr, a);
		if (family == AF_INET)
			a->in4.sin_port = port;
		else
			a->in6.sin6_port = port;
		r = 0;
		break;
	}
	freeifaddrs(all);
	return r;
}

int listen_sysctl(const char *name, int64_t *ret)
{
	_cleanup_free_ char *path = xasprintf("/proc/sys/%s", name);
	_cleanup_close_ int fd = -1;
	char text[32] = "";
	uint64_t value;
	ssize_t n;
	int r;

	if (!path)
		return -ENOMEM;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return n < 0 ? -errno : -EIO;
	text[strcspn(text, "\n")] = '\0';
	r = parse_u64(text, 0, INT64_MAX, &value);
	if (r < 0)
		return r;
	*ret = (int64_t)value;
	return 0;
}

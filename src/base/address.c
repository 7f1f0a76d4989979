/* SPDX-License-Identifier: Apache-2.0 */
#include "base/address.h"

#include <arpa/inet.h>
#include <net/if.h>

#include "base/parse.h"
#include "base/utf8.h"

#define PATH_OFFSET offsetof(struct sockaddr_un, sun_path)
#define MAX_PORT 65535

static const struct {
	const char *prefix;
	enum address_kind kind;
} kinds[] = {
	{"tcp:",		 ADDRESS_TCP	    },
	{"udp:",		 ADDRESS_UDP	    },
	{"unix:",		  ADDRESS_UNIX_STREAM   },
	{"unix-dgram:",	ADDRESS_UNIX_DGRAM	  },
	{"unix-seqpacket:", ADDRESS_UNIX_SEQPACKET},
};

static bool kind_is_unix(enum address_kind kind)
{
	return kind != ADDRESS_TCP && kind != ADDRESS_UDP;
}

static int parse_unix(const char *s, struct address *a)
{
	size_t len = strlen(s);

	if (*s != '/' && *s != '@')
		return -EINVAL;
	if (*s == '@' && len == 1)
		return -EINVAL; /* the kernel would choose a name */
	/* A path needs its NUL, an abstract name is led by one in the place of the '@'. */
	if (len > sizeof(a->un.sun_path) - (*s == '/' ? 1 : 0))
		return -ENAMETOOLONG;
	a->un.sun_family = AF_UNIX;
	memcpy(a->un.sun_path, s, len);
	if (*s == '@')
		a->un.sun_path[0] = '\0';
	a->len = (socklen_t)(PATH_OFFSET + len + (*s == '/' ? 1 : 0));
	return 0;
}

static int parse_port(const char *s, bool allow_port_0, in_port_t *ret)
{
	unsigned port = 0;
	int r = parse_uint(s, allow_port_0 ? 0 : 1, MAX_PORT, &port);

	if (r < 0)
		return r;
	*ret = htons((uint16_t)port);
	return 0;
}

/* The zone behind a '%': an interface's name or number (RFC 4007, section 11). */
static int parse_scope(const char *s, uint32_t *ret)
{
	unsigned index = 0;

	if (*s == '\0')
		return -EINVAL;
	if (parse_uint(s, 1, INT32_MAX, &index) < 0)
		index = if_nametoindex(s);
	if (index == 0)
		return -ENODEV;
	*ret = index;
	return 0;
}

/* The inside of the brackets. */
static int parse_ip6(char *s, struct sockaddr_in6 *ret)
{
	char *scope = strchr(s, '%');

	if (scope)
		*scope++ = '\0';
	if (inet_pton(AF_INET6, s, &ret->sin6_addr) != 1)
		return -EINVAL;
	return scope ? parse_scope(scope, &ret->sin6_scope_id) : 0;
}

static void set_any(struct address *a)
{
	a->in6.sin6_family = AF_INET6;
	a->in6.sin6_addr = in6addr_any;
	a->len = sizeof(a->in6);
}

static int parse_ip_port(const char *s, bool allow_port_0, struct address *a)
{
	_cleanup_free_ char *host = NULL;
	const char *colon = strrchr(s, ':');
	size_t len;

	if (!colon) {
		set_any(a);
		return parse_port(s, allow_port_0, &a->in6.sin6_port);
	}
	host = strndup(s, (size_t)(colon - s));
	if (!host)
		return -ENOMEM;
	len = strlen(host);

	if (streq(host, "*")) {
		set_any(a);
		return parse_port(colon + 1, allow_port_0, &a->in6.sin6_port);
	}
	if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
		int r;

		host[len - 1] = '\0';
		set_any(a);
		r = parse_ip6(host + 1, &a->in6);
		return r < 0 ? r : parse_port(colon + 1, allow_port_0, &a->in6.sin6_port);
	}
	a->in4.sin_family = AF_INET;
	a->len = sizeof(a->in4);
	if (inet_pton(AF_INET, host, &a->in4.sin_addr) != 1)
		return -EINVAL;
	return parse_port(colon + 1, allow_port_0, &a->in4.sin_port);
}

int address_parse(const char *s, bool allow_port_0, struct address *ret)
{
	struct address a;
	int r;

	/* The bytes that no member names are compared and copied too. */
	memset(&a, 0, sizeof(a));
	a.kind = *s == '/' ? ADDRESS_UNIX_STREAM : ADDRESS_TCP;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const char *rest = startswith(s, kinds[i].prefix);

		if (rest) {
			a.kind = kinds[i].kind;
			s = rest;
			break;
		}
	}
	r = kind_is_unix(a.kind) ? parse_unix(s, &a) : parse_ip_port(s, allow_port_0, &a);
	if (r < 0)
		return r;
	*ret = a;
	return 0;
}

/* What follows the family in a Unix address; a getsockname(2) result may be one byte longer than
 * sun_path, so it is reached by way of the whole union. */
static const char *unix_name(const struct address *a, size_t *ret_len)
{
	*ret_len = a->len > PATH_OFFSET ? a->len - PATH_OFFSET : 0;
	return (const char *)&a->storage + PATH_OFFSET;
}

static char *format_unix(const struct address *a, const char *prefix)
{
	_cleanup_free_ char *printable = NULL;
	size_t len;
	const char *name = unix_name(a, &len);

	if (len == 0)
		return strdup(prefix); /* unnamed */
	if (name[0] == '\0') {
		printable = utf8_printable(name + 1, len - 1, SIZE_MAX);
		return printable ? xasprintf("%s@%s", prefix, printable) : NULL;
	}
	printable = utf8_printable(name, strnlen(name, len), SIZE_MAX);
	return printable ? xasprintf("%s%s", prefix, printable) : NULL;
}

char *address_format(const struct address *a)
{
	char host[INET6_ADDRSTRLEN], scope[IF_NAMESIZE + 1] = "";
	const char *prefix = "";

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].kind == a->kind)
			prefix = kinds[i].prefix;
	if (address_is_unix(a))
		return format_unix(a, prefix);

	if (a->sa.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a->in4.sin_addr, host, sizeof(host));
		return xasprintf("%s%s:%u", prefix, host, address_port(a));
	}
	inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
	if (a->in6.sin6_scope_id != 0) {
		scope[0] = '%';
		/* The interface may be gone; its number still tells it apart. */
		if (!if_indextoname(a->in6.sin6_scope_id, scope + 1))
			snprintf(scope + 1, sizeof(scope) - 1, "%u", a->in6.sin6_scope_id);
	}
	return xasprintf("%s[%s%s]:%u", prefix, host, scope, address_port(a));
}

static int unix_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct address *a)
{
	const char *name = (const char *)sa + PATH_OFFSET;
	size_t name_len = len > PATH_OFFSET ? len - PATH_OFFSET : 0;

	/* The kernel counts a path's NUL, others do not; and it adds one behind a full sun_path. */
	if (name_len > 0 && name[0] != '\0')
		name_len = strnlen(name, name_len) + 1;
	if (name_len > sizeof(a->un.sun_path) + 1)
		return -EAFNOSUPPORT;
	memcpy(&a->storage, sa, MIN((size_t)len, PATH_OFFSET + name_len));
	a->len = (socklen_t)(PATH_OFFSET + name_len);
	return 0;
}

int address_from_sockaddr(const struct sockaddr *sa, socklen_t len, int type, struct address *ret)
{
	struct address a;
	int r;

	memset(&a, 0, sizeof(a));
	if (len < sizeof(sa_family_t))
		return -EAFNOSUPPORT;
	if (sa->sa_family == AF_UNIX) {
		if (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET)
			return -EAFNOSUPPORT;
		a.kind = type == SOCK_STREAM  ? ADDRESS_UNIX_STREAM
			 : type == SOCK_DGRAM ? ADDRESS_UNIX_DGRAM
					      : ADDRESS_UNIX_SEQPACKET;
		r = unix_from_sockaddr(sa, len, &a);
		if (r < 0)
			return r;
		*ret = a;
		return 0;
	}

	if (type != SOCK_STREAM && type != SOCK_DGRAM)
		return -EAFNOSUPPORT;
	a.kind = type == SOCK_STREAM ? ADDRESS_TCP : ADDRESS_UDP;
	if (sa->sa_family == AF_INET && len >= sizeof(a.in4))
		a.len = sizeof(a.in4);
	else if (sa->sa_family == AF_INET6 && len >= sizeof(a.in6))
		a.len = sizeof(a.in6);
	else
		return -EAFNOSUPPORT;
	memcpy(&a.storage, sa, a.len);
	/* Noise in sin_zero or the flow label must not make equal addresses differ. */
	if (sa->sa_family == AF_INET)
		memset(a.in4.sin_zero, 0, sizeof(a.in4.sin_zero));
	else
		a.in6.sin6_flowinfo = 0;
	*ret = a;
	return 0;
}

int address_family(const struct address *a)
{
	return a->sa.sa_family;
}

int address_socket_type(const struct address *a)
{
	switch (a->kind) {
	case ADDRESS_TCP:
	case ADDRESS_UNIX_STREAM:
		return SOCK_STREAM;
	case ADDRESS_UDP:
	case ADDRESS_UNIX_DGRAM:
		return SOCK_DGRAM;
	case ADDRESS_UNIX_SEQPACKET:
		return SOCK_SEQPACKET;
	}
	return -1;
}

bool address_is_unix(const struct address *a)
{
	return kind_is_unix(a->kind);
}

/* Any IP address as 16 bytes, IPv4 in its mapped form (RFC 4291, section 2.5.5.2). */
static struct in6_addr mapped_ip(const struct address *a)
{
	struct in6_addr ip = {
		.s6_addr = {[10] = 0xff, [11] = 0xff}
	     };

	if (a->sa.sa_family != AF_INET)
		return a->in6.sin6_addr;
	memcpy(&ip.s6_addr[12], &a->in4.sin_addr, 4);
	return ip;
}

/* 0.0.0.0, also as ::ffff:0.0.0.0. */
static bool is_any4(const struct in6_addr *ip)
{
	return IN6_IS_ADDR_V4MAPPED(ip) && ip->s6_addr32[3] == 0;
}

bool address_is_wildcard(const struct address *a)
{
	struct in6_addr ip;

	if (address_is_unix(a))
		return false;
	ip = mapped_ip(a);
	return IN6_IS_ADDR_UNSPECIFIED(&ip) || is_any4(&ip);
}

bool address_is_multicast(const struct address *a)
{
	if (address_family(a) == AF_INET)
		return IN_MULTICAST(ntohl(a->in4.sin_addr.s_addr));
	return address_family(a) == AF_INET6 && IN6_IS_ADDR_MULTICAST(&a->in6.sin6_addr);
}

bool address_is_broadcast(const struct address *a)
{
	return address_family(a) == AF_INET && a->in4.sin_addr.s_addr == htonl(INADDR_BROADCAST);
}

unsigned address_port(const struct address *a)
{
	switch (a->sa.sa_family) {
	case AF_INET:
		return ntohs(a->in4.sin_port);
	case AF_INET6:
		return ntohs(a->in6.sin6_port);
	default:
		return 0;
	}
}

static bool unix_name_equal(const struct address *a, const struct address *b)
{
	size_t a_len, b_len;
	const char *a_name = unix_name(a, &a_len), *b_name = unix_name(b, &b_len);

	return a_len == b_len && memcmp(a_name, b_name, a_len) == 0;
}

bool address_equal(const struct address *a, const struct address *b)
{
	struct in6_addr a_ip, b_ip;

	if (a->kind != b->kind || a->sa.sa_family != b->sa.sa_family)
		return false;
	if (address_is_unix(a))
		return unix_name_equal(a, b);
	if (a->sa.sa_family == AF_INET6 && a->in6.sin6_scope_id != b->in6.sin6_scope_id)
		return false;
	a_ip = mapped_ip(a);
	b_ip = mapped_ip(b);
	return address_port(a) == address_port(b) && IN6_ARE_ADDR_EQUAL(&a_ip, &b_ip);
}

/* Does the wildcard or plain address a take what is sent to ip? */
static bool covers(const struct in6_addr *a, bool a_v6only, const struct in6_addr *ip)
{
	if (IN6_IS_ADDR_UNSPECIFIED(a))
		return !a_v6only || !IN6_IS_ADDR_V4MAPPED(ip);
	if (is_any4(a))
		return IN6_IS_ADDR_V4MAPPED(ip);
	return IN6_ARE_ADDR_EQUAL(a, ip);
}

bool address_overlaps(
	const struct address *a, bool a_v6only, const struct address *b, bool b_v6only)
{
	struct in6_addr a_ip, b_ip;

	if (address_is_unix(a) || address_is_unix(b)) {
		size_t len;
		const char *name = unix_name(a, &len);

		if (!address_is_unix(a) || !address_is_unix(b) || len == 0)
			return false;
		/* A path is one file whatever the type; abstract names are apart by type. */
		return unix_name_equal(a, b) && (name[0] != '\0' || a->kind == b->kind);
	}
	/* Of port 0 everyone gets a port of his own. */
	if (a->kind != b->kind || address_port(a) != address_port(b) || address_port(a) == 0)
		return false;
	if (a->sa.sa_family == AF_INET6 && b->sa.sa_family == AF_INET6 &&
		a->in6.sin6_scope_id != 0 && b->in6.sin6_scope_id != 0 &&
		a->in6.sin6_scope_id != b->in6.sin6_scope_id)
		return false;
	a_ip = mapped_ip(a);
	b_ip = mapped_ip(b);
	return covers(&a_ip, a_v6only, &b_ip) || covers(&b_ip, b_v6only, &a_ip);
}

void address_loopback_of(const struct address *a, struct address *ret)
{
	*ret = *a;
	if (!address_is_wildcard(a))
		return;
	if (a->sa.sa_family == AF_INET)
		ret->in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else if (IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr))
		ret->in6.sin6_addr = in6addr_loopback;
	else
		ret->in6.sin6_addr.s6_addr32[3] = htonl(INADDR_LOOPBACK);
}

int address_parse_ip(const char *s, int *ret_family, uint8_t ret_bytes[static 16])
{
	struct in6_addr ip6;
	struct in_addr ip4;

	if (inet_pton(AF_INET, s, &ip4) == 1) {
		memset(ret_bytes, 0, 16);
		memcpy(ret_bytes, &ip4, sizeof(ip4));
		*ret_family = AF_INET;
		return 0;
	}
	if (inet_pton(AF_INET6, s, &ip6) == 1) {
		memcpy(ret_bytes, &ip6, sizeof(ip6));
		*ret_family = AF_INET6;
		return 0;
	}
	return -EINVAL;
}

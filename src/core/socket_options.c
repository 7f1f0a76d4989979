/* SPDX-License-Identifier: Apache-2.0 */
/* The table, and what is kept of each listener. How values are written and explained is in
 * socket_options_text.c. */
#include "core/socket_options.h"

#include <limits.h>
#include <netinet/tcp.h>

enum {
	FITS_IP = FITS_TCP | FITS_UDP,
	/* The kernel doubles what it is given, in an int. */
	BUFFER_MAX = 512 << 20,
};

#define SOCKET(option) .level = SOL_SOCKET, .name = (option), .kernel = #option
#define TCP(option) .level = IPPROTO_TCP, .name = (option), .kernel = #option, .fits = FITS_TCP
#define IP(option, option6)                                                                        \
	.level = IPPROTO_IP, .name = (option), .level_v6 = IPPROTO_IPV6, .name_v6 = (option6),     \
	.kernel = #option ", " #option6
#define BOOL .type = OPTION_IS_BOOL, .max = 1
#define NUMBER(from, to) .type = OPTION_IS_NUMBER, .min = (from), .max = (to)
#define SIZE(from, to) .type = OPTION_IS_SIZE, .min = (from), .max = (to)
#define TIME(unit, from, to) .type = OPTION_IS_TIME, .unit_usec = (unit), .min = (from), .max = (to)
#define BUFFER SIZE(1024, BUFFER_MAX), .fits = FITS_IP

/* clang-format off */
static const struct socket_option_info table[SOCKET_OPTIONS_N] = {
	[OPTION_REUSEADDR] = {"reuseaddr", SOCKET(SO_REUSEADDR), BOOL, .fits = FITS_IP,
		.by_itself = "on for TCP, so that a restart does not wait for old connections"},
	[OPTION_REUSEPORT] = {"reuseport", SOCKET(SO_REUSEPORT), BOOL, .fits = FITS_IP,
		.by_itself = "always on: by it new and old sockets share the port"},
	[OPTION_V6ONLY] = {"v6only", .level = IPPROTO_IPV6, .name = IPV6_V6ONLY,
		.kernel = "IPV6_V6ONLY", BOOL, .fits = FITS_IP | FITS_V6_ONLY},
	[OPTION_BACKLOG] = {"backlog", .level = -1, .kernel = "listen(2)", NUMBER(1, 1 << 20),
		.fits = FITS_TCP | FITS_UNIX, .quirk = QUIRK_SOMAXCONN},
	[OPTION_BINDTODEVICE] = {"bindtodevice", SOCKET(SO_BINDTODEVICE), .type = OPTION_IS_TEXT,
		.fits = FITS_IP, .privilege = "CAP_NET_RAW"},
	[OPTION_FREEBIND] = {"freebind", IP(IP_FREEBIND, IPV6_FREEBIND), BOOL, .fits = FITS_IP},
	[OPTION_TRANSPARENT] = {"transparent", IP(IP_TRANSPARENT, IPV6_TRANSPARENT), BOOL,
		.fits = FITS_IP, .privilege = "CAP_NET_ADMIN"},
	[OPTION_MARK] = {"mark", SOCKET(SO_MARK), NUMBER(0, UINT32_MAX), .fits = FITS_IP,
		.privilege = "CAP_NET_ADMIN"},
	[OPTION_TOS] = {"tos", IP(IP_TOS, IPV6_TCLASS), .both = true, NUMBER(0, 255),
		.fits = FITS_IP, .quirk = QUIRK_ECN},
	[OPTION_TCLASS] = {"tclass", .level = IPPROTO_IPV6, .name = IPV6_TCLASS,
		.kernel = "IPV6_TCLASS", NUMBER(0, 255), .fits = FITS_IP | FITS_V6_ONLY,
		.quirk = QUIRK_ECN},
	[OPTION_PRIORITY] = {"priority", SOCKET(SO_PRIORITY), NUMBER(0, INT_MAX), .fits = FITS_IP,
		.privilege = "CAP_NET_ADMIN"},
	[OPTION_TTL] = {"ttl", IP(IP_TTL, IPV6_UNICAST_HOPS), .both = true, NUMBER(1, 255),
		.fits = FITS_IP},
	[OPTION_RCVBUF] = {"rcvbuf", SOCKET(SO_RCVBUF), BUFFER, .quirk = QUIRK_RMEM},
	[OPTION_RCVBUF_FORCE] = {"rcvbuf_force", SOCKET(SO_RCVBUFFORCE), BUFFER,
		.privilege = "CAP_NET_ADMIN", .quirk = QUIRK_DOUBLED},
	[OPTION_SNDBUF] = {"sndbuf", SOCKET(SO_SNDBUF), BUFFER, .quirk = QUIRK_WMEM},
	[OPTION_SNDBUF_FORCE] = {"sndbuf_force", SOCKET(SO_SNDBUFFORCE), BUFFER,
		.privilege = "CAP_NET_ADMIN", .quirk = QUIRK_DOUBLED},
	[OPTION_RCVLOWAT] = {"rcvlowat", SOCKET(SO_RCVLOWAT), SIZE(1, BUFFER_MAX), .fits = FITS_TCP,
		.quirk = QUIRK_HALF},
	[OPTION_SNDLOWAT] = {"sndlowat", SOCKET(SO_SNDLOWAT), SIZE(1, BUFFER_MAX), .fits = FITS_IP,
		.refused = "cannot be set on Linux, where it is always 1 (SO_SNDLOWAT); leave it out"},
	[OPTION_RCVTIMEO] = {"rcvtimeo", SOCKET(SO_RCVTIMEO), TIME(1, 0, 24 * 3600 * 1000000LL),
		.fits = FITS_IP, .quirk = QUIRK_TICKS},
	[OPTION_SNDTIMEO] = {"sndtimeo", SOCKET(SO_SNDTIMEO), TIME(1, 0, 24 * 3600 * 1000000LL),
		.fits = FITS_IP, .quirk = QUIRK_TICKS},
	[OPTION_KEEPALIVE] = {"keepalive", SOCKET(SO_KEEPALIVE), BOOL, .fits = FITS_TCP},
	[OPTION_KEEPIDLE] = {"keepidle", TCP(TCP_KEEPIDLE), TIME(1000000, 1, 32767)},
	[OPTION_KEEPINTVL] = {"keepintvl", TCP(TCP_KEEPINTVL), TIME(1000000, 1, 32767)},
	[OPTION_KEEPCNT] = {"keepcnt", TCP(TCP_KEEPCNT), NUMBER(1, 127)},
	[OPTION_LINGER] = {"linger", SOCKET(SO_LINGER), .type = OPTION_IS_LINGER,
		.unit_usec = 1000000, .min = -1, .max = 3600, .fits = FITS_TCP},
	[OPTION_OOBINLINE] = {"oobinline", SOCKET(SO_OOBINLINE), BOOL, .fits = FITS_TCP},
	[OPTION_DONTROUTE] = {"dontroute", SOCKET(SO_DONTROUTE), BOOL, .fits = FITS_IP},
	[OPTION_DEBUG] = {"debug", SOCKET(SO_DEBUG), BOOL, .fits = FITS_IP,
		.privilege = "CAP_NET_ADMIN"},
	[OPTION_INCOMING_CPU] = {"incoming_cpu", SOCKET(SO_INCOMING_CPU), NUMBER(0, 8191),
		.fits = FITS_IP},
	[OPTION_BUSY_POLL] = {"busy_poll", SOCKET(SO_BUSY_POLL), TIME(1, 0, 1000000),
		.fits = FITS_IP, .privilege = "CAP_NET_ADMIN"},
	[OPTION_NODELAY] = {"nodelay", TCP(TCP_NODELAY), BOOL},
	[OPTION_DEFER_ACCEPT] = {"defer_accept", TCP(TCP_DEFER_ACCEPT), TIME(1000000, 0, 3600),
		.quirk = QUIRK_DEFER},
	[OPTION_FASTOPEN] = {"fastopen", TCP(TCP_FASTOPEN), NUMBER(0, 65535),
		.quirk = QUIRK_SOMAXCONN},
	[OPTION_CONGESTION] = {"congestion", TCP(TCP_CONGESTION), .type = OPTION_IS_TEXT,
		.privilege = "CAP_NET_ADMIN"},
	[OPTION_USER_TIMEOUT] = {"user_timeout", TCP(TCP_USER_TIMEOUT),
		TIME(1000, 0, 24 * 3600 * 1000)},
	[OPTION_MAXSEG] = {"maxseg", TCP(TCP_MAXSEG), NUMBER(88, 32767)},
	[OPTION_BROADCAST] = {"broadcast", SOCKET(SO_BROADCAST), BOOL, .fits = FITS_UDP},
	[OPTION_MULTICAST] = {"multicast", .level = -1,
		.kernel = "IP_ADD_MEMBERSHIP, IPV6_JOIN_GROUP", .type = OPTION_IS_GROUPS,
		.fits = FITS_UDP},
	[OPTION_MULTICAST_TTL] = {"multicast_ttl", IP(IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS),
		.both = true, NUMBER(0, 255), .fits = FITS_UDP},
	[OPTION_MULTICAST_LOOP] = {"multicast_loop", IP(IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP),
		.both = true, BOOL, .fits = FITS_UDP},
	[OPTION_RXQ_OVFL] = {"rxq_ovfl", SOCKET(SO_RXQ_OVFL), BOOL, .fits = FITS_UDP},
	[OPTION_NONBLOCKING] = {"nonblocking", .flag = true, .kernel = "O_NONBLOCK", BOOL,
		.fits = FITS_IP | FITS_UNIX},
};
/* clang-format on */

const struct socket_option_info *socket_option_info(enum socket_option o)
{
	return &table[o];
}

int socket_option_from_key(const char *key, enum socket_option *ret)
{
	for (unsigned i = 0; i < SOCKET_OPTIONS_N; i++) {
		if (!streq(table[i].key, key))
			continue;
		*ret = i;
		return 0;
	}
	return -EINVAL;
}

/* --- what one listener asks for -------------------------------------------- */

void socket_options_done(struct socket_options *o)
{
	free(o->list);
	free(o->groups);
	*o = (struct socket_options){0};
}

static void *copy_array(const void *array, size_t n, size_t size)
{
	void *copy = n > 0 ? calloc(n, size) : NULL;

	if (copy)
		memcpy(copy, array, n * size);
	return copy;
}

int socket_options_copy(const struct socket_options *o, struct socket_options *ret)
{
	struct socket_options copy = {
		.list = copy_array(o->list, o->n, sizeof(*o->list)),
		.n = o->n,
		.groups = copy_array(o->groups, o->n_groups, sizeof(*o->groups)),
		.n_groups = o->n_groups,
	};

	if ((o->n > 0 && !copy.list) || (o->n_groups > 0 && !copy.groups)) {
		socket_options_done(&copy);
		return -ENOMEM;
	}
	for (size_t i = 0; i < copy.n; i++)
		copy.list[i].place = (struct config_place){0};
	*ret = copy;
	return 0;
}

const struct socket_option_setting *socket_options_find(
	const struct socket_options *o, enum socket_option option)
{
	for (size_t i = 0; i < o->n; i++)
		if (o->list[i].option == option)
			return &o->list[i];
	return NULL;
}

bool socket_options_has(const struct socket_options *o, enum socket_option option)
{
	/* The second one decides about the first one too. */
	static const enum socket_option by_another[][2] = {
		{OPTION_RCVBUF,	OPTION_RCVBUF_FORCE},
		{OPTION_RCVBUF_FORCE, OPTION_RCVBUF	   },
		{OPTION_SNDBUF,	OPTION_SNDBUF_FORCE},
		{OPTION_SNDBUF_FORCE, OPTION_SNDBUF	   },
		{OPTION_TCLASS,	OPTION_TOS	  },
		{OPTION_PRIORITY,	  OPTION_TOS	    },
	};

	for (size_t i = 0; i < ARRAY_SIZE(by_another); i++)
		if (option == by_another[i][0] && socket_options_find(o, by_another[i][1]))
			return true;
	return socket_options_find(o, option);
}

int64_t socket_options_value(
	const struct socket_options *o, enum socket_option option, int64_t fallback)
{
	const struct socket_option_setting *s = socket_options_find(o, option);

	return s ? s->value : fallback;
}

int socket_options_set(struct socket_options *o, enum socket_option option, int64_t value,
	const char *text, struct config_place place)
{
	struct socket_option_setting setting = {.option = option, .value = value, .place = place};
	struct socket_option_setting *longer;
	size_t at = 0;

	if (text)
		memcpy(setting.text, text, strnlen(text, SOCKOPT_TEXT_MAX));
	while (at < o->n && o->list[at].option < option)
		at++;
	if (at < o->n && o->list[at].option == option) {
		o->list[at] = setting;
		return 0;
	}
	longer = reallocarray(o->list, o->n + 1, sizeof(*longer));
	if (!longer)
		return -ENOMEM;
	o->list = longer;
	memmove(&o->list[at + 1], &o->list[at], (o->n - at) * sizeof(*o->list));
	o->list[at] = setting;
	o->n++;
	return 0;
}

bool multicast_group_equal(const struct multicast_group *a, const struct multicast_group *b)
{
	return a->family == b->family && memcmp(a->address, b->address, sizeof(a->address)) == 0 &&
	       streq(a->interface, b->interface);
}

static bool groups_include(const struct socket_options *o, const struct multicast_group *g)
{
	for (size_t i = 0; i < o->n_groups; i++)
		if (multicast_group_equal(&o->groups[i], g))
			return true;
	return false;
}

static bool same_groups(const struct socket_options *a, const struct socket_options *b)
{
	for (size_t i = 0; i < a->n_groups; i++)
		if (!groups_include(b, &a->groups[i]))
			return false;
	return a->n_groups == b->n_groups;
}

bool socket_options_same(
	const struct socket_options *a, const struct socket_options *b, enum socket_option option)
{
	const struct socket_option_setting *x, *y;

	if (option == OPTION_MULTICAST)
		return same_groups(a, b);
	x = socket_options_find(a, option);
	y = socket_options_find(b, option);
	return x && y ? x->value == y->value && streq(x->text, y->text) : x == y;
}

/* --- which sockets have it -------------------------------------------------- */

const char *socket_option_misfit(enum socket_option option, const struct address *a)
{
	const struct socket_option_info *info = &table[option];
	bool tcp = info->fits & FITS_TCP, udp = info->fits & FITS_UDP;

	if (!a)
		return NULL;
	if (address_is_unix(a)) {
		if (info->fits & FITS_UNIX)
			return NULL;
		return info->fits & FITS_V6_ONLY ? "is for IPv6, this is a Unix socket"
		       : tcp && udp ? "is for TCP and UDP, whose connections inherit it; this is a "
				      "Unix socket"
		       : tcp	    ? "is for TCP, this is a Unix socket"
				    : "is for UDP, this is a Unix socket";
	}
	if (a->kind == ADDRESS_TCP && !tcp)
		return "is for UDP, this is a TCP address";
	if (a->kind == ADDRESS_UDP && !udp)
		return "is for TCP, this is a UDP address";
	if ((info->fits & FITS_V6_ONLY) && address_family(a) != AF_INET6)
		return "is for IPv6, this is an IPv4 address";
	return NULL;
}

bool socket_options_spread(const struct socket_options *o)
{
	return o->n_groups > 0 || socket_options_value(o, OPTION_BROADCAST, 0) > 0;
}

uint64_t socket_options_defer_usec(const struct socket_options *o)
{
	enum { RETRANSMISSION_MOST = 120 };
	int64_t wanted = socket_options_value(o, OPTION_DEFER_ACCEPT, 0), sum, step;

	/* Until the answer to the SYN is sent again: after 1, 3, 7, 15 ... seconds. */
	for (sum = step = 1; sum < wanted; sum += step)
		step = MIN(2 * step, (int64_t)RETRANSMISSION_MOST);
	return wanted > 0 ? (uint64_t)sum * USEC_PER_SEC : 0;
}

/* --- for the kernel ---------------------------------------------------------- */

static enum sockopt_type kernel_type(const struct socket_option_info *info)
{
	if (info->flag)
		return SOCKOPT_NONBLOCK;
	switch (info->type) {
	case OPTION_IS_LINGER:
		return SOCKOPT_LINGER;
	case OPTION_IS_TEXT:
		return SOCKOPT_TEXT;
	case OPTION_IS_TIME:
		if (info->name == SO_RCVTIMEO || info->name == SO_SNDTIMEO)
			return info->level == SOL_SOCKET ? SOCKOPT_TIMEVAL : SOCKOPT_INT;
		return SOCKOPT_INT;
	case OPTION_IS_BOOL:
	case OPTION_IS_NUMBER:
	case OPTION_IS_SIZE:
	case OPTION_IS_GROUPS:
		return SOCKOPT_INT;
	}
	return SOCKOPT_INT;
}

size_t socket_option_kernel(const struct socket_option_setting *s, const struct address *a,
	bool v6only, struct sockopt ret[static 2])
{
	const struct socket_option_info *info = &table[s->option];
	struct sockopt o = {.type = kernel_type(info), .value = s->value, .tag = s->option};
	bool v6 = address_family(a) == AF_INET6;
	size_t n = 0;

	if (info->level < 0 || (address_is_unix(a) && !(info->fits & FITS_UNIX)))
		return 0;
	memcpy(o.text, s->text, sizeof(o.text));
	if (v6 && info->level_v6 > 0) {
		ret[n] = o;
		ret[n].level = info->level_v6;
		ret[n++].name = info->name_v6;
		if (!info->both || v6only)
			return n;
	}
	ret[n] = o;
	ret[n].level = info->level;
	ret[n++].name = info->name;
	return n;
}

void multicast_group_kernel(const struct multicast_group *g, bool leave, struct sockopt *ret)
{
	*ret = (struct sockopt){
		.type = leave ? SOCKOPT_LEAVE : SOCKOPT_JOIN,
		.family = g->family,
		.tag = OPTION_MULTICAST,
	};
	memcpy(ret->group, g->address, sizeof(ret->group));
	memcpy(ret->text, g->interface, sizeof(ret->text));
}

int64_t socket_option_from_kernel(enum socket_option option, int64_t value)
{
	if (option == OPTION_MARK)
		return (uint32_t)value;
	return table[option].type == OPTION_IS_BOOL ? value != 0 : value;
}

char *socket_option_kernel_name(enum socket_option option, const struct sockopt *o)
{
	const struct socket_option_info *info = &table[option];
	const char *comma = info->level_v6 > 0 ? strchr(info->kernel, ',') : NULL;

	if (!comma)
		return strdup(info->kernel);
	return o->level == info->level_v6 ? strdup(comma + 2)
					  : strndup(info->kernel, (size_t)(comma - info->kernel));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The socket options a listener can be given: which there are, what they may be, which sockets they
 * fit, and what a refusal by the kernel means. socket(7), ip(7), ipv6(7), tcp(7), udp(7). */
#pragma once

#include "base/address.h"
#include "base/error.h"
#include "base/sockopt.h"

/* Where a value was written, for messages: 1-based; line 0: a default, or the command line. */
struct config_place {
	const char *file; /* owned by struct config's file list */
	unsigned line;
	unsigned column;
};

/* In the order in which they are told to the kernel: a type of service sets a priority too. */
#define SOCKET_OPTIONS(X)                                                                          \
	X(REUSEADDR, "reuseaddr")                                                                  \
	X(REUSEPORT, "reuseport")                                                                  \
	X(V6ONLY, "v6only")                                                                        \
	X(BACKLOG, "backlog")                                                                      \
	X(BINDTODEVICE, "bindtodevice")                                                            \
	X(FREEBIND, "freebind")                                                                    \
	X(TRANSPARENT, "transparent")                                                              \
	X(MARK, "mark")                                                                            \
	X(TOS, "tos")                                                                              \
	X(TCLASS, "tclass")                                                                        \
	X(PRIORITY, "priority")                                                                    \
	X(TTL, "ttl")                                                                              \
	X(RCVBUF, "rcvbuf")                                                                        \
	X(RCVBUF_FORCE, "rcvbuf_force")                                                            \
	X(SNDBUF, "sndbuf")                                                                        \
	X(SNDBUF_FORCE, "sndbuf_force")                                                            \
	X(RCVLOWAT, "rcvlowat")                                                                    \
	X(SNDLOWAT, "sndlowat")                                                                    \
	X(RCVTIMEO, "rcvtimeo")                                                                    \
	X(SNDTIMEO, "sndtimeo")                                                                    \
	X(KEEPALIVE, "keepalive")                                                                  \
	X(KEEPIDLE, "keepidle")                                                                    \
	X(KEEPINTVL, "keepintvl")                                                                  \
	X(KEEPCNT, "keepcnt")                                                                      \
	X(LINGER, "linger")                                                                        \
	X(OOBINLINE, "oobinline")                                                                  \
	X(DONTROUTE, "dontroute")                                                                  \
	X(DEBUG, "debug")                                                                          \
	X(INCOMING_CPU, "incoming_cpu")                                                            \
	X(BUSY_POLL, "busy_poll")                                                                  \
	X(NODELAY, "nodelay")                                                                      \
	X(DEFER_ACCEPT, "defer_accept")                                                            \
	X(FASTOPEN, "fastopen")                                                                    \
	X(CONGESTION, "congestion")                                                                \
	X(USER_TIMEOUT, "user_timeout")                                                            \
	X(MAXSEG, "maxseg")                                                                        \
	X(BROADCAST, "broadcast")                                                                  \
	X(MULTICAST, "multicast")                                                                  \
	X(MULTICAST_TTL, "multicast_ttl")                                                          \
	X(MULTICAST_LOOP, "multicast_loop")                                                        \
	X(RXQ_OVFL, "rxq_ovfl")                                                                    \
	X(NONBLOCKING, "nonblocking")

enum socket_option {
#define SOCKET_OPTION_ENUM(id, key) OPTION_##id,
	SOCKET_OPTIONS(SOCKET_OPTION_ENUM)
#undef SOCKET_OPTION_ENUM
};
enum {
#define SOCKET_OPTION_COUNT(id, key) +1
	SOCKET_OPTIONS_N = SOCKET_OPTIONS(SOCKET_OPTION_COUNT)
#undef SOCKET_OPTION_COUNT
};

enum socket_option_type {
	OPTION_IS_BOOL,	  /* 0, 1 */
	OPTION_IS_NUMBER, /* also written in hexadecimal, 0x... */
	OPTION_IS_SIZE,	  /* bytes */
	OPTION_IS_TIME,	  /* written as a duration; a multiple of the unit */
	OPTION_IS_LINGER, /* seconds, -1: off */
	OPTION_IS_TEXT,
	OPTION_IS_GROUPS, /* a list of multicast groups */
};

enum socket_option_fits {
	FITS_TCP = 1 << 0,
	FITS_UDP = 1 << 1,
	FITS_UNIX = 1 << 2,
	FITS_V6_ONLY = 1 << 3, /* not for IPv4 */
};

/* Why the kernel may have something else than it was given. */
enum socket_option_quirk {
	QUIRK_NONE,
	QUIRK_RMEM,	 /* doubled, at most net.core.rmem_max before that */
	QUIRK_WMEM,	 /* the same, net.core.wmem_max */
	QUIRK_DOUBLED,	 /* doubled */
	QUIRK_SOMAXCONN, /* at most net.core.somaxconn */
	QUIRK_DEFER,	 /* up to the next retransmission */
	QUIRK_ECN,	 /* without the two lowest bits */
	QUIRK_HALF,	 /* at most half of the receive buffer */
	QUIRK_TICKS,	 /* up to the next tick */
};

struct socket_option_info {
	const char *key;
	const char *kernel; /* names, for people: "IP_TOS, IPV6_TCLASS" */
	int level, name;    /* of IPv4 sockets, or of all; level -1: no option of setsockopt(2) */
	int level_v6, name_v6; /* where IPv6 sockets have another one; 0, 0: the same */
	bool both;	       /* a dual-stack socket is given both */
	bool flag;	       /* of fcntl(2): level and name say nothing */
	enum socket_option_type type;
	int64_t min, max;   /* in the kernel's unit */
	uint64_t unit_usec; /* OPTION_IS_TIME: the kernel's unit */
	unsigned fits;	    /* set of enum socket_option_fits */
	enum socket_option_quirk quirk;
	const char *privilege; /* what it takes, for the message; NULL: nothing */
	const char *refused;   /* no listener can have it, and why */
	const char *by_itself; /* the daemon sets it, and why; NULL: only who asks has it */
};
const struct socket_option_info *socket_option_info(enum socket_option o);
/* -EINVAL: no such key. */
int socket_option_from_key(const char *key, enum socket_option *ret);

struct multicast_group {
	int family;
	uint8_t address[16];
	char interface[SOCKOPT_TEXT_MAX + 1]; /* "": the kernel chooses */
};

/* One option that was asked for. */
struct socket_option_setting {
	enum socket_option option;
	int64_t value; /* in the kernel's unit */
	char text[SOCKOPT_TEXT_MAX + 1];
	struct config_place place; /* of the value */
};

enum { MULTICAST_GROUPS_MAX = 64 };

/* All that were asked for, each once, in the order of enum socket_option. */
struct socket_options {
	struct socket_option_setting *list;
	size_t n;
	struct multicast_group *groups;
	size_t n_groups;
	struct config_place groups_place;
};
void socket_options_done(struct socket_options *o);
/* A deep copy. The places of the copy are unset: it may outlive the names of the files. 0 or
 * -ENOMEM. */
int socket_options_copy(const struct socket_options *o, struct socket_options *ret);
/* NULL: it was not asked for. Borrowed. */
const struct socket_option_setting *socket_options_find(
	const struct socket_options *o, enum socket_option option);
/* Was it asked for, by this key or by another one for the same thing? */
bool socket_options_has(const struct socket_options *o, enum socket_option option);
/* The value that was asked for, else fallback. */
int64_t socket_options_value(
	const struct socket_options *o, enum socket_option option, int64_t fallback);
/* Ask for one, in place of what was asked for before. text: NULL unless it is a text. 0 or -ENOMEM.
 */
int socket_options_set(struct socket_options *o, enum socket_option option, int64_t value,
	const char *text, struct config_place place);
/* As it is written in a configuration. 0; -EINVAL or -ERANGE with a message that says what would be
 * right; -ENOMEM. Not for OPTION_IS_GROUPS, V6ONLY and BACKLOG, which are kept elsewhere. */
int socket_options_parse(struct socket_options *o, enum socket_option option, const char *text,
	struct config_place place, struct error *ret_error);
/* "239.1.2.3", "239.1.2.3%eth0", or the interface apart (then not NULL). Errors as above. */
int socket_options_add_group(struct socket_options *o, const char *group, const char *interface,
	struct error *ret_error);
bool socket_options_same(
	const struct socket_options *a, const struct socket_options *b, enum socket_option option);

/* Does the option fit a socket of that kind? a NULL: one that is inherited, of which nothing is
 * known yet. NULL, or why not: "is for TCP, this is a UDP address". Static text. */
const char *socket_option_misfit(enum socket_option option, const struct address *a);
/* Do datagrams come to every socket of the port, whatever a program says: multicast, broadcast? */
bool socket_options_spread(const struct socket_options *o);
/* How long a connection may wait for its first byte before it can be accepted, as the kernel rounds
 * it; 0: it does not. Microseconds. */
uint64_t socket_options_defer_usec(const struct socket_options *o);

/* One option, as the kernel of a socket bound to a takes it: none, one, or two (dual-stack) for
 * each, with the value that was asked for. ret: room for 2. Not for OPTION_IS_GROUPS. Returns how
 * many. */
size_t socket_option_kernel(const struct socket_option_setting *s, const struct address *a,
	bool v6only, struct sockopt ret[static 2]);
/* What the kernel says of an option, as it would be asked for. */
int64_t socket_option_from_kernel(enum socket_option option, int64_t value);
/* "IP_TOS": what the kernel calls that one of an option. The caller frees. */
char *socket_option_kernel_name(enum socket_option option, const struct sockopt *o);
void multicast_group_kernel(const struct multicast_group *g, bool leave, struct sockopt *ret);
bool multicast_group_equal(const struct multicast_group *a, const struct multicast_group *b);
/* "239.1.2.3%eth0". The caller frees; NULL: out of memory. */
char *multicast_group_format(const struct multicast_group *g);
/* A value, as it is written in a configuration, shortest form: "true", "5s", "64K", "off". The
 * caller frees; NULL: out of memory. */
char *socket_option_format(enum socket_option option, int64_t value, const char *text);
/* What the kernel's answer (-errno) to setting it means, and the remedy. value and text: what was
 * asked for. The caller frees; NULL: out of memory. */
char *socket_option_refusal(enum socket_option option, int64_t value, const char *text, int code);
/* Limits of this machine that explain an actual value; 0: not known. */
struct socket_option_limits {
	int64_t rmem_max, wmem_max, somaxconn;
};
/* Why the kernel says something else than was asked for: it doubles, clamps, rounds. NULL: no
 * reason is known (or there is no difference), or out of memory. The caller frees. */
char *socket_option_note(enum socket_option option, int64_t wanted, int64_t actual,
	const struct socket_option_limits *limits);

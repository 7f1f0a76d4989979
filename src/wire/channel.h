/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon and a worker say to each other over the worker's channel: a SOCK_SEQPACKET socket
 * whose number the worker finds in $TENURE_CHANNEL (handoff: channel). One packet is one message, a
 * few lines of text, so that a program without libtenure can speak it too:
 *
 *     tenure/1 KIND
 *     KEY=value
 *     ...
 *
 * Descriptors travel beside a packet (SCM_RIGHTS), at most CHANNEL_FDS_MAX with each: who has more
 * to say of one name sends several messages.
 *
 *     from the worker   hello      once, by whoever serves the channel: version, accepts
 *                       pong       the answer to ping: id
 *                       taken      a listener that was added is accepted from: name
 *                       closed     a listener that was removed is closed, or one that was added
 *                                  could not be taken, and is to be offered again: name
 *                       store      keep these descriptors for my place: name, poll
 *                       unstore    forget those: name
 *     from the daemon   welcome    the answer to hello: version, service, generation, worker
 *                       refused    the answer to a message of another version: version, the one
 * that it speaks. Nothing else will come: a drain comes by signal ping       is your loop alive: id
 *                       drain      finish what you have, and exit: deadline
 *                       add        one more listener, with its descriptor: name, type, address
 *                       leave      that listener gets no new connections any more; go on
 *                                  accepting: name
 *                       remove     its queue is empty: close it: name
 *                       stored     kept for your place by your predecessor, with the descriptors:
 *                                  name
 *
 * Kinds and keys that the reader does not know are skipped: so the version only grows when what is
 * known changes its meaning. The first line has the version that a packet is written in; hello's
 * the newest that the worker speaks, and welcome's the newest that both do. Nothing here trusts
 * what it reads. */
#pragma once

#include "base/util.h"

enum {
	CHANNEL_VERSION = 1,
	CHANNEL_MESSAGE_MAX = 2048, /* bytes of a packet */
	CHANNEL_FDS_MAX = 253,	    /* descriptors beside one: the kernel's own limit */
	CHANNEL_NAME_MAX = 255,
	CHANNEL_ADDRESS_MAX = 511,
};

#define CHANNEL_KINDS(X)                                                                           \
	X(HELLO, "hello")                                                                          \
	X(PONG, "pong")                                                                            \
	X(TAKEN, "taken")                                                                          \
	X(CLOSED, "closed")                                                                        \
	X(STORE, "store")                                                                          \
	X(UNSTORE, "unstore")                                                                      \
	X(WELCOME, "welcome")                                                                      \
	X(PING, "ping")                                                                            \
	X(DRAIN, "drain")                                                                          \
	X(ADD, "add")                                                                              \
	X(LEAVE, "leave")                                                                          \
	X(REMOVE, "remove")                                                                        \
	X(STORED, "stored")                                                                        \
	X(REFUSED, "refused")

enum channel_kind {
	CHANNEL_UNKNOWN, /* of a newer version: to be skipped */
#define X(name, text) CHANNEL_##name,
	CHANNEL_KINDS(X)
#undef X
};

/* What a worker's loop knows how to do, by hello. */
enum channel_accepts {
	CHANNEL_ACCEPTS_DRAIN = 1 << 0,	      /* instead of the drain signal */
	CHANNEL_ACCEPTS_LISTENERS = 1 << 1,   /* added and removed while it runs */
	CHANNEL_ACCEPTS_PING = 1 << 2,	      /* its pongs are its watchdog's heartbeat */
	CHANNEL_ACCEPTS_DESCRIPTORS = 1 << 3, /* of its predecessor, that are stored later */
};

enum channel_type { CHANNEL_STREAM, CHANNEL_DATAGRAM, CHANNEL_SEQPACKET };

/* A kind's values are those that its line above names; others are zero, and not sent. */
struct channel_message {
	enum channel_kind kind;
	unsigned version;
	unsigned accepts; /* set of enum channel_accepts */
	uint64_t id;
	uint64_t deadline_usec; /* CLOCK_MONOTONIC; USEC_INFINITY: none */
	unsigned generation, worker;
	bool no_poll; /* keep what is stored also when it hangs up */
	enum channel_type type;
	char name[CHANNEL_NAME_MAX + 1];       /* printable ASCII without ':', not empty */
	char address[CHANNEL_ADDRESS_MAX + 1]; /* as the configuration writes it; may be empty */
	char service[CHANNEL_NAME_MAX + 1];
};

/* len bytes, of one packet. 0; -EPROTONOSUPPORT: of a version that cannot be read, which is
 * ret->version; -EBADMSG: no message, or one that lacks a value its kind needs. ret is written in
 * any case, and owns nothing.
 */
int channel_parse(const void *data, size_t len, struct channel_message *ret);
/* The packet's length, without a NUL behind it; -EINVAL: a value cannot be sent. */
int channel_format(const struct channel_message *m, char ret[static CHANNEL_MESSAGE_MAX]);
/* May descriptors be stored under that name? */
bool channel_name_valid(const char *name);
const char *channel_kind_to_string(enum channel_kind kind); /* "hello"; "unknown" */

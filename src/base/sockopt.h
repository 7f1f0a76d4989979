/* SPDX-License-Identifier: Apache-2.0 */
/* One socket option as setsockopt(2) takes it, or a flag of fcntl(2): what the core asks for and
 * the kernel layer does. */
#pragma once

#include "base/util.h"

enum sockopt_type {
	SOCKOPT_INT,	 /* int */
	SOCKOPT_LINGER,	 /* struct linger; value: seconds, -1: off */
	SOCKOPT_TIMEVAL, /* struct timeval; value: microseconds */
	SOCKOPT_TEXT,	 /* the name of an algorithm or an interface; "": none */
	SOCKOPT_JOIN,	 /* membership of a multicast group; text: the interface, "": any */
	SOCKOPT_LEAVE,
	SOCKOPT_NONBLOCK, /* O_NONBLOCK of the open file, which all who have the socket share */
};

enum { SOCKOPT_TEXT_MAX = 15 };

struct sockopt {
	int level, name;
	enum sockopt_type type;
	int64_t value;
	char text[SOCKOPT_TEXT_MAX + 1];
	uint8_t group[16]; /* SOCKOPT_JOIN, SOCKOPT_LEAVE: network order; IPv4: the first 4 */
	int family;	   /* of group */
	unsigned tag;	   /* the caller's */
};

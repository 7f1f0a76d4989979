/* SPDX-License-Identifier: Apache-2.0 */
/* Which socket of a SO_REUSEPORT group a new connection goes to: shares -> a classic BPF program.
 * bpf(4)-style sock_filter, attached by SO_ATTACH_REUSEPORT_CBPF (socket(7)). The program runs with
 * the packet's data at the transport payload; the network header is at SKF_NET_OFF.
 *
 * Two draws: a number % 10000 chooses the lane by weight, a second one the socket in the lane; so
 * weights are exact and sockets of a lane get equal parts. The numbers are random, or hashes of the
 * client, and lanes have their parts of the range in the order given. Indices of a lane may be any
 * set; runs of neighbours are one range in the program. Before that, source rules: probes and
 * previews go to the lane they name whatever its weight. */
#pragma once

#include <linux/filter.h>

#include "base/util.h"

enum {
	/* BPF_MAXINSNS. Where net.core.optmem_max is 20480, as before Linux 6.7, attaching more
	 * than about 2500 fails with ENOMEM: two lanes of 400 sockets each that alternate. */
	STEERING_INSTRUCTIONS_MAX = 4096,
	STEERING_LANES_MAX = 16,
	STEERING_RULES_MAX = 64,
};

/* How a share is drawn, and the socket in the lane that got it. */
enum steering_draw {
	STEERING_RANDOM, /* for each connection anew */
	STEERING_CLIENT, /* by the client's address (of IPv6 the /64), so that one client stays with
			    its lane while the first lane's share only grows, and, while the lane's
			    set of sockets stays the same, with its socket */
	STEERING_FLOW,	 /* by address and port of the client: datagrams of one flow stay together.
			    Packets with IPv4 options or IPv6 extension headers: by address alone */
	STEERING_CPU,	 /* by the CPU on which it arrives; for the socket in the lane only */
};

struct steering_lane {
	unsigned weight;	 /* 0..10000; over all lanes exactly 10000 */
	const uint32_t *indices; /* of the group's array; borrowed; any order, distinct */
	size_t n_indices;	 /* at least 1 where weight > 0 */
	const uint32_t *cpus;	 /* STEERING_CPU: the CPU of each of indices, borrowed; where a
				    connection arrives on another, or with NULL, it is drawn by
				    chance */
	enum steering_draw draw; /* of the socket */
};

struct steering_rule {
	int family;		 /* AF_INET or AF_INET6: of the packet */
	uint8_t source[16];	 /* 4 or 16 bytes used */
	uint16_t source_port;	 /* host order; 0: any. A packet with IPv4 options or IPv6 extension
				    headers never matches a port. */
	const uint32_t *indices; /* at least 1; borrowed; evenly spread when more */
	size_t n_indices;
	enum steering_draw draw; /* of the socket; CPU: as RANDOM */
};

struct steering {
	enum steering_draw lane_draw;
	uint32_t seed; /* of a lane's draw by CLIENT or FLOW: another one chooses other clients
			  first. The draw of a socket has nothing to do with it. */
	struct steering_lane lanes[STEERING_LANES_MAX];
	size_t n_lanes;
	struct steering_rule rules[STEERING_RULES_MAX]; /* first match wins */
	size_t n_rules;
};

/* The program. Every path ends in an index that was given. ret: room for STEERING_INSTRUCTIONS_MAX.
 * 0; -EINVAL: weights do not sum to 10000, a weighted lane or a rule without sockets or with one
 * twice, too many lanes or rules, a lane drawn by CPU; -E2BIG: too long (the caller then drops
 * rules first, then draws by CPU); -ENOMEM. */
int steering_compile(const struct steering *s, struct sock_filter *ret, size_t *ret_n);

/* SPDX-License-Identifier: Apache-2.0 */
/* The model of one listener's SO_REUSEPORT array. The kernel offers no way to ask for it, so we
 * repeat what it does: a socket that begins to listen goes to the end; when one leaves, the last
 * moves into its place. Sockets are named by lane (which generation's) and slot (which worker's; 0
 * alone when shared).
 *
 * Other programs of our user can join the group behind our back, and leave it again; then the last
 * member moves into their place too. Which of them is where cannot be told, nor need it: what is
 * known is the places that are not ours to name (LANES_OTHER). Whoever adds a socket behind such
 * places adds as many unused ones (guards) behind it, so that it is a guard that moves. */
#pragma once

#include "base/util.h"

/* Lanes that are no generation's. */
enum {
	LANES_DISCARDED = UINT32_MAX - 1, /* of sockets that are about to be closed */
	/* A stranger's socket or a guard: some of these places belong to the ones, some to the
	 * others. Their fd is -1. */
	LANES_OTHER = UINT32_MAX - 2,
	/* A socket of ours that cannot be closed or used: it keeps its place, and nobody gets it.
	 */
	LANES_PUT_ASIDE = UINT32_MAX - 3,
};

struct lane_socket {
	unsigned lane;
	unsigned slot;
	int fd; /* kept for the caller, never used here */
};

struct lanes {
	struct lane_socket *sockets; /* [i] is index i of the kernel's array */
	size_t n, capacity;
};

void lanes_done(struct lanes *l); /* does not close fds */
/* A socket that has begun to listen: its index, or -ENOMEM, -EEXIST (that lane and slot are there).
 */
int lanes_append(struct lanes *l, unsigned lane, unsigned slot, int fd);
/* A socket that has left: *ret_fd (may be NULL) is its fd. 0 or -ENOENT. */
int lanes_remove(struct lanes *l, unsigned lane, unsigned slot, int *ret_fd);
/* It was shut down and listens again: its new index, the last; or -ENOENT. */
int lanes_relisten(struct lanes *l, unsigned lane, unsigned slot);
/* The socket, or NULL. Valid until the next change. */
struct lane_socket *lanes_find(const struct lanes *l, unsigned lane, unsigned slot);
/* Index in the array, or -ENOENT. */
int lanes_index(const struct lanes *l, unsigned lane, unsigned slot);
/* How many slots the lane has (its highest slot + 1). */
unsigned lanes_slots(const struct lanes *l, unsigned lane);
/* One more that is not ours to name, at the end. 0 or -ENOMEM. */
int lanes_append_other(struct lanes *l);
/* That many strangers or guards have left, from wherever they were. 0; -ESTALE: there were not
 * enough others at the end, so one of ours has moved, and where to is a guess. */
int lanes_others_left(struct lanes *l, size_t n);
/* How many others there are behind the last one of ours: as many strangers may leave without one of
 * ours being moved. */
size_t lanes_others_at_end(const struct lanes *l);
/* Indices of the lane's sockets whose slot is set in active (n_active entries; NULL: all), into ret
 * (room for l->n). Returns how many. */
size_t lanes_indices(
	const struct lanes *l, unsigned lane, const bool *active, size_t n_active, uint32_t *ret);

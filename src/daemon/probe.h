/* SPDX-License-Identifier: Apache-2.0 */
/* A probe: one connection of our own that is steered to a lane by its source address and port,
 * whatever the lane's share. It proves that somebody accepts there, on the real port, before any
 * client sees it. */
#pragma once

#include "daemon/listener.h"

enum probe_state {
	PROBE_WAITING,	/* on its way, or in the queue */
	PROBE_ACCEPTED, /* a process took it */
	PROBE_FAILED,	/* refused or reset: begin another */
};

struct probe {
	struct listener *listener;
	int fd; /* -1: none */
	unsigned rule;
	unsigned lane, slot;
	struct address local, peer; /* as the client sees them */
	enum probe_state state;
	uint64_t inode; /* of the accepted socket, when it is known */
	bool readable;	/* the other side spoke or closed */
	bool ended;	/* we said that nothing will come */
};

#define PROBE_NULL ((struct probe){.fd = -1})

/* Begin; p must be PROBE_NULL or done. 0 or -errno (-ENOSPC: too many rules at the moment, try
 * later). */
int probe_begin(struct probe *p, struct listener *l, unsigned lane, unsigned slot);
/* Look: one or two system calls. nl: sock_diag, or -1. */
enum probe_state probe_look(struct probe *p, int nl);
/* Close it and drop its rule. */
void probe_done(struct probe *p);

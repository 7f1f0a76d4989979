/* SPDX-License-Identifier: Apache-2.0 */
/* One look at who has which connection, in small pieces: first the descriptors of all processes of
 * the workers in question, then the kernel's list of connections, if they have any sockets but ours
 * to accept from. A connection is a worker's when one of its processes holds the accepted socket.
 * Mechanism only: when to look, and for whom, is connections.c. */
#pragma once

#include <netinet/in.h>

#include "base/idmap.h"
#include "daemon/manager.h"
#include "sys/process.h"
#include "sys/sockdiag.h"

struct walk;

/* A worker. Results are valid when the walk is done. */
struct walk_target {
	size_t service; /* index into the walk's services */
	unsigned generation, worker;
	pid_t pid;
	int error;  /* 0, or why n is not known: -errno */
	unsigned n; /* connections */
	bool has_sockets;
};

/* A connection of a service, while the walk goes on. target NULL: none of the workers looked at has
 * accepted it (yet). */
typedef void (*walk_connection_fn)(size_t service, const struct walk_target *target,
	const struct sockdiag_entry *e, void *userdata);

struct walk_place; /* where a service's connections come in */

struct walk {
	uint64_t started_usec;		  /* CLOCK_MONOTONIC */
	uint64_t busy_usec, longest_usec; /* of the processor: in all, and in one walk_run() */
	bool nobodys; /* those that no worker has are wanted, too; the caller's to set */
	struct walk_target *targets;
	size_t n_targets, targets_capacity;
	int error; /* 0, or why not all connections were seen: -errno */
	walk_connection_fn function;
	void *userdata;
	/* walk's own */
	enum { WALK_FAMILY, WALK_SOCKETS, WALK_TCP, WALK_UNIX, WALK_DONE } phase;
	size_t n_services;
	struct walk_place *places;
	size_t n_places, places_capacity;
	struct idmap sockets; /* by inode: whose it is */
	size_t at;	      /* target whose processes are looked at */
	bool backwards;
	struct process_family family;
	size_t at_process;
	struct process_sockets reader;
	bool reading;
	struct sockdiag_dump dump;
	bool dumping;
};

/* function may be NULL. backwards: the last target is looked at first, so that in the long run none
 * is looked at earlier than others. NULL: out of memory. */
struct walk *walk_new(
	uint64_t now_usec, bool backwards, walk_connection_fn function, void *userdata);
struct walk *walk_free(struct walk *w);
#define _cleanup_walk_ _cleanup_(walk_free_p)
static inline void walk_free_p(struct walk **w)
{
	*w = walk_free(*w);
}
/* Its listeners as they are now. Returns the service's index, or -ENOMEM. */
int walk_add_service(struct walk *w, const struct manager_service *s);
/* A worker's process, of the service added last. 0 or -ENOMEM. */
int walk_add_target(struct walk *w, unsigned generation, unsigned worker, pid_t pid);
/* Can connections of this service be told at all? Those of UDP cannot. */
bool walk_can_know(const struct walk *w, size_t service);
/* Go on for about that long, at least one step. True: it is done. */
bool walk_run(struct walk *w, uint64_t usec);
uint64_t walk_now(void); /* CLOCK_MONOTONIC, not the loop's */

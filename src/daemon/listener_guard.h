/* SPDX-License-Identifier: Apache-2.0 */
/* Strangers in our groups. Another user's program cannot join one: the kernel compares the users.
 * One of our own user can, if it sets SO_REUSEPORT, and then the array has members that we did not
 * put there. They are looked for (sock_diag(7), microseconds for a port), reported, and kept in the
 * model; guards, sockets that the program never names, see to it that a stranger's leaving moves
 * none of ours. */
#pragma once

#include <jansson.h>
#include <sys/types.h>

#include "base/address.h"

struct listener;

/* A socket that is not ours and takes part in what comes to our address. */
struct listener_foreign {
	uint64_t inode;
	struct address address;
	uid_t uid;
	pid_t pid; /* 0: not found, or not yet */
	char *program;
	bool member; /* of the group; else it is more specific than ours, and gets what is for it */
	bool silent; /* a connected UDP socket: it gets its own peer's only, but may have a place */
	bool sought; /* by the search that is under way, from its beginning */
	bool reported; /* with its process, if that was found */
};
struct guard_search;

enum { LISTENER_GUARDS_MAX = 256 };

/* What listener_guard.c knows of a listener. */
struct listener_guard {
	struct listener_foreign *foreign;
	size_t n_foreign, foreign_capacity;
	int *fds; /* of guards, in no order */
	size_t n_fds, fds_capacity;
	uint64_t looked_usec;
	bool failed;		     /* reported already */
	struct guard_search *search; /* for their processes; NULL: none */
};

/* Look now: at each attachment that comes by the clock, and before sockets join or leave. */
void listener_guard_look(struct listener *l);
/* Look if the last look is older than a few seconds: for who asks. */
void listener_guard_look_again(struct listener *l);
/* After sockets have joined that nobody has been given yet, those from the mark on in l->lanes: if
 * strangers have come or gone since the last look they can be at other places than we think, and so
 * join anew, one by one, until nothing has happened meanwhile. (Who came and went between
 * two looks is not noticed.) 0 or -errno. */
int listener_guard_settle(struct listener *l, size_t mark);
/* No stranger was in the group at the last look. */
bool listener_guard_is_alone(const struct listener *l);
/* Would the next socket that is bound go astray? One of our user that is bound to a specific UDP
 * address and connected has left the group, but is the first that the kernel finds there: who joins
 * joins it, in a group that has no program, and gets what is for others. */
bool listener_guard_catches(struct listener *l);
void listener_guard_done(struct listener *l);
/* Before any of ours has joined: whoever is at our very address is one of the others, in whatever
 * order. They are an earlier daemon's, so nobody is warned. 0 or -errno. */
int listener_guard_meet(struct listener *l);
/* listener_guard_restore.c. The next daemon goes on with all of it: forget it, and close our
 * descriptors only. */
void listener_guard_leave(struct listener *l);
/* What is known, as a value to be saved. NULL: out of memory. */
json_t *listener_guard_save(const struct listener *l);
/* Take it back, with what the keeper has of the guards; the model of l is loaded. 0, -ENOMEM or
 * -EBADMSG. Then listener_guard_watch(), when those that are gone have left the model. */
int listener_guard_restore(struct listener *l, const json_t *value);
int listener_guard_watch(struct listener *l);

/* listener_guard_report.c. Find out who is there that was not reported yet, and report it: later,
 * from the event loop. */
void listener_guard_report(struct listener *l);
void listener_guard_report_gone(struct listener *l, const struct listener_foreign *f);
/* Nobody wants to know any more. */
void listener_guard_report_end(struct listener *l);

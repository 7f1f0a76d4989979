/* SPDX-License-Identifier: Apache-2.0 */
/* A listener of a service as the daemon holds it: the group of sockets with its lanes and program,
 * or the one held socket. */
#pragma once

#include <systemd/sd-event.h>

#include "base/error.h"
#include "core/config.h"
#include "core/lanes.h"
#include "core/service.h"
#include "core/steering.h"
#include "daemon/listener_guard.h"

enum listener_kind { LISTENER_GROUP, LISTENER_HELD };

struct activation_socket;
struct manager_service;
struct listener_sockopts;

/* A source rule that is wanted for now: a probe, or preview_from. */
struct listener_rule {
	unsigned id;
	struct steering_rule rule; /* without indices */
	unsigned lane;
	unsigned slot; /* or LISTENER_ANY_SLOT */
};
enum { LISTENER_ANY_SLOT = UINT32_MAX };

/* A socket in the event loop. */
struct listener_watch {
	struct listener *listener;
	int fd;
	unsigned lane, slot;
	unsigned dropped; /* by the kernel, when it was looked at last */
	sd_event_source *source;
};

struct listener {
	struct manager_service *service;
	unsigned id; /* its bit in masks is 1 << id */
	struct listener_config config;
	enum listener_kind kind;
	const char *held_reason;	 /* static text, or held_text; NULL for a group */
	char *held_text;		 /* that an earlier daemon found; else NULL */
	struct lanes lanes;		 /* group: every socket; held: one entry */
	struct listener_watch **watches; /* one per socket, in no order */
	size_t n_watches, watches_capacity;
	int hangups_fd; /* group: epoll, tells the order in which sockets were shut down; or -1 */
	struct listener_rule *rules;
	size_t n_rules, rules_capacity;
	unsigned next_rule;
	dev_t dev; /* Unix: of the path */
	ino_t ino;
	struct listener_sockopts *sockopts; /* what each socket is told (listener_options.h) */
	uint64_t resets;		    /* stragglers that had to be reset */
	bool dirty_lanes[CONFIG_GENERATIONS_MAX + 2]; /* to be replaced before use */
	/* As the generation in that lane was given them: the configuration may have changed since.
	 */
	bool per_worker_lanes[CONFIG_GENERATIONS_MAX + 2];
	struct listener_guard guard; /* strangers, and against them */
	bool steer_failed;	     /* reported already */
	bool changed;		     /* since it was saved */
	uint64_t warned_usec;	     /* the last warning of a kind that could come often */
	uint64_t dropped;	     /* by the kernel, of all its sockets */
	uint64_t warned_drops_usec;
	/* listener_live.c: it is about to be closed, while workers run */
	bool leaving, left;
	uint64_t leave_until_usec; /* CLOCK_MONOTONIC: then without further waiting */
	sd_event_source *leave_timer;
	/* listener_inherit.c */
	struct activation_socket *inherited; /* in the manager's list; NULL: our own */
	bool adopted; /* inherited is ours alone: the socket of a process that still runs */
	unsigned adopted_from; /* adopted: the generation that it is */
	bool owner_kept;       /* it was so; further members need the uid of the first */
	uid_t owner_uid;
	sd_event_source *path_watch; /* adopted, of a Unix socket: its path is kept */
	int inherited_fd;	     /* a duplicate of ours; also one of lanes' */
	bool inherited_placed;	     /* in the lane of the first generation that uses it */
	bool came_grouped;	     /* how it came */
	int came_flags;
	int worker_flags;		    /* as its workers have set them: to be put back */
	struct socket_options came_options; /* that are not the kernel's defaults */
};
enum { LISTENER_LANES_AT_START = 2 }; /* made at the start, with the uid the group needs */

/* Bind (both lanes for a group) and listen; new connections wait in lane `lane`. Errors say who
 * holds the port. may_group false: held (the kernel's self-test failed). */
int listener_open(struct manager_service *s, const struct listener_config *c, unsigned id,
	bool may_group, unsigned lane, struct listener **ret, struct error *ret_error);
/* Close all sockets, remove a Unix path that is still ours. Returns NULL. */
struct listener *listener_close(struct listener *l);
/* Make sure lane has slots 0..n-1, clean ones, or one for all of its workers. It may have more. */
int listener_prepare_lane(struct listener *l, unsigned lane, unsigned n_workers, bool per_worker,
	struct error *ret_error);
/* The socket a worker gets (borrowed), or -1. */
int listener_socket(const struct listener *l, unsigned lane, unsigned slot);
/* Any of our own: what is the group's can be said or asked at each. -1: there is none. */
int listener_any_socket(const struct listener *l);
/* Compile and attach from the service's state. */
void listener_steer(struct listener *l);
/* Which sockets nobody serves are watched and reset (from the service's state). */
void listener_watch_idle(struct listener *l);
/* Put right what workers may have done to it for everybody: called listen(2) with a number of their
 * own, removed the path. */
void listener_mend(struct listener *l);
/* Connections waiting in the worker's queue (slot, or the shared one), over this listener. */
unsigned listener_queue(const struct listener *l, unsigned lane, unsigned slot);
/* Wake those who wait on the lane's shared sockets. */
void listener_nudge(struct listener *l, unsigned lane);
/* The lane's sockets may still be held by a process that could not be ended: replace them before
 * the next use. */
void listener_taint_lane(struct listener *l, unsigned lane);
/* Add or change backlog and such in place. */
void listener_update(struct listener *l, const struct listener_config *c);
/* Steer connections from a source to lane (slot) for as long as the rule exists. Returns its id (>
 * 0) or -errno. */
int listener_add_rule(struct listener *l, int family, const uint8_t source[static 16],
	uint16_t port, unsigned lane, unsigned slot);
void listener_drop_rule(struct listener *l, unsigned id);
/* Watch every socket for being shut down; idle ones for stragglers (listener_watch.c). Used by
 * listener.c. */
int listener_watch_add(struct listener *l, int fd);
void listener_watch_drop(struct listener *l, int fd);
/* May we warn now? At most once a minute. */
bool listener_may_warn(struct listener *l);
bool listener_may_warn_again(const struct listener *l, uint64_t *warned_usec);
/* For listener_inherit.c and listener_datagram.c. Why options make it one that cannot be steered
 * (static text), or NULL. */
const char *listener_held_by_options(const struct listener_config *c);
unsigned listener_slots_at_start(const struct listener *l);
/* Whose sockets may join the group. */
uid_t listener_group_uid(const struct listener *l);
/* The path of a Unix socket, if it was removed; says so. */
void listener_keep_path(struct listener *l);
/* A socket that may join the group, bound; not listening, and a UDP one joined. fd or -errno. */
int listener_bind_member(struct listener *l);
int listener_keep_socket(struct listener *l, unsigned lane, unsigned slot, int *fd_take);
int listener_add_member(struct listener *l, unsigned lane, unsigned slot);
/* Another socket in the place of one that became useless. left: the kernel has taken that one out
 * of the group already. */
int listener_replace_socket(struct listener *l, unsigned lane, unsigned slot, bool left);
bool listener_lane_has_share(const struct listener *l, unsigned lane);
/* All but the inherited one, which is only let go. */
void listener_close_sockets(struct listener *l);
/* listener_datagram.c: a UDP socket that a worker has shut down or connected, for all who hold it.
 * True: the sockets are others now. */
bool listener_mend_datagram(struct listener *l, int fd);
/* Look at what the kernel has dropped; warn when it grew. The sum since the sockets were made. */
uint64_t listener_look_at_drops(struct listener *l);
/* A Unix socket at the listener's path, with the owner and mode that are wanted: the fd, or -errno,
 * with a message when it is about the owner. */
int listener_open_unix(const struct listener *l, struct error *ret_error);
/* A held Unix socket was shut down by a worker and has been bound anew: the workers must be
 * replaced (service_request.c). */
void manager_service_listener_replaced(struct manager_service *s);
/* Has each worker of the lane's generation a socket of its own? */
bool listener_lane_is_per_worker(const struct listener *l, unsigned lane);
/* "127.0.0.1:8080 ..."; the caller frees. */
char *listener_address(const struct listener *l);

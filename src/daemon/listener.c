/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes in the flesh. The order of the array is the order of listen(2); we keep it in struct lanes
 * and never let a program name an index that is not there, because the kernel would then choose
 * among all members, idle lanes included. */
#include "daemon/listener_internal.h"

#include "daemon/adopt.h"
#include "daemon/listener_inherit.h"
#include "daemon/listener_options.h"
#include "daemon/listener_refused.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/restore_blind.h"
#include "daemon/state_save.h"
#include "sys/listen.h"
#include "sys/process.h"
#include "sys/sockdiag.h"
#include "sys/user.h"

bool listener_lane_is_per_worker(const struct listener *l, unsigned lane)
{
	return lane < ARRAY_SIZE(l->per_worker_lanes) && l->per_worker_lanes[lane];
}

char *listener_address(const struct listener *l)
{
	return address_format(&l->config.address);
}

static void options_of(const struct listener *l, struct listen_options *ret)
{
	const struct listener_config *c = &l->config;

	l->sockopts->refused = SIZE_MAX;
	*ret = (struct listen_options){
		.blocking = !socket_options_value(&c->options, OPTION_NONBLOCKING, 0),
		.backlog = c->backlog,
		.v6only = c->v6only,
		.options = l->sockopts->list,
		.n_options = l->sockopts->n,
		.ret_refused = &l->sockopts->refused,
		.mode = c->mode,
		.mode_set = c->mode_set,
		.owner = (uid_t)-1,
		.group = (gid_t)-1,
		.socket_uid = (uid_t)-1,
	};
}

static int resolve_owner(
	const struct listener_config *c, struct listen_options *o, struct error *ret_error)
{
	_cleanup_user_ struct user user = {0};
	int r;

	if (c->owner) {
		r = user_lookup(c->owner, NULL, &user);
		if (r < 0)
			return error_set(
				ret_error, r, "listener %s: no user %s", c->name, c->owner);
		o->owner = user.uid;
	}
	if (c->group && (r = group_lookup(c->group, &o->group)) < 0)
		return error_set(ret_error, r, "listener %s: no group %s", c->name, c->group);
	return 0;
}

/* The connections that come to it can be told from those of other lanes. */
static void tag(const struct listener *l, int fd, unsigned lane)
{
	if (l->kind == LISTENER_GROUP && l->config.address.kind == ADDRESS_TCP)
		(void)listen_tag(fd, lane % LISTEN_TAGS);
}

int listener_keep_socket(struct listener *l, unsigned lane, unsigned slot, int *fd_take)
{
	int *fd = fd_take, r = lanes_append(&l->lanes, lane, slot, *fd);

	if (r < 0)
		return r;
	r = listener_watch_add(l, *fd);
	if (r < 0) {
		(void)lanes_remove(&l->lanes, lane, slot, NULL);
		return r;
	}
	(void)store_add(l->service->manager->store,
		*fd == l->inherited_fd ? STORED_INHERITED : STORED_LISTENER, *fd);
	l->changed = true;
	tag(l, *fd, lane);
	*fd = -1;
	return 0;
}

/* A group belongs to the user who made its first socket. */
uid_t listener_group_uid(const struct listener *l)
{
	if (l->inherited)
		return l->inherited->uid;
	return l->owner_kept ? l->owner_uid : geteuid();
}

int listener_bind_member(struct listener *l)
{
	_cleanup_close_ int fd = -1;
	struct listen_options o;

	if (listener_guard_catches(l))
		return -EBUSY;
	options_of(l, &o);
	if (listener_group_uid(l) != geteuid())
		o.socket_uid = listener_group_uid(l);
	fd = listen_open_member(&l->config.address, &o);
	if (fd < 0)
		return fd;
	/* It may have come at the same moment. */
	if (listener_guard_catches(l)) {
		listen_shutdown_take(&fd);
		return -EBUSY;
	}
	return TAKE_FD(fd);
}

int listener_add_member(struct listener *l, unsigned lane, unsigned slot)
{
	_cleanup_close_ int fd = listener_bind_member(l);
	int r;

	if (fd < 0)
		return fd;
	r = listen_start(fd, l->config.backlog);
	return r < 0 ? r : listener_keep_socket(l, lane, slot, &fd);
}

unsigned listener_slots_at_start(const struct listener *l)
{
	return l->config.sockets == SOCKETS_PER_WORKER ? MAX(1u, l->service->config->workers) : 1;
}

static int open_group(struct listener *l, unsigned lane)
{
	/* Nobody serves yet and there is one socket: everything to it, so that there is no
	 * unsteered instant. */
	struct sock_filter first = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = {.len = 1, .filter = &first};
	_cleanup_close_ int fd = -1;
	struct listen_options o;
	int r;

	options_of(l, &o);
	fd = listen_open_first(&l->config.address, &o, &program);
	if (fd < 0)
		return fd;
	r = listen_start(fd, o.backlog);
	if (r >= 0)
		r = listener_keep_socket(l, lane, 0, &fd);
	for (unsigned slot = 1; r >= 0 && slot < listener_slots_at_start(l); slot++)
		r = listener_add_member(l, lane, slot);
	for (unsigned other = 0; r >= 0 && other < LISTENER_LANES_AT_START; other++)
		for (unsigned slot = 0;
			other != lane && r >= 0 && slot < listener_slots_at_start(l); slot++)
			r = listener_add_member(l, other, slot);
	return r < 0 ? r : listener_guard_settle(l, 1);
}

int listener_open_unix(const struct listener *l, struct error *ret_error)
{
	struct listen_options o;
	int r;

	options_of(l, &o);
	r = resolve_owner(&l->config, &o, ret_error);
	return r < 0 ? r : listen_open_unix(&l->config.address, &o);
}

static int open_held(struct listener *l, struct error *ret_error)
{
	_cleanup_close_ int fd = -1;
	struct listen_options o;
	int r;

	fd = blind_take(l->service->manager->blind, &l->config.address);
	if (address_is_unix(&l->config.address)) {
		if (fd < 0)
			fd = listener_open_unix(l, ret_error);
		if (fd < 0)
			return fd;
		r = listen_path_identity(&l->config.address, &l->dev, &l->ino);
		if (r == -EOPNOTSUPP || r == -EINVAL)
			r = 0; /* an abstract name has no path */
	} else if (fd >= 0) {
		r = listen_start(fd, l->config.backlog);
	} else {
		options_of(l, &o);
		fd = listen_open_first(&l->config.address, &o, NULL);
		if (fd < 0)
			return fd;
		/* Without lanes it needs no other member, and nothing would keep connections from a
		 * stranger; after listen(2) it would be too late. Multicast is for several. */
		if (!listener_held_by_options(&l->config) &&
			!socket_options_find(&l->config.options, OPTION_REUSEPORT))
			(void)listen_leave_group(fd);
		r = listen_start(fd, o.backlog);
	}
	return r < 0 ? r : listener_keep_socket(l, 0, 0, &fd);
}

/* A group that an earlier daemon made, of which nobody knows who is where: ours come behind. */
static int open_beside(struct listener *l, unsigned lane)
{
	int r = listener_guard_meet(l);
	size_t mark = l->lanes.n;

	for (unsigned i = 0; r >= 0 && i < LISTENER_LANES_AT_START; i++)
		for (unsigned slot = 0; r >= 0 && slot < listener_slots_at_start(l); slot++)
			r = listener_add_member(l, i == 0 ? lane : i - (i <= lane), slot);
	return r < 0 ? r : listener_guard_settle(l, mark);
}

static int open_own(struct listener *l, bool may_group, unsigned lane, struct error *ret_error)
{
	listener_choose_kind(l, may_group);
	if (l->kind == LISTENER_HELD)
		return open_held(l, ret_error);
	return blind_has(l->service->manager->blind, &l->config.address) ? open_beside(l, lane)
									 : open_group(l, lane);
}

static int open_inherited(
	struct listener *l, bool may_group, unsigned lane, struct error *ret_error)
{
	int r = l->config.inherited ? inherit_take(l, ret_error) : inherit_adopt(l, ret_error);

	if (r < 0)
		return r;
	/* Now that its family is known; and when it is there, it is told. */
	listener_options_update(l, &l->config);
	r = inherit_open(l, lane, may_group);
	if (r == -EBUSY && l->adopted)
		return error_set(ret_error, r,
			"%s: listener %s: other sockets share its address (SO_REUSEPORT), each "
			"with "
			"a queue of its own; have the server use one (nginx: listen without "
			"reuseport) before it is taken over",
			l->service->name, l->config.name);
	if (r >= 0)
		listener_options_update(l, &l->config);
	return r;
}

int listener_open(struct manager_service *s, const struct listener_config *c, unsigned id,
	bool may_group, unsigned lane, struct listener **ret, struct error *ret_error)
{
	_cleanup_error_ struct error detail = ERROR_NULL;
	struct listener *l;
	int r;

	l = calloc(1, sizeof(*l));
	if (!l || listener_config_copy(c, &l->config) < 0 ||
		listener_sockopts_new(c, &l->sockopts) < 0) {
		if (l)
			listener_config_done(&l->config);
		free(l);
		return error_set(ret_error, -ENOMEM, "%s: out of memory", s->name);
	}
	l->config.place.file = NULL;
	l->service = s;
	l->id = id;
	l->hangups_fd = l->inherited_fd = -1;
	l->adopted = adopt_has(s, c);
	for (size_t i = 0; i < ARRAY_SIZE(l->per_worker_lanes); i++)
		l->per_worker_lanes[i] = l->config.sockets == SOCKETS_PER_WORKER;
	r = c->inherited || l->adopted ? open_inherited(l, may_group, lane, &detail)
				       : open_own(l, may_group, lane, &detail);
	if (r < 0) {
		if (detail.code && (c->inherited || l->adopted))
			error_set(ret_error, r, "%s", error_message(&detail));
		else if (detail.code)
			error_set(ret_error, r, "%s: %s", s->name, error_message(&detail));
		else
			listener_refused(l, r, ret_error);
		listener_close(l);
		return r;
	}
	*ret = l;
	if (l->kind == LISTENER_GROUP)
		listener_steer(l);
	return 0;
}

void listener_close_sockets(struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++) {
		int fd = l->lanes.sockets[i].fd;

		if (fd < 0)
			continue;
		listener_watch_drop(l, fd);
		store_drop(l->service->manager->store, fd);
		/* Whoever still holds it loses it too: a descriptor left behind would keep
		 * swallowing its share. */
		if (l->inherited && fd == l->inherited_fd)
			continue;
		if (address_is_unix(&l->config.address))
			close_fd(fd);
		else
			listen_shutdown_take(&fd);
	}
	lanes_done(&l->lanes);
}

/* To the next daemon, which gets them from the keeper as they are. */
static void leave_sockets(struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++) {
		int fd = l->lanes.sockets[i].fd;

		if (fd < 0)
			continue;
		listener_watch_drop(l, fd);
		close_fd(fd);
	}
	lanes_done(&l->lanes);
	listener_guard_leave(l);
}

struct listener *listener_close(struct listener *l)
{
	bool detached;

	if (!l)
		return NULL;
	if (l->leave_timer)
		sd_event_source_disable_unref(l->leave_timer);
	detached = l->service->manager->detached;
	/* While the socket is open no other can have its inode number. */
	if (l->path_watch)
		l->path_watch = sd_event_source_disable_unref(l->path_watch);
	if (l->adopted && l->ino != 0 && !detached)
		(void)listen_drop_spare(&l->config.address, l->dev, l->ino);
	else if (l->ino != 0 && !detached)
		(void)listen_unlink(&l->config.address, l->dev, l->ino);
	if (detached) {
		leave_sockets(l);
		inherit_forget(l);
	} else {
		inherit_steer_back(l);
		listener_guard_done(l);
		listener_close_sockets(l);
		inherit_give_back(l);
		/* The address is free when this is over, also for us. */
		store_barrier(l->service->manager->store);
	}
	close_fd(l->hangups_fd);
	free(l->held_text);
	free(l->watches);
	free(l->rules);
	listener_config_done(&l->config);
	listener_sockopts_free(l->sockopts);
	socket_options_done(&l->came_options);
	free(l);
	return NULL;
}

int listener_socket(const struct listener *l, unsigned lane, unsigned slot)
{
	const struct lane_socket *socket;

	if (l->kind == LISTENER_HELD)
		return l->lanes.n > 0 ? l->lanes.sockets[0].fd : -1;
	socket = lanes_find(&l->lanes, lane, listener_lane_is_per_worker(l, lane) ? slot : 0);
	return socket ? socket->fd : -1;
}

bool listener_lane_has_share(const struct listener *l, unsigned lane)
{
	struct lane_share shares[CONFIG_GENERATIONS_MAX + 2];
	size_t n = service_shares(&l->service->core, UINT64_C(1) << l->id, shares);

	for (size_t i = 0; i < n; i++)
		if (shares[i].lane == lane)
			return true;
	return false;
}

static void rename_lane(struct listener *l, unsigned from, unsigned to)
{
	l->changed = true;
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].lane == from) {
			l->lanes.sockets[i].lane = to;
			tag(l, l->lanes.sockets[i].fd, to);
		}
}

static void put_aside(struct listener *l, struct lane_socket *socket)
{
	socket->lane = LANES_PUT_ASIDE;
	l->changed = true;
	for (size_t i = 0; i < l->n_watches; i++)
		if (l->watches[i]->fd == socket->fd)
			l->watches[i]->lane = LANES_PUT_ASIDE;
}

/* The last member moves into the place of the one that leaves, at once, while the program still
 * names the old order: it must be one without a share. */
static void remove_socket(struct listener *l, unsigned lane, unsigned slot)
{
	struct lane_socket *socket = lanes_find(&l->lanes, lane, slot);
	int fd;

	if (!socket)
		return;
	fd = socket->fd;
	if (l->inherited && fd == l->inherited_fd) {
		put_aside(l, socket);
		return;
	}
	/* Who takes over from us must know who is behind it, and of two that left nobody could tell
	 * later which one was first. */
	if (l->changed)
		state_save_service(l->service);
	listener_watch_drop(l, fd);
	store_drop(l->service->manager->store, fd);
	listen_shutdown_take(&fd);
	/* Where a datagram socket does not leave when it is connected, it keeps its place until the
	 * keeper has closed it as well. */
	if (l->config.address.kind == ADDRESS_UDP && !l->service->manager->connected_leaves)
		store_barrier(l->service->manager->store);
	(void)lanes_remove(&l->lanes, lane, slot, NULL);
	l->changed = true;
	state_save_service(l->service);
}

int listener_replace_socket(struct listener *l, unsigned lane, unsigned slot, bool left)
{
	struct lane_socket *old;
	size_t mark;
	int r;

	/* Who is there now was there before the change. */
	listener_guard_look(l);
	mark = l->lanes.n;
	old = lanes_find(&l->lanes, lane, slot);
	if (!old)
		return -ENOENT;
	if (left && l->inherited && old->fd == l->inherited_fd) {
		/* Nothing brings it back; it is for whoever gave it to us to make another. */
		listener_watch_drop(l, old->fd);
		store_drop(l->service->manager->store, old->fd);
		(void)lanes_remove(&l->lanes, lane, slot, NULL);
		r = listener_add_member(l, lane, slot);
	} else if (left) {
		remove_socket(l, lane, slot);
		r = listener_add_member(l, lane, slot);
	} else {
		old->lane = LANES_DISCARDED;
		r = listener_add_member(l, lane, slot);
		if (r >= 0)
			r = listener_guard_settle(l, mark);
		if (r < 0)
			rename_lane(l, LANES_DISCARDED, lane);
		else
			remove_socket(l, LANES_DISCARDED, slot);
	}
	listener_guard_look(l);
	listener_steer(l);
	return r;
}

/* Other sockets for a lane without a share. As many new ones join as old ones leave afterwards: so
 * it is always a new one that moves, and whatever has a share stays where it is. */
static int replace_sockets(struct listener *l, unsigned lane)
{
	unsigned n = lanes_slots(&l->lanes, lane), made;
	size_t mark = l->lanes.n;
	int r = 0;

	rename_lane(l, lane, LANES_DISCARDED);
	for (made = 0; made < n; made++) {
		r = listener_add_member(l, lane, made);
		if (r < 0)
			break;
	}
	if (r >= 0)
		r = listener_guard_settle(l, mark);
	if (r < 0) {
		/* Back from the end: nothing moves. */
		while (made-- > 0)
			remove_socket(l, lane, made);
		rename_lane(l, LANES_DISCARDED, lane);
		return r;
	}
	while (n-- > 0)
		remove_socket(l, LANES_DISCARDED, n);
	return 0;
}

static void swap_lanes(struct listener *l, unsigned a, unsigned b)
{
	for (size_t i = 0; i < l->lanes.n; i++) {
		unsigned *lane = &l->lanes.sockets[i].lane;

		if (*lane == a || *lane == b)
			*lane = *lane == a ? b : a;
	}
	for (size_t i = 0; i < l->n_watches; i++) {
		unsigned *lane = &l->watches[i]->lane;

		if (*lane == a || *lane == b)
			*lane = *lane == a ? b : a;
	}
}

/* Who came before us waits in the inherited socket: it is for the first generation that is to serve
 * the listener, whatever its lane. */
static void place_inherited(struct listener *l, unsigned lane)
{
	unsigned from = lane;

	if (!l->inherited || l->inherited_placed)
		return;
	l->inherited_placed = l->changed = true;
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd == l->inherited_fd)
			from = l->lanes.sockets[i].lane;
	if (from != lane)
		swap_lanes(l, from, lane);
}

int listener_prepare_lane(struct listener *l, unsigned lane, unsigned n_workers, bool per_worker,
	struct error *ret_error)
{
	unsigned wanted = per_worker ? n_workers : 1;
	size_t mark;
	int r = 0;

	if (lane >= ARRAY_SIZE(l->dirty_lanes))
		return listener_refused(l, -ERANGE, ret_error);
	l->changed |= l->per_worker_lanes[lane] != per_worker || l->dirty_lanes[lane];
	l->per_worker_lanes[lane] = per_worker;
	place_inherited(l, lane);
	listener_guard_look(l);
	/* With a share there may be connections in its queues. */
	if (l->dirty_lanes[lane] && !listener_lane_has_share(l, lane)) {
		r = replace_sockets(l, lane);
		l->dirty_lanes[lane] = r < 0;
	}
	/* What is more than wanted stays: it is not named by the program, and closing it would move
	 * others. */
	mark = l->lanes.n;
	for (unsigned slot = 0; r >= 0 && slot < wanted; slot++)
		if (!lanes_find(&l->lanes, lane, slot))
			r = listener_add_member(l, lane, slot);
	if (r >= 0)
		r = listener_guard_settle(l, mark);
	if (r < 0)
		return listener_refused(l, r, ret_error);
	listener_steer(l);
	return 0;
}

void listener_taint_lane(struct listener *l, unsigned lane)
{
	if (lane < ARRAY_SIZE(l->dirty_lanes))
		l->dirty_lanes[lane] = l->changed = true;
}

unsigned listener_queue(const struct listener *l, unsigned lane, unsigned slot)
{
	struct listen_state state;
	int fd = listener_socket(l, lane, slot);

	return fd >= 0 && listen_query(fd, &state) >= 0 ? state.queue : 0;
}

void listener_update(struct listener *l, const struct listener_config *c)
{
	struct listener_config copy;

	if (listener_config_copy(c, &copy) < 0)
		return;
	copy.place.file = NULL;
	if (l->inherited && inherit_complete(l, &copy) < 0) {
		listener_config_done(&copy);
		return;
	}
	listener_options_update(l, &copy);
	listener_config_done(&l->config);
	l->config = copy;
	l->changed = true;
	listener_mend(l);
}

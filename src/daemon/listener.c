/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes in the flesh. The order of the array is the order of listen(2); we keep it in struct lanes
 * and never let a program name an index that is not there, because the kernel would then choose
 * among all members, idle lanes included. */
#include "daemon/listener_internal.h"

#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/state_save.h"
#include "sys/listen.h"
#include "sys/process.h"
#include "sys/sockdiag.h"
#include "sys/user.h"

/* Both lanes are made at the start, with the uid the group needs. */
enum { LANES_AT_START = 2 };
/* Of sockets that are about to be closed. */
enum { LANE_DISCARDED = UINT32_MAX - 1 };

bool listener_lane_is_per_worker(const struct listener *l, unsigned lane)
{
	return lane < ARRAY_SIZE(l->per_worker_lanes) && l->per_worker_lanes[lane];
}

char *listener_address(const struct listener *l)
{
	return address_format(&l->config.address);
}

static void options_of(const struct listener_config *c, struct listen_options *ret)
{
	*ret = (struct listen_options){
		.blocking = true,
		.backlog = c->backlog,
		.v6only = c->v6only,
		.nodelay = c->nodelay,
		.rcvbuf = c->rcvbuf,
		.sndbuf = c->sndbuf,
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

/* "; held by nginx (pid 812)", or by a uid when the process may not be looked at. Empty when nobody
 * is found. */
static char *describe_holder(const struct listener *l)
{
	_cleanup_free_ struct sockdiag_listener *list = NULL;
	int nl = l->service->manager->sockdiag_fd;
	size_t n = 0;

	if (nl < 0 || address_is_unix(&l->config.address) ||
		sockdiag_listeners(nl, address_port(&l->config.address), &list, &n) < 0)
		return strdup("");
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *name = NULL;
		pid_t pid;

		if (!address_overlaps(
			    &l->config.address, l->config.v6only, &list[i].address, false))
			continue;
		if (process_find_socket_holder(list[i].inode, &pid) >= 0 &&
			process_name(pid, &name) >= 0)
			return xasprintf("; held by %s (pid %d)", name, (int)pid);
		name = user_name_of(list[i].uid);
		return xasprintf("; held by a process of user %s", name ? name : "?");
	}
	return strdup("");
}

static int bind_error(const struct listener *l, int r, struct error *ret_error)
{
	_cleanup_free_ char *address = listener_address(l), *holder = NULL;
	const char *hint = "";

	if (r == -EADDRINUSE)
		holder = describe_holder(l);
	else if (r == -EACCES && !address_is_unix(&l->config.address))
		hint = "; a port below net.ipv4.ip_unprivileged_port_start needs "
		       "CAP_NET_BIND_SERVICE";
	else if (r == -EADDRNOTAVAIL)
		hint = "; no interface has that address";
	else if (r == -EEXIST)
		hint = "; the path is there and is not a socket";
	else if (r == -ENOENT)
		hint = "; its directory must be there";
	return error_set(ret_error, r, "%s: bind %s: %s%s%s", l->service->name,
		address ? address : "?", strerror(-r), holder ? holder : "", hint);
}

int listener_keep_socket_take(struct listener *l, unsigned lane, unsigned slot, int *fd)
{
	int r = lanes_append(&l->lanes, lane, slot, *fd);

	if (r < 0)
		return r;
	r = listener_watch_add(l, *fd);
	if (r < 0) {
		(void)lanes_remove(&l->lanes, lane, slot, NULL);
		return r;
	}
	(void)store_add(l->service->manager->store, STORED_LISTENER, *fd);
	l->changed = true;
	*fd = -1;
	return 0;
}

static int add_member(struct listener *l, unsigned lane, unsigned slot)
{
	_cleanup_close_ int fd = -1;
	struct listen_options o;
	int r;

	options_of(&l->config, &o);
	fd = listen_open_member(&l->config.address, &o);
	if (fd < 0)
		return fd;
	r = listen_start(fd, o.backlog);
	return r < 0 ? r : listener_keep_socket_take(l, lane, slot, &fd);
}

static unsigned slots_at_start(const struct listener *l)
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

	for (size_t i = 0; i < ARRAY_SIZE(l->per_worker_lanes); i++)
		l->per_worker_lanes[i] = l->config.sockets == SOCKETS_PER_WORKER;
	options_of(&l->config, &o);
	fd = listen_open_first(&l->config.address, &o, &program);
	if (fd < 0)
		return fd;
	r = listen_start(fd, o.backlog);
	if (r >= 0)
		r = listener_keep_socket_take(l, lane, 0, &fd);
	for (unsigned slot = 1; r >= 0 && slot < slots_at_start(l); slot++)
		r = add_member(l, lane, slot);
	for (unsigned other = 0; r >= 0 && other < LANES_AT_START; other++)
		for (unsigned slot = 0; other != lane && r >= 0 && slot < slots_at_start(l); slot++)
			r = add_member(l, other, slot);
	return r;
}

int listener_open_unix(const struct listener *l, struct error *ret_error)
{
	struct listen_options o;
	int r;

	options_of(&l->config, &o);
	r = resolve_owner(&l->config, &o, ret_error);
	return r < 0 ? r : listen_open_unix(&l->config.address, &o);
}

static int open_held(struct listener *l, struct error *ret_error)
{
	_cleanup_close_ int fd = -1;
	struct listen_options o;
	int r;

	if (address_is_unix(&l->config.address)) {
		fd = listener_open_unix(l, ret_error);
		if (fd < 0)
			return fd;
		r = listen_path_identity(&l->config.address, &l->dev, &l->ino);
		if (r == -EOPNOTSUPP || r == -EINVAL)
			r = 0; /* an abstract name has no path */
	} else {
		options_of(&l->config, &o);
		fd = listen_open_first(&l->config.address, &o, NULL);
		if (fd < 0)
			return fd;
		r = listen_start(fd, o.backlog);
	}
	return r < 0 ? r : listener_keep_socket_take(l, 0, 0, &fd);
}

void listener_choose_kind(struct listener *l, bool may_group)
{
	l->kind = LISTENER_HELD;
	if (address_is_unix(&l->config.address))
		l->held_reason = "Unix sockets have one queue";
	else if (!l->config.steering)
		l->held_reason = "steering: off";
	else if (!may_group)
		l->held_reason = "socket groups do not behave as expected on this kernel";
	else
		l->kind = LISTENER_GROUP;
}

int listener_open(struct manager_service *s, const struct listener_config *c, unsigned id,
	bool may_group, unsigned lane, struct listener **ret, struct error *ret_error)
{
	_cleanup_error_ struct error detail = ERROR_NULL;
	struct listener *l;
	int r;

	if (c->inherited)
		return error_set(ret_error, -EOPNOTSUPP,
			"%s: listener %s: inherit is not supported by this version", s->name,
			c->name);
	l = calloc(1, sizeof(*l));
	if (!l || listener_config_copy(c, &l->config) < 0) {
		free(l);
		return error_set(ret_error, -ENOMEM, "%s: out of memory", s->name);
	}
	l->config.place.file = NULL;
	l->service = s;
	l->id = id;
	l->hangups_fd = -1;
	listener_choose_kind(l, may_group);
	r = l->kind == LISTENER_GROUP ? open_group(l, lane) : open_held(l, &detail);
	if (r < 0) {
		if (detail.code)
			error_set(ret_error, r, "%s: %s", s->name, error_message(&detail));
		else
			bind_error(l, r, ret_error);
		listener_close(l);
		return r;
	}
	*ret = l;
	if (l->kind == LISTENER_GROUP)
		listener_steer(l);
	return 0;
}

struct listener *listener_close(struct listener *l)
{
	struct store *store;
	bool detached;

	if (!l)
		return NULL;
	store = l->service->manager->store;
	detached = l->service->manager->detached;
	/* While the socket is open no other can have its inode number. */
	if (l->ino != 0 && !detached)
		(void)listen_unlink(&l->config.address, l->dev, l->ino);
	for (size_t i = 0; i < l->lanes.n; i++) {
		int fd = l->lanes.sockets[i].fd;
		listener_watch_drop(l, fd);
		if (detached) {
			close_fd(fd);
			continue;
		}
		store_drop(store, fd);
		/* Whoever still holds it loses it too: a descriptor left behind would keep
		 * swallowing its share. */
		if (address_is_unix(&l->config.address))
			close_fd(fd);
		else
			listen_shutdown_take(&fd);
	}
	/* The address is free when this is over, also for us. */
	if (l->lanes.n > 0 && !detached)
		store_barrier(store);
	lanes_done(&l->lanes);
	close_fd(l->hangups_fd);
	free(l->watches);
	free(l->rules);
	listener_config_done(&l->config);
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

static bool lane_has_share(const struct listener *l, unsigned lane)
{
	struct lane_share shares[CONFIG_GENERATIONS_MAX + 2];
	size_t n = service_shares(&l->service->core, UINT64_C(1) << l->id, shares);

	for (size_t i = 0; i < n; i++)
		if (shares[i].lane == lane)
			return true;
	return false;
}

/* The last member moves into the place of the one that leaves, at once, while the program still
 * names the old order: it must be one without a share. */
static void remove_socket(struct listener *l, unsigned lane, unsigned slot)
{
	const struct lane_socket *socket = lanes_find(&l->lanes, lane, slot);
	int fd;

	if (!socket)
		return;
	fd = socket->fd;
	listener_watch_drop(l, fd);
	store_drop(l->service->manager->store, fd);
	listen_shutdown_take(&fd);
	/* A datagram socket keeps its place until the keeper has closed it as well. */
	if (l->config.address.kind == ADDRESS_UDP)
		store_barrier(l->service->manager->store);
	(void)lanes_remove(&l->lanes, lane, slot, NULL);
	/* Of two that left nobody could tell later which one was first. */
	l->changed = true;
	state_save_service(l->service);
}

static void rename_lane(struct listener *l, unsigned from, unsigned to)
{
	l->changed = true;
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].lane == from)
			l->lanes.sockets[i].lane = to;
}

/* Other sockets for a lane without a share. As many new ones join as old ones leave afterwards: so
 * it is always a new one that moves, and whatever has a share stays where it is. */
static int replace_sockets(struct listener *l, unsigned lane)
{
	unsigned n = lanes_slots(&l->lanes, lane), made;
	int r = 0;

	rename_lane(l, lane, LANE_DISCARDED);
	for (made = 0; made < n; made++) {
		r = add_member(l, lane, made);
		if (r < 0)
			break;
	}
	if (r < 0) {
		/* Back from the end: nothing moves. */
		while (made-- > 0)
			remove_socket(l, lane, made);
		rename_lane(l, LANE_DISCARDED, lane);
		return r;
	}
	state_save_service(l->service);
	while (n-- > 0)
		remove_socket(l, LANE_DISCARDED, n);
	return 0;
}

int listener_prepare_lane(struct listener *l, unsigned lane, unsigned n_workers, bool per_worker,
	struct error *ret_error)
{
	unsigned wanted = per_worker ? n_workers : 1;
	int r = 0;

	if (lane >= ARRAY_SIZE(l->dirty_lanes))
		return bind_error(l, -ERANGE, ret_error);
	l->changed |= l->per_worker_lanes[lane] != per_worker || l->dirty_lanes[lane];
	l->per_worker_lanes[lane] = per_worker;
	/* With a share there may be connections in its queues. */
	if (l->dirty_lanes[lane] && !lane_has_share(l, lane)) {
		r = replace_sockets(l, lane);
		l->dirty_lanes[lane] = r < 0;
	}
	/* What is more than wanted stays: it is not named by the program, and closing it would move
	 * others. */
	for (unsigned slot = 0; r >= 0 && slot < wanted; slot++)
		if (!lanes_find(&l->lanes, lane, slot))
			r = add_member(l, lane, slot);
	if (r < 0)
		return bind_error(l, r, ret_error);
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

void listener_nudge(struct listener *l, unsigned lane)
{
	int fd = listener_socket(l, lane, 0);

	if (fd >= 0 && !listener_lane_is_per_worker(l, lane) &&
		!address_is_unix(&l->config.address))
		(void)listen_nudge(fd);
}

void listener_update(struct listener *l, const struct listener_config *c)
{
	struct listener_config copy;

	if (listener_config_copy(c, &copy) < 0)
		return;
	copy.place.file = NULL;
	listener_config_done(&l->config);
	l->config = copy;
	l->changed = true;
	listener_mend(l);
}

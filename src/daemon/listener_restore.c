/* SPDX-License-Identifier: Apache-2.0 */
/* A listener that an earlier daemon made: its sockets come from the keeper's store, and the state
 * says in which order the kernel has them. */
#include <sys/syscall.h>

#include "daemon/listener_inherit.h"
#include "daemon/listener_internal.h"
#include "daemon/listener_options.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/restore.h"
#include "daemon/state_tables.h"
#include "daemon/worker_process.h"
#include "sys/listen.h"

enum { SOCKETS_MAX = (CONFIG_GENERATIONS_MAX + 2) * (CONFIG_WORKERS_MAX + 1) };

/* Is it what the state says it is? */
static bool is_right(const struct listener *l, int fd)
{
	struct address a;

	if (socket_address(fd, &a) < 0 || a.kind != l->config.address.kind)
		return false;
	/* A Unix socket may have been bound beside its path. */
	return address_is_unix(&a) || address_equal(&a, &l->config.address);
}

/* A worker has it still, under the number it was given: pidfd_getfd(2). */
static int fetch_from(const struct listener *l, const struct manager_generation *g,
	const struct worker_process *p)
{
	const struct service_config *c = &g->snapshot->config;

	for (size_t i = 0; i < c->n_listeners; i++) {
		int fd;

		if (!plan_listener_same(&c->listeners[i], &l->config))
			continue;
		fd = (int)syscall(SYS_pidfd_getfd, p->pidfd, snapshot_listener_fd(c, i), 0);
		if (fd >= 0 && is_right(l, fd))
			return fd;
		close_fd(fd);
	}
	return -1;
}

static int fetch(const struct listener *l, unsigned lane, unsigned slot)
{
	const struct manager_service *s = l->service;

	for (size_t i = 0; i < s->n_generations; i++) {
		const struct manager_generation *g = s->generations[i];
		const struct generation *core = service_generation(&s->core, g->number);

		if (!core || (l->kind == LISTENER_GROUP && core->lane != lane))
			continue;
		for (unsigned k = 0; k < g->n_workers; k++) {
			const struct worker_process *p = g->workers[k];
			int fd;

			if (!p || p->pidfd < 0 ||
				(listener_lane_is_per_worker(l, lane) && k != slot))
				continue;
			fd = fetch_from(l, g, p);
			if (fd >= 0)
				return fd;
		}
	}
	return -1;
}

static int take_socket(const struct listener *l, unsigned lane, unsigned slot, unsigned number)
{
	struct store *store = l->service->manager->store;
	int fd = store_take(store, STORED_LISTENER, number);

	if (fd < 0)
		fd = store_take(store, STORED_INHERITED, number);
	if (fd >= 0 && is_right(l, fd))
		return fd;
	store_drop(store, fd);
	close_fd(fd);
	fd = fetch(l, lane, slot);
	if (fd >= 0)
		(void)store_add(store, STORED_LISTENER, fd);
	return fd;
}

/* The model as the state has it; what is not there any more has the descriptor -1. */
static int load_sockets(struct listener *l, const json_t *list)
{
	size_t n = json_array_size(list);

	if (!json_is_array(list) || n > SOCKETS_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		const json_t *entry = json_array_get(list, i);
		json_int_t lane = json_integer_value(json_array_get(entry, 0)),
			   slot = json_integer_value(json_array_get(entry, 1)),
			   number = json_integer_value(json_array_get(entry, 2));
		int fd, r;

		if (json_array_size(entry) != 3 || lane < 0 || lane > UINT32_MAX || slot < 0 ||
			slot > CONFIG_WORKERS_MAX || number < 0 || number > UINT32_MAX)
			return -EBADMSG;
		if (lane == LANES_OTHER) {
			r = lanes_append_other(&l->lanes);
			if (r < 0)
				return r;
			continue;
		}
		fd = take_socket(l, (unsigned)lane, (unsigned)slot, (unsigned)number);
		r = lanes_append(&l->lanes, (unsigned)lane, (unsigned)slot, fd);
		if (r < 0) {
			close_fd(fd);
			return r == -EEXIST ? -EBADMSG : r;
		}
	}
	return 0;
}

static void load_lanes(const json_t *list, bool *ret, size_t n)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_int_t lane = json_integer_value(json_array_get(list, i));

		if (lane >= 0 && (size_t)lane < n)
			ret[lane] = true;
	}
}

/* As it was made, whatever this daemon would make of it. */
static void choose_kind(struct listener *l, const json_t *value)
{
	const char *held = json_string_value(json_object_get(value, "held"));

	if (state_get_bool(value, "group")) {
		l->kind = LISTENER_GROUP;
		return;
	}
	listener_choose_kind(l, false);
	l->held_text = held ? strdup(held) : NULL;
	if (l->held_text)
		l->held_reason = l->held_text;
}

static int load(struct listener *l, const json_t *value)
{
	int r = state_load(
		&state_table_listener_config, json_object_get(value, "config"), &l->config);

	if (r < 0)
		return r;
	if (!l->config.name || l->config.address.len == 0)
		return -EBADMSG;
	r = listener_sockopts_new(&l->config, &l->sockopts);
	if (r < 0)
		return r;
	choose_kind(l, value);
	load_lanes(json_object_get(value, "dirty"), l->dirty_lanes, ARRAY_SIZE(l->dirty_lanes));
	load_lanes(json_object_get(value, "per_worker"), l->per_worker_lanes,
		ARRAY_SIZE(l->per_worker_lanes));
	l->dev = state_get_u64(value, "dev");
	l->ino = state_get_u64(value, "ino");
	l->resets = state_get_u64(value, "resets");
	l->dropped = state_get_u64(value, "dropped");
	l->leaving = state_get_bool(value, "leaving");
	l->left = state_get_bool(value, "left");
	r = load_sockets(l, json_object_get(value, "sockets"));
	l->owner_kept = state_get_bool(value, "owner_kept");
	l->owner_uid = (uid_t)state_get_unsigned(value, "owner");
	if (r >= 0 && (l->config.inherited || json_is_object(json_object_get(value, "inherited"))))
		r = inherit_restore(l, json_object_get(value, "inherited"));
	return r < 0 ? r : listener_guard_restore(l, json_object_get(value, "strangers"));
}

int listener_restore(struct manager_service *s, unsigned id, const json_t *value)
{
	struct listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	l->service = s;
	l->id = id;
	l->hangups_fd = l->inherited_fd = -1;
	listener_config_init(&l->config);
	r = load(l, value);
	if (r < 0) {
		listener_close(l);
		return r;
	}
	s->listeners[id] = l;
	return 0;
}

/* --- what became of it meanwhile ------------------------------------------ */

static bool is_alive(const struct listener *l, int fd)
{
	struct listen_state state;

	/* Whether a datagram socket was shut down is seen when it is watched: it keeps its place.
	 */
	return fd >= 0 && (l->config.address.kind != ADDRESS_TCP ||
				  (listen_query(fd, &state) >= 0 && state.accepting));
}

/* Those that were closed or shut down left the kernel's array while nobody kept the model. */
static size_t take_fallen(struct listener *l, struct lane_socket *ret)
{
	size_t n = 0, n_before = l->lanes.n;

	for (size_t i = 0; i < l->lanes.n;) {
		const struct lane_socket *socket = &l->lanes.sockets[i];

		if (socket->lane == LANES_OTHER || is_alive(l, socket->fd)) {
			i++;
			continue;
		}
		ret[n] = *socket;
		(void)lanes_remove(&l->lanes, ret[n].lane, ret[n].slot, NULL);
		n++;
	}
	/* One that left, or all that were behind the others: then there is no doubt. */
	if (n > 1 && l->lanes.n > 1 && l->kind == LISTENER_GROUP)
		log_error("%s: %zu of the %zu sockets of listener %s were closed or shut down "
			  "while no daemon was there; which of the others has which place can only "
			  "be guessed; restart the service when it is convenient",
			l->service->name, n, n_before, l->config.name);
	return n;
}

static void update_model(struct listener *l)
{
	_cleanup_free_ struct lane_socket *fallen = calloc(l->lanes.n + 1, sizeof(*fallen));
	size_t n = fallen ? take_fallen(l, fallen) : 0;

	l->changed |= n > 0;
	for (size_t i = 0; i < n; i++) {
		int fd = fallen[i].fd;

		if (fd < 0)
			continue;
		store_drop(l->service->manager->store, fd);
		log_warning("%s: a socket of listener %s was shut down while no daemon was there; "
			    "what waited in its queue was reset",
			l->service->name, l->config.name);
		if (listen_start(fd, l->config.backlog) < 0 ||
			listener_keep_socket(l, fallen[i].lane, fallen[i].slot, &fd) < 0)
			close_fd(fd);
	}
}

static int watch_sockets(struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++) {
		bool watched = l->lanes.sockets[i].fd < 0;
		int r;

		for (size_t k = 0; k < l->n_watches && !watched; k++)
			watched = l->watches[k]->fd == l->lanes.sockets[i].fd;
		r = watched ? 0 : listener_watch_add(l, l->lanes.sockets[i].fd);
		if (r < 0)
			return r;
	}
	return listener_guard_watch(l);
}

static bool has_sockets(const struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd >= 0)
			return true;
	return false;
}

/* Nothing of it is left but its configuration. */
static struct listener *open_again(struct listener *l)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct manager_service *s = l->service;
	struct listener *fresh = NULL;

	log_warning("%s: the sockets of listener %s were not in the keeper's store; they are made "
		    "anew",
		s->name, l->config.name);
	s->listeners[l->id] = NULL;
	if (listener_open(s, &l->config, l->id, s->manager->may_group, s->core.queue_lane, &fresh,
		    &error) < 0)
		log_error("%s", error_message(&error));
	else
		/* Whoever runs has the old ones, or none. */
		s->holds_dead_socket = s->core.n_generations > 0;
	l->ino = 0; /* the path is the new one's */
	listener_close(l);
	return fresh;
}

/* The kernel counts for as long as a socket is there: what it has dropped is no news. */
static void take_drops(struct listener *l)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < l->n_watches; i++)
		if (listen_dropped(l->watches[i]->fd, &l->watches[i]->dropped) >= 0)
			sum += l->watches[i]->dropped;
	l->dropped = MAX(l->dropped, sum);
}

int listener_restore_finish(struct listener *l)
{
	struct manager_service *s = l->service;
	unsigned id = l->id;
	int r;

	update_model(l);
	if (!has_sockets(l)) {
		s->listeners[id] = open_again(l);
		return 0;
	}
	r = watch_sockets(l);
	inherit_watch_path(l);
	take_drops(l);
	return r;
}

int listener_restore_check(const json_t *value)
{
	struct listener_config c;
	int r;

	listener_config_init(&c);
	r = state_load(&state_table_listener_config, json_object_get(value, "config"), &c);
	if (r >= 0 && (!c.name || !json_is_array(json_object_get(value, "sockets"))))
		r = -EBADMSG;
	listener_config_done(&c);
	return r;
}

/* --- for the next daemon ------------------------------------------------------ */

static json_t *integer(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *save_lanes(const bool *lanes, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < n; i++)
		if (lanes[i])
			(void)json_array_append_new(list, integer(i));
	return list;
}

static json_t *save_sockets(const struct listener *l)
{
	const struct store *store = l->service->manager->store;
	json_t *list = json_array();

	for (size_t i = 0; list && i < l->lanes.n; i++) {
		const struct lane_socket *socket = &l->lanes.sockets[i];

		(void)json_array_append_new(
			list, json_pack("[o,o,o]", integer(socket->lane), integer(socket->slot),
				      integer(store_number(store, socket->fd))));
	}
	return list;
}

json_t *listener_save(const struct listener *l)
{
	return json_pack("{s:b, s:b, s:o, s:b, s:s?, s:o, s:o, s:o, s:o*, s:o, s:o, s:o, s:o, "
			 "s:o, s:b, s:o}",
		"leaving", l->leaving, "left", l->left, "config",
		state_save(&state_table_listener_config, &l->config), "group",
		l->kind == LISTENER_GROUP, "held", l->held_reason, "sockets", save_sockets(l),
		"dirty", save_lanes(l->dirty_lanes, ARRAY_SIZE(l->dirty_lanes)), "per_worker",
		save_lanes(l->per_worker_lanes, ARRAY_SIZE(l->per_worker_lanes)), "inherited",
		inherit_save(l), "strangers", listener_guard_save(l), "dev", integer(l->dev), "ino",
		integer(l->ino), "resets", integer(l->resets), "dropped", integer(l->dropped),
		"owner_kept", l->owner_kept, "owner", integer(l->owner_uid));
}

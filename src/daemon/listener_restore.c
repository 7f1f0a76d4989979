/* SPDX-License-Identifier: Apache-2.0 */
/* A listener that an earlier daemon made: its sockets come from the keeper's store, and the state
 * says in which order the kernel has them. */
#include <sys/syscall.h>

#include "daemon/listener_internal.h"
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
		fd = take_socket(l, (unsigned)lane, (unsigned)slot, (unsigned)number);
		r = lanes_append(&l->lanes, (unsigned)lane, (unsigned)slot, fd);
		if (r < 0) {
			close_fd(fd);
			return r == -EEXIST ? -EBADMSG : r;
		}
	}
	return 0;
}

/* Those that were closed or shut down left the kernel's array while nobody kept the model. When it
 * was more than one, in which order is not known: the model's is as good as any, and matters only
 * where each worker has a socket of its own. */
static void update_model(struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n;) {
		struct lane_socket socket = l->lanes.sockets[i];
		struct listen_state state;

		if (socket.fd >= 0 &&
			(address_is_unix(&l->config.address) ||
				(listen_query(socket.fd, &state) >= 0 && state.accepting))) {
			i++;
			continue;
		}
		(void)lanes_remove(&l->lanes, socket.lane, socket.slot, NULL);
		l->changed = true;
		if (socket.fd < 0)
			continue;
		store_drop(l->service->manager->store, socket.fd);
		log_warning("%s: a socket of listener %s was shut down while no daemon was there; "
			    "what waited in its queue was reset",
			l->service->name, l->config.name);
		if (listen_start(socket.fd, l->config.backlog) < 0 ||
			listener_keep_socket_take(l, socket.lane, socket.slot, &socket.fd) < 0)
			close_fd(socket.fd);
	}
}

static int watch_sockets(struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++) {
		bool watched = false;
		int r;

		for (size_t k = 0; k < l->n_watches && !watched; k++)
			watched = l->watches[k]->fd == l->lanes.sockets[i].fd;
		r = watched ? 0 : listener_watch_add(l, l->lanes.sockets[i].fd);
		if (r < 0)
			return r;
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

static int load(struct listener *l, const json_t *value)
{
	int r = state_load(
		&state_table_listener_config, json_object_get(value, "config"), &l->config);

	if (r < 0)
		return r;
	if (!l->config.name)
		return -EBADMSG;
	listener_choose_kind(l, true);
	/* As it was made, whatever this daemon's self-test says. */
	if (!state_get_bool(value, "group") && l->kind == LISTENER_GROUP) {
		l->kind = LISTENER_HELD;
		l->held_reason = "socket groups did not behave as expected when it was made";
	}
	load_lanes(json_object_get(value, "dirty"), l->dirty_lanes, ARRAY_SIZE(l->dirty_lanes));
	load_lanes(json_object_get(value, "per_worker"), l->per_worker_lanes,
		ARRAY_SIZE(l->per_worker_lanes));
	l->dev = state_get_u64(value, "dev");
	l->ino = state_get_u64(value, "ino");
	l->resets = state_get_u64(value, "resets");
	return load_sockets(l, json_object_get(value, "sockets"));
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
	if (listener_open(s, &l->config, l->id, s->manager->may_group, s->core.queue_lane, &fresh,
		    &error) < 0)
		log_error("%s", error_message(&error));
	l->ino = 0; /* the path is the new one's */
	listener_close(l);
	return fresh;
}

int listener_restore(struct manager_service *s, unsigned id, const json_t *value)
{
	struct listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	l->service = s;
	l->id = id;
	l->hangups_fd = -1;
	listener_config_init(&l->config);
	r = load(l, value);
	if (r >= 0)
		update_model(l);
	if (r >= 0)
		r = watch_sockets(l);
	if (r < 0) {
		listener_close(l);
		return r;
	}
	s->listeners[id] = l->lanes.n > 0 ? l : open_again(l);
	return 0;
}

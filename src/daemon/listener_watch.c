/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to sockets behind our back: a worker shuts one down for everybody, or a straggler
 * arrives in a lane that nobody serves. */
#include <limits.h>
#include <sys/epoll.h>

#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/state_save.h"
#include "sys/listen.h"

#define WARN_EVERY_USEC (60 * USEC_PER_SEC)
/* Connections reset in one go, so that a flood does not keep the loop. */
enum { RESET_AT_ONCE = 64 };

bool listener_may_warn_again(const struct listener *l, uint64_t *warned_usec)
{
	uint64_t now = manager_now(l->service->manager);

	if (*warned_usec != 0 && now - *warned_usec < WARN_EVERY_USEC)
		return false;
	*warned_usec = now;
	return true;
}

bool listener_may_warn(struct listener *l)
{
	return listener_may_warn_again(l, &l->warned_usec);
}

static struct lane_socket *socket_of(const struct listener *l, int fd)
{
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd == fd)
			return &l->lanes.sockets[i];
	return NULL;
}

/* A Unix socket that was shut down stays dead: a new one takes its path. */
static int replace_unix(struct listener *l)
{
	int fd = listener_open_unix(l, NULL), old = l->lanes.sockets[0].fd, r;

	if (fd < 0)
		return fd;
	r = listener_watch_add(l, fd);
	if (r < 0) {
		close_fd(fd);
		return r;
	}
	listener_watch_drop(l, old);
	store_drop(l->service->manager->store, old);
	close_fd(old);
	(void)store_add(l->service->manager->store, STORED_LISTENER, fd);
	l->changed = true;
	l->lanes.sockets[0].fd = fd;
	(void)listen_path_identity(&l->config.address, &l->dev, &l->ino);
	log_error("%s: a worker shut the socket of listener %s down for everybody; bound anew, its "
		  "workers are replaced",
		l->service->name, l->config.name);
	manager_service_listener_replaced(l->service);
	return 0;
}

static void warn_of_shutdown(struct listener *l)
{
	if (listener_may_warn(l))
		log_warning("%s: a worker shut the socket of listener %s down for everybody; it "
			    "listens again, but what waited in its "
			    "queue was reset",
			l->service->name, l->config.name);
}

static int revive(struct listener *l, int fd)
{
	struct lane_socket *socket = socket_of(l, fd);
	unsigned lane, slot;
	int r;

	if (!socket)
		return -ENOENT;
	if (l->inherited && address_is_unix(&l->config.address))
		return -EOPNOTSUPP; /* its path is not ours */
	if (address_is_unix(&l->config.address))
		return replace_unix(l);
	lane = socket->lane;
	slot = socket->slot;
	r = listen_start(fd, l->config.backlog);
	if (r < 0)
		return r;
	/* It left the array when it was shut down, and is now its last member. */
	(void)lanes_relisten(&l->lanes, lane, slot);
	l->changed = true;
	state_save_service(l->service);
	listener_steer(l);
	warn_of_shutdown(l);
	return 0;
}

/* Take those that were shut down out of the model, in the order in which they left the kernel's
 * array: it decides where the others are now. The loop's sources do not keep it, an epoll of our
 * own does. ret: room for all. */
static size_t take_fallen(struct listener *l, struct lane_socket *ret)
{
	struct epoll_event events[64];
	size_t n = 0;
	int found;

	while ((found = epoll_wait(l->hangups_fd, events, ARRAY_SIZE(events), 0)) > 0)
		for (int i = 0; i < found; i++) {
			const struct lane_socket *socket = socket_of(l, events[i].data.fd);
			struct listen_state state;

			if (!socket || (listen_query(socket->fd, &state) >= 0 && state.accepting))
				continue;
			ret[n] = *socket;
			(void)lanes_remove(&l->lanes, ret[n].lane, ret[n].slot, NULL);
			n++;
		}
	return n;
}

/* All that were shut down listen again, as the last members. */
static void revive_fallen(struct listener *l)
{
	_cleanup_free_ struct lane_socket *fallen = NULL;
	size_t n;

	/* A stranger that is there was there before: it may have moved. */
	listener_guard_look(l);
	fallen = calloc(l->lanes.n + 1, sizeof(*fallen));
	n = fallen && l->hangups_fd >= 0 ? take_fallen(l, fallen) : 0;

	for (size_t i = 0; i < n; i++) {
		int r = listen_start(fallen[i].fd, l->config.backlog);

		if (r >= 0)
			r = lanes_append(&l->lanes, fallen[i].lane, fallen[i].slot, fallen[i].fd);
		if (r >= 0)
			continue;
		log_error("%s: listener %s was shut down by a worker and cannot listen again: %s",
			l->service->name, l->config.name, strerror(-r));
		/* Its place is made anew when the lane is prepared the next time. */
		listener_watch_drop(l, fallen[i].fd);
		store_drop(l->service->manager->store, fallen[i].fd);
		close_fd(fallen[i].fd);
	}
	if (n == 0)
		return;
	l->changed = true;
	state_save_service(l->service);
	listener_guard_look(l);
	listener_steer(l);
	warn_of_shutdown(l);
}

static bool is_datagram(const struct listener *l)
{
	return address_socket_type(&l->config.address) == SOCK_DGRAM;
}

/* An error that was reported about a datagram is for its workers. */
static int on_datagram_socket(struct listener *l, int fd, sd_event_source *source, bool idle)
{
	struct manager_service *s = l->service;
	struct listen_state state;

	if (listen_query(fd, &state) >= 0 && !state.accepting) {
		/* It is always readable. If there is no other in its place afterwards, that is
		 * tried again whenever the listener is looked at. */
		if (idle)
			(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
		(void)listener_mend_datagram(l, fd);
		listener_watch_idle(l);
		manager_service_after(s);
	}
	return 0;
}

static int on_socket(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct listener_watch *w = userdata;
	struct listener *l = w->listener;
	struct listen_state state;
	uint32_t asked;
	int n, r;

	if (is_datagram(l) && sd_event_source_get_io_events(source, &asked) >= 0 &&
		!(asked & EPOLLIN))
		return on_datagram_socket(l, fd, source, false);
	if (!is_datagram(l) && (revents & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))) {
		if (l->kind == LISTENER_GROUP)
			revive_fallen(l);
		/* It may have been closed for good. */
		if (!socket_of(l, fd))
			return 0;
		if (!address_is_unix(&l->config.address) && listen_query(fd, &state) >= 0 &&
			state.accepting)
			return 0;
		r = revive(l, fd);
		if (r < 0) {
			log_error("%s: listener %s was shut down by a worker and cannot listen "
				  "again: %s",
				l->service->name, l->config.name, strerror(-r));
			(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
		}
		return 0;
	}
	if (is_datagram(l) && listen_query(fd, &state) >= 0 && !state.accepting)
		return on_datagram_socket(l, fd, source, true);
	n = listen_reset_queue(fd, RESET_AT_ONCE);
	l->resets += n > 0 ? (unsigned)n : 0;
	/* Perhaps a worker has detached the program, and the kernel chooses among all sockets. */
	listener_steer(l);
	if (n > 0 && listener_may_warn(l))
		log_warning(
			"%s: listener %s: a late %s reached sockets that nobody serves any more "
			"and was %s (%llu so far); a longer drain.settle avoids that",
			l->service->name, l->config.name,
			is_datagram(l) ? "datagram" : "connection",
			is_datagram(l) ? "discarded" : "reset", (unsigned long long)l->resets);
	return 0;
}

void listener_keep_path(struct listener *l)
{
	_cleanup_free_ char *address = NULL;
	int r;

	if (l->ino == 0)
		return;
	r = listen_keep_path(&l->config.address, l->dev, l->ino);
	if ((r <= 0 && r != -ESTALE && r != -ENOENT) || !listener_may_warn(l))
		return;
	address = listener_address(l);
	if (r > 0)
		log_warning(
			"%s: the path of listener %s (%s) had been removed, perhaps by a worker "
			"that ended; it is there again",
			l->service->name, l->config.name, address ? address : "?");
	else
		log_error("%s: the path of listener %s (%s) is %s: who connects to it does not "
			  "reach the service",
			l->service->name, l->config.name, address ? address : "?",
			r == -ESTALE ? "another file now" : "gone");
}

void listener_mend(struct listener *l)
{
	listener_keep_path(l);
	for (size_t i = 0; i < l->lanes.n; i++) {
		int fd = l->lanes.sockets[i].fd;
		struct listen_state state;

		if (is_datagram(l)) {
			/* The array may be another now. */
			if (listen_query(fd, &state) >= 0 && !state.accepting &&
				listener_mend_datagram(l, fd))
				i = SIZE_MAX;
			continue;
		}
		/* One that was shut down is not for us: its place in the array would change. */
		if (!address_is_unix(&l->config.address) &&
			(listen_query(fd, &state) < 0 || !state.accepting ||
				state.queue_max == l->config.backlog))
			continue;
		(void)listen_start(fd, l->config.backlog);
	}
}

/* EPOLLHUP comes unasked, but one that was shut down for reading alone has it only if it is TCP. On
 * UDP an error stays until a worker reads it: it is told once. Nobody does that for idle ones. */
static uint32_t events_of(const struct listener *l, bool idle)
{
	if (is_datagram(l))
		return idle ? EPOLLIN : EPOLLRDHUP | EPOLLET;
	return (idle ? EPOLLIN : 0) | (address_is_unix(&l->config.address) ? EPOLLRDHUP : 0);
}

static int watch_hangup(struct listener *l, int fd)
{
	/* Being shut down is always reported; at the edge, so that each is told once. */
	struct epoll_event event = {.events = EPOLLET, .data.fd = fd};

	if (l->kind != LISTENER_GROUP || is_datagram(l))
		return 0;
	if (l->hangups_fd < 0)
		l->hangups_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->hangups_fd < 0 || epoll_ctl(l->hangups_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	return 0;
}

int listener_watch_add(struct listener *l, int fd)
{
	const struct lane_socket *socket;
	struct listener_watch *w;
	int r = array_reserve(
		&l->watches, &l->watches_capacity, l->n_watches + 1, sizeof(*l->watches));

	if (r < 0)
		return r;
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	*w = (struct listener_watch){.listener = l, .fd = fd};
	socket = socket_of(l, fd);
	if (socket) {
		w->lane = socket->lane;
		w->slot = socket->slot;
	}
	r = sd_event_add_io(
		l->service->manager->event, &w->source, fd, events_of(l, false), on_socket, w);
	if (r >= 0)
		r = sd_event_source_set_priority(w->source, PRIORITY_LISTENER);
	if (r >= 0)
		r = watch_hangup(l, fd);
	if (r < 0) {
		if (w->source)
			sd_event_source_disable_unref(w->source);
		free(w);
		return r;
	}
	l->watches[l->n_watches++] = w;
	return 0;
}

void listener_watch_drop(struct listener *l, int fd)
{
	/* Workers may hold the socket: closing ours would not take it from there. */
	if (l->hangups_fd >= 0)
		(void)epoll_ctl(l->hangups_fd, EPOLL_CTL_DEL, fd, NULL);
	for (size_t i = 0; i < l->n_watches; i++)
		if (l->watches[i]->fd == fd) {
			sd_event_source_disable_unref(l->watches[i]->source);
			free(l->watches[i]);
			l->watches[i] = l->watches[--l->n_watches];
			return;
		}
}

/* Of each lane, how many slots somebody serves, or may have connections waiting for somebody. */
static void used_slots(const struct listener *l, unsigned *ret, size_t n_lanes)
{
	struct lane_share shares[CONFIG_GENERATIONS_MAX + 2];
	const struct service *core = &l->service->core;
	size_t n = service_shares(core, UINT64_C(1) << l->id, shares);

	memset(ret, 0, n_lanes * sizeof(*ret));
	for (size_t i = 0; i < n; i++)
		if (!shares[i].generation && shares[i].lane < n_lanes)
			ret[shares[i].lane] = UINT_MAX;
	for (size_t i = 0; i < core->n_generations; i++) {
		const struct generation *g = core->generations[i];

		if (g->lane < n_lanes)
			ret[g->lane] = listener_lane_is_per_worker(l, g->lane) ? g->n_workers : 1;
	}
}

/* A worker that a later step of the rollout starts: its socket has had no share yet. */
static bool is_not_started(const struct listener *l, unsigned lane, unsigned slot)
{
	const struct service *core = &l->service->core;
	const struct generation *to = service_generation(core, core->rollout.to);

	return to && to->lane == lane && rollout_is_open(&core->rollout) &&
	       core->rollout.from != 0 && !core->rollout.took_over &&
	       to->policy.strategy != STRATEGY_RECREATE && slot > 0 && slot < to->n_workers &&
	       to->workers[slot].state == WORKER_STOPPED && !to->workers[slot].was_ready &&
	       to->workers[slot].restarts == 0 && listener_lane_is_per_worker(l, lane);
}

static bool is_idle(const struct listener *l, const struct listener_watch *w, const unsigned *used,
	size_t n_lanes)
{
	return w->lane < n_lanes &&
	       (w->slot >= used[w->lane] || is_not_started(l, w->lane, w->slot));
}

void listener_watch_idle(struct listener *l)
{
	unsigned used[ARRAY_SIZE(l->per_worker_lanes)];

	used_slots(l, used, ARRAY_SIZE(used));
	for (size_t i = 0; i < l->n_watches; i++) {
		const struct listener_watch *w = l->watches[i];
		bool idle = l->kind == LISTENER_GROUP &&
			    (w->lane == LANES_OTHER || w->lane == LANES_PUT_ASIDE ||
				    is_idle(l, w, used, ARRAY_SIZE(used)));
		uint32_t now = 0, want = events_of(l, idle);

		if (sd_event_source_get_io_events(w->source, &now) >= 0 && now != want)
			(void)sd_event_source_set_io_events(w->source, want);
	}
}

void listener_nudge(struct listener *l, unsigned lane)
{
	int fd = listener_socket(l, lane, 0);

	if (fd >= 0 && !listener_lane_is_per_worker(l, lane) &&
		!address_is_unix(&l->config.address))
		(void)listen_nudge(fd);
}

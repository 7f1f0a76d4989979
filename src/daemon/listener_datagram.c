/* SPDX-License-Identifier: Apache-2.0 */
/* What is particular to listeners of datagrams, and what the kernel drops. A UDP socket that was
 * shut down stays so, and one that was connected does not come back to its group: both are for all
 * who hold it, and only another socket helps. Being shut down is an event; being connected is seen
 * when the listener is looked at. */
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "sys/listen.h"

static bool is_connected(int fd)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	return getpeername(fd, (struct sockaddr *)&peer, &len) >= 0;
}

/* Somebody may still read there, though nothing new comes. */
static bool has_generation(const struct listener *l, unsigned lane)
{
	const struct service *core = &l->service->core;

	for (size_t i = 0; i < core->n_generations; i++)
		if (core->generations[i]->lane == lane)
			return true;
	return false;
}

static void report(struct listener *l, const char *what, bool serving, int r)
{
	if ((r >= 0 && !serving) || !listener_may_warn(l))
		return;
	if (r < 0)
		log_error(
			"%s: a worker %s the socket of listener %s for everybody, and it cannot be "
			"replaced: %s",
			l->service->name, what, l->config.name, strerror(-r));
	else
		log_warning("%s: a worker %s the socket of listener %s for everybody; its workers "
			    "are replaced",
			l->service->name, what, l->config.name);
}

/* A Unix socket comes from outside. One that is connected can be told to be so no more; one that
 * was shut down is useless until whoever bound its path does so again. */
static bool mend_unix(struct listener *l, int fd)
{
	const struct sockaddr nobody = {.sa_family = AF_UNSPEC};

	if (is_connected(fd)) {
		if (connect(fd, &nobody, sizeof(nobody)) >= 0 && listener_may_warn(l))
			log_warning("%s: a worker connected the socket of listener %s for "
				    "everybody; it receives from all again",
				l->service->name, l->config.name);
	} else if (listener_may_warn(l)) {
		log_error("%s: a worker shut the socket of listener %s down for everybody; restart "
			  "the systemd socket unit it came from, and then tenured",
			l->service->name, l->config.name);
	}
	return false;
}

bool listener_mend_datagram(struct listener *l, int fd)
{
	const struct lane_socket *socket = NULL;
	bool connected = is_connected(fd), serving, kept = false;
	unsigned lane;
	int r = 0;

	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd == fd)
			socket = &l->lanes.sockets[i];
	/* Nobody is given one that was put aside: it may be as it likes. */
	if (!socket || socket->lane == LANES_PUT_ASIDE)
		return false;
	if (address_is_unix(&l->config.address))
		return mend_unix(l, fd);
	lane = socket->lane;
	serving = l->kind == LISTENER_HELD || listener_lane_has_share(l, lane);
	if (l->kind == LISTENER_GROUP && !connected && (serving || has_generation(l, lane))) {
		/* It still gets datagrams, and its workers can still read them: it is used until
		 * others stand in for them, on other sockets. */
		if (l->dirty_lanes[lane])
			return false;
		listener_taint_lane(l, lane);
		kept = true;
	} else {
		r = listener_replace_socket(
			l, lane, socket->slot, connected && l->kind == LISTENER_GROUP);
	}
	report(l, connected ? "connected" : "shut down", serving, r);
	/* When the event that is under way is over. */
	l->service->holds_dead_socket |= serving && r >= 0;
	return r >= 0 && !kept;
}

static void warn_of_drops(struct listener *l, uint64_t before)
{
	bool datagrams = l->config.address.kind == ADDRESS_UDP;

	if (!listener_may_warn_again(l, &l->warned_drops_usec))
		return;
	l->warned_drops_usec = manager_now(l->service->manager);
	log_warning("%s: listener %s: the kernel dropped %llu %s because a queue was full (%llu "
		    "so far); %s",
		l->service->name, l->config.name, (unsigned long long)(l->dropped - before),
		datagrams ? "datagrams" : "connection attempts", (unsigned long long)l->dropped,
		datagrams ? "more workers or a larger rcvbuf help"
			  : "more workers or a larger backlog help");
}

uint64_t listener_look_at_drops(struct listener *l)
{
	uint64_t before = l->dropped;

	for (size_t i = 0; i < l->n_watches; i++) {
		struct listener_watch *w = l->watches[i];
		unsigned now;

		if (listen_dropped(w->fd, &now) < 0)
			continue;
		/* Wraps, as the kernel's does. */
		l->dropped += (unsigned)(now - w->dropped);
		w->dropped = now;
	}
	if (l->dropped != before)
		warn_of_drops(l, before);
	return l->dropped;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/connections_walk.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "sys/listen.h"

enum {
	/* What the kernel passes without a pause in two milliseconds or three, on top of its table.
	 */
	FEW_SOCKETS = 10000,
	/* So many descriptors are read between two looks at the clock. */
	DESCRIPTORS_AT_ONCE = 32,
	SOCKETS_MAX = 1000000,
	/* In the map, where a target's index + FIRST_TARGET is. */
	OUR_OWN = 1,
	FIRST_TARGET = 2,
};

struct walk_place {
	size_t service;
	bool is_unix;
	bool tagged; /* by lane */
	uint16_t port;
	size_t name_len;
	char name[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
};

uint64_t walk_now(void)
{
	return monotonic_usec();
}

struct walk *walk_new(uint64_t now, bool backwards, walk_connection_fn function, void *userdata)
{
	struct walk *w = calloc(1, sizeof(*w));

	if (w)
		*w = (struct walk){.started_usec = now,
			.backwards = backwards,
			.function = function,
			.userdata = userdata,
			.reader = {.fd = -1},
			.dump = {.fd = -1}};
	return w;
}

struct walk *walk_free(struct walk *w)
{
	if (!w)
		return NULL;
	if (w->reading)
		process_sockets_end(&w->reader);
	if (w->dumping)
		sockdiag_dump_done(&w->dump);
	process_family_done(&w->family);
	idmap_done(&w->sockets);
	free(w->places);
	free(w->targets);
	free(w);
	return NULL;
}

static int add_place(struct walk *w, struct walk_place place)
{
	int r = array_reserve(&w->places, &w->places_capacity, w->n_places + 1, sizeof(place));

	if (r >= 0)
		w->places[w->n_places++] = place;
	return r;
}

/* By the name the socket was bound to, which may not be that of the file by now. */
static int add_unix(struct walk *w, int fd)
{
	struct sockaddr_un a;
	socklen_t len = sizeof(a);
	struct walk_place place = {.service = w->n_services, .is_unix = true};

	if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return -errno;
	len -= MIN(len, (socklen_t)offsetof(struct sockaddr_un, sun_path));
	/* The kernel counts the end of a path sometimes. */
	place.name_len = a.sun_path[0] ? strnlen(a.sun_path, len) : len;
	memcpy(place.name, a.sun_path, place.name_len);
	return add_place(w, place);
}

static int add_listener(struct walk *w, const struct listener *l)
{
	uint64_t inode, *value;
	int r;

	if (l->config.address.kind == ADDRESS_TCP) {
		r = add_place(w, (struct walk_place){.service = w->n_services,
					 .tagged = l->kind == LISTENER_GROUP,
					 .port = (uint16_t)address_port(&l->config.address)});
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < l->lanes.n; i++) {
		int fd = l->lanes.sockets[i].fd;

		if (socket_inode(fd, &inode) < 0)
			continue;
		r = idmap_add(&w->sockets, inode, &value);
		if (r < 0)
			return r;
		*value = OUR_OWN;
		if (l->config.address.kind == ADDRESS_UNIX_STREAM ||
			l->config.address.kind == ADDRESS_UNIX_SEQPACKET)
			r = add_unix(w, fd);
		if (r == -ENOMEM)
			return r;
	}
	return 0;
}

int walk_add_service(struct walk *w, const struct manager_service *s)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		int r = s->listeners[id] ? add_listener(w, s->listeners[id]) : 0;

		if (r < 0)
			return r;
	}
	return (int)w->n_services++;
}

int walk_add_target(struct walk *w, unsigned generation, unsigned worker, pid_t pid)
{
	int r = array_reserve(
		&w->targets, &w->targets_capacity, w->n_targets + 1, sizeof(*w->targets));

	if (r < 0)
		return r;
	w->targets[w->n_targets++] = (struct walk_target){.service = w->n_services - 1,
		.generation = generation,
		.worker = worker,
		.pid = pid};
	return 0;
}

bool walk_can_know(const struct walk *w, size_t service)
{
	for (size_t i = 0; i < w->n_places; i++)
		if (w->places[i].service == service)
			return true;
	return false;
}

/* --- descriptors -------------------------------------------------------------------------- */

static struct walk_target *target(struct walk *w)
{
	return &w->targets[w->backwards ? w->n_targets - 1 - w->at : w->at];
}

static void next_target(struct walk *w, int error)
{
	/* Who is gone has no connections. */
	if (error < 0 && error != -ESRCH)
		target(w)->error = error;
	process_family_done(&w->family);
	w->at++;
	w->phase = WALK_FAMILY;
}

static int add_socket(struct walk *w, uint64_t inode)
{
	uint64_t *value;
	int r;

	if (w->sockets.n >= SOCKETS_MAX)
		return -E2BIG;
	r = idmap_add(&w->sockets, inode, &value);
	if (r < 0)
		return r;
	/* What several processes share is the first one's. */
	if (r > 0)
		*value = FIRST_TARGET + (uint64_t)(target(w) - w->targets);
	if (*value >= FIRST_TARGET)
		target(w)->has_sockets = true;
	return 0;
}

/* 1: there are more; 0: those were all. */
static int read_sockets(struct walk *w)
{
	for (unsigned i = 0; i < DESCRIPTORS_AT_ONCE; i++) {
		uint64_t inode;
		int r = process_sockets_next(&w->reader, &inode);

		if (r <= 0)
			return r == -ESRCH ? 0 : r;
		r = inode == 0 ? 0 : add_socket(w, inode);
		if (r < 0)
			return r;
	}
	return 1;
}

static void step_sockets(struct walk *w)
{
	int r;

	if (!w->reading) {
		if (w->at_process >= w->family.n) {
			next_target(w, 0);
			return;
		}
		r = process_sockets_begin(&w->reader, w->family.pids[w->at_process++]);
		w->reading = r >= 0;
		if (r < 0 && r != -ESRCH)
			next_target(w, r);
		return;
	}
	r = read_sockets(w);
	if (r > 0)
		return;
	process_sockets_end(&w->reader);
	w->reading = false;
	if (r < 0)
		next_target(w, r);
}

static void step_family(struct walk *w)
{
	int r;

	if (w->at >= w->n_targets) {
		bool any = w->nobodys;

		for (size_t i = 0; i < w->n_targets; i++)
			any |= w->targets[i].has_sockets;
		/* Nobody has a connection of any kind, nor is it asked who waits: the kernel's
		 * list, which may be long, need not be read. */
		w->phase = any ? WALK_TCP : WALK_DONE;
		return;
	}
	r = w->family.n == 0 ? process_family_begin(&w->family, target(w)->pid)
			     : process_family_step(&w->family);
	if (r < 0) {
		next_target(w, r);
	} else if (r == 0 && w->family.n_looked >= w->family.n) {
		w->at_process = 0;
		w->phase = WALK_SOCKETS;
	}
}

/* --- connections -------------------------------------------------------------------------- */

static bool comes_in_at(const struct walk_place *p, const struct sockdiag_entry *e)
{
	if (p->is_unix)
		return e->name && e->name_len == p->name_len &&
		       memcmp(e->name, p->name, p->name_len) == 0;
	return !e->name && e->port == p->port;
}

/* Does its tag say which lane it came to? By its port alone; the address may be another's. */
static bool is_tagged(const struct walk *w, const struct sockdiag_entry *e)
{
	const struct walk_place *first = NULL;

	for (size_t i = 0; i < w->n_places; i++) {
		const struct walk_place *p = &w->places[i];

		if (!comes_in_at(p, e))
			continue;
		if (!p->tagged || (first && first->service != p->service))
			return false;
		first = p;
	}
	return first;
}

static int take_connection(const struct sockdiag_entry *e, void *userdata)
{
	struct walk *w = userdata;
	const uint64_t *value = e->inode ? idmap_find(&w->sockets, e->inode) : NULL;
	struct walk_target *owner =
		value && *value >= FIRST_TARGET ? &w->targets[*value - FIRST_TARGET] : NULL;
	struct sockdiag_entry nobodys;

	if (!owner && !is_tagged(w, e)) {
		nobodys = *e;
		nobodys.tag = -1;
		e = &nobodys;
	}
	for (size_t i = 0; i < w->n_places; i++) {
		const struct walk_place *p = &w->places[i];

		if ((owner && p->service != owner->service) || !comes_in_at(p, e))
			continue;
		if (owner)
			owner->n++;
		if (w->function)
			w->function(p->service, owner, e, w->userdata);
		if (owner)
			break;
	}
	return 0;
}

static bool any_place(const struct walk *w, bool is_unix)
{
	for (size_t i = 0; i < w->n_places; i++)
		if (w->places[i].is_unix == is_unix)
			return true;
	return false;
}

/* Where the kernel has few sockets it chooses ours the quickest; otherwise it would pass all others
 * without a pause. */
static int begin_tcp(struct walk *w)
{
	size_t total = 0;
	unsigned port = 0;
	bool one = true, few;

	for (size_t i = 0; i < w->n_places; i++)
		if (!w->places[i].is_unix) {
			one &= port == 0 || port == w->places[i].port;
			port = w->places[i].port;
		}
	few = sockdiag_tcp_total(&total) >= 0 && total < FEW_SOCKETS;
	return sockdiag_dump_tcp(one && few ? port : 0, !few, &w->dump);
}

static void step_dump(struct walk *w)
{
	bool is_unix = w->phase == WALK_UNIX;
	int r = 0;

	if (w->dumping) {
		r = sockdiag_dump_step(&w->dump, take_connection, w);
		if (r > 0)
			return;
		sockdiag_dump_done(&w->dump);
		w->dumping = false;
	} else if (any_place(w, is_unix)) {
		r = is_unix ? sockdiag_dump_unix(&w->dump) : begin_tcp(w);
		w->dumping = r >= 0;
		if (w->dumping)
			return;
	}
	if (r < 0)
		w->error = r;
	for (size_t i = 0; r < 0 && i < w->n_targets; i++)
		if (w->targets[i].has_sockets)
			w->targets[i].error = r;
	w->phase = is_unix ? WALK_DONE : WALK_UNIX;
}

static void step(struct walk *w)
{
	switch (w->phase) {
	case WALK_FAMILY:
		step_family(w);
		break;
	case WALK_SOCKETS:
		step_sockets(w);
		break;
	case WALK_TCP:
	case WALK_UNIX:
		step_dump(w);
		break;
	case WALK_DONE:
		break;
	}
}

bool walk_run(struct walk *w, uint64_t usec)
{
	uint64_t begun = walk_now(), worked = clock_usec(CLOCK_THREAD_CPUTIME_ID);

	do
		step(w);
	while (w->phase != WALK_DONE && walk_now() - begun < usec);
	worked = clock_usec(CLOCK_THREAD_CPUTIME_ID) - worked;
	w->busy_usec += worked;
	w->longest_usec = MAX(w->longest_usec, worked);
	return w->phase == WALK_DONE;
}

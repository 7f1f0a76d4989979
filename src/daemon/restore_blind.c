/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/restore_blind.h"

#include <signal.h>
#include <time.h>

#include "daemon/log.h"
#include "daemon/state_save.h"
#include "sys/listen.h"
#include "sys/process.h"
#include "sys/spawn.h"

/* For SIGTERM, and again for SIGKILL, when the daemon itself ends. */
enum { END_MSEC = 2000 };
#define LOOK_USEC (50 * USEC_PER_MSEC)

struct blind_socket {
	int fd; /* -1: it is gone */
	uint64_t inode;
	struct address address;
};

enum blind_stage { BLIND_SERVES, BLIND_IDLES, BLIND_DRAINS, BLIND_ESCALATED, BLIND_KILLED };

struct blind_process {
	int pidfd; /* -1: it has ended */
	pid_t pid;
	char *service; /* NULL: not known */
	enum blind_stage stage;
	uint64_t until_usec;
};

struct blind {
	struct manager *manager;
	struct blind_socket *sockets;
	size_t n_sockets, sockets_capacity;
	struct blind_process *processes;
	size_t n_processes, processes_capacity;
	uint64_t begin_usec;
	sd_event_source *timer;
};

/* --- what there is -------------------------------------------------------- */

static int add_socket(struct blind *b, int fd)
{
	struct blind_socket s = {.fd = fd};
	bool known = false;

	/* Under a second name: ending the one would end the other. */
	if (socket_inode(fd, &s.inode) >= 0)
		for (size_t i = 0; i < b->n_sockets; i++)
			known |= b->sockets[i].inode == s.inode;
	if (known || socket_address(fd, &s.address) < 0) {
		store_drop(b->manager->store, fd);
		close_fd(fd);
		return 0;
	}
	if (array_reserve(
		    &b->sockets, &b->sockets_capacity, b->n_sockets + 1, sizeof(*b->sockets)) < 0)
		return -ENOMEM;
	b->sockets[b->n_sockets++] = s;
	return 0;
}

static int add_process(struct blind *b, int pidfd)
{
	struct blind_process p = {.pidfd = pidfd};

	if (process_of_pidfd(pidfd, &p.pid) < 0 || process_has_ended(pidfd)) {
		store_drop(b->manager->store, pidfd);
		close_fd(pidfd);
		return 0;
	}
	if (array_reserve(&b->processes, &b->processes_capacity, b->n_processes + 1,
		    sizeof(*b->processes)) < 0)
		return -ENOMEM;
	if (process_environment(p.pid, "TENURE_SERVICE", &p.service) < 0)
		p.service = NULL;
	b->processes[b->n_processes++] = p;
	return 0;
}

static int collect(struct blind *b)
{
	struct store *store = b->manager->store;
	unsigned number;
	int fd, r = 0;

	while (r >= 0 && (fd = store_take_any(store, STORED_LISTENER, &number)) >= 0)
		r = add_socket(b, fd);
	while (r >= 0 && (fd = store_take_any(store, STORED_PIDFD, &number)) >= 0)
		r = add_process(b, fd);
	/* What is left belonged to those: nobody listens to what they say any more, and the control
	 * socket is made anew. One that a socket unit gave us comes again. */
	(void)store_discard_rest(store);
	store_barrier(store);
	return r;
}

int blind_new(struct manager *m, struct blind **ret)
{
	struct blind *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	b->manager = m;
	r = collect(b);
	if (r < 0 || b->n_sockets + b->n_processes == 0) {
		blind_free(b);
		return r;
	}
	if (!m->stopping)
		log_warning("%zu sockets and %zu workers of an earlier daemon are there: new "
			    "workers are started beside them, and then they end",
			b->n_sockets, b->n_processes);
	*ret = b;
	return 0;
}

/* What the record names, in the order in which it does. */
static int take_listed(
	struct blind *b, const json_t *list, enum stored kind, int (*add)(struct blind *b, int fd))
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < json_array_size(list); i++) {
		json_int_t number = json_integer_value(json_array_get(list, i));
		int fd = number > 0 && number <= UINT32_MAX
				 ? store_take(b->manager->store, kind, (unsigned)number)
				 : -1;

		if (fd >= 0) /* else it ended just before the daemon did */
			r = add(b, fd);
	}
	return r;
}

int blind_restore(struct manager *m, const json_t *record)
{
	struct blind *b = json_is_object(record) ? calloc(1, sizeof(*b)) : NULL;
	int r;

	if (!b)
		return json_is_object(record) ? -ENOMEM : 0;
	b->manager = m;
	m->blind = b;
	r = take_listed(b, json_object_get(record, "sockets"), STORED_LISTENER, add_socket);
	if (r >= 0)
		r = take_listed(b, json_object_get(record, "processes"), STORED_PIDFD, add_process);
	if (r >= 0)
		log_notice(
			"%zu sockets and %zu workers of the daemon before the last one are still "
			"ending",
			b->n_sockets, b->n_processes);
	return r;
}

json_t *blind_save(const struct blind *b)
{
	json_t *sockets, *processes;

	if (!b)
		return NULL;
	sockets = json_array();
	processes = json_array();
	for (size_t i = 0; i < b->n_sockets; i++)
		if (b->sockets[i].fd >= 0)
			(void)json_array_append_new(sockets,
				json_integer(store_number(b->manager->store, b->sockets[i].fd)));
	for (size_t i = 0; i < b->n_processes; i++)
		if (b->processes[i].pidfd >= 0)
			(void)json_array_append_new(processes,
				json_integer(
					store_number(b->manager->store, b->processes[i].pidfd)));
	return json_pack("{s:o?, s:o?}", "sockets", sockets, "processes", processes);
}

static void drop_process(struct blind *b, struct blind_process *p)
{
	store_drop(b->manager->store, p->pidfd);
	p->pidfd = close_fd(p->pidfd);
}

static bool wait_ended(const struct blind *b, unsigned msec)
{
	const struct timespec step = {.tv_nsec = NSEC_PER_USEC * USEC_PER_MSEC};
	bool all = false;

	for (unsigned i = 0; !all && i < msec; i++) {
		all = true;
		for (size_t k = 0; k < b->n_processes; k++)
			all &= b->processes[k].pidfd < 0 ||
			       process_has_ended(b->processes[k].pidfd);
		if (!all)
			(void)nanosleep(&step, NULL);
	}
	return all;
}

void blind_end(struct blind *b)
{
	static const int signals[] = {SIGTERM, SIGKILL};

	for (size_t i = 0; b && i < ARRAY_SIZE(signals); i++) {
		for (size_t k = 0; k < b->n_processes; k++)
			if (b->processes[k].pidfd >= 0)
				(void)spawn_signal(b->processes[k].pidfd, signals[i]);
		if (wait_ended(b, END_MSEC))
			return;
	}
}

struct blind *blind_free(struct blind *b)
{
	if (!b)
		return NULL;
	for (size_t i = 0; i < b->n_sockets; i++) {
		if (b->sockets[i].fd < 0)
			continue;
		if (!b->manager->detached)
			store_drop(b->manager->store, b->sockets[i].fd);
		if (!b->manager->detached && !address_is_unix(&b->sockets[i].address))
			listen_shutdown_take(&b->sockets[i].fd);
		close_fd(b->sockets[i].fd);
	}
	for (size_t i = 0; i < b->n_processes; i++) {
		struct blind_process *p = &b->processes[i];

		if (p->pidfd >= 0 && !b->manager->detached) {
			(void)spawn_signal(p->pidfd, SIGKILL);
			drop_process(b, p);
		}
		close_fd(p->pidfd);
		free(p->service);
	}
	free(b->sockets);
	free(b->processes);
	if (b->timer)
		sd_event_source_disable_unref(b->timer);
	free(b);
	return NULL;
}

/* --- for those who come after ---------------------------------------------- */

static struct blind_socket *find(const struct blind *b, const struct address *a)
{
	for (size_t i = 0; b && i < b->n_sockets; i++)
		if (b->sockets[i].fd >= 0 && b->sockets[i].address.kind == a->kind &&
			address_equal(&b->sockets[i].address, a))
			return &b->sockets[i];
	return NULL;
}

bool blind_has(const struct blind *b, const struct address *a)
{
	return find(b, a);
}

static bool is_served(const struct blind *b, const struct blind_socket *s)
{
	for (size_t i = 0; i < b->n_processes; i++)
		if (b->processes[i].pidfd >= 0 &&
			process_holds_socket(&b->processes[i].pid, 1, s->inode) > 0)
			return true;
	return false;
}

/* Of those of a group, the one to which connections go as it was steered last: another would be
 * taken over in vain, and that one ended with connections in its queue. */
static struct blind_socket *find_served(const struct blind *b, const struct address *a)
{
	for (size_t i = 0; b && i < b->n_sockets; i++)
		if (b->sockets[i].fd >= 0 && b->sockets[i].address.kind == a->kind &&
			address_equal(&b->sockets[i].address, a) && is_served(b, &b->sockets[i]))
			return &b->sockets[i];
	return find(b, a);
}

int blind_take(struct blind *b, const struct address *a)
{
	struct blind_socket *s = find_served(b, a);

	if (!s)
		return -1;
	/* It is stored anew, as somebody's. */
	store_drop(b->manager->store, s->fd);
	return TAKE_FD(s->fd);
}

/* --- the end of what was before -------------------------------------------- */

static const struct drain_config *drain_of(const struct blind *b, const char *service)
{
	static const struct drain_config none = {
		.settle_usec = USEC_PER_SEC,
		.settle_timeout_usec = 30 * USEC_PER_SEC,
		.idle_wait_usec = 5 * USEC_PER_SEC,
		.signal = SIGTERM,
		.timeout_usec = 30 * USEC_PER_SEC,
		.kill_after_usec = 5 * USEC_PER_SEC,
	};
	const struct manager_service *s = service ? manager_find(b->manager, service) : NULL;

	return s ? &s->config->drain : &none;
}

static const struct drain_config *drain_of_socket(
	const struct blind *b, const struct blind_socket *socket)
{
	for (size_t i = 0; i < b->manager->n_services; i++) {
		const struct manager_service *s = b->manager->services[i];

		for (size_t k = 0; k < s->config->n_listeners; k++)
			if (address_equal(&s->config->listeners[k].address, &socket->address))
				return &s->config->drain;
	}
	return drain_of(b, NULL);
}

/* It gets nothing new since the services were started. */
static bool has_settled(const struct blind *b, const struct blind_socket *s, uint64_t now)
{
	const struct drain_config *drain = drain_of_socket(b, s);
	struct listen_state state;

	if (now - b->begin_usec < drain->settle_usec)
		return false;
	if (now - b->begin_usec >= drain->settle_timeout_usec)
		return true;
	return listen_query(s->fd, &state) < 0 || state.queue == 0;
}

static bool end_sockets(struct blind *b, uint64_t now)
{
	bool all = true;

	for (size_t i = 0; i < b->n_sockets; i++) {
		struct blind_socket *s = &b->sockets[i];

		if (s->fd >= 0 && has_settled(b, s, now)) {
			store_drop(b->manager->store, s->fd);
			if (address_is_unix(&s->address))
				s->fd = close_fd(s->fd);
			else
				listen_shutdown_take(&s->fd);
		}
		all &= s->fd < 0;
	}
	return all;
}

/* Their groups are their own: each was the leader when it was started. */
static void signal_process(const struct blind_process *p, int signal, bool group)
{
	if (group && getpgid(p->pid) == p->pid && !process_has_ended(p->pidfd))
		(void)spawn_signal_group(p->pid, signal);
	else
		(void)spawn_signal(p->pidfd, signal);
}

/* On a queue that both have, they serve until somebody else does. */
static bool is_needed(const struct blind *b, const struct blind_process *p)
{
	const struct manager_service *s = p->service ? manager_find(b->manager, p->service) : NULL;

	return s && s->core.wanted && s->core.current == 0;
}

/* As the machines do it, without looking at connections. */
static void advance(struct blind *b, struct blind_process *p, uint64_t now, bool settled)
{
	const struct drain_config *drain = drain_of(b, p->service);

	if (p->stage != BLIND_SERVES && now < p->until_usec)
		return;
	switch (p->stage) {
	case BLIND_SERVES:
		if (!settled || is_needed(b, p))
			return;
		p->until_usec = now + drain->idle_wait_usec;
		p->stage = BLIND_IDLES;
		break;
	case BLIND_IDLES:
		signal_process(p, drain->signal, false);
		p->until_usec = now + drain->timeout_usec;
		p->stage = BLIND_DRAINS;
		break;
	case BLIND_DRAINS:
		signal_process(p, SIGTERM, true);
		p->until_usec = now + drain->kill_after_usec;
		p->stage = BLIND_ESCALATED;
		break;
	case BLIND_ESCALATED:
	case BLIND_KILLED:
		signal_process(p, SIGKILL, true);
		p->until_usec = now + MAX(drain->kill_after_usec, USEC_PER_SEC);
		p->stage = BLIND_KILLED;
		break;
	}
}

static bool end_processes(struct blind *b, uint64_t now, bool settled)
{
	bool all = true;

	for (size_t i = 0; i < b->n_processes; i++) {
		struct blind_process *p = &b->processes[i];

		if (p->pidfd >= 0 && process_has_ended(p->pidfd))
			drop_process(b, p);
		if (p->pidfd >= 0)
			advance(b, p, now, settled);
		all &= p->pidfd < 0;
	}
	return all;
}

static void tend(struct blind *b, bool *ret_over)
{
	uint64_t now = manager_now(b->manager);
	size_t before = 0, after = 0;
	bool settled, ended;

	for (size_t i = 0; i < b->n_sockets; i++)
		before += b->sockets[i].fd >= 0;
	settled = end_sockets(b, now);
	for (size_t i = 0; i < b->n_sockets; i++)
		after += b->sockets[i].fd >= 0;
	/* They have left their groups: who stays is looked at. */
	for (size_t i = 0; after < before && i < b->manager->n_services; i++)
		manager_service_tend(b->manager->services[i]);
	ended = end_processes(b, now, settled);
	*ret_over = settled && ended;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct blind *b = userdata;
	struct manager *m = b->manager;
	bool over;

	(void)usec;
	tend(b, &over);
	if (over) {
		log_notice("what an earlier daemon had left has ended");
		m->blind = blind_free(b);
		manager_changed(m);
		return 0;
	}
	(void)sd_event_source_set_time_relative(source, LOOK_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void blind_begin(struct blind *b)
{
	struct manager *m = b ? b->manager : NULL;
	int r;

	if (!b || b->timer)
		return;
	b->begin_usec = manager_now(m);
	r = sd_event_add_time_relative(
		m->event, &b->timer, CLOCK_MONOTONIC, LOOK_USEC, 0, on_timer, b);
	if (r < 0) {
		log_error("event loop: %s", strerror(-r));
		m->blind = blind_free(b);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/worker_channel.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "daemon/listener_live.h"
#include "daemon/log.h"
#include "daemon/state_save.h"
#include "sys/fdpass.h"
#include "wire/channel.h"

/* When a listener is offered again to a worker that had no room for it. */
#define OFFER_AGAIN_USEC USEC_PER_SEC

/* --- sending ---------------------------------------------------------------- */

/* 0; -EAGAIN: no room now, which the loop tells of when there is; -ETOOMANYREFS: so many
 * descriptors are under way to workers that do not read that the kernel takes no more of ours: some
 * other time; other errors: it is of no use any more. */
static int send_message(
	struct worker_process *p, const struct channel_message *m, const int *fds, size_t n_fds)
{
	char packet[CHANNEL_MESSAGE_MAX];
	int len = channel_format(m, packet);
	ssize_t n;

	if (len < 0)
		return len;
	n = fdpass_send(p->channel_fd, packet, (size_t)len, fds, n_fds);
	return n < 0 ? (int)n : 0;
}

static enum channel_type type_of(const struct listener *l)
{
	switch (address_socket_type(&l->config.address)) {
	case SOCK_DGRAM:
		return CHANNEL_DATAGRAM;
	case SOCK_SEQPACKET:
		return CHANNEL_SEQPACKET;
	default:
		return CHANNEL_STREAM;
	}
}

static void name_listener(struct channel_message *m, const struct listener *l)
{
	_cleanup_free_ char *address = address_format(&l->config.address);

	snprintf(m->name, sizeof(m->name), "%s",
		l->config.fd_name ? l->config.fd_name : l->config.name);
	m->type = type_of(l);
	if (address && strlen(address) <= CHANNEL_ADDRESS_MAX)
		snprintf(m->address, sizeof(m->address), "%s", address);
}

static int tell_listener(struct worker_process *p, const struct generation *g, struct listener *l)
{
	struct channel_message m = {.kind = CHANNEL_UNKNOWN};
	uint64_t bit = UINT64_C(1) << l->id;
	bool wanted = (g->listeners & bit) != 0;
	int fd = wanted ? listener_socket(l, g->lane, p->index) : -1, r = 0;

	name_listener(&m, l);
	if (fd >= 0 && !(p->has_listeners & bit) && !l->leaving) {
		m.kind = CHANNEL_ADD;
		r = send_message(p, &m, &fd, 1);
		if (r >= 0)
			p->has_listeners |= bit;
	} else if (l->leaving && !l->left && (p->has_listeners & bit) && !(p->told_leave & bit)) {
		m.kind = CHANNEL_LEAVE;
		r = send_message(p, &m, NULL, 0);
		if (r >= 0)
			p->told_leave |= bit;
	} else if (l->left && (p->has_listeners & bit) && !(p->told_remove & bit)) {
		m.kind = CHANNEL_REMOVE;
		r = send_message(p, &m, NULL, 0);
		if (r >= 0)
			p->told_remove |= bit;
	}
	if (m.kind != CHANNEL_UNKNOWN && r >= 0)
		worker_process_changed(p);
	return r;
}

static int tell_listeners(struct worker_process *p)
{
	struct manager_service *s = p->service;
	const struct generation *g = service_generation(&s->core, p->generation);
	int r = 0;

	if (!g || !(p->channel_accepts & CHANNEL_ACCEPTS_LISTENERS))
		return 0;
	for (unsigned id = 0; r >= 0 && id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id])
			r = tell_listener(p, g, s->listeners[id]);
	return r;
}

static int tell_stored(struct worker_process *p)
{
	struct channel_message m = {.kind = CHANNEL_STORED};
	int fds[CHANNEL_FDS_MAX], r = 0;
	const char *name = NULL;
	size_t n;

	if (!(p->channel_accepts & CHANNEL_ACCEPTS_DESCRIPTORS))
		return 0;
	while (r >= 0 && (n = worker_store_next(p->service, p->generation, p->index, fds,
				  ARRAY_SIZE(fds), &name)) > 0) {
		snprintf(m.name, sizeof(m.name), "%s", name);
		r = send_message(p, &m, fds, n);
		/* A name that no message can have does not come again. */
		if (r >= 0 || r == -EINVAL)
			worker_store_given(p->service, p->generation, p->index, fds, n);
		if (r == -EINVAL)
			r = 0;
	}
	return r;
}

static int welcome(struct worker_process *p)
{
	struct channel_message m = {.kind = CHANNEL_WELCOME,
		.version = CHANNEL_VERSION, /* there is no other one yet */
		.generation = p->generation,
		.worker = p->index};
	int r;

	if (!p->channel_greets)
		return 0;
	snprintf(m.service, sizeof(m.service), "%s", p->service->name);
	r = send_message(p, &m, NULL, 0);
	p->channel_greets = r < 0;
	return r;
}

static int ping(struct worker_process *p)
{
	struct channel_message m = {.kind = CHANNEL_PING, .id = manager_now(p->service->manager)};
	int r;

	if (!p->channel_pings)
		return 0;
	r = send_message(p, &m, NULL, 0);
	p->channel_pings = r < 0;
	return r;
}

void worker_channel_sync(struct worker_process *p)
{
	int r;

	if (p->channel_fd < 0 || (p->channel_accepts == 0 && !p->channel_greets) || p->pid == 0)
		return;
	r = welcome(p);
	if (r >= 0)
		r = ping(p);
	if (r >= 0)
		r = tell_listeners(p);
	if (r >= 0)
		r = tell_stored(p);
	if (r == -EAGAIN)
		log_debug("%s: worker %u of generation %u does not read its channel",
			p->service->name, p->index, p->generation);
	/* What is over is seen by the event loop, and closed there: we may be called from
	 * anywhere. */
	if (p->channel_source)
		(void)sd_event_source_set_io_events(
			p->channel_source, r == -EAGAIN ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

bool worker_channel_takes_drain(const struct worker_process *p)
{
	return p->channel_fd >= 0 && (p->channel_accepts & CHANNEL_ACCEPTS_DRAIN);
}

bool worker_channel_drain(struct worker_process *p, uint64_t deadline_usec)
{
	const struct channel_message m = {.kind = CHANNEL_DRAIN, .deadline_usec = deadline_usec};

	if (!worker_channel_takes_drain(p))
		return false;
	worker_channel_sync(p);
	return send_message(p, &m, NULL, 0) >= 0;
}

bool worker_channel_takes_listeners(const struct worker_process *p)
{
	return p->channel_fd >= 0 && (p->channel_accepts & CHANNEL_ACCEPTS_LISTENERS);
}

/* --- the heartbeat ------------------------------------------------------------ */

static int on_ping_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct worker_process *p = userdata;

	(void)usec;
	p->channel_pings = true;
	worker_channel_sync(p);
	(void)sd_event_source_set_time_relative(source, MAX(p->watchdog_usec / 3, USEC_PER_MSEC));
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static void watch_over(struct worker_process *p)
{
	int r;

	if (p->channel_timer || p->watchdog_usec == 0 ||
		!(p->channel_accepts & CHANNEL_ACCEPTS_PING))
		return;
	r = sd_event_add_time_relative(p->service->manager->event, &p->channel_timer,
		CLOCK_MONOTONIC, 0, 0, on_ping_timer, p);
	if (r >= 0)
		r = sd_event_source_set_priority(p->channel_timer, PRIORITY_TIMER);
	if (r < 0)
		log_error("%s: worker %u of generation %u cannot be asked whether it is alive: %s",
			p->service->name, p->index, p->generation, strerror(-r));
}

/* --- receiving ---------------------------------------------------------------- */

static int on_retry_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	worker_channel_sync(userdata);
	return 0;
}

/* Connections wait in its queue as long as nobody has it. */
static void offer_again(struct worker_process *p, const char *name)
{
	int r;

	if (!p->channel_retry) /* once for each process: it may go on like this */
		log_warning(
			"%s: worker %u of generation %u could not take listener %s (it may have no "
			"descriptors left: limits: {nofile: ...}); it is offered again",
			p->service->name, p->index, p->generation, name);
	if (p->channel_retry)
		sd_event_source_disable_unref(p->channel_retry);
	p->channel_retry = NULL;
	r = sd_event_add_time_relative(p->service->manager->event, &p->channel_retry,
		CLOCK_MONOTONIC, OFFER_AGAIN_USEC, 0, on_retry_timer, p);
	if (r >= 0)
		(void)sd_event_source_set_priority(p->channel_retry, PRIORITY_TIMER);
}

/* It has closed a listener that was to be removed; or has not taken one that was added. */
static void closed(struct worker_process *p, const char *name)
{
	const struct manager_service *s = p->service;

	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		const struct listener *l = s->listeners[id];
		uint64_t bit = UINT64_C(1) << id;

		if (!l || !(p->has_listeners & bit) ||
			!streq(l->config.fd_name ? l->config.fd_name : l->config.name, name))
			continue;
		if (!(p->told_remove & bit) && !l->leaving)
			offer_again(p, name);
		p->has_listeners &= ~bit;
		p->told_leave &= ~bit;
		p->told_remove &= ~bit;
		worker_process_changed(p);
	}
}

/* As it would be said over the notify socket. */
static void store(
	struct worker_process *p, const struct channel_message *m, struct notify_datagram *d)
{
	struct notify_message as_notified = {.fields = NOTIFY_FD_NAME};

	as_notified.fields |= m->kind == CHANNEL_STORE ? NOTIFY_FD_STORE : NOTIFY_FD_STORE_REMOVE;
	if (m->no_poll)
		as_notified.fields |= NOTIFY_FD_NO_POLL;
	snprintf(as_notified.fd_name, sizeof(as_notified.fd_name), "%s", m->name);
	worker_store_handle(p->service, p->generation, p->index, &as_notified, d);
}

static void complain(struct worker_process *p, const char *what)
{
	if (!p->told_channel)
		log_warning("%s: worker %u of generation %u: on its channel %s, ignoring",
			p->service->name, p->index, p->generation, what);
	p->told_channel = true;
}

/* It speaks another version, and hears which one is spoken here. Once: it has no reason to ask
 * again. */
static void refuse(struct worker_process *p, unsigned version)
{
	const struct channel_message m = {.kind = CHANNEL_REFUSED, .version = CHANNEL_VERSION};
	char text[128];

	if (p->told_channel)
		return;
	snprintf(text, sizeof(text),
		"came a message of protocol version %u, and version %d is spoken here (it is "
		"drained by its signal)",
		version, CHANNEL_VERSION);
	complain(p, text);
	(void)send_message(p, &m, NULL, 0);
}

static void handle(
	struct worker_process *p, const struct channel_message *m, struct notify_datagram *d)
{
	switch (m->kind) {
	case CHANNEL_HELLO:
		if (m->version == 0) {
			refuse(p, m->version);
			break;
		}
		p->channel_accepts = m->accepts;
		p->channel_greets = true;
		worker_process_changed(p);
		watch_over(p);
		worker_channel_sync(p);
		break;
	case CHANNEL_PONG:
		worker_process_alive(p);
		break;
	case CHANNEL_TAKEN:
		log_debug("%s: worker %u of generation %u accepts from %s", p->service->name,
			p->index, p->generation, m->name);
		break;
	case CHANNEL_CLOSED:
		closed(p, m->name);
		break;
	case CHANNEL_STORE:
	case CHANNEL_UNSTORE:
		store(p, m, d);
		break;
	case CHANNEL_UNKNOWN:
	case CHANNEL_WELCOME:
	case CHANNEL_PING:
	case CHANNEL_DRAIN:
	case CHANNEL_ADD:
	case CHANNEL_LEAVE:
	case CHANNEL_REMOVE:
	case CHANNEL_STORED:
	case CHANNEL_REFUSED:
		break;
	}
}

/* What it has cost; 0: nothing is there now; -1: it is over. */
static int receive(struct worker_process *p)
{
	struct channel_message m;
	struct notify_datagram d;
	int cost, r = notify_socket_receive(p->channel_fd, &d);

	if (r < 0)
		return r == -EAGAIN || r == -ENOBUFS || r == -ENOMEM ? 0 : -1;
	if (d.len == 0 && d.n_fds == 0)
		return -1;
	cost = WORKER_COST_OF_MESSAGE + (int)d.n_fds;
	r = channel_parse(d.data, d.len, &m);
	if (!worker_process_is_sender(p, &d))
		complain(p, "a process spoke that is none of its own");
	else if (d.truncated)
		complain(p, "came a message that was too long, or descriptors that there was no "
			    "room for");
	else if (r == -EPROTONOSUPPORT)
		refuse(p, m.version);
	else if (r < 0)
		complain(p, "came what is no message");
	else
		handle(p, &m, &d);
	notify_datagram_close(&d);
	return cost;
}

/* As receive(), of the last one. */
static int receive_some(struct worker_process *p, int max_cost)
{
	int fd = p->channel_fd, r = 1;

	for (int cost = 0; cost < max_cost && r > 0 && p->channel_fd == fd; cost += r)
		r = receive(p);
	return r;
}

static int on_channel(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct worker_process *p = userdata;
	int r = receive_some(p, WORKER_COST_AT_ONCE);

	if (r < 0) {
		worker_channel_done(p);
		worker_process_changed(p);
		return 0;
	}
	if (p->channel_fd == fd)
		(void)sd_event_source_set_priority(
			source, r > 0 ? PRIORITY_CONTROL : PRIORITY_NOTIFY);
	if (p->channel_fd == fd && (revents & EPOLLOUT))
		worker_channel_sync(p);
	return 0;
}

void worker_channel_catch_up(struct worker_process *p)
{
	if (p->channel_fd >= 0)
		(void)receive_some(p, WORKER_COST_OF_LAST_WORDS);
}

/* --- its life ------------------------------------------------------------------ */

/* Credentials from the first message on. Ours never blocks; how the worker likes its own is its
 * business. */
static int open_pair(int ret[2])
{
	static const int one = 1;
	int r, flags;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret) < 0)
		return -errno;
	flags = fcntl(ret[0], F_GETFL);
	if (flags >= 0 && fcntl(ret[0], F_SETFL, flags | O_NONBLOCK) >= 0 &&
		setsockopt(ret[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) >= 0)
		return 0;
	r = -errno;
	close_fd(ret[0]);
	close_fd(ret[1]);
	return r;
}

static int set_number(char ***env, const char *name, unsigned value)
{
	char text[32];

	snprintf(text, sizeof(text), "%u", value);
	return strv_env_set(env, name, text);
}

int worker_channel_open(
	struct worker_process *p, const struct manager_generation *g, struct worker_handoff *h)
{
	const struct service_config *c = &g->snapshot->config;
	int ends[2], r;

	if (!(c->handoff & HANDOFF_CHANNEL))
		return 0;
	r = open_pair(ends);
	if (r < 0)
		return r;
	p->channel_fd = ends[0];
	h->channel_fd = ends[1];
	/* Those that leave are not among its listeners. */
	p->has_listeners = g->listeners & ~listener_live_leaving(p->service);
	r = set_number(&h->environment, "TENURE_CHANNEL", (unsigned)h->next);
	if (r >= 0)
		r = set_number(&h->environment, "TENURE_LISTENERS", (unsigned)c->n_listeners);
	h->fds[h->n_fds++] = (struct spawn_fd){h->channel_fd, h->next++};
	(void)store_add(p->service->manager->store, STORED_CHANNEL, p->channel_fd);
	return r;
}

int worker_channel_watch(struct worker_process *p)
{
	int r;

	if (p->channel_fd < 0)
		return 0;
	r = sd_event_add_io(p->service->manager->event, &p->channel_source, p->channel_fd, EPOLLIN,
		on_channel, p);
	if (r >= 0)
		r = sd_event_source_set_priority(p->channel_source, PRIORITY_NOTIFY);
	if (r < 0)
		return r;
	watch_over(p);
	worker_channel_sync(p);
	return 0;
}

void worker_channel_restore(struct worker_process *p, unsigned number)
{
	p->channel_fd = store_take(p->service->manager->store, STORED_CHANNEL, number);
}

void worker_channel_done(struct worker_process *p)
{
	if (p->channel_source)
		sd_event_source_disable_unref(p->channel_source);
	if (p->channel_timer)
		sd_event_source_disable_unref(p->channel_timer);
	if (p->channel_retry)
		sd_event_source_disable_unref(p->channel_retry);
	p->channel_source = p->channel_timer = p->channel_retry = NULL;
	if (p->channel_fd >= 0 && !p->service->manager->detached)
		store_drop(p->service->manager->store, p->channel_fd);
	p->channel_fd = close_fd(p->channel_fd);
	p->channel_accepts = 0;
	p->has_listeners = p->told_leave = p->told_remove = 0;
	p->channel_greets = p->channel_pings = p->told_channel = false;
}

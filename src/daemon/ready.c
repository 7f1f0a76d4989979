/* SPDX-License-Identifier: Apache-2.0 */
/* A worker is ready when what the configuration waits for has happened (it said so, time has
 * passed, a page or a command answered) and somebody accepts on every listener of its lane. With
 * one queue for several workers a probe that was accepted proves the lane, not each worker: then
 * the worker must hold the probe's connection, or be seen waiting on the socket. */
#include "daemon/ready.h"

#include "core/dialect.h"
#include "daemon/log.h"
#include "daemon/probe.h"
#include "daemon/ready_check.h"
#include "sys/listen.h"
#include "sys/process.h"
#include "sys/sockdiag.h"

#define LOOK_FIRST_USEC 250
#define LOOK_MOST_USEC (20 * USEC_PER_MSEC)
/* A page or command that was wrong once is not asked again at once; a reset probe neither. */
#define RETRY_PROBE_USEC (10 * USEC_PER_MSEC)
/* Without evidence either way: a sibling was proved, and this one has had this long. */
#define LONG_ENOUGH_USEC (2 * USEC_PER_SEC)
#define DYING_USEC (100 * USEC_PER_MSEC)

struct ready_watch {
	struct worker_process *process;
	unsigned generation;
	uint64_t listeners;
	const struct service_config *config; /* the snapshot's */
	uint64_t started_usec;
	sd_event_source *timer;
	bool condition;		   /* what `by` asks for has happened */
	struct ready_check *check; /* http, exec */
	unsigned listener;	   /* id being probed; all below are proved */
	struct probe probe;
	uint64_t proved_usec; /* when the probe of the present listener was accepted; 0: not yet */
	uint64_t not_before_usec; /* of the next probe */
};

static struct manager *manager_of(const struct ready_watch *w)
{
	return w->process->service->manager;
}

static uint64_t age(const struct ready_watch *w)
{
	return manager_now(manager_of(w)) - w->started_usec;
}

static unsigned lane_of(const struct ready_watch *w)
{
	const struct generation *g = service_generation(&w->process->service->core, w->generation);

	return g ? g->lane : LANE_NONE;
}

/* Soon at first, then in proportion to how long it has taken already. */
static void look_again(struct ready_watch *w)
{
	uint64_t wait = MIN(MAX(age(w) / 50, (uint64_t)LOOK_FIRST_USEC), LOOK_MOST_USEC);

	(void)sd_event_source_set_time_relative(w->timer, wait);
	(void)sd_event_source_set_enabled(w->timer, SD_EVENT_ONESHOT);
}

static struct listener *next_listener(struct ready_watch *w)
{
	for (; w->listener < 64; w->listener++) {
		struct listener *l = w->process->service->listeners[w->listener];
		/* Of a UDP socket nobody can see whether a datagram was read by who shall. */
		if (l && (w->listeners & (UINT64_C(1) << w->listener)) &&
			l->kind == LISTENER_GROUP && l->config.address.kind == ADDRESS_TCP)
			return l;
	}
	return NULL;
}

static bool is_alone(const struct ready_watch *w)
{
	const struct generation *g = service_generation(&w->process->service->core, w->generation);
	unsigned n = 0;

	for (unsigned i = 0; g && i < g->n_workers; i++)
		n += worker_state_has_process(g->workers[i].state);
	return n <= 1;
}

/* Is it this worker that accepts, and not just a sibling on the same queue? */
static bool is_evident(struct ready_watch *w, const struct listener *l)
{
	_cleanup_free_ pid_t *pids = NULL;
	uint64_t inode = 0;
	size_t n;
	int r;

	if (listener_lane_is_per_worker(l, lane_of(w)) || is_alone(w))
		return true;
	r = process_waits_on_socket(&w->process->pid, 1,
		socket_inode(listener_socket(l, lane_of(w), w->process->index), &inode) < 0
			? 0
			: inode);
	if (r == 1)
		return true;
	if (worker_process_tree(w->process, &pids, &n) < 0)
		return false;
	if (w->probe.fd >= 0 && w->probe.inode != 0 &&
		process_holds_socket(pids, n, w->probe.inode) == 1)
		return true;
	r = process_waits_on_socket(pids, n, inode);
	if (r == 1)
		return true;
	/* It does not let itself be looked at; but neither does one that is just dying, of which we
	 * shall hear soon. */
	if (r == -EACCES || r == -EPERM)
		return age(w) > w->proved_usec + DYING_USEC;
	return age(w) > MAX(3 * w->proved_usec, LONG_ENOUGH_USEC);
}

static void next_probe_later(struct ready_watch *w)
{
	probe_done(&w->probe);
	w->probe = PROBE_NULL;
	w->not_before_usec = age(w) + RETRY_PROBE_USEC;
}

/* As good as can be told where no connection can be made: it waits for one, or it does not let that
 * be seen and has had the time. */
static bool waits_unreachably(struct ready_watch *w, const struct listener *l)
{
	_cleanup_free_ pid_t *pids = NULL;
	uint64_t inode = 0;
	size_t n;

	next_probe_later(w);
	if (socket_inode(listener_socket(l, lane_of(w), w->process->index), &inode) < 0 ||
		worker_process_tree(w->process, &pids, &n) < 0)
		return false;
	return process_waits_on_socket(pids, n, inode) == 1 || age(w) > LONG_ENOUGH_USEC;
}

/* True when this listener is done. */
static bool probe_listener(struct ready_watch *w, struct listener *l)
{
	bool evident;
	int r;

	if (w->proved_usec != 0)
		return is_evident(w, l);
	if (w->probe.fd < 0) {
		if (age(w) < w->not_before_usec)
			return false;
		r = probe_begin(&w->probe, l, lane_of(w), w->process->index);
		/* Bound before its address is here (freebind): nobody can connect yet. */
		if (r == -EADDRNOTAVAIL)
			return waits_unreachably(w, l);
		if (r < 0) {
			next_probe_later(w);
			return false;
		}
	}
	switch (probe_look(&w->probe, manager_of(w)->sockdiag_fd)) {
	case PROBE_WAITING:
		return false;
	case PROBE_FAILED:
		next_probe_later(w);
		return false;
	case PROBE_ACCEPTED:
		break;
	}
	w->proved_usec = MAX(age(w), UINT64_C(1));
	evident = is_evident(w, l);
	/* A server that serves one connection at a time must not wait for us. */
	probe_done(&w->probe);
	w->probe = PROBE_NULL;
	return evident;
}

static bool all_accept(struct ready_watch *w)
{
	struct listener *l;

	if (!w->config->ready.accept)
		return true;
	while ((l = next_listener(w))) {
		if (!probe_listener(w, l))
			return false;
		w->listener++;
		w->proved_usec = 0;
	}
	return true;
}

static bool condition_holds(struct ready_watch *w)
{
	const struct ready_config *c = &w->config->ready;

	if (w->condition)
		return true;
	switch (c->by) {
	case READY_ACCEPT:
		w->condition = true;
		break;
	case READY_NOTIFY:
		w->condition = w->process->said_ready;
		break;
	case READY_FD:
	case READY_EINHORN:
		w->condition = w->process->wrote_ready;
		break;
	case READY_DELAY:
		/* Whoever watches it by now. */
		w->condition = manager_now(manager_of(w)) >=
			       usec_add(w->process->spawned_usec, c->delay_usec);
		break;
	case READY_HTTP:
	case READY_EXEC:
		w->condition = ready_check_step(w->check);
		break;
	}
	return w->condition;
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct ready_watch *w = userdata;

	(void)source;
	(void)usec;
	if (!condition_holds(w) || !all_accept(w)) {
		look_again(w);
		return 0;
	}
	/* Frees w. */
	manager_service_ready(w->process);
	return 0;
}

int ready_watch_new(
	struct worker_process *p, const struct manager_generation *g, struct ready_watch **ret)
{
	struct manager *m = p->service->manager;
	struct ready_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	*w = (struct ready_watch){.process = p,
		.generation = g->number,
		.listeners = g->listeners,
		.config = &g->snapshot->config,
		.probe = PROBE_NULL,
		.started_usec = manager_now(m)};
	r = sd_event_add_time_relative(
		m->event, &w->timer, CLOCK_MONOTONIC, LOOK_FIRST_USEC, 1, on_look, w);
	if (r >= 0)
		r = sd_event_source_set_priority(w->timer, PRIORITY_TIMER);
	if (r >= 0 && (w->config->ready.by == READY_HTTP || w->config->ready.by == READY_EXEC))
		r = ready_check_new(p, g, &w->check);
	if (r < 0) {
		ready_watch_free(w);
		return r;
	}
	/* The probe is under way while the program boots; whoever listens first answers first. */
	*ret = w;
	return 0;
}

struct ready_watch *ready_watch_free(struct ready_watch *w)
{
	if (!w)
		return NULL;
	probe_done(&w->probe);
	ready_check_free(w->check);
	if (w->timer)
		sd_event_source_disable_unref(w->timer);
	free(w);
	return NULL;
}

pid_t ready_watch_command(const struct ready_watch *w)
{
	return w->check ? ready_check_command(w->check) : 0;
}

void ready_watch_notified(struct ready_watch *w)
{
	/* From the loop, not from here: whoever calls us still uses the worker. */
	(void)sd_event_source_set_time_relative(w->timer, 0);
	(void)sd_event_source_set_enabled(w->timer, SD_EVENT_ONESHOT);
}

/* The address of a socket the worker listens on that is none of ours. */
static char *own_listener(const struct ready_watch *w)
{
	_cleanup_free_ struct sockdiag_listener *list = NULL;
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0, n_pids;
	int nl = manager_of(w)->sockdiag_fd;

	if (nl < 0 || worker_process_tree(w->process, &pids, &n_pids) < 0 ||
		sockdiag_listeners(nl, 0, &list, &n) < 0)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		bool ours = false;
		for (unsigned id = 0; id < 64 && !ours; id++) {
			const struct listener *l = w->process->service->listeners[id];
			for (size_t k = 0; l && k < l->lanes.n && !ours; k++) {
				uint64_t inode;
				ours = socket_inode(l->lanes.sockets[k].fd, &inode) >= 0 &&
				       inode == list[i].inode;
			}
		}
		if (!ours && process_holds_socket(pids, n_pids, list[i].inode) == 1)
			return address_format(&list[i].address);
	}
	return NULL;
}

static char *explain_fd(const struct ready_config *c)
{
	if (c->variable)
		return xasprintf("it never wrote to the descriptor that $%s names", c->variable);
	return xasprintf("it never wrote a line to descriptor %u", c->number);
}

/* A program of its own that a wrapper has started, and that was told its sockets by LISTEN_PID,
 * which names the wrapper. 0: there is none. */
static pid_t wrapped_program(const struct ready_watch *w)
{
	_cleanup_free_ char *own = xasprintf("%d", (int)w->process->pid);
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;

	if (!dialect_needs_pid(w->config->handoff) || w->config->n_listeners == 0 || !own ||
		worker_process_tree(w->process, &pids, &n) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *told = NULL;

		/* A server's own children are the same program, and need not look. */
		if (pids[i] != w->process->pid &&
			process_environment(pids[i], "LISTEN_PID", &told) >= 0 &&
			streq(told, own) && !process_same_program(pids[i], w->process->pid))
			return pids[i];
	}
	return 0;
}

static char *explain_wrapper(pid_t pid, pid_t worker)
{
	_cleanup_free_ char *name = NULL;

	if (process_name(pid, &name) < 0)
		name = strdup("a program");
	return xasprintf(
		"%s (process %d) was started by the worker and finds LISTEN_PID=%d, which is "
		"not its own, so that it does not take its sockets: let the worker exec it, "
		"or write sh -c 'unset LISTEN_PIDFDID; LISTEN_PID=$$ exec \"$0\" \"$@\"' "
		"before it",
		name ? name : "it", (int)pid, (int)worker);
}

static char *explain(const struct ready_watch *w)
{
	_cleanup_free_ char *own = NULL, *address = NULL;
	const struct listener *l;

	if (!w->condition && w->config->ready.by == READY_NOTIFY)
		return strdup("it never said READY=1 (sd_notify)");
	if (!w->condition && w->config->ready.by == READY_EINHORN)
		return strdup("it never wrote worker:ack to einhorn's control socket "
			      "(EINHORN_SOCK_PATH)");
	if (!w->condition && w->config->ready.by == READY_FD)
		return explain_fd(&w->config->ready);
	if (!w->condition && w->check)
		return ready_check_explain(w->check);
	own = own_listener(w);
	if (own && w->config->n_listeners > 0)
		return xasprintf("it listens on its own %s instead of the socket it was given; use "
				 "{fd:%s} in its arguments or take "
				 "LISTEN_FDS, or see tenurectl presets",
			own, w->config->listeners[0].name);
	l = w->listener < 64 ? w->process->service->listeners[w->listener] : NULL;
	if (!l)
		return NULL;
	address = listener_address(l);
	return xasprintf("it accepted no connection on %s", address ? address : l->config.name);
}

char *ready_watch_explain(const struct ready_watch *w)
{
	_cleanup_free_ char *plain = explain(w), *wrapper = NULL;
	pid_t wrapped = wrapped_program(w);

	if (wrapped == 0)
		return TAKE_PTR(plain);
	wrapper = explain_wrapper(wrapped, w->process->pid);
	if (!plain || !wrapper)
		return wrapper ? TAKE_PTR(wrapper) : TAKE_PTR(plain);
	return xasprintf("%s; %s", plain, wrapper);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What workers say over their notify sockets. Only the worker, or a live descendant of it, is
 * listened to. */
#include "daemon/log.h"
#include "daemon/ready.h"
#include "daemon/worker_process.h"
#include "daemon/worker_store.h"
#include "sys/notify_socket.h"
#include "sys/process.h"
#include "wire/notify.h"

bool worker_process_is_sender(const struct worker_process *p, const struct notify_datagram *d)
{
	const struct manager_generation *g = manager_service_generation(p->service, p->generation);

	if (d->pid <= 0)
		return false;
	if (d->uid != 0 && d->uid != geteuid() && (!g || d->uid != g->snapshot->user.uid))
		return false;
	return d->pid == p->pid || d->pid == p->main_pid || process_is_descendant(d->pid, p->pid);
}

static void send_event(struct worker_process *p, enum service_event_kind kind, uint64_t usec)
{
	struct service_event e = {
		.kind = kind, .generation = p->generation, .worker = p->index, .usec = usec};

	(void)manager_service_event(p->service, &e);
}

static void set_status(struct worker_process *p, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return;
	free(p->status);
	p->status = copy;
	worker_process_changed(p);
}

void worker_process_alive(struct worker_process *p)
{
	if (p->watchdog_source)
		(void)sd_event_source_set_time_relative(p->watchdog_source, p->watchdog_usec);
}

static void set_main_pid(struct worker_process *p, pid_t pid)
{
	if (pid != p->pid && !process_is_descendant(pid, p->pid)) {
		if (!p->told_main_pid)
			log_warning("%s: worker %u of generation %u names a main process that is "
				    "none of its own, ignoring",
				p->service->name, p->index, p->generation);
		p->told_main_pid = true;
		return;
	}
	p->main_pid = pid;
	worker_process_changed(p);
}

/* An answer may end the process's part in p: nothing after it may rely on more than p itself. */
static void handle(struct worker_process *p, const struct notify_message *m)
{
	unsigned fields = m->fields;

	if (fields & NOTIFY_MAIN_PID)
		set_main_pid(p, m->main_pid);
	if (fields & NOTIFY_STATUS)
		set_status(p, m->status);
	if (fields & NOTIFY_WATCHDOG_USEC && p->watchdog_source && m->watchdog_usec > 0 &&
		m->watchdog_usec != USEC_INFINITY)
		p->watchdog_usec = m->watchdog_usec;
	if (fields & NOTIFY_WATCHDOG_USEC)
		worker_process_changed(p);
	if (fields & (NOTIFY_WATCHDOG | NOTIFY_WATCHDOG_USEC))
		worker_process_alive(p);
	if (fields & (NOTIFY_STOPPING | NOTIFY_RELOADING))
		log_debug("%s: worker %u of generation %u says it is %s", p->service->name,
			p->index, p->generation,
			fields & NOTIFY_STOPPING ? "stopping" : "reloading");
	if (fields & NOTIFY_EXTEND_TIMEOUT_USEC)
		send_event(p, EVENT_EXTEND_READY_TIMEOUT, m->extend_timeout_usec);
	if (fields & NOTIFY_ERRNO && m->error_number != 0) {
		manager_service_note_trouble(
			p->service, p, p->generation, p->index, strerror(m->error_number));
		send_event(p, EVENT_SAID_ERROR, 0);
	}
	if (fields & NOTIFY_WATCHDOG_TRIGGER)
		send_event(p, EVENT_WATCHDOG, 0);
	if (fields & NOTIFY_READY) {
		p->said_ready = true;
		worker_process_changed(p);
		if (p->ready)
			ready_watch_notified(p->ready);
	}
}

int worker_notify_dispatch(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct worker_process *p = userdata;
	struct notify_datagram d;
	struct notify_message m;
	size_t max = source ? WORKER_COST_AT_ONCE : WORKER_COST_OF_LAST_WORDS;
	bool more = true;

	(void)revents;
	for (size_t cost = 0; cost < max && p->notify_fd == fd; cost += WORKER_COST_OF_MESSAGE) {
		if (notify_socket_receive(fd, &d) < 0) {
			more = false;
			break;
		}
		cost += d.n_fds;
		/* A barrier is answered by closing what came with it. */
		if (!worker_process_is_sender(p, &d)) {
			log_debug("%s: a message to worker %u's notify socket came from process "
				  "%d, which is none of its own, ignoring",
				p->service->name, p->index, (int)d.pid);
			notify_datagram_close(&d);
			continue;
		}
		notify_parse(d.data, d.len, d.truncated, &m);
		worker_store_handle(p->service, p->generation, p->index, &m, &d);
		notify_datagram_close(&d);
		handle(p, &m);
	}
	if (source && p->notify_fd == fd)
		(void)sd_event_source_set_priority(
			source, more ? PRIORITY_CONTROL : PRIORITY_NOTIFY);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/worker_ready_fd.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "daemon/ready.h"
#include "wire/einhorn.h"

/* A pipe of which the worker has one end only; einhorn's is a socket. */
static int open_ends(const struct service_config *c, int ret[2])
{
	int flags;

	if (c->ready.by == READY_EINHORN
			? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret) < 0
			: pipe2(ret, O_CLOEXEC) < 0)
		return -errno;
	flags = fcntl(ret[0], F_GETFL);
	if (flags < 0 || fcntl(ret[0], F_SETFL, flags | O_NONBLOCK) < 0) {
		flags = -errno;
		close_fd(ret[0]);
		close_fd(ret[1]);
		return flags;
	}
	return 0;
}

int worker_ready_fd_open(
	struct worker_process *p, const struct service_config *c, struct worker_handoff *h)
{
	int ends[2], r;

	if (c->ready.by != READY_FD && c->ready.by != READY_EINHORN)
		return 0;
	r = open_ends(c, ends);
	if (r < 0)
		return r;
	p->ready_fd = ends[0];
	h->ready_fd = ends[1];
	h->ready_number =
		c->ready.by == READY_FD && c->ready.number > 0 ? (int)c->ready.number : h->next;
	h->next = MAX(h->next, h->ready_number + 1);
	h->fds[h->n_fds++] = (struct spawn_fd){h->ready_fd, h->ready_number};
	(void)store_add(p->service->manager->store, STORED_READY, p->ready_fd);
	return 0;
}

void worker_ready_fd_done(struct worker_process *p)
{
	if (p->ready_fd_source)
		sd_event_source_disable_unref(p->ready_fd_source);
	p->ready_fd_source = NULL;
	if (p->ready_fd >= 0 && !p->service->manager->detached)
		store_drop(p->service->manager->store, p->ready_fd);
	p->ready_fd = close_fd(p->ready_fd);
	p->wrote_something = false;
}

void worker_ready_fd_said(struct worker_process *p)
{
	if (p->wrote_ready)
		return;
	p->wrote_ready = true;
	worker_process_changed(p);
	if (p->ready)
		ready_watch_notified(p->ready);
}

/* s6: a newline. dinit: anything. Both: what was there when it was closed. */
static void read_bytes(
	struct worker_process *p, const struct service_config *c, const char *data, size_t len)
{
	bool any = c->ready.variable || (c->handoff & HANDOFF_DINIT);

	p->wrote_something |= len > 0;
	if (any ? len > 0 : (len == 0 ? p->wrote_something : memchr(data, '\n', len) != NULL))
		worker_ready_fd_said(p);
}

/* A line of one command; none of them is longer, and nobody writes half of one. */
static void read_commands(struct worker_process *p, char *data)
{
	struct einhorn_command command;
	char *rest = data, *line;

	while ((line = strsep(&rest, "\n")))
		if (einhorn_parse(line, &command) == EINHORN_ACK)
			worker_ready_fd_said(p);
}

static int on_ready_fd(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct worker_process *p = userdata;
	const struct manager_generation *g = manager_service_generation(p->service, p->generation);
	char data[1024];
	ssize_t n;

	(void)source;
	(void)revents;
	n = read(fd, data, sizeof(data) - 1);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (g && n >= 0) {
		data[n] = '\0';
		if (g->snapshot->config.ready.by == READY_EINHORN)
			read_commands(p, data);
		else
			read_bytes(p, &g->snapshot->config, data, (size_t)n);
	}
	if (n <= 0)
		worker_ready_fd_done(p);
	return 0;
}

int worker_ready_fd_watch(struct worker_process *p)
{
	int r;

	if (p->ready_fd < 0)
		return 0;
	r = sd_event_add_io(p->service->manager->event, &p->ready_fd_source, p->ready_fd, EPOLLIN,
		on_ready_fd, p);
	return r < 0 ? r : sd_event_source_set_priority(p->ready_fd_source, PRIORITY_NOTIFY);
}

void worker_ready_fd_restore(struct worker_process *p, unsigned number)
{
	p->ready_fd = store_take(p->service->manager->store, STORED_READY, number);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/handoff_server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/buffer.h"
#include "core/dialect.h"
#include "daemon/log.h"
#include "daemon/worker_handoff.h"
#include "daemon/worker_ready_fd.h"
#include "sys/fdpass.h"
#include "sys/process.h"
#include "wire/einhorn.h"
#include "wire/getsocks.h"

/* Who has not finished by then never will. */
#define ASK_USEC (10 * USEC_PER_SEC)
#define TELL_AGAIN_USEC (60 * USEC_PER_SEC)
/* How long nobody is let in when there are no descriptors left. */
#define PAUSE_USEC (100 * USEC_PER_MSEC)

enum {
	LINE_MAX_BYTES = 1024,
	ASKERS_MAX = 4096,
	ASKERS_OF_SERVICE_MAX =
		CONFIG_WORKERS_MAX, /* its workers cannot keep those of others waiting */
	DEPTH_MAX = 64,
	KINDS = 3
};

static const enum handoff_kind kinds[KINDS] = {
	HANDOFF_HAPROXY, HANDOFF_UWSGI_ZERG, HANDOFF_EINHORN};
static const char *const suffixes[KINDS] = {"haproxy", "zerg", "einhorn"};

/* One connection. */
struct asker {
	struct handoff_server *server;
	enum handoff_kind kind;
	const void *service; /* whose it is: to be compared alone */
	int fd;
	sd_event_source *source, *timer;
	bool answered;
	char line[LINE_MAX_BYTES];
	size_t len;
	struct asker *next, *previous;
};

struct handoff_server {
	struct manager *manager;
	char *paths[KINDS];
	int fds[KINDS];
	sd_event_source *sources[KINDS];
	sd_event_source *pause; /* while nobody is let in */
	struct asker *askers;
	unsigned n_askers;
	uint64_t told_usec; /* when somebody was told of last; 0: never */
};

static void asker_free(struct asker *a)
{
	struct handoff_server *s = a->server;

	if (a->source)
		sd_event_source_disable_unref(a->source);
	if (a->timer)
		sd_event_source_disable_unref(a->timer);
	close_fd(a->fd);
	if (a->next)
		a->next->previous = a->previous;
	if (a->previous)
		a->previous->next = a->next;
	else
		s->askers = a->next;
	s->n_askers--;
	free(a);
}

/* --- who asks ------------------------------------------------------------- */

static struct worker_process *worker_of_pid(const struct manager *m, pid_t pid)
{
	for (size_t i = 0; i < m->n_services; i++)
		for (size_t j = 0; j < m->services[i]->n_generations; j++) {
			const struct manager_generation *g = m->services[i]->generations[j];

			for (unsigned k = 0; k < g->n_workers; k++)
				if (g->workers[k] && g->workers[k]->pid == pid)
					return g->workers[k];
		}
	return NULL;
}

/* The worker that this process is, or descends from. */
static struct worker_process *find_worker(const struct manager *m, pid_t pid)
{
	for (int depth = 0; pid > 1 && depth < DEPTH_MAX; depth++) {
		struct worker_process *p = worker_of_pid(m, pid);

		if (p || process_parent(pid, &pid) < 0)
			return p;
	}
	return NULL;
}

/* Anybody can connect, and fill the log. */
static bool may_tell(struct handoff_server *s)
{
	uint64_t now = manager_now(s->manager);

	if (s->told_usec != 0 && now - s->told_usec <= TELL_AGAIN_USEC)
		return false;
	s->told_usec = now;
	return true;
}

/* The worker at the other end, if its service has to do with this kind. */
static struct worker_process *worker_at(
	struct handoff_server *s, enum handoff_kind kind, int fd, struct manager_generation **ret)
{
	_cleanup_peer_ struct peer peer = {0};
	struct worker_process *p;

	if (peer_of(fd, &peer) < 0)
		return NULL;
	p = find_worker(s->manager, peer.pid);
	*ret = p ? manager_service_generation(p->service, p->generation) : NULL;
	if (*ret && ((*ret)->snapshot->config.handoff & kind))
		return p;
	if (may_tell(s))
		log_warning(
			"process %d is not of a service with handoff: %s, and gets nothing from "
			"its socket",
			(int)peer.pid,
			kind == HANDOFF_UWSGI_ZERG ? "uwsgi-zerg"
			: kind == HANDOFF_HAPROXY  ? "haproxy"
						   : "einhorn");
	return NULL;
}

/* --- what it gets --------------------------------------------------------- */

static int sockets_of(const struct asker *a, int fds[static CONFIG_LISTENERS_MAX],
	const struct service_config **ret)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct manager_generation *g = NULL;
	struct worker_process *p = worker_at(a->server, a->kind, a->fd, &g);
	int r;

	if (!p)
		return -EPERM;
	r = worker_handoff_sockets(p, g, fds, &error);
	if (r < 0) {
		log_error("%s", error_message(&error));
		return r;
	}
	*ret = &g->snapshot->config;
	return 0;
}

static int answer_getsocks(const struct asker *a)
{
	_cleanup_buffer_ struct buffer records = {0};
	const struct service_config *c = NULL;
	int fds[CONFIG_LISTENERS_MAX], n, r = sockets_of(a, fds, &c);

	if (r < 0)
		return r;
	n = (int)c->n_listeners;
	for (size_t i = 0; r >= 0 && i < c->n_listeners; i++) {
		const struct socket_option_setting *device =
			socket_options_find(&c->listeners[i].options, OPTION_BINDTODEVICE);

		r = getsocks_record(&records, device ? device->text : "");
	}
	if (r < 0)
		return r;
	/* Its own message: the asker reads it before it makes room for the rest. */
	if (send(a->fd, &n, sizeof(n), MSG_NOSIGNAL) != sizeof(n))
		return -EIO;
	if (n == 0)
		return 0;
	return fdpass_send(a->fd, records.data, records.len, fds, (size_t)n) == (ssize_t)records.len
		       ? 0
		       : -EIO;
}

static int answer_zerg(const struct asker *a)
{
	_cleanup_buffer_ struct buffer text = {0};
	const struct service_config *c = NULL;
	int fds[CONFIG_LISTENERS_MAX], r = sockets_of(a, fds, &c);

	if (r >= 0)
		r = zerg_answer(&text, (unsigned)c->n_listeners);
	if (r < 0)
		return r;
	return fdpass_send(a->fd, text.data, text.len, fds, c->n_listeners) == (ssize_t)text.len
		       ? 0
		       : -EIO;
}

static void take_ack(const struct asker *a, char *line)
{
	struct manager_generation *g = NULL;
	struct einhorn_command command;
	struct worker_process *p;

	if (einhorn_parse(line, &command) != EINHORN_ACK)
		return;
	p = worker_at(a->server, a->kind, a->fd, &g);
	if (p && g->snapshot->config.ready.by == READY_EINHORN)
		worker_ready_fd_said(p);
}

/* --- connections ---------------------------------------------------------- */

/* Whole lines of what has come. -errno: it is over. */
static int take_lines(struct asker *a)
{
	char *start = a->line, *end;
	int r = 0;

	while (r >= 0 && (end = memchr(start, '\n', a->len - (size_t)(start - a->line)))) {
		bool asks = (size_t)(end + 1 - start) == strlen(GETSOCKS_REQUEST) &&
			    memcmp(start, GETSOCKS_REQUEST, strlen(GETSOCKS_REQUEST)) == 0;

		*end = '\0';
		if (a->kind == HANDOFF_EINHORN)
			take_ack(a, start);
		else if (asks && !a->answered) {
			a->answered = true;
			r = answer_getsocks(a);
		}
		start = end + 1;
	}
	a->len -= (size_t)(start - a->line);
	memmove(a->line, start, a->len);
	return r;
}

static int on_asker(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct asker *a = userdata;
	ssize_t n;

	(void)source;
	(void)revents;
	/* The confirmation that follows haproxy's sockets is not needed: there is but one batch. */
	if (a->answered)
		a->len = 0;
	n = recv(fd, a->line + a->len, sizeof(a->line) - a->len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n > 0)
		a->len += (size_t)n;
	if (n <= 0 || take_lines(a) < 0 || a->len == sizeof(a->line))
		asker_free(a);
	return 0;
}

static int on_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	asker_free(userdata);
	return 0;
}

static bool has_too_many(const struct handoff_server *s, const void *service)
{
	unsigned n = 0;

	for (const struct asker *a = s->askers; a; a = a->next)
		n += a->service == service;
	return n >= ASKERS_OF_SERVICE_MAX;
}

static int asker_new(
	struct handoff_server *s, enum handoff_kind kind, const void *service, int fd_take)
{
	sd_event *event = s->manager->event;
	struct asker *a = calloc(1, sizeof(*a));
	int r;

	if (!a) {
		close_fd(fd_take);
		return -ENOMEM;
	}
	*a = (struct asker){
		.server = s, .kind = kind, .service = service, .fd = fd_take, .next = s->askers};
	if (a->next)
		a->next->previous = a;
	s->askers = a;
	s->n_askers++;
	r = sd_event_add_io(event, &a->source, a->fd, EPOLLIN, on_asker, a);
	/* Before timers, and before it is noticed that the asker has ended. */
	if (r >= 0)
		r = sd_event_source_set_priority(a->source, PRIORITY_NOTIFY);
	if (r >= 0)
		r = sd_event_add_time_relative(
			event, &a->timer, CLOCK_MONOTONIC, ASK_USEC, 0, on_late, a);
	if (r >= 0 && kind == HANDOFF_UWSGI_ZERG)
		r = answer_zerg(a);
	if (r < 0)
		asker_free(a);
	return r;
}

static int on_pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct handoff_server *s = userdata;

	(void)source;
	(void)usec;
	s->pause = sd_event_source_disable_unref(s->pause);
	for (size_t i = 0; i < KINDS; i++)
		if (s->sources[i])
			(void)sd_event_source_set_enabled(s->sources[i], SD_EVENT_ON);
	return 0;
}

/* Who connects waits in the queue, and the socket stays readable: without a pause the loop would
 * do nothing else. */
static void pause_all(struct handoff_server *s, int error)
{
	if (s->pause || sd_event_add_time_relative(s->manager->event, &s->pause, CLOCK_MONOTONIC,
				PAUSE_USEC, 0, on_pause_over, s) < 0)
		return;
	for (size_t i = 0; i < KINDS; i++)
		if (s->sources[i])
			(void)sd_event_source_set_enabled(s->sources[i], SD_EVENT_OFF);
	if (may_tell(s))
		log_error("workers that ask for their sockets wait: %s", strerror(error));
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct handoff_server *s = userdata;
	int taken = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct manager_generation *g;
	struct worker_process *p;

	(void)source;
	(void)revents;
	if (taken < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			pause_all(s, errno);
		return 0;
	}
	if (s->n_askers >= ASKERS_MAX) {
		close_fd(taken);
		return 0;
	}
	for (size_t i = 0; i < KINDS; i++) {
		if (s->fds[i] != fd)
			continue;
		/* Strangers cannot keep others waiting. */
		p = worker_at(s, kinds[i], taken, &g);
		if (p && !has_too_many(s, p->service))
			(void)asker_new(s, kinds[i], p->service, taken);
		else
			close_fd(taken);
		break;
	}
	return 0;
}

/* --- the sockets ---------------------------------------------------------- */

/* Under another name first, so that the path is never without somebody who listens. What was there
 * is an earlier daemon's, or a dead one's: the control socket beside it is ours. */
static int bind_path(const char *path, int *ret_fd, struct error *ret_error)
{
	_cleanup_free_ char *new = xasprintf("%s.new", path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (!new)
		return -ENOMEM;
	if (strlen(new) >= sizeof(a.sun_path))
		return error_set(ret_error, -ENAMETOOLONG,
			"the path %s is too long for a socket; use a shorter one for the control "
			"socket, beside which it is",
			path);
	strcpy(a.sun_path, new);
	(void)unlink(new);
	/* Everybody may connect; who gets something is decided by process. */
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(new, 0666) < 0 ||
		listen(fd, SOMAXCONN) < 0 || rename(new, path) < 0)
		return error_set_errno(ret_error, -errno, "the socket %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static char *path_beside(const char *control, const char *suffix)
{
	size_t len = strlen(control);

	if (len > 5 && streq(control + len - 5, ".sock"))
		len -= 5;
	return xasprintf("%.*s-%s.sock", (int)len, control, suffix);
}

static int open_kind(struct handoff_server *s, size_t i, struct error *ret_error)
{
	_cleanup_free_ char *path =
		path_beside(control_server_path(s->manager->control), suffixes[i]);
	int r;

	if (!path)
		return -ENOMEM;
	r = bind_path(path, &s->fds[i], ret_error);
	if (r < 0)
		return r;
	s->paths[i] = TAKE_PTR(path);
	r = sd_event_add_io(
		s->manager->event, &s->sources[i], s->fds[i], EPOLLIN, on_connection, s);
	/* Everybody may knock, as often as he likes: nothing waits for that. */
	return r < 0 ? r : sd_event_source_set_priority(s->sources[i], PRIORITY_CONTROL);
}

int handoff_server_path(
	struct manager *m, enum handoff_kind kind, const char **ret_path, struct error *ret_error)
{
	size_t i = 0;
	int r;

	while (i < KINDS && kinds[i] != kind)
		i++;
	if (i == KINDS || !m->control)
		return error_set(
			ret_error, -EOPNOTSUPP, "there is no control socket to put it beside");
	if (!m->handoff) {
		m->handoff = calloc(1, sizeof(*m->handoff));
		if (!m->handoff)
			return -ENOMEM;
		*m->handoff = (struct handoff_server){
			.manager = m, .fds = {-1, -1, -1}
		 };
	}
	if (m->handoff->fds[i] < 0) {
		r = open_kind(m->handoff, i, ret_error);
		if (r < 0)
			return r;
	}
	*ret_path = m->handoff->paths[i];
	return 0;
}

void handoff_server_resume(struct manager *m)
{
	for (size_t i = 0; i < m->n_services; i++)
		for (size_t k = 0; k < m->services[i]->n_generations; k++)
			for (size_t n = 0; n < KINDS; n++) {
				_cleanup_error_ struct error error = ERROR_NULL;
				const struct manager_generation *g = m->services[i]->generations[k];
				const char *path;

				if (!(g->snapshot->config.handoff & kinds[n]))
					continue;
				if (handoff_server_path(m, kinds[n], &path, &error) < 0)
					log_warning("%s", error_message(&error));
			}
}

struct handoff_server *handoff_server_free(struct handoff_server *s)
{
	if (!s)
		return NULL;
	while (s->askers)
		asker_free(s->askers);
	if (s->pause)
		sd_event_source_disable_unref(s->pause);
	for (size_t i = 0; i < KINDS; i++) {
		if (s->sources[i])
			sd_event_source_disable_unref(s->sources[i]);
		close_fd(s->fds[i]);
		if (s->paths[i] && !s->manager->detached)
			(void)unlink(s->paths[i]);
		free(s->paths[i]);
	}
	free(s);
	return NULL;
}

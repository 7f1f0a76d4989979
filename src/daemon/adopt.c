/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/adopt.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/listener_inherit.h"
#include "daemon/log.h"
#include "daemon/state_save.h"
#include "daemon/worker_process.h"
#include "sys/listen.h"
#include "sys/process.h"
#include "sys/sockdiag.h"

struct adoption {
	const struct adopt_request *request;
	struct activation_socket *sockets; /* taken: fd -1 */
	size_t n_sockets;
};

static void adoption_done(struct adoption *a)
{
	for (size_t i = 0; i < a->n_sockets; i++)
		close_fd(a->sockets[i].fd);
	free(a->sockets);
}

/* --- the process ------------------------------------------------------------ */

/* A pidfd can be had of anybody's process: who asks must be one who could end it. */
static int check_process(
	const struct manager_service *s, const struct adopt_request *q, struct error *ret_error)
{
	char path[32];
	struct stat st;
	pid_t pid = 0;

	if (process_of_pidfd(q->fds[0], &pid) < 0 || process_has_ended(q->fds[0]))
		return error_set(ret_error, -ESRCH,
			"%s: process %d has ended, or what was sent is not its pidfd", s->name,
			(int)q->pid);
	if (pid != q->pid)
		return error_set(ret_error, -EINVAL,
			"%s: the pidfd that was sent is of process %d, not %d", s->name, (int)pid,
			(int)q->pid);
	if (pid == 1 || pid == getpid())
		return error_set(ret_error, -EINVAL,
			"%s: process %d is %s, which cannot be replaced", s->name, (int)pid,
			pid == 1 ? "init" : "tenured itself");
	if (manager_is_worker(s->manager, pid))
		return error_set(ret_error, -EBUSY,
			"%s: process %d is a worker of ours; see `tenurectl status`", s->name,
			(int)pid);
	/* With those that it has started it would be ended: we are among them. */
	if (process_is_descendant(getpid(), pid))
		return error_set(ret_error, -EINVAL,
			"%s: process %d has started tenured, and could not be ended without it; "
			"start tenured in another way first",
			s->name, (int)pid);
	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st) < 0)
		return error_set_errno(ret_error, -errno, "%s: process %d", s->name, (int)pid);
	if (q->peer && q->peer->uid != 0 && q->peer->uid != st.st_uid)
		return error_set(ret_error, -EPERM,
			"%s: process %d belongs to another user: ask as root, or as that user "
			"(who must be an operator)",
			s->name, (int)pid);
	if (geteuid() != 0 && geteuid() != st.st_uid)
		return error_set(ret_error, -EPERM,
			"%s: process %d belongs to another user, and the daemon could not end it; "
			"run the daemon as root, or as that user",
			s->name, (int)pid);
	return 0;
}

/* Who has started it and has the socket too goes on without it, and starts another in its place. */
static int check_leader(const struct manager_service *s, pid_t pid, uint64_t inode,
	const char *address, struct error *ret_error)
{
	_cleanup_free_ char *name = NULL;
	pid_t parent;

	if (process_parent(pid, &parent) < 0 || parent <= 1 ||
		process_holds_socket(&parent, 1, inode) <= 0)
		return 0;
	if (process_name(parent, &name) < 0)
		name = NULL;
	return error_set(ret_error, -EINVAL,
		"%s: process %d was started by process %d (%s), which has the socket at %s too and "
		"would go on; take over that one (--pid %d), or end it first if it is not the "
		"server's own",
		s->name, (int)pid, (int)parent, name ? name : "?", address, (int)parent);
}

/* Itself, or one that it has started, must have it. */
static int check_holder(const struct manager_service *s, pid_t pid, int fd, const char *address,
	struct error *ret_error)
{
	_cleanup_free_ pid_t *pids = NULL;
	uint64_t inode;
	size_t n = 0;
	int r;

	r = process_descendants(pid, false, &pids, &n);
	if (r >= 0)
		r = socket_inode(fd, &inode);
	if (r >= 0)
		r = process_holds_socket(pids, n, inode);
	if (r < 0)
		return error_set_errno(ret_error, r,
			"%s: cannot look at the descriptors of process %d", s->name, (int)pid);
	if (r == 0)
		return error_set(ret_error, -EINVAL,
			"%s: the socket at %s that was sent is not one of process %d", s->name,
			address, (int)pid);
	return check_leader(s, pid, inode, address, ret_error);
}

/* --- its sockets ------------------------------------------------------------ */

static const struct listener_config *listener_at(
	const struct service_config *c, const struct address *a)
{
	for (size_t i = 0; i < c->n_listeners; i++)
		if (!c->listeners[i].inherited && c->listeners[i].address.kind == a->kind &&
			address_equal(&c->listeners[i].address, a))
			return &c->listeners[i];
	return NULL;
}

static char *list_configured(const struct service_config *c)
{
	char *text = NULL;

	for (size_t i = 0; i < c->n_listeners; i++) {
		_cleanup_free_ char *address = address_format(&c->listeners[i].address);
		char *longer = xasprintf(
			"%s%s%s", text ? text : "", text ? ", " : "", address ? address : "?");

		free(text);
		text = longer;
	}
	return text;
}

/* Of two servers that were given the same path, one after the other, clients reach the second. */
static int check_path(const struct manager_service *s, const struct adoption *a, int fd,
	const struct address *address, struct error *ret_error)
{
	uint64_t inode;
	uint32_t bound;
	dev_t dev;
	ino_t ino;

	if (listen_path_identity(address, &dev, &ino) < 0 || s->manager->sockdiag_fd < 0 ||
		socket_inode(fd, &inode) < 0 ||
		sockdiag_unix_file(s->manager->sockdiag_fd, inode, &bound) < 0 ||
		bound == (uint32_t)ino)
		return 0;
	return error_set(ret_error, -ESTALE,
		"%s: %s is not the socket of process %d any more, but another's: who connects does "
		"not reach that process; take over the one that it is of",
		s->name, address->un.sun_path, (int)a->request->pid);
}

static int check_socket(const struct manager_service *s, const struct adoption *a, int fd,
	const struct activation_socket *socket, struct error *ret_error)
{
	_cleanup_free_ char *address = address_format(&socket->address),
			    *configured = list_configured(s->config);
	const struct listener_config *l = listener_at(s->config, &socket->address);
	const char *at = address ? address : "?";
	int r;

	if (!socket->listening)
		return error_set(ret_error, -EINVAL,
			"%s: the socket at %s that was sent does not listen", s->name, at);
	if (!l)
		return error_set(ret_error, -EADDRNOTAVAIL,
			"%s: process %d listens on %s, but the service is configured for %s; write "
			"that address in its listen:, or name another with --address",
			s->name, (int)a->request->pid, at, configured ? configured : "nothing");
	if (address_family(&l->address) == AF_INET6 && l->v6only != listen_is_v6only(fd))
		return error_set(ret_error, -EINVAL,
			"%s: listener %s: the socket of process %d has v6only: %s; write that too, "
			"a bound socket cannot change",
			s->name, l->name, (int)a->request->pid,
			listen_is_v6only(fd) ? "true" : "false");
	for (size_t i = 0; i < a->n_sockets; i++)
		if (address_equal(&a->sockets[i].address, &socket->address) &&
			a->sockets[i].address.kind == socket->address.kind)
			return error_set(ret_error, -EEXIST,
				"%s: process %d listens on %s with several sockets (SO_REUSEPORT), "
				"each of which has a queue of its own; have it use one (nginx: "
				"listen without reuseport) before it is taken over",
				s->name, (int)a->request->pid, at);
	r = check_path(s, a, fd, &socket->address, ret_error);
	return r < 0 ? r : check_holder(s, a->request->pid, fd, at, ret_error);
}

static int add_socket(
	const struct manager_service *s, struct adoption *a, int fd, struct error *ret_error)
{
	struct activation_socket socket = {.fd = -1, .is_socket = true};
	struct listen_state state = {.accepting = false};
	struct stat st;
	int r = socket_address(fd, &socket.address);

	if (r < 0)
		return error_set(ret_error, -ENOTSOCK,
			"%s: what was sent for process %d is no socket that can be listened on",
			s->name, (int)a->request->pid);
	r = listen_query(fd, &state);
	socket.listening = (r >= 0 || r == -EOPNOTSUPP) && state.accepting;
	socket.queue_max = state.queue_max;
	socket.uid = fstat(fd, &st) >= 0 ? st.st_uid : geteuid();
	/* What it asks others with, a resolver's say. */
	if (address_socket_type(&socket.address) == SOCK_DGRAM &&
		!listener_at(s->config, &socket.address))
		return 0;
	r = check_socket(s, a, fd, &socket, ret_error);
	if (r < 0)
		return r;
	socket.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (socket.fd < 0)
		return error_set_errno(ret_error, -errno, "%s: a socket of process %d", s->name,
			(int)a->request->pid);
	a->sockets[a->n_sockets++] = socket;
	return 0;
}

static int look(const struct manager_service *s, struct adoption *a, struct error *ret_error)
{
	const struct adopt_request *q = a->request;
	int r;

	a->sockets = calloc(q->n_fds, sizeof(*a->sockets));
	if (!a->sockets)
		return error_set(ret_error, -ENOMEM, "%s: out of memory", s->name);
	r = check_process(s, q, ret_error);
	for (size_t i = 1; r >= 0 && i < q->n_fds; i++)
		r = add_socket(s, a, q->fds[i], ret_error);
	if (r >= 0 && a->n_sockets == 0)
		r = error_set(ret_error, -EADDRNOTAVAIL,
			"%s: process %d has no socket at an address of the service", s->name,
			(int)q->pid);
	return r;
}

static struct activation_socket *find(
	const struct manager_service *s, const struct listener_config *c)
{
	const struct adoption *a = s->adoption;

	for (size_t i = 0; a && !c->inherited && i < a->n_sockets; i++)
		if (a->sockets[i].fd >= 0 && a->sockets[i].address.kind == c->address.kind &&
			address_equal(&a->sockets[i].address, &c->address))
			return &a->sockets[i];
	return NULL;
}

bool adopt_has(const struct manager_service *s, const struct listener_config *c)
{
	return find(s, c);
}

int adopt_take(
	struct manager_service *s, const struct listener_config *c, struct activation_socket **ret)
{
	struct activation_socket *found = find(s, c), *copy;

	if (!found)
		return -ENOENT;
	copy = calloc(1, sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	*copy = *found;
	found->fd = -1;
	*ret = copy;
	return 0;
}

/* --- all of it --------------------------------------------------------------- */

/* It is watched like a worker that an earlier daemon has left. Its process group may have others in
 * it, and is not signalled. */
static int watch(struct manager_service *s, const struct adopt_request *q, struct error *ret_error)
{
	struct worker_process *p = manager_service_make_worker(s, s->core.last_number, 0);
	int r = p ? 0 : -ENOMEM;

	if (r >= 0) {
		p->pidfd = fcntl(q->fds[0], F_DUPFD_CLOEXEC, 3);
		r = p->pidfd < 0 ? -errno : 0;
	}
	if (r >= 0) {
		p->pid = p->main_pid = q->pid;
		p->foreign = true;
		p->spawned_usec = manager_now(s->manager);
		if (process_start_time(p->pid, &p->started) < 0)
			p->started = 0;
		(void)store_add(s->manager->store, STORED_PIDFD, p->pidfd);
		r = worker_process_watch(p, 0);
		worker_process_changed(p);
	}
	return r < 0 ? error_set_errno(ret_error, r, "%s: process %d", s->name, (int)q->pid) : 0;
}

static int make_snapshot(const struct manager_service *s, const struct adopt_request *q,
	struct snapshot **ret, struct error *ret_error)
{
	int r = snapshot_new(s->config, &s->manager->original_nofile, ret, ret_error);

	if (r < 0)
		return r;
	if (q->signal != 0)
		(*ret)->config.drain.signal = q->signal;
	(*ret)->config.watchdog_usec = 0;
	return 0;
}

static void let_go(struct manager_service *s)
{
	struct service_event e = {.kind = EVENT_LET_GO, .generation = s->core.last_number};

	(void)manager_service_event(s, &e);
}

static int begin(struct manager_service *s, struct adoption *a, struct error *ret_error)
{
	const struct adopt_request *q = a->request;
	struct request_options o = {.requested_by = q->requested_by};
	_cleanup_snapshot_ struct snapshot *snapshot = NULL;
	_cleanup_free_ char *name = NULL;
	int r = make_snapshot(s, q, &snapshot, ret_error);

	if (r < 0)
		return r;
	s->adoption = a;
	r = manager_service_adopt(s, snapshot, q->requested_by, ret_error);
	s->adoption = NULL;
	if (r != 0)
		return r;
	if (process_name(q->pid, &name) < 0)
		name = NULL;
	manager_report(s->manager, s, s->core.last_number, NO_WORKER, LOG_NOTICE,
		"generation-adopted",
		"%s: process %d (%s), which runs already, is generation %u now; it is replaced "
		"when the next is ready",
		s->name, (int)q->pid, name ? name : "?", s->core.last_number);
	r = watch(s, q, ret_error);
	if (r >= 0)
		r = manager_service_upgrade(s, NULL, &o, ret_error);
	if (r != 0)
		let_go(s);
	return r;
}

int adopt_begin(struct manager_service *s, const struct adopt_request *q, struct error *ret_error)
{
	struct adoption a = {.request = q};
	int r;

	if (s->core.n_generations > 0 || s->core.stopping)
		return error_set(ret_error, -EBUSY,
			"%s: the service runs already; only one that is stopped (autostart: false) "
			"can take over a process that is not its own",
			s->name);
	if (s->config->upgrade.strategy == STRATEGY_RECREATE)
		return error_set(ret_error, -EINVAL,
			"%s: strategy: recreate would end process %d before the new one is ready, "
			"and it could not go on if that fails; take it over with another strategy",
			s->name, (int)q->pid);
	r = look(s, &a, ret_error);
	if (r >= 0)
		r = begin(s, &a, ret_error);
	adoption_done(&a);
	return r;
}

void adopt_ended(struct manager_service *s, unsigned generation)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id] && s->listeners[id]->adopted &&
			s->listeners[id]->adopted_from == generation)
			inherit_forget_giver(s->listeners[id]);
}

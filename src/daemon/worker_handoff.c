/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/worker_handoff.h"

#include "core/dialect.h"
#include "daemon/handoff_server.h"
#include "daemon/log.h"
#include "daemon/worker_channel.h"
#include "daemon/worker_ready_fd.h"

void worker_handoff_done(struct worker_handoff *h)
{
	h->ready_fd = close_fd(h->ready_fd);
	h->channel_fd = close_fd(h->channel_fd);
	h->environment = strv_free(h->environment);
	h->argv = strv_free(h->argv);
}

/* --- descriptors ---------------------------------------------------------- */

static struct listener *listener_of(const struct worker_process *p,
	const struct manager_generation *g, const struct listener_config *c)
{
	for (unsigned id = 0; id < ARRAY_SIZE(p->service->listeners); id++) {
		struct listener *l = p->service->listeners[id];

		if (l && (g->listeners & (UINT64_C(1) << id)) && plan_listener_same(&l->config, c))
			return l;
	}
	return NULL;
}

/* What could not be made when its generation asked for it may be possible by now. */
static int socket_of(struct worker_process *p, const struct manager_generation *g,
	struct listener *l, struct error *ret_error)
{
	const struct generation *core = service_generation(&p->service->core, g->number);
	unsigned lane = core ? core->lane : 0;
	int fd = listener_socket(l, lane, p->index);

	if (fd >= 0 || !core || l->kind != LISTENER_GROUP)
		return fd;
	if (listener_prepare_lane(l, lane, MAX(core->n_workers, p->index + 1),
		    listener_lane_is_per_worker(l, lane), ret_error) < 0)
		return -1;
	return listener_socket(l, lane, p->index);
}

int worker_handoff_sockets(struct worker_process *p, const struct manager_generation *g, int *ret,
	struct error *ret_error)
{
	const struct service_config *c = &g->snapshot->config;

	for (size_t i = 0; i < c->n_listeners; i++) {
		struct listener *l = listener_of(p, g, &c->listeners[i]);
		int fd = l ? socket_of(p, g, l, ret_error) : -1;

		if (fd < 0 && ret_error->code)
			return ret_error->code;
		if (fd < 0)
			return error_set(ret_error, -ENOENT,
				"%s: listener %s has no socket for worker %u", p->service->name,
				c->listeners[i].name, p->index);
		ret[i] = fd;
	}
	return 0;
}

static void add_fd(struct worker_handoff *h, int source, int target)
{
	h->fds[h->n_fds++] = (struct spawn_fd){source, target};
	h->next = MAX(h->next, target + 1);
}

/* Which sockets it gets, and as which numbers. */
static int add_sockets(struct worker_process *p, const struct manager_generation *g,
	struct worker_handoff *h, struct error *ret_error)
{
	const struct service_config *c = &g->snapshot->config;
	int sockets[CONFIG_LISTENERS_MAX], r;

	r = worker_handoff_sockets(p, g, sockets, ret_error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < c->n_listeners; i++)
		add_fd(h, sockets[i], dialect_listener_fd(c->handoff, i));
	if ((c->handoff & HANDOFF_STDIN) && dialect_counts(c->handoff) && c->n_listeners > 0)
		add_fd(h, sockets[0], STDIN_FILENO);
	return 0;
}

/* What was stored for it comes behind the listeners, up to where its ready descriptor is to be. */
static int add_stored(struct worker_process *p, const struct service_config *c,
	struct worker_handoff *h, char **ret_names)
{
	size_t room = c->ready.by == READY_FD && c->ready.number >= (unsigned)h->next
			      ? c->ready.number - (unsigned)h->next
			      : WORKER_STORE_MAX;
	int n = 0;

	if (c->handoff & HANDOFF_LISTEN_FDS)
		n = worker_store_list(p->service, p->generation, p->index, h->next, room,
			h->fds + h->n_fds, ret_names);
	if (n <= 0)
		return n;
	if ((size_t)n == room && room < WORKER_STORE_MAX)
		log_warning("%s: worker %u of generation %u gets no more than %d of the "
			    "descriptors that are stored for it, because ready's number is %u; use "
			    "a larger number",
			p->service->name, p->index, p->generation, n, c->ready.number);
	h->n_fds += (size_t)n;
	h->next += n;
	return n;
}

/* --- environment and arguments -------------------------------------------- */

static int tell_sockets(struct worker_process *p, const struct manager_generation *g,
	const struct worker_handoff *h, size_t n_stored, const char *stored, char ***env,
	struct error *ret_error)
{
	const struct service_config *c = &g->snapshot->config;
	struct dialect_listener listeners[CONFIG_LISTENERS_MAX];
	const char *einhorn = NULL;
	int r;

	for (size_t i = 0; i < c->n_listeners; i++) {
		const struct listener_config *own = &c->listeners[i];
		const struct listener *l = listener_of(p, g, own);

		listeners[i] = (struct dialect_listener){
			.name = own->fd_name ? own->fd_name : own->name,
			.address = l ? l->config.address : own->address,
			.v6only = l ? l->config.v6only : own->v6only,
			.fd = dialect_listener_fd(c->handoff, i),
		};
	}
	if (c->handoff & HANDOFF_EINHORN) {
		r = handoff_server_path(p->service->manager, HANDOFF_EINHORN, &einhorn, ret_error);
		if (r < 0)
			return r;
	}
	return dialect_environment(
		&(struct dialect_request){
			.handoff = c->handoff,
			.listeners = listeners,
			.n_listeners = c->n_listeners,
			.n_stored = n_stored,
			.stored_names = stored,
			.generation = p->generation,
			.worker = p->index,
			.master_pid = (int)getpid(),
			.einhorn_path = einhorn,
			.einhorn_fd = c->ready.by == READY_EINHORN ? h->ready_number : -1,
		},
		env, ret_error);
}

static int set_number(char ***env, const char *name, unsigned long long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", value);
	return strv_env_set(env, name, text);
}

/* What every worker is told, whatever its sockets are told by. */
static int tell_itself(struct worker_process *p, const struct service_config *c,
	const struct worker_handoff *h, char ***env)
{
	int r = set_number(env, "TENURE_GENERATION", p->generation);

	if (r >= 0)
		r = set_number(env, "TENURE_WORKER", p->index);
	if (r >= 0)
		r = strv_env_set(env, "NOTIFY_SOCKET", p->notify_address);
	if (r >= 0 && p->service->manager->instance[0])
		r = strv_env_set(env, "TENURE_INSTANCE", p->service->manager->instance);
	if (r >= 0 && c->watchdog_usec > 0)
		r = set_number(env, "WATCHDOG_USEC", c->watchdog_usec);
	if (r >= 0 && c->ready.by == READY_FD && c->ready.variable)
		r = set_number(env, c->ready.variable, (unsigned)h->ready_number);
	return r;
}

struct paths {
	struct manager *manager;
	struct error *error;
	int r;
};

static const char *path_of_socket(enum handoff_kind kind, void *userdata)
{
	struct paths *p = userdata;
	const char *path = NULL;

	if (p->r >= 0)
		p->r = handoff_server_path(p->manager, kind, &path, p->error);
	return path;
}

/* Where the sockets that we serve are is known now, and may be another place for the next daemon.
 */
static int replace_sockets(struct paths *paths, unsigned handoff, char *const *from, char ***ret)
{
	_cleanup_strv_ char **list = NULL;

	if (!(handoff & (HANDOFF_HAPROXY | HANDOFF_UWSGI_ZERG | HANDOFF_EINHORN)))
		return 0;
	for (size_t i = 0; from[i]; i++) {
		char *text = NULL;

		if (dialect_replace_sockets(from[i], path_of_socket, paths, &text) < 0 ||
			strv_append_take(&list, text) < 0)
			return -ENOMEM;
	}
	strv_free(*ret);
	*ret = TAKE_PTR(list);
	return paths->r;
}

int worker_handoff_prepare(struct worker_process *p, const struct manager_generation *g,
	struct worker_handoff *h, struct error *ret_error)
{
	const struct snapshot *snap = g->snapshot;
	const struct service_config *c = &snap->config;
	struct paths paths = {.manager = p->service->manager, .error = ret_error};
	_cleanup_free_ char *stored = NULL;
	int r, n_stored;

	h->next = 3;
	r = add_sockets(p, g, h, ret_error);
	if (r < 0)
		return r;
	n_stored = add_stored(p, c, h, &stored);
	r = n_stored < 0 ? n_stored : worker_ready_fd_open(p, c, h);
	if (r >= 0) {
		h->environment = strv_copy(snap->environment);
		r = h->environment ? 0 : -ENOMEM;
	}
	if (r >= 0)
		r = worker_channel_open(p, g, h);
	if (r >= 0)
		r = tell_itself(p, c, h, &h->environment);
	if (r >= 0)
		r = tell_sockets(p, g, h, (size_t)n_stored, stored, &h->environment, ret_error);
	if (r >= 0)
		r = replace_sockets(&paths, c->handoff, h->environment, &h->environment);
	if (r >= 0)
		r = replace_sockets(&paths, c->handoff, snap->argv, &h->argv);
	if (r < 0 && ret_error->code)
		return error_prefix(ret_error, "%s: worker %u", p->service->name, p->index);
	if (r < 0)
		return error_set_errno(
			ret_error, r, "%s: environment of worker %u", p->service->name, p->index);
	return 0;
}

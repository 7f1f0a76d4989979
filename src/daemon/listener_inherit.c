/* SPDX-License-Identifier: Apache-2.0 */
/* We work on a duplicate: the descriptor that came stays open in the manager's list, for another
 * service, for the next start, and untouched when nobody asks for it. */
#include "daemon/listener_inherit.h"

#include <fcntl.h>
#include <sys/inotify.h>

#include "daemon/adopt.h"
#include "daemon/listener_options.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/state_tables.h"
#include "sys/listen.h"
#include "sys/sockdiag.h"
#include "sys/user.h"

static bool is_called(const struct activation_socket *s, const char *name)
{
	return s->is_socket && streq(s->name, name);
}

static struct activation_socket *find(const struct activation *a, const char *name, unsigned index)
{
	for (size_t i = 0; i < a->n; i++)
		if (is_called(&a->sockets[i], name) && index-- == 0)
			return &a->sockets[i];
	return NULL;
}

/* --- configuration --------------------------------------------------------- */

/* A further one of that name. Workers are told the first one's name, as systemd would. */
static int copy_for(
	const struct listener_config *first, unsigned index, struct listener_config *ret)
{
	int r = listener_config_copy(first, ret);

	if (r < 0)
		return r;
	free(ret->fd_name);
	ret->fd_name = TAKE_PTR(ret->name);
	if (!ret->fd_name)
		ret->fd_name = strdup(ret->inherit);
	ret->inherit_index = index;
	if (ret->fd_name)
		return 0;
	listener_config_done(ret);
	return -ENOMEM;
}

static int expand_listener(struct service_config *s, size_t at, const struct activation *a)
{
	const struct activation_socket *found;
	struct listener_config *longer;
	unsigned n = 0;

	while ((found = find(a, s->listeners[at].inherit, n))) {
		if (n > 0) {
			longer = reallocarray(s->listeners, s->n_listeners + 1, sizeof(*longer));
			if (!longer)
				return -ENOMEM;
			s->listeners = longer;
			memmove(&longer[at + n + 1], &longer[at + n],
				(s->n_listeners - at - n) * sizeof(*longer));
			if (copy_for(&longer[at], n, &longer[at + n]) < 0) {
				memmove(&longer[at + n], &longer[at + n + 1],
					(s->n_listeners - at - n) * sizeof(*longer));
				return -ENOMEM;
			}
			s->n_listeners++;
		}
		s->listeners[at + n].address = found->address;
		n++;
	}
	return (int)MAX(n, 1U);
}

int inherit_expand(struct config *c, const struct activation *a)
{
	for (size_t i = 0; i < c->n_services; i++) {
		struct service_config *s = &c->services[i];
		int n;

		for (size_t k = 0; k < s->n_listeners; k += (size_t)n) {
			n = 1;
			if (s->listeners[k].inherited && !s->listeners[k].broken)
				n = expand_listener(s, k, a);
			if (n < 0)
				return n;
		}
	}
	return 0;
}

static bool is_asked_for(const struct manager *m, const char *name)
{
	for (size_t i = 0; i < m->config->n_services; i++) {
		const struct service_config *s = &m->config->services[i];

		for (size_t k = 0; k < s->n_listeners; k++)
			if (s->listeners[k].inherited && streq(s->listeners[k].inherit, name))
				return true;
	}
	return false;
}

void inherit_warn_unused(const struct manager *m)
{
	for (size_t i = 0; i < m->activation.n; i++) {
		const struct activation_socket *s = &m->activation.sockets[i];
		_cleanup_free_ char *address = s->is_socket ? address_format(&s->address) : NULL;

		if (!s->is_socket)
			log_warning("descriptor %d (\"%s\") that came with LISTEN_FDS is no socket "
				    "that could be listened on; kept open, not used",
				s->fd, s->name);
		else if (!is_asked_for(m, s->name))
			log_warning("the socket \"%s\" (%s) came, but no service asks for it: "
				    "write \"inherit: %s\" among the listeners of one; kept open, "
				    "not used",
				s->name, address ? address : "?", s->name);
	}
}

/* --- taking ---------------------------------------------------------------- */

/* "http" (tcp:[::]:80), "dns" (udp:[::]:53) */
static char *describe_what_came(const struct activation *a)
{
	char *text = NULL;

	for (size_t i = 0; i < a->n; i++) {
		const struct activation_socket *s = &a->sockets[i];
		_cleanup_free_ char *address =
			s->is_socket ? address_format(&s->address) : strdup("no socket");
		char *longer = xasprintf("%s%s\"%s\" (%s)", text ? text : "", text ? ", " : "",
			s->name, address ? address : "?");

		free(text);
		text = longer;
	}
	return text;
}

static int did_not_come(const struct listener *l, struct error *ret_error)
{
	const struct activation *a = &l->service->manager->activation;
	_cleanup_free_ char *came = describe_what_came(a);
	const char *name = l->config.inherit;

	if (a->n == 0)
		return error_set(ret_error, -ENOENT,
			"%s: listener %s: no socket \"%s\" came, none at all came (LISTEN_FDS); "
			"start the daemon by a systemd socket unit with FileDescriptorName=%s and "
			"Service= naming the daemon's unit",
			l->service->name, l->config.name, name, name);
	return error_set(ret_error, -ENOENT,
		"%s: listener %s: no socket \"%s\" came, but %s; set FileDescriptorName=%s in "
		"the systemd socket unit, or inherit one of these",
		l->service->name, l->config.name, name, came ? came : "others", name);
}

/* What Unix sockets do not tell by themselves. */
static void look_at_queue(const struct manager *m, struct activation_socket *s)
{
	unsigned waiting, max;
	uint64_t inode;

	if (address_is_unix(&s->address) && s->queue_max == 0 && m->sockdiag_fd >= 0 &&
		socket_inode(s->fd, &inode) >= 0 &&
		sockdiag_unix_queue(m->sockdiag_fd, inode, &waiting, &max) >= 0)
		s->queue_max = max;
}

/* l->inherited is known. */
static int look_at_socket(struct listener *l, struct error *ret_error)
{
	int r, grouped = listen_is_group(l->inherited_fd);

	l->came_grouped = grouped > 0;
	l->came_flags = fcntl(l->inherited_fd, F_GETFL);
	l->inherited->in_use = true;
	r = listener_options_read(l, &l->came_options);
	if (r >= 0)
		r = inherit_complete(l, &l->config);
	return r < 0 ? error_set_errno(ret_error, r, "%s: listener %s: the options of its socket",
			       l->service->name, l->config.name)
		     : 0;
}

int inherit_take(struct listener *l, struct error *ret_error)
{
	struct activation_socket *s =
		find(&l->service->manager->activation, l->config.inherit, l->config.inherit_index);
	int r;

	if (!s)
		return did_not_come(l, ret_error);
	if (s->in_use)
		return error_set(ret_error, -EBUSY,
			"%s: listener %s: the socket \"%s\" is still in use by another service; "
			"try again when that has stopped",
			l->service->name, l->config.name, l->config.inherit);
	l->inherited_fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
	if (l->inherited_fd < 0)
		return error_set_errno(ret_error, -errno, "%s: listener %s: its socket",
			l->service->name, l->config.name);
	look_at_queue(l->service->manager, s);
	l->inherited = s;
	r = look_at_socket(l, ret_error);
	if (r < 0)
		return r;
	/* As workers expect it, unless "nonblocking" is asked for: systemd sets or clears it for us
	 * (NonBlocking=), not for them. */
	if (l->came_flags >= 0)
		(void)fcntl(s->fd, F_SETFL, l->came_flags & ~O_NONBLOCK);
	return 0;
}

/* --- out of a process that runs -------------------------------------------- */

static int on_path(sd_event_source *source, const struct inotify_event *event, void *userdata)
{
	struct listener *l = userdata;
	const char *slash = strrchr(l->config.address.un.sun_path, '/');

	(void)source;
	/* Many servers remove the path as soon as they are told to end, which is theirs no more. */
	if (event->len > 0 && slash && streq(event->name, slash + 1))
		listener_keep_path(l);
	return 0;
}

void inherit_watch_path(struct listener *l)
{
	_cleanup_free_ char *directory = NULL;
	char *slash;
	int r;

	if (!l->adopted || l->ino == 0 || l->path_watch)
		return;
	listener_keep_path(l);
	directory = strdup(l->config.address.un.sun_path);
	slash = directory ? strrchr(directory, '/') : NULL;
	if (!slash)
		return;
	slash[slash == directory] = '\0';
	r = sd_event_add_inotify(l->service->manager->event, &l->path_watch, directory,
		IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR, on_path, l);
	if (r >= 0)
		r = sd_event_source_set_priority(l->path_watch, PRIORITY_NOTIFY);
	if (r < 0)
		log_warning("%s: listener %s: cannot watch %s: %s; if the old process removes the "
			    "socket's path, it is put back when that process has ended",
			l->service->name, l->config.name, directory, strerror(-r));
}

int inherit_adopt(struct listener *l, struct error *ret_error)
{
	int r = adopt_take(l->service, &l->config, &l->inherited);

	if (r < 0)
		return error_set_errno(ret_error, r, "%s: listener %s: its socket",
			l->service->name, l->config.name);
	look_at_queue(l->service->manager, l->inherited);
	l->inherited_fd = TAKE_FD(l->inherited->fd);
	l->adopted_from = l->service->core.last_number + 1;
	r = look_at_socket(l, ret_error);
	if (r < 0)
		return r;
	l->worker_flags = l->came_flags;
	if (listen_path_identity(&l->config.address, &l->dev, &l->ino) < 0)
		l->ino = 0;
	inherit_watch_path(l);
	return 0;
}

void inherit_forget(struct listener *l)
{
	if (!l->adopted)
		return;
	if (l->path_watch)
		l->path_watch = sd_event_source_disable_unref(l->path_watch);
	if (l->inherited)
		free(l->inherited->name);
	free(l->inherited);
	l->inherited = NULL;
	l->inherited_fd = -1;
	l->adopted = false;
}

void inherit_forget_giver(struct listener *l)
{
	if (!l->adopted)
		return;
	listener_keep_path(l);
	l->owner_kept = true;
	l->owner_uid = l->inherited->uid;
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd == l->inherited_fd && l->kind == LISTENER_GROUP)
			listener_taint_lane(l, l->lanes.sockets[i].lane);
	/* O_NONBLOCK stays: who shares a held one by now has set it as it needs it. */
	inherit_forget(l);
	socket_options_done(&l->came_options);
	l->changed = true;
}

int inherit_complete(const struct listener *l, struct listener_config *c)
{
	const struct socket_options *came = &l->came_options;
	const struct config_place nowhere = {0};
	int r = 0;

	/* What is configured holds for the one beside it. */
	if (l->adopted)
		return 0;
	c->address = l->inherited->address;
	c->v6only = listen_is_v6only(l->inherited_fd);
	/* Backlog= of the socket unit, unless another was asked for. */
	if (c->backlog == CONFIG_BACKLOG_DEFAULT && l->inherited->queue_max > 0)
		c->backlog = l->inherited->queue_max;
	/* From the last one on: what decides about others comes before them. */
	for (size_t i = came->n; r >= 0 && i-- > 0;)
		if (!socket_options_has(&c->options, came->list[i].option))
			r = socket_options_set(&c->options, came->list[i].option,
				came->list[i].value, came->list[i].text, nowhere);
	return r;
}

/* --- a group --------------------------------------------------------------- */

static const char *why_held(const struct listener *l, bool may_group)
{
	if (address_is_unix(&l->config.address))
		return "Unix sockets have one queue";
	if (!l->config.steering)
		return "steering: off";
	if (!may_group)
		return "socket groups do not behave as expected on this kernel";
	return listener_held_by_options(&l->config);
}

/* The program can be attached when the group is there, which is when the first other member has
 * joined: what comes in between must not get lost in that one. A TCP client is made to ask again;
 * datagrams have no such way, but one that was made with ReusePort=yes is a group already. */
static int join_first(struct listener *l, unsigned lane, unsigned slot)
{
	static const struct sock_filter first = BPF_STMT(BPF_RET | BPF_K, 0);
	bool tcp = l->config.address.kind == ADDRESS_TCP;
	_cleanup_close_ int fd = -1;
	int r;

	if (l->came_grouped)
		(void)listen_steer(l->inherited_fd, &first, 1);
	fd = listener_bind_member(l);
	if (fd < 0)
		return fd;
	r = tcp ? listen_hold_back(fd, true) : 0;
	if (r >= 0)
		r = listen_start(fd, l->config.backlog);
	if (r >= 0)
		r = listen_steer(l->inherited_fd, &first, 1);
	if (r >= 0 && tcp)
		r = listen_hold_back(fd, false);
	return r < 0 ? r : listener_keep_socket(l, lane, slot, &fd);
}

static int keep_inherited(struct listener *l, unsigned lane)
{
	int fd = l->inherited_fd;

	return listener_keep_socket(l, lane, 0, &fd);
}

static int open_group(struct listener *l, unsigned lane)
{
	bool joined = false;
	int r = listen_make_group(l->inherited_fd);

	if (r >= 0)
		r = listen_start(l->inherited_fd, l->config.backlog);
	if (r >= 0)
		r = keep_inherited(l, lane);
	/* Who was there before us may be before it in the array, or behind it. */
	if (r >= 0) {
		listener_guard_look(l);
		r = listener_guard_is_alone(l) ? 0 : -EBUSY;
	}
	for (unsigned i = 0; r >= 0 && i < LISTENER_LANES_AT_START; i++) {
		unsigned to = i == 0 ? lane : i - (i <= lane);

		for (unsigned slot = i == 0; r >= 0 && slot < listener_slots_at_start(l); slot++) {
			r = joined ? listener_add_member(l, to, slot) : join_first(l, to, slot);
			joined = true;
		}
	}
	return r < 0 ? r : listener_guard_settle(l, 1);
}

static void hold(struct listener *l, const char *reason)
{
	l->kind = LISTENER_HELD;
	l->held_reason = reason;
}

int inherit_open(struct listener *l, unsigned lane, bool may_group)
{
	const char *reason = why_held(l, may_group);
	int r;

	l->kind = LISTENER_GROUP;
	if (!reason) {
		r = open_group(l, lane);
		if (r == -EBUSY && l->adopted)
			return r;
		if (r != -EADDRINUSE && r != -EPERM && r != -EBUSY)
			return r;
		/* Only sockets of the same user can join. */
		listener_close_sockets(l);
		reason = r == -EBUSY ? "other programs' sockets share its address already"
			 : geteuid() != 0 && l->inherited->uid != geteuid()
				 ? "another user's socket, which only root can join"
				 : "no other socket can join it";
	}
	hold(l, reason);
	if (!l->came_grouped)
		(void)listen_leave_group(l->inherited_fd);
	r = listen_start(l->inherited_fd, l->config.backlog);
	return r < 0 ? r : keep_inherited(l, 0);
}

/* --- the way back ---------------------------------------------------------- */

void inherit_steer_back(struct listener *l)
{
	for (size_t i = 0; i < l->lanes.n; i++) {
		struct sock_filter program = BPF_STMT(BPF_RET | BPF_K, (uint32_t)i);

		if (l->kind == LISTENER_GROUP && l->lanes.sockets[i].fd == l->inherited_fd)
			(void)listen_steer(l->inherited_fd, &program, 1);
	}
}

void inherit_give_back(struct listener *l)
{
	if (!l->inherited)
		return;
	if (l->kind == LISTENER_GROUP) {
		(void)listen_unsteer(l->inherited_fd);
		if (!l->came_grouped)
			(void)listen_leave_group(l->inherited_fd);
	}
	if (l->inherited->queue_max > 0)
		(void)listen_start(l->inherited_fd, l->inherited->queue_max);
	listener_options_restore(l);
	if (l->came_flags >= 0)
		(void)fcntl(l->inherited_fd, F_SETFL, l->came_flags);
	l->inherited_fd = close_fd(l->inherited_fd);
	l->inherited->in_use = false;
	if (l->adopted)
		inherit_forget(l);
	l->inherited = NULL;
}

/* --- the next daemon ------------------------------------------------------- */

json_t *inherit_save(const struct listener *l)
{
	const struct activation_socket *s = l->inherited;
	json_int_t index = -1;

	if (!s)
		return NULL;
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd == l->inherited_fd)
			index = (json_int_t)i;
	return json_pack("{s:i, s:I, s:I, s:I, s:b, s:b, s:i, s:i, s:o?}", "adopted",
		l->adopted ? (int)l->adopted_from : 0, "socket", index, "uid", (json_int_t)s->uid,
		"queue_max", (json_int_t)s->queue_max, "placed", l->inherited_placed, "grouped",
		l->came_grouped, "flags", l->came_flags, "worker_flags", l->worker_flags, "options",
		state_save(&state_table_socket_options, &l->came_options));
}

void inherit_look(struct listener *l)
{
	int flags = l->inherited ? fcntl(l->inherited_fd, F_GETFL) : -1;

	if (flags < 0 || flags == l->worker_flags)
		return;
	l->worker_flags = flags;
	l->changed = true;
}

/* Whoever gave it to the earlier daemon has not given it to us, and so cannot take it from us
 * either: it is as if it had come. */
static struct activation_socket *add_to_list(struct listener *l, const json_t *value)
{
	struct manager *m = l->service->manager;
	struct activation *a = &m->activation;
	struct activation_socket *longer = calloc(a->n + 1, sizeof(*longer)), *s;

	if (!longer)
		return NULL;
	if (a->n > 0)
		memcpy(longer, a->sockets, a->n * sizeof(*longer));
	for (size_t i = 0; i < m->n_services; i++)
		for (size_t id = 0; id < ARRAY_SIZE(m->services[i]->listeners); id++) {
			struct listener *other = m->services[i]->listeners[id];

			if (other && other->inherited && !other->adopted)
				other->inherited = longer + (other->inherited - a->sockets);
		}
	free(a->sockets);
	a->sockets = longer;
	s = &longer[a->n];
	*s = (struct activation_socket){
		.fd = fcntl(l->inherited_fd, F_DUPFD_CLOEXEC, 3),
		.name = strdup(l->config.inherit),
		.address = l->config.address,
		.is_socket = true,
		.listening = true,
		.uid = (uid_t)json_integer_value(json_object_get(value, "uid")),
		.queue_max = (unsigned)json_integer_value(json_object_get(value, "queue_max")),
	};
	if (!s->name || s->fd < 0) {
		close_fd(s->fd);
		free(s->name);
		return NULL;
	}
	a->n++;
	return s;
}

static struct activation_socket *adopted_again(struct listener *l)
{
	struct activation_socket *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct activation_socket){
		.fd = -1, .address = l->config.address, .is_socket = true, .listening = true};
	l->adopted = true;
	return s;
}

int inherit_restore(struct listener *l, const json_t *value)
{
	json_int_t index = json_integer_value(json_object_get(value, "socket"));
	const json_t *options = json_object_get(value, "options");
	unsigned adopted = state_get_unsigned(value, "adopted");
	struct activation_socket *s;
	int r;

	if (!l->config.inherit && !adopted)
		return -EBADMSG;
	if (index < 0 || (size_t)index >= l->lanes.n)
		return 0; /* a worker had made it useless */
	l->inherited_fd = l->lanes.sockets[index].fd;
	if (l->inherited_fd < 0)
		return 0;
	s = adopted ? adopted_again(l)
		    : find(&l->service->manager->activation, l->config.inherit,
			      l->config.inherit_index);
	if (s && !adopted && (s->in_use || !address_equal(&s->address, &l->config.address)))
		s = NULL;
	if (!s && !adopted)
		s = add_to_list(l, value);
	if (!s)
		return -ENOMEM;
	if (adopted) {
		l->inherited = s;
		l->adopted_from = adopted;
	}
	r = options ? state_load(&state_table_socket_options, options, &l->came_options) : 0;
	if (r < 0)
		return r;
	/* What it is by now is our own doing. */
	s->uid = (uid_t)json_integer_value(json_object_get(value, "uid"));
	s->queue_max = (unsigned)json_integer_value(json_object_get(value, "queue_max"));
	s->in_use = true;
	l->inherited = s;
	l->inherited_placed = json_is_true(json_object_get(value, "placed"));
	l->came_grouped = json_is_true(json_object_get(value, "grouped"));
	l->came_flags = (int)json_integer_value(json_object_get(value, "flags"));
	l->worker_flags = (int)json_integer_value(json_object_get(value, "worker_flags"));
	/* O_NONBLOCK belongs to all who have the socket, and systemd sets or clears it each time it
	 * starts a daemon (NonBlocking=): workers that wait in accept(2) when they do not expect it
	 * are deaf to their other clients. */
	(void)fcntl(l->inherited_fd, F_SETFL, l->worker_flags);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a stranger can do to the array. It joins at the end: nothing of ours moves, and the program
 * does not name it. Then one of ours joins, behind it. When the stranger leaves, the last member
 * moves into its place, at once and without a word; if that was a socket the program names, its
 * connections would go to a place beyond the end, which the kernel takes for "any of the group". So
 * the last members are always as many guards (or strangers) as there are strangers. */
#include "daemon/listener_guard.h"

#include <arpa/inet.h>

#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/state_save.h"
#include "sys/listen.h"
#include "sys/sockdiag.h"

#define LOOK_AGAIN_USEC (3 * USEC_PER_SEC)
enum {
	REPORTS_MAX = 16, /* strangers at a time whose processes are looked for */
	GUARDS_MAX = LISTENER_GUARDS_MAX,
	TRIES = 50, /* until nobody joins at the same moment */
};

/* --- who is who ----------------------------------------------------------------------------- */

static int compare_inodes(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static size_t own_inodes(const struct listener *l, uint64_t *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd >= 0 &&
			socket_inode(l->lanes.sockets[i].fd, &ret[n]) >= 0)
			n++;
	for (size_t i = 0; i < l->guard.n_fds; i++)
		if (socket_inode(l->guard.fds[i], &ret[n]) >= 0)
			n++;
	qsort(ret, n, sizeof(*ret), compare_inodes);
	return n;
}

static bool is_wildcard(const struct address *a)
{
	return a->sa.sa_family == AF_INET ? a->in4.sin_addr.s_addr == htonl(INADDR_ANY)
					  : IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
}

static bool same_ip(const struct address *a, const struct address *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	return a->sa.sa_family == AF_INET ? a->in4.sin_addr.s_addr == b->in4.sin_addr.s_addr
					  : memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0;
}

/* The kernel's own conditions for being of one group, apart from the user. */
static bool is_member(const struct sockdiag_listener *own, const struct sockdiag_listener *s)
{
	return same_ip(&own->address, &s->address) && own->interface == s->interface &&
	       (own->v6only < 0 || s->v6only < 0 || own->v6only == s->v6only);
}

/* The more specific socket wins, and for IPv4 one of IPv4. */
static bool comes_before(const struct sockdiag_listener *own, const struct sockdiag_listener *s)
{
	bool same = same_ip(&own->address, &s->address);

	if (own->address.sa.sa_family == AF_INET6 && s->address.sa.sa_family == AF_INET)
		return is_wildcard(&own->address) && own->v6only != 1;
	if (own->address.sa.sa_family != s->address.sa.sa_family)
		return false;
	if (same)
		return own->interface == 0 && s->interface != 0;
	return is_wildcard(&own->address);
}

/* For the next daemon; what it has not been told it finds out by looking. */
static void note(struct listener *l)
{
	l->changed = true;
	state_save_later(l->service->manager);
}

/* --- the model ------------------------------------------------------------------------------ */

static size_t members(const struct listener_guard *g)
{
	size_t n = 0;

	for (size_t i = 0; i < g->n_foreign; i++)
		n += g->foreign[i].member;
	return n;
}

static int add_guard(struct listener *l)
{
	struct listener_guard *g = &l->guard;
	_cleanup_close_ int fd = -1;
	int r;

	r = array_reserve(&g->fds, &g->fds_capacity, g->n_fds + 1, sizeof(*g->fds));
	if (r < 0)
		return r;
	fd = listener_bind_member(l);
	if (fd < 0)
		return fd;
	r = listener_watch_add(l, fd);
	if (r < 0)
		return r;
	/* Whatever comes there is a straggler. */
	l->watches[l->n_watches - 1]->lane = LANES_OTHER;
	r = listen_start(fd, l->config.backlog);
	if (r >= 0)
		r = lanes_append_other(&l->lanes);
	if (r < 0) {
		listener_watch_drop(l, fd);
		return r;
	}
	(void)store_add(l->service->manager->store, STORED_LISTENER, fd);
	g->fds[g->n_fds++] = TAKE_FD(fd);
	note(l);
	return 0;
}

static void close_guard(struct listener *l)
{
	int fd = l->guard.fds[--l->guard.n_fds];

	listener_watch_drop(l, fd);
	store_drop(l->service->manager->store, fd);
	listen_shutdown_take(&fd);
	note(l);
}

/* As many others at the end as there are strangers. */
static void keep_guards(struct listener *l)
{
	struct listener_guard *g = &l->guard;
	size_t n = members(g), at_end = lanes_others_at_end(&l->lanes);
	int r = 0;

	if (at_end < n) {
		while (r >= 0 && at_end < n && g->n_fds < GUARDS_MAX) {
			r = add_guard(l);
			at_end = lanes_others_at_end(&l->lanes);
		}
		if (at_end < n && !g->failed)
			log_warning("%s: listener %s: there are too many strangers' sockets on its "
				    "address; when one goes away new connections may be disturbed",
				l->service->name, l->config.name);
		g->failed = at_end < n;
		return;
	}
	/* When one of the others leaves it is one of those at the end that is missing then. */
	for (; at_end > n && g->n_fds > 0; at_end--) {
		close_guard(l);
		(void)lanes_others_left(&l->lanes, 1);
	}
}

static void forget(struct listener *l, size_t i)
{
	struct listener_guard *g = &l->guard;
	struct listener_foreign *f = &g->foreign[i];

	listener_guard_report_gone(l, f);
	if (f->member && l->kind == LISTENER_GROUP && lanes_others_left(&l->lanes, 1) < 0)
		log_error("%s: listener %s: a stranger's socket has left the group, and a place "
			  "there can only be guessed",
			l->service->name, l->config.name);
	free(f->program);
	g->foreign[i] = g->foreign[--g->n_foreign];
	note(l);
}

static int meet(struct listener *l, const struct sockdiag_listener *s, bool member, bool silent)
{
	struct listener_guard *g = &l->guard;
	struct listener_foreign *f;
	int r = array_reserve(
		&g->foreign, &g->foreign_capacity, g->n_foreign + 1, sizeof(*g->foreign));

	if (r >= 0 && member && l->kind == LISTENER_GROUP)
		r = lanes_append_other(&l->lanes);
	if (r < 0)
		return r;
	f = &g->foreign[g->n_foreign++];
	*f = (struct listener_foreign){
		.inode = s->inode,
		.address = s->address,
		.uid = s->uid,
		.member = member,
		.silent = silent || s->connected || g->n_foreign > REPORTS_MAX,
	};
	note(l);
	return 0;
}

int listener_guard_meet(struct listener *l)
{
	_cleanup_free_ struct sockdiag_listener *list = NULL;
	struct manager *m = l->service->manager;
	const struct address *a = &l->config.address;
	size_t n = 0;
	int r;

	if (m->sockdiag_fd < 0)
		return -EOPNOTSUPP;
	r = a->kind == ADDRESS_UDP ? sockdiag_datagrams(m->sockdiag_fd, address_port(a), &list, &n)
				   : sockdiag_listeners(m->sockdiag_fd, address_port(a), &list, &n);
	for (size_t i = 0; r >= 0 && i < n; i++) {
		if (!same_ip(a, &list[i].address) || (list[i].connected && m->connected_leaves))
			continue;
		r = meet(l, &list[i], true, true);
	}
	return r;
}

/* What the kernel says now. */
struct view {
	struct sockdiag_listener *list;
	size_t n;
	/* Inodes, sorted: there may be a connected UDP socket for each client. Ours; all of the
	 * list; the strangers that are known. */
	uint64_t *own, *there, *known;
	size_t n_own, n_known;
	const struct sockdiag_listener *example; /* one of ours */
	bool catches;				 /* see listener_guard_catches() */
};

static void view_done(struct view *v)
{
	free(v->list);
	free(v->own);
	free(v->there);
	free(v->known);
}

static bool has_inode(const uint64_t *sorted, size_t n, uint64_t inode)
{
	return bsearch(&inode, sorted, n, sizeof(*sorted), compare_inodes) != NULL;
}

static bool is_own(const struct view *v, const struct sockdiag_listener *s)
{
	return has_inode(v->own, v->n_own, s->inode);
}

/* Where they leave the group, they are no more than their peers' own. */
static void forget_connected(const struct listener *l, struct view *v)
{
	struct sockdiag_listener example = *v->example;
	uid_t uid = listener_group_uid(l);
	size_t n = 0;

	for (size_t i = 0; i < v->n; i++) {
		const struct sockdiag_listener *s = &v->list[i];

		if (s->connected && !is_own(v, s))
			v->catches |= s->uid == uid && is_member(&example, s);
		else
			v->list[n++] = *s;
	}
	v->n = n;
	for (v->example = v->list; v->example->inode != example.inode; v->example++)
		;
}

static int sort_inodes(const struct listener *l, struct view *v)
{
	v->n_known = l->guard.n_foreign;
	v->there = calloc(v->n + 1, sizeof(*v->there));
	v->known = calloc(v->n_known + 1, sizeof(*v->known));
	if (!v->there || !v->known)
		return -ENOMEM;
	for (size_t i = 0; i < v->n; i++)
		v->there[i] = v->list[i].inode;
	for (size_t i = 0; i < v->n_known; i++)
		v->known[i] = l->guard.foreign[i].inode;
	qsort(v->there, v->n, sizeof(*v->there), compare_inodes);
	qsort(v->known, v->n_known, sizeof(*v->known), compare_inodes);
	return 0;
}

/* 1; 0: nobody can be asked; -errno. */
static int view_init(struct listener *l, struct view *v)
{
	struct manager *m = l->service->manager;
	unsigned port;
	int r;

	if (address_is_unix(&l->config.address) || m->sockdiag_fd < 0)
		return 0;
	l->guard.looked_usec = manager_now(m);
	port = address_port(&l->config.address);
	v->own = calloc(l->lanes.n + l->guard.n_fds + 1, sizeof(*v->own));
	if (!v->own)
		return -ENOMEM;
	r = l->config.address.kind == ADDRESS_UDP
		    ? sockdiag_datagrams(m->sockdiag_fd, port, &v->list, &v->n)
		    : sockdiag_listeners(m->sockdiag_fd, port, &v->list, &v->n);
	if (r < 0)
		return r;
	v->n_own = own_inodes(l, v->own);
	for (size_t i = 0; i < v->n && !v->example; i++)
		if (is_own(v, &v->list[i]))
			v->example = &v->list[i];
	if (m->connected_leaves && v->example)
		forget_connected(l, v);
	/* All of ours were shut down; they listen again in a moment. */
	if (!v->example)
		return 0;
	r = sort_inodes(l, v);
	return r < 0 ? r : 1;
}

static bool is_there(const struct view *v, uint64_t inode)
{
	return has_inode(v->there, v->n, inode);
}

/* One that takes part, and was not known. */
static bool is_new(const struct view *v, const struct sockdiag_listener *s, bool *ret_member)
{
	*ret_member = is_member(v->example, s);
	return (*ret_member || (!s->connected && comes_before(v->example, s))) && !is_own(v, s) &&
	       !has_inode(v->known, v->n_known, s->inode);
}

/* Has anybody joined the group or left it since it was looked at last? */
static bool has_changed(const struct listener *l, const struct view *v)
{
	bool member;

	for (size_t i = 0; i < l->guard.n_foreign; i++)
		if (l->guard.foreign[i].member && !is_there(v, l->guard.foreign[i].inode))
			return true;
	for (size_t i = 0; i < v->n; i++)
		if (is_new(v, &v->list[i], &member) && member)
			return true;
	return false;
}

static int look(struct listener *l)
{
	_cleanup_(view_done) struct view v = {.list = NULL};
	int r = view_init(l, &v);
	bool member;

	if (r <= 0)
		return r;
	/* First those who left: they were there before those who came. */
	for (size_t i = l->guard.n_foreign; i-- > 0;)
		if (!is_there(&v, l->guard.foreign[i].inode))
			forget(l, i);
	for (size_t i = 0; r >= 0 && i < v.n; i++)
		if (is_new(&v, &v.list[i], &member))
			r = meet(l, &v.list[i], member, false);
	listener_guard_report(l);
	return r;
}

void listener_guard_look(struct listener *l)
{
	if (look(l) >= 0 && l->kind == LISTENER_GROUP)
		keep_guards(l);
}

bool listener_guard_catches(struct listener *l)
{
	_cleanup_(view_done) struct view v = {.list = NULL};
	uint64_t looked_usec = l->guard.looked_usec;
	bool catches;

	if (l->config.address.kind != ADDRESS_UDP || !l->service->manager->connected_leaves ||
		l->lanes.n == 0 || is_wildcard(&l->config.address))
		return false;
	catches = view_init(l, &v) > 0 && v.catches;
	l->guard.looked_usec = looked_usec;
	return catches;
}

void listener_guard_look_again(struct listener *l)
{
	if (manager_now(l->service->manager) - l->guard.looked_usec >= LOOK_AGAIN_USEC)
		listener_guard_look(l);
}

static bool changed_since(struct listener *l)
{
	_cleanup_(view_done) struct view v = {.list = NULL};

	return view_init(l, &v) > 0 && has_changed(l, &v);
}

/* Those of ours from the mark on, and the guards behind them, leave. Nobody who stays is behind
 * them, so whoever came or went meanwhile, the others are where they were. *ret: which of ours. */
static int leave_again(
	struct listener *l, size_t mark, size_t n_guards, struct lane_socket **ret, size_t *ret_n)
{
	struct lane_socket *left = calloc(l->lanes.n - mark + 1, sizeof(*left));
	size_t n = 0;

	if (!left)
		return -ENOMEM;
	for (size_t i = mark; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].fd >= 0)
			left[n++] = l->lanes.sockets[i];
	l->lanes.n = mark;
	for (size_t i = 0; i < n; i++) {
		listener_watch_drop(l, left[i].fd);
		store_drop(l->service->manager->store, left[i].fd);
		listen_shutdown_take(&left[i].fd);
	}
	while (l->guard.n_fds > n_guards)
		close_guard(l);
	*ret = left;
	*ret_n = n;
	return 0;
}

/* One socket and its guards, in so short a time that nobody is likely to come or go meanwhile. */
static int join_alone(struct listener *l, unsigned lane, unsigned slot)
{
	for (unsigned i = 0;; i++) {
		_cleanup_free_ struct lane_socket *left = NULL;
		size_t mark, n_guards, n;
		int r;

		listener_guard_look(l);
		mark = l->lanes.n;
		n_guards = l->guard.n_fds;
		r = listener_add_member(l, lane, slot);
		if (r < 0)
			return r;
		keep_guards(l);
		if (!changed_since(l))
			return 0;
		if (i == TRIES)
			break;
		r = leave_again(l, mark, n_guards, &left, &n);
		if (r < 0)
			return r;
	}
	log_error("%s: listener %s: strangers' sockets come and go without a pause; which of them "
		  "has which place can only be guessed",
		l->service->name, l->config.name);
	return 0;
}

int listener_guard_settle(struct listener *l, size_t mark)
{
	_cleanup_free_ struct lane_socket *left = NULL;
	size_t n = 0, n_guards = l->guard.n_fds;
	int r = 0;

	if (l->kind != LISTENER_GROUP)
		return 0;
	keep_guards(l);
	if (l->lanes.n <= mark)
		return 0;
	if (changed_since(l))
		r = leave_again(l, mark, n_guards, &left, &n);
	for (size_t i = 0; r >= 0 && i < n; i++)
		r = join_alone(l, left[i].lane, left[i].slot);
	return r;
}

bool listener_guard_is_alone(const struct listener *l)
{
	return members(&l->guard) == 0;
}

void listener_guard_done(struct listener *l)
{
	struct listener_guard *g = &l->guard;

	listener_guard_report_end(l);
	while (g->n_fds > 0)
		close_guard(l);
	listener_guard_leave(l);
}

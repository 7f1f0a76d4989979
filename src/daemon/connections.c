/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/connections.h"

#include "daemon/worker_process.h"
#include "sys/listen.h"
#include "sys/process.h"
#include "sys/sockdiag.h"

enum {
	/* Beyond this the answer is not worth the time: "not known". */
	CONNECTIONS_MAX = 50000,
	/* But a generation's end may depend on it. */
	CONNECTIONS_MAX_AT_THE_END = 200000,
	/* So few descriptors are looked at one by one sooner than all connections there are. */
	FEW_DESCRIPTORS = 256,
};

static int look_at(const struct manager_service *s, const struct listener *l, size_t max,
	struct connections *c, size_t *capacity)
{
	_cleanup_free_ uint64_t *inodes = NULL;
	bool truncated = false;
	size_t n = 0;
	int r;

	r = sockdiag_connections(s->manager->sockdiag_fd, address_family(&l->config.address),
		address_port(&l->config.address), max, &inodes, &n, &truncated);
	if (r < 0)
		return r;
	if (truncated)
		return -E2BIG;
	if (n == 0)
		return 0;
	r = array_reserve(&c->inodes, capacity, c->n + n, sizeof(*inodes));
	if (r < 0)
		return r;
	memcpy(c->inodes + c->n, inodes, n * sizeof(*inodes));
	c->n += n;
	return 0;
}

void connections_look(const struct manager_service *s, struct connections *ret)
{
	size_t capacity = 0;

	*ret = (struct connections){.looked = true, .known = s->manager->sockdiag_fd >= 0};
	for (unsigned id = 0; ret->known && id < ARRAY_SIZE(s->listeners); id++) {
		const struct listener *l = s->listeners[id];

		if (!l)
			continue;
		/* Those of a Unix socket do not say in whose queue they were. */
		ret->known = l->config.address.kind == ADDRESS_TCP &&
			     look_at(s, l, CONNECTIONS_MAX, ret, &capacity) >= 0;
	}
}

static void look_at_tcp(const struct manager_service *s, struct connections *ret)
{
	size_t capacity = 0;

	*ret = (struct connections){.looked = true, .known = s->manager->sockdiag_fd >= 0};
	for (unsigned id = 0; ret->known && id < ARRAY_SIZE(s->listeners); id++) {
		const struct listener *l = s->listeners[id];

		if (l && l->config.address.kind == ADDRESS_TCP)
			ret->known = look_at(s, l, CONNECTIONS_MAX_AT_THE_END, ret, &capacity) >= 0;
	}
}

static int add_tree(const struct worker_process *p, pid_t **pids, size_t *n, size_t *capacity)
{
	_cleanup_free_ pid_t *tree = NULL;
	size_t n_tree = 0;
	int r;

	r = worker_process_tree(p, &tree, &n_tree);
	if (r == -ESRCH || n_tree == 0)
		return 0;
	if (r >= 0)
		r = array_reserve(pids, capacity, *n + n_tree, sizeof(*tree));
	if (r < 0)
		return r;
	memcpy(*pids + *n, tree, n_tree * sizeof(*tree));
	*n += n_tree;
	return 0;
}

int connections_of(const struct connections *c, const struct manager_generation *g)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n_pids = 0, capacity = 0, n = 0;

	if (!c->known)
		return -1;
	for (unsigned i = 0; i < g->n_workers; i++)
		if (g->workers[i] && g->workers[i]->pid > 0 &&
			add_tree(g->workers[i], &pids, &n_pids, &capacity) < 0)
			return -1;
	if (n_pids == 0 || c->n == 0)
		return 0;
	if (process_count_sockets(pids, n_pids, c->inodes, c->n, &n) < 0)
		return -1;
	return (int)MIN(n, (size_t)INT32_MAX);
}

static bool is_own_socket(const struct manager_service *s, uint64_t inode)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		const struct listener *l = s->listeners[id];
		for (size_t i = 0; l && i < l->lanes.n; i++) {
			uint64_t own;
			if (socket_inode(l->lanes.sockets[i].fd, &own) >= 0 && own == inode)
				return true;
		}
	}
	return false;
}

/* They have no sockets but those to accept from: no connection of any kind. The kernel's list of
 * connections, which may be long, need not be walked then. */
static bool hold_listeners_only(const struct manager_service *s, const pid_t *pids, size_t n_pids)
{
	_cleanup_free_ uint64_t *inodes = NULL;
	size_t n;

	if (process_sockets(pids, n_pids, FEW_DESCRIPTORS, &inodes, &n) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_own_socket(s, inodes[i]))
			return false;
	return true;
}

int connections_of_worker(
	const struct manager_service *s, const struct worker_process *p, struct connections *c)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n_pids, n = 0;

	if (worker_process_tree(p, &pids, &n_pids) < 0)
		return -1;
	if (hold_listeners_only(s, pids, n_pids))
		return 0;
	if (!c->looked)
		look_at_tcp(s, c);
	if (!c->known || process_count_sockets(pids, n_pids, c->inodes, c->n, &n) < 0)
		return -1;
	return (int)MIN(n, (size_t)INT32_MAX);
}

void connections_done(struct connections *c)
{
	free(c->inodes);
	*c = (struct connections){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of strangers and guards, for the next daemon and from the earlier one. */
#include "daemon/listener.h"
#include "daemon/listener_guard.h"
#include "daemon/manager.h"
#include "daemon/state_tables.h"

enum { FOREIGN_MAX = 65536 }; /* that a saved state may have */

static size_t members(const struct listener_guard *g)
{
	size_t n = 0;

	for (size_t i = 0; i < g->n_foreign; i++)
		n += g->foreign[i].member;
	return n;
}

void listener_guard_leave(struct listener *l)
{
	struct listener_guard *g = &l->guard;

	listener_guard_report_end(l);
	for (size_t i = 0; i < g->n_fds; i++) {
		listener_watch_drop(l, g->fds[i]);
		close_fd(g->fds[i]);
	}
	free(g->fds);
	for (size_t i = 0; i < g->n_foreign; i++)
		free(g->foreign[i].program);
	free(g->foreign);
	*g = (struct listener_guard){.foreign = NULL};
}

json_t *listener_guard_save(const struct listener *l)
{
	const struct listener_guard *g = &l->guard;
	json_t *guards = json_array(), *foreign = json_array();

	for (size_t i = 0; i < g->n_fds; i++)
		(void)json_array_append_new(
			guards, json_integer(store_number(l->service->manager->store, g->fds[i])));
	for (size_t i = 0; i < g->n_foreign; i++)
		(void)json_array_append_new(
			foreign, state_save(&state_table_foreign, &g->foreign[i]));
	return json_pack("{s:o?, s:o?}", "guards", guards, "foreign", foreign);
}

static int restore_foreign(struct listener_guard *g, const json_t *list)
{
	size_t n = json_array_size(list);

	if (n > FOREIGN_MAX)
		return -EBADMSG;
	g->foreign = calloc(n + 1, sizeof(*g->foreign));
	if (!g->foreign)
		return -ENOMEM;
	g->foreign_capacity = n + 1;
	for (size_t i = 0; i < n; i++) {
		int r;

		g->n_foreign++;
		r = state_load(&state_table_foreign, json_array_get(list, i), &g->foreign[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

int listener_guard_restore(struct listener *l, const json_t *value)
{
	const json_t *guards = json_object_get(value, "guards");
	size_t n = json_array_size(guards), n_others = 0;
	struct listener_guard *g = &l->guard;
	int r = restore_foreign(g, json_object_get(value, "foreign"));

	if (r < 0)
		return r;
	for (size_t i = 0; i < l->lanes.n; i++)
		n_others += l->lanes.sockets[i].lane == LANES_OTHER;
	if (n > LISTENER_GUARDS_MAX || (l->kind == LISTENER_GROUP && n_others != n + members(g)))
		return -EBADMSG;
	g->fds = calloc(n + 1, sizeof(*g->fds));
	if (!g->fds)
		return -ENOMEM;
	g->fds_capacity = n + 1;
	for (size_t i = 0; i < n; i++) {
		json_int_t number = json_integer_value(json_array_get(guards, i));
		int fd = number > 0 && number <= UINT32_MAX
				 ? store_take(l->service->manager->store, STORED_LISTENER,
					   (unsigned)number)
				 : -1;

		if (fd >= 0)
			g->fds[g->n_fds++] = fd;
	}
	return 0;
}

int listener_guard_watch(struct listener *l)
{
	struct listener_guard *g = &l->guard;
	size_t n_others = 0, known = members(g) + g->n_fds;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < g->n_fds; i++) {
		r = listener_watch_add(l, g->fds[i]);
		if (r >= 0)
			l->watches[l->n_watches - 1]->lane = LANES_OTHER;
	}
	for (size_t i = 0; i < l->lanes.n; i++)
		n_others += l->lanes.sockets[i].lane == LANES_OTHER;
	/* Guards that nobody had any more. */
	if (l->kind == LISTENER_GROUP && n_others > known)
		(void)lanes_others_left(&l->lanes, n_others - known);
	return r;
}

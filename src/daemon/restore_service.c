/* SPDX-License-Identifier: Apache-2.0 */
/* A service from its records. What they name and the keeper has not is opened again where it can
 * be. */
#include <fcntl.h>

#include "base/parse.h"
#include "daemon/cgroup.h"
#include "daemon/log.h"
#include "daemon/restore.h"
#include "daemon/state_save.h"
#include "daemon/state_tables.h"
#include "daemon/worker_store.h"

/* --- snapshots ------------------------------------------------------------ */

struct loaded_snapshots {
	struct snapshot **list;
	size_t n, capacity;
};

static struct snapshot *find_snapshot(const struct loaded_snapshots *l, unsigned number)
{
	for (size_t i = 0; number != 0 && i < l->n; i++)
		if (l->list[i]->number == number)
			return l->list[i];
	return NULL;
}

/* What every configuration has that was read from a file, whatever is in it. */
static bool is_whole(const struct service_config *c, const char *name)
{
	const struct verify_config *verify = &c->upgrade.verify;

	for (size_t i = 0; i < c->n_listeners; i++)
		if (!c->listeners[i].name)
			return false;
	return streq_null(c->name, name) && c->command && c->command[0] && c->directory &&
	       c->workers > 0 && (c->output != OUTPUT_FILE || c->output_file) &&
	       (c->ready.by != READY_HTTP || c->ready.path) &&
	       (c->ready.by != READY_EXEC || (c->ready.command && c->ready.command[0])) &&
	       (verify->by != VERIFY_HTTP || verify->path) &&
	       (verify->by != VERIFY_COMMAND || (verify->command && verify->command[0]));
}

/* A descriptor that the keeper did not have: what is at the path now, if it is the same. */
static void open_missing(struct manager_service *s, struct snapshot *snap)
{
	if (snap->directory_fd < 0)
		snap->directory_fd = open(snap->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (snap->directory_fd < 0)
		log_error("%s: directory %s: %s; workers of its generation cannot be started any "
			  "more",
			s->name, snap->directory, strerror(errno));
}

static int load_snapshot(
	struct manager_service *s, struct loaded_snapshots *l, unsigned number, const json_t *value)
{
	struct store *store = s->manager->store;
	unsigned directory = state_get_unsigned(value, "directory"),
		 executable = state_get_unsigned(value, "executable");
	_cleanup_snapshot_ struct snapshot *snap = calloc(1, sizeof(*snap));
	int r;

	if (!snap || array_reserve(&l->list, &l->capacity, l->n + 1, sizeof(snap)) < 0)
		return -ENOMEM;
	snap->n_refs = 1;
	snap->number = number;
	snap->directory_fd = snap->exec_fd = -1;
	r = service_config_init(&snap->config, s->name);
	if (r >= 0)
		r = state_load(&state_table_snapshot, json_object_get(value, "snapshot"), snap);
	if (r < 0)
		return r;
	if (!snap->directory || !snap->executable || !snap->argv || !snap->argv[0] ||
		!snap->environment || !is_whole(&snap->config, s->name) || !snap->program.path)
		return -EBADMSG;
	snap->directory_fd = store_take(store, STORED_DIRECTORY, directory);
	snap->exec_fd = store_take(store, STORED_EXECUTABLE, executable);
	open_missing(s, snap);
	r = state_snapshot_is_saved(s, snap, directory, executable);
	if (r < 0)
		return r;
	l->list[l->n++] = TAKE_PTR(snap);
	return 0;
}

static void loaded_snapshots_done(struct loaded_snapshots *l)
{
	for (size_t i = 0; i < l->n; i++)
		snapshot_unref(l->list[i]);
	free(l->list);
}

/* "s/web/g8" with the prefix "s/web/g": 8. */
static bool number_after(const char *key, const char *prefix, unsigned max, unsigned *ret)
{
	const char *rest = startswith(key, prefix);

	return rest && parse_uint(rest, 0, max, ret) >= 0;
}

static int load_snapshots(
	struct manager_service *s, const json_t *values, struct loaded_snapshots *ret)
{
	_cleanup_free_ char *prefix = xasprintf("s/%s/p", s->name);
	const char *key;
	json_t *value;

	if (!prefix)
		return -ENOMEM;
	json_object_foreach((json_t *)(uintptr_t)values, key, value)
	{
		unsigned number;
		int r = 0;

		if (number_after(key, prefix, UINT32_MAX, &number))
			r = load_snapshot(s, ret, number, value);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- generations ---------------------------------------------------------- */

static int load_workers(struct manager_service *s, struct generation *g, const json_t *values)
{
	for (unsigned i = 0; i < g->n_workers; i++) {
		char key[CONFIG_NAME_MAX + 40];
		const json_t *value;
		int r;

		snprintf(key, sizeof(key), "s/%s/w%u.%u", s->name, g->number, i);
		value = json_object_get(values, key);
		if (!value)
			return -EBADMSG;
		r = state_load(&state_table_worker, json_object_get(value, "core"), &g->workers[i]);
		if (r >= 0)
			r = worker_restore(s, g->number, i, value);
		if (r < 0)
			return r;
	}
	return 0;
}

static int load_core_generation(
	struct manager_service *s, unsigned number, const json_t *value, struct generation **ret)
{
	struct generation *g;

	if (s->core.n_generations >= ARRAY_SIZE(s->core.generations))
		return -EBADMSG;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	s->core.generations[s->core.n_generations++] = *ret = g;
	if (state_load(&state_table_generation, json_object_get(value, "core"), g) < 0 ||
		g->number != number) {
		g->n_workers = 0;
		return -EBADMSG;
	}
	g->workers = calloc(g->n_workers + 1, sizeof(*g->workers));
	if (!g->workers) {
		g->n_workers = 0;
		return -ENOMEM;
	}
	return 0;
}

static int load_generation(struct manager_service *s, unsigned number, const json_t *value,
	const struct loaded_snapshots *snapshots, const json_t *values)
{
	struct snapshot *snap = find_snapshot(snapshots, state_get_unsigned(value, "snapshot"));
	struct manager_generation *g;
	struct generation *core = NULL;
	int r = load_core_generation(s, number, value, &core);

	if (r < 0)
		return r;
	if (!snap)
		return -EBADMSG;
	if (array_reserve(&s->generations, &s->generations_capacity, s->n_generations + 1,
		    sizeof(*s->generations)) < 0)
		return -ENOMEM;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	s->generations[s->n_generations++] = g;
	*g = (struct manager_generation){.number = number,
		.snapshot = snapshot_ref(snap),
		.listeners = core->listeners,
		.started_usec = state_get_u64(value, "started"),
		.serving_usec = state_get_u64(value, "serving")};
	g->workers = calloc(core->n_workers + 1, sizeof(struct worker_process *));
	if (!g->workers)
		return -ENOMEM;
	g->n_workers = core->n_workers;
	generation_cgroup_restore(s, g, json_string_value(json_object_get(value, "cgroup")));
	r = state_load_text(json_object_get(value, "requested_by"), &g->requested_by);
	if (r >= 0)
		r = state_generation_is_saved(s, number, core->n_workers);
	return r < 0 ? r : load_workers(s, core, values);
}

static int load_generations(
	struct manager_service *s, const json_t *values, struct loaded_snapshots *snapshots)
{
	_cleanup_free_ char *prefix = xasprintf("s/%s/g", s->name);
	unsigned last = 0;

	if (!prefix)
		return -ENOMEM;
	/* Oldest first. There are a handful at most. */
	for (;;) {
		unsigned number, next = 0;
		const json_t *found = NULL;
		const char *key;
		json_t *value;
		int r;

		json_object_foreach((json_t *)(uintptr_t)values, key,
			value) if (number_after(key, prefix, UINT32_MAX, &number) &&
				   number > last && (next == 0 || number < next))
		{
			next = number;
			found = value;
		}
		if (next == 0)
			return 0;
		r = load_generation(s, next, found, snapshots, values);
		if (r < 0)
			return r;
		last = next;
	}
}

/* --- the rest of a service ------------------------------------------------ */

static int load_config(const char *name, const json_t *value, struct service_config **ret)
{
	struct service_config *c;
	int r;

	if (!value || json_is_null(value))
		return 0;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	r = service_config_init(c, name);
	if (r >= 0)
		r = state_load(&state_table_service_config, value, c);
	if (r >= 0 && !is_whole(c, name))
		r = -EBADMSG;
	if (r < 0) {
		service_config_done(c);
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

static int load_history(
	struct manager_service *s, const json_t *list, const struct loaded_snapshots *snapshots)
{
	if (!json_is_array(list) || json_array_size(list) > HISTORY_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *value = json_array_get(list, i);
		struct snapshot *snap =
			find_snapshot(snapshots, state_get_unsigned(value, "snapshot"));
		struct history_entry *h = &s->history[s->n_history++];
		int r = state_load(&state_table_history, value, h);

		if (r < 0)
			return r;
		h->snapshot = snap ? snapshot_ref(snap) : NULL;
	}
	return 0;
}

static int load_queued(
	struct manager_service *s, const json_t *value, const struct loaded_snapshots *snapshots)
{
	struct snapshot *snap = find_snapshot(snapshots, state_get_unsigned(value, "snapshot"));
	int r;

	if (!json_is_object(value) || !snap)
		return 0;
	r = state_load(&state_table_upgrade, json_object_get(value, "spec"), &s->queued.spec);
	if (r >= 0)
		r = state_load_text(
			json_object_get(value, "requested_by"), &s->queued.requested_by);
	if (r >= 0)
		r = load_config(s->name, json_object_get(value, "config"), &s->queued.config);
	if (r >= 0)
		s->queued.snapshot = snapshot_ref(snap);
	return r;
}

static int load_meta(
	struct manager_service *s, const json_t *meta, const struct loaded_snapshots *snapshots)
{
	int r = load_config(s->name, json_object_get(meta, "before"), &s->config_before);

	if (r >= 0)
		r = load_history(s, json_object_get(meta, "history"), snapshots);
	if (r >= 0)
		r = load_queued(s, json_object_get(meta, "queued"), snapshots);
	if (r >= 0)
		r = state_load(&state_table_failure, json_object_get(meta, "failure"), &s->failure);
	if (r >= 0 && json_object_get(meta, "trouble"))
		r = state_load(&state_table_failure, json_object_get(meta, "trouble"), &s->trouble);
	if (r >= 0)
		r = asked_load(s, json_object_get(meta, "asked"));
	s->scaled = state_get_unsigned(meta, "scaled");
	s->start_again = state_get_bool(meta, "start_again");
	s->holds_dead_socket = state_get_bool(meta, "holds_dead_socket");
	s->removing = state_get_bool(meta, "removing");
	return r < 0 ? r : s->scaled <= CONFIG_WORKERS_MAX ? 0 : -EBADMSG;
}

static int load_listeners(
	struct manager_service *s, const json_t *values, struct loaded_snapshots *l)
{
	(void)l;
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		char key[CONFIG_NAME_MAX + 40];
		const json_t *value;
		int r;

		snprintf(key, sizeof(key), "s/%s/l%u", s->name, id);
		value = json_object_get(values, key);
		if (value && s->manager->trial)
			r = listener_restore_check(value);
		else
			r = value ? listener_restore(s, id, value) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static const json_t *record_of(const json_t *values, const char *service, const char *what)
{
	char key[CONFIG_NAME_MAX + 40];

	snprintf(key, sizeof(key), "s/%s/%s", service, what);
	return json_object_get(values, key);
}

static int load_core(struct manager_service *s, const json_t *values, struct loaded_snapshots *l)
{
	int r = state_load(&state_table_service, record_of(values, s->name, "core"), &s->core);

	(void)l;
	return r < 0 ? r
		     : state_load(&state_table_steps, record_of(values, s->name, "steps"),
			       &s->core.rollout);
}

static int load_rest(struct manager_service *s, const json_t *values, struct loaded_snapshots *l)
{
	return load_meta(s, record_of(values, s->name, "meta"), l);
}

static int check_core(struct manager_service *s, const json_t *values, struct loaded_snapshots *l)
{
	(void)values;
	(void)l;
	return service_is_valid(&s->core) ? 0 : -EBADMSG;
}

static int load_stored(struct manager_service *s, const json_t *values, struct loaded_snapshots *l)
{
	(void)l;
	return worker_store_restore(s, record_of(values, s->name, "stored"));
}

static int load_service(struct manager_service *s, const json_t *values)
{
	static const struct {
		const char *name;
		int (*load)(struct manager_service *s, const json_t *values,
			struct loaded_snapshots *l);
	} parts[] = {
		{"snapshots",	      load_snapshots  },
		{"service",	    load_core	     },
		{"generations",	load_generations},
		{"history",	    load_rest	     },
		{"machines",	     check_core      },
		{"stored descriptors", load_stored	  },
 /* Last: workers may have what the keeper has not. */
		{"listeners",	      load_listeners  },
	};
	struct loaded_snapshots snapshots = {0};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(parts); i++) {
		r = parts[i].load(s, values, &snapshots);
		if (r < 0)
			log_error("%s: the saved state of its %s cannot be (%s)", s->name,
				parts[i].name, strerror(-r));
	}
	loaded_snapshots_done(&snapshots);
	return r;
}

int restore_service(struct manager *m, const char *name, const json_t *values)
{
	struct service_config *config = NULL;
	struct manager_service *s;
	int r;

	if (!config_name_valid(name) || manager_find(m, name) ||
		m->n_services >= CONFIG_SERVICES_MAX)
		return -EBADMSG;
	r = load_config(name, json_object_get(record_of(values, name, "meta"), "config"), &config);
	if (r < 0 || !config)
		return r < 0 ? r : -EBADMSG;
	s = array_reserve(&m->services, &m->services_capacity, m->n_services + 1, sizeof(s)) < 0
		    ? NULL
		    : manager_service_new(m, config, NULL);
	service_config_done(config);
	free(config);
	if (!s)
		return -ENOMEM;
	m->services[m->n_services++] = s;
	return load_service(s, values);
}

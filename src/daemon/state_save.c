/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/state_save.h"

#include <fcntl.h>

#include "daemon/cgroup.h"
#include "daemon/fault.h"
#include "daemon/listener_inherit.h"
#include "daemon/log.h"
#include "daemon/output.h"
#include "daemon/restore.h"
#include "daemon/restore_blind.h"
#include "daemon/state_tables.h"
#include "daemon/worker_process.h"
#include "daemon/worker_store.h"

enum { KEY_SIZE = CONFIG_NAME_MAX + 40, SEQUENCES_AT_ONCE = 1024 };

/* Copies of what was written, to be compared with what is. */
struct saved_generation {
	unsigned number;
	struct generation head;
	uint64_t serving_usec;
	struct worker *workers;
	unsigned n_workers, capacity;
};

struct saved_snapshot {
	unsigned number, directory, executable;
};

struct saved_service {
	struct service core;
	bool has_core;
	struct saved_generation **generations;
	size_t n_generations, generations_capacity;
	struct saved_snapshot *snapshots;
	size_t n_snapshots, snapshots_capacity;
	unsigned last_snapshot;
	/* For fault points: what became of it since the last write. */
	unsigned worker_states; /* bits */
	bool phase;
};

static struct saved_generation *saved_generation_free(struct saved_generation *g)
{
	if (g)
		free(g->workers);
	free(g);
	return NULL;
}

struct saved_service *saved_service_free(struct saved_service *saved)
{
	if (!saved)
		return NULL;
	for (size_t i = 0; i < saved->n_generations; i++)
		saved_generation_free(saved->generations[i]);
	free(saved->generations);
	free(saved->snapshots);
	free(saved);
	return NULL;
}

static struct saved_service *saved_of(struct manager_service *s)
{
	if (!s->saved)
		s->saved = calloc(1, sizeof(*s->saved));
	return s->saved;
}

/* "s/web/", and what is to follow. */
static const char *key_of(const struct manager_service *s, char *ret, char kind, unsigned number)
{
	snprintf(ret, KEY_SIZE, "s/%s/%c%u", s->name, kind, number);
	return ret;
}

static const char *worker_key(
	const struct manager_service *s, char *ret, unsigned generation, unsigned worker)
{
	snprintf(ret, KEY_SIZE, "s/%s/w%u.%u", s->name, generation, worker);
	return ret;
}

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

/* --- snapshots ------------------------------------------------------------ */

static struct saved_snapshot *add_snapshot(struct saved_service *saved, unsigned n)
{
	if (array_reserve(&saved->snapshots, &saved->snapshots_capacity, saved->n_snapshots + 1,
		    sizeof(*saved->snapshots)) < 0)
		return NULL;
	saved->last_snapshot = MAX(saved->last_snapshot, n);
	saved->snapshots[saved->n_snapshots] = (struct saved_snapshot){.number = n};
	return &saved->snapshots[saved->n_snapshots++];
}

int state_snapshot_is_saved(struct manager_service *s, const struct snapshot *snap,
	unsigned directory, unsigned executable)
{
	struct saved_service *saved = saved_of(s);
	struct saved_snapshot *entry = saved ? add_snapshot(saved, snap->number) : NULL;

	if (!entry)
		return -ENOMEM;
	entry->directory = directory;
	entry->executable = executable;
	return 0;
}

static json_t *snapshot_value(const struct snapshot *snap, unsigned directory, unsigned executable)
{
	return json_pack("{s:o, s:o, s:o}", "snapshot", state_save(&state_table_snapshot, snap),
		"directory", number(directory), "executable", number(executable));
}

/* Its number in the state. */
static unsigned save_snapshot(struct manager_service *s, struct snapshot *snap)
{
	struct store *store = s->manager->store;
	struct saved_snapshot *entry;
	char key[KEY_SIZE];

	if (!snap)
		return 0;
	if (snap->number != 0)
		return snap->number;
	entry = add_snapshot(s->saved, s->saved->last_snapshot + 1);
	if (!entry)
		return 0;
	entry->directory = store_add(store, STORED_DIRECTORY, snap->directory_fd);
	entry->executable = store_add(store, STORED_EXECUTABLE, snap->exec_fd);
	snap->number = entry->number;
	store_set(store, key_of(s, key, 'p', snap->number),
		snapshot_value(snap, entry->directory, entry->executable));
	return snap->number;
}

void state_snapshot_changed(struct manager_service *s, const struct snapshot *snap)
{
	struct store *store = s->manager->store;
	char key[KEY_SIZE];

	for (size_t i = 0; s->saved && snap->number != 0 && i < s->saved->n_snapshots; i++) {
		const struct saved_snapshot *entry = &s->saved->snapshots[i];

		if (entry->number == snap->number)
			store_set(store, key_of(s, key, 'p', snap->number),
				snapshot_value(snap, entry->directory, entry->executable));
	}
}

static bool snapshot_is_used(const struct manager_service *s, unsigned n)
{
	for (size_t i = 0; i < s->n_generations; i++)
		if (s->generations[i]->snapshot->number == n)
			return true;
	for (size_t i = 0; i < s->n_history; i++)
		if (s->history[i].snapshot && s->history[i].snapshot->number == n)
			return true;
	return s->queued.snapshot && s->queued.snapshot->number == n;
}

static void drop_snapshots(struct manager_service *s, bool all)
{
	struct store *store = s->manager->store;
	struct saved_service *saved = s->saved;
	char key[KEY_SIZE];

	for (size_t i = 0; i < saved->n_snapshots;) {
		struct saved_snapshot *entry = &saved->snapshots[i];

		if (!all && snapshot_is_used(s, entry->number)) {
			i++;
			continue;
		}
		store_drop_number(store, STORED_DIRECTORY, entry->directory);
		store_drop_number(store, STORED_EXECUTABLE, entry->executable);
		store_set(store, key_of(s, key, 'p', entry->number), NULL);
		*entry = saved->snapshots[--saved->n_snapshots];
	}
}

/* --- generations and workers ---------------------------------------------- */

static void save_worker(struct manager_service *s, const struct generation *g, unsigned i)
{
	const struct store *store = s->manager->store;
	struct worker_process *p = manager_service_worker(s, g->number, i);
	json_t *value = json_pack("{s:o}", "core", state_save(&state_table_worker, &g->workers[i]));
	char key[KEY_SIZE];

	if (value && p) {
		(void)json_object_set_new(value, "process", state_save(&state_table_process, p));
		(void)json_object_set_new(value, "pidfd", number(store_number(store, p->pidfd)));
		(void)json_object_set_new(
			value, "notify", number(store_number(store, p->notify_fd)));
		(void)json_object_set_new(value, "ready", number(store_number(store, p->ready_fd)));
		(void)json_object_set_new(
			value, "channel", number(store_number(store, p->channel_fd)));
		(void)json_object_set_new(value, "output",
			number(p->output ? store_number(store, output_fd(p->output)) : 0));
		p->changed = false;
	}
	store_set(s->manager->store, worker_key(s, key, g->number, i), value);
}

static void save_workers(
	struct manager_service *s, const struct generation *g, struct saved_generation *before)
{
	char key[KEY_SIZE];

	if (before->capacity < g->n_workers) {
		struct worker *longer =
			realloc(before->workers, g->n_workers * sizeof(*before->workers));
		if (!longer)
			return;
		before->workers = longer;
		before->capacity = g->n_workers;
	}
	for (unsigned i = 0; i < g->n_workers; i++) {
		const struct worker_process *p = manager_service_worker(s, g->number, i);

		if (i < before->n_workers && (!p || !p->changed) &&
			memcmp(&before->workers[i], &g->workers[i], sizeof(g->workers[i])) == 0)
			continue;
		if (i >= before->n_workers || before->workers[i].state != g->workers[i].state)
			s->saved->worker_states |= 1u << g->workers[i].state;
		memcpy(&before->workers[i], &g->workers[i], sizeof(g->workers[i]));
		save_worker(s, g, i);
	}
	for (unsigned i = g->n_workers; i < before->n_workers; i++)
		store_set(s->manager->store, worker_key(s, key, g->number, i), NULL);
	before->n_workers = g->n_workers;
}

static struct saved_generation *find_saved(struct saved_service *saved, unsigned n)
{
	struct saved_generation *g;

	for (size_t i = 0; i < saved->n_generations; i++)
		if (saved->generations[i]->number == n)
			return saved->generations[i];
	if (array_reserve(&saved->generations, &saved->generations_capacity,
		    saved->n_generations + 1, sizeof(g)) < 0)
		return NULL;
	g = calloc(1, sizeof(*g));
	if (g)
		saved->generations[saved->n_generations++] = g;
	return g;
}

int state_generation_is_saved(struct manager_service *s, unsigned generation, unsigned n_workers)
{
	struct saved_service *saved = saved_of(s);
	struct saved_generation *g = saved ? find_saved(saved, generation) : NULL;

	if (!g)
		return -ENOMEM;
	g->workers = calloc(n_workers + 1, sizeof(*g->workers));
	if (!g->workers)
		return -ENOMEM;
	g->number = generation;
	g->n_workers = g->capacity = n_workers;
	return 0;
}

static void save_generation(struct manager_service *s, const struct generation *g)
{
	const struct manager_generation *real = manager_service_generation(s, g->number);
	struct saved_generation *before = find_saved(s->saved, g->number);
	char key[KEY_SIZE];

	if (!real || !before)
		return;
	if (before->number != g->number || before->serving_usec != real->serving_usec ||
		memcmp(&before->head, g, sizeof(*g)) != 0) {
		before->number = g->number;
		before->serving_usec = real->serving_usec;
		memcpy(&before->head, g, sizeof(*g));
		store_set(s->manager->store, key_of(s, key, 'g', g->number),
			json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "core",
				state_save(&state_table_generation, g), "cgroup",
				state_save_text(generation_cgroup_name(real)), "snapshot",
				number(save_snapshot(s, real->snapshot)), "requested_by",
				state_save_text(real->requested_by), "started",
				number(real->started_usec), "serving", number(real->serving_usec)));
	}
	save_workers(s, g, before);
}

static void forget_generations(struct manager_service *s)
{
	struct saved_service *saved = s->saved;
	char key[KEY_SIZE];

	for (size_t i = 0; i < saved->n_generations;) {
		struct saved_generation *g = saved->generations[i];

		if (service_generation(&s->core, g->number)) {
			i++;
			continue;
		}
		store_set(s->manager->store, key_of(s, key, 'g', g->number), NULL);
		for (unsigned k = 0; k < g->n_workers; k++)
			store_set(s->manager->store, worker_key(s, key, g->number, k), NULL);
		saved_generation_free(g);
		saved->generations[i] = saved->generations[--saved->n_generations];
	}
}

static bool same_steps(const struct rollout *a, const struct rollout *b)
{
	return a->n_steps == b->n_steps &&
	       memcmp(a->steps, b->steps, a->n_steps * sizeof(a->steps[0])) == 0;
}

static void save_core(struct manager_service *s)
{
	struct saved_service *saved = s->saved;
	char key[KEY_SIZE];

	/* A step need not end where the memory of its unused parts was. */
	if (saved->has_core && memcmp(&saved->core, &s->core, sizeof(s->core)) == 0)
		return;
	saved->phase = saved->core.rollout.phase != s->core.rollout.phase;
	if (!saved->has_core || !same_steps(&saved->core.rollout, &s->core.rollout)) {
		snprintf(key, sizeof(key), "s/%s/steps", s->name);
		store_set(s->manager->store, key, state_save(&state_table_steps, &s->core.rollout));
	}
	saved->has_core = true;
	memcpy(&saved->core, &s->core, sizeof(s->core));
	snprintf(key, sizeof(key), "s/%s/core", s->name);
	store_set(s->manager->store, key, state_save(&state_table_service, &s->core));
}

/* --- listeners ------------------------------------------------------------ */

static void save_listener(struct manager_service *s, unsigned id)
{
	struct listener *l = s->listeners[id];
	struct store *store = s->manager->store;
	char key[KEY_SIZE];

	(void)key_of(s, key, 'l', id);
	if (!l) {
		if (store_has(store, key))
			store_set(store, key, NULL);
		return;
	}
	inherit_look(l);
	if (!l->changed)
		return;
	l->changed = false;
	store_set(store, key, listener_save(l));
}

/* --- the rest of a service ------------------------------------------------ */

static json_t *save_config(const struct service_config *c)
{
	return c ? state_save(&state_table_service_config, c) : json_null();
}

static json_t *save_history(struct manager_service *s)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < s->n_history; i++) {
		json_t *entry = state_save(&state_table_history, &s->history[i]);

		if (entry)
			(void)json_object_set_new(entry, "snapshot",
				number(save_snapshot(s, s->history[i].snapshot)));
		(void)json_array_append_new(list, entry);
	}
	return list;
}

static json_t *save_queued(struct manager_service *s)
{
	struct pending_upgrade *q = &s->queued;

	if (!q->config)
		return json_null();
	return json_pack("{s:o, s:o, s:o, s:o}", "config", save_config(q->config), "snapshot",
		number(save_snapshot(s, q->snapshot)), "spec",
		state_save(&state_table_upgrade, &q->spec), "requested_by",
		state_save_text(q->requested_by));
}

static void save_meta(struct manager_service *s)
{
	char key[KEY_SIZE];

	snprintf(key, sizeof(key), "s/%s/meta", s->name);
	store_set(s->manager->store, key,
		json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:b}", "config",
			save_config(s->config), "before", save_config(s->config_before), "scaled",
			number(s->scaled), "queued", save_queued(s), "history", save_history(s),
			"failure", state_save(&state_table_failure, &s->failure), "trouble",
			state_save(&state_table_failure, &s->trouble), "asked", asked_save(s),
			"start_again", s->start_again, "holds_dead_socket", s->holds_dead_socket,
			"removing", s->removing));
	drop_snapshots(s, false);
	s->changed = false;
}

static void save_stored(struct manager_service *s)
{
	char key[KEY_SIZE];

	snprintf(key, sizeof(key), "s/%s/stored", s->name);
	store_set(s->manager->store, key, worker_store_save(s));
}

static void note_service(struct manager_service *s)
{
	if (!saved_of(s)) {
		log_error("%s: out of memory, its state is not saved", s->name);
		return;
	}
	if (!s->saved->has_core)
		s->changed = true;
	save_core(s);
	for (size_t i = 0; i < s->core.n_generations; i++)
		save_generation(s, s->core.generations[i]);
	forget_generations(s);
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		save_listener(s, id);
	if (worker_store_changed(s))
		save_stored(s);
	if (s->changed)
		save_meta(s);
}

void state_forget_service(struct manager_service *s)
{
	_cleanup_free_ char *prefix = NULL;

	if (!store_is_kept(s->manager->store) || !s->saved)
		return;
	drop_snapshots(s, true);
	prefix = xasprintf("s/%s/", s->name);
	if (prefix)
		store_forget(s->manager->store, prefix);
	manager_changed(s->manager);
}

void state_save_anew(struct manager_service *s)
{
	s->saved = saved_service_free(s->saved);
	s->changed = true;
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id])
			s->listeners[id]->changed = true;
	for (size_t i = 0; i < s->n_generations; i++)
		s->generations[i]->snapshot->number = 0;
	for (size_t i = 0; i < s->n_history; i++)
		if (s->history[i].snapshot)
			s->history[i].snapshot->number = 0;
	if (s->queued.snapshot)
		s->queued.snapshot->number = 0;
}

/* --- the manager ---------------------------------------------------------- */

static void read_boot_id(char ret[static 64])
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret, 63);

	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

static void note_manager(struct manager *m)
{
	const struct store *store = m->store;
	json_t *names = json_array();
	char boot[64];

	for (size_t i = 0; names && i < m->n_services; i++)
		(void)json_array_append_new(names, json_string(m->services[i]->name));
	read_boot_id(boot);
	m->sequences_reserved = m->next_sequence + SEQUENCES_AT_ONCE;
	store_set(m->store, "m",
		json_pack("{s:o, s:o, s:s, s:s, s:o, s:o, s:s, s:o*}", "services", names, "config",
			state_save(&state_table_config, m->config), "boot", boot, "instance",
			m->instance, "sequence", number(m->sequences_reserved), "control",
			number(m->control ? store_number(store, control_server_fd(m->control)) : 0),
			"control_path", m->control ? control_server_path(m->control) : "", "blind",
			blind_save(m->blind)));
	m->changed = false;
}

static const char *phase_name(enum rollout_phase phase)
{
	static const char *const names[] = {
		[ROLLOUT_NONE] = "none",
		[ROLLOUT_WAITING] = "waiting",
		[ROLLOUT_STOPPING_OLD] = "stopping-old",
		[ROLLOUT_STARTING] = "starting",
		[ROLLOUT_SOAKING] = "soaking",
		[ROLLOUT_SETTLING] = "settling",
		[ROLLOUT_RESTORING] = "restoring",
	};
	return names[phase];
}

static void pass_faults(struct manager_service *s)
{
	unsigned states = s->saved ? s->saved->worker_states : 0;
	bool phase = s->saved && s->saved->phase;

	if (s->saved) {
		s->saved->worker_states = 0;
		s->saved->phase = false;
	}
	if (!fault_is_on())
		return;
	if (phase)
		fault_point_of("rollout", phase_name(s->core.rollout.phase));
	for (unsigned i = 0; i < N_WORKER_STATES; i++)
		if (states & (1u << i))
			fault_point_of("worker", worker_state_to_string((enum worker_state)i));
}

static void commit(struct manager *m)
{
	if (m->changed || m->next_sequence >= m->sequences_reserved)
		note_manager(m);
	fault_point("save");
	store_commit(m->store);
	fault_point("saved");
}

void state_save_service(struct manager_service *s)
{
	if (!store_is_kept(s->manager->store) || s->manager->detached)
		return;
	note_service(s);
	commit(s->manager);
	pass_faults(s);
}

void state_save_all(struct manager *m)
{
	if (!store_is_kept(m->store) || m->detached)
		return;
	for (size_t i = 0; i < m->n_services; i++)
		note_service(m->services[i]);
	commit(m);
	for (size_t i = 0; i < m->n_services; i++)
		pass_faults(m->services[i]);
}

void state_save_later(struct manager *m)
{
	if (m->save_later)
		(void)sd_event_source_set_enabled(m->save_later, SD_EVENT_ONESHOT);
}

void manager_service_changed(struct manager_service *s)
{
	s->changed = true;
	state_save_later(s->manager);
}

void manager_changed(struct manager *m)
{
	m->changed = true;
	state_save_later(m);
}

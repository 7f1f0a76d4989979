/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/restore.h"

#include <fcntl.h>
#include <signal.h>

#include "daemon/cgroup.h"
#include "daemon/fault.h"
#include "daemon/log.h"
#include "daemon/reexec.h"
#include "daemon/restore_blind.h"
#include "daemon/state_save.h"
#include "daemon/state_tables.h"
#include "daemon/strays.h"
#include "daemon/worker_process.h"
#include "sys/listen.h"
#include "sys/process.h"
#include "sys/spawn.h"

bool restore_is_possible(const struct activation *received)
{
	/* The state; or sockets and workers without one. */
	static const char *const kinds[] = {"_s", "_l", "_p"};

	for (size_t i = 0; i < received->n; i++)
		for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
			if (startswith(received->sockets[i].name, kinds[k]))
				return true;
	return false;
}

/* --- the manager ---------------------------------------------------------- */

static bool is_of_this_boot(const json_t *record)
{
	const char *boot = json_string_value(json_object_get(record, "boot"));
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char now[64];
	ssize_t n = fd < 0 ? -1 : read(fd, now, sizeof(now) - 1);

	/* Times since boot, and pids, mean nothing in another one. */
	if (n < 0 || !boot)
		return n < 0;
	now[n] = '\0';
	now[strcspn(now, "\n")] = '\0';
	return streq(now, boot);
}

/* Everything but the services, which have theirs. */
static int load_manager_config(const json_t *record, struct config **ret)
{
	_cleanup_config_ struct config *c = config_new();
	int r = c ? state_load(&state_table_config, json_object_get(record, "config"), c) : -ENOMEM;

	if (r >= 0)
		*ret = TAKE_PTR(c);
	return r;
}

static void adopt_config(struct manager *m, struct config *config_take)
{
	if (m->config) {
		config_take->services = TAKE_PTR(m->config->services);
		config_take->n_services = m->config->n_services;
		config_take->files = TAKE_PTR(m->config->files);
		m->config->n_services = 0;
	}
	config_free(m->config);
	m->config = config_take;
}

static int load_manager(struct manager *m, const json_t *values)
{
	const json_t *record = json_object_get(values, "m"),
		     *names = json_object_get(record, "services");
	const char *instance = json_string_value(json_object_get(record, "instance"));
	_cleanup_config_ struct config *config = NULL;
	int r;

	if (!json_is_array(names) || !instance || strlen(instance) >= sizeof(m->instance))
		return -EBADMSG;
	if (!is_of_this_boot(record))
		return -ESTALE;
	r = load_manager_config(record, &config);
	memcpy(m->instance, instance, strlen(instance) + 1);
	m->next_sequence = MAX(state_get_u64(record, "sequence"), UINT64_C(1));
	for (size_t i = 0; r >= 0 && i < json_array_size(names); i++) {
		const char *name = json_string_value(json_array_get(names, i));

		r = name ? restore_service(m, name, values) : -EBADMSG;
	}
	if (r < 0)
		return r;
	reexec_load(m, values);
	m->control_fd = store_take(m->store, STORED_CONTROL, state_get_unsigned(record, "control"));
	adopt_config(m, TAKE_PTR(config));
	return 0;
}

/* Nothing of it is closed for anybody else. */
static void take_back(struct manager *m)
{
	m->detached = true;
	for (size_t i = 0; i < m->n_services; i++)
		manager_service_free(m->services[i]);
	m->n_services = 0;
	m->blind = blind_free(m->blind);
	m->detached = false;
	m->next_sequence = 1;
	m->instance[0] = '\0';
	store_take_back(m->store);
}

static bool is_inode(int fd, uint64_t inode)
{
	uint64_t found;

	return fd >= 0 && socket_inode(fd, &found) >= 0 && found == inode;
}

/* Is it one that is in use, held under another name too? */
static bool is_in_use(const struct manager *m, int fd)
{
	uint64_t inode;

	if (socket_inode(fd, &inode) < 0)
		return false;
	for (size_t i = 0; i < m->n_services; i++)
		for (unsigned id = 0; id < ARRAY_SIZE(m->services[i]->listeners); id++) {
			const struct listener *l = m->services[i]->listeners[id];

			for (size_t k = 0; l && k < l->lanes.n; k++)
				if (is_inode(l->lanes.sockets[k].fd, inode))
					return true;
		}
	return false;
}

/* Made by the earlier daemon just before its end, and given to nobody. Or the keeper was not told
 * any more that it is stored anew. */
static void discard_listeners(struct manager *m)
{
	unsigned number;
	int fd;

	while ((fd = store_take_any(m->store, STORED_LISTENER, &number)) >= 0) {
		store_drop(m->store, fd);
		if (is_in_use(m, fd))
			close_fd(fd);
		else
			listen_shutdown_take(&fd);
	}
}

/* Now that every socket in a group is one that the model has. */
static int finish_listeners(struct manager *m)
{
	int r = 0;

	for (size_t i = 0; i < m->n_services; i++)
		for (unsigned id = 0; r >= 0 && id < ARRAY_SIZE(m->services[i]->listeners); id++)
			if (m->services[i]->listeners[id])
				r = listener_restore_finish(m->services[i]->listeners[id]);
	return r;
}

int restore_manager(struct manager *m, struct error *ret_error)
{
	json_t *values = NULL;
	int r = store_load(m->store, &values, ret_error);

	if (r == -ENODATA && !ret_error->code)
		return 0;
	if (r < 0)
		return r;
	fault_point("restore");
	r = load_manager(m, values);
	if (r >= 0 && !m->trial)
		r = blind_restore(m, json_object_get(json_object_get(values, "m"), "blind"));
	json_decref(values);
	if (r >= 0) {
		discard_listeners(m);
		r = finish_listeners(m);
	}
	if (r < 0) {
		take_back(m);
		store_give_up_state(m->store);
		return error_set(ret_error, r, "the saved state is not used: %s",
			r == -EBADMSG  ? "what it says cannot be"
			: r == -ESTALE ? "it is of another boot"
				       : strerror(-r));
	}
	m->restored = true;
	return 1;
}

/* --- going on ------------------------------------------------------------- */

/* What was being told when the earlier daemon died is told to the history at least. */
static void mend_history(struct manager_service *s)
{
	struct manager_generation *serving = manager_service_generation(s, s->core.current);
	bool good = s->core.current == s->core.rollout.to;

	manager_service_mend_outcome(s);
	for (size_t i = 0; i < s->n_history; i++)
		if (serving && s->history[i].generation == s->core.current &&
			s->history[i].serving_usec == 0) {
			s->history[i].was_good = true;
			s->history[i].serving_usec = serving->serving_usec = realtime_now();
		}
	if (s->core.rollout.phase == ROLLOUT_NONE && s->config_before)
		manager_service_rollout_ended(s, good);
}

static unsigned count_workers(const struct manager *m)
{
	unsigned n = 0;

	for (size_t i = 0; i < m->n_services; i++)
		for (size_t k = 0; k < m->services[i]->n_generations; k++)
			for (unsigned w = 0; w < m->services[i]->generations[k]->n_workers; w++) {
				const struct worker_process *p =
					m->services[i]->generations[k]->workers[w];
				n += p && p->pid != 0;
			}
	return n;
}

static void finish_workers(struct manager_service *s)
{
	for (size_t i = 0; i < s->n_generations; i++)
		for (unsigned k = 0; k < s->generations[i]->n_workers; k++)
			if (s->generations[i]->workers[k])
				worker_restore_finish(s->generations[i]->workers[k]);
}

/* It has stopped, or was to be started (again), and nobody did it. What was given up stays so. */
static void finish_idle(struct manager_service *s)
{
	_cleanup_error_ struct error error = ERROR_NULL;

	if (s->core.n_generations > 0)
		return;
	if ((s->core.wanted && !s->core.gave_up) || s->start_again) {
		s->start_again = false;
		s->changed = true;
		if (manager_service_start(s, "start of the daemon", &error) != 0)
			log_error("%s", error_message(&error));
		return;
	}
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		s->listeners[id] = listener_close(s->listeners[id]);
}

/* Stored just before the earlier daemon's end, and in nobody's record. Those that a worker's record
 * led to all the same are known by now. */
static void end_unknown(struct manager *m)
{
	unsigned number;
	int fd;

	while ((fd = store_take_any(m->store, STORED_PIDFD, &number)) >= 0) {
		pid_t pid;

		if (process_of_pidfd(fd, &pid) >= 0 && !manager_is_worker(m, pid) &&
			spawn_signal(fd, SIGKILL) >= 0)
			log_warning("killed a process (pid %d) that an earlier daemon had started, "
				    "and for which there is no place",
				(int)pid);
		store_drop(m->store, fd);
		close_fd(fd);
	}
	(void)store_discard_rest(m->store);
}

void restore_resume(struct manager *m)
{
	uint64_t begin = manager_now(m);
	unsigned strays;

	for (size_t i = 0; i < m->n_services; i++) {
		m->services[i]->in_step =
			true; /* what has ended is told when everything is there */
		finish_workers(m->services[i]);
	}
	end_unknown(m);
	strays_kill_checks(m);
	for (size_t i = 0; i < m->n_services; i++) {
		struct manager_service *s = m->services[i];

		s->in_step = false;
		mend_history(s);
		if (manager_service_resume(s) < 0)
			log_error("%s: out of memory, it does not go on", s->name);
		manager_service_drop_unused_listeners(s);
		finish_idle(s);
	}
	strays = strays_kill_orphaned(m);
	cgroups_sweep(m, !m->blind);
	log_notice("went on with %u workers of %zu services that an earlier daemon had started%s",
		count_workers(m), m->n_services,
		strays > 0 ? "; killed what it had left behind" : "");
	log_debug("that took %llu us", (unsigned long long)(manager_now(m) - begin));
	fault_point("restored");
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A worker that another daemon started. */
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>

#include "daemon/cgroup.h"
#include "daemon/log.h"
#include "daemon/output.h"
#include "daemon/restore.h"
#include "daemon/state_tables.h"
#include "daemon/worker_channel.h"
#include "daemon/worker_process.h"
#include "daemon/worker_ready_fd.h"
#include "sys/notify_socket.h"
#include "sys/process.h"

/* By its pid alone, when its pidfd was not stored: it must have been started when the state says.
 */
static int open_pidfd(struct worker_process *p)
{
	_cleanup_close_ int fd = -1;
	uint64_t started;

	if (p->pid <= 0 || p->started == 0)
		return -1;
	fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	if (fd < 0 || process_start_time(p->pid, &started) < 0 || started != p->started)
		return -1;
	(void)store_add(p->service->manager->store, STORED_PIDFD, fd);
	return TAKE_FD(fd);
}

static void restore_notify(struct worker_process *p, unsigned number)
{
	struct store *store = p->service->manager->store;

	p->notify_fd = store_take(store, STORED_NOTIFY, number);
	if (p->notify_fd >= 0 || !p->notify_address || p->pid == 0)
		return;
	p->notify_fd = notify_socket_reopen(p->notify_address);
	if (p->notify_fd >= 0)
		(void)store_add(store, STORED_NOTIFY, p->notify_fd);
}

static void restore_output(
	struct worker_process *p, const struct manager_generation *g, unsigned number)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct manager *m = p->service->manager;
	const struct service_config *c = &g->snapshot->config;
	enum output_kind kind = c->output;
	int fd = store_take(m->store, STORED_OUTPUT, number);

	if (fd < 0)
		return;
	if (!c->output_set)
		kind = log_is_journal() ? OUTPUT_JOURNAL : OUTPUT_TEE;
	if (output_restore_take(m->outputs, kind, c->output_file, p->service->name, p->generation,
		    p->index, &fd, &p->output, &error) < 0) {
		log_error("%s", error_message(&error));
		store_drop(m->store, fd);
		close_fd(fd);
	}
}

int worker_restore(
	struct manager_service *s, unsigned generation, unsigned index, const json_t *value)
{
	struct manager_generation *g = manager_service_generation(s, generation);
	const json_t *process = json_object_get(value, "process");
	struct worker_process *p;
	pid_t parent;
	int r;

	if (!process)
		return 0;
	p = g->workers[index] = worker_process_new(s, generation, index);
	if (!p)
		return -ENOMEM;
	r = state_load(&state_table_process, process, p);
	if (r < 0)
		return r;
	if (p->pid < 0 || p->pgid < 0 || p->main_pid < 0)
		return -EBADMSG;
	if (s->manager->trial)
		return 0;
	restore_notify(p, state_get_unsigned(value, "notify"));
	worker_ready_fd_restore(p, state_get_unsigned(value, "ready"));
	worker_channel_restore(p, state_get_unsigned(value, "channel"));
	restore_output(p, g, state_get_unsigned(value, "output"));
	if (p->pid == 0)
		return 0;
	p->pidfd = store_take(s->manager->store, STORED_PIDFD, state_get_unsigned(value, "pidfd"));
	if (p->pidfd < 0)
		p->pidfd = open_pidfd(p);
	/* After an exec of ours they are our children still. */
	p->foreign = process_parent(p->pid, &parent) < 0 || parent != getpid();
	return 0;
}

/* --- the one that nobody has written down --------------------------------- */

static bool leads_group(pid_t pid)
{
	return getpgid(pid) == pid;
}

/* Anybody can have such an environment. Ours are in our cgroups; where there are none, they are of
 * the service's user (or still of ours) and were left to somebody above us. */
static bool may_be_ours(const struct worker_process *p, pid_t pid)
{
	const struct manager_generation *g = manager_service_generation(p->service, p->generation);
	int inside = cgroups_has(p->service->manager->cgroups, pid);
	pid_t parent;
	uid_t uid;

	if (inside >= 0)
		return inside > 0;
	if (process_uid(pid, &uid) < 0 || process_parent(pid, &parent) < 0)
		return false;
	return (uid == geteuid() || (g->snapshot->set_user && uid == g->snapshot->user.uid)) &&
	       process_is_descendant(getpid(), parent);
}

/* Its children have its notify socket in their environment too, but it leads the group; of those
 * that began one of their own it is the oldest. */
static pid_t find_leader(const struct worker_process *p)
{
	_cleanup_free_ pid_t *pids = NULL;
	uint64_t oldest = UINT64_MAX, started;
	pid_t leader = 0;
	size_t n = 0;

	if (process_find_by_environment("NOTIFY_SOCKET", p->notify_address, &pids, &n) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (!leads_group(pids[i]) || process_is_zombie(pids[i]) ||
			!may_be_ours(p, pids[i]) || process_start_time(pids[i], &started) < 0 ||
			started > oldest || (started == oldest && pids[i] > leader))
			continue;
		oldest = started;
		leader = pids[i];
	}
	return leader;
}

static void adopt_unknown(struct worker_process *p)
{
	const struct timespec moment = {.tv_nsec = 5000000};
	struct manager *m = p->service->manager;
	pid_t pid = find_leader(p);

	/* It may have been just before its exec, with nothing to know it by. */
	if (pid == 0) {
		(void)nanosleep(&moment, NULL);
		pid = find_leader(p);
	}
	if (pid == 0)
		return;
	p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p->pidfd < 0)
		return;
	p->pid = p->main_pid = p->pgid = pid;
	p->foreign = true;
	p->spawned_usec = manager_now(m);
	p->changed = true;
	if (process_start_time(pid, &p->started) < 0)
		p->started = 0;
	(void)store_add(m->store, STORED_PIDFD, p->pidfd);
	log_notice("%s: worker %u of generation %u (pid %d) had been started just before; found",
		p->service->name, p->index, p->generation, (int)pid);
}

void worker_restore_finish(struct worker_process *p)
{
	const struct manager_generation *g = manager_service_generation(p->service, p->generation);
	const struct generation *core = service_generation(&p->service->core, p->generation);
	uint64_t watchdog = p->watchdog_usec ? p->watchdog_usec : g->snapshot->config.watchdog_usec;
	int r;

	if (p->pid == 0 && p->notify_address && core && p->index < core->n_workers &&
		worker_state_has_process(core->workers[p->index].state))
		adopt_unknown(p);
	if (p->pid == 0)
		return;
	if (p->pidfd < 0) {
		worker_process_ended(p, EXIT_CODE_UNKNOWN, 0);
		return;
	}
	/* One that has ended says so at once. */
	r = worker_process_watch(p, watchdog);
	if (r < 0)
		log_error("%s: watching worker %u of generation %u: %s", p->service->name, p->index,
			p->generation, strerror(-r));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/worker_process.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/dialect.h"
#include "daemon/adopt.h"
#include "daemon/cgroup.h"
#include "daemon/log.h"
#include "daemon/output.h"
#include "daemon/fault.h"
#include "daemon/ready.h"
#include "daemon/sandbox.h"
#include "daemon/state_save.h"
#include "daemon/worker_channel.h"
#include "daemon/worker_handoff.h"
#include "daemon/worker_ready_fd.h"
#include "sys/notify_socket.h"
#include "sys/process.h"
#include "sys/spawn.h"

/* How long a parent may take to reap a process that has ended. */
#define LOOK_AGAIN_USEC (2 * USEC_PER_MSEC)
enum { EXIT_LOOKS_MAX = 50 };

struct worker_process *worker_process_new(
	struct manager_service *s, unsigned generation, unsigned index)
{
	struct worker_process *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	*p = (struct worker_process){.service = s,
		.generation = generation,
		.index = index,
		.pidfd = -1,
		.notify_fd = -1,
		.ready_fd = -1,
		.channel_fd = -1};
	return p;
}

static sd_event_source *source_drop(sd_event_source *source)
{
	if (source)
		sd_event_source_disable_unref(source);
	return NULL;
}

/* What belongs to the process that is gone; exit status and output stay until the next one. */
static void forget_process(struct worker_process *p)
{
	struct store *store = p->service->manager->store;

	p->ready = ready_watch_free(p->ready);
	p->exit_source = source_drop(p->exit_source);
	p->exit_timer = source_drop(p->exit_timer);
	p->notify_source = source_drop(p->notify_source);
	p->watchdog_source = source_drop(p->watchdog_source);
	worker_ready_fd_done(p);
	worker_channel_done(p);
	if (!p->service->manager->detached) {
		store_drop(store, p->notify_fd);
		store_drop(store, p->pidfd);
	}
	p->notify_fd = close_fd(p->notify_fd);
	p->pidfd = close_fd(p->pidfd);
	p->pid = p->main_pid = p->pgid = 0;
	p->started = 0;
	p->exit_looks = 0;
	p->said_ready = p->wrote_ready = p->told_main_pid = p->told_to_go = p->foreign = false;
	p->memory = p->memory_exact_usec = 0;
	p->changed = true;
	free(p->notify_address);
	p->notify_address = NULL;
	free(p->status);
	p->status = NULL;
}

static void drop_output(struct worker_process *p)
{
	if (p->output && !p->service->manager->detached)
		store_drop(p->service->manager->store, output_fd(p->output));
	p->output = output_free(p->output);
}

struct worker_process *worker_process_free(struct worker_process *p)
{
	if (!p)
		return NULL;
	forget_process(p);
	drop_output(p);
	free(p->spawn_failure);
	free(p);
	return NULL;
}

int worker_process_tree(const struct worker_process *p, pid_t **ret, size_t *ret_n)
{
	if (p->pid == 0)
		return -ESRCH;
	return process_descendants(p->pid, false, ret, ret_n);
}

/* To its group. That is named by its leader; a child is not reaped before on_exit_event() has run,
 * so the group cannot be a stranger's. Somebody else's child can be: then whoever is in the group
 * must have this worker's notify socket in its environment. */
static void signal_group(struct worker_process *p, int signal)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;

	if (!p->foreign || (p->pid == p->pgid && spawn_signal(p->pidfd, 0) >= 0)) {
		(void)spawn_signal_group(p->pgid, signal);
		return;
	}
	if (p->pgid <= 1 || !p->notify_address || process_find_group(p->pgid, &pids, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *address = NULL;

		if (process_environment(pids[i], "NOTIFY_SOCKET", &address) >= 0 &&
			streq(address, p->notify_address))
			(void)kill(pids[i], signal);
	}
}

void worker_process_changed(struct worker_process *p)
{
	p->changed = true;
	state_save_later(p->service->manager);
}

void worker_process_signal(struct worker_process *p, int signal, bool group)
{
	if (p->pid == 0)
		return;
	if (group && p->pgid > 1)
		signal_group(p, signal);
	else if (p->main_pid != p->pid && process_is_descendant(p->main_pid, p->pid))
		(void)kill(p->main_pid, signal);
	else
		(void)spawn_signal(p->pidfd, signal);
}

void worker_process_kill(struct worker_process *p)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;

	if (p->pid == 0)
		return;
	/* Those that left the group by setsid() are found by their parents; look before the parents
	 * die. */
	(void)worker_process_tree(p, &pids, &n);
	signal_group(p, SIGKILL);
	(void)spawn_signal(p->pidfd, SIGKILL);
	for (size_t i = 0; i < n; i++)
		(void)kill(pids[i], SIGKILL);
	generation_cgroup_kill(manager_service_generation(p->service, p->generation), p->index);
}

char *worker_exit_to_string(int code, int status)
{
	if (code == EXIT_CODE_UNKNOWN)
		return strdup("status unknown: not started by this daemon");
	if (code == CLD_EXITED)
		return xasprintf("exit status %d", status);
	return xasprintf("signal %d (%s)%s", status, strsignal(status),
		code == CLD_DUMPED ? ", core dumped" : "");
}

char *worker_process_describe_exit(const struct worker_process *p)
{
	if (p->exit_code == 0)
		return p->pid ? strdup("running") : NULL;
	if (p->short_of_memory)
		return strdup("killed by the kernel for want of memory (signal 9); see memory_max "
			      "of its service and of the unit");
	return worker_exit_to_string(p->exit_code, p->exit_status);
}

static int on_exit_event(sd_event_source *source, const siginfo_t *si, void *userdata);
static int on_foreign_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata);

static int watch_exit(struct worker_process *p)
{
	sd_event *event = p->service->manager->event;
	int r;

	if (p->foreign)
		r = sd_event_add_io(event, &p->exit_source, p->pidfd, EPOLLIN, on_foreign_exit, p);
	else
		r = sd_event_add_child_pidfd(
			event, &p->exit_source, p->pidfd, WEXITED, on_exit_event, p);
	return r < 0 ? r : sd_event_source_set_priority(p->exit_source, PRIORITY_CHILD);
}

/* For the next daemon: the process as it is now. */
static void note_process(struct worker_process *p)
{
	struct store *store = p->service->manager->store;

	p->changed = true;
	if (!store_is_kept(store))
		return;
	if (process_start_time(p->pid, &p->started) < 0)
		p->started = 0;
	(void)store_add(store, STORED_PIDFD, p->pidfd);
}

/* The program went to the background and said where (MAINPID=): its main process is our child now,
 * because we are the subreaper of what our workers leave. False: that one is gone too, or it is
 * somebody else's child, whose end the loop could not wait for. */
static bool adopt_main(struct worker_process *p)
{
	sd_event_source *before = p->exit_source;
	bool was_foreign = p->foreign;
	int fd = (int)syscall(SYS_pidfd_open, p->main_pid, 0), before_fd = p->pidfd;
	pid_t parent, before_pid = p->pid, pgid;

	if (fd < 0)
		return false;
	/* Only a group of its own, or the one its worker was given, may be signalled as a whole: it
	 * can have joined any group of the session, also ours. */
	pgid = getpgid(p->main_pid);
	if (pgid != p->main_pid && pgid != p->pgid)
		pgid = 0;
	/* What another daemon's worker left is not ours either, but we know how to wait for it. */
	if (process_parent(p->main_pid, &parent) < 0 || (parent != getpid() && !p->foreign) ||
		manager_is_worker(p->service->manager, p->main_pid)) {
		close_fd(fd);
		return false;
	}
	p->exit_source = NULL;
	p->pidfd = fd;
	p->pid = p->main_pid;
	p->foreign = parent != getpid();
	if (watch_exit(p) < 0) {
		p->exit_source = source_drop(p->exit_source);
		close_fd(fd);
		p->exit_source = before;
		p->pidfd = before_fd;
		p->pid = before_pid;
		p->foreign = was_foreign;
		return false;
	}
	p->pgid = pgid;
	source_drop(before);
	store_drop(p->service->manager->store, before_fd);
	close_fd(before_fd);
	note_process(p);
	return true;
}

void worker_process_ended(struct worker_process *p, int code, int status)
{
	struct service_event event = {
		.kind = EVENT_EXITED,
		.generation = p->generation,
		.worker = p->index,
		.value = code == CLD_EXITED && status == 0,
	};

	/* What it said last is still in its sockets, and what it wrote in its output. */
	if (p->notify_fd >= 0)
		(void)worker_notify_dispatch(NULL, p->notify_fd, 0, p);
	worker_channel_catch_up(p);
	if (p->output)
		output_catch_up(p->output);
	adopt_ended(p->service, p->generation);
	/* Of its descendants only its group can still be told from others: the rest are our own
	 * children by now. */
	signal_group(p, SIGKILL);
	p->exit_code = code;
	p->exit_status = status;
	p->short_of_memory =
		code == CLD_KILLED && status == SIGKILL &&
		generation_cgroup_was_short(manager_service_generation(p->service, p->generation));
	p->exit_source = source_drop(p->exit_source);
	manager_service_note_trouble(p->service, p, p->generation, p->index, NULL);
	forget_process(p);
	/* Whoever waits behind it to be reaped. */
	manager_check_stopped(p->service->manager);
	(void)manager_service_event(p->service, &event);
}

static int on_exit_timer(sd_event_source *source, uint64_t usec, void *userdata);

/* Somebody else's child has ended. How, the kernel tells when it is reaped, which is its parent's
 * business and takes a moment. */
static void look_at_foreign_exit(struct worker_process *p)
{
	int code = EXIT_CODE_UNKNOWN, status = 0, r;

	r = process_exit_status(p->pidfd, &code, &status);
	if (r == -EAGAIN && p->exit_looks++ < EXIT_LOOKS_MAX) {
		if (p->exit_timer) {
			(void)sd_event_source_set_time_relative(p->exit_timer, LOOK_AGAIN_USEC);
			r = sd_event_source_set_enabled(p->exit_timer, SD_EVENT_ONESHOT);
		} else {
			r = sd_event_add_time_relative(p->service->manager->event, &p->exit_timer,
				CLOCK_MONOTONIC, LOOK_AGAIN_USEC, 1, on_exit_timer, p);
			if (r >= 0)
				r = sd_event_source_set_priority(p->exit_timer, PRIORITY_CHILD);
		}
		if (r >= 0)
			return;
	}
	worker_process_ended(p, code, status);
}

static int on_exit_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	look_at_foreign_exit(userdata);
	return 0;
}

static int on_foreign_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct worker_process *p = userdata;

	(void)fd;
	(void)revents;
	if (p->main_pid != p->pid && adopt_main(p))
		return 0;
	(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	look_at_foreign_exit(p);
	return 0;
}

/* The leader has ended but is not reaped (sd-event does that when we return): its pid, and so its
 * group, is still its own. */
static int on_exit_event(sd_event_source *source, const siginfo_t *si, void *userdata)
{
	struct worker_process *p = userdata;

	(void)source;
	if (p->main_pid != p->pid && adopt_main(p))
		return 0;
	worker_process_ended(p, si->si_code, si->si_status);
	return 0;
}

static int on_watchdog(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct worker_process *p = userdata;
	struct service_event event = {
		.kind = EVENT_WATCHDOG, .generation = p->generation, .worker = p->index};

	(void)source;
	(void)usec;
	manager_service_note_trouble(p->service, p, p->generation, p->index, "missed its watchdog");
	(void)manager_service_event(p->service, &event);
	return 0;
}

static int prepare_notify(struct worker_process *p)
{
	struct manager *m = p->service->manager;
	int r;

	r = notify_socket_open(&p->notify_fd, &p->notify_address);
	if (r < 0)
		return r;
	(void)store_add(m->store, STORED_NOTIFY, p->notify_fd);
	return 0;
}

static int watch_notify(struct worker_process *p)
{
	int r = sd_event_add_io(p->service->manager->event, &p->notify_source, p->notify_fd,
		EPOLLIN, worker_notify_dispatch, p);

	return r < 0 ? r : sd_event_source_set_priority(p->notify_source, PRIORITY_NOTIFY);
}

int worker_process_watch(struct worker_process *p, uint64_t watchdog_usec)
{
	struct manager *m = p->service->manager;
	int r = p->notify_fd >= 0 ? watch_notify(p) : 0;

	if (r >= 0)
		r = worker_ready_fd_watch(p);
	if (r >= 0)
		r = watch_exit(p);
	if (r < 0)
		return r;
	p->watchdog_usec = watchdog_usec;
	r = worker_channel_watch(p);
	if (r < 0)
		return r;
	if (watchdog_usec == 0)
		return 0;
	r = sd_event_add_time_relative(
		m->event, &p->watchdog_source, CLOCK_MONOTONIC, watchdog_usec, 0, on_watchdog, p);
	if (r < 0)
		return r;
	return sd_event_source_set_priority(p->watchdog_source, PRIORITY_TIMER);
}

static void bind_to_cpus(struct worker_process *p, const struct service_config *c, cpu_set_t *ret)
{
	p->bound = manager_cpus_of_worker(c, p->index, &p->cpus);
	CPU_ZERO(ret);
	for (unsigned cpu = 0; p->bound && cpu < CPU_SET_MAX && cpu < CPU_SETSIZE; cpu++)
		if (cpu_set_has(&p->cpus, cpu))
			CPU_SET(cpu, ret);
}

static int affinity_error(const struct worker_process *p, int r, struct error *ret_error)
{
	_cleanup_free_ char *wanted = cpu_set_format(&p->cpus), *there = NULL;
	struct cpu_set own;

	manager_cpus(&own);
	there = cpu_set_format(&own);
	return error_set_errno(ret_error, r,
		"%s: worker %u of generation %u: cpu_affinity: %s: no such CPU; name some of %s, "
		"which tenured itself may use, or say per-worker",
		p->service->name, p->index, p->generation, wanted ? wanted : "?",
		there ? there : "?");
}

static enum sandbox_act act_of(enum spawn_step step)
{
	switch ((int)step) {
	case SPAWN_GROUP:
	case SPAWN_GROUPS:
	case SPAWN_USER:
		return SANDBOX_BECOME;
	case SPAWN_LIMITS:
		return SANDBOX_LIMIT;
	case SPAWN_EXEC:
	case SPAWN_DIRECTORY:
		return SANDBOX_FILE;
	default:
		return SANDBOX_PROCESS;
	}
}

static int spawn_error(const struct worker_process *p, const struct snapshot *snap,
	const struct spawn_result *result, int r, struct error *ret_error)
{
	const char *what = result->failed_at == SPAWN_EXEC	  ? snap->executable
			   : result->failed_at == SPAWN_DIRECTORY ? snap->directory
								  : "";

	if (result->failed_at == SPAWN_AFFINITY)
		return affinity_error(p, r, ret_error);
	error_set_errno(ret_error, r, "%s: worker %u of generation %u: %s %s", p->service->name,
		p->index, p->generation, spawn_step_to_string(result->failed_at), what);
	return sandbox_explain(ret_error, r, act_of(result->failed_at), *what ? what : NULL);
}

/* Descriptors 1 and 2. ret_fd: what they are made of, to be closed when the process has them. */
static int prepare_output(struct worker_process *p, const struct service_config *c,
	struct worker_handoff *h, int *ret_fd, struct error *ret_error)
{
	enum output_kind output = c->output;
	int r, out = STDOUT_FILENO, err = STDERR_FILENO;

	if (!c->output_set)
		output = log_is_journal() ? OUTPUT_JOURNAL : OUTPUT_TEE;
	if (output != OUTPUT_INHERIT) {
		r = output_new(p->service->manager->outputs, output, c->output_file,
			p->service->name, p->generation, p->index, &p->output, ret_fd, ret_error);
		if (r < 0)
			return r;
		(void)store_add(p->service->manager->store, STORED_OUTPUT, output_fd(p->output));
		out = err = *ret_fd;
	}
	h->fds[h->n_fds++] = (struct spawn_fd){out, STDOUT_FILENO};
	h->fds[h->n_fds++] = (struct spawn_fd){err, STDERR_FILENO};
	return 0;
}

int worker_process_spawn(
	struct worker_process *p, const struct manager_generation *g, struct error *ret_error)
{
	const struct snapshot *snap = g->snapshot;
	const struct service_config *c = &snap->config;
	_cleanup_handoff_ struct worker_handoff h = WORKER_HANDOFF_NULL;
	_cleanup_close_ int write_fd = -1;
	struct spawn_result result;
	cpu_set_t cpus;
	int r;

	forget_process(p);
	drop_output(p);
	p->exit_code = 0;
	free(p->spawn_failure);
	p->spawn_failure = NULL;
	r = prepare_notify(p);
	if (r < 0)
		return error_set_errno(
			ret_error, r, "%s: notify socket of worker %u", p->service->name, p->index);
	r = worker_handoff_prepare(p, g, &h, ret_error);
	if (r >= 0)
		r = prepare_output(p, c, &h, &write_fd, ret_error);
	if (r < 0)
		return r;
	bind_to_cpus(p, c, &cpus);
	/* If we are killed now, the next one looks for a process with this notify socket. */
	state_save_service(p->service);
	fault_point("spawn");
	r = generation_cgroup_spawn(g, p->index,
		&(struct spawn_request){
			.argv = h.argv ? h.argv : snap->argv,
			.path = snap->executable,
			.exec_fd = snap->exec_fd,
			.envp = h.environment,
			.listen_pid = dialect_needs_pid(c->handoff),
			.fds = h.fds,
			.n_fds = h.n_fds,
			.directory_fd = snap->directory_fd,
			.directory = NULL,
			.set_user = snap->set_user,
			.uid = snap->user.uid,
			.gid = snap->user.gid,
			.groups = snap->user.groups,
			.n_groups = snap->user.n_groups,
			.limits = snap->limits,
			.n_limits = snap->n_limits,
			.cpus = p->bound ? &cpus : NULL,
		},
		&result);
	if (r < 0)
		return spawn_error(p, snap, &result, r, ret_error);
	p->pid = p->main_pid = p->pgid = result.pid;
	p->pidfd = result.pidfd;
	p->spawned_usec = manager_now(p->service->manager);
	note_process(p);
	fault_point("spawned");
	state_save_service(p->service);
	fault_point("spawn-saved");
	r = worker_process_watch(p, c->watchdog_usec);
	if (r < 0) {
		worker_process_kill(p);
		/* Reaped as an orphan. */
		forget_process(p);
		return error_set_errno(
			ret_error, r, "%s: watching worker %u", p->service->name, p->index);
	}
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/worker_process.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "daemon/log.h"
#include "daemon/output.h"
#include "daemon/ready.h"
#include "sys/notify_socket.h"
#include "sys/process.h"
#include "sys/spawn.h"

/* The listeners' descriptors, 0-2, and nothing else. */
enum { SPAWN_FDS_MAX = CONFIG_LISTENERS_MAX + 3 };

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
		.notify_fd = -1};
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
	p->ready = ready_watch_free(p->ready);
	p->exit_source = source_drop(p->exit_source);
	p->notify_source = source_drop(p->notify_source);
	p->watchdog_source = source_drop(p->watchdog_source);
	p->notify_fd = close_fd(p->notify_fd);
	p->pidfd = close_fd(p->pidfd);
	p->pid = p->main_pid = p->pgid = 0;
	p->said_ready = p->told_main_pid = false;
	p->memory = p->memory_exact_usec = 0;
	free(p->notify_address);
	p->notify_address = NULL;
	free(p->status);
	p->status = NULL;
}

struct worker_process *worker_process_free(struct worker_process *p)
{
	if (!p)
		return NULL;
	forget_process(p);
	output_free(p->output);
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

void worker_process_signal(struct worker_process *p, int signal, bool group)
{
	if (p->pid == 0)
		return;
	/* The group is named by its leader, who is not reaped before on_exit() has run: it cannot
	 * be a stranger's. */
	if (group)
		(void)spawn_signal_group(p->pgid, signal);
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
	(void)spawn_signal_group(p->pgid, SIGKILL);
	(void)spawn_signal(p->pidfd, SIGKILL);
	for (size_t i = 0; i < n; i++)
		(void)kill(pids[i], SIGKILL);
}

char *worker_exit_to_string(int code, int status)
{
	if (code == CLD_EXITED)
		return xasprintf("exit status %d", status);
	return xasprintf("signal %d (%s)%s", status, strsignal(status),
		code == CLD_DUMPED ? ", core dumped" : "");
}

char *worker_process_describe_exit(const struct worker_process *p)
{
	if (p->exit_code == 0)
		return p->pid ? strdup("running") : NULL;
	return worker_exit_to_string(p->exit_code, p->exit_status);
}

static int on_exit_event(sd_event_source *source, const siginfo_t *si, void *userdata);

static int watch_exit(struct worker_process *p)
{
	int r = sd_event_add_child_pidfd(
		p->service->manager->event, &p->exit_source, p->pidfd, WEXITED, on_exit_event, p);

	return r < 0 ? r : sd_event_source_set_priority(p->exit_source, PRIORITY_CHILD);
}

/* The program went to the background and said where (MAINPID=): its main process is our child now,
 * because we are the subreaper of what our workers leave. False: that one is gone too, or it is
 * somebody else's child, whose end the loop could not wait for. */
static bool adopt_main(struct worker_process *p)
{
	sd_event_source *before = p->exit_source;
	int fd = (int)syscall(SYS_pidfd_open, p->main_pid, 0), before_fd = p->pidfd;
	pid_t parent, before_pid = p->pid, pgid;

	if (fd < 0)
		return false;
	/* Only a group of its own, or the one its worker was given, may be signalled as a whole: it
	 * can have joined any group of the session, also ours. */
	pgid = getpgid(p->main_pid);
	if (pgid != p->main_pid && pgid != p->pgid)
		pgid = 0;
	if (process_parent(p->main_pid, &parent) < 0 || parent != getpid() ||
		manager_is_worker(p->service->manager, p->main_pid)) {
		close_fd(fd);
		return false;
	}
	p->exit_source = NULL;
	p->pidfd = fd;
	p->pid = p->main_pid;
	if (watch_exit(p) < 0) {
		p->exit_source = source_drop(p->exit_source);
		close_fd(fd);
		p->exit_source = before;
		p->pidfd = before_fd;
		p->pid = before_pid;
		return false;
	}
	p->pgid = pgid;
	source_drop(before);
	close_fd(before_fd);
	return true;
}

/* The leader has ended but is not reaped (sd-event does that when we return): its pid, and so its
 * group, is still its own. */
static int on_exit_event(sd_event_source *source, const siginfo_t *si, void *userdata)
{
	struct worker_process *p = userdata;
	struct manager_service *s = p->service;
	struct service_event event = {
		.kind = EVENT_EXITED,
		.generation = p->generation,
		.worker = p->index,
		.value = si->si_code == CLD_EXITED && si->si_status == 0,
	};

	(void)source;
	if (p->main_pid != p->pid && adopt_main(p))
		return 0;
	/* What it said last is still in its notify socket, and what it wrote in its output. */
	if (p->notify_fd >= 0)
		(void)worker_notify_dispatch(NULL, p->notify_fd, 0, p);
	if (p->output)
		output_catch_up(p->output);
	/* Of its descendants only its group can still be told from others: the rest are our own
	 * children by now. */
	(void)spawn_signal_group(p->pgid, SIGKILL);
	p->exit_code = si->si_code;
	p->exit_status = si->si_status;
	p->exit_source = source_drop(p->exit_source);
	manager_service_note_trouble(s, p, p->generation, p->index, NULL);
	forget_process(p);
	/* Whoever waits behind it to be reaped. */
	manager_check_stopped(s->manager);
	(void)manager_service_event(s, &event);
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

static int environment_of(struct worker_process *p, const struct manager_generation *g,
	size_t n_listeners, char ***ret)
{
	const struct service_config *c = &g->snapshot->config;
	_cleanup_strv_ char **env = strv_copy(g->snapshot->environment);
	_cleanup_free_ char *names = NULL;
	char text[32];
	int r = env ? 0 : -ENOMEM;

	snprintf(text, sizeof(text), "%u", p->generation);
	if (r >= 0)
		r = strv_env_set(&env, "TENURE_GENERATION", text);
	snprintf(text, sizeof(text), "%u", p->index);
	if (r >= 0)
		r = strv_env_set(&env, "TENURE_WORKER", text);
	if (r >= 0)
		r = strv_env_set(&env, "NOTIFY_SOCKET", p->notify_address);
	if (r >= 0 && c->watchdog_usec > 0) {
		snprintf(text, sizeof(text), "%llu", (unsigned long long)c->watchdog_usec);
		r = strv_env_set(&env, "WATCHDOG_USEC", text);
	}
	if (r >= 0 && (c->handoff & HANDOFF_LISTEN_FDS)) {
		for (size_t i = 0; i < n_listeners; i++) {
			char *longer = xasprintf("%s%s%s", names ? names : "", names ? ":" : "",
				c->listeners[i].fd_name ? c->listeners[i].fd_name
							: c->listeners[i].name);
			free(names);
			names = longer;
		}
		snprintf(text, sizeof(text), "%zu", n_listeners);
		r = strv_env_set(&env, "LISTEN_FDS", text);
		if (r >= 0)
			r = strv_env_set(&env, "LISTEN_FDNAMES", names ? names : "");
		/* Room for the child to write its own pid into. */
		if (r >= 0)
			r = strv_env_set(&env, "LISTEN_PID", "0000000000");
	}
	if (r < 0)
		return r;
	*ret = TAKE_PTR(env);
	return 0;
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

/* Which descriptors it gets, and as which numbers. */
static int descriptors_of(struct worker_process *p, const struct manager_generation *g,
	struct spawn_fd *fds, size_t *ret_n, struct error *ret_error)
{
	const struct service_config *c = &g->snapshot->config;
	size_t n = 0;

	for (size_t i = 0; i < c->n_listeners; i++) {
		int fd = -1;
		for (unsigned id = 0; id < ARRAY_SIZE(p->service->listeners); id++) {
			struct listener *l = p->service->listeners[id];
			if (l && (g->listeners & (UINT64_C(1) << id)) &&
				plan_listener_same(&l->config, &c->listeners[i]))
				fd = socket_of(p, g, l, ret_error);
		}
		if (fd < 0 && ret_error->code)
			return ret_error->code;
		if (fd < 0)
			return error_set(ret_error, -ENOENT,
				"%s: listener %s has no socket for worker %u", p->service->name,
				c->listeners[i].name, p->index);
		fds[n++] = (struct spawn_fd){fd, snapshot_listener_fd(c, i)};
	}
	*ret_n = n;
	return 0;
}

static int prepare_notify(struct worker_process *p)
{
	struct manager *m = p->service->manager;
	int r;

	r = notify_socket_open(&p->notify_fd, &p->notify_address);
	if (r < 0)
		return r;
	r = sd_event_add_io(
		m->event, &p->notify_source, p->notify_fd, EPOLLIN, worker_notify_dispatch, p);
	if (r < 0)
		return r;
	return sd_event_source_set_priority(p->notify_source, PRIORITY_NOTIFY);
}

static int watch_process(struct worker_process *p, uint64_t watchdog_usec)
{
	struct manager *m = p->service->manager;
	int r;

	r = watch_exit(p);
	if (r < 0)
		return r;
	p->watchdog_usec = watchdog_usec;
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

static int spawn_error(const struct worker_process *p, const struct snapshot *snap,
	const struct spawn_result *result, int r, struct error *ret_error)
{
	const char *what = result->failed_at == SPAWN_EXEC	  ? snap->executable
			   : result->failed_at == SPAWN_DIRECTORY ? snap->directory
								  : "";

	if (result->failed_at == SPAWN_AFFINITY)
		return affinity_error(p, r, ret_error);
	return error_set_errno(ret_error, r, "%s: worker %u of generation %u: %s %s",
		p->service->name, p->index, p->generation, spawn_step_to_string(result->failed_at),
		what);
}

int worker_process_spawn(
	struct worker_process *p, const struct manager_generation *g, struct error *ret_error)
{
	const struct snapshot *snap = g->snapshot;
	const struct service_config *c = &snap->config;
	_cleanup_strv_ char **env = NULL;
	_cleanup_close_ int output_fd = -1;
	struct spawn_fd fds[SPAWN_FDS_MAX];
	struct spawn_result result;
	enum output_kind output = c->output;
	cpu_set_t cpus;
	size_t n_fds = 0;
	int r;

	if (!c->output_set)
		output = log_is_journal() ? OUTPUT_JOURNAL : OUTPUT_TEE;
	forget_process(p);
	p->output = output_free(p->output);
	p->exit_code = 0;
	free(p->spawn_failure);
	p->spawn_failure = NULL;
	r = prepare_notify(p);
	if (r < 0)
		return error_set_errno(
			ret_error, r, "%s: notify socket of worker %u", p->service->name, p->index);
	r = descriptors_of(p, g, fds, &n_fds, ret_error);
	if (r < 0)
		return r;
	if (output == OUTPUT_INHERIT) {
		fds[n_fds++] = (struct spawn_fd){STDOUT_FILENO, STDOUT_FILENO};
		fds[n_fds++] = (struct spawn_fd){STDERR_FILENO, STDERR_FILENO};
	} else {
		r = output_new(p->service->manager->outputs, output, c->output_file,
			p->service->name, p->generation, p->index, &p->output, &output_fd,
			ret_error);
		if (r < 0)
			return r;
		fds[n_fds++] = (struct spawn_fd){output_fd, STDOUT_FILENO};
		fds[n_fds++] = (struct spawn_fd){output_fd, STDERR_FILENO};
	}
	r = environment_of(p, g, c->n_listeners, &env);
	if (r < 0)
		return error_set_errno(
			ret_error, r, "%s: environment of worker %u", p->service->name, p->index);
	bind_to_cpus(p, c, &cpus);
	r = spawn_process(
		&(struct spawn_request){
			.argv = snap->argv,
			.path = snap->executable,
			.exec_fd = snap->exec_fd,
			.envp = env,
			.listen_pid = (c->handoff & HANDOFF_LISTEN_FDS) != 0,
			.fds = fds,
			.n_fds = n_fds,
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
			.cgroup_fd = -1,
		},
		&result);
	if (r < 0)
		return spawn_error(p, snap, &result, r, ret_error);
	p->pid = p->main_pid = p->pgid = result.pid;
	p->pidfd = result.pidfd;
	p->spawned_usec = manager_now(p->service->manager);
	r = watch_process(p, c->watchdog_usec);
	if (r < 0) {
		worker_process_kill(p);
		/* Reaped as an orphan. */
		forget_process(p);
		return error_set_errno(
			ret_error, r, "%s: watching worker %u", p->service->name, p->index);
	}
	return 0;
}

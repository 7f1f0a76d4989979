/* SPDX-License-Identifier: Apache-2.0 */
/* The life of the daemon: what it sets up, its signals, its end. */
#include "daemon/manager.h"

#include <malloc.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"
#include "base/parse.h"
#include "daemon/cgroup.h"
#include "daemon/connections.h"
#include "daemon/fault.h"
#include "daemon/handoff_server.h"
#include "daemon/keeper.h"
#include "daemon/listener_inherit.h"
#include "daemon/log.h"
#include "daemon/output.h"
#include "daemon/ready.h"
#include "daemon/reexec.h"
#include "daemon/restore.h"
#include "daemon/restore_blind.h"
#include "daemon/sandbox.h"
#include "daemon/state_save.h"
#include "daemon/strays.h"
#include "daemon/unit.h"
#include "daemon/unit_job.h"
#include "daemon/verify.h"
#include "daemon/worker_process.h"
#include "sys/listen.h"
#include "sys/process.h"
#include "sys/sockdiag.h"

/* Programs are attached again this often, should a worker have taken one away. */
#define RESTEER_USEC (60 * USEC_PER_SEC)

uint64_t manager_now(struct manager *m)
{
	(void)m;
	return monotonic_usec();
}

uint64_t realtime_now(void)
{
	return clock_usec(CLOCK_REALTIME);
}

struct manager_service *manager_find(const struct manager *m, const char *name)
{
	for (size_t i = 0; i < m->n_services; i++)
		if (streq(m->services[i]->name, name))
			return m->services[i];
	return NULL;
}

static const char *describe_requester(void)
{
	return "signal";
}

static void upgrade_all(struct manager *m)
{
	struct request_options o = {.requested_by = describe_requester()};

	for (size_t i = 0; i < m->n_services; i++) {
		_cleanup_error_ struct error error = ERROR_NULL;
		if (!m->services[i]->core.wanted)
			continue;
		if (manager_service_upgrade(m->services[i], NULL, &o, &error) != 0)
			log_error("%s", error_message(&error));
	}
}

static void reload_by_signal(struct manager *m)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	_cleanup_config_ struct config *config = NULL;
	struct config_problems problems = {0};
	struct plan plan = {0};
	int r;

	if (!m->config_path) {
		upgrade_all(m);
		return;
	}
	unit_reloading(m->unit);
	r = manager_read_config(m, &config, &problems, &error);
	if (r >= 0)
		r = manager_reload(m, &config, false, describe_requester(), &plan, &error);
	unit_reloaded(m->unit, r < 0 ? error_message(&error) : NULL);
	if (r < 0 && problems.n_errors == 0)
		log_error("reload: %s", error_message(&error));
	plan_done(&plan);
	config_problems_done(&problems);
}

/* Is this the end for the workers too, or are we only replaced? */
static bool shall_detach(const struct manager *m, uint32_t asked_by)
{
	/* It passes on what it was told itself, and keeps nothing any more then. */
	if (asked_by != 0 && (pid_t)asked_by == keeper_pid())
		return false;
	switch (m->config->on_terminate) {
	case ON_TERMINATE_DETACH:
		return true;
	case ON_TERMINATE_AUTO:
		return store_is_kept(m->held ? m->held : m->store) &&
		       unit_job() == UNIT_JOB_RESTART;
	case ON_TERMINATE_STOP:
	default:
		return false;
	}
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
	struct manager *m = userdata;

	(void)source;
	if (m->stopping && (si->ssi_signo == SIGHUP || si->ssi_signo == SIGUSR2)) {
		log_notice("stopping: nothing is started any more");
		return 0;
	}
	switch (si->ssi_signo) {
	case SIGHUP:
		reload_by_signal(m);
		break;
	case SIGUSR1:
		output_hub_reopen(m->outputs);
		log_notice("log files opened again");
		break;
	case SIGUSR2:
		upgrade_all(m);
		break;
	case SIGTERM:
		if (m->stopping || !shall_detach(m, si->ssi_pid) || !manager_detach(m))
			manager_stop(m);
		break;
	default:
		manager_stop(m);
		break;
	}
	return 0;
}

bool manager_is_worker(const struct manager *m, pid_t pid)
{
	if (reexec_child(m) == pid)
		return true;
	for (size_t i = 0; i < m->n_services; i++) {
		if (verify_command(m->services[i]) == pid)
			return true;
		for (size_t k = 0; k < m->services[i]->n_generations; k++) {
			const struct manager_generation *g = m->services[i]->generations[k];
			for (unsigned n = 0; n < g->n_workers; n++)
				if (g->workers[n] &&
					(g->workers[n]->pid == pid ||
						(g->workers[n]->ready &&
							ready_watch_command(g->workers[n]->ready) ==
								pid)))
					return true;
		}
	}
	return false;
}

/* A source of a child's end is told of it once. A child that is traced (strace, a debugger, a leak
 * checker at its exit) ends for its tracer first: then its source looks too early, and would never
 * look again. SIGCHLD comes when it is ours. */
void source_look_again(sd_event_source *source)
{
	if (source && sd_event_source_set_enabled(source, SD_EVENT_OFF) >= 0)
		(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static void look_again(struct manager *m, pid_t pid)
{
	reexec_look_again(m, pid);
	for (size_t i = 0; i < m->n_services; i++) {
		verify_look_again(m->services[i], pid);
		for (size_t k = 0; k < m->services[i]->n_generations; k++) {
			const struct manager_generation *g = m->services[i]->generations[k];

			for (unsigned n = 0; n < g->n_workers; n++)
				if (g->workers[n] && g->workers[n]->pid == pid)
					source_look_again(g->workers[n]->exit_source);
		}
	}
}

/* Orphans of workers become our children. Workers themselves are reaped by their own sources, which
 * come first. */
static int on_child(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
	struct manager *m = userdata;

	(void)source;
	(void)si;
	for (;;) {
		siginfo_t info = {0};

		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
			return 0;
		if (manager_is_worker(m, info.si_pid)) {
			look_again(m, info.si_pid);
			return 0;
		}
		if (waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG) < 0)
			return 0;
		log_debug("reaped orphan %d", (int)info.si_pid);
	}
}

static int on_resteer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct manager *m = userdata;

	(void)usec;
	for (size_t i = 0; i < m->n_services; i++)
		manager_service_tend(m->services[i]);
	cgroups_sweep(m, false);
	state_save_later(m);
	/* Orphans whose signal came while a worker's corpse was before them. */
	(void)on_child(NULL, NULL, m);
	(void)sd_event_source_set_time_relative(source, RESTEER_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static bool service_is_gone(const struct manager_service *s)
{
	return !s->core.wanted && s->core.n_generations == 0 && !s->core.stopping;
}

static int on_tidy(sd_event_source *source, void *userdata)
{
	struct manager *m = userdata;
	bool all_gone = true;

	(void)source;
	(void)on_child(NULL, NULL, m);
	for (size_t i = 0; i < m->n_services;) {
		struct manager_service *s = m->services[i];
		if (!service_is_gone(s) || !s->removing) {
			all_gone &= service_is_gone(s);
			i++;
			continue;
		}
		log_notice("%s: removed", s->name);
		manager_changed(m);
		manager_service_free(s);
		memmove(&m->services[i], &m->services[i + 1], (m->n_services - i - 1) * sizeof(s));
		m->n_services--;
	}
	if (m->stopping && all_gone) {
		strays_end(m);
		cgroups_sweep(m, true);
		return sd_event_exit(m->event, m->exit_status);
	}
	return 0;
}

void manager_check_stopped(struct manager *m)
{
	if (m->tidy)
		(void)sd_event_source_set_enabled(m->tidy, SD_EVENT_ONESHOT);
}

bool manager_detach(struct manager *m)
{
	int r;

	if (!store_is_kept(m->held ? m->held : m->store)) {
		log_warning("nobody keeps the sockets while we are gone (NOTIFY_SOCKET is not "
			    "set): stopping the workers instead of leaving them");
		return false;
	}
	state_save_all(m);
	r = m->held ? 0 : store_settle(m->store);
	if (r < 0 && r != -ETIMEDOUT) {
		log_warning("the keeper is gone (%s): stopping the workers instead of leaving them",
			strerror(-r));
		return false;
	}
	unit_stopping(m->unit);
	log_notice("leaving %zu services to the next daemon", m->n_services);
	m->detached = true;
	(void)sd_event_exit(m->event, EXIT_SUCCESS);
	return true;
}

void manager_stop(struct manager *m)
{
	bool now = m->stopping;

	if (!now) {
		unit_stopping(m->unit);
		log_notice("stopping: workers finish what they have; another signal ends them at "
			   "once");
	} else {
		log_warning("stopping at once");
	}
	m->stopping = true;
	for (size_t i = 0; i < m->n_services; i++)
		(void)manager_service_stop(m->services[i], now);
	manager_check_stopped(m);
}

static int watch_signals(struct manager *m)
{
	static const int signals[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGTERM, SIGINT};
	sigset_t set;
	int r = 0;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	(void)signal(SIGPIPE, SIG_IGN);
	/* Below a keeper we are never the terminal's foreground, and write to it all the same. */
	(void)signal(SIGTTOU, SIG_IGN);
	/* Who started us may have ignored it, and then the kernel would reap our workers. */
	(void)signal(SIGCHLD, SIG_DFL);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(signals); i++)
		r = sd_event_add_signal(m->event, NULL, signals[i], on_signal, m);
	if (r >= 0)
		r = sd_event_add_signal(m->event, NULL, SIGCHLD, on_child, m);
	return r;
}

/* Where the control socket is when neither the command line nor the configuration says. */
static int default_socket(char **ret, struct error *ret_error)
{
	const char *asked = getenv("TENURE_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
	_cleanup_free_ char *directory = NULL;

	if (asked && *asked) {
		*ret = strdup(asked);
		return *ret ? 0 : -ENOMEM;
	}
	if (geteuid() == 0)
		runtime = "/run";
	if (!runtime || *runtime != '/')
		return error_set(ret_error, -ENOENT,
			"control socket: no place for it, XDG_RUNTIME_DIR is not set; say --socket "
			"PATH (and to tenurectl too)");
	directory = xasprintf("%s/tenured", runtime);
	if (!directory)
		return -ENOMEM;
	if (mkdir(directory, 0755) < 0 && errno != EEXIST) {
		int r = -errno;

		error_set(ret_error, r,
			"control socket: mkdir %s: %s; say --socket PATH (and to tenurectl too)",
			directory, strerror(-r));
		return sandbox_explain(ret_error, r, SANDBOX_CONTROL, directory);
	}
	*ret = xasprintf("%s/control.sock", directory);
	return *ret ? 0 : -ENOMEM;
}

static void report_control(int priority, const char *message, void *userdata)
{
	(void)userdata;
	log_message(priority, "control: %s", message);
}

static int open_control(struct manager *m, struct error *ret_error)
{
	struct control_server_ops ops = {
		.dispatch = control_dispatch, .report = report_control, .userdata = m};
	_cleanup_free_ char *path = NULL;
	int r;

	if (m->socket_path)
		path = strdup(m->socket_path);
	else if (m->config->control.socket)
		path = strdup(m->config->control.socket);
	else {
		r = default_socket(&path, ret_error);
		if (r < 0)
			return r;
	}
	if (!path)
		return error_set(ret_error, -ENOMEM, "control socket: out of memory");
	r = control_server_new(m->event,
		&(struct control_server_options){.path = path,
			.mode = m->config->control.mode,
			.operators = m->config->control.operators,
			.observers = m->config->control.observers,
			.listen_fd = m->control_fd,
			.priority = PRIORITY_CONTROL},
		&ops, &m->control, ret_error);
	if (r < 0)
		return r;
	if (m->control_fd < 0)
		(void)store_add(m->store, STORED_CONTROL, control_server_fd(m->control));
	m->control_fd = -1;
	m->changed = true;
	reexec_resume(m);
	return 0;
}

static int on_save(sd_event_source *source, void *userdata)
{
	(void)source;
	state_save_all(userdata);
	return 0;
}

static int open_store(struct manager *m, struct error *ret_error)
{
	bool restored;
	int r = store_new(&m->activation, &m->store);

	if (r < 0)
		return error_set(ret_error, r, "out of memory");
	/* What is left in it now is passed beside what is stored. */
	if (unit_is_main_process())
		store_limit_nofile(
			m->store, m->original_nofile.rlim_cur -
					  MIN(m->activation.n, m->original_nofile.rlim_cur));
	restored = store_has_state(m->store);
	fault_init(restored);
	if (store_is_empty(m->store))
		unit_end_leftovers();
	if (!m->store)
		return 0;
	r = store_watch(m->store, m->event);
	if (r >= 0)
		r = sd_event_add_defer(m->event, &m->save_later, on_save, m);
	if (r >= 0)
		r = sd_event_source_set_enabled(m->save_later, SD_EVENT_OFF);
	return r < 0 ? error_set_errno(ret_error, r, "event loop") : 0;
}

/* systemd has to give us a higher limit than it would give workers, where select(2) with
 * descriptors from 1024 on destroys memory: it passes us everything that it stores. */
static void set_worker_nofile(struct manager *m)
{
	const char *text = getenv("TENURE_WORKER_NOFILE");
	unsigned n;

	m->worker_nofile = m->original_nofile;
	if (!text || !*text)
		return;
	if (parse_uint(text, 1, INT32_MAX, &n) < 0)
		log_warning("TENURE_WORKER_NOFILE=%s: a number of open files is expected, as 1024; "
			    "it is ignored, and workers get as many as the daemon: %llu",
			text, (unsigned long long)m->worker_nofile.rlim_cur);
	else if (n > m->worker_nofile.rlim_max)
		log_warning("TENURE_WORKER_NOFILE=%s: more than the hard limit of %llu (in a unit: "
			    "LimitNOFILE=); it is ignored, and workers get as many as the daemon: "
			    "%llu",
			text, (unsigned long long)m->worker_nofile.rlim_max,
			(unsigned long long)m->worker_nofile.rlim_cur);
	else
		m->worker_nofile.rlim_cur = n;
}

static int set_up(struct manager *m, struct error *ret_error)
{
	int r;

	r = sd_event_default(&m->event);
	if (r >= 0)
		r = watch_signals(m);
	if (r >= 0)
		r = sd_event_add_defer(m->event, &m->tidy, on_tidy, m);
	if (r >= 0)
		r = sd_event_source_set_enabled(m->tidy, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(m->event, &m->steer_timer, CLOCK_MONOTONIC,
			RESTEER_USEC, 5 * USEC_PER_SEC, on_resteer, m);
	if (r >= 0)
		r = output_hub_new(m->event, &m->outputs);
	if (r >= 0)
		r = unit_new(m, &m->unit);
	if (r < 0)
		return error_set_errno(ret_error, r, "event loop");
	(void)process_become_subreaper();
	(void)spawn_raise_nofile(&m->original_nofile);
	set_worker_nofile(m);
	r = connections_counter_new(m, &m->counter);
	if (r < 0)
		return error_set_errno(ret_error, r, "event loop");
	m->sockdiag_fd = sockdiag_open();
	if (m->sockdiag_fd < 0)
		log_notice("sock_diag is not to be had (%s): connections are not counted",
			strerror(-m->sockdiag_fd));
	r = listen_selftest();
	m->may_group = r >= 0;
	m->connected_leaves = listen_connected_leaves() > 0;
	if (r < 0)
		log_warning("socket groups do not behave as expected on this kernel (%s): "
			    "listeners have one queue each, which "
			    "both generations share",
			strerror(-r));
	cgroups_new(m);
	r = open_store(m, ret_error);
	if (r >= 0)
		r = manager_make_services(m, ret_error);
	if (r >= 0)
		r = open_control(m, ret_error);
	if (r >= 0 && m->restored)
		handoff_server_resume(m);
	/* What was taken back is left to another try. */
	m->detached = r < 0 && (m->restored || m->held);
	return r;
}

int manager_new(struct config *config_take, struct activation *activation_take,
	const char *config_path, const char *socket, struct manager **ret, struct error *ret_error)
{
	struct manager *m = calloc(1, sizeof(*m));
	int r;

	if (!m) {
		config_free(config_take);
		activation_done(activation_take);
		return error_set(ret_error, -ENOMEM, "out of memory");
	}
	m->config = config_take;
	m->activation = *activation_take;
	*activation_take = (struct activation){.sockets = NULL};
	m->config_path = config_path;
	m->socket_path = socket;
	m->sockdiag_fd = m->control_fd = -1;
	m->next_sequence = 1;
	r = set_up(m, ret_error);
	if (r < 0) {
		manager_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

struct manager *manager_free(struct manager *m)
{
	if (!m)
		return NULL;
	control_done(m);
	manager_hold_done(m);
	m->reexec = reexec_free(m->reexec);
	for (size_t i = 0; i < m->n_services; i++)
		manager_service_free(m->services[i]);
	free(m->services);
	m->cgroups = cgroups_free(m->cgroups);
	blind_free(m->blind);
	connections_counter_free(m->counter);
	m->handoff = handoff_server_free(m->handoff);
	if (m->control) {
		control_server_flush(m->control, 200 * USEC_PER_MSEC);
		if (m->detached)
			control_server_keep_path(m->control);
		else
			store_drop(m->store, control_server_fd(m->control));
		control_server_free(m->control);
	}
	reexec_keeper_free(m->reexec_keeper);
	reexec_loaded_free(m->reexec_loaded);
	output_hub_free(m->outputs);
	m->unit = unit_free(m->unit);
	activation_done(&m->activation);
	close_fd(m->sockdiag_fd);
	close_fd(m->control_fd);
	if (!m->detached)
		store_give_up_state(m->store);
	store_free(m->store);
	if (m->save_later)
		sd_event_source_disable_unref(m->save_later);
	for (size_t i = 0; i < EVENTS_MAX; i++) {
		free(m->events[i].service);
		free(m->events[i].message);
	}
	if (m->tidy)
		sd_event_source_disable_unref(m->tidy);
	if (m->steer_timer)
		sd_event_source_disable_unref(m->steer_timer);
	sd_event_unref(m->event);
	config_free(m->config);
	free(m);
	return NULL;
}

int manager_run(struct manager *m)
{
	int r;

	/* One bad service does not keep the others down; with nothing to serve there is no point in
	 * staying. */
	if (m->restored)
		restore_resume(m);
	else if (!m->held && !manager_start_services(m))
		return EXIT_FAILURE;
	reexec_done(m);
	blind_begin(m->blind);
	manager_changed(m);
	/* Reading the configuration took memory that is not needed again, and code: of ours and of
	 * nine libraries, most of which only initialise themselves. */
	(void)malloc_trim(0);
	process_forget_code();
	unit_started(m->unit, m->restored);
	r = sd_event_loop(m->event);
	if (r < 0) {
		log_error("event loop: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	return r;
}

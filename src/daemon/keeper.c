/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/parse.h"
#include "core/keep.h"
#include "daemon/keeper_exec.h"
#include "daemon/keeper_store.h"
#include "daemon/log.h"
#include "sys/fdstore.h"
#include "sys/notify_socket.h"
#include "sys/process.h"
#include "wire/notify.h"

extern char **environ;

/* As many as the daemon asks to be kept (daemon/store.h), if our own limit allows. */
enum { STORED_MAX = 16384, OWN_FDS = 64 };
/* What is no descriptor of the daemon's, over an exec of ours: no name of the store begins so. */
#define NOTIFY_NAME "-notify"
#define OUTER_NAME "-outer"
/* A daemon whose loop does not turn for that long is hung. */
#define WATCHDOG_USEC (30 * USEC_PER_SEC)
/* So long for who started us to read what it has to know. */
#define OUTER_USEC (250 * USEC_PER_MSEC)
/* Anybody can send us messages: they are not to keep us from all else. No socket has room for as
 * many (net.unix.max_dgram_qlen), so what was said before an end is among them. */
enum { MESSAGES_AT_ONCE = 1024 };

struct keeper {
	struct keep policy;
	struct keeper_store store;
	bool full; /* said already */
	char *const *argv, *const *whole;
	char **environment;
	struct keeper_exec exec;
	const char *path; /* of the daemon's program */
	int old_file_fd;  /* the same as it was when we began */
	int notify_fd, signal_fd;
	struct fdstore outer; /* who started us, where he wants to know */
	struct rlimit nofile; /* as we were given it */
	pid_t daemon;	      /* 0: there is none */
};

static bool is_child_of_keeper(void)
{
	const char *text = getenv("TENURE_KEEPER");
	unsigned pid;

	return text && parse_uint(text, 1, INT32_MAX, &pid) >= 0 && (pid_t)pid == getppid();
}

bool keeper_is_wanted(enum keeper_choice choice)
{
	const char *socket = getenv("NOTIFY_SOCKET");

	if (choice == KEEPER_NO || is_child_of_keeper() || getenv("TENURE_REEXEC"))
		return false;
	return choice == KEEPER_YES || !socket || !*socket;
}

pid_t keeper_pid(void)
{
	return is_child_of_keeper() ? getppid() : 0;
}

/* --- doing what the policy says ------------------------------------------- */

static void step(struct keeper *k, struct keep_event e);

static int spawn_from(struct keeper *k, bool old_file, struct spawn_result *ret)
{
	const struct spawn_limit limit = {.resource = RLIMIT_NOFILE, .value = k->nofile};
	_cleanup_strv_ char **environment = strv_copy(k->environment);
	_cleanup_free_ char *names = keeper_store_names(&k->store);
	_cleanup_free_ struct spawn_fd *map = NULL;
	struct spawn_request request = {.argv = k->argv,
		.path = k->path,
		.exec_fd = old_file ? k->old_file_fd : -1,
		.listen_pid = k->store.n > 0,
		.n_fds = k->store.n + 3,
		.directory_fd = -1,
		.cgroup_fd = -1,
		.limits = &limit,
		.n_limits = 1,
		.keep_umask = true};
	char n[32];
	int r = environment && names ? keeper_store_map(&k->store, &map) : -ENOMEM;

	snprintf(n, sizeof(n), "%zu", k->store.n);
	if (r >= 0 && k->store.n > 0)
		r = strv_env_set(&environment, "LISTEN_FDS", n);
	if (r >= 0 && k->store.n > 0)
		r = strv_env_set(&environment, "LISTEN_FDNAMES", names);
	if (r < 0)
		return r;
	request.envp = environment;
	request.fds = map;
	return spawn_process(&request, ret);
}

static void spawn_daemon(struct keeper *k, bool old_file)
{
	struct spawn_result result;
	int r;

	if (old_file && k->old_file_fd >= 0)
		log_notice("keeper: trying the executable that was there when I was started");
	r = spawn_from(k, old_file && k->old_file_fd >= 0, &result);
	if (r < 0) {
		log_error("keeper: %s cannot be started: %s: %s", k->path,
			spawn_step_to_string(result.failed_at), strerror(-r));
		step(k, (struct keep_event){.kind = KEEP_SPAWN_FAILED,
				.holds = keeper_store_has_state(&k->store)});
		return;
	}
	/* SIGCHLD says when it ends. */
	close_fd(result.pidfd);
	k->daemon = result.pid;
	log_debug("keeper: started the daemon, pid %d, with %zu descriptors", (int)k->daemon,
		k->store.n);
}

/* Everything below us that was started as a worker, or by one. False: there is none. sig 0: only
 * look. As the first process of a container all others are ours. */
static bool signal_workers(int sig)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0, found = 0;

	if (getpid() == 1)
		return kill(-1, sig) >= 0;
	if (process_descendants(getpid(), false, &pids, &n) < 0)
		return false;
	for (size_t i = 1; i < n; i++) {
		_cleanup_free_ char *service = NULL;

		if (process_environment(pids[i], "TENURE_SERVICE", &service) < 0)
			continue;
		found++;
		(void)kill(pids[i], sig);
	}
	return found > 0;
}

static void say_failed(const struct keeper *k, const struct keep_effects *e)
{
	_cleanup_free_ char *wait = format_duration(e->wait_usec);
	char tail[128] = "";

	if (e->wait_usec > 0)
		snprintf(tail, sizeof(tail), " in %s (%u failures in a row)",
			wait ? wait : "a while", e->n_failures);
	log_error("keeper: the daemon is gone; its workers serve on and %zu descriptors are held, "
		  "starting it again%s",
		k->store.n, tail);
}

static void say(const struct keeper *k, const struct keep_effects *e)
{
	switch (e->note) {
	case KEEP_NOTE_NONE:
		break;
	case KEEP_NOTE_DETACHED:
		log_notice(
			"keeper: the daemon left its work to the next one, which is started now");
		break;
	case KEEP_NOTE_FAILED:
		say_failed(k, e);
		break;
	case KEEP_NOTE_HUNG:
		log_error("keeper: the daemon (pid %d) does not answer in time; aborting it",
			(int)k->daemon);
		break;
	case KEEP_NOTE_KILLED:
		log_error("keeper: the daemon (pid %d) did not end; killing it", (int)k->daemon);
		break;
	case KEEP_NOTE_NO_DAEMON:
		log_warning("keeper: the daemon does not run just now, the signal is ignored");
		break;
	case KEEP_NOTE_SWEEP:
		log_notice("keeper: the daemon ended before its workers; ending them");
		break;
	case KEEP_NOTE_SWEEP_NOW:
		log_warning("keeper: killing the workers that are left");
		break;
	case KEEP_NOTE_RECOVERED:
		log_notice("keeper: the daemon is back");
		break;
	}
}

static void step(struct keeper *k, struct keep_event e)
{
	struct keep_effects effects;

	keep_step(&k->policy, &e, monotonic_usec(), &effects);
	say(k, &effects);
	if (effects.signal && k->daemon > 0)
		(void)kill(k->daemon, effects.signal);
	if (effects.drop)
		keeper_store_drop(&k->store);
	if (effects.sweep)
		(void)signal_workers(effects.sweep);
	if (effects.spawn)
		spawn_daemon(k, effects.old_file);
}

/* --- what the daemon says ------------------------------------------------- */

static void store_descriptors(
	struct keeper *k, const struct notify_message *m, struct notify_datagram *d)
{
	const char *name = m->fields & NOTIFY_FD_NAME ? m->fd_name : "stored";

	for (size_t i = 0; i < d->n_fds; i++) {
		int r = keeper_store_add_take(&k->store, name, &d->fds[i]);

		if (r < 0 && !k->full)
			log_error("keeper: %zu descriptors are held, and there is no room for "
				  "more: %s",
				k->store.n, strerror(-r));
		k->full |= r < 0;
	}
}

static void pass_on(struct keeper *k, const struct notify_message *m)
{
	char text[480];
	int n = 0;

	if (k->outer.fd < 0)
		return;
	if (m->fields & NOTIFY_RELOADING)
		n += snprintf(text + n, sizeof(text) - (size_t)n,
			"RELOADING=1\nMONOTONIC_USEC=%llu\n",
			(unsigned long long)m->monotonic_usec);
	if (m->fields & NOTIFY_READY)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "READY=1\n");
	if ((m->fields & NOTIFY_STOPPING) && k->policy.told)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "STOPPING=1\n");
	if (m->fields & NOTIFY_EXTEND_TIMEOUT_USEC)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "EXTEND_TIMEOUT_USEC=%llu\n",
			(unsigned long long)m->extend_timeout_usec);
	if (m->fields & NOTIFY_STATUS)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "STATUS=%.300s\n", m->status);
	if (n > 0 && fdstore_tell(&k->outer, text) == -EAGAIN &&
		fdstore_wait(&k->outer, OUTER_USEC) >= 0)
		(void)fdstore_tell(&k->outer, text);
}

static void take_message(struct keeper *k, const struct notify_message *m)
{
	static const struct {
		unsigned field;
		enum keep_event_kind kind;
	} events[] = {
		{NOTIFY_READY,	       KEEP_READY	 },
		{NOTIFY_STOPPING,		  KEEP_SAYS_STOPPING},
		{NOTIFY_WATCHDOG_USEC,       KEEP_WATCHDOG	    },
		{NOTIFY_WATCHDOG,		  KEEP_ALIVE	    },
		{NOTIFY_WATCHDOG_TRIGGER,	  KEEP_HUNG	   },
		{NOTIFY_EXTEND_TIMEOUT_USEC, KEEP_EXTEND	},
	};

	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (m->fields & events[i].field)
			step(k, (struct keep_event){.kind = events[i].kind,
					.value = events[i].kind == KEEP_WATCHDOG
							 ? m->watchdog_usec
							 : m->extend_timeout_usec});
	if ((m->fields & NOTIFY_MAIN_PID) && process_is_descendant(m->main_pid, getpid()))
		k->daemon = m->main_pid;
}

/* --- replacing this program ----------------------------------------------- */

static void describe(const struct keeper *k, struct keeper_state *ret)
{
	const char *notify = strv_env_get(k->environment, "NOTIFY_SOCKET");

	*ret = (struct keeper_state){.daemon = k->daemon,
		.nofile_soft = k->nofile.rlim_cur,
		.nofile_hard = k->nofile.rlim_max,
		.watchdog_usec = k->policy.watchdog_usec,
		.n_inherited = k->store.n_inherited};
	snprintf(ret->notify, sizeof(ret->notify), "%s", notify ? notify : "");
}

static void reexec(struct keeper *k, int *asker)
{
	struct keeper_state state;

	if (k->policy.state != KEEP_SERVING || k->policy.aborting) {
		keeper_exec_tell(asker, "the daemon is not in service");
		return;
	}
	describe(k, &state);
	(void)keeper_exec_begin(&k->exec, &state, monotonic_usec(), asker);
}

/* Only where the daemon is as it was when it asked. */
static void reexec_tried(struct keeper *k, const siginfo_t *info)
{
	_cleanup_free_ struct reexec_fd *held = calloc(k->store.n + 3, sizeof(*held));
	struct keeper_state state;
	size_t n = 0;

	if (!keeper_exec_judge(&k->exec, info))
		return;
	if (!held || k->policy.state != KEEP_SERVING || k->policy.aborting) {
		keeper_exec_done(&k->exec, "the daemon is not in service");
		return;
	}
	held[n++] = (struct reexec_fd){.fd = k->notify_fd, .name = NOTIFY_NAME};
	if (k->outer.fd >= 0)
		held[n++] = (struct reexec_fd){.fd = k->outer.fd, .name = OUTER_NAME};
	for (size_t i = 0; i < k->store.n; i++)
		held[n++] = (struct reexec_fd){
			.fd = k->store.list[i].fd, .name = k->store.list[i].name};
	describe(k, &state);
	keeper_exec_now(&k->exec, &state, held, n, k->whole);
}

/* In the order in which it was said; a barrier is passed when its descriptor is closed. */
static void read_messages(struct keeper *k)
{
	struct notify_datagram d;

	for (int i = 0; i < MESSAGES_AT_ONCE && notify_socket_receive(k->notify_fd, &d) >= 0; i++) {
		struct notify_message m;

		if (k->daemon > 0 && d.pid == k->daemon) {
			notify_parse(d.data, d.len, d.truncated, &m);
			if (m.fields & NOTIFY_FD_STORE)
				store_descriptors(k, &m, &d);
			if ((m.fields & NOTIFY_REEXEC) && d.n_fds == 1)
				reexec(k, &d.fds[0]);
			if ((m.fields & (NOTIFY_FD_STORE_REMOVE | NOTIFY_FD_NAME)) ==
				(NOTIFY_FD_STORE_REMOVE | NOTIFY_FD_NAME))
				k->full &= keeper_store_remove(&k->store, m.fd_name) == 0;
			take_message(k, &m);
			pass_on(k, &m);
		}
		notify_datagram_close(&d);
	}
}

/* --- the ends of processes, and signals ----------------------------------- */

static void daemon_ended(struct keeper *k, const siginfo_t *info)
{
	bool killed = info->si_code != CLD_EXITED;

	/* What it said last. */
	read_messages(k);
	if (k->daemon != info->si_pid)
		return; /* its successor was named in that */
	k->daemon = 0;
	if (killed)
		log_error("keeper: the daemon (pid %d) was ended by signal %d (%s)%s",
			(int)info->si_pid, info->si_status, strsignal(info->si_status),
			info->si_code == CLD_DUMPED ? ", core dumped" : "");
	else if (info->si_status != 0 && k->policy.ever_ready)
		log_error("keeper: the daemon (pid %d) ended with exit status %d",
			(int)info->si_pid, info->si_status);
	step(k, (struct keep_event){.kind = KEEP_EXITED,
			.killed = killed,
			.value = (uint64_t)info->si_status,
			.holds = keeper_store_has_state(&k->store)});
}

static void reap(struct keeper *k)
{
	for (;;) {
		siginfo_t info = {0};

		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
			break;
		if (info.si_pid == k->daemon)
			daemon_ended(k, &info);
		else if (info.si_pid == k->exec.pid)
			reexec_tried(k, &info);
		else
			log_debug("keeper: reaped %d", (int)info.si_pid);
	}
	if (k->policy.state == KEEP_SWEEPING && !signal_workers(0))
		step(k, (struct keep_event){.kind = KEEP_ALONE});
}

static void read_signals(struct keeper *k)
{
	struct signalfd_siginfo info;

	while (read(k->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			step(k, (struct keep_event){.kind = KEEP_SIGNAL, .value = info.ssi_signo});
}

static int watch_signals(struct keeper *k)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGCHLD};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	/* Ignored, the kernel would reap our children for us. */
	if (signal(SIGCHLD, SIG_DFL) == SIG_ERR || signal(SIGPIPE, SIG_IGN) == SIG_ERR ||
		sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	k->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return k->signal_fd < 0 ? -errno : 0;
}

/* --- beginning and end ---------------------------------------------------- */

static bool is_ours(const char *entry)
{
	static const char *const names[] = {
		"NOTIFY_SOCKET=", "LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=",
		"LISTEN_PIDFDID=", "WATCHDOG_PID=", "WATCHDOG_USEC=", "FDSTORE=", "TENURE_KEEPER="};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (startswith(entry, names[i]))
			return true;
	return false;
}

static int make_environment(struct keeper *k, const char *notify_address)
{
	char pid[32], max[32], watchdog[32];
	int r = 0;

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(max, sizeof(max), "%zu", k->store.max);
	snprintf(watchdog, sizeof(watchdog), "%llu", (unsigned long long)WATCHDOG_USEC);
	for (size_t i = 0; r >= 0 && environ[i]; i++)
		r = is_ours(environ[i]) ? 0 : strv_append(&k->environment, environ[i]);
	if (r >= 0)
		r = strv_env_set(&k->environment, "NOTIFY_SOCKET", notify_address);
	if (r >= 0)
		r = strv_env_set(&k->environment, "TENURE_KEEPER", pid);
	if (r >= 0)
		r = strv_env_set(&k->environment, "FDSTORE", max);
	if (r >= 0)
		r = strv_env_set(&k->environment, "WATCHDOG_USEC", watchdog);
	return r;
}

static size_t store_max(void)
{
	struct rlimit now;

	if (getrlimit(RLIMIT_NOFILE, &now) < 0 || now.rlim_cur <= OWN_FDS)
		return 0;
	return (size_t)MIN(now.rlim_cur - OWN_FDS, (rlim_t)STORED_MAX);
}

static int set_up(struct keeper *k)
{
	_cleanup_free_ char *address = NULL;
	int r;

	(void)spawn_raise_nofile(&k->nofile);
	r = keeper_store_init(&k->store, store_max());
	if (r < 0)
		return r;
	(void)process_become_subreaper();
	k->old_file_fd = open(k->path, O_PATH | O_CLOEXEC);
	r = watch_signals(k);
	if (r >= 0)
		r = notify_socket_open(&k->notify_fd, &address);
	if (r >= 0)
		r = make_environment(k, address);
	if (r >= 0 && fdstore_open(&k->outer) < 0)
		log_warning("keeper: NOTIFY_SOCKET cannot be reached");
	keep_init(&k->policy, WATCHDOG_USEC);
	return r;
}

/* One of what the earlier image had. Order is what tells those that came with its start. */
static int take_up_one(
	struct keeper *k, const struct keeper_state *state, const char *name, int *fd)
{
	if (streq(name, NOTIFY_NAME))
		k->notify_fd = TAKE_FD(*fd);
	else if (streq(name, OUTER_NAME))
		k->outer.fd = TAKE_FD(*fd);
	else if (streq(name, KEEPER_EXEC_ASKER))
		k->exec.asker_fd = TAKE_FD(*fd);
	else
		return keeper_store_restore_take(
			&k->store, name, k->store.n < state->n_inherited, fd);
	return 0;
}

/* Go on with what the earlier image of this process did. */
static int take_up(struct keeper *k, const struct keeper_state *state)
{
	_cleanup_activation_ struct activation received = {.sockets = NULL};
	int r = reexec_receive(&received);

	(void)spawn_raise_nofile(&k->nofile);
	k->nofile = (struct rlimit){
		.rlim_cur = (rlim_t)state->nofile_soft, .rlim_max = (rlim_t)state->nofile_hard};
	k->store.max = store_max();
	for (size_t i = 0; r >= 0 && i < received.n; i++)
		r = take_up_one(k, state, received.sockets[i].name, &received.sockets[i].fd);
	if (r >= 0 && k->notify_fd < 0)
		r = -EBADF;
	/* The daemon serves: its file is a good one. */
	k->old_file_fd = open(k->path, O_PATH | O_CLOEXEC);
	if (r >= 0)
		r = watch_signals(k);
	if (r >= 0)
		r = make_environment(k, state->notify);
	if (r < 0)
		return r;
	k->daemon = state->daemon;
	keep_resume(&k->policy, WATCHDOG_USEC, state->watchdog_usec, monotonic_usec());
	log_notice("keeper: replaced by version %s, pid %d, %zu descriptors are held",
		PACKAGE_VERSION, (int)getpid(), k->store.n);
	keeper_exec_tell(&k->exec.asker_fd, "replaced");
	return 0;
}

static int timeout_msec(const struct keeper *k)
{
	uint64_t now = monotonic_usec(),
		 deadline = MIN(k->policy.deadline_usec, k->exec.deadline_usec);

	if (deadline == USEC_INFINITY)
		return -1;
	/* Rounded up, or it would be asked again and again in the last millisecond. */
	return deadline <= now ? 0
			       : (int)MIN((deadline - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC,
					 (uint64_t)60 * 1000);
}

static void keeper_done(struct keeper *k)
{
	keeper_exec_done(&k->exec, NULL);
	keeper_store_done(&k->store);
	strv_free(k->environment);
	close_fd(k->old_file_fd);
	close_fd(k->notify_fd);
	close_fd(k->signal_fd);
	fdstore_done(&k->outer);
}

int keeper_run(const char *path, char *const *argv, char *const *whole)
{
	_cleanup_(keeper_done) struct keeper k = {.path = path,
		.argv = argv,
		.whole = whole,
		.exec = KEEPER_EXEC_NULL,
		.old_file_fd = -1,
		.notify_fd = -1,
		.signal_fd = -1,
		.outer = FDSTORE_NULL};
	struct keeper_state state;
	int r = keeper_state_import(&state);

	if (r >= 0)
		r = r > 0 ? take_up(&k, &state) : set_up(&k);
	if (r < 0) {
		log_error("keeper: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	for (;;) {
		struct pollfd polled[] = {
			{.fd = k.notify_fd, .events = POLLIN},
			{.fd = k.signal_fd, .events = POLLIN}
		     };

		/* What was said before an end comes before the end. */
		read_messages(&k);
		read_signals(&k);
		reap(&k);
		step(&k, (struct keep_event){.kind = KEEP_TIME});
		if (monotonic_usec() >= k.exec.deadline_usec)
			keeper_exec_late(&k.exec);
		if (k.policy.state == KEEP_ENDED)
			break;
		(void)poll(polled, ARRAY_SIZE(polled), timeout_msec(&k));
	}
	return k.policy.exit_status;
}

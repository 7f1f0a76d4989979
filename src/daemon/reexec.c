/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/reexec.h"

#include <signal.h>
#include <sys/wait.h>

#include "base/buffer.h"
#include "daemon/log.h"
#include "daemon/output.h"
#include "daemon/restore.h"
#include "daemon/state_save.h"
#include "daemon/worker_process.h"
#include "daemon/worker_store.h"
#include "sys/spawn.h"

enum { OUTPUT_MAX = 4096, EXIT_USAGE = 2 };

struct reexec {
	struct manager *manager;
	struct control_call *call;
	char *path;
	int program; /* O_PATH: what is tried is what is executed */
	pid_t pid;
	int pidfd, output_fd;
	sd_event_source *exit_source, *timer;
	bool late;
};

struct reexec *reexec_free(struct reexec *x)
{
	if (!x)
		return NULL;
	if (x->exit_source)
		sd_event_source_disable_unref(x->exit_source);
	if (x->timer)
		sd_event_source_disable_unref(x->timer);
	if (x->pid > 0)
		(void)spawn_signal_group(x->pid, SIGKILL);
	close_fd(x->pidfd);
	close_fd(x->output_fd);
	close_fd(x->program);
	control_call_unref(x->call);
	free(x->path);
	free(x);
	return NULL;
}

pid_t reexec_child(const struct manager *m)
{
	return m->reexec ? m->reexec->pid : 0;
}

void reexec_look_again(struct manager *m, pid_t pid)
{
	if (pid > 0 && reexec_child(m) == pid)
		source_look_again(m->reexec->exit_source);
}

/* --- the way over --------------------------------------------------------- */

static bool lend(struct manager *m, enum stored kind, int fd)
{
	if (fd < 0 || (store_number(m->store, fd) > 0 && store_kind(m->store, fd) == kind))
		return false;
	return store_lend(m->store, kind, fd) > 0;
}

static void lend_service(struct manager_service *s)
{
	struct manager *m = s->manager;

	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		struct listener *l = s->listeners[id];

		for (size_t i = 0; l && i < l->lanes.n; i++) {
			int fd = l->lanes.sockets[i].fd;

			l->changed |= lend(
				m, fd == l->inherited_fd ? STORED_INHERITED : STORED_LISTENER, fd);
		}
		for (size_t i = 0; l && i < l->guard.n_fds; i++)
			l->changed |= lend(m, STORED_LISTENER, l->guard.fds[i]);
	}
	worker_store_lend(s);
	for (size_t i = 0; i < s->n_generations; i++)
		for (unsigned k = 0; k < s->generations[i]->n_workers; k++) {
			struct worker_process *p = s->generations[i]->workers[k];

			if (!p)
				continue;
			p->changed |= lend(m, STORED_PIDFD, p->pidfd);
			p->changed |= lend(m, STORED_NOTIFY, p->notify_fd);
			p->changed |= p->ready_fd >= 0 && lend(m, STORED_READY, p->ready_fd);
			p->changed |= p->channel_fd >= 0 && lend(m, STORED_CHANNEL, p->channel_fd);
			p->changed |= p->output && lend(m, STORED_OUTPUT, output_fd(p->output));
		}
}

/* The state as it is now, with what a keeper does not hold, or would if there were one. 0 or
 * -errno.
 */
static int write_state(struct manager *m)
{
	int r = store_begin_exec(&m->store);

	if (r < 0)
		return r;
	for (size_t i = 0; i < m->n_services; i++) {
		if (r > 0)
			state_save_anew(m->services[i]);
		lend_service(m->services[i]);
	}
	(void)lend(m, STORED_CONTROL, control_server_fd(m->control));
	m->changed = true;
	state_save_all(m);
	return store_is_written(m->store) ? 0 : -EIO;
}

static int append_inherited(const struct manager *m, struct reexec_fd **list, size_t *n)
{
	struct reexec_fd *longer = reallocarray(*list, *n + m->activation.n + 1, sizeof(*longer));

	if (!longer)
		return -ENOMEM;
	*list = longer;
	for (size_t i = 0; i < m->activation.n; i++)
		if (m->activation.sockets[i].fd >= 0)
			longer[(*n)++] = (struct reexec_fd){.fd = m->activation.sockets[i].fd,
				.name = m->activation.sockets[i].name};
	return 0;
}

/* Returns only when it has failed. */
static int exec(struct reexec *x)
{
	struct manager *m = x->manager;
	_cleanup_free_ struct reexec_fd *list = NULL;
	_cleanup_free_ char *names = NULL;
	struct rlimit nofile;
	size_t n = 0;
	int map = -1, r;

	reexec_save(m, x->call);
	r = write_state(m);
	if (r >= 0)
		r = store_list(m->store, &list, &n, &names);
	if (r >= 0)
		r = append_inherited(m, &list, &n);
	if (r >= 0)
		r = reexec_prepare(list, n, &map);
	if (r >= 0) {
		(void)setrlimit(RLIMIT_NOFILE, &m->original_nofile);
		r = reexec_now(x->program, m->argv);
		(void)spawn_raise_nofile(&nofile);
		reexec_undo(list, n, map);
	}
	reexec_forget(m);
	state_save_all(m);
	return r;
}

/* --- trying --------------------------------------------------------------- */

/* The last thing that is done with x. */
static void refuse(struct reexec *x, const char *reason, const char *output)
{
	struct manager *m = x->manager;

	log_error("not replaced by %s: %s%s%s; going on as before", x->path, reason,
		output && *output ? ": " : "", output ? output : "");
	(void)control_call_error(x->call, "ReexecRefused",
		json_pack("{s:s, s:s, s:s?}", "program", x->path, "reason", reason, "output",
			output && *output ? output : NULL));
	store_end_exec(m->store);
	if (m->reexec == x)
		m->reexec = NULL;
	reexec_free(x);
}

/* Printable, one line after the other, for people. The caller frees. */
static char *read_output(int fd)
{
	char data[OUTPUT_MAX + 1];
	size_t len = 0;
	ssize_t n;

	while (len < OUTPUT_MAX && (n = read(fd, data + len, OUTPUT_MAX - len)) > 0)
		len += (size_t)n;
	while (len > 0 && data[len - 1] == '\n')
		len--;
	data[len] = '\0';
	for (char *p = data; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p > '~')
			*p = *p == '\n' ? '\n' : '?';
	return strdup(data);
}

/* NULL: it is good. The caller frees. */
static char *judge(const struct reexec *x, const siginfo_t *si, const char *output)
{
	_cleanup_free_ char *end = worker_exit_to_string(si->si_code, si->si_status);

	if (x->late)
		return strdup("it did not say within 10s that it can go on from the present state");
	if (si->si_code != CLD_EXITED)
		return xasprintf("it crashed when it was tried: %s", end ? end : "?");
	if (si->si_status == EXIT_USAGE)
		return strdup("it does not know --check-state: it is too old, or not tenured");
	if (si->si_status != 0)
		return xasprintf("it cannot go on from the present state (%s)", end ? end : "?");
	if (!output || !startswith(output, "tenured ") || !strstr(output, ": can go on"))
		return strdup("it does not answer as tenured does");
	return NULL;
}

static int on_exit_event(sd_event_source *source, const siginfo_t *si, void *userdata)
{
	struct reexec *x = userdata;
	_cleanup_free_ char *output = read_output(x->output_fd), *reason = judge(x, si, output);
	int r;

	/* Who returns from here has it reaped; who does not would leave a zombie. */
	(void)waitid(P_PID, (id_t)x->pid, &(siginfo_t){0}, WEXITED | WNOHANG);
	(void)source;
	x->pid = 0;
	if (reason) {
		refuse(x, reason, output);
		return 0;
	}
	if (x->manager->stopping) {
		refuse(x, "the daemon is stopping", NULL);
		return 0;
	}
	log_notice("replacing this program by %s (%s)", x->path, output ? output : "");
	r = exec(x);
	reason = xasprintf("exec: %s", strerror(-r));
	refuse(x, reason ? reason : "exec", NULL);
	return 0;
}

static int on_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct reexec *x = userdata;

	(void)source;
	(void)usec;
	x->late = true;
	(void)spawn_signal_group(x->pid, SIGKILL);
	return 0;
}

static int watch(struct reexec *x)
{
	sd_event *event = x->manager->event;
	int r = sd_event_add_child_pidfd(
		event, &x->exit_source, x->pidfd, WEXITED, on_exit_event, x);

	if (r >= 0)
		r = sd_event_source_set_priority(x->exit_source, PRIORITY_CHILD);
	if (r >= 0)
		r = sd_event_add_time_relative(
			event, &x->timer, CLOCK_MONOTONIC, REEXEC_TRIAL_USEC, 0, on_late, x);
	return r;
}

static int try_program(struct reexec *x, int state_fd)
{
	struct reexec_trial trial;
	int r = reexec_try(x->program, x->path, state_fd, &trial);

	if (r < 0)
		return r;
	x->pid = trial.pid;
	x->pidfd = trial.pidfd;
	x->output_fd = trial.output_fd;
	return watch(x);
}

static char *why_not_opened(int r)
{
	if (r == -ENOEXEC)
		return strdup("it is no program of this machine (no ELF file), or may not be read");
	if (r == -EACCES)
		return strdup("it is not an executable file");
	return xasprintf("%s", strerror(-r));
}

/* *ret: the caller's, also on failure, when it says what is tried. */
static int prepare(struct manager *m, struct control_call *call, struct reexec **ret, char **reason)
{
	struct reexec *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return -ENOMEM;
	*x = (struct reexec){.manager = m,
		.call = control_call_ref(call),
		.program = -1,
		.pidfd = -1,
		.output_fd = -1};
	*ret = x;
	r = reexec_open_own(&x->path, &x->program);
	if (r < 0 && x->path)
		*reason = why_not_opened(r);
	return r;
}

int reexec_request(struct manager *m, struct control_call *call)
{
	_cleanup_free_ char *reason = NULL;
	_cleanup_close_ int state = -1;
	struct reexec *x = NULL;
	int r;

	if (m->reexec || m->reexec_keeper)
		return control_call_failed(call, "a new program is being tried already");
	if (m->held)
		return control_call_failed(call,
			"there is no configuration that can be used; put it right and reload, or "
			"restart the daemon");
	if (m->blind)
		return control_call_failed(call,
			"workers of an earlier daemon, of which little is known, are still ending; "
			"try again when they are gone");
	if (!m->argv)
		return control_call_failed(call, "this daemon cannot be replaced");
	r = prepare(m, call, &x, &reason);
	if (r >= 0)
		r = write_state(m);
	if (r >= 0)
		r = state = store_copy_state(m->store);
	if (r >= 0)
		r = try_program(x, state);
	if (r >= 0) {
		m->reexec = x;
		return 0;
	}
	if (!reason)
		reason = xasprintf("it cannot be tried: %s", strerror(-r));
	if (x && x->path) {
		refuse(x, reason ? reason : "out of memory", NULL);
		return 0;
	}
	reexec_free(x);
	return r;
}

/* --- being tried ---------------------------------------------------------- */

int reexec_check_state(void)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct activation received = {.sockets = NULL};
	struct manager m = {.trial = true, .control_fd = -1, .sockdiag_fd = -1};
	unsigned n = 0;
	int r;

	/* The real keeper is not to hear of this. */
	(void)unsetenv("NOTIFY_SOCKET");
	(void)unsetenv(REEXEC_VARIABLE);
	r = sd_event_new(&m.event);
	if (r >= 0)
		r = activation_add(&received, REEXEC_STATE_FD, "_s1");
	if (r >= 0)
		r = store_new(&received, &m.store);
	if (r >= 0)
		r = restore_manager(&m, &error);
	for (size_t i = 0; r > 0 && i < m.n_services; i++)
		for (size_t k = 0; k < m.services[i]->n_generations; k++)
			n += m.services[i]->generations[k]->n_workers;
	if (r > 0)
		printf("tenured %s: can go on with %zu services, %u workers\n", PACKAGE_VERSION,
			m.n_services, n);
	else
		fprintf(stderr, "tenured %s: %s\n", PACKAGE_VERSION,
			error.code ? error_message(&error)
			: r == 0   ? "there is no state"
				   : strerror(-r));
	/* What was taken up only to be looked at is not to be put away as if it were real. */
	(void)fflush(NULL);
	_exit(r > 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

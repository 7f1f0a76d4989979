/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FLOOD_EVERY_USEC (10 * TOOL_USEC_PER_MSEC)
#define LEAK_EVERY_USEC (100 * TOOL_USEC_PER_MSEC)
#define GROW_EVERY_USEC (100 * TOOL_USEC_PER_MSEC)

extern char **environ;

static void sleep_usec(uint64_t usec)
{
	struct timespec ts = {
		.tv_sec = (time_t)(usec / TOOL_USEC_PER_SEC),
		.tv_nsec = (long)(usec % TOOL_USEC_PER_SEC) * 1000,
	};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static uint64_t add_usec(uint64_t from_usec, uint64_t usec)
{
	return usec == TOOL_NEVER ? TOOL_NEVER : from_usec + usec;
}

void manners_crash(const struct worker *worker)
{
	const char *how = worker->options.crash_how;
	int signal_number = SIGKILL;
	sigset_t all;

	if (strcmp(how, "abort") == 0)
		signal_number = SIGABRT;
	else if (strcmp(how, "segv") == 0)
		signal_number = SIGSEGV;

	sigfillset(&all);
	(void)prctl(PR_SET_DUMPABLE, 0); /* no core file in a test's directory */
	(void)signal(signal_number, SIG_DFL);
	(void)sigprocmask(SIG_UNBLOCK, &all, NULL);
	(void)kill(getpid(), signal_number);
	abort();
}

/* ---- processes ---- */

static _Noreturn void grandchild_live(const struct worker *worker)
{
	sigset_t all;

	sigfillset(&all);
	(void)sigprocmask(SIG_BLOCK, &all, NULL); /* all but KILL and STOP */
	sleep_usec(worker->options.grandchild_lifetime);
	_exit(0);
}

static void fork_grandchild(const struct worker *worker, bool twice)
{
	pid_t pid = fork();

	if (pid < 0)
		tool_die(EXIT_USAGE, "fork: %s", strerror(errno));
	if (pid > 0) {
		/* The first child of two lives for an instant; the other is not waited for. */
		if (twice)
			while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
				;
		return;
	}
	if (!twice)
		grandchild_live(worker);
	(void)setsid();
	pid = fork();
	if (pid == 0)
		grandchild_live(worker);
	_exit(pid < 0);
}

/* ---- at the start ---- */

static void check_fds(const struct worker *worker)
{
	const char *line = worker->initial_fds;
	unsigned n_wrong = 0;

	for (; *line; line = strchr(line, '\n') + 1) {
		int fd = atoi(line);
		bool known = fd <= STDERR_FILENO;

		for (size_t i = 0; i < worker->n_listeners; i++)
			if (worker->listeners[i].source.fd == fd)
				known = true;
		if (known)
			continue;
		fprintf(stderr, "worker: unexpected descriptor %.*s\n",
			(int)(strchr(line, '\n') - line), line);
		n_wrong++;
	}
	if (n_wrong > 0)
		exit(EXIT_WRONG_FDS);
}

static void send_notes(const struct worker_options *options)
{
	char note[64];

	if (options->no_notify)
		return;
	for (size_t i = 0; i < options->notify.n_items; i++)
		(void)tool_notify(options->notify.items[i], true);
	if (options->notify_errno > 0) {
		(void)snprintf(note, sizeof(note), "ERRNO=%ju", (uintmax_t)options->notify_errno);
		(void)tool_notify(note, true);
	}
}

static void write_output(const struct worker_options *options)
{
	for (char **entry = environ; options->print_env && *entry; entry++)
		printf("%s\n", *entry);
	fflush(stdout);
	for (uint64_t i = 0; i < options->write_lines; i++)
		fprintf(stderr, "line %ju of %ju\n", (uintmax_t)(i + 1),
			(uintmax_t)options->write_lines);
	if (options->write_text)
		fputs(options->write_text, stderr);
}

static void take_memory(uint64_t n_bytes)
{
	volatile char *memory = tool_allocate(1, (size_t)n_bytes);

	for (uint64_t i = 0; i < n_bytes; i += 4096)
		memory[i] = 1;
	/* Kept until the end: taking it is all that was asked. */
}

static uint64_t watchdog_interval(void)
{
	const char *text = getenv("WATCHDOG_USEC");
	uint64_t usec;

	if (!text || tool_parse_unsigned(text, UINT64_MAX / 2, &usec) < 0 || usec < 2)
		return TOOL_NEVER;
	return usec / 2;
}

static void set_times(struct worker *worker)
{
	const struct worker_options *options = &worker->options;
	uint64_t start = worker->start_usec, *at = worker->manner_at;

	for (size_t i = 0; i < N_MANNERS; i++)
		at[i] = TOOL_NEVER;
	at[MANNER_EXIT] = add_usec(start, options->exit_after);
	at[MANNER_CRASH] = add_usec(start, options->crash_after);
	at[MANNER_HANG] = add_usec(start, options->hang_after);
	at[MANNER_SHUTDOWN_LISTENER] = add_usec(start, options->shutdown_listener);
	at[MANNER_CLOSE_LISTENER] = add_usec(start, options->close_listener);
	at[MANNER_DETACH_BPF] = add_usec(start, options->detach_bpf);
	if (options->flood || options->flood_stdout > 0)
		at[MANNER_FLOOD] = start;
	if (options->spam_notify)
		at[MANNER_SPAM_NOTIFY] = start;
	if (options->grow > 0)
		at[MANNER_GROW] = start;
	if (options->leak_fd)
		at[MANNER_LEAK_FD] = start;
	if (options->watchdog)
		at[MANNER_WATCHDOG] = add_usec(start, watchdog_interval());
	if (options->extend_timeout > 0)
		at[MANNER_EXTEND_TIMEOUT] = start;
}

void manners_begin(struct worker *worker)
{
	const struct worker_options *options = &worker->options;

	set_times(worker);
	write_output(options);
	send_notes(options);
	if (options->exit_at_once)
		exit((int)options->exit_code);
	if (options->fail_if_fds)
		check_fds(worker);
	if (options->chdir_to && chdir(options->chdir_to) < 0)
		tool_die(EXIT_USAGE, "%s: %s", options->chdir_to, strerror(errno));
	if (options->allocate > 0)
		take_memory(options->allocate);
	if (options->boot_delay > 0)
		sleep_usec(options->boot_delay);
}

void manners_bound(const struct worker *worker)
{
	if (worker->options.fork_grandchild)
		fork_grandchild(worker, false);
	if (worker->options.double_fork)
		fork_grandchild(worker, true);
}

void manners_ready(struct worker *worker)
{
	worker->manner_at[MANNER_DIE_AFTER_READY] =
		add_usec(tool_now_usec(), worker->options.die_after_ready);
	worker->manner_at[MANNER_EXTEND_TIMEOUT] = TOOL_NEVER;
}

void manners_accepting(struct worker *worker)
{
	const struct worker_options *options = &worker->options;

	for (size_t i = 0; i < worker->n_listeners; i++) {
		struct listener *listener = &worker->listeners[i];
		int fd = listener->source.fd, flags;

		if (options->relisten > 0 && !listener->own)
			(void)listen(fd, (int)options->relisten);
		if (options->clear_nonblock && !listener->own) {
			flags = fcntl(fd, F_GETFL);
			(void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
		}
	}
}

/* ---- at their times ---- */

static _Noreturn void hang(void)
{
	sigset_t all;

	sigfillset(&all);
	(void)sigprocmask(SIG_BLOCK, &all, NULL);
	for (;;)
		(void)pause();
}

static void flood(const struct worker_options *options)
{
	static char lines[64 * 1024];
	uint64_t left = options->flood ? sizeof(lines) : options->flood_stdout / 100;

	if (lines[0] == '\0') {
		memset(lines, 'f', sizeof(lines));
		for (size_t i = 79; i < sizeof(lines); i += 80)
			lines[i] = '\n';
	}
	while (left > 0) {
		ssize_t n = write(
			STDOUT_FILENO, lines, left < sizeof(lines) ? (size_t)left : sizeof(lines));

		if (n < 0)
			break;
		left -= (uint64_t)n;
	}
}

static void spam_notify(void)
{
	static const char *const messages[] = {
		"",
		"\n\n\n",
		"=",
		"READY=",
		"READY=2",
		"READY",
		"STATUS",
		"MAINPID=1",
		"MAINPID=-5",
		"WATCHDOG=2",
		"ERRNO=banana",
		"STOPPING=0\nREADY=0",
		"STATUS=\xff\xfe\x01",
		"EXTEND_TIMEOUT_USEC=99999999999999999999999",
		"X_NONSENSE=1",
		"FDSTORE=1",
	};
	static unsigned next;

	for (unsigned i = 0; i < 10; i++)
		(void)tool_notify(messages[next++ % ELEMENTS(messages)], false);
}

static void treat_listeners(struct worker *worker, enum manner_id id)
{
	for (size_t i = 0; i < worker->n_listeners; i++) {
		int *fd = &worker->listeners[i].source.fd;

		if (*fd < 0)
			continue;
		if (id == MANNER_SHUTDOWN_LISTENER)
			(void)shutdown(*fd, SHUT_RD);
		else if (id == MANNER_DETACH_BPF)
			(void)setsockopt(
				*fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &(int){0}, sizeof(int));
		else {
			(void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, *fd, NULL);
			close(*fd);
			*fd = -1;
		}
	}
}

static void extend_timeout(uint64_t usec)
{
	char note[64];

	(void)snprintf(note, sizeof(note), "EXTEND_TIMEOUT_USEC=%ju", (uintmax_t)usec);
	(void)tool_notify(note, true);
}

/* Does it, and returns how long until the next time. */
static uint64_t manner_do(struct worker *worker, enum manner_id id, uint64_t now_usec)
{
	const struct worker_options *options = &worker->options;

	switch (id) {
	case MANNER_DIE_AFTER_READY:
		if (options->die_between_requests && worker->n_connections > 0)
			return 0;
		_exit((int)options->exit_code);
	case MANNER_EXIT:
		_exit((int)options->exit_code);
	case MANNER_CRASH:
		manners_crash(worker);
	case MANNER_HANG:
		hang();
	case MANNER_SHUTDOWN_LISTENER:
	case MANNER_CLOSE_LISTENER:
		treat_listeners(worker, id);
		return TOOL_NEVER;
	case MANNER_DETACH_BPF:
		treat_listeners(worker, id);
		return options->detach_bpf > 0 ? options->detach_bpf : TOOL_NEVER;
	case MANNER_FLOOD:
		flood(options);
		return options->flood ? 0 : FLOOD_EVERY_USEC;
	case MANNER_SPAM_NOTIFY:
		spam_notify();
		return TOOL_USEC_PER_MSEC;
	case MANNER_WATCHDOG:
		if (now_usec - worker->start_usec > options->watchdog_stop_after)
			return TOOL_NEVER;
		(void)tool_notify("WATCHDOG=1", true);
		return watchdog_interval();
	case MANNER_EXTEND_TIMEOUT:
		extend_timeout(options->extend_timeout);
		return options->extend_timeout / 2;
	case MANNER_LEAK_FD:
		(void)open("/dev/null", O_RDONLY | O_CLOEXEC);
		return LEAK_EVERY_USEC;
	case MANNER_GROW:
		take_memory(options->grow / 10);
		return GROW_EVERY_USEC;
	case N_MANNERS:
		break;
	}
	return TOOL_NEVER;
}

void manners_tick(struct worker *worker, uint64_t now_usec)
{
	for (enum manner_id id = 0; id < N_MANNERS; id++)
		if (worker->manner_at[id] <= now_usec)
			worker->manner_at[id] = add_usec(now_usec, manner_do(worker, id, now_usec));
}

uint64_t manners_next_usec(const struct worker *worker)
{
	uint64_t next_usec = TOOL_NEVER;

	for (size_t i = 0; i < N_MANNERS; i++)
		if (worker->manner_at[i] < next_usec)
			next_usec = worker->manner_at[i];
	return next_usec;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* How it ends, when it is well-mannered: on TERM or QUIT it stops accepting, finishes what is under
 * way, and gives each kept connection --idle-linger for one more request, which is answered with
 * "Connection: close". Closing an idle connection at once would lose the request that may be on its
 * way. */

/* ---- listeners ---- */

static void add_listener(struct worker *worker, int fd, const char *name, bool own)
{
	struct listener *listener = &worker->listeners[worker->n_listeners];
	int type = 0;
	socklen_t len = sizeof(type);

	if (worker->n_listeners >= MAX_LISTENERS)
		tool_die(EXIT_LISTEN, "more than %d listeners", MAX_LISTENERS);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		tool_die(EXIT_LISTEN, "descriptor %d (%s): %s", fd, name, strerror(errno));
	/* Two options may name one socket. */
	for (size_t i = 0; i < worker->n_listeners; i++)
		if (worker->listeners[i].source.fd == fd)
			return;

	listener->source.kind = type == SOCK_DGRAM ? SOURCE_DATAGRAMS : SOURCE_LISTENER;
	listener->source.fd = fd;
	listener->own = own;
	(void)snprintf(listener->name, sizeof(listener->name), "%s", name);
	worker->n_listeners++;
}

/* As sd_listen_fds(3) says, but louder: a test must see what was wrong. */
static void take_listen_fds(struct worker *worker)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
	const char *names = getenv("LISTEN_FDNAMES");
	uint64_t value, n_fds;

	if (!n)
		return;
	if (tool_parse_unsigned(n, MAX_LISTENERS, &n_fds) < 0)
		tool_die(EXIT_WRONG_PID, "LISTEN_FDS=%s", n);
	if (!pid || tool_parse_unsigned(pid, INT32_MAX, &value) < 0 || (pid_t)value != worker->pid)
		tool_die(EXIT_WRONG_PID, "LISTEN_PID=%s, but this is process %d", pid ? pid : "",
			(int)worker->pid);

	for (int fd = 3; fd < 3 + (int)n_fds; fd++) {
		char name[64] = "";
		size_t len = names ? strcspn(names, ":") : 0;

		(void)snprintf(name, sizeof(name), "%.*s", (int)len, names ? names : "");
		if (names)
			names += len + (names[len] == ':');
		add_listener(worker, fd, name, false);
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	}
}

static void bind_listener(struct worker *worker, const char *text)
{
	bool datagrams = strncmp(text, "udp:", 4) == 0;
	struct tool_address address;
	int fd;

	if (tool_parse_address(datagrams ? text + 4 : text, &address) < 0)
		tool_die(EXIT_USAGE, "'%s' is not an address", text);
	if (address.storage.ss_family == AF_UNIX)
		(void)unlink(((struct sockaddr_un *)&address.storage)->sun_path);

	fd = socket(address.storage.ss_family,
		(datagrams ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 ||
		(address.storage.ss_family != AF_UNIX && !datagrams &&
			setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0) ||
		bind(fd, (struct sockaddr *)&address.storage, address.len) < 0 ||
		(!datagrams && listen(fd, (int)worker->options.backlog) < 0))
		tool_die(EXIT_LISTEN, "%s: %s", text, strerror(errno));
	add_listener(worker, fd, text, true);
}

/* Only looks: what is bound here comes later, after the list of descriptors was taken. */
static void find_given(struct worker *worker)
{
	const struct worker_options *options = &worker->options;

	if (options->listen_own)
		return;
	for (size_t i = 0; i < options->fds.n_items; i++) {
		uint64_t fd;

		if (tool_parse_unsigned(options->fds.items[i], INT32_MAX, &fd) < 0)
			tool_die(EXIT_USAGE, "--fd: '%s' is not a number", options->fds.items[i]);
		add_listener(worker, (int)fd, options->fds.items[i], false);
	}
	if (options->use_stdin)
		add_listener(worker, STDIN_FILENO, "stdin", false);
	if (options->fds.n_items == 0 && !options->use_stdin)
		take_listen_fds(worker);
}

static void bind_own(struct worker *worker)
{
	const struct worker_options *options = &worker->options;

	if (options->listen_own)
		bind_listener(worker, options->listen_own);
	for (size_t i = 0; i < options->listen.n_items; i++)
		bind_listener(worker, options->listen.items[i]);
	if (worker->n_listeners == 0)
		tool_die(EXIT_LISTEN, "nothing to listen on");
}

static void unlink_path(int fd)
{
	struct sockaddr_un un = {0};
	socklen_t len = sizeof(un);

	if (getsockname(fd, (struct sockaddr *)&un, &len) == 0 && un.sun_family == AF_UNIX &&
		un.sun_path[0] == '/')
		(void)unlink(un.sun_path);
}

/* ---- accepting ---- */

static void begin_accepting(struct worker *worker)
{
	worker->accepting = true;
	worker->accept_at = TOOL_NEVER;
	for (size_t i = 0; i < worker->n_listeners; i++) {
		struct listener *listener = &worker->listeners[i];
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener->source};
		int flags;

		if (listener->source.fd < 0)
			continue;
		flags = fcntl(listener->source.fd, F_GETFL);
		if (!(flags & O_NONBLOCK))
			(void)fcntl(listener->source.fd, F_SETFL, flags | O_NONBLOCK);
		if (worker->options.epoll_exclusive)
			event.events |= EPOLLEXCLUSIVE;
		if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, listener->source.fd, &event) < 0)
			tool_die(EXIT_LISTEN, "epoll_ctl: %s", strerror(errno));
	}
	manners_accepting(worker);
}

static void stop_accepting(struct worker *worker)
{
	worker->accept_at = TOOL_NEVER;
	for (size_t i = 0; i < worker->n_listeners; i++) {
		int *fd = &worker->listeners[i].source.fd;

		if (*fd < 0)
			continue;
		/* First out of the set: the daemon holds the same description, and epoll would go
		 * on reporting it after our close(). */
		if (worker->accepting)
			(void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, *fd, NULL);
		if (worker->options.unlink_at_exit)
			unlink_path(*fd);
		close(*fd);
		*fd = -1;
	}
	worker->accepting = false;
}

static void accept_some(struct worker *worker, int listener_fd)
{
	const struct worker_options *options = &worker->options;

	for (uint64_t i = 0; i < options->accept_batch; i++) {
		struct timespec delay = {
			.tv_sec = (time_t)(options->accept_delay / TOOL_USEC_PER_SEC),
			.tv_nsec = (long)(options->accept_delay % TOOL_USEC_PER_SEC) * 1000,
		};
		int fd;

		if (options->accept_delay > 0)
			(void)nanosleep(&delay, NULL);
		fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			/* Out of descriptors: the connection stays queued and the event stays on.
			 */
			if (errno == EMFILE || errno == ENFILE)
				(void)usleep(10000);
			return;
		}
		connection_accept(worker, fd);
	}
}

/* A datagram comes back with the generation, the index and the pid in front. */
static void echo_datagram(struct worker *worker, int fd)
{
	char in[2048], out[2304];
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	ssize_t n = recvfrom(fd, in, sizeof(in) - 1, MSG_DONTWAIT, (struct sockaddr *)&peer, &len);
	int n_out;

	if (n < 0)
		return;
	in[n] = '\0';
	n_out = snprintf(out, sizeof(out), "%.60s %.60s %d %s",
		worker->generation ? worker->generation : "none",
		worker->index ? worker->index : "none", (int)worker->pid, in);
	(void)sendto(fd, out, (size_t)n_out, MSG_DONTWAIT, (struct sockaddr *)&peer, len);
	worker->n_served++;
}

/* ---- life ---- */

static void say_ready(struct worker *worker)
{
	const struct worker_options *options = &worker->options;
	char message[512];

	worker->ready = true;
	worker->ready_at = TOOL_NEVER;
	if (!options->never_ready && !options->no_notify) {
		(void)snprintf(message, sizeof(message), "READY=1\nSTATUS=%s",
			options->status ? options->status : "serving");
		(void)tool_notify(message, true);
	}
	manners_ready(worker);
}

static void begin_draining(struct worker *worker, uint64_t now_usec)
{
	worker->stop_at = TOOL_NEVER;
	worker->ready_at = TOOL_NEVER;
	worker->draining = true;
	worker->idle_until = now_usec + worker->options.idle_linger;
	stop_accepting(worker);
	if (!worker->options.no_notify)
		(void)tool_notify("STOPPING=1", true);
}

static void read_signal(struct worker *worker)
{
	struct signalfd_siginfo info;

	if (read(worker->signals.fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (worker->options.ignore_term)
		return;
	if (worker->options.exit_on_term_at_once)
		_exit(0);
	if (!worker->draining && worker->stop_at == TOOL_NEVER)
		worker->stop_at = tool_now_usec() + worker->options.term_delay;
}

static void worker_setup(struct worker *worker)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &worker->signals};
	const struct worker_options *options = &worker->options;
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGQUIT);
	worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	worker->signals.kind = SOURCE_SIGNALS;
	worker->signals.fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (worker->epoll_fd < 0 || worker->signals.fd < 0 ||
		sigprocmask(SIG_BLOCK, &mask, NULL) < 0 ||
		epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->signals.fd, &event) < 0)
		tool_die(EXIT_USAGE, "cannot start: %s", strerror(errno));

	worker->stop_at = worker->idle_until = worker->next_wake_usec = TOOL_NEVER;
	worker->ready_at = tool_now_usec() + options->ready_delay;
	worker->accept_at = options->never_accept ? TOOL_NEVER
						  : worker->ready_at + options->ready_before_accept;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t worker_tick(struct worker *worker)
{
	uint64_t now_usec = tool_now_usec(), next_usec;

	/* Accepting comes first when both are due: READY=1 is then true. */
	if (worker->accept_at <= now_usec)
		begin_accepting(worker);
	if (worker->ready_at <= now_usec)
		say_ready(worker);
	if (worker->stop_at <= now_usec)
		begin_draining(worker, now_usec);
	connections_tick(worker, now_usec);
	manners_tick(worker, now_usec);

	next_usec = earlier(worker->accept_at, worker->ready_at);
	next_usec = earlier(next_usec, worker->stop_at);
	next_usec = earlier(next_usec, worker->next_wake_usec);
	if (worker->n_connections > 0 && worker->idle_until > now_usec)
		next_usec = earlier(next_usec, worker->idle_until);
	return earlier(next_usec, manners_next_usec(worker));
}

static void dispatch(struct worker *worker, struct source *source, uint32_t events)
{
	switch (source->kind) {
	case SOURCE_SIGNALS:
		read_signal(worker);
		break;
	case SOURCE_LISTENER:
		if (source->fd >= 0)
			accept_some(worker, source->fd);
		break;
	case SOURCE_DATAGRAMS:
		if (source->fd >= 0)
			echo_datagram(worker, source->fd);
		break;
	case SOURCE_CONNECTION:
		connection_event(worker, (struct connection *)(void *)source, events);
		break;
	}
}

static void worker_run(struct worker *worker)
{
	struct epoll_event events[64];

	while (!worker->draining || worker->n_connections > 0 || worker->options.never_exit) {
		uint64_t next_usec = worker_tick(worker), now_usec = tool_now_usec();
		uint64_t usec = next_usec > now_usec ? next_usec - now_usec : 0;
		struct timespec ts = {
			.tv_sec = (time_t)(usec / TOOL_USEC_PER_SEC),
			.tv_nsec = (long)(usec % TOOL_USEC_PER_SEC) * 1000,
		};
		int n;

		if (worker->draining && worker->n_connections == 0 && !worker->options.never_exit)
			break;
		n = epoll_pwait2(worker->epoll_fd, events, ELEMENTS(events),
			next_usec == TOOL_NEVER ? NULL : &ts, NULL);
		if (n < 0 && errno != EINTR)
			tool_die(EXIT_USAGE, "epoll_pwait2: %s", strerror(errno));
		for (int i = 0; i < n; i++)
			dispatch(worker, events[i].data.ptr, events[i].events);
	}
}

/* In the place of a tenured that is to be tried (`tenured --check-state`): what TENURE_TRIAL says.
 */
static int trial(void)
{
	const char *how = getenv("TENURE_TRIAL");

	if (!how)
		return EXIT_USAGE;
	if (strcmp(how, "crash") == 0) {
		(void)signal(SIGSEGV, SIG_DFL); /* sanitizers have their own way */
		(void)raise(SIGSEGV);
	}
	if (strcmp(how, "hang") == 0)
		for (;;)
			(void)pause();
	if (strcmp(how, "old") == 0) {
		fputs("tenured 0.0.1: the saved state is not used: a newer version of tenured "
		      "wrote it\n",
			stderr);
		return 1;
	}
	/* Otherwise it is content, but not as tenured is. */
	puts("fine");
	return 0;
}

int main(int argc, char **argv)
{
	static struct worker worker = {.epoll_fd = -1};

	if (argc == 2 && strcmp(argv[1], "--check-state") == 0)
		return trial();
	worker.start_usec = tool_now_usec();
	worker.initial_fds = paths_list_fds();
	worker.pid = getpid();
	worker.generation = getenv("TENURE_GENERATION");
	worker.index = getenv("TENURE_WORKER");
	worker_options_read(&worker.options, argc, argv);

	if (!worker.options.exit_at_once)
		find_given(&worker);
	manners_begin(&worker);
	worker_setup(&worker); /* first the signals: who sees it listen may send one */
	bind_own(&worker);
	manners_bound(&worker);
	worker_run(&worker);

	worker_options_done(&worker.options);
	free(worker.initial_fds);
	close(worker.signals.fd);
	close(worker.epoll_fd);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A server of several worker processes on one listening socket, for supervisors that start just one
 * process; and the measure of how long the same workers take when nobody supervises them.
 *
 *     prefork [--workers N] [--ready-fd FD] --fd FD|--starter|--bare -- COMMAND...
 *
 * Each worker runs COMMAND --fd FD, TENURE_WORKER in its environment, NOTIFY_SOCKET for READY=1.
 * When all have said it, a line goes to --ready-fd and it closes. TERM is passed on; prefork ends
 * when all workers have. --starter takes descriptor and generation from SERVER_STARTER_PORT and
 * SERVER_STARTER_GENERATION. --bare binds a socket, prints how many microseconds it took until the
 * first worker and until all were ready, and ends. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tool.h"

enum { WORKERS_MAX = 64, COMMAND_MAX = 60, EXIT_USAGE = 2, EXIT_BROKEN = 3 };

struct prefork {
	char **command;
	int n_command;
	unsigned n_workers, n_ready, n_alive;
	int listen_fd, ready_fd, notify_fd, signal_fd;
	bool bare, ending;
	pid_t pids[WORKERS_MAX]; /* 0: reaped */
	uint64_t start_usec, first_usec;
	sigset_t original_mask;
};

static int parse_number(const char *text)
{
	uint64_t value;

	if (!text || tool_parse_unsigned(text, 65535, &value) < 0)
		tool_die(EXIT_USAGE, "'%s' is not a number", text ? text : "");
	return (int)value;
}

/* HOST:PORT=FD[;...]: the first one's descriptor. */
static int starter_fd(void)
{
	const char *ports = getenv("SERVER_STARTER_PORT");
	const char *generation = getenv("SERVER_STARTER_GENERATION");
	const char *equals = ports ? strchr(ports, '=') : NULL;
	char *copy;
	int fd;

	if (!equals || !generation)
		tool_die(EXIT_USAGE, "not started by start_server");
	copy = strdup(equals + 1);
	if (!copy || setenv("TENURE_GENERATION", generation, 1) < 0)
		tool_die(EXIT_BROKEN, "%s", strerror(errno));
	copy[strcspn(copy, ";")] = '\0';
	fd = parse_number(copy);
	free(copy);
	return fd;
}

static int bind_some(void)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0 ||
		listen(fd, 128) < 0)
		tool_die(EXIT_BROKEN, "cannot listen: %s", strerror(errno));
	return fd;
}

static void read_options(struct prefork *p, int argc, char **argv)
{
	int i = 1;

	for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--workers") == 0 && i + 1 < argc)
			p->n_workers = (unsigned)parse_number(argv[++i]);
		else if (strcmp(argv[i], "--ready-fd") == 0 && i + 1 < argc)
			p->ready_fd = parse_number(argv[++i]);
		else if (strcmp(argv[i], "--fd") == 0 && i + 1 < argc)
			p->listen_fd = parse_number(argv[++i]);
		else if (strcmp(argv[i], "--starter") == 0)
			p->listen_fd = starter_fd();
		else if (strcmp(argv[i], "--bare") == 0)
			p->bare = true;
		else
			tool_die(EXIT_USAGE, "what is '%s'?", argv[i]);
	}
	p->command = argv + i + 1;
	p->n_command = argc - i - 1;
	if (p->bare)
		p->listen_fd = bind_some();
	if (p->n_workers < 1 || p->n_workers > WORKERS_MAX || p->n_command < 1 ||
		p->n_command > COMMAND_MAX || p->listen_fd < 0)
		tool_die(EXIT_USAGE, "prefork [--workers N] [--ready-fd FD] --fd FD|--starter|"
				     "--bare -- COMMAND...");
	/* The workers get the listening socket and nothing else. */
	if (p->ready_fd >= 0 && fcntl(p->ready_fd, F_SETFD, FD_CLOEXEC) < 0)
		tool_die(EXIT_USAGE, "--ready-fd: %s", strerror(errno));
}

/* An abstract address of the kernel's choice. */
static void open_notify(struct prefork *p)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(address);

	p->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->notify_fd < 0 ||
		bind(p->notify_fd, (const struct sockaddr *)&address, sizeof(sa_family_t)) < 0 ||
		getsockname(p->notify_fd, (struct sockaddr *)&address, &len) < 0 ||
		len >= sizeof(address))
		tool_die(EXIT_BROKEN, "notify socket: %s", strerror(errno));
	address.sun_path[0] = '@';
	address.sun_path[len - sizeof(sa_family_t)] = '\0';
	if (setenv("NOTIFY_SOCKET", address.sun_path, 1) < 0)
		tool_die(EXIT_BROKEN, "%s", strerror(errno));
}

static void open_signals(struct prefork *p)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &mask, &p->original_mask) < 0)
		tool_die(EXIT_BROKEN, "sigprocmask: %s", strerror(errno));
	p->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p->signal_fd < 0)
		tool_die(EXIT_BROKEN, "signalfd: %s", strerror(errno));
}

static void start_workers(struct prefork *p)
{
	char fd_text[16], index[16], fd_option[] = "--fd";
	char *argv[COMMAND_MAX + 3];
	posix_spawnattr_t attributes;

	for (int i = 0; i < p->n_command; i++)
		argv[i] = p->command[i];
	(void)snprintf(fd_text, sizeof(fd_text), "%d", p->listen_fd);
	argv[p->n_command] = fd_option;
	argv[p->n_command + 1] = fd_text;
	argv[p->n_command + 2] = NULL;
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &p->original_mask);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	p->start_usec = tool_now_usec();
	for (unsigned i = 0; i < p->n_workers; i++) {
		int r;
		(void)snprintf(index, sizeof(index), "%u", i);
		if (setenv("TENURE_WORKER", index, 1) < 0)
			tool_die(EXIT_BROKEN, "%s", strerror(errno));
		r = posix_spawn(&p->pids[i], argv[0], NULL, &attributes, argv, environ);
		if (r != 0)
			tool_die(EXIT_BROKEN, "%s: %s", argv[0], strerror(r));
		p->n_alive++;
	}
	posix_spawnattr_destroy(&attributes);
}

static void signal_workers(struct prefork *p, int number)
{
	for (unsigned i = 0; i < p->n_workers; i++)
		if (p->pids[i] > 0)
			(void)kill(p->pids[i], number);
}

static void all_ready(struct prefork *p)
{
	uint64_t now_usec = tool_now_usec();

	if (p->bare) {
		printf("{\"first_usec\":%ju,\"all_usec\":%ju}\n",
			(uintmax_t)(p->first_usec - p->start_usec),
			(uintmax_t)(now_usec - p->start_usec));
		p->ending = true;
		signal_workers(p, SIGTERM);
	}
	if (p->ready_fd >= 0) {
		if (write(p->ready_fd, "\n", 1) != 1)
			tool_die(EXIT_BROKEN, "--ready-fd: %s", strerror(errno));
		close(p->ready_fd);
		p->ready_fd = -1;
	}
}

static void read_notify(struct prefork *p)
{
	char message[1024];
	ssize_t n;

	while ((n = recv(p->notify_fd, message, sizeof(message) - 1, 0)) >= 0) {
		message[n] = '\0';
		if (strncmp(message, "READY=1", 7) != 0)
			continue;
		if (p->n_ready++ == 0)
			p->first_usec = tool_now_usec();
		if (p->n_ready == p->n_workers)
			all_ready(p);
	}
}

/* Returns false when one ended that should not have. */
static bool reap(struct prefork *p)
{
	bool expected = true;
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		for (unsigned i = 0; i < p->n_workers; i++)
			if (p->pids[i] == pid) {
				p->pids[i] = 0;
				p->n_alive--;
				expected = expected && p->ending;
			}
	return expected;
}

static void read_signals(struct prefork *p)
{
	struct signalfd_siginfo info;

	while (read(p->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo != SIGCHLD) {
			p->ending = true;
			signal_workers(p, SIGTERM);
		}
	/* Who starts several to be one dies as one. */
	if (!reap(p)) {
		p->ending = true;
		signal_workers(p, SIGKILL);
	}
}

int main(int argc, char **argv)
{
	struct prefork p = {.n_workers = 1, .listen_fd = -1, .ready_fd = -1};

	read_options(&p, argc, argv);
	open_notify(&p);
	open_signals(&p);
	start_workers(&p);
	while (p.n_alive > 0) {
		struct pollfd fds[] = {
			{.fd = p.notify_fd, .events = POLLIN},
			{.fd = p.signal_fd, .events = POLLIN},
		};
		if (poll(fds, ELEMENTS(fds), -1) < 0 && errno != EINTR)
			tool_die(EXIT_BROKEN, "poll: %s", strerror(errno));
		if (fds[0].revents)
			read_notify(&p);
		if (fds[1].revents)
			read_signals(&p);
	}
	return p.n_ready == p.n_workers ? 0 : 1;
}

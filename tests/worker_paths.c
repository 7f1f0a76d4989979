/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void set_body(struct answer *answer, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void set_body(struct answer *answer, const char *format, ...)
{
	va_list ap;
	int n;

	free(answer->body);
	va_start(ap, format);
	n = vasprintf(&answer->body, format, ap);
	va_end(ap);
	if (n < 0)
		tool_die(EXIT_USAGE, "out of memory");
	answer->n_body = (size_t)n;
}

/* The number in "name=NUMBER" somewhere in the query, or what it is by default. */
static uint64_t query_number(const char *query, const char *name, uint64_t otherwise)
{
	size_t len = strlen(name);

	for (const char *p = query; p && *p; p = strchr(p, '&') ? strchr(p, '&') + 1 : NULL)
		if (strncmp(p, name, len) == 0 && p[len] == '=')
			return strtoull(p + len + 1, NULL, 10);
	return otherwise;
}

/* ---- what this process is ---- */

char *paths_list_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;
	char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);

	if (!directory || !file)
		tool_die(EXIT_USAGE, "/proc/self/fd: %s", strerror(errno));
	while ((entry = readdir(directory))) {
		char target[256] = "?";
		int fd = atoi(entry->d_name), flags;
		ssize_t n;

		if (entry->d_name[0] == '.' || fd == dirfd(directory))
			continue;
		n = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1);
		if (n >= 0)
			target[n] = '\0';
		flags = fcntl(fd, F_GETFD);
		fprintf(file, "%d %s %s\n", fd, flags & FD_CLOEXEC ? "cloexec" : "inherited",
			target);
	}
	closedir(directory);
	fclose(file);
	return text;
}

static void path_root(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	(void)query, (void)fd;
	set_body(answer, "generation %s worker %s pid %d\n",
		worker->generation ? worker->generation : "none",
		worker->index ? worker->index : "none", (int)worker->pid);
}

static void path_up(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	const char *path = worker->options.unhealthy_if;
	FILE *file = path ? fopen(path, "re") : NULL;
	char reason[256] = "unhealthy\n";

	(void)query, (void)fd;
	answer->status = file || worker->options.unhealthy ? 503 : 200;
	if (file) {
		reason[fread(reason, 1, sizeof(reason) - 1, file)] = '\0';
		fclose(file);
	}
	set_body(answer, "%s", answer->status == 503 ? reason : "up\n");
}

static void path_pid(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	(void)query, (void)fd;
	set_body(answer, "%d\n", (int)worker->pid);
}

/* The CPU on which the connection's packets arrive, and those on which this process may run. */
static void path_cpu(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	int incoming = -1;
	socklen_t len = sizeof(incoming);
	char line[512], allowed[256] = "?";
	FILE *file = fopen("/proc/self/status", "re");

	(void)worker, (void)query;
	(void)getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &incoming, &len);
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Cpus_allowed_list: %255s", allowed) == 1)
			break;
	if (file)
		fclose(file);
	set_body(answer, "%d %s\n", incoming, allowed);
}

static void path_env(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	(void)worker, (void)fd;
	const char *value = query ? getenv(query) : NULL;
	size_t size = 0;
	FILE *file;

	if (query) {
		answer->status = value ? 200 : 404;
		set_body(answer, "%s\n", value ? value : "not set");
		return;
	}
	file = open_memstream(&answer->body, &size);
	for (char **entry = environ; file && *entry; entry++)
		fprintf(file, "%s\n", *entry);
	if (!file || fclose(file) != 0)
		tool_die(EXIT_USAGE, "out of memory");
	answer->n_body = size;
}

static void path_cwd(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	char path[4096];

	(void)worker, (void)query, (void)fd;
	set_body(answer, "%s\n", getcwd(path, sizeof(path)) ? path : strerror(errno));
}

static void path_exe(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	(void)worker, (void)query, (void)fd;
	path[n < 0 ? 0 : n] = '\0';
	set_body(answer, "%s\n", path);
}

/* As it is now with "?now", else as it was when the program began. */
static void path_fds(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	char *now = query ? paths_list_fds() : NULL;

	(void)fd;
	set_body(answer, "%s", now ? now : worker->initial_fds);
	free(now);
}

static void path_user(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	gid_t groups[256];
	int n_groups = getgroups((int)ELEMENTS(groups), groups);
	uid_t real, effective, saved;
	gid_t real_gid, effective_gid, saved_gid;
	char list[4096] = "";
	size_t len = 0;

	(void)worker, (void)query, (void)fd;
	if (getresuid(&real, &effective, &saved) < 0 ||
		getresgid(&real_gid, &effective_gid, &saved_gid) < 0)
		return;
	for (int i = 0; i < n_groups && len < sizeof(list) - 16; i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, " %u", groups[i]);
	set_body(answer, "uid %u %u %u\ngid %u %u %u\ngroups%s\n", real, effective, saved, real_gid,
		effective_gid, saved_gid, list);
}

static void path_process(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	struct rlimit nofile = {0};
	sigset_t blocked, ignored;
	struct sigaction action;
	mode_t mask = umask(0);

	(void)query, (void)fd;
	(void)umask(mask);
	(void)getrlimit(RLIMIT_NOFILE, &nofile);
	(void)sigprocmask(SIG_SETMASK, NULL, &blocked);
	sigemptyset(&ignored);
	for (int number = 1; number < 32; number++)
		if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
			sigaddset(&ignored, number);
	set_body(answer,
		"pid %d\nppid %d\npgid %d\nsid %d\nnofile %ju %ju\numask %03o\nnice %d\n"
		"ignored-pipe %d\nignored-hup %d\nserved %ju\n",
		(int)worker->pid, (int)getppid(), (int)getpgrp(), (int)getsid(0),
		(uintmax_t)nofile.rlim_cur, (uintmax_t)nofile.rlim_max, (unsigned)mask,
		getpriority(PRIO_PROCESS, 0), sigismember(&ignored, SIGPIPE),
		sigismember(&ignored, SIGHUP), (uintmax_t)worker->n_served);
}

/* Who the client is and which address it connected to. */
static void path_peer(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	struct sockaddr_storage peer = {0};
	socklen_t len = sizeof(peer);
	char text[INET6_ADDRSTRLEN] = "unix";
	const void *address = &((struct sockaddr_in *)&peer)->sin_addr;

	(void)worker, (void)query;
	if (getpeername(fd, (struct sockaddr *)&peer, &len) < 0)
		return;
	if (peer.ss_family == AF_INET6)
		address = &((struct sockaddr_in6 *)&peer)->sin6_addr;
	if (peer.ss_family == AF_INET || peer.ss_family == AF_INET6)
		(void)inet_ntop(peer.ss_family, address, text, sizeof(text));
	set_body(answer, "%s\n", text);
}

static void path_listeners(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	size_t size = 0;
	FILE *file = open_memstream(&answer->body, &size);

	(void)query, (void)fd;
	for (size_t i = 0; file && i < worker->n_listeners; i++)
		fprintf(file, "%d %s\n", worker->listeners[i].source.fd, worker->listeners[i].name);
	if (!file || fclose(file) != 0)
		tool_die(EXIT_USAGE, "out of memory");
	answer->n_body = size;
}

/* ---- good and bad ways to answer ---- */

static void path_slow(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	path_root(worker, query, fd, answer);
	answer->delay_usec = query_number(query, "ms", 1000) * TOOL_USEC_PER_MSEC;
}

static void path_drip(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	path_root(worker, query, fd, answer);
	answer->mid_delay_usec = query_number(query, "ms", 1000) * TOOL_USEC_PER_MSEC;
}

static void path_big(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	(void)worker, (void)fd;
	answer->filler = query_number(query, "bytes", 1 << 20);
}

static void path_chunked(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	path_root(worker, query, fd, answer);
	answer->chunked = true;
}

static void path_status(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	path_root(worker, query, fd, answer);
	answer->status = (unsigned)query_number(query, "code", 500);
}

static void path_crash(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	(void)worker, (void)fd;
	answer->status = query_number(query, "mid", 0) ? 200 : 0;
	answer->missing = 100;
	answer->end = END_CRASH;
}

static void path_reset(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	(void)worker, (void)fd;
	answer->status = query_number(query, "mid", 0) ? 200 : 0;
	answer->missing = 100;
	answer->end = END_RESET;
	/* A reset overtakes what was sent just before: give the client time to read it. */
	answer->mid_delay_usec = answer->status ? 50 * TOOL_USEC_PER_MSEC : 0;
}

static void path_eof(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	(void)worker, (void)query, (void)fd;
	answer->status = 0;
	answer->end = END_CLOSE;
}

static void path_short(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	path_root(worker, query, fd, answer);
	answer->missing = 100;
	answer->end = END_CLOSE;
}

static void path_never(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	(void)worker, (void)query, (void)fd;
	answer->status = 0;
	answer->end = END_SILENT;
}

/* Not HTTP: the body is all that is sent. */
static void path_garbage(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	(void)worker, (void)query, (void)fd;
	answer->status = 0;
	set_body(answer, "ERROR: this is not HTTP\r\n\r\n");
	answer->end = END_CLOSE;
}

/* Holds up the whole process, as a program without threads does that computes. */
static void path_block(struct worker *worker, const char *query, int fd, struct answer *answer)
{
	uint64_t msec = query_number(query, "ms", 100);
	struct timespec ts = {
		.tv_sec = (time_t)(msec / 1000), .tv_nsec = (long)(msec % 1000) * 1000000};

	(void)nanosleep(&ts, NULL);
	path_root(worker, query, fd, answer);
}

struct path_entry {
	const char *path;
	void (*answer)(struct worker *worker, const char *query, int fd, struct answer *answer);
};

static const struct path_entry paths[] = {
	{"/",	      path_root     },
	{"/block",	   path_block    },
	{"/big",	 path_big	 },
	{"/chunked",   path_chunked	 },
	{"/cpu",	 path_cpu	 },
	{"/crash",	   path_crash    },
	{"/cwd",	 path_cwd	 },
	{"/drip",	  path_drip	   },
	{"/env",	 path_env	 },
	{"/eof",	 path_eof	 },
	{"/exe",	 path_exe	 },
	{"/fds",	 path_fds	 },
	{"/garbage",   path_garbage	 },
	{"/listeners", path_listeners},
	{"/never",	   path_never    },
	{"/peer",	  path_peer	   },
	{"/pid",	 path_pid	 },
	{"/process",   path_process	 },
	{"/reset",	   path_reset    },
	{"/short",	   path_short    },
	{"/slow",	  path_slow	   },
	{"/status",    path_status   },
	{"/up",	path_up       },
	{"/user",	  path_user	   },
};

void paths_answer(struct worker *worker, char *target, int fd, struct answer *ret)
{
	char *query = strchr(target, '?');

	*ret = (struct answer){.status = 200, .end = END_KEEP};
	if (query)
		*query++ = '\0';
	for (size_t i = 0; i < ELEMENTS(paths); i++)
		if (strcmp(paths[i].path, target) == 0) {
			paths[i].answer(worker, query, fd, ret);
			return;
		}
	ret->status = 404;
	set_body(ret, "no such path\n");
}

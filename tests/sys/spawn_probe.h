/* SPDX-License-Identifier: Apache-2.0 */
/* A child that tells what it was given: the test program itself, executed with the argument
 * "probe", writes one "key value" line each to its standard output. */
#pragma once

#include <dirent.h>
#include <grp.h>
#include <inttypes.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "sys/spawn.h"
#include "sys_test.h"

static inline void probe_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;

	while ((e = readdir(d))) {
		int fd = atoi(e->d_name);
		struct stat st;

		if (e->d_name[0] == '.' || fd == dirfd(d) || fstat(fd, &st) < 0)
			continue;
		if (S_ISCHR(st.st_mode))
			printf("fd%d null\n", fd);
		else
			printf("fd%d %" PRIu64 "\n", fd, (uint64_t)st.st_ino);
	}
	(void)closedir(d);
}

static inline void probe_status(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256], key[32], value[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%31[^:]: %127[^\n]", key, value) == 2)
			printf("%s %s\n", key, value);
	if (f)
		(void)fclose(f);
}

static inline void probe_cgroup(void)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[4096];

	while (f && fgets(line, sizeof(line), f))
		if (startswith(line, "0::"))
			printf("cgroup %s", line + 3);
	if (f)
		(void)fclose(f);
}

/* What systemd would hold LISTEN_PIDFDID against; only where pidfds have numbers of their own. */
static inline void probe_pidfd(void)
{
	enum { PIDFS = 0x50494446 };
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct statfs fs;
	struct stat st;

	if (fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == PIDFS && fstat(fd, &st) == 0)
		printf("pidfdid %" PRIu64 "\n", (uint64_t)st.st_ino);
	close_fd(fd);
}

static inline int probe_main(char **argv)
{
	char directory[4096] = "?";
	struct rlimit nofile;
	mode_t mask = umask(0);

	probe_descriptors();
	probe_status();
	probe_cgroup();
	probe_pidfd();
	(void)getrlimit(RLIMIT_NOFILE, &nofile);
	printf("argv0 %s\npid %d\npgrp %d\nppid %d\n", argv[0], getpid(), getpgrp(), getppid());
	printf("directory %s\n", getcwd(directory, sizeof(directory)));
	printf("umask %o\nnofile %" PRIu64 "\n", mask, (uint64_t)nofile.rlim_cur);
	printf("uid %u\ngid %u\n", getuid(), getgid());
	for (char **e = environ; *e; e++)
		printf("env %s\n", *e);
	return 0;
}

/* The value of a line, in a buffer that the next call of the same line of code may use; "" when
 * there is none. */
static inline char *probe_value(const char *text, const char *key)
{
	_cleanup_free_ char *start = xasprintf("\n%s ", key);
	const char *found = strstr(text, start);

	if (!found)
		return strdup("");
	found += strlen(start);
	return strndup(found, strcspn(found, "\n"));
}

#define ck_assert_probe(text, key, expected)                                                       \
	do {                                                                                       \
		_cleanup_free_ char *probed_ = probe_value(text, key);                             \
		ck_assert_str_eq(probed_, expected);                                               \
	} while (0)
#define ck_assert_probe_number(text, key, expected)                                                \
	do {                                                                                       \
		_cleanup_free_ char *number_ = xasprintf("%" PRIu64, (uint64_t)(expected));        \
		ck_assert_probe(text, key, number_);                                               \
	} while (0)

static char *const probe_argv[] = {(char *)(uintptr_t) "a name", (char *)(uintptr_t) "probe", NULL};
static char *const probe_envp[] = {(char *)(uintptr_t) "A=b", (char *)(uintptr_t) "LISTEN_PID=0",
	(char *)(uintptr_t) "C=d", NULL};

#define PROBE                                                                                      \
	((struct spawn_request){                                                                   \
		.argv = probe_argv,                                                                \
		.path = "/proc/self/exe",                                                          \
		.exec_fd = -1,                                                                     \
		.envp = probe_envp,                                                                \
		.directory_fd = -1,                                                                \
		.cgroup_fd = -1,                                                                   \
	})

/* Spawn with these descriptors and a pipe as output; what it said (after a newline), when it has
 * ended well. */
static inline char *probe_run(struct spawn_request *request, const struct spawn_fd *fds, size_t n)
{
	struct spawn_fd with_output[64];
	struct spawn_result result;
	size_t len = 1;
	char *text = calloc(1, 65536);
	int pipe_fds[2], r;
	ssize_t got;

	ck_assert_int_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
	ck_assert_uint_lt(n, ARRAY_SIZE(with_output));
	for (size_t i = 0; i < n; i++)
		with_output[i] = fds[i];
	with_output[n] = (struct spawn_fd){.source = pipe_fds[1], .target = STDOUT_FILENO};
	request->fds = with_output;
	request->n_fds = n + 1;
	r = spawn_process(request, &result);
	ck_assert_msg(r == 0, "%s: %s", spawn_step_to_string(result.failed_at), strerror(-r));
	ck_assert_int_eq(result.failed_at, SPAWN_OK);
	ck_assert_int_ge(result.pidfd, 0);
	close(pipe_fds[1]);
	text[0] = '\n';
	while ((got = read(pipe_fds[0], text + len, 65535 - len)) > 0)
		len += (size_t)got;
	close(pipe_fds[0]);
	close(result.pidfd);
	ck_assert_int_eq(wait_status(result.pid), 0);
	ck_assert_probe_number(text, "pid", result.pid);
	ck_assert_probe_number(text, "pgrp", result.pid);
	ck_assert_probe_number(text, "ppid", getpid());
	return text;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that are found by what was written down of them, and how they ended. */
#include <ctype.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "base/parse.h"
#include "sys/process.h"
#include "sys/procfs.h"

/* pid (name) state ppid pgrp session ... starttime; fields are counted from 1. */
enum { FIELD_PGRP = 5, FIELD_STARTTIME = 22 };

static int read_field(pid_t pid, unsigned field, uint64_t *ret)
{
	_cleanup_close_ int fd = -1;
	char path[64], buf[1024], *p;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);
	if (n < 0)
		return procfs_error(errno);
	buf[n] = '\0';
	p = strrchr(buf, ')');
	for (unsigned at = 2; p && at < field; at++) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	if (!p || !isdigit((unsigned char)*p))
		return -EBADMSG;
	*ret = strtoull(p, NULL, 10);
	return 0;
}

int process_start_time(pid_t pid, uint64_t *ret)
{
	return read_field(pid, FIELD_STARTTIME, ret);
}

int process_uid(pid_t pid, uid_t *ret)
{
	_cleanup_fclose_ FILE *f = NULL;
	char text[256];
	unsigned uid;

	(void)snprintf(text, sizeof(text), "/proc/%d/status", (int)pid);
	f = fopen(text, "re");
	if (!f)
		return procfs_error(errno);
	while (fgets(text, sizeof(text), f))
		if (sscanf(text, "Uid: %u", &uid) == 1) {
			*ret = uid;
			return 0;
		}
	return -ESRCH;
}

int process_of_pidfd(int pidfd, pid_t *ret)
{
	_cleanup_fclose_ FILE *f = NULL;
	char text[128];
	unsigned pid;

	(void)snprintf(text, sizeof(text), "/proc/self/fdinfo/%d", pidfd);
	f = fopen(text, "re");
	while (f && fgets(text, sizeof(text), f)) {
		const char *rest = startswith(text, "Pid:");

		if (!rest)
			continue;
		text[strcspn(text, "\n")] = '\0';
		if (parse_uint(rest + strspn(rest, " \t"), 1, INT32_MAX, &pid) < 0)
			return -ESRCH;
		*ret = (pid_t)pid;
		return 0;
	}
	return -EINVAL;
}

bool process_has_ended(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

typedef bool (*process_test_fn)(pid_t pid, const void *argument);

/* All that pass a test, but ourselves. */
static int find(process_test_fn test, const void *argument, pid_t **ret, size_t *ret_n)
{
	_cleanup_closedir_ DIR *d = opendir("/proc");
	_cleanup_free_ pid_t *list = NULL;
	size_t n = 0, capacity = 0;
	struct dirent *e;

	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		unsigned pid;

		if (parse_uint(e->d_name, 1, INT32_MAX, &pid) < 0 || (pid_t)pid == getpid() ||
			!test((pid_t)pid, argument))
			continue;
		if (array_reserve(&list, &capacity, n + 1, sizeof(*list)) < 0)
			return -ENOMEM;
		list[n++] = (pid_t)pid;
	}
	*ret = TAKE_PTR(list);
	*ret_n = n;
	return 0;
}

struct variable {
	const char *name, *value;
};

static bool has_variable(pid_t pid, const void *argument)
{
	const struct variable *v = argument;
	_cleanup_free_ char *value = NULL;

	return process_environment(pid, v->name, &value) >= 0 && streq(value, v->value);
}

static bool is_in_group(pid_t pid, const void *argument)
{
	uint64_t group;

	return read_field(pid, FIELD_PGRP, &group) >= 0 &&
	       group == (uint64_t) * (const pid_t *)argument;
}

int process_find_by_environment(const char *name, const char *value, pid_t **ret, size_t *ret_n)
{
	return find(has_variable, &(struct variable){name, value}, ret, ret_n);
}

int process_find_group(pid_t pgid, pid_t **ret, size_t *ret_n)
{
	return find(is_in_group, &pgid, ret, ret_n);
}

/* --- how it ended --------------------------------------------------------- */

/* Newer than the C library's headers; linux/pidfd.h since Linux 6.13, exit_code since 6.15. */
struct pidfd_info {
	uint64_t mask, cgroup_id;
	uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
	int32_t exit_code;
};
#define INFO_EXIT (UINT64_C(1) << 3)
#define GET_INFO _IOWR(0xff, 11, struct pidfd_info)

int process_exit_status(int pidfd, int *ret_code, int *ret_status)
{
	struct pidfd_info info = {.mask = INFO_EXIT};

	if (ioctl(pidfd, GET_INFO, &info) < 0)
		return errno == ESRCH ? -ESRCH : -EOPNOTSUPP;
	if (!(info.mask & INFO_EXIT))
		return -EAGAIN;
	if (WIFEXITED(info.exit_code)) {
		*ret_code = CLD_EXITED;
		*ret_status = WEXITSTATUS(info.exit_code);
	} else {
		*ret_code = WCOREDUMP(info.exit_code) ? CLD_DUMPED : CLD_KILLED;
		*ret_status = WTERMSIG(info.exit_code);
	}
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What would be run, before it is run: found, looked at and held on to. */
#include "sys/spawn.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

static int check_executable(int directory_fd, const char *path)
{
	struct stat st;

	if (fstatat(directory_fd, path, &st, 0) < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	if (!S_ISREG(st.st_mode))
		return -EACCES;
	return faccessat(directory_fd, path, X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

int spawn_find_program(const char *name, const char *path_env, int directory_fd, char **ret)
{
	int r, result = -ENOENT;

	if (!*name)
		return -ENOENT;
	if (strchr(name, '/')) {
		r = check_executable(directory_fd, name);
		if (r < 0)
			return r;
		*ret = strdup(name);
		return *ret ? 0 : -ENOMEM;
	}
	if (!path_env)
		path_env = "/usr/local/bin:/usr/bin:/bin";
	for (const char *p = path_env, *end;; p = end + 1) {
		_cleanup_free_ char *path = NULL;

		/* An empty element is the directory itself. */
		end = strchrnul(p, ':');
		path = end == p ? xasprintf("./%s", name)
				: xasprintf("%.*s/%s", (int)(end - p), p, name);
		if (!path)
			return -ENOMEM;
		r = check_executable(directory_fd, path);
		if (r >= 0) {
			*ret = TAKE_PTR(path);
			return 0;
		}
		if (r == -EACCES)
			result = r;
		if (!*end)
			return result;
	}
}

int spawn_pin_executable(int directory_fd, const char *path)
{
	_cleanup_close_ int fd = -1, content = -1;
	char magic[SELFMAG], again[sizeof("/proc/self/fd/") + 11];
	struct stat st;

	fd = openat(directory_fd, path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EACCES;
	/* Through the descriptor, so that what is read is what is run. */
	(void)snprintf(again, sizeof(again), "/proc/self/fd/%d", fd);
	content = open(again, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (content < 0)
		return errno == EACCES ? -ENOEXEC : -errno;
	if (pread(content, magic, sizeof(magic), 0) != sizeof(magic) ||
		memcmp(magic, ELFMAG, SELFMAG) != 0)
		return -ENOEXEC;
	return TAKE_FD(fd);
}

int spawn_raise_nofile(struct rlimit *ret_original)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	*ret_original = limit;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

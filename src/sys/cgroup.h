/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups of version 2, as files below a directory that is open: cgroups(7), and
 * Documentation/admin-guide/cgroup-v2.rst of the kernel. A directory's descriptor must be open for
 * reading, not O_PATH. Nothing here needs a privilege beyond the right to write there. */
#pragma once

#include <sys/types.h>

#include "base/util.h"

enum cgroup_controller {
	CGROUP_CPU = 1 << 0,
	CGROUP_IO = 1 << 1,
	CGROUP_MEMORY = 1 << 2,
	CGROUP_PIDS = 1 << 3,
	CGROUP_HUGETLB = 1 << 4,
};
enum { CGROUP_CONTROLLERS_ALL = (1 << 5) - 1 };

/* The names of a set, with a blank between them. The caller frees. */
char *cgroup_controllers_to_string(unsigned controllers);
/* Those that the text names; others are left out. */
unsigned cgroup_controllers_from_string(const char *text);

/* Where version 2 is mounted. The caller frees. -ENOENT: nowhere usual. */
int cgroup_mount(char **ret);
/* The directory of the cgroup that this process is in, if it is to be seen from here. The caller
 * frees. -ENOENT, -ENOMEDIUM: it is not. */
int cgroup_own(char **ret);
/* The same of another process, as the kernel tells it to us; it is not looked whether it is there.
 * -ENOENT: not known. */
int cgroup_of(pid_t pid, char **ret);
/* Has systemd, or somebody else who honours user.delegate and trusted.delegate, left it to its
 * processes? */
bool cgroup_is_delegated(const char *path);
/* May one be made in it, and processes be moved? 0, -EROFS, -EACCES ... */
int cgroup_is_writable(const char *path);

/* Make it in that directory, or take what is there; a descriptor of it. */
int cgroup_make(int directory, const char *name, int *ret);
/* -ENOENT: there is none of that name. */
int cgroup_open(int directory, const char *name, int *ret);
/* Remove it and all below. 0, also when there is none; -EBUSY: there are processes in it. */
int cgroup_remove(int directory, const char *name);
/* Move a process (all its threads) into it. */
int cgroup_join(int fd, pid_t pid);
/* Are there processes in it or below? 1, 0, or -errno. */
int cgroup_populated(int fd);
/* A descriptor that has EPOLLPRI when the answer to that changes. */
int cgroup_watch(int fd, int *ret);
/* All processes in it and below that this pid namespace sees. The caller frees. */
int cgroup_processes(int fd, pid_t **ret, size_t *ret_n);
/* Are there processes right in it besides these n? Those that this pid namespace does not see
 * count. 1, 0, or -errno. */
int cgroup_has_others(int fd, const pid_t *ours, size_t n);
/* SIGKILL to all of them, also to those that are just being made. */
int cgroup_kill(int fd);

/* Which controllers it has for those below it; which of them these have. */
int cgroup_available(int fd, unsigned *ret);
int cgroup_enabled(int fd, unsigned *ret);
/* Let those below have these too. What cannot be enabled is left out: *ret_missing. 0, or the first
 * error: -EBUSY: there are processes in it. */
int cgroup_enable(int fd, unsigned controllers, unsigned *ret_missing);
/* Take all of them from those below, whose limits are lost. Then it may have processes again. */
int cgroup_disable_all(int fd);
/* Write one file of it. -ENOENT: its controller is not enabled, or the kernel has no such file. */
int cgroup_set(int fd, const char *file, const char *value);

/* UINT64_MAX: not known here. */
struct cgroup_figures {
	uint64_t memory, memory_peak; /* bytes */
	uint64_t cpu_usec;
	uint64_t tasks; /* processes and threads */
	uint64_t oom_kills;
};
void cgroup_read_figures(int fd, struct cgroup_figures *ret);
/* Those of them that are cheap and can have changed at a process's end: oom_kills. */
uint64_t cgroup_oom_kills(int fd);

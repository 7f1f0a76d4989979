/* SPDX-License-Identifier: Apache-2.0 */
/* The one place where a process is made and descriptors are inherited. clone3(2) with CLONE_VFORK |
 * CLONE_VM and a pidfd; the child makes system calls only: dispositions reset, new process group,
 * descriptors put into place, limits, gid, groups, uid, directory, LISTEN_PID, signal mask, exec.
 * Where clone3 is ENOSYS (seccomp, and processors for which the switch of stacks is not written)
 * fork + pidfd_open.
 *
 * Everything that needs look-ups (users, paths, environment) is resolved by the caller before. */
#pragma once

#include <sched.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/util.h"

struct spawn_fd {
	int source; /* borrowed, ours */
	int target; /* its number in the child; all others are closed */
};

struct spawn_limit {
	int resource;
	struct rlimit value;
};

enum spawn_step { /* where it failed, for the message */
	SPAWN_OK,
	SPAWN_CLONE,
	SPAWN_PROCESS_GROUP,
	SPAWN_DESCRIPTORS,
	SPAWN_LIMITS,
	SPAWN_GROUP,
	SPAWN_GROUPS,
	SPAWN_USER,
	SPAWN_DIRECTORY,
	SPAWN_EXEC,
	SPAWN_CGROUP,
	SPAWN_AFFINITY,
};
const char *spawn_step_to_string(enum spawn_step s); /* "chdir", "exec", ... */

struct spawn_request {
	char *const *argv; /* argv[0] as the program shall see it */
	const char *path;  /* what to execute, absolute; used when exec_fd is -1 */
	int exec_fd; /* O_PATH descriptor of an ELF binary for execveat(AT_EMPTY_PATH), or -1 */
	char *const *envp; /* complete; never written to */
	/* LISTEN_PID=<the child's pid> takes the place of what envp has for it, or is added; and
	 * LISTEN_PIDFDID=<its pidfd's inode>, where the kernel has such numbers. */
	bool listen_pid;
	/* In any order, targets distinct; a target may equal another's source, and a source may be
	 * named twice. Status flags (O_NONBLOCK) are left as they are. */
	const struct spawn_fd *fds;
	size_t n_fds;	       /* descriptors 0, 1, 2 not named are /dev/null */
	int directory_fd;      /* fchdir(), or -1 with directory */
	const char *directory; /* or NULL: unchanged. Both are entered with the child's rights */
	bool set_user;	       /* setgid, setgroups, setuid in this order */
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t n_groups;
	const struct spawn_limit *limits;
	size_t n_limits;
	const cpu_set_t *cpus; /* sched_setaffinity(2); NULL: as the daemon. -EINVAL with
				  SPAWN_AFFINITY: the machine, or the cpuset, has none of them */
	int cgroup_fd;	       /* a directory; CLONE_INTO_CGROUP, or -1 */
	bool keep_umask;       /* ours, not 022 */
	bool plain; /* as if clone3(2) and close_range(2) were ENOSYS: to test that way */
};

struct spawn_result {
	pid_t pid;
	int pidfd; /* owned by the caller */
	enum spawn_step failed_at;
};

/* 0 with pid and pidfd (failed_at SPAWN_OK), or -errno with failed_at; a child that failed before
 * exec has been reaped. -EINVAL with SPAWN_DESCRIPTORS: the same target twice, or a negative one.
 * Restores PR_SET_DUMPABLE when a setuid in the shared address space cleared it. The child starts
 * with an empty signal mask, default dispositions, umask 022, own process group (its pid). A child
 * that a signal kills before its exec looks like one killed just after: 0. */
int spawn_process(const struct spawn_request *r, struct spawn_result *ret);

/* pidfd_send_signal(2). To the group: kill(-pid) only while the leader is not reaped, which is the
 * caller's promise. -ESRCH: it is gone (reaped; the group: no member left). */
int spawn_signal(int pidfd, int signal);
int spawn_signal_group(pid_t pgid, int signal);

/* Find a program as execvp would, but with the given PATH (NULL: the system's default one) and
 * directory (dirfd or AT_FDCWD); *ret is an absolute or directory-relative path the caller frees;
 * -ENOENT, or -EACCES when what was found is not an executable file. */
int spawn_find_program(const char *name, const char *path_env, int directory_fd, char **ret);
/* Open for pinning: O_PATH fd when it is an ELF file; -ENOEXEC when it is a script, or we may not
 * read it (run it by path); -EACCES when it is no regular file. */
int spawn_pin_executable(int directory_fd, const char *path);
/* Raises our soft RLIMIT_NOFILE to the hard one. ret_original: as the daemon was started, for its
 * children's limits. */
int spawn_raise_nofile(struct rlimit *ret_original);

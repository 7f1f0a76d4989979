/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says about processes: proc(5). Everything may vanish at any time: -ESRCH then. -EACCES
 * when the process may not be looked into. */
#pragma once

#include <dirent.h>
#include <sys/types.h>

#include "base/util.h"

int process_parent(pid_t pid, pid_t *ret);
/* All live descendants of root by PPID (root itself first), children before grandchildren. Zombies
 * are left out (root too) unless with_zombies. -ESRCH: there is no such root. The caller frees. */
int process_descendants(pid_t root, bool with_zombies, pid_t **ret, size_t *ret_n);
/* The same for kernels that do not list the children of a process: by a pass over all of /proc,
 * which takes the longer the more processes there are. */
int process_descendants_by_scan(pid_t root, bool with_zombies, pid_t **ret, size_t *ret_n);
/* The same (zombies included) a process at a time, for callers that must not be kept long. */
struct process_family {
	pid_t *pids; /* so far; owned */
	size_t n, capacity, n_looked;
};
/* -ESRCH: there is no such root. */
int process_family_begin(struct process_family *f, pid_t root);
/* Look for the children of one more of them. 1: there may be more; 0: these are all. */
int process_family_step(struct process_family *f);
void process_family_done(struct process_family *f);
bool process_is_zombie(pid_t pid);
/* Whose pidfd that is. -ESRCH: it has been reaped; -EINVAL: it is none. */
int process_of_pidfd(int pidfd, pid_t *ret);
/* Has it ended, reaped or not? */
bool process_has_ended(int pidfd);
/* Does its chain of parents lead to root? True for root itself. */
bool process_is_descendant(pid_t pid, pid_t root);
/* "nginx"; the caller frees. This and the environment are still the old ones for a moment after
 * spawn_process(). */
int process_name(pid_t pid, char **ret);
/* Do both run the same program file? */
bool process_same_program(pid_t a, pid_t b);
/* Does any of the n processes hold the socket with that inode? 1, 0, or -errno when none could be
 * looked into. */
int process_holds_socket(const pid_t *pids, size_t n, uint64_t inode);
/* The sockets that one process holds, a descriptor at a time: a microsecond or three each, and some
 * have a hundred thousand. */
struct process_sockets {
	int fd;
	size_t at, len;
	_Alignas(8) uint8_t buf[2048];
};
/* -ESRCH: it is gone, or a zombie. -EACCES: it may not be looked into. */
int process_sockets_begin(struct process_sockets *s, pid_t pid);
/* 1: one more descriptor, *ret_inode is its socket's inode or 0 when it is none; 0: that was all.
 * One that is opened or closed meanwhile may be missed. */
int process_sockets_next(struct process_sockets *s, uint64_t *ret_inode);
void process_sockets_end(struct process_sockets *s);
/* The sockets of all processes that may be looked into, a descriptor at a time. */
struct process_search {
	DIR *processes;
	pid_t pid; /* the present one */
	struct process_sockets reader;
};
int process_search_begin(struct process_search *s);
/* 1: there may be more, and *ret_pid holds the socket with the inode *ret_inode (0: it was none);
 * 0: that was all. */
int process_search_next(struct process_search *s, pid_t *ret_pid, uint64_t *ret_inode);
void process_search_end(struct process_search *s);
/* Is any of the n processes (all its threads) seen to wait on the listening socket: it is in one of
 * its epoll sets (fdinfo "tfd ... ino") for input, a thread sits in accept or accept4 on it, in
 * poll, ppoll, select or pselect6 with it in the set (where the set may not be read: while the
 * process holds the socket), or in io_uring_enter while the process holds it. A look at one moment:
 * a worker that is just busy with a connection may be missed, so ask again. 1, 0, or -errno when
 * none of them could be looked into. */
int process_waits_on_socket(const pid_t *pids, size_t n, uint64_t inode);
/* Who holds that socket: searches all of /proc, the lowest pid first, ending after 100,000
 * descriptors (about half a second). 0 with *ret_pid, -ESRCH. For "held by nginx (pid 812)". */
int process_find_socket_holder(uint64_t inode, pid_t *ret_pid);
/* One environment variable of a process, as it was at its exec. The caller frees. -ENOENT when
 * unset. */
int process_environment(pid_t pid, const char *name, char **ret);
/* Its real user. */
int process_uid(pid_t pid, uid_t *ret);
/* When it was started, in the kernel's ticks since boot: with the pid it names a process for good.
 */
int process_start_time(pid_t pid, uint64_t *ret);
/* All processes but ourselves whose environment, as it was at their exec, has NAME=VALUE; those of
 * a process group. Searches all of /proc. The caller frees. */
int process_find_by_environment(const char *name, const char *value, pid_t **ret, size_t *ret_n);
int process_find_group(pid_t pgid, pid_t **ret, size_t *ret_n);
/* How a process ended that is not our child: CLD_* and status, as in siginfo_t. PIDFD_GET_INFO,
 * since Linux 6.15. The pidfd must have been opened while it lived. -EAGAIN: its parent has not
 * reaped it yet; -ESRCH: it was too long ago; -EOPNOTSUPP: the kernel does not tell. */
int process_exit_status(int pidfd, int *ret_code, int *ret_status);
/* Its resident memory in bytes; shared pages count in full. Cheap. */
int process_memory(pid_t pid, uint64_t *ret);
/* The same, but of a page that n processes share only an n-th part counts, so that the sum over
 * related processes is what they have. Takes the longer the more there is. -EACCES: needs the right
 * to trace it. */
int process_memory_share(pid_t pid, uint64_t *ret);
/* Where our own program is on disk, or was: what is there now may be another. The caller frees. */
int process_own_path(char **ret);
/* Unmap the pages of our own program's and libraries' code; those that run again are mapped again
 * by the next fault. For after a start, most of whose code is not needed any more. madvise(2). */
void process_forget_code(void);
/* Ask for orphans: prctl(PR_SET_CHILD_SUBREAPER). */
int process_become_subreaper(void);

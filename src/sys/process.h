/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says about processes: proc(5). Everything may vanish at any time: -ESRCH then. -EACCES
 * when the process may not be looked into. */
#pragma once

#include <sys/types.h>

#include "base/util.h"

int process_parent(pid_t pid, pid_t *ret);
/* All live descendants of root by PPID (root itself first), children before grandchildren. Zombies
 * are left out (root too) unless with_zombies. -ESRCH: there is no such root. The caller frees. */
int process_descendants(pid_t root, bool with_zombies, pid_t **ret, size_t *ret_n);
/* The same for kernels that do not list the children of a process: by a pass over all of /proc,
 * which takes the longer the more processes there are. */
int process_descendants_by_scan(pid_t root, bool with_zombies, pid_t **ret, size_t *ret_n);
/* Does its chain of parents lead to root? True for root itself. */
bool process_is_descendant(pid_t pid, pid_t root);
/* "nginx"; the caller frees. This and the environment are still the old ones for a moment after
 * spawn_process(). */
int process_name(pid_t pid, char **ret);
/* Does any of the n processes hold the socket with that inode? 1, 0, or -errno when none could be
 * looked into. */
int process_holds_socket(const pid_t *pids, size_t n, uint64_t inode);
/* The inodes of all sockets that the n processes hold, each once, into an array the caller frees
 * (NULL: there are none). Who is gone holds nothing. -E2BIG when they have more than max
 * descriptors in all, -EACCES when one may not be looked into. */
int process_sockets(const pid_t *pids, size_t n, size_t max, uint64_t **ret_inodes, size_t *ret_n);
/* How many of the given socket inodes (any order; 0 is none) do the n processes hold. Each counts
 * once, however many hold it. -errno when none could be looked into. */
int process_count_sockets(
	const pid_t *pids, size_t n, const uint64_t *inodes, size_t n_inodes, size_t *ret);
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
/* When it was started, in the kernel's ticks since boot: with the pid it names a process for good.
 */
int process_start_time(pid_t pid, uint64_t *ret);
bool process_is_zombie(pid_t pid);
/* All processes but ourselves whose environment, as it was at their exec, has NAME=VALUE; those of
 * a process group. Searches all of /proc. The caller frees. */
int process_find_by_environment(const char *name, const char *value, pid_t **ret, size_t *ret_n);
int process_find_group(pid_t pgid, pid_t **ret, size_t *ret_n);
/* How a process ended that is not our child: CLD_* and status, as in siginfo_t. PIDFD_GET_INFO,
 * since Linux 6.15. The pidfd must have been opened while it lived. -EAGAIN: its parent has not
 * reaped it yet; -ESRCH: it was too long ago; -EOPNOTSUPP: the kernel does not tell. */
int process_exit_status(int pidfd, int *ret_code, int *ret_status);
/* Ask for orphans: prctl(PR_SET_CHILD_SUBREAPER). */
int process_become_subreaper(void);

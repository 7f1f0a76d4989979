/* SPDX-License-Identifier: Apache-2.0 */
/* The child shares our memory while we wait for its exec: nothing is copied, so the cost does not
 * grow with the daemon, and an error comes back in a variable. For the same reason the child may
 * only do what leaves our memory as it was: system calls, on a stack of its own. That excludes
 * library functions that keep state: set*id(2) are called directly, for the library's would want to
 * tell all threads.
 *
 * All signals are blocked from before the clone until the child has reset the dispositions: a
 * handler of ours in the child would act on our memory. */
#include "sys/spawn.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>

/* linux/magic.h of a 6.9 kernel: PID_FS_MAGIC. */
#define PIDFS_MAGIC 0x50494446

/* 32-bit processors have older system calls with 16-bit ids under the plain names. */
#ifdef SYS_setresuid32
enum { CALL_SETRESUID = SYS_setresuid32, CALL_SETRESGID = SYS_setresgid32 };
enum { CALL_SETGROUPS = SYS_setgroups32 };
#else
enum { CALL_SETRESUID = SYS_setresuid, CALL_SETRESGID = SYS_setresgid };
enum { CALL_SETGROUPS = SYS_setgroups };
#endif

enum { TARGET_MAX = 1 << 20, STACK_SIZE = 32 << 10 };

/* What the child works with: prepared by the parent, so that the child allocates nothing. */
struct child {
	const struct spawn_request *request;
	struct spawn_fd *fds; /* the request's and /dev/null for 0, 1, 2 */
	size_t n_fds;
	int max_target;
	int null_fd;
	int *inheritable; /* our descriptors without CLOEXEC, where close_range(2) is not to be had
			   */
	size_t n_inheritable;
	bool close_range;
	bool join_cgroup; /* it was not born there */
	int exec_fd, directory_fd, cgroup_fd;
	int error_fd; /* a pipe to the parent where memory is not shared, or -1 */
	char **envp;
	char *listen_pid;     /* where the digits go, or NULL */
	char *listen_pidfdid; /* the same */
	char **pidfdid_entry; /* of envp: the last one, taken away where there is no such number */
	struct report {
		enum spawn_step failed_at;
		int error; /* -errno */
	} report;
};

const char *spawn_step_to_string(enum spawn_step s)
{
	switch (s) {
	case SPAWN_OK:
		return "none";
	case SPAWN_CLONE:
		return "clone";
	case SPAWN_PROCESS_GROUP:
		return "setpgid";
	case SPAWN_DESCRIPTORS:
		return "descriptors";
	case SPAWN_LIMITS:
		return "setrlimit";
	case SPAWN_GROUP:
		return "setgid";
	case SPAWN_GROUPS:
		return "setgroups";
	case SPAWN_USER:
		return "setuid";
	case SPAWN_DIRECTORY:
		return "chdir";
	case SPAWN_EXEC:
		return "exec";
	case SPAWN_CGROUP:
		return "cgroup";
	case SPAWN_AFFINITY:
		return "sched_setaffinity";
	}
	return "unknown";
}

/* --- in the child ------------------------------------------------------------------------- */

/* A child that ends by exec never leaves its functions, and what AddressSanitizer has noted about
 * their variables would stay in our memory, where the next child's are. */
#define CHILD __attribute__((no_sanitize_address))

CHILD static _Noreturn void child_fail(struct child *c, enum spawn_step step, int error)
{
	const struct report report = {.failed_at = step, .error = -error};

	c->report = report;
	if (c->error_fd >= 0)
		(void)!write(c->error_fd, &report, sizeof(report));
	for (;;)
		(void)syscall(SYS_exit_group, 127);
}

CHILD static void child_reset_signals(struct child *c)
{
	/* The kernel's own structure, larger than on any machine: all zero means SIG_DFL. */
	static const unsigned long act[16];

	/* Not by sigaction(), which refuses the two signals that the library keeps to itself: a
	 * posix_spawn() among our own ancestors may have left them ignored. SIGKILL and SIGSTOP
	 * fail; they are never ignored. */
	for (int i = 1; i < _NSIG; i++)
		(void)syscall(SYS_rt_sigaction, i, act, NULL, (_NSIG - 1) / 8);
	if (setpgid(0, 0) < 0)
		child_fail(c, SPAWN_PROCESS_GROUP, errno);
}

/* A descriptor that we need must not be where one of the child's shall be. */
CHILD static void child_move_up(struct child *c, int *fd)
{
	int r;

	if (*fd < 0 || *fd > c->max_target)
		return;
	r = fcntl(*fd, F_DUPFD_CLOEXEC, c->max_target + 1);
	if (r < 0)
		child_fail(c, SPAWN_DESCRIPTORS, errno);
	*fd = r;
}

/* First everything is marked to be closed by exec, then what shall stay is put in its place,
 * unmarked. */
CHILD static void child_place_descriptors(struct child *c)
{
	if (!c->close_range) {
		for (size_t i = 0; i < c->n_inheritable; i++)
			(void)fcntl(c->inheritable[i], F_SETFD, FD_CLOEXEC);
	} else if (syscall(SYS_close_range, 0U, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		child_fail(c, SPAWN_DESCRIPTORS, errno);

	child_move_up(c, &c->error_fd);
	child_move_up(c, &c->exec_fd);
	child_move_up(c, &c->directory_fd);
	for (size_t i = 0; i < c->n_fds; i++)
		if (c->fds[i].source != c->fds[i].target)
			child_move_up(c, &c->fds[i].source);
	for (size_t i = 0; i < c->n_fds; i++) {
		int r, target = c->fds[i].target;

		if (c->fds[i].source == target)
			r = fcntl(target, F_SETFD, 0);
		else
			r = dup3(c->fds[i].source, target, 0);
		if (r < 0)
			child_fail(c, SPAWN_DESCRIPTORS, errno);
	}
}

CHILD static void child_join_cgroup(struct child *c)
{
	int fd;

	fd = openat(c->cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		child_fail(c, SPAWN_CGROUP, errno);
	(void)close(fd);
}

CHILD static void child_become_user(struct child *c)
{
	const struct spawn_request *r = c->request;

	if (syscall(CALL_SETRESGID, r->gid, r->gid, r->gid) < 0)
		child_fail(c, SPAWN_GROUP, errno);
	if (syscall(CALL_SETGROUPS, r->n_groups, r->groups) < 0)
		child_fail(c, SPAWN_GROUPS, errno);
	if (syscall(CALL_SETRESUID, r->uid, r->uid, r->uid) < 0)
		child_fail(c, SPAWN_USER, errno);
}

CHILD static void child_write_number(char *p, uint64_t number)
{
	uint64_t n = number;

	do
		p++;
	while (n /= 10);
	*p = '\0';
	do
		*--p = (char)('0' + number % 10);
	while (number /= 10);
}

/* The number of our own pidfd's inode, which no other process ever has: since Linux 6.9, where
 * pidfds have a file system of their own. 0: none. */
CHILD static uint64_t child_pidfdid(void)
{
	struct statfs fs;
	struct statx st;
	uint64_t id = 0;
	int fd;

	/* Their numbers have 64 bits; where a long has fewer the kernel shows a part of them. */
	if (sizeof(long) < sizeof(uint64_t))
		return 0;
	fd = (int)syscall(SYS_pidfd_open, syscall(SYS_getpid), 0);
	if (fd < 0)
		return 0;
	if (syscall(SYS_fstatfs, fd, &fs) == 0 && fs.f_type == PIDFS_MAGIC &&
		syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_INO, &st) == 0)
		id = st.stx_ino;
	(void)syscall(SYS_close, fd);
	return id;
}

CHILD static void child_write_pid(struct child *c)
{
	uint64_t id = child_pidfdid();

	child_write_number(c->listen_pid, (uint64_t)syscall(SYS_getpid));
	if (id > 0)
		child_write_number(c->listen_pidfdid, id);
	else
		*c->pidfdid_entry = NULL;
}

CHILD static _Noreturn void child_main(void *p)
{
	struct child *c = p;
	const struct spawn_request *r = c->request;
	sigset_t none;

	child_reset_signals(c);
	if (c->join_cgroup)
		child_join_cgroup(c);
	child_place_descriptors(c);
	if (c->listen_pid)
		child_write_pid(c);
	for (size_t i = 0; i < r->n_limits; i++)
		if (syscall(SYS_prlimit64, 0, r->limits[i].resource, &r->limits[i].value, NULL) < 0)
			child_fail(c, SPAWN_LIMITS, errno);
	if (r->cpus && syscall(SYS_sched_setaffinity, 0, sizeof(*r->cpus), r->cpus) < 0)
		child_fail(c, SPAWN_AFFINITY, errno);
	if (r->set_user)
		child_become_user(c);
	if (!r->keep_umask)
		(void)umask(022);
	if (c->directory_fd >= 0 ? fchdir(c->directory_fd) < 0
				 : r->directory && chdir(r->directory) < 0)
		child_fail(c, SPAWN_DIRECTORY, errno);

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (c->exec_fd >= 0)
		(void)syscall(SYS_execveat, c->exec_fd, "", r->argv, c->envp, AT_EMPTY_PATH);
	else
		(void)execve(r->path, r->argv, c->envp);
	child_fail(c, SPAWN_EXEC, errno);
}

/* --- in the parent ------------------------------------------------------------------------ */

/* clone3(2) with the child on another stack cannot be called through a function that returns: the
 * child would return on a stack that has no caller. */
static long clone3_into(const struct clone_args *args, void (*function)(void *), void *userdata)
{
#ifdef __x86_64__
	long r;

	__asm__ volatile("syscall\n\t"
			 "testq %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xorl %%ebp, %%ebp\n\t"
			 "movq %%rbx, %%rdi\n\t"
			 "call *%%rdx\n\t"
			 "ud2\n"
			 "1:"
			 : "=a"(r)
			 : "0"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), "b"(userdata),
			 "d"(function) /* never in rbp, which is gone by then */
			 : "rcx", "r11", "cc", "memory");
	return r;
#else
	(void)args;
	(void)function;
	(void)userdata;
	return -ENOSYS;
#endif
}

static int spawn_shared(struct child *c, pid_t *ret_pid, int *ret_pidfd)
{
	/* We sleep until the child is done with it. */
	_Alignas(16) char stack[STACK_SIZE];
	const struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD |
			 (c->cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
		.exit_signal = SIGCHLD,
		.stack = (uint64_t)(uintptr_t)stack,
		.stack_size = sizeof(stack),
		.cgroup = c->cgroup_fd >= 0 ? (unsigned)c->cgroup_fd : 0,
	};
	long r;

	r = clone3_into(&args, child_main, c);
	if (r < 0)
		return (int)r;
	*ret_pid = (pid_t)r;
	return 0;
}

static int spawn_forked(struct child *c, pid_t *ret_pid, int *ret_pidfd)
{
	_cleanup_close_ int read_fd = -1, write_fd = -1, pidfd = -1;
	int pipe_fds[2];
	ssize_t n;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	read_fd = pipe_fds[0];
	write_fd = pipe_fds[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		c->error_fd = write_fd;
		c->join_cgroup = c->cgroup_fd >= 0;
		child_main(c);
	}
	*ret_pid = pid;
	write_fd = close_fd(write_fd);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		int error = -errno;

		(void)kill(pid, SIGKILL);
		c->report = (struct report){.failed_at = SPAWN_CLONE, .error = error};
		return 0;
	}
	/* Nothing comes when the exec has closed the other end. */
	do
		n = read(read_fd, &c->report, sizeof(c->report));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(c->report))
		c->report = (struct report){.failed_at = SPAWN_OK};
	*ret_pidfd = TAKE_FD(pidfd);
	return 0;
}

/* Which of our descriptors would be inherited? */
static int list_inheritable(struct child *c)
{
	DIR *d = opendir("/proc/self/fd");
	size_t capacity = 0;
	struct dirent *e;
	int r = 0;

	if (!d)
		return -errno;
	while (r >= 0 && (e = readdir(d))) {
		int fd = atoi(e->d_name), flags;

		if (e->d_name[0] == '.')
			continue;
		flags = fcntl(fd, F_GETFD);
		if (flags < 0 || (flags & FD_CLOEXEC))
			continue;
		r = array_reserve(&c->inheritable, &capacity, c->n_inheritable + 1, sizeof(int));
		if (r >= 0)
			c->inheritable[c->n_inheritable++] = fd;
	}
	(void)closedir(d);
	return r;
}

/* The map with /dev/null where 0, 1 and 2 are not named. */
static int prepare_descriptors(struct child *c)
{
	const struct spawn_request *request = c->request;
	_cleanup_free_ bool *taken = NULL;

	c->max_target = STDERR_FILENO;
	for (size_t i = 0; i < request->n_fds; i++) {
		int target = request->fds[i].target;

		if (target < 0 || target >= TARGET_MAX || request->fds[i].source < 0)
			return -EINVAL;
		c->max_target = MAX(c->max_target, target);
	}
	taken = calloc((size_t)c->max_target + 1, sizeof(*taken));
	c->fds = calloc(request->n_fds + 3, sizeof(*c->fds));
	if (!taken || !c->fds)
		return -ENOMEM;
	for (size_t i = 0; i < request->n_fds; i++) {
		if (taken[request->fds[i].target])
			return -EINVAL;
		taken[request->fds[i].target] = true;
		c->fds[c->n_fds++] = request->fds[i];
	}
	for (int i = 0; i <= STDERR_FILENO; i++) {
		if (taken[i])
			continue;
		if (c->null_fd < 0)
			c->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (c->null_fd < 0)
			return -errno;
		c->fds[c->n_fds++] = (struct spawn_fd){.source = c->null_fd, .target = i};
	}
	/* Asked with a range in which nothing can be. */
	c->close_range =
		!request->plain && syscall(SYS_close_range, ~0U, ~0U, CLOSE_RANGE_CLOEXEC) >= 0;
	return c->close_range ? 0 : list_inheritable(c);
}

/* What is only known in the child. */
struct own_numbers {
	char pid[sizeof("LISTEN_PID=") + 10];
	char pidfdid[sizeof("LISTEN_PIDFDID=") + 20];
};

/* The environment with room for them. */
static int prepare_environment(struct child *c, struct own_numbers *own)
{
	static const char pid[] = "LISTEN_PID=", pidfdid[] = "LISTEN_PIDFDID=";
	char *const *envp = c->request->envp;
	size_t n = strv_length(envp), k = 0;

	c->envp = calloc(n + 3, sizeof(*c->envp));
	if (!c->envp)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (!c->request->listen_pid ||
			(!startswith(envp[i], pid) && !startswith(envp[i], pidfdid)))
			c->envp[k++] = envp[i];
	if (c->request->listen_pid) {
		memcpy(own->pid, pid, sizeof(pid));
		memcpy(own->pidfdid, pidfdid, sizeof(pidfdid));
		c->envp[k++] = own->pid;
		c->listen_pid = own->pid + sizeof(pid) - 1;
		c->pidfdid_entry = &c->envp[k];
		c->envp[k] = own->pidfdid;
		c->listen_pidfdid = own->pidfdid + sizeof(pidfdid) - 1;
	}
	return 0;
}

static void child_done(struct child *c)
{
	free(c->fds);
	free(c->inheritable);
	free(c->envp);
	close_fd(c->null_fd);
}

static int make_process(struct child *c, pid_t *ret_pid, int *ret_pidfd)
{
	int dumpable, r = -ENOSYS;
	sigset_t all, before;

	dumpable = c->request->set_user ? prctl(PR_GET_DUMPABLE) : -1;
	(void)sigfillset(&all);
	if (sigprocmask(SIG_SETMASK, &all, &before) < 0)
		return -errno;
	if (!c->request->plain)
		r = spawn_shared(c, ret_pid, ret_pidfd);
	/* EPERM: what filters older than clone3() answer; we ask for nothing that would need a
	 * privilege. */
	if (r == -ENOSYS || r == -EPERM)
		r = spawn_forked(c, ret_pid, ret_pidfd);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	if (dumpable == 1)
		(void)prctl(PR_SET_DUMPABLE, 1);
	return r;
}

/* The kernel does not say that it is the control group that it does not like. */
static enum spawn_step clone_step(const struct child *c, int r)
{
	return c->cgroup_fd >= 0 && r != -EAGAIN && r != -ENOMEM ? SPAWN_CGROUP : SPAWN_CLONE;
}

int spawn_process(const struct spawn_request *request, struct spawn_result *ret)
{
	_cleanup_(child_done) struct child c = {
		.request = request,
		.null_fd = -1,
		.exec_fd = request->exec_fd,
		.directory_fd = request->directory_fd,
		.cgroup_fd = request->cgroup_fd,
		.error_fd = -1,
	};
	struct own_numbers own;
	_cleanup_close_ int pidfd = -1;
	pid_t pid = -1;
	int r;

	*ret = (struct spawn_result){.pid = -1, .pidfd = -1, .failed_at = SPAWN_DESCRIPTORS};
	r = prepare_descriptors(&c);
	if (r < 0)
		return r;
	ret->failed_at = SPAWN_CLONE;
	r = prepare_environment(&c, &own);
	if (r < 0)
		return r;
	r = make_process(&c, &pid, &pidfd);
	if (r < 0) {
		ret->failed_at = clone_step(&c, r);
		return r;
	}
	ret->failed_at = c.report.failed_at;
	if (c.report.failed_at != SPAWN_OK) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return c.report.error;
	}
	ret->pid = pid;
	ret->pidfd = TAKE_FD(pidfd);
	return 0;
}

int spawn_signal(int pidfd, int signal)
{
	return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

int spawn_signal_group(pid_t pgid, int signal)
{
	/* 0 would be our own group, -1 everybody. */
	if (pgid <= 1)
		return -EINVAL;
	return kill(-pgid, signal) < 0 ? -errno : 0;
}

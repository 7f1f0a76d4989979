/* SPDX-License-Identifier: Apache-2.0 */
/* Cgroups of version 2: those of the kernel where one can be made, and files that look like them
 * for what this machine's kernel has not (controllers that are bound to version 1). */
#include "sys/cgroup.h"

#include <sys/stat.h>

#include "sys/spawn.h"
#include "sys_test.h"

/* --- real ones ------------------------------------------------------------ */

/* One of our own, below the one we are in; -1: there can be none. */
static int make_own(char **ret_name, int *ret_above)
{
	_cleanup_free_ char *own = NULL;
	int fd;

	if (cgroup_own(&own) < 0 || cgroup_is_writable(own) < 0)
		return -1;
	*ret_above = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(*ret_above, 0);
	*ret_name = xasprintf("tenured-test-cgroup.%d", (int)getpid());
	return cgroup_make(*ret_above, *ret_name, &fd) < 0 ? -1 : fd;
}

#define OWN_CGROUP                                                                                 \
	_cleanup_free_ char *name = NULL;                                                          \
	_cleanup_close_ int above = -1, fd = make_own(&name, &above);                              \
	if (fd < 0) {                                                                              \
		printf("skipped: no cgroup of version 2 can be made here\n");                      \
		return;                                                                            \
	}

static void wait_empty(int fd)
{
	for (unsigned i = 0; i < 5000 && cgroup_populated(fd) != 0; i++)
		(void)usleep(1000);
	ck_assert_int_eq(cgroup_populated(fd), 0);
}

/* In it: a process, its child and its grandchild, in sessions of their own; all wait for ever. */
static pid_t populate(int fd)
{
	int pipe_fds[2];
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe(pipe_fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (cgroup_join(fd, getpid()) < 0)
			_exit(1);
		for (unsigned i = 0; i < 2; i++)
			if (fork() == 0)
				(void)setsid();
		(void)!write(pipe_fds[1], "x", 1);
		for (;;)
			(void)pause();
	}
	close(pipe_fds[1]);
	/* Two forks by each of one, then two: four processes. */
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(read(pipe_fds[0], &byte, 1), 1);
	close(pipe_fds[0]);
	return pid;
}

START_TEST(from_first_to_last)
{
	OWN_CGROUP;
	_cleanup_close_ int worker = -1, watch = -1;
	_cleanup_free_ pid_t *pids = NULL;
	struct pollfd p;
	size_t n = 0;
	pid_t pid;

	ck_assert_int_eq(cgroup_populated(fd), 0);
	ck_assert_int_eq(cgroup_make(fd, "0", &worker), 0);
	ck_assert_int_eq(cgroup_watch(fd, &watch), 0);
	p = (struct pollfd){.fd = watch, .events = POLLPRI};
	ck_assert_int_eq(poll(&p, 1, 0), 0);
	pid = populate(worker);
	ck_assert_int_eq(cgroup_populated(fd), 1);
	ck_assert_int_eq(cgroup_populated(worker), 1);
	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	ck_assert(p.revents & POLLPRI);
	ck_assert_int_eq(cgroup_processes(fd, &pids, &n), 0);
	ck_assert_uint_eq(n, 4);
	ck_assert_int_eq(cgroup_has_others(worker, pids, n), 0);
	ck_assert_int_eq(cgroup_has_others(worker, pids, n - 1), 1);
	ck_assert_int_eq(cgroup_has_others(fd, NULL, 0), 0);
	ck_assert_int_eq(cgroup_remove(above, name), -EBUSY);

	ck_assert_int_eq(cgroup_kill(worker), 0);
	ck_assert_int_eq(wait_status(pid), SIGKILL);
	wait_empty(fd);
	ck_assert_int_eq(cgroup_remove(above, name), 0);
	ck_assert_int_eq(cgroup_remove(above, name), 0);
	/* Of one that is gone everybody is gone. */
	ck_assert_int_eq(cgroup_populated(fd), 0);
	ck_assert_int_eq(cgroup_kill(worker), 0);
}
END_TEST

START_TEST(spawned_into)
{
	OWN_CGROUP;
	char *const argv[] = {(char *)(uintptr_t) "sleep", (char *)(uintptr_t) "600", NULL};
	char *const envp[] = {NULL};
	struct spawn_result result;
	struct spawn_request request = {
		.argv = argv,
		.path = "/bin/sleep",
		.exec_fd = -1,
		.envp = envp,
		.directory_fd = -1,
		.plain = _i == 1,
		.cgroup_fd = fd,
	};
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;

	ck_assert_int_eq(spawn_process(&request, &result), 0);
	ck_assert_int_eq(cgroup_processes(fd, &pids, &n), 0);
	ck_assert_uint_eq(n, 1);
	ck_assert_int_eq(pids[0], result.pid);
	ck_assert_int_eq(cgroup_kill(fd), 0);
	ck_assert_int_eq(wait_status(result.pid), SIGKILL);
	close(result.pidfd);
	wait_empty(fd);
	ck_assert_int_eq(cgroup_remove(above, name), 0);
}
END_TEST

START_TEST(figures_of_a_real_one)
{
	OWN_CGROUP;
	_cleanup_free_ char *own = NULL;
	struct cgroup_figures f;

	cgroup_read_figures(fd, &f);
	/* Without any controller too. */
	ck_assert_uint_lt(f.cpu_usec, USEC_PER_SEC);
	ck_assert_int_eq(cgroup_set(fd, "no.such", "1"), -ENOENT);
	ck_assert_int_eq(cgroup_own(&own), 0);
	ck_assert(!cgroup_is_delegated(own));
	ck_assert_int_eq(cgroup_remove(above, name), 0);
}
END_TEST

/* --- files that look like them -------------------------------------------- */

static void write_text(int directory, const char *name, const char *text)
{
	_cleanup_close_ int fd =
		openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void assert_text(int directory, const char *name, const char *text)
{
	_cleanup_close_ int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	char found[256] = "";

	ck_assert_int_ge(fd, 0);
	ck_assert_int_ge(read(fd, found, sizeof(found) - 1), 0);
	ck_assert_str_eq(found, text);
}

static int make_files(char path[static 64])
{
	int fd;

	snprintf(path, 64, "/tmp/tenured-test-cgroup.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(path));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void remove_files(int fd, const char *path, const char *const *names)
{
	for (; *names; names++)
		(void)unlinkat(fd, *names, 0);
	ck_assert_int_eq(rmdir(path), 0);
}

START_TEST(figures)
{
	static const char *const names[] = {
		"memory.current", "memory.peak", "cpu.stat", "pids.current", "memory.events", NULL};
	char path[64];
	_cleanup_close_ int fd = make_files(path);
	struct cgroup_figures f;

	cgroup_read_figures(fd, &f);
	ck_assert(f.memory == UINT64_MAX && f.memory_peak == UINT64_MAX);
	ck_assert(f.cpu_usec == UINT64_MAX && f.tasks == UINT64_MAX && f.oom_kills == UINT64_MAX);
	write_text(fd, "memory.current", "1048576\n");
	write_text(fd, "memory.peak", "max\n");
	write_text(fd, "cpu.stat", "user_usec 12\nusage_usec 345678\nsystem_usec 7\n");
	write_text(fd, "pids.current", "17\n");
	write_text(
		fd, "memory.events", "low 0\nhigh 3\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n");
	cgroup_read_figures(fd, &f);
	ck_assert_uint_eq(f.memory, 1048576);
	ck_assert_uint_eq(f.memory_peak, UINT64_MAX);
	ck_assert_uint_eq(f.cpu_usec, 345678);
	ck_assert_uint_eq(f.tasks, 17);
	ck_assert_uint_eq(f.oom_kills, 1);
	ck_assert_uint_eq(cgroup_oom_kills(fd), 1);
	remove_files(fd, path, names);
}
END_TEST

START_TEST(limits_and_controllers)
{
	static const char *const names[] = {
		"memory.max", "cgroup.controllers", "cgroup.subtree_control", NULL};
	char path[64];
	_cleanup_close_ int fd = make_files(path);
	unsigned missing = 0, found = 0;
	_cleanup_free_ char *text = NULL;

	ck_assert_int_eq(cgroup_set(fd, "memory.max", "1"), -ENOENT);
	write_text(fd, "memory.max", "max\n");
	ck_assert_int_eq(cgroup_set(fd, "memory.max", "536870912"), 0);
	assert_text(fd, "memory.max", "536870912");

	write_text(fd, "cgroup.controllers", "cpuset cpu io memory\n");
	write_text(fd, "cgroup.subtree_control", "");
	ck_assert_int_eq(cgroup_available(fd, &found), 0);
	ck_assert_uint_eq(found, CGROUP_CPU | CGROUP_IO | CGROUP_MEMORY);
	ck_assert_int_eq(cgroup_enable(fd, CGROUP_PIDS, &missing), 0);
	ck_assert_uint_eq(missing, CGROUP_PIDS);
	assert_text(fd, "cgroup.subtree_control", "");
	ck_assert_int_eq(cgroup_enable(fd, CGROUP_MEMORY | CGROUP_PIDS, &missing), 0);
	ck_assert_uint_eq(missing, CGROUP_PIDS);
	/* A file keeps what was written to it, the kernel would say "memory". */
	assert_text(fd, "cgroup.subtree_control", "+memory");
	write_text(fd, "cgroup.subtree_control", "memory cpu\n");
	ck_assert_int_eq(cgroup_enable(fd, CGROUP_MEMORY | CGROUP_CPU, &missing), 0);
	ck_assert_uint_eq(missing, 0);
	assert_text(fd, "cgroup.subtree_control", "memory cpu\n");
	ck_assert_int_eq(cgroup_enabled(fd, &found), 0);
	ck_assert_uint_eq(found, CGROUP_MEMORY | CGROUP_CPU);
	text = cgroup_controllers_to_string(found);
	ck_assert_str_eq(text, "cpu memory");
	write_text(fd, "cgroup.subtree_control", "rdma\n");
	ck_assert_int_eq(cgroup_disable_all(fd), 0);
	assert_text(fd, "cgroup.subtree_control", "-rdma");
	remove_files(fd, path, names);
}
END_TEST

START_TEST(words)
{
	ck_assert_uint_eq(cgroup_controllers_from_string(""), 0);
	ck_assert_uint_eq(cgroup_controllers_from_string("cpuset memories \n"), 0);
	ck_assert_uint_eq(
		cgroup_controllers_from_string(" pids\nhugetlb"), CGROUP_PIDS | CGROUP_HUGETLB);
}
END_TEST

/* Before Linux 5.14 there is no cgroup.kill: who is in it is killed one by one. */
START_TEST(kill_one_by_one)
{
	static const char *const names[] = {"cgroup.procs", "cgroup.events", NULL};
	char path[64], text[32];
	_cleanup_close_ int fd = make_files(path);
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		for (;;)
			(void)pause();
	snprintf(text, sizeof(text), "0\n%d\n", (int)pid);
	write_text(fd, "cgroup.procs", text);
	write_text(fd, "cgroup.events", "populated 1\nfrozen 0\n");
	ck_assert_int_eq(cgroup_populated(fd), 1);
	ck_assert_int_eq(cgroup_has_others(fd, &pid, 1), 1); /* 0: of another namespace */
	/* It stays in the list, so that this cannot be the end. */
	ck_assert_int_eq(cgroup_kill(fd), -EBUSY);
	ck_assert_int_eq(wait_status(pid), SIGKILL);
	ck_assert_int_eq(cgroup_kill(fd), 0);
	write_text(fd, "cgroup.events", "frozen 0\n");
	ck_assert_int_eq(cgroup_populated(fd), -EBADMSG);
	remove_files(fd, path, names);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("cgroup");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, from_first_to_last);
	tcase_add_loop_test(tcase, spawned_into, 0, 2);
	tcase_add_test(tcase, figures_of_a_real_one);
	tcase_add_test(tcase, figures);
	tcase_add_test(tcase, limits_and_controllers);
	tcase_add_test(tcase, words);
	tcase_add_test(tcase, kill_one_by_one);
	return run_case("cgroup", tcase);
}

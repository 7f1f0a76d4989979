/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that are found by what was written down of them, and how they ended. */
#include <sys/syscall.h>

#include "sys/process.h"
#include "sys_test.h"

/* A child that sleeps, with that environment, in a group of its own. */
static pid_t sleeper(char *const env[])
{
	char *const argv[] = {(char[]){"sleep"}, (char[]){"600"}, NULL};
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)setpgid(0, 0);
		execve("/bin/sleep", argv, env);
		_exit(127);
	}
	(void)setpgid(pid, pid);
	return pid;
}

static void end(pid_t pid)
{
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

static bool contains(const pid_t *list, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == pid)
			return true;
	return false;
}

START_TEST(start_time)
{
	pid_t first, second;
	uint64_t own, a, b, again;

	ck_assert_int_eq(process_start_time(getpid(), &own), 0);
	first = sleeper((char *[]){NULL});
	ck_assert_int_eq(process_start_time(first, &a), 0);
	ck_assert_uint_ge(a, own);
	/* Ticks are hundredths of a second. */
	(void)usleep(50000);
	second = sleeper((char *[]){NULL});
	ck_assert_int_eq(process_start_time(second, &b), 0);
	ck_assert_uint_gt(b, a);
	ck_assert_int_eq(process_start_time(first, &again), 0);
	ck_assert_uint_eq(again, a);
	end(first);
	end(second);
	ck_assert_int_eq(process_start_time(first, &a), -ESRCH);
}
END_TEST

START_TEST(real_user)
{
	uid_t uid = (uid_t)-2;
	pid_t pid = sleeper((char *[]){NULL});

	ck_assert_int_eq(process_uid(pid, &uid), 0);
	ck_assert_uint_eq(uid, getuid());
	end(pid);
	ck_assert_int_eq(process_uid(pid, &uid), -ESRCH);
}
END_TEST

START_TEST(by_environment)
{
	char mine[64];
	char *env[] = {(char[]){"OTHER=1"}, mine, NULL}, *longer[] = {NULL, NULL};
	_cleanup_free_ pid_t *found = NULL, *none = NULL;
	pid_t a, b, c;
	size_t n = 0;

	(void)snprintf(mine, sizeof(mine), "TENURE_TEST_FIND=%d", (int)getpid());
	a = sleeper(env);
	b = sleeper(env);
	longer[0] = xasprintf("%sx", mine);
	c = sleeper(longer);
	/* Until they have executed their program. */
	for (unsigned i = 0; n < 2 && i < 1000; i++) {
		free(found);
		ck_assert_int_eq(process_find_by_environment(
					 "TENURE_TEST_FIND", strchr(mine, '=') + 1, &found, &n),
			0);
		(void)usleep(2000);
	}
	ck_assert_uint_eq(n, 2);
	ck_assert(contains(found, n, a));
	ck_assert(contains(found, n, b));
	ck_assert_int_eq(process_find_by_environment("TENURE_TEST_FIND", "nobody", &none, &n), 0);
	ck_assert_uint_eq(n, 0);
	end(a);
	end(b);
	end(c);
	free(longer[0]);
}
END_TEST

START_TEST(by_group)
{
	pid_t a = sleeper((char *[]){NULL}), b = sleeper((char *[]){NULL});
	_cleanup_free_ pid_t *found = NULL, *none = NULL;
	size_t n = 0;

	ck_assert_int_eq(process_find_group(a, &found, &n), 0);
	ck_assert_uint_eq(n, 1);
	ck_assert_int_eq(found[0], a);
	end(a);
	end(b);
	ck_assert_int_eq(process_find_group(a, &none, &n), 0);
	ck_assert_uint_eq(n, 0);
}
END_TEST

/* A grandchild: its parent, not we, is told how it ended. */
static pid_t grandchild(bool by_signal, int status, int gate[2], pid_t *ret_parent)
{
	int told[2];
	pid_t parent, pid;

	ck_assert_int_eq(pipe2(told, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(gate, O_CLOEXEC), 0);
	parent = fork();
	if (parent == 0) {
		char byte;

		pid = fork();
		if (pid == 0) {
			close(gate[1]);
			(void)!read(gate[0], &byte, 1);
			if (by_signal)
				(void)raise(status);
			_exit(status);
		}
		close(gate[1]);
		(void)!write(told[1], &pid, sizeof(pid));
		(void)waitpid(pid, NULL, 0);
		_exit(0);
	}
	ck_assert_int_eq(read(told[0], &pid, sizeof(pid)), (ssize_t)sizeof(pid));
	close(told[0]);
	close(told[1]);
	*ret_parent = parent;
	return pid;
}

static void check_status(bool by_signal, int status)
{
	_cleanup_close_ int pidfd = -1;
	int gate[2], r, code = 0, got = 0;
	pid_t parent, pid = grandchild(by_signal, status, gate, &parent);

	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	ck_assert_int_ge(pidfd, 0);
	r = process_exit_status(pidfd, &code, &got);
	/* It lives; a kernel that does not tell says so. */
	ck_assert(r == -EAGAIN || r == -EOPNOTSUPP);
	close(gate[0]);
	close(gate[1]);
	ck_assert_int_eq(waitpid(parent, NULL, 0), parent);
	ck_assert(is_readable(pidfd, 10000));
	if (r == -EOPNOTSUPP) {
		ck_assert_int_lt(process_exit_status(pidfd, &code, &got), 0);
		return;
	}
	r = process_exit_status(pidfd, &code, &got);
	/* PIDFD_GET_INFO came with Linux 6.13, the exit status with 6.15. */
	if (r == -ESRCH || r == -EAGAIN)
		return;
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(code, by_signal ? CLD_KILLED : CLD_EXITED);
	ck_assert_int_eq(got, status);
}

START_TEST(exit_status)
{
	check_status(false, 0);
	check_status(false, 42);
	check_status(true, SIGKILL);
}
END_TEST

START_TEST(not_a_pidfd)
{
	_cleanup_close_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int code, status;

	ck_assert_int_lt(process_exit_status(fd, &code, &status), 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		start_time, real_user, by_environment, by_group, exit_status, not_a_pidfd};

	return run_tests("process_find", tests, ARRAY_SIZE(tests));
}

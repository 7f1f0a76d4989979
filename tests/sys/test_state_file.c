/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/state_file.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "sys_test.h"

static blkcnt_t blocks_of(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return st.st_blocks;
}

START_TEST(write_and_read)
{
	_cleanup_close_ int fd = state_file_new();
	_cleanup_free_ void *first = NULL, *second = NULL;
	size_t len;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(state_file_check(fd), 0);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	ck_assert_int_eq(blocks_of(fd), 0);
	ck_assert_int_eq(state_file_write(fd, 1, 0, "hello", 5), 0);
	ck_assert_int_eq(state_file_write(fd, 1, 10000, "world", 5), 0);
	ck_assert_int_eq(state_file_read(fd, 0, &first, &len), 0);
	ck_assert_uint_eq(len, 0);
	ck_assert_int_eq(state_file_read(fd, 1, &second, &len), 0);
	ck_assert_uint_ge(len, 10005);
	ck_assert_uint_lt(len, 10005 + 65536);
	ck_assert_mem_eq(second, "hello\0", 6);
	ck_assert_mem_eq((char *)second + 10000, "world\0", 6);
}
END_TEST

START_TEST(slots_are_apart)
{
	_cleanup_close_ int fd = state_file_new();
	_cleanup_free_ void *first = NULL, *second = NULL;
	size_t len;

	ck_assert_int_eq(state_file_write(fd, 0, STATE_FILE_SLOT_MAX - 4, "last", 4), 0);
	ck_assert_int_eq(state_file_write(fd, 1, 0, "next", 4), 0);
	ck_assert_int_eq(state_file_clear(fd, 0), 0);
	ck_assert_int_eq(state_file_read(fd, 0, &first, &len), 0);
	ck_assert_uint_eq(len, 0);
	ck_assert_int_eq(state_file_read(fd, 1, &second, &len), 0);
	ck_assert_mem_eq(second, "next", 4);
	ck_assert_int_eq(state_file_clear(fd, 1), 0);
	ck_assert_int_eq(blocks_of(fd), 0);
}
END_TEST

START_TEST(limits)
{
	_cleanup_close_ int fd = state_file_new();

	ck_assert_int_eq(state_file_write(fd, 0, STATE_FILE_SLOT_MAX - 4, "12345", 5), -ENOSPC);
	ck_assert_int_eq(state_file_write(fd, 0, SIZE_MAX, "1", 1), -ENOSPC);
	ck_assert_int_eq(blocks_of(fd), 0);
	/* Whoever else holds it can neither cut nor lengthen it. */
	ck_assert_int_eq(ftruncate(fd, 0), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(ftruncate(fd, 4 * (off_t)STATE_FILE_SLOT_MAX), -1);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
}
END_TEST

START_TEST(others)
{
	_cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC),
			    small = memfd_create("x", MFD_CLOEXEC);

	ck_assert_int_eq(state_file_check(null), -EINVAL);
	ck_assert_int_eq(ftruncate(small, 4096), 0);
	ck_assert_int_eq(state_file_check(small), -EINVAL);
	ck_assert_int_eq(state_file_check(-1), -EBADF);
}
END_TEST

/* As one that survives its writer: through a descriptor that somebody else has held meanwhile. */
START_TEST(survives)
{
	_cleanup_free_ void *data = NULL;
	_cleanup_close_ int fd = state_file_new();
	int status;
	size_t len;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		if (state_file_write(fd, 0, 0, "written", 7) < 0)
			_exit(1);
		(void)raise(SIGKILL);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(state_file_read(fd, 0, &data, &len), 0);
	ck_assert_mem_eq(data, "written", 7);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {write_and_read, slots_are_apart, limits, others, survives};

	return run_tests("state file", tests, ARRAY_SIZE(tests));
}

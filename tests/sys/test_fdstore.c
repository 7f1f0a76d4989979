/* SPDX-License-Identifier: Apache-2.0 */
/* The messages to a keeper, seen from the keeper's side. */
#include "sys/fdstore.h"

#include <sys/stat.h>

#include "keeper_scene.h"

static struct fdstore connect_store(void)
{
	struct fdstore s;

	ck_assert_int_eq(fdstore_open(&s), 1);
	ck_assert(fcntl(s.fd, F_GETFD) & FD_CLOEXEC);
	return s;
}

START_TEST(nobody_there)
{
	struct fdstore s = {.fd = 5};

	ck_assert_int_eq(unsetenv("NOTIFY_SOCKET"), 0);
	ck_assert_int_eq(fdstore_open(&s), 0);
	ck_assert_int_eq(s.fd, -1);
	/* Kinds that carry no descriptors, and nonsense */
	static const char *const others[] = {"", "@", "/", "vsock:2:1234", "relative", "x"};
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		ck_assert_int_eq(setenv("NOTIFY_SOCKET", others[i], 1), 0);
		ck_assert_int_eq(fdstore_open(&s), 0);
	}
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", "@tenured/nobody/has/this", 1), 0);
	ck_assert_int_eq(fdstore_open(&s), -ECONNREFUSED);
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1), 0);
	ck_assert_int_eq(fdstore_open(&s), -ENOENT);
}
END_TEST

START_TEST(name_too_long)
{
	char name[200];
	struct fdstore s;

	memset(name, 'x', sizeof(name));
	name[0] = '/';
	name[sizeof(name) - 1] = '\0';
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", name, 1), 0);
	ck_assert_int_eq(fdstore_open(&s), -ENAMETOOLONG);
}
END_TEST

START_TEST(push_and_remove)
{
	_cleanup_close_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct fdstore s = connect_store();
	struct notify_datagram d;
	char longest[257];

	ck_assert_int_eq(fdstore_push(&s, fd, "_l1k"), 0);
	ck_assert_int_eq(notify_socket_receive(keeper, &d), 0);
	ck_assert_str_eq(d.data, "FDSTORE=1\nFDNAME=_l1k\nFDPOLL=0");
	ck_assert_int_eq(d.pid, getpid());
	ck_assert_uint_eq(d.n_fds, 1);
	ck_assert_uint_eq(fd_inode(d.fds[0]), fd_inode(fd));
	notify_datagram_close(&d);

	ck_assert_int_eq(fdstore_remove(&s, "_l1k"), 0);
	ck_assert_int_eq(notify_socket_receive(keeper, &d), 0);
	ck_assert_str_eq(d.data, "FDSTOREREMOVE=1\nFDNAME=_l1k");
	ck_assert_uint_eq(d.n_fds, 0);

	memset(longest, 'n', sizeof(longest));
	longest[256] = '\0';
	ck_assert_int_eq(fdstore_push(&s, fd, longest), -EINVAL);
	ck_assert_int_eq(fdstore_remove(&s, longest), -EINVAL);
	longest[255] = '\0';
	ck_assert_int_eq(fdstore_push(&s, fd, longest), 0);
	ck_assert_int_eq(notify_socket_receive(keeper, &d), 0);
	notify_datagram_close(&d);
	fdstore_done(&s);
	ck_assert_int_eq(s.fd, -1);
}
END_TEST

/* The keeper's copy is the same open file: what one sets the other sees. */
START_TEST(same_open_file)
{
	_cleanup_close_ int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	struct fdstore s = connect_store();
	struct notify_datagram d;

	ck_assert_int_eq(fdstore_push(&s, fd, "_o1"), 0);
	ck_assert_int_eq(notify_socket_receive(keeper, &d), 0);
	ck_assert_int_eq(lseek(fd, 3, SEEK_SET), 3);
	ck_assert_int_eq(lseek(d.fds[0], 0, SEEK_CUR), 3);
	notify_datagram_close(&d);
	fdstore_done(&s);
}
END_TEST

START_TEST(barrier)
{
	struct fdstore s = connect_store();
	uint64_t begin = now_usec();
	struct notify_datagram d;
	pid_t pid;
	int status;

	/* Nobody reads */
	ck_assert_int_eq(fdstore_barrier(&s, 20 * USEC_PER_MSEC), -ETIMEDOUT);
	ck_assert_uint_ge(now_usec() - begin, 19 * USEC_PER_MSEC);
	ck_assert_int_eq(notify_socket_receive(keeper, &d), 0);
	ck_assert_str_eq(d.data, "BARRIER=1");
	ck_assert_uint_eq(d.n_fds, 1);
	notify_datagram_close(&d);

	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		(void)is_readable(keeper, 10000);
		if (notify_socket_receive(keeper, &d) < 0)
			_exit(1);
		notify_datagram_close(&d);
		_exit(0);
	}
	ck_assert_int_eq(fdstore_barrier(&s, 10 * USEC_PER_SEC), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	fdstore_done(&s);
}
END_TEST

/* A keeper that does not read holds nobody up. */
START_TEST(full_queue)
{
	struct fdstore s = connect_store();
	uint64_t begin = now_usec();
	struct notify_datagram d;
	unsigned n = 0;
	int r = 0;

	while (r == 0 && n++ < 10000)
		r = fdstore_remove(&s, "_l1");
	ck_assert_int_eq(r, -EAGAIN);
	ck_assert_int_eq(fdstore_tell(&s, "STATUS=x"), -EAGAIN);
	ck_assert_int_eq(fdstore_wait(&s, 20 * USEC_PER_MSEC), -ETIMEDOUT);
	ck_assert_int_eq(fdstore_barrier(&s, 20 * USEC_PER_MSEC), -ETIMEDOUT);
	ck_assert_uint_ge(now_usec() - begin, 38 * USEC_PER_MSEC);
	ck_assert_int_eq(notify_socket_receive(keeper, &d), 0);
	ck_assert_int_eq(fdstore_wait(&s, 10 * USEC_PER_SEC), 0);
	ck_assert_int_eq(fdstore_tell(&s, "STATUS=x"), 0);
	fdstore_done(&s);
}
END_TEST

/* Another one listens at the same address by now. */
START_TEST(replaced)
{
	struct fdstore s = connect_store();
	struct notify_datagram d;

	keeper = close_fd(keeper);
	ck_assert_int_eq(fdstore_remove(&s, "_l1"), -ECONNREFUSED);
	keeper = notify_socket_reopen(keeper_address);
	ck_assert_int_ge(keeper, 0);
	ck_assert_int_eq(fdstore_remove(&s, "_l2"), 0);
	ck_assert_int_eq(notify_socket_receive(keeper, &d), 0);
	ck_assert_str_eq(d.data, "FDSTOREREMOVE=1\nFDNAME=_l2");
	fdstore_done(&s);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {nobody_there, name_too_long, push_and_remove, same_open_file,
		barrier, full_queue, replaced};
	Suite *suite = suite_create("fdstore");
	TCase *tcase = tcase_create("fdstore");
	SRunner *runner;
	int n_failed;

	tcase_add_checked_fixture(tcase, keeper_setup, keeper_teardown);
	tcase_set_timeout(tcase, 60);
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/fdpass.h"

#include "sys_test.h"

#include <sys/stat.h>

static int pair[2];

static void setup(void)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

static void teardown(void)
{
	close_fd(pair[0]);
	close_fd(pair[1]);
}

/* The lowest number that is free: how many are leaked, when it has grown. */
static int next_free(void)
{
	int fd = dup(STDIN_FILENO);

	close(fd);
	return fd;
}

START_TEST(there_and_back)
{
	static const size_t counts[] = {0, 1, 8, FDPASS_MAX};
	size_t n = counts[_i], got;
	int sent[FDPASS_MAX], received[FDPASS_MAX];
	char text[16] = "";

	for (size_t i = 0; i < n; i++) {
		sent[i] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		ck_assert_int_ge(sent[i], 0);
	}
	ck_assert_int_eq(fdpass_send(pair[0], "hello", 5, sent, n), 5);
	ck_assert_int_eq(
		fdpass_receive(pair[1], text, sizeof(text), received, FDPASS_MAX, &got), 5);
	ck_assert_str_eq(text, "hello");
	ck_assert_uint_eq(got, n);
	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_eq(fd_inode(received[i]), fd_inode(sent[i]));
		ck_assert(fcntl(received[i], F_GETFD) & FD_CLOEXEC);
		close(sent[i]);
		close(received[i]);
	}
}
END_TEST

START_TEST(too_many)
{
	int before = next_free(), fds[FDPASS_MAX + 1], received[3];
	char text[16];
	size_t got;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = pair[0];
	ck_assert_int_eq(fdpass_send(pair[0], "x", 1, fds, FDPASS_MAX + 1), -EINVAL);
	ck_assert_int_eq(fdpass_send(pair[0], "", 0, fds, 1), -EINVAL);
	/* What is more than wanted does not stay open. */
	ck_assert_int_eq(fdpass_send(pair[0], "x", 1, fds, 9), 1);
	ck_assert_int_eq(fdpass_receive(pair[1], text, sizeof(text), received, 3, &got), 1);
	ck_assert_uint_eq(got, 3);
	for (size_t i = 0; i < got; i++)
		close(received[i]);
	ck_assert_int_eq(fdpass_send(pair[0], "x", 1, fds, 9), 1);
	ck_assert_int_eq(fdpass_receive(pair[1], text, sizeof(text), NULL, 0, &got), 1);
	ck_assert_uint_eq(got, 0);
	ck_assert_int_eq(next_free(), before);
}
END_TEST

START_TEST(the_ends)
{
	char text[16];
	size_t got;

	(void)fcntl(pair[1], F_SETFL, O_NONBLOCK);
	ck_assert_int_eq(fdpass_receive(pair[1], text, sizeof(text), NULL, 0, &got), -EAGAIN);
	pair[0] = close_fd(pair[0]);
	ck_assert_int_eq(fdpass_receive(pair[1], text, sizeof(text), NULL, 0, &got), 0);
	/* An error, not a signal. */
	ck_assert_int_eq(fdpass_send(pair[1], "x", 1, NULL, 0), -EPIPE);
}
END_TEST

START_TEST(who_is_it)
{
	struct peer p;
	int fds[2];
	gid_t groups[64];
	int n = getgroups(64, groups);

	ck_assert_int_ge(n, 0);
	ck_assert_int_eq(peer_of(pair[0], &p), 0);
	ck_assert_int_eq(p.pid, getpid());
	ck_assert_uint_eq(p.uid, geteuid());
	ck_assert_uint_eq(p.gid, getegid());
	ck_assert_uint_eq(p.n_groups, (size_t)n);
	for (int i = 0; i < n; i++)
		ck_assert(peer_in_group(&p, groups[i]));
	ck_assert(peer_in_group(&p, getegid()));
	ck_assert(!peer_in_group(&p, 4000000000U));
	peer_done(&p);
	peer_done(&p);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	ck_assert_int_eq(peer_of(fds[0], &p), -ENOTSOCK);
	close(fds[0]);
	close(fds[1]);
	fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(peer_of(fds[0], &p), -ENODATA);
	close(fds[0]);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("fdpass");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, there_and_back, 0, 4);
	tcase_add_test(tcase, too_many);
	tcase_add_test(tcase, the_ends);
	tcase_add_test(tcase, who_is_it);
	return run_case("fdpass", tcase);
}

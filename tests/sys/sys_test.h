/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the kernel layer share: loopback, temporary directories, children, time. */
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "sys/listen.h"
#include "../unit/unit.h"

#define OPTIONS                                                                                    \
	((struct listen_options){                                                                  \
		.backlog = 16, .owner = (uid_t)-1, .group = (gid_t)-1, .socket_uid = (uid_t)-1})

static inline uint64_t now_usec(void)
{
	return monotonic_usec();
}

static inline struct address address_of(const char *text)
{
	struct address a;

	ck_assert_int_eq(address_parse(text, true, &a), 0);
	return a;
}

static inline struct address bound_address(int fd)
{
	struct address a;

	ck_assert_int_eq(socket_address(fd, &a), 0);
	return a;
}

/* A client's socket; connected when the kernel has it in a queue. -errno. */
static inline int client_of(const struct address *a)
{
	int fd = socket(address_family(a), address_socket_type(a) | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	if (connect(fd, &a->sa, a->len) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static inline bool is_readable(int fd, int msec)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, msec) == 1 && (p.revents & POLLIN);
}

static inline uint64_t fd_inode(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return st.st_ino;
}

static inline void make_directory(char path[static 32])
{
	(void)snprintf(path, 32, "/tmp/tenured-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(path));
}

/* A child that runs function and exits with what it returns; killed when we die. */
static inline pid_t fork_child(int (*function)(void *userdata), void *userdata)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(function(userdata));
	}
	return pid;
}

static inline int wait_status(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static inline void end_child(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)wait_status(pid);
}

/* As run_tests(), for a case that has loop tests; which frees the suite. */
static inline int run_case(const char *name, TCase *tcase)
{
	Suite *suite = suite_create(name);
	SRunner *runner;
	int n_failed;

	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

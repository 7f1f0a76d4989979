/* SPDX-License-Identifier: Apache-2.0 */
/* What a keeper holds. */
#include "daemon/keeper_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "unit.h"

static int fd_new(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static void add(struct keeper_store *s, const char *name)
{
	int fd = fd_new();

	ck_assert_int_eq(keeper_store_add_take(s, name, &fd), 0);
	ck_assert_int_eq(fd, -1);
}

static void check_names(const struct keeper_store *s, const char *names)
{
	_cleanup_free_ char *got = keeper_store_names(s);

	ck_assert_str_eq(got, names);
}

START_TEST(holds)
{
	struct keeper_store s;
	_cleanup_free_ struct spawn_fd *map = NULL;
	int first, fd = -1;

	ck_assert_int_eq(keeper_store_init(&s, 4), 0);
	check_names(&s, "");
	ck_assert(!keeper_store_has_state(&s));
	add(&s, "_l1");
	first = s.list[0].fd;
	add(&s, "_p2");
	add(&s, "_l1");
	add(&s, "_s3");
	check_names(&s, "_l1:_p2:_l1:_s3");
	ck_assert(keeper_store_has_state(&s));
	/* Full: it stays the caller's. */
	fd = fd_new();
	ck_assert_int_eq(keeper_store_add_take(&s, "_l4", &fd), -ENOSPC);
	ck_assert_int_ge(fcntl(fd, F_GETFD), 0);
	close_fd(fd);
	/* All of a name, in one go; the others keep their order. */
	ck_assert_uint_eq(keeper_store_remove(&s, "_l1"), 2);
	ck_assert_int_lt(fcntl(first, F_GETFD), 0);
	ck_assert_uint_eq(keeper_store_remove(&s, "_l1"), 0);
	check_names(&s, "_p2:_s3");
	ck_assert_int_eq(keeper_store_map(&s, &map), 0);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(map[i].target, i);
	ck_assert_int_eq(map[2].source, 2);
	ck_assert_int_eq(map[3].source, s.list[0].fd);
	keeper_store_drop(&s);
	check_names(&s, "");
	keeper_store_done(&s);
}
END_TEST

/* In a child, for numbers from 3 on are the test's own otherwise. Where it was not as expected; 0.
 */
static int inherit(const char *fds, const char *names, const char *expected)
{
	_cleanup_free_ char *got = NULL, *kept = NULL;
	struct keeper_store s;
	char pid[16];
	int fd, r;

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	(void)setenv("LISTEN_PID", pid, 1);
	(void)setenv("LISTEN_FDS", fds, 1);
	if (names)
		(void)setenv("LISTEN_FDNAMES", names, 1);
	for (fd = 3; fd < 6; fd++)
		if (dup2(0, fd) != fd)
			return __LINE__;
	r = keeper_store_init(&s, 10);
	if (!expected)
		return r == -EINVAL ? 0 : __LINE__;
	got = keeper_store_names(&s);
	if (r != 0 || !got || !streq(got, expected))
		return __LINE__;
	for (size_t i = 0; i < s.n; i++)
		if (!(fcntl(s.list[i].fd, F_GETFD) & FD_CLOEXEC))
			return __LINE__;
	/* What came with our start is never removed, nor is it the state of a daemon. */
	fd = fcntl(0, F_DUPFD_CLOEXEC, 10);
	if (keeper_store_add_take(&s, "http", &fd) < 0 || keeper_store_remove(&s, "http") != 1)
		return __LINE__;
	keeper_store_drop(&s);
	kept = keeper_store_names(&s);
	if (!kept || !streq(kept, expected) || keeper_store_has_state(&s))
		return __LINE__;
	keeper_store_done(&s);
	return 0;
}

static void check_inherited(const char *fds, const char *names, const char *expected)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(inherit(fds, names, expected));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "line %d", WEXITSTATUS(status));
}

START_TEST(inherits)
{
	static const struct {
		const char *fds, *names, *expected;
	} cases[] = {
		{"2",      "http:dns", "http:dns"	    },
		{"3",      "http",     "http:unknown:unknown"},
		{"2",      ":dns",     "unknown:dns"	   },
		{"1",      NULL,	    "unknown"	     },
		{"0",      "",	  ""		    },
		{"1",      "_s1",	     "_s1"		  },
		{"x",      "http",     NULL		  },
		{"-1",     "http",     NULL		   },
		{"999999", "http",	   NULL		       },
	};

	check_inherited(cases[_i].fds, cases[_i].names, cases[_i].expected);
}
END_TEST

START_TEST(not_for_us)
{
	struct keeper_store s;

	(void)setenv("LISTEN_FDS", "2", 1);
	(void)setenv("LISTEN_PID", "1", 1);
	ck_assert_int_eq(keeper_store_init(&s, 10), 0);
	ck_assert_uint_eq(s.n, 0);
	keeper_store_done(&s);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("keeper_store");
	TCase *tcase = tcase_create("keeper_store");
	SRunner *runner;
	int n_failed;

	tcase_add_test(tcase, holds);
	tcase_add_loop_test(tcase, inherits, 0, 9);
	tcase_add_test(tcase, not_for_us);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: who is let in, where it is, and what its end looks like. */
#include "control_toy.h"

START_TEST(crowds)
{
	int fds[40];

	start((struct control_limits){.connections = 10, .connections_per_uid = 3});
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = connect_client();
		(void)turn(0);
	}
	/* An operator has no limit of its own, but 16 more than all. */
	ck_assert_uint_eq(control_server_n_connections(toy.server), 26);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		if (i < 26)
			expect_served(fds[i]);
		else
			expect(fds[i], "");
		(void)close_fd(fds[i]);
	}
	(void)turn(0);
	ck_assert_uint_eq(control_server_n_connections(toy.server), 0);

	if (getuid() != 0)
		return; /* others' limits need others */
	for (size_t i = 0; i < 5; i++)
		fds[i] = connect_as_nobody();
	(void)turn(0);
	ck_assert_uint_eq(control_server_n_connections(toy.server), 3);
	expect_served(fds[2]);
	expect(fds[3], "");
	for (size_t i = 0; i < 5; i++)
		(void)close_fd(fds[i]);
}
END_TEST

START_TEST(out_of_descriptors)
{
	struct rlimit limit, few;

	start((struct control_limits){0});
	_cleanup_close_ int fd = connect_client(), probe = dup(0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	few.rlim_cur = (rlim_t)probe;
	probe = close_fd(probe);
	/* Below probe all are taken. */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	unsigned n = 0;
	for (uint64_t end_usec = now_usec() + 300 * USEC_PER_MSEC; now_usec() < end_usec;)
		n += turn(50 * USEC_PER_MSEC);
	ck_assert_uint_lt(n, 5); /* no spinning */
	ck_assert_uint_eq(control_server_n_connections(toy.server), 0);
	ck_assert_uint_eq(toy.n_reports, 1);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	expect_served(fd);
}
END_TEST

START_TEST(roles)
{
	static char nobody[] = "65534", group[] = "@65534", root[] = "root",
		    stranger[] = "no-such-user-here";
	char *const only_nobody[] = {nobody, NULL}, *const only_group[] = {group, NULL},
		    *const only_root[] = {stranger, root, NULL};

	if (getuid() != 0)
		return; /* who runs the daemon is always an operator */
	start((struct control_limits){0});
	_cleanup_close_ int fd = connect_as_nobody();
	expect_served(fd);
	say(fd, CALL_SERVICE("Pause"));
	expect_start(fd,
		"{\"error\":\"" SUPERVISOR "NotPermitted\",\"parameters\":{\"method\":\"Pause\"");

	/* A change holds for those who are connected. */
	toy.options.operators = only_nobody;
	ck_assert_int_eq(control_server_reconfigure(toy.server, &toy.options, NULL), 0);
	say(fd, CALL_SERVICE("Pause"));
	expect(fd, "{\"parameters\":{}}");
	toy.options.operators = NULL;
	toy.options.observers = only_root;
	ck_assert_int_eq(control_server_reconfigure(toy.server, &toy.options, NULL), 0);
	ck_assert_uint_eq(toy.n_reports, 1); /* the stranger */
	say(fd, CALL("List"));
	expect_start(fd, "{\"error\":\"" SUPERVISOR "NotPermitted\"");
	say(fd, "{\"method\":\"org.varlink.service.GetInfo\"}");
	expect_start(fd, "{\"parameters\"");
	toy.options.operators = only_group;
	ck_assert_int_eq(control_server_reconfigure(toy.server, &toy.options, NULL), 0);
	say(fd, CALL_SERVICE("Pause"));
	expect(fd, "{\"parameters\":{}}");
	ck_assert_uint_eq(toy.n_bad_replies, 0);
}
END_TEST

START_TEST(moves)
{
	char path[sizeof(toy.path) + 2];
	struct stat st;

	start((struct control_limits){0});
	_cleanup_close_ int fd = connect_client();
	expect_served(fd);
	ck_assert_int_eq(stat(toy.path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0666);
	toy.options.mode = 0600;
	ck_assert_int_eq(control_server_reconfigure(toy.server, &toy.options, NULL), 0);
	ck_assert_int_eq(stat(toy.path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);

	(void)snprintf(path, sizeof(path), "%s2", toy.path);
	toy.options.path = path;
	ck_assert_int_eq(control_server_reconfigure(toy.server, &toy.options, NULL), 0);
	ck_assert_int_eq(access(toy.path, F_OK), -1);
	ck_assert_str_eq(control_server_path(toy.server), path);
	expect_served(fd);
	_cleanup_close_ int second = connect_to(path);
	expect_served(second);

	/* One that cannot be changes nothing. */
	_cleanup_error_ struct error error = ERROR_NULL;
	toy.options.path = "relative.sock";
	ck_assert_int_lt(control_server_reconfigure(toy.server, &toy.options, &error), 0);
	toy.options.path = toy.directory;
	ck_assert_int_eq(control_server_reconfigure(toy.server, &toy.options, &error), -EEXIST);
	ck_assert_ptr_nonnull(strstr(error_message(&error), toy.directory));
	_cleanup_close_ int third = connect_to(path);
	expect_served(third);
}
END_TEST

START_TEST(handed_over)
{
	struct control_server *rival = NULL;
	_cleanup_error_ struct error error = ERROR_NULL;

	start((struct control_limits){0});
	ck_assert_int_eq(
		control_server_new(toy.event, &toy.options, &ops, &rival, &error), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(error_message(&error), "another daemon"));

	/* A client that comes between two daemons waits, and is served by the second. */
	int kept = fcntl(control_server_fd(toy.server), F_DUPFD_CLOEXEC, 3);
	control_server_keep_path(toy.server);
	toy.server = control_server_free(toy.server);
	_cleanup_close_ int fd = connect_client();
	toy.options.listen_fd = kept;
	start((struct control_limits){0});
	ck_assert_int_eq(control_server_fd(toy.server), kept);
	expect_served(fd);
	_cleanup_close_ int second = connect_client();
	expect_served(second);

	/* What is no listening Unix socket is not taken over. */
	toy.options.listen_fd = second;
	ck_assert_int_eq(
		control_server_new(toy.event, &toy.options, &ops, &rival, &error), -EINVAL);
	ck_assert_int_ge(fcntl(second, F_GETFD), 0);

	/* Nor does a stale path stand in the way. */
	control_server_keep_path(toy.server);
	toy.server = control_server_free(toy.server);
	ck_assert_int_eq(access(toy.path, F_OK), 0);
	toy.options.listen_fd = -1;
	start((struct control_limits){0});
	_cleanup_close_ int third = connect_client();
	expect_served(third);
}
END_TEST

START_TEST(ends_with_calls_open)
{
	start((struct control_limits){0});
	_cleanup_close_ int fd = connect_client();

	say(fd, UPGRADE_MORE);
	(void)turn(0);
	(void)turn(0);
	ck_assert_uint_eq(toy.n_held, 1);
	for (unsigned i = 0; i < 5000; i++)
		ck_assert_int_eq(control_call_notify(toy.held[0], progress(false)), 0);
	/* Nobody reads: bounded all the same. */
	uint64_t begin_usec = now_usec();
	control_server_flush(toy.server, 100 * USEC_PER_MSEC);
	ck_assert_uint_lt(now_usec() - begin_usec, USEC_PER_SEC);
	toy.server = control_server_free(toy.server);
	ck_assert_uint_eq(toy.n_gone, 0);
	ck_assert(control_call_is_over(toy.held[0]));
	ck_assert_int_eq(control_call_reply(toy.held[0], progress(true)), -ENOTCONN);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		crowds, out_of_descriptors, roles, moves, handed_over, ends_with_calls_open};

	return run_toy_tests("control_server", tests, ARRAY_SIZE(tests));
}

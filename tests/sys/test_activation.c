/* SPDX-License-Identifier: Apache-2.0 */
/* The test runs itself again, as a service manager would: sockets from number 3, LISTEN_PID in its
 * own pid. */
#include "sys/activation.h"

#include "sys_test.h"

#include <sys/stat.h>

#include "sys/spawn.h"

/* "name what listening" for each, so that the whole can be compared. */
static int report(void)
{
	_cleanup_activation_ struct activation a;
	int r = activation_receive(&a);

	printf("%d %zu %s\n", r, r < 0 ? 0 : a.n, getenv("LISTEN_FDS") ? "set" : "unset");
	if (r < 0)
		return 0;
	for (size_t i = 0; i < a.n; i++) {
		struct activation_socket *s = &a.sockets[i];
		_cleanup_free_ char *text = s->is_socket ? address_format(&s->address) : NULL;

		printf("%d %s %s %s%s%s\n", s->fd, s->name, text ? text : "-",
			s->listening ? "listening" : "idle",
			fcntl(s->fd, F_GETFD) & FD_CLOEXEC ? "" : " inheritable",
			s->uid == geteuid() ? "" : " foreign");
	}
	a.sockets[0].fd = close_fd(a.sockets[0].fd);
	return 0;
}

static char *run(const int *fds, size_t n, const char *names, const char *count)
{
	_cleanup_free_ char *fdnames = xasprintf("LISTEN_FDNAMES=%s", names ? names : "");
	_cleanup_free_ char *listen_fds = xasprintf("LISTEN_FDS=%s", count);
	char *argv[] = {(char[]){"report"}, (char[]){"report"}, NULL};
	char *envp[] = {listen_fds, names ? fdnames : NULL, NULL};
	struct spawn_fd map[8];
	struct spawn_request request = {
		.argv = argv,
		.path = "/proc/self/exe",
		.exec_fd = -1,
		.envp = envp,
		.listen_pid = true,
		.fds = map,
		.n_fds = n + 1,
		.directory_fd = -1,
		.cgroup_fd = -1,
	};
	struct spawn_result result;
	char *text = calloc(1, 4096);
	size_t len = 0;
	int output[2];
	ssize_t got;

	ck_assert_int_eq(pipe2(output, O_CLOEXEC), 0);
	map[0] = (struct spawn_fd){.source = output[1], .target = 1};
	for (size_t i = 0; i < n; i++)
		map[i + 1] = (struct spawn_fd){.source = fds[i], .target = 3 + (int)i};
	ck_assert_int_eq(spawn_process(&request, &result), 0);
	close(output[1]);
	while ((got = read(output[0], text + len, 4095 - len)) > 0)
		len += (size_t)got;
	close(output[0]);
	close(result.pidfd);
	ck_assert_int_eq(wait_status(result.pid), 0);
	return text;
}

START_TEST(what_was_passed)
{
	struct address tcp = address_of("127.0.0.1:0"), udp = address_of("udp:[::1]:0");
	_cleanup_free_ char *expected = NULL, *text = NULL, *tcp_text = NULL, *udp_text = NULL;
	const struct listen_options o = OPTIONS;
	int fds[4];

	fds[0] = listen_open_first(&tcp, &o, NULL);
	ck_assert_int_eq(listen_start(fds[0], 5), 0);
	fds[1] = listen_open_first(&udp, &o, NULL);
	fds[2] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	tcp = bound_address(fds[0]);
	udp = bound_address(fds[1]);
	/* Bound, and does not listen. */
	tcp_text = address_format(&tcp);
	udp_text = address_format(&udp);
	tcp = address_of("127.0.0.1:0");
	fds[3] = listen_open_first(&tcp, &o, NULL);
	tcp = bound_address(fds[3]);
	_cleanup_free_ char *idle_text = address_format(&tcp);

	text = run(fds, 4, "http:dns:stored:idle", "4");
	expected = xasprintf("0 4 unset\n3 http %s listening\n4 dns %s listening\n"
			     "5 stored - idle%s\n6 idle %s idle\n",
		tcp_text, udp_text, geteuid() == 0 ? "" : " foreign", idle_text);
	ck_assert_str_eq(text, expected);
	for (size_t i = 0; i < 4; i++)
		close(fds[i]);
}
END_TEST

START_TEST(without_names)
{
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	int fd = listen_open_first(&a, &o, NULL);
	_cleanup_free_ char *text = run(&fd, 1, NULL, "1");

	ck_assert_ptr_nonnull(strstr(text, "0 1 unset\n3 unknown tcp:127.0.0.1:"));
	close(fd);
}
END_TEST

START_TEST(variables_that_contradict)
{
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	int fd = listen_open_first(&a, &o, NULL);
	_cleanup_free_ char *names = run(&fd, 1, "one:two", "1");
	_cleanup_free_ char *count = run(&fd, 1, NULL, "many");

	ck_assert_str_eq(names, "-22 0 unset\n");
	ck_assert_str_eq(count, "-22 0 unset\n");
	close(fd);
}
END_TEST

START_TEST(nothing_passed)
{
	struct activation a;

	(void)unsetenv("LISTEN_FDS");
	ck_assert_int_eq(activation_receive(&a), 0);
	ck_assert_uint_eq(a.n, 0);
	activation_done(&a);
	/* For somebody else. */
	(void)setenv("LISTEN_FDS", "1", 1);
	(void)setenv("LISTEN_PID", "1", 1);
	ck_assert_int_eq(activation_receive(&a), 0);
	ck_assert_uint_eq(a.n, 0);
	activation_done(&a);
}
END_TEST

int main(int argc, char **argv)
{
	TCase *tcase;

	if (argc > 1 && streq(argv[1], "report"))
		return report();
	tcase = tcase_create("activation");
	tcase_add_test(tcase, what_was_passed);
	tcase_add_test(tcase, without_names);
	tcase_add_test(tcase, variables_that_contradict);
	tcase_add_test(tcase, nothing_passed);
	return run_case("activation", tcase);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors over an exec: the test executes itself with what it has prepared. */
#include "sys/reexec.h"

#include "sys_test.h"

#include <sys/mman.h>

static bool is_inherited(int fd)
{
	return !(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

/* What the next image got, "FD NAME" for each, with its number of descriptors before and after. */
static int report(void)
{
	_cleanup_activation_ struct activation a = {.sockets = NULL};
	int r = reexec_receive(&a);

	printf("%d %zu %s\n", r, a.n, getenv(REEXEC_VARIABLE) ? "set" : "unset");
	for (size_t i = 0; i < a.n; i++)
		printf("%d %s%s%s\n", a.sockets[i].fd, a.sockets[i].name,
			a.sockets[i].is_socket ? " socket" : "",
			is_inherited(a.sockets[i].fd) ? " inheritable" : "");
	(void)fflush(stdout);
	return 0;
}

/* In a child with these prepared: what the image after it reports. The caller frees. */
static char *exec_with(const struct reexec_fd *list, size_t n, const char *variable)
{
	char *argv[] = {(char[]){"report"}, (char[]){"report"}, NULL};
	char *text = calloc(1, 4096);
	size_t len = 0;
	int output[2], map, status;
	ssize_t got;
	pid_t pid;

	ck_assert_int_eq(pipe2(output, O_CLOEXEC), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		int program = open("/proc/self/exe", O_PATH | O_CLOEXEC);

		if (dup2(output[1], 1) < 0 || reexec_prepare(list, n, &map) < 0)
			_exit(10);
		if (variable)
			(void)setenv(REEXEC_VARIABLE, variable, 1);
		(void)reexec_now(program, argv);
		_exit(11);
	}
	close_fd(output[1]);
	while ((got = read(output[0], text + len, 4095 - len)) > 0)
		len += (size_t)got;
	close_fd(output[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	return text;
}

START_TEST(over_an_exec)
{
	struct address a = address_of("127.0.0.1:0");
	_cleanup_close_ int memory = memfd_create("test", MFD_CLOEXEC),
			    other = memfd_create("other", MFD_CLOEXEC);
	_cleanup_close_ int listening = listen_open_first(&a, &OPTIONS, NULL);
	const struct reexec_fd list[] = {
		{memory,	 "_s1"	      },
		 {listening, "web in blue"}
	   };
	_cleanup_free_ char *got = NULL, *want = NULL;

	ck_assert_int_ge(listening, 0);
	got = exec_with(list, ARRAY_SIZE(list), NULL);
	want = xasprintf("1 2 unset\n%d _s1\n%d web in blue socket\n", memory, listening);
	ck_assert_str_eq(got, want);
	/* Nothing of that was done to us. */
	ck_assert(!is_inherited(memory) && !is_inherited(listening) && !is_inherited(other));
}
END_TEST

START_TEST(undone)
{
	_cleanup_close_ int one = memfd_create("test", MFD_CLOEXEC);
	struct reexec_fd list[] = {
		{one, "_s1"},
		      {-1,  "_s2"}
	 };
	int map = -1;

	ck_assert_int_eq(reexec_prepare(list, 1, &map), 0);
	ck_assert(is_inherited(one) && is_inherited(map) && getenv(REEXEC_VARIABLE));
	reexec_undo(list, 1, map);
	ck_assert(!is_inherited(one) && !getenv(REEXEC_VARIABLE));
	ck_assert_int_lt(fcntl(map, F_GETFD), 0);
	/* One that is not open. */
	ck_assert_int_eq(reexec_prepare(list, 2, &map), -EBADF);
	ck_assert(!is_inherited(one) && !getenv(REEXEC_VARIABLE));
}
END_TEST

START_TEST(nonsense)
{
	static const char *const values[] = {"", "x", "2", "-1", "99999", "4294967297"};
	_cleanup_close_ int memory = memfd_create("test", MFD_CLOEXEC);
	const struct reexec_fd list[] = {
		{memory, "_s1"}
	       };
	struct activation a = {.sockets = NULL};
	_cleanup_free_ char *got = NULL;
	char number[16];

	ck_assert_int_eq(reexec_receive(&a), 0);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		_cleanup_free_ char *text = exec_with(list, 1, values[i]);

		ck_assert_msg(startswith(text, "-22 0 unset\n"), "%s: %s", values[i], text);
	}
	/* A descriptor that says nothing of that kind, and one that is no memfd. */
	ck_assert_int_eq(write(memory, "hello\n", 6), 6);
	snprintf(number, sizeof(number), "%d", memory);
	got = exec_with(list, 1, number);
	ck_assert_str_eq(got, "-22 0 unset\n");
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {over_an_exec, undone, nonsense};

	if (argc == 2 && streq(argv[1], "report"))
		return report();
	return run_tests("reexec", tests, ARRAY_SIZE(tests));
}

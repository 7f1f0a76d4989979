/* SPDX-License-Identifier: Apache-2.0 */
/* Every test runs both ways: loop 0 with clone3(2), loop 1 as where it is forbidden. */
#include "spawn_probe.h"

#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static unsigned count_descriptors(const char *text)
{
	unsigned n = 0;

	for (const char *p = text; (p = strstr(p, "\nfd")); p++)
		n++;
	return n;
}

/* A socket with exactly this number. */
static void socket_at(int number)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd != number) {
		ck_assert_int_eq(dup3(fd, number, O_CLOEXEC), number);
		close(fd);
	}
}

START_TEST(exactly_its_own_descriptors)
{
	struct spawn_request request = PROBE;
	int stray[2], with_cloexec;
	struct spawn_fd fds[2];

	request.plain = _i == 1;
	/* Some that would be inherited, by a mistake of somebody. */
	stray[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	stray[1] = fcntl(stray[0], F_DUPFD, 500);
	with_cloexec = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fds[0] = (struct spawn_fd){.source = with_cloexec, .target = 3};
	fds[1] = (struct spawn_fd){.source = with_cloexec, .target = 9};
	_cleanup_free_ char *text = probe_run(&request, fds, 2);

	ck_assert_probe(text, "fd0", "null");
	ck_assert_probe(text, "fd2", "null");
	ck_assert_probe_number(text, "fd3", fd_inode(with_cloexec));
	ck_assert_probe_number(text, "fd9", fd_inode(with_cloexec));
	ck_assert_uint_eq(count_descriptors(text), 5);
	/* And ours are as they were. */
	ck_assert_int_eq(fcntl(stray[0], F_GETFD), 0);
	ck_assert_int_eq(fcntl(with_cloexec, F_GETFD), FD_CLOEXEC);
	close(stray[0]);
	close(stray[1]);
	close(with_cloexec);
}
END_TEST

/* Rings, chains and fixed points among the numbers FIRST to FIRST + 5, which are nobody else's. */
enum { FIRST = 40 };

START_TEST(permuted_descriptors)
{
	static const int maps[][6] = {
		{1, 0, 2, 3, 4, 5}, /* a swap */
		{1, 2, 3, 4, 5, 0}, /* one ring */
		{5, 0, 1, 2, 3, 4}, /* the other way round */
		{2, 0, 1, 5, 3, 4}, /* two rings */
		{0, 0, 0, 1, 1, 2}, /* sources used twice */
		{5, 4, 3, 2, 1, 0},
	};
	struct spawn_request request = PROBE;

	request.plain = _i == 1;
	for (int i = 0; i < 6; i++)
		socket_at(FIRST + i);
	for (size_t m = 0; m < ARRAY_SIZE(maps); m++) {
		struct spawn_fd fds[6];
		_cleanup_free_ char *text = NULL;

		for (int i = 0; i < 6; i++)
			fds[i] = (struct spawn_fd){
				.source = FIRST + maps[m][i], .target = FIRST + i};
		text = probe_run(&request, fds, 6);
		for (int i = 0; i < 6; i++) {
			_cleanup_free_ char *key = xasprintf("fd%d", FIRST + i);

			ck_assert_probe_number(text, key, fd_inode(FIRST + maps[m][i]));
		}
		ck_assert_uint_eq(count_descriptors(text), 9);
	}
	/* The listeners' flags belong to all who hold them. */
	for (int i = 0; i < 6; i++) {
		ck_assert(fcntl(FIRST + i, F_GETFL) & O_NONBLOCK);
		close(FIRST + i);
	}
}
END_TEST

/* What is executed and where it runs are descriptors too, in the way of the child's. */
START_TEST(executable_and_directory_in_the_way)
{
	struct spawn_request request = PROBE;
	struct spawn_fd fds[4];
	int source;

	request.plain = _i == 1;
	request.exec_fd = spawn_pin_executable(AT_FDCWD, "/proc/self/exe");
	ck_assert_int_ge(request.exec_fd, 0);
	request.directory_fd = open("/usr", O_PATH | O_DIRECTORY | O_CLOEXEC);
	request.path = NULL;
	source = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fds[0] = (struct spawn_fd){.source = source, .target = request.exec_fd};
	fds[1] = (struct spawn_fd){.source = source, .target = request.directory_fd};
	fds[2] = (struct spawn_fd){.source = source, .target = source};
	fds[3] = (struct spawn_fd){.source = source, .target = source + 1};
	_cleanup_free_ char *text = probe_run(&request, fds, 4);

	ck_assert_probe(text, "directory", "/usr");
	ck_assert_probe(text, "argv0", "a name");
	ck_assert_uint_eq(count_descriptors(text), 7);
	close(request.exec_fd);
	close(request.directory_fd);
	close(source);
}
END_TEST

START_TEST(many_descriptors)
{
	struct spawn_request request = PROBE;
	struct spawn_fd fds[60];
	int source = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	request.plain = _i == 1;
	for (int i = 0; i < 60; i++)
		fds[i] = (struct spawn_fd){.source = source, .target = 3 + 5 * i};
	_cleanup_free_ char *text = probe_run(&request, fds, 60);
	ck_assert_uint_eq(count_descriptors(text), 63);
	ck_assert_probe_number(text, "fd298", fd_inode(source));
	close(source);
}
END_TEST

START_TEST(bad_descriptors)
{
	struct spawn_request request = PROBE;
	struct spawn_result result;
	const struct spawn_fd twice[] =
		{
			{0, 3},
			{1, 3}
	      },
			      negative[] = {{0, -1}}, none[] = {{-1, 3}}, closed[] = {{9999, 3}};

	request.plain = _i == 1;
	request.fds = twice;
	request.n_fds = 2;
	ck_assert_int_eq(spawn_process(&request, &result), -EINVAL);
	ck_assert_int_eq(result.failed_at, SPAWN_DESCRIPTORS);
	request.n_fds = 1;
	request.fds = negative;
	ck_assert_int_eq(spawn_process(&request, &result), -EINVAL);
	request.fds = none;
	ck_assert_int_eq(spawn_process(&request, &result), -EINVAL);
	request.fds = closed;
	ck_assert_int_eq(spawn_process(&request, &result), -EBADF);
	ck_assert_int_eq(result.failed_at, SPAWN_DESCRIPTORS);
	ck_assert_int_eq(result.pidfd, -1);
	/* The child that failed is not left behind. */
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
}
END_TEST

START_TEST(listen_pid)
{
	static char *const without[] = {(char *)(uintptr_t) "A=b", NULL};
	struct spawn_request request = PROBE;

	request.plain = _i == 1;
	request.listen_pid = true;
	for (int i = 0; i < 2; i++) {
		_cleanup_free_ char *text = NULL, *pid = NULL, *line = NULL;

		request.envp = i ? without : probe_envp;
		text = probe_run(&request, NULL, 0);
		pid = probe_value(text, "pid");
		line = xasprintf("\nenv LISTEN_PID=%s\n", pid);
		ck_assert_ptr_nonnull(strstr(text, line));
		ck_assert_ptr_nonnull(strstr(text, "\nenv A=b\n"));
		ck_assert(i || strstr(text, "\nenv C=d\n"));
	}
	ck_assert_str_eq(probe_envp[1], "LISTEN_PID=0");

	request.listen_pid = false;
	request.envp = probe_envp;
	_cleanup_free_ char *text = probe_run(&request, NULL, 0);
	ck_assert_ptr_nonnull(strstr(text, "\nenv LISTEN_PID=0\n"));
	ck_assert_ptr_null(strstr(text, "\nenv LISTEN_PIDFDID="));
}
END_TEST

/* Right or absent, whatever the limits are and whatever was there before. */
START_TEST(listen_pidfdid)
{
	static char *const stale[] = {
		(char *)(uintptr_t) "LISTEN_PIDFDID=1", (char *)(uintptr_t) "A=b", NULL};
	const struct spawn_limit few = {
		.resource = RLIMIT_NOFILE, .value = {.rlim_cur = 4, .rlim_max = 4}
	  };
	struct spawn_request request = PROBE;
	_cleanup_free_ char *text = NULL, *id = NULL, *line = NULL;

	request.plain = _i == 1;
	request.listen_pid = true;
	request.envp = stale;
	text = probe_run(&request, NULL, 0);
	id = probe_value(text, "pidfdid");
	line = xasprintf("\nenv LISTEN_PIDFDID=%s\n", id);
	ck_assert_ptr_null(strstr(text, "\nenv LISTEN_PIDFDID=1\n"));
	ck_assert_ptr_nonnull(strstr(text, "\nenv A=b\n"));
	ck_assert_msg(
		*id ? strstr(text, line) != NULL : !strstr(text, "LISTEN_PIDFDID"), "%s", text);

	request.limits = &few;
	request.n_limits = 1;
	_cleanup_free_ char *limited = probe_run(&request, NULL, 0);
	ck_assert(!*id || strstr(limited, "\nenv LISTEN_PIDFDID="));
	ck_assert_ptr_null(strstr(limited, "LISTEN_PIDFDID=1\n"));
}
END_TEST

static volatile sig_atomic_t n_handled, n_handled_in_child;
static volatile pid_t own_pid;

static void handle(int signal)
{
	(void)signal;
	n_handled++;
	if (getpid() != own_pid)
		n_handled_in_child++;
}

START_TEST(clean_signals)
{
	struct sigaction act = {.sa_handler = SIG_IGN}, now;
	struct spawn_request request = PROBE;
	sigset_t set, before;

	request.plain = _i == 1;
	ck_assert_int_eq(sigaction(SIGPIPE, &act, NULL), 0);
	ck_assert_int_eq(sigaction(SIGUSR1, &act, NULL), 0);
	act.sa_handler = handle;
	ck_assert_int_eq(sigaction(SIGTERM, &act, NULL), 0);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	_cleanup_free_ char *text = probe_run(&request, NULL, 0);
	ck_assert_probe(text, "SigBlk", "0000000000000000");
	ck_assert_probe(text, "SigIgn", "0000000000000000");
	ck_assert_probe(text, "SigPnd", "0000000000000000");
	ck_assert_probe(text, "umask", "22");

	/* And ours are as they were. */
	(void)sigprocmask(SIG_BLOCK, NULL, &before);
	ck_assert(sigismember(&before, SIGHUP) && sigismember(&before, SIGCHLD));
	ck_assert(!sigismember(&before, SIGTERM));
	(void)sigaction(SIGTERM, NULL, &now);
	ck_assert(now.sa_handler == handle);
	(void)sigaction(SIGPIPE, NULL, &now);
	ck_assert(now.sa_handler == SIG_IGN);
	n_handled = 0;
	(void)raise(SIGTERM);
	ck_assert_int_eq(n_handled, 1);
	act.sa_handler = SIG_DFL;
	(void)sigaction(SIGPIPE, &act, NULL);
}
END_TEST

/* A storm of signals to our whole group, in which the child is until it has one of its own. Our
 * handler must not run in the child: while memory is shared it would count here. It lasts until it
 * is killed, at most a minute. */
static int storm(void *userdata)
{
	pid_t *target = userdata;

	for (uint64_t end = now_usec() + 60 * USEC_PER_SEC; now_usec() < end;)
		(void)kill(-*target, SIGUSR2);
	return 0;
}

START_TEST(signals_during_spawn)
{
	struct sigaction act = {.sa_handler = handle};
	struct spawn_request request = PROBE;
	static char *const argv[] = {(char *)(uintptr_t) "true", NULL};
	pid_t group = getpid(), other;
	int status;

	/* check gives each test a group of its own, unless it runs without forks. */
	if (getpgrp() != group)
		(void)setpgid(0, 0);
	group = getpgrp();
	own_pid = getpid();
	n_handled = n_handled_in_child = 0;
	request.plain = _i == 1;
	request.path = "/bin/true";
	request.argv = argv;
	ck_assert_int_eq(sigaction(SIGUSR2, &act, NULL), 0);
	other = fork_child(storm, &group);
	for (int i = 0; i < 100; i++) {
		struct spawn_result result;

		ck_assert_int_eq(spawn_process(&request, &result), 0);
		close(result.pidfd);
		/* Killed by it before its exec, while it was still in the group, or all went well.
		 */
		while (waitpid(result.pid, &status, 0) < 0)
			ck_assert_int_eq(errno, EINTR);
		ck_assert(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR2));
	}
	ck_assert_int_eq(kill(other, SIGKILL), 0);
	while (waitpid(other, &status, 0) < 0)
		ck_assert_int_eq(errno, EINTR);
	ck_assert_int_gt(n_handled, 0);
	ck_assert_int_eq(n_handled_in_child, 0);
}
END_TEST

START_TEST(directory_and_limits)
{
	struct spawn_request request = PROBE;
	const struct spawn_limit limits[] = {
		{RLIMIT_NOFILE, {.rlim_cur = 333, .rlim_max = 333}},
		{RLIMIT_CORE,   {.rlim_cur = 0, .rlim_max = 0}    },
	};
	struct rlimit ours, original;

	request.plain = _i == 1;
	request.directory = "/usr/bin";
	request.limits = limits;
	request.n_limits = ARRAY_SIZE(limits);
	ck_assert_int_eq(spawn_raise_nofile(&original), 0);
	(void)getrlimit(RLIMIT_NOFILE, &ours);
	ck_assert_uint_eq(ours.rlim_cur, original.rlim_max);
	_cleanup_free_ char *text = probe_run(&request, NULL, 0);
	ck_assert_probe(text, "directory", "/usr/bin");
	ck_assert_probe(text, "nofile", "333");
	(void)getrlimit(RLIMIT_NOFILE, &ours);
	ck_assert_uint_eq(ours.rlim_cur, original.rlim_max);
}
END_TEST

/* Bound to one CPU of ours, then to the other. One that is not there is an error, and so is none.
 */
START_TEST(affinity)
{
	struct spawn_request request = PROBE;
	struct spawn_result result;
	cpu_set_t ours, cpus;
	unsigned n = 0;

	request.plain = _i == 1;
	request.cpus = &cpus;
	ck_assert_int_eq(sched_getaffinity(0, sizeof(ours), &ours), 0);
	for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		_cleanup_free_ char *text = NULL;

		CPU_ZERO(&cpus);
		CPU_SET(cpu, &cpus);
		if (!CPU_ISSET(cpu, &ours) || n++ == 4)
			continue;
		text = probe_run(&request, NULL, 0);
		ck_assert_probe_number(text, "Cpus_allowed_list", cpu);
	}
	ck_assert_uint_gt(n, 0);
	request.n_fds = 0;
	CPU_ZERO(&cpus);
	ck_assert_int_eq(spawn_process(&request, &result), -EINVAL);
	ck_assert_int_eq(result.failed_at, SPAWN_AFFINITY);
	ck_assert_int_eq(result.pid, -1);
	CPU_SET(CPU_SETSIZE - 1, &cpus);
	if (!CPU_ISSET(CPU_SETSIZE - 1, &ours)) {
		ck_assert_int_eq(spawn_process(&request, &result), -EINVAL);
		ck_assert_int_eq(result.failed_at, SPAWN_AFFINITY);
	}
	/* Ours is as it was. */
	ck_assert_int_eq(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	ck_assert(CPU_EQUAL(&cpus, &ours));
}
END_TEST

/* Each failure says where, and leaves neither a process nor a descriptor. */
START_TEST(failures_say_where)
{
	char directory[32], *file;
	struct spawn_limit too_high = {
		RLIMIT_NOFILE, {.rlim_cur = 2, .rlim_max = 1}
	     };
	struct {
		struct spawn_request request;
		enum spawn_step step;
		int error;
	} cases[5];
	int before, after;

	make_directory(directory);
	file = xasprintf("%s/file", directory);
	close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		cases[i].request = PROBE;
		cases[i].request.plain = _i == 1;
	}
	cases[0].request.path = "/no/such/program";
	cases[0].step = SPAWN_EXEC;
	cases[0].error = -ENOENT;
	cases[1].request.path = file;
	cases[1].step = SPAWN_EXEC;
	cases[1].error = -EACCES;
	cases[2].request.directory = file;
	cases[2].step = SPAWN_DIRECTORY;
	cases[2].error = -ENOTDIR;
	cases[3].request.limits = &too_high;
	cases[3].request.n_limits = 1;
	cases[3].step = SPAWN_LIMITS;
	cases[3].error = -EINVAL;
	cases[4].request.cgroup_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	cases[4].step = SPAWN_CGROUP;
	cases[4].error = 0; /* the kernel's choice */

	before = dup(0);
	close(before);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct spawn_result result;
		int r = spawn_process(&cases[i].request, &result);

		ck_assert_int_lt(r, 0);
		if (cases[i].error)
			ck_assert_int_eq(r, cases[i].error);
		ck_assert_str_eq(spawn_step_to_string(result.failed_at),
			spawn_step_to_string(cases[i].step));
		ck_assert_int_eq(result.pid, -1);
		ck_assert_int_eq(result.pidfd, -1);
		ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	}
	after = dup(0);
	ck_assert_int_eq(before, after);
	close(after);
	close(cases[4].request.cgroup_fd);
	ck_assert_int_eq(unlink(file), 0);
	ck_assert_int_eq(rmdir(directory), 0);
	free(file);
}
END_TEST

START_TEST(signal_by_pidfd_and_group)
{
	static char *const argv[] = {(char *)(uintptr_t) "sleep", (char *)(uintptr_t) "60", NULL};
	struct spawn_request request = PROBE;
	struct spawn_result result;
	int status;

	request.plain = _i == 1;
	request.path = "/bin/sleep";
	request.argv = argv;
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(spawn_process(&request, &result), 0);
		ck_assert_int_eq(i ? spawn_signal_group(result.pid, SIGTERM)
				   : spawn_signal(result.pidfd, SIGTERM),
			0);
		status = wait_status(result.pid);
		ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
		ck_assert_int_eq(spawn_signal(result.pidfd, SIGTERM), -ESRCH);
		ck_assert_int_eq(spawn_signal_group(result.pid, SIGTERM), -ESRCH);
		close(result.pidfd);
	}
	ck_assert_int_eq(spawn_signal_group(0, SIGTERM), -EINVAL);
	ck_assert_int_eq(spawn_signal_group(1, SIGTERM), -EINVAL);
	ck_assert_int_eq(spawn_signal_group(-1, SIGTERM), -EINVAL);
}
END_TEST

START_TEST(find_program)
{
	char directory[32];
	char *path;
	int fd;

	make_directory(directory);
	fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	close(openat(fd, "plain", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
	close(openat(fd, "program", O_CREAT | O_WRONLY | O_CLOEXEC, 0755));
	ck_assert_int_eq(mkdirat(fd, "sh", 0755), 0);

	ck_assert_int_eq(spawn_find_program("sh", "/nowhere:/bin", AT_FDCWD, &path), 0);
	ck_assert_str_eq(path, "/bin/sh");
	free(path);
	ck_assert_int_eq(spawn_find_program("sh", NULL, AT_FDCWD, &path), 0);
	free(path);
	/* A directory of that name is passed over. */
	ck_assert_int_eq(spawn_find_program("sh", ":/bin", fd, &path), 0);
	ck_assert_str_eq(path, "/bin/sh");
	free(path);
	ck_assert_int_eq(spawn_find_program("program", "/bin:", fd, &path), 0);
	ck_assert_str_eq(path, "./program");
	free(path);
	ck_assert_int_eq(spawn_find_program("./program", "/bin", fd, &path), 0);
	ck_assert_str_eq(path, "./program");
	free(path);
	ck_assert_int_eq(spawn_find_program("plain", "/bin:.", fd, &path), -EACCES);
	ck_assert_int_eq(spawn_find_program("./plain", "/bin", fd, &path), -EACCES);
	ck_assert_int_eq(spawn_find_program("./sh", "/bin", fd, &path), -EACCES);
	ck_assert_int_eq(spawn_find_program("no-such-program", "/bin:.", fd, &path), -ENOENT);
	ck_assert_int_eq(spawn_find_program("plain/x", "/bin", fd, &path), -ENOENT);
	ck_assert_int_eq(spawn_find_program("", "/bin", fd, &path), -ENOENT);

	ck_assert_int_eq(spawn_pin_executable(fd, "program"), -ENOEXEC);
	ck_assert_int_eq(spawn_pin_executable(fd, "sh"), -EACCES);
	ck_assert_int_eq(spawn_pin_executable(fd, "missing"), -ENOENT);
	ck_assert_int_eq(unlinkat(fd, "plain", 0), 0);
	ck_assert_int_eq(unlinkat(fd, "program", 0), 0);
	ck_assert_int_eq(unlinkat(fd, "sh", AT_REMOVEDIR), 0);
	ck_assert_int_eq(rmdir(directory), 0);
	close(fd);
}
END_TEST

/* How long the caller is held up. Beside the library's own posix_spawn(), for the machine may be
 * busy. */
START_TEST(quick)
{
	enum { N = 100 };
	static char *const argv[] = {(char *)(uintptr_t) "true", NULL};
	struct spawn_request request = PROBE;
	const size_t size = 256 << 20;
	uint64_t start, ours = UINT64_MAX, theirs = UINT64_MAX;
	char *memory;

	request.plain = _i == 1;
	request.path = "/bin/true";
	request.argv = argv;
	/* A big parent: what is copied costs. */
	memory = malloc(size);
	for (size_t i = 0; i < size; i += 4096)
		memory[i] = 1;
	for (int i = 0; i < N; i++) {
		struct spawn_result result;
		pid_t pid;

		start = now_usec();
		ck_assert_int_eq(spawn_process(&request, &result), 0);
		ours = MIN(ours, now_usec() - start);
		close(result.pidfd);
		(void)wait_status(result.pid);
		start = now_usec();
		ck_assert_int_eq(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, probe_envp), 0);
		theirs = MIN(theirs, now_usec() - start);
		(void)wait_status(pid);
	}
	printf("spawn_process%s beside 256 MiB: %llu us (posix_spawn %llu us), best of %d\n",
		request.plain ? ", plain," : "", (unsigned long long)ours,
		(unsigned long long)theirs, N);
	if (!request.plain)
		ck_assert_uint_lt(ours, 2 * theirs + 100);
	free(memory);
}
END_TEST

int main(int argc, char **argv)
{
	TCase *tcase;

	if (argc > 1 && streq(argv[1], "probe"))
		return probe_main(argv);
	tcase = tcase_create("spawn");
	tcase_set_timeout(tcase, 30);
	tcase_add_loop_test(tcase, exactly_its_own_descriptors, 0, 2);
	tcase_add_loop_test(tcase, permuted_descriptors, 0, 2);
	tcase_add_loop_test(tcase, executable_and_directory_in_the_way, 0, 2);
	tcase_add_loop_test(tcase, many_descriptors, 0, 2);
	tcase_add_loop_test(tcase, bad_descriptors, 0, 2);
	tcase_add_loop_test(tcase, listen_pid, 0, 2);
	tcase_add_loop_test(tcase, listen_pidfdid, 0, 2);
	tcase_add_loop_test(tcase, clean_signals, 0, 2);
	tcase_add_loop_test(tcase, signals_during_spawn, 0, 2);
	tcase_add_loop_test(tcase, directory_and_limits, 0, 2);
	tcase_add_loop_test(tcase, affinity, 0, 2);
	tcase_add_loop_test(tcase, failures_say_where, 0, 2);
	tcase_add_loop_test(tcase, signal_by_pidfd_and_group, 0, 2);
	tcase_add_test(tcase, find_program);
	tcase_add_loop_test(tcase, quick, 0, 2);
	return run_case("spawn", tcase);
}

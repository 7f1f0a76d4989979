/* SPDX-License-Identifier: Apache-2.0 */
/* What only root can do: other users. */
#include "spawn_probe.h"

#include <sys/prctl.h>
#include <sys/socket.h>

#include "sys/process.h"
#include "sys/sockdiag.h"

enum { SOME_UID = 54321, SOME_GID = 54322, OTHER_GID = 54323, THIRD_GID = 54324 };

START_TEST(becomes_the_user)
{
	const gid_t groups[] = {OTHER_GID, SOME_GID, THIRD_GID};
	struct spawn_request request = PROBE;
	_cleanup_free_ char *text = NULL;

	/* Through a descriptor: where we are built may not be the user's to enter. */
	request.exec_fd = spawn_pin_executable(AT_FDCWD, "/proc/self/exe");
	ck_assert_int_ge(request.exec_fd, 0);
	request.plain = _i == 1;
	request.set_user = true;
	request.uid = SOME_UID;
	request.gid = SOME_GID;
	request.groups = groups;
	request.n_groups = ARRAY_SIZE(groups);
	ck_assert_int_eq(prctl(PR_GET_DUMPABLE), 1);
	text = probe_run(&request, NULL, 0);
	/* Real, effective, saved and file system: there is no way back. */
	ck_assert_probe(text, "Uid", "54321\t54321\t54321\t54321");
	ck_assert_probe(text, "Gid", "54322\t54322\t54322\t54322");
	ck_assert_probe(text, "Groups", "54322 54323 54324 ");
	ck_assert_probe(text, "CapEff", "0000000000000000");
	ck_assert_probe(text, "CapPrm", "0000000000000000");
	/* The memory was shared, and with it what says whether we may be looked into. */
	ck_assert_int_eq(prctl(PR_GET_DUMPABLE), 1);
	close(request.exec_fd);
}
END_TEST

START_TEST(one_that_was_not_dumpable_stays_so)
{
	struct spawn_request request = PROBE;
	_cleanup_free_ char *text = NULL;

	request.exec_fd = spawn_pin_executable(AT_FDCWD, "/proc/self/exe");
	request.set_user = true;
	request.uid = SOME_UID;
	request.gid = SOME_GID;
	ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 0), 0);
	text = probe_run(&request, NULL, 0);
	ck_assert_probe(text, "Groups", "");
	ck_assert_int_eq(prctl(PR_GET_DUMPABLE), 0);
	(void)prctl(PR_SET_DUMPABLE, 1);
	close(request.exec_fd);
}
END_TEST

START_TEST(directory_with_the_rights_of_the_user)
{
	struct spawn_request request = PROBE;
	struct spawn_result result;
	char directory[32];

	make_directory(directory); /* 0700 */
	request.plain = _i == 1;
	request.set_user = true;
	request.uid = SOME_UID;
	request.gid = SOME_GID;
	request.directory = directory;
	ck_assert_int_eq(spawn_process(&request, &result), -EACCES);
	ck_assert_int_eq(result.failed_at, SPAWN_DIRECTORY);
	ck_assert_int_eq(prctl(PR_GET_DUMPABLE), 1);
	ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

static int become_other(void)
{
	return setgid(SOME_GID) < 0 || setuid(SOME_UID) < 0;
}

/* As another user: what is not his to use. */
static int unprivileged(void *userdata)
{
	const struct spawn_limit limit = {
		RLIMIT_NICE, {.rlim_cur = 40, .rlim_max = 40}
	     };
	struct spawn_request request = PROBE;
	struct spawn_result result;

	(void)userdata;
	if (become_other())
		return 1;
	request.set_user = true;
	request.path = "/bin/true";
	if (spawn_process(&request, &result) != -EPERM || result.failed_at != SPAWN_GROUP)
		return 2;
	request.gid = SOME_GID;
	if (spawn_process(&request, &result) != -EPERM || result.failed_at != SPAWN_GROUPS)
		return 3;
	request.set_user = false;
	request.limits = &limit;
	request.n_limits = 1;
	if (spawn_process(&request, &result) != -EPERM || result.failed_at != SPAWN_LIMITS)
		return 4;
	return 0;
}

START_TEST(steps_that_are_refused)
{
	ck_assert_int_eq(wait_status(fork_child(unprivileged, NULL)), 0);
}
END_TEST

/* As a service manager may pass it. */
START_TEST(join_a_group_of_another_uid)
{
	struct sock_filter filter = BPF_STMT(BPF_RET | BPF_K, 1);
	struct address a = address_of("127.0.0.1:0");
	struct listen_options o = OPTIONS;
	struct listen_state state;
	int fds[2], client;

	o.socket_uid = SOME_UID;
	fds[0] = listen_open_first(&a, &o, NULL);
	ck_assert_int_ge(fds[0], 0);
	a = bound_address(fds[0]);
	ck_assert_int_eq(listen_start(fds[0], 16), 0);
	o.socket_uid = (uid_t)-1;
	ck_assert_int_eq(listen_open_member(&a, &o), -EADDRINUSE);
	o.socket_uid = SOME_UID;
	fds[1] = listen_open_member(&a, &o);
	ck_assert_int_ge(fds[1], 0);
	ck_assert_int_eq(listen_start(fds[1], 16), 0);
	ck_assert_int_eq(listen_steer(fds[0], &filter, 1), 0);
	client = client_of(&a);
	ck_assert_int_eq(listen_query(fds[1], &state), 0);
	ck_assert_uint_eq(state.queue, 1);
	close(client);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(owner_and_mode_of_a_path)
{
	static const char *const schemes[] = {"unix", "unix-dgram"};
	struct listen_options o = OPTIONS;
	_cleanup_free_ char *text = NULL;
	char directory[32];
	struct address a;
	struct stat st;

	make_directory(directory);
	text = xasprintf("%s:%s/s", schemes[_i], directory);
	a = address_of(text);
	o.mode = 0640;
	o.mode_set = true;
	o.owner = SOME_UID;
	o.group = SOME_GID;
	/* New, then over one that nobody listens on. */
	for (int i = 0; i < 2; i++) {
		int fd = listen_open_unix(&a, &o);

		ck_assert_int_ge(fd, 0);
		ck_assert_int_eq(lstat(a.un.sun_path, &st), 0);
		ck_assert_uint_eq(st.st_uid, SOME_UID);
		ck_assert_uint_eq(st.st_gid, SOME_GID);
		ck_assert_uint_eq(st.st_mode & 07777, 0640);
		close(fd);
	}
	ck_assert_int_eq(unlink(a.un.sun_path), 0);
	ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* As another user: root's descriptors are not his to see, but who listens is. */
static int look_at_root(void *userdata)
{
	const struct address *a = userdata;
	struct sockdiag_listener *list = NULL;
	pid_t parent = getppid();
	uint64_t inode = 0;
	size_t n = 0;
	char *value;
	int nl;

	if (become_other())
		return 1;
	nl = sockdiag_open();
	if (nl < 0 || sockdiag_listeners(nl, address_port(a), &list, &n) < 0 || n != 1)
		return 2;
	if (list[0].uid != 0 || list[0].inode == 0)
		return 3;
	inode = list[0].inode;
	free(list);
	close(nl);
	if (process_holds_socket(&parent, 1, inode) != -EACCES)
		return 4;
	if (process_waits_on_socket(&parent, 1, inode) != -EACCES)
		return 5;
	if (process_environment(parent, "PATH", &value) != -EACCES)
		return 6;
	return 0;
}

START_TEST(not_to_be_looked_into)
{
	struct address a = address_of("127.0.0.1:0");
	const struct listen_options o = OPTIONS;
	int fd = listen_open_first(&a, &o, NULL);

	a = bound_address(fd);
	ck_assert_int_eq(listen_start(fd, 16), 0);
	ck_assert_int_eq(wait_status(fork_child(look_at_root, &a)), 0);
	close(fd);
}
END_TEST

/* Where cgroup v2 is, and we in it. */
static char *find_cgroup(void)
{
	_cleanup_free_ char *mount = NULL;
	char line[4096], where[4096], type[32], *path = NULL;
	FILE *f = fopen("/proc/self/mounts", "re");

	while (!mount && f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %4095s %31s", where, type) == 2 && streq(type, "cgroup2"))
			mount = strdup(where);
	if (f)
		(void)fclose(f);
	f = fopen("/proc/self/cgroup", "re");
	while (mount && !path && f && fgets(line, sizeof(line), f))
		if (sscanf(line, "0::%4000s", where) == 1)
			path = xasprintf("%s%s/tenured-test-%d", mount,
				streq(where, "/") ? "" : where, getpid());
	if (f)
		(void)fclose(f);
	return path;
}

START_TEST(born_in_a_cgroup)
{
	struct spawn_request request = PROBE;
	_cleanup_free_ char *text = NULL, *in = NULL, *path = find_cgroup();

	if (!path || mkdir(path, 0755) < 0) {
		printf("skipped: a cgroup cannot be made here\n");
		return;
	}
	request.plain = _i == 1;
	request.cgroup_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	text = probe_run(&request, NULL, 0);
	in = probe_value(text, "cgroup");
	ck_assert_ptr_nonnull(strstr(in, strrchr(path, '/')));
	close(request.cgroup_fd);
	/* Its end is known a moment before its cgroup is empty. */
	for (unsigned i = 0; i < 5000 && rmdir(path) < 0; i++)
		(void)usleep(1000);
	ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

int main(int argc, char **argv)
{
	TCase *tcase;

	if (argc > 1 && streq(argv[1], "probe"))
		return probe_main(argv);
	if (geteuid() != 0) {
		printf("skipped: other users need root\n");
		return 77;
	}
	tcase = tcase_create("root");
	tcase_add_loop_test(tcase, becomes_the_user, 0, 2);
	tcase_add_test(tcase, one_that_was_not_dumpable_stays_so);
	tcase_add_loop_test(tcase, directory_with_the_rights_of_the_user, 0, 2);
	tcase_add_test(tcase, steps_that_are_refused);
	tcase_add_test(tcase, join_a_group_of_another_uid);
	tcase_add_loop_test(tcase, owner_and_mode_of_a_path, 0, 2);
	tcase_add_test(tcase, not_to_be_looked_into);
	tcase_add_loop_test(tcase, born_in_a_cgroup, 0, 2);
	return run_case("root", tcase);
}

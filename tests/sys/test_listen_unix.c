/* SPDX-License-Identifier: Apache-2.0 */
#include "sys_test.h"

#include <sys/stat.h>

#include "sys/sockdiag.h"

static char directory[32];

static void setup(void)
{
	make_directory(directory);
}

static void teardown(void)
{
	_cleanup_free_ char *command = xasprintf("rm -rf %s", directory);

	ck_assert_int_eq(system(command), 0);
}

static struct address path_in(const char *scheme, const char *name)
{
	_cleanup_free_ char *text = xasprintf("%s:%s/%s", scheme, directory, name);

	return address_of(text);
}

static unsigned count_files(void)
{
	_cleanup_free_ char *command = xasprintf("ls -A %s | wc -l", directory);
	FILE *f = popen(command, "re");
	unsigned n;

	ck_assert_int_eq(fscanf(f, "%u", &n), 1);
	(void)pclose(f);
	return n;
}

static const char *const schemes[] = {"unix", "unix-seqpacket", "unix-dgram"};

START_TEST(answers_and_has_its_mode)
{
	struct address a = path_in(schemes[_i], "s");
	struct listen_options o = OPTIONS;
	mode_t mask = umask(077);
	struct stat st;
	int fd, client;

	o.mode = 0662;
	o.mode_set = true;
	fd = listen_open_unix(&a, &o);
	ck_assert_int_ge(fd, 0);
	ck_assert_uint_eq(umask(mask), 077);
	ck_assert_int_eq(stat(a.un.sun_path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_uint_eq(st.st_mode & 07777, 0662);
	client = client_of(&a);
	ck_assert_int_ge(client, 0);
	ck_assert_uint_eq(count_files(), 1);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	close(client);
	close(fd);
}
END_TEST

START_TEST(a_new_path_is_its_name)
{
	struct address a = path_in("unix", "s"), bound;
	const struct listen_options o = OPTIONS;
	int fd = listen_open_unix(&a, &o);

	bound = bound_address(fd);
	ck_assert(address_equal(&bound, &a));
	close(fd);
}
END_TEST

START_TEST(somebody_answers)
{
	struct address a = path_in(schemes[_i], "s"), other = path_in(schemes[(_i + 1) % 3], "s");
	const struct listen_options o = OPTIONS;
	int fd = listen_open_unix(&a, &o);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(listen_open_unix(&a, &o), -EADDRINUSE);
	/* Of another type, too. */
	ck_assert_int_eq(listen_open_unix(&other, &o), -EADDRINUSE);
	ck_assert_int_ge(client_of(&a), 0);
	ck_assert_uint_eq(count_files(), 1);
	close(fd);
}
END_TEST

START_TEST(a_full_queue_is_an_answer)
{
	struct address a = path_in("unix", "s");
	struct listen_options o = OPTIONS;
	int fd, clients[2];

	o.backlog = 1;
	fd = listen_open_unix(&a, &o);
	for (int i = 0; i < 2; i++)
		clients[i] = client_of(&a);
	ck_assert_int_ge(clients[1], 0);
	ck_assert_int_eq(listen_open_unix(&a, &o), -EADDRINUSE);
	close(clients[0]);
	close(clients[1]);
	close(fd);
}
END_TEST

START_TEST(not_a_socket)
{
	struct address a = path_in("unix", "s"), b = path_in("unix", "link");
	const struct listen_options o = OPTIONS;
	int fd = open(a.un.sun_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	struct stat st;

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(listen_open_unix(&a, &o), -EEXIST);
	ck_assert_int_eq(symlink("s", b.un.sun_path), 0);
	ck_assert_int_eq(listen_open_unix(&b, &o), -EEXIST);
	ck_assert_int_eq(lstat(a.un.sun_path, &st), 0);
	ck_assert(S_ISREG(st.st_mode));
	a = path_in("unix", "missing/s");
	ck_assert_int_eq(listen_open_unix(&a, &o), -ENOENT);
}
END_TEST

/* A client that never stops looking must find the path at every moment, though the one who listened
 * is gone. */
static int look(void *userdata)
{
	const struct address *a = userdata;
	int n = 0;

	for (uint64_t end = now_usec() + 200000; now_usec() < end; n++) {
		struct stat st;

		if (lstat(a->un.sun_path, &st) < 0)
			return 1;
	}
	return n > 100 ? 0 : 2;
}

START_TEST(the_path_is_never_missing)
{
	struct address a = path_in("unix", "s");
	const struct listen_options o = OPTIONS;
	int status, fd = listen_open_unix(&a, &o);
	unsigned n = 0;
	pid_t pid;

	pid = fork_child(look, &a);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		/* As when a worker shuts it down: not to be revived, so it is replaced. */
		(void)shutdown(fd, SHUT_RDWR);
		close(fd);
		fd = listen_open_unix(&a, &o);
		ck_assert_int_ge(fd, 0);
		n++;
	}
	ck_assert_int_eq(status, 0);
	ck_assert_uint_gt(n, 10);
	ck_assert_int_ge(client_of(&a), 0);
	ck_assert_uint_eq(count_files(), 1);
	close(fd);
}
END_TEST

START_TEST(longest_path)
{
	char name[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	size_t len = sizeof(name) - 1 - strlen(directory) - 1;
	const struct listen_options o = OPTIONS;
	struct address a;

	memset(name, 'x', len);
	name[len] = '\0';
	a = path_in("unix", name);
	/* The first is bound directly, the second beside it, for which the address has no room. */
	for (int i = 0; i < 2; i++) {
		int fd = listen_open_unix(&a, &o);

		ck_assert_int_ge(fd, 0);
		ck_assert_int_ge(client_of(&a), 0);
		ck_assert_uint_eq(count_files(), 1);
		close(fd);
	}
}
END_TEST

START_TEST(unlink_only_our_own)
{
	struct address a = path_in("unix", "s");
	const struct listen_options o = OPTIONS;
	int first, second;
	dev_t dev;
	ino_t ino;

	ck_assert_int_eq(listen_path_identity(&a, &dev, &ino), -ENOENT);
	first = listen_open_unix(&a, &o);
	ck_assert_int_eq(listen_path_identity(&a, &dev, &ino), 0);
	(void)shutdown(first, SHUT_RDWR);
	second = listen_open_unix(&a, &o);
	ck_assert_int_ge(second, 0);
	ck_assert_int_eq(listen_unlink(&a, dev, ino), -ESTALE);
	ck_assert_int_ge(client_of(&a), 0);
	ck_assert_int_eq(listen_path_identity(&a, &dev, &ino), 0);
	ck_assert_int_eq(listen_unlink(&a, dev, ino), 0);
	ck_assert_int_eq(listen_unlink(&a, dev, ino), -ENOENT);
	ck_assert_uint_eq(count_files(), 0);
	close(first);
	close(second);
}
END_TEST

START_TEST(removed_path_comes_back)
{
	struct address a = path_in("unix", "s");
	const struct listen_options o = OPTIONS;
	int fd = listen_open_unix(&a, &o), other;
	dev_t dev;
	ino_t ino;

	ck_assert_int_eq(listen_path_identity(&a, &dev, &ino), 0);
	ck_assert_int_eq(listen_keep_path(&a, dev, ino), 0);
	ck_assert_int_eq(listen_keep_path(&a, dev, ino), 0);
	ck_assert_uint_eq(count_files(), 2);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(unlink(a.un.sun_path), 0);
		ck_assert_int_eq(listen_keep_path(&a, dev, ino), 1);
		ck_assert_int_ge(client_of(&a), 0);
	}

	/* Somebody else has the path now: it is left alone. */
	ck_assert_int_eq(unlink(a.un.sun_path), 0);
	other = listen_open_unix(&a, &o);
	ck_assert_int_ge(other, 0);
	ck_assert_int_eq(listen_keep_path(&a, dev, ino), -ESTALE);
	ck_assert_int_eq(listen_unlink(&a, dev, ino), -ESTALE);
	ck_assert_uint_eq(count_files(), 1);
	ck_assert_int_eq(unlink(a.un.sun_path), 0);
	ck_assert_int_eq(listen_keep_path(&a, dev, ino), -ENOENT);
	close(fd);
	close(other);
}
END_TEST

/* What a killed daemon left behind is used again. */
START_TEST(second_name_is_one)
{
	struct address a = path_in("unix", "s");
	const struct listen_options o = OPTIONS;
	dev_t dev;
	ino_t ino;

	for (int i = 0; i < 3; i++) {
		int fd = listen_open_unix(&a, &o);

		ck_assert_int_ge(fd, 0);
		ck_assert_int_eq(listen_path_identity(&a, &dev, &ino), 0);
		ck_assert_int_eq(listen_keep_path(&a, dev, ino), 0);
		ck_assert_uint_eq(count_files(), 2);
		close(fd);
	}
	ck_assert_int_eq(listen_unlink(&a, dev, ino), 0);
	ck_assert_uint_eq(count_files(), 0);
}
END_TEST

START_TEST(abstract)
{
	_cleanup_free_ char *text = xasprintf("unix:@tenured-test-%d", getpid());
	struct address a = address_of(text);
	const struct listen_options o = OPTIONS;
	int fd = listen_open_unix(&a, &o);
	dev_t dev;
	ino_t ino;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_ge(client_of(&a), 0);
	ck_assert_int_eq(listen_open_unix(&a, &o), -EADDRINUSE);
	ck_assert_int_eq(listen_path_identity(&a, &dev, &ino), -EOPNOTSUPP);
	ck_assert_int_eq(listen_unlink(&a, 0, 0), 0);
	ck_assert_int_eq(listen_keep_path(&a, 0, 0), -EOPNOTSUPP);
	close(fd);
}
END_TEST

START_TEST(queue_and_reset)
{
	struct address a = path_in(schemes[_i], "s");
	struct listen_options o = OPTIONS;
	_cleanup_close_ int nl = sockdiag_open(), fd = -1;
	struct listen_state state;
	unsigned queue, queue_max;
	uint64_t inode;
	uint32_t file;
	dev_t dev;
	ino_t ino;
	int clients[3];
	char byte;

	o.backlog = 5;
	fd = listen_open_unix(&a, &o);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_ge(nl, 0);
	for (int i = 0; i < 3; i++)
		clients[i] = client_of(&a);
	ck_assert_int_eq(listen_query(fd, &state), -EOPNOTSUPP);
	ck_assert(state.accepting);
	ck_assert_int_eq(socket_inode(fd, &inode), 0);
	ck_assert_int_eq(sockdiag_unix_queue(nl, inode, &queue, &queue_max), 0);
	ck_assert_uint_eq(queue, 3);
	ck_assert_uint_eq(queue_max, 5);
	ck_assert_int_eq(sockdiag_unix_file(nl, inode, &file), 0);
	ck_assert_int_eq(listen_path_identity(&a, &dev, &ino), 0);
	ck_assert_uint_eq(file, (uint32_t)ino);
	ck_assert_int_eq(listen_reset_queue(fd, 2), 2);
	ck_assert_int_eq(sockdiag_unix_queue(nl, inode, &queue, &queue_max), 0);
	ck_assert_uint_eq(queue, 1);
	ck_assert_int_eq(read(clients[0], &byte, 1), 0);
	listen_shutdown_take(&fd);
	ck_assert_int_eq(client_of(&a), -ECONNREFUSED);
	ck_assert_int_eq(sockdiag_unix_queue(nl, inode, &queue, &queue_max), -ENOENT);
	for (int i = 0; i < 3; i++)
		close(clients[i]);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("listen_unix");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, answers_and_has_its_mode, 0, 3);
	tcase_add_test(tcase, a_new_path_is_its_name);
	tcase_add_loop_test(tcase, somebody_answers, 0, 3);
	tcase_add_test(tcase, a_full_queue_is_an_answer);
	tcase_add_test(tcase, not_a_socket);
	tcase_add_test(tcase, the_path_is_never_missing);
	tcase_add_test(tcase, longest_path);
	tcase_add_test(tcase, unlink_only_our_own);
	tcase_add_test(tcase, removed_path_comes_back);
	tcase_add_test(tcase, second_name_is_one);
	tcase_add_test(tcase, abstract);
	tcase_add_loop_test(tcase, queue_and_reset, 0, 2);
	return run_case("listen_unix", tcase);
}

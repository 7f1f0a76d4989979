/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/process.h"

#include "sys_test.h"

#include <link.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>

#include "sys/spawn.h"

static int listen_here(struct address *ret)
{
	const struct listen_options o = OPTIONS;
	int fd;

	*ret = address_of("127.0.0.1:0");
	fd = listen_open_first(ret, &o, NULL);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(listen_start(fd, 16), 0);
	*ret = bound_address(fd);
	/* Some of the waiters below want to block. */
	(void)fcntl(fd, F_SETFL, 0);
	return fd;
}

static int sleep_long(void *userdata)
{
	(void)userdata;
	(void)poll(NULL, 0, 20000);
	return 0;
}

/* A child, a grandchild, and a zombie between. */
static int have_children(void *userdata)
{
	int *ready = userdata;
	pid_t zombie = fork_child(sleep_long, NULL), child = fork_child(sleep_long, NULL);
	siginfo_t info;

	(void)kill(zombie, SIGKILL);
	(void)waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT);
	const pid_t pids[2] = {zombie, child};
	if (write(*ready, pids, sizeof(pids)) != sizeof(pids))
		return 1;
	return sleep_long(NULL);
}

/* By the lists of children, and by a pass over all processes. */
static int (*const descendants_of[])(pid_t, bool, pid_t **, size_t *) = {
	process_descendants, process_descendants_by_scan};

START_TEST(descendants)
{
	int (*of)(pid_t, bool, pid_t **, size_t *) = descendants_of[_i];
	pid_t parent, *list, children[2], answer;
	int ready[2];
	size_t n;

	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	parent = fork_child(have_children, &ready[1]);
	ck_assert_int_eq(read(ready[0], children, sizeof(children)), sizeof(children));

	ck_assert_int_eq(of(parent, false, &list, &n), 0);
	ck_assert_uint_eq(n, 2);
	ck_assert_int_eq(list[0], parent);
	ck_assert_int_eq(list[1], children[1]);
	free(list);
	ck_assert_int_eq(of(parent, true, &list, &n), 0);
	ck_assert_uint_eq(n, 3);
	ck_assert_int_eq(list[0], parent);
	free(list);
	ck_assert_int_eq(of(getpid(), false, &list, &n), 0);
	ck_assert_uint_eq(n, 3);
	ck_assert_int_eq(list[0], getpid());
	ck_assert_int_eq(list[1], parent);
	ck_assert_int_eq(list[2], children[1]);
	free(list);

	ck_assert_int_eq(process_parent(children[1], &answer), 0);
	ck_assert_int_eq(answer, parent);
	ck_assert(process_is_descendant(children[1], getpid()));
	ck_assert(process_is_descendant(getpid(), getpid()));
	ck_assert(!process_is_descendant(getpid(), children[1]));
	ck_assert(!process_is_descendant(parent, children[1]));

	end_child(parent);
	ck_assert_int_eq(process_parent(parent, &answer), -ESRCH);
	ck_assert_int_eq(of(parent, true, &list, &n), -ESRCH);
	ck_assert(!process_is_descendant(parent, getpid()));
	close(ready[0]);
	close(ready[1]);
}
END_TEST

enum { FAMILY = 300 };

static void fork_some(void)
{
	for (unsigned i = 0; i < FAMILY / 2; i++)
		(void)fork_child(sleep_long, NULL);
}

/* They die with the thread that made them. */
static void *fork_some_and_stay(void *userdata)
{
	fork_some();
	(void)sleep_long(userdata);
	return NULL;
}

/* Children of two threads, more than one read gives. */
static int have_many(void *userdata)
{
	pthread_t thread;

	fork_some();
	if (pthread_create(&thread, NULL, fork_some_and_stay, NULL) != 0 ||
		pthread_detach(thread) != 0)
		return EXIT_FAILURE;
	return sleep_long(userdata);
}

START_TEST(a_large_family)
{
	pid_t parent = fork_child(have_many, NULL), *list;
	size_t n = 0;

	for (uint64_t end = now_usec() + 5000000; n < FAMILY + 1 && now_usec() < end;) {
		ck_assert_int_eq(process_descendants(parent, false, &list, &n), 0);
		for (size_t i = 0; i < n; i++)
			for (size_t k = 0; k < i; k++)
				ck_assert_int_ne(list[i], list[k]);
		if (n < FAMILY + 1)
			free(list);
	}
	ck_assert_uint_eq(n, FAMILY + 1);
	for (size_t i = 1; i < n; i++)
		(void)kill(list[i], SIGKILL);
	free(list);
	end_child(parent);
}
END_TEST

static int have_orphan(void *userdata)
{
	pid_t pid = fork_child(sleep_long, NULL);

	return write(*(int *)userdata, &pid, sizeof(pid)) != sizeof(pid);
}

START_TEST(orphans_come_to_us)
{
	pid_t child, orphan, parent;
	int ready[2];

	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	ck_assert_int_eq(process_become_subreaper(), 0);
	child = fork_child(have_orphan, &ready[1]);
	ck_assert_int_eq(wait_status(child), 0);
	ck_assert_int_eq(read(ready[0], &orphan, sizeof(orphan)), sizeof(orphan));
	/* Its parent's end may have ended it as well. */
	if (process_parent(orphan, &parent) == 0)
		ck_assert_int_eq(parent, getpid());
	end_child(orphan);
}
END_TEST

/* Just after its exec a child may still have our name. */
static char *settled_name(pid_t pid)
{
	for (uint64_t end = now_usec() + 3000000;;) {
		char *value;

		ck_assert_int_eq(process_name(pid, &value), 0);
		if (!startswith(value, "test_process") || now_usec() > end)
			return value;
		free(value);
	}
}

/* Pages that parent and child share count in full for each, but once for both. */
START_TEST(memory)
{
	enum { SIZE = 32 << 20 };
	volatile char *pages = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t ours, child, our_share, child_share;
	pid_t pid;

	ck_assert_ptr_ne((void *)(uintptr_t)pages, MAP_FAILED);
	for (size_t i = 0; i < SIZE; i += 4096)
		pages[i] = 1;
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		for (;;)
			(void)pause();
	ck_assert_int_eq(process_memory(getpid(), &ours), 0);
	ck_assert_int_eq(process_memory(pid, &child), 0);
	ck_assert_uint_ge(ours, SIZE);
	ck_assert_uint_ge(child, SIZE);
	ck_assert_int_eq(process_memory_share(getpid(), &our_share), 0);
	ck_assert_int_eq(process_memory_share(pid, &child_share), 0);
	ck_assert_uint_ge(our_share + child_share, SIZE);
	ck_assert_uint_lt(our_share + child_share, ours + child - SIZE / 2);
	(void)kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(process_memory(pid, &child), -ESRCH);
	ck_assert_int_eq(process_memory_share(pid, &child), -ESRCH);
	(void)munmap((void *)(uintptr_t)pages, SIZE);
}
END_TEST

static int read_code_of(struct dl_phdr_info *object, size_t size, void *userdata)
{
	volatile uint8_t *sum = userdata;

	(void)size;
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &object->dlpi_phdr[i];
		const uint8_t *code = (const uint8_t *)(uintptr_t)object->dlpi_addr + p->p_vaddr;

		for (size_t k = 0; p->p_type == PT_LOAD && (p->p_flags & PF_X) && k < p->p_memsz;
			k += 4096)
			*sum ^= code[k];
	}
	return 0;
}

/* Less is mapped, and everything goes on as if nothing had been. */
START_TEST(code_is_forgotten)
{
	uint64_t before, after;
	uint8_t sum = 0;

	(void)dl_iterate_phdr(read_code_of, &sum);
	ck_assert_int_eq(process_memory(getpid(), &before), 0);
	process_forget_code();
	ck_assert_int_eq(process_memory(getpid(), &after), 0);
	/* The C library alone has more than a MiB of it. */
	ck_assert_uint_lt(after, before - (1 << 19));
}
END_TEST

START_TEST(name_and_environment)
{
	static char *const argv[] = {
		(char *)(uintptr_t) "/x/y/server", (char *)(uintptr_t) "60", NULL};
	static char *const envp[] = {(char *)(uintptr_t) "LONG=", (char *)(uintptr_t) "A=1",
		(char *)(uintptr_t) "AB=2=3", NULL};
	struct spawn_request request = {
		.argv = argv,
		.envp = envp,
		.path = "/bin/sleep",
		.exec_fd = -1,
		.directory_fd = -1,
		.cgroup_fd = -1,
	};
	struct spawn_result result;
	char *value = NULL;

	ck_assert_int_eq(spawn_process(&request, &result), 0);
	value = settled_name(result.pid);
	ck_assert_str_eq(value, "sleep");
	free(value);
	value = NULL;
	/* The name comes first, the environment a moment later. */
	for (uint64_t end = now_usec() + 3000000;
		process_environment(result.pid, "AB", &value) == -ENOENT && now_usec() < end;)
		;
	free(value);
	ck_assert_int_eq(process_environment(result.pid, "AB", &value), 0);
	ck_assert_str_eq(value, "2=3");
	free(value);
	ck_assert_int_eq(process_environment(result.pid, "LONG", &value), 0);
	ck_assert_str_eq(value, "");
	free(value);
	ck_assert_int_eq(process_environment(result.pid, "LON", &value), -ENOENT);
	end_child(result.pid);
	close(result.pidfd);
	ck_assert_int_eq(process_name(result.pid, &value), -ESRCH);
	ck_assert_int_eq(process_environment(result.pid, "A", &value), -ESRCH);

	/* Executed through a descriptor, the name may be its number. */
	request.exec_fd = spawn_pin_executable(AT_FDCWD, "/bin/sleep");
	ck_assert_int_ge(request.exec_fd, 0);
	ck_assert_int_eq(spawn_process(&request, &result), 0);
	value = settled_name(result.pid);
	ck_assert(streq(value, "sleep") || streq(value, "server"));
	free(value);
	end_child(result.pid);
	close(result.pidfd);
	close(request.exec_fd);
}
END_TEST

/* How often a process holds that socket; -errno when it cannot be looked into. */
static int times_held(pid_t pid, uint64_t inode)
{
	struct process_sockets s;
	uint64_t found;
	int r, n = 0;

	r = process_sockets_begin(&s, pid);
	if (r < 0)
		return r;
	while ((r = process_sockets_next(&s, &found)) > 0)
		n += found == inode;
	ck_assert_int_eq(r, 0);
	process_sockets_end(&s);
	return n;
}

START_TEST(many_descriptors)
{
	enum { N = 300 };
	struct address a;
	int fd = listen_here(&a), copies[N];
	uint64_t inode;
	pid_t pid;

	ck_assert_int_eq(socket_inode(fd, &inode), 0);
	for (int i = 0; i < N; i++)
		copies[i] = dup(fd);
	pid = fork_child(sleep_long, NULL);
	ck_assert_int_eq(times_held(pid, inode), N + 1);
	ck_assert_int_eq(times_held(pid, inode + 1), 0);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	/* Not reaped yet, it has nothing, whoever may look. */
	while (!process_is_zombie(pid))
		usleep(1000);
	ck_assert_int_le(times_held(pid, inode), 0);
	end_child(pid);
	ck_assert(!process_is_zombie(pid));
	ck_assert_int_eq(times_held(pid, inode), -ESRCH);
	for (int i = 0; i < N; i++)
		close(copies[i]);
	close(fd);
}
END_TEST

START_TEST(holders)
{
	struct address a;
	int fd = listen_here(&a), other[2];
	uint64_t inode, inodes[2];
	pid_t pids[2], found;

	ck_assert_int_eq(socket_inode(fd, &inode), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, other), 0);
	pids[0] = fork_child(sleep_long, NULL);
	close(fd);
	pids[1] = fork_child(sleep_long, NULL);
	ck_assert_int_eq(process_holds_socket(pids, 1, inode), 1);
	ck_assert_int_eq(process_holds_socket(pids + 1, 1, inode), 0);
	ck_assert_int_eq(process_holds_socket(pids, 2, inode), 1);
	ck_assert_int_eq(process_find_socket_holder(inode, &found), 0);
	ck_assert_int_eq(found, pids[0]);

	/* The same by asking what they hold. */
	ck_assert_int_eq(socket_inode(other[1], &inodes[0]), 0);
	ck_assert_int_eq(socket_inode(other[0], &inodes[1]), 0);
	ck_assert_int_eq(times_held(pids[0], inode), 1);
	ck_assert_int_eq(times_held(pids[1], inode), 0);
	for (size_t i = 0; i < 2; i++) {
		ck_assert_int_eq(times_held(pids[0], inodes[i]), 1);
		ck_assert_int_eq(times_held(pids[1], inodes[i]), 1);
	}

	end_child(pids[0]);
	ck_assert_int_eq(process_holds_socket(pids, 1, inode), -ESRCH);
	ck_assert_int_eq(process_holds_socket(pids, 2, inode), 0);
	ck_assert_int_eq(process_find_socket_holder(inode, &found), -ESRCH);
	ck_assert_int_eq(process_holds_socket(NULL, 0, inode), -ESRCH);
	end_child(pids[1]);
}
END_TEST

/* --- ways to wait ------------------------------------------------------------------------- */

static int wait_accept(void *userdata)
{
	return accept(*(int *)userdata, NULL, NULL) < 0;
}

static int wait_poll(void *userdata)
{
	struct pollfd p[3] = {
		{.fd = -1		 },
		    { .fd = 0, .events = POLLPRI},
		{ .fd = *(int *)userdata,	 .events = POLLIN}
	  };

	return poll(p, 3, 20000) < 0;
}

static int wait_select(void *userdata)
{
	int fd = *(int *)userdata;
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return select(fd + 1, &set, NULL, NULL, NULL) < 0;
}

/* Only whether it is watched counts: the thread is not asleep in epoll_wait(). */
static int wait_epoll(void *userdata)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
	int epoll = epoll_create1(0);

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, *(int *)userdata, &event) < 0)
		return 1;
	return sleep_long(NULL);
}

static void *accept_in_thread(void *userdata)
{
	(void)accept(*(int *)userdata, NULL, NULL);
	return NULL;
}

static int wait_thread(void *userdata)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, accept_in_thread, userdata) != 0)
		return 1;
	return sleep_long(NULL);
}

static int wait_nested_child(void *userdata)
{
	(void)fork_child(wait_accept, userdata);
	return sleep_long(NULL);
}

/* --- ways not to wait --------------------------------------------------------------------- */

static int hold_and_poll_other(void *userdata)
{
	struct pollfd p = {.fd = 0, .events = POLLPRI};

	(void)userdata;
	return poll(&p, 1, 20000) < 0;
}

static int hold_and_accept_other(void *userdata)
{
	struct address a;

	(void)userdata;
	return accept(listen_here(&a), NULL, NULL) < 0;
}

static int hold_and_select_other(void *userdata)
{
	struct timeval timeout = {.tv_sec = 20};
	fd_set set;

	(void)userdata;
	FD_ZERO(&set);
	return select(0, &set, NULL, NULL, &timeout) < 0;
}

/* As a worker does that has stopped accepting without closing. */
static int watch_nothing(void *userdata)
{
	struct epoll_event event = {.events = 0};
	int epoll = epoll_create1(0);

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, *(int *)userdata, &event) < 0)
		return 1;
	return sleep_long(NULL);
}

static int poll_for_output(void *userdata)
{
	struct pollfd p = {.fd = *(int *)userdata, .events = 0};

	return poll(&p, 1, 20000) < 0;
}

static const struct {
	int (*function)(void *userdata);
	bool waits;
} ways[] = {
	{wait_accept,	      true },
	{wait_poll,		    true },
	{wait_select,	      true },
	{wait_epoll,	     true },
	{wait_thread,	      true },
	{wait_nested_child,	    true },
	{hold_and_poll_other,   false},
	{hold_and_accept_other, false},
	{hold_and_select_other, false},
	{watch_nothing,		false},
	{poll_for_output,	  false},
};

static int ask(pid_t pid, uint64_t inode)
{
	_cleanup_free_ pid_t *list = NULL;
	size_t n;

	ck_assert_int_eq(process_descendants(pid, false, &list, &n), 0);
	return process_waits_on_socket(list, n, inode);
}

START_TEST(waits)
{
	struct address a;
	int fd = listen_here(&a), r = 0;
	uint64_t inode;
	pid_t pid;

	ck_assert_int_eq(socket_inode(fd, &inode), 0);
	pid = fork_child(ways[_i].function, &fd);
	/* Until it is there; or for a while in which it must not be seen. */
	for (uint64_t end = now_usec() + (ways[_i].waits ? 3000000 : 100000);
		r == 0 && now_usec() < end;) {
		(void)poll(NULL, 0, 2);
		r = ask(pid, inode);
	}
	ck_assert_int_eq(r, ways[_i].waits);
	ck_assert_int_eq(process_holds_socket(&pid, 1, inode), 1);
	end_child(pid);
	ck_assert_int_eq(process_waits_on_socket(&pid, 1, inode), -ESRCH);
	close(fd);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("process");

	tcase_add_loop_test(tcase, descendants, 0, ARRAY_SIZE(descendants_of));
	tcase_add_test(tcase, a_large_family);
	tcase_add_test(tcase, orphans_come_to_us);
	tcase_add_test(tcase, memory);
	tcase_add_test(tcase, code_is_forgotten);
	tcase_add_test(tcase, name_and_environment);
	tcase_add_test(tcase, many_descriptors);
	tcase_add_test(tcase, holders);
	tcase_add_loop_test(tcase, waits, 0, ARRAY_SIZE(ways));
	return run_case("process", tcase);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Which process has a socket, and does it wait for connections on it? Nothing tells us directly.
 * What can be seen: the open descriptors, what each epoll set watches (fdinfo), and the system call
 * in which a thread sleeps. */
#include "sys/process.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include "base/parse.h"
#include "sys/procfs.h"

enum {
	HOLDER_DESCRIPTORS_MAX = 100000, /* about half a second */
	POLL_SET_MAX = 1024,
	LINK_SIZE = 64,
};

static int open_directory(pid_t pid, const char *name, DIR **ret)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	*ret = opendir(path);
	return *ret ? 0 : procfs_error(errno);
}

/* The next entry that is a number, or -1 at the end. */
static int next_number(DIR *d)
{
	struct dirent *e;
	unsigned n;

	while ((e = readdir(d)))
		if (parse_uint(e->d_name, 0, INT32_MAX, &n) >= 0)
			return (int)n;
	return -1;
}

static bool read_link(int directory_fd, int number, char link[static LINK_SIZE])
{
	char name[16];
	ssize_t n;

	(void)snprintf(name, sizeof(name), "%d", number);
	n = readlinkat(directory_fd, name, link, LINK_SIZE - 1);
	if (n < 0)
		return false;
	link[n] = '\0';
	return true;
}

/* "socket:[123]": 123; 0 for all else. */
static uint64_t link_socket(const char *link)
{
	const char *number = startswith(link, "socket:[");

	return number ? strtoull(number, NULL, 10) : 0;
}

/* Called for each descriptor of a process; other than 0 ends the walk and is its result. */
typedef int (*descriptor_fn)(pid_t pid, int fd, const char *link, void *userdata);

static int each_descriptor(pid_t pid, descriptor_fn function, void *userdata)
{
	_cleanup_closedir_ DIR *d = NULL;
	char link[LINK_SIZE];
	int fd, r;

	r = open_directory(pid, "fd", &d);
	if (r < 0)
		return r;
	while ((fd = next_number(d)) >= 0) {
		if (!read_link(dirfd(d), fd, link))
			continue;
		r = function(pid, fd, link, userdata);
		if (r != 0)
			return r;
	}
	return 0;
}

/* One "yes" is enough; "no" when at least one could be looked into; else why not. */
static int any_process(
	const pid_t *pids, size_t n, int (*ask)(pid_t pid, void *userdata), void *userdata)
{
	int result = -ESRCH;

	for (size_t i = 0; i < n; i++) {
		int r = ask(pids[i], userdata);

		if (r > 0)
			return 1;
		if (r == 0 || result == -ESRCH)
			result = result == 0 ? 0 : r;
	}
	return result;
}

static int is_socket(pid_t pid, int fd, const char *link, void *userdata)
{
	(void)pid;
	(void)fd;
	return link_socket(link) == *(const uint64_t *)userdata;
}

static int holds_socket(pid_t pid, void *userdata)
{
	return each_descriptor(pid, is_socket, userdata);
}

int process_holds_socket(const pid_t *pids, size_t n, uint64_t inode)
{
	return any_process(pids, n, holds_socket, &inode);
}

/* --- one descriptor at a time ------------------------------------------------------------- */

int process_sockets_begin(struct process_sockets *s, pid_t pid)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		int r = procfs_error(errno);
		/* What is left of a process belongs to root. */
		return r == -EACCES && process_is_zombie(pid) ? -ESRCH : r;
	}
	s->fd = fd;
	s->at = s->len = 0;
	return 0;
}

int process_sockets_next(struct process_sockets *s, uint64_t *ret_inode)
{
	for (;;) {
		const struct dirent64 *e;
		char link[LINK_SIZE];
		unsigned number;

		if (s->at >= s->len) {
			/* Few at a time: the kernel makes an inode of its own for each. */
			ssize_t n = getdents64(s->fd, s->buf, sizeof(s->buf));

			if (n <= 0)
				return n < 0 ? procfs_error(errno) : 0;
			s->at = 0;
			s->len = (size_t)n;
		}
		e = (const struct dirent64 *)(s->buf + s->at);
		s->at += e->d_reclen;
		if (parse_uint(e->d_name, 0, INT32_MAX, &number) < 0)
			continue;
		*ret_inode = read_link(s->fd, (int)number, link) ? link_socket(link) : 0;
		return 1;
	}
}

void process_sockets_end(struct process_sockets *s)
{
	s->fd = close_fd(s->fd);
}

/* --- waiting ------------------------------------------------------------------------------ */

struct waited {
	uint64_t inode;
	dev_t device; /* of all sockets: an inode alone could be a file's */
	bool held;
};

/* tfd:  5 events:  19 data: 5  pos:0 ino:61af sdev:7 */
static bool epoll_watches(pid_t pid, int fd, const struct waited *w)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[64], line[256];

	(void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		uint64_t inode;
		unsigned events, device;

		if (sscanf(line, "tfd: %*d events: %x data: %*x pos:%*d ino:%" SCNx64 " sdev:%x",
			    &events, &inode, &device) != 3)
			continue;
		/* The kernel's own number of a device: 12 bits of major, 20 of minor. */
		if (inode == w->inode && makedev(device >> 20, device & 0xfffff) == w->device &&
			(events & (EPOLLIN | EPOLLRDNORM)))
			return true;
	}
	return false;
}

static int descriptor_waits(pid_t pid, int fd, const char *link, void *userdata)
{
	struct waited *w = userdata;

	if (link_socket(link) == w->inode)
		w->held = true;
	return streq(link, "anon_inode:[eventpoll]") && epoll_watches(pid, fd, w);
}

static bool descriptor_is(pid_t pid, uint64_t fd, uint64_t inode)
{
	char path[64], link[LINK_SIZE];

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	_cleanup_close_ int directory_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return directory_fd >= 0 && fd <= INT32_MAX && read_link(directory_fd, (int)fd, link) &&
	       link_socket(link) == inode;
}

static ssize_t read_memory(pid_t pid, uint64_t address, void *buf, size_t len)
{
	const struct iovec local = {.iov_base = buf, .iov_len = len};
	const struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = len};

	return process_vm_readv(pid, &local, 1, &remote, 1, 0);
}

/* Where the set cannot be read, holding the socket and sleeping there is all that can be known. */
static bool poll_watches(pid_t pid, const uint64_t arguments[static 6], uint64_t inode)
{
	struct pollfd set[POLL_SET_MAX];
	size_t n = (size_t)MIN(arguments[1], (uint64_t)POLL_SET_MAX);

	if (n == 0)
		return false;
	if (read_memory(pid, arguments[0], set, n * sizeof(set[0])) !=
		(ssize_t)(n * sizeof(set[0])))
		return true;
	for (size_t i = 0; i < n; i++)
		if (set[i].fd >= 0 && (set[i].events & POLLIN) &&
			descriptor_is(pid, (uint64_t)set[i].fd, inode))
			return true;
	return false;
}

static bool select_watches(pid_t pid, const uint64_t arguments[static 6], uint64_t inode)
{
	uint64_t n = MIN(arguments[0], (uint64_t)FD_SETSIZE);
	unsigned long set[FD_SETSIZE / (8 * sizeof(unsigned long))];
	const size_t bits = 8 * sizeof(set[0]);
	size_t words = (size_t)(n + bits - 1) / bits;

	if (arguments[1] == 0)
		return false;
	if (read_memory(pid, arguments[1], set, words * sizeof(set[0])) !=
		(ssize_t)(words * sizeof(set[0])))
		return true;
	for (size_t fd = 0; fd < n; fd++)
		if ((set[fd / bits] >> (fd % bits) & 1) && descriptor_is(pid, fd, inode))
			return true;
	return false;
}

static bool call_waits(pid_t pid, long number, const uint64_t arguments[static 6], uint64_t inode)
{
	switch (number) {
#ifdef SYS_accept
	case SYS_accept:
#endif
	case SYS_accept4:
		return descriptor_is(pid, arguments[0], inode);
#ifdef SYS_poll
	case SYS_poll:
#endif
	case SYS_ppoll:
		return poll_watches(pid, arguments, inode);
#ifdef SYS_select
	case SYS_select:
#endif
	case SYS_pselect6:
		return select_watches(pid, arguments, inode);
	case SYS_io_uring_enter:
		return true;
	default:
		return false;
	}
}

/* "232 0x4 0x7ffd...": number and six arguments; "running" while it runs. */
static int threads_wait(pid_t pid, uint64_t inode)
{
	_cleanup_closedir_ DIR *d = NULL;
	int tid, r, seen = -ESRCH;

	r = open_directory(pid, "task", &d);
	if (r < 0)
		return r;
	while ((tid = next_number(d)) >= 0) {
		_cleanup_close_ int fd = -1;
		char name[32], text[256];
		uint64_t a[6];
		long number;
		ssize_t n;

		(void)snprintf(name, sizeof(name), "%d/syscall", tid);
		fd = openat(dirfd(d), name, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
		if (n < 0) {
			seen = seen == -ESRCH ? procfs_error(errno) : seen;
			continue;
		}
		seen = 0;
		text[n] = '\0';
		if (sscanf(text,
			    "%ld %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64
			    " %" SCNx64,
			    &number, &a[0], &a[1], &a[2], &a[3], &a[4], &a[5]) == 7 &&
			call_waits(pid, number, a, inode))
			return 1;
	}
	return seen;
}

static int waits_on_socket(pid_t pid, void *userdata)
{
	struct waited *w = userdata;
	int r;

	w->held = false;
	r = each_descriptor(pid, descriptor_waits, w);
	if (r != 0 || !w->held)
		return r;
	return threads_wait(pid, w->inode);
}

int process_waits_on_socket(const pid_t *pids, size_t n, uint64_t inode)
{
	_cleanup_close_ int any_socket = -1;
	struct waited w = {.inode = inode};
	struct stat st;

	any_socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (any_socket < 0 || fstat(any_socket, &st) < 0)
		return -errno;
	w.device = st.st_dev;
	return any_process(pids, n, waits_on_socket, &w);
}

/* --- searching ---------------------------------------------------------------------------- */

int process_search_begin(struct process_search *s)
{
	DIR *d = opendir("/proc");

	if (!d)
		return -errno;
	*s = (struct process_search){.processes = d, .reader = {.fd = -1}};
	return 0;
}

int process_search_next(struct process_search *s, pid_t *ret_pid, uint64_t *ret_inode)
{
	int pid;

	*ret_inode = 0;
	if (s->reader.fd < 0) {
		pid = next_number(s->processes);
		if (pid < 0)
			return 0;
		/* One that is gone, or not for us, is passed over. */
		(void)process_sockets_begin(&s->reader, pid);
		s->pid = pid;
	} else if (process_sockets_next(&s->reader, ret_inode) <= 0) {
		process_sockets_end(&s->reader);
	}
	*ret_pid = s->pid;
	return 1;
}

void process_search_end(struct process_search *s)
{
	process_sockets_end(&s->reader);
	closedir(s->processes);
}

int process_find_socket_holder(uint64_t inode, pid_t *ret_pid)
{
	struct process_search s;
	uint64_t found = 0;
	pid_t pid = 0;
	int r;

	r = process_search_begin(&s);
	if (r < 0)
		return r;
	for (size_t i = 0; i < HOLDER_DESCRIPTORS_MAX && found != inode; i++)
		if (process_search_next(&s, &pid, &found) <= 0)
			break;
	process_search_end(&s);
	if (found != inode)
		return -ESRCH;
	*ret_pid = pid;
	return 0;
}

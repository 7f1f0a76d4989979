/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/path_guard.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { BUSY_MAX_USEC = 200000 };

struct kept {
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1];
	const char *name; /* within it: its last part */
	int directory_fd; /* where it is, whatever takes the place of that directory */
	int fd;		  /* the file that is there */
	char file[64];	  /* by which it is linked again */
};

static bool has_path(const struct address *a)
{
	return address_is_unix(a) && a->un.sun_path[0] == '/';
}

/* The file is held open: so whoever looks for it while it is being removed has to wait until that
 * is done, and by then its next name is there more often than not. */
static bool keep(const struct address *a, int inotify_fd, struct kept *ret)
{
	char directory[sizeof(ret->path)];
	struct stat st;
	_cleanup_close_ int fd = -1, directory_fd = -1;
	char *slash;

	snprintf(ret->path, sizeof(ret->path), "%s", a->un.sun_path);
	snprintf(directory, sizeof(directory), "%s", ret->path);
	slash = strrchr(directory, '/');
	if (!slash)
		return false;
	ret->name = ret->path + (slash - directory) + 1;
	slash[slash == directory] = '\0';
	directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (directory_fd < 0)
		return false;
	fd = openat(directory_fd, ret->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	snprintf(directory, sizeof(directory), "/proc/self/fd/%d", directory_fd);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode) ||
		inotify_add_watch(inotify_fd, directory, IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR) <
			0)
		return false;
	snprintf(ret->file, sizeof(ret->file), "/proc/self/fd/%d", fd);
	ret->directory_fd = TAKE_FD(directory_fd);
	ret->fd = TAKE_FD(fd);
	return true;
}

/* First of all, whoever else wants the processor. Not for long: somebody could keep it busy with
 * files of that directory, and then it is ended. */
static void hurry(void)
{
	const struct sched_param first = {.sched_priority = 1};
	const struct rlimit usec = {.rlim_cur = BUSY_MAX_USEC, .rlim_max = BUSY_MAX_USEC};

	if (setrlimit(RLIMIT_RTTIME, &usec) < 0)
		return;
	(void)sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first);
}

/* All but these: the old server's sockets are that one's to close, and the caller's descriptors may
 * be locks. */
static void close_others(const int *fds, size_t n)
{
	unsigned from = STDERR_FILENO + 1, next;

	do {
		next = ~0U;
		for (size_t i = 0; i < n; i++)
			if ((unsigned)fds[i] >= from && (unsigned)fds[i] < next)
				next = (unsigned)fds[i];
		if (next > from)
			(void)close_range(from, next == ~0U ? next : next - 1, 0);
		from = next + 1;
	} while (next != ~0U);
}

/* Nobody waits for it to end, nor for what it has of the caller's. */
static void stand_alone(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)setsid();
	if (chdir("/") < 0)
		_exit(0);
	for (int i = STDIN_FILENO; fd >= 0 && i <= STDERR_FILENO; i++)
		(void)dup2(fd, i);
	if (fd > STDERR_FILENO)
		(void)close_fd(fd);
	hurry();
}

/* Where there is something it fails, as it should. That the file has a name left by which it can be
 * linked again is the daemon's doing. */
static void put_back(const struct kept *kept, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (linkat(AT_FDCWD, kept[i].file, kept[i].directory_fd, kept[i].name,
			    AT_SYMLINK_FOLLOW) < 0)
			continue;
}

static _Noreturn void guard(
	const struct kept *kept, size_t n, int inotify_fd, int pidfd, int parent_fd)
{
	struct pollfd fds[] = {
		{.fd = inotify_fd, .events = POLLIN},
		{.fd = pidfd,      .events = POLLIN},
		{.fd = parent_fd,  .events = POLLIN},
	};
	int needed[2 * CLIENT_FDS_MAX + ARRAY_SIZE(fds)];
	size_t n_needed = 0;
	char events[4096];

	for (size_t i = 0; i < n; i++) {
		needed[n_needed++] = kept[i].fd;
		needed[n_needed++] = kept[i].directory_fd;
	}
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		needed[n_needed++] = fds[i].fd;
	close_others(needed, n_needed);
	stand_alone();
	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			break;
		put_back(kept, n);
		if (fds[1].revents || (fds[2].revents && read(parent_fd, events, 1) != 1))
			break;
		if (fds[2].revents)
			fds[2].fd = -1;
		while (read(inotify_fd, events, sizeof(events)) > 0)
			;
	}
	_exit(0);
}

void path_guard_begin(struct path_guard *g, const struct live_sockets *s)
{
	struct kept kept[CLIENT_FDS_MAX];
	_cleanup_close_ int inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int fds[2];
	size_t n = 0;

	*g = (struct path_guard){.fd = -1};
	for (size_t i = 1; inotify_fd >= 0 && i < s->fds.n; i++)
		if (has_path(&s->addresses[i]) && keep(&s->addresses[i], inotify_fd, &kept[n]))
			n++;
	if (n > 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) >= 0) {
		g->pid = fork();
		if (g->pid == 0) {
			(void)close_fd(fds[1]);
			guard(kept, n, inotify_fd, s->fds.list[0], fds[0]);
		}
		(void)close_fd(fds[0]);
		g->fd = fds[1];
		if (g->pid < 0)
			g->pid = 0;
	}
	while (n-- > 0) {
		(void)close_fd(kept[n].fd);
		(void)close_fd(kept[n].directory_fd);
	}
}

void path_guard_leave(struct path_guard *g)
{
	if (g->pid != 0 && send(g->fd, "", 1, MSG_NOSIGNAL) == 1)
		g->pid = 0;
}

void path_guard_done(struct path_guard *g)
{
	g->fd = close_fd(g->fd);
	if (g->pid != 0)
		(void)waitpid(g->pid, NULL, 0);
	g->pid = 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/live_sockets.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/parse.h"

void live_sockets_done(struct live_sockets *s)
{
	client_fds_done(&s->fds);
}

/* Listening, or a datagram socket that others can send to. Of which other kinds nothing is known
 * here. */
static bool is_open_to_others(int fd, struct address *ret)
{
	struct sockaddr_storage storage = {0}, peer;
	socklen_t len = sizeof(storage), size = sizeof(int), peer_len = sizeof(peer);
	int type = 0, listens = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
		getsockname(fd, (struct sockaddr *)&storage, &len) < 0 ||
		address_from_sockaddr((const struct sockaddr *)&storage, len, type, ret) < 0)
		return false;
	size = sizeof(int);
	if (type != SOCK_DGRAM)
		return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) >= 0 && listens;
	return ret->len > sizeof(sa_family_t) &&
	       getpeername(fd, (struct sockaddr *)&peer, &peer_len) < 0 && errno == ENOTCONN;
}

static bool is_known(const struct live_sockets *s, int fd)
{
	struct stat st, other;

	if (fstat(fd, &st) < 0)
		return true;
	for (size_t i = 1; i < s->fds.n; i++)
		if (fstat(s->fds.list[i], &other) >= 0 && other.st_dev == st.st_dev &&
			other.st_ino == st.st_ino)
			return true;
	return false;
}

/* Yama's restriction of ptrace(2), which holds for pidfd_getfd(2) as well. 0: there is none. */
static unsigned ptrace_scope(void)
{
	char text[16] = "";
	int fd = open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY | O_CLOEXEC);
	unsigned scope;

	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	(void)close_fd(fd);
	text[strcspn(text, "\n")] = '\0';
	return parse_uint(text, 0, 3, &scope) < 0 ? 0 : scope;
}

static int explain_refusal(pid_t pid, struct error *ret_error)
{
	unsigned scope = ptrace_scope();
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st) >= 0 && geteuid() != 0 && st.st_uid != geteuid())
		return error_set(ret_error, -EPERM,
			"not permitted to take sockets out of process %d, which belongs to "
			"another user (uid %u); run tenurectl as root, or as that user",
			(int)pid, (unsigned)st.st_uid);
	if (scope == 3)
		return error_set(ret_error, -EPERM,
			"not permitted to take sockets out of process %d: here nobody may trace "
			"others (kernel.yama.ptrace_scope is 3), until the machine is started "
			"with another value",
			(int)pid);
	if (scope > 0 && geteuid() != 0)
		return error_set(ret_error, -EPERM,
			"not permitted to take sockets out of process %d: here only root may "
			"trace others (kernel.yama.ptrace_scope is %u); run tenurectl as root",
			(int)pid, scope);
	return error_set(ret_error, -EPERM,
		"not permitted to take sockets out of process %d: that needs the right to trace "
		"it, which %s; run tenurectl as root%s",
		(int)pid,
		geteuid() == 0 ? "root lacks here (CAP_SYS_PTRACE)"
			       : "is root's alone for a program that has changed its user",
		geteuid() == 0 ? " outside this container" : "");
}

static int explain_rights(pid_t pid, int r, struct error *ret_error)
{
	if (r == -ESRCH)
		return error_set(ret_error, r, "there is no process %d", (int)pid);
	if (r == -EPERM || r == -EACCES)
		return explain_refusal(pid, ret_error);
	if (r == -E2BIG)
		return error_set(ret_error, r,
			"process %d has more than %d sockets that others can reach, which is more "
			"than can be taken over",
			(int)pid, CLIENT_FDS_MAX - 1);
	if (r == -ENOSYS)
		return error_set(ret_error, r,
			"the kernel, or a seccomp filter, has no pidfd_getfd(2), by which sockets "
			"are taken out of a process");
	return error_set_errno(ret_error, r, "process %d", (int)pid);
}

static bool is_at(const struct address *a, const struct address *at)
{
	return !at || (a->kind == at->kind && address_equal(a, at));
}

static size_t keep_only(struct live_sockets *s, const struct address *at)
{
	size_t n = 1;

	for (size_t i = 1; i < s->fds.n; i++) {
		if (!is_at(&s->addresses[i], at)) {
			(void)close_fd(s->fds.list[i]);
			continue;
		}
		s->addresses[n] = s->addresses[i];
		s->fds.list[n++] = s->fds.list[i];
	}
	return s->fds.n = n;
}

/* Adds it if it is one. at: the only ones that are wanted, others are kept to be named while there
 * is room; or NULL. 0 or -errno of what concerns all of them. */
static int look_at(struct live_sockets *s, int number, const struct address *at)
{
	struct address address;
	int fd = (int)syscall(SYS_pidfd_getfd, s->fds.list[0], number, 0);

	if (fd < 0)
		return errno == EBADF ? 0 : -errno;
	if (!is_open_to_others(fd, &address) || is_known(s, fd) ||
		(s->fds.n == CLIENT_FDS_MAX && !is_at(&address, at))) {
		(void)close_fd(fd);
		return 0;
	}
	if (s->fds.n == CLIENT_FDS_MAX && keep_only(s, at) == CLIENT_FDS_MAX) {
		(void)close_fd(fd);
		return -E2BIG;
	}
	s->addresses[s->fds.n] = address;
	s->fds.list[s->fds.n++] = fd;
	return 0;
}

static int look_at_all(pid_t pid, const struct address *at, struct live_sockets *s)
{
	char path[64], target[64];
	const struct dirent *entry;
	DIR *directory;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	directory = opendir(path);
	if (!directory)
		return errno == ENOENT ? -ESRCH : -errno;
	while (r >= 0 && (entry = readdir(directory))) {
		unsigned number;
		ssize_t n = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target));

		if (n > 8 && memcmp(target, "socket:[", 8) == 0 &&
			parse_uint(entry->d_name, 0, INT32_MAX, &number) >= 0)
			r = look_at(s, (int)number, at);
	}
	(void)closedir(directory);
	return r;
}

/* "tcp:[::]:80, tcp:[::]:443" */
static char *list_addresses(const struct live_sockets *s)
{
	char *text = NULL;

	for (size_t i = 1; i < s->fds.n; i++) {
		_cleanup_free_ char *address = address_format(&s->addresses[i]);
		char *longer = xasprintf(
			"%s%s%s", text ? text : "", text ? ", " : "", address ? address : "?");

		free(text);
		text = longer;
	}
	return text;
}

int live_sockets_of(
	pid_t pid, const struct address *at, struct live_sockets *ret, struct error *ret_error)
{
	_cleanup_live_sockets_ struct live_sockets s = {0};
	_cleanup_free_ char *there = NULL, *wanted = at ? address_format(at) : NULL;
	int r = (int)syscall(SYS_pidfd_open, pid, 0);

	if (r < 0)
		return explain_rights(pid, errno == EINVAL ? -ESRCH : -errno, ret_error);
	s.fds.list[s.fds.n++] = r;
	r = look_at_all(pid, at, &s);
	if (r < 0)
		return explain_rights(pid, r, ret_error);
	there = list_addresses(&s);
	if (s.fds.n == 1)
		return error_set(ret_error, -ENOENT,
			"process %d does not listen on anything; give the process that does "
			"(`ss -ltnp` shows it), of several the one that started the others",
			(int)pid);
	if (at && keep_only(&s, at) == 1)
		return error_set(ret_error, -ENOENT, "process %d does not listen on %s, but on %s",
			(int)pid, wanted ? wanted : "that", there ? there : "others");
	*ret = s;
	s.fds.n = 0;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Unix sockets with a path. The path outlives its socket, is found by name, and guards the socket
 * by its mode: all that is done here is about those three. */
#include "sys/listen.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>

static bool is_abstract(const struct address *a)
{
	return a->un.sun_path[0] == '\0';
}

/* What is at the path? -ENOENT: nothing. 0: a socket that nobody listens on. */
static int probe_path(const struct address *a)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (lstat(a->un.sun_path, &st) < 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;

	fd = socket(AF_UNIX, address_socket_type(a) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, &a->sa, a->len) >= 0)
		return -EADDRINUSE;
	switch (errno) {
	case ECONNREFUSED:
		return 0;
	case EAGAIN:	 /* its queue is full */
	case EPROTOTYPE: /* it is of another type */
		return -EADDRINUSE;
	default:
		return -errno;
	}
}

/* bind(2) makes the file with the mode of the socket's own inode less the umask, so with fchmod()
 * before there is no moment at which the file has another mode. The owner can only be changed
 * after; but nobody is answered before listen(2), and datagram sockets are not found under their
 * name before the rename. */
static int bind_file(int fd, const struct address *at, const struct listen_options *o)
{
	mode_t mask = 0;
	int r = 0;

	if (o->mode_set) {
		if (fchmod(fd, o->mode) < 0)
			return -errno;
		mask = umask(0);
	}
	if (bind(fd, &at->sa, at->len) < 0)
		r = -errno;
	if (o->mode_set)
		(void)umask(mask);
	if (r < 0)
		return r;

	if ((o->owner != (uid_t)-1 || o->group != (gid_t)-1) &&
		lchown(at->un.sun_path, o->owner, o->group) < 0)
		r = -errno;
	if (r >= 0)
		r = listen_start(fd, o->backlog);
	if (r < 0)
		(void)unlink(at->un.sun_path);
	return r;
}

/* A name in the same directory that is nobody else's: beside the path; when that would be too long
 * for a socket address, through the open directory. */
static int name_beside(const struct address *a, int directory_fd, struct address *ret)
{
	uint32_t random;
	int n;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -errno;
	*ret = *a;
	n = snprintf(ret->un.sun_path, sizeof(ret->un.sun_path), "%s.%08x", a->un.sun_path, random);
	if (n < 0 || (size_t)n >= sizeof(ret->un.sun_path))
		n = snprintf(ret->un.sun_path, sizeof(ret->un.sun_path), "/proc/self/fd/%d/.%08x",
			directory_fd, random);
	if (n < 0)
		return -EINVAL;
	ret->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n + 1);
	return 0;
}

static int open_directory(const struct address *a)
{
	char path[sizeof(a->un.sun_path) + 1];
	char *slash;
	int fd;

	(void)snprintf(path, sizeof(path), "%s", a->un.sun_path);
	slash = strrchr(path, '/');
	if (!slash)
		(void)snprintf(path, sizeof(path), ".");
	else
		slash[slash == path] = '\0'; /* the root directory keeps its slash */
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int replace_path(int fd, const struct address *a, const struct listen_options *o)
{
	_cleanup_close_ int directory_fd = open_directory(a);
	struct address beside;
	int r;

	if (directory_fd < 0)
		return directory_fd;
	r = name_beside(a, directory_fd, &beside);
	if (r < 0)
		return r;
	r = bind_file(fd, &beside, o);
	if (r < 0)
		return r;
	if (rename(beside.un.sun_path, a->un.sun_path) < 0) {
		r = -errno;
		(void)unlink(beside.un.sun_path);
	}
	return r;
}

int listen_open_unix(const struct address *a, const struct listen_options *o)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (!address_is_unix(a))
		return -EINVAL;
	fd = socket(AF_UNIX,
		address_socket_type(a) | SOCK_CLOEXEC | (o->blocking ? 0 : SOCK_NONBLOCK), 0);
	if (fd < 0)
		return -errno;
	if (is_abstract(a)) {
		if (bind(fd, &a->sa, a->len) < 0)
			return -errno;
		r = listen_start(fd, o->backlog);
		return r < 0 ? r : TAKE_FD(fd);
	}

	r = probe_path(a);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT && a->kind != ADDRESS_UNIX_DGRAM)
		r = bind_file(fd, a, o);
	else
		r = replace_path(fd, a, o);
	return r < 0 ? r : TAKE_FD(fd);
}

int listen_path_identity(const struct address *a, dev_t *ret_dev, ino_t *ret_ino)
{
	struct stat st;

	if (!address_is_unix(a) || is_abstract(a))
		return -EOPNOTSUPP;
	if (lstat(a->un.sun_path, &st) < 0)
		return -errno;
	*ret_dev = st.st_dev;
	*ret_ino = st.st_ino;
	return 0;
}

/* The second name: hidden, in the same directory, the same for each run, so that what a killed
 * daemon left behind is used again and not added to. */
static int spare_of(const struct address *a, char ret[static PATH_MAX])
{
	const char *path = a->un.sun_path, *slash = strrchr(path, '/');
	int n;

	if (!address_is_unix(a) || is_abstract(a))
		return -EOPNOTSUPP;
	slash = slash ? slash + 1 : path;
	n = snprintf(ret, PATH_MAX, "%.*s.%s.tenured", (int)(slash - path), path, slash);
	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static bool is_file(const char *path, dev_t dev, ino_t ino)
{
	struct stat st;

	return lstat(path, &st) >= 0 && st.st_dev == dev && st.st_ino == ino;
}

int listen_keep_path(const struct address *a, dev_t dev, ino_t ino)
{
	char spare[PATH_MAX];
	struct stat st;
	int r = spare_of(a, spare);

	if (r < 0)
		return r;
	if (!is_file(a->un.sun_path, dev, ino)) {
		if (lstat(a->un.sun_path, &st) >= 0)
			return -ESTALE;
		if (!is_file(spare, dev, ino))
			return -ENOENT;
		return link(spare, a->un.sun_path) < 0 ? -errno : 1;
	}
	if (is_file(spare, dev, ino))
		return 0;
	if (lstat(spare, &st) >= 0 && (!S_ISSOCK(st.st_mode) || unlink(spare) < 0))
		return -EEXIST;
	return link(a->un.sun_path, spare) < 0 ? -errno : 0;
}

int listen_drop_spare(const struct address *a, dev_t dev, ino_t ino)
{
	char spare[PATH_MAX];
	int r = spare_of(a, spare);

	if (r < 0 || !is_file(spare, dev, ino))
		return r;
	return unlink(spare) < 0 ? -errno : 0;
}

int listen_unlink(const struct address *a, dev_t dev, ino_t ino)
{
	dev_t dev_now;
	ino_t ino_now;
	char spare[PATH_MAX];
	int r;

	if (spare_of(a, spare) >= 0 && is_file(spare, dev, ino))
		(void)unlink(spare);
	r = listen_path_identity(a, &dev_now, &ino_now);
	if (r < 0)
		return r == -EOPNOTSUPP ? 0 : r;
	if (dev_now != dev || ino_now != ino)
		return -ESTALE;
	return unlink(a->un.sun_path) < 0 ? -errno : 0;
}

int listen_unix_holder(const struct address *a, pid_t *ret_pid, uid_t *ret_uid)
{
	_cleanup_close_ int fd = -1;
	struct ucred peer;
	socklen_t len = sizeof(peer);

	fd = socket(AF_UNIX, address_socket_type(a) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, &a->sa, a->len) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	*ret_pid = peer.pid;
	*ret_uid = peer.uid;
	return 0;
}

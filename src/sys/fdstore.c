/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/fdstore.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"

static int connect_to(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	size_t len = strlen(name);

	if (len >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, name, len + 1);
	if (name[0] == '@')
		a.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&a,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (name[0] != '@'))) <
		0)
		return -errno;
	return TAKE_FD(fd);
}

int fdstore_open(struct fdstore *ret)
{
	const char *name = getenv("NOTIFY_SOCKET");
	int fd;

	*ret = FDSTORE_NULL;
	if (!name || (name[0] != '/' && name[0] != '@') || !name[1])
		return 0;
	fd = connect_to(name);
	if (fd < 0)
		return fd;
	ret->fd = fd;
	return 1;
}

void fdstore_done(struct fdstore *s)
{
	s->fd = close_fd(s->fd);
}

static int send_once(const struct fdstore *s, const struct msghdr *message)
{
	ssize_t n;

	do
		n = sendmsg(s->fd, message, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* fd: goes beside the text, or -1. */
static int say(struct fdstore *s, char *text, int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = text, .iov_len = strlen(text)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	struct fdstore other;
	int r;

	if (fd >= 0) {
		struct cmsghdr *c;

		message.msg_control = control.buf;
		message.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	r = send_once(s, &message);
	if (r != -ECONNREFUSED && r != -ECONNRESET && r != -ENOTCONN)
		return r;
	/* Who listened there has been replaced. */
	r = fdstore_open(&other);
	if (r <= 0)
		return r < 0 ? r : -ECONNREFUSED;
	close_fd(s->fd);
	*s = other;
	return send_once(s, &message);
}

int fdstore_push(struct fdstore *s, int fd, const char *name)
{
	char text[320];

	if (strlen(name) > 255)
		return -EINVAL;
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	return say(s, text, fd);
}

int fdstore_remove(struct fdstore *s, const char *name)
{
	char text[320];

	if (strlen(name) > 255)
		return -EINVAL;
	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return say(s, text, -1);
}

int fdstore_tell_with(struct fdstore *s, const char *text, int fd)
{
	_cleanup_free_ char *copy = strdup(text);

	return copy ? say(s, copy, fd) : -ENOMEM;
}

int fdstore_tell(struct fdstore *s, const char *text)
{
	return fdstore_tell_with(s, text, -1);
}

/* poll(2) rounds up here, so that nobody asks again just before. */
static int wait_for(int fd, short events, uint64_t timeout_usec)
{
	struct pollfd p = {.fd = fd, .events = events};
	int r;

	do
		r = poll(&p, 1, (int)((timeout_usec + USEC_PER_MSEC - 1) / USEC_PER_MSEC));
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	return r > 0 ? 0 : -ETIMEDOUT;
}

int fdstore_wait(const struct fdstore *s, uint64_t timeout_usec)
{
	return wait_for(s->fd, POLLOUT, timeout_usec);
}

int fdstore_barrier(struct fdstore *s, uint64_t timeout_usec)
{
	_cleanup_close_ int ours = -1, theirs = -1;
	uint64_t until = monotonic_usec() + timeout_usec, now;
	char text[] = "BARRIER=1";
	int pipe_fds[2], r;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	ours = pipe_fds[0];
	theirs = pipe_fds[1];
	while ((r = say(s, text, theirs)) == -EAGAIN) {
		now = monotonic_usec();
		if (now >= until || fdstore_wait(s, until - now) < 0)
			return -ETIMEDOUT;
	}
	if (r < 0)
		return r;
	theirs = close_fd(theirs);
	now = monotonic_usec();
	/* The other end is closed when its turn has come. */
	return wait_for(ours, 0, now < until ? until - now : 0);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/fdstore.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

enum { SEND_TIMEOUT_MSEC = 250 };

static int connect_to(const char *name)
{
	static const struct timeval timeout = {.tv_usec = SEND_TIMEOUT_MSEC * 1000};
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
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
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

/* fd: goes beside the text, or -1. */
static int say(const struct fdstore *s, const char *text, int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char copy[512];
	struct iovec iov = {.iov_base = copy, .iov_len = strlen(text)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (iov.iov_len >= sizeof(copy))
		return -EMSGSIZE;
	memcpy(copy, text, iov.iov_len);
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
	do
		n = sendmsg(s->fd, &message, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int fdstore_push(const struct fdstore *s, int fd, const char *name)
{
	char text[320];

	if (strlen(name) > 255)
		return -EINVAL;
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	return say(s, text, fd);
}

int fdstore_remove(const struct fdstore *s, const char *name)
{
	char text[320];

	if (strlen(name) > 255)
		return -EINVAL;
	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return say(s, text, -1);
}

int fdstore_tell(const struct fdstore *s, const char *text)
{
	return say(s, text, -1);
}

int fdstore_tell_now(const struct fdstore *s, const char *text)
{
	ssize_t n;

	do
		n = send(s->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int fdstore_tell_with(const struct fdstore *s, const char *text, int fd)
{
	return say(s, text, fd);
}

int fdstore_barrier(const struct fdstore *s, uint64_t timeout_usec)
{
	_cleanup_close_ int ours = -1, theirs = -1;
	struct pollfd p;
	int pipe_fds[2], r;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	ours = pipe_fds[0];
	theirs = pipe_fds[1];
	r = say(s, "BARRIER=1", theirs);
	if (r < 0)
		return r;
	theirs = close_fd(theirs);
	p = (struct pollfd){.fd = ours};
	/* The other end is closed when its turn has come. */
	do
		r = poll(&p, 1, (int)(timeout_usec / USEC_PER_MSEC));
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	return r > 0 ? 0 : -ETIMEDOUT;
}

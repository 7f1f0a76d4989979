/* SPDX-License-Identifier: Apache-2.0 */
/* Anybody in the network namespace may send to an abstract name, so what came is judged by the
 * sender's credentials, which the kernel adds and checks; the random name only keeps others from
 * taking it before us. */
#include "sys/notify_socket.h"

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "sys/fdpass.h"

static int bind_to(int fd, const char *address)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t len = strlen(address);

	if (address[0] != '@' || len > sizeof(a.sun_path))
		return -EINVAL;
	/* In the address the "@" is a NUL, and there is none at the end. */
	memcpy(a.sun_path + 1, address + 1, len - 1);
	return bind(fd, (const struct sockaddr *)&a,
		       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0
		       ? -errno
		       : 0;
}

static int open_socket(const char *address)
{
	static const int one = 1;
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	/* Before bind: no datagram may come without them. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) < 0)
		return -errno;
	r = bind_to(fd, address);
	return r < 0 ? r : TAKE_FD(fd);
}

int notify_socket_open(int *ret_fd, char **ret_address)
{
	_cleanup_free_ char *address = NULL;
	uint64_t random[2];
	int fd;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -errno;
	address = xasprintf("@tenured/notify/%016llx%016llx", (unsigned long long)random[0],
		(unsigned long long)random[1]);
	if (!address)
		return -ENOMEM;
	fd = open_socket(address);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	*ret_address = TAKE_PTR(address);
	return 0;
}

int notify_socket_reopen(const char *address)
{
	return open_socket(address);
}

static void take_control(struct msghdr *message, struct notify_datagram *d)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS &&
			c->cmsg_len == CMSG_LEN(sizeof(struct ucred))) {
			struct ucred credentials;

			memcpy(&credentials, CMSG_DATA(c), sizeof(credentials));
			d->pid = credentials.pid;
			d->uid = credentials.uid;
		} else if (c->cmsg_type == SCM_RIGHTS) {
			size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			int fd;

			for (size_t i = 0; i < n; i++) {
				memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
				if (d->n_fds < NOTIFY_FDS_MAX)
					d->fds[d->n_fds++] = fd;
				else
					close_fd(fd);
			}
		}
	}
}

int notify_socket_receive(int fd, struct notify_datagram *ret)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(struct ucred)) +
			 CMSG_SPACE(NOTIFY_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = ret->data, .iov_len = NOTIFY_MESSAGE_MAX};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n;

	ret->pid = 0;
	ret->uid = (uid_t)-1;
	ret->n_fds = 0;
	ret->len = 0;
	ret->data[0] = '\0';
	do
		n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	take_control(&message, ret);
	ret->len = (size_t)n;
	ret->data[n] = '\0';
	ret->truncated = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
	return 0;
}

void notify_datagram_close(struct notify_datagram *d)
{
	for (size_t i = 0; i < d->n_fds; i++) {
		fdpass_forget_linger(d->fds[i]);
		close_fd(d->fds[i]);
	}
	d->n_fds = 0;
}

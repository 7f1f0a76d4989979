/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/fdpass.h"

#include <sys/socket.h>

void peer_done(struct peer *p)
{
	free(p->groups);
	*p = (struct peer){.groups = NULL};
}

int peer_of(int fd, struct peer *ret)
{
	struct ucred credentials;
	socklen_t len = sizeof(credentials);
	_cleanup_free_ gid_t *groups = NULL;
	size_t n = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len) < 0)
		return -errno;
	/* A peer that was not there when it connected: a socketpair's own end, or no Unix socket.
	 */
	if (credentials.uid == (uid_t)-1)
		return -ENODATA;
	for (;;) {
		gid_t *more;

		/* ERANGE says in len how much there is. */
		len = (socklen_t)(n * sizeof(*groups));
		if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) >= 0)
			break;
		if (errno != ERANGE)
			return -errno;
		n = len / sizeof(*groups);
		more = realloc(groups, n * sizeof(*groups));
		if (!more)
			return -ENOMEM;
		groups = more;
	}
	*ret = (struct peer){
		.pid = credentials.pid,
		.uid = credentials.uid,
		.gid = credentials.gid,
		.groups = TAKE_PTR(groups),
		.n_groups = len / sizeof(gid_t),
	};
	return 0;
}

bool peer_in_group(const struct peer *p, gid_t gid)
{
	if (p->gid == gid)
		return true;
	for (size_t i = 0; i < p->n_groups; i++)
		if (p->groups[i] == gid)
			return true;
	return false;
}

void fdpass_forget_linger(int fd)
{
	struct linger l = {0};
	socklen_t len = sizeof(l);

	/* With a time of 0 it is a reset, which waits for nobody. */
	if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len) < 0 || !l.l_onoff || l.l_linger <= 0)
		return;
	l.l_onoff = 0;
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

union control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
};

ssize_t fdpass_send(int socket, const void *data, size_t len, const int *fds, size_t n_fds)
{
	/* Only read, but the structure's pointer is not const. */
	union {
		const void *in;
		void *out;
	} u = {.in = data};
	struct iovec iov = {.iov_base = u.out, .iov_len = len};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control;
	ssize_t n;

	/* Descriptors travel beside a byte; without one they would not. */
	if (n_fds > FDPASS_MAX || len == 0)
		return -EINVAL;
	if (n_fds > 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		message.msg_control = control.buf;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(socket, &message, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t fdpass_receive(
	int socket, void *data, size_t len, int *fds, size_t max_fds, size_t *ret_n_fds)
{
	struct iovec iov = {.iov_base = data, .iov_len = len};
	union control control;
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	size_t n_kept = 0;
	ssize_t n;

	*ret_n_fds = 0;
	do
		n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		size_t n_fds;
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n_fds; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (n_kept < max_fds)
				fds[n_kept++] = fd;
			else
				close_fd(fd);
		}
	}
	*ret_n_fds = n_kept;
	return n;
}

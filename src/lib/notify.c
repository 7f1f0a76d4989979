/* SPDX-License-Identifier: Apache-2.0 */
/* What a service manager is told: sd_notify(3). One socket, opened with the handle, so that these
 * calls change nothing and can be made from any thread. */
#include "lib/internal.h"

enum { STATUS_MAX = 512 };

int send_with_fds(int socket, const struct sockaddr_un *to, socklen_t to_len, const void *data,
	size_t len, const int *fds, size_t n_fds)
{
	struct sockaddr_un name;
	struct iovec iov;
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(CHANNEL_FDS_MAX * sizeof(int))];
	} control;
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (n_fds > CHANNEL_FDS_MAX)
		return -EINVAL;
	/* sendmsg(2) wants pointers to what it does not change to be without const. */
	memcpy(&iov.iov_base, &data, sizeof(data));
	iov.iov_len = len;
	if (to) {
		name = *to;
		message.msg_name = &name;
		message.msg_namelen = to_len;
	}
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
		n = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int notify_open(struct tenure *t)
{
	const char *address = getenv("NOTIFY_SOCKET");
	size_t len = address ? strlen(address) : 0;

	/* Other kinds (virtual machines' sockets) are not ours to know: as if it was not set. */
	if (len < 2 || (address[0] != '/' && address[0] != '@') ||
		len >= sizeof(t->notify_address.sun_path))
		return 0;
	t->notify_address.sun_family = AF_UNIX;
	memcpy(t->notify_address.sun_path, address, len);
	if (address[0] == '@')
		t->notify_address.sun_path[0] = '\0';
	/* Of an abstract name every byte counts. */
	t->notify_len =
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (address[0] == '/'));
	t->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return t->notify_fd < 0 ? -errno : 0;
}

int notify_send(const struct tenure *t, const char *text, const int *fds, size_t n_fds)
{
	int r;

	if (t->notify_fd < 0)
		return 0;
	r = send_with_fds(
		t->notify_fd, &t->notify_address, t->notify_len, text, strlen(text), fds, n_fds);
	return r < 0 ? r : 1;
}

EXPORT int tenure_notify(const struct tenure *t, const char *lines)
{
	return notify_send(t, lines, NULL, 0);
}

EXPORT int tenure_ready(const struct tenure *t)
{
	return tenure_notify(t, "READY=1");
}

EXPORT int tenure_stopping(const struct tenure *t)
{
	return tenure_notify(t, "STOPPING=1");
}

EXPORT int tenure_heartbeat(const struct tenure *t)
{
	return tenure_notify(t, "WATCHDOG=1");
}

EXPORT int tenure_status(const struct tenure *t, const char *text)
{
	char line[sizeof("STATUS=") + STATUS_MAX];

	if (strchr(text, '\n'))
		return -EINVAL;
	(void)snprintf(line, sizeof(line), "STATUS=%.*s", STATUS_MAX, text);
	return tenure_notify(t, line);
}

EXPORT int tenure_failed(const struct tenure *t, int error)
{
	char line[32];

	if (error < 1 || error > 4095)
		return -EINVAL;
	(void)snprintf(line, sizeof(line), "ERRNO=%d", error);
	return tenure_notify(t, line);
}

EXPORT int tenure_extend_timeout(const struct tenure *t, uint64_t usec)
{
	char line[64];

	(void)snprintf(line, sizeof(line), "EXTEND_TIMEOUT_USEC=%llu", (unsigned long long)usec);
	return tenure_notify(t, line);
}

EXPORT int tenure_watchdog(const struct tenure *t, uint64_t *ret_usec)
{
	if (t->watchdog_usec == 0 || t->notify_fd < 0)
		return 0;
	if (ret_usec)
		*ret_usec = t->watchdog_usec;
	return 1;
}

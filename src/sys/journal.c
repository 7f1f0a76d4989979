/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/journal.h"

#include <endian.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

int journal_open(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? -errno : fd;
}

static void append(struct iovec *iov, size_t *n, const void *data, size_t len)
{
	iov[(*n)++] = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = len};
}

/* Each time by its path: systemd may have made the socket anew since. */
int journal_send(int fd, const char *path, const struct journal_field *fields, size_t n)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct iovec iov[JOURNAL_FIELDS_MAX * 5];
	uint64_t lengths[JOURNAL_FIELDS_MAX];
	struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = iov};

	if (n > JOURNAL_FIELDS_MAX || strlen(path) >= sizeof(to.sun_path))
		return -EINVAL;
	memcpy(to.sun_path, path, strlen(path));
	for (size_t i = 0; i < n; i++) {
		const struct journal_field *f = &fields[i];

		append(iov, &message.msg_iovlen, f->name, strlen(f->name));
		/* A value of several lines has its length before it. */
		if (memchr(f->value, '\n', f->len)) {
			lengths[i] = htole64(f->len);
			append(iov, &message.msg_iovlen, "\n", 1);
			append(iov, &message.msg_iovlen, &lengths[i], sizeof(lengths[i]));
		} else {
			append(iov, &message.msg_iovlen, "=", 1);
		}
		append(iov, &message.msg_iovlen, f->value, f->len);
		append(iov, &message.msg_iovlen, "\n", 1);
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

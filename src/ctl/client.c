/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"

/* The daemon is trusted with more than it trusts us with: a host's whole state in one message. */
#define REPLY_MAX ((size_t)64 * 1024 * 1024)
#define READ_SIZE ((size_t)64 * 1024)

void client_done(struct client *c)
{
	c->fd = close_fd(c->fd);
	varlink_framing_done(&c->in);
}

int client_connect(const char *path, struct client *ret)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	size_t len = strlen(path);
	socklen_t size;

	/* A path is ended by NUL, an abstract name by its length. */
	if (len == 0 || len >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, len);
	size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	if (path[0] == '@') {
		address.sun_path[0] = '\0';
		size--;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	while (connect(fd, (const struct sockaddr *)&address, size) < 0)
		if (errno != EINTR)
			return -errno;
	*ret = (struct client){.fd = TAKE_FD(fd), .in = VARLINK_FRAMING_INIT(REPLY_MAX)};
	return 0;
}

/* Wait for events until the moment deadline. 0, -ETIMEDOUT or -errno. */
static int wait_until(int fd, short events, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};

	for (;;) {
		uint64_t now = monotonic_usec(), left = deadline > now ? deadline - now : 0;
		int r = poll(&p, 1,
			deadline == USEC_INFINITY
				? -1
				: (int)MIN((left + USEC_PER_MSEC - 1) / USEC_PER_MSEC,
					  (uint64_t)1000 * 1000));

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r == 0 && monotonic_usec() >= deadline)
			return -ETIMEDOUT;
	}
}

static uint64_t deadline_of(uint64_t timeout_usec)
{
	return usec_add(monotonic_usec(), timeout_usec);
}

void client_fds_done(struct client_fds *fds)
{
	while (fds->n > 0)
		(void)close_fd(fds->list[--fds->n]);
}

union control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(CLIENT_FDS_MAX * sizeof(int))];
};

static ssize_t send_some(const struct client *c, const void *data, size_t len)
{
	/* Only read, but the structure's pointer is not const. */
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control = {0};

	if (c->give && c->give->n > 0) {
		size_t size = c->give->n * sizeof(int);
		/* Where CMSG_FIRSTHDR points to; spelled so that no compiler takes it for NULL. */
		struct cmsghdr *header = &control.align;

		message.msg_control = control.buf;
		message.msg_controllen = CMSG_SPACE(size);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(header), c->give->list, size);
	}
	return sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void take_fds(struct client *c, struct msghdr *message)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(message); h; h = CMSG_NXTHDR(message, h)) {
		size_t n;

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
			if (c->take->n < CLIENT_FDS_MAX)
				c->take->list[c->take->n++] = fd;
			else
				(void)close_fd(fd);
		}
	}
}

int client_send(struct client *c, const char *method, const json_t *parameters, bool more,
	uint64_t timeout_usec)
{
	_cleanup_free_ char *name = strdup(method);
	_cleanup_json_ json_t *copy = NULL;
	_cleanup_buffer_ struct buffer out = BUFFER_INIT(0);
	uint64_t deadline = deadline_of(timeout_usec);
	int r;

	copy = parameters ? json_copy((json_t *)(uintptr_t)parameters) : json_object();
	if (!name || !copy)
		return -ENOMEM;
	r = varlink_call_write(
		&(struct varlink_call){.method = name, .parameters = copy, .more = more}, &out);
	if (r < 0)
		return r;
	while (out.len > 0) {
		ssize_t n = send_some(c, buffer_data(&out), out.len);

		if (n >= 0) {
			buffer_consume(&out, (size_t)n);
			c->give = NULL;
		} else if (errno == EAGAIN) {
			r = wait_until(c->fd, POLLOUT, deadline);
			if (r < 0)
				return r;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* Read what is there. 1: something; 0: nothing. */
static int fill(struct client *c)
{
	char data[READ_SIZE];
	struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
	union control control;
	struct msghdr message = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = c->take ? control.buf : NULL,
		.msg_controllen = c->take ? sizeof(control.buf) : 0};
	ssize_t n;
	int r;

	do {
		n = recvmsg(c->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n >= 0 && c->take)
		take_fds(c, &message);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	r = varlink_framing_append(&c->in, data, (size_t)n);
	return r < 0 ? r : 1;
}

int client_take(struct client *c, struct varlink_reply *ret)
{
	const char *message;
	size_t len;
	int r;

	while (!varlink_framing_peek(&c->in, &message, &len)) {
		r = fill(c);
		if (r <= 0)
			return r;
	}
	r = varlink_reply_parse(message, len, VARLINK_DEPTH_MAX, ret);
	varlink_framing_pop(&c->in);
	return r < 0 ? r : 1;
}

int client_wait(struct client *c, uint64_t timeout_usec, struct varlink_reply *ret)
{
	uint64_t deadline = deadline_of(timeout_usec);
	int r;

	while ((r = client_take(c, ret)) == 0) {
		r = wait_until(c->fd, POLLIN, deadline);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : 0;
}

int client_call(struct client *c, const char *method, const json_t *parameters,
	uint64_t timeout_usec, struct varlink_reply *ret)
{
	uint64_t started = monotonic_usec(), spent;
	int r;

	r = client_send(c, method, parameters, false, timeout_usec);
	if (r < 0)
		return r;
	if (timeout_usec == USEC_INFINITY)
		return client_wait(c, timeout_usec, ret);
	spent = monotonic_usec() - started;
	return client_wait(c, timeout_usec > spent ? timeout_usec - spent : 0, ret);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's end of the channel. */
#include <sys/epoll.h>

#include "lib/internal.h"

int channel_send(
	const struct tenure *t, const struct channel_message *m, const int *fds, size_t n_fds)
{
	char packet[CHANNEL_MESSAGE_MAX];
	int len = channel_format(m, packet);

	return len < 0 ? len
		       : send_with_fds(t->channel_fd, NULL, 0, packet, (size_t)len, fds, n_fds);
}

static int say_hello(struct tenure *t)
{
	const struct channel_message hello = {.kind = CHANNEL_HELLO,
		.version = CHANNEL_VERSION,
		.accepts = CHANNEL_ACCEPTS_DRAIN | CHANNEL_ACCEPTS_LISTENERS |
			   CHANNEL_ACCEPTS_PING | CHANNEL_ACCEPTS_DESCRIPTORS};
	int r = channel_send(t, &hello, NULL, 0);

	/* That it was closed already is an event like any other. */
	if (r < 0 && r != -EPIPE && r != -ECONNRESET)
		return r;
	t->said_hello = true;
	return 0;
}

EXPORT int tenure_fd(struct tenure *t)
{
	_cleanup_close_ int fd = -1;

	if (t->poll_fd < 0) {
		fd = epoll_create1(EPOLL_CLOEXEC);
		if (fd < 0 || (t->channel_fd >= 0 &&
				      epoll_ctl(fd, EPOLL_CTL_ADD, t->channel_fd,
					      &(struct epoll_event){.events = EPOLLIN}) < 0))
			return -errno;
		t->poll_fd = TAKE_FD(fd);
	}
	if (t->channel_fd >= 0 && !t->said_hello) {
		int r = say_hello(t);

		if (r < 0)
			return r;
	}
	return t->poll_fd;
}

/* --- receiving ---------------------------------------------------------------- */

static void keep_fds(struct msghdr *message, struct tenure *t)
{
	t->n_arrived = t->next_arrived = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), ARRAY_SIZE(t->arrived));
		memcpy(t->arrived, CMSG_DATA(c), n * sizeof(int));
		t->n_arrived = n;
	}
}

static void close_arrived(struct tenure *t)
{
	for (; t->next_arrived < t->n_arrived; t->next_arrived++)
		close_fd(t->arrived[t->next_arrived]);
}

static void say_closed(const struct tenure *t, const char *name)
{
	struct channel_message m = {.kind = CHANNEL_CLOSED};

	if (t->channel_fd < 0 || !channel_name_valid(name))
		return;
	(void)snprintf(m.name, sizeof(m.name), "%s", name);
	(void)channel_send(t, &m, NULL, 0);
}

/* 1: a message; 0: none now; -ECONNRESET: it is over, or the two of us have no version in common;
 * -EMFILE: descriptors are lost; -EBADMSG. What came with it is in t->arrived, in any case. */
static int receive(struct tenure *t, struct channel_message *ret)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(struct ucred)) +
			 CMSG_SPACE(CHANNEL_FDS_MAX * sizeof(int))];
	} control;
	char packet[CHANNEL_MESSAGE_MAX + 1];
	struct iovec iov = {.iov_base = packet, .iov_len = sizeof(packet)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n;
	int r;

	do
		n = recvmsg(t->channel_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0)
		return -ECONNRESET;
	keep_fds(&message, t);
	if (message.msg_flags & MSG_CTRUNC) {
		/* It is offered again. */
		if (channel_parse(packet, (size_t)n, ret) >= 0 && ret->kind == CHANNEL_ADD)
			say_closed(t, ret->name);
		return -EMFILE;
	}
	if (message.msg_flags & MSG_TRUNC)
		return -EBADMSG;
	r = channel_parse(packet, (size_t)n, ret);
	if (r == -EPROTONOSUPPORT || (r >= 0 && ret->kind == CHANNEL_REFUSED))
		return -ECONNRESET;
	return r < 0 ? -EBADMSG : 1;
}

static void fill(const struct passed *p, enum tenure_event_kind kind, struct tenure_event *ret)
{
	*ret = (struct tenure_event){.kind = (int)kind,
		.fd = p->fd,
		.deadline_usec = UINT64_MAX,
		.name = p->name,
		.address = p->address,
		.family = p->family,
		.type = p->type};
}

static struct passed *find(const struct tenure *t, const char *name, size_t *ret_i)
{
	for (size_t i = 0; i < t->listeners.n; i++)
		if (streq(t->listeners.list[i]->name, name)) {
			*ret_i = i;
			return t->listeners.list[i];
		}
	return NULL;
}

/* 1: an event; 0: none comes of it. */
static int add_listener(struct tenure *t, const struct channel_message *m, struct tenure_event *ret)
{
	struct channel_message taken = {.kind = CHANNEL_TAKEN};
	struct passed *p = NULL;
	size_t i;
	int r;

	memcpy(taken.name, m->name, sizeof(taken.name));
	/* Told a second time, by a daemon that was killed before it had written down the first. */
	if (t->n_arrived != 1 || find(t, m->name, &i)) {
		if (t->n_arrived == 1)
			(void)channel_send(t, &taken, NULL, 0);
		return 0;
	}
	r = passed_new(t, m->name, true, &t->arrived[0], &p);
	if (r >= 0) {
		t->n_arrived = 0;
		fill(p, TENURE_EVENT_LISTENER_ADDED, ret);
		r = passed_list_add_take(&t->listeners, &p);
	}
	if (r < 0) {
		if (p)
			close_fd(p->fd);
		passed_free(p);
		say_closed(t, m->name);
		return r;
	}
	(void)channel_send(t, &taken, NULL, 0);
	return 1;
}

static int change_listener(
	struct tenure *t, const struct channel_message *m, struct tenure_event *ret)
{
	size_t i;
	struct passed *p = find(t, m->name, &i);

	/* Told a second time, as above. */
	if (!p && m->kind == CHANNEL_REMOVE)
		say_closed(t, m->name);
	if (!p)
		return 0;
	if (m->kind == CHANNEL_LEAVE) {
		fill(p, TENURE_EVENT_LISTENER_LEAVING, ret);
		return 1;
	}
	passed_list_remove(&t->listeners, i);
	t->gone = p;
	fill(p, TENURE_EVENT_LISTENER_REMOVED, ret);
	return 1;
}

static int handle(struct tenure *t, const struct channel_message *m, struct tenure_event *ret)
{
	struct channel_message pong = {.kind = CHANNEL_PONG, .id = m->id};

	switch (m->kind) {
	case CHANNEL_PING:
		(void)channel_send(t, &pong, NULL, 0);
		return 0;
	case CHANNEL_DRAIN:
		*ret = (struct tenure_event){
			.kind = TENURE_EVENT_DRAIN, .fd = -1, .deadline_usec = m->deadline_usec};
		return 1;
	case CHANNEL_ADD:
		return add_listener(t, m, ret);
	case CHANNEL_LEAVE:
	case CHANNEL_REMOVE:
		return change_listener(t, m, ret);
	case CHANNEL_STORED:
		memcpy(t->event_name, m->name, sizeof(t->event_name));
		return 0; /* they are told one by one */
	case CHANNEL_UNKNOWN:
	case CHANNEL_HELLO:
	case CHANNEL_PONG:
	case CHANNEL_TAKEN:
	case CHANNEL_CLOSED:
	case CHANNEL_STORE:
	case CHANNEL_UNSTORE:
	case CHANNEL_WELCOME:
	case CHANNEL_REFUSED:
		return 0;
	}
	return 0;
}

static int end_channel(struct tenure *t, struct tenure_event *ret)
{
	close_arrived(t);
	if (t->poll_fd >= 0)
		(void)epoll_ctl(t->poll_fd, EPOLL_CTL_DEL, t->channel_fd, NULL);
	t->channel_fd = close_fd(t->channel_fd);
	*ret = (struct tenure_event){
		.kind = TENURE_EVENT_CLOSED, .fd = -1, .deadline_usec = UINT64_MAX};
	return 1;
}

EXPORT int tenure_next_event(struct tenure *t, struct tenure_event *ret)
{
	struct channel_message m;
	int r;

	/* Whoever asks for the next event has done what the last one asked for. */
	if (t->gone) {
		say_closed(t, t->gone->name);
		t->gone = passed_free(t->gone);
	}
	for (;;) {
		if (t->next_arrived < t->n_arrived) {
			*ret = (struct tenure_event){.kind = TENURE_EVENT_DESCRIPTOR,
				.fd = t->arrived[t->next_arrived++],
				.deadline_usec = UINT64_MAX,
				.name = t->event_name};
			return 1;
		}
		if (t->channel_fd < 0)
			return 0;
		r = receive(t, &m);
		if (r == -ECONNRESET)
			return end_channel(t, ret);
		if (r == 0)
			return 0;
		if (r > 0)
			r = handle(t, &m, ret);
		else
			m.kind = CHANNEL_UNKNOWN;
		if (r == -EBADMSG) /* not ours to judge: the next one may be good */
			r = 0;
		if (m.kind != CHANNEL_STORED)
			close_arrived(t);
		if (r != 0)
			return r;
	}
}

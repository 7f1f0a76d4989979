/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/check_http.h"

#include <ctype.h>

#include "daemon/manager.h"

int http_status(const char *data, size_t len)
{
	static const char magic[] = "HTTP/1.";
	size_t n = strlen(magic);

	if (memcmp(data, magic, MIN(len, n)) != 0)
		return -EBADMSG;
	if (len < n + 5)
		return 0;
	if (!isdigit((unsigned char)data[n]) || data[n + 1] != ' ')
		return -EBADMSG;
	for (size_t i = n + 2; i < n + 5; i++)
		if (!isdigit((unsigned char)data[i]))
			return -EBADMSG;
	if (data[n + 2] == '0' || (len > n + 5 && isdigit((unsigned char)data[n + 5])))
		return -EBADMSG;
	return (data[n + 2] - '0') * 100 + (data[n + 3] - '0') * 10 + (data[n + 4] - '0');
}

struct listener *http_check_listener(struct manager_service *s, uint64_t listeners)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++) {
		struct listener *l = s->listeners[id];

		if (l && l->kind == LISTENER_GROUP && (listeners & (UINT64_C(1) << id)) &&
			l->config.address.kind == ADDRESS_TCP)
			return l;
	}
	return NULL;
}

int http_check_begin(struct http_check *c, struct listener *l, unsigned lane, unsigned slot,
	const char *path, size_t keep)
{
	char *reply = malloc(keep + 1);
	int r;

	if (!reply)
		return -ENOMEM;
	*c = (struct http_check){.probe = PROBE_NULL, .path = path, .reply = reply, .keep = keep};
	*reply = '\0';
	r = probe_begin(&c->probe, l, lane, slot);
	if (r < 0)
		http_check_done(c);
	return r;
}

void http_check_done(struct http_check *c)
{
	probe_done(&c->probe);
	free(c->reply);
	*c = HTTP_CHECK_NULL;
}

/* 0 also when it cannot be sent yet. */
static int send_request(struct http_check *c)
{
	_cleanup_free_ char *request = xasprintf("GET %s HTTP/1.1\r\nHost: localhost\r\n"
						 "User-Agent: tenured\r\nConnection: close\r\n\r\n",
		c->path);
	ssize_t sent;

	if (!request)
		return -ENOMEM;
	sent = send(c->probe.fd, request, strlen(request), MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return errno == EAGAIN || errno == ENOTCONN ? 0 : -errno;
	/* The buffer of a new connection has room for any path that can be configured. */
	if ((size_t)sent != strlen(request))
		return -EIO;
	c->sent = true;
	return 0;
}

int http_check_step(struct http_check *c)
{
	ssize_t n;
	int r;

	if (!c->sent) {
		r = send_request(c);
		if (r < 0 || !c->sent)
			return r < 0 ? r : HTTP_CHECK_WAITING;
	}
	while (c->n_reply < c->keep) {
		n = recv(c->probe.fd, c->reply + c->n_reply, c->keep - c->n_reply, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return c->status ? HTTP_CHECK_STATUS : HTTP_CHECK_WAITING;
		if (n <= 0 && c->status)
			return HTTP_CHECK_END;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		c->n_reply += (size_t)n;
		c->reply[c->n_reply] = '\0';
		r = http_status(c->reply, c->n_reply);
		if (r < 0)
			return r;
		c->status = r;
	}
	return c->status ? HTTP_CHECK_END : -EBADMSG;
}

bool http_check_is_good(const struct http_check *c, unsigned want)
{
	if (want != 0)
		return c->status == (int)want;
	return c->status > 0 && c->status < 400;
}

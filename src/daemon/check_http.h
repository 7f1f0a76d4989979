/* SPDX-License-Identifier: Apache-2.0 */
/* One page, asked for over a connection of our own that is steered to a lane. */
#pragma once

#include "daemon/probe.h"

struct http_check {
	struct probe probe;
	const char *path; /* borrowed */
	bool sent;
	char *reply; /* what was kept of it, NUL-terminated; NULL: nothing asked yet */
	size_t n_reply, keep;
	int status; /* 100..599 once its first line has come */
};

#define HTTP_CHECK_NULL ((struct http_check){.probe = PROBE_NULL})

/* The listener a page is asked of: the first of these (mask) that is TCP and has lanes, or NULL. */
struct listener *http_check_listener(struct manager_service *s, uint64_t listeners);
/* Connect to that lane (slot: of a worker, or LISTENER_ANY_SLOT). path: borrowed until
 * http_check_done(). keep: bytes of the reply to keep, at least 32. 0 or -errno (-ENOSPC: too many
 * rules at the moment, try later). */
int http_check_begin(struct http_check *c, struct listener *l, unsigned lane, unsigned slot,
	const char *path, size_t keep);
enum { HTTP_CHECK_WAITING, HTTP_CHECK_STATUS, HTTP_CHECK_END };
/* Send and read what can be without waiting. HTTP_CHECK_WAITING: nothing can be said yet;
 * HTTP_CHECK_STATUS: the status is there, more may follow; HTTP_CHECK_END: the reply is over, or as
 * much of it is there as is kept; -EPIPE: it was over before its status; -EBADMSG: not HTTP;
 * -errno. Call again when probe.fd is readable (writable, until sent). */
int http_check_step(struct http_check *c);
/* want: a status, or 0 for any below 400. */
bool http_check_is_good(const struct http_check *c, unsigned want);
void http_check_done(struct http_check *c);
/* The status of an HTTP/1.x reply's first bytes: 100..999, 0 when its first line is not complete
 * yet, -EBADMSG. */
int http_status(const char *data, size_t len);

/* SPDX-License-Identifier: Apache-2.0 */
/* One connection to the daemon's control socket, as its client: calls out, replies in.
 * https://varlink.org; unix(7). Replies come in the order of the calls. */
#pragma once

#include "varlink/framing.h"
#include "varlink/message.h"

/* Before the name of each of the supervisor's methods and errors. */
#define CLIENT_INTERFACE "io.tenured.Supervisor."

enum { CLIENT_FDS_MAX = 64 };

/* Descriptors beside messages: unix(7), SCM_RIGHTS. */
struct client_fds {
	int list[CLIENT_FDS_MAX];
	size_t n;
};
void client_fds_done(struct client_fds *fds); /* closes them */

struct client {
	int fd; /* owned; -1: not connected. To poll for input. */
	struct varlink_framing in;
	const struct client_fds *give; /* go beside the first call; borrowed, or NULL */
	struct client_fds *take; /* those that come are added here; NULL: they are not wanted */
};

#define CLIENT_NULL ((struct client){.fd = -1})

void client_done(struct client *c);
#define _cleanup_client_ _cleanup_(client_done)

/* path: of a Unix stream socket, or "@NAME" for an abstract one. 0 or -errno: -ENOENT and
 * -ECONNREFUSED (no daemon), -EACCES, -ENAMETOOLONG ... */
int client_connect(const char *path, struct client *ret);
/* Send one call and return without its reply. method: full name. parameters: an object, borrowed;
 * NULL: none. Waits while the daemon's receive queue is full, timeout_usec at most (USEC_INFINITY:
 * for ever). 0, -ETIMEDOUT, -EPIPE (the daemon hung up) or -errno. */
int client_send(struct client *c, const char *method, const json_t *parameters, bool more,
	uint64_t timeout_usec);
/* Take one reply that has come already: 1; 0: none has; -ECONNRESET: the daemon hung up; -EBADMSG,
 * -EMSGSIZE, -ELOOP: what came is no reply; -errno. Never waits. */
int client_take(struct client *c, struct varlink_reply *ret);
/* Wait for one reply. 0, -ETIMEDOUT, or as client_take(). */
int client_wait(struct client *c, uint64_t timeout_usec, struct varlink_reply *ret);
/* client_send() and client_wait(); an error reply is a success here: look at ret->error. */
int client_call(struct client *c, const char *method, const json_t *parameters,
	uint64_t timeout_usec, struct varlink_reply *ret);

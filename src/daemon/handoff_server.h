/* SPDX-License-Identifier: Apache-2.0 */
/* Unix sockets where workers ask for their listening sockets, or say that they are ready, as they
 * would ask a predecessor of their own kind: haproxy's -x, uwsgi's --zerg, einhorn's control
 * socket. One of each kind, beside the control socket; who asks is known by its process. */
#pragma once

#include "daemon/manager.h"

struct handoff_server;

/* The path of that kind's socket, which is bound when it is asked for first. Borrowed. 0 or -errno
 * with a message. */
int handoff_server_path(
	struct manager *m, enum handoff_kind kind, const char **ret_path, struct error *ret_error);
/* Workers of an earlier daemon may still ask: bind again what they were told. */
void handoff_server_resume(struct manager *m);
/* Close them; the paths are removed unless the next daemon binds them again. Returns NULL. */
struct handoff_server *handoff_server_free(struct handoff_server *s);

/* SPDX-License-Identifier: Apache-2.0 */
/* Which control socket: the one asked for, else this user's own daemon, else the system's. */
#pragma once

#include "base/util.h"

/* In this order: path; instance, in $XDG_RUNTIME_DIR if it is there, else in /run; $TENURE_SOCKET;
 * $XDG_RUNTIME_DIR/tenured/control.sock if it is there; /run/tenured/control.sock. path and
 * instance may be NULL; "unix:" before a path is taken off. A new string in *ret, or -ENOMEM. */
int socket_path(const char *path, const char *instance, char **ret);

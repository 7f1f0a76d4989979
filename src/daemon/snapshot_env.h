/* SPDX-License-Identifier: Apache-2.0 */
/* The environment a generation is given. */
#pragma once

#include "base/error.h"
#include "core/config.h"
#include "sys/user.h"

/* A service from a file starts clean: PATH, LANG, HOME, USER, LOGNAME, SHELL, then its env files,
 * then its environment; `tenured run` passes the caller's. TENURE_SERVICE is set. ret: a strv the
 * caller owns. 0 or -errno with a message. */
int snapshot_environment(const struct service_config *c, const struct user *user, char ***ret,
	struct error *ret_error);

/* SPDX-License-Identifier: Apache-2.0 */
/* What workers write to einhorn's control socket: a line for each command, a YAML map with its line
 * breaks and percent signs escaped ("%0A", "%25"), or JSON, which is the same to YAML. */
#pragma once

#include <sys/types.h>

#include "base/util.h"

enum einhorn_kind {
	EINHORN_NOTHING, /* an empty line, or none that could be understood */
	EINHORN_ACK,	 /* worker:ack: the worker is up */
	EINHORN_OTHER,
};
struct einhorn_command {
	enum einhorn_kind kind;
	pid_t pid; /* 0: not said */
};

/* One line, without its newline; it is overwritten. Returns the kind. */
enum einhorn_kind einhorn_parse(char *line, struct einhorn_command *ret);

/* SPDX-License-Identifier: Apache-2.0 */
/* One run of a command that looks at a generation: as the service's user, in its own process group,
 * with no shell and no descriptors of ours. */
#pragma once

#include "daemon/snapshot.h"

struct command_check {
	pid_t pid; /* 0: none runs */
	int pidfd;
};

#define COMMAND_CHECK_NULL ((struct command_check){.pidfd = -1})

/* argv: its first word is looked for as a service's program is. environment: what it gets besides
 * the snapshot's, "NAME=value", NULL-terminated. instance: the manager's, so that it is found
 * should we be killed; "": none. output_fd: borrowed, its standard output and error; -1: /dev/null.
 * 0 or -errno. */
int command_check_begin(struct command_check *c, const struct snapshot *snapshot, char *const *argv,
	char *const *environment, const char *instance, int output_fd);
/* End it and what it started, if anything is left, and reap it. NULL-safe for one that never ran.
 */
void command_check_end(struct command_check *c);

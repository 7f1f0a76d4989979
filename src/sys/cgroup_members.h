/* SPDX-License-Identifier: Apache-2.0 */
/* Who is in a cgroup and those below it: cgroups(7), version 2. */
#pragma once

#include <signal.h>

#include "base/util.h"

/* Send the signal (0: none) to every process in the cgroup at path and in those below it, but not
 * to this one. except: a cgroup right below it that is left alone, or NULL. variable: only to those
 * that were started with an environment variable of this name, or NULL. How many there were, or
 * -errno. */
int cgroup_signal_members(const char *path, const char *except, const char *variable, int signal);

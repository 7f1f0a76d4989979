/* SPDX-License-Identifier: Apache-2.0 */
/* What cgroup.c and cgroup_generation.c share. */
#pragma once

#include "daemon/cgroup.h"

struct cgroups {
	char *path;
	int fd;		      /* the delegated cgroup */
	bool self_moved;      /* we were started in it, and have moved down */
	bool has_controllers; /* some were enabled for those below */
	bool asked, has_reap; /* the unit's ExecStopPost= */
};

/* Let generations have these controllers; those that they cannot have: *ret_missing. 0 or the first
 * error. */
int cgroups_need(struct cgroups *c, unsigned controllers, unsigned *ret_missing);

/* SPDX-License-Identifier: Apache-2.0 */
/* Users and groups by name (or number), through the system's name service: getpwnam_r(3),
 * getgrouplist(3). May wait for a network, so: at start, reload and upgrade, not between. */
#pragma once

#include <sys/types.h>

#include "base/util.h"

struct user {
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* supplementary, gid included */
	size_t n_groups;
	/* A number without an entry: name is the number, home "/", shell "/bin/sh". */
	char *name, *home, *shell;
};
void user_done(struct user *u);
#define _cleanup_user_ _cleanup_(user_done)
/* name: of the user, or a uid; NULL: the process's own (with the groups it has). group: a name or a
 * gid for the place of the user's primary group; NULL: the user's. A name that is a number is first
 * looked up as a name. A uid without an entry has the gid of the same number. -ENOENT: no such
 * user; -ESRCH: no such group. ret: user_done() it. */
int user_lookup(const char *name, const char *group, struct user *ret);
/* -ESRCH: no such group. */
int group_lookup(const char *name, gid_t *ret);
/* "www-data" or the number as text. The caller frees; NULL: out of memory. */
char *user_name_of(uid_t uid);

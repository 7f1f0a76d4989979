/* SPDX-License-Identifier: Apache-2.0 */
/* What a keeper holds: descriptors by name, in the order in which they came. A name may be there
 * more than once. */
#pragma once

#include "sys/spawn.h"

struct keeper_held {
	int fd;
	char *name;
};

struct keeper_store {
	struct keeper_held *list;
	size_t n, capacity;
	size_t n_inherited; /* the first: they came with our own start, and always stay */
	size_t max;	    /* of those that were stored */
};

/* Takes over what $LISTEN_FDS says, CLOEXEC; the variables are left as they are. 0, -ENOMEM, or
 * -EINVAL: they contradict each other. */
int keeper_store_init(struct keeper_store *s, size_t max);
/* From an earlier image of this process: the next of what it held, in its order; the first of them
 * had come with its own start. Takes the fd on success. 0 or -ENOMEM. */
int keeper_store_restore_take(struct keeper_store *s, const char *name, bool inherited, int *fd);
void keeper_store_done(struct keeper_store *s);
/* Takes the fd on success. -ENOSPC: the store is full; -ENOMEM. */
int keeper_store_add_take(struct keeper_store *s, const char *name, int *fd);
/* Close all of that name. How many there were. */
size_t keeper_store_remove(struct keeper_store *s, const char *name);
/* Close everything that was stored. */
void keeper_store_drop(struct keeper_store *s);
/* Is the saved state of a daemon among them, with which the next one can go on? */
bool keeper_store_has_state(const struct keeper_store *s);
/* Where each shall be in the next daemon: from 3 on; first 0, 1 and 2, which are ours. *ret: the
 * caller frees; n + 3 of them. */
int keeper_store_map(const struct keeper_store *s, struct spawn_fd **ret);
/* LISTEN_FDNAMES; the caller frees. NULL: out of memory. */
char *keeper_store_names(const struct keeper_store *s);

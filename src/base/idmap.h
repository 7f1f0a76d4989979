/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers by 64-bit identities (inodes of sockets, the kernel's cookies). Made for many that come
 * while something else must not wait: it grows a small part at a time, so that adding one is quick
 * however many there are. */
#pragma once

#include "base/util.h"

struct idmap_entry {
	uint64_t id; /* 0: a free place */
	uint64_t value;
};

enum { IDMAP_PARTS = 256 };

/* All zero: empty. */
struct idmap {
	struct {
		struct idmap_entry *entries;
		uint32_t n, size; /* size: a power of two */
	} parts[IDMAP_PARTS];
	size_t n;
};

/* Where the value of that id (not 0) is kept, or NULL. Valid until the next idmap_add(). */
uint64_t *idmap_find(const struct idmap *m, uint64_t id);
/* The same; an id (not 0) that is not there yet is added with the value 0. 1: it was added, 0: it
 * was there, -ENOMEM: nothing changed. */
int idmap_add(struct idmap *m, uint64_t id, uint64_t **ret_value);
/* Back to empty. */
void idmap_done(struct idmap *m);

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/idmap.h"

#include <assert.h>

enum { FIRST_SIZE = 8 };

/* Inodes are consecutive numbers; all bits shall depend on all of them. */
static uint64_t mix(uint64_t id)
{
	id ^= id >> 33;
	id *= UINT64_C(0xff51afd7ed558ccd);
	id ^= id >> 33;
	id *= UINT64_C(0xc4ceb9fe1a85ec53);
	return id ^ id >> 33;
}

/* The place of that id, or the free one where it would be. There is always one. */
static struct idmap_entry *place(
	struct idmap_entry *entries, uint32_t size, uint64_t hash, uint64_t id)
{
	uint32_t i = (uint32_t)(hash >> 8) & (size - 1);

	while (entries[i].id != 0 && entries[i].id != id)
		i = (i + 1) & (size - 1);
	return &entries[i];
}

uint64_t *idmap_find(const struct idmap *m, uint64_t id)
{
	uint64_t hash = mix(id);
	size_t part = hash % IDMAP_PARTS;
	struct idmap_entry *e;

	assert(id != 0);
	if (m->parts[part].n == 0)
		return NULL;
	e = place(m->parts[part].entries, m->parts[part].size, hash, id);
	return e->id == 0 ? NULL : &e->value;
}

static int grow(struct idmap *m, size_t part)
{
	uint32_t size = MAX(m->parts[part].size * 2, (uint32_t)FIRST_SIZE);
	struct idmap_entry *entries;

	if (size > UINT32_MAX / 4)
		return -ENOMEM;
	entries = calloc(size, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->parts[part].size; i++) {
		const struct idmap_entry *e = &m->parts[part].entries[i];
		if (e->id != 0)
			*place(entries, size, mix(e->id), e->id) = *e;
	}
	free(m->parts[part].entries);
	m->parts[part].entries = entries;
	m->parts[part].size = size;
	return 0;
}

int idmap_add(struct idmap *m, uint64_t id, uint64_t **ret_value)
{
	uint64_t hash = mix(id), *value = idmap_find(m, id);
	size_t part = hash % IDMAP_PARTS;
	struct idmap_entry *e;

	if (value) {
		*ret_value = value;
		return 0;
	}
	/* At most three quarters full. */
	if (m->parts[part].n + 1 > m->parts[part].size / 4 * 3 && grow(m, part) < 0)
		return -ENOMEM;
	e = place(m->parts[part].entries, m->parts[part].size, hash, id);
	*e = (struct idmap_entry){.id = id};
	m->parts[part].n++;
	m->n++;
	*ret_value = &e->value;
	return 1;
}

void idmap_done(struct idmap *m)
{
	for (size_t i = 0; i < IDMAP_PARTS; i++)
		free(m->parts[i].entries);
	memset(m, 0, sizeof(*m));
}

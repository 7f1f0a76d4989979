/* SPDX-License-Identifier: Apache-2.0 */
/* Structures <-> JSON by tables with one line for each member, so that what is saved is what is
 * loaded. A member that is not saved is in the table too, as NOT_SAVED: a test holds the tables
 * against the structures, byte by byte, so that none can be forgotten. Names are the members'
 * names; a renamed member needs the old name in its table, or a new STATE_FORMAT. */
#pragma once

#include <jansson.h>

#include "base/util.h"

enum state_type {
	STATE_BOOL,	/* bool */
	STATE_UNSIGNED, /* unsigned, or an enumeration; max: the largest one that is valid, or 0 */
	STATE_INT,	/* int, or another signed integer of its size */
	STATE_U64,	/* uint64_t, or another integer of its size */
	STATE_TEXT,	/* char *, owned; any bytes */
	STATE_TEXTS,	/* char **, a strv, owned */
	STATE_BYTES,	/* as they are in memory: of this machine */
	STATE_STRUCT,	/* table */
	STATE_ARRAY,	/* table, count: elements in place; max of them */
	STATE_LIST,	/* table, count: elements behind a pointer, owned; max of them */
	STATE_NOT_SAVED
};

struct state_table;

struct state_field {
	const char *name;
	enum state_type type;
	size_t offset, size;
	const struct state_table *table; /* of one element */
	size_t count, count_size;	 /* of an unsigned or size_t: how many there are */
	uint64_t max;
};

struct state_table {
	const char *what;
	size_t size;
	const struct state_field *fields;
	size_t n_fields;
	bool sparse;	      /* zeros are left out, and stand for what is left out */
	void (*init)(void *); /* defaults of an element of a list, before it is loaded; or NULL */
	bool (*is_valid)(const void *); /* when it was loaded; NULL: it is what its fields are */
};

/* One line of a table; TYPE is defined beside it. */
#define FIELD(kind, member, ...)                                                                   \
	{                                                                                          \
		.name = #member, .type = STATE_##kind, .offset = offsetof(TYPE, member),           \
		.size = sizeof(((TYPE *)NULL)->member), __VA_ARGS__                                \
	}
#define COUNT(member) .count = offsetof(TYPE, member), .count_size = sizeof(((TYPE *)NULL)->member)
#define STATE_TABLE(type, list, ...)                                                               \
	{                                                                                          \
		.what = #type, .size = sizeof(type), .fields = (list),                             \
		.n_fields = ARRAY_SIZE(list), __VA_ARGS__                                          \
	}

/* NULL: out of memory. */
json_t *state_save(const struct state_table *table, const void *structure);
/* Into a structure that is initialized: what is not there keeps its value (of a sparse table: is
 * zero), and what is owned is freed before it is replaced. 0, -ENOMEM or -EBADMSG (then a part may
 * be loaded). */
int state_load(const struct state_table *table, const json_t *value, void *structure);

/* Text of any bytes. NULL, or JSON null: there is none. */
json_t *state_save_text(const char *text);
int state_load_text(const json_t *value, char **ret);

/* Object members. Missing ones are 0, "" or false. */
uint64_t state_get_u64(const json_t *object, const char *key);
unsigned state_get_unsigned(const json_t *object, const char *key);
bool state_get_bool(const json_t *object, const char *key);

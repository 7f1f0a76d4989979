/* SPDX-License-Identifier: Apache-2.0 */
/* From a map of the YAML tree into a structure, by a table with one line for each key. Everything
 * that is wrong is added to the problems, with its place and what would be right, and reading goes
 * on; functions return 0 or -ENOMEM. */
#pragma once

#include "core/config.h"
#include "daemon/yaml_tree.h"

enum {
	CONFIG_LIST_MAX = 4096,	       /* items of one list, or entries of one map */
	CONFIG_COMMAND_MAX = 32 << 10, /* bytes of a command that is written as one string */
};

/* The longest time that can be asked for: a month, in microseconds. */
#define CONFIG_DURATION_MAX (30 * 24 * 3600 * USEC_PER_SEC)

/* What the functions that read need besides the node. */
struct reader {
	struct config *config;
	struct config_problems *problems;
	const char *directory; /* absolute: where the file that is read lies */
	bool main_file;	       /* not an included one */
};

enum key_type {
	KEY_TEXT,     /* char *, not empty */
	KEY_USER,     /* char *: a user's or group's name or number */
	KEY_LIST,     /* char **: a list of texts, or one text */
	KEY_COMMAND,  /* char **: a list of words, or one text that is split */
	KEY_BOOL,     /* bool */
	KEY_NUMBER,   /* unsigned, from min to max */
	KEY_DURATION, /* uint64_t, microseconds, from min to max */
	KEY_SIZE,     /* uint64_t, bytes, from min to max */
	KEY_SHARE,    /* unsigned, hundredths of a percent, from min to max */
	KEY_MODE,     /* unsigned, octal, up to max */
	KEY_CHOICE,   /* unsigned: the index of the word in choices */
	KEY_SECTION,  /* a structure with a table of its own; a scalar stands for its main key */
	KEY_CUSTOM,   /* whatever read() does; offset is applied to its target */
};

struct key_table;

struct key {
	const char *name;
	enum key_type type;
	size_t offset; /* of the value in the structure */
	size_t set;    /* of a bool that becomes true when the key is there; 0: none */
	size_t place;  /* of a struct config_place for the value's place; 0: none */
	uint64_t min, max;
	const char *const *choices;    /* NULL-terminated */
	const struct key_table *table; /* KEY_SECTION */
	int (*read)(
		struct reader *r, const struct key *key, const struct node *value, void *target);
	unsigned section; /* set in the structure's broken flags when the value has an error */
};

struct key_table {
	const char *what; /* where the keys are, for messages: "a service" */
	const struct key *keys;
	size_t n_keys;
	size_t broken;		  /* of an unsigned with the broken sections; 0: none */
	const char *main_key;	  /* what a scalar instead of the map stands for; NULL: no scalar */
	const char *const *later; /* known, but not supported by this version; may be NULL */
};

/* One line of a table. AT(member), defined beside the table, is the member's offset; KEY_WHOLE
 * gives its reader the whole structure. */
#define KEY(key, kind, member, ...)                                                                \
	{                                                                                          \
		.name = (key), .type = (kind), .offset = AT(member), __VA_ARGS__                   \
	}
#define KEY_WHOLE(key, kind, ...)                                                                  \
	{                                                                                          \
		.name = (key), .type = (kind), __VA_ARGS__                                         \
	}
#define KEY_TABLE(where, list, ...)                                                                \
	{                                                                                          \
		.what = (where), .keys = (list), .n_keys = ARRAY_SIZE(list), __VA_ARGS__           \
	}

/* A map's keys into target, by the table. */
int keys_read(
	struct reader *r, const struct node *map, const struct key_table *table, void *target);
/* One value, as if its key had been found in a table. target: the structure. */
int key_read(struct reader *r, const struct key *key, const struct node *value, void *target);

/* The text of a scalar that says something; else NULL, after a problem. Borrowed. */
const char *node_text(struct reader *r, const char *key, const struct node *n);
/* Is it a map? If not, a problem is added. */
bool node_is_map(struct reader *r, const char *key, const struct node *n);
/* `"WORD" is not one of a, b, c; did you mean "b"?` choices: NULL-terminated. */
int report_choice(
	struct reader *r, const char *key, const struct node *value, const char *const *choices);
/* A list, or one scalar that stands for a list of one: *ret_items, *ret_n, borrowed from n (or the
 * address of *n itself). false: neither, or too long; a problem was added. */
bool node_items(struct reader *r, const char *key, const struct node *const *n,
	const struct node *const **ret_items, size_t *ret_n);

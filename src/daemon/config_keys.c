/* SPDX-License-Identifier: Apache-2.0 */
/* Readers for the types of values, and the walk over a table. */
#include "daemon/config_keys.h"

#include "base/parse.h"

#define error_at(r, node, ...) config_problem_add((r)->problems, (node)->place, false, __VA_ARGS__)

static void *at(void *target, size_t offset)
{
	return (char *)target + offset;
}

const char *node_text(struct reader *r, const char *key, const struct node *n)
{
	if (n->kind != NODE_SCALAR) {
		error_at(r, n, "%s: a %s, where one value is needed", key,
			n->kind == NODE_MAP ? "map" : "list");
		return NULL;
	}
	if (node_is_null(n)) {
		error_at(r, n, "%s has no value", key);
		return NULL;
	}
	return n->text;
}

bool node_is_map(struct reader *r, const char *key, const struct node *n)
{
	if (n->kind == NODE_MAP)
		return true;
	if (node_is_null(n))
		error_at(r, n, "%s has no value", key);
	else
		error_at(r, n, "%s: a %s, where a map (KEY: VALUE) is needed", key,
			n->kind == NODE_LIST ? "list" : "single value");
	return false;
}

bool node_items(struct reader *r, const char *key, const struct node *const *n,
	const struct node *const **ret_items, size_t *ret_n)
{
	const struct node *list = *n;

	if (list->kind == NODE_MAP) {
		error_at(r, list, "%s: a map, where a list or one value is needed", key);
		return false;
	}
	if (list->kind == NODE_SCALAR) {
		*ret_items = n;
		*ret_n = 1;
		return true;
	}
	if (list->n > CONFIG_LIST_MAX) {
		error_at(r, list, "%s: %zu items; at most %d are possible", key, list->n,
			CONFIG_LIST_MAX);
		return false;
	}
	*ret_items = (const struct node *const *)list->items;
	*ret_n = list->n;
	return true;
}

static const struct key *find_key(const struct key_table *table, const char *name)
{
	for (size_t i = 0; i < table->n_keys; i++)
		if (streq(table->keys[i].name, name))
			return &table->keys[i];
	return NULL;
}

/* --- words ---------------------------------------------------------------- */

/* "a, b, c". NULL: out of memory. */
static char *join_words(const char *const *words)
{
	_cleanup_free_ char *all = strdup("");

	for (size_t i = 0; all && words[i]; i++) {
		char *longer = xasprintf("%s%s%s", all, i > 0 ? ", " : "", words[i]);

		free(all);
		all = longer;
	}
	return TAKE_PTR(all);
}

int report_choice(
	struct reader *r, const char *key, const struct node *value, const char *const *choices)
{
	const char *near = nearest_word(value->text, choices);
	_cleanup_free_ char *known = join_words(choices);

	if (!known)
		return -ENOMEM;
	if (near)
		error_at(r, value, "%s: \"%s\" is not one of %s; did you mean \"%s\"?", key,
			value->text, known, near);
	else
		error_at(r, value, "%s: \"%s\" is not one of %s", key, value->text, known);
	return 0;
}

/* *ret_near: the key that was likely meant, or NULL. */
static int report_unknown_key(struct reader *r, const struct node *name,
	const struct key_table *table, const char **ret_near)
{
	enum { MAX_KEYS = 64 };
	const char *words[MAX_KEYS + 1] = {NULL};
	_cleanup_free_ char *known = NULL;

	for (size_t i = 0; i < table->n_keys && i < MAX_KEYS; i++)
		words[i] = table->keys[i].name;
	*ret_near = nearest_word(name->text, words);
	if (*ret_near) {
		error_at(r, name, "unknown key \"%s\" in %s; did you mean \"%s\"?", name->text,
			table->what, *ret_near);
		return 0;
	}
	known = join_words(words);
	if (!known)
		return -ENOMEM;
	error_at(r, name, "unknown key \"%s\" in %s; known are %s", name->text, table->what, known);
	return 0;
}

/* --- types ---------------------------------------------------------------- */

static int replace_text(char **target, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*target);
	*target = copy;
	return 0;
}

static int read_text(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);

	if (!text)
		return 0;
	if (!*text) {
		error_at(r, value, "%s is empty", key->name);
		return 0;
	}
	if (key->type == KEY_USER && !config_user_valid(text)) {
		error_at(r, value, "%s: \"%s\" is not the name or number of a user or group",
			key->name, text);
		return 0;
	}
	return replace_text(target, text);
}

static int read_list(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	_cleanup_strv_ char **list = NULL;
	const struct node *const *items;
	size_t n;
	int q;

	if (!node_items(r, key->name, &value, &items, &n))
		return 0;
	list = calloc(1, sizeof(char *)); /* an empty list is not the same as none */
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const char *text = node_text(r, key->name, items[i]);

		if (!text)
			continue;
		if (!*text && key->type != KEY_COMMAND) {
			error_at(r, items[i], "%s: an empty text", key->name);
			continue;
		}
		q = strv_append(&list, text);
		if (q < 0)
			return q;
	}
	strv_free(*(char ***)target);
	*(char ***)target = TAKE_PTR(list);
	return 0;
}

static int split_command(
	struct reader *r, const struct key *key, const struct node *value, char ***target)
{
	_cleanup_strv_ char **words = NULL;
	const char *text = node_text(r, key->name, value);
	size_t position = 0;
	int q;

	if (!text)
		return 0;
	if (strlen(text) > CONFIG_COMMAND_MAX) {
		error_at(r, value, "%s: a string of more than 32K; write a list of words",
			key->name);
		return 0;
	}
	q = split_words(text, &words, &position);
	if (q == -EOPNOTSUPP) {
		error_at(r, value,
			"%s: \"%c\" needs a shell, and none is run; quote it, or write [sh, -c, "
			"\"...\"]",
			key->name, text[position]);
		return 0;
	}
	if (q == -EINVAL) {
		error_at(r, value, "%s: the quote at character %zu is not closed", key->name,
			position + 1);
		return 0;
	}
	if (q < 0)
		return q;
	strv_free(*target);
	*target = TAKE_PTR(words);
	return 0;
}

static int read_command(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	char ***words = target;
	size_t errors = r->problems->n_errors;
	int q;

	if (value->kind == NODE_LIST)
		q = read_list(r, key, value, target);
	else
		q = split_command(r, key, value, words);
	if (q < 0 || r->problems->n_errors > errors)
		return q;
	if (!*words || !(*words)[0])
		error_at(r, value, "%s is empty; write PROGRAM ARGUMENTS", key->name);
	return 0;
}

static int read_bool(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);

	if (text && parse_bool(text, target) < 0)
		error_at(r, value, "%s: \"%s\" is neither true nor false", key->name, text);
	return 0;
}

static int read_number(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);
	int q;

	if (!text)
		return 0;
	q = parse_uint(text, (unsigned)key->min, (unsigned)key->max, target);
	if (q == -ERANGE)
		error_at(r, value, "%s: %s is not between %u and %u", key->name, text,
			(unsigned)key->min, (unsigned)key->max);
	else if (q < 0)
		error_at(r, value, "%s: \"%s\" is not a number", key->name, text);
	return 0;
}

static int report_range(struct reader *r, const struct key *key, const struct node *value,
	char *(*format)(uint64_t))
{
	_cleanup_free_ char *min = format(key->min), *max = format(key->max);

	if (!min || !max)
		return -ENOMEM;
	error_at(r, value, "%s: \"%s\" is not between %s and %s", key->name, value->text, min, max);
	return 0;
}

static int read_duration(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);
	uint64_t usec = 0;
	int q;

	if (!text)
		return 0;
	q = parse_duration(text, &usec);
	if (q == -ERANGE || (q == 0 && (usec < key->min || usec > key->max)))
		return report_range(r, key, value, format_duration);
	if (q < 0)
		error_at(r, value,
			"%s: \"%s\" is not a duration; write a number and a unit, such as 250ms, "
			"30s, 10m or 24h",
			key->name, text);
	else
		*(uint64_t *)target = usec;
	return 0;
}

static int read_size(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);
	uint64_t bytes = 0;
	int q;

	if (!text)
		return 0;
	q = parse_size(text, &bytes);
	if (q == -ERANGE || (q == 0 && (bytes < key->min || bytes > key->max)))
		return report_range(r, key, value, format_size);
	if (q < 0)
		error_at(r, value,
			"%s: \"%s\" is not a size; write a number of bytes, or with K, M or G, "
			"such as 64K",
			key->name, text);
	else
		*(uint64_t *)target = bytes;
	return 0;
}

static int read_share(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);
	unsigned share = 0;
	int q;

	if (!text)
		return 0;
	q = parse_percent(text, &share);
	if (q == -ERANGE || (q == 0 && (share < key->min || share > key->max)))
		error_at(r, value, "%s: \"%s\" is not between 0.01%% and 100%%", key->name, text);
	else if (q < 0)
		error_at(r, value, "%s: \"%s\" is not a percentage; write 5%% or 0.1%%", key->name,
			text);
	else
		*(unsigned *)target = share;
	return 0;
}

static int read_mode(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);
	unsigned mode = 0;
	int q;

	if (!text)
		return 0;
	q = parse_mode(text, &mode);
	if (q < 0 || mode > key->max)
		error_at(r, value, "%s: \"%s\" is not a file mode; write it in octal, such as 0660",
			key->name, text);
	else
		*(unsigned *)target = mode;
	return 0;
}

static int read_choice(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);

	if (!text)
		return 0;
	for (unsigned i = 0; key->choices[i]; i++) {
		if (streq(key->choices[i], text)) {
			*(unsigned *)target = i; /* enumerations are unsigned int here */
			return 0;
		}
	}
	return report_choice(r, key->name, value, key->choices);
}

static int read_section(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const struct key_table *table = key->table;

	if (value->kind == NODE_SCALAR && table->main_key && !node_is_null(value)) {
		const struct key *found = find_key(table, table->main_key);

		if (found) {
			struct key main_key = *found;

			main_key.name = key->name; /* what the user wrote */
			return key_read(r, &main_key, value, target);
		}
	}
	if (!node_is_map(r, key->name, value))
		return 0;
	return keys_read(r, value, table, target);
}

static int read_value(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	switch (key->type) {
	case KEY_TEXT:
	case KEY_USER:
		return read_text(r, key, value, target);
	case KEY_LIST:
		return read_list(r, key, value, target);
	case KEY_COMMAND:
		return read_command(r, key, value, target);
	case KEY_BOOL:
		return read_bool(r, key, value, target);
	case KEY_NUMBER:
		return read_number(r, key, value, target);
	case KEY_DURATION:
		return read_duration(r, key, value, target);
	case KEY_SIZE:
		return read_size(r, key, value, target);
	case KEY_SHARE:
		return read_share(r, key, value, target);
	case KEY_MODE:
		return read_mode(r, key, value, target);
	case KEY_CHOICE:
		return read_choice(r, key, value, target);
	case KEY_SECTION:
		return read_section(r, key, value, target);
	case KEY_CUSTOM:
		return key->read(r, key, value, target);
	}
	return 0;
}

int key_read(struct reader *r, const struct key *key, const struct node *value, void *target)
{
	if (key->place > 0)
		*(struct config_place *)at(target, key->place) = value->place;
	if (key->set > 0)
		*(bool *)at(target, key->set) = true;
	return read_value(r, key, value, at(target, key->offset));
}

/* --- tables --------------------------------------------------------------- */

static void mark_broken(const struct key_table *table, const struct key *key, void *target)
{
	if (table->broken > 0)
		*(unsigned *)at(target, table->broken) |= key->section;
}

static int key_unknown(
	struct reader *r, const struct node *name, const struct key_table *table, void *target)
{
	const char *near = NULL;
	int q;

	for (size_t i = 0; table->later && table->later[i]; i++) {
		if (!streq(table->later[i], name->text))
			continue;
		error_at(r, name, "\"%s\" is not supported by this version", name->text);
		return 0;
	}
	q = report_unknown_key(r, name, table, &near);
	/* "comand" was reported: that there is no "command" would be the same news. */
	if (q == 0 && near)
		mark_broken(table, find_key(table, near), target);
	return q;
}

int keys_read(struct reader *r, const struct node *map, const struct key_table *table, void *target)
{
	for (size_t i = 0; i < map->n; i += 2) {
		const struct node *name = map->items[i];
		const struct key *key = find_key(table, name->text);
		size_t errors = r->problems->n_errors;
		int q;

		if (key)
			q = key_read(r, key, map->items[i + 1], target);
		else
			q = key_unknown(r, name, table, target);
		if (q < 0)
			return q;
		if (key && r->problems->n_errors > errors)
			mark_broken(table, key, target);
	}
	return 0;
}

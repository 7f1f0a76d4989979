/* SPDX-License-Identifier: Apache-2.0 */
/* Events are taken one at a time and the depth is checked at each, because libyaml's own loader
 * builds whatever it is given; nothing here recurses. An alias adds the node it names a second time
 * to the tree, and its weight with it: so a few lines that would multiply to gigabytes are refused
 * while they are read. */
#include "daemon/yaml_tree.h"

#include <yaml.h>

enum { NODE_WEIGHT = 16, MERGE_WORK_MAX = 20000000 };

struct anchor {
	char *name;
	struct node *node;
};

struct builder {
	yaml_parser_t parser;
	const char *file;
	const char *data;
	size_t len;
	struct config_problems *problems;
	struct yaml_tree tree;
	struct node *stack[YAML_DEPTH_MAX];
	size_t depth;
	struct anchor anchors[YAML_ANCHORS_MAX];
	size_t n_anchors;
	unsigned n_documents;
	uint64_t merge_work;
};

void yaml_tree_done(struct yaml_tree *t)
{
	struct node *next;

	for (struct node *n = t->all; n; n = next) {
		next = n->next;
		free(n->text);
		free(n->items);
		free(n);
	}
	*t = (struct yaml_tree){0};
}

struct node *node_get(const struct node *map, const char *key)
{
	for (size_t i = 0; map->kind == NODE_MAP && i + 1 < map->n; i += 2)
		if (streq(map->items[i]->text, key))
			return map->items[i + 1];
	return NULL;
}

bool node_is_null(const struct node *n)
{
	static const char *const words[] = {"", "~", "null", "Null", "NULL"};

	if (n->kind != NODE_SCALAR || !n->plain)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (streq(n->text, words[i]))
			return true;
	return false;
}

/* --- problems ------------------------------------------------------------- */

static struct config_place place_at(const struct builder *b, size_t line, size_t column)
{
	return (struct config_place){
		.file = b->file,
		.line = (unsigned)line + 1,
		.column = (unsigned)column + 1,
	};
}

static struct config_place place_of(const struct builder *b, const yaml_mark_t *mark)
{
	return place_at(b, mark->line, mark->column);
}

static int refuse(struct builder *b, struct config_place place, const char *message)
{
	config_problem_add(b->problems, place, false, "%s", message);
	return -EBADMSG;
}

/* libyaml tells an encoding error's byte offset only. */
static struct config_place place_of_offset(const struct builder *b, size_t offset)
{
	size_t line = 0, start = 0;

	for (size_t i = 0; i < MIN(offset, b->len); i++) {
		if (b->data[i] == '\n') {
			line++;
			start = i + 1;
		}
	}
	return place_at(b, line, MIN(offset, b->len) - start);
}

static int report_syntax(struct builder *b)
{
	const yaml_parser_t *p = &b->parser;
	const char *problem = p->problem ? p->problem : "not YAML";
	struct config_place place = place_of(b, &p->problem_mark);
	const char *hint = "";

	if (p->error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	if (p->error == YAML_READER_ERROR) {
		config_problem_add(b->problems, place_of_offset(b, p->problem_offset), false,
			"not UTF-8 text: %s", problem);
		return -EBADMSG;
	}
	if (p->problem_mark.index < b->len && b->data[p->problem_mark.index] == '\t')
		hint = "; indent with spaces, YAML does not take tabs";
	if (p->context && p->context_mark.line != p->problem_mark.line)
		config_problem_add(b->problems, place, false, "%s, %s that began in line %zu%s",
			problem, p->context, p->context_mark.line + 1, hint);
	else if (p->context)
		config_problem_add(
			b->problems, place, false, "%s, %s%s", problem, p->context, hint);
	else
		config_problem_add(b->problems, place, false, "%s%s", problem, hint);
	return -EBADMSG;
}

/* --- nodes ---------------------------------------------------------------- */

static int node_new(
	struct builder *b, enum node_kind kind, const yaml_event_t *event, struct node **ret)
{
	const struct config_place place = place_of(b, &event->start_mark);
	struct node *n;

	if (b->tree.n_nodes >= YAML_NODES_MAX)
		return refuse(b, place, "the file has too many values");
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->kind = kind;
	n->place = place;
	n->weight = NODE_WEIGHT;
	n->next = b->tree.all;
	b->tree.all = n;
	b->tree.n_nodes++;
	*ret = n;
	return 0;
}

static int node_append(struct node *parent, struct node *child)
{
	int r = array_reserve(
		&parent->items, &parent->capacity, parent->n + 1, sizeof(struct node *));

	if (r < 0)
		return r;
	parent->items[parent->n++] = child;
	return 0;
}

static int add_weight(
	struct builder *b, struct node *parent, const struct node *child, struct config_place place)
{
	parent->weight += child->weight;
	if (parent->weight > YAML_WEIGHT_MAX)
		return refuse(b, place, "the file is too large with its aliases written out");
	return 0;
}

/* Into the list or map that is being read, or as the root. An open child's weight is not known yet;
 * it is added when it closes. */
static int attach(struct builder *b, struct node *child, struct config_place place)
{
	struct node *parent;
	int r;

	if (b->depth == 0) {
		b->tree.root = child;
		return 0;
	}
	parent = b->stack[b->depth - 1];
	r = node_append(parent, child);
	if (r < 0 || child->open)
		return r;
	return add_weight(b, parent, child, place);
}

static int check_tag(struct builder *b, const yaml_char_t *tag, struct config_place place)
{
	const char *s = (const char *)tag;

	if (!s || startswith(s, "tag:yaml.org,2002:") || streq(s, "!"))
		return 0;
	config_problem_add(
		b->problems, place, false, "the tag \"%.100s\" means nothing here; remove it", s);
	return -EBADMSG;
}

static int add_anchor(struct builder *b, const yaml_char_t *name, struct node *n)
{
	char *copy;

	if (!name)
		return 0;
	if (b->n_anchors >= YAML_ANCHORS_MAX)
		return refuse(b, n->place, "the file has too many anchors");
	copy = strdup((const char *)name);
	if (!copy)
		return -ENOMEM;
	b->anchors[b->n_anchors++] = (struct anchor){.name = copy, .node = n};
	return 0;
}

/* --- maps: duplicates and merges ------------------------------------------ */

static int key_compare(const void *a, const void *b)
{
	const struct node *x = *(struct node *const *)a, *y = *(struct node *const *)b;
	int c = strcmp(x->text, y->text);

	if (c != 0)
		return c;
	if (x->place.line != y->place.line)
		return x->place.line < y->place.line ? -1 : 1;
	return x->place.column < y->place.column ? -1 : x->place.column > y->place.column;
}

static void drop_marked(struct node *map)
{
	size_t n = 0;

	for (size_t i = 0; i < map->n; i += 2) {
		if (map->items[i]->duplicate)
			continue;
		map->items[n++] = map->items[i];
		map->items[n++] = map->items[i + 1];
	}
	map->n = n;
}

/* Sorted, so that a map of many thousand keys takes no quadratic time. The later of two leaves the
 * map. */
static int drop_duplicates(struct builder *b, struct node *map)
{
	size_t n = map->n / 2;
	_cleanup_free_ struct node **keys = NULL;

	if (n < 2)
		return 0;
	keys = calloc(n, sizeof(struct node *));
	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		keys[i] = map->items[2 * i];
	qsort(keys, n, sizeof(struct node *), key_compare);
	for (size_t i = 1; i < n; i++) {
		if (!streq(keys[i]->text, keys[i - 1]->text))
			continue;
		config_problem_add(b->problems, keys[i]->place, false,
			"the key \"%s\" is already in line %u", keys[i]->text,
			keys[i - 1]->place.line);
		keys[i]->duplicate = true;
	}
	drop_marked(map);
	return 0;
}

/* Keys that are not text leave the map, after a problem: nobody can look them up. */
static void drop_bad_keys(struct builder *b, struct node *map)
{
	size_t n = 0;

	for (size_t i = 0; i + 1 < map->n; i += 2) {
		if (map->items[i]->kind != NODE_SCALAR) {
			config_problem_add(b->problems, map->items[i]->place, false,
				"a key must be a word, this is a list or a map; write \"{...}\" in "
				"quotes");
			continue;
		}
		map->items[n] = map->items[i];
		map->items[n + 1] = map->items[i + 1];
		n += 2;
	}
	map->n = n;
}

static int merge_map(
	struct builder *b, struct node *map, const struct node *from, struct config_place place)
{
	int r;

	if (from->kind != NODE_MAP)
		return refuse(b, place, "\"<<\" takes a map, or a list of maps");
	for (size_t i = 0; i < from->n; i += 2) {
		b->merge_work += map->n;
		if (b->merge_work > MERGE_WORK_MAX)
			return refuse(
				b, place, "the file is too large with its merges written out");
		if (node_get(map, from->items[i]->text))
			continue;
		r = node_append(map, from->items[i]);
		if (r == 0)
			r = node_append(map, from->items[i + 1]);
		if (r == 0)
			r = add_weight(b, map, from->items[i + 1], place);
		if (r < 0)
			return r;
	}
	return 0;
}

static int merge_value(
	struct builder *b, struct node *map, const struct node *value, struct config_place place)
{
	int r;

	if (value->kind != NODE_LIST)
		return merge_map(b, map, value, place);
	for (size_t i = 0; i < value->n; i++) {
		r = merge_map(b, map, value->items[i], place);
		if (r < 0)
			return r;
	}
	return 0;
}

static int close_map(struct builder *b, struct node *map)
{
	struct node *key, *value;
	size_t i = 0;
	int r;

	drop_bad_keys(b, map);
	r = drop_duplicates(b, map);
	if (r < 0)
		return r;
	while (i < map->n && !(map->items[i]->plain && streq(map->items[i]->text, "<<")))
		i += 2;
	if (i >= map->n)
		return 0;
	key = map->items[i];
	value = map->items[i + 1];
	memmove(&map->items[i], &map->items[i + 2], (map->n - i - 2) * sizeof(struct node *));
	map->n -= 2;
	return merge_value(b, map, value, key->place);
}

/* --- events --------------------------------------------------------------- */

static int on_scalar(struct builder *b, const yaml_event_t *event)
{
	const char *value = (const char *)event->data.scalar.value;
	size_t len = event->data.scalar.length;
	struct node *n;
	int r = node_new(b, NODE_SCALAR, event, &n);

	if (r < 0)
		return r;
	if (memchr(value, '\0', len))
		return refuse(b, n->place, "the text contains a NUL byte");
	if (len >= YAML_TEXT_MAX)
		return refuse(b, n->place, "the text is longer than 128K");
	n->text = strndup(value, len);
	if (!n->text)
		return -ENOMEM;
	n->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	n->weight += len;
	r = check_tag(b, event->data.scalar.tag, n->place);
	if (r == 0)
		r = add_anchor(b, event->data.scalar.anchor, n);
	if (r == 0)
		r = attach(b, n, n->place);
	return r;
}

static int on_start(struct builder *b, const yaml_event_t *event)
{
	bool is_map = event->type == YAML_MAPPING_START_EVENT;
	struct node *n;
	int r = node_new(b, is_map ? NODE_MAP : NODE_LIST, event, &n);

	if (r < 0)
		return r;
	if (b->depth >= YAML_DEPTH_MAX)
		return refuse(b, n->place, "nested too deeply");
	r = check_tag(b, is_map ? event->data.mapping_start.tag : event->data.sequence_start.tag,
		n->place);
	if (r < 0)
		return r;
	r = add_anchor(b,
		is_map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor, n);
	if (r < 0)
		return r;
	n->open = true;
	r = attach(b, n, n->place);
	if (r == 0)
		b->stack[b->depth++] = n;
	return r;
}

static int on_end(struct builder *b)
{
	struct node *n = b->stack[--b->depth];
	int r = 0;

	n->open = false;
	if (n->kind == NODE_MAP)
		r = close_map(b, n);
	if (r == 0 && b->depth > 0)
		r = add_weight(b, b->stack[b->depth - 1], n, n->place);
	return r;
}

static int on_alias(struct builder *b, const yaml_event_t *event)
{
	const char *name = (const char *)event->data.alias.anchor;
	const struct config_place place = place_of(b, &event->start_mark);
	struct node *n = NULL;

	for (size_t i = b->n_anchors; i-- > 0 && !n;)
		if (streq(b->anchors[i].name, name))
			n = b->anchors[i].node;
	if (!n) {
		config_problem_add(b->problems, place, false,
			"there is no anchor \"&%.100s\" before this", name);
		return -EBADMSG;
	}
	if (n->open)
		return refuse(b, place, "the alias stands inside of what it names");
	return attach(b, n, place);
}

/* Returns 1 at the end of the stream. */
static int on_event(struct builder *b, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_DOCUMENT_END_EVENT:
		return 0;
	case YAML_STREAM_END_EVENT:
		return 1;
	case YAML_DOCUMENT_START_EVENT:
		if (b->n_documents++ > 0)
			return refuse(b, place_of(b, &event->start_mark),
				"a second document (\"---\") in one file; use one file for each, "
				"and include:");
		return 0;
	case YAML_ALIAS_EVENT:
		return on_alias(b, event);
	case YAML_SCALAR_EVENT:
		return on_scalar(b, event);
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		return on_start(b, event);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		return on_end(b);
	}
	return 0;
}

static int build(struct builder *b)
{
	yaml_event_t event;
	int r;

	do {
		if (!yaml_parser_parse(&b->parser, &event))
			return report_syntax(b);
		r = on_event(b, &event);
		yaml_event_delete(&event);
	} while (r == 0);
	return r < 0 ? r : 0;
}

int yaml_tree_read(const char *file, const void *data, size_t len, struct yaml_tree *ret,
	struct config_problems *problems)
{
	_cleanup_free_ struct builder *b = calloc(1, sizeof(*b));
	int r;

	if (!b || !yaml_parser_initialize(&b->parser))
		return -ENOMEM;
	b->file = file;
	b->data = data;
	b->len = len;
	b->problems = problems;
	yaml_parser_set_encoding(&b->parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&b->parser, data, len);
	r = build(b);
	yaml_parser_delete(&b->parser);
	for (size_t i = 0; i < b->n_anchors; i++)
		free(b->anchors[i].name);
	if (r < 0)
		yaml_tree_done(&b->tree);
	else
		*ret = b->tree;
	return r;
}

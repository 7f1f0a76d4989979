/* SPDX-License-Identifier: Apache-2.0 */
/* A recursive descent over the grammar of varlink.org. Everything it makes lives as long as the
 * interface and goes with it, so all of it comes from one arena and nothing is freed by itself. */
#include "varlink/idl.h"

#include <stdarg.h>

enum { ARENA_BLOCK = 4096, NESTING_MAX = 16, NAME_LENGTH_MAX = 255 };

struct varlink_arena {
	struct varlink_arena *next;
	size_t used, size;
	max_align_t data[];
};

static void *arena_allocate(struct varlink_arena **arena, size_t size)
{
	struct varlink_arena *block = *arena;

	size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
	if (!block || block->size - block->used < size) {
		size_t capacity = MAX(size, (size_t)ARENA_BLOCK - sizeof(*block));

		block = calloc(1, sizeof(*block) + capacity);
		if (!block)
			return NULL;
		block->size = capacity;
		block->next = *arena;
		*arena = block;
	}
	void *p = (char *)block->data + block->used;
	block->used += size;
	return p;
}

static void arena_free(struct varlink_arena *arena)
{
	while (arena) {
		struct varlink_arena *next = arena->next;

		free(arena);
		arena = next;
	}
}

struct varlink_interface *varlink_interface_free(struct varlink_interface *interface)
{
	if (interface) {
		arena_free(interface->arena);
		free(interface);
	}
	return NULL;
}

struct parser {
	struct varlink_interface *interface;
	const char *p;
	unsigned line;
	unsigned depth;
	struct varlink_type *named; /* those to resolve at the end, by way of element */
	struct error *error;
};

static int _printf_(2, 3) fail(struct parser *parser, const char *format, ...)
{
	_cleanup_free_ char *what = NULL;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&what, format, ap) < 0)
		what = NULL;
	va_end(ap);
	if (!what)
		return error_set(parser->error, -ENOMEM, "out of memory");
	return error_set(parser->error, -EINVAL, "line %u: %s", parser->line, what);
}

static void *allocate(struct parser *parser, size_t size)
{
	void *p = arena_allocate(&parser->interface->arena, size);

	if (!p)
		(void)error_set(parser->error, -ENOMEM, "out of memory");
	return p;
}

static void skip_comment(struct parser *parser)
{
	while (*parser->p && *parser->p != '\n')
		parser->p++;
}

/* Blanks, line ends and comments may stand between any two words. */
static void skip(struct parser *parser)
{
	for (;;) {
		if (*parser->p == '#') {
			skip_comment(parser);
		} else if (*parser->p == '\n') {
			parser->line++;
			parser->p++;
		} else if (*parser->p == ' ' || *parser->p == '\t' || *parser->p == '\r') {
			parser->p++;
		} else {
			return;
		}
	}
}

/* A member ends with its line. */
static int expect_line_end(struct parser *parser)
{
	while (*parser->p == ' ' || *parser->p == '\t' || *parser->p == '\r')
		parser->p++;
	if (*parser->p == '\0' || *parser->p == '\n' || *parser->p == '#')
		return 0;
	return fail(parser, "a line end is expected, not \"%.10s\"", parser->p);
}

static bool accept(struct parser *parser, const char *word)
{
	skip(parser);
	const char *end = startswith(parser->p, word);

	if (end)
		parser->p = end;
	return end;
}

static int expect(struct parser *parser, const char *word)
{
	if (accept(parser, word))
		return 0;
	return fail(parser, "\"%s\" is expected, not \"%.10s\"", word, parser->p);
}

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}
static bool is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}
static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}
static bool is_alnum(char c)
{
	return is_lower(c) || is_upper(c) || is_digit(c);
}

static int copy_name(struct parser *parser, size_t len, const char **ret)
{
	char *name = allocate(parser, len + 1);

	if (!name)
		return -ENOMEM;
	memcpy(name, parser->p, len);
	name[len] = '\0';
	parser->p += len;
	*ret = name;
	return 0;
}

/* Of a field or of an enum's value: [A-Za-z](_?[A-Za-z0-9])* */
static int parse_field_name(struct parser *parser, const char **ret)
{
	size_t n = 0;

	skip(parser);
	const char *p = parser->p;
	if (is_lower(p[0]) || is_upper(p[0]))
		for (n = 1; is_alnum(p[n]) || (p[n] == '_' && is_alnum(p[n + 1])); n++)
			;
	if (n == 0 || n > NAME_LENGTH_MAX || p[n] == '_')
		return fail(parser, "a field's name is expected, not \"%.10s\"", p);
	return copy_name(parser, n, ret);
}

/* Of a type, method or error: [A-Z][A-Za-z0-9]* */
static int parse_member_name(struct parser *parser, const char **ret)
{
	size_t n = 0;

	skip(parser);
	const char *p = parser->p;
	if (is_upper(p[0]))
		for (n = 1; is_alnum(p[n]); n++)
			;
	if (n == 0 || n > NAME_LENGTH_MAX || p[n] == '_')
		return fail(parser,
			"a name that begins with a capital letter is expected, not \"%.10s\"", p);
	return copy_name(parser, n, ret);
}

/* [A-Za-z](-*[A-Za-z0-9])*(\.[A-Za-z0-9](-*[A-Za-z0-9])*)+ */
static int parse_interface_name(struct parser *parser, const char **ret)
{
	size_t n = 0, dots = 0;
	bool good;

	skip(parser);
	const char *p = parser->p;
	for (; is_alnum(p[n]) || p[n] == '-' || p[n] == '.'; n++)
		if (p[n] == '.')
			dots++;
	good = n > 0 && n <= NAME_LENGTH_MAX && dots > 0 && !is_digit(p[0]);
	for (size_t i = 0; good && i < n; i++)
		if (p[i] == '.' || (p[i] == '-' && (i == 0 || p[i - 1] == '.' || p[i + 1] == '.')))
			good = p[i] == '.' && i > 0 && i + 1 < n && p[i - 1] != '.';
	if (!good || p[n - 1] == '-')
		return fail(parser, "an interface's name is expected, not \"%.10s\"", p);
	return copy_name(parser, n, ret);
}

static int parse_type(struct parser *parser, const struct varlink_type **ret);

static bool has_field(const struct varlink_field *fields, const char *name)
{
	for (; fields; fields = fields->next)
		if (streq(fields->name, name))
			return true;
	return false;
}

/* What stands in parentheses: "name: type, ..." is a struct, "name, ..." an enum; which of them,
 * the first name tells. */
static int parse_fields(struct parser *parser, bool allow_enum, struct varlink_type *type)
{
	const struct varlink_field **end = &type->fields;

	type->kind = VARLINK_STRUCT;
	if (accept(parser, ")"))
		return 0;
	do {
		struct varlink_field *field = allocate(parser, sizeof(*field));
		if (!field)
			return -ENOMEM;
		int r = parse_field_name(parser, &field->name);
		if (r < 0)
			return r;
		if (has_field(type->fields, field->name))
			return fail(parser, "\"%s\" is there twice", field->name);

		bool typed = accept(parser, ":");
		if (!type->fields && !typed && allow_enum)
			type->kind = VARLINK_ENUM;
		if (typed != (type->kind == VARLINK_STRUCT))
			return fail(parser, "\"%s\" should %s a type", field->name,
				typed ? "not have" : "have");
		r = typed ? parse_type(parser, &field->type) : 0;
		if (r < 0)
			return r;
		*end = field;
		end = &field->next;
	} while (accept(parser, ","));
	return expect(parser, ")");
}

static int new_type(struct parser *parser, struct varlink_type **ret)
{
	struct varlink_type *type = allocate(parser, sizeof(*type));

	if (!type)
		return -ENOMEM;
	type->line = parser->line;
	*ret = type;
	return 0;
}

static bool accept_plain(struct parser *parser, enum varlink_kind *ret)
{
	static const struct {
		const char *word;
		enum varlink_kind kind;
	} plain[] = {
		{"bool",	 VARLINK_BOOL  },
		{"int",	VARLINK_INT   },
		{"float",  VARLINK_FLOAT },
		{"string", VARLINK_STRING},
		{"object", VARLINK_OBJECT},
	};

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		const char *end = startswith(parser->p, plain[i].word);

		if (end && !is_alnum(*end) && *end != '_') {
			parser->p = end;
			*ret = plain[i].kind;
			return true;
		}
	}
	return false;
}

static int parse_bare_type(struct parser *parser, struct varlink_type *type)
{
	skip(parser);
	if (accept_plain(parser, &type->kind))
		return 0;
	if (accept(parser, "[]")) {
		type->kind = VARLINK_ARRAY;
		return parse_type(parser, &type->element);
	}
	if (accept(parser, "[string]")) {
		type->kind = VARLINK_DICT;
		return parse_type(parser, &type->element);
	}
	if (accept(parser, "("))
		return parse_fields(parser, true, type);

	type->kind = VARLINK_NAMED;
	int r = parse_member_name(parser, &type->name);
	if (r < 0)
		return r;
	type->element = parser->named;
	parser->named = type;
	return 0;
}

static int parse_type(struct parser *parser, const struct varlink_type **ret)
{
	struct varlink_type *type;

	int r = new_type(parser, &type);
	if (r < 0)
		return r;
	if (++parser->depth > NESTING_MAX)
		return fail(parser, "types are nested too deep");
	type->nullable = accept(parser, "?");
	r = parse_bare_type(parser, type);
	if (r < 0)
		return r;
	parser->depth--;
	*ret = type;
	return 0;
}

static int parse_struct(struct parser *parser, bool allow_enum, const struct varlink_type **ret)
{
	struct varlink_type *type;

	int r = expect(parser, "(");
	if (r < 0)
		return r;
	r = new_type(parser, &type);
	if (r < 0)
		return r;
	r = parse_fields(parser, allow_enum, type);
	if (r < 0)
		return r;
	*ret = type;
	return 0;
}

static bool accept_keyword(struct parser *parser, const char *word)
{
	skip(parser);
	const char *end = startswith(parser->p, word);

	if (!end || (*end != ' ' && *end != '\t'))
		return false;
	parser->p = end;
	return true;
}

static int parse_member(struct parser *parser, struct varlink_member *member)
{
	if (accept_keyword(parser, "type"))
		member->kind = VARLINK_TYPE;
	else if (accept_keyword(parser, "method"))
		member->kind = VARLINK_METHOD;
	else if (accept_keyword(parser, "error"))
		member->kind = VARLINK_ERROR;
	else
		return fail(parser, "type, method or error is expected, not \"%.10s\"", parser->p);

	int r = parse_member_name(parser, &member->name);
	if (r < 0)
		return r;
	for (const struct varlink_member *m = parser->interface->members; m; m = m->next)
		if (streq(m->name, member->name))
			return fail(parser, "\"%s\" is there twice", member->name);
	r = parse_struct(parser, member->kind == VARLINK_TYPE, &member->input);
	if (r < 0)
		return r;
	if (member->kind == VARLINK_METHOD) {
		r = expect(parser, "->");
		if (r < 0)
			return r;
		r = parse_struct(parser, false, &member->output);
		if (r < 0)
			return r;
	}
	return expect_line_end(parser);
}

static int resolve(struct parser *parser)
{
	for (struct varlink_type *type = parser->named, *next; type; type = next) {
		const struct varlink_member *member =
			varlink_interface_find(parser->interface, VARLINK_TYPE, type->name);

		if (!member) {
			parser->line = type->line;
			return fail(parser, "there is no type \"%s\"", type->name);
		}
		next = (struct varlink_type *)(uintptr_t)type->element;
		type->element = member->input;
	}
	return 0;
}

static int parse_interface(struct parser *parser)
{
	const struct varlink_member **end = &parser->interface->members;

	if (!accept_keyword(parser, "interface"))
		return fail(parser, "the text must begin with: interface NAME");
	int r = parse_interface_name(parser, &parser->interface->name);
	if (r < 0)
		return r;
	r = expect_line_end(parser);
	if (r < 0)
		return r;
	for (skip(parser); *parser->p; skip(parser)) {
		struct varlink_member *member = allocate(parser, sizeof(*member));

		if (!member)
			return -ENOMEM;
		r = parse_member(parser, member);
		if (r < 0)
			return r;
		*end = member;
		end = &member->next;
	}
	return resolve(parser);
}

int varlink_interface_parse(
	const char *text, struct varlink_interface **ret, struct error *ret_error)
{
	_cleanup_varlink_interface_ struct varlink_interface *interface =
		calloc(1, sizeof(*interface));

	if (!interface)
		return error_set(ret_error, -ENOMEM, "out of memory");
	interface->text = text;

	struct parser parser = {.interface = interface, .p = text, .line = 1, .error = ret_error};
	int r = parse_interface(&parser);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(interface);
	return 0;
}

const struct varlink_member *varlink_interface_find(
	const struct varlink_interface *interface, enum varlink_member_kind kind, const char *name)
{
	for (const struct varlink_member *m = interface->members; m; m = m->next)
		if (m->kind == kind && streq(m->name, name))
			return m;
	return NULL;
}

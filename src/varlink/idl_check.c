/* SPDX-License-Identifier: Apache-2.0 */
/* JSON held against a type. The depth of the recursion is that of the JSON, which its reader has
 * bounded. */
#include "varlink/idl.h"

#include <stdarg.h>

struct path {
	char *text;
	size_t len;
};

/* Go one step down; the caller goes back up by restoring len. A path that is too long is cut: it is
 * for people. */
static void _printf_(2, 3) descend(struct path *path, const char *format, ...)
{
	size_t room = VARLINK_PATH_MAX - path->len;
	va_list ap;

	va_start(ap, format);
	int n = vsnprintf(path->text + path->len, room, format, ap);
	va_end(ap);
	if (n > 0)
		path->len += MIN((size_t)n, room - 1);
}

static bool accepts(const struct varlink_type *type, const json_t *json, struct path *path);

static void descend_field(struct path *path, const char *name)
{
	descend(path, "%s%s", path->len > 0 ? "." : "", name);
}

static bool accepts_struct(const struct varlink_type *type, const json_t *json, struct path *path)
{
	size_t len = path->len, n_known = 0;

	for (const struct varlink_field *f = type->fields; f; f = f->next) {
		const json_t *value = json_object_get(json, f->name);

		if (value)
			n_known++;
		descend_field(path, f->name);
		if (!accepts(f->type, value, path))
			return false;
		path->len = len;
		path->text[len] = '\0';
	}
	if (n_known == json_object_size(json))
		return true;

	const char *key;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)json, key, value)
	{
		const struct varlink_field *f = type->fields;

		while (f && !streq(f->name, key))
			f = f->next;
		if (!f) {
			descend_field(path, key);
			break;
		}
	}
	return false;
}

static bool accepts_array(const struct varlink_type *type, const json_t *json, struct path *path)
{
	size_t len = path->len;

	for (size_t i = 0; i < json_array_size(json); i++) {
		descend(path, "[%zu]", i);
		if (!accepts(type->element, json_array_get(json, i), path))
			return false;
		path->len = len;
		path->text[len] = '\0';
	}
	return true;
}

static bool accepts_dict(const struct varlink_type *type, const json_t *json, struct path *path)
{
	size_t len = path->len;
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)json, key, value)
	{
		descend_field(path, key);
		if (!accepts(type->element, value, path))
			return false;
		path->len = len;
		path->text[len] = '\0';
	}
	return true;
}

static bool accepts_enum(const struct varlink_type *type, const json_t *json)
{
	for (const struct varlink_field *f = type->fields; f; f = f->next)
		if (streq(f->name, json_string_value(json)))
			return true;
	return false;
}

static bool accepts(const struct varlink_type *type, const json_t *json, struct path *path)
{
	if (!json || json_is_null(json))
		return type->nullable;
	switch (type->kind) {
	case VARLINK_BOOL:
		return json_is_boolean(json);
	case VARLINK_INT:
		return json_is_integer(json);
	case VARLINK_FLOAT:
		return json_is_number(json);
	case VARLINK_STRING:
		return json_is_string(json);
	case VARLINK_OBJECT:
		return json_is_object(json);
	case VARLINK_STRUCT:
		return json_is_object(json) && accepts_struct(type, json, path);
	case VARLINK_ENUM:
		return json_is_string(json) && accepts_enum(type, json);
	case VARLINK_ARRAY:
		return json_is_array(json) && accepts_array(type, json, path);
	case VARLINK_DICT:
		return json_is_object(json) && accepts_dict(type, json, path);
	case VARLINK_NAMED:
		return accepts(type->element, json, path);
	}
	return false;
}

bool varlink_type_accepts(
	const struct varlink_type *type, const json_t *json, char ret_path[static VARLINK_PATH_MAX])
{
	struct path path = {.text = ret_path};

	ret_path[0] = '\0';
	return accepts(type, json, &path);
}

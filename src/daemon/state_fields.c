/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/state_fields.h"

#include "base/utf8.h"

/* --- bytes ---------------------------------------------------------------- */

static json_t *save_bytes(const void *data, size_t len)
{
	const uint8_t *bytes = data;
	char *text = malloc(2 * len + 1);
	json_t *value;

	if (!text)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
	}
	value = json_stringn(text, 2 * len);
	free(text);
	return value;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int load_bytes(const json_t *value, uint8_t *ret, size_t len)
{
	const char *text = json_string_value(value);

	if (!text || json_string_length(value) != 2 * len)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++) {
		int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EBADMSG;
		ret[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

/* What JSON has no text for is an object that has its bytes. */
json_t *state_save_text(const char *text)
{
	if (!text)
		return json_null();
	if (utf8_valid(text, strlen(text)))
		return json_string(text);
	return json_pack("{s:o?}", "bytes", save_bytes(text, strlen(text)));
}

int state_load_text(const json_t *value, char **ret)
{
	const json_t *bytes = json_object_get(value, "bytes");
	size_t len;
	char *text;
	int r = 0;

	if (json_is_null(value)) {
		*ret = NULL;
		return 0;
	}
	if (!json_is_string(value) && !json_is_string(bytes))
		return -EBADMSG;
	len = bytes ? json_string_length(bytes) / 2 : json_string_length(value);
	text = calloc(1, len + 1);
	if (!text)
		return -ENOMEM;
	if (bytes)
		r = load_bytes(bytes, (uint8_t *)text, len);
	else
		memcpy(text, json_string_value(value), len);
	if (r < 0 || strlen(text) != len) {
		free(text);
		return -EBADMSG;
	}
	*ret = text;
	return 0;
}

static json_t *save_texts(char *const *texts)
{
	json_t *list;

	if (!texts)
		return json_null();
	list = json_array();
	for (size_t i = 0; list && texts[i]; i++)
		if (json_array_append_new(list, state_save_text(texts[i])) < 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

static int load_texts(const json_t *value, char ***ret)
{
	_cleanup_strv_ char **texts = NULL;
	size_t n = json_array_size(value);

	if (json_is_null(value)) {
		*ret = NULL;
		return 0;
	}
	if (!json_is_array(value))
		return -EBADMSG;
	texts = calloc(n + 1, sizeof(*texts));
	if (!texts)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		int r = state_load_text(json_array_get(value, i), &texts[i]);

		if (r < 0)
			return r;
		if (!texts[i])
			return -EBADMSG;
	}
	*ret = TAKE_PTR(texts);
	return 0;
}

/* --- fields --------------------------------------------------------------- */

static size_t count_of(const struct state_field *f, const void *structure)
{
	const char *at = (const char *)structure + f->count;
	unsigned small;
	size_t large;

	if (f->count_size == sizeof(small)) {
		memcpy(&small, at, sizeof(small));
		return small;
	}
	memcpy(&large, at, sizeof(large));
	return large;
}

static void set_count(const struct state_field *f, void *structure, size_t n)
{
	char *at = (char *)structure + f->count;
	unsigned small = (unsigned)n;

	if (f->count_size == sizeof(small))
		memcpy(at, &small, sizeof(small));
	else
		memcpy(at, &n, sizeof(n));
}

static const void *elements_of(const struct state_field *f, const void *structure)
{
	const void *at = (const char *)structure + f->offset, *list;

	if (f->type == STATE_ARRAY)
		return at;
	memcpy(&list, at, sizeof(list));
	return list;
}

static json_t *save_elements(const struct state_field *f, const void *structure)
{
	const char *elements = elements_of(f, structure);
	json_t *list = json_array();

	for (size_t i = 0; list && i < count_of(f, structure); i++)
		if (json_array_append_new(
			    list, state_save(f->table, elements + i * f->table->size)) < 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

static json_t *save_field(const struct state_field *f, const void *structure)
{
	const void *at = (const char *)structure + f->offset;
	const void *pointer;
	uint64_t large;
	unsigned small;
	int number;
	bool truth;

	switch (f->type) {
	case STATE_BOOL:
		memcpy(&truth, at, sizeof(truth));
		return json_boolean(truth);
	case STATE_UNSIGNED:
		memcpy(&small, at, sizeof(small));
		return json_integer(small);
	case STATE_INT:
		memcpy(&number, at, sizeof(number));
		return json_integer(number);
	case STATE_U64:
		/* The largest ones become negative, and back. */
		memcpy(&large, at, sizeof(large));
		return json_integer((json_int_t)large);
	case STATE_TEXT:
		memcpy(&pointer, at, sizeof(pointer));
		return state_save_text(pointer);
	case STATE_TEXTS:
		memcpy(&pointer, at, sizeof(pointer));
		return save_texts(pointer);
	case STATE_BYTES:
		return save_bytes(at, f->size);
	case STATE_STRUCT:
		return state_save(f->table, at);
	case STATE_ARRAY:
	case STATE_LIST:
		return save_elements(f, structure);
	case STATE_NOT_SAVED:
		break;
	}
	return NULL;
}

static bool is_zero(const void *data, size_t len)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < len; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

static bool is_left_out(
	const struct state_table *table, const struct state_field *f, const void *structure)
{
	if (f->type == STATE_NOT_SAVED)
		return true;
	if (!table->sparse)
		return false;
	if (f->type == STATE_ARRAY)
		return count_of(f, structure) == 0;
	return is_zero((const char *)structure + f->offset, f->size);
}

json_t *state_save(const struct state_table *table, const void *structure)
{
	json_t *object = json_object();

	for (size_t i = 0; object && i < table->n_fields; i++) {
		const struct state_field *f = &table->fields[i];

		if (!is_left_out(table, f, structure) &&
			json_object_set_new_nocheck(object, f->name, save_field(f, structure)) <
				0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

static int load_element_list(const struct state_field *f, const json_t *value, void *structure)
{
	size_t n = json_array_size(value);
	char *elements;
	int r = 0;

	if (!json_is_array(value) || n > f->max)
		return -EBADMSG;
	elements = f->type == STATE_ARRAY ? (char *)structure + f->offset
					  : calloc(n + 1, f->table->size);
	if (!elements)
		return -ENOMEM;
	if (f->type == STATE_LIST)
		memcpy((char *)structure + f->offset, &elements, sizeof(elements));
	/* Counted one by one: whoever frees them finds what was loaded. */
	for (size_t i = 0; r >= 0 && i < n; i++) {
		set_count(f, structure, i + 1);
		if (f->table->init)
			f->table->init(elements + i * f->table->size);
		r = state_load(f->table, json_array_get(value, i), elements + i * f->table->size);
	}
	return r;
}

static int load_number(const struct state_field *f, const json_t *value, void *at)
{
	json_int_t number = json_integer_value(value);
	uint64_t large = (uint64_t)number;
	unsigned small = (unsigned)number;
	int with_sign = (int)number;

	if (!json_is_integer(value))
		return -EBADMSG;
	if (f->type == STATE_UNSIGNED && (number < 0 || number > (json_int_t)UINT32_MAX))
		return -EBADMSG;
	if (f->type == STATE_INT && (number < INT32_MIN || number > INT32_MAX))
		return -EBADMSG;
	if (f->max > 0 && large > f->max)
		return -EBADMSG;
	if (f->type == STATE_U64)
		memcpy(at, &large, sizeof(large));
	else if (f->type == STATE_UNSIGNED)
		memcpy(at, &small, sizeof(small));
	else
		memcpy(at, &with_sign, sizeof(with_sign));
	return 0;
}

static int load_owned(const struct state_field *f, const json_t *value, void *at)
{
	char *text = NULL, **texts = NULL;
	int r = f->type == STATE_TEXT ? state_load_text(value, &text) : load_texts(value, &texts);

	if (r < 0)
		return r;
	if (f->type == STATE_TEXT) {
		free(*(char **)at);
		*(char **)at = text;
	} else {
		strv_free(*(char ***)at);
		*(char ***)at = texts;
	}
	return 0;
}

static int load_field(const struct state_field *f, const json_t *value, void *structure)
{
	void *at = (char *)structure + f->offset;
	bool truth = json_is_true(value);

	switch (f->type) {
	case STATE_BOOL:
		if (!json_is_boolean(value))
			return -EBADMSG;
		memcpy(at, &truth, sizeof(truth));
		return 0;
	case STATE_UNSIGNED:
	case STATE_INT:
	case STATE_U64:
		return load_number(f, value, at);
	case STATE_TEXT:
	case STATE_TEXTS:
		return load_owned(f, value, at);
	case STATE_BYTES:
		return load_bytes(value, at, f->size);
	case STATE_STRUCT:
		return state_load(f->table, value, at);
	case STATE_ARRAY:
	case STATE_LIST:
		return load_element_list(f, value, structure);
	case STATE_NOT_SAVED:
		break;
	}
	return 0;
}

int state_load(const struct state_table *table, const json_t *value, void *structure)
{
	if (!json_is_object(value))
		return -EBADMSG;
	for (size_t i = 0; i < table->n_fields; i++) {
		const struct state_field *f = &table->fields[i];
		const json_t *member = json_object_get(value, f->name);
		int r;

		if (f->type == STATE_NOT_SAVED)
			continue;
		if (!member) {
			if (table->sparse && f->type != STATE_ARRAY && f->type != STATE_LIST &&
				f->type != STATE_TEXT && f->type != STATE_TEXTS)
				memset((char *)structure + f->offset, 0, f->size);
			continue;
		}
		r = load_field(f, member, structure);
		if (r < 0)
			return r;
	}
	return !table->is_valid || table->is_valid(structure) ? 0 : -EBADMSG;
}

/* --- members of objects --------------------------------------------------- */

uint64_t state_get_u64(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

unsigned state_get_unsigned(const json_t *object, const char *key)
{
	uint64_t value = state_get_u64(object, key);

	return value <= UINT32_MAX ? (unsigned)value : 0;
}

bool state_get_bool(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

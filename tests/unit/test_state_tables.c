/* SPDX-License-Identifier: Apache-2.0 */
/* What is saved of structures is what is loaded: every table, there and back with values of all
 * kinds, and with values that are wrong. */
#include "daemon/state_tables.h"

#include <inttypes.h>

#include "core/config.h"
#include "core/generation.h"
#include "unit.h"

static uint64_t seed;

static uint64_t next_random(void)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return seed >> 16;
}

/* --- structures of any table ------------------------------------------------------------- */

static size_t count_of(const struct state_field *f, const char *structure)
{
	unsigned small;
	size_t large;

	if (f->count_size == sizeof(small)) {
		memcpy(&small, structure + f->count, sizeof(small));
		return small;
	}
	memcpy(&large, structure + f->count, sizeof(large));
	return large;
}

static void set_count(const struct state_field *f, char *structure, size_t n)
{
	unsigned small = (unsigned)n;

	if (f->count_size == sizeof(small))
		memcpy(structure + f->count, &small, sizeof(small));
	else
		memcpy(structure + f->count, &n, sizeof(n));
}

static char *random_text(void)
{
	static const char *const texts[] = {"", "x", "/run/a b", "\xc3\xa9t\xc3\xa9",
		"\xff\xfe bad", "line\nbreak\t\"quoted\\"};

	return strdup(texts[next_random() % ARRAY_SIZE(texts)]);
}

static void fill(const struct state_table *table, char *structure);

static void fill_elements(const struct state_field *f, char *structure)
{
	size_t n = next_random() % (MIN(f->max, (uint64_t)4) + 1);
	char *elements =
		f->type == STATE_ARRAY ? structure + f->offset : calloc(n + 1, f->table->size);

	if (f->type == STATE_LIST)
		memcpy(structure + f->offset, &elements, sizeof(elements));
	set_count(f, structure, n);
	for (size_t i = 0; i < n; i++)
		fill(f->table, elements + i * f->table->size);
}

static void fill_field(const struct state_field *f, char *structure)
{
	char *at = structure + f->offset;
	uint64_t number = next_random() % 3 == 0 ? UINT64_MAX - next_random() % 2 : next_random();
	unsigned small;
	char *text, **texts;
	bool truth;
	int with_sign;

	if (f->max > 0 && f->type != STATE_ARRAY && f->type != STATE_LIST)
		number %= f->max + 1;
	switch (f->type) {
	case STATE_BOOL:
		truth = number & 1;
		memcpy(at, &truth, sizeof(truth));
		break;
	case STATE_UNSIGNED:
		ck_assert_uint_eq(f->size, sizeof(small));
		small = (unsigned)number;
		memcpy(at, &small, sizeof(small));
		break;
	case STATE_INT:
		ck_assert_uint_eq(f->size, sizeof(with_sign));
		with_sign = (int)number;
		memcpy(at, &with_sign, sizeof(with_sign));
		break;
	case STATE_U64:
		ck_assert_uint_eq(f->size, sizeof(number));
		memcpy(at, &number, sizeof(number));
		break;
	case STATE_TEXT:
		text = number % 4 == 0 ? NULL : random_text();
		memcpy(at, &text, sizeof(text));
		break;
	case STATE_TEXTS:
		texts = calloc(3, sizeof(*texts));
		texts[0] = random_text();
		texts[1] = number & 1 ? random_text() : NULL;
		memcpy(at, &texts, sizeof(texts));
		break;
	case STATE_BYTES:
		/* A text in there must end. */
		for (size_t i = 0; i + 1 < f->size; i++)
			at[i] = (char)next_random();
		break;
	case STATE_STRUCT:
		ck_assert_uint_eq(f->size, f->table->size);
		fill(f->table, at);
		break;
	case STATE_ARRAY:
	case STATE_LIST:
		fill_elements(f, structure);
		break;
	case STATE_NOT_SAVED:
		break;
	}
}

static void fill(const struct state_table *table, char *structure)
{
	for (unsigned tries = 0; tries < 100; tries++) {
		for (size_t i = 0; i < table->n_fields; i++)
			fill_field(&table->fields[i], structure);
		if (!table->is_valid || table->is_valid(structure))
			return;
		/* What makes it valid is between its fields; these have no pointers. */
		memset(structure, 0, table->size);
		if (table->is_valid(structure))
			return;
		if (streq(table->what, "struct multicast_group")) {
			int family = AF_INET6;

			memcpy(structure + table->fields[0].offset, &family, sizeof(family));
			return;
		}
	}
	ck_abort_msg("%s cannot be made", table->what);
}

static void done(const struct state_table *table, char *structure)
{
	for (size_t i = 0; i < table->n_fields; i++) {
		const struct state_field *f = &table->fields[i];
		char *at = structure + f->offset;

		if (f->type == STATE_TEXT) {
			free(*(char **)(void *)at);
		} else if (f->type == STATE_TEXTS) {
			strv_free(*(char ***)(void *)at);
		} else if (f->type == STATE_STRUCT) {
			done(f->table, at);
		} else if (f->type == STATE_ARRAY || f->type == STATE_LIST) {
			char *elements = f->type == STATE_ARRAY ? at : *(char **)(void *)at;

			for (size_t k = 0; elements && k < count_of(f, structure); k++)
				done(f->table, elements + k * f->table->size);
			if (f->type == STATE_LIST)
				free(elements);
		}
	}
}

/* --- tests ------------------------------------------------------------------------------- */

static const struct state_table *const *const all[] = {
	state_tables_core, state_tables_config, state_tables_daemon};

static void there_and_back_once(const struct state_table *table)
{
	_cleanup_free_ char *before = calloc(1, table->size), *after = calloc(1, table->size),
			    *text = NULL;
	json_t *first, *second, *parsed;

	fill(table, before);
	first = state_save(table, before);
	ck_assert_ptr_nonnull(first);
	/* As text: that is how it is kept. */
	text = json_dumps(first, JSON_COMPACT);
	ck_assert_ptr_nonnull(text);
	ck_assert_ptr_null(strchr(text, '\n'));
	parsed = json_loads(text, JSON_ALLOW_NUL, NULL);
	ck_assert_int_eq(state_load(table, parsed, after), 0);
	second = state_save(table, after);
	ck_assert_msg(json_equal(first, second), "%s: %s", table->what, text);
	json_decref(first);
	json_decref(second);
	json_decref(parsed);
	done(table, before);
	done(table, after);
}

START_TEST(there_and_back)
{
	seed = 1;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (size_t k = 0; all[i][k]; k++)
			for (unsigned n = 0; n < 200; n++)
				there_and_back_once(all[i][k]);
}
END_TEST

/* Every value anywhere in it is replaced by others; it is loaded or refused, and nothing else
 * happens. */
static void replace_all(
	const struct state_table *table, json_t *root, json_t *value, unsigned *n_refused)
{
	static const char *const wrong[] = {"null", "true", "-1", "4294967296",
		"9223372036854775807", "1.5", "\"x\"", "\"a\\u0000b\"", "[]", "[1]", "[null]", "{}",
		"{\"bytes\":\"0\"}", "{\"bytes\":\"zz\"}", "{\"bytes\":\"00\"}"};
	const char *key;
	json_t *member;
	void *next;
	size_t index;

	json_object_foreach_safe(value, next, key, member)
	{
		_cleanup_free_ char *name = strdup(key);

		json_incref(member);
		for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
			_cleanup_free_ char *structure = calloc(1, table->size);

			json_object_set_new(value, name,
				json_loads(wrong[i], JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL));
			*n_refused += state_load(table, root, structure) < 0;
			done(table, structure);
		}
		json_object_set_new(value, name, member);
		replace_all(table, root, member, n_refused);
	}
	json_array_foreach (value, index, member)
		replace_all(table, root, member, n_refused);
}

START_TEST(wrong_values)
{
	seed = 2;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (size_t k = 0; all[i][k]; k++) {
			const struct state_table *table = all[i][k];
			_cleanup_free_ char *structure = calloc(1, table->size);
			unsigned n_refused = 0;
			json_t *value;

			fill(table, structure);
			value = state_save(table, structure);
			replace_all(table, value, value, &n_refused);
			if (json_object_size(value) > 0)
				ck_assert_uint_gt(n_refused, 0);
			json_decref(value);
			done(table, structure);
		}
}
END_TEST

START_TEST(not_an_object)
{
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (size_t k = 0; all[i][k]; k++) {
			_cleanup_free_ char *structure = calloc(1, all[i][k]->size);

			ck_assert_int_eq(state_load(all[i][k], NULL, structure), -EBADMSG);
			ck_assert_int_eq(state_load(all[i][k], json_true(), structure), -EBADMSG);
		}
}
END_TEST

/* What limits a list limits what is read of it. */
START_TEST(too_long)
{
	struct service_config c = {.name = NULL};
	json_t *value = json_object(), *list = json_array();

	for (unsigned i = 0; i <= CONFIG_LISTENERS_MAX; i++)
		json_array_append_new(list, json_object());
	json_object_set_new(value, "listeners", list);
	ck_assert_int_eq(state_load(&state_table_service_config, value, &c), -EBADMSG);
	ck_assert_uint_eq(c.n_listeners, 0);
	json_decref(value);
	service_config_done(&c);
}
END_TEST

/* Fields are in their structures' order and do not overlap. That none is forgotten is for
 * tests/check-state-tables.sh to see. */
START_TEST(in_order)
{
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (size_t k = 0; all[i][k]; k++) {
			const struct state_table *table = all[i][k];
			size_t end = 0;

			for (size_t n = 0; n < table->n_fields; n++) {
				const struct state_field *f = &table->fields[n];

				ck_assert_msg(f->offset >= end, "%s.%s", table->what, f->name);
				end = f->offset + f->size;
				ck_assert_msg(end <= table->size, "%s.%s", table->what, f->name);
			}
		}
}
END_TEST

START_TEST(addresses)
{
	static const char *const texts[] = {
		"tcp:127.0.0.1:80", "udp:[::1]:53", "unix:/run/x.sock", "unix:@name"};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct address a = {.len = 0}, b = {.len = 0};
		json_t *value;

		ck_assert_int_eq(address_parse(texts[i], false, &a), 0);
		value = state_save(&state_table_address, &a);
		ck_assert_int_eq(state_load(&state_table_address, value, &b), 0);
		ck_assert(address_equal(&a, &b));
		/* Of another kind than its bytes say. */
		json_object_set_new(value, "kind",
			json_integer(a.kind > ADDRESS_UDP ? ADDRESS_TCP : ADDRESS_UNIX_STREAM));
		ck_assert_int_eq(state_load(&state_table_address, value, &b), -EBADMSG);
		json_decref(value);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		there_and_back, wrong_values, not_an_object, too_long, in_order, addresses};

	(void)setenv("CK_DEFAULT_TIMEOUT", "60", 0);
	return run_tests("state tables", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/context.h"
#include "ctl/status.h"

/* Every group has these two: they say something only to who has asked for them. */
static bool is_usual(const json_t *option)
{
	const char *key = field_text_or(option, "key", "");

	return field_null(option, "wanted") && (streq(key, "reuseaddr") || streq(key, "reuseport"));
}

static void add_option(struct table *table, const json_t *listener, const json_t *option)
{
	const char *wanted = field_text(option, "wanted"), *actual = field_text(option, "actual");
	bool other = wanted && actual && !streq(wanted, actual);

	table_add(table, PAINT_BOLD, field_text(listener, "service"));
	table_add(table, PAINT_BOLD, field_text(listener, "name"));
	table_add(table, PAINT_PLAIN, field_text(option, "key"));
	table_add(table, PAINT_PLAIN, field_text(option, "name"));
	table_add(table, PAINT_PLAIN, wanted ? wanted : "-");
	table_add(table, other ? PAINT_WARN : PAINT_PLAIN, actual ? actual : "-");
	table_add(table, PAINT_PLAIN, field_text(option, "note"));
}

void status_options(struct output *o, const json_t *listeners)
{
	static const struct table_column columns[] = {
		{"SERVICE",  false, false},
		{"LISTENER", false, false},
		{"OPTION",   false, false},
		{"KERNEL",   false, false},
		{"WANTED",   false, false},
		{"ACTUAL",   false, false},
		{"NOTE",	 false, true },
	};
	_cleanup_table_ struct table table = TABLE_INIT(columns);
	const json_t *listener, *option;
	size_t i, k;

	json_array_foreach (listeners, i, listener) {
		json_array_foreach (json_object_get(listener, "options"), k, option)
			if (!is_usual(option))
				add_option(&table, listener, option);
	}
	if (table.n_cells > 0)
		fputc('\n', o->file);
	table_print(&table, o, 0);
}

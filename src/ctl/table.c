/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/table.h"

#include <stdarg.h>

#include "ctl/text.h"

#define GAP 2
#define SHRUNK_MIN ((size_t)8) /* a column is not cut below it: the line wraps instead */

void table_done(struct table *t)
{
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i].text);
	free(t->cells);
	*t = (struct table){0};
}

static void add_take(struct table *t, enum paint paint, char *s)
{
	if (array_reserve(&t->cells, &t->capacity, t->n_cells + 1, sizeof(t->cells[0])) < 0) {
		free(s);
		return;
	}
	t->cells[t->n_cells++] = (struct table_cell){s, paint};
}

void table_add(struct table *t, enum paint paint, const char *s)
{
	add_take(t, paint, s ? strdup(s) : NULL);
}

void table_addf(struct table *t, enum paint paint, const char *format, ...)
{
	char *s = NULL;
	va_list ap;
	int r;

	va_start(ap, format);
	r = vasprintf(&s, format, ap);
	va_end(ap);
	add_take(t, paint, r < 0 ? NULL : s);
}

/* Each column's width; 0: empty in every row. */
static void measure(const struct table *t, const struct output *o, size_t n_rows, size_t *widths)
{
	for (size_t column = 0; column < t->n_columns; column++) {
		widths[column] = 0;
		for (size_t row = 0; row < n_rows; row++) {
			const struct table_cell *cell = &t->cells[row * t->n_columns + column];

			widths[column] = MAX(widths[column], text_width(cell->text, o->utf8));
		}
		if (widths[column] > 0)
			widths[column] = MAX(widths[column], strlen(t->columns[column].title));
	}
}

static void shrink(const struct table *t, size_t available, size_t *widths)
{
	size_t total = 0;

	for (size_t column = 0; column < t->n_columns; column++)
		if (widths[column] > 0)
			total += widths[column] + GAP;
	total = total > GAP ? total - GAP : 0;
	for (size_t column = t->n_columns; column-- > 0 && total > available;) {
		size_t least = MAX(strlen(t->columns[column].title), SHRUNK_MIN);
		size_t less;

		if (!t->columns[column].shrink || widths[column] <= least)
			continue;
		less = MIN(widths[column] - least, total - available);
		widths[column] -= less;
		total -= less;
	}
}

static void print_cell(
	struct output *o, enum paint paint, const char *s, size_t width, bool right, bool last)
{
	_cleanup_free_ char *cut = text_cut(s, width, o->utf8);
	size_t used = cut ? text_width(cut, o->utf8) : 0;
	int pad = (int)(width - MIN(used, width));
	bool painted = paint != PAINT_PLAIN && used > 0;

	fprintf(o->file, "%*s%s%s%s%*s", right ? pad : 0, "", painted ? output_paint(o, paint) : "",
		cut ? cut : "", painted ? output_paint(o, PAINT_PLAIN) : "",
		last ? 0 : (right ? 0 : pad) + GAP, "");
}

void table_print(struct table *t, struct output *o, unsigned indent)
{
	size_t n_rows = t->n_cells / t->n_columns, widths[TABLE_COLUMNS_MAX] = {0}, last = 0;

	if (n_rows == 0 || t->n_columns > TABLE_COLUMNS_MAX)
		return;
	for (size_t i = 0; i < t->n_cells; i++) {
		char *safe = text_safe(t->cells[i].text, o->utf8);

		free(t->cells[i].text);
		t->cells[i].text = safe ? safe : strdup("");
		if (!t->cells[i].text)
			return;
	}
	measure(t, o, n_rows, widths);
	if (o->columns > 0)
		shrink(t, o->columns > indent ? o->columns - indent : 0, widths);
	for (size_t column = 0; column < t->n_columns; column++)
		if (widths[column] > 0)
			last = column;
	for (size_t row = 0; row <= n_rows; row++) {
		fprintf(o->file, "%*s", (int)indent, "");
		for (size_t column = 0; column <= last; column++) {
			const struct table_column *spec = &t->columns[column];
			const struct table_cell *cell =
				row > 0 ? &t->cells[(row - 1) * t->n_columns + column] : NULL;

			if (widths[column] > 0)
				print_cell(o, cell ? cell->paint : PAINT_DIM,
					cell ? cell->text : spec->title, widths[column],
					spec->right, column == last);
		}
		fputc('\n', o->file);
	}
}

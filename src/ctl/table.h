/* SPDX-License-Identifier: Apache-2.0 */
/* Aligned columns that fit the terminal. A column that is empty in every row is left out. */
#pragma once

#include "ctl/output.h"

#define TABLE_COLUMNS_MAX 16

struct table_column {
	const char *title;
	bool right;  /* numbers */
	bool shrink; /* may be cut when the terminal is narrow; the last one that may goes first */
};

struct table_cell {
	char *text;
	enum paint paint;
};

struct table {
	const struct table_column *columns; /* borrowed, as long as the table lives */
	size_t n_columns;
	struct table_cell *cells;
	size_t n_cells, capacity;
};

#define TABLE_INIT(spec) ((struct table){.columns = (spec), .n_columns = ARRAY_SIZE(spec)})

void table_done(struct table *t);
#define _cleanup_table_ _cleanup_(table_done)
/* Append one cell, row by row. s is untrusted (made safe when printed); NULL is empty. Out of
 * memory the cell is printed empty. */
void table_add(struct table *t, enum paint paint, const char *s);
void table_addf(struct table *t, enum paint paint, const char *format, ...) _printf_(3, 4);
/* Print it with each line indented by that many blanks; nothing at all when it has no rows. */
void table_print(struct table *t, struct output *o, unsigned indent);

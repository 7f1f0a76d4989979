/* SPDX-License-Identifier: Apache-2.0 */
/* Where results go, and in which form. One traversal per verb: it hands each result over as the
 * JSON the daemon sent and as the function (or line) that says it to a person; the renderer prints
 * one of the two. Results go to the standard output; what went wrong goes to the standard error as
 * text, and with --json also to the standard output, so that a program need not read prose. */
#pragma once

#include <jansson.h>

#include "base/util.h"

struct output;

enum paint {
	PAINT_PLAIN,
	PAINT_BOLD,
	PAINT_DIM,
	PAINT_GOOD,
	PAINT_WARN,
	PAINT_BAD,
};

typedef void (*output_print)(struct output *o, json_t *value, void *userdata);

struct renderer {
	/* A whole answer: print() writes it as text. */
	void (*document)(struct output *o, json_t *value, output_print print, void *userdata);
	/* One of many, as they come: a line. */
	void (*record)(struct output *o, json_t *value, const char *line);
	/* That something was done, for a person; no data. Left out with --quiet. */
	void (*remark)(struct output *o, const char *line);
	/* What failed, as data; the text goes to the standard error whatever the renderer. */
	void (*failure)(struct output *o, json_t *value);
};

extern const struct renderer renderer_text;
extern const struct renderer renderer_json;

struct output {
	const struct renderer *renderer;
	FILE *file;   /* results; borrowed */
	FILE *errors; /* what went wrong; borrowed */
	bool quiet;   /* failures and documents only */
	bool colour;
	bool utf8;
	bool live;	  /* a terminal whose lines can be drawn again */
	unsigned columns; /* of the terminal; 0: as wide as it takes */
	unsigned lines;	  /* of the terminal; 0: not known */
};

/* For the process's own standard output and error: a terminal, its width, the locale and the
 * environment (NO_COLOR, TERM, COLUMNS) decide. Call setlocale() before. */
void output_init(struct output *o, bool json, bool quiet, bool no_color);
/* The terminal's width again, after SIGWINCH. */
void output_measure(struct output *o);

void output_document(struct output *o, json_t *value, output_print print, void *userdata);
void output_record(struct output *o, json_t *value, const char *line);
void output_remark(struct output *o, const char *format, ...) _printf_(2, 3);
void output_failure(struct output *o, json_t *value);
/* "tenurectl: ..." to the standard error, one line. The text must be safe already. */
void output_error(struct output *o, const char *format, ...) _printf_(2, 3);
/* More about the error, indented, each line made safe. */
void output_error_detail(struct output *o, const char *text);

/* printf() to the results; the arguments must be safe already. */
void output_printf(struct output *o, const char *format, ...) _printf_(2, 3);
/* Print one untrusted string, made safe, in a colour. */
void output_text(struct output *o, enum paint paint, const char *s);
/* The escape sequence that begins a colour, or ends all (PAINT_PLAIN); "" without colours. */
const char *output_paint(const struct output *o, enum paint paint);

/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/output.h"

#include <langinfo.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#include "base/parse.h"
#include "ctl/text.h"

#define COLUMNS_MIN 20U
#define COLUMNS_MAX 1000U

static void text_document(struct output *o, json_t *value, output_print print, void *userdata)
{
	print(o, value, userdata);
	fflush(o->file);
}

static void text_record(struct output *o, json_t *value, const char *line)
{
	(void)value;
	if (!o->quiet)
		fprintf(o->file, "%s\n", line);
	fflush(o->file);
}

static void text_remark(struct output *o, const char *line)
{
	if (!o->quiet)
		fprintf(o->file, "%s\n", line);
	fflush(o->file);
}

static void text_failure(struct output *o, json_t *value)
{
	(void)o;
	(void)value;
}

const struct renderer renderer_text = {
	.document = text_document,
	.record = text_record,
	.remark = text_remark,
	.failure = text_failure,
};

static void json_line(struct output *o, json_t *value)
{
	json_dumpf(value, o->file, JSON_COMPACT | JSON_ENSURE_ASCII);
	fputc('\n', o->file);
	fflush(o->file);
}

static void json_document(struct output *o, json_t *value, output_print print, void *userdata)
{
	(void)print;
	(void)userdata;
	json_dumpf(value, o->file, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	fputc('\n', o->file);
	fflush(o->file);
}

static void json_record(struct output *o, json_t *value, const char *line)
{
	(void)line;
	json_line(o, value);
}

static void json_remark(struct output *o, const char *line)
{
	(void)o;
	(void)line;
}

const struct renderer renderer_json = {
	.document = json_document,
	.record = json_record,
	.remark = json_remark,
	.failure = json_line,
};

void output_measure(struct output *o)
{
	struct winsize size = {0};
	const char *columns = getenv("COLUMNS");
	unsigned n;

	o->columns = o->lines = 0;
	if (!isatty(fileno(o->file)))
		return;
	if (ioctl(fileno(o->file), TIOCGWINSZ, &size) == 0)
		o->lines = size.ws_row;
	if (columns && parse_uint(columns, COLUMNS_MIN, COLUMNS_MAX, &n) == 0)
		o->columns = n;
	else if (size.ws_col > 0)
		o->columns = MIN(MAX((unsigned)size.ws_col, COLUMNS_MIN), COLUMNS_MAX);
	else
		o->columns = 80;
}

void output_init(struct output *o, bool json, bool quiet, bool no_color)
{
	const char *term = getenv("TERM"), *no_color_env = getenv("NO_COLOR");
	bool able = isatty(STDOUT_FILENO) && term && *term && !streq(term, "dumb");

	*o = (struct output){
		.renderer = json ? &renderer_json : &renderer_text,
		.file = stdout,
		.errors = stderr,
		.quiet = quiet,
		/* no-color.org: set and not empty */
		.colour = able && !json && !no_color && !(no_color_env && *no_color_env),
		.utf8 = streq(nl_langinfo(CODESET), "UTF-8"),
		.live = able && !json && !quiet,
	};
	output_measure(o);
}

void output_document(struct output *o, json_t *value, output_print print, void *userdata)
{
	o->renderer->document(o, value, print, userdata);
}

void output_record(struct output *o, json_t *value, const char *line)
{
	o->renderer->record(o, value, line);
}

void output_remark(struct output *o, const char *format, ...)
{
	_cleanup_free_ char *line = NULL;
	va_list ap;
	int r;

	va_start(ap, format);
	r = vasprintf(&line, format, ap);
	va_end(ap);
	if (r < 0) {
		line = NULL;
		return;
	}
	o->renderer->remark(o, line);
}

void output_failure(struct output *o, json_t *value)
{
	o->renderer->failure(o, value);
}

void output_error(struct output *o, const char *format, ...)
{
	va_list ap;

	/* In order, where both go to one place. */
	fflush(o->file);
	fputs("tenurectl: ", o->errors);
	va_start(ap, format);
	vfprintf(o->errors, format, ap);
	va_end(ap);
	fputc('\n', o->errors);
}

void output_error_detail(struct output *o, const char *text)
{
	while (*text) {
		size_t len = strcspn(text, "\n");
		_cleanup_free_ char *line = strndup(text, len);
		_cleanup_free_ char *safe = line ? text_safe(line, o->utf8) : NULL;

		fprintf(o->errors, "    %s\n", safe ? safe : "");
		text += len + (text[len] == '\n');
	}
}

void output_printf(struct output *o, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vfprintf(o->file, format, ap);
	va_end(ap);
}

void output_text(struct output *o, enum paint paint, const char *s)
{
	_cleanup_free_ char *safe = text_safe(s, o->utf8);
	bool painted = paint != PAINT_PLAIN && safe && *safe;

	fprintf(o->file, "%s%s%s", painted ? output_paint(o, paint) : "", safe ? safe : "?",
		painted ? output_paint(o, PAINT_PLAIN) : "");
}

const char *output_paint(const struct output *o, enum paint paint)
{
	if (!o->colour)
		return "";
	switch (paint) {
	case PAINT_PLAIN:
		return "\033[0m";
	case PAINT_BOLD:
		return "\033[1m";
	case PAINT_DIM:
		return "\033[2m";
	case PAINT_GOOD:
		return "\033[32m";
	case PAINT_WARN:
		return "\033[33m";
	case PAINT_BAD:
		return "\033[31m";
	}
	return "";
}

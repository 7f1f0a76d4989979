/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/progress.h"

#include "ctl/context.h"
#include "ctl/status.h"
#include "ctl/text.h"

#define BAR_WIDTH 20U
#define NARROW 90U /* columns below which the bar is half as wide */
#define PHASE_WIDTH 12

/* A line under construction that never gets wider than the terminal. */
struct line {
	const struct output *output;
	FILE *file;
	size_t left; /* columns */
};

static void line_add(struct line *l, enum paint paint, const char *s)
{
	bool utf8 = l->output->utf8, painted = paint != PAINT_PLAIN && *s;
	_cleanup_free_ char *cut = text_cut(s, l->left, utf8);

	if (!cut)
		return;
	fprintf(l->file, "%s%s%s", painted ? output_paint(l->output, paint) : "", cut,
		painted ? output_paint(l->output, PAINT_PLAIN) : "");
	l->left -= MIN(text_width(cut, utf8), l->left);
}

static void line_pad(struct line *l, size_t columns)
{
	columns = MIN(columns, l->left);
	fprintf(l->file, "%*s", (int)columns, "");
	l->left -= columns;
}

static void line_addf(struct line *l, enum paint paint, const char *format, ...) _printf_(3, 4);

static void line_addf(struct line *l, enum paint paint, const char *format, ...)
{
	_cleanup_free_ char *s = NULL;
	va_list ap;
	int r;

	va_start(ap, format);
	r = vasprintf(&s, format, ap);
	va_end(ap);
	if (r < 0)
		s = NULL;
	else
		line_add(l, paint, s);
}

static void add_bar(struct line *l, double percent)
{
	bool utf8 = l->output->utf8;
	unsigned columns = l->output->columns;
	unsigned width = columns > 0 && columns < NARROW ? BAR_WIDTH / 2 : BAR_WIDTH;
	unsigned full = (unsigned)(MIN(MAX(percent, 0.0), 100.0) * width / 100 + 0.5);

	line_add(l, PAINT_PLAIN, "[");
	for (unsigned i = 0; i < width; i++)
		line_add(l, i < full ? PAINT_GOOD : PAINT_DIM,
			i < full ? (utf8 ? "\xe2\x96\x88" : "#") : (utf8 ? "\xe2\x96\x91" : "-"));
	line_add(l, PAINT_PLAIN, "] ");
}

static const char *phase_of(const struct progress_row *row, enum paint *ret_paint)
{
	const char *phase = field_text(row->rollout, "phase");

	*ret_paint = PAINT_BOLD;
	switch (row->end) {
	case PROGRESS_DONE:
		*ret_paint = PAINT_GOOD;
		return "done";
	case PROGRESS_FAILED:
		*ret_paint = PAINT_BAD;
		return "failed";
	case PROGRESS_LEFT:
		*ret_paint = PAINT_WARN;
		return "goes on";
	case PROGRESS_RUNNING:
		break;
	}
	if (!phase)
		return "waiting";
	if (streq(phase, "rollingBack")) {
		*ret_paint = PAINT_BAD;
		return "rolling back";
	}
	if (streq(phase, "paused"))
		*ret_paint = PAINT_WARN;
	return phase;
}

/* What the step still waits for. */
static void add_proof(struct line *l, const json_t *rollout)
{
	uint64_t until = field_usec(rollout, "soakUntilUsec"), now = text_now_usec();
	const char *verify = field_text_or(rollout, "verify", "");
	char span[TEXT_SPAN_MAX];

	if (until > now)
		line_addf(l, PAINT_PLAIN, "  soak %s", text_span(until - now, span));
	if (streq(verify, "running"))
		line_add(l, PAINT_WARN, "  verifying");
	else if (streq(verify, "passed"))
		line_add(l, PAINT_GOOD, "  verified");
}

static void add_rollout(struct line *l, const json_t *rollout)
{
	char percent[TEXT_PERCENT_MAX];
	double traffic = field_number(rollout, "traffic");
	char measured[STATUS_MEASURED_MAX];

	if (field_null(rollout, "fromGeneration"))
		line_addf(l, PAINT_PLAIN, "%lld  ", field_int(rollout, "toGeneration", 0));
	else
		line_addf(l, PAINT_PLAIN, "%lld %s %lld  ", field_int(rollout, "fromGeneration", 0),
			l->output->utf8 ? "\xe2\x86\x92" : "->",
			field_int(rollout, "toGeneration", 0));
	add_bar(l, traffic);
	line_addf(l, PAINT_PLAIN, "%4s%s  ready %lld/%lld", text_percent(traffic, percent),
		status_measured(rollout, measured), field_int(rollout, "ready", 0),
		field_int(rollout, "workers", 0));
	if (field_int(rollout, "steps", 0) > 1)
		line_addf(l, PAINT_PLAIN, "  step %lld/%lld", field_int(rollout, "step", 0),
			field_int(rollout, "steps", 0));
	add_proof(l, rollout);
	line_add(l, PAINT_PLAIN, "  ");
}

char *progress_line(const struct output *o, const struct progress_row *row, size_t name_width,
	uint64_t now_usec)
{
	struct line l = {.output = o, .left = o->columns > 0 ? o->columns - 1 : 4096};
	_cleanup_free_ char *service = text_safe(row->service, o->utf8), *phase = NULL;
	uint64_t until = row->end == PROGRESS_RUNNING ? now_usec : row->ended_usec;
	char span[TEXT_SPAN_MAX], *text = NULL;
	enum paint paint;
	size_t size;

	phase = text_safe(phase_of(row, &paint), o->utf8);
	if (!service || !phase || !(l.file = open_memstream(&text, &size)))
		return NULL;
	line_add(&l, PAINT_PLAIN, service);
	line_pad(&l, name_width - MIN(text_width(service, o->utf8), name_width) + 2);
	line_add(&l, paint, phase);
	line_pad(&l, PHASE_WIDTH - MIN(text_width(phase, o->utf8), (size_t)PHASE_WIDTH) + 2);
	if (json_is_object(row->rollout))
		add_rollout(&l, row->rollout);
	line_add(&l, PAINT_PLAIN,
		text_span(until > row->started_usec ? until - row->started_usec : 0, span));
	if (row->message) {
		line_add(&l, PAINT_PLAIN, "  ");
		line_add(&l, PAINT_DIM, row->message);
	}
	if (fclose(l.file) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

int progress_init(struct progress *p, struct output *o, bool live, size_t n_rows)
{
	struct progress_row *rows = calloc(n_rows, sizeof(*rows));

	if (!rows)
		return -ENOMEM;
	/* More lines than the terminal has could not be reached again. */
	live = live && o->live && (o->lines == 0 || n_rows < o->lines);
	*p = (struct progress){.output = o, .rows = rows, .n_rows = n_rows, .live = live};
	for (size_t i = 0; i < n_rows; i++)
		rows[i].started_usec = text_monotonic_usec();
	return 0;
}

void progress_done(struct progress *p)
{
	for (size_t i = 0; i < p->n_rows; i++) {
		json_decref(p->rows[i].rollout);
		free(p->rows[i].message);
	}
	free(p->rows);
	*p = (struct progress){0};
}

void progress_draw(struct progress *p)
{
	struct output *o = p->output;
	uint64_t now = text_monotonic_usec();
	size_t name_width = 0;

	if (!p->live)
		return;
	output_measure(o);
	for (size_t i = 0; i < p->n_rows; i++)
		if (p->rows[i].service)
			name_width = MAX(name_width, strlen(p->rows[i].service));
	if (p->n_drawn > 0)
		fprintf(o->file, "\033[%zuA", p->n_drawn);
	for (size_t i = 0; i < p->n_rows; i++) {
		_cleanup_free_ char *line = progress_line(o, &p->rows[i], name_width, now);

		/* Cleared after the text, not before: that flickers. */
		fprintf(o->file, "\r%s\033[K\n", line ? line : "");
	}
	/* And what the terminal echoed below, as ^C. */
	fputs("\033[J", o->file);
	p->n_drawn = p->n_rows;
	fflush(o->file);
}

static void print_message(struct progress *p, const struct progress_row *row, const json_t *value)
{
	_cleanup_json_ json_t *record = json_object();
	_cleanup_free_ char *service = text_safe(row->service, p->output->utf8), *line = NULL;
	const char *rest;
	bool named;

	if (!record || !service)
		return;
	if (row->service)
		json_object_set_new(record, "service", json_string(row->service));
	json_object_update_missing(record, (json_t *)(uintptr_t)value);
	/* A message that begins with its service needs no second name. */
	rest = startswith(row->message, service);
	named = rest && (*rest == ':' || *rest == ' ');
	line = xasprintf(
		"%s%s%s", named ? "" : service, named || !row->service ? "" : ": ", row->message);
	if (line)
		output_record(p->output, record, line);
}

static void hint_in_row(struct progress *p, struct progress_row *row)
{
	_cleanup_free_ char *hint = xasprintf("`tenurectl promote %s` goes on", row->service);
	char *safe = hint ? text_safe(hint, p->output->utf8) : NULL;

	if (!safe)
		return;
	free(row->message);
	row->message = safe;
}

/* The row has the service's name already. */
static const char *without_name(
	const struct progress *p, const struct progress_row *row, const char *message)
{
	const char *rest = message && row->service ? startswith(message, row->service) : NULL;

	rest = rest ? startswith(rest, ": ") : NULL;
	return p->live && rest ? rest : message;
}

void progress_tell(struct progress *p, size_t index, const json_t *value)
{
	struct progress_row *row = &p->rows[index];
	json_t *rollout = json_object_get(value, "rollout");
	const char *message = field_text(value, "message"), *phase;
	bool paused;
	char *safe;

	safe = text_safe(without_name(p, row, message), p->output->utf8);
	if (!safe)
		return;
	/* Without words only the numbers are new. */
	if (*safe || !row->message) {
		free(row->message);
		row->message = safe;
	} else {
		free(safe);
		safe = NULL;
	}
	if (json_is_object(rollout)) {
		json_decref(row->rollout);
		row->rollout = json_incref(rollout);
	}
	phase = field_text(row->rollout, "phase");
	paused = phase && streq(phase, "paused") && row->service;
	if (p->live) {
		if (paused)
			hint_in_row(p, row);
		progress_draw(p);
		return;
	}
	if ((safe && *safe) || p->output->renderer == &renderer_json)
		print_message(p, row, value);
	if (paused && !row->hinted)
		output_remark(p->output,
			"%s: paused; `tenurectl promote %s` goes on, `tenurectl abort %s` goes "
			"back",
			row->service, row->service, row->service);
	row->hinted = paused;
}

void progress_end(struct progress *p, size_t row, enum progress_end end)
{
	p->rows[row].end = end;
	p->rows[row].ended_usec = text_monotonic_usec();
	progress_draw(p);
}

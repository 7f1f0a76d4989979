/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/status.h"

#include "ctl/context.h"
#include "ctl/text.h"

#define FAILURE_LINES 10

enum paint status_paint(const char *state)
{
	static const struct {
		const char *state;
		enum paint paint;
	} paints[] = {
		{"serving",   PAINT_GOOD},
		{"ready",	  PAINT_GOOD},
		{"upgrading", PAINT_WARN},
		{"starting",  PAINT_WARN},
		{"draining",  PAINT_DIM },
		{"warm",	 PAINT_DIM },
		{"stopped",   PAINT_DIM },
		{"failing",   PAINT_BAD },
		{"failed",	   PAINT_BAD },
		{"backoff",   PAINT_BAD },
	};

	for (size_t i = 0; i < ARRAY_SIZE(paints); i++)
		if (streq(paints[i].state, state))
			return paints[i].paint;
	return PAINT_PLAIN;
}

static const json_t *serving_generation(const json_t *service)
{
	const json_t *generations = json_object_get(service, "generations"), *generation;
	const json_t *newest = NULL;
	long long serving = field_int(service, "generation", -1), top = -1;
	size_t i;

	json_array_foreach (generations, i, generation) {
		long long number = field_int(generation, "number", -1);

		if (number == serving)
			return generation;
		if (number > top) {
			top = number;
			newest = generation;
		}
	}
	return serving >= 0 ? NULL : newest;
}

long long status_ready(const json_t *service)
{
	const json_t *workers = json_object_get(serving_generation(service), "workers"), *worker;
	long long n = 0;
	size_t i;

	json_array_foreach (workers, i, worker) {
		n += streq(field_text_or(worker, "state", ""), "ready");
	}
	return n;
}

/* "7:75% 8:25%". The caller frees; NULL: out of memory. */
static char *format_traffic(const json_t *service)
{
	const json_t *generations = json_object_get(service, "generations"), *generation;
	char percent[TEXT_PERCENT_MAX], *text = strdup("");
	size_t i;

	json_array_foreach (generations, i, generation) {
		double traffic = field_number(generation, "traffic");
		char *longer;

		if (traffic <= 0 || !text)
			continue;
		longer = xasprintf("%s%s%lld:%s", text, *text ? " " : "",
			field_int(generation, "number", 0), text_percent(traffic, percent));
		free(text);
		text = longer;
	}
	return text;
}

const char *status_measured(const json_t *object, char buf[static STATUS_MEASURED_MAX])
{
	*buf = '\0';
	if (!field_null(object, "measured"))
		snprintf(buf, STATUS_MEASURED_MAX, " (%.1f%% of %lld seen)",
			field_number(object, "measured"), field_int(object, "measuredOf", 0));
	return buf;
}

static const char *ago(uint64_t since, uint64_t now, char buf[static TEXT_SPAN_MAX])
{
	return since == 0 ? "" : text_span(now > since ? now - since : 0, buf);
}

/* "7 -> 8" during a rollout, else "8". The caller frees. */
static char *generation_text(const json_t *service)
{
	const json_t *rollout = json_object_get(service, "rollout");

	if (json_is_object(rollout) && !field_null(rollout, "fromGeneration"))
		return xasprintf("%lld -> %lld", field_int(rollout, "fromGeneration", 0),
			field_int(rollout, "toGeneration", 0));
	if (json_is_object(rollout))
		return xasprintf("%lld", field_int(rollout, "toGeneration", 0));
	if (field_null(service, "generation"))
		return strdup("");
	return xasprintf("%lld", field_int(service, "generation", 0));
}

/* Strings of a JSON array in one line. The caller frees. */
static char *join(const json_t *array, const char *key)
{
	char *text = strdup("");
	const json_t *value;
	size_t i;

	json_array_foreach (array, i, value) {
		const char *s = key ? field_text(value, key) : json_string_value(value);
		char *longer =
			text ? xasprintf("%s%s%s", text, *text ? ", " : "", s ? s : "?") : NULL;

		free(text);
		text = longer;
	}
	return text;
}

static void note(struct output *o, const char *prefix, enum paint paint, const char *format, ...)
	_printf_(4, 5);

static void note(struct output *o, const char *prefix, enum paint paint, const char *format, ...)
{
	_cleanup_free_ char *s = NULL;
	va_list ap;
	int r;

	va_start(ap, format);
	r = vasprintf(&s, format, ap);
	va_end(ap);
	if (r < 0) {
		s = NULL;
		return;
	}
	output_text(o, PAINT_PLAIN, prefix);
	output_text(o, paint, s);
	fputc('\n', o->file);
}

/* ", 12s of soak left, verified". The caller frees. */
static char *proof_text(const json_t *rollout, uint64_t now_usec)
{
	uint64_t until = field_usec(rollout, "soakUntilUsec");
	const char *verify = field_text_or(rollout, "verify", "");
	char span[TEXT_SPAN_MAX];
	bool soaks = until > now_usec;

	return xasprintf("%s%s%s%s", soaks ? ", " : "",
		soaks ? text_span(until - now_usec, span) : "", soaks ? " of soak left" : "",
		streq(verify, "running")  ? ", being verified"
		: streq(verify, "passed") ? ", verified"
					  : "");
}

static void note_rollout(
	struct output *o, const json_t *service, const char *prefix, uint64_t now_usec)
{
	const json_t *rollout = json_object_get(service, "rollout");
	const char *phase = field_text_or(rollout, "phase", "?");
	_cleanup_free_ char *generations = generation_text(service), *step = NULL;
	_cleanup_free_ char *proof = proof_text(rollout, now_usec);
	char percent[TEXT_PERCENT_MAX], span[TEXT_SPAN_MAX], measured[STATUS_MEASURED_MAX];

	if (field_int(rollout, "steps", 0) > 1)
		step = xasprintf(", step %lld of %lld", field_int(rollout, "step", 0),
			field_int(rollout, "steps", 0));
	note(o, prefix, PAINT_WARN,
		"rollout %s (%s): %s%s%s, %s%s of new connections, %lld of %lld ready, for %s, "
		"asked by %s",
		generations ? generations : "?", field_text_or(rollout, "strategy", "?"),
		streq(phase, "rollingBack") ? "rolling back" : phase, step ? step : "",
		proof ? proof : "", text_percent(field_number(rollout, "traffic"), percent),
		status_measured(rollout, measured), field_int(rollout, "ready", 0),
		field_int(rollout, "workers", 0),
		ago(field_usec(rollout, "sinceUsec"), now_usec, span),
		field_text_or(rollout, "requestedBy", "?"));
	if (streq(phase, "paused"))
		note(o, prefix, PAINT_WARN,
			"paused: `tenurectl promote %s` goes on, `tenurectl abort %s` goes back",
			field_text_or(service, "name", "?"), field_text_or(service, "name", "?"));
}

static void note_generations(
	struct output *o, const json_t *service, const char *prefix, uint64_t now_usec)
{
	const json_t *generations = json_object_get(service, "generations"), *generation;
	size_t i;

	json_array_foreach (generations, i, generation) {
		const char *state = field_text_or(generation, "state", "");
		char span[TEXT_SPAN_MAX], connections[48] = "";

		if (field_true(generation, "adopted") && streq(state, "serving"))
			note(o, prefix, PAINT_DIM,
				"generation %lld is taken over: a process that ran before, and "
				"goes on if it is not replaced",
				field_int(generation, "number", 0));
		if (!streq(state, "draining") && !streq(state, "warm"))
			continue;
		if (!field_null(generation, "connections"))
			snprintf(connections, sizeof(connections), ", %lld connections left",
				field_int(generation, "connections", 0));
		if (streq(state, "warm")) {
			uint64_t until = field_usec(generation, "warmUntilUsec");

			note(o, prefix, PAINT_DIM,
				"generation %lld is kept warm for another %s%s: `tenurectl "
				"rollback %s` goes back to it at once",
				field_int(generation, "number", 0),
				text_span(until > now_usec ? until - now_usec : 0, span),
				connections, field_text_or(service, "name", "?"));
			continue;
		}
		note(o, prefix, PAINT_DIM, "generation %lld drains for %s%s",
			field_int(generation, "number", 0),
			ago(field_usec(generation, "sinceUsec"), now_usec, span), connections);
	}
}

/* A glance is a moment: one or two that wait mean nothing, but they are not hidden either. */
static void note_queues(struct output *o, const json_t *service, const char *prefix)
{
	const json_t *listeners = json_object_get(service, "listeners"), *listener, *queue;
	long long all = 0, most = 0, backlog = 0;
	const char *where = NULL;
	size_t i, j;

	json_array_foreach (listeners, i, listener) {
		long long waiting = 0;

		json_array_foreach (json_object_get(listener, "queue"), j, queue) {
			/* Where there is no limit in connections, it is bytes. */
			if (field_int(queue, "limit", 0) > 0)
				waiting += field_int(queue, "waiting", 0);
		}
		all += waiting;
		if (waiting > most) {
			most = waiting;
			where = field_text_or(listener, "address", "?");
			backlog = field_int(listener, "backlog", 0);
		}
	}
	if (all > 0)
		note(o, prefix, most * 2 > backlog ? PAINT_BAD : PAINT_DIM,
			"%lld connection%s wait%s to be accepted%s at %s (backlog %lld)", all,
			all == 1 ? "" : "s", all == 1 ? "s" : "",
			most < all ? ", most of them" : "", where, backlog);
}

static void print_indented(struct output *o, const char *prefix, const char *text)
{
	while (*text) {
		size_t len = strcspn(text, "\n");
		_cleanup_free_ char *line = strndup(text, len);

		output_text(o, PAINT_PLAIN, prefix);
		fputs("    ", o->file);
		output_text(o, PAINT_PLAIN, line);
		fputc('\n', o->file);
		text += len + (text[len] == '\n');
	}
}

static void note_failure(struct output *o, const json_t *service, const char *prefix, bool verbose,
	uint64_t now_usec)
{
	const json_t *failure = json_object_get(service, "lastFailure");
	const char *status = field_text(failure, "status"), *output = field_text(failure, "output");
	char span[TEXT_SPAN_MAX], generation[48] = "", worker[32] = "";
	bool cut;

	/* There is none yet when it could not even be started. */
	if (field_int(failure, "generation", 0) > 0)
		snprintf(generation, sizeof(generation), "generation %lld",
			field_int(failure, "generation", 0));
	if (!field_null(failure, "worker"))
		snprintf(worker, sizeof(worker), ", worker %lld", field_int(failure, "worker", 0));
	note(o, prefix, PAINT_BAD, "last failure %s ago: %s%s%s%s%s%s%s",
		ago(field_usec(failure, "atUsec"), now_usec, span), generation, worker,
		*generation ? ": " : "", field_text_or(failure, "reason", "?"), status ? " (" : "",
		status ? status : "", status ? ")" : "");
	if (verbose && output && *output)
		print_indented(o, prefix, text_last_lines(output, FAILURE_LINES, &cut));
}

void status_notes(struct output *o, const json_t *service, const char *prefix, bool verbose,
	uint64_t now_usec)
{
	const char *name = field_text_or(service, "name", "?");
	const json_t *pending = json_object_get(service, "pending");

	if (json_is_object(json_object_get(service, "rollout")))
		note_rollout(o, service, prefix, now_usec);
	if (field_true(service, "queued"))
		note(o, prefix, PAINT_WARN, "another upgrade waits behind it");
	note_generations(o, service, prefix, now_usec);
	if (!verbose)
		note_queues(o, service, prefix); /* else there is a table of them */
	if (json_array_size(pending) > 0) {
		_cleanup_free_ char *what = join(pending, NULL);

		note(o, prefix, PAINT_WARN,
			"pending: not the same on disk as in service: %s; `tenurectl upgrade %s`",
			what ? what : "?", name);
	}
	if (field_true(service, "scaled"))
		note(o, prefix, PAINT_WARN, "scaled to %lld by hand, until the next reload",
			field_int(service, "workersWanted", 0));
	if (json_is_object(json_object_get(service, "lastFailure")))
		note_failure(o, service, prefix, verbose, now_usec);
}

void status_overview(struct output *o, const json_t *services, uint64_t now_usec)
{
	static const struct table_column columns[] = {
		{"SERVICE",    false, false},
		{"STATE",	  false, false},
		{"GENERATION", false, false},
		{"WORKERS",    false, false},
		{"TRAFFIC",    false, false},
		{"SINCE",	  false, false},
		{"LISTENERS",  false, true },
	};
	_cleanup_table_ struct table table = TABLE_INIT(columns);
	const json_t *service;
	size_t i;

	json_array_foreach (services, i, service) {
		const char *state = field_text_or(service, "state", "?");
		const json_t *generation = serving_generation(service);
		_cleanup_free_ char *number = generation_text(service);
		_cleanup_free_ char *traffic = format_traffic(service);
		_cleanup_free_ char *listeners =
			join(json_object_get(service, "listeners"), "address");
		long long ready = status_ready(service);
		long long wanted = field_int(service, "workersWanted", 0);
		char span[TEXT_SPAN_MAX];

		table_add(&table, PAINT_BOLD, field_text_or(service, "name", "?"));
		table_add(&table, field_true(service, "healthy") ? status_paint(state) : PAINT_BAD,
			state);
		table_add(&table, PAINT_PLAIN, number);
		table_addf(&table, ready < wanted ? PAINT_WARN : PAINT_PLAIN, "%lld/%lld", ready,
			wanted);
		table_add(&table, PAINT_PLAIN, traffic);
		table_add(&table, PAINT_PLAIN,
			ago(field_usec(generation, "sinceUsec"), now_usec, span));
		table_add(&table, PAINT_PLAIN, listeners);
	}
	if (i == 0)
		output_printf(o, "no services: the configuration has none\n");
	table_print(&table, o, 0);
	json_array_foreach (services, i, service) {
		_cleanup_free_ char *prefix =
			xasprintf("%s: ", field_text_or(service, "name", "?"));

		if (prefix)
			status_notes(o, service, prefix, false, now_usec);
	}
}

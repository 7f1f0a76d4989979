/* SPDX-License-Identifier: Apache-2.0 */
/* The renderers, tables and the line of a rollout, printed into memory. */
#include "unit.h"

#include "ctl/context.h"
#include "ctl/problem.h"
#include "ctl/progress.h"
#include "ctl/table.h"
#include "ctl/text.h"

struct memory {
	char *text, *error_text;
	size_t size, error_size;
	struct output output;
};

static void memory_open(struct memory *m, const struct renderer *renderer)
{
	*m = (struct memory){.output = {.renderer = renderer}};
	m->output.file = open_memstream(&m->text, &m->size);
	m->output.errors = open_memstream(&m->error_text, &m->error_size);
	ck_assert(m->output.file && m->output.errors);
}

static void memory_assert(struct memory *m, const char *expected, const char *expected_error)
{
	fclose(m->output.file);
	fclose(m->output.errors);
	ck_assert_str_eq(m->text, expected);
	ck_assert_str_eq(m->error_text, expected_error);
	free(m->text);
	free(m->error_text);
}

static void print_name(struct output *o, json_t *value, void *userdata)
{
	output_printf(o, "%s ", (const char *)userdata);
	output_text(o, PAINT_GOOD, field_text(value, "name"));
	fputc('\n', o->file);
}

static void say_all(struct output *o)
{
	_cleanup_json_ json_t *value = json_pack("{s:s}", "name", "a\033b");

	output_document(o, value, print_name, (void *)(uintptr_t) "it is");
	output_record(o, value, "a record");
	output_remark(o, "a %s", "remark");
	output_failure(o, value);
	output_error(o, "an %s", "error");
	output_error_detail(o, "one\n\n\033two");
}

START_TEST(as_text)
{
	struct memory m;
	const char *errors = "tenurectl: an error\n    one\n    \n    ?two\n";

	memory_open(&m, &renderer_text);
	say_all(&m.output);
	memory_assert(&m, "it is a?b\na record\na remark\n", errors);
	memory_open(&m, &renderer_text);
	m.output.quiet = true;
	m.output.colour = true;
	say_all(&m.output);
	memory_assert(&m, "it is \033[32ma?b\033[0m\n", errors);
}
END_TEST

START_TEST(as_json)
{
	struct memory m;

	memory_open(&m, &renderer_json);
	say_all(&m.output);
	memory_assert(&m,
		"{\n  \"name\": "
		"\"a\\u001Bb\"\n}\n{\"name\":\"a\\u001Bb\"}\n{\"name\":\"a\\u001Bb\"}\n",
		"tenurectl: an error\n    one\n    \n    ?two\n");
}
END_TEST

static const struct table_column columns[] = {
	{"NAME",	 false, false},
	{"N",     true,  false},
	{"EMPTY", false, false},
	{"TEXT",	 false, true },
};

static void fill(struct table *t)
{
	static const char *const texts[] = {"short", "much longer than that\n"};

	*t = TABLE_INIT(columns);
	for (unsigned i = 0; i < 2; i++) {
		table_add(t, PAINT_BOLD, i ? "second" : "a");
		table_addf(t, PAINT_PLAIN, "%u", i * 100);
		table_add(t, PAINT_PLAIN, NULL);
		table_add(t, PAINT_PLAIN, texts[i]);
	}
}

START_TEST(tables)
{
	_cleanup_table_ struct table empty = TABLE_INIT(columns);
	struct table t;
	struct memory m;

	memory_open(&m, &renderer_text);
	table_print(&empty, &m.output, 0);
	fill(&t);
	table_print(&t, &m.output, 2);
	table_done(&t);
	memory_assert(&m,
		"  NAME      N  TEXT\n"
		"  a         0  short\n"
		"  second  100  much longer than that \n",
		"");
	memory_open(&m, &renderer_text);
	m.output.columns = 25;
	fill(&t);
	table_print(&t, &m.output, 0);
	table_done(&t);
	memory_assert(&m,
		"NAME      N  TEXT\n"
		"a         0  short\n"
		"second  100  much long...\n",
		"");
}
END_TEST

START_TEST(rollout_line)
{
	struct output o = {.renderer = &renderer_text};
	_cleanup_json_ json_t *rollout = json_pack("{s:i, s:i, s:s, s:f, s:i, s:i, s:i, s:i}",
		"fromGeneration", 7, "toGeneration", 8, "phase", "soaking", "traffic", 50.0,
		"ready", 1, "workers", 2, "step", 2, "steps", 3);
	struct progress_row row = {.service = "web",
		.rollout = rollout,
		.message = (char[]){"a message"},
		.started_usec = USEC_PER_SEC};
	_cleanup_free_ char *line = progress_line(&o, &row, 5, 3 * USEC_PER_SEC + 500000);

	ck_assert_str_eq(line, "web    soaking       7 -> 8  [##########----------]  50%  ready "
			       "1/2  step 2/3  2.5s  "
			       "a message");
	for (o.columns = 20; o.columns < 120; o.columns++) {
		_cleanup_free_ char *cut = progress_line(&o, &row, 5, 0);

		ck_assert_uint_lt(text_width(cut, false), o.columns);
	}
	row.end = PROGRESS_FAILED;
	row.ended_usec = 13 * USEC_PER_SEC;
	row.rollout = NULL;
	o.columns = 0;
	free(line);
	line = progress_line(&o, &row, 3, USEC_INFINITY);
	ck_assert_str_eq(line, "web  failed        12s  a message");
}
END_TEST

START_TEST(exit_codes)
{
	static const struct {
		const char *error;
		int code;
	} cases[] = {
		{"NoSuchService",	  1},
		{"RolloutInProgress",    5},
		{"TooManyGenerations",   5},
		{"InvalidConfiguration", 7},
		{"RolledBack",	       6},
		{"NotPermitted",	 4},
		{"Failed",		   1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *name = xasprintf(CLIENT_INTERFACE "%s", cases[i].error);

		ck_assert_int_eq(problem_exit_code(name), cases[i].code);
	}
	ck_assert_int_eq(problem_exit_code("com.example.Other"), 1);
}
END_TEST

/* A daemon that leaves out everything it should say, or says it in another type. */
START_TEST(errors_without_parameters)
{
	static const char *const names[] = {"NoSuchService", "NoSuchGeneration", "NotRunning",
		"RolloutInProgress", "NoRollout", "TooManyGenerations", "InvalidConfiguration",
		"RolledBack", "Superseded", "NotPermitted", "Failed", "ExpectedMore"};
	_cleanup_json_ json_t *empty = json_object();
	_cleanup_json_ json_t *strange = json_pack("{s:[i,n,s], s:[n,{s:i}], s:i, s:{}, s:i}",
		"known", 1, "x", "problems", "line", 3, "service", 5, "reason", "output", 7);

	ck_assert_ptr_nonnull(strange);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *name = xasprintf(CLIENT_INTERFACE "%s", names[i]);
		struct memory m;

		memory_open(&m, &renderer_text);
		problem_print(&m.output, NULL, name, empty);
		problem_print(&m.output, "web", name, strange);
		problem_print(&m.output, "web", name, NULL);
		fclose(m.output.file);
		fclose(m.output.errors);
		ck_assert_ptr_nonnull(strstr(m.error_text, "tenurectl: "));
		free(m.text);
		free(m.error_text);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		as_text,
		as_json,
		tables,
		rollout_line,
		exit_codes,
		errors_without_parameters,
	};

	return run_tests("ctl_output", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files: what each key means and what each mistake is answered with, from two golden
 * files; includes, permissions; and files that are meant to do harm. */
#include "daemon/config_yaml.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>

#include "config_dump.h"
#include "config_scratch.h"
#include "unit.h"

#define BASE "services:\n  web:\n    command: x\n    listen: 8080\n"

/* --- what is said about a text ---------------------------------------------- */

static void assert_problems(const char *text, const char *expected)
{
	_cleanup_free_ char *lines = problems_of(text, strlen(text));

	ck_assert_msg(
		streq(lines, expected), "%s\nexpected:\n%sbut got:\n%s", text, expected, lines);
}

/* --- golden files ----------------------------------------------------------- */

struct golden {	   /* one case */
	bool keys; /* of the service in BASE; else a whole file */
	char *yaml;
	char *expected;
};

static void golden_done(struct golden *g)
{
	free(g->yaml);
	free(g->expected);
	*g = (struct golden){0};
}

/* The next case; false at the end. line: the header's, read ahead. */
static bool golden_next(FILE *f, char **line, size_t *size, struct golden *ret)
{
	bool expecting = false;

	*ret = (struct golden){.yaml = append(NULL, ""), .expected = append(NULL, "")};
	while (!startswith(*line, "=== "))
		if (getline(line, size, f) < 0)
			return false;
	ret->keys = streq(*line, "=== keys\n");
	while (getline(line, size, f) >= 0 && !startswith(*line, "=== ")) {
		if (streq(*line, "--->\n")) {
			expecting = true;
			continue;
		}
		if (expecting)
			ret->expected = append(ret->expected, *line);
		else
			ret->yaml = append(append(ret->yaml, ret->keys ? "    " : ""), *line);
	}
	ck_assert_msg(expecting, "a case without --->");
	if (feof(f))
		**line = '\0';
	return true;
}

static char *lines_that_differ(const struct service_config *s, char *const *base, bool prefix)
{
	_cleanup_strv_ char **lines = config_dump_service(s, scratch_directory);
	char *all = strdup("");

	for (size_t i = 0; lines[i]; i++) {
		bool known = false;

		for (size_t j = 0; base[j]; j++)
			known = known || streq(base[j], lines[i]);
		if (known)
			continue;
		if (prefix)
			all = append(append(all, s->name), ": ");
		all = append(append(all, lines[i]), "\n");
	}
	return all;
}

/* What was read differs from BASE in these lines. */
static char *meaning_of(const struct golden *g, const char *yaml)
{
	_cleanup_config_ struct config *c = NULL, *base = NULL;
	_cleanup_strv_ char **base_lines = NULL;
	_cleanup_free_ char *problems = NULL, *none = NULL;
	char *all = strdup("");

	write_text("t.yaml", BASE);
	ck_assert_uint_eq(load("t.yaml", &base, &none), 0);
	base_lines = config_dump_service(&base->services[0], scratch_directory);
	write_text("t.yaml", yaml);
	load("t.yaml", &c, &problems);
	all = append(all, problems);
	for (size_t i = 0; i < c->n_services; i++) {
		_cleanup_free_ char *lines =
			lines_that_differ(&c->services[i], base_lines, !g->keys);

		all = append(all, lines);
	}
	return all;
}

static char *answer_of(const struct golden *g, bool errors)
{
	_cleanup_free_ char *yaml = xasprintf("%s%s", g->keys ? BASE : "", g->yaml);

	return errors ? problems_of(yaml, strlen(yaml)) : meaning_of(g, yaml);
}

static void check_golden(const char *name, bool errors, unsigned least)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", scratch_golden_directory, name);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	_cleanup_free_ char *line = strdup("");
	size_t size = 1;
	struct golden g;
	unsigned n = 0;

	ck_assert_msg(f, "%s: %s", path, strerror(errno));
	for (; golden_next(f, &line, &size, &g); golden_done(&g), n++) {
		_cleanup_free_ char *answer = answer_of(&g, errors);

		ck_assert_msg(streq(answer, g.expected), "%s\nexpected:\n%sbut got:\n%s", g.yaml,
			g.expected, answer);
	}
	golden_done(&g);
	ck_assert_uint_ge(n, least); /* the file was there and was read */
}

START_TEST(meaning_of_each_key)
{
	scratch_enter();
	check_golden("config_keys.golden", false, 60);
	scratch_leave();
}
END_TEST

START_TEST(answer_to_each_mistake)
{
	scratch_enter();
	check_golden("config_errors.golden", true, 200);
	scratch_leave();
}
END_TEST

/* --- mistakes that do not fit a golden file --------------------------------- */

START_TEST(long_values)
{
	static const struct {
		const char *before, *what;
		size_t n;
		const char *after, *expected;
	} cases[] = {
		{"services:\n  web:\n    command: ",		     "x ",	   16500,  "\n",
			"3:14: error: command: a string of more than 32K; write a list of words\n"					  },
		{"services:\n  web:\n    command: [",		      "x, ",	     4097,   "]\n",
			"3:14: error: command: 4097 items; at most 4096 are possible\n"						       },
		{"services:\n  web:\n    command: x\n    user: ",	  "u",	       140000, "\n",
			"4:11: error: the text is longer than 128K\n"								     },
		{BASE "    listen2: ",			       "[",	    33,	"",    "5:43: error: nested too deeply\n"},
		{BASE "    x: [",				    "a, ",	 200001, "]\n",
			"5:599976: error: the file has too many values\n"								 },
		{BASE "    fingerprint: [",			    "&a b, ",    257,	   "]\n",
			"5:1555: error: the file has too many anchors\n"									},
		{"services:\n  web:\n    command: x\n    listen: [", "unix:/x, ", 65,     "]\n",
			"4:590: error: more than 64 listeners in one service\n"							       },
	};

	scratch_enter();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *text =
			repeat(cases[i].before, cases[i].what, cases[i].n, cases[i].after);
		_cleanup_free_ char *lines = problems_of(text, strlen(text));

		/* The last line: before it there may be as many more as there were values. */
		ck_assert_msg(strlen(lines) >= strlen(cases[i].expected) &&
				      streq(lines + strlen(lines) - strlen(cases[i].expected),
					      cases[i].expected),
			"expected:\n%sbut got:\n%.2000s", cases[i].expected, lines);
	}
	scratch_leave();
}
END_TEST

START_TEST(not_text)
{
	static const char with_nul[] = "services:\0{}\n";
	_cleanup_free_ char *lines = NULL;

	scratch_enter();
	assert_problems("\xff\n", "1:1: error: not UTF-8 text: invalid leading UTF-8 octet\n");
	assert_problems("services:\n  web: {command: \"\xc3\x28\"}\n",
		"2:20: error: not UTF-8 text: invalid trailing UTF-8 octet\n");
	lines = problems_of(with_nul, sizeof(with_nul) - 1);
	ck_assert_str_eq(
		lines, "1:10: error: not UTF-8 text: control characters are not allowed\n");
	assert_problems(
		"", "t.yaml: error: the file is empty; with \"services: {}\" there are none\n");
	assert_problems("# Nothing\n",
		"t.yaml: error: the file is empty; with \"services: {}\" there are none\n");
	assert_problems("services: {}\n", "t.yaml: warning: there are no services\n");
	scratch_leave();
}
END_TEST

/* --- files ------------------------------------------------------------------ */

static char *problems_of_file(const char *path)
{
	_cleanup_config_ struct config *c = NULL;
	char *lines = NULL;

	load(path, &c, &lines);
	return lines;
}

START_TEST(files_that_cannot_be_read)
{
	struct config_problems problems = {0};
	_cleanup_error_ struct error error = ERROR_NULL;
	struct config *c = NULL;
	_cleanup_free_ char *lines = NULL, *fifo = NULL, *large = NULL;

	scratch_enter();
	ck_assert_int_eq(config_load("nothere.yaml", &c, &problems, &error), -ENOENT);
	ck_assert_str_eq(
		error_message(&error), "nothere.yaml cannot be read: No such file or directory");
	ck_assert_ptr_null(c);
	ck_assert_uint_eq(problems.n, 0);
	config_problems_done(&problems);

	lines = problems_of_file("."); /* a directory */
	ck_assert_str_eq(lines, ".: error: not a regular file\n");
	ck_assert_int_eq(mkfifo("fifo", 0600), 0); /* nobody writes: a plain open() would wait */
	fifo = problems_of_file("fifo");
	ck_assert_str_eq(fifo, "fifo: error: not a regular file\n");
	write_text("large.yaml", "");
	ck_assert_int_eq(truncate("large.yaml", (4 << 20) + 1), 0);
	large = problems_of_file("large.yaml");
	ck_assert_str_eq(large, "large.yaml: error: larger than a configuration may be (4M for a "
				"file, 16M for all)\n");
	scratch_leave();
}
END_TEST

START_TEST(files_that_others_can_write)
{
	_cleanup_free_ char *everybody = NULL, *group = NULL;

	scratch_enter();
	write_text("t.yaml", BASE);
	ck_assert_int_eq(chmod("t.yaml", 0666), 0);
	everybody = problems_of_file("t.yaml");
	if (geteuid() == 0) {
		ck_assert_str_eq(everybody, "t.yaml: error: everybody can write this file, which "
					    "decides what runs as root; chmod o-w it\n");
		ck_assert_int_eq(chmod("t.yaml", 0664), 0);
		ck_assert_int_eq(chown("t.yaml", 65534, 65534), 0);
		group = problems_of_file("t.yaml");
		ck_assert_str_eq(group, "t.yaml: warning: group 65534 can write this file, which "
					"decides what runs as root\n"
					"t.yaml: warning: user 65534 owns this file, which decides "
					"what runs as root\n");
	} else {
		ck_assert_str_eq(everybody, "");
	}
	scratch_leave();
}
END_TEST

START_TEST(includes)
{
	_cleanup_config_ struct config *c = NULL, *again = NULL;
	_cleanup_free_ char *lines = NULL, *same = NULL, *resolved = NULL;

	scratch_enter();
	ck_assert_int_eq(mkdir("conf", 0755), 0);
	ck_assert_int_eq(mkdir("conf/d", 0755), 0);
	write_text("conf/main.yaml", "include: [d/*.yaml, none/*.yaml]\n"
				     "services: {z: {command: x, directory: sub}}\n");
	write_text("conf/d/b.yaml", "services: {b: {command: x}}\n");
	write_text("conf/d/a.yaml", "services: {a: {command: x, directory: ./sub}}\n");
	write_text("conf/d/c.txt", "services: {c: {command: x}}\n");
	ck_assert_uint_eq(load("conf/main.yaml", &c, &lines), 0);
	ck_assert_str_eq(lines, "");
	ck_assert_uint_eq(c->n_services, 3);
	ck_assert_str_eq(c->services[0].name, "z");
	ck_assert_str_eq(c->services[1].name, "a");
	ck_assert_str_eq(c->services[2].name, "b");
	ck_assert_str_eq(c->services[1].place.file, "conf/d/a.yaml");
	/* Relative paths are relative to the file they are written in. */
	resolved = xasprintf("%s/conf/d/sub", scratch_directory);
	ck_assert_str_eq(c->services[1].directory, resolved);
	ck_assert_uint_eq(strv_length(c->files), 3);
	/* The same from elsewhere, by an absolute path. */
	free(resolved);
	resolved = xasprintf("%s/conf/main.yaml", scratch_directory);
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_uint_eq(load(resolved, &again, &same), 0);
	ck_assert_str_eq(again->services[0].directory, c->services[0].directory);
	scratch_leave();
}
END_TEST

START_TEST(includes_with_mistakes)
{
	scratch_enter();
	write_text("a.yaml", "services: {web: {command: x}}\n");
	write_text("b.yaml", "services:\n  web: {command: x, listen: 0}\n");
	write_text("c.yaml", "include: a.yaml\ncontrol: {}\non_terminate: stop\nservice: {}\n");
	write_text("d.yaml", "services: [\n");
	ck_assert_int_eq(symlink("a.yaml", "e.yaml"), 0);
	assert_problems("include: \"*.yaml\"\n" BASE,
		"1:10: error: include: \"e.yaml\" is read twice\n"
		"1:10: error: include: \"t.yaml\" is read twice\n"
		"a.yaml:1:12: error: service \"web\" is already defined in t.yaml:3\n"
		"b.yaml:2:3: error: service \"web\" is already defined in t.yaml:3\n"
		"b.yaml:2:29: error: \"0\" is not an address; a port is between 1 and 65535\n"
		"c.yaml:1:1: error: \"include\" belongs into the main file\n"
		"c.yaml:2:1: error: \"control\" belongs into the main file\n"
		"c.yaml:3:1: error: \"on_terminate\" belongs into the main file\n"
		"c.yaml:4:1: error: unknown key \"service\" in an included file; did you mean "
		"\"services\"?\n"
		"d.yaml:2:1: error: did not find expected node content, while parsing a flow "
		"node\n");
	scratch_leave();
}
END_TEST

START_TEST(example_is_good)
{
	_cleanup_config_ struct config *c = NULL;
	_cleanup_free_ char *lines = NULL;

	load(scratch_example, &c, &lines);
	if (geteuid() != 0) /* root is warned when somebody else owns the file */
		ck_assert_str_eq(lines, "");
	ck_assert_ptr_null(strstr(lines, "error"));
	ck_assert_uint_eq(c->n_services, 5);
}
END_TEST

START_TEST(keys_of_the_daemon)
{
	_cleanup_config_ struct config *c = NULL, *empty = NULL;
	_cleanup_free_ char *lines = NULL, *none = NULL;

	scratch_enter();
	write_text("t.yaml",
		BASE "on_terminate: detach\ncontrol: {socket: /run/x.sock, mode: 0600, "
		     "operators: [root, \"@deploy\"], observers: []}\n");
	load("t.yaml", &c, &lines);
	ck_assert_str_eq(lines, "");
	ck_assert_int_eq(c->on_terminate, ON_TERMINATE_DETACH);
	ck_assert_str_eq(c->control.socket, "/run/x.sock");
	ck_assert_uint_eq(c->control.mode, 0600);
	ck_assert_uint_eq(strv_length(c->control.operators), 2);
	ck_assert_str_eq(c->control.operators[1], "@deploy");
	ck_assert_ptr_nonnull(c->control.observers);
	ck_assert_uint_eq(strv_length(c->control.observers), 0);

	write_text("t.yaml", BASE);
	load("t.yaml", &empty, &none);
	ck_assert_int_eq(empty->on_terminate, ON_TERMINATE_AUTO);
	ck_assert_ptr_null(empty->control.socket);
	ck_assert_uint_eq(empty->control.mode, 0666);
	ck_assert_ptr_null(empty->control.operators);
	ck_assert_ptr_null(empty->control.observers);
	scratch_leave();
}
END_TEST

/* The four lines of the README. */
START_TEST(smallest_useful_file)
{
	_cleanup_config_ struct config *c = NULL;
	_cleanup_free_ char *lines = NULL;
	const struct service_config *s;

	scratch_enter();
	write_text("t.yaml",
		"services:\n  web:\n    command: bin/web --fd {fd:http}\n    listen: 8080\n");
	load("t.yaml", &c, &lines);
	ck_assert_str_eq(lines, "");
	s = config_find(c, "web");
	ck_assert_ptr_nonnull(s);
	ck_assert_str_eq(s->command[0], "bin/web");
	ck_assert_str_eq(s->command[2], "{fd:http}");
	ck_assert_str_eq(s->directory, scratch_directory);
	ck_assert_ptr_nonnull(service_config_find_listener(s, "http"));
	ck_assert_uint_eq(s->handoff, HANDOFF_LISTEN_FDS | HANDOFF_ARGUMENTS);
	scratch_leave();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		meaning_of_each_key,
		answer_to_each_mistake,
		long_values,
		not_text,
		files_that_cannot_be_read,
		files_that_others_can_write,
		includes,
		includes_with_mistakes,
		example_is_good,
		keys_of_the_daemon,
		smallest_useful_file,
	};

	scratch_find_files();
	return run_tests("config_yaml", tests, ARRAY_SIZE(tests));
}

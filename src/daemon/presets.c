/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/presets.h"

#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <string.h>

#include "base/parse.h"
#include "core/config_resolve.h"
#include "core/dialect.h"
#include "core/preset.h"
#include "sys/spawn.h"

enum { EXIT_USAGE = 2 };

/* --- what there is -------------------------------------------------------- */

/* The names of the dialects, with what is between them. The caller frees. */
static char *handoff_words(unsigned handoff, const char *between)
{
	_cleanup_free_ char *all = strdup("");
	const struct dialect *list;
	size_t n;

	list = dialect_list(&n);
	for (size_t i = 0; all && i < n; i++) {
		char *longer;

		if (!(handoff & list[i].kind))
			continue;
		longer = xasprintf("%s%s%s", all, *all ? between : "", list[i].name);
		free(all);
		all = longer;
	}
	return TAKE_PTR(all);
}

static void print_text(const char *label, const char *text)
{
	if (text)
		printf("  %-13s %s\n", label, text);
}

/* Its values as the keys that they stand for. */
static void print_keys(const struct preset *p)
{
	_cleanup_free_ char *words = handoff_words(p->handoff, ", ");
	const char *comma = "";

	printf("    handoff: [%s]\n", words ? words : "?");
	if (p->signal || p->idle_wait_usec || p->timeout_usec) {
		printf("    drain: {");
		if (p->idle_wait_usec) {
			_cleanup_free_ char *text = format_duration(p->idle_wait_usec);

			printf("idle_wait: %s", text ? text : "?");
			comma = ", ";
		}
		if (p->signal) {
			printf("%ssignal: SIG%s", comma, sigabbrev_np(p->signal));
			comma = ", ";
		}
		if (p->timeout_usec) {
			_cleanup_free_ char *text = format_duration(p->timeout_usec);

			printf("%stimeout: %s", comma, text ? text : "?");
		}
		printf("}\n");
	}
	if (p->nonblocking)
		printf("    nonblocking: true     # of each listener\n");
	if (p->nodelay)
		printf("    nodelay: true     # of each TCP listener\n");
	for (size_t i = 0; p->arguments && p->arguments[i].words[0]; i++) {
		const struct preset_argument *a = &p->arguments[i];

		printf("    command: ...");
		for (size_t k = 0; k < ARRAY_SIZE(a->words) && a->words[k]; k++)
			printf(strchr(a->words[k], ' ') ? " \"%s\"" : " %s",
				streq(a->words[k], "{fd:*}") ? "{fd:NAME}" : a->words[k]);
		printf("     # unless it is there\n");
	}
}

static void print_one(const struct preset *p)
{
	printf("%s: %s\n", p->name, p->what);
	print_text("tested with:", p->tested ? p->tested : "nothing yet");
	print_text("it needs:", p->needs);
	print_text("because:", p->why);
	printf("\n  for example\n\n    preset: %s\n    command: %s\n", p->name, p->command);
	printf("\n  where the preset stands for, wherever the service says nothing else,\n\n");
	print_keys(p);
}

static void print_list(void)
{
	const struct preset *list;
	size_t n;

	list = preset_list(&n);
	printf("%-10s %-20s %-14s %s\n", "PRESET", "FOR", "HANDOFF", "TESTED WITH");
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *words = handoff_words(list[i].handoff, ",");

		printf("%-10s %-20s %-14s %s\n", list[i].name, list[i].what, words ? words : "?",
			list[i].tested ? list[i].tested : "-");
	}
}

/* --- the same as JSON ----------------------------------------------------- */

static json_t *json_words(const char *const *words, size_t max)
{
	json_t *array = json_array();

	for (size_t i = 0; i < max && words[i]; i++)
		(void)json_array_append_new(array, json_string(words[i]));
	return array;
}

static json_t *json_handoff(unsigned handoff)
{
	const struct dialect *list;
	json_t *array = json_array();
	size_t n;

	list = dialect_list(&n);
	for (size_t i = 0; i < n; i++)
		if (handoff & list[i].kind)
			(void)json_array_append_new(array, json_string(list[i].name));
	return array;
}

/* Texts that are not there are left out. */
static void set_text(json_t *object, const char *key, const char *text)
{
	if (text)
		(void)json_object_set_new(object, key, json_string(text));
}

static json_t *json_preset(const struct preset *p)
{
	_cleanup_free_ char *idle_wait = format_duration(p->idle_wait_usec);
	_cleanup_free_ char *timeout = format_duration(p->timeout_usec);
	_cleanup_free_ char *signal = xasprintf("SIG%s", p->signal ? sigabbrev_np(p->signal) : "");
	json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:b, s:b, s:b}", "name", p->name, "for",
		p->what, "command", p->command, "handoff", json_handoff(p->handoff), "nonblocking",
		p->nonblocking, "nodelay", p->nodelay, "tested", p->tested != NULL);
	json_t *arguments = json_array();

	for (size_t i = 0; p->arguments && p->arguments[i].words[0]; i++)
		(void)json_array_append_new(arguments,
			json_words(p->arguments[i].words, ARRAY_SIZE(p->arguments[i].words)));
	(void)json_object_set_new(o, "arguments", arguments);
	set_text(o, "idleWait", p->idle_wait_usec ? idle_wait : NULL);
	set_text(o, "timeout", p->timeout_usec ? timeout : NULL);
	set_text(o, "signal", p->signal ? signal : NULL);
	set_text(o, "testedWith", p->tested);
	set_text(o, "needs", p->needs);
	set_text(o, "why", p->why);
	return o;
}

static int print_json(const struct preset *one)
{
	const struct preset *list = one;
	json_t *value;
	size_t n = 1;

	if (!one)
		list = preset_list(&n);
	value = one ? json_preset(one) : json_array();
	for (size_t i = 0; !one && i < n; i++)
		(void)json_array_append_new(value, json_preset(&list[i]));
	if (!value || json_dumpf(value, stdout, JSON_COMPACT) < 0) {
		fprintf(stderr, "tenured: out of memory\n");
		json_decref(value);
		return EXIT_FAILURE;
	}
	json_decref(value);
	printf("\n");
	return EXIT_SUCCESS;
}

int presets_main(int argc, char *argv[])
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{0 },
	};
	const struct preset *one = NULL;
	bool json = false;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c != 'j')
			return EXIT_USAGE;
		json = true;
	}
	if (argc - optind > 1) {
		fprintf(stderr, "tenured: presets takes one NAME\n");
		return EXIT_USAGE;
	}
	if (optind < argc) {
		const char *name = argv[optind], *near;

		one = preset_find(name);
		near = one ? NULL : nearest_word(name, preset_names());
		if (!one) {
			fprintf(stderr, "tenured: there is no preset \"%s\"%s%s%s\n", name,
				near ? "; did you mean \"" : "; see tenurectl presets",
				near ? near : "", near ? "\"?" : "");
			return EXIT_USAGE;
		}
	}
	if (json)
		return print_json(one);
	if (one)
		print_one(one);
	else
		print_list();
	return EXIT_SUCCESS;
}

/* --- hints ---------------------------------------------------------------- */

/* The words behind the "#!" of a program; none: it is no script, or cannot be read. */
static int interpreter_of(const struct service_config *s, char ***ret)
{
	_cleanup_close_ int directory = open(s->directory, O_PATH | O_DIRECTORY | O_CLOEXEC),
			    fd = -1;
	const char *search = strv_env_get(s->environment, "PATH");
	_cleanup_free_ char *path = NULL;
	char line[256], *end;
	ssize_t n;

	if (directory < 0 || spawn_find_program(s->command[0], search ? search : getenv("PATH"),
				     directory, &path) < 0)
		return 0;
	fd = openat(directory, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	if (n < 3 || line[0] != '#' || line[1] != '!')
		return 0;
	line[n] = '\0';
	end = strpbrk(line, "\r\n");
	if (!end)
		return 0;
	*end = '\0';
	n = split_words(line + 2, ret, NULL);
	return n == -ENOMEM ? -ENOMEM : 0;
}

static int hint(const struct service_config *s, struct config_problems *problems)
{
	_cleanup_strv_ char **interpreter = NULL;
	const struct preset *p;

	if (s->preset_set || !s->command || !s->command[0])
		return 0;
	p = preset_guess(s->command, NULL);
	if (!p) {
		if (interpreter_of(s, &interpreter) < 0)
			return -ENOMEM;
		p = interpreter ? preset_guess(s->command, interpreter) : NULL;
	}
	if (p)
		config_problem_add(problems, config_place_or(s->command_place, s->place), true,
			"service \"%s\" looks like %s: write preset: %s, which knows how it takes "
			"its sockets and how it ends (tenurectl presets %s), or preset: none",
			s->name, p->name, p->name, p->name);
	return 0;
}

int presets_hint(const struct config *c, struct config_problems *problems)
{
	for (size_t i = 0; i < c->n_services; i++) {
		int r = hint(&c->services[i], problems);

		if (r < 0)
			return r;
	}
	return 0;
}

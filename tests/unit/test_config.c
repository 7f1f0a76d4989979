/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration's values: ownership, words, and what config_resolve() makes of structures that
 * no file was read for, as the command line builds them. What files say is tested in
 * test_config_yaml.c. */
#include "core/config.h"

#include <signal.h>
#include <sys/resource.h>

#include "config_dump.h"
#include "unit.h"

/* --- problems --------------------------------------------------------------- */

static void assert_formatted(const struct config_problem *p, const char *expected)
{
	_cleanup_free_ char *line = config_problem_format(p);

	ck_assert_str_eq(line, expected);
}

START_TEST(problems_are_kept)
{
	_cleanup_problems_ struct config_problems p = {0};
	char file[] = "a.yaml";

	config_problem_add(&p, (struct config_place){file, 3, 5}, false, "%s is %d", "x", 1);
	config_problem_add(&p, (struct config_place){file, 0, 0}, true, "unwise");
	config_problem_add(&p, (struct config_place){0}, false, "no place");
	memset(file, 'z', sizeof(file) - 1); /* the configuration, and its names, may be gone */
	ck_assert_uint_eq(p.n, 3);
	ck_assert_uint_eq(p.n_errors, 2);
	assert_formatted(&p.list[0], "a.yaml:3:5: error: x is 1");
	assert_formatted(&p.list[1], "a.yaml: warning: unwise");
	assert_formatted(&p.list[2], "error: no place");
	config_problems_done(&p);
	ck_assert_uint_eq(p.n, 0);
	ck_assert_uint_eq(p.n_errors, 0);
}
END_TEST

START_TEST(problems_are_bounded)
{
	_cleanup_problems_ struct config_problems p = {0};
	char text[10000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	config_problem_add(&p, (struct config_place){0}, false, "%s", text);
	ck_assert_uint_le(strlen(p.list[0].message), 500);
	config_problem_add(&p, (struct config_place){0}, false, "\033[2J\xff");
	ck_assert_str_eq(p.list[1].message, "\\x1b[2J\\xff");
	for (int i = 0; i < 5000; i++)
		config_problem_add(&p, (struct config_place){0}, i % 2 == 0, "again");
	ck_assert_uint_eq(p.n, CONFIG_PROBLEMS_MAX);
	ck_assert_uint_eq(p.n_errors, 2502); /* the forgotten ones count */
}
END_TEST

/* --- words ------------------------------------------------------------------ */

START_TEST(names)
{
	static const struct {
		const char *s;
		bool name, user;
	} cases[] = {
		{"web",	true,  true },
		{"a.b_c-9",  true,  true },
		{"9",	      true,  true },
		{"9a",       true,  false},
		{"_x",       true,  true },
		{"m$",       false, true },
		{"m$x",	false, false},
		{"",	     false, false},
		{"x.",       true,  true },
		{"-x",       false, false},
		{"a/b",	false, false},
		{"a b",	false, false},
		{"a:b",	false, false},
		{"\xc3\xa9", false, false},
		{"a\n",	false, false},
	};
	char longest[CONFIG_NAME_MAX + 2];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ck_assert_msg(config_name_valid(cases[i].s) == cases[i].name, "%s", cases[i].s);
		ck_assert_msg(config_user_valid(cases[i].s) == cases[i].user, "%s", cases[i].s);
	}
	ck_assert(!config_name_valid("."));
	ck_assert(!config_name_valid(".."));
	ck_assert(config_name_valid("..."));
	memset(longest, 'n', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	ck_assert(!config_name_valid(longest));
	longest[sizeof(longest) - 2] = '\0';
	ck_assert(config_name_valid(longest));
	ck_assert(config_user_valid("4294967294"));
	ck_assert(!config_user_valid("4294967295"));
	ck_assert(!config_user_valid("18446744073709551616"));
}
END_TEST

START_TEST(signals_and_limits)
{
	int value = 0;

	ck_assert_int_eq(config_signal_from_string("SIGTERM", &value), 0);
	ck_assert_int_eq(value, SIGTERM);
	ck_assert_int_eq(config_signal_from_string("USR2", &value), 0);
	ck_assert_int_eq(value, SIGUSR2);
	ck_assert_int_eq(config_signal_from_string("", &value), -EINVAL);
	ck_assert_int_eq(config_signal_from_string("SIG", &value), -EINVAL);
	ck_assert_int_eq(config_signal_from_string("term", &value), -EINVAL);
	ck_assert_int_eq(config_signal_from_string("15", &value), -EINVAL);
	ck_assert_int_eq(value, SIGUSR2);
	/* Each signal that has a name here has the number that the C library gives it. */
	for (int i = 1; i < 32; i++) {
		const char *name = sigabbrev_np(i);

		ck_assert_int_eq(config_signal_from_string(name, &value), 0);
		ck_assert_int_eq(value, i);
	}
	for (size_t i = 0; config_limit_names[i]; i++)
		ck_assert_int_eq(config_limit_from_string(config_limit_names[i], &value), 0);
	ck_assert_int_eq(config_limit_from_string("nofile", &value), 0);
	ck_assert_int_eq(value, RLIMIT_NOFILE);
	ck_assert_int_eq(config_limit_from_string("stack", &value), 0);
	ck_assert_int_eq(value, RLIMIT_STACK);
	ck_assert_int_eq(config_limit_from_string("NOFILE", &value), -EINVAL);
}
END_TEST

START_TEST(enumerations)
{
	enum strategy strategy = STRATEGY_ROLLING;
	enum overlap overlap = OVERLAP_REJECT;

	for (unsigned i = STRATEGY_BLUE_GREEN; i <= STRATEGY_RECREATE; i++) {
		ck_assert_int_eq(
			strategy_from_string(strategy_to_string((enum strategy)i), &strategy), 0);
		ck_assert_uint_eq(strategy, i);
	}
	ck_assert_int_eq(strategy_from_string("Rolling", &strategy), -EINVAL);
	ck_assert_uint_eq(strategy, STRATEGY_RECREATE);
	for (unsigned i = OVERLAP_REJECT; i <= OVERLAP_SUPERSEDE; i++) {
		ck_assert_int_eq(
			overlap_from_string(overlap_to_string((enum overlap)i), &overlap), 0);
		ck_assert_uint_eq(overlap, i);
	}
	ck_assert_int_eq(overlap_from_string("", &overlap), -EINVAL);
	ck_assert_str_eq(strategy_to_string((enum strategy)99), "unknown");
	ck_assert_str_eq(ready_kind_to_string(READY_HTTP), "http");
	ck_assert_str_eq(ready_kind_to_string((enum ready_kind)99), "unknown");
	ck_assert_str_eq(overlap_to_string((enum overlap)99), "unknown");
}
END_TEST

/* --- services built by hand ------------------------------------------------- */

/* A service that runs x. Borrowed from c. */
static struct service_config *add_service(struct config *c, const char *name)
{
	struct service_config *longer =
		realloc(c->services, (c->n_services + 1) * sizeof(*c->services));
	struct service_config *s;

	ck_assert_ptr_nonnull(longer);
	c->services = longer;
	s = &c->services[c->n_services++];
	ck_assert_int_eq(service_config_init(s, name), 0);
	ck_assert_int_eq(strv_append(&s->command, "x"), 0);
	return s;
}

static struct listener_config *add_listener(
	struct service_config *s, const char *name, const char *address)
{
	struct listener_config *longer =
		realloc(s->listeners, (s->n_listeners + 1) * sizeof(*s->listeners));
	struct listener_config *l;

	ck_assert_ptr_nonnull(longer);
	s->listeners = longer;
	l = &s->listeners[s->n_listeners++];
	listener_config_init(l);
	l->name = name ? strdup(name) : NULL;
	ck_assert_int_eq(address_parse(address, true, &l->address), 0);
	return l;
}

/* All messages, one a line. The caller frees. */
static char *resolve(struct config *c)
{
	_cleanup_problems_ struct config_problems problems = {0};
	char *all = strdup("");

	ck_assert_int_eq(config_resolve(c, 4, &problems), 0);
	for (size_t i = 0; i < problems.n; i++) {
		char *longer = xasprintf("%s%s\n", all, problems.list[i].message);

		free(all);
		all = longer;
	}
	return all;
}

START_TEST(copies_are_deep)
{
	struct config *c = config_new();
	struct service_config *s = add_service(c, "web"), copy;
	_cleanup_strv_ char **before = NULL, **after = NULL;
	struct listener_config *l = add_listener(s, "http", "8080");

	l->owner = strdup("o");
	l->group = strdup("g");
	l = add_listener(s, "inherited", "81");
	l->inherited = true;
	l->inherit = strdup("https");
	s->directory = strdup("/srv");
	s->user = strdup("u");
	s->group = strdup("g");
	s->output = OUTPUT_FILE;
	s->output_file = strdup("/log");
	s->upgrade.preview_from = strdup("127.0.0.2");
	ck_assert_int_eq(strv_append(&s->fingerprint, "REVISION"), 0);
	ck_assert_int_eq(strv_append(&s->environment, "A=b"), 0);
	ck_assert_int_eq(strv_append(&s->ready.command, "check"), 0);
	s->upgrade.verify.path = strdup("/up");
	ck_assert_int_eq(strv_append(&s->upgrade.verify.command, "smoke"), 0);
	cpu_set_add(&s->cpus, 3);
	s->env_files = calloc(1, sizeof(*s->env_files));
	s->env_files[0] = (struct env_file){strdup("e"), true};
	s->n_env_files = 1;
	s->limits = calloc(1, sizeof(*s->limits));
	s->limits[0] = (struct limit_config){RLIMIT_CORE, UINT64_MAX};
	s->n_limits = 1;

	before = config_dump_service(s, "/x");
	ck_assert_int_eq(service_config_copy(s, &copy), 0);
	c = config_free(c); /* under a sanitizer, what is shared shows now */
	after = config_dump_service(&copy, "/x");
	ck_assert(strv_equal(before, after));
	ck_assert_str_eq(copy.name, "web");
	service_config_done(&copy);
	service_config_done(&copy); /* harmless */
	ck_assert_ptr_null(config_free(NULL));
}
END_TEST

START_TEST(defaults_that_depend)
{
	_cleanup_config_ struct config *c = config_new();
	struct service_config *s;
	_cleanup_free_ char *messages = NULL;

	add_listener(add_service(c, "one"), NULL, "8080");
	s = add_service(c, "two");
	s->workers = 2;
	s = add_service(c, "auto");
	s->workers_auto = true;
	s->workers = 0;
	add_listener(s, NULL, "unix:/run/x");
	add_listener(add_service(c, "held"), NULL, "8081")->steering = false;
	messages = resolve(c);
	ck_assert_str_eq(messages, "");
	ck_assert_int_eq(c->services[0].upgrade.strategy, STRATEGY_BLUE_GREEN);
	ck_assert_int_eq(c->services[0].ready.by, READY_ACCEPT);
	ck_assert_str_eq(c->services[0].listeners[0].name, "http");
	ck_assert_int_eq(c->services[1].upgrade.strategy, STRATEGY_ROLLING);
	ck_assert_int_eq(c->services[1].ready.by, READY_DELAY);
	ck_assert_uint_eq(c->services[2].workers, 4);
	ck_assert_int_eq(c->services[2].ready.by, READY_DELAY);
	ck_assert_int_eq(c->services[3].ready.by, READY_DELAY);
	ck_assert_ptr_eq(config_find(c, "auto"), &c->services[2]);
	ck_assert_ptr_null(config_find(c, "none"));
	ck_assert_ptr_null(service_config_find_listener(&c->services[0], "none"));
}
END_TEST

START_TEST(what_the_command_line_can_get_wrong)
{
	_cleanup_config_ struct config *c = config_new();
	struct service_config *s = add_service(c, "web");
	_cleanup_free_ char *messages = NULL;

	s->workers = 0;
	s->user = strdup("a b");
	s->upgrade.steps[0] = 0;
	s->upgrade.surge = 0;
	s->drain.max_generations = 99;
	s->handoff = 0;
	add_listener(s, "http", "8080");
	add_listener(s, "http", "8081");
	s = add_service(c, "web");
	s->command = strv_free(s->command);
	messages = resolve(c);
	ck_assert_str_eq(messages,
		"service \"web\": user: \"a b\" is not a user's name or number\n"
		"two listeners are called \"http\"; give each its own name\n"
		"service \"web\" has listeners but no way to pass them; use handoff: listen-fds, "
		"or "
		"{fd:NAME} in the command\n"
		"workers: 0 is not between 1 and 1024\n"
		"upgrade: each step is more than 0% and at most 100%\n"
		"upgrade: surge is more than 0% and at most 100%\n"
		"drain: max_generations is between 2 and 8\n"
		"service \"web\" has no command; write command: PROGRAM ARGUMENTS\n"
		"service \"web\" is defined twice\n");
}
END_TEST

START_TEST(workers_as_root)
{
	_cleanup_config_ struct config *c = config_new();
	_cleanup_problems_ struct config_problems user = {0}, root = {0};

	add_service(c, "none");
	add_service(c, "root")->user = strdup("root");
	add_service(c, "zero")->user = strdup("0");
	add_service(c, "other")->user = strdup("www-data");
	config_check_root(c, false, &user);
	ck_assert_uint_eq(user.n, 2);
	config_check_root(c, true, &root);
	ck_assert_uint_eq(root.n, 3);
	ck_assert_uint_eq(root.n_errors, 0);
	ck_assert_str_eq(root.list[0].message,
		"service \"none\" runs as root; give it a user of its own with user: NAME");
}
END_TEST

START_TEST(too_many)
{
	_cleanup_config_ struct config *c = config_new(), *services = config_new();
	_cleanup_free_ char *messages = NULL, *more = NULL;

	for (unsigned i = 0; i < 65; i++) {
		_cleanup_free_ char *name = xasprintf("s%u", i);
		struct service_config *s = add_service(c, name);

		for (unsigned j = 0; j < 64; j++) {
			_cleanup_free_ char *path = xasprintf("unix:/run/%u-%u", i, j);

			add_listener(s, NULL, path);
		}
	}
	messages = resolve(c);
	ck_assert_str_eq(messages, "4160 listeners in all; at most 4096 are possible\n");
	for (unsigned i = 0; i < CONFIG_SERVICES_MAX + 1; i++)
		add_service(services, "x");
	more = resolve(services);
	ck_assert_str_eq(more, "1025 services; at most 1024 are possible\n");
}
END_TEST

/* --- overlaps --------------------------------------------------------------- */

static bool overlap(const char *a, bool a_v6only, const char *b, bool b_v6only)
{
	_cleanup_config_ struct config *c = config_new();
	_cleanup_free_ char *messages = NULL;

	add_listener(add_service(c, "a"), "a", a)->v6only = a_v6only;
	add_listener(add_service(c, "b"), "b", b)->v6only = b_v6only;
	messages = resolve(c);
	if (streq(messages, ""))
		return false;
	ck_assert_msg(strstr(messages, "listener \"a\" of service \"a\""), "%s", messages);
	return true;
}

START_TEST(overlaps)
{
	static const struct {
		const char *a, *b;
		bool a_v6only, b_v6only, overlap;
	} cases[] = {
		{"80",	       "80",	     false, false, true },
		{"80",	       "81",	     false, false, false},
		{"80",	       "0.0.0.0:80",   false, false, true },
		{"80",	       "0.0.0.0:80",   true,  false, false},
		{"80",	       "127.0.0.1:80", false, false, true },
		{"80",	       "127.0.0.1:80", true,  false, false},
		{"80",	       "[::1]:80",	   true,	 false, true },
		{"0.0.0.0:80",   "[::1]:80",	   false, false, false},
		{"0.0.0.0:80",   "10.0.0.1:80",  false, false, true },
		{"127.0.0.1:80", "127.0.0.2:80", false, false, false},
		{"127.0.0.1:80", "127.0.0.1:80", false, false, true },
		{"127.0.0.1:80", "127.0.0.1:81", false, false, false},
		{"unix:/a",	    "unix:/a",      false, false, true },
		{"unix:/a",	    "unix:/b",      false, false, false},
		{"unix:@a",	    "unix:/a",      false, false, false},
		{"unix:@a",	    "unix:@a",      false, false, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool forward =
			overlap(cases[i].a, cases[i].a_v6only, cases[i].b, cases[i].b_v6only);
		bool back = overlap(cases[i].b, cases[i].b_v6only, cases[i].a, cases[i].a_v6only);

		ck_assert_msg(forward == cases[i].overlap, "%s %s", cases[i].a, cases[i].b);
		ck_assert_msg(back == cases[i].overlap, "%s %s", cases[i].b, cases[i].a);
	}
}
END_TEST

/* Four thousand on one port, all different: no time, and nothing reported. */
START_TEST(many_on_one_port)
{
	_cleanup_config_ struct config *c = config_new();
	_cleanup_free_ char *messages = NULL;

	for (unsigned i = 0; i < 64; i++) {
		_cleanup_free_ char *name = xasprintf("s%u", i);
		struct service_config *s = add_service(c, name);

		for (unsigned j = 0; j < 64; j++) {
			_cleanup_free_ char *address = xasprintf("127.0.%u.%u:80", i, j);
			_cleanup_free_ char *listener = xasprintf("l%u", j);

			add_listener(s, listener, address);
		}
	}
	messages = resolve(c);
	ck_assert_str_eq(messages, "");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		problems_are_kept,
		problems_are_bounded,
		names,
		signals_and_limits,
		enumerations,
		copies_are_deep,
		defaults_that_depend,
		what_the_command_line_can_get_wrong,
		workers_as_root,
		too_many,
		overlaps,
		many_on_one_port,
	};

	return run_tests("config", tests, ARRAY_SIZE(tests));
}

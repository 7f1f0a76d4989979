/* SPDX-License-Identifier: Apache-2.0 */
#include "core/preset.h"

#include <signal.h>

#include "base/parse.h"
#include "unit.h"

static struct service_config s;

static void begin(const char *preset, const char *command)
{
	service_config_done(&s);
	ck_assert_int_eq(service_config_init(&s, "web"), 0);
	ck_assert_int_eq(split_words(command, &s.command, NULL), 0);
	s.listeners = calloc(2, sizeof(*s.listeners));
	s.n_listeners = 2;
	for (size_t i = 0; i < 2; i++) {
		listener_config_init(&s.listeners[i]);
		ck_assert_int_eq(address_parse(i ? "81" : "80", false, &s.listeners[i].address), 0);
		s.listeners[i].name = strdup(i ? "admin" : "web");
	}
	ck_assert_int_eq(preset_begin(preset_find(preset), &s), 0);
}

static void assert_command(const char *preset, const char *command, const char *expected)
{
	_cleanup_strv_ char **words = NULL;

	ck_assert_int_eq(split_words(expected, &words, NULL), 0);
	begin(preset, command);
	ck_assert_int_eq(preset_finish(&s), 0);
	ck_assert_msg(strv_equal(s.command, words), "%s: %s", preset, command);
	/* A second time adds nothing. */
	ck_assert_int_eq(preset_finish(&s), 0);
	ck_assert_msg(strv_equal(s.command, words), "%s: %s, twice", preset, command);
}

START_TEST(arguments)
{
	assert_command("uvicorn", "uvicorn app:a", "uvicorn app:a --fd '{fd:web}'");
	assert_command("uvicorn", "uvicorn --fd=9 app:a", "uvicorn --fd=9 app:a");
	assert_command("uvicorn", "uvicorn --fd 9 app:a", "uvicorn --fd 9 app:a");
	assert_command("uvicorn", "uvicorn app:a --uds /x", "uvicorn app:a --uds /x");
	assert_command("uvicorn", "--fd", "--fd --fd '{fd:web}'"); /* that is the program */
	assert_command("lighttpd", "lighttpd -Df x", "lighttpd -Df x");
	assert_command("php-fpm", "php-fpm8.2 -F", "php-fpm8.2 -F");
	assert_command("gunicorn", "gunicorn a:b", "gunicorn a:b");
	assert_command("haproxy", "haproxy -db", "haproxy -db -x '{socket:haproxy}'");
	begin("haproxy", "haproxy -db");
	s.handoff = HANDOFF_LISTEN_FDS; /* as the user said */
	ck_assert_int_eq(preset_finish(&s), 0);
	ck_assert_uint_eq(strv_length(s.command), 2);
}
END_TEST

START_TEST(options)
{
	begin("nginx", "nginx");
	ck_assert_int_eq(socket_options_set(&s.listeners[1].options, OPTION_NONBLOCKING, 0, NULL,
				 (struct config_place){0}),
		0);
	ck_assert_int_eq(preset_finish(&s), 0);
	ck_assert_int_eq(socket_options_value(&s.listeners[0].options, OPTION_NONBLOCKING, -1), 1);
	/* What the user says wins. */
	ck_assert_int_eq(socket_options_value(&s.listeners[1].options, OPTION_NONBLOCKING, -1), 0);
	ck_assert_int_eq(s.drain.signal, SIGQUIT);
	ck_assert_int_eq(s.handoff, HANDOFF_NGINX);
	ck_assert_int_eq(socket_options_value(&s.listeners[0].options, OPTION_NODELAY, -1), -1);

	/* Only where there is such an option. */
	begin("uvicorn", "uvicorn");
	ck_assert_int_eq(address_parse("unix:/x", false, &s.listeners[1].address), 0);
	ck_assert_int_eq(preset_finish(&s), 0);
	ck_assert_int_eq(socket_options_value(&s.listeners[0].options, OPTION_NODELAY, -1), 1);
	ck_assert_int_eq(socket_options_value(&s.listeners[1].options, OPTION_NODELAY, -1), -1);
	ck_assert_int_eq(preset_finish(&s), 0);
	begin("uvicorn", "uvicorn");
	s.listeners[0].inherited = true;
	ck_assert_int_eq(preset_finish(&s), 0);
	ck_assert_int_eq(socket_options_value(&s.listeners[0].options, OPTION_NODELAY, -1), -1);
}
END_TEST

static const char *guess(const char *command, const char *interpreter)
{
	_cleanup_strv_ char **words = NULL, **more = NULL;
	const struct preset *p;

	ck_assert_int_eq(split_words(command, &words, NULL), 0);
	if (interpreter)
		ck_assert_int_eq(split_words(interpreter, &more, NULL), 0);
	p = preset_guess(words, more);
	return p ? p->name : "";
}

START_TEST(guesses)
{
	static const struct {
		const char *command, *interpreter, *name;
	} cases[] = {
		{"gunicorn a:b",			 NULL,		       "gunicorn"},
		{"/srv/venv/bin/gunicorn a:b",	       NULL,		     "gunicorn"},
		{"python -m gunicorn a:b",		   NULL,		 "gunicorn"},
		{"/usr/bin/python3.11 -m uvicorn a:b", NULL,		     "uvicorn" },
		{"python3 manage.py gunicorn",	       NULL,		     ""	       },
		{"bundle exec puma -C x",		  NULL,		"puma"    },
		{"bundle install",			   NULL,		 ""	   },
		{"env -i A=b nice -n 5 unicorn",	 NULL,		       "unicorn" },
		{"php-fpm8.2",			       NULL,		     "php-fpm" },
		{"/usr/sbin/php-fpm",		      NULL,		    "php-fpm" },
		{"nginx",			      NULL,		"nginx"   },
		{"./server",			     "/usr/bin/env node", "node"	},
		{"./server",			     "/usr/bin/node20",	"node"    },
		{"./server",			     "/bin/sh",		""	  },
		{"bin/web",			    NULL,		  ""	    },
		{"my-nginx-wrapper",		     NULL,		   ""	     },
		{"8080",			       NULL,		       ""	 },
		{"env",				NULL,		      ""	},
		{"",				   NULL,		   ""	     },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_msg(streq(guess(cases[i].command, cases[i].interpreter), cases[i].name),
			"%s: %s", cases[i].command, guess(cases[i].command, cases[i].interpreter));
}
END_TEST

START_TEST(the_table)
{
	const struct preset *list;
	size_t n;

	list = preset_list(&n);
	ck_assert_uint_ge(n, 13);
	for (size_t i = 0; i < n; i++) {
		ck_assert_ptr_eq(preset_find(list[i].name), &list[i]);
		ck_assert_str_eq(preset_names()[i], list[i].name);
		ck_assert(
			list[i].what && list[i].command && list[i].handoff && list[i].programs[0]);
		/* Who has tested it says with what; who has not says what it is from. */
		ck_assert(list[i].tested || list[i].why);
		begin(list[i].name, list[i].command);
		ck_assert_int_eq(preset_finish(&s), 0);
		ck_assert_uint_gt(s.drain.timeout_usec, 0);
	}
	ck_assert_str_eq(preset_names()[n], "none");
	ck_assert_ptr_null(preset_find("none"));
	service_config_done(&s);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {arguments, options, guesses, the_table};

	return run_tests("preset", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "base/parse.h"
#include "ctl/options.h"

static const struct verb verbs[] = {
	{"status",  "[SERVICE...]", "s",	0, 9, 0,				 false, NULL},
	{"upgrade", "SERVICE...",	  "u",  1, 9, OPTION_STRATEGY | OPTION_FOLLOW, false, NULL},
	{"events",  "[SERVICE]",	"e",  0, 1, OPTION_EVENTS,			  false, NULL},
	{"check",	  "[FILE]",	    "c",	 0, 9, OPTION_AS,			  true,	NULL},
	{NULL,      NULL,	     NULL, 0, 0, 0,				    false, NULL},
};

/* What the options borrow; kept until the next line is parsed. */
static char **words;

static int parse(const char *arguments, struct options *ret, struct error *ret_error)
{
	_cleanup_free_ char *line = xasprintf("tenurectl %s", arguments);

	words = strv_free(words);
	ck_assert_int_eq(split_words(line, &words, NULL), 0);
	return options_parse((int)strv_length(words), words, verbs, ret, ret_error);
}

START_TEST(around_the_verb)
{
	struct options o;

	ck_assert_int_eq(parse("--json status a -q -- -b", &o, NULL), 0);
	ck_assert_str_eq(o.verb->name, "status");
	ck_assert(o.json && o.quiet && !o.no_color);
	ck_assert_uint_eq(strv_length(o.args), 2);
	ck_assert_str_eq(o.args[0], "a");
	ck_assert_str_eq(o.args[1], "-b");
	options_done(&o);
}
END_TEST

START_TEST(defaults)
{
	struct options o;

	ck_assert_int_eq(parse("upgrade web", &o, NULL), 0);
	ck_assert_uint_eq(o.n_steps, 0);
	ck_assert(o.soak_usec == USEC_INFINITY && o.timeout_usec == USEC_INFINITY);
	ck_assert(o.pause_at < 0 && !o.strategy && !o.overlap && !o.socket && !o.instance);
	ck_assert(!o.detach && !o.wait_drain && !o.abort_on_interrupt && o.to == 0);
	options_done(&o);
}
END_TEST

START_TEST(values)
{
	struct options o;

	ck_assert_int_eq(parse("upgrade web --steps=0.5,25%,100 --soak 1m30s --pause-at=25 "
			       "--timeout 2h --strategy canary --wait-drain",
				 &o, NULL),
		0);
	ck_assert_uint_eq(o.n_steps, 3);
	ck_assert_double_eq(o.steps[0], 0.5);
	ck_assert_double_eq(o.steps[2], 100);
	ck_assert_double_eq(o.pause_at, 25);
	ck_assert_uint_eq(o.soak_usec, 90 * USEC_PER_SEC);
	ck_assert_uint_eq(o.timeout_usec, 7200 * USEC_PER_SEC);
	ck_assert_str_eq(o.strategy, "canary");
	ck_assert(o.wait_drain);
	options_done(&o);
}
END_TEST

START_TEST(since)
{
	struct options o;

	ck_assert_int_eq(parse("events -f --since 12", &o, NULL), 0);
	ck_assert(o.follow && o.since_given && o.since_usec == USEC_INFINITY);
	ck_assert_uint_eq(o.since_sequence, 12);
	options_done(&o);
	ck_assert_int_eq(parse("events --since 10m", &o, NULL), 0);
	ck_assert_uint_eq(o.since_sequence, 0);
	ck_assert_uint_eq(o.since_usec, 600 * USEC_PER_SEC);
	options_done(&o);
}
END_TEST

START_TEST(passed_through)
{
	struct options o;

	ck_assert_int_eq(parse("-q check --as x --json -z", &o, NULL), 0);
	ck_assert(o.quiet && !o.json);
	ck_assert_uint_eq(strv_length(o.args), 4);
	ck_assert_str_eq(o.args[0], "--as");
	ck_assert_str_eq(o.args[3], "-z");
	options_done(&o);
}
END_TEST

START_TEST(refused)
{
	static const struct {
		const char *message, *arguments;
	} cases[] = {
		{"say what to do",	   ""				     },
		{"did you mean 'status'", "statsu"			  },
		{"too few",		    "upgrade"			     },
		{"too many",		     "events a b"			 },
		{"does not know --steps", "status --steps=5"		    },
		{"no option -x",		 "status -x"			    },
		{"--nonsense",	       "status --nonsense"		  },
		{"needs a value",	  "upgrade a --soak"		    },
		{"'x' is not a time",     "upgrade a --soak=x"		  },
		{"rising shares",	  "upgrade a --steps=5,5"		 },
		{"rising shares",	  "upgrade a --steps=0"	       },
		{"rising shares",	  "upgrade a --steps=5,,6"	  },
		{"a share, as 25%",	    "upgrade a --pause-at=101"	      },
		{"blue-green, rolling",	"upgrade a --strategy=x"		},
		{"without '/'",		"--instance=.. status"	      },
		{"one of them",		"--instance=a --socket=b status" },
		{"leave --timeout out",	"upgrade a --detach --timeout=1s"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_error_ struct error error = ERROR_NULL;
		struct options o;

		ck_assert_int_eq(parse(cases[i].arguments, &o, &error), -EINVAL);
		ck_assert_msg(strstr(error_message(&error), cases[i].message), "%s: %s",
			cases[i].message, error_message(&error));
	}
}
END_TEST

START_TEST(too_many_steps)
{
	_cleanup_free_ char *steps = strdup("upgrade a --steps=0.01");
	struct options o;

	for (unsigned i = 2; i <= OPTIONS_STEPS_MAX + 1; i++) {
		char *longer = xasprintf("%s,%u.%02u", steps, i / 100, i % 100);

		free(steps);
		steps = longer;
		ck_assert_int_eq(parse(steps, &o, NULL), i <= OPTIONS_STEPS_MAX ? 0 : -EINVAL);
		if (i <= OPTIONS_STEPS_MAX)
			options_done(&o);
	}
}
END_TEST

START_TEST(help_and_version_need_no_more)
{
	struct options o;

	ck_assert_int_eq(parse("--help", &o, NULL), 0);
	ck_assert(o.help && !o.verb);
	options_done(&o);
	ck_assert_int_eq(parse("upgrade -h", &o, NULL), 0);
	ck_assert(o.help && o.verb);
	options_done(&o);
	ck_assert_int_eq(parse("--version", &o, NULL), 0);
	ck_assert(o.version);
	options_done(&o);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		around_the_verb,
		defaults,
		values,
		since,
		passed_through,
		refused,
		too_many_steps,
		help_and_version_need_no_more,
	};

	int r = run_tests("ctl_options", tests, ARRAY_SIZE(tests));

	words = strv_free(words);
	return r;
}

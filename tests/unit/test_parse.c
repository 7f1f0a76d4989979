/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parse.h"
#include "unit.h"

#define UNTOUCHED UINT64_C(0xdeadbeef)
#define MINUTE (60 * USEC_PER_SEC)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

struct number_case {
	const char *s;
	int r;
	uint64_t value; /* if r is 0 */
};

static void check_numbers(const char *what, int (*parse)(const char *, uint64_t *),
	const struct number_case *cases, size_t n_cases)
{
	for (size_t i = 0; i < n_cases; i++) {
		uint64_t value = UNTOUCHED;
		int r = parse(cases[i].s, &value);

		ck_assert_msg(r == cases[i].r, "%s \"%s\": %d", what, cases[i].s, r);
		ck_assert_msg(value == (r < 0 ? UNTOUCHED : cases[i].value), "%s \"%s\": %llu",
			what, cases[i].s, (unsigned long long)value);
	}
}

static int parse_any(const char *s, uint64_t *ret)
{
	return parse_u64(s, 0, UINT64_MAX, ret);
}

START_TEST(integers)
{
	static const struct number_case cases[] = {
		{"0",			   0,	 0	  },
		     {"007",			     0,	7	 },
		    {"18446744073709551615",	     0,	UINT64_MAX},
		{"18446744073709551616",	 -ERANGE, 0	   },
		      {"99999999999999999999999999",  -ERANGE, 0	       },
		{"",			    -EINVAL, 0	       },
		  {" 1",				 -EINVAL, 0	   },
		      {"1 ",			     -EINVAL, 0	       },
		  {"+1",				 -EINVAL, 0	   },
		{"-1",			  -EINVAL, 0	 },
		    {"0x10",			     -EINVAL, 0	       },
		  {"1.0",			  -EINVAL, 0	    },
		       {"1e3",			       -EINVAL, 0	 },
		{"1\n",			 -EINVAL, 0	  },
		     {"99999999999999999999999999x", -EINVAL, 0	       },
		{"\xd9\xa1",		     -EINVAL, 0	       }, /* an Arabic digit */
	};
	uint64_t big = 1;
	unsigned small = 1;

	check_numbers("u64", parse_any, cases, ARRAY_SIZE(cases));
	ck_assert_int_eq(parse_u64("5", 5, 7, &big), 0);
	ck_assert_uint_eq(big, 5);
	ck_assert_int_eq(parse_u64("7", 5, 7, &big), 0);
	ck_assert_int_eq(parse_u64("4", 5, 7, &big), -ERANGE);
	ck_assert_int_eq(parse_u64("8", 5, 7, &big), -ERANGE);
	ck_assert_uint_eq(big, 7);

	ck_assert_int_eq(parse_uint("4294967295", 0, UINT32_MAX, &small), 0);
	ck_assert_uint_eq(small, UINT32_MAX);
	ck_assert_int_eq(parse_uint("4294967296", 0, UINT32_MAX, &small), -ERANGE);
	ck_assert_int_eq(parse_uint("0", 1, 65535, &small), -ERANGE);
	ck_assert_int_eq(parse_uint("x", 1, 65535, &small), -EINVAL);
	ck_assert_uint_eq(small, UINT32_MAX);
}
END_TEST

START_TEST(booleans)
{
	static const char *const yes[] = {
		"yes", "true", "on", "Yes", "True", "On", "YES", "TRUE", "ON"};
	static const char *const no[] = {
		"no", "false", "off", "No", "False", "Off", "NO", "FALSE", "OFF"};
	static const char *const neither[] = {
		"", "y", "n", "1", "0", "yEs", "yes ", " no", "truex", "tru"};
	bool value;

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		value = false;
		ck_assert_int_eq(parse_bool(yes[i], &value), 0);
		ck_assert(value);
	}
	for (size_t i = 0; i < ARRAY_SIZE(no); i++) {
		value = true;
		ck_assert_int_eq(parse_bool(no[i], &value), 0);
		ck_assert(!value);
	}
	for (size_t i = 0; i < ARRAY_SIZE(neither); i++) {
		value = i % 2 == 0;
		ck_assert_int_eq(parse_bool(neither[i], &value), -EINVAL);
		ck_assert(value == (i % 2 == 0));
	}
}
END_TEST

static int parse_mode_wide(const char *s, uint64_t *ret)
{
	unsigned mode;
	int r = parse_mode(s, &mode);

	if (r == 0)
		*ret = mode;
	return r;
}

START_TEST(modes)
{
	static const struct number_case cases[] = {
		{"0",				0,	 0	  },
		{"0660",			     0,	    0660 },
		{"660",			      0,	   0660 },
		{"7777",			     0,	    07777},
		{"00007777",			     0,	07777},
		{"10000",			    -ERANGE, 0    },
		{"77777777777777777777777777777777", -ERANGE, 0    },
		{"40000000000",			-ERANGE, 0	  },
		{"",				 -EINVAL, 0    },
		{"0680",			     -EINVAL, 0	   },
		{"0o660",			    -EINVAL, 0    },
		{"rw",			       -EINVAL, 0	 },
		{"-1",			       -EINVAL, 0	 },
		{" 660",			     -EINVAL, 0	   },
		{"660 ",			     -EINVAL, 0	   },
		{"77777777777777777777777777777778", -EINVAL, 0    },
	};

	check_numbers("mode", parse_mode_wide, cases, ARRAY_SIZE(cases));
}
END_TEST

START_TEST(durations)
{
	static const struct number_case cases[] = {
		{"0",			0,	 0				    },
		{"0s",		       0,	  0				    },
		{"1us",			0,	   1				    },
		{"250ms",			  0,	     250000				   },
		{"30s",			0,	   30 * USEC_PER_SEC		    },
		{"10m",			0,	   10 * MINUTE			      },
		{"10min",			  0,	     10 * MINUTE				},
		{"24h",			0,	   DAY				  },
		{"2d",		       0,	  2 * DAY				 },
		{"1m30s",			  0,	     90 * USEC_PER_SEC		      },
		{"1d2h3m4s5ms6us",	   0,	      DAY + 2 * HOUR + 3 * MINUTE + 4005006},
		{"1.5s",			 0,	    1500000				   },
		{"0.1ms",			  0,	     100				  },
		{"0.5d",			 0,	    DAY / 2				   },
		{"0.50000000000000d",	      0,	 DAY / 2				},
		{"1.000001s",		      0,	 1000001				},
		{"0.99999999d",		0,	   UINT64_C(86399999136)		},
		{"90m",			0,	   90 * MINUTE			      },
		{"infinity",		     0,	USEC_INFINITY			     },
		{"18446744073709551614us",   0,	      UINT64_MAX - 1			    },
 /* not of the form */
		{"",			 -EINVAL, 0				    },
		{"5",			-EINVAL, 0				    },
		{"00",		       -EINVAL, 0				    },
		{"s",			-EINVAL, 0				    },
		{".5s",			-EINVAL, 0				    },
		{"5.s",			-EINVAL, 0				    },
		{"-1s",			-EINVAL, 0				    },
		{"+1s",			-EINVAL, 0				    },
		{" 1s",			-EINVAL, 0				    },
		{"1s ",			-EINVAL, 0				    },
		{"1 s",			-EINVAL, 0				    },
		{"1S",		       -EINVAL, 0				    },
		{"1sec",			 -EINVAL, 0				    },
		{"1mi",			-EINVAL, 0				    },
		{"1,5s",			 -EINVAL, 0				    },
		{"1m30",			 -EINVAL, 0				    },
		{"1e3s",			 -EINVAL, 0				    },
		{"Infinity",		     -EINVAL, 0				       },
		{"infinitys",		      -EINVAL, 0					},
		{"1s1s",			 -EINVAL, 0				    },
		{"1s1m",			 -EINVAL, 0				    },
		{"1m1min",		   -EINVAL, 0				     },
		{"1..5s",			  -EINVAL, 0				    },
		{"99999999999999999999",	 -EINVAL, 0					   },
 /* too large, or finer than a microsecond */
		{"18446744073709551615us",   -ERANGE, 0				     },
		{"18446744073709551616us",   -ERANGE, 0				     },
		{"213503983d",	       -ERANGE, 0					 },
		{"99999999999999999999999s", -ERANGE, 0				       },
		{"18446744073709s551615us",  -ERANGE, 0				      },
		{"0.5us",			  -ERANGE, 0				    },
		{"0.0000001s",	       -ERANGE, 0					 },
		{"1.0000000000001d",	     -ERANGE, 0				       },
	};

	check_numbers("duration", parse_duration, cases, ARRAY_SIZE(cases));
}
END_TEST

START_TEST(sizes)
{
	static const struct number_case cases[] = {
		{"0",		      0,	 0			  },
		{"1",		      0,	 1			  },
		{"64K",			0,	   65536			},
		{"8M",		       0,	  8 << 20		 },
		{"2G",		       0,	  UINT64_C(2) << 30	   },
		{"1T",		       0,	  UINT64_C(1) << 40	   },
		{"18446744073709551615",	 0,	    UINT64_MAX	      },
		{"16777215T",	      0,	 UINT64_C(16777215) << 40},
		{"16777216T",	      -ERANGE, 0			},
		{"18446744073709551616",	 -ERANGE, 0			   },
		{"99999999999999999999K", -ERANGE, 0			    },
		{"",		      -EINVAL, 0		       },
		{"K",		      -EINVAL, 0			},
		{"1k",		       -EINVAL, 0			 },
		{"1KB",			-EINVAL, 0			  },
		{"1KK",			-EINVAL, 0			  },
		{"1 K",			-EINVAL, 0			  },
		{"-1",		       -EINVAL, 0			 },
		{"1.5M",			 -EINVAL, 0			   },
		{"1P",		       -EINVAL, 0			 },
	};

	check_numbers("size", parse_size, cases, ARRAY_SIZE(cases));
}
END_TEST

static int parse_percent_wide(const char *s, uint64_t *ret)
{
	unsigned share;
	int r = parse_percent(s, &share);

	if (r == 0)
		*ret = share;
	return r;
}

START_TEST(percentages)
{
	static const struct number_case cases[] = {
		{"0%",		       0,	  0	   },
		{"5%",		       0,	  500  },
		{"0.1%",			 0,	    10   },
		{"0.01%",		  0,	     1    },
		{"99.99%",		   0,	      9999 },
		{"100%",			 0,	    10000},
		{"100.00%",		    0,       10000},
		{"33.330%",		    0,       3333 },
		{"0.001%",		   -ERANGE, 0    },
		{"100.01%",		    -ERANGE, 0    },
		{"101%",			 -ERANGE, 0	   },
		{"18446744073709551616%", -ERANGE, 0    },
		{"184467440737095517%",	-ERANGE, 0	  },
		{"",		      -EINVAL, 0    },
		{"%",		      -EINVAL, 0	},
		{"5",		      -EINVAL, 0	},
		{"5 %",			-EINVAL, 0	  },
		{"-5%",			-EINVAL, 0	  },
		{".5%",			-EINVAL, 0	  },
		{"5.%",			-EINVAL, 0	  },
		{"5%%",			-EINVAL, 0	  },
		{"5%x",			-EINVAL, 0	  },
	};

	check_numbers("percent", parse_percent_wide, cases, ARRAY_SIZE(cases));
}
END_TEST

static void assert_text(char *text_take, const char *expected)
{
	_cleanup_free_ char *text = text_take;

	ck_assert_ptr_nonnull(text);
	ck_assert_str_eq(text, expected);
}

START_TEST(formats)
{
	assert_text(format_duration(0), "0s");
	assert_text(format_duration(1), "1us");
	assert_text(format_duration(1500), "1.5ms");
	assert_text(format_duration(250 * USEC_PER_MSEC), "250ms");
	assert_text(format_duration(1500 * USEC_PER_MSEC), "1.5s");
	assert_text(format_duration(90 * USEC_PER_SEC), "1m30s");
	assert_text(format_duration(HOUR), "1h");
	assert_text(format_duration(36 * HOUR), "1d12h");
	assert_text(format_duration(MINUTE + 250 * USEC_PER_MSEC), "1m250ms");
	assert_text(format_duration(DAY + 1), "1d1us");
	assert_text(format_duration(USEC_INFINITY), "infinity");
	assert_text(format_duration(USEC_INFINITY - 1), "213503982d8h1m49.551614s");
	assert_text(format_size(0), "0");
	assert_text(format_size(1023), "1023");
	assert_text(format_size(65536), "64K");
	assert_text(format_size(UINT64_C(3) << 30), "3G");
	assert_text(format_size(UINT64_MAX), "18446744073709551615");
	assert_text(format_percent(0), "0%");
	assert_text(format_percent(1), "0.01%");
	assert_text(format_percent(10), "0.1%");
	assert_text(format_percent(500), "5%");
	assert_text(format_percent(3333), "33.33%");
	assert_text(format_percent(10000), "100%");
}
END_TEST

/* What format_*() writes, parse_*() reads as the same value. */
START_TEST(round_trips)
{
	uint64_t seed = 42;

	for (int i = 0; i < 20000; i++) {
		_cleanup_free_ char *duration = NULL, *size = NULL;
		uint64_t value, got;

		seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		value = (seed >> (seed % 64)) * (i % 3 == 0 ? 1000 : 1);
		duration = format_duration(value);
		ck_assert_msg(parse_duration(duration, &got) == 0 && got == value, "%s", duration);
		size = format_size(value);
		ck_assert_msg(parse_size(size, &got) == 0 && got == value, "%s", size);
	}
	for (unsigned share = 0; share <= 10000; share++) {
		_cleanup_free_ char *text = format_percent(share);
		unsigned got;

		ck_assert_msg(parse_percent(text, &got) == 0 && got == share, "%s", text);
	}
}
END_TEST

/* expected: the words, each ended by '|'. */
static void assert_words(const char *s, const char *expected)
{
	_cleanup_strv_ char **words = NULL;
	_cleanup_free_ char *joined = strdup("");
	size_t position = 4711;

	ck_assert_msg(split_words(s, &words, &position) == 0, "<%s> at %zu", s, position);
	ck_assert_uint_eq(position, 4711);
	for (size_t i = 0; words[i]; i++) {
		char *more = xasprintf("%s%s|", joined, words[i]);

		free(joined);
		joined = more;
	}
	ck_assert_msg(streq(joined, expected), "<%s> gave <%s>", s, joined);
}

START_TEST(words_are_split)
{
	assert_words("", "");
	assert_words(" \t\n ", "");
	assert_words("bin/web --fd {fd:http}", "bin/web|--fd|{fd:http}|");
	assert_words("  a   b\t c\n", "a|b|c|");
	assert_words("'a b' \"c d\"", "a b|c d|");
	assert_words("a'b'\"c\"d", "abcd|");
	assert_words("'' \"\"", "||");
	assert_words("'$HOME|;' \"a|b;c&\"", "$HOME|;|a|b;c&|");
	assert_words("a\\ b \\| \\\\ \\$x \\'", "a b|||\\|$x|'|");
	assert_words("\"a\\\"b\\\\c\\$d\\`e\\f\"", "a\"b\\c$d`e\\f|");
	assert_words("'a\\b'", "a\\b|");
	assert_words("a\\\n b\\\nc \"d\\\ne\"", "a|bc|de|");
	assert_words("\\\n", "");
	assert_words("a \\\n b", "a|b|");
	assert_words("a#b a~b *.c [x]? a=b !x {1,2}", "a#b|a~b|*.c|[x]?|a=b|!x|{1,2}|");
	assert_words("gr\xc3\xbc\xc3\x9f'\xe2\x82\xac'", "gr\xc3\xbc\xc3\x9f\xe2\x82\xac|");
}
END_TEST

START_TEST(words_need_no_shell)
{
	static const struct {
		const char *s;
		int r;
		size_t position;
	} cases[] = {
		{"a | b",	  -EOPNOTSUPP, 2},
		{"a&&b",	 -EOPNOTSUPP, 1},
		{"a;",       -EOPNOTSUPP, 1},
		{"a <b",	 -EOPNOTSUPP, 2},
		{"a 2>b",	  -EOPNOTSUPP, 3},
		{"(a)",	-EOPNOTSUPP, 0},
		{"a )",	-EOPNOTSUPP, 2},
		{"$HOME/x",  -EOPNOTSUPP, 0},
		{"a `b`",	  -EOPNOTSUPP, 2},
		{"# a",	-EOPNOTSUPP, 0},
		{"a #b",	 -EOPNOTSUPP, 2},
		{"~/x",	-EOPNOTSUPP, 0},
		{"a ~",	-EOPNOTSUPP, 2},
		{"\"a $b\"", -EOPNOTSUPP, 3},
		{"a \"`\"",  -EOPNOTSUPP, 3},
		{"'a",       -EINVAL,	0},
		{"a \"b",	  -EINVAL,	   2},
		{"a 'b\" c", -EINVAL,     2},
		{"a b\\",	  -EINVAL,	   3},
		{"\"a\\\"",  -EINVAL,     0},
		{"\"a\\",	  -EINVAL,	   0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *mark = NULL, **words = &mark;
		size_t position = 4711;
		int r = split_words(cases[i].s, &words, &position);

		ck_assert_msg(r == cases[i].r, "<%s>: %d", cases[i].s, r);
		ck_assert_msg(position == cases[i].position, "<%s>: at %zu", cases[i].s, position);
		ck_assert_ptr_eq(words, &mark);
		ck_assert_int_eq(split_words(cases[i].s, &words, NULL), cases[i].r);
	}
}
END_TEST

START_TEST(words_from_noise)
{
	static const char alphabet[] = "ab '\"\\\n$|~#\xc3\xa9";
	size_t n_good = 0;
	uint32_t seed = 1;

	for (int i = 0; i < 50000; i++) {
		_cleanup_strv_ char **words = NULL;
		size_t len, position = 0;
		char s[24];
		int r;

		seed = seed * 1664525 + 1013904223;
		len = (seed >> 20) % (sizeof(s) - 1);
		for (size_t k = 0; k < len; k++) {
			seed = seed * 1664525 + 1013904223;
			s[k] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
		}
		s[len] = '\0';
		r = split_words(s, &words, &position);
		ck_assert(r == 0 || r == -EINVAL || r == -EOPNOTSUPP);
		ck_assert(r == 0 || position < len);
		ck_assert((r == 0) == (words != NULL));
		n_good += r == 0;
	}
	ck_assert_uint_gt(n_good, 1000);
}
END_TEST

START_TEST(nearest)
{
	static const char *const known[] = {"command", "directory", "workers", "user", "group",
		"environment", "env_file", "listen", "ready", "id", NULL};
	static const char *const none[] = {NULL};

	ck_assert_str_eq(nearest_word("comand", known), "command");
	ck_assert_str_eq(nearest_word("worker", known), "workers");
	ck_assert_str_eq(nearest_word("wrokers", known), "workers");
	ck_assert_str_eq(nearest_word("Listen", known), "listen");
	ck_assert_str_eq(nearest_word("env-file", known), "env_file");
	ck_assert_str_eq(nearest_word("enviroment", known), "environment");
	ck_assert_str_eq(nearest_word("goup", known), "group");
	ck_assert_str_eq(nearest_word("user", known), "user");
	ck_assert_ptr_null(nearest_word("x", known));
	ck_assert_ptr_null(nearest_word("", known));
	ck_assert_ptr_null(nearest_word("frobnicate", known));
	ck_assert_ptr_null(nearest_word("command", none));
	ck_assert_ptr_null(nearest_word(
		"commandcommandcommandcommandcommandcommandcommandcommandcommandcommand", known));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		integers,
		booleans,
		modes,
		durations,
		sizes,
		percentages,
		formats,
		round_trips,
		words_are_split,
		words_need_no_shell,
		words_from_noise,
		nearest,
	};

	return run_tests("parse", tests, ARRAY_SIZE(tests));
}

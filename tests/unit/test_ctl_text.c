/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include <locale.h>

#include "ctl/socket.h"
#include "ctl/text.h"

static void assert_safe(const char *s, bool utf8, const char *expected)
{
	_cleanup_free_ char *safe = text_safe(s, utf8);

	ck_assert_str_eq(safe, expected);
}

START_TEST(controls_are_replaced)
{
	assert_safe(NULL, true, "");
	assert_safe("plain ~text", true, "plain ~text");
	assert_safe("\033[31mred\a\b\177", true, "?[31mred???");
	assert_safe("a\tb\nc\rd", true, "a b c d");
	/* C1, line separator, override, isolate, zero width, byte order mark, tag */
	assert_safe("\xc2\x9b \xe2\x80\xa8 \xe2\x80\xae \xe2\x81\xa6 \xe2\x80\x8b \xef\xbb\xbf "
		    "\xf3\xa0\x81\x81",
		true, "? ? ? ? ? ? ?");
	/* not UTF-8: alone, overlong, cut */
	assert_safe("\xff|\xc0\xaf|\xe2\x82", true, "?|??|??");
	assert_safe("gr\xc3\xbc\xc3\x9f \xe2\x82\xac", true, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac");
	assert_safe("gr\xc3\xbc\xc3\x9f \xe2\x82\xac", false, "gr?? ?");
}
END_TEST

static void assert_cut(const char *s, size_t columns, bool utf8, const char *expected)
{
	_cleanup_free_ char *cut = text_cut(s, columns, utf8);

	ck_assert_str_eq(cut, expected);
	ck_assert_uint_le(text_width(cut, utf8), columns);
}

START_TEST(cut_to_columns)
{
	assert_cut("abcdef", 6, false, "abcdef");
	assert_cut("abcdef", 5, false, "ab...");
	assert_cut("abcdef", 3, false, "...");
	assert_cut("abcdef", 2, false, "..");
	assert_cut("abcdef", 0, false, "");
	ck_assert_ptr_nonnull(setlocale(LC_CTYPE, "C.UTF-8"));
	ck_assert_uint_eq(text_width("\xe4\xbd\xa0\xe5\xa5\xbd", true), 4);
	assert_cut("\xc3\xa4\xc3\xb6\xc3\xbc", 3, true, "\xc3\xa4\xc3\xb6\xc3\xbc");
	assert_cut("\xc3\xa4\xc3\xb6\xc3\xbc", 2, true, "\xc3\xa4\xe2\x80\xa6");
	/* Half a wide character is none. */
	assert_cut("\xe4\xbd\xa0\xe5\xa5\xbd", 3, true, "\xe4\xbd\xa0\xe2\x80\xa6");
	assert_cut("\xe4\xbd\xa0\xe5\xa5\xbd", 2, true, "\xe2\x80\xa6");
}
END_TEST

START_TEST(last_lines)
{
	bool cut;

	ck_assert_str_eq(text_last_lines("a\nb\nc\n", 2, &cut), "b\nc\n");
	ck_assert(cut);
	ck_assert_str_eq(text_last_lines("a\nb\nc", 3, &cut), "a\nb\nc");
	ck_assert(!cut);
	ck_assert_str_eq(text_last_lines("", 3, &cut), "");
	ck_assert(!cut);
}
END_TEST

START_TEST(spans)
{
	static const struct {
		uint64_t usec;
		const char *text;
	} cases[] = {
		{0,				     "0.0s"  },
		{450 * USEC_PER_MSEC,		      "0.4s"  },
		{9999 * USEC_PER_MSEC,		       "9.9s"  },
		{10 * USEC_PER_SEC,			    "10s"	 },
		{59 * USEC_PER_SEC,			    "59s"	 },
		{60 * USEC_PER_SEC,			    "1m0s"  },
		{3599 * USEC_PER_SEC,		      "59m59s"},
		{7500 * USEC_PER_SEC,		      "2h5m"  },
		{(4 * 86400 + 7 * 3600) * USEC_PER_SEC, "4d7h"  },
	};
	char buf[TEXT_SPAN_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_str_eq(text_span(cases[i].usec, buf), cases[i].text);
	ck_assert_uint_lt(strlen(text_span(USEC_INFINITY, buf)), TEXT_SPAN_MAX);
}
END_TEST

START_TEST(sizes)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0,		    "0B"	},
		{1023,	       "1023B"},
		{1024,	       "1.0K" },
		{10240 - 1,	    "9.9K" },
		{10240,		"10K"  },
		{512 << 20,	    "512M" },
		{UINT64_C(3) << 29, "1.5G" },
		{UINT64_MAX,	     "15E"  },
	};
	char buf[TEXT_SIZE_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_str_eq(text_size(cases[i].bytes, buf), cases[i].text);
}
END_TEST

START_TEST(moments)
{
	char buf[TEXT_TIME_MAX];

	setenv("TZ", "UTC", 1);
	ck_assert_str_eq(text_time(UINT64_C(1700000000123456), false, buf), "2023-11-14 22:13:20");
	ck_assert_str_eq(
		text_time(UINT64_C(1700000000123456), true, buf), "2023-11-14 22:13:20.123");
	ck_assert_uint_lt(strlen(text_time(USEC_INFINITY, true, buf)), TEXT_TIME_MAX);
}
END_TEST

START_TEST(shares)
{
	char buf[TEXT_PERCENT_MAX];

	ck_assert_str_eq(text_percent(0, buf), "0%");
	ck_assert_str_eq(text_percent(0.1, buf), "0.1%");
	ck_assert_str_eq(text_percent(33.333, buf), "33.33%");
	ck_assert_str_eq(text_percent(50, buf), "50%");
	ck_assert_str_eq(text_percent(100, buf), "100%");
	/* What no daemon should say */
	ck_assert_str_eq(text_percent(-5, buf), "0%");
	ck_assert_str_eq(text_percent(1e300, buf), "100%");
	ck_assert_str_eq(text_percent(__builtin_nan(""), buf), "0%");
}
END_TEST

static void assert_socket(const char *path, const char *instance, const char *expected)
{
	_cleanup_free_ char *s = NULL;

	ck_assert_int_eq(socket_path(path, instance, &s), 0);
	ck_assert_str_eq(s, expected);
}

START_TEST(sockets)
{
	unsetenv("TENURE_SOCKET");
	setenv("XDG_RUNTIME_DIR", "relative", 1);
	assert_socket(NULL, NULL, "/run/tenured/control.sock");
	assert_socket(NULL, "blue", "/run/tenured/blue/control.sock");
	assert_socket("/x", NULL, "/x");
	assert_socket("unix:/x", NULL, "/x");
	assert_socket("@abstract", NULL, "@abstract");
	setenv("TENURE_SOCKET", "/y", 1);
	assert_socket(NULL, NULL, "/y");
	assert_socket("/x", NULL, "/x");
	assert_socket(NULL, "blue", "/run/tenured/blue/control.sock");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		controls_are_replaced,
		cut_to_columns,
		last_lines,
		spans,
		sizes,
		moments,
		shares,
		sockets,
	};

	return run_tests("ctl_text", tests, ARRAY_SIZE(tests));
}

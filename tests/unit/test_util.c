/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>

#include "base/utf8.h"
#include "base/util.h"
#include "unit.h"

static bool fd_is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int open_null(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

START_TEST(close_fd_closes_and_keeps_errno)
{
	int fd = open_null();

	errno = ENOTTY;
	ck_assert_int_eq(close_fd(fd), -1);
	ck_assert_int_eq(errno, ENOTTY);
	ck_assert(!fd_is_open(fd));

	errno = ENOTTY;
	ck_assert_int_eq(close_fd(fd), -1); /* EBADF inside */
	ck_assert_int_eq(close_fd(-1), -1);
	ck_assert_int_eq(close_fd(-ENOENT), -1);
	ck_assert_int_eq(errno, ENOTTY);
}
END_TEST

START_TEST(scope_ends_ownership)
{
	int inner, kept;

	{
		_cleanup_close_ int fd = open_null();
		_cleanup_close_ int taken = open_null();
		_cleanup_close_ int none = -1;

		inner = fd;
		kept = TAKE_FD(taken);
		ck_assert_int_eq(taken, -1);
		ck_assert_int_eq(none, -1);
	}
	ck_assert(!fd_is_open(inner));
	ck_assert(fd_is_open(kept));
	close_fd(kept);
}
END_TEST

START_TEST(take_ptr_leaves_null)
{
	_cleanup_free_ char *s = strdup("x");
	char *before = s;
	_cleanup_free_ char *taken = TAKE_PTR(s);

	ck_assert_ptr_null(s);
	ck_assert_ptr_eq(taken, before);
}
END_TEST

START_TEST(strings)
{
	_cleanup_free_ char *s = xasprintf("%s-%d", "web", 8);

	ck_assert_str_eq(s, "web-8");
	ck_assert(streq("", ""));
	ck_assert(!streq("a", "b"));
	ck_assert(streq_null(NULL, NULL));
	ck_assert(!streq_null(NULL, ""));
	ck_assert(!streq_null("", NULL));
	ck_assert(streq_null("a", "a"));
	ck_assert_str_eq(startswith("unix:/x", "unix:"), "/x");
	ck_assert_str_eq(startswith("x", ""), "x");
	ck_assert_str_eq(startswith("unix:", "unix:"), "");
	ck_assert_ptr_null(startswith("uni", "unix:"));
	ck_assert_ptr_null(startswith("Unix:", "unix:"));
}
END_TEST

START_TEST(array_reserve_grows_and_keeps)
{
	_cleanup_free_ uint32_t *a = NULL;
	size_t capacity = 0, n_moves = 0;

	for (uint32_t i = 0; i < 1000; i++) {
		size_t before = capacity;

		ck_assert_int_eq(array_reserve(&a, &capacity, i + 1, sizeof(*a)), 0);
		ck_assert_uint_ge(capacity, i + 1);
		n_moves += capacity != before;
		a[i] = i * 7;
	}
	for (uint32_t i = 0; i < 1000; i++)
		ck_assert_uint_eq(a[i], i * 7);
	ck_assert_uint_le(n_moves, 10);
	ck_assert_int_eq(array_reserve(&a, &capacity, 5000, sizeof(*a)), 0);
	ck_assert_uint_ge(capacity, 5000);
}
END_TEST

START_TEST(array_reserve_refuses_overflow)
{
	_cleanup_free_ uint64_t *a = NULL;
	uint64_t *before;
	size_t capacity = 0, kept;

	ck_assert_int_eq(array_reserve(&a, &capacity, 3, sizeof(*a)), 0);
	before = a;
	kept = capacity;
	/* The doubling overflows, the product overflows, and nothing was touched. */
	ck_assert_int_eq(array_reserve(&a, &capacity, SIZE_MAX, sizeof(*a)), -ENOMEM);
	ck_assert_int_eq(array_reserve(&a, &capacity, SIZE_MAX / 4, sizeof(*a)), -ENOMEM);
	ck_assert_ptr_eq(a, before);
	ck_assert_uint_eq(capacity, kept);
}
END_TEST

START_TEST(strv_lists)
{
	_cleanup_strv_ char **l = NULL, **copy = NULL, **empty = NULL;

	ck_assert_uint_eq(strv_length(NULL), 0);
	ck_assert_ptr_null(strv_free(NULL));
	ck_assert_int_eq(strv_append(&l, "one"), 0);
	ck_assert_int_eq(strv_append_take(&l, strdup("two")), 0);
	ck_assert_int_eq(strv_append_take(&l, NULL), -ENOMEM);
	ck_assert_uint_eq(strv_length(l), 2);
	ck_assert_ptr_null(l[2]);

	copy = strv_copy(l);
	ck_assert_ptr_nonnull(copy);
	ck_assert_ptr_ne(copy[0], l[0]);
	ck_assert(strv_equal(l, copy));
	ck_assert_int_eq(strv_append(&copy, ""), 0);
	ck_assert(!strv_equal(l, copy));
	copy[0][0] = 'O';
	ck_assert_str_eq(l[0], "one");
	ck_assert(!strv_equal(l, copy));

	empty = strv_copy(NULL);
	ck_assert_ptr_nonnull(empty);
	ck_assert_uint_eq(strv_length(empty), 0);
	ck_assert(strv_equal(empty, NULL));
	ck_assert(!strv_equal(empty, l));
}
END_TEST

START_TEST(environments)
{
	_cleanup_strv_ char **l = NULL;

	ck_assert_ptr_null(strv_env_get(NULL, "A"));
	ck_assert_int_eq(strv_env_set(&l, "PATH", "/bin"), 0);
	ck_assert_int_eq(strv_env_set(&l, "A", "1"), 0);
	ck_assert_int_eq(strv_env_set(&l, "AB", "2"), 0);
	ck_assert_int_eq(strv_env_set(&l, "A", "x=y"), 0);
	ck_assert_uint_eq(strv_length(l), 3);
	ck_assert_str_eq(strv_env_get(l, "A"), "x=y");
	ck_assert_str_eq(strv_env_get(l, "AB"), "2");
	ck_assert_str_eq(l[1], "A=x=y"); /* in its place */
	ck_assert_ptr_null(strv_env_get(l, "B"));
	ck_assert_ptr_null(strv_env_get(l, "PAT"));

	/* An environment from outside may have a name twice: one is left. */
	ck_assert_int_eq(strv_append(&l, "A=again"), 0);
	ck_assert_int_eq(strv_append(&l, "LAST=1"), 0);
	ck_assert_int_eq(strv_append(&l, "A=and again"), 0);
	ck_assert_int_eq(strv_env_set(&l, "A", ""), 0);
	ck_assert_uint_eq(strv_length(l), 4);
	ck_assert_str_eq(strv_env_get(l, "A"), "");
	ck_assert_str_eq(l[3], "LAST=1");
}
END_TEST

START_TEST(utf8_is_strict)
{
	static const struct {
		const char *s;
		size_t len;
	} cases[] = {
		{"a",		      1},
		{"\x7f",		 1},
		{"\xc3\xa9",	     2},
		{"\xe2\x82\xac",	 3},
		{"\xef\xbf\xbf",	 3},
		{"\xed\x9f\xbf",	 3},
		{"\xf0\x90\x80\x80", 4},
		{"\xf4\x8f\xbf\xbf", 4},
 /* overlong, surrogates, over U+10FFFF, lone continuations, cut off */
		{"\xc0\x80",	     0},
		{"\xc1\xbf",	     0},
		{"\xe0\x9f\xbf",	 0},
		{"\xf0\x8f\xbf\xbf", 0},
		{"\xed\xa0\x80",	 0},
		{"\xed\xbf\xbf",	 0},
		{"\xf4\x90\x80\x80", 0},
		{"\xf5\x80\x80\x80", 0},
		{"\xff",		 0},
		{"\x80",		 0},
		{"\xbf",		 0},
		{"\xc3",		 0},
		{"\xe2\x82",	     0},
		{"\xf0\x90\x80",	 0},
		{"\xe2\x28\xa1",	 0},
		{"\xe2\x82\x28",	 0},
		{"",		     0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const uint8_t *s = (const uint8_t *)cases[i].s;
		size_t len = strlen(cases[i].s);

		ck_assert_msg(utf8_char_length(s, len) == cases[i].len, "case %zu", i);
		ck_assert_msg(utf8_valid(s, len) == (cases[i].len > 0 || len == 0), "case %zu", i);
	}
	ck_assert(utf8_valid("gr\xc3\xbc\xc3\x9f dich", 11));
	ck_assert(!utf8_valid("gr\xc3\xbc\xc3", 5));
}
END_TEST

START_TEST(utf8_every_code_point)
{
	/* The encoder is the test's own: every scalar value is one character, every other is none.
	 */
	for (uint32_t c = 0x80; c < 0x120000; c++) {
		uint8_t s[4];
		size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
		bool scalar = c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);

		for (size_t i = n - 1; i > 0; i--)
			s[i] = (uint8_t)(0x80 | ((c >> (6 * (n - 1 - i))) & 0x3f));
		s[0] = (uint8_t)((0xf00 >> n) | (c >> (6 * (n - 1))));
		ck_assert_msg(utf8_char_length(s, n) == (scalar ? n : 0), "U+%x", c);
	}
}
END_TEST

static void assert_printable(const char *s, size_t len, size_t max, const char *expected)
{
	_cleanup_free_ char *text = utf8_printable(s, len, max);

	ck_assert_ptr_nonnull(text);
	ck_assert_str_eq(text, expected);
}

START_TEST(utf8_printable_is_harmless)
{
	assert_printable("", 0, 10, "");
	assert_printable("ready", 5, 10, "ready");
	assert_printable("\x1b[2J", 4, 100, "\\x1b[2J");
	assert_printable("a\nb\tc\0d\x7f", 8, 100, "a\\x0ab\\x09c\\x00d\\x7f");
	assert_printable("\xc2\x9b", 2, 100, "\\xc2\\x9b"); /* C1: the 8-bit CSI */
	assert_printable("\xc2\xa0", 2, 100, "\xc2\xa0");
	assert_printable("\xe2\x80\xae", 3, 100, "\\xe2\\x80\\xae"); /* right-to-left override */
	assert_printable("\xe2\x80\xa8", 3, 100, "\\xe2\\x80\\xa8"); /* line separator */
	assert_printable("\xe2\x81\xa6", 3, 100, "\\xe2\\x81\\xa6");
	assert_printable("\xe2\x80\xa6", 3, 100, "\xe2\x80\xa6"); /* an ellipsis is a sign */
	assert_printable("caf\xe9", 4, 100, "caf\\xe9");
	assert_printable("\xc3\xa9\xc3", 3, 100, "\xc3\xa9\\xc3");
	assert_printable("back\\slash", 10, 100, "back\\slash");
}
END_TEST

START_TEST(utf8_printable_is_bounded)
{
	assert_printable("123456", 6, 6, "123456");
	assert_printable("1234567", 7, 6, "123...");
	assert_printable("1234567", 7, 3, "...");
	assert_printable("1234567", 7, 2, "12"); /* no room for the dots */
	assert_printable("1", 1, 0, "");
	/* never inside a character or an escape */
	assert_printable("12\xc3\xa9"
			 "567",
		7, 6, "12...");
	assert_printable("1\n23", 4, 6, "1...");
	assert_printable("\n\n", 2, 8, "\\x0a\\x0a");
	assert_printable("\n\n", 2, 7, "\\x0a...");
	assert_printable("\n\n", 2, SIZE_MAX, "\\x0a\\x0a");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		close_fd_closes_and_keeps_errno,
		scope_ends_ownership,
		take_ptr_leaves_null,
		strings,
		array_reserve_grows_and_keeps,
		array_reserve_refuses_overflow,
		strv_lists,
		environments,
		utf8_is_strict,
		utf8_every_code_point,
		utf8_printable_is_harmless,
		utf8_printable_is_bounded,
	};

	return run_tests("util", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"
#include "varlink/framing.h"

static void expect_message(struct varlink_framing *f, const char *text)
{
	const char *message;
	size_t len;

	ck_assert(varlink_framing_peek(f, &message, &len));
	ck_assert_uint_eq(len, strlen(text));
	ck_assert_str_eq(message, text);
	varlink_framing_pop(f);
}

START_TEST(byte_by_byte)
{
	struct varlink_framing f = VARLINK_FRAMING_INIT(100);
	static const char stream[] = "first\0second\0\0third";

	for (size_t i = 0; i < sizeof(stream); i++) {
		ck_assert_int_eq(varlink_framing_append(&f, stream + i, 1), 0);
		if (i == 4)
			ck_assert(!varlink_framing_ready(&f));
	}
	ck_assert_uint_eq(f.n_ready, 4);
	expect_message(&f, "first");
	expect_message(&f, "second");
	expect_message(&f, "");
	expect_message(&f, "third");
	ck_assert(!varlink_framing_ready(&f));
	ck_assert_ptr_null(f.bytes.data); /* an idle one holds nothing */
	varlink_framing_pop(&f);
	varlink_framing_done(&f);
}
END_TEST

START_TEST(any_cut)
{
	static const char stream[] = "ab\0c\0defgh\0ijk";

	for (size_t a = 0; a <= sizeof(stream); a++) {
		for (size_t b = a; b <= sizeof(stream); b++) {
			struct varlink_framing f = VARLINK_FRAMING_INIT(5);

			ck_assert_int_eq(varlink_framing_append(&f, stream, a), 0);
			ck_assert_int_eq(varlink_framing_append(&f, stream + a, b - a), 0);
			ck_assert_int_eq(
				varlink_framing_append(&f, stream + b, sizeof(stream) - b), 0);
			expect_message(&f, "ab");
			expect_message(&f, "c");
			expect_message(&f, "defgh");
			expect_message(&f, "ijk");
			ck_assert_uint_eq(f.unfinished, 0);
			varlink_framing_done(&f);
		}
	}
}
END_TEST

START_TEST(limit_is_per_message)
{
	struct varlink_framing f = VARLINK_FRAMING_INIT(4);

	/* Exactly the limit is allowed, any number of times. */
	ck_assert_int_eq(varlink_framing_append(&f,
				 "1234\0"
				 "1234\0"
				 "123",
				 13),
		0);
	ck_assert_int_eq(varlink_framing_append(&f, "4", 1), 0);
	ck_assert_int_eq(varlink_framing_append(&f, "5", 1), -EMSGSIZE);
	/* Nothing was added by what failed. */
	ck_assert_uint_eq(f.bytes.len, 14);
	ck_assert_int_eq(varlink_framing_append(&f, "\0toolong\0", 9), -EMSGSIZE);
	ck_assert_int_eq(varlink_framing_append(&f, "", 1), 0);
	ck_assert_uint_eq(f.n_ready, 3);
	expect_message(&f, "1234");
	expect_message(&f, "1234");
	expect_message(&f, "1234");
	varlink_framing_done(&f);
}
END_TEST

START_TEST(big)
{
	struct varlink_framing f = VARLINK_FRAMING_INIT(VARLINK_MESSAGE_MAX);
	_cleanup_free_ char *text = malloc(VARLINK_MESSAGE_MAX + 1);
	const char *message;
	size_t len;

	memset(text, 'x', VARLINK_MESSAGE_MAX);
	text[VARLINK_MESSAGE_MAX] = '\0';
	for (size_t i = 0; i < VARLINK_MESSAGE_MAX; i += 4096)
		ck_assert_int_eq(varlink_framing_append(&f, text + i, 4096), 0);
	ck_assert(!varlink_framing_peek(&f, &message, &len));
	ck_assert_int_eq(varlink_framing_append(&f, "", 1), 0);
	ck_assert(varlink_framing_peek(&f, &message, &len));
	ck_assert_uint_eq(len, VARLINK_MESSAGE_MAX);
	ck_assert_int_eq(memcmp(message, text, len), 0);
	varlink_framing_pop(&f);
	ck_assert_uint_eq(f.bytes.len, 0);
	varlink_framing_done(&f);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {byte_by_byte, any_cut, limit_is_per_message, big};

	return run_tests("varlink_framing", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buffer.h"
#include "unit.h"

static void assert_holds(const struct buffer *b, const char *expected)
{
	size_t len = strlen(expected);

	ck_assert_uint_eq(b->len, len);
	if (len > 0)
		ck_assert_mem_eq(buffer_data(b), expected, len);
}

START_TEST(append_and_consume)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(0);

	ck_assert_ptr_null(buffer_data(&b));
	ck_assert_int_eq(buffer_append(&b, "hello ", 6), 0);
	ck_assert_int_eq(buffer_append(&b, NULL, 0), 0);
	ck_assert_int_eq(buffer_append(&b, "world", 5), 0);
	assert_holds(&b, "hello world");
	buffer_consume(&b, 0);
	buffer_consume(&b, 6);
	assert_holds(&b, "world");
	buffer_consume(&b, 5);
	assert_holds(&b, "");
	/* Memory is given back when it empties. */
	ck_assert_ptr_null(b.data);
	ck_assert_uint_eq(b.capacity, 0);
	buffer_consume(&b, 0);
	ck_assert_int_eq(buffer_append(&b, "again", 5), 0);
	assert_holds(&b, "again");
}
END_TEST

START_TEST(the_limit_holds)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(10);
	uint8_t *tail;

	ck_assert_int_eq(buffer_append(&b, "0123456", 7), 0);
	ck_assert_int_eq(buffer_append(&b, "7890", 4), -EMSGSIZE);
	assert_holds(&b, "0123456");
	ck_assert_int_eq(buffer_printf(&b, "%d", 7890), -EMSGSIZE);
	assert_holds(&b, "0123456");
	ck_assert_int_eq(buffer_reserve(&b, 4, &tail), -EMSGSIZE);
	ck_assert_int_eq(buffer_append(&b, "789", 3), 0);
	assert_holds(&b, "0123456789");
	ck_assert_int_eq(buffer_append(&b, "x", 1), -EMSGSIZE);

	/* It limits what is wanted, not what passes through, and stays after the buffer emptied. */
	for (int i = 0; i < 1000; i++) {
		buffer_consume(&b, 3);
		ck_assert_int_eq(buffer_append(&b, "abc", 3), 0);
	}
	ck_assert_uint_le(b.capacity, 1024);
	buffer_consume(&b, 10);
	ck_assert_int_eq(buffer_append(&b, "01234567890", 11), -EMSGSIZE);
	ck_assert_int_eq(buffer_printf(&b, "%s", "0123456789"), 0);
	assert_holds(&b, "0123456789");
}
END_TEST

START_TEST(absurd_sizes_are_refused)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(0);
	uint8_t *tail;

	ck_assert_int_eq(buffer_append(&b, "x", 1), 0);
	ck_assert_int_eq(buffer_reserve(&b, SIZE_MAX, &tail), -ENOMEM);
	ck_assert_int_eq(buffer_reserve(&b, SIZE_MAX - 1, &tail), -ENOMEM);
	assert_holds(&b, "x");
}
END_TEST

START_TEST(formatted)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(4096);

	for (int i = 0; i < 300; i++)
		ck_assert_int_eq(buffer_printf(&b, "%d,", i % 10), 0);
	ck_assert_int_eq(buffer_printf(&b, "%s", ""), 0);
	ck_assert_uint_eq(b.len, 600);
	for (size_t i = 0; i < 300; i++) {
		ck_assert_uint_eq(buffer_data(&b)[2 * i], '0' + i % 10);
		ck_assert_uint_eq(buffer_data(&b)[2 * i + 1], ',');
	}
}
END_TEST

START_TEST(reserve_then_commit)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(100);
	uint8_t *tail;

	ck_assert_int_eq(buffer_reserve(&b, 100, &tail), 0);
	memset(tail, 'a', 100);
	buffer_commit(&b, 3); /* as after a short read(2) */
	assert_holds(&b, "aaa");
	ck_assert_int_eq(buffer_reserve(&b, 97, &tail), 0);
	tail[0] = 'b';
	buffer_commit(&b, 1);
	assert_holds(&b, "aaab");
	buffer_commit(&b, 0);
	assert_holds(&b, "aaab");
}
END_TEST

/* Random appends and consumes against the simplest model: bytes are numbered in the order they
 * came. */
START_TEST(random_against_model)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(3000);
	size_t n_in = 0, n_out = 0, n_refused = 0;
	uint32_t seed = 12345;

	for (int i = 0; i < 20000; i++) {
		size_t n;

		seed = seed * 1664525 + 1013904223;
		n = (seed >> 16) % 700;
		if (seed & 0x8000) {
			uint8_t bytes[700];
			int r;

			for (size_t k = 0; k < n; k++)
				bytes[k] = (uint8_t)((n_in + k) * 31);
			r = buffer_append(&b, bytes, n);
			ck_assert_int_eq(r, n_in - n_out + n > 3000 && n > 0 ? -EMSGSIZE : 0);
			n_refused += r < 0;
			n_in += r < 0 ? 0 : n;
		} else {
			n = MIN(n, b.len);
			buffer_consume(&b, n);
			n_out += n;
		}
		ck_assert_uint_eq(b.len, n_in - n_out);
		ck_assert_uint_le(b.capacity, (size_t)2 * 4096);
		for (size_t k = 0; k < b.len; k += 13)
			ck_assert_uint_eq(buffer_data(&b)[k], (uint8_t)((n_out + k) * 31));
	}
	/* Both ends of the range were met, else the test showed little. */
	ck_assert_uint_gt(n_refused, 100);
	ck_assert_uint_gt(n_out, 1000000);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		append_and_consume,
		the_limit_holds,
		absurd_sizes_are_refused,
		formatted,
		reserve_then_commit,
		random_against_model,
	};

	return run_tests("buffer", tests, ARRAY_SIZE(tests));
}

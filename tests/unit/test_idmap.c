/* SPDX-License-Identifier: Apache-2.0 */
#include "base/idmap.h"

#include "unit.h"

START_TEST(empty)
{
	struct idmap m = {0};

	ck_assert_ptr_null(idmap_find(&m, 1));
	idmap_done(&m);
	ck_assert_uint_eq(m.n, 0);
}
END_TEST

START_TEST(many)
{
	enum { N = 100000 };
	struct idmap m = {0};
	uint64_t *value;

	/* Consecutive ones, as inodes are, and far ones. */
	for (uint64_t i = 1; i <= N; i++) {
		uint64_t id = i % 3 ? i : i << 40;

		ck_assert_int_eq(idmap_add(&m, id, &value), 1);
		ck_assert_uint_eq(*value, 0);
		*value = i;
	}
	ck_assert_uint_eq(m.n, N);
	for (uint64_t i = 1; i <= N; i++) {
		uint64_t id = i % 3 ? i : i << 40;

		ck_assert_ptr_nonnull(value = idmap_find(&m, id));
		ck_assert_uint_eq(*value, i);
		ck_assert_int_eq(idmap_add(&m, id, &value), 0);
		ck_assert_uint_eq(*value, i);
	}
	ck_assert_ptr_null(idmap_find(&m, N + 2));
	ck_assert_ptr_null(idmap_find(&m, UINT64_MAX));
	/* No part got much more than its share: each grows by itself, and shall stay small. */
	for (size_t i = 0; i < IDMAP_PARTS; i++)
		ck_assert_uint_lt(m.parts[i].n, 2 * N / IDMAP_PARTS);
	idmap_done(&m);
	ck_assert_ptr_null(idmap_find(&m, 1));
	/* It can be used again. */
	ck_assert_int_eq(idmap_add(&m, 1, &value), 1);
	idmap_done(&m);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {empty, many};

	return run_tests("idmap", tests, ARRAY_SIZE(tests));
}

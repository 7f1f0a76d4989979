/* SPDX-License-Identifier: Apache-2.0 */
/* Random schedules against the promises. How many: TENURE_SCHEDULES. The same ones each time, so
 * that a failure is one that the change at hand has made; more with tests/schedules --seed. */
#include "schedules.h"
#include "unit.h"

#if defined(__SANITIZE_ADDRESS__)
#define N_SCHEDULES 50000
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define N_SCHEDULES 50000
#endif
#endif
#ifndef N_SCHEDULES
#define N_SCHEDULES 1000000
#endif

START_TEST(promises)
{
	const char *wanted = getenv("TENURE_SCHEDULES");
	uint64_t n = wanted ? strtoull(wanted, NULL, 10) : N_SCHEDULES;
	struct schedule_counts counts = {0};

	ck_assert_int_eq(schedules_run(1, n, 0, &counts), 0);
	ck_assert_uint_eq(counts.schedules, n);
	/* A driver that never gets anywhere would find nothing. */
	if (n < 10000)
		return;
	ck_assert_uint_gt(counts.steps, 20 * n);
	ck_assert_uint_gt(counts.rollouts_done, n);
	ck_assert_uint_gt(counts.rollouts_failed, n / 10);
	ck_assert_uint_gt(counts.restored, n / 200);
	ck_assert_uint_gt(counts.rests, n / 2);
	ck_assert_uint_gt(counts.rollbacks, n / 1000);
	ck_assert_uint_gt(counts.rescues, n / 200);
	ck_assert_uint_gt(counts.given_up, n / 100);
	ck_assert_uint_gt(counts.stopped, n / 10);
	ck_assert_uint_gt(counts.verified, n / 10);
	ck_assert_uint_gt(counts.verify_failed, n / 1000);
	ck_assert_uint_gt(counts.recycled, n / 10);
	ck_assert_uint_gt(counts.recycle_failed, n / 20);
	ck_assert_uint_gt(counts.warm, n / 50);
	ck_assert_uint_gt(counts.warm_rollbacks, n / 1000);
	ck_assert_uint_gt(counts.warm_crashes, n / 200);
	ck_assert_uint_gt(counts.deaths, n / 2);
	ck_assert_uint_gt(counts.handovers, n / 10);
	ck_assert_uint_gt(counts.adopted, n / 10);
	ck_assert_uint_gt(counts.let_go, n / 50);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {promises};

	/* The default of a few seconds is for tests of a few milliseconds. */
	(void)setenv("CK_DEFAULT_TIMEOUT", "600", 0);
	return run_tests("schedules", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Lives of workers, as lines: what happened and when, and what was answered. */
#include "core/backoff.h"
#include "unit.h"

static const struct backoff_policy usual = {
	.from_usec = 100 * USEC_PER_MSEC,
	.to_usec = 30 * USEC_PER_SEC,
	.window_usec = 60 * USEC_PER_SEC,
	.limit_starts = 5,
};

/* events: "r" it had been ready, "n" never; "p" proven, so that it may not be given up; then after
 * how many milliseconds since the start it was given ("+" in front) it failed. The answers in
 * milliseconds, "never" for none. */
static void check_life(const struct backoff_policy *p, const char *events, const char *answers)
{
	struct backoff b = BACKOFF_NULL;
	uint64_t now = 1000 * USEC_PER_SEC;
	_cleanup_free_ char *copy = strdup(events), *got = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&got, &size);
	char *save = NULL;

	ck_assert_ptr_nonnull(f);
	for (char *e = strtok_r(copy, " ", &save); e; e = strtok_r(NULL, " ", &save)) {
		bool was_ready = *e != 'n', proven = *e == 'p';
		uint64_t wait;

		now += strtoul(e + 1, NULL, 10) * USEC_PER_MSEC;
		wait = backoff_failed(&b, p, now, was_ready, !proven);
		fputs(ftell(f) > 0 ? " " : "", f);
		if (wait == USEC_INFINITY)
			fputs("never", f);
		else {
			fprintf(f, "%lu", (unsigned long)(wait / USEC_PER_MSEC));
			now += wait;
		}
		ck_assert_int_eq(fflush(f), 0);
	}
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_str_eq(got, answers);
}

START_TEST(lives)
{
	struct backoff_policy unlimited = usual, one = usual, short_ceiling = usual,
			      long_ceiling = usual;
	struct backoff_policy no_wait = usual, no_window = usual, inverted = usual;

	unlimited.limit_starts = 0;
	/* A worker that had been ready comes back at once, then with growing patience. */
	check_life(&unlimited, "r0 r0 r0 r0 r0 r0 r0 r0 r0 r0 r0 r0 r0",
		"0 100 200 400 800 1600 3200 6400 12800 25600 30000 30000 30000");
	/* One that never was waits from the first failure on. */
	check_life(&unlimited, "n0 n0 n0 n0", "100 200 400 800");
	/* However it goes on, each failure takes the next step. */
	check_life(&unlimited, "r0 n0 n0 r0 r0", "0 100 200 400 800");
	check_life(&unlimited, "n0 r0 r0 n0", "100 200 400 800");
	/* A quiet minute forgets all, a shorter one nothing. */
	check_life(&unlimited, "r0 r0 r0 r60000 r0 r59999 r60000", "0 100 200 0 100 200 0");
	check_life(&unlimited, "n0 n0 n60000 n1", "100 200 100 200");
	/* The wait itself is not quiet, also when it is longer than the window. */
	long_ceiling = unlimited;
	long_ceiling.to_usec = 600 * USEC_PER_SEC;
	long_ceiling.from_usec = 50 * USEC_PER_SEC;
	check_life(&long_ceiling, "n0 n0 n59999 n0 n0 n0 n60000",
		"50000 100000 200000 400000 600000 600000 50000");

	/* Five starts, counting the first, and no sixth within the minute. */
	check_life(&usual, "n0 n0 n0 n0 n0", "100 200 400 800 never");
	check_life(&usual, "r0 r0 r0 r0 r0", "0 100 200 400 never");
	check_life(&usual, "n0 n0 n0 n0 n0 n0", "100 200 400 800 never never");
	/* Spread over more than the window they do not count together; the patience still grows. */
	check_life(&usual, "n0 n14000 n14000 n14000 n14000", "100 200 400 800 never");
	check_life(&usual, "n0 n20000 n20000 n20000 n20000 n20000", "100 200 400 800 1600 3200");
	/* Proven: for ever, at the ceiling, until it was quiet. The first time stays at once. */
	check_life(&usual, "p0 p0 p0 p0 p0 p0 p50000 p0 p60000 p0",
		"0 100 200 400 30000 30000 30000 30000 0 100");
	one.limit_starts = 1;
	check_life(&one, "n0", "never");
	check_life(&one, "p0 p0 p0", "0 30000 30000");

	short_ceiling.to_usec = 150 * USEC_PER_MSEC;
	check_life(&short_ceiling, "n0 n0 n0 n0", "100 150 150 150");
	inverted.to_usec = 50 * USEC_PER_MSEC;
	check_life(&inverted, "r0 r0 r0 n0", "0 50 50 50");
	no_wait.from_usec = 0;
	check_life(&no_wait, "n0 n0 r0 r0 n0", "0 0 0 0 never");
	no_window = unlimited;
	no_window.window_usec = 0;
	check_life(&no_window, "r0 r0 r0 r29999 r30000", "0 100 200 400 0");
}
END_TEST

/* Every state x every kind of failure, for many policies: the answer keeps its promises. */
START_TEST(exhaustive)
{
	static const uint64_t times[] = {
		0, 1, 100, 1000, 99999, USEC_PER_SEC, 60 * USEC_PER_SEC, USEC_INFINITY - 1};
	static const unsigned counts[] = {0, 1, 2, 5, 63, 64, 65, 1000, UINT32_MAX};
	unsigned long n = 0;
	enum { T = ARRAY_SIZE(times), C = ARRAY_SIZE(counts) };

	for (unsigned i = 0; i < T * T * T * C * C * T * 4; i++) {
		unsigned at = i;
#define NEXT(a)                                                                                    \
	((a)[at % ARRAY_SIZE(a)]);                                                                 \
	at /= ARRAY_SIZE(a)
		struct backoff_policy p = {.limit_starts = 5, .window_usec = USEC_PER_SEC};
		struct backoff b = {.window_start_usec = 100};
		bool was_ready = i & 1, may_give_up = i & 2;
		uint64_t now, wait, again;
		struct backoff c;

		at /= 4;
		p.from_usec = NEXT(times);
		p.to_usec = NEXT(times);
		b.last_usec = NEXT(times);
		b.failures = NEXT(counts);
		b.steps = NEXT(counts);
		now = NEXT(times);
#undef NEXT
		c = b;
		wait = backoff_failed(&b, &p, now, was_ready, may_give_up);
		again = backoff_failed(&c, &p, now, was_ready, may_give_up);
		if (wait != again || memcmp(&b, &c, sizeof(b)) != 0)
			ck_abort_msg("case %u: not the same answer twice", i);
		if (wait == USEC_INFINITY ? !may_give_up || b.failures < 5 : wait > p.to_usec)
			ck_abort_msg("case %u: %lu", i, (unsigned long)wait);
		if (wait != USEC_INFINITY && may_give_up && b.failures >= 5)
			ck_abort_msg("case %u: over the limit", i);
		if (wait == 0 && !was_ready && p.from_usec > 0 && p.to_usec > 0)
			ck_abort_msg("case %u: no patience", i);
		if (b.failures == 0 || b.window_start_usec == USEC_INFINITY)
			ck_abort_msg("case %u: not counted", i);
		n++;
	}
	ck_assert_uint_gt(n, 1000000);
}
END_TEST

/* A start that was due later than now (asked for by hand) or a time before the window are no quiet
 * time. */
START_TEST(times_out_of_order)
{
	struct backoff b = BACKOFF_NULL;

	ck_assert_uint_eq(
		backoff_failed(&b, &usual, 100 * USEC_PER_SEC, false, true), 100 * USEC_PER_MSEC);
	ck_assert_uint_eq(
		backoff_failed(&b, &usual, 50 * USEC_PER_SEC, false, true), 200 * USEC_PER_MSEC);
	ck_assert_uint_eq(
		backoff_failed(&b, &usual, 50 * USEC_PER_SEC, false, true), 400 * USEC_PER_MSEC);
	ck_assert_uint_eq(b.failures, 3);
}
END_TEST

int main(void)
{
	const TTest *tests[] = {lives, exhaustive, times_out_of_order};

	return run_tests("backoff", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "core/cpu_set.h"
#include "unit.h"

/* Read and written again. */
static const struct {
	const char *text, *canonical;
	unsigned count;
} sets[] = {
	{"0",	       "0",		   1   },
	{"0-3",		"0-3",	       4	},
	{"0-3,8",		  "0-3,8",	   5   },
	{"8,0-3",		  "0-3,8",	   5   },
	{"3,2,1,0",	    "0-3",	   4   },
	{"0-1,2-3,3",	      "0-3",	     4   },
	{"5-5",		"5",	     1   },
	{"0,2,4,6",	    "0,2,4,6",      4	},
	{"63-64",		  "63-64",	   2   },
	{"1023",		 "1023",	 1	  },
	{"0-1023",	   "0-1023",	     1024},
	{"0,1023,62-65,64", "0,62-65,1023", 6   },
};

START_TEST(parse_and_format)
{
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		_cleanup_free_ char *text = NULL;
		struct cpu_set set;

		ck_assert_int_eq(cpu_set_parse(sets[i].text, &set), 0);
		ck_assert_uint_eq(cpu_set_count(&set), sets[i].count);
		text = cpu_set_format(&set);
		ck_assert_str_eq(text, sets[i].canonical);
	}
}
END_TEST

START_TEST(what_is_refused)
{
	static const char *const bad[] = {"", ",", "0,", ",0", "a", "1-", "-1", "3-1", "1--2",
		"0 1", " 1", "1 ", "0x1", "+1", "1-2-3", "0.5", "99999999999"};
	static const char *const too_high[] = {"1024", "0-1024", "1,2000", "4294967295"};
	struct cpu_set set = {.bits = {77}};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(cpu_set_parse(bad[i], &set) == -EINVAL, "%s", bad[i]);
	for (size_t i = 0; i < ARRAY_SIZE(too_high); i++)
		ck_assert_msg(cpu_set_parse(too_high[i], &set) == -ERANGE, "%s", too_high[i]);
	ck_assert_uint_eq(set.bits[0], 77);
}
END_TEST

START_TEST(any_set)
{
	uint64_t state = 5;

	for (unsigned round = 0; round < 2000; round++) {
		_cleanup_free_ char *text = NULL;
		struct cpu_set set = {0}, again = {0};
		unsigned range = 1 + round % CPU_SET_MAX;

		for (unsigned i = 0; i < 1 + round % 600; i++) {
			state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
			cpu_set_add(&set, (unsigned)(state >> 33) % range);
		}
		text = cpu_set_format(&set);
		ck_assert_int_eq(cpu_set_parse(text, &again), 0);
		ck_assert_mem_eq(&set, &again, sizeof(set));
	}
}
END_TEST

/* The longest text: every second CPU. */
START_TEST(the_longest)
{
	_cleanup_free_ char *text = NULL;
	struct cpu_set set = {0}, again;

	for (unsigned cpu = 1; cpu < CPU_SET_MAX; cpu += 2)
		cpu_set_add(&set, cpu);
	text = cpu_set_format(&set);
	ck_assert_int_eq(cpu_set_parse(text, &again), 0);
	ck_assert_mem_eq(&set, &again, sizeof(set));
	free(text);
	set = (struct cpu_set){0};
	text = cpu_set_format(&set);
	ck_assert_str_eq(text, "");
}
END_TEST

/* Workers beyond the CPUs begin again from the first. */
START_TEST(the_nth)
{
	struct cpu_set set;

	ck_assert_int_eq(cpu_set_parse("2,5-6,900", &set), 0);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_uint_eq(cpu_set_nth(&set, 4 * i), 2);
		ck_assert_uint_eq(cpu_set_nth(&set, 4 * i + 1), 5);
		ck_assert_uint_eq(cpu_set_nth(&set, 4 * i + 2), 6);
		ck_assert_uint_eq(cpu_set_nth(&set, 4 * i + 3), 900);
	}
	ck_assert(!cpu_set_has(&set, 4));
	ck_assert(!cpu_set_has(&set, CPU_SET_MAX));
}
END_TEST

int main(void)
{
	const TTest *tests[] = {parse_and_format, what_is_refused, any_set, the_longest, the_nth};

	return run_tests("cpu_set", tests, ARRAY_SIZE(tests));
}

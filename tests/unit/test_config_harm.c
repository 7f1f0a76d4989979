/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files that are meant to do harm, and the example with random changes: reading them
 * ends, soon, with an answer. TENURE_SEED chooses other changes. */
#include <time.h>

#include "config_dump.h"
#include "config_scratch.h"
#include "unit.h"

/* Seconds of CPU that reading took. */
static double time_of(const char *text, char **ret_lines)
{
	clock_t start = clock();

	*ret_lines = problems_of(text, strlen(text));
	return (double)(clock() - start) / CLOCKS_PER_SEC;
}

static void assert_fast(const char *text, const char *message)
{
	_cleanup_free_ char *lines = NULL;
	double seconds = time_of(text, &lines);

	ck_assert_msg(strstr(lines, message), "expected: %s\nbut got: %.1000s", message, lines);
	ck_assert_msg(seconds < 20, "took %.1f s: %s", seconds, message);
}

START_TEST(billion_laughs)
{
	_cleanup_free_ char *text = strdup("x-a: &a0 [lol]\n");
	_cleanup_free_ char *merges = NULL, *lists = NULL;

	scratch_enter();
	for (unsigned i = 1; i < 30; i++) {
		_cleanup_free_ char *line =
			xasprintf("x-%u: &a%u [*a%u, *a%u, *a%u, *a%u, *a%u, *a%u]\n", i, i, i - 1,
				i - 1, i - 1, i - 1, i - 1, i - 1);

		text = append(text, line);
	}
	assert_fast(text, "too large with its aliases written out");
	merges = append(NULL, "x-a: &a {");
	for (unsigned i = 0; i < 1000; i++) {
		_cleanup_free_ char *pair = xasprintf("k%u: v, ", i);

		merges = append(merges, pair);
	}
	lists = repeat("}\nx-b: {<<: [", "*a, ", 400, "]}\n");
	merges = append(merges, lists);
	assert_fast(merges, "too large with its merges written out");
	scratch_leave();
}
END_TEST

START_TEST(deep_and_long)
{
	static const struct {
		const char *what, *after, *message;
		size_t n;
	} cases[] = {
		{"[",      "",  "nested too deeply", 4000000},
		{"{",      "",  "nested too deeply", 4000000},
		{"- ",     "",  "nested too deeply", 2000000},
		{"? ",     "",  "nested too deeply", 2000000},
		{"a: {",	 "",  "nested too deeply", 1000000},
		{"x",      "",  "longer than 128K",  4000000},
		{"#\n",	"",  "the file is empty", 2000000},
		{"\n",     "",  "the file is empty", 4000000},
		{"a,",     "]", "error",	     2000000},
		{"a: b\n", "",  "already in line 1", 90000	 },
	};

	scratch_enter();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *text = repeat("", cases[i].what, cases[i].n, cases[i].after);

		assert_fast(text, cases[i].message);
	}
	scratch_leave();
}
END_TEST

/* --- mutations -------------------------------------------------------------- */

static uint64_t random_state;

static unsigned random_below(unsigned n) /* splitmix64, the same on every machine */
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (unsigned)((z ^ (z >> 31)) % n);
}

static const char *const pieces[] = {"&a ", "*a", "<<: ", "[", "]", "{", "}", ": ", "\n", "- ",
	"\"", "'", "|\n", "? ", "!x ", "---\n", "~", "0", "-1", "99999999999", "%", "{fd:", "5%",
	"unix:@", "\t", "\\", "http", "auto", "\xf0\x9f\x98\x80", "\xff", "#"};

/* Some bytes of the text changed, removed, doubled or replaced by what means something. */
static size_t mutate(char *text, size_t len, size_t capacity)
{
	unsigned n = 1 + random_below(6);

	while (n-- > 0 && len > 100) {
		size_t at = random_below((unsigned)len - 60), run = 1 + random_below(50);
		const char *piece = pieces[random_below(ARRAY_SIZE(pieces))];

		switch (random_below(4)) {
		case 0:
			text[at] = (char)random_below(256);
			break;
		case 1:
			memmove(text + at, text + at + run, len - at - run);
			len -= run;
			break;
		case 2:
			if (len + run > capacity)
				break;
			memmove(text + at + run, text + at, len - at);
			len += run;
			break;
		default:
			memcpy(text + at, piece, strlen(piece));
		}
	}
	return len;
}

static char *read_example(size_t *ret_len, size_t capacity)
{
	_cleanup_fclose_ FILE *f = fopen(scratch_example, "re");
	char *text = malloc(capacity);

	ck_assert_msg(f, "%s: %s", scratch_example, strerror(errno));
	ck_assert_ptr_nonnull(text);
	*ret_len = fread(text, 1, capacity, f);
	ck_assert_uint_gt(*ret_len, 1000);
	return text;
}

START_TEST(mutations)
{
	enum { CAPACITY = 65536, ROUNDS = 4000 };
	size_t len, n_good = 0, n_bad = 0;
	_cleanup_free_ char *original = read_example(&len, CAPACITY);
	_cleanup_free_ char *text = malloc(CAPACITY);
	const char *seed = getenv("TENURE_SEED");

	random_state = seed ? strtoull(seed, NULL, 0) : 1;
	scratch_enter();
	for (unsigned i = 0; i < ROUNDS; i++) {
		_cleanup_config_ struct config *c = NULL;
		_cleanup_free_ char *lines = NULL;

		memcpy(text, original, len);
		write_file("t.yaml", text, mutate(text, len, CAPACITY));
		if (load("t.yaml", &c, &lines) > 0) {
			n_bad++;
			ck_assert_ptr_nonnull(strstr(lines, "error: "));
			continue;
		}
		n_good++;
		for (size_t j = 0; j < c->n_services; j++) {
			_cleanup_strv_ char **dump =
				config_dump_service(&c->services[j], scratch_directory);
			struct service_config copy;
			_cleanup_strv_ char **copy_dump = NULL;

			ck_assert_int_eq(service_config_copy(&c->services[j], &copy), 0);
			copy_dump = config_dump_service(&copy, scratch_directory);
			ck_assert(strv_equal(dump, copy_dump));
			service_config_done(&copy);
		}
	}
	/* Most of the example is comments, so both kinds must have been seen. */
	ck_assert_uint_gt(n_good, ROUNDS / 20);
	ck_assert_uint_gt(n_bad, ROUNDS / 20);
	scratch_leave();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		billion_laughs,
		deep_and_long,
		mutations,
	};

	scratch_find_files();
	return run_tests("config_harm", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* From what a worker writes to where it is read: our stderr or a file, line by line. */
#include "daemon/output.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/log.h"
#include "unit.h"

enum { MIB = 1 << 20 };

static sd_event *event;
static struct output_hub *hub;
static int saved_stderr, stderr_file;
static size_t n_fds;
static char directory[32], path[64], rotated[64];

static void set_up(void)
{
	/* What the log keeps open is not of interest here. */
	log_init(LOG_INFO);
	n_fds = count_fds();
	(void)snprintf(directory, sizeof(directory), "/tmp/tenured-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/web.log", directory);
	(void)snprintf(rotated, sizeof(rotated), "%s/web.log.1", directory);
	unsetenv("JOURNAL_STREAM");
	saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	stderr_file = open("/tmp", O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
	ck_assert(saved_stderr >= 0 && stderr_file >= 0);
	ck_assert_int_eq(dup2(stderr_file, STDERR_FILENO), STDERR_FILENO);
	log_init(LOG_INFO);
	ck_assert_int_ge(sd_event_new(&event), 0);
	ck_assert_int_eq(output_hub_new(event, &hub), 0);
}

static void tear_down(void)
{
	hub = output_hub_free(hub);
	event = sd_event_unref(event);
	(void)dup2(saved_stderr, STDERR_FILENO);
	close_fd(saved_stderr);
	close_fd(stderr_file);
	log_init(LOG_INFO);
	(void)unlink(path);
	(void)unlink(rotated);
	ck_assert_int_eq(rmdir(directory), 0);
	ck_assert_uint_eq(count_fds(), n_fds);
}

/* Until nothing is left to do: how many rounds that took. */
static unsigned turn(void)
{
	unsigned n = 0;

	while (sd_event_run(event, 0) > 0)
		ck_assert_uint_lt(++n, 100000);
	return n;
}

static struct output *begin(enum output_kind kind, unsigned worker, int *ret_write_fd)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct output *o = NULL;
	int r = output_new(hub, kind, path, "web", 3, worker, &o, ret_write_fd, &error);

	ck_assert_msg(r == 0, "%s", error_message(&error));
	return o;
}

static char *content(int fd)
{
	struct stat st;
	char *text;

	ck_assert_int_eq(fstat(fd, &st), 0);
	text = calloc(1, (size_t)st.st_size + 1);
	ck_assert_ptr_nonnull(text);
	ck_assert_int_eq(pread(fd, text, (size_t)st.st_size, 0), st.st_size);
	return text;
}

static void expect_stderr(const char *want)
{
	_cleanup_free_ char *text = content(stderr_file);

	ck_assert_str_eq(text, want);
}

static void expect_file(const char *name, const char *want)
{
	_cleanup_close_ int fd = open(name, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;

	ck_assert_int_ge(fd, 0);
	text = content(fd);
	ck_assert_str_eq(text, want);
}

START_TEST(lines_with_their_worker)
{
	int first_fd = -1, second_fd = -1;
	struct output *first = begin(OUTPUT_TEE, 0, &first_fd);
	struct output *second = begin(OUTPUT_TEE, 1, &second_fd);

	put_text(first_fd, "one\ntwo\nthr");
	(void)turn();
	put_text(second_fd, "other\n");
	(void)turn();
	put_text(first_fd, "ee\n\nlast");
	(void)turn();
	expect_stderr("web.3.0 | one\nweb.3.0 | two\nweb.3.1 | other\nweb.3.0 | three\n"
		      "web.3.0 | \n");
	/* A line without its end is one when nothing comes after it any more. */
	close_fd(first_fd);
	close_fd(second_fd);
	output_free(first);
	output_free(second);
	expect_stderr("web.3.0 | one\nweb.3.0 | two\nweb.3.1 | other\nweb.3.0 | three\n"
		      "web.3.0 | \nweb.3.0 | last\n");
}
END_TEST

START_TEST(what_was_not_read_yet_is_not_lost)
{
	int fd = -1;
	struct output *o = begin(OUTPUT_TEE, 0, &fd);
	_cleanup_free_ char *tail = NULL;

	/* The worker is reaped before its last words have made the round. */
	put_text(fd, "panic\n");
	output_catch_up(o);
	tail = output_tail(o, 10);
	ck_assert_str_eq(tail, "panic\n");
	expect_stderr("web.3.0 | panic\n");
	put_text(fd, "really\n");
	close_fd(fd);
	output_free(o);
	expect_stderr("web.3.0 | panic\nweb.3.0 | really\n");
	ck_assert_ptr_null(output_free(NULL));
}
END_TEST

START_TEST(journal_without_a_journal)
{
	int fd = -1;
	struct output *o = begin(OUTPUT_JOURNAL, 2, &fd);

	put_text(fd, "<3>bad\n");
	close_fd(fd);
	output_free(o);
	expect_stderr("web.3.2 | <3>bad\n");
}
END_TEST

START_TEST(a_file_that_is_rotated)
{
	int first_fd = -1, second_fd = -1;
	mode_t mask = umask(0);
	struct output *first = begin(OUTPUT_FILE, 0, &first_fd), *second;
	struct stat st;
	size_t n = count_fds();

	(void)umask(mask);
	second = begin(OUTPUT_FILE, 1, &second_fd);
	/* A capture and its writer's end; the log file is shared. */
	ck_assert_uint_eq(count_fds(), n + 2);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
	put_text(first_fd, "a\n");
	(void)turn();
	put_text(second_fd, "b\n");
	(void)turn();
	expect_file(path, "a\nb\n");

	ck_assert_int_eq(rename(path, rotated), 0);
	put_text(first_fd, "before\n");
	(void)turn();
	output_hub_reopen(hub);
	put_text(first_fd, "after\n");
	(void)turn();
	put_text(second_fd, "too\n");
	(void)turn();
	expect_file(rotated, "a\nb\nbefore\n");
	expect_file(path, "after\ntoo\n");
	ck_assert_uint_eq(count_fds(), n + 2);

	/* One goes, the other still has the file. */
	close_fd(first_fd);
	output_free(first);
	put_text(second_fd, "alone\n");
	close_fd(second_fd);
	output_free(second);
	expect_file(path, "after\ntoo\nalone\n");
	expect_stderr("");
	/* It is appended to, by the next as well. */
	first = begin(OUTPUT_FILE, 0, &first_fd);
	put_text(first_fd, "again\n");
	close_fd(first_fd);
	output_free(first);
	expect_file(path, "after\ntoo\nalone\nagain\n");
}
END_TEST

START_TEST(a_rotation_that_fails)
{
	int fd = -1;
	struct output *o = begin(OUTPUT_FILE, 0, &fd);
	_cleanup_free_ char *log = NULL;

	ck_assert_int_eq(rename(path, rotated), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	output_hub_reopen(hub);
	log = content(stderr_file);
	ck_assert_msg(strstr(log, "web.log cannot be opened again: Is a directory"), "%s", log);
	put_text(fd, "kept\n");
	close_fd(fd);
	output_free(o);
	expect_file(rotated, "kept\n");
	ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

START_TEST(a_file_that_cannot_be_had)
{
	_cleanup_error_ struct error error = ERROR_NULL, inherit = ERROR_NULL;
	struct output *o = NULL;
	size_t n = count_fds();
	int fd = -1;

	ck_assert_int_eq(
		output_new(hub, OUTPUT_FILE, "/nowhere/x.log", "web", 1, 0, &o, &fd, &error),
		-ENOENT);
	ck_assert_str_eq(error_message(&error),
		"web: output file /nowhere/x.log: No such file or directory");
	ck_assert_int_eq(
		output_new(hub, OUTPUT_INHERIT, NULL, "web", 1, 0, &o, &fd, &inherit), -EINVAL);
	ck_assert_ptr_null(o);
	ck_assert_int_eq(fd, -1);
	ck_assert_uint_eq(count_fds(), n);
	ck_assert_uint_eq(turn(), 0);
}
END_TEST

START_TEST(a_full_disk_is_told_once)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct output *o = NULL;
	int fd = -1;

	ck_assert_int_eq(
		output_new(hub, OUTPUT_FILE, "/dev/full", "web", 1, 0, &o, &fd, &error), 0);
	put_text(fd, "a\nb\nc\n");
	(void)turn();
	put_text(fd, "d\n");
	close_fd(fd);
	output_free(o);
	expect_stderr("tenured: web: its output cannot be written to /dev/full: No space left on "
		      "device\n");
}
END_TEST

START_TEST(the_last_lines)
{
	static const struct {
		unsigned max;
		const char *want;
	} cases[] = {
		{1, "d\n"		 },
		{2, "c?[0m\nd\n"	},
		{3, "b\nc?[0m\nd\n"   },
		{4, "a\nb\nc?[0m\nd\n"},
		{9, "a\nb\nc?[0m\nd\n"},
	};
	int fd = -1;
	struct output *o = begin(OUTPUT_TEE, 0, &fd);
	_cleanup_free_ char *unfinished = NULL;

	ck_assert_ptr_null(output_tail(o, 10));
	put_text(fd, "a\nb\nc\x1b[0m\nd\n");
	(void)turn();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *tail = output_tail(o, cases[i].max);

		ck_assert_str_eq(tail, cases[i].want);
	}
	put_text(fd, "Segm");
	(void)turn();
	unfinished = output_tail(o, 2);
	ck_assert_str_eq(unfinished, "d\nSegm");
	close_fd(fd);
	output_free(o);
}
END_TEST

/* n MiB in numbered lines of 64 bytes. */
static void flood(int fd, unsigned n)
{
	char *text = malloc(MIB + 1);

	ck_assert_ptr_nonnull(text);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < MIB / 64; k++)
			(void)snprintf(text + (size_t)k * 64, 65, "%063u\n", i * (MIB / 64) + k);
		ck_assert_int_eq(write(fd, text, MIB), MIB);
	}
	free(text);
}

START_TEST(a_flood)
{
	enum { MUCH = 40, KEPT = 16 };
	int fd = -1;
	struct output *o = begin(OUTPUT_FILE, 0, &fd);
	unsigned long long dropped = 0;
	_cleanup_free_ char *log = NULL, *tail = NULL;
	struct stat st, file;

	flood(fd, MUCH);
	(void)turn();
	log = content(stderr_file);
	ck_assert_msg(sscanf(log, "tenured: web.3.0: %llu bytes of its output were dropped",
			      &dropped) == 1,
		"%s", log);
	ck_assert(strstr(log, "\n") == log + strlen(log) - 1);
	ck_assert_int_eq(stat(path, &file), 0);
	/* Everything is either written or told. */
	ck_assert_uint_eq(dropped + (uint64_t)file.st_size, (uint64_t)MUCH * MIB);
	ck_assert_uint_le((uint64_t)file.st_size, (uint64_t)KEPT * MIB);
	ck_assert_uint_ge((uint64_t)file.st_size, (uint64_t)KEPT * MIB / 4);
	/* The newest are kept, and what was read takes no room any more. */
	tail = output_tail(o, 1);
	ck_assert_uint_eq(strtoul(tail, NULL, 10), MUCH * (MIB / 64) - 1);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_le((uint64_t)st.st_blocks * 512, 2 * MIB);

	/* With a reader that keeps up nothing is dropped, however much it is. */
	ck_assert_int_eq(ftruncate(stderr_file, 0), 0);
	for (unsigned i = 0; i < 20; i++) {
		flood(fd, 1);
		(void)turn();
	}
	expect_stderr("");
	close_fd(fd);
	output_free(o);
}
END_TEST

START_TEST(a_flood_beside_others)
{
	int loud_fd = -1, quiet_fd = -1;
	struct output *loud = begin(OUTPUT_FILE, 0, &loud_fd);
	struct output *quiet = begin(OUTPUT_TEE, 1, &quiet_fd);

	flood(loud_fd, 8);
	put_text(quiet_fd, "hello\n");
	for (unsigned i = 0; i < 3; i++)
		(void)sd_event_run(event, 0);
	expect_stderr("web.3.1 | hello\n");
	ck_assert_uint_gt(turn(), 10);
	close_fd(loud_fd);
	close_fd(quiet_fd);
	output_free(loud);
	output_free(quiet);
}
END_TEST

/* Freeing gives the watches back too, of which a user has few. */
START_TEST(many_workers_in_turn)
{
	size_t n = count_fds();

	for (unsigned i = 0; i < 2000; i++) {
		int fd = -1;
		struct output *o = begin(OUTPUT_FILE, i, &fd);

		put_text(fd, "x\n");
		close_fd(fd);
		output_free(o);
	}
	(void)turn();
	ck_assert_uint_eq(count_fds(), n);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {lines_with_their_worker, what_was_not_read_yet_is_not_lost,
		journal_without_a_journal, a_file_that_is_rotated, a_rotation_that_fails,
		a_file_that_cannot_be_had, a_full_disk_is_told_once, the_last_lines, a_flood,
		a_flood_beside_others, many_workers_in_turn};
	TCase *tcase = tcase_create("output");
	Suite *suite = suite_create("output");
	SRunner *runner;
	int n_failed;

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_set_timeout(tcase, 30);
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/capture.h"

#include "sys_test.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "base/utf8.h"

enum { QUOTA = 8 << 20, CHUNK = 64 << 10 };

struct lines {
	char **list;
	size_t n;
	char *last;
};

static void collect(const char *line, size_t len, void *userdata)
{
	struct lines *l = userdata;

	ck_assert_int_eq(strv_append_take(&l->list, strndup(line, len)), 0);
	l->n++;
}

static uint64_t storage(const struct capture *c)
{
	struct stat st;

	ck_assert_int_eq(fstat(c->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

START_TEST(lines_and_pieces)
{
	_cleanup_(capture_done) struct capture c;
	_cleanup_close_ int fd = -1;
	struct lines l = {.list = NULL};

	ck_assert_int_eq(capture_open(&c, QUOTA, &fd), 0);
	ck_assert(fcntl(fd, F_GETFL) & O_APPEND);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	ck_assert(fcntl(c.fd, F_GETFD) & FD_CLOEXEC);
	ck_assert_int_eq(capture_read(&c, CHUNK, collect, &l), 0);
	put_text(fd, "one\ntwo\n\nthr");
	ck_assert_int_eq(capture_read(&c, CHUNK, collect, &l), 12);
	ck_assert_uint_eq(l.n, 3);
	put_text(fd, "ee");
	ck_assert_int_eq(capture_read(&c, CHUNK, collect, &l), 2);
	ck_assert_uint_eq(l.n, 3);
	put_text(fd, "\nend");
	/* In small steps. */
	ck_assert_int_eq(capture_read(&c, 1, collect, &l), 1);
	ck_assert_int_eq(capture_read(&c, 2, collect, &l), 2);
	ck_assert_int_eq(capture_read(&c, 2, collect, &l), 1);
	ck_assert_uint_eq(l.n, 4);
	capture_flush(&c, collect, &l);
	capture_flush(&c, collect, &l);
	ck_assert_uint_eq(l.n, 5);
	ck_assert_str_eq(l.list[0], "one");
	ck_assert_str_eq(l.list[1], "two");
	ck_assert_str_eq(l.list[2], "");
	ck_assert_str_eq(l.list[3], "three");
	ck_assert_str_eq(l.list[4], "end");
	_cleanup_free_ char *tail = capture_tail(&c);
	ck_assert_str_eq(tail, "one\ntwo\n\nthree\nend");
	strv_free(l.list);
}
END_TEST

START_TEST(long_lines_are_split)
{
	_cleanup_(capture_done) struct capture c;
	_cleanup_close_ int fd = -1;
	struct lines l = {.list = NULL};
	char text[3 * CAPTURE_LINE_MAX + 10];

	ck_assert_int_eq(capture_open(&c, QUOTA, &fd), 0);
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\n';
	ck_assert_int_eq(write(fd, text, sizeof(text)), sizeof(text));
	put_text(fd, "short\n");
	while (capture_read(&c, 1000, collect, &l) > 0)
		;
	ck_assert_uint_eq(l.n, 5);
	for (size_t i = 0; i < 3; i++)
		ck_assert_uint_eq(strlen(l.list[i]), CAPTURE_LINE_MAX);
	ck_assert_uint_eq(strlen(l.list[3]), 9);
	ck_assert_str_eq(l.list[4], "short");
	/* A line of exactly the limit is one. */
	memset(text, 'y', CAPTURE_LINE_MAX);
	text[CAPTURE_LINE_MAX] = '\n';
	ck_assert_int_eq(write(fd, text, CAPTURE_LINE_MAX + 1), CAPTURE_LINE_MAX + 1);
	while (capture_read(&c, 1000, collect, &l) > 0)
		;
	ck_assert_uint_eq(l.n, 6);
	ck_assert_uint_eq(strlen(l.list[5]), CAPTURE_LINE_MAX);
	strv_free(l.list);
}
END_TEST

static void expect_next(const char *line, size_t len, void *userdata)
{
	unsigned *n = userdata, number;

	ck_assert_uint_ge(len, 30);
	ck_assert_int_eq(sscanf(line, "line %u ", &number), 1);
	ck_assert_uint_eq(number, *n);
	(*n)++;
}

enum { MANY = 100000 };

static int write_many(void *userdata)
{
	int fd = *(int *)userdata;

	for (unsigned i = 0; i < MANY; i++)
		if (dprintf(fd, "line %u of the hundred thousand that are written\n", i) < 0)
			return 1;
	return 0;
}

/* Woken by inotify alone, as the daemon is: none may be missed, nor may punching wake us for ever.
 */
START_TEST(all_lines_are_seen)
{
	_cleanup_(capture_done) struct capture c;
	_cleanup_close_ int fd = -1, inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	unsigned n = 0, n_wakes = 0, n_quiet = 0;
	uint64_t most = 0, start = now_usec();
	struct statfs fs;
	pid_t pid;

	ck_assert_int_eq(capture_open(&c, 64 << 20, &fd), 0);
	ck_assert_int_ge(capture_watch(&c, inotify), 0);
	pid = fork_child(write_many, &fd);
	while (n < MANY) {
		char events[4096];
		ssize_t r;

		ck_assert(is_readable(inotify, 5000));
		ck_assert_int_gt(read(inotify, events, sizeof(events)), 0);
		n_wakes++;
		do {
			r = capture_read(&c, CHUNK, expect_next, &n);
			most = MAX(most, storage(&c));
		} while (r == CHUNK);
		ck_assert_int_ge(r, 0);
	}
	start = now_usec() - start;
	ck_assert_int_eq(wait_status(pid), 0);
	/* What our last punch has raised, and then silence. */
	while (is_readable(inotify, 50)) {
		char events[4096];

		ck_assert_int_gt(read(inotify, events, sizeof(events)), 0);
		ck_assert_int_eq(capture_read(&c, CHUNK, expect_next, &n), 0);
		ck_assert_uint_lt(++n_quiet, 3);
	}
	ck_assert_uint_eq(n, MANY);
	ck_assert_uint_eq(c.lost, 0);
	ck_assert_int_eq(fstatfs(c.fd, &fs), 0);
	printf("capture: %d lines (%llu bytes) in %llu ms, %u wakes, at most %llu KiB of storage, "
	       "%llu KiB left, file "
	       "system 0x%lx\n",
		MANY, (unsigned long long)c.offset, (unsigned long long)start / 1000, n_wakes,
		(unsigned long long)most >> 10, (unsigned long long)storage(&c) >> 10,
		(unsigned long)fs.f_type);
	ck_assert_uint_lt(storage(&c), 2 * CAPTURE_PUNCH_STEP);
}
END_TEST

enum { FLOOD = 100 << 20, FLOOD_BLOCK = 1000 };

static int flood(void *userdata)
{
	char block[FLOOD_BLOCK];
	int fd = *(int *)userdata;

	memset(block, 'x', sizeof(block));
	for (size_t i = 99; i < sizeof(block); i += 100)
		block[i] = '\n';
	for (int i = 0; i < FLOOD / FLOOD_BLOCK; i++)
		if (write(fd, block, sizeof(block)) != sizeof(block))
			return 1;
	return 0;
}

struct flooded {
	uint64_t bytes;
	unsigned n_parts;
};

/* Lines of 100 with the newline; where the file was cut there are parts. */
static void take_flooded(const char *line, size_t len, void *userdata)
{
	struct flooded *f = userdata;

	f->bytes += len;
	if (len == 99)
		f->bytes++;
	else
		f->n_parts++;
	for (size_t i = 0; i < len; i++)
		ck_assert(line[i] == 'x');
}

START_TEST(quota_against_a_flood)
{
	_cleanup_(capture_done) struct capture c;
	_cleanup_close_ int fd = -1;
	struct flooded f = {.bytes = 0};
	uint64_t most = 0;
	bool ended = false;
	int status;
	pid_t pid;

	ck_assert_int_eq(capture_open(&c, QUOTA, &fd), 0);
	pid = fork_child(flood, &fd);
	for (;;) {
		/* Slower than the writer, so that it is ahead by more than the quota. */
		ssize_t r = capture_read(&c, ended ? CHUNK : 512, take_flooded, &f);

		ck_assert_int_ge(r, 0);
		most = MAX(most, storage(&c));
		if (r == 0 && ended)
			break;
		ended = ended || waitpid(pid, &status, WNOHANG) == pid;
	}
	ck_assert_int_eq(status, 0);
	capture_flush(&c, take_flooded, &f);
	printf("capture: flood of 100 MB: %llu KiB seen, %llu KiB lost, at most %llu KiB of "
	       "storage\n",
		(unsigned long long)f.bytes >> 10, (unsigned long long)c.lost >> 10,
		(unsigned long long)most >> 10);
	ck_assert_uint_gt(c.lost, FLOOD / 10);
	ck_assert_uint_gt(f.bytes, 1 << 20);
	/* Every byte was seen or counted; a part has lost its newline to what was cut. */
	ck_assert_uint_eq(f.bytes + c.lost, FLOOD / FLOOD_BLOCK * FLOOD_BLOCK);
	ck_assert_uint_gt(f.n_parts, 0);
	/* Bounded by the quota, a step, and what is written between two reads. */
	ck_assert_uint_lt(most, FLOOD / 2);
	ck_assert_uint_lt(storage(&c), 2 * CAPTURE_PUNCH_STEP);
}
END_TEST

START_TEST(quota_cuts_at_a_line)
{
	_cleanup_(capture_done) struct capture c;
	_cleanup_close_ int fd = -1;
	struct lines l = {.list = NULL};

	ck_assert_int_eq(capture_open(&c, 10, &fd), 0);
	put_text(fd, "begun");
	ck_assert_int_eq(capture_read(&c, CHUNK, collect, &l), 5);
	put_text(fd, " first\nsecond line\nx\n");
	ck_assert_int_eq(capture_read(&c, CHUNK, collect, &l), 5);
	ck_assert_uint_eq(l.n, 2);
	ck_assert_str_eq(l.list[0], "begun");
	ck_assert_str_eq(l.list[1], "x");
	ck_assert_uint_eq(c.lost, strlen(" first\nsecond line\n"));
	strv_free(l.list);
}
END_TEST

/* As a shell does it for "> /dev/stderr". */
START_TEST(opened_by_name_and_truncated)
{
	_cleanup_(capture_done) struct capture c;
	_cleanup_close_ int fd = -1, again = -1;
	struct lines l = {.list = NULL};
	char path[32];

	ck_assert_int_eq(capture_open(&c, QUOTA, &fd), 0);
	put_text(fd, "before, a longer line\n");
	ck_assert_int_gt(capture_read(&c, CHUNK, collect, &l), 0);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	ck_assert_int_ge(again, 0);
	put_text(again, "by name\n");
	put_text(fd, "after\n");
	ck_assert_int_gt(capture_read(&c, CHUNK, collect, &l), 0);
	ck_assert_uint_eq(l.n, 3);
	ck_assert_str_eq(l.list[1], "by name");
	ck_assert_str_eq(l.list[2], "after");
	strv_free(l.list);
}
END_TEST

START_TEST(tail_is_the_last_and_harmless)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"plain\ttext\n",				  "plain\ttext\n"	 },
		{"\033[31mred\033[0m\r\n",		   "?[31mred?[0m?\n"},
		{"h\xc3\xa4h \xe2\x82\xac \xf0\x9f\x98\x80",
			"h\xc3\xa4h \xe2\x82\xac \xf0\x9f\x98\x80"			  },
		{"bad \xff\xc3 \xe2\x82",			  "bad ?? ??"	     },
		{"c1 \xc2\x9b over \xe2\x80\xae!",	   "c1 ? over ?!"	 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(capture_done) struct capture c;
		_cleanup_close_ int fd = -1;
		_cleanup_free_ char *tail = NULL;

		ck_assert_int_eq(capture_open(&c, QUOTA, &fd), 0);
		put_text(fd, cases[i].in);
		ck_assert_int_gt(capture_read(&c, CHUNK, NULL, NULL), 0);
		tail = capture_tail(&c);
		ck_assert_str_eq(tail, cases[i].out);
	}
}
END_TEST

START_TEST(tail_goes_round)
{
	_cleanup_(capture_done) struct capture c;
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *all = calloc(1, 1 << 20);
	size_t len = 0;

	ck_assert_int_eq(capture_open(&c, QUOTA, &fd), 0);
	for (unsigned i = 0; i < 20000; i++) {
		int n = sprintf(all + len, "%u\xc3\xa4\n", i);

		len += (size_t)n;
	}
	ck_assert_int_eq(write(fd, all, len), (ssize_t)len);
	for (size_t step = 1; capture_read(&c, step, NULL, NULL) > 0; step = step * 3 % 20011) {
		_cleanup_free_ char *tail = capture_tail(&c);

		ck_assert_uint_eq(strlen(tail), MIN(c.offset, (uint64_t)CAPTURE_TAIL_MAX));
		ck_assert(utf8_valid(tail, strlen(tail)));
	}
	_cleanup_free_ char *tail = capture_tail(&c);
	/* It may begin within a character; the rest is to the byte. */
	ck_assert_str_eq(tail + 4, all + len - CAPTURE_TAIL_MAX + 4);
}
END_TEST

START_TEST(restored)
{
	_cleanup_(capture_done) struct capture c, again = {.fd = -1};
	_cleanup_close_ int fd = -1;
	struct lines l = {.list = NULL};
	int copy, not_a_file;

	ck_assert_int_eq(capture_open(&c, QUOTA, &fd), 0);
	put_text(fd, "seen\nnot seen\n");
	ck_assert_int_eq(capture_read(&c, 5, collect, &l), 5);
	copy = fcntl(c.fd, F_DUPFD_CLOEXEC, 0);
	ck_assert_int_eq(capture_restore_take(&again, &copy, c.offset, QUOTA), 0);
	ck_assert_int_eq(copy, -1);
	ck_assert_int_eq(capture_read(&again, CHUNK, collect, &l), 9);
	ck_assert_uint_eq(l.n, 2);
	ck_assert_str_eq(l.list[1], "not seen");
	not_a_file = open("/dev/null", O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(capture_restore_take(&c, &not_a_file, 0, QUOTA), -EINVAL);
	ck_assert_int_ge(not_a_file, 0);
	close(not_a_file);
	strv_free(l.list);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("capture");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, lines_and_pieces);
	tcase_add_test(tcase, long_lines_are_split);
	tcase_add_test(tcase, all_lines_are_seen);
	tcase_add_test(tcase, quota_against_a_flood);
	tcase_add_test(tcase, quota_cuts_at_a_line);
	tcase_add_test(tcase, opened_by_name_and_truncated);
	tcase_add_test(tcase, tail_is_the_last_and_harmless);
	tcase_add_test(tcase, tail_goes_round);
	tcase_add_test(tcase, restored);
	return run_case("capture", tcase);
}

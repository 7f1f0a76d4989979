/* SPDX-License-Identifier: Apache-2.0 */
/* What is written to stderr, by what stderr is; and that nobody who reads it slowly holds us up. */
#include "daemon/log.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "core/effect.h"
#include "unit.h"

enum { PIPE_SIZE = 64 << 10, LONG_LINE = 8 << 10 };

static int saved_stderr = -1;

/* fd becomes stderr, and the log is told. */
static void log_to(int fd)
{
	if (saved_stderr < 0)
		saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	ck_assert_int_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
	log_init(LOG_INFO);
}

static void tear_down(void)
{
	(void)alarm(0);
	if (saved_stderr >= 0) {
		(void)dup2(saved_stderr, STDERR_FILENO);
		saved_stderr = close_fd(saved_stderr);
	}
	unsetenv("JOURNAL_STREAM");
	log_init(LOG_INFO);
}

/* A log that waits for its reader would wait for ever. */
static void set_up(void)
{
	(void)signal(SIGPIPE, SIG_IGN);
	unsetenv("JOURNAL_STREAM");
	(void)alarm(20);
}

static int log_to_file(void)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	log_to(fd);
	return fd;
}

static void make_pipe(int ends[2])
{
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	ck_assert_int_eq(fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE), PIPE_SIZE);
}

static const char *content(int fd)
{
	static char text[3 * LONG_LINE];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	ck_assert_int_ge(n, 0);
	text[n] = '\0';
	return text;
}

/* What a pipe, socket or terminal has for its reader now. */
static char *take(int fd)
{
	size_t size = 4 * PIPE_SIZE, len = 0;
	char *text = malloc(size);
	ssize_t n;

	ck_assert_ptr_nonnull(text);
	ck_assert_int_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
	while (len < size - 1 && (n = read(fd, text + len, size - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	return text;
}

START_TEST(plain)
{
	_cleanup_close_ int fd = log_to_file();

	log_info("%s: %u workers", "web", 4);
	log_error("bad");
	log_debug("not for now");
	ck_assert_str_eq(content(fd), "tenured: web: 4 workers\ntenured: bad\n");
	ck_assert(!log_is_journal());
	log_init(LOG_ERR);
	log_warning("dropped by its level");
	log_error("worse");
	ck_assert_str_eq(content(fd), "tenured: web: 4 workers\ntenured: bad\ntenured: worse\n");
}
END_TEST

static void set_journal_stream(int fd, unsigned long long other)
{
	char text[64];
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	(void)snprintf(text, sizeof(text), "%llu:%llu", (unsigned long long)st.st_dev,
		(unsigned long long)st.st_ino + other);
	setenv("JOURNAL_STREAM", text, 1);
}

START_TEST(priorities_for_the_journal)
{
	_cleanup_close_ int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	set_journal_stream(fd, 0);
	log_to(fd);
	ck_assert(log_is_journal());
	log_error("a");
	log_warning("b");
	log_notice("c");
	log_info("d");
	log_worker_line("web", 8, 0, "e", 1);
	ck_assert_str_eq(content(fd), "<3>a\n<4>b\n<5>c\n<6>d\n<6>web.8.0 | e\n");

	/* Redirected since: what the variable names is not our stderr. */
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	set_journal_stream(fd, 1);
	log_init(LOG_INFO);
	ck_assert(!log_is_journal());
	log_error("a");
	ck_assert_str_eq(content(fd), "tenured: a\n");
	setenv("JOURNAL_STREAM", "nonsense", 1);
	log_init(LOG_INFO);
	ck_assert(!log_is_journal());
}
END_TEST

/* A journal in our place: a datagram socket at a path of its own. */
static int open_journal(char path[static 64])
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	(void)snprintf(path, 64, "/tmp/tenured-test-journal.%d", (int)getpid());
	(void)unlink(path);
	memcpy(at.sun_path, path, strlen(path));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static void expect_entry(int fd, const char *text, size_t len)
{
	char entry[LONG_LINE];
	ssize_t n = recv(fd, entry, sizeof(entry) - 1, 0);

	ck_assert_msg(
		n == (ssize_t)len && memcmp(entry, text, len) == 0, "%.*s", (int)MAX(n, 0), entry);
}
#define EXPECT_ENTRY(fd, text) expect_entry(fd, text, sizeof(text) - 1)

START_TEST(fields_for_the_journal)
{
	_cleanup_close_ int stream = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), journal;
	struct log_subject about = {.service = "web",
		.generation = 8,
		.worker = 1,
		.event = "worker-respawn",
		.message_id = "0123456789abcdef0123456789abcdef"};
	char path[64], entry[256], byte;
	unsigned lost;
	ssize_t n;

	set_journal_stream(stream, 0);
	log_to(stream);
	journal = open_journal(path);
	log_use_journal(path);
	log_warning("careful");
	EXPECT_ENTRY(journal, "MESSAGE=careful\nPRIORITY=4\nSYSLOG_IDENTIFIER=tenured\n");
	log_event(LOG_NOTICE, &about, "ended");
	EXPECT_ENTRY(journal, "MESSAGE=ended\nPRIORITY=5\nSYSLOG_IDENTIFIER=tenured\n"
			      "TENURED_SERVICE=web\nTENURED_GENERATION=8\nTENURED_WORKER=1\n"
			      "TENURED_EVENT=worker-respawn\n"
			      "MESSAGE_ID=0123456789abcdef0123456789abcdef\n");
	/* Anything may be in a line; with its length before it where it must be. */
	ck_assert(log_worker_to_journal(LOG_ERR, "web", 8, 1, "a\nb", 3));
	EXPECT_ENTRY(journal, "MESSAGE\n\3\0\0\0\0\0\0\0a\nb\nPRIORITY=3\nSYSLOG_IDENTIFIER=web\n"
			      "TENURED_SERVICE=web\nTENURED_GENERATION=8\nTENURED_WORKER=1\n");
	ck_assert_str_eq(content(stream), "");

	/* One that does not read is not waited for, and told what it has missed. */
	for (unsigned i = 0; i < 100000; i++)
		log_info("a line that nobody will ever read, number %u", i);
	ck_assert_str_eq(content(stream), "");
	while (recv(journal, &byte, 1, MSG_TRUNC) > 0)
		;
	log_info("after");
	EXPECT_ENTRY(journal, "MESSAGE=after\nPRIORITY=6\nSYSLOG_IDENTIFIER=tenured\n");
	n = recv(journal, entry, sizeof(entry) - 1, 0);
	ck_assert_int_gt(n, 0);
	entry[n] = '\0';
	ck_assert_int_eq(
		sscanf(entry, "MESSAGE=%u lines of output were dropped\nPRIORITY=4", &lost), 1);
	ck_assert_uint_gt(lost, 90000);
	ck_assert_int_lt(recv(journal, entry, sizeof(entry), 0), 0);
	ck_assert_str_eq(content(stream), "");

	/* When it is gone, there is still stderr. */
	(void)unlink(path);
	ck_assert_int_eq(ftruncate(stream, 0), 0);
	ck_assert_int_eq(lseek(stream, 0, SEEK_SET), 0);
	log_error("gone");
	ck_assert_str_eq(content(stream), "<3>gone\n");
	ck_assert(!log_worker_to_journal(LOG_ERR, "web", 8, 1, "x", 1));
}
END_TEST

START_TEST(no_journal_no_fields)
{
	_cleanup_close_ int fd = log_to_file();
	struct log_subject about = {.service = "web", .worker = NO_WORKER};

	log_use_journal("/nowhere");
	log_event(LOG_NOTICE, &about, "started");
	ck_assert_str_eq(content(fd), "tenured: started\n");
	ck_assert(!log_worker_to_journal(LOG_ERR, "web", 8, 1, "x", 1));
}
END_TEST

/* A line "HH:MM:SS.mmm TEXT", as a terminal shows it. */
static void expect_timed(const char *line, const char *text)
{
	unsigned hour, minute, second, msec;
	int end = 0;

	ck_assert_msg(
		sscanf(line, "%2u:%2u:%2u.%3u %n", &hour, &minute, &second, &msec, &end) == 4 &&
			end == 13,
		"%s", line);
	ck_assert(hour < 24 && minute < 60 && second <= 60);
	ck_assert_str_eq(line + end, text);
}

START_TEST(time_on_a_terminal)
{
	_cleanup_close_ int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;
	_cleanup_free_ char *first = NULL, *second = NULL;

	ck_assert_int_ge(master, 0);
	ck_assert_int_eq(unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_int_ge(slave, 0);
	log_to(slave);
	log_info("serving");
	first = take(master);
	expect_timed(first, "serving\r\n");
	log_worker_line("web", 1, 0, "hello", 5);
	second = take(master);
	expect_timed(second, "web.1.0 | hello\r\n");

	/* Nobody looks at the terminal any more. */
	for (unsigned i = 0; i < 10000; i++)
		log_info("a line that nobody will ever read, of some length, number %u", i);
}
END_TEST

START_TEST(one_line_whatever_is_in_it)
{
	_cleanup_close_ int fd = log_to_file();
	char longest[4 * LONG_LINE];
	const char *text;

	log_info("a%sb", "\n<0>forged\r\x1b[31m\x7f\xff\xe2\x80\xae");
	ck_assert_str_eq(
		content(fd), "tenured: a\\x0a<0>forged\\x0d\\x1b[31m\\x7f\\xff\\xe2\\x80\\xaeb\n");
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	memset(longest, '\n', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	log_info("%s", longest);
	text = content(fd);
	ck_assert_uint_gt(strlen(text), 4 * 1024);
	ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1);
}
END_TEST

START_TEST(lines_of_workers)
{
	static const char line[] = "caf\xc3\xa9 \x1b[1m100%\x1b[0m\t.";
	char name[NAME_MAX + 1];
	_cleanup_close_ int fd = log_to_file();

	/* The program's own bytes, as they are. */
	log_worker_line("web", 8, 3, line, sizeof(line) - 1);
	log_worker_line("web", 8, 3, "", 0);
	ck_assert_str_eq(content(fd), "web.8.3 | caf\xc3\xa9 \x1b[1m100%\x1b[0m\t.\nweb.8.3 | \n");
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	log_worker_line(name, 1, 2, "end", 3);
	ck_assert(strstr(content(fd), "nnnend\n") != NULL);
}
END_TEST

/* Leave room for only that many bytes. */
static void fill(int fd, size_t room)
{
	static char block[PIPE_SIZE];
	ssize_t n = (ssize_t)(PIPE_SIZE - room);

	memset(block, '-', sizeof(block));
	ck_assert_int_eq(write(fd, block, (size_t)n), n);
}

START_TEST(a_full_pipe)
{
	int ends[2];
	_cleanup_free_ char *first = NULL, *second = NULL;

	make_pipe(ends);
	fill(ends[1], 0);
	log_to(ends[1]);
	for (unsigned i = 0; i < 100; i++)
		log_info("nobody reads this");
	log_worker_line("web", 1, 0, "nor this", 8);
	/* The flags of what we share with others are as they were. */
	ck_assert_int_eq(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);

	first = take(ends[0]);
	ck_assert_uint_eq(strlen(first), PIPE_SIZE);
	ck_assert_ptr_null(strchr(first, 't'));
	log_info("this again");
	log_info("and this");
	second = take(ends[0]);
	ck_assert_str_eq(second,
		"101 lines of output were dropped\ntenured: this again\ntenured: and this\n");
	close_fd(ends[0]);
	close_fd(ends[1]);
}
END_TEST

/* Room for one page, as poll(2) needs it to say that there is room, and a line of two. */
static void log_long_line(void)
{
	char line[LONG_LINE];

	memset(line, 'x', sizeof(line));
	log_worker_line("web", 1, 0, line, sizeof(line));
}

START_TEST(a_nearly_full_pipe)
{
	int ends[2];
	_cleanup_free_ char *first = NULL, *second = NULL;
	size_t n;

	make_pipe(ends);
	fill(ends[1], PIPE_BUF);
	log_to(ends[1]);
	log_long_line();
	log_info("no room");
	first = take(ends[0]);
	ck_assert_uint_le(strlen(first), PIPE_SIZE);
	log_info("next");
	second = take(ends[0]);
	/* What was begun is ended before anything else is said. */
	n = strspn(first, "-");
	ck_assert_uint_eq(n, PIPE_SIZE - PIPE_BUF);
	if (first[n] != '\0')
		ck_assert_str_eq(second, "\n2 lines of output were dropped\ntenured: next\n");
	else
		ck_assert_str_eq(second, "2 lines of output were dropped\ntenured: next\n");

	/* And with room it comes whole. */
	log_long_line();
	free(second);
	second = take(ends[0]);
	ck_assert_uint_eq(strlen(second), strlen("web.1.0 | ") + LONG_LINE + 1);
	close_fd(ends[0]);
	close_fd(ends[1]);
}
END_TEST

/* A pipe that another user made cannot be opened again. */
START_TEST(a_pipe_of_somebody_else)
{
	int ends[2], status;
	_cleanup_free_ char *text = NULL;
	pid_t pid;
	size_t n;

	if (geteuid() != 0)
		return;
	make_pipe(ends);
	fill(ends[1], PIPE_BUF);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		(void)alarm(10);
		if (setgid(65534) < 0 || setuid(65534) < 0 || dup2(ends[1], STDERR_FILENO) < 0)
			_exit(2);
		log_init(LOG_INFO);
		log_long_line();
		log_info("no room");
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	text = take(ends[0]);
	n = strspn(text, "-");
	ck_assert_uint_eq(n, PIPE_SIZE - PIPE_BUF);
	/* Cut, but a line. */
	ck_assert_uint_eq(strlen(text + n), PIPE_BUF);
	ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1);
	ck_assert(startswith(text + n, "web.1.0 | xxx") != NULL);
	close_fd(ends[0]);
	close_fd(ends[1]);
}
END_TEST

START_TEST(a_full_socket)
{
	int ends[2];
	_cleanup_free_ char *first = NULL, *second = NULL;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	log_to(ends[1]);
	for (unsigned i = 0; i < 10000; i++)
		log_info("a line of a log that nobody reads, which fills the buffer");
	first = take(ends[0]);
	ck_assert(startswith(first, "tenured: a line") != NULL);
	log_info("next");
	second = take(ends[0]);
	ck_assert(strstr(second, " lines of output were dropped\ntenured: next\n") != NULL);
	close_fd(ends[0]);
	close_fd(ends[1]);
}
END_TEST

START_TEST(a_reader_that_is_gone)
{
	int ends[2];

	make_pipe(ends);
	log_to(ends[1]);
	close_fd(ends[0]);
	for (unsigned i = 0; i < 3; i++)
		log_info("into the void");
	log_worker_line("web", 1, 0, "x", 1);
	close_fd(ends[1]);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {plain, priorities_for_the_journal, fields_for_the_journal,
		no_journal_no_fields, time_on_a_terminal, one_line_whatever_is_in_it,
		lines_of_workers, a_full_pipe, a_nearly_full_pipe, a_pipe_of_somebody_else,
		a_full_socket, a_reader_that_is_gone};
	TCase *tcase = tcase_create("log");
	Suite *suite = suite_create("log");
	SRunner *runner;
	int n_failed;

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

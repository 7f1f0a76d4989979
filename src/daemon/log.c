/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/log.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "base/utf8.h"
#include "core/effect.h"
#include "sys/journal.h"

enum log_style { STYLE_PLAIN, STYLE_TIME, STYLE_PRIORITY };

/* How stderr is written without waiting for whoever reads it. */
enum log_way {
	WAY_FILE,   /* a file has no reader */
	WAY_SOCKET, /* a flag of the call */
	WAY_OWN,    /* a pipe or terminal, by a descriptor of our own that does not block */
	WAY_POLL,   /* one that we may not open again: what surely has room */
};

static struct {
	enum log_style style;
	int max_level;
	bool journal;
	enum log_way way;
	int own_fd;
	int journal_fd;		  /* for entries with fields, or -1 */
	const char *journal_path; /* static */
	bool torn;		  /* the last line was written in part */
	unsigned long long dropped;
} state = {.style = STYLE_PLAIN,
	.max_level = LOG_INFO,
	.way = WAY_POLL,
	.own_fd = -1,
	.journal_fd = -1};

/* $JOURNAL_STREAM says device:inode of the stream that is the journal: stderr may have been
 * redirected since. */
static bool stderr_is_journal(const struct stat *st)
{
	const char *text = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;

	return text && sscanf(text, "%llu:%llu", &dev, &ino) == 2 && st->st_dev == dev &&
	       st->st_ino == ino;
}

/* O_NONBLOCK belongs to the open file, which others share with us: we open it once more. */
static enum log_way find_way(const struct stat *st)
{
	state.own_fd = close_fd(state.own_fd);
	if (S_ISREG(st->st_mode))
		return WAY_FILE;
	if (S_ISSOCK(st->st_mode))
		return WAY_SOCKET;
	state.own_fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return state.own_fd >= 0 ? WAY_OWN : WAY_POLL;
}

void log_init(int max_level)
{
	struct stat st = {0};

	state.max_level = max_level;
	state.journal_fd = close_fd(state.journal_fd);
	if (fstat(STDERR_FILENO, &st) < 0)
		return;
	state.journal = stderr_is_journal(&st);
	state.way = find_way(&st);
	state.torn = false;
	state.dropped = 0;
	if (state.journal)
		state.style = STYLE_PRIORITY;
	else
		state.style = isatty(STDERR_FILENO) ? STYLE_TIME : STYLE_PLAIN;
}

void log_use_journal(const char *path)
{
	if (!state.journal || state.journal_fd >= 0)
		return;
	state.journal_path = path;
	state.journal_fd = MAX(journal_open(), -1);
}

bool log_is_journal(void)
{
	return state.journal;
}

static size_t prefix(char *buf, size_t size, int priority)
{
	struct timespec now;
	struct tm tm;
	int n;

	switch (state.style) {
	case STYLE_PRIORITY:
		n = snprintf(buf, size, "<%d>", priority);
		break;
	case STYLE_TIME:
		clock_gettime(CLOCK_REALTIME, &now);
		localtime_r(&now.tv_sec, &tm);
		n = snprintf(buf, size, "%02d:%02d:%02d.%03ld ", tm.tm_hour, tm.tm_min, tm.tm_sec,
			now.tv_nsec / 1000000);
		break;
	case STYLE_PLAIN:
	default:
		n = snprintf(buf, size, "tenured: ");
		break;
	}
	return n > 0 ? MIN((size_t)n, size - 1) : 0;
}

/* What was written, which may be less than all, or -1. */
static ssize_t write_now(struct iovec *iov, size_t n)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};

	switch (state.way) {
	case WAY_SOCKET:
		return sendmsg(STDERR_FILENO, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	case WAY_OWN:
		return writev(state.own_fd, iov, (int)n);
	case WAY_POLL:
		if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLOUT))
			return -1;
		return writev(STDERR_FILENO, iov, (int)n);
	case WAY_FILE:
	default:
		return writev(STDERR_FILENO, iov, (int)n);
	}
}

static bool tell_dropped(void)
{
	char notice[64];
	struct iovec iov = {.iov_base = notice};
	int n = snprintf(notice, sizeof(notice), "%s%llu lines of output were dropped\n",
		state.torn ? "\n" : "", state.dropped);

	if (n < 0)
		return false;
	iov.iov_len = (size_t)n;
	if (write_now(&iov, 1) < n)
		return false;
	state.dropped = 0;
	state.torn = false;
	return true;
}

/* One write per line, so that lines of several writers do not mix. A reader that does not read must
 * not stop us: what it has no room for is dropped and counted. */
static void put(const char *head, size_t head_len, const char *text, size_t len)
{
	char newline = '\n';
	struct iovec iov[] = {
		{.iov_base = (void *)(uintptr_t)head, .iov_len = head_len},
		{.iov_base = (void *)(uintptr_t)text, .iov_len = len	    },
		{.iov_base = &newline,		       .iov_len = 1	   },
	};
	ssize_t n;

	/* A pipe that can be written has room for this much, and perhaps for no more. */
	if (state.way == WAY_POLL)
		iov[1].iov_len = MIN(len, PIPE_BUF - 1 - head_len);
	if (state.dropped > 0 && !tell_dropped()) {
		state.dropped++;
		return;
	}
	n = write_now(iov, ARRAY_SIZE(iov));
	if (n == (ssize_t)(head_len + iov[1].iov_len + 1))
		return;
	state.dropped++;
	state.torn = n > 0;
}

static struct journal_field field(const char *name, const char *value)
{
	return (struct journal_field){.name = name, .value = value, .len = strlen(value)};
}

/* By the way that it is the news of: another one may be free while that is full. */
static void tell_journal_dropped(void)
{
	struct journal_field fields[3];
	char text[64];

	(void)snprintf(text, sizeof(text), "%llu lines of output were dropped", state.dropped);
	fields[0] = field("MESSAGE", text);
	fields[1] = field("PRIORITY", "4");
	fields[2] = field("SYSLOG_IDENTIFIER", "tenured");
	if (journal_send(state.journal_fd, state.journal_path, fields, ARRAY_SIZE(fields)) >= 0)
		state.dropped = 0;
}

/* False: it is for stderr. */
static bool to_journal(const struct journal_field *fields, size_t n)
{
	int r;

	if (state.journal_fd < 0)
		return false;
	r = journal_send(state.journal_fd, state.journal_path, fields, n);
	if (r == -EAGAIN)
		state.dropped++;
	else if (r >= 0 && state.dropped > 0)
		tell_journal_dropped();
	return r >= 0 || r == -EAGAIN;
}

/* TENURED_SERVICE, TENURED_GENERATION, TENURED_WORKER. numbers: room for the values. */
static size_t subject_fields(const char *service, unsigned generation, unsigned worker,
	struct journal_field fields[static 3], char numbers[static 2][16])
{
	size_t n = 0;

	if (service)
		fields[n++] = field("TENURED_SERVICE", service);
	if (generation != 0) {
		snprintf(numbers[0], sizeof(numbers[0]), "%u", generation);
		fields[n++] = field("TENURED_GENERATION", numbers[0]);
	}
	if (worker != NO_WORKER) {
		snprintf(numbers[1], sizeof(numbers[1]), "%u", worker);
		fields[n++] = field("TENURED_WORKER", numbers[1]);
	}
	return n;
}

static bool event_to_journal(int priority, const struct log_subject *s, const char *message)
{
	struct journal_field fields[JOURNAL_FIELDS_MAX];
	char level[2] = {(char)('0' + (priority & LOG_PRIMASK)), '\0'}, numbers[2][16];
	size_t n = 0;

	if (state.journal_fd < 0)
		return false;
	fields[n++] = field("MESSAGE", message);
	fields[n++] = field("PRIORITY", level);
	fields[n++] = field("SYSLOG_IDENTIFIER", "tenured");
	n += subject_fields(s->service, s->generation, s->worker, &fields[n], numbers);
	if (s->event)
		fields[n++] = field("TENURED_EVENT", s->event);
	if (s->message_id)
		fields[n++] = field("MESSAGE_ID", s->message_id);
	return to_journal(fields, n);
}

void log_event(int priority, const struct log_subject *subject, const char *message)
{
	char head[64], clean[6144];

	if (priority > state.max_level)
		return;
	(void)utf8_print(
		message, MIN(strlen(message), sizeof(clean) / 3 - 1), clean, sizeof(clean));
	if (!event_to_journal(priority, subject, clean))
		put(head, prefix(head, sizeof(head), priority), clean, strlen(clean));
}

void log_message(int priority, const char *format, ...)
{
	static const struct log_subject none = {.worker = NO_WORKER};
	char text[2048];
	va_list ap;
	int n;

	if (priority > state.max_level)
		return;
	va_start(ap, format);
	n = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (n < 0)
		return;
	log_event(priority, &none, text);
}

void log_worker_line(
	const char *service, unsigned generation, unsigned worker, const char *line, size_t len)
{
	char head[160];
	size_t n = prefix(head, sizeof(head), LOG_INFO);
	int more;

	/* The program's own lines: no name of ours before them, but the priority the journal wants.
	 */
	if (state.style == STYLE_PLAIN)
		n = 0;
	if (worker == NO_WORKER)
		more = snprintf(head + n, sizeof(head) - n, "%s.%u.verify | ", service, generation);
	else
		more = snprintf(
			head + n, sizeof(head) - n, "%s.%u.%u | ", service, generation, worker);
	put(head, n + (more > 0 ? MIN((size_t)more, sizeof(head) - n - 1) : 0), line, len);
}

bool log_worker_to_journal(int priority, const char *service, unsigned generation, unsigned worker,
	const char *line, size_t len)
{
	struct journal_field fields[JOURNAL_FIELDS_MAX];
	char level[2] = {(char)('0' + (priority & LOG_PRIMASK)), '\0'}, numbers[2][16];
	size_t n = 0;

	if (state.journal_fd < 0)
		return false;
	fields[n++] = (struct journal_field){.name = "MESSAGE", .value = line, .len = len};
	fields[n++] = field("PRIORITY", level);
	fields[n++] = field("SYSLOG_IDENTIFIER", service);
	n += subject_fields(service, generation, worker, &fields[n], numbers);
	if (worker == NO_WORKER)
		fields[n++] = field("TENURED_WORKER", "verify");
	return to_journal(fields, n);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/log.h"

#include <poll.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "base/utf8.h"

enum log_style { STYLE_PLAIN, STYLE_TIME, STYLE_PRIORITY };

static struct {
	enum log_style style;
	int max_level;
	bool journal;
	bool may_block; /* stderr is a pipe or terminal whose reader may be slow, or gone */
	unsigned long long dropped;
} state = {.style = STYLE_PLAIN, .max_level = LOG_INFO};

/* $JOURNAL_STREAM says device:inode of the stream that is the journal: stderr may have been
 * redirected since. */
static bool stderr_is_journal(const struct stat *st)
{
	const char *text = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;

	return text && sscanf(text, "%llu:%llu", &dev, &ino) == 2 && st->st_dev == dev &&
	       st->st_ino == ino;
}

void log_init(int max_level)
{
	struct stat st = {0};

	state.max_level = max_level;
	if (fstat(STDERR_FILENO, &st) < 0)
		return;
	state.journal = stderr_is_journal(&st);
	state.may_block = !S_ISREG(st.st_mode);
	if (state.journal)
		state.style = STYLE_PRIORITY;
	else if (isatty(STDERR_FILENO))
		state.style = STYLE_TIME;
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

/* One write per line, so that lines of several writers do not mix. A reader that does not read must
 * not stop us: what it has no room for is dropped and counted. */
static void put(const char *head, size_t head_len, const char *text, size_t len)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	char newline = '\n';
	struct iovec iov[] = {
		{.iov_base = (void *)(uintptr_t)head, .iov_len = head_len},
		{.iov_base = (void *)(uintptr_t)text, .iov_len = len	    },
		{.iov_base = &newline,		       .iov_len = 1	   },
	};
	char notice[64];

	if (state.may_block && (poll(&p, 1, 0) <= 0 || !(p.revents & POLLOUT))) {
		state.dropped++;
		return;
	}
	if (state.dropped > 0) {
		int n = snprintf(notice, sizeof(notice), "%llu lines of output were dropped\n",
			state.dropped);
		if (n > 0 && write(STDERR_FILENO, notice, (size_t)n) > 0)
			state.dropped = 0;
	}
	if (writev(STDERR_FILENO, iov, ARRAY_SIZE(iov)) < 0)
		state.dropped++;
}

void log_message(int priority, const char *format, ...)
{
	char head[64], text[2048], clean[3 * sizeof(text)];
	va_list ap;
	int n;

	if (priority > state.max_level)
		return;
	va_start(ap, format);
	n = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (n < 0)
		return;
	(void)utf8_print(text, MIN((size_t)n, sizeof(text) - 1), clean, sizeof(clean));
	put(head, prefix(head, sizeof(head), priority), clean, strlen(clean));
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
	more = snprintf(head + n, sizeof(head) - n, "%s.%u.%u | ", service, generation, worker);
	put(head, n + (more > 0 ? MIN((size_t)more, sizeof(head) - n - 1) : 0), line, len);
}

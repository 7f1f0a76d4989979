/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/text.h"

#include <math.h>
#include <time.h>
#include <wchar.h>

#include "base/clock.h"
#include "base/utf8.h"

/* The character of UTF-8 at s and its length; 0: the bytes are none. */
static size_t decode(const char *s, uint32_t *ret)
{
	const uint8_t *p = (const uint8_t *)s;
	size_t len = utf8_char_length(p, strnlen(s, 4));

	if (len <= 1) {
		*ret = p[0];
		return len;
	}
	*ret = p[0] & (0x7fU >> len);
	for (size_t i = 1; i < len; i++)
		*ret = *ret << 6 | (p[i] & 0x3fU);
	return len;
}

/* Would a terminal act on it, or show the text in another order than it has? */
static bool unsafe(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c ||
	       (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) ||
	       c >= 0xe0000;
}

char *text_safe(const char *s, bool utf8)
{
	_cleanup_free_ char *copy = NULL;
	char *to;

	if (!s)
		s = "";
	/* No character gets longer. */
	to = copy = malloc(strlen(s) + 1);
	if (!copy)
		return NULL;
	while (*s) {
		uint32_t c = 0;
		size_t len = decode(s, &c);

		if (len == 0) {
			*to++ = '?';
			len = 1;
		} else if (c == '\t' || c == '\n' || c == '\r') {
			*to++ = ' ';
		} else if (unsafe(c) || (len > 1 && !utf8)) {
			*to++ = '?';
		} else {
			memcpy(to, s, len);
			to += len;
		}
		s += len;
	}
	*to = '\0';
	return TAKE_PTR(copy);
}

static size_t character_width(uint32_t c)
{
	int width = wcwidth((wchar_t)c);

	return width < 0 ? 1 : (size_t)width;
}

size_t text_width(const char *s, bool utf8)
{
	size_t width = 0;

	if (!utf8)
		return strlen(s);
	while (*s) {
		uint32_t c = 0;
		size_t len = decode(s, &c);

		width += len == 0 ? 1 : character_width(c);
		s += MAX(len, (size_t)1);
	}
	return width;
}

char *text_cut(const char *s, size_t columns, bool utf8)
{
	const char *mark = utf8 ? "\xe2\x80\xa6" : "...";
	size_t mark_width = utf8 ? 1 : 3, width = 0, end = 0;

	if (text_width(s, utf8) <= columns)
		return strdup(s);
	if (columns <= mark_width)
		return strndup("...", columns);
	while (s[end]) {
		uint32_t c = 0;
		size_t len = utf8 ? decode(s + end, &c) : 1;
		size_t add = utf8 && len > 0 ? character_width(c) : 1;

		if (width + add > columns - mark_width)
			break;
		width += add;
		end += MAX(len, (size_t)1);
	}
	return xasprintf("%.*s%s", (int)end, s, mark);
}

const char *text_last_lines(const char *s, size_t max_lines, bool *ret_cut)
{
	size_t len = strlen(s), n = 0;

	while (len > 0 && s[len - 1] == '\n')
		len--;
	*ret_cut = false;
	while (len > 0) {
		if (s[len - 1] == '\n' && ++n == max_lines) {
			*ret_cut = true;
			break;
		}
		len--;
	}
	return s + len;
}

const char *text_span(uint64_t usec, char buf[static TEXT_SPAN_MAX])
{
	uint64_t s = usec / USEC_PER_SEC;

	if (s < 10)
		snprintf(buf, TEXT_SPAN_MAX, "%llu.%llus", (unsigned long long)s,
			(unsigned long long)(usec % USEC_PER_SEC / (100 * USEC_PER_MSEC)));
	else if (s < 60)
		snprintf(buf, TEXT_SPAN_MAX, "%llus", (unsigned long long)s);
	else if (s < 3600)
		snprintf(buf, TEXT_SPAN_MAX, "%llum%llus", (unsigned long long)s / 60,
			(unsigned long long)s % 60);
	else if (s < 86400)
		snprintf(buf, TEXT_SPAN_MAX, "%lluh%llum", (unsigned long long)s / 3600,
			(unsigned long long)s / 60 % 60);
	else
		snprintf(buf, TEXT_SPAN_MAX, "%llud%lluh", (unsigned long long)s / 86400,
			(unsigned long long)s / 3600 % 24);
	return buf;
}

const char *text_size(uint64_t bytes, char buf[static TEXT_SIZE_MAX])
{
	static const char units[] = "BKMGTPE";
	uint64_t whole = bytes, rest = 0;
	size_t unit = 0;

	for (; whole >= 1024 && units[unit + 1]; unit++) {
		rest = whole % 1024;
		whole /= 1024;
	}
	if (unit > 0 && whole < 10)
		snprintf(buf, TEXT_SIZE_MAX, "%llu.%llu%c", (unsigned long long)whole,
			(unsigned long long)rest * 10 / 1024, units[unit]);
	else
		snprintf(buf, TEXT_SIZE_MAX, "%llu%c", (unsigned long long)whole, units[unit]);
	return buf;
}

const char *text_time(uint64_t usec, bool milliseconds, char buf[static TEXT_TIME_MAX])
{
	time_t s = (time_t)(usec / USEC_PER_SEC);
	struct tm tm;
	size_t len;

	if (!localtime_r(&s, &tm))
		len = 0;
	else
		len = strftime(buf, TEXT_TIME_MAX, "%Y-%m-%d %H:%M:%S", &tm);
	if (len == 0) {
		/* A year that does not fit: the daemon would have to say nonsense. */
		snprintf(buf, TEXT_TIME_MAX, "@%llu", (unsigned long long)s);
		return buf;
	}
	if (milliseconds)
		snprintf(buf + len, TEXT_TIME_MAX - len, ".%03u",
			(unsigned)(usec % USEC_PER_SEC / USEC_PER_MSEC));
	return buf;
}

const char *text_percent(double percent, char buf[static TEXT_PERCENT_MAX])
{
	size_t len;

	if (!isfinite(percent) || percent < 0)
		percent = 0;
	if (percent > 100)
		percent = 100;
	len = (size_t)snprintf(buf, TEXT_PERCENT_MAX - 1, "%.2f", percent);
	while (buf[len - 1] == '0')
		len--;
	if (buf[len - 1] == '.')
		len--;
	buf[len++] = '%';
	buf[len] = '\0';
	return buf;
}

uint64_t text_now_usec(void)
{
	return clock_usec(CLOCK_REALTIME);
}

uint64_t text_monotonic_usec(void)
{
	return monotonic_usec();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Text for terminals: made safe, measured, cut; spans of time and moments as a person reads them.
 *
 * Nothing the daemon relays (a worker's status, its output, paths) is trusted: a terminal acts on
 * control characters (ECMA-48), so all of it passes text_safe() before it is shown. */
#pragma once

#include "base/util.h"

/* A copy of s that no terminal acts on: C0 and C1 controls, DEL, line and paragraph separators and
 * the characters that change the direction of writing become '?'; tabs and line ends become a
 * blank; bytes that are not UTF-8 become '?'; without utf8, so does everything that is not ASCII.
 * s may be NULL: "". The caller frees; NULL: out of memory. */
char *text_safe(const char *s, bool utf8);
/* The columns a safe text takes. utf8: as the locale's wcwidth(3) says, else one per byte. */
size_t text_width(const char *s, bool utf8);
/* A copy of a safe text that takes at most columns, its end replaced by "..." (utf8: U+2026) when
 * cut. The caller frees; NULL: out of memory. */
char *text_cut(const char *s, size_t columns, bool utf8);
/* The last max_lines lines of a text of several lines; *ret_cut is set when there were more.
 * Borrowed. */
const char *text_last_lines(const char *s, size_t max_lines, bool *ret_cut);

/* A span of time in two units at most: "0.4s", "12s", "3m12s", "2h5m", "4d7h". */
#define TEXT_SPAN_MAX 32
const char *text_span(uint64_t usec, char buf[static TEXT_SPAN_MAX]);
/* Bytes as a person reads them, "812B", "3.4M", "512M": powers of 1024. */
#define TEXT_SIZE_MAX 32
const char *text_size(uint64_t bytes, char buf[static TEXT_SIZE_MAX]);
/* A moment of CLOCK_REALTIME in local time, "2026-05-01 10:02:03", with milliseconds if asked. */
#define TEXT_TIME_MAX 48
const char *text_time(uint64_t usec, bool milliseconds, char buf[static TEXT_TIME_MAX]);
/* A share in percent with at most two decimals and no needless zeros: "25%", "0.1%". */
#define TEXT_PERCENT_MAX 32
const char *text_percent(double percent, char buf[static TEXT_PERCENT_MAX]);
/* CLOCK_REALTIME and CLOCK_MONOTONIC now, in microseconds. */
uint64_t text_now_usec(void);
uint64_t text_monotonic_usec(void);

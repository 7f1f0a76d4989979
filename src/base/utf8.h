/* SPDX-License-Identifier: Apache-2.0 */
/* Foreign bytes made fit for logs, terminals and JSON. UTF-8 as RFC 3629 has it: no overlong forms,
 * no surrogates, nothing over U+10FFFF. */
#pragma once

#include "base/util.h"

/* The length (1..4) of the well-formed character at s, or 0 when there is none in its len bytes. */
size_t utf8_char_length(const uint8_t *s, size_t len);
bool utf8_valid(const void *s, size_t len);
/* A printable form of len foreign bytes: control characters (C0, DEL, C1, line and paragraph
 * separators, bidirectional overrides) and malformed bytes become "\xNN", byte by byte; a backslash
 * stays. Into ret, at most size bytes (at least 1) with the NUL; text that had to be cut ends in
 * "..." where there is room, and never inside a character. Returns the length without the NUL. */
size_t utf8_print(const void *s, size_t len, char *ret, size_t size);
/* The same as a copy of at most max bytes without the NUL. The caller frees; NULL: out of memory.
 */
char *utf8_printable(const void *s, size_t len, size_t max);

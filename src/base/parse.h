/* SPDX-License-Identifier: Apache-2.0 */
/* Strict parsing: the whole string or nothing, no locale, no leading blanks, no overflow.
 * All return 0, -EINVAL (not of that form) or -ERANGE (of the form, but too large or too small),
 * and leave ret_* untouched on failure. */
#pragma once

#include "base/util.h"

/* Decimal digits only. */
int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);
int parse_uint(const char *s, unsigned min, unsigned max, unsigned *ret);
/* "yes", "no", "true", "false", "on", "off" (as YAML 1.1 has them: also "Yes" and "YES"). */
int parse_bool(const char *s, bool *ret);
/* 0644 style, octal, at most 07777. */
int parse_mode(const char *s, unsigned *ret);
/* A duration in microseconds: a number (decimals allowed) and a unit: us, ms, s, m (or min), h, d;
 * several may follow each other, larger units first ("1m30s"). "0" needs no unit; "infinity" is
 * USEC_INFINITY. What is finer than a microsecond is -ERANGE. */
int parse_duration(const char *s, uint64_t *ret_usec);
/* A size in bytes: a number and K, M, G or T (powers of 1024), or digits alone. */
int parse_size(const char *s, uint64_t *ret_bytes);
/* A share "5%", "0.1%", "100%" in hundredths of a percent, 0..10000; at most two decimals. */
int parse_percent(const char *s, unsigned *ret_share);

/* The other way round, shortest exact form: "1m30s", "250ms", "0s"; "64K"; "5%". The caller frees;
 * NULL: out of memory. */
char *format_duration(uint64_t usec);
char *format_size(uint64_t bytes);
char *format_percent(unsigned share);

/* Split a command line into words as a shell would (blanks, '...', "...", backslash), without
 * running one: no variables, no globs. A character that would need a shell (| & ; < > ( ) $ ` and
 * a leading # or ~ outside quotes; $ and ` also inside "...") is -EOPNOTSUPP, with *ret_position at
 * it. -EINVAL: an unfinished quote, with *ret_position where it begins, or a backslash at the end.
 * -ENOMEM. ret_words is a strv the caller owns, empty for a blank s; ret_position may be NULL. */
int split_words(const char *s, char ***ret_words, size_t *ret_position);

/* The known word nearest to what was written (for "did you mean"), or NULL when none is near.
 * known: NULL-terminated. Borrowed from known. */
const char *nearest_word(const char *word, const char *const *known);

/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of configuration files share: a directory of their own, files in it, and what is
 * said about them. Whatever goes wrong ends the test; the caller frees what is returned. */
#pragma once

#include <limits.h>

#include "core/config.h"

#define BASE "services:\n  web:\n    command: x\n    listen: 8080\n"

/* Absolute, for the tests change their directory: tests/unit and conf/example.yaml of the source.
 */
extern char scratch_golden_directory[PATH_MAX];
extern char scratch_example[PATH_MAX];
/* To be called first, where the tests were started. */
void scratch_find_files(void);

/* The new, empty working directory. */
extern char scratch_directory[];
void scratch_enter(void);
void scratch_leave(void);

void write_file(const char *name, const void *data, size_t len);
void write_text(const char *name, const char *text);

/* Load and resolve. *ret_lines: the problems, one a line, without "t.yaml:" before the place.
 * Returns the number of errors. */
size_t load(const char *path, struct config **ret, char **ret_lines);
/* The problems of a file with this text. */
char *problems_of(const void *text, size_t len);

/* s (which is freed, and may be NULL) and more. */
char *append(char *s, const char *more);
/* before, then what n times, then after. */
char *repeat(const char *before, const char *what, size_t n, const char *after);

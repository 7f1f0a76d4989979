/* SPDX-License-Identifier: Apache-2.0 */
/* An error that a person will read: a code for the program, a sentence for the operator.
 * Used at the two boundaries where text is due, configuration and control; everything else returns
 * -errno alone. The sentence names the object, the fact and the remedy. */
#pragma once

#include "base/util.h"

struct error {
	int code; /* -errno, or a positive value the function's header documents; 0: no error */
	char *message; /* owned; NULL when none could be allocated: use error_message() */
};

#define ERROR_NULL ((struct error){0, NULL})

void error_done(struct error *e);
#define _cleanup_error_ _cleanup_(error_done)

/* Set code and message (replacing what was there) and return code, so that a function can
 * `return error_set(ret_error, -EINVAL, "...")`. ret_error may be NULL: the code alone is
 * returned. */
int error_set(struct error *ret_error, int code, const char *format, ...) _printf_(3, 4);
/* As error_set(), with ": " and strerror(-code) appended. */
int error_set_errno(struct error *ret_error, int code, const char *format, ...) _printf_(3, 4);
/* Put "prefix: " before the message that is there. Returns e->code. */
int error_prefix(struct error *e, const char *format, ...) _printf_(2, 3);
/* The message, or strerror() of the code, never NULL. Borrowed. */
const char *error_message(const struct error *e);

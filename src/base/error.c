/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdarg.h>

void error_done(struct error *e)
{
	if (!e)
		return;
	free(e->message);
	*e = ERROR_NULL;
}

static char *format_message(const char *format, va_list ap) __attribute__((format(printf, 1, 0)));

static char *format_message(const char *format, va_list ap)
{
	char *message = NULL;

	return vasprintf(&message, format, ap) < 0 ? NULL : message;
}

static const char *code_text(int code)
{
	/* A positive code is a module's own; its text is only missing when memory was. */
	if (code > 0)
		return "no details (out of memory)";
	return code == INT32_MIN ? "unknown error" : strerror(-code);
}

/* The old message goes last: it may be among the arguments of the new one. */
static int replace_take(struct error *e, int code, char *message)
{
	free(e->message);
	e->code = code;
	e->message = message;
	return code;
}

int error_set(struct error *ret_error, int code, const char *format, ...)
{
	char *message;
	va_list ap;

	if (!ret_error)
		return code;
	va_start(ap, format);
	message = format_message(format, ap);
	va_end(ap);
	return replace_take(ret_error, code, message);
}

int error_set_errno(struct error *ret_error, int code, const char *format, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list ap;

	if (!ret_error)
		return code;
	va_start(ap, format);
	text = format_message(format, ap);
	va_end(ap);
	return replace_take(
		ret_error, code, text ? xasprintf("%s: %s", text, code_text(code)) : NULL);
}

int error_prefix(struct error *e, const char *format, ...)
{
	_cleanup_free_ char *prefix = NULL;
	char *message;
	va_list ap;

	if (!e)
		return 0;
	va_start(ap, format);
	prefix = format_message(format, ap);
	va_end(ap);
	if (!prefix)
		return e->code;
	message = xasprintf("%s: %s", prefix, error_message(e));
	/* The message without its prefix is better than none. */
	return message ? replace_take(e, e->code, message) : e->code;
}

const char *error_message(const struct error *e)
{
	return e->message ? e->message : code_text(e->code);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Small tools every layer uses: ownership by scope, arrays, time units, strings. libc only. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC UINT64_C(1000000)
#define NSEC_PER_USEC UINT64_C(1000)
/* "No time": a timeout that never comes, a moment that never was. */
#define USEC_INFINITY UINT64_MAX
/* At most USEC_INFINITY. */
static inline uint64_t usec_add(uint64_t a, uint64_t b)
{
	return b >= USEC_INFINITY - a ? USEC_INFINITY : a + b;
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Run f(&variable) when the variable's scope ends. */
#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))

/* close() for owners: NULL-safe in spirit (negative is "none"), keeps errno, returns -1 to assign.
 */
int close_fd(int fd);
static inline void close_fd_p(int *fd)
{
	*fd = close_fd(*fd);
}
static inline void free_p(void *p)
{
	free(*(void **)p);
}
static inline void fclose_p(FILE **f)
{
	if (*f)
		fclose(*f);
}
#define _cleanup_free_ _cleanup_(free_p)
#define _cleanup_close_ _cleanup_(close_fd_p)
#define _cleanup_fclose_ _cleanup_(fclose_p)

/* Hand the value on and forget it, so that the scope's cleanup leaves it alone. */
#define TAKE_PTR(p)                                                                                \
	__extension__({                                                                            \
		__typeof__(p) *take_ptr_ = &(p);                                                   \
		__typeof__(p) take_value_ = *take_ptr_;                                            \
		*take_ptr_ = NULL;                                                                 \
		take_value_;                                                                       \
	})
#define TAKE_FD(fd)                                                                                \
	__extension__({                                                                            \
		int *take_fd_ = &(fd);                                                             \
		int take_value_ = *take_fd_;                                                       \
		*take_fd_ = -1;                                                                    \
		take_value_;                                                                       \
	})

static inline bool streq(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}
/* As streq(), but either may be NULL; two NULLs are equal. */
static inline bool streq_null(const char *a, const char *b)
{
	return a == b || (a && b && streq(a, b));
}
/* What follows the prefix, or NULL when s does not begin with it. */
const char *startswith(const char *s, const char *prefix);

/* asprintf() that returns the string or NULL (out of memory). The caller frees. */
char *xasprintf(const char *format, ...) _printf_(1, 2);

/* Room for n elements in all (to add one: the count + 1) in an array grown by doubling: 0 or
 * -ENOMEM. array: address of the pointer; capacity: address of the current capacity in elements. */
int array_reserve(void *array, size_t *capacity, size_t n, size_t element_size);

/* A list of strings, NULL-terminated, owned as one: strv_free() frees the strings too. */
char **strv_free(char **l);
static inline void strv_free_p(char ***l)
{
	*l = strv_free(*l);
}
#define _cleanup_strv_ _cleanup_(strv_free_p)
size_t strv_length(char *const *l);
/* Append a copy of s (strv_append) or s itself (strv_append_take: frees s on failure too).
 * *l may be NULL. 0 or -ENOMEM. */
int strv_append(char ***l, const char *s);
int strv_append_take(char ***l, char *s);
/* A deep copy; NULL when out of memory. A NULL list gives an empty one. */
char **strv_copy(char *const *l);
bool strv_equal(char *const *a, char *const *b);
/* The value of NAME in a list of "NAME=value" strings, or NULL. Borrowed. */
const char *strv_env_get(char *const *l, const char *name);
/* Set NAME=value in such a list, replacing what was there. 0 or -ENOMEM. */
int strv_env_set(char ***l, const char *name, const char *value);

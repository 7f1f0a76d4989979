/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the test programs (load, worker, delay_line) share. They use nothing of the daemon's own
 * code, so that a mistake in it cannot hide itself from its tests. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define TOOL_USEC_PER_MSEC UINT64_C(1000)
#define TOOL_USEC_PER_SEC UINT64_C(1000000)
#define TOOL_NEVER UINT64_MAX

#define ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

struct tool_address {
	struct sockaddr_storage storage;
	socklen_t len;
};

/* CLOCK_MONOTONIC in microseconds: the same clock as Python's time.monotonic(). */
uint64_t tool_now_usec(void);

/* The parsers accept the whole string or nothing. They return 0, -EINVAL or -ERANGE, and leave *ret
 * alone when they fail. */

int tool_parse_unsigned(const char *text, uint64_t max, uint64_t *ret);

/* "250ms", "30s", "10m", "1h", "20us"; a bare number is in units of `bare_usec`. */
int tool_parse_usec(const char *text, uint64_t bare_usec, uint64_t *ret);

/* "4096", "64K", "8M", "1G". */
int tool_parse_size(const char *text, uint64_t *ret);

/* "8080" (on 127.0.0.1), "127.0.0.1:8080", "[::1]:8080", "unix:/path", "unix:@abstract"; all but
 * the Unix ones may have "tcp:" in front. */
int tool_parse_address(const char *text, struct tool_address *ret);

/* "127.0.0.1" or "::1", without a port. */
int tool_parse_host(const char *text, struct tool_address *ret);

/* Prints "program: message" to stderr and exits with `status`. */
_Noreturn void tool_die(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* malloc and realloc that end the program when memory is out: these are test programs. */
void *tool_allocate(size_t n, size_t size);
void *tool_reallocate(void *old, size_t n, size_t size);

/* One datagram to $NOTIFY_SOCKET as sd_notify(3) describes it. Returns 1 when sent, 0 when the
 * variable is not set, or -errno. With `wait` it blocks while the reader's queue is full. */
int tool_notify(const char *message, bool wait);

/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker says over its notify socket: sd_notify(3), systemd 252 and the later
 * MONOTONIC_USEC. One datagram is a list of "KEY=value" lines. The sender is not trusted: whatever
 * it sends, the outcome is a valid message that may be empty. */
#pragma once

#include <sys/types.h>

#include "base/util.h"

enum {
	NOTIFY_STATUS_MAX = 512,  /* bytes of text; a longer one is cut, ending in "..." */
	NOTIFY_FD_NAME_MAX = 255, /* as for sd_listen_fds_with_names(3) */
};

enum notify_field {
	NOTIFY_READY = 1 << 0,
	NOTIFY_RELOADING = 1 << 1,
	NOTIFY_STOPPING = 1 << 2,
	NOTIFY_WATCHDOG = 1 << 3,	  /* WATCHDOG=1: a keep-alive */
	NOTIFY_WATCHDOG_TRIGGER = 1 << 4, /* WATCHDOG=trigger: treat me as hung */
	NOTIFY_FD_STORE = 1 << 5,
	NOTIFY_FD_STORE_REMOVE = 1 << 6, /* nothing to do without NOTIFY_FD_NAME */
	NOTIFY_FD_NO_POLL = 1 << 7,	 /* FDPOLL=0: keep stored ones also when they hang up */
	NOTIFY_BARRIER =
		1 << 8, /* then the only one; answered by closing the descriptor sent with it */
	/* These say that a value below is there. */
	NOTIFY_STATUS = 1 << 9,
	NOTIFY_MONOTONIC_USEC = 1 << 10,
	NOTIFY_WATCHDOG_USEC = 1 << 11,
	NOTIFY_EXTEND_TIMEOUT_USEC = 1 << 12,
	NOTIFY_MAIN_PID = 1 << 13,
	NOTIFY_ERRNO = 1 << 14,
	NOTIFY_FD_NAME = 1 << 15,
	NOTIFY_REEXEC = 1 << 16, /* X_TENURED_REEXEC=1: of our own daemon, to our own keeper */
};

struct notify_message {
	unsigned fields; /* of enum notify_field, or'ed */
	/* Lines that were left out: not KEY=value, a value its key cannot have, a second value for
	 * a key, the end of a truncated datagram. Keys we do not know are no fault and do not
	 * count. */
	size_t n_malformed;
	uint64_t monotonic_usec; /* CLOCK_MONOTONIC when the reload began, with NOTIFY_RELOADING */
	uint64_t watchdog_usec;	 /* the new interval; 0 or USEC_INFINITY: none */
	uint64_t extend_timeout_usec; /* from now; unbounded as it comes: the receiver sets the
					 bound */
	pid_t main_pid;	  /* a number that could be a pid; whose, the receiver must check */
	int error_number; /* errno-style, 0..4095 */
	/* Printable UTF-8 (base/utf8.h), safe for terminals and JSON; "" withdraws an earlier one.
	 */
	char status[NOTIFY_STATUS_MAX + 1];
	/* Printable ASCII without ':', not empty; what is stored without one is named "stored". */
	char fd_name[NOTIFY_FD_NAME_MAX + 1];
};

/* Reads len bytes (data may be NULL if 0) of a datagram into ret, which needs no initialising and
 * owns nothing. truncated: the datagram was longer (MSG_TRUNC), so its last line is not whole. NUL
 * bytes at the end are what some senders add to their string, and ignored; elsewhere they are
 * malformed. Where a key comes twice its first valid value counts. Cannot fail. */
void notify_parse(const void *data, size_t len, bool truncated, struct notify_message *ret);

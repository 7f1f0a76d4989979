/* SPDX-License-Identifier: Apache-2.0 */
/* The only place that logs. To stderr: with syslog priority prefixes "<6>" under systemd
 * (sd-daemon(3)), with the time on a terminal, plain otherwise. One line per message; control
 * characters in it are replaced. syslog(3) priorities. */
#pragma once

#include <syslog.h>

#include "base/util.h"

/* Finds out how to log: JOURNAL_STREAM matching stderr, terminal, or plain. max_level: messages
 * above it are dropped. */
void log_init(int max_level);
void log_message(int priority, const char *format, ...) _printf_(2, 3);
#define log_error(...) log_message(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_WARNING, __VA_ARGS__)
#define log_notice(...) log_message(LOG_NOTICE, __VA_ARGS__)
#define log_info(...) log_message(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_message(LOG_DEBUG, __VA_ARGS__)
/* Is stderr connected to the journal? */
bool log_is_journal(void);
/* A line of a worker's output for our stderr, with its prefix "web.8.0 | ", or "web.8.verify | "
 * with NO_WORKER. len bytes, may hold anything. */
void log_worker_line(
	const char *service, unsigned generation, unsigned worker, const char *line, size_t len);

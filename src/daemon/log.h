/* SPDX-License-Identifier: Apache-2.0 */
/* The only place that logs. To the journal, with fields, where stderr leads there; else to stderr:
 * with the time on a terminal, with syslog priority prefixes "<6>" to a journal that cannot be
 * reached otherwise (sd-daemon(3)), plain otherwise. One line per message; control characters in it
 * are replaced. syslog(3) priorities. Whoever reads slowly loses lines, and is told how many. */
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
/* What an entry is about. */
struct log_subject {
	const char *service;	/* NULL: none */
	unsigned generation;	/* 0: none */
	unsigned worker;	/* NO_WORKER: none */
	const char *event;	/* its name in Events; NULL */
	const char *message_id; /* of the catalog; NULL */
};
/* The message as it stands, with its subject as fields TENURED_... where there is a journal. */
void log_event(int priority, const struct log_subject *subject, const char *message);
/* After log_init(): where stderr is the journal, send entries to the one that listens at path
 * (static), and to stderr only what it does not take. */
void log_use_journal(const char *path);
/* Is stderr connected to the journal? */
bool log_is_journal(void);
/* A line of a worker's output for our stderr, with its prefix "web.8.0 | ", or "web.8.verify | "
 * with NO_WORKER. len bytes, may hold anything. */
void log_worker_line(
	const char *service, unsigned generation, unsigned worker, const char *line, size_t len);
/* The same for the journal, under the service's name (SYSLOG_IDENTIFIER). False: there is none, or
 * it did not take it. */
bool log_worker_to_journal(int priority, const char *service, unsigned generation, unsigned worker,
	const char *line, size_t len);

/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's errors as a person reads them: what, why, and what to do; and as exit codes. */
#pragma once

#include "ctl/options.h"
#include "ctl/output.h"

/* error: full name ("io.tenured.Supervisor.RolledBack"). */
int problem_exit_code(const char *error);
/* The text alone, to o->errors. service: whom it is about, or NULL; parameters: untrusted. */
void problem_print(
	struct output *o, const char *service, const char *error, const json_t *parameters);
/* Text and data. Returns the exit code. */
int problem_report(struct output *o, const char *service, const char *error, json_t *parameters);
/* As data alone: {"service", "error", "parameters", "exit"}. */
void problem_record(struct output *o, const char *service, const char *error, json_t *parameters);
/* What went wrong on this side; the text must be safe. Returns code. */
int problem_local(struct output *o, int code, const char *format, ...) _printf_(3, 4);

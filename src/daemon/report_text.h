/* SPDX-License-Identifier: Apache-2.0 */
/* What the core reports, as sentences for operators: the object, the fact, the consequence. */
#pragma once

#include "daemon/manager.h"
#include "daemon/worker_process.h"

/* The caller frees; NULL: out of memory. *ret_priority is always set. */
char *report_text(struct manager_service *s, const struct effect *e, int *ret_priority);
/* "120ms", "3.4s", "2m3s". */
#define REPORT_SPAN_MAX 32
const char *report_span(uint64_t usec, char buf[static REPORT_SPAN_MAX]);

/* SPDX-License-Identifier: Apache-2.0 */
/* What `status` says of services, as text. The objects are the daemon's Service and Listener. */
#pragma once

#include "ctl/table.h"

/* All of them, one line each, and below what needs attention. */
void status_overview(struct output *o, const json_t *services, uint64_t now_usec);
/* One of them, with its generations, workers and listeners. */
void status_detail(struct output *o, const json_t *service, uint64_t now_usec);
/* Lines about one service that need attention (rollout, pending, last failure ...); prefix stands
 * before each. verbose: with the failed worker's last output. */
void status_notes(struct output *o, const json_t *service, const char *prefix, bool verbose,
	uint64_t now_usec);
/* Of a Generation or Rollout: " (24.6% of 812 seen)", or "" where nothing was measured. */
#define STATUS_MEASURED_MAX 64
const char *status_measured(const json_t *object, char buf[static STATUS_MEASURED_MAX]);
/* Workers of its serving generation (while it has none, of the newest) that are ready. */
long long status_ready(const json_t *service);
enum paint status_paint(const char *state);
/* Below them: the socket options that were asked for, or that somebody has changed. */
void status_options(struct output *o, const json_t *listeners);
void status_listeners(
	struct output *o, const json_t *listeners, bool with_service, unsigned indent);

/* SPDX-License-Identifier: Apache-2.0 */
/* A check that is tried until it succeeds: a page of the new worker over a probe connection (ready:
 * http), or a command (ready: exec). */
#pragma once

#include "daemon/worker_process.h"

struct ready_check;

int ready_check_new(
	struct worker_process *p, const struct manager_generation *g, struct ready_check **ret);
struct ready_check *ready_check_free(struct ready_check *c);
/* Go on with it; true once it has succeeded. Cheap: called often. */
bool ready_check_step(struct ready_check *c);
/* The running command, or 0. */
pid_t ready_check_command(const struct ready_check *c);
/* What the last try found. The caller frees. */
char *ready_check_explain(const struct ready_check *c);

/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of live restore: TENURE_FAULT=POINT:N[,POINT:N...] in the daemon's environment has it
 * kill itself (SIGKILL) when it comes to that point for the N-th time; with
 * TENURE_FAULT_ARMED=PATH, for the N-th time since there is a file of that name. Not set, as it
 * always is but in tests, a point costs a comparison. A daemon that was restored obeys only points
 * that begin with "restore", so that a keeper's next one lives.
 *
 *   save, saved        around each write of the state
 *   spawn, spawned, spawn-saved
 *                      before a process is made; it is not known to anybody; it is in the state
 *   effect-KIND        before an effect of that kind is applied, by its name in core/effect.h in
 *                      lower case: effect-steer, effect-signal-drain, effect-release-lane ...
 *   rollout-PHASE      the state says that phase now, and nothing was done for it yet
 *   worker-STATE       a worker is in that state, as above
 *   restore, restored  before anything of the state is taken; all of it is */
#pragma once

#include "base/util.h"

/* restored: this daemon goes on with an earlier one's work. */
void fault_init(bool restored);
void fault_point(const char *name);
/* "PREFIX-NAME". Is anything asked for at all? Then names are worth being made. */
bool fault_is_on(void);
void fault_point_of(const char *prefix, const char *name);

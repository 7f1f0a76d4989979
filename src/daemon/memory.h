/* SPDX-License-Identifier: Apache-2.0 */
/* recycle.memory: how much memory the workers have, each with the processes it started, looked at
 * every few seconds. One that has too much is an EVENT_RECYCLE; what follows is the core's. */
#pragma once

#include "daemon/manager.h"

/* Begin, or end, as the service's present configuration says. */
void memory_watch(struct manager_service *s);
void memory_watch_end(struct manager_service *s);

/* SPDX-License-Identifier: Apache-2.0 */
/* What time it is: clock_gettime(2). Not for core/, which is told. */
#pragma once

#include <time.h>

#include "base/util.h"

static inline uint64_t clock_usec(clockid_t clock)
{
	struct timespec t = {0};

	(void)clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / NSEC_PER_USEC;
}

static inline uint64_t monotonic_usec(void)
{
	return clock_usec(CLOCK_MONOTONIC);
}

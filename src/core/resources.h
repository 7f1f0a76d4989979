/* SPDX-License-Identifier: Apache-2.0 */
/* What a generation may use, all its processes together: systemd.resource-control(5) has the same
 * under similar names. The kernel's side is a control group of version 2. */
#pragma once

#include "base/util.h"

#define RESOURCE_UNSET UINT64_MAX

struct resource_config {
	uint64_t memory_high, memory_max, memory_swap_max; /* bytes; RESOURCE_UNSET */
	unsigned cpu_weight;				   /* 1..10000; 0: unset */
	unsigned cpu_quota; /* hundredths of a percent of one CPU; 0: unset */
	unsigned tasks_max; /* processes and threads; 0: unset */
	unsigned io_weight; /* 1..10000; 0: unset */
};

enum { RESOURCES_MAX = 7, RESOURCE_VALUE_SIZE = 48 };

/* One of them as the kernel wants it. */
struct resource_setting {
	const char *key;	/* "memory_max" */
	const char *controller; /* "memory" */
	const char *file;	/* "memory.max" */
	char value[RESOURCE_VALUE_SIZE];
};

void resources_init(struct resource_config *c);
bool resources_equal(const struct resource_config *a, const struct resource_config *b);
/* Those that are set; ret: RESOURCES_MAX of them. */
size_t resources_settings(
	const struct resource_config *c, struct resource_setting ret[static RESOURCES_MAX]);

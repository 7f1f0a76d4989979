/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/fault.h"

#include <signal.h>
#include <unistd.h>

/* Points are passed in every file, and belong to no manager: one of the few things that are the
 * process's own. */
static struct {
	bool on, restored;
	const char *asked, *armed;
	unsigned n_passed[16];
} fault;

void fault_init(bool restored)
{
	fault.asked = getenv("TENURE_FAULT");
	fault.on = fault.asked && *fault.asked;
	fault.armed = getenv("TENURE_FAULT_ARMED");
	fault.restored = restored;
}

bool fault_is_on(void)
{
	return fault.on;
}

void fault_point(const char *name)
{
	const char *p = fault.asked;
	size_t len = fault.on ? strlen(name) : 0;

	if (!fault.on || (fault.restored && !startswith(name, "restore")))
		return;
	if (fault.armed && access(fault.armed, F_OK) < 0)
		return;
	for (size_t i = 0; p && *p && i < ARRAY_SIZE(fault.n_passed); i++) {
		if (strncmp(p, name, len) == 0 && p[len] == ':' &&
			++fault.n_passed[i] == strtoul(p + len + 1, NULL, 10))
			(void)raise(SIGKILL);
		p = strchr(p, ',');
		p = p ? p + 1 : NULL;
	}
}

void fault_point_of(const char *prefix, const char *name)
{
	char point[64];

	if (!fault.on)
		return;
	snprintf(point, sizeof(point), "%s-%s", prefix, name);
	for (char *c = point; *c; c++)
		if (*c == '_' || *c == ' ')
			*c = '-';
	fault_point(point);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What `workers: auto` means: the CPUs this process may use, by its affinity (sched_setaffinity(2))
 * and by its control group's quota (cpu.max of cgroup v2, cpu.cfs_quota_us of v1), rounded up. */
#include <sched.h>

#include "daemon/manager.h"

static bool read_two(const char *path, long long *a, long long *b)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	char first[32];

	if (!f || fscanf(f, "%31s %lld", first, b) != 2 || streq(first, "max"))
		return false;
	*a = strtoll(first, NULL, 10);
	return true;
}

static bool read_one(const char *path, long long *a)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");

	return f && fscanf(f, "%lld", a) == 1;
}

/* The path of our group below its mount, for the hierarchy with that controller ("" is v2). */
static bool own_group(const char *controller, char *ret, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/cgroup", "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
		if (!second)
			continue;
		*second = '\0';
		second[1 + strcspn(second + 1, "\n")] = '\0';
		if (*controller ? strstr(first + 1, controller) != NULL : first[1] == '\0') {
			snprintf(ret, size, "%s", second + 1);
			return true;
		}
	}
	return false;
}

static unsigned quota(void)
{
	long long allowed = 0, period = 0;
	char group[256], path[512];

	if (own_group("", group, sizeof(group))) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group);
		if (read_two(path, &allowed, &period) && allowed > 0 && period > 0)
			return (unsigned)((allowed + period - 1) / period);
	}
	if (own_group("cpu", group, sizeof(group))) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", group);
		if (!read_one(path, &allowed) || allowed <= 0)
			return 0;
		snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", group);
		if (read_one(path, &period) && period > 0)
			return (unsigned)((allowed + period - 1) / period);
	}
	return 0;
}

unsigned manager_n_cpus(void)
{
	unsigned n = 1, limit = quota();
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = MAX(1u, (unsigned)CPU_COUNT(&set));
	return limit > 0 ? MIN(n, limit) : n;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Which CPUs there are for workers. What `workers: auto` means: the CPUs this process may use, by
 * its affinity (sched_setaffinity(2)) and by its control group's quota (cpu.max of cgroup v2,
 * cpu.cfs_quota_us of v1), rounded up. */
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

/* The narrowest of the group's and those above it. */
static unsigned quota_above(char *group)
{
	unsigned narrowest = 0;

	for (char *end = group + strlen(group); end; end = strrchr(group, '/')) {
		long long allowed = 0, period = 0;
		char path[512];

		*end = '\0';
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group);
		if (read_two(path, &allowed, &period) && allowed > 0 && period > 0) {
			unsigned n = (unsigned)((allowed + period - 1) / period);

			narrowest = narrowest > 0 ? MIN(narrowest, n) : n;
		}
	}
	return narrowest;
}

static unsigned quota(void)
{
	long long allowed = 0, period = 0;
	char group[256], path[512];

	if (own_group("", group, sizeof(group))) {
		unsigned n = quota_above(group);

		if (n > 0)
			return n;
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

void manager_cpus(struct cpu_set *ret)
{
	cpu_set_t set;

	*ret = (struct cpu_set){0};
	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		CPU_ZERO(&set); /* more CPUs than we can name */
	for (unsigned cpu = 0; cpu < CPU_SETSIZE && cpu < CPU_SET_MAX; cpu++)
		if (CPU_ISSET(cpu, &set))
			cpu_set_add(ret, cpu);
}

bool manager_cpus_of_worker(const struct service_config *c, unsigned index, struct cpu_set *ret)
{
	struct cpu_set own;

	switch (c->cpu_affinity) {
	case CPU_AFFINITY_NONE:
		return false;
	case CPU_AFFINITY_PER_WORKER:
		manager_cpus(&own);
		if (cpu_set_count(&own) == 0)
			return false;
		*ret = (struct cpu_set){0};
		cpu_set_add(ret, cpu_set_nth(&own, index));
		return true;
	case CPU_AFFINITY_SET:
		*ret = c->cpus;
		return true;
	}
	return false;
}

unsigned manager_n_cpus(void)
{
	unsigned n = 1, limit = quota();
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = MAX(1u, (unsigned)CPU_COUNT(&set));
	return limit > 0 ? MIN(n, limit) : n;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Which CPUs there are for workers. What `workers: auto` means: the CPUs this process may use, by
 * its affinity (sched_setaffinity(2)) and by its control group's quota (cpu.max of cgroup v2,
 * cpu.cfs_quota_us of v1), rounded up. */
#include <sched.h>

#include "daemon/manager.h"
#include "sys/cgroup.h"

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

/* Of a group, that is of all its processes: 0: no limit. */
static unsigned quota_of(long long allowed, long long period)
{
	return allowed > 0 && period > 0 ? (unsigned)((allowed + period - 1) / period) : 0;
}

/* Version 2: the narrowest of our group's and those above it. */
static unsigned quota_unified(void)
{
	_cleanup_free_ char *mount = NULL, *group = NULL;
	unsigned narrowest = 0;

	if (cgroup_mount(&mount) < 0)
		return 0;
	/* A container may see its part of the tree as if it were all. */
	if (cgroup_own(&group) < 0)
		group = strdup(mount);
	for (char *end = group ? group + strlen(group) : NULL; end && end >= group + strlen(mount);
		end = strrchr(group, '/')) {
		_cleanup_free_ char *path = NULL;
		long long allowed = 0, period = 0;
		unsigned n;

		*end = '\0';
		path = xasprintf("%s/cpu.max", group);
		if (!path || !read_two(path, &allowed, &period))
			continue;
		n = quota_of(allowed, period);
		if (n > 0)
			narrowest = narrowest > 0 ? MIN(narrowest, n) : n;
	}
	return narrowest;
}

static bool has_word(char *list, const char *word)
{
	char *save = NULL;

	for (char *w = strtok_r(list, ",", &save); w; w = strtok_r(NULL, ",", &save))
		if (streq(w, word))
			return true;
	return false;
}

/* Version 1: the path of our group below the mount of the controller "cpu". */
static bool own_group(char *ret, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/cgroup", "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;

		if (!second)
			continue;
		*second = '\0';
		second[1 + strcspn(second + 1, "\n")] = '\0';
		if (has_word(first + 1, "cpu")) {
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
	unsigned n = quota_unified();

	if (n > 0 || !own_group(group, sizeof(group)))
		return n;
	snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", group);
	if (!read_one(path, &allowed))
		return 0;
	snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", group);
	return read_one(path, &period) ? quota_of(allowed, period) : 0;
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

/* SPDX-License-Identifier: Apache-2.0 */
#include "core/resources.h"

#include "base/parse.h"
#include "core/config.h"

/* Of cpu.max, the kernel's default. Short enough that nobody stands still for long. */
enum { CPU_PERIOD_USEC = 100000 };

void resources_init(struct resource_config *c)
{
	*c = (struct resource_config){.memory_high = RESOURCE_UNSET,
		.memory_max = RESOURCE_UNSET,
		.memory_swap_max = RESOURCE_UNSET};
}

bool resources_equal(const struct resource_config *a, const struct resource_config *b)
{
	return a->memory_high == b->memory_high && a->memory_max == b->memory_max &&
	       a->memory_swap_max == b->memory_swap_max && a->cpu_weight == b->cpu_weight &&
	       a->cpu_quota == b->cpu_quota && a->tasks_max == b->tasks_max &&
	       a->io_weight == b->io_weight;
}

static void add(struct resource_setting *ret, size_t *n, const char *key, const char *controller,
	const char *file, uint64_t value)
{
	ret[*n] = (struct resource_setting){.key = key, .controller = controller, .file = file};
	snprintf(ret[*n].value, sizeof(ret[*n].value), "%llu", (unsigned long long)value);
	++*n;
}

size_t resources_settings(
	const struct resource_config *c, struct resource_setting ret[static RESOURCES_MAX])
{
	size_t n = 0;

	if (c->memory_high != RESOURCE_UNSET)
		add(ret, &n, "memory_high", "memory", "memory.high", c->memory_high);
	if (c->memory_max != RESOURCE_UNSET)
		add(ret, &n, "memory_max", "memory", "memory.max", c->memory_max);
	if (c->memory_swap_max != RESOURCE_UNSET)
		add(ret, &n, "memory_swap_max", "memory", "memory.swap.max", c->memory_swap_max);
	if (c->cpu_weight != 0)
		add(ret, &n, "cpu_weight", "cpu", "cpu.weight", c->cpu_weight);
	if (c->cpu_quota != 0) {
		add(ret, &n, "cpu_quota", "cpu", "cpu.max", 0);
		snprintf(ret[n - 1].value, sizeof(ret[n - 1].value), "%llu %d",
			(unsigned long long)c->cpu_quota * CPU_PERIOD_USEC / SHARE_MAX,
			CPU_PERIOD_USEC);
	}
	if (c->tasks_max != 0)
		add(ret, &n, "tasks_max", "pids", "pids.max", c->tasks_max);
	if (c->io_weight != 0)
		add(ret, &n, "io_weight", "io", "io.weight", c->io_weight);
	return n;
}

void resources_check(
	const struct service_config *s, struct config_place place, struct config_problems *problems)
{
	const struct resource_config *c = &s->resources;

	if (c->memory_max != RESOURCE_UNSET && c->memory_high != RESOURCE_UNSET &&
		c->memory_high > c->memory_max) {
		_cleanup_free_ char *high = format_size(c->memory_high),
				    *max = format_size(c->memory_max);

		config_problem_add(problems, place, true,
			"memory_high: %s is above memory_max (%s), and never reached", high, max);
	}
	if (c->tasks_max != 0 && s->workers > 0 && c->tasks_max < s->workers)
		config_problem_add(problems, place, false,
			"tasks_max: %u processes and threads are fewer than the %u workers",
			c->tasks_max, s->workers);
	/* The kernel would end somebody before a worker can be replaced in good order. */
	if (s->recycle.memory > 0 && c->memory_max != RESOURCE_UNSET &&
		s->recycle.memory >= c->memory_max)
		config_problem_add(problems, place, true,
			"memory_max: recycle's memory allows each worker as much as all of them "
			"together may have, and is never reached");
}

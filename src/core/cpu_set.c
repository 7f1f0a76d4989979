/* SPDX-License-Identifier: Apache-2.0 */
#include "core/cpu_set.h"

#include "base/parse.h"

unsigned cpu_set_nth(const struct cpu_set *set, unsigned i)
{
	unsigned n = cpu_set_count(set);

	i = n > 0 ? i % n : 0;
	for (unsigned cpu = 0; n > 0 && cpu < CPU_SET_MAX; cpu++)
		if (cpu_set_has(set, cpu) && i-- == 0)
			return cpu;
	return 0;
}

char *cpu_set_format(const struct cpu_set *set)
{
	/* At most every second one, with a comma, and four digits each. */
	char text[CPU_SET_MAX / 2 * 5 + 1] = "";
	size_t len = 0;

	for (unsigned first = 0; first < CPU_SET_MAX; first++) {
		unsigned last = first;

		if (!cpu_set_has(set, first))
			continue;
		while (cpu_set_has(set, last + 1))
			last++;
		len += (size_t)snprintf(
			text + len, sizeof(text) - len, "%s%u", len > 0 ? "," : "", first);
		if (last > first)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "-%u", last);
		first = last;
	}
	return strdup(text);
}

int cpu_set_parse(const char *s, struct cpu_set *ret)
{
	_cleanup_free_ char *copy = strdup(s);
	struct cpu_set set = {0};
	char *rest = copy, *range, *dash;
	unsigned first, last;
	int r;

	if (!copy)
		return -ENOMEM;
	while ((range = strsep(&rest, ","))) {
		dash = strchr(range, '-');
		if (dash)
			*dash = '\0';
		r = parse_uint(range, 0, UINT32_MAX, &first);
		last = first;
		if (r >= 0 && dash)
			r = parse_uint(dash + 1, 0, UINT32_MAX, &last);
		if (r < 0 || last < first)
			return -EINVAL;
		if (last >= CPU_SET_MAX)
			return -ERANGE;
		for (unsigned cpu = first; cpu <= last; cpu++)
			cpu_set_add(&set, cpu);
	}
	*ret = set;
	return 0;
}

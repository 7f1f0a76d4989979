/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/process.h"

#include <limits.h>

int process_own_path(char **ret)
{
	static const char gone[] = " (deleted)";
	char path[PATH_MAX + sizeof(gone)];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	size_t len;

	if (n < 0)
		return -errno;
	len = (size_t)n;
	path[len] = '\0';
	/* Replaced, as packages do it, or removed. */
	if (len >= sizeof(gone) && streq(path + len - (sizeof(gone) - 1), gone) &&
		access(path, F_OK) < 0)
		path[len - (sizeof(gone) - 1)] = '\0';
	*ret = strdup(path);
	return *ret ? 0 : -ENOMEM;
}

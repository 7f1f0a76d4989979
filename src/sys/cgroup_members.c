/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/cgroup_members.h"

#include <dirent.h>

#include "sys/process.h"

static void closedir_p(DIR **d)
{
	if (*d)
		closedir(*d);
}

static bool has_variable(pid_t pid, const char *name)
{
	_cleanup_free_ char *value = NULL;

	return process_environment(pid, name, &value) >= 0;
}

static int signal_here(const char *path, const char *variable, int signal)
{
	_cleanup_free_ char *name = xasprintf("%s/cgroup.procs", path);
	_cleanup_fclose_ FILE *f = name ? fopen(name, "re") : NULL;
	int pid, n = 0;

	if (!f)
		return name ? -errno : -ENOMEM;
	while (fscanf(f, "%d", &pid) == 1) {
		/* 0: a process that this namespace does not see. */
		if (pid <= 0 || pid == getpid() ||
			(variable && !has_variable((pid_t)pid, variable)))
			continue;
		n++;
		if (signal != 0)
			(void)kill((pid_t)pid, signal);
	}
	return n;
}

int cgroup_signal_members(const char *path, const char *except, const char *variable, int signal)
{
	_cleanup_(closedir_p) DIR *directory = opendir(path);
	const struct dirent *entry;
	int n, r;

	if (!directory)
		return -errno;
	n = signal_here(path, variable, signal);
	while (n >= 0 && (entry = readdir(directory))) {
		_cleanup_free_ char *below = NULL;

		if (entry->d_type != DT_DIR || streq(entry->d_name, ".") ||
			streq(entry->d_name, "..") || streq_null(entry->d_name, except))
			continue;
		below = xasprintf("%s/%s", path, entry->d_name);
		r = below ? cgroup_signal_members(below, NULL, variable, signal) : -ENOMEM;
		/* Removed meanwhile: nobody is in it. */
		if (r == -ENOENT || r == -ENODEV)
			r = 0;
		n = r < 0 ? r : n + r;
	}
	return n;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/socket.h"

#define SYSTEM_DIRECTORY "/run"

static int copy_path(const char *path, char **ret)
{
	const char *bare = startswith(path, "unix:");
	char *copy = strdup(bare ? bare : path);

	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

int socket_path(const char *path, const char *instance, char **ret)
{
	const char *environment = getenv("TENURE_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
	const char *slash = instance ? "/" : "";
	char *s;

	if (path)
		return copy_path(path, ret);
	if (!instance && environment && *environment)
		return copy_path(environment, ret);
	instance = instance ? instance : "";
	/* The specification wants it absolute, and has others ignored. */
	if (runtime && *runtime == '/') {
		s = xasprintf("%s/tenured/%s%scontrol.sock", runtime, instance, slash);
		if (!s)
			return -ENOMEM;
		if (access(s, F_OK) == 0) {
			*ret = s;
			return 0;
		}
		free(s);
	}
	s = xasprintf(SYSTEM_DIRECTORY "/tenured/%s%scontrol.sock", instance, slash);
	if (!s)
		return -ENOMEM;
	*ret = s;
	return 0;
}

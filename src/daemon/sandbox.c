/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/sandbox.h"

static const char *const homes[] = {"/home/", "/root/", "/run/user/"};
static const char *const temporary[] = {"/tmp/", "/var/tmp/"};

static bool is_below(const char *path, const char *const *places, size_t n)
{
	for (size_t i = 0; path && i < n; i++)
		if (startswith(path, places[i]))
			return true;
	return false;
}

static char *read_only(const char *path)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	_cleanup_free_ char *directory =
		slash && slash > path ? strndup(path, (size_t)(slash - path)) : NULL;

	return xasprintf("; the unit of tenured has it read-only (ProtectSystem=, ProtectHome=): "
			 "write ReadWritePaths=%s in it",
		directory ? directory : "DIRECTORY");
}

static char *file(int code, const char *path)
{
	if (code == -EROFS)
		return read_only(path);
	if (code != -ENOENT && code != -EACCES)
		return NULL;
	if (is_below(path, homes, ARRAY_SIZE(homes)))
		return strdup("; home directories may be hidden by ProtectHome= in the unit of "
			      "tenured");
	if (is_below(path, temporary, ARRAY_SIZE(temporary)))
		return strdup("; with PrivateTmp= the unit of tenured has a /tmp of its own");
	return code == -EACCES && geteuid() == 0
		       ? strdup("; NoExecPaths=, InaccessiblePaths= or CapabilityBoundingSet= "
				"without CAP_DAC_OVERRIDE in the unit of tenured may forbid it")
		       : NULL;
}

static char *become(void)
{
	if (geteuid() != 0)
		return strdup("; the unit of tenured has User=, and can run workers as that user "
			      "only: leave \"user\" and \"group\" out, or use a unit without "
			      "User=");
	return strdup("; CapabilityBoundingSet= in the unit of tenured must have CAP_SETUID and "
		      "CAP_SETGID");
}

char *sandbox_hint(int code, enum sandbox_act act, const char *path)
{
	/* systemd gives each start of a unit its id. */
	if (!getenv("INVOCATION_ID"))
		return NULL;
	if (act == SANDBOX_CONTROL)
		return code == -EROFS || code == -EACCES || code == -EPERM
			       ? strdup("; or write RuntimeDirectory=tenured in the unit of "
					"tenured")
			       : NULL;
	if (act == SANDBOX_FILE || code == -EROFS)
		return file(code, path);
	if (code != -EPERM && code != -EACCES)
		return NULL;
	switch (act) {
	case SANDBOX_OWNER:
		return strdup(
			"; CapabilityBoundingSet= in the unit of tenured must have CAP_CHOWN");
	case SANDBOX_BECOME:
		return become();
	case SANDBOX_LIMIT:
		return strdup("; it is more than the unit of tenured may give: write LimitNOFILE= "
			      "(or the like) in it, or CapabilityBoundingSet=CAP_SYS_RESOURCE");
	case SANDBOX_PROCESS:
		return strdup("; SystemCallFilter= or RestrictNamespaces= in the unit of tenured "
			      "may forbid it");
	case SANDBOX_FILE:
	case SANDBOX_CONTROL:
		break;
	}
	return NULL;
}

int sandbox_explain(struct error *e, int code, enum sandbox_act act, const char *path)
{
	_cleanup_free_ char *hint = e ? sandbox_hint(code, act, path) : NULL;
	_cleanup_free_ char *message = hint ? strdup(error_message(e)) : NULL;

	return message ? error_set(e, code, "%s%s", message, hint) : code;
}

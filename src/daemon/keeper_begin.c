/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/keeper.h"
#include "daemon/log.h"
#include "sys/process.h"

/* Returns when it is not to be had. argv as keeper_main.c wants it. */
static void become(const char *program, const char *path, char *const *argv, int log_level)
{
	size_t n = strv_length(argv);
	_cleanup_free_ char **words = calloc(n + 4, sizeof(*words));
	char level[16];

	if (!words || access(program, X_OK) < 0)
		return;
	snprintf(level, sizeof(level), "%d", log_level);
	words[0] = (char *)(uintptr_t)program;
	words[1] = level;
	words[2] = (char *)(uintptr_t)path;
	memcpy(words + 3, argv, n * sizeof(*words));
	(void)execv(program, words);
}

int keeper_begin(char *const *argv, const char *installed, int log_level)
{
	_cleanup_free_ char *path = NULL, *beside = NULL;
	int r = process_own_path(&path);

	if (r < 0) {
		log_error("keeper: /proc/self/exe: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	beside = xasprintf("%s-keeper", path);
	if (beside)
		become(beside, path, argv, log_level);
	become(installed, path, argv, log_level);
	return keeper_run(path, argv, argv);
}

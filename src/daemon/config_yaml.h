/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files, tenured.yaml(5): YAML or JSON, with includes. */
#pragma once

#include "core/config.h"

enum {
	CONFIG_FILE_MAX = 4 << 20,   /* bytes of one file */
	CONFIG_FILES_MAX = 1024,     /* files in all */
	CONFIG_TOTAL_MAX = 16 << 20, /* bytes of all files */
};

/* Read path and what it includes. Everything that is wrong with the content goes to problems, all
 * at once, and config_resolve() may add more; a configuration is good when problems->n_errors is
 * still 0 after both. *ret is set whenever 0 is returned, with what could be read, so that
 * config_resolve() can be asked in any case; the caller frees it. problems does not depend on it
 * and may be kept. 0, or -errno with a sentence in ret_error when path itself cannot be read at
 * all. */
int config_load(const char *path, struct config **ret, struct config_problems *problems,
	struct error *ret_error);
/* The same, but path is read as if it were at `as`: that is what it is called, and what its
 * relative paths and includes are relative to. To check a file before it is put into its place. */
int config_load_as(const char *path, const char *as, struct config **ret,
	struct config_problems *problems, struct error *ret_error);

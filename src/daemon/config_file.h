/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a configuration file, if it may be trusted. */
#pragma once

#include <sys/stat.h>

#include "core/config.h"

struct config_file {
	char *data;
	size_t len;
	dev_t device; /* with inode: which file it is, whatever its name */
	ino_t inode;
};

void config_file_done(struct config_file *f);
#define _cleanup_config_file_ _cleanup_(config_file_done)

/* Read at most max bytes. As root, a file that everybody can write is refused, for it decides what
 * runs as root. 0; -errno of open(2) or read(2), with nothing in problems; or -EBADMSG: the file is
 * not fit, and a problem says why. */
int config_file_read(
	const char *path, size_t max, struct config_file *ret, struct config_problems *problems);

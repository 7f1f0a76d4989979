/* SPDX-License-Identifier: Apache-2.0 */
/* What the readers of /proc share. */
#pragma once

#include "sys/directory.h"

/* A process that ends shows it in several ways; one that may not be looked into in two. */
static inline int procfs_error(int error)
{
	if (error == ENOENT || error == ESRCH || error == ENOTDIR)
		return -ESRCH;
	return error == EPERM ? -EACCES : -error;
}

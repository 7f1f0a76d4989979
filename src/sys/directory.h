/* SPDX-License-Identifier: Apache-2.0 */
/* A directory that is read: opendir(3). */
#pragma once

#include <dirent.h>

#include "base/util.h"

static inline void closedir_p(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define _cleanup_closedir_ _cleanup_(closedir_p)

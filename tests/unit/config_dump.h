/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration as lines of text, for tests that compare with what is expected. */
#pragma once

#include "core/config.h"

/* One line for each field of a service: "key=value", "listen NAME ADDRESS ..." with what is not
 * default. Paths below directory begin with "DIR". The caller frees; the test ends when out of
 * memory. */
char **config_dump_service(const struct service_config *s, const char *directory);

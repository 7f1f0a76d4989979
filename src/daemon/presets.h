/* SPDX-License-Identifier: Apache-2.0 */
/* Presets for people: `tenured presets`, and hints that there is one for a program. */
#pragma once

#include "core/config.h"

/* `presets [--json] [NAME]`; argv[0] is the word "presets". An exit status. */
int presets_main(int argc, char *argv[]);
/* Warn of each service whose program has a preset while the service says nothing about it. Looks at
 * the files of programs. 0 or -ENOMEM. */
int presets_hint(const struct config *c, struct config_problems *problems);

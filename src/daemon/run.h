/* SPDX-License-Identifier: Apache-2.0 */
/* `tenured run`: a configuration made from the command line. */
#pragma once

#include "core/config.h"
#include "daemon/keeper.h"

/* argv[0] is "run". 0 with *ret, or an exit status after a message on stderr (2: usage). *socket is
 * replaced by --socket. */
int run_config(int argc, char *argv[], const char **socket, struct config **ret);
/* What --keeper or --no-keeper among its options says; else as before. */
enum keeper_choice run_keeper(int argc, char *const argv[], enum keeper_choice before);

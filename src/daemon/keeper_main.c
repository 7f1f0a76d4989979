/* SPDX-License-Identifier: Apache-2.0 */
/* tenured-keeper: what `tenured --keeper` becomes, see keeper.h. Not for people.
 *
 *     tenured-keeper LOG-LEVEL PROGRAM ARGV0 [ARGUMENT...] */
#include <sys/prctl.h>

#include "base/parse.h"
#include "daemon/keeper.h"
#include "daemon/keeper_exec.h"
#include "daemon/log.h"

enum { EXIT_USAGE = 2 };

int main(int argc, char *argv[])
{
	unsigned level;

	if (argc == 2 && streq(argv[1], "--check-state"))
		return keeper_check_state();
	if (argc < 4 || parse_uint(argv[1], LOG_EMERG, LOG_DEBUG, &level) < 0) {
		fputs("tenured-keeper is a part of tenured: see tenured --keeper\n", stderr);
		return EXIT_USAGE;
	}
	log_init((int)level);
	/* Executed by descriptor, the kernel calls it by that one's number. */
	(void)prctl(PR_SET_NAME, "tenured-keeper");
	return keeper_run(argv[2], argv + 3, argv);
}

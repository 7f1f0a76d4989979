/* SPDX-License-Identifier: Apache-2.0 */
/* What our unit's sandbox forbids looks like any other refusal. This adds to an error which
 * directive of systemd.exec(5) it may come from; only where systemd has started us. */
#pragma once

#include "base/error.h"

enum sandbox_act {
	SANDBOX_FILE,	 /* open, read or execute path */
	SANDBOX_OWNER,	 /* give path to another user or group */
	SANDBOX_BECOME,	 /* run a worker as another user */
	SANDBOX_LIMIT,	 /* set one of its limits */
	SANDBOX_PROCESS, /* make it */
	SANDBOX_CONTROL, /* make the directory of the control socket */
};

/* e has been set (NULL: nobody wants to know); path may be NULL. Returns code. */
int sandbox_explain(struct error *e, int code, enum sandbox_act act, const char *path);
/* The same as an addition to a sentence, or NULL. code: -errno. The caller frees. */
char *sandbox_hint(int code, enum sandbox_act act, const char *path);

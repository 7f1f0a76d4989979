/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that take time, several at once: made, shown while they happen, left alone on ^C. */
#pragma once

#include "ctl/context.h"

struct follow_call {
	const char *service; /* borrowed; NULL: about none in particular */
	json_t *parameters;  /* owned; NULL: out of memory */
};

struct follow {
	const char *method;	   /* without the interface */
	const char *noun;	   /* "upgrade": what goes on when we leave */
	bool abortable;		   /* `tenurectl abort` ends it */
	struct follow_call *calls; /* owned */
	size_t n_calls;
	/* What to do with the last reply's parameters beside showing its progress; may be NULL. */
	void (*answer)(struct context *context, json_t *parameters);
};

void follow_done(struct follow *f);
#define _cleanup_follow_ _cleanup_(follow_done)

/* One call for each argument of the command line, {"service": ARGUMENT}, to be added to. 0 or
 * -ENOMEM. */
int follow_services(struct follow *f, struct context *context);
/* Do it all, as --detach, --timeout and --abort-on-interrupt say. Returns the exit code: EXIT_DONE,
 * or that of the first call, in their order, that did not end well. */
int follow_run(struct follow *f, struct context *context);

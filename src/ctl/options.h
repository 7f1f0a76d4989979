/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: a verb, its arguments, options before and after it. */
#pragma once

#include "base/error.h"
#include "base/util.h"

/* What tenurectl exits with. Scripts rely on it. */
enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NO_DAEMON = 3,
	EXIT_NOT_PERMITTED = 4,
	EXIT_IN_PROGRESS = 5,
	EXIT_ROLLED_BACK = 6,
	EXIT_INVALID_CONFIGURATION = 7,
	EXIT_TIMED_OUT = 8,
	EXIT_INTERRUPTED = 130,
};

struct context;

/* The options a verb may take beside the global ones. */
enum option_set {
	OPTION_STRATEGY = 1U << 0, /* --strategy --steps --soak --pause-at --wait-drain --overlap */
	OPTION_FOLLOW = 1U << 1,   /* --detach --timeout */
	OPTION_TIMEOUT = 1U << 2,  /* --timeout */
	OPTION_ABORT = 1U << 3,	   /* --abort-on-interrupt */
	OPTION_FULL = 1U << 4,
	OPTION_TO = 1U << 5,
	OPTION_HARD = 1U << 6,
	OPTION_UPGRADE = 1U << 7,
	OPTION_EXIT_CODE = 1U << 8,
	OPTION_EVENTS = 1U << 9, /* --follow --since */
	OPTION_ADOPT = 1U << 11, /* --pid --address --signal */
	OPTION_TAKE = 1U << 12,	 /* --take */
	OPTION_AS = 1U << 10,	 /* for the help text: its verb passes all it gets on */
};

struct verb {
	const char *name;
	const char *args;    /* as the usage line shows them */
	const char *summary; /* one line of help */
	unsigned min_args, max_args;
	unsigned options; /* enum option_set */
	bool passthrough; /* all that follows the verb are arguments, options too */
	int (*run)(struct context *);
};

enum { OPTIONS_STEPS_MAX = 100 };

struct options {
	const struct verb *verb; /* NULL: none was given */
	char **args;		 /* owned */

	const char *socket, *instance; /* borrowed from argv, as all strings here */
	bool json, no_color, quiet, help, version;

	const char *strategy, *overlap;
	double steps[OPTIONS_STEPS_MAX]; /* percent, rising */
	size_t n_steps;			 /* 0: not given */
	uint64_t soak_usec;		 /* USEC_INFINITY: not given */
	double pause_at;		 /* percent; negative: not given */
	bool wait_drain, detach, abort_on_interrupt;
	uint64_t timeout_usec; /* USEC_INFINITY: not given, or without end */
	bool full, hard, upgrade, exit_code, follow;
	uint64_t to;  /* 0: not given */
	uint64_t pid; /* 0: not given */
	const char *address, *signal;
	char **take; /* owned; NULL: not given */
	bool since_given;
	uint64_t since_sequence; /* events after this one, */
	uint64_t since_usec;	 /* or from that long ago on; USEC_INFINITY: by sequence */
};

void options_done(struct options *o);

/* Reads argv (permuting nothing). verbs: ended by one without a name; borrowed by the result.
 * 0 or -EINVAL (wrong usage: ret_error says what and how it is meant), -ENOMEM. */
int options_parse(int argc, char *const *argv, const struct verb *verbs, struct options *ret,
	struct error *ret_error);
/* The general help (verb NULL) or that of one verb. */
void options_help(FILE *file, const struct verb *verbs, const struct verb *verb);
const struct verb *options_find_verb(const struct verb *verbs, const char *name);

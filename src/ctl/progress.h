/* SPDX-License-Identifier: Apache-2.0 */
/* Rollouts while they happen: on a terminal one line for each service, drawn again in place; in a
 * pipe one line for each message; with --json one object for each. */
#pragma once

#include <jansson.h>

#include "ctl/output.h"

enum progress_end {
	PROGRESS_RUNNING,
	PROGRESS_DONE,
	PROGRESS_FAILED,
	PROGRESS_LEFT, /* it goes on without us */
};

struct progress_row {
	const char *service; /* borrowed; NULL: not about one service, messages name theirs */
	json_t *rollout;     /* as the daemon told last, or NULL */
	char *message;	     /* the last one, safe, or NULL */
	enum progress_end end;
	bool hinted;			   /* how to go on from a pause was said */
	uint64_t started_usec, ended_usec; /* CLOCK_MONOTONIC */
};

struct progress {
	struct output *output; /* borrowed */
	struct progress_row *rows;
	size_t n_rows;
	bool live;
	size_t n_drawn; /* lines of ours on the terminal, above the cursor */
};

/* live is ignored where the output cannot. 0 or -ENOMEM. */
int progress_init(struct progress *p, struct output *o, bool live, size_t n_rows);
void progress_done(struct progress *p);
#define _cleanup_progress_ _cleanup_(progress_done)

/* The daemon told of a step. value: its Progress object; borrowed. */
void progress_tell(struct progress *p, size_t row, const json_t *value);
void progress_end(struct progress *p, size_t row, enum progress_end end);
/* Draw the live lines again; nothing where they are not live. Call it after changes and with time.
 */
void progress_draw(struct progress *p);
/* The line of one row as it looks at that moment, at most o->columns - 1 wide (if o->columns > 0).
 * The caller frees; NULL: out of memory. */
char *progress_line(const struct output *o, const struct progress_row *row, size_t name_width,
	uint64_t now_usec);

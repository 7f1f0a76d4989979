/* SPDX-License-Identifier: Apache-2.0 */
/* What every verb works with: the command line, where to print, whom to ask; and asking. */
#pragma once

#include "ctl/client.h"
#include "ctl/options.h"
#include "ctl/output.h"

struct context {
	const struct verb *verbs;      /* all of them, borrowed */
	const struct options *options; /* borrowed */
	struct output output;
	char *socket; /* owned */
	/* Descriptors for the daemon, and from it; borrowed, or NULL. */
	const struct client_fds *give;
	struct client_fds *take;
};

/* How long the daemon may think about a call that answers at once. */
#define CONTEXT_ANSWER_USEC (30 * USEC_PER_SEC)

/* A daemon that dies while it is asked is waited for: where a keeper is, the next one goes on with
 * its work and knows what was asked for. So long at most, and tried so often. */
#define CONTEXT_RETURN_USEC (10 * USEC_PER_SEC)
#define CONTEXT_RETURN_EVERY_USEC (50 * USEC_PER_MSEC)

/* Everything here that can fail says so to the user, and returns an exit code: EXIT_DONE or why. */

/* Connect to the daemon. */
int context_connect(struct context *context, struct client *ret);
/* Call a method (without its interface) on a connection of its own and wait for the one reply, of
 * the next daemon if need be. parameters is consumed always; NULL: out of memory. service: whom an
 * error is about, or NULL. *ret (may be NULL): the reply's parameters, the caller's. */
int context_call_take(struct context *context, const char *method, json_t *parameters,
	const char *service, json_t **ret);
/* Say that a call or connection failed with -errno r while what was going on. */
int context_lost(struct context *context, const char *what, int r);
int context_out_of_memory(struct context *context);

/* Did the daemon go away, of what client_take() and others return, and is the next one to be waited
 * for? */
bool context_is_gone(int r);
/* Nobody came back in time. Says so; the exit code. */
int context_not_back(struct context *context, const char *what);
/* Give a change a name by which it can be asked for again. 0 or -ENOMEM; -errno. */
int context_name_request(json_t *parameters);
/* From now on it is asked for again. */
int context_ask_again(json_t *parameters);

/* Block SIGINT and SIGTERM and have them readable instead: a descriptor, or -errno. */
int context_signals(void);
/* Take one such signal: its number, or 0 when there is none. */
int context_take_signal(int fd);

/* A member of a JSON object that may lack it or be no object: the value, or what to take instead.
 */
const char *field_text(const json_t *object, const char *key); /* or NULL */
const char *field_text_or(const json_t *object, const char *key, const char *otherwise);
long long field_int(const json_t *object, const char *key, long long otherwise);
uint64_t field_usec(const json_t *object, const char *key); /* or 0 */
double field_number(const json_t *object, const char *key); /* or 0 */
bool field_true(const json_t *object, const char *key);
bool field_null(const json_t *object, const char *key); /* absent or null */

/* The verbs, by file. Each returns an exit code. */
int verb_status(struct context *context);
int verb_listeners(struct context *context);
int verb_history(struct context *context);
int verb_diff(struct context *context);
int verb_reexec(struct context *context);
int verb_reload(struct context *context);
int verb_upgrade(struct context *context);
int verb_restart(struct context *context);
int verb_rollback(struct context *context);
int verb_start(struct context *context);
int verb_stop(struct context *context);
int verb_adopt(struct context *context);
int verb_exec(struct context *context);
int verb_scale(struct context *context);
int verb_promote(struct context *context);
int verb_pause(struct context *context);
int verb_abort(struct context *context);
int verb_preview(struct context *context);
int verb_events(struct context *context);
int verb_wait(struct context *context);
int verb_check(struct context *context);
int verb_presets(struct context *context);
int verb_help(struct context *context);
int verb_version(struct context *context);

/* SPDX-License-Identifier: Apache-2.0 */
/* Control calls that wait: for a rollout, a stop, a scaling. Followers hang on the service they
 * wait for; one call may have several (Reload). A client that goes away takes its followers with
 * it, and nothing else.
 *
 *     struct waiter *w = waiter_new(m, call, NULL);
 *     if (w)
 *             waiter_follow_generation(w, s, 8, false);        any number of times, for any
 * services waiter_end(w);                                           answers now, or when the last
 * has come to its end
 *
 * Without "more" nothing is waited for: the answer is that it was accepted, or the failure if there
 * is one already. */
#pragma once

#include "daemon/manager.h"

struct waiter;

/* changes: what Reload answers beside the progress, NULL for other methods; taken in any case.
 * NULL: out of memory; the call was answered. */
struct waiter *waiter_new(struct manager *m, struct control_call *call, json_t *changes_take);
/* Nothing more is added. w may be NULL. */
void waiter_end(struct waiter *w);

/* Until the rollout to that generation has ended; also if it has already. wait_drain: until the old
 * one is gone. */
void waiter_follow_generation(
	struct waiter *w, struct manager_service *s, unsigned generation, bool wait_drain);
/* Until the rollout to that generation is aborted. */
void waiter_follow_abort(struct waiter *w, struct manager_service *s, unsigned generation);
/* The upgrade that has just been queued. Whoever waited for an earlier one is told that it was
 * replaced. */
void waiter_follow_queued(struct waiter *w, struct manager_service *s, bool wait_drain);
/* The start that comes when the present stop is over. */
void waiter_follow_start_again(struct waiter *w, struct manager_service *s);
/* What was asked for under a name, whatever became of it meanwhile. */
void waiter_follow_asked(
	struct waiter *w, struct manager_service *s, const struct asked *a, bool wait_drain);
void waiter_follow_stop(struct waiter *w, struct manager_service *s);
void waiter_follow_scale(struct waiter *w, struct manager_service *s, unsigned workers);
/* Something that is done already, in words. */
void waiter_done(
	struct waiter *w, struct manager_service *s, unsigned generation, const char *message);
/* The first error is what the call ends with. error as in control_call_error(). */
void waiter_fail(struct waiter *w, const char *error, json_t *parameters_take);

/* What report.c tells. worker: NO_WORKER where it is about none. */
void followers_progress(
	struct manager_service *s, unsigned generation, unsigned worker, const char *message);
/* The numbers of the rollout have changed, and nothing else: a progress without words. */
void followers_traffic(struct manager_service *s);
void followers_rollout_started(struct manager_service *s, unsigned generation);
void followers_rollout_ended(
	struct manager_service *s, unsigned generation, enum reason reason, const char *message);

/* follow_exec.c: over an exec of the daemon. What the call waits for, the caller's; NULL: it is
 * none of these calls. */
json_t *waiter_save(const struct manager *m, const struct control_call *call);
/* Go on waiting. The services are there. */
void waiter_load(struct manager *m, struct control_call *call, const json_t *saved);

/* SPDX-License-Identifier: Apache-2.0 */
/* Our end of a worker's channel (handoff: channel; wire/channel.h). It lives as long as the process
 * and outlives the daemon as the notify socket does.
 *
 * Nothing is queued for a worker: what it is to be told follows from what it has and what it should
 * have (listeners, what is stored for its place), and is sent when its socket has room. So one that
 * does not read costs nothing, and what was under way when a daemon died is told by the next one.
 */
#pragma once

#include "daemon/worker_handoff.h"

/* Make it, if the configuration asks for one, and put the worker's end and what tells it into h. 0
 * or -errno. */
int worker_channel_open(
	struct worker_process *p, const struct manager_generation *g, struct worker_handoff *h);
/* Watch our end, if there is one. 0 or -errno. */
int worker_channel_watch(struct worker_process *p);
/* An earlier daemon's, by its number in the store. */
void worker_channel_restore(struct worker_process *p, unsigned number);
/* What a worker that has ended had said before. */
void worker_channel_catch_up(struct worker_process *p);
/* Close it; unless the next daemon has it. */
void worker_channel_done(struct worker_process *p);
/* Tell what is to be told, as far as there is room. A worker without a channel, or that does not
 * read it, is fine. */
void worker_channel_sync(struct worker_process *p);
/* Tell it to drain. False: it was not told, and needs a signal. */
bool worker_channel_drain(struct worker_process *p, uint64_t deadline_usec);
/* Would it be told so? */
bool worker_channel_takes_drain(const struct worker_process *p);
/* Does it take listeners while it runs? */
bool worker_channel_takes_listeners(const struct worker_process *p);

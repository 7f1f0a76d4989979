/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners that come and go while workers run (handoff: channel, plan action "listen"). One that
 * is added gets sockets in the lane of the generation that serves, which waits in its queue until
 * the workers have taken it from their channels. One that is taken away:
 *
 *     leaving    new connections are not begun any more (whoever tries waits), and workers are
 *                told; those that are under way settle, as when a generation loses its share
 *     left       the queues are empty: workers are told to close it
 *     closed     they have, or had time to: our sockets are shut down and closed
 *
 * So each connection that was established is accepted. Who tried meanwhile is refused in the end,
 * because nobody listens there any more. */
#pragma once

#include "daemon/manager.h"

/* Do all workers of the generation that serves take listeners, and is nothing else under way? */
bool listener_live_is_possible(const struct manager_service *s);
/* Do it, with a configuration of which plan_can_listen() is true and whose new listeners are bound.
 * 0 or -errno with a message, nothing being changed. */
int listener_live_change(
	struct manager_service *s, const struct service_config *config, struct error *ret_error);
/* Those that leave or have left, as a mask. */
uint64_t listener_live_leaving(const struct manager_service *s);
/* A daemon has come back: what leaves goes on leaving. */
void listener_live_resume(struct manager_service *s);

/* SPDX-License-Identifier: Apache-2.0 */
/* How many live connections a worker or a generation has, and which part of the new ones each
 * generation gets. Nothing tells us; it takes a look at what all processes of the workers hold and
 * at the kernel's list of connections: a millisecond on a small machine, a quarter of a second with
 * 50,000 connections. So one look serves all who ask meanwhile, and it is taken in pieces while
 * nothing else is to be done, in any case every 20 ms. Nobody asks: nothing is looked at. */
#pragma once

#include "daemon/manager.h"

/* Of the manager, for all its services. */
struct connection_counter;

int connections_counter_new(struct manager *m, struct connection_counter **ret);
struct connection_counter *connections_counter_free(struct connection_counter *c);
/* The service is being freed. */
void connections_forget(struct manager_service *s);

/* Count the connections of one worker from now on (not before), then EVENT_CONNECTIONS. */
void connections_ask(struct manager_service *s, unsigned generation, unsigned worker);
/* Count those of all its workers, unless that is dear and was done so short a time ago that doing
 * it again would cost more than an eighth of the time. */
void connections_want(struct manager_service *s);
/* Has somebody wanted a count that is not there yet? When it is, control_list_counted() is called.
 */
bool connections_is_pending(const struct manager_service *s);
/* Do for about that long what is to be done. */
void connections_run(struct manager *m, uint64_t usec);

/* As last counted, if that was within the last ten seconds; -1: not known. */
int connections_of_worker(const struct manager_service *s, unsigned generation, unsigned worker);
int connections_of_generation(const struct manager_service *s, unsigned generation);

/* Shares, or the rollout, may have changed: after every event. */
void connections_shares_changed(struct manager_service *s);
/* Of the connections that were seen for the first time since the shares last changed: how many this
 * generation has, and how many there are. False: shares are not split. */
bool connections_measured(
	const struct manager_service *s, unsigned generation, unsigned *ret_n, unsigned *ret_of);

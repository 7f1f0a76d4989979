/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files that resolve a configuration; others use config.h. Each function adds what it
 * finds wrong to problems and returns 0 or -ENOMEM. */
#pragma once

#include "core/config.h"

/* The preferred place if it was written down, else the fallback. */
struct config_place config_place_or(struct config_place preferred, struct config_place fallback);

/* Names for the listeners that have none, and what one service's listeners may be. */
int config_resolve_listeners(struct service_config *s, struct config_problems *problems);
/* How workers are told their sockets: references, what each way needs of the listeners, variables
 * that are ours, the drain signal that follows from it. */
int config_resolve_handoff(struct service_config *s, struct config_problems *problems);
/* How it is upgraded: defaults that follow from its workers, and what needs which listeners. */
int config_resolve_upgrade(struct service_config *s, struct config_problems *problems);
/* Addresses that several listeners, of any service, would want. */
int config_check_overlaps(const struct config *c, struct config_problems *problems);
/* How many listeners have sockets of their own for each generation, as far as is known now. */
size_t config_count_lanes(const struct service_config *s);
/* How many of these are TCP, so that a connection of our own shows that somebody accepts there. */
size_t config_count_probed(const struct service_config *s);

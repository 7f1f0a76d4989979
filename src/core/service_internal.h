/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a service share; nobody else's. */
#pragma once

#include "core/service.h"

/* service_requests.c: what people ask for. As service_step(). */
int service_request(struct service *s, const struct service_event *event, uint64_t now_usec,
	struct effects *ret);
bool service_event_is_request(enum service_event_kind kind);

/* service.c */
void service_report(struct effects *ret, enum report what, unsigned generation, unsigned value);
/* The only generation there is, an adopted one, goes on by itself: the service ends without it. */
void service_let_go(struct service *s, struct effects *ret);
/* How long what its workers left behind is waited for. */
uint64_t service_empty_until(const struct generation *g, uint64_t now_usec);
/* One warm generation is enough, and none when there is nothing to go back from. */
void service_retire_warm(struct service *s, uint64_t now_usec, struct effects *ret);

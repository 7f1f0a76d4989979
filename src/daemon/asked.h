/* SPDX-License-Identifier: Apache-2.0 */
/* Changes that were asked for under a name of the caller's choice (parameter "request"). Whoever
 * loses the answer together with a daemon asks the next one again under the same name, and is told
 * what becomes of it: it is not done twice. The name is written down with what was done
 * (state_save.h), in one piece: it is known exactly when that is. */
#pragma once

#include <jansson.h>

#include "core/service.h"

struct manager;
struct manager_service;
struct control_call;

/* So many of a service are known, the last ones; a name has so many bytes at most. */
enum { ASKED_MAX = 8, ASKED_NAME_MAX = 64 };

struct asked {
	char name[ASKED_NAME_MAX + 1]; /* "": none */
	enum service_event_kind kind;
	unsigned number; /* the generation that came of it, or was to be left; workers of a scale */
};

/* The core has just accepted this, or it is queued until it can: if the call that is being handled
 * has a name (manager.request), remember it. */
void asked_note(struct manager_service *s, const struct service_event *e, bool queued);
/* NULL: it was not asked for. */
const struct asked *asked_find(const struct manager_service *s, const char *name);

/* With the service's state. Load: 0 or -EBADMSG. */
json_t *asked_save(const struct manager_service *s);
int asked_load(struct manager_service *s, const json_t *list);

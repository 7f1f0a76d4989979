/* SPDX-License-Identifier: Apache-2.0 */
/* What systemd is told of us, sd_notify(3): that we are ready, reload or stop; a line about what
 * runs; that a rollout or a drain takes its time; and that we live. Without $NOTIFY_SOCKET there is
 * no struct unit, and every function takes NULL for it. */
#pragma once

#include "base/error.h"

struct manager;
struct manager_service;
struct unit;

/* Also begins to feed the watchdog that the unit may have. *ret may be NULL. 0 or -errno. */
int unit_new(struct manager *m, struct unit **ret);
struct unit *unit_free(struct unit *u);
/* The loop is going to run. READY=1 is said when no service that was started is still on its way:
 * each serves, or has failed. now: at once. */
void unit_started(struct unit *u, bool now);
/* Something happened: the status line may be another one, and what was waited for may be over. */
void unit_changed(struct unit *u);
/* The same, before a client hears of it: `systemctl reload` is over when tenurectl is, and must
 * find the unit ready. */
void unit_changed_now(struct unit *u);
/* A reload begins: it is over with unit_reloaded(), or when what it has started is. error: why it
 * failed, for the status line; NULL: it did not. */
void unit_reloading(struct unit *u);
void unit_reloaded(struct unit *u, const char *error);
void unit_stopping(struct unit *u);

/* unit_status.c: the status line. The caller frees; NULL: out of memory. */
char *unit_status(const struct manager *m);

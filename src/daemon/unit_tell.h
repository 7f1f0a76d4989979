/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to $NOTIFY_SOCKET, sd_notify(3), without ever waiting for whoever reads them:
 * sd_notify() itself waits for ever, and then a service manager that is stopped, frozen or
 * overwhelmed would stop all of the daemon. What it has to know is owed to it, and said when it
 * reads again. */
#pragma once

#include <systemd/sd-event.h>

#include "base/util.h"

struct unit_tell;

/* Also begins to say WATCHDOG=1 as often as $WATCHDOG_USEC asks for. *ret: NULL when nobody wants
 * to know anything. 0 or -errno. */
int unit_tell_new(sd_event *event, struct unit_tell **ret);
struct unit_tell *unit_tell_free(struct unit_tell *t);
/* Lines of "KEY=value". owed: if there is no room now it is said later, in order. False: there was
 * no room, and it is not owed. */
bool unit_tell(struct unit_tell *t, const char *text, bool owed);

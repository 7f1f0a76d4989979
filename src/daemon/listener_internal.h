/* SPDX-License-Identifier: Apache-2.0 */
/* What listener.c, listener_options.c and listener_restore.c share; nobody else's. */
#pragma once

#include "daemon/listener.h"

/* By its configuration; held_reason is set where it is held. */
void listener_choose_kind(struct listener *l, bool may_group);

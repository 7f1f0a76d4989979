/* SPDX-License-Identifier: Apache-2.0 */
/* upgrade.verify: a page of the new generation, over a connection that is steered to it, or a
 * command that may look at it through upgrade.preview_from. One run at a time for each service; its
 * end comes back as EVENT_VERIFIED or EVENT_VERIFY_FAILED. */
#pragma once

#include "daemon/manager.h"

/* Begin the run with that number. What cannot even be begun is a failed run, told from the event
 * loop, never from inside. */
void verify_start(struct manager_service *s, unsigned generation, unsigned run);
/* End the run that is under way, if there is one: its command is killed, its result is not wanted.
 */
void verify_stop(struct manager_service *s);
/* Is a run of that generation under way? */
bool verify_is_of(const struct manager_service *s, unsigned generation);
/* The process of a running command, or 0: it is a child that is no worker. */
pid_t verify_command(const struct manager_service *s);
/* If that is its command's pid: it may have ended without having been seen to. */
void verify_look_again(struct manager_service *s, pid_t pid);

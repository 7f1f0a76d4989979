/* SPDX-License-Identifier: Apache-2.0 */
/* A service and a clock, told about as lines. A story is a text: lines that begin with ">" are what
 * happens, the line after each is what the service then asks for, if anything. It is
 * played, and what came of
 * it is compared with the text.
 *
 *   > upgrade [blue-green|rolling|canary|recreate] [reject|queue|supersede] [always|on-failure|
 *             never] [held|shared|per-worker] [workers=N] [pause=SHARE] [keep=SECONDS] [max=N]
 *             [listeners=BITS] [soak=SECONDS] [idle=SECONDS] [limit=N] [verify] [contained]
 * [interval=SECONDS] [age=SECONDS] [backoff=MILLISECONDS] > serving ...          the same for the
 * first generation, up to where it serves, untold > start, stop, kill, promote, full, pause, abort,
 * rollback G, scale N > ready G.W, exit G.W [clean], failed G.W [useless], watchdog G.W, error G.W,
 * extend G.W (W may be "*": each that has a process), lane-failed G, empty G, recycle G.W (too big)
 *   > verified G RUN, unverified G RUN
 *   > look: what status would say of service, health, verify and soak
 *   > time SECONDS: that long passes, deadline by deadline
 *   > busy queues, busy connections, busy nothing: what questions are answered with from now on
 *
 * A service has two workers on a shared queue with lanes, blue-green, and everything else as a
 * configuration that says nothing about it. What an upgrade names stays so for the next one, but
 * for pause. Of the reports only those about rollouts, generations and services are told, and who
 * is recycled. "steer" says which generation then has which share, when that is news. Watching for
 * readiness goes without saying after a start. The same word again is "..." */
#pragma once

#include "core/service.h"

struct story_text {
	const char *name, *text;
};

/* Play it and compare; a check test of its own, or all in a loop. */
void story_check(const struct story_text *story);

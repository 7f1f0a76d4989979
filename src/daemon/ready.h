/* SPDX-License-Identifier: Apache-2.0 */
/* Finding out when a worker is ready: what it says (notify), what it does (a probe connection
 * steered to its lane is accepted, a page is served), what a command finds, or time. */
#pragma once

#include "daemon/manager.h"
#include "daemon/worker_process.h"

struct ready_watch;

/* Watch p until it is ready; then manager_service_ready(p) is called once, from the event loop.
 * Probing is spread so that many workers at once do not harm. 0 or -errno. */
int ready_watch_new(
	struct worker_process *p, const struct manager_generation *g, struct ready_watch **ret);
/* End it: closes probes, drops their rules, kills a running check command. Returns NULL. */
struct ready_watch *ready_watch_free(struct ready_watch *w);
/* The process of a running check command, or 0: it is a child that is no worker. */
pid_t ready_watch_command(const struct ready_watch *w);
/* READY=1 came. */
void ready_watch_notified(struct ready_watch *w);
/* Why it is not ready yet, for the message when it never becomes: "it accepted no connection; web
 * listens on its own 127.0.0.1:8080; use {fd:http} ...". The caller frees. */
char *ready_watch_explain(const struct ready_watch *w);

/* SPDX-License-Identifier: Apache-2.0 */
/* What a new configuration asks of a running one: for each service what happens to it and why; for
 * each listener whether it is kept, bound or dropped. Pure comparison: `diff` shows it, `reload`
 * does it. */
#pragma once

#include "core/config.h"

enum plan_action {
	PLAN_NONE,    /* nothing differs */
	PLAN_UPDATE,  /* only values that take effect in place (timeouts, restart policy, strategy
			 ...) */
	PLAN_LISTEN,  /* workers that run get more listeners, or lose some (others may be updated
			 too) */
	PLAN_SCALE,   /* only the number of workers differs (others may be updated too) */
	PLAN_UPGRADE, /* what the workers are made of differs: a new generation */
	PLAN_ADD,     /* a new service: bind and, with autostart, start */
	PLAN_REMOVE,  /* stop it and close what it listened on */
};
const char *plan_action_to_string(
	enum plan_action a); /* "none", "update", "listen", "scale", "upgrade", "add", "remove" */

/* What happens to the sockets. They are found by plan_listener_same(), not by name: one that is
 * only called something else is kept, one whose address changes is dropped and bound under the same
 * name. */
enum plan_listener_action {
	PLAN_LISTENER_KEEP,
	PLAN_LISTENER_BIND,
	PLAN_LISTENER_DROP,
	PLAN_LISTENER_CHANGE /* kept, with other options */
};

struct plan_listener {
	enum plan_listener_action action;
	const char *name; /* borrowed from one of the configurations */
};

struct plan_entry {
	char *service; /* owned: what is removed may be gone before the plan */
	enum plan_action action;
	const struct service_config *old_config,
		*new_config; /* borrowed; NULL where there is none */
	char **reasons; /* "command", "environment", "executable on disk", "listener admin added"
			   ... */
	struct plan_listener *listeners;
	size_t n_listeners; /* the new configuration's, in its order, then those that are dropped */
};

/* What the shell found on disk about a service that runs: part of the comparison, found by no pure
 * function. A service without a fact runs as its old configuration says, and nothing is pending. */
struct plan_fact {
	const char *service;
	bool running;	      /* false: stopped, so that nothing is upgraded */
	bool live;	      /* its workers take listeners while they run */
	unsigned scaled;      /* workers by `scale`, 0: not scaled */
	char *const *pending; /* reasons: "executable", "directory", "fingerprint", "environment
				 file"; NULL-terminated */
};

struct plan {
	struct plan_entry
		*entries; /* removals first, then changes and additions in the new file's order */
	size_t n;
};

/* upgrade_all: every running service is upgraded. 0 or -ENOMEM. */
int plan_make(const struct config *old_config, const struct config *new_config,
	const struct plan_fact *facts, size_t n_facts, bool upgrade_all, struct plan *ret);
void plan_done(struct plan *p);
/* Would a worker made from b differ from one made from a? Adds the reasons (strv). 0, 1 or -ENOMEM.
 */
int plan_snapshot_differs(
	const struct service_config *a, const struct service_config *b, char ***reasons);
/* Can the listeners of a become those of b while workers run: some are added, others taken away,
 * and those that stay are as they were. For services with `handoff: channel`, whose workers know
 * listeners by their names. */
bool plan_can_listen(const struct service_config *a, const struct service_config *b);
/* Same socket: address, kind (and inherited name). Backlog, mode and such may differ. */
bool plan_listener_same(const struct listener_config *a, const struct listener_config *b);

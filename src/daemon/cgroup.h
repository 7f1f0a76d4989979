/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups (version 2) of generations and workers, where whoever started us has left us a
 * part of the tree: systemd by Delegate=yes, or a container whose first process we are.
 *
 *     the delegated one       no processes in it, so that it can have controllers
 *     |- .daemon              we, and our keeper
 *     |- .control             systemd's: ExecReload=, ExecStopPost=
 *     `- web.8                a generation: its limits and figures
 *        |- 0                 a worker and all that comes of it
 *        `- 1
 *
 * So a worker is killed with everything that it has begun, however often that has forked and
 * whatever session it is in; and nobody is left of a generation when the kernel says so. Where
 * nothing is delegated, process groups and a walk along the parents have to do (worker_process.c,
 * strays.c). A cgroup that cannot be made, or has gone, is no error: what there is is used. */
#pragma once

#include "daemon/manager.h"
#include "sys/cgroup.h"

struct spawn_request;
struct spawn_result;

/* Where the daemon is when it has moved itself. */
#define CGROUP_DAEMON ".daemon"
/* Where systemd puts commands of a unit with Delegate=. */
#define CGROUP_CONTROL ".control"

/* manager->cgroups, if there is something for us, and one line in the log if there could be. */
void cgroups_new(struct manager *m);
/* The daemon's end. */
struct cgroups *cgroups_free(struct cgroups *c);
/* Is the process in our part of the tree? 1, 0; -ENOENT: that cannot be known. c NULL is fine. */
int cgroups_has(const struct cgroups *c, pid_t pid);
/* Remove what earlier generations have left and nobody knows; m->services are there. kill: also
 * end who is in it. */
void cgroups_sweep(struct manager *m, bool kill);
/* Warn of each service whose resources this machine cannot limit. */
void cgroups_check_config(const struct config *c, struct config_problems *problems);
/* The directory of the unit that this process, its daemon or a command of it, is in. The caller
 * frees; NULL: none. */
char *cgroups_unit(void);
/* `tenured reap`: systemd starts the next daemon in the unit's own cgroup, which cannot be as long
 * as that has controllers. The next daemon gives them back. */
void cgroups_make_room(const char *unit);

/* --- a generation's ------------------------------------------------------- */

/* Make the generation's. */
void generation_cgroup_make(struct manager_service *s, struct manager_generation *g);
/* That of this name, which an earlier daemon has made. name NULL: it made none. */
void generation_cgroup_restore(
	struct manager_service *s, struct manager_generation *g, const char *name);
/* Its name; NULL: there is none. Borrowed. */
const char *generation_cgroup_name(const struct manager_generation *g);
/* Remove it too, unless all is left to the next daemon. */
struct generation_cgroup *generation_cgroup_free(struct generation_cgroup *c);

/* spawn_process() in the worker's cgroup. */
int generation_cgroup_spawn(const struct manager_generation *g, unsigned worker,
	struct spawn_request *request, struct spawn_result *ret);
/* SIGKILL to everything that has come of that worker's processes. */
void generation_cgroup_kill(const struct manager_generation *g, unsigned worker);
/* The same of the whole generation. g NULL: of none. */
void generation_cgroup_kill_all(const struct manager_generation *g);
/* Its workers are gone: give those that are ending a moment, then end the rest; EVENT_EMPTY when
 * nobody is left. */
void generation_cgroup_end(struct manager_service *s, unsigned generation);
/* Is somebody in it, as far as it can be seen? */
bool generation_cgroup_is_populated(const struct manager_generation *g);
/* Has the kernel killed one of its processes for want of memory, whom this has not yet told? */
bool generation_cgroup_was_short(struct manager_generation *g);
/* ret_path: its directory; the caller frees. False: there is none. */
bool generation_cgroup_figures(
	const struct manager_generation *g, struct cgroup_figures *ret, char **ret_path);

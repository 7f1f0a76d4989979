/* SPDX-License-Identifier: Apache-2.0 */
/* The methods of io.tenured.Supervisor: a const record each. Reads are in control.c, changes in
 * control_change.c, values as JSON in control_json.c. */
#pragma once

#include "daemon/connections.h"
#include "daemon/manager.h"

/* s: the service that is named; NULL: none is, where that is allowed. parameters: as
 * control_dispatch_t has them. */
typedef int (*control_handler_t)(struct manager *m, struct manager_service *s,
	struct control_call *call, json_t *parameters);

struct control_method {
	const char *name;
	enum control_role role;
	control_handler_t handler;
};

/* By name, or all of them by number; control_changes is the part control.c does not have. */
const struct control_method *control_method_find(const char *name);
const struct control_method *control_methods(size_t i); /* NULL: there are no more */
extern const struct control_method control_changes[];
extern const size_t n_control_changes;

int control_no_such_service(struct manager *m, struct control_call *call, const char *name);
int control_invalid_configuration(struct manager *m, struct control_call *call,
	const struct config_problems *problems, const struct error *error);

/* control_json.c: owned by the caller; NULL: out of memory */
json_t *control_json_text(const char *s); /* NULL gives null; what is not UTF-8 is made printable */
json_t *control_json_changes(const struct plan *plan);
json_t *control_json_history(const struct manager_service *s);
/* One line of a rollout's progress. generation 0: none. */
json_t *control_json_progress(
	struct manager_service *s, unsigned generation, const char *message, bool done);
/* The parameters of RolledBack for that generation's failure. */
json_t *control_json_rolled_back(
	const struct manager_service *s, unsigned generation, enum reason reason);
/* count: connections too, which takes a look at every connection of the machine. */
json_t *control_json_service_counted(struct manager_service *s, bool count);

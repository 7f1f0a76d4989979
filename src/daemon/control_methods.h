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

/* control_change.c: this was asked for before, by that method: answer with what becomes of it. */
int control_answer_asked(struct manager *m, struct manager_service *s, struct control_call *call,
	const struct control_method *method, const struct asked *asked, json_t *parameters);

/* Tell this call of events from now on, of that service or (NULL) all. 0 or -ENOMEM. */
int control_subscribe(struct manager *m, struct control_call *call, const char *service);
int control_no_such_service(struct manager *m, struct control_call *call, const char *name);
int control_invalid_configuration(struct manager *m, struct control_call *call,
	const struct config_problems *problems, const struct error *error);

/* An array of SocketOption: those that were asked for or are not as by default. Owned by the
 * caller.
 */
json_t *control_json_options(const struct listener *l);

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
/* "measured" and "measuredOf" of that generation, null where they are not known. */
void control_json_add_measured(
	json_t *object, const struct manager_service *s, unsigned generation);

/* control_take.c: what a worker would have, for a command of an operator's. */
int control_take(struct manager *m, struct manager_service *s, struct control_call *call,
	json_t *parameters);

/* control_list.c: List, which waits a moment for connections to be counted. */
int control_list(struct manager *m, struct manager_service *s, struct control_call *call,
	json_t *parameters);
/* A count has ended: those that waited for it alone get their answer. */
void control_list_counted(struct manager *m);
/* The daemon ends. */
void control_list_done(struct manager *m);

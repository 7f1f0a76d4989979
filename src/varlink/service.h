/* SPDX-License-Identifier: Apache-2.0 */
/* What a Varlink service does before any method of its own runs: find the method, hold the
 * parameters against the interface, and answer org.varlink.service itself.
 * https://varlink.org/Service */
#pragma once

#include "varlink/idl.h"
#include "varlink/message.h"

#define VARLINK_SERVICE "org.varlink.service"
#define VARLINK_SUPERVISOR "io.tenured.Supervisor"

#define VARLINK_INTERFACE_NOT_FOUND VARLINK_SERVICE ".InterfaceNotFound"
#define VARLINK_METHOD_NOT_FOUND VARLINK_SERVICE ".MethodNotFound"
#define VARLINK_METHOD_NOT_IMPLEMENTED VARLINK_SERVICE ".MethodNotImplemented"
#define VARLINK_INVALID_PARAMETER VARLINK_SERVICE ".InvalidParameter"
#define VARLINK_PERMISSION_DENIED VARLINK_SERVICE ".PermissionDenied"
#define VARLINK_EXPECTED_MORE VARLINK_SERVICE ".ExpectedMore"

/* Who GetInfo says is serving. Borrowed strings of static life. */
struct varlink_identity {
	const char *vendor, *product, *version, *url;
};

struct varlink_service {
	struct varlink_identity identity;
	struct varlink_interface *service;    /* org.varlink.service */
	struct varlink_interface *supervisor; /* io.tenured.Supervisor */
};

/* Reads the two compiled-in texts. 0, -ENOMEM, or -EINVAL (a text is wrong). */
int varlink_service_init(struct varlink_service *service, const struct varlink_identity *identity,
	struct error *ret_error);
void varlink_service_done(struct varlink_service *service);

struct varlink_answer {
	const char *error;  /* static full name; NULL: success */
	json_t *parameters; /* owned by whoever gets it; NULL: {} */
};

/* Returns 1 and *ret_answer when the call is answered already: a method of org.varlink.service, or
 * one that does not exist, or with parameters that do not fit. Returns 0 and *ret_method, of the
 * supervisor, when it has to be run; parameters that are null were then removed from the call.
 * -ENOMEM. */
int varlink_service_handle(const struct varlink_service *service, struct varlink_call *call,
	const struct varlink_member **ret_method, struct varlink_answer *ret_answer);

/* Does what a method answers fit? error: its full name or NULL. Errors of org.varlink.service may
 * be answered to every call. ret_path: what does not fit, as varlink_type_accepts(); an error that
 * does not exist gives its name. */
bool varlink_service_accepts_reply(const struct varlink_service *service,
	const struct varlink_member *method, const char *error, const json_t *parameters,
	char ret_path[static VARLINK_PATH_MAX]);

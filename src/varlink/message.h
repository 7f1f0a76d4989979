/* SPDX-License-Identifier: Apache-2.0 */
/* One Varlink message <-> values. Strict: what the protocol does not define is refused, so that a
 * misspelt "more" is an error and not a call without it. https://varlink.org/Method-Call */
#pragma once

#include <jansson.h>

#include "base/buffer.h"
#include "base/util.h"

enum { VARLINK_DEPTH_MAX = 32 };

static inline void json_decref_p(json_t **json)
{
	json_decref(*json);
}
#define _cleanup_json_ _cleanup_(json_decref_p)

struct varlink_call {
	char *method;	    /* full: "io.tenured.Supervisor.List" */
	json_t *parameters; /* an object, never NULL once parsed */
	bool oneway;	    /* no answer wanted */
	bool more;	    /* several answers wanted */
	bool upgrade;	    /* another protocol wanted after the answer */
};
void varlink_call_done(struct varlink_call *call);
#define _cleanup_varlink_call_ _cleanup_(varlink_call_done)

struct varlink_reply {
	json_t *parameters; /* an object, never NULL once parsed */
	char *error;	    /* full name; NULL: the call succeeded */
	bool continues;	    /* more replies to the same call follow */
};
void varlink_reply_done(struct varlink_reply *reply);
#define _cleanup_varlink_reply_ _cleanup_(varlink_reply_done)

/* data: one message, not necessarily ended by NUL. 0, -EBADMSG (no JSON, or not of that form),
 * -ELOOP (nested deeper than max_depth) or -ENOMEM. */
int varlink_call_parse(const char *data, size_t len, unsigned max_depth, struct varlink_call *ret);
int varlink_reply_parse(
	const char *data, size_t len, unsigned max_depth, struct varlink_reply *ret);

/* Append the message with its NUL to what is waiting to be written. parameters: an object,
 * borrowed; NULL: {}. error: full name or NULL. 0, -EMSGSIZE (over the buffer's limit), -ENOMEM, or
 * -EINVAL (JSON that cannot be written); on failure nothing was added. */
int varlink_call_write(const struct varlink_call *call, struct buffer *to);
int varlink_reply_write(
	const json_t *parameters, bool continues, const char *error, struct buffer *to);

/* Does the text nest arrays and objects deeper than max_depth? Looked at before it is parsed: the
 * parser recurses. */
bool varlink_too_deep(const char *data, size_t len, unsigned max_depth);

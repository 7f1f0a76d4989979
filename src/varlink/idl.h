/* SPDX-License-Identifier: Apache-2.0 */
/* The text of an interface as data, and JSON held against it.
 * https://varlink.org/Interface-Definition
 *
 * The text is the contract: what is served to clients is what calls and replies are checked with,
 * so the two cannot drift apart. */
#pragma once

#include <jansson.h>

#include "base/error.h"
#include "base/util.h"

/* The compiled-in texts, generated from the .varlink files beside this header. */
extern const char varlink_service_text[];    /* org.varlink.service */
extern const char varlink_supervisor_text[]; /* io.tenured.Supervisor */

enum varlink_kind {
	VARLINK_BOOL,
	VARLINK_INT,
	VARLINK_FLOAT,
	VARLINK_STRING,
	VARLINK_OBJECT, /* any JSON object */
	VARLINK_STRUCT,
	VARLINK_ENUM,
	VARLINK_ARRAY,
	VARLINK_DICT,
	VARLINK_NAMED,
};

struct varlink_type {
	enum varlink_kind kind;
	bool nullable;			    /* may be null or left out */
	const struct varlink_type *element; /* array, dict: of what; named: what it stands for */
	const struct varlink_field *fields; /* struct; enum: the names alone */
	const char *name;		    /* named */
	unsigned line;
};

struct varlink_field {
	const struct varlink_field *next;
	const char *name;
	const struct varlink_type *type; /* NULL in an enum */
};

enum varlink_member_kind { VARLINK_TYPE, VARLINK_METHOD, VARLINK_ERROR };

struct varlink_member {
	const struct varlink_member *next;
	enum varlink_member_kind kind;
	const char *name; /* without the interface: "List" */
	const struct varlink_type
		*input; /* method: parameters; error: its parameters; type: itself */
	const struct varlink_type *output; /* method */
};

struct varlink_interface {
	const char *name;
	const char *text;		      /* as given to parse, borrowed */
	const struct varlink_member *members; /* in the order of the text */
	struct varlink_arena *arena;
};

/* text must outlive the interface. 0, -ENOMEM, or -EINVAL with "line N: ...". */
int varlink_interface_parse(
	const char *text, struct varlink_interface **ret, struct error *ret_error);
struct varlink_interface *varlink_interface_free(struct varlink_interface *interface);
static inline void varlink_interface_free_p(struct varlink_interface **interface)
{
	*interface = varlink_interface_free(*interface);
}
#define _cleanup_varlink_interface_ _cleanup_(varlink_interface_free_p)

/* NULL when there is none of that kind and name. */
const struct varlink_member *varlink_interface_find(
	const struct varlink_interface *interface, enum varlink_member_kind kind, const char *name);

enum { VARLINK_PATH_MAX = 128 };

/* Does the value fit the type? When not, ret_path is where not, e.g. "services[0].state" (cut when
 * it is too long); the value itself being wrong gives "". json NULL counts as null. */
bool varlink_type_accepts(const struct varlink_type *type, const json_t *json,
	char ret_path[static VARLINK_PATH_MAX]);

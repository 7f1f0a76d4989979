/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/message_id.h"

#include "base/util.h"

static const struct {
	const char *event, *id;
} ids[] = {
#define X(event, id) {event, id},
	MESSAGE_ID_LIST(X)
#undef X
};

const char *message_id(const char *event)
{
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		if (streq(ids[i].event, event))
			return ids[i].id;
	return NULL;
}

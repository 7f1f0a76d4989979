/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a stream <-> Varlink messages: each is ended by one NUL.
 * https://varlink.org/Method-Call
 *
 * A reader that only reads while varlink_framing_ready() is false never holds more than one message
 * and one read, so the sender of many is slowed down by its own socket: there is no separate limit
 * for their number. */
#pragma once

#include "base/buffer.h"

enum { VARLINK_MESSAGE_MAX = 1024 * 1024 };

struct varlink_framing {
	struct buffer bytes;
	size_t n_ready;	    /* complete messages in bytes */
	size_t unfinished;  /* bytes after the last NUL */
	size_t max_message; /* bytes of one message without its NUL */
};

#define VARLINK_FRAMING_INIT(max) ((struct varlink_framing){.max_message = (max)})

void varlink_framing_done(struct varlink_framing *f);
/* What was read from the stream. 0, -EMSGSIZE (a message over the limit: the stream is of no use
 * any more) or -ENOMEM; on failure nothing was added. */
int varlink_framing_append(struct varlink_framing *f, const void *data, size_t len);
static inline bool varlink_framing_ready(const struct varlink_framing *f)
{
	return f->n_ready > 0;
}
/* The oldest complete message without its NUL, which follows it; false when there is none. Borrowed
 * until the next call of any function here. */
bool varlink_framing_peek(
	const struct varlink_framing *f, const char **ret_message, size_t *ret_len);
/* Forget the message that peek gave. */
void varlink_framing_pop(struct varlink_framing *f);

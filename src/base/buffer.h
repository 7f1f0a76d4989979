/* SPDX-License-Identifier: Apache-2.0 */
/* A growing run of bytes with an upper limit, consumed from the front: what a stream socket reads
 * into and writes from. */
#pragma once

#include "base/util.h"

struct buffer {
	uint8_t *data;
	size_t start; /* first byte that is still wanted */
	size_t len;   /* bytes that are wanted, from start */
	size_t capacity;
	size_t limit; /* len never exceeds it; 0: no limit */
};

#define BUFFER_INIT(max) ((struct buffer){.limit = (max)})

void buffer_done(struct buffer *b);
#define _cleanup_buffer_ _cleanup_(buffer_done)
/* Append a copy. 0, -EMSGSIZE (over the limit; nothing was added) or -ENOMEM. */
int buffer_append(struct buffer *b, const void *data, size_t len);
int buffer_printf(struct buffer *b, const char *format, ...) _printf_(2, 3);
/* Room for at least n more bytes; *ret_tail is where to write. Then buffer_commit() what was
 * written. */
int buffer_reserve(struct buffer *b, size_t n, uint8_t **ret_tail);
void buffer_commit(struct buffer *b, size_t n);
/* Forget n bytes from the front; memory is given back when it empties. */
void buffer_consume(struct buffer *b, size_t n);
static inline const uint8_t *buffer_data(const struct buffer *b)
{
	return b->data ? b->data + b->start : NULL;
}

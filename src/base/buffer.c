/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buffer.h"

#include <assert.h>
#include <stdarg.h>

#define BUFFER_FIRST_CAPACITY ((size_t)256)

void buffer_done(struct buffer *b)
{
	if (!b)
		return;
	free(b->data);
	*b = BUFFER_INIT(b->limit);
}

/* Room for n counted bytes and slack uncounted ones behind what is there. */
static int make_room(struct buffer *b, size_t n, size_t slack)
{
	size_t wanted, capacity;
	uint8_t *data;

	if (n > SIZE_MAX - b->len)
		return -ENOMEM;
	if (b->limit > 0 && b->len + n > b->limit)
		return -EMSGSIZE;
	if (slack > SIZE_MAX - b->len - n)
		return -ENOMEM;
	wanted = b->len + n + slack;
	if (wanted <= b->capacity - b->start)
		return 0;

	/* Moving costs len; only when at least as much was consumed, so that the work stays linear
	 * in the bytes that pass through. */
	if (wanted <= b->capacity && b->start >= b->len) {
		memmove(b->data, b->data + b->start, b->len);
		b->start = 0;
		return 0;
	}

	capacity = MAX(b->capacity, BUFFER_FIRST_CAPACITY);
	while (capacity < wanted) {
		if (capacity > SIZE_MAX / 2)
			return -ENOMEM;
		capacity *= 2;
	}
	data = malloc(capacity);
	if (!data)
		return -ENOMEM;
	if (b->len > 0)
		memcpy(data, b->data + b->start, b->len);
	free(b->data);
	b->data = data;
	b->start = 0;
	b->capacity = capacity;
	return 0;
}

int buffer_reserve(struct buffer *b, size_t n, uint8_t **ret_tail)
{
	int r = make_room(b, n, 0);

	if (r < 0)
		return r;
	*ret_tail = b->data ? b->data + b->start + b->len : NULL;
	return 0;
}

void buffer_commit(struct buffer *b, size_t n)
{
	assert(n <= b->capacity - b->start - b->len);
	b->len += n;
}

int buffer_append(struct buffer *b, const void *data, size_t len)
{
	uint8_t *tail;
	int r;

	if (len == 0)
		return 0;
	r = buffer_reserve(b, len, &tail);
	if (r < 0)
		return r;
	memcpy(tail, data, len);
	buffer_commit(b, len);
	return 0;
}

int buffer_printf(struct buffer *b, const char *format, ...)
{
	va_list ap;
	int n, r;

	va_start(ap, format);
	n = vsnprintf(NULL, 0, format, ap);
	va_end(ap);
	if (n < 0)
		return -ENOMEM;
	if (n == 0)
		return 0;

	/* vsnprintf() ends what it writes with a NUL, which is not part of the run. */
	r = make_room(b, (size_t)n, 1);
	if (r < 0)
		return r;
	va_start(ap, format);
	(void)vsnprintf((char *)b->data + b->start + b->len, (size_t)n + 1, format, ap);
	va_end(ap);
	buffer_commit(b, (size_t)n);
	return 0;
}

void buffer_consume(struct buffer *b, size_t n)
{
	assert(n <= b->len);
	if (n == b->len) {
		buffer_done(b);
		return;
	}
	b->start += n;
	b->len -= n;
}

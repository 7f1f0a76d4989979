/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>

#include "varlink/framing.h"

void varlink_framing_done(struct varlink_framing *f)
{
	buffer_done(&f->bytes);
	f->n_ready = 0;
	f->unfinished = 0;
}

int varlink_framing_append(struct varlink_framing *f, const void *data, size_t len)
{
	const char *p = data, *end = p + len;
	size_t unfinished = f->unfinished, n_ready = 0;

	/* Only what is new is looked at, so a message that comes byte by byte costs no more than
	 * one at once. */
	while (p < end) {
		const char *nul = memchr(p, 0, (size_t)(end - p));

		unfinished += (size_t)((nul ? nul : end) - p);
		if (unfinished > f->max_message)
			return -EMSGSIZE;
		if (!nul)
			break;
		n_ready++;
		unfinished = 0;
		p = nul + 1;
	}

	int r = buffer_append(&f->bytes, data, len);
	if (r < 0)
		return r;
	f->n_ready += n_ready;
	f->unfinished = unfinished;
	return 0;
}

bool varlink_framing_peek(
	const struct varlink_framing *f, const char **ret_message, size_t *ret_len)
{
	if (f->n_ready == 0)
		return false;

	const char *message = (const char *)buffer_data(&f->bytes);
	const char *nul = memchr(message, 0, f->bytes.len);

	assert(nul);
	*ret_message = message;
	*ret_len = (size_t)(nul - message);
	return true;
}

void varlink_framing_pop(struct varlink_framing *f)
{
	const char *message;
	size_t len;

	if (!varlink_framing_peek(f, &message, &len))
		return;
	buffer_consume(&f->bytes, len + 1);
	f->n_ready--;
}

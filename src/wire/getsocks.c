/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/getsocks.h"

int getsocks_record(struct buffer *b, const char *interface)
{
	static const uint8_t nothing[4];
	uint8_t len = (uint8_t)MIN(strlen(interface), (size_t)UINT8_MAX);
	int r = buffer_append(b, nothing, 1);

	if (r >= 0)
		r = buffer_append(b, &len, 1);
	if (r >= 0)
		r = buffer_append(b, interface, len);
	return r < 0 ? r : buffer_append(b, nothing, sizeof(nothing));
}

int zerg_answer(struct buffer *b, unsigned n)
{
	static const char word[] = "uwsgi-zerg";
	int number = (int)n, r = buffer_append(b, word, sizeof(word) - 1);

	return r < 0 ? r : buffer_append(b, &number, sizeof(number));
}

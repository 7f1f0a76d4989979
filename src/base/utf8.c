/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

#define ELLIPSIS "..."
#define ESCAPE_LENGTH ((size_t)4) /* "\xNN" */
#define PIECE_MAX 16		  /* a character of four bytes, escaped */

size_t utf8_char_length(const uint8_t *s, size_t len)
{
	/* The second byte's range excludes overlong forms (E0, F0), surrogates (ED) and what lies
	 * over U+10FFFF (F4). */
	uint8_t low = 0x80, high = 0xbf;
	size_t n;

	if (len == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf) {
		n = 2;
	} else if ((s[0] & 0xf0) == 0xe0) {
		n = 3;
		if (s[0] == 0xe0)
			low = 0xa0;
		else if (s[0] == 0xed)
			high = 0x9f;
	} else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		n = 4;
		if (s[0] == 0xf0)
			low = 0x90;
		else if (s[0] == 0xf4)
			high = 0x8f;
	} else {
		return 0;
	}

	if (len < n || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

bool utf8_valid(const void *s, size_t len)
{
	const uint8_t *p = s;

	while (len > 0) {
		size_t n = utf8_char_length(p, len);

		if (n == 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

/* s: n bytes, a well-formed character. Would it do more to a terminal than show a sign? */
static bool is_harmful(const uint8_t *s, size_t n)
{
	if (n == 1)
		return s[0] < 0x20 || s[0] == 0x7f;
	if (n == 2)
		return s[0] == 0xc2 && s[1] < 0xa0; /* C1: U+0080..U+009F */
	if (n != 3 || s[0] != 0xe2)
		return false;
	/* U+2028..U+202E: separators, embeddings, overrides; U+2066..U+2069: isolates */
	return (s[1] == 0x80 && s[2] >= 0xa8 && s[2] <= 0xae) ||
	       (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9);
}

/* The printable form of what stands at s; *ret_used: how many bytes of s it stands for. */
static size_t printable_piece(
	const uint8_t *s, size_t len, char ret[static PIECE_MAX], size_t *ret_used)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = utf8_char_length(s, len);

	if (n > 0 && !is_harmful(s, n)) {
		memcpy(ret, s, n);
		*ret_used = n;
		return n;
	}
	*ret_used = n = MAX(n, (size_t)1);
	for (size_t i = 0; i < n; i++) {
		ret[i * ESCAPE_LENGTH] = '\\';
		ret[i * ESCAPE_LENGTH + 1] = 'x';
		ret[i * ESCAPE_LENGTH + 2] = hex[s[i] >> 4];
		ret[i * ESCAPE_LENGTH + 3] = hex[s[i] & 0xf];
	}
	return n * ESCAPE_LENGTH;
}

size_t utf8_print(const void *s, size_t len, char *ret, size_t size)
{
	const size_t max = size - 1;
	const size_t ellipsis = max >= strlen(ELLIPSIS) ? strlen(ELLIPSIS) : 0;
	const uint8_t *p = s;
	size_t length = 0, cut = 0;

	while (len > 0) {
		char piece[PIECE_MAX];
		size_t used, n = printable_piece(p, len, piece, &used);

		if (n > max - length) {
			memcpy(ret + cut, ELLIPSIS, ellipsis);
			length = cut + ellipsis;
			break;
		}
		memcpy(ret + length, piece, n);
		length += n;
		if (length + ellipsis <= max)
			cut = length;
		p += used;
		len -= used;
	}
	ret[length] = '\0';
	return length;
}

char *utf8_printable(const void *s, size_t len, size_t max)
{
	char *text, *shrunk;

	/* No byte becomes more than ESCAPE_LENGTH of them. */
	if (len < max / ESCAPE_LENGTH)
		max = len * ESCAPE_LENGTH;
	if (max == SIZE_MAX)
		return NULL;
	text = malloc(max + 1);
	if (!text)
		return NULL;
	shrunk = realloc(text, utf8_print(s, len, text, max + 1) + 1);
	return shrunk ? shrunk : text;
}

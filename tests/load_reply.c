/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* Reads replies as RFC 9112 frames them: by Content-Length, in chunks, or until the peer closes.
 * The body itself is thrown away. */

void reply_reset(struct reply *reply)
{
	reply->phase = REPLY_HEAD;
	reply->status = 0;
	reply->keep_alive = false;
	reply->generation = reply->worker = reply->pid = REPLY_NONE;
	reply->left = 0;
	reply->n_head = 0;
}

static uint32_t parse_number(const char *value)
{
	uint64_t number;

	return tool_parse_unsigned(value, REPLY_NONE - 1, &number) < 0 ? REPLY_NONE
								       : (uint32_t)number;
}

struct framing {
	bool has_length, chunked;
	uint64_t length;
};

static int read_field(struct reply *reply, struct framing *framing, const char *name, char *value)
{
	if (strcasecmp(name, "content-length") == 0) {
		framing->has_length = true;
		return tool_parse_unsigned(value, UINT64_MAX, &framing->length) < 0 ? -EBADMSG : 0;
	}
	if (strcasecmp(name, "transfer-encoding") == 0)
		framing->chunked = strcasestr(value, "chunked");
	else if (strcasecmp(name, "connection") == 0) {
		if (strcasestr(value, "close"))
			reply->keep_alive = false;
		else if (strcasestr(value, "keep-alive"))
			reply->keep_alive = true;
	} else if (strcasecmp(name, "x-tenure-generation") == 0)
		reply->generation = parse_number(value);
	else if (strcasecmp(name, "x-tenure-worker") == 0)
		reply->worker = parse_number(value);
	else if (strcasecmp(name, "x-pid") == 0)
		reply->pid = parse_number(value);
	return 0;
}

/* "HTTP/1.1 200 OK" */
static int read_status_line(struct reply *reply, char *line)
{
	uint64_t status;

	if (strncmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') ||
		line[8] != ' ' || strlen(line) < 12 || (line[12] != ' ' && line[12] != '\0'))
		return -EBADMSG;
	reply->keep_alive = line[7] == '1';
	line[12] = '\0';
	if (tool_parse_unsigned(line + 9, 999, &status) < 0)
		return -EBADMSG;
	reply->status = (unsigned)status;
	return 0;
}

/* The head is complete, ends in an empty line and a NUL. */
static int read_head(struct reply *reply)
{
	struct framing framing = {0};
	char *line = reply->head, *save = NULL;
	int r;

	line = strtok_r(line, "\r\n", &save);
	r = line ? read_status_line(reply, line) : -EBADMSG;
	if (r < 0)
		return r;

	while ((line = strtok_r(NULL, "\r\n", &save))) {
		char *value = strchr(line, ':');

		if (!value)
			return -EBADMSG;
		*value++ = '\0';
		value += strspn(value, " \t");
		r = read_field(reply, &framing, line, value);
		if (r < 0)
			return r;
	}

	reply->n_head = 0;
	reply->left = framing.length;
	if (reply->status < 200) /* an interim reply: the real one follows */
		reply->phase = REPLY_HEAD;
	else if (reply->status == 204 || reply->status == 304)
		reply->phase = REPLY_DONE;
	else if (framing.chunked)
		reply->phase = REPLY_CHUNK_SIZE;
	else if (framing.has_length)
		reply->phase = framing.length > 0 ? REPLY_BODY_LENGTH : REPLY_DONE;
	else {
		reply->phase = REPLY_BODY_UNTIL_EOF;
		reply->keep_alive = false;
	}
	return 0;
}

static int read_chunk_size(struct reply *reply)
{
	uint64_t size = 0;
	size_t n = 0;

	for (; n < reply->n_head; n++) {
		char c = reply->head[n];
		unsigned digit;

		if (c >= '0' && c <= '9')
			digit = (unsigned)(c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (unsigned)((c | 0x20) - 'a') + 10;
		else
			break;
		if (size >> 32)
			return -EBADMSG;
		size = size << 4 | digit;
	}
	if (n == 0)
		return -EBADMSG;
	reply->left = size;
	reply->phase = size > 0 ? REPLY_CHUNK_DATA : REPLY_TRAILER;
	return 0;
}

/* A line of a chunked body, without its line end, is in head. */
static int read_line(struct reply *reply)
{
	int r = 0;

	if (reply->phase == REPLY_CHUNK_SIZE)
		r = read_chunk_size(reply);
	else if (reply->phase == REPLY_CHUNK_END)
		reply->phase = REPLY_CHUNK_SIZE;
	else if (reply->n_head == 0)
		reply->phase = REPLY_DONE;
	reply->n_head = 0;
	return r;
}

static size_t skip_body(struct reply *reply, size_t n)
{
	if (n > reply->left)
		n = (size_t)reply->left;
	reply->left -= n;
	if (reply->left == 0)
		reply->phase = reply->phase == REPLY_CHUNK_DATA ? REPLY_CHUNK_END : REPLY_DONE;
	return n;
}

static int take_byte(struct reply *reply, char c)
{
	if (reply->n_head + 1 >= sizeof(reply->head))
		return -EMSGSIZE;

	if (reply->phase != REPLY_HEAD) {
		if (c == '\n')
			return read_line(reply);
		if (c != '\r')
			reply->head[reply->n_head++] = c;
		return 0;
	}

	reply->head[reply->n_head++] = c;
	if (c == '\n' && reply->n_head >= 4 &&
		memcmp(reply->head + reply->n_head - 4, "\r\n\r\n", 4) == 0) {
		reply->head[reply->n_head] = '\0';
		return read_head(reply);
	}
	return 0;
}

int reply_feed(struct reply *reply, const char *bytes, size_t n_bytes)
{
	size_t i = 0;
	int r;

	while (i < n_bytes && reply->phase != REPLY_DONE) {
		switch (reply->phase) {
		case REPLY_BODY_UNTIL_EOF:
			i = n_bytes;
			break;
		case REPLY_BODY_LENGTH:
		case REPLY_CHUNK_DATA:
			i += skip_body(reply, n_bytes - i);
			break;
		case REPLY_HEAD:
		case REPLY_CHUNK_SIZE:
		case REPLY_CHUNK_END:
		case REPLY_TRAILER:
			r = take_byte(reply, bytes[i++]);
			if (r < 0)
				return r;
			break;
		case REPLY_DONE:
			break;
		}
	}
	return reply->phase == REPLY_DONE;
}

bool reply_end(struct reply *reply)
{
	if (reply->phase == REPLY_BODY_UNTIL_EOF)
		reply->phase = REPLY_DONE;
	return reply->phase == REPLY_DONE;
}

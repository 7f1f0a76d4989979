/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's saved state as bytes. There are two slots. In a slot stands a batch that says
 * everything (WHOLE), and behind it, one after the other, batches that say what has changed since
 * (CHANGES), their sequence growing by one. Now and then everything is written anew, into the other
 * slot: so whenever the writer is killed, what it had written before is still there.
 *
 *     slot:   | header | records ... pad | header | records ... pad | zeros
 *     record: KEY SPACE VALUE NEWLINE; KEY NEWLINE: there is none of that name any more
 *
 * A header is 64 bytes, little-endian: magic (8), format (4), kind (4), sequence (8), length (8),
 * CRC-32C of header and payload (4; taken as 0 in it), zeros. A batch begins at a multiple of 64
 * bytes, so that no header lies across two pages.
 *
 * Nothing here trusts what it reads: no bytes can do more harm than to be refused. */
#pragma once

#include "base/buffer.h"

enum {
	STATE_FORMAT = 1, /* grows when an older daemon could misread what is written */
	STATE_HEADER_SIZE = 64,
	STATE_ALIGN = 64,
	STATE_KEY_MAX = 255,
};

enum state_kind { STATE_WHOLE = 1, STATE_CHANGES = 2 };

struct state_batch {
	enum state_kind kind;
	uint64_t sequence;
	const uint8_t *payload; /* borrowed */
	size_t len;
};

struct state_record {
	const char *key; /* borrowed, neither is NUL-terminated */
	size_t key_len;
	const char *value; /* NULL: it is gone */
	size_t value_len;
};

/* A record at the end of out. key: 1 to STATE_KEY_MAX bytes above 0x20; value: without newlines, or
 * NULL. 0; -EINVAL; -ENOMEM, -EMSGSIZE as buffer_append(). */
int state_record_append(struct buffer *out, const char *key, const char *value);
/* The next one of a payload, from *at, which moves on. 1; 0: that was all; -EBADMSG. */
int state_record_next(
	const uint8_t *payload, size_t len, size_t *at, struct state_record *ret_record);

/* A whole batch (header, payload, pad) at the end of out, which begins at a batch's begin. 0,
 * -ENOMEM or -EMSGSIZE. */
int state_batch_append(struct buffer *out, enum state_kind kind, uint64_t sequence,
	const void *payload, size_t len);
/* The batch at *at, which moves behind it. 1; 0: nothing follows, or only what was being written
 * when its writer died; -EBADMSG: there is something, and it is damaged; -ENOTSUP: of a newer
 * format, or written by somebody else. */
int state_batch_next(const void *slot, size_t size, size_t *at, struct state_batch *ret);

/* A slot that was looked at. */
struct state_slot {
	uint64_t sequence; /* of its last good batch */
	size_t end;	   /* where the next batch goes */
	unsigned n_batches;
};
/* 0; -ENODATA: it is empty; -EBADMSG, -ENOTSUP as above. */
int state_slot_look(const void *slot, size_t size, struct state_slot *ret);
/* The newest of two: 0 or 1, with *ret. A damaged slot is passed over when the other one is good
 * and was written later than what can still be read of the damaged one; otherwise, what it said
 * last would be forgotten: -EBADMSG. -ENODATA: both are empty; -ENOTSUP. */
int state_choose(const void *const slots[2], const size_t sizes[2], struct state_slot *ret);

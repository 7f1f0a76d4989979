/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/state.h"

#include <endian.h>

static const uint8_t magic[8] = {'T', 'E', 'N', 'U', 'R', 'E', 'S', '\n'};

/* Where each field is. */
enum { AT_FORMAT = 8, AT_KIND = 12, AT_SEQUENCE = 16, AT_LENGTH = 24, AT_CHECKSUM = 32 };

static uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t len)
{
	/* Of half a byte: small enough to be written down. */
	static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
		0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6,
		0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

	crc = ~crc;
	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

static void put32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

static void put64(uint8_t *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, sizeof(value));
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

/* --- records -------------------------------------------------------------- */

static bool key_is_valid(const char *key, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((uint8_t)key[i] <= ' ')
			return false;
	return len > 0 && len <= STATE_KEY_MAX;
}

int state_record_append(struct buffer *out, const char *key, const char *value)
{
	if (!key_is_valid(key, strlen(key)) || (value && strchr(value, '\n')))
		return -EINVAL;
	return value ? buffer_printf(out, "%s %s\n", key, value) : buffer_printf(out, "%s\n", key);
}

int state_record_next(const uint8_t *payload, size_t len, size_t *at, struct state_record *ret)
{
	const char *line = (const char *)payload + *at, *end, *space;
	struct state_record record;

	if (*at >= len)
		return 0;
	end = memchr(line, '\n', len - *at);
	if (!end)
		return -EBADMSG;
	space = memchr(line, ' ', (size_t)(end - line));
	record.key = line;
	record.key_len = (size_t)((space ? space : end) - line);
	record.value = space ? space + 1 : NULL;
	record.value_len = space ? (size_t)(end - space - 1) : 0;
	if (!key_is_valid(record.key, record.key_len))
		return -EBADMSG;
	*at += (size_t)(end - line) + 1;
	*ret = record;
	return 1;
}

/* --- batches -------------------------------------------------------------- */

static size_t padded(size_t len)
{
	return (len + STATE_ALIGN - 1) / STATE_ALIGN * STATE_ALIGN;
}

static uint32_t checksum(const uint8_t *header, const uint8_t *payload, size_t len)
{
	uint8_t copy[STATE_HEADER_SIZE];

	memcpy(copy, header, sizeof(copy));
	put32(copy + AT_CHECKSUM, 0);
	return crc32c(crc32c(0, copy, sizeof(copy)), payload, len);
}

int state_batch_append(struct buffer *out, enum state_kind kind, uint64_t sequence,
	const void *payload, size_t len)
{
	static const uint8_t zeros[STATE_ALIGN];
	uint8_t header[STATE_HEADER_SIZE] = {0};
	int r;

	memcpy(header, magic, sizeof(magic));
	put32(header + AT_FORMAT, STATE_FORMAT);
	put32(header + AT_KIND, kind);
	put64(header + AT_SEQUENCE, sequence);
	put64(header + AT_LENGTH, len);
	put32(header + AT_CHECKSUM, checksum(header, payload, len));
	r = buffer_append(out, header, sizeof(header));
	if (r >= 0 && len > 0)
		r = buffer_append(out, payload, len);
	if (r >= 0 && padded(len) > len)
		r = buffer_append(out, zeros, padded(len) - len);
	return r;
}

static bool all_zero(const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (data[i] != 0)
			return false;
	return true;
}

/* A batch is written in one go, from its begin: of one that was not finished the end is missing,
 * and nothing comes after it. */
static bool is_unfinished(const uint8_t *batch, size_t room, uint64_t len)
{
	size_t whole = room;

	if (len <= room - STATE_HEADER_SIZE) {
		whole = MIN(room, STATE_HEADER_SIZE + padded((size_t)len));
		if (len == 0 || batch[STATE_HEADER_SIZE + len - 1] != 0)
			return false;
	}
	/* A length that is wrong would hide what follows. */
	for (size_t i = STATE_ALIGN; i + sizeof(magic) <= whole; i += STATE_ALIGN)
		if (memcmp(batch + i, magic, sizeof(magic)) == 0)
			return false;
	return all_zero(batch + whole, room - whole);
}

/* Nothing of it was written but a part of its header. */
static bool is_begun(const uint8_t *batch, size_t room)
{
	size_t n = 0, rest = AT_CHECKSUM + sizeof(uint32_t);

	while (n < sizeof(magic) && batch[n] == magic[n])
		n++;
	return room >= STATE_HEADER_SIZE && all_zero(batch + rest, room - rest) &&
	       (n == sizeof(magic) || all_zero(batch + n, room - n)) &&
	       checksum(batch, NULL, 0) != get32(batch + AT_CHECKSUM);
}

int state_batch_next(const void *slot, size_t size, size_t *at, struct state_batch *ret)
{
	const uint8_t *batch = (const uint8_t *)slot + *at, *payload;
	size_t room = *at < size ? size - *at : 0;
	uint32_t kind;
	uint64_t len;

	if (room == 0 || all_zero(batch, MIN(room, (size_t)STATE_HEADER_SIZE)))
		return room == 0 || all_zero(batch, room) ? 0 : -EBADMSG;
	if (is_begun(batch, room))
		return 0;
	if (room < STATE_HEADER_SIZE || memcmp(batch, magic, sizeof(magic)) != 0)
		return -EBADMSG;
	if (get32(batch + AT_FORMAT) != STATE_FORMAT)
		return -ENOTSUP;
	len = get64(batch + AT_LENGTH);
	kind = get32(batch + AT_KIND);
	payload = batch + STATE_HEADER_SIZE;
	if (len > room - STATE_HEADER_SIZE ||
		checksum(batch, payload, (size_t)len) != get32(batch + AT_CHECKSUM))
		return is_unfinished(batch, room, len) ? 0 : -EBADMSG;
	if (kind != STATE_WHOLE && kind != STATE_CHANGES)
		return -EBADMSG;
	*ret = (struct state_batch){.kind = kind,
		.sequence = get64(batch + AT_SEQUENCE),
		.payload = payload,
		.len = (size_t)len};
	*at += MIN(room, STATE_HEADER_SIZE + padded((size_t)len));
	return 1;
}

/* --- slots ---------------------------------------------------------------- */

int state_slot_look(const void *slot, size_t size, struct state_slot *ret)
{
	struct state_slot found = {0};
	struct state_batch batch;
	int r;

	while ((r = state_batch_next(slot, size, &found.end, &batch)) > 0) {
		bool first = found.n_batches == 0;

		if ((batch.kind == STATE_WHOLE) != first ||
			(!first && batch.sequence != found.sequence + 1)) {
			r = -EBADMSG;
			break;
		}
		found.sequence = batch.sequence;
		found.n_batches++;
	}
	/* What can be read is told in any case. */
	*ret = found;
	if (r < 0)
		return r;
	return found.n_batches > 0 ? 0 : -ENODATA;
}

int state_choose(const void *const slots[2], const size_t sizes[2], struct state_slot *ret)
{
	struct state_slot found[2];
	int r[2], best;

	for (int i = 0; i < 2; i++)
		r[i] = state_slot_look(slots[i], sizes[i], &found[i]);
	if (r[0] == -ENOTSUP || r[1] == -ENOTSUP)
		return -ENOTSUP;
	if (r[0] == -ENODATA && r[1] == -ENODATA)
		return -ENODATA;
	/* A good one that was begun after the other's last batch makes the other one history. */
	best = r[1] == 0 && (r[0] != 0 || found[1].sequence > found[0].sequence);
	if (r[best] != 0 ||
		(r[!best] == -EBADMSG && (found[!best].n_batches == 0 ||
						 found[!best].sequence >= found[best].sequence)))
		return -EBADMSG;
	*ret = found[best];
	return best;
}

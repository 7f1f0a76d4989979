/* SPDX-License-Identifier: Apache-2.0 */
/* The saved state as bytes: what was written is what is read, and whatever is damaged, cut off or
 * newer, nothing is ever read that was not written. */
#include "wire/state.h"

#include "unit.h"

enum { SLOT_SIZE = 4096 };

/* One slot being written. */
struct slot {
	uint8_t bytes[SLOT_SIZE];
	size_t len;
};

static void write_batch(
	struct slot *slot, enum state_kind kind, uint64_t sequence, const char *payload)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(0);

	ck_assert_int_eq(state_batch_append(&b, kind, sequence, payload, strlen(payload)), 0);
	ck_assert_uint_eq(b.len % STATE_ALIGN, 0);
	ck_assert_uint_le(slot->len + b.len, sizeof(slot->bytes));
	memcpy(slot->bytes + slot->len, buffer_data(&b), b.len);
	slot->len += b.len;
}

static const char *text_of(const struct buffer *b)
{
	return b->len > 0 ? (const char *)buffer_data(b) : "";
}

/* What a slot says: its payloads one behind the other; NULL with *ret_r when it says nothing. */
static char *read_slot(const void *bytes, size_t size, int *ret_r)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(0);
	struct state_batch batch;
	size_t at = 0;

	while ((*ret_r = state_batch_next(bytes, size, &at, &batch)) > 0)
		ck_assert_int_eq(buffer_append(&b, batch.payload, batch.len), 0);
	return *ret_r < 0 ? NULL : strndup(text_of(&b), b.len);
}

static const char *const story[] = {"m {\"a\":1}\n", "s/web/core {\"current\":1}\n",
	"s/web/core {\"current\":2}\ns/web/g1\n", "m {\"a\":2}\n"};

static struct slot write_story(unsigned n)
{
	struct slot slot = {.len = 0};

	for (unsigned i = 0; i < n; i++)
		write_batch(&slot, i == 0 ? STATE_WHOLE : STATE_CHANGES, 10 + i, story[i]);
	return slot;
}

static char *told(unsigned n)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(0);

	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(buffer_append(&b, story[i], strlen(story[i])), 0);
	return strndup(text_of(&b), b.len);
}

START_TEST(records)
{
	_cleanup_buffer_ struct buffer b = BUFFER_INIT(0);
	_cleanup_free_ char *longest = malloc(STATE_KEY_MAX + 2);
	struct state_record r;
	size_t at = 0;

	memset(longest, 'k', STATE_KEY_MAX + 1);
	longest[STATE_KEY_MAX + 1] = '\0';
	ck_assert_int_eq(state_record_append(&b, longest, "1"), -EINVAL);
	longest[STATE_KEY_MAX] = '\0';
	ck_assert_int_eq(state_record_append(&b, "", "1"), -EINVAL);
	ck_assert_int_eq(state_record_append(&b, "a b", "1"), -EINVAL);
	ck_assert_int_eq(state_record_append(&b, "a\n", "1"), -EINVAL);
	ck_assert_int_eq(state_record_append(&b, "a", "1\n2"), -EINVAL);
	ck_assert_uint_eq(b.len, 0);
	ck_assert_int_eq(state_record_append(&b, "a", "{\"b c\": 1}"), 0);
	ck_assert_int_eq(state_record_append(&b, longest, ""), 0);
	ck_assert_int_eq(state_record_append(&b, "gone", NULL), 0);

	ck_assert_int_eq(state_record_next(buffer_data(&b), b.len, &at, &r), 1);
	ck_assert_uint_eq(r.key_len, 1);
	ck_assert_mem_eq(r.value, "{\"b c\": 1}", r.value_len);
	ck_assert_int_eq(state_record_next(buffer_data(&b), b.len, &at, &r), 1);
	ck_assert_uint_eq(r.key_len, STATE_KEY_MAX);
	ck_assert_uint_eq(r.value_len, 0);
	ck_assert_ptr_nonnull(r.value);
	ck_assert_int_eq(state_record_next(buffer_data(&b), b.len, &at, &r), 1);
	ck_assert_mem_eq(r.key, "gone", 4);
	ck_assert_ptr_null(r.value);
	ck_assert_int_eq(state_record_next(buffer_data(&b), b.len, &at, &r), 0);
}
END_TEST

START_TEST(bad_records)
{
	static const char *const bad[] = {"a 1", " 1\n", "\n", "a\tb 1\n", "a\x01 1\n", "\0 1\n"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		size_t at = 0, len = i == 5 ? 4 : strlen(bad[i]);
		struct state_record r;

		ck_assert_int_eq(
			state_record_next((const uint8_t *)bad[i], len, &at, &r), -EBADMSG);
		ck_assert_uint_eq(at, 0);
	}
}
END_TEST

START_TEST(there_and_back)
{
	struct slot slot = write_story(4);
	_cleanup_free_ char *wanted = told(4), *got = NULL;
	struct state_slot look;
	int r;

	got = read_slot(slot.bytes, sizeof(slot.bytes), &r);
	ck_assert_str_eq(got, wanted);
	ck_assert_int_eq(state_slot_look(slot.bytes, sizeof(slot.bytes), &look), 0);
	ck_assert_uint_eq(look.sequence, 13);
	ck_assert_uint_eq(look.end, slot.len);
	ck_assert_uint_eq(look.n_batches, 4);
	/* As long as what was written, without anything behind it. */
	ck_assert_int_eq(state_slot_look(slot.bytes, slot.len, &look), 0);
	ck_assert_uint_eq(look.n_batches, 4);
}
END_TEST

START_TEST(empty)
{
	static const uint8_t zeros[SLOT_SIZE];
	const void *const slots[2] = {zeros, zeros};
	struct state_slot look;

	ck_assert_int_eq(state_slot_look(zeros, 0, &look), -ENODATA);
	ck_assert_int_eq(state_slot_look(zeros, sizeof(zeros), &look), -ENODATA);
	ck_assert_int_eq(state_choose(slots, (size_t[]){0, SLOT_SIZE}, &look), -ENODATA);
}
END_TEST

/* The writer was killed while it wrote the last batch: what was written before holds. */
START_TEST(killed_while_writing)
{
	struct slot before = write_story(3), after = write_story(4);
	_cleanup_free_ char *old = told(3), *new = told(4);

	for (size_t cut = before.len; cut <= after.len; cut++) {
		struct slot slot = after;
		_cleanup_free_ char *got = NULL;
		struct state_slot look;
		bool complete;
		int r;

		memset(slot.bytes + cut, 0, sizeof(slot.bytes) - cut);
		got = read_slot(slot.bytes, sizeof(slot.bytes), &r);
		ck_assert_ptr_nonnull(got);
		/* What is cut off may have been the zeros at its end. */
		complete = memcmp(slot.bytes, after.bytes, sizeof(slot.bytes)) == 0;
		ck_assert_str_eq(got, complete ? new : old);
		ck_assert_int_eq(state_slot_look(slot.bytes, sizeof(slot.bytes), &look), 0);
		ck_assert_uint_eq(look.sequence, complete ? 13 : 12);
	}
}
END_TEST

/* The first batch of a slot: then the other slot is what holds. */
START_TEST(killed_while_writing_anew)
{
	struct slot other = write_story(3), whole = {.len = 0};

	write_batch(&whole, STATE_WHOLE, 13, "m {\"a\":3}\n");
	for (size_t cut = 0; cut < whole.len; cut++) {
		struct slot slot = whole;
		const void *const slots[2] = {slot.bytes, other.bytes};
		struct state_slot look;
		bool complete;

		memset(slot.bytes + cut, 0, sizeof(slot.bytes) - cut);
		complete = memcmp(slot.bytes, whole.bytes, sizeof(slot.bytes)) == 0;
		ck_assert_int_eq(state_choose(slots, (size_t[]){SLOT_SIZE, SLOT_SIZE}, &look),
			complete ? 0 : 1);
		ck_assert_uint_eq(look.sequence, complete ? 13 : 12);
	}
}
END_TEST

/* What is read is what was written up to some batch, or nothing. */
static void check_damaged(const struct slot *slot)
{
	_cleanup_free_ char *got = NULL;
	struct state_slot look;
	bool known = false;
	int r;

	got = read_slot(slot->bytes, sizeof(slot->bytes), &r);
	ck_assert(r == 0 || r == -EBADMSG || r == -ENOTSUP);
	for (unsigned n = 0; got && n <= 4; n++) {
		_cleanup_free_ char *wanted = told(n);

		known |= strcmp(got, wanted) == 0;
	}
	ck_assert(!got || known);
	r = state_slot_look(slot->bytes, sizeof(slot->bytes), &look);
	ck_assert(r == 0 || r == -ENODATA || r == -EBADMSG || r == -ENOTSUP);
	ck_assert_uint_le(look.end, sizeof(slot->bytes));
}

START_TEST(damage_at_every_byte)
{
	static const uint8_t damage[] = {0x01, 0x80, 0xff, 0x0a, 0x20};
	struct slot good = write_story(4);
	unsigned refused = 0;

	for (size_t at = 0; at < good.len; at++)
		for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
			struct slot slot = good;
			struct state_slot look;

			slot.bytes[at] ^= damage[i];
			check_damaged(&slot);
			refused += state_slot_look(slot.bytes, sizeof(slot.bytes), &look) < 0;
		}
	/* Nearly all of it; only padding, and the end of the last batch, can be mistaken. */
	ck_assert_uint_gt(refused, good.len);
}
END_TEST

START_TEST(damage_in_the_middle_is_refused)
{
	struct slot good = write_story(4);

	/* A header, and what the second batch says: nothing after it can be trusted. */
	for (size_t at = 64 + 64; at < 128 + 64 + strlen(story[1]); at++) {
		struct slot slot = good;
		struct state_slot look;

		slot.bytes[at] ^= 0x55;
		ck_assert_int_lt(state_slot_look(slot.bytes, sizeof(slot.bytes), &look), 0);
		ck_assert_uint_le(look.n_batches, 1);
	}
}
END_TEST

/* Zeros from anywhere on, and pieces that are missing. */
START_TEST(cut_and_shortened)
{
	struct slot good = write_story(4);

	for (size_t cut = 0; cut <= good.len; cut++) {
		struct slot slot = good;
		_cleanup_free_ uint8_t *exact = malloc(cut + 1);
		struct state_slot look;
		int r;

		memset(slot.bytes + cut, 0, sizeof(slot.bytes) - cut);
		check_damaged(&slot);
		/* Of that size, so that a sanitizer sees who reads beyond. */
		memcpy(exact, good.bytes, cut);
		r = state_slot_look(exact, cut, &look);
		ck_assert(r == 0 || r == -ENODATA || r == -EBADMSG);
	}
}
END_TEST

START_TEST(newer_and_foreign)
{
	struct slot slot = write_story(2), other = write_story(1);
	const void *const slots[2] = {slot.bytes, other.bytes};
	struct state_slot look;

	slot.bytes[8] = STATE_FORMAT + 1;
	ck_assert_int_eq(state_slot_look(slot.bytes, sizeof(slot.bytes), &look), -ENOTSUP);
	ck_assert_int_eq(state_choose(slots, (size_t[]){SLOT_SIZE, SLOT_SIZE}, &look), -ENOTSUP);
	memset(slot.bytes, 'x', sizeof(slot.bytes));
	ck_assert_int_eq(state_slot_look(slot.bytes, sizeof(slot.bytes), &look), -EBADMSG);
}
END_TEST

START_TEST(wrong_order)
{
	struct slot slot = {.len = 0};
	struct state_slot look;

	write_batch(&slot, STATE_CHANGES, 5, "a 1\n");
	ck_assert_int_eq(state_slot_look(slot.bytes, sizeof(slot.bytes), &look), -EBADMSG);
	slot = (struct slot){.len = 0};
	write_batch(&slot, STATE_WHOLE, 5, "a 1\n");
	write_batch(&slot, STATE_WHOLE, 6, "a 1\n");
	ck_assert_int_eq(state_slot_look(slot.bytes, sizeof(slot.bytes), &look), -EBADMSG);
	ck_assert_uint_eq(look.sequence, 5);
	slot = (struct slot){.len = 0};
	write_batch(&slot, STATE_WHOLE, 5, "a 1\n");
	write_batch(&slot, STATE_CHANGES, 7, "a 1\n");
	ck_assert_int_eq(state_slot_look(slot.bytes, sizeof(slot.bytes), &look), -EBADMSG);
}
END_TEST

START_TEST(the_newer_of_two)
{
	struct slot old = {.len = 0}, new = {.len = 0}, bad;
	const void *const both[2] = {old.bytes, new.bytes},
			  *const turned[2] = {new.bytes, old.bytes},
			  *const old_bad[2] = {bad.bytes, new.bytes},
			  *const new_bad[2] = {old.bytes, bad.bytes};
	static const size_t sizes[2] = {SLOT_SIZE, SLOT_SIZE};
	struct state_slot look;

	write_batch(&old, STATE_WHOLE, 1, "a 1\n");
	write_batch(&old, STATE_CHANGES, 2, "a 2\n");
	write_batch(&new, STATE_WHOLE, 3, "a 3\n");
	ck_assert_int_eq(state_choose(both, sizes, &look), 1);
	ck_assert_uint_eq(look.sequence, 3);
	ck_assert_int_eq(state_choose(turned, sizes, &look), 0);
	ck_assert_uint_eq(look.sequence, 3);
	/* Damage in what is history anyway does no harm. */
	bad = old;
	bad.bytes[128 + 64] ^= 1;
	ck_assert_int_eq(state_choose(old_bad, sizes, &look), 1);
	/* In the newer one it does: the older one would be a step back. */
	bad = new;
	write_batch(&bad, STATE_CHANGES, 4, "a 4\n");
	bad.bytes[128 + 64] ^= 1;
	ck_assert_int_eq(state_choose(new_bad, sizes, &look), -EBADMSG);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {records, bad_records, there_and_back, empty,
		killed_while_writing, killed_while_writing_anew, damage_at_every_byte,
		damage_in_the_middle_is_refused, cut_and_shortened, newer_and_foreign, wrong_order,
		the_newer_of_two};

	return run_tests("state", tests, ARRAY_SIZE(tests));
}

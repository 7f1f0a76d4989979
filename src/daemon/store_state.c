/* SPDX-License-Identifier: Apache-2.0 */
/* The records, and the memfd they are written to. */
#include "base/clock.h"
#include "daemon/log.h"
#include "daemon/store_internal.h"
#include "sys/state_file.h"
#include "wire/state.h"

enum {
	/* Everything is written anew when the changes have become that much, and four times as much
	 * as it. */
	ANEW_BYTES = 256 << 10,
	ANEW_TIMES = 4,
};

/* --- reading -------------------------------------------------------------- */

bool store_has_state(const struct store *s)
{
	for (size_t i = 0; s && i < s->n_received; i++)
		if (s->received[i].kind == STORED_STATE)
			return true;
	return s && s->state_fd >= 0 && s->sequence > 0;
}

static int apply_record(json_t *records, const struct state_record *record)
{
	_cleanup_free_ char *key = strndup(record->key, record->key_len);

	if (!key)
		return -ENOMEM;
	if (!record->value) {
		(void)json_object_del(records, key);
		return 0;
	}
	return json_object_set_new(records, key, json_stringn(record->value, record->value_len)) < 0
		       ? -EBADMSG
		       : 0;
}

static int read_records(const void *slot, size_t size, json_t *records)
{
	struct state_batch batch;
	size_t at = 0, in = 0;
	int r;

	while ((r = state_batch_next(slot, size, &at, &batch)) > 0) {
		struct state_record record;

		in = 0;
		while ((r = state_record_next(batch.payload, batch.len, &in, &record)) > 0) {
			r = apply_record(records, &record);
			if (r < 0)
				return r;
		}
		if (r < 0)
			return r;
	}
	return r;
}

static int parse_values(const json_t *records, json_t **ret)
{
	json_t *values = json_object(), *text;
	const char *key;

	if (!values)
		return -ENOMEM;
	json_object_foreach((json_t *)(uintptr_t)records, key, text)
	{
		json_error_t error;
		json_t *value = json_loadb(json_string_value(text), json_string_length(text),
			JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);

		if (!value || json_object_set_new(values, key, value) < 0) {
			json_decref(values);
			return -EBADMSG;
		}
	}
	*ret = values;
	return 0;
}

/* The memfd becomes ours when what is in it can be used. */
static int read_file(struct store *s, int fd, json_t **ret)
{
	void *data[STATE_FILE_SLOTS] = {NULL};
	size_t sizes[STATE_FILE_SLOTS] = {0};
	struct state_slot slot;
	json_t *records = json_object();
	int r = records ? state_file_check(fd) : -ENOMEM, chosen = 0;

	for (unsigned i = 0; r >= 0 && i < STATE_FILE_SLOTS; i++)
		r = state_file_read(fd, i, &data[i], &sizes[i]);
	if (r >= 0)
		r = chosen = state_choose((const void *const *)data, sizes, &slot);
	if (r >= 0)
		r = read_records(data[chosen], sizes[chosen], records);
	if (r >= 0)
		r = parse_values(records, ret);
	if (r >= 0) {
		json_decref(s->records);
		s->records = TAKE_PTR(records);
		s->slot = (unsigned)chosen;
		s->end = slot.end;
		s->sequence = slot.sequence;
		/* What was being written when its writer died is not written over: it may have been
		 * longer. */
		s->anew = true;
	}
	json_decref(records);
	for (unsigned i = 0; i < STATE_FILE_SLOTS; i++)
		free(data[i]);
	return r;
}

static const char *why_not(int r)
{
	switch (r) {
	case -EBADMSG:
	case -EINVAL:
		return "it is damaged";
	case -ENOTSUP:
		return "a newer version of tenured wrote it";
	case -ENODATA:
		return "it is empty";
	default:
		return strerror(-r);
	}
}

int store_load(struct store *s, json_t **ret, struct error *ret_error)
{
	unsigned number = 0;
	int r = -ENODATA, fd = s ? store_take_any(s, STORED_STATE, &number) : -1;

	if (fd < 0)
		return -ENODATA;
	r = read_file(s, fd, ret);
	if (r >= 0) {
		s->state_fd = fd;
		return 0;
	}
	s->state_fd = fd;
	store_give_up_state(s);
	return error_set(ret_error, r, "the saved state is not used: %s", why_not(r));
}

void store_give_up_state(struct store *s)
{
	if (!s)
		return;
	store_drop(s, s->state_fd);
	s->state_fd = close_fd(s->state_fd);
	s->sequence = 0;
	s->anew = false;
	json_object_clear(s->records);
	buffer_consume(&s->pending, s->pending.len);
	/* Neither is it to be found again. */
	for (size_t i = 0; i < s->n_received; i++)
		if (s->received[i].kind == STORED_STATE && !s->received[i].taken) {
			store_drop_number(s, STORED_STATE, s->received[i].number);
			s->received[i].taken = true;
		}
}

/* --- noting --------------------------------------------------------------- */

static void note_failed(struct store *s)
{
	/* Then everything is written again the next time. */
	s->anew = true;
	if (!s->write_failed)
		log_error("out of memory, the state is not saved");
	s->write_failed = true;
}

bool store_has(const struct store *s, const char *key)
{
	return s && json_object_get(s->records, key);
}

void store_set(struct store *s, const char *key, json_t *value_take)
{
	const json_t *before = s ? json_object_get(s->records, key) : NULL;
	_cleanup_free_ char *text = NULL;

	if (!store_is_kept(s)) {
		json_decref(value_take);
		return;
	}
	if (value_take) {
		text = json_dumps(value_take, JSON_COMPACT | JSON_ENCODE_ANY);
		json_decref(value_take);
		if (!text) {
			note_failed(s);
			return;
		}
	}
	if (before ? text && streq(text, json_string_value(before)) : !text)
		return;
	if (state_record_append(&s->pending, key, text) < 0 ||
		(text ? json_object_set_new(s->records, key, json_string(text))
		      : json_object_del(s->records, key)) < 0)
		note_failed(s);
}

void store_forget(struct store *s, const char *prefix)
{
	const char *key;
	json_t *value;
	void *next;

	if (!s)
		return;
	json_object_foreach_safe(s->records, next, key, value) if (startswith(key, prefix))
	{
		_cleanup_free_ char *copy = strdup(key);

		if (copy)
			store_set(s, copy, NULL);
		else
			note_failed(s);
	}
}

/* --- writing -------------------------------------------------------------- */

static int open_file(struct store *s)
{
	int fd;

	if (s->state_fd >= 0)
		return 0;
	/* Everything that was noted is in the records. */
	fd = state_file_new();
	if (fd < 0)
		return fd;
	s->state_fd = fd;
	s->anew = true;
	s->slot = 1;
	(void)store_add(s, STORED_STATE, fd);
	return 0;
}

static int write_changes(struct store *s)
{
	_cleanup_buffer_ struct buffer batch = BUFFER_INIT(0);
	int r;

	r = state_batch_append(
		&batch, STATE_CHANGES, s->sequence + 1, buffer_data(&s->pending), s->pending.len);
	if (r >= 0)
		r = state_file_write(s->state_fd, s->slot, s->end, buffer_data(&batch), batch.len);
	if (r < 0)
		return r;
	s->end += batch.len;
	s->figures.n_bytes += batch.len;
	return 0;
}

/* The other slot is good only when all of it is there: until then this one holds. */
static int write_anew(struct store *s)
{
	_cleanup_buffer_ struct buffer payload = BUFFER_INIT(0), batch = BUFFER_INIT(0);
	unsigned slot = !s->slot;
	const char *key;
	json_t *text;
	int r = 0;

	json_object_foreach(s->records, key, text)
	{
		r = state_record_append(&payload, key, json_string_value(text));
		if (r < 0)
			return r;
	}
	r = state_batch_append(
		&batch, STATE_WHOLE, s->sequence + 1, buffer_data(&payload), payload.len);
	if (r >= 0)
		r = state_file_clear(s->state_fd, slot);
	if (r >= 0)
		r = state_file_write(s->state_fd, slot, 0, buffer_data(&batch), batch.len);
	if (r < 0)
		return r;
	s->slot = slot;
	s->end = s->whole_len = batch.len;
	s->figures.n_bytes += batch.len;
	s->anew = false;
	return 0;
}

static bool has_grown(const struct store *s)
{
	size_t changes = s->end - s->whole_len;

	return changes > ANEW_BYTES && changes / ANEW_TIMES > s->whole_len;
}

void store_commit(struct store *s)
{
	uint64_t begin;
	int r;

	store_catch_up(s);
	if (!store_is_kept(s) || (s->pending.len == 0 && !s->anew))
		return;
	begin = monotonic_usec();
	r = open_file(s);
	if (r >= 0)
		r = s->anew || has_grown(s) ? write_anew(s) : write_changes(s);
	s->figures.n_commits++;
	s->figures.commit_usec += monotonic_usec() - begin;
	if (r < 0) {
		s->anew = true;
		if (!s->write_failed)
			log_error("the state cannot be saved (%s): if this process is killed, what "
				  "has changed since is not known to the next one",
				strerror(-r));
		s->write_failed = true;
	} else {
		s->write_failed = false;
		s->sequence++;
	}
	buffer_consume(&s->pending, s->pending.len);
}

int store_copy_state(const struct store *s)
{
	_cleanup_close_ int fd = -1;

	if (s->state_fd < 0 || s->write_failed)
		return -EIO;
	fd = state_file_new();
	if (fd < 0)
		return fd;
	for (unsigned i = 0; i < STATE_FILE_SLOTS; i++) {
		_cleanup_free_ void *data = NULL;
		size_t len = 0;
		int r = state_file_read(s->state_fd, i, &data, &len);

		if (r >= 0)
			r = state_file_write(fd, i, 0, data, len);
		if (r < 0)
			return r;
	}
	return TAKE_FD(fd);
}

bool store_is_written(const struct store *s)
{
	return s->state_fd >= 0 && !s->write_failed && s->pending.len == 0;
}

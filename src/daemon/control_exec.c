/* SPDX-License-Identifier: Apache-2.0 */
/* Connections over an exec: the descriptor, the bytes that were read and not yet handled, those
 * that were not yet taken by the client, and the call that is being answered. One that waits for
 * nothing is put back before what was read after it, and so made again. */
#include "daemon/control_internal.h"

/* Bytes that need not be text. */
static json_t *to_hex(const struct buffer *b)
{
	static const char digits[] = "0123456789abcdef";
	_cleanup_free_ char *text = malloc(2 * b->len + 1);

	if (!text)
		return NULL;
	for (size_t i = 0; i < b->len; i++) {
		uint8_t byte = buffer_data(b)[i];

		text[2 * i] = digits[byte >> 4];
		text[2 * i + 1] = digits[byte & 15];
	}
	return json_stringn(text, 2 * b->len);
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int from_hex(const json_t *value, struct buffer *to)
{
	const char *text = json_string_value(value);

	for (; text && text[0] && text[1]; text += 2) {
		int high = digit(text[0]), low = digit(text[1]);
		uint8_t byte = (uint8_t)(high << 4 | low);

		if (high < 0 || low < 0 || buffer_append(to, &byte, 1) < 0)
			return -EBADMSG;
	}
	return 0;
}

static json_t *save_conn(const struct control_conn *conn, unsigned number, json_t *waits)
{
	_cleanup_buffer_ struct buffer call = BUFFER_INIT(0), in = BUFFER_INIT(0);
	int r = 0;

	if (conn->call)
		r = varlink_call_write(&conn->call->wire, waits ? &call : &in);
	if (r >= 0)
		r = buffer_append(&in, buffer_data(&conn->in.bytes), conn->in.bytes.len);
	if (r < 0) {
		json_decref(waits);
		return NULL;
	}
	return json_pack("{s:I, s:o, s:o, s:o, s:o, s:b}", "fd", (json_int_t)number, "in",
		to_hex(&in), "out", to_hex(&conn->out), "call", to_hex(&call), "waits",
		waits ? waits : json_null(), "end", conn->end_of_input);
}

json_t *control_server_save(const struct control_server *server, const struct control_exec_ops *ops)
{
	json_t *list = json_array();

	for (const struct control_conn *c = server->conns; list && c; c = c->next) {
		unsigned number = c->dead || c->hung_up ? 0 : ops->lend(c->fd, ops->userdata);

		if (number > 0)
			(void)json_array_append_new(
				list, save_conn(c, number,
					      c->call ? ops->save(c->call, ops->userdata) : NULL));
	}
	return list;
}

/* The new connection is the first of the server's. */
static int load_bytes(struct control_conn *conn, const json_t *saved)
{
	_cleanup_buffer_ struct buffer in = BUFFER_INIT(0);
	int r = from_hex(json_object_get(saved, "in"), &in);

	if (r >= 0)
		r = from_hex(json_object_get(saved, "out"), &conn->out);
	if (r >= 0 && in.len > 0)
		r = varlink_framing_append(&conn->in, buffer_data(&in), in.len);
	conn->end_of_input = json_is_true(json_object_get(saved, "end"));
	return r;
}

static void load_conn(
	struct control_server *server, const json_t *saved, const struct control_exec_ops *ops)
{
	json_int_t number = json_integer_value(json_object_get(saved, "fd"));
	const json_t *waits = json_object_get(saved, "waits");
	_cleanup_buffer_ struct buffer call = BUFFER_INIT(0);
	_cleanup_peer_ struct peer peer = {0};
	_cleanup_close_ int fd = -1;
	struct control_conn *conn;
	int r;

	if (number <= 0 || number > UINT32_MAX)
		return;
	fd = ops->take((unsigned)number, ops->userdata);
	if (fd < 0 || peer_of(fd, &peer) < 0 || control_conn_new(server, &fd, &peer) < 0)
		return;
	conn = server->conns;
	r = load_bytes(conn, saved);
	if (r >= 0)
		r = from_hex(json_object_get(saved, "call"), &call);
	/* Without the NUL that ends it. */
	if (r >= 0 && call.len > 1 && json_is_object(waits))
		r = control_conn_resume(
			conn, (const char *)buffer_data(&call), call.len - 1, waits, ops);
	if (r < 0)
		control_conn_kill(conn, NULL);
	control_conn_later(conn);
}

void control_server_load(
	struct control_server *server, const json_t *saved, const struct control_exec_ops *ops)
{
	/* The newest is the first of the list, and shall be again. */
	for (size_t i = json_array_size(saved); i-- > 0;)
		load_conn(server, json_array_get(saved, i), ops);
}

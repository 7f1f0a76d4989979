/* SPDX-License-Identifier: Apache-2.0 */
#include "varlink/message.h"

void varlink_call_done(struct varlink_call *call)
{
	free(call->method);
	json_decref(call->parameters);
	*call = (struct varlink_call){0};
}

void varlink_reply_done(struct varlink_reply *reply)
{
	free(reply->error);
	json_decref(reply->parameters);
	*reply = (struct varlink_reply){0};
}

bool varlink_too_deep(const char *data, size_t len, unsigned max_depth)
{
	unsigned depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < len; i++) {
		char c = data[i];

		if (quoted) {
			if (c == '\\')
				i++;
			else if (c == '"')
				quoted = false;
		} else if (c == '"') {
			quoted = true;
		} else if (c == '{' || c == '[') {
			if (++depth > max_depth)
				return true;
		} else if (c == '}' || c == ']') {
			/* Unbalanced text is the parser's to refuse, at its first surplus bracket.
			 */
			if (depth > 0)
				depth--;
		}
	}
	return false;
}

static int parse_object(const char *data, size_t len, unsigned max_depth, json_t **ret)
{
	json_error_t error = {0};

	if (varlink_too_deep(data, len, max_depth))
		return -ELOOP;

	json_t *json = json_loadb(data, len, JSON_REJECT_DUPLICATES, &error);
	if (!json)
		return json_error_code(&error) == json_error_out_of_memory ? -ENOMEM : -EBADMSG;
	if (!json_is_object(json)) {
		json_decref(json);
		return -EBADMSG;
	}
	*ret = json;
	return 0;
}

static int take_flag(const json_t *value, bool *ret)
{
	if (!json_is_boolean(value))
		return -EBADMSG;
	*ret = json_is_true(value);
	return 0;
}

static int take_name(const json_t *value, char **ret)
{
	if (!json_is_string(value) || json_string_length(value) == 0)
		return -EBADMSG;
	*ret = strdup(json_string_value(value));
	return *ret ? 0 : -ENOMEM;
}

static int take_parameters(json_t *value, json_t **ret)
{
	if (json_is_null(value))
		return 0; /* as if it was not there: some clients write every field */
	if (!json_is_object(value))
		return -EBADMSG;
	*ret = json_incref(value);
	return 0;
}

static int default_parameters(json_t **parameters)
{
	if (!*parameters)
		*parameters = json_object();
	return *parameters ? 0 : -ENOMEM;
}

static int call_field(struct varlink_call *call, const char *key, json_t *value)
{
	if (streq(key, "method"))
		return take_name(value, &call->method);
	if (streq(key, "parameters"))
		return take_parameters(value, &call->parameters);
	if (streq(key, "oneway"))
		return take_flag(value, &call->oneway);
	if (streq(key, "more"))
		return take_flag(value, &call->more);
	if (streq(key, "upgrade"))
		return take_flag(value, &call->upgrade);
	return -EBADMSG;
}

int varlink_call_parse(const char *data, size_t len, unsigned max_depth, struct varlink_call *ret)
{
	_cleanup_varlink_call_ struct varlink_call call = {0};
	_cleanup_json_ json_t *json = NULL;
	const char *key;
	json_t *value;

	int r = parse_object(data, len, max_depth, &json);
	if (r < 0)
		return r;
	json_object_foreach(json, key, value)
	{
		r = call_field(&call, key, value);
		if (r < 0)
			return r;
	}
	/* The three say what becomes of the answer, so no two go together. */
	if (!call.method || (int)call.oneway + (int)call.more + (int)call.upgrade > 1)
		return -EBADMSG;
	r = default_parameters(&call.parameters);
	if (r < 0)
		return r;
	*ret = call;
	call = (struct varlink_call){0};
	return 0;
}

static int reply_field(struct varlink_reply *reply, const char *key, json_t *value)
{
	if (streq(key, "parameters"))
		return take_parameters(value, &reply->parameters);
	if (streq(key, "continues"))
		return take_flag(value, &reply->continues);
	if (streq(key, "error"))
		return json_is_null(value) ? 0 : take_name(value, &reply->error);
	return -EBADMSG;
}

int varlink_reply_parse(const char *data, size_t len, unsigned max_depth, struct varlink_reply *ret)
{
	_cleanup_varlink_reply_ struct varlink_reply reply = {0};
	_cleanup_json_ json_t *json = NULL;
	const char *key;
	json_t *value;

	int r = parse_object(data, len, max_depth, &json);
	if (r < 0)
		return r;
	json_object_foreach(json, key, value)
	{
		r = reply_field(&reply, key, value);
		if (r < 0)
			return r;
	}
	if (reply.error && reply.continues)
		return -EBADMSG; /* an error ends the call */
	r = default_parameters(&reply.parameters);
	if (r < 0)
		return r;
	*ret = reply;
	reply = (struct varlink_reply){0};
	return 0;
}

struct write_state {
	struct buffer *to;
	int error;
};

static int write_piece(const char *data, size_t len, void *userdata)
{
	struct write_state *state = userdata;

	state->error = buffer_append(state->to, data, len);
	return state->error < 0 ? -1 : 0;
}

/* One key and its value, after "{" or ",". */
static int write_field(struct buffer *to, char before, const char *key, const json_t *value)
{
	struct write_state state = {.to = to};

	int r = buffer_printf(to, "%c\"%s\":", before, key);
	if (r < 0)
		return r;
	if (json_dump_callback(value, write_piece, &state, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
		return state.error < 0 ? state.error : -EINVAL;
	return 0;
}

static int write_string(struct buffer *to, char before, const char *key, const char *value)
{
	_cleanup_json_ json_t *json = json_string(value);

	return json ? write_field(to, before, key, json) : -EINVAL;
}

static int write_parameters(struct buffer *to, char before, const json_t *parameters)
{
	return parameters ? write_field(to, before, "parameters", parameters)
			  : buffer_printf(to, "%c\"parameters\":{}", before);
}

static int write_call(const struct varlink_call *call, struct buffer *to)
{
	int r = write_string(to, '{', "method", call->method);
	if (r < 0)
		return r;
	r = write_parameters(to, ',', call->parameters);
	if (r < 0)
		return r;
	r = buffer_printf(to, "%s%s%s}", call->oneway ? ",\"oneway\":true" : "",
		call->more ? ",\"more\":true" : "", call->upgrade ? ",\"upgrade\":true" : "");
	if (r < 0)
		return r;
	return buffer_append(to, "", 1);
}

static int write_reply(
	const json_t *parameters, bool continues, const char *error, struct buffer *to)
{
	int r = error ? write_string(to, '{', "error", error) : 0;
	if (r < 0)
		return r;
	r = write_parameters(to, error ? ',' : '{', parameters);
	if (r < 0)
		return r;
	r = buffer_printf(to, "%s}", continues ? ",\"continues\":true" : "");
	if (r < 0)
		return r;
	return buffer_append(to, "", 1);
}

/* Half a message would spoil every one behind it. */
static int whole_or_nothing(struct buffer *to, size_t len_before, int r)
{
	if (r < 0)
		to->len = len_before;
	return r;
}

int varlink_call_write(const struct varlink_call *call, struct buffer *to)
{
	size_t before = to->len;

	return whole_or_nothing(to, before, write_call(call, to));
}

int varlink_reply_write(
	const json_t *parameters, bool continues, const char *error, struct buffer *to)
{
	size_t before = to->len;

	return whole_or_nothing(to, before, write_reply(parameters, continues, error, to));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"
#include "varlink/message.h"

static int parse_call(const char *text, struct varlink_call *ret)
{
	return varlink_call_parse(text, strlen(text), VARLINK_DEPTH_MAX, ret);
}

static int parse_reply(const char *text, struct varlink_reply *ret)
{
	return varlink_reply_parse(text, strlen(text), VARLINK_DEPTH_MAX, ret);
}

START_TEST(calls)
{
	_cleanup_varlink_call_ struct varlink_call a = {0}, b = {0}, c = {0};

	ck_assert_int_eq(parse_call("{\"method\":\"a.b.C\"}", &a), 0);
	ck_assert_str_eq(a.method, "a.b.C");
	ck_assert(json_is_object(a.parameters));
	ck_assert(!a.more && !a.oneway && !a.upgrade);

	ck_assert_int_eq(parse_call(" {\"more\" : true, \"oneway\":false, "
				    "\"parameters\":{\"x\":[1]},\"method\":\"x\"}\n",
				 &b),
		0);
	ck_assert(b.more && !b.oneway);
	ck_assert_uint_eq(json_array_size(json_object_get(b.parameters, "x")), 1);

	ck_assert_int_eq(
		parse_call("{\"method\":\"x\",\"parameters\":null,\"oneway\":true}", &c), 0);
	ck_assert(json_is_object(c.parameters) && c.oneway);
}
END_TEST

static const char *const bad_calls[] = {
	"",
	" ",
	"null",
	"[]",
	"\"method\"",
	"17",
	"{}",
	"{",
	"}",
	"{\"method\":\"\"}",
	"{\"method\":null}",
	"{\"method\":7}",
	"{\"method\":[\"x\"]}",
	"{\"method\":\"x\"} x",
	"{\"method\":\"x\"}{\"method\":\"x\"}",
	"{\"method\":\"x\",\"method\":\"y\"}",
	"{\"method\":\"x\",\"parameters\":[]}",
	"{\"method\":\"x\",\"parameters\":\"{}\"}",
	"{\"method\":\"x\",\"parameters\":{\"a\":1,\"a\":2}}",
	"{\"method\":\"x\",\"more\":1}",
	"{\"method\":\"x\",\"more\":\"true\"}",
	"{\"method\":\"x\",\"More\":true}",
	"{\"method\":\"x\",\"extra\":true}",
	"{\"method\":\"x\",\"more\":true,\"oneway\":true}",
	"{\"method\":\"x\",\"more\":true,\"upgrade\":true}",
	"{\"method\":\"x\\u0000y\"}",
	"{\"method\":\"x\",\"parameters\":{\"\\u0000\":1}}",
	"{\"method\":\"\xff\xfe\"}",
	"{\"method\":\"\xed\xa0\x80\"}",
	"{\"method\":\"\\ud800\"}",
	"{\"method\":\"x\",\"parameters\":{\"a\":99999999999999999999999}}",
	"{\"method\":\"x\",\"parameters\":{\"a\":1e999}}",
	"{\"method\":\"x\",\"parameters\":{\"a\":NaN}}",
	"{\"method\":\"x\",\"parameters\":{\"a\":01}}",
	"{'method':'x'}",
	"{\"method\":\"x\",}",
	"{method:\"x\"}",
	"{\"method\":\"x",
	"{\"method\":\"x\\",
	"]]]]{\"method\":\"x\"}",
};

START_TEST(calls_that_are_none)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_calls); i++) {
		struct varlink_call call = {0};
		int r = parse_call(bad_calls[i], &call);

		ck_assert_msg(r == -EBADMSG, "<%s>: %d", bad_calls[i], r);
		ck_assert_ptr_null(call.method);
	}
	struct varlink_call call = {0};
	static const char nul[] = "{\"method\":\"x\"}\0";
	ck_assert_int_eq(varlink_call_parse(nul, sizeof(nul) - 1, 32, &call), -EBADMSG);
}
END_TEST

static char *nested(unsigned depth, char open, char close, const char *inner)
{
	char *text = calloc(1, 2 * (size_t)depth + strlen(inner) + 1);

	memset(text, open, depth);
	memcpy(text + depth, inner, strlen(inner));
	memset(text + depth + strlen(inner), close, depth);
	return text;
}

START_TEST(depth)
{
	_cleanup_free_ char *fits = nested(30, '[', ']', "\"[[[{{{\\\"[[[\""),
			    *over = nested(31, '[', ']', "");
	_cleanup_free_ char *bomb = nested(500000, '[', ']', "");
	_cleanup_free_ char *good = xasprintf("{\"method\":\"x\",\"parameters\":{\"a\":%s}}", fits);
	_cleanup_free_ char *bad = xasprintf("{\"method\":\"x\",\"parameters\":{\"a\":%s}}", over);
	_cleanup_varlink_call_ struct varlink_call call = {0}, none = {0};

	ck_assert_int_eq(parse_call(good, &call), 0);
	ck_assert_int_eq(parse_call(bad, &none), -ELOOP);
	ck_assert_int_eq(parse_call(bomb, &none), -ELOOP);
	ck_assert(varlink_too_deep("[[]]", 4, 1));
	ck_assert(!varlink_too_deep("[[]]", 4, 2));
	ck_assert(!varlink_too_deep("[][][]", 6, 1));
	ck_assert(!varlink_too_deep("\"[[\\", 4, 1));
}
END_TEST

START_TEST(replies)
{
	_cleanup_varlink_reply_ struct varlink_reply a = {0}, b = {0}, c = {0};
	struct varlink_reply none = {0};

	ck_assert_int_eq(parse_reply("{}", &a), 0);
	ck_assert(json_is_object(a.parameters) && !a.error && !a.continues);
	ck_assert_int_eq(parse_reply("{\"parameters\":{\"x\":1},\"continues\":true}", &b), 0);
	ck_assert(b.continues);
	ck_assert_int_eq(parse_reply("{\"error\":\"a.b.C\",\"parameters\":{\"m\":\"x\"}}", &c), 0);
	ck_assert_str_eq(c.error, "a.b.C");
	ck_assert_int_eq(parse_reply("{\"error\":\"a.b.C\",\"continues\":true}", &none), -EBADMSG);
	ck_assert_int_eq(parse_reply("{\"error\":3}", &none), -EBADMSG);
	ck_assert_int_eq(parse_reply("{\"reply\":{}}", &none), -EBADMSG);
	ck_assert_int_eq(parse_reply("[]", &none), -EBADMSG);
}
END_TEST

START_TEST(written_and_read_again)
{
	_cleanup_buffer_ struct buffer bytes = BUFFER_INIT(0);
	_cleanup_json_ json_t *parameters =
		json_pack("{s:s, s:f}", "text", "a\"b\\\n\xc3\xa4", "share", 2.5);
	char method[] = "io.tenured.Supervisor.List";
	const struct varlink_call call = {.method = method, .parameters = parameters, .more = true};
	_cleanup_varlink_call_ struct varlink_call again = {0};
	_cleanup_varlink_reply_ struct varlink_reply reply = {0}, error = {0};

	ck_assert_int_eq(varlink_call_write(&call, &bytes), 0);
	ck_assert_uint_eq(bytes.len, strlen((const char *)buffer_data(&bytes)) + 1);
	ck_assert_int_eq(parse_call((const char *)buffer_data(&bytes), &again), 0);
	ck_assert_str_eq(again.method, method);
	ck_assert(again.more && !again.oneway && json_equal(again.parameters, parameters));

	buffer_consume(&bytes, bytes.len);
	ck_assert_int_eq(varlink_reply_write(parameters, true, NULL, &bytes), 0);
	ck_assert_int_eq(parse_reply((const char *)buffer_data(&bytes), &reply), 0);
	ck_assert(reply.continues && !reply.error && json_equal(reply.parameters, parameters));

	buffer_consume(&bytes, bytes.len);
	ck_assert_int_eq(varlink_reply_write(NULL, false, "a.b.C", &bytes), 0);
	ck_assert_int_eq(parse_reply((const char *)buffer_data(&bytes), &error), 0);
	ck_assert_str_eq(error.error, "a.b.C");
	ck_assert_uint_eq(json_object_size(error.parameters), 0);
}
END_TEST

START_TEST(whole_or_nothing)
{
	_cleanup_json_ json_t *parameters = json_pack("{s:s}", "text", "0123456789");

	/* Whatever room there is: all of it, or the buffer as it was. */
	for (size_t limit = 3; limit < 60; limit++) {
		_cleanup_buffer_ struct buffer bytes = BUFFER_INIT(limit);

		ck_assert_int_eq(buffer_append(&bytes, "ab", 3), 0);
		int r = varlink_reply_write(parameters, false, NULL, &bytes);
		if (r == 0)
			ck_assert_uint_eq(bytes.len, 3 + 37);
		else
			ck_assert_int_eq(r, -EMSGSIZE);
		ck_assert_int_eq(r == 0, limit >= 3 + 37);
		if (r < 0)
			ck_assert_uint_eq(bytes.len, 3);
		ck_assert_str_eq((const char *)buffer_data(&bytes), "ab");
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {calls, calls_that_are_none, depth, replies,
		written_and_read_again, whole_or_nothing};

	return run_tests("varlink_message", tests, ARRAY_SIZE(tests));
}

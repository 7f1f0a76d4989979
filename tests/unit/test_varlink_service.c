/* SPDX-License-Identifier: Apache-2.0 */
/* Also what hostile bytes do to framing, message and service together: nothing. */
#include "unit.h"
#include "varlink/framing.h"
#include "varlink/service.h"

static const struct varlink_identity identity = {"v", "p", "1", "u"};

static void init(struct varlink_service *service)
{
	_cleanup_error_ struct error error = ERROR_NULL;

	ck_assert_msg(
		varlink_service_init(service, &identity, &error) == 0, "%s", error_message(&error));
}

/* What a call is answered, as text "error parameters", or "run METHOD parameters". The caller
 * frees. */
static char *outcome(const struct varlink_service *service, const char *text)
{
	_cleanup_varlink_call_ struct varlink_call call = {0};
	const struct varlink_member *method = NULL;
	struct varlink_answer answer = {0};

	ck_assert_msg(varlink_call_parse(text, strlen(text), 32, &call) == 0, "%s", text);
	int r = varlink_service_handle(service, &call, &method, &answer);
	ck_assert_int_ge(r, 0);
	_cleanup_json_ json_t *parameters =
		r > 0 ? answer.parameters : json_incref(call.parameters);
	_cleanup_free_ char *dump = json_dumps(parameters, JSON_COMPACT | JSON_SORT_KEYS);
	return r > 0 ? xasprintf("%s %s", answer.error ? answer.error : "ok", dump)
		     : xasprintf("run %s %s", method->name, dump);
}

static void expect(const struct varlink_service *service, const char *call, const char *wanted)
{
	_cleanup_free_ char *got = outcome(service, call);

	ck_assert_str_eq(got, wanted);
}

START_TEST(answers)
{
	struct varlink_service s;

	init(&s);
	expect(&s, "{\"method\":\"org.varlink.service.GetInfo\"}",
		"ok {\"interfaces\":[\"org.varlink.service\",\"io.tenured.Supervisor\"],"
		"\"product\":\"p\",\"url\":\"u\",\"vendor\":\"v\",\"version\":\"1\"}");
	expect(&s, "{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":{\"x\":1}}",
		VARLINK_INVALID_PARAMETER " {\"parameter\":\"x\"}");
	expect(&s, "{\"method\":\"org.varlink.service.GetInterfaceDescription\"}",
		VARLINK_INVALID_PARAMETER " {\"parameter\":\"interface\"}");
	expect(&s,
		"{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{"
		"\"interface\":\"a.b\"}}",
		VARLINK_INTERFACE_NOT_FOUND " {\"interface\":\"a.b\"}");
	expect(&s, "{\"method\":\"a.b.C\"}",
		VARLINK_INTERFACE_NOT_FOUND " {\"interface\":\"a.b\"}");
	expect(&s, "{\"method\":\"List\"}", VARLINK_METHOD_NOT_FOUND " {\"method\":\"List\"}");
	expect(&s, "{\"method\":\".\"}", VARLINK_INTERFACE_NOT_FOUND " {\"interface\":\"\"}");
	expect(&s, "{\"method\":\"io.tenured.Supervisor.\"}",
		VARLINK_METHOD_NOT_FOUND " {\"method\":\"io.tenured.Supervisor.\"}");
	/* Types and errors are no methods. */
	expect(&s, "{\"method\":\"io.tenured.Supervisor.Service\"}",
		VARLINK_METHOD_NOT_FOUND " {\"method\":\"io.tenured.Supervisor.Service\"}");
	expect(&s, "{\"method\":\"io.tenured.Supervisor.List\",\"upgrade\":true}",
		VARLINK_METHOD_NOT_IMPLEMENTED " {\"method\":\"io.tenured.Supervisor.List\"}");
	varlink_service_done(&s);
}
END_TEST

START_TEST(called_with)
{
	struct varlink_service s;

	init(&s);
	expect(&s, "{\"method\":\"io.tenured.Supervisor.List\"}", "run List {}");
	expect(&s, "{\"method\":\"io.tenured.Supervisor.List\",\"parameters\":{\"service\":null}}",
		"run List {}");
	expect(&s,
		"{\"method\":\"io.tenured.Supervisor.Upgrade\",\"parameters\":"
		"{\"service\":\"web\",\"steps\":[5,25.5],\"strategy\":null,\"pauseAt\":null}}",
		"run Upgrade {\"service\":\"web\",\"steps\":[5,25.5]}");
	expect(&s, "{\"method\":\"io.tenured.Supervisor.Upgrade\",\"parameters\":{\"steps\":[5]}}",
		VARLINK_INVALID_PARAMETER " {\"parameter\":\"service\"}");
	expect(&s,
		"{\"method\":\"io.tenured.Supervisor.Upgrade\",\"parameters\":"
		"{\"service\":\"web\",\"steps\":[5,\"25\"]}}",
		VARLINK_INVALID_PARAMETER " {\"parameter\":\"steps[1]\"}");
	expect(&s,
		"{\"method\":\"io.tenured.Supervisor.Scale\",\"parameters\":{\"service\":\"web\","
		"\"worker\":3}}",
		VARLINK_INVALID_PARAMETER " {\"parameter\":\"workers\"}");
	varlink_service_done(&s);
}
END_TEST

START_TEST(bad_name_at_the_cut)
{
	struct varlink_service s;
	char text[600] = "{\"method\":\"io.tenured.Supervisor.List\",\"parameters\":{\"";

	/* Two bytes a character: whatever the length, some cut is inside one. */
	init(&s);
	for (size_t shift = 0; shift < 2; shift++) {
		char *p = text +
			  strlen("{\"method\":\"io.tenured.Supervisor.List\",\"parameters\":{\"");

		memset(p, 'x', shift);
		for (size_t i = 0; i < 100; i++)
			memcpy(p + shift + 2 * i, "\xc3\xa4", 3);
		strcat(text, "\":1}}");
		_cleanup_free_ char *got = outcome(&s, text);
		ck_assert_ptr_nonnull(
			startswith(got, VARLINK_INVALID_PARAMETER " {\"parameter\":\""));
	}
	varlink_service_done(&s);
}
END_TEST

static bool fits(
	const struct varlink_service *s, const char *method, const char *error, const char *text)
{
	_cleanup_json_ json_t *parameters = json_loads(text, 0, NULL);
	char path[VARLINK_PATH_MAX];

	ck_assert_ptr_nonnull(parameters);
	return varlink_service_accepts_reply(s,
		varlink_interface_find(s->supervisor, VARLINK_METHOD, method), error, parameters,
		path);
}

START_TEST(replies)
{
	struct varlink_service s;

	init(&s);
	ck_assert(fits(&s, "List", NULL, "{\"services\":[]}"));
	ck_assert(!fits(&s, "List", NULL, "{}"));
	ck_assert(!fits(&s, "List", NULL, "{\"services\":[{\"name\":\"web\"}]}"));
	ck_assert(fits(&s, "Pause", NULL, "{}"));
	ck_assert(!fits(&s, "Pause", NULL, "{\"done\":true}"));
	ck_assert(fits(&s, "List", VARLINK_SUPERVISOR ".NoSuchService",
		"{\"service\":\"a\",\"known\":[\"b\"]}"));
	ck_assert(!fits(&s, "List", VARLINK_SUPERVISOR ".NoSuchService", "{\"service\":\"a\"}"));
	ck_assert(!fits(&s, "List", VARLINK_SUPERVISOR ".NoSuchError", "{}"));
	ck_assert(!fits(&s, "List", "NoSuchService", "{}"));
	ck_assert(fits(&s, "List", VARLINK_INVALID_PARAMETER, "{\"parameter\":\"x\"}"));
	ck_assert(fits(&s, "List", VARLINK_EXPECTED_MORE, "{}"));
	varlink_service_done(&s);
}
END_TEST

static uint32_t state;
static uint32_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static void feed(const struct varlink_service *s, const char *bytes, size_t len)
{
	struct varlink_framing f = VARLINK_FRAMING_INIT(4096);
	size_t done = 0;

	while (done < len) {
		size_t random = 1 + next_random() % 64, n = MIN(len - done, random);
		const char *message;
		size_t message_len;

		if (varlink_framing_append(&f, bytes + done, n) < 0)
			break;
		done += n;
		while (varlink_framing_peek(&f, &message, &message_len)) {
			_cleanup_varlink_call_ struct varlink_call call = {0};
			const struct varlink_member *method = NULL;
			struct varlink_answer answer = {0};

			if (varlink_call_parse(message, message_len, 32, &call) == 0) {
				int r = varlink_service_handle(s, &call, &method, &answer);

				ck_assert(r == 0 ? method != NULL : r == 1);
				json_decref(answer.parameters);
			}
			varlink_framing_pop(&f);
		}
	}
	varlink_framing_done(&f);
}

START_TEST(mutations)
{
	static const char stream[] = "{\"method\":\"io.tenured.Supervisor.Upgrade\",\"parameters\":"
				     "{\"service\":\"web\",\"steps\":[5,25.5],"
				     "\"soakUsec\":5000000,\"waitDrain\":true},\"more\":true}\0"
				     "{\"method\":\"org.varlink.service.GetInfo\"}\0"
				     "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
				     "\"parameters\":{\"interface\":"
				     "\"io.tenured.Supervisor\"}}\0"
				     "{\"method\":\"io.tenured.Supervisor.Reload\",\"oneway\":true,"
				     "\"parameters\":{\"upgrade\":null}}";
	static const char spice[] = "{}[]\",:\\0123456789.-eE+ntfu\0\xff\xc3\x80 \n";
	struct varlink_service s;

	init(&s);
	for (uint32_t seed = 1; seed <= 20000; seed++) {
		char bytes[2 * sizeof(stream)];
		size_t len = sizeof(stream);

		state = seed * 2654435761U | 1;
		memcpy(bytes, stream, len);
		for (uint32_t n = 1 + next_random() % 6; n > 0; n--) {
			size_t at = next_random() % len, other = next_random() % len;
			size_t most = MIN(len - at, len - other), random = next_random() % 20;
			size_t span = MIN(most, random);

			switch (next_random() % 4) {
			case 0:
				bytes[at] = (char)next_random();
				break;
			case 1:
				bytes[at] = spice[next_random() % sizeof(spice)];
				break;
			case 2:
				memmove(bytes + at, bytes + other, span);
				break;
			default:
				memmove(bytes + at, bytes + at + span, len - at - span);
				len -= len > span + 1 ? span : 0;
				break;
			}
		}
		feed(&s, bytes, len);
	}
	varlink_service_done(&s);
}
END_TEST

START_TEST(mutated_interfaces)
{
	size_t len = strlen(varlink_supervisor_text);
	_cleanup_free_ char *text = malloc(len + 1);
	size_t n_good = 0;

	for (uint32_t seed = 1; seed <= 3000; seed++) {
		struct varlink_interface *interface = NULL;

		state = seed * 2654435761U | 1;
		memcpy(text, varlink_supervisor_text, len + 1);
		for (uint32_t n = 1 + next_random() % 3; n > 0; n--)
			text[next_random() % len] = "()[]?:,#\n aA->_0\0\xff"[next_random() % 18];
		if (varlink_interface_parse(text, &interface, NULL) == 0)
			n_good++;
		varlink_interface_free(interface);
	}
	ck_assert_uint_gt(n_good, 0);
	ck_assert_uint_lt(n_good, 3000);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		answers, called_with, bad_name_at_the_cut, replies, mutations, mutated_interfaces};

	return run_tests("varlink_service", tests, ARRAY_SIZE(tests));
}

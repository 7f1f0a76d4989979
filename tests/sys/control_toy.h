/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of the control socket: a server with toy methods, and its clients in the same
 * process: whoever waits turns the event loop. */
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "base/clock.h"
#include "daemon/control_conn.h"
#include "../unit/unit.h"

#define SUPERVISOR "io.tenured.Supervisor."
#define CALL(method) "{\"method\":\"" SUPERVISOR method "\"}"
#define CALL_SERVICE(method)                                                                       \
	"{\"method\":\"" SUPERVISOR method "\",\"parameters\":{\"service\":\"web\"}}"
#define UPGRADE_MORE                                                                               \
	"{\"method\":\"" SUPERVISOR "Upgrade\",\"parameters\":{\"service\":\"web\"},\"more\":"     \
	"true}"

enum { NOBODY = 65534 };

static struct toy {
	sd_event *event;
	struct control_server *server;
	struct control_server_options options;
	char directory[64], path[96];
	struct control_call *held[64]; /* what Upgrade took */
	unsigned n_held, n_gone, n_calls, n_bad_replies, n_reports;
	char bad_field[64];
} toy;

static inline void on_gone(struct control_call *call, void *userdata)
{
	ck_assert_ptr_eq(userdata, &toy);
	ck_assert(control_call_is_over(call));
	ck_assert_ptr_null(control_call_peer(call));
	toy.n_gone++;
}

static inline int dispatch(
	struct control_call *call, const char *method, json_t *parameters, void *userdata)
{
	ck_assert_ptr_eq(userdata, &toy);
	ck_assert(json_is_object(parameters));
	toy.n_calls++;
	if (streq(method, "List"))
		return control_call_reply(call, json_pack("{s:[]}", "services"));
	if (streq(method, "Pause"))
		return control_call_require(call, CONTROL_OPERATOR) ? control_call_reply(call, NULL)
								    : 0;
	if (streq(method, "Upgrade")) {
		control_call_on_gone(call, on_gone, &toy);
		toy.held[toy.n_held++] = control_call_ref(call);
		return 0;
	}
	if (streq(method, "Diff"))
		return -EIO;
	if (streq(method, "Reload"))
		return control_call_reply(call, json_pack("{s:i}", "nonsense", 1));
	return 0; /* nor does anybody answer later */
}

static inline void on_bad_reply(const char *method, const char *field, void *userdata)
{
	(void)userdata;
	toy.n_bad_replies++;
	(void)snprintf(toy.bad_field, sizeof(toy.bad_field), "%s %s", method, field);
}

static inline void on_report(int priority, const char *message, void *userdata)
{
	(void)priority;
	(void)userdata;
	ck_assert(message[0]);
	toy.n_reports++;
}

static const struct control_server_ops ops = {
	.dispatch = dispatch, .report = on_report, .bad_reply = on_bad_reply, .userdata = &toy};

static inline void start(struct control_limits limits)
{
	_cleanup_error_ struct error error = ERROR_NULL;

	toy.options.limits = limits;
	int r = control_server_new(toy.event, &toy.options, &ops, &toy.server, &error);
	ck_assert_msg(r == 0, "%s", error_message(&error));
}

static inline void setup(void)
{
	memset(&toy, 0, sizeof(toy));
	strcpy(toy.directory, "/tmp/control.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(toy.directory));
	ck_assert_int_eq(chmod(toy.directory, 0755), 0);
	(void)snprintf(toy.path, sizeof(toy.path), "%s/a/control.sock", toy.directory);
	toy.options =
		(struct control_server_options){.path = toy.path, .mode = 0666, .listen_fd = -1};
	ck_assert_int_ge(sd_event_new(&toy.event), 0);
}

static inline void teardown(void)
{
	char a[96];

	for (unsigned i = 0; i < toy.n_held; i++)
		toy.held[i] = control_call_unref(toy.held[i]);
	toy.server = control_server_free(toy.server);
	toy.event = sd_event_unref(toy.event);
	/* The path went with the server. */
	(void)snprintf(a, sizeof(a), "%s/a", toy.directory);
	ck_assert_int_eq(access(toy.path, F_OK), -1);
	(void)rmdir(a);
	ck_assert_int_eq(rmdir(toy.directory), 0);
}

static inline uint64_t now_usec(void)
{
	return monotonic_usec();
}

/* Let the server do all it can at once; wait at most this long for the first of it. */
static inline unsigned turn(uint64_t wait_usec)
{
	unsigned n = 0;
	int r;

	while ((r = sd_event_run(toy.event, n == 0 ? wait_usec : 0)) > 0)
		n++;
	ck_assert_int_eq(r, 0);
	return n;
}

static inline int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(address.sun_path, path);
	ck_assert_int_ge(fd, 0);
	ck_assert_msg(
		connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %m", path);
	return fd;
}

static inline int connect_client(void)
{
	return connect_to(toy.path);
}

/* For root only. */
static inline int connect_as_nobody(void)
{
	ck_assert_int_eq(setegid(NOBODY), 0);
	ck_assert_int_eq(seteuid(NOBODY), 0);
	int fd = connect_client();
	ck_assert_int_eq(seteuid(0), 0);
	ck_assert_int_eq(setegid(0), 0);
	return fd;
}

static inline void say_bytes(int fd, const char *bytes, size_t len)
{
	ck_assert_int_eq(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

static inline void say(int fd, const char *text)
{
	say_bytes(fd, text, strlen(text) + 1);
}

/* The next message: "" at the end of the stream; fails after 3 s. The caller frees. */
static inline char *hear(int fd)
{
	uint64_t end_usec = now_usec() + 3 * USEC_PER_SEC;
	char *text = calloc(1, 200000);
	size_t len = 0;

	for (;;) {
		ssize_t n = recv(fd, text + len, 1, 0);

		if (n < 0 && errno == EAGAIN) {
			ck_assert_msg(now_usec() < end_usec, "no answer, only <%s>", text);
			(void)turn(10 * USEC_PER_MSEC);
			continue;
		}
		if (n <= 0) {
			ck_assert_uint_eq(len, 0);
			return text;
		}
		if (text[len++] == '\0')
			return text;
		ck_assert_uint_lt(len, 199999);
	}
}

static inline void expect(int fd, const char *wanted)
{
	_cleanup_free_ char *got = hear(fd);

	ck_assert_str_eq(got, wanted);
}

static inline void expect_start(int fd, const char *wanted)
{
	_cleanup_free_ char *got = hear(fd);

	ck_assert_msg(startswith(got, wanted) != NULL, "<%s> is not <%s...>", got, wanted);
}

static inline void expect_silence(int fd)
{
	char c;

	(void)turn(0);
	(void)turn(20 * USEC_PER_MSEC);
	ck_assert_int_eq(recv(fd, &c, 1, MSG_PEEK), -1);
	ck_assert_int_eq(errno, EAGAIN);
}

static inline void expect_served(int fd)
{
	say(fd, CALL("List"));
	expect(fd, "{\"parameters\":{\"services\":[]}}");
}

static inline json_t *progress(bool done)
{
	return json_pack("{s:{s:s, s:b}}", "progress", "message", "m", "done", done);
}
#define PROGRESS(done) "{\"parameters\":{\"progress\":{\"message\":\"m\",\"done\":" done "}}"

static inline int run_toy_tests(const char *name, const TTest *const *tests, size_t n_tests)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 20);
	for (size_t i = 0; i < n_tests; i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* One connection to the control socket: its calls, and what clients do to it. */
#include "control_toy.h"

START_TEST(answers)
{
	start((struct control_limits){0});
	_cleanup_close_ int fd = connect_client();

	say(fd, "{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":{}}");
	expect_start(fd, "{\"parameters\":{\"vendor\":\"tenured\"");
	say(fd, "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{"
		"\"interface\":"
		"\"io.tenured.Supervisor\"}}");
	expect_start(fd, "{\"parameters\":{\"description\":\"# Control of tenured");
	expect_served(fd);
	say(fd, CALL("Nonsense"));
	expect(fd, "{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{\"method\":"
		   "\"" SUPERVISOR "Nonsense\"}}");
	say(fd, CALL("Pause"));
	expect(fd, "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{"
		   "\"parameter\":\"service\"}}");
	say(fd, CALL_SERVICE("Pause"));
	expect(fd, "{\"parameters\":{}}");
	/* A method that fails, and one that forgets to answer. */
	say(fd, CALL("Diff"));
	expect(fd, "{\"error\":\"" SUPERVISOR
		   "Failed\",\"parameters\":{\"message\":\"Input/output error\"}}");
	say(fd, CALL_SERVICE("History"));
	expect_start(fd, "{\"error\":\"" SUPERVISOR "Failed\"");
	ck_assert_uint_eq(toy.n_bad_replies, 0);
	say(fd, CALL("Reload"));
	expect(fd, "{\"parameters\":{\"nonsense\":1}}");
	ck_assert_uint_eq(toy.n_bad_replies, 1);
	ck_assert_str_eq(toy.bad_field, "Reload changes");
	expect_silence(fd);
}
END_TEST

START_TEST(one_at_a_time)
{
	start((struct control_limits){0});
	_cleanup_close_ int fd = connect_client();
	static const char three[] = CALL("List") "\0" CALL_SERVICE("Upgrade") "\0" CALL("List");

	say_bytes(fd, three, sizeof(three));
	expect(fd, "{\"parameters\":{\"services\":[]}}");
	expect_silence(fd);
	ck_assert_uint_eq(toy.n_calls, 2);
	ck_assert_uint_eq(toy.n_held, 1);
	ck_assert(!control_call_wants_more(toy.held[0]));
	/* Progress nobody asked for. */
	ck_assert_int_eq(control_call_notify(toy.held[0], progress(false)), 0);
	expect_silence(fd);
	ck_assert_int_eq(control_call_reply(toy.held[0], progress(true)), 0);
	ck_assert(control_call_is_over(toy.held[0]));
	ck_assert_int_eq(control_call_reply(toy.held[0], progress(true)), -ESTALE);
	/* The answer does not run the next call itself. */
	ck_assert_uint_eq(toy.n_calls, 2);
	expect(fd, PROGRESS("true") "}");
	expect(fd, "{\"parameters\":{\"services\":[]}}");
	ck_assert_uint_eq(toy.n_gone, 0);

	/* A hundred in one breath come back in order, though they are taken in turns. */
	for (int i = 0; i < 100; i++)
		say(fd, i % 2 ? CALL("List") : CALL("Diff"));
	for (int i = 0; i < 100; i++)
		expect_start(fd, i % 2 ? "{\"parameters\"" : "{\"error\"");
	expect_silence(fd);
}
END_TEST

START_TEST(several_answers)
{
	start((struct control_limits){0});
	_cleanup_close_ int fd = connect_client();

	say(fd, UPGRADE_MORE);
	(void)turn(0);
	(void)turn(0);
	ck_assert_uint_eq(toy.n_held, 1);
	ck_assert(control_call_wants_more(toy.held[0]));
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(control_call_notify(toy.held[0], progress(false)), 0);
	ck_assert_int_eq(
		control_call_error(toy.held[0], "NoRollout", json_pack("{s:s}", "service", "w")),
		0);
	for (int i = 0; i < 3; i++)
		expect(fd, PROGRESS("false") ",\"continues\":true}");
	expect(fd, "{\"error\":\"" SUPERVISOR "NoRollout\",\"parameters\":{\"service\":\"w\"}}");
	expect_served(fd);
	ck_assert_uint_eq(toy.n_bad_replies, 0);
}
END_TEST

START_TEST(oneway)
{
	start((struct control_limits){0});
	_cleanup_close_ int fd = connect_client();

	say(fd, "{\"method\":\"" SUPERVISOR "Diff\",\"oneway\":true}");
	say(fd, "{\"method\":\"" SUPERVISOR "Nonsense\",\"oneway\":true}");
	say(fd, "{\"method\":\"" SUPERVISOR
		"Upgrade\",\"parameters\":{\"service\":\"web\"},\"oneway\":true}");
	say(fd, CALL("List"));
	expect_silence(fd); /* the upgrade is still being answered */
	ck_assert_int_eq(control_call_notify(toy.held[0], progress(false)), 0);
	ck_assert_int_eq(control_call_reply(toy.held[0], progress(true)), 0);
	expect(fd, "{\"parameters\":{\"services\":[]}}");
	expect_silence(fd);

	/* What was asked for counts, also when the client does not wait: oneway, all of it. */
	toy.n_calls = 0;
	for (int i = 0; i < 2; i++)
		say(fd, "{\"method\":\"" SUPERVISOR
			"Upgrade\",\"parameters\":{\"service\":\"web\"},\"oneway\":true}");
	say(fd, CALL_SERVICE("Pause"));
	fd = close_fd(fd);
	(void)turn(0);
	(void)turn(0);
	ck_assert_uint_eq(toy.n_calls, 1);
	/* The hangup is not looked at again and again meanwhile. */
	ck_assert_uint_eq(turn(20 * USEC_PER_MSEC), 0);
	ck_assert_int_eq(control_call_reply(toy.held[1], progress(true)), 0);
	(void)turn(0);
	ck_assert_uint_eq(toy.n_calls, 2);
	ck_assert_int_eq(control_call_reply(toy.held[2], progress(true)), 0);
	(void)turn(0);
	(void)turn(0);
	ck_assert_uint_eq(toy.n_calls, 3);
	ck_assert_uint_eq(control_server_n_connections(toy.server), 0);
	ck_assert_uint_eq(toy.n_gone, 0);
}
END_TEST

START_TEST(client_goes_away)
{
	start((struct control_limits){0});
	_cleanup_close_ int fd = connect_client(), other = connect_client(),
			    half = connect_client();

	say(fd, UPGRADE_MORE);
	expect_served(other);
	ck_assert_uint_eq(toy.n_held, 1);
	const char *who = control_call_peer_text(toy.held[0]);
	ck_assert_ptr_nonnull(strstr(who, " (pid "));
	ck_assert_int_eq(control_call_role(toy.held[0]), CONTROL_OPERATOR);
	ck_assert_uint_eq(control_call_peer(toy.held[0])->uid, getuid());
	fd = close_fd(fd);
	(void)turn(0);
	ck_assert_uint_eq(toy.n_gone, 1);
	ck_assert_uint_eq(control_server_n_connections(toy.server), 2);
	ck_assert_int_eq(control_call_notify(toy.held[0], progress(false)), -ENOTCONN);
	ck_assert_int_eq(control_call_reply(toy.held[0], progress(true)), -ENOTCONN);
	ck_assert_str_eq(control_call_method(toy.held[0]), "Upgrade");
	ck_assert_ptr_eq(control_call_peer_text(toy.held[0]), who);
	expect_served(other);

	/* One that says no more may still listen. */
	say(half, CALL_SERVICE("Upgrade"));
	ck_assert_int_eq(shutdown(half, SHUT_WR), 0);
	expect_silence(half);
	ck_assert_uint_eq(toy.n_gone, 1);
	ck_assert_int_eq(control_call_reply(toy.held[1], progress(true)), 0);
	expect(half, PROGRESS("true") "}");
	expect(half, "");
	ck_assert_uint_eq(control_server_n_connections(toy.server), 1);
}
END_TEST

START_TEST(client_does_not_read)
{
	start((struct control_limits){.output = 256 * 1024});
	_cleanup_close_ int slow = connect_client(), other = connect_client();
	unsigned n = 0;
	int r;

	say(slow, UPGRADE_MORE);
	expect_served(other);
	while ((r = control_call_notify(toy.held[0], progress(false))) == 0)
		ck_assert_uint_lt(n++, 100000);
	ck_assert_int_eq(r, -ENOBUFS);
	ck_assert_uint_gt(n, 256 * 1024 / 100);
	/* It is told from the loop, not from inside the call. */
	ck_assert_uint_eq(toy.n_gone, 0);
	ck_assert_int_eq(control_call_notify(toy.held[0], progress(false)), -ENOTCONN);
	expect_served(other);
	ck_assert_uint_eq(toy.n_gone, 1);
	ck_assert_uint_eq(control_server_n_connections(toy.server), 1);
	ck_assert_uint_eq(toy.n_reports, 1);

	/* One that reads late gets all of it. */
	_cleanup_close_ int late = connect_client();
	say(late, UPGRADE_MORE);
	expect_served(other);
	for (unsigned i = 0; i < n - 10; i++)
		ck_assert_int_eq(control_call_notify(toy.held[1], progress(false)), 0);
	for (unsigned i = 0; i < n - 10; i++)
		expect(late, PROGRESS("false") ",\"continues\":true}");
	ck_assert_int_eq(control_call_reply(toy.held[1], progress(true)), 0);
	expect(late, PROGRESS("true") "}");
}
END_TEST

START_TEST(client_stalls)
{
	start((struct control_limits){.stall_usec = 150 * USEC_PER_MSEC});
	_cleanup_close_ int idle = connect_client(), begun = connect_client(),
			    waiting = connect_client();
	_cleanup_close_ int deaf = connect_client();
	uint64_t begin_usec = now_usec();

	say(waiting, CALL_SERVICE("Upgrade"));
	say_bytes(waiting, "{", 1); /* begun, but it is we who do not read on */
	say(deaf, UPGRADE_MORE);
	(void)turn(0);
	(void)turn(0);
	ck_assert_uint_eq(toy.n_held, 2);
	struct control_call *of_deaf =
		control_call_wants_more(toy.held[0]) ? toy.held[0] : toy.held[1];
	struct control_call *of_waiting = of_deaf == toy.held[0] ? toy.held[1] : toy.held[0];
	for (unsigned i = 0; i < 10000; i++)
		ck_assert_int_eq(control_call_notify(of_deaf, progress(false)), 0);
	/* Byte by byte is no way to hold it for longer. */
	for (int i = 0; now_usec() < begin_usec + 500 * USEC_PER_MSEC; i++) {
		(void)send(begun, "{", 1, MSG_NOSIGNAL);
		(void)turn(20 * USEC_PER_MSEC);
	}
	expect(begun, "");
	ck_assert_uint_eq(toy.n_gone, 1);
	ck_assert(control_call_is_over(of_deaf));
	ck_assert(!control_call_is_over(of_waiting));
	ck_assert_uint_eq(control_server_n_connections(toy.server), 2);
	ck_assert_int_eq(control_call_reply(of_waiting, progress(true)), 0);
	expect(waiting, PROGRESS("true") "}");
	expect(waiting, ""); /* now its own time has run out */
	expect_served(idle);
}
END_TEST

START_TEST(hostile_bytes)
{
	static const char *const bad[] = {"", "{}", "[]", "hello", "GET / HTTP/1.1\r\n\r\n",
		"{\"method\":1}", "{\"method\":\"x\",\"more\":\"yes\"}", "\xff\xff",
		"{\"method\":\"x\",\"method\":\"x\"}"};
	_cleanup_free_ char *deep = calloc(1, 50000), *big = calloc(1, 70000);

	start((struct control_limits){.message = 65536});
	_cleanup_close_ int other = connect_client();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_close_ int fd = connect_client();

		say(fd, bad[i]);
		say(fd, CALL("List"));
		expect(fd, "");
		expect_served(other);
	}
	memset(deep, '[', 49999);
	memset(big, ' ', 69999);
	_cleanup_close_ int a = connect_client(), b = connect_client();
	say(a, deep);
	expect(a, "");
	say_bytes(b, big, 69999);
	expect(b, "");
	expect_served(other);
	ck_assert_uint_eq(control_server_n_connections(toy.server), 1);
	ck_assert_uint_eq(toy.n_calls, ARRAY_SIZE(bad) + 1);
	/* Many complaints, one line. */
	ck_assert_uint_eq(toy.n_reports, 1);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {answers, one_at_a_time, several_answers, oneway,
		client_goes_away, client_does_not_read, client_stalls, hostile_bytes};

	return run_toy_tests("control_conn", tests, ARRAY_SIZE(tests));
}

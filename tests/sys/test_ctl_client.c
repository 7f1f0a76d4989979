/* SPDX-License-Identifier: Apache-2.0 */
/* tenurectl's client against a server that says what the test tells it to: a child with a script.
 */
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "../unit/unit.h"
#include "ctl/client.h"

#define SECOND USEC_PER_SEC

static int listen_fd = -1;
static pid_t server = -1;

/* A name of the kernel's choice. The caller frees. */
static char *listen_somewhere(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(address);

	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(listen_fd, 0);
	ck_assert_int_eq(bind(listen_fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
	ck_assert_int_eq(listen(listen_fd, 0), 0);
	ck_assert_int_eq(getsockname(listen_fd, (struct sockaddr *)&address, &len), 0);
	return xasprintf("@%.*s", (int)(len - offsetof(struct sockaddr_un, sun_path) - 1),
		address.sun_path + 1);
}

/* Wait for one message, send bytes in two pieces, hold the connection for so long. */
static void serve(const char *bytes, size_t len, unsigned hold_msec)
{
	server = fork();
	ck_assert_int_ge(server, 0);
	if (server > 0)
		return;

	int fd = accept(listen_fd, NULL, NULL);
	char c = 1;
	while (c != '\0' && recv(fd, &c, 1, 0) == 1)
		;
	if (send(fd, bytes, len / 2, MSG_NOSIGNAL) < 0)
		_exit(1);
	usleep(10000);
	if (send(fd, bytes + len / 2, len - len / 2, MSG_NOSIGNAL) < 0)
		_exit(1);
	usleep(hold_msec * 1000);
	_exit(0);
}

static void done(void)
{
	if (server > 0)
		ck_assert_int_eq(waitpid(server, NULL, 0), server);
	server = -1;
	listen_fd = close_fd(listen_fd);
}

START_TEST(answers)
{
	static const char reply[] = "{\"parameters\":{\"services\":[]}}";
	_cleanup_free_ char *path = listen_somewhere();
	_cleanup_client_ struct client client = CLIENT_NULL;
	_cleanup_varlink_reply_ struct varlink_reply r = {0};

	serve(reply, sizeof(reply), 0);
	ck_assert_int_eq(client_connect(path, &client), 0);
	ck_assert_int_eq(client_call(&client, CLIENT_INTERFACE "List", NULL, SECOND, &r), 0);
	ck_assert_ptr_null(r.error);
	ck_assert(json_is_array(json_object_get(r.parameters, "services")));
	done();
}
END_TEST

START_TEST(an_error_is_an_answer)
{
	static const char reply[] = "{\"error\":\"io.tenured.Supervisor.NoRollout\",\"parameters\":"
				    "{\"service\":\"web\"}}";
	_cleanup_free_ char *path = listen_somewhere();
	_cleanup_client_ struct client client = CLIENT_NULL;
	_cleanup_varlink_reply_ struct varlink_reply r = {0};

	serve(reply, sizeof(reply), 0);
	ck_assert_int_eq(client_connect(path, &client), 0);
	ck_assert_int_eq(client_call(&client, CLIENT_INTERFACE "List", NULL, SECOND, &r), 0);
	ck_assert_str_eq(r.error, CLIENT_INTERFACE "NoRollout");
	done();
}
END_TEST

START_TEST(several_answers)
{
	static const char replies[] = "{\"parameters\":{\"n\":0},\"continues\":true}\0"
				      "{\"parameters\":{\"n\":1},\"continues\":true}\0"
				      "{\"parameters\":{\"n\":2}}";
	_cleanup_free_ char *path = listen_somewhere();
	_cleanup_client_ struct client client = CLIENT_NULL;

	serve(replies, sizeof(replies), 0);
	ck_assert_int_eq(client_connect(path, &client), 0);
	ck_assert_int_eq(client_send(&client, CLIENT_INTERFACE "Events", NULL, true, SECOND), 0);
	for (int i = 0; i < 3; i++) {
		_cleanup_varlink_reply_ struct varlink_reply r = {0};

		ck_assert_int_eq(client_wait(&client, SECOND, &r), 0);
		ck_assert_int_eq(json_integer_value(json_object_get(r.parameters, "n")), i);
		ck_assert_int_eq(r.continues, i < 2);
	}
	done();
}
END_TEST

START_TEST(no_answer)
{
	static const char half[] = "{\"parameters\":{";
	_cleanup_free_ char *path = listen_somewhere();
	_cleanup_client_ struct client client = CLIENT_NULL;
	struct varlink_reply r = {0};

	serve(half, sizeof(half) - 1, 200);
	ck_assert_int_eq(client_connect(path, &client), 0);
	ck_assert_int_eq(
		client_call(&client, CLIENT_INTERFACE "List", NULL, 50 * USEC_PER_MSEC, &r),
		-ETIMEDOUT);
	ck_assert_int_eq(client_take(&client, &r), 0);
	/* Then it dies in the middle. */
	ck_assert_int_eq(client_wait(&client, 5 * SECOND, &r), -ECONNRESET);
	done();
}
END_TEST

START_TEST(not_varlink)
{
	static const char reply[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
	_cleanup_free_ char *path = listen_somewhere();
	_cleanup_client_ struct client client = CLIENT_NULL;
	struct varlink_reply r = {0};

	serve(reply, sizeof(reply), 0);
	ck_assert_int_eq(client_connect(path, &client), 0);
	ck_assert_int_eq(client_call(&client, CLIENT_INTERFACE "List", NULL, SECOND, &r), -EBADMSG);
	done();
}
END_TEST

START_TEST(nobody_there)
{
	_cleanup_free_ char *path = listen_somewhere();
	struct client client = CLIENT_NULL;

	done();
	ck_assert_int_eq(client_connect(path, &client), -ECONNREFUSED);
	ck_assert_int_eq(client_connect("/nonexistent/x.sock", &client), -ENOENT);
	ck_assert_int_eq(client.fd, -1);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {answers, an_error_is_an_answer, several_answers, no_answer,
		not_varlink, nobody_there};

	return run_tests("ctl_client", tests, ARRAY_SIZE(tests));
}

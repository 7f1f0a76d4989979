/* SPDX-License-Identifier: Apache-2.0 */
/* Each convention to the letter: what its own programs parse. */
#include "core/dialect.h"

#include "unit.h"

/* --- what workers are told ------------------------------------------------ */

enum { MANY = CONFIG_LISTENERS_MAX };

static struct dialect_listener listeners[MANY];
static char names[MANY][16];

/* Addresses as a configuration has them, in fd order, called l0, l1 ... */
static struct dialect_request request_of(unsigned handoff, const char *const *addresses)
{
	struct dialect_request r = {.handoff = handoff,
		.listeners = listeners,
		.generation = 7,
		.worker = 2,
		.master_pid = 4321,
		.einhorn_fd = -1};

	for (; addresses[r.n_listeners]; r.n_listeners++) {
		size_t i = r.n_listeners;

		snprintf(names[i], sizeof(names[i]), "l%zu", i);
		listeners[i] = (struct dialect_listener){
			.name = names[i], .fd = dialect_listener_fd(handoff, i)};
		ck_assert_int_eq(address_parse(addresses[i], false, &listeners[i].address), 0);
	}
	return r;
}

static char *lines_of(const struct dialect_request *r)
{
	_cleanup_strv_ char **env = NULL;
	char *all = strdup("");

	ck_assert_int_eq(dialect_environment(r, &env, NULL), 0);
	for (size_t i = 0; env && env[i]; i++) {
		char *longer = xasprintf("%s%s\n", all, env[i]);

		free(all);
		all = longer;
	}
	return all;
}

#define ADDRESSES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void assert_told(unsigned handoff, const char *const *addresses, const char *expected)
{
	const struct dialect_request r = request_of(handoff, addresses);
	_cleanup_free_ char *lines = lines_of(&r);

	ck_assert_str_eq(lines, expected);
}

#define FOUR ADDRESSES("[::]:8080", "127.0.0.1:80", "[::1]:81", "unix:/run/x.sock")

START_TEST(to_the_letter)
{
	assert_told(HANDOFF_LISTEN_FDS, FOUR,
		"LISTEN_FDS=4\nLISTEN_FDNAMES=l0:l1:l2:l3\nLISTEN_PID=0000000000\n");
	assert_told(HANDOFF_SERVER_STARTER, FOUR,
		"SERVER_STARTER_PORT=8080=3;127.0.0.1:80=4;[::1]:81=5;/run/x.sock=6\n"
		"SERVER_STARTER_GENERATION=7\n");
	assert_told(HANDOFF_EINHORN, FOUR,
		"EINHORN_FD_COUNT=4\nEINHORN_FD_0=3\nEINHORN_FD_FAMILY_0=AF_INET6\n"
		"EINHORN_FD_1=4\nEINHORN_FD_FAMILY_1=AF_INET\n"
		"EINHORN_FD_2=5\nEINHORN_FD_FAMILY_2=AF_INET6\n"
		"EINHORN_FD_3=6\nEINHORN_FD_FAMILY_3=AF_UNIX\nEINHORN_FDS=3 4 5 6\n"
		"EINHORN_MASTER_PID=4321\nEINHORN_CHILD_INDEX=2\n");
	assert_told(HANDOFF_NGINX, FOUR, "NGINX=3;4;5;6;\n");
	assert_told(HANDOFF_UNICORN, FOUR, "UNICORN_FD=3,4,5,6\n");
	assert_told(HANDOFF_GUNICORN, FOUR, "GUNICORN_FD=3,4,5,6\nGUNICORN_PID=4321\n");
	assert_told(HANDOFF_PUMA, FOUR,
		"PUMA_INHERIT_0=3:tcp://[::]:8080\nPUMA_INHERIT_1=4:tcp://127.0.0.1:80\n"
		"PUMA_INHERIT_2=5:tcp://[::1]:81\nPUMA_INHERIT_3=6:unix:///run/x.sock\n");
	assert_told(HANDOFF_PHP_FPM, FOUR,
		"FPM_SOCKETS=:::8080=3,127.0.0.1:80=4,::1:81=5,/run/x.sock=6\n");
	assert_told(
		HANDOFF_UWSGI, ADDRESSES("[::]:8080"), "UPSTART_EVENTS=socket\nUPSTART_FDS=3\n");
	assert_told(
		HANDOFF_DINIT, ADDRESSES("unix:/run/x"), "LISTEN_FDS=1\nLISTEN_PID=0000000000\n");
	/* These have no environment of their own. */
	assert_told(HANDOFF_STDIN, ADDRESSES("[::]:80"), "");
	assert_told(HANDOFF_ARGUMENTS | HANDOFF_CIRCUS | HANDOFF_HAPROXY | HANDOFF_UWSGI_ZERG, FOUR,
		"");
}
END_TEST

START_TEST(wildcards)
{
	struct dialect_request r =
		request_of(HANDOFF_SERVER_STARTER, ADDRESSES("0.0.0.0:80", "[::]:81", "udp:82"));
	_cleanup_free_ char *first = lines_of(&r), *second = NULL;

	ck_assert_str_eq(
		first, "SERVER_STARTER_PORT=80=3;81=4;82=5\nSERVER_STARTER_GENERATION=7\n");
	listeners[1].v6only = true;
	second = lines_of(&r);
	ck_assert_str_eq(
		second, "SERVER_STARTER_PORT=80=3;[::]:81=4;82=5\nSERVER_STARTER_GENERATION=7\n");
}
END_TEST

START_TEST(several_at_once)
{
	/* dinit's is a part of listen-fds; standard input does not change who counts from 3. */
	assert_told(
		HANDOFF_LISTEN_FDS | HANDOFF_DINIT | HANDOFF_STDIN | HANDOFF_NGINX | HANDOFF_UWSGI,
		ADDRESSES("80"),
		"LISTEN_FDS=1\nLISTEN_FDNAMES=l0\nLISTEN_PID=0000000000\nNGINX=3;\n"
		"UPSTART_EVENTS=socket\nUPSTART_FDS=3\n");
	ck_assert_int_eq(dialect_listener_fd(HANDOFF_STDIN, 0), 0);
	ck_assert_int_eq(dialect_listener_fd(HANDOFF_STDIN | HANDOFF_ARGUMENTS, 0), 0);
	ck_assert_int_eq(dialect_listener_fd(HANDOFF_STDIN | HANDOFF_HAPROXY, 0), 3);
	ck_assert_int_eq(dialect_listener_fd(HANDOFF_ARGUMENTS, 5), 8);
	ck_assert(dialect_needs_pid(HANDOFF_DINIT));
	ck_assert(!dialect_needs_pid(HANDOFF_NGINX | HANDOFF_STDIN));
}
END_TEST

START_TEST(what_was_stored)
{
	struct dialect_request r = request_of(HANDOFF_LISTEN_FDS, ADDRESSES("80"));
	_cleanup_free_ char *behind = NULL, *alone = NULL;

	r.n_stored = 2;
	r.stored_names = ":a:b";
	behind = lines_of(&r);
	ck_assert_str_eq(behind, "LISTEN_FDS=3\nLISTEN_FDNAMES=l0:a:b\nLISTEN_PID=0000000000\n");
	r.n_listeners = 0;
	alone = lines_of(&r);
	ck_assert_str_eq(alone, "LISTEN_FDS=2\nLISTEN_FDNAMES=a:b\nLISTEN_PID=0000000000\n");
}
END_TEST

START_TEST(einhorns_control_socket)
{
	struct dialect_request r = request_of(HANDOFF_EINHORN, ADDRESSES("80"));
	_cleanup_free_ char *lines = NULL;

	r.einhorn_path = "/run/e.sock";
	r.einhorn_fd = 9;
	lines = lines_of(&r);
	ck_assert_ptr_nonnull(
		strstr(lines, "\nEINHORN_SOCK_PATH=/run/e.sock\nEINHORN_SOCK_FD=9\n"));
}
END_TEST

START_TEST(many_listeners)
{
	char texts[MANY][32];
	const char *addresses[MANY + 1] = {NULL};
	const struct dialect *list;
	size_t n;

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(texts[i], sizeof(texts[i]), "127.0.0.1:%u", 1000 + i);
		addresses[i] = texts[i];
	}
	list = dialect_list(&n);
	for (size_t i = 0; i < n; i++) {
		struct dialect_request r = request_of(list[i].kind, addresses);
		_cleanup_free_ char *refusal = NULL, *lines = NULL;

		ck_assert_int_eq(dialect_refuse(&list[i], listeners, MANY, &refusal), 0);
		ck_assert((refusal != NULL) == ((list[i].limits & DIALECT_ONE_LISTENER) != 0));
		if (refusal)
			continue;
		lines = lines_of(&r);
		/* The last one is there, under its number. */
		ck_assert(!list[i].add || strstr(lines, "66") || strstr(lines, "LISTEN_FDS=64\n"));
	}
}
END_TEST

/* --- what cannot be told -------------------------------------------------- */

static void assert_refused(
	enum handoff_kind kind, const char *const *addresses, const char *expected)
{
	const struct dialect_request r = request_of(kind, addresses);
	_cleanup_error_ struct error error = ERROR_NULL;
	_cleanup_strv_ char **env = NULL;

	if (!expected) {
		ck_assert_int_eq(dialect_environment(&r, &env, &error), 0);
		return;
	}
	ck_assert_int_eq(dialect_environment(&r, &env, &error), -EINVAL);
	ck_assert_msg(strstr(error_message(&error), expected), "%s", error_message(&error));
}

START_TEST(limits)
{
	assert_refused(
		HANDOFF_STDIN, ADDRESSES("80", "81"), "exactly one listener, and there are 2");
	assert_refused(
		HANDOFF_UNICORN, ADDRESSES("80", "udp:80"), "listener l1 is one; use listen-fds");
	assert_refused(HANDOFF_PUMA, ADDRESSES("unix:@x"), "listener l0 has none; give it one");
	assert_refused(HANDOFF_NGINX, ADDRESSES("unix:@x", "udp:80"), NULL);
	assert_refused(HANDOFF_SERVER_STARTER, ADDRESSES("unix:/a;b"), "has a \";\"");
	assert_refused(HANDOFF_SERVER_STARTER, ADDRESSES("unix:/a=b"), "has a \"=\"");
	assert_refused(HANDOFF_SERVER_STARTER, ADDRESSES("unix:/a,b"), NULL);
	assert_refused(HANDOFF_PHP_FPM, ADDRESSES("unix:/a,b"), "has a \",\"");
	assert_refused(HANDOFF_PHP_FPM, ADDRESSES("unix:/a;b"), NULL);
	assert_refused(HANDOFF_SERVER_STARTER, ADDRESSES("8080", "udp:8080"),
		"listeners l0 and l1 are both \"8080\"");
	assert_refused(HANDOFF_LISTEN_FDS, ADDRESSES("8080", "udp:8080"), NULL);
}
END_TEST

START_TEST(unknown_addresses_fit)
{
	struct dialect_listener inherited[2] = {{.name = "a"}, {.name = "b"}};
	const struct dialect *list;
	size_t n;

	list = dialect_list(&n);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *refusal = NULL;
		bool one = list[i].limits & DIALECT_ONE_LISTENER;

		ck_assert_int_eq(dialect_refuse(&list[i], inherited, one ? 1 : 2, &refusal), 0);
		ck_assert_ptr_null(refusal);
	}
}
END_TEST

START_TEST(words)
{
	ck_assert_int_eq(dialect_find("s6")->kind, HANDOFF_STDIN);
	ck_assert_int_eq(dialect_find("inetd")->kind, HANDOFF_STDIN);
	ck_assert_int_eq(dialect_find("zerg")->kind, HANDOFF_UWSGI_ZERG);
	ck_assert_int_eq(dialect_find("listenfd")->kind, HANDOFF_LISTEN_FDS);
	ck_assert_ptr_null(dialect_find("LISTEN-FDS"));
	ck_assert_ptr_null(dialect_find(""));
	for (const char *const *name = dialect_names(); *name; name++) {
		ck_assert_str_eq(dialect_find(*name)->name, *name);
		ck_assert_ptr_null(dialect_not_spoken(*name));
	}
	ck_assert_ptr_nonnull(dialect_not_spoken("tableflip"));
}
END_TEST

START_TEST(variables)
{
	static const struct {
		unsigned handoff;
		const char *name;
		bool sets;
	} cases[] = {
		{HANDOFF_NGINX,	"NGINX",		 true },
		{HANDOFF_NGINX,	"NGINXX",		  false},
		{HANDOFF_NGINX,	"LISTEN_FDS",	      false},
		{HANDOFF_EINHORN,	  "EINHORN_FD_12",	   true },
		{HANDOFF_EINHORN,	  "EINHORN_FD_",	 false},
		{HANDOFF_EINHORN,	  "EINHORN_FD_X",	  false},
		{HANDOFF_EINHORN,	  "EINHORN_FD_FAMILY_0", true },
		{HANDOFF_PUMA,       "PUMA_INHERIT_3",	 true },
		{HANDOFF_LISTEN_FDS, "LISTEN_PIDFDID",      true },
		{~0U,		      "HOME",		      false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_msg(dialect_sets(cases[i].handoff, cases[i].name,
				      strlen(cases[i].name)) == cases[i].sets,
			"%s", cases[i].name);
	/* What is really set is among what is said to be set. */
	for (unsigned bit = 0; bit < 16; bit++) {
		struct dialect_request r = request_of(1U << bit, ADDRESSES("80"));
		_cleanup_strv_ char **env = NULL;

		r.einhorn_path = "x";
		r.einhorn_fd = 5;
		ck_assert_int_eq(dialect_environment(&r, &env, NULL), 0);
		for (size_t i = 0; env && env[i]; i++)
			ck_assert_msg(dialect_sets(1U << bit, env[i], strcspn(env[i], "=")), "%s",
				env[i]);
	}
}
END_TEST

/* --- references ----------------------------------------------------------- */

static const struct listener_config two[] = {
	{.name = (char[]){"http"}}, {.name = (char[]){"a.b-C"}}};

static void assert_replaced(const char *text, unsigned handoff, const char *expected)
{
	_cleanup_free_ char *got = NULL;

	ck_assert_int_eq(dialect_replace(text, handoff, two, ARRAY_SIZE(two), &got), 0);
	ck_assert_str_eq(got, expected);
}

START_TEST(references)
{
	assert_replaced("{fd:http}", HANDOFF_ARGUMENTS, "3");
	assert_replaced("a{fd:a.b-C}{fd:http}b", HANDOFF_ARGUMENTS, "a43b");
	assert_replaced("{fd:http}", HANDOFF_STDIN, "0");
	assert_replaced("{fd:a.b-c} {fd:none} {fd:} {fd:http", HANDOFF_ARGUMENTS,
		"{fd:a.b-c} {fd:none} {fd:} {fd:http");
	assert_replaced("{fd:{fd:http}}", HANDOFF_ARGUMENTS, "{fd:3}");
	assert_replaced("", 0, "");
	/* circus's only where it is asked for, in any case of letters. */
	assert_replaced("$(circus.sockets.http)", HANDOFF_ARGUMENTS, "$(circus.sockets.http)");
	assert_replaced("--fd=$(circus.sockets.HTTP),((Circus.Sockets.A.b-c))x", HANDOFF_CIRCUS,
		"--fd=3,4x");
	assert_replaced("((circus.sockets.http)", HANDOFF_CIRCUS, "((circus.sockets.http)");
}
END_TEST

static struct listener_config reached[3];

static void assert_srv(const char *argument, const char *expected)
{
	_cleanup_free_ char *got = NULL;

	ck_assert_int_eq(
		dialect_replace_srv(argument, HANDOFF_EINHORN, reached, 3, &got), expected ? 1 : 0);
	ck_assert_pstr_eq(got, expected);
}

START_TEST(srv_arguments)
{
	_cleanup_free_ char *got = NULL;
	struct address a;
	size_t before;

	ck_assert_int_eq(address_parse("127.0.0.1:8080", false, &reached[0].address), 0);
	ck_assert_int_eq(address_parse("9000", false, &reached[1].address), 0);
	ck_assert_int_eq(address_parse("udp:127.0.0.1:53", false, &reached[2].address), 0);
	assert_srv("srv:127.0.0.1:8080", "3");
	assert_srv("srv:localhost:8080,r", "3");
	assert_srv("--listen=srv:127.0.0.1:8080,r,so_reuseaddr", "--listen=3");
	assert_srv("a=srv:b=srv:0.0.0.0:9000", "a=srv:b=4");
	assert_srv("srv:10.1.2.3:9000", "4"); /* of all addresses */
	/* Another port, address or kind; and what einhorn leaves alone, too. */
	assert_srv("srv:127.0.0.1:8081", NULL);
	assert_srv("srv:127.0.0.2:8080", NULL);
	assert_srv("srv:127.0.0.1:53", NULL);
	assert_srv("srv:127.0.0.1:8080,", NULL);
	assert_srv("srv:127.0.0.1:8080 ", NULL);
	assert_srv("srv:127.0.0.1:8080,r n", NULL);
	assert_srv("--srv:127.0.0.1:8080", NULL);
	assert_srv("srv::8080", NULL);
	assert_srv("srv:8080", NULL);
	assert_srv("srv:", NULL);
	assert_srv("", NULL);
	ck_assert_int_eq(
		dialect_replace_srv("srv:127.0.0.1:8080", HANDOFF_LISTEN_FDS, reached, 3, &got), 0);
	reached[1].v6only = true;
	assert_srv("srv:0.0.0.0:9000", NULL);
	reached[1].v6only = false;
	/* What it means is said of those that look like it. */
	ck_assert_int_eq(dialect_srv("srv:example.com:80", &a, &before), -EINVAL);
	ck_assert_int_eq(dialect_srv("srv:127.0.0.1:99999", &a, &before), -EINVAL);
	ck_assert_int_eq(dialect_srv("srv:127.0.0.1:0", &a, &before), -EINVAL);
}
END_TEST

static const char *path_of(enum handoff_kind kind, void *userdata)
{
	(void)userdata;
	return kind == HANDOFF_HAPROXY ? "/h.sock" : kind == HANDOFF_UWSGI_ZERG ? "/z.sock" : NULL;
}

START_TEST(socket_references)
{
	_cleanup_free_ char *got = NULL;

	ck_assert_int_eq(dialect_replace_sockets("-x {socket:haproxy}, {socket:uwsgi-zerg} "
						 "{socket:none} {socket: {fd:x}",
				 path_of, NULL, &got),
		0);
	ck_assert_str_eq(got, "-x /h.sock, /z.sock {socket:none} {socket: {fd:x}");
}
END_TEST

/* Names and texts of any shape: nothing is lost, nothing is read beyond its end. */
START_TEST(odd_texts)
{
	static const char *const pieces[] = {"{fd:", "http", "a.b-C", "}", "$(circus.sockets.",
		"((circus.sockets.", ")", "))", "{socket:", "haproxy", "\xff", "=", " ", "{", "$"};
	unsigned seed = 12345;

	for (int round = 0; round < 20000; round++) {
		char text[256] = "";
		_cleanup_free_ char *once = NULL, *twice = NULL, *sockets = NULL;
		struct dialect_reference reference;
		const char *at = text;

		for (int i = 0; i < 8; i++) {
			seed = seed * 1103515245 + 12345;
			strcat(text, pieces[(seed >> 16) % ARRAY_SIZE(pieces)]);
		}
		while (dialect_reference_next(at, ~0U, &reference) > 0) {
			ck_assert(reference.start >= at && reference.end > reference.start &&
				  reference.end <= text + strlen(text) &&
				  reference.name > reference.start && reference.len > 0 &&
				  reference.name + reference.len < reference.end);
			at = reference.end;
		}
		ck_assert_int_eq(dialect_replace(text, HANDOFF_CIRCUS, two, 2, &once), 0);
		ck_assert_int_eq(dialect_replace(text, HANDOFF_CIRCUS, NULL, 0, &twice), 0);
		ck_assert_str_eq(twice, text); /* nothing is known: all stays */
		ck_assert_int_eq(dialect_replace_sockets(text, path_of, NULL, &sockets), 0);
		ck_assert(strlen(once) <= strlen(text));
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		to_the_letter,
		wildcards,
		several_at_once,
		what_was_stored,
		einhorns_control_socket,
		many_listeners,
		limits,
		unknown_addresses_fit,
		words,
		variables,
		references,
		srv_arguments,
		socket_references,
		odd_texts,
	};

	return run_tests("dialect", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* libtenure as a program sees it. The test is the service manager; a child of it is the program,
 * with descriptors at their numbers and an environment of its own. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/util.h"
#include "lib/tenure.h"
#include "unit.h"
#include "wire/channel.h"

static const char *const variables[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
	"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "TENURE_SERVICE", "TENURE_GENERATION",
	"TENURE_WORKER", "TENURE_CHANNEL", "TENURE_LISTENERS"};

/* In the child: its exit status names the line. */
#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);  \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static void set_number(const char *name, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	must(setenv(name, text, 1) == 0);
}

/* Descriptors in the order given become 3, 4 ... (they must have higher numbers already). */
static void place(const int *fds, int n)
{
	int high[16];

	for (int i = 0; i < n; i++)
		must((high[i] = fcntl(fds[i], F_DUPFD, 100)) >= 0);
	for (int i = 0; i < n; i++) {
		must(dup2(high[i], 3 + i) >= 0);
		close(high[i]);
	}
	for (int fd = 3 + n; fd < 64; fd++)
		close(fd);
}

static pid_t begin_child(void)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	for (size_t i = 0; pid == 0 && i < ARRAY_SIZE(variables); i++)
		unsetenv(variables[i]);
	return pid;
}

static void end_child(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(
		WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child failed: %x", status);
}

static int tcp_listener(void)
{
	const struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	return fd;
}

static int udp_socket(void)
{
	const struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

START_TEST(alone)
{
	pid_t pid = begin_child();

	if (pid == 0) {
		struct tenure *t = NULL;
		struct tenure_listener l;
		struct tenure_event e;
		struct pollfd p = {.events = POLLIN};

		must(tenure_new(&t, 4) == -EINVAL && !t);
		must(tenure_new(&t, 0) == 0);
		must(tenure_where(t) == TENURE_ALONE);
		must(!tenure_service(t) && tenure_generation(t) == 0 && tenure_worker(t) == -1);
		must(tenure_n_listeners(t) == 0 && tenure_listener(t, 0, &l) == -ERANGE);
		must(tenure_find_listener(t, NULL, NULL, 0, &l) == -ENXIO);
		must(tenure_ready(t) == 0 && tenure_status(t, "x") == 0);
		must(tenure_heartbeat(t) == 0 && tenure_watchdog(t, NULL) == 0);
		must(tenure_store(t, "x", (int[]){0}, 1, 0) == 0 && tenure_unstore(t, "x") == 0);
		must(tenure_take(t, NULL, NULL) == -ENOENT);
		must((p.fd = tenure_fd(t)) >= 0 && tenure_fd(t) == p.fd);
		must(poll(&p, 1, 0) == 0 && tenure_next_event(t, &e) == 0);
		must(strcmp(tenure_version(), "1.0") == 0);
		must(!tenure_free(t) && !tenure_free(NULL));
		_exit(0);
	}
	end_child(pid);
}
END_TEST

START_TEST(under_systemd)
{
	int fds[4] = {tcp_listener(), udp_socket(), memfd_create("x", 0),
		socket(AF_UNIX, SOCK_STREAM, 0)};
	pid_t pid = begin_child();

	if (pid == 0) {
		struct tenure *t;
		struct tenure_listener l;
		const char *name, *first;
		char address[64];

		place(fds, 4);
		set_number("LISTEN_PID", getpid());
		setenv("LISTEN_FDS", "4", 1);
		setenv("LISTEN_FDNAMES", "http:dns:state:half", 1);
		setenv("WATCHDOG_USEC", "3000000", 1);
		set_number("WATCHDOG_PID", getpid());
		must(!(fcntl(3, F_GETFL) & O_NONBLOCK));
		must(tenure_new(&t, TENURE_UNSET_ENVIRONMENT | TENURE_NONBLOCK) == 0);
		must((fcntl(3, F_GETFL) & O_NONBLOCK) && !(fcntl(6, F_GETFL) & O_NONBLOCK));
		must(!getenv("LISTEN_PID") && !getenv("WATCHDOG_USEC"));
		must(tenure_where(t) == TENURE_SYSTEMD && tenure_n_listeners(t) == 2);
		must(tenure_find_listener(t, "http", NULL, SOCK_STREAM, &l) == 0);
		must(l.fd == 3 && l.family == AF_INET && l.type == SOCK_STREAM);
		must(fcntl(3, F_GETFD) & FD_CLOEXEC);
		snprintf(address, sizeof(address), "%s", l.address);
		must(strncmp(address, "tcp:127.0.0.1:", 14) == 0);
		must(tenure_find_listener(t, NULL, address, 0, &l) == 0 && l.fd == 3);
		must(tenure_find_listener(t, NULL, NULL, SOCK_DGRAM, &l) == 0 && l.fd == 4);
		must(tenure_find_listener(t, "http", NULL, SOCK_DGRAM, &l) == -ENOENT);
		must(tenure_listener(t, 1, &l) == 0 && strcmp(l.name, "dns") == 0);
		must(tenure_take(t, "half", &first) == 6);
		must(tenure_take(t, "half", NULL) == -ENOENT);
		must(tenure_take(t, NULL, &name) == 5 && strcmp(name, "state") == 0);
		must(strcmp(first, "half") == 0);
		must(tenure_take(t, NULL, NULL) == -ENOENT);
		/* Nobody would hear it. */
		must(tenure_watchdog(t, NULL) == 0);
		tenure_free(t);
		must(fcntl(3, F_GETFD) >= 0);
		_exit(0);
	}
	end_child(pid);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}
END_TEST

START_TEST(environments_that_contradict_themselves)
{
	int fd = tcp_listener();
	pid_t pid = begin_child();

	if (pid == 0) {
		struct tenure *t;

		place(&fd, 1);
		set_number("LISTEN_PID", getpid());
		setenv("LISTEN_FDS", "x", 1);
		must(tenure_new(&t, 0) == -EINVAL);
		setenv("LISTEN_FDS", "2", 1); /* 4 is not open */
		must(tenure_new(&t, 0) == -EINVAL);
		setenv("LISTEN_FDS", "1", 1);
		setenv("LISTEN_FDNAMES", "a:b", 1);
		must(tenure_new(&t, 0) == -EINVAL);
		must(fcntl(3, F_GETFD) == 0); /* nothing was changed */
		setenv("LISTEN_FDNAMES", "a", 1);
		/* Somebody else's. */
		set_number("LISTEN_PID", getppid());
		must(tenure_new(&t, 0) == 0 && tenure_n_listeners(t) == 0);
		tenure_free(t);
		set_number("LISTEN_PID", getpid());
		must(tenure_new(&t, 0) == 0 && tenure_n_listeners(t) == 1);
		tenure_free(t);
		_exit(0);
	}
	end_child(pid);
	close(fd);
}
END_TEST

static int notify_receiver(char *ret_name, size_t size)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(a);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	/* The kernel finds an abstract name. */
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	snprintf(ret_name, size, "@%.*s", (int)(len - offsetof(struct sockaddr_un, sun_path) - 1),
		a.sun_path + 1);
	return fd;
}

static void assert_said(int fd, const char *text)
{
	char data[1024];
	ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);

	ck_assert_msg(n == (ssize_t)strlen(text) && memcmp(data, text, (size_t)n) == 0, "<%.*s>",
		(int)MAX(n, 0), data);
}

START_TEST(what_is_told)
{
	char name[128];
	int fd = notify_receiver(name, sizeof(name));
	pid_t pid = begin_child();

	if (pid == 0) {
		struct tenure *t;
		uint64_t usec = 0;

		setenv("NOTIFY_SOCKET", name, 1);
		setenv("WATCHDOG_USEC", "3000000", 1);
		must(tenure_new(&t, 0) == 0 && tenure_where(t) == TENURE_SYSTEMD);
		must(tenure_ready(t) == 1 && tenure_status(t, "busy") == 1);
		must(tenure_status(t, "a\nREADY=1") == -EINVAL);
		must(tenure_failed(t, 0) == -EINVAL && tenure_failed(t, EACCES) == 1);
		must(tenure_heartbeat(t) == 1 && tenure_extend_timeout(t, 7) == 1);
		must(tenure_store(t, "a:b", (int[]){0}, 1, 0) == -EINVAL);
		must(tenure_store(t, "a", NULL, 0, 0) == -EINVAL);
		must(tenure_store(t, "conn", (int[]){0, 1}, 2, TENURE_STORE_NO_POLL) == 1);
		must(tenure_unstore(t, "conn") == 1 && tenure_stopping(t) == 1);
		must(tenure_watchdog(t, &usec) == 1 && usec == 3000000);
		set_number("WATCHDOG_PID", getppid());
		tenure_free(t);
		must(tenure_new(&t, 0) == 0 && tenure_watchdog(t, NULL) == 0);
		tenure_free(t);
		_exit(0);
	}
	end_child(pid);
	assert_said(fd, "READY=1");
	assert_said(fd, "STATUS=busy");
	assert_said(fd, "ERRNO=13");
	assert_said(fd, "WATCHDOG=1");
	assert_said(fd, "EXTEND_TIMEOUT_USEC=7");
	assert_said(fd, "FDSTORE=1\nFDNAME=conn\nFDPOLL=0");
	assert_said(fd, "FDSTOREREMOVE=1\nFDNAME=conn");
	assert_said(fd, "STOPPING=1");
	close(fd);
}
END_TEST

/* --- under tenured ------------------------------------------------------------ */

static void as_worker(int listener, int channel)
{
	int fds[2] = {listener, channel};

	place(fds, 2);
	set_number("LISTEN_PID", getppid()); /* a wrapper's */
	setenv("LISTEN_FDS", "1", 1);
	setenv("LISTEN_FDNAMES", "http", 1);
	setenv("TENURE_LISTENERS", "1", 1);
	setenv("TENURE_CHANNEL", "4", 1);
	setenv("TENURE_SERVICE", "web", 1);
	setenv("TENURE_GENERATION", "7", 1);
	setenv("TENURE_WORKER", "2", 1);
}

static void send_message(int socket, const struct channel_message *m, const int *fds, size_t n)
{
	char packet[CHANNEL_MESSAGE_MAX];
	int len = channel_format(m, packet);
	struct iovec iov = {.iov_base = packet, .iov_len = (size_t)len};
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(CHANNEL_FDS_MAX * sizeof(int))];
	} control = {0};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	ck_assert_int_gt(len, 0);
	if (n > 0) {
		struct cmsghdr *c;

		message.msg_control = control.buf;
		message.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	ck_assert_int_eq(sendmsg(socket, &message, MSG_NOSIGNAL), len);
}

/* The next message, and how many descriptors came with it. */
static struct channel_message expect(int socket, enum channel_kind kind, size_t n_fds)
{
	char packet[CHANNEL_MESSAGE_MAX], control[CMSG_SPACE(CHANNEL_FDS_MAX * sizeof(int))];
	struct iovec iov = {.iov_base = packet, .iov_len = sizeof(packet)};
	struct msghdr message = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	struct channel_message m;
	struct cmsghdr *c;
	size_t n = 0;
	ssize_t len = recvmsg(socket, &message, 0);

	ck_assert_int_gt(len, 0);
	ck_assert_int_eq(channel_parse(packet, (size_t)len, &m), 0);
	ck_assert_str_eq(channel_kind_to_string(m.kind), channel_kind_to_string(kind));
	c = CMSG_FIRSTHDR(&message);
	if (c && c->cmsg_type == SCM_RIGHTS) {
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			close(fd);
		}
	}
	ck_assert_uint_eq(n, n_fds);
	return m;
}

/* Events that are none, until there is one or an error. */
static int any_event(struct tenure *t, struct tenure_event *ret)
{
	int r;

	while ((r = tenure_next_event(t, ret)) == 0)
		must(poll(&(struct pollfd){.fd = tenure_fd(t), .events = POLLIN}, 1, 10000) == 1);
	return r;
}

static void next(struct tenure *t, int kind, struct tenure_event *ret)
{
	int r = any_event(t, ret);

	if (r != 1 || ret->kind != kind)
		fprintf(stderr, "event %d of kind %d, not %d\n", r, ret->kind, kind);
	must(r == 1 && ret->kind == kind);
}

static void worker_with_events(int listener, int channel)
{
	struct tenure *t;
	struct tenure_listener l;
	struct tenure_event e;
	int added;

	as_worker(listener, channel);
	must(tenure_new(&t, 0) == 0 && tenure_where(t) == TENURE_TENURED);
	must(strcmp(tenure_service(t), "web") == 0);
	must(tenure_generation(t) == 7 && tenure_worker(t) == 2);
	must(tenure_find_listener(t, "http", NULL, 0, &l) == 0 && l.fd == 3);
	must(tenure_find_listener(t, "other", NULL, 0, &l) == -ENOENT);
	must(tenure_fd(t) >= 0);
	next(t, TENURE_EVENT_LISTENER_ADDED, &e);
	must(strcmp(e.name, "admin") == 0 && e.type == SOCK_STREAM);
	must(strncmp(e.address, "tcp:127.0.0.1:", 14) == 0);
	must(fcntl(e.fd, F_GETFD) & FD_CLOEXEC);
	must(tenure_n_listeners(t) == 2);
	added = e.fd;
	next(t, TENURE_EVENT_LISTENER_LEAVING, &e);
	must(e.fd == added && tenure_n_listeners(t) == 2);
	next(t, TENURE_EVENT_LISTENER_REMOVED, &e);
	must(e.fd == added && strcmp(e.name, "admin") == 0 && tenure_n_listeners(t) == 1);
	must(close(e.fd) == 0); /* the next call says so */
	for (int i = 0; i < 2; i++) {
		next(t, TENURE_EVENT_DESCRIPTOR, &e);
		must(strcmp(e.name, "session") == 0 && close(e.fd) == 0);
	}
	next(t, TENURE_EVENT_DRAIN, &e);
	must(e.deadline_usec == 12345 && e.fd == -1);
	next(t, TENURE_EVENT_CLOSED, &e);
	must(tenure_next_event(t, &e) == 0);
	must(poll(&(struct pollfd){.fd = tenure_fd(t), .events = POLLIN}, 1, 0) == 0);
	tenure_free(t);
	must(fcntl(3, F_GETFD) >= 0 && fcntl(4, F_GETFD) < 0);
	_exit(0);
}

START_TEST(events)
{
	int listener = tcp_listener(), pair[2], two[2] = {0, 1};
	struct channel_message m;
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	pid = begin_child();
	if (pid == 0)
		worker_with_events(listener, pair[1]);
	close(pair[1]);
	m = expect(pair[0], CHANNEL_HELLO, 0);
	ck_assert_uint_eq(m.version, CHANNEL_VERSION);
	ck_assert_uint_eq(m.accepts, 0xf);
	send_message(pair[0],
		&(struct channel_message){.kind = CHANNEL_WELCOME, .version = 1, .service = "web"},
		NULL, 0);
	send_message(pair[0], &(struct channel_message){.kind = CHANNEL_PING, .id = 42}, NULL, 0);
	m = expect(pair[0], CHANNEL_PONG, 0);
	ck_assert_uint_eq(m.id, 42);
	ck_assert_int_eq(send(pair[0], "tenure/1 fly\n", 13, 0), 13);
	ck_assert_int_eq(send(pair[0], "rubbish", 7, 0), 7);
	for (int i = 0; i < 2; i++) { /* the second time it is known already */
		send_message(pair[0],
			&(struct channel_message){.kind = CHANNEL_ADD, .name = "admin"}, &listener,
			1);
		m = expect(pair[0], CHANNEL_TAKEN, 0);
		ck_assert_str_eq(m.name, "admin");
	}
	send_message(pair[0], &(struct channel_message){.kind = CHANNEL_LEAVE, .name = "admin"},
		NULL, 0);
	send_message(pair[0], &(struct channel_message){.kind = CHANNEL_REMOVE, .name = "none"},
		NULL, 0);
	send_message(pair[0], &(struct channel_message){.kind = CHANNEL_REMOVE, .name = "admin"},
		NULL, 0);
	m = expect(pair[0], CHANNEL_CLOSED, 0);
	ck_assert_str_eq(m.name, "none");
	m = expect(pair[0], CHANNEL_CLOSED, 0);
	ck_assert_str_eq(m.name, "admin");
	send_message(pair[0], &(struct channel_message){.kind = CHANNEL_STORED, .name = "session"},
		two, 2);
	send_message(pair[0],
		&(struct channel_message){.kind = CHANNEL_DRAIN, .deadline_usec = 12345}, NULL, 0);
	close(pair[0]);
	end_child(pid);
	close(listener);
}
END_TEST

/* The daemon is older, or newer, than can be spoken with: as if there was no channel. */
START_TEST(no_version_in_common)
{
	static const char *const answers[] = {
		"tenure/1 refused\nversion=1\n", "tenure/2 welcome\nversion=2\n"};

	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		int listener = tcp_listener(), pair[2];
		char byte;
		pid_t pid;

		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
		pid = begin_child();
		if (pid == 0) {
			struct tenure *t;
			struct tenure_event e;

			as_worker(listener, pair[1]);
			must(tenure_new(&t, 0) == 0 && tenure_fd(t) >= 0);
			next(t, TENURE_EVENT_CLOSED, &e);
			must(tenure_next_event(t, &e) == 0 && tenure_n_listeners(t) == 1);
			tenure_free(t);
			_exit(0);
		}
		close(pair[1]);
		expect(pair[0], CHANNEL_HELLO, 0);
		ck_assert_int_gt(send(pair[0], answers[i], strlen(answers[i]), MSG_NOSIGNAL), 0);
		/* It was closed, so that the drain comes by signal. */
		ck_assert_int_eq(recv(pair[0], &byte, 1, 0), 0);
		end_child(pid);
		close(pair[0]);
		close(listener);
	}
}
END_TEST

/* More than one message holds. */
enum { MANY = 600 };

START_TEST(many_descriptors)
{
	int listener = tcp_listener(), pair[2];
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	pid = begin_child();
	if (pid == 0) {
		struct tenure *t;
		int fds[MANY];

		as_worker(listener, pair[1]);
		must(tenure_new(&t, 0) == 0);
		for (int i = 0; i < MANY; i++)
			fds[i] = 1;
		must(tenure_store(t, "conn", fds, MANY, 0) == 1);
		must(tenure_unstore(t, "conn") == 1);
		tenure_free(t);
		_exit(0);
	}
	close(pair[1]);
	ck_assert(!expect(pair[0], CHANNEL_STORE, CHANNEL_FDS_MAX).no_poll);
	expect(pair[0], CHANNEL_STORE, CHANNEL_FDS_MAX);
	expect(pair[0], CHANNEL_STORE, MANY - 2 * CHANNEL_FDS_MAX);
	expect(pair[0], CHANNEL_UNSTORE, 0);
	end_child(pid);
	close(pair[0]);
	close(listener);
}
END_TEST

START_TEST(no_room_for_descriptors)
{
	int listener = tcp_listener(), pair[2], three[3] = {0, 1, 2};
	struct channel_message m;
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	pid = begin_child();
	if (pid == 0) {
		struct tenure *t;
		struct tenure_event e;
		int fd, last = -1;

		as_worker(listener, pair[1]);
		must(tenure_new(&t, 0) == 0 && tenure_fd(t) >= 0);
		while ((fd = dup(0)) >= 0)
			last = fd;
		must(close(last) == 0); /* room for one of three */
		must(any_event(t, &e) == -EMFILE);
		must(dup(0) == last); /* what came is closed */
		/* A listener is asked for again, and taken when there is room. */
		must(any_event(t, &e) == -EMFILE && tenure_n_listeners(t) == 1);
		must(close(last) == 0);
		next(t, TENURE_EVENT_LISTENER_ADDED, &e);
		must(e.fd == last && tenure_n_listeners(t) == 2);
		next(t, TENURE_EVENT_DRAIN, &e);
		must(e.deadline_usec == UINT64_MAX);
		_exit(0);
	}
	close(pair[1]);
	expect(pair[0], CHANNEL_HELLO, 0);
	send_message(
		pair[0], &(struct channel_message){.kind = CHANNEL_STORED, .name = "x"}, three, 3);
	for (int i = 0; i < 2; i++) {
		send_message(pair[0],
			&(struct channel_message){.kind = CHANNEL_ADD, .name = "admin"}, &listener,
			1);
		m = expect(pair[0], i == 0 ? CHANNEL_CLOSED : CHANNEL_TAKEN, 0);
		ck_assert_str_eq(m.name, "admin");
	}
	send_message(pair[0],
		&(struct channel_message){.kind = CHANNEL_DRAIN, .deadline_usec = USEC_INFINITY},
		NULL, 0);
	end_child(pid);
	close(pair[0]);
	close(listener);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		alone,
		under_systemd,
		environments_that_contradict_themselves,
		what_is_told,
		events,
		no_version_in_common,
		many_descriptors,
		no_room_for_descriptors,
	};

	return run_tests("tenure", tests, ARRAY_SIZE(tests));
}

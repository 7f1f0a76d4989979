/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/notify_socket.h"

#include "sys_test.h"

#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

static int fd = -1;
static char *address;
static struct notify_datagram d;

static void setup(void)
{
	ck_assert_int_eq(notify_socket_open(&fd, &address), 0);
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", address, 1), 0);
}

static void teardown(void)
{
	fd = close_fd(fd);
	free(address);
}

/* Connected to the address, as sd_notify(3) says. */
static int sender(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path + 1, address + 1, strlen(address) - 1);
	ck_assert_int_eq(
		connect(s, (const struct sockaddr *)&a,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address))),
		0);
	return s;
}

START_TEST(said_by_the_library)
{
	ck_assert(startswith(address, "@tenured/"));
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	ck_assert_int_eq(notify_socket_receive(fd, &d), -EAGAIN);
	ck_assert_int_gt(sd_notify(0, "READY=1\nSTATUS=well"), 0);
	ck_assert(is_readable(fd, 1000));
	ck_assert_int_eq(notify_socket_receive(fd, &d), 0);
	ck_assert_str_eq(d.data, "READY=1\nSTATUS=well");
	ck_assert_uint_eq(d.len, strlen(d.data));
	ck_assert_int_eq(d.pid, getpid());
	ck_assert_uint_eq(d.uid, geteuid());
	ck_assert_uint_eq(d.n_fds, 0);
	ck_assert(!d.truncated);
}
END_TEST

static int notify_from_child(void *userdata)
{
	(void)userdata;
	return sd_notify(0, "READY=1") <= 0;
}

START_TEST(said_by_a_child)
{
	pid_t pid = fork_child(notify_from_child, NULL);

	/* Its credentials are there when it is not. */
	ck_assert_int_eq(wait_status(pid), 0);
	ck_assert_int_eq(notify_socket_receive(fd, &d), 0);
	ck_assert_int_eq(d.pid, pid);
	ck_assert_uint_eq(d.uid, geteuid());
}
END_TEST

START_TEST(credentials_cannot_be_lied_about)
{
	struct ucred lie = {.pid = 1, .uid = geteuid(), .gid = getegid()};
	union {
		struct cmsghdr header;
		char buf[CMSG_SPACE(sizeof(lie))];
	} control = {.buf = {0}};
	struct iovec iov = {.iov_base = (char[]){"READY=1"}, .iov_len = 7};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	int s = sender();

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_CREDENTIALS;
	control.header.cmsg_len = CMSG_LEN(sizeof(lie));
	memcpy(CMSG_DATA(&control.header), &lie, sizeof(lie));
	if (geteuid() != 0) {
		ck_assert_int_eq(sendmsg(s, &m, 0), -1);
		ck_assert_int_eq(errno, EPERM);
		ck_assert_int_eq(notify_socket_receive(fd, &d), -EAGAIN);
	} else {
		/* Root may, and then it is root that has said so. */
		ck_assert_int_eq(sendmsg(s, &m, 0), 7);
		ck_assert_int_eq(notify_socket_receive(fd, &d), 0);
		ck_assert_int_eq(d.pid, 1);
	}
	close(s);
}
END_TEST

START_TEST(descriptors)
{
	enum { N = NOTIFY_FDS_MAX };
	int fds[N], before, after;
	struct stat a, b;

	before = dup(STDIN_FILENO);
	for (int i = 0; i < N; i++)
		fds[i] = i == N - 1 ? fd : STDIN_FILENO;
	ck_assert_int_gt(sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=x", fds, (unsigned)N), 0);
	ck_assert_int_eq(notify_socket_receive(fd, &d), 0);
	ck_assert_uint_eq(d.n_fds, N);
	ck_assert(!d.truncated);
	ck_assert_int_eq(d.pid, getpid());
	ck_assert(fcntl(d.fds[0], F_GETFD) & FD_CLOEXEC);
	ck_assert(fstat(d.fds[N - 1], &a) == 0 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino);
	notify_datagram_close(&d);
	ck_assert_uint_eq(d.n_fds, 0);
	notify_datagram_close(&d);
	after = dup(STDIN_FILENO);
	ck_assert_int_eq(after, before + 1);
	close(before);
	close(after);
}
END_TEST

/* Of a connection whose client does not read: its server wanted to wait for that. */
START_TEST(closing_does_not_wait)
{
	static const struct linger linger = {.l_onoff = 1, .l_linger = 30};
	static const char much[65536];
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), server;
	time_t begin = time(NULL);

	ck_assert_int_eq(bind(listener, (struct sockaddr *)&a, len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	ck_assert_int_eq(connect(client, (struct sockaddr *)&a, len), 0);
	server = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	ck_assert_int_ge(server, 0);
	while (send(server, much, sizeof(much), 0) > 0)
		;
	ck_assert_int_eq(
		setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, len = sizeof(linger)), 0);
	d.fds[0] = server;
	d.n_fds = 1;
	notify_datagram_close(&d);
	ck_assert_int_lt(time(NULL) - begin, 15);
	close(client);
	close(listener);
}
END_TEST

START_TEST(too_long)
{
	char text[NOTIFY_MESSAGE_MAX + 10];
	int s = sender();

	memset(text, 'x', sizeof(text));
	ck_assert_int_gt(send(s, text, NOTIFY_MESSAGE_MAX, 0), 0);
	ck_assert_int_gt(send(s, text, NOTIFY_MESSAGE_MAX + 1, 0), 0);
	ck_assert_int_eq(send(s, "", 0, 0), 0);
	ck_assert_int_eq(notify_socket_receive(fd, &d), 0);
	ck_assert_uint_eq(d.len, NOTIFY_MESSAGE_MAX);
	ck_assert_uint_eq(strlen(d.data), NOTIFY_MESSAGE_MAX);
	ck_assert(!d.truncated);
	ck_assert_int_eq(notify_socket_receive(fd, &d), 0);
	ck_assert_uint_eq(d.len, NOTIFY_MESSAGE_MAX);
	ck_assert(d.truncated);
	ck_assert_int_eq(notify_socket_receive(fd, &d), 0);
	ck_assert_uint_eq(d.len, 0);
	ck_assert_str_eq(d.data, "");
	ck_assert_int_eq(notify_socket_receive(fd, &d), -EAGAIN);
	close(s);
}
END_TEST

START_TEST(addresses_differ)
{
	char *other;
	int other_fd;

	ck_assert_int_eq(notify_socket_open(&other_fd, &other), 0);
	ck_assert_str_ne(other, address);
	ck_assert_uint_lt(strlen(other), sizeof(((struct sockaddr_un *)NULL)->sun_path));
	close(other_fd);
	free(other);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("notify_socket");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, said_by_the_library);
	tcase_add_test(tcase, said_by_a_child);
	tcase_add_test(tcase, credentials_cannot_be_lied_about);
	tcase_add_test(tcase, descriptors);
	tcase_add_test(tcase, closing_does_not_wait);
	tcase_add_test(tcase, too_long);
	tcase_add_test(tcase, addresses_differ);
	return run_case("notify_socket", tcase);
}

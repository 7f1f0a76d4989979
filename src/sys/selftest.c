/* SPDX-License-Identifier: Apache-2.0 */
/* Whether steering works here is asked of the kernel, not of its version: a throw-away group of
 * three on loopback, steered to each member in turn, before and after one of them is closed. */
#include "sys/listen.h"

#include <poll.h>

#include "base/clock.h"

enum { MEMBERS = 3, SELFTEST_USEC = 2000000 };

/* Every connection of the group to the socket with this index. */
static void filter_to(struct sock_filter *ret, unsigned index)
{
	*ret = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, index);
}

static void close_members(int (*members)[MEMBERS])
{
	for (size_t i = 0; i < MEMBERS; i++)
		close_fd_p(&(*members)[i]);
}

/* One connection: does it come to the expected member, and to none else? */
static int expect(const int members[MEMBERS], const struct address *a, int expected, uint64_t until)
{
	_cleanup_close_ int client = -1, connection = -1;
	struct pollfd p[MEMBERS];
	uint64_t now = monotonic_usec();
	int r;

	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (client < 0)
		return -errno;
	if (connect(client, &a->sa, a->len) < 0 && errno != EINPROGRESS)
		return -errno;
	for (size_t i = 0; i < MEMBERS; i++)
		p[i] = (struct pollfd){.fd = members[i], .events = POLLIN};
	r = poll(p, MEMBERS, now < until ? (int)((until - now) / USEC_PER_MSEC) : 0);
	if (r < 0)
		return -errno;
	if (r == 0)
		return -ETIMEDOUT;
	if (r != 1 || !(p[expected].revents & POLLIN))
		return -ENOTSUP;
	connection = accept4(members[expected], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	return connection < 0 ? -errno : 0;
}

/* Steering to index must lead to each of the expected members. */
static int expect_order(const int members[MEMBERS], const struct address *a, const int *order,
	unsigned n, int steer_fd, uint64_t until)
{
	for (unsigned i = 0; i < n; i++) {
		struct sock_filter filter;
		int r;

		filter_to(&filter, i);
		r = listen_steer(steer_fd, &filter, 1);
		if (r < 0)
			return r;
		r = expect(members, a, order[i], until);
		if (r < 0)
			return r;
	}
	return 0;
}

int listen_selftest(void)
{
	_cleanup_(close_members) int members[MEMBERS] = {-1, -1, -1};
	const struct listen_options options = {.socket_uid = (uid_t)-1};
	uint64_t until = monotonic_usec() + SELFTEST_USEC;
	struct address a = {.kind = ADDRESS_TCP, .len = sizeof(a.in4)};
	struct sock_filter filter;
	struct sock_fprog program = {.len = 1, .filter = &filter};
	int r;

	a.in4 = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	filter_to(&filter, 0);
	members[0] = listen_open_first(&a, &options, &program);
	if (members[0] < 0)
		return members[0];
	r = socket_address(members[0], &a);
	if (r < 0)
		return r;
	for (size_t i = 1; i < MEMBERS; i++) {
		members[i] = listen_open_member(&a, &options);
		if (members[i] < 0)
			return members[i];
	}
	/* The array follows listen(), not bind(): 0, 2, 1. */
	static const int order[MEMBERS] = {0, 2, 1}, order_after[MEMBERS - 1] = {1, 2};
	for (size_t i = 0; i < MEMBERS; i++) {
		r = listen_start(members[order[i]], 8);
		if (r < 0)
			return r;
	}
	r = expect_order(members, &a, order, MEMBERS, members[0], until);
	if (r < 0)
		return r;
	/* The last one moves into the hole. */
	members[0] = close_fd(members[0]);
	return expect_order(members, &a, order_after, MEMBERS - 1, members[1], until);
}

/* A datagram from a socket of its own; does this member get it? */
static int gets_one(int member, const struct address *a)
{
	_cleanup_close_ int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct pollfd p = {.fd = member, .events = POLLIN};
	char byte;

	if (client < 0 || sendto(client, "x", 1, 0, &a->sa, a->len) < 0)
		return -errno;
	/* On loopback it is there when sendto() returns. */
	if (poll(&p, 1, 0) < 0)
		return -errno;
	if (!(p.revents & POLLIN))
		return 0;
	return recv(member, &byte, 1, MSG_DONTWAIT) < 0 ? -errno : 1;
}

int listen_connected_leaves(void)
{
	/* A program that names a connected socket has the kernel choose by a hash: one of the two
	 * others, so that each try is right by chance in half of the cases. */
	enum { ENOUGH = 16 };
	_cleanup_(close_members) int members[MEMBERS] = {-1, -1, -1};
	const struct listen_options options = {.socket_uid = (uid_t)-1};
	struct address a = {.kind = ADDRESS_UDP, .len = sizeof(a.in4)}, peer;
	struct sock_filter filter;
	int r = 1;

	a.in4 = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	members[0] = listen_open_first(&a, &options, NULL);
	if (members[0] < 0)
		return members[0];
	r = socket_address(members[0], &a);
	if (r < 0)
		return r;
	for (size_t i = 1; i < MEMBERS; i++) {
		members[i] = listen_open_member(&a, &options);
		if (members[i] < 0)
			return members[i];
	}
	peer = a;
	peer.in4.sin_port = htons(9);
	if (connect(members[1], &peer.sa, peer.len) < 0)
		return -errno;
	filter_to(&filter, 1);
	r = listen_steer(members[0], &filter, 1);
	if (r < 0)
		return r;
	/* When it has left, the last one has moved to its place. */
	r = 1;
	for (size_t i = 0; i < ENOUGH && r == 1; i++)
		r = gets_one(members[2], &a);
	return r;
}

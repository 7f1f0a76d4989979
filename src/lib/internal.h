/* SPDX-License-Identifier: Apache-2.0 */
/* The handle, as the library's own files see it. */
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"
#include "lib/tenure.h"
#include "wire/channel.h"

#define EXPORT __attribute__((visibility("default")))

/* A descriptor that was passed. */
struct passed {
	char *name, *address; /* address NULL: it is stored, no listener */
	int fd;
	int family, type;
};

struct passed_list {
	struct passed **list;
	size_t n, capacity;
};

struct tenure {
	enum tenure_where where;
	char *service;
	unsigned generation;
	int worker; /* -1: none */
	bool nonblock;
	struct passed_list listeners;
	struct passed_list stored; /* fd -1: it was taken */
	struct sockaddr_un notify_address;
	socklen_t notify_len;
	int notify_fd; /* -1: nobody wants to know */
	uint64_t watchdog_usec;
	int channel_fd;
	int poll_fd; /* -1: not asked for yet */
	bool said_hello;
	/* What the last event points to. */
	struct passed *gone;
	char event_name[CHANNEL_NAME_MAX + 1];
	/* Of one message, not told yet. */
	int arrived[CHANNEL_FDS_MAX];
	size_t n_arrived, next_arrived;
};

/* listeners.c */
struct passed *passed_free(struct passed *p);
/* A descriptor and its name; a socket's family, type and (of a listener) address are looked up.
 * Takes the descriptor on success. -ENOMEM. */
int passed_new(const struct tenure *t, const char *name, bool is_listener, int *fd_take,
	struct passed **ret);
int passed_list_add_take(struct passed_list *l, struct passed **p_take);
void passed_list_remove(struct passed_list *l, size_t i);
/* What LISTEN_FDS names. n_listeners: so many of them are listeners; SIZE_MAX: to be seen from the
 * sockets. */
int passed_read(struct tenure *t, bool through_wrapper, size_t n_listeners);

/* notify.c */
int notify_open(struct tenure *t);
int notify_send(const struct tenure *t, const char *text, const int *fds, size_t n_fds);

/* events.c */
/* 0, or -errno of sendmsg(2). */
int channel_send(
	const struct tenure *t, const struct channel_message *m, const int *fds, size_t n_fds);

/* A packet or datagram with descriptors; to: NULL where the socket is connected. */
int send_with_fds(int socket, const struct sockaddr_un *to, socklen_t to_len, const void *data,
	size_t len, const int *fds, size_t n_fds);

/* What an environment variable says as a number. 1; 0: it is not set; -EINVAL. */
int number_from_environment(const char *name, uint64_t max, uint64_t *ret);

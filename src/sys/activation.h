/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that a service manager gave us: sd_listen_fds_with_names(3). */
#pragma once

#include "base/address.h"

struct activation_socket {
	int fd;	    /* CLOEXEC set; owned by the list until taken (set to -1) */
	char *name; /* FileDescriptorName=; "unknown" when none was given, "stored" from the fd
		       store */
	struct address address; /* valid when is_socket */
	bool is_socket; /* of a kind that can be a listener; what else there is may be from the fd
			   store */
	bool listening; /* SO_ACCEPTCONN; a bound datagram socket is too */
	uid_t uid;	/* owner of the socket (fstat) */
	unsigned queue_max; /* TCP: its backlog; else 0 */
	bool in_use;	    /* kept for the caller, never used here */
};
struct activation {
	struct activation_socket *sockets;
	size_t n;
};
/* Takes the environment's descriptors (and unsets the variables). 0 sockets is no error. Every
 * descriptor is taken, also one that is no socket: nothing that was given to us is left open
 * without an owner. -EINVAL: the variables contradict each other. */
int activation_receive(struct activation *ret);
/* One more that came some other way. Takes the descriptor on success. 0 or -ENOMEM. Before anybody
 * has pointers into the list. */
int activation_add(struct activation *a, int fd, const char *name);
/* Closes what was not taken. */
void activation_done(struct activation *a);
#define _cleanup_activation_ _cleanup_(activation_done)

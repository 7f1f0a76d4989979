/* SPDX-License-Identifier: Apache-2.0 */
/* The socket options of a listener: from its configuration to each of its sockets, and back for
 * those who want to see them. */
#pragma once

#include "base/sockopt.h"
#include "daemon/listener.h"

/* What each socket of a listener is told. */
struct listener_sockopts {
	struct sockopt *list; /* tag: enum socket_option */
	size_t n;
	size_t refused; /* the one that the kernel did not take, while a socket was made; else
			   SIZE_MAX */
};

/* 0 or -ENOMEM. ret is to be freed by listener_sockopts_free(). */
int listener_sockopts_new(const struct listener_config *c, struct listener_sockopts **ret);
struct listener_sockopts *listener_sockopts_free(struct listener_sockopts *o);

/* Would the kernel take them, from us? Tried on a socket that is not bound; the error says which
 * one it does not take, and what helps. */
int listener_options_try(
	const char *service, const struct listener_config *c, struct error *ret_error);
/* A warning for each listener of the configuration whose options this machine would refuse: it may
 * be meant for another one, or for another user. */
void listener_options_check(const struct config *c, struct config_problems *problems);
/* "mark: 0x7 (SO_MARK) is refused: ..."; the caller frees. */
char *listener_option_refusal(const struct sockopt *o, int code);
/* Of an inherited socket: what it has that is not as by default, as a configuration would ask for
 * it. Left out with a warning is what we may not set on others. 0 or -ENOMEM. */
int listener_options_read(const struct listener *l, struct socket_options *ret);
/* The inherited socket has them as it came. */
void listener_options_restore(struct listener *l);
/* How long connections to the lane's sockets may wait for their first byte, whoever asked for that.
 * 0: they do not. */
uint64_t listener_defer_usec(const struct listener *l, unsigned lane);
/* The sockets that are there get what the new configuration asks for, and the kernel's default for
 * what is not asked for any more. l->config is the old one. Logs what is refused. */
void listener_options_update(struct listener *l, const struct listener_config *c);

/* One line of what is asked for and what is. */
struct listener_option_report {
	const char *key;
	char *name;
	char *wanted, *actual, *note; /* NULL: none */
};
/* Those that were asked for, or that the kernel has otherwise than by default. 0 or -errno. */
int listener_options_report(
	const struct listener *l, struct listener_option_report **ret, size_t *ret_n);
void listener_options_report_free(struct listener_option_report *list, size_t n);

/* Where a client on this machine reaches it: on its device, or the address, or loopback for a
 * wildcard. */
void listener_local_address(const struct listener *l, struct address *ret);

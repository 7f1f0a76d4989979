/* SPDX-License-Identifier: Apache-2.0 */
/* Socket options on real sockets. socket(7), ip(7), ipv6(7), tcp(7). */
#pragma once

#include "base/address.h"
#include "base/sockopt.h"

/* setsockopt(2), or membership of a group. Interfaces are looked up by name: -ENODEV. Joining what
 * was joined and leaving what was left is no error. -errno as the kernel says. */
int listen_option_set(int fd, const struct sockopt *o);
/* getsockopt(2): fills value, or text. level, name and type are given. -EOPNOTSUPP for membership,
 * which the kernel does not tell. */
int listen_option_get(int fd, struct sockopt *o);
/* All of them, in that order, up to the first that is refused: -errno, and *ret_failed is its index
 * (may be NULL). */
int listen_options_set(int fd, const struct sockopt *list, size_t n, size_t *ret_failed);
/* A socket of the same kind with nothing set or bound: what the kernel has by default. CLOEXEC fd
 * or -errno. */
int listen_options_blank(const struct address *a, bool v6only);
/* After its value was put back: let the kernel grow a buffer again as it does by default.
 * SO_BUF_LOCK; 0 where the kernel does not have it. */
int listen_option_unlock(int fd, const struct sockopt *o);
/* An address of the interface by which a local client reaches what is bound to it. family: AF_INET
 * or AF_INET6, the port is left alone. -ENODEV: no such interface; -EADDRNOTAVAIL: it has none. */
int listen_device_address(const char *interface, int family, struct address *a);
/* A number in /proc/sys, such as "net/core/rmem_max". -errno. */
int listen_sysctl(const char *name, int64_t *ret);

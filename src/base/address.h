/* SPDX-License-Identifier: Apache-2.0 */
/* Listening addresses as the configuration writes them <-> what bind(2) takes. See ip(7), ipv6(7),
 * unix(7). No name resolution: addresses are literal. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"

enum address_kind {
	ADDRESS_TCP,
	ADDRESS_UDP,
	ADDRESS_UNIX_STREAM,
	ADDRESS_UNIX_DGRAM,
	ADDRESS_UNIX_SEQPACKET,
};

struct address {
	enum address_kind kind;
	socklen_t len;
	union {
		struct sockaddr sa;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
		struct sockaddr_storage storage;
	};
};

/* Accepts
 *   8080                   tcp on [::], dual-stack
 *   127.0.0.1:8080  [::1]:8080  *:8080 (= [::]:8080)    tcp
 *   tcp:ADDR:PORT   udp:ADDR:PORT   tcp:PORT   udp:PORT
 *   unix:/path  unix:@abstract  /path                    stream
 *   unix-dgram:/path  unix-seqpacket:/path
 * IPv6 scope as [fe80::1%eth0]:80. Port 0 is refused unless allow_port_0.
 * 0, -EINVAL (form), -ERANGE (port), -ENAMETOOLONG (Unix path over 107 bytes), -ENODEV (unknown
 * scope). */
int address_parse(const char *s, bool allow_port_0, struct address *ret);
/* The canonical text, e.g. "tcp:[::]:8080", "unix:/run/x.sock", "unix:@name"; "unix:" when unnamed.
 * Of a Unix name from outside, control characters and malformed UTF-8 become "\xNN". The caller
 * frees; NULL: out of memory. */
char *address_format(const struct address *a);
/* From what getsockname(2)/getpeername(2) gave and SO_TYPE. 0 or -EAFNOSUPPORT. */
int address_from_sockaddr(const struct sockaddr *sa, socklen_t len, int type, struct address *ret);

int address_family(const struct address *a); /* AF_INET ... */
int address_socket_type(const struct address *a);
bool address_is_unix(const struct address *a);
bool address_is_wildcard(const struct address *a);
/* An IP address of a multicast group; IPv4's limited broadcast address. */
bool address_is_multicast(const struct address *a);
bool address_is_broadcast(const struct address *a);
unsigned address_port(const struct address *a); /* host order; 0 for Unix */
bool address_equal(const struct address *a, const struct address *b);
/* Would binding both conflict, or shadow each other: same kind and port (not 0), and one is the
 * other's wildcard ([::] not v6only also covers IPv4) or they are equal. Unix: the same path,
 * whatever the kinds; or the same abstract name and kind. */
bool address_overlaps(
	const struct address *a, bool a_v6only, const struct address *b, bool b_v6only);
/* Where a local client connects to reach a listener at a: a itself, loopback for a wildcard. */
void address_loopback_of(const struct address *a, struct address *ret);
/* An IP address without a port ("127.0.0.2", "::1"), for source matching: 4 or 16 bytes. 0 or
 * -EINVAL. */
int address_parse_ip(const char *s, int *ret_family, uint8_t ret_bytes[static 16]);

/* SPDX-License-Identifier: Apache-2.0 */
/* How sockets are asked for over a Unix stream socket, descriptors beside the bytes:
 *
 * haproxy writes "_getsocks\n". The answer is their number (int), then for each a record: the
 * length of its network namespace's name and that name, the same of the interface it is bound to,
 * and four bytes that mean nothing any more. With each batch of records go their descriptors, and
 * the asker confirms it by how many it has (int).
 *
 * A uwsgi zerg writes nothing. The answer is "uwsgi-zerg" and their number (int), and all
 * descriptors with it. */
#pragma once

#include "base/buffer.h"

#define GETSOCKS_REQUEST "_getsocks\n"

/* One socket's record. interface: "" for none. 0 or -ENOMEM. */
int getsocks_record(struct buffer *b, const char *interface);
/* The answer to a zerg. 0 or -ENOMEM. */
int zerg_answer(struct buffer *b, unsigned n);

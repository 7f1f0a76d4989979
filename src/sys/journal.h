/* SPDX-License-Identifier: Apache-2.0 */
/* Entries with fields for the journal, in its native protocol, without ever waiting for it:
 * sd_journal_send(3) would. */
#pragma once

#include "base/util.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
enum { JOURNAL_FIELDS_MAX = 16 };

/* name: as systemd.journal-fields(7) has it. value may hold anything. Both borrowed. */
struct journal_field {
	const char *name, *value;
	size_t len;
};

/* A socket to send by, or -errno. */
int journal_open(void);
/* Send an entry to the journal that listens at path. 0; -EAGAIN: it has no room for now; -EINVAL:
 * too many fields, or path is too long; or another -errno (sendmsg(2)): there is no journal. */
int journal_send(int fd, const char *path, const struct journal_field *fields, size_t n);

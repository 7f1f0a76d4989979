/* SPDX-License-Identifier: Apache-2.0 */
/* A memfd with two slots, for the keeper to hold: memfd_create(2). What is in them is
 * wire/state.h's business. The slots lie far apart and take memory only for what was written. */
#pragma once

#include "base/util.h"

enum { STATE_FILE_SLOTS = 2 };
/* Bytes of one slot. */
#define STATE_FILE_SLOT_MAX (UINT64_C(256) << 20)

/* A new one: fd (CLOEXEC) or -errno. It can neither shrink nor grow. */
int state_file_new(void);
/* Is this one of ours, by its kind and size? 0, -EINVAL, or -errno. */
int state_file_check(int fd);
/* Everything from the slot's begin to the last page that was written. The caller frees. */
int state_file_read(int fd, unsigned slot, void **ret, size_t *ret_len);
/* -ENOSPC: beyond the slot's end, nothing was written; -ENOMEM, ENOSPC: out of memory. */
int state_file_write(int fd, unsigned slot, size_t offset, const void *data, size_t len);
/* All zeros; gives the memory back. */
int state_file_clear(int fd, unsigned slot);

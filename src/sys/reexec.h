/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that stay open over an exec of our own: execve(2). They keep their numbers; a memfd
 * lists them with their names, and $TENURE_REEXEC is its number. All of it can be taken back as
 * long as the exec has not happened. */
#pragma once

#include "sys/activation.h"

#define REEXEC_VARIABLE "TENURE_REEXEC"

struct reexec_fd {
	int fd;		  /* borrowed */
	const char *name; /* borrowed; without newlines */
};

/* Have these stay open (CLOEXEC cleared), list them, set the variable. *ret_map: the list's
 * descriptor. On failure nothing has changed. */
int reexec_prepare(const struct reexec_fd *list, size_t n, int *ret_map);
/* The exec did not come: everything as before. Closes the map. */
void reexec_undo(const struct reexec_fd *list, size_t n, int map);
/* In the new image: what was passed is added to the list that exists, CLOEXEC again, and the
 * variable unset. 1; 0: there was no exec; -EINVAL: the variable says nonsense; -ENOMEM. */
int reexec_receive(struct activation *to);
/* execveat(2) of an open file, O_PATH. Returns on failure only: -errno. */
int reexec_now(int program, char *const *argv);

/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that stay open over an exec of our own: execve(2). They keep their numbers; a memfd
 * lists them with their names, and $TENURE_REEXEC is its number. All of it can be taken back as
 * long as the exec has not happened. Before it the program is tried: as a child that looks at the
 * state and says whether it can go on from there. */
#pragma once

#include <sys/types.h>

#include "sys/activation.h"

#define REEXEC_VARIABLE "TENURE_REEXEC"

struct reexec_fd {
	int fd;		  /* borrowed */
	const char *name; /* borrowed; without newlines */
};

/* What a program has to say in when it is tried. */
#define REEXEC_TRIAL_USEC (10 * USEC_PER_SEC)
/* The state's number there. */
enum { REEXEC_STATE_FD = 3 };

struct reexec_trial {
	pid_t pid;
	int pidfd;
	int output_fd; /* does not block: what it says on stdout and stderr */
};

/* What is at the path of our own program now. path: gets that path, the caller's to free, also
 * where it cannot be opened; NULL before, and if it is not known. *ret_program: O_PATH, as what is
 * tried is to be what is executed. 0; -ENOEXEC: it is no program of this machine, or as
 * spawn_pin_executable() has it. */
int reexec_open_own(char **path, int *ret_program);
/* Start it with --check-state and this process's environment, and a copy of state_fd (-1: none).
 * The caller owns what is in *ret. 0 or -errno. */
int reexec_try(int program, char *path, int state_fd, struct reexec_trial *ret);

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

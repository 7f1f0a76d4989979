/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper replaces its own program in place, as the daemon does (reexec.h): same process, so the
 * same children, and all that it holds stays open. It is asked by the daemon, after that was
 * replaced itself, with X_TENURED_REEXEC=1 and the write end of a pipe, into which goes what became
 * of it: "replaced", or why not; nothing at all: this keeper knows of no such thing.
 *
 * What is at the path of our own program is opened, and that very file is tried as a child with the
 * state as it is now: only one that says that it can go on from there is executed, for nobody would
 * start another keeper, and in a container everything ends with it. */
#pragma once

#include <signal.h>

#include "base/util.h"
#include "sys/reexec.h"

/* The state: of this format, in words. What is held goes over as sys/reexec.h has it. */
#define KEEPER_STATE_VARIABLE "TENURE_KEEPER_STATE"

struct keeper_state {
	pid_t daemon;
	uint64_t nofile_soft, nofile_hard; /* as the first image was given them */
	uint64_t watchdog_usec;		   /* of the daemon */
	uint64_t n_inherited;		   /* of what is held */
	char notify[128];		   /* address of the notify socket */
};

/* In the environment of this process: set it; read and unset it. Read: 1; 0: there is none;
 * -EINVAL: it is of another format. */
int keeper_state_export(const struct keeper_state *s);
int keeper_state_import(struct keeper_state *ret);

struct keeper_exec {
	char *path;
	int program; /* O_PATH: what is tried is what is executed */
	pid_t pid;   /* of the one that is being tried; 0: none is */
	int output_fd, asker_fd;
	uint64_t deadline_usec;
	bool late;
};

#define KEEPER_EXEC_NULL                                                                           \
	((struct keeper_exec){                                                                     \
		.program = -1, .output_fd = -1, .asker_fd = -1, .deadline_usec = USEC_INFINITY})

/* Begin to try. Takes the asker's descriptor. False: refused, and said to the asker. */
bool keeper_exec_begin(
	struct keeper_exec *x, const struct keeper_state *state, uint64_t now_usec, int *asker);
/* That child has ended. True: it is good, go on with keeper_exec_now(); else refused and over. */
bool keeper_exec_judge(struct keeper_exec *x, const siginfo_t *si);
/* It has had its time. */
void keeper_exec_late(struct keeper_exec *x);
/* Returns on failure only, which is said to the asker; then everything is as before. held: what is
 * to stay open, as the next image knows it, and room for one more. */
void keeper_exec_now(struct keeper_exec *x, const struct keeper_state *state,
	struct reexec_fd *held, size_t n, char *const *argv);
/* Refuse what is under way, or do nothing. */
void keeper_exec_done(struct keeper_exec *x, const char *reason);

/* `--check-state` of either program, with the state in the environment: an exit status. */
int keeper_check_state(void);
/* Tell whoever asked. Closes it. */
void keeper_exec_tell(int *asker, const char *text);
#define KEEPER_EXEC_ASKER "-asker"

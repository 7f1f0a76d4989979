/* SPDX-License-Identifier: Apache-2.0 */
/* What a generation is made from, fixed at the moment it was asked for: configuration, directory
 * with its symlinks resolved, the executable (pinned by an O_PATH descriptor when it is an ELF
 * file), user, environment. Every worker of the generation, also one that is respawned a year
 * later, is made from it. environ(7), path_resolution(7), execveat(2). */
#pragma once

#include <sys/stat.h>

#include "base/error.h"
#include "core/config.h"
#include "sys/spawn.h"
#include "sys/user.h"

struct snapshot_file {
	char *path;
	bool exists;
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

struct snapshot {
	unsigned n_refs;
	unsigned number;	      /* of its record in the saved state; 0: it has none */
	struct service_config config; /* an own copy */
	int directory_fd;	      /* O_PATH | O_DIRECTORY */
	char *directory;	      /* real path when it was resolved */
	char *executable;	      /* absolute real path of the program */
	int exec_fd;		      /* O_PATH of an ELF file; -1: a script, run by path */
	char **argv;		      /* {fd:NAME} replaced, {socket:WORD} not */
	char **environment;	      /* complete but for what worker_handoff.c adds and replaces */
	struct user user;
	bool set_user; /* user or group differ from the daemon's */
	struct spawn_limit *limits;
	size_t n_limits;
	struct snapshot_file program; /* identity of the executable */
	struct snapshot_file *fingerprint;
	size_t n_fingerprint;
	struct snapshot_file *env_files;
	size_t n_env_files;
};

/* The descriptor number that listener i of the configuration has in a worker. */
int snapshot_listener_fd(const struct service_config *c, size_t i);

/* Resolve and open everything. nofile_limit: the RLIMIT_NOFILE that workers get unless
 * limits say otherwise. Errors name the service, the fact and the remedy
 * (a program not found: the PATH that was searched; an unknown user; an env file that cannot be
 * read, with its line when it cannot be parsed). env files: NAME=value lines, # comments, quotes as
 * in systemd.exec(5)'s EnvironmentFile=. 0 or -errno. */
int snapshot_new(const struct service_config *c, const struct rlimit *nofile_limit,
	struct snapshot **ret, struct error *ret_error);
struct snapshot *snapshot_ref(struct snapshot *s);
struct snapshot *snapshot_unref(struct snapshot *s);
static inline void snapshot_unref_p(struct snapshot **s)
{
	*s = snapshot_unref(*s);
}
#define _cleanup_snapshot_ _cleanup_(snapshot_unref_p)
/* What would be different if a snapshot of the same configuration were taken now: adds
 * "executable", "directory", "fingerprint", "environment file" to reasons (strv). Looks, never
 * opens. 0 or -ENOMEM. */
int snapshot_pending(const struct snapshot *s, char ***reasons);
/* The program was changed in place since (scripts: a respawn runs the changed one): for a warning.
 */
bool snapshot_program_changed(const struct snapshot *s);

/* SPDX-License-Identifier: Apache-2.0 */
/* What survives the daemon: descriptors that the keeper holds (sys/fdstore.h), and the saved state,
 * which is one of them and says what the others are. Without a keeper ($NOTIFY_SOCKET not set)
 * there is no store: every function takes NULL for it and does nothing, at no cost.
 *
 * Descriptors are stored when they are made and taken out when they are closed. Their names are
 * short, because all of them come back in one environment variable: "_", a letter for the kind, a
 * number in base 36 ("_l1k"). The underscore tells them from sockets of socket units. What a
 * descriptor is for is said by the state alone, which names it by its number.
 *
 * The state is a set of records, KEY -> JSON (state_save.h says which). store_set() notes what is
 * to be said; store_commit() writes what has really changed, in one batch that a kill leaves either
 * whole or unwritten (wire/state.h). The rule for everybody: store, commit, act; what was acted on
 * and is not in the state is found again by restore.h. */
#pragma once

#include <jansson.h>
#include <systemd/sd-event.h>

#include "base/error.h"
#include "sys/activation.h"
#include "sys/reexec.h"

enum stored {
	STORED_LISTENER = 'l',
	STORED_INHERITED = 'i', /* a socket unit's: never to be shut down */
	STORED_PIDFD = 'p',
	STORED_NOTIFY = 'n',
	STORED_READY = 'r',	 /* our end of what a worker says on that it is ready */
	STORED_CHANNEL = 'h',	 /* our end of a worker's channel */
	STORED_OUTPUT = 'o',	 /* a capture file; its file position is where reading goes on */
	STORED_DIRECTORY = 'd',	 /* of a snapshot */
	STORED_EXECUTABLE = 'e', /* of a snapshot */
	STORED_CONTROL = 'c',	 /* the control socket */
	STORED_STATE = 's',
	STORED_CONNECTION = 'k', /* of the control socket; over an exec only */
	STORED_WORKER = 'w',	 /* that a worker asked to be kept for it: worker_store.h */
};

/* So many are stored at most; systemd's FileDescriptorStoreMax= has to be as large. Their names
 * come back in one environment variable, for which Linux has 128 KiB: execve(2). */
enum { STORE_MAX = 16000 };

struct store;

/* received: everything that was passed to this process; what has a store's name is moved out of it.
 * *ret: NULL when there is no keeper and nothing was stored. 0 or -ENOMEM. */
int store_new(struct activation *received, struct store **ret);
/* From now on a keeper that does not read is told later, from the loop. 0 or -errno. */
int store_watch(struct store *s, sd_event *event);
/* The keeper starts the next one with a soft limit of so many open files, which has to be more than
 * it passes: systemd cannot execute it otherwise, now or ever. */
void store_limit_nofile(struct store *s, uint64_t soft_nofile);
/* Closes what nobody has taken, and leaves everything with the keeper. Returns NULL. */
struct store *store_free(struct store *s);
/* Did an earlier daemon leave anything? */
bool store_is_empty(const struct store *s);
/* Is there a keeper, that what is stored now will survive us? */
bool store_is_kept(const struct store *s);

/* --- descriptors --- */

/* Have the keeper hold a copy. Its number, > 0; 0: it is not stored (no keeper, or its store is
 * full, which is logged). */
unsigned store_add(struct store *s, enum stored kind, int fd);
/* The keeper forgets it. Before the descriptor is closed; one that is not stored is fine. */
void store_drop(struct store *s, int fd);
void store_drop_number(struct store *s, enum stored kind, unsigned number);
/* The number under which the descriptor is stored; 0: it is not. */
unsigned store_number(const struct store *s, int fd);
/* Wait (a second at most, and not again soon if that was not enough) until the keeper has really
 * closed what was dropped: before an address is bound again. */
void store_barrier(struct store *s);
/* Before all is left to it: has the keeper got everything? Waits a few seconds at most. 0;
 * -ETIMEDOUT: it is there and does not read; -errno: there is none any more. */
int store_settle(struct store *s);

/* What an earlier daemon stored. The descriptor is the caller's, and stays stored; -1: there is
 * none, or it was taken. Number 0 is none. */
int store_take(struct store *s, enum stored kind, unsigned number);
/* One after the other those of a kind that nobody has taken; -1: no more. */
int store_take_any(struct store *s, enum stored kind, unsigned *ret_number);
/* What was taken did not help: everything can be taken again. The caller has closed it. */
void store_take_back(struct store *s);
/* Close those that nobody has taken, and have the keeper forget them: nothing knows what they are
 * for. Returns how many. */
unsigned store_discard_rest(struct store *s);

/* Say something else to the keeper, with a descriptor beside it. 0; -ENOTCONN: there is none;
 * -errno. */
int store_tell(struct store *s, const char *text, int fd);

/* --- state --- */

/* Is there a state of an earlier daemon? Does not look whether it is good. */
bool store_has_state(const struct store *s);
/* Read it: an object of KEY -> value. 0; -ENODATA: there is none; or a message why it cannot be
 * used (damaged, truncated, of a newer version): it is then given up, and the next commit begins
 * anew. */
int store_load(struct store *s, json_t **ret, struct error *ret_error);
/* It was read, and cannot be used all the same: the next commit begins anew. */
void store_give_up_state(struct store *s);
/* A record's new value; NULL: there is none any more. Takes the value. Out of memory is logged. */
void store_set(struct store *s, const char *key, json_t *value_take);
/* Is there a record of that name? */
bool store_has(const struct store *s, const char *key);
/* Forget all records that begin so. */
void store_forget(struct store *s, const char *prefix);
/* Write what has changed. A failure is logged once, and tried again the next time. */
void store_commit(struct store *s);

/* --- over an exec of this process (reexec.h) --- */

/* Until store_end_exec() there is a store also without a keeper (*s is made): descriptors have
 * numbers and the state is written, both for the next image of this process. 1: the state is empty,
 * whatever was written into it before; 0: it is as it was kept up to now; -ENOMEM. */
int store_begin_exec(struct store **s);
void store_end_exec(struct store *s);
/* A number for a descriptor that has none, without giving it to the keeper. 0: out of memory. */
unsigned store_lend(struct store *s, enum stored kind, int fd);
/* That one is nobody's to have any more. */
void store_unlend(struct store *s, int fd);
/* The kind under which it is stored; only where it has a number. */
enum stored store_kind(const struct store *s, int fd);
/* Was everything that was noted written? */
bool store_is_written(const struct store *s);
/* All descriptors that have a number, and are open. *ret and *ret_names (which it points to) are
 * the caller's to free. 0 or -ENOMEM. */
int store_list(const struct store *s, struct reexec_fd **ret, size_t *ret_n, char **ret_names);
/* A copy of the state as it was last written, for somebody to try it. fd or -errno; -EIO: it could
 * not be written. */
int store_copy_state(const struct store *s);

struct store_figures {
	unsigned n_stored;	     /* descriptors */
	uint64_t n_commits, n_bytes; /* written */
	uint64_t commit_usec;	     /* spent on writing */
};
void store_figures(const struct store *s, struct store_figures *ret);

/* SPDX-License-Identifier: Apache-2.0 */
/* Output of workers without a pipe: a pipe blocks its writer when it is full and kills it when its
 * reader is gone. Instead the worker appends to an unlinked file (O_TMPFILE; in $XDG_RUNTIME_DIR,
 * /run, /dev/shm or /tmp: the first that is in memory, else the first that works); we watch it with
 * inotify through /proc/self/fd/N, read with pread and give back what was read by
 * fallocate(PUNCH_HOLE) in steps of 1 MiB. Punching raises IN_MODIFY itself, so an event without
 * new bytes is no news. The file's size only ever grows, its storage does not.
 *
 * The file may be opened for writing, not for reading, by other users who have it open (mode 0622),
 * because programs open /dev/stderr by its name. One that truncates it loses what was not read yet,
 * and nothing else happens. */
#pragma once

#include "base/buffer.h"

enum {
	CAPTURE_PUNCH_STEP = 1 << 20,
	CAPTURE_TAIL_MAX = 16 << 10, /* bytes of last output that are kept in memory */
	CAPTURE_LINE_MAX = 8 << 10,  /* longer lines are split */
};

struct capture {
	int fd;		 /* the daemon's, read and punch */
	uint64_t offset; /* read up to here */
	uint64_t punched;
	/* Most bytes on storage not yet read. When a read finds more, the oldest are cut until half
	 * of it is left. (Nobody cuts while nobody reads: then the file system's size is the bound,
	 * and the writer gets ENOSPC.) */
	uint64_t quota;
	uint64_t lost; /* bytes dropped by the quota; a line that was cut in the middle is dropped
			  to its end */
	struct buffer line; /* an unfinished line */
	bool cut;	    /* we are in the middle of a line that is dropped */
	char *tail;	    /* ring of the last CAPTURE_TAIL_MAX bytes; NULL: none yet */
	size_t tail_len, tail_start;
};

/* A line that was completed: without its newline, not NUL-terminated, may contain any byte. */
typedef void (*capture_line_fn)(const char *line, size_t len, void *userdata);

/* quota: bytes. ret_write_fd: what the worker gets as stdout and stderr (O_WRONLY | O_APPEND,
 * CLOEXEC); the caller closes it after the spawn. */
int capture_open(struct capture *ret, uint64_t quota, int *ret_write_fd);
/* Go on with the file of an earlier capture (as after a new exec of ours) from that offset; what is
 * before it is freed. capture_read() leaves the offset of what was not read yet, or is of an
 * unfinished line, as the descriptor's file position (lseek(2)), so that whoever holds a copy of it
 * knows where to go on. */
int capture_restore_take(struct capture *ret, int *fd, uint64_t offset, uint64_t quota);
/* NULL-safe on a zeroed one whose fd is -1. */
void capture_done(struct capture *c);
/* Add it to an inotify descriptor: the watch descriptor, or -errno. */
int capture_watch(struct capture *c, int inotify_fd);
/* Read what is new, at most max bytes in one call (fairness), calling line for each complete line
 * (line may be NULL). Returns the bytes read (0: nothing new; max: there may be more, for which no
 * event will come: call again), or -errno. */
ssize_t capture_read(struct capture *c, size_t max, capture_line_fn line, void *userdata);
/* The unfinished last line as a line; call when the worker is gone and capture_read() gave 0. */
void capture_flush(struct capture *c, capture_line_fn line, void *userdata);
/* The last output, at most CAPTURE_TAIL_MAX bytes, NUL-terminated, control characters but \n and \t
 * replaced, valid UTF-8 guaranteed (bad bytes as '?'). The caller frees; NULL: out of memory. */
char *capture_tail(const struct capture *c);

/* SPDX-License-Identifier: Apache-2.0 */
/* What store.c, store_keeper.c and store_state.c share; nobody else's. */
#pragma once

#include "base/buffer.h"
#include "daemon/store.h"
#include "sys/fdstore.h"

enum { STORE_NAME_MAX = 12 };

struct store_entry {
	enum stored kind;
	unsigned number; /* 0: not stored */
	bool unsent;	 /* the keeper did not read when it was its turn */
};

/* What the keeper is to forget, and has not been told yet. */
struct store_removal {
	enum stored kind;
	unsigned number;
};

struct store_received {
	enum stored kind;
	unsigned number;
	int fd;
	bool taken; /* by a duplicate: if the rest cannot be used, all is given out anew */
};

struct store {
	struct fdstore keeper;
	unsigned max, n_stored, last_number;
	const char *max_setting; /* of a unit: what would have to be larger */
	bool full, failed;	 /* reported already */
	bool exec;		 /* of the next image of this process */
	unsigned n_unsent;
	struct store_removal *removals;
	size_t n_removals, removals_capacity;
	sd_event_source *retry_timer; /* NULL: only with each commit */
	uint64_t retry_usec;	      /* between two tries, now */
	uint64_t patience_usec;	      /* that are left until then */
	uint64_t patience_until_usec;
	uint64_t barrier_again_usec; /* not before */
	struct store_entry *by_fd;
	size_t by_fd_capacity;
	struct store_received *received;
	size_t n_received;

	json_t *records;       /* KEY -> the value's text, as they stand in the file */
	struct buffer pending; /* records that are not written yet */
	int state_fd;
	unsigned slot;
	size_t end;	   /* where the next batch goes */
	size_t whole_len;  /* of the batch that began the slot */
	uint64_t sequence; /* of the last batch; 0: none */
	bool anew;	   /* everything must be written, into the other slot */
	bool write_failed; /* reported already */
	struct store_figures figures;
};

void store_format_name(enum stored kind, unsigned number, char ret[static STORE_NAME_MAX]);

/* --- store_keeper.c: there is one ----------------------------------------- */

/* Say by_fd[fd]. 0: also when it is said later; -errno: never. */
int store_push(struct store *s, int fd);
int store_push_removal(struct store *s, enum stored kind, unsigned number);
void store_keeper_failed(struct store *s, int r);
/* Tell the keeper what it did not take. */
void store_catch_up(struct store *s);
/* The same, and wait for it a moment. */
void store_end_backlog(struct store *s);
/* That too, for the last time. */
void store_end_keeper(struct store *s);

/* SPDX-License-Identifier: Apache-2.0 */
/* What connections.c and connections_measure.c share. */
#pragma once

#include "base/idmap.h"
#include "daemon/connections.h"
#include "sys/sockdiag.h"

struct connection_count {
	unsigned generation, worker;
	pid_t pid;
	int n; /* -1: not known */
};

struct connection_ask {
	unsigned generation, worker;
	bool taken; /* by the walk that is under way */
};

struct connection_share {
	unsigned generation, weight;
	unsigned n_seen;
};

/* Which part of new connections each generation gets in reality. Whoever is there at a look and was
 * not there at the one before has come meanwhile. */
struct connection_measure {
	struct connection_share shares[CONFIG_GENERATIONS_MAX + 2];
	size_t n_shares; /* at least 2: they are split */
	unsigned n_seen;
	unsigned epoch;	     /* changes with the shares */
	bool has_base;	     /* there was a look since */
	struct idmap before; /* at the last look: by inode, or by cookie while nobody's */
	struct idmap now;    /* at the one under way */
	unsigned now_epoch;
	sd_event_source *timer; /* on while a rollout is open */
	uint64_t told_usec;
};

/* Of a service. */
struct connections {
	bool wanted;   /* all workers, by a walk that is still to begin */
	bool counting; /* by the one that is under way */
	struct connection_ask *asks;
	size_t n_asks, asks_capacity;
	struct connection_count *counts; /* of the last walk over all workers */
	size_t n_counts, counts_capacity;
	uint64_t counted_usec, took_usec; /* when it began (0: never), what it cost */
	struct connection_measure measure;
};

/* connections_measure.c */
/* A walk over all workers begins, meets a connection (generation 0: nobody has it yet), has ended
 * (complete: it has met all of them). */
void measure_begin(struct manager_service *s);
void measure_take(struct manager_service *s, unsigned generation, const struct sockdiag_entry *e);
void measure_end(struct manager_service *s, bool complete);
void measure_done(struct connection_measure *m);
/* connections.c: as connections_want(), however old the last count is. */
void connections_want_now(struct manager_service *s);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The load generator. load.c reads the options and runs the loop, load_client.c is what one client
 * does, load_reply.c reads HTTP/1 replies, load_report.c counts and prints. */

#include "tool.h"

#include <netinet/in.h>
#include <stdio.h>

/* ---- replies ---- */

enum reply_phase {
	REPLY_HEAD,
	REPLY_BODY_LENGTH,
	REPLY_BODY_UNTIL_EOF,
	REPLY_CHUNK_SIZE,
	REPLY_CHUNK_DATA,
	REPLY_CHUNK_END,
	REPLY_TRAILER,
	REPLY_DONE,
};

#define REPLY_HEAD_MAX 8192
#define REPLY_NONE UINT32_MAX /* a number that the reply did not carry */

struct reply {
	enum reply_phase phase;
	unsigned status;
	bool keep_alive;
	uint32_t generation, worker, pid; /* or REPLY_NONE */
	uint64_t left;			  /* of the body or of this chunk, in bytes */
	size_t n_head;			  /* bytes in head, also of a line of a chunked body */
	char head[REPLY_HEAD_MAX];
};

void reply_reset(struct reply *reply);

/* Takes the bytes that came. Returns 0 when all were used, 1 when the reply is complete (what
 * follows it is not expected by anybody), -EBADMSG when they are not HTTP/1, -EMSGSIZE when the
 * head is too long. */
int reply_feed(struct reply *reply, const char *bytes, size_t n_bytes);

/* The peer closed: true when that completes the reply. */
bool reply_end(struct reply *reply);

/* ---- counting ---- */

/* X(symbol, name): what can go wrong with a request, as clients see it. */
#define FAILURE_KINDS(X)                                                                           \
	X(REFUSED, "refused")                                                                      \
	X(RESET_BEFORE_REPLY, "reset-before-reply")                                                \
	X(RESET_MID_REPLY, "reset-mid-reply")                                                      \
	X(RESET_IDLE, "reset-idle")                                                                \
	X(EOF_BEFORE_REPLY, "eof-before-reply")                                                    \
	X(SHORT_REPLY, "short-reply")                                                              \
	X(TIMEOUT, "timeout")                                                                      \
	X(BAD_STATUS, "bad-status")                                                                \
	X(OTHER, "other")

enum failure_kind {
#define X(symbol, name) FAILURE_##symbol,
	FAILURE_KINDS(X)
#undef X
};
enum {
#define X(symbol, name) +1
	N_FAILURE_KINDS = 0 FAILURE_KINDS(X)
#undef X
};

/* Counts by a 64-bit key: a hash table that only grows. */
struct tally_entry {
	uint64_t key, count;				/* count 0: a free place */
	uint64_t first_usec, last_usec;			/* when replies with it came */
	uint64_t first_connect_usec, last_connect_usec; /* when their connections were begun */
};

struct tally {
	struct tally_entry *entries;
	size_t n_entries, n_used;
	size_t last; /* the place of the last hit, most often that of the next */
};

/* Microseconds from 1 to 2^36 (19 hours), 64 steps to each power of two: under 1.6 % off. */
#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_BUCKETS (((36 - HISTOGRAM_SUB_BITS) + 2) << HISTOGRAM_SUB_BITS)

struct histogram {
	uint64_t buckets[HISTOGRAM_BUCKETS];
	uint64_t n, max, sum;
};

struct report {
	uint64_t start_usec, stop_usec; /* stop: when new requests ended, 0 before */
	uint64_t n_requests, n_ok, n_failed, n_connections;
	uint64_t n_idle_closed;	      /* kept connections the server ended between requests */
	uint64_t n_reset_after_reply; /* reset once the reply was complete: noted, no failure */
	uint64_t n_not_started;	      /* open loop: due, but no client was free */
	uint64_t n_failed_reused; /* failures of a request that was not its connection's first */
	uint64_t failures[N_FAILURE_KINDS];
	uint64_t last_ok_usec, gap_usec, gap_at_usec;
	struct tally generations, workers, pids;
	struct histogram latency, connect;
	FILE *failures_to;
	uint64_t interval_n_ok, interval_n_failed, interval_usec;
};

struct request_facts {
	uint64_t connect_usec; /* when its connection was begun */
	uint64_t since_usec;   /* what its latency counts from */
	bool reused;	       /* not the first request of its connection */
	const char *phase;     /* how far it came, for the log of failures */
	int local_port;
};

void report_ok(struct report *report, const struct reply *reply, const struct request_facts *facts,
	uint64_t now_usec);
void report_failure(struct report *report, enum failure_kind kind, int error, unsigned status,
	const struct request_facts *facts, uint64_t now_usec);
void report_stop(struct report *report, uint64_t now_usec);
/* The whole result as one JSON object and a newline. */
void report_print(const struct report *report, FILE *file, uint64_t now_usec);
/* What tests wait for, written beside `path` and renamed over it. */
void report_live(const struct report *report, const char *path, uint64_t now_usec);
void report_interval(struct report *report, uint64_t now_usec);
void report_done(struct report *report);

void histogram_add(struct histogram *histogram, uint64_t usec);
uint64_t histogram_percentile(const struct histogram *histogram, double percent);

/* ---- clients ---- */

struct load_options {
	struct tool_address target;
	struct tool_address *sources; /* bound one after the other; none: the kernel chooses */
	size_t n_sources;
	const char **requests[2]; /* the bytes of each path's request: [0] closing, [1] keeping */
	size_t n_paths;
	bool keep_alive, linger_zero;
	uint64_t requests_per_connection; /* 0: no end */
	size_t n_clients;
	double rate;			      /* requests per second; 0: closed loop */
	uint64_t duration_usec, max_requests; /* 0: no bound */
	uint64_t think_usec, send_delay_usec, timeout_usec, interval_usec;
	unsigned expect_status; /* 0: any 2xx */
	const char *live_path, *failures_path;
};

enum client_state {
	CLIENT_FREE,	   /* waits for its turn; may own a kept connection */
	CLIENT_THINKING,   /* the same, until a time */
	CLIENT_RETRYING,   /* a Unix socket's queue was full; connects again soon */
	CLIENT_CONNECTING, /* the handshake is under way */
	CLIENT_DELAYING,   /* connected, and silent on purpose */
	CLIENT_WAITING,	   /* the request was sent, no byte of the reply has come */
	CLIENT_READING,	   /* some bytes have come */
	CLIENT_LINGERING,  /* the reply is complete; the server closes first */
};

/* Waits of one length each, so that the order of their starts is that of their ends. */
enum wait_kind {
	WAIT_THINK,
	WAIT_FAILED,
	WAIT_RETRY,
	WAIT_DELAY,
	WAIT_LINGER,
	WAIT_TIMEOUT,
	N_WAIT_KINDS,
	WAIT_NONE = N_WAIT_KINDS,
};

struct client {
	enum client_state state;
	int fd;
	bool watched; /* in the epoll set */
	bool keep;    /* this request asked the server not to close */
	uint32_t watched_for;
	uint64_t n_on_connection; /* requests begun on this connection */
	uint64_t connect_usec, since_usec;
	uint64_t give_up_usec;
	const char *request;
	size_t n_sent;
	enum wait_kind wait; /* which queue it stands in */
	uint64_t wake_usec;
	struct client *previous, *next; /* in that queue, or in the list of free ones */
	struct reply reply;
};

struct client_list {
	struct client *first, *last;
};

struct load {
	struct load_options options;
	struct report report;
	int epoll_fd;
	struct client *clients;
	struct client_list free_list, waits[N_WAIT_KINDS];
	uint64_t wait_usec[N_WAIT_KINDS];
	uint64_t n_started; /* requests begun or given up before their connect */
	size_t n_busy, next_source;
	bool stopping;
};

/* Makes the clients and, in a closed loop, sends each off. */
int clients_start(struct load *load);
/* An epoll event of this client's connection. */
void client_event(struct load *load, struct client *client, uint32_t events);
/* Ends the waits that are over and begins the requests that are due. */
void clients_tick(struct load *load);
/* When clients_tick() has something to do next, or TOOL_NEVER. */
uint64_t clients_next_usec(const struct load *load);
/* No more new requests; those under way go on. */
void clients_stop(struct load *load);
void clients_done(struct load *load);

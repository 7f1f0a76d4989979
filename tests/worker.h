/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The HTTP worker of the tests. By default it behaves as well as a server can; options give it
 * every bad manner that a real one was seen with. worker.c sets up and runs the loop, worker_http.c
 * owns the connections, worker_paths.c knows what each path answers, worker_manners.c misbehaves,
 * and worker_options.c reads the options. */

#include "tool.h"

#include <sys/types.h>

#define MAX_LISTENERS 64
#define REQUEST_MAX 4096

/* Exit codes of its own, so that a test can tell them from those it asked for. */
enum {
	EXIT_USAGE = 2,
	EXIT_LISTEN = 92,
	EXIT_WRONG_FDS = 93,
	EXIT_WRONG_PID = 94,
};

/* ---- options ---- */

struct worker_list {
	const char **items;
	size_t n_items;
};

struct worker_options {
	struct worker_list lines; /* of the files of manners: owned, the others point into them */

	/* listeners */
	struct worker_list fds, listen;
	bool use_stdin;
	uint64_t backlog;

	/* readiness */
	uint64_t boot_delay, ready_delay, ready_before_accept;
	bool never_ready, never_accept, no_notify;
	uint64_t die_after_ready;
	bool die_between_requests;
	const char *status;
	uint64_t notify_errno;
	struct worker_list notify;
	uint64_t extend_timeout;
	bool spam_notify, watchdog;
	uint64_t watchdog_stop_after;

	/* the end */
	uint64_t exit_code;
	bool exit_at_once;
	uint64_t exit_after, crash_after, hang_after;
	const char *crash_how;
	bool ignore_term, exit_on_term_at_once, never_exit;
	uint64_t term_delay, idle_linger;

	/* listeners, badly treated */
	uint64_t shutdown_listener, close_listener, detach_bpf, relisten;
	const char *listen_own;
	bool epoll_exclusive, clear_nonblock, unlink_at_exit;
	uint64_t accept_delay, accept_batch;

	/* processes, descriptors, output */
	bool fork_grandchild, double_fork, leak_fd, fail_if_fds, print_env;
	uint64_t grandchild_lifetime;
	uint64_t flood_stdout, write_lines, allocate, grow;
	bool flood;
	const char *write_text, *chdir_to;
	bool unhealthy;
	const char *unhealthy_if;
};

/* Reads the command line and the files of manners it names; ends the program when they are wrong.
 */
void worker_options_read(struct worker_options *options, int argc, char **argv);
void worker_options_done(struct worker_options *options);

/* ---- the worker ---- */

enum source_kind {
	SOURCE_SIGNALS,
	SOURCE_LISTENER,
	SOURCE_DATAGRAMS,
	SOURCE_CONNECTION,
};

/* What an epoll event points to: the first member of each. */
struct source {
	enum source_kind kind;
	int fd;
};

struct listener {
	struct source source;
	bool own; /* bound here, not given */
	char name[64];
};

enum manner_id {
	MANNER_EXIT,
	MANNER_CRASH,
	MANNER_DIE_AFTER_READY,
	MANNER_HANG,
	MANNER_SHUTDOWN_LISTENER,
	MANNER_CLOSE_LISTENER,
	MANNER_DETACH_BPF,
	MANNER_FLOOD,
	MANNER_SPAM_NOTIFY,
	MANNER_WATCHDOG,
	MANNER_EXTEND_TIMEOUT,
	MANNER_LEAK_FD,
	MANNER_GROW,
	N_MANNERS,
};

struct connection;

struct worker {
	struct worker_options options;
	const char *generation, *index; /* TENURE_GENERATION and TENURE_WORKER, or NULL */
	pid_t pid;
	uint64_t start_usec;
	char *initial_fds; /* what /fds answers: taken before anything was opened here */

	int epoll_fd;
	struct source signals;
	struct listener listeners[MAX_LISTENERS];
	size_t n_listeners;

	uint64_t ready_at, accept_at; /* TOOL_NEVER: never, or done */
	bool ready, accepting;
	uint64_t stop_at, idle_until; /* when to begin draining; when idle connections are closed */
	bool draining;

	struct connection *connections; /* all of them */
	size_t n_connections;
	uint64_t next_wake_usec; /* the earliest of the sleeping ones */

	uint64_t manner_at[N_MANNERS];
	uint64_t n_served;
};

/* ---- worker_manners.c ---- */

/* What is done before the first connection, in the order of a program's start. */
void manners_begin(struct worker *worker);
void manners_bound(const struct worker *worker);
void manners_ready(struct worker *worker);
void manners_accepting(struct worker *worker);
void manners_tick(struct worker *worker, uint64_t now_usec);
uint64_t manners_next_usec(const struct worker *worker);
_Noreturn void manners_crash(const struct worker *worker);

/* ---- worker_paths.c ---- */

enum reply_end {
	END_KEEP,   /* as the client asked */
	END_CLOSE,  /* close when all was sent */
	END_RESET,  /* the same, with a reset */
	END_SILENT, /* send nothing more, and leave it open */
	END_CRASH,  /* the whole process, when all was sent */
};

/* How a request is answered. */
struct answer {
	unsigned status; /* 0: not even a head */
	char *body;	 /* freed by who owns the answer */
	size_t n_body;
	uint64_t filler;  /* this many bytes of '.' after the body */
	uint64_t missing; /* announced in Content-Length but not sent */
	bool chunked;
	uint64_t delay_usec;	 /* before the head */
	uint64_t mid_delay_usec; /* between head and body */
	enum reply_end end;
};

/* `target` is "/path?query" and may be changed. `fd` is the connection. */
void paths_answer(struct worker *worker, char *target, int fd, struct answer *ret);
/* The open descriptors, one a line: number, CLOEXEC or inherited, what it is. Freed by the caller.
 */
char *paths_list_fds(void);

/* ---- worker_http.c ---- */

void connection_accept(struct worker *worker, int fd);
void connection_event(struct worker *worker, struct connection *connection, uint32_t events);
/* Goes on with the answers whose time has come, and closes idle ones when draining is at its end.
 */
void connections_tick(struct worker *worker, uint64_t now_usec);

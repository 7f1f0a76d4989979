/* SPDX-License-Identifier: Apache-2.0 */
/* One worker's process as the daemon holds it: pid and pidfd, notify socket, captured output, its
 * readiness. The policy is core/worker.h; here is only what is. */
#pragma once

#include <signal.h>
#include <systemd/sd-event.h>

#include "daemon/manager.h"
#include "sys/capture.h"

struct ready_watch;
struct output;
struct notify_datagram; /* sys/notify_socket.h */

/* A worker's flood must not keep others waiting: of what it says so much is read at once (each
 * descriptor costs 1), and who has more to say than that waits behind everybody else. What it said
 * before it ended is read to the end, unless somebody goes on in its place. */
enum {
	WORKER_COST_OF_MESSAGE = 8,
	WORKER_COST_AT_ONCE = 256,
	WORKER_COST_OF_LAST_WORDS = 8192,
};

struct worker_process {
	struct manager_service *service;
	unsigned generation, index;
	pid_t pid; /* 0: no process */
	int pidfd;
	pid_t pgid;	  /* its process group */
	pid_t main_pid;	  /* by MAINPID=; else pid */
	uint64_t started; /* of pid, as process_start_time() has it; 0 where there is no keeper */
	bool foreign;	  /* not our child, but an earlier daemon's */
	sd_event_source *exit_source;
	sd_event_source *exit_timer; /* foreign: its exit status is not told yet */
	unsigned exit_looks;
	int notify_fd;
	char *notify_address;
	sd_event_source *notify_source;
	struct output *output;	   /* captured; NULL: inherited */
	struct ready_watch *ready; /* while STARTING */
	bool said_ready;	   /* READY=1 came */
	int ready_fd;		   /* where it says so by another convention: worker_ready_fd.h */
	sd_event_source *ready_fd_source;
	bool wrote_something; /* there */
	bool wrote_ready;
	int channel_fd; /* our end; -1: none. worker_channel.h */
	sd_event_source *channel_source, *channel_timer, *channel_retry;
	unsigned channel_accepts; /* set of enum channel_accepts; 0: nobody has said hello */
	bool channel_greets;	  /* it is to be welcomed */
	bool channel_pings;	  /* it is to be asked whether it is alive */
	bool told_channel;	  /* nonsense from it was logged, once for each process */
	uint64_t has_listeners;	  /* bit per listener that it was given */
	uint64_t told_leave;	  /* of those, which are about to be closed */
	uint64_t told_remove;	  /* of those, which it is to close now */
	bool told_main_pid;	  /* a wrong MAINPID= was logged, once for each process */
	bool told_to_go;	  /* the drain signal was sent */
	char *status;		  /* STATUS= */
	sd_event_source *watchdog_source;
	uint64_t watchdog_usec;	    /* 0: off */
	uint64_t spawned_usec;	    /* CLOCK_MONOTONIC */
	uint64_t ready_told_usec;   /* the process spawned then was reported ready */
	int exit_code, exit_status; /* of the last process: CLD_* and status, as siginfo_t;
				       exit_code 0: none yet */
	bool short_of_memory;	    /* the kernel ended it for want of memory */
	bool bound;		    /* by cpu_affinity, when it was spawned */
	struct cpu_set cpus;
	unsigned restarts;
	uint64_t memory;	    /* at the last look, bytes; 0: not looked at */
	uint64_t memory_exact_usec; /* CLOCK_MONOTONIC of the last exact look; 0: none */
	char *spawn_failure;	    /* why the last start came to nothing; NULL: it did not */
	bool changed;		    /* since it was saved */
};
/* exit_code: the process has ended, and nobody could be asked how. */
enum { EXIT_CODE_UNKNOWN = -1 };

struct worker_process *worker_process_new(
	struct manager_service *s, unsigned generation, unsigned index);
struct worker_process *worker_process_free(struct worker_process *p);
/* Make the process; watch exit, notify socket and output. 0 or -errno with a message. */
int worker_process_spawn(
	struct worker_process *p, const struct manager_generation *g, struct error *ret_error);
/* Every process of the worker: its group leader and all descendants. The caller frees. */
int worker_process_tree(const struct worker_process *p, pid_t **ret, size_t *ret_n);
/* An earlier daemon's process that lives (pidfd, notify socket, pid and pgid are set): watch it. 0
 * or -errno. */
int worker_process_watch(struct worker_process *p, uint64_t watchdog_usec);
/* It ended while nobody was looking: forget it, and tell the core. */
void worker_process_ended(struct worker_process *p, int code, int status);
/* What is saved of it has changed: it is saved soon, or with whatever comes of it. */
void worker_process_changed(struct worker_process *p);
void worker_process_signal(struct worker_process *p, int signal, bool group);
/* SIGKILL to its group and descendants. */
void worker_process_kill(struct worker_process *p);
/* "exit status 3", "signal 9 (Killed)", of CLD_* and status as in siginfo_t. The caller frees. */
char *worker_exit_to_string(int code, int status);
/* The same of its last process, or "running". The caller frees. */
char *worker_process_describe_exit(const struct worker_process *p);
/* Its watchdog was heard. */
void worker_process_alive(struct worker_process *p);
/* May it speak for this worker: the worker itself, or a live descendant, of the service's user? */
bool worker_process_is_sender(const struct worker_process *p, const struct notify_datagram *d);
/* Handle one notify datagram queue (event callback). */
int worker_notify_dispatch(sd_event_source *source, int fd, uint32_t revents, void *userdata);

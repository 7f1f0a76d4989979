/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's heart: events of the world go to the core, its effects go to the world. One manager,
 * its services, and of each service what the core's generations and workers are in reality. Reading
 * order: manager.c (life of the daemon, reload), service_apply.c (the one switch over effects),
 * service_request.c and service_rollback.c (what people ask for), listener.c, worker_process.c,
 * ready.c, control*.c. */
#pragma once

#include <jansson.h>
#include <sys/resource.h>
#include <systemd/sd-event.h>

#include "base/error.h"
#include "core/config.h"
#include "core/plan.h"
#include "core/service.h"
#include "daemon/asked.h"
#include "daemon/control_conn.h"
#include "daemon/listener.h"
#include "daemon/snapshot.h"
#include "daemon/store.h"
#include "sys/activation.h"

struct manager;
struct worker_process;
struct output_hub;
struct unit;  /* unit.h */
struct blind; /* restore_blind.h */
struct saved_service;
struct worker_store;
struct connections; /* connections.h */
struct connection_counter;
struct list_call;    /* control_list.c */
struct memory_watch; /* memory.c */
struct verify;
struct cgroups; /* cgroup.h */
struct generation_cgroup;
struct handoff_server; /* handoff_server.h */

/* sd-event: a message must be matched to its worker before its exit is handled, and both before
 * timers and requests. */
enum manager_priority {
	PRIORITY_NOTIFY = -30,
	PRIORITY_CHILD = -20,
	PRIORITY_LISTENER = -15,
	PRIORITY_TIMER = -10,
	PRIORITY_OUTPUT = 5,
	PRIORITY_CONTROL = 10,
	PRIORITY_COUNT = 100, /* as SD_EVENT_PRIORITY_IDLE */
};

/* What a generation of the core is in reality. */
struct manager_generation {
	unsigned number;
	struct snapshot *snapshot;
	struct worker_process **workers; /* by index; NULL: never started */
	unsigned n_workers;
	uint64_t listeners; /* mask */
	char *requested_by;
	uint64_t started_usec, serving_usec; /* CLOCK_REALTIME */
	struct generation_cgroup *cgroup;    /* NULL: none */
};

struct follower; /* a control call that waits for something of a service: follow.h */

struct history_entry {
	unsigned generation;
	uint64_t started_usec, serving_usec, ended_usec; /* realtime; 0: not yet */
	enum reason outcome;				 /* REASON_NONE: still alive */
	char *reason;					 /* text; NULL */
	char *requested_by, *directory, *executable;
	struct snapshot *snapshot; /* for rollback; NULL when too old */
	bool was_good;		   /* it had all new connections and its soak was over */
};
enum { HISTORY_MAX = 32, HISTORY_SNAPSHOTS_MAX = 8, FAILURE_TAIL_LINES = 40 };

struct failure {
	unsigned generation;
	unsigned worker; /* NO_WORKER */
	char *reason, *status, *output;
	uint64_t at_usec;
};

/* An upgrade that was asked for and waits (overlap: queue). */
struct pending_upgrade {
	struct service_config *config; /* NULL: none waits */
	struct snapshot *snapshot;
	struct upgrade_spec spec;
	char *requested_by;
	struct follower *followers;
};

/* Whose connections go to the new generation, and where that is. */
struct manager_preview {
	int family; /* 0: nobody's */
	uint8_t source[16];
	unsigned lane;
};

struct manager_service {
	struct adoption *adoption; /* while it is done: adopt.h; else NULL */
	struct manager *manager;
	char *name;
	struct service core;
	struct service_config *config;	      /* the present one (own copy) */
	struct service_config *config_before; /* what to return to when the rollout fails; NULL */
	struct listener *listeners[64];	      /* by id; NULL: free */
	struct manager_generation **generations;
	size_t n_generations, generations_capacity;
	sd_event_source *timer; /* of service_next_deadline() */
	unsigned scaled;	/* workers by Scale until the next reload; 0: as configured */
	struct follower *followers;
	struct pending_upgrade queued;
	struct history_entry history[HISTORY_MAX]; /* newest last */
	size_t n_history;
	struct asked asked[ASKED_MAX]; /* newest last */
	struct failure failure;
	struct failure trouble; /* the newest worker's failure: becomes failure when a rollout ends
				   by it */
	struct verify *verify;	/* a run that is under way; NULL */
	struct connections *connections; /* NULL: nobody has asked yet */
	struct memory_watch *memory;	 /* recycle.memory; NULL */
	uint64_t moved_usec;		 /* how long the last going back took; 0: none did */
	struct manager_preview preview;
	int preview_rules[64];	/* rule id per listener; 0: none */
	bool start_again;	/* EFFECT_START_AGAIN came */
	bool holds_dead_socket; /* its workers are to be replaced when no rollout is open */
	unsigned reloaded_to;	/* the generation that the last reload began; 0: none */
	bool removing;		/* by reload: forgotten when stopped */
	bool in_step;		/* effects are being applied */
	bool changed; /* what is saved of it beside core, listeners and workers: state_save.h */
	struct saved_service *saved;	   /* as it was saved last; NULL: never */
	struct worker_store *worker_store; /* what workers had stored; NULL: nothing, ever */
	struct service_event *events;	   /* what came up meanwhile */
	size_t n_events, events_capacity;
};

/* The last events, kept for Events(since). */
struct manager_event {
	uint64_t sequence, at_usec;
	char *service;
	unsigned generation, worker; /* 0, NO_WORKER: none */
	const char *event;	     /* static */
	char *message;
	struct manager_service *traffic_of; /* "traffic", which is not kept: whose; NULL */
};
enum { EVENTS_MAX = 512 };
struct event_subscriber {
	struct control_call *call;
	char *service; /* NULL: all */
	struct event_subscriber *next;
};

struct manager {
	sd_event *event;
	const char *config_path; /* NULL: tenured run */
	struct config *config;	 /* owned */
	struct manager_service **services;
	size_t n_services, services_capacity;
	struct control_server *control;
	struct handoff_server *handoff; /* NULL: nobody asks */
	struct output_hub *outputs;
	struct activation activation; /* sockets that came from a service manager, without those
				       * of the keeper's store */
	int sockdiag_fd;	      /* -1: not to be had */
	struct connection_counter *counter;
	struct list_call *list_calls;  /* that wait for a count */
	bool may_group;		       /* the kernel's self-test was passed */
	bool connected_leaves;	       /* a UDP socket that is connected leaves its group */
	struct rlimit original_nofile; /* with which we were started */
	struct rlimit worker_nofile;   /* which workers get, if `limits` says nothing else */
	uint64_t next_sequence;
	struct manager_event events[EVENTS_MAX]; /* ring: sequence % EVENTS_MAX */
	struct event_subscriber *subscribers;
	const char *request; /* the name of the call that is being handled; NULL: it has none */
	struct unit *unit;   /* what systemd is told; NULL */
	bool stopping;
	bool detached; /* the loop ends, and everything is left to the next daemon */
	int exit_status;
	int control_fd;	     /* an earlier daemon's control socket, until it is used; or -1 */
	struct store *store; /* NULL: there is no keeper */
	struct store *held;  /* instead, as long as there is nothing to start; NULL */
	bool changed;	     /* what is saved of the manager itself */
	uint64_t sequences_reserved; /* numbers of events up to here are not used by the next daemon
				      */
	sd_event_source *save_later;
	char instance[33];     /* in the environment of workers where there is a keeper; "": none */
	struct reexec *reexec; /* under way: reexec.h; NULL */
	struct reexec_keeper *reexec_keeper; /* our keeper replaces itself; NULL: it does not */
	struct reexec_loaded *reexec_loaded; /* from the image before us; NULL */
	char *const *argv;	 /* the command line, for that. Borrowed; NULL: not to be had */
	bool trial;		 /* only to see whether all can be restored: nothing is touched */
	bool restored;		 /* there may be processes of an earlier daemon */
	struct cgroups *cgroups; /* NULL: process groups have to do */
	struct blind *blind;	 /* what an earlier daemon left, and nobody knows; NULL: nothing */
	sd_event_source *steer_timer; /* programs are attached again once a minute */
	sd_event_source *tidy;	      /* deferred: forget what has stopped */
	const char
		*socket_path; /* of the command line; NULL: by configuration or place. Borrowed. */
};

/* manager.c */
/* config_path NULL: no file (`tenured run`). socket: the control socket the command line asks for,
 * or NULL. Both borrowed for the manager's life. activation_take: the sockets that came with our
 * start. Takes it and the configuration, also on failure. */
int manager_new(struct config *config_take, struct activation *activation_take,
	const char *config_path, const char *socket, struct manager **ret, struct error *ret_error);
struct manager *manager_free(struct manager *m);
/* End the loop now, touching neither workers nor sockets: the next daemon goes on with them, from
 * what the keeper holds. False: there is no keeper, nothing was done. */
bool manager_detach(struct manager *m);
/* Serve until stopped; the exit status. */
int manager_run(struct manager *m);
/* First call: stop everything gracefully, then end the loop; second call: at once. */
void manager_stop(struct manager *m);
/* End the loop when the daemon is stopping and nothing runs any more; forget removed services that
 * are gone. Later, from the loop: the caller may be one of them. */
void manager_check_stopped(struct manager *m);
struct manager_service *manager_find(const struct manager *m, const char *name);
/* Somebody else reaps it: a worker, or the command of a check. */
bool manager_is_worker(const struct manager *m, pid_t pid);
/* A child's source that may have been asked too early. NULL is fine. */
void source_look_again(sd_event_source *source);
uint64_t manager_now(struct manager *m); /* CLOCK_MONOTONIC, not the loop's */
uint64_t realtime_now(void);
unsigned manager_n_cpus(void);		/* affinity and cgroup quota */
void manager_cpus(struct cpu_set *ret); /* our own affinity */
/* Where cpu_affinity binds the worker. False: nowhere. */
bool manager_cpus_of_worker(const struct service_config *c, unsigned index, struct cpu_set *ret);

/* manager_start.c */
/* What an earlier daemon left, or else what the configuration says; or m->held. 0 or -errno. */
int manager_make_services(struct manager *m, struct error *ret_error);
/* False: none of them could be started. */
bool manager_start_services(struct manager *m);
/* A configuration that can be used has come: start after all. Takes it. 0; -ENOMEM: the loop ends.
 */
int manager_hold_end(struct manager *m, struct config **config, struct error *ret_error);
/* The end of the daemon. */
void manager_hold_done(struct manager *m);

/* manager_reload.c */
/* Read the configuration again. -EINVAL with problems filled, or -errno with ret_error. *ret: a
 * config the caller owns. */
int manager_read_config(struct manager *m, struct config **ret, struct config_problems *problems,
	struct error *ret_error);
/* The plan against what runs; the facts on disk are looked up. */
int manager_plan(
	struct manager *m, const struct config *new_config, bool upgrade_all, struct plan *ret);
/* Do it. Takes the config on success (sets *config to NULL). requested_by: for the log. All binds
 * are tried before anything is changed: on an error nothing was. ret_plan as done. */
int manager_reload(struct manager *m, struct config **config, bool upgrade_all,
	const char *requested_by, struct plan *ret_plan, struct error *ret_error);

/* service_request.c: 0, SERVICE_E_*, or -errno with a message */
struct request_options {
	const char *requested_by;
	const enum strategy *strategy; /* NULL: as configured */
	const unsigned *steps;
	size_t n_steps;
	const uint64_t *soak_usec;
	const enum overlap *overlap;
	unsigned pause_at;
	bool restart; /* from the serving generation's snapshot */
	bool hard;    /* restart: stop first */
};
struct manager_service *manager_service_new(
	struct manager *m, const struct service_config *c, struct error *ret_error);
struct manager_service *manager_service_free(struct manager_service *s);
/* With its workers; the caller takes it out of the service's list, afterwards. */
struct manager_generation *manager_generation_free(struct manager_generation *g);
/* A generation of one worker that runs already, from what adopt.h has in hand. Not by itself: an
 * upgrade follows. */
int manager_service_adopt(struct manager_service *s, struct snapshot *snapshot,
	const char *requested_by, struct error *ret_error);
/* Start a stopped service; its listeners are bound. */
int manager_service_start(
	struct manager_service *s, const char *requested_by, struct error *ret_error);
/* service_bind.c. The listener of s that c describes, and its number; NULL. */
struct listener *manager_service_listener(
	const struct manager_service *s, const struct listener_config *c, unsigned *ret_id);
/* Bind what c listens on and is not bound yet; ret_mask: all of its listeners. On failure what was
 * bound here is closed again. */
int manager_service_bind(struct manager_service *s, const struct service_config *c,
	uint64_t *ret_mask, struct error *ret_error);
/* How a generation that is made from c and has these listeners is steered: sets steered and
 * per_worker. */
void manager_service_steering_of(const struct manager_service *s, const struct service_config *c,
	uint64_t mask, struct policy *p);
/* Close what neither a generation nor the configuration names. */
void manager_service_drop_unused_listeners(struct manager_service *s);
/* config NULL: the present one. */
int manager_service_upgrade(struct manager_service *s, const struct service_config *config,
	const struct request_options *o, struct error *ret_error);
/* From that snapshot, with that configuration (which may be the snapshot's). */
int manager_service_upgrade_from(struct manager_service *s, const struct service_config *config,
	struct snapshot *snapshot, const struct request_options *o, struct error *ret_error);
/* What is still warm serves again: what it was made from is what the service is now. */
void manager_service_adopt_snapshot(struct manager_service *s, unsigned generation);
/* service_rollback.c */
int manager_service_rollback(
	struct manager_service *s, unsigned to, const char *requested_by, struct error *ret_error);
/* service_request.c */
int manager_service_scale(struct manager_service *s, unsigned workers, struct error *ret_error);
int manager_service_stop(struct manager_service *s, bool now);
/* A rollout has ended: what it was for is what the service shall be from now on, or is not. */
void manager_service_rollout_ended(struct manager_service *s, bool good);
/* Values that take effect in place. */
int manager_service_update(
	struct manager_service *s, const struct service_config *config, struct error *ret_error);
/* "rollout in progress", ... for SERVICE_E_*. Borrowed. */
const char *service_refusal_to_string(int r);
/* What differs on disk (strv, may be NULL). */
int manager_service_pending(const struct manager_service *s, char ***ret);

/* After each event, when the service may have reached an end: queued upgrade, removal, the daemon's
 * own stop. */
void manager_service_after(struct manager_service *s);

/* service_apply.c */
/* One event into the core and everything that follows from it. Returns what service_step() said to
 * this event. */
int manager_service_event(struct manager_service *s, const struct service_event *e);
/* For the loop that handles one, from inside of it. */
void manager_service_queue_event(struct manager_service *s, const struct service_event *e);
void manager_service_ready(struct worker_process *p);
/* Go on with what an earlier daemon did: core, listeners and the processes that live are as it left
 * them. 0 or -ENOMEM. */
int manager_service_resume(struct manager_service *s);
struct manager_generation *manager_service_generation(
	const struct manager_service *s, unsigned number);
struct worker_process *manager_service_make_worker(
	struct manager_service *s, unsigned generation, unsigned index);
struct worker_process *manager_service_worker(
	const struct manager_service *s, unsigned generation, unsigned index);
/* service_steer.c. Where connections of preview_from go now. */
void manager_service_preview(struct manager_service *s);
/* Attach all programs again, watch idle sockets. */
void manager_service_steer(struct manager_service *s);
/* The same once a minute, with what is looked at from time to time only. */
void manager_service_tend(struct manager_service *s);

/* report.c: log line, event for subscribers, progress for followers */
void manager_report(struct manager *m, struct manager_service *s, unsigned generation,
	unsigned worker, int priority, const char *event, const char *format, ...) _printf_(7, 8);
void manager_service_report_effect(struct manager_service *s, const struct effect *e);
/* Remember why something failed, with the worker's exit and last output. */
void manager_service_note_trouble(struct manager_service *s, const struct worker_process *p,
	unsigned generation, unsigned worker, const char *reason);
/* The same of a check of a whole generation. Takes the texts, each of which may be NULL. */
void manager_service_note_check(struct manager_service *s, unsigned generation, char *reason_take,
	char *status_take, char *output_take);
/* Ends of rollouts and generations that the earlier daemon came to and did not tell to the history.
 */
void manager_service_mend_outcome(struct manager_service *s);
void failure_done(struct failure *f);

/* follow.c: control calls that wait */
/* After every event: those that wait for drain, stop or scale. */
void followers_check(struct manager_service *s);
void followers_free(struct manager_service *s);

/* control.c */
int control_dispatch(
	struct control_call *call, const char *method, json_t *parameters, void *userdata);
void control_event(struct manager *m, const struct manager_event *e);
void control_done(struct manager *m);
/* control_json.c */
json_t *control_json_service(struct manager_service *s);
json_t *control_json_listener(struct listener *l);
json_t *control_json_rollout(struct manager_service *s);
json_t *control_json_event(const struct manager_event *e);
json_t *control_json_problems(const struct config_problems *p);

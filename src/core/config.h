/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration means: structures, defaults, limits, validation. Reading YAML is the
 * daemon's work (daemon/config_yaml.c); nothing here knows of files or the kernel. The manual page
 * is tenured.yaml(5). All durations are microseconds; all shares are hundredths of a percent,
 * 0..10000. */
#pragma once

#include "base/address.h"
#include "base/error.h"
#include "base/util.h"
#include "core/cpu_set.h"
#include "core/resources.h"
#include "core/socket_options.h"

enum {
	CONFIG_SERVICES_MAX = 1024,
	CONFIG_LISTENERS_MAX = 64, /* per service */
	CONFIG_LISTENERS_TOTAL_MAX = 4096,
	CONFIG_BACKLOG_DEFAULT = 4096,
	CONFIG_WORKERS_MAX = 1024,  /* per service */
	CONFIG_GENERATIONS_MAX = 8, /* upper bound of drain.max_generations */
	CONFIG_STEPS_MAX = 32,
	CONFIG_NAME_MAX = 63,
	CONFIG_PROBLEMS_MAX = 1000, /* remembered with their text; the others are only counted */
	SHARE_MAX = 10000,
};

struct preset; /* preset.h */

enum sockets_mode { SOCKETS_SHARED, SOCKETS_PER_WORKER };

struct listener_config {
	char *name;
	struct config_place place;
	bool inherited; /* inherit: NAME, from a systemd socket unit; address is then unset */
	char *inherit;	/* FileDescriptorName= */
	unsigned inherit_index; /* which one of several of that name; address is set when it came */
	char *fd_name;		/* what workers are told it is called; NULL: name */
	struct address address;
	enum sockets_mode sockets;
	bool steering; /* false: `steering: off`, a held listener by wish */
	bool v6only;
	unsigned backlog; /* default 4096; the kernel caps it at net.core.somaxconn */
	bool backlog_set;
	unsigned mode; /* Unix: of the path; default 0666 */
	bool mode_set;
	char *owner; /* Unix: of the path; NULL: unchanged */
	char *group;
	struct socket_options options; /* all but v6only and backlog */
	bool broken; /* could not be read and was reported: no checks that depend on it */
};

/* How workers are told their sockets: core/dialect.h. Saved with what runs: a number keeps its
 * meaning. */
enum handoff_kind {
	HANDOFF_LISTEN_FDS = 1 << 0, /* LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES; sd_listen_fds(3) */
	HANDOFF_ARGUMENTS = 1 << 1,  /* {fd:NAME} in arguments (found by itself) */
	HANDOFF_STDIN = 1 << 2,	     /* the first listener as descriptor 0 */
	HANDOFF_CHANNEL = 1 << 3,    /* a connection to us: wire/channel.h. With LISTEN_FDS */
	HANDOFF_SERVER_STARTER = 1 << 4,
	HANDOFF_EINHORN = 1 << 5,
	HANDOFF_NGINX = 1 << 6,
	HANDOFF_UNICORN = 1 << 7,
	HANDOFF_GUNICORN = 1 << 8,
	HANDOFF_PUMA = 1 << 9,
	HANDOFF_PHP_FPM = 1 << 10,
	HANDOFF_UWSGI = 1 << 11,      /* UPSTART_FDS */
	HANDOFF_UWSGI_ZERG = 1 << 12, /* {socket:uwsgi-zerg}, where the zerg pool is asked */
	HANDOFF_CIRCUS = 1 << 13,     /* $(circus.sockets.NAME) in arguments */
	HANDOFF_HAPROXY = 1 << 14,    /* {socket:haproxy}, for its -x */
	HANDOFF_DINIT = 1 << 15,
};

enum ready_kind {
	READY_ACCEPT,
	READY_NOTIFY,
	READY_HTTP,
	READY_EXEC,
	READY_DELAY,
	READY_FD,      /* it writes to a descriptor */
	READY_EINHORN, /* worker:ack, to einhorn's control socket */
};

struct ready_config {
	struct config_place place;
	enum ready_kind by;
	bool by_set;		/* false: by is the default, accept with lanes and delay without */
	bool accept;		/* also require an accepted probe (default true) */
	uint64_t timeout_usec;	/* default 60s */
	uint64_t delay_usec;	/* delay: default 2s */
	char *path;		/* http: default "/" */
	unsigned status;	/* http: default 200; 0 means any below 400 */
	char **command;		/* exec */
	uint64_t interval_usec; /* http, exec: between tries; default 100ms */
	unsigned number;	/* fd: which one; 0: any that is free */
	char *variable;		/* fd: which one, told in this variable; NULL: not told */
};

/* Who says, while the new generation soaks, that it is right. */
enum verify_kind { VERIFY_NONE, VERIFY_HTTP, VERIFY_COMMAND };

struct verify_config {
	struct config_place place;
	enum verify_kind by;
	char *path;		/* http */
	unsigned status;	/* http: default 200; 0 means any below 400 */
	char **command;		/* a word may contain "{preview}": the source address to use */
	uint64_t timeout_usec;	/* of one run; default 10s */
	uint64_t interval_usec; /* from the end of a run to the next; 0: one run per step */
};

/* Does a client stay in its generation while shares only grow? */
enum sticky { STICKY_NONE, STICKY_CLIENT };

enum strategy { STRATEGY_BLUE_GREEN, STRATEGY_ROLLING, STRATEGY_CANARY, STRATEGY_RECREATE };
enum overlap { OVERLAP_REJECT, OVERLAP_QUEUE, OVERLAP_SUPERSEDE };

struct upgrade_config {
	struct config_place place;
	enum strategy strategy; /* default: blue-green for 1 worker, rolling for more */
	bool strategy_set;
	unsigned surge; /* share of the workers started at a time by rolling; default 2500 */
	bool surge_set;
	unsigned steps[CONFIG_STEPS_MAX]; /* canary; default 5%, 25%, 100% */
	size_t n_steps; /* after config_resolve() the last step is always SHARE_MAX */
	bool steps_set;
	uint64_t soak_usec; /* per step; default 5s */
	enum overlap overlap;
	uint64_t keep_warm_usec; /* default 0 */
	char *preview_from; /* source address that is steered to the new generation; NULL: none */
	enum sticky sticky; /* default none */
	struct verify_config verify;
};

/* Workers are replaced one at a time, new before old. */
struct recycle_config {
	struct config_place place;
	uint64_t after_usec; /* age, less up to a tenth of it, differing by worker; 0: never */
	uint64_t memory;     /* bytes resident, of the worker and its descendants; 0: no limit */
};

enum cpu_affinity {
	CPU_AFFINITY_NONE,
	CPU_AFFINITY_PER_WORKER, /* worker i has the i-th CPU of ours, and the connections that
				    arrive there where it has a socket of its own */
	CPU_AFFINITY_SET,	 /* all workers may use a set of them */
};

struct drain_config {
	struct config_place place;
	uint64_t settle_usec;	      /* default 1s */
	uint64_t settle_timeout_usec; /* default 30s */
	uint64_t idle_wait_usec;      /* default 5s */
	int signal;		      /* default SIGTERM; SIGUSR2 with handoff: einhorn */
	bool signal_set;
	uint64_t timeout_usec;	  /* from the signal to the escalation; default 30s */
	uint64_t kill_after_usec; /* from the escalation (SIGTERM to the group) to SIGKILL; default
				     5s */
	unsigned max_generations; /* alive at once; 2..CONFIG_GENERATIONS_MAX; default 4 */
};

enum restart_policy { RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_NEVER };

struct restart_config {
	struct config_place place;
	enum restart_policy policy; /* default always */
	uint64_t backoff_from_usec; /* default 100ms */
	uint64_t backoff_to_usec;   /* default 30s */
	unsigned limit_starts;	    /* default 5; 0: no limit */
	uint64_t limit_within_usec; /* default 60s */
};

struct limit_config { /* one setrlimit(2) resource */
	int resource;
	uint64_t value; /* UINT64_MAX: unlimited */
};

enum output_kind { OUTPUT_TEE, OUTPUT_JOURNAL, OUTPUT_FILE, OUTPUT_INHERIT };

struct env_file {
	char *path;    /* relative to the service's directory, as resolved for each generation */
	bool optional; /* written with a leading "-" */
};

/* Sections of a service that could not be read and were reported; config_resolve() leaves out the
 * checks that would only repeat that, or mislead. */
enum service_section {
	SECTION_COMMAND = 1 << 0,
	SECTION_LISTEN = 1 << 1,
	SECTION_READY = 1 << 2,
	SECTION_UPGRADE = 1 << 3,
	SECTION_DRAIN = 1 << 4,
	SECTION_RESTART = 1 << 5,
	SECTION_ENVIRONMENT = 1 << 6,
	SECTION_HANDOFF = 1 << 7,
	SECTION_WORKERS = 1 << 8,
	SECTION_RECYCLE = 1 << 9,
	SECTION_CPU_AFFINITY = 1 << 10,
	SECTION_RESOURCES = 1 << 11,
};

struct service_config {
	char *name;
	struct config_place place;
	struct config_place command_place, environment_place, handoff_place;
	unsigned broken; /* set of enum service_section */
	char **command;	 /* at least one word; a first word with a slash is relative to directory */
	char *directory; /* absolute; symlinks are resolved for each generation, not here */
	char **fingerprint; /* paths, relative to directory */
	unsigned workers;   /* 1..CONFIG_WORKERS_MAX; 0 only while `auto` is not yet resolved */
	bool workers_auto;
	char *user, *group;	    /* NULL: the daemon's */
	char **environment;	    /* "NAME=value" */
	bool environment_inherited; /* `tenured run`: the caller's environment is the base */
	struct env_file *env_files;
	size_t n_env_files;
	struct listener_config *listeners; /* in fd order */
	size_t n_listeners;
	unsigned handoff; /* set of enum handoff_kind */
	bool handoff_set;
	/* What filled in values that the file does not have; NULL: none, or `preset: none`. Only
	 * config_resolve() and its warnings look at it. */
	const struct preset *preset;
	bool preset_set;
	struct ready_config ready;
	struct upgrade_config upgrade;
	struct drain_config drain;
	struct restart_config restart;
	uint64_t watchdog_usec; /* 0: off */
	struct recycle_config recycle;
	enum cpu_affinity cpu_affinity;
	struct config_place cpu_affinity_place;
	struct cpu_set cpus; /* CPU_AFFINITY_SET */
	struct resource_config resources;
	struct config_place resources_place;
	struct limit_config *limits;
	size_t n_limits;
	enum output_kind output; /* default OUTPUT_TEE */
	bool output_set; /* false: output is the default; under systemd the daemon takes the journal
			  */
	char *output_file; /* OUTPUT_FILE: absolute */
	bool autostart;
};

struct control_config {
	struct config_place place;
	char *socket;	  /* NULL: the default of the place the daemon runs in */
	unsigned mode;	  /* default 0666 */
	char **operators; /* user names, "@group"; default: root and the daemon's own user */
	char **observers; /* empty: everybody who may connect */
};

enum on_terminate { ON_TERMINATE_AUTO, ON_TERMINATE_STOP, ON_TERMINATE_DETACH };

struct config {
	struct service_config *services;
	size_t n_services;
	struct control_config control;
	enum on_terminate on_terminate;
	char **files; /* every file that was read, the main one first; struct config_place points
			 here */
};

/* One thing that is wrong (or, as a warning, unwise), with its place. */
struct config_problem {
	struct config_place place;
	bool warning;
	char *message;
};
struct config_problems {
	struct config_problem *list;
	size_t n, capacity;
	size_t n_errors; /* those that are not warnings */
	char **files; /* the names that the places point to: problems outlive their configuration */
};
/* Remember a problem; out of memory is remembered as an error too (n_errors grows in any case). */
void config_problem_add(struct config_problems *p, struct config_place place, bool warning,
	const char *format, ...) _printf_(4, 5);
void config_problems_done(struct config_problems *p);
#define _cleanup_problems_ _cleanup_(config_problems_done)
/* "FILE:LINE:COLUMN: error: MESSAGE" (or "warning"), without the place when there is none. The
 * caller frees; NULL: out of memory. */
char *config_problem_format(const struct config_problem *p);

/* Defaults for a new service, before its keys are read. 0 or -ENOMEM. */
int service_config_init(struct service_config *s, const char *name);
void service_config_done(struct service_config *s);
/* A deep copy that owns everything (places point to the same file list). 0 or -ENOMEM. */
int service_config_copy(const struct service_config *s, struct service_config *ret);
void listener_config_init(struct listener_config *l);
void listener_config_done(struct listener_config *l);
/* A deep copy, as above. */
int listener_config_copy(const struct listener_config *l, struct listener_config *ret);

struct config *config_new(void);
struct config *config_free(struct config *c);
static inline void config_free_p(struct config **c)
{
	*c = config_free(*c);
}
#define _cleanup_config_ _cleanup_(config_free_p)

/* Fill what depends on several keys (default strategy, default readiness, `{fd:NAME}` found in the
 * arguments, listener names) and check everything that needs no kernel: names, limits, references,
 * overlaps between services. n_cpus: what `workers: auto` means. All problems are added at once.
 * Returns 0 or -ENOMEM; the caller looks at problems->n_errors. */
int config_resolve(struct config *c, unsigned n_cpus, struct config_problems *problems);

/* resources.c: what of its resources cannot be, or has no effect. Part of config_resolve(). */
void resources_check(const struct service_config *s, struct config_place place,
	struct config_problems *problems);

/* Warn about each service whose workers would run as root: `user: root`, or no user when the daemon
 * itself is root. */
void config_check_root(
	const struct config *c, bool daemon_is_root, struct config_problems *problems);

/* [A-Za-z0-9_.-], 1 to CONFIG_NAME_MAX characters, not "." or "..", no leading "-". */
bool config_name_valid(const char *s);
/* A user or group as it may be written: a name as useradd(8) would take it, or a number. */
bool config_user_valid(const char *s);
/* "SIGTERM" or "TERM"; see signal(7), real-time signals excepted. 0 or -EINVAL. */
int config_signal_from_string(const char *s, int *ret);
/* The setrlimit(2) resource for "nofile", "core" ... 0 or -EINVAL. config_limit_names:
 * NULL-terminated. */
int config_limit_from_string(const char *s, int *ret_resource);
extern const char *const config_limit_names[];

const struct service_config *config_find(const struct config *c, const char *name);
const struct listener_config *service_config_find_listener(
	const struct service_config *s, const char *name);
/* Does this listener get lanes by its kind (TCP, UDP with steering on), as far as config can tell?
 */
bool listener_config_wants_lanes(const struct listener_config *l);

const char *strategy_to_string(enum strategy s);
int strategy_from_string(const char *s, enum strategy *ret);
const char *ready_kind_to_string(enum ready_kind k);
const char *overlap_to_string(enum overlap o);
int overlap_from_string(const char *s, enum overlap *ret);

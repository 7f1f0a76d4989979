/* SPDX-License-Identifier: Apache-2.0 */
#include "story.h"

#include <check.h>
#include <stdarg.h>

static const struct upgrade_spec usual = {
	.listeners = 1,
	.policy =
		{
			 .workers = 2,
			 .steered = true,
			 .strategy = STRATEGY_BLUE_GREEN,
			 .surge = 2500,
			 .steps = {500, 2500, SHARE_MAX},
			 .n_steps = 3,
			 .soak_usec = 5 * USEC_PER_SEC,
			 .overlap = OVERLAP_REJECT,
			 .ready_timeout_usec = 60 * USEC_PER_SEC,
			 .drain =
				{
					.settle_usec = USEC_PER_SEC,
					.settle_timeout_usec = 30 * USEC_PER_SEC,
					.idle_wait_usec = 5 * USEC_PER_SEC,
					.timeout_usec = 30 * USEC_PER_SEC,
					.kill_after_usec = 5 * USEC_PER_SEC,
					.max_generations = 4,
				}, .restart = RESTART_ALWAYS,
			 .backoff =
				{
					.from_usec = 100 * USEC_PER_MSEC,
					.to_usec = 30 * USEC_PER_SEC,
					.window_usec = 60 * USEC_PER_SEC,
					.limit_starts = 5,
				}, },
};

struct story {
	struct service service;
	struct upgrade_spec spec;
	uint64_t now_usec;
	bool busy_queues, busy_connections;
	FILE *out;
	char steered[128]; /* what was last told about steering */
	char last[128];	   /* word */
	bool repeated, spawned;
};

static void word(struct story *s, const char *format, ...) _printf_(2, 3);
static void word(struct story *s, const char *format, ...)
{
	char text[128];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (!streq(text, s->last))
		fprintf(s->out, " %s", text);
	else if (!s->repeated)
		fprintf(s->out, " ...");
	s->repeated = streq(text, s->last);
	(void)snprintf(s->last, sizeof(s->last), "%s", text);
}

static void tell_steering(struct story *s)
{
	struct lane_share shares[CONFIG_GENERATIONS_MAX + 2];
	char text[128] = "steer[";
	size_t n = service_shares(&s->service, 1, shares), len = strlen(text);

	for (size_t i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%u=%u", i ? " " : "",
			shares[i].generation ? shares[i].generation->number : 0, shares[i].weight);
	(void)snprintf(text + len, sizeof(text) - len, "]");
	if (streq(text, s->steered))
		return;
	word(s, "%s", text);
	(void)snprintf(s->steered, sizeof(s->steered), "%s", text);
}

static void tell_report(struct story *s, const struct effect *e)
{
	const char *name = report_to_string(e->report);

	if (startswith(name, "worker") && e->report != REPORT_WORKER_RECYCLED)
		return;
	word(s, "#%s", name);
	if (e->worker != NO_WORKER && e->report == REPORT_WORKER_RECYCLED)
		word(s, "%u.%u", e->generation, e->worker);
	else if (e->generation)
		word(s, "%u", e->generation);
	if (e->reason)
		word(s, "(%s)", reason_to_string(e->reason));
}

static void tell(struct story *s, const struct effect *e)
{
	static const char *const names[] = {
		[EFFECT_PREPARE_LANE] = "lane",
		[EFFECT_SPAWN] = "spawn",
		[EFFECT_WATCH_READINESS] = "watch",
		[EFFECT_SIGNAL_DRAIN] = "drain",
		[EFFECT_SIGNAL_TERM] = "TERM",
		[EFFECT_SIGNAL_KILL] = "KILL",
		[EFFECT_SIGNAL_ABORT] = "ABRT",
		[EFFECT_QUERY_QUEUE] = "queue?",
		[EFFECT_COUNT_CONNECTIONS] = "connections?",
		[EFFECT_VERIFY] = "verify",
		[EFFECT_VERIFY_STOP] = "verify-stop",
		[EFFECT_END_REST] = "end-rest",
		[EFFECT_RELEASE_LANE] = "release",
		[EFFECT_SWAP_LANES] = "swap",
		[EFFECT_FORGET_GENERATION] = "forget",
		[EFFECT_CLOSE_LISTENERS] = "close",
		[EFFECT_START_AGAIN] = "start-again",
	};

	if (e->kind == EFFECT_REPORT)
		tell_report(s, e);
	else if (e->kind == EFFECT_STEER)
		tell_steering(s);
	else if (e->kind == EFFECT_WATCH_READINESS && s->spawned)
		; /* of what was just started */
	else if (e->kind == EFFECT_PREPARE_LANE || e->kind == EFFECT_RELEASE_LANE ||
		 e->kind == EFFECT_VERIFY || e->kind == EFFECT_VERIFY_STOP)
		word(s, "%s %u=%u", names[e->kind], e->generation, e->value);
	else if (e->kind == EFFECT_CLOSE_LISTENERS || e->kind == EFFECT_START_AGAIN)
		word(s, "%s", names[e->kind]);
	else if (e->kind == EFFECT_FORGET_GENERATION || e->kind == EFFECT_END_REST)
		word(s, "%s %u", names[e->kind], e->generation);
	else
		word(s, "%s %u.%u", names[e->kind], e->generation, e->worker);
	s->spawned = e->kind == EFFECT_SPAWN;
}

static const char *refusal(int r)
{
	switch (r) {
	case SERVICE_E_ROLLOUT_IN_PROGRESS:
		return "rollout in progress";
	case SERVICE_E_TOO_MANY_GENERATIONS:
		return "too many generations";
	case SERVICE_E_NO_ROLLOUT:
		return "no rollout";
	case SERVICE_E_NOT_RUNNING:
		return "not running";
	case SERVICE_E_NOT_ALIVE:
		return "not alive";
	case SERVICE_E_ADOPTED:
		return "adopted";
	case SERVICE_E_STOPPING:
		return "stopping";
	default:
		return strerror(-r);
	}
}

static void step(struct story *s, struct service_event event)
{
	struct effects effects = {0};
	int r = service_step(&s->service, &event, s->now_usec, &effects);

	if (r != 0)
		word(s, "refused: %s", refusal(r));
	for (size_t i = 0; i < effects.n; i++)
		tell(s, &effects.list[i]);
	for (size_t i = 0; i < effects.n; i++) {
		const struct effect *e = &effects.list[i];

		if (e->kind == EFFECT_QUERY_QUEUE || e->kind == EFFECT_COUNT_CONNECTIONS)
			step(s, (struct service_event){.kind = e->kind == EFFECT_QUERY_QUEUE
								       ? EVENT_QUEUE
								       : EVENT_CONNECTIONS,
					.generation = e->generation,
					.worker = e->worker,
					.value = e->kind == EFFECT_QUERY_QUEUE
							 ? s->busy_queues
							 : s->busy_connections});
	}
	effects_done(&effects);
}

static void pass_time(struct story *s, double seconds)
{
	uint64_t end = s->now_usec + (uint64_t)(seconds * 1e6 + 0.5);
	unsigned n = 0;

	while (service_next_deadline(&s->service) <= end) {
		s->now_usec = MAX(s->now_usec, service_next_deadline(&s->service));
		step(s, (struct service_event){.kind = EVENT_TIME});
		ck_assert_uint_lt(++n, 5000);
	}
	s->now_usec = end;
}

/* The number after "KEY=", or -1. */
static long value_of(const char *argument, const char *key)
{
	const char *p = startswith(argument, key);

	return p && *p == '=' ? strtol(p + 1, NULL, 10) : -1;
}

static void vary(struct upgrade_spec *u, const char *argument)
{
	struct policy *p = &u->policy;
	long n;

	if (streq(argument, "blue-green"))
		p->strategy = STRATEGY_BLUE_GREEN;
	else if (streq(argument, "rolling"))
		p->strategy = STRATEGY_ROLLING;
	else if (streq(argument, "canary"))
		p->strategy = STRATEGY_CANARY;
	else if (streq(argument, "recreate"))
		p->strategy = STRATEGY_RECREATE;
	else if (overlap_from_string(argument, &p->overlap) >= 0)
		;
	else if (streq(argument, "always"))
		p->restart = RESTART_ALWAYS;
	else if (streq(argument, "on-failure"))
		p->restart = RESTART_ON_FAILURE;
	else if (streq(argument, "never"))
		p->restart = RESTART_NEVER;
	else if (streq(argument, "held") || streq(argument, "shared") ||
		 streq(argument, "per-worker")) {
		p->steered = !streq(argument, "held");
		p->per_worker = streq(argument, "per-worker");
	} else if ((n = value_of(argument, "workers")) >= 0)
		p->workers = (unsigned)n;
	else if ((n = value_of(argument, "pause")) >= 0)
		u->pause_at = (unsigned)n;
	else if ((n = value_of(argument, "keep")) >= 0)
		p->keep_warm_usec = (uint64_t)n * USEC_PER_SEC;
	else if ((n = value_of(argument, "max")) >= 0)
		p->drain.max_generations = (unsigned)n;
	else if ((n = value_of(argument, "listeners")) >= 0)
		u->listeners = (uint64_t)n;
	else if ((n = value_of(argument, "soak")) >= 0)
		p->soak_usec = (uint64_t)n * USEC_PER_SEC;
	else if ((n = value_of(argument, "idle")) >= 0)
		p->drain.idle_wait_usec = (uint64_t)n * USEC_PER_SEC;
	else if (streq(argument, "verify"))
		p->verify = true;
	else if (streq(argument, "contained"))
		p->contained = true;
	else if ((n = value_of(argument, "interval")) >= 0)
		p->verify_interval_usec = (uint64_t)n * USEC_PER_SEC;
	else if ((n = value_of(argument, "age")) >= 0)
		p->recycle_after_usec = (uint64_t)n * USEC_PER_SEC;
	else if ((n = value_of(argument, "backoff")) >= 0)
		p->backoff.from_usec = (uint64_t)n * USEC_PER_MSEC;
	else if ((n = value_of(argument, "limit")) >= 0)
		p->backoff.limit_starts = (unsigned)n;
	else
		ck_abort_msg("upgrade: %s?", argument);
}

static const struct {
	const char *name;
	enum service_event_kind kind;
	unsigned value;
} commands[] = {
	{"upgrade",	    EVENT_UPGRADE,		   0},
	{"start",	  EVENT_START,		       0},
	{"stop",	 EVENT_STOP,		     0},
	{"kill",	 EVENT_KILL,		     0},
	{"promote",	    EVENT_PROMOTE,		   0},
	{"full",	 EVENT_PROMOTE,		1},
	{"pause",	  EVENT_PAUSE,		       0},
	{"abort",	  EVENT_ABORT,		       0},
	{"rollback",    EVENT_ROLLBACK,	     0},
	{"scale",	  EVENT_SCALE,		       0},
	{"failed",	   EVENT_SPAWN_FAILED,	       0},
	{"ready",	  EVENT_READY,		       0},
	{"exit",	 EVENT_EXITED,	       0},
	{"watchdog",    EVENT_WATCHDOG,	     0},
	{"error",	  EVENT_SAID_ERROR,	    0},
	{"verified",    EVENT_VERIFIED,	     0},
	{"unverified",  EVENT_VERIFY_FAILED,	    0},
	{"recycle",	    EVENT_RECYCLE,		   0},
	{"lane-failed", EVENT_LANE_FAILED,	   0},
	{"empty",	  EVENT_EMPTY,		       0},
	{"extend",	   EVENT_EXTEND_READY_TIMEOUT, 0},
};

/* An event of worker "G.W", or of each of "G.*" that has a process. */
static void step_workers(struct story *s, struct service_event e, const char *worker)
{
	const struct generation *g = service_generation(&s->service, e.generation);
	unsigned n = g ? g->n_workers : 0;

	if (*worker != '*') {
		e.worker = (unsigned)strtoul(worker, NULL, 10);
		step(s, e);
		return;
	}
	for (e.worker = 0; e.worker < n; e.worker++) {
		g = service_generation(&s->service, e.generation);
		if (g && e.worker < g->n_workers &&
			worker_state_has_process(g->workers[e.worker].state))
			step(s, e);
	}
}

static void play_event(struct story *s, struct service_event e, char *argument, char **save)
{
	char *dot = argument ? strchr(argument, '.') : NULL;

	if (e.kind == EVENT_UPGRADE) {
		s->spec.pause_at = 0;
		for (; argument; argument = strtok_r(NULL, " ", save))
			vary(&s->spec, argument);
		e.spec = &s->spec;
		step(s, e);
		return;
	}
	if (e.kind == EVENT_SCALE)
		e.value = argument ? (unsigned)strtoul(argument, NULL, 10) : 0;
	else if (argument)
		e.generation = (unsigned)strtoul(argument, NULL, 10);
	if (e.kind == EVENT_EXTEND_READY_TIMEOUT)
		e.usec = 90 * USEC_PER_SEC;
	argument = argument ? strtok_r(NULL, " ", save) : NULL;
	if (argument && (streq(argument, "clean") || streq(argument, "useless")))
		e.value = 1;
	if (argument && (e.kind == EVENT_VERIFIED || e.kind == EVENT_VERIFY_FAILED))
		e.value = (unsigned)strtoul(argument, NULL, 10);
	if (e.kind == EVENT_RECYCLE)
		e.reason = REASON_TOO_BIG;
	if (dot)
		step_workers(s, e, dot + 1);
	else
		step(s, e);
}

/* What status would say. */
static void look(struct story *s)
{
	static const char *const verify[] = {"none", "pending", "running", "passed"};
	uint64_t end = rollout_soak_end(&s->service);

	word(s, "%s", service_state_to_string(service_state(&s->service)));
	word(s, "%s", service_is_healthy(&s->service) ? "healthy" : "unhealthy");
	word(s, "verify=%s", verify[rollout_verify_state(&s->service)]);
	if (end != USEC_INFINITY)
		word(s, "soaks=%.1f", (double)(int64_t)(end - s->now_usec) / 1e6);
}

/* From nothing to a generation that serves; how is told elsewhere. */
static void play_serving(struct story *s, char *argument, char **save)
{
	FILE *out = s->out;
	_cleanup_free_ char *ignored = NULL;
	size_t size = 0;

	s->out = open_memstream(&ignored, &size);
	ck_assert_ptr_nonnull(s->out);
	play_event(s, (struct service_event){.kind = EVENT_UPGRADE}, argument, save);
	step_workers(s, (struct service_event){.kind = EVENT_READY, .generation = 1}, "*");
	(void)fclose(s->out);
	s->out = out;
	s->last[0] = '\0';
	ck_assert_uint_eq(s->service.current, 1);
}

static void play(struct story *s, char *line)
{
	char *save = NULL, *command = strtok_r(line, " ", &save),
	     *argument = strtok_r(NULL, " ", &save);

	ck_assert_ptr_nonnull(command);
	if (streq(command, "time")) {
		pass_time(s, strtod(argument ? argument : "", NULL));
		return;
	}
	if (streq(command, "look")) {
		look(s);
		return;
	}
	if (streq(command, "serving")) {
		play_serving(s, argument, &save);
		return;
	}
	if (streq(command, "busy")) {
		s->busy_queues = streq_null(argument, "queues");
		s->busy_connections = streq_null(argument, "connections");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (streq(command, commands[i].name)) {
			play_event(s,
				(struct service_event){
					.kind = commands[i].kind, .value = commands[i].value},
				argument, &save);
			return;
		}
	ck_abort_msg("%s?", command);
}

void story_check(const struct story_text *story)
{
	const char *text = story->text;
	struct story s = {.spec = usual, .now_usec = 1000 * USEC_PER_SEC};
	_cleanup_free_ char *copy = strdup(text), *got = NULL;
	size_t size = 0;
	char *save = NULL;

	s.out = open_memstream(&got, &size);
	ck_assert(copy && s.out);
	service_init(&s.service);
	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (*line != '>')
			continue;
		fprintf(s.out, "%s\n", line);
		s.last[0] = '\0';
		play(&s, line + 1);
		if (s.last[0] != '\0')
			fputc('\n', s.out);
	}
	ck_assert_int_eq(fclose(s.out), 0);
	service_done(&s.service);
	/* To be read beside the text, when they differ. */
	if (!streq(got, text))
		fprintf(stderr, "--- what happened:\n%s---\n", got);
	ck_assert_msg(streq(got, text), "%s: this was told:\n%s", story->name, text);
}

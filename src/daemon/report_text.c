/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/report_text.h"

#include <syslog.h>

#include "base/parse.h"
#include "daemon/worker_channel.h"

/* Everything a sentence may need. g, w, p are NULL when they are gone already. */
struct scene {
	struct manager_service *s;
	const struct effect *e;
	const struct generation *g;
	const struct worker *w;
	struct worker_process *p;
	struct manager_generation *made;
	int *priority;
};

const char *report_span(uint64_t usec, char buf[static REPORT_SPAN_MAX])
{
	uint64_t seconds = (usec + USEC_PER_SEC / 2) / USEC_PER_SEC;
	_cleanup_free_ char *text = NULL;

	if (usec == USEC_INFINITY)
		return "for ever";
	if (usec < USEC_PER_SEC)
		(void)snprintf(buf, REPORT_SPAN_MAX, "%ums", (unsigned)(usec / USEC_PER_MSEC));
	/* What would be rounded to 60.0s is a minute. */
	else if (usec < 60 * USEC_PER_SEC - USEC_PER_SEC / 20 && usec % USEC_PER_SEC != 0)
		(void)snprintf(buf, REPORT_SPAN_MAX, "%.1fs", (double)usec / (double)USEC_PER_SEC);
	else {
		text = format_duration(seconds * USEC_PER_SEC);
		(void)snprintf(buf, REPORT_SPAN_MAX, "%s", text ? text : "?");
	}
	return buf;
}

static uint64_t now_usec(const struct scene *c)
{
	return manager_now(c->s->manager);
}

/* How its last process ended. The process is forgotten when the next one is made, what was noted of
 * it is not. The caller frees; NULL: nothing is known. */
static char *exit_text(const struct scene *c)
{
	const struct failure *t = &c->s->trouble;

	if (t->generation == c->e->generation && t->worker == c->e->worker) {
		if (t->status)
			return strdup(t->status);
		if (t->reason)
			return strdup("could not be started");
	}
	return c->p ? worker_process_describe_exit(c->p) : NULL;
}

#define GENERATION(c) (c)->s->name, (c)->e->generation
#define WORKER(c) (c)->s->name, (c)->e->generation, (c)->e->worker

static char *worker_ready(const struct scene *c)
{
	char span[REPORT_SPAN_MAX];

	/* One that was to leave and is wanted again became ready long ago. */
	if (!c->p || c->p->spawned_usec == 0 || c->p->ready_told_usec == c->p->spawned_usec)
		return xasprintf("%s: generation %u: worker %u is back in service", WORKER(c));
	c->p->ready_told_usec = c->p->spawned_usec;
	return xasprintf("%s: generation %u: worker %u ready after %s", WORKER(c),
		report_span(now_usec(c) - c->p->spawned_usec, span));
}

static char *worker_respawn(const struct scene *c)
{
	_cleanup_free_ char *how = exit_text(c);
	bool leaving = c->w && worker_state_is_leaving(c->w->state);

	return xasprintf("%s: generation %u: worker %u ended (%s) and is started again%s",
		WORKER(c), how ? how : "?",
		leaving ? ", for connections may wait in its queue" : "");
}

static char *worker_backoff(const struct scene *c)
{
	_cleanup_free_ char *how = exit_text(c);
	char span[REPORT_SPAN_MAX];

	return xasprintf("%s: generation %u: worker %u ended (%s) and is started again in %s",
		WORKER(c), how ? how : "?", report_span(c->w ? c->w->backoff_usec : 0, span));
}

static char *worker_draining(const struct scene *c)
{
	const char *name = sigabbrev_np(c->g ? c->g->policy.drain.signal : SIGTERM);

	if (c->p && worker_channel_takes_drain(c->p))
		return xasprintf("%s: generation %u: worker %u is told to finish (by its channel)",
			WORKER(c));
	return xasprintf("%s: generation %u: worker %u is told to finish (SIG%s)", WORKER(c),
		name ? name : "?");
}

static char *worker_escalated(const struct scene *c)
{
	char span[REPORT_SPAN_MAX];

	return xasprintf("%s: generation %u: worker %u did not finish within %s (drain.timeout): "
			 "SIGTERM to all its processes",
		WORKER(c), report_span(c->g ? c->g->policy.drain.timeout_usec : 0, span));
}

static char *worker_killed(const struct scene *c)
{
	char span[REPORT_SPAN_MAX];

	if (c->w && !c->w->retiring && c->w->was_ready)
		return xasprintf(
			"%s: generation %u: worker %u missed its watchdog and is ended (SIGABRT)",
			WORKER(c));
	if (c->w && !c->w->retiring)
		return xasprintf("%s: generation %u: worker %u was not ready within %s "
				 "(ready.timeout) and is killed",
			WORKER(c), report_span(c->g ? c->g->policy.ready_timeout_usec : 0, span));
	return xasprintf("%s: generation %u: worker %u does not end and is killed", WORKER(c));
}

static char *worker_gone(const struct scene *c)
{
	_cleanup_free_ char *how = exit_text(c);

	return xasprintf("%s: generation %u: worker %u has ended%s%s%s", WORKER(c), how ? " (" : "",
		how ? how : "", how ? ")" : "");
}

static char *worker_recycled(const struct scene *c)
{
	return xasprintf("%s: generation %u: worker %u %s and is replaced", WORKER(c),
		reason_to_string(c->e->reason));
}

static char *recycle_failed(const struct scene *c)
{
	char span[REPORT_SPAN_MAX];

	return xasprintf("%s: generation %u: the worker that was to stand in for one that is "
			 "recycled %s; the others go on, tried again in %s",
		GENERATION(c), reason_to_string(c->e->reason),
		report_span(c->e->value * USEC_PER_SEC, span));
}

static char *queue_abandoned(const struct scene *c)
{
	char span[REPORT_SPAN_MAX];

	return xasprintf("%s: generation %u: the queue of worker %u was not empty after %s "
			 "(drain.settle_timeout): what it does "
			 "not accept now is lost",
		WORKER(c), report_span(c->g ? c->g->policy.drain.settle_timeout_usec : 0, span));
}

static char *generation_starting(const struct scene *c)
{
	return xasprintf("%s: generation %u starts", GENERATION(c));
}

static char *generation_serving(const struct scene *c)
{
	return xasprintf("%s: generation %u is in service", GENERATION(c));
}

static char *generation_warm(const struct scene *c)
{
	char span[REPORT_SPAN_MAX];
	uint64_t until = c->g ? c->g->warm_until_usec : 0;

	if (until == USEC_INFINITY)
		return xasprintf("%s: generation %u is kept warm; `tenurectl rollback %s` goes "
				 "back to it at once",
			GENERATION(c), c->s->name);
	return xasprintf("%s: generation %u is kept warm for %s; `tenurectl rollback %s` goes back "
			 "to it at once",
		GENERATION(c), report_span(until - MIN(now_usec(c), until), span), c->s->name);
}

static char *generation_draining(const struct scene *c)
{
	return xasprintf(
		"%s: generation %u drains: %s", GENERATION(c), reason_to_string(c->e->reason));
}

static char *generation_gone(const struct scene *c)
{
	return xasprintf("%s: generation %u is gone", GENERATION(c));
}

static char *generation_given_up(const struct scene *c)
{
	const struct failure *f = &c->s->failure;
	bool known = f->generation == c->e->generation;

	return xasprintf(
		"%s: generation %u is given up: %s%s%s%s; correct it, then `tenurectl start %s`",
		GENERATION(c), known && f->reason ? f->reason : reason_to_string(c->e->reason),
		known && f->status ? " (" : "", known && f->status ? f->status : "",
		known && f->status ? ")" : "", c->s->name);
}

/* The generation the rollout came from, as long as it is the present one. */
static unsigned rollout_from(const struct scene *c)
{
	const struct rollout *r = &c->s->core.rollout;

	return r->to == c->e->generation ? r->from : c->s->core.current;
}

static char *rollout_started(const struct scene *c)
{
	const char *by = c->made && c->made->requested_by ? c->made->requested_by : "";
	unsigned from = rollout_from(c), workers = c->g ? c->g->wanted : 0;

	if (from == 0)
		return xasprintf("%s: generation %u starts with %u worker%s (asked for by %s)",
			GENERATION(c), workers, workers == 1 ? "" : "s", by);
	return xasprintf("%s: rollout from generation %u to %u started (%s, asked for by %s)",
		c->s->name, from, c->e->generation,
		c->g ? strategy_to_string(c->g->policy.strategy) : "?", by);
}

static char *rollout_waiting(const struct scene *c)
{
	const struct generation *oldest = service_oldest_leaving(&c->s->core);

	if (!oldest)
		return xasprintf(
			"%s: the rollout to generation %u waits for room (drain.max_generations)",
			GENERATION(c));
	return xasprintf("%s: the rollout to generation %u waits until generation %u has drained "
			 "(drain.max_generations)",
		GENERATION(c), oldest->number);
}

static char *rollout_step(const struct scene *c)
{
	_cleanup_free_ char *share = format_percent(c->e->value);
	uint64_t soak = c->g ? c->g->policy.soak_usec : 0;
	char span[REPORT_SPAN_MAX];
	bool first = rollout_from(c) == 0;

	if (first)
		*c->priority = LOG_DEBUG;
	return xasprintf("%s: generation %u gets %s of new connections%s%s", GENERATION(c),
		share ? share : "its share", !first && soak > 0 ? ", soaks for " : "",
		!first && soak > 0 ? report_span(soak, span) : "");
}

static char *rollout_verified(const struct scene *c)
{
	_cleanup_free_ char *share = format_percent(c->g ? c->g->weight : 0);

	return xasprintf("%s: generation %u is verified at %s", GENERATION(c), share ? share : "?");
}

static char *rollout_paused(const struct scene *c)
{
	_cleanup_free_ char *share = format_percent(c->g ? c->g->weight : 0);

	return xasprintf("%s: rollout to generation %u paused at %s: `tenurectl promote %s` goes "
			 "on, `tenurectl abort %s` goes back",
		GENERATION(c), share ? share : "?", c->s->name, c->s->name);
}

static char *rollout_promoted(const struct scene *c)
{
	return xasprintf("%s: generation %u is promoted", GENERATION(c));
}

static char *rollout_done(const struct scene *c)
{
	char span[REPORT_SPAN_MAX];
	uint64_t now = realtime_now(), started = c->made ? c->made->started_usec : 0;
	bool fresh = c->made && c->e->generation == c->s->core.last_number && started > 0 &&
		     now > started;

	if (rollout_from(c) == 0) {
		*c->priority = LOG_DEBUG;
		return xasprintf("%s: the start of generation %u is done", GENERATION(c));
	}
	return xasprintf("%s: rollout to generation %u done%s%s", GENERATION(c),
		fresh ? " after " : "", fresh ? report_span(now - started, span) : "");
}

/* "worker 1 of generation 8 exited before it was ready (exit status 3)". The caller frees. */
static char *failure_text(const struct scene *c)
{
	const struct failure *f = &c->s->failure;
	_cleanup_free_ char *worker = NULL;
	const char *status;

	if (c->e->reason == REASON_ABORTED || c->e->reason == REASON_ROLLED_BACK)
		return xasprintf(
			"generation %u was %s", c->e->generation, reason_to_string(c->e->reason));
	if (f->generation != c->e->generation || !f->reason)
		return xasprintf(
			"generation %u %s", c->e->generation, reason_to_string(c->e->reason));
	if (f->worker != NO_WORKER)
		worker = xasprintf("worker %u of ", f->worker);
	/* One that was not ready in time runs. */
	status = f->status && !streq(f->status, "running") ? f->status : NULL;
	return xasprintf("%sgeneration %u%s %s%s%s%s", worker ? worker : "", c->e->generation,
		worker ? "" : ":", f->reason, status ? " (" : "", status ? status : "",
		status ? ")" : "");
}

static char *rollout_ended(const struct scene *c)
{
	_cleanup_free_ char *why = NULL;

	if (c->e->reason == REASON_DONE)
		return rollout_done(c);
	if (c->e->reason == REASON_SUPERSEDED || c->e->reason == REASON_STOPPED)
		return xasprintf("%s: rollout to generation %u ended: %s", GENERATION(c),
			reason_to_string(c->e->reason));
	if (c->s->core.current == 0) {
		/* What given up means was said. */
		*c->priority = LOG_DEBUG;
		return xasprintf("%s: the start of generation %u has failed", GENERATION(c));
	}
	if (c->e->reason != REASON_ABORTED && c->e->reason != REASON_ROLLED_BACK)
		*c->priority = LOG_ERR;
	why = failure_text(c);
	return xasprintf("%s: rolled back to generation %u: %s", c->s->name, c->s->core.current,
		why ? why : "?");
}

static char *scaled(const struct scene *c)
{
	return xasprintf("%s: generation %u is scaled to %u worker%s", GENERATION(c), c->e->value,
		c->e->value == 1 ? "" : "s");
}

static char *service_stopping(const struct scene *c)
{
	return xasprintf("%s: stopping; workers finish what they have", c->s->name);
}

static char *service_stopped(const struct scene *c)
{
	return xasprintf("%s: stopped, its addresses are closed", c->s->name);
}

/* clang-format off */
static const struct {
	int priority;
	char *(*describe)(const struct scene *c);
} reports[] = {
	[REPORT_WORKER_READY] =        {LOG_INFO,    worker_ready},
	[REPORT_WORKER_RESPAWN] =      {LOG_WARNING, worker_respawn},
	[REPORT_WORKER_BACKOFF] =      {LOG_WARNING, worker_backoff},
	[REPORT_WORKER_DRAINING] =     {LOG_DEBUG,   worker_draining},
	[REPORT_WORKER_ESCALATED] =    {LOG_WARNING, worker_escalated},
	[REPORT_WORKER_KILLED] =       {LOG_WARNING, worker_killed},
	[REPORT_WORKER_GONE] =         {LOG_INFO,    worker_gone},
	[REPORT_WORKER_RECYCLED] =     {LOG_INFO,    worker_recycled},
	[REPORT_RECYCLE_FAILED] =      {LOG_WARNING, recycle_failed},
	[REPORT_QUEUE_ABANDONED] =     {LOG_WARNING, queue_abandoned},
	[REPORT_GENERATION_STARTING] = {LOG_INFO,    generation_starting},
	[REPORT_GENERATION_SERVING] =  {LOG_NOTICE,  generation_serving},
	[REPORT_GENERATION_WARM] =     {LOG_INFO,    generation_warm},
	[REPORT_GENERATION_DRAINING] = {LOG_INFO,    generation_draining},
	[REPORT_GENERATION_GONE] =     {LOG_INFO,    generation_gone},
	[REPORT_GENERATION_GIVEN_UP] = {LOG_ERR,     generation_given_up},
	[REPORT_ROLLOUT_STARTED] =     {LOG_NOTICE,  rollout_started},
	[REPORT_ROLLOUT_WAITING] =     {LOG_NOTICE,  rollout_waiting},
	[REPORT_ROLLOUT_STEP] =        {LOG_NOTICE,  rollout_step},
	[REPORT_ROLLOUT_VERIFIED] =    {LOG_INFO,    rollout_verified},
	[REPORT_ROLLOUT_PAUSED] =      {LOG_NOTICE,  rollout_paused},
	[REPORT_ROLLOUT_PROMOTED] =    {LOG_DEBUG,   rollout_promoted},
	[REPORT_ROLLOUT_ENDED] =       {LOG_NOTICE,  rollout_ended},
	[REPORT_SCALED] =              {LOG_NOTICE,  scaled},
	[REPORT_SERVICE_STOPPING] =    {LOG_NOTICE,  service_stopping},
	[REPORT_SERVICE_STOPPED] =     {LOG_NOTICE,  service_stopped},
};
/* clang-format on */
_Static_assert(ARRAY_SIZE(reports) == N_REPORTS, "each report has its sentence");

char *report_text(struct manager_service *s, const struct effect *e, int *ret_priority)
{
	struct scene c = {.s = s, .e = e, .priority = ret_priority};

	c.g = service_generation(&s->core, e->generation);
	c.made = manager_service_generation(s, e->generation);
	c.p = manager_service_worker(s, e->generation, e->worker);
	if (c.g && e->worker < c.g->n_workers)
		c.w = &c.g->workers[e->worker];
	*ret_priority = reports[e->report].priority;
	return reports[e->report].describe(&c);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What happened, told once: to the log, to the ring of events and those who watch it, to the calls
 * that wait, to the history. */
#include <stdarg.h>

#include "daemon/follow.h"
#include "daemon/log.h"
#include "daemon/message_id.h"
#include "daemon/output.h"
#include "daemon/ready.h"
#include "daemon/report_text.h"
#include "daemon/state_save.h"
#include "daemon/unit.h"

static void keep_event(struct manager *m, struct manager_event e)
{
	struct manager_event *slot = &m->events[e.sequence % EVENTS_MAX];

	free(slot->service);
	free(slot->message);
	*slot = e;
	control_event(m, slot);
}

static void tell(struct manager *m, struct manager_service *s, unsigned generation, unsigned worker,
	int priority, const char *event, const char *message)
{
	char *copy = strdup(message), *service = s ? strdup(s->name) : NULL;

	log_event(priority,
		&(struct log_subject){.service = s ? s->name : NULL,
			.generation = generation,
			.worker = worker,
			.event = event,
			.message_id = message_id(event)},
		message);
	if (!copy || (s && !service)) {
		free(copy);
		free(service);
		return;
	}
	keep_event(m, (struct manager_event){.sequence = m->next_sequence++,
			      .at_usec = realtime_now(),
			      .service = service,
			      .generation = generation,
			      .worker = worker,
			      .event = event,
			      .message = copy});
}

void manager_report(struct manager *m, struct manager_service *s, unsigned generation,
	unsigned worker, int priority, const char *event, const char *format, ...)
{
	_cleanup_free_ char *message = NULL;
	va_list ap;
	int r;

	va_start(ap, format);
	r = vasprintf(&message, format, ap);
	va_end(ap);
	if (r < 0)
		message = NULL;
	tell(m, s, generation, worker, priority, event, message ? message : event);
}

void failure_done(struct failure *f)
{
	free(f->reason);
	free(f->status);
	free(f->output);
	*f = (struct failure){.worker = NO_WORKER};
}

void manager_service_note_trouble(struct manager_service *s, const struct worker_process *p,
	unsigned generation, unsigned worker, const char *reason)
{
	failure_done(&s->trouble);
	if (!reason && p)
		reason = p->spawn_failure;
	s->trouble = (struct failure){.generation = generation,
		.worker = worker,
		.reason = reason ? strdup(reason) : NULL,
		.status = p ? worker_process_describe_exit(p) : NULL,
		.output = p && p->output ? output_tail(p->output, FAILURE_TAIL_LINES) : NULL,
		.at_usec = realtime_now()};
	s->changed = true;
}

void manager_service_note_check(struct manager_service *s, unsigned generation, char *reason_take,
	char *status_take, char *output_take)
{
	failure_done(&s->trouble);
	s->trouble = (struct failure){.generation = generation,
		.worker = NO_WORKER,
		.reason = reason_take,
		.status = status_take,
		.output = output_take,
		.at_usec = realtime_now()};
	s->changed = true;
}

static bool is_failure(enum reason r)
{
	switch (r) {
	case REASON_SPAWN_FAILED:
	case REASON_EXITED_BEFORE_READY:
	case REASON_NOT_READY_IN_TIME:
	case REASON_EXITED_IN_SOAK:
	case REASON_VERIFY_FAILED:
	case REASON_WATCHDOG:
	case REASON_SAID_ERROR:
	case REASON_LANE_FAILED:
	case REASON_START_LIMIT:
		return true;
	case REASON_NONE:
	case REASON_DONE:
	case REASON_ABORTED:
	case REASON_ROLLED_BACK:
	case REASON_SUPERSEDED:
	case REASON_STOPPED:
	case REASON_REPLACED:
	case REASON_SCALED_DOWN:
	case REASON_TOO_OLD:
	case REASON_TOO_BIG:
		return false;
	}
	return false;
}

/* The worker that is still waited for knows best what it has not done. */
static void note_not_ready(struct manager_service *s, const struct effect *e)
{
	const struct manager_generation *g = manager_service_generation(s, e->generation);

	for (unsigned i = 0; g && i < g->n_workers; i++) {
		const struct worker_process *p = g->workers[i];
		_cleanup_free_ char *explanation = NULL;

		if (!p || !p->ready || (e->worker != NO_WORKER && e->worker != i))
			continue;
		explanation = ready_watch_explain(p->ready);
		manager_service_note_trouble(s, p, e->generation, i, explanation);
		return;
	}
}

/* Remember the failure for whoever asks later: its reason, and what the worker left behind. */
static void note_failure(struct manager_service *s, const struct effect *e, const char *reason)
{
	const struct failure *t = &s->trouble;
	bool known;

	if (e->reason == REASON_NOT_READY_IN_TIME)
		note_not_ready(s, e);
	known = t->generation == e->generation &&
		(e->worker == NO_WORKER || t->worker == e->worker);
	if (!known && e->worker != NO_WORKER) {
		manager_service_note_trouble(s, manager_service_worker(s, e->generation, e->worker),
			e->generation, e->worker, NULL);
		known = true;
	}
	known &= e->reason != REASON_LANE_FAILED;
	failure_done(&s->failure);
	s->failure = (struct failure){
		.generation = e->generation, .worker = e->worker, .at_usec = realtime_now()};
	manager_service_changed(s);
	s->failure.reason = known && t->reason && !streq(t->reason, reason)
				    ? xasprintf("%s: %s", reason, t->reason)
				    : strdup(reason);
	if (!known)
		return;
	s->failure.worker = t->worker;
	s->failure.status = t->status ? strdup(t->status) : NULL;
	s->failure.output = t->output ? strdup(t->output) : NULL;
}

static struct history_entry *find_history(struct manager_service *s, unsigned generation)
{
	for (size_t i = s->n_history; i-- > 0;)
		if (s->history[i].generation == generation)
			return &s->history[i];
	return NULL;
}

static void record_outcome(struct manager_service *s, const struct effect *e, bool failed)
{
	struct history_entry *h = find_history(s, e->generation);
	const char *reason =
		failed && s->failure.reason ? s->failure.reason : reason_to_string(e->reason);

	/* The first reason is the true one: what failed also drains, and ends. */
	if (!h || h->outcome != REASON_NONE || e->reason == REASON_NONE || e->reason == REASON_DONE)
		return;
	h->outcome = e->reason;
	h->reason = strdup(reason);
	manager_service_changed(s);
}

static void clear_outcome(struct history_entry *h)
{
	h->outcome = REASON_NONE;
	free(h->reason);
	h->reason = NULL;
}

static bool outcome_is(struct manager_service *s, const struct effect *e)
{
	const struct history_entry *h = find_history(s, e->generation);

	return h && e->reason != REASON_NONE && h->outcome == e->reason;
}

static void record_serving(struct manager_service *s, const struct effect *e)
{
	struct manager_generation *g = manager_service_generation(s, e->generation);
	struct history_entry *h = find_history(s, e->generation);

	if (g)
		g->serving_usec = realtime_now();
	if (!h)
		return;
	/* It may have come back from the way out. */
	clear_outcome(h);
	manager_service_changed(s);
	h->was_good = true;
	if (h->serving_usec == 0)
		h->serving_usec = realtime_now();
}

static bool was_ready(const struct manager_service *s, const struct effect *e)
{
	const struct generation *g = service_generation(&s->core, e->generation);

	return g && e->worker < g->n_workers && g->workers[e->worker].was_ready;
}

/* History and last failure, before the sentence that may need them. */
static void record(struct manager_service *s, const struct effect *e)
{
	struct history_entry *h;
	bool failed = is_failure(e->reason);

	switch ((int)e->report) {
	case REPORT_GENERATION_SERVING:
		record_serving(s, e);
		break;
	case REPORT_WORKER_BACKOFF:
		/* One exit is an accident; from the second on somebody should know what it said. */
		note_failure(s, e,
			was_ready(s, e) ? "keeps ending"
					: reason_to_string(REASON_EXITED_BEFORE_READY));
		break;
	case REPORT_GENERATION_GIVEN_UP:
	case REPORT_GENERATION_DRAINING:
	case REPORT_ROLLOUT_ENDED:
		h = find_history(s, e->generation);
		if (failed && (!h || h->outcome == REASON_NONE))
			note_failure(s, e, reason_to_string(e->reason));
		record_outcome(s, e, failed);
		/* recreate: the old one was stopped, and is taken back. */
		h = e->report == REPORT_ROLLOUT_ENDED ? find_history(s, s->core.current) : NULL;
		if (h && h->outcome != REASON_NONE)
			clear_outcome(h);
		break;
	case REPORT_GENERATION_GONE:
		h = find_history(s, e->generation);
		if (h) {
			h->ended_usec = realtime_now();
			manager_service_changed(s);
		}
		break;
	default:
		break;
	}
}

void manager_service_mend_outcome(struct manager_service *s)
{
	const struct rollout *r = &s->core.rollout;
	const struct history_entry *h = find_history(s, r->to);
	const struct effect e = {.kind = EFFECT_REPORT,
		.report = REPORT_ROLLOUT_ENDED,
		.generation = r->to,
		.worker = NO_WORKER,
		.reason = r->reason};

	for (size_t i = 0; i < s->n_history; i++)
		if (s->history[i].ended_usec == 0 &&
			!service_generation(&s->core, s->history[i].generation))
			s->history[i].ended_usec = realtime_now();
	if (r->phase == ROLLOUT_NONE && r->reason != REASON_DONE && h && !h->was_good &&
		h->outcome == REASON_NONE && s->core.current != r->to)
		record(s, &e);
}

static const char *event_name(const struct effect *e)
{
	if (e->report != REPORT_ROLLOUT_ENDED || e->reason == REASON_SUPERSEDED ||
		e->reason == REASON_STOPPED)
		return report_to_string(e->report);
	return e->reason == REASON_DONE ? "rollout-done" : "rolled-back";
}

void manager_service_report_effect(struct manager_service *s, const struct effect *e)
{
	_cleanup_free_ char *text = NULL;
	const char *event = event_name(e), *message;
	int priority;
	bool told;

	told = e->report == REPORT_GENERATION_DRAINING && outcome_is(s, e);
	record(s, e);
	text = report_text(s, e, &priority);
	/* That it failed, or was replaced, was said when that happened. */
	if (told)
		priority = LOG_DEBUG;
	message = text ? text : event;
	tell(s->manager, s, e->generation, e->worker, priority, event, message);
	if (e->report == REPORT_ROLLOUT_ENDED) {
		manager_service_rollout_ended(s, e->reason == REASON_DONE);
		unit_changed_now(s->manager->unit);
		followers_rollout_ended(s, e->generation, e->reason, message);
		return;
	}
	if (e->report == REPORT_ROLLOUT_STARTED)
		followers_rollout_started(s, e->generation);
	/* What only a log with --debug shows is no step for those who wait either. */
	if (priority != LOG_DEBUG)
		followers_progress(s, e->generation, e->worker, message);
}

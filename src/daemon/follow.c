/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/follow_internal.h"

#include "daemon/control_methods.h"
#include "varlink/message.h"

static void waiter_free(struct waiter *w)
{
	control_call_on_gone(w->call, NULL, NULL);
	control_call_unref(w->call);
	json_decref(w->changes);
	json_decref(w->last);
	json_decref(w->error_parameters);
	free(w->error);
	free(w);
}

static void answer(struct waiter *w)
{
	json_t *reply;

	if (w->error) {
		(void)control_call_error(w->call, w->error, TAKE_PTR(w->error_parameters));
		return;
	}
	reply = json_object();
	if (reply && w->changes)
		json_object_set(reply, "changes", w->changes);
	if (reply && w->last)
		json_object_set(reply, "progress", w->last);
	(void)control_call_reply(w->call, reply);
}

static void release(struct waiter *w)
{
	if (--w->n_held > 0)
		return;
	answer(w);
	waiter_free(w);
}

/* The client is gone: forget what it waited for, and nothing else. */
static void on_gone(struct control_call *call, void *userdata)
{
	struct waiter *w = userdata;

	(void)call;
	for (size_t i = 0; i < w->manager->n_services; i++)
		for (struct follower **f = &w->manager->services[i]->followers; *f;) {
			struct follower *gone = *f;

			if (gone->waiter != w) {
				f = &gone->next;
				continue;
			}
			*f = gone->next;
			free(gone);
		}
	waiter_free(w);
}

struct waiter *waiter_new(struct manager *m, struct control_call *call, json_t *changes_take)
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w) {
		json_decref(changes_take);
		(void)control_call_failed(call, "out of memory");
		return NULL;
	}
	*w = (struct waiter){.manager = m,
		.call = control_call_ref(call),
		.waits = control_call_wants_more(call),
		.n_held = 1,
		.changes = changes_take};
	control_call_on_gone(call, on_gone, w);
	return w;
}

void waiter_end(struct waiter *w)
{
	if (w)
		release(w);
}

void waiter_fail(struct waiter *w, const char *error, json_t *parameters_take)
{
	/* The first is what the others may follow from. */
	if (w && !w->error) {
		w->error = strdup(error);
		w->error_parameters = parameters_take;
		return;
	}
	json_decref(parameters_take);
}

void waiter_done(
	struct waiter *w, struct manager_service *s, unsigned generation, const char *message)
{
	if (!w)
		return;
	json_decref(w->last);
	w->last = control_json_progress(s, generation, message, true);
}

static void accepted(
	struct waiter *w, struct manager_service *s, unsigned generation, const char *message)
{
	json_decref(w->last);
	w->last = control_json_progress(s, generation, message, false);
}

/* NULL: it does not wait (and has its answer), or there is no memory. */
struct follower *follower_add(struct waiter *w, struct manager_service *s, struct follower follower)
{
	struct follower *f;

	if (!w->waits)
		return NULL;
	f = calloc(1, sizeof(*f));
	if (!f) {
		waiter_fail(w, "Failed", json_pack("{s:s}", "message", "out of memory"));
		return NULL;
	}
	*f = follower;
	f->waiter = w;
	f->next = s->followers;
	s->followers = f;
	w->n_held++;
	return f;
}

static void tell(struct manager_service *s, struct follower *f, const char *message)
{
	struct waiter *w = f->waiter;
	json_t *progress = control_json_progress(s, f->generation, message, false);

	if (!progress)
		return;
	if (w->changes)
		(void)control_call_notify(
			w->call, json_pack("{s:[], s:o}", "changes", "progress", progress));
	else
		(void)control_call_notify(w->call, json_pack("{s:o}", "progress", progress));
}

/* Unlinked by the caller. */
static void finish(struct follower *f)
{
	struct waiter *w = f->waiter;

	free(f);
	release(w);
}

static json_t *superseded(const struct manager_service *s, unsigned generation, const char *reason)
{
	return json_pack("{s:s, s:I, s:s}", "service", s->name, "generation",
		(json_int_t)generation, "reason", reason);
}

static json_t *failed(const struct manager_service *s, const char *message)
{
	_cleanup_free_ char *text = xasprintf("%s: %s", s->name, message);

	return json_pack("{s:s}", "message", text ? text : message);
}

/* A rollout has not come to its good end. */
static void fail_by_reason(
	struct waiter *w, const struct manager_service *s, unsigned generation, enum reason reason)
{
	if (reason == REASON_SUPERSEDED || reason == REASON_STOPPED)
		waiter_fail(w, "Superseded", superseded(s, generation, reason_to_string(reason)));
	else
		waiter_fail(w, "RolledBack", control_json_rolled_back(s, generation, reason));
}

static bool is_rolling_to(const struct manager_service *s, unsigned generation)
{
	return s->core.rollout.phase != ROLLOUT_NONE && s->core.rollout.to == generation;
}

static enum reason outcome_of(const struct manager_service *s, unsigned generation)
{
	for (size_t i = s->n_history; i-- > 0;)
		if (s->history[i].generation == generation)
			return s->history[i].outcome;
	return REASON_NONE;
}

void waiter_follow_generation(
	struct waiter *w, struct manager_service *s, unsigned generation, bool wait_drain)
{
	_cleanup_free_ char *text = NULL;
	enum reason outcome = outcome_of(s, generation);
	struct follower *f;

	if (!w)
		return;
	if (!is_rolling_to(s, generation)) {
		/* Over before anybody could look. */
		text = xasprintf("%s: generation %u is in service", s->name, generation);
		if (outcome != REASON_NONE && outcome != REASON_DONE &&
			s->core.current != generation)
			fail_by_reason(w, s, generation, outcome);
		else
			waiter_done(w, s, generation, text ? text : "done");
		return;
	}
	text = xasprintf("%s: generation %u is on its way", s->name, generation);
	accepted(w, s, generation, text ? text : "accepted");
	f = follower_add(w, s,
		(struct follower){.kind = FOLLOW_ROLLOUT,
			.generation = generation,
			.from = s->core.rollout.from,
			.wait_drain = wait_drain});
	if (f)
		tell(s, f, text ? text : "accepted");
}

void waiter_follow_abort(struct waiter *w, struct manager_service *s, unsigned generation)
{
	_cleanup_free_ char *text = NULL;

	if (!w)
		return;
	if (!is_rolling_to(s, generation)) {
		text = xasprintf("%s: rolled back to generation %u", s->name, s->core.current);
		waiter_done(w, s, s->core.current, text ? text : "done");
		return;
	}
	text = xasprintf("%s: generation %u is started again", s->name, s->core.current);
	accepted(w, s, s->core.current, text ? text : "accepted");
	(void)follower_add(w, s,
		(struct follower){.kind = FOLLOW_ABORT,
			.generation = generation,
			.from = s->core.rollout.from});
}

void waiter_follow_queued(struct waiter *w, struct manager_service *s, bool wait_drain)
{
	_cleanup_free_ char *text = NULL;
	struct follower *f;

	for (struct follower **p = &s->followers; *p;) {
		f = *p;
		if (f->kind != FOLLOW_QUEUED) {
			p = &f->next;
			continue;
		}
		*p = f->next;
		waiter_fail(f->waiter, "Superseded",
			superseded(s, 0, "the queued upgrade was replaced by a later one"));
		finish(f);
	}
	if (!w)
		return;
	text = xasprintf("%s: queued until the rollout to generation %u has ended", s->name,
		s->core.rollout.to);
	accepted(w, s, 0, text ? text : "queued");
	f = follower_add(w, s, (struct follower){.kind = FOLLOW_QUEUED, .wait_drain = wait_drain});
	if (f)
		tell(s, f, text ? text : "queued");
}

void waiter_follow_start_again(struct waiter *w, struct manager_service *s)
{
	_cleanup_free_ char *text = xasprintf("%s: is started when it has stopped", s->name);
	struct follower *f;

	if (!w)
		return;
	accepted(w, s, 0, text ? text : "accepted");
	f = follower_add(w, s, (struct follower){.kind = FOLLOW_START_AGAIN});
	if (f)
		tell(s, f, text ? text : "accepted");
}

void waiter_follow_stop(struct waiter *w, struct manager_service *s)
{
	_cleanup_free_ char *text = NULL;

	if (!w)
		return;
	text = xasprintf("%s: %s", s->name, s->core.stopping ? "stopping" : "stopped");
	if (!s->core.stopping) {
		waiter_done(w, s, 0, text ? text : "stopped");
		return;
	}
	accepted(w, s, 0, text ? text : "stopping");
	(void)follower_add(w, s, (struct follower){.kind = FOLLOW_STOP});
}

void waiter_follow_scale(struct waiter *w, struct manager_service *s, unsigned workers)
{
	_cleanup_free_ char *text =
		xasprintf("%s: scaling to %u worker%s", s->name, workers, workers == 1 ? "" : "s");

	if (!w)
		return;
	accepted(w, s, s->core.current, text ? text : "accepted");
	if (follower_add(w, s,
		    (struct follower){.kind = FOLLOW_SCALE,
			    .generation = s->core.current,
			    .workers = workers}))
		followers_check(s);
}

/* Is what happens to that generation news for this follower? */
static bool is_interested(const struct manager_service *s, const struct follower *f,
	unsigned generation, unsigned worker)
{
	switch (f->kind) {
	case FOLLOW_ROLLOUT:
	case FOLLOW_ABORT:
	case FOLLOW_DRAIN:
		return generation == f->generation ||
		       (generation == f->from && (worker == NO_WORKER || f->wait_drain));
	case FOLLOW_STOP:
		return true;
	case FOLLOW_SCALE:
		return generation == s->core.current;
	case FOLLOW_QUEUED:
	case FOLLOW_START_AGAIN:
		return false;
	}
	return false;
}

void followers_progress(
	struct manager_service *s, unsigned generation, unsigned worker, const char *message)
{
	for (struct follower *f = s->followers; f; f = f->next)
		if (is_interested(s, f, generation, worker))
			tell(s, f, message);
}

void followers_traffic(struct manager_service *s)
{
	for (struct follower *f = s->followers; f; f = f->next)
		if (f->kind == FOLLOW_ROLLOUT && f->generation == s->core.rollout.to)
			tell(s, f, "");
}

void followers_rollout_started(struct manager_service *s, unsigned generation)
{
	/* What is still queued has not begun: this is somebody else's. */
	if (s->queued.config)
		return;
	for (struct follower *f = s->followers; f; f = f->next)
		if (f->kind == FOLLOW_QUEUED || f->kind == FOLLOW_START_AGAIN) {
			f->kind = FOLLOW_ROLLOUT;
			f->generation = generation;
			f->from = s->core.rollout.to == generation ? s->core.rollout.from : 0;
		}
}

/* What the end of a rollout means to one that follows it. True: it has its answer. */
static bool take_end(
	struct manager_service *s, struct follower *f, enum reason reason, const char *message)
{
	if (f->kind == FOLLOW_ABORT && reason != REASON_STOPPED) {
		waiter_done(f->waiter, s, s->core.current, message);
		return true;
	}
	if (reason != REASON_DONE) {
		fail_by_reason(f->waiter, s, f->generation, reason);
		return true;
	}
	if (f->wait_drain && service_generation(&s->core, f->from)) {
		f->kind = FOLLOW_DRAIN;
		tell(s, f, message);
		return false;
	}
	waiter_done(f->waiter, s, f->generation, message);
	return true;
}

void followers_rollout_ended(
	struct manager_service *s, unsigned generation, enum reason reason, const char *message)
{
	for (struct follower **p = &s->followers; *p;) {
		struct follower *f = *p;

		if ((f->kind != FOLLOW_ROLLOUT && f->kind != FOLLOW_ABORT) ||
			f->generation != generation || !take_end(s, f, reason, message)) {
			p = &f->next;
			continue;
		}
		*p = f->next;
		finish(f);
	}
}

static bool check_drain(struct manager_service *s, struct follower *f)
{
	const struct generation *from = service_generation(&s->core, f->from);
	_cleanup_free_ char *text = NULL;

	if (from && from->state == GENERATION_SERVING) {
		waiter_fail(f->waiter, "Superseded",
			superseded(s, f->generation, "the old generation was taken back"));
		return true;
	}
	if (from)
		return false;
	text = xasprintf("%s: generation %u is in service, generation %u is gone", s->name,
		f->generation, f->from);
	waiter_done(f->waiter, s, f->generation, text ? text : "done");
	return true;
}

static bool check_scale(struct manager_service *s, struct follower *f)
{
	const struct generation *g = service_generation(&s->core, s->core.current);
	_cleanup_free_ char *text = NULL;

	if (!g || !s->core.wanted || g->wanted != f->workers) {
		waiter_fail(f->waiter, "Superseded",
			superseded(s, f->generation,
				g && s->core.wanted ? "the number of workers was changed again"
						    : reason_to_string(REASON_STOPPED)));
		return true;
	}
	if (generation_ready(g) != f->workers)
		return false;
	text = xasprintf(
		"%s: %u worker%s ready", s->name, f->workers, f->workers == 1 ? " is" : "s are");
	waiter_done(f->waiter, s, g->number, text ? text : "done");
	return true;
}

/* It waits for something to begin: can that still happen? */
static bool check_beginning(struct manager_service *s, struct follower *f)
{
	const struct service *core = &s->core;

	if (f->kind == FOLLOW_QUEUED ? s->queued.config != NULL
				     : core->stopping && core->start_again)
		return false;
	if (core->stopping || (f->kind == FOLLOW_QUEUED && !core->wanted))
		waiter_fail(f->waiter, "Superseded",
			superseded(s, 0, reason_to_string(REASON_STOPPED)));
	else
		waiter_fail(f->waiter, "Failed",
			failed(s, f->kind == FOLLOW_QUEUED ? "the queued upgrade could not begin; "
							     "the daemon's log says why"
							   : "it could not be started again; the "
							     "daemon's log says why"));
	return true;
}

static bool check(struct manager_service *s, struct follower *f)
{
	_cleanup_free_ char *text = NULL;

	switch (f->kind) {
	case FOLLOW_ROLLOUT:
	case FOLLOW_ABORT:
		return false;
	case FOLLOW_DRAIN:
		return check_drain(s, f);
	case FOLLOW_QUEUED:
	case FOLLOW_START_AGAIN:
		return check_beginning(s, f);
	case FOLLOW_STOP:
		if (s->core.stopping)
			return false;
		text = xasprintf("%s: stopped", s->name);
		waiter_done(f->waiter, s, 0, text ? text : "stopped");
		return true;
	case FOLLOW_SCALE:
		return check_scale(s, f);
	}
	return false;
}

void followers_check(struct manager_service *s)
{
	for (struct follower **p = &s->followers; *p;) {
		struct follower *f = *p;

		if (!check(s, f)) {
			p = &f->next;
			continue;
		}
		*p = f->next;
		finish(f);
	}
}

void followers_free(struct manager_service *s)
{
	while (s->followers) {
		struct follower *f = s->followers;

		s->followers = f->next;
		if (s->manager->stopping)
			waiter_fail(f->waiter, "Failed", failed(s, "the daemon is stopping"));
		else
			waiter_fail(f->waiter, "Failed", failed(s, "the service was removed"));
		finish(f);
	}
}

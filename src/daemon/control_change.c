/* SPDX-License-Identifier: Apache-2.0 */
/* Methods that change something. Each is logged with who asked, and either refused with the reason
 * as a typed error, or accepted; then follow.h waits for what comes of it. */
#include <signal.h>

#include "daemon/adopt.h"
#include "daemon/control_methods.h"
#include "daemon/follow.h"
#include "daemon/log.h"
#include "daemon/reexec.h"
#include "daemon/unit.h"
#include "varlink/message.h"

static void log_request(
	const struct manager_service *s, struct control_call *call, const char *what)
{
	log_notice("%s: %s asked for by %s", s->name, what, control_call_peer_text(call));
}

static int refuse_too_many(const struct manager_service *s, struct control_call *call)
{
	const struct generation *oldest = service_oldest_leaving(&s->core);
	_cleanup_free_ char *message = NULL;

	if (oldest)
		message = xasprintf("generation %u is still draining, and no more than %u "
				    "generations may be alive at once; wait "
				    "until it is gone, or raise drain.max_generations",
			oldest->number, s->config->drain.max_generations);
	else
		message = xasprintf("no more than %u generations may be alive at once; raise "
				    "drain.max_generations",
			s->config->drain.max_generations);
	return control_call_error(call, "TooManyGenerations",
		json_pack("{s:s, s:i, s:i, s:s}", "service", s->name, "limit",
			(int)s->config->drain.max_generations, "draining",
			oldest ? (int)oldest->number : 0, "message",
			message ? message : "too many generations"));
}

static json_t *in_progress(const struct manager_service *s)
{
	_cleanup_free_ char *message =
		xasprintf("a rollout to generation %u is in progress: wait for it, end it with "
			  "`tenurectl abort %s`, or ask with "
			  "--overlap=queue or --overlap=supersede",
			s->core.rollout.to, s->name);

	return json_pack("{s:s, s:i, s:s}", "service", s->name, "generation",
		(int)s->core.rollout.to, "message", message ? message : "a rollout is in progress");
}

/* What a request was refused with: SERVICE_E_*, or -errno with its sentence. */
static int refuse(const struct manager_service *s, struct control_call *call, int r,
	const struct error *error)
{
	switch (r) {
	case SERVICE_E_ROLLOUT_IN_PROGRESS:
		return control_call_error(call, "RolloutInProgress", in_progress(s));
	case SERVICE_E_TOO_MANY_GENERATIONS:
		return refuse_too_many(s, call);
	case SERVICE_E_NO_ROLLOUT:
		return control_call_error(
			call, "NoRollout", json_pack("{s:s}", "service", s->name));
	case SERVICE_E_NOT_RUNNING:
	case SERVICE_E_STOPPING:
		return control_call_error(call, "NotRunning",
			json_pack("{s:s, s:s}", "service", s->name, "message",
				service_refusal_to_string(r)));
	default:
		break;
	}
	if (error && error->code != 0)
		return control_call_failed(call, "%s", error_message(error));
	return control_call_failed(
		call, "%s: %s", s->name, r < 0 ? strerror(-r) : service_refusal_to_string(r));
}

/* Percent to hundredths of a percent, 1..SHARE_MAX. */
static bool to_share(const json_t *percent, unsigned *ret)
{
	double value = json_number_value(percent) * 100.0 + 0.5;

	if (!(value >= 1.0 && value < (double)SHARE_MAX + 1.0))
		return false;
	*ret = (unsigned)value;
	return true;
}

/* An upgrade's parameters, checked. */
struct wish {
	struct request_options options;
	enum strategy strategy;
	enum overlap overlap;
	unsigned steps[CONFIG_STEPS_MAX];
	uint64_t soak_usec;
	bool wait_drain;
};

static bool read_steps(const json_t *steps, struct wish *w)
{
	size_t n = json_array_size(steps);

	if (n == 0 || n > CONFIG_STEPS_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!to_share(json_array_get(steps, i), &w->steps[i]) ||
			(i > 0 && w->steps[i] <= w->steps[i - 1]))
			return false;
	w->options.steps = w->steps;
	w->options.n_steps = n;
	return true;
}

/* The name of the parameter that is wrong, or NULL. */
static const char *read_wish(json_t *parameters, struct wish *w)
{
	const json_t *strategy = json_object_get(parameters, "strategy"),
		     *steps = json_object_get(parameters, "steps"),
		     *soak = json_object_get(parameters, "soakUsec"),
		     *pause_at = json_object_get(parameters, "pauseAt"),
		     *overlap = json_object_get(parameters, "overlap");

	if (strategy && strategy_from_string(json_string_value(strategy), &w->strategy) < 0)
		return "strategy";
	if (steps && !read_steps(steps, w))
		return "steps";
	if (soak && json_integer_value(soak) < 0)
		return "soakUsec";
	/* At 100% there is nothing left to pause before. */
	if (pause_at &&
		(!to_share(pause_at, &w->options.pause_at) || w->options.pause_at == SHARE_MAX))
		return "pauseAt";
	if (overlap && overlap_from_string(json_string_value(overlap), &w->overlap) < 0)
		return "overlap";
	w->soak_usec = soak ? (uint64_t)json_integer_value(soak) : 0;
	w->options.strategy = strategy ? &w->strategy : NULL;
	w->options.soak_usec = soak ? &w->soak_usec : NULL;
	w->options.overlap = overlap ? &w->overlap : NULL;
	w->wait_drain = json_is_true(json_object_get(parameters, "waitDrain"));
	return NULL;
}

/* The request was accepted: it has begun, as the generation after `before`, or it is queued. */
static int follow_upgrade(struct manager *m, struct manager_service *s, struct control_call *call,
	unsigned before, bool wait_drain)
{
	struct waiter *w = waiter_new(m, call, NULL);

	if (s->core.last_number > before)
		waiter_follow_generation(w, s, before + 1, wait_drain);
	else
		waiter_follow_queued(w, s, wait_drain);
	waiter_end(w);
	return 0;
}

static int upgrade(struct manager *m, struct manager_service *s, struct control_call *call,
	const struct service_config *config, struct wish *w)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	unsigned before = s->core.last_number;
	int r;

	w->options.requested_by = control_call_peer_text(call);
	r = manager_service_upgrade(s, config, &w->options, &error);
	if (r != 0)
		return refuse(s, call, r, &error);
	return follow_upgrade(m, s, call, before, w->wait_drain);
}

static int method_upgrade(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	_cleanup_config_ struct config *config = NULL;
	_cleanup_problems_ struct config_problems problems = {0};
	const struct service_config *found;
	struct wish w = {0};
	const char *wrong = read_wish(parameters, &w);

	if (wrong)
		return control_call_invalid_parameter(call, wrong);
	log_request(s, call, "upgrade");
	if (!m->config_path)
		return upgrade(m, s, call, NULL, &w);
	if (manager_read_config(m, &config, &problems, &error) < 0)
		return control_invalid_configuration(m, call, &problems, &error);
	found = config_find(config, s->name);
	if (!found)
		return control_no_such_service(m, call, s->name);
	return upgrade(m, s, call, found, &w);
}

static int method_restart(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	struct wish w = {
		.options = {.restart = true,
			    .hard = json_is_true(json_object_get(parameters, "hard"))}
	  };

	log_request(s, call, w.options.hard ? "hard restart" : "restart");
	return upgrade(m, s, call, NULL, &w);
}

/* Promote, Pause, Abort: to the rollout that is open, answered at once. */
static int change_rollout(
	struct manager_service *s, struct control_call *call, struct service_event e)
{
	int r = manager_service_event(s, &e);

	return r == 0 ? control_call_reply(call, NULL) : refuse(s, call, r, NULL);
}

static int method_promote(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	bool full = json_is_true(json_object_get(parameters, "full"));

	(void)m;
	log_request(s, call, full ? "full promotion" : "promotion");
	return change_rollout(
		s, call, (struct service_event){.kind = EVENT_PROMOTE, .value = full});
}

static int method_pause(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	(void)m;
	(void)parameters;
	log_request(s, call, "pause");
	return change_rollout(s, call, (struct service_event){.kind = EVENT_PAUSE});
}

static int method_abort(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	(void)m;
	(void)parameters;
	log_request(s, call, "abort");
	return change_rollout(
		s, call, (struct service_event){.kind = EVENT_ABORT, .reason = REASON_ABORTED});
}

/* How long it took, to who asked for it: a rollback is a race against an incident. NULL: out of
 * memory. */
static char *moved_text(const struct manager_service *s)
{
	return xasprintf(
		"%s: generation %u has all new connections again, %.1fms after the request",
		s->name, s->core.current, (double)s->moved_usec / USEC_PER_MSEC);
}

static int method_rollback(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	json_int_t to = json_integer_value(json_object_get(parameters, "to"));
	bool aborts = rollout_is_open(&s->core.rollout) && s->core.rollout.from != 0;
	unsigned before = s->core.last_number, rolling_to = s->core.rollout.to;
	_cleanup_free_ char *moved = NULL;
	struct waiter *w;
	int r;

	if (to < 0 || to > INT32_MAX)
		return control_call_invalid_parameter(call, "to");
	log_request(s, call, "rollback");
	r = manager_service_rollback(s, (unsigned)to, control_call_peer_text(call), &error);
	if (r == SERVICE_E_NOT_ALIVE && to != 0)
		return control_call_error(call, "NoSuchGeneration",
			json_pack("{s:s, s:I}", "service", s->name, "generation", to));
	if (r != 0)
		return refuse(s, call, r, &error);
	moved = s->moved_usec > 0 ? moved_text(s) : NULL;
	w = waiter_new(m, call, NULL);
	if (aborts && moved)
		waiter_done(w, s, s->core.current, moved);
	else if (aborts)
		waiter_follow_abort(w, s, rolling_to);
	else if (s->core.last_number > before)
		waiter_follow_generation(w, s, before + 1, false);
	else
		waiter_follow_generation(w, s, s->core.current, false);
	if (!aborts && moved)
		followers_progress(s, s->core.current, NO_WORKER, moved);
	waiter_end(w);
	return 0;
}

static int method_scale(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	json_int_t workers = json_integer_value(json_object_get(parameters, "workers"));
	_cleanup_free_ char *what = NULL;
	struct waiter *w;
	int r;

	if (workers < 1 || workers > CONFIG_WORKERS_MAX)
		return control_call_failed(call, "%s: workers must be 1 to %d, not %lld", s->name,
			CONFIG_WORKERS_MAX, (long long)workers);
	what = xasprintf("scaling to %d worker%s", (int)workers, workers == 1 ? "" : "s");
	log_request(s, call, what ? what : "scaling");
	r = manager_service_scale(s, (unsigned)workers, &error);
	if (r != 0)
		return refuse(s, call, r, &error);
	w = waiter_new(m, call, NULL);
	waiter_follow_scale(w, s, (unsigned)workers);
	waiter_end(w);
	return 0;
}

static int method_start(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	unsigned before = s->core.last_number;
	bool stopping = s->core.stopping;
	struct waiter *w;
	int r;

	(void)parameters;
	log_request(s, call, "start");
	r = manager_service_start(s, control_call_peer_text(call), &error);
	if (r != 0)
		return refuse(s, call, r, &error);
	w = waiter_new(m, call, NULL);
	if (stopping)
		waiter_follow_start_again(w, s);
	else if (s->core.last_number > before)
		waiter_follow_generation(w, s, before + 1, false);
	else /* It runs, or is on its way to. */
		waiter_follow_generation(
			w, s, s->core.current != 0 ? s->core.current : s->core.rollout.to, false);
	waiter_end(w);
	return 0;
}

static int adopt(struct manager *m, struct manager_service *s, struct control_call *call,
	struct adopt_request *request)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct waiter *w;
	int r;

	log_notice("%s: taking over process %d asked for by %s", s->name, (int)request->pid,
		control_call_peer_text(call));
	request->peer = control_call_peer(call);
	request->requested_by = control_call_peer_text(call);
	r = adopt_begin(s, request, &error);
	if (r != 0)
		return refuse(s, call, r, &error);
	w = waiter_new(m, call, NULL);
	waiter_follow_generation(w, s, s->core.last_number, false);
	waiter_end(w);
	return 0;
}

static int method_adopt(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	json_int_t pid = json_integer_value(json_object_get(parameters, "pid")),
		   signal = json_integer_value(json_object_get(parameters, "signal"));
	int fds[CONTROL_FDS_MAX], r;
	size_t n = control_call_take_fds(call, fds);

	if (pid < 1 || pid > INT32_MAX)
		r = control_call_invalid_parameter(call, "pid");
	else if (signal < 0 || signal > SIGRTMAX)
		r = control_call_invalid_parameter(call, "signal");
	else if (n < 2)
		r = control_call_failed(call,
			"%s: no descriptors came with the call: a pidfd and the sockets have to be "
			"sent beside it, as `tenurectl adopt` does",
			s->name);
	else
		r = adopt(m, s, call,
			&(struct adopt_request){
				.pid = (pid_t)pid, .fds = fds, .n_fds = n, .signal = (int)signal});
	for (size_t i = 0; i < n; i++)
		close_fd(fds[i]);
	return r;
}

static int method_stop(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	struct waiter *w;
	int r;

	(void)parameters;
	log_request(s, call, "stop");
	r = manager_service_stop(s, false);
	/* What does not run is stopped. */
	if (r != 0 && r != SERVICE_E_NOT_RUNNING)
		return refuse(s, call, r, NULL);
	w = waiter_new(m, call, NULL);
	waiter_follow_stop(w, s);
	waiter_end(w);
	return 0;
}

int control_answer_asked(struct manager *m, struct manager_service *s, struct control_call *call,
	const struct control_method *method, const struct asked *asked, json_t *parameters)
{
	static const char *const answered_at_once[] = {"Promote", "Pause", "Abort"};
	struct waiter *w;

	log_notice("%s: %s asked for again by %s: it was done, or is under way", s->name,
		method->name, control_call_peer_text(call));
	for (size_t i = 0; i < ARRAY_SIZE(answered_at_once); i++)
		if (streq(method->name, answered_at_once[i]))
			return control_call_reply(call, NULL);
	w = waiter_new(m, call, NULL);
	waiter_follow_asked(w, s, asked, json_is_true(json_object_get(parameters, "waitDrain")));
	waiter_end(w);
	return 0;
}

/* What a service was before a reload. */
struct reload_before {
	const struct manager_service *s; /* only compared */
	unsigned last_number;
	const struct service_config *queued;
	const struct asked *asked; /* by this very reload, before: it is not done again */
};

/* The service whose upgrade was asked for by a reload. */
static void follow_reloaded(
	struct waiter *w, struct manager_service *s, const struct reload_before *b)
{
	unsigned before = b->last_number;
	bool queued_before = s->queued.config == b->queued;
	_cleanup_free_ char *message = NULL;

	if (b->asked)
		waiter_follow_asked(w, s, b->asked, false);
	else if (s->core.last_number > before)
		waiter_follow_generation(w, s, before + 1, false);
	else if (s->queued.config && !queued_before)
		waiter_follow_queued(w, s, false);
	else if (rollout_is_open(&s->core.rollout))
		waiter_fail(w, "RolloutInProgress", in_progress(s));
	else {
		message = xasprintf(
			"%s: the upgrade could not begin; the daemon's log says why", s->name);
		waiter_fail(w, "Failed",
			json_pack("{s:s}", "message", message ? message : "out of memory"));
	}
}

static struct reload_before *look_before(const struct manager *m)
{
	struct reload_before *list = calloc(m->n_services + 1, sizeof(*list));

	for (size_t i = 0; list && i < m->n_services; i++) {
		const struct manager_service *s = m->services[i];

		list[i] = (struct reload_before){
			s, s->core.last_number, s->queued.config, asked_find(s, m->request)};
	}
	return list;
}

static const struct reload_before *before_of(
	const struct reload_before *list, const struct manager_service *s)
{
	static const struct reload_before none;

	while (list->s && list->s != s)
		list++;
	return list->s ? list : &none;
}

static int reload_from(struct manager *m, struct control_call *call, struct config **config,
	bool upgrade_all, const struct reload_before *before)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct plan plan = {0};
	struct waiter *w;
	int r;

	r = manager_reload(m, config, upgrade_all, control_call_peer_text(call), &plan, &error);
	unit_reloaded(m->unit, r < 0 ? error_message(&error) : NULL);
	if (r < 0) {
		plan_done(&plan);
		return control_call_failed(call, "%s; nothing was changed", error_message(&error));
	}
	for (size_t i = 0; i < plan.n; i++) {
		const struct manager_service *s = manager_find(m, plan.entries[i].service);

		if (s && before_of(before, s)->asked)
			plan.entries[i].action = PLAN_UPGRADE;
	}
	w = waiter_new(m, call, control_json_changes(&plan));
	for (size_t i = 0; i < plan.n; i++) {
		const struct plan_entry *e = &plan.entries[i];
		struct manager_service *s = manager_find(m, e->service);

		if (s && (e->action == PLAN_UPGRADE ||
				 (e->action == PLAN_ADD && e->new_config->autostart)))
			follow_reloaded(w, s, before_of(before, s));
	}
	waiter_end(w);
	plan_done(&plan);
	return 0;
}

/* There is no file to read again: a reload is the wish for what is on disk now. */
static int reload_without_file(
	struct manager *m, struct control_call *call, const struct reload_before *before)
{
	struct request_options o = {.requested_by = control_call_peer_text(call)};
	json_t *changes = json_array();
	struct waiter *w;

	for (size_t i = 0; changes && i < m->n_services; i++)
		if (m->services[i]->core.wanted)
			json_array_append_new(changes,
				json_pack("{s:s, s:s, s:[s]}", "service", m->services[i]->name,
					"action", "upgrade", "reasons", "as asked"));
	w = waiter_new(m, call, changes);
	for (size_t i = 0; i < m->n_services; i++) {
		_cleanup_error_ struct error error = ERROR_NULL;
		struct manager_service *s = m->services[i];
		const struct reload_before *b = before_of(before, s);
		int r;

		if (!s->core.wanted)
			continue;
		r = b->asked ? 0 : manager_service_upgrade(s, NULL, &o, &error);
		if (r < 0)
			waiter_fail(w, "Failed",
				json_pack("{s:o}", "message",
					control_json_text(error_message(&error))));
		else
			follow_reloaded(w, s, b);
	}
	waiter_end(w);
	return 0;
}

static int method_reload(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	_cleanup_config_ struct config *config = NULL;
	_cleanup_problems_ struct config_problems problems = {0};
	_cleanup_free_ struct reload_before *before = look_before(m);

	(void)s;
	if (!before)
		return -ENOMEM;
	if (!m->config_path) {
		log_notice("reload asked for by %s", control_call_peer_text(call));
		return reload_without_file(m, call, before);
	}
	unit_reloading(m->unit);
	if (manager_read_config(m, &config, &problems, &error) < 0) {
		unit_reloaded(m->unit, error_message(&error));
		log_notice(
			"reload asked for by %s: the configuration is invalid, nothing was changed",
			control_call_peer_text(call));
		return control_invalid_configuration(m, call, &problems, &error);
	}
	return reload_from(
		m, call, &config, json_is_true(json_object_get(parameters, "upgrade")), before);
}

static int method_reexec(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	(void)s;
	(void)parameters;
	log_notice("replacement of this program asked for by %s", control_call_peer_text(call));
	return reexec_request(m, call);
}

const struct control_method control_changes[] = {
	{"Upgrade",  CONTROL_OPERATOR, method_upgrade },
	{"Promote",  CONTROL_OPERATOR, method_promote },
	{"Pause",	  CONTROL_OPERATOR, method_pause	},
	{"Rollback", CONTROL_OPERATOR, method_rollback},
	{"Abort",	  CONTROL_OPERATOR, method_abort	},
	{"Scale",	  CONTROL_OPERATOR, method_scale	},
	{"Restart",  CONTROL_OPERATOR, method_restart },
	{"Start",	  CONTROL_OPERATOR, method_start	},
	{"Stop",	 CONTROL_OPERATOR, method_stop    },
	{"Adopt",	  CONTROL_OPERATOR, method_adopt	},
	{"Take",	 CONTROL_OPERATOR, control_take   },
	{"Reload",   CONTROL_OPERATOR, method_reload  },
	{"Reexec",   CONTROL_OPERATOR, method_reexec  },
};
const size_t n_control_changes = ARRAY_SIZE(control_changes);

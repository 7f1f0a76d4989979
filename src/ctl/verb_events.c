/* SPDX-License-Identifier: Apache-2.0 */
/* events: what happened, and what happens. wait: until a service has come to rest. */
#include <poll.h>

#include "base/parse.h"
#include "ctl/context.h"
#include "ctl/problem.h"
#include "ctl/text.h"

/* An event may be lost between two daemons, or not be worth one: look again after that time. */
#define LOOK_AGAIN_USEC USEC_PER_SEC

struct watch {
	struct context *context;
	struct client client;
	int signal_fd;
	long long sequence; /* of the event last shown; negative: none yet */
	uint64_t from_usec; /* older ones are left out */
	bool comes_back;    /* when the daemon is gone, see whether another one comes */
	bool lost;	    /* it is gone */
	bool came_back;	    /* nothing was shown since */
};

static void watch_done(struct watch *w)
{
	client_done(&w->client);
	close_fd(w->signal_fd);
}

/* "2026-05-01 10:02:03.123 web.8.0 worker-ready   message". The caller frees. */
static char *event_line(const struct output *o, const json_t *event)
{
	const char *service = field_text(event, "service");
	char at[TEXT_TIME_MAX], generation[24] = "", worker[24] = "";
	_cleanup_free_ char *who = NULL, *line = NULL;
	const char *message = field_text_or(event, "message", ""), *rest;

	if (service && !field_null(event, "generation"))
		snprintf(
			generation, sizeof(generation), ".%lld", field_int(event, "generation", 0));
	if (*generation && !field_null(event, "worker"))
		snprintf(worker, sizeof(worker), ".%lld", field_int(event, "worker", 0));
	/* Who it is about stands before it already. */
	rest = service ? startswith(message, service) : NULL;
	rest = rest ? startswith(rest, ": ") : NULL;
	who = xasprintf("%s%s%s", service ? service : "-", generation, worker);
	line = xasprintf("%s  %-12s  %-20s  %s", text_time(field_usec(event, "atUsec"), true, at),
		who ? who : "?", field_text_or(event, "event", "?"), rest ? rest : message);
	return line ? text_safe(line, o->utf8) : NULL;
}

static void show_events(struct watch *w, json_t *reply)
{
	struct output *o = &w->context->output;
	const json_t *events = json_object_get(reply, "events");
	json_t *event;
	size_t i;

	json_array_foreach (events, i, event) {
		_cleanup_free_ char *line = event_line(o, event);
		long long sequence = field_int(event, "sequence", -1);

		/* Another daemon begins with numbers that cannot have been used. */
		if (w->came_back)
			output_remark(o, "(the daemon was started again)");
		/* With a service named, the others' events are no gap. */
		else if (w->sequence >= 0 && sequence > w->sequence + 1 &&
			 strv_length(w->context->options->args) == 0)
			output_remark(o, "(%lld events were dropped)", sequence - w->sequence - 1);
		w->came_back = false;
		w->sequence = sequence;
		if (line && field_usec(event, "atUsec") >= w->from_usec)
			output_record(o, event, line);
	}
}

/* Call Events. history: what is still kept too. */
static int subscribe(struct watch *w, const char *service, bool more, bool history, uint64_t since)
{
	_cleanup_json_ json_t *parameters = json_object();
	int r;

	if (parameters && service)
		json_object_set_new(parameters, "service", json_string(service));
	if (parameters && history)
		json_object_set_new(parameters, "since", json_integer((json_int_t)since));
	if (!parameters)
		return context_out_of_memory(w->context);
	r = context_connect(w->context, &w->client);
	if (r != EXIT_DONE)
		return r;
	r = client_send(
		&w->client, CLIENT_INTERFACE "Events", parameters, more, CONTEXT_ANSWER_USEC);
	return r < 0 ? context_lost(w->context, "events", r) : EXIT_DONE;
}

/* Wait for replies, ^C or the moment. *ret_ended: the replies are over. Returns EXIT_DONE (go on),
 * EXIT_INTERRUPTED, or what went wrong. */
static int watch_replies(struct watch *w, uint64_t until_usec,
	void (*show)(struct watch *w, json_t *reply), bool *ret_ended)
{
	uint64_t now = text_monotonic_usec(), left = until_usec > now ? until_usec - now : 0;
	struct pollfd polled[] = {
		{.fd = w->client.fd, .events = POLLIN},
		{.fd = w->signal_fd, .events = POLLIN}
	      };
	int r;

	if (!varlink_framing_ready(&w->client.in) &&
		poll(polled, ARRAY_SIZE(polled),
			until_usec == USEC_INFINITY
				? -1
				: (int)MIN((left + USEC_PER_MSEC - 1) / USEC_PER_MSEC,
					  (uint64_t)1000 * 1000)) < 0 &&
		errno != EINTR)
		return problem_local(&w->context->output, EXIT_FAILED, "poll: %s", strerror(errno));
	if (context_take_signal(w->signal_fd) > 0)
		return EXIT_INTERRUPTED;
	for (;;) {
		_cleanup_varlink_reply_ struct varlink_reply reply = {0};

		r = client_take(&w->client, &reply);
		if (r == 0)
			return EXIT_DONE;
		if (context_is_gone(r) && w->comes_back) {
			w->lost = true;
			return EXIT_DONE;
		}
		if (r < 0)
			return context_lost(w->context, "events", r);
		if (reply.error)
			return problem_report(
				&w->context->output, NULL, reply.error, reply.parameters);
		if (show)
			show(w, reply.parameters);
		if (!reply.continues) {
			*ret_ended = true;
			return EXIT_DONE;
		}
	}
}

/* The daemon was killed. Where a keeper has the control socket, the next one answers there; what it
 * does not know is lost, what it knows is not. */
static int come_back(struct watch *w, const char *what, const char *service, uint64_t until_usec)
{
	uint64_t until = MIN(text_monotonic_usec() + CONTEXT_RETURN_USEC, until_usec);
	struct pollfd wait = {.fd = w->signal_fd, .events = POLLIN};
	int r;

	client_done(&w->client);
	do {
		r = client_connect(w->context->socket, &w->client);
		if (r >= 0) {
			client_done(&w->client);
			w->lost = false;
			w->came_back = w->sequence >= 0;
			return subscribe(w, service, true, w->sequence >= 0,
				w->sequence >= 0 ? (uint64_t)w->sequence : 0);
		}
		(void)poll(&wait, 1, (int)(CONTEXT_RETURN_EVERY_USEC / USEC_PER_MSEC));
		if (context_take_signal(w->signal_fd) > 0)
			return EXIT_INTERRUPTED;
	} while (text_monotonic_usec() < until);
	return context_not_back(w->context, what);
}

int verb_events(struct context *context)
{
	const struct options *o = context->options;
	_cleanup_(watch_done) struct watch w = {
		.context = context, .client = CLIENT_NULL, .signal_fd = -1, .sequence = -1};
	uint64_t now = text_now_usec();
	bool ended = false;
	int r;

	if (o->since_usec != USEC_INFINITY)
		w.from_usec = now > o->since_usec ? now - o->since_usec : 0;
	w.signal_fd = context_signals();
	w.comes_back = o->follow;
	r = subscribe(&w, o->args ? o->args[0] : NULL, o->follow, !o->follow || o->since_given,
		o->since_sequence);
	while (r == EXIT_DONE && !ended) {
		r = watch_replies(&w, USEC_INFINITY, show_events, &ended);
		if (w.lost)
			r = come_back(&w, "events", o->args ? o->args[0] : NULL, USEC_INFINITY);
	}
	return r;
}

enum rest {
	AT_REST,
	NOT_YET,
	NEVER, /* it is stopped, and nobody will start it */
};

static enum rest look(const json_t *service)
{
	const char *state = field_text_or(service, "state", "");

	if (streq(state, "stopped"))
		return NEVER;
	if (json_is_object(json_object_get(service, "rollout")) || field_true(service, "queued"))
		return NOT_YET;
	return streq(state, "serving") && field_true(service, "healthy") ? AT_REST : NOT_YET;
}

/* All the services named at once. *ret: the worst. */
static int look_at_all(struct context *context, enum rest *ret, const char **ret_service)
{
	*ret = AT_REST;
	for (char **arg = context->options->args; *arg; arg++) {
		_cleanup_json_ json_t *reply = NULL;
		enum rest rest;
		int r = context_call_take(
			context, "List", json_pack("{s:s}", "service", *arg), *arg, &reply);

		if (r != EXIT_DONE)
			return r;
		rest = look(json_array_get(json_object_get(reply, "services"), 0));
		if (rest > *ret) {
			*ret = rest;
			*ret_service = *arg;
		}
	}
	return EXIT_DONE;
}

int verb_wait(struct context *context)
{
	uint64_t timeout = context->options->timeout_usec;
	uint64_t deadline = usec_add(text_monotonic_usec(), timeout);
	_cleanup_(watch_done) struct watch w = {
		.context = context, .client = CLIENT_NULL, .signal_fd = -1, .sequence = -1};
	struct output *o = &context->output;
	_cleanup_free_ char *limit = format_duration(timeout);
	bool ended = false;
	int r;

	w.signal_fd = context_signals();
	w.comes_back = true;
	/* Before the first look, so that what happens after it is told. */
	r = subscribe(&w, NULL, true, false, 0);
	while (r == EXIT_DONE) {
		const char *service = NULL;
		enum rest rest;
		uint64_t now;

		r = look_at_all(context, &rest, &service);
		if (r != EXIT_DONE || rest == AT_REST)
			return r;
		if (rest == NEVER)
			return problem_local(o, EXIT_FAILED,
				"%s is stopped; `tenurectl start %s` starts it", service, service);
		now = text_monotonic_usec();
		if (now >= deadline)
			return problem_local(o, EXIT_TIMED_OUT,
				"timed out after %s: %s is not at rest yet; see `tenurectl status "
				"%s`",
				limit ? limit : "?", service, service);
		if (ended)
			return context_lost(context, "wait", -ECONNRESET);
		r = watch_replies(&w, MIN(deadline, now + LOOK_AGAIN_USEC), NULL, &ended);
		if (r == EXIT_DONE && w.lost)
			r = come_back(&w, "wait", NULL, deadline);
	}
	return r;
}

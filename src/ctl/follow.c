/* SPDX-License-Identifier: Apache-2.0 */
/* Each call has a connection of its own, for replies to several calls on one come one call after
 * the other. All are polled together with the signals and the clock. */
#include "ctl/follow.h"

#include <poll.h>

#include "base/parse.h"
#include "ctl/problem.h"
#include "ctl/progress.h"
#include "ctl/text.h"

#define REDRAW_USEC (200 * USEC_PER_MSEC)

struct pursuit {
	struct client client;
	bool running;
	uint64_t gone_usec; /* since when there is no daemon that answers; 0: there is one */
	uint64_t next_usec; /* when the next one is looked for */
	int code;	    /* exit code, once it is not running */
	int lost;	    /* -errno when the connection broke */
	/* The error, said when the live display is at its end. */
	struct varlink_reply failure;
};

struct chase {
	struct context *context;
	const struct follow *follow;
	struct pursuit *pursuits; /* as many as calls */
	struct progress progress;
	struct pollfd *polled; /* one each, and the signals */
	int signal_fd;
	uint64_t deadline_usec;
	bool aborting;
	int left; /* exit code when the user or the time limit ended it; EXIT_DONE: not */
};

void follow_done(struct follow *f)
{
	for (size_t i = 0; i < f->n_calls; i++)
		json_decref(f->calls[i].parameters);
	free(f->calls);
	f->calls = NULL;
	f->n_calls = 0;
}

int follow_services(struct follow *f, struct context *context)
{
	char **args = context->options->args;
	size_t n = strv_length(args);

	f->calls = calloc(MAX(n, (size_t)1), sizeof(f->calls[0]));
	if (!f->calls)
		return -ENOMEM;
	for (; f->n_calls < n; f->n_calls++) {
		struct follow_call *call = &f->calls[f->n_calls];

		call->service = args[f->n_calls];
		call->parameters = json_pack("{s:s}", "service", call->service);
		if (!call->parameters)
			return -ENOMEM;
	}
	return 0;
}

static void chase_done(struct chase *c)
{
	for (size_t i = 0; c->pursuits && i < c->follow->n_calls; i++) {
		client_done(&c->pursuits[i].client);
		varlink_reply_done(&c->pursuits[i].failure);
	}
	free(c->pursuits);
	free(c->polled);
	progress_done(&c->progress);
	close_fd(c->signal_fd);
}

/* Without waiting: what the daemon answers when it has accepted. */
static int run_detached(struct follow *f, struct context *context)
{
	int code = EXIT_DONE;

	for (size_t i = 0; i < f->n_calls; i++) {
		const struct follow_call *call = &f->calls[i];
		_cleanup_progress_ struct progress progress = {0};
		_cleanup_json_ json_t *reply = NULL;
		const json_t *told;
		int r;

		r = context_call_take(
			context, f->method, json_incref(call->parameters), call->service, &reply);
		if (r != EXIT_DONE) {
			code = code == EXIT_DONE ? r : code;
			continue;
		}
		if (progress_init(&progress, &context->output, false, 1) < 0)
			return context_out_of_memory(context);
		progress.rows[0].service = call->service;
		told = json_object_get(reply, "progress");
		if (json_is_object(told))
			progress_tell(&progress, 0, told);
		if (f->answer)
			f->answer(context, reply);
	}
	return code;
}

static void end_pursuit(struct chase *c, size_t i, int code)
{
	struct pursuit *p = &c->pursuits[i];

	p->running = false;
	p->code = code;
	client_done(&p->client);
	progress_end(&c->progress, i, code == EXIT_DONE ? PROGRESS_DONE : PROGRESS_FAILED);
}

static void say_failure(struct chase *c, size_t i)
{
	const char *service = c->follow->calls[i].service;
	struct pursuit *p = &c->pursuits[i];

	if (p->failure.error)
		problem_report(
			&c->context->output, service, p->failure.error, p->failure.parameters);
	else if (context_is_gone(p->lost))
		p->code = context_not_back(c->context, service ? service : c->follow->noun);
	else if (p->lost < 0)
		p->code = context_lost(c->context, service ? service : c->follow->noun, p->lost);
}

static void take_reply(struct chase *c, size_t i, struct varlink_reply *reply)
{
	const json_t *told = json_object_get(reply->parameters, "progress");

	c->pursuits[i].gone_usec = 0;
	if (reply->error) {
		c->pursuits[i].failure = *reply;
		*reply = (struct varlink_reply){0};
		end_pursuit(c, i, problem_exit_code(c->pursuits[i].failure.error));
		if (!c->progress.live)
			say_failure(c, i);
		return;
	}
	if (json_is_object(told))
		progress_tell(&c->progress, i, told);
	if (reply->continues)
		return;
	end_pursuit(c, i, EXIT_DONE);
	if (c->follow->answer)
		c->follow->answer(c->context, reply->parameters);
}

static void give_up(struct chase *c, size_t i, int r)
{
	c->pursuits[i].lost = r;
	end_pursuit(c, i, EXIT_FAILED);
	if (!c->progress.live)
		say_failure(c, i);
}

/* What goes on is told by whoever goes on with it. */
static void lose(struct chase *c, size_t i)
{
	_cleanup_json_ json_t *told = NULL;
	struct pursuit *p = &c->pursuits[i];

	client_done(&p->client);
	p->next_usec = text_monotonic_usec() + CONTEXT_RETURN_EVERY_USEC;
	if (p->gone_usec != 0)
		return;
	p->gone_usec = text_monotonic_usec();
	told = json_pack("{s:s, s:n, s:b, s:n}", "message",
		"tenured is gone; waiting for the next one", "rollout", "done", 0, "generation");
	if (told)
		progress_tell(&c->progress, i, told);
}

static int send_call(struct chase *c, size_t i)
{
	const struct follow *f = c->follow;
	_cleanup_free_ char *name = xasprintf(CLIENT_INTERFACE "%s", f->method);

	return name ? client_send(&c->pursuits[i].client, name, f->calls[i].parameters, true,
			      CONTEXT_ANSWER_USEC)
		    : -ENOMEM;
}

static void take_replies(struct chase *c, size_t i)
{
	while (c->pursuits[i].running && c->pursuits[i].client.fd >= 0) {
		_cleanup_varlink_reply_ struct varlink_reply reply = {0};
		int r = client_take(&c->pursuits[i].client, &reply);

		if (r == 0)
			return;
		if (r > 0) {
			take_reply(c, i, &reply);
			continue;
		}
		if (context_is_gone(r)) {
			lose(c, i);
			return;
		}
		give_up(c, i, r);
	}
}

/* Is there another daemon? It is asked again for the same. */
static void seek(struct chase *c, size_t i)
{
	const struct follow *f = c->follow;
	struct pursuit *p = &c->pursuits[i];
	int r;

	if (!p->running || p->gone_usec == 0)
		return;
	if (text_monotonic_usec() >= p->gone_usec + CONTEXT_RETURN_USEC) {
		give_up(c, i, -ECONNRESET);
		return;
	}
	if (p->client.fd >= 0 || text_monotonic_usec() < p->next_usec)
		return;
	p->next_usec = text_monotonic_usec() + CONTEXT_RETURN_EVERY_USEC;
	if (client_connect(c->context->socket, &p->client) < 0)
		return;
	r = context_ask_again(f->calls[i].parameters);
	if (r >= 0)
		r = send_call(c, i);
	if (context_is_gone(r))
		lose(c, i);
	else if (r < 0)
		give_up(c, i, r);
}

static bool is_running(const struct chase *c)
{
	for (size_t i = 0; i < c->follow->n_calls; i++)
		if (c->pursuits[i].running)
			return true;
	return false;
}

/* Stop looking, without stopping what is looked at. */
static void leave(struct chase *c, int code)
{
	struct output *o = &c->context->output;
	const struct follow *f = c->follow;
	_cleanup_free_ char *limit = format_duration(c->context->options->timeout_usec);
	bool late = code == EXIT_TIMED_OUT;

	c->left = code;
	for (size_t i = 0; i < f->n_calls; i++) {
		if (c->pursuits[i].running)
			progress_end(&c->progress, i, PROGRESS_LEFT);
	}
	for (size_t i = 0; i < f->n_calls; i++) {
		_cleanup_free_ char *service = text_safe(f->calls[i].service, o->utf8);
		bool named = service && *service;

		if (!c->pursuits[i].running)
			continue;
		c->pursuits[i].running = false;
		c->pursuits[i].code = code;
		problem_local(o, code,
			"%s%s, but the %s%s%s goes on; see `tenurectl status%s%s`%s%s%s",
			late ? "timed out after " : "interrupted", late && limit ? limit : "",
			f->noun, named ? " of " : "", named ? service : "", named ? " " : "",
			named ? service : "",
			f->abortable && named ? ", end it with `tenurectl abort " : "",
			f->abortable && named ? service : "", f->abortable && named ? "`" : "");
	}
}

static void abort_all(struct chase *c)
{
	c->aborting = true;
	for (size_t i = 0; i < c->follow->n_calls; i++) {
		const char *service = c->follow->calls[i].service;

		if (!c->pursuits[i].running)
			continue;
		/* A failure is said; the call that is followed ends by itself or by another ^C. */
		if (context_call_take(c->context, "Abort", json_pack("{s:s}", "service", service),
			    service, NULL) != EXIT_DONE)
			c->progress.n_drawn = 0;
		else if (!c->progress.live)
			output_remark(&c->context->output,
				"%s: interrupted, aborting; ^C again leaves it alone", service);
	}
}

static void take_signals(struct chase *c)
{
	while (context_take_signal(c->signal_fd) > 0) {
		if (c->context->options->abort_on_interrupt && c->follow->abortable && !c->aborting)
			abort_all(c);
		else if (is_running(c))
			leave(c, EXIT_INTERRUPTED);
	}
}

static int poll_timeout_msec(const struct chase *c)
{
	uint64_t now = text_monotonic_usec(), wait = USEC_INFINITY;

	if (c->deadline_usec != USEC_INFINITY)
		wait = c->deadline_usec > now ? c->deadline_usec - now : 0;
	if (c->progress.live)
		wait = MIN(wait, REDRAW_USEC);
	for (size_t i = 0; i < c->follow->n_calls; i++)
		if (c->pursuits[i].running && c->pursuits[i].gone_usec != 0)
			wait = MIN(wait, CONTEXT_RETURN_EVERY_USEC);
	return wait == USEC_INFINITY ? -1
				     : (int)MIN((wait + USEC_PER_MSEC - 1) / USEC_PER_MSEC,
					       (uint64_t)1000 * 1000);
}

static int watch(struct chase *c)
{
	size_t n = c->follow->n_calls;

	while (is_running(c)) {
		for (size_t i = 0; i < n; i++)
			c->polled[i] = (struct pollfd){
				.fd = c->pursuits[i].running ? c->pursuits[i].client.fd : -1,
				.events = POLLIN};
		c->polled[n] = (struct pollfd){.fd = c->signal_fd, .events = POLLIN};
		if (poll(c->polled, n + 1, poll_timeout_msec(c)) < 0 && errno != EINTR)
			return -errno;
		/* What has ended has ended, also if ^C came in the same moment. */
		for (size_t i = 0; i < n; i++) {
			take_replies(c, i);
			seek(c, i);
		}
		take_signals(c);
		if (is_running(c) && text_monotonic_usec() >= c->deadline_usec)
			leave(c, EXIT_TIMED_OUT);
		progress_draw(&c->progress);
	}
	return 0;
}

static int begin(struct chase *c)
{
	const struct follow *f = c->follow;
	int r;

	for (size_t i = 0; i < f->n_calls; i++) {
		struct pursuit *p = &c->pursuits[i];

		r = context_connect(c->context, &p->client);
		if (r != EXIT_DONE)
			return r;
		p->running = true;
		r = send_call(c, i);
		if (context_is_gone(r))
			lose(c, i);
		else if (r < 0)
			return context_lost(c->context, f->method, r);
	}
	return EXIT_DONE;
}

static int prepare(struct chase *c)
{
	const struct follow *f = c->follow;
	uint64_t timeout = c->context->options->timeout_usec;
	bool live = true;
	int r;

	c->pursuits = calloc(f->n_calls, sizeof(c->pursuits[0]));
	c->polled = calloc(f->n_calls + 1, sizeof(c->polled[0]));
	if (!c->pursuits || !c->polled)
		return -ENOMEM;
	for (size_t i = 0; i < f->n_calls; i++) {
		c->pursuits[i].client = CLIENT_NULL;
		live = live && f->calls[i].service;
		r = f->calls[i].parameters ? context_name_request(f->calls[i].parameters) : -ENOMEM;
		if (r < 0)
			return r;
	}
	r = progress_init(&c->progress, &c->context->output, live, f->n_calls);
	if (r < 0)
		return r;
	for (size_t i = 0; i < f->n_calls; i++)
		c->progress.rows[i].service = f->calls[i].service;
	c->deadline_usec = usec_add(text_monotonic_usec(), timeout);
	c->signal_fd = context_signals();
	return c->signal_fd < 0 ? c->signal_fd : 0;
}

int follow_run(struct follow *f, struct context *context)
{
	_cleanup_(chase_done) struct chase c = {
		.context = context, .follow = f, .signal_fd = -1, .left = EXIT_DONE};
	int r;

	if (context->options->detach)
		return run_detached(f, context);
	r = prepare(&c);
	if (r < 0)
		return problem_local(&context->output, EXIT_FAILED, "%s", strerror(-r));
	r = begin(&c);
	if (r != EXIT_DONE)
		return r;
	progress_draw(&c.progress);
	r = watch(&c);
	if (r < 0)
		return problem_local(&context->output, EXIT_FAILED, "poll: %s", strerror(-r));
	for (size_t i = 0; c.progress.live && i < f->n_calls; i++)
		say_failure(&c, i);
	if (c.aborting)
		return EXIT_INTERRUPTED;
	if (c.left != EXIT_DONE)
		return c.left;
	for (size_t i = 0; i < f->n_calls; i++)
		if (c.pursuits[i].code != EXIT_DONE)
			return c.pursuits[i].code;
	return EXIT_DONE;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/verify.h"

#include <signal.h>

#include "base/parse.h"
#include "base/utf8.h"
#include "daemon/check_command.h"
#include "daemon/check_http.h"
#include "daemon/log.h"
#include "daemon/output.h"
#include "daemon/worker_process.h"

enum { REPLY_KEPT = 8 << 10 };
/* Rules for sources are few, and others may have them just now. */
#define BEGIN_AGAIN_USEC (10 * USEC_PER_MSEC)
/* The status decides; who answered it may take so long for the rest, which is only for the message.
 */
#define REST_USEC (200 * USEC_PER_MSEC)

struct verify {
	struct manager_service *service;
	unsigned generation, run;
	struct snapshot *snapshot; /* owns config */
	const struct verify_config *config;
	uint64_t end_usec;
	sd_event_source *timer; /* what is next: begin, try again, the rest of the reply, the end */
	bool begun;
	struct http_check page;
	sd_event_source *io;
	struct command_check command;
	sd_event_source *exit;
	struct output *output;
};

static sd_event_source *source_drop(sd_event_source *source)
{
	if (source)
		sd_event_source_disable_unref(source);
	return NULL;
}

void verify_stop(struct manager_service *s)
{
	struct verify *v = s->verify;

	if (!v)
		return;
	s->verify = NULL;
	source_drop(v->timer);
	source_drop(v->io);
	source_drop(v->exit);
	http_check_done(&v->page);
	command_check_end(&v->command);
	output_free(v->output);
	snapshot_unref(v->snapshot);
	free(v);
}

pid_t verify_command(const struct manager_service *s)
{
	return s->verify ? s->verify->command.pid : 0;
}

void verify_look_again(struct manager_service *s, pid_t pid)
{
	if (s->verify && s->verify->exit && s->verify->command.pid == pid)
		source_look_again(s->verify->exit);
}

bool verify_is_of(const struct manager_service *s, unsigned generation)
{
	return s->verify && s->verify->generation == generation;
}

/* --- the end -------------------------------------------------------------- */

static void end(struct verify *v, bool good)
{
	struct manager_service *s = v->service;
	struct service_event e = {.kind = good ? EVENT_VERIFIED : EVENT_VERIFY_FAILED,
		.generation = v->generation,
		.worker = NO_WORKER,
		.value = v->run};

	verify_stop(s);
	(void)manager_service_event(s, &e);
}

/* Takes all three; each may be NULL. */
static void fail(struct verify *v, char *reason, char *status, char *output)
{
	manager_service_note_check(v->service, v->generation, reason, status, output);
	end(v, false);
}

/* When the timer is to come, at the end of the whole run at the latest. */
static int arm(struct verify *v, uint64_t in_usec)
{
	uint64_t now = manager_now(v->service->manager);
	int r = sd_event_source_set_time(v->timer, MIN(now + in_usec, v->end_usec));

	return r < 0 ? r : sd_event_source_set_enabled(v->timer, SD_EVENT_ONESHOT);
}

/* --- a page --------------------------------------------------------------- */

/* What follows the head, cleaned for people, line by line. NULL: nothing. */
static char *body_of(const char *reply)
{
	enum { LINE_MAX_PRINTED = 500 };
	const char *line = strstr(reply, "\r\n\r\n");
	_cleanup_free_ char *all = NULL;

	line = line ? line + 4 : "";
	for (unsigned n = 0; *line && n < FAILURE_TAIL_LINES; n++) {
		size_t len = strcspn(line, "\r\n");
		_cleanup_free_ char *clean = utf8_printable(line, len, LINE_MAX_PRINTED);
		char *longer = clean ? xasprintf("%s%s\n", all ? all : "", clean) : NULL;

		if (!longer)
			break;
		free(all);
		all = longer;
		line += len;
		line += line[0] == '\r' && line[1] == '\n' ? 2 : *line != '\0';
	}
	return TAKE_PTR(all);
}

static void judge_page(struct verify *v)
{
	_cleanup_free_ char *want = NULL;
	char *status;
	unsigned code = v->config->status;

	if (http_check_is_good(&v->page, code)) {
		end(v, true);
		return;
	}
	want = code ? xasprintf("%u", code) : strdup("a status below 400");
	status = strndup(v->page.reply, MIN(strcspn(v->page.reply, "\r\n"), (size_t)100));
	fail(v,
		xasprintf("its page %s answered %d, not %s", v->config->path, v->page.status,
			want ? want : "what was asked for"),
		status, body_of(v->page.reply));
}

static void page_failed(struct verify *v, int r)
{
	fail(v,
		r == -ETIMEDOUT ? xasprintf("its page %s did not answer in time", v->config->path)
		: r == -EPIPE	? xasprintf("its page %s: the connection was closed without an "
					      "answer",
					  v->config->path)
		: r == -EBADMSG
			? xasprintf("its page %s answered what is not HTTP", v->config->path)
			: xasprintf(
				  "its page %s did not answer: %s", v->config->path, strerror(-r)),
		NULL, NULL);
}

static int on_page(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct verify *v = userdata;
	bool had_status = v->page.status != 0;
	int r = http_check_step(&v->page);

	(void)fd;
	(void)revents;
	if (v->page.sent)
		(void)sd_event_source_set_io_events(source, EPOLLIN);
	if (r == HTTP_CHECK_STATUS && !had_status)
		(void)arm(v, REST_USEC);
	else if (r == HTTP_CHECK_END)
		judge_page(v);
	else if (r < 0)
		page_failed(v, r);
	return 0;
}

/* With sockets of their own, another worker is asked in each run. */
static unsigned slot_of(const struct verify *v, const struct generation *g)
{
	unsigned n = 0, k;

	for (unsigned i = 0; i < g->n_workers; i++)
		n += g->workers[i].state == WORKER_READY;
	k = n > 0 ? v->run % n : 0;
	for (unsigned i = 0; i < g->n_workers; i++)
		if (g->workers[i].state == WORKER_READY && k-- == 0)
			return i;
	return LISTENER_ANY_SLOT;
}

static int begin_page(struct verify *v)
{
	struct manager_service *s = v->service;
	const struct generation *core = service_generation(&s->core, v->generation);
	const struct manager_generation *g = manager_service_generation(s, v->generation);
	struct listener *l = g ? http_check_listener(s, g->listeners) : NULL;
	int r;

	if (!core || core->lane == LANE_NONE)
		return -ESRCH;
	if (!l)
		return -EADDRNOTAVAIL;
	r = http_check_begin(
		&v->page, l, core->lane, slot_of(v, core), v->config->path, REPLY_KEPT);
	if (r == -ENOSPC)
		return arm(v, BEGIN_AGAIN_USEC);
	if (r >= 0)
		r = sd_event_add_io(s->manager->event, &v->io, v->page.probe.fd, EPOLLIN | EPOLLOUT,
			on_page, v);
	if (r >= 0)
		r = sd_event_source_set_priority(v->io, PRIORITY_TIMER);
	if (r < 0)
		return r;
	v->begun = true;
	return arm(v, USEC_INFINITY / 2);
}

/* --- a command ------------------------------------------------------------ */

static char *with_preview(const char *word, const char *from)
{
	static const char mark[] = "{preview}";
	char *all = strdup(word), *at;

	while (all && from && (at = strstr(all, mark))) {
		char *longer = xasprintf("%.*s%s%s", (int)(at - all), all, from, at + strlen(mark));

		free(all);
		all = longer;
	}
	return all;
}

static char *command_output(struct verify *v)
{
	if (!v->output)
		return NULL;
	output_catch_up(v->output);
	return output_tail(v->output, FAILURE_TAIL_LINES);
}

static int on_exit_event(sd_event_source *source, const siginfo_t *si, void *userdata)
{
	struct verify *v = userdata;
	const char *program = v->config->command[0];
	char *how;

	(void)source;
	if (si->si_code == CLD_EXITED && si->si_status == 0) {
		end(v, true);
		return 0;
	}
	how = worker_exit_to_string(si->si_code, si->si_status);
	fail(v, xasprintf("the command %s ended with %s", program, how ? how : "an error"), how,
		command_output(v));
	return 0;
}

static int watch_command(struct verify *v)
{
	int r = sd_event_add_child_pidfd(
		v->service->manager->event, &v->exit, v->command.pidfd, WEXITED, on_exit_event, v);

	return r < 0 ? r : sd_event_source_set_priority(v->exit, PRIORITY_CHILD);
}

static int open_output(struct verify *v, int *ret_fd)
{
	const struct service_config *c = &v->snapshot->config;
	enum output_kind kind = c->output;

	/* What it says is kept for the message, so it cannot have ours. */
	if (!c->output_set || kind == OUTPUT_INHERIT)
		kind = log_is_journal() ? OUTPUT_JOURNAL : OUTPUT_TEE;
	return output_new(v->service->manager->outputs, kind, c->output_file, v->service->name,
		v->generation, NO_WORKER, &v->output, ret_fd, NULL);
}

static int begin_command(struct verify *v)
{
	const char *from = v->service->config->upgrade.preview_from;
	_cleanup_strv_ char **argv = NULL, **environment = NULL;
	_cleanup_close_ int output_fd = -1;
	int r = 0;

	for (size_t i = 0; r >= 0 && v->config->command[i]; i++)
		r = strv_append_take(&argv, with_preview(v->config->command[i], from));
	if (r >= 0)
		r = strv_append_take(
			&environment, xasprintf("TENURE_GENERATION=%u", v->generation));
	if (r >= 0 && from)
		r = strv_append_take(&environment, xasprintf("TENURE_PREVIEW_FROM=%s", from));
	if (r >= 0)
		r = open_output(v, &output_fd);
	if (r >= 0)
		r = command_check_begin(&v->command, v->snapshot, argv, environment,
			v->service->manager->instance, output_fd);
	if (r >= 0)
		r = watch_command(v);
	if (r < 0)
		return r;
	v->begun = true;
	return arm(v, USEC_INFINITY / 2);
}

/* --- a run ---------------------------------------------------------------- */

static void begin(struct verify *v)
{
	int r = v->config->by == VERIFY_HTTP ? begin_page(v) : begin_command(v);

	if (r >= 0)
		return;
	if (v->config->by == VERIFY_HTTP)
		page_failed(v, r);
	else
		fail(v,
			xasprintf("the command %s cannot be run: %s", v->config->command[0],
				strerror(-r)),
			NULL, NULL);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct verify *v = userdata;
	_cleanup_free_ char *span = format_duration(v->config->timeout_usec);

	(void)source;
	(void)usec;
	if (v->page.status != 0)
		judge_page(v);
	else if (!v->begun && manager_now(v->service->manager) < v->end_usec)
		begin(v);
	else if (v->config->by == VERIFY_HTTP)
		fail(v,
			xasprintf("its page %s did not answer within %s", v->config->path,
				span ? span : "its time"),
			NULL, NULL);
	else
		fail(v,
			xasprintf("the command %s was not done within %s", v->config->command[0],
				span ? span : "its time"),
			NULL, command_output(v));
	return 0;
}

void verify_start(struct manager_service *s, unsigned generation, unsigned run)
{
	const struct manager_generation *g = manager_service_generation(s, generation);
	struct verify *v;
	int r;

	verify_stop(s);
	v = g ? calloc(1, sizeof(*v)) : NULL;
	r = v ? 0 : -ENOMEM;
	if (v) {
		*v = (struct verify){.service = s,
			.generation = generation,
			.run = run,
			.snapshot = snapshot_ref(g->snapshot),
			.config = &g->snapshot->config.upgrade.verify,
			.end_usec = manager_now(s->manager) +
				    g->snapshot->config.upgrade.verify.timeout_usec,
			.page = HTTP_CHECK_NULL,
			.command = COMMAND_CHECK_NULL};
		s->verify = v;
		/* From the loop: what it leads to is none of the caller's business. */
		r = sd_event_add_time_relative(
			s->manager->event, &v->timer, CLOCK_MONOTONIC, 0, 1, on_timer, v);
		if (r >= 0)
			r = sd_event_source_set_priority(v->timer, PRIORITY_TIMER);
	}
	if (r >= 0)
		return;
	log_error("%s: generation %u cannot be verified: %s", s->name, generation, strerror(-r));
	verify_stop(s);
	manager_service_queue_event(s, &(struct service_event){.kind = EVENT_VERIFY_FAILED,
					       .generation = generation,
					       .worker = NO_WORKER,
					       .value = run});
}

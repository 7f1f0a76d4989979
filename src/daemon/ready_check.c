/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ready_check.h"

#include <sys/wait.h>

#include "daemon/check_command.h"
#include "daemon/check_http.h"

#define TRY_MOST_USEC (10 * USEC_PER_SEC)

enum { REPLY_KEPT = 255 };

struct ready_check {
	struct worker_process *process;
	const struct manager_generation *generation;
	const struct ready_config *config;
	bool done;
	uint64_t try_started_usec, not_before_usec;
	struct http_check page;
	struct command_check command;
	int last_status; /* HTTP status, or exit status; -errno; 0: nothing yet */
};

int ready_check_new(
	struct worker_process *p, const struct manager_generation *g, struct ready_check **ret)
{
	struct ready_check *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	*c = (struct ready_check){.process = p,
		.generation = g,
		.config = &g->snapshot->config.ready,
		.page = HTTP_CHECK_NULL,
		.command = COMMAND_CHECK_NULL};
	*ret = c;
	return 0;
}

struct ready_check *ready_check_free(struct ready_check *c)
{
	if (!c)
		return NULL;
	http_check_done(&c->page);
	command_check_end(&c->command);
	free(c);
	return NULL;
}

static uint64_t now_of(const struct ready_check *c)
{
	return manager_now(c->process->service->manager);
}

static void try_later(struct ready_check *c, int status)
{
	c->last_status = status;
	http_check_done(&c->page);
	command_check_end(&c->command);
	c->not_before_usec = now_of(c) + MAX(c->config->interval_usec, USEC_PER_MSEC);
}

static int begin_page(struct ready_check *c)
{
	struct manager_service *s = c->process->service;
	const struct generation *core = service_generation(&s->core, c->generation->number);
	struct listener *l = http_check_listener(s, c->generation->listeners);

	if (!l || !core)
		return -ENOENT;
	c->try_started_usec = now_of(c);
	return http_check_begin(
		&c->page, l, core->lane, c->process->index, c->config->path, REPLY_KEPT);
}

static bool page_answers(struct ready_check *c)
{
	int r;

	if (c->page.probe.fd < 0 && begin_page(c) < 0) {
		try_later(c, c->last_status);
		return false;
	}
	r = http_check_step(&c->page);
	if (r == HTTP_CHECK_WAITING) {
		if (now_of(c) - c->try_started_usec > TRY_MOST_USEC)
			try_later(c, -ETIMEDOUT);
		return false;
	}
	if (r < 0 || !http_check_is_good(&c->page, c->config->status)) {
		try_later(c, r < 0 ? r : c->page.status);
		return false;
	}
	http_check_done(&c->page);
	return true;
}

static int begin_command(struct ready_check *c)
{
	char generation[48], worker[32];
	char *const more[] = {generation, worker, NULL};

	snprintf(generation, sizeof(generation), "TENURE_GENERATION=%u", c->generation->number);
	snprintf(worker, sizeof(worker), "TENURE_WORKER=%u", c->process->index);
	c->try_started_usec = now_of(c);
	return command_check_begin(&c->command, c->generation->snapshot, c->config->command, more,
		c->process->service->manager->instance, -1);
}

static bool command_succeeds(struct ready_check *c)
{
	uint64_t most = MIN(c->config->timeout_usec, TRY_MOST_USEC);
	siginfo_t info = {0};
	int r;

	if (c->command.pid == 0) {
		r = begin_command(c);
		if (r < 0)
			try_later(c, r);
		return false;
	}
	if (waitid(P_PID, (id_t)c->command.pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		info.si_pid == 0) {
		if (now_of(c) - c->try_started_usec > most)
			try_later(c, -ETIMEDOUT);
		return false;
	}
	command_check_end(&c->command);
	if (info.si_code == CLD_EXITED && info.si_status == 0)
		return true;
	try_later(c, info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status);
	return false;
}

bool ready_check_step(struct ready_check *c)
{
	if (c->done)
		return true;
	if (c->page.probe.fd < 0 && c->command.pid == 0 && now_of(c) < c->not_before_usec)
		return false;
	c->done = c->config->by == READY_HTTP ? page_answers(c) : command_succeeds(c);
	return c->done;
}

char *ready_check_explain(const struct ready_check *c)
{
	if (c->config->by == READY_HTTP) {
		if (c->last_status > 0)
			return xasprintf(
				"its page %s answered %d", c->config->path, c->last_status);
		return xasprintf("its page %s did not answer%s%s", c->config->path,
			c->last_status ? ": " : "",
			c->last_status ? strerror(-c->last_status) : "");
	}
	if (c->last_status > 0)
		return xasprintf(
			"the check %s ended with status %d", c->config->command[0], c->last_status);
	return xasprintf("the check %s did not succeed%s%s", c->config->command[0],
		c->last_status ? ": " : "", c->last_status ? strerror(-c->last_status) : "");
}

pid_t ready_check_command(const struct ready_check *c)
{
	return c->command.pid;
}

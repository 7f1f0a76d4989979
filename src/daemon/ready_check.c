/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ready_check.h"

#include <ctype.h>
#include <sys/wait.h>

#include "daemon/probe.h"
#include "sys/listen.h"
#include "sys/spawn.h"

#define TRY_MOST_USEC (10 * USEC_PER_SEC)

struct ready_check {
	struct worker_process *process;
	const struct manager_generation *generation;
	const struct ready_config *config;
	bool done;
	uint64_t try_started_usec, not_before_usec;
	/* http */
	struct probe probe;
	bool sent;
	char reply[256];
	size_t n_reply;
	int last_status; /* HTTP status, or exit status; -errno; 0: nothing yet */
	/* exec */
	pid_t pid;
	int pidfd;
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
		.probe = PROBE_NULL,
		.pidfd = -1};
	*ret = c;
	return 0;
}

/* Signal before reaping: until then the group is the command's own. */
static void end_command(struct ready_check *c)
{
	if (c->pid == 0)
		return;
	(void)spawn_signal_group(c->pid, SIGKILL);
	(void)spawn_signal(c->pidfd, SIGKILL);
	/* One that does not die at once is reaped as an orphan: the loop waits for nobody. */
	(void)waitpid(c->pid, NULL, WNOHANG);
	c->pidfd = close_fd(c->pidfd);
	c->pid = 0;
}

struct ready_check *ready_check_free(struct ready_check *c)
{
	if (!c)
		return NULL;
	probe_done(&c->probe);
	end_command(c);
	free(c);
	return NULL;
}

int http_status(const char *data, size_t len)
{
	static const char magic[] = "HTTP/1.";
	size_t n = strlen(magic);

	if (memcmp(data, magic, MIN(len, n)) != 0)
		return -EBADMSG;
	if (len < n + 5)
		return 0;
	if (!isdigit((unsigned char)data[n]) || data[n + 1] != ' ')
		return -EBADMSG;
	for (size_t i = n + 2; i < n + 5; i++)
		if (!isdigit((unsigned char)data[i]))
			return -EBADMSG;
	if (data[n + 2] == '0' || (len > n + 5 && isdigit((unsigned char)data[n + 5])))
		return -EBADMSG;
	return (data[n + 2] - '0') * 100 + (data[n + 3] - '0') * 10 + (data[n + 4] - '0');
}

static uint64_t now_of(const struct ready_check *c)
{
	return manager_now(c->process->service->manager);
}

static void try_later(struct ready_check *c, int status)
{
	c->last_status = status;
	probe_done(&c->probe);
	c->probe = PROBE_NULL;
	c->sent = false;
	c->n_reply = 0;
	end_command(c);
	c->not_before_usec = now_of(c) + MAX(c->config->interval_usec, USEC_PER_MSEC);
}

static struct listener *first_group(const struct ready_check *c)
{
	for (unsigned id = 0; id < 64; id++) {
		struct listener *l = c->process->service->listeners[id];
		if (l && l->kind == LISTENER_GROUP &&
			(c->generation->listeners & (UINT64_C(1) << id)))
			return l;
	}
	return NULL;
}

static int begin_page(struct ready_check *c)
{
	const struct generation *core =
		service_generation(&c->process->service->core, c->generation->number);
	struct listener *l = first_group(c);

	if (!l || !core)
		return -ENOENT;
	c->try_started_usec = now_of(c);
	return probe_begin(&c->probe, l, core->lane, c->process->index);
}

static void send_request(struct ready_check *c)
{
	char request[1024];
	int n = snprintf(request, sizeof(request),
		"GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: tenured\r\nConnection: "
		"close\r\n\r\n",
		c->config->path);
	ssize_t sent;

	if (n < 0 || (size_t)n >= sizeof(request)) {
		try_later(c, -ENAMETOOLONG);
		return;
	}
	sent = send(c->probe.fd, request, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent == n)
		c->sent = true;
	else if (sent >= 0 || (errno != EAGAIN && errno != ENOTCONN))
		try_later(c, sent >= 0 ? -EIO : -errno);
}

static bool page_answers(struct ready_check *c)
{
	unsigned want = c->config->status;
	ssize_t n;
	int status;

	if (c->probe.fd < 0 && begin_page(c) < 0) {
		try_later(c, c->last_status);
		return false;
	}
	if (!c->sent) {
		send_request(c);
		return false;
	}
	n = recv(c->probe.fd, c->reply + c->n_reply, sizeof(c->reply) - c->n_reply, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN) {
		if (now_of(c) - c->try_started_usec > TRY_MOST_USEC)
			try_later(c, -ETIMEDOUT);
		return false;
	}
	if (n <= 0) {
		try_later(c, n < 0 ? -errno : -EPIPE);
		return false;
	}
	c->n_reply += (size_t)n;
	status = http_status(c->reply, c->n_reply);
	if (status == 0)
		return false;
	if (status < 0 || (want != 0 ? (unsigned)status != want : status >= 400)) {
		try_later(c, status);
		return false;
	}
	probe_done(&c->probe);
	c->probe = PROBE_NULL;
	return true;
}

static int begin_command(struct ready_check *c)
{
	const struct snapshot *snap = c->generation->snapshot;
	_cleanup_strv_ char **env = strv_copy(snap->environment);
	_cleanup_free_ char *path = NULL;
	struct spawn_result result;
	char text[16];
	int r = env ? 0 : -ENOMEM;

	snprintf(text, sizeof(text), "%u", c->generation->number);
	if (r >= 0)
		r = strv_env_set(&env, "TENURE_GENERATION", text);
	snprintf(text, sizeof(text), "%u", c->process->index);
	if (r >= 0)
		r = strv_env_set(&env, "TENURE_WORKER", text);
	if (r >= 0)
		r = spawn_find_program(c->config->command[0], strv_env_get(env, "PATH"),
			snap->directory_fd, &path);
	if (r >= 0 && path[0] != '/') {
		char *absolute = xasprintf("%s/%s", snap->directory, path);
		free(path);
		path = absolute;
		r = path ? 0 : -ENOMEM;
	}
	if (r < 0)
		return r;
	r = spawn_process(&(struct spawn_request){.argv = c->config->command,
				  .path = path,
				  .exec_fd = -1,
				  .envp = env,
				  .directory_fd = snap->directory_fd,
				  .set_user = snap->set_user,
				  .uid = snap->user.uid,
				  .gid = snap->user.gid,
				  .groups = snap->user.groups,
				  .n_groups = snap->user.n_groups,
				  .limits = snap->limits,
				  .n_limits = snap->n_limits,
				  .cgroup_fd = -1},
		&result);
	if (r < 0)
		return r;
	c->pid = result.pid;
	c->pidfd = result.pidfd;
	c->try_started_usec = now_of(c);
	return 0;
}

static bool command_succeeds(struct ready_check *c)
{
	uint64_t most = MIN(c->config->timeout_usec, TRY_MOST_USEC);
	siginfo_t info = {0};
	int r;

	if (c->pid == 0) {
		r = begin_command(c);
		if (r < 0)
			try_later(c, r);
		return false;
	}
	if (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		info.si_pid == 0) {
		if (now_of(c) - c->try_started_usec > most)
			try_later(c, -ETIMEDOUT);
		return false;
	}
	end_command(c);
	if (info.si_code == CLD_EXITED && info.si_status == 0)
		return true;
	try_later(c, info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status);
	return false;
}

bool ready_check_step(struct ready_check *c)
{
	if (c->done)
		return true;
	if (c->probe.fd < 0 && c->pid == 0 && now_of(c) < c->not_before_usec)
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
	return c->pid;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/keeper_exec.h"

#include <fcntl.h>
#include <sys/resource.h>

#include "base/parse.h"
#include "daemon/log.h"
#include "sys/spawn.h"

enum { STATE_FORMAT = 1, STATE_WORDS = 7 };

/* --- the state ------------------------------------------------------------ */

int keeper_state_export(const struct keeper_state *s)
{
	char text[512];

	snprintf(text, sizeof(text), "%d %d %llu %llu %llu %llu %s", STATE_FORMAT, (int)s->daemon,
		(unsigned long long)s->nofile_soft, (unsigned long long)s->nofile_hard,
		(unsigned long long)s->watchdog_usec, (unsigned long long)s->n_inherited,
		s->notify);
	return setenv(KEEPER_STATE_VARIABLE, text, 1) < 0 ? -errno : 0;
}

static int parse_state(char *text, struct keeper_state *ret)
{
	struct keeper_state s = {0};
	char *words[STATE_WORDS], *save = NULL;
	uint64_t format, daemon;
	size_t n = 0;

	for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		if (n == STATE_WORDS)
			return -EINVAL;
		words[n++] = w;
	}
	if (n != STATE_WORDS || strlen(words[6]) >= sizeof(s.notify) ||
		parse_u64(words[0], STATE_FORMAT, STATE_FORMAT, &format) < 0 ||
		parse_u64(words[1], 1, INT32_MAX, &daemon) < 0 ||
		parse_u64(words[2], 0, UINT64_MAX, &s.nofile_soft) < 0 ||
		parse_u64(words[3], 0, UINT64_MAX, &s.nofile_hard) < 0 ||
		parse_u64(words[4], 0, UINT64_MAX, &s.watchdog_usec) < 0 ||
		parse_u64(words[5], 0, UINT32_MAX, &s.n_inherited) < 0)
		return -EINVAL;
	s.daemon = (pid_t)daemon;
	memcpy(s.notify, words[6], strlen(words[6]) + 1);
	*ret = s;
	return 0;
}

int keeper_state_import(struct keeper_state *ret)
{
	const char *value = getenv(KEEPER_STATE_VARIABLE);
	_cleanup_free_ char *text = value ? strdup(value) : NULL;
	int r;

	if (!value)
		return 0;
	(void)unsetenv(KEEPER_STATE_VARIABLE);
	r = text ? parse_state(text, ret) : -ENOMEM;
	return r < 0 ? r : 1;
}

int keeper_check_state(void)
{
	struct keeper_state s;
	int r = keeper_state_import(&s);

	if (r > 0)
		printf("tenured-keeper %s: can go on\n", PACKAGE_VERSION);
	else
		printf("tenured-keeper %s: %s\n", PACKAGE_VERSION,
			r == 0 ? "there is no state" : "the state is of another version");
	return r > 0 && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- who asked ------------------------------------------------------------ */

void keeper_exec_tell(int *asker, const char *text)
{
	/* A pipe that is not read is not waited for, nor one whose reader is gone. */
	if (*asker >= 0 && fcntl(*asker, F_SETFL, O_NONBLOCK) >= 0)
		(void)!write(*asker, text, strlen(text));
	*asker = close_fd(*asker);
}

void keeper_exec_done(struct keeper_exec *x, const char *reason)
{
	if (reason && x->asker_fd >= 0) {
		log_error("keeper: not replaced by %s: %s; going on as before",
			x->path ? x->path : "another program", reason);
		keeper_exec_tell(&x->asker_fd, reason);
	}
	if (x->pid > 0)
		(void)kill(x->pid, SIGKILL);
	close_fd(x->program);
	close_fd(x->output_fd);
	close_fd(x->asker_fd);
	free(x->path);
	*x = KEEPER_EXEC_NULL;
}

/* --- trying --------------------------------------------------------------- */

static int spawn_trial(struct keeper_exec *x, const struct keeper_state *state)
{
	struct reexec_trial trial;
	int r = keeper_state_export(state);

	if (r >= 0)
		r = reexec_try(x->program, x->path, -1, &trial);
	(void)unsetenv(KEEPER_STATE_VARIABLE);
	if (r < 0)
		return r;
	x->pid = trial.pid;
	x->output_fd = trial.output_fd;
	close_fd(trial.pidfd); /* SIGCHLD says when it ends */
	return 0;
}

bool keeper_exec_begin(
	struct keeper_exec *x, const struct keeper_state *state, uint64_t now_usec, int *asker)
{
	int r;

	if (x->pid > 0) {
		keeper_exec_tell(asker, "another program is being tried already");
		return false;
	}
	*x = KEEPER_EXEC_NULL;
	x->asker_fd = TAKE_FD(*asker);
	r = reexec_open_own(&x->path, &x->program);
	if (r >= 0)
		r = spawn_trial(x, state);
	if (r < 0) {
		keeper_exec_done(
			x, r == -ENOEXEC ? "it is no program of this machine" : strerror(-r));
		return false;
	}
	x->deadline_usec = now_usec + REEXEC_TRIAL_USEC;
	return true;
}

void keeper_exec_late(struct keeper_exec *x)
{
	x->late = true;
	x->deadline_usec = USEC_INFINITY;
	if (x->pid > 0)
		(void)kill(x->pid, SIGKILL);
}

bool keeper_exec_judge(struct keeper_exec *x, const siginfo_t *si)
{
	char output[256];
	ssize_t n = read(x->output_fd, output, sizeof(output) - 1);
	const char *reason = NULL;

	output[n > 0 ? n : 0] = '\0';
	x->pid = 0;
	x->deadline_usec = USEC_INFINITY;
	if (x->late)
		reason = "it did not say in time that it can go on from the present state";
	else if (si->si_code != CLD_EXITED)
		reason = "it crashed when it was tried";
	else if (si->si_status != EXIT_SUCCESS)
		reason = "it cannot go on from the present state";
	else if (!startswith(output, "tenured-keeper ") || !strstr(output, ": can go on"))
		reason = "it does not answer as a keeper does";
	if (reason)
		keeper_exec_done(x, reason);
	return !reason;
}

/* --- the way over --------------------------------------------------------- */

void keeper_exec_now(struct keeper_exec *x, const struct keeper_state *state,
	struct reexec_fd *held, size_t n, char *const *argv)
{
	const struct rlimit given = {
		.rlim_cur = (rlim_t)state->nofile_soft, .rlim_max = (rlim_t)state->nofile_hard};
	struct rlimit raised;
	int map = -1, r = keeper_state_export(state);

	held[n++] = (struct reexec_fd){.fd = x->asker_fd, .name = KEEPER_EXEC_ASKER};
	if (r >= 0)
		r = reexec_prepare(held, n, &map);
	if (r >= 0) {
		log_notice("keeper: replacing this program by %s", x->path);
		(void)setrlimit(RLIMIT_NOFILE, &given);
		r = reexec_now(x->program, argv);
		(void)spawn_raise_nofile(&raised);
		reexec_undo(held, n, map);
	}
	(void)unsetenv(KEEPER_STATE_VARIABLE);
	keeper_exec_done(x, strerror(-r));
}

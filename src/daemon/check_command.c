/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/check_command.h"

#include <signal.h>
#include <sys/wait.h>

#include "sys/process.h"
#include "sys/spawn.h"

static int environment_of(
	const struct snapshot *snapshot, char *const *more, const char *instance, char ***ret)
{
	_cleanup_strv_ char **env = strv_copy(snapshot->environment);
	int r = env ? 0 : -ENOMEM;

	if (r >= 0 && instance[0])
		r = strv_env_set(&env, "TENURE_CHECK", instance);
	for (size_t i = 0; r >= 0 && more && more[i]; i++) {
		_cleanup_free_ char *name = strndup(more[i], strcspn(more[i], "="));

		r = name ? strv_env_set(&env, name, more[i] + strlen(name) + 1) : -ENOMEM;
	}
	if (r < 0)
		return r;
	*ret = TAKE_PTR(env);
	return 0;
}

static int find_program(
	const struct snapshot *snapshot, const char *word, char *const *env, char **ret)
{
	_cleanup_free_ char *path = NULL;
	int r = spawn_find_program(word, strv_env_get(env, "PATH"), snapshot->directory_fd, &path);

	if (r < 0)
		return r;
	*ret = path[0] == '/' ? TAKE_PTR(path) : xasprintf("%s/%s", snapshot->directory, path);
	return *ret ? 0 : -ENOMEM;
}

int command_check_begin(struct command_check *c, const struct snapshot *snapshot, char *const *argv,
	char *const *environment, const char *instance, int output_fd)
{
	const struct spawn_fd fds[] = {
		{output_fd, STDOUT_FILENO},
		    {output_fd, STDERR_FILENO}
	      };
	_cleanup_strv_ char **env = NULL;
	_cleanup_free_ char *path = NULL;
	struct spawn_result result;
	int r;

	r = environment_of(snapshot, environment, instance, &env);
	if (r >= 0)
		r = find_program(snapshot, argv[0], env, &path);
	if (r < 0)
		return r;
	r = spawn_process(&(struct spawn_request){.argv = argv,
				  .path = path,
				  .exec_fd = -1,
				  .envp = env,
				  .fds = fds,
				  .n_fds = output_fd >= 0 ? ARRAY_SIZE(fds) : 0,
				  .directory_fd = snapshot->directory_fd,
				  .set_user = snapshot->set_user,
				  .uid = snapshot->user.uid,
				  .gid = snapshot->user.gid,
				  .groups = snapshot->user.groups,
				  .n_groups = snapshot->user.n_groups,
				  .limits = snapshot->limits,
				  .n_limits = snapshot->n_limits,
				  .cgroup_fd = -1},
		&result);
	if (r < 0)
		return r;
	*c = (struct command_check){.pid = result.pid, .pidfd = result.pidfd};
	return 0;
}

/* Signal before reaping: until then the group is the command's own. */
void command_check_end(struct command_check *c)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;

	if (c->pid == 0)
		return;
	/* Those that left the group are found by their parents; look before the parents die. */
	(void)process_descendants(c->pid, false, &pids, &n);
	(void)spawn_signal_group(c->pid, SIGKILL);
	(void)spawn_signal(c->pidfd, SIGKILL);
	for (size_t i = 0; pids && i < n; i++)
		if (pids[i] != c->pid)
			(void)kill(pids[i], SIGKILL);
	/* One that does not die at once is reaped as an orphan: the loop waits for nobody. */
	(void)waitpid(c->pid, NULL, WNOHANG);
	close_fd(c->pidfd);
	*c = COMMAND_CHECK_NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/reexec.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/buffer.h"
#include "base/parse.h"
#include "sys/process.h"
#include "sys/spawn.h"

extern char **environ;

enum { MAP_MAX = 16 << 20 };

int reexec_open_own(char **path, int *ret_program)
{
	int r = process_own_path(path);

	if (r < 0)
		return r;
	if (access(*path, X_OK) < 0)
		return -errno;
	r = spawn_pin_executable(AT_FDCWD, *path);
	if (r < 0)
		return r;
	*ret_program = r;
	return 0;
}

int reexec_try(int program, char *path, int state_fd, struct reexec_trial *ret)
{
	static char check[] = "--check-state";
	char *argv[] = {path, check, NULL};
	_cleanup_close_ int ours = -1, theirs = -1;
	struct spawn_result result;
	struct spawn_fd fds[3];
	int pipe_fds[2], r;

	if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	ours = pipe_fds[0];
	theirs = pipe_fds[1];
	fds[0] = (struct spawn_fd){theirs, STDOUT_FILENO};
	fds[1] = (struct spawn_fd){theirs, STDERR_FILENO};
	fds[2] = (struct spawn_fd){state_fd, REEXEC_STATE_FD};
	r = spawn_process(&(struct spawn_request){.argv = argv,
				  .path = path,
				  .exec_fd = program,
				  .envp = environ,
				  .fds = fds,
				  .n_fds = state_fd >= 0 ? 3 : 2,
				  .directory_fd = -1,
				  .cgroup_fd = -1},
		&result);
	if (r < 0)
		return r;
	*ret = (struct reexec_trial){
		.pid = result.pid, .pidfd = result.pidfd, .output_fd = TAKE_FD(ours)};
	return 0;
}

static int set_cloexec(const struct reexec_fd *list, size_t n, bool on)
{
	for (size_t i = 0; i < n; i++)
		if (fcntl(list[i].fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0)
			return -errno;
	return 0;
}

static int write_map(const struct reexec_fd *list, size_t n, int *ret)
{
	_cleanup_buffer_ struct buffer text = BUFFER_INIT(0);
	_cleanup_close_ int fd = memfd_create("tenured-reexec", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (size_t i = 0; i < n; i++)
		if (buffer_printf(&text, "%d %s\n", list[i].fd, list[i].name) < 0)
			return -ENOMEM;
	for (size_t done = 0; done < text.len;) {
		ssize_t w = pwrite(fd, buffer_data(&text) + done, text.len - done, (off_t)done);

		if (w < 0 && errno != EINTR)
			return -errno;
		done += w > 0 ? (size_t)w : 0;
	}
	*ret = TAKE_FD(fd);
	return 0;
}

int reexec_prepare(const struct reexec_fd *list, size_t n, int *ret_map)
{
	char number[16];
	int map = -1, r = write_map(list, n, &map);

	if (r < 0)
		return r;
	snprintf(number, sizeof(number), "%d", map);
	if (fcntl(map, F_SETFD, 0) < 0 || setenv(REEXEC_VARIABLE, number, 1) < 0)
		r = -errno;
	if (r >= 0)
		r = set_cloexec(list, n, false);
	if (r < 0) {
		reexec_undo(list, n, map);
		return r;
	}
	*ret_map = map;
	return 0;
}

void reexec_undo(const struct reexec_fd *list, size_t n, int map)
{
	(void)set_cloexec(list, n, true);
	(void)unsetenv(REEXEC_VARIABLE);
	close_fd(map);
}

static int read_map(int fd, char **ret)
{
	_cleanup_free_ char *text = NULL;
	struct stat st;
	size_t size, done = 0;

	/* Of all that this number could be, only ours is a memfd without a name in any directory.
	 */
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 0 ||
		fcntl(fd, F_GET_SEALS) < 0 || st.st_size > MAP_MAX)
		return -EINVAL;
	size = (size_t)st.st_size;
	text = malloc(size + 1);
	if (!text)
		return -ENOMEM;
	while (done < size) {
		ssize_t n = pread(fd, text + done, size - done, (off_t)done);

		if (n == 0 || (n < 0 && errno != EINTR))
			return -EINVAL;
		done += n > 0 ? (size_t)n : 0;
	}
	text[size] = '\0';
	*ret = TAKE_PTR(text);
	return 0;
}

/* "57 _l1k". The descriptor is ours as soon as it is known. */
static int take_line(struct activation *to, char *line)
{
	char *space = strchr(line, ' ');
	unsigned number;

	if (!space)
		return -EINVAL;
	*space = '\0';
	if (parse_uint(line, 3, INT32_MAX, &number) < 0 ||
		fcntl((int)number, F_SETFD, FD_CLOEXEC) < 0)
		return -EINVAL;
	return activation_add(to, (int)number, space + 1);
}

int reexec_receive(struct activation *to)
{
	const char *variable = getenv(REEXEC_VARIABLE);
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int map = -1;
	char *save = NULL;
	unsigned number;
	int r;

	if (!variable)
		return 0;
	r = parse_uint(variable, 3, INT32_MAX, &number);
	(void)unsetenv(REEXEC_VARIABLE);
	if (r >= 0)
		r = read_map((int)number, &text);
	if (r < 0)
		return r == -ENOMEM ? r : -EINVAL;
	map = (int)number;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		r = take_line(to, line);
		if (r < 0)
			return r;
	}
	return 1;
}

int reexec_now(int program, char *const *argv)
{
	(void)syscall(SYS_execveat, program, "", argv, environ, AT_EMPTY_PATH);
	return -errno;
}

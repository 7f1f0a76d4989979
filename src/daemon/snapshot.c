/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/snapshot.h"

#include <fcntl.h>

#include "core/dialect.h"
#include "daemon/sandbox.h"
#include "daemon/snapshot_env.h"

int snapshot_listener_fd(const struct service_config *c, size_t i)
{
	return dialect_listener_fd(c->handoff, i);
}

static void file_look(struct snapshot_file *f)
{
	struct stat st;

	f->exists = stat(f->path, &st) == 0;
	if (!f->exists)
		return;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->size = st.st_size;
	f->mtime = st.st_mtim;
	f->ctime = st.st_ctim;
}

static int file_init(struct snapshot_file *f, char *path_take)
{
	if (!path_take)
		return -ENOMEM;
	*f = (struct snapshot_file){.path = path_take};
	file_look(f);
	return 0;
}

static bool file_changed(const struct snapshot_file *f)
{
	struct snapshot_file now = {.path = f->path};

	file_look(&now);
	return now.exists != f->exists ||
	       (now.exists && (now.dev != f->dev || now.ino != f->ino || now.size != f->size ||
				      now.mtime.tv_sec != f->mtime.tv_sec ||
				      now.mtime.tv_nsec != f->mtime.tv_nsec));
}

/* path below the directory, or itself when it is absolute. */
static char *below(const char *directory, const char *path)
{
	return path[0] == '/' ? strdup(path) : xasprintf("%s/%s", directory, path);
}

static char *real_path_of(int fd)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return realpath(link, NULL);
}

static int open_directory(struct snapshot *s, struct error *ret_error)
{
	const struct service_config *c = &s->config;
	int r;

	s->directory_fd = open(c->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->directory_fd < 0) {
		r = error_set_errno(ret_error, -errno, "%s: directory %s", c->name, c->directory);
		return sandbox_explain(ret_error, r, SANDBOX_FILE, c->directory);
	}
	s->directory = real_path_of(s->directory_fd);
	return s->directory ? 0
			    : error_set(ret_error, -ENOMEM, "%s: directory %s: out of memory",
				      c->name, c->directory);
}

static int find_program(struct snapshot *s, struct error *ret_error)
{
	const struct service_config *c = &s->config;
	const char *path_env = strv_env_get(s->environment, "PATH");
	_cleanup_free_ char *found = NULL, *absolute = NULL;
	int r;

	r = spawn_find_program(c->command[0], path_env, s->directory_fd, &found);
	if (r < 0 && !strchr(c->command[0], '/'))
		return error_set_errno(ret_error, r, "%s: %s was not found in PATH %s", c->name,
			c->command[0], path_env ? path_env : "(unset)");
	if (r < 0) {
		error_set_errno(ret_error, r, "%s: program %s (in directory %s)", c->name,
			c->command[0], s->directory);
		return sandbox_explain(ret_error, r, SANDBOX_FILE, c->command[0]);
	}
	absolute = below(s->directory, found);
	if (!absolute)
		return error_set(ret_error, -ENOMEM, "%s: out of memory", c->name);
	/* Symlinks are resolved now: the generation stays with this release when the link moves on.
	 */
	s->executable = realpath(absolute, NULL);
	if (!s->executable)
		return error_set_errno(ret_error, -errno, "%s: program %s", c->name, absolute);
	r = spawn_pin_executable(AT_FDCWD, s->executable);
	if (r < 0 && r != -ENOEXEC)
		return error_set_errno(ret_error, r, "%s: program %s", c->name, s->executable);
	s->exec_fd = r < 0 ? -1 : r;
	return file_init(&s->program, strdup(s->executable));
}

static int replace_all(const struct service_config *c, char *const *from, char ***ret)
{
	for (size_t i = 0; from && from[i]; i++) {
		char *text = NULL;

		/* The configuration was checked: every NAME is known. */
		if (dialect_replace(from[i], c->handoff, c->listeners, c->n_listeners, &text) < 0 ||
			strv_append_take(ret, text) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int replace_addresses(const struct service_config *c, char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++) {
		char *text = NULL;
		int r = dialect_replace_srv(
			argv[i], c->handoff, c->listeners, c->n_listeners, &text);

		if (r < 0)
			return r;
		if (r > 0) {
			free(argv[i]);
			argv[i] = text;
		}
	}
	return 0;
}

static int look_up_user(struct snapshot *s, struct error *ret_error)
{
	const struct service_config *c = &s->config;
	int r = user_lookup(c->user, c->group, &s->user);

	if (r == -ENOENT)
		return error_set(ret_error, r, "%s: there is no user %s", c->name,
			c->user ? c->user : "of ours");
	if (r == -ESRCH)
		return error_set(ret_error, r, "%s: there is no group %s", c->name, c->group);
	if (r < 0)
		return error_set_errno(
			ret_error, r, "%s: user %s", c->name, c->user ? c->user : "");
	s->set_user = s->user.uid != geteuid() || s->user.gid != getegid();
	if (s->set_user && geteuid() != 0) {
		error_set(ret_error, -EPERM,
			"%s: to run as user %s the daemon must be started as root", c->name,
			s->user.name);
		return sandbox_explain(ret_error, -EPERM, SANDBOX_BECOME, NULL);
	}
	/* Root for a service that names nobody keeps the groups it has. */
	if (!c->user && !c->group)
		s->set_user = false;
	return 0;
}

static int copy_limits(struct snapshot *s, const struct rlimit *nofile_limit)
{
	const struct service_config *c = &s->config;
	bool nofile = false;

	s->limits = calloc(c->n_limits + 1, sizeof(*s->limits));
	if (!s->limits)
		return -ENOMEM;
	for (size_t i = 0; i < c->n_limits; i++) {
		rlim_t value =
			c->limits[i].value == UINT64_MAX ? RLIM_INFINITY : c->limits[i].value;
		s->limits[s->n_limits++] = (struct spawn_limit){
			c->limits[i].resource, {value, value}
		     };
		nofile |= c->limits[i].resource == RLIMIT_NOFILE;
	}
	if (!nofile)
		s->limits[s->n_limits++] = (struct spawn_limit){RLIMIT_NOFILE, *nofile_limit};
	return 0;
}

static int look_at_files(struct snapshot *s)
{
	const struct service_config *c = &s->config;
	size_t n = strv_length(c->fingerprint);

	s->fingerprint = calloc(n + 1, sizeof(*s->fingerprint));
	s->env_files = calloc(c->n_env_files + 1, sizeof(*s->env_files));
	if (!s->fingerprint || !s->env_files)
		return -ENOMEM;
	for (; s->n_fingerprint < n; s->n_fingerprint++)
		if (file_init(&s->fingerprint[s->n_fingerprint],
			    below(s->config.directory, c->fingerprint[s->n_fingerprint])) < 0)
			return -ENOMEM;
	for (; s->n_env_files < c->n_env_files; s->n_env_files++)
		if (file_init(&s->env_files[s->n_env_files],
			    below(s->config.directory, c->env_files[s->n_env_files].path)) < 0)
			return -ENOMEM;
	return 0;
}

static int fill(struct snapshot *s, const struct rlimit *nofile_limit, struct error *ret_error)
{
	const struct service_config *c = &s->config;
	_cleanup_strv_ char **plain = NULL;
	int r;

	r = open_directory(s, ret_error);
	if (r >= 0)
		r = look_up_user(s, ret_error);
	if (r >= 0)
		r = snapshot_environment(c, &s->user, &plain, ret_error);
	if (r < 0)
		return r;
	r = replace_all(c, plain, &s->environment);
	if (r >= 0)
		r = replace_all(c, c->command, &s->argv);
	if (r >= 0)
		r = replace_addresses(c, s->argv);
	if (r >= 0)
		r = copy_limits(s, nofile_limit);
	if (r >= 0)
		r = look_at_files(s);
	if (r < 0)
		return error_set(ret_error, r, "%s: out of memory", c->name);
	return find_program(s, ret_error);
}

int snapshot_new(const struct service_config *c, const struct rlimit *nofile_limit,
	struct snapshot **ret, struct error *ret_error)
{
	struct snapshot *s = calloc(1, sizeof(*s));
	int r;

	if (!s || service_config_copy(c, &s->config) < 0) {
		free(s);
		return error_set(ret_error, -ENOMEM, "%s: out of memory", c->name);
	}
	s->config.place.file = NULL;
	for (size_t i = 0; i < s->config.n_listeners; i++)
		s->config.listeners[i].place.file = NULL;
	s->n_refs = 1;
	s->directory_fd = s->exec_fd = -1;
	r = fill(s, nofile_limit, ret_error);
	if (r < 0) {
		snapshot_unref(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
	s->n_refs++;
	return s;
}

static void files_done(struct snapshot_file *files, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(files[i].path);
	free(files);
}

struct snapshot *snapshot_unref(struct snapshot *s)
{
	if (!s || --s->n_refs > 0)
		return NULL;
	service_config_done(&s->config);
	close_fd(s->directory_fd);
	close_fd(s->exec_fd);
	free(s->directory);
	free(s->executable);
	strv_free(s->argv);
	strv_free(s->environment);
	user_done(&s->user);
	free(s->limits);
	free(s->program.path);
	files_done(s->fingerprint, s->n_fingerprint);
	files_done(s->env_files, s->n_env_files);
	free(s);
	return NULL;
}

static bool any_changed(const struct snapshot_file *files, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (file_changed(&files[i]))
			return true;
	return false;
}

/* Where the configured command leads now: through a symlink of a release directory, that may be
 * another program. */
static bool program_differs(const struct snapshot *s, const char *directory)
{
	_cleanup_free_ char *found = NULL, *absolute = NULL, *real = NULL;
	int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return false;
	r = spawn_find_program(
		s->config.command[0], strv_env_get(s->environment, "PATH"), fd, &found);
	close_fd(fd);
	if (r < 0)
		return false;
	absolute = below(directory, found);
	real = absolute ? realpath(absolute, NULL) : NULL;
	return real && (!streq(real, s->executable) || file_changed(&s->program));
}

int snapshot_pending(const struct snapshot *s, char ***reasons)
{
	_cleanup_free_ char *directory = realpath(s->config.directory, NULL);
	int r = 0;

	if (directory && !streq(directory, s->directory))
		r = strv_append(reasons, "directory");
	if (r >= 0 && directory && program_differs(s, directory))
		r = strv_append(reasons, "executable");
	if (r >= 0 && any_changed(s->fingerprint, s->n_fingerprint))
		r = strv_append(reasons, "fingerprint");
	if (r >= 0 && any_changed(s->env_files, s->n_env_files))
		r = strv_append(reasons, "environment file");
	return r;
}

bool snapshot_program_changed(const struct snapshot *s)
{
	return s->exec_fd < 0 && file_changed(&s->program);
}

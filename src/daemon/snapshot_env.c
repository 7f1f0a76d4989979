/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/snapshot_env.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>

#include "core/dialect.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/* A file this large is not an environment. */
enum { ENV_FILE_MAX = 1 << 20 };

extern char **environ;

/* What concerns this daemon alone, and must not be taken for the worker's. */
static bool is_ours(const char *entry)
{
	static const char *const names[] = {"NOTIFY_SOCKET=", "LISTEN_PID=", "LISTEN_FDS=",
		"LISTEN_FDNAMES=", "LISTEN_PIDFDID=", "WATCHDOG_PID=", "WATCHDOG_USEC=",
		"JOURNAL_STREAM=", "FDSTORE=", "TENURE_SERVICE=", "TENURE_GENERATION=",
		"TENURE_WORKER=", "TENURE_WORKER_NOFILE=", "TENURE_KEEPER=", "TENURE_INSTANCE="};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (startswith(entry, names[i]))
			return true;
	/* Of whatever convention we were started by: its sockets are not passed on. */
	return dialect_sets(UINT_MAX, entry, strcspn(entry, "="));
}

static int inherit(char ***env)
{
	for (size_t i = 0; environ[i]; i++)
		if (!is_ours(environ[i]) && strv_append(env, environ[i]) < 0)
			return -ENOMEM;
	return 0;
}

static int clean(const struct user *user, char ***env)
{
	const char *lang = getenv("LANG");
	int r = strv_env_set(env, "PATH", DEFAULT_PATH);

	if (r >= 0 && lang)
		r = strv_env_set(env, "LANG", lang);
	if (r >= 0)
		r = strv_env_set(env, "HOME", user->home);
	if (r >= 0)
		r = strv_env_set(env, "USER", user->name);
	if (r >= 0)
		r = strv_env_set(env, "LOGNAME", user->name);
	if (r >= 0)
		r = strv_env_set(env, "SHELL", user->shell);
	return r;
}

static bool is_name(const char *s)
{
	if (!isalpha((unsigned char)*s) && *s != '_')
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '_')
			return false;
	return true;
}

/* The value after "=", as systemd.exec(5) reads it: a quote counts where the value begins or after
 * another quoted piece, and is itself in the middle of a word, so that JSON stays JSON; a backslash
 * keeps the next character, in "..." only one of "\\`$, in '...' none. False: a quote is not
 * closed.
 */
static bool unquote(char *s)
{
	char quote = 0, *out = s;
	bool word = false;

	for (; *s; s++) {
		if (quote && *s == quote) {
			quote = 0;
		} else if (!quote && !word && (*s == '"' || *s == '\'')) {
			quote = *s;
		} else if (quote || word || !isspace((unsigned char)*s)) {
			word |= !quote;
			if (*s == '\\' && s[1] && quote != '\'' &&
				(!quote || strchr("\"\\`$", s[1])))
				s++;
			*out++ = *s;
		}
	}
	*out = '\0';
	return !quote;
}

static int read_line(
	char *line, const char *path, unsigned number, char ***env, struct error *ret_error)
{
	char *name = line + strspn(line, " \t"), *value, *end;

	end = name + strlen(name);
	while (end > name && isspace((unsigned char)end[-1]))
		*--end = '\0';
	if (*name == '\0' || *name == '#' || *name == ';')
		return 0;
	if (startswith(name, "export "))
		name += strlen("export ");
	value = strchr(name, '=');
	if (!value)
		return error_set(ret_error, -EINVAL, "%s:%u: want NAME=value, found \"%.40s\"",
			path, number, name);
	*value++ = '\0';
	if (!is_name(name))
		return error_set(ret_error, -EINVAL, "%s:%u: \"%.40s\" is no name of a variable",
			path, number, name);
	if (!unquote(value))
		return error_set(ret_error, -EINVAL, "%s:%u: the quote of %s is not closed", path,
			number, name);
	return strv_env_set(env, name, value);
}

/* Without waiting for a writer, if it is a FIFO. */
static FILE *open_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");

	if (!f)
		close_fd(fd);
	return f;
}

static int read_file(const struct service_config *c, const struct env_file *file, char ***env,
	struct error *ret_error)
{
	_cleanup_free_ char *path = file->path[0] == '/'
					    ? strdup(file->path)
					    : xasprintf("%s/%s", c->directory, file->path);
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	size_t size = 0, total = 0;
	unsigned number = 0;
	ssize_t n;
	int r;

	if (!path)
		return -ENOMEM;
	f = open_file(path);
	if (!f && errno == ENOENT && file->optional)
		return 0;
	if (!f)
		return error_set_errno(ret_error, -errno, "%s: env_file %s%s", c->name, path,
			errno == ENOENT ? " (write it with a leading \"-\" if it may be missing)"
					: "");
	while ((n = getline(&line, &size, f)) >= 0) {
		total += (size_t)n;
		if (total > ENV_FILE_MAX)
			return error_set(
				ret_error, -E2BIG, "%s: env_file %s: over 1 MiB", c->name, path);
		r = read_line(line, path, ++number, env, ret_error);
		if (r < 0)
			return r;
	}
	if (ferror(f))
		return error_set_errno(ret_error, -errno, "%s: env_file %s", c->name, path);
	return 0;
}

int snapshot_environment(const struct service_config *c, const struct user *user, char ***ret,
	struct error *ret_error)
{
	_cleanup_strv_ char **env = NULL;
	int r = c->environment_inherited ? inherit(&env) : clean(user, &env);

	for (size_t i = 0; r >= 0 && i < c->n_env_files; i++)
		r = read_file(c, &c->env_files[i], &env, ret_error);
	for (size_t i = 0; r >= 0 && c->environment && c->environment[i]; i++) {
		_cleanup_free_ char *name = strdup(c->environment[i]);
		char *value = name ? strchr(name, '=') : NULL;
		if (!value) {
			r = -ENOMEM;
			break;
		}
		*value++ = '\0';
		r = strv_env_set(&env, name, value);
	}
	if (r >= 0)
		r = strv_env_set(&env, "TENURE_SERVICE", c->name);
	if (r == -ENOMEM)
		return error_set(ret_error, r, "%s: out of memory", c->name);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(env);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/keeper_store.h"

#include <fcntl.h>

#include "base/buffer.h"
#include "base/parse.h"

enum { FIRST_FD = 3, INHERITED_MAX = 1024 };

static int append(struct keeper_store *s, const char *name, size_t len, int fd)
{
	char *copy = strndup(name, len);

	if (!copy || array_reserve(&s->list, &s->capacity, s->n + 1, sizeof(*s->list)) < 0) {
		free(copy);
		return -ENOMEM;
	}
	s->list[s->n++] = (struct keeper_held){.fd = fd, .name = copy};
	return 0;
}

/* The next of "a:b:c"; *names is moved on, and stays at the end. */
static const char *next_name(const char **names, size_t *ret_len)
{
	const char *name = *names;

	*ret_len = strcspn(name, ":");
	*names += *ret_len + (name[*ret_len] == ':');
	return name;
}

int keeper_store_init(struct keeper_store *s, size_t max)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS"),
		   *names = getenv("LISTEN_FDNAMES");
	unsigned for_pid, n;

	*s = (struct keeper_store){.max = max};
	if (!pid || !fds || parse_uint(pid, 1, INT32_MAX, &for_pid) < 0 ||
		(pid_t)for_pid != getpid())
		return 0;
	if (parse_uint(fds, 0, INHERITED_MAX, &n) < 0)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		int fd = FIRST_FD + (int)i, r;
		size_t len = 0;
		const char *name = names ? next_name(&names, &len) : NULL;

		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return -EINVAL;
		r = len > 0 ? append(s, name, len, fd) : append(s, "unknown", 7, fd);
		if (r < 0)
			return r;
		s->n_inherited++;
	}
	return 0;
}

int keeper_store_restore_take(struct keeper_store *s, const char *name, bool inherited, int *fd)
{
	int r = append(s, name, strlen(name), *fd);

	if (r < 0)
		return r;
	s->n_inherited += inherited;
	*fd = -1;
	return 0;
}

static void close_from(struct keeper_store *s, size_t first)
{
	for (size_t i = first; i < s->n; i++) {
		close_fd(s->list[i].fd);
		free(s->list[i].name);
	}
	s->n = first;
}

void keeper_store_done(struct keeper_store *s)
{
	close_from(s, 0);
	free(s->list);
	*s = (struct keeper_store){.n = 0};
}

int keeper_store_add_take(struct keeper_store *s, const char *name, int *fd)
{
	int r;

	if (s->n - s->n_inherited >= s->max)
		return -ENOSPC;
	r = append(s, name, strlen(name), *fd);
	if (r >= 0)
		*fd = -1;
	return r;
}

size_t keeper_store_remove(struct keeper_store *s, const char *name)
{
	size_t kept = s->n_inherited, n = s->n;

	for (size_t i = kept; i < n; i++) {
		if (!streq(s->list[i].name, name)) {
			s->list[kept++] = s->list[i];
			continue;
		}
		close_fd(s->list[i].fd);
		free(s->list[i].name);
	}
	s->n = kept;
	return n - kept;
}

void keeper_store_drop(struct keeper_store *s)
{
	close_from(s, s->n_inherited);
}

/* As daemon/store.h names it. */
bool keeper_store_has_state(const struct keeper_store *s)
{
	for (size_t i = s->n_inherited; i < s->n; i++)
		if (startswith(s->list[i].name, "_s"))
			return true;
	return false;
}

int keeper_store_map(const struct keeper_store *s, struct spawn_fd **ret)
{
	struct spawn_fd *map = calloc(s->n + FIRST_FD, sizeof(*map));

	if (!map)
		return -ENOMEM;
	for (int i = 0; i < FIRST_FD; i++)
		map[i] = (struct spawn_fd){.source = i, .target = i};
	for (size_t i = 0; i < s->n; i++)
		map[i + FIRST_FD] =
			(struct spawn_fd){.source = s->list[i].fd, .target = FIRST_FD + (int)i};
	*ret = map;
	return 0;
}

char *keeper_store_names(const struct keeper_store *s)
{
	_cleanup_buffer_ struct buffer names = BUFFER_INIT(0);

	for (size_t i = 0; i < s->n; i++)
		if (buffer_printf(&names, "%s%s", i > 0 ? ":" : "", s->list[i].name) < 0)
			return NULL;
	return names.len > 0 ? strndup((const char *)buffer_data(&names), names.len) : strdup("");
}

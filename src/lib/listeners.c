/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that were passed: sd_listen_fds(3). */
#include <fcntl.h>

#include "base/address.h"
#include "base/parse.h"
#include "lib/internal.h"

enum { FIRST_FD = 3 };

/* --- one -------------------------------------------------------------------- */

struct passed *passed_free(struct passed *p)
{
	if (!p)
		return NULL;
	free(p->name);
	free(p->address);
	free(p);
	return NULL;
}

static int get_option(int fd, int option)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0 ? -1 : value;
}

/* "" for what has none: the pointer says that it is a listener. */
static char *address_of(int fd, int type)
{
	struct sockaddr_storage storage = {0};
	socklen_t len = sizeof(storage);
	struct address a;

	if (getsockname(fd, (struct sockaddr *)&storage, &len) < 0 ||
		address_from_sockaddr((struct sockaddr *)&storage, len, type, &a) < 0)
		return strdup("");
	return address_format(&a);
}

static int set_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0))
		return -errno;
	return 0;
}

int passed_new(const struct tenure *t, const char *name, bool is_listener, int *fd_take,
	struct passed **ret)
{
	int r = is_listener && t->nonblock ? set_nonblock(*fd_take) : 0;
	struct passed *p = r < 0 ? NULL : calloc(1, sizeof(*p));

	if (r < 0)
		return r;
	if (!p)
		return -ENOMEM;
	p->fd = *fd_take;
	p->family = MAX(get_option(p->fd, SO_DOMAIN), 0);
	p->type = MAX(get_option(p->fd, SO_TYPE), 0);
	p->name = strdup(name);
	p->address = is_listener ? address_of(p->fd, p->type) : NULL;
	if (!p->name || (is_listener && !p->address)) {
		passed_free(p);
		return -ENOMEM;
	}
	*fd_take = -1;
	*ret = p;
	return 0;
}

int passed_list_add_take(struct passed_list *l, struct passed **p_take)
{
	if (array_reserve(&l->list, &l->capacity, l->n + 1, sizeof(*p_take)) < 0)
		return -ENOMEM;
	l->list[l->n++] = *p_take;
	*p_take = NULL;
	return 0;
}

void passed_list_remove(struct passed_list *l, size_t i)
{
	memmove(&l->list[i], &l->list[i + 1], (l->n - i - 1) * sizeof(l->list[0]));
	l->n--;
}

/* --- all that came with the start -------------------------------------------- */

/* It can be accepted or received from by whoever has it: listening, or a datagram socket that is
 * bound and belongs to no single peer. */
static bool looks_like_listener(int fd)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	int type = get_option(fd, SO_TYPE);

	if (type == SOCK_STREAM || type == SOCK_SEQPACKET)
		return get_option(fd, SO_ACCEPTCONN) == 1;
	return type == SOCK_DGRAM && getpeername(fd, (struct sockaddr *)&peer, &len) < 0;
}

static int add(struct tenure *t, const char *name, int fd, bool is_listener)
{
	struct passed *p = NULL;
	int r = passed_new(t, name, is_listener, &fd, &p);

	if (r >= 0)
		r = passed_list_add_take(is_listener ? &t->listeners : &t->stored, &p);
	passed_free(p);
	return r;
}

/* As many names as descriptors, or no names at all. */
static int split_names(const char *names, size_t n, char ***ret)
{
	_cleanup_strv_ char **list = NULL;
	_cleanup_free_ char *copy = names ? strdup(names) : NULL;
	char *rest = copy, *name;

	if (names && !copy)
		return -ENOMEM;
	while ((name = strsep(&rest, ":")))
		if (strv_append(&list, name) < 0)
			return -ENOMEM;
	/* No descriptors have no names, written as one empty one. */
	if (names && strv_length(list) != n && !(n == 0 && !*names))
		return -EINVAL;
	*ret = TAKE_PTR(list);
	return 0;
}

int passed_read(struct tenure *t, bool through_wrapper, size_t n_listeners)
{
	_cleanup_strv_ char **names = NULL;
	uint64_t pid, n;
	int r = number_from_environment("LISTEN_PID", INT32_MAX, &pid);

	/* A wrapper that forks hands its own number on. Under tenured the channel says that it is
	 * us who are meant all the same. */
	if (r == 0 || (r > 0 && pid != (uint64_t)getpid() && !through_wrapper))
		return 0;
	if (r < 0)
		return r;
	r = number_from_environment("LISTEN_FDS", INT32_MAX - FIRST_FD, &n);
	if (r <= 0)
		return r;
	r = split_names(getenv("LISTEN_FDNAMES"), (size_t)n, &names);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if (fcntl(FIRST_FD + (int)i, F_GETFD) < 0)
			return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		int fd = FIRST_FD + (int)i;
		bool is_listener =
			n_listeners != SIZE_MAX ? i < n_listeners : looks_like_listener(fd);

		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return -errno;
		r = add(t, names ? names[i] : "unknown", fd, is_listener);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- what callers see -------------------------------------------------------- */

static void describe(const struct passed *p, struct tenure_listener *ret)
{
	*ret = (struct tenure_listener){.name = p->name,
		.address = p->address,
		.fd = p->fd,
		.family = p->family,
		.type = p->type};
}

EXPORT size_t tenure_n_listeners(const struct tenure *t)
{
	return t->listeners.n;
}

EXPORT int tenure_listener(const struct tenure *t, size_t i, struct tenure_listener *ret)
{
	if (i >= t->listeners.n)
		return -ERANGE;
	describe(t->listeners.list[i], ret);
	return 0;
}

EXPORT int tenure_find_listener(const struct tenure *t, const char *name, const char *address,
	int type, struct tenure_listener *ret)
{
	for (size_t i = 0; i < t->listeners.n; i++) {
		const struct passed *p = t->listeners.list[i];

		if ((name && !streq(p->name, name)) || (address && !streq(p->address, address)) ||
			(type != 0 && p->type != type))
			continue;
		describe(p, ret);
		return 0;
	}
	return t->listeners.n == 0 && t->where != TENURE_TENURED ? -ENXIO : -ENOENT;
}

EXPORT int tenure_take(struct tenure *t, const char *name, const char **ret_name)
{
	for (size_t i = 0; i < t->stored.n; i++) {
		struct passed *p = t->stored.list[i];
		int fd = p->fd;

		if (fd < 0 || (name && !streq(p->name, name)))
			continue;
		/* The name stays: until tenure_free(). */
		p->fd = -1;
		if (ret_name)
			*ret_name = p->name;
		return fd;
	}
	return -ENOENT;
}

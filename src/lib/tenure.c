/* SPDX-License-Identifier: Apache-2.0 */
/* The handle: what this process was started with. The environment is read once, here. */
#include <fcntl.h>

#include "base/parse.h"
#include "lib/internal.h"

#define STRING_(x) #x
#define STRING(x) STRING_(x)

EXPORT const char *tenure_version(void)
{
	return STRING(TENURE_VERSION_MAJOR) "." STRING(TENURE_VERSION_MINOR);
}

int number_from_environment(const char *name, uint64_t max, uint64_t *ret)
{
	const char *value = getenv(name);

	if (!value)
		return 0;
	return parse_u64(value, 0, max, ret) < 0 ? -EINVAL : 1;
}

/* The channel, when this is the process that has it: a helper that inherited the environment alone
 * has at best somebody else's descriptor of that number. */
static int open_channel(void)
{
	int domain = 0, type = 0;
	socklen_t domain_len = sizeof(domain), type_len = sizeof(type);
	uint64_t fd;

	if (number_from_environment("TENURE_CHANNEL", INT32_MAX, &fd) <= 0)
		return -1;
	if (getsockopt((int)fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) < 0 ||
		getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 ||
		domain != AF_UNIX || type != SOCK_SEQPACKET)
		return -1;
	if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
		return -1;
	return (int)fd;
}

static int read_place(struct tenure *t)
{
	const char *service = getenv("TENURE_SERVICE");
	uint64_t number;

	if (!service || number_from_environment("TENURE_GENERATION", UINT32_MAX, &number) <= 0)
		return 0;
	t->where = TENURE_TENURED;
	t->generation = (unsigned)number;
	if (number_from_environment("TENURE_WORKER", INT32_MAX, &number) > 0)
		t->worker = (int)number;
	t->service = strdup(service);
	return t->service ? 0 : -ENOMEM;
}

static void read_watchdog(struct tenure *t)
{
	uint64_t usec, pid;

	if (number_from_environment("WATCHDOG_USEC", UINT64_MAX - 1, &usec) <= 0 || usec == 0)
		return;
	if (number_from_environment("WATCHDOG_PID", INT32_MAX, &pid) != 0 &&
		pid != (uint64_t)getpid())
		return;
	t->watchdog_usec = usec;
}

static int read_all(struct tenure *t)
{
	uint64_t n_listeners;
	int r = read_place(t);

	if (r < 0)
		return r;
	read_watchdog(t);
	if (t->where == TENURE_TENURED)
		t->channel_fd = open_channel();
	r = number_from_environment("TENURE_LISTENERS", INT32_MAX, &n_listeners);
	r = passed_read(t, t->channel_fd >= 0,
		r > 0 && t->where == TENURE_TENURED ? (size_t)n_listeners : SIZE_MAX);
	if (r < 0)
		return r;
	r = notify_open(t);
	if (r < 0)
		return r;
	if (t->where == TENURE_ALONE &&
		(t->listeners.n > 0 || t->stored.n > 0 || t->notify_fd >= 0))
		t->where = TENURE_SYSTEMD;
	return 0;
}

static void unset_environment(void)
{
	static const char *const names[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
		"LISTEN_PIDFDID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
		"TENURE_CHANNEL"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		(void)unsetenv(names[i]);
}

EXPORT int tenure_new(struct tenure **ret, uint64_t flags)
{
	struct tenure *t;
	int r;

	if (flags & ~(uint64_t)(TENURE_UNSET_ENVIRONMENT | TENURE_NONBLOCK))
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->worker = t->notify_fd = t->channel_fd = t->poll_fd = -1;
	t->nonblock = flags & TENURE_NONBLOCK;
	r = read_all(t);
	if (r < 0) {
		/* It stays as it was, for the caller to try something else. */
		for (size_t i = 0; i < t->stored.n; i++)
			t->stored.list[i]->fd = -1;
		t->channel_fd = -1;
		tenure_free(t);
		return r;
	}
	if (flags & TENURE_UNSET_ENVIRONMENT)
		unset_environment();
	*ret = t;
	return 0;
}

EXPORT struct tenure *tenure_free(struct tenure *t)
{
	if (!t)
		return NULL;
	for (size_t i = 0; i < t->listeners.n; i++)
		passed_free(t->listeners.list[i]);
	for (size_t i = 0; i < t->stored.n; i++) {
		close_fd(t->stored.list[i]->fd);
		passed_free(t->stored.list[i]);
	}
	for (size_t i = t->next_arrived; i < t->n_arrived; i++)
		close_fd(t->arrived[i]);
	passed_free(t->gone);
	free(t->listeners.list);
	free(t->stored.list);
	close_fd(t->poll_fd);
	close_fd(t->channel_fd);
	close_fd(t->notify_fd);
	free(t->service);
	free(t);
	return NULL;
}

EXPORT int tenure_where(const struct tenure *t)
{
	return (int)t->where;
}

EXPORT const char *tenure_service(const struct tenure *t)
{
	return t->service;
}

EXPORT unsigned tenure_generation(const struct tenure *t)
{
	return t->generation;
}

EXPORT int tenure_worker(const struct tenure *t)
{
	return t->worker;
}

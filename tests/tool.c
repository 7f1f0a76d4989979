/* SPDX-License-Identifier: Apache-2.0 */
#include "tool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

uint64_t tool_now_usec(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * TOOL_USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

void tool_die(int status, const char *format, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(status);
}

void *tool_allocate(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (!p)
		tool_die(2, "out of memory");
	return p;
}

void *tool_reallocate(void *old, size_t n, size_t size)
{
	void *p = reallocarray(old, n ? n : 1, size);

	if (!p)
		tool_die(2, "out of memory");
	return p;
}

/* Digits at the start of text, at least one; *ret_end is what follows them. */
static int parse_digits(const char *text, uint64_t *ret, const char **ret_end)
{
	uint64_t value = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
			__builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -ERANGE;
	if (p == text)
		return -EINVAL;

	*ret = value;
	*ret_end = p;
	return 0;
}

int tool_parse_unsigned(const char *text, uint64_t max, uint64_t *ret)
{
	const char *end;
	uint64_t value;
	int r;

	r = parse_digits(text, &value, &end);
	if (r < 0)
		return r;
	if (*end)
		return -EINVAL;
	if (value > max)
		return -ERANGE;

	*ret = value;
	return 0;
}

struct unit {
	const char *name;
	uint64_t factor;
};

static int parse_with_unit(
	const char *text, const struct unit *units, size_t n_units, uint64_t bare, uint64_t *ret)
{
	const char *end;
	uint64_t value, factor = 0;
	int r;

	r = parse_digits(text, &value, &end);
	if (r < 0)
		return r;

	if (!*end)
		factor = bare;
	for (size_t i = 0; i < n_units; i++)
		if (strcmp(end, units[i].name) == 0)
			factor = units[i].factor;
	if (factor == 0)
		return -EINVAL;
	if (__builtin_mul_overflow(value, factor, &value))
		return -ERANGE;

	*ret = value;
	return 0;
}

int tool_parse_usec(const char *text, uint64_t bare_usec, uint64_t *ret)
{
	static const struct unit units[] = {
		{"us", 1			},
		{"ms", TOOL_USEC_PER_MSEC	 },
		{"s",  TOOL_USEC_PER_SEC       },
		{"m",  60 * TOOL_USEC_PER_SEC  },
		{"h",  3600 * TOOL_USEC_PER_SEC},
	};

	return parse_with_unit(text, units, ELEMENTS(units), bare_usec, ret);
}

int tool_parse_size(const char *text, uint64_t *ret)
{
	static const struct unit units[] = {
		{"K", UINT64_C(1) << 10},
		{"M", UINT64_C(1) << 20},
		{"G", UINT64_C(1) << 30},
	};

	return parse_with_unit(text, units, ELEMENTS(units), 1, ret);
}

int tool_parse_host(const char *text, struct tool_address *ret)
{
	struct tool_address address = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&address.storage;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address.storage;

	if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		address.len = sizeof(*in);
	} else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		address.len = sizeof(*in6);
	} else
		return -EINVAL;

	*ret = address;
	return 0;
}

static int parse_unix(const char *path, struct tool_address *ret)
{
	struct tool_address address = {0};
	struct sockaddr_un *un = (struct sockaddr_un *)&address.storage;
	size_t len = strlen(path);

	if (len == 0 || len >= sizeof(un->sun_path))
		return -EINVAL;

	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len);
	address.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	if (path[0] == '@')
		un->sun_path[0] = '\0';
	else
		address.len++; /* a path counts with its NUL, an abstract name without */

	*ret = address;
	return 0;
}

int tool_parse_address(const char *text, struct tool_address *ret)
{
	char host[64] = "127.0.0.1";
	const char *port = text;
	uint64_t value;
	int r;

	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(text + 5, ret);
	if (strncmp(text, "tcp:", 4) == 0)
		port = text += 4;

	const char *colon = strrchr(text, ':');
	if (colon) {
		const char *from = text, *to = colon;

		if (*from == '[' && to > from && to[-1] == ']') {
			from++;
			to--;
		}
		if ((size_t)(to - from) >= sizeof(host))
			return -EINVAL;
		memcpy(host, from, (size_t)(to - from));
		host[to - from] = '\0';
		port = colon + 1;
	}

	r = tool_parse_unsigned(port, UINT16_MAX, &value);
	if (r < 0)
		return r;
	r = tool_parse_host(host, ret);
	if (r < 0)
		return r;

	/* sin_port and sin6_port lie at the same place. */
	((struct sockaddr_in *)&ret->storage)->sin_port = htons((uint16_t)value);
	return 0;
}

int tool_notify(const char *message, bool wait)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t len;
	ssize_t n;
	int fd, r;

	if (!path || !*path)
		return 0;
	len = strlen(path);
	if (len >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, path, len);
	if (path[0] == '@')
		un.sun_path[0] = '\0';

	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	n = sendto(fd, message, strlen(message), MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT),
		(struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	r = n < 0 ? -errno : 1;
	close(fd);
	return r;
}

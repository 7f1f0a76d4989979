/* SPDX-License-Identifier: Apache-2.0 */
#include "base/util.h"

#include <stdarg.h>

int close_fd(int fd)
{
	if (fd >= 0) {
		int saved_errno = errno;

		/* On Linux the descriptor is gone whatever close() says: never again, also on
		 * EINTR. */
		(void)close(fd);
		errno = saved_errno;
	}
	return -1;
}

const char *startswith(const char *s, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(s, prefix, len) == 0 ? s + len : NULL;
}

char *xasprintf(const char *format, ...)
{
	char *ret = NULL;
	va_list ap;
	int r;

	va_start(ap, format);
	r = vasprintf(&ret, format, ap);
	va_end(ap);
	return r < 0 ? NULL : ret;
}

int array_reserve(void *array, size_t *capacity, size_t n, size_t element_size)
{
	size_t wanted = *capacity;
	void *old, *new;

	if (n <= *capacity)
		return 0;
	while (wanted < n) {
		if (wanted > SIZE_MAX / 2)
			return -ENOMEM;
		wanted = wanted == 0 ? 4 : wanted * 2;
	}
	if (wanted > PTRDIFF_MAX / element_size)
		return -ENOMEM;

	/* The pointer is of another type than void *, so it is copied, not dereferenced. */
	memcpy(&old, array, sizeof(old));
	new = reallocarray(old, wanted, element_size);
	if (!new)
		return -ENOMEM;
	memcpy(array, &new, sizeof(new));
	*capacity = wanted;
	return 0;
}

char **strv_free(char **l)
{
	if (!l)
		return NULL;
	for (char **s = l; *s; s++)
		free(*s);
	free(l);
	return NULL;
}

size_t strv_length(char *const *l)
{
	size_t n = 0;

	if (!l)
		return 0;
	while (l[n])
		n++;
	return n;
}

int strv_append_take(char ***l, char *s)
{
	size_t n = strv_length(*l);
	char **new;

	if (!s)
		return -ENOMEM;
	new = reallocarray(*l, n + 2, sizeof(char *));
	if (!new) {
		free(s);
		return -ENOMEM;
	}
	new[n] = s;
	new[n + 1] = NULL;
	*l = new;
	return 0;
}

int strv_append(char ***l, const char *s)
{
	return strv_append_take(l, strdup(s));
}

char **strv_copy(char *const *l)
{
	size_t n = strv_length(l);
	char **copy;

	copy = calloc(n + 1, sizeof(char *));
	if (!copy)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		copy[i] = strdup(l[i]);
		if (!copy[i])
			return strv_free(copy);
	}
	return copy;
}

bool strv_equal(char *const *a, char *const *b)
{
	size_t n = strv_length(a);

	if (n != strv_length(b))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!streq(a[i], b[i]))
			return false;
	return true;
}

/* What follows "name=" in s, or NULL. */
static const char *env_value(const char *s, const char *name)
{
	const char *rest = startswith(s, name);

	return rest && *rest == '=' ? rest + 1 : NULL;
}

const char *strv_env_get(char *const *l, const char *name)
{
	if (!l)
		return NULL;
	for (; *l; l++) {
		const char *value = env_value(*l, name);

		if (value)
			return value;
	}
	return NULL;
}

int strv_env_set(char ***l, const char *name, const char *value)
{
	_cleanup_free_ char *entry = xasprintf("%s=%s", name, value);
	char **to;

	if (!entry)
		return -ENOMEM;
	if (!*l)
		return strv_append_take(l, TAKE_PTR(entry));

	/* The first of that name is replaced, further ones (an environment may have them) go. */
	to = *l;
	for (char **from = *l; *from; from++) {
		if (!env_value(*from, name)) {
			*to++ = *from;
			continue;
		}
		free(*from);
		if (entry)
			*to++ = TAKE_PTR(entry);
	}
	*to = NULL;
	return entry ? strv_append_take(l, TAKE_PTR(entry)) : 0;
}

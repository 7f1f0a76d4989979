/* SPDX-License-Identifier: Apache-2.0 */
/* References to listeners and sockets in arguments and variables. */
#include "core/dialect.h"

#include <strings.h>

#include "base/parse.h"

static bool is_name_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '_' || c == '.' || c == '-';
}

/* How each kind begins and ends. circus takes its own in any case of letters. */
static const struct {
	enum dialect_reference_kind kind;
	const char *before, *after;
} forms[] = {
	{REFERENCE_FD,     "{fd:",	       "}" },
	{REFERENCE_SOCKET, "{socket:",	       "}" },
	{REFERENCE_CIRCUS, "$(circus.sockets.", ")" },
	{REFERENCE_CIRCUS, "((circus.sockets.", "))"},
};

int dialect_reference_next(const char *s, unsigned kinds, struct dialect_reference *ret)
{
	for (; *s; s++) {
		for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
			size_t before = strlen(forms[i].before), after = strlen(forms[i].after);
			const char *end;

			if (!(kinds & (1U << forms[i].kind)) ||
				(forms[i].kind == REFERENCE_CIRCUS
						? strncasecmp(s, forms[i].before, before)
						: strncmp(s, forms[i].before, before)) != 0)
				continue;
			for (end = s + before; is_name_char(*end); end++)
				;
			*ret = (struct dialect_reference){.kind = forms[i].kind,
				.start = s,
				.name = s + before,
				.len = (size_t)(end - s) - before};
			if (ret->len == 0 || strncmp(end, forms[i].after, after) != 0)
				return -EINVAL;
			ret->end = end + after;
			return 1;
		}
	}
	return 0;
}

static bool is_listener(const struct dialect_reference *r, const struct listener_config *l)
{
	if (!l->name || strlen(l->name) != r->len)
		return false;
	return (r->kind == REFERENCE_CIRCUS ? strncasecmp(l->name, r->name, r->len)
					    : strncmp(l->name, r->name, r->len)) == 0;
}

/* *out, and n bytes of text behind it. */
static int append(char **out, const char *text, size_t n)
{
	char *longer = xasprintf("%s%.*s", *out, (int)n, text);

	if (!longer)
		return -ENOMEM;
	free(*out);
	*out = longer;
	return 0;
}

int dialect_replace(const char *text, unsigned handoff, const struct listener_config *listeners,
	size_t n, char **ret)
{
	unsigned kinds =
		1U << REFERENCE_FD | (handoff & HANDOFF_CIRCUS ? 1U << REFERENCE_CIRCUS : 0);
	_cleanup_free_ char *out = strdup("");
	struct dialect_reference reference;
	int q = out ? 0 : -ENOMEM;

	while (q >= 0 && (q = dialect_reference_next(text, kinds, &reference)) != 0) {
		char number[16] = "";

		if (q < 0) { /* of a caller's environment: no reference then */
			q = append(&out, text, (size_t)(reference.name - text));
			text = reference.name;
			continue;
		}
		for (size_t i = 0; i < n; i++)
			if (is_listener(&reference, &listeners[i]))
				snprintf(number, sizeof(number), "%d",
					dialect_listener_fd(handoff, i));
		q = append(&out, text, (size_t)(reference.start - text));
		if (q >= 0 && *number)
			q = append(&out, number, strlen(number));
		else if (q >= 0)
			q = append(
				&out, reference.start, (size_t)(reference.end - reference.start));
		text = reference.end;
	}
	if (q >= 0)
		q = append(&out, text, strlen(text));
	if (q < 0)
		return q;
	*ret = TAKE_PTR(out);
	return 0;
}

const struct dialect *dialect_of_socket(const char *word, size_t len)
{
	static const char *const served[] = {"haproxy", "uwsgi-zerg", "einhorn"};

	for (size_t i = 0; i < ARRAY_SIZE(served); i++)
		if (strlen(served[i]) == len && strncmp(served[i], word, len) == 0)
			return dialect_find(served[i]);
	return NULL;
}

int dialect_replace_sockets(const char *text, const char *(*path_of)(enum handoff_kind, void *),
	void *userdata, char **ret)
{
	_cleanup_free_ char *out = strdup("");
	struct dialect_reference reference;
	int q = out ? 0 : -ENOMEM;

	while (q >= 0 &&
		(q = dialect_reference_next(text, 1U << REFERENCE_SOCKET, &reference)) != 0) {
		const struct dialect *d =
			q > 0 ? dialect_of_socket(reference.name, reference.len) : NULL;
		const char *path = d ? path_of(d->kind, userdata) : NULL,
			   *end = path ? reference.start : reference.name;

		q = append(&out, text, (size_t)(end - text));
		if (q >= 0 && path)
			q = append(&out, path, strlen(path));
		text = path ? reference.end : reference.name;
	}
	if (q >= 0)
		q = append(&out, text, strlen(text));
	if (q < 0)
		return q;
	*ret = TAKE_PTR(out);
	return 0;
}

/* --- einhorn's srv: --------------------------------------------------------- */

/* Letters, digits and "_" behind each comma, to the end. */
static bool are_flags(const char *s)
{
	while (*s == ',') {
		const char *start = ++s;

		while (is_name_char(*s) && *s != '.' && *s != '-')
			s++;
		if (s == start)
			return false;
	}
	return *s == '\0';
}

/* As a listener's "127.0.0.1:80" is read; names of devices and hosts are nobody's business here. */
static int read_host_port(const char *host, const char *port, struct address *ret)
{
	uint8_t bytes[16];
	unsigned number;
	int family;

	if (address_parse_ip(streq(host, "localhost") ? "127.0.0.1" : host, &family, bytes) < 0 ||
		family != AF_INET || parse_uint(port, 1, UINT16_MAX, &number) < 0)
		return -EINVAL;
	*ret = (struct address){.kind = ADDRESS_TCP, .len = sizeof(ret->in4)};
	ret->in4.sin_family = AF_INET;
	ret->in4.sin_port = htons((uint16_t)number);
	memcpy(&ret->in4.sin_addr, bytes, sizeof(ret->in4.sin_addr));
	return 1;
}

int dialect_srv(const char *argument, struct address *ret, size_t *ret_before)
{
	const char *start = argument, *colon, *end;
	_cleanup_free_ char *host = NULL, *port = NULL;

	for (const char *next = argument; (next = strstr(next, "=srv:")); next++)
		start = next + 1;
	*ret_before = (size_t)(start - argument);
	start = startswith(start, "srv:");
	colon = start ? strchr(start, ':') : NULL;
	if (!colon || colon == start)
		return 0;
	end = colon + 1 + strspn(colon + 1, "0123456789");
	if (end == colon + 1 || !are_flags(end))
		return 0;
	host = strndup(start, (size_t)(colon - start));
	port = strndup(colon + 1, (size_t)(end - colon - 1));
	return host && port ? read_host_port(host, port, ret) : -ENOMEM;
}

size_t dialect_srv_listener(
	const struct address *a, const struct listener_config *listeners, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct listener_config *l = &listeners[i];

		if (l->address.len > 0 &&
			(address_equal(&l->address, a) ||
				(address_is_wildcard(&l->address) &&
					address_overlaps(&l->address, l->v6only, a, false))))
			return i;
	}
	return SIZE_MAX;
}

int dialect_replace_srv(const char *argument, unsigned handoff,
	const struct listener_config *listeners, size_t n, char **ret)
{
	struct address a;
	size_t before, i;
	int q = handoff & HANDOFF_EINHORN ? dialect_srv(argument, &a, &before) : 0;

	if (q <= 0)
		return q == -ENOMEM ? q : 0;
	i = dialect_srv_listener(&a, listeners, n);
	if (i == SIZE_MAX)
		return 0;
	*ret = xasprintf("%.*s%d", (int)before, argument, dialect_listener_fd(handoff, i));
	return *ret ? 1 : -ENOMEM;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Each convention as its own programs parse it, to the letter. The fixed strings are theirs. */
#include "core/dialect.h"

/* --- how addresses are written -------------------------------------------- */

/* The path of a Unix socket; "" for one that has none. NULL: out of memory. */
static char *path_of(const struct address *a)
{
	size_t before = offsetof(struct sockaddr_un, sun_path);

	return strndup(a->un.sun_path, a->len > before ? a->len - before : 0);
}

static bool is_abstract(const struct address *a)
{
	return address_is_unix(a) && a->len > offsetof(struct sockaddr_un, sun_path) &&
	       a->un.sun_path[0] == '\0';
}

/* "127.0.0.1:80", "[::1]:80". NULL: out of memory. */
static char *host_port(const struct address *a)
{
	_cleanup_free_ char *text = address_format(a);
	const char *rest = text ? strchr(text, ':') : NULL;

	return rest ? strdup(rest + 1) : NULL;
}

/* As it was given to --port or --path: the port alone when it is for everybody. */
static char *server_starter_name(const struct dialect_listener *l)
{
	if (address_is_unix(&l->address))
		return path_of(&l->address);
	if (address_is_wildcard(&l->address) &&
		(address_family(&l->address) == AF_INET || !l->v6only))
		return xasprintf("%u", address_port(&l->address));
	return host_port(&l->address);
}

/* As PHP writes the address of a pool's "listen", from the socket's own: no brackets. */
static char *php_fpm_name(const struct dialect_listener *l)
{
	_cleanup_free_ char *text = NULL;
	char *out;

	if (address_is_unix(&l->address))
		return path_of(&l->address);
	text = host_port(&l->address);
	if (!text)
		return NULL;
	out = text;
	for (const char *p = text; *p; p++)
		if (*p != '[' && *p != ']')
			*out++ = *p;
	*out = '\0';
	return TAKE_PTR(text);
}

/* As it is written in a "bind". */
static char *puma_name(const struct dialect_listener *l)
{
	_cleanup_free_ char *text =
		address_is_unix(&l->address) ? path_of(&l->address) : host_port(&l->address);

	if (!text)
		return NULL;
	return xasprintf("%s://%s", address_is_unix(&l->address) ? "unix" : "tcp", text);
}

/* --- what each one sets --------------------------------------------------- */

/* before + separator + text, in the place of before. */
static int append(char **all, const char *separator, const char *text)
{
	char *longer = xasprintf("%s%s%s", *all ? *all : "", *all ? separator : "", text);

	if (!longer)
		return -ENOMEM;
	free(*all);
	*all = longer;
	return 0;
}

static int set_number(char ***env, const char *name, size_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%zu", value);
	return strv_env_set(env, name, text);
}

/* "6,7": the numbers of all, after each other. */
static int set_numbers(char ***env, const char *name, const struct dialect_request *r,
	const char *separator, const char *end)
{
	_cleanup_free_ char *all = NULL;
	char text[32];

	for (size_t i = 0; i < r->n_listeners; i++) {
		snprintf(text, sizeof(text), "%d%s", r->listeners[i].fd, end);
		if (append(&all, separator, text) < 0)
			return -ENOMEM;
	}
	return strv_env_set(env, name, all ? all : "");
}

/* "NAME=6;NAME=7". */
static int set_pairs(char ***env, const char *name, const struct dialect_request *r,
	char *(*name_of)(const struct dialect_listener *), const char *separator)
{
	_cleanup_free_ char *all = NULL;

	for (size_t i = 0; i < r->n_listeners; i++) {
		_cleanup_free_ char *of = name_of(&r->listeners[i]), *pair = NULL;

		pair = of ? xasprintf("%s=%d", of, r->listeners[i].fd) : NULL;
		if (!pair || append(&all, separator, pair) < 0)
			return -ENOMEM;
	}
	return strv_env_set(env, name, all ? all : "");
}

#define ADD(name)                                                                                  \
	static int add_##name(const struct dialect *d, const struct dialect_request *r,            \
		char ***env, struct error *ret_error)

ADD(listen_fds)
{
	_cleanup_free_ char *names = NULL;
	int q;

	(void)d;
	(void)ret_error;
	for (size_t i = 0; i < r->n_listeners; i++)
		if (append(&names, ":", r->listeners[i].name) < 0)
			return -ENOMEM;
	if (r->stored_names && append(&names, "", r->stored_names + (names ? 0 : 1)) < 0)
		return -ENOMEM;
	q = set_number(env, "LISTEN_FDS", r->n_listeners + r->n_stored);
	if (q >= 0)
		q = strv_env_set(env, "LISTEN_FDNAMES", names ? names : "");
	/* Room for the child to write its own pid into. */
	return q < 0 ? q : strv_env_set(env, "LISTEN_PID", "0000000000");
}

ADD(dinit)
{
	int q;

	(void)d;
	(void)ret_error;
	if (r->handoff & HANDOFF_LISTEN_FDS)
		return 0; /* says the same, and more */
	q = set_number(env, "LISTEN_FDS", r->n_listeners);
	return q < 0 ? q : strv_env_set(env, "LISTEN_PID", "0000000000");
}

ADD(server_starter)
{
	int q = set_pairs(env, "SERVER_STARTER_PORT", r, server_starter_name, ";");

	(void)d;
	(void)ret_error;
	return q < 0 ? q : set_number(env, "SERVER_STARTER_GENERATION", r->generation);
}

static const char *family_name(const struct address *a)
{
	switch (address_family(a)) {
	case AF_INET:
		return "AF_INET";
	case AF_INET6:
		return "AF_INET6";
	default:
		return "AF_UNIX";
	}
}

ADD(einhorn)
{
	char name[48];
	int q = set_number(env, "EINHORN_FD_COUNT", r->n_listeners);

	(void)d;
	(void)ret_error;
	for (size_t i = 0; q >= 0 && i < r->n_listeners; i++) {
		snprintf(name, sizeof(name), "EINHORN_FD_%zu", i);
		q = set_number(env, name, (size_t)r->listeners[i].fd);
		snprintf(name, sizeof(name), "EINHORN_FD_FAMILY_%zu", i);
		if (q >= 0)
			q = strv_env_set(env, name, family_name(&r->listeners[i].address));
	}
	if (q >= 0)
		q = set_numbers(env, "EINHORN_FDS", r, " ", "");
	if (q >= 0)
		q = set_number(env, "EINHORN_MASTER_PID", (size_t)r->master_pid);
	if (q >= 0)
		q = set_number(env, "EINHORN_CHILD_INDEX", r->worker);
	if (q >= 0 && r->einhorn_path)
		q = strv_env_set(env, "EINHORN_SOCK_PATH", r->einhorn_path);
	if (q >= 0 && r->einhorn_fd >= 0)
		q = set_number(env, "EINHORN_SOCK_FD", (size_t)r->einhorn_fd);
	return q;
}

ADD(nginx)
{
	(void)d;
	(void)ret_error;
	return set_numbers(env, "NGINX", r, "", ";");
}

ADD(unicorn)
{
	(void)d;
	(void)ret_error;
	return set_numbers(env, "UNICORN_FD", r, ",", "");
}

ADD(gunicorn)
{
	int q = set_numbers(env, "GUNICORN_FD", r, ",", "");

	(void)d;
	(void)ret_error;
	return q < 0 ? q : set_number(env, "GUNICORN_PID", (size_t)r->master_pid);
}

ADD(puma)
{
	(void)d;
	(void)ret_error;
	for (size_t i = 0; i < r->n_listeners; i++) {
		_cleanup_free_ char *name = xasprintf("PUMA_INHERIT_%zu", i),
				    *url = puma_name(&r->listeners[i]), *value = NULL;

		value = url ? xasprintf("%d:%s", r->listeners[i].fd, url) : NULL;
		if (!name || !value || strv_env_set(env, name, value) < 0)
			return -ENOMEM;
	}
	return 0;
}

ADD(php_fpm)
{
	(void)d;
	(void)ret_error;
	return set_pairs(env, "FPM_SOCKETS", r, php_fpm_name, ",");
}

ADD(uwsgi)
{
	int q = strv_env_set(env, "UPSTART_EVENTS", "socket");

	(void)d;
	(void)ret_error;
	return q < 0 ? q : set_numbers(env, "UPSTART_FDS", r, " ", "");
}

/* --- the table ------------------------------------------------------------ */

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* clang-format off */
static const struct dialect dialects[] = {
	{HANDOFF_LISTEN_FDS, "listen-fds", 0, "", WORDS("listenfd"),
		WORDS("LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES"), add_listen_fds},
	{HANDOFF_ARGUMENTS, "arguments", 0, "", NULL, NULL, NULL},
	{HANDOFF_STDIN, "stdin", DIALECT_ONE_LISTENER, "standard input", WORDS("inetd", "s6"), NULL, NULL},
	{HANDOFF_CHANNEL, "channel", 0, "", WORDS("libtenure"),
		WORDS("TENURE_CHANNEL", "TENURE_LISTENERS"), NULL},
	{HANDOFF_SERVER_STARTER, "server-starter", DIALECT_NO_ABSTRACT | DIALECT_NAMED, "Server::Starter",
		NULL, WORDS("SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION"), add_server_starter},
	{HANDOFF_EINHORN, "einhorn", 0, "einhorn", NULL,
		WORDS("EINHORN_FD_COUNT", "EINHORN_FD_*", "EINHORN_FD_FAMILY_*", "EINHORN_FDS", "EINHORN_MASTER_PID",
			"EINHORN_CHILD_INDEX", "EINHORN_SOCK_PATH", "EINHORN_SOCK_FD"), add_einhorn},
	{HANDOFF_NGINX, "nginx", 0, "nginx", NULL, WORDS("NGINX"), add_nginx},
	{HANDOFF_UNICORN, "unicorn", DIALECT_STREAMS, "unicorn", NULL, WORDS("UNICORN_FD"), add_unicorn},
	{HANDOFF_GUNICORN, "gunicorn", DIALECT_STREAMS, "gunicorn", NULL,
		WORDS("GUNICORN_FD", "GUNICORN_PID"), add_gunicorn},
	{HANDOFF_PUMA, "puma", DIALECT_STREAMS | DIALECT_NO_ABSTRACT | DIALECT_NAMED, "puma", NULL,
		WORDS("PUMA_INHERIT_*"), add_puma},
	{HANDOFF_PHP_FPM, "php-fpm", DIALECT_STREAMS | DIALECT_NO_ABSTRACT | DIALECT_NAMED, "php-fpm", NULL,
		WORDS("FPM_SOCKETS", "FPM_SOCKETS_*"), add_php_fpm},
	{HANDOFF_UWSGI, "uwsgi", DIALECT_STREAMS | DIALECT_ONE_LISTENER, "uwsgi, by UPSTART_FDS,", WORDS("upstart"),
		WORDS("UPSTART_EVENTS", "UPSTART_FDS"), add_uwsgi},
	{HANDOFF_UWSGI_ZERG, "uwsgi-zerg", DIALECT_STREAMS, "uwsgi", WORDS("zerg"), NULL, NULL},
	{HANDOFF_CIRCUS, "circus", 0, "circus", NULL, NULL, NULL},
	{HANDOFF_HAPROXY, "haproxy", 0, "haproxy", NULL, NULL, NULL},
	{HANDOFF_DINIT, "dinit", DIALECT_ONE_LISTENER, "dinit", NULL,
		WORDS("LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID"), add_dinit},
};

/* These need somebody at the other end who speaks them, and nobody does yet. */
static const struct {
	const char *word, *remedy;
} not_spoken[] = {
	{"ecdysis",     "use listen-fds or {fd:NAME}"},
	{"endless",     "use listen-fds or {fd:NAME}"},
	{"envoy",       "use {fd:NAME}"},
	{"huptime",     "leave huptime out: run the program itself, with listen-fds or {fd:NAME}"},
	{"pingora",     "use listen-fds or {fd:NAME}"},
	{"shellflip",   "use listen-fds"},
	{"socketmaster", "use einhorn, whose EINHORN_FDS it is, with drain: {signal: SIGTERM}"},
	{"tableflip",   "use listen-fds or {fd:NAME}"},
};
/* clang-format on */

const struct dialect *dialect_list(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(dialects);
	return dialects;
}

const struct dialect *dialect_find(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(dialects); i++) {
		const struct dialect *d = &dialects[i];

		if (streq(d->name, word))
			return d;
		for (size_t k = 0; d->aliases && d->aliases[k]; k++)
			if (streq(d->aliases[k], word))
				return d;
	}
	return NULL;
}

const char *const *dialect_names(void)
{
	static const char *names[ARRAY_SIZE(dialects) + 1];

	for (size_t i = 0; i < ARRAY_SIZE(dialects); i++)
		names[i] = dialects[i].name;
	return names;
}

const char *dialect_not_spoken(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(not_spoken); i++)
		if (streq(not_spoken[i].word, word))
			return not_spoken[i].remedy;
	return NULL;
}

bool dialect_counts(unsigned handoff)
{
	return (handoff & ~(unsigned)(HANDOFF_STDIN | HANDOFF_ARGUMENTS | HANDOFF_CIRCUS)) ||
	       !(handoff & HANDOFF_STDIN);
}

int dialect_listener_fd(unsigned handoff, size_t i)
{
	return i == 0 && !dialect_counts(handoff) ? STDIN_FILENO : 3 + (int)i;
}

bool dialect_needs_pid(unsigned handoff)
{
	return handoff & (HANDOFF_LISTEN_FDS | HANDOFF_DINIT);
}

static bool variable_is(const char *pattern, const char *name, size_t len)
{
	size_t n = strlen(pattern);

	if (n == 0 || pattern[n - 1] != '*')
		return n == len && memcmp(pattern, name, len) == 0;
	if (len < n || memcmp(pattern, name, n - 1) != 0) /* one digit at least */
		return false;
	for (size_t i = n - 1; i < len; i++)
		if (name[i] < '0' || name[i] > '9')
			return false;
	return true;
}

bool dialect_sets(unsigned handoff, const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(dialects); i++)
		for (size_t k = 0; (handoff & dialects[i].kind) && dialects[i].variables &&
				   dialects[i].variables[k];
			k++)
			if (variable_is(dialects[i].variables[k], name, len))
				return true;
	return false;
}

int dialect_environment(const struct dialect_request *r, char ***env, struct error *ret_error)
{
	for (size_t i = 0; i < ARRAY_SIZE(dialects); i++) {
		const struct dialect *d = &dialects[i];
		_cleanup_free_ char *refusal = NULL;
		int q;

		if (!(r->handoff & d->kind))
			continue;
		q = dialect_refuse(d, r->listeners, r->n_listeners, &refusal);
		if (q >= 0 && refusal)
			return error_set(ret_error, -EINVAL, "%s", refusal);
		if (q >= 0 && d->add)
			q = d->add(d, r, env, ret_error);
		if (q < 0)
			return q;
	}
	return 0;
}

/* --- what cannot be said -------------------------------------------------- */

/* By what a program would tell this listener from others; NULL in *ret: by nothing. */
static int own_name(const struct dialect *d, const struct dialect_listener *l, char **ret)
{
	if (!(d->limits & DIALECT_NAMED))
		return 0;
	*ret = d->kind == HANDOFF_SERVER_STARTER ? server_starter_name(l)
	       : d->kind == HANDOFF_PHP_FPM	 ? php_fpm_name(l)
						 : puma_name(l);
	return *ret ? 0 : -ENOMEM;
}

static const char *separators_of(const struct dialect *d)
{
	return d->kind == HANDOFF_SERVER_STARTER ? ";=" : d->kind == HANDOFF_PHP_FPM ? ",=" : "";
}

static int refuse_one(const struct dialect *d, const struct dialect_listener *l, char **ret)
{
	_cleanup_free_ char *name = NULL;
	char *text = NULL;

	if (l->address.len == 0)
		return 0;
	if ((d->limits & DIALECT_STREAMS) && address_socket_type(&l->address) == SOCK_DGRAM)
		text = xasprintf("handoff: %s: %s takes no datagram sockets, and listener %s is "
				 "one; use listen-fds or {fd:%s} for it",
			d->name, d->why, l->name, l->name);
	else if ((d->limits & DIALECT_NO_ABSTRACT) && is_abstract(&l->address))
		text = xasprintf("handoff: %s: %s names Unix sockets by their path, and listener "
				 "%s has none; give it one, as unix:/PATH",
			d->name, d->why, l->name);
	else if (own_name(d, l, &name) < 0)
		return -ENOMEM;
	else if (name && address_is_unix(&l->address) && strpbrk(name, separators_of(d)))
		text = xasprintf("handoff: %s: the path of listener %s has a \"%c\", which ends it "
				 "for %s; use another path",
			d->name, l->name, *strpbrk(name, separators_of(d)), d->why);
	else
		return 0;
	*ret = text;
	return text ? 0 : -ENOMEM;
}

/* Two that the program could not tell from each other. */
static int refuse_pair(const struct dialect *d, const struct dialect_listener *a,
	const struct dialect_listener *b, char **ret)
{
	_cleanup_free_ char *x = NULL, *y = NULL;

	if (a->address.len == 0 || b->address.len == 0)
		return 0;
	if (own_name(d, a, &x) < 0 || own_name(d, b, &y) < 0)
		return -ENOMEM;
	if (!x || !streq_null(x, y))
		return 0;
	*ret = xasprintf("handoff: %s: listeners %s and %s are both \"%s\" to %s; use listen-fds "
			 "or {fd:%s}, or give them different ports",
		d->name, a->name, b->name, x, d->why, b->name);
	return *ret ? 0 : -ENOMEM;
}

int dialect_refuse(
	const struct dialect *d, const struct dialect_listener *listeners, size_t n, char **ret)
{
	int q = 0;

	*ret = NULL;
	if ((d->limits & DIALECT_ONE_LISTENER) && n != 1) {
		*ret = xasprintf(
			"handoff: %s passes exactly one listener, and there are %zu", d->name, n);
		return *ret ? 0 : -ENOMEM;
	}
	for (size_t i = 0; q >= 0 && !*ret && i < n; i++) {
		q = refuse_one(d, &listeners[i], ret);
		for (size_t k = 0; (d->limits & DIALECT_NAMED) && q >= 0 && !*ret && k < i; k++)
			q = refuse_pair(d, &listeners[k], &listeners[i], ret);
	}
	return q;
}

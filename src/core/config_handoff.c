/* SPDX-License-Identifier: Apache-2.0 */
/* `handoff:`, with the references in arguments and variables that belong to it. */
#include "core/config_resolve.h"

#include <signal.h>
#include <strings.h>

#include "core/dialect.h"

struct handoff {
	struct service_config *s;
	struct config_problems *problems;
	unsigned n_references[REFERENCE_CIRCUS + 1];
	unsigned sockets; /* set of enum handoff_kind: {socket:WORD} found */
};

/* --- references ----------------------------------------------------------- */

/* "http, admin" for messages. NULL: out of memory. */
static char *listener_list(const struct service_config *s)
{
	_cleanup_free_ char *all = strdup("");

	for (size_t i = 0; all && i < s->n_listeners; i++) {
		char *longer = xasprintf("%s%s%s", all, i > 0 ? ", " : "", s->listeners[i].name);

		free(all);
		all = longer;
	}
	return TAKE_PTR(all);
}

static int unknown_listener(struct handoff *h, struct config_place place, const char *where,
	const struct dialect_reference *reference)
{
	_cleanup_free_ char *known = NULL;
	int len = (int)(reference->end - reference->start);

	if (h->s->n_listeners == 0) {
		config_problem_add(h->problems, place, false,
			"%s: %.*s names a listener, but service \"%s\" has none; add listen:",
			where, len, reference->start, h->s->name);
		return 0;
	}
	known = listener_list(h->s);
	if (!known)
		return -ENOMEM;
	config_problem_add(h->problems, place, false,
		"%s: %.*s does not name a listener; there is %s", where, len, reference->start,
		known);
	return 0;
}

static int check_listener(struct handoff *h, struct config_place place, const char *where,
	const struct dialect_reference *reference)
{
	_cleanup_free_ char *name = strndup(reference->name, reference->len);

	if (!name)
		return -ENOMEM;
	if ((h->s->broken & SECTION_LISTEN) || service_config_find_listener(h->s, name))
		return 0;
	/* circus takes its names in any case of letters. */
	for (size_t i = 0; reference->kind == REFERENCE_CIRCUS && i < h->s->n_listeners; i++)
		if (strcasecmp(h->s->listeners[i].name, name) == 0)
			return 0;
	return unknown_listener(h, place, where, reference);
}

static int check_reference(struct handoff *h, struct config_place place, const char *where,
	const struct dialect_reference *reference)
{
	const struct dialect *d;

	h->n_references[reference->kind]++;
	if (reference->kind != REFERENCE_SOCKET)
		return check_listener(h, place, where, reference);
	d = dialect_of_socket(reference->name, reference->len);
	if (d)
		h->sockets |= d->kind;
	else
		config_problem_add(h->problems, place, false,
			"%s: %.*s is none of {socket:haproxy}, {socket:uwsgi-zerg}, "
			"{socket:einhorn}",
			where, (int)(reference->end - reference->start), reference->start);
	return 0;
}

/* Every reference in text. */
static int check_text(
	struct handoff *h, struct config_place place, const char *where, const char *text)
{
	unsigned kinds = 1U << REFERENCE_FD | 1U << REFERENCE_SOCKET |
			 (h->s->handoff & HANDOFF_CIRCUS ? 1U << REFERENCE_CIRCUS : 0);
	static const char *const wants[] = {
		[REFERENCE_FD] = "\"{fd:\" needs a listener's name and \"}\", such as {fd:http}",
		[REFERENCE_SOCKET] = "\"{socket:\" needs haproxy, uwsgi-zerg or einhorn and \"}\"",
		[REFERENCE_CIRCUS] =
			"\"circus.sockets.\" needs a listener's name and its closing \")\"",
	};
	struct dialect_reference reference;
	int q;

	while ((q = dialect_reference_next(text, kinds, &reference)) > 0) {
		q = check_reference(h, place, where, &reference);
		if (q < 0)
			return q;
		text = reference.end;
	}
	if (q < 0)
		config_problem_add(
			h->problems, place, false, "%s: %s", where, wants[reference.kind]);
	return 0;
}

/* einhorn's srv:HOST:PORT, which is none of the references: it says where, not which. */
static int check_srv(struct handoff *h, struct config_place place, const char *argument)
{
	struct service_config *s = h->s;
	struct address a;
	size_t before;
	int q = s->handoff & HANDOFF_EINHORN ? dialect_srv(argument, &a, &before) : 0;

	if (q == -ENOMEM)
		return q;
	if (q < 0)
		config_problem_add(h->problems, place, false,
			"command: %s needs an IPv4 address and a port, such as srv:127.0.0.1:8080; "
			"or use {fd:NAME}",
			argument);
	else if (q > 0 && !(s->broken & SECTION_LISTEN) &&
		 dialect_srv_listener(&a, s->listeners, s->n_listeners) == SIZE_MAX)
		config_problem_add(h->problems, place, false,
			"command: no listener has the address in %s; add it to listen:", argument);
	return 0;
}

static int find_references(struct handoff *h)
{
	struct service_config *s = h->s;
	struct config_place place = config_place_or(s->command_place, s->place);
	int q = 0;

	for (size_t i = 0; q >= 0 && s->command && s->command[i]; i++) {
		q = check_text(h, place, "command", s->command[i]);
		if (q >= 0)
			q = check_srv(h, place, s->command[i]);
	}
	place = config_place_or(s->environment_place, s->place);
	for (size_t i = 0;
		q >= 0 && !s->environment_inherited && s->environment && s->environment[i]; i++)
		q = check_text(h, place, "environment", s->environment[i]);
	if (h->n_references[REFERENCE_FD] > 0)
		s->handoff |= HANDOFF_ARGUMENTS;
	s->handoff |= h->sockets;
	return q;
}

/* --- environment ---------------------------------------------------------- */

static bool env_name_valid(const char *name, size_t len)
{
	if (len == 0 || (*name >= '0' && *name <= '9'))
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '_'))
			return false;
	}
	return true;
}

/* What the daemon itself tells its workers; a value from the configuration would be a lie. */
static const char *const reserved_variables[] = {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
	"LISTEN_PIDFDID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "TENURE_SERVICE",
	"TENURE_GENERATION", "TENURE_WORKER", "TENURE_PREVIEW_FROM"};

static bool env_reserved(const struct service_config *s, const char *name, size_t len)
{
	if (dialect_sets(s->handoff, name, len) ||
		(s->ready.by == READY_FD && s->ready.variable && strlen(s->ready.variable) == len &&
			memcmp(s->ready.variable, name, len) == 0))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(reserved_variables); i++)
		if (strlen(reserved_variables[i]) == len &&
			memcmp(reserved_variables[i], name, len) == 0)
			return true;
	return false;
}

static void check_environment(struct handoff *h)
{
	struct service_config *s = h->s;
	const struct config_place place = config_place_or(s->environment_place, s->place);

	if (s->environment_inherited || (s->broken & SECTION_ENVIRONMENT))
		return;
	for (size_t i = 0; s->environment && s->environment[i]; i++) {
		const char *name = s->environment[i];
		size_t len = strcspn(name, "=");

		if (!env_name_valid(name, len))
			config_problem_add(h->problems, place, false,
				"\"%.*s\" is not a variable's name; write A-Z a-z 0-9 and _, not "
				"beginning with a digit",
				(int)MIN(len, 100), name);
		else if (env_reserved(s, name, len))
			config_problem_add(h->problems, place, false,
				"%.*s is set by tenured for each worker; remove it", (int)len,
				name);
	}
}

/* --- what each way needs -------------------------------------------------- */

/* What is in the arguments, or nowhere. */
static void check_arguments(struct handoff *h, struct config_place place)
{
	/* clang-format off */
	static const struct {
		enum handoff_kind kind;
		const char *text;
	} sockets[] = {
		{HANDOFF_HAPROXY,    "handoff: haproxy, but the command does not have it ask for its "
				     "sockets; add -x {socket:haproxy} to it"},
		{HANDOFF_UWSGI_ZERG, "handoff: uwsgi-zerg, but the command does not have it ask for "
				     "its sockets; add --zerg {socket:uwsgi-zerg} to it"},
	};
	/* clang-format on */

	if (h->s->handoff == HANDOFF_ARGUMENTS && h->n_references[REFERENCE_FD] == 0)
		config_problem_add(h->problems, place, false,
			"handoff: arguments, but neither command nor environment has a {fd:NAME}");
	if ((h->s->handoff & HANDOFF_CIRCUS) && h->n_references[REFERENCE_CIRCUS] == 0)
		config_problem_add(h->problems, place, false,
			"handoff: circus, but neither command nor environment has a "
			"$(circus.sockets.NAME)");
	for (size_t i = 0; i < ARRAY_SIZE(sockets); i++)
		if ((h->s->handoff & sockets[i].kind) && !(h->sockets & sockets[i].kind))
			config_problem_add(h->problems, place, false, "%s", sockets[i].text);
}

static int check_dialects(struct handoff *h, struct config_place place)
{
	struct service_config *s = h->s;
	_cleanup_free_ struct dialect_listener *listeners =
		calloc(s->n_listeners + 1, sizeof(*listeners));
	const struct dialect *list;
	size_t n;

	if (!listeners)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_listeners; i++)
		listeners[i] = (struct dialect_listener){.name = s->listeners[i].name,
			.address = s->listeners[i].address,
			.v6only = s->listeners[i].v6only};
	list = dialect_list(&n);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *refusal = NULL;

		if (!(s->handoff & list[i].kind))
			continue;
		if (dialect_refuse(&list[i], listeners, s->n_listeners, &refusal) < 0)
			return -ENOMEM;
		if (refusal)
			config_problem_add(h->problems, place, false, "%s", refusal);
	}
	return 0;
}

/* Programs that read both, and count what is told twice as two. */
static void warn_of_twice(struct handoff *h, struct config_place place)
{
	static const struct {
		enum handoff_kind kind;
		const char *name;
	} twice[] = {
		{HANDOFF_UNICORN, "unicorn"},
		{HANDOFF_UWSGI,	"uwsgi"  },
	};

	for (size_t i = 0; i < ARRAY_SIZE(twice); i++)
		if ((h->s->handoff & twice[i].kind) && (h->s->handoff & HANDOFF_LISTEN_FDS))
			config_problem_add(h->problems, place, true,
				"handoff: %s reads listen-fds too, and would have each socket "
				"twice; "
				"leave one of them out",
				twice[i].name);
}

static int check_handoff(struct handoff *h)
{
	struct service_config *s = h->s;
	const struct config_place place = config_place_or(s->handoff_place, s->place);
	int q;

	if (s->broken & (SECTION_HANDOFF | SECTION_LISTEN | SECTION_COMMAND | SECTION_ENVIRONMENT))
		return 0;
	if (s->n_listeners == 0 && !s->handoff_set)
		return 0;
	q = check_dialects(h, place);
	if (q < 0 || s->n_listeners == 0)
		return q;
	if (s->handoff == 0)
		config_problem_add(h->problems, place, false,
			"service \"%s\" has listeners but no way to pass them; use handoff: "
			"listen-fds, "
			"or {fd:NAME} in the command",
			s->name);
	check_arguments(h, place);
	warn_of_twice(h, place);
	return 0;
}

int config_resolve_handoff(struct service_config *s, struct config_problems *problems)
{
	struct handoff h = {.s = s, .problems = problems};
	int q = find_references(&h);

	if (q < 0)
		return q;
	/* The sockets from the start come that way, and the channel brings the others. */
	if (s->handoff & HANDOFF_CHANNEL)
		s->handoff |= HANDOFF_LISTEN_FDS;
	check_environment(&h);
	if ((s->handoff & HANDOFF_EINHORN) && !s->drain.signal_set)
		s->drain.signal = SIGUSR2;
	return check_handoff(&h);
}

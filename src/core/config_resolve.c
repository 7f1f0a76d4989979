/* SPDX-License-Identifier: Apache-2.0 */
/* From what was written to what is meant: defaults that depend on several keys, and every check
 * that needs more than one value. Ranges of single values are checked where they are read, which
 * knows their place better; what the command line can set as well is checked here again. */
#include "core/config_resolve.h"

struct resolve {
	struct service_config *s;
	struct config_problems *problems;
	unsigned n_cpus;
	unsigned n_references; /* {fd:NAME} found */
};

struct config_place config_place_or(struct config_place preferred, struct config_place fallback)
{
	return preferred.line > 0 ? preferred : fallback;
}

/* --- command, environment, handoff ---------------------------------------- */

static int check_identity(struct resolve *r)
{
	struct service_config *s = r->s;

	if (!config_name_valid(s->name))
		config_problem_add(r->problems, s->place, false,
			"\"%s\" is not a service's name; write 1 to %d of A-Z a-z 0-9 _ . and -, "
			"not beginning with -",
			s->name, CONFIG_NAME_MAX);
	if (s->user && !config_user_valid(s->user))
		config_problem_add(r->problems, s->place, false,
			"service \"%s\": user: \"%s\" is not a user's name or number", s->name,
			s->user);
	if (s->group && !config_user_valid(s->group))
		config_problem_add(r->problems, s->place, false,
			"service \"%s\": group: \"%s\" is not a group's name or number", s->name,
			s->group);
	if (s->directory && s->directory[0] != '/')
		config_problem_add(r->problems, s->place, false,
			"service \"%s\": directory: \"%s\" is not an absolute path", s->name,
			s->directory);
	return 0;
}

static int check_command(struct resolve *r)
{
	struct service_config *s = r->s;

	if (s->broken & SECTION_COMMAND)
		return 0;
	if (!s->command || !s->command[0])
		config_problem_add(r->problems, s->place, false,
			"service \"%s\" has no command; write command: PROGRAM ARGUMENTS", s->name);
	else if (!s->command[0][0])
		config_problem_add(r->problems, config_place_or(s->command_place, s->place), false,
			"the command's first word, the program, is empty");
	return 0;
}

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

static int unknown_reference(
	struct resolve *r, struct config_place place, const char *where, const char *name)
{
	_cleanup_free_ char *known = NULL;

	if (r->s->n_listeners == 0) {
		config_problem_add(r->problems, place, false,
			"%s: {fd:%s} names a listener, but service \"%s\" has none; add listen:",
			where, name, r->s->name);
		return 0;
	}
	known = listener_list(r->s);
	if (!known)
		return -ENOMEM;
	config_problem_add(r->problems, place, false,
		"%s: {fd:%s} does not name a listener; there is %s", where, name, known);
	return 0;
}

/* Every {fd:NAME} in text. Returns the number that were found, or -ENOMEM. */
static int check_references(
	struct resolve *r, struct config_place place, const char *where, const char *text)
{
	const char *start, *name, *end;
	size_t len;
	int n = 0, q;

	for (; (q = config_fd_reference(text, &start, &name, &len, &end)) > 0; text = end) {
		_cleanup_free_ char *word = strndup(name, len);

		if (!word)
			return -ENOMEM;
		n++;
		if (!(r->s->broken & SECTION_LISTEN) && !service_config_find_listener(r->s, word)) {
			q = unknown_reference(r, place, where, word);
			if (q < 0)
				return q;
		}
	}
	if (q < 0)
		config_problem_add(r->problems, place, false,
			"%s: \"{fd:\" needs a listener's name and \"}\", such as {fd:http}", where);
	return n;
}

static int find_references(struct resolve *r)
{
	struct service_config *s = r->s;
	struct config_place place = config_place_or(s->command_place, s->place);
	int n;

	for (size_t i = 0; s->command && s->command[i]; i++) {
		n = check_references(r, place, "command", s->command[i]);
		if (n < 0)
			return n;
		r->n_references += (unsigned)n;
	}
	place = config_place_or(s->environment_place, s->place);
	for (size_t i = 0; !s->environment_inherited && s->environment && s->environment[i]; i++) {
		n = check_references(r, place, "environment", s->environment[i]);
		if (n < 0)
			return n;
		r->n_references += (unsigned)n;
	}
	if (r->n_references > 0)
		s->handoff |= HANDOFF_ARGUMENTS;
	return 0;
}

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

static bool env_reserved(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(reserved_variables); i++)
		if (strlen(reserved_variables[i]) == len &&
			memcmp(reserved_variables[i], name, len) == 0)
			return true;
	return false;
}

static int check_environment(struct resolve *r)
{
	struct service_config *s = r->s;
	const struct config_place place = config_place_or(s->environment_place, s->place);

	if (s->environment_inherited || (s->broken & SECTION_ENVIRONMENT))
		return 0;
	for (size_t i = 0; s->environment && s->environment[i]; i++) {
		const char *name = s->environment[i];
		size_t len = strcspn(name, "=");

		if (!env_name_valid(name, len))
			config_problem_add(r->problems, place, false,
				"\"%.*s\" is not a variable's name; write A-Z a-z 0-9 and _, not "
				"beginning with a digit",
				(int)MIN(len, 100), name);
		else if (env_reserved(name, len))
			config_problem_add(r->problems, place, false,
				"%.*s is set by tenured for each worker; remove it", (int)len,
				name);
	}
	return 0;
}

static int check_handoff(struct resolve *r)
{
	struct service_config *s = r->s;
	const struct config_place place = config_place_or(s->handoff_place, s->place);

	if (s->broken & (SECTION_HANDOFF | SECTION_LISTEN | SECTION_COMMAND | SECTION_ENVIRONMENT))
		return 0;
	if ((s->handoff & HANDOFF_STDIN) && s->n_listeners != 1)
		config_problem_add(r->problems, place, false,
			"handoff: stdin passes exactly one listener, service \"%s\" has %zu",
			s->name, s->n_listeners);
	if (s->n_listeners == 0)
		return 0;
	if (s->handoff == 0)
		config_problem_add(r->problems, place, false,
			"service \"%s\" has listeners but no way to pass them; use handoff: "
			"listen-fds, "
			"or {fd:NAME} in the command",
			s->name);
	if (s->handoff == HANDOFF_ARGUMENTS && r->n_references == 0)
		config_problem_add(r->problems, place, false,
			"handoff: arguments, but neither command nor environment has a {fd:NAME}");
	return 0;
}

/* --- workers, readiness --------------------------------------------------- */

static int resolve_workers(struct resolve *r)
{
	struct service_config *s = r->s;

	if (s->workers_auto)
		s->workers = MIN(MAX(r->n_cpus, 1U), (unsigned)CONFIG_WORKERS_MAX);
	else if (s->workers < 1 || s->workers > CONFIG_WORKERS_MAX)
		config_problem_add(r->problems, s->place, false,
			"workers: %u is not between 1 and %d", s->workers, CONFIG_WORKERS_MAX);
	return 0;
}

static void check_ready_kind(struct resolve *r, struct config_place place, size_t n_lanes)
{
	const struct ready_config *ready = &r->s->ready;

	switch (ready->by) {
	case READY_ACCEPT:
		if (n_lanes == 0)
			config_problem_add(r->problems, place, false,
				"ready by accept needs a TCP listener with steering; use notify, "
				"exec or delay");
		else if (!ready->accept)
			config_problem_add(r->problems, place, false,
				"ready by accept and \"accept: false\" contradict each other; use "
				"another kind");
		break;
	case READY_HTTP:
		if (n_lanes == 0)
			config_problem_add(r->problems, place, false,
				"ready by http needs a TCP listener with steering: on a queue that "
				"both generations share, the old one could answer; use notify, "
				"exec or delay");
		break;
	case READY_EXEC:
		if (!ready->command || !ready->command[0])
			config_problem_add(
				r->problems, place, false, "ready by exec needs a \"command\"");
		break;
	case READY_DELAY:
		if (ready->delay_usec >= ready->timeout_usec)
			config_problem_add(r->problems, place, false,
				"ready: the delay is not shorter than the timeout, so no worker "
				"would ever be ready");
		break;
	case READY_NOTIFY:
		break;
	}
}

static int resolve_ready(struct resolve *r)
{
	struct service_config *s = r->s;
	struct ready_config *ready = &s->ready;
	size_t n_lanes = config_count_probed(s);

	if (!ready->by_set) {
		ready->by = READY_DELAY;
		if (n_lanes > 0 && ready->accept)
			ready->by = READY_ACCEPT;
	}
	if (s->broken & (SECTION_READY | SECTION_LISTEN))
		return 0;
	check_ready_kind(r, config_place_or(ready->place, s->place), n_lanes);
	if ((ready->by == READY_HTTP || ready->by == READY_EXEC) &&
		ready->interval_usec >= ready->timeout_usec)
		config_problem_add(r->problems, config_place_or(ready->place, s->place), false,
			"ready: the interval is not shorter than the timeout");
	return 0;
}

/* --- drain, restart, control ---------------------------------------------- */

static int check_drain(struct resolve *r)
{
	const struct drain_config *d = &r->s->drain;
	const struct config_place place = config_place_or(d->place, r->s->place);

	if (r->s->broken & SECTION_DRAIN)
		return 0;
	if (d->settle_usec > d->settle_timeout_usec)
		config_problem_add(
			r->problems, place, false, "drain: settle is longer than settle_timeout");
	if (d->max_generations < 2 || d->max_generations > CONFIG_GENERATIONS_MAX)
		config_problem_add(r->problems, place, false,
			"drain: max_generations is between 2 and %d", CONFIG_GENERATIONS_MAX);
	return 0;
}

static int check_restart(struct resolve *r)
{
	const struct restart_config *c = &r->s->restart;
	const struct config_place place = config_place_or(c->place, r->s->place);

	if (r->s->broken & SECTION_RESTART)
		return 0;
	if (c->backoff_from_usec > c->backoff_to_usec)
		config_problem_add(r->problems, place, false,
			"restart: the backoff begins (from) above its ceiling (to)");
	if (c->limit_starts > 0 && c->limit_within_usec == 0)
		config_problem_add(r->problems, place, false,
			"restart: a limit of starts needs a time (within) of more than 0s");
	return 0;
}

static int check_recycle(struct resolve *r)
{
	const struct recycle_config *c = &r->s->recycle;

	if (r->s->broken & (SECTION_RECYCLE | SECTION_RESTART))
		return 0;
	if ((c->after_usec > 0 || c->memory > 0) && r->s->restart.policy == RESTART_NEVER)
		config_problem_add(r->problems, config_place_or(c->place, r->s->place), false,
			"recycle replaces workers, and \"restart: never\" forbids that; use "
			"restart: on-failure, or no recycle");
	return 0;
}

static int check_resources(struct resolve *r)
{
	const struct service_config *s = r->s;

	if (!(s->broken & (SECTION_WORKERS | SECTION_RECYCLE | SECTION_RESOURCES)))
		resources_check(s, config_place_or(s->resources_place, s->place), r->problems);
	return 0;
}

static int check_cpu_affinity(struct resolve *r)
{
	const struct service_config *s = r->s;

	if ((s->broken & (SECTION_CPU_AFFINITY | SECTION_WORKERS)) ||
		s->cpu_affinity != CPU_AFFINITY_PER_WORKER || s->workers <= MAX(r->n_cpus, 1U))
		return 0;
	config_problem_add(r->problems, config_place_or(s->cpu_affinity_place, s->place), true,
		"cpu_affinity: per-worker, but %u workers share %u CPU%s; with workers: auto each "
		"has its own",
		s->workers, MAX(r->n_cpus, 1U), r->n_cpus > 1 ? "s" : "");
	return 0;
}

static void check_people(const struct config *c, char *const *people, const char *key,
	struct config_problems *problems)
{
	for (size_t i = 0; people && people[i]; i++) {
		const char *name = people[i][0] == '@' ? people[i] + 1 : people[i];

		if (!config_user_valid(name))
			config_problem_add(problems, c->control.place, false,
				"control: %s: \"%s\" is not a user or, after \"@\", a group", key,
				people[i]);
	}
}

static void check_control(const struct config *c, struct config_problems *problems)
{
	const char *path = c->control.socket;

	check_people(c, c->control.operators, "operators", problems);
	check_people(c, c->control.observers, "observers", problems);
	if (path && path[0] != '/')
		config_problem_add(problems, c->control.place, false,
			"control: socket: \"%s\" is not an absolute path", path);
	if (path && strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		config_problem_add(problems, c->control.place, false,
			"control: socket: the path is longer than the %zu bytes of a Unix socket's",
			sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
}

/* --- all of it ------------------------------------------------------------ */

static int resolve_listeners(struct resolve *r)
{
	return config_resolve_listeners(r->s, r->problems);
}

static int resolve_upgrade(struct resolve *r)
{
	return config_resolve_upgrade(r->s, r->problems);
}

/* In this order: later ones look at what earlier ones filled in. */
static int (*const service_steps[])(struct resolve *) = {
	check_identity,
	check_command,
	resolve_listeners,
	find_references,
	check_environment,
	check_handoff,
	resolve_workers,
	resolve_ready,
	resolve_upgrade,
	check_drain,
	check_restart,
	check_recycle,
	check_cpu_affinity,
	check_resources,
};

static void check_duplicates(const struct config *c, struct config_problems *problems)
{
	for (size_t i = 1; i < c->n_services; i++) {
		const struct service_config *s = &c->services[i];
		const struct service_config *first = config_find(c, s->name);

		if (first == s)
			continue;
		if (first->place.file && first->place.line > 0)
			config_problem_add(problems, s->place, false,
				"service \"%s\" is already defined in %s:%u", s->name,
				first->place.file, first->place.line);
		else
			config_problem_add(problems, s->place, false,
				"service \"%s\" is defined twice", s->name);
	}
}

static size_t file_order(const struct config *c, const char *file)
{
	size_t i = 0;

	while (file && c->files && c->files[i] && !streq(c->files[i], file))
		i++;
	return file ? i : 0;
}

static bool place_before(const struct config *c, struct config_place a, struct config_place b)
{
	size_t x = file_order(c, a.file), y = file_order(c, b.file);

	if (x != y)
		return x < y;
	if (a.line != b.line)
		return a.line < b.line;
	return a.column < b.column;
}

/* As a person reads the files; stable, and short enough (CONFIG_PROBLEMS_MAX) for insertion. */
static void sort_problems(const struct config *c, struct config_problems *problems)
{
	for (size_t i = 1; i < problems->n; i++) {
		struct config_problem p = problems->list[i];
		size_t j = i;

		for (; j > 0 && place_before(c, p.place, problems->list[j - 1].place); j--)
			problems->list[j] = problems->list[j - 1];
		problems->list[j] = p;
	}
}

int config_resolve(struct config *c, unsigned n_cpus, struct config_problems *problems)
{
	int q;

	if (c->n_services > CONFIG_SERVICES_MAX) {
		config_problem_add(problems,
			(struct config_place){.file = c->files ? c->files[0] : NULL}, false,
			"%zu services; at most %d are possible", c->n_services,
			CONFIG_SERVICES_MAX);
		return 0;
	}
	check_control(c, problems);
	for (size_t i = 0; i < c->n_services; i++) {
		struct resolve r = {.s = &c->services[i], .problems = problems, .n_cpus = n_cpus};

		for (size_t j = 0; j < ARRAY_SIZE(service_steps); j++) {
			q = service_steps[j](&r);
			if (q < 0)
				return q;
		}
	}
	check_duplicates(c, problems);
	q = config_check_overlaps(c, problems);
	if (q < 0)
		return q;
	sort_problems(c, problems);
	return 0;
}

void config_check_root(
	const struct config *c, bool daemon_is_root, struct config_problems *problems)
{
	for (size_t i = 0; i < c->n_services; i++) {
		const struct service_config *s = &c->services[i];

		if (s->user && !streq(s->user, "root") && !streq(s->user, "0"))
			continue;
		if (!s->user && !daemon_is_root)
			continue;
		config_problem_add(problems, s->place, true,
			"service \"%s\" runs as root; give it a user of its own with user: NAME",
			s->name);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* From what was written to what is meant: defaults that depend on several keys, and every check
 * that needs more than one value. Ranges of single values are checked where they are read, which
 * knows their place better; what the command line can set as well is checked here again. */
#include "core/config_resolve.h"
#include "core/dialect.h"
#include "core/preset.h"

struct resolve {
	struct service_config *s;
	struct config_problems *problems;
	unsigned n_cpus;
};

struct config_place config_place_or(struct config_place preferred, struct config_place fallback)
{
	return preferred.line > 0 ? preferred : fallback;
}

/* --- identity, command ---------------------------------------------------- */

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

/* The descriptor that the worker writes to, beside those it listens on. */
static void check_ready_fd(struct resolve *r, struct config_place place)
{
	const struct service_config *s = r->s;
	unsigned n = s->ready.number;

	if (n == 0 && !s->ready.variable)
		config_problem_add(r->problems, place, false,
			"ready by fd needs the descriptor's \"number\", which the program was told "
			"(s6's notification-fd, dinit's pipefd), or a \"variable\" to tell it in "
			"(dinit's pipevar)");
	/* Of the listeners, which begin at 3. */
	else if (n > 0 && dialect_counts(s->handoff) && n < 3 + s->n_listeners)
		config_problem_add(r->problems, place, false,
			"ready: number: descriptor %u is listener %s; use %zu or more, or handoff: "
			"stdin",
			n, s->listeners[n - 3].name, 3 + s->n_listeners);
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
	case READY_FD:
		check_ready_fd(r, place);
		break;
	case READY_EINHORN:
		if (!(r->s->handoff & HANDOFF_EINHORN))
			config_problem_add(r->problems, place, false,
				"ready by einhorn-ack needs handoff: einhorn, whose control socket "
				"the worker writes worker:ack to");
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
	int q = config_resolve_listeners(r->s, r->problems);

	return q < 0 ? q : preset_finish(r->s);
}

static int resolve_handoff(struct resolve *r)
{
	return config_resolve_handoff(r->s, r->problems);
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
	resolve_handoff,
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

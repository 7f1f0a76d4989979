/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration as values: defaults, ownership, copies, lookups, the words of each enumeration.
 * What may be combined with what is decided in config_resolve.c. */
#include "core/config.h"

#include <signal.h>
#include <stdarg.h>

#include "base/utf8.h"

/* Every owned string and list of a structure, by offset: one table serves freeing and copying, so
 * that a new field cannot be freed but not copied, or the reverse. */
struct owned_fields {
	const size_t *strings;
	size_t n_strings;
	const size_t *lists; /* of strings, NULL-terminated */
	size_t n_lists;
};

static const size_t listener_strings[] = {
	offsetof(struct listener_config, name),
	offsetof(struct listener_config, inherit),
	offsetof(struct listener_config, fd_name),
	offsetof(struct listener_config, owner),
	offsetof(struct listener_config, group),
};

static const struct owned_fields listener_fields = {
	.strings = listener_strings,
	.n_strings = ARRAY_SIZE(listener_strings),
};

static const size_t service_strings[] = {
	offsetof(struct service_config, name),
	offsetof(struct service_config, directory),
	offsetof(struct service_config, user),
	offsetof(struct service_config, group),
	offsetof(struct service_config, ready.path),
	offsetof(struct service_config, ready.variable),
	offsetof(struct service_config, upgrade.preview_from),
	offsetof(struct service_config, upgrade.verify.path),
	offsetof(struct service_config, output_file),
};

static const size_t service_lists[] = {
	offsetof(struct service_config, command),
	offsetof(struct service_config, fingerprint),
	offsetof(struct service_config, environment),
	offsetof(struct service_config, ready.command),
	offsetof(struct service_config, upgrade.verify.command),
};

static const struct owned_fields service_fields = {
	.strings = service_strings,
	.n_strings = ARRAY_SIZE(service_strings),
	.lists = service_lists,
	.n_lists = ARRAY_SIZE(service_lists),
};

static char **string_at(void *base, size_t offset)
{
	return (char **)(void *)((char *)base + offset);
}

static char ***list_at(void *base, size_t offset)
{
	return (char ***)(void *)((char *)base + offset);
}

static void owned_free(const struct owned_fields *fields, void *base)
{
	for (size_t i = 0; i < fields->n_strings; i++) {
		char **s = string_at(base, fields->strings[i]);

		free(*s);
		*s = NULL;
	}
	for (size_t i = 0; i < fields->n_lists; i++) {
		char ***l = list_at(base, fields->lists[i]);

		*l = strv_free(*l);
	}
}

/* The copy holds the original's pointers (it was assigned as a whole): forget them first, so that a
 * copy that fails halfway can be freed. */
static void owned_forget(const struct owned_fields *fields, void *copy)
{
	for (size_t i = 0; i < fields->n_strings; i++)
		*string_at(copy, fields->strings[i]) = NULL;
	for (size_t i = 0; i < fields->n_lists; i++)
		*list_at(copy, fields->lists[i]) = NULL;
}

static int owned_copy(const struct owned_fields *fields, const void *from, void *copy)
{
	for (size_t i = 0; i < fields->n_strings; i++) {
		const char *s =
			*(char *const *)(const void *)((const char *)from + fields->strings[i]);

		if (!s)
			continue;
		*string_at(copy, fields->strings[i]) = strdup(s);
		if (!*string_at(copy, fields->strings[i]))
			return -ENOMEM;
	}
	for (size_t i = 0; i < fields->n_lists; i++) {
		char **const *l =
			(char **const *)(const void *)((const char *)from + fields->lists[i]);

		if (!*l)
			continue;
		*list_at(copy, fields->lists[i]) = strv_copy(*l);
		if (!*list_at(copy, fields->lists[i]))
			return -ENOMEM;
	}
	return 0;
}

void listener_config_init(struct listener_config *l)
{
	*l = (struct listener_config){
		.steering = true,
		.backlog = CONFIG_BACKLOG_DEFAULT,
		.mode = 0666,
	};
}

void listener_config_done(struct listener_config *l)
{
	socket_options_done(&l->options);
	owned_free(&listener_fields, l);
}

static const struct ready_config ready_defaults = {
	.by = READY_ACCEPT,
	.accept = true,
	.timeout_usec = 60 * USEC_PER_SEC,
	.delay_usec = 2 * USEC_PER_SEC,
	.status = 200,
	.interval_usec = 100 * USEC_PER_MSEC,
};

static const struct upgrade_config upgrade_defaults = {
	.strategy = STRATEGY_BLUE_GREEN,
	.surge = 2500,
	.steps = {500,	       2500,	     SHARE_MAX			      },
	.n_steps = 3,
	.soak_usec = 5 * USEC_PER_SEC,
	.overlap = OVERLAP_REJECT,
	.sticky = STICKY_NONE,
	.verify = {.by = VERIFY_NONE, .status = 200, .timeout_usec = 10 * USEC_PER_SEC},
};

static const struct drain_config drain_defaults = {
	.settle_usec = USEC_PER_SEC,
	.settle_timeout_usec = 30 * USEC_PER_SEC,
	.idle_wait_usec = 5 * USEC_PER_SEC,
	.signal = SIGTERM,
	.timeout_usec = 30 * USEC_PER_SEC,
	.kill_after_usec = 5 * USEC_PER_SEC,
	.max_generations = 4,
};

static const struct restart_config restart_defaults = {
	.policy = RESTART_ALWAYS,
	.backoff_from_usec = 100 * USEC_PER_MSEC,
	.backoff_to_usec = 30 * USEC_PER_SEC,
	.limit_starts = 5,
	.limit_within_usec = 60 * USEC_PER_SEC,
};

int service_config_init(struct service_config *s, const char *name)
{
	*s = (struct service_config){
		.workers = 1,
		.handoff = HANDOFF_LISTEN_FDS,
		.ready = ready_defaults,
		.upgrade = upgrade_defaults,
		.drain = drain_defaults,
		.restart = restart_defaults,
		.output = OUTPUT_TEE,
		.autostart = true,
	};
	resources_init(&s->resources);
	s->name = strdup(name);
	s->ready.path = strdup("/");
	if (!s->name || !s->ready.path) {
		service_config_done(s);
		return -ENOMEM;
	}
	return 0;
}

void service_config_done(struct service_config *s)
{
	owned_free(&service_fields, s);
	for (size_t i = 0; i < s->n_env_files; i++)
		free(s->env_files[i].path);
	free(s->env_files);
	s->env_files = NULL;
	s->n_env_files = 0;
	for (size_t i = 0; i < s->n_listeners; i++)
		listener_config_done(&s->listeners[i]);
	free(s->listeners);
	s->listeners = NULL;
	s->n_listeners = 0;
	free(s->limits);
	s->limits = NULL;
	s->n_limits = 0;
}

static int copy_env_files(const struct service_config *s, struct service_config *copy)
{
	if (s->n_env_files == 0)
		return 0;
	copy->env_files = calloc(s->n_env_files, sizeof(*copy->env_files));
	if (!copy->env_files)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_env_files; i++) {
		copy->env_files[i].optional = s->env_files[i].optional;
		copy->env_files[i].path = strdup(s->env_files[i].path);
		if (!copy->env_files[i].path)
			return -ENOMEM;
		copy->n_env_files++;
	}
	return 0;
}

int listener_config_copy(const struct listener_config *l, struct listener_config *ret)
{
	struct listener_config copy = *l;
	int r;

	owned_forget(&listener_fields, &copy);
	copy.options = (struct socket_options){0};
	r = owned_copy(&listener_fields, l, &copy);
	if (r >= 0)
		r = socket_options_copy(&l->options, &copy.options);
	if (r < 0) {
		listener_config_done(&copy);
		return r;
	}
	*ret = copy;
	return 0;
}

static int copy_listeners(const struct service_config *s, struct service_config *copy)
{
	int r;

	if (s->n_listeners == 0)
		return 0;
	copy->listeners = calloc(s->n_listeners, sizeof(*copy->listeners));
	if (!copy->listeners)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_listeners; i++) {
		r = listener_config_copy(&s->listeners[i], &copy->listeners[i]);
		if (r < 0)
			return r;
		copy->n_listeners++;
	}
	return 0;
}

static int copy_limits(const struct service_config *s, struct service_config *copy)
{
	if (s->n_limits == 0)
		return 0;
	copy->limits = calloc(s->n_limits, sizeof(*copy->limits));
	if (!copy->limits)
		return -ENOMEM;
	memcpy(copy->limits, s->limits, s->n_limits * sizeof(*copy->limits));
	copy->n_limits = s->n_limits;
	return 0;
}

int service_config_copy(const struct service_config *s, struct service_config *ret)
{
	struct service_config copy = *s;
	int r;

	owned_forget(&service_fields, &copy);
	copy.env_files = NULL;
	copy.n_env_files = 0;
	copy.listeners = NULL;
	copy.n_listeners = 0;
	copy.limits = NULL;
	copy.n_limits = 0;
	r = owned_copy(&service_fields, s, &copy);
	if (r == 0)
		r = copy_env_files(s, &copy);
	if (r == 0)
		r = copy_listeners(s, &copy);
	if (r == 0)
		r = copy_limits(s, &copy);
	if (r < 0) {
		service_config_done(&copy);
		return r;
	}
	*ret = copy;
	return 0;
}

struct config *config_new(void)
{
	struct config *c = calloc(1, sizeof(*c));

	if (c)
		c->control.mode = 0666;
	return c;
}

struct config *config_free(struct config *c)
{
	if (!c)
		return NULL;
	for (size_t i = 0; i < c->n_services; i++)
		service_config_done(&c->services[i]);
	free(c->services);
	free(c->control.socket);
	strv_free(c->control.operators);
	strv_free(c->control.observers);
	strv_free(c->files);
	free(c);
	return NULL;
}

/* The file's name as the problems themselves own it; NULL when there is no memory for it. */
static const char *problems_file(struct config_problems *p, const char *file)
{
	size_t n = 0;

	if (!file)
		return NULL;
	for (; p->files && p->files[n]; n++)
		if (streq(p->files[n], file))
			return p->files[n];
	if (strv_append(&p->files, file) < 0)
		return NULL;
	return p->files[n];
}

/* Messages quote what was written: made printable, and of bounded length. NULL: out of memory. */
__attribute__((format(printf, 1, 0))) static char *format_message(const char *format, va_list ap)
{
	enum { MESSAGE_MAX = 500 };
	_cleanup_free_ char *message = NULL;
	int len = vasprintf(&message, format, ap);

	if (len < 0) {
		message = NULL; /* undefined after a failure */
		return NULL;
	}
	return utf8_printable(message, (size_t)len, MESSAGE_MAX);
}

void config_problem_add(
	struct config_problems *p, struct config_place place, bool warning, const char *format, ...)
{
	char *message;
	va_list ap;

	if (!warning)
		p->n_errors++;
	if (p->n >= CONFIG_PROBLEMS_MAX)
		return;
	va_start(ap, format);
	message = format_message(format, ap);
	va_end(ap);
	if (!message || array_reserve(&p->list, &p->capacity, p->n + 1, sizeof(*p->list)) < 0) {
		free(message);
		if (warning)
			p->n_errors++; /* a configuration that could not be judged is not a good one
					*/
		return;
	}
	place.file = problems_file(p, place.file);
	p->list[p->n++] = (struct config_problem){
		.place = place,
		.warning = warning,
		.message = message,
	};
}

void config_problems_done(struct config_problems *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->list[i].message);
	free(p->list);
	strv_free(p->files);
	*p = (struct config_problems){0};
}

char *config_problem_format(const struct config_problem *p)
{
	const char *kind = p->warning ? "warning" : "error";

	if (!p->place.file)
		return xasprintf("%s: %s", kind, p->message);
	if (p->place.line == 0)
		return xasprintf("%s: %s: %s", p->place.file, kind, p->message);
	return xasprintf("%s:%u:%u: %s: %s", p->place.file, p->place.line, p->place.column, kind,
		p->message);
}

const struct service_config *config_find(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_services; i++)
		if (streq(c->services[i].name, name))
			return &c->services[i];
	return NULL;
}

const struct listener_config *service_config_find_listener(
	const struct service_config *s, const char *name)
{
	for (size_t i = 0; i < s->n_listeners; i++)
		if (streq_null(s->listeners[i].name, name))
			return &s->listeners[i];
	return NULL;
}

bool listener_config_wants_lanes(const struct listener_config *l)
{
	/* What is meant for everybody on the port comes to each of its sockets. */
	if (!l->steering || socket_options_spread(&l->options))
		return false;
	if (l->inherited && l->address.len == 0)
		return true; /* what it is will be seen when systemd hands it over */
	switch (l->address.kind) {
	case ADDRESS_TCP:
	case ADDRESS_UDP:
		return true;
	case ADDRESS_UNIX_STREAM:
	case ADDRESS_UNIX_DGRAM:
	case ADDRESS_UNIX_SEQPACKET:
		return false;
	}
	return false;
}

static const char *const strategy_names[] = {
	[STRATEGY_BLUE_GREEN] = "blue-green",
	[STRATEGY_ROLLING] = "rolling",
	[STRATEGY_CANARY] = "canary",
	[STRATEGY_RECREATE] = "recreate",
};

static const char *const ready_names[] = {
	[READY_ACCEPT] = "accept",
	[READY_NOTIFY] = "notify",
	[READY_HTTP] = "http",
	[READY_EXEC] = "exec",
	[READY_DELAY] = "delay",
	[READY_FD] = "fd",
	[READY_EINHORN] = "einhorn-ack",
};

static const char *const overlap_names[] = {
	[OVERLAP_REJECT] = "reject",
	[OVERLAP_QUEUE] = "queue",
	[OVERLAP_SUPERSEDE] = "supersede",
};

static const char *name_at(const char *const *names, size_t n, unsigned i)
{
	return i < n ? names[i] : "unknown";
}

static int name_find(const char *const *names, size_t n, const char *s, unsigned *ret)
{
	for (unsigned i = 0; i < n; i++) {
		if (streq(names[i], s)) {
			*ret = i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *strategy_to_string(enum strategy s)
{
	return name_at(strategy_names, ARRAY_SIZE(strategy_names), s);
}

int strategy_from_string(const char *s, enum strategy *ret)
{
	unsigned i;
	int r = name_find(strategy_names, ARRAY_SIZE(strategy_names), s, &i);

	if (r == 0)
		*ret = (enum strategy)i;
	return r;
}

const char *ready_kind_to_string(enum ready_kind k)
{
	return name_at(ready_names, ARRAY_SIZE(ready_names), k);
}

const char *overlap_to_string(enum overlap o)
{
	return name_at(overlap_names, ARRAY_SIZE(overlap_names), o);
}

int overlap_from_string(const char *s, enum overlap *ret)
{
	unsigned i;
	int r = name_find(overlap_names, ARRAY_SIZE(overlap_names), s, &i);

	if (r == 0)
		*ret = (enum overlap)i;
	return r;
}

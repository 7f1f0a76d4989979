/* SPDX-License-Identifier: Apache-2.0 */
/* Two configurations are compared key by key. Each difference becomes a reason, in words the
 * operator knows from the file, and belongs to one of three kinds: what the workers are made of (a
 * new generation), how many there are, and what takes effect in place. Values that another key's
 * default follows from are compared only where they were written: going from one worker to two
 * makes rolling the default, and that is no change of its own. */
#include "core/plan.h"

#include <stdarg.h>

/* The reasons of one entry. After a failure nothing is added any more, and `r` says so at the end.
 */
struct reasons {
	char ***list;
	size_t n;
	int r;
};

static void reason_if(struct reasons *reasons, bool differs, const char *format, ...)
	_printf_(3, 4);
static void reason_if(struct reasons *reasons, bool differs, const char *format, ...)
{
	char *text = NULL;
	va_list ap;
	int r;

	if (!differs || reasons->r < 0)
		return;
	va_start(ap, format);
	r = vasprintf(&text, format, ap);
	va_end(ap);
	reasons->r = r < 0 ? -ENOMEM : strv_append_take(reasons->list, text);
	if (reasons->r == 0)
		reasons->n++;
}

const char *plan_action_to_string(enum plan_action a)
{
	switch (a) {
	case PLAN_NONE:
		return "none";
	case PLAN_UPDATE:
		return "update";
	case PLAN_LISTEN:
		return "listen";
	case PLAN_SCALE:
		return "scale";
	case PLAN_UPGRADE:
		return "upgrade";
	case PLAN_ADD:
		return "add";
	case PLAN_REMOVE:
		return "remove";
	}
	return "unknown";
}

/* --- listeners -----------------------------------------------------------------------------------
 */

bool plan_listener_same(const struct listener_config *a, const struct listener_config *b)
{
	if (a->inherited != b->inherited)
		return false;
	if (a->inherited)
		return streq_null(a->inherit, b->inherit) && a->inherit_index == b->inherit_index;
	/* A bound socket cannot become dual-stack, or cease to be; one of UDP leaves its group when
	 * its device changes; and those to which every datagram comes are none. */
	return address_equal(&a->address, &b->address) &&
	       (address_family(&a->address) != AF_INET6 || a->v6only == b->v6only) &&
	       socket_options_spread(&a->options) == socket_options_spread(&b->options) &&
	       (a->address.kind != ADDRESS_UDP ||
		       socket_options_same(&a->options, &b->options, OPTION_BINDTODEVICE));
}

/* At most one: config_resolve() refuses an address that is there twice. */
static const struct listener_config *find_same(
	const struct service_config *s, const struct listener_config *l)
{
	for (size_t i = 0; i < s->n_listeners; i++)
		if (plan_listener_same(&s->listeners[i], l))
			return &s->listeners[i];
	return NULL;
}

/* What the kept socket itself is told. */
static void compare_socket(
	const struct listener_config *a, const struct listener_config *b, struct reasons *reasons)
{
	bool path = !a->inherited && address_is_unix(&a->address);

	reason_if(reasons, a->backlog != b->backlog, "listener %s: backlog", b->name);
	for (unsigned o = 0; o < SOCKET_OPTIONS_N; o++)
		reason_if(reasons, !socket_options_same(&a->options, &b->options, o),
			"listener %s: %s", b->name, socket_option_info(o)->key);
	reason_if(reasons, path && (a->mode != b->mode || a->mode_set != b->mode_set),
		"listener %s: mode", b->name);
	reason_if(reasons, path && !streq_null(a->owner, b->owner), "listener %s: owner", b->name);
	reason_if(reasons, path && !streq_null(a->group, b->group), "listener %s: group", b->name);
}

/* What workers get of it besides the socket: its name, and sockets of their own or one together. */
static void compare_use(
	const struct listener_config *a, const struct listener_config *b, struct reasons *reasons)
{
	reason_if(reasons, !streq_null(a->name, b->name), "listener %s: was %s", b->name, a->name);
	reason_if(reasons, a->sockets != b->sockets, "listener %s: sockets", b->name);
	reason_if(reasons, a->steering != b->steering, "listener %s: steering", b->name);
}

/* Do the sockets that both have come in the same order? Workers without names go by it. */
static bool same_order(const struct service_config *a, const struct service_config *b)
{
	size_t at = 0;

	for (size_t i = 0; i < b->n_listeners; i++) {
		const struct listener_config *l = find_same(a, &b->listeners[i]);

		if (!l)
			continue;
		if ((size_t)(l - a->listeners) < at)
			return false;
		at = (size_t)(l - a->listeners);
	}
	return true;
}

static void compare_listeners(
	const struct service_config *a, const struct service_config *b, struct reasons *reasons)
{
	for (size_t i = 0; i < b->n_listeners; i++) {
		const struct listener_config *l = &b->listeners[i], *was = find_same(a, l);

		if (was)
			compare_use(was, l, reasons);
		else if (service_config_find_listener(a, l->name))
			reason_if(reasons, true, "listener %s: address", l->name);
		else
			reason_if(reasons, true, "listener %s added", l->name);
	}
	for (size_t i = 0; i < a->n_listeners; i++) {
		const struct listener_config *l = &a->listeners[i];

		reason_if(reasons, !find_same(b, l) && !service_config_find_listener(b, l->name),
			"listener %s removed", l->name);
	}
	reason_if(reasons, !same_order(a, b), "order of listeners");
}

/* By whatever name workers know it. */
static bool has_name(const struct service_config *s, const struct listener_config *l)
{
	const char *name = l->fd_name ? l->fd_name : l->name;

	for (size_t i = 0; i < s->n_listeners; i++)
		if (streq(s->listeners[i].fd_name ? s->listeners[i].fd_name : s->listeners[i].name,
			    name) ||
			streq(s->listeners[i].name, l->name))
			return true;
	return false;
}

bool plan_can_listen(const struct service_config *a, const struct service_config *b)
{
	const unsigned by_name = HANDOFF_LISTEN_FDS | HANDOFF_CHANNEL;
	size_t n = 0;

	if (a->handoff != b->handoff || !(b->handoff & HANDOFF_CHANNEL) || (b->handoff & ~by_name))
		return false;
	for (size_t i = 0; i < b->n_listeners; i++) {
		const struct listener_config *l = &b->listeners[i], *was = find_same(a, l);

		if (was && (!streq_null(l->name, was->name) || l->sockets != was->sockets ||
				   l->steering != was->steering))
			return false;
		/* What comes from systemd goes back there: that is for whoever started us. And of
		 * two with one name workers could not tell which is meant. */
		if (!was && (l->inherited || has_name(a, l)))
			return false;
		n += !was;
	}
	for (size_t i = 0; i < a->n_listeners; i++) {
		if (find_same(b, &a->listeners[i]))
			continue;
		if (a->listeners[i].inherited)
			return false;
		n++;
	}
	return n > 0 && b->n_listeners > 0 && same_order(a, b);
}

static void add_listener(struct plan_entry *e, enum plan_listener_action action, const char *name)
{
	e->listeners[e->n_listeners++] = (struct plan_listener){action, name};
}

/* New ones in the new file's order, then what is dropped. */
static int plan_listeners(struct plan_entry *e)
{
	const struct service_config *a = e->old_config, *b = e->new_config;
	size_t n = (a ? a->n_listeners : 0) + (b ? b->n_listeners : 0);

	e->listeners = calloc(MAX(n, 1U), sizeof(*e->listeners));
	if (!e->listeners)
		return -ENOMEM;
	for (size_t i = 0; b && i < b->n_listeners; i++) {
		const struct listener_config *l = &b->listeners[i],
					     *was = a ? find_same(a, l) : NULL;
		_cleanup_strv_ char **list = NULL;
		struct reasons changes = {.list = &list};

		if (!was) {
			add_listener(e, PLAN_LISTENER_BIND, l->name);
			continue;
		}
		compare_socket(was, l, &changes);
		if (changes.r < 0)
			return changes.r;
		add_listener(e, changes.n > 0 ? PLAN_LISTENER_CHANGE : PLAN_LISTENER_KEEP, l->name);
	}
	for (size_t i = 0; a && i < a->n_listeners; i++)
		if (!b || !find_same(b, &a->listeners[i]))
			add_listener(e, PLAN_LISTENER_DROP, a->listeners[i].name);
	return 0;
}

/* --- services ------------------------------------------------------------------------------------
 */

/* Both have the same strings, in any order: the environment of a map that was only written in
 * another one. */
static bool strv_same_set(char *const *a, char *const *b)
{
	size_t n = strv_length(a);

	if (n != strv_length(b))
		return false;
	for (size_t i = 0; i < n; i++) {
		size_t in_a = 0, in_b = 0;

		for (size_t j = 0; j < n; j++) {
			in_a += streq(a[i], a[j]);
			in_b += streq(a[i], b[j]);
		}
		if (in_a != in_b)
			return false;
	}
	return true;
}

static bool env_files_equal(const struct service_config *a, const struct service_config *b)
{
	if (a->n_env_files != b->n_env_files)
		return false;
	for (size_t i = 0; i < a->n_env_files; i++)
		if (a->env_files[i].optional != b->env_files[i].optional ||
			!streq_null(a->env_files[i].path, b->env_files[i].path))
			return false;
	return true;
}

static bool limits_include(const struct service_config *s, const struct limit_config *l)
{
	for (size_t i = 0; i < s->n_limits; i++)
		if (s->limits[i].resource == l->resource && s->limits[i].value == l->value)
			return true;
	return false;
}

static bool limits_equal(const struct service_config *a, const struct service_config *b)
{
	for (size_t i = 0; i < a->n_limits; i++)
		if (!limits_include(b, &a->limits[i]))
			return false;
	return a->n_limits == b->n_limits;
}

/* Workers have a descriptor to say that they are ready, or another one. */
static bool ready_descriptor_differs(const struct ready_config *a, const struct ready_config *b)
{
	bool a_has = a->by == READY_FD || a->by == READY_EINHORN;
	bool b_has = b->by == READY_FD || b->by == READY_EINHORN;

	return (a_has || b_has) &&
	       (a->by != b->by || a->number != b->number || !streq_null(a->variable, b->variable));
}

/* listeners: do theirs count? */
static int snapshot_differs(const struct service_config *a, const struct service_config *b,
	bool listeners, char ***reasons)
{
	struct reasons found = {.list = reasons};

	reason_if(&found, !strv_equal(a->command, b->command), "command");
	reason_if(&found, !streq_null(a->directory, b->directory), "directory");
	reason_if(&found, !streq_null(a->user, b->user), "user");
	reason_if(&found, !streq_null(a->group, b->group), "group");
	reason_if(&found,
		!strv_same_set(a->environment, b->environment) ||
			a->environment_inherited != b->environment_inherited,
		"environment");
	reason_if(&found, !env_files_equal(a, b), "env_file");
	if (listeners)
		compare_listeners(a, b, &found);
	reason_if(&found, a->handoff != b->handoff, "handoff");
	reason_if(&found, ready_descriptor_differs(&a->ready, &b->ready), "ready");
	reason_if(&found, a->watchdog_usec != b->watchdog_usec, "watchdog");
	reason_if(&found, !limits_equal(a, b), "limits");
	reason_if(&found, !resources_equal(&a->resources, &b->resources), "resources");
	reason_if(&found,
		a->cpu_affinity != b->cpu_affinity ||
			memcmp(&a->cpus, &b->cpus, sizeof(a->cpus)) != 0,
		"cpu_affinity");
	reason_if(&found, a->output != b->output || !streq_null(a->output_file, b->output_file),
		"output");
	if (found.r < 0)
		return found.r;
	return found.n > 0;
}

int plan_snapshot_differs(
	const struct service_config *a, const struct service_config *b, char ***reasons)
{
	return snapshot_differs(a, b, true, reasons);
}

static bool ready_equal(const struct ready_config *a, const struct ready_config *b)
{
	/* A default follows from the listeners, and their difference is told as theirs. */
	return (a->by == b->by || (!a->by_set && !b->by_set)) && a->accept == b->accept &&
	       a->timeout_usec == b->timeout_usec && a->delay_usec == b->delay_usec &&
	       streq_null(a->path, b->path) && a->status == b->status &&
	       strv_equal(a->command, b->command) && a->interval_usec == b->interval_usec;
}

static bool steps_equal(const struct upgrade_config *a, const struct upgrade_config *b)
{
	if (a->n_steps != b->n_steps)
		return false;
	for (size_t i = 0; i < a->n_steps; i++)
		if (a->steps[i] != b->steps[i])
			return false;
	return true;
}

static bool verify_equal(const struct verify_config *a, const struct verify_config *b)
{
	return a->by == b->by && streq_null(a->path, b->path) && a->status == b->status &&
	       strv_equal(a->command, b->command) && a->timeout_usec == b->timeout_usec &&
	       a->interval_usec == b->interval_usec;
}

static bool upgrade_equal(const struct upgrade_config *a, const struct upgrade_config *b)
{
	/* A default follows from the number of workers. */
	return (a->strategy == b->strategy || (!a->strategy_set && !b->strategy_set)) &&
	       a->surge == b->surge && steps_equal(a, b) && a->soak_usec == b->soak_usec &&
	       a->overlap == b->overlap && a->keep_warm_usec == b->keep_warm_usec &&
	       streq_null(a->preview_from, b->preview_from) && a->sticky == b->sticky &&
	       verify_equal(&a->verify, &b->verify);
}

static bool drain_equal(const struct drain_config *a, const struct drain_config *b)
{
	return a->settle_usec == b->settle_usec &&
	       a->settle_timeout_usec == b->settle_timeout_usec &&
	       a->idle_wait_usec == b->idle_wait_usec && a->signal == b->signal &&
	       a->timeout_usec == b->timeout_usec && a->kill_after_usec == b->kill_after_usec &&
	       a->max_generations == b->max_generations;
}

static bool restart_equal(const struct restart_config *a, const struct restart_config *b)
{
	return a->policy == b->policy && a->backoff_from_usec == b->backoff_from_usec &&
	       a->backoff_to_usec == b->backoff_to_usec && a->limit_starts == b->limit_starts &&
	       a->limit_within_usec == b->limit_within_usec;
}

/* What takes effect in place. */
static void compare_in_place(
	const struct service_config *a, const struct service_config *b, struct reasons *reasons)
{
	for (size_t i = 0; i < b->n_listeners; i++) {
		const struct listener_config *was = find_same(a, &b->listeners[i]);

		if (was)
			compare_socket(was, &b->listeners[i], reasons);
	}
	reason_if(reasons, !strv_equal(a->fingerprint, b->fingerprint), "fingerprint");
	reason_if(reasons,
		!ready_equal(&a->ready, &b->ready) &&
			!ready_descriptor_differs(&a->ready, &b->ready),
		"ready");
	reason_if(reasons, !upgrade_equal(&a->upgrade, &b->upgrade), "upgrade");
	reason_if(reasons, !drain_equal(&a->drain, &b->drain), "drain");
	reason_if(reasons, !restart_equal(&a->restart, &b->restart), "restart");
	reason_if(reasons,
		a->recycle.after_usec != b->recycle.after_usec ||
			a->recycle.memory != b->recycle.memory,
		"recycle");
	reason_if(reasons, a->autostart != b->autostart, "autostart");
}

/* --- the plan ------------------------------------------------------------------------------------
 */

/* Nothing is known of a service: it runs as its configuration says. */
static struct plan_fact find_fact(
	const struct plan_fact *facts, size_t n_facts, const char *service)
{
	for (size_t i = 0; i < n_facts; i++)
		if (streq(facts[i].service, service))
			return facts[i];
	return (struct plan_fact){.service = service, .running = true};
}

/* A service that is in both. */
static int compare_services(struct plan_entry *e, const struct plan_fact *fact, bool upgrade_all)
{
	const struct service_config *a = e->old_config, *b = e->new_config;
	unsigned workers = fact->scaled > 0 ? fact->scaled : a->workers;
	struct reasons reasons = {.list = &e->reasons};
	bool upgrade, scale, listen = fact->running && fact->live && plan_can_listen(a, b);
	int r;

	r = snapshot_differs(a, b, !listen, &e->reasons);
	if (r < 0)
		return r;
	upgrade = r > 0;
	for (size_t i = 0; fact->running && fact->pending && fact->pending[i]; i++) {
		reason_if(&reasons, true, "%s", fact->pending[i]);
		upgrade = true;
	}
	if (upgrade_all && fact->running) {
		reason_if(&reasons, !upgrade, "as asked");
		upgrade = true;
	}
	/* With a new generation, or another number of workers, they come by that. */
	scale = workers != b->workers;
	upgrade |= listen && scale;
	if (listen)
		compare_listeners(a, b, &reasons);
	reason_if(&reasons, scale, "workers %u -> %u%s", workers, b->workers,
		fact->scaled > 0 ? " (scaled by hand)" : "");
	compare_in_place(a, b, &reasons);
	if (reasons.r < 0)
		return reasons.r;

	if (upgrade && fact->running)
		e->action = PLAN_UPGRADE;
	else if (listen)
		e->action = PLAN_LISTEN;
	else if (scale && fact->running)
		e->action = PLAN_SCALE;
	else /* A stopped service takes everything when it starts. */
		e->action = strv_length(e->reasons) > 0 ? PLAN_UPDATE : PLAN_NONE;
	return 0;
}

int plan_make(const struct config *old_config, const struct config *new_config,
	const struct plan_fact *facts, size_t n_facts, bool upgrade_all, struct plan *ret)
{
	_cleanup_(plan_done) struct plan plan = {NULL, 0};
	size_t n = old_config->n_services + new_config->n_services;

	plan.entries = calloc(MAX(n, 1U), sizeof(*plan.entries));
	if (!plan.entries)
		return -ENOMEM;
	for (size_t i = 0; i < old_config->n_services; i++) {
		const struct service_config *s = &old_config->services[i];
		struct plan_entry *e = &plan.entries[plan.n];

		if (config_find(new_config, s->name))
			continue;
		plan.n++;
		*e = (struct plan_entry){
			.service = strdup(s->name), .action = PLAN_REMOVE, .old_config = s};
		if (!e->service || plan_listeners(e) < 0)
			return -ENOMEM;
	}
	for (size_t i = 0; i < new_config->n_services; i++) {
		const struct service_config *s = &new_config->services[i];
		struct plan_entry *e = &plan.entries[plan.n++];
		struct plan_fact fact = find_fact(facts, n_facts, s->name);

		*e = (struct plan_entry){.service = strdup(s->name),
			.action = PLAN_ADD,
			.old_config = config_find(old_config, s->name),
			.new_config = s};
		if (!e->service || plan_listeners(e) < 0)
			return -ENOMEM;
		if (e->old_config && compare_services(e, &fact, upgrade_all) < 0)
			return -ENOMEM;
	}
	*ret = plan;
	plan = (struct plan){NULL, 0};
	return 0;
}

void plan_done(struct plan *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->entries[i].service);
		strv_free(p->entries[i].reasons);
		free(p->entries[i].listeners);
	}
	free(p->entries);
	*p = (struct plan){NULL, 0};
}

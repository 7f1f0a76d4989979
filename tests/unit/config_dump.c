/* SPDX-License-Identifier: Apache-2.0 */
#include "config_dump.h"

#include <stdarg.h>

#include "base/parse.h"
#include "core/dialect.h"

struct dump {
	char **lines;
	const char *directory;
};

static _printf_(2, 3) void add(struct dump *d, const char *format, ...)
{
	char *line = NULL;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&line, format, ap) < 0 || strv_append_take(&d->lines, line) < 0)
		abort();
	va_end(ap);
}

static const char *text(const char *s)
{
	return s ? s : "-";
}

static void add_path(struct dump *d, const char *key, const char *path)
{
	const char *rest = path ? startswith(path, d->directory) : NULL;

	if (rest)
		add(d, "%s=DIR%s", key, rest);
	else
		add(d, "%s=%s", key, text(path));
}

static void add_list(struct dump *d, const char *key, char *const *list)
{
	_cleanup_free_ char *all = strdup("");

	for (size_t i = 0; list && list[i]; i++) {
		char *longer = xasprintf("%s[%s]", all, list[i]);

		free(all);
		all = longer;
	}
	add(d, "%s=%s", key, list ? all : "-");
}

static void add_duration(struct dump *d, const char *key, uint64_t usec)
{
	_cleanup_free_ char *s = format_duration(usec);

	add(d, "%s=%s", key, text(s));
}

static char *dump_options(const struct socket_options *o)
{
	char *all = strdup("");

	for (size_t i = 0; i < o->n; i++) {
		const struct socket_option_setting *s = &o->list[i];
		_cleanup_free_ char *before = all,
				    *value = socket_option_format(s->option, s->value, s->text);

		all = xasprintf(
			"%s %s=%s", before, socket_option_info(s->option)->key, text(value));
	}
	for (size_t i = 0; i < o->n_groups; i++) {
		_cleanup_free_ char *before = all, *group = multicast_group_format(&o->groups[i]);

		all = xasprintf("%s group=%s", before, text(group));
	}
	return all;
}

static void add_listener(struct dump *d, const struct listener_config *l)
{
	_cleanup_free_ char *address = l->inherited ? NULL : address_format(&l->address);
	_cleanup_free_ char *options = dump_options(&l->options);
	_cleanup_free_ char *path =
		xasprintf(" mode=%04o owner=%s group=%s", l->mode, text(l->owner), text(l->group));

	add(d, "listen %s %s%s%s%s%s%s backlog=%u%s%s", l->name, l->inherited ? "inherit " : "",
		l->inherited ? l->inherit : address,
		l->sockets == SOCKETS_PER_WORKER ? " per-worker" : "",
		l->steering ? "" : " steering=off", l->v6only ? " v6only" : "",
		listener_config_wants_lanes(l) ? " lanes" : "", l->backlog, options,
		l->mode_set || l->owner || l->group ? path : "");
}

static void add_handoff(struct dump *d, unsigned handoff)
{
	_cleanup_free_ char *all = strdup("");
	const struct dialect *list;
	size_t n;

	list = dialect_list(&n);
	for (size_t i = 0; i < n; i++)
		if (handoff & list[i].kind) {
			_cleanup_free_ char *before = all;

			all = xasprintf("%s[%s]", before, list[i].name);
		}
	add(d, "handoff=%s", text(all));
}

static void add_ready(struct dump *d, const struct ready_config *r)
{
	add(d, "ready.by=%s%s", ready_kind_to_string(r->by), r->by_set ? "" : " by default");
	add(d, "ready.accept=%d", r->accept);
	add_duration(d, "ready.timeout", r->timeout_usec);
	add_duration(d, "ready.delay", r->delay_usec);
	add(d, "ready.path=%s", text(r->path));
	add(d, "ready.status=%u", r->status);
	add_list(d, "ready.command", r->command);
	add_duration(d, "ready.interval", r->interval_usec);
	if (r->by == READY_FD)
		add(d, "ready.number=%u variable=%s", r->number, text(r->variable));
}

static void add_verify(struct dump *d, const struct verify_config *v)
{
	static const char *const kinds[] = {"none", "http", "command"};

	add(d, "upgrade.verify.by=%s", kinds[v->by]);
	add(d, "upgrade.verify.path=%s", text(v->path));
	add(d, "upgrade.verify.status=%u", v->status);
	add_list(d, "upgrade.verify.command", v->command);
	add_duration(d, "upgrade.verify.timeout", v->timeout_usec);
	add_duration(d, "upgrade.verify.interval", v->interval_usec);
}

static void add_upgrade(struct dump *d, const struct upgrade_config *u)
{
	_cleanup_free_ char *surge = format_percent(u->surge);
	_cleanup_strv_ char **steps = NULL;

	for (size_t i = 0; i < u->n_steps; i++)
		if (strv_append_take(&steps, format_percent(u->steps[i])) < 0)
			abort();
	add(d, "upgrade.strategy=%s%s", strategy_to_string(u->strategy),
		u->strategy_set ? "" : " by default");
	add(d, "upgrade.surge=%s", surge);
	add_list(d, "upgrade.steps", steps);
	add_duration(d, "upgrade.soak", u->soak_usec);
	add(d, "upgrade.overlap=%s", overlap_to_string(u->overlap));
	add_duration(d, "upgrade.keep_warm", u->keep_warm_usec);
	add(d, "upgrade.preview_from=%s", text(u->preview_from));
	add(d, "upgrade.sticky=%s", u->sticky == STICKY_CLIENT ? "client" : "none");
	add_verify(d, &u->verify);
}

static void add_drain(struct dump *d, const struct drain_config *c)
{
	add_duration(d, "drain.settle", c->settle_usec);
	add_duration(d, "drain.settle_timeout", c->settle_timeout_usec);
	add_duration(d, "drain.idle_wait", c->idle_wait_usec);
	add(d, "drain.signal=%d", c->signal);
	add_duration(d, "drain.timeout", c->timeout_usec);
	add_duration(d, "drain.kill_after", c->kill_after_usec);
	add(d, "drain.max_generations=%u", c->max_generations);
}

static void add_restart(struct dump *d, const struct restart_config *c)
{
	static const char *const policies[] = {"always", "on-failure", "never"};

	add(d, "restart.policy=%s", policies[c->policy]);
	add_duration(d, "restart.backoff.from", c->backoff_from_usec);
	add_duration(d, "restart.backoff.to", c->backoff_to_usec);
	add(d, "restart.limit.starts=%u", c->limit_starts);
	add_duration(d, "restart.limit.within", c->limit_within_usec);
}

static void add_affinity(struct dump *d, const struct service_config *s)
{
	static const char *const kinds[] = {"none", "per-worker", "cpus"};
	_cleanup_free_ char *cpus = strdup("");

	for (unsigned i = 0; i < CPU_SET_MAX; i++) {
		char *longer = cpu_set_has(&s->cpus, i) ? xasprintf("%s %u", cpus, i) : NULL;

		if (longer) {
			free(cpus);
			cpus = longer;
		}
	}
	add(d, "cpu_affinity=%s%s", kinds[s->cpu_affinity], cpus);
}

static void add_rest(struct dump *d, const struct service_config *s)
{
	static const char *const outputs[] = {"tee", "journal", "file", "inherit"};

	add_duration(d, "watchdog", s->watchdog_usec);
	add_duration(d, "recycle.after", s->recycle.after_usec);
	add(d, "recycle.memory=%llu", (unsigned long long)s->recycle.memory);
	add_affinity(d, s);
	struct resource_setting resources[RESOURCES_MAX];
	size_t n_resources = resources_settings(&s->resources, resources);

	for (size_t i = 0; i < n_resources; i++)
		add(d, "%s: %s=%s", resources[i].controller, resources[i].file, resources[i].value);
	for (size_t i = 0; i < s->n_limits; i++)
		add(d, "limit %d=%lld", s->limits[i].resource, (long long)s->limits[i].value);
	add(d, "output=%s%s", outputs[s->output], s->output_set ? "" : " by default");
	add_path(d, "output_file", s->output_file);
	add(d, "autostart=%d", s->autostart);
}

char **config_dump_service(const struct service_config *s, const char *directory)
{
	struct dump d = {.directory = directory};

	add_list(&d, "command", s->command);
	add_path(&d, "directory", s->directory);
	add_list(&d, "fingerprint", s->fingerprint);
	add(&d, "workers=%u%s", s->workers, s->workers_auto ? " auto" : "");
	add(&d, "user=%s", text(s->user));
	add(&d, "group=%s", text(s->group));
	add_list(&d, "environment", s->environment);
	for (size_t i = 0; i < s->n_env_files; i++)
		add(&d, "env_file %s%s", s->env_files[i].path,
			s->env_files[i].optional ? " optional" : "");
	add(&d, "listeners=%zu", s->n_listeners);
	for (size_t i = 0; i < s->n_listeners; i++)
		add_listener(&d, &s->listeners[i]);
	add_handoff(&d, s->handoff);
	add_ready(&d, &s->ready);
	add_upgrade(&d, &s->upgrade);
	add_drain(&d, &s->drain);
	add_restart(&d, &s->restart);
	add_rest(&d, s);
	return d.lines;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* One configuration, changed in one way at a time: what the plan says about it, as one line. */
#include "core/plan.h"
#include "unit.h"

/* --- configurations ------------------------------------------------------------------------------
 */

static void set(char **s, const char *value)
{
	free(*s);
	*s = value ? strdup(value) : NULL;
}

static void ask(struct service_config *s, enum socket_option option, int64_t value)
{
	ck_assert_int_eq(socket_options_set(&s->listeners[0].options, option, value, NULL,
				 (struct config_place){0}),
		0);
}

static void set_list(char ***l, const char *words)
{
	_cleanup_free_ char *copy = strdup(words);
	char *save = NULL;

	*l = strv_free(*l);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		ck_assert_int_eq(strv_append(l, w), 0);
}

static struct listener_config *add_listener(
	struct service_config *s, const char *name, const char *address)
{
	struct listener_config *l;

	s->listeners = reallocarray(s->listeners, s->n_listeners + 1, sizeof(*s->listeners));
	l = &s->listeners[s->n_listeners++];
	listener_config_init(l);
	l->name = strdup(name);
	ck_assert_int_eq(address_parse(address, false, &l->address), 0);
	return l;
}

static void remove_listener(struct service_config *s, size_t i)
{
	listener_config_done(&s->listeners[i]);
	memmove(&s->listeners[i], &s->listeners[i + 1],
		(s->n_listeners - i - 1) * sizeof(*s->listeners));
	s->n_listeners--;
}

static struct service_config *add_service(struct config *c, const char *name)
{
	c->services = reallocarray(c->services, c->n_services + 1, sizeof(*c->services));
	ck_assert_int_eq(service_config_init(&c->services[c->n_services], name), 0);
	return &c->services[c->n_services++];
}

static void add_env_file(struct service_config *s, const char *path)
{
	s->env_files = reallocarray(s->env_files, s->n_env_files + 1, sizeof(*s->env_files));
	s->env_files[s->n_env_files++] = (struct env_file){.path = strdup(path), .optional = true};
}

static void add_limit(struct service_config *s, const char *name, uint64_t value)
{
	int resource;

	ck_assert_int_eq(config_limit_from_string(name, &resource), 0);
	s->limits = reallocarray(s->limits, s->n_limits + 1, sizeof(*s->limits));
	s->limits[s->n_limits++] = (struct limit_config){resource, value};
}

static struct config *base_config(void)
{
	struct config *c = config_new();
	struct service_config *s = add_service(c, "web");

	set_list(&s->command, "bin/web --fast");
	set(&s->directory, "/srv/web");
	set_list(&s->environment, "A=1 B=2");
	add_env_file(s, "web.env");
	add_limit(s, "nofile", 1000);
	add_limit(s, "core", 0);
	s->workers = 4;
	add_listener(s, "http", "tcp:[::]:8080");
	add_listener(s, "admin", "unix:/run/admin.sock");
	return c;
}

/* --- plans as lines ------------------------------------------------------------------------------
 */

static const char *const listener_actions[] = {
	[PLAN_LISTENER_KEEP] = "keep",
	[PLAN_LISTENER_BIND] = "bind",
	[PLAN_LISTENER_DROP] = "drop",
	[PLAN_LISTENER_CHANGE] = "change",
};

/* "upgrade web: command, directory | keep http, keep admin", one line for each service. */
static char *dump(const struct plan *p)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	ck_assert_ptr_nonnull(f);
	for (size_t i = 0; i < p->n; i++) {
		const struct plan_entry *e = &p->entries[i];

		fprintf(f, "%s%s %s", i > 0 ? "\n" : "", plan_action_to_string(e->action),
			e->service);
		for (size_t j = 0; j < strv_length(e->reasons); j++)
			fprintf(f, "%s %s", j > 0 ? "," : ":", e->reasons[j]);
		for (size_t j = 0; j < e->n_listeners; j++)
			fprintf(f, "%s %s %s", j > 0 ? "," : " |",
				listener_actions[e->listeners[j].action], e->listeners[j].name);
	}
	ck_assert_int_eq(fclose(f), 0);
	return text;
}

static void check_plan(const struct config *a, const struct config *b,
	const struct plan_fact *facts, size_t n_facts, bool upgrade_all, const char *expected)
{
	_cleanup_(plan_done) struct plan plan = {NULL, 0};
	_cleanup_free_ char *got = NULL;

	ck_assert_int_eq(plan_make(a, b, facts, n_facts, upgrade_all, &plan), 0);
	got = dump(&plan);
	ck_assert_str_eq(got, expected);
}

/* --- each key ------------------------------------------------------------------------------------
 */

#define KEEP " | keep http, keep admin"
#define CHANGES                                                                                    \
	CHANGE(nothing, (void)s, "none web" KEEP)                                                  \
	CHANGE(place, s->place.line = 77, "none web" KEEP)                                         \
	CHANGE(command, set_list(&s->command, "bin/web --slow"), "upgrade web: command" KEEP)      \
	CHANGE(command_longer, set_list(&s->command, "bin/web --fast 1"),                          \
		"upgrade web: command" KEEP)                                                       \
	CHANGE(directory, set(&s->directory, "/srv/other"), "upgrade web: directory" KEEP)         \
	CHANGE(user, set(&s->user, "www-data"), "upgrade web: user" KEEP)                          \
	CHANGE(group, set(&s->group, "www-data"), "upgrade web: group" KEEP)                       \
	CHANGE(environment, set_list(&s->environment, "A=1 B=3"), "upgrade web: environment" KEEP) \
	CHANGE(environment_less, set_list(&s->environment, "A=1"),                                 \
		"upgrade web: environment" KEEP)                                                   \
	CHANGE(environment_twice, set_list(&s->environment, "A=1 A=1"),                            \
		"upgrade web: environment" KEEP)                                                   \
	CHANGE(environment_order, set_list(&s->environment, "B=2 A=1"), "none web" KEEP)           \
	CHANGE(environment_inherited, s->environment_inherited = true,                             \
		"upgrade web: environment" KEEP)                                                   \
	CHANGE(env_file, set(&s->env_files[0].path, "x.env"), "upgrade web: env_file" KEEP)        \
	CHANGE(env_file_optional, s->env_files[0].optional = false, "upgrade web: env_file" KEEP)  \
	CHANGE(env_file_more, add_env_file(s, "more"), "upgrade web: env_file" KEEP)               \
	CHANGE(handoff, s->handoff |= HANDOFF_STDIN, "upgrade web: handoff" KEEP)                  \
	CHANGE(handoff_spelled_out, s->handoff_set = true, "none web" KEEP)                        \
	CHANGE(ready_fd, s->ready.by = READY_FD; s->ready.by_set = true;                           \
		s->ready.number = 9, "upgrade web: ready" KEEP)                                    \
	CHANGE(ready_einhorn, s->ready.by = READY_EINHORN;                                         \
		s->ready.by_set = true, "upgrade web: ready" KEEP)                                 \
	CHANGE(ready_variable, set(&s->ready.variable, "FD"), "none web" KEEP)                     \
	CHANGE(signal_spelled_out, s->drain.signal_set = true, "none web" KEEP)                    \
	CHANGE(watchdog, s->watchdog_usec = 1, "upgrade web: watchdog" KEEP)                       \
	CHANGE(cpu_affinity, s->cpu_affinity = CPU_AFFINITY_PER_WORKER,                            \
		"upgrade web: cpu_affinity" KEEP)                                                  \
	CHANGE(cpus, cpu_set_add(&s->cpus, 900), "upgrade web: cpu_affinity" KEEP)                 \
	CHANGE(limit, s->limits[0].value = 2000, "upgrade web: limits" KEEP)                       \
	CHANGE(limit_more, add_limit(s, "nproc", 9), "upgrade web: limits" KEEP)                   \
	CHANGE(limit_less, s->n_limits = 1, "upgrade web: limits" KEEP)                            \
	CHANGE(limit_order, s->limits[1] = s->limits[0];                                           \
		s->limits[0] = limit_core, "none web" KEEP)                                        \
	CHANGE(memory_high, s->resources.memory_high = 1 << 30, "upgrade web: resources" KEEP)     \
	CHANGE(memory_max, s->resources.memory_max = 1 << 30, "upgrade web: resources" KEEP)       \
	CHANGE(memory_swap, s->resources.memory_swap_max = 0, "upgrade web: resources" KEEP)       \
	CHANGE(cpu_weight, s->resources.cpu_weight = 7, "upgrade web: resources" KEEP)             \
	CHANGE(cpu_quota, s->resources.cpu_quota = 5000, "upgrade web: resources" KEEP)            \
	CHANGE(tasks_max, s->resources.tasks_max = 99, "upgrade web: resources" KEEP)              \
	CHANGE(io_weight, s->resources.io_weight = 7, "upgrade web: resources" KEEP)               \
	CHANGE(output, s->output = OUTPUT_INHERIT, "upgrade web: output" KEEP)                     \
	CHANGE(output_file, set(&s->output_file, "/tmp/x"), "upgrade web: output" KEEP)            \
	CHANGE(several, set(&s->user, "u"); s->workers = 2;                                        \
		s->drain.signal = 2, "upgrade web: user, workers 4 -> 2, drain" KEEP)              \
	CHANGE(workers, s->workers = 8, "scale web: workers 4 -> 8" KEEP)                          \
	CHANGE(workers_auto, s->workers_auto = true, "none web" KEEP)                              \
	CHANGE(workers_and_more, s->workers = 1;                                                   \
		s->autostart = false, "scale web: workers 4 -> 1, autostart" KEEP)                 \
	CHANGE(default_strategy, s->upgrade.strategy = STRATEGY_ROLLING, "none web" KEEP)          \
	CHANGE(strategy, s->upgrade.strategy = STRATEGY_CANARY;                                    \
		s->upgrade.strategy_set = true, "update web: upgrade" KEEP)                        \
	CHANGE(strategy_spelled_out, s->upgrade.strategy_set = true, "none web" KEEP)              \
	CHANGE(surge, s->upgrade.surge = 1, "update web: upgrade" KEEP)                            \
	CHANGE(steps, s->upgrade.steps[1] = 2600, "update web: upgrade" KEEP)                      \
	CHANGE(steps_less, s->upgrade.n_steps = 1, "update web: upgrade" KEEP)                     \
	CHANGE(soak, s->upgrade.soak_usec = 1, "update web: upgrade" KEEP)                         \
	CHANGE(overlap, s->upgrade.overlap = OVERLAP_QUEUE, "update web: upgrade" KEEP)            \
	CHANGE(keep_warm, s->upgrade.keep_warm_usec = 1, "update web: upgrade" KEEP)               \
	CHANGE(preview_from, set(&s->upgrade.preview_from, "::1"), "update web: upgrade" KEEP)     \
	CHANGE(sticky, s->upgrade.sticky = STICKY_CLIENT, "update web: upgrade" KEEP)              \
	CHANGE(verify_by, s->upgrade.verify.by = VERIFY_HTTP, "update web: upgrade" KEEP)          \
	CHANGE(verify_path, set(&s->upgrade.verify.path, "/"), "update web: upgrade" KEEP)         \
	CHANGE(verify_status, s->upgrade.verify.status = 204, "update web: upgrade" KEEP)          \
	CHANGE(verify_command, set_list(&s->upgrade.verify.command, "true"),                       \
		"update web: upgrade" KEEP)                                                        \
	CHANGE(verify_timeout, s->upgrade.verify.timeout_usec = 1, "update web: upgrade" KEEP)     \
	CHANGE(verify_interval, s->upgrade.verify.interval_usec = 1, "update web: upgrade" KEEP)   \
	CHANGE(recycle_after, s->recycle.after_usec = 1, "update web: recycle" KEEP)               \
	CHANGE(recycle_memory, s->recycle.memory = 1, "update web: recycle" KEEP)                  \
	CHANGE(ready_default, s->ready.by = READY_DELAY, "none web" KEEP)                          \
	CHANGE(ready_by, s->ready.by = READY_NOTIFY;                                               \
		s->ready.by_set = true, "update web: ready" KEEP)                                  \
	CHANGE(ready_accept, s->ready.accept = false, "update web: ready" KEEP)                    \
	CHANGE(ready_timeout, s->ready.timeout_usec = 1, "update web: ready" KEEP)                 \
	CHANGE(ready_delay, s->ready.delay_usec = 1, "update web: ready" KEEP)                     \
	CHANGE(ready_path, set(&s->ready.path, "/up"), "update web: ready" KEEP)                   \
	CHANGE(ready_status, s->ready.status = 204, "update web: ready" KEEP)                      \
	CHANGE(ready_command, set_list(&s->ready.command, "true"), "update web: ready" KEEP)       \
	CHANGE(ready_interval, s->ready.interval_usec = 1, "update web: ready" KEEP)               \
	CHANGE(drain_settle, s->drain.settle_usec = 1, "update web: drain" KEEP)                   \
	CHANGE(drain_settle_timeout, s->drain.settle_timeout_usec = 1, "update web: drain" KEEP)   \
	CHANGE(drain_idle, s->drain.idle_wait_usec = 1, "update web: drain" KEEP)                  \
	CHANGE(drain_signal, s->drain.signal = 1, "update web: drain" KEEP)                        \
	CHANGE(drain_timeout, s->drain.timeout_usec = 1, "update web: drain" KEEP)                 \
	CHANGE(drain_kill_after, s->drain.kill_after_usec = 1, "update web: drain" KEEP)           \
	CHANGE(drain_generations, s->drain.max_generations = 2, "update web: drain" KEEP)          \
	CHANGE(restart_policy, s->restart.policy = RESTART_NEVER, "update web: restart" KEEP)      \
	CHANGE(restart_from, s->restart.backoff_from_usec = 1, "update web: restart" KEEP)         \
	CHANGE(restart_to, s->restart.backoff_to_usec = 1, "update web: restart" KEEP)             \
	CHANGE(restart_starts, s->restart.limit_starts = 1, "update web: restart" KEEP)            \
	CHANGE(restart_within, s->restart.limit_within_usec = 1, "update web: restart" KEEP)       \
	CHANGE(autostart, s->autostart = false, "update web: autostart" KEEP)                      \
	CHANGE(fingerprint, set_list(&s->fingerprint, "REVISION"), "update web: fingerprint" KEEP) \
	CHANGE(backlog, s->listeners[0].backlog = 9,                                               \
		"update web: listener http: backlog | change http, keep admin")                    \
	CHANGE(nodelay, ask(s, OPTION_NODELAY, 1),                                                 \
		"update web: listener http: nodelay | change http, keep admin")                    \
	CHANGE(rcvbuf, ask(s, OPTION_RCVBUF, 1),                                                   \
		"update web: listener http: rcvbuf | change http, keep admin")                     \
	CHANGE(defer_accept, ask(s, OPTION_DEFER_ACCEPT, 5),                                       \
		"update web: listener http: defer_accept | change http, keep admin")               \
	CHANGE(mode, s->listeners[1].mode = 0600,                                                  \
		"update web: listener admin: mode | keep http, change admin")                      \
	CHANGE(mode_set, s->listeners[1].mode_set = true,                                          \
		"update web: listener admin: mode | keep http, change admin")                      \
	CHANGE(owner, set(&s->listeners[1].owner, "u"),                                            \
		"update web: listener admin: owner | keep http, change admin")                     \
	CHANGE(path_group, set(&s->listeners[1].group, "g"),                                       \
		"update web: listener admin: group | keep http, change admin")                     \
	CHANGE(sockets, s->listeners[0].sockets = SOCKETS_PER_WORKER,                              \
		"upgrade web: listener http: sockets" KEEP)                                        \
	CHANGE(steering, s->listeners[0].steering = false,                                         \
		"upgrade web: listener http: steering" KEEP)                                       \
	CHANGE(added, add_listener(s, "more", "tcp:127.0.0.1:9"),                                  \
		"upgrade web: listener more added | keep http, keep admin, bind more")             \
	CHANGE(removed, remove_listener(s, 1),                                                     \
		"upgrade web: listener admin removed | keep http, drop admin")                     \
	CHANGE(renamed, set(&s->listeners[0].name, "api"),                                         \
		"upgrade web: listener api: was http | keep api, keep admin")                      \
	CHANGE(moved, s->listeners[0].address.in6.sin6_port = 1,                                   \
		"upgrade web: listener http: address | bind http, keep admin, drop http")          \
	CHANGE(v6only, s->listeners[0].v6only = true,                                              \
		"upgrade web: listener http: address | bind http, keep admin, drop http")          \
	CHANGE(inherited, s->listeners[0].inherited = true;                                        \
		set(&s->listeners[0].inherit, "https"),                                            \
		"upgrade web: listener http: address | bind http, keep admin, drop http")          \
	CHANGE(order, swap_listeners(s),                                                           \
		"upgrade web: order of listeners | keep admin, keep http")                         \
	CHANGE(names_swapped, set(&s->listeners[0].name, "admin");                                 \
		set(&s->listeners[1].name, "http"),                                                \
		"upgrade web: listener admin: was http, listener http: was admin | keep admin, "   \
		"keep http")                                                                       \
	CHANGE(replaced, remove_listener(s, 0); add_listener(s, "new", "udp:53"),                  \
		"upgrade web: listener new added, listener http removed | keep admin, bind new, "  \
		"drop http")

static struct limit_config limit_core;

static void swap_listeners(struct service_config *s)
{
	struct listener_config first = s->listeners[0];

	s->listeners[0] = s->listeners[1];
	s->listeners[1] = first;
}

#define CHANGE(name, statement, expected)                                                          \
	static void change_##name(struct service_config *s)                                        \
	{                                                                                          \
		statement;                                                                         \
	}
CHANGES
#undef CHANGE

static const struct {
	const char *name;
	void (*change)(struct service_config *s);
	const char *expected;
} changes[] = {
#define CHANGE(name, statement, expected) {#name, change_##name, expected},
	CHANGES
#undef CHANGE
};

START_TEST(each_key)
{
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		_cleanup_config_ struct config *a = base_config(), *b = base_config();
		_cleanup_(plan_done) struct plan plan = {NULL, 0};
		_cleanup_free_ char *got = NULL;

		limit_core = b->services[0].limits[1];
		changes[i].change(&b->services[0]);
		ck_assert_int_eq(plan_make(a, b, NULL, 0, false, &plan), 0);
		got = dump(&plan);
		ck_assert_msg(streq(got, changes[i].expected), "%s:\n  %s\nexpected:\n  %s",
			changes[i].name, got, changes[i].expected);
	}
}
END_TEST

/* And back: what is a reason in one direction is one in the other. */
START_TEST(each_key_backwards)
{
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		_cleanup_config_ struct config *a = base_config(), *b = base_config();
		_cleanup_(plan_done) struct plan there = {NULL, 0}, back = {NULL, 0};
		_cleanup_strv_ char **reasons = NULL;

		limit_core = b->services[0].limits[1];
		changes[i].change(&b->services[0]);
		ck_assert_int_eq(plan_make(a, b, NULL, 0, false, &there), 0);
		ck_assert_int_eq(plan_make(b, a, NULL, 0, false, &back), 0);
		ck_assert_msg(
			there.entries[0].action == back.entries[0].action, "%s", changes[i].name);
		ck_assert_int_eq(plan_snapshot_differs(&a->services[0], &b->services[0], &reasons),
			there.entries[0].action == PLAN_UPGRADE);
	}
}
END_TEST

/* A key that is added and not compared would never be reloaded. Who adds one: compare it in plan.c,
 * change it above, and then write the new size down. */
START_TEST(no_key_is_forgotten)
{
#if defined(__x86_64__)
	enum { SIZE_OF_SERVICE = 984, SIZE_OF_LISTENER = 288 };

	ck_assert_msg(sizeof(struct service_config) == SIZE_OF_SERVICE &&
			      sizeof(struct listener_config) == SIZE_OF_LISTENER,
		"%zu and %zu bytes: is the new key compared?", sizeof(struct service_config),
		sizeof(struct listener_config));
#endif
}
END_TEST

/* --- facts, and several services -----------------------------------------------------------------
 */

START_TEST(facts)
{
	static char executable[] = "executable", env[] = "environment file";
	char *const pending[] = {executable, env, NULL}, *const nothing[] = {NULL};
	_cleanup_config_ struct config *a = base_config(), *b = base_config(),
				       *changed = base_config();
	struct plan_fact other = {.service = "other", .running = true, .pending = pending};
	struct plan_fact f[2] = {
		other, {.service = "web", .running = true}
	  };

	set(&changed->services[0].user, "u");
	changed->services[0].workers = 6;
	check_plan(a, b, f, 2, false, "none web" KEEP);
	f[1].pending = nothing;
	check_plan(a, b, f, 2, false, "none web" KEEP);
	f[1].pending = pending;
	check_plan(a, b, f, 2, false, "upgrade web: executable, environment file" KEEP);
	check_plan(a, b, f, 2, true, "upgrade web: executable, environment file" KEEP);
	check_plan(a, changed, f, 2, false,
		"upgrade web: user, executable, environment file, workers 4 -> 6" KEEP);
	f[1].pending = NULL;
	check_plan(a, b, f, 2, true, "upgrade web: as asked" KEEP);
	check_plan(a, b, NULL, 0, true, "upgrade web: as asked" KEEP);

	/* Scaled by hand until the next reload. */
	f[1].scaled = 9;
	check_plan(a, b, f, 2, false, "scale web: workers 9 -> 4 (scaled by hand)" KEEP);
	f[1].scaled = 4;
	check_plan(a, b, f, 2, false, "none web" KEEP);
	f[1].scaled = 6;
	check_plan(a, changed, f, 2, false, "upgrade web: user" KEEP);

	/* Stopped: nothing is started or upgraded, and the differences are shown. */
	f[1] = (struct plan_fact){.service = "web", .running = false, .pending = pending};
	check_plan(a, b, f, 2, false, "none web" KEEP);
	check_plan(a, b, f, 2, true, "none web" KEEP);
	check_plan(a, changed, f, 2, true, "update web: user, workers 4 -> 6" KEEP);
}
END_TEST

/* Workers that take listeners while they run; one thing after the other keeps them from it. */
START_TEST(listeners_of_workers_that_run)
{
	struct plan_fact live = {.service = "web", .running = true, .live = true};

	for (int i = 0; i < 12; i++) {
		static const char *const expected[] = {
			"listen web: listener more added | keep http, keep admin, bind more",
			"listen web: listener admin removed | keep http, drop admin",
			"listen web: listener more added, listener admin removed, drain | keep "
			"http, "
			"bind more, drop admin",
			"upgrade web: listener more added | keep http, keep admin, bind more",
			"upgrade web: command, listener more added | keep http, keep admin, bind "
			"more",
			"upgrade web: listener more added, workers 4 -> 5 | keep http, keep admin, "
			"bind "
			"more",
			"upgrade web: listener http: address | bind http, keep admin, drop http",
			"upgrade web: listener api: was http, listener more added | keep api, keep "
			"admin, bind more",
			"upgrade web: listener http: sockets, listener more added | keep http, "
			"keep "
			"admin, bind more",
			"upgrade web: listener more added | keep http, keep admin, bind more",
			"upgrade web: handoff | keep http, keep admin",
			"update web: listener more added | keep http, keep admin, bind more",
		};
		_cleanup_config_ struct config *a = base_config(), *b = base_config();
		struct service_config *s = &b->services[0];
		struct plan_fact fact = live;

		a->services[0].handoff = s->handoff = HANDOFF_LISTEN_FDS | HANDOFF_CHANNEL;
		if (i == 1 || i == 2)
			remove_listener(s, 1);
		if (i != 1 && i != 6 && i != 10)
			add_listener(s, "more", "tcp:127.0.0.1:9");
		if (i == 2)
			s->drain.settle_usec = 7;
		if (i == 3)
			fact.live = false;
		if (i == 4)
			set_list(&s->command, "other");
		if (i == 5)
			s->workers = 5;
		if (i == 6)
			s->listeners[0].address.in6.sin6_port = 1;
		if (i == 7)
			set(&s->listeners[0].name, "api");
		if (i == 8)
			s->listeners[0].sockets = SOCKETS_PER_WORKER;
		if (i == 9) /* numbers in arguments */
			a->services[0].handoff = s->handoff |= HANDOFF_ARGUMENTS;
		if (i == 10)
			s->handoff = HANDOFF_LISTEN_FDS;
		if (i == 11)
			fact.running = false;
		check_plan(a, b, &fact, 1, false, expected[i]);
	}
}
END_TEST

START_TEST(services_come_and_go)
{
	_cleanup_config_ struct config *a = base_config(), *b = base_config(), *none = config_new();
	struct service_config *s;

	check_plan(none, none, NULL, 0, true, "");
	check_plan(none, a, NULL, 0, false, "add web | bind http, bind admin");
	check_plan(a, none, NULL, 0, true, "remove web | drop http, drop admin");
	s = add_service(a, "old");
	add_listener(s, "x", "1.2.3.4:5");
	add_service(a, "quiet");
	set(&b->services[0].name, "web2");
	add_service(b, "quiet");
	add_service(b, "young");
	/* Removals first, then the new file's order. */
	check_plan(a, b, NULL, 0, false,
		"remove web | drop http, drop admin\n"
		"remove old | drop x\n"
		"add web2 | bind http, bind admin\n"
		"none quiet\n"
		"add young");
}
END_TEST

START_TEST(inherited_listeners)
{
	struct listener_config a, b;

	listener_config_init(&a);
	listener_config_init(&b);
	a.inherited = b.inherited = true;
	a.inherit = strdup("https");
	b.inherit = strdup("https");
	ck_assert(plan_listener_same(&a, &b));
	set(&b.inherit, "http");
	ck_assert(!plan_listener_same(&a, &b));
	b.inherited = false;
	ck_assert(!plan_listener_same(&a, &b));
	ck_assert(!plan_listener_same(&b, &a));
	listener_config_done(&a);
	listener_config_done(&b);
}
END_TEST

/* Any listeners before and after: each of the new ones is kept or bound once, each of the old ones
 * kept or dropped once. */
START_TEST(any_listeners)
{
	unsigned random = 1;

	for (unsigned round = 0; round < 500; round++) {
		_cleanup_config_ struct config *first = config_new(), *second = config_new();
		_cleanup_(plan_done) struct plan plan = {NULL, 0};
		unsigned n_same = 0, counts[4] = {0};
		const struct service_config *a, *b;

		for (unsigned i = 0; i < 2; i++) {
			struct service_config *s = add_service(i == 0 ? first : second, "web");

			for (unsigned port = 1; port <= 8; port++) {
				char text[20], name[8];

				random = random * 1103515245 + 12345;
				if (random >> 16 & 1)
					continue;
				snprintf(text, sizeof(text), "%s:%u",
					random >> 18 & 3 ? "tcp" : "udp", port);
				snprintf(name, sizeof(name), "l%u",
					random >> 20 & 1 ? port : port + 10);
				add_listener(s, name, text)->backlog = 100 + (random >> 21 & 1);
			}
		}
		a = &first->services[0];
		b = &second->services[0];
		ck_assert_int_eq(plan_make(first, second, NULL, 0, false, &plan), 0);
		for (size_t i = 0; i < plan.entries[0].n_listeners; i++)
			counts[plan.entries[0].listeners[i].action]++;
		for (size_t i = 0; i < a->n_listeners; i++)
			for (size_t j = 0; j < b->n_listeners; j++)
				n_same += address_equal(
					&a->listeners[i].address, &b->listeners[j].address);
		ck_assert_uint_eq(
			counts[PLAN_LISTENER_KEEP] + counts[PLAN_LISTENER_CHANGE], n_same);
		ck_assert_uint_eq(counts[PLAN_LISTENER_BIND], b->n_listeners - n_same);
		ck_assert_uint_eq(counts[PLAN_LISTENER_DROP], a->n_listeners - n_same);
		for (size_t i = 0; i < b->n_listeners; i++)
			ck_assert_str_eq(plan.entries[0].listeners[i].name, b->listeners[i].name);
		if (n_same < a->n_listeners || n_same < b->n_listeners)
			ck_assert_int_eq(plan.entries[0].action, PLAN_UPGRADE);
	}
}
END_TEST

int main(void)
{
	const TTest *tests[] = {each_key, each_key_backwards, no_key_is_forgotten, facts,
		listeners_of_workers_that_run, services_come_and_go, inherited_listeners,
		any_listeners};

	return run_tests("plan", tests, ARRAY_SIZE(tests));
}

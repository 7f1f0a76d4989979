/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of one service. */
#include "daemon/config_yaml_service.h"

#include <signal.h>

#include "base/parse.h"
#include "core/dialect.h"
#include "core/preset.h"

#define error_at(r, node, ...) config_problem_add((r)->problems, (node)->place, false, __VA_ARGS__)

char *config_path_join(const char *directory, const char *path)
{
	const char *rest;

	if (path[0] == '/')
		return strdup(path);
	while ((rest = startswith(path, "./"))) {
		path = rest;
		while (*path == '/')
			path++;
	}
	if (!*path || streq(path, "."))
		return strdup(directory);
	return xasprintf(
		"%s%s%s", directory, directory[strlen(directory) - 1] == '/' ? "" : "/", path);
}

static int read_directory(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);
	char **directory = target;

	if (!text)
		return 0;
	if (!*text) {
		error_at(r, value, "%s is empty", key->name);
		return 0;
	}
	free(*directory);
	*directory = config_path_join(r->directory, text);
	return *directory ? 0 : -ENOMEM;
}

static int read_workers(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	static const struct key number = {.name = "workers",
		.type = KEY_NUMBER,
		.offset = offsetof(struct service_config, workers),
		.min = 1,
		.max = CONFIG_WORKERS_MAX};
	struct service_config *s = target;
	size_t errors = r->problems->n_errors;
	unsigned before = s->workers;
	int q;

	(void)key;
	if (value->kind == NODE_SCALAR && streq(value->text, "auto")) {
		s->workers_auto = true;
		s->workers = 0;
		return 0;
	}
	q = key_read(r, &number, value, s);
	if (r->problems->n_errors > errors)
		s->workers = before;
	return q;
}

static int read_environment(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	char ***environment = target;

	if (!node_is_map(r, key->name, value))
		return 0;
	if (value->n / 2 > CONFIG_LIST_MAX) {
		error_at(r, value, "%s: %zu variables; at most %d are possible", key->name,
			value->n / 2, CONFIG_LIST_MAX);
		return 0;
	}
	for (size_t i = 0; i < value->n; i += 2) {
		const char *name = value->items[i]->text;
		const struct node *text = value->items[i + 1];
		char *entry;
		int q;

		if (node_is_null(text)) {
			error_at(r, text, "%s has no value; write \"\" for an empty one", name);
			continue;
		}
		if (!node_text(r, name, text))
			continue;
		if (strchr(name, '=')) {
			error_at(r, value->items[i], "\"%s\" is not a variable's name", name);
			continue;
		}
		entry = xasprintf("%s=%s", name, text->text);
		q = entry ? strv_append_take(environment, entry) : -ENOMEM;
		if (q < 0)
			return q;
	}
	return 0;
}

static int read_env_files(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	struct service_config *s = target;
	const struct node *const *items;
	size_t n;

	if (!node_items(r, key->name, &value, &items, &n) || n == 0)
		return 0;
	s->env_files = calloc(n, sizeof(*s->env_files));
	if (!s->env_files)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const char *text = node_text(r, key->name, items[i]);
		bool optional;
		char *path;

		if (!text)
			continue;
		optional = text[0] == '-';
		if (optional)
			text++;
		if (!*text) {
			error_at(r, items[i], "%s: a path is missing", key->name);
			continue;
		}
		path = strdup(text);
		if (!path)
			return -ENOMEM;
		s->env_files[s->n_env_files++] =
			(struct env_file){.path = path, .optional = optional};
	}
	return 0;
}

/* --- handoff -------------------------------------------------------------- */

static int read_handoff_kind(
	struct reader *r, const struct key *key, const struct node *item, unsigned *set)
{
	const char *text = node_text(r, key->name, item), *remedy;
	const struct dialect *d;

	if (!text)
		return 0;
	d = dialect_find(text);
	if (d) {
		*set |= d->kind;
		return 0;
	}
	remedy = dialect_not_spoken(text);
	if (!remedy)
		return report_choice(r, key->name, item, dialect_names());
	error_at(r, item, "%s: \"%s\" is not supported by this version; %s", key->name, text,
		remedy);
	return 0;
}

static int read_handoff(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const struct node *const *items;
	unsigned set = 0;
	size_t n;
	int q;

	if (value->kind == NODE_MAP && node_get(value, "preset")) {
		error_at(r, value, "%s: \"preset\" is a key of the service, beside %s", key->name,
			key->name);
		return 0;
	}
	if (!node_items(r, key->name, &value, &items, &n))
		return 0;
	for (size_t i = 0; i < n; i++) {
		q = read_handoff_kind(r, key, items[i], &set);
		if (q < 0)
			return q;
	}
	*(unsigned *)target = set;
	return 0;
}

/* --- preset --------------------------------------------------------------- */

/* It was read before all other keys, which win. */
static int skip_preset(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	(void)r;
	(void)key;
	(void)value;
	(void)target;
	return 0;
}

static int read_preset(struct reader *r, const struct node *map, struct service_config *s)
{
	const struct node *value = node_get(map, "preset");
	const char *text = value ? node_text(r, "preset", value) : NULL;
	const struct preset *p;

	if (!text || streq(text, "none"))
		return 0;
	p = preset_find(text);
	if (!p)
		return report_choice(r, "preset", value, preset_names());
	return preset_begin(p, s);
}

/* --- drain ---------------------------------------------------------------- */

static int read_signal(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);
	int number;

	if (!text)
		return 0;
	if (config_signal_from_string(text, &number) < 0)
		error_at(r, value, "%s: \"%s\" is not a signal, such as SIGTERM or SIGQUIT",
			key->name, text);
	else if (number == SIGSTOP || number == SIGCHLD || number == SIGCONT)
		error_at(r, value, "%s: %s ends no program; use SIGTERM, SIGQUIT or the like",
			key->name, text);
	else
		*(int *)target = number;
	return 0;
}

#define AT(field) offsetof(struct drain_config, field)
static const struct key drain_keys[] = {
	KEY("settle", KEY_DURATION, settle_usec, .max = CONFIG_DURATION_MAX),
	KEY("settle_timeout", KEY_DURATION, settle_timeout_usec, .max = CONFIG_DURATION_MAX),
	KEY("idle_wait", KEY_DURATION, idle_wait_usec, .max = CONFIG_DURATION_MAX),
	KEY("signal", KEY_CUSTOM, signal, .set = AT(signal_set), .read = read_signal),
	KEY("timeout", KEY_DURATION, timeout_usec, .max = CONFIG_DURATION_MAX),
	KEY("kill_after", KEY_DURATION, kill_after_usec, .max = CONFIG_DURATION_MAX),
	KEY("max_generations", KEY_NUMBER, max_generations, .min = 2,
		.max = CONFIG_GENERATIONS_MAX),
};
#undef AT

static const struct key_table drain_table = KEY_TABLE("drain", drain_keys, .main_key = "timeout");

/* --- restart -------------------------------------------------------------- */

static const char *const policy_words[] = {"always", "on-failure", "never", NULL};

#define AT(field) offsetof(struct restart_config, field)
static const struct key backoff_keys[] = {
	KEY("from", KEY_DURATION, backoff_from_usec, .min = USEC_PER_MSEC,
		.max = CONFIG_DURATION_MAX),
	KEY("to", KEY_DURATION, backoff_to_usec, .min = USEC_PER_MSEC, .max = CONFIG_DURATION_MAX),
};
static const struct key limit_keys[] = {
	KEY("starts", KEY_NUMBER, limit_starts, .min = 0, .max = 1000000),
	KEY("within", KEY_DURATION, limit_within_usec, .max = CONFIG_DURATION_MAX),
};
static const struct key_table backoff_table = KEY_TABLE("restart's backoff", backoff_keys);
static const struct key_table limit_table = KEY_TABLE("restart's limit", limit_keys);

static const struct key restart_keys[] = {
	KEY("policy", KEY_CHOICE, policy, .choices = policy_words),
	KEY_WHOLE("backoff", KEY_SECTION, .table = &backoff_table),
	KEY_WHOLE("limit", KEY_SECTION, .table = &limit_table),
};
#undef AT

static const struct key_table restart_table =
	KEY_TABLE("restart", restart_keys, .main_key = "policy");

/* --- recycle, cpu_affinity ------------------------------------------------ */

#define AT(field) offsetof(struct recycle_config, field)
static const struct key recycle_keys[] = {
	KEY("after", KEY_DURATION, after_usec, .min = USEC_PER_SEC, .max = CONFIG_DURATION_MAX),
	KEY("memory", KEY_SIZE, memory, .min = UINT64_C(1) << 20, .max = UINT64_C(1) << 50),
};
#undef AT

static const struct key_table recycle_table =
	KEY_TABLE("recycle", recycle_keys, .main_key = "after");

static int read_cpus(
	struct reader *r, const struct key *key, const struct node *value, struct cpu_set *ret)
{
	const struct node *const *items;
	size_t n;

	if (!node_items(r, key->name, &value, &items, &n))
		return 0;
	if (n == 0)
		error_at(r, value, "%s: an empty list; write none, per-worker, or CPUs such as 0-3",
			key->name);
	for (size_t i = 0; i < n; i++) {
		const char *text = node_text(r, key->name, items[i]);
		struct cpu_set some;
		int q = text ? cpu_set_parse(text, &some) : -EEXIST;

		if (q == -ENOMEM)
			return q;
		if (q == -ERANGE)
			error_at(r, items[i], "%s: \"%s\" has a CPU beyond %d", key->name, text,
				CPU_SET_MAX - 1);
		else if (q == -EINVAL)
			error_at(r, items[i],
				"%s: \"%s\" is none of none, per-worker, nor a list of CPUs such "
				"as 0-3,8",
				key->name, text);
		for (size_t k = 0; q == 0 && k < ARRAY_SIZE(ret->bits); k++)
			ret->bits[k] |= some.bits[k];
	}
	return 0;
}

static int read_cpu_affinity(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	struct service_config *s = target;

	s->cpus = (struct cpu_set){0};
	if (value->kind == NODE_SCALAR && streq(value->text, "none")) {
		s->cpu_affinity = CPU_AFFINITY_NONE;
		return 0;
	}
	if (value->kind == NODE_SCALAR && streq(value->text, "per-worker")) {
		s->cpu_affinity = CPU_AFFINITY_PER_WORKER;
		return 0;
	}
	s->cpu_affinity = CPU_AFFINITY_SET;
	return read_cpus(r, key, value, &s->cpus);
}

/* --- resources ------------------------------------------------------------ */

/* "150%": of one CPU, so that 100% is no limit. */
static int read_cpu_quota(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);
	_cleanup_free_ char *digits = text ? strdup(text) : NULL;
	unsigned percent = 0;
	size_t n;

	if (!digits)
		return text ? -ENOMEM : 0;
	n = strlen(digits);
	if (n > 0 && digits[n - 1] == '%') {
		digits[n - 1] = '\0';
		/* The kernel gives no less than a millisecond at a time. */
		if (parse_uint(digits, 1, 100 * CPU_SET_MAX, &percent) >= 0) {
			*(unsigned *)target = percent * (SHARE_MAX / 100);
			return 0;
		}
	}
	error_at(r, value,
		"%s: \"%s\" is not a whole number of percent of one CPU from 1%% to %d%%, such as "
		"50%% or 200%%",
		key->name, text, 100 * CPU_SET_MAX);
	return 0;
}

#define AT(field) offsetof(struct resource_config, field)
#define MEMORY .min = UINT64_C(1) << 20, .max = UINT64_C(1) << 50
static const struct key resource_keys[] = {
	KEY("memory_high", KEY_SIZE, memory_high, MEMORY),
	KEY("memory_max", KEY_SIZE, memory_max, MEMORY),
	KEY("memory_swap_max", KEY_SIZE, memory_swap_max, .max = UINT64_C(1) << 50),
	KEY("cpu_weight", KEY_NUMBER, cpu_weight, .min = 1, .max = 10000),
	KEY("cpu_quota", KEY_CUSTOM, cpu_quota, .read = read_cpu_quota),
	KEY("tasks_max", KEY_NUMBER, tasks_max, .min = 1, .max = 4194304),
	KEY("io_weight", KEY_NUMBER, io_weight, .min = 1, .max = 10000),
};
#undef AT

static const struct key_table resource_table = KEY_TABLE("resources", resource_keys);

/* --- the rest ------------------------------------------------------------- */

static int read_watchdog(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	static const struct key duration = {.name = "watchdog",
		.type = KEY_DURATION,
		.min = 100 * USEC_PER_MSEC,
		.max = CONFIG_DURATION_MAX};

	(void)key;
	if (value->kind == NODE_SCALAR && (streq(value->text, "off") || streq(value->text, "0"))) {
		*(uint64_t *)target = 0;
		return 0;
	}
	return key_read(r, &duration, value, target);
}

static int read_limit(struct reader *r, const struct node *name, const struct node *value,
	struct limit_config *ret, bool *ret_good)
{
	const char *text = node_text(r, name->text, value);

	*ret_good = false;
	if (config_limit_from_string(name->text, &ret->resource) < 0)
		return report_choice(r, "limits", name, config_limit_names);
	if (!text)
		return 0;
	*ret_good = true;
	if (streq(text, "unlimited") || streq(text, "infinity"))
		ret->value = UINT64_MAX;
	else if (parse_size(text, &ret->value) < 0 || ret->value >= INT64_MAX) {
		error_at(r, value,
			"%s: \"%s\" is not a limit; write a number, a size such as 64K, or "
			"unlimited",
			name->text, text);
		*ret_good = false;
	}
	return 0;
}

static int read_limits(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	struct service_config *s = target;

	if (!node_is_map(r, key->name, value) || value->n == 0)
		return 0;
	s->limits = calloc(value->n / 2, sizeof(*s->limits));
	if (!s->limits)
		return -ENOMEM;
	for (size_t i = 0; i < value->n; i += 2) {
		bool good;
		int q = read_limit(
			r, value->items[i], value->items[i + 1], &s->limits[s->n_limits], &good);

		if (q < 0)
			return q;
		if (good)
			s->n_limits++;
	}
	return 0;
}

static const char *const output_words[] = {"tee", "journal", "inherit", NULL};

static int read_output(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	static const enum output_kind kinds[] = {OUTPUT_TEE, OUTPUT_JOURNAL, OUTPUT_INHERIT};
	struct service_config *s = target;
	const char *text = node_text(r, key->name, value);

	if (!text)
		return 0;
	for (size_t i = 0; output_words[i]; i++) {
		if (streq(output_words[i], text)) {
			s->output = kinds[i];
			return 0;
		}
	}
	if (!strchr(text, '/')) {
		error_at(r, value,
			"%s: \"%s\" is none of tee, journal, inherit, nor a file; a file's name "
			"needs a \"/\", such as ./%s",
			key->name, text, text);
		return 0;
	}
	s->output = OUTPUT_FILE;
	s->output_file = strdup(text);
	return s->output_file ? 0 : -ENOMEM;
}

/* --- all keys ------------------------------------------------------------- */

#define AT(field) offsetof(struct service_config, field)
static const struct key service_keys[] = {
	KEY("command", KEY_COMMAND, command, .place = AT(command_place),
		.section = SECTION_COMMAND),
	KEY("directory", KEY_CUSTOM, directory, .read = read_directory),
	KEY("fingerprint", KEY_LIST, fingerprint),
	KEY_WHOLE("workers", KEY_CUSTOM, .read = read_workers, .section = SECTION_WORKERS),
	KEY("user", KEY_USER, user),
	KEY("group", KEY_USER, group),
	KEY("environment", KEY_CUSTOM, environment, .place = AT(environment_place),
		.read = read_environment, .section = SECTION_ENVIRONMENT),
	KEY_WHOLE("env_file", KEY_CUSTOM, .read = read_env_files),
	KEY_WHOLE("listen", KEY_CUSTOM, .read = config_read_listen, .section = SECTION_LISTEN),
	KEY_WHOLE("preset", KEY_CUSTOM, .set = AT(preset_set), .read = skip_preset),
	KEY("handoff", KEY_CUSTOM, handoff, .place = AT(handoff_place), .set = AT(handoff_set),
		.read = read_handoff, .section = SECTION_HANDOFF),
	KEY("ready", KEY_CUSTOM, ready, .place = AT(ready.place), .read = config_read_ready,
		.section = SECTION_READY),
	KEY("upgrade", KEY_SECTION, upgrade, .place = AT(upgrade.place),
		.table = &config_upgrade_table, .section = SECTION_UPGRADE),
	KEY("drain", KEY_SECTION, drain, .place = AT(drain.place), .table = &drain_table,
		.section = SECTION_DRAIN),
	KEY("restart", KEY_SECTION, restart, .place = AT(restart.place), .table = &restart_table,
		.section = SECTION_RESTART),
	KEY("watchdog", KEY_CUSTOM, watchdog_usec, .read = read_watchdog),
	KEY("recycle", KEY_SECTION, recycle, .place = AT(recycle.place), .table = &recycle_table,
		.section = SECTION_RECYCLE),
	KEY_WHOLE("cpu_affinity", KEY_CUSTOM, .place = AT(cpu_affinity_place),
		.read = read_cpu_affinity, .section = SECTION_CPU_AFFINITY),
	KEY_WHOLE("limits", KEY_CUSTOM, .read = read_limits),
	KEY("resources", KEY_SECTION, resources, .place = AT(resources_place),
		.table = &resource_table, .section = SECTION_RESOURCES),
	KEY_WHOLE("output", KEY_CUSTOM, .set = AT(output_set), .read = read_output),
	KEY("autostart", KEY_BOOL, autostart),
};

static const struct key_table service_table =
	KEY_TABLE("a service", service_keys, .broken = AT(broken));
#undef AT

/* What needs the directory, which may stand behind it in the file. */
static int finish_paths(struct reader *r, struct service_config *s)
{
	char *output;

	if (!s->directory) {
		s->directory = strdup(r->directory);
		if (!s->directory)
			return -ENOMEM;
	}
	if (!s->output_file)
		return 0;
	output = config_path_join(s->directory, s->output_file);
	if (!output)
		return -ENOMEM;
	free(s->output_file);
	s->output_file = output;
	return 0;
}

int config_read_service(struct reader *r, const struct node *name, const struct node *value)
{
	struct config *c = r->config;
	struct service_config *s, *longer;
	int q;

	longer = reallocarray(c->services, c->n_services + 1, sizeof(*longer));
	if (!longer)
		return -ENOMEM;
	c->services = longer;
	s = &c->services[c->n_services];
	q = service_config_init(s, name->text);
	if (q < 0)
		return q;
	c->n_services++;
	s->place = name->place;
	if (!node_is_map(r, name->text, value)) {
		s->broken |= SECTION_COMMAND;
		return finish_paths(r, s);
	}
	q = read_preset(r, value, s);
	if (q >= 0)
		q = keys_read(r, value, &service_table, s);
	return q < 0 ? q : finish_paths(r, s);
}

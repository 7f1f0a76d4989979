/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of `upgrade:`. */
#include "daemon/config_yaml_service.h"

#define error_at(r, node, ...) config_problem_add((r)->problems, (node)->place, false, __VA_ARGS__)

static const char *const strategy_words[] = {"blue-green", "rolling", "canary", "recreate", NULL};
static const char *const overlap_words[] = {"reject", "queue", "supersede", NULL};
static const char *const sticky_words[] = {"none", "client", NULL};

static int read_steps(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	static const struct key share = {
		.name = "steps", .type = KEY_SHARE, .min = 1, .max = SHARE_MAX};
	struct upgrade_config *u = target;
	const struct node *const *items;
	size_t n;
	int q;

	if (!node_items(r, key->name, &value, &items, &n))
		return 0;
	if (n == 0 || n > CONFIG_STEPS_MAX) {
		error_at(r, value, "%s: %zu steps; 1 to %d are possible", key->name, n,
			CONFIG_STEPS_MAX);
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		q = key_read(r, &share, items[i], &u->steps[i]);
		if (q < 0)
			return q;
	}
	u->n_steps = n;
	return 0;
}

/* --- verify --------------------------------------------------------------- */

#define AT(field) offsetof(struct verify_config, field)
static const struct key verify_keys[] = {
	KEY("http", KEY_CUSTOM, path, .read = config_read_url_path),
	KEY("status", KEY_CUSTOM, status, .read = config_read_status),
	KEY("command", KEY_COMMAND, command),
	KEY("timeout", KEY_DURATION, timeout_usec, .min = USEC_PER_MSEC,
		.max = CONFIG_DURATION_MAX),
	KEY("interval", KEY_DURATION, interval_usec, .max = CONFIG_DURATION_MAX),
};
static const struct key verify_command = KEY("verify", KEY_COMMAND, command);
static const struct key verify_path = KEY("verify", KEY_CUSTOM, path, .read = config_read_url_path);
#undef AT

static const struct key_table verify_table = KEY_TABLE("verify", verify_keys);

static int read_verify_map(struct reader *r, const struct node *map, struct verify_config *v)
{
	const struct node *http = node_get(map, "http"), *command = node_get(map, "command"),
			  *status = node_get(map, "status");
	size_t errors = r->problems->n_errors;
	int q = keys_read(r, map, &verify_table, v);

	if (q < 0 || r->problems->n_errors > errors)
		return q;
	v->by = command ? VERIFY_COMMAND : VERIFY_HTTP;
	if (http && command)
		error_at(r, command, "verify: \"http\" or \"command\", not both");
	else if (!http && !command)
		error_at(r, map, "verify needs http: PATH or command: PROGRAM ARGUMENTS");
	else if (status && !http)
		error_at(r, status, "verify: \"status\" needs http: PATH");
	return 0;
}

/* One word with a slash first is a page, as for `ready`; what else is no map is a command. */
static int read_verify(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	struct verify_config *v = target;
	bool scalar = value->kind == NODE_SCALAR && !node_is_null(value);

	if (value->kind == NODE_MAP)
		return read_verify_map(r, value, v);
	if (scalar && streq(value->text, "none")) {
		v->by = VERIFY_NONE;
		return 0;
	}
	if (scalar && value->text[0] == '/') {
		if (strpbrk(value->text, " \t")) {
			error_at(r, value,
				"%s: with a \"/\" first it is the path of a URL; write a command "
				"as a list of words, or command: %s",
				key->name, value->text);
			return 0;
		}
		v->by = VERIFY_HTTP;
		return key_read(r, &verify_path, value, v);
	}
	v->by = VERIFY_COMMAND;
	return key_read(r, &verify_command, value, v);
}

/* --- all keys ------------------------------------------------------------- */

#define AT(field) offsetof(struct upgrade_config, field)
static const struct key upgrade_keys[] = {
	KEY("strategy", KEY_CHOICE, strategy, .set = AT(strategy_set), .choices = strategy_words),
	KEY("surge", KEY_SHARE, surge, .set = AT(surge_set), .min = 1, .max = SHARE_MAX),
	KEY_WHOLE("steps", KEY_CUSTOM, .set = AT(steps_set), .read = read_steps),
	KEY("soak", KEY_DURATION, soak_usec, .max = CONFIG_DURATION_MAX),
	KEY("sticky", KEY_CHOICE, sticky, .choices = sticky_words),
	KEY("verify", KEY_CUSTOM, verify, .place = AT(verify.place), .read = read_verify),
	KEY("overlap", KEY_CHOICE, overlap, .choices = overlap_words),
	KEY("preview_from", KEY_TEXT, preview_from),
	KEY("keep_warm", KEY_DURATION, keep_warm_usec, .max = CONFIG_DURATION_MAX),
};
#undef AT

const struct key_table config_upgrade_table =
	KEY_TABLE("upgrade", upgrade_keys, .main_key = "strategy");

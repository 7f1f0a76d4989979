/* SPDX-License-Identifier: Apache-2.0 */
/* `ready:`, and which of its keys go with which kind. */
#include "daemon/config_yaml_service.h"

#define error_at(r, node, ...) config_problem_add((r)->problems, (node)->place, false, __VA_ARGS__)

/* In the order of enum ready_kind. */
static const char *const ready_words[] = {
	"accept", "notify", "http", "exec", "delay", "fd", "einhorn-ack", NULL};

static int read_variable(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value), *p = text;
	char **variable = target;

	if (!text)
		return 0;
	while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_' ||
		(p > text && *p >= '0' && *p <= '9'))
		p++;
	if (p == text || *p) {
		error_at(r, value, "%s: \"%s\" is not a variable's name, such as READY_FD",
			key->name, text);
		return 0;
	}
	free(*variable);
	*variable = strdup(text);
	return *variable ? 0 : -ENOMEM;
}

int config_read_url_path(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const char *text = node_text(r, key->name, value);
	char **path = target;
	const char *p;

	if (!text)
		return 0;
	for (p = text; *p > ' ' && *p < 127; p++)
		;
	if (*text != '/' || *p) {
		error_at(r, value, "%s: \"%s\" is not the path of a URL, such as /up", key->name,
			text);
		return 0;
	}
	free(*path);
	*path = strdup(text);
	return *path ? 0 : -ENOMEM;
}

int config_read_status(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	static const struct key number = {
		.name = "status", .type = KEY_NUMBER, .min = 100, .max = 599};

	(void)key;
	if (value->kind == NODE_SCALAR && streq(value->text, "any")) {
		*(unsigned *)target = 0;
		return 0;
	}
	return key_read(r, &number, value, target);
}

#define AT(field) offsetof(struct ready_config, field)
static const struct key ready_keys[] = {
	KEY("by", KEY_CHOICE, by, .set = AT(by_set), .choices = ready_words),
	KEY("accept", KEY_BOOL, accept),
	KEY("timeout", KEY_DURATION, timeout_usec, .min = USEC_PER_MSEC,
		.max = CONFIG_DURATION_MAX),
	KEY("delay", KEY_DURATION, delay_usec, .min = 0, .max = CONFIG_DURATION_MAX),
	KEY("path", KEY_CUSTOM, path, .read = config_read_url_path),
	KEY("status", KEY_CUSTOM, status, .read = config_read_status),
	KEY("command", KEY_COMMAND, command),
	KEY("interval", KEY_DURATION, interval_usec, .min = USEC_PER_MSEC,
		.max = 3600 * USEC_PER_SEC),
	KEY("number", KEY_NUMBER, number, .min = 3, .max = 1023),
	KEY("variable", KEY_CUSTOM, variable, .read = read_variable),
};
#undef AT

static const struct key_table ready_table = KEY_TABLE("ready", ready_keys);

enum {
	HTTP_KIND = 1 << READY_HTTP,
	EXEC_KIND = 1 << READY_EXEC,
	DELAY_KIND = 1 << READY_DELAY,
	FD_KIND = 1 << READY_FD,
};

/* Which keys say something to one kind only. */
static const struct {
	const char *key;
	unsigned kinds; /* set of HTTP_KIND ... */
	const char *needs;
} ready_key_kinds[] = {
	{"path",	 HTTP_KIND,		    "by: http"	      },
	{"status",   HTTP_KIND,	      "by: http"		},
	{"command",  EXEC_KIND,	       "by: exec"		 },
	{"delay",	  DELAY_KIND,	      "by: delay"		 },
	{"interval", HTTP_KIND | EXEC_KIND, "by: http or by: exec"},
	{"number",   FD_KIND,		    "by: fd"		    },
	{"variable", FD_KIND,		      "by: fd"	      },
};

static void check_ready_keys(
	struct reader *r, const struct node *map, const struct ready_config *ready)
{
	for (size_t i = 0; i < ARRAY_SIZE(ready_key_kinds); i++) {
		const struct node *value = node_get(map, ready_key_kinds[i].key);

		if (!value || (ready->by_set && (ready_key_kinds[i].kinds & (1U << ready->by))))
			continue;
		error_at(r, value, "ready: \"%s\" needs %s", ready_key_kinds[i].key,
			ready_key_kinds[i].needs);
	}
}

int config_read_ready(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	static const struct key path_key = {.name = "ready",
		.type = KEY_CUSTOM,
		.offset = offsetof(struct ready_config, path),
		.read = config_read_url_path};
	static const struct key by_key = {.name = "ready",
		.type = KEY_CHOICE,
		.offset = offsetof(struct ready_config, by),
		.set = offsetof(struct ready_config, by_set),
		.choices = ready_words};
	struct ready_config *ready = target;
	size_t errors = r->problems->n_errors;
	int q;

	if (value->kind == NODE_SCALAR && value->text[0] == '/') {
		ready->by = READY_HTTP;
		ready->by_set = true;
		return key_read(r, &path_key, value, ready);
	}
	if (value->kind == NODE_SCALAR && !node_is_null(value))
		return key_read(r, &by_key, value, ready);
	if (!node_is_map(r, key->name, value))
		return 0;
	q = keys_read(r, value, &ready_table, ready);
	if (q == 0 && r->problems->n_errors == errors)
		check_ready_keys(r, value, ready);
	return q;
}

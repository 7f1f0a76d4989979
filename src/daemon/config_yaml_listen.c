/* SPDX-License-Identifier: Apache-2.0 */
/* `listen:` in its four forms: one port or address, one map with an address, a list of both, or a
 * map of them by name. */
#include "daemon/config_yaml_service.h"

#include "base/parse.h"

static int read_address(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	struct listener_config *l = target;
	const char *text = node_text(r, key->name, value);
	const char *why = "write a port, ADDRESS:PORT, [IPV6]:PORT or unix:/PATH; names of hosts "
			  "are not looked up";
	int q;

	if (!text) {
		l->broken = true;
		return 0;
	}
	q = address_parse(text, false, &l->address);
	if (q == 0)
		return 0;
	if (q == -ERANGE)
		why = "a port is between 1 and 65535";
	else if (q == -ENAMETOOLONG)
		why = "the path is longer than the 107 bytes of a Unix socket's";
	else if (q == -ENODEV)
		why = "there is no such network interface";
	config_problem_add(
		r->problems, value->place, false, "\"%s\" is not an address; %s", text, why);
	l->broken = true;
	return 0;
}

static int read_inherit(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	struct listener_config *l = target;
	const char *text = node_text(r, key->name, value);

	l->broken = true;
	if (!text)
		return 0;
	/* As sd_listen_fds_with_names(3) can deliver it: no colon, no control characters. */
	for (const char *p = text; *p; p++) {
		if (*p > ' ' && *p < 127 && *p != ':')
			continue;
		text = "";
		break;
	}
	if (!*text || strlen(text) > 255) {
		config_problem_add(r->problems, value->place, false,
			"inherit: \"%s\" is not the FileDescriptorName= of a systemd socket",
			value->text);
		return 0;
	}
	free(l->inherit);
	l->inherit = strdup(text);
	if (!l->inherit)
		return -ENOMEM;
	l->inherited = true;
	l->broken = false;
	return 0;
}

static const char *const sockets_words[] = {"shared", "per-worker", NULL};

#define AT(field) offsetof(struct listener_config, field)

static int report_option(struct reader *r, const struct node *value, int q, struct error *error)
{
	if (q == -ENOMEM)
		return q;
	if (q < 0)
		config_problem_add(r->problems, value->place, false, "%s", error_message(error));
	return 0;
}

/* "239.1.2.3", "239.1.2.3%eth0" or {group: 239.1.2.3, interface: eth0} */
static int read_group(struct reader *r, const struct node *item, struct listener_config *l)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	const struct node *group = item, *interface = NULL;
	const char *text, *name = NULL;

	if (item->kind == NODE_MAP) {
		group = node_get(item, "group");
		interface = node_get(item, "interface");
		if (!group || item->n != (interface ? 4 : 2)) {
			config_problem_add(r->problems, item->place, false,
				"multicast: write group: ADDRESS, and perhaps interface: NAME");
			return 0;
		}
	}
	text = node_text(r, "multicast", group);
	if (interface)
		name = node_text(r, "interface", interface);
	if (!text || (interface && !name))
		return 0;
	return report_option(
		r, item, socket_options_add_group(&l->options, text, name, &error), &error);
}

static int read_groups(struct reader *r, const struct node *value, struct listener_config *l)
{
	const struct node *const *items = &value;
	size_t n = 1;
	int q = 0;

	l->options.groups_place = value->place;
	if (value->kind != NODE_MAP && !node_items(r, "multicast", &value, &items, &n))
		return 0;
	for (size_t i = 0; i < n && q == 0; i++)
		q = read_group(r, items[i], l);
	return q;
}

static int read_option(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	static const struct key v6only = KEY("v6only", KEY_BOOL, v6only),
				backlog = KEY("backlog", KEY_NUMBER, backlog,
					.set = AT(backlog_set), .min = 1, .max = 1 << 20);
	_cleanup_error_ struct error error = ERROR_NULL;
	struct listener_config *l = target;
	enum socket_option option;
	const char *text;

	if (socket_option_from_key(key->name, &option) < 0)
		return -EINVAL;
	if (option == OPTION_V6ONLY)
		return key_read(r, &v6only, value, l);
	if (option == OPTION_BACKLOG)
		return key_read(r, &backlog, value, l);
	if (option == OPTION_MULTICAST)
		return read_groups(r, value, l);
	text = node_text(r, key->name, value);
	if (!text)
		return 0;
	return report_option(r, value,
		socket_options_parse(&l->options, option, text, value->place, &error), &error);
}

static const struct key listener_keys[] = {KEY_WHOLE("address", KEY_CUSTOM, .read = read_address),
	KEY_WHOLE("inherit", KEY_CUSTOM, .read = read_inherit), KEY("name", KEY_TEXT, name),
	KEY("sockets", KEY_CHOICE, sockets, .choices = sockets_words),
	KEY("steering", KEY_BOOL, steering),
	KEY("mode", KEY_MODE, mode, .set = AT(mode_set), .max = 0777),
	KEY("owner", KEY_USER, owner), KEY("group", KEY_USER, group),
#define OPTION_KEY(id, key) KEY_WHOLE(key, KEY_CUSTOM, .read = read_option),
	SOCKET_OPTIONS(OPTION_KEY)
#undef OPTION_KEY
};
#undef AT

static const struct key_table listener_table = KEY_TABLE("a listener", listener_keys);

static int read_listener_map(struct reader *r, const struct node *value, struct listener_config *l)
{
	size_t errors = r->problems->n_errors;
	const struct node *address = node_get(value, "address"),
			  *inherit = node_get(value, "inherit");
	int q = keys_read(r, value, &listener_table, l);

	if (q < 0)
		return q;
	if (address && inherit) {
		config_problem_add(r->problems, inherit->place, false,
			"a listener has either an address or inherit, not both");
		l->broken = true;
	} else if (!address && !inherit) {
		if (r->problems->n_errors == errors)
			config_problem_add(r->problems, value->place, false,
				"the listener has no address; write address: PORT, or inherit: "
				"NAME");
		l->broken = true;
	}
	return 0;
}

/* name: of a map's entry, or NULL. */
static int append_listener(struct reader *r, struct service_config *s, const struct node *name,
	const struct node *value)
{
	struct key address_key = {.name = "listen", .type = KEY_CUSTOM, .read = read_address};
	struct listener_config *l, *longer;

	if (s->n_listeners >= CONFIG_LISTENERS_MAX) {
		config_problem_add(r->problems, value->place, false,
			"more than %d listeners in one service", CONFIG_LISTENERS_MAX);
		return 0;
	}
	longer = reallocarray(s->listeners, s->n_listeners + 1, sizeof(*longer));
	if (!longer)
		return -ENOMEM;
	s->listeners = longer;
	l = &s->listeners[s->n_listeners++];
	listener_config_init(l);
	l->place = name ? name->place : value->place;
	if (name) {
		l->name = strdup(name->text);
		if (!l->name)
			return -ENOMEM;
	}
	if (name)
		address_key.name = name->text;
	if (value->kind != NODE_MAP)
		return key_read(r, &address_key, value, l);
	if (name && node_get(value, "name"))
		config_problem_add(r->problems, node_get(value, "name")->place, false,
			"this listener already has a name, \"%s\"", name->text);
	return read_listener_map(r, value, l);
}

static int read_list(struct reader *r, struct service_config *s, const struct node *list)
{
	int q = 0;

	for (size_t i = 0; i < list->n && q == 0 && i <= CONFIG_LISTENERS_MAX; i++)
		q = append_listener(r, s, NULL, list->items[i]);
	return q;
}

static int read_map(struct reader *r, struct service_config *s, const struct node *map)
{
	int q = 0;

	/* The keys of a listener cannot be names: a map that has one is a listener itself. */
	for (size_t i = 0; i < listener_table.n_keys; i++)
		if (node_get(map, listener_table.keys[i].name))
			return append_listener(r, s, NULL, map);
	for (size_t i = 0; i < map->n && q == 0 && i / 2 <= CONFIG_LISTENERS_MAX; i += 2)
		q = append_listener(r, s, map->items[i], map->items[i + 1]);
	return q;
}

int config_read_listen(
	struct reader *r, const struct key *key, const struct node *value, void *service)
{
	switch (value->kind) {
	case NODE_SCALAR:
		if (!node_text(r, key->name, value))
			return 0;
		return append_listener(r, service, NULL, value);
	case NODE_LIST:
		return read_list(r, service, value);
	case NODE_MAP:
		return read_map(r, service, value);
	}
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/run.h"

#include <getopt.h>

#include "base/parse.h"
#include "core/dialect.h"
#include "core/preset.h"
#include "daemon/config_yaml.h"
#include "daemon/manager.h"

enum { EXIT_USAGE = 2 };

enum run_option {
	OPTION_LISTEN = 256,
	OPTION_WORKERS,
	OPTION_NAME,
	OPTION_SOCKET,
	OPTION_SOAK,
	OPTION_SETTLE,
	OPTION_DRAIN,
	OPTION_READY,
	OPTION_PRESET,
	OPTION_HANDOFF,
	OPTION_KEEPER,
	OPTION_NO_KEEPER,
};

static int bad(const char *option, const char *value, const char *want)
{
	fprintf(stderr, "tenured: run: --%s %s: want %s\n", option, value, want);
	return EXIT_USAGE;
}

static int add_listener(struct service_config *s, const char *text)
{
	struct listener_config *l;
	size_t capacity = s->n_listeners;

	if (array_reserve(&s->listeners, &capacity, s->n_listeners + 1, sizeof(*l)) < 0)
		return EXIT_FAILURE;
	l = &s->listeners[s->n_listeners];
	listener_config_init(l);
	if (address_parse(text, false, &l->address) < 0)
		return bad("listen", text, "a port, ADDRESS:PORT, [ADDRESS]:PORT or unix:/path");
	s->n_listeners++;
	return 0;
}

static int set_ready(struct service_config *s, const char *text)
{
	static const enum ready_kind kinds[] = {
		READY_ACCEPT, READY_NOTIFY, READY_DELAY, READY_EINHORN};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (streq(text, ready_kind_to_string(kinds[i]))) {
			s->ready.by = kinds[i];
			s->ready.by_set = true;
			return 0;
		}
	if (text[0] != '/')
		return bad(
			"ready", text, "accept, notify, delay, einhorn-ack or a path such as /up");
	s->ready.by = READY_HTTP;
	s->ready.by_set = true;
	free(s->ready.path);
	s->ready.path = strdup(text);
	return s->ready.path ? 0 : EXIT_FAILURE;
}

/* The first one takes the default's place. */
static int add_handoff(struct service_config *s, const char *text)
{
	const struct dialect *d = dialect_find(text);

	if (!d)
		return bad("handoff", text,
			"listen-fds, server-starter, einhorn ...; see tenured.yaml(5)");
	s->handoff = (s->handoff_set ? s->handoff : 0) | (unsigned)d->kind;
	s->handoff_set = true;
	return 0;
}

/* Before all other options, wherever it stands: they win. */
static int set_preset(struct service_config *s, const char *name)
{
	const struct preset *p = preset_find(name);

	if (!p && !streq(name, "none"))
		return bad("preset", name, "one of those that tenured presets lists");
	return p && preset_begin(p, s) < 0 ? EXIT_FAILURE : 0;
}

static int set_name(struct service_config *s, const char *name)
{
	char *copy = strdup(name);

	if (!copy)
		return EXIT_FAILURE;
	free(s->name);
	s->name = copy;
	return 0;
}

static int set_option(struct service_config *s, int option, const char *value, const char **socket)
{
	switch (option) {
	case OPTION_LISTEN:
		return add_listener(s, value);
	case OPTION_WORKERS:
		s->workers_auto = streq(value, "auto");
		if (s->workers_auto)
			s->workers = 0;
		else if (parse_uint(value, 1, CONFIG_WORKERS_MAX, &s->workers) < 0)
			return bad("workers", value, "a number or auto");
		return 0;
	case OPTION_NAME:
		return set_name(s, value);
	case OPTION_SOCKET:
		*socket = value;
		return 0;
	case OPTION_SOAK:
		return parse_duration(value, &s->upgrade.soak_usec) < 0
			       ? bad("soak", value, "a duration such as 5s")
			       : 0;
	case OPTION_SETTLE:
		return parse_duration(value, &s->drain.settle_usec) < 0
			       ? bad("settle", value, "a duration such as 1s")
			       : 0;
	case OPTION_DRAIN:
		return parse_duration(value, &s->drain.timeout_usec) < 0
			       ? bad("drain", value, "a duration such as 30s")
			       : 0;
	case OPTION_READY:
		return set_ready(s, value);
	case OPTION_HANDOFF:
		return add_handoff(s, value);
	case OPTION_PRESET: /* set_preset() */
	case OPTION_KEEPER:
	case OPTION_NO_KEEPER:
		return 0; /* run_keeper() */
	default:
		return EXIT_USAGE;
	}
}

static int parse_options(int argc, char *argv[], struct service_config *s, const char **socket)
{
	static const struct option options[] = {
		{"listen",	   required_argument, NULL, OPTION_LISTEN},
		{"workers",		    required_argument, NULL, OPTION_WORKERS},
		{"name",			 required_argument, NULL, OPTION_NAME},
		{"socket",required_argument, NULL, OPTION_SOCKET},
		{"soak",	 required_argument, NULL, OPTION_SOAK},
		{"settle",		   required_argument, NULL, OPTION_SETTLE},
		{"drain",		  required_argument, NULL, OPTION_DRAIN},
		{"ready",		  required_argument, NULL, OPTION_READY},
		{"preset",		   required_argument, NULL, OPTION_PRESET},
		{"handoff",	    required_argument, NULL, OPTION_HANDOFF},
		{"keeper",		   no_argument, NULL, OPTION_KEEPER},
		{"no-keeper",	      no_argument, NULL, OPTION_NO_KEEPER},
		{0		  },
	};
	int c, r = 0;

	optind = 0;
	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, "+", options, NULL)) >= 0)
		if (c == OPTION_PRESET)
			r = set_preset(s, optarg);
	if (r != 0)
		return r;
	optind = 0;
	opterr = 1;
	while ((c = getopt_long(argc, argv, "+", options, NULL)) >= 0) {
		r = set_option(s, c, optarg, socket);
		if (r != 0)
			return r;
	}
	if (optind >= argc) {
		fprintf(stderr, "tenured: run: no COMMAND; see tenured --help\n");
		return EXIT_USAGE;
	}
	for (int i = optind; i < argc; i++)
		if (strv_append(&s->command, argv[i]) < 0)
			return EXIT_FAILURE;
	return 0;
}

enum keeper_choice run_keeper(int argc, char *const argv[], enum keeper_choice before)
{
	/* Up to the command, whose options are its own. All others of ours have a value. */
	for (int i = 1; i < argc && startswith(argv[i], "--") && argv[i][2]; i++) {
		if (streq(argv[i], "--keeper"))
			before = KEEPER_YES;
		else if (streq(argv[i], "--no-keeper"))
			before = KEEPER_NO;
		else if (!strchr(argv[i], '='))
			i++;
	}
	return before;
}

static int complete(struct config *c, struct service_config *s)
{
	struct config_problems problems = {0};
	const char *slash = strrchr(s->command[0], '/');
	int r = 0;

	if (!*s->name)
		r = set_name(s, slash ? slash + 1 : s->command[0]);
	if (r == 0 && !s->directory) {
		s->directory = realpath(".", NULL);
		r = s->directory ? 0 : EXIT_FAILURE;
	}
	s->environment_inherited = true;
	if (r == 0)
		r = config_resolve(c, manager_n_cpus(), &problems) < 0 ? EXIT_FAILURE : 0;
	for (size_t i = 0; i < problems.n; i++)
		fprintf(stderr, "tenured: run: %s\n", problems.list[i].message);
	if (problems.n_errors > 0)
		r = EXIT_USAGE;
	config_problems_done(&problems);
	return r;
}

int run_config(int argc, char *argv[], const char **socket, struct config **ret)
{
	_cleanup_config_ struct config *c = config_new();
	int r;

	if (!c)
		return EXIT_FAILURE;
	c->services = calloc(1, sizeof(*c->services));
	if (!c->services || service_config_init(c->services, "") < 0)
		return EXIT_FAILURE;
	c->n_services = 1;
	r = parse_options(argc, argv, c->services, socket);
	if (r == 0)
		r = complete(c, c->services);
	if (r == 0)
		*ret = TAKE_PTR(c);
	return r;
}

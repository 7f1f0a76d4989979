/* SPDX-License-Identifier: Apache-2.0 */
/* The listeners of a configuration: their names, which options fit which kind, and who else wants
 * the same address. */
#include "core/config_resolve.h"

size_t config_count_lanes(const struct service_config *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_listeners; i++) {
		const struct listener_config *l = &s->listeners[i];

		if (!l->broken && listener_config_wants_lanes(l))
			n++;
	}
	return n;
}

size_t config_count_probed(const struct service_config *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_listeners; i++) {
		const struct listener_config *l = &s->listeners[i];

		/* What an inherited one is will be seen when it is there. */
		if (!l->broken && listener_config_wants_lanes(l) &&
			((l->inherited && l->address.len == 0) || l->address.kind == ADDRESS_TCP))
			n++;
	}
	return n;
}

/* --- names ---------------------------------------------------------------- */

/* What a nameless listener among several is called after: its port, the last part of its path, or
 * the name systemd has for it. NULL: out of memory. */
static char *name_source(const struct listener_config *l)
{
	_cleanup_free_ char *text = NULL;
	const char *last;

	if (l->inherited)
		return strdup(l->inherit);
	if (!address_is_unix(&l->address))
		return xasprintf("%u", address_port(&l->address));
	text = address_format(&l->address);
	if (!text)
		return NULL;
	last = strrchr(text, '/');
	if (!last)
		last = strchr(text, '@');
	return strdup(last ? last + 1 : text);
}

static void name_clean(char *name)
{
	enum { ROOM_FOR_SUFFIX = 6 };

	for (char *p = name; *p; p++) {
		char one[] = {'x', *p, '\0'};

		if (!config_name_valid(one))
			*p = '_';
	}
	if (*name == '-' || *name == '.')
		*name = '_';
	if (strlen(name) > CONFIG_NAME_MAX - ROOM_FOR_SUFFIX)
		name[CONFIG_NAME_MAX - ROOM_FOR_SUFFIX] = '\0';
}

static int name_generate(const struct service_config *s, struct listener_config *l)
{
	_cleanup_free_ char *base = name_source(l);

	if (!base)
		return -ENOMEM;
	name_clean(base);
	if (!*base) {
		free(base);
		base = strdup("listener");
		if (!base)
			return -ENOMEM;
	}
	if (!service_config_find_listener(s, base)) {
		l->name = TAKE_PTR(base);
		return 0;
	}
	/* At most CONFIG_LISTENERS_MAX names are taken, so one of these is free. */
	for (unsigned i = 2;; i++) {
		_cleanup_free_ char *name = xasprintf("%s-%u", base, i);

		if (!name)
			return -ENOMEM;
		if (!service_config_find_listener(s, name)) {
			l->name = TAKE_PTR(name);
			return 0;
		}
	}
}

static int resolve_names(struct service_config *s)
{
	int r;

	for (size_t i = 0; i < s->n_listeners; i++) {
		struct listener_config *l = &s->listeners[i];

		if (l->name)
			continue;
		if (s->n_listeners == 1) {
			l->name = strdup("http");
			r = l->name ? 0 : -ENOMEM;
		} else if (l->broken) {
			l->name = xasprintf("listener-%zu", i);
			r = l->name ? 0 : -ENOMEM;
		} else {
			r = name_generate(s, l);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static void check_names(const struct service_config *s, struct config_problems *problems)
{
	for (size_t i = 0; i < s->n_listeners; i++) {
		const struct listener_config *l = &s->listeners[i];

		if (!config_name_valid(l->name))
			config_problem_add(problems, l->place, false,
				"\"%s\" is not a listener's name; write 1 to %d of A-Z a-z 0-9 _ . "
				"and -, not beginning with -",
				l->name, CONFIG_NAME_MAX);
		for (size_t j = 0; j < i; j++) {
			if (!streq(s->listeners[j].name, l->name))
				continue;
			config_problem_add(problems, l->place, false,
				"two listeners are called \"%s\"; give each its own name", l->name);
			break;
		}
	}
}

/* --- options -------------------------------------------------------------- */

static void wrong_kind(struct config_problems *problems, const struct listener_config *l,
	const char *key, const char *why)
{
	config_problem_add(
		problems, l->place, false, "listener \"%s\": \"%s\" is %s", l->name, key, why);
}

static void check_path_options(
	const struct listener_config *l, const char *why, struct config_problems *problems)
{
	if (l->mode_set)
		wrong_kind(problems, l, "mode", why);
	if (l->owner)
		wrong_kind(problems, l, "owner", why);
	if (l->group)
		wrong_kind(problems, l, "group", why);
}

static void check_unix(const struct listener_config *l, struct config_problems *problems)
{
	if (l->sockets == SOCKETS_PER_WORKER)
		wrong_kind(problems, l, "sockets: per-worker",
			"not possible: Unix sockets cannot share an address; use sockets: shared");
	if (l->v6only)
		wrong_kind(problems, l, "v6only", "for IPv6, this is a Unix socket");
	if (l->owner && !config_user_valid(l->owner))
		config_problem_add(problems, l->place, false,
			"listener \"%s\": \"%s\" is not a user's name or number", l->name,
			l->owner);
	if (l->group && !config_user_valid(l->group))
		config_problem_add(problems, l->place, false,
			"listener \"%s\": \"%s\" is not a group's name or number", l->name,
			l->group);
	if (l->address.kind == ADDRESS_UNIX_STREAM && l->address.len > 0 &&
		l->address.len > offsetof(struct sockaddr_un, sun_path) &&
		l->address.un.sun_path[0] == '\0')
		check_path_options(
			l, "for sockets with a path, this one has an abstract address", problems);
}

static bool supported_kind(const struct listener_config *l, struct config_problems *problems)
{
	const char *what = NULL;

	switch (l->address.kind) {
	case ADDRESS_TCP:
	case ADDRESS_UDP:
	case ADDRESS_UNIX_STREAM:
		return true;
	case ADDRESS_UNIX_DGRAM:
		what = "Unix datagram";
		break;
	case ADDRESS_UNIX_SEQPACKET:
		what = "Unix seqpacket";
		break;
	}
	config_problem_add(problems, l->place, false,
		"listener \"%s\": %s listeners are not supported by this version; it has tcp:, "
		"udp: and unix:",
		l->name, what);
	return false;
}

/* Two keys for one value of the kernel's. */
static void check_forced(const struct listener_config *l, enum socket_option plain,
	enum socket_option forced, struct config_problems *problems)
{
	const struct socket_option_setting *s = socket_options_find(&l->options, forced);

	if (s && socket_options_find(&l->options, plain))
		config_problem_add(problems, config_place_or(s->place, l->place), false,
			"listener \"%s\": \"%s\" and \"%s\" set the same; write one of them",
			l->name, socket_option_info(plain)->key, socket_option_info(forced)->key);
}

static bool bound_to_group(const struct listener_config *l)
{
	const struct socket_options *o = &l->options;
	bool v4 = address_family(&l->address) == AF_INET;

	for (size_t i = 0; i < o->n_groups; i++)
		if (o->groups[i].family == address_family(&l->address) &&
			memcmp(o->groups[i].address,
				v4 ? (const void *)&l->address.in4.sin_addr
				   : (const void *)&l->address.in6.sin6_addr,
				v4 ? 4 : 16) == 0)
			return true;
	return false;
}

static void check_groups(const struct listener_config *l, struct config_problems *problems)
{
	struct config_place place = config_place_or(l->options.groups_place, l->place);
	int family = address_family(&l->address);

	for (size_t i = 0; i < l->options.n_groups; i++) {
		const struct multicast_group *g = &l->options.groups[i];
		_cleanup_free_ char *group = NULL;

		if (g->family == family || (family == AF_INET6 && !l->v6only))
			continue;
		group = multicast_group_format(g);
		config_problem_add(problems, place, false,
			"listener \"%s\": no datagram for %s comes to an %s socket; listen on "
			"udp:%s:%u",
			l->name, group ? group : "the group",
			family == AF_INET ? "IPv4" : "IPv6-only",
			g->family == AF_INET ? "0.0.0.0" : "[::]", address_port(&l->address));
	}
	if (!address_is_wildcard(&l->address) && !bound_to_group(l))
		config_problem_add(problems, place, false,
			"listener \"%s\": what is sent to a group does not come to a socket that "
			"is bound to another address; listen on udp:%u, or on the group's address",
			l->name, address_port(&l->address));
}

static void check_socket_options(const struct listener_config *l, struct config_problems *problems)
{
	const struct address *a = l->inherited ? NULL : &l->address;
	const struct socket_options *o = &l->options;
	const char *misfit;

	for (size_t i = 0; i < o->n; i++) {
		const struct socket_option_setting *s = &o->list[i];

		misfit = socket_option_misfit(s->option, a);
		if (misfit)
			config_problem_add(problems, config_place_or(s->place, l->place), false,
				"listener \"%s\": \"%s\" %s", l->name,
				socket_option_info(s->option)->key, misfit);
		else if (s->option == OPTION_LINGER && s->value == 0)
			config_problem_add(problems, config_place_or(s->place, l->place), true,
				"listener \"%s\": linger: 0s makes every connection that a worker "
				"closes end in a reset, and loses what is still on its way",
				l->name);
	}
	check_forced(l, OPTION_RCVBUF, OPTION_RCVBUF_FORCE, problems);
	check_forced(l, OPTION_SNDBUF, OPTION_SNDBUF_FORCE, problems);
	if (socket_options_spread(o) && l->sockets == SOCKETS_PER_WORKER && l->steering)
		wrong_kind(problems, l, "sockets: per-worker",
			"not possible with multicast or broadcast, which comes to every socket of "
			"a port");
	if (l->backlog_set && a && (misfit = socket_option_misfit(OPTION_BACKLOG, a)))
		config_problem_add(problems, l->place, false, "listener \"%s\": \"backlog\" %s",
			l->name, misfit);
	if (o->n_groups == 0 || !a)
		return;
	misfit = socket_option_misfit(OPTION_MULTICAST, a);
	if (misfit)
		config_problem_add(problems, config_place_or(o->groups_place, l->place), false,
			"listener \"%s\": \"multicast\" %s", l->name, misfit);
	else
		check_groups(l, problems);
}

static void check_options(const struct listener_config *l, struct config_problems *problems)
{
	if (!l->steering && l->sockets == SOCKETS_PER_WORKER)
		wrong_kind(problems, l, "sockets: per-worker",
			"not possible with steering: off, which leaves one queue for all workers");
	check_socket_options(l, problems);
	if (l->inherited) {
		check_path_options(l,
			"for sockets of our own; this one's is set in the systemd socket unit",
			problems);
		if (l->v6only)
			wrong_kind(problems, l, "v6only",
				"for sockets of our own; set BindIPv6Only= in the systemd socket "
				"unit");
		return;
	}
	if (!supported_kind(l, problems))
		return;
	if (address_is_unix(&l->address)) {
		check_unix(l, problems);
		return;
	}
	check_path_options(l,
		l->address.kind == ADDRESS_UDP ? "for Unix sockets, this is a UDP address"
					       : "for Unix sockets, this is a TCP address",
		problems);
	if (l->v6only && address_family(&l->address) != AF_INET6)
		wrong_kind(problems, l, "v6only", "for IPv6, this is an IPv4 address");
}

int config_resolve_listeners(struct service_config *s, struct config_problems *problems)
{
	int r;

	if (s->n_listeners > CONFIG_LISTENERS_MAX) {
		config_problem_add(problems, s->place, false,
			"service \"%s\" has %zu listeners; at most %d are possible", s->name,
			s->n_listeners, CONFIG_LISTENERS_MAX);
		s->broken |= SECTION_LISTEN;
	}
	r = resolve_names(s);
	if (r < 0)
		return r;
	check_names(s, problems);
	for (size_t i = 0; i < s->n_listeners; i++)
		if (!s->listeners[i].broken)
			check_options(&s->listeners[i], problems);
	return 0;
}

/* --- overlaps ------------------------------------------------------------- */

struct claim { /* one listener's wish for its address */
	const struct service_config *service;
	const struct listener_config *listener;
	unsigned group; /* claims of different groups cannot meet */
	size_t order;	/* as written */
};

enum { GROUP_UNIX = 0x10000, GROUP_INHERITED };

static unsigned claim_group(const struct listener_config *l)
{
	if (l->inherited)
		return GROUP_INHERITED;
	if (address_is_unix(&l->address))
		return GROUP_UNIX;
	return address_port(&l->address);
}

static int claim_compare(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	if (x->group != y->group)
		return x->group < y->group ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static bool claims_meet(const struct claim *a, const struct claim *b)
{
	if (a->group == GROUP_INHERITED)
		return streq(a->listener->inherit, b->listener->inherit) &&
		       a->listener->inherit_index == b->listener->inherit_index;
	return address_overlaps(&a->listener->address, a->listener->v6only, &b->listener->address,
		b->listener->v6only);
}

/* "service \"web\", listener \"http\" (web.yaml:3)" */
static char *claim_describe(const struct claim *c)
{
	const struct config_place *place = &c->listener->place;

	if (!place->file || place->line == 0)
		return xasprintf(
			"listener \"%s\" of service \"%s\"", c->listener->name, c->service->name);
	return xasprintf("listener \"%s\" of service \"%s\" (%s:%u)", c->listener->name,
		c->service->name, place->file, place->line);
}

static int report_overlap(
	const struct claim *first, const struct claim *second, struct config_problems *problems)
{
	_cleanup_free_ char *who = claim_describe(first);
	_cleanup_free_ char *wanted = NULL, *taken = NULL;
	const struct config_place place =
		config_place_or(second->listener->place, second->service->place);

	if (!who)
		return -ENOMEM;
	if (first->group == GROUP_INHERITED) {
		config_problem_add(problems, place, false,
			"the systemd socket \"%s\" already belongs to %s",
			second->listener->inherit, who);
		return 0;
	}
	wanted = address_format(&second->listener->address);
	taken = address_format(&first->listener->address);
	if (!wanted || !taken)
		return -ENOMEM;
	if (address_equal(&first->listener->address, &second->listener->address))
		config_problem_add(
			problems, place, false, "\"%s\" already belongs to %s", wanted, who);
	else
		config_problem_add(problems, place, false,
			"\"%s\" overlaps \"%s\" of %s: one of them is a wildcard of the other; use "
			"another port, or specific addresses for both",
			wanted, taken, who);
	return 0;
}

static size_t collect_claims(const struct config *c, struct claim *claims, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_services; i++) {
		const struct service_config *s = &c->services[i];

		for (size_t j = 0; j < s->n_listeners && n < max; j++) {
			const struct listener_config *l = &s->listeners[j];

			if (l->broken)
				continue;
			claims[n] = (struct claim){
				.service = s,
				.listener = l,
				.group = claim_group(l),
				.order = n,
			};
			n++;
		}
	}
	return n;
}

static int check_claims(const struct claim *claims, size_t n, struct config_problems *problems)
{
	int r;

	/* Sorted by group: only neighbours of one group are compared, and each is reported once. */
	for (size_t i = 1; i < n; i++) {
		for (size_t j = i; j-- > 0 && claims[j].group == claims[i].group;) {
			if (!claims_meet(&claims[j], &claims[i]))
				continue;
			r = report_overlap(&claims[j], &claims[i], problems);
			if (r < 0)
				return r;
			break;
		}
	}
	return 0;
}

int config_check_overlaps(const struct config *c, struct config_problems *problems)
{
	_cleanup_free_ struct claim *claims = NULL;
	size_t total = 0;

	for (size_t i = 0; i < c->n_services; i++)
		total += c->services[i].n_listeners;
	if (total == 0)
		return 0;
	if (total > CONFIG_LISTENERS_TOTAL_MAX) {
		config_problem_add(problems,
			(struct config_place){.file = c->files ? c->files[0] : NULL}, false,
			"%zu listeners in all; at most %d are possible", total,
			CONFIG_LISTENERS_TOTAL_MAX);
		return 0;
	}
	claims = calloc(total, sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	total = collect_claims(c, claims, total);
	qsort(claims, total, sizeof(*claims), claim_compare);
	return check_claims(claims, total, problems);
}

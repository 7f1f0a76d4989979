/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/listener_options.h"

#include "daemon/listener_internal.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "sys/listen.h"
#include "sys/listen_options.h"

/* Who is not asked: it is set when a socket joins the others. */
static bool is_ours(const struct socket_option_setting *s)
{
	return s->option == OPTION_REUSEPORT;
}

static bool is_buffer(enum socket_option o)
{
	return o == OPTION_RCVBUF || o == OPTION_RCVBUF_FORCE || o == OPTION_SNDBUF ||
	       o == OPTION_SNDBUF_FORCE;
}

int listener_sockopts_new(const struct listener_config *c, struct listener_sockopts **ret)
{
	struct listener_sockopts *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	o->refused = SIZE_MAX;
	o->list = calloc(2 * c->options.n + c->options.n_groups + 1, sizeof(*o->list));
	if (!o->list) {
		free(o);
		return -ENOMEM;
	}
	for (size_t i = 0; i < c->options.n; i++)
		if (!is_ours(&c->options.list[i]))
			o->n += socket_option_kernel(
				&c->options.list[i], &c->address, c->v6only, &o->list[o->n]);
	for (size_t i = 0; i < c->options.n_groups; i++)
		multicast_group_kernel(&c->options.groups[i], false, &o->list[o->n++]);
	*ret = o;
	return 0;
}

struct listener_sockopts *listener_sockopts_free(struct listener_sockopts *o)
{
	if (o)
		free(o->list);
	free(o);
	return NULL;
}

char *listener_option_refusal(const struct sockopt *o, int code)
{
	struct multicast_group g = {.family = o->family};
	_cleanup_free_ char *group = NULL, *refusal = NULL;

	if (o->tag != OPTION_MULTICAST)
		return socket_option_refusal(o->tag, o->value, o->text, code);
	memcpy(g.address, o->group, sizeof(g.address));
	memcpy(g.interface, o->text, sizeof(g.interface));
	group = multicast_group_format(&g);
	refusal = socket_option_refusal(o->tag, 0, o->text, code);
	return group && refusal ? xasprintf("%s: %s", group, refusal) : NULL;
}

int listener_options_try(
	const char *service, const struct listener_config *c, struct error *ret_error)
{
	struct listener_sockopts *o = NULL;
	_cleanup_free_ char *refusal = NULL;
	_cleanup_close_ int fd = -1;
	size_t refused = 0;
	int r;

	if (c->options.n + c->options.n_groups == 0 || c->address.len == 0 ||
		address_is_unix(&c->address))
		return 0;
	/* Where such sockets cannot be made at all, that is said when it is bound. */
	fd = listen_options_blank(&c->address, c->v6only);
	if (fd < 0)
		return 0;
	r = listener_sockopts_new(c, &o);
	if (r >= 0)
		r = listen_options_set(fd, o->list, o->n, &refused);
	if (r < 0 && o) {
		refusal = listener_option_refusal(&o->list[refused], r);
		error_set(ret_error, r, "%s: listener %s: %s", service, c->name,
			refusal ? refusal : "out of memory");
	}
	listener_sockopts_free(o);
	return r;
}

/* What a client needs that its kernel does not do of itself. */
static void check_fastopen(const struct listener_config *l, struct config_problems *problems)
{
	const struct socket_option_setting *s = socket_options_find(&l->options, OPTION_FASTOPEN);
	int64_t value;

	if (!s || s->value == 0 || listen_sysctl("net/ipv4/tcp_fastopen", &value) < 0 ||
		(value & 2))
		return;
	config_problem_add(problems, s->place, true,
		"listener \"%s\": fastopen has no effect on this machine: net.ipv4.tcp_fastopen is "
		"%lld; write sysctl net.ipv4.tcp_fastopen=3",
		l->name, (long long)value);
}

void listener_options_check(const struct config *c, struct config_problems *problems)
{
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t k = 0; k < c->services[i].n_listeners; k++) {
			const struct listener_config *l = &c->services[i].listeners[k];
			_cleanup_error_ struct error error = ERROR_NULL;

			if (l->broken)
				continue;
			check_fastopen(l, problems);
			if (listener_options_try(c->services[i].name, l, &error) < 0)
				config_problem_add(problems, l->place, true,
					"here and for this user: %s", error_message(&error));
		}
}

/* --- changes in place --------------------------------------------------------- */

static void set_all(struct listener *l, const struct sockopt *o, bool unlock)
{
	int r = 0;

	for (size_t i = 0; i < l->lanes.n && r >= 0; i++) {
		int fd = l->lanes.sockets[i].fd;

		/* A stranger's is not ours to change. */
		if (fd < 0)
			continue;
		r = listen_option_set(fd, o);
		if (r >= 0 && unlock)
			r = listen_option_unlock(fd, o);
	}
	if (r < 0) {
		_cleanup_free_ char *refusal = listener_option_refusal(o, r);

		log_warning("%s: listener %s: %s", l->service->name, l->config.name,
			refusal ? refusal : "out of memory");
	}
}

/* As a socket has it with which nothing was done. A buffer is told in bytes before they are
 * doubled. */
static void set_default(struct listener *l, int blank, const struct socket_option_setting *s)
{
	struct sockopt list[2];
	size_t n = socket_option_kernel(s, &l->config.address, l->config.v6only, list);

	for (size_t i = 0; i < n; i++) {
		if (listen_option_get(blank, &list[i]) < 0)
			continue;
		if (is_buffer(s->option))
			list[i].value /= 2;
		/* Ours for TCP: a restart does not wait for old connections. */
		if (s->option == OPTION_REUSEADDR && l->config.address.kind == ADDRESS_TCP)
			list[i].value = 1;
		set_all(l, &list[i], is_buffer(s->option));
	}
}

static bool has_group(const struct socket_options *o, const struct multicast_group *g)
{
	for (size_t i = 0; i < o->n_groups; i++)
		if (multicast_group_equal(&o->groups[i], g))
			return true;
	return false;
}

void listener_options_update(struct listener *l, const struct listener_config *c)
{
	const struct socket_options *old = &l->config.options;
	struct listener_sockopts *o = NULL;
	_cleanup_close_ int blank = -1;

	if (listener_sockopts_new(c, &o) < 0)
		return;
	for (size_t i = 0; i < old->n; i++) {
		if (is_ours(&old->list[i]) || old->list[i].option == OPTION_NONBLOCKING ||
			socket_options_find(&c->options, old->list[i].option))
			continue;
		if (blank < 0)
			blank = listen_options_blank(&l->config.address, l->config.v6only);
		if (blank >= 0)
			set_default(l, blank, &old->list[i]);
	}
	for (size_t i = 0; i < old->n_groups; i++) {
		struct sockopt leave;

		if (has_group(&c->options, &old->groups[i]))
			continue;
		multicast_group_kernel(&old->groups[i], true, &leave);
		set_all(l, &leave, false);
	}
	/* A worker that waits for several sockets at once may have made it so itself, and would
	 * sleep in accept(2): it is never switched off behind anybody's back. */
	for (size_t i = 0; i < o->n; i++)
		if (o->list[i].type != SOCKOPT_NONBLOCK || o->list[i].value)
			set_all(l, &o->list[i], false);
	listener_sockopts_free(l->sockopts);
	l->sockopts = o;
}

/* --- what an inherited socket came with ----------------------------------------- */

/* Ours to decide, told in another way, or changed by the kernel itself. */
static bool is_left_alone(enum socket_option option, const struct listener *l)
{
	const struct socket_option_info *info = socket_option_info(option);

	return info->level < 0 || info->refused || option == OPTION_REUSEADDR ||
	       option == OPTION_REUSEPORT || option == OPTION_V6ONLY ||
	       option == OPTION_RCVBUF_FORCE || option == OPTION_SNDBUF_FORCE ||
	       option == OPTION_INCOMING_CPU || option == OPTION_NONBLOCKING ||
	       socket_option_misfit(option, &l->inherited->address) != NULL;
}

/* By the name of IPv4, if there are two and the one of IPv6 is another key's. */
static int read_option(int fd, enum socket_option option, const struct address *a, bool v6only,
	struct sockopt *ret)
{
	const struct socket_option_setting any = {.option = option};
	struct sockopt list[2];
	size_t n = socket_option_kernel(&any, a, v6only, list);

	*ret = list[option == OPTION_TOS ? n - 1 : 0];
	return listen_option_get(fd, ret);
}

/* What others are to be told, to have it too. */
static int copy_option(const struct listener *l, enum socket_option option, int blank,
	const struct sockopt *o, struct socket_options *ret)
{
	_cleanup_free_ char *refusal = NULL;
	struct sockopt told = *o, has = *o;
	int r;

	if (is_buffer(option)) {
		/* The limits may not have held for who made it. */
		told.value /= 2;
		(void)listen_option_set(blank, &told);
		if (listen_option_get(blank, &has) >= 0 && has.value < o->value) {
			told.name = option == OPTION_RCVBUF ? SO_RCVBUFFORCE : SO_SNDBUFFORCE;
			if (listen_option_set(blank, &told) >= 0)
				option = option == OPTION_RCVBUF ? OPTION_RCVBUF_FORCE
								 : OPTION_SNDBUF_FORCE;
		}
	} else if ((r = listen_option_set(blank, &told)) < 0) {
		refusal = socket_option_refusal(option, told.value, told.text, r);
		log_warning("%s: listener %s: an option that its socket came with cannot be given "
			    "to those beside it: %s",
			l->service->name, l->config.name, refusal ? refusal : "out of memory");
		return 0;
	}
	return socket_options_set(ret, option, socket_option_from_kernel(option, told.value),
		told.text, (struct config_place){0});
}

int listener_options_read(const struct listener *l, struct socket_options *ret)
{
	const struct address *a = &l->inherited->address;
	bool v6only = listen_is_v6only(l->inherited_fd);
	_cleanup_close_ int blank = -1;
	struct sockopt o, ordinary;
	int r = 0;

	blank = listen_options_blank(a, v6only);
	for (unsigned i = 0; blank >= 0 && r >= 0 && i < SOCKET_OPTIONS_N; i++) {
		if (is_left_alone(i, l) || read_option(l->inherited_fd, i, a, v6only, &o) < 0 ||
			read_option(blank, i, a, v6only, &ordinary) < 0 ||
			(o.value == ordinary.value && streq(o.text, ordinary.text)))
			continue;
		r = copy_option(l, i, blank, &o, ret);
	}
	return r;
}

void listener_options_restore(struct listener *l)
{
	struct listener_config came = {0};

	if (socket_options_copy(&l->came_options, &came.options) < 0)
		return;
	came.address = l->config.address;
	came.v6only = l->config.v6only;
	if (came.address.kind == ADDRESS_TCP)
		(void)listen_tag(l->inherited_fd, 0);
	lanes_done(&l->lanes);
	if (lanes_append(&l->lanes, 0, 0, l->inherited_fd) >= 0)
		listener_options_update(l, &came);
	lanes_done(&l->lanes);
	socket_options_done(&came.options);
}

uint64_t listener_defer_usec(const struct listener *l, unsigned lane)
{
	const struct socket_option_setting any = {.option = OPTION_DEFER_ACCEPT};
	struct sockopt list[2];
	int64_t most = 0;

	if (l->config.address.kind != ADDRESS_TCP ||
		socket_option_kernel(&any, &l->config.address, l->config.v6only, list) == 0)
		return 0;
	for (size_t i = 0; i < l->lanes.n; i++)
		if (l->lanes.sockets[i].lane == lane &&
			listen_option_get(l->lanes.sockets[i].fd, &list[0]) >= 0)
			most = MAX(most, list[0].value);
	return (uint64_t)most * USEC_PER_SEC;
}

/* --- what is ------------------------------------------------------------------- */

struct reading {
	const struct listener *l;
	int fd, blank;
	struct socket_option_limits limits;
	struct listener_option_report *list;
	size_t n, capacity;
	int r;
};

static void add(struct reading *p, enum socket_option option, const char *name, char *wanted_take,
	char *actual_take, const char *note)
{
	struct listener_option_report line = {
		.key = socket_option_info(option)->key,
		.name = strdup(name ? name : "?"),
		.wanted = wanted_take,
		.actual = actual_take,
		.note = note ? strdup(note) : NULL,
	};

	if (p->r >= 0)
		p->r = array_reserve(&p->list, &p->capacity, p->n + 1, sizeof(line));
	if (p->r >= 0 && line.name) {
		p->list[p->n++] = line;
		return;
	}
	free(line.name);
	free(line.wanted);
	free(line.actual);
	free(line.note);
}

static bool equal(const struct sockopt *a, const struct sockopt *b)
{
	return a->value == b->value && streq(a->text, b->text);
}

/* How many of the listener's sockets have something else than the one that was read; *ret_all: how
 * many there are. */
static size_t count_others(const struct reading *p, const struct sockopt *actual, size_t *ret_all)
{
	size_t n = 0;

	*ret_all = 0;
	for (size_t i = 0; i < p->l->lanes.n; i++) {
		struct sockopt other = *actual;

		/* A stranger's is none of them. */
		if (p->l->lanes.sockets[i].fd < 0)
			continue;
		(*ret_all)++;
		if (listen_option_get(p->l->lanes.sockets[i].fd, &other) >= 0)
			n += !equal(&other, actual);
	}
	return n;
}

/* Files are slow beside the rest, and few options need them. */
static char *explain_difference(
	struct reading *p, enum socket_option option, int64_t wanted, int64_t actual)
{
	enum socket_option_quirk quirk = socket_option_info(option)->quirk;

	if (quirk == QUIRK_RMEM)
		(void)listen_sysctl("net/core/rmem_max", &p->limits.rmem_max);
	if (quirk == QUIRK_WMEM)
		(void)listen_sysctl("net/core/wmem_max", &p->limits.wmem_max);
	if (quirk == QUIRK_SOMAXCONN && wanted != actual)
		(void)listen_sysctl("net/core/somaxconn", &p->limits.somaxconn);
	return socket_option_note(option, wanted, actual, &p->limits);
}

static char *explain(struct reading *p, enum socket_option option,
	const struct socket_option_setting *s, const struct sockopt *actual)
{
	const struct socket_option_info *info = socket_option_info(option);
	char *note = NULL;
	size_t others, all;

	if (!s) {
		if (info->by_itself)
			return strdup(info->by_itself);
		if (option == OPTION_PRIORITY &&
			socket_options_find(&p->l->config.options, OPTION_TOS))
			return strdup("follows from tos");
		return strdup("not asked for: set by a worker");
	}
	others = count_others(p, actual, &all);
	if (others > 0)
		return xasprintf("not the same on all sockets: %zu of %zu differ", others, all);
	if (info->type == OPTION_IS_TEXT)
		return streq(s->text, actual->text) ? NULL : strdup("changed by a worker");
	note = explain_difference(p, option, s->value, actual->value);
	if (!note && s->value != actual->value)
		return strdup("changed by a worker, or not as the kernel counts it");
	if (!note && info->by_itself)
		return strdup(info->by_itself);
	if (!note && socket_options_same(&p->l->config.options, &p->l->came_options, option))
		return strdup("as its socket came");
	return note;
}

static void report_one(struct reading *p, enum socket_option option,
	const struct socket_option_setting *s, struct sockopt *o)
{
	struct sockopt ordinary = *o;
	_cleanup_free_ char *name = socket_option_kernel_name(option, o), *note = NULL;
	_cleanup_free_ char *wanted = s ? socket_option_format(option, s->value, s->text) : NULL;

	memset(o->text, 0, sizeof(o->text));
	memset(ordinary.text, 0, sizeof(ordinary.text));
	if (listen_option_get(p->fd, o) < 0) {
		if (s)
			add(p, option, name, TAKE_PTR(wanted), NULL, "it cannot be read back");
		return;
	}
	o->value = socket_option_from_kernel(option, o->value);
	if (!s &&
		(p->blank < 0 || listen_option_get(p->blank, &ordinary) < 0 ||
			socket_option_from_kernel(option, ordinary.value) == o->value) &&
		streq(o->text, ordinary.text))
		return;
	note = explain(p, option, s, o);
	add(p, option, name, TAKE_PTR(wanted), socket_option_format(option, o->value, o->text),
		note);
}

static void report_option(struct reading *p, enum socket_option option)
{
	const struct listener_config *c = &p->l->config;
	const struct socket_option_setting *s = socket_options_find(&c->options, option);
	const struct socket_option_setting any = {.option = option};
	struct sockopt list[2];
	size_t n;

	/* Another key for the same thing. */
	if (!s && (option == OPTION_RCVBUF_FORCE || option == OPTION_SNDBUF_FORCE ||
			  option == OPTION_TCLASS || option == OPTION_SNDLOWAT))
		return;
	if ((option == OPTION_RCVBUF && socket_options_find(&c->options, OPTION_RCVBUF_FORCE)) ||
		(option == OPTION_SNDBUF && socket_options_find(&c->options, OPTION_SNDBUF_FORCE)))
		return;
	if (socket_option_misfit(option, &c->address))
		return;
	n = socket_option_kernel(s ? s : &any, &c->address, c->v6only, list);
	for (size_t i = 0; i < n; i++) {
		if (option == OPTION_TOS && list[i].level == IPPROTO_IPV6 &&
			socket_options_find(&c->options, OPTION_TCLASS))
			continue;
		report_one(p, option, s, &list[i]);
	}
}

static void report_v6only(struct reading *p)
{
	const struct listener_config *c = &p->l->config;
	const struct socket_option_setting wanted = {.option = OPTION_V6ONLY, .value = c->v6only};
	struct sockopt list[2];

	if (address_family(&c->address) == AF_INET6 &&
		socket_option_kernel(&wanted, &c->address, c->v6only, list) == 1)
		report_one(p, OPTION_V6ONLY, c->v6only ? &wanted : NULL, &list[0]);
}

static void report_backlog(struct reading *p)
{
	const struct listener_config *c = &p->l->config;
	_cleanup_free_ char *note = NULL;
	struct listen_state state;

	if (c->address.kind != ADDRESS_TCP || listen_query(p->fd, &state) < 0 ||
		(!c->backlog_set && state.queue_max == c->backlog))
		return;
	note = explain_difference(p, OPTION_BACKLOG, c->backlog, state.queue_max);
	add(p, OPTION_BACKLOG, socket_option_info(OPTION_BACKLOG)->kernel,
		socket_option_format(OPTION_BACKLOG, c->backlog, NULL),
		socket_option_format(OPTION_BACKLOG, state.queue_max, NULL), note);
}

static void report_groups(struct reading *p)
{
	for (size_t i = 0; i < p->l->config.options.n_groups; i++) {
		const struct multicast_group *g = &p->l->config.options.groups[i];

		add(p, OPTION_MULTICAST,
			g->family == AF_INET ? "IP_ADD_MEMBERSHIP" : "IPV6_JOIN_GROUP",
			multicast_group_format(g), NULL, NULL);
	}
}

int listener_options_report(
	const struct listener *l, struct listener_option_report **ret, size_t *ret_n)
{
	struct reading p = {.l = l, .fd = -1};
	_cleanup_close_ int blank = -1;

	p.fd = listener_any_socket(l);
	if (p.fd >= 0) {
		blank = listen_options_blank(&l->config.address, false);
		p.blank = blank;
		for (unsigned o = 0; o < SOCKET_OPTIONS_N; o++) {
			if (address_is_unix(&l->config.address) && o != OPTION_NONBLOCKING)
				continue;
			if (o == OPTION_V6ONLY)
				report_v6only(&p);
			else if (o == OPTION_BACKLOG)
				report_backlog(&p);
			else if (o == OPTION_MULTICAST)
				report_groups(&p);
			else
				report_option(&p, o);
		}
	}
	if (p.r < 0) {
		listener_options_report_free(p.list, p.n);
		return p.r;
	}
	*ret = p.list;
	*ret_n = p.n;
	return 0;
}

void listener_options_report_free(struct listener_option_report *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(list[i].name);
		free(list[i].wanted);
		free(list[i].actual);
		free(list[i].note);
	}
	free(list);
}

/* --- from here ------------------------------------------------------------------ */

void listener_local_address(const struct listener *l, struct address *ret)
{
	const struct socket_option_setting *device =
		socket_options_find(&l->config.options, OPTION_BINDTODEVICE);

	address_loopback_of(&l->config.address, ret);
	if (!device || !address_is_wildcard(&l->config.address))
		return;
	/* What comes by loopback has not come by the device. */
	if (listen_device_address(device->text, address_family(ret), ret) < 0 &&
		address_family(ret) == AF_INET6 && !l->config.v6only)
		(void)listen_device_address(device->text, AF_INET, ret);
}

/* --- what cannot be divided ------------------------------------------------- */

const char *listener_held_by_options(const struct listener_config *c)
{
	const struct address *a = &c->address;

	if (c->options.n_groups > 0 || (a->kind == ADDRESS_UDP && address_is_multicast(a)))
		return "multicast reaches all sockets of an address, it cannot be divided";
	if (socket_options_spread(&c->options) ||
		(a->kind == ADDRESS_UDP && address_is_broadcast(a)))
		return "broadcasts reach all sockets of an address, they cannot be divided";
	return NULL;
}

void listener_choose_kind(struct listener *l, bool may_group)
{
	l->kind = LISTENER_HELD;
	if (address_is_unix(&l->config.address))
		l->held_reason = "Unix sockets have one queue";
	else if (!l->config.steering)
		l->held_reason = "steering: off";
	else if (!may_group)
		l->held_reason = "socket groups do not behave as expected on this kernel";
	else
		l->held_reason = listener_held_by_options(&l->config);
	if (!l->held_reason)
		l->kind = LISTENER_GROUP;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Take: user, directory, environment and listeners of a service, for a command that an operator
 * runs beside its workers. What serves is what counts; of a stopped service, what would be started.
 */
#include "daemon/control_methods.h"
#include "daemon/log.h"
#include "varlink/message.h"

static const struct snapshot *serving(const struct manager_service *s)
{
	const struct manager_generation *g = manager_service_generation(s, s->core.current);

	return g ? g->snapshot : NULL;
}

/* New connections come there. */
static int socket_of(const struct manager_service *s, const struct listener *l)
{
	const struct generation *g = service_generation(&s->core, s->core.current);
	int fd = listener_socket(l, g && g->lane != LANE_NONE ? g->lane : s->core.queue_lane, 0);

	return fd >= 0 ? fd : listener_any_socket(l);
}

static const struct listener *find(const struct manager_service *s, const char *name)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id] && streq_null(s->listeners[id]->config.name, name))
			return s->listeners[id];
	return NULL;
}

static int take_listeners(const struct manager_service *s, struct control_call *call,
	const json_t *wanted, int *ret_fds, json_t *names)
{
	size_t n = json_array_size(wanted);

	if (n > CONTROL_FDS_MAX)
		return control_call_invalid_parameter(call, "listeners") < 0 ? -EIO : -EINVAL;
	for (size_t i = 0; i < n; i++) {
		const char *name = json_string_value(json_array_get(wanted, i));
		const struct listener *l = name ? find(s, name) : NULL;

		ret_fds[i] = l ? socket_of(s, l) : -1;
		if (ret_fds[i] < 0) {
			(void)control_call_failed(call,
				"%s: no listener %s is open; see `tenurectl listeners %s`", s->name,
				name ? name : "?", s->name);
			return -ENOENT;
		}
		json_array_append_new(
			names, control_json_text(l->config.fd_name ? l->config.fd_name : name));
	}
	return (int)n;
}

static json_t *texts(char *const *list)
{
	json_t *array = json_array();

	for (; array && list && *list; list++)
		json_array_append_new(array, control_json_text(*list));
	return array;
}

static json_t *groups_of(const struct user *u)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < u->n_groups; i++)
		json_array_append_new(array, json_integer(u->groups[i]));
	return array;
}

int control_take(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	_cleanup_snapshot_ struct snapshot *made = NULL;
	const json_t *wanted = json_object_get(parameters, "listeners");
	_cleanup_json_ json_t *names = json_array();
	const struct snapshot *snap = serving(s);
	int fds[CONTROL_FDS_MAX], n;

	if (!snap && snapshot_new(s->config, &m->original_nofile, &made, &error) < 0)
		return control_call_failed(call, "%s", error_message(&error));
	snap = snap ? snap : made;
	n = take_listeners(s, call, wanted, fds, names);
	if (n < 0)
		return 0;
	log_notice("%s: its environment%s asked for by %s, for a command beside its workers",
		s->name, n > 0 ? " and sockets" : "", control_call_peer_text(call));
	return control_call_reply_fds(call,
		json_pack("{s:o, s:I, s:I, s:o, s:o, s:o, s:O}", "user",
			snap->set_user ? control_json_text(snap->user.name) : json_null(), "uid",
			(json_int_t)snap->user.uid, "gid", (json_int_t)snap->user.gid, "groups",
			groups_of(&snap->user), "directory", control_json_text(snap->directory),
			"environment", texts(snap->environment), "names", names),
		fds, (size_t)n);
}

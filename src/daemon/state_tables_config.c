/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations, as they were resolved: what a file says by now is another matter. */
#include "core/config.h"
#include "daemon/state_tables.h"

#define TYPE struct address
static const struct state_field address_fields[] = {
	FIELD(UNSIGNED, kind, .max = ADDRESS_UNIX_SEQPACKET),
	FIELD(UNSIGNED, len, .max = sizeof(struct sockaddr_un)),
 /* Of the longest of them; what is behind is never used. */
	FIELD(BYTES, un),
	{.name = "rest",
		     .type = STATE_NOT_SAVED,
		     .offset = offsetof(struct address, un) + sizeof(struct sockaddr_un),
		     .size = sizeof(struct address) - offsetof(struct address, un) -
			sizeof(struct sockaddr_un)},
};
#undef TYPE

/* 0 length: it is unset, as one that is inherited and did not come. */
static bool address_is_valid(const void *address)
{
	const struct address *a = address;
	int family = a->sa.sa_family;

	if (a->len == 0)
		return true;
	if (a->kind > ADDRESS_UDP)
		return family == AF_UNIX && a->len > offsetof(struct sockaddr_un, sun_path) &&
		       (a->un.sun_path[0] == '\0' ||
			       memchr(a->un.sun_path, '\0', sizeof(a->un.sun_path)));
	return (family == AF_INET && a->len == sizeof(a->in4)) ||
	       (family == AF_INET6 && a->len == sizeof(a->in6));
}

const struct state_table state_table_address =
	STATE_TABLE(struct address, address_fields, .is_valid = address_is_valid);

#define TYPE struct socket_option_setting
static const struct state_field option_fields[] = {
	FIELD(UNSIGNED, option, .max = SOCKET_OPTIONS_N - 1),
	FIELD(U64, value),
	FIELD(BYTES, text),
	FIELD(NOT_SAVED, place),
};
#undef TYPE

static bool option_is_valid(const void *option)
{
	const struct socket_option_setting *o = option;

	return memchr(o->text, '\0', sizeof(o->text));
}

static const struct state_table option_table =
	STATE_TABLE(struct socket_option_setting, option_fields, .is_valid = option_is_valid);

#define TYPE struct multicast_group
static const struct state_field group_fields[] = {
	FIELD(INT, family),
	FIELD(BYTES, address),
	FIELD(BYTES, interface),
};
#undef TYPE

static bool group_is_valid(const void *group)
{
	const struct multicast_group *g = group;

	return (g->family == AF_INET || g->family == AF_INET6) &&
	       memchr(g->interface, '\0', sizeof(g->interface));
}

static const struct state_table group_table =
	STATE_TABLE(struct multicast_group, group_fields, .is_valid = group_is_valid);

#define TYPE struct socket_options
static const struct state_field options_fields[] = {
	FIELD(LIST, list, COUNT(n), .table = &option_table, .max = SOCKET_OPTIONS_N),
	FIELD(NOT_SAVED, n),
	FIELD(LIST, groups, COUNT(n_groups), .table = &group_table, .max = MULTICAST_GROUPS_MAX),
	FIELD(NOT_SAVED, n_groups),
	FIELD(NOT_SAVED, groups_place),
};
#undef TYPE
const struct state_table state_table_socket_options =
	STATE_TABLE(struct socket_options, options_fields);

static void init_listener(void *listener)
{
	listener_config_init(listener);
}

#define TYPE struct listener_config
static const struct state_field listener_fields[] = {
	FIELD(TEXT, name),
	FIELD(NOT_SAVED, place),
	FIELD(BOOL, inherited),
	FIELD(TEXT, inherit),
	FIELD(UNSIGNED, inherit_index),
	FIELD(TEXT, fd_name),
	FIELD(STRUCT, address, .table = &state_table_address),
	FIELD(UNSIGNED, sockets, .max = SOCKETS_PER_WORKER),
	FIELD(BOOL, steering),
	FIELD(BOOL, v6only),
	FIELD(UNSIGNED, backlog),
	FIELD(BOOL, backlog_set),
	FIELD(UNSIGNED, mode),
	FIELD(BOOL, mode_set),
	FIELD(TEXT, owner),
	FIELD(TEXT, group),
	FIELD(STRUCT, options, .table = &state_table_socket_options),
	FIELD(BOOL, broken),
};
#undef TYPE
const struct state_table state_table_listener_config =
	STATE_TABLE(struct listener_config, listener_fields, .init = init_listener);

#define TYPE struct ready_config
static const struct state_field ready_fields[] = {
	FIELD(NOT_SAVED, place),
	FIELD(UNSIGNED, by, .max = READY_EINHORN),
	FIELD(BOOL, by_set),
	FIELD(BOOL, accept),
	FIELD(U64, timeout_usec),
	FIELD(U64, delay_usec),
	FIELD(TEXT, path),
	FIELD(UNSIGNED, status),
	FIELD(TEXTS, command),
	FIELD(U64, interval_usec),
	FIELD(UNSIGNED, number),
	FIELD(TEXT, variable),
};
#undef TYPE
static const struct state_table ready_table = STATE_TABLE(struct ready_config, ready_fields);

#define TYPE struct verify_config
static const struct state_field verify_fields[] = {
	FIELD(NOT_SAVED, place),
	FIELD(UNSIGNED, by, .max = VERIFY_COMMAND),
	FIELD(TEXT, path),
	FIELD(UNSIGNED, status),
	FIELD(TEXTS, command),
	FIELD(U64, timeout_usec),
	FIELD(U64, interval_usec),
};
#undef TYPE
static const struct state_table verify_table = STATE_TABLE(struct verify_config, verify_fields);

static const struct state_field number_fields[] = {
	{.name = "n", .type = STATE_UNSIGNED, .size = sizeof(unsigned)},
};
static const struct state_table number_table = STATE_TABLE(unsigned, number_fields);

#define TYPE struct upgrade_config
static const struct state_field upgrade_fields[] = {
	FIELD(NOT_SAVED, place),
	FIELD(UNSIGNED, strategy, .max = STRATEGY_RECREATE),
	FIELD(BOOL, strategy_set),
	FIELD(UNSIGNED, surge),
	FIELD(BOOL, surge_set),
	FIELD(ARRAY, steps, COUNT(n_steps), .table = &number_table, .max = CONFIG_STEPS_MAX),
	FIELD(NOT_SAVED, n_steps),
	FIELD(BOOL, steps_set),
	FIELD(U64, soak_usec),
	FIELD(UNSIGNED, overlap, .max = OVERLAP_SUPERSEDE),
	FIELD(U64, keep_warm_usec),
	FIELD(TEXT, preview_from),
	FIELD(UNSIGNED, sticky, .max = STICKY_CLIENT),
	FIELD(STRUCT, verify, .table = &verify_table),
};
#undef TYPE
static const struct state_table upgrade_table = STATE_TABLE(struct upgrade_config, upgrade_fields);

#define TYPE struct recycle_config
static const struct state_field recycle_fields[] = {
	FIELD(NOT_SAVED, place),
	FIELD(U64, after_usec),
	FIELD(U64, memory),
};
#undef TYPE
static const struct state_table recycle_table = STATE_TABLE(struct recycle_config, recycle_fields);

#define TYPE struct restart_config
static const struct state_field restart_fields[] = {
	FIELD(NOT_SAVED, place),
	FIELD(UNSIGNED, policy, .max = RESTART_NEVER),
	FIELD(U64, backoff_from_usec),
	FIELD(U64, backoff_to_usec),
	FIELD(UNSIGNED, limit_starts),
	FIELD(U64, limit_within_usec),
};
#undef TYPE
static const struct state_table restart_table = STATE_TABLE(struct restart_config, restart_fields);

#define TYPE struct limit_config
static const struct state_field limit_fields[] = {
	FIELD(INT, resource),
	FIELD(U64, value),
};
#undef TYPE
static const struct state_table limit_table = STATE_TABLE(struct limit_config, limit_fields);

#define TYPE struct resource_config
static const struct state_field resources_fields[] = {
	FIELD(U64, memory_high),
	FIELD(U64, memory_max),
	FIELD(U64, memory_swap_max),
	FIELD(UNSIGNED, cpu_weight),
	FIELD(UNSIGNED, cpu_quota),
	FIELD(UNSIGNED, tasks_max),
	FIELD(UNSIGNED, io_weight),
};
#undef TYPE
static const struct state_table resources_table =
	STATE_TABLE(struct resource_config, resources_fields);

#define TYPE struct env_file
static const struct state_field env_file_fields[] = {
	FIELD(TEXT, path),
	FIELD(BOOL, optional),
};
#undef TYPE
static bool env_file_is_valid(const void *file)
{
	return ((const struct env_file *)file)->path;
}
static const struct state_table env_file_table =
	STATE_TABLE(struct env_file, env_file_fields, .is_valid = env_file_is_valid);

#define TYPE struct service_config
static const struct state_field service_fields[] = {
	FIELD(TEXT, name),
	FIELD(NOT_SAVED, place),
	FIELD(NOT_SAVED, command_place),
	FIELD(NOT_SAVED, environment_place),
	FIELD(NOT_SAVED, handoff_place),
	FIELD(UNSIGNED, broken),
	FIELD(TEXTS, command),
	FIELD(TEXT, directory),
	FIELD(TEXTS, fingerprint),
	FIELD(UNSIGNED, workers, .max = CONFIG_WORKERS_MAX),
	FIELD(BOOL, workers_auto),
	FIELD(TEXT, user),
	FIELD(TEXT, group),
	FIELD(TEXTS, environment),
	FIELD(BOOL, environment_inherited),
	FIELD(LIST, env_files, COUNT(n_env_files), .table = &env_file_table, .max = 1 << 16),
	FIELD(NOT_SAVED, n_env_files),
	FIELD(LIST, listeners, COUNT(n_listeners), .table = &state_table_listener_config,
		.max = CONFIG_LISTENERS_MAX),
	FIELD(NOT_SAVED, n_listeners),
	FIELD(UNSIGNED, handoff),
	FIELD(BOOL, handoff_set),
	FIELD(NOT_SAVED, preset),
	FIELD(NOT_SAVED, preset_set),
	FIELD(STRUCT, ready, .table = &ready_table),
	FIELD(STRUCT, upgrade, .table = &upgrade_table),
	FIELD(STRUCT, drain, .table = &state_table_drain),
	FIELD(STRUCT, restart, .table = &restart_table),
	FIELD(U64, watchdog_usec),
	FIELD(STRUCT, recycle, .table = &recycle_table),
	FIELD(UNSIGNED, cpu_affinity, .max = CPU_AFFINITY_SET),
	FIELD(NOT_SAVED, cpu_affinity_place),
	FIELD(BYTES, cpus),
	FIELD(STRUCT, resources, .table = &resources_table),
	FIELD(NOT_SAVED, resources_place),
	FIELD(LIST, limits, COUNT(n_limits), .table = &limit_table, .max = 1024),
	FIELD(NOT_SAVED, n_limits),
	FIELD(UNSIGNED, output, .max = OUTPUT_INHERIT),
	FIELD(BOOL, output_set),
	FIELD(TEXT, output_file),
	FIELD(BOOL, autostart),
};
#undef TYPE
const struct state_table state_table_service_config =
	STATE_TABLE(struct service_config, service_fields);

#define TYPE struct control_config
static const struct state_field control_fields[] = {
	FIELD(NOT_SAVED, place),
	FIELD(TEXT, socket),
	FIELD(UNSIGNED, mode),
	FIELD(TEXTS, operators),
	FIELD(TEXTS, observers),
};
#undef TYPE
static const struct state_table control_table = STATE_TABLE(struct control_config, control_fields);

#define TYPE struct config
static const struct state_field config_fields[] = {
	FIELD(NOT_SAVED, services),
	FIELD(NOT_SAVED, n_services),
	FIELD(STRUCT, control, .table = &control_table),
	FIELD(UNSIGNED, on_terminate, .max = ON_TERMINATE_DETACH),
	FIELD(NOT_SAVED, files),
};
#undef TYPE
const struct state_table state_table_config = STATE_TABLE(struct config, config_fields);

const struct state_table *const state_tables_config[] = {&state_table_address, &option_table,
	&group_table, &state_table_socket_options, &state_table_listener_config, &resources_table,
	&ready_table, &verify_table, &upgrade_table, &recycle_table, &restart_table, &limit_table,
	&env_file_table, &state_table_service_config, &control_table, &state_table_config, NULL};

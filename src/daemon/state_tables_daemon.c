/* SPDX-License-Identifier: Apache-2.0 */
/* What core's generations and workers are in reality, as far as it can be written down. */
#include "daemon/manager.h"
#include "daemon/state_tables.h"
#include "daemon/worker_process.h"

#define TYPE struct timespec
static const struct state_field time_fields[] = {
	FIELD(U64, tv_sec),
	FIELD(U64, tv_nsec),
};
#undef TYPE
static const struct state_table time_table = STATE_TABLE(struct timespec, time_fields);

#define TYPE struct snapshot_file
static const struct state_field file_fields[] = {
	FIELD(TEXT, path),
	FIELD(BOOL, exists),
	FIELD(U64, dev),
	FIELD(U64, ino),
	FIELD(U64, size),
	FIELD(STRUCT, mtime, .table = &time_table),
	FIELD(STRUCT, ctime, .table = &time_table),
};
#undef TYPE
static const struct state_table file_table = STATE_TABLE(struct snapshot_file, file_fields);

#define TYPE struct rlimit
static const struct state_field rlimit_fields[] = {
	FIELD(U64, rlim_cur),
	FIELD(U64, rlim_max),
};
#undef TYPE
static const struct state_table rlimit_table = STATE_TABLE(struct rlimit, rlimit_fields);

#define TYPE struct spawn_limit
static const struct state_field limit_fields[] = {
	FIELD(INT, resource),
	FIELD(STRUCT, value, .table = &rlimit_table),
};
#undef TYPE
static const struct state_table limit_table = STATE_TABLE(struct spawn_limit, limit_fields);

static const struct state_field gid_fields[] = {
	{.name = "gid", .type = STATE_UNSIGNED, .size = sizeof(gid_t)},
};
static const struct state_table gid_table = STATE_TABLE(gid_t, gid_fields);

#define TYPE struct user
static const struct state_field user_fields[] = {
	FIELD(UNSIGNED, uid),
	FIELD(UNSIGNED, gid),
	FIELD(LIST, groups, COUNT(n_groups), .table = &gid_table, .max = 1 << 16),
	FIELD(NOT_SAVED, n_groups),
	FIELD(TEXT, name),
	FIELD(TEXT, home),
	FIELD(TEXT, shell),
};
#undef TYPE
static const struct state_table user_table = STATE_TABLE(struct user, user_fields);

#define TYPE struct snapshot
static const struct state_field snapshot_fields[] = {
	FIELD(NOT_SAVED, n_refs),
	FIELD(NOT_SAVED, number),
	FIELD(STRUCT, config, .table = &state_table_service_config),
	FIELD(NOT_SAVED, directory_fd),
	FIELD(TEXT, directory),
	FIELD(TEXT, executable),
	FIELD(NOT_SAVED, exec_fd),
	FIELD(TEXTS, argv),
	FIELD(TEXTS, environment),
	FIELD(STRUCT, user, .table = &user_table),
	FIELD(BOOL, set_user),
	FIELD(LIST, limits, COUNT(n_limits), .table = &limit_table, .max = 1024),
	FIELD(NOT_SAVED, n_limits),
	FIELD(STRUCT, program, .table = &file_table),
	FIELD(LIST, fingerprint, COUNT(n_fingerprint), .table = &file_table, .max = 1 << 16),
	FIELD(NOT_SAVED, n_fingerprint),
	FIELD(LIST, env_files, COUNT(n_env_files), .table = &file_table, .max = 1 << 16),
	FIELD(NOT_SAVED, n_env_files),
};
#undef TYPE
const struct state_table state_table_snapshot = STATE_TABLE(struct snapshot, snapshot_fields);

#define TYPE struct worker_process
static const struct state_field process_fields[] = {
	FIELD(NOT_SAVED, service),
	FIELD(NOT_SAVED, generation),
	FIELD(NOT_SAVED, index),
	FIELD(INT, pid),
	FIELD(NOT_SAVED, pidfd),
	FIELD(INT, pgid),
	FIELD(INT, main_pid),
	FIELD(U64, started), /* for when there is no pidfd */
	FIELD(NOT_SAVED, foreign),
	FIELD(NOT_SAVED, exit_source),
	FIELD(NOT_SAVED, exit_timer),
	FIELD(NOT_SAVED, exit_looks),
	FIELD(NOT_SAVED, notify_fd),
	FIELD(TEXT, notify_address),
	FIELD(NOT_SAVED, notify_source),
	FIELD(NOT_SAVED, output),
	FIELD(NOT_SAVED, ready),
	FIELD(BOOL, said_ready),
	FIELD(NOT_SAVED, ready_fd),
	FIELD(NOT_SAVED, ready_fd_source),
	FIELD(BOOL, wrote_something),
	FIELD(BOOL, wrote_ready),
	FIELD(NOT_SAVED, channel_fd),
	FIELD(NOT_SAVED, channel_source),
	FIELD(NOT_SAVED, channel_timer),
	FIELD(NOT_SAVED, channel_retry),
	FIELD(UNSIGNED, channel_accepts),
	FIELD(BOOL, channel_greets),
	FIELD(NOT_SAVED, channel_pings),
	FIELD(BOOL, told_channel),
	FIELD(U64, has_listeners),
	FIELD(U64, told_leave),
	FIELD(U64, told_remove),
	FIELD(BOOL, told_main_pid),
	FIELD(BOOL, told_to_go),
	FIELD(TEXT, status),
	FIELD(NOT_SAVED, watchdog_source),
	FIELD(U64, watchdog_usec),
	FIELD(U64, spawned_usec),
	FIELD(U64, ready_told_usec),
	FIELD(INT, exit_code),
	FIELD(INT, exit_status),
	FIELD(BOOL, short_of_memory),
	FIELD(BOOL, bound),
	FIELD(BYTES, cpus),
	FIELD(UNSIGNED, restarts),
	FIELD(NOT_SAVED, memory),
	FIELD(NOT_SAVED, memory_exact_usec),
	FIELD(TEXT, spawn_failure),
	FIELD(NOT_SAVED, changed),
};
#undef TYPE
const struct state_table state_table_process =
	STATE_TABLE(struct worker_process, process_fields, .sparse = true);

#define TYPE struct history_entry
static const struct state_field history_fields[] = {
	FIELD(UNSIGNED, generation),
	FIELD(U64, started_usec),
	FIELD(U64, serving_usec),
	FIELD(U64, ended_usec),
	FIELD(UNSIGNED, outcome, .max = N_REASONS - 1),
	FIELD(TEXT, reason),
	FIELD(TEXT, requested_by),
	FIELD(TEXT, directory),
	FIELD(TEXT, executable),
	FIELD(NOT_SAVED, snapshot),
	FIELD(BOOL, was_good),
};
#undef TYPE
const struct state_table state_table_history = STATE_TABLE(struct history_entry, history_fields);

#define TYPE struct failure
static const struct state_field failure_fields[] = {
	FIELD(UNSIGNED, generation),
	FIELD(UNSIGNED, worker),
	FIELD(TEXT, reason),
	FIELD(TEXT, status),
	FIELD(TEXT, output),
	FIELD(U64, at_usec),
};
#undef TYPE
const struct state_table state_table_failure = STATE_TABLE(struct failure, failure_fields);

#define TYPE struct upgrade_spec
static const struct state_field upgrade_fields[] = {
	FIELD(STRUCT, policy, .table = &state_table_policy),
	FIELD(U64, listeners),
	FIELD(UNSIGNED, pause_at, .max = SHARE_MAX),
	FIELD(BOOL, restart),
};
#undef TYPE
const struct state_table state_table_upgrade = STATE_TABLE(struct upgrade_spec, upgrade_fields);

#define TYPE struct listener_foreign
static const struct state_field foreign_fields[] = {
	FIELD(U64, inode),
	FIELD(STRUCT, address, .table = &state_table_address),
	FIELD(UNSIGNED, uid),
	FIELD(INT, pid),
	FIELD(TEXT, program),
	FIELD(BOOL, member),
	FIELD(BOOL, silent),
	FIELD(NOT_SAVED, sought),
	FIELD(BOOL, reported),
};
#undef TYPE
const struct state_table state_table_foreign = STATE_TABLE(struct listener_foreign, foreign_fields);

const struct state_table *const state_tables_daemon[] = {&time_table, &file_table, &rlimit_table,
	&limit_table, &user_table, &state_table_snapshot, &state_table_process,
	&state_table_history, &state_table_failure, &state_table_upgrade, &state_table_foreign,
	NULL};

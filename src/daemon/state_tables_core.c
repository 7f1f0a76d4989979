/* SPDX-License-Identifier: Apache-2.0 */
/* The machines. Times are CLOCK_MONOTONIC's, which goes on while no daemon is there. */
#include "core/service.h"
#include "daemon/state_tables.h"

#define TYPE struct backoff
static const struct state_field backoff_fields[] = {
	FIELD(U64, window_start_usec),
	FIELD(U64, last_usec),
	FIELD(UNSIGNED, failures),
	FIELD(UNSIGNED, steps),
};
#undef TYPE
static const struct state_table backoff_table = STATE_TABLE(struct backoff, backoff_fields);

#define TYPE struct worker
static const struct state_field worker_fields[] = {
	FIELD(UNSIGNED, index, .max = CONFIG_WORKERS_MAX),
	FIELD(UNSIGNED, state, .max = N_WORKER_STATES - 1),
	FIELD(BOOL, was_ready),
	FIELD(BOOL, had_share),
	FIELD(BOOL, retiring),
	FIELD(BOOL, seen_idle),
	FIELD(BOOL, unsettled),
	FIELD(BOOL, owes_settle),
	FIELD(UNSIGNED, restarts),
	FIELD(UNSIGNED, rescues),
	FIELD(STRUCT, backoff, .table = &backoff_table),
	FIELD(U64, since_usec),
	FIELD(U64, ready_usec),
	FIELD(UNSIGNED, recycle, .max = N_REASONS - 1),
	FIELD(U64, deadline_usec),
	FIELD(U64, poll_usec),
	FIELD(U64, backoff_usec),
};
#undef TYPE
const struct state_table state_table_worker =
	STATE_TABLE(struct worker, worker_fields, .sparse = true);

#define TYPE struct drain_config
static const struct state_field drain_fields[] = {
	FIELD(NOT_SAVED, place),
	FIELD(U64, settle_usec),
	FIELD(U64, settle_timeout_usec),
	FIELD(U64, idle_wait_usec),
	FIELD(INT, signal),
	FIELD(BOOL, signal_set),
	FIELD(U64, timeout_usec),
	FIELD(U64, kill_after_usec),
	FIELD(UNSIGNED, max_generations, .max = CONFIG_GENERATIONS_MAX),
};
#undef TYPE
const struct state_table state_table_drain = STATE_TABLE(struct drain_config, drain_fields);

#define TYPE struct backoff_policy
static const struct state_field backoff_policy_fields[] = {
	FIELD(U64, from_usec),
	FIELD(U64, to_usec),
	FIELD(U64, window_usec),
	FIELD(UNSIGNED, limit_starts),
};
#undef TYPE
static const struct state_table backoff_policy_table =
	STATE_TABLE(struct backoff_policy, backoff_policy_fields);

static const struct state_field number_fields[] = {
	{.name = "n", .type = STATE_UNSIGNED, .size = sizeof(unsigned)},
};
static const struct state_table number_table = STATE_TABLE(unsigned, number_fields);

#define TYPE struct policy
static const struct state_field policy_fields[] = {
	FIELD(UNSIGNED, workers, .max = CONFIG_WORKERS_MAX),
	FIELD(BOOL, steered),
	FIELD(BOOL, per_worker),
	FIELD(UNSIGNED, strategy, .max = STRATEGY_RECREATE),
	FIELD(UNSIGNED, surge),
	FIELD(ARRAY, steps, COUNT(n_steps), .table = &number_table, .max = CONFIG_STEPS_MAX),
	FIELD(NOT_SAVED, n_steps),
	FIELD(U64, soak_usec),
	FIELD(U64, keep_warm_usec),
	FIELD(BOOL, contained),
	FIELD(BOOL, sticky),
	FIELD(BOOL, verify),
	FIELD(U64, verify_interval_usec),
	FIELD(U64, recycle_after_usec),
	FIELD(UNSIGNED, overlap, .max = OVERLAP_SUPERSEDE),
	FIELD(U64, ready_timeout_usec),
	FIELD(STRUCT, drain, .table = &state_table_drain),
	FIELD(UNSIGNED, restart, .max = RESTART_NEVER),
	FIELD(STRUCT, backoff, .table = &backoff_policy_table),
};
#undef TYPE
const struct state_table state_table_policy = STATE_TABLE(struct policy, policy_fields);

#define TYPE struct generation
static const struct state_field generation_fields[] = {
	FIELD(UNSIGNED, number),
	FIELD(UNSIGNED, state, .max = GENERATION_RETIRING),
	FIELD(UNSIGNED, lane),
	FIELD(UNSIGNED, weight, .max = SHARE_MAX),
	FIELD(BOOL, had_weight),
	FIELD(BOOL, proven),
	FIELD(BOOL, failed),
	FIELD(BOOL, given_up),
	FIELD(BOOL, adopted),
	FIELD(UNSIGNED, reason, .max = N_REASONS - 1),
	FIELD(U64, zero_since_usec),
	FIELD(U64, since_usec),
	FIELD(U64, warm_until_usec),
	FIELD(U64, empty_until_usec),
	FIELD(U64, listeners),
	FIELD(STRUCT, policy, .table = &state_table_policy),
	FIELD(NOT_SAVED, workers),
	FIELD(UNSIGNED, n_workers, .max = CONFIG_WORKERS_MAX + 1),
	FIELD(UNSIGNED, wanted, .max = CONFIG_WORKERS_MAX),
};
#undef TYPE
const struct state_table state_table_generation = STATE_TABLE(struct generation, generation_fields);

#define TYPE struct rollout_step
static const struct state_field step_fields[] = {
	FIELD(UNSIGNED, workers, .max = CONFIG_WORKERS_MAX),
	FIELD(UNSIGNED, weight, .max = SHARE_MAX),
};
#undef TYPE
static const struct state_table step_table = STATE_TABLE(struct rollout_step, step_fields);

#define TYPE struct rollout
static const struct state_field rollout_fields[] = {
	FIELD(UNSIGNED, phase, .max = ROLLOUT_RESTORING),
	FIELD(UNSIGNED, id),
	FIELD(UNSIGNED, from),
	FIELD(UNSIGNED, to),
	FIELD(NOT_SAVED, steps), /* below */
	FIELD(NOT_SAVED, n_steps),
	FIELD(UNSIGNED, step, .max = CONFIG_WORKERS_MAX),
	FIELD(U64, deadline_usec),
	FIELD(UNSIGNED, pause_at, .max = SHARE_MAX),
	FIELD(BOOL, paused),
	FIELD(BOOL, cut_short),
	FIELD(BOOL, took_over),
	FIELD(UNSIGNED, reason, .max = N_REASONS - 1),
	FIELD(BOOL, soaked),
	FIELD(BOOL, verified),
	FIELD(BOOL, verifying),
	FIELD(BOOL, verify_waived),
	FIELD(UNSIGNED, verify_run),
	FIELD(U64, verify_due_usec),
};
#undef TYPE
static const struct state_table rollout_table = STATE_TABLE(struct rollout, rollout_fields);

#define TYPE struct rollout
static const struct state_field steps_fields[] = {
	FIELD(ARRAY, steps, COUNT(n_steps), .table = &step_table, .max = CONFIG_WORKERS_MAX),
	FIELD(NOT_SAVED, n_steps),
};
#undef TYPE
const struct state_table state_table_steps = STATE_TABLE(struct rollout, steps_fields);

#define TYPE struct recycle
static const struct state_field recycle_fields[] = {
	FIELD(UNSIGNED, phase, .max = RECYCLE_ENDING),
	FIELD(UNSIGNED, generation),
	FIELD(UNSIGNED, spare),
	FIELD(UNSIGNED, worker),
	FIELD(UNSIGNED, failures),
	FIELD(U64, retry_usec),
	FIELD(UNSIGNED, reason, .max = N_REASONS - 1),
	FIELD(BOOL, served),
};
#undef TYPE
static const struct state_table recycle_table = STATE_TABLE(struct recycle, recycle_fields);

#define TYPE struct service
static const struct state_field service_fields[] = {
	FIELD(NOT_SAVED, generations),
	FIELD(NOT_SAVED, n_generations),
	FIELD(UNSIGNED, last_number),
	FIELD(UNSIGNED, current),
	FIELD(BOOL, wanted),
	FIELD(BOOL, stopping),
	FIELD(BOOL, start_again),
	FIELD(BOOL, gave_up),
	FIELD(UNSIGNED, queue_lane, .max = CONFIG_GENERATIONS_MAX + 1),
	FIELD(U64, queue_listeners),
	FIELD(STRUCT, rollout, .table = &rollout_table),
	FIELD(STRUCT, recycle, .table = &recycle_table),
};
#undef TYPE
const struct state_table state_table_service = STATE_TABLE(struct service, service_fields);

const struct state_table *const state_tables_core[] = {&backoff_table, &state_table_worker,
	&state_table_drain, &backoff_policy_table, &state_table_policy, &state_table_generation,
	&step_table, &rollout_table, &state_table_steps, &recycle_table, &state_table_service,
	NULL};

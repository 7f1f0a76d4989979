/* SPDX-License-Identifier: Apache-2.0 */
/* What is saved of the structures of core and daemon. */
#pragma once

#include "daemon/state_fields.h"

/* state_tables_core.c */
extern const struct state_table state_table_worker;	/* struct worker */
extern const struct state_table state_table_drain;	/* struct drain_config */
extern const struct state_table state_table_policy;	/* struct policy */
extern const struct state_table state_table_generation; /* struct generation, without its workers */
extern const struct state_table state_table_service;	/* struct service, without generations and
							   steps */
extern const struct state_table state_table_steps;	/* of struct rollout: there may be many */
/* state_tables_config.c */
extern const struct state_table state_table_address; /* struct address */
extern const struct state_table state_table_socket_options;
extern const struct state_table state_table_listener_config;
extern const struct state_table state_table_service_config;
extern const struct state_table state_table_config; /* without services */
/* state_tables_daemon.c */
extern const struct state_table state_table_snapshot; /* without its descriptors */
extern const struct state_table state_table_process;  /* struct worker_process: plain values */
extern const struct state_table state_table_history;  /* struct history_entry, without snapshot */
extern const struct state_table state_table_failure;
extern const struct state_table state_table_upgrade; /* struct upgrade_spec */
extern const struct state_table state_table_foreign; /* struct listener_foreign */

/* Every table, for the test that holds them against the structures. */
extern const struct state_table *const state_tables_core[], *const state_tables_config[],
								    *const state_tables_daemon[];

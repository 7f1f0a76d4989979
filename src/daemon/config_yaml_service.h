/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files that read a configuration; others use config_yaml.h. */
#pragma once

#include "daemon/config_keys.h"

/* The value of `services: NAME:` into one more service of r->config. 0 or -ENOMEM. */
int config_read_service(struct reader *r, const struct node *name, const struct node *value);

/* The value of `listen:` into a struct service_config (of a key table's custom type). */
int config_read_listen(
	struct reader *r, const struct key *key, const struct node *value, void *service);

/* The value of `ready:` into a struct ready_config. */
int config_read_ready(
	struct reader *r, const struct key *key, const struct node *value, void *ready);

/* The path of a URL, of a key table's custom type, into a char *. */
int config_read_url_path(
	struct reader *r, const struct key *key, const struct node *value, void *path);
/* An HTTP status or "any", of a key table's custom type, into an unsigned (0: any below 400). */
int config_read_status(
	struct reader *r, const struct key *key, const struct node *value, void *status);

/* The keys of `upgrade:`, for a struct upgrade_config. */
extern const struct key_table config_upgrade_table;

/* path, if it is relative, below directory. The caller frees; NULL: out of memory. */
char *config_path_join(const char *directory, const char *path);

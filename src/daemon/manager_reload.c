/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the configuration again and doing what it asks: the pure plan first (core/plan.h), then
 * everything that can fail, then the rest. */
#include "daemon/config_yaml.h"
#include "daemon/listener_options.h"
#include "daemon/listener_inherit.h"
#include "daemon/listener_live.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/restore_blind.h"
#include "daemon/state_save.h"

int manager_read_config(struct manager *m, struct config **ret, struct config_problems *problems,
	struct error *ret_error)
{
	_cleanup_config_ struct config *c = NULL;
	int r;

	if (!m->config_path)
		return error_set(ret_error, -ENOENT,
			"there is no configuration file: the service was given on the command "
			"line");
	r = config_load(m->config_path, &c, problems, ret_error);
	if (r >= 0)
		r = inherit_expand(c, &m->activation);
	if (r >= 0)
		r = config_resolve(c, manager_n_cpus(), problems);
	for (size_t i = 0; i < problems->n; i++) {
		_cleanup_free_ char *text = config_problem_format(&problems->list[i]);
		log_message(problems->list[i].warning ? LOG_WARNING : LOG_ERR, "%s",
			text ? text : "out of memory");
	}
	if (r < 0 && problems->n_errors == 0)
		return r;
	if (problems->n_errors > 0)
		return error_set(ret_error, -EINVAL, "%s: %zu errors; nothing was changed",
			m->config_path, problems->n_errors);
	*ret = TAKE_PTR(c);
	return 0;
}

/* What runs, as a configuration. Shallow: only the array is owned. */
static int running_config(const struct manager *m, struct config *ret)
{
	*ret = (struct config){.services = calloc(m->n_services + 1, sizeof(*ret->services))};
	if (!ret->services)
		return -ENOMEM;
	for (size_t i = 0; i < m->n_services; i++)
		if (!m->services[i]->removing)
			ret->services[ret->n_services++] = *m->services[i]->config;
	return 0;
}

int manager_plan(
	struct manager *m, const struct config *new_config, bool upgrade_all, struct plan *ret)
{
	struct config old = {0};
	struct plan_fact *facts = calloc(m->n_services + 1, sizeof(*facts));
	char ***pending = calloc(m->n_services + 1, sizeof(*pending));
	size_t n = 0;
	int r = facts && pending ? running_config(m, &old) : -ENOMEM;

	for (size_t i = 0; r >= 0 && i < m->n_services; i++) {
		struct manager_service *s = m->services[i];
		if (s->removing)
			continue;
		r = manager_service_pending(s, &pending[n]);
		facts[n] = (struct plan_fact){.service = s->name,
			.running = s->core.wanted,
			.live = listener_live_is_possible(s),
			.scaled = s->scaled,
			.pending = pending[n]};
		n++;
	}
	if (r >= 0)
		r = plan_make(&old, new_config, facts, n, upgrade_all, ret);
	/* The entries' old configurations point into an array that ends here. */
	for (size_t i = 0; r >= 0 && i < ret->n; i++)
		ret->entries[i].old_config = NULL;
	for (size_t i = 0; pending && i < n; i++)
		strv_free(pending[i]);
	free(pending);
	free(facts);
	free(old.services);
	return r;
}

/* Everything that may fail: programs and users are looked up, sockets bound. */
static int try_entry(struct manager *m, const struct plan_entry *entry, struct error *ret_error)
{
	_cleanup_snapshot_ struct snapshot *probe = NULL;
	struct manager_service *s = manager_find(m, entry->service);
	uint64_t mask;
	int r;

	for (size_t i = 0; entry->new_config && i < entry->new_config->n_listeners; i++) {
		r = listener_options_try(
			entry->service, &entry->new_config->listeners[i], ret_error);
		if (r < 0)
			return r;
	}
	if (entry->action == PLAN_LISTEN)
		return manager_service_bind(s, entry->new_config, &mask, ret_error);
	if (entry->action != PLAN_ADD && entry->action != PLAN_UPGRADE)
		return 0;
	if (entry->action == PLAN_ADD) {
		if (s)
			return error_set(ret_error, -EBUSY,
				"%s: a service of that name is still stopping; try again later",
				entry->service);
		if (array_reserve(
			    &m->services, &m->services_capacity, m->n_services + 1, sizeof(s)) < 0)
			return error_set(ret_error, -ENOMEM, "out of memory");
		s = manager_service_new(m, entry->new_config, ret_error);
		if (!s)
			return -ENOMEM;
		m->services[m->n_services++] = s;
	}
	r = snapshot_new(entry->new_config, &m->worker_nofile, &probe, ret_error);
	if (r < 0)
		return r;
	if (!s || !entry->new_config->autostart)
		return 0;
	return manager_service_bind(s, entry->new_config, &mask, ret_error);
}

/* Take back what try_entry() did to the first n entries. */
static void undo(struct manager *m, const struct plan *plan, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct manager_service *s = manager_find(m, plan->entries[i].service);
		if (!s)
			continue;
		if (plan->entries[i].action == PLAN_UPGRADE ||
			plan->entries[i].action == PLAN_LISTEN)
			manager_service_drop_unused_listeners(s);
		if (plan->entries[i].action != PLAN_ADD || s->core.n_generations > 0 ||
			s->core.wanted)
			continue;
		for (size_t k = 0; k < m->n_services; k++)
			if (m->services[k] == s)
				memmove(&m->services[k], &m->services[k + 1],
					(m->n_services - k - 1) * sizeof(s));
		m->n_services--;
		manager_service_free(s);
	}
}

static void do_entry(struct manager *m, const struct plan_entry *entry, const char *requested_by)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct manager_service *s = manager_find(m, entry->service);
	struct request_options o = {.requested_by = requested_by};
	int r = 0;

	/* Asked for again: this part of it was done. */
	if (!s || asked_find(s, m->request))
		return;
	switch (entry->action) {
	case PLAN_NONE:
		break;
	case PLAN_ADD:
		if (entry->new_config->autostart)
			r = manager_service_start(s, requested_by, &error);
		break;
	case PLAN_REMOVE:
		s->removing = true;
		manager_service_changed(s);
		(void)manager_service_stop(s, false);
		manager_check_stopped(m);
		break;
	case PLAN_UPDATE:
		r = manager_service_update(s, entry->new_config, &error);
		break;
	case PLAN_LISTEN:
		r = listener_live_change(s, entry->new_config, &error);
		break;
	case PLAN_SCALE:
		r = manager_service_update(s, entry->new_config, &error);
		if (r == 0 && s->core.current != 0)
			r = manager_service_scale(s, entry->new_config->workers, &error);
		break;
	case PLAN_UPGRADE:
		s->scaled = 0;
		r = manager_service_upgrade(s, entry->new_config, &o, &error);
		break;
	}
	if (r == 0 && (entry->action == PLAN_ADD || entry->action == PLAN_UPGRADE))
		s->reloaded_to = s->core.last_number;
	if (r != 0)
		manager_report(m, s, 0, NO_WORKER, LOG_ERR, "reload-failed", "reload: %s",
			error_message(&error));
	else
		manager_report(m, s, 0, NO_WORKER, LOG_NOTICE, "reloaded", "reload: %s: %s",
			entry->service,
			entry->action == PLAN_NONE ? "unchanged, not upgraded"
						   : plan_action_to_string(entry->action));
}

static int apply_control(struct manager *m, const struct config *config, struct error *ret_error)
{
	int before = control_server_fd(m->control), r;

	r = control_server_reconfigure(m->control,
		&(struct control_server_options){.path = config->control.socket && !m->socket_path
								 ? config->control.socket
								 : control_server_path(m->control),
			.mode = config->control.mode,
			.operators = config->control.operators,
			.observers = config->control.observers,
			.listen_fd = -1,
			.priority = PRIORITY_CONTROL},
		ret_error);
	/* Another path has another socket; the one before is closed already. */
	if (r >= 0 && control_server_fd(m->control) != before) {
		store_drop(m->store, before);
		(void)store_add(m->store, STORED_CONTROL, control_server_fd(m->control));
	}
	return r;
}

int manager_reload(struct manager *m, struct config **config, bool upgrade_all,
	const char *requested_by, struct plan *ret_plan, struct error *ret_error)
{
	int r;

	log_notice("reload asked for by %s", requested_by);
	r = manager_plan(m, *config, upgrade_all, ret_plan);
	if (r < 0)
		return error_set_errno(ret_error, r, "reload");
	if (m->held) {
		r = apply_control(m, *config, ret_error);
		return r < 0 ? r : manager_hold_end(m, config, ret_error);
	}
	for (size_t i = 0; i < ret_plan->n; i++) {
		r = try_entry(m, &ret_plan->entries[i], ret_error);
		if (r < 0) {
			undo(m, ret_plan, i + 1);
			return r;
		}
	}
	r = apply_control(m, *config, ret_error);
	if (r < 0) {
		undo(m, ret_plan, ret_plan->n);
		return r;
	}
	for (size_t i = 0; i < ret_plan->n; i++)
		do_entry(m, &ret_plan->entries[i], requested_by);
	/* Entries point into the new configuration, which lives on as ours. */
	config_free(m->config);
	m->config = TAKE_PTR(*config);
	blind_begin(m->blind);
	manager_changed(m);
	return 0;
}

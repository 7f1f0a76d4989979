/* SPDX-License-Identifier: Apache-2.0 */
/* The services at the daemon's start. And what is done when neither the saved state nor the file
 * can be used: the keeper is not let go of (systemd would close all that it holds if we failed for
 * good), and nothing that serves is touched. The control socket is served, and the first reload
 * with a good file is the start, beside what there is. */
#include <stdio.h>
#include <sys/random.h>

#include "daemon/cgroup.h"
#include "daemon/listener_inherit.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/restore.h"
#include "daemon/restore_blind.h"
#include "daemon/state_save.h"
#include "sys/listen.h"

static int add_service(struct manager *m, const struct service_config *c, struct error *ret_error)
{
	struct manager_service *s;

	if (array_reserve(&m->services, &m->services_capacity, m->n_services + 1, sizeof(s)) < 0)
		return error_set(ret_error, -ENOMEM, "out of memory");
	s = manager_service_new(m, c, ret_error);
	if (!s)
		return -ENOMEM;
	m->services[m->n_services++] = s;
	return 0;
}

static void make_instance(struct manager *m)
{
	uint64_t random[2];

	if (store_is_kept(m->store) && getrandom(random, sizeof(random), 0) == sizeof(random))
		snprintf(m->instance, sizeof(m->instance), "%016llx%016llx",
			(unsigned long long)random[0], (unsigned long long)random[1]);
}

/* Beside what the store has, if it has anything. */
static int make_anew(struct manager *m, struct error *ret_error)
{
	make_instance(m);
	if (m->store && blind_new(m, &m->blind) < 0)
		return error_set(ret_error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < m->config->n_services; i++) {
		int r = add_service(m, &m->config->services[i], ret_error);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Whoever knows where the earlier daemon was to be asked finds us there. */
static int take_control(struct manager *m)
{
	struct address a;
	unsigned number;

	m->control_fd = store_take_any(m->store, STORED_CONTROL, &number);
	if (m->control_fd < 0 || m->socket_path || socket_address(m->control_fd, &a) < 0 ||
		!address_is_unix(&a) || a.un.sun_path[0] != '/')
		return 0;
	m->config->control.socket = strndup(a.un.sun_path, sizeof(a.un.sun_path));
	return m->config->control.socket ? 0 : -ENOMEM;
}

static int hold(struct manager *m, struct error *ret_error)
{
	m->config = config_new();
	if (!m->config || take_control(m) < 0)
		return error_set(ret_error, -ENOMEM, "out of memory");
	if (!m->store)
		return error_set(ret_error, -EINVAL, "there is no configuration that can be used");
	log_error(
		"%s cannot be used either: what an earlier daemon left serves on, and nobody looks "
		"after it; put the file right, then `tenurectl reload`",
		m->config_path);
	/* Nothing is written into it, and nothing taken out but the control socket. */
	m->held = TAKE_PTR(m->store);
	return 0;
}

/* What an earlier daemon left, or else what the configuration says. */
int manager_make_services(struct manager *m, struct error *ret_error)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	int r = m->store ? restore_manager(m, &error) : 0;

	if (r > 0)
		return 0;
	if (r < 0)
		log_error("%s; what runs is taken over as well as can be", error_message(&error));
	if (!m->config)
		return hold(m, ret_error);
	return make_anew(m, ret_error);
}

/* Whoever looks later is told why it does not run. */
static void note_start_failed(struct manager_service *s, const struct error *error)
{
	service_start_failed(&s->core);
	failure_done(&s->failure);
	s->failure = (struct failure){.worker = NO_WORKER,
		.reason = strdup(error_message(error)),
		.at_usec = realtime_now()};
	manager_report(
		s->manager, s, 0, NO_WORKER, LOG_ERR, "service-failed", "%s", error_message(error));
}

bool manager_start_services(struct manager *m)
{
	size_t failed = 0, wanted = 0;

	/* Who is left of generations of which there is no word holds their ports. */
	cgroups_sweep(m, !m->blind);
	inherit_warn_unused(m);
	for (size_t i = 0; i < m->n_services; i++) {
		_cleanup_error_ struct error error = ERROR_NULL;
		struct manager_service *s = m->services[i];
		if (!s->config->autostart)
			continue;
		wanted++;
		if (manager_service_start(s, "start of the daemon", &error) != 0) {
			note_start_failed(s, &error);
			failed++;
		}
	}
	return wanted == 0 || failed < wanted;
}

int manager_hold_end(struct manager *m, struct config **config, struct error *ret_error)
{
	int r;

	config_free(m->config);
	m->config = TAKE_PTR(*config);
	m->store = TAKE_PTR(m->held);
	r = make_anew(m, ret_error);
	if (r < 0) {
		/* There was no memory: as if we had been killed. */
		log_error("%s", error_message(ret_error));
		m->detached = true;
		(void)sd_event_exit(m->event, EXIT_FAILURE);
		return r;
	}
	if (manager_start_services(m))
		blind_begin(m->blind);
	else
		log_error("no service could be started: what an earlier daemon left serves on; put "
			  "it right, then `tenurectl reload`");
	manager_changed(m);
	return 0;
}

void manager_hold_done(struct manager *m)
{
	if (!m->held)
		return;
	/* For the next daemon, or else for nobody. */
	m->store = TAKE_PTR(m->held);
	if (m->detached)
		return;
	m->stopping = true;
	(void)blind_new(m, &m->blind);
	blind_end(m->blind);
}

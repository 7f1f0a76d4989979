/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/unit.h"

#include "base/utf8.h"
#include "daemon/manager.h"
#include "daemon/unit_tell.h"

/* The status line follows what happens, but not each of a thousand events. */
#define STATUS_USEC (100 * USEC_PER_MSEC)
/* How often more time is asked for, and how much. */
#define EXTEND_EVERY_USEC (5 * USEC_PER_SEC)
#define EXTEND_USEC (30 * USEC_PER_SEC)

enum { STATUS_MAX = 1024 };

struct unit {
	struct manager *manager;
	struct unit_tell *tell;
	sd_event_source *status_timer, *extend_timer;
	char *status; /* as it was told last */
	char *reload_error;
	bool started, ready, reloading, stopping;
};

/* --- is something under way? ----------------------------------------------------- */

static bool is_on_its_way(const struct manager_service *s)
{
	return service_state(&s->core) == SERVICE_STARTING && s->failure.at_usec == 0;
}

static bool is_starting(const struct manager *m)
{
	for (size_t i = 0; i < m->n_services; i++)
		if (is_on_its_way(m->services[i]))
			return true;
	return false;
}

/* Is what a reload has begun still going on? */
static bool is_reloading(const struct manager *m)
{
	for (size_t i = 0; i < m->n_services; i++) {
		const struct manager_service *s = m->services[i];

		if (s->reloaded_to != 0 && s->core.rollout.phase != ROLLOUT_NONE &&
			s->core.rollout.to == s->reloaded_to)
			return true;
	}
	return false;
}

static bool is_busy(const struct manager *m)
{
	if (is_starting(m))
		return true;
	for (size_t i = 0; i < m->n_services; i++) {
		const struct service *core = &m->services[i]->core;

		if (core->stopping || core->rollout.phase != ROLLOUT_NONE ||
			service_oldest_leaving(core))
			return true;
	}
	return false;
}

/* --- telling --------------------------------------------------------------------- */

/* before: lines for systemd that go with it, or "". */
static void tell(struct unit *u, const char *before)
{
	_cleanup_free_ char *status = unit_status(u->manager);
	const char *error = u->reload_error;
	_cleanup_free_ char *text = NULL;
	char clean[STATUS_MAX];

	if (status && error) {
		char *longer = xasprintf("Reload failed: %s; %s", error, status);

		free(status);
		status = longer;
	}
	if (!status || (*before == '\0' && streq_null(status, u->status)))
		return;
	/* A line of UTF-8 is all that systemd takes. */
	(void)utf8_print(status, strlen(status), clean, sizeof(clean));
	text = xasprintf("%sSTATUS=%s", before, clean);
	free(u->status);
	u->status = NULL;
	/* A line that nobody has read is told again. */
	if (text && unit_tell(u->tell, text, *before != '\0'))
		u->status = TAKE_PTR(status);
	else
		unit_changed(u);
}

static void extend(struct unit *u)
{
	char text[64];

	(void)snprintf(
		text, sizeof(text), "EXTEND_TIMEOUT_USEC=%llu", (unsigned long long)EXTEND_USEC);
	if (u->stopping || is_busy(u->manager))
		(void)unit_tell(u->tell, text, false);
}

static void look(struct unit *u)
{
	const char *before = "";

	if (!u->started || u->stopping) {
		tell(u, "");
		return;
	}
	if (u->ready ? u->reloading && !is_reloading(u->manager) : !is_starting(u->manager)) {
		u->ready = true;
		u->reloading = false;
		before = "READY=1\n";
	}
	tell(u, before);
}

static int on_status(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	look(userdata);
	return 0;
}

static int on_extend(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct unit *u = userdata;

	(void)usec;
	extend(u);
	(void)sd_event_source_set_time_relative(source, EXTEND_EVERY_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* --- what happens ---------------------------------------------------------------- */

void unit_started(struct unit *u, bool now)
{
	if (!u)
		return;
	u->started = true;
	if (now) {
		u->ready = true;
		tell(u, "READY=1\n");
		return;
	}
	extend(u);
	look(u);
}

void unit_changed(struct unit *u)
{
	int enabled = SD_EVENT_ON;

	if (!u || !u->status_timer)
		return;
	(void)sd_event_source_get_enabled(u->status_timer, &enabled);
	if (enabled != SD_EVENT_OFF)
		return;
	(void)sd_event_source_set_time_relative(u->status_timer, STATUS_USEC);
	(void)sd_event_source_set_enabled(u->status_timer, SD_EVENT_ONESHOT);
}

void unit_changed_now(struct unit *u)
{
	if (u)
		look(u);
}

void unit_reloading(struct unit *u)
{
	char text[128];

	if (!u || !u->ready || u->stopping)
		return;
	u->reloading = true;
	free(u->reload_error);
	u->reload_error = NULL;
	for (size_t i = 0; i < u->manager->n_services; i++)
		u->manager->services[i]->reloaded_to = 0;
	(void)snprintf(text, sizeof(text),
		"RELOADING=1\nMONOTONIC_USEC=%llu\nEXTEND_TIMEOUT_USEC=%llu\nSTATUS=Reloading",
		(unsigned long long)manager_now(u->manager), (unsigned long long)EXTEND_USEC);
	(void)unit_tell(u->tell, text, true);
	free(u->status);
	u->status = NULL;
}

void unit_reloaded(struct unit *u, const char *error)
{
	if (!u)
		return;
	if (error)
		u->reload_error = strdup(error);
	extend(u);
	look(u);
}

void unit_stopping(struct unit *u)
{
	if (!u || u->stopping)
		return;
	u->stopping = true;
	tell(u, "STOPPING=1\n");
	extend(u);
}

int unit_new(struct manager *m, struct unit **ret)
{
	struct unit_tell *tell;
	struct unit *u;
	int r = unit_tell_new(m->event, &tell);

	*ret = NULL;
	if (r < 0 || !tell)
		return r;
	u = calloc(1, sizeof(*u));
	if (!u) {
		unit_tell_free(tell);
		return -ENOMEM;
	}
	u->manager = m;
	u->tell = tell;
	r = sd_event_add_time_relative(m->event, &u->status_timer, CLOCK_MONOTONIC, STATUS_USEC,
		STATUS_USEC / 10, on_status, u);
	if (r >= 0)
		r = sd_event_source_set_enabled(u->status_timer, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(m->event, &u->extend_timer, CLOCK_MONOTONIC,
			EXTEND_EVERY_USEC, USEC_PER_SEC, on_extend, u);
	if (r < 0) {
		unit_free(u);
		return r;
	}
	*ret = u;
	return 0;
}

struct unit *unit_free(struct unit *u)
{
	if (!u)
		return NULL;
	if (u->status_timer)
		sd_event_source_disable_unref(u->status_timer);
	if (u->extend_timer)
		sd_event_source_disable_unref(u->extend_timer);
	unit_tell_free(u->tell);
	free(u->status);
	free(u->reload_error);
	free(u);
	return NULL;
}

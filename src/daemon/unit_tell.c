/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/unit_tell.h"

#include <systemd/sd-daemon.h>

#include "daemon/log.h"
#include "daemon/manager.h"
#include "sys/fdstore.h"

#define TRY_AGAIN_USEC (100 * USEC_PER_MSEC)
/* More reloads than that have not been told: the first ones are forgotten. */
enum { OWED_MAX = 16 };

struct unit_tell {
	struct fdstore to;
	sd_event_source *watchdog_timer, *owed_timer;
	uint64_t watchdog_usec; /* between two; 0: nobody asks for it */
	char *owed[OWED_MAX];
	size_t n_owed;
	bool waiting; /* said already */
};

static int say(struct unit_tell *t, const char *text)
{
	int r = fdstore_tell(&t->to, text);

	if (r == -EAGAIN && !t->waiting)
		log_warning("who started us (NOTIFY_SOCKET) does not read what it is told; what "
			    "it has to know is told later");
	t->waiting = r == -EAGAIN;
	return r;
}

static void forget_first(struct unit_tell *t)
{
	free(t->owed[0]);
	memmove(t->owed, t->owed + 1, --t->n_owed * sizeof(t->owed[0]));
}

static int on_owed(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct unit_tell *t = userdata;

	(void)usec;
	while (t->n_owed > 0 && say(t, t->owed[0]) != -EAGAIN)
		forget_first(t);
	if (t->n_owed == 0)
		return 0;
	(void)sd_event_source_set_time_relative(source, TRY_AGAIN_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static void owe(struct unit_tell *t, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return;
	if (t->n_owed == OWED_MAX)
		forget_first(t);
	t->owed[t->n_owed++] = copy;
	(void)sd_event_source_set_time_relative(t->owed_timer, TRY_AGAIN_USEC);
	(void)sd_event_source_set_enabled(t->owed_timer, SD_EVENT_ONESHOT);
}

bool unit_tell(struct unit_tell *t, const char *text, bool owed)
{
	if (t->n_owed == 0 && say(t, text) != -EAGAIN)
		return true;
	if (owed)
		owe(t, text);
	return owed;
}

/* That the loop comes here is the proof. */
static int on_watchdog(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct unit_tell *t = userdata;
	bool told = say(t, "WATCHDOG=1") != -EAGAIN;

	(void)usec;
	(void)sd_event_source_set_time_relative(source, told ? t->watchdog_usec : TRY_AGAIN_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int make_timers(struct unit_tell *t, sd_event *event)
{
	uint64_t usec = 0;
	int r = sd_event_add_time_relative(
		event, &t->owed_timer, CLOCK_MONOTONIC, USEC_PER_SEC, 0, on_owed, t);

	if (r >= 0)
		r = sd_event_source_set_enabled(t->owed_timer, SD_EVENT_OFF);
	if (r < 0 || sd_watchdog_enabled(0, &usec) <= 0)
		return r;
	t->watchdog_usec = MAX(usec / 2, USEC_PER_MSEC);
	r = sd_event_add_time_relative(
		event, &t->watchdog_timer, CLOCK_MONOTONIC, 0, 0, on_watchdog, t);
	if (r >= 0)
		r = sd_event_source_set_priority(t->watchdog_timer, PRIORITY_NOTIFY - 1);
	return r;
}

int unit_tell_new(sd_event *event, struct unit_tell **ret)
{
	struct unit_tell *t = calloc(1, sizeof(*t));
	int r;

	*ret = NULL;
	if (!t)
		return -ENOMEM;
	/* That it cannot be reached is said by whoever gives it descriptors. */
	r = fdstore_open(&t->to);
	if (r <= 0) {
		free(t);
		return 0;
	}
	r = make_timers(t, event);
	if (r < 0) {
		unit_tell_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

struct unit_tell *unit_tell_free(struct unit_tell *t)
{
	if (!t)
		return NULL;
	if (t->watchdog_timer)
		sd_event_source_disable_unref(t->watchdog_timer);
	if (t->owed_timer)
		sd_event_source_disable_unref(t->owed_timer);
	while (t->n_owed > 0)
		forget_first(t);
	fdstore_done(&t->to);
	free(t);
	return NULL;
}

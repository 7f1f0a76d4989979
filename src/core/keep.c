/* SPDX-License-Identifier: Apache-2.0 */
#include "core/keep.h"

#include <signal.h>

/* A daemon says READY as soon as it has started its workers, and asks for more time if need be. */
#define START_USEC (90 * USEC_PER_SEC)
#define EXTEND_MAX_USEC (24 * 60 * 60 * USEC_PER_SEC)
/* Between SIGABRT, which may leave a core, and SIGKILL. */
#define ABORT_USEC (5 * USEC_PER_SEC)
/* We ourselves did not run at a deadline, as in a container that was paused: neither did the
 * daemon. */
#define LATE_USEC (2 * USEC_PER_SEC)
#define SWEEP_USEC (10 * USEC_PER_SEC)
#define SWEEP_KILL_USEC (2 * USEC_PER_SEC)
/* So many starts have failed: try the old file too. */
enum { TRY_OLD_FILE_AFTER = 3 };

#define WAIT_MIN_USEC (100 * USEC_PER_MSEC)
#define WAIT_MAX_USEC (60 * USEC_PER_SEC)
/* One that lived that long, and so many times longer than it was waited for, is no crash loop. */
#define LIVED_USEC USEC_PER_SEC
enum { LIVED_TIMES = 10 };

void keep_init(struct keep *k, uint64_t watchdog_usec)
{
	*k = (struct keep){.state = KEEP_WAITING,
		.backoff = BACKOFF_NULL,
		.asked_watchdog_usec = watchdog_usec};
}

void keep_resume(
	struct keep *k, uint64_t asked_watchdog_usec, uint64_t watchdog_usec, uint64_t now_usec)
{
	keep_init(k, asked_watchdog_usec);
	k->state = KEEP_SERVING;
	k->ever_ready = k->is_ready = true;
	k->watchdog_usec = watchdog_usec;
	k->deadline_usec = watchdog_usec > 0 ? now_usec + watchdog_usec : USEC_INFINITY;
}

static bool runs(const struct keep *k)
{
	return k->state == KEEP_STARTING || k->state == KEEP_SERVING || k->state == KEEP_STOPPING;
}

static void end(struct keep *k, struct keep_effects *ret)
{
	k->state = KEEP_ENDED;
	k->deadline_usec = USEC_INFINITY;
	ret->drop = true;
	ret->end = true;
}

static void sweep(struct keep *k, uint64_t now_usec, struct keep_effects *ret)
{
	k->state = KEEP_SWEEPING;
	k->deadline_usec = now_usec + SWEEP_USEC;
	ret->note = KEEP_NOTE_SWEEP;
	ret->drop = true;
	ret->sweep = SIGTERM;
	k->aborting = SIGTERM;
}

static void sweep_now(struct keep *k, uint64_t now_usec, struct keep_effects *ret)
{
	k->deadline_usec = now_usec + SWEEP_KILL_USEC;
	ret->note = KEEP_NOTE_SWEEP_NOW;
	ret->sweep = SIGKILL;
	k->aborting = SIGKILL;
}

static void start(struct keep *k, uint64_t now_usec, struct keep_effects *ret)
{
	k->state = KEEP_STARTING;
	k->deadline_usec = now_usec + START_USEC;
	k->aborting = 0;
	k->is_ready = false;
	k->watchdog_usec = k->asked_watchdog_usec;
	ret->spawn = true;
	ret->old_file = k->n_failures >= TRY_OLD_FILE_AFTER && k->n_failures % 2 != 0;
}

static void failed(struct keep *k, uint64_t now_usec, struct keep_effects *ret)
{
	const struct backoff_policy policy = {.from_usec = WAIT_MIN_USEC,
		.to_usec = WAIT_MAX_USEC,
		.window_usec = MAX(LIVED_USEC, LIVED_TIMES * k->waited_usec)};

	ret->wait_usec = k->waited_usec =
		backoff_failed(&k->backoff, &policy, now_usec, k->is_ready, false);
	k->state = KEEP_WAITING;
	k->deadline_usec = now_usec + ret->wait_usec;
	ret->note = KEEP_NOTE_FAILED;
	ret->n_failures = ++k->n_failures;
}

static void exited(
	struct keep *k, const struct keep_event *e, uint64_t now_usec, struct keep_effects *ret)
{
	bool well = !e->killed && e->value == 0;

	/* As a shell, and so whoever runs containers, says it. */
	k->exit_status = (int)e->value + (e->killed ? 128 : 0);
	if (k->told || (well && !e->holds)) {
		if (well && !e->holds)
			end(k, ret);
		else
			sweep(k, now_usec, ret);
	} else if (well && k->is_ready) {
		k->state = KEEP_WAITING;
		k->deadline_usec = now_usec;
		ret->note = KEEP_NOTE_DETACHED;
	} else if (k->state == KEEP_STOPPING && !well) {
		sweep(k, now_usec, ret);
	} else if (!k->ever_ready && !e->holds) {
		end(k, ret);
	} else {
		failed(k, now_usec, ret);
	}
}

static void abort_daemon(struct keep *k, uint64_t now_usec, struct keep_effects *ret)
{
	bool again = k->aborting != 0;

	k->aborting = again ? SIGKILL : SIGABRT;
	k->deadline_usec = now_usec + ABORT_USEC;
	ret->signal = k->aborting;
	ret->note = again ? KEEP_NOTE_KILLED : KEEP_NOTE_HUNG;
}

static void due(struct keep *k, uint64_t now_usec, struct keep_effects *ret)
{
	switch (k->state) {
	case KEEP_WAITING:
		start(k, now_usec, ret);
		break;
	case KEEP_STARTING:
	case KEEP_SERVING:
	case KEEP_STOPPING:
		if (now_usec - k->deadline_usec > LATE_USEC && !k->aborting)
			k->deadline_usec =
				now_usec + (k->state == KEEP_STARTING || k->watchdog_usec == 0
							   ? START_USEC
							   : k->watchdog_usec);
		else
			abort_daemon(k, now_usec, ret);
		break;
	case KEEP_SWEEPING:
		/* What even that does not end is in the kernel, and not ours to wait for. */
		if (k->aborting == SIGKILL)
			end(k, ret);
		else
			sweep_now(k, now_usec, ret);
		break;
	case KEEP_ENDED:
		break;
	}
}

static bool is_end(uint64_t signal)
{
	return signal == SIGTERM || signal == SIGINT || signal == SIGQUIT;
}

static void signalled(struct keep *k, int number, uint64_t now_usec, struct keep_effects *ret)
{
	bool ends = is_end((uint64_t)number);

	/* By then it would die of it. */
	if (!ends && k->state == KEEP_STARTING) {
		k->later = number;
		return;
	}
	if (runs(k)) {
		ret->signal = number;
		if (!ends)
			return;
		k->told = true;
		/* The time for its start is no bound for its stop. */
		if (k->state == KEEP_STARTING && !k->aborting)
			k->deadline_usec = USEC_INFINITY;
		k->state = KEEP_STOPPING;
		return;
	}
	if (!ends) {
		ret->note = k->state == KEEP_WAITING ? KEEP_NOTE_NO_DAEMON : KEEP_NOTE_NONE;
		return;
	}
	k->told = true;
	if (k->state == KEEP_WAITING) {
		/* Nobody is there who could stop them in their way. */
		if (k->exit_status == 0)
			k->exit_status = 128 + number;
		sweep(k, now_usec, ret);
	} else if (k->state == KEEP_SWEEPING && k->aborting != SIGKILL) {
		sweep_now(k, now_usec, ret);
	}
}

/* Once it has been heard of, its silence means something. */
static void watch(struct keep *k, uint64_t now_usec)
{
	if (k->aborting || (k->state != KEEP_SERVING && k->state != KEEP_STOPPING))
		return;
	k->deadline_usec = k->watchdog_usec > 0 ? now_usec + k->watchdog_usec : USEC_INFINITY;
}

static void ready(struct keep *k, struct keep_effects *ret)
{
	if (k->state != KEEP_STARTING || k->aborting)
		return;
	k->state = KEEP_SERVING;
	k->deadline_usec = USEC_INFINITY;
	k->ever_ready = k->is_ready = true;
	ret->signal = k->later;
	k->later = 0;
	if (k->n_failures > 0) {
		ret->note = KEEP_NOTE_RECOVERED;
		ret->n_failures = k->n_failures;
	}
	k->n_failures = 0;
}

/* What the daemon says of itself. */
static void said(
	struct keep *k, const struct keep_event *e, uint64_t now_usec, struct keep_effects *ret)
{
	if (!runs(k))
		return;
	switch (e->kind) {
	case KEEP_READY:
		ready(k, ret);
		break;
	case KEEP_SAYS_STOPPING:
		if (k->state == KEEP_STARTING && !k->aborting)
			k->deadline_usec = USEC_INFINITY;
		k->state = KEEP_STOPPING;
		break;
	case KEEP_WATCHDOG:
		k->watchdog_usec = e->value == USEC_INFINITY ? 0 : MIN(e->value, EXTEND_MAX_USEC);
		watch(k, now_usec);
		break;
	case KEEP_ALIVE:
		watch(k, now_usec);
		break;
	case KEEP_HUNG:
		if (!k->aborting)
			abort_daemon(k, now_usec, ret);
		break;
	case KEEP_EXTEND:
		if (k->state == KEEP_STARTING && !k->aborting)
			k->deadline_usec =
				MAX(k->deadline_usec, now_usec + MIN(e->value, EXTEND_MAX_USEC));
		break;
	case KEEP_TIME:
	case KEEP_SPAWN_FAILED:
	case KEEP_EXITED:
	case KEEP_SIGNAL:
	case KEEP_ALONE:
		break;
	}
}

void keep_step(
	struct keep *k, const struct keep_event *e, uint64_t now_usec, struct keep_effects *ret)
{
	*ret = (struct keep_effects){.note = KEEP_NOTE_NONE};
	switch (e->kind) {
	case KEEP_TIME:
		if (now_usec >= k->deadline_usec)
			due(k, now_usec, ret);
		break;
	case KEEP_SPAWN_FAILED:
		k->exit_status = EXIT_FAILURE;
		if (!k->ever_ready && !e->holds)
			end(k, ret);
		else if (k->state == KEEP_STARTING)
			failed(k, now_usec, ret);
		break;
	case KEEP_EXITED:
		if (runs(k))
			exited(k, e, now_usec, ret);
		break;
	case KEEP_SIGNAL:
		signalled(k, (int)e->value, now_usec, ret);
		break;
	case KEEP_ALONE:
		if (k->state == KEEP_SWEEPING)
			end(k, ret);
		break;
	case KEEP_READY:
	case KEEP_SAYS_STOPPING:
	case KEEP_ALIVE:
	case KEEP_HUNG:
	case KEEP_WATCHDOG:
	case KEEP_EXTEND:
		said(k, e, now_usec, ret);
		break;
	}
}

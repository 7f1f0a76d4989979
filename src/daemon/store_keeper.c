/* SPDX-License-Identifier: Apache-2.0 */
/* What the keeper is told. It may have other things to do, or be stopped: then it is told later,
 * and the event loop does not wait for it. */
#include "base/clock.h"
#include "daemon/log.h"
#include "daemon/store_internal.h"

/* A keeper that reads is given the moment that it takes, so that what is stored is stored before it
 * is acted on: the queue of a socket may have room for ten messages only (net.unix.max_dgram_qlen).
 * So much in a second, and when that was not enough nothing any more until it has read everything.
 */
#define PATIENCE_USEC (50 * USEC_PER_MSEC)
#define RETRY_FROM_USEC (2 * USEC_PER_MSEC)
#define RETRY_TO_USEC (500 * USEC_PER_MSEC)
#define BARRIER_USEC USEC_PER_SEC
#define BARRIER_AGAIN_USEC (30 * USEC_PER_SEC)
#define SETTLE_USEC (2 * USEC_PER_SEC)
#define END_USEC (250 * USEC_PER_MSEC)

void store_keeper_failed(struct store *s, int r)
{
	if (!s->failed)
		log_error("the keeper does not take our descriptors (%s): what cannot be stored "
			  "does not survive if this process is killed",
			strerror(-r));
	s->failed = true;
}

static bool is_behind(const struct store *s)
{
	return s->n_unsent + s->n_removals > 0;
}

/* May be waited for it once more? */
static bool wait_for_room(struct store *s)
{
	uint64_t now = monotonic_usec();
	bool room;

	if (is_behind(s))
		return false;
	if (now >= s->patience_until_usec) {
		s->patience_until_usec = now + USEC_PER_SEC;
		s->patience_usec = PATIENCE_USEC;
	}
	if (s->patience_usec == 0)
		return false;
	room = fdstore_wait(&s->keeper, s->patience_usec) >= 0;
	s->patience_usec -= MIN(s->patience_usec, monotonic_usec() - now);
	return room;
}

static void arm(struct store *s, uint64_t usec)
{
	s->retry_usec = usec;
	if (!s->retry_timer)
		return;
	(void)sd_event_source_set_time_relative(s->retry_timer, usec);
	(void)sd_event_source_set_enabled(s->retry_timer, SD_EVENT_ONESHOT);
}

/* Before the first of those that are told later. */
static void begin_later(struct store *s)
{
	if (is_behind(s))
		return;
	log_warning("the keeper does not read what it is told; trying again");
	arm(s, RETRY_FROM_USEC);
}

static int tell_entry(struct store *s, int fd)
{
	char name[STORE_NAME_MAX];

	store_format_name(s->by_fd[fd].kind, s->by_fd[fd].number, name);
	return fdstore_push(&s->keeper, fd, name);
}

int store_push(struct store *s, int fd)
{
	int r = is_behind(s) ? -EAGAIN : tell_entry(s, fd);

	while (r == -EAGAIN && wait_for_room(s))
		r = tell_entry(s, fd);
	if (r != -EAGAIN)
		return r;
	begin_later(s);
	s->by_fd[fd].unsent = true;
	s->n_unsent++;
	return 0;
}

static int tell_removal(struct store *s, enum stored kind, unsigned number)
{
	char name[STORE_NAME_MAX];

	store_format_name(kind, number, name);
	return fdstore_remove(&s->keeper, name);
}

/* It must not be lost: what is held under a name that nobody knows is ended by the next daemon, and
 * it may be one that is in use. */
int store_push_removal(struct store *s, enum stored kind, unsigned number)
{
	int r = is_behind(s) ? -EAGAIN : tell_removal(s, kind, number);

	while (r == -EAGAIN && wait_for_room(s))
		r = tell_removal(s, kind, number);
	if (r != -EAGAIN)
		return r;
	if (array_reserve(&s->removals, &s->removals_capacity, s->n_removals + 1,
		    sizeof(*s->removals)) < 0)
		return -ENOMEM;
	begin_later(s);
	s->removals[s->n_removals++] = (struct store_removal){kind, number};
	return 0;
}

static void catch_up_removals(struct store *s)
{
	size_t n = 0;

	while (n < s->n_removals &&
		tell_removal(s, s->removals[n].kind, s->removals[n].number) != -EAGAIN)
		n++;
	if (n == 0)
		return;
	s->n_removals -= n;
	memmove(s->removals, s->removals + n, s->n_removals * sizeof(*s->removals));
}

static void catch_up_unsent(struct store *s)
{
	for (size_t fd = 0; s->n_unsent > 0 && fd < s->by_fd_capacity; fd++) {
		if (!s->by_fd[fd].unsent)
			continue;
		if (tell_entry(s, (int)fd) == -EAGAIN)
			return;
		s->by_fd[fd].unsent = false;
		s->n_unsent--;
	}
}

void store_catch_up(struct store *s)
{
	if (!s || s->keeper.fd < 0 || !is_behind(s))
		return;
	/* First what makes room. */
	catch_up_removals(s);
	if (s->n_removals == 0)
		catch_up_unsent(s);
}

static void catch_up_for(struct store *s, uint64_t usec)
{
	uint64_t until = monotonic_usec() + usec, now;

	store_catch_up(s);
	while (is_behind(s) && (now = monotonic_usec()) < until &&
		fdstore_wait(&s->keeper, until - now) >= 0)
		store_catch_up(s);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct store *s = userdata;
	size_t before = s->n_unsent + s->n_removals;
	bool reads;

	(void)source;
	(void)usec;
	store_catch_up(s);
	reads = s->n_unsent + s->n_removals < before;
	if (is_behind(s))
		arm(s, reads ? RETRY_FROM_USEC : MIN(2 * s->retry_usec, RETRY_TO_USEC));
	return 0;
}

int store_watch(struct store *s, sd_event *event)
{
	int r;

	if (!s || s->keeper.fd < 0)
		return 0;
	r = sd_event_add_time_relative(
		event, &s->retry_timer, CLOCK_MONOTONIC, RETRY_FROM_USEC, 0, on_retry, s);
	return r < 0 || is_behind(s) ? r
				     : sd_event_source_set_enabled(s->retry_timer, SD_EVENT_OFF);
}

void store_barrier(struct store *s)
{
	uint64_t now = monotonic_usec();
	int r;

	if (!s || s->keeper.fd < 0)
		return;
	store_catch_up(s);
	/* It would only be waited for what it was told. And one that did not answer just now is not
	 * asked again at once: everything else would wait, again and again. */
	if (is_behind(s) || now < s->barrier_again_usec)
		return;
	r = fdstore_barrier(&s->keeper, BARRIER_USEC);
	if (r >= 0)
		return;
	s->barrier_again_usec = now + BARRIER_AGAIN_USEC;
	log_warning("the keeper was not done with what it is to close within %u s (%s): an address "
		    "that was just given up may be in use for a moment longer",
		(unsigned)(BARRIER_USEC / USEC_PER_SEC), strerror(-r));
}

int store_settle(struct store *s)
{
	int r;

	if (!s || s->keeper.fd < 0)
		return -ENOTCONN;
	catch_up_for(s, SETTLE_USEC);
	r = fdstore_barrier(&s->keeper, SETTLE_USEC);
	return r == -EAGAIN || r == -ETIMEDOUT ? -ETIMEDOUT : r;
}

void store_end_backlog(struct store *s)
{
	if (s->keeper.fd >= 0)
		catch_up_for(s, END_USEC);
}

/* An order of its own: what was to be told before is. */
int store_tell(struct store *s, const char *text, int fd)
{
	if (!s || s->keeper.fd < 0)
		return -ENOTCONN;
	store_end_backlog(s);
	return is_behind(s) ? -EAGAIN : fdstore_tell_with(&s->keeper, text, fd);
}

void store_end_keeper(struct store *s)
{
	store_end_backlog(s);
	if (s->retry_timer)
		sd_event_source_disable_unref(s->retry_timer);
	s->retry_timer = NULL;
	fdstore_done(&s->keeper);
}

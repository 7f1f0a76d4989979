/* SPDX-License-Identifier: Apache-2.0 */
/* The measured share. A connection is known by its socket's inode, which is not used again for
 * four thousand million sockets; while it waits in a queue it has none, and is known by the
 * kernel's cookie. What is counted is a sample: those that were alive at the moment of a look. */
#include "daemon/connections_internal.h"
#include "daemon/connections_walk.h"
#include "daemon/follow.h"
#include "daemon/log.h"
#include "sys/listen.h"

/* Between two looks; more where looking takes long, so that it takes a twentieth of the time. */
#define LOOK_USEC (250 * USEC_PER_MSEC)
#define TIME_PER_LOOK 20
#define TELL_USEC (USEC_PER_SEC - LOOK_USEC / 2)

/* Cookies count from 1; bit 63 keeps them apart from inodes. */
#define COOKIE_BIT (UINT64_C(1) << 63)

/* In the map. */
enum { ALREADY_COUNTED = 1, TO_BE_COUNTED = 2 };

void measure_begin(struct manager_service *s)
{
	struct connection_measure *m = &s->connections->measure;

	idmap_done(&m->now);
	m->now_epoch = m->epoch;
}

/* When it is somebody's, does it count? */
static bool is_new(const struct connection_measure *m, const struct sockdiag_entry *e)
{
	const uint64_t *before;

	/* The first look after a change: they may have come before it. */
	if (!m->has_base)
		return false;
	before = e->inode ? idmap_find(&m->before, e->inode) : NULL;
	if (!before)
		before = idmap_find(&m->before, e->cookie | COOKIE_BIT);
	return !before || *before == TO_BE_COUNTED;
}

/* Of one that waits in a queue, or that is not looked at at the moment when a worker has it: by
 * what its socket was told about the lane. Connections that are soon over are hardly met otherwise.
 */
static unsigned generation_by_tag(const struct manager_service *s, const struct sockdiag_entry *e)
{
	unsigned found = 0;

	for (size_t i = 0; i < s->core.n_generations; i++) {
		const struct generation *g = s->core.generations[i];

		if (e->tag < 0 || g->lane == LANE_NONE || g->weight == 0 ||
			g->lane % LISTEN_TAGS != (unsigned)e->tag)
			continue;
		if (found != 0)
			return 0;
		found = g->number;
	}
	return found;
}

void measure_take(struct manager_service *s, unsigned generation, const struct sockdiag_entry *e)
{
	struct connection_measure *m = &s->connections->measure;
	bool fresh;
	uint64_t *value;

	if (m->n_shares < 2 || m->now_epoch != m->epoch)
		return;
	fresh = is_new(m, e);
	if (generation == 0)
		generation = generation_by_tag(s, e);
	if (idmap_add(&m->now, e->inode ? e->inode : e->cookie | COOKIE_BIT, &value) < 0)
		return;
	*value = fresh ? TO_BE_COUNTED : ALREADY_COUNTED;
	if (!fresh || generation == 0)
		return;
	*value = ALREADY_COUNTED;
	for (size_t i = 0; i < m->n_shares; i++)
		if (m->shares[i].generation == generation) {
			m->shares[i].n_seen++;
			m->n_seen++;
		}
}

bool connections_measured(
	const struct manager_service *s, unsigned generation, unsigned *ret_n, unsigned *ret_of)
{
	const struct connection_measure *m = s->connections ? &s->connections->measure : NULL;

	if (!m || m->n_shares < 2)
		return false;
	*ret_n = 0;
	for (size_t i = 0; i < m->n_shares; i++)
		if (m->shares[i].generation == generation)
			*ret_n = m->shares[i].n_seen;
	*ret_of = m->n_seen;
	return true;
}

static char *add_share(char *text, const struct manager_service *s, const struct generation *g)
{
	int n = connections_of_generation(s, g->number);
	_cleanup_free_ char *before = text, *measured = NULL, *count = NULL;
	unsigned seen, of;

	if (connections_measured(s, g->number, &seen, &of) && of > 0)
		measured = xasprintf(" (%.1f%% of %u seen)", 100.0 * seen / of, of);
	if (n >= 0)
		count = xasprintf(", %d connection%s", n, n == 1 ? "" : "s");
	return xasprintf("%s%s generation %u: %.4g%%%s%s", before ? before : "", before ? ";" : "",
		g->number, (double)g->weight / 100.0, measured ? measured : "", count ? count : "");
}

/* To those who watch just now; it is not kept, and takes no number of its own. */
static void tell(struct manager_service *s)
{
	_cleanup_free_ char *text = NULL, *message = NULL;
	struct manager_event e = {.sequence = s->manager->next_sequence - 1,
		.at_usec = realtime_now(),
		.service = s->name,
		.generation = s->core.rollout.to,
		.worker = NO_WORKER,
		.event = "traffic"};

	for (size_t i = 0; i < s->core.n_generations; i++)
		text = add_share(TAKE_PTR(text), s, s->core.generations[i]);
	message = text ? xasprintf("%s:%s", s->name, text) : NULL;
	if (!message)
		return;
	e.message = message;
	e.traffic_of = s;
	control_event(s->manager, &e);
	followers_traffic(s);
}

void measure_end(struct manager_service *s, bool complete)
{
	struct connection_measure *m = &s->connections->measure;
	uint64_t now = walk_now();

	/* When the shares have changed meanwhile it is good for nothing, and may be large. And whom
	 * it has not met would be new at the next. */
	if (m->now_epoch != m->epoch || !complete) {
		idmap_done(&m->now);
	} else {
		idmap_done(&m->before);
		m->before = m->now;
		memset(&m->now, 0, sizeof(m->now));
		m->has_base = true;
	}
	if (!rollout_is_open(&s->core.rollout) || s->core.rollout.from == 0 ||
		now - m->told_usec < TELL_USEC)
		return;
	m->told_usec = now;
	tell(s);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct manager_service *s = userdata;
	uint64_t took = s->connections->took_usec;
	int r;

	(void)usec;
	connections_want_now(s);
	r = sd_event_source_set_time_relative(source, MAX(LOOK_USEC, TIME_PER_LOOK * took));
	if (r >= 0)
		r = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	if (r < 0)
		log_error("%s: shares are not measured: %s", s->name, strerror(-r));
	return 0;
}

static void watch(struct manager_service *s)
{
	struct connection_measure *m = &s->connections->measure;
	int r = 0, enabled = SD_EVENT_OFF;

	if (!m->timer) {
		r = sd_event_add_time_relative(s->manager->event, &m->timer, CLOCK_MONOTONIC,
			LOOK_USEC, LOOK_USEC / 10, on_timer, s);
		if (r >= 0)
			r = sd_event_source_set_priority(m->timer, PRIORITY_OUTPUT);
	} else if (sd_event_source_get_enabled(m->timer, &enabled) == 0) {
		r = sd_event_source_set_time_relative(m->timer, LOOK_USEC);
		if (r >= 0)
			r = sd_event_source_set_enabled(m->timer, SD_EVENT_ONESHOT);
	}
	if (r < 0)
		log_error("%s: shares are not measured: %s", s->name, strerror(-r));
}

/* Who has a share now. True: not the same as before. */
static bool take_shares(const struct service *core, struct connection_measure *m)
{
	struct connection_share shares[ARRAY_SIZE(m->shares)];
	size_t n = 0;
	bool same;

	for (size_t i = 0; i < core->n_generations && n < ARRAY_SIZE(shares); i++)
		if (core->generations[i]->weight > 0)
			shares[n++] = (struct connection_share){
				core->generations[i]->number, core->generations[i]->weight, 0};
	same = n == m->n_shares;
	for (size_t i = 0; same && i < n; i++)
		same = shares[i].generation == m->shares[i].generation &&
		       shares[i].weight == m->shares[i].weight;
	if (!same) {
		memcpy(m->shares, shares, n * sizeof(shares[0]));
		m->n_shares = n;
	}
	return !same;
}

void connections_shares_changed(struct manager_service *s)
{
	bool open = rollout_is_open(&s->core.rollout) && s->core.rollout.from != 0;
	struct connection_measure *m;

	if (!s->manager->counter || (!open && !s->connections))
		return;
	if (!s->connections)
		s->connections = calloc(1, sizeof(*s->connections));
	if (!s->connections)
		return;
	m = &s->connections->measure;
	if (take_shares(&s->core, m)) {
		m->epoch++;
		m->n_seen = 0;
		m->has_base = false;
		idmap_done(&m->before);
		if (m->n_shares > 1)
			connections_want_now(s);
	}
	if (open)
		watch(s);
	else if (m->timer)
		(void)sd_event_source_set_enabled(m->timer, SD_EVENT_OFF);
}

void measure_done(struct connection_measure *m)
{
	if (m->timer)
		sd_event_source_disable_unref(m->timer);
	idmap_done(&m->before);
	idmap_done(&m->now);
}

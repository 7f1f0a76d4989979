/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/connections_internal.h"
#include "daemon/connections_walk.h"
#include "daemon/control_methods.h"
#include "daemon/log.h"
#include "daemon/worker_process.h"

/* A piece of work; two may come together, and each ends when its time is over. */
#define PIECE_USEC (1 * USEC_PER_MSEC)
/* A loop that always has something better to do does a piece all the same. */
#define PAUSE_MAX_USEC (20 * USEC_PER_MSEC)
/* A count that takes longer is used again, for eight times as long. */
#define DEAR_USEC (10 * USEC_PER_MSEC)
#define AGE_PER_COST 8
#define AGE_MAX_USEC (2 * USEC_PER_SEC)
#define KNOWN_FOR_USEC (10 * USEC_PER_SEC)

struct connection_counter {
	struct manager *manager;
	struct walk *walk;		   /* under way; NULL: none */
	struct manager_service **services; /* of the walk, by its index; NULL: gone meanwhile */
	size_t n_services, services_capacity;
	bool backwards;
	sd_event_source *idle, *at_last;
};

static struct connections *of(struct manager_service *s)
{
	if (!s->connections)
		s->connections = calloc(1, sizeof(*s->connections));
	return s->connections;
}

/* --- beginning ---------------------------------------------------------------------------- */

static bool is_asked_for(const struct connections *c)
{
	if (!c)
		return false;
	for (size_t i = 0; i < c->n_asks; i++)
		if (!c->asks[i].taken)
			return true;
	return c->wanted;
}

static bool anything_asked_for(const struct connection_counter *c)
{
	for (size_t i = 0; i < c->manager->n_services; i++)
		if (is_asked_for(c->manager->services[i]->connections))
			return true;
	return false;
}

static int add_worker(
	struct walk *w, struct manager_service *s, unsigned generation, unsigned index)
{
	const struct worker_process *p = manager_service_worker(s, generation, index);

	return p && p->pid > 0 ? walk_add_target(w, generation, index, p->pid) : 0;
}

static int add_all_workers(struct walk *w, struct manager_service *s)
{
	for (size_t i = 0; i < s->n_generations; i++)
		for (unsigned k = 0; k < s->generations[i]->n_workers; k++) {
			int r = add_worker(w, s, s->generations[i]->number, k);

			if (r < 0)
				return r;
		}
	return 0;
}

static int add_service(struct connection_counter *c, struct walk *w, struct manager_service *s)
{
	struct connections *of_s = s->connections;
	int r;

	r = array_reserve(&c->services, &c->services_capacity, c->n_services + 1, sizeof(s));
	if (r >= 0)
		r = walk_add_service(w, s);
	if (r < 0)
		return r;
	c->services[c->n_services++] = s;
	of_s->counting = of_s->wanted;
	of_s->wanted = false;
	for (size_t i = 0; i < of_s->n_asks; i++)
		of_s->asks[i].taken = true;
	if (of_s->counting) {
		w->nobodys |= of_s->measure.n_shares > 1;
		measure_begin(s);
		return add_all_workers(w, s);
	}
	for (size_t i = 0; r >= 0 && i < of_s->n_asks; i++)
		r = add_worker(w, s, of_s->asks[i].generation, of_s->asks[i].worker);
	return r;
}

static void on_connection(size_t service, const struct walk_target *target,
	const struct sockdiag_entry *e, void *userdata)
{
	const struct connection_counter *c = userdata;
	struct manager_service *s = c->services[service];

	if (s && s->connections->counting)
		measure_take(s, target ? target->generation : 0, e);
}

static int begin(struct connection_counter *c)
{
	_cleanup_walk_ struct walk *w = NULL;

	c->n_services = 0;
	c->backwards = !c->backwards;
	w = walk_new(walk_now(), c->backwards, on_connection, c);
	if (!w)
		return -ENOMEM;
	for (size_t i = 0; i < c->manager->n_services; i++) {
		struct manager_service *s = c->manager->services[i];
		int r = is_asked_for(s->connections) ? add_service(c, w, s) : 0;

		if (r < 0)
			return r;
	}
	c->walk = TAKE_PTR(w);
	return 0;
}

/* --- ending ------------------------------------------------------------------------------- */

static int count_of(const struct walk *w, const struct walk_target *t)
{
	return t->error < 0 || !walk_can_know(w, t->service) ? -1 : (int)MIN(t->n, INT32_MAX);
}

static void keep_counts(struct connections *c, const struct walk *w, size_t service)
{
	c->n_counts = 0;
	for (size_t i = 0; i < w->n_targets; i++) {
		const struct walk_target *t = &w->targets[i];

		if (t->service != service || array_reserve(&c->counts, &c->counts_capacity,
						     c->n_counts + 1, sizeof(*c->counts)) < 0)
			continue;
		c->counts[c->n_counts++] =
			(struct connection_count){t->generation, t->worker, t->pid, count_of(w, t)};
	}
	c->counted_usec = w->started_usec;
	c->took_usec = w->busy_usec;
}

/* What the walk says of one worker; one that had no process has no connections. */
static unsigned answer_to(const struct walk *w, size_t service, const struct connection_ask *ask)
{
	for (size_t i = 0; i < w->n_targets; i++) {
		const struct walk_target *t = &w->targets[i];

		if (t->service == service && t->generation == ask->generation &&
			t->worker == ask->worker)
			return t->error < 0 ? COUNT_UNKNOWN : t->n;
	}
	return 0;
}

static void answer_asks(struct manager_service *s, const struct walk *w, size_t service)
{
	struct connections *c = s->connections;

	/* The answers may bring new asks. */
	for (size_t i = 0; i < c->n_asks;) {
		struct connection_ask ask = c->asks[i];
		struct service_event e = {.kind = EVENT_CONNECTIONS,
			.generation = ask.generation,
			.worker = ask.worker};

		if (!ask.taken) {
			i++;
			continue;
		}
		c->asks[i] = c->asks[--c->n_asks];
		e.value = answer_to(w, service, &ask);
		(void)manager_service_event(s, &e);
	}
}

static void end_service(struct connection_counter *c, size_t service)
{
	struct manager_service *s = c->services[service];

	if (s->connections->counting) {
		s->connections->counting = false;
		keep_counts(s->connections, c->walk, service);
		measure_end(s, c->walk->error >= 0);
	}
	answer_asks(s, c->walk, service);
}

static void end(struct connection_counter *c)
{
	struct walk *w = c->walk;
	size_t n = 0;

	for (size_t i = 0; i < w->n_targets; i++)
		n += w->targets[i].n;
	log_debug("%zu connections of %zu workers counted by %.1f ms of work within %.1f ms, at "
		  "most %.1f ms at a time",
		n, w->n_targets, (double)w->busy_usec / 1e3,
		(double)(walk_now() - w->started_usec) / 1e3, (double)w->longest_usec / 1e3);
	/* No other walk begins before this one is forgotten. */
	for (size_t i = 0; i < c->n_services; i++)
		if (c->services[i])
			end_service(c, i);
	c->walk = walk_free(w);
	c->n_services = 0;
	control_list_counted(c->manager);
}

static void give_up(struct connection_counter *c)
{
	/* Without memory nobody gets an answer; those who need one ask again. */
	for (size_t i = 0; i < c->manager->n_services; i++) {
		struct connections *of_s = c->manager->services[i]->connections;

		if (!of_s)
			continue;
		of_s->wanted = of_s->counting = false;
		of_s->n_asks = 0;
	}
	c->n_services = 0;
	control_list_counted(c->manager);
}

/* --- the work ----------------------------------------------------------------------------- */

static void schedule(struct connection_counter *c)
{
	bool busy = c->walk || anything_asked_for(c);
	int r = 0;

	if (busy)
		r = sd_event_source_set_time_relative(c->at_last, PAUSE_MAX_USEC);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->at_last, busy ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->idle, busy ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
	if (r < 0)
		log_error("connections cannot be counted: %s", strerror(-r));
}

/* False: there is nothing to do. */
static bool piece(struct connection_counter *c, uint64_t usec)
{
	if (!c->walk) {
		if (!anything_asked_for(c))
			return false;
		if (begin(c) < 0) {
			give_up(c);
			return false;
		}
	}
	if (walk_run(c->walk, usec))
		end(c);
	return true;
}

static int on_idle(sd_event_source *source, void *userdata)
{
	(void)source;
	(void)piece(userdata, PIECE_USEC);
	schedule(userdata);
	return 0;
}

static int on_at_last(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)usec;
	return on_idle(source, userdata);
}

void connections_run(struct manager *m, uint64_t usec)
{
	uint64_t begun = walk_now(), now = begun;

	if (!m->counter)
		return;
	while (now - begun < usec && piece(m->counter, usec - (now - begun)))
		now = walk_now();
	schedule(m->counter);
}

int connections_counter_new(struct manager *m, struct connection_counter **ret)
{
	struct connection_counter *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->manager = m;
	r = sd_event_add_defer(m->event, &c->idle, on_idle, c);
	if (r >= 0)
		r = sd_event_source_set_priority(c->idle, PRIORITY_COUNT);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->idle, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(m->event, &c->at_last, CLOCK_MONOTONIC,
			PAUSE_MAX_USEC, USEC_PER_MSEC, on_at_last, c);
	if (r >= 0)
		r = sd_event_source_set_priority(c->at_last, PRIORITY_TIMER);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->at_last, SD_EVENT_OFF);
	if (r < 0) {
		connections_counter_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct connection_counter *connections_counter_free(struct connection_counter *c)
{
	if (!c)
		return NULL;
	if (c->idle)
		sd_event_source_disable_unref(c->idle);
	if (c->at_last)
		sd_event_source_disable_unref(c->at_last);
	walk_free(c->walk);
	free(c->services);
	free(c);
	return NULL;
}

void connections_forget(struct manager_service *s)
{
	struct connection_counter *counter = s->manager->counter;
	struct connections *c = s->connections;

	for (size_t i = 0; counter && i < counter->n_services; i++)
		if (counter->services[i] == s)
			counter->services[i] = NULL;
	if (!c)
		return;
	measure_done(&c->measure);
	free(c->asks);
	free(c->counts);
	free(c);
	s->connections = NULL;
}

/* --- asking ------------------------------------------------------------------------------- */

void connections_ask(struct manager_service *s, unsigned generation, unsigned worker)
{
	struct connections *c = s->manager->counter ? of(s) : NULL;

	if (!c)
		return;
	for (size_t i = 0; i < c->n_asks; i++)
		if (c->asks[i].generation == generation && c->asks[i].worker == worker)
			return;
	if (array_reserve(&c->asks, &c->asks_capacity, c->n_asks + 1, sizeof(*c->asks)) < 0)
		return;
	c->asks[c->n_asks++] = (struct connection_ask){generation, worker, false};
	schedule(s->manager->counter);
}

void connections_want_now(struct manager_service *s)
{
	struct connections *c = s->manager->counter ? of(s) : NULL;

	if (!c || s->n_generations == 0)
		return;
	c->wanted = true;
	schedule(s->manager->counter);
}

void connections_want(struct manager_service *s)
{
	const struct connections *c = s->connections;

	if (c && (c->counting || (c->took_usec > DEAR_USEC &&
					 walk_now() - c->counted_usec <=
						 MIN(AGE_PER_COST * c->took_usec, AGE_MAX_USEC))))
		return;
	connections_want_now(s);
}

bool connections_is_pending(const struct manager_service *s)
{
	return s->connections && (s->connections->wanted || s->connections->counting);
}

/* --- answers ------------------------------------------------------------------------------ */

int connections_of_worker(const struct manager_service *s, unsigned generation, unsigned worker)
{
	const struct worker_process *p = manager_service_worker(s, generation, worker);
	const struct connections *c = s->connections;

	if (!p || p->pid <= 0)
		return 0;
	if (!c || c->counted_usec == 0 || walk_now() - c->counted_usec > KNOWN_FOR_USEC)
		return -1;
	for (size_t i = 0; i < c->n_counts; i++)
		if (c->counts[i].generation == generation && c->counts[i].worker == worker &&
			c->counts[i].pid == p->pid)
			return c->counts[i].n;
	return -1;
}

int connections_of_generation(const struct manager_service *s, unsigned generation)
{
	const struct manager_generation *g = manager_service_generation(s, generation);
	int sum = 0;

	for (unsigned i = 0; g && i < g->n_workers; i++) {
		int n = connections_of_worker(s, generation, i);

		if (n < 0)
			return -1;
		sum += MIN(n, INT32_MAX - sum);
	}
	return sum;
}

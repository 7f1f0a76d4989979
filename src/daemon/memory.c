/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/memory.h"

#include "daemon/log.h"
#include "daemon/worker_process.h"
#include "sys/process.h"

#define LOOK_EVERY_USEC (2 * USEC_PER_SEC)
/* A look at many workers, or at many processes of one, is done in parts, between which the loop has
 * its turn. */
#define PART_USEC (2 * USEC_PER_MSEC)
#define NEXT_PART_USEC (1 * USEC_PER_MSEC)
/* To count what is shared takes a walk over all pages: not again so soon when it was harmless. */
#define EXACT_EVERY_USEC (30 * USEC_PER_SEC)

struct memory_watch {
	sd_event_source *timer;
	size_t next; /* the worker that is looked at next */
	/* An exact look at one worker, a process at a time. */
	unsigned generation, worker;
	pid_t pid;   /* its own; another one would be another worker */
	pid_t *pids; /* NULL: none is under way */
	size_t n_pids, at;
	uint64_t sum;
};

static uint64_t memory_of(pid_t pid)
{
	uint64_t bytes;

	return process_memory(pid, &bytes) < 0 ? 0 : bytes;
}

/* Without the right to know what is shared, all of it counts. */
static uint64_t share_of(pid_t pid)
{
	uint64_t bytes;

	return process_memory_share(pid, &bytes) < 0 ? memory_of(pid) : bytes;
}

static void judge(struct manager_service *s, struct worker_process *p, uint64_t bytes)
{
	struct service_event e = {.kind = EVENT_RECYCLE,
		.generation = p->generation,
		.worker = p->index,
		.reason = REASON_TOO_BIG};

	p->memory = bytes;
	/* Again each time: what stood in the way then may have gone. */
	if (bytes > s->config->recycle.memory && p->generation == s->core.current)
		(void)manager_service_event(s, &e);
}

static void end_exact(struct memory_watch *w)
{
	free(w->pids);
	w->pids = NULL;
}

static void go_on_exactly(struct manager_service *s)
{
	struct memory_watch *w = s->memory;
	struct worker_process *p = manager_service_worker(s, w->generation, w->worker);

	if (!p || p->pid != w->pid) {
		end_exact(w);
		return;
	}
	w->sum += share_of(w->pids[w->at++]);
	if (w->at < w->n_pids)
		return;
	end_exact(w);
	p->memory_exact_usec = manager_now(s->manager);
	judge(s, p, w->sum);
}

/* What several processes of one worker share is there once: where that matters it is looked at
 * exactly. */
static void look(struct manager_service *s, struct worker_process *p)
{
	uint64_t limit = s->config->recycle.memory, now = manager_now(s->manager), bytes = 0;
	struct memory_watch *w = s->memory;
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;

	if (worker_process_tree(p, &pids, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		bytes += memory_of(pids[i]);
	if (bytes <= limit || n <= 1) {
		judge(s, p, bytes);
		return;
	}
	if (p->memory_exact_usec != 0 && now - p->memory_exact_usec < EXACT_EVERY_USEC &&
		p->memory <= limit)
		return;
	w->generation = p->generation;
	w->worker = p->index;
	w->pid = p->pid;
	w->pids = TAKE_PTR(pids);
	w->n_pids = n;
	w->at = 0;
	w->sum = 0;
}

/* The i-th worker that runs, of all generations. */
static struct worker_process *nth_worker(const struct manager_service *s, size_t i)
{
	for (size_t k = 0; k < s->n_generations; k++) {
		const struct manager_generation *g = s->generations[k];

		for (unsigned n = 0; n < g->n_workers; n++)
			if (g->workers[n] && g->workers[n]->pid != 0 && i-- == 0)
				return g->workers[n];
	}
	return NULL;
}

/* False: all have been looked at. */
static bool step(struct manager_service *s)
{
	struct worker_process *p;

	if (s->memory->pids) {
		go_on_exactly(s);
		return true;
	}
	p = nth_worker(s, s->memory->next);
	s->memory->next = p ? s->memory->next + 1 : 0;
	if (p)
		look(s, p);
	return p != NULL;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct manager_service *s = userdata;
	uint64_t begun = manager_now(s->manager);
	bool more;

	(void)usec;
	do {
		more = step(s);
		/* What came of it may be another configuration. */
		if (!s->memory || s->memory->timer != source)
			return 0;
	} while (more && manager_now(s->manager) - begun <= PART_USEC);
	(void)sd_event_source_set_time_relative(source, more ? NEXT_PART_USEC : LOOK_EVERY_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void memory_watch_end(struct manager_service *s)
{
	struct memory_watch *w = s->memory;

	if (!w)
		return;
	s->memory = NULL;
	if (w->timer)
		sd_event_source_disable_unref(w->timer);
	end_exact(w);
	free(w);
}

void memory_watch(struct manager_service *s)
{
	int r = -ENOMEM;

	if (!s->config || s->config->recycle.memory == 0) {
		memory_watch_end(s);
		return;
	}
	if (s->memory)
		return;
	s->memory = calloc(1, sizeof(*s->memory));
	if (s->memory)
		r = sd_event_add_time_relative(s->manager->event, &s->memory->timer,
			CLOCK_MONOTONIC, LOOK_EVERY_USEC, 100 * USEC_PER_MSEC, on_timer, s);
	if (r >= 0)
		r = sd_event_source_set_priority(s->memory->timer, PRIORITY_OUTPUT);
	if (r >= 0)
		return;
	log_error("%s: the memory of its workers cannot be watched: %s", s->name, strerror(-r));
	memory_watch_end(s);
}

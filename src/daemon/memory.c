/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/memory.h"

#include "daemon/log.h"
#include "daemon/worker_process.h"
#include "sys/process.h"

#define LOOK_EVERY_USEC (2 * USEC_PER_SEC)
/* A look at many workers is done in parts, between which the loop has its turn. */
#define PART_USEC (2 * USEC_PER_MSEC)
#define NEXT_PART_USEC (1 * USEC_PER_MSEC)
/* To count what is shared takes a walk over all pages: not again so soon when it was harmless. */
#define EXACT_EVERY_USEC (30 * USEC_PER_SEC)

/* What several processes of one worker share is there once. Without the right to know, each counts
 * in full. */
static int family_memory(const struct worker_process *p, bool exact, uint64_t *ret)
{
	_cleanup_free_ pid_t *pids = NULL;
	uint64_t sum = 0, bytes;
	size_t n = 0;
	int r = worker_process_tree(p, &pids, &n);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		r = exact ? process_memory_share(pids[i], &bytes) : -ENODATA;
		if (r < 0)
			r = process_memory(pids[i], &bytes);
		if (r >= 0)
			sum += bytes;
	}
	*ret = sum;
	return (int)MIN(n, (size_t)INT32_MAX);
}

static void look(struct manager_service *s, struct worker_process *p)
{
	struct service_event e = {.kind = EVENT_RECYCLE,
		.generation = p->generation,
		.worker = p->index,
		.reason = REASON_TOO_BIG};
	uint64_t limit = s->config->recycle.memory, now = manager_now(s->manager), bytes;
	int n = family_memory(p, false, &bytes);

	if (n < 0)
		return;
	if (bytes > limit && n > 1) {
		if (p->memory_exact_usec != 0 && now - p->memory_exact_usec < EXACT_EVERY_USEC &&
			p->memory <= limit)
			return;
		if (family_memory(p, true, &bytes) < 0)
			return;
		p->memory_exact_usec = now;
	}
	p->memory = bytes;
	/* Again each time: what stood in the way then may have gone. */
	if (bytes > limit && p->generation == s->core.current)
		(void)manager_service_event(s, &e);
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

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct manager_service *s = userdata;
	uint64_t begun = manager_now(s->manager);
	struct worker_process *p;

	(void)usec;
	while ((p = nth_worker(s, s->memory_next))) {
		s->memory_next++;
		look(s, p);
		if (manager_now(s->manager) - begun > PART_USEC)
			break;
	}
	if (!p)
		s->memory_next = 0;
	(void)sd_event_source_set_time_relative(source, p ? NEXT_PART_USEC : LOOK_EVERY_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void memory_watch_end(struct manager_service *s)
{
	if (s->memory_timer)
		sd_event_source_disable_unref(s->memory_timer);
	s->memory_timer = NULL;
	s->memory_next = 0;
}

void memory_watch(struct manager_service *s)
{
	int r;

	if (!s->config || s->config->recycle.memory == 0) {
		memory_watch_end(s);
		return;
	}
	if (s->memory_timer)
		return;
	r = sd_event_add_time_relative(s->manager->event, &s->memory_timer, CLOCK_MONOTONIC,
		LOOK_EVERY_USEC, 100 * USEC_PER_MSEC, on_timer, s);
	if (r >= 0)
		r = sd_event_source_set_priority(s->memory_timer, PRIORITY_OUTPUT);
	if (r < 0)
		log_error("%s: the memory of its workers cannot be watched: %s", s->name,
			strerror(-r));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Who the strangers are. The kernel tells a socket's user, but not its process: that is found among
 * the descriptors of all processes, which can take a second. An upgrade does not wait for it: it is
 * done in small pieces when nothing else is to be done, for all of them at once; then they are
 * reported. */
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/state_save.h"
#include "sys/process.h"
#include "sys/user.h"

#define PIECE_USEC (1 * USEC_PER_MSEC)
/* So many descriptors are read between two looks at the clock. */
enum { DESCRIPTORS_AT_ONCE = 32 };

struct guard_search {
	struct process_search processes;
	sd_event_source *source;
};

static char *describe(const struct listener_foreign *f)
{
	_cleanup_free_ char *user = user_name_of(f->uid);

	if (f->pid > 0)
		return xasprintf("%s (pid %d, user %s)", f->program ? f->program : "a process",
			(int)f->pid, user ? user : "?");
	return xasprintf("a process of user %s", user ? user : "?");
}

static char *consequence(const struct listener *l, const struct listener_foreign *f)
{
	const char *what = l->config.address.kind == ADDRESS_TCP ? "connections" : "datagrams";

	if (!f->member)
		return xasprintf(
			"which is the more specific address: it gets the %s to it, not the service",
			what);
	if (l->kind == LISTENER_HELD)
		return xasprintf("too, and gets a part of the %s", what);
	return xasprintf("too: it gets no %s as long as tenured steers them", what);
}

static void report(struct listener *l, struct listener_foreign *f)
{
	_cleanup_free_ char *address = address_format(&f->address), *who = NULL, *so = NULL;
	struct manager_service *s = l->service;
	bool ours;

	f->reported = l->changed = true;
	state_save_later(s->manager);
	if (f->pid > 0 && process_name(f->pid, &f->program) < 0)
		f->program = NULL;
	who = describe(f);
	so = consequence(l, f);
	ours = f->pid > 0 && process_is_descendant(f->pid, getpid());
	manager_report(s->manager, s, 0, NO_WORKER, LOG_WARNING, "foreign-socket",
		"listener %s: %s%s has a socket of its own on %s, %s; %s", l->config.name,
		ours ? "one of its own processes, " : "", who ? who : "a process",
		address ? address : "?", so ? so : "too",
		ours ? "have it use the socket that it is given"
		     : "stop it, or have it listen elsewhere");
}

void listener_guard_report_gone(struct listener *l, const struct listener_foreign *f)
{
	_cleanup_free_ char *address = NULL, *who = NULL;

	if (!f->reported)
		return;
	address = address_format(&f->address);
	who = describe(f);
	manager_report(l->service->manager, l->service, 0, NO_WORKER, LOG_NOTICE,
		"foreign-socket-gone", "listener %s: %s has no socket on %s any more",
		l->config.name, who ? who : "a process", address ? address : "?");
}

static bool is_due(const struct listener_foreign *f)
{
	return !f->silent && !f->reported;
}

void listener_guard_report_end(struct listener *l)
{
	struct guard_search *search = l->guard.search;

	if (!search)
		return;
	l->guard.search = NULL;
	if (search->source)
		sd_event_source_disable_unref(search->source);
	process_search_end(&search->processes);
	free(search);
}

/* Who came while the search went on may have been missed by it. */
static void finish(struct listener *l)
{
	listener_guard_report_end(l);
	for (size_t i = 0; i < l->guard.n_foreign; i++) {
		struct listener_foreign *f = &l->guard.foreign[i];

		if (is_due(f) && (f->sought || f->pid > 0))
			report(l, f);
	}
	listener_guard_report(l);
}

static void take(struct listener_guard *g, pid_t pid, uint64_t inode)
{
	for (size_t i = 0; i < g->n_foreign; i++)
		if (is_due(&g->foreign[i]) && g->foreign[i].inode == inode &&
			g->foreign[i].pid == 0)
			g->foreign[i].pid = pid;
}

static bool all_found(const struct listener_guard *g)
{
	for (size_t i = 0; i < g->n_foreign; i++)
		if (is_due(&g->foreign[i]) && g->foreign[i].pid == 0)
			return false;
	return true;
}

/* True: it is over. */
static bool search_on(struct listener *l)
{
	for (unsigned i = 0; i < DESCRIPTORS_AT_ONCE; i++) {
		uint64_t inode;
		pid_t pid;

		if (process_search_next(&l->guard.search->processes, &pid, &inode) <= 0)
			return true;
		if (inode != 0)
			take(&l->guard, pid, inode);
	}
	return all_found(&l->guard);
}

static int on_search(sd_event_source *source, void *userdata)
{
	struct listener *l = userdata;
	uint64_t begun = manager_now(l->service->manager);
	bool over;

	do
		over = search_on(l);
	while (!over && manager_now(l->service->manager) - begun < PIECE_USEC);
	if (over || sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) < 0)
		finish(l);
	return 0;
}

static int begin(struct listener *l)
{
	struct guard_search *search = calloc(1, sizeof(*search));
	int r;

	if (!search)
		return -ENOMEM;
	r = process_search_begin(&search->processes);
	if (r < 0) {
		free(search);
		return r;
	}
	l->guard.search = search;
	r = sd_event_add_defer(l->service->manager->event, &search->source, on_search, l);
	if (r >= 0)
		r = sd_event_source_set_priority(search->source, PRIORITY_COUNT);
	if (r < 0)
		listener_guard_report_end(l);
	return r;
}

void listener_guard_report(struct listener *l)
{
	struct listener_guard *g = &l->guard;
	bool any = false;

	if (g->search)
		return;
	for (size_t i = 0; i < g->n_foreign; i++)
		any |= g->foreign[i].sought = is_due(&g->foreign[i]);
	if (!any || begin(l) >= 0)
		return;
	/* Then without their processes. */
	for (size_t i = 0; i < g->n_foreign; i++)
		if (is_due(&g->foreign[i]))
			report(l, &g->foreign[i]);
}

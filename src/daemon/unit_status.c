/* SPDX-License-Identifier: Apache-2.0 */
/* One line for `systemctl status`: what is wrong first, then what moves, then the rest. */
#include <stdarg.h>

#include "base/buffer.h"
#include "base/parse.h"
#include "daemon/manager.h"
#include "daemon/unit.h"

/* More services than that are counted. */
enum { NAMED_MAX = 4 };

/* The first of these that is true of a service decides where it stands. */
enum rank { RANK_FAILING, RANK_MOVING, RANK_FAILED_ONCE, RANK_SERVING, RANK_STOPPED, N_RANKS };

static bool has_failed(const struct manager_service *s)
{
	return s->failure.at_usec != 0 && s->failure.generation > s->core.current;
}

static enum rank rank_of(const struct manager_service *s)
{
	if (s->core.stopping)
		return RANK_MOVING;
	switch (service_state(&s->core)) {
	case SERVICE_FAILING:
		return RANK_FAILING;
	case SERVICE_STARTING:
	case SERVICE_UPGRADING:
		return RANK_MOVING;
	case SERVICE_SERVING:
		return has_failed(s) ? RANK_FAILED_ONCE : RANK_SERVING;
	case SERVICE_STOPPED:
		return RANK_STOPPED;
	}
	return RANK_STOPPED;
}

/* ": exited before it was ready (exit status 3)", or "". The caller frees. */
static char *why(const struct manager_service *s)
{
	const struct failure *f = &s->failure;

	if (f->at_usec == 0 || !f->reason)
		return strdup("");
	return xasprintf(": %s%s%s%s", f->reason, f->status ? " (" : "", f->status ? f->status : "",
		f->status ? ")" : "");
}

static char *describe_rollout(const struct manager_service *s)
{
	const struct generation *to = service_generation(&s->core, s->core.rollout.to);
	_cleanup_free_ char *share = format_percent(to ? to->weight : 0);

	return xasprintf("%s upgrades from generation %u to %u (%s)", s->name, s->core.current,
		s->core.rollout.to, share ? share : "?");
}

/* The caller frees. */
static char *describe(const struct manager_service *s)
{
	const struct generation *g = service_generation(&s->core, s->core.current);
	_cleanup_free_ char *reason = why(s);

	if (!reason)
		return NULL;
	if (s->core.stopping)
		return xasprintf("%s stops", s->name);
	switch (rank_of(s)) {
	case RANK_FAILING:
		return xasprintf("%s fails%s", s->name, reason);
	case RANK_MOVING:
		if (service_state(&s->core) == SERVICE_STARTING)
			return xasprintf("%s starts%s", s->name, reason);
		return describe_rollout(s);
	case RANK_FAILED_ONCE:
		return xasprintf("%s serves with generation %u, generation %u was rolled back%s",
			s->name, s->core.current, s->failure.generation, reason);
	case RANK_SERVING:
		return xasprintf("%s serves with generation %u, %u of %u workers", s->name,
			s->core.current, g ? generation_ready(g) : 0, g ? g->wanted : 0);
	case RANK_STOPPED:
	case N_RANKS:
		break;
	}
	return xasprintf("%s is stopped", s->name);
}

static char *append_take(char *text_take, const char *separator, char *more_take)
{
	char *longer = text_take && more_take ? xasprintf("%s%s%s", text_take,
							*text_take ? separator : "", more_take)
					      : NULL;

	free(text_take);
	free(more_take);
	return longer;
}

char *unit_status(const struct manager *m)
{
	char *text = strdup("");
	size_t named = 0;

	if (m->held)
		return append_take(text, "",
			xasprintf("%s cannot be used, nor can the saved state: what an earlier "
				  "daemon left serves on",
				m->config_path));
	if (m->n_services == 0)
		return append_take(text, "", strdup("No services"));
	for (unsigned rank = 0; rank < N_RANKS; rank++)
		for (size_t i = 0; text && i < m->n_services && named < NAMED_MAX; i++)
			if (rank_of(m->services[i]) == rank) {
				text = append_take(text, "; ", describe(m->services[i]));
				named++;
			}
	if (m->n_services > named)
		text = append_take(
			text, "; ", xasprintf("and %zu more services", m->n_services - named));
	return text;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What is shown of a schedule that has failed. */
#include "schedules_world.h"

const char *event_to_string(enum service_event_kind kind)
{
	static const char *const names[] = {
		[EVENT_UPGRADE] = "upgrade",
		[EVENT_START] = "start",
		[EVENT_STOP] = "stop",
		[EVENT_KILL] = "kill",
		[EVENT_PROMOTE] = "promote",
		[EVENT_PAUSE] = "pause",
		[EVENT_ABORT] = "abort",
		[EVENT_ROLLBACK] = "rollback",
		[EVENT_SCALE] = "scale",
		[EVENT_SPAWN_FAILED] = "spawn failed",
		[EVENT_READY] = "ready",
		[EVENT_EXITED] = "exited",
		[EVENT_WATCHDOG] = "watchdog",
		[EVENT_SAID_ERROR] = "said error",
		[EVENT_QUEUE] = "queue",
		[EVENT_CONNECTIONS] = "connections",
		[EVENT_VERIFIED] = "verified",
		[EVENT_VERIFY_FAILED] = "verify failed",
		[EVENT_RECYCLE] = "recycle",
		[EVENT_LANE_FAILED] = "lane failed",
		[EVENT_EMPTY] = "empty",
		[EVENT_EXTEND_READY_TIMEOUT] = "extend",
		[EVENT_TIME] = "time",
		[EVENT_LISTENERS] = "listeners",
		[EVENT_ADOPT] = "adopt",
		[EVENT_LET_GO] = "let-go",
	};

	return names[kind];
}

static void trace_effect(FILE *f, const struct effect *e)
{
	static const char *const names[] = {"prepare-lane", "spawn", "watch-readiness",
		"signal-drain", "signal-term", "signal-kill", "signal-abort", "steer",
		"query-queue", "count-connections", "verify", "verify-stop", "end-rest",
		"release-lane", "swap-lanes", "forget", "close-listeners", "start-again"};

	if (e->kind == EFFECT_REPORT)
		fprintf(f, "    # %s %u", report_to_string(e->report), e->generation);
	else
		fprintf(f, "    %s %u", names[e->kind], e->generation);
	if (e->worker != NO_WORKER)
		fprintf(f, ".%u", e->worker);
	if (e->value)
		fprintf(f, " = %u", e->value);
	if (e->reason)
		fprintf(f, ": %s", reason_to_string(e->reason));
	fputc('\n', f);
}

void trace_step(const struct world *w, int r)
{
	const struct service *s = &w->service;
	FILE *f = w->trace;

	fprintf(f, "%.3f s: %s %u.%u value %u", (double)w->now_usec / 1e6,
		event_to_string(w->event.kind), w->event.generation, w->event.worker,
		w->event.value);
	if (w->event.kind == EVENT_UPGRADE) {
		const struct policy *p = &w->event.spec->policy;
		fprintf(f,
			": %s, %u workers, %s, overlap %s, pause at %u, max %u, listeners %llx"
			", verify %d %llu, warm %llu, recycle %llu",
			strategy_to_string(p->strategy), p->workers,
			!p->steered	? "held"
			: p->per_worker ? "per-worker"
					: "shared",
			overlap_to_string(p->overlap), w->event.spec->pause_at,
			p->drain.max_generations, (unsigned long long)w->event.spec->listeners,
			p->verify, (unsigned long long)p->verify_interval_usec,
			(unsigned long long)p->keep_warm_usec,
			(unsigned long long)p->recycle_after_usec);
	}
	fprintf(f, " -> %d\n", r);
	for (size_t i = 0; i < w->effects.n; i++)
		trace_effect(f, &w->effects.list[i]);
	fprintf(f,
		"    rollout %s %u -> %u step %u/%u%s%s; recycle %d: %u for %u; current %u, "
		"queue lane %u%s\n",
		rollout_phase_to_string(s->rollout.phase), s->rollout.from, s->rollout.to,
		s->rollout.step, s->rollout.n_steps, s->rollout.paused ? " paused" : "",
		s->rollout.verifying  ? " verifying"
		: s->rollout.verified ? " verified"
				      : "",
		(int)s->recycle.phase, s->recycle.spare, s->recycle.worker, s->current,
		s->queue_lane, s->stopping ? ", stopping" : "");
	for (size_t i = 0; i < s->n_generations; i++) {
		const struct generation *g = s->generations[i];
		fprintf(f, "    %u %s lane %d weight %u:", g->number,
			generation_state_to_string(g->state), (int)g->lane, g->weight);
		for (unsigned k = 0; k < g->n_workers; k++)
			fprintf(f, " %s%s", worker_state_to_string(g->workers[k].state),
				g->workers[k].retiring ? "(retiring)" : "");
		fputc('\n', f);
	}
}

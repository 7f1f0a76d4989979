/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a worker's life: each pair of state and event is either a line or on the list of
 * those that cannot come, and the whole table is compared with what was read by a person. */
#include "core/generation.h"
#include "unit.h"

/* clang-format off */
/* For each state the events that it never meets: the generation gives them only in other states. */
static const char *const impossible[N_WORKER_STATES] = {
	[WORKER_STOPPED] = "ready-timeout exit-respawn exit-backoff exit-rescue exit-final backoff-over "
		"settled empty idle drain-timeout kill-timeout",
	[WORKER_STARTING] = "exit-rescue backoff-over settled empty idle drain-timeout kill-timeout",
	[WORKER_READY] = "ready-timeout exit-rescue backoff-over settled empty idle drain-timeout "
		"kill-timeout",
	[WORKER_SETTLING] = "start ready-timeout exit-respawn exit-backoff backoff-over empty idle "
		"drain-timeout kill-timeout",
	[WORKER_EMPTYING] = "start ready-timeout exit-respawn exit-backoff backoff-over settled idle "
		"drain-timeout kill-timeout",
	[WORKER_IDLING] = "start ready-timeout exit-respawn exit-backoff exit-rescue backoff-over settled "
		"empty drain-timeout kill-timeout",
	[WORKER_DRAINING] = "ready-timeout backoff-over settled empty idle kill-timeout",
	[WORKER_ESCALATED] = "ready-timeout backoff-over settled empty idle drain-timeout",
	[WORKER_KILLED] = "ready-timeout backoff-over settled empty idle drain-timeout",
	[WORKER_BACKOFF] = "ready-timeout exit-respawn exit-backoff exit-rescue exit-final settled empty "
		"idle drain-timeout kill-timeout",
};

static const char golden[] =
	"stopped start > starting spawn watch arm-ready\n"
	"stopped became-ready > stopped\n"
	"stopped retire > stopped\n"
	"stopped retire-now > stopped\n"
	"stopped unretire > starting spawn watch arm-ready\n"
	"stopped kill > stopped\n"
	"stopped watchdog > stopped\n"
	"starting start > starting\n"
	"starting became-ready > ready disarm steer\n"
	"starting ready-timeout > killed arm-kill kill steer\n"
	"starting exit-respawn > starting spawn watch arm-ready\n"
	"starting exit-backoff > backoff arm-backoff steer\n"
	"starting exit-final > stopped disarm steer\n"
	"starting retire > settling arm-settle steer\n"
	"starting retire-now > draining arm-drain drain steer\n"
	"starting unretire > starting\n"
	"starting kill > killed arm-kill kill steer\n"
	"starting watchdog > starting\n"
	"ready start > ready\n"
	"ready became-ready > ready\n"
	"ready exit-respawn > starting spawn watch arm-ready steer\n"
	"ready exit-backoff > backoff arm-backoff steer\n"
	"ready exit-final > stopped disarm steer\n"
	"ready retire > settling arm-settle steer\n"
	"ready retire-now > draining arm-drain drain steer\n"
	"ready unretire > ready\n"
	"ready kill > killed arm-kill kill steer\n"
	"ready watchdog > killed arm-kill abort steer\n"
	"settling became-ready > settling\n"
	"settling settled > emptying arm-empty\n"
	"settling exit-rescue > settling spawn\n"
	"settling exit-final > stopped disarm steer\n"
	"settling retire > settling\n"
	"settling retire-now > draining arm-drain drain steer\n"
	"settling unretire > starting watch arm-ready\n"
	"settling kill > killed arm-kill kill steer\n"
	"settling watchdog > settling\n"
	"emptying became-ready > emptying\n"
	"emptying empty > idling arm-idle\n"
	"emptying exit-rescue > emptying spawn\n"
	"emptying exit-final > stopped disarm steer\n"
	"emptying retire > settling arm-settle\n"
	"emptying retire-now > draining arm-drain drain steer\n"
	"emptying unretire > starting watch arm-ready\n"
	"emptying kill > killed arm-kill kill steer\n"
	"emptying watchdog > emptying\n"
	"idling became-ready > idling\n"
	"idling idle > draining arm-drain drain steer\n"
	"idling exit-final > stopped disarm steer\n"
	"idling retire > settling arm-settle\n"
	"idling retire-now > draining arm-drain drain steer\n"
	"idling unretire > starting watch arm-ready\n"
	"idling kill > killed arm-kill kill steer\n"
	"idling watchdog > idling\n"
	"draining start > draining\n"
	"draining became-ready > draining\n"
	"draining drain-timeout > escalated arm-kill term\n"
	"draining exit-respawn > starting spawn watch arm-ready steer\n"
	"draining exit-backoff > backoff arm-backoff steer\n"
	"draining exit-rescue > settling spawn arm-settle steer\n"
	"draining exit-final > stopped disarm steer\n"
	"draining retire > draining\n"
	"draining retire-now > draining\n"
	"draining unretire > draining\n"
	"draining kill > killed arm-kill kill steer\n"
	"draining watchdog > draining\n"
	"escalated start > escalated\n"
	"escalated became-ready > escalated\n"
	"escalated kill-timeout > killed arm-kill kill steer\n"
	"escalated exit-respawn > starting spawn watch arm-ready steer\n"
	"escalated exit-backoff > backoff arm-backoff steer\n"
	"escalated exit-rescue > settling spawn arm-settle steer\n"
	"escalated exit-final > stopped disarm steer\n"
	"escalated retire > escalated\n"
	"escalated retire-now > escalated\n"
	"escalated unretire > escalated\n"
	"escalated kill > killed arm-kill kill steer\n"
	"escalated watchdog > escalated\n"
	"killed start > killed\n"
	"killed became-ready > killed\n"
	"killed kill-timeout > killed arm-kill kill\n"
	"killed exit-respawn > starting spawn watch arm-ready steer\n"
	"killed exit-backoff > backoff arm-backoff steer\n"
	"killed exit-rescue > settling spawn arm-settle steer\n"
	"killed exit-final > stopped disarm steer\n"
	"killed retire > killed\n"
	"killed retire-now > killed\n"
	"killed unretire > killed\n"
	"killed kill > killed arm-kill kill\n"
	"killed watchdog > killed\n"
	"backoff start > backoff\n"
	"backoff became-ready > backoff\n"
	"backoff backoff-over > starting spawn watch arm-ready\n"
	"backoff retire > settling spawn arm-settle steer\n"
	"backoff retire-now > stopped disarm steer\n"
	"backoff unretire > backoff\n"
	"backoff kill > stopped disarm steer\n"
	"backoff watchdog > backoff\n";
/* clang-format on */

static const char *const action_names[] = {"spawn", "watch", "arm-ready", "arm-backoff",
	"arm-settle", "arm-empty", "arm-idle", "arm-drain", "arm-kill", "disarm", "drain", "term",
	"kill", "abort", "steer"};

static bool is_listed(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += len)
		if ((p == list || p[-1] == ' ') && (p[len] == ' ' || p[len] == '\0'))
			return true;
	return false;
}

START_TEST(every_pair)
{
	for (unsigned s = 0; s < N_WORKER_STATES; s++)
		for (unsigned e = 0; e < N_WORKER_EVENTS; e++) {
			const struct worker_transition *t =
				worker_transition((enum worker_state)s, (enum worker_event)e);
			const char *state = worker_state_to_string((enum worker_state)s),
				   *event = worker_event_to_string((enum worker_event)e);

			ck_assert_msg((t == NULL) == is_listed(impossible[s], event), "%s, %s: %s",
				state, event,
				t ? "a line, and on the list" : "neither a line nor on the list");
			ck_assert(!t || (t->from == s && t->on == e));
		}
}
END_TEST

START_TEST(no_pair_twice)
{
	size_t n;
	const struct worker_transition *t = worker_transitions(&n);

	for (size_t i = 0; i < n; i++)
		ck_assert_msg(worker_transition(t[i].from, t[i].on) == &t[i], "%s, %s: two lines",
			worker_state_to_string(t[i].from), worker_event_to_string(t[i].on));
}
END_TEST

static char *dump(void)
{
	size_t n, size = 0;
	const struct worker_transition *t = worker_transitions(&n);
	char *text = NULL;
	FILE *f = open_memstream(&text, &size);

	ck_assert_ptr_nonnull(f);
	for (size_t i = 0; i < n; i++) {
		fprintf(f, "%s %s > %s", worker_state_to_string(t[i].from),
			worker_event_to_string(t[i].on), worker_state_to_string(t[i].to));
		for (size_t a = 0; a < ARRAY_SIZE(action_names); a++)
			if (t[i].actions & (1U << a))
				fprintf(f, " %s", action_names[a]);
		fputc('\n', f);
	}
	ck_assert_int_eq(fclose(f), 0);
	return text;
}

START_TEST(table)
{
	_cleanup_free_ char *text = dump();

	ck_assert_str_eq(text, golden);
}
END_TEST

/* What must hold of any such table, whatever its lines are. */
START_TEST(sense)
{
	size_t n;
	const struct worker_transition *t = worker_transitions(&n);
	const unsigned deadlines = WORKER_DO_ARM_READY | WORKER_DO_ARM_BACKOFF |
				   WORKER_DO_ARM_SETTLE | WORKER_DO_ARM_EMPTY | WORKER_DO_ARM_IDLE |
				   WORKER_DO_ARM_DRAIN | WORKER_DO_ARM_KILL | WORKER_DO_DISARM;

	for (size_t i = 0; i < n; i++) {
		bool born = t[i].actions & WORKER_DO_SPAWN,
		     had = worker_state_has_process(t[i].from),
		     has = worker_state_has_process(t[i].to),
		     ended = t[i].on == WORKER_ON_EXIT_RESPAWN ||
			     t[i].on == WORKER_ON_EXIT_BACKOFF ||
			     t[i].on == WORKER_ON_EXIT_RESCUE || t[i].on == WORKER_ON_EXIT_FINAL;
		char line[128];

		snprintf(line, sizeof(line), "%s %s", worker_state_to_string(t[i].from),
			worker_event_to_string(t[i].on));
		/* A process begins where there was none, or where one has ended. */
		ck_assert_msg(!born || !had || ended, "%s", line);
		ck_assert_msg(has == (born || (had && !ended)), "%s", line);
		/* A new state has a deadline of its own, or none. */
		ck_assert_msg(t[i].to == t[i].from || (t[i].actions & deadlines), "%s", line);
		/* No signal without a process. */
		ck_assert_msg(
			had || !(t[i].actions &
				       (WORKER_DO_SIGNAL_DRAIN | WORKER_DO_SIGNAL_TERM |
					       WORKER_DO_SIGNAL_KILL | WORKER_DO_SIGNAL_ABORT)),
			"%s", line);
		/* Who becomes ready or stops being it changes what steering has to say. */
		ck_assert_msg((t[i].from == WORKER_READY) == (t[i].to == WORKER_READY) ||
				      (t[i].actions & WORKER_DO_STEER),
			"%s", line);
	}
}
END_TEST

static void give(struct generation *g, enum worker_event on, uint64_t now, int answer)
{
	struct effects effects = {0};

	ck_assert_int_ge(effects_reserve(&effects, 64), 0);
	ck_assert_int_eq(generation_worker_event(g, &g->workers[0], on, now, &effects), answer);
	effects_done(&effects);
}

START_TEST(impossible_changes_nothing)
{
	struct policy p = {.workers = 1, .ready_timeout_usec = 7, .drain = {.max_generations = 2}};
	struct generation *g = generation_new(1, &p, 1);
	struct worker before;

	ck_assert_ptr_nonnull(g);
	before = g->workers[0];
	give(g, WORKER_ON_SETTLED, 5, -EPROTO);
	ck_assert_mem_eq(&before, &g->workers[0], sizeof(before));
	give(g, WORKER_ON_START, 5, 0);
	ck_assert_int_eq(g->workers[0].state, WORKER_STARTING);
	ck_assert_uint_eq(g->workers[0].deadline_usec, 12);
	before = g->workers[0];
	give(g, WORKER_ON_DRAIN_TIMEOUT, 6, -EPROTO);
	ck_assert_mem_eq(&before, &g->workers[0], sizeof(before));
	generation_free(g);
}
END_TEST

/* SIGKILL is repeated, but not without a pause, also where nothing is waited for. */
START_TEST(killed_again)
{
	struct policy p = {
		.workers = 1, .drain = {.max_generations = 2, .kill_after_usec = 0}
	   };
	struct generation *g = generation_new(1, &p, 1);

	ck_assert_ptr_nonnull(g);
	give(g, WORKER_ON_START, 0, 0);
	give(g, WORKER_ON_KILL, 10, 0);
	ck_assert_uint_eq(g->workers[0].deadline_usec, 10 + USEC_PER_SEC);
	g->policy.drain.kill_after_usec = 5 * USEC_PER_SEC;
	give(g, WORKER_ON_KILL_TIMEOUT, 20, 0);
	ck_assert_uint_eq(g->workers[0].deadline_usec, 20 + 5 * USEC_PER_SEC);
	generation_free(g);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		every_pair, no_pair_twice, table, sense, impossible_changes_nothing, killed_again};

	return run_tests("worker", tests, ARRAY_SIZE(tests));
}

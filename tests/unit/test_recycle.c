/* SPDX-License-Identifier: Apache-2.0 */
/* Workers that are replaced because of age or memory, told as stories. */
#include "story.h"
#include "unit.h"

/* clang-format off */
static const struct story_text stories[] = {
	/* On a shared queue who is to go is told when the spare is ready; the others have the
	 * queue. */
	{"shared",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> exit 1.0 clean\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 " drain 1.2\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> exit 1.2 clean\n"
	 "> look\n"
	 " serving healthy verify=none\n"},
	/* With a socket each, its queue is emptied first; and so is the spare's. */
	{"per worker",
	 "> serving idle=0 per-worker\n"
	 "> recycle 1.1\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.1 (reached the memory at which it is recycled)\n"
	 "> time 1\n"
	 " queue? 1.1 drain 1.1\n"
	 "> time 2\n"
	 "> exit 1.1 clean\n"
	 " spawn 1.1\n"
	 "> ready 1.1\n"
	 "> time 3\n"
	 " queue? 1.2 drain 1.2\n"
	 "> exit 1.2 clean\n"},
	/* Who is due next is stood in for by the same spare. */
	{"two that are due",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> recycle 1.1\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 " #worker-recycled 1.1 (reached the memory at which it is recycled) drain 1.1\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> ready 1.1\n"
	 " drain 1.2\n"
	 "> exit 1.2\n"
	 "> time 100\n"},
	/* Up to a tenth before their time, each at its own. */
	{"by age",
	 "> serving idle=0 workers=2 age=1000\n"
	 "> time 899\n"
	 "> time 23\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.1 (reached the age at which it is recycled) drain 1.1\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> ready 1.1\n"
	 " drain 1.2\n"
	 "> exit 1.2\n"
	 "> time 50\n"
	 "> time 9\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the age at which it is recycled) drain 1.0\n"},
	/* Of the present process: who crashed is young again. */
	{"age of the present process",
	 "> serving idle=0 workers=1 age=1000\n"
	 "> time 800\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 "> time 890\n"
	 "> time 111\n"
	 " lane 1=0 spawn 1.1\n"},
	{"a spare exits",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> exit 1.2\n"
	 " #recycle-failed 1 (exited before it was ready)\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> time 29\n"
	 "> time 1\n"
	 " lane 1=0 spawn 1.2\n"
	 "> failed 1.2\n"
	 " #recycle-failed 1 (could not be started)\n"
	 "> time 59\n"
	 "> time 1\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"},
	{"a spare is not ready in time",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> time 60\n"
	 " KILL 1.2 #recycle-failed 1 (was not ready in time)\n"
	 "> time 20\n"
	 " KILL 1.2 ...\n"
	 "> exit 1.2\n"
	 "> time 10\n"
	 " lane 1=0 spawn 1.2\n"},
	{"a spare without sockets",
	 "> serving idle=0 per-worker\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> lane-failed 1\n"
	 " #recycle-failed 1 (its sockets could not be made) drain 1.2\n"
	 "> failed 1.2\n"
	 "> time 30\n"
	 " lane 1=0 spawn 1.2\n"},
	/* It was told nothing yet: it stays. */
	{"a spare crashes before the old one goes",
	 "> serving idle=0 per-worker\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled)\n"
	 "> exit 1.2\n"
	 " spawn 1.2 watch 1.0\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> time 40\n"
	 " queue? 1.2 drain 1.2 TERM 1.2 KILL 1.2\n"},
	/* Nobody else is started for it; both come back. */
	{"a spare crashes after the old one was told",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> exit 1.2\n"
	 " spawn 1.2\n"
	 "> ready 1.2\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 " drain 1.2\n"},
	{"a successor crashes",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> time 1\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 " drain 1.2\n"},
	/* Nobody is sent away while another is down: the spare stands in for that one first. */
	{"another one crashes meanwhile",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> ready 1.2\n"
	 "> ready 1.1\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 " drain 1.2\n"},
	/* The one that is due crashes by itself: it is new now. */
	{"the one that is due crashes",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.2\n"
	 "> exit 1.2\n"
	 " spawn 1.2\n"
	 "> ready 1.0\n"
	 "> time 100\n"
	 " KILL 1.2 ...\n"},
	/* A rollout goes first. */
	{"upgrade before the spare is ready",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> upgrade\n"
	 " drain 1.2 #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> exit 1.2\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> recycle 2.0\n"
	 "> time 5\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 queue? 1.1 #rollout-ended 2 (done) drain 1.0 drain"
	 " 1.1\n"
	 "> time 10\n"
	 "> exit 1.*\n"
	 " #generation-gone 1 release 1=0 forget 1\n"},
	{"upgrade while the old one leaves",
	 "> serving idle=0 per-worker\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled)\n"
	 "> upgrade\n"
	 " watch 1.0 #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> time 3\n"
	 " queue? 1.2 drain 1.2\n"
	 "> exit 1.2\n"
	 "> abort\n"
	 " #rollout-ended 2 (aborted) #generation-draining 2 (aborted) drain 2.0 drain 2.1 lane"
	 " 1=0 spawn 1.2\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	{"upgrade after the old one was told",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> upgrade canary\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 " drain 1.2\n"
	 "> exit 1.2\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"},
	{"upgrade while the successor starts",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 6\n"
	 " #generation-draining 1 (replaced by a newer generation) drain 1.2 #rollout-promoted"
	 " 2 #generation-serving 2 queue? 1.0 queue? 1.1 #rollout-ended 2 (done) drain 1.0"
	 " drain 1.1\n"},
	{"stop meanwhile",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> stop\n"
	 " #service-stopping 1 #generation-draining 1 (the service was stopped) drain 1.1 drain"
	 " 1.2\n"
	 "> exit 1.*\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"},
	{"rollback meanwhile",
	 "> serving idle=0 soak=0\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> recycle 2.0\n"
	 " lane 2=1 spawn 2.2\n"
	 "> ready 2.2\n"
	 " #worker-recycled 2.0 (reached the memory at which it is recycled) drain 2.0\n"
	 "> rollback 1\n"
	 " steer[1=10000] #generation-serving 1 #generation-draining 2 (rolled back on request)"
	 " drain 2.2\n"
	 "> exit 2.*\n"
	 " spawn 2.1\n"},
	/* The spare is one of three. */
	{"scale up meanwhile",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> scale 3\n"
	 " lane 1=0 #scaled 1\n"
	 "> ready 1.2\n"
	 " lane 1=0 spawn 1.3\n"
	 "> time 100\n"
	 " KILL 1.3 #recycle-failed 1 (was not ready in time) KILL 1.3 ...\n"},
	{"scale up while the old one leaves",
	 "> serving idle=0 per-worker\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled)\n"
	 "> scale 4\n"
	 " lane 1=0 watch 1.0 spawn 1.3 #scaled 1\n"
	 "> ready 1.*\n"
	 " lane 1=0 spawn 1.4\n"
	 "> time 100\n"
	 " KILL 1.4 #recycle-failed 1 (was not ready in time) KILL 1.4 ...\n"},
	/* The last one to accept is not told to go. */
	{"scale down meanwhile",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> scale 1\n"
	 " drain 1.1 #scaled 1\n"
	 "> exit 1.1\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 " drain 1.2\n"
	 "> exit 1.2\n"},
	{"scale away who leaves",
	 "> serving idle=0\n"
	 "> recycle 1.1\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.1 (reached the memory at which it is recycled) drain 1.1\n"
	 "> scale 1\n"
	 " drain 1.2 #scaled 1\n"
	 "> exit 1.*\n"
	 " spawn 1.0\n"},
	/* Only those that serve. */
	{"not to be recycled",
	 "> serving idle=0 soak=0 per-worker\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> recycle 1.0\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> recycle 1.0\n"
	 "> recycle 2.7\n"
	 " refused: No such process\n"
	 "> recycle 7.0\n"
	 " refused: No such process\n"
	 "> exit 2.0\n"
	 " spawn 2.0\n"
	 "> recycle 2.0\n"
	 "> look\n"
	 " serving unhealthy verify=none\n"},
	{"ends by its own will",
	 "> serving idle=0 never workers=1\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.1\n"
	 "> ready 1.1\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> exit 1.1\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 "> exit 1.0\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1\n"},
	{"stop before the spare is ready",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> kill\n"
	 " #service-stopping 1 KILL 1.0 KILL 1.1 KILL 1.2 #generation-draining 1 (the service"
	 " was stopped)\n"
	 "> exit 1.*\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"},
	/* It is the only one that is ready: the rollout has its way, but the spare stays until the
	 * others are back. */
	{"upgrade while the spare is the only one",
	 "> serving idle=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> ready 1.2\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 1.0\n"
	 "> ready 1.1\n"
	 " drain 1.2\n"},
	{"promoted while the spare stays",
	 "> serving idle=0 soak=0\n"
	 "> recycle 1.0\n"
	 " lane 1=0 spawn 1.2\n"
	 "> ready 1.2\n"
	 " #worker-recycled 1.0 (reached the memory at which it is recycled) drain 1.0\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2 drain 1.2\n"
	 "> exit 1.*\n"
	 " spawn 1.0 spawn 1.1\n"
	 "> ready 1.*\n"},
};
/* clang-format on */

START_TEST(stories_as_told)
{
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		story_check(&stories[i]);
}
END_TEST

/* Up to a tenth before the time, not all at once, and the same each time. */
START_TEST(ages)
{
	enum { N = 100 };
	struct policy p = {.workers = N, .recycle_after_usec = 1000 * USEC_PER_SEC};
	struct generation *g = generation_new(7, &p, 1);
	uint64_t first = USEC_INFINITY, last = 0;

	ck_assert_ptr_nonnull(g);
	for (unsigned i = 0; i < N; i++) {
		struct worker *w = &g->workers[i];
		uint64_t at;

		ck_assert_uint_eq(recycle_age_deadline(g, w), USEC_INFINITY);
		w->state = WORKER_READY;
		w->ready_usec = 5 * USEC_PER_SEC;
		at = recycle_age_deadline(g, w);
		ck_assert_uint_ge(at, 905 * USEC_PER_SEC);
		ck_assert_uint_le(at, 1005 * USEC_PER_SEC);
		ck_assert_uint_eq(at, recycle_age_deadline(g, w));
		first = MIN(first, at);
		last = MAX(last, at);
	}
	ck_assert_uint_gt(last - first, 80 * USEC_PER_SEC);
	/* Another process of the same worker, another time. */
	last = recycle_age_deadline(g, &g->workers[3]);
	g->workers[3].restarts++;
	ck_assert_uint_ne(recycle_age_deadline(g, &g->workers[3]), last);
	g->policy.recycle_after_usec = USEC_INFINITY;
	ck_assert_uint_gt(recycle_age_deadline(g, &g->workers[3]), USEC_INFINITY / 10 * 9);
	g->policy.recycle_after_usec = 0;
	ck_assert_uint_eq(recycle_age_deadline(g, &g->workers[3]), USEC_INFINITY);
	generation_free(g);
}
END_TEST

static bool step_steers(struct service *s, struct service_event e)
{
	struct effects effects = {0};
	bool steers = false;

	ck_assert_int_eq(service_step(s, &e, USEC_PER_SEC, &effects), 0);
	for (size_t i = 0; i < effects.n; i++)
		steers |= effects.list[i].kind == EFFECT_STEER && effects.list[i].generation == 1;
	effects_done(&effects);
	return steers;
}

/* Nobody is ready: those that come wait for who will be. When that is another worker than before,
 * the kernel has to be told. */
START_TEST(waits_for_who_is_taken_back)
{
	struct upgrade_spec spec = {
		.listeners = 1,
		.policy = {.workers = 2,
			   .steered = true,
			   .per_worker = true,
			   .restart = RESTART_NEVER,
			   .ready_timeout_usec = 60 * USEC_PER_SEC,
			   .drain = {.timeout_usec = 30 * USEC_PER_SEC, .max_generations = 4}},
	};
	struct service s;
	bool slots[3];

	service_init(&s);
	(void)step_steers(&s, (struct service_event){.kind = EVENT_UPGRADE, .spec = &spec});
	for (unsigned i = 0; i < 2; i++)
		(void)step_steers(&s,
			(struct service_event){.kind = EVENT_READY, .generation = 1, .worker = i});
	(void)step_steers(&s, (struct service_event){.kind = EVENT_RECYCLE,
				      .generation = 1,
				      .worker = 1,
				      .reason = REASON_TOO_BIG});
	ck_assert_int_eq(s.recycle.phase, RECYCLE_SPARE);
	ck_assert(step_steers(
		&s, (struct service_event){.kind = EVENT_EXITED, .generation = 1, .worker = 0}));
	ck_assert(step_steers(
		&s, (struct service_event){.kind = EVENT_READY, .generation = 1, .worker = 2}));
	ck_assert_int_eq(s.recycle.phase, RECYCLE_LEAVING);
	for (unsigned i = 0; i < 3; i++)
		(void)step_steers(
			&s, (struct service_event){.kind = i == 1 ? EVENT_QUEUE : EVENT_TIME,
				    .generation = 1,
				    .worker = 1});
	ck_assert_int_eq(s.generations[0]->workers[1].state, WORKER_DRAINING);
	ck_assert(step_steers(
		&s, (struct service_event){.kind = EVENT_EXITED, .generation = 1, .worker = 2}));
	ck_assert(step_steers(&s, (struct service_event){.kind = EVENT_UPGRADE, .spec = &spec}));
	generation_active_slots(s.generations[0], slots);
	ck_assert(!slots[0] && slots[1]);
	service_done(&s);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {stories_as_told, ages, waits_for_who_is_taken_back};

	return run_tests("recycle", tests, ARRAY_SIZE(tests));
}

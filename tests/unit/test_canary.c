/* SPDX-License-Identifier: Apache-2.0 */
/* Upgrades step by step: verify, steps that fail, shares that stay, generations that
 * are kept warm; told as stories. */
#include "story.h"
#include "unit.h"

/* clang-format off */
static const struct story_text stories[] = {
	/* Each step needs a good run, however long ago its soak was over. */
	{"verify",
	 "> serving idle=0 workers=1\n"
	 "> upgrade canary verify\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> look\n"
	 " upgrading healthy verify=pending\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2 verify 2=1\n"
	 "> look\n"
	 " upgrading healthy verify=running soaks=5.0\n"
	 "> verified 2 1\n"
	 " #rollout-verified 2\n"
	 "> look\n"
	 " upgrading healthy verify=passed soaks=5.0\n"
	 "> time 5\n"
	 " steer[1=7500 2=2500] #rollout-step 2 verify 2=2\n"
	 "> time 60\n"
	 "> look\n"
	 " upgrading healthy verify=running soaks=-55.0\n"
	 "> verified 2 2\n"
	 " #rollout-verified 2 steer[2=10000] #rollout-step 2 verify 2=3\n"
	 "> verified 2 3\n"
	 " #rollout-verified 2\n"
	 "> time 5\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 #rollout-ended 2 (done) drain 1.0\n"},
	/* The run of the step before is none of this one's, nor is one of another generation. */
	{"stale runs of verify",
	 "> serving idle=0 workers=1\n"
	 "> verified 1 0\n"
	 "> upgrade canary verify\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> unverified 2 1\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2 verify 2=1\n"
	 "> unverified 2 0\n"
	 "> unverified 1 1\n"
	 "> unverified 2 2\n"
	 "> verified 2 1\n"
	 " #rollout-verified 2\n"
	 "> unverified 2 1\n"
	 "> time 5\n"
	 " steer[1=7500 2=2500] #rollout-step 2 verify 2=2\n"
	 "> unverified 2 1\n"
	 "> unverified 2 2\n"
	 " steer[1=10000] #rollout-ended 2 (was not verified) #generation-draining 2 (was not"
	 " verified)\n"
	 "> verified 2 2\n"},
	/* The first has nothing to go back to. */
	{"first start is not verified",
	 "> upgrade verify\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0 spawn 1.1\n"
	 "> ready 1.*\n"
	 " #rollout-step 1 #rollout-promoted 1 #generation-serving 1 #rollout-ended 1 (done)\n"
	 "> look\n"
	 " serving healthy verify=none\n"},
	/* From the end of one run to the next; none begins when the soak is over, and one that is
	 * under way is waited for. */
	{"verify at an interval",
	 "> serving idle=0 workers=1\n"
	 "> upgrade verify interval=2\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 verify 2=1\n"
	 "> time 1\n"
	 "> verified 2 1\n"
	 " #rollout-verified 2\n"
	 "> time 1.9\n"
	 "> time 0.2\n"
	 " verify 2=2\n"
	 "> verified 2 2\n"
	 "> time 5\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 #rollout-ended 2 (done) drain 1.0\n"
	 "> look\n"
	 " serving healthy verify=none\n"},
	{"the soak ends during a run",
	 "> serving idle=0 workers=1\n"
	 "> upgrade verify interval=2\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 verify 2=1\n"
	 "> verified 2 1\n"
	 " #rollout-verified 2\n"
	 "> time 2\n"
	 " verify 2=2\n"
	 "> verified 2 2\n"
	 "> time 2\n"
	 " verify 2=3\n"
	 "> time 5\n"
	 "> look\n"
	 " upgrading healthy verify=passed soaks=-4.0\n"
	 "> verified 2 3\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2\n"},
	{"verify fails later",
	 "> serving idle=0 workers=1\n"
	 "> upgrade verify interval=1\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 verify 2=1\n"
	 "> verified 2 1\n"
	 " #rollout-verified 2\n"
	 "> time 1\n"
	 " verify 2=2\n"
	 "> unverified 2 2\n"
	 " steer[1=10000] #rollout-ended 2 (was not verified) #generation-draining 2 (was not"
	 " verified)\n"
	 "> verified 2 2\n"},
	/* Paused, a soak has no end, and verify none either. */
	{"verify while paused",
	 "> serving idle=0 workers=1\n"
	 "> upgrade canary verify interval=10\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2 verify 2=1\n"
	 "> pause\n"
	 " #rollout-paused 2\n"
	 "> look\n"
	 " upgrading healthy verify=running\n"
	 "> verified 2 1\n"
	 " #rollout-verified 2\n"
	 "> time 25\n"
	 " verify 2=2\n"
	 "> verified 2 2\n"
	 "> promote\n"
	 " steer[1=7500 2=2500] #rollout-step 2 verify 2=3\n"
	 "> verified 2 3\n"
	 " #rollout-verified 2\n"
	 "> time 3\n"
	 "> promote\n"
	 " steer[2=10000] #rollout-step 2 verify 2=4\n"
	 "> look\n"
	 " upgrading healthy verify=running soaks=5.0\n"
	 "> verified 2 4\n"
	 " #rollout-verified 2\n"
	 "> promote\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> verified 2 5\n"},
	/* It ends the soak, but not a verify that has not passed. */
	{"promote waits for verify",
	 "> serving idle=0 workers=1\n"
	 "> upgrade verify\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 verify 2=1\n"
	 "> promote\n"
	 "> look\n"
	 " upgrading healthy verify=running soaks=0.0\n"
	 "> time 100\n"
	 "> verified 2 1\n"
	 " #rollout-verified 2 #generation-draining 1 (replaced by a newer generation)"
	 " #rollout-promoted 2 #generation-serving 2\n"},
	/* The operator's word: also where verify itself is what does not work. */
	{"full does not wait for verify",
	 "> serving idle=0 workers=1\n"
	 "> upgrade canary verify interval=1\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2 verify 2=1\n"
	 "> full\n"
	 " verify-stop 2=1 steer[2=10000] #rollout-step 2\n"
	 "> look\n"
	 " upgrading healthy verify=none soaks=5.0\n"
	 "> time 5\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 #rollout-ended 2 (done) drain 1.0\n"},
	{"full in the last step",
	 "> serving idle=0 workers=1\n"
	 "> upgrade verify\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 verify 2=1\n"
	 "> full\n"
	 " verify-stop 2=1 #generation-draining 1 (replaced by a newer generation)"
	 " #rollout-promoted 2 #generation-serving 2\n"},
	{"abort while it is verified",
	 "> serving idle=0 workers=1\n"
	 "> upgrade verify\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 verify 2=1\n"
	 "> abort\n"
	 " verify-stop 2=1 steer[1=10000] #rollout-ended 2 (aborted) #generation-draining 2"
	 " (aborted)\n"
	 "> unverified 2 1\n"},
	{"stop while it is verified",
	 "> serving idle=0 workers=1\n"
	 "> upgrade verify\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 verify 2=1\n"
	 "> stop\n"
	 " #service-stopping 1 verify-stop 2=1 #rollout-ended 2 (the service was stopped)"
	 " #generation-draining 1 (the service was stopped) drain 1.0 #generation-draining 2"
	 " (the service was stopped) drain 2.0\n"},
	{"exits while it is verified",
	 "> serving idle=0 workers=1\n"
	 "> upgrade verify\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 verify 2=1\n"
	 "> exit 2.0\n"
	 " verify-stop 2=1 steer[1=10000] #rollout-ended 2 (exited while it soaked)"
	 " #generation-draining 2 (exited while it soaked) spawn 2.0\n"},
	{"superseded while it is verified",
	 "> serving idle=0 workers=1\n"
	 "> upgrade verify supersede\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 verify 2=1\n"
	 "> upgrade\n"
	 " verify-stop 2=1 steer[1=10000] #rollout-ended 2 (superseded by a later upgrade)"
	 " #generation-draining 2 (superseded by a later upgrade) #rollout-started 3 lane 3=2"
	 " spawn 3.0\n"
	 "> verified 2 1\n"
	 "> ready 3.*\n"
	 " steer[3=10000] #rollout-step 3 verify 3=2\n"},
	/* The old one is started again on the sockets where everybody waits. */
	{"recreate that is not verified",
	 "> serving idle=0 workers=1\n"
	 "> upgrade recreate verify\n"
	 " #rollout-started 2 lane 2=1 steer[2=10000] #generation-draining 1 (replaced by a"
	 " newer generation)\n"
	 "> time 2\n"
	 " queue? 1.0 drain 1.0\n"
	 "> exit 1.0\n"
	 " spawn 2.0\n"
	 "> ready 2.*\n"
	 " #rollout-step 2 verify 2=1\n"
	 "> look\n"
	 " upgrading healthy verify=running soaks=5.0\n"
	 "> unverified 2 1\n"
	 " #generation-draining 2 (was not verified) drain 2.0\n"
	 "> look\n"
	 " upgrading unhealthy verify=none\n"
	 "> exit 2.0\n"
	 " steer[1=10000] swap 1.2 spawn 1.0 #rollout-ended 2 (was not verified)"
	 " #generation-gone 2 release 2=0 forget 2\n"},
	{"rolling that is verified",
	 "> serving idle=0 workers=2 per-worker\n"
	 "> upgrade rolling verify\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=5000 2=5000] #rollout-step 2 verify 2=1\n"
	 "> time 5\n"
	 "> verified 2 1\n"
	 " #rollout-verified 2 spawn 2.1\n"
	 "> ready 2.1\n"
	 " steer[2=10000] #rollout-step 2 verify 2=2\n"
	 "> verified 2 2\n"
	 " #rollout-verified 2\n"
	 "> time 5\n"
	 " queue? 1.0 drain 1.0 #generation-draining 1 (replaced by a newer generation)"
	 " #rollout-promoted 2 #generation-serving 2 queue? 1.1 #rollout-ended 2 (done) drain"
	 " 1.1\n"},
	/* A step fails at any time before promotion, also while nobody looks. */
	{"exits while paused",
	 "> serving idle=0 workers=4\n"
	 "> upgrade canary\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"
	 "> time 5\n"
	 " steer[1=7500 2=2500] #rollout-step 2\n"
	 "> pause\n"
	 " #rollout-paused 2\n"
	 "> time 3600\n"
	 "> exit 2.0\n"
	 " steer[1=10000] #rollout-ended 2 (exited while it soaked) #generation-draining 2"
	 " (exited while it soaked) spawn 2.0\n"},
	{"says it has failed while paused",
	 "> serving idle=0 workers=4\n"
	 "> upgrade canary pause=2500\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"
	 "> time 5\n"
	 " steer[1=7500 2=2500] #rollout-step 2 #rollout-paused 2\n"
	 "> time 3600\n"
	 "> error 2.0\n"
	 " steer[1=10000] #rollout-ended 2 (reported an error) #generation-draining 2 (reported"
	 " an error)\n"},
	{"hangs while paused",
	 "> serving idle=0 workers=4 per-worker\n"
	 "> upgrade canary pause=2500\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"
	 "> time 5\n"
	 " steer[1=7500 2=2500] #rollout-step 2 #rollout-paused 2\n"
	 "> watchdog 2.0\n"
	 " steer[1=10000] ABRT 2.0 #rollout-ended 2 (missed its watchdog) #generation-draining"
	 " 2 (missed its watchdog)\n"},
	/* A worker that is started for the next step is one of the new generation too. */
	{"exits while the next step starts",
	 "> serving idle=0 workers=4\n"
	 "> upgrade canary\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"
	 "> time 10\n"
	 " steer[1=7500 2=2500] #rollout-step 2 spawn 2.1 spawn 2.2 spawn 2.3\n"
	 "> exit 2.3\n"
	 " steer[1=10000] #rollout-ended 2 (exited before it was ready) #generation-draining 2"
	 " (exited before it was ready)\n"},
	/* Shares are of generations: who of the old one dies is started again, and nothing else
	 * changes. */
	{"crash of the old in a canary",
	 "> serving idle=0 workers=4 per-worker\n"
	 "> upgrade canary pause=2500\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"
	 "> time 5\n"
	 " steer[1=7500 2=2500] #rollout-step 2 #rollout-paused 2\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> time 0.1\n"
	 " spawn 1.0\n"
	 "> ready 1.*\n"},
	/* Both have as many as their shares need; nobody waits for those that are added. */
	{"scale up in a canary",
	 "> serving idle=0 workers=4 per-worker\n"
	 "> upgrade canary pause=2500\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"
	 "> time 5\n"
	 " steer[1=7500 2=2500] #rollout-step 2 #rollout-paused 2\n"
	 "> scale 5\n"
	 " lane 1=0 spawn 1.4 lane 2=1 spawn 2.1 #scaled 1\n"
	 "> ready 2.*\n"
	 "> ready 1.*\n"
	 "> promote full\n"
	 " spawn 2.2 spawn 2.3 spawn 2.4\n"},
	{"scale down in a canary, and up again",
	 "> serving idle=0 workers=4\n"
	 "> upgrade blue-green soak=60\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1 spawn 2.2 spawn 2.3\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> scale 2\n"
	 " drain 1.2 drain 1.3 drain 2.2 drain 2.3 #scaled 1\n"
	 "> exit 2.3\n"
	 "> scale 4\n"
	 " lane 1=0 lane 2=1 spawn 2.3 #scaled 1\n"
	 "> exit 2.2\n"
	 " spawn 2.2\n"
	 "> ready 2.*\n"},
	/* While workers go one by one their number stays. */
	{"scale in a rolling upgrade",
	 "> serving idle=0 workers=2 per-worker\n"
	 "> upgrade rolling\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> scale 5\n"
	 " refused: rollout in progress\n"},
	/* What is to be kept warm stays whole: nobody is told to go one by one. */
	{"rolling keeps warm",
	 "> serving idle=0 workers=2 per-worker\n"
	 "> upgrade rolling keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=5000 2=5000] #rollout-step 2\n"
	 "> time 5\n"
	 " spawn 2.1\n"
	 "> time 5\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 5\n"
	 " #generation-warm 1 #rollout-promoted 2 #generation-serving 2 #rollout-ended 2 (done)\n"
	 "> time 2\n"
	 "> rollback 1\n"
	 " steer[1=10000] #generation-serving 1 #generation-draining 2 (rolled back on request)\n"},
	/* Where the kernel cannot keep them apart, a warm one would go on serving. */
	{"held is not kept warm",
	 "> serving idle=0 workers=1 held\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 5\n"
	 " #generation-draining 1 (replaced by a newer generation) drain 1.0 #rollout-promoted"
	 " 2 #generation-serving 2 #rollout-ended 2 (done)\n"},
	/* With a worker down the old one is kept, when it could carry the connections. */
	{"warm with a worker down",
	 "> serving idle=0 workers=2 soak=0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> rollback 1\n"
	 " steer[1=10000] #rollout-ended 2 (done) #generation-serving 1 #generation-draining 2"
	 " (rolled back on request)\n"
	 "> look\n"
	 " serving unhealthy verify=none\n"},
	{"too few to be kept warm",
	 "> serving idle=0 workers=3 soak=0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1 spawn 2.2\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"},
	/* Nobody notices: no share, no health, no state. */
	{"warm one crashes",
	 "> serving idle=0 workers=2 soak=0 per-worker\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> exit 1.0\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> rollback 1\n"
	 " refused: not alive\n"
	 "> ready 1.1\n"
	 "> rollback 1\n"
	 " steer[1=10000] #generation-serving 1 #generation-draining 2 (rolled back on request)\n"
	 "> look\n"
	 " serving unhealthy verify=none\n"
	 "> time 1\n"
	 " spawn 1.0 queue? 2.0 queue? 2.1 #rollout-ended 1 (done) drain 2.0 drain 2.1\n"
	 "> ready 1.*\n"},
	/* Half of them could carry the connections; the other half is started meanwhile. */
	{"rollback to half of the workers",
	 "> serving idle=0 workers=2 soak=0 per-worker\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> rollback 1\n"
	 " steer[1=10000] #generation-serving 1 #generation-draining 2 (rolled back on request)\n"
	 "> ready 1.0\n"},
	/* It ends when it cannot be kept alive, and nobody minds. */
	{"warm one ends by its own will",
	 "> serving idle=0 workers=2 soak=0 never\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> exit 1.0\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> exit 1.1\n"
	 " #generation-gone 1 release 1=0 forget 1\n"
	 "> look\n"
	 " serving healthy verify=none\n"
	 "> rollback 1\n"
	 " refused: not alive\n"},
	/* Who goes back needs as many workers there. */
	{"scale with a warm one",
	 "> serving idle=0 workers=2 soak=0 per-worker\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> scale 3\n"
	 " lane 2=1 spawn 2.2 lane 1=0 spawn 1.2 #scaled 2\n"
	 "> ready 2.2\n"
	 "> rollback 1\n"
	 " steer[1=10000] #generation-serving 1 #generation-draining 2 (rolled back on request)\n"
	 "> ready 1.2\n"
	 "> time 0.5\n"
	 "> rollback 2\n"
	 " steer[2=10000] #rollout-ended 1 (done) watch 2.0 watch 2.1 watch 2.2"
	 " #generation-serving 2 #generation-draining 1 (rolled back on request)\n"
	 "> time 10\n"
	 " queue? 1.0 queue? 1.1 queue? 1.2 #rollout-ended 2 (done) drain 1.0 drain 1.1 drain"
	 " 1.2\n"},
	{"scale down with a warm one",
	 "> serving idle=0 workers=2 soak=0 per-worker\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> scale 1\n"
	 " #scaled 2\n"
	 "> time 10\n"
	 " queue? 1.1 drain 1.1 queue? 2.1 drain 2.1\n"
	 "> exit 1.1\n"
	 "> exit 2.1\n"
	 "> rollback 1\n"
	 " steer[1=10000] #generation-serving 1 #generation-draining 2 (rolled back on request)\n"},
	/* A rollout to a third does not disturb it, until that is promoted. */
	{"warm during the next rollout",
	 "> serving idle=0 workers=1 soak=5\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 7\n"
	 " #generation-warm 1 #rollout-promoted 2 #generation-serving 2 #rollout-ended 2 (done)\n"
	 "> upgrade canary\n"
	 " #rollout-started 3 lane 3=2 spawn 3.0\n"
	 "> ready 3.*\n"
	 " steer[2=9500 3=500] #rollout-step 3\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> rollback 1\n"
	 " refused: rollout in progress\n"
	 "> abort\n"
	 " steer[2=10000] #rollout-ended 3 (aborted) #generation-draining 3 (aborted)\n"
	 "> ready 1.*\n"
	 "> rollback 1\n"
	 " steer[1=10000] #generation-serving 1 #generation-draining 2 (rolled back on request)\n"},
};
/* clang-format on */

START_TEST(stories_as_told)
{
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		story_check(&stories[i]);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {stories_as_told};

	return run_tests("canary", tests, ARRAY_SIZE(tests));
}

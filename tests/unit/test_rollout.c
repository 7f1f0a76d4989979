/* SPDX-License-Identifier: Apache-2.0 */
/* Rollouts, from the request to the end, told as stories. */
#include "story.h"
#include "unit.h"

/* clang-format off */
static const struct story_text stories[] = {
	/* The whole way: soak, settle, empty queue, idle connections, drain signal, gone. */
	{"blue green",
	 "> upgrade\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0 spawn 1.1\n"
	 "> ready 1.0\n"
	 "> ready 1.1\n"
	 " #rollout-step 1 #rollout-promoted 1 #generation-serving 1 #rollout-ended 1 (done)\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> busy connections\n"
	 "> time 4.9\n"
	 "> time 0.2\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 queue? 1.1 #rollout-ended 2 (done) connections?"
	 " 1.0 connections? 1.1 connections? 1.0 connections? 1.1 connections? 1.0"
	 " connections? 1.1 connections? 1.0 connections? 1.1 connections? 1.0 connections?"
	 " 1.1 connections? 1.0 connections? 1.1 connections? 1.0 connections? 1.1\n"
	 "> time 4.8\n"
	 " connections? 1.0 connections? 1.1 connections? 1.0 connections? 1.1 connections?"
	 " 1.0 connections? 1.1 connections? 1.0 connections? 1.1 connections? 1.0"
	 " connections? 1.1 connections? 1.0 connections? 1.1 connections? 1.0 connections?"
	 " 1.1 connections? 1.0 connections? 1.1 connections? 1.0 connections? 1.1"
	 " connections? 1.0 connections? 1.1 connections? 1.0 connections? 1.1 connections?"
	 " 1.0 connections? 1.1 connections? 1.0 connections? 1.1 connections? 1.0"
	 " connections? 1.1 connections? 1.0 connections? 1.1 connections? 1.0 connections?"
	 " 1.1 connections? 1.0 connections? 1.1 connections? 1.0 connections? 1.1"
	 " connections? 1.0 connections? 1.1 connections? 1.0 connections? 1.1\n"
	 "> time 0.2\n"
	 " drain 1.0 drain 1.1\n"
	 "> exit 1.0 clean\n"
	 "> exit 1.1 clean\n"
	 " #generation-gone 1 release 1=0 forget 1\n"},
	/* A queue that does not get empty holds the signal back until settle_timeout, and that is told. */
	{"queue before signal",
	 "> serving workers=1 soak=0\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> busy queues\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> time 30.9\n"
	 " queue? 1.0 ...\n"
	 "> time 0.2\n"
	 " #queue-abandoned 1 (replaced by a newer generation) connections? 1.0 #rollout-ended"
	 " 2 (done) connections? 1.0 drain 1.0\n"},
	/* On a shared queue nobody is told to go before the share is gone. */
	{"rolling shared",
	 "> serving workers=4\n"
	 "> upgrade rolling\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=7500 2=2500] #rollout-step 2\n"
	 "> time 5\n"
	 " spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[1=5000 2=5000] #rollout-step 2\n"
	 "> time 5\n"
	 " spawn 2.2\n"
	 "> ready 2.*\n"
	 " steer[1=2500 2=7500] #rollout-step 2\n"
	 "> time 5\n"
	 " spawn 2.3\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 5.01\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 queue? 1.1 queue? 1.2 queue? 1.3 #rollout-ended 2"
	 " (done) connections? 1.0 connections? 1.1 connections? 1.2 connections? 1.3"
	 " connections? 1.0 connections? 1.1 connections? 1.2 connections? 1.3 drain 1.0 drain"
	 " 1.1 drain 1.2 drain 1.3\n"
	 "> time 2\n"},
	/* With a socket each, old workers leave one by one, after they have settled. */
	{"rolling per worker",
	 "> serving workers=4 per-worker\n"
	 "> upgrade rolling\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=7500 2=2500] #rollout-step 2\n"
	 "> time 5\n"
	 " spawn 2.1\n"
	 "> time 1.01\n"
	 " queue? 1.0 connections? 1.0 ... drain 1.0\n"
	 "> exit 1.0\n"
	 "> ready 2.*\n"
	 " steer[1=5000 2=5000] #rollout-step 2\n"
	 "> time 5\n"
	 " spawn 2.2\n"
	 "> time 1.01\n"
	 " queue? 1.1 connections? 1.1 ... drain 1.1\n"
	 "> exit 1.1\n"
	 "> abort\n"
	 " steer[1=10000] spawn 1.0 spawn 1.1 #rollout-ended 2 (aborted) #generation-draining"
	 " 2 (aborted) drain 2.2\n"
	 "> time 2\n"
	 " queue? 2.0 queue? 2.1 connections? 2.0 connections? 2.1 connections? 2.0"
	 " connections? 2.1 drain 2.0 drain 2.1\n"
	 "> ready 1.*\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	/* Held sockets: old workers are told to go as new ones are ready, but never all of them. */
	{"rolling held",
	 "> serving workers=3 held\n"
	 "> upgrade rolling pause=9999\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=6667 2=3333] #rollout-step 2\n"
	 "> time 5\n"
	 " spawn 2.1\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 2.*\n"
	 " steer[1=3334 2=6666] #rollout-step 2\n"
	 "> time 5\n"
	 " drain 1.0 spawn 2.2\n"
	 "> ready 2.*\n"
	 " steer[1=1 2=9999] #rollout-step 2 #rollout-paused 2\n"
	 "> promote\n"
	 " steer[2=10000] drain 1.1 #rollout-step 2\n"
	 "> time 5\n"
	 " #generation-draining 1 (replaced by a newer generation) drain 1.2 #rollout-promoted"
	 " 2 #generation-serving 2 #rollout-ended 2 (done)\n"
	 "> exit 1.*\n"
	 " #generation-gone 1 release 1=0 forget 1\n"},
	{"canary",
	 "> serving workers=4\n"
	 "> upgrade canary\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"
	 "> time 5\n"
	 " steer[1=7500 2=2500] #rollout-step 2\n"
	 "> time 5\n"
	 " spawn 2.1 spawn 2.2 spawn 2.3\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 5.01\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 queue? 1.1 queue? 1.2 queue? 1.3 #rollout-ended 2"
	 " (done) connections? 1.0 connections? 1.1 connections? 1.2 connections? 1.3"
	 " connections? 1.0 connections? 1.1 connections? 1.2 connections? 1.3 drain 1.0 drain"
	 " 1.1 drain 1.2 drain 1.3\n"
	 "> time 7\n"},
	/* Stop first: who comes meanwhile waits in the new queue. */
	{"recreate",
	 "> serving\n"
	 "> upgrade recreate\n"
	 " #rollout-started 2 lane 2=1 steer[2=10000] #generation-draining 1 (replaced by a"
	 " newer generation)\n"
	 "> time 1.01\n"
	 " queue? 1.0 queue? 1.1 connections? 1.0 connections? 1.1 connections? 1.0"
	 " connections? 1.1 drain 1.0 drain 1.1\n"
	 "> time 30\n"
	 " TERM 1.0 TERM 1.1\n"
	 "> exit 1.*\n"
	 " spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " #rollout-step 2\n"
	 "> time 5\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 #rollout-ended 2 (done) #generation-gone 1 release 1=0 forget"
	 " 1\n"},
	/* The old one is started again on the sockets where everybody waits. */
	{"recreate fails",
	 "> serving\n"
	 "> upgrade recreate\n"
	 " #rollout-started 2 lane 2=1 steer[2=10000] #generation-draining 1 (replaced by a"
	 " newer generation)\n"
	 "> time 1.1\n"
	 " queue? 1.0 queue? 1.1 connections? 1.0 connections? 1.1 connections? 1.0"
	 " connections? 1.1 drain 1.0 drain 1.1\n"
	 "> exit 1.*\n"
	 " spawn 2.0 spawn 2.1\n"
	 "> exit 2.0\n"
	 " #generation-draining 2 (exited before it was ready) drain 2.0 drain 2.1\n"
	 "> exit 2.1\n"
	 " steer[1=10000] swap 1.2 spawn 1.0 spawn 1.1 #rollout-ended 2 (exited before it was"
	 " ready) #generation-gone 2 release 2=0 forget 2\n"
	 "> ready 1.*\n"},
	/* It goes on with its own sockets; who was told nothing yet was never away. */
	{"recreate without sockets",
	 "> serving\n"
	 "> upgrade recreate\n"
	 " #rollout-started 2 lane 2=1 steer[2=10000] #generation-draining 1 (replaced by a"
	 " newer generation)\n"
	 "> lane-failed 2\n"
	 " steer[1=10000] watch 1.0 watch 1.1 #rollout-ended 2 (its sockets could not be made)"
	 " #generation-draining 2 (its sockets could not be made) #generation-gone 2 release"
	 " 2=1 forget 2\n"},
	{"never ready",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.0\n"
	 "> time 59\n"
	 "> time 1\n"
	 " #rollout-ended 2 (was not ready in time) #generation-draining 2 (was not ready in"
	 " time) drain 2.0 drain 2.1\n"},
	{"exits before ready",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> exit 2.1\n"
	 " #rollout-ended 2 (exited before it was ready) #generation-draining 2 (exited before"
	 " it was ready) drain 2.0 drain 2.1\n"
	 "> exit 2.0\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	{"cannot be started",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> failed 2.0\n"
	 " #rollout-ended 2 (could not be started) #generation-draining 2 (could not be"
	 " started) drain 2.0 drain 2.1\n"
	 "> exit 2.1\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	/* What is in its queue is served by another of its workers, then it leaves. */
	{"dies while it soaks",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 4.9\n"
	 "> exit 2.0\n"
	 " steer[1=10000] #rollout-ended 2 (exited while it soaked) #generation-draining 2"
	 " (exited while it soaked)\n"
	 "> time 1.01\n"
	 " queue? 2.1 connections? 2.1 ... drain 2.1\n"
	 "> exit 2.1\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	{"hangs while it soaks",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> watchdog 2.0\n"
	 " steer[1=10000] ABRT 2.0 #rollout-ended 2 (missed its watchdog) #generation-draining"
	 " 2 (missed its watchdog)\n"
	 "> time 5\n"
	 " queue? 2.1 connections? 2.1 ... drain 2.1 KILL 2.0\n"
	 "> exit 2.0\n"},
	{"says it has failed",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> error 2.1\n"
	 " #rollout-ended 2 (reported an error) #generation-draining 2 (reported an error)"
	 " drain 2.0 drain 2.1\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2\n"
	 "> error 1.0\n"},
	{"sockets cannot be made",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> lane-failed 2\n"
	 " #rollout-ended 2 (its sockets could not be made) #generation-draining 2 (its"
	 " sockets could not be made) drain 2.0 drain 2.1\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	/* Nobody else would serve its queue: it is started again for that, three times at most. */
	{"single worker dies while it soaks",
	 "> serving workers=1\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> busy queues\n"
	 "> exit 2.0\n"
	 " steer[1=10000] #rollout-ended 2 (exited while it soaked) #generation-draining 2"
	 " (exited while it soaked) spawn 2.0\n"
	 "> exit 2.0\n"
	 " spawn 2.0\n"
	 "> time 2\n"
	 " queue? 2.0 ...\n"
	 "> exit 2.0\n"
	 " spawn 2.0\n"
	 "> exit 2.0\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	{"abort while starting",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> abort\n"
	 " #rollout-ended 2 (aborted) #generation-draining 2 (aborted) drain 2.0 drain 2.1\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2\n"
	 "> abort\n"
	 " refused: no rollout\n"},
	{"abort while it soaks",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> abort\n"
	 " steer[1=10000] #rollout-ended 2 (aborted) #generation-draining 2 (aborted)\n"
	 "> time 1.1\n"
	 " queue? 2.0 queue? 2.1 connections? 2.0 connections? 2.1 connections? 2.0"
	 " connections? 2.1 drain 2.0 drain 2.1\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	/* Paused, a soak has no end; promote goes on. */
	{"pause and promote",
	 "> serving workers=1\n"
	 "> upgrade canary\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"
	 "> pause\n"
	 " #rollout-paused 2\n"
	 "> time 100\n"
	 "> promote\n"
	 " steer[1=7500 2=2500] #rollout-step 2\n"
	 "> time 5\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> pause\n"
	 " #rollout-paused 2\n"
	 "> full\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 5\n"
	 " queue? 1.0 #rollout-ended 2 (done) connections? 1.0 ... drain 1.0\n"},
	{"pause at",
	 "> serving workers=4\n"
	 "> upgrade pause=3000\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[1=7000 2=3000] #rollout-step 2 #rollout-paused 2\n"
	 "> time 3600\n"
	 "> ready 2.*\n"
	 "> promote\n"
	 " spawn 2.2 spawn 2.3\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 5.01\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 queue? 1.1 queue? 1.2 queue? 1.3 #rollout-ended 2"
	 " (done) connections? 1.0 connections? 1.1 connections? 1.2 connections? 1.3"
	 " connections? 1.0 connections? 1.1 connections? 1.2 connections? 1.3 drain 1.0 drain"
	 " 1.1 drain 1.2 drain 1.3\n"},
	/* To the last step at once, however many are left; it still soaks. */
	{"full",
	 "> serving workers=4\n"
	 "> upgrade canary\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=9500 2=500] #rollout-step 2\n"
	 "> full\n"
	 " spawn 2.1 spawn 2.2 spawn 2.3\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 5.01\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 queue? 1.1 queue? 1.2 queue? 1.3 #rollout-ended 2"
	 " (done) connections? 1.0 connections? 1.1 connections? 1.2 connections? 1.3"
	 " connections? 1.0 connections? 1.1 connections? 1.2 connections? 1.3 drain 1.0 drain"
	 " 1.1 drain 1.2 drain 1.3\n"},
	{"overlap reject",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> upgrade\n"
	 " refused: rollout in progress\n"
	 "> upgrade queue\n"
	 " refused: rollout in progress\n"},
	{"overlap supersede",
	 "> serving\n"
	 "> upgrade supersede\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> upgrade\n"
	 " steer[1=10000] #rollout-ended 2 (superseded by a later upgrade)"
	 " #generation-draining 2 (superseded by a later upgrade) #rollout-started 3 lane 3=2"
	 " spawn 3.0 spawn 3.1\n"
	 "> time 1.1\n"
	 " queue? 2.0 queue? 2.1 connections? 2.0 connections? 2.1 connections? 2.0"
	 " connections? 2.1 drain 2.0 drain 2.1\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2\n"
	 "> ready 3.*\n"
	 " steer[3=10000] #rollout-step 3\n"
	 "> time 5.01\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 3"
	 " #generation-serving 3 queue? 1.0 queue? 1.1 #rollout-ended 3 (done) connections?"
	 " 1.0 connections? 1.1 connections? 1.0 connections? 1.1 drain 1.0 drain 1.1\n"},
	/* What is superseded makes the room; it is not cut off from its queue. */
	{"supersede at the limit",
	 "> serving workers=1 max=2\n"
	 "> upgrade supersede\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> upgrade\n"
	 " steer[1=10000] #rollout-ended 2 (superseded by a later upgrade)"
	 " #generation-draining 2 (superseded by a later upgrade) #rollout-started 3"
	 " #rollout-waiting 3\n"
	 "> time 2\n"
	 " queue? 2.0 connections? 2.0 ... drain 2.0\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2 lane 3=1 spawn 3.0\n"
	 "> ready 3.*\n"
	 " steer[3=10000] #rollout-step 3\n"},
	/* The old one has been stopped: first it must come back. Nothing changes. */
	{"supersede recreate",
	 "> serving\n"
	 "> upgrade recreate\n"
	 " #rollout-started 2 lane 2=1 steer[2=10000] #generation-draining 1 (replaced by a"
	 " newer generation)\n"
	 "> upgrade supersede\n"
	 " refused: rollout in progress\n"},
	/* A start that does not get ready is no reason to wait, and its queue is for the next. */
	{"supersede first start",
	 "> upgrade\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0 spawn 1.1\n"
	 "> ready 1.0\n"
	 "> upgrade\n"
	 " #rollout-ended 1 (superseded by a later upgrade) #generation-draining 1 (superseded"
	 " by a later upgrade) drain 1.0 drain 1.1 #rollout-started 2\n"
	 "> exit 1.*\n"
	 " steer[2=10000] #generation-gone 1 release 1=0 forget 1 lane 2=0 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " #rollout-step 2 #rollout-promoted 2 #generation-serving 2 #rollout-ended 2 (done)\n"},
	/* A rollout waits for room, then goes on by itself. */
	{"several gone before",
	 "> serving workers=1 max=2\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 6.5\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 #rollout-ended 2 (done) connections? 1.0 ... drain"
	 " 1.0\n"
	 "> upgrade\n"
	 " refused: too many generations\n"
	 "> upgrade queue\n"
	 " #rollout-started 3 #rollout-waiting 3 KILL 1.0\n"
	 "> exit 1.0\n"
	 " #generation-gone 1 release 1=0 forget 1 lane 3=0 spawn 3.0\n"
	 "> ready 3.*\n"
	 " steer[3=10000] #rollout-step 3\n"},
	/* Room is made by killing the oldest drain, but not before its queue is empty. */
	{"cut short after its queue",
	 "> serving workers=1 max=2 soak=0\n"
	 "> upgrade queue\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> busy queues\n"
	 "> upgrade\n"
	 " #rollout-ended 2 (done) #rollout-started 3 #rollout-waiting 3\n"
	 "> time 2\n"
	 " queue? 1.0 ...\n"
	 "> busy nothing\n"
	 "> time 1\n"
	 " queue? 1.0 KILL 1.0\n"
	 "> exit 1.0\n"
	 " #generation-gone 1 release 1=0 forget 1 lane 3=0 spawn 3.0\n"},
	/* The old one fails: it is started again, and the rollout does not mind. */
	{"watchdog of the old",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> watchdog 1.0\n"
	 " ABRT 1.0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 5.01\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 queue? 1.1 #rollout-ended 2 (done) connections?"
	 " 1.0 connections? 1.1 connections? 1.0 connections? 1.1 drain 1.0 drain 1.1\n"},
	/* It hung, and died only after it was replaced: what is in its queue is served first. */
	{"killed when replaced",
	 "> serving workers=1\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> watchdog 1.0\n"
	 " ABRT 1.0\n"
	 "> time 5\n"
	 " KILL 1.0 #generation-draining 1 (replaced by a newer generation) #rollout-promoted"
	 " 2 #generation-serving 2 #rollout-ended 2 (done)\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> time 1\n"
	 " queue? 1.0 connections? 1.0 ... drain 1.0\n"
	 "> exit 1.0\n"
	 " #generation-gone 1 release 1=0 forget 1\n"},
	/* Of a listener that only the new one has, everything goes there from the start. */
	{"new listener",
	 "> serving\n"
	 "> upgrade listeners=3\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> time 5.01\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 queue? 1.1 #rollout-ended 2 (done) connections?"
	 " 1.0 connections? 1.1 connections? 1.0 connections? 1.1 drain 1.0 drain 1.1\n"},
	/* A worker that serves stays for as long as there is another to replace. */
	{"rolling replaces the dead first",
	 "> serving workers=2 per-worker\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> exit 1.1\n"
	 "> upgrade rolling\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[1=5000 2=5000] #rollout-step 2\n"
	 "> time 5\n"
	 " spawn 1.1 spawn 2.1\n"},
};
/* clang-format on */

START_TEST(stories_as_told)
{
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		story_check(&stories[i]);
}
END_TEST

/* Whatever the strategy: at least one worker, never fewer, never a smaller share, all of both in
 * the end; and a step that ends where it shall pause. */
static void check_plan(const struct policy *p, unsigned pause_at)
{
	static struct rollout_step steps[CONFIG_WORKERS_MAX];
	unsigned n = rollout_plan(p, pause_at, steps);
	struct rollout_step last = {1, 0};
	bool pauses = pause_at == 0 || pause_at >= SHARE_MAX || p->strategy == STRATEGY_RECREATE;

	ck_assert_uint_ge(n, 1);
	ck_assert_uint_le(n, CONFIG_WORKERS_MAX);
	for (unsigned i = 0; i < n; i++) {
		ck_assert_uint_ge(steps[i].workers, last.workers);
		ck_assert_uint_gt(steps[i].weight, last.weight);
		/* Enough workers for the share. */
		ck_assert_uint_ge((uint64_t)steps[i].workers * SHARE_MAX + SHARE_MAX - 1,
			(uint64_t)p->workers * steps[i].weight);
		pauses |= steps[i].weight == pause_at;
		last = steps[i];
	}
	ck_assert_uint_eq(last.workers, p->workers);
	ck_assert_uint_eq(last.weight, SHARE_MAX);
	ck_assert_msg(pauses, "strategy %d, %u workers: no step at %u", (int)p->strategy,
		p->workers, pause_at);
}

START_TEST(plans)
{
	static const unsigned workers[] = {1, 2, 3, 4, 7, 8, 100, 1023, 1024};
	static const unsigned surges[] = {1, 100, 2500, 3333, 5000, SHARE_MAX};
	static const unsigned pauses[] = {0, 1, 499, 500, 501, 5000, 9999, SHARE_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(workers); i++)
		for (size_t k = 0; k < ARRAY_SIZE(surges); k++)
			for (size_t m = 0; m < ARRAY_SIZE(pauses); m++)
				for (unsigned s = 0; s < 4; s++)
					check_plan(
						&(struct policy){
							.strategy = (enum strategy)s,
							.workers = workers[i],
							.surge = surges[k],
							.steps = {500, 2500, SHARE_MAX},
							.n_steps = 3
					    },
						pauses[m]);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {stories_as_told, plans};

	return run_tests("rollout", tests, ARRAY_SIZE(tests));
}

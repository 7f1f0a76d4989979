/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a service, told as stories. */
#include "story.h"
#include "unit.h"

/* clang-format off */
static const struct story_text stories[] = {
	/* A stop ends what is in flight, and has no use for the sockets any more. */
	{"start and stop",
	 "> upgrade\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0 spawn 1.1\n"
	 "> ready 1.*\n"
	 " #rollout-step 1 #rollout-promoted 1 #generation-serving 1 #rollout-ended 1 (done)\n"
	 "> stop\n"
	 " #service-stopping 1 #generation-draining 1 (the service was stopped) drain 1.0"
	 " drain 1.1\n"
	 "> exit 1.0 clean\n"
	 "> exit 1.1 clean\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"
	 "> stop\n"
	 " refused: not running\n"},
	{"stop escalates",
	 "> serving workers=1\n"
	 "> stop\n"
	 " #service-stopping 1 #generation-draining 1 (the service was stopped) drain 1.0\n"
	 "> time 29\n"
	 "> time 1\n"
	 " TERM 1.0\n"
	 "> time 5\n"
	 " KILL 1.0\n"
	 "> time 5\n"
	 " KILL 1.0\n"
	 "> exit 1.0\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"},
	{"kill",
	 "> serving\n"
	 "> kill\n"
	 " #service-stopping 1 KILL 1.0 KILL 1.1 #generation-draining 1 (the service was"
	 " stopped)\n"
	 "> exit 1.*\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"},
	{"stop then kill",
	 "> serving\n"
	 "> stop\n"
	 " #service-stopping 1 #generation-draining 1 (the service was stopped) drain 1.0"
	 " drain 1.1\n"
	 "> kill\n"
	 " KILL 1.0 KILL 1.1\n"
	 "> exit 1.*\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"},
	{"stop while starting",
	 "> upgrade\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0 spawn 1.1\n"
	 "> stop\n"
	 " #service-stopping #rollout-ended 1 (the service was stopped) #generation-draining 1"
	 " (the service was stopped) drain 1.0 drain 1.1\n"
	 "> exit 1.*\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"},
	{"stop while an upgrade starts",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> stop\n"
	 " #service-stopping 1 #rollout-ended 2 (the service was stopped) #generation-draining"
	 " 1 (the service was stopped) drain 1.0 drain 1.1 #generation-draining 2 (the service"
	 " was stopped) drain 2.0 drain 2.1\n"
	 "> exit 1.*\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2 close #service-stopped\n"},
	{"stop while an upgrade soaks",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> stop\n"
	 " #service-stopping 1 #rollout-ended 2 (the service was stopped) #generation-draining"
	 " 1 (the service was stopped) drain 1.0 drain 1.1 #generation-draining 2 (the service"
	 " was stopped) drain 2.0 drain 2.1\n"
	 "> exit 1.*\n"
	 " #generation-gone 1 release 1=0 forget 1\n"
	 "> exit 2.*\n"
	 " steer[0=10000] #generation-gone 2 release 2=1 forget 2 close #service-stopped\n"},
	{"stop while the old one settles",
	 "> serving soak=0\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> stop\n"
	 " #service-stopping 2 #rollout-ended 2 (done) drain 1.0 drain 1.1"
	 " #generation-draining 2 (the service was stopped) drain 2.0 drain 2.1\n"
	 "> exit 1.*\n"
	 " #generation-gone 1 release 1=0 forget 1\n"
	 "> exit 2.*\n"
	 " steer[0=10000] #generation-gone 2 release 2=1 forget 2 close #service-stopped\n"},
	{"stop while recreate stops the old one",
	 "> serving\n"
	 "> upgrade recreate\n"
	 " #rollout-started 2 lane 2=1 steer[2=10000] #generation-draining 1 (replaced by a"
	 " newer generation)\n"
	 "> stop\n"
	 " #service-stopping 1 #rollout-ended 2 (the service was stopped) #generation-draining"
	 " 1 (the service was stopped) steer[1=10000] drain 1.0 drain 1.1 #generation-draining"
	 " 2 (the service was stopped) #generation-gone 2 release 2=1 forget 2\n"
	 "> exit 1.*\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"},
	/* Whoever its workers left behind may still accept from the lane, and the port is not free
	 * before all are gone. */
	{"gone is who has left nobody",
	 "> serving contained\n"
	 "> upgrade soak=0\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> empty 1\n"
	 " refused: No such process\n"
	 "> time 2\n"
	 " queue? 1.0 queue? 1.1 #rollout-ended 2 (done) connections? 1.0 connections? 1.1"
	 " connections? 1.0 connections? 1.1 drain 1.0 drain 1.1\n"
	 "> exit 1.*\n"
	 " end-rest 1\n"
	 "> rollback 1\n"
	 " refused: not alive\n"
	 "> empty 1\n"
	 " #generation-gone 1 release 1=0 forget 1\n"
	 "> empty 1\n"
	 " refused: No such process\n"},
	{"what cannot be ended is not waited for for ever",
	 "> serving contained\n"
	 "> stop\n"
	 " #service-stopping 1 #generation-draining 1 (the service was stopped) drain 1.0"
	 " drain 1.1\n"
	 "> exit 1.*\n"
	 " end-rest 1\n"
	 "> stop\n"
	 "> time 4\n"
	 "> time 1\n"
	 " #generation-gone 1 steer[0=10000] release 1=0 forget 1 close #service-stopped\n"},
	{"all have ended, and somebody is left",
	 "> serving contained never\n"
	 "> exit 1.0 clean\n"
	 "> exit 1.1 clean\n"
	 " end-rest 1\n"
	 "> look\n"
	 " failing unhealthy verify=none\n"
	 "> upgrade\n"
	 " #rollout-started 2\n"
	 "> empty 1\n"
	 " #generation-gone 1 steer[2=10000] release 1=0 forget 1 lane 2=0 spawn 2.0 spawn 2.1\n"},
	{"stop in backoff",
	 "> serving workers=1\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> stop\n"
	 " #service-stopping 1 #generation-draining 1 (the service was stopped) steer[0=10000]"
	 " #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"},
	{"start again while stopping",
	 "> serving\n"
	 "> stop\n"
	 " #service-stopping 1 #generation-draining 1 (the service was stopped) drain 1.0"
	 " drain 1.1\n"
	 "> start\n"
	 "> upgrade\n"
	 " refused: stopping\n"
	 "> exit 1.*\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 start-again\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=0 steer[2=10000] spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " #rollout-step 2 #rollout-promoted 2 #generation-serving 2 #rollout-ended 2 (done)\n"},
	{"stop takes back the start",
	 "> serving\n"
	 "> stop\n"
	 " #service-stopping 1 #generation-draining 1 (the service was stopped) drain 1.0"
	 " drain 1.1\n"
	 "> start\n"
	 "> stop\n"
	 "> exit 1.*\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1 close #service-stopped\n"},
	/* Not for the core to answer. */
	{"start when it runs",
	 "> serving\n"
	 "> start\n"
	 " refused: Protocol error\n"},
	/* The first time at once, then with growing patience, but for ever. */
	{"crash respawns",
	 "> serving\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 "> exit 1.0\n"
	 "> time 0.1\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> time 0.2\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> time 0.4\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> time 29\n"
	 "> time 1\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"},
	/* A worker of generation 1 is replaced by one of generation 1. */
	{"crash of the old while upgrading",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> time 5.01\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-promoted 2"
	 " #generation-serving 2 queue? 1.0 queue? 1.1 #rollout-ended 2 (done) connections?"
	 " 1.0 connections? 1.1 connections? 1.0 connections? 1.1 drain 1.0 drain 1.1\n"},
	{"ends by its own will",
	 "> serving never\n"
	 "> exit 1.0\n"
	 "> exit 1.1\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1\n"
	 "> upgrade always\n"
	 " #rollout-started 2 lane 2=0 steer[2=10000] spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " #rollout-step 2 #rollout-promoted 2 #generation-serving 2 #rollout-ended 2 (done)\n"},
	{"on failure",
	 "> serving on-failure\n"
	 "> exit 1.0 clean\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> ready 1.1\n"
	 "> exit 1.1 clean\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1\n"},
	/* Never ready, five times within a minute. */
	{"start is given up",
	 "> upgrade workers=1\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0\n"
	 "> exit 1.0\n"
	 "> time 0.1\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> time 0.2\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> time 0.4\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> time 0.8\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 " steer[0=10000] #generation-given-up 1 (was started too often without becoming"
	 " ready) #rollout-ended 1 (was started too often without becoming ready)"
	 " #generation-draining 1 (was started too often without becoming ready)"
	 " #generation-gone 1 release 1=0 forget 1\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=0 steer[2=10000] spawn 2.0\n"
	 "> ready 2.*\n"
	 " #rollout-step 2 #rollout-promoted 2 #generation-serving 2 #rollout-ended 2 (done)\n"},
	/* Nobody will start it again: the start has failed, and says why. */
	{"start with restart never",
	 "> upgrade workers=2 never\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0 spawn 1.1\n"
	 "> exit 1.0\n"
	 " #generation-given-up 1 (exited before it was ready) #rollout-ended 1 (exited before"
	 " it was ready) #generation-draining 1 (exited before it was ready) drain 1.1\n"
	 "> exit 1.1\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1\n"},
	{"start that cannot be executed",
	 "> upgrade workers=1\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0\n"
	 "> failed 1.0 useless\n"
	 " steer[0=10000] #generation-given-up 1 (could not be started) #rollout-ended 1"
	 " (could not be started) #generation-draining 1 (could not be started)"
	 " #generation-gone 1 release 1=0 forget 1\n"},
	{"start without sockets",
	 "> upgrade workers=1\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0\n"
	 "> lane-failed 1\n"
	 " #generation-given-up 1 (its sockets could not be made) #rollout-ended 1 (its"
	 " sockets could not be made) #generation-draining 1 (its sockets could not be made)"
	 " drain 1.0\n"
	 "> exit 1.0\n"
	 " steer[0=10000] #generation-gone 1 release 1=0 forget 1\n"},
	/* Without a rollout to fail, it is killed and counts as a failure. */
	{"not ready in time",
	 "> upgrade workers=1\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0\n"
	 "> time 59\n"
	 "> extend 1.0\n"
	 "> time 2\n"
	 "> time 90\n"
	 " KILL 1.0\n"
	 "> exit 1.0\n"
	 "> time 1\n"
	 " spawn 1.0\n"},
	{"watchdog",
	 "> serving workers=1\n"
	 "> watchdog 1.0\n"
	 " ABRT 1.0\n"
	 "> watchdog 1.0\n"
	 "> time 5\n"
	 " KILL 1.0\n"
	 "> time 5\n"
	 " KILL 1.0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"},
	/* Workers ready first; on a shared queue who is to go is told at once. */
	{"scale up and down shared",
	 "> serving\n"
	 "> scale 4\n"
	 " lane 1=0 spawn 1.2 spawn 1.3 #scaled 1\n"
	 "> ready 1.*\n"
	 "> scale 1\n"
	 " drain 1.1 drain 1.2 drain 1.3 #scaled 1\n"
	 "> exit 1.3\n"
	 "> exit 1.2\n"
	 "> exit 1.1\n"},
	/* Steering leaves its socket first, which settles. */
	{"scale per worker",
	 "> serving workers=3 per-worker\n"
	 "> scale 1\n"
	 " #scaled 1\n"
	 "> time 0.9\n"
	 "> time 0.2\n"
	 " queue? 1.1 queue? 1.2 connections? 1.1 connections? 1.2 connections? 1.1"
	 " connections? 1.2 drain 1.1 drain 1.2\n"
	 "> scale 3\n"
	 " lane 1=0 #scaled 1\n"
	 "> exit 1.2\n"
	 " spawn 1.2\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"
	 "> ready 1.*\n"},
	{"scale back up before it was told",
	 "> serving workers=2 per-worker\n"
	 "> scale 1\n"
	 " #scaled 1\n"
	 "> time 0.5\n"
	 "> scale 2\n"
	 " lane 1=0 watch 1.1 #scaled 1\n"
	 "> time 60\n"},
	{"scale refused",
	 "> upgrade\n"
	 " #rollout-started 1 lane 1=0 steer[1=10000] spawn 1.0 spawn 1.1\n"
	 "> scale 3\n"
	 " refused: not running\n"
	 "> ready 1.*\n"
	 " #rollout-step 1 #rollout-promoted 1 #generation-serving 1 #rollout-ended 1 (done)\n"
	 "> upgrade recreate\n"
	 " #rollout-started 2 lane 2=1 steer[2=10000] #generation-draining 1 (replaced by a newer"
	 " generation)\n"
	 "> scale 3\n"
	 " refused: rollout in progress\n"},
	/* One setsockopt, no process. */
	{"rollback to warm",
	 "> serving soak=0\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 10\n"
	 " #rollout-ended 2 (done)\n"
	 "> rollback 1\n"
	 " steer[1=10000] #generation-serving 1 #generation-draining 2 (rolled back on request)\n"
	 "> time 1.01\n"
	 " queue? 2.0 queue? 2.1 #rollout-ended 1 (done) connections? 2.0 connections? 2.1"
	 " connections? 2.0 connections? 2.1 drain 2.0 drain 2.1\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	{"rollback while it settles",
	 "> serving soak=0\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> time 0.5\n"
	 "> rollback 1\n"
	 " steer[1=10000] #rollout-ended 2 (done) watch 1.0 watch 1.1 #generation-serving 1"
	 " #generation-draining 2 (rolled back on request)\n"
	 "> time 1.1\n"
	 " queue? 2.0 queue? 2.1 #rollout-ended 1 (done) connections? 2.0 connections? 2.1"
	 " connections? 2.0 connections? 2.1 drain 2.0 drain 2.1\n"
	 "> exit 2.*\n"
	 " #generation-gone 2 release 2=1 forget 2\n"},
	{"rollback while it waits to be idle",
	 "> serving soak=0 workers=1\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> busy connections\n"
	 "> time 3\n"
	 " queue? 1.0 #rollout-ended 2 (done) connections? 1.0 ...\n"
	 "> rollback 1\n"
	 " steer[1=10000] watch 1.0 #generation-serving 1 #generation-draining 2 (rolled back"
	 " on request)\n"},
	{"rollback too late",
	 "> serving soak=0\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> time 2\n"
	 " queue? 1.0 queue? 1.1 #rollout-ended 2 (done) connections? 1.0 connections? 1.1"
	 " connections? 1.0 connections? 1.1 drain 1.0 drain 1.1\n"
	 "> rollback 1\n"
	 " refused: not alive\n"
	 "> rollback 7\n"
	 " refused: not alive\n"},
	{"rollback in a rollout",
	 "> serving\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> rollback 1\n"
	 " refused: rollout in progress\n"},
	{"warm until",
	 "> serving soak=0\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 599\n"
	 " #rollout-ended 2 (done)\n"
	 "> time 2\n"
	 " #generation-draining 1 (replaced by a newer generation) queue? 1.0 queue? 1.1"
	 " connections? 1.0 connections? 1.1 connections? 1.0 connections? 1.1 drain 1.0 drain"
	 " 1.1\n"
	 "> exit 1.*\n"
	 " #generation-gone 1 release 1=0 forget 1\n"},
	/* It is kept ready, or it would be no way back. */
	{"warm worker crashes",
	 "> serving soak=0 workers=1\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> rollback 1\n"
	 " refused: not alive\n"
	 "> ready 1.0\n"
	 "> rollback 1\n"
	 " steer[1=10000] #rollout-ended 2 (done) #generation-serving 1 #generation-draining 2"
	 " (rolled back on request)\n"},
	{"one warm generation",
	 "> serving soak=0 workers=1\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> upgrade\n"
	 " #rollout-started 3 lane 3=2 spawn 3.0\n"
	 "> ready 3.*\n"
	 " steer[3=10000] #rollout-step 3 #generation-draining 1 (replaced by a newer"
	 " generation) #generation-warm 2 #rollout-promoted 3 #generation-serving 3\n"
	 "> time 2\n"
	 " queue? 1.0 connections? 1.0 ... drain 1.0 #rollout-ended 3 (done)\n"},
	{"warm makes room",
	 "> serving soak=0 workers=1 max=2\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> upgrade\n"
	 " #generation-draining 1 (replaced by a newer generation) #rollout-started 3"
	 " #rollout-waiting 3\n"
	 "> time 1\n"
	 " queue? 1.0 connections? 1.0 ... drain 1.0\n"
	 "> exit 1.0\n"
	 " #generation-gone 1 release 1=0 forget 1 lane 3=0 spawn 3.0\n"
	 "> ready 3.*\n"
	 " steer[3=10000] #rollout-step 3 #generation-warm 2 #rollout-promoted 3"
	 " #generation-serving 3\n"},
	{"max generations",
	 "> serving soak=0 workers=1 max=2\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> time 2\n"
	 " queue? 1.0 #rollout-ended 2 (done) connections? 1.0 ... drain 1.0\n"
	 "> upgrade\n"
	 " refused: too many generations\n"
	 "> time 36\n"
	 " TERM 1.0 KILL 1.0\n"
	 "> exit 1.0\n"
	 " #generation-gone 1 release 1=0 forget 1\n"
	 "> upgrade\n"
	 " #rollout-started 3 lane 3=0 spawn 3.0\n"},
	/* The drain signal, then TERM to the group, then KILL, and again. */
	{"drain escalates",
	 "> serving soak=0 workers=1\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> time 1.01\n"
	 " queue? 1.0 #rollout-ended 2 (done) connections? 1.0 ... drain 1.0\n"
	 "> time 29\n"
	 "> time 1\n"
	 " TERM 1.0\n"
	 "> time 5\n"
	 " KILL 1.0\n"
	 "> time 5\n"
	 " KILL 1.0\n"
	 "> time 5\n"
	 " KILL 1.0\n"
	 "> exit 1.0\n"
	 " #generation-gone 1 release 1=0 forget 1\n"},
	/* The only one that would serve its queue dies while it settles; and comes back three times. */
	{"rescue",
	 "> serving soak=0 workers=1\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> failed 1.0\n"
	 " #rollout-ended 2 (done) #generation-gone 1 release 1=0 forget 1\n"},
	{"no rescue for a shared queue",
	 "> serving soak=0\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0 spawn 2.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) #rollout-promoted 2 #generation-serving 2\n"
	 "> exit 1.0\n"
	 "> exit 1.1\n"
	 " spawn 1.1\n"},
	/* Its queue may hold somebody: it is started once more, to serve them. */
	{"backoff when replaced",
	 "> serving soak=0 workers=1\n"
	 "> upgrade\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> exit 1.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-draining 1 (replaced by a newer"
	 " generation) spawn 1.0 #rollout-promoted 2 #generation-serving 2\n"
	 "> time 1.01\n"
	 " queue? 1.0 #rollout-ended 2 (done) connections? 1.0 ... drain 1.0\n"
	 "> exit 1.0\n"
	 " #generation-gone 1 release 1=0 forget 1\n"},
	{"has no rollout",
	 "> serving\n"
	 "> promote\n"
	 " refused: no rollout\n"
	 "> full\n"
	 " refused: no rollout\n"
	 "> pause\n"
	 " refused: no rollout\n"
	 "> abort\n"
	 " refused: no rollout\n"},
	/* Nobody is left in the old one: the first step has everything. */
	{"restart never does not hold a share",
	 "> serving never workers=2\n"
	 "> upgrade canary\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> exit 1.0\n"
	 "> exit 1.1\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2\n"},
	{"warm one has ended",
	 "> serving never workers=1 soak=0\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> exit 1.0\n"
	 " #generation-gone 1 release 1=0 forget 1 #rollout-ended 2 (done)\n"},
	{"nothing to go back from",
	 "> serving never workers=1 soak=0\n"
	 "> upgrade keep=600\n"
	 " #rollout-started 2 lane 2=1 spawn 2.0\n"
	 "> ready 2.*\n"
	 " steer[2=10000] #rollout-step 2 #generation-warm 1 #rollout-promoted 2"
	 " #generation-serving 2\n"
	 "> time 2\n"
	 " #rollout-ended 2 (done)\n"
	 "> exit 2.0\n"
	 " steer[0=10000] #generation-draining 1 (replaced by a newer generation)"
	 " #generation-gone 2 release 2=1 forget 2\n"
	 "> time 2\n"
	 " queue? 1.0 connections? 1.0 ... drain 1.0\n"
	 "> exit 1.0\n"
	 " #generation-gone 1 release 1=0 forget 1\n"},
	/* The first respawn is at once, but not when there was no process at all. */
	{"cannot be created",
	 "> serving workers=1\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> failed 1.0\n"
	 "> time 0.1\n"
	 " spawn 1.0\n"
	 "> ready 1.0\n"
	 "> exit 1.0\n"},
	/* Also where nothing else says to wait. */
	{"retries leave time",
	 "> serving workers=1 backoff=0\n"
	 "> exit 1.0\n"
	 " spawn 1.0\n"
	 "> failed 1.0\n"
	 "> time 0.099\n"
	 "> time 0.001\n"
	 " spawn 1.0\n"},
};
/* clang-format on */

START_TEST(stories_as_told)
{
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		story_check(&stories[i]);
}
END_TEST

/* --- listeners that come and go while it runs ---------------------------------------------------
 */

static int tell(struct service *s, struct service_event e, struct effects *ret)
{
	effects_done(ret);
	return service_step(s, &e, 1, ret);
}

START_TEST(other_listeners)
{
	struct upgrade_spec spec = {.listeners = 1};
	struct service_config config;
	struct effects effects = {0};
	struct lane_share shares[CONFIG_GENERATIONS_MAX + 2];
	struct service_event listeners = {.kind = EVENT_LISTENERS, .generation = 1, .spec = &spec};
	const struct generation *g;
	struct service s;

	ck_assert_int_eq(service_config_init(&config, "web"), 0);
	config.workers = 1;
	policy_from_config(&spec.policy, &config);
	spec.policy.steered = spec.policy.per_worker = true;
	service_init(&s);
	ck_assert_int_eq(tell(&s, listeners, &effects), -ESRCH);
	ck_assert_int_eq(
		tell(&s, (struct service_event){.kind = EVENT_UPGRADE, .spec = &spec}, &effects),
		0);
	ck_assert_int_eq(
		tell(&s, (struct service_event){.kind = EVENT_READY, .generation = 1}, &effects),
		0);
	ck_assert_uint_eq(s.current, 1);
	ck_assert_uint_eq(service_shares(&s, 2, shares), 1);
	ck_assert_ptr_null(shares[0].generation);

	/* Sockets first, then connections. */
	spec.listeners = 3;
	spec.policy.per_worker = false;
	ck_assert_int_eq(tell(&s, listeners, &effects), 0);
	g = service_generation(&s, 1);
	ck_assert_uint_eq(effects.n, 2);
	ck_assert_int_eq(effects.list[0].kind, EFFECT_PREPARE_LANE);
	ck_assert_uint_eq(effects.list[0].value, g->lane);
	ck_assert_int_eq(effects.list[1].kind, EFFECT_STEER);
	ck_assert(g->policy.steered && !g->policy.per_worker);
	ck_assert_uint_eq(service_shares(&s, 2, shares), 1);
	ck_assert_ptr_eq(shares[0].generation, g);
	ck_assert(service_is_valid(&s));

	spec.listeners = 1;
	ck_assert_int_eq(tell(&s, listeners, &effects), 0);
	ck_assert_uint_eq(service_shares(&s, 2, shares), 1);
	ck_assert_ptr_null(shares[0].generation);
	ck_assert(service_is_valid(&s));
	service_config_done(&config);
	service_done(&s);
	effects_done(&effects);
}
END_TEST

/* --- a process that ran before -------------------------------------------------------------------
 */

static bool has_effect(const struct effects *effects, enum effect_kind kind)
{
	for (size_t i = 0; i < effects->n; i++)
		if (effects->list[i].kind == kind)
			return true;
	return false;
}

/* What would end the worker of a generation. */
static bool is_signalled(const struct effects *effects, unsigned generation)
{
	for (size_t i = 0; i < effects->n; i++)
		if (effects->list[i].generation == generation &&
			effects->list[i].kind >= EFFECT_SIGNAL_DRAIN &&
			effects->list[i].kind <= EFFECT_SIGNAL_ABORT)
			return true;
	return false;
}

static void adopt(struct service *s, struct upgrade_spec *spec, struct effects *effects)
{
	struct service_config config;

	ck_assert_int_eq(service_config_init(&config, "web"), 0);
	config.workers = 1;
	*spec = (struct upgrade_spec){.listeners = 1};
	policy_from_config(&spec->policy, &config);
	service_config_done(&config);
	spec->policy.steered = true;
	service_init(s);
	ck_assert_int_eq(
		tell(s, (struct service_event){.kind = EVENT_ADOPT, .spec = spec}, effects), 0);
	ck_assert_uint_eq(s->current, 1);
	ck_assert(!has_effect(effects, EFFECT_SPAWN));
	ck_assert(has_effect(effects, EFFECT_PREPARE_LANE) && has_effect(effects, EFFECT_STEER));
	ck_assert_uint_eq(service_generation(s, 1)->weight, SHARE_MAX);
	ck_assert(service_is_valid(s));
	ck_assert_int_eq(
		tell(s, (struct service_event){.kind = EVENT_UPGRADE, .spec = spec}, effects), 0);
	ck_assert(has_effect(effects, EFFECT_SPAWN));
	ck_assert_int_eq(tell(s, (struct service_event){.kind = EVENT_SCALE, .value = 3}, effects),
		SERVICE_E_ADOPTED);
	ck_assert_uint_eq(service_generation(s, 1)->weight, SHARE_MAX);
}

/* The new one fails: the old one is let go of, and never signalled. */
static void check_let_go(enum service_event_kind by)
{
	struct service_event exited = {.kind = EVENT_EXITED, .generation = 2};
	struct effects effects = {0};
	struct upgrade_spec spec;
	struct service s;

	adopt(&s, &spec, &effects);
	ck_assert_int_eq(
		tell(&s, (struct service_event){.kind = by, .generation = 2}, &effects), 0);
	ck_assert(!is_signalled(&effects, 1));
	if (s.n_generations > 0) {
		ck_assert_int_eq(tell(&s, exited, &effects), 0);
		ck_assert(!is_signalled(&effects, 1));
	}
	ck_assert_uint_eq(s.n_generations, 0);
	ck_assert(has_effect(&effects, EFFECT_CLOSE_LISTENERS));
	ck_assert_int_eq(service_state(&s), SERVICE_STOPPED);
	service_done(&s);
	effects_done(&effects);
}

START_TEST(adopted_let_go)
{
	check_let_go(EVENT_EXITED);
	check_let_go(EVENT_ABORT);
	check_let_go(EVENT_STOP);
	check_let_go(EVENT_KILL);
}
END_TEST

/* The new one gets ready: the old one is drained as any other. */
START_TEST(adopted_replaced)
{
	struct effects effects = {0};
	struct upgrade_spec spec;
	struct service s;
	uint64_t now = 1;

	adopt(&s, &spec, &effects);
	ck_assert_int_eq(
		tell(&s, (struct service_event){.kind = EVENT_READY, .generation = 2}, &effects),
		0);
	for (unsigned i = 0; i < 100 && !is_signalled(&effects, 1); i++) {
		effects_done(&effects);
		now += USEC_PER_SEC;
		ck_assert_int_eq(service_step(&s, &(struct service_event){.kind = EVENT_TIME}, now,
					 &effects),
			0);
		if (has_effect(&effects, EFFECT_QUERY_QUEUE))
			(void)service_step(&s,
				&(struct service_event){.kind = EVENT_QUEUE, .generation = 1}, now,
				&effects);
	}
	ck_assert(is_signalled(&effects, 1));
	ck_assert_uint_eq(s.current, 2);
	ck_assert_int_eq(
		tell(&s, (struct service_event){.kind = EVENT_EXITED, .generation = 1}, &effects),
		0);
	ck_assert_uint_eq(s.n_generations, 1);
	ck_assert_int_eq(service_state(&s), SERVICE_SERVING);
	service_done(&s);
	effects_done(&effects);
}
END_TEST

/* It ends by itself: the configured command has its place, and is ours. */
START_TEST(adopted_ends)
{
	struct effects effects = {0};
	struct upgrade_spec spec;
	struct service s;

	adopt(&s, &spec, &effects);
	ck_assert_int_eq(
		tell(&s, (struct service_event){.kind = EVENT_EXITED, .generation = 1}, &effects),
		0);
	ck_assert(has_effect(&effects, EFFECT_SPAWN));
	ck_assert(!service_generation(&s, 1)->adopted);
	ck_assert_int_eq(tell(&s, (struct service_event){.kind = EVENT_KILL}, &effects), 0);
	ck_assert(is_signalled(&effects, 1) && is_signalled(&effects, 2));
	service_done(&s);
	effects_done(&effects);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		stories_as_told, other_listeners, adopted_let_go, adopted_replaced, adopted_ends};

	return run_tests("service", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Lives of daemons as their keeper sees them, as lines: what happened and when, and what it did. */
#include <signal.h>

#include "core/keep.h"
#include "unit.h"

static const struct {
	const char *word;
	enum keep_event_kind kind;
	bool killed, holds;
} words[] = {
	{"time",	 KEEP_TIME,	    false, false},
	{"nospawn",  KEEP_SPAWN_FAILED,  false, false},
	{"nospawn+", KEEP_SPAWN_FAILED,	false, true },
	{"ready",	  KEEP_READY,	      false, false},
	{"stopping", KEEP_SAYS_STOPPING, false, false},
	{"alive",	  KEEP_ALIVE,	      false, false},
	{"hung",	 KEEP_HUNG,	    false, false},
	{"watchdog", KEEP_WATCHDOG,	    false, false},
	{"extend",   KEEP_EXTEND,	false, false},
	{"exit",	 KEEP_EXITED,	      false, false},
	{"exit+",	  KEEP_EXITED,	       false, true },
	{"killed",   KEEP_EXITED,	true,  false},
	{"killed+",  KEEP_EXITED,	 true,  true },
	{"signal",   KEEP_SIGNAL,	false, false},
	{"alone",	  KEEP_ALONE,	      false, false},
};

static void print_effects(FILE *f, const struct keep *k, const struct keep_effects *e)
{
	static const char *const notes[] = {[KEEP_NOTE_DETACHED] = "detached",
		[KEEP_NOTE_FAILED] = "failed",
		[KEEP_NOTE_HUNG] = "hung",
		[KEEP_NOTE_KILLED] = "kill",
		[KEEP_NOTE_NO_DAEMON] = "nobody",
		[KEEP_NOTE_SWEEP] = "sweep",
		[KEEP_NOTE_SWEEP_NOW] = "sweepnow",
		[KEEP_NOTE_RECOVERED] = "recovered"};

	fputs(ftell(f) > 0 ? " [" : "[", f);
	if (e->note != KEEP_NOTE_NONE)
		fprintf(f, "%s", notes[e->note]);
	if (e->note == KEEP_NOTE_FAILED)
		fprintf(f, "%u:%lums", e->n_failures, (unsigned long)(e->wait_usec / 1000));
	if (e->signal)
		fprintf(f, " >%d", e->signal);
	if (e->drop)
		fputs(" drop", f);
	if (e->sweep)
		fprintf(f, " all>%d", e->sweep);
	if (e->spawn)
		fputs(e->old_file ? " SPAWN-OLD" : " SPAWN", f);
	if (e->end)
		fprintf(f, " END %d", k->exit_status);
	fputc(']', f);
	ck_assert_int_eq(fflush(f), 0);
}

/* "resume": another image of the keeper goes on. events: WORD[=VALUE][@MSEC], a value being a
 * status, a signal or milliseconds, and the time being that since the event before (0). What it
 * does about each, in brackets. */
static void check_life(uint64_t watchdog_usec, const char *events, const char *answers)
{
	_cleanup_free_ char *copy = strdup(events), *got = NULL;
	uint64_t now = 1000 * USEC_PER_SEC;
	char *save = NULL;
	struct keep k;
	size_t size = 0;
	FILE *f = open_memstream(&got, &size);

	ck_assert_ptr_nonnull(f);
	keep_init(&k, watchdog_usec);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		char *at = strchr(word, '@'), *value = strchr(word, '=');
		struct keep_effects effects;
		struct keep_event e = {0};
		size_t i = 0;

		now += at ? strtoul(at + 1, NULL, 10) * USEC_PER_MSEC : 0;
		if (at)
			*at = '\0';
		if (streq(word, "resume")) {
			keep_resume(&k, watchdog_usec, watchdog_usec, now);
			continue;
		}
		if (value)
			*value++ = '\0';
		while (i < ARRAY_SIZE(words) && !streq(words[i].word, word))
			i++;
		ck_assert_msg(i < ARRAY_SIZE(words), "%s", word);
		e = (struct keep_event){.kind = words[i].kind,
			.killed = words[i].killed,
			.holds = words[i].holds,
			.value = value ? strtoul(value, NULL, 10) : 0};
		if (e.kind == KEEP_WATCHDOG || e.kind == KEEP_EXTEND)
			e.value *= USEC_PER_MSEC;
		keep_step(&k, &e, now, &effects);
		print_effects(f, &k, &effects);
	}
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_str_eq(got, answers);
}

START_TEST(ends)
{
	/* Stopped by a signal to the keeper, which passes it on; a second one too. */
	check_life(
		0, "time ready signal=15 stopping exit=0", "[ SPAWN] [] [ >15] [] [ drop END 0]");
	check_life(
		0, "time ready signal=2 signal=2 exit=0", "[ SPAWN] [] [ >2] [ >2] [ drop END 0]");
	/* It ended by itself because somebody asked it to. */
	check_life(0, "time ready stopping exit=0", "[ SPAWN] [] [] [ drop END 0]");
	check_life(0, "time ready exit=0", "[ SPAWN] [] [ drop END 0]");
	/* With a bad end what is left of its workers is ended in its place. */
	check_life(0, "time ready signal=15 exit=3 alone",
		"[ SPAWN] [] [ >15] [sweep drop all>15] [ drop END 3]");
	check_life(0, "time ready signal=15 killed+=9 alone",
		"[ SPAWN] [] [ >15] [sweep drop all>15] [ drop END 137]");
	check_life(0, "time ready stopping killed+=9 alone",
		"[ SPAWN] [] [] [sweep drop all>15] [ drop END 137]");
	check_life(0, "time ready signal=3 killed+=3 alone",
		"[ SPAWN] [] [ >3] [sweep drop all>15] [ drop END 131]");
	/* Told to end while it starts, or while there is none. */
	check_life(0, "time signal=15 killed=15 alone",
		"[ SPAWN] [ >15] [sweep drop all>15] [ drop END 143]");
	check_life(0, "time ready killed+=11 time nospawn+ signal=15 alone",
		"[ SPAWN] [] [failed1:0ms] [ SPAWN] [failed2:100ms] [sweep drop all>15] [ drop END "
		"1]");
}
END_TEST

START_TEST(sweeping)
{
	/* They do not end: KILL after ten seconds, and in the end not even that is waited for. */
	check_life(0, "time ready signal=15 killed+=9 time@9999 time@1 time@1999 time@1",
		"[ SPAWN] [] [ >15] [sweep drop all>15] [] [sweepnow all>9] [] [ drop END 137]");
	/* Who does not want to wait says so again. */
	check_life(0, "time ready signal=15 killed+=9 signal=1 signal=15 signal=15 alone",
		"[ SPAWN] [] [ >15] [sweep drop all>15] [] [sweepnow all>9] [] [ drop END 137]");
}
END_TEST

START_TEST(first_start)
{
	/* What is wrong with the first one is for whoever started it. */
	check_life(0, "time exit=7", "[ SPAWN] [ drop END 7]");
	check_life(0, "time killed=11", "[ SPAWN] [ drop END 139]");
	check_life(0, "time nospawn", "[ SPAWN] [ drop END 1]");
	/* But not when workers run already. */
	check_life(0, "time killed+=9", "[ SPAWN] [failed1:100ms]");
	check_life(0, "time exit+=1", "[ SPAWN] [failed1:100ms]");
}
END_TEST

START_TEST(crash_loop)
{
	/* At once the first time, then more and more slowly, with the old file now and then. */
	check_life(0,
		"time ready killed+=9 time killed+=9 time@100 exit+=7 time@200 exit+=7 time@400 "
		"nospawn+ time@799 time@1",
		"[ SPAWN] [] [failed1:0ms] [ SPAWN] [failed2:100ms] [ SPAWN] [failed3:200ms] "
		"[ SPAWN-OLD] [failed4:400ms] [ SPAWN] [failed5:800ms] [] [ SPAWN-OLD]");
}
END_TEST

START_TEST(comes_back)
{
	/* Living for a while makes it another matter. */
	check_life(0, "time ready killed+=9@5000 time ready killed+=9@1000 time ready",
		"[ SPAWN] [] [failed1:0ms] [ SPAWN] [recovered] [failed1:0ms] [ SPAWN] "
		"[recovered]");
	/* Less than a second, or than ten times the last wait, does not. */
	check_life(0,
		"time ready killed+=9 time ready killed+=9@999 time@100 ready killed+=9@999 "
		"time@200",
		"[ SPAWN] [] [failed1:0ms] [ SPAWN] [recovered] [failed1:100ms] [ SPAWN] "
		"[recovered] "
		"[failed1:200ms] [ SPAWN]");
	/* It ended well and left its work to the next one: no failure, unless it never was ready.
	 */
	check_life(0, "time ready stopping exit+=0 time ready",
		"[ SPAWN] [] [] [detached] [ SPAWN] []");
	check_life(0, "time ready stopping exit+=0 time stopping exit+=0",
		"[ SPAWN] [] [] [detached] [ SPAWN] [] [failed1:100ms]");
	/* But when the keeper is to end, nobody will take it. */
	check_life(0, "time ready signal=15 exit+=0 alone",
		"[ SPAWN] [] [ >15] [sweep drop all>15] [ drop END 0]");
}
END_TEST

START_TEST(signals)
{
	check_life(0, "time ready signal=1 signal=10 signal=12", "[ SPAWN] [] [ >1] [ >10] [ >12]");
	/* A daemon that has hardly begun would die of it. */
	check_life(0, "time signal=1 ready alive", "[ SPAWN] [] [ >1] []");
	check_life(0, "time signal=1 killed+=9 time@100 ready signal=15",
		"[ SPAWN] [] [failed1:100ms] [ SPAWN] [recovered >1] [ >15]");
	check_life(0, "time ready killed+=9 signal=1 time ready signal=1",
		"[ SPAWN] [] [failed1:0ms] [nobody] [ SPAWN] [recovered] [ >1]");
}
END_TEST

START_TEST(hangs)
{
	/* It never says READY: it is aborted, killed, and tried again. */
	check_life(0, "time time@89999 time@1 time@4999 time@1 killed+=9",
		"[ SPAWN] [] [hung >6] [] [kill >9] [failed1:100ms]");
	/* It may ask for more time, within reason. */
	check_life(0, "time extend=120000 time@119999 ready", "[ SPAWN] [] [] []");
	check_life(0, "time extend=120000 time@120000", "[ SPAWN] [] [hung >6]");
	/* READY after that is too late. */
	check_life(0, "time time@90000 ready time@5000", "[ SPAWN] [hung >6] [] [kill >9]");
	/* Nobody is watched who has not said that he is alive. */
	check_life(2 * USEC_PER_SEC, "time ready time@3600000", "[ SPAWN] [] []");
	check_life(2 * USEC_PER_SEC, "time ready alive time@1999 alive time@2000 killed+=6",
		"[ SPAWN] [] [] [] [] [hung >6] [failed1:0ms]");
	check_life(0, "time ready alive time@3600000", "[ SPAWN] [] [] []");
	check_life(0, "time ready watchdog=500 time@499 alive time@500",
		"[ SPAWN] [] [] [] [] [hung >6]");
	check_life(0, "time ready watchdog=500 watchdog=0 time@3600000", "[ SPAWN] [] [] [] []");
	check_life(0, "time ready hung killed+=6", "[ SPAWN] [] [hung >6] [failed1:0ms]");
	/* Also while it stops. */
	check_life(2 * USEC_PER_SEC,
		"time ready alive signal=15 alive@1000 time@2000 killed+=6 alone",
		"[ SPAWN] [] [] [ >15] [] [hung >6] [sweep drop all>15] [ drop END 134]");
}
END_TEST

/* The keeper itself did not run: a container was paused, or the machine had no time for either. */
START_TEST(paused)
{
	check_life(2 * USEC_PER_SEC, "time ready alive time@2000 killed+=6",
		"[ SPAWN] [] [] [hung >6] [failed1:0ms]");
	check_life(2 * USEC_PER_SEC, "time ready alive time@3600000 time@1999 time@1",
		"[ SPAWN] [] [] [] [] [hung >6]");
	check_life(2 * USEC_PER_SEC, "time ready alive time@3600000 alive@1000 time@1999 time@1",
		"[ SPAWN] [] [] [] [] [] [hung >6]");
	check_life(0, "time time@3600000 time@89999 time@1", "[ SPAWN] [] [] [hung >6]");
	/* What was told to end does not get more time for that. */
	check_life(0, "time time@90000 time@3600000", "[ SPAWN] [hung >6] [kill >9]");
}
END_TEST

START_TEST(another_image)
{
	/* It is watched on, and started again as ever. */
	check_life(2 * USEC_PER_SEC, "resume time@1999 alive time@1999 time@1 killed+=6 time ready",
		"[] [] [] [hung >6] [failed1:0ms] [ SPAWN] [recovered]");
	check_life(0, "resume time@3600000 killed+=9 time", "[] [failed1:0ms] [ SPAWN]");
	/* It had been ready: a bad end is no reason to give up. */
	check_life(0, "resume exit+=1 time", "[failed1:0ms] [ SPAWN]");
	check_life(0, "resume signal=15 exit=0", "[ >15] [ drop END 0]");
	check_life(0, "resume exit+=0 time", "[detached] [ SPAWN]");
}
END_TEST

START_TEST(nobody_speaks)
{
	/* What comes from a daemon that is gone changes nothing. */
	check_life(0, "ready stopping alive hung watchdog=5 extend=5 exit=0 alone time",
		"[] [] [] [] [] [] [] [] [ SPAWN]");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {ends, sweeping, first_start, crash_loop, comes_back, signals,
		hangs, paused, another_image, nobody_speaks};

	return run_tests("keep", tests, ARRAY_SIZE(tests));
}

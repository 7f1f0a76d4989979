/* SPDX-License-Identifier: Apache-2.0 */
/* Random schedules of a service, from the command line: to replay one, or to run many more than
 * `make check` does. Built with -DTENURE_FUZZER -fsanitize=fuzzer it is a libFuzzer target. */
#include "unit/schedules.h"

#ifdef TENURE_FUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Never NULL, which would mean the pseudo-random sequence. */
	struct schedule_source source = {
		.bytes = data ? data : (const uint8_t *)"", .n_bytes = size};
	char *failure = schedule_run(&source, NULL, NULL);

	if (failure) {
		fprintf(stderr, "%s\n", failure);
		abort();
	}
	return 0;
}

#else

#include <getopt.h>

static const char help[] =
	"usage: schedules [--seed S] [--count N] [--seconds T] [--steps]\n"
	"  --seed S     the first seed (default 1)\n"
	"  --count N    how many, from that seed on (default 1000000; 1 with --steps)\n"
	"  --seconds T  stop after that long\n"
	"  --steps      show the steps of the schedule with that seed\n";

static int show(uint64_t seed)
{
	struct schedule_source source = {.state = seed};
	_cleanup_free_ char *failure = schedule_run(&source, stdout, NULL);

	printf("seed %llu: %s\n", (unsigned long long)seed, failure ? failure : "good");
	return failure ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed",	 required_argument, NULL, 's'},
		{"count",	  required_argument, NULL, 'c'},
		{"seconds", required_argument, NULL, 't'},
		{"steps",	  no_argument,       NULL, 'v'},
		{"help",	 no_argument,	      NULL, 'h'},
		{NULL,      0,		  NULL, 0	 },
	};
	struct schedule_counts counts = {0};
	uint64_t seed = 1, count = 1000000;
	double seconds = 0;
	bool steps = false;
	int option, r;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			count = strtoull(optarg, NULL, 0);
			break;
		case 't':
			seconds = strtod(optarg, NULL);
			break;
		case 'v':
			steps = true;
			break;
		default:
			fputs(help, option == 'h' ? stdout : stderr);
			return option == 'h' ? EXIT_SUCCESS : EXIT_FAILURE;
		}
	if (steps)
		return show(seed);
	r = schedules_run(seed, count, seconds, &counts);
	printf("%llu schedules, %llu steps, %llu effects; rollouts: %llu done, %llu failed, %llu "
	       "restored; %llu rollbacks, %llu rescues, %llu given up, %llu stopped; runs of "
	       "verify: %llu good, %llu failed; %llu recycled, %llu given up; %llu warm, %llu "
	       "gone back to, %llu crashes there; "
	       "%llu times somebody else took over, %llu times it was handed over\n",
		(unsigned long long)counts.schedules, (unsigned long long)counts.steps,
		(unsigned long long)counts.effects, (unsigned long long)counts.rollouts_done,
		(unsigned long long)counts.rollouts_failed, (unsigned long long)counts.restored,
		(unsigned long long)counts.rollbacks, (unsigned long long)counts.rescues,
		(unsigned long long)counts.given_up, (unsigned long long)counts.stopped,
		(unsigned long long)counts.verified, (unsigned long long)counts.verify_failed,
		(unsigned long long)counts.recycled, (unsigned long long)counts.recycle_failed,
		(unsigned long long)counts.warm, (unsigned long long)counts.warm_rollbacks,
		(unsigned long long)counts.warm_crashes, (unsigned long long)counts.deaths,
		(unsigned long long)counts.handovers);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/options.h"

#include <getopt.h>

#include "base/parse.h"

enum option_id {
	ID_SOCKET = 256,
	ID_INSTANCE,
	ID_JSON,
	ID_NO_COLOR,
	ID_QUIET,
	ID_HELP,
	ID_VERSION,
	ID_STRATEGY,
	ID_STEPS,
	ID_SOAK,
	ID_PAUSE_AT,
	ID_WAIT_DRAIN,
	ID_OVERLAP,
	ID_DETACH,
	ID_TIMEOUT,
	ID_ABORT_ON_INTERRUPT,
	ID_FULL,
	ID_TO,
	ID_HARD,
	ID_UPGRADE,
	ID_EXIT_CODE,
	ID_FOLLOW,
	ID_SINCE,
	ID_AS,
	ID_PID,
	ID_ADDRESS,
	ID_SIGNAL,
	ID_TAKE,
};

struct option_spec {
	enum option_id id;
	char letter; /* 0: only long */
	const char *name;
	const char *argument; /* NULL: takes none */
	unsigned sets;	      /* which verbs know it; 0: all */
	const char *help;
};

/* clang-format off */
static const struct option_spec specs[] = {
	{ID_STRATEGY, 0, "strategy", "NAME", OPTION_STRATEGY,
	 "blue-green, rolling, canary or recreate"},
	{ID_STEPS, 0, "steps", "LIST", OPTION_STRATEGY,
	 "shares of a canary, as 5%,25%,100%"},
	{ID_SOAK, 0, "soak", "TIME", OPTION_STRATEGY,
	 "how long each step must prove itself"},
	{ID_PAUSE_AT, 0, "pause-at", "SHARE", OPTION_STRATEGY,
	 "stay at that share until `tenurectl promote`"},
	{ID_WAIT_DRAIN, 0, "wait-drain", NULL, OPTION_STRATEGY,
	 "wait until the old generation is gone"},
	{ID_OVERLAP, 0, "overlap", "WHAT", OPTION_STRATEGY,
	 "if one is in progress: reject, queue or supersede"},
	{ID_FULL, 0, "full", NULL, OPTION_FULL,
	 "go to all new connections at once"},
	{ID_TO, 0, "to", "N", OPTION_TO,
	 "back to generation N"},
	{ID_HARD, 0, "hard", NULL, OPTION_HARD,
	 "stop first, then start"},
	{ID_UPGRADE, 0, "upgrade", NULL, OPTION_UPGRADE,
	 "upgrade every service"},
	{ID_EXIT_CODE, 0, "exit-code", NULL, OPTION_EXIT_CODE,
	 "exit 1 when there is something to change"},
	{ID_FOLLOW, 'f', "follow", NULL, OPTION_EVENTS,
	 "go on with new ones until ^C"},
	{ID_SINCE, 0, "since", "WHEN", OPTION_EVENTS,
	 "after event number N, or from TIME ago on, as 10m"},
	{ID_AS, 0, "as", "PATH", OPTION_AS,
	 "check the file as if it were at PATH"},
	{ID_PID, 0, "pid", "PID", OPTION_ADOPT,
	 "the process; of several the one that leads them"},
	{ID_ADDRESS, 0, "address", "ADDR", OPTION_ADOPT,
	 "only its socket there, if it has others"},
	{ID_SIGNAL, 0, "signal", "NAME", OPTION_ADOPT,
	 "what has it end gracefully; else drain.signal"},
	{ID_TAKE, 0, "take", "NAME", OPTION_TAKE,
	 "with that listener as LISTEN_FDS; may be repeated"},
	{ID_DETACH, 0, "detach", NULL, OPTION_FOLLOW,
	 "return when it is accepted"},
	{ID_TIMEOUT, 0, "timeout", "TIME", OPTION_FOLLOW | OPTION_TIMEOUT,
	 "wait no longer (exit 8); it goes on all the same"},
	{ID_ABORT_ON_INTERRUPT, 0, "abort-on-interrupt", NULL, OPTION_ABORT,
	 "^C aborts it instead of leaving it alone"},
	{ID_SOCKET, 0, "socket", "PATH", 0,
	 "tenured's control socket"},
	{ID_INSTANCE, 0, "instance", "NAME", 0,
	 "the tenured of that name"},
	{ID_JSON, 0, "json", NULL, 0,
	 "print JSON; one object per line for what takes time"},
	{ID_NO_COLOR, 0, "no-color", NULL, 0,
	 "no colours (also by $NO_COLOR)"},
	{ID_QUIET, 'q', "quiet", NULL, 0,
	 "print failures only"},
	{ID_HELP, 'h', "help", NULL, 0,
	 "this help, or the verb's"},
	{ID_VERSION, 0, "version", NULL, 0,
	 "the versions of tenurectl and tenured"},
};
/* clang-format on */

void options_done(struct options *o)
{
	o->args = strv_free(o->args);
	o->take = strv_free(o->take);
}

const struct verb *options_find_verb(const struct verb *verbs, const char *name)
{
	for (; verbs->name; verbs++)
		if (streq(verbs->name, name))
			return verbs;
	return NULL;
}

static int unknown_verb(const struct verb *verbs, const char *name, struct error *ret_error)
{
	const char *names[64], *near;
	size_t n = 0;

	for (; verbs->name && n < ARRAY_SIZE(names) - 1; verbs++)
		names[n++] = verbs->name;
	names[n] = NULL;
	near = nearest_word(name, names);
	if (near)
		return error_set(ret_error, -EINVAL, "there is no verb '%s'; did you mean '%s'?",
			name, near);
	return error_set(ret_error, -EINVAL, "there is no verb '%s'", name);
}

/* A share as the configuration writes it, "25%"; the sign may be left out. */
static int parse_share(const char *s, double *ret)
{
	_cleanup_free_ char *with_sign = xasprintf("%s%%", s);
	unsigned share;
	int r;

	if (!with_sign)
		return -ENOMEM;
	r = parse_percent(strchr(s, '%') ? s : with_sign, &share);
	if (r == 0)
		*ret = share / 100.0;
	return r;
}

static int parse_steps(const char *s, struct options *o)
{
	_cleanup_free_ char *copy = strdup(s);
	char *rest = copy, *word;

	if (!copy)
		return -ENOMEM;
	o->n_steps = 0;
	while ((word = strsep(&rest, ","))) {
		double step;

		if (o->n_steps == OPTIONS_STEPS_MAX || parse_share(word, &step) < 0 || step <= 0)
			return -EINVAL;
		if (o->n_steps > 0 && step <= o->steps[o->n_steps - 1])
			return -EINVAL;
		o->steps[o->n_steps++] = step;
	}
	return 0;
}

static int parse_since(const char *s, struct options *o)
{
	o->since_given = true;
	o->since_usec = USEC_INFINITY;
	if (parse_u64(s, 0, INT64_MAX, &o->since_sequence) == 0)
		return 0;
	o->since_sequence = 0;
	return parse_duration(s, &o->since_usec);
}

static int parse_word(const char *s, const char *const *allowed, const char **ret)
{
	for (; *allowed; allowed++)
		if (streq(s, *allowed)) {
			*ret = s;
			return 0;
		}
	return -EINVAL;
}

/* The options with a value. *ret_meant says what would have been right. */
static int take_value(
	struct options *o, enum option_id id, const char *value, const char **ret_meant)
{
	static const char *const strategies[] = {
		"blue-green", "rolling", "canary", "recreate", NULL};
	static const char *const overlaps[] = {"reject", "queue", "supersede", NULL};

	if (id == ID_STRATEGY) {
		*ret_meant = "blue-green, rolling, canary or recreate";
		return parse_word(value, strategies, &o->strategy);
	}
	if (id == ID_OVERLAP) {
		*ret_meant = "reject, queue or supersede";
		return parse_word(value, overlaps, &o->overlap);
	}
	if (id == ID_STEPS) {
		*ret_meant = "rising shares, as 5%,25%,100%";
		return parse_steps(value, o);
	}
	if (id == ID_PAUSE_AT) {
		*ret_meant = "a share, as 25%";
		return parse_share(value, &o->pause_at);
	}
	if (id == ID_SOAK || id == ID_TIMEOUT) {
		*ret_meant = "a time, as 500ms, 30s or 5m";
		return parse_duration(value, id == ID_SOAK ? &o->soak_usec : &o->timeout_usec);
	}
	if (id == ID_TO) {
		*ret_meant = "a generation's number";
		return parse_u64(value, 1, INT64_MAX, &o->to);
	}
	if (id == ID_SINCE) {
		*ret_meant = "an event's number, or a time as 10m";
		return parse_since(value, o);
	}
	if (id == ID_PID) {
		*ret_meant = "a process's number";
		return parse_u64(value, 1, INT32_MAX, &o->pid);
	}
	if (id == ID_TAKE) {
		*ret_meant = "a listener's name";
		return *value ? strv_append(&o->take, value) : -EINVAL;
	}
	if (id == ID_ADDRESS || id == ID_SIGNAL) {
		*ret_meant = id == ID_ADDRESS ? "an address" : "a signal's name, as SIGQUIT";
		*(id == ID_ADDRESS ? &o->address : &o->signal) = value;
		return *value ? 0 : -EINVAL;
	}
	if (id == ID_INSTANCE) {
		*ret_meant = "a name without '/'";
		o->instance = value;
		return *value && !strchr(value, '/') && value[0] != '.' ? 0 : -EINVAL;
	}
	*ret_meant = "the path of a socket";
	o->socket = value;
	return *value ? 0 : -EINVAL;
}

static bool *flag(struct options *o, enum option_id id)
{
	const struct {
		enum option_id id;
		bool *flag;
	} flags[] = {
		{ID_JSON,		  &o->json		  },
		{ID_NO_COLOR,	      &o->no_color	  },
		{ID_QUIET,		   &o->quiet		    },
		{ID_HELP,		  &o->help		  },
		{ID_VERSION,	     &o->version		},
		{ID_WAIT_DRAIN,		&o->wait_drain	      },
		{ID_DETACH,		    &o->detach	      },
		{ID_ABORT_ON_INTERRUPT, &o->abort_on_interrupt},
		{ID_FULL,		  &o->full		  },
		{ID_HARD,		  &o->hard		  },
		{ID_UPGRADE,	     &o->upgrade		},
		{ID_EXIT_CODE,	       &o->exit_code	    },
		{ID_FOLLOW,		    &o->follow	      },
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (flags[i].id == id)
			return flags[i].flag;
	return NULL;
}

static int take_option(struct options *o, const struct option_spec *spec, const char *value,
	struct error *ret_error)
{
	const char *meant = NULL;
	bool *set = flag(o, spec->id);

	if (set) {
		*set = true;
		return 0;
	}
	if (take_value(o, spec->id, value, &meant) < 0)
		return error_set(
			ret_error, -EINVAL, "--%s: '%s' is not %s", spec->name, value, meant);
	return 0;
}

/* The options were read before it was certain which verb they are for. */
static int check_usage(const struct options *o, const bool *seen, struct error *ret_error)
{
	const struct verb *verb = o->verb;
	size_t n_args = strv_length(o->args);

	for (size_t i = 0; verb && i < ARRAY_SIZE(specs); i++)
		if (seen[i] && specs[i].sets && !(specs[i].sets & verb->options))
			return error_set(ret_error, -EINVAL, "'%s' does not know --%s", verb->name,
				specs[i].name);
	if (o->socket && o->instance)
		return error_set(ret_error, -EINVAL,
			"--socket and --instance both name the daemon; give one of them");
	if (o->detach && o->timeout_usec != USEC_INFINITY)
		return error_set(ret_error, -EINVAL, "--detach does not wait; leave --timeout out");
	if (o->help || o->version)
		return 0;
	if (!verb)
		return error_set(ret_error, -EINVAL, "say what to do");
	if (n_args < verb->min_args)
		return error_set(ret_error, -EINVAL, "too few arguments; usage: tenurectl %s %s",
			verb->name, verb->args);
	if (n_args > verb->max_args)
		return error_set(ret_error, -EINVAL, "too many arguments; usage: tenurectl %s %s",
			verb->name, verb->args);
	if (o->to > 0 && n_args > 1)
		return error_set(ret_error, -EINVAL, "--to is for one service");
	return 0;
}

static void build_getopt(struct option *ret_long, char *ret_short)
{
	/* "-": arguments in their place, which finds the verb; ":": no messages of getopt's own. */
	*ret_short++ = '-';
	*ret_short++ = ':';
	for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
		*ret_long++ = (struct option){specs[i].name,
			specs[i].argument ? required_argument : no_argument, NULL,
			(int)specs[i].id};
		if (specs[i].letter)
			*ret_short++ = specs[i].letter;
	}
	*ret_long = (struct option){0};
	*ret_short = '\0';
}

static const struct option_spec *find_spec(int c)
{
	for (size_t i = 0; i < ARRAY_SIZE(specs); i++)
		if ((int)specs[i].id == c || (specs[i].letter && specs[i].letter == c))
			return &specs[i];
	return NULL;
}

static int take_argument(
	struct options *o, const struct verb *verbs, const char *argument, struct error *ret_error)
{
	if (o->verb)
		return strv_append(&o->args, argument);
	o->verb = options_find_verb(verbs, argument);
	return o->verb ? 0 : unknown_verb(verbs, argument, ret_error);
}

static int parse(int argc, char *const *argv, const struct verb *verbs, struct options *o,
	bool *seen, struct error *ret_error)
{
	struct option long_options[ARRAY_SIZE(specs) + 1];
	char letters[2 + ARRAY_SIZE(specs) + 1];
	int c, r = 0;

	build_getopt(long_options, letters);
	optind = 0; /* GNU: forget an earlier run */
	opterr = 0;
	while (r == 0 && !(o->verb && o->verb->passthrough) &&
		(c = getopt_long(argc, argv, letters, long_options, NULL)) >= 0) {
		const struct option_spec *spec = find_spec(c);

		if (c == 1) {
			r = take_argument(o, verbs, optarg, ret_error);
		} else if (c == ':') {
			r = error_set(ret_error, -EINVAL, "%s needs a value", argv[optind - 1]);
		} else if (!spec && optopt > 0 && optopt < 256) {
			r = error_set(ret_error, -EINVAL, "there is no option -%c", optopt);
		} else if (!spec) {
			r = error_set(ret_error, -EINVAL,
				"there is no option %s, or it takes no value", argv[optind - 1]);
		} else {
			seen[spec - specs] = true;
			r = take_option(o, spec, optarg, ret_error);
		}
	}
	for (; r == 0 && optind < argc; optind++)
		r = take_argument(o, verbs, argv[optind], ret_error);
	return r;
}

int options_parse(int argc, char *const *argv, const struct verb *verbs, struct options *ret,
	struct error *ret_error)
{
	bool seen[ARRAY_SIZE(specs)] = {false};
	struct options o = {
		.soak_usec = USEC_INFINITY,
		.timeout_usec = USEC_INFINITY,
		.since_usec = USEC_INFINITY,
		.pause_at = -1,
	};
	int r;

	r = parse(argc, argv, verbs, &o, seen, ret_error);
	if (r == 0)
		r = check_usage(&o, seen, ret_error);
	if (r < 0) {
		options_done(&o);
		return r;
	}
	*ret = o;
	return 0;
}

static void print_option(FILE *file, const struct option_spec *spec)
{
	char name[64];

	snprintf(name, sizeof(name), "%s%c%s--%s%s%s", spec->letter ? "-" : "  ",
		spec->letter ? spec->letter : ' ', spec->letter ? ", " : " ", spec->name,
		spec->argument ? " " : "", spec->argument ? spec->argument : "");
	fprintf(file, "  %-26s %s\n", name, spec->help);
}

void options_help(FILE *file, const struct verb *verbs, const struct verb *verb)
{
	bool title = false;

	if (verb) {
		fprintf(file, "usage: tenurectl [OPTIONS] %s %s\n\n%s.\n", verb->name, verb->args,
			verb->summary);
		for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
			if (!(specs[i].sets & verb->options))
				continue;
			if (!title)
				fputs("\nOptions of this verb:\n", file);
			title = true;
			print_option(file, &specs[i]);
		}
	} else {
		fputs("usage: tenurectl [OPTIONS] VERB [ARGUMENTS]\n\nVerbs:\n", file);
		for (; verbs->name; verbs++) {
			char usage[64];

			snprintf(usage, sizeof(usage), "%s %s", verbs->name, verbs->args);
			fprintf(file, "  %-26s %s\n", usage, verbs->summary);
		}
	}
	fputs("\nOptions of all verbs:\n", file);
	for (size_t i = 0; i < ARRAY_SIZE(specs); i++)
		if (!specs[i].sets)
			print_option(file, &specs[i]);
	if (!verb)
		fputs("\n`tenurectl help VERB` tells more about one. Exit status: 0 done; 1 failed "
		      "or"
		      " unhealthy;\n2 wrong usage; 3 no daemon; 4 not permitted; 5 a rollout is in"
		      " progress; 6 rolled back;\n7 the configuration is invalid; 8 timed out; 130"
		      " interrupted.\n",
			file);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/problem.h"

#include <stdarg.h>

#include "base/parse.h"
#include "ctl/context.h"
#include "ctl/text.h"

/* Lines of a failed worker's output that are shown. */
#define OUTPUT_LINES 20

/* Strings of the reply, made safe, that live as long as one report. */
struct words {
	struct output *o;
	const json_t *parameters;
	char *owned[8];
	size_t n;
};

static void words_done(struct words *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->owned[i]);
}

static const char *safe(struct words *w, const char *s)
{
	char *copy;

	if (w->n == ARRAY_SIZE(w->owned) || !(copy = text_safe(s, w->o->utf8)))
		return "?";
	return w->owned[w->n++] = copy;
}

static const char *word(struct words *w, const char *key)
{
	return safe(w, field_text_or(w->parameters, key, "?"));
}

static void print_no_such_service(struct words *w)
{
	const json_t *known = json_object_get(w->parameters, "known"), *name;
	const char *near, *service = field_text_or(w->parameters, "service", "");
	_cleanup_free_ const char **names = calloc(json_array_size(known) + 1, sizeof(*names));
	size_t i, n = 0;

	if (!names)
		return;
	json_array_foreach (known, i, name) {
		if (json_is_string(name))
			names[n++] = json_string_value(name);
	}
	near = nearest_word(service, names);
	if (near)
		output_error(w->o, "there is no service '%s'; did you mean '%s'?", safe(w, service),
			safe(w, near));
	else if (n == 0)
		output_error(w->o, "there is no service '%s'; the configuration has none at all",
			safe(w, service));
	else
		output_error(w->o, "there is no service '%s'; `tenurectl status` lists them",
			safe(w, service));
}

static void print_rolled_back(struct words *w)
{
	const char *output = field_text(w->parameters, "output");
	const char *status = field_text(w->parameters, "status");
	long long generation = field_int(w->parameters, "generation", 0);
	bool cut;

	output_error(w->o, "%s: rolled back, generation %lld is not in service: %s",
		word(w, "service"), generation, word(w, "reason"));
	if (!field_null(w->parameters, "worker"))
		fprintf(w->o->errors, "  worker %lld.%lld%s%s\n", generation,
			field_int(w->parameters, "worker", 0), status ? ": " : "",
			status ? safe(w, status) : "");
	else if (status)
		fprintf(w->o->errors, "  %s\n", safe(w, status));
	if (output && *output) {
		output = text_last_lines(output, OUTPUT_LINES, &cut);
		fprintf(w->o->errors, "  its last output%s:\n", cut ? " (cut)" : "");
		output_error_detail(w->o, output);
	}
}

static void print_invalid(struct words *w)
{
	const json_t *problems = json_object_get(w->parameters, "problems"), *problem;
	size_t i;

	json_array_foreach (problems, i, problem) {
		_cleanup_free_ char *file =
			text_safe(field_text_or(problem, "file", "?"), w->o->utf8);
		_cleanup_free_ char *message =
			text_safe(field_text_or(problem, "message", "?"), w->o->utf8);

		if (file && message)
			fprintf(w->o->errors, "%s:%lld:%lld: %s%s\n", file,
				field_int(problem, "line", 0), field_int(problem, "column", 0),
				field_true(problem, "warning") ? "warning: " : "", message);
	}
	output_error(w->o, "the configuration is invalid; nothing was changed");
}

static void print_in_progress(struct words *w)
{
	output_error(w->o,
		"%s: a rollout to generation %lld is in progress; wait for it (`tenurectl wait "
		"%s`), end it (`tenurectl abort %s`), or say --overlap=queue or "
		"--overlap=supersede",
		word(w, "service"), field_int(w->parameters, "generation", 0), word(w, "service"),
		word(w, "service"));
}

static void print_too_many(struct words *w)
{
	output_error(w->o,
		"%s: generation %lld still drains, and no more than %lld may live at once; wait "
		"until it is gone, or raise drain.max_generations",
		word(w, "service"), field_int(w->parameters, "draining", 0),
		field_int(w->parameters, "limit", 0));
}

static void print_no_such_generation(struct words *w)
{
	output_error(w->o,
		"%s: there is no generation %lld to go to; `tenurectl history %s` lists them",
		word(w, "service"), field_int(w->parameters, "generation", 0), word(w, "service"));
}

static void print_not_running(struct words *w)
{
	output_error(w->o, "%s: not running: %s; `tenurectl start %s` starts it",
		word(w, "service"), word(w, "message"), word(w, "service"));
}

static void print_no_rollout(struct words *w)
{
	/* One that only settles is shown by `status`, but all connections have moved. */
	output_error(w->o,
		"%s: no rollout is in progress; `tenurectl rollback %s` goes back from one that is "
		"done or only settles",
		word(w, "service"), word(w, "service"));
}

static void print_superseded(struct words *w)
{
	output_error(w->o, "%s: the rollout to generation %lld was given up: %s",
		word(w, "service"), field_int(w->parameters, "generation", 0), word(w, "reason"));
}

static void print_not_permitted(struct words *w)
{
	output_error(w->o, "not permitted: %s; ask as root, or as one of control.operators",
		word(w, "message"));
}

static void print_failed(struct words *w)
{
	output_error(w->o, "%s", word(w, "message"));
}

static void print_reexec_refused(struct words *w)
{
	const char *output = field_text(w->parameters, "output");

	output_error(w->o, "tenured was not replaced by %s: %s; the one that runs goes on",
		word(w, "program"), word(w, "reason"));
	if (output && *output)
		output_error_detail(w->o, output);
}

static void print_method_unknown(struct words *w)
{
	output_error(w->o, "this tenured does not know %s; it is older than this tenurectl",
		word(w, "method"));
}

static void print_parameter(struct words *w)
{
	output_error(w->o, "tenured does not accept the value of '%s'", word(w, "parameter"));
}

static const struct {
	const char *error;
	int code;
	void (*print)(struct words *w);
} problems[] = {
	{CLIENT_INTERFACE "NoSuchService",	   EXIT_FAILED,		print_no_such_service   },
	{CLIENT_INTERFACE "NoSuchGeneration",	      EXIT_FAILED,		   print_no_such_generation},
	{CLIENT_INTERFACE "NotRunning",		EXIT_FAILED,		     print_not_running	      },
	{CLIENT_INTERFACE "RolloutInProgress",       EXIT_IN_PROGRESS,		 print_in_progress	  },
	{CLIENT_INTERFACE "NoRollout",	       EXIT_FAILED,		    print_no_rollout	    },
	{CLIENT_INTERFACE "TooManyGenerations",	EXIT_IN_PROGRESS,		  print_too_many		},
	{CLIENT_INTERFACE "InvalidConfiguration",	  EXIT_INVALID_CONFIGURATION, print_invalid	   },
	{CLIENT_INTERFACE "RolledBack",		EXIT_ROLLED_BACK,		  print_rolled_back	   },
	{CLIENT_INTERFACE "Superseded",		EXIT_FAILED,		     print_superseded	     },
	{CLIENT_INTERFACE "NotPermitted",		  EXIT_NOT_PERMITTED,	      print_not_permitted	 },
	{CLIENT_INTERFACE "Failed",		    EXIT_FAILED,		 print_failed	     },
	{CLIENT_INTERFACE "ReexecRefused",	   EXIT_FAILED,		print_reexec_refused    },
	{"org.varlink.service.MethodNotFound",       EXIT_FAILED,		    print_method_unknown	},
	{"org.varlink.service.MethodNotImplemented", EXIT_FAILED,		  print_method_unknown    },
	{"org.varlink.service.InvalidParameter",	 EXIT_FAILED,		      print_parameter	     },
};

int problem_exit_code(const char *error)
{
	for (size_t i = 0; i < ARRAY_SIZE(problems); i++)
		if (streq(problems[i].error, error))
			return problems[i].code;
	return EXIT_FAILED;
}

void problem_print(
	struct output *o, const char *service, const char *error, const json_t *parameters)
{
	_cleanup_(words_done) struct words w = {.o = o, .parameters = parameters};
	_cleanup_free_ char *rest = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(problems); i++)
		if (streq(problems[i].error, error)) {
			problems[i].print(&w);
			return;
		}
	rest = json_dumps(parameters, JSON_COMPACT);
	output_error(o, "%s%s%s %s", service ? safe(&w, service) : "", service ? ": " : "",
		safe(&w, error), rest ? safe(&w, rest) : "");
}

void problem_record(struct output *o, const char *service, const char *error, json_t *parameters)
{
	_cleanup_json_ json_t *value = json_pack("{s:s?, s:s, s:O?, s:i}", "service", service,
		"error", error, "parameters", parameters, "exit", problem_exit_code(error));

	if (value)
		output_failure(o, value);
}

int problem_report(struct output *o, const char *service, const char *error, json_t *parameters)
{
	problem_print(o, service, error, parameters);
	problem_record(o, service, error, parameters);
	return problem_exit_code(error);
}

int problem_local(struct output *o, int code, const char *format, ...)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_json_ json_t *value = NULL;
	va_list ap;
	int r;

	va_start(ap, format);
	r = vasprintf(&text, format, ap);
	va_end(ap);
	if (r < 0) {
		text = NULL;
		output_error(o, "out of memory");
		return code;
	}
	output_error(o, "%s", text);
	value = json_pack("{s:s, s:i}", "message", text, "exit", code);
	if (value)
		output_failure(o, value);
	return code;
}

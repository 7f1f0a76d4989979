/* SPDX-License-Identifier: Apache-2.0 */
/* The interface's text, the table of methods and the values they answer with fit each other. */
#include "daemon/control_methods.h"
#include "daemon/report_text.h"
#include "unit.h"
#include "varlink/service.h"

static struct manager m;
static struct manager_service *s;
static struct varlink_service varlink;

static void set_up(void)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct service_config config;

	ck_assert_int_eq(varlink_service_init(
				 &varlink, &(struct varlink_identity){"v", "p", "1", "u"}, &error),
		0);
	m = (struct manager){.sockdiag_fd = -1, .next_sequence = 1};
	ck_assert_int_eq(service_config_init(&config, "web"), 0);
	config.workers = 2;
	s = manager_service_new(&m, &config, &error);
	ck_assert_ptr_nonnull(s);
	service_config_done(&config);
}

static void tear_down(void)
{
	manager_service_free(s);
	varlink_service_done(&varlink);
}

static const struct varlink_member *declared(const char *name)
{
	return varlink_interface_find(varlink.supervisor, VARLINK_METHOD, name);
}

static void fits(const char *method, const char *error, json_t *parameters_take)
{
	_cleanup_json_ json_t *parameters = parameters_take;
	char path[VARLINK_PATH_MAX];

	ck_assert_ptr_nonnull(parameters);
	ck_assert_msg(
		varlink_service_accepts_reply(&varlink, declared(method), error, parameters, path),
		"%s: %s", method, path);
}

/* Let the core alone begin a generation: nothing is applied, no process is made. */
static void step(struct service_event e, uint64_t now)
{
	struct effects effects = {0};

	ck_assert_int_eq(service_step(&s->core, &e, now, &effects), 0);
	effects_done(&effects);
}

static void begin(void)
{
	struct upgrade_spec spec = {0};

	policy_from_config(&spec.policy, s->config);
	spec.policy.drain.max_generations = 4;
	step((struct service_event){.kind = EVENT_UPGRADE, .spec = &spec}, 1);
}

static void become_ready(unsigned generation)
{
	for (unsigned i = 0; i < 2; i++)
		step(
			(struct service_event){
				.kind = EVENT_READY, .generation = generation, .worker = i},
			2);
}

START_TEST(each_declared_method_is_there)
{
	unsigned n = 0;

	for (const struct varlink_member *member = varlink.supervisor->members; member;
		member = member->next) {
		if (member->kind != VARLINK_METHOD)
			continue;
		ck_assert_msg(control_method_find(member->name) != NULL, "%s", member->name);
		n++;
	}
	ck_assert_uint_ge(n, 15);
}
END_TEST

START_TEST(each_method_is_declared)
{
	const struct control_method *method;

	for (size_t i = 0; (method = control_methods(i)); i++) {
		ck_assert_msg(declared(method->name) != NULL, "%s", method->name);
		ck_assert_ptr_eq(control_method_find(method->name), method);
		ck_assert_ptr_nonnull(method->handler);
		ck_assert(method->role == CONTROL_OBSERVER || method->role == CONTROL_OPERATOR);
	}
	ck_assert_ptr_null(control_method_find("Nothing"));
}
END_TEST

/* Observers look; whoever changes something is an operator. */
START_TEST(roles)
{
	static const char *const reads[] = {"List", "Listeners", "Events", "Diff", "History"};
	const struct control_method *method;

	for (size_t i = 0; (method = control_methods(i)); i++) {
		bool read = false;

		for (size_t k = 0; k < ARRAY_SIZE(reads); k++)
			read |= streq(reads[k], method->name);
		ck_assert_msg(method->role == (read ? CONTROL_OBSERVER : CONTROL_OPERATOR), "%s",
			method->name);
	}
}
END_TEST

static json_t *list(void)
{
	return json_pack("{s:[o]}", "services", control_json_service(s));
}

static const char *state_of(json_t *reply, size_t generation)
{
	json_t *service = json_array_get(json_object_get(reply, "services"), 0);
	json_t *g = json_array_get(json_object_get(service, "generations"), generation);

	return json_string_value(json_object_get(g, "state"));
}

START_TEST(service_through_its_life)
{
	_cleanup_json_ json_t *starting = NULL, *upgrading = NULL;

	fits("List", NULL, list());
	begin();
	starting = list();
	ck_assert_str_eq(state_of(starting, 0), "starting");
	fits("List", NULL, json_incref(starting));
	fits("Upgrade", NULL,
		json_pack("{s:o}", "progress", control_json_progress(s, 1, "on its way", false)));
	become_ready(1);
	begin();
	upgrading = list();
	ck_assert_str_eq(state_of(upgrading, 0), "serving");
	ck_assert_str_eq(state_of(upgrading, 1), "starting");
	fits("List", NULL, json_incref(upgrading));
	step((struct service_event){.kind = EVENT_PAUSE}, 3);
	fits("List", NULL, list());
	step((struct service_event){.kind = EVENT_ABORT, .reason = REASON_ABORTED}, 4);
	fits("List", NULL, list());
	step((struct service_event){.kind = EVENT_KILL}, 5);
	fits("List", NULL, list());
	fits("Stop", NULL,
		json_pack("{s:o}", "progress", control_json_progress(s, 0, "stopped", true)));
}
END_TEST

START_TEST(failures_and_history)
{
	struct history_entry *h = &s->history[s->n_history++];

	manager_service_note_trouble(s, NULL, 8, 1, "bad \xff bytes");
	s->failure = s->trouble;
	s->trouble = (struct failure){0};
	fits("List", NULL, list());
	for (unsigned reason = 0; reason < N_REASONS; reason++) {
		fits("Upgrade", VARLINK_SUPERVISOR ".RolledBack",
			control_json_rolled_back(s, 8, (enum reason)reason));
		fits("Upgrade", VARLINK_SUPERVISOR ".RolledBack",
			control_json_rolled_back(s, 7, (enum reason)reason));
		*h = (struct history_entry){.generation = 8, .outcome = (enum reason)reason};
		fits("History", NULL, json_pack("{s:o}", "entries", control_json_history(s)));
	}
}
END_TEST

/* Every report names its service, whatever is left of what it speaks of. */
START_TEST(sentences)
{
	for (unsigned alive = 0; alive < 2; alive++) {
		if (alive)
			begin();
		for (unsigned report = 0; report < N_REPORTS; report++)
			for (unsigned reason = 0; reason < N_REASONS; reason++) {
				struct effect e = {.kind = EFFECT_REPORT,
					.report = (enum report)report,
					.reason = (enum reason)reason,
					.generation = 1,
					.worker = report % 2 ? 1 : NO_WORKER,
					.value = 2500};
				int priority = -1;
				_cleanup_free_ char *text = report_text(s, &e, &priority);

				ck_assert_ptr_nonnull(text);
				ck_assert_msg(startswith(text, "web: ") != NULL, "%s", text);
				ck_assert_ptr_null(strchr(text, '\n'));
				ck_assert_int_ge(priority, 3);
				ck_assert_int_le(priority, 7);
			}
	}
}
END_TEST

START_TEST(events)
{
	manager_report(&m, s, 8, 1, 6, "worker-ready", "%s: \xffworker", s->name);
	manager_report(&m, NULL, 0, NO_WORKER, 6, "reloaded", "reload");
	ck_assert_uint_eq(m.next_sequence, 3);
	for (unsigned i = 1; i < 3; i++)
		fits("Events", NULL,
			json_pack("{s:[o]}", "events", control_json_event(&m.events[i])));
	/* The ring keeps the newest. */
	for (unsigned i = 0; i < EVENTS_MAX; i++)
		manager_report(&m, s, 8, 1, 7, "worker-ready", "again");
	ck_assert_uint_eq(m.events[1].sequence, EVENTS_MAX + 1);
	for (unsigned i = 0; i < EVENTS_MAX; i++) {
		free(m.events[i].service);
		free(m.events[i].message);
	}
}
END_TEST

START_TEST(spans)
{
	static const struct {
		uint64_t usec;
		const char *text;
	} cases[] = {
		{0,		     "0ms"	 },
		{120 * USEC_PER_MSEC,   "120ms"},
		{1200 * USEC_PER_MSEC,  "1.2s" },
		{30 * USEC_PER_SEC,	    "30s"	 },
		{59940 * USEC_PER_MSEC, "59.9s"},
		{59998 * USEC_PER_MSEC, "1m"   },
		{90 * USEC_PER_SEC + 1, "1m30s"},
	};
	char buf[REPORT_SPAN_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_str_eq(report_span(cases[i].usec, buf), cases[i].text);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {each_declared_method_is_there, each_method_is_declared, roles,
		service_through_its_life, failures_and_history, sentences, events, spans};
	Suite *suite = suite_create("control_table");
	TCase *tcase = tcase_create("control_table");
	SRunner *runner;
	int n_failed;

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

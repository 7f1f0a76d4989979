/* SPDX-License-Identifier: Apache-2.0 */
/* What a method does: the table of methods, and those that only look. */
#include "daemon/control_methods.h"
#include "daemon/log.h"
#include "varlink/message.h"

int control_no_such_service(struct manager *m, struct control_call *call, const char *name)
{
	json_t *known = json_array();

	for (size_t i = 0; known && i < m->n_services; i++)
		if (!m->services[i]->removing)
			json_array_append_new(known, json_string(m->services[i]->name));
	return control_call_error(call, "NoSuchService",
		json_pack("{s:o, s:o}", "service", control_json_text(name), "known", known));
}

int control_invalid_configuration(struct manager *m, struct control_call *call,
	const struct config_problems *problems, const struct error *error)
{
	if (problems->n_errors > 0)
		return control_call_error(call, "InvalidConfiguration",
			json_pack("{s:o}", "problems", control_json_problems(problems)));
	/* The file itself could not be read. */
	return control_call_error(call, "InvalidConfiguration",
		json_pack("{s:[{s:o, s:i, s:i, s:o, s:b}]}", "problems", "file",
			control_json_text(m->config_path ? m->config_path : ""), "line", 0,
			"column", 0, "message", control_json_text(error_message(error)), "warning",
			0));
}

static int method_listeners(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	json_t *listeners;

	(void)parameters;
	listeners = json_array();
	for (size_t i = 0; listeners && i < m->n_services; i++)
		for (unsigned id = 0; id < ARRAY_SIZE(m->services[i]->listeners); id++) {
			struct listener *l = m->services[i]->listeners[id];

			if (!l || (s && s != m->services[i]))
				continue;
			listener_guard_look_again(l);
			json_array_append_new(listeners, control_json_listener(l));
		}
	return control_call_reply(call, json_pack("{s:o}", "listeners", listeners));
}

static int method_history(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	(void)m;
	(void)parameters;
	return control_call_reply(call, json_pack("{s:o}", "entries", control_json_history(s)));
}

/* Under `tenured run` there is no file: what was given on the command line is the configuration. */
static int method_diff(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	_cleanup_config_ struct config *config = NULL;
	_cleanup_problems_ struct config_problems problems = {0};
	struct plan plan = {0};
	int r = 0;

	(void)s;
	(void)parameters;
	if (m->config_path)
		r = manager_read_config(m, &config, &problems, &error);
	if (r < 0)
		return control_invalid_configuration(m, call, &problems, &error);
	r = manager_plan(m, config ? config : m->config, false, &plan);
	if (r < 0)
		return r;
	r = control_call_reply(call, json_pack("{s:o}", "changes", control_json_changes(&plan)));
	plan_done(&plan);
	return r;
}

/* Events after that sequence number that are still kept. */
static json_t *kept_events(struct manager *m, uint64_t since, const char *service)
{
	uint64_t first = m->next_sequence > EVENTS_MAX ? m->next_sequence - EVENTS_MAX : 1;
	json_t *events = json_array();

	for (uint64_t i = MAX(first, since + 1); events && i < m->next_sequence; i++) {
		const struct manager_event *e = &m->events[i % EVENTS_MAX];

		if (e->sequence == i && (!service || streq_null(e->service, service)))
			json_array_append_new(events, control_json_event(e));
	}
	return events;
}

static void subscriber_free(struct event_subscriber *subscriber)
{
	control_call_on_gone(subscriber->call, NULL, NULL);
	control_call_unref(subscriber->call);
	free(subscriber->service);
	free(subscriber);
}

static void subscriber_gone(struct control_call *call, void *userdata)
{
	struct manager *m = userdata;

	for (struct event_subscriber **p = &m->subscribers; *p; p = &(*p)->next) {
		struct event_subscriber *gone = *p;

		if (gone->call != call)
			continue;
		*p = gone->next;
		subscriber_free(gone);
		return;
	}
}

int control_subscribe(struct manager *m, struct control_call *call, const char *service)
{
	struct event_subscriber *subscriber = calloc(1, sizeof(*subscriber));

	if (subscriber && service)
		subscriber->service = strdup(service);
	if (!subscriber || (service && !subscriber->service)) {
		free(subscriber);
		return -ENOMEM;
	}
	subscriber->call = control_call_ref(call);
	subscriber->next = m->subscribers;
	m->subscribers = subscriber;
	control_call_on_gone(call, subscriber_gone, m);
	return 0;
}

static int method_events(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	const json_t *since = json_object_get(parameters, "since");
	json_int_t after = json_integer_value(since);
	const char *service = s ? s->name : NULL;
	json_t *events;
	int r;

	if (after < 0)
		return control_call_invalid_parameter(call, "since");
	events = since && (uint64_t)after < m->next_sequence
			 ? kept_events(m, (uint64_t)after, service)
			 : json_array();
	if (!control_call_wants_more(call))
		return control_call_reply(call, json_pack("{s:o}", "events", events));
	r = control_subscribe(m, call, service);
	if (r < 0) {
		json_decref(events);
		return r;
	}
	/* Also when there are none: whoever gets it knows that nothing is missed from now on. */
	(void)control_call_notify(call, json_pack("{s:o}", "events", events));
	return 0;
}

void control_event(struct manager *m, const struct manager_event *e)
{
	_cleanup_json_ json_t *event = NULL;

	for (const struct event_subscriber *p = m->subscribers; p; p = p->next) {
		if (p->service && !streq_null(p->service, e->service))
			continue;
		if (!event)
			event = control_json_event(e);
		if (!event)
			return;
		(void)control_call_notify(p->call, json_pack("{s:[O]}", "events", event));
	}
}

void control_done(struct manager *m)
{
	control_list_done(m);
	while (m->subscribers) {
		struct event_subscriber *subscriber = m->subscribers;

		m->subscribers = subscriber->next;
		(void)control_call_failed(subscriber->call, "the daemon is stopping");
		subscriber_free(subscriber);
	}
}

static const struct control_method reads[] = {
	{"List",	 CONTROL_OBSERVER, control_list    },
	{"Listeners", CONTROL_OBSERVER, method_listeners},
	{"Events",	   CONTROL_OBSERVER, method_events	  },
	{"Diff",	 CONTROL_OBSERVER, method_diff     },
	{"History",   CONTROL_OBSERVER, method_history  },
};

const struct control_method *control_methods(size_t i)
{
	if (i < ARRAY_SIZE(reads))
		return &reads[i];
	i -= ARRAY_SIZE(reads);
	return i < n_control_changes ? &control_changes[i] : NULL;
}

const struct control_method *control_method_find(const char *name)
{
	const struct control_method *method;

	for (size_t i = 0; (method = control_methods(i)); i++)
		if (streq(method->name, name))
			return method;
	return NULL;
}

/* The caller does not know whether it was done. */
static int ask_again(struct manager *m, const struct manager_service *s, struct control_call *call,
	const struct asked **ret)
{
	*ret = s ? asked_find(s, m->request) : NULL;
	/* Nobody has seen what an earlier daemon did if its state was not there. */
	if (*ret || (m->restored && !m->blind))
		return 0;
	return control_call_failed(call,
		"%s%sthe daemon was started anew and does not know whether that was done; see "
		"`tenurectl status`",
		s ? s->name : "", s ? ": " : "");
}

static int change(struct manager *m, struct manager_service *s, struct control_call *call,
	const struct control_method *method, json_t *parameters)
{
	const json_t *request = json_object_get(parameters, "request");
	const char *name = json_string_value(request);
	const struct asked *asked = NULL;
	int r = 0;

	if (request && (!name || !*name || strlen(name) > ASKED_NAME_MAX))
		return control_call_invalid_parameter(call, "request");
	m->request = name;
	if (json_is_true(json_object_get(parameters, "again"))) {
		r = ask_again(m, s, call, &asked);
		if (control_call_is_over(call))
			goto out;
	}
	r = asked ? control_answer_asked(m, s, call, method, asked, parameters)
		  : method->handler(m, s, call, parameters);
out:
	m->request = NULL;
	return r;
}

int control_dispatch(
	struct control_call *call, const char *method, json_t *parameters, void *userdata)
{
	struct manager *m = userdata;
	const struct control_method *found = control_method_find(method);
	const char *name = json_string_value(json_object_get(parameters, "service"));
	struct manager_service *s = NULL;

	if (!found)
		return control_call_failed(call, "%s is not implemented", method);
	if (!control_call_require(call, found->role))
		return 0;
	if (found->role == CONTROL_OPERATOR && m->stopping)
		return control_call_failed(call, "the daemon is stopping");
	if (name) {
		s = manager_find(m, name);
		/* One that is being removed can still be looked at. */
		if (!s || (found->role == CONTROL_OPERATOR && s->removing))
			return control_no_such_service(m, call, name);
	}
	return found->role == CONTROL_OPERATOR ? change(m, s, call, found, parameters)
					       : found->handler(m, s, call, parameters);
}

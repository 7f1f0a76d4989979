/* SPDX-License-Identifier: Apache-2.0 */
/* The records "x/...": written just before an exec, taken and removed by the image after it. One
 * that is killed before it has removed them leaves them to a next daemon, who has not got the
 * connections: then they mean nothing. */
#include "daemon/control_methods.h"
#include "daemon/follow.h"
#include "daemon/log.h"
#include "daemon/reexec.h"
#include "daemon/state_fields.h"
#include "daemon/state_save.h"
#include "sys/process.h"

static const char key_events[] = "x/events", key_connections[] = "x/connections",
		  key_exec[] = "x/exec";

struct reexec_loaded {
	bool same_process;
	json_t *connections; /* "fd" of each is its descriptor by now; NULL: taken up */
	char *version;	     /* of the image before us */
	uint64_t began_usec, took_usec;
	struct control_call *asked;
	char **names; /* of events */
};

struct reexec_loaded *reexec_loaded_free(struct reexec_loaded *l)
{
	if (!l)
		return NULL;
	for (size_t i = 0; i < json_array_size(l->connections); i++)
		close_fd((int)json_integer_value(
			json_object_get(json_array_get(l->connections, i), "fd")));
	json_decref(l->connections);
	control_call_unref(l->asked);
	free(l->version);
	strv_free(l->names);
	free(l);
	return NULL;
}

/* --- before --------------------------------------------------------------- */

struct saving {
	struct manager *manager;
	const struct control_call *asked;
};

static unsigned lend(int fd, void *userdata)
{
	const struct saving *s = userdata;

	return store_lend(s->manager->store, STORED_CONNECTION, fd);
}

static json_t *save_call(struct control_call *call, void *userdata)
{
	const struct saving *s = userdata;

	if (call == s->asked)
		return json_pack("{s:s}", "for", "exec");
	for (const struct event_subscriber *p = s->manager->subscribers; p; p = p->next)
		if (p->call == call)
			return json_pack("{s:s, s:s?}", "for", "events", "service", p->service);
	return waiter_save(s->manager, call);
}

static json_t *save_events(const struct manager *m)
{
	uint64_t first = m->next_sequence > EVENTS_MAX ? m->next_sequence - EVENTS_MAX : 1;
	json_t *list = json_array();

	for (uint64_t i = first; list && i < m->next_sequence; i++) {
		const struct manager_event *e = &m->events[i % EVENTS_MAX];

		if (e->sequence == i && e->event)
			(void)json_array_append_new(list, control_json_event(e));
	}
	return list;
}

/* What tells this process from any other, also from a later one with its pid. */
static json_t *own_mark(void)
{
	uint64_t started;

	if (process_start_time(getpid(), &started) < 0)
		return json_null();
	return json_pack("[I, I]", (json_int_t)getpid(), (json_int_t)started);
}

void reexec_save(struct manager *m, struct control_call *asked)
{
	struct saving saving = {.manager = m, .asked = asked};
	const struct control_exec_ops ops = {.lend = lend, .save = save_call, .userdata = &saving};

	store_set(m->store, key_connections, control_server_save(m->control, &ops));
	store_set(m->store, key_events, save_events(m));
	store_set(m->store, key_exec,
		json_pack("{s:s, s:I, s:I, s:o}", "version", PACKAGE_VERSION, "began",
			(json_int_t)manager_now(m), "sequence", (json_int_t)m->next_sequence,
			"process", own_mark()));
}

void reexec_forget(struct manager *m)
{
	store_set(m->store, key_connections, NULL);
	store_set(m->store, key_events, NULL);
	store_set(m->store, key_exec, NULL);
}

/* --- after ---------------------------------------------------------------- */

static void load_event(struct manager *m, const json_t *value)
{
	const char *name = json_string_value(json_object_get(value, "event")),
		   *message = json_string_value(json_object_get(value, "message")),
		   *service = json_string_value(json_object_get(value, "service"));
	uint64_t sequence = state_get_u64(value, "sequence");
	const json_t *worker = json_object_get(value, "worker");
	struct manager_event e = {.sequence = sequence,
		.at_usec = state_get_u64(value, "atUsec"),
		.generation = state_get_unsigned(value, "generation"),
		.worker =
			json_is_integer(worker) ? state_get_unsigned(value, "worker") : NO_WORKER};
	char ***names = &m->reexec_loaded->names;

	if (!name || !message || sequence == 0 || sequence >= m->next_sequence ||
		m->events[sequence % EVENTS_MAX].event)
		return;
	e.message = strdup(message);
	e.service = service ? strdup(service) : NULL;
	if (!e.message || (service && !e.service) || strv_append(names, name) < 0) {
		free(e.message);
		free(e.service);
		return;
	}
	e.event = (*names)[strv_length(*names) - 1];
	m->events[sequence % EVENTS_MAX] = e;
}

static void take_connections(struct manager *m, const json_t *list)
{
	json_t *taken = m->reexec_loaded->connections;

	for (size_t i = 0; taken && i < json_array_size(list); i++) {
		json_t *one = json_array_get(list, i);
		int fd = store_take(m->store, STORED_CONNECTION, state_get_unsigned(one, "fd"));

		if (fd < 0)
			continue;
		store_unlend(m->store, fd);
		(void)json_object_set_new(one, "fd", json_integer(fd));
		(void)json_array_append(taken, one);
	}
}

static bool is_own_mark(const json_t *mark)
{
	json_t *own = own_mark();
	bool same = json_is_array(own) && json_equal(own, mark);

	json_decref(own);
	return same;
}

bool reexec_was_done(const struct manager *m)
{
	return m->reexec_loaded && m->reexec_loaded->same_process;
}

void reexec_load(struct manager *m, const json_t *values)
{
	const json_t *exec = json_object_get(values, key_exec),
		     *events = json_object_get(values, key_events);
	const char *version = json_string_value(json_object_get(exec, "version"));
	struct reexec_loaded *l;

	if (!version || m->trial)
		return;
	l = calloc(1, sizeof(*l));
	if (!l)
		return;
	m->reexec_loaded = l;
	l->version = strdup(version);
	l->began_usec = state_get_u64(exec, "began");
	l->connections = json_array();
	l->same_process = is_own_mark(json_object_get(exec, "process"));
	take_connections(m, json_object_get(values, key_connections));
	/* Left by one that did not come far: what was told since is not known. */
	if (l->same_process) {
		m->next_sequence = MAX(state_get_u64(exec, "sequence"), UINT64_C(1));
		for (size_t i = 0; i < json_array_size(events); i++)
			load_event(m, json_array_get(events, i));
	}
	reexec_forget(m);
}

static int take(unsigned number, void *userdata)
{
	(void)userdata;
	return (int)number;
}

static void load_call(struct control_call *call, const json_t *saved, void *userdata)
{
	struct manager *m = userdata;
	const char *what = json_string_value(json_object_get(saved, "for"));

	if (what && streq(what, "exec"))
		m->reexec_loaded->asked = control_call_ref(call);
	else if (what && streq(what, "events"))
		(void)control_subscribe(
			m, call, json_string_value(json_object_get(saved, "service")));
	else if (what && streq(what, "follow"))
		waiter_load(m, call, saved);
}

void reexec_resume(struct manager *m)
{
	const struct control_exec_ops ops = {.take = take, .load = load_call, .userdata = m};

	if (!m->reexec_loaded)
		return;
	control_server_load(m->control, m->reexec_loaded->connections, &ops);
	json_decref(m->reexec_loaded->connections);
	m->reexec_loaded->connections = NULL;
}

void reexec_answer(struct manager *m, const char *keeper)
{
	struct reexec_loaded *l = m->reexec_loaded;

	if (!l || !l->asked)
		return;
	(void)control_call_reply(
		l->asked, json_pack("{s:s, s:s, s:I, s:s?}", "version", PACKAGE_VERSION,
				  "previousVersion", l->version ? l->version : "?", "tookUsec",
				  (json_int_t)l->took_usec, "keeper", keeper));
	l->asked = control_call_unref(l->asked);
}

void reexec_done(struct manager *m)
{
	struct reexec_loaded *l = m->reexec_loaded;
	uint64_t now = manager_now(m);

	if (!l || !l->asked)
		return;
	l->took_usec = now > l->began_usec ? now - l->began_usec : 0;
	manager_report(m, NULL, 0, NO_WORKER, LOG_NOTICE, "daemon-replaced",
		"replaced by version %s (it was %s), pid %d, in %.1fms", PACKAGE_VERSION,
		l->version ? l->version : "?", (int)getpid(), (double)l->took_usec / USEC_PER_MSEC);
	if (!reexec_keeper_begin(m))
		reexec_answer(m, NULL);
}

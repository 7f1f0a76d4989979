/* SPDX-License-Identifier: Apache-2.0 */
/* List: what is, with the connections as they are now. Counting them is soon done on a machine that
 * has few, and the answer comes at once; elsewhere it waits for the count a moment, and then comes
 * with what is known. */
#include "daemon/connections.h"
#include "daemon/control_methods.h"
#include "daemon/log.h"
#include "varlink/message.h"

#define COUNT_AT_ONCE_USEC (2 * USEC_PER_MSEC)
#define COUNT_WAIT_USEC (300 * USEC_PER_MSEC)

struct list_call {
	struct manager *manager;
	struct control_call *call;
	char *service; /* NULL: all */
	sd_event_source *timer;
	struct list_call *next;
};

static bool is_wanted(const char *service, const struct manager_service *s)
{
	return !service || streq(service, s->name);
}

static bool is_counted(const struct manager *m, const char *service)
{
	for (size_t i = 0; i < m->n_services; i++)
		if (is_wanted(service, m->services[i]) && connections_is_pending(m->services[i]))
			return false;
	return true;
}

/* Strangers at their ports. */
static void look_again(struct manager_service *s)
{
	for (unsigned id = 0; id < ARRAY_SIZE(s->listeners); id++)
		if (s->listeners[id])
			listener_guard_look_again(s->listeners[id]);
}

static int answer(struct manager *m, struct control_call *call, const char *service)
{
	json_t *services = json_array();

	/* It may have been removed while we waited. */
	if (service && !manager_find(m, service)) {
		json_decref(services);
		return control_no_such_service(m, call, service);
	}
	for (size_t i = 0; services && i < m->n_services; i++)
		if (is_wanted(service, m->services[i])) {
			look_again(m->services[i]);
			json_array_append_new(services, control_json_service(m->services[i]));
		}
	return control_call_reply(call, json_pack("{s:o}", "services", services));
}

static void unlink_call(struct list_call *l)
{
	for (struct list_call **p = &l->manager->list_calls; *p; p = &(*p)->next)
		if (*p == l) {
			*p = l->next;
			return;
		}
}

static void list_call_free(struct list_call *l)
{
	control_call_on_gone(l->call, NULL, NULL);
	control_call_unref(l->call);
	if (l->timer)
		sd_event_source_disable_unref(l->timer);
	free(l->service);
	free(l);
}

static void finish(struct list_call *l)
{
	unlink_call(l);
	(void)answer(l->manager, l->call, l->service);
	list_call_free(l);
}

static int on_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	finish(userdata);
	return 0;
}

static void on_gone(struct control_call *call, void *userdata)
{
	struct list_call *l = userdata;

	(void)call;
	unlink_call(l);
	list_call_free(l);
}

static int wait_for_count(struct manager *m, struct control_call *call, const char *service)
{
	struct list_call *l = calloc(1, sizeof(*l));
	int r = -ENOMEM;

	if (l && service)
		l->service = strdup(service);
	if (l && (!service || l->service))
		r = sd_event_add_time_relative(m->event, &l->timer, CLOCK_MONOTONIC,
			COUNT_WAIT_USEC, USEC_PER_MSEC, on_late, l);
	if (r < 0) {
		if (l)
			free(l->service);
		free(l);
		return r;
	}
	(void)sd_event_source_set_priority(l->timer, PRIORITY_CONTROL);
	l->manager = m;
	l->call = control_call_ref(call);
	l->next = m->list_calls;
	m->list_calls = l;
	control_call_on_gone(call, on_gone, l);
	return 0;
}

int control_list(
	struct manager *m, struct manager_service *s, struct control_call *call, json_t *parameters)
{
	const char *service = s ? s->name : NULL;

	(void)parameters;
	for (size_t i = 0; i < m->n_services; i++)
		if (is_wanted(service, m->services[i]))
			connections_want(m->services[i]);
	if (!is_counted(m, service))
		connections_run(m, COUNT_AT_ONCE_USEC);
	if (is_counted(m, service))
		return answer(m, call, service);
	return wait_for_count(m, call, service);
}

void control_list_counted(struct manager *m)
{
	struct list_call *next;

	for (struct list_call *l = m->list_calls; l; l = next) {
		next = l->next;
		if (is_counted(m, l->service))
			finish(l);
	}
}

void control_list_done(struct manager *m)
{
	while (m->list_calls) {
		struct list_call *l = m->list_calls;

		m->list_calls = l->next;
		(void)control_call_failed(l->call, "the daemon is stopping");
		list_call_free(l);
	}
}

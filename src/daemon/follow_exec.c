/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that wait, over an exec of the daemon. */
#include "daemon/follow_internal.h"
#include "daemon/state_fields.h"

static const char *const kinds[] = {
	[FOLLOW_ROLLOUT] = "rollout",
	[FOLLOW_ABORT] = "abort",
	[FOLLOW_DRAIN] = "drain",
	[FOLLOW_QUEUED] = "queued",
	[FOLLOW_START_AGAIN] = "start-again",
	[FOLLOW_STOP] = "stop",
	[FOLLOW_SCALE] = "scale",
};

static json_t *save_follower(const struct manager_service *s, const struct follower *f)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:b}", "service", s->name, "kind",
		kinds[f->kind], "generation", (json_int_t)f->generation, "from",
		(json_int_t)f->from, "workers", (json_int_t)f->workers, "wait_drain",
		f->wait_drain);
}

json_t *waiter_save(const struct manager *m, const struct control_call *call)
{
	const struct waiter *w = NULL;
	json_t *list = json_array();

	for (size_t i = 0; list && i < m->n_services; i++)
		for (const struct follower *f = m->services[i]->followers; f; f = f->next) {
			if (f->waiter->call != call)
				continue;
			w = f->waiter;
			(void)json_array_append_new(list, save_follower(m->services[i], f));
		}
	if (!w) {
		json_decref(list);
		return NULL;
	}
	return json_pack("{s:s, s:o, s:O?, s:O?, s:s?, s:O?}", "for", "follow", "followers", list,
		"changes", w->changes, "last", w->last, "error", w->error, "error_parameters",
		w->error_parameters);
}

static bool kind_of(const char *name, enum follow_kind *ret)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(kinds); i++)
		if (streq(kinds[i], name)) {
			*ret = (enum follow_kind)i;
			return true;
		}
	return false;
}

static void load_follower(struct manager *m, struct waiter *w, const json_t *saved)
{
	const char *name = json_string_value(json_object_get(saved, "service"));
	struct manager_service *s = name ? manager_find(m, name) : NULL;
	struct follower f = {.generation = state_get_unsigned(saved, "generation"),
		.from = state_get_unsigned(saved, "from"),
		.workers = state_get_unsigned(saved, "workers"),
		.wait_drain = state_get_bool(saved, "wait_drain")};

	if (!s || !kind_of(json_string_value(json_object_get(saved, "kind")), &f.kind)) {
		waiter_fail(w, "Failed",
			json_pack("{s:s}", "message",
				"the daemon does not know any more what was "
				"waited for; see `tenurectl status`"));
		return;
	}
	(void)follower_add(w, s, f);
}

static json_t *copy_of(const json_t *saved, const char *key)
{
	json_t *value = json_object_get(saved, key);

	return value && !json_is_null(value) ? json_incref(value) : NULL;
}

void waiter_load(struct manager *m, struct control_call *call, const json_t *saved)
{
	const json_t *list = json_object_get(saved, "followers");
	const char *error = json_string_value(json_object_get(saved, "error"));
	struct waiter *w = waiter_new(m, call, copy_of(saved, "changes"));

	if (!w)
		return;
	w->last = copy_of(saved, "last");
	if (error)
		waiter_fail(w, error, copy_of(saved, "error_parameters"));
	/* The newest is the first of a service's list, and shall be again. */
	for (size_t i = json_array_size(list); i-- > 0;)
		load_follower(m, w, json_array_get(list, i));
	waiter_end(w);
}

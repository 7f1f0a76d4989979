/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/asked.h"

#include "daemon/manager.h"
#include "daemon/state_fields.h"

static const struct {
	enum service_event_kind kind;
	const char *name;
} kinds[] = {
	{EVENT_UPGRADE,	"upgrade" },
	{EVENT_PROMOTE,	"promote" },
	{EVENT_PAUSE,    "pause"   },
	{EVENT_ABORT,    "abort"   },
	{EVENT_ROLLBACK, "rollback"},
	{EVENT_START,    "start"   },
	{EVENT_STOP,     "stop"	   },
	{EVENT_SCALE,    "scale"   },
};

static const char *kind_name(enum service_event_kind kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].kind == kind)
			return kinds[i].name;
	return NULL;
}

static unsigned number_of(const struct service *s, const struct service_event *e, bool queued)
{
	switch ((unsigned)e->kind) {
	case EVENT_UPGRADE:
		return s->last_number + queued;
	case EVENT_START:
		return s->last_number + 1;
	case EVENT_ABORT:
		return s->rollout.to;
	case EVENT_ROLLBACK:
		return e->generation;
	case EVENT_SCALE:
		return e->value;
	default:
		return 0;
	}
}

void asked_note(struct manager_service *s, const struct service_event *e, bool queued)
{
	const char *name = s->manager->request;
	struct asked *last = &s->asked[ASKED_MAX - 1];

	/* What one request leads to later is not another one. */
	if (!name || !kind_name(e->kind) || asked_find(s, name))
		return;
	memmove(&s->asked[0], &s->asked[1], (ASKED_MAX - 1) * sizeof(s->asked[0]));
	*last = (struct asked){.kind = e->kind, .number = number_of(&s->core, e, queued)};
	memcpy(last->name, name, MIN(strlen(name), (size_t)ASKED_NAME_MAX));
	s->changed = true;
}

const struct asked *asked_find(const struct manager_service *s, const char *name)
{
	for (size_t i = ASKED_MAX; name && *name && i-- > 0;)
		if (streq(s->asked[i].name, name))
			return &s->asked[i];
	return NULL;
}

json_t *asked_save(const struct manager_service *s)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < ASKED_MAX; i++)
		if (s->asked[i].name[0])
			(void)json_array_append_new(
				list, json_pack("[o, s, I]", state_save_text(s->asked[i].name),
					      kind_name(s->asked[i].kind),
					      (json_int_t)s->asked[i].number));
	return list;
}

static int load_one(const json_t *value, struct asked *ret)
{
	const char *kind = json_string_value(json_array_get(value, 1));
	json_int_t number = json_integer_value(json_array_get(value, 2));
	_cleanup_free_ char *name = NULL;

	if (state_load_text(json_array_get(value, 0), &name) < 0 || !name || !kind ||
		strlen(name) > ASKED_NAME_MAX || number < 0 || number > UINT32_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (streq(kinds[i].name, kind)) {
			*ret = (struct asked){.kind = kinds[i].kind, .number = (unsigned)number};
			memcpy(ret->name, name, strlen(name) + 1);
			return 0;
		}
	return -EBADMSG;
}

int asked_load(struct manager_service *s, const json_t *list)
{
	size_t n = json_array_size(list);

	/* A state of before there were names has none. */
	if (n > ASKED_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++)
		if (load_one(json_array_get(list, i), &s->asked[ASKED_MAX - n + i]) < 0)
			return -EBADMSG;
	return 0;
}

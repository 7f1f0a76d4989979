/* SPDX-License-Identifier: Apache-2.0 */
#include "core/effect.h"

#include <assert.h>

static const char *const report_names[] = {
#define X(name, text) [REPORT_##name] = (text),
	REPORT_LIST(X)
#undef X
};
static const char *const reason_names[] = {
#define X(name, text) [REASON_##name] = (text),
	REASON_LIST(X)
#undef X
};

const char *report_to_string(enum report r)
{
	return (size_t)r < ARRAY_SIZE(report_names) ? report_names[r] : "unknown";
}

const char *reason_to_string(enum reason r)
{
	return (size_t)r < ARRAY_SIZE(reason_names) ? reason_names[r] : "unknown";
}

int effects_reserve(struct effects *e, size_t n)
{
	return array_reserve(&e->list, &e->capacity, e->n + n, sizeof(*e->list));
}

void effects_add(struct effects *e, struct effect effect)
{
	/* service_step() reserves more than any step can add; running out is a programmer's error.
	 */
	if (effects_reserve(e, 1) < 0) {
		assert(false && "effects were not reserved");
		return;
	}
	e->list[e->n++] = effect;
}

void effects_done(struct effects *e)
{
	free(e->list);
	*e = (struct effects){0};
}

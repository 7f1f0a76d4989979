/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets the new connections of a listener. */
#include "core/service.h"

/* Who has the connections of a listener for which no generation has a share: one that will serve;
 * else nobody's queue, where they wait for the next start; else, of a listener that is on its way
 * out, the last that had it. */
static struct lane_share share_of_none(const struct service *s, uint64_t listener)
{
	const struct generation *last = NULL, *newest = NULL, *queue = NULL;

	for (size_t i = 0; i < s->n_generations; i++) {
		const struct generation *g = s->generations[i];

		if (!(g->listeners & listener) || g->lane == LANE_NONE)
			continue;
		/* Of those whose workers are gone only when there is no other. */
		if (!last || g->empty_until_usec == 0)
			last = g;
		if (g->state != GENERATION_RETIRING)
			newest = g;
		if (g->lane == s->queue_lane)
			queue = g;
	}
	if (!newest && (!last || (s->current == 0 && (s->queue_listeners & listener))))
		return (struct lane_share){s->queue_lane, SHARE_MAX, queue};
	if (!newest)
		newest = last;
	return (struct lane_share){newest->lane, SHARE_MAX, newest};
}

size_t service_shares(const struct service *s, uint64_t listener, struct lane_share *ret)
{
	unsigned sum = 0;
	size_t n = 0;

	for (size_t i = 0; i < s->n_generations; i++) {
		const struct generation *g = s->generations[i];

		if (!(g->listeners & listener) || g->lane == LANE_NONE || g->weight == 0)
			continue;
		ret[n++] = (struct lane_share){g->lane, g->weight, g};
		sum += g->weight;
	}
	if (n == 0) {
		ret[0] = share_of_none(s, listener);
		return 1;
	}
	if (n == 1)
		ret[0].weight = SHARE_MAX;
	else
		ret[0].weight += SHARE_MAX - sum;
	return n;
}

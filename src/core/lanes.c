/* SPDX-License-Identifier: Apache-2.0 */
/* The array is small (a few hundred sockets at most) and changes rarely, so a plain search does.
 * What matters is that every change here is one the kernel makes too, in the same order. */
#include "core/lanes.h"

#include <limits.h>

void lanes_done(struct lanes *l)
{
	free(l->sockets);
	*l = (struct lanes){NULL, 0, 0};
}

int lanes_index(const struct lanes *l, unsigned lane, unsigned slot)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->sockets[i].lane == lane && l->sockets[i].slot == slot)
			return (int)i;
	return -ENOENT;
}

struct lane_socket *lanes_find(const struct lanes *l, unsigned lane, unsigned slot)
{
	int i = lanes_index(l, lane, slot);

	return i < 0 ? NULL : &l->sockets[i];
}

int lanes_append(struct lanes *l, unsigned lane, unsigned slot, int fd)
{
	int r;

	if (lanes_index(l, lane, slot) >= 0)
		return -EEXIST;
	if (l->n >= INT_MAX)
		return -ENOMEM;
	r = array_reserve(&l->sockets, &l->capacity, l->n + 1, sizeof(*l->sockets));
	if (r < 0)
		return r;
	l->sockets[l->n] = (struct lane_socket){.lane = lane, .slot = slot, .fd = fd};
	return (int)l->n++;
}

int lanes_append_other(struct lanes *l)
{
	int r = array_reserve(&l->sockets, &l->capacity, l->n + 1, sizeof(*l->sockets));

	if (r < 0)
		return r;
	l->sockets[l->n++] = (struct lane_socket){.lane = LANES_OTHER, .fd = -1};
	return 0;
}

size_t lanes_others_at_end(const struct lanes *l)
{
	size_t n = 0;

	while (n < l->n && l->sockets[l->n - 1 - n].lane == LANES_OTHER)
		n++;
	return n;
}

int lanes_others_left(struct lanes *l, size_t n)
{
	int r = 0;

	for (; n > 0; n--) {
		size_t n_others = 0, place = 0;

		for (size_t i = l->n; i-- > 0;)
			if (l->sockets[i].lane == LANES_OTHER) {
				place = i;
				n_others++;
			}
		if (n_others == 0)
			return -ESTALE;
		/* If the last is one of the others it does not matter which of them left. */
		if (l->sockets[l->n - 1].lane != LANES_OTHER) {
			if (n_others > 1)
				r = -ESTALE;
			l->sockets[place] = l->sockets[l->n - 1];
		}
		l->n--;
	}
	return r;
}

int lanes_remove(struct lanes *l, unsigned lane, unsigned slot, int *ret_fd)
{
	int i = lanes_index(l, lane, slot);

	if (i < 0)
		return i;
	if (ret_fd)
		*ret_fd = l->sockets[i].fd;
	l->sockets[i] = l->sockets[--l->n];
	return 0;
}

int lanes_relisten(struct lanes *l, unsigned lane, unsigned slot)
{
	int i = lanes_index(l, lane, slot);
	struct lane_socket s;

	if (i < 0)
		return i;
	/* Two steps, as in the kernel: it left, and the last one filled its place; then it joined.
	 */
	s = l->sockets[i];
	l->sockets[i] = l->sockets[l->n - 1];
	l->sockets[l->n - 1] = s;
	return (int)(l->n - 1);
}

unsigned lanes_slots(const struct lanes *l, unsigned lane)
{
	unsigned n = 0;

	for (size_t i = 0; i < l->n; i++)
		if (l->sockets[i].lane == lane)
			n = MAX(n, l->sockets[i].slot + 1);
	return n;
}

size_t lanes_indices(
	const struct lanes *l, unsigned lane, const bool *active, size_t n_active, uint32_t *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		const struct lane_socket *s = &l->sockets[i];

		if (s->lane != lane || (active && (s->slot >= n_active || !active[s->slot])))
			continue;
		ret[n++] = (uint32_t)i;
	}
	return n;
}

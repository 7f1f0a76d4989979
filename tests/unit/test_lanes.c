/* SPDX-License-Identifier: Apache-2.0 */
/* Random changes against another way to keep the same book: for each socket where it is, instead of
 * for each place who is there. tests/sys/test_lanes_kernel.c asks the kernel itself. */
#include "core/lanes.h"
#include "unit.h"

enum { LANES = 5, SLOTS = 13, NOT_THERE = -1 };

struct reference {
	int where[LANES][SLOTS];
	int n;
};

static uint64_t state;

static unsigned draw(unsigned n)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(state >> 33) % n;
}

static int fd_of(unsigned lane, unsigned slot)
{
	return (int)(100 + lane * SLOTS + slot);
}

static void reference_init(struct reference *r)
{
	r->n = 0;
	for (unsigned lane = 0; lane < LANES; lane++)
		for (unsigned slot = 0; slot < SLOTS; slot++)
			r->where[lane][slot] = NOT_THERE;
}

/* The socket at the last place goes to this one. */
static void reference_leave(struct reference *r, unsigned lane, unsigned slot)
{
	int hole = r->where[lane][slot];

	r->n--;
	for (unsigned i = 0; i < LANES * SLOTS; i++)
		if (r->where[i / SLOTS][i % SLOTS] == r->n)
			r->where[i / SLOTS][i % SLOTS] = hole;
	r->where[lane][slot] = NOT_THERE;
}

static void check_indices(const struct lanes *l, const struct reference *r, unsigned lane,
	const bool *active, size_t n_active)
{
	uint32_t indices[LANES * SLOTS];
	size_t n = lanes_indices(l, lane, active, n_active, indices), n_expected = 0;

	for (unsigned slot = 0; slot < SLOTS; slot++) {
		bool found = false, expected = r->where[lane][slot] != NOT_THERE &&
					       (!active || (slot < n_active && active[slot]));

		for (size_t i = 0; i < n; i++)
			found = found || (int)indices[i] == r->where[lane][slot];
		ck_assert(found == expected);
		n_expected += expected;
	}
	ck_assert_uint_eq(n, n_expected);
}

static void check_same(const struct lanes *l, const struct reference *r)
{
	ck_assert_uint_eq(l->n, (size_t)r->n);
	for (unsigned lane = 0; lane < LANES; lane++) {
		bool active[SLOTS];
		unsigned n_slots = 0;

		for (unsigned slot = 0; slot < SLOTS; slot++) {
			int where = r->where[lane][slot];
			const struct lane_socket *s = lanes_find(l, lane, slot);

			active[slot] = draw(2);
			if (lanes_index(l, lane, slot) != (where == NOT_THERE ? -ENOENT : where) ||
				!s != (where == NOT_THERE))
				ck_abort_msg("lane %u slot %u", lane, slot);
			if (!s)
				continue;
			if (s->lane != lane || s->slot != slot || s->fd != fd_of(lane, slot))
				ck_abort_msg("socket of lane %u slot %u", lane, slot);
			n_slots = slot + 1;
		}
		ck_assert_uint_eq(lanes_slots(l, lane), n_slots);
		check_indices(l, r, lane, NULL, 0);
		check_indices(l, r, lane, active, draw(SLOTS + 1));
	}
}

static void random_change(struct lanes *l, struct reference *r)
{
	unsigned lane = draw(LANES), slot = draw(SLOTS);
	int *where = &r->where[lane][slot], fd = -1;

	switch (draw(4)) {
	case 0:
	case 1:
		if (*where != NOT_THERE) {
			ck_assert_int_eq(lanes_append(l, lane, slot, 1), -EEXIST);
			break;
		}
		ck_assert_int_eq(lanes_append(l, lane, slot, fd_of(lane, slot)), r->n);
		*where = r->n++;
		break;
	case 2:
		if (*where == NOT_THERE) {
			ck_assert_int_eq(lanes_remove(l, lane, slot, &fd), -ENOENT);
			ck_assert_int_eq(fd, -1);
			break;
		}
		ck_assert_int_eq(lanes_remove(l, lane, slot, draw(2) ? &fd : NULL), 0);
		ck_assert(fd == -1 || fd == fd_of(lane, slot));
		reference_leave(r, lane, slot);
		break;
	case 3:
		if (*where == NOT_THERE) {
			ck_assert_int_eq(lanes_relisten(l, lane, slot), -ENOENT);
			break;
		}
		reference_leave(r, lane, slot);
		ck_assert_int_eq(lanes_relisten(l, lane, slot), r->n);
		*where = r->n++;
		break;
	}
}

START_TEST(random_changes)
{
	for (unsigned round = 0; round < 20; round++) {
		_cleanup_(lanes_done) struct lanes l = {NULL, 0, 0};
		struct reference r;

		state = round;
		reference_init(&r);
		for (unsigned i = 0; i < 500; i++) {
			random_change(&l, &r);
			check_same(&l, &r);
		}
	}
}
END_TEST

/* --- strangers ------------------------------------------------------------------------------ */

enum { PLACES = 400, A_STRANGER = 1000, A_GUARD = 2000 };

/* The kernel's array, with strangers, and who does what listener_guard.c does. */
struct crowd {
	int array[PLACES]; /* fd_of() of ours; A_STRANGER and up; A_GUARD */
	int n, n_ours, n_strangers, n_guards;
	int n_known; /* strangers who were seen */
	int n_gone;  /* of those, who have left since */
	struct lanes lanes;
};

static void kernel_join(struct crowd *c, int who)
{
	ck_assert_int_lt(c->n, PLACES);
	c->array[c->n++] = who;
}

static void kernel_leave(struct crowd *c, int place)
{
	c->array[place] = c->array[--c->n];
}

/* The i-th of a kind. */
static int place_of(const struct crowd *c, int from, int to, unsigned i)
{
	for (int place = 0; place < c->n; place++)
		if (c->array[place] >= from && c->array[place] < to && i-- == 0)
			return place;
	return -1;
}

static int n_at_end(const struct crowd *c)
{
	return (int)lanes_others_at_end(&c->lanes);
}

static void look(struct crowd *c)
{
	ck_assert_int_eq(lanes_others_left(&c->lanes, (size_t)c->n_gone), 0);
	for (int i = 0; i < c->n; i++)
		if (c->array[i] == A_STRANGER) {
			ck_assert_int_eq(lanes_append_other(&c->lanes), 0);
			c->array[i]++; /* known */
		}
	c->n_known = c->n_strangers;
	c->n_gone = 0;
	while (n_at_end(c) < c->n_strangers) {
		kernel_join(c, A_GUARD);
		ck_assert_int_eq(lanes_append_other(&c->lanes), 0);
		c->n_guards++;
	}
	while (n_at_end(c) > c->n_strangers && c->n_guards > 0) {
		kernel_leave(c, place_of(c, A_GUARD, A_GUARD + 1, draw((unsigned)c->n_guards)));
		ck_assert_int_eq(lanes_others_left(&c->lanes, 1), 0);
		c->n_guards--;
	}
	ck_assert_uint_eq(c->lanes.n, (size_t)c->n);
}

static void check_crowd(const struct crowd *c)
{
	for (size_t i = 0; i < c->lanes.n; i++)
		if (c->lanes.sockets[i].lane != LANES_OTHER &&
			((int)i >= c->n || c->array[i] != c->lanes.sockets[i].fd))
			ck_abort_msg("place %zu", i);
}

static void change_strangers(struct crowd *c)
{
	int place;

	if (draw(2) || c->n_strangers == 0) {
		kernel_join(c, A_STRANGER);
		c->n_strangers++;
		return;
	}
	place = place_of(c, A_STRANGER, A_GUARD, draw((unsigned)c->n_strangers));
	c->n_gone += c->array[place] > A_STRANGER;
	kernel_leave(c, place);
	c->n_strangers--;
}

static void change_ours(struct crowd *c)
{
	unsigned lane = draw(LANES), slot = draw(SLOTS);
	int fd = fd_of(lane, slot), place;

	look(c);
	place = lanes_index(&c->lanes, lane, slot);
	if (place < 0) {
		kernel_join(c, fd);
		ck_assert_int_ge(lanes_append(&c->lanes, lane, slot, fd), 0);
	} else if (draw(2)) {
		kernel_leave(c, place);
		ck_assert_int_eq(lanes_remove(&c->lanes, lane, slot, NULL), 0);
	} else {
		kernel_leave(c, place);
		kernel_join(c, fd);
		ck_assert_int_ge(lanes_relisten(&c->lanes, lane, slot), 0);
	}
	look(c);
}

/* Whatever strangers do, seen or unseen: each of ours is where the model has it. */
START_TEST(strangers)
{
	for (unsigned round = 0; round < 200; round++) {
		struct crowd c = {.n = 0};

		state = round;
		for (unsigned i = 0; i < 300; i++) {
			if (draw(3))
				change_strangers(&c);
			else
				change_ours(&c);
			check_crowd(&c);
			if (c.n >= PLACES - 20 || c.n_strangers > 20)
				break;
		}
		lanes_done(&c.lanes);
	}
}
END_TEST

/* Without guards one of ours moves into a stranger's place: known if there is one such place. */
START_TEST(without_guards)
{
	_cleanup_(lanes_done) struct lanes l = {NULL, 0, 0};

	ck_assert_int_eq(lanes_append(&l, 0, 0, 10), 0);
	ck_assert_int_eq(lanes_append_other(&l), 0);
	ck_assert_int_eq(lanes_append(&l, 1, 0, 11), 2);
	ck_assert_uint_eq(lanes_others_at_end(&l), 0);
	ck_assert_int_eq(lanes_others_left(&l, 1), 0);
	ck_assert_int_eq(lanes_index(&l, 1, 0), 1);
	ck_assert_int_eq(lanes_others_left(&l, 1), -ESTALE);
	ck_assert_int_eq(lanes_append_other(&l), 0);
	ck_assert_int_eq(lanes_append_other(&l), 0);
	ck_assert_uint_eq(lanes_others_at_end(&l), 2);
	ck_assert_int_eq(lanes_append(&l, 1, 1, 12), 4);
	ck_assert_int_eq(lanes_others_left(&l, 1), -ESTALE);
	ck_assert_uint_eq(l.n, 4);
}
END_TEST

/* Ours, though nobody's: a stranger's leaving has nothing to do with it. */
START_TEST(put_aside)
{
	_cleanup_(lanes_done) struct lanes l = {NULL, 0, 0};

	ck_assert_int_eq(lanes_append(&l, LANES_PUT_ASIDE, 0, 10), 0);
	ck_assert_uint_eq(lanes_others_at_end(&l), 0);
	ck_assert_int_eq(lanes_append(&l, LANES_DISCARDED, 0, 11), 1);
	ck_assert_int_eq(lanes_append_other(&l), 0);
	ck_assert_int_eq(lanes_append(&l, 0, 0, 12), 3);
	ck_assert_int_eq(lanes_append_other(&l), 0);
	ck_assert_int_eq(lanes_others_left(&l, 2), 0);
	ck_assert_int_eq(lanes_others_left(&l, 1), -ESTALE);
	ck_assert_uint_eq(l.n, 3);
	ck_assert_int_eq(l.sockets[0].fd, 10);
	ck_assert_int_eq(l.sockets[1].fd, 11);
	ck_assert_int_eq(l.sockets[2].fd, 12);
}
END_TEST

/* Written out once, as a reader would try it. */
START_TEST(an_example)
{
	_cleanup_(lanes_done) struct lanes l = {NULL, 0, 0};
	uint32_t indices[6];
	int fd;

	for (unsigned i = 0; i < 6; i++) /* two lanes of three */
		ck_assert_int_eq(lanes_append(&l, i / 3, i % 3, (int)i + 10), (int)i);
	ck_assert_int_eq(lanes_remove(&l, 0, 1, &fd), 0);
	ck_assert_int_eq(fd, 11);
	ck_assert_int_eq(lanes_index(&l, 1, 2), 1); /* the last one is in the hole */
	ck_assert_int_eq(lanes_relisten(&l, 0, 0), 4);
	ck_assert_int_eq(lanes_index(&l, 1, 1), 0);
	ck_assert_uint_eq(lanes_indices(&l, 1, NULL, 0, indices), 3);
	ck_assert_uint_eq(indices[0], 0); /* in the array's order: 1.1, 1.2, 0.2, 1.0, 0.0 */
	ck_assert_uint_eq(indices[1], 1);
	ck_assert_uint_eq(indices[2], 3);
	ck_assert_uint_eq(lanes_slots(&l, 0), 3);
	ck_assert_uint_eq(lanes_slots(&l, 2), 0);
	/* The only one leaves and comes back to its place. */
	lanes_done(&l);
	ck_assert_uint_eq(l.n, 0);
	ck_assert_int_eq(lanes_append(&l, 7, 0, 1), 0);
	ck_assert_int_eq(lanes_relisten(&l, 7, 0), 0);
	ck_assert_int_eq(lanes_remove(&l, 7, 0, NULL), 0);
	ck_assert_int_eq(lanes_remove(&l, 7, 0, NULL), -ENOENT);
	ck_assert_ptr_null(lanes_find(&l, 7, 0));
}
END_TEST

int main(void)
{
	const TTest *tests[] = {random_changes, strangers, without_guards, put_aside, an_example};

	/* Each step checks every socket. */
	(void)setenv("CK_DEFAULT_TIMEOUT", "60", 0);
	return run_tests("lanes", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The store of descriptors, with a keeper that does not always read. */
#include "daemon/store.h"

#include "keeper_scene.h"

static struct store *store;
static sd_event *event;

static void setup(void)
{
	struct activation nothing = {.sockets = NULL};

	keeper_setup();
	ck_assert_int_eq(store_new(&nothing, &store), 0);
	ck_assert_ptr_nonnull(store);
	ck_assert_int_ge(sd_event_new(&event), 0);
	ck_assert_int_ge(store_watch(store, event), 0);
}

static void teardown(void)
{
	keeper = close_fd(keeper); /* nobody waits for it at the end */
	store = store_free(store);
	event = sd_event_unref(event);
	keeper_teardown();
}

/* How many messages there are that begin so; all are read. */
static unsigned read_all(const char *begin)
{
	struct notify_datagram d;
	unsigned n = 0;

	while (notify_socket_receive(keeper, &d) >= 0) {
		n += startswith(d.data, begin) != NULL;
		notify_datagram_close(&d);
	}
	return n;
}

static int make_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static unsigned n_stored(void)
{
	struct store_figures figures;

	store_figures(store, &figures);
	return figures.n_stored;
}

/* For three seconds: what is done in them takes next to no time. */
START_TEST(nobody_waits_for_it)
{
	uint64_t begin = now_usec(), spent = 0;
	unsigned n = 0;

	for (; n < 600 || now_usec() - begin < 3 * USEC_PER_SEC; n++) {
		uint64_t before = now_usec();

		ck_assert_uint_gt(store_add(store, STORED_OUTPUT, make_fd()), 0);
		store_commit(store);
		spent += now_usec() - before;
		if (n >= 600)
			usleep(20000);
	}
	ck_assert_uint_lt(spent, 400 * USEC_PER_MSEC);
	ck_assert_uint_eq(n_stored(), n);
	/* And it is told everything when it reads again, though nothing else happens. */
	begin = now_usec();
	for (unsigned told = 0; told < n; told += read_all("FDSTORE=1")) {
		ck_assert_uint_lt(now_usec() - begin, 30 * USEC_PER_SEC);
		ck_assert_int_ge(sd_event_run(event, 50 * USEC_PER_MSEC), 0);
	}
}
END_TEST

/* What was not told yet, and is not to be kept any more, is never told. */
START_TEST(dropped_before_it_was_told)
{
	int fds[600];

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		(void)store_add(store, STORED_OUTPUT, fds[i] = make_fd());
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (i % 2)
			store_drop(store, fds[i]);
		else
			store_drop_number(store, STORED_OUTPUT, store_number(store, fds[i]));
	ck_assert_uint_eq(n_stored(), 0);
	int n = 0;
	for (unsigned i = 0; i < 200; i++) {
		struct notify_datagram d;

		while (notify_socket_receive(keeper, &d) >= 0) {
			n += startswith(d.data, "FDSTORE=1") ? 1 : -1;
			notify_datagram_close(&d);
		}
		ck_assert_int_ge(sd_event_run(event, 10 * USEC_PER_MSEC), 0);
	}
	ck_assert_int_eq(n, 0);
}
END_TEST

/* The service manager was executed anew, and has another socket at the same address. */
START_TEST(keeper_is_replaced)
{
	int fd = make_fd();

	ck_assert_uint_gt(store_add(store, STORED_OUTPUT, fd), 0);
	ck_assert_uint_eq(read_all("FDSTORE=1"), 1);
	keeper = close_fd(keeper);
	keeper = notify_socket_reopen(keeper_address);
	ck_assert_int_ge(keeper, 0);
	ck_assert_uint_gt(store_add(store, STORED_OUTPUT, make_fd()), 0);
	ck_assert_uint_eq(read_all("FDSTORE=1"), 1);
	keeper = close_fd(keeper);
	keeper = notify_socket_reopen(keeper_address);
	store_drop(store, fd);
	ck_assert_uint_eq(read_all("FDSTOREREMOVE=1"), 1);
	ck_assert_uint_eq(n_stored(), 1);
}
END_TEST

/* Whoever gets the descriptor's number next was never stored. */
START_TEST(dropped_by_number)
{
	int fd = make_fd();
	unsigned number = store_add(store, STORED_DIRECTORY, fd);

	ck_assert_uint_gt(store_add(store, STORED_OUTPUT, make_fd()), 0);
	store_drop_number(store, STORED_DIRECTORY, number);
	ck_assert_uint_eq(store_number(store, fd), 0);
	ck_assert_uint_eq(n_stored(), 1);
	store_drop(store, fd);
	ck_assert_uint_eq(n_stored(), 1);
	ck_assert_uint_eq(read_all("FDSTOREREMOVE=1"), 1);
}
END_TEST

/* It is waited for once, not at each address that is given up. */
START_TEST(barrier_that_nobody_answers)
{
	uint64_t begin = now_usec(), first;

	store_barrier(store);
	first = now_usec() - begin;
	ck_assert_uint_ge(first, 500 * USEC_PER_MSEC);
	begin = now_usec();
	for (unsigned i = 0; i < 5; i++)
		store_barrier(store);
	ck_assert_uint_lt(now_usec() - begin, first);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {nobody_waits_for_it, dropped_before_it_was_told,
		keeper_is_replaced, dropped_by_number, barrier_that_nobody_answers};
	Suite *suite = suite_create("store");
	TCase *tcase = tcase_create("store");
	SRunner *runner;
	int n_failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 120);
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

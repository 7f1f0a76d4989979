/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/user.h"

#include "sys_test.h"

#include <grp.h>
#include <pwd.h>

static bool has_group(const struct user *u, gid_t gid)
{
	for (size_t i = 0; i < u->n_groups; i++)
		if (u->groups[i] == gid)
			return true;
	return false;
}

START_TEST(by_name_and_number)
{
	static const char *const names[] = {"root", "0"};
	_cleanup_user_ struct user u;

	ck_assert_int_eq(user_lookup(names[_i], NULL, &u), 0);
	ck_assert_uint_eq(u.uid, 0);
	ck_assert_uint_eq(u.gid, 0);
	ck_assert(has_group(&u, 0));
	ck_assert_str_eq(u.name, "root");
	ck_assert_str_eq(u.home, "/root");
	ck_assert(u.shell[0] == '/');
}
END_TEST

START_TEST(with_another_group)
{
	struct passwd *nobody = getpwnam("nobody");
	struct group *daemon = getgrnam("daemon");
	_cleanup_user_ struct user u;
	gid_t gid;

	ck_assert(nobody && daemon);
	ck_assert_int_eq(user_lookup("nobody", "daemon", &u), 0);
	ck_assert_uint_eq(u.uid, nobody->pw_uid);
	ck_assert_uint_eq(u.gid, daemon->gr_gid);
	ck_assert(has_group(&u, daemon->gr_gid));
	/* Not his any more, unless the group's own list says so. */
	ck_assert(!has_group(&u, nobody->pw_gid));
	user_done(&u);
	ck_assert_int_eq(user_lookup("nobody", "4242424", &u), 0);
	ck_assert_uint_eq(u.gid, 4242424);
	ck_assert_int_eq(group_lookup("daemon", &gid), 0);
	ck_assert_uint_eq(gid, daemon->gr_gid);
}
END_TEST

START_TEST(a_number_without_an_entry)
{
	_cleanup_user_ struct user u;
	_cleanup_free_ char *name = NULL, *root = NULL;

	ck_assert_int_eq(user_lookup("3999999999", NULL, &u), 0);
	ck_assert_uint_eq(u.uid, 3999999999U);
	ck_assert_uint_eq(u.gid, 3999999999U);
	ck_assert_uint_eq(u.n_groups, 1);
	ck_assert_uint_eq(u.groups[0], u.gid);
	ck_assert_str_eq(u.name, "3999999999");
	ck_assert_str_eq(u.home, "/");
	ck_assert_str_eq(u.shell, "/bin/sh");
	name = user_name_of(3999999999U);
	ck_assert_str_eq(name, "3999999999");
	root = user_name_of(0);
	ck_assert_str_eq(root, "root");
}
END_TEST

START_TEST(ourselves)
{
	_cleanup_user_ struct user u;
	gid_t groups[256];
	int n = getgroups(256, groups);

	ck_assert_int_eq(user_lookup(NULL, NULL, &u), 0);
	ck_assert_uint_eq(u.uid, geteuid());
	ck_assert_uint_eq(u.gid, getegid());
	ck_assert(has_group(&u, getegid()));
	for (int i = 0; i < n; i++)
		ck_assert(has_group(&u, groups[i]));
	ck_assert(u.name && u.home && u.shell);
	user_done(&u);
	ck_assert_int_eq(user_lookup(NULL, "daemon", &u), 0);
	ck_assert(has_group(&u, u.gid) && has_group(&u, getegid()));
}
END_TEST

START_TEST(nobody_of_that_name)
{
	struct user u;
	gid_t gid;

	ck_assert_int_eq(user_lookup("no such user", NULL, &u), -ENOENT);
	ck_assert_int_eq(user_lookup("", NULL, &u), -ENOENT);
	ck_assert_int_eq(user_lookup("-1", NULL, &u), -ENOENT);
	/* (uid_t)-1 is nobody's. */
	ck_assert_int_eq(user_lookup("4294967295", NULL, &u), -ENOENT);
	ck_assert_int_eq(user_lookup("root", "no such group", &u), -ESRCH);
	ck_assert_int_eq(group_lookup("4294967295", &gid), -ESRCH);
	ck_assert_int_eq(group_lookup("", &gid), -ESRCH);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("user");

	tcase_add_loop_test(tcase, by_name_and_number, 0, 2);
	tcase_add_test(tcase, with_another_group);
	tcase_add_test(tcase, a_number_without_an_entry);
	tcase_add_test(tcase, ourselves);
	tcase_add_test(tcase, nobody_of_that_name);
	return run_case("user", tcase);
}

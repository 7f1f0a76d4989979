/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"
#include "unit.h"

START_TEST(set_returns_the_code)
{
	_cleanup_error_ struct error e = ERROR_NULL;

	ck_assert_int_eq(error_set(&e, -EINVAL, "web: listen: \"%s\" is no address", "x"), -EINVAL);
	ck_assert_int_eq(e.code, -EINVAL);
	ck_assert_str_eq(e.message, "web: listen: \"x\" is no address");
	ck_assert_str_eq(error_message(&e), e.message);

	/* Set again: nothing of the first is left (the leak checker watches). */
	ck_assert_int_eq(error_set(&e, 7, "seven"), 7);
	ck_assert_int_eq(e.code, 7);
	ck_assert_str_eq(error_message(&e), "seven");
}
END_TEST

START_TEST(nobody_wants_to_know)
{
	ck_assert_int_eq(error_set(NULL, -EPERM, "%d", 1), -EPERM);
	ck_assert_int_eq(error_set_errno(NULL, -EPERM, "%d", 1), -EPERM);
	ck_assert_int_eq(error_prefix(NULL, "%d", 1), 0);
	error_done(NULL);
}
END_TEST

START_TEST(errno_is_spelt_out)
{
	_cleanup_error_ struct error e = ERROR_NULL;

	ck_assert_int_eq(error_set_errno(&e, -ENOENT, "cannot open %s", "/x"), -ENOENT);
	ck_assert_str_eq(error_message(&e), "cannot open /x: No such file or directory");
}
END_TEST

START_TEST(prefixes_go_before)
{
	_cleanup_error_ struct error e = ERROR_NULL;

	error_set(&e, -ERANGE, "too large");
	ck_assert_int_eq(error_prefix(&e, "line %d", 3), -ERANGE);
	ck_assert_int_eq(error_prefix(&e, "a.yaml"), -ERANGE);
	ck_assert_str_eq(error_message(&e), "a.yaml: line 3: too large");
	ck_assert_int_eq(e.code, -ERANGE);
}
END_TEST

START_TEST(old_message_may_be_an_argument)
{
	_cleanup_error_ struct error e = ERROR_NULL;

	error_set(&e, -EINVAL, "inner");
	error_set(&e, -EIO, "outer (%s)", e.message);
	ck_assert_str_eq(error_message(&e), "outer (inner)");
	error_set_errno(&e, -EIO, "%s", e.message);
	ck_assert_str_eq(error_message(&e), "outer (inner): Input/output error");
	error_prefix(&e, "%s", e.message);
	ck_assert_str_eq(error_message(&e),
		"outer (inner): Input/output error: outer (inner): Input/output error");
}
END_TEST

START_TEST(a_message_is_never_missing)
{
	struct error e = {.code = -ENOENT};

	ck_assert_str_eq(error_message(&e), "No such file or directory");
	e.code = 5;
	/* 5 is a module's own number, no EIO. */
	ck_assert_str_eq(error_message(&e), "no details (out of memory)");
	e.code = INT32_MIN;
	ck_assert_str_eq(error_message(&e), "unknown error");
	e.code = -EPERM;
	ck_assert_int_eq(error_prefix(&e, "kill"), -EPERM);
	ck_assert_str_eq(error_message(&e), "kill: Operation not permitted");
	error_done(&e);
	ck_assert_int_eq(e.code, 0);
	ck_assert_ptr_null(e.message);
	ck_assert_str_eq(error_message(&e), "Success");
	error_done(&e);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		set_returns_the_code,
		nobody_wants_to_know,
		errno_is_spelt_out,
		prefixes_go_before,
		old_message_may_be_an_argument,
		a_message_is_never_missing,
	};

	return run_tests("error", tests, ARRAY_SIZE(tests));
}

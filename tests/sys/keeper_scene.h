/* SPDX-License-Identifier: Apache-2.0 */
/* The socket of a keeper that the test itself is, and $NOTIFY_SOCKET that names it. */
#pragma once

#include "sys/notify_socket.h"
#include "sys_test.h"

static int keeper = -1;
static char *keeper_address;

static inline void keeper_setup(void)
{
	ck_assert_int_eq(notify_socket_open(&keeper, &keeper_address), 0);
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", keeper_address, 1), 0);
}

static inline void keeper_teardown(void)
{
	keeper = close_fd(keeper);
	free(keeper_address);
	keeper_address = NULL;
	ck_assert_int_eq(unsetenv("NOTIFY_SOCKET"), 0);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Why a listener could not be bound, for whoever has to put it right: the fact, who is in the way,
 * and the remedy. */
#pragma once

#include "daemon/listener.h"

/* code: -errno of listener_open() and its like. Sets the error and returns code. */
int listener_refused(const struct listener *l, int code, struct error *ret_error);

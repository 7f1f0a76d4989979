/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that a service manager gave us (`inherit: NAME`): which of them a configuration means,
 * how they become a group, and how they go back as they came. systemd.socket(5). */
#pragma once

#include <jansson.h>

#include "daemon/listener.h"
#include "sys/activation.h"

struct manager;

/* Each listener that inherits a name under which several sockets came becomes as many, one after
 * the other, with their addresses set: before config_resolve(), which names them. One that did not
 * come stays as it is, and fails when it is opened. 0 or -ENOMEM. */
int inherit_expand(struct config *c, const struct activation *a);
/* Warn of what came and no service asks for. */
void inherit_warn_unused(const struct manager *m);
/* The socket of l->config, as l->inherited, with what has to be restored later; l's address is set.
 * -ENOENT with a message that says what came instead; -EBUSY: another service still has it. */
int inherit_take(struct listener *l, struct error *ret_error);
/* What the socket brings with it, where c does not ask for something else: its address, backlog and
 * options. 0 or -ENOMEM. */
int inherit_complete(const struct listener *l, struct listener_config *c);
/* The same of a socket that was taken out of a process that runs (adopt.h), and goes on using it:
 * what it expects of the socket stays as it is. */
int inherit_adopt(struct listener *l, struct error *ret_error);
/* Keep the path of its Unix socket, which that process may remove. */
void inherit_watch_path(struct listener *l);
/* That process has ended: from now on it is one of ours. */
void inherit_forget_giver(struct listener *l);
/* Free what belongs to l alone of an adopted one. */
void inherit_forget(struct listener *l);
/* Of l->config's address, with l's steering: the inherited socket is lane's first, and the others
 * join it. Where that is not possible it is held, with the reason. 0 or -errno. */
int inherit_open(struct listener *l, unsigned lane, bool may_group);
/* Before it is saved: what its workers have made of its status flags. */
void inherit_look(struct listener *l);
/* Before the other sockets are closed: all new connections to the inherited one, where they wait
 * for whoever has it next. */
void inherit_steer_back(struct listener *l);
/* When it is the only one left: as it came. */
void inherit_give_back(struct listener *l);
/* What it is and how it came, as a value to be saved. NULL: it is not inherited, or out of memory.
 */
json_t *inherit_save(const struct listener *l);
/* Take it back; the model of l is loaded. Our giver may have passed the socket again, or not. 0,
 * -ENOMEM or -EBADMSG. */
int inherit_restore(struct listener *l, const json_t *value);

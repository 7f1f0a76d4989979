/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon replaces its own program in place: execve(2). Same process, and so the same parent,
 * pid and children; workers do not notice.
 *
 * The program is what is at the path of the running one now. Before anything happens it is opened,
 * and that very file is tried as a child, `tenured --check-state`, with a copy of the state: it
 * must say within ten seconds that it can go on from there. If not, the request is refused with the
 * reason, and nothing has changed. So a newer one is tried by its own code, and so is an older one.
 *
 * What goes over: all descriptors that a keeper would hold (store.h), under the same names, whether
 * there is a keeper or not (sys/reexec.h); sockets of socket units; the state, by which everything
 * is taken up as after a crash (restore.h). And, unlike after a crash, the last events with their
 * numbers, and the connections of the control socket with the calls that wait: Reexec itself is
 * answered by the next image. */
#pragma once

#include "daemon/manager.h"

/* Method Reexec. Answered now or later. 0 or -errno. */
int reexec_request(struct manager *m, struct control_call *call);
struct reexec *reexec_free(struct reexec *x);
/* The child in which a program is tried; 0: none. */
pid_t reexec_child(const struct manager *m);
/* If that is it: it may have ended without having been seen to. */
void reexec_look_again(struct manager *m, pid_t pid);
/* `tenured --check-state`, with the copy as descriptor 3: an exit status. */
int reexec_check_state(void);

/* --- reexec_state.c --- */

/* What the next image is to know beside the state of store.h. asked: who waits for it. */
void reexec_save(struct manager *m, struct control_call *asked);
/* The exec did not come. */
void reexec_forget(struct manager *m);
/* In the next image. The records are read: take what is ours, if there is any. */
void reexec_load(struct manager *m, const json_t *values);
/* Is this another image of the process that wrote the state: nobody was away? */
bool reexec_was_done(const struct manager *m);
/* The control socket is served: so are its connections. */
void reexec_resume(struct manager *m);
/* Everything goes on: who asked for it is told. */
void reexec_done(struct manager *m);
/* What became of the keeper; NULL: there is none of ours. */
void reexec_answer(struct manager *m, const char *keeper);
/* reexec_keeper.c: have it replace itself, and answer then. False: there is none. */
bool reexec_keeper_begin(struct manager *m);
struct reexec_keeper *reexec_keeper_free(struct reexec_keeper *k);
struct reexec_loaded *reexec_loaded_free(struct reexec_loaded *l);

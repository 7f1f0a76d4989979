/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of the control socket (control_conn.c: the server, control_stream.c: one
 * connection's bytes, control_call.c: its calls, control_roles.c) and nobody else. */
#pragma once

#include "base/address.h"
#include "daemon/control_conn.h"
#include "varlink/framing.h"
#include "varlink/service.h"

/* Users and groups as the kernel knows them. */
struct control_roles {
	uid_t *uids;
	size_t n_uids;
	gid_t *gids;
	size_t n_gids;
};

struct control_server {
	sd_event *event;
	struct control_server_ops ops;
	struct control_limits limits; /* no zeros */
	int64_t priority;
	struct varlink_service service;

	int fd;
	char *path;
	struct address address;
	dev_t dev; /* of the path while it is ours; ino 0: it is not known */
	ino_t ino;
	bool keep_path;
	struct control_roles operators, observers;
	bool observers_all;

	struct control_conn *conns;
	unsigned n_conns;
	sd_event_source *accept_source;
	sd_event_source *accept_timer; /* ends the pause when descriptors were out */
	sd_event_source *stall_timer;  /* on while some connection waits for its client */
	sd_event_source *later;	       /* on while some connection is dirty */

	uint64_t last_complaint_usec;
	unsigned n_complaints_held;
};

struct control_conn {
	struct control_server *server;
	struct control_conn *previous, *next;
	int fd;
	struct peer peer;
	sd_event_source *source;
	struct varlink_framing in;
	struct buffer out;
	int fds[CONTROL_FDS_MAX]; /* that came beside the message that is read, or answered */
	size_t n_fds;
	int out_fds[CONTROL_FDS_MAX]; /* that go with the first byte of out */
	size_t n_out_fds;
	struct control_call
		*call;		 /* the one being answered; borrowed, it outlives its place here */
	uint64_t in_since_usec;	 /* a message was begun; 0: none */
	uint64_t out_since_usec; /* output waits, and nothing was taken; 0: none */
	bool end_of_input;	 /* the client will say no more, but may listen */
	bool hung_up;		 /* nor does it listen */
	bool dead;		 /* closed as soon as the event loop comes by */
	bool busy;		 /* in control_conn_advance() */
	bool dirty;		 /* wants to be advanced by the event loop */
};

struct control_call {
	unsigned n_ref;
	struct control_conn *conn; /* NULL: answered, or the client is gone */
	struct varlink_call wire;
	const struct varlink_member *member; /* valid while conn is */
	enum control_role role;
	uid_t uid;
	pid_t pid;
	bool answered;
	control_gone_t gone;
	void *gone_userdata;
	char peer_text[64];
};

/* control_roles.c */
enum control_role control_server_role(const struct control_server *server, const struct peer *peer);
/* Names -> ids; names that do not exist are reported as part of the list called what. 0 or -ENOMEM.
 */
int control_roles_resolve(const struct control_server *server, char *const *names, const char *what,
	struct control_roles *ret);
void control_roles_done(struct control_roles *roles);

/* control_conn.c */
void control_report(const struct control_server *server, int priority, const char *format, ...)
	_printf_(3, 4);
/* The same about what clients do, at most once in ten seconds: a hostile one must not fill the log.
 */
void control_complain(struct control_server *server, const char *format, ...) _printf_(2, 3);
uint64_t control_now_usec(const struct control_server *server);
void control_resume_accept(struct control_server *server);
void control_arm_stall_timer(struct control_server *server, uint64_t at_usec);

/* control_stream.c */
/* Takes the fd and the peer on success. */
int control_conn_new(struct control_server *server, int *fd, struct peer *peer);
/* Unlinks and frees. tell: run the gone callback of its call. */
void control_conn_free(struct control_conn *conn, bool tell);
/* Go on as far as possible without waiting; may free the connection. From the event loop only. */
void control_conn_advance(struct control_conn *conn);
/* Have control_conn_advance() run soon. */
void control_conn_later(struct control_conn *conn);
/* Mark as dead; reason for the log, or NULL when the client just left. */
void control_conn_kill(struct control_conn *conn, const char *reason);
int control_conn_write(struct control_conn *conn);
void control_conn_drop_fds(struct control_conn *conn);
/* Append an answer and try to write it. Errors as of control_call_reply(). */
int control_conn_send(
	struct control_conn *conn, const json_t *parameters, bool continues, const char *error);

/* control_call.c */
/* One message: answered at once, or dispatched. Kills the connection when it is no call. */
void control_conn_handle(struct control_conn *conn, const char *message, size_t len);
/* The same of a call that was made in an earlier image of this process, and waits. 0 or -errno: it
 * is none. */
int control_conn_resume(struct control_conn *conn, const char *message, size_t len,
	const json_t *saved, const struct control_exec_ops *ops);
/* The connection ends. */
void control_call_detach(struct control_call *call, bool tell);

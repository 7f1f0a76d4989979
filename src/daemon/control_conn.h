/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: who connects, what they may, and their calls, one after the other. What the
 * methods do is the business of whoever gives the dispatch callback. Varlink, https://varlink.org;
 * unix(7).
 *
 *     struct control_server_ops ops = {.dispatch = ..., .report = ..., .userdata = m};
 *     struct control_server_options options = {.path = ..., .mode = 0666, .operators = ...};
 *     r = control_server_new(event, &options, &ops, &server, &error);
 *
 * A method answers inside the dispatch callback, or takes a reference to the call and answers
 * later:
 *
 *     control_call_on_gone(call, upgrade_gone, waiter);
 *     waiter->call = control_call_ref(call);
 *     return 0;
 *     ...
 *     control_call_notify(waiter->call, progress);                         any number of times
 *     control_call_reply(waiter->call, result);                            or control_call_error(),
 * once waiter->call = control_call_unref(waiter->call);
 *
 * Nothing calls back from inside a control_call_* function: that the client is gone, also because
 * it does not read what it is sent, is told from the event loop. So a list of calls can be walked
 * while they are answered. A client that misbehaves loses its own connection and nothing else. */
#pragma once

#include <jansson.h>
#include <systemd/sd-event.h>

#include "base/error.h"
#include "base/util.h"
#include "sys/fdpass.h"

struct control_server;
struct control_call;

/* Descriptors beside one message. */
enum { CONTROL_FDS_MAX = 64 };

/* What the peer's uid and groups allow: observers read, operators change. */
enum control_role { CONTROL_NONE, CONTROL_OBSERVER, CONTROL_OPERATOR };

/* A call arrived. method: the name after the interface, e.g. "Upgrade"; it exists in
 * io.tenured.Supervisor, and the parameters fit its declaration: required ones are there and of
 * their type, unknown ones were refused, and those that are null were removed, so that "unset" has
 * one form. parameters: an object, never NULL, borrowed: take a reference to keep it. The caller is
 * at least an observer; ask control_call_require() for more. Returns 0 when the call was answered
 * or a reference was taken to answer it later, or -errno, which is sent as
 * io.tenured.Supervisor.Failed unless an answer was already given. */
typedef int (*control_dispatch_t)(
	struct control_call *call, const char *method, json_t *parameters, void *userdata);

/* The client closed its connection, or lost it, before the answer. The call stays valid as long as
 * it is referenced; answers to it go nowhere. Not called for a call that was answered, nor after
 * the last reference is gone. */
typedef void (*control_gone_t)(struct control_call *call, void *userdata);

struct control_server_ops {
	control_dispatch_t dispatch;
	/* Something to log. priority as in syslog(3). May be NULL. */
	void (*report)(int priority, const char *message, void *userdata);
	/* A reply that does not fit the interface's text: a bug of the method. It is sent all the
	 * same. field: what does not fit, e.g. "services[0].state". NULL: reported. Tests fail
	 * here. */
	void (*bad_reply)(const char *method, const char *field, void *userdata);
	void *userdata;
};

/* 0 in a field stands for its default. Those per uid do not hold for operators. */
struct control_limits {
	size_t message;		      /* bytes of one message; 1 MiB */
	size_t output;		      /* bytes waiting to be read by one client; 4 MiB */
	size_t bytes_per_uid;	      /* bytes waiting in both directions; 16 MiB */
	unsigned connections;	      /* in all; 256. Operators get 16 more */
	unsigned connections_per_uid; /* 32 */
	unsigned depth;		      /* nesting of JSON; 32 */
	/* How long a client may take to finish a message that it began, or let what it is sent lie
	 * without reading any of it; 30 s. */
	uint64_t stall_usec;
};

struct control_server_options {
	const char *path;	/* of the socket; "@name": abstract */
	mode_t mode;		/* of the path, e.g. 0666 */
	char *const *operators; /* user names, uids, "@group"; NULL or empty: none but root and the
				   daemon's user */
	char *const *observers; /* the same; NULL or empty: everybody */
	int listen_fd; /* a socket that listens already on path, taken over on success; -1: bind the
			  path */
	int64_t priority; /* sd-event's, of all sources */
	struct control_limits limits;
};

/* Listen and serve. Root and the daemon's own user are always operators. Users and groups that do
 * not exist are reported (warning) and skipped. options and what it points to is not kept. A stale
 * socket at the path is replaced. 0, or -errno with a message that names the path: -EADDRINUSE
 * (somebody answers there), -EEXIST (not a socket). */
int control_server_new(sd_event *event, const struct control_server_options *options,
	const struct control_server_ops *ops, struct control_server **ret, struct error *ret_error);
/* Apply other operators, observers, mode and limits, also to the connections that exist; a changed
 * path binds the new one first and then removes the old. On an error nothing has changed. listen_fd
 * and priority are ignored. */
int control_server_reconfigure(struct control_server *server,
	const struct control_server_options *options, struct error *ret_error);
/* Close everything; no gone callbacks run, calls that are still referenced are detached. The path
 * is removed, if it is still ours, unless keep_path was asked for. Returns NULL. */
struct control_server *control_server_free(struct control_server *server);
static inline void control_server_free_p(struct control_server **server)
{
	*server = control_server_free(*server);
}
/* Leave the path in place when the server ends, because the socket lives on elsewhere. */
void control_server_keep_path(struct control_server *server);
/* The listening socket, borrowed; and the path, borrowed. */
int control_server_fd(const struct control_server *server);
const char *control_server_path(const struct control_server *server);
unsigned control_server_n_connections(const struct control_server *server);
/* Try to write what is waiting and wait at most timeout_usec for it (blocking): before the daemon
 * ends. */
void control_server_flush(struct control_server *server, uint64_t timeout_usec);

/* --- over an exec of the daemon: the connections stay, and so do the calls that wait --- */

struct control_exec_ops {
	/* Have the descriptor passed on; the number by which it is found again, 0: it cannot be. */
	unsigned (*lend)(int fd, void *userdata);
	/* What the call waits for; NULL: nothing that could be told, it is made again. */
	json_t *(*save)(struct control_call *call, void *userdata);
	/* In the new image. The descriptor with that number, the caller's; -1: there is none. */
	int (*take)(unsigned number, void *userdata);
	/* Go on waiting: the call is referenced, or answered. */
	void (*load)(struct control_call *call, const json_t *saved, void *userdata);
	void *userdata;
};
/* Everything about the connections, owned by the caller; NULL: out of memory. Nothing changes. */
json_t *control_server_save(
	const struct control_server *server, const struct control_exec_ops *ops);
/* What cannot be taken up is closed: its client sees the end of the connection. */
void control_server_load(
	struct control_server *server, const json_t *saved, const struct control_exec_ops *ops);

struct control_call *control_call_ref(struct control_call *call);
/* The last reference to a call without an answer answers it with Failed. Accepts NULL, returns
 * NULL. */
struct control_call *control_call_unref(struct control_call *call);
static inline void control_call_unref_p(struct control_call **call)
{
	*call = control_call_unref(*call);
}
#define _cleanup_control_call_ _cleanup_(control_call_unref_p)

/* The answer. All three take the JSON also on failure; NULL stands for {} (a value that could not
 * be allocated too). reply and error end the call. error: the full name
 * ("org.varlink.service.InvalidParameter") or the bare one of io.tenured.Supervisor
 * ("NoSuchService"). notify is one more answer with "continues"; without "more" it is dropped, so a
 * method may call it always. 0; -ESTALE: already answered; -ENOTCONN: the client is gone (also: not
 * a caller's problem); -ENOBUFS: the client does not read and loses its connection; -ENOMEM (it
 * loses it too). */
int control_call_reply(struct control_call *call, json_t *parameters_take);
int control_call_notify(struct control_call *call, json_t *parameters_take);
int control_call_error(struct control_call *call, const char *name, json_t *parameters_take);
/* Descriptors that came beside the call (SCM_RIGHTS), the caller's from now on. ret: room for
 * CONTROL_FDS_MAX. Only an operator's are kept. Returns how many. */
size_t control_call_take_fds(struct control_call *call, int *ret);
/* control_call_reply() with descriptors beside it: duplicates of these. -EMFILE and such: the call
 * is not answered. */
int control_call_reply_fds(
	struct control_call *call, json_t *parameters_take, const int *fds, size_t n_fds);
/* Failed, with a message for the person at the other end. */
int control_call_failed(struct control_call *call, const char *format, ...) _printf_(2, 3);
/* org.varlink.service.InvalidParameter; InvalidParameter has no room for a reason. */
int control_call_invalid_parameter(struct control_call *call, const char *parameter);

/* True when the caller has at least that role; otherwise false, and the call was answered with
 * NotPermitted. */
bool control_call_require(struct control_call *call, enum control_role role);
enum control_role control_call_role(const struct control_call *call);
/* The client wants every step, and waits for the last. */
bool control_call_wants_more(const struct control_call *call);
/* Answered, or nobody there to hear an answer. */
bool control_call_is_over(const struct control_call *call);
const char *control_call_method(const struct control_call *call);
/* Who asks. peer: NULL when the client is gone. text: "alice (pid 812)", always there. Borrowed. */
const struct peer *control_call_peer(const struct control_call *call);
const char *control_call_peer_text(struct control_call *call);
/* One callback per call; NULL takes it away. */
void control_call_on_gone(struct control_call *call, control_gone_t callback, void *userdata);

/* SPDX-License-Identifier: Apache-2.0 */
/* libtenure: what a server needs to run as a worker of tenured(8), in any event loop. See
 * tenure(3).
 *
 * Outside tenured the same calls work by what systemd has set (LISTEN_FDS, NOTIFY_SOCKET,
 * WATCHDOG_USEC); and where nobody has passed a socket, tenure_find_listener() says -ENXIO: bind it
 * yourself. So one program runs under tenured, under systemd, and by hand.
 *
 * Nothing happens behind the caller's back: there are no threads, no signals, no constructors, no
 * global state; no call blocks. Memory is allocated by tenure_new(), and by tenure_next_event() for
 * a listener that is added. Everything is freed by tenure_free().
 *
 * Threads: use a handle from one thread at a time. tenure_ready(), tenure_stopping(),
 * tenure_status(), tenure_failed(), tenure_extend_timeout(), tenure_heartbeat() and tenure_notify()
 * only read it, and may be called from any thread while no other one is inside tenure_free().
 *
 * fork(2): the handle is of the process that made it. A child must not use it; its descriptors are
 * closed by execve(2).
 *
 * Errors are negative errno values: no function sets errno for its caller. */
#ifndef TENURE_H
#define TENURE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; tenure_version() is the library's. */
#define TENURE_VERSION_MAJOR 1
#define TENURE_VERSION_MINOR 0

struct tenure; /* opaque */

/* Who has started this process, as far as it concerns us. */
enum tenure_where {
	TENURE_ALONE = 0,   /* nobody who passes sockets: bind them yourself */
	TENURE_SYSTEMD = 1, /* systemd, or a program that does as it does */
	TENURE_TENURED = 2, /* tenured */
};

/* A socket that was passed to this process, bound and (where that applies) listening. */
struct tenure_listener {
	const char *name;    /* as the configuration calls it; "unknown" when nobody said. Valid
				until the listener is removed, or tenure_free() */
	const char *address; /* "tcp:127.0.0.1:8080", "tcp:[::]:80", "udp:...", "unix:/run/x.sock",
				"unix-dgram:...", "unix-seqpacket:..."; valid as the name is */
	int fd;		     /* close-on-exec; yours to accept from. O_NONBLOCK is as it came
				(TENURE_NONBLOCK): it is shared with the other workers */
	int family;	     /* AF_INET, AF_INET6, AF_UNIX */
	int type;	     /* SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET */
	int reserved_int;
	uint64_t reserved[4];
};

enum tenure_event_kind {
	/* Finish what you have and exit; deadline_usec says by when. New connections go to others
	 * already; what waits in the queues of your listeners has been waited for. */
	TENURE_EVENT_DRAIN = 1,
	/* The configuration has one more listener: fd is yours to accept from. */
	TENURE_EVENT_LISTENER_ADDED = 2,
	/* The listener is to be closed: it gets no new connections, but accept what waits. For
	 * those that want to close idle connections of it; otherwise nothing need be done. */
	TENURE_EVENT_LISTENER_LEAVING = 3,
	/* Nothing waits in its queue any more. Take fd out of your loop and close it, before the
	 * next call of tenure_next_event(). */
	TENURE_EVENT_LISTENER_REMOVED = 4,
	/* A descriptor that your predecessor has stored after you were started, by its name: fd is
	 * yours. Those from before: tenure_take(). When the daemon dies just then, it may come a
	 * second time: kcmp(2) tells whether two are the same. */
	TENURE_EVENT_DESCRIPTOR = 5,
	/* The other end of the channel was closed, or speaks no version of it that this library
	 * does; there will be no further events. Serve on: it says nothing about the listeners, and
	 * a drain comes by signal then. */
	TENURE_EVENT_CLOSED = 6,
};

struct tenure_event {
	int kind;		/* enum tenure_event_kind; skip those that you do not know */
	int fd;			/* of a listener or a descriptor; else -1 */
	uint64_t deadline_usec; /* DRAIN: CLOCK_MONOTONIC, microseconds; UINT64_MAX: none */
	const char *name;	/* of a listener or a descriptor, else NULL. Until the next call of
				   tenure_next_event() */
	const char *address;	/* of a listener, as in struct tenure_listener; else NULL */
	int family, type;	/* of a listener, as in struct tenure_listener; else 0 */
	uint64_t reserved[4];
};

/* --- the handle --------------------------------------------------------------------------------
 */

enum {
	/* Remove LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PIDFDID, NOTIFY_SOCKET,
	 * WATCHDOG_PID, WATCHDOG_USEC and TENURE_CHANNEL from the environment, so that programs
	 * that you start do not believe them. As unsetenv(3), not while other threads run. */
	TENURE_UNSET_ENVIRONMENT = 1,
	/* Set O_NONBLOCK on listeners, also on those that are added later. Whoever polls wants
	 * that: another worker may be faster, and then accept(2) would wait for the next
	 * connection. It belongs to the socket, which other workers and generations have, too: all
	 * of them must be content with it, and it is never taken back. */
	TENURE_NONBLOCK = 2,
};

/* Look at what was passed to this process. Once, at its start: descriptors that were passed are
 * made close-on-exec.
 *   ret    the handle, to be freed by tenure_free(); untouched on failure
 *   flags  of TENURE_UNSET_ENVIRONMENT and TENURE_NONBLOCK
 * 0; -EINVAL: an unknown flag, or an environment that contradicts itself (LISTEN_FDS is no number,
 * LISTEN_FDNAMES has another count, a descriptor it names is not open); -ENOMEM; -EMFILE, -ENFILE.
 * That nothing was passed is no error. */
int tenure_new(struct tenure **ret, uint64_t flags);

/* Free the handle: the channel is closed, and those stored descriptors that were not taken.
 * Listeners stay open: they are yours. NULL is fine. Returns NULL. */
struct tenure *tenure_free(struct tenure *t);

/* "1.0": of the library that runs. Static. */
const char *tenure_version(void);

/* enum tenure_where. */
int tenure_where(const struct tenure *t);
/* Under tenured the service's name, else NULL. Owned by the handle. */
const char *tenure_service(const struct tenure *t);
/* Under tenured the generation's number, from 1; else 0. */
unsigned tenure_generation(const struct tenure *t);
/* Under tenured the worker's place in its generation, from 0; else -1. A successor has the same. */
int tenure_worker(const struct tenure *t);

/* --- listeners ---------------------------------------------------------------------------------
 */

/* How many there are now: those from the start, and those that were added since. */
size_t tenure_n_listeners(const struct tenure *t);
/* One of them, in the order of the configuration. 0; -ERANGE: there are not so many. */
int tenure_listener(const struct tenure *t, size_t i, struct tenure_listener *ret);
/* The first one that fits.
 *   name     as configured; NULL: any
 *   address  as in struct tenure_listener ("tcp:127.0.0.1:80"); NULL: any
 *   type     SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET; 0: any
 * 0; -ENOENT: none is like that, although others were passed or tenured has started us (a mistake
 * of the configuration); -ENXIO: nobody passes any: bind one yourself. */
int tenure_find_listener(const struct tenure *t, const char *name, const char *address, int type,
	struct tenure_listener *ret);

/* --- what there is to be told ------------------------------------------------------------------
 */

/* Each returns 1: it was sent; 0: nobody wants to know; -errno of sendmsg(2) (-EAGAIN: the receiver
 * is behind, try again later). */

/* Ready: accepting from all listeners. Once, when it is true. sd_notify(3): READY=1. */
int tenure_ready(const struct tenure *t);
/* Has begun to stop. STOPPING=1. */
int tenure_stopping(const struct tenure *t);
/* One line for `tenurectl status`; longer ones are cut at 512 bytes. STATUS=. -EINVAL: it has a
 * newline. */
int tenure_status(const struct tenure *t, const char *text);
/* It cannot work, because of that errno value (positive): the upgrade fails at once instead of by
 * its timeout. ERRNO=. -EINVAL: not between 1 and 4095. */
int tenure_failed(const struct tenure *t, int error);
/* Getting ready takes so long from now on, microseconds. EXTEND_TIMEOUT_USEC=. */
int tenure_extend_timeout(const struct tenure *t, uint64_t usec);
/* Alive. To be said at least as often as tenure_watchdog() says, from the loop itself. Under
 * tenured with a channel (tenure_fd()) tenure_next_event() says it when it is asked, and this is
 * not needed. WATCHDOG=1. */
int tenure_heartbeat(const struct tenure *t);
/* Anything else that sd_notify(3) knows: "KEY=value" lines. */
int tenure_notify(const struct tenure *t, const char *lines);
/* Does somebody expect heartbeats? 1, with *ret_usec (may be NULL): say it twice in that time, in
 * microseconds; 0: nobody does. */
int tenure_watchdog(const struct tenure *t, uint64_t *ret_usec);

/* --- events ------------------------------------------------------------------------------------
 */

/* One descriptor to poll for reading (POLLIN, EPOLLIN, level-triggered); it stays the same, and is
 * the handle's. The first call tells tenured that somebody reads: from then on drains come as
 * TENURE_EVENT_DRAIN instead of the drain signal, and listeners may be added and removed. So do not
 * call it without a loop that calls tenure_next_event(). Outside tenured, and for a service without
 * `handoff: channel`, it never becomes readable: handle SIGTERM, too. -EMFILE, -ENFILE, -ENOMEM. */
int tenure_fd(struct tenure *t);
/* The next event; call it until there is none. 1, with *ret; 0: none now; -EMFILE: descriptors came
 * with a message that this process had no room for (raise its limit): a listener is offered again a
 * second later, those of a predecessor are lost; -ENOMEM: likewise. */
int tenure_next_event(struct tenure *t, struct tenure_event *ret);

/* --- descriptors for those who come after -------------------------------------------------------
 */

enum {
	TENURE_STORE_NO_POLL = 1, /* keep it also when it hangs up; else it is then forgotten */
};

/* Have descriptors kept for the worker that comes after this one in its place: of the next
 * generation, or of the same when this one crashes. It gets copies; this one keeps its own. What
 * the next one has got stays with it when this one ends; when the upgrade fails it is still this
 * one's. sd_notify(3): FDSTORE=1.
 *   name   printable ASCII without ":", 1 to 255 characters; several may have the same
 *   fds    n of them, borrowed
 *   flags  0 or TENURE_STORE_NO_POLL
 * 1; 0: nobody keeps any; -EINVAL: name, flags or n (0) cannot be; -errno of sendmsg(2). -EAGAIN:
 * some may have been sent; what is there already is not stored twice, so try again with all. */
int tenure_store(
	const struct tenure *t, const char *name, const int *fds, size_t n, uint64_t flags);
/* Forget those of that name: nobody comes to get them any more. 1, 0, -EINVAL, -errno. */
int tenure_unstore(const struct tenure *t, const char *name);
/* The next one that a predecessor has stored, in the order in which they were.
 *   name      NULL: any
 *   ret_name  its name (may be NULL); until tenure_free()
 * A descriptor, from now on the caller's; -ENOENT: there is none, or no more. */
int tenure_take(struct tenure *t, const char *name, const char **ret_name);

#ifdef __cplusplus
}
#endif

#endif

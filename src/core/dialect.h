/* SPDX-License-Identifier: Apache-2.0 */
/* The conventions by which programs are told their listening sockets: one row each, with what it
 * sets, what it needs, and what it cannot express. From listeners and a worker's numbers to
 * environment entries and arguments; nothing here makes a descriptor or asks the kernel. */
#pragma once

#include "base/error.h"
#include "core/config.h"

/* What a dialect needs of the listeners of a service. */
enum dialect_limit {
	DIALECT_ONE_LISTENER = 1 << 0, /* exactly one */
	DIALECT_STREAMS = 1 << 1,      /* no datagrams */
	DIALECT_NO_ABSTRACT = 1 << 2,  /* Unix sockets have a path */
	DIALECT_NAMED = 1 << 3,	       /* the program finds them by address: each one differs */
};

struct dialect_listener {
	const char *name; /* as workers are told: LISTEN_FDNAMES */
	struct address address;
	bool v6only;
	int fd; /* its number in the worker */
};

/* Everything that a worker is told. Borrowed. */
struct dialect_request {
	unsigned handoff; /* set of enum handoff_kind */
	const struct dialect_listener *listeners;
	size_t n_listeners;
	size_t n_stored;	  /* descriptors behind the listeners', for LISTEN_FDS alone */
	const char *stored_names; /* ":a:b"; NULL: none */
	unsigned generation, worker;
	int master_pid;		  /* the worker's parent */
	const char *einhorn_path; /* of einhorn's control socket; NULL: none */
	int einhorn_fd;		  /* a connected one's number in the worker; -1: none */
};

struct dialect {
	enum handoff_kind kind;
	const char *name;	      /* as in `handoff:` */
	unsigned limits;	      /* set of enum dialect_limit */
	const char *why;	      /* who cannot do more, for messages: "Server::Starter" */
	const char *const *aliases;   /* other words for it, NULL-terminated; may be NULL */
	const char *const *variables; /* the ones it sets, NULL-terminated; a "*" stands for digits
				       */
	int (*add)(const struct dialect *d, const struct dialect_request *r, char ***env,
		struct error *ret_error); /* NULL: no environment of its own */
};

const struct dialect *dialect_list(size_t *ret_n);
/* By its name or another word for it; NULL: there is none. */
const struct dialect *dialect_find(const char *word);
/* All names, NULL-terminated, for messages. */
const char *const *dialect_names(void);
/* Why a convention is known and yet not spoken, and what to do: NULL when it is not known at all.
 */
const char *dialect_not_spoken(const char *word);

/* Are descriptors counted from 3, as by everything but the one on standard input? */
bool dialect_counts(unsigned handoff);
/* The number of listener i in a worker: 3 + i, or 0 of the first where nothing else counts. */
int dialect_listener_fd(unsigned handoff, size_t i);
/* Does one of these dialects set this variable? name: len bytes. */
bool dialect_sets(unsigned handoff, const char *name, size_t len);
/* Must the child write its own pid into LISTEN_PID? */
bool dialect_needs_pid(unsigned handoff);

/* Why these listeners cannot be told this way, with the remedy; NULL in *ret: they can. Listeners
 * whose address is not known yet (inherited) are taken as fitting. 0 or -ENOMEM. */
int dialect_refuse(
	const struct dialect *d, const struct dialect_listener *listeners, size_t n, char **ret);

/* Adds what each dialect sets, replacing what is there. 0, -ENOMEM, or -EINVAL with a message: an
 * address that was not known before cannot be told this way. */
int dialect_environment(const struct dialect_request *r, char ***env, struct error *ret_error);

/* One reference in an argument or a variable's value. */
enum dialect_reference_kind {
	REFERENCE_FD,	  /* {fd:NAME} */
	REFERENCE_SOCKET, /* {socket:WORD} */
	REFERENCE_CIRCUS, /* $(circus.sockets.NAME) or ((circus.sockets.NAME)) */
};
struct dialect_reference {
	enum dialect_reference_kind kind;
	const char *start, *end;
	const char *name; /* len bytes, of the text */
	size_t len;
};
/* The next one; kinds: 1 << kind of those that count. 1: found, 0: none, -EINVAL: it is begun and
 * not ended, or names nothing (*ret: its kind). Pointers into s. */
int dialect_reference_next(const char *s, unsigned kinds, struct dialect_reference *ret);

/* {socket:WORD}: the dialect that is served there. NULL: none has that word. */
const struct dialect *dialect_of_socket(const char *word, size_t len);

/* The text with each listener's number in the place of its references: {fd:NAME}, and circus's if
 * handoff has it. *ret: the caller frees. 0 or -ENOMEM. A name that is none stays as it is. */
int dialect_replace(const char *text, unsigned handoff, const struct listener_config *listeners,
	size_t n, char **ret);
/* einhorn's older way: a whole argument of the command, "srv:HOST:PORT" (",FLAG"s may follow it,
 * and "WORD=" precede it), stands for the number of the listener there. 1: it is one; *ret_before:
 * bytes of WORD=. 0: it is none. -EINVAL: what it names is no IPv4 address with a port. */
int dialect_srv(const char *argument, struct address *ret, size_t *ret_before);
/* The index of the listener that has this address or, on a wildcard, covers it; SIZE_MAX: none. */
size_t dialect_srv_listener(
	const struct address *a, const struct listener_config *listeners, size_t n);
/* The argument with that number. *ret: the caller frees. 1; 0: there is nothing to replace, and
 * *ret is untouched; -ENOMEM. */
int dialect_replace_srv(const char *argument, unsigned handoff,
	const struct listener_config *listeners, size_t n, char **ret);
/* The text with the paths of sockets in the place of {socket:WORD}: path_of(kind), borrowed. */
int dialect_replace_sockets(const char *text, const char *(*path_of)(enum handoff_kind, void *),
	void *userdata, char **ret);

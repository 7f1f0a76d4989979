/* SPDX-License-Identifier: Apache-2.0 */
/* What a known server wants: how it takes its sockets, when it is ready, how it ends, which
 * arguments it needs. A preset fills in what the user has not written, while the configuration is
 * read; whoever looks at it afterwards sees plain values. */
#pragma once

#include "core/config.h"

/* Words that are added behind the command, unless it has the first of them already or one of
 * `instead`. "{fd:*}" stands for the first listener. */
struct preset_argument {
	const char *words[3];	/* NULL-terminated */
	const char *instead[5]; /* NULL-terminated */
	unsigned handoff;	/* only with this one of enum handoff_kind; 0: always */
};

struct preset {
	const char *name;
	const char *what;	 /* for people: "Python, WSGI" */
	const char *command;	 /* an example of one */
	unsigned handoff;	 /* set of enum handoff_kind; 0: the default */
	int signal;		 /* 0: the default */
	uint64_t idle_wait_usec; /* 0: the default */
	uint64_t timeout_usec;	 /* of drain; 0: the default */
	bool nonblocking;	 /* it accepts without waiting, and does not ask for that itself */
	bool nodelay;		 /* TCP: it does not ask for TCP_NODELAY on a socket it was given */
	const struct preset_argument *arguments; /* ended by one without words; may be NULL */
	const char *const *programs; /* what it may be called, without a version; NULL-terminated */
	const char *tested;	     /* with which version; NULL: with none */
	const char *needs;	     /* of the program's own configuration; NULL: nothing */
	const char *why;	     /* why it is so, or what to know; NULL: nothing */
};

const struct preset *preset_list(size_t *ret_n);
const struct preset *preset_find(const char *name); /* NULL: there is none */
/* All names and "none", NULL-terminated, for messages. */
const char *const *preset_names(void);

/* Before the service's keys are read, which change what was filled in. 0 or -ENOMEM. */
int preset_begin(const struct preset *p, struct service_config *s);
/* When its listeners have their names: arguments and socket options. Nothing is added twice. 0 or
 * -ENOMEM. */
int preset_finish(struct service_config *s);

/* What this command looks like; NULL: like nothing that is known. interpreter: the words of the
 * program's "#!" line, or NULL. */
const struct preset *preset_guess(char *const *command, char *const *interpreter);

/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum option_kind {
	KIND_FLAG,
	KIND_NUMBER,
	KIND_SIZE,
	KIND_TIME,  /* a bare number is in milliseconds; default 0 */
	KIND_AFTER, /* the same; default never */
	KIND_TEXT,
	KIND_LIST,
};

struct option_entry {
	const char *name;
	enum option_kind kind;
	size_t offset;
	const char *help;
};

#define FIELD(name) offsetof(struct worker_options, name)

static const struct option_entry entries[] = {
	{"fd",		   KIND_LIST,	  FIELD(fds),		      "N: accept from this descriptor instead of LISTEN_FDS"  },
	{"stdin",		  KIND_FLAG,   FIELD(use_stdin),	       "accept from descriptor 0"				 },
	{"listen",		   KIND_LIST,   FIELD(listen),		     "ADDRESS: bind it here"				    },
	{"backlog",		    KIND_NUMBER, FIELD(backlog),		 "N: of --listen (1024)"					},

	{"boot-delay",	       KIND_TIME,	  FIELD(boot_delay),	     "sleep first, deaf to everything"			      },
	{"ready-delay",		KIND_TIME,   FIELD(ready_delay),	       "accept and say READY=1 only then"			 },
	{"ready-before-accept",	KIND_TIME,   FIELD(ready_before_accept),
		"say READY=1 this long before accepting"										  },
	{"never-ready",		KIND_FLAG,   FIELD(never_ready),	       "accept but never say READY=1"			     },
	{"never-accept",	 KIND_FLAG,   FIELD(never_accept),	 "say READY=1 but never accept"			       },
	{"no-notify",	      KIND_FLAG,	 FIELD(no_notify),		   "know nothing of NOTIFY_SOCKET"			  },
	{"die-after-ready",	    KIND_AFTER,	FIELD(die_after_ready),	"exit this long after READY=1"			      },
	{"die-between-requests", KIND_FLAG,   FIELD(die_between_requests),
		"do so at a moment without connections"										   },
	{"status",		   KIND_TEXT,   FIELD(status),		     "TEXT: STATUS= beside READY=1"			   },
	{"notify-errno",	 KIND_NUMBER, FIELD(notify_errno),	   "N: send ERRNO=N at the start"				 },
	{"notify",		   KIND_LIST,   FIELD(notify),		     "TEXT: send it at the start"				 },
	{"extend-timeout",	   KIND_TIME,   FIELD(extend_timeout),
		"keep sending EXTEND_TIMEOUT_USEC= of this until ready"								       },
	{"spam-notify",		KIND_FLAG,   FIELD(spam_notify),	       "ten nonsensical messages each millisecond"		  },
	{"watchdog",	     KIND_FLAG,	FIELD(watchdog),		 "send WATCHDOG=1 as WATCHDOG_USEC asks"			},
	{"watchdog-stop-after",	KIND_AFTER,  FIELD(watchdog_stop_after),	"until then"					    },

	{"exit-code",	      KIND_NUMBER, FIELD(exit_code),	     "N: of the next four (1)"				      },
	{"exit-at-once",	 KIND_FLAG,   FIELD(exit_at_once),	 "exit before anything else"				    },
	{"exit-after",	       KIND_AFTER,  FIELD(exit_after),	      "exit then, also in mid-request"			      },
	{"crash-after",		KIND_AFTER,  FIELD(crash_after),		"die of --crash-how then"				 },
	{"crash-how",	      KIND_TEXT,	 FIELD(crash_how),		   "abort, segv or kill (kill)"			       },
	{"hang-after",	       KIND_AFTER,  FIELD(hang_after),	      "do nothing any more, deaf to TERM"			 },
	{"ignore-term",		KIND_FLAG,   FIELD(ignore_term),	       "go on accepting"					},
	{"exit-on-term-at-once", KIND_FLAG,   FIELD(exit_on_term_at_once), "drop what is under way"				 },
	{"never-exit",	       KIND_FLAG,	  FIELD(never_exit),	     "stop accepting on TERM, but stay"		       },
	{"term-delay",	       KIND_TIME,	  FIELD(term_delay),	     "begin draining that long after TERM"			  },
	{"idle-linger",		KIND_TIME,   FIELD(idle_linger),
		"when draining, give kept connections that long for one more request (2s)"						  },

	{"shutdown-listener",    KIND_AFTER,  FIELD(shutdown_listener),    "SHUT_RD the listeners then"				},
	{"close-listener",	   KIND_AFTER,  FIELD(close_listener),	      "close the listeners then"				},
	{"detach-bpf",	       KIND_AFTER,  FIELD(detach_bpf),	      "detach the steering each such interval"		      },
	{"relisten",	     KIND_NUMBER, FIELD(relisten),		   "BACKLOG: call listen() on what was given"		     },
	{"listen-own",	       KIND_TEXT,	  FIELD(listen_own),	     "ADDRESS: bind it, ignore what was given"		      },
	{"epoll-exclusive",	    KIND_FLAG,   FIELD(epoll_exclusive),      "wait with EPOLLEXCLUSIVE"				 },
	{"clear-nonblock",	   KIND_FLAG,   FIELD(clear_nonblock),	     "clear O_NONBLOCK of what was given"			 },
	{"unlink",		   KIND_FLAG,   FIELD(unlink_at_exit),
		"remove the paths of Unix listeners at the end"									   },
	{"accept-delay",	 KIND_TIME,   FIELD(accept_delay),	 "sleep before each accept()"			     },
	{"accept-batch",	 KIND_NUMBER, FIELD(accept_batch),
		"N: accept() up to N times a wake-up (16)"										},

	{"fork-grandchild",	    KIND_FLAG,   FIELD(fork_grandchild),
		"leave a child that has the listeners and ignores TERM"								       },
	{"double-fork",		KIND_FLAG,   FIELD(double_fork),	       "the same, forked twice with setsid()"		     },
	{"grandchild-lifetime",	KIND_TIME,   FIELD(grandchild_lifetime),  "its end (60s)"					      },
	{"leak-fd",		    KIND_FLAG,   FIELD(leak_fd),	       "open ten descriptors a second and forget them"	      },
	{"fail-if-fds",		KIND_FLAG,   FIELD(fail_if_fds),
		"exit 93 when other descriptors than 0, 1, 2 and the listeners are open"							},
	{"print-env",	      KIND_FLAG,	 FIELD(print_env),		   "write the environment to stdout"			    },
	{"flood-stdout",	 KIND_SIZE,   FIELD(flood_stdout),	 "N: write N bytes a second"				    },
	{"flood",		  KIND_FLAG,   FIELD(flood),		   "write as much as goes"				  },
	{"write-lines",		KIND_NUMBER, FIELD(write_lines),
		"N: numbered lines to stderr at the start"										},
	{"write-text",	       KIND_TEXT,	  FIELD(write_text),	     "TEXT: to stderr at the start, no line end"		},
	{"allocate",	     KIND_SIZE,	FIELD(allocate),		 "N: take N bytes of memory and touch them"		   },
	{"chdir",		  KIND_TEXT,   FIELD(chdir_to),	      "DIRECTORY: go there"				   },
	{"grow",		 KIND_SIZE,   FIELD(grow),		 "N: take N more bytes of memory each second, touch them"},
	{"unhealthy-if",	 KIND_TEXT,   FIELD(unhealthy_if),
		"FILE: /up answers 503 while it is there, with what it holds"							     },
	{"unhealthy",	      KIND_FLAG,	 FIELD(unhealthy),		   "/up answers 503"					    },
};

/* Options may be meant for some workers only; a condition holds until the next --always, in a file
 * until the end of the line. */
struct condition {
	bool met;
};

static void usage(FILE *file)
{
	fprintf(file, "Usage: worker [OPTIONS]\nAn HTTP server for tests.\n\n");
	for (size_t i = 0; i < ELEMENTS(entries); i++)
		fprintf(file, "  --%-22s%s\n", entries[i].name, entries[i].help);
	fprintf(file, "  --manners FILE          read more options from FILE, some on each line\n"
		      "  --if-generation N       what follows is for generation N only\n"
		      "  --if-worker N           ... for the worker with index N\n"
		      "  --if-first FILE         ... for who comes first: FILE is made and was not "
		      "there\n"
		      "  --always                ... for all again\n\n"
		      "TIME is 250ms, 2s, or a number of milliseconds.\n");
}

static bool is_condition(const char *name)
{
	return strcmp(name, "if-generation") == 0 || strcmp(name, "if-worker") == 0 ||
	       strcmp(name, "if-first") == 0;
}

static bool equals_env(const char *variable, const char *value)
{
	const char *is = getenv(variable);

	return is && strcmp(is, value) == 0;
}

static bool condition_holds(const char *name, const char *value)
{
	int fd;

	if (strcmp(name, "if-generation") == 0)
		return equals_env("TENURE_GENERATION", value);
	if (strcmp(name, "if-worker") == 0)
		return equals_env("TENURE_WORKER", value);
	fd = open(value, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd >= 0)
		close(fd);
	else if (errno != EEXIST)
		tool_die(EXIT_USAGE, "--if-first %s: %s", value, strerror(errno));
	return fd >= 0;
}

static const struct option_entry *find_entry(const char *name)
{
	for (size_t i = 0; i < ELEMENTS(entries); i++)
		if (strcmp(entries[i].name, name) == 0)
			return &entries[i];
	return NULL;
}

static void list_append(struct worker_list *list, const char *item)
{
	list->items = tool_reallocate(list->items, list->n_items + 1, sizeof(*list->items));
	list->items[list->n_items++] = item;
}

static int set_value(
	struct worker_options *options, const struct option_entry *entry, const char *value)
{
	char *field = (char *)options + entry->offset;

	switch (entry->kind) {
	case KIND_FLAG:
		*(bool *)(void *)field = true;
		return 0;
	case KIND_NUMBER:
		return tool_parse_unsigned(value, INT32_MAX, (uint64_t *)(void *)field);
	case KIND_SIZE:
		return tool_parse_size(value, (uint64_t *)(void *)field);
	case KIND_TIME:
	case KIND_AFTER:
		return tool_parse_usec(value, TOOL_USEC_PER_MSEC, (uint64_t *)(void *)field);
	case KIND_TEXT:
		*(const char **)(void *)field = value;
		return 0;
	case KIND_LIST:
		list_append((struct worker_list *)(void *)field, value);
		return 0;
	}
	return -EINVAL;
}

static void read_file(struct worker_options *options, const char *path);

/* Takes one option, and its value when it needs one, from words; returns how many it took. */
static size_t take_option(
	struct worker_options *options, struct condition *condition, char **words, size_t n_words)
{
	const char *name = words[0];
	const struct option_entry *entry;
	bool needs_value;

	if (strncmp(name, "--", 2) != 0)
		tool_die(EXIT_USAGE, "'%s' is not an option", name);
	name += 2;
	if (strcmp(name, "help") == 0) {
		usage(stdout);
		exit(0);
	}
	if (strcmp(name, "always") == 0) {
		condition->met = true;
		return 1;
	}

	entry = find_entry(name);
	needs_value = entry ? entry->kind != KIND_FLAG : true;
	if (!entry && !is_condition(name) && strcmp(name, "manners") != 0)
		tool_die(EXIT_USAGE, "unknown option --%s", name);
	if (needs_value && n_words < 2)
		tool_die(EXIT_USAGE, "--%s needs a value", name);

	/* A condition under one that does not hold has no effect, not even on the file it would
	 * make. */
	if (condition->met) {
		if (entry) {
			if (set_value(options, entry, needs_value ? words[1] : NULL) < 0)
				tool_die(EXIT_USAGE, "--%s: bad value '%s'", name, words[1]);
		} else if (is_condition(name))
			condition->met = condition_holds(name, words[1]);
		else
			read_file(options, words[1]);
	}
	return needs_value ? 2 : 1;
}

static void take_options(struct worker_options *options, char **words, size_t n_words)
{
	struct condition condition = {.met = true};

	for (size_t i = 0; i < n_words;)
		i += take_option(options, &condition, words + i, n_words - i);
}

/* A file that is not there holds no manners. Values may not hold white space. */
static void read_file(struct worker_options *options, const char *path)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	if (!file && errno != ENOENT)
		tool_die(EXIT_USAGE, "%s: %s", path, strerror(errno));
	while (file && getline(&line, &size, file) >= 0) {
		char *copy = strdup(line), *save = NULL, *words[64];
		size_t n_words = 0;

		if (!copy)
			tool_die(EXIT_USAGE, "out of memory");
		list_append(&options->lines, copy); /* values point into it */

		for (char *word = strtok_r(copy, " \t\n", &save);
			word && n_words < ELEMENTS(words) && word[0] != '#';
			word = strtok_r(NULL, " \t\n", &save))
			words[n_words++] = word;
		take_options(options, words, n_words);
	}
	free(line);
	if (file)
		fclose(file);
}

void worker_options_read(struct worker_options *options, int argc, char **argv)
{
	*options = (struct worker_options){
		.backlog = 1024,
		.exit_code = 1,
		.crash_how = "kill",
		.idle_linger = 2 * TOOL_USEC_PER_SEC,
		.accept_batch = 16,
		.grandchild_lifetime = 60 * TOOL_USEC_PER_SEC,
	};
	for (size_t i = 0; i < ELEMENTS(entries); i++)
		if (entries[i].kind == KIND_AFTER)
			*(uint64_t *)(void *)((char *)options + entries[i].offset) = TOOL_NEVER;

	take_options(options, argv + 1, (size_t)argc - 1);
	if (options->accept_batch == 0)
		options->accept_batch = 1;
}

void worker_options_done(struct worker_options *options)
{
	for (size_t i = 0; i < options->lines.n_items; i++)
		free((void *)(uintptr_t)options->lines.items[i]);
	free(options->lines.items);
	free(options->fds.items);
	free(options->listen.items);
	free(options->notify.items);
}

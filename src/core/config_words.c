/* SPDX-License-Identifier: Apache-2.0 */
/* Words inside configuration values: names of services, users, signals and limits, and references
 * to listeners. */
#include "core/config.h"

#include <signal.h>
#include <sys/resource.h>

static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_name_char(char c)
{
	return is_alnum(c) || c == '_' || c == '.' || c == '-';
}

bool config_name_valid(const char *s)
{
	size_t len = strlen(s);

	/* "-" first would read as an option on tenurectl's command line. */
	if (len == 0 || len > CONFIG_NAME_MAX || streq(s, ".") || streq(s, "..") || *s == '-')
		return false;
	for (const char *p = s; *p; p++)
		if (!is_name_char(*p))
			return false;
	return true;
}

static bool is_number(const char *s)
{
	uint64_t value = 0;

	for (const char *p = s; *p; p++) {
		if (*p < '0' || *p > '9')
			return false;
		value = value * 10 + (uint64_t)(*p - '0');
		if (value >=
			UINT32_MAX) /* (uid_t) -1 means "unchanged" to chown(2) and setresuid(2) */
			return false;
	}
	return *s;
}

bool config_user_valid(const char *s)
{
	size_t len = strlen(s);

	if (*s >= '0' && *s <= '9')
		return is_number(s);
	if (len == 0 || len > 255 || !(is_alnum(*s) || *s == '_'))
		return false;
	for (const char *p = s; *p; p++)
		if (!is_name_char(*p) && !(*p == '$' && !p[1]))
			return false;
	return true;
}

/* Standard signals only: what sigabbrev_np(3) knows, but without asking the C library, whose tables
 * the core has no business with. */
static const struct {
	const char *name;
	int signal;
} signals[] = {
	{"ABRT",	 SIGABRT	},
	{"ALRM",	 SIGALRM	},
	{"BUS",	SIGBUS   },
	{"CHLD",	 SIGCHLD	},
	{"CONT",	 SIGCONT	},
	{"FPE",	SIGFPE   },
	{"HUP",	SIGHUP   },
	{"ILL",	SIGILL   },
	{"INT",	SIGINT   },
	{"IO",     SIGIO    },
	{"KILL",	 SIGKILL	},
	{"PIPE",	 SIGPIPE	},
	{"POLL",	 SIGPOLL	},
	{"PROF",	 SIGPROF	},
	{"PWR",	SIGPWR   },
	{"QUIT",	 SIGQUIT	},
	{"SEGV",	 SIGSEGV	},
	{"STKFLT", SIGSTKFLT},
	{"STOP",	 SIGSTOP	},
	{"SYS",	SIGSYS   },
	{"TERM",	 SIGTERM	},
	{"TRAP",	 SIGTRAP	},
	{"TSTP",	 SIGTSTP	},
	{"TTIN",	 SIGTTIN	},
	{"TTOU",	 SIGTTOU	},
	{"URG",	SIGURG   },
	{"USR1",	 SIGUSR1	},
	{"USR2",	 SIGUSR2	},
	{"VTALRM", SIGVTALRM},
	{"WINCH",  SIGWINCH },
	{"XCPU",	 SIGXCPU	},
	{"XFSZ",	 SIGXFSZ	},
};

int config_signal_from_string(const char *s, int *ret)
{
	const char *name = startswith(s, "SIG");

	if (!name)
		name = s;
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		if (streq(signals[i].name, name)) {
			*ret = signals[i].signal;
			return 0;
		}
	}
	return -EINVAL;
}

const char *const config_limit_names[] = {"as", "core", "cpu", "data", "fsize", "locks", "memlock",
	"msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
	NULL};

static const int limit_resources[] = {RLIMIT_AS, RLIMIT_CORE, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE,
	RLIMIT_LOCKS, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_NOFILE, RLIMIT_NPROC,
	RLIMIT_RSS, RLIMIT_RTPRIO, RLIMIT_RTTIME, RLIMIT_SIGPENDING, RLIMIT_STACK};

_Static_assert(ARRAY_SIZE(limit_resources) + 1 == ARRAY_SIZE(config_limit_names),
	"each limit has a name and a resource");

int config_limit_from_string(const char *s, int *ret_resource)
{
	for (size_t i = 0; i < ARRAY_SIZE(limit_resources); i++) {
		if (streq(config_limit_names[i], s)) {
			*ret_resource = limit_resources[i];
			return 0;
		}
	}
	return -EINVAL;
}

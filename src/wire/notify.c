/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/notify.h"

#include "base/parse.h"
#include "base/utf8.h"

#define PID_LIMIT (UINT64_C(1) << 22)	       /* the kernel's PID_MAX_LIMIT on 64 bits */
#define ERRNO_LIMIT 4095		       /* the kernel's MAX_ERRNO */
#define VALUE_MAX ((size_t)NOTIFY_FD_NAME_MAX) /* of all but STATUS, which goes its own way */

/* A line that is a fixed word: KEY=word. A key may have several. */
static const struct word {
	const char *key;
	const char *value;
	unsigned fields; /* 0: what would be so anyway */
} words[] = {
	{"READY",		  "1",       NOTIFY_READY	   },
	{"RELOADING",	      "1",	   NOTIFY_RELOADING	   },
	{"STOPPING",	     "1",	  NOTIFY_STOPPING	 },
	{"WATCHDOG",	     "1",	  NOTIFY_WATCHDOG	 },
	{"WATCHDOG",	     "trigger", NOTIFY_WATCHDOG_TRIGGER},
	{"FDSTORE",	    "1",	 NOTIFY_FD_STORE	},
	{"FDSTOREREMOVE",	  "1",       NOTIFY_FD_STORE_REMOVE },
	{"FDPOLL",	   "0",	NOTIFY_FD_NO_POLL	 },
	{"FDPOLL",	   "1",	0			 },
	{"BARRIER",	    "1",	 NOTIFY_BARRIER	       },
	{"X_TENURED_REEXEC", "1",	  NOTIFY_REEXEC	       },
};

static int read_monotonic_usec(const char *value, struct notify_message *m)
{
	return parse_u64(value, 0, USEC_INFINITY - 1, &m->monotonic_usec);
}

static int read_watchdog_usec(const char *value, struct notify_message *m)
{
	return parse_u64(value, 0, USEC_INFINITY, &m->watchdog_usec);
}

static int read_extend_timeout_usec(const char *value, struct notify_message *m)
{
	return parse_u64(value, 0, USEC_INFINITY, &m->extend_timeout_usec);
}

static int read_main_pid(const char *value, struct notify_message *m)
{
	uint64_t pid;
	int r = parse_u64(value, 1, PID_LIMIT, &pid);

	if (r < 0)
		return r;
	m->main_pid = (pid_t)pid;
	return 0;
}

static int read_errno(const char *value, struct notify_message *m)
{
	unsigned number;
	int r = parse_uint(value, 0, ERRNO_LIMIT, &number);

	if (r < 0)
		return r;
	m->error_number = (int)number;
	return 0;
}

static int read_fd_name(const char *value, struct notify_message *m)
{
	size_t len = strlen(value);

	if (len == 0 || len > NOTIFY_FD_NAME_MAX)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (value[i] < ' ' || value[i] > '~' || value[i] == ':')
			return -EINVAL;
	memcpy(m->fd_name, value, len + 1);
	return 0;
}

/* A line with a value. read() leaves the message alone when it fails. */
static const struct value {
	const char *key;
	unsigned fields;
	int (*read)(const char *value, struct notify_message *m);
} values[] = {
	{"MONOTONIC_USEC",	   NOTIFY_MONOTONIC_USEC,	  read_monotonic_usec     },
	{"WATCHDOG_USEC",	  NOTIFY_WATCHDOG_USEC,	read_watchdog_usec	  },
	{"EXTEND_TIMEOUT_USEC", NOTIFY_EXTEND_TIMEOUT_USEC, read_extend_timeout_usec},
	{"MAINPID",		    NOTIFY_MAIN_PID,	     read_main_pid		  },
	{"ERRNO",		  NOTIFY_ERRNO,		read_errno		  },
	{"FDNAME",		   NOTIFY_FD_NAME,		   read_fd_name	       },
};

/* May m get this field? Each once. */
static bool is_new(const struct notify_message *m, unsigned fields)
{
	return (m->fields & fields) == 0;
}

/* 0 (taken, or of no interest to us) or -EINVAL or -ERANGE. */
static int read_assignment(const char *key, const char *value, struct notify_message *m)
{
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (!streq(key, words[i].key))
			continue;
		known = true;
		if (streq(value, words[i].value)) {
			m->fields |= words[i].fields;
			return 0;
		}
	}
	if (known)
		return -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		int r;

		if (!streq(key, values[i].key))
			continue;
		if (!is_new(m, values[i].fields) || strlen(value) > VALUE_MAX)
			return -EINVAL;
		r = values[i].read(value, m);
		if (r < 0)
			return r;
		m->fields |= values[i].fields;
		return 0;
	}
	return 0;
}

/* One line, without its end. */
static int read_line(const char *line, size_t len, struct notify_message *m)
{
	/* No key we know is longer, and of a value one byte too many is enough to refuse it. */
	char key[32], value[VALUE_MAX + 2];
	const char *equals = memchr(line, '=', len);
	size_t key_len, value_len;

	if (!equals || equals == line)
		return -EINVAL;
	key_len = (size_t)(equals - line);
	value_len = len - key_len - 1;
	if (key_len >= sizeof(key))
		return 0;
	memcpy(key, line, key_len);
	key[key_len] = '\0';

	if (key_len == strlen("STATUS") && streq(key, "STATUS")) {
		if (!is_new(m, NOTIFY_STATUS))
			return -EINVAL;
		(void)utf8_print(equals + 1, value_len, m->status, sizeof(m->status));
		m->fields |= NOTIFY_STATUS;
		return 0;
	}

	/* A NUL must not hide what stands behind it. */
	if (memchr(key, '\0', key_len) || memchr(equals + 1, '\0', value_len))
		return -EINVAL;
	value_len = MIN(value_len, sizeof(value) - 1);
	memcpy(value, equals + 1, value_len);
	value[value_len] = '\0';
	return read_assignment(key, value, m);
}

/* The bytes of a datagram that count: whole lines, without NULs behind them. */
static size_t whole_length(const char *text, size_t len, bool truncated, size_t *n_malformed)
{
	if (truncated) {
		const char *end = len > 0 ? memrchr(text, '\n', len) : NULL;

		/* The first half of a number is a number, too. */
		(*n_malformed)++;
		return end ? (size_t)(end - text) : 0;
	}
	while (len > 0 && text[len - 1] == '\0')
		len--;
	return len;
}

void notify_parse(const void *data, size_t len, bool truncated, struct notify_message *ret)
{
	const char *text = data;
	size_t n_lines = 0;

	memset(ret, 0, sizeof(*ret));
	len = whole_length(text, len, truncated, &ret->n_malformed);
	while (len > 0) {
		const char *end = memchr(text, '\n', len);
		size_t line_len = end ? (size_t)(end - text) : len;

		if (line_len > 0) {
			n_lines++;
			if (read_line(text, line_len, ret) < 0)
				ret->n_malformed++;
		}
		line_len += end ? 1 : 0;
		text += line_len;
		len -= line_len;
	}

	/* sd_notify(3): a barrier cannot be mixed with others, otherwise all are ignored. */
	if ((ret->fields & NOTIFY_BARRIER) && (n_lines > 1 || truncated)) {
		memset(ret, 0, sizeof(*ret));
		ret->n_malformed = n_lines + (truncated ? 1 : 0);
	}
}

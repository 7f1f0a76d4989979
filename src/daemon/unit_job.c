/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/unit_job.h"

#include <systemd/sd-bus.h>

#include "base/clock.h"
#include "daemon/log.h"

#define SYSTEMD "org.freedesktop.systemd1"
#define SYSTEMD_PATH "/org/freedesktop/systemd1"
#define PRIVATE_BUS "unix:path=/run/systemd/private"
/* For a whole question, the connection and its handshake included: a bus that hangs would keep us
 * from everything else for a minute and a half. */
#define ANSWER_USEC (5 * USEC_PER_SEC)
/* At the start, when there are two, and something to go on with without an answer. */
#define ANSWER_AT_START_USEC (2 * USEC_PER_SEC)

/* Not flushed: that waits as well, and what we say is answered or not needed any more. */
#define _cleanup_bus_ _cleanup_(sd_bus_close_unrefp)
#define _cleanup_bus_message_ _cleanup_(sd_bus_message_unrefp)

struct question {
	sd_bus *bus;
	uint64_t until_usec;
};

static void question_done(struct question *q)
{
	q->bus = sd_bus_close_unref(q->bus);
}

#define _cleanup_question_ _cleanup_(question_done)

/* How long it may still take; 1: it is over. */
static uint64_t remaining(const struct question *q)
{
	uint64_t now = monotonic_usec();

	return now < q->until_usec ? q->until_usec - now : 1;
}

/* systemd's own socket: it is there without a message bus, but for root only. */
static int open_private(sd_bus **ret)
{
	_cleanup_bus_ sd_bus *bus = NULL;
	int r = sd_bus_new(&bus);

	if (r >= 0)
		r = sd_bus_set_address(bus, PRIVATE_BUS);
	if (r >= 0)
		r = sd_bus_start(bus);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(bus);
	return 0;
}

/* The handshake goes on in the first call, without a limit of ours. */
static int wait_ready(struct question *q)
{
	int r;

	while ((r = sd_bus_is_ready(q->bus)) == 0) {
		r = sd_bus_process(q->bus, NULL);
		if (r > 0)
			continue;
		if (r < 0)
			return r;
		if (monotonic_usec() >= q->until_usec)
			return -ETIMEDOUT;
		r = sd_bus_wait(q->bus, remaining(q));
		if (r < 0 && r != -EINTR)
			return r;
	}
	return r < 0 ? r : 0;
}

/* Opening does not wait for anybody. */
static int question_begin(struct question *q, uint64_t usec)
{
	bool user = getenv("MANAGERPID") != NULL;
	int r = 0;

	q->until_usec = monotonic_usec() + usec;
	if (user || geteuid() != 0 || open_private(&q->bus) < 0)
		r = user ? sd_bus_open_user(&q->bus) : sd_bus_open_system(&q->bus);
	return r < 0 ? r : wait_ready(q);
}

static int call(struct question *q, sd_bus_message *message, sd_bus_message **ret)
{
	return sd_bus_call(q->bus, message, remaining(q), NULL, ret);
}

/* The caller reads it. */
static int get_property(struct question *q, const char *path, const char *interface,
	const char *name, sd_bus_message **ret)
{
	_cleanup_bus_message_ sd_bus_message *message = NULL;
	int r = sd_bus_message_new_method_call(
		q->bus, &message, SYSTEMD, path, "org.freedesktop.DBus.Properties", "Get");

	if (r >= 0)
		r = sd_bus_message_append(message, "ss", interface, name);
	return r < 0 ? r : call(q, message, ret);
}

/* By our process and not by a name from /proc, of which ProtectProc= may hide what it would take.
 */
static int unit_path(struct question *q, char **ret)
{
	_cleanup_bus_message_ sd_bus_message *message = NULL, *reply = NULL;
	const char *path;
	int r = sd_bus_message_new_method_call(
		q->bus, &message, SYSTEMD, SYSTEMD_PATH, SYSTEMD ".Manager", "GetUnitByPID");

	if (r >= 0)
		r = sd_bus_message_append(message, "u", (uint32_t)getpid());
	if (r >= 0)
		r = call(q, message, &reply);
	if (r >= 0)
		r = sd_bus_message_read(reply, "o", &path);
	if (r < 0)
		return r;
	*ret = strdup(path);
	return *ret ? 0 : -ENOMEM;
}

static int read_type(struct question *q, const char *job, char **ret)
{
	_cleanup_bus_message_ sd_bus_message *reply = NULL;
	const char *type;
	int r = get_property(q, job, SYSTEMD ".Job", "JobType", &reply);

	if (r >= 0)
		r = sd_bus_message_read(reply, "v", "s", &type);
	if (r < 0)
		return r;
	*ret = strdup(type);
	return *ret ? 0 : -ENOMEM;
}

/* *ret: "restart", "stop"; NULL: there is no job. */
static int job_type(struct question *q, char **ret)
{
	_cleanup_bus_message_ sd_bus_message *reply = NULL;
	_cleanup_free_ char *path = NULL;
	const char *job;
	uint32_t id;
	int r;

	r = unit_path(q, &path);
	if (r >= 0)
		r = get_property(q, path, SYSTEMD ".Unit", "Job", &reply);
	if (r >= 0)
		r = sd_bus_message_read(reply, "v", "(uo)", &id, &job);
	if (r < 0)
		return r;
	if (id != 0)
		return read_type(q, job, ret);
	*ret = NULL;
	return 0;
}

enum unit_job unit_job(void)
{
	_cleanup_question_ struct question q = {.bus = NULL};
	_cleanup_free_ char *type = NULL;
	int r;

	/* Whoever was started by systemd has the one, and by that of a user the other as well. */
	if (!getenv("INVOCATION_ID"))
		return UNIT_JOB_UNKNOWN;
	r = question_begin(&q, ANSWER_USEC);
	if (r >= 0)
		r = job_type(&q, &type);
	if (r < 0) {
		log_warning("systemd does not say whether this is a restart: %s", strerror(-r));
		return UNIT_JOB_UNKNOWN;
	}
	if (!type)
		return UNIT_JOB_NONE;
	return streq(type, "restart") ? UNIT_JOB_RESTART
	       : streq(type, "stop")  ? UNIT_JOB_STOP
				      : UNIT_JOB_OTHER;
}

bool unit_is_main_process(void)
{
	const char *pid = getenv("SYSTEMD_EXEC_PID");

	return pid && (pid_t)strtol(pid, NULL, 10) == getpid();
}

int unit_store_max(unsigned *ret)
{
	_cleanup_bus_message_ sd_bus_message *reply = NULL;
	_cleanup_question_ struct question q = {.bus = NULL};
	_cleanup_free_ char *path = NULL;
	uint32_t n;
	int r;

	r = question_begin(&q, ANSWER_AT_START_USEC);
	if (r >= 0)
		r = unit_path(&q, &path);
	if (r >= 0)
		r = get_property(&q, path, SYSTEMD ".Service", "FileDescriptorStoreMax", &reply);
	if (r >= 0)
		r = sd_bus_message_read(reply, "v", "u", &n);
	if (r < 0)
		return r;
	*ret = n;
	return 0;
}

/* One command: path, arguments, and how it went the last time. 1: it is `tenured reap`; 0. */
static int read_command(sd_bus_message *reply)
{
	_cleanup_strv_ char **arguments = NULL;
	bool reaps = false;
	int r = sd_bus_message_enter_container(reply, 'r', "sasbttttuii");

	if (r <= 0)
		return r < 0 ? r : -ENODATA;
	r = sd_bus_message_skip(reply, "s");
	if (r >= 0)
		r = sd_bus_message_read_strv(reply, &arguments);
	if (r >= 0)
		r = sd_bus_message_skip(reply, "bttttuii");
	if (r >= 0)
		r = sd_bus_message_exit_container(reply);
	for (size_t i = 1; r >= 0 && i < strv_length(arguments); i++)
		reaps |= streq(arguments[i], "reap");
	return r < 0 ? r : reaps;
}

int unit_has_reap(void)
{
	_cleanup_bus_message_ sd_bus_message *reply = NULL;
	_cleanup_question_ struct question q = {.bus = NULL};
	_cleanup_free_ char *path = NULL;
	int r, found = 0;

	r = question_begin(&q, ANSWER_AT_START_USEC);
	if (r >= 0)
		r = unit_path(&q, &path);
	if (r >= 0)
		r = get_property(&q, path, SYSTEMD ".Service", "ExecStopPost", &reply);
	if (r >= 0)
		r = sd_bus_message_enter_container(reply, 'v', "a(sasbttttuii)");
	if (r >= 0)
		r = sd_bus_message_enter_container(reply, 'a', "(sasbttttuii)");
	while (r >= 0 && found == 0) {
		found = read_command(reply);
		if (found == -ENODATA)
			return 0;
	}
	return r < 0 ? r : found;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/unit_job.h"

#include <systemd/sd-bus.h>

#include "base/util.h"
#include "daemon/log.h"

#define SYSTEMD "org.freedesktop.systemd1"
#define SYSTEMD_PATH "/org/freedesktop/systemd1"
#define PRIVATE_BUS "unix:path=/run/systemd/private"
#define ANSWER_USEC (5 * USEC_PER_SEC)

#define _cleanup_bus_ _cleanup_(sd_bus_flush_close_unrefp)
#define _cleanup_bus_message_ _cleanup_(sd_bus_message_unrefp)

/* systemd's own socket: it is there without a message bus, but for root only. */
static int open_private(sd_bus **ret)
{
	_cleanup_bus_ sd_bus *bus = NULL;
	int r = sd_bus_new(&bus);

	if (r >= 0)
		r = sd_bus_set_address(bus, PRIVATE_BUS);
	if (r >= 0)
		r = sd_bus_set_method_call_timeout(bus, ANSWER_USEC);
	if (r >= 0)
		r = sd_bus_start(bus);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(bus);
	return 0;
}

static int open_bus(bool user, sd_bus **ret)
{
	int r;

	if (!user && geteuid() == 0 && open_private(ret) >= 0)
		return 0;
	r = user ? sd_bus_open_user(ret) : sd_bus_open_system(ret);
	if (r >= 0)
		(void)sd_bus_set_method_call_timeout(*ret, ANSWER_USEC);
	return r;
}

/* By our process and not by a name from /proc, of which ProtectProc= may hide what it would take.
 */
static int unit_path(sd_bus *bus, char **ret)
{
	_cleanup_bus_message_ sd_bus_message *reply = NULL;
	const char *path;
	int r;

	r = sd_bus_call_method(bus, SYSTEMD, SYSTEMD_PATH, SYSTEMD ".Manager", "GetUnitByPID", NULL,
		&reply, "u", (uint32_t)getpid());
	if (r >= 0)
		r = sd_bus_message_read(reply, "o", &path);
	if (r < 0)
		return r;
	*ret = strdup(path);
	return *ret ? 0 : -ENOMEM;
}

/* *ret: "restart", "stop"; NULL: there is no job. */
static int job_type(sd_bus *bus, char **ret)
{
	_cleanup_bus_message_ sd_bus_message *reply = NULL;
	_cleanup_free_ char *path = NULL;
	const char *job;
	uint32_t id;
	int r;

	r = unit_path(bus, &path);
	if (r >= 0)
		r = sd_bus_get_property(
			bus, SYSTEMD, path, SYSTEMD ".Unit", "Job", NULL, &reply, "(uo)");
	if (r >= 0)
		r = sd_bus_message_read(reply, "(uo)", &id, &job);
	if (r < 0)
		return r;
	if (id != 0)
		return sd_bus_get_property_string(
			bus, SYSTEMD, job, SYSTEMD ".Job", "JobType", NULL, ret);
	*ret = NULL;
	return 0;
}

enum unit_job unit_job(void)
{
	_cleanup_free_ char *type = NULL;
	_cleanup_bus_ sd_bus *bus = NULL;
	int r;

	/* Whoever was started by systemd has the one, and by that of a user the other as well. */
	if (!getenv("INVOCATION_ID"))
		return UNIT_JOB_UNKNOWN;
	r = open_bus(getenv("MANAGERPID") != NULL, &bus);
	if (r >= 0)
		r = job_type(bus, &type);
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
	_cleanup_free_ char *path = NULL;
	_cleanup_bus_ sd_bus *bus = NULL;
	uint32_t n;
	int r;

	r = open_bus(getenv("MANAGERPID") != NULL, &bus);
	if (r >= 0)
		r = unit_path(bus, &path);
	if (r >= 0)
		r = sd_bus_get_property_trivial(bus, SYSTEMD, path, SYSTEMD ".Service",
			"FileDescriptorStoreMax", NULL, 'u', &n);
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
	_cleanup_free_ char *path = NULL;
	_cleanup_bus_ sd_bus *bus = NULL;
	int r, found = 0;

	r = open_bus(getenv("MANAGERPID") != NULL, &bus);
	if (r >= 0)
		r = unit_path(bus, &path);
	if (r >= 0)
		r = sd_bus_get_property(bus, SYSTEMD, path, SYSTEMD ".Service", "ExecStopPost",
			NULL, &reply, "a(sasbttttuii)");
	if (r >= 0)
		r = sd_bus_message_enter_container(reply, 'a', "(sasbttttuii)");
	while (r >= 0 && found == 0) {
		found = read_command(reply);
		if (found == -ENODATA)
			return 0;
	}
	return r < 0 ? r : found;
}

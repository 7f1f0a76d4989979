/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the tree that is ours: how it is found, and who is where in it. */
#include "daemon/cgroup.h"

#include <fcntl.h>

#include "daemon/cgroup_internal.h"
#include "daemon/keeper.h"
#include "daemon/log.h"
#include "daemon/unit_job.h"
#include "sys/directory.h"

/* --- where it is ---------------------------------------------------------- */

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static char *above(const char *path)
{
	return strndup(path, (size_t)(last_part(path) - path) - 1);
}

/* Of a container, ourselves or with a keeper, below which we are then. */
static bool is_first_process(void)
{
	return getpid() == 1 || keeper_pid() == 1;
}

/* The root of a cgroup namespace, or we would not be the first process of the pid namespace, or
 * below it; and nobody else has come into it. Like the container's own files it is for us then. */
static bool is_containers_own(const char *path)
{
	_cleanup_free_ char *mount = NULL, *events = xasprintf("%s/cgroup.events", path);
	const pid_t ours[] = {getpid(), keeper_pid()};
	_cleanup_close_ int fd = -1;

	/* The true root has no events, and is nobody's. */
	if (!is_first_process() || !events || access(events, F_OK) < 0 ||
		cgroup_mount(&mount) < 0 || !streq(mount, path))
		return false;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 && cgroup_has_others(fd, ours, keeper_pid() > 0 ? 2 : 1) == 0;
}

/* *ret_moved: we are not in the delegated cgroup itself, because an image of us before this one has
 * moved. 0; -ENOENT: nobody has delegated anything to us. */
static int find_delegated(char **ret, bool *ret_moved)
{
	_cleanup_free_ char *own = NULL, *parent = NULL;
	int r = cgroup_own(&own);

	if (r < 0)
		return r;
	parent = above(own);
	if (!parent)
		return -ENOMEM;
	*ret_moved = streq(last_part(own), CGROUP_DAEMON);
	if (!*ret_moved && (cgroup_is_delegated(own) || is_containers_own(own))) {
		*ret = TAKE_PTR(own);
		return 0;
	}
	/* DelegateSubgroup= has put us below it. */
	if (cgroup_is_delegated(parent) || (*ret_moved && is_first_process())) {
		*ret = TAKE_PTR(parent);
		return 0;
	}
	return -ENOENT;
}

char *cgroups_unit(void)
{
	_cleanup_free_ char *own = NULL, *parent = NULL;
	const char *last;

	if (cgroup_own(&own) < 0)
		return NULL;
	parent = above(own);
	last = last_part(own);
	/* DelegateSubgroup= may have any name. */
	if (streq(last, CGROUP_DAEMON) || streq(last, CGROUP_CONTROL) ||
		(parent && !cgroup_is_delegated(own) && cgroup_is_delegated(parent)))
		return TAKE_PTR(parent);
	return TAKE_PTR(own);
}

int cgroups_has(const struct cgroups *c, pid_t pid)
{
	_cleanup_free_ char *path = NULL;
	const char *rest;

	if (!c || cgroup_of(pid, &path) < 0)
		return -ENOENT;
	rest = startswith(path, c->path);
	return rest && (*rest == '\0' || *rest == '/');
}

/* --- taking it ------------------------------------------------------------ */

/* A cgroup with controllers for those below it can have no processes itself. */
static int move_down(struct cgroups *c)
{
	_cleanup_close_ int fd = -1;
	int r = cgroup_make(c->fd, CGROUP_DAEMON, &fd);

	if (r >= 0)
		r = cgroup_join(fd, getpid());
	/* In a container it is there too; systemd's is none of ours. */
	if (r >= 0 && keeper_pid() > 0)
		(void)cgroup_join(fd, keeper_pid());
	return r;
}

/* The whole of a container's, whose first process we are or below which we are. */
static bool is_containers(const struct cgroups *c)
{
	_cleanup_free_ char *mount = NULL;

	return is_first_process() && cgroup_mount(&mount) >= 0 && streq(mount, c->path);
}

static int take(struct cgroups *c, bool moved)
{
	int r = cgroup_is_writable(c->path);

	if (r < 0)
		return r;
	c->fd = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->fd < 0)
		return -errno;
	c->self_moved = moved;
	if (!moved) {
		_cleanup_free_ char *own = NULL;

		r = cgroup_own(&own);
		if (r < 0)
			return r;
		c->self_moved = streq(own, c->path);
		if (c->self_moved)
			r = move_down(c);
		if (r < 0)
			return r;
	}
	/* Where we had to move, whoever starts the next one starts it where we were: not possible
	 * while there are controllers (see cgroups_make_room()), so there are only those that
	 * somebody needs. A container is not started again as long as it is this one. */
	if (!c->self_moved || is_containers(c))
		(void)cgroups_need(
			c, CGROUP_CPU | CGROUP_IO | CGROUP_MEMORY | CGROUP_PIDS, &(unsigned){0});
	return 0;
}

/* Would the next daemon find room, if this one dies? cgroups_make_room() is called by `tenured
 * reap`. Asked once. */
static bool makes_room(struct cgroups *c)
{
	if (!c->self_moved || !getenv("INVOCATION_ID") || is_containers(c))
		return true;
	if (!c->asked) {
		c->asked = true;
		c->has_reap = unit_has_reap() > 0;
	}
	return c->has_reap;
}

int cgroups_need(struct cgroups *c, unsigned controllers, unsigned *ret_missing)
{
	int r;

	if (!makes_room(c)) {
		*ret_missing = controllers;
		return -EDEADLK;
	}
	r = cgroup_enable(c->fd, controllers, ret_missing);
	if (controllers & ~*ret_missing)
		c->has_controllers = true;
	return r;
}

static void say_why_not(int r)
{
	/* By hand there is nobody who could have delegated anything. */
	int priority = getenv("INVOCATION_ID") && getenv("NOTIFY_SOCKET") ? LOG_NOTICE : LOG_DEBUG;

	if (r == -ENOENT || r == -ENOMEDIUM)
		log_message(priority,
			"no cgroup is delegated to tenured: workers and what they leave behind are "
			"found by process group and parent; write Delegate=yes in the unit for a "
			"cgroup of each generation");
	else if (r == -EROFS)
		log_message(priority,
			"cgroups are read-only here: workers and what they leave behind are found "
			"by process group and parent; ProtectControlGroups= in the unit of tenured "
			"must be off for a cgroup of each generation");
	else
		log_message(priority,
			"the cgroup that tenured runs in cannot be used (%s): workers and what "
			"they leave behind are found by process group and parent",
			strerror(-r));
}

void cgroups_new(struct manager *m)
{
	struct cgroups *c;
	bool moved = false;
	int r;

	if (m->trial)
		return;
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	c->fd = -1;
	r = find_delegated(&c->path, &moved);
	if (r >= 0)
		r = take(c, moved);
	if (r < 0) {
		say_why_not(r);
		c->self_moved = false;
		cgroups_free(c);
		return;
	}
	log_debug("each generation gets a cgroup in %s", c->path);
	m->cgroups = c;
}

struct cgroups *cgroups_free(struct cgroups *c)
{
	if (!c)
		return NULL;
	if (c->fd >= 0 && c->self_moved && c->has_controllers)
		(void)cgroup_disable_all(c->fd);
	close_fd(c->fd);
	free(c->path);
	free(c);
	return NULL;
}

void cgroups_make_room(const char *unit)
{
	_cleanup_close_ int fd = open(unit, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* With DelegateSubgroup= there is room, and limits stay in force. */
	if (fd >= 0 && faccessat(fd, CGROUP_DAEMON, F_OK, 0) >= 0)
		(void)cgroup_disable_all(fd);
}

/* --- what others have left ------------------------------------------------ */

/* "web.8" and "web.8-2" are of our making; whoever was here before us may have made others. */
static bool looks_ours(const char *name)
{
	const char *dot = strrchr(name, '.');

	if (!dot || dot == name || !dot[1])
		return false;
	return strspn(dot + 1, "0123456789-") == strlen(dot + 1) && dot[1] != '-';
}

static bool is_known(const struct manager *m, const char *name)
{
	for (size_t i = 0; i < m->n_services; i++)
		for (size_t k = 0; k < m->services[i]->n_generations; k++)
			if (streq_null(
				    generation_cgroup_name(m->services[i]->generations[k]), name))
				return true;
	return false;
}

static void sweep_one(struct manager *m, const char *name, bool kill)
{
	_cleanup_close_ int fd = -1;

	if (kill && cgroup_open(m->cgroups->fd, name, &fd) >= 0 && cgroup_populated(fd) > 0) {
		log_warning("%s: killed processes of an earlier daemon's generation, which nobody "
			    "knows",
			name);
		(void)cgroup_kill(fd);
	}
	/* Whoever is just ending is gone when we look again in a minute. */
	(void)cgroup_remove(m->cgroups->fd, name);
}

void cgroups_sweep(struct manager *m, bool kill)
{
	_cleanup_closedir_ DIR *directory = m->cgroups ? opendir(m->cgroups->path) : NULL;
	const struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (entry->d_type == DT_DIR && looks_ours(entry->d_name) &&
			!is_known(m, entry->d_name))
			sweep_one(m, entry->d_name, kill);
}

/* --- tenured check -------------------------------------------------------- */

static unsigned controllers_of_machine(void)
{
	_cleanup_free_ char *mount = NULL;
	_cleanup_close_ int fd = -1;
	unsigned available = 0;

	if (cgroup_mount(&mount) >= 0)
		fd = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		(void)cgroup_available(fd, &available);
	return available;
}

void cgroups_check_config(const struct config *c, struct config_problems *problems)
{
	unsigned available = controllers_of_machine();

	for (size_t i = 0; i < c->n_services; i++) {
		const struct service_config *s = &c->services[i];
		struct resource_setting settings[RESOURCES_MAX];
		size_t n = resources_settings(&s->resources, settings);

		for (size_t k = 0; k < n; k++)
			if (!(cgroup_controllers_from_string(settings[k].controller) & available))
				config_problem_add(problems, s->resources_place, true,
					"%s: %s has no effect on this machine, which has no "
					"controller \"%s\" of cgroup version 2; the kernel's "
					"parameters systemd.unified_cgroup_hierarchy=1 and, for "
					"memory, cgroup_enable=memory may give it",
					s->name, settings[k].key, settings[k].controller);
	}
}

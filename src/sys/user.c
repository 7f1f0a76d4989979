/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/user.h"

#include <grp.h>
#include <pwd.h>

#include "base/parse.h"

enum { ENTRY_MAX = 1 << 20, GROUPS_MAX = 65536 };

void user_done(struct user *u)
{
	free(u->groups);
	free(u->name);
	free(u->home);
	free(u->shell);
	*u = (struct user){.uid = (uid_t)-1, .gid = (gid_t)-1};
}

/* A look-up that wants more room says ERANGE; one that finds nothing says 0, or one of several
 * errors. */
static bool found_nothing(int error)
{
	return error == 0 || error == ENOENT || error == ESRCH || error == EBADF || error == EPERM;
}

/* By name, or by uid when name is NULL. The strings of *ret are in *buf. */
static int find_passwd(const char *name, uid_t uid, struct passwd *ret, char **buf)
{
	for (size_t size = 1024; size <= ENTRY_MAX; size *= 2) {
		_cleanup_free_ char *room = malloc(size);
		struct passwd *found = NULL;
		int error;

		if (!room)
			return -ENOMEM;
		error = name ? getpwnam_r(name, ret, room, size, &found)
			     : getpwuid_r(uid, ret, room, size, &found);
		if (found) {
			*buf = TAKE_PTR(room);
			return 0;
		}
		if (error != ERANGE)
			return found_nothing(error) ? -ENOENT : -error;
	}
	return -ENOBUFS;
}

int group_lookup(const char *name, gid_t *ret)
{
	unsigned number;

	for (size_t size = 1024; size <= ENTRY_MAX; size *= 2) {
		_cleanup_free_ char *room = malloc(size);
		struct group group, *found = NULL;
		int error;

		if (!room)
			return -ENOMEM;
		error = getgrnam_r(name, &group, room, size, &found);
		if (found) {
			*ret = group.gr_gid;
			return 0;
		}
		if (error == ERANGE)
			continue;
		if (!found_nothing(error))
			return -error;
		break;
	}
	/* (gid_t)-1 is "none". */
	if (parse_uint(name, 0, UINT32_MAX - 1, &number) < 0)
		return -ESRCH;
	*ret = number;
	return 0;
}

static int list_groups(const char *name, gid_t gid, struct user *u)
{
	int n = 32;

	for (;;) {
		gid_t *groups = calloc((size_t)n, sizeof(*groups));
		int room = n;

		if (!groups)
			return -ENOMEM;
		if (getgrouplist(name, gid, groups, &n) >= 0) {
			u->groups = groups;
			u->n_groups = (size_t)n;
			return 0;
		}
		free(groups);
		if (n <= room)
			n = 2 * room;
		if (n > GROUPS_MAX)
			return -E2BIG;
	}
}

/* A user that has no entry: the number is all there is. */
static int fill_number(struct user *u, uid_t uid, gid_t gid)
{
	u->uid = uid;
	u->gid = gid;
	u->name = xasprintf("%u", uid);
	u->home = strdup("/");
	u->shell = strdup("/bin/sh");
	return u->name && u->home && u->shell ? 0 : -ENOMEM;
}

static int fill_entry(struct user *u, const struct passwd *p)
{
	u->uid = p->pw_uid;
	u->gid = p->pw_gid;
	u->name = strdup(p->pw_name);
	u->home = strdup(p->pw_dir && *p->pw_dir ? p->pw_dir : "/");
	u->shell = strdup(p->pw_shell && *p->pw_shell ? p->pw_shell : "/bin/sh");
	return u->name && u->home && u->shell ? 0 : -ENOMEM;
}

/* The groups that this process has now. */
static int own_groups(struct user *u)
{
	int n = getgroups(0, NULL);
	bool has_gid = false;

	if (n < 0)
		return -errno;
	u->groups = calloc((size_t)n + 1, sizeof(*u->groups));
	if (!u->groups)
		return -ENOMEM;
	n = getgroups(n, u->groups);
	if (n < 0)
		return -errno;
	u->n_groups = (size_t)n;
	for (size_t i = 0; i < u->n_groups; i++)
		has_gid |= u->groups[i] == u->gid;
	if (!has_gid)
		u->groups[u->n_groups++] = u->gid;
	return 0;
}

static int find_user(const char *name, struct user *u)
{
	_cleanup_free_ char *buf = NULL;
	struct passwd entry;
	unsigned number;
	int r;

	if (!name) {
		r = find_passwd(NULL, geteuid(), &entry, &buf);
		r = r >= 0	   ? fill_entry(u, &entry)
		    : r == -ENOENT ? fill_number(u, geteuid(), getegid())
				   : r;
		if (r < 0)
			return r;
		u->gid = getegid();
		return own_groups(u);
	}

	r = find_passwd(name, 0, &entry, &buf);
	if (r == -ENOENT && parse_uint(name, 0, UINT32_MAX - 1, &number) >= 0) {
		r = find_passwd(NULL, number, &entry, &buf);
		if (r == -ENOENT) {
			r = fill_number(u, number, number);
			if (r < 0)
				return r;
			return list_groups(u->name, u->gid, u);
		}
	}
	if (r < 0)
		return r;
	r = fill_entry(u, &entry);
	return r < 0 ? r : list_groups(u->name, u->gid, u);
}

/* As initgroups(3) does it: the group asked for takes the place of the user's primary one, which is
 * then no group of his unless he is in its list. We ourselves keep the groups that we have. */
static int replace_group(struct user *u, gid_t gid, bool is_self)
{
	gid_t *groups;

	u->gid = gid;
	if (!is_self) {
		free(u->groups);
		u->groups = NULL;
		return list_groups(u->name, gid, u);
	}
	for (size_t i = 0; i < u->n_groups; i++)
		if (u->groups[i] == gid)
			return 0;
	groups = reallocarray(u->groups, u->n_groups + 1, sizeof(*groups));
	if (!groups)
		return -ENOMEM;
	u->groups = groups;
	u->groups[u->n_groups++] = gid;
	return 0;
}

int user_lookup(const char *name, const char *group, struct user *ret)
{
	_cleanup_user_ struct user u = {.uid = (uid_t)-1, .gid = (gid_t)-1};
	gid_t gid;
	int r;

	r = find_user(name, &u);
	if (r < 0)
		return r;
	if (group) {
		r = group_lookup(group, &gid);
		if (r < 0)
			return r;
		r = replace_group(&u, gid, !name);
		if (r < 0)
			return r;
	}
	*ret = u;
	u = (struct user){.uid = (uid_t)-1};
	return 0;
}

char *user_name_of(uid_t uid)
{
	_cleanup_free_ char *buf = NULL;
	struct passwd entry;

	if (find_passwd(NULL, uid, &entry, &buf) >= 0)
		return strdup(entry.pw_name);
	return xasprintf("%u", uid);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#include "sys/directory.h"

/* Trees deeper than that are nobody's by mistake. */
enum { DEPTH_MAX = 32, KILL_ROUNDS = 1000, TEXT_MAX = 4096 };

/* --- names ---------------------------------------------------------------- */

static const struct {
	enum cgroup_controller controller;
	const char *name;
} controllers_known[] = {
	{CGROUP_CPU,     "cpu"	  },
	{CGROUP_IO,	    "io"	},
	{CGROUP_MEMORY,	"memory" },
	{CGROUP_PIDS,    "pids"   },
	{CGROUP_HUGETLB, "hugetlb"},
};

char *cgroup_controllers_to_string(unsigned controllers)
{
	char *text = strdup("");

	for (size_t i = 0; text && i < ARRAY_SIZE(controllers_known); i++) {
		char *longer;

		if (!(controllers & controllers_known[i].controller))
			continue;
		longer = xasprintf("%s%s%s", text, *text ? " " : "", controllers_known[i].name);
		free(text);
		text = longer;
	}
	return text;
}

unsigned cgroup_controllers_from_string(const char *text)
{
	static const char blanks[] = " \t\n";
	unsigned found = 0;

	for (text += strspn(text, blanks); *text; text += strspn(text, blanks)) {
		size_t n = strcspn(text, blanks);

		for (size_t i = 0; i < ARRAY_SIZE(controllers_known); i++)
			if (strlen(controllers_known[i].name) == n &&
				strncmp(controllers_known[i].name, text, n) == 0)
				found |= controllers_known[i].controller;
		text += n;
	}
	return found;
}

/* --- files ---------------------------------------------------------------- */

/* The whole of it, with a NUL; what is longer is cut. */
static int read_file(int directory, const char *name, char ret[static TEXT_MAX])
{
	_cleanup_close_ int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, TEXT_MAX - 1);

	if (n < 0)
		return -errno;
	ret[n] = '\0';
	return 0;
}

int cgroup_set(int fd, const char *file, const char *value)
{
	/* Not O_CREAT: a file that is not there is a controller that is not there. */
	_cleanup_close_ int out = openat(fd, file, O_WRONLY | O_CLOEXEC);
	size_t len = strlen(value);
	ssize_t n;

	if (out < 0)
		return -errno;
	do
		n = write(out, value, len);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (size_t)n == len ? 0 : -EIO;
}

/* The number after the word at the begin of a line, as "populated 1". */
static bool find_value(const char *text, const char *word, uint64_t *ret)
{
	size_t n = strlen(word);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, word, n) == 0 && line[n] == ' ') {
			*ret = strtoull(line + n + 1, NULL, 10);
			return true;
		}
	}
	return false;
}

static uint64_t read_value(int fd, const char *file, const char *word)
{
	char text[TEXT_MAX];
	uint64_t value = UINT64_MAX;

	if (read_file(fd, file, text) < 0)
		return UINT64_MAX;
	if (word)
		return find_value(text, word, &value) ? value : UINT64_MAX;
	/* "max" is no figure. */
	return *text >= '0' && *text <= '9' ? strtoull(text, NULL, 10) : UINT64_MAX;
}

/* --- where we are --------------------------------------------------------- */

int cgroup_mount(char **ret)
{
	/* The second beside version 1. */
	static const char *const places[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct statfs s;

		if (statfs(places[i], &s) < 0 || s.f_type != CGROUP2_SUPER_MAGIC)
			continue;
		*ret = strdup(places[i]);
		return *ret ? 0 : -ENOMEM;
	}
	return -ENOENT;
}

static FILE *open_procs(int fd)
{
	int procs = openat(fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	FILE *f = procs < 0 ? NULL : fdopen(procs, "r");

	if (!f && procs >= 0)
		close_fd(procs);
	return f;
}

static bool is_in(int fd, pid_t pid)
{
	_cleanup_fclose_ FILE *f = open_procs(fd);
	int found;

	while (f && fscanf(f, "%d", &found) == 1)
		if (found == pid)
			return true;
	return false;
}

int cgroup_of(pid_t pid, char **ret)
{
	_cleanup_free_ char *mount = NULL, *path = NULL;
	_cleanup_fclose_ FILE *f = NULL;
	char line[PATH_MAX + 8];
	int r = cgroup_mount(&mount);

	if (r < 0)
		return r;
	(void)snprintf(line, sizeof(line), "/proc/%d/cgroup", (int)pid);
	f = fopen(line, "re");
	while (f && !path && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (startswith(line, "0::/"))
			path = xasprintf("%s%s", mount, streq(line, "0::/") ? "" : line + 3);
	}
	*ret = TAKE_PTR(path);
	return *ret ? 0 : -ENOENT;
}

int cgroup_own(char **ret)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	int r = cgroup_of(getpid(), &path);

	if (r < 0)
		return r;
	fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	/* With another cgroup namespace's mount the path names somebody else's, or nothing. */
	if (fd < 0 || !is_in(fd, getpid()))
		return path ? -ENOMEDIUM : -ENOENT;
	*ret = TAKE_PTR(path);
	return 0;
}

bool cgroup_is_delegated(const char *path)
{
	static const char *const names[] = {"user.delegate", "trusted.delegate"};
	char value[8];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (getxattr(path, names[i], value, sizeof(value)) == 1 && value[0] == '1')
			return true;
	return false;
}

int cgroup_is_writable(const char *path)
{
	_cleanup_free_ char *procs = xasprintf("%s/cgroup.procs", path);

	if (!procs)
		return -ENOMEM;
	if (faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) < 0 ||
		faccessat(AT_FDCWD, procs, W_OK, AT_EACCESS) < 0)
		return -errno;
	return 0;
}

/* --- the tree ------------------------------------------------------------- */

int cgroup_open(int directory, const char *name, int *ret)
{
	int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*ret = fd;
	return 0;
}

int cgroup_make(int directory, const char *name, int *ret)
{
	if (mkdirat(directory, name, 0755) < 0 && errno != EEXIST)
		return -errno;
	return cgroup_open(directory, name, ret);
}

/* function: for each cgroup right below; it ends at the first error. */
static int for_each_below(
	int fd, int (*function)(int fd, const char *name, void *userdata), void *userdata)
{
	_cleanup_closedir_ DIR *directory = NULL;
	/* Of its own: the position belongs to the open file, not to the descriptor. */
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	const struct dirent *entry;

	if (copy < 0)
		return -errno;
	directory = fdopendir(copy);
	if (!directory) {
		r = -errno;
		close_fd(copy);
		return r;
	}
	while (r >= 0 && (entry = readdir(directory)))
		if (entry->d_type == DT_DIR && !streq(entry->d_name, ".") &&
			!streq(entry->d_name, ".."))
			r = function(fd, entry->d_name, userdata);
	return r;
}

static int remove_tree(int directory, const char *name, unsigned depth);

static int remove_below(int fd, const char *name, void *userdata)
{
	const unsigned *depth = userdata;

	return remove_tree(fd, name, *depth + 1);
}

static int remove_tree(int directory, const char *name, unsigned depth)
{
	_cleanup_close_ int fd = -1;
	int r;

	/* Mostly there is nothing below. */
	if (unlinkat(directory, name, AT_REMOVEDIR) >= 0 || errno == ENOENT)
		return 0;
	if ((errno != EBUSY && errno != ENOTEMPTY) || depth >= DEPTH_MAX)
		return -errno;
	r = cgroup_open(directory, name, &fd);
	if (r >= 0)
		r = for_each_below(fd, remove_below, &depth);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return unlinkat(directory, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int cgroup_remove(int directory, const char *name)
{
	return remove_tree(directory, name, 0);
}

int cgroup_join(int fd, pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)pid);
	return cgroup_set(fd, "cgroup.procs", text);
}

/* --- who is in it --------------------------------------------------------- */

static bool is_removed(int r)
{
	return r == -ENODEV || r == -ENOENT;
}

int cgroup_populated(int fd)
{
	char text[TEXT_MAX];
	uint64_t value;
	int r = read_file(fd, "cgroup.events", text);

	/* Removed: nobody can be in it. */
	if (is_removed(r))
		return 0;
	if (r < 0)
		return r;
	return find_value(text, "populated", &value) ? value != 0 : -EBADMSG;
}

int cgroup_watch(int fd, int *ret)
{
	char text[64];
	int events = openat(fd, "cgroup.events", O_RDONLY | O_CLOEXEC);

	if (events < 0)
		return -errno;
	/* What changes from here on is news. */
	(void)!read(events, text, sizeof(text));
	*ret = events;
	return 0;
}

struct pids {
	pid_t *list;
	size_t n, capacity;
	unsigned depth;
};

static int list_processes(int fd, struct pids *ret);

static int list_below(int fd, const char *name, void *userdata)
{
	_cleanup_close_ int below = -1;
	struct pids *pids = userdata;
	int r = cgroup_open(fd, name, &below);

	if (r >= 0 && pids->depth < DEPTH_MAX) {
		pids->depth++;
		r = list_processes(below, pids);
		pids->depth--;
	}
	/* Removed meanwhile. */
	return is_removed(r) ? 0 : r;
}

static int list_processes(int fd, struct pids *ret)
{
	_cleanup_fclose_ FILE *f = open_procs(fd);
	int pid;

	if (!f)
		return -errno;
	while (fscanf(f, "%d", &pid) == 1) {
		/* 0: not of this pid namespace. */
		if (pid <= 0)
			continue;
		if (array_reserve(&ret->list, &ret->capacity, ret->n + 1, sizeof(*ret->list)) < 0)
			return -ENOMEM;
		ret->list[ret->n++] = pid;
	}
	return for_each_below(fd, list_below, ret);
}

int cgroup_processes(int fd, pid_t **ret, size_t *ret_n)
{
	struct pids pids = {0};
	int r = list_processes(fd, &pids);

	if (is_removed(r))
		r = 0;
	if (r < 0) {
		free(pids.list);
		return r;
	}
	*ret = pids.list;
	*ret_n = pids.n;
	return 0;
}

int cgroup_has_others(int fd, const pid_t *ours, size_t n)
{
	_cleanup_fclose_ FILE *f = open_procs(fd);
	int pid;

	if (!f)
		return -errno;
	while (fscanf(f, "%d", &pid) == 1) {
		bool known = false;

		for (size_t i = 0; i < n; i++)
			known |= pid == ours[i];
		if (!known)
			return 1;
	}
	return 0;
}

/* Before Linux 5.14: whoever is forked while we look is seen by the next look. */
static int kill_one_by_one(int fd)
{
	for (unsigned i = 0; i < KILL_ROUNDS; i++) {
		_cleanup_free_ pid_t *pids = NULL;
		size_t n = 0, killed = 0;
		int r = cgroup_processes(fd, &pids, &n);

		if (r < 0)
			return r;
		for (size_t k = 0; k < n; k++)
			killed += pids[k] != getpid() && kill(pids[k], SIGKILL) >= 0;
		if (killed == 0)
			return 0;
		(void)usleep(1000);
	}
	return -EBUSY;
}

int cgroup_kill(int fd)
{
	int r = cgroup_set(fd, "cgroup.kill", "1");

	if (r == -ENODEV)
		return 0;
	return r == -ENOENT || r == -EOPNOTSUPP ? kill_one_by_one(fd) : r;
}

/* --- controllers ---------------------------------------------------------- */

static int read_controllers(int fd, const char *file, unsigned *ret)
{
	char text[TEXT_MAX];
	int r = read_file(fd, file, text);

	if (r >= 0)
		*ret = cgroup_controllers_from_string(text);
	return r;
}

int cgroup_available(int fd, unsigned *ret)
{
	return read_controllers(fd, "cgroup.controllers", ret);
}

int cgroup_enabled(int fd, unsigned *ret)
{
	return read_controllers(fd, "cgroup.subtree_control", ret);
}

int cgroup_enable(int fd, unsigned controllers, unsigned *ret_missing)
{
	unsigned available = 0, enabled = 0;
	int first = cgroup_available(fd, &available), r;

	(void)cgroup_enabled(fd, &enabled);
	*ret_missing = controllers & ~available & ~enabled;
	/* One by one, as one that cannot be had would refuse all. */
	for (size_t i = 0; i < ARRAY_SIZE(controllers_known); i++) {
		char text[16];

		if (!(controllers & available & ~enabled & controllers_known[i].controller))
			continue;
		snprintf(text, sizeof(text), "+%s", controllers_known[i].name);
		r = cgroup_set(fd, "cgroup.subtree_control", text);
		if (r < 0) {
			*ret_missing |= controllers_known[i].controller;
			first = first < 0 ? first : r;
		}
	}
	return first;
}

int cgroup_disable_all(int fd)
{
	char text[TEXT_MAX];
	int r = read_file(fd, "cgroup.subtree_control", text);

	for (char *state = NULL, *name = r < 0 ? NULL : strtok_r(text, " \n", &state); name;
		name = strtok_r(NULL, " \n", &state)) {
		_cleanup_free_ char *minus = xasprintf("-%s", name);
		int q = minus ? cgroup_set(fd, "cgroup.subtree_control", minus) : -ENOMEM;

		r = r < 0 ? r : q;
	}
	return r;
}

/* --- figures -------------------------------------------------------------- */

uint64_t cgroup_oom_kills(int fd)
{
	return read_value(fd, "memory.events", "oom_kill");
}

void cgroup_read_figures(int fd, struct cgroup_figures *ret)
{
	*ret = (struct cgroup_figures){
		.memory = read_value(fd, "memory.current", NULL),
		/* Since Linux 5.19. */
		.memory_peak = read_value(fd, "memory.peak", NULL),
		/* Also where the controller is not enabled. */
		.cpu_usec = read_value(fd, "cpu.stat", "usage_usec"),
		.tasks = read_value(fd, "pids.current", NULL),
		.oom_kills = cgroup_oom_kills(fd),
	};
}

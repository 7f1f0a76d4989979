/* SPDX-License-Identifier: Apache-2.0 */
/* Processes by their parents and names. One pass over /proc is a list of moments, not a moment:
 * whoever needs to be sure that nobody was missed (a fork between two reads) asks again until
 * nothing new comes. */
#include "sys/process.h"

#include <ctype.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "base/buffer.h"
#include "base/parse.h"
#include "sys/procfs.h"

enum {
	DEPTH_MAX = 4096,
	ENVIRONMENT_MAX = 4 << 20,
	READINGS_MAX = 5,
};

struct process {
	pid_t pid, parent;
	bool zombie;
};

static int open_of(pid_t pid, const char *name)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? procfs_error(errno) : fd;
}

/* NUL-terminated. Bytes, or -errno. */
static ssize_t read_of(pid_t pid, const char *name, char *buf, size_t size)
{
	_cleanup_close_ int fd = open_of(pid, name);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read(fd, buf, size - 1);
	if (n < 0)
		return procfs_error(errno);
	buf[n] = '\0';
	return n;
}

/* pid (name) state ppid ...; the name may have any character, also ")". */
static int read_stat(pid_t pid, struct process *ret)
{
	char buf[1024], state;
	const char *p;
	ssize_t n;

	n = read_of(pid, "stat", buf, sizeof(buf));
	if (n < 0)
		return (int)n;
	p = strrchr(buf, ')');
	if (!p || sscanf(p, ") %c %d", &state, &ret->parent) != 2)
		return -EBADMSG;
	ret->pid = pid;
	ret->zombie = state == 'Z' || state == 'X';
	return 0;
}

int process_parent(pid_t pid, pid_t *ret)
{
	struct process p;
	int r = read_stat(pid, &p);

	if (r >= 0)
		*ret = p.parent;
	return r;
}

static int list_processes(struct process **ret, size_t *ret_n)
{
	_cleanup_closedir_ DIR *d = opendir("/proc");
	_cleanup_free_ struct process *list = NULL;
	size_t n = 0, capacity = 0;
	struct dirent *e;

	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		unsigned pid;
		int r;

		if (parse_uint(e->d_name, 1, INT32_MAX, &pid) < 0)
			continue;
		r = array_reserve(&list, &capacity, n + 1, sizeof(*list));
		if (r < 0)
			return r;
		if (read_stat((pid_t)pid, &list[n]) >= 0)
			n++;
	}
	*ret = TAKE_PTR(list);
	*ret_n = n;
	return 0;
}

static int compare_by_parent(const void *a, const void *b)
{
	const struct process *x = a, *y = b;

	return x->parent != y->parent ? (x->parent > y->parent) - (x->parent < y->parent)
				      : (x->pid > y->pid) - (x->pid < y->pid);
}

static size_t first_child(const struct process *list, size_t n, pid_t parent)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (list[middle].parent < parent)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static size_t without_zombies(pid_t *pids, size_t n)
{
	struct process p;
	size_t n_kept = 0;

	for (size_t i = 0; i < n; i++)
		if (read_stat(pids[i], &p) >= 0 && !p.zombie)
			pids[n_kept++] = pids[i];
	return n_kept;
}

int process_descendants_by_scan(pid_t root, bool with_zombies, pid_t **ret, size_t *ret_n)
{
	_cleanup_free_ struct process *list = NULL;
	_cleanup_free_ pid_t *found = NULL;
	size_t n = 0, n_found = 0;
	struct process self;
	int r;

	r = read_stat(root, &self);
	if (r < 0)
		return r;
	r = list_processes(&list, &n);
	if (r < 0)
		return r;
	qsort(list, n, sizeof(*list), compare_by_parent);
	/* Each process has one parent, so there are at most as many, and root. */
	found = calloc(n + 1, sizeof(*found));
	if (!found)
		return -ENOMEM;
	found[n_found++] = root;
	for (size_t i = 0; i < n_found; i++)
		for (size_t k = first_child(list, n, found[i]);
			k < n && list[k].parent == found[i] && n_found <= n; k++)
			if (list[k].pid != root)
				found[n_found++] = list[k].pid;
	/* A zombie's children belong to somebody else, so only now may they go. */
	*ret_n = with_zombies ? n_found : without_zombies(found, n_found);
	*ret = TAKE_PTR(found);
	return 0;
}

/* --- by the lists of children ------------------------------------------------------------- */

static int family_add(struct process_family *f, pid_t pid)
{
	int r;

	for (size_t i = 0; i < f->n; i++)
		if (f->pids[i] == pid)
			return 0;
	r = array_reserve(&f->pids, &f->capacity, f->n + 1, sizeof(*f->pids));
	if (r >= 0)
		f->pids[f->n++] = pid;
	return r;
}

/* "812 813 ", as the file is now. */
static int family_read(struct process_family *f, int fd, struct buffer *text)
{
	enum { STEP = 1024 };
	off_t offset = 0;
	unsigned pid = 0;
	int r;

	for (;;) {
		uint8_t *tail;
		ssize_t n;

		r = buffer_reserve(text, STEP, &tail);
		if (r < 0)
			return r;
		n = pread(fd, tail, STEP, offset);
		if (n <= 0)
			return n < 0 ? procfs_error(errno) : 0;
		for (ssize_t i = 0; i < n; i++) {
			if (isdigit(tail[i])) {
				pid = pid * 10 + (unsigned)(tail[i] - '0');
				continue;
			}
			r = pid > 0 ? family_add(f, (pid_t)pid) : 0;
			if (r < 0)
				return r;
			pid = 0;
		}
		buffer_commit(text, (size_t)n);
		offset += n;
	}
}

/* The kernel finds the next child by the one before, and may skip one when that is reaped just
 * then. So the list is read until it is twice the same; all that any reading had counts. */
static int family_add_children(struct process_family *f, int fd)
{
	_cleanup_buffer_ struct buffer before = {0};

	for (unsigned i = 0; i < READINGS_MAX; i++) {
		_cleanup_buffer_ struct buffer now = {0};
		int r = family_read(f, fd, &now);

		if (r < 0)
			return r;
		if (now.len == 0 ||
			(i > 0 && now.len == before.len &&
				memcmp(buffer_data(&now), buffer_data(&before), now.len) == 0))
			return 0;
		buffer_done(&before);
		before = now;
		now = (struct buffer){0};
	}
	return 0;
}

static int family_add_process(struct process_family *f, pid_t pid)
{
	_cleanup_closedir_ DIR *d = NULL;
	struct dirent *e;
	char path[64];
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	if (!d)
		return procfs_error(errno);
	while ((e = readdir(d))) {
		_cleanup_close_ int fd = -1;

		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		(void)snprintf(path, sizeof(path), "%.20s/children", e->d_name);
		fd = openat(dirfd(d), path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		r = family_add_children(f, fd);
		if (r < 0 && r != -ESRCH)
			return r;
	}
	return 0;
}

int process_family_begin(struct process_family *f, pid_t root)
{
	struct process self;
	int r;

	*f = (struct process_family){0};
	/* CONFIG_PROC_CHILDREN */
	if (access("/proc/thread-self/children", F_OK) < 0) {
		r = process_descendants_by_scan(root, true, &f->pids, &f->n);
		if (r < 0)
			return r;
		f->n_looked = f->capacity = f->n;
		return 0;
	}
	r = read_stat(root, &self);
	if (r >= 0)
		r = family_add(f, root);
	if (r < 0)
		process_family_done(f);
	return r;
}

int process_family_step(struct process_family *f)
{
	int r;

	if (f->n_looked >= f->n)
		return 0;
	r = family_add_process(f, f->pids[f->n_looked++]);
	return r < 0 && r != -ESRCH && r != -EACCES ? r : 1;
}

void process_family_done(struct process_family *f)
{
	free(f->pids);
	*f = (struct process_family){0};
}

int process_descendants(pid_t root, bool with_zombies, pid_t **ret, size_t *ret_n)
{
	struct process_family f;
	int r;

	r = process_family_begin(&f, root);
	if (r < 0)
		return r;
	do
		r = process_family_step(&f);
	while (r > 0);
	if (r < 0) {
		process_family_done(&f);
		return r;
	}
	*ret_n = with_zombies ? f.n : without_zombies(f.pids, f.n);
	*ret = f.pids;
	return 0;
}

bool process_is_zombie(pid_t pid)
{
	struct process p;

	return read_stat(pid, &p) >= 0 && p.zombie;
}

bool process_is_descendant(pid_t pid, pid_t root)
{
	/* The bound is for a chain whose pids are used again while we walk. */
	for (unsigned i = 0; i < DEPTH_MAX && pid > 0; i++)
		if (pid == root)
			return true;
		else if (process_parent(pid, &pid) < 0)
			return false;
	return false;
}

/* Programs that were executed through a descriptor have its number for a name on older kernels. */
static bool is_number(const char *s)
{
	return *s && s[strspn(s, "0123456789")] == '\0';
}

bool process_same_program(pid_t a, pid_t b)
{
	struct stat first, second;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)a);
	if (stat(path, &first) < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)b);
	return stat(path, &second) == 0 && first.st_dev == second.st_dev &&
	       first.st_ino == second.st_ino;
}

int process_name(pid_t pid, char **ret)
{
	char comm[64], command[4096];
	const char *name = comm;
	ssize_t n;

	n = read_of(pid, "comm", comm, sizeof(comm));
	if (n < 0)
		return (int)n;
	comm[strcspn(comm, "\n")] = '\0';
	if (is_number(comm) && read_of(pid, "cmdline", command, sizeof(command)) > 0) {
		const char *slash = strrchr(command, '/');

		name = slash ? slash + 1 : command;
	}
	*ret = strdup(*name ? name : comm);
	return *ret ? 0 : -ENOMEM;
}

int process_environment(pid_t pid, const char *name, char **ret)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *entry = NULL;
	size_t size = 0, total = 0, name_len = strlen(name);
	int fd = open_of(pid, "environ");

	if (fd < 0)
		return fd;
	f = fdopen(fd, "re");
	if (!f) {
		close_fd(fd);
		return -ENOMEM;
	}
	while (total < ENVIRONMENT_MAX) {
		ssize_t n = getdelim(&entry, &size, '\0', f);

		if (n < 0)
			return ferror(f) ? procfs_error(errno) : -ENOENT;
		total += (size_t)n;
		if (strncmp(entry, name, name_len) == 0 && entry[name_len] == '=') {
			*ret = strdup(entry + name_len + 1);
			return *ret ? 0 : -ENOMEM;
		}
	}
	return -ENOENT;
}

int process_become_subreaper(void)
{
	return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 ? -errno : 0;
}

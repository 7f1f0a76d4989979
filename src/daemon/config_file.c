/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_file.h"

#include <fcntl.h>

void config_file_done(struct config_file *f)
{
	free(f->data);
	*f = (struct config_file){0};
}

static int check_type(
	const char *path, const struct stat *st, size_t max, struct config_problems *problems)
{
	const struct config_place place = {.file = path};

	if (!S_ISREG(st->st_mode)) {
		config_problem_add(problems, place, false, "not a regular file");
		return -EBADMSG;
	}
	if (st->st_size < 0 || (uint64_t)st->st_size > max) {
		config_problem_add(problems, place, false,
			"larger than a configuration may be (4M for a file, 16M for all)");
		return -EBADMSG;
	}
	return 0;
}

static int check_trust(const char *path, const struct stat *st, struct config_problems *problems)
{
	const struct config_place place = {.file = path};

	if (geteuid() != 0)
		return 0;
	if (st->st_mode & S_IWOTH) {
		config_problem_add(problems, place, false,
			"everybody can write this file, which decides what runs as root; chmod o-w "
			"it");
		return -EBADMSG;
	}
	if ((st->st_mode & S_IWGRP) && st->st_gid != 0)
		config_problem_add(problems, place, true,
			"group %u can write this file, which decides what runs as root",
			(unsigned)st->st_gid);
	if (st->st_uid != 0)
		config_problem_add(problems, place, true,
			"user %u owns this file, which decides what runs as root",
			(unsigned)st->st_uid);
	return 0;
}

/* The file may grow or shrink meanwhile: its size was a hint. */
static int read_all(int fd, size_t max, struct config_file *f)
{
	size_t capacity = 0;

	for (;;) {
		ssize_t n;
		int r = array_reserve(&f->data, &capacity, f->len + 4096, 1);

		if (r < 0)
			return r;
		n = read(fd, f->data + f->len, capacity - f->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		f->len += (size_t)n;
		if (f->len > max)
			return -EFBIG;
	}
}

int config_file_read(
	const char *path, size_t max, struct config_file *ret, struct config_problems *problems)
{
	_cleanup_config_file_ struct config_file f = {0};
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r;

	/* O_NONBLOCK: a FIFO must not stop the daemon; it is refused next. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	r = check_type(path, &st, max, problems);
	if (r == 0)
		r = check_trust(path, &st, problems);
	if (r == 0)
		r = read_all(fd, max, &f);
	if (r < 0)
		return r;
	f.device = st.st_dev;
	f.inode = st.st_ino;
	*ret = f;
	f = (struct config_file){0};
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/state_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static off_t begin_of(unsigned slot)
{
	return (off_t)(slot * STATE_FILE_SLOT_MAX);
}

int state_file_new(void)
{
	_cleanup_close_ int fd = memfd_create("tenured-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, begin_of(STATE_FILE_SLOTS)) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int state_file_check(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) && st.st_size == begin_of(STATE_FILE_SLOTS) ? 0 : -EINVAL;
}

/* Where the last data of the slot end, relative to its begin. */
static int extent_of(int fd, unsigned slot, size_t *ret)
{
	off_t begin = begin_of(slot), end = begin_of(slot + 1), at = begin, last = begin;

	for (;;) {
		at = lseek(fd, at, SEEK_DATA);
		if (at < 0 && errno != ENXIO)
			return -errno;
		if (at < 0 || at >= end)
			break;
		at = lseek(fd, at, SEEK_HOLE);
		if (at < 0)
			return -errno;
		last = MIN(at, end);
		at = last;
		if (at == end)
			break;
	}
	*ret = (size_t)(last - begin);
	return 0;
}

int state_file_read(int fd, unsigned slot, void **ret, size_t *ret_len)
{
	_cleanup_free_ char *data = NULL;
	size_t len = 0, done = 0;
	int r = extent_of(fd, slot, &len);

	if (r < 0)
		return r;
	data = malloc(len + 1);
	if (!data)
		return -ENOMEM;
	while (done < len) {
		ssize_t n = pread(fd, data + done, len - done, begin_of(slot) + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	*ret = TAKE_PTR(data);
	*ret_len = len;
	return 0;
}

int state_file_write(int fd, unsigned slot, size_t offset, const void *data, size_t len)
{
	size_t done = 0;

	if (offset > STATE_FILE_SLOT_MAX || len > STATE_FILE_SLOT_MAX - offset)
		return -ENOSPC;
	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)data + done, len - done,
			begin_of(slot) + (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int state_file_clear(int fd, unsigned slot)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin_of(slot),
		    (off_t)STATE_FILE_SLOT_MAX) < 0)
		return -errno;
	return 0;
}

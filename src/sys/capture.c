/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/capture.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/utf8.h"

enum { CHUNK = 16 << 10, PATH_SIZE = 32 };

static void descriptor_path(int fd, char path[static PATH_SIZE])
{
	(void)snprintf(path, PATH_SIZE, "/proc/self/fd/%d", fd);
}

/* A file there, if its storage can be given back in parts. */
static int open_in(const char *directory, bool in_memory)
{
	_cleanup_close_ int fd = -1;
	struct statfs fs;

	/* Asked before the file is made: on a disk that is work. */
	if (in_memory && (statfs(directory, &fs) < 0 ||
				 (fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC)))
		return -EMEDIUMTYPE;
	fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | O_NOCTTY, 0600);
	if (fd < 0)
		return -errno;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, CAPTURE_PUNCH_STEP) < 0)
		return -errno;
	if (fchmod(fd, 0622) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int open_file(void)
{
	const char *const directories[] = {
		secure_getenv("XDG_RUNTIME_DIR"), "/run", "/dev/shm", "/tmp"};
	const size_t n = ARRAY_SIZE(directories);
	int r = -ENOENT;

	/* First only where it costs no writing to a disk. */
	for (size_t i = 0; i < 2 * n; i++) {
		const char *directory = directories[i % n];

		if (!directory || directory[0] != '/')
			continue;
		r = open_in(directory, i < n);
		/* Without descriptors it will not be better elsewhere. */
		if (r >= 0 || r == -EMFILE || r == -ENFILE)
			return r;
	}
	return r;
}

static struct capture capture_init(int *fd, uint64_t offset, uint64_t quota)
{
	return (struct capture){
		.fd = TAKE_FD(*fd),
		.offset = offset,
		.quota = quota,
		.line = BUFFER_INIT(CAPTURE_LINE_MAX),
	};
}

int capture_open(struct capture *ret, uint64_t quota, int *ret_write_fd)
{
	_cleanup_close_ int fd = -1, write_fd = -1;
	char path[PATH_SIZE];

	fd = open_file();
	if (fd < 0)
		return fd;
	/* Not a duplicate: the writer has an offset and flags of its own, and may not read. */
	descriptor_path(fd, path);
	write_fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY);
	if (write_fd < 0)
		return -errno;
	*ret = capture_init(&fd, 0, quota);
	*ret_write_fd = TAKE_FD(write_fd);
	return 0;
}

static void give_back(struct capture *c)
{
	uint64_t len = (c->offset - c->punched) / CAPTURE_PUNCH_STEP * CAPTURE_PUNCH_STEP;

	if (len == 0)
		return;
	/* It did work on the empty file; if it fails now, the storage stays until we close. */
	(void)fallocate(
		c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)c->punched, (off_t)len);
	c->punched += len;
}

static void tail_append(struct capture *c, const char *data, size_t len);

/* Somebody else has read it; its last words are still there, unless they were given back. */
static void read_tail(struct capture *c)
{
	size_t len = (size_t)MIN(c->offset, (uint64_t)CAPTURE_TAIL_MAX), skip = 0;
	_cleanup_free_ char *data = malloc(len + 1);
	ssize_t n = data ? pread(c->fd, data, len, (off_t)(c->offset - len)) : -1;

	while (n > 0 && skip < (size_t)n && data[skip] == '\0')
		skip++;
	if (n > 0 && skip < (size_t)n)
		tail_append(c, data + skip, (size_t)n - skip);
}

int capture_restore_take(struct capture *ret, int *fd, uint64_t offset, uint64_t quota)
{
	struct stat st;

	if (fstat(*fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || offset > INT64_MAX)
		return -EINVAL;
	*ret = capture_init(fd, offset, quota);
	read_tail(ret);
	give_back(ret);
	return 0;
}

void capture_done(struct capture *c)
{
	c->fd = close_fd(c->fd);
	buffer_done(&c->line);
	free(c->tail);
	c->tail = NULL;
	c->tail_len = c->tail_start = 0;
}

int capture_watch(struct capture *c, int inotify_fd)
{
	char path[PATH_SIZE];
	int wd;

	descriptor_path(c->fd, path);
	wd = inotify_add_watch(inotify_fd, path, IN_MODIFY);
	return wd < 0 ? -errno : wd;
}

static void tail_append(struct capture *c, const char *data, size_t len)
{
	size_t end, first;

	/* Most workers say little or nothing. Without memory there are no last words to show. */
	if (!c->tail)
		c->tail = malloc(CAPTURE_TAIL_MAX);
	if (!c->tail)
		return;
	if (len > CAPTURE_TAIL_MAX) {
		data += len - CAPTURE_TAIL_MAX;
		len = CAPTURE_TAIL_MAX;
	}
	end = (c->tail_start + c->tail_len) % CAPTURE_TAIL_MAX;
	first = MIN(len, CAPTURE_TAIL_MAX - end);
	memcpy(c->tail + end, data, first);
	memcpy(c->tail, data + first, len - first);
	c->tail_len += len;
	if (c->tail_len > CAPTURE_TAIL_MAX) {
		c->tail_start = (c->tail_start + c->tail_len) % CAPTURE_TAIL_MAX;
		c->tail_len = CAPTURE_TAIL_MAX;
	}
}

void capture_flush(struct capture *c, capture_line_fn line, void *userdata)
{
	if (c->line.len > 0 && line)
		line((const char *)buffer_data(&c->line), c->line.len, userdata);
	buffer_consume(&c->line, c->line.len);
}

/* len bytes of a line, its last ones when complete. Without memory for a copy a line comes in more
 * pieces. */
static void take_piece(struct capture *c, const char *data, size_t len, bool complete,
	capture_line_fn line, void *userdata)
{
	while (c->line.len + len > CAPTURE_LINE_MAX) {
		size_t n = CAPTURE_LINE_MAX - c->line.len;

		if (buffer_append(&c->line, data, n) < 0)
			break;
		data += n;
		len -= n;
		capture_flush(c, line, userdata);
	}
	if (complete && c->line.len == 0) {
		if (line)
			line(data, len, userdata);
		return;
	}
	if (buffer_append(&c->line, data, len) < 0) {
		capture_flush(c, line, userdata);
		if (line)
			line(data, MIN(len, (size_t)CAPTURE_LINE_MAX), userdata);
		return;
	}
	if (complete)
		capture_flush(c, line, userdata);
}

static void take_chunk(
	struct capture *c, const char *data, size_t len, capture_line_fn line, void *userdata)
{
	const char *newline;

	tail_append(c, data, len);
	if (c->cut) {
		newline = memchr(data, '\n', len);
		size_t n = newline ? (size_t)(newline - data) + 1 : len;
		c->lost += n;
		c->cut = !newline;
		data += n;
		len -= n;
	}
	while ((newline = memchr(data, '\n', len))) {
		size_t n = (size_t)(newline - data);

		take_piece(c, data, n, true, line, userdata);
		data += n + 1;
		len -= n + 1;
	}
	if (len > 0)
		take_piece(c, data, len, false, line, userdata);
}

/* Where the file is not what it was: cut because it is too long, or by its writer. */
static void adjust(struct capture *c, uint64_t size, capture_line_fn line, void *userdata)
{
	if (size < c->offset) {
		capture_flush(c, line, userdata);
		c->offset = c->punched = 0;
		c->cut = false;
	}
	if (size - c->offset > c->quota) {
		uint64_t to = size - c->quota / 2;

		capture_flush(c, line, userdata);
		c->lost += to - c->offset;
		c->offset = to;
		c->cut = true;
		give_back(c);
	}
}

ssize_t capture_read(struct capture *c, size_t max, capture_line_fn line, void *userdata)
{
	char chunk[CHUNK];
	size_t total = 0;
	struct stat st;

	if (fstat(c->fd, &st) < 0)
		return -errno;
	adjust(c, (uint64_t)st.st_size, line, userdata);
	while (total < max) {
		ssize_t n = pread(c->fd, chunk, MIN(sizeof(chunk), max - total), (off_t)c->offset);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return total > 0 ? (ssize_t)total : -errno;
		}
		if (n == 0)
			break;
		c->offset += (uint64_t)n;
		total += (size_t)n;
		take_chunk(c, chunk, (size_t)n, line, userdata);
		give_back(c);
	}
	/* Who takes the descriptor over finds there where to go on; an unfinished line again. */
	if (total > 0)
		(void)lseek(c->fd, (off_t)(c->offset - MIN(c->offset, c->line.len)), SEEK_SET);
	return (ssize_t)total;
}

/* Beyond ASCII: the second half of the controls, and what turns the direction of the text that
 * follows. */
static bool is_harmful(const uint8_t *s, size_t len)
{
	if (len == 2)
		return s[0] == 0xc2 && s[1] < 0xa0;
	if (len == 3 && s[0] == 0xe2 && s[1] == 0x80)
		return s[2] >= 0xa8 && s[2] <= 0xae;
	return len == 3 && s[0] == 0xe2 && s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9;
}

char *capture_tail(const struct capture *c)
{
	_cleanup_free_ uint8_t *in = malloc(c->tail_len + 1);
	char *out = malloc(c->tail_len + 1), *p = out;
	size_t first = MIN(c->tail_len, CAPTURE_TAIL_MAX - c->tail_start);

	if (!in || !out) {
		free(out);
		return NULL;
	}
	if (c->tail_len > 0) {
		memcpy(in, c->tail + c->tail_start, first);
		memcpy(in + first, c->tail, c->tail_len - first);
	}
	for (size_t i = 0; i < c->tail_len;) {
		size_t n = utf8_char_length(in + i, c->tail_len - i);

		if (n == 0 || is_harmful(in + i, n) ||
			(n == 1 && (in[i] < 0x20 || in[i] == 0x7f) && in[i] != '\n' &&
				in[i] != '\t')) {
			*p++ = '?';
			i += n > 0 ? n : 1;
			continue;
		}
		memcpy(p, in + i, n);
		p += n;
		i += n;
	}
	*p = '\0';
	return out;
}

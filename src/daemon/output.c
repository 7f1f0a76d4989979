/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/output.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/sandbox.h"
#include "sys/capture.h"

enum {
	QUOTA = 16 << 20,	 /* unread bytes of one worker that are kept */
	READ_AT_ONCE = 64 << 10, /* of one worker before others have their turn */
};

struct log_file {
	char *path;
	int fd;
	unsigned n_refs;
	bool failed; /* reported already */
	struct log_file *next;
};

struct output {
	struct output_hub *hub;
	enum output_kind kind;
	struct capture capture;
	int watch;
	bool more; /* there may be unread bytes for which no event comes */
	struct log_file *file;
	char *service;
	unsigned generation, worker;
	uint64_t lost_reported;
	struct output *next;
};

struct output_hub {
	int inotify_fd;
	sd_event_source *source, *again;
	struct output *outputs;
	struct log_file *files;
};

static int open_log(struct log_file *f)
{
	int fd = open(
		f->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);

	if (fd < 0)
		return -errno;
	close_fd(f->fd);
	f->fd = fd;
	f->failed = false;
	return 0;
}

static int file_get(struct output_hub *h, const char *path, struct log_file **ret)
{
	struct log_file *f;
	int r;

	for (f = h->files; f; f = f->next)
		if (streq(f->path, path)) {
			f->n_refs++;
			*ret = f;
			return 0;
		}
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	*f = (struct log_file){.path = strdup(path), .fd = -1, .n_refs = 1};
	r = f->path ? open_log(f) : -ENOMEM;
	if (r < 0) {
		free(f->path);
		free(f);
		return r;
	}
	f->next = h->files;
	h->files = f;
	*ret = f;
	return 0;
}

static void file_put(struct output_hub *h, struct log_file *f)
{
	if (!f || --f->n_refs > 0)
		return;
	for (struct log_file **p = &h->files; *p; p = &(*p)->next)
		if (*p == f) {
			*p = f->next;
			break;
		}
	close_fd(f->fd);
	free(f->path);
	free(f);
}

static void write_file(struct output *o, const char *line, size_t len)
{
	char newline = '\n';
	struct iovec iov[] = {
		{.iov_base = (void *)(uintptr_t)line, .iov_len = len},
		{.iov_base = &newline,		       .iov_len = 1  }
	    };

	if (writev(o->file->fd, iov, 2) >= 0 || o->file->failed)
		return;
	o->file->failed = true;
	log_error("%s: its output cannot be written to %s: %s", o->service, o->file->path,
		strerror(errno));
}

/* "<3>text": the priority a program gives its line, sd-daemon(3). */
static int priority_of(const char **line, size_t *len)
{
	if (*len >= 3 && (*line)[0] == '<' && (*line)[1] >= '0' && (*line)[1] <= '7' &&
		(*line)[2] == '>') {
		int priority = (*line)[1] - '0';
		*line += 3;
		*len -= 3;
		return priority;
	}
	return LOG_INFO;
}

static bool write_journal(const struct output *o, const char *line, size_t len)
{
	int priority = priority_of(&line, &len);

	return log_worker_to_journal(priority, o->service, o->generation, o->worker, line, len);
}

static void on_line(const char *line, size_t len, void *userdata)
{
	struct output *o = userdata;

	if (o->kind == OUTPUT_FILE)
		write_file(o, line, len);
	else if (o->kind != OUTPUT_JOURNAL || !write_journal(o, line, len))
		log_worker_line(o->service, o->generation, o->worker, line, len);
}

static void read_some(struct output *o)
{
	ssize_t n = capture_read(&o->capture, READ_AT_ONCE, on_line, o);

	o->more = n == READ_AT_ONCE;
	if (o->more)
		(void)sd_event_source_set_enabled(o->hub->again, SD_EVENT_ONESHOT);
	if (o->capture.lost > o->lost_reported) {
		log_warning("%s.%u.%u: %llu bytes of its output were dropped: it writes faster "
			    "than they can be kept",
			o->service, o->generation, o->worker,
			(unsigned long long)(o->capture.lost - o->lost_reported));
		o->lost_reported = o->capture.lost;
	}
}

static int on_again(sd_event_source *source, void *userdata)
{
	struct output_hub *h = userdata;

	(void)source;
	for (struct output *o = h->outputs; o; o = o->next)
		if (o->more)
			read_some(o);
	return 0;
}

static int on_inotify(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct output_hub *h = userdata;
	_Alignas(struct inotify_event) char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf));

	(void)source;
	(void)revents;
	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *e =
			(const struct inotify_event *)(const void *)(buf + at);

		at += (ssize_t)(sizeof(*e) + e->len);
		for (struct output *o = h->outputs; o; o = o->next)
			if (o->watch == e->wd || (e->mask & IN_Q_OVERFLOW))
				read_some(o);
	}
	return 0;
}

int output_hub_new(sd_event *event, struct output_hub **ret)
{
	struct output_hub *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return -ENOMEM;
	h->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	r = h->inotify_fd < 0 ? -errno : 0;
	if (r >= 0)
		r = sd_event_add_io(event, &h->source, h->inotify_fd, EPOLLIN, on_inotify, h);
	if (r >= 0)
		r = sd_event_source_set_priority(h->source, PRIORITY_OUTPUT);
	if (r >= 0)
		r = sd_event_add_defer(event, &h->again, on_again, h);
	if (r >= 0)
		r = sd_event_source_set_priority(h->again, PRIORITY_OUTPUT + 1);
	if (r >= 0)
		r = sd_event_source_set_enabled(h->again, SD_EVENT_OFF);
	if (r < 0) {
		output_hub_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

struct output_hub *output_hub_free(struct output_hub *h)
{
	if (!h)
		return NULL;
	if (h->source)
		sd_event_source_disable_unref(h->source);
	if (h->again)
		sd_event_source_disable_unref(h->again);
	close_fd(h->inotify_fd);
	free(h);
	return NULL;
}

void output_hub_reopen(struct output_hub *h)
{
	for (struct log_file *f = h->files; f; f = f->next) {
		int r = open_log(f);
		if (r < 0)
			log_error(
				"%s cannot be opened again: %s; the old file goes on to be written",
				f->path, strerror(-r));
	}
}

/* Everything but the capture file, whose descriptor is the caller's to set. */
static int make(struct output_hub *h, enum output_kind kind, const char *file, const char *service,
	unsigned generation, unsigned worker, struct output **ret, struct error *ret_error)
{
	struct output *o;
	int r = 0;

	if (kind == OUTPUT_INHERIT)
		return error_set(
			ret_error, -EINVAL, "%s: inherited output is not captured", service);
	o = calloc(1, sizeof(*o));
	if (!o)
		return error_set(ret_error, -ENOMEM, "%s: out of memory", service);
	*o = (struct output){.hub = h,
		.kind = kind,
		.watch = -1,
		.generation = generation,
		.worker = worker,
		.capture = {.fd = -1},
		.service = strdup(service)};
	o->next = h->outputs;
	h->outputs = o;
	if (!o->service)
		r = error_set(ret_error, -ENOMEM, "%s: out of memory", service);
	else if (kind == OUTPUT_FILE && (r = file_get(h, file, &o->file)) < 0) {
		error_set_errno(ret_error, r, "%s: output file %s", service, file);
		(void)sandbox_explain(ret_error, r, SANDBOX_FILE, file);
	}
	if (r < 0) {
		output_free(o);
		return r;
	}
	*ret = o;
	return 0;
}

static int begin(struct output *o, int r, struct output **ret, struct error *ret_error)
{
	if (r >= 0)
		r = o->watch = capture_watch(&o->capture, o->hub->inotify_fd);
	if (r < 0) {
		error_set_errno(ret_error, r, "%s: capturing its output", o->service);
		output_free(o);
		return r;
	}
	*ret = o;
	return 0;
}

int output_new(struct output_hub *h, enum output_kind kind, const char *file, const char *service,
	unsigned generation, unsigned worker, struct output **ret, int *ret_write_fd,
	struct error *ret_error)
{
	_cleanup_close_ int write_fd = -1;
	struct output *o;
	int r;

	r = make(h, kind, file, service, generation, worker, &o, ret_error);
	if (r < 0)
		return r;
	r = begin(o, capture_open(&o->capture, QUOTA, &write_fd), ret, ret_error);
	if (r >= 0)
		*ret_write_fd = TAKE_FD(write_fd);
	return r;
}

int output_restore_take(struct output_hub *h, enum output_kind kind, const char *file,
	const char *service, unsigned generation, unsigned worker, int *fd, struct output **ret,
	struct error *ret_error)
{
	off_t offset = lseek(*fd, 0, SEEK_CUR);
	struct output *o;
	int r;

	if (offset < 0)
		return error_set_errno(ret_error, -errno, "%s: its output", service);
	r = make(h, kind, file, service, generation, worker, &o, ret_error);
	if (r < 0)
		return r;
	r = begin(
		o, capture_restore_take(&o->capture, fd, (uint64_t)offset, QUOTA), ret, ret_error);
	/* What was written while nobody read gives no event. */
	if (r >= 0) {
		o->more = true;
		(void)sd_event_source_set_enabled(h->again, SD_EVENT_ONESHOT);
	}
	return r;
}

int output_fd(const struct output *o)
{
	return o->capture.fd;
}

void output_catch_up(struct output *o)
{
	ssize_t n;

	/* Bounded by the quota: a writer in its group may still be alive. */
	for (size_t total = 0; total < QUOTA; total += (size_t)n) {
		n = capture_read(&o->capture, READ_AT_ONCE, on_line, o);
		if (n <= 0)
			break;
	}
	o->more = false;
}

struct output *output_free(struct output *o)
{
	if (!o)
		return NULL;
	if (o->capture.fd >= 0) {
		output_catch_up(o);
		capture_flush(&o->capture, on_line, o);
	}
	if (o->watch >= 0)
		(void)inotify_rm_watch(o->hub->inotify_fd, o->watch);
	for (struct output **p = &o->hub->outputs; *p; p = &(*p)->next)
		if (*p == o) {
			*p = o->next;
			break;
		}
	capture_done(&o->capture);
	file_put(o->hub, o->file);
	free(o->service);
	free(o);
	return NULL;
}

char *output_tail(const struct output *o, size_t max_lines)
{
	char *text = capture_tail(&o->capture), *from;
	size_t n = 0;

	if (!text || !*text) {
		free(text);
		return NULL;
	}
	for (from = text + strlen(text) - 1; from > text; from--)
		if (from[-1] == '\n' && ++n == max_lines)
			break;
	memmove(text, from, strlen(from) + 1);
	return text;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* When the daemon was replaced its keeper is, too (keeper_exec.h): it is asked over its notify
 * socket, and what becomes of it comes through a pipe, at the latest when that is closed. */
#include <fcntl.h>

#include "daemon/keeper.h"
#include "daemon/log.h"
#include "daemon/reexec.h"

/* Longer than it takes to try a program. */
#define ANSWER_USEC (15 * USEC_PER_SEC)

struct reexec_keeper {
	struct manager *manager;
	int fd;
	sd_event_source *io, *timer;
	char text[200];
	size_t len;
};

struct reexec_keeper *reexec_keeper_free(struct reexec_keeper *k)
{
	if (!k)
		return NULL;
	if (k->io)
		sd_event_source_disable_unref(k->io);
	if (k->timer)
		sd_event_source_disable_unref(k->timer);
	close_fd(k->fd);
	free(k);
	return NULL;
}

static void finish(struct reexec_keeper *k, const char *what)
{
	struct manager *m = k->manager;

	m->reexec_keeper = NULL;
	if (!streq(what, "replaced"))
		log_error("the keeper (pid %d) was not replaced: %s; it goes on as before",
			(int)keeper_pid(), what);
	reexec_answer(m, what);
	reexec_keeper_free(k);
}

static int on_text(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct reexec_keeper *k = userdata;
	ssize_t n = read(fd, k->text + k->len, sizeof(k->text) - 1 - k->len);

	(void)source;
	(void)revents;
	if (n > 0) {
		k->len += (size_t)n;
		return 0;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	finish(k, k->len > 0 ? k->text : "it does not know how, or has ended");
	return 0;
}

static int on_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	finish(userdata, "it did not answer in time");
	return 0;
}

static int watch(struct reexec_keeper *k)
{
	sd_event *event = k->manager->event;
	int r = sd_event_add_io(event, &k->io, k->fd, EPOLLIN, on_text, k);

	if (r >= 0)
		r = sd_event_add_time_relative(
			event, &k->timer, CLOCK_MONOTONIC, ANSWER_USEC, 0, on_late, k);
	return r;
}

bool reexec_keeper_begin(struct manager *m)
{
	_cleanup_close_ int theirs = -1;
	struct reexec_keeper *k;
	int pipe_fds[2], r;

	if (keeper_pid() == 0)
		return false;
	k = calloc(1, sizeof(*k));
	if (!k || pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0) {
		free(k);
		return false;
	}
	*k = (struct reexec_keeper){.manager = m, .fd = pipe_fds[0]};
	theirs = pipe_fds[1];
	r = watch(k);
	if (r >= 0)
		r = store_tell(m->store, "X_TENURED_REEXEC=1", theirs);
	if (r < 0) {
		log_error("the keeper cannot be asked to replace itself: %s", strerror(-r));
		reexec_keeper_free(k);
		return false;
	}
	m->reexec_keeper = k;
	return true;
}

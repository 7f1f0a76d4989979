/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/worker_store.h"

#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "daemon/log.h"
#include "daemon/state_save.h"
#include "daemon/state_tables.h"

struct stored_fd {
	struct manager_service *service;
	unsigned index;
	char *name;
	int fd;
	bool poll;
	sd_event_source *source;
};

struct worker_store {
	struct stored_fd **list; /* in the order in which they came */
	size_t n, capacity;
	bool changed, told;
};

static void note(struct manager_service *s)
{
	s->worker_store->changed = true;
	state_save_later(s->manager);
}

/* --- one ------------------------------------------------------------------ */

static void stored_free(struct stored_fd *f)
{
	struct manager *m = f->service->manager;

	if (f->source)
		sd_event_source_disable_unref(f->source);
	if (!m->detached)
		store_drop(m->store, f->fd);
	close_fd(f->fd);
	free(f->name);
	free(f);
}

static void drop(struct manager_service *s, size_t i)
{
	struct worker_store *w = s->worker_store;

	stored_free(w->list[i]);
	memmove(&w->list[i], &w->list[i + 1], (w->n - i - 1) * sizeof(struct stored_fd *));
	w->n--;
	note(s);
}

static int on_hangup(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct stored_fd *f = userdata;
	struct manager_service *s = f->service;

	(void)source;
	(void)fd;
	(void)revents;
	for (size_t i = 0; i < s->worker_store->n; i++)
		if (s->worker_store->list[i] == f) {
			log_debug("%s: what worker %u had stored as \"%s\" has hung up", s->name,
				f->index, f->name);
			drop(s, i);
			break;
		}
	return 0;
}

/* Takes the descriptor on success. */
static int add(struct manager_service *s, unsigned index, const char *name, bool poll, int *fd)
{
	struct worker_store *w = s->worker_store;
	struct stored_fd *f;

	if (array_reserve(&w->list, &w->capacity, w->n + 1, sizeof(f)) < 0)
		return -ENOMEM;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	*f = (struct stored_fd){.service = s, .index = index, .fd = *fd, .poll = poll};
	f->name = strdup(name);
	/* A file that cannot be polled cannot hang up either. */
	if (!f->name || (poll && sd_event_add_io(s->manager->event, &f->source, f->fd, 0, on_hangup,
					 f) == -ENOMEM)) {
		free(f->name);
		free(f);
		return -ENOMEM;
	}
	/* What went with its worker is not handed to the next one. */
	if (f->source)
		(void)sd_event_source_set_priority(f->source, PRIORITY_CHILD - 1);
	w->list[w->n++] = f;
	*fd = -1;
	return 0;
}

static int make(struct manager_service *s)
{
	if (!s->worker_store)
		s->worker_store = calloc(1, sizeof(*s->worker_store));
	return s->worker_store ? 0 : -ENOMEM;
}

/* --- messages -------------------------------------------------------------- */

static size_t count(const struct worker_store *w, unsigned index)
{
	size_t n = 0;

	for (size_t i = 0; w && i < w->n; i++)
		n += w->list[i]->index == index;
	return n;
}

/* As systemd does: what is there already, under whatever name, is not stored twice. */
static bool is_there(const struct worker_store *w, unsigned index, int fd)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->list[i]->index == index &&
			syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, w->list[i]->fd, fd) == 0)
			return true;
	return false;
}

static void store(
	struct manager_service *s, unsigned index, const struct notify_message *m, int *fd)
{
	const char *name = m->fields & NOTIFY_FD_NAME ? m->fd_name : "stored";
	struct worker_store *w = s->worker_store;
	int kept = *fd;

	if (is_there(w, index, *fd))
		return;
	if (count(w, index) >= WORKER_STORE_MAX || w->n >= WORKER_STORE_TOTAL_MAX) {
		if (!w->told)
			log_warning("%s: worker %u stores more than %d descriptors (all of them: "
				    "%d); it is not kept",
				s->name, index, WORKER_STORE_MAX, WORKER_STORE_TOTAL_MAX);
		w->told = true;
		return;
	}
	if (add(s, index, name, !(m->fields & NOTIFY_FD_NO_POLL), fd) < 0) {
		log_error("%s: out of memory, what worker %u stores is not kept", s->name, index);
		return;
	}
	(void)store_add(s->manager->store, STORED_WORKER, kept);
	note(s);
}

void worker_store_handle(struct manager_service *s, unsigned index, const struct notify_message *m,
	struct notify_datagram *d)
{
	if ((m->fields & NOTIFY_FD_STORE) && d->n_fds > 0 && make(s) >= 0)
		for (size_t i = 0; i < d->n_fds; i++)
			store(s, index, m, &d->fds[i]);
	if (!(m->fields & NOTIFY_FD_STORE_REMOVE) || !(m->fields & NOTIFY_FD_NAME))
		return;
	for (size_t i = s->worker_store ? s->worker_store->n : 0; i-- > 0;)
		if (s->worker_store->list[i]->index == index &&
			streq(s->worker_store->list[i]->name, m->fd_name))
			drop(s, i);
}

/* --- those who come after ---------------------------------------------------- */

int worker_store_list(const struct manager_service *s, unsigned index, int number,
	struct spawn_fd *ret, char **ret_names)
{
	const struct worker_store *w = s->worker_store;
	char *names = NULL;
	int n = 0;

	for (size_t i = 0; w && i < w->n && n < WORKER_STORE_MAX; i++) {
		char *longer;

		if (w->list[i]->index != index)
			continue;
		longer = xasprintf("%s:%s", names ? names : "", w->list[i]->name);
		free(names);
		if (!longer)
			return -ENOMEM;
		names = longer;
		ret[n] = (struct spawn_fd){w->list[i]->fd, number + n};
		n++;
	}
	*ret_names = names;
	return n;
}

void worker_store_trim(struct manager_service *s, unsigned n)
{
	for (size_t i = s->worker_store ? s->worker_store->n : 0; i-- > 0;)
		if (s->worker_store->list[i]->index >= n)
			drop(s, i);
}

struct worker_store *worker_store_free(struct manager_service *s)
{
	struct worker_store *w = s->worker_store;

	if (!w)
		return NULL;
	for (size_t i = 0; i < w->n; i++)
		stored_free(w->list[i]);
	free(w->list);
	free(w);
	return NULL;
}

/* --- the next daemon ---------------------------------------------------------- */

bool worker_store_changed(const struct manager_service *s)
{
	return s->worker_store && s->worker_store->changed;
}

json_t *worker_store_save(struct manager_service *s)
{
	struct worker_store *w = s->worker_store;
	json_t *list = json_array();

	for (size_t i = 0; i < w->n; i++)
		(void)json_array_append_new(list,
			json_pack("{s:I, s:s, s:b, s:I}", "worker", (json_int_t)w->list[i]->index,
				"name", w->list[i]->name, "poll", w->list[i]->poll, "number",
				(json_int_t)store_number(s->manager->store, w->list[i]->fd)));
	w->changed = false;
	return json_pack("{s:o?}", "list", list);
}

void worker_store_lend(struct manager_service *s)
{
	struct worker_store *w = s->worker_store;

	for (size_t i = 0; w && i < w->n; i++)
		if (store_number(s->manager->store, w->list[i]->fd) == 0)
			w->changed |=
				store_lend(s->manager->store, STORED_WORKER, w->list[i]->fd) > 0;
}

int worker_store_restore(struct manager_service *s, const json_t *value)
{
	const json_t *list = json_object_get(value, "list"), *entry;
	size_t i;

	if (!value)
		return 0;
	if (!json_is_array(list) || json_array_size(list) > WORKER_STORE_TOTAL_MAX)
		return -EBADMSG;
	if (make(s) < 0)
		return -ENOMEM;
	json_array_foreach (list, i, entry) {
		const char *name = json_string_value(json_object_get(entry, "name"));
		int fd = store_take(
			s->manager->store, STORED_WORKER, state_get_unsigned(entry, "number"));

		if (fd < 0)
			continue; /* the keeper had no room for it */
		if (!name || add(s, state_get_unsigned(entry, "worker"), name,
				     state_get_bool(entry, "poll"), &fd) < 0) {
			close_fd(fd);
			return name ? -ENOMEM : -EBADMSG;
		}
	}
	return 0;
}

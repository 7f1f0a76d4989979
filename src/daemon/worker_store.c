/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/worker_store.h"

#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "daemon/log.h"
#include "daemon/state_save.h"
#include "daemon/state_tables.h"
#include "daemon/worker_channel.h"
#include "daemon/worker_process.h"
#include "sys/fdpass.h"

/* Generations that live, and one for those of an earlier daemon that knew no views. */
enum { HOLDERS_MAX = CONFIG_GENERATIONS_MAX + 4, EVERYBODY = 0 };

/* In the view of that generation. */
struct holder {
	unsigned generation;
	bool given; /* its worker has it */
};

struct stored_fd {
	struct manager_service *service;
	struct holder holders[HOLDERS_MAX];
	size_t n_holders;
	unsigned index;
	char *name;
	int fd;
	bool poll;
	sd_event_source *source;
};

struct worker_store {
	struct stored_fd **list; /* in the order in which they came */
	size_t n, capacity;
	/* The same by place and open file: each of many that come is looked for there. */
	struct stored_fd **by_file;
	size_t by_file_capacity;
	unsigned current; /* who served when it was looked at last */
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
	if (!m->detached) {
		fdpass_forget_linger(f->fd); /* for the keeper, too */
		store_drop(m->store, f->fd);
	}
	close_fd(f->fd);
	free(f->name);
	free(f);
}

static void take_out(struct stored_fd **list, size_t n, size_t i)
{
	memmove(&list[i], &list[i + 1], (n - i - 1) * sizeof(*list));
}

static void drop(struct manager_service *s, size_t i)
{
	struct worker_store *w = s->worker_store;
	struct stored_fd *f = w->list[i];
	size_t k = 0;

	while (w->by_file[k] != f)
		k++;
	take_out(w->by_file, w->n, k);
	take_out(w->list, w->n, i);
	w->n--;
	stored_free(f);
	note(s);
}

/* <0, 0, >0: by place, then in the kernel's order of open files, which is the same for as long as
 * they are open. Where it has none to tell nothing is the same. */
static int compare(unsigned index, int fd, const struct stored_fd *f)
{
	long r;

	if (index != f->index)
		return index < f->index ? -1 : 1;
	r = syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, fd, f->fd);
	return r == 0 ? 0 : r == 1 ? -1 : 1;
}

/* Where it is in by_file, or would be. */
static bool find_place(const struct worker_store *w, unsigned index, int fd, size_t *ret)
{
	size_t low = 0, high = w->n;

	while (low < high) {
		size_t middle = (low + high) / 2;
		int r = compare(index, fd, w->by_file[middle]);

		if (r == 0) {
			*ret = middle;
			return true;
		}
		if (r < 0)
			high = middle;
		else
			low = middle + 1;
	}
	*ret = low;
	return false;
}

/* --- views ----------------------------------------------------------------- */

static struct holder *holder_of(struct stored_fd *f, unsigned generation)
{
	for (size_t i = 0; i < f->n_holders; i++)
		if (f->holders[i].generation == generation || f->holders[i].generation == EVERYBODY)
			return &f->holders[i];
	return NULL;
}

/* Has that changed anything? */
static bool hold(struct stored_fd *f, unsigned generation, bool given)
{
	struct holder *h = holder_of(f, generation);

	if (h ? h->given || !given : f->n_holders >= HOLDERS_MAX)
		return false;
	if (h)
		h->given = true;
	else
		f->holders[f->n_holders++] =
			(struct holder){.generation = generation, .given = given};
	return true;
}

static void let_go(struct stored_fd *f, const struct holder *h)
{
	size_t i = (size_t)(h - f->holders);

	f->holders[i] = f->holders[--f->n_holders];
}

/* Has it had all new connections at some time? */
static bool has_served(const struct manager_service *s, unsigned generation)
{
	const struct manager_generation *g = manager_service_generation(s, generation);

	return g && g->serving_usec > 0;
}

/* Into the view of the one that stores it, and of those who come after it. */
static bool hold_for_all(struct manager_service *s, struct stored_fd *f, unsigned generation)
{
	bool changed = hold(f, generation, true);

	for (size_t i = 0; i < s->n_generations; i++) {
		unsigned other = s->generations[i]->number;

		if (other > generation || (other == s->core.current && has_served(s, generation)))
			changed |= hold(f, other, false);
	}
	return changed;
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
	size_t place;

	if (array_reserve(&w->list, &w->capacity, w->n + 1, sizeof(f)) < 0 ||
		array_reserve(&w->by_file, &w->by_file_capacity, w->n + 1, sizeof(f)) < 0)
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
	(void)find_place(w, index, f->fd, &place);
	memmove(&w->by_file[place + 1], &w->by_file[place], (w->n - place) * sizeof(f));
	w->by_file[place] = f;
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

static size_t count(const struct worker_store *w, unsigned generation, unsigned index)
{
	size_t n = 0;

	for (size_t i = 0; w && i < w->n; i++)
		n += w->list[i]->index == index && holder_of(w->list[i], generation);
	return n;
}

/* As systemd does: what is there already, under whatever name, is not stored twice. */
static struct stored_fd *find(const struct worker_store *w, unsigned index, int fd)
{
	size_t i;

	return find_place(w, index, fd, &i) ? w->by_file[i] : NULL;
}

static void store(struct manager_service *s, unsigned generation, unsigned index,
	const struct notify_message *m, int *fd)
{
	const char *name = m->fields & NOTIFY_FD_NAME ? m->fd_name : "stored";
	struct worker_store *w = s->worker_store;
	struct stored_fd *there = find(w, index, *fd);
	int kept = *fd;

	if (there) {
		if (hold_for_all(s, there, generation))
			note(s);
		return;
	}
	if (count(w, generation, index) >= WORKER_STORE_MAX || w->n >= WORKER_STORE_TOTAL_MAX) {
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
	hold_for_all(s, w->list[w->n - 1], generation);
	fdpass_forget_linger(kept);
	(void)store_add(s->manager->store, STORED_WORKER, kept);
	note(s);
}

/* Out of its view, and of those who were to get it later; what somebody has got is his. */
static void remove_from(struct manager_service *s, size_t i, unsigned generation)
{
	struct stored_fd *f = s->worker_store->list[i];

	for (size_t k = f->n_holders; k-- > 0;) {
		const struct holder *h = &f->holders[k];

		if (h->generation == generation || h->generation == EVERYBODY ||
			(h->generation > generation && !h->given))
			let_go(f, h);
	}
	if (f->n_holders == 0)
		drop(s, i);
	note(s);
}

static void store_changed(struct manager_service *s, unsigned index)
{
	for (size_t i = 0; i < s->n_generations; i++) {
		struct worker_process *p =
			manager_service_worker(s, s->generations[i]->number, index);

		if (p)
			worker_channel_sync(p);
	}
}

void worker_store_handle(struct manager_service *s, unsigned generation, unsigned index,
	const struct notify_message *m, struct notify_datagram *d)
{
	if ((m->fields & NOTIFY_FD_STORE) && d->n_fds > 0 && make(s) >= 0) {
		for (size_t i = 0; i < d->n_fds; i++)
			store(s, generation, index, m, &d->fds[i]);
		store_changed(s, index);
	}
	if (!(m->fields & NOTIFY_FD_STORE_REMOVE) || !(m->fields & NOTIFY_FD_NAME))
		return;
	for (size_t i = s->worker_store ? s->worker_store->n : 0; i-- > 0;) {
		struct stored_fd *f = s->worker_store->list[i];
		const struct holder *h = holder_of(f, generation);

		/* What is on its way to it, it cannot mean. */
		if (f->index == index && streq(f->name, m->fd_name) && h && h->given)
			remove_from(s, i, generation);
	}
}

/* --- those who come after ---------------------------------------------------- */

int worker_store_list(struct manager_service *s, unsigned generation, unsigned index, int number,
	size_t room, struct spawn_fd *ret, char **ret_names)
{
	const struct worker_store *w = s->worker_store;
	_cleanup_free_ char *names = w && w->n > 0 ? malloc(WORKER_STORE_NAMES_MAX) : NULL;
	size_t len = 0;
	int n = 0;

	if (!w || w->n == 0)
		return 0;
	if (!names)
		return -ENOMEM;
	room = MIN(room, (size_t)WORKER_STORE_MAX);
	for (size_t i = 0; i < w->n; i++) {
		struct stored_fd *f = w->list[i];
		struct holder *h = f->index == index ? holder_of(f, generation) : NULL;
		size_t name_len = strlen(f->name);

		if (!h)
			continue;
		/* A process that is started anew has nothing yet. */
		h->given = (size_t)n < room && len + name_len + 2 <= WORKER_STORE_NAMES_MAX;
		s->worker_store->changed = true;
		if (!h->given)
			continue;
		names[len] = ':';
		memcpy(names + len + 1, f->name, name_len + 1);
		len += name_len + 1;
		ret[n] = (struct spawn_fd){f->fd, number + n};
		n++;
	}
	if (n > 0)
		*ret_names = TAKE_PTR(names);
	return n;
}

size_t worker_store_next(const struct manager_service *s, unsigned generation, unsigned index,
	int *fds, size_t max, const char **ret_name)
{
	const struct worker_store *w = s->worker_store;
	const char *name = NULL;
	size_t n = 0;

	for (size_t i = 0; w && i < w->n && n < max; i++) {
		struct stored_fd *f = w->list[i];
		const struct holder *h = f->index == index ? holder_of(f, generation) : NULL;

		if (!h || h->given || (name && !streq(name, f->name)))
			continue;
		name = f->name;
		fds[n++] = f->fd;
	}
	if (n > 0)
		*ret_name = name;
	return n;
}

void worker_store_given(
	struct manager_service *s, unsigned generation, unsigned index, const int *fds, size_t n)
{
	struct worker_store *w = s->worker_store;

	for (size_t i = 0; w && i < w->n; i++) {
		struct stored_fd *f = w->list[i];
		struct holder *h = f->index == index ? holder_of(f, generation) : NULL;

		for (size_t k = 0; h && k < n; k++)
			if (fds[k] == f->fd)
				h->given = true;
	}
	if (w)
		note(s);
}

void worker_store_begin(struct manager_service *s, unsigned generation)
{
	struct worker_store *w = s->worker_store;
	unsigned from = s->core.current;

	/* Nobody serves: the newest of those that are left. */
	for (size_t i = 0; from == 0 && i < s->n_generations; i++)
		if (s->generations[i]->number != generation)
			from = s->generations[i]->number;
	for (size_t i = 0; w && i < w->n; i++)
		if (holder_of(w->list[i], from))
			hold(w->list[i], generation, false);
	if (w)
		note(s);
}

static bool is_gone(const struct manager_service *s, unsigned generation, unsigned index)
{
	const struct generation *g = service_generation(&s->core, generation);

	if (generation == EVERYBODY)
		return false;
	if (!manager_service_generation(s, generation))
		return true;
	if (!g)
		return false;
	/* One that is just starting does not have all of its workers yet. */
	return index >= MAX(MAX(g->n_workers, g->wanted),
				g->state == GENERATION_STARTING ? g->policy.workers : 0);
}

/* What the one that was rolled back had is what the one that serves again has. */
static void go_back(struct manager_service *s, unsigned from, unsigned to)
{
	struct worker_store *w = s->worker_store;

	for (size_t i = 0; i < w->n; i++) {
		struct stored_fd *f = w->list[i];
		struct holder *h = holder_of(f, to);

		if (holder_of(f, from))
			hold(f, to, false);
		else if (h && h->given && !is_gone(s, from, f->index))
			let_go(f, h);
	}
	note(s);
	for (unsigned index = 0; index < CONFIG_WORKERS_MAX; index++) {
		struct worker_process *p = manager_service_worker(s, to, index);

		if (p)
			worker_channel_sync(p);
	}
}

void worker_store_tidy(struct manager_service *s)
{
	struct worker_store *w = s->worker_store;
	unsigned before, now = s->core.current;

	if (!w)
		return;
	before = w->current;
	w->current = now;
	if (now != 0 && now < before && manager_service_generation(s, before))
		go_back(s, before, now);
	for (size_t i = w->n; i-- > 0;) {
		struct stored_fd *f = w->list[i];

		for (size_t k = f->n_holders; k-- > 0;)
			if (is_gone(s, f->holders[k].generation, f->index)) {
				let_go(f, &f->holders[k]);
				note(s);
			}
		if (f->n_holders == 0)
			drop(s, i);
	}
}

void worker_store_clear(struct manager_service *s)
{
	while (s->worker_store && s->worker_store->n > 0)
		drop(s, s->worker_store->n - 1);
}

struct worker_store *worker_store_free(struct manager_service *s)
{
	struct worker_store *w = s->worker_store;

	if (!w)
		return NULL;
	for (size_t i = 0; i < w->n; i++)
		stored_free(w->list[i]);
	free(w->list);
	free(w->by_file);
	free(w);
	return NULL;
}

/* --- the next daemon ---------------------------------------------------------- */

bool worker_store_changed(const struct manager_service *s)
{
	return s->worker_store && s->worker_store->changed;
}

static json_t *save_holders(const struct stored_fd *f)
{
	json_t *list = json_array();

	for (size_t i = 0; i < f->n_holders; i++)
		(void)json_array_append_new(
			list, json_pack("[I, b]", (json_int_t)f->holders[i].generation,
				      f->holders[i].given));
	return list;
}

/* Of a daemon that knew no views: everybody's. */
static void load_holders(struct stored_fd *f, const json_t *list)
{
	const json_t *entry;
	size_t i;

	f->n_holders = 0;
	json_array_foreach (list, i, entry) {
		json_int_t generation = json_integer_value(json_array_get(entry, 0));

		if (generation > 0 && generation < UINT32_MAX)
			hold(f, (unsigned)generation, json_is_true(json_array_get(entry, 1)));
	}
	if (f->n_holders == 0)
		hold(f, EVERYBODY, true);
}

json_t *worker_store_save(struct manager_service *s)
{
	struct worker_store *w = s->worker_store;
	json_t *list = json_array();

	for (size_t i = 0; i < w->n; i++)
		(void)json_array_append_new(list,
			json_pack("{s:I, s:o, s:s, s:b, s:I}", "worker",
				(json_int_t)w->list[i]->index, "held", save_holders(w->list[i]),
				"name", w->list[i]->name, "poll", w->list[i]->poll, "number",
				(json_int_t)store_number(s->manager->store, w->list[i]->fd)));
	w->changed = false;
	return json_pack("{s:o?, s:I}", "list", list, "current", (json_int_t)w->current);
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
	s->worker_store->current = state_get_unsigned(value, "current");
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
		load_holders(s->worker_store->list[s->worker_store->n - 1],
			json_object_get(entry, "held"));
	}
	return 0;
}

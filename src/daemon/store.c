/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptors; store_state.c has the records. */
#include "daemon/store_internal.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/parse.h"
#include "daemon/log.h"
#include "daemon/unit_job.h"

/* Places that are left for listeners. */
enum { RESERVED_MAX = 512 };
/* Below the limit of open files: standard streams, and sockets of socket units. */
enum { NOFILE_SPARE = 32 };
/* Numbers begin again after that many; by then the first ones are long gone. */
enum { NUMBER_MAX = 36 * 36 * 36 * 36 * 36 - 1 };
/* LISTEN_FDNAMES: seven characters and a colon of each, and some room for socket units'. */
_Static_assert(STORE_MAX * 8 + 3 * 1024 <= 128 * 1024, "systemd could not execute the next one");

/* All of enum stored; what is not here is nobody's when it comes back. */
static const char kinds[] = "lipnodecskwrh";

void store_format_name(enum stored kind, unsigned number, char ret[static STORE_NAME_MAX])
{
	char digits[8];
	size_t n = 0;

	do
		digits[n++] = "0123456789abcdefghijklmnopqrstuvwxyz"[number % 36];
	while ((number /= 36) > 0);
	*ret++ = '_';
	*ret++ = (char)kind;
	while (n > 0)
		*ret++ = digits[--n];
	*ret = '\0';
}

static bool parse_name(const char *name, enum stored *ret_kind, unsigned *ret_number)
{
	char *end;
	unsigned long number;
	char back[STORE_NAME_MAX];

	if (name[0] != '_' || !name[1] || !strchr(kinds, name[1]) || strlen(name) > 7)
		return false;
	number = strtoul(name + 2, &end, 36);
	if (*end || number == 0 || number > NUMBER_MAX)
		return false;
	*ret_kind = (enum stored)name[1];
	*ret_number = (unsigned)number;
	store_format_name(*ret_kind, *ret_number, back);
	return streq(back, name);
}

static int compare_received(const void *a, const void *b)
{
	const struct store_received *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

static int take_received(struct store *s, struct activation *received)
{
	size_t n = 0;

	s->received = calloc(received->n + 1, sizeof(*s->received));
	if (!s->received)
		return -ENOMEM;
	for (size_t i = 0; i < received->n; i++) {
		struct activation_socket *a = &received->sockets[i];
		struct store_received item;

		if (a->fd < 0 || !a->name || !parse_name(a->name, &item.kind, &item.number)) {
			received->sockets[n++] = *a;
			continue;
		}
		item.fd = TAKE_FD(a->fd);
		item.taken = false;
		s->received[s->n_received++] = item;
		s->last_number = MAX(s->last_number, item.number);
		free(a->name);
	}
	received->n = n;
	s->n_stored = (unsigned)s->n_received;
	qsort(s->received, s->n_received, sizeof(*s->received), compare_received);
	return 0;
}

/* Whoever has no room says nothing: it is good to know before. */
static unsigned store_max(void)
{
	const char *text = getenv("FDSTORE"); /* newer systemd says how many */
	unsigned n;

	if (text && parse_uint(text, 0, UINT32_MAX, &n) >= 0)
		return MIN(n, (unsigned)STORE_MAX);
	if (unit_is_main_process() && unit_store_max(&n) >= 0)
		return MIN(n, (unsigned)STORE_MAX);
	return STORE_MAX;
}

static int store_alloc(struct activation *received, struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->keeper = FDSTORE_NULL;
	s->state_fd = -1;
	s->max = store_max();
	s->max_setting = "FileDescriptorStoreMax";
	s->records = json_object();
	r = s->records ? take_received(s, received) : -ENOMEM;
	if (r < 0) {
		store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int store_new(struct activation *received, struct store **ret)
{
	struct store *s = NULL;
	int r = store_alloc(received, &s);

	*ret = NULL;
	if (r < 0)
		return r;
	r = fdstore_open(&s->keeper);
	if (r < 0)
		log_warning("the keeper named by NOTIFY_SOCKET cannot be reached (%s): nothing "
			    "survives if this process is killed",
			strerror(-r));
	if (s->keeper.fd < 0 && s->n_received == 0) {
		store_free(s);
		return 0;
	}
	*ret = s;
	return 0;
}

void store_limit_nofile(struct store *s, uint64_t soft_nofile)
{
	uint64_t max = soft_nofile > NOFILE_SPARE ? soft_nofile - NOFILE_SPARE : 0;

	if (!s || max >= s->max)
		return;
	s->max = (unsigned)max;
	s->max_setting = "LimitNOFILE";
}

struct store *store_free(struct store *s)
{
	if (!s)
		return NULL;
	store_end_keeper(s);
	for (size_t i = 0; i < s->n_received; i++)
		close_fd(s->received[i].fd);
	free(s->received);
	free(s->by_fd);
	free(s->removals);
	close_fd(s->state_fd);
	json_decref(s->records);
	buffer_done(&s->pending);
	free(s);
	return NULL;
}

bool store_is_empty(const struct store *s)
{
	return !s || s->n_received == 0;
}

bool store_is_kept(const struct store *s)
{
	return s && (s->keeper.fd >= 0 || s->exec);
}

/* --- which is which ------------------------------------------------------- */

static int remember(struct store *s, int fd, enum stored kind, unsigned number)
{
	size_t before = s->by_fd_capacity;
	int r;

	r = array_reserve(&s->by_fd, &s->by_fd_capacity, (size_t)fd + 1, sizeof(*s->by_fd));
	if (r < 0)
		return r;
	if (s->by_fd_capacity > before)
		memset(s->by_fd + before, 0, (s->by_fd_capacity - before) * sizeof(*s->by_fd));
	s->by_fd[fd] = (struct store_entry){.kind = kind, .number = number};
	return 0;
}

unsigned store_number(const struct store *s, int fd)
{
	return s && fd >= 0 && (size_t)fd < s->by_fd_capacity ? s->by_fd[fd].number : 0;
}

/* Without these a client would notice; of all else there is a way back. */
static bool is_needed(enum stored kind)
{
	return kind == STORED_LISTENER || kind == STORED_INHERITED || kind == STORED_STATE ||
	       kind == STORED_CONTROL;
}

static void report_full(struct store *s)
{
	if (!s->full && s->max == 0)
		log_error("the keeper keeps nothing (%s= in its unit is too small): the listening "
			  "sockets are gone, and workers are ended, if this process is killed",
			s->max_setting);
	else if (!s->full)
		log_error("the keeper's store is full (%u descriptors, and some room for sockets; "
			  "in a unit, %s= may be larger): what is made from now on does not "
			  "survive if this process is killed",
			s->n_stored, s->max_setting);
	s->full = true;
}

unsigned store_add(struct store *s, enum stored kind, int fd)
{
	unsigned reserved;
	int r;

	if (!store_is_kept(s) || fd < 0)
		return 0;
	if (s->keeper.fd < 0)
		return store_lend(s, kind, fd);
	reserved = is_needed(kind) ? 0 : MIN((unsigned)RESERVED_MAX, s->max / 2);
	if (s->n_stored >= s->max - reserved) {
		report_full(s);
		return 0;
	}
	s->last_number = s->last_number % NUMBER_MAX + 1;
	r = remember(s, fd, kind, s->last_number);
	if (r >= 0)
		r = store_push(s, fd);
	if (r < 0) {
		if ((size_t)fd < s->by_fd_capacity)
			s->by_fd[fd].number = 0;
		store_keeper_failed(s, r);
		return 0;
	}
	s->n_stored++;
	return s->last_number;
}

static void forget(struct store *s, struct store_entry *e)
{
	if (e->unsent) {
		s->n_unsent--;
	} else {
		int r = store_push_removal(s, e->kind, e->number);

		if (r < 0)
			store_keeper_failed(s, r);
	}
	if (s->n_stored > 0)
		s->n_stored--;
	s->full = false;
	*e = (struct store_entry){.number = 0};
}

void store_drop_number(struct store *s, enum stored kind, unsigned number)
{
	struct store_entry other = {.kind = kind, .number = number};

	if (!s || s->keeper.fd < 0 || number == 0)
		return;
	/* Whoever has that descriptor's number later is another. */
	for (size_t fd = 0; fd < s->by_fd_capacity; fd++)
		if (s->by_fd[fd].number == number && s->by_fd[fd].kind == kind) {
			forget(s, &s->by_fd[fd]);
			return;
		}
	forget(s, &other);
}

void store_drop(struct store *s, int fd)
{
	if (store_number(s, fd) == 0)
		return;
	if (s->keeper.fd >= 0)
		forget(s, &s->by_fd[fd]);
	else
		s->by_fd[fd].number = 0;
}

/* --- what an earlier daemon stored ---------------------------------------- */

/* The first of that number; they are sorted. */
static size_t find_received(const struct store *s, unsigned number)
{
	size_t first = 0, last = s->n_received;

	while (first < last) {
		size_t middle = first + (last - first) / 2;

		if (s->received[middle].number < number)
			first = middle + 1;
		else
			last = middle;
	}
	return first;
}

int store_take(struct store *s, enum stored kind, unsigned number)
{
	for (size_t i = s ? find_received(s, number) : 0;
		s && number > 0 && i < s->n_received && s->received[i].number == number; i++) {
		struct store_received *item = &s->received[i];
		int fd;

		if (item->taken || item->kind != kind)
			continue;
		fd = fcntl(item->fd, F_DUPFD_CLOEXEC, 3);
		if (fd < 0)
			return -1;
		item->taken = true;
		(void)remember(s, fd, kind, number);
		return fd;
	}
	return -1;
}

int store_take_any(struct store *s, enum stored kind, unsigned *ret_number)
{
	for (size_t i = 0; s && i < s->n_received; i++)
		if (!s->received[i].taken && s->received[i].kind == kind) {
			*ret_number = s->received[i].number;
			return store_take(s, kind, *ret_number);
		}
	return -1;
}

void store_take_back(struct store *s)
{
	for (size_t i = 0; s && i < s->n_received; i++)
		s->received[i].taken = false;
	if (s && s->by_fd)
		memset(s->by_fd, 0, s->by_fd_capacity * sizeof(*s->by_fd));
}

unsigned store_discard_rest(struct store *s)
{
	unsigned n = 0;

	for (size_t i = 0; s && i < s->n_received; i++) {
		struct store_received *item = &s->received[i];

		if (!item->taken) {
			store_drop_number(s, item->kind, item->number);
			n++;
		}
		close_fd(item->fd);
	}
	if (s)
		s->n_received = 0;
	return n;
}

/* --- over an exec --------------------------------------------------------- */

int store_begin_exec(struct store **s)
{
	struct activation nothing = {.sockets = NULL};
	int r = 0;

	if (!*s)
		r = store_alloc(&nothing, s);
	if (r < 0)
		return r;
	if (store_is_kept(*s)) {
		/* The next image does not know what has not been told. */
		store_end_backlog(*s);
		return 0;
	}
	/* What an earlier image wrote has not been kept up since. */
	store_give_up_state(*s);
	(*s)->exec = true;
	return 1;
}

void store_end_exec(struct store *s)
{
	if (s)
		s->exec = false;
}

unsigned store_lend(struct store *s, enum stored kind, int fd)
{
	unsigned number = s->last_number % NUMBER_MAX + 1;

	if (fd < 0 || remember(s, fd, kind, number) < 0)
		return 0;
	return s->last_number = number;
}

void store_unlend(struct store *s, int fd)
{
	if (store_number(s, fd) > 0)
		s->by_fd[fd].number = 0;
}

enum stored store_kind(const struct store *s, int fd)
{
	return s->by_fd[fd].kind;
}

int store_list(const struct store *s, struct reexec_fd **ret, size_t *ret_n, char **ret_names)
{
	_cleanup_free_ struct reexec_fd *list = calloc(s->by_fd_capacity + 1, sizeof(*list));
	_cleanup_free_ char *names = calloc(s->by_fd_capacity + 1, STORE_NAME_MAX);
	size_t n = 0;

	if (!list || !names)
		return -ENOMEM;
	for (size_t fd = 0; fd < s->by_fd_capacity; fd++) {
		char *name = names + n * STORE_NAME_MAX;

		/* Of some that were dropped by number only it is not known that they are closed. */
		if (s->by_fd[fd].number == 0 || fcntl((int)fd, F_GETFD) < 0)
			continue;
		store_format_name(s->by_fd[fd].kind, s->by_fd[fd].number, name);
		list[n++] = (struct reexec_fd){.fd = (int)fd, .name = name};
	}
	*ret = TAKE_PTR(list);
	*ret_names = TAKE_PTR(names);
	*ret_n = n;
	return 0;
}

void store_figures(const struct store *s, struct store_figures *ret)
{
	*ret = (struct store_figures){0};
	if (s) {
		*ret = s->figures;
		ret->n_stored = s->n_stored;
	}
}

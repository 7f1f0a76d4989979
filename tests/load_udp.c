/* SPDX-License-Identifier: Apache-2.0 */
/* UDP load in which nothing gets lost unseen: each of many sockets numbers its datagrams, waits for
 * the echo of every one, and never has more under way than its window. So a full receive buffer
 * cannot be the cause when one is missing. The test worker's echo says which generation and worker
 * answered; with --dns the datagrams are questions to a name server, answered by id. */
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define LIVE_EVERY_USEC (20 * TOOL_USEC_PER_MSEC)
#define DATAGRAM_MAX 2048

enum {
	EXIT_CLEAN = 0,
	EXIT_FAILURES = 1,
	EXIT_USAGE = 2,
	WINDOW_MAX = 256,
	SOCKETS_MAX = 4096,
	/* Numbers that are remembered of each socket, to tell a late answer from a second one. */
	REMEMBERED = 4096,
	N_TALLY = 4096,
};

struct options {
	struct tool_address target;
	struct tool_address *sources;
	size_t n_sources;
	uint64_t n_sockets, window, max_requests, size;
	double rate; /* per second, all sockets together; 0: as fast as answers come */
	uint64_t duration_usec, timeout_usec;
	const char *live_path, *failures_path, *dns_name;
};

enum state { UNUSED, UNDER_WAY, ANSWERED, LOST };

struct sent {
	uint64_t number;
	uint64_t usec;
	enum state state;
};

struct client {
	int fd;
	uint64_t next;	  /* number of the next datagram */
	uint64_t oldest;  /* of those that may be under way */
	uint64_t highest; /* number answered, + 1 */
	uint64_t n_under_way;
	struct sent *sent; /* by number % REMEMBERED */
};

struct tally {
	uint64_t key, count, first_usec, last_usec;
};

struct load {
	struct options options;
	struct client *clients;
	int epoll_fd;
	uint64_t start_usec, n_sent, n_ok, n_late, n_duplicate, n_reordered, n_held_back;
	uint64_t n_lost, n_refused, n_bad, n_under_way;
	uint64_t last_ok_usec, gap_usec, latency_max_usec, latency_sum_usec;
	struct tally generations[N_TALLY], workers[N_TALLY], pids[N_TALLY];
	FILE *failures_to;
	size_t next_client;
	bool stopping;
};

static void usage(FILE *file)
{
	fprintf(file,
		"Usage: load_udp [OPTIONS] TARGET\n"
		"Sends numbered datagrams to TARGET and prints what became of them as JSON.\n\n"
		"  --sockets N       from N sockets (16)\n"
		"  --source A        ... bound to these addresses in turn\n"
		"  --window N        at most N under way on each (4)\n"
		"  --rate R          R datagrams a second in all; default: as answers come\n"
		"  --size N          bytes of each (64)\n"
		"  --duration TIME   stop after TIME; default: when SIGINT or SIGTERM says so\n"
		"  --requests N      stop after N datagrams\n"
		"  --timeout TIME    one that is not answered by then is lost (5s)\n"
		"  --dns NAME        ask for the IPv4 address of NAME\n"
		"  --live FILE       keep FILE up to date with what was counted so far\n"
		"  --failures-to FILE one line for each failure\n\n"
		"Exit status: 0 no failure, 1 failures, 2 usage or no memory.\n");
}

/* ---- counting ---- */

static void tally_add(struct tally *tally, uint64_t key, uint64_t now_usec)
{
	for (size_t i = 0, at = (key * 0x9E3779B97F4A7C15U) >> 52; i < N_TALLY; i++) {
		struct tally *t = &tally[(at + i) % N_TALLY];

		if (t->count > 0 && t->key != key)
			continue;
		if (t->count == 0)
			t->first_usec = now_usec;
		t->key = key;
		t->count++;
		t->last_usec = now_usec;
		return;
	}
}

static void tally_print(const struct tally *tally, const char *name, bool times, FILE *file)
{
	const char *comma = "";

	fprintf(file, ", \"%s\": {", name);
	for (size_t i = 0; i < N_TALLY; i++) {
		if (tally[i].count == 0)
			continue;
		fprintf(file, "%s\"%" PRIu64 "\": ", comma, tally[i].key);
		if (times)
			fprintf(file, "{\"first_usec\": %" PRIu64 ", \"last_usec\": %" PRIu64 "}",
				tally[i].first_usec, tally[i].last_usec);
		else
			fprintf(file, "%" PRIu64, tally[i].count);
		comma = ", ";
	}
	fprintf(file, "}");
}

static uint64_t n_failed(const struct load *load)
{
	return load->n_lost + load->n_refused + load->n_bad + load->n_duplicate;
}

static void failure(struct load *load, const char *what, const struct client *c, uint64_t number)
{
	if (load->failures_to)
		fprintf(load->failures_to, "%" PRIu64 " %s socket %zu number %" PRIu64 "\n",
			tool_now_usec(), what, (size_t)(c - load->clients), number);
}

static void print(const struct load *load, FILE *file)
{
	fprintf(file,
		"{\"requests\": %" PRIu64 ", \"ok\": %" PRIu64 ", \"failed\": %" PRIu64
		", \"failures\": {\"lost\": %" PRIu64 ", \"refused\": %" PRIu64
		", \"bad\": %" PRIu64 ", \"duplicate\": %" PRIu64 "}, \"late\": %" PRIu64
		", \"reordered\": %" PRIu64 ", \"held_back\": %" PRIu64
		", \"not_started\": 0, \"largest_gap_usec\": %" PRIu64
		", \"duration_usec\": %" PRIu64 ", \"latency_mean_usec\": %" PRIu64
		", \"latency_max_usec\": %" PRIu64,
		load->n_sent, load->n_ok, n_failed(load), load->n_lost, load->n_refused,
		load->n_bad, load->n_duplicate, load->n_late, load->n_reordered, load->n_held_back,
		load->gap_usec, tool_now_usec() - load->start_usec,
		load->n_ok > 0 ? load->latency_sum_usec / load->n_ok : 0, load->latency_max_usec);
	tally_print(load->generations, "generations", false, file);
	tally_print(load->generations, "generation_times", true, file);
	tally_print(load->workers, "workers", false, file);
	tally_print(load->pids, "pids", false, file);
	fprintf(file, "}\n");
}

static void print_live(const struct load *load)
{
	char path[4096];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s.new", load->options.live_path);
	file = fopen(path, "we");
	if (!file)
		tool_die(EXIT_USAGE, "%s: %s", path, strerror(errno));
	print(load, file);
	fclose(file);
	if (rename(path, load->options.live_path) < 0)
		tool_die(EXIT_USAGE, "%s: %s", load->options.live_path, strerror(errno));
}

/* ---- datagrams ---- */

/* A question for the name's A record, with the number's low bits as its id. */
static size_t make_question(const char *name, uint64_t number, unsigned char *out)
{
	static const unsigned char tail[] = {0, 0, 1, 0, 1};
	size_t n = 12;

	memset(out, 0, n);
	out[0] = (unsigned char)(number >> 8);
	out[1] = (unsigned char)number;
	out[2] = 1; /* recursion desired */
	out[5] = 1;
	while (*name) {
		size_t len = strcspn(name, ".");

		if (len == 0 || len > 63 || n + len + 16 > DATAGRAM_MAX)
			tool_die(EXIT_USAGE, "--dns: not a name");
		out[n++] = (unsigned char)len;
		memcpy(out + n, name, len);
		n += len;
		name += len + (name[len] == '.');
	}
	memcpy(out + n, tail, sizeof(tail));
	return n + sizeof(tail);
}

static size_t make_datagram(
	const struct load *load, const struct client *c, uint64_t number, char *out)
{
	const struct options *o = &load->options;
	int n;

	if (o->dns_name)
		return make_question(o->dns_name, number, (unsigned char *)out);
	memset(out, '.', DATAGRAM_MAX);
	n = snprintf(out, DATAGRAM_MAX, "%zu %" PRIu64 " ", (size_t)(c - load->clients), number);
	return (size_t)n > o->size ? (size_t)n : o->size;
}

/* The number that an answer is for: the newest one with that id that was sent. */
static bool read_answer(const struct client *c, const unsigned char *in, size_t n, uint64_t *ret)
{
	uint64_t id;

	if (n < 12 || !(in[2] & 0x80) || (in[3] & 0x0f) != 0 || (in[6] | in[7]) == 0)
		return false;
	id = (uint64_t)in[0] << 8 | in[1];
	*ret = (c->next & ~UINT64_C(0xffff)) | id;
	if (*ret >= c->next)
		*ret -= 0x10000;
	return *ret < c->next;
}

/* "GENERATION WORKER PID SOCKET NUMBER ...": the test worker's echo. */
static bool read_echo(struct load *load, const struct client *c, char *in, uint64_t *ret)
{
	uint64_t generation, worker, pid, socket, now_usec = tool_now_usec();

	if (sscanf(in, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &generation,
		    &worker, &pid, &socket, ret) != 5 ||
		socket != (uint64_t)(c - load->clients) || *ret >= c->next)
		return false;
	tally_add(load->generations, generation, now_usec);
	tally_add(load->workers, worker, now_usec);
	tally_add(load->pids, pid, now_usec);
	return true;
}

static void answered(struct load *load, struct client *c, uint64_t number)
{
	struct sent *s = &c->sent[number % REMEMBERED];
	uint64_t now_usec = tool_now_usec(), usec;

	if (s->number != number || s->state == ANSWERED) {
		load->n_duplicate++;
		failure(load, "duplicate", c, number);
		return;
	}
	if (s->state == LOST) {
		/* Counted as lost, and that it stays: nobody waited so long. */
		load->n_late++;
		s->state = ANSWERED;
		return;
	}
	usec = now_usec - s->usec;
	load->latency_sum_usec += usec;
	if (usec > load->latency_max_usec)
		load->latency_max_usec = usec;
	if (number + 1 < c->highest)
		load->n_reordered++;
	else
		c->highest = number + 1;
	if (load->last_ok_usec && now_usec - load->last_ok_usec > load->gap_usec)
		load->gap_usec = now_usec - load->last_ok_usec;
	load->last_ok_usec = now_usec;
	load->n_ok++;
	s->state = ANSWERED;
	c->n_under_way--;
	load->n_under_way--;
}

static void receive(struct load *load, struct client *c)
{
	char in[DATAGRAM_MAX + 1];
	ssize_t n;

	for (;;) {
		uint64_t number = 0;
		bool good;

		n = recv(c->fd, in, DATAGRAM_MAX, MSG_DONTWAIT);
		if (n < 0 && errno == ECONNREFUSED) {
			load->n_refused++;
			failure(load, "refused", c, c->next);
			continue;
		}
		if (n < 0)
			return;
		in[n] = '\0';
		good = load->options.dns_name
			       ? read_answer(c, (unsigned char *)in, (size_t)n, &number)
			       : read_echo(load, c, in, &number);
		if (good) {
			answered(load, c, number);
		} else {
			load->n_bad++;
			failure(load, "bad", c, c->next);
		}
	}
}

/* False: not now. */
static bool send_one(struct load *load, struct client *c)
{
	char out[DATAGRAM_MAX];
	uint64_t number = c->next;
	size_t n;

	if (c->n_under_way >= load->options.window || c->next - c->oldest >= REMEMBERED)
		return false;
	n = make_datagram(load, c, number, out);
	c->sent[number % REMEMBERED] =
		(struct sent){.number = number, .usec = tool_now_usec(), .state = UNDER_WAY};
	c->next++;
	c->n_under_way++;
	load->n_under_way++;
	load->n_sent++;
	if (send(c->fd, out, n, MSG_DONTWAIT) >= 0)
		return true;
	/* What was refused is the one before; this one was not sent. */
	c->next--;
	c->n_under_way--;
	load->n_under_way--;
	load->n_sent--;
	c->sent[number % REMEMBERED].state = UNUSED;
	if (errno == ECONNREFUSED) {
		load->n_refused++;
		failure(load, "refused", c, number);
	} else if (errno != EAGAIN && errno != ENOBUFS) {
		tool_die(EXIT_USAGE, "send: %s", strerror(errno));
	}
	return false;
}

static void give_up_old(struct load *load, uint64_t now_usec)
{
	for (size_t i = 0; i < load->options.n_sockets; i++) {
		struct client *c = &load->clients[i];

		for (; c->oldest < c->next; c->oldest++) {
			struct sent *s = &c->sent[c->oldest % REMEMBERED];

			if (s->state != UNDER_WAY)
				continue;
			if (now_usec - s->usec < load->options.timeout_usec)
				break;
			s->state = LOST;
			load->n_lost++;
			failure(load, "lost", c, c->oldest);
			c->n_under_way--;
			load->n_under_way--;
		}
	}
}

/* ---- the loop ---- */

static bool is_enough(const struct load *load)
{
	return load->options.max_requests > 0 && load->n_sent >= load->options.max_requests;
}

/* In a closed loop every window is filled; else what is due by now is sent, by one socket after the
 * other. */
static void send_due(struct load *load, uint64_t now_usec)
{
	const struct options *o = &load->options;
	uint64_t due = UINT64_MAX;
	size_t n_full = 0;

	if (load->stopping)
		return;
	if (o->rate > 0)
		due = (uint64_t)((double)(now_usec - load->start_usec) * o->rate / 1e6);
	while (n_full < o->n_sockets && load->n_sent + load->n_held_back < due &&
		!is_enough(load)) {
		struct client *c = &load->clients[load->next_client];

		load->next_client = (load->next_client + 1) % o->n_sockets;
		n_full = send_one(load, c) ? 0 : n_full + 1;
	}
	/* A server that was late is not to be met by a burst. */
	if (o->rate > 0 && !is_enough(load) && load->n_sent + load->n_held_back < due)
		load->n_held_back = due - load->n_sent;
}

static void wait_for_answers(struct load *load, int signal_fd)
{
	struct timespec ts = {.tv_nsec = load->options.rate > 0 ? 1000000 : 5000000};
	struct epoll_event events[256];
	int n = epoll_pwait2(load->epoll_fd, events, ELEMENTS(events), &ts, NULL);

	if (n < 0 && errno != EINTR)
		tool_die(EXIT_USAGE, "epoll_pwait2: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		struct signalfd_siginfo info;

		if (events[i].data.ptr)
			receive(load, events[i].data.ptr);
		else if (read(signal_fd, &info, sizeof(info)) > 0)
			load->stopping = true;
	}
}

static void run(struct load *load, int signal_fd)
{
	const struct options *o = &load->options;
	uint64_t live_usec = 0, look_usec = 0;

	load->start_usec = tool_now_usec();
	for (;;) {
		uint64_t now_usec = tool_now_usec();

		if (is_enough(load) ||
			(o->duration_usec > 0 && now_usec - load->start_usec >= o->duration_usec))
			load->stopping = true;
		if (now_usec >= look_usec) {
			give_up_old(load, now_usec);
			look_usec = now_usec + 10 * TOOL_USEC_PER_MSEC;
		}
		if (load->stopping && load->n_under_way == 0)
			return;
		if (o->live_path && now_usec >= live_usec) {
			print_live(load);
			live_usec = now_usec + LIVE_EVERY_USEC;
		}
		send_due(load, now_usec);
		wait_for_answers(load, signal_fd);
	}
}

/* A second answer to the last one would come now. */
static void wait_for_duplicates(struct load *load)
{
	struct timespec ts = {.tv_nsec = 50000000};

	(void)nanosleep(&ts, NULL);
	for (size_t i = 0; i < load->options.n_sockets; i++)
		receive(load, &load->clients[i]);
}

static void open_clients(struct load *load)
{
	const struct options *o = &load->options;

	load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	load->clients = tool_allocate(o->n_sockets, sizeof(*load->clients));
	memset(load->clients, 0, o->n_sockets * sizeof(*load->clients));
	for (size_t i = 0; i < o->n_sockets; i++) {
		struct client *c = &load->clients[i];
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
		const struct tool_address *from =
			o->n_sources > 0 ? &o->sources[i % o->n_sources] : NULL;

		c->sent = tool_allocate(REMEMBERED, sizeof(*c->sent));
		memset(c->sent, 0, REMEMBERED * sizeof(*c->sent));
		c->fd = socket(o->target.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (c->fd < 0 ||
			(from && bind(c->fd, (const struct sockaddr *)&from->storage, from->len) <
					 0) ||
			connect(c->fd, (const struct sockaddr *)&o->target.storage, o->target.len) <
				0 ||
			epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
			tool_die(EXIT_USAGE, "socket %zu: %s", i, strerror(errno));
	}
}

static int watch_signals(int epoll_fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
	sigset_t mask;
	int fd;

	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	fd = sigprocmask(SIG_BLOCK, &mask, NULL) < 0
		     ? -1
		     : signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		tool_die(EXIT_USAGE, "cannot start: %s", strerror(errno));
	return fd;
}

/* ---- options ---- */

static uint64_t parse_time(const char *name, const char *text)
{
	uint64_t value;

	if (tool_parse_usec(text, TOOL_USEC_PER_SEC, &value) < 0)
		tool_die(EXIT_USAGE, "--%s: '%s' is not a time", name, text);
	return value;
}

static uint64_t parse_count(const char *name, const char *text, uint64_t min, uint64_t max)
{
	uint64_t value;

	if (tool_parse_unsigned(text, max, &value) < 0 || value < min)
		tool_die(EXIT_USAGE, "--%s: '%s' is not a number from %" PRIu64 " to %" PRIu64,
			name, text, min, max);
	return value;
}

static void add_source(struct options *o, const char *text)
{
	o->sources = tool_reallocate(o->sources, o->n_sources + 1, sizeof(*o->sources));
	if (tool_parse_host(text, &o->sources[o->n_sources++]) < 0)
		tool_die(EXIT_USAGE, "--source: '%s' is not an address", text);
}

static void set_option(struct options *o, int key, const char *name)
{
	switch (key) {
	case 's':
		o->n_sockets = parse_count(name, optarg, 1, SOCKETS_MAX);
		break;
	case 'S':
		add_source(o, optarg);
		break;
	case 'w':
		o->window = parse_count(name, optarg, 1, WINDOW_MAX);
		break;
	case 'r':
		o->rate = (double)parse_count(name, optarg, 1, 10000000);
		break;
	case 'z':
		o->size = parse_count(name, optarg, 1, DATAGRAM_MAX - 256);
		break;
	case 'd':
		o->duration_usec = parse_time(name, optarg);
		break;
	case 'n':
		o->max_requests = parse_count(name, optarg, 1, UINT64_MAX / 2);
		break;
	case 't':
		o->timeout_usec = parse_time(name, optarg);
		break;
	case 'D':
		o->dns_name = optarg;
		break;
	case 'l':
		o->live_path = optarg;
		break;
	case 'f':
		o->failures_path = optarg;
		break;
	case 'h':
		usage(stdout);
		exit(0);
	default:
		usage(stderr);
		exit(EXIT_USAGE);
	}
}

static void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{"sockets",	    required_argument, NULL, 's'},
		{"source",		   required_argument, NULL, 'S'},
		{"window",		   required_argument, NULL, 'w'},
		{"rate",required_argument, NULL, 'r'},
		{"size",		 required_argument, NULL, 'z'},
		{"duration",	     required_argument, NULL, 'd'},
		{"requests",		     required_argument, NULL, 'n'},
		{"timeout",		    required_argument, NULL, 't'},
		{"dns",		required_argument, NULL, 'D'},
		{"live",		 required_argument, NULL, 'l'},
		{"failures-to",		required_argument, NULL, 'f'},
		{"help",		 no_argument, NULL, 'h'},
		{0		  },
	};
	int key, index = 0;

	*o = (struct options){
		.n_sockets = 16, .window = 4, .size = 64, .timeout_usec = 5 * TOOL_USEC_PER_SEC};
	while ((key = getopt_long(argc, argv, "h", options, &index)) >= 0)
		set_option(o, key, options[index].name);
	if (optind + 1 != argc) {
		usage(stderr);
		exit(EXIT_USAGE);
	}
	if (tool_parse_address(argv[optind], &o->target) < 0)
		tool_die(EXIT_USAGE, "'%s' is not an address", argv[optind]);
}

int main(int argc, char **argv)
{
	static struct load load = {.epoll_fd = -1};
	int signal_fd;

	parse_options(&load.options, argc, argv);
	if (load.options.failures_path) {
		load.failures_to = fopen(load.options.failures_path, "we");
		if (!load.failures_to)
			tool_die(EXIT_USAGE, "%s: %s", load.options.failures_path, strerror(errno));
	}
	open_clients(&load);
	signal_fd = watch_signals(load.epoll_fd);
	run(&load, signal_fd);
	wait_for_duplicates(&load);
	if (load.options.live_path)
		print_live(&load);
	print(&load, stdout);
	for (size_t i = 0; i < load.options.n_sockets; i++) {
		close(load.clients[i].fd);
		free(load.clients[i].sent);
	}
	free(load.clients);
	free(load.options.sources);
	if (load.failures_to)
		fclose(load.failures_to);
	close(signal_fd);
	close(load.epoll_fd);
	return n_failed(&load) > 0 ? EXIT_FAILURES : EXIT_CLEAN;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define LIVE_EVERY_USEC (20 * TOOL_USEC_PER_MSEC)
#define N_EVENTS 256

enum {
	EXIT_CLEAN = 0,
	EXIT_FAILURES = 1,
	EXIT_USAGE = 2,
};

static void usage(FILE *file)
{
	fprintf(file,
		"Usage: load [OPTIONS] TARGET\n"
		"Puts HTTP load on TARGET and prints what became of it as JSON. TARGET is PORT, "
		"HOST:PORT,\n"
		"[HOST]:PORT, unix:PATH or unix:@NAME.\n\n"
		"  --clients N       at most N requests at a time (8; open loop 1024)\n"
		"  --rate R          open loop: R requests per second, latency from when each was "
		"due\n"
		"  --duration TIME   stop after TIME; default: when SIGINT or SIGTERM says so\n"
		"  --requests N      stop after N requests\n"
		"  --keepalive       keep connections; --requests-per-connection N ends them after "
		"N\n"
		"  --path PATH       request PATH (/); several take turns\n"
		"  --host NAME       the Host field (localhost)\n"
		"  --think TIME      pause between the requests of a client\n"
		"  --send-delay TIME pause between connect and request\n"
		"  --timeout TIME    a request that takes longer failed (5s)\n"
		"  --expect STATUS   the only good status (any 2xx)\n"
		"  --source A[-B][,C] connect from these addresses in turn\n"
		"  --sources N       connect from N addresses, from the first --source or "
		"127.0.1.1 on\n"
		"  --linger0         close with a reset\n"
		"  --interval TIME   a line of progress on stderr every TIME\n"
		"  --live FILE       keep FILE up to date with what was counted so far\n"
		"  --failures-to FILE one line for each failure\n\n"
		"Exit status: 0 no failure, 1 failures, 2 usage or no memory.\n");
}

static uint64_t parse_time(const char *name, const char *text)
{
	uint64_t value;

	if (tool_parse_usec(text, TOOL_USEC_PER_SEC, &value) < 0)
		tool_die(EXIT_USAGE, "--%s: '%s' is not a time, such as 250ms or 10s", name, text);
	return value;
}

static uint64_t parse_count(const char *name, const char *text, uint64_t max)
{
	uint64_t value;

	if (tool_parse_unsigned(text, max, &value) < 0)
		tool_die(EXIT_USAGE, "--%s: '%s' is not a number up to %ju", name, text,
			(uintmax_t)max);
	return value;
}

/* ---- sources ---- */

static void add_source(struct load_options *options, const struct tool_address *source)
{
	options->sources = tool_reallocate(
		options->sources, options->n_sources + 1, sizeof(*options->sources));
	options->sources[options->n_sources++] = *source;
}

/* The IPv4 addresses from `first` on, n of them. */
static void add_range(struct load_options *options, const struct tool_address *first, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		struct tool_address source = *first;
		struct sockaddr_in *in = (struct sockaddr_in *)&source.storage;

		in->sin_addr.s_addr = htonl(ntohl(in->sin_addr.s_addr) + (uint32_t)i);
		add_source(options, &source);
	}
}

static void parse_sources(struct load_options *options, const char *list)
{
	char *copy = strdup(list), *save = NULL;

	for (char *item = copy ? strtok_r(copy, ",", &save) : NULL; item;
		item = strtok_r(NULL, ",", &save)) {
		char *dash = strchr(item, '-');
		struct tool_address first, last;

		if (dash)
			*dash = '\0';
		if (tool_parse_host(item, &first) < 0 ||
			(dash && tool_parse_host(dash + 1, &last) < 0))
			tool_die(EXIT_USAGE, "--source: '%s' is not an address", list);
		if (!dash) {
			add_source(options, &first);
			continue;
		}
		uint32_t from = ntohl(((struct sockaddr_in *)&first.storage)->sin_addr.s_addr);
		uint32_t to = ntohl(((struct sockaddr_in *)&last.storage)->sin_addr.s_addr);
		if (first.storage.ss_family != AF_INET || last.storage.ss_family != AF_INET ||
			to < from || to - from > 65535)
			tool_die(EXIT_USAGE, "--source: '%s' is not a range of IPv4 addresses",
				list);
		add_range(options, &first, (uint64_t)(to - from) + 1);
	}
	free(copy);
}

static void spread_sources(struct load_options *options, uint64_t n)
{
	struct tool_address first;

	if (options->n_sources > 0)
		first = options->sources[0];
	else if (tool_parse_host("127.0.1.1", &first) < 0)
		return;
	if (first.storage.ss_family != AF_INET)
		tool_die(EXIT_USAGE, "--sources: needs an IPv4 --source to count from");
	options->n_sources = 0;
	add_range(options, &first, n);
}

/* ---- options ---- */

enum option_key {
	OPTION_CLIENTS = 1,
	OPTION_RATE,
	OPTION_DURATION,
	OPTION_REQUESTS,
	OPTION_KEEPALIVE,
	OPTION_PER_CONNECTION,
	OPTION_PATH,
	OPTION_HOST,
	OPTION_THINK,
	OPTION_SEND_DELAY,
	OPTION_TIMEOUT,
	OPTION_EXPECT,
	OPTION_SOURCE,
	OPTION_SOURCES,
	OPTION_LINGER0,
	OPTION_INTERVAL,
	OPTION_LIVE,
	OPTION_FAILURES_TO,
	OPTION_HELP,
};

static const struct option long_options[] = {
	{"clients",		    required_argument, NULL, OPTION_CLIENTS	   },
	{"rate",		    required_argument, NULL, OPTION_RATE	     },
	{"duration",		     required_argument, NULL, OPTION_DURATION	     },
	{"requests",		     required_argument, NULL, OPTION_REQUESTS	     },
	{"keepalive",		      no_argument,	   NULL, OPTION_KEEPALIVE	 },
	{"requests-per-connection", required_argument, NULL, OPTION_PER_CONNECTION},
	{"path",		    required_argument, NULL, OPTION_PATH	     },
	{"host",		    required_argument, NULL, OPTION_HOST	     },
	{"think",		   required_argument, NULL, OPTION_THINK	       },
	{"send-delay",	       required_argument, NULL, OPTION_SEND_DELAY	 },
	{"timeout",		    required_argument, NULL, OPTION_TIMEOUT	   },
	{"expect",		   required_argument, NULL, OPTION_EXPECT	 },
	{"source",		   required_argument, NULL, OPTION_SOURCE	 },
	{"sources",		    required_argument, NULL, OPTION_SOURCES	   },
	{"linger0",		    no_argument,	 NULL, OPTION_LINGER0	     },
	{"interval",		     required_argument, NULL, OPTION_INTERVAL	     },
	{"live",		    required_argument, NULL, OPTION_LIVE	     },
	{"failures-to",		required_argument, NULL, OPTION_FAILURES_TO   },
	{"help",		    no_argument,	      NULL, OPTION_HELP	       },
	{NULL,		      0,		  NULL, 0			 },
};

static double parse_rate(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value > 0) || value > 1e6)
		tool_die(EXIT_USAGE, "--rate: '%s' is not a rate per second", text);
	return value;
}

/* What the requests are made of, until the options are complete. */
struct request_parts {
	const char *host;
	const char **paths;
	size_t n_paths;
	uint64_t n_spread;
};

static void add_path(struct request_parts *parts, const char *path)
{
	parts->paths = tool_reallocate(parts->paths, parts->n_paths + 1, sizeof(*parts->paths));
	parts->paths[parts->n_paths++] = path;
}

static void parse_option(
	struct load_options *options, struct request_parts *parts, int key, const char *name)
{
	switch ((enum option_key)key) {
	case OPTION_CLIENTS:
		options->n_clients = parse_count(name, optarg, 1000000);
		break;
	case OPTION_RATE:
		options->rate = parse_rate(optarg);
		break;
	case OPTION_DURATION:
		options->duration_usec = parse_time(name, optarg);
		break;
	case OPTION_REQUESTS:
		options->max_requests = parse_count(name, optarg, UINT64_MAX);
		break;
	case OPTION_KEEPALIVE:
		options->keep_alive = true;
		break;
	case OPTION_PER_CONNECTION:
		options->requests_per_connection = parse_count(name, optarg, UINT64_MAX);
		break;
	case OPTION_PATH:
		add_path(parts, optarg);
		break;
	case OPTION_HOST:
		parts->host = optarg;
		break;
	case OPTION_THINK:
		options->think_usec = parse_time(name, optarg);
		break;
	case OPTION_SEND_DELAY:
		options->send_delay_usec = parse_time(name, optarg);
		break;
	case OPTION_TIMEOUT:
		options->timeout_usec = parse_time(name, optarg);
		break;
	case OPTION_EXPECT:
		options->expect_status = (unsigned)parse_count(name, optarg, 999);
		break;
	case OPTION_SOURCE:
		parse_sources(options, optarg);
		break;
	case OPTION_SOURCES:
		parts->n_spread = parse_count(name, optarg, 65536);
		break;
	case OPTION_LINGER0:
		options->linger_zero = true;
		break;
	case OPTION_INTERVAL:
		options->interval_usec = parse_time(name, optarg);
		break;
	case OPTION_LIVE:
		options->live_path = optarg;
		break;
	case OPTION_FAILURES_TO:
		options->failures_path = optarg;
		break;
	case OPTION_HELP:
		usage(stdout);
		exit(EXIT_CLEAN);
	}
}

static void make_requests(struct load_options *options, const struct request_parts *parts)
{
	options->n_paths = parts->n_paths;
	for (size_t keep = 0; keep < 2; keep++) {
		options->requests[keep] = tool_allocate(parts->n_paths, sizeof(char *));
		for (size_t i = 0; i < parts->n_paths; i++) {
			char *request;

			if (asprintf(&request,
				    "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n\r\n",
				    parts->paths[i], parts->host,
				    keep ? "keep-alive" : "close") < 0)
				tool_die(EXIT_USAGE, "out of memory");
			options->requests[keep][i] = request;
		}
	}
}

static void parse_options(struct load_options *options, int argc, char **argv)
{
	struct request_parts parts = {.host = "localhost"};
	int key, index = 0;

	options->timeout_usec = 5 * TOOL_USEC_PER_SEC;
	while ((key = getopt_long(argc, argv, "", long_options, &index)) >= 0) {
		if (key == '?') {
			usage(stderr);
			exit(EXIT_USAGE);
		}
		parse_option(options, &parts, key, long_options[index].name);
	}

	if (optind + 1 != argc) {
		usage(stderr);
		exit(EXIT_USAGE);
	}
	if (tool_parse_address(argv[optind], &options->target) < 0)
		tool_die(EXIT_USAGE, "'%s' is not an address", argv[optind]);
	if (options->n_clients == 0)
		options->n_clients = options->rate > 0 ? 1024 : 8;
	if (parts.n_paths == 0)
		add_path(&parts, "/");
	if (parts.n_spread > 0)
		spread_sources(options, parts.n_spread);
	make_requests(options, &parts);
	free(parts.paths);
}

/* ---- the loop ---- */

static int watch_signals(int epoll_fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
	sigset_t mask;
	int fd;

	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
		return -errno;
	fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	return fd;
}

static void wait_and_handle(struct load *load, int signal_fd, uint64_t until_usec)
{
	struct epoll_event events[N_EVENTS];
	uint64_t now_usec = tool_now_usec();
	uint64_t usec = until_usec > now_usec ? until_usec - now_usec : 0;
	struct timespec ts = {
		.tv_sec = (time_t)(usec / TOOL_USEC_PER_SEC),
		.tv_nsec = (long)(usec % TOOL_USEC_PER_SEC) * 1000,
	};
	int n;

	n = epoll_pwait2(
		load->epoll_fd, events, N_EVENTS, until_usec == TOOL_NEVER ? NULL : &ts, NULL);
	if (n < 0 && errno != EINTR)
		tool_die(EXIT_USAGE, "epoll_pwait2: %s", strerror(errno));

	for (int i = 0; i < n; i++) {
		struct signalfd_siginfo info;

		if (events[i].data.ptr)
			client_event(load, events[i].data.ptr, events[i].events);
		else if (read(signal_fd, &info, sizeof(info)) > 0)
			clients_stop(load);
	}
}

/* Does what is due at now_usec, and returns when the next such thing is. */
static uint64_t housekeeping(struct load *load, uint64_t now_usec, uint64_t *live_usec)
{
	const struct load_options *options = &load->options;
	struct report *report = &load->report;
	uint64_t next_usec = TOOL_NEVER;

	if (options->duration_usec > 0 && !load->stopping) {
		next_usec = report->start_usec + options->duration_usec;
		if (now_usec >= next_usec) {
			clients_stop(load);
			next_usec = TOOL_NEVER;
		}
	}
	if (options->live_path) {
		if (now_usec >= *live_usec) {
			report_live(report, options->live_path, now_usec);
			*live_usec = now_usec + LIVE_EVERY_USEC;
		}
		if (*live_usec < next_usec)
			next_usec = *live_usec;
	}
	if (options->interval_usec > 0) {
		uint64_t last = report->interval_usec ? report->interval_usec : report->start_usec;

		if (now_usec >= last + options->interval_usec) {
			report_interval(report, now_usec);
			last = now_usec;
		}
		if (last + options->interval_usec < next_usec)
			next_usec = last + options->interval_usec;
	}
	return next_usec;
}

static void load_run(struct load *load, int signal_fd)
{
	uint64_t live_usec = 0;

	while (!load->stopping || load->n_busy > 0) {
		uint64_t house_usec, client_usec;

		clients_tick(load);
		house_usec = housekeeping(load, tool_now_usec(), &live_usec);
		if (load->stopping && load->n_busy == 0)
			break;
		client_usec = clients_next_usec(load);
		wait_and_handle(
			load, signal_fd, client_usec < house_usec ? client_usec : house_usec);
	}
}

static void raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	static struct load load = {.epoll_fd = -1};
	int signal_fd, r;

	parse_options(&load.options, argc, argv);
	raise_nofile();
	if (load.options.failures_path) {
		load.report.failures_to = fopen(load.options.failures_path, "we");
		if (!load.report.failures_to)
			tool_die(EXIT_USAGE, "%s: %s", load.options.failures_path, strerror(errno));
	}
	r = clients_start(&load);
	signal_fd = r < 0 ? r : watch_signals(load.epoll_fd);
	if (signal_fd < 0)
		tool_die(EXIT_USAGE, "cannot start: %s", strerror(-signal_fd));

	load_run(&load, signal_fd);

	if (load.options.live_path)
		report_live(&load.report, load.options.live_path, tool_now_usec());
	report_print(&load.report, stdout, tool_now_usec());
	r = load.report.n_failed > 0 ? EXIT_FAILURES : EXIT_CLEAN;

	clients_done(&load);
	report_done(&load.report);
	free(load.options.sources);
	for (size_t keep = 0; keep < 2; keep++) {
		for (size_t i = 0; i < load.options.n_paths; i++)
			free((void *)(uintptr_t)load.options.requests[keep][i]);
		free(load.options.requests[keep]);
	}
	close(signal_fd);
	return r;
}

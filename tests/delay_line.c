/* SPDX-License-Identifier: Apache-2.0 */

/* A long wire between two network namespaces: what one end's TUN device sends, the other's receives
 * after a fixed delay. It stands in for netem, which many kernels are built without.
 *
 *   namespace A ── tun ──► queue, `delay` long ──► tun ── namespace B
 *               ◄────────────────────────────────
 *
 * The queues hold packets in the order they came, each with the time it is due. A full queue drops
 * the new packet, as a router does. Handshakes that are under way at any moment: rate x 2 x delay.
 */

#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MAX 2048 /* the device's MTU is 1500 */

enum {
	SIDE_A,
	SIDE_B,
	N_SIDES,
};

struct packet {
	uint64_t due_usec;
	size_t len;
	char bytes[PACKET_MAX];
};

/* The packets from one side to the other: a ring. */
struct queue {
	struct packet *packets;
	size_t size, first, n;
	uint64_t n_passed, n_dropped;
};

struct options {
	const char *netns[N_SIDES];
	const char *name;
	uint64_t delay_usec, max_usec, queue;
};

struct line {
	struct options options;
	int fds[N_SIDES];
	struct queue queues[N_SIDES]; /* [SIDE_A]: from A to B */
	int signal_fd;
};

static void usage(FILE *file)
{
	fprintf(file, "Usage: delay_line --netns-a PATH --netns-b PATH [OPTIONS]\n"
		      "Joins two network namespaces, such as /proc/PID/ns/net, by a TUN device in "
		      "each, and prints\n"
		      "\"ready\". The devices are up but have no addresses. Ends at SIGTERM, with "
		      "its parent, or:\n\n"
		      "  --delay TIME     each way (10ms)\n"
		      "  --name NAME      of the devices (tun0)\n"
		      "  --queue N        packets under way in each direction (20000)\n"
		      "  --max-time TIME  its life (10m)\n");
}

/* ---- devices ---- */

static int open_tun(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	int fd, control, r = 0;

	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	(void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		r = -errno;
		close(fd);
		return r;
	}

	control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (control < 0 || ioctl(control, SIOCSIFFLAGS, &request) < 0)
		r = -errno;
	/* Queueing is done here. A short one in the device would drop bursts without a count. */
	request.ifr_qlen = 10000;
	if (r == 0 && ioctl(control, SIOCSIFTXQLEN, &request) < 0)
		r = -errno;
	if (control >= 0)
		close(control);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* The device is made in the namespace at `path`; its descriptor works from anywhere. */
static int open_tun_in(const char *path, const char *name)
{
	int fd, r;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = setns(fd, CLONE_NEWNET) < 0 ? -errno : open_tun(name);
	close(fd);
	return r;
}

/* ---- packets ---- */

static void queue_read(struct queue *queue, int fd, uint64_t delay_usec)
{
	for (;;) {
		static char lost[PACKET_MAX];
		bool full = queue->n == queue->size;
		struct packet *packet = &queue->packets[(queue->first + queue->n) % queue->size];
		ssize_t n = read(fd, full ? lost : packet->bytes, PACKET_MAX);

		if (n <= 0)
			return;
		if (full) {
			queue->n_dropped++;
			continue;
		}
		packet->len = (size_t)n;
		packet->due_usec = tool_now_usec() + delay_usec;
		queue->n++;
	}
}

static void queue_write(struct queue *queue, int fd, uint64_t now_usec)
{
	while (queue->n > 0 && queue->packets[queue->first].due_usec <= now_usec) {
		const struct packet *packet = &queue->packets[queue->first];

		if (write(fd, packet->bytes, packet->len) < 0)
			queue->n_dropped++;
		else
			queue->n_passed++;
		queue->first = (queue->first + 1) % queue->size;
		queue->n--;
	}
}

static uint64_t queue_next_usec(const struct queue *queue)
{
	return queue->n > 0 ? queue->packets[queue->first].due_usec : TOOL_NEVER;
}

static void run(struct line *line)
{
	uint64_t end_usec = tool_now_usec() + line->options.max_usec;
	struct pollfd polls[] = {
		{.fd = line->fds[SIDE_A], .events = POLLIN},
		{.fd = line->fds[SIDE_B], .events = POLLIN},
		{.fd = line->signal_fd,	.events = POLLIN},
	};

	while (!polls[N_SIDES].revents) {
		uint64_t now_usec = tool_now_usec(), until_usec = end_usec, usec;
		struct timespec ts;

		if (now_usec >= end_usec)
			break;
		for (size_t side = 0; side < N_SIDES; side++)
			if (queue_next_usec(&line->queues[side]) < until_usec)
				until_usec = queue_next_usec(&line->queues[side]);

		usec = until_usec > now_usec ? until_usec - now_usec : 0;
		ts.tv_sec = (time_t)(usec / TOOL_USEC_PER_SEC);
		ts.tv_nsec = (long)(usec % TOOL_USEC_PER_SEC) * 1000;
		if (ppoll(polls, ELEMENTS(polls), &ts, NULL) < 0 && errno != EINTR)
			tool_die(1, "ppoll: %s", strerror(errno));

		for (size_t side = 0; side < N_SIDES; side++) {
			if (polls[side].revents)
				queue_read(&line->queues[side], line->fds[side],
					line->options.delay_usec);
			queue_write(&line->queues[side], line->fds[1 - side], tool_now_usec());
		}
	}
}

/* ---- options ---- */

static void parse_options(struct options *options, int argc, char **argv)
{
	static const struct option long_options[] = {
		{"netns-a",  required_argument, NULL, 'a'},
		{"netns-b",  required_argument, NULL, 'b'},
		{"delay",	  required_argument, NULL, 'd'},
		{"name",	 required_argument, NULL, 'n'},
		{"queue",	  required_argument, NULL, 'q'},
		{"max-time", required_argument, NULL, 'm'},
		{"help",	 no_argument,	      NULL, 'h'},
		{NULL,       0,		  NULL, 0	 },
	};
	int key, r = 0;

	while ((key = getopt_long(argc, argv, "", long_options, NULL)) >= 0 && r == 0) {
		if (key == 'a')
			options->netns[SIDE_A] = optarg;
		else if (key == 'b')
			options->netns[SIDE_B] = optarg;
		else if (key == 'd')
			r = tool_parse_usec(optarg, TOOL_USEC_PER_MSEC, &options->delay_usec);
		else if (key == 'n')
			options->name = optarg;
		else if (key == 'q')
			r = tool_parse_unsigned(optarg, 1000000, &options->queue);
		else if (key == 'm')
			r = tool_parse_usec(optarg, TOOL_USEC_PER_SEC, &options->max_usec);
		else {
			usage(key == 'h' ? stdout : stderr);
			exit(key == 'h' ? 0 : 2);
		}
	}
	if (r < 0 || optind < argc || !options->netns[SIDE_A] || !options->netns[SIDE_B] ||
		options->queue == 0) {
		usage(stderr);
		exit(2);
	}
}

static int watch_signals(void)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
		return -errno;
	/* A test that is killed must not leave it behind. */
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
		return -errno;
	return signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
}

int main(int argc, char **argv)
{
	static struct line line = {
		.options =
			{
				  .name = "tun0",
				  .delay_usec = 10 * TOOL_USEC_PER_MSEC,
				  .max_usec = 600 * TOOL_USEC_PER_SEC,
				  .queue = 20000,
				  },
	};

	parse_options(&line.options, argc, argv);
	line.signal_fd = watch_signals();
	if (line.signal_fd < 0)
		tool_die(1, "cannot start: %s", strerror(errno));
	/* Timers of 50 us slack by default would add to the delay. */
	(void)prctl(PR_SET_TIMERSLACK, 1000);

	for (size_t side = 0; side < N_SIDES; side++) {
		struct queue *queue = &line.queues[side];

		line.fds[side] = open_tun_in(line.options.netns[side], line.options.name);
		if (line.fds[side] < 0)
			tool_die(1, "%s: %s", line.options.netns[side], strerror(-line.fds[side]));
		queue->size = line.options.queue;
		queue->packets = tool_allocate(queue->size, sizeof(*queue->packets));
	}
	printf("ready\n");
	fflush(stdout);

	run(&line);

	printf("{\"a_to_b\":%ju,\"b_to_a\":%ju,\"dropped\":%ju}\n",
		(uintmax_t)line.queues[SIDE_A].n_passed, (uintmax_t)line.queues[SIDE_B].n_passed,
		(uintmax_t)(line.queues[SIDE_A].n_dropped + line.queues[SIDE_B].n_dropped));
	for (size_t side = 0; side < N_SIDES; side++) {
		close(line.fds[side]);
		free(line.queues[side].packets);
	}
	close(line.signal_fd);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"
#include "wire/channel.h"

/* Parses a copy that ends where the packet ends, so that a sanitizer sees a read beyond. */
static int parsed(const void *data, size_t len, struct channel_message *ret)
{
	_cleanup_free_ char *copy = malloc(MAX(len, (size_t)1));

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, data, len);
	memset(ret, 0x55, sizeof(*ret)); /* what was in it must not show through */
	return channel_parse(copy, len, ret);
}

static int parsed_text(const char *s, struct channel_message *ret)
{
	return parsed(s, strlen(s), ret);
}

static void assert_text(const struct channel_message *m, const char *text)
{
	char packet[CHANNEL_MESSAGE_MAX];
	int len = channel_format(m, packet);

	ck_assert_msg(len == (int)strlen(text) && memcmp(packet, text, (size_t)len) == 0, "%.*s",
		MAX(len, 0), packet);
}

START_TEST(exact_bytes)
{
	assert_text(&(struct channel_message){.kind = CHANNEL_HELLO,
			    .version = 1,
			    .accepts = CHANNEL_ACCEPTS_DRAIN | CHANNEL_ACCEPTS_PING},
		"tenure/1 hello\nversion=1\naccepts=drain ping\n");
	assert_text(&(struct channel_message){.kind = CHANNEL_WELCOME,
			    .version = 1,
			    .service = "web",
			    .generation = 7,
			    .worker = 2},
		"tenure/1 welcome\nversion=1\nservice=web\ngeneration=7\nworker=2\n");
	assert_text(&(struct channel_message){.kind = CHANNEL_PING, .id = UINT64_MAX},
		"tenure/1 ping\nid=18446744073709551615\n");
	assert_text(&(struct channel_message){.kind = CHANNEL_DRAIN, .deadline_usec = 5},
		"tenure/1 drain\ndeadline=5\n");
	assert_text(
		&(struct channel_message){.kind = CHANNEL_DRAIN, .deadline_usec = USEC_INFINITY},
		"tenure/1 drain\n");
	assert_text(&(struct channel_message){.kind = CHANNEL_ADD,
			    .name = "http",
			    .type = CHANNEL_DATAGRAM,
			    .address = "udp:[::]:53"},
		"tenure/1 add\nname=http\ntype=datagram\naddress=udp:[::]:53\n");
	assert_text(
		&(struct channel_message){
			.kind = CHANNEL_STORE, .name = "session", .no_poll = true},
		"tenure/1 store\nname=session\npoll=0\n");
}
END_TEST

static struct channel_message full(enum channel_kind kind)
{
	struct channel_message m = {.kind = kind,
		.version = 1,
		.accepts = 0xf,
		.id = 42,
		.deadline_usec = 99,
		.generation = 3,
		.worker = 1023,
		.no_poll = true,
		.type = CHANNEL_SEQPACKET};

	memset(m.name, 'n', CHANNEL_NAME_MAX);
	memset(m.address, 'a', CHANNEL_ADDRESS_MAX);
	memset(m.service, 's', CHANNEL_NAME_MAX);
	return m;
}

START_TEST(the_largest_of_each_kind_comes_back)
{
	for (enum channel_kind k = CHANNEL_HELLO; k <= CHANNEL_REFUSED; k++) {
		struct channel_message m = full(k), back;
		char packet[CHANNEL_MESSAGE_MAX], again[CHANNEL_MESSAGE_MAX];
		int len = channel_format(&m, packet);

		ck_assert_int_gt(len, 0);
		ck_assert_int_eq(parsed(packet, (size_t)len, &back), 0);
		ck_assert_int_eq(back.kind, k);
		ck_assert_int_eq(channel_format(&back, again), len);
		ck_assert_int_eq(memcmp(packet, again, (size_t)len), 0);
		ck_assert_str_eq(channel_kind_to_string(k), channel_kind_to_string(back.kind));
		ck_assert_str_ne(channel_kind_to_string(k), "unknown");
	}
}
END_TEST

START_TEST(what_a_kind_needs)
{
	struct channel_message m;

	ck_assert_int_eq(parsed_text("tenure/1 ping\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 ping\nid=\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 ping\nid=-1\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 ping\nid=18446744073709551616\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 ping\nid=1\n", &m), 0);
	ck_assert_int_eq(parsed_text("tenure/1 store\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 store\nname=\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 store\nname=a:b\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 store\nname=a\tb\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 add\nname=a\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 add\nname=a\ntype=raw\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 hello\n", &m), -EBADMSG);
	ck_assert_int_eq(parsed_text("tenure/1 drain\n", &m), 0);
	ck_assert(m.deadline_usec == USEC_INFINITY);
}
END_TEST

START_TEST(what_is_newer_is_skipped)
{
	struct channel_message m;

	ck_assert_int_eq(parsed_text("tenure/1 dance\nwith=you\n", &m), 0);
	ck_assert_int_eq(m.kind, CHANNEL_UNKNOWN);
	ck_assert_int_eq(
		parsed_text("tenure/1 hello\nversion=2\naccepts=drain flying\ncolour=red\n", &m),
		0);
	ck_assert_uint_eq(m.version, 2);
	ck_assert_uint_eq(m.accepts, CHANNEL_ACCEPTS_DRAIN);
	ck_assert_int_eq(parsed_text("tenure/2 hello\nversion=3\n", &m), -EPROTONOSUPPORT);
	ck_assert_uint_eq(m.version, 2); /* for the answer */
	/* The first of a key counts. */
	ck_assert_int_eq(parsed_text("tenure/1 ping\nid=1\nid=2\n", &m), 0);
	ck_assert_uint_eq(m.id, 1);
}
END_TEST

START_TEST(no_message)
{
	static const char *const bad[] = {"", "\n", "tenure", "tenure/1 ping\nid=1", "tenure/1\n",
		"tenure/1 \n", "tenure/x ping\nid=1\n", "tenor/1 ping\nid=1\n", "READY=1\n",
		"tenure/1 pi\x01ng\n"};
	struct channel_message m;
	char huge[CHANNEL_MESSAGE_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(parsed_text(bad[i], &m) == -EBADMSG, "<%s>", bad[i]);
	memset(huge, '\n', sizeof(huge));
	memcpy(huge, "tenure/1 drain\n", 15);
	ck_assert_int_eq(parsed(huge, sizeof(huge), &m), -EBADMSG);
	ck_assert_int_eq(parsed(huge, sizeof(huge) - 1, &m), 0);
}
END_TEST

START_TEST(what_cannot_be_sent)
{
	char packet[CHANNEL_MESSAGE_MAX];

	ck_assert_int_eq(channel_format(&(struct channel_message){0}, packet), -EINVAL);
	ck_assert_int_eq(
		channel_format(&(struct channel_message){.kind = CHANNEL_STORE}, packet), -EINVAL);
	ck_assert_int_eq(channel_format(&(struct channel_message){.kind = CHANNEL_STORE,
						.name = "a\nname=b"},
				 packet),
		-EINVAL);
	ck_assert_int_eq(channel_format(&(struct channel_message){.kind = CHANNEL_ADD,
						.name = "a",
						.address = "unix:/x\nname=b"},
				 packet),
		-EINVAL);
}
END_TEST

/* Whatever comes is refused, or is a valid message that can be sent again. */
static void assert_sane(const void *data, size_t len)
{
	struct channel_message m, back;
	char packet[CHANNEL_MESSAGE_MAX];
	int r = parsed(data, len, &m), n;

	ck_assert(r == 0 || r == -EBADMSG || r == -EPROTONOSUPPORT);
	ck_assert_uint_le(strnlen(m.name, sizeof(m.name)), CHANNEL_NAME_MAX);
	ck_assert_uint_le(strnlen(m.address, sizeof(m.address)), CHANNEL_ADDRESS_MAX);
	ck_assert_uint_le(strnlen(m.service, sizeof(m.service)), CHANNEL_NAME_MAX);
	if (r < 0 || m.kind == CHANNEL_UNKNOWN)
		return;
	n = channel_format(&m, packet);
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(parsed(packet, (size_t)n, &back), 0);
	ck_assert_int_eq(back.kind, m.kind);
	ck_assert_str_eq(back.name, m.name);
	ck_assert(back.id == m.id || m.kind != CHANNEL_PING);
}

START_TEST(damaged_messages)
{
	unsigned seed = 1;

	for (int i = 0; i < 200000; i++) {
		enum channel_kind k = (enum channel_kind)(1 + rand_r(&seed) % CHANNEL_REFUSED);
		struct channel_message m = full(k);
		char packet[CHANNEL_MESSAGE_MAX];
		size_t len;

		m.name[rand_r(&seed) % 20 + 1] = '\0';
		m.address[rand_r(&seed) % 40] = '\0';
		m.service[rand_r(&seed) % 20] = '\0';
		len = (size_t)channel_format(&m, packet);
		for (int n = rand_r(&seed) % 4; n > 0; n--)
			packet[(size_t)rand_r(&seed) % len] = (char)rand_r(&seed);
		if (rand_r(&seed) % 4 == 0)
			len = (size_t)rand_r(&seed) % len;
		assert_sane(packet, len);
	}
}
END_TEST

START_TEST(random_bytes)
{
	static const char *const words[] = {"tenure/1 ", "tenure/1 add\n", "name=", "type=stream\n",
		"\n", "=", "id=", "18446744073709551615\n", "accepts=drain ", " ", "x", "\0", ":"};
	unsigned seed = 2;
	char packet[CHANNEL_MESSAGE_MAX];

	for (int i = 0; i < 100000; i++) {
		size_t len = 0;

		while (len < 200 && rand_r(&seed) % 16 != 0) {
			const char *word = words[(size_t)rand_r(&seed) % ARRAY_SIZE(words)];
			size_t n = MAX(strlen(word), (size_t)1);

			memcpy(packet + len, word, n);
			len += n;
		}
		assert_sane(packet, len);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		exact_bytes,
		the_largest_of_each_kind_comes_back,
		what_a_kind_needs,
		what_is_newer_is_skipped,
		no_message,
		what_cannot_be_sent,
		damaged_messages,
		random_bytes,
	};

	return run_tests("channel", tests, ARRAY_SIZE(tests));
}

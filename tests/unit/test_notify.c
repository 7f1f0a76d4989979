/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"
#include "unit.h"
#include "wire/notify.h"

/* Parses a copy that ends where the message ends, so that a sanitizer sees a read beyond. */
static struct notify_message parsed_bytes(const void *data, size_t len, bool truncated)
{
	_cleanup_free_ char *copy = malloc(MAX(len, (size_t)1));
	struct notify_message m;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, data, len);
	memset(&m, 0x55, sizeof(m)); /* what was in it must not show through */
	notify_parse(copy, len, truncated, &m);
	return m;
}

/* With the NULs that are in it. */
#define parsed_literal(literal, truncated) parsed_bytes(literal, sizeof(literal) - 1, truncated)

static struct notify_message parsed(const char *s)
{
	return parsed_bytes(s, strlen(s), false);
}

static void assert_fields(const char *s, unsigned fields, size_t n_malformed)
{
	struct notify_message m = parsed(s);

	ck_assert_msg(m.fields == fields, "<%s>: fields %x, not %x", s, m.fields, fields);
	ck_assert_msg(m.n_malformed == n_malformed, "<%s>: %zu malformed", s, m.n_malformed);
}

START_TEST(words)
{
	assert_fields("READY=1", NOTIFY_READY, 0);
	assert_fields("READY=1\n", NOTIFY_READY, 0);
	assert_fields("STOPPING=1", NOTIFY_STOPPING, 0);
	assert_fields("RELOADING=1", NOTIFY_RELOADING, 0);
	assert_fields("WATCHDOG=1", NOTIFY_WATCHDOG, 0);
	assert_fields("WATCHDOG=trigger", NOTIFY_WATCHDOG_TRIGGER, 0);
	assert_fields("FDSTORE=1", NOTIFY_FD_STORE, 0);
	assert_fields("FDSTORE=1\nFDPOLL=0", NOTIFY_FD_STORE | NOTIFY_FD_NO_POLL, 0);
	assert_fields("FDSTORE=1\nFDPOLL=1", NOTIFY_FD_STORE, 0);
	assert_fields("FDSTOREREMOVE=1\nFDNAME=x", NOTIFY_FD_STORE_REMOVE | NOTIFY_FD_NAME, 0);
	assert_fields("READY=1\nSTOPPING=1\nREADY=1", NOTIFY_READY | NOTIFY_STOPPING, 0);
	assert_fields("WATCHDOG=1\nWATCHDOG=trigger", NOTIFY_WATCHDOG | NOTIFY_WATCHDOG_TRIGGER, 0);
}
END_TEST

START_TEST(values)
{
	struct notify_message m =
		parsed("READY=1\nSTATUS=Processing requests...\nMAINPID=4711\n"
		       "ERRNO=2\nWATCHDOG_USEC=20000000\nEXTEND_TIMEOUT_USEC=5000000\n"
		       "MONOTONIC_USEC=123456789012\nFDNAME=http.sock\n");

	ck_assert_uint_eq(m.fields, NOTIFY_READY | NOTIFY_STATUS | NOTIFY_MAIN_PID | NOTIFY_ERRNO |
					    NOTIFY_WATCHDOG_USEC | NOTIFY_EXTEND_TIMEOUT_USEC |
					    NOTIFY_MONOTONIC_USEC | NOTIFY_FD_NAME);
	ck_assert_uint_eq(m.n_malformed, 0);
	ck_assert_str_eq(m.status, "Processing requests...");
	ck_assert_int_eq(m.main_pid, 4711);
	ck_assert_int_eq(m.error_number, 2);
	ck_assert_uint_eq(m.watchdog_usec, 20 * USEC_PER_SEC);
	ck_assert_uint_eq(m.extend_timeout_usec, 5 * USEC_PER_SEC);
	ck_assert_uint_eq(m.monotonic_usec, UINT64_C(123456789012));
	ck_assert_str_eq(m.fd_name, "http.sock");
}
END_TEST

START_TEST(nothing_shows_through)
{
	struct notify_message zero, m = parsed("X_MINE=1");

	memset(&zero, 0, sizeof(zero));
	ck_assert_mem_eq(&m, &zero, sizeof(m));
	memset(&m, 0x55, sizeof(m));
	notify_parse(NULL, 0, false, &m);
	ck_assert_mem_eq(&m, &zero, sizeof(m));
}
END_TEST

START_TEST(unknown_keys_are_no_fault)
{
	assert_fields("", 0, 0);
	assert_fields("\n\n\n", 0, 0);
	assert_fields(
		"ERROR=io.x.Failed\nEXIT_STATUS=3\nBUSERROR=org.x\nX_FOO=\nMAINPIDFD=1", 0, 0);
	assert_fields("ready=1\nREADY =1\nREADYY=1\nREAD=1\nSTATUSES=x\nSTATU=x", 0, 0);
	assert_fields("A_KEY_THAT_IS_LONGER_THAN_ANY_WE_KNOW_OF=1\nREADY=1", NOTIFY_READY, 0);
}
END_TEST

START_TEST(each_fault_for_itself)
{
	static const char *const lines[] = {
		/* not an assignment */
		"READY",
		"=",
		"=1",
		"READY 1",
		" ",
		"\r",
		"\xff\xfe",
		"READY:1",
		/* words */
		"READY=0",
		"READY=",
		"READY=11",
		"READY= 1",
		"READY=1 ",
		"READY=1\r",
		"READY==1",
		"READY=yes",
		"STOPPING=0",
		"RELOADING=2",
		"WATCHDOG=0",
		"WATCHDOG=Trigger",
		"WATCHDOG=trigge",
		"WATCHDOG=triggers",
		"FDSTORE=0",
		"FDSTORE=2",
		"FDSTOREREMOVE=x",
		"FDPOLL=2",
		"FDPOLL=",
		"BARRIER=0",
		"BARRIER=2",
		/* numbers */
		"MAINPID=",
		"MAINPID=0",
		"MAINPID=-1",
		"MAINPID=1x",
		"MAINPID= 1",
		"MAINPID=+1",
		"MAINPID=0x10",
		"MAINPID=4194305",
		"MAINPID=4294967297",
		"MAINPID=18446744073709551617",
		"ERRNO=-2",
		"ERRNO=4096",
		"ERRNO=ENOENT",
		"ERRNO=",
		"ERRNO=4294967298",
		"WATCHDOG_USEC=",
		"WATCHDOG_USEC=-1",
		"WATCHDOG_USEC=1s",
		"WATCHDOG_USEC=18446744073709551616",
		"WATCHDOG_USEC=infinity",
		"EXTEND_TIMEOUT_USEC=1.5",
		"EXTEND_TIMEOUT_USEC=",
		"EXTEND_TIMEOUT_USEC=99999999999999999999",
		"MONOTONIC_USEC=18446744073709551615",
		"MONOTONIC_USEC=x",
		/* names */
		"FDNAME=",
		"FDNAME=a:b",
		"FDNAME=a\tb",
		"FDNAME=caf\xc3\xa9",
		"FDNAME=\x7f",
		"FDNAME=a\x1b[m",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		_cleanup_free_ char *s = xasprintf("STATUS=before\n%s\nSTOPPING=1\n", lines[i]);
		unsigned expected = NOTIFY_STATUS | NOTIFY_STOPPING;

		assert_fields(lines[i], 0, 1);
		assert_fields(s, expected, 1);
	}
}
END_TEST

START_TEST(limits_of_values)
{
	struct notify_message m = parsed("MAINPID=1\nERRNO=0\nWATCHDOG_USEC=0\n"
					 "EXTEND_TIMEOUT_USEC=18446744073709551615\n"
					 "MONOTONIC_USEC=18446744073709551614");
	char long_number[400] = "MAINPID=", name[300] = "FDNAME=";

	ck_assert_uint_eq(m.n_malformed, 0);
	ck_assert_int_eq(m.main_pid, 1);
	ck_assert_uint_eq(m.extend_timeout_usec, UINT64_MAX);
	ck_assert_uint_eq(m.monotonic_usec, UINT64_MAX - 1);
	m = parsed("MAINPID=4194304\nERRNO=4095\nWATCHDOG_USEC=18446744073709551615");
	ck_assert_uint_eq(m.n_malformed, 0);
	ck_assert_int_eq(m.main_pid, 4194304);
	ck_assert_int_eq(m.error_number, 4095);

	/* A cut number would be another number. */
	for (size_t n = 200; n < 380; n++) {
		memset(long_number + 8, '0', n - 2);
		strcpy(long_number + 8 + n - 2, "12");
		m = parsed(long_number);
		ck_assert(m.n_malformed == 1 ? m.fields == 0
					     : m.fields == NOTIFY_MAIN_PID && m.main_pid == 12);
		ck_assert(m.n_malformed == (n > 255));
	}

	memset(name + 7, 'n', 255);
	m = parsed(name);
	ck_assert_uint_eq(m.fields, NOTIFY_FD_NAME);
	ck_assert_uint_eq(strlen(m.fd_name), 255);
	memset(name + 7, 'n', 256);
	assert_fields(name, 0, 1);
	assert_fields("FDNAME= !~", NOTIFY_FD_NAME, 0);
}
END_TEST

START_TEST(first_value_counts)
{
	struct notify_message m =
		parsed("STATUS=one\nMAINPID=x\nMAINPID=7\nSTATUS=two\nMAINPID=8\n");

	ck_assert_str_eq(m.status, "one");
	ck_assert_int_eq(m.main_pid, 7);
	ck_assert_uint_eq(m.n_malformed, 3);
}
END_TEST

static void assert_status_bytes(const char *s, size_t len, const char *expected)
{
	struct notify_message m = parsed_bytes(s, len, false);

	ck_assert_uint_eq(m.fields, NOTIFY_STATUS);
	ck_assert_uint_eq(m.n_malformed, 0);
	ck_assert_str_eq(m.status, expected);
}

#define assert_status(literal, expected) assert_status_bytes(literal, sizeof(literal) - 1, expected)

START_TEST(status_is_harmless)
{
	char s[2000] = "STATUS=";
	struct notify_message m;

	assert_status("STATUS=", "");
	assert_status("STATUS=a=b", "a=b");
	assert_status("STATUS=gr\xc3\xbc\xc3\x9f dich", "gr\xc3\xbc\xc3\x9f dich");
	assert_status("STATUS=\x1b]0;owned\x07", "\\x1b]0;owned\\x07");
	assert_status("STATUS=a\0b", "a\\x00b");
	assert_status("STATUS=a\rb\tc", "a\\x0db\\x09c");
	assert_status("STATUS=\xff\xc0\x80", "\\xff\\xc0\\x80");
	assert_status("STATUS=\xed\xa0\x80", "\\xed\\xa0\\x80");
	assert_status("STATUS=\xc2\x85", "\\xc2\\x85");
	assert_status("STATUS=cut \xe2\x82", "cut \\xe2\\x82");

	memset(s + 7, 'x', sizeof(s) - 8);
	m = parsed(s);
	ck_assert_uint_eq(strlen(m.status), NOTIFY_STATUS_MAX);
	ck_assert_str_eq(m.status + NOTIFY_STATUS_MAX - 4, "x...");
	for (size_t i = 7; i + 1 < sizeof(s); i++)
		s[i] = (i - 7) % 2 == 0 ? '\xc3' : '\xa9';
	m = parsed(s);
	ck_assert(utf8_valid(m.status, strlen(m.status)));
	ck_assert_uint_le(strlen(m.status), NOTIFY_STATUS_MAX);
	ck_assert_uint_ge(strlen(m.status), NOTIFY_STATUS_MAX - 1);
}
END_TEST

START_TEST(nul_bytes)
{
	struct notify_message m = parsed_literal("READY=1\0", false);

	ck_assert_uint_eq(m.fields, NOTIFY_READY);
	ck_assert_uint_eq(m.n_malformed, 0);
	m = parsed_literal("READY=1\n\0\0\0", false);
	ck_assert_uint_eq(m.fields, NOTIFY_READY);
	ck_assert_uint_eq(m.n_malformed, 0);
	m = parsed_literal("\0\0\0", false);
	ck_assert_uint_eq(m.fields, 0);
	ck_assert_uint_eq(m.n_malformed, 0);
	/* Not at the end: nothing may hide behind one. */
	m = parsed_literal("READY=1\0\nMAINPID=7\0007\nFD\0NAME=x\nSTOPPING=1", false);
	ck_assert_uint_eq(m.fields, NOTIFY_STOPPING);
	ck_assert_uint_eq(m.n_malformed, 3);
	m = parsed_literal("STATUS\0=x\nREADY=1\0x", false);
	ck_assert_uint_eq(m.fields, 0);
	ck_assert_uint_eq(m.n_malformed, 2);
}
END_TEST

START_TEST(barrier_stands_alone)
{
	assert_fields("BARRIER=1", NOTIFY_BARRIER, 0);
	assert_fields("BARRIER=1\n", NOTIFY_BARRIER, 0);
	assert_fields("\nBARRIER=1\n\n", NOTIFY_BARRIER, 0);
	assert_fields("BARRIER=1\nREADY=1", 0, 2);
	assert_fields("READY=1\nX_FOO=1\nBARRIER=1", 0, 3);
	assert_fields("BARRIER=1\nBARRIER=1", 0, 2);
	assert_fields("BARRIER=1\ngarbage", 0, 2);
	assert_fields("BARRIER=0\nREADY=1", NOTIFY_READY, 1);
}
END_TEST

START_TEST(truncated_ones)
{
	struct notify_message m = parsed_literal("READY=1\nMAINPID=12", true);

	ck_assert_uint_eq(m.fields, NOTIFY_READY);
	ck_assert_uint_eq(m.n_malformed, 1);
	m = parsed_literal("READY=1", true);
	ck_assert_uint_eq(m.fields, 0);
	ck_assert_uint_eq(m.n_malformed, 1);
	m = parsed_literal("READY=1\n", true);
	ck_assert_uint_eq(m.fields, NOTIFY_READY);
	ck_assert_uint_eq(m.n_malformed, 1);
	m = parsed_literal("BARRIER=1\nREADY=1", true);
	ck_assert_uint_eq(m.fields, 0);
	ck_assert_uint_eq(m.n_malformed, 2);
	m = parsed_literal("", true);
	ck_assert_uint_eq(m.fields, 0);
	ck_assert_uint_eq(m.n_malformed, 1);
}
END_TEST

/* No control characters, none of the kind excluded; ASCII alone unless high ones are allowed. */
static bool are_bytes_ok(const char *s, size_t len, char excluded, bool high)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)s[i];

		if (c < 0x20 || s[i] == excluded || (c > 0x7e && !high))
			return false;
	}
	return true;
}

/* What holds whatever was sent. */
static void assert_sane(const struct notify_message *m, size_t len)
{
	const unsigned all = (NOTIFY_FD_NAME << 1) - 1;
	size_t status_len = strnlen(m->status, sizeof(m->status));
	size_t name_len = strnlen(m->fd_name, sizeof(m->fd_name));

	ck_assert_uint_eq(m->fields & ~all, 0);
	ck_assert_uint_le(m->n_malformed, len + 1);
	ck_assert(!(m->fields & NOTIFY_BARRIER) || m->fields == NOTIFY_BARRIER);
	ck_assert(m->main_pid >= 0 && m->main_pid <= 4194304);
	ck_assert((m->main_pid > 0) == ((m->fields & NOTIFY_MAIN_PID) != 0));
	ck_assert(m->error_number >= 0 && m->error_number <= 4095);
	ck_assert_uint_le(status_len, NOTIFY_STATUS_MAX);
	ck_assert(utf8_valid(m->status, status_len));
	ck_assert(are_bytes_ok(m->status, status_len, 0x7f, true));
	ck_assert(status_len == 0 || (m->fields & NOTIFY_STATUS));
	ck_assert_uint_le(name_len, NOTIFY_FD_NAME_MAX);
	ck_assert((name_len > 0) == ((m->fields & NOTIFY_FD_NAME) != 0));
	ck_assert(are_bytes_ok(m->fd_name, name_len, ':', false));
}

/* xorshift: unlike a congruential one, its low bits are as good as the others. */
static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* A message put together of good, broken and wild pieces, then damaged in places. */
static size_t wild_message(uint32_t *seed, char *ret, size_t size)
{
	static const char *const pieces[] = {"READY=1", "STATUS=", "STATUS=ok", "\n", "\n", "\n",
		"=", "1", "0", "9999999999", "-", "MAINPID=", "MAINPID=12", "ERRNO=", "ERRNO=2",
		"BARRIER=1", "FDNAME=", "FDNAME=a", "WATCHDOG=", "trigger",
		"WATCHDOG_USEC=", "FDSTORE=1", "FDPOLL=0", "\xe2\x82\xac", "\xc3", "\xe2\x80\xae",
		"\x1b[2J", ":", " ", "EXTEND_TIMEOUT_USEC=5", "MONOTONIC_USEC=", "RELOADING=1",
		"WATCHDOG=1", "WATCHDOG=trigger",
		"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
	size_t n_pieces = next_random(seed) % 24, len = 0;

	for (size_t i = 0; i < n_pieces; i++) {
		const char *piece = pieces[next_random(seed) % ARRAY_SIZE(pieces)];
		size_t n = strlen(piece);

		if (n + 1 > size - len)
			break;
		memcpy(ret + len, piece, n);
		len += n;
		if (next_random(seed) % 2 == 0)
			ret[len++] = '\n';
	}
	for (size_t n = next_random(seed) % 4; n > 1 && len > 0; n--)
		ret[next_random(seed) % len] = (char)next_random(seed);
	return len;
}

START_TEST(random_messages)
{
	size_t n_seen[16] = {0}, n_malformed = 0;
	uint32_t seed = 20240229;

	for (int i = 0; i < 40000; i++) {
		char s[2048];
		size_t len = wild_message(&seed, s, sizeof(s));
		bool truncated = next_random(&seed) % 16 == 0;
		struct notify_message m = parsed_bytes(s, len, truncated);

		assert_sane(&m, len);
		n_malformed += m.n_malformed > 0;
		for (size_t k = 0; k < ARRAY_SIZE(n_seen); k++)
			n_seen[k] += (m.fields >> k) & 1;
	}
	/* The wild ones reached (nearly) everything; STOPPING and FDSTOREREMOVE are not among the
	 * pieces. */
	for (size_t k = 0; k < ARRAY_SIZE(n_seen); k++)
		if (1u << k != NOTIFY_STOPPING && 1u << k != NOTIFY_FD_STORE_REMOVE)
			ck_assert_msg(n_seen[k] > 20, "field %zu: %zu", k, n_seen[k]);
	ck_assert_uint_gt(n_malformed, 4000);
	ck_assert_uint_lt(n_malformed, 39000);
}
END_TEST

START_TEST(random_bytes)
{
	uint32_t seed = 7;

	for (int i = 0; i < 5000; i++) {
		char s[600];
		size_t len = next_random(&seed) % sizeof(s);
		struct notify_message m;

		memcpy(s, "STATUS=", 7);
		for (size_t k = i % 2 == 0 ? 0 : 7; k < len; k++)
			s[k] = (char)next_random(&seed);
		m = parsed_bytes(s, len, false);
		assert_sane(&m, len);
	}
}
END_TEST

/* The whole of a datagram is one hostile thing. */
START_TEST(monsters)
{
	static const char *const repeated[] = {"\n", "=", "A=\n", "=\n", "READY=1\n", "STATUS=x\n",
		"\0", "\xff", "BARRIER=1\n", "MAINPID=1\n", "FDNAME=:\n", "\x80", "\xf0\x90\x80",
		"STATUS=\x1b", "0", "READY", "FDSTORE=1\n"};
	const size_t size = (size_t)1 << 18;
	_cleanup_free_ char *s = malloc(size);

	ck_assert_ptr_nonnull(s);
	for (size_t i = 0; i < ARRAY_SIZE(repeated); i++) {
		size_t n = MAX(strlen(repeated[i]), (size_t)1);
		struct notify_message m;

		for (size_t k = 0; k < size; k++)
			s[k] = repeated[i][k % n];
		m = parsed_bytes(s, size, false);
		assert_sane(&m, size);
		m = parsed_bytes(s, size, true);
		assert_sane(&m, size);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		words,
		values,
		nothing_shows_through,
		unknown_keys_are_no_fault,
		each_fault_for_itself,
		limits_of_values,
		first_value_counts,
		status_is_harmless,
		nul_bytes,
		barrier_stands_alone,
		truncated_ones,
		random_messages,
		random_bytes,
		monsters,
	};

	return run_tests("notify", tests, ARRAY_SIZE(tests));
}

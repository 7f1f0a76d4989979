/* SPDX-License-Identifier: Apache-2.0 */
/* What workers and we write to each other where sockets are asked for. */
#include "unit.h"
#include "wire/einhorn.h"
#include "wire/getsocks.h"

START_TEST(einhorn_lines)
{
	static const struct {
		const char *line;
		enum einhorn_kind kind;
		pid_t pid;
	} cases[] = {
	/* JSON, as its manual says; with blanks; as Ruby's YAML; as Node's, without an end
	 */
		{"{\"command\":\"worker:ack\",\"pid\":1234}",		      EINHORN_ACK,	   1234},
		{"{\"command\": \"worker:ack\", \"pid\": 1234}",		 EINHORN_ACK,     1234},
		{" { \"pid\" : 7 , \"command\" : \"worker:ack\" } \r",	       EINHORN_ACK,	    7   },
		{"---%0Acommand: worker:ack%0Apid: 1234%0A",		     EINHORN_ACK,	  1234},
		{"---%0acommand: worker:ack%0apid: 1234",			  EINHORN_ACK,     1234},
		{"--- %0A\"command\": \"worker:ack\"%0A\"pid\": 9%0A",	       EINHORN_ACK,	    9   },
		{"{\"command\":\"worker:ack\"}",				 EINHORN_ACK,     0   },
		{"{\"command\":\"worker:ack\",\"pid\":-5}",		    EINHORN_ACK,	 0	  },
		{"{\"command\":\"worker:ack\",\"pid\":99999999999999999999}", EINHORN_ACK,	   0   },
		{"{\"command\":\"worker:state\",\"pid\":5}",		     EINHORN_OTHER,   5   },
		{"{\"command\":\"die\"}",					  EINHORN_OTHER,	 0	  },
		{"{\"text\":\"worker:ack\"}",				      EINHORN_NOTHING, 0	},
		{"worker:ack",						EINHORN_NOTHING, 0	 },
		{"",							  EINHORN_NOTHING, 0   },
		{"%",							 EINHORN_NOTHING, 0	},
		{"%0",							EINHORN_NOTHING, 0	 },
		{"{:::,,}{",						  EINHORN_NOTHING, 0   },
		{"%2520command%253A: worker:ack",				  EINHORN_NOTHING, 0   },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *line = strdup(cases[i].line);
		struct einhorn_command got = {.pid = 77};

		ck_assert_msg(einhorn_parse(line, &got) == cases[i].kind, "%s", cases[i].line);
		ck_assert_int_eq(got.kind, cases[i].kind);
		ck_assert_msg(got.pid == cases[i].pid, "%s", cases[i].line);
	}
}
END_TEST

START_TEST(einhorn_harm)
{
	unsigned seed = 1;

	for (int round = 0; round < 20000; round++) {
		static const char letters[] = "%0A25\n{}\",: '\\commandpid\xff";
		char line[40];
		struct einhorn_command got;

		for (size_t i = 0; i < sizeof(line) - 1; i++) {
			seed = seed * 1103515245 + 12345;
			line[i] = letters[(seed >> 16) % (sizeof(letters) - 1)];
		}
		line[sizeof(line) - 1] = '\0';
		ck_assert_int_ne(einhorn_parse(line, &got), EINHORN_ACK);
	}
}
END_TEST

START_TEST(haproxys_records)
{
	_cleanup_buffer_ struct buffer b = {0};

	ck_assert_int_eq(getsocks_record(&b, ""), 0);
	ck_assert_int_eq(getsocks_record(&b, "eth0"), 0);
	ck_assert_uint_eq(b.len, 6 + 10);
	ck_assert_mem_eq(buffer_data(&b),
		"\0\0\0\0\0\0"
		"\0\4eth0\0\0\0\0",
		16);
}
END_TEST

START_TEST(zergs_answer)
{
	_cleanup_buffer_ struct buffer b = {0};
	int n;

	ck_assert_int_eq(zerg_answer(&b, 3), 0);
	ck_assert_uint_eq(b.len, 10 + sizeof(int));
	ck_assert_mem_eq(buffer_data(&b), "uwsgi-zerg", 10);
	ck_assert_ptr_nonnull(b.data);
	n = 3;
	ck_assert_mem_eq(b.data + b.start + 10, &n, sizeof(n));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {einhorn_lines, einhorn_harm, haproxys_records, zergs_answer};

	return run_tests("handoff wire", tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>

#include "base/address.h"
#include "unit.h"

#define PATH_OFFSET offsetof(struct sockaddr_un, sun_path)

static struct address parsed(const char *s)
{
	struct address a;
	int r = address_parse(s, true, &a);

	ck_assert_msg(r == 0, "<%s>: %d", s, r);
	return a;
}

START_TEST(forms)
{
	static const struct {
		const char *s, *canonical;
	} cases[] = {
		{"8080",			 "tcp:[::]:8080"		},
		{"*:8080",			   "tcp:[::]:8080"		  },
		{"tcp:8080",		     "tcp:[::]:8080"	    },
		{"tcp:*:8080",		       "tcp:[::]:8080"	      },
		{"udp:53",			   "udp:[::]:53"		},
		{"127.0.0.1:80",		 "tcp:127.0.0.1:80"	   },
		{"tcp:127.0.0.1:80",	     "tcp:127.0.0.1:80"	       },
		{"0.0.0.0:1",		      "tcp:0.0.0.0:1"	     },
		{"udp:255.255.255.255:65535", "udp:255.255.255.255:65535"},
		{"[::1]:80",		     "tcp:[::1]:80"		   },
		{"tcp:[0:0::0:1]:80",	      "tcp:[::1]:80"		    },
		{"udp:[2001:DB8::1]:53",	 "udp:[2001:db8::1]:53"     },
		{"[::ffff:127.0.0.1]:80",	  "tcp:[::ffff:127.0.0.1]:80"},
		{"[fe80::1%lo]:80",	    "tcp:[fe80::1%lo]:80"	 },
		{"[fe80::1%1]:80",		   "tcp:[fe80::1%lo]:80"	},
		{"/run/x.sock",		"unix:/run/x.sock"	  },
		{"unix:/run/x.sock",	     "unix:/run/x.sock"	       },
		{"unix:/run/a b:80",	     "unix:/run/a b:80"	       },
		{"unix:@name",		       "unix:@name"		   },
		{"unix:@na:me",		"unix:@na:me"		     },
		{"unix-dgram:/run/log",	"unix-dgram:/run/log"	     },
		{"unix-seqpacket:@seq",	"unix-seqpacket:@seq"	     },
		{"0",			 "tcp:[::]:0"		  },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address a = parsed(cases[i].s), again;
		_cleanup_free_ char *text = address_format(&a);

		ck_assert_str_eq(text, cases[i].canonical);
		/* The canonical text means the same. */
		again = parsed(text);
		ck_assert(address_equal(&a, &again));
		ck_assert_uint_eq(a.len, again.len);
	}
}
END_TEST

START_TEST(wrong_forms)
{
	static const struct {
		const char *s;
		int r;
	} cases[] = {
		{"",					      -EINVAL},
		{":",					     -EINVAL},
		{":80",					   -EINVAL},
		{"80:",					   -EINVAL},
		{"tcp:",					  -EINVAL},
		{"tcp",					   -EINVAL},
		{"tcp::80",				       -EINVAL},
		{"TCP:80",					-EINVAL},
		{"sctp:80",				       -EINVAL},
		{"localhost:80",				  -EINVAL},
		{"127.0.0.1",				     -EINVAL},
		{"127.1:80",				      -EINVAL},
		{"0127.0.0.1:80",				  -EINVAL},
		{"256.0.0.1:80",				  -EINVAL},
		{"127.0.0.1:80x",				  -EINVAL},
		{"127.0.0.1: 80",				  -EINVAL},
		{" 80",					   -EINVAL},
		{"80 ",					   -EINVAL},
		{"-80",					   -EINVAL},
		{"+80",					   -EINVAL},
		{"0x50",					  -EINVAL},
		{"::1:80",					-EINVAL},
		{"::",					    -EINVAL},
		{"[::1]",					 -EINVAL},
		{"[::1]80",				       -EINVAL},
		{"[::1:80",				       -EINVAL},
		{"::1]:80",				       -EINVAL},
		{"[]:80",					 -EINVAL},
		{"[:80",					  -EINVAL},
		{"[127.0.0.1]:80",				   -EINVAL},
		{"[[::1]]:80",				    -EINVAL},
		{"[fe80::1%]:80",				  -EINVAL},
		{"[::1]:",					-EINVAL},
		{"udp:tcp:80",				    -EINVAL},
		{"http://127.0.0.1:80",				-EINVAL},
		{"127.0.0.1:80/x",				   -EINVAL},
		{"0",					     -ERANGE},
		{"65536",					 -ERANGE},
		{"127.0.0.1:0",				   -ERANGE},
		{"[::1]:70000",				   -ERANGE},
		{"99999999999999999999999",			    -ERANGE},
		{"tcp:4294967376",				   -ERANGE},
		{"[fe80::1%no-such-if]:80",			    -ENODEV},
		{"[fe80::1%0]:80",				   -ENODEV},
		{"[fe80::1%a-very-long-name-of-an-interface]:80", -ENODEV},
		{"unix:",					 -EINVAL},
		{"unix:@",					-EINVAL},
		{"unix:run/x",				    -EINVAL},
		{"unix:./x",				      -EINVAL},
		{"@name",					 -EINVAL},
		{"run/x.sock",				    -EINVAL},
		{"unix-dgram:",				   -EINVAL},
		{"unix-stream:/x",				   -EINVAL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address a, before;
		int r;

		memset(&a, 0x55, sizeof(a));
		before = a;
		r = address_parse(cases[i].s, false, &a);
		ck_assert_msg(r == cases[i].r, "<%s>: %d", cases[i].s, r);
		ck_assert_mem_eq(&a, &before, sizeof(a));
	}
}
END_TEST

START_TEST(unix_lengths)
{
	char s[200] = "unix:";
	struct address a;

	memset(s + 5, 'x', sizeof(s) - 5);
	s[5] = '/';
	s[5 + 107] = '\0';
	a = parsed(s);
	ck_assert_uint_eq(a.len, PATH_OFFSET + 108);
	ck_assert_int_eq(a.un.sun_path[107], '\0');
	s[5 + 107] = 'x';
	s[5 + 108] = '\0';
	ck_assert_int_eq(address_parse(s, false, &a), -ENAMETOOLONG);

	/* An abstract name has no NUL at its end. */
	s[5] = '@';
	a = parsed(s);
	ck_assert_uint_eq(a.len, PATH_OFFSET + 108);
	ck_assert_int_eq(a.un.sun_path[0], '\0');
	ck_assert_int_eq(a.un.sun_path[107], 'x');
	s[5 + 108] = 'x';
	s[5 + 109] = '\0';
	ck_assert_int_eq(address_parse(s, false, &a), -ENAMETOOLONG);
}
END_TEST

START_TEST(what_bind_wants)
{
	struct address a = parsed("tcp:[::1]:8080");

	ck_assert_int_eq(address_family(&a), AF_INET6);
	ck_assert_int_eq(address_socket_type(&a), SOCK_STREAM);
	ck_assert_uint_eq(a.len, sizeof(struct sockaddr_in6));
	ck_assert_uint_eq(a.in6.sin6_port, htons(8080));
	ck_assert_uint_eq(address_port(&a), 8080);
	ck_assert(!address_is_unix(&a));
	a = parsed("udp:10.0.0.1:53");
	ck_assert_int_eq(address_family(&a), AF_INET);
	ck_assert_int_eq(address_socket_type(&a), SOCK_DGRAM);
	ck_assert_uint_eq(a.len, sizeof(struct sockaddr_in));
	ck_assert_uint_eq(a.in4.sin_addr.s_addr, htonl(0x0a000001));
	a = parsed("unix-seqpacket:/x");
	ck_assert_int_eq(address_family(&a), AF_UNIX);
	ck_assert_int_eq(address_socket_type(&a), SOCK_SEQPACKET);
	ck_assert_uint_eq(address_port(&a), 0);
	ck_assert(address_is_unix(&a));
	a = parsed("unix-dgram:/x");
	ck_assert_int_eq(address_socket_type(&a), SOCK_DGRAM);
	a = parsed("/x");
	ck_assert_int_eq(address_socket_type(&a), SOCK_STREAM);
	a = parsed("[fe80::1%1]:80");
	ck_assert_uint_eq(a.in6.sin6_scope_id, 1);
}
END_TEST

START_TEST(from_the_kernel)
{
	_cleanup_close_ int fd = -1;
	struct sockaddr_storage ss;
	struct address a, want = parsed("tcp:127.0.0.1:0");
	socklen_t len = sizeof(ss);

	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &want.sa, want.len), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&ss, len, SOCK_STREAM, &a), 0);
	ck_assert_uint_ne(address_port(&a), 0);
	want.in4.sin_port = a.in4.sin_port;
	ck_assert(address_equal(&a, &want));
	ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&ss, len, SOCK_DGRAM, &a), 0);
	ck_assert_int_eq(a.kind, ADDRESS_UDP);
	ck_assert(!address_equal(&a, &want));
	ck_assert_int_eq(
		address_from_sockaddr((struct sockaddr *)&ss, len, SOCK_RAW, &a), -EAFNOSUPPORT);
	ck_assert_int_eq(
		address_from_sockaddr((struct sockaddr *)&ss, 4, SOCK_STREAM, &a), -EAFNOSUPPORT);
	ck_assert_int_eq(
		address_from_sockaddr((struct sockaddr *)&ss, 0, SOCK_STREAM, &a), -EAFNOSUPPORT);
	ss.ss_family = AF_NETLINK;
	ck_assert_int_eq(
		address_from_sockaddr((struct sockaddr *)&ss, len, SOCK_STREAM, &a), -EAFNOSUPPORT);
}
END_TEST

START_TEST(from_the_kernel_abstract)
{
	_cleanup_close_ int fd = -1, unnamed = -1;
	_cleanup_free_ char *name = xasprintf("unix:@tenured-test-%d", getpid());
	_cleanup_free_ char *text = NULL;
	struct sockaddr_storage ss;
	struct address a, want = parsed(name);
	socklen_t len = sizeof(ss);

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &want.sa, want.len), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&ss, len, SOCK_STREAM, &a), 0);
	ck_assert(address_equal(&a, &want));

	unnamed = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	len = sizeof(ss);
	ck_assert_int_eq(getsockname(unnamed, (struct sockaddr *)&ss, &len), 0);
	ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&ss, len, SOCK_DGRAM, &a), 0);
	ck_assert(!address_equal(&a, &want));
	text = address_format(&a);
	ck_assert_str_eq(text, "unix-dgram:");
}
END_TEST

/* Paths with and without their NUL, full to the last byte, and names that would harm a terminal. */
START_TEST(unix_from_outside)
{
	_cleanup_free_ char *full = NULL, *hostile = NULL, *abstract = NULL;
	struct sockaddr_storage ss = {.ss_family = AF_UNIX};
	struct sockaddr *sa = (struct sockaddr *)&ss;
	char *path = (char *)&ss + PATH_OFFSET;
	struct address a, want = parsed("/run/x");

	strcpy(path, "/run/x");
	ck_assert_int_eq(address_from_sockaddr(sa, PATH_OFFSET + 6, SOCK_STREAM, &a), 0);
	ck_assert(address_equal(&a, &want));
	ck_assert_int_eq(address_from_sockaddr(sa, PATH_OFFSET + 7, SOCK_STREAM, &a), 0);
	ck_assert(address_equal(&a, &want));
	ck_assert_int_eq(address_from_sockaddr(sa, PATH_OFFSET + 100, SOCK_STREAM, &a), 0);
	ck_assert(address_equal(&a, &want));

	memset(path, 'x', 109);
	path[0] = '/';
	path[108] = '\0';
	ck_assert_int_eq(address_from_sockaddr(sa, PATH_OFFSET + 109, SOCK_STREAM, &a), 0);
	full = address_format(&a);
	ck_assert_uint_eq(strlen(full), strlen("unix:") + 108);
	path[108] = 'x';
	ck_assert_int_eq(
		address_from_sockaddr(sa, PATH_OFFSET + 109, SOCK_STREAM, &a), -EAFNOSUPPORT);

	strcpy(path, "/a\x1b[2J\n\xff");
	ck_assert_int_eq(address_from_sockaddr(sa, PATH_OFFSET + 10, SOCK_STREAM, &a), 0);
	hostile = address_format(&a);
	ck_assert_str_eq(hostile, "unix:/a\\x1b[2J\\x0a\\xff");
	memcpy(path, "\0a\0b", 4);
	ck_assert_int_eq(address_from_sockaddr(sa, PATH_OFFSET + 4, SOCK_STREAM, &a), 0);
	abstract = address_format(&a);
	ck_assert_str_eq(abstract, "unix:@a\\x00b");
}
END_TEST

START_TEST(equality)
{
	static const struct {
		const char *a, *b;
		bool equal;
	} cases[] = {
		{"80",		       "tcp:[::]:80",   true },
		{"80",		       "81",	     false},
		{"80",		       "udp:80",	 false},
		{"80",		       "0.0.0.0:80",    false},
		{"[::1]:80",		     "[0::1]:80",	  true },
		{"[::ffff:127.0.0.1]:80", "127.0.0.1:80",  false},
		{"[fe80::1%1]:80",	   "[fe80::1]:80",  false},
		{"/x",		       "unix:/x",	  true },
		{"/x",		       "/xy",	      false},
		{"/x",		       "unix:@x",	  false},
		{"/x",		       "unix-dgram:/x", false},
		{"unix:@x",		    "unix:@xy",	false},
		{"unix:@x",		    "unix:@x",       true },
		{"/x",		       "80",	     false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address a = parsed(cases[i].a), b = parsed(cases[i].b);

		ck_assert_msg(
			address_equal(&a, &b) == cases[i].equal, "%s %s", cases[i].a, cases[i].b);
		ck_assert_msg(
			address_equal(&b, &a) == cases[i].equal, "%s %s", cases[i].b, cases[i].a);
	}
}
END_TEST

START_TEST(overlap)
{
	static const struct {
		const char *a;
		bool a_v6only;
		const char *b;
		bool b_v6only, overlaps;
	} cases[] = {
		{"80",	       false, "80",		    false, true },
		{"80",	       true,  "80",			   false, true },
		{"80",	       true,  "80",			   true,	 true },
		{"80",	       false, "0.0.0.0:80",	    false, true },
		{"80",	       true,  "0.0.0.0:80",		   false, false},
		{"80",	       false, "127.0.0.1:80",	      false, true },
		{"80",	       true,  "127.0.0.1:80",	     false, false},
		{"80",	       false, "[::1]:80",		  false, true },
		{"80",	       true,  "[::1]:80",		 true,  true },
		{"80",	       false, "81",		    false, false},
		{"80",	       false, "udp:80",		false, false},
		{"0.0.0.0:80",     false, "127.0.0.1:80",	      false, true },
		{"0.0.0.0:80",     false, "[::1]:80",		  false, false},
		{"0.0.0.0:80",     false, "[::ffff:127.0.0.1]:80", false, true },
		{"127.0.0.1:80",	 false, "127.0.0.2:80",		false, false},
		{"127.0.0.1:80",	 false, "127.0.0.1:80",		false, true },
		{"127.0.0.1:80",	 false, "[::ffff:127.0.0.1]:80", false, true },
		{"127.0.0.1:0",	false, "127.0.0.1:0",	      false, false},
		{"[fe80::1%1]:80", false, "[fe80::1%2]:80",	    false, false},
		{"[fe80::1%1]:80", false, "[fe80::1%1]:80",	    false, true },
		{"/x",	       false, "/x",		    false, true },
		{"/x",	       false, "unix-dgram:/x",	       false, true },
		{"unix:@x",	    false, "unix-dgram:@x",	    false, false},
		{"unix:@x",	    false, "unix:@x",		      false, true },
		{"/x",	       false, "/y",		    false, false},
		{"/x",	       false, "80",		    false, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address a, b;

		if (strchr(cases[i].b, '2') && strchr(cases[i].b, '%')) {
			/* There may be no second interface to name. */
			a = parsed(cases[i].a);
			b = a;
			b.in6.sin6_scope_id = 2;
		} else {
			a = parsed(cases[i].a);
			b = parsed(cases[i].b);
		}
		ck_assert_msg(address_overlaps(&a, cases[i].a_v6only, &b, cases[i].b_v6only) ==
				      cases[i].overlaps,
			"%s %s", cases[i].a, cases[i].b);
		ck_assert_msg(address_overlaps(&b, cases[i].b_v6only, &a, cases[i].a_v6only) ==
				      cases[i].overlaps,
			"%s %s", cases[i].b, cases[i].a);
	}
}
END_TEST

/* Bind a to a port that the kernel chooses and then b to the same one: 0, -EADDRINUSE when b fails
 * so, or another error when the two cannot be compared here. */
static int bind_both(const struct address *a, int a_v6only, const struct address *b, int b_v6only)
{
	_cleanup_close_ int a_fd = -1, b_fd = -1;
	struct address other = *b;
	struct sockaddr_in6 got; /* the port is where sockaddr_in has it */
	socklen_t len = sizeof(got);

	a_fd = socket(address_family(a), SOCK_STREAM | SOCK_CLOEXEC, 0);
	b_fd = socket(address_family(b), SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (a_fd < 0 || b_fd < 0)
		return -EAFNOSUPPORT; /* no IPv6 here */
	if (address_family(a) == AF_INET6)
		setsockopt(a_fd, IPPROTO_IPV6, IPV6_V6ONLY, &a_v6only, sizeof(int));
	if (address_family(b) == AF_INET6)
		setsockopt(b_fd, IPPROTO_IPV6, IPV6_V6ONLY, &b_v6only, sizeof(int));
	if (bind(a_fd, &a->sa, a->len) < 0)
		return -EAFNOSUPPORT; /* a mapped address with v6only, or no ::1 */
	ck_assert_int_eq(getsockname(a_fd, (struct sockaddr *)&got, &len), 0);
	other.in6.sin6_port = got.sin6_port;
	return bind(b_fd, &other.sa, other.len) < 0 ? -errno : 0;
}

/* The kernel's own opinion: without SO_REUSEADDR, a second bind() fails exactly where we see an
 * overlap. A stranger may have the port that the kernel chose, for the other address only; so a
 * failure counts when it is one for each of several ports. */
START_TEST(overlap_as_the_kernel_has_it)
{
	static const char *const hosts[] = {"0.0.0.0", "127.0.0.1", "127.0.0.2", "[::]", "[::1]",
		"[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"};
	const size_t n = ARRAY_SIZE(hosts);
	size_t n_compared = 0;

	for (size_t i = 0; i < n * 2 * n * 2; i++) {
		_cleanup_free_ char *a_text = xasprintf("%s:0", hosts[i % n]);
		_cleanup_free_ char *b_text = xasprintf("%s:0", hosts[i / n / 2 % n]);
		struct address a = parsed(a_text), b = parsed(b_text);
		int a_v6only = i / n % 2 == 1, b_v6only = i / n / 2 / n == 1;
		int r = -EADDRINUSE;

		for (unsigned tries = 0; tries < 10 && r == -EADDRINUSE; tries++)
			r = bind_both(&a, a_v6only, &b, b_v6only);
		if (r < 0 && r != -EADDRINUSE)
			continue;
		a.in6.sin6_port = b.in6.sin6_port = htons(1); /* whichever it was */
		ck_assert_msg(address_overlaps(&a, a_v6only, &b, b_v6only) == (r == -EADDRINUSE),
			"%s %d, %s %d: %d", a_text, a_v6only, b_text, b_v6only, r);
		n_compared++;
	}
	ck_assert_uint_ge(n_compared, 9); /* IPv4 alone */
}
END_TEST

START_TEST(wildcards_and_loopback)
{
	static const struct {
		const char *s;
		bool wildcard;
		const char *loopback;
	} cases[] = {
		{"80",		       true,  "tcp:[::1]:80"		   },
		{"0.0.0.0:80",	       true,  "tcp:127.0.0.1:80"	       },
		{"udp:0.0.0.0:53",	   true,	 "udp:127.0.0.1:53"	   },
		{"[::ffff:0.0.0.0]:80", true,  "tcp:[::ffff:127.0.0.1]:80"},
		{"10.1.2.3:80",		false, "tcp:10.1.2.3:80"		},
		{"[2001:db8::1]:80",    false, "tcp:[2001:db8::1]:80"	  },
		{"/x",		       false, "unix:/x"		       },
		{"unix:@x",		    false, "unix:@x"		    },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address a = parsed(cases[i].s), loopback;
		_cleanup_free_ char *text = NULL;

		ck_assert_msg(address_is_wildcard(&a) == cases[i].wildcard, "%s", cases[i].s);
		address_loopback_of(&a, &loopback);
		text = address_format(&loopback);
		ck_assert_str_eq(text, cases[i].loopback);
	}
}
END_TEST

START_TEST(plain_ip)
{
	static const char *const wrong[] = {"", "127.0.0.1:80", "[::1]", "::1%lo", "127.0.0",
		"localhost", " 127.0.0.1", "127.0.0.1 ", "::g", "1"};
	static const uint8_t v4[16] = {127, 0, 0, 2}, v6[16] = {[15] = 1};
	uint8_t bytes[16];
	int family = -1;

	ck_assert_int_eq(address_parse_ip("127.0.0.2", &family, bytes), 0);
	ck_assert_int_eq(family, AF_INET);
	ck_assert_mem_eq(bytes, v4, 16);
	ck_assert_int_eq(address_parse_ip("::1", &family, bytes), 0);
	ck_assert_int_eq(family, AF_INET6);
	ck_assert_mem_eq(bytes, v6, 16);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		ck_assert_msg(
			address_parse_ip(wrong[i], &family, bytes) == -EINVAL, "%s", wrong[i]);
	ck_assert_mem_eq(bytes, v6, 16);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		forms,
		wrong_forms,
		unix_lengths,
		what_bind_wants,
		from_the_kernel,
		from_the_kernel_abstract,
		unix_from_outside,
		equality,
		overlap,
		overlap_as_the_kernel_has_it,
		wildcards_and_loopback,
		plain_ip,
	};

	return run_tests("address", tests, ARRAY_SIZE(tests));
}

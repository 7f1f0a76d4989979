/* SPDX-License-Identifier: Apache-2.0 */
/* Used by the daemon and, in a copy of its own, by libtenure: so it needs nothing but libc. */
#include "wire/channel.h"

#include <stdarg.h>

static const char *const kinds[] = {
#define X(name, text) [CHANNEL_##name] = text,
	CHANNEL_KINDS(X)
#undef X
};

static const char *const accepts[] = {"drain", "listeners", "ping", "descriptors"};
static const char *const types[] = {"stream", "datagram", "seqpacket"};

/* Which values a message of a kind has. */
enum field {
	FIELD_VERSION = 1 << 0,
	FIELD_ACCEPTS = 1 << 1,
	FIELD_ID = 1 << 2,
	FIELD_DEADLINE = 1 << 3,
	FIELD_PLACE = 1 << 4, /* service, generation, worker */
	FIELD_NAME = 1 << 5,
	FIELD_POLL = 1 << 6,
	FIELD_TYPE = 1 << 7,
	FIELD_ADDRESS = 1 << 8,
};

/* Those without which it makes no sense. */
static const unsigned needed[] = {
	[CHANNEL_UNKNOWN] = 0,
	[CHANNEL_HELLO] = FIELD_VERSION,
	[CHANNEL_PONG] = FIELD_ID,
	[CHANNEL_TAKEN] = FIELD_NAME,
	[CHANNEL_CLOSED] = FIELD_NAME,
	[CHANNEL_STORE] = FIELD_NAME,
	[CHANNEL_UNSTORE] = FIELD_NAME,
	[CHANNEL_WELCOME] = FIELD_VERSION,
	[CHANNEL_PING] = FIELD_ID,
	[CHANNEL_DRAIN] = 0,
	[CHANNEL_ADD] = FIELD_NAME | FIELD_TYPE,
	[CHANNEL_LEAVE] = FIELD_NAME,
	[CHANNEL_REMOVE] = FIELD_NAME,
	[CHANNEL_STORED] = FIELD_NAME,
	[CHANNEL_REFUSED] = FIELD_VERSION,
};

static const unsigned optional[] = {
	[CHANNEL_UNKNOWN] = 0,
	[CHANNEL_HELLO] = FIELD_ACCEPTS,
	[CHANNEL_WELCOME] = FIELD_PLACE,
	[CHANNEL_DRAIN] = FIELD_DEADLINE,
	[CHANNEL_ADD] = FIELD_ADDRESS,
	[CHANNEL_STORE] = FIELD_POLL,
	[CHANNEL_STORED] = 0,
};

static unsigned fields_of(enum channel_kind kind)
{
	return needed[kind] | ((size_t)kind < ARRAY_SIZE(optional) ? optional[kind] : 0);
}

const char *channel_kind_to_string(enum channel_kind kind)
{
	return kind > CHANNEL_UNKNOWN && (size_t)kind < ARRAY_SIZE(kinds) ? kinds[kind] : "unknown";
}

static bool is_text(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return true;
}

static bool is_name(const char *s, size_t len)
{
	if (len == 0 || len > CHANNEL_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (s[i] < 0x20 || s[i] >= 0x7f || s[i] == ':')
			return false;
	return true;
}

bool channel_name_valid(const char *name)
{
	return is_name(name, strlen(name));
}

/* --- reading ---------------------------------------------------------------- */

struct text { /* a part of the packet, not NUL-terminated */
	const char *s;
	size_t len;
};

static bool text_is(struct text t, const char *s)
{
	return t.len == strlen(s) && memcmp(t.s, s, t.len) == 0;
}

/* What precedes the separator, which is skipped with it; all of it when there is none. */
static struct text text_until(struct text *rest, char separator)
{
	const char *at = rest->len > 0 ? memchr(rest->s, separator, rest->len) : NULL;
	struct text found = {rest->s, at ? (size_t)(at - rest->s) : rest->len};

	rest->s += found.len + (at != NULL);
	rest->len -= found.len + (at != NULL);
	return found;
}

static bool read_number(struct text t, uint64_t max, uint64_t *ret)
{
	uint64_t value = 0;

	if (t.len == 0 || t.len > 20)
		return false;
	for (size_t i = 0; i < t.len; i++) {
		unsigned digit = (unsigned)(unsigned char)t.s[i] - '0';

		if (digit > 9 || value > (UINT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	if (value > max)
		return false;
	*ret = value;
	return true;
}

static bool read_unsigned(struct text t, unsigned *ret)
{
	uint64_t value;

	if (!read_number(t, UINT32_MAX, &value))
		return false;
	*ret = (unsigned)value;
	return true;
}

static bool read_text(struct text t, size_t max, char *ret)
{
	if (t.len > max || !is_text(t.s, t.len))
		return false;
	memcpy(ret, t.s, t.len);
	ret[t.len] = '\0';
	return true;
}

/* Words that are not known are of a newer one's making. */
static bool read_accepts(struct text t, unsigned *ret)
{
	while (t.len > 0) {
		struct text word = text_until(&t, ' ');

		for (size_t i = 0; i < ARRAY_SIZE(accepts); i++)
			if (text_is(word, accepts[i]))
				*ret |= 1U << i;
	}
	return true;
}

static bool read_type(struct text t, enum channel_type *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (text_is(t, types[i])) {
			*ret = (enum channel_type)i;
			return true;
		}
	return false;
}

static bool read_poll(struct text t, bool *ret_no_poll)
{
	uint64_t value;

	if (!read_number(t, 1, &value))
		return false;
	*ret_no_poll = value == 0;
	return true;
}

/* Which value it was; 0: none that is known, or one that cannot be. The first of a key counts. */
static unsigned read_value(
	struct text key, struct text value, unsigned had, struct channel_message *m)
{
	if (text_is(key, "version") && !(had & FIELD_VERSION))
		return read_unsigned(value, &m->version) ? FIELD_VERSION : 0;
	if (text_is(key, "accepts") && !(had & FIELD_ACCEPTS))
		return read_accepts(value, &m->accepts) ? FIELD_ACCEPTS : 0;
	if (text_is(key, "id") && !(had & FIELD_ID))
		return read_number(value, UINT64_MAX, &m->id) ? FIELD_ID : 0;
	if (text_is(key, "deadline") && !(had & FIELD_DEADLINE))
		return read_number(value, UINT64_MAX, &m->deadline_usec) ? FIELD_DEADLINE : 0;
	if (text_is(key, "generation"))
		return read_unsigned(value, &m->generation) ? FIELD_PLACE : 0;
	if (text_is(key, "worker"))
		return read_unsigned(value, &m->worker) ? FIELD_PLACE : 0;
	if (text_is(key, "service"))
		return read_text(value, CHANNEL_NAME_MAX, m->service) ? FIELD_PLACE : 0;
	if (text_is(key, "poll") && !(had & FIELD_POLL))
		return read_poll(value, &m->no_poll) ? FIELD_POLL : 0;
	if (text_is(key, "type") && !(had & FIELD_TYPE))
		return read_type(value, &m->type) ? FIELD_TYPE : 0;
	if (text_is(key, "address") && !(had & FIELD_ADDRESS))
		return read_text(value, CHANNEL_ADDRESS_MAX, m->address) ? FIELD_ADDRESS : 0;
	if (text_is(key, "name") && !(had & FIELD_NAME) && is_name(value.s, value.len))
		return read_text(value, CHANNEL_NAME_MAX, m->name) ? FIELD_NAME : 0;
	return 0;
}

static enum channel_kind read_kind(struct text t)
{
	for (size_t i = 1; i < ARRAY_SIZE(kinds); i++)
		if (text_is(t, kinds[i]))
			return (enum channel_kind)i;
	return CHANNEL_UNKNOWN;
}

int channel_parse(const void *data, size_t len, struct channel_message *ret)
{
	struct text rest = {data, len}, first, magic;
	unsigned had = 0, version;

	*ret = (struct channel_message){.deadline_usec = USEC_INFINITY};
	if (len == 0 || len > CHANNEL_MESSAGE_MAX || rest.s[len - 1] != '\n')
		return -EBADMSG;
	first = text_until(&rest, '\n');
	magic = text_until(&first, '/');
	if (!text_is(magic, "tenure") || !read_unsigned(text_until(&first, ' '), &version))
		return -EBADMSG;
	if (version != CHANNEL_VERSION) {
		ret->version = version;
		return -EPROTONOSUPPORT;
	}
	if (first.len == 0 || !is_text(first.s, first.len))
		return -EBADMSG;
	ret->kind = read_kind(first);
	while (rest.len > 0) {
		struct text line = text_until(&rest, '\n');
		struct text key = text_until(&line, '=');

		had |= read_value(key, line, had, ret);
	}
	return (had & needed[ret->kind]) == needed[ret->kind] ? 0 : -EBADMSG;
}

/* --- writing ---------------------------------------------------------------- */

struct packet {
	char *data;
	size_t len;
	bool full;
};

static void put(struct packet *p, const char *format, ...) _printf_(2, 3);
static void put(struct packet *p, const char *format, ...)
{
	size_t room = CHANNEL_MESSAGE_MAX - p->len;
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(p->data + p->len, room, format, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room)
		p->full = true;
	else
		p->len += (size_t)n;
}

static void put_accepts(struct packet *p, unsigned set)
{
	const char *separator = "";

	put(p, "accepts=");
	for (size_t i = 0; i < ARRAY_SIZE(accepts); i++)
		if (set & (1U << i)) {
			put(p, "%s%s", separator, accepts[i]);
			separator = " ";
		}
	put(p, "\n");
}

static bool can_be_sent(const struct channel_message *m, unsigned fields)
{
	if (m->kind <= CHANNEL_UNKNOWN || (size_t)m->kind >= ARRAY_SIZE(kinds))
		return false;
	if ((fields & FIELD_NAME) && !channel_name_valid(m->name))
		return false;
	return is_text(m->address, strlen(m->address)) && is_text(m->service, strlen(m->service)) &&
	       (size_t)m->type < ARRAY_SIZE(types);
}

int channel_format(const struct channel_message *m, char ret[static CHANNEL_MESSAGE_MAX])
{
	unsigned fields = (size_t)m->kind < ARRAY_SIZE(needed) ? fields_of(m->kind) : 0;
	struct packet p = {.data = ret};

	if (!can_be_sent(m, fields))
		return -EINVAL;
	put(&p, "tenure/%d %s\n", CHANNEL_VERSION, kinds[m->kind]);
	if (fields & FIELD_VERSION)
		put(&p, "version=%u\n", m->version);
	if (fields & FIELD_ACCEPTS)
		put_accepts(&p, m->accepts);
	if (fields & FIELD_PLACE)
		put(&p, "service=%s\ngeneration=%u\nworker=%u\n", m->service, m->generation,
			m->worker);
	if (fields & FIELD_ID)
		put(&p, "id=%llu\n", (unsigned long long)m->id);
	if ((fields & FIELD_DEADLINE) && m->deadline_usec != USEC_INFINITY)
		put(&p, "deadline=%llu\n", (unsigned long long)m->deadline_usec);
	if (fields & FIELD_NAME)
		put(&p, "name=%s\n", m->name);
	if (fields & FIELD_TYPE)
		put(&p, "type=%s\n", types[m->type]);
	if ((fields & FIELD_ADDRESS) && m->address[0])
		put(&p, "address=%s\n", m->address);
	if (fields & FIELD_POLL)
		put(&p, "poll=%d\n", !m->no_poll);
	return p.full ? -EINVAL : (int)p.len;
}

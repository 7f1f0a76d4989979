/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parse.h"

/* Digits behind the point that count: 10^8 times the microseconds of a day still fits 64 bits. */
#define MAX_DECIMALS 8

struct unit {
	const char *name;
	uint64_t factor;
};

/* Largest first; the order in which a duration of several parts is written. */
static const struct unit duration_units[] = {
	{"d",   UINT64_C(86400) * USEC_PER_SEC},
	{"h",   3600 * USEC_PER_SEC		 },
	{"m",   60 * USEC_PER_SEC	       },
	{"min", 60 * USEC_PER_SEC		 },
	{"s",   USEC_PER_SEC		  },
	{"ms",  USEC_PER_MSEC		    },
	{"us",  1			     },
};

static const struct unit size_units[] = {
	{"T", UINT64_C(1) << 40},
	{"G", UINT64_C(1) << 30},
	{"M", UINT64_C(1) << 20},
	{"K", UINT64_C(1) << 10},
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Consumes the digits at *s. -EINVAL: none; -ERANGE: over 64 bits (all digits are consumed, so that
 * the caller can still tell a wrong form behind them). */
static int take_digits(const char **s, uint64_t *ret)
{
	uint64_t value = 0;
	bool overflow = false;

	if (!is_digit(**s))
		return -EINVAL;
	for (; is_digit(**s); (*s)++) {
		overflow = overflow || __builtin_mul_overflow(value, 10, &value) ||
			   __builtin_add_overflow(value, (uint64_t)(**s - '0'), &value);
	}
	*ret = value;
	return overflow ? -ERANGE : 0;
}

/* Consumes ".digits" when there; the fraction is *ret_value / *ret_scale. */
static int take_fraction(const char **s, uint64_t *ret_value, uint64_t *ret_scale)
{
	uint64_t value = 0, scale = 1;
	unsigned n = 0;
	int r = 0;

	*ret_value = 0;
	*ret_scale = 1;
	if (**s != '.')
		return 0;
	(*s)++;
	if (!is_digit(**s))
		return -EINVAL;
	for (; is_digit(**s); (*s)++) {
		if (n < MAX_DECIMALS) {
			value = value * 10 + (uint64_t)(**s - '0');
			scale *= 10;
			n++;
		} else if (**s != '0') {
			r = -ERANGE;
		}
	}
	*ret_value = value;
	*ret_scale = scale;
	return r;
}

int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t value;
	int r = take_digits(&s, &value);

	if (r == -EINVAL || *s != '\0')
		return -EINVAL;
	if (r < 0 || value < min || value > max)
		return -ERANGE;
	*ret = value;
	return 0;
}

int parse_uint(const char *s, unsigned min, unsigned max, unsigned *ret)
{
	uint64_t value;
	int r = parse_u64(s, min, max, &value);

	if (r < 0)
		return r;
	*ret = (unsigned)value;
	return 0;
}

int parse_bool(const char *s, bool *ret)
{
	static const struct {
		const char *text;
		bool value;
	} words[] = {
		{"yes",	true },
		{"Yes",	true },
		{"YES",	true },
		{"no",    false},
		{"No",    false},
		{"NO",    false},
		{"true",	 true },
		{"True",	 true },
		{"TRUE",	 true },
		{"false", false},
		{"False", false},
		{"FALSE", false},
		{"on",    true },
		{"On",    true },
		{"ON",    true },
		{"off",	false},
		{"Off",	false},
		{"OFF",	false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (streq(s, words[i].text)) {
			*ret = words[i].value;
			return 0;
		}
	}
	return -EINVAL;
}

int parse_mode(const char *s, unsigned *ret)
{
	unsigned value = 0;

	if (*s == '\0')
		return -EINVAL;
	for (const char *p = s; *p; p++) {
		if (*p < '0' || *p > '7')
			return -EINVAL;
		/* One digit over the top is enough to know; it must not wrap round. */
		if (value <= 07777)
			value = value * 8 + (unsigned)(*p - '0');
	}
	if (value > 07777)
		return -ERANGE;
	*ret = value;
	return 0;
}

static const struct unit *take_duration_unit(const char **s)
{
	size_t len = 0;

	while ((*s)[len] >= 'a' && (*s)[len] <= 'z')
		len++;
	for (size_t i = 0; i < ARRAY_SIZE(duration_units); i++) {
		const struct unit *unit = &duration_units[i];

		if (strlen(unit->name) == len && strncmp(*s, unit->name, len) == 0) {
			*s += len;
			return unit;
		}
	}
	return NULL;
}

int parse_duration(const char *s, uint64_t *ret_usec)
{
	uint64_t total = 0, last_factor = UINT64_MAX;
	bool out_of_range = false;

	if (streq(s, "0") || streq(s, "infinity")) {
		*ret_usec = *s == '0' ? 0 : USEC_INFINITY;
		return 0;
	}
	if (*s == '\0')
		return -EINVAL;

	while (*s) {
		uint64_t whole, fraction, scale, part;
		const struct unit *unit;
		int r, q;

		r = take_digits(&s, &whole);
		if (r == -EINVAL)
			return r;
		q = take_fraction(&s, &fraction, &scale);
		if (q == -EINVAL)
			return q;
		unit = take_duration_unit(&s);
		if (!unit || unit->factor >= last_factor)
			return -EINVAL;
		last_factor = unit->factor;

		out_of_range =
			out_of_range || r < 0 || q < 0 || fraction * unit->factor % scale != 0 ||
			__builtin_add_overflow(total, fraction * unit->factor / scale, &total) ||
			__builtin_mul_overflow(whole, unit->factor, &part) ||
			__builtin_add_overflow(total, part, &total);
	}
	/* What happens to be the value for "never" is too large, not endless. */
	if (out_of_range || total == USEC_INFINITY)
		return -ERANGE;
	*ret_usec = total;
	return 0;
}

int parse_size(const char *s, uint64_t *ret_bytes)
{
	uint64_t value, factor = 1;
	int r = take_digits(&s, &value);

	if (r == -EINVAL)
		return r;
	for (size_t i = 0; *s && i < ARRAY_SIZE(size_units); i++) {
		if (*s == size_units[i].name[0]) {
			factor = size_units[i].factor;
			s++;
			break;
		}
	}
	if (*s)
		return -EINVAL;
	if (r < 0 || __builtin_mul_overflow(value, factor, &value))
		return -ERANGE;
	*ret_bytes = value;
	return 0;
}

int parse_percent(const char *s, unsigned *ret_share)
{
	uint64_t whole, fraction, scale;
	int r, q;

	r = take_digits(&s, &whole);
	if (r == -EINVAL)
		return r;
	q = take_fraction(&s, &fraction, &scale);
	if (q == -EINVAL || !streq(s, "%"))
		return -EINVAL;
	if (r < 0 || q < 0 || whole > 100 || fraction * 100 % scale != 0)
		return -ERANGE;
	whole = whole * 100 + fraction * 100 / scale;
	if (whole > 10000)
		return -ERANGE;
	*ret_share = (unsigned)whole;
	return 0;
}

/* value / scale with as many decimals as it takes, and the unit. */
static char *append_decimal(char *to, char *end, uint64_t value, uint64_t scale, const char *unit)
{
	uint64_t fraction = value % scale;

	to += snprintf(to, (size_t)(end - to), "%llu", (unsigned long long)(value / scale));
	if (fraction > 0)
		*to++ = '.';
	while (fraction > 0) {
		fraction *= 10;
		*to++ = (char)('0' + fraction / scale);
		fraction %= scale;
	}
	return to + snprintf(to, (size_t)(end - to), "%s", unit);
}

char *format_duration(uint64_t usec)
{
	static const struct unit large[] = {
		{"d", UINT64_C(86400) * USEC_PER_SEC},
		{"h", 3600 * USEC_PER_SEC		 },
		{"m", 60 * USEC_PER_SEC	       },
	};
	/* The longest, "213503982d8h59m59.999999s", is less than half of it. */
	char text[64], *p = text, *end = text + sizeof(text);

	if (usec == USEC_INFINITY)
		return strdup("infinity");
	if (usec == 0)
		return strdup("0s");

	for (size_t i = 0; i < ARRAY_SIZE(large); i++) {
		if (usec >= large[i].factor) {
			p = append_decimal(p, end, usec / large[i].factor, 1, large[i].name);
			usec %= large[i].factor;
		}
	}
	if (usec >= USEC_PER_SEC)
		append_decimal(p, end, usec, USEC_PER_SEC, "s");
	else if (usec >= USEC_PER_MSEC)
		append_decimal(p, end, usec, USEC_PER_MSEC, "ms");
	else if (usec > 0)
		append_decimal(p, end, usec, 1, "us");
	return strdup(text);
}

char *format_size(uint64_t bytes)
{
	for (size_t i = 0; bytes > 0 && i < ARRAY_SIZE(size_units); i++)
		if (bytes % size_units[i].factor == 0)
			return xasprintf("%llu%s",
				(unsigned long long)(bytes / size_units[i].factor),
				size_units[i].name);
	return xasprintf("%llu", (unsigned long long)bytes);
}

char *format_percent(unsigned share)
{
	char text[32];

	append_decimal(text, text + sizeof(text), share, 100, "%");
	return strdup(text);
}

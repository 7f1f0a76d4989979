/* SPDX-License-Identifier: Apache-2.0 */
/* Socket options as people write and read them: values, refusals, differences. */
#include <arpa/inet.h>
#include <limits.h>

#include "base/parse.h"
#include "core/socket_options.h"

/* --- written ---------------------------------------------------------------- */

static int parse_number(const char *text, uint64_t *ret)
{
	const char *digits = startswith(text, "0x");
	uint64_t value = 0;

	if (!digits)
		return parse_u64(text, 0, UINT64_MAX, ret);
	if (!*digits)
		return -EINVAL;
	for (; *digits; digits++) {
		const char *found = strchr("0123456789abcdef", *digits | 0x20);

		if (!found || *digits == ' ')
			return -EINVAL;
		if (value >> 60)
			return -ERANGE;
		value = value << 4 | (uint64_t)(found - "0123456789abcdef");
	}
	*ret = value;
	return 0;
}

static const char *unit_name(uint64_t usec)
{
	return usec == USEC_PER_SEC    ? "seconds"
	       : usec == USEC_PER_MSEC ? "milliseconds"
				       : "microseconds";
}

/* A duration in the kernel's unit; "off" where 0, or -1 for linger, means that. */
static int parse_time(const struct socket_option_info *info, const char *text, int64_t *ret,
	struct error *ret_error)
{
	bool may_be_off = info->type == OPTION_IS_LINGER || info->min == 0, off = false;
	uint64_t usec = 0;
	int r;

	if (may_be_off && parse_bool(text, &off) == 0 && !off) {
		*ret = info->min;
		return 0;
	}
	r = parse_duration(text, &usec);
	if (r == -EINVAL)
		return error_set(ret_error, r,
			"%s: \"%s\" is not a duration; write a number and a unit, such as %s%s",
			info->key, text,
			info->unit_usec < USEC_PER_MSEC ? "50us, 250ms" : "30s, 5m",
			may_be_off ? ", or off" : "");
	if (r < 0 || usec / info->unit_usec > (uint64_t)info->max)
		usec = UINT64_MAX;
	else if (usec % info->unit_usec != 0)
		return error_set(ret_error, -EINVAL,
			"%s: \"%s\" is not a whole number of %s, in which the kernel counts it",
			info->key, text, unit_name(info->unit_usec));
	*ret = usec == UINT64_MAX ? INT64_MAX : (int64_t)(usec / info->unit_usec);
	return 0;
}

static int parse_amount(const struct socket_option_info *info, const char *text, int64_t *ret,
	struct error *ret_error)
{
	bool size = info->type == OPTION_IS_SIZE;
	uint64_t value = 0;
	int r = size ? parse_size(text, &value) : parse_number(text, &value);

	if (r == -EINVAL)
		return size ? error_set(ret_error, r,
				      "%s: \"%s\" is not a size; write a number of bytes, or with "
				      "K, M or G, such as 64K",
				      info->key, text)
			    : error_set(
				      ret_error, r, "%s: \"%s\" is not a number", info->key, text);
	*ret = r < 0 || value > INT64_MAX ? INT64_MAX : (int64_t)value;
	return 0;
}

static int parse_text(
	const struct socket_option_info *info, const char *text, char *ret, struct error *ret_error)
{
	size_t len = strlen(text);
	bool good = len > 0 && len <= SOCKOPT_TEXT_MAX && !streq(text, ".") && !streq(text, "..");

	for (const char *p = text; *p && good; p++)
		good = *p > ' ' && *p < 127 && *p != '/' && *p != ':';
	if (!good)
		return error_set(ret_error, -EINVAL, "%s: \"%s\" is not the name of %s%s",
			info->key, text,
			info->name == SO_BINDTODEVICE && info->level == SOL_SOCKET
				? "a network interface"
				: "an algorithm",
			len > SOCKOPT_TEXT_MAX ? ", which has at most 15 characters" : "");
	memcpy(ret, text, len + 1);
	return 0;
}

static int check_range(
	enum socket_option option, const char *text, int64_t value, struct error *ret_error)
{
	const struct socket_option_info *info = socket_option_info(option);
	_cleanup_free_ char *min = NULL, *max = NULL;
	/* Where "off" is the least, it is said beside the range of the others. */
	bool off =
		(info->type == OPTION_IS_TIME || info->type == OPTION_IS_LINGER) && info->min <= 0;

	if (value >= info->min && value <= info->max)
		return 0;
	min = socket_option_format(option,
		!off				 ? info->min
		: info->type == OPTION_IS_LINGER ? 0
						 : 1,
		NULL);
	max = socket_option_format(option, info->max, NULL);
	if (!min || !max)
		return -ENOMEM;
	return error_set(ret_error, -ERANGE, "%s: \"%s\" is not between %s and %s%s", info->key,
		text, min, max, off ? ", nor off" : "");
}

int socket_options_parse(struct socket_options *o, enum socket_option option, const char *text,
	struct config_place place, struct error *ret_error)
{
	const struct socket_option_info *info = socket_option_info(option);
	char word[SOCKOPT_TEXT_MAX + 1] = "";
	int64_t value = 0;
	bool on = false;
	int r = 0;

	if (info->refused)
		return error_set(ret_error, -EINVAL, "%s %s", info->key, info->refused);
	switch (info->type) {
	case OPTION_IS_BOOL:
		r = parse_bool(text, &on);
		if (r < 0)
			return error_set(ret_error, r, "%s: \"%s\" is neither true nor false",
				info->key, text);
		value = on;
		break;
	case OPTION_IS_NUMBER:
	case OPTION_IS_SIZE:
		r = parse_amount(info, text, &value, ret_error);
		break;
	case OPTION_IS_TIME:
	case OPTION_IS_LINGER:
		r = parse_time(info, text, &value, ret_error);
		break;
	case OPTION_IS_TEXT:
		r = parse_text(info, text, word, ret_error);
		break;
	case OPTION_IS_GROUPS:
		r = -EINVAL;
		break;
	}
	if (r >= 0 && info->type != OPTION_IS_TEXT)
		r = check_range(option, text, value, ret_error);
	if (r < 0)
		return r;
	if (option == OPTION_REUSEPORT && value == 0)
		return error_set(ret_error, -EINVAL,
			"reuseport: it is %s; leave it out, or write steering: off for one socket "
			"that both share",
			info->by_itself);
	return socket_options_set(o, option, value, word, place);
}

static bool is_multicast(const struct multicast_group *g)
{
	return g->family == AF_INET ? (g->address[0] & 0xf0) == 0xe0 : g->address[0] == 0xff;
}

int socket_options_add_group(
	struct socket_options *o, const char *group, const char *interface, struct error *ret_error)
{
	const struct socket_option_info name = {
		.key = "multicast", .level = SOL_SOCKET, .name = SO_BINDTODEVICE};
	const char *percent = interface ? NULL : strchr(group, '%');
	struct multicast_group g = {0}, *longer;
	_cleanup_free_ char *address =
		percent ? strndup(group, (size_t)(percent - group)) : strdup(group);

	if (!address)
		return -ENOMEM;
	if (address_parse_ip(address, &g.family, g.address) < 0 || !is_multicast(&g))
		return error_set(ret_error, -EINVAL,
			"multicast: \"%s\" is not the address of a group, such as 239.1.2.3 or "
			"ff05::1:3",
			address);
	interface = percent ? percent + 1 : interface;
	if (interface && parse_text(&name, interface, g.interface, ret_error) < 0)
		return -EINVAL;
	for (size_t i = 0; i < o->n_groups; i++)
		if (multicast_group_equal(&o->groups[i], &g))
			return error_set(
				ret_error, -EINVAL, "multicast: \"%s\" is there twice", group);
	if (o->n_groups >= MULTICAST_GROUPS_MAX)
		return error_set(
			ret_error, -ERANGE, "multicast: more than %d groups", MULTICAST_GROUPS_MAX);
	longer = reallocarray(o->groups, o->n_groups + 1, sizeof(*longer));
	if (!longer)
		return -ENOMEM;
	o->groups = longer;
	o->groups[o->n_groups++] = g;
	return 0;
}

/* --- shown ------------------------------------------------------------------- */

char *multicast_group_format(const struct multicast_group *g)
{
	char address[INET6_ADDRSTRLEN];

	if (!inet_ntop(g->family, g->address, address, sizeof(address)))
		return strdup("?");
	return xasprintf("%s%s%s", address, g->interface[0] ? "%" : "", g->interface);
}

char *socket_option_format(enum socket_option option, int64_t value, const char *text)
{
	const struct socket_option_info *info = socket_option_info(option);

	switch (info->type) {
	case OPTION_IS_BOOL:
		return strdup(value ? "true" : "false");
	case OPTION_IS_SIZE:
		return value >= 0 ? format_size((uint64_t)value)
				  : xasprintf("%lld", (long long)value);
	case OPTION_IS_TIME:
	case OPTION_IS_LINGER:
		if (value < 0 || (value == 0 && info->type == OPTION_IS_TIME))
			return strdup("off");
		return format_duration((uint64_t)value * info->unit_usec);
	case OPTION_IS_TEXT:
		return strdup(text && *text ? text : "none");
	case OPTION_IS_NUMBER:
		if (option == OPTION_INCOMING_CPU && value < 0)
			return strdup("none");
		return xasprintf(option == OPTION_MARK ? "0x%llx" : "%lld", (long long)value);
	case OPTION_IS_GROUPS:
		break;
	}
	return xasprintf("%lld", (long long)value);
}

static char *explain_permission(enum socket_option option, const char *text)
{
	const struct socket_option_info *info = socket_option_info(option);

	if (option == OPTION_CONGESTION)
		return xasprintf("\"%s\" is not in net.ipv4.tcp_allowed_congestion_control, and "
				 "others need CAP_NET_ADMIN",
			text);
	if (option == OPTION_PRIORITY)
		return strdup("more than 6 needs CAP_NET_ADMIN; run tenured as root; in its unit, "
			      "write CapabilityBoundingSet=CAP_NET_ADMIN, and with User= also "
			      "AmbientCapabilities=CAP_NET_ADMIN");
	if (!info->privilege)
		return strdup("tenured may not");
	return xasprintf("it needs %s; run tenured as root; in its unit, write "
			 "CapabilityBoundingSet=%s, and with User= also AmbientCapabilities=%s",
		info->privilege, info->privilege, info->privilege);
}

static char *explain(enum socket_option option, const char *text, int code)
{
	switch (code) {
	case -EPERM:
	case -EACCES:
		return explain_permission(option, text);
	case -ENOENT:
		if (option == OPTION_CONGESTION)
			return xasprintf("this kernel has no algorithm \"%s\"; see "
					 "net.ipv4.tcp_available_congestion_control, or load the "
					 "module tcp_%s",
				text, text);
		break;
	case -ENODEV:
		return *text ? xasprintf("there is no network interface \"%s\" here", text)
			     : strdup("no network interface has a route there; name one");
	case -ENOPROTOOPT:
	case -EOPNOTSUPP:
		return strdup("this kernel does not have it; leave it out");
	case -EADDRNOTAVAIL:
		return strdup("the interface has no address of that family");
	case -ENOBUFS:
		if (option == OPTION_MULTICAST)
			return strdup("more groups than net.ipv4.igmp_max_memberships");
		break;
	case -EINVAL:
		return strdup("the kernel does not take this value");
	default:
		break;
	}
	return NULL;
}

char *socket_option_refusal(enum socket_option option, int64_t value, const char *text, int code)
{
	const struct socket_option_info *info = socket_option_info(option);
	_cleanup_free_ char *why = explain(option, text ? text : "", code);
	_cleanup_free_ char *what = option == OPTION_MULTICAST
					    ? strdup(text && *text ? text : "?")
					    : socket_option_format(option, value, text);

	if (!what)
		return NULL;
	return xasprintf("%s: %s (%s) is refused: %s%s%s", info->key, what, info->kernel,
		strerror(-code), why ? "; " : "", why ? why : "");
}

static char *note_buffer(int64_t wanted, int64_t actual, const char *sysctl, int64_t limit)
{
	_cleanup_free_ char *most = NULL;

	if (actual == 2 * wanted)
		return strdup("the kernel doubles it");
	if (actual > 2 * wanted)
		return strdup("the least that the kernel takes");
	if (limit <= 0 || wanted <= limit)
		return NULL;
	most = format_size((uint64_t)limit);
	return most ? xasprintf("%s is %s; the kernel doubles it", sysctl, most) : NULL;
}

char *socket_option_note(enum socket_option option, int64_t wanted, int64_t actual,
	const struct socket_option_limits *limits)
{
	enum socket_option_quirk quirk = socket_option_info(option)->quirk;

	/* What is doubled and at its limit may be as it was asked for by chance. */
	if (wanted == actual && quirk != QUIRK_RMEM && quirk != QUIRK_WMEM)
		return NULL;
	switch (quirk) {
	case QUIRK_RMEM:
		return note_buffer(wanted, actual, "net.core.rmem_max", limits->rmem_max);
	case QUIRK_WMEM:
		return note_buffer(wanted, actual, "net.core.wmem_max", limits->wmem_max);
	case QUIRK_DOUBLED:
		return note_buffer(wanted, actual, "", 0);
	case QUIRK_SOMAXCONN:
		return limits->somaxconn > 0 && actual == limits->somaxconn && wanted > actual
			       ? xasprintf("net.core.somaxconn is %lld", (long long)actual)
			       : NULL;
	case QUIRK_DEFER:
		return actual > wanted ? strdup("the kernel rounds up to when it would answer the "
						"client again: 1s, 3s, 7s, 15s ...")
				       : NULL;
	case QUIRK_ECN:
		return (wanted & ~3) == (actual & ~3)
			       ? strdup("the two lowest bits of TCP are the kernel's (ECN)")
			       : NULL;
	case QUIRK_HALF:
		return actual < wanted ? strdup("at most half of the receive buffer") : NULL;
	case QUIRK_TICKS:
		return actual > wanted && actual - wanted <= 10000
			       ? strdup("the kernel rounds up to its ticks")
			       : NULL;
	case QUIRK_NONE:
		break;
	}
	return NULL;
}

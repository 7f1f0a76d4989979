/* SPDX-License-Identifier: Apache-2.0 */
/* A flat map of two words is all that workers send; YAML in its full beauty is not needed for that.
 */
#include "wire/einhorn.h"

#include "base/parse.h"

static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (startswith(s, "%0A") || startswith(s, "%0a")) {
			*out++ = '\n';
			s += 2;
		} else if (startswith(s, "%25")) {
			*out++ = '%';
			s += 2;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

/* Without blanks and quotes around it. */
static char *strip(char *s)
{
	size_t n;

	s += strspn(s, " \t\r\"'");
	n = strlen(s);
	while (n > 0 && strchr(" \t\r\"'", s[n - 1]))
		s[--n] = '\0';
	return s;
}

enum einhorn_kind einhorn_parse(char *line, struct einhorn_command *ret)
{
	char *rest = line, *pair;
	unsigned pid;

	*ret = (struct einhorn_command){.kind = EINHORN_NOTHING};
	unescape(line);
	while ((pair = strsep(&rest, "\n,{}"))) {
		char *value = strchr(pair, ':');

		if (!value)
			continue;
		*value++ = '\0';
		pair = strip(pair);
		value = strip(value);
		if (streq(pair, "command"))
			ret->kind = streq(value, "worker:ack") ? EINHORN_ACK : EINHORN_OTHER;
		else if (streq(pair, "pid") && parse_uint(value, 1, INT32_MAX, &pid) == 0)
			ret->pid = (pid_t)pid;
	}
	return ret->kind;
}

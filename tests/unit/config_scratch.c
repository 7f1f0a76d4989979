/* SPDX-License-Identifier: Apache-2.0 */
#include "config_scratch.h"

#include <check.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/config_yaml.h"

char scratch_golden_directory[PATH_MAX];
char scratch_example[PATH_MAX];
char scratch_directory[] = "/tmp/test_config_yaml.XXXXXX";

void scratch_enter(void)
{
	strcpy(scratch_directory, "/tmp/test_config_yaml.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch_directory));
	ck_assert_int_eq(chdir(scratch_directory), 0);
}

void scratch_leave(void)
{
	_cleanup_free_ char *command = xasprintf("rm -rf '%s'", scratch_directory);

	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_int_eq(system(command), 0);
}

void write_file(const char *name, const void *data, size_t len)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fchmod(fd, 0644), 0); /* whatever the umask */
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	ck_assert_int_eq(close(fd), 0);
}

void write_text(const char *name, const char *text)
{
	write_file(name, text, strlen(text));
}

/* The problems' lines, sorted, without "t.yaml:" in front of the place. */
static char *problem_lines(const struct config_problems *p)
{
	_cleanup_free_ char *all = strdup("");

	for (size_t i = 0; i < p->n; i++) {
		_cleanup_free_ char *line = config_problem_format(&p->list[i]);
		const char *rest = startswith(line, "t.yaml:");
		char *longer = xasprintf("%s%s\n", all, rest && *rest != ' ' ? rest : line);

		free(all);
		all = longer;
	}
	return TAKE_PTR(all);
}

size_t load(const char *path, struct config **ret, char **ret_lines)
{
	struct config_problems problems = {0};
	_cleanup_error_ struct error error = ERROR_NULL;
	size_t n;

	ck_assert_msg(config_load(path, ret, &problems, &error) == 0, "%s", error_message(&error));
	ck_assert_int_eq(config_resolve(*ret, 4, &problems), 0);
	*ret_lines = problem_lines(&problems);
	n = problems.n_errors;
	config_problems_done(&problems);
	return n;
}

/* The problems of a file with this text. */
char *problems_of(const void *text, size_t len)
{
	_cleanup_config_ struct config *c = NULL;
	char *lines = NULL;

	write_file("t.yaml", text, len);
	load("t.yaml", &c, &lines);
	return lines;
}

char *append(char *s, const char *more)
{
	char *longer = xasprintf("%s%s", s ? s : "", more);

	free(s);
	ck_assert_ptr_nonnull(longer);
	return longer;
}

/* before, then what n times, then after. */
char *repeat(const char *before, const char *what, size_t n, const char *after)
{
	size_t len = strlen(what), start = strlen(before);
	char *s = malloc(start + n * len + strlen(after) + 1);

	ck_assert_ptr_nonnull(s);
	memcpy(s, before, start);
	for (size_t i = 0; i < n; i++)
		memcpy(s + start + i * len, what, len);
	strcpy(s + start + n * len, after);
	return s;
}

void scratch_find_files(void)
{
	const char *srcdir = getenv("srcdir");
	_cleanup_free_ char *golden = NULL, *conf = NULL;

	if (!srcdir)
		srcdir = ".";
	golden = xasprintf("%s/tests/unit", srcdir);
	conf = xasprintf("%s/conf/example.yaml", srcdir);
	if (!realpath(golden, scratch_golden_directory) || !realpath(conf, scratch_example)) {
		fprintf(stderr, "tests/unit and conf/example.yaml not found; set srcdir\n");
		exit(99);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a generation is made from: looked up once, kept, and compared with what is there later. */
#include "daemon/snapshot.h"

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>

#include "unit.h"

static char scratch[PATH_MAX];
static struct service_config config;
static const struct rlimit nofile = {1000, 2000};
static size_t n_fds;

/* A path in the scratch directory; good until the next call but three. */
static const char *in(const char *name)
{
	static char paths[4][PATH_MAX];
	static unsigned at;
	char *path = paths[at++ % ARRAY_SIZE(paths)];

	ck_assert_int_lt(snprintf(path, PATH_MAX, "%s/%s", scratch, name), PATH_MAX);
	return path;
}

static void make_directory_of(const char *name)
{
	ck_assert_int_eq(mkdir(in(name), 0755), 0);
}

static void put(const char *name, const char *text, mode_t mode)
{
	int fd = open(in(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(fchmod(fd, mode), 0);
	close_fd(fd);
}

/* "current" leads to target from now on, as a deployment does it. */
static void link_current(const char *target)
{
	ck_assert_int_eq(symlink(target, in("new")), 0);
	ck_assert_int_eq(rename(in("new"), in("current")), 0);
}

static void set(char **field, const char *text)
{
	free(*field);
	*field = text ? strdup(text) : NULL;
}

static void set_command(const char *program, const char *argument)
{
	config.command = strv_free(config.command);
	ck_assert_int_eq(strv_append(&config.command, program), 0);
	if (argument)
		ck_assert_int_eq(strv_append(&config.command, argument), 0);
}

static void add_listener(const char *name)
{
	struct listener_config *l;

	config.listeners =
		realloc(config.listeners, (config.n_listeners + 1) * sizeof(*config.listeners));
	ck_assert_ptr_nonnull(config.listeners);
	l = &config.listeners[config.n_listeners++];
	listener_config_init(l);
	l->name = strdup(name);
	ck_assert_int_eq(address_parse("tcp:127.0.0.1:8080", true, &l->address), 0);
}

static void add_env_file(const char *path, bool optional)
{
	config.env_files =
		realloc(config.env_files, (config.n_env_files + 1) * sizeof(*config.env_files));
	ck_assert_ptr_nonnull(config.env_files);
	config.env_files[config.n_env_files++] =
		(struct env_file){.path = strdup(path), .optional = optional};
}

/* Two releases, each with a script, an ELF file (as far as its first bytes say) and a marker. */
static void set_up(void)
{
	n_fds = count_fds();
	(void)snprintf(scratch, sizeof(scratch), "/tmp/tenured-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	for (unsigned i = 1; i <= 2; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "r%u", i);
		make_directory_of(name);
		(void)snprintf(name, sizeof(name), "r%u/bin", i);
		make_directory_of(name);
		(void)snprintf(name, sizeof(name), "r%u/bin/web", i);
		put(name, "\177ELF and more", 0755);
		(void)snprintf(name, sizeof(name), "r%u/script", i);
		put(name, "#!/bin/sh\n", 0755);
		(void)snprintf(name, sizeof(name), "r%u/REVISION", i);
		put(name, i == 1 ? "one" : "two", 0644);
	}
	link_current("r1");
	ck_assert_int_eq(service_config_init(&config, "web"), 0);
	set(&config.directory, in("current"));
	set_command("bin/web", NULL);
	config.workers = 1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void tear_down(void)
{
	service_config_done(&config);
	ck_assert_int_eq(nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	ck_assert_uint_eq(count_fds(), n_fds);
}

static struct snapshot *take(void)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct snapshot *s = NULL;
	int r = snapshot_new(&config, &nofile, &s, &error);

	ck_assert_msg(r == 0, "%s", error_message(&error));
	return s;
}

/* It fails, and the message has all of these words. */
static void refused(int code, const char *first, const char *second)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct snapshot *s = NULL;

	ck_assert_int_eq(snapshot_new(&config, &nofile, &s, &error), code);
	ck_assert_ptr_null(s);
	ck_assert_msg(strstr(error_message(&error), first), "%s: not \"%s\"", error_message(&error),
		first);
	ck_assert_msg(!second || strstr(error_message(&error), second), "%s: not \"%s\"",
		error_message(&error), second);
}

/* What has changed, in one line. */
static void expect_pending(const struct snapshot *s, const char *want)
{
	_cleanup_strv_ char **reasons = NULL;
	char text[256] = "";

	ck_assert_int_eq(snapshot_pending(s, &reasons), 0);
	for (size_t i = 0; reasons && reasons[i]; i++) {
		strcat(text, i > 0 ? ", " : "");
		strcat(text, reasons[i]);
	}
	ck_assert_str_eq(text, want);
}

START_TEST(a_release_is_kept)
{
	_cleanup_snapshot_ struct snapshot *s = take(), *later = NULL;
	char seen[PATH_MAX];
	struct stat fd, path;

	ck_assert_str_eq(s->directory, in("r1"));
	ck_assert_str_eq(s->executable, in("r1/bin/web"));
	expect_pending(s, "");
	link_current("r2");
	/* What it holds is still the old one, by name and by descriptor. */
	(void)snprintf(seen, sizeof(seen), "/proc/self/fd/%d", s->directory_fd);
	ck_assert_int_eq(stat(seen, &fd), 0);
	ck_assert_int_eq(stat(in("r1"), &path), 0);
	ck_assert(fd.st_dev == path.st_dev && fd.st_ino == path.st_ino);
	ck_assert_int_eq(fstat(s->exec_fd, &fd), 0);
	ck_assert_int_eq(stat(in("r1/bin/web"), &path), 0);
	ck_assert(fd.st_dev == path.st_dev && fd.st_ino == path.st_ino);
	expect_pending(s, "directory, executable");
	later = take();
	ck_assert_str_eq(later->directory, in("r2"));
	expect_pending(later, "");
	/* Of its own: the caller's configuration may change or go. */
	set(&config.name, "other");
	ck_assert_str_eq(s->config.name, "web");
	link_current("r1");
	expect_pending(s, "");
}
END_TEST

START_TEST(a_directory_that_is_not_there)
{
	_cleanup_snapshot_ struct snapshot *s = take();

	set(&config.directory, in("nowhere"));
	refused(-ENOENT, "web: directory", "nowhere");
	set(&config.directory, in("r1/REVISION"));
	refused(-ENOTDIR, "web: directory", "REVISION");
	/* While a deployment is half done, nothing can be said, and nothing breaks. */
	ck_assert_int_eq(unlink(in("current")), 0);
	expect_pending(s, "");
}
END_TEST

START_TEST(descriptors_in_words)
{
	_cleanup_snapshot_ struct snapshot *s = NULL, *with_stdin = NULL;

	add_listener("http");
	add_listener("admin");
	set_command("bin/web", "--fds={fd:admin},{fd:http},{fd:admin} {fd:none}");
	ck_assert_int_eq(strv_append(&config.environment, "BIND=fd@{fd:admin}"), 0);
	s = take();
	ck_assert_str_eq(s->argv[0], "bin/web");
	ck_assert_str_eq(s->argv[1], "--fds=4,3,4 {fd:none}");
	ck_assert_ptr_null(s->argv[2]);
	ck_assert_str_eq(strv_env_get(s->environment, "BIND"), "fd@4");
	ck_assert_int_eq(snapshot_listener_fd(&config, 0), 3);
	ck_assert_int_eq(snapshot_listener_fd(&config, 1), 4);

	config.handoff = HANDOFF_STDIN;
	with_stdin = take();
	ck_assert_str_eq(with_stdin->argv[1], "--fds=4,0,4 {fd:none}");
}
END_TEST

START_TEST(the_path_is_searched)
{
	_cleanup_snapshot_ struct snapshot *s = NULL, *empty_element = NULL;
	char path[PATH_MAX];

	set_command("web", NULL);
	/* Where nobody said otherwise. */
	refused(-ENOENT, "web: web was not found in PATH", "/usr/local/sbin:/usr/local/bin");
	(void)snprintf(path, sizeof(path), "PATH=/nowhere:%s:%s", in("r2/bin"), in("r1/bin"));
	ck_assert_int_eq(strv_append(&config.environment, path), 0);
	s = take();
	ck_assert_str_eq(s->executable, in("r2/bin/web"));
	ck_assert_str_eq(s->argv[0], "web");
	ck_assert_int_eq(chmod(in("r2/bin/web"), 0644), 0);
	expect_pending(s, "executable");
	ck_assert_int_eq(strv_env_set(&config.environment, "PATH", in("r2/bin")), 0);
	refused(-EACCES, "web was not found in PATH", in("r2/bin"));
	/* Relative elements are relative to the service's directory, wherever we are. */
	ck_assert_int_eq(strv_env_set(&config.environment, "PATH", "bin"), 0);
	empty_element = take();
	ck_assert_str_eq(empty_element->executable, in("r1/bin/web"));
}
END_TEST

START_TEST(relative_and_absolute_programs)
{
	const char *const programs[] = {"bin/web", "./bin/web", "../r1/bin/web", NULL};

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		_cleanup_snapshot_ struct snapshot *s = NULL;
		const char *program = programs[i] ? programs[i] : in("current/bin/web");

		set_command(program, NULL);
		s = take();
		ck_assert_str_eq(s->executable, in("r1/bin/web"));
		ck_assert_str_eq(s->argv[0], program);
	}
	set_command("bin/none", NULL);
	refused(-ENOENT, "web: program bin/none", in("r1"));
	set_command("./REVISION", NULL);
	refused(-EACCES, "web: program ./REVISION", in("r1"));
	set_command("./bin", NULL);
	refused(-EACCES, "web: program ./bin", NULL);
}
END_TEST

START_TEST(a_program_that_changes)
{
	_cleanup_snapshot_ struct snapshot *elf = take(), *script = NULL;

	set_command("./script", NULL);
	script = take();
	ck_assert_int_ge(elf->exec_fd, 0);
	ck_assert_int_eq(script->exec_fd, -1);
	ck_assert(!snapshot_program_changed(elf) && !snapshot_program_changed(script));

	/* Replaced by rename: the pinned one is run all the same, a script is not pinned. */
	put("r1/script.new", "#!/bin/sh\nexit\n", 0755);
	ck_assert_int_eq(rename(in("r1/script.new"), in("r1/script")), 0);
	put("r1/web.new", "\177ELF, a newer one", 0755);
	ck_assert_int_eq(rename(in("r1/web.new"), in("r1/bin/web")), 0);
	ck_assert(snapshot_program_changed(script));
	ck_assert(!snapshot_program_changed(elf));
	expect_pending(script, "executable");
	expect_pending(elf, "executable");
	ck_assert_int_eq(unlink(in("r1/script")), 0);
	ck_assert(snapshot_program_changed(script));
}
END_TEST

START_TEST(changed_in_place_with_the_same_size)
{
	_cleanup_snapshot_ struct snapshot *s = take();
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, s->program.mtime};

	ck_assert_int_eq(utimensat(AT_FDCWD, in("r1/bin/web"), times, 0), 0);
	expect_pending(s, "");
	times[1].tv_nsec = (times[1].tv_nsec + 1) % 1000000000;
	ck_assert_int_eq(utimensat(AT_FDCWD, in("r1/bin/web"), times, 0), 0);
	expect_pending(s, "executable");
}
END_TEST

START_TEST(fingerprints)
{
	_cleanup_snapshot_ struct snapshot *s = NULL;

	ck_assert_int_eq(strv_append(&config.fingerprint, "REVISION"), 0);
	ck_assert_int_eq(strv_append(&config.fingerprint, in("assets")), 0);
	s = take();
	expect_pending(s, "");
	put("assets", "", 0644);
	expect_pending(s, "fingerprint");
	ck_assert_int_eq(unlink(in("assets")), 0);
	expect_pending(s, "");
	put("r1/REVISION", "another", 0644);
	expect_pending(s, "fingerprint");
	/* Of the release the link leads to, not of the one that runs. */
	link_current("r2");
	expect_pending(s, "directory, executable, fingerprint");
}
END_TEST

START_TEST(an_environment_file_that_changes)
{
	_cleanup_snapshot_ struct snapshot *s = NULL;

	put("r1/env", "A=1\n", 0644);
	add_env_file("env", false);
	add_env_file(in("local"), true);
	s = take();
	expect_pending(s, "");
	put("local", "A=2\n", 0644);
	expect_pending(s, "environment file");
	ck_assert_int_eq(unlink(in("local")), 0);
	expect_pending(s, "");
	put("r1/env", "A=10\n", 0644);
	expect_pending(s, "environment file");
	ck_assert_int_eq(unlink(in("r1/env")), 0);
	expect_pending(s, "environment file");
	/* What it was given stays what it was. */
	ck_assert_str_eq(strv_env_get(s->environment, "A"), "1");
}
END_TEST

START_TEST(lines_of_an_environment_file)
{
	static const struct {
		const char *text, *name, *value; /* value NULL: not set */
	} cases[] = {
		{"A=1",			"A",   "1"		},
		{"A=1\nA=2\n",	       "A",   "2"	       },
		{"  A=1  \r\n",		"A",   "1"		},
		{"A=",		       "A",   ""	      },
		{"A= b c ",		    "A",	 "b c"	      },
		{"export A=1",	       "A",   "1"	       },
		{"# A=1\n; A=2\n\n",     "A",	  NULL	      },
		{"A=1 # no comment",     "A",	  "1 # no comment"},
		{"A=\"x y\"",	      "A",   "x y"		},
		{"A=\" x \"",	      "A",   " x "		},
		{"A=' \"x\" '",		"A",   " \"x\" "	      },
		{"A=\"it's\"",	       "A",   "it's"	  },
		{"A=it's",		   "A",	"it's"	      },
		{"A={\"k\": \"v\"}",     "A",	  "{\"k\": \"v\"}"},
		{"A='x'\"y\"",	       "A",   "xy"		},
		{"A='x' \"y\"z'",	  "A",   "xyz'"	     },
		{"A='\\n$'",	     "A",	  "\\n$"		},
		{"A=\"\\n\\\\\\\"\\$\"", "A",   "\\n\\\"$"	},
		{"A=a\\ \\'b\\\\",	   "A",	"a 'b\\"	},
		{"A=b=c",		  "A",   "b=c"	    },
		{"_a1=x",		  "_a1", "x"		    },
		{"A=caf\xc3\xa9",	  "A",   "caf\xc3\xa9"   },
		{"A=1\nB=2",	     "B",	  "2"	     },
		{"",		     "A",	  NULL	      },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_snapshot_ struct snapshot *s = NULL;

		put("r1/env", cases[i].text, 0644);
		if (config.n_env_files == 0)
			add_env_file("env", false);
		s = take();
		const char *value = strv_env_get(s->environment, cases[i].name);
		ck_assert_msg(streq_null(value, cases[i].value), "[%s] gave [%s], not [%s]",
			cases[i].text, value ? value : "(unset)",
			cases[i].value ? cases[i].value : "(unset)");
	}
}
END_TEST

START_TEST(bad_environment_files)
{
	static const struct {
		const char *text, *place, *words;
	} cases[] = {
		{"A=1\nnothing\n",	   "/env:2:", "want NAME=value, found \"nothing\""},
		{"\n\n1A=2\n",	       "/env:3:", "\"1A\" is no name of a variable"   },
		{"A B=2\n",	    "/env:1:", "\"A B\" is no name of a variable"	 },
		{"=2\n",		 "/env:1:", "\"\" is no name of a variable"	   },
		{"A=1\nB=\"2\nC=3\n", "/env:2:", "the quote of B is not closed"      },
		{"A='",		"/env:1:", "the quote of A is not closed"	 },
	};

	add_env_file("env", true);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		put("r1/env", cases[i].text, 0644);
		refused(-EINVAL, cases[i].place, cases[i].words);
	}
}
END_TEST

START_TEST(environment_files_that_cannot_be_read)
{
	_cleanup_free_ char *large = malloc((1 << 20) + 2);
	_cleanup_snapshot_ struct snapshot *s = NULL;

	add_env_file("env", true);
	snapshot_unref(take());
	config.env_files[0].optional = false;
	refused(-ENOENT, "web: env_file", "write it with a leading \"-\"");
	make_directory_of("r1/env");
	refused(-EISDIR, "web: env_file", "current/env");
	ck_assert_int_eq(rmdir(in("r1/env")), 0);
	if (geteuid() != 0) {
		/* Optional means that it may be missing, not that it may be unreadable. */
		put("r1/env", "A=1\n", 0);
		config.env_files[0].optional = true;
		refused(-EACCES, "web: env_file", "Permission denied");
	}
	ck_assert_ptr_nonnull(large);
	memset(large, '#', (1 << 20) + 1);
	large[(1 << 20) + 1] = '\0';
	ck_assert(unlink(in("r1/env")) == 0 || errno == ENOENT);
	put("r1/env", large, 0644);
	refused(-E2BIG, "current/env", "1 MiB");
	/* One without a writer: a wait without an end. */
	ck_assert_int_eq(unlink(in("r1/env")), 0);
	ck_assert_int_eq(mkfifo(in("r1/env"), 0600), 0);
	s = take();
}
END_TEST

START_TEST(a_clean_environment)
{
	_cleanup_snapshot_ struct snapshot *s = NULL;
	_cleanup_user_ struct user user;

	setenv("TENURED_TEST_SECRET", "x", 1);
	setenv("PATH", "/somewhere:/bin", 1);
	setenv("LANG", "de_DE.UTF-8", 1);
	put("r1/env", "A=file\nB=file\nHOME=/of/file\n", 0644);
	put("more", "B=more\nC=more\nTENURE_SERVICE=forged\n", 0644);
	add_env_file("env", false);
	add_env_file(in("more"), false);
	ck_assert_int_eq(strv_append(&config.environment, "C=config"), 0);
	ck_assert_int_eq(strv_append(&config.environment, "EMPTY="), 0);
	ck_assert_int_eq(user_lookup(NULL, NULL, &user), 0);
	s = take();
	ck_assert_ptr_null(strv_env_get(s->environment, "TENURED_TEST_SECRET"));
	ck_assert_str_eq(strv_env_get(s->environment, "PATH"),
		"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	ck_assert_str_eq(strv_env_get(s->environment, "LANG"), "de_DE.UTF-8");
	ck_assert_str_eq(strv_env_get(s->environment, "USER"), user.name);
	ck_assert_str_eq(strv_env_get(s->environment, "LOGNAME"), user.name);
	ck_assert_str_eq(strv_env_get(s->environment, "SHELL"), user.shell);
	ck_assert_str_eq(strv_env_get(s->environment, "HOME"), "/of/file");
	ck_assert_str_eq(strv_env_get(s->environment, "A"), "file");
	ck_assert_str_eq(strv_env_get(s->environment, "B"), "more");
	ck_assert_str_eq(strv_env_get(s->environment, "C"), "config");
	ck_assert_str_eq(strv_env_get(s->environment, "EMPTY"), "");
	ck_assert_str_eq(strv_env_get(s->environment, "TENURE_SERVICE"), "web");
}
END_TEST

START_TEST(an_inherited_environment)
{
	static const char *const ours[] = {"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS",
		"LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_PID", "WATCHDOG_USEC",
		"JOURNAL_STREAM", "TENURE_GENERATION", "TENURE_WORKER"};
	_cleanup_snapshot_ struct snapshot *s = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		setenv(ours[i], "7", 1);
	setenv("TENURE_SERVICE", "another", 1);
	setenv("TENURED_TEST_SECRET", "x", 1);
	setenv("PATH", in("r2/bin"), 1);
	config.environment_inherited = true;
	set_command("web", NULL);
	ck_assert_int_eq(strv_append(&config.environment, "TENURED_TEST_MORE=y"), 0);
	s = take();
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
		ck_assert_msg(!strv_env_get(s->environment, ours[i]), "%s", ours[i]);
		unsetenv(ours[i]);
	}
	ck_assert_str_eq(strv_env_get(s->environment, "TENURE_SERVICE"), "web");
	ck_assert_str_eq(strv_env_get(s->environment, "TENURED_TEST_SECRET"), "x");
	ck_assert_str_eq(strv_env_get(s->environment, "TENURED_TEST_MORE"), "y");
	ck_assert_str_eq(s->executable, in("r2/bin/web"));
}
END_TEST

START_TEST(users)
{
	_cleanup_snapshot_ struct snapshot *own = take(), *nobody = NULL;

	ck_assert(!own->set_user);
	ck_assert_uint_eq(own->user.uid, geteuid());
	set(&config.user, "no-such-user");
	refused(-ENOENT, "web: there is no user no-such-user", NULL);
	set(&config.user, NULL);
	set(&config.group, "no-such-group");
	refused(-ESRCH, "web: there is no group no-such-group", NULL);
	set(&config.group, NULL);
	if (geteuid() != 0) {
		set(&config.user, "root");
		refused(-EPERM, "as user root", "started as root");
		return;
	}
	set(&config.user, "nobody");
	nobody = take();
	ck_assert(nobody->set_user);
	ck_assert_uint_eq(nobody->user.uid, 65534);
	ck_assert_str_eq(strv_env_get(nobody->environment, "USER"), "nobody");
}
END_TEST

static const struct spawn_limit *limit_of(const struct snapshot *s, int resource)
{
	const struct spawn_limit *found = NULL;

	for (size_t i = 0; i < s->n_limits; i++)
		if (s->limits[i].resource == resource) {
			ck_assert_ptr_null(found);
			found = &s->limits[i];
		}
	ck_assert_ptr_nonnull(found);
	return found;
}

START_TEST(limits)
{
	_cleanup_snapshot_ struct snapshot *s = take(), *with = NULL;

	/* The daemon has raised its own: a worker gets what the daemon was started with. */
	ck_assert_uint_eq(s->n_limits, 1);
	ck_assert_uint_eq(limit_of(s, RLIMIT_NOFILE)->value.rlim_cur, 1000);
	ck_assert_uint_eq(limit_of(s, RLIMIT_NOFILE)->value.rlim_max, 2000);
	config.limits = calloc(2, sizeof(*config.limits));
	ck_assert_ptr_nonnull(config.limits);
	config.limits[config.n_limits++] = (struct limit_config){RLIMIT_NOFILE, 64};
	config.limits[config.n_limits++] = (struct limit_config){RLIMIT_CORE, UINT64_MAX};
	with = take();
	ck_assert_uint_eq(with->n_limits, 2);
	ck_assert_uint_eq(limit_of(with, RLIMIT_NOFILE)->value.rlim_cur, 64);
	ck_assert_uint_eq(limit_of(with, RLIMIT_NOFILE)->value.rlim_max, 64);
	ck_assert_uint_eq(limit_of(with, RLIMIT_CORE)->value.rlim_cur, RLIM_INFINITY);
}
END_TEST

START_TEST(shared_by_workers)
{
	struct snapshot *s = take();

	ck_assert_ptr_eq(snapshot_ref(s), s);
	ck_assert_ptr_null(snapshot_unref(s));
	ck_assert_str_eq(s->executable, in("r1/bin/web"));
	ck_assert_ptr_null(snapshot_unref(s));
	ck_assert_ptr_null(snapshot_unref(NULL));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_release_is_kept, a_directory_that_is_not_there,
		descriptors_in_words, the_path_is_searched, relative_and_absolute_programs,
		a_program_that_changes, changed_in_place_with_the_same_size, fingerprints,
		an_environment_file_that_changes, lines_of_an_environment_file,
		bad_environment_files, environment_files_that_cannot_be_read, a_clean_environment,
		an_inherited_environment, users, limits, shared_by_workers};
	TCase *tcase = tcase_create("snapshot");
	Suite *suite = suite_create("snapshot");
	SRunner *runner;
	int n_failed;

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "core/preset.h"

#include <signal.h>

#include "core/dialect.h"

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define ARGUMENTS(...) ((const struct preset_argument[]){__VA_ARGS__, {.words = {NULL}}})
#define SECONDS(n) ((n)*USEC_PER_SEC)

/* An old process keeps what its clients keep open for as long as idle_wait, and is told to end when
 * they have gone: servers that close idle connections on their signal do that to a client whose
 * next request may be under way. */
/* clang-format off */
static const struct preset presets[] = {
	{
		.name = "gunicorn",
		.what = "Python, WSGI",
		.command = "gunicorn --workers 2 app:application",
		.handoff = HANDOFF_LISTEN_FDS,
		.idle_wait_usec = SECONDS(10),
		.timeout_usec = SECONDS(40),
		.programs = WORDS("gunicorn"),
		.tested = "gunicorn 20.1.0 (Debian 12)",
		.needs = "no --bind",
		.why = "TERM: it finishes its requests, within its --graceful-timeout (30 s)",
	},
	{
		.name = "uvicorn",
		.what = "Python, ASGI",
		.command = "uvicorn app:application",
		.handoff = HANDOFF_ARGUMENTS,
		.idle_wait_usec = SECONDS(10),
		.arguments = ARGUMENTS({.words = {"--fd", "{fd:*}"}, .instead = {"--uds"}}),
		.programs = WORDS("uvicorn"),
		.tested = "uvicorn 0.17.6 (Debian 12)",
		.needs = "one listener; no --host, --port",
		.nodelay = true,
		.why = "nodelay: of a socket that it is given it answers 40 ms late otherwise, on kept "
		       "connections; its own --workers are not needed: workers: 2",
	},
	{
		.name = "puma",
		.what = "Ruby, Rack",
		.command = "puma config.ru",
		.handoff = HANDOFF_LISTEN_FDS,
		.idle_wait_usec = SECONDS(10),
		.timeout_usec = SECONDS(40),
		.arguments = ARGUMENTS({.words = {"--bind-to-activated-sockets", "only"}}),
		.programs = WORDS("puma"),
		.tested = "puma 5.6.5 (Debian 12)",
		.needs = "--threads N:N: with fewer at first it leaves new connections waiting while "
			 "kept ones are busy",
	},
	{
		.name = "unicorn",
		.what = "Ruby, Rack",
		.command = "unicorn config.ru",
		.handoff = HANDOFF_LISTEN_FDS,
		.signal = SIGQUIT,
		.idle_wait_usec = SECONDS(10),
		.timeout_usec = SECONDS(60),
		.programs = WORDS("unicorn", "unicorn_rails"),
		.tested = "unicorn 6.0.0 (Debian 12)",
		.needs = "no listen",
		.why = "QUIT: it finishes its requests; TERM would end them",
	},
	{
		.name = "nginx",
		.what = "HTTP, proxy",
		.command = "nginx -c /etc/nginx/nginx.conf",
		.handoff = HANDOFF_NGINX,
		.signal = SIGQUIT,
		.idle_wait_usec = SECONDS(60),
		.timeout_usec = SECONDS(300),
		.nonblocking = true,
		.programs = WORDS("nginx"),
		.tested = "nginx 1.22.1 (Debian 12)",
		.needs = "each listen the very address of a listener: \"listen 8080\" is "
			"0.0.0.0:8080, and \"listen [::]:8080 ipv6only=off\" is what tenured "
			"calls 8080",
		.why = "QUIT: it finishes its requests; what it has no listener for it would "
			"bind itself",
	},
	{
		.name = "haproxy",
		.what = "proxy",
		.command = "haproxy -db -f haproxy.cfg",
		.handoff = HANDOFF_HAPROXY,
		.signal = SIGUSR1,
		.idle_wait_usec = SECONDS(60),
		.timeout_usec = SECONDS(600),
		.arguments = ARGUMENTS(
			{.words = {"-x", "{socket:haproxy}"}, .handoff = HANDOFF_HAPROXY}),
		.programs = WORDS("haproxy"),
		.tested = "haproxy 2.6.12 (Debian 12)",
		.needs = "each bind the very address of a listener; not daemon: -db, or "
			"master-worker",
		.why = "USR1: it ends when its last connection has",
	},
	{
		.name = "lighttpd",
		.what = "HTTP",
		.command = "lighttpd -D -f lighttpd.conf",
		.handoff = HANDOFF_LISTEN_FDS,
		.signal = SIGINT,
		.idle_wait_usec = SECONDS(20),
		.timeout_usec = SECONDS(60),
		.arguments = ARGUMENTS({.words = {"-D"}}),
		.programs = WORDS("lighttpd"),
		.tested = "lighttpd 1.4.69 (Debian 12)",
		.needs = "server.systemd-socket-activation = \"enable\"",
		.why = "INT: it finishes its requests; TERM would end them",
	},
	{
		.name = "node",
		.what = "JavaScript",
		.command = "node server.js {fd:http}",
		.handoff = HANDOFF_LISTEN_FDS,
		.idle_wait_usec = SECONDS(20),
		.programs = WORDS("node", "nodejs"),
		.tested = "node 20.20.2",
		.needs = "server.listen({fd: 3}), or the number of {fd:NAME} from an argument",
		.why = "a server that does not handle TERM dies of it in mid-request: it gets "
			"the signal when its connections are gone",
	},
	{
		.name = "php-fpm",
		.what = "PHP, FastCGI",
		.command = "php-fpm8.2 --fpm-config php-fpm.conf",
		.handoff = HANDOFF_PHP_FPM,
		.signal = SIGQUIT,
		.idle_wait_usec = SECONDS(10),
		.timeout_usec = SECONDS(60),
		.arguments = ARGUMENTS({.words = {"--nodaemonize"}, .instead = {"-F"}}),
		.programs = WORDS("php-fpm"),
		.tested = "php-fpm 8.2.36 (Debian 12)",
		.needs = "each pool's listen the very address of a listener: \"listen = 9000\" "
			"is [::]:9000; process_control_timeout, or QUIT cuts requests off "
			"after 1 s",
		.why = "QUIT: it finishes its requests",
	},
	{
		.name = "uwsgi",
		.what = "Python and others",
		.command = "uwsgi --http-socket fd://3 --wsgi-file app.py",
		.handoff = HANDOFF_LISTEN_FDS,
		.idle_wait_usec = SECONDS(10),
		.timeout_usec = SECONDS(70),
		.arguments = ARGUMENTS({.words = {"--master"}, .instead = {"-M"}},
			{.words = {"--hook-master-start", "unix_signal:15 gracefully_kill_them_all"}}),
		.programs = WORDS("uwsgi", "uwsgi-core"),
		.tested = "uwsgi 2.0.21 (Debian 12)",
		.needs = "no socket of its own; with its own HTTP, --add-header \"Connection: "
			"close\", because it closes connections without saying so",
		.why = "by itself it takes TERM for a reload, and does not end",
	},
	{
		.name = "caddy",
		.what = "HTTP, proxy",
		.command = "caddy run --config Caddyfile",
		.handoff = HANDOFF_LISTEN_FDS,
		.idle_wait_usec = SECONDS(20),
		.programs = WORDS("caddy"),
		.needs = "bind fd/3 in its configuration, which Debian 12's caddy 2.6 does not "
			"know yet",
		.why = "for the versions that take descriptors, by their documentation",
	},
	{
		.name = "go",
		.what = "a program in Go",
		.command = "bin/server",
		.handoff = HANDOFF_LISTEN_FDS,
		.idle_wait_usec = SECONDS(10),
		.programs = WORDS("go"),
		.tested = "net/http of Go 1.19.8 (Debian 12)",
		.needs = "net.FileListener(os.NewFile(3, \"\")), or activation.Listeners()",
		.why = "a program that does not handle TERM dies of it: Server.Shutdown() "
			"there, or idle_wait",
	},
	{
		.name = "rust",
		.what = "a program in Rust",
		.command = "target/release/server",
		.handoff = HANDOFF_LISTEN_FDS,
		.idle_wait_usec = SECONDS(10),
		.programs = WORDS("cargo"),
		.tested = "std of Rust 1.63 (Debian 12)",
		.needs = "TcpListener::from_raw_fd(3), or the crate listenfd",
		.why = "a program that does not handle TERM dies of it: it gets the signal "
			"when its connections are gone",
	},
};
/* clang-format on */

const struct preset *preset_list(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(presets);
	return presets;
}

const struct preset *preset_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(presets); i++)
		if (streq(presets[i].name, name))
			return &presets[i];
	return NULL;
}

const char *const *preset_names(void)
{
	static const char *names[ARRAY_SIZE(presets) + 2];

	for (size_t i = 0; i < ARRAY_SIZE(presets); i++)
		names[i] = presets[i].name;
	names[ARRAY_SIZE(presets)] = "none";
	return names;
}

int preset_begin(const struct preset *p, struct service_config *s)
{
	s->preset = p;
	s->preset_set = true;
	if (p->handoff)
		s->handoff = p->handoff;
	if (p->signal) {
		s->drain.signal = p->signal;
		s->drain.signal_set = true;
	}
	if (p->idle_wait_usec)
		s->drain.idle_wait_usec = p->idle_wait_usec;
	if (p->timeout_usec)
		s->drain.timeout_usec = p->timeout_usec;
	return 0;
}

/* --- arguments and options ------------------------------------------------ */

static bool command_has(char *const *command, const char *option)
{
	for (size_t i = 1; command[i]; i++) {
		const char *rest = startswith(command[i], option);

		/* "--fd 3", "--fd=3"; of a short one also "-d3". */
		if (rest && (*rest == '\0' || *rest == '=' || strlen(option) == 2))
			return true;
	}
	return false;
}

static bool is_wanted(const struct preset_argument *a, const struct service_config *s)
{
	if (a->handoff && !(s->handoff & a->handoff))
		return false;
	if (command_has(s->command, a->words[0]))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(a->instead) && a->instead[i]; i++)
		if (command_has(s->command, a->instead[i]))
			return false;
	return true;
}

static int add_words(const struct preset_argument *a, struct service_config *s)
{
	int q = 0;

	for (size_t i = 0; q >= 0 && i < ARRAY_SIZE(a->words) && a->words[i]; i++) {
		if (!streq(a->words[i], "{fd:*}")) {
			q = strv_append(&s->command, a->words[i]);
			continue;
		}
		q = strv_append_take(&s->command,
			xasprintf("{fd:%s}", s->n_listeners > 0 ? s->listeners[0].name : "http"));
	}
	return q;
}

static int add_option(struct listener_config *l, enum socket_option option)
{
	if (socket_options_find(&l->options, option))
		return 0;
	return socket_options_set(&l->options, option, 1, NULL, l->place);
}

int preset_finish(struct service_config *s)
{
	const struct preset *p = s->preset;
	int q = 0;

	if (!p || !s->command || !s->command[0])
		return 0;
	for (size_t i = 0; q >= 0 && p->arguments && p->arguments[i].words[0]; i++)
		if (is_wanted(&p->arguments[i], s))
			q = add_words(&p->arguments[i], s);
	for (size_t i = 0; q >= 0 && i < s->n_listeners; i++) {
		struct listener_config *l = &s->listeners[i];

		if (p->nonblocking)
			q = add_option(l, OPTION_NONBLOCKING);
		/* What is inherited may turn out to be a Unix socket, which has no such option. */
		if (q >= 0 && p->nodelay && !l->inherited && l->address.kind == ADDRESS_TCP)
			q = add_option(l, OPTION_NODELAY);
	}
	return q;
}

/* --- what a command looks like -------------------------------------------- */

/* The last part of its path without a version: "php-fpm8.2" is "php-fpm". *ret_len. */
static const char *program_name(const char *word, size_t *ret_len)
{
	const char *slash = strrchr(word, '/');
	size_t len;

	word = slash ? slash + 1 : word;
	len = strlen(word);
	while (len > 0 && ((word[len - 1] >= '0' && word[len - 1] <= '9') || word[len - 1] == '.'))
		len--;
	if (len > 0 && len < strlen(word) && word[len - 1] == '-')
		len--;
	*ret_len = len;
	return word;
}

static bool is_program(const char *word, const char *name)
{
	size_t len;
	const char *own = program_name(word, &len);

	return strlen(name) == len && memcmp(own, name, len) == 0;
}

static const struct preset *find_program(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(presets); i++)
		for (size_t k = 0; presets[i].programs[k]; k++)
			if (is_program(word, presets[i].programs[k]))
				return &presets[i];
	return NULL;
}

/* Behind "env A=B", "nice -n 5", "bundle exec" ... stands the program itself. */
static char *const *skip_wrappers(char *const *command)
{
	static const char *const wrappers[] = {
		"env", "nice", "ionice", "exec", "nohup", "setpriv", "chrt", "stdbuf"};

	for (size_t i = 0; *command && i < ARRAY_SIZE(wrappers); i++) {
		if (!is_program(*command, wrappers[i]))
			continue;
		for (command++; *command && (**command == '-' || strchr(*command, '=') ||
						    (**command >= '0' && **command <= '9'));
			command++)
			;
		i = SIZE_MAX; /* there may be another one */
	}
	if (command[0] && command[1] && command[2] && is_program(command[0], "bundle") &&
		streq(command[1], "exec"))
		command += 2;
	return command;
}

const struct preset *preset_guess(char *const *command, char *const *interpreter)
{
	const struct preset *found;

	command = skip_wrappers(command);
	if (!command[0])
		return NULL;
	found = find_program(command[0]);
	if (!found && is_program(command[0], "python") && command[1] && streq(command[1], "-m") &&
		command[2])
		found = find_program(command[2]);
	if (!found && interpreter && interpreter[0])
		found = preset_guess(interpreter, NULL);
	return found;
}

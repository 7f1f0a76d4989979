/* SPDX-License-Identifier: Apache-2.0 */
/* tenured(8): what the command line asks for. */
#include <getopt.h>
#include <locale.h>
#include <sys/prctl.h>

#include "daemon/cgroup.h"
#include "daemon/config_yaml.h"
#include "daemon/keeper.h"
#include "daemon/keeper_exec.h"
#include "daemon/listener_inherit.h"
#include "daemon/listener_options.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/reexec.h"
#include "daemon/restore.h"
#include "daemon/presets.h"
#include "daemon/run.h"
#include "daemon/unit_job.h"
#include "sys/journal.h"
#include "sys/process.h"

#define DEFAULT_FILE TENURED_SYSCONFDIR "/tenured/tenured.yaml"

enum { EXIT_USAGE = 2, EXIT_INVALID_CONFIGURATION = 7 };

static char own_name[] = "tenured";

static const char usage[] =
	"tenured keeps a program's listening sockets while the program itself comes and goes.\n"
	"\n"
	"  tenured -c FILE                    serve what FILE says, in the foreground\n"
	"  tenured check [--as PATH] [FILE]   is FILE right, at PATH? (no service is touched)\n"
	"  tenured presets [NAME] [--json]    what is known of servers, and how they are run\n"
	"  tenured run --listen ADDRESS [--listen ...] [--workers N] [--name NAME] -- COMMAND...\n"
	"                                     serve one command without a file\n"
	"\n"
	"Options:\n"
	"  -c, --config FILE    the configuration, tenured.yaml(5)\n"
	"      --socket PATH    the control socket (default: what FILE says, $TENURE_SOCKET,\n"
	"                       /run/tenured/control.sock for root, else\n"
	"                       $XDG_RUNTIME_DIR/tenured/control.sock)\n"
	"      --keeper         keep the sockets in a small parent process that starts the daemon\n"
	"                       again should it die; this is the default where $NOTIFY_SOCKET is\n"
	"                       not set (no systemd)\n"
	"      --no-keeper      do without\n"
	"      --debug          log more\n"
	"  -h, --help           this text\n"
	"      --version        the version\n"
	"\n"
	"Options of run:\n"
	"      --listen ADDRESS a port, ADDRESS:PORT, udp:..., unix:/path; may be given several "
	"times\n"
	"      --workers N      processes (default 1), or auto\n"
	"      --name NAME      of the service (default: the command's name)\n"
	"      --soak TIME, --settle TIME, --drain TIME, --ready KIND, --preset NAME,\n"
	"      --handoff KIND   as in the file; the last one may be given several times\n"
	"      --socket PATH, --keeper, --no-keeper as above\n"
	"\n"
	"Control it with tenurectl(1): status, upgrade, rollback, scale, reload ...\n";

static int show_usage(void)
{
	fputs(usage, stdout);
	return EXIT_SUCCESS;
}

static void print_problems(const struct config_problems *problems)
{
	for (size_t i = 0; i < problems->n; i++) {
		_cleanup_free_ char *text = config_problem_format(&problems->list[i]);
		fprintf(stderr, "%s\n", text ? text : "out of memory");
	}
}

/* The configuration of FILE, as if it were at `as`; everything that is wrong is printed.
 * activation: the sockets that it may inherit. An exit status, 0 with *ret. */
static int read_file(
	const char *path, const char *as, const struct activation *activation, struct config **ret)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	_cleanup_config_ struct config *c = NULL;
	struct config_problems problems = {0};
	int r, status = EXIT_INVALID_CONFIGURATION;

	r = config_load_as(path, as, &c, &problems, &error);
	if (r >= 0)
		r = inherit_expand(c, activation);
	if (r >= 0)
		r = config_resolve(c, manager_n_cpus(), &problems);
	if (r >= 0)
		config_check_root(c, geteuid() == 0, &problems);
	print_problems(&problems);
	if (r < 0)
		fprintf(stderr, "tenured: %s\n", error.code ? error_message(&error) : strerror(-r));
	else if (problems.n_errors == 0)
		status = EXIT_SUCCESS;
	config_problems_done(&problems);
	if (status == EXIT_SUCCESS)
		*ret = TAKE_PTR(c);
	return status;
}

static int check(int argc, char *argv[])
{
	static const struct option options[] = {
		{"as",  required_argument, NULL, 'a'},
		      {0}
	 };
	const struct activation nothing = {.sockets = NULL};
	struct config_problems problems = {0};
	const char *path = DEFAULT_FILE, *as = NULL;
	struct config *c = NULL;
	size_t n;
	int status, option;

	optind = 0; /* GNU: forget the options before "check" */
	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option != 'a')
			return EXIT_USAGE;
		as = optarg;
	}
	if (argc - optind > 1) {
		fprintf(stderr, "tenured: check takes one FILE\n");
		return EXIT_USAGE;
	}
	if (optind < argc)
		path = argv[optind];
	as = as ? as : path;
	status = read_file(path, as, &nothing, &c);
	if (status != EXIT_SUCCESS)
		return status;
	listener_options_check(c, &problems);
	cgroups_check_config(c, &problems);
	if (presets_hint(c, &problems) < 0)
		fprintf(stderr, "tenured: out of memory\n");
	print_problems(&problems);
	config_problems_done(&problems);
	n = c->n_services;
	printf("%s: good, %zu service%s\n", as, n, n == 1 ? "" : "s");
	config_free(c);
	return EXIT_SUCCESS;
}

/* argv: the whole command line. */
static int serve(struct config *config_take, struct activation *activation_take, const char *path,
	const char *socket, char *const *argv)
{
	_cleanup_error_ struct error error = ERROR_NULL;
	struct manager *m;
	int status;

	if (manager_new(config_take, activation_take, path, socket, &m, &error) < 0) {
		log_error("%s", error_message(&error));
		return EXIT_FAILURE;
	}
	m->argv = argv;
	status = manager_run(m);
	manager_free(m);
	return status;
}

/* For `tenured run` and a file: what a service manager gave us is taken in any case, so that no
 * worker gets it by accident. */
static int receive_sockets(struct activation *ret)
{
	int r = activation_receive(ret);

	if (r < 0)
		log_error("LISTEN_FDS: %s", strerror(-r));
	if (r >= 0) {
		r = reexec_receive(ret);
		if (r < 0)
			log_error("%s: %s", REEXEC_VARIABLE, strerror(-r));
	}
	return r < 0 ? EXIT_FAILURE : 0;
}

static int serve_file(const char *path, const char *socket, char *const *whole)
{
	_cleanup_activation_ struct activation activation = {.sockets = NULL};
	struct config *config = NULL;
	int status = receive_sockets(&activation);

	if (status != 0)
		return status;
	status = read_file(path, path, &activation, &config);
	if (status != EXIT_SUCCESS && restore_is_possible(&activation)) {
		log_warning("%s cannot be used; what runs goes on", path);
		status = EXIT_SUCCESS;
	}
	return status == EXIT_SUCCESS ? serve(config, &activation, path, socket, whole) : status;
}

static int serve_command(int argc, char *argv[], const char *socket, char *const *whole)
{
	_cleanup_activation_ struct activation activation = {.sockets = NULL};
	struct config *config = NULL;
	int status = receive_sockets(&activation);

	if (status == 0)
		status = run_config(argc, argv, &socket, &config);
	return status == 0 ? serve(config, &activation, NULL, socket, whole) : status;
}

static int usage_error(const char *what)
{
	fprintf(stderr, "tenured: %s; see tenured --help\n", what);
	return EXIT_USAGE;
}

struct arguments {
	const char *path, *socket;
	enum keeper_choice keeper;
	int level;
};

/* The options before the verb. An exit status, or -1: go on. */
static int parse_arguments(int argc, char *argv[], struct arguments *a)
{
	enum {
		OPTION_SOCKET = 256,
		OPTION_VERSION,
		OPTION_LOG_DEBUG,
		OPTION_KEEPER,
		OPTION_NO_KEEPER,
		OPTION_CHECK_STATE,
	};
	static const struct option options[] = {
		{"config",	   required_argument, NULL, 'c'},
		{"socket",		   required_argument, NULL, OPTION_SOCKET},
		{"keeper",		   no_argument, NULL, OPTION_KEEPER},
		{"no-keeper",no_argument, NULL, OPTION_NO_KEEPER},
		{"debug",	  no_argument, NULL, OPTION_LOG_DEBUG},
		{"check-state",		no_argument, NULL, OPTION_CHECK_STATE},
		{"help",		 no_argument, NULL, 'h'},
		{"version",		    no_argument, NULL, OPTION_VERSION},
		{0		   },
	};
	int c;

	while ((c = getopt_long(argc, argv, "+c:h", options, NULL)) >= 0) {
		switch (c) {
		case 'c':
			a->path = optarg;
			break;
		case OPTION_SOCKET:
			a->socket = optarg;
			break;
		case OPTION_LOG_DEBUG:
			a->level = LOG_DEBUG;
			break;
		case OPTION_KEEPER:
			a->keeper = KEEPER_YES;
			break;
		case OPTION_NO_KEEPER:
			a->keeper = KEEPER_NO;
			break;
		case OPTION_CHECK_STATE:
			return getenv(KEEPER_STATE_VARIABLE) ? keeper_check_state()
							     : reexec_check_state();
		case 'h':
			return show_usage();
		case OPTION_VERSION:
			printf("tenured %s\n", PACKAGE_VERSION);
			return EXIT_SUCCESS;
		default:
			return EXIT_USAGE;
		}
	}
	return -1;
}

/* whole: the command line as it came. */
static int serve_as_asked(int argc, char *argv[], char *const *whole, const struct arguments *a)
{
	bool run = argc > 0 && streq(argv[0], "run");

	if (run && a->path)
		return usage_error("run takes no configuration file");
	if (!run && argc > 0)
		return usage_error("unknown command");
	if (!run && !a->path) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	/* Another image of a keeper that has no program of its own. */
	if (getenv(KEEPER_STATE_VARIABLE)) {
		_cleanup_free_ char *path = NULL;

		return process_own_path(&path) < 0 ? EXIT_FAILURE : keeper_run(path, whole, whole);
	}
	if (keeper_is_wanted(run ? run_keeper(argc, argv, a->keeper) : a->keeper))
		return keeper_begin(whole, TENURED_LIBEXECDIR "/tenured-keeper", a->level);
	if (!run)
		return serve_file(a->path, a->socket, whole);
	argv[0] = own_name; /* that is how getopt begins what it says */
	return serve_command(argc, argv, a->socket, whole);
}

int main(int argc, char *argv[])
{
	_cleanup_strv_ char **whole = strv_copy(argv);
	struct arguments a = {.keeper = KEEPER_AUTO, .level = LOG_INFO};
	int r = parse_arguments(argc, argv, &a);

	if (r >= 0)
		return r;
	if (!whole)
		return EXIT_FAILURE;
	(void)setlocale(LC_CTYPE, "");
	/* Executed by descriptor, the kernel calls it by that one's number. */
	(void)prctl(PR_SET_NAME, own_name);
	log_init(a.level);
	log_use_journal(JOURNAL_SOCKET);
	argc -= optind;
	argv += optind;
	if (argc > 1 && (streq(argv[1], "--help") || streq(argv[1], "-h")))
		return show_usage();
	if (argc > 0 && streq(argv[0], "check")) {
		argv[0] = own_name;
		return check(argc, argv);
	}
	if (argc > 0 && streq(argv[0], "presets")) {
		argv[0] = own_name;
		return presets_main(argc, argv);
	}
	if (argc == 1 && streq(argv[0], "reap"))
		return unit_reap();
	return serve_as_asked(argc, argv, whole, &a);
}

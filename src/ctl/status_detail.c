/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/context.h"
#include "ctl/status.h"
#include "ctl/text.h"

static const char *since(const json_t *object, uint64_t now, char buf[static TEXT_SPAN_MAX])
{
	uint64_t at = field_usec(object, "sinceUsec");

	return at == 0 ? "" : text_span(now > at ? now - at : 0, buf);
}

static void add_connections(struct table *table, const json_t *object)
{
	if (field_null(object, "connections"))
		table_add(table, PAINT_PLAIN, NULL);
	else
		table_addf(table, PAINT_PLAIN, "%lld", field_int(object, "connections", 0));
}

/* Of all its processes, where it has a cgroup. */
static void add_usage(struct table *table, const json_t *generation)
{
	const json_t *cgroup = json_object_get(generation, "cgroup");
	char size[TEXT_SIZE_MAX], span[TEXT_SPAN_MAX];

	table_add(table, PAINT_PLAIN,
		field_null(cgroup, "memory") ? NULL
					     : text_size(field_usec(cgroup, "memory"), size));
	table_add(table, PAINT_PLAIN,
		field_null(cgroup, "cpuUsec") ? NULL
					      : text_span(field_usec(cgroup, "cpuUsec"), span));
	if (field_null(cgroup, "tasks"))
		table_add(table, PAINT_PLAIN, NULL);
	else
		table_addf(table, PAINT_PLAIN, "%lld", field_int(cgroup, "tasks", 0));
	if (field_int(cgroup, "oomKills", 0) == 0)
		table_add(table, PAINT_PLAIN, NULL);
	else
		table_addf(table, PAINT_BAD, "%lld", field_int(cgroup, "oomKills", 0));
}

static void print_generations(struct output *o, const json_t *service, uint64_t now)
{
	static const struct table_column columns[] = {
		{"GENERATION",  true,  false},
		{"STATE",	  false, false},
		{"TRAFFIC",	    true,  false},
		{"MEASURED",    false, false},
		{"CONNECTIONS", true,  false},
		{"MEMORY",	   true,	 false},
		{"CPU",		true,  false},
		{"TASKS",	  true,	false},
		{"OOM-KILLED",  true,  false},
		{"SINCE",	  true,	false},
		{"DIRECTORY",   false, true },
		{"EXECUTABLE",  false, true },
		{"REASON",	   false, true },
	};
	_cleanup_table_ struct table table = TABLE_INIT(columns);
	const json_t *generations = json_object_get(service, "generations"), *generation;
	size_t i;

	json_array_foreach (generations, i, generation) {
		const char *state = field_text_or(generation, "state", "?");
		char span[TEXT_SPAN_MAX], percent[TEXT_PERCENT_MAX];

		table_addf(&table, PAINT_BOLD, "%lld", field_int(generation, "number", 0));
		table_add(&table, status_paint(state), state);
		table_add(&table, PAINT_PLAIN,
			text_percent(field_number(generation, "traffic"), percent));
		if (field_null(generation, "measured"))
			table_add(&table, PAINT_PLAIN, NULL);
		else
			table_addf(&table, PAINT_PLAIN, "%.1f%% of %lld",
				field_number(generation, "measured"),
				field_int(generation, "measuredOf", 0));
		add_connections(&table, generation);
		add_usage(&table, generation);
		table_add(&table, PAINT_PLAIN, since(generation, now, span));
		table_add(&table, PAINT_PLAIN, field_text(generation, "directory"));
		table_add(&table, PAINT_PLAIN, field_text(generation, "executable"));
		table_add(&table, PAINT_PLAIN,
			field_null(generation, "reason") && field_true(generation, "adopted")
				? "taken over"
				: field_text(generation, "reason"));
	}
	if (i > 0)
		fputc('\n', o->file);
	table_print(&table, o, 2);
}

static void print_workers(struct output *o, const json_t *service, uint64_t now)
{
	static const struct table_column columns[] = {
		{"WORKER",	   false, false},
		{"PID",		true,  false},
		{"STATE",	  false, false},
		{"CONNECTIONS", true,  false},
		{"RESTARTS",    true,  false},
		{"CPUS",	 false, false},
		{"SINCE",	  true,	false},
		{"STATUS",	   false, true },
	};
	_cleanup_table_ struct table table = TABLE_INIT(columns);
	const json_t *generations = json_object_get(service, "generations"), *generation, *worker;
	size_t i, j, n = 0;

	json_array_foreach (generations, i, generation) {
		json_array_foreach (json_object_get(generation, "workers"), j, worker) {
			const char *state = field_text_or(worker, "state", "?");
			char span[TEXT_SPAN_MAX];

			n++;
			table_addf(&table, PAINT_BOLD, "%lld.%lld",
				field_int(generation, "number", 0), field_int(worker, "index", 0));
			if (field_null(worker, "pid"))
				table_add(&table, PAINT_PLAIN, NULL);
			else
				table_addf(
					&table, PAINT_PLAIN, "%lld", field_int(worker, "pid", 0));
			table_add(&table, status_paint(state), state);
			add_connections(&table, worker);
			table_addf(&table, PAINT_PLAIN, "%lld", field_int(worker, "restarts", 0));
			table_add(&table, PAINT_PLAIN, field_text(worker, "cpus"));
			table_add(&table, PAINT_PLAIN, since(worker, now, span));
			table_add(&table, PAINT_PLAIN, field_text(worker, "status"));
		}
	}
	if (n > 0)
		fputc('\n', o->file);
	table_print(&table, o, 2);
}

/* The sums over a listener's sockets. */
static void count_queue(const json_t *listener, long long *ret_waiting, long long *ret_limit,
	long long *ret_dropped)
{
	const json_t *queues = json_object_get(listener, "queue"), *queue;
	size_t i;

	*ret_waiting = *ret_limit = *ret_dropped = 0;
	json_array_foreach (queues, i, queue) {
		long long limit = field_int(queue, "limit", 0);

		*ret_waiting += field_int(queue, "waiting", 0);
		*ret_limit = MAX(*ret_limit, limit);
		*ret_dropped += field_int(queue, "dropped", 0);
	}
}

/* Other programs' sockets at the same port: below the table, for each is a warning. */
static void print_foreign(struct output *o, const json_t *listener, unsigned indent)
{
	const json_t *list = json_object_get(listener, "foreign"), *foreign;
	size_t i;

	json_array_foreach (list, i, foreign) {
		output_printf(o, "%*s", (int)indent, "");
		output_text(o, PAINT_WARN, field_text_or(listener, "name", "?"));
		output_text(o, PAINT_WARN, ": ");
		output_text(o, PAINT_WARN, field_text_or(foreign, "program", "another process"));
		if (!field_null(foreign, "pid"))
			output_printf(o, " (pid %lld, uid %lld)", field_int(foreign, "pid", 0),
				field_int(foreign, "uid", 0));
		else
			output_printf(o, " of uid %lld", field_int(foreign, "uid", 0));
		output_printf(o, " has a socket of its own on ");
		output_text(o, PAINT_PLAIN, field_text_or(foreign, "address", "?"));
		output_printf(o, "\n");
	}
}

void status_listeners(struct output *o, const json_t *listeners, bool with_service, unsigned indent)
{
	static const struct table_column columns[] = {
		{"SERVICE",  false, false},
		{"LISTENER", false, false},
		{"ADDRESS",  false, false},
		{"SOCKETS",  false, false},
		{"ORIGIN",   false, false},
		{"WAITING",  true,  false},
		{"BACKLOG",  true,  false},
		{"DROPPED",  true,  false},
		{"UPGRADES", false, true },
	};
	_cleanup_table_ struct table table = TABLE_INIT(columns);
	const json_t *listener;
	size_t i;

	json_array_foreach (listeners, i, listener) {
		bool held = streq(field_text_or(listener, "kind", ""), "held");
		const char *sockets = field_text_or(listener, "sockets", "?");
		const char *reason = field_text(listener, "reason");
		long long waiting, limit, dropped;

		count_queue(listener, &waiting, &limit, &dropped);
		table_add(
			&table, PAINT_BOLD, with_service ? field_text(listener, "service") : NULL);
		table_add(&table, PAINT_BOLD, field_text(listener, "name"));
		table_add(&table, PAINT_PLAIN, field_text(listener, "address"));
		table_add(
			&table, PAINT_PLAIN, streq(sockets, "perWorker") ? "per-worker" : sockets);
		table_add(&table, PAINT_PLAIN, field_text(listener, "origin"));
		table_addf(&table, limit > 0 && waiting * 2 > limit ? PAINT_BAD : PAINT_PLAIN,
			"%lld", waiting);
		if (limit > 0 || json_array_size(json_object_get(listener, "queue")) == 0)
			table_addf(&table, PAINT_PLAIN, "%lld", field_int(listener, "backlog", 0));
		else
			table_add(&table, PAINT_PLAIN, NULL); /* UDP: its bytes are counted */
		table_addf(&table, dropped > 0 ? PAINT_WARN : PAINT_PLAIN, "%lld", dropped);
		table_addf(&table, held ? PAINT_WARN : PAINT_PLAIN, "%s%s%s",
			held ? "shared queue" : "new sockets", reason ? ": " : "",
			reason ? reason : "");
	}
	table_print(&table, o, indent);
	json_array_foreach (listeners, i, listener)
		print_foreign(o, listener, indent);
}

void status_detail(struct output *o, const json_t *service, uint64_t now_usec)
{
	const char *state = field_text_or(service, "state", "?");
	const json_t *listeners = json_object_get(service, "listeners");
	bool healthy = field_true(service, "healthy");

	output_text(o, PAINT_BOLD, field_text_or(service, "name", "?"));
	output_printf(o, ": ");
	output_text(o, healthy ? status_paint(state) : PAINT_BAD, state);
	if (!healthy)
		output_text(o, PAINT_BAD, ", not healthy");
	if (!field_null(service, "generation"))
		output_printf(o, ", generation %lld", field_int(service, "generation", 0));
	output_printf(o, ", %lld of %lld workers ready\n", status_ready(service),
		field_int(service, "workersWanted", 0));
	status_notes(o, service, "  ", true, now_usec);
	print_generations(o, service, now_usec);
	print_workers(o, service, now_usec);
	if (json_array_size(listeners) > 0)
		fputc('\n', o->file);
	status_listeners(o, listeners, false, 2);
}

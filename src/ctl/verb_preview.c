/* SPDX-License-Identifier: Apache-2.0 */
/* preview: how to see the new generation before anybody else does. */
#include "base/address.h"
#include "ctl/context.h"
#include "ctl/problem.h"
#include "ctl/text.h"

/* Where a client whose own address is `from` reaches a listener. */
struct destination {
	struct address address;
	bool elsewhere; /* `from` is no address of this machine */
};

static bool is_loopback(int family, const uint8_t *bytes)
{
	static const uint8_t one[16] = {[15] = 1};

	return family == AF_INET ? bytes[0] == 127 : memcmp(bytes, one, sizeof(one)) == 0;
}

static void set_ip(struct address *a, int family, const uint8_t *bytes)
{
	in_port_t port = htons((uint16_t)address_port(a));

	memset(&a->storage, 0, sizeof(a->storage));
	a->sa.sa_family = (sa_family_t)family;
	if (family == AF_INET) {
		a->len = sizeof(a->in4);
		a->in4.sin_port = port;
		memcpy(&a->in4.sin_addr, bytes, 4);
	} else {
		a->len = sizeof(a->in6);
		a->in6.sin6_port = port;
		memcpy(&a->in6.sin6_addr, bytes, 16);
	}
}

/* Can a socket here have that address? */
static bool is_ours(int family, const uint8_t *bytes)
{
	_cleanup_close_ int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct address a = {.kind = ADDRESS_UDP};

	set_ip(&a, family, bytes);
	return fd >= 0 && bind(fd, &a.sa, a.len) == 0;
}

/* False: the listener takes no connections from such an address. */
static bool find_destination(
	const struct address *listener, int family, const uint8_t *from, struct destination *ret)
{
	static const uint8_t loopback4[16] = {127, 0, 0, 1};

	*ret = (struct destination){.address = *listener};
	if (!address_is_wildcard(listener))
		return address_family(listener) == family;
	if (address_family(listener) == AF_INET && family == AF_INET6)
		return false;
	/* [::] takes IPv4 too, unless v6only; that only the daemon knows, and then it refuses such
	 * an address. */
	if (is_loopback(family, from))
		set_ip(&ret->address, family, family == AF_INET ? loopback4 : from);
	else
		set_ip(&ret->address, family, from);
	ret->elsewhere = !is_ours(family, from);
	return true;
}

/* "http://127.0.0.1:8080/"; in quotes where a shell would look for files. From another machine it
 * is this one by its name. The caller frees. */
static char *url_of(const struct destination *d)
{
	_cleanup_free_ char *text = NULL;
	char name[256] = "";
	const char *plain;

	if (d->elsewhere)
		return gethostname(name, sizeof(name) - 1) < 0
			       ? NULL
			       : xasprintf("http://%s:%u/", name, address_port(&d->address));
	text = address_format(&d->address);
	plain = text ? startswith(text, "tcp:") : NULL;
	if (!plain)
		return NULL;
	return *plain == '[' ? xasprintf("'http://%s/'", plain) : xasprintf("http://%s/", plain);
}

/* What is to be said of one listener: a command, or why there is none. */
struct hint {
	char *command, *remark; /* owned; one of them */
};

static void hint_done(struct hint *h)
{
	free(h->command);
	free(h->remark);
}

static struct hint hint_of(const json_t *listener, const char *from)
{
	struct address address;
	struct destination to;
	_cleanup_free_ char *url = NULL;
	uint8_t bytes[16];
	int family;

	if (streq(field_text_or(listener, "kind", ""), "held"))
		return (struct hint){.remark = xasprintf("old and new generation take from one "
							 "queue: there is no preview here")};
	if (address_parse(field_text_or(listener, "address", ""), false, &address) < 0 ||
		address_parse_ip(from, &family, bytes) < 0)
		return (struct hint){.remark = strdup("an address that this tenurectl does not "
						      "know")};
	if (!find_destination(&address, family, bytes, &to))
		return (struct hint){.remark = xasprintf("takes no connections from %s", from)};
	if (address.kind == ADDRESS_UDP)
		return (struct hint){
			.remark = xasprintf("datagrams from %s are part of the preview", from)};
	url = url_of(&to);
	return (struct hint){
		.command = url ? xasprintf("curl --interface %s %s", from, url) : NULL};
}

/* Whom such a connection reaches now. */
static char *answerer(const json_t *service, const char *from)
{
	const json_t *rollout = json_object_get(service, "rollout");
	const char *name = field_text_or(service, "name", "?");
	const char *phase = field_text_or(rollout, "phase", "");

	if (json_is_object(rollout) && !field_null(rollout, "fromGeneration") &&
		!streq(phase, "settling") && !streq(phase, "rollingBack"))
		return xasprintf("%s: connections from %s go to generation %lld, whose upgrade is "
				 "in progress",
			name, from, field_int(rollout, "toGeneration", 0));
	if (field_null(service, "generation"))
		return xasprintf("%s: not running, nobody answers", name);
	return xasprintf("%s: no upgrade is in progress: generation %lld answers, as everybody "
			 "else",
		name, field_int(service, "generation", 0));
}

static void print_preview(struct output *o, json_t *value, void *userdata)
{
	const json_t *listeners = json_object_get(value, "listeners"), *listener;
	size_t i;

	(void)userdata;
	output_text(o, PAINT_PLAIN, field_text_or(value, "message", ""));
	fputc('\n', o->file);
	json_array_foreach (listeners, i, listener) {
		const char *command = field_text(listener, "command");

		fputs("  ", o->file);
		if (!command) {
			output_text(o, PAINT_DIM, field_text_or(listener, "name", "?"));
			output_text(o, PAINT_DIM, " (");
			output_text(o, PAINT_DIM, field_text_or(listener, "address", "?"));
			output_text(o, PAINT_DIM, "): ");
			output_text(o, PAINT_DIM, field_text_or(listener, "remark", "?"));
		} else {
			output_text(o, PAINT_BOLD, command);
		}
		fputc('\n', o->file);
	}
}

static json_t *describe(const json_t *service, const char *from)
{
	_cleanup_free_ char *message = answerer(service, from);
	const json_t *listeners = json_object_get(service, "listeners"), *listener;
	json_t *array = json_array();
	size_t i;

	json_array_foreach (listeners, i, listener) {
		_cleanup_(hint_done) struct hint hint = hint_of(listener, from);

		json_array_append_new(
			array, json_pack("{s:s, s:s, s:s?, s:s?}", "name",
				       field_text_or(listener, "name", "?"), "address",
				       field_text_or(listener, "address", "?"), "command",
				       hint.command, "remark", hint.remark));
	}
	return json_pack("{s:s, s:s, s:s?, s:o}", "service", field_text_or(service, "name", "?"),
		"previewFrom", from, "message", message, "listeners", array);
}

int verb_preview(struct context *context)
{
	const char *name = context->options->args[0], *from;
	_cleanup_json_ json_t *reply = NULL, *value = NULL;
	_cleanup_free_ char *safe = text_safe(name, context->output.utf8);
	const json_t *service;
	int r;

	r = context_call_take(context, "List", json_pack("{s:s}", "service", name), name, &reply);
	if (r != EXIT_DONE)
		return r;
	service = json_array_get(json_object_get(reply, "services"), 0);
	from = field_text(service, "previewFrom");
	if (!from)
		return problem_local(&context->output, EXIT_FAILED,
			"%s: there is no preview, because upgrade.preview_from is not set; add for "
			"instance `preview_from: 127.0.0.2` below `upgrade:`, and then "
			"`tenurectl reload`",
			safe ? safe : "?");
	value = describe(service, from);
	if (!value)
		return context_out_of_memory(context);
	output_document(&context->output, value, print_preview, NULL);
	return EXIT_DONE;
}

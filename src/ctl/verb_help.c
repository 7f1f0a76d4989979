/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/context.h"
#include "ctl/problem.h"
#include "ctl/text.h"

int verb_help(struct context *context)
{
	const char *name = context->options->args ? context->options->args[0] : NULL;
	const struct verb *verb = name ? options_find_verb(context->verbs, name) : NULL;
	_cleanup_free_ char *safe = text_safe(name, context->output.utf8);

	if (name && !verb)
		return problem_local(&context->output, EXIT_USAGE,
			"there is no verb '%s'; `tenurectl help` lists them", safe ? safe : "?");
	options_help(context->output.file, context->verbs, verb);
	return EXIT_DONE;
}

static void print_version(struct output *o, json_t *versions, void *userdata)
{
	const char *daemon = field_text(versions, "tenured");

	(void)userdata;
	output_printf(o, "tenurectl %s\n", field_text_or(versions, "tenurectl", "?"));
	if (daemon) {
		output_printf(o, "tenured ");
		output_text(o, PAINT_PLAIN, daemon);
		output_printf(o, " (running)\n");
	} else {
		output_printf(o, "tenured does not run, or does not answer\n");
	}
}

/* That no daemon answers is no failure here. */
int verb_version(struct context *context)
{
	_cleanup_client_ struct client client = CLIENT_NULL;
	_cleanup_varlink_reply_ struct varlink_reply reply = {0};
	_cleanup_json_ json_t *versions = NULL;
	const char *daemon = NULL;

	if (client_connect(context->socket, &client) >= 0 &&
		client_call(&client, "org.varlink.service.GetInfo", NULL, CONTEXT_ANSWER_USEC,
			&reply) >= 0 &&
		!reply.error)
		daemon = field_text(reply.parameters, "version");
	versions = json_pack("{s:s, s:s?}", "tenurectl", PACKAGE_VERSION, "tenured", daemon);
	if (!versions)
		return context_out_of_memory(context);
	output_document(&context->output, versions, print_version, NULL);
	return EXIT_DONE;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* upgrade, restart, rollback: another generation takes over. */
#include "ctl/follow.h"

/* What the command line says of it; what it leaves out comes from the configuration. 0 or -1. */
static int add_upgrade_options(const struct options *o, json_t *parameters)
{
	int r = 0;

	if (o->strategy)
		r |= json_object_set_new(parameters, "strategy", json_string(o->strategy));
	if (o->overlap)
		r |= json_object_set_new(parameters, "overlap", json_string(o->overlap));
	if (o->soak_usec != USEC_INFINITY)
		r |= json_object_set_new(
			parameters, "soakUsec", json_integer((json_int_t)o->soak_usec));
	if (o->pause_at >= 0)
		r |= json_object_set_new(parameters, "pauseAt", json_real(o->pause_at));
	if (o->wait_drain)
		r |= json_object_set_new(parameters, "waitDrain", json_true());
	if (o->n_steps > 0) {
		json_t *steps = json_array();

		r |= json_object_set_new(parameters, "steps", steps);
		for (size_t i = 0; r == 0 && i < o->n_steps; i++)
			r |= json_array_append_new(steps, json_real(o->steps[i]));
	}
	return r;
}

int verb_upgrade(struct context *context)
{
	_cleanup_follow_ struct follow f = {
		.method = "Upgrade", .noun = "upgrade", .abortable = true};

	if (follow_services(&f, context) < 0)
		return context_out_of_memory(context);
	for (size_t i = 0; i < f.n_calls; i++)
		if (add_upgrade_options(context->options, f.calls[i].parameters) < 0)
			return context_out_of_memory(context);
	return follow_run(&f, context);
}

int verb_restart(struct context *context)
{
	bool hard = context->options->hard;
	_cleanup_follow_ struct follow f = {
		.method = "Restart", .noun = "restart", .abortable = !hard};

	if (follow_services(&f, context) < 0)
		return context_out_of_memory(context);
	for (size_t i = 0; hard && i < f.n_calls; i++)
		if (json_object_set_new(f.calls[i].parameters, "hard", json_true()) < 0)
			return context_out_of_memory(context);
	return follow_run(&f, context);
}

int verb_rollback(struct context *context)
{
	_cleanup_follow_ struct follow f = {.method = "Rollback", .noun = "rollback"};
	uint64_t to = context->options->to;

	if (follow_services(&f, context) < 0)
		return context_out_of_memory(context);
	for (size_t i = 0; to > 0 && i < f.n_calls; i++)
		if (json_object_set_new(f.calls[i].parameters, "to", json_integer((json_int_t)to)) <
			0)
			return context_out_of_memory(context);
	return follow_run(&f, context);
}

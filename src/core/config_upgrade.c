/* SPDX-License-Identifier: Apache-2.0 */
/* How a service is upgraded: the steps, and what needs which kind of listener. */
#include "core/config_resolve.h"

static void resolve_steps(
	struct upgrade_config *u, struct config_place place, struct config_problems *problems)
{
	for (size_t i = 0; i < u->n_steps; i++) {
		if (u->steps[i] == 0 || u->steps[i] > SHARE_MAX) {
			config_problem_add(problems, place, false,
				"upgrade: each step is more than 0%% and at most 100%%");
			return;
		}
		if (i > 0 && u->steps[i] <= u->steps[i - 1]) {
			config_problem_add(problems, place, false,
				"upgrade: each step must be larger than the one before it");
			return;
		}
	}
	if (u->n_steps > 0 && u->steps[u->n_steps - 1] == SHARE_MAX)
		return;
	/* An upgrade ends with all traffic on the new generation; the last step need not say so. */
	if (u->n_steps >= CONFIG_STEPS_MAX) {
		config_problem_add(problems, place, false,
			"upgrade: more than %d steps, the last of 100%% included",
			CONFIG_STEPS_MAX);
		return;
	}
	u->steps[u->n_steps++] = SHARE_MAX;
}

static void check_recreate(
	const struct upgrade_config *u, struct config_place place, struct config_problems *problems)
{
	if (u->surge_set)
		config_problem_add(problems, place, false,
			"\"surge\" has no meaning with strategy recreate, which stops all workers "
			"first");
	if (u->steps_set)
		config_problem_add(problems, place, false,
			"\"steps\" has no meaning with strategy recreate, which stops all workers "
			"first");
	if (u->keep_warm_usec > 0)
		config_problem_add(problems, place, true,
			"\"keep_warm\" has no effect with strategy recreate: no old generation is "
			"left");
}

/* Can a client with an address of this family reach it? */
static bool is_reached_by(const struct listener_config *l, int family)
{
	if (l->inherited) /* what it is will be seen when systemd hands it over */
		return true;
	if (address_family(&l->address) == family)
		return true;
	return family == AF_INET && address_is_wildcard(&l->address) && !l->v6only;
}

static bool any_is_reached_by(const struct service_config *s, int family)
{
	for (size_t i = 0; i < s->n_listeners; i++) {
		const struct listener_config *l = &s->listeners[i];

		if (!l->broken && listener_config_wants_lanes(l) && is_reached_by(l, family))
			return true;
	}
	return false;
}

static bool is_mapped_ipv4(const uint8_t bytes[16])
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return memcmp(bytes, prefix, sizeof(prefix)) == 0;
}

static void check_preview(const struct service_config *s, struct config_place place, bool no_lanes,
	struct config_problems *problems)
{
	const char *from = s->upgrade.preview_from;
	uint8_t bytes[16];
	int family;

	if (!from)
		return;
	if (address_parse_ip(from, &family, bytes) < 0)
		config_problem_add(problems, place, false,
			"preview_from: \"%s\" is not an IP address, such as 127.0.0.2 or ::1",
			from);
	else if (family == AF_INET6 && is_mapped_ipv4(bytes))
		config_problem_add(problems, place, false,
			"preview_from: \"%s\" stands for %u.%u.%u.%u; write that", from, bytes[12],
			bytes[13], bytes[14], bytes[15]);
	else if (no_lanes)
		config_problem_add(problems, place, false,
			"preview_from needs a TCP or UDP listener with steering");
	else if (!(s->broken & SECTION_LISTEN) && !any_is_reached_by(s, family))
		config_problem_add(problems, place, false,
			"preview_from: \"%s\" is an IPv%d address, and no listener takes such "
			"connections; use an IPv%d address",
			from, family == AF_INET ? 4 : 6, family == AF_INET ? 6 : 4);
}

static bool names_preview(char *const *command)
{
	for (size_t i = 0; command && command[i]; i++)
		if (strstr(command[i], "{preview}"))
			return true;
	return false;
}

static void check_verify(const struct service_config *s, struct config_place fallback,
	struct config_problems *problems)
{
	const struct verify_config *v = &s->upgrade.verify;
	const struct config_place place = config_place_or(v->place, fallback);

	switch (v->by) {
	case VERIFY_NONE:
		break;
	case VERIFY_HTTP:
		if (!(s->broken & SECTION_LISTEN) && config_count_probed(s) == 0)
			config_problem_add(problems, place, false,
				"verify by http needs a TCP listener with steering: on a queue "
				"that both generations share, the old one could answer; use a "
				"command");
		break;
	case VERIFY_COMMAND:
		if (!v->command || !v->command[0])
			config_problem_add(problems, place, false, "verify: the command is empty");
		else if (names_preview(v->command) && !s->upgrade.preview_from)
			config_problem_add(problems, place, false,
				"verify: {preview} stands for the address of preview_from, which "
				"is not set; add preview_from: 127.0.0.2");
		break;
	}
}

int config_resolve_upgrade(struct service_config *s, struct config_problems *problems)
{
	struct upgrade_config *u = &s->upgrade;
	const struct config_place place = config_place_or(u->place, s->place);
	bool no_lanes = !(s->broken & SECTION_LISTEN) && config_count_lanes(s) == 0;

	if (!u->strategy_set)
		u->strategy = s->workers > 1 ? STRATEGY_ROLLING : STRATEGY_BLUE_GREEN;
	if (s->broken & SECTION_UPGRADE)
		return 0;
	resolve_steps(u, place, problems);
	check_preview(s, place, no_lanes, problems);
	if (u->surge == 0 || u->surge > SHARE_MAX)
		config_problem_add(problems, place, false,
			"upgrade: surge is more than 0%% and at most 100%%");
	if (u->strategy == STRATEGY_RECREATE)
		check_recreate(u, place, problems);
	if (u->strategy == STRATEGY_CANARY && no_lanes)
		config_problem_add(problems, place, false,
			"strategy canary needs a TCP or UDP listener with steering: a queue that "
			"both generations share cannot be divided");
	else if (u->keep_warm_usec > 0 && u->strategy != STRATEGY_RECREATE && no_lanes)
		config_problem_add(problems, place, true,
			"\"keep_warm\" has no effect without a TCP or UDP listener with steering: "
			"an old generation cannot be kept from a queue that it shares with the "
			"new one");
	if (u->sticky == STICKY_CLIENT && no_lanes)
		config_problem_add(problems, place, false,
			"sticky needs a TCP or UDP listener with steering: who gets a connection "
			"from a queue that both generations share is not ours to choose");
	check_verify(s, place, problems);
	return 0;
}

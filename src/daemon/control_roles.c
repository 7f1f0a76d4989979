/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control_internal.h"

#include <syslog.h>

#include "sys/user.h"

void control_roles_done(struct control_roles *roles)
{
	free(roles->uids);
	free(roles->gids);
	*roles = (struct control_roles){0};
}

static int resolve_one(struct control_roles *roles, const char *name)
{
	_cleanup_user_ struct user user = {0};
	int r;

	if (name[0] == '@') {
		r = group_lookup(name + 1, &roles->gids[roles->n_gids]);
		if (r >= 0)
			roles->n_gids++;
		return r;
	}
	r = user_lookup(name, NULL, &user);
	if (r >= 0)
		roles->uids[roles->n_uids++] = user.uid;
	return r;
}

int control_roles_resolve(const struct control_server *server, char *const *names, const char *what,
	struct control_roles *ret)
{
	size_t n = names ? strv_length(names) : 0;
	struct control_roles roles = {
		.uids = calloc(n + 1, sizeof(uid_t)),
		.gids = calloc(n + 1, sizeof(gid_t)),
	};

	if (!roles.uids || !roles.gids) {
		control_roles_done(&roles);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		int r = resolve_one(&roles, names[i]);

		if (r == -ENOMEM) {
			control_roles_done(&roles);
			return r;
		}
		if (r < 0)
			control_report(server, LOG_WARNING,
				"control: %s: there is no %s \"%s\" on this system, ignoring it",
				what, names[i][0] == '@' ? "group" : "user", names[i]);
	}
	*ret = roles;
	return 0;
}

static bool contain(const struct control_roles *roles, const struct peer *peer)
{
	for (size_t i = 0; i < roles->n_uids; i++)
		if (roles->uids[i] == peer->uid)
			return true;
	for (size_t i = 0; i < roles->n_gids; i++)
		if (peer_in_group(peer, roles->gids[i]))
			return true;
	return false;
}

enum control_role control_server_role(const struct control_server *server, const struct peer *peer)
{
	/* Who can signal or trace the daemon gains nothing here. */
	if (peer->uid == 0 || peer->uid == geteuid() || contain(&server->operators, peer))
		return CONTROL_OPERATOR;
	if (server->observers_all || contain(&server->observers, peer))
		return CONTROL_OBSERVER;
	return CONTROL_NONE;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/activation.h"

#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "sys/listen.h"

void activation_done(struct activation *a)
{
	for (size_t i = 0; i < a->n; i++) {
		close_fd(a->sockets[i].fd);
		free(a->sockets[i].name);
	}
	free(a->sockets);
	*a = (struct activation){.sockets = NULL};
}

static void look_at(struct activation_socket *s)
{
	struct listen_state state = {.accepting = false};
	struct stat st;
	int r;

	s->uid = fstat(s->fd, &st) >= 0 ? st.st_uid : (uid_t)-1;
	s->is_socket = socket_address(s->fd, &s->address) >= 0;
	if (!s->is_socket)
		return;
	r = listen_query(s->fd, &state);
	s->listening = (r >= 0 || r == -EOPNOTSUPP) && state.accepting;
	s->queue_max = state.queue_max;
}

int activation_add(struct activation *a, int fd, const char *name)
{
	struct activation_socket *longer = reallocarray(a->sockets, a->n + 1, sizeof(*longer));
	char *copy = strdup(name);

	if (longer)
		a->sockets = longer;
	if (!longer || !copy) {
		free(copy);
		return -ENOMEM;
	}
	a->sockets[a->n] = (struct activation_socket){.fd = fd, .name = copy};
	look_at(&a->sockets[a->n++]);
	return 0;
}

int activation_receive(struct activation *ret)
{
	_cleanup_activation_ struct activation a = {.sockets = NULL};
	_cleanup_strv_ char **names = NULL;
	int n;

	n = sd_listen_fds_with_names(1, &names);
	if (n < 0)
		return n;
	a.sockets = calloc((size_t)n + 1, sizeof(*a.sockets));
	if (!a.sockets)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		struct activation_socket *s = &a.sockets[a.n++];

		s->fd = SD_LISTEN_FDS_START + i;
		s->name = TAKE_PTR(names[i]);
		look_at(s);
	}
	*ret = a;
	a = (struct activation){.sockets = NULL};
	return 0;
}

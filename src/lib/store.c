/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors for the successor: by the channel, else as sd_notify(3) has it. */
#include "lib/internal.h"

static int store_some(
	const struct tenure *t, const char *name, const int *fds, size_t n, bool no_poll)
{
	struct channel_message m = {.kind = CHANNEL_STORE, .no_poll = no_poll};
	char text[CHANNEL_NAME_MAX + 64];
	int r;

	if (t->channel_fd >= 0) {
		memcpy(m.name, name, strlen(name) + 1);
		r = channel_send(t, &m, fds, n);
		return r < 0 ? r : 1;
	}
	(void)snprintf(
		text, sizeof(text), "FDSTORE=1\nFDNAME=%s%s", name, no_poll ? "\nFDPOLL=0" : "");
	return notify_send(t, text, fds, n);
}

EXPORT int tenure_store(
	const struct tenure *t, const char *name, const int *fds, size_t n, uint64_t flags)
{
	int r = 0;

	if (!channel_name_valid(name) || n == 0 || (flags & ~(uint64_t)TENURE_STORE_NO_POLL))
		return -EINVAL;
	for (size_t at = 0; at < n; at += CHANNEL_FDS_MAX) {
		r = store_some(t, name, fds + at, MIN(n - at, (size_t)CHANNEL_FDS_MAX),
			flags & TENURE_STORE_NO_POLL);
		if (r <= 0)
			return r;
	}
	return r;
}

EXPORT int tenure_unstore(const struct tenure *t, const char *name)
{
	struct channel_message m = {.kind = CHANNEL_UNSTORE};
	char text[CHANNEL_NAME_MAX + 64];
	int r;

	if (!channel_name_valid(name))
		return -EINVAL;
	if (t->channel_fd >= 0) {
		memcpy(m.name, name, strlen(name) + 1);
		r = channel_send(t, &m, NULL, 0);
		return r < 0 ? r : 1;
	}
	(void)snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return notify_send(t, text, NULL, 0);
}

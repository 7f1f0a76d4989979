/* SPDX-License-Identifier: Apache-2.0 */
/* Where a worker's output goes: read from its capture file and copied to our stderr (tee), the
 * journal or a file; the last lines are kept for whoever asks why it failed. */
#pragma once

#include <systemd/sd-event.h>

#include "base/error.h"
#include "core/config.h"

struct output;
struct output_hub; /* one per manager: the inotify descriptor and its source */

int output_hub_new(sd_event *event, struct output_hub **ret);
struct output_hub *output_hub_free(struct output_hub *h);
/* Log files were rotated: open them again (SIGUSR1). */
void output_hub_reopen(struct output_hub *h);

/* Start to capture. worker NO_WORKER: of the command that verifies the generation. ret_write_fd:
 * for the worker's stdout and stderr; the caller closes it after the spawn. file: OUTPUT_FILE's
 * path; it is opened as us, append, 0640, and shared between the outputs that name it.
 * OUTPUT_INHERIT is not for here (-EINVAL). */
int output_new(struct output_hub *h, enum output_kind kind, const char *file, const char *service,
	unsigned generation, unsigned worker, struct output **ret, int *ret_write_fd,
	struct error *ret_error);
/* Go on with the capture file of an earlier daemon, from its file position on. Takes the descriptor
 * on success. */
int output_restore_take(struct output_hub *h, enum output_kind kind, const char *file,
	const char *service, unsigned generation, unsigned worker, int *fd, struct output **ret,
	struct error *ret_error);
/* The capture file's descriptor, borrowed. */
int output_fd(const struct output *o);
/* Read what is left, write it out, close. */
struct output *output_free(struct output *o);
/* Read now what is there (the worker has just ended, and somebody will ask for its last lines). */
void output_catch_up(struct output *o);
/* The last output, cleaned for people; at most max_lines lines. The caller frees; NULL: nothing, or
 * out of memory. */
char *output_tail(const struct output *o, size_t max_lines);

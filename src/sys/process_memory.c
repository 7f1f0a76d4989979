/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory a process has: proc_pid_statm(5), and of smaps_rollup (proc_pid_smaps(5)) the
 * proportional set size. */
#include <fcntl.h>

#include "sys/process.h"
#include "sys/procfs.h"

/* NUL-terminated. 0 or -errno. */
static int read_small(pid_t pid, const char *name, char *buf, size_t size)
{
	_cleanup_close_ int fd = -1;
	char path[64];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return procfs_error(errno);
	n = read(fd, buf, size - 1);
	if (n < 0)
		return procfs_error(errno);
	buf[n] = '\0';
	return 0;
}

int process_memory(pid_t pid, uint64_t *ret)
{
	unsigned long long size, resident;
	char buf[256];
	int r = read_small(pid, "statm", buf, sizeof(buf));

	if (r < 0)
		return r;
	if (sscanf(buf, "%llu %llu", &size, &resident) != 2)
		return -EBADMSG;
	*ret = (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}

int process_memory_share(pid_t pid, uint64_t *ret)
{
	unsigned long long kib;
	const char *line;
	char buf[4096];
	int r = read_small(pid, "smaps_rollup", buf, sizeof(buf));

	if (r < 0)
		return r;
	line = strstr(buf, "\nPss:");
	if (!line || sscanf(line, " Pss: %llu kB", &kib) != 1)
		return -EBADMSG;
	*ret = (uint64_t)kib * 1024;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory a process has: proc_pid_statm(5), and of smaps_rollup (proc_pid_smaps(5)) the
 * proportional set size. */
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>

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

/* Code is never written: what is needed again comes back from the page cache, 64 KiB at a time. */
static int forget_code_of(struct dl_phdr_info *object, size_t size, void *userdata)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	(void)size;
	(void)userdata;
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &object->dlpi_phdr[i];
		uintptr_t from = (uintptr_t)object->dlpi_addr + p->p_vaddr;
		uintptr_t to = from + p->p_memsz;

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X) || (p->p_flags & PF_W))
			continue;
		from &= ~(page - 1);
		/* Addresses of the loader are numbers. */
		(void)madvise((void *)from, to - from, MADV_DONTNEED); // NOLINT
	}
	return 0;
}

void process_forget_code(void)
{
	(void)dl_iterate_phdr(forget_code_of, NULL);
}

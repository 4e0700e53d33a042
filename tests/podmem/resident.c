/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much guest memory a node has, exactly, and without asking its code.
 *
 * Whoever counts pages while they move counts some twice: one that is seen and then leaves, and the
 * one that comes in its place further on. On a busy host there may be hundreds between two looks of
 * a count. So the node is stopped, counted and let go on. What counts is all that is registered with
 * a userfaultfd: guest memory, and where pages are kept that were moved out of it.
 */
#include "tests/podmem/podmem.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* "um": missing pages of this mapping go to a userfaultfd. */
static int count_registered(pid_t pid, uint64_t *ret_pages)
{
	uint64_t kib, of_this = 0, sum = 0;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Rss: %lu kB", &kib) == 1)
			of_this = kib;
		else if (sscanf(line, "Swap: %lu kB", &kib) == 1)
			of_this += kib;
		else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " um"))
			sum += of_this;
	}
	fclose(file);
	*ret_pages = sum * 1024 / PAGE_BYTES;
	return 0;
}

int podmem_resident(pid_t pid, uint64_t *ret_pages)
{
	siginfo_t info;
	int error = -ECHILD;

	if (pid <= 0) /* else it were a whole group */
		return -ECHILD;
	if (kill(pid, SIGSTOP) < 0)
		return -errno;
	/* Every thread of it stands still when this returns. */
	if (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOWAIT) == 0 &&
	    info.si_code == CLD_STOPPED)
		error = count_registered(pid, ret_pages);
	kill(pid, SIGCONT);
	return error;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU benchmark's items that are mostly kernel code: system calls, switches between processes,
 * page faults, new processes; and the same work in one thread and in two.
 */
#include "bench/cpu_items.h"

#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS	    10000u
#define TURNS	    500u
#define FAULT_PAGES 2048u
#define CHILDREN    16u

static uint64_t getppid_unit(void)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < CALLS; i++)
		count += syscall(SYS_getppid) > 0;
	return count;
}

static int pipe_there[2], pipe_back[2];

/* Both sides on one CPU, as in a guest that has one. */
static void pipe_prepare(void)
{
	cpu_set_t here;
	char byte;

	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	if (sched_setaffinity(0, sizeof(here), &here) < 0 || pipe(pipe_there) < 0 ||
	    pipe(pipe_back) < 0)
		cpu_die("pipe");
	pid_t child = fork();

	if (child < 0)
		cpu_die("fork");
	if (child > 0) {
		close(pipe_there[0]);
		return;
	}
	close(pipe_there[1]);
	while (read(pipe_there[0], &byte, 1) == 1) {
		if (write(pipe_back[1], &byte, 1) != 1)
			break;
	}
	_exit(0);
}

static uint64_t pipe_unit(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < TURNS; i++) {
		uint8_t byte = (uint8_t)i;

		if (write(pipe_there[1], &byte, 1) != 1 || read(pipe_back[0], &byte, 1) != 1)
			cpu_die("pipe");
		sum = cpu_mix(sum, byte);
	}
	return sum;
}

static uint64_t fault_unit(void)
{
	volatile char *page = mmap(NULL, FAULT_PAGES * 4096ul, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t zero = 0;

	if (page == MAP_FAILED)
		cpu_die("no memory");
	madvise((void *)(uintptr_t)page, FAULT_PAGES * 4096ul, MADV_NOHUGEPAGE);
	for (uint64_t i = 0; i < FAULT_PAGES; i++) {
		zero += page[i * 4096] == 0;
		page[i * 4096] = 1;
	}
	munmap((void *)(uintptr_t)page, FAULT_PAGES * 4096ul);
	return zero;
}

static uint64_t fork_unit(void)
{
	uint64_t count = 0;
	int status;

	for (uint32_t i = 0; i < CHILDREN; i++) {
		pid_t child = fork();

		if (child < 0)
			cpu_die("fork");
		if (child == 0)
			_exit(7);
		count += waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7;
	}
	return count;
}

/* glibc's posix_spawn is a vfork with a stack of its own, and an exec. */
static uint64_t exec_unit(void)
{
	char path[256], *argv[] = { path, (char[]){ CPU_ITEMS_NOTHING }, NULL }, *envp[] = { NULL };
	uint64_t count = 0;
	uint32_t length = 0;
	int status;

	for (; cpu_items_path[length] && length < sizeof(path) - 1; length++)
		path[length] = cpu_items_path[length];
	path[length] = '\0';
	for (uint32_t i = 0; i < CHILDREN; i++) {
		pid_t child;

		if (posix_spawn(&child, path, NULL, NULL, argv, envp))
			cpu_die("posix_spawn");
		count += waitpid(child, &status, 0) == child && WIFEXITED(status) &&
			 WEXITSTATUS(status) == 0;
	}
	return count;
}

/* --- threads --- */

struct work {
	uint64_t sum, ns;
};

static uint64_t last_evenness;

static uint64_t evenness(void)
{
	return last_evenness;
}

static void *thread_work(void *ctx)
{
	struct work *work = ctx;
	struct timespec start, end;

	clock_gettime(CLOCK_MONOTONIC, &start);
	work->sum = cpu_mixed_work();
	clock_gettime(CLOCK_MONOTONIC, &end);
	work->ns = (uint64_t)(end.tv_sec - start.tv_sec) * 1000000000ull + (uint64_t)end.tv_nsec -
		   (uint64_t)start.tv_nsec;
	return NULL;
}

static uint64_t two_unit(void)
{
	struct work mine = { 0 }, other = { 0 };
	pthread_t thread;

	if (pthread_create(&thread, NULL, thread_work, &other))
		cpu_die("pthread_create");
	thread_work(&mine);
	pthread_join(thread, NULL);
	if (other.sum != mine.sum)
		cpu_die("two threads differ in their checksum");
	last_evenness = mine.ns < other.ns ? mine.ns * 1000 / other.ns : other.ns * 1000 / mine.ns;
	return mine.sum;
}

const struct cpu_item cpu_kernel_items[] = {
	{ "getppid", NULL, getppid_unit, NULL, NULL },
	{ "pipe", pipe_prepare, pipe_unit, NULL, NULL },
	{ "fault", NULL, fault_unit, NULL, NULL },
	{ "fork", NULL, fork_unit, NULL, NULL },
	{ "exec", NULL, exec_unit, NULL, NULL },
	{ "threads", NULL, two_unit, cpu_mixed_work, evenness },
	{ NULL, NULL, NULL, NULL, NULL },
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_items: runs items of the CPU benchmark (contract: cpu_items.h) on the CPU it finds itself on.
 *
 *   cpu_items MS ITEM[,ITEM...]
 *
 * The same static program runs natively and as a guest's first process; there it powers the machine
 * off at the end. Each item runs in a process of its own: prepared, then unit after unit until MS
 * milliseconds are over. The first unit is counted apart: it pays for page faults and, in a
 * translator, for translation. A guest's kernel goes on with its own affairs when init has
 * started (Debian's tests its ciphers for a second), so items wait until it is idle. Lines on
 * standard output:
 *
 *   cpu: init NS                             the guest's clock since its start
 *   cpu: begin ITEM
 *   cpu: end ITEM UNITS MEDIAN FIRST TOTAL CHECKSUM SPEEDUP EVENNESS
 *   cpu: failed ITEM WHY
 *   cpu: done
 *
 * Times are ns; MEDIAN is without the first unit if it can be. SPEEDUP, in thousandths: how much
 * faster the unit does its work than the one it is against, median over the pairs; or 0. EVENNESS,
 * likewise: how long its quicker thread took, of what the slower one took.
 *
 * Who started it compares TOTAL with its own clock between the lines begin and end.
 */
#include "bench/cpu_items.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* The first one, and enough of others that one which was disturbed is not their median. */
#define UNITS_MIN 6u
#define UNITS_MAX 4096u
#define PAIRS	  4u /* a ratio of pairs takes so many times as long, to be a median of some */

const char *cpu_items_path;
static const char *running = "-";

void cpu_die(const char *what)
{
	printf("cpu: failed %s %s\n", running, what);
	fflush(stdout);
	_exit(1);
}

void *cpu_memory(size_t bytes)
{
	void *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		cpu_die("no memory");
	return memory;
}

uint64_t cpu_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

uint64_t cpu_mix(uint64_t sum, uint64_t value)
{
	sum = (sum ^ value) * 0x9e3779b97f4a7c15ull;
	return sum ^ sum >> 29;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The line must have left a slow console before the clock starts. */
static void say(const char *line)
{
	fputs(line, stdout);
	fflush(stdout);
	if (isatty(STDOUT_FILENO))
		tcdrain(STDOUT_FILENO);
}

static void check_sum(uint64_t sum)
{
	static uint64_t expected;
	static bool known;

	if (known && sum != expected)
		cpu_die("units differ in their checksum");
	expected = sum;
	known = true;
}

/* How long a unit takes. */
static uint64_t time_unit(uint64_t (*unit)(void), uint64_t *ret_sum)
{
	uint64_t before = clock_ns(CLOCK_MONOTONIC);

	*ret_sum = unit();
	check_sum(*ret_sum);
	return clock_ns(CLOCK_MONOTONIC) - before;
}

/* Of all but the first, if there are others. */
static uint64_t median(uint64_t *value, uint32_t count)
{
	uint32_t skip = count > 1;

	qsort(value + skip, count - skip, sizeof(value[0]), by_value);
	return value[skip + (count - skip) / 2];
}

static void run_units(const struct cpu_item *item, uint64_t budget_ns)
{
	static uint64_t ns[UNITS_MAX], speedup[UNITS_MAX], evenness[UNITS_MAX];
	uint64_t start = clock_ns(CLOCK_MONOTONIC), total = 0, begun = 0, sum = 0, first;
	uint32_t count = 0;
	char line[200];

	budget_ns *= item->against ? PAIRS : 1;
	/* The first one pays for translation, and counts for nothing. */
	while (count < UNITS_MAX && (count < UNITS_MIN || total - begun < budget_ns)) {
		uint64_t other = item->against ? time_unit(item->against, &sum) : 0;

		ns[count] = time_unit(item->unit, &sum);
		speedup[count] = other * 2000 / ns[count];
		evenness[count] = item->evenness ? item->evenness() : 0;
		count++;
		total = clock_ns(CLOCK_MONOTONIC) - start;
		if (count == 1)
			begun = total;
	}
	first = ns[0];
	snprintf(line, sizeof(line), "cpu: end %s %u %llu %llu %llu %llx %llu %llu\n", item->name,
		 count, (unsigned long long)median(ns, count), (unsigned long long)first,
		 (unsigned long long)total, (unsigned long long)sum,
		 (unsigned long long)median(speedup, count),
		 (unsigned long long)median(evenness, count));
	say(line);
}

static void run_item(const struct cpu_item *item, uint64_t budget_ns)
{
	char line[80];
	pid_t child = fork();

	if (child < 0)
		cpu_die("fork");
	if (child > 0) {
		waitpid(child, NULL, 0);
		return;
	}
	running = item->name;
	if (item->prepare)
		item->prepare();
	snprintf(line, sizeof(line), "cpu: begin %s\n", item->name);
	say(line);
	run_units(item, budget_ns);
	_exit(0);
}

/* Ticks of 10 ms that the CPUs spent on anything; false: nobody tells. */
static bool busy_ticks(unsigned long long *ret_ticks)
{
	FILE *file = fopen("/proc/stat", "r");
	unsigned long long user, nice, system, irq, softirq;
	int got;

	if (!file)
		return false;
	got = fscanf(file, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice, &system, &irq,
		     &softirq);
	fclose(file);
	*ret_ticks = user + nice + system + irq + softirq;
	return got == 5;
}

/* Sleeps until the guest has nothing to do of its own, 20 s at most. */
static void wait_until_idle(void)
{
	static const struct timespec window = { .tv_nsec = 200000000 };
	unsigned long long before, after;

	for (int i = 0; i < 100 && busy_ticks(&before); i++) {
		nanosleep(&window, NULL);
		if (!busy_ticks(&after) || after - before <= 1)
			return;
	}
	say("cpu: failed - the guest is never idle\n");
}

static const struct cpu_item *find_item(const char *name)
{
	const struct cpu_item *const tables[] = { cpu_compute_items, cpu_library_items,
						  cpu_kernel_items };

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		for (const struct cpu_item *item = tables[i]; item->name; item++) {
			if (strcmp(item->name, name) == 0)
				return item;
		}
	}
	return NULL;
}

static void run_items(uint64_t budget_ns, char *names)
{
	char *rest = NULL;

	for (char *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
		const struct cpu_item *item = find_item(name);

		if (item)
			run_item(item, budget_ns);
		else
			printf("cpu: failed %s there is no such item\n", name);
	}
}

int main(int argc, char **argv)
{
	bool first_process = getpid() == 1;
	char line[80];

	if (argc == 2 && strcmp(argv[1], CPU_ITEMS_NOTHING) == 0)
		return 0;
	cpu_items_path = argv[0];
	snprintf(line, sizeof(line), "cpu: init %llu\n",
		 (unsigned long long)clock_ns(CLOCK_BOOTTIME));
	say(line);
	if (first_process) {
		mkdir("/proc", 0755);
		mount("proc", "/proc", "proc", 0, NULL);
		wait_until_idle();
	}
	if (argc == 3)
		run_items(strtoull(argv[1], NULL, 10) * 1000000, argv[2]);
	else
		say("cpu: failed - usage: cpu_items MS ITEM[,ITEM...]\n");
	say("cpu: done\n");
	if (first_process)
		reboot(RB_POWER_OFF);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_bench: the CPU benchmark's driver (bench/cpu runs it with all it needs).
 *
 *   cpu_bench [--boots N] [--ms N] [--items A,B] [--subjects A,B] [--json FILE] [--realtime]
 *             KERNEL INITRD CPU_ITEMS BOOT_ONE
 *
 * Every round runs all subjects one after the other, so that what disturbs the machine disturbs
 * all, and boots each guest anew: boots differ, in how memory happens to lie above all. One machine
 * runs at a time. Guests get the same kernel, initramfs and kernel parameters, 512
 * MiB and one vCPU; INITRD has CPU_ITEMS as /bench/cpu-items, which is their init.
 *
 * A guest's clock is not believed: the time between an item's first and last line is taken here,
 * too, and an item whose clocks differ is a failure, as is one whose checksum is not the same
 * everywhere.
 */
#include "bench/cpu.h"
#include "bench/cores.h"
#include "bench/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/engine.h"
#include "machine/loader.h"

#define INIT "/bench/cpu-items"
/* How long a subject may take: booting, and per item, besides its time: TCG's longest unit. */
#define BOOT_S 40u
#define ITEM_S 5u
/* How much the clocks may differ: printing the lines, and waiting for a core here. */
#define CLOCK_SLACK_NS 60e6
#define CLOCK_SLACK    0.03

const char *const cpu_subject_name[CPU_SUBJECTS] = {
	[CPU_NATIVE] = "native",	 [CPU_SOFT] = "soft",	  [CPU_TCG_MAX] = "tcg-max",
	[CPU_TCG_QEMU64] = "tcg-qemu64", [CPU_SOFT_2] = "soft-2",
};

const struct cpu_kind cpu_kinds[] = {
	{ "list", "list: find, reverse, sort", CPU_USER },
	{ "matrix", "matrix, integers", CPU_USER },
	{ "crc", "state machine with CRC", CPU_USER },
	{ "fib", "recursion (fib)", CPU_USER },
	{ "chase-16k", "pointer chase, 16 KiB", CPU_USER },
	{ "chase-1m", "pointer chase, 1 MiB", CPU_USER },
	{ "chase-64m", "pointer chase, 64 MiB", CPU_USER },
	{ "hash-32k", "hash updates, 32 KiB", CPU_USER },
	{ "hash-16m", "hash updates, 16 MiB", CPU_USER },
	{ "copy", "copy, 8 bytes at a time", CPU_USER },
	{ "sha256", "sha256 in C", CPU_USER },
	{ "deflate", "deflate and inflate (zlib)", CPU_USER },
	{ "zstd", "zstd, there and back", CPU_PROGRAMS },
	{ "sqlite", "SQLite, in memory", CPU_PROGRAMS },
	{ "lua", "Lua", CPU_PROGRAMS },
	{ "nbody", "n-body, doubles", CPU_DOUBLES },
	{ "matmul", "matrix multiply, doubles", CPU_DOUBLES },
	{ "memcpy", "libc memcpy, 16 KiB", CPU_BULK },
	{ "memset", "libc memset, 32 MiB", CPU_BULK },
	{ "getppid", "getppid", CPU_KERNEL },
	{ "pipe", "pipe ping-pong", CPU_KERNEL },
	{ "fault", "page faults", CPU_KERNEL },
	{ "fork", "fork, exit, wait", CPU_KERNEL },
	{ "exec", "vfork, exec, wait", CPU_KERNEL },
	{ "threads", "compute in two threads", CPU_THREADS },
	{ NULL, NULL, 0 },
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "cpu_bench: %s: %s\n", what, strerror(errno));
	exit(2);
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* --- starting a subject --- */

struct run {
	enum cpu_subject subject;
	char names[512]; /* the items, with commas */
	uint32_t count;
	pid_t pid;
	int fd;
	double start_ns, begin_ns;
	bool done;
	char said[200]; /* the last line that is not ours: why it ended */
};

static bool wanted(const struct cpu_bench *bench, enum cpu_subject subject, uint32_t item)
{
	if (!bench->item[item])
		return false;
	if (subject == CPU_NATIVE)
		return true;
	return (cpu_kinds[item].group == CPU_THREADS) == (subject == CPU_SOFT_2);
}

static void list_items(const struct cpu_bench *bench, struct run *run)
{
	for (uint32_t i = 0; cpu_kinds[i].name; i++) {
		if (!wanted(bench, run->subject, i))
			continue;
		if (run->count++)
			strcat(run->names, ",");
		strcat(run->names, cpu_kinds[i].name);
	}
}

/* The driver goes ahead of what it measures: its clock tells when a line comes. */
static void set_realtime(int priority)
{
	struct sched_param param = { .sched_priority = priority };

	if (sched_setscheduler(0, SCHED_RR, &param) < 0)
		die("SCHED_RR");
}

static void exec_soft(const struct cpu_bench *bench, const struct run *run, const char *extra)
{
	execl(bench->boot_one, bench->boot_one, "--engine", "soft", bench->kernel, bench->initrd,
	      run->subject == CPU_SOFT_2 ? "2" : "1", "512", extra, (char *)NULL);
}

/* qboot instead of SeaBIOS: the guest's kernel runs milliseconds after QEMU's start. */
static void exec_tcg(const struct cpu_bench *bench, const struct run *run, const char *extra)
{
	char line[LOADER_CMDLINE_MAX + 1];
	struct loader_cmdline_config config = { .tsc_khz = bench->tsc_khz,
						.translated = true,
						.extra = extra };

	if (loader_cmdline(&config, line, sizeof(line)))
		die("the kernel's command line");
	execlp("qemu-system-x86_64", "qemu-system-x86_64", "-M", "pc", "-accel", "tcg,thread=multi",
	       "-cpu", run->subject == CPU_TCG_MAX ? "max" : "qemu64", "-smp", "1", "-m", "512",
	       "-nodefaults", "-display", "none", "-no-reboot", "-bios", "qboot.rom", "-kernel",
	       bench->kernel, "-initrd", bench->initrd, "-append", line, "-serial", "stdio",
	       (char *)NULL);
}

static _Noreturn void become(const struct cpu_bench *bench, const struct run *run, int out)
{
	int null = open("/dev/null", O_RDONLY);
	char extra[1024], ms[16];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (bench->realtime)
		set_realtime(1);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
	    dup2(out, STDERR_FILENO) < 0)
		die("dup2");
	/* Where its threads run settles in the guest's scheduler first. */
	snprintf(ms, sizeof(ms), "%u", bench->budget_ms * (run->subject == CPU_SOFT_2 ? 6 : 1));
	snprintf(extra, sizeof(extra), "quiet %s rdinit=" INIT " -- %s %s", bench->append, ms,
		 run->names);
	if (run->subject == CPU_NATIVE)
		execl(bench->items_program, bench->items_program, ms, run->names, (char *)NULL);
	else if (run->subject == CPU_SOFT || run->subject == CPU_SOFT_2)
		exec_soft(bench, run, extra);
	else
		exec_tcg(bench, run, extra);
	die("exec");
}

static void start(const struct cpu_bench *bench, struct run *run)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		die("pipe");
	run->start_ns = now_ns();
	run->pid = fork();
	if (run->pid < 0)
		die("fork");
	if (run->pid == 0)
		become(bench, run, ends[1]);
	close(ends[1]);
	run->fd = ends[0];
}

/* --- reading what it says --- */

static void complain(struct cpu_bench *bench, const struct run *run, const char *what,
		     const char *line)
{
	progress_clear();
	fprintf(stderr, "cpu_bench: %s: %s: %s\n", cpu_subject_name[run->subject], what, line);
	bench->failed[run->subject]++;
}

static void take_end(struct cpu_bench *bench, struct run *run, const char *line)
{
	unsigned long long median, first, total, checksum, speedup, evenness;
	double host_ns = now_ns() - run->begin_ns, difference;
	uint32_t item = 0;
	char name[32];
	unsigned int units;

	if (sscanf(line, "cpu: end %31s %u %llu %llu %llu %llx %llu %llu", name, &units, &median,
		   &first, &total, &checksum, &speedup, &evenness) != 8) {
		complain(bench, run, "not understood", line);
		return;
	}
	while (cpu_kinds[item].name && strcmp(cpu_kinds[item].name, name) != 0)
		item++;
	if (!cpu_kinds[item].name) {
		complain(bench, run, "unknown item", line);
		return;
	}
	difference = host_ns - (double)total;
	if (difference < -CLOCK_SLACK_NS - CLOCK_SLACK * host_ns ||
	    difference > CLOCK_SLACK_NS + CLOCK_SLACK * host_ns) {
		complain(bench, run, "its clock is not this machine's", line);
		return;
	}
	if (bench->has_checksum[item] && bench->checksum[item] != checksum) {
		complain(bench, run, "another checksum than before", line);
		return;
	}
	bench->has_checksum[item] = true;
	bench->checksum[item] = checksum;
	bench->result[run->subject][item][bench->round] =
		(struct cpu_result){ true, (double)median, (double)first, (double)speedup / 1000,
				     (double)evenness / 1000 };
}

static void take_line(struct cpu_bench *bench, struct run *run, const char *text)
{
	const char *line =
		strstr(text, "cpu: "); /* the console may have left something before it */

	if (!line) {
		if (*text)
			snprintf(run->said, sizeof(run->said), "%.199s", text);
		return;
	}
	if (strncmp(line, "cpu: begin ", 11) == 0) {
		progress_line("cpu: boot %u of %u, %s: %s", bench->round + 1, bench->rounds,
			      cpu_subject_name[run->subject], line + 11);
		run->begin_ns = now_ns();
	} else if (strncmp(line, "cpu: end ", 9) == 0) {
		take_end(bench, run, line);
	} else if (strncmp(line, "cpu: init ", 10) == 0) {
		double ns = now_ns() - run->start_ns;

		bench->boot[run->subject][bench->round] = (struct cpu_result){ true, ns, ns, 0, 0 };
	} else if (strncmp(line, "cpu: done", 9) == 0) {
		run->done = true;
	} else {
		complain(bench, run, "failed", line);
	}
}

/* Reads lines until the end of the output; false: it took too long. */
static bool read_lines(struct cpu_bench *bench, struct run *run)
{
	double budget_s = BOOT_S + run->count * (ITEM_S + 6 * bench->budget_ms / 1000.0);
	double deadline_ns = run->start_ns + budget_s * 1e9;
	char text[4096];
	size_t used = 0;

	for (;;) {
		struct pollfd ready = { .fd = run->fd, .events = POLLIN };
		double left_ns = deadline_ns - now_ns();
		char *end;

		if (left_ns <= 0 || poll(&ready, 1, (int)(left_ns / 1e6) + 1) <= 0)
			return false;
		ssize_t count = read(run->fd, text + used, sizeof(text) - 1 - used);

		if (count <= 0)
			return true;
		used += (size_t)count;
		text[used] = '\0';
		while ((end = strpbrk(text, "\r\n"))) {
			*end = '\0';
			take_line(bench, run, text);
			used -= (size_t)(end + 1 - text);
			memmove(text, end + 1, used + 1);
		}
		if (used == sizeof(text) - 1)
			used = 0; /* no line of ours */
	}
}

static void run_subject(struct cpu_bench *bench, enum cpu_subject subject)
{
	struct run run = { .subject = subject };

	list_items(bench, &run);
	if (run.count == 0)
		return;
	progress_line("cpu: boot %u of %u, %s starts", bench->round + 1, bench->rounds,
		      cpu_subject_name[subject]);
	start(bench, &run);
	if (!read_lines(bench, &run)) {
		complain(bench, &run, "took too long; it said last", run.said);
		kill(run.pid, SIGKILL);
	} else if (!run.done) {
		complain(bench, &run, "ended early; it said last", run.said);
	}
	close(run.fd);
	waitpid(run.pid, NULL, 0);
}

/* --- the command --- */

/* Leaves only those named in `list`; false: one of them is unknown. */
static bool choose_subjects(struct cpu_bench *bench, char *list)
{
	char *rest = NULL;

	memset(bench->subject, 0, sizeof(bench->subject));
	for (char *name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
		uint32_t i = 0;

		while (i < CPU_SUBJECTS && strcmp(cpu_subject_name[i], name) != 0)
			i++;
		if (i == CPU_SUBJECTS)
			return false;
		bench->subject[i] = true;
	}
	return true;
}

static bool choose_items(struct cpu_bench *bench, char *list)
{
	char *rest = NULL;

	memset(bench->item, 0, sizeof(bench->item));
	for (char *name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
		uint32_t i = 0;

		while (cpu_kinds[i].name && strcmp(cpu_kinds[i].name, name) != 0)
			i++;
		if (!cpu_kinds[i].name)
			return false;
		bench->item[i] = true;
	}
	return true;
}

static bool parse(int argc, char **argv, struct cpu_bench *bench, const char **ret_json)
{
	static const struct option known[] = {
		{ "boots", 1, NULL, 'b' },  { "ms", 1, NULL, 'm' },
		{ "items", 1, NULL, 'i' },  { "subjects", 1, NULL, 's' },
		{ "json", 1, NULL, 'j' },   { "realtime", 0, NULL, 'R' },
		{ "append", 1, NULL, 'a' }, { NULL, 0, NULL, 0 }
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (option == 'b')
			bench->rounds = (uint32_t)strtoul(optarg, NULL, 10);
		else if (option == 'm')
			bench->budget_ms = (uint32_t)strtoul(optarg, NULL, 10);
		else if (option == 'R')
			bench->realtime = true;
		else if (option == 'j')
			*ret_json = optarg;
		else if (option == 'a')
			bench->append = optarg;
		else if (option == 'i'	 ? !choose_items(bench, optarg)
			 : option == 's' ? !choose_subjects(bench, optarg)
					 : true)
			return false;
	}
	if (argc - optind != 4 || bench->rounds < 1 || bench->rounds > CPU_ROUNDS_MAX ||
	    bench->budget_ms < 1 || bench->budget_ms > 60000)
		return false;
	bench->kernel = argv[optind];
	bench->initrd = argv[optind + 1];
	bench->items_program = argv[optind + 2];
	bench->boot_one = argv[optind + 3];
	return true;
}

/* The guests' kernel is told the TSC's frequency; the engine knows it. */
static uint32_t find_tsc_khz(void)
{
	struct engine_features features;
	char why[256];

	return engine_soft.probe(&features, why, sizeof(why)) ? 0 : features.tsc_khz;
}

static void write_json(const struct cpu_bench *bench, const char *name)
{
	FILE *to = fopen(name, "w");

	if (!to)
		die(name);
	cpu_print_json(bench, to);
	if (fclose(to) != 0)
		die(name);
}

int main(int argc, char **argv)
{
	static struct cpu_bench bench = { .rounds = 5, .budget_ms = 120, .append = "" };
	const char *json = NULL;
	uint32_t failed = 0;

	memset(bench.subject, 1, sizeof(bench.subject));
	memset(bench.item, 1, sizeof(bench.item));
	if (!parse(argc, argv, &bench, &json)) {
		fprintf(stderr,
			"usage: cpu_bench [--boots 1..%u] [--ms N] [--items A,B] [--subjects A,B] "
			"[--json FILE] [--realtime] [--append TEXT] KERNEL INITRD CPU_ITEMS BOOT_ONE\n",
			CPU_ROUNDS_MAX);
		return 2;
	}
	bench.cores = count_cores();
	bench.tsc_khz = find_tsc_khz();
	if (bench.realtime)
		set_realtime(2);
	for (bench.round = 0; bench.round < bench.rounds; bench.round++) {
		for (uint32_t subject = 0; subject < CPU_SUBJECTS; subject++) {
			if (bench.subject[subject])
				run_subject(&bench, (enum cpu_subject)subject);
		}
	}
	progress_clear();
	cpu_print(&bench, stdout);
	if (json)
		write_json(&bench, json);
	/* QEMU 7.2 loses a boot now and then (docs/rack.md); the round then goes without it. */
	failed = bench.failed[CPU_NATIVE] + bench.failed[CPU_SOFT] + bench.failed[CPU_SOFT_2];
	return failed != 0;
}

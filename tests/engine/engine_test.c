/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine against what the architecture says: small guests (guests*.S), each test in a VM of its
 * own, the same for every engine. --case runs one case only of the system guests (system.h), and
 * --marked those too that the host is known to fail;
 * --vendor lets the guest's CPUID name another vendor, whose behaviour soft then has;
 * --host says whose emulated CPU kvm has below it, so that its known faults are left out;
 * --with moves the shaken guests between two engines at every exit: two of a kind, or one of each;
 * --apart has the second of the two in another process, with the guest's memory in common;
 * --lose has each move lose an item of the state, so that something must fail; --items lists them;
 * --shutdowns tells the exits FIRST to LAST, kicks not counted, as shutdowns of the guest;
 * --late kicks as on a host on which a moved vCPU's guest goes on after so many microseconds only;
 * --rounds makes those of the two-vCPU tests longer that can be (cases_smp.c).
 *
 *   engine-test [--engine kvm|soft] [--with kvm|soft] [--apart] [--require-all] [--without NAME]
 *               [--lose ITEM] [--late US] [--host qemu|bochs] [--case CASE] [--marked]
 *               [--rounds N] [--vendor amd|intel] [--shutdowns FIRST-LAST] [NAME...]
 *
 * Prints a line for each test and ends with "N passed, N failed, N skipped". A test that the KVM at
 * hand cannot run is skipped with its reason; --require-all, which the rack and the emulated Intel
 * host use, makes that a failure. Exit status 0 if nothing failed.
 */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/engine/apart.h"
#include "tests/engine/cases.h"
#include "tests/engine/shake.h"

#define EXIT_SKIPPED	  77   /* as meson has it */
#define TEST_SECONDS	  240  /* it takes 2 on a machine that does nothing else */
#define LONG_TEST_SECONDS 3000 /* with --rounds, beside other work */

static const struct engine_ops *const engines[] = { &engine_kvm, &engine_soft };
#define ENGINE_COUNT (sizeof(engines) / sizeof(engines[0]))

static const struct test_case *const tables[] = {
	cases_machine, cases_event, cases_state, cases_msr,
	cases_kick,    cases_tsc,   cases_smp,	 cases_system,
};
#define TABLE_COUNT (sizeof(tables) / sizeof(tables[0]))

static const char *volatile running = "nothing";

static void on_alarm(int signal_number)
{
	static const char text[] = "FAILED: timed out in ";

	(void)signal_number;
	(void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
	(void)!write(STDOUT_FILENO, running, strlen(running));
	(void)!write(STDOUT_FILENO, "\n", 1);
	_exit(1);
}

/* On the engine's signal stack: under soft the other one is the guest's. */
static void catch_alarm(void)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_ONSTACK };

	sigaction(SIGALRM, &action, NULL);
}

static unsigned int seconds_of_test(void)
{
	return rig_rounds ? LONG_TEST_SECONDS : TEST_SECONDS;
}

static int run_case(const struct test_case *test)
{
	static struct rig rig;
	uint64_t start = rig_now_ns();
	const char *reason;
	int result;

	running = test->name;
	alarm(seconds_of_test());
	result = rig_emulated && test->emulated ? SKIPPED : rig_open(&rig, NULL);
	if (!result)
		result = test->run(&rig);
	reason = rig.skip_reason ? rig.skip_reason : test->emulated;
	rig_close(&rig);
	alarm(0);
	if (result == SKIPPED)
		printf("skip    %s: %s%s\n", test->name,
		       rig_emulated ? "this /dev/kvm only emulates: " : "", reason);
	else
		printf("%s %s (%lu ms)\n", result ? "FAILED " : "ok     ", test->name,
		       (unsigned long)((rig_now_ns() - start) / 1000000));
	return result;
}

/* By the CPU's flags, as in the engine: svm or vmx. */
static bool cpu_virtualizes(void)
{
	uint32_t eax, ebx, ecx, edx;

	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 2)))
		return true;
	return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 5));
}

struct options {
	const struct engine_ops *engine;
	bool require_all, apart;
	const char *without; /* or NULL */
	const char *vendor;  /* "amd", "intel", or NULL: the host's */
	char **names;
	int name_count; /* 0: all */
};

static const struct engine_ops *find_engine(const char *name)
{
	for (size_t i = 0; i < ENGINE_COUNT; i++)
		if (!strcmp(engines[i]->name, name))
			return engines[i];
	printf("engine-test: no engine %s\n", name);
	exit(2);
}

static enum rig_host find_host(const char *name)
{
	static const char *const names[] = { "real", "qemu", "bochs" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(names[i], name))
			return (enum rig_host)i;
	printf("engine-test: no host %s\n", name);
	exit(2);
}

static struct options parse_options(int argc, char **argv)
{
	struct options options = { .engine = &engine_kvm };
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--require-all")) {
			options.require_all = true;
		} else if (!strcmp(argv[i], "--marked")) {
			rig_marked = true;
		} else if (!strcmp(argv[i], "--without") && i + 1 < argc) {
			options.without = argv[++i];
		} else if (!strcmp(argv[i], "--with") && i + 1 < argc) {
			rig_with = find_engine(argv[++i]);
		} else if (!strcmp(argv[i], "--apart")) {
			options.apart = true;
		} else if (!strcmp(argv[i], "--items")) {
			for (size_t n = 0; shake_items[n]; n++)
				puts(shake_items[n]);
			exit(0);
		} else if (!strcmp(argv[i], "--lose") && i + 1 < argc) {
			if (!shake_lose(argv[++i])) {
				printf("engine-test: no item %s\n", argv[i]);
				exit(2);
			}
		} else if (!strcmp(argv[i], "--late") && i + 1 < argc) {
			shake_come_late((uint32_t)strtoul(argv[++i], NULL, 0));
		} else if (!strcmp(argv[i], "--host") && i + 1 < argc) {
			rig_host = find_host(argv[++i]);
		} else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) {
			rig_rounds = strtoull(argv[++i], NULL, 0);
		} else if (!strcmp(argv[i], "--shutdowns") && i + 1 < argc &&
			   sscanf(argv[i + 1], "%u-%u", &rig_shutdown_first, &rig_shutdown_last) ==
				   2) {
			i++;
		} else if (!strcmp(argv[i], "--case") && i + 1 < argc) {
			rig_only = argv[++i];
		} else if (!strcmp(argv[i], "--vendor") && i + 1 < argc) {
			options.vendor = argv[++i];
		} else if (!strcmp(argv[i], "--engine") && i + 1 < argc) {
			options.engine = find_engine(argv[++i]);
		} else {
			printf("usage: engine-test [--engine kvm|soft] [--with kvm|soft] [--apart] "
			       "[--require-all] [--without NAME] [--lose ITEM] [--late US] [--host qemu|bochs] "
			       "[--case CASE] [--marked] [--rounds N] [--vendor amd|intel] "
			       "[--shutdowns FIRST-LAST] [NAME...]\n");
			exit(2);
		}
	}
	options.names = argv + i;
	options.name_count = argc - i;
	return options;
}

/* Leaf 0 has "AuthenticAMD" or "GenuineIntel" in EBX, EDX, ECX. */
static void set_vendor(struct cpuid_set *offer, const char *vendor)
{
	const char *name = !strcmp(vendor, "intel") ? "GenuineIntel" : "AuthenticAMD";

	for (uint32_t i = 0; i < offer->count; i++) {
		if (offer->leaf[i].function)
			continue;
		memcpy(&offer->leaf[i].ebx, name, 4);
		memcpy(&offer->leaf[i].edx, name + 4, 4);
		memcpy(&offer->leaf[i].ecx, name + 8, 4);
	}
}

/* What both engines can do, as node 0 of a pod finds it. */
static int offer_common(char *why, size_t why_size)
{
	static struct engine_features other;
	int err = rig_with->probe(&other, why, why_size);

	return err ? err : cpuid_common(&rig_features.offer, &other.offer, why, why_size);
}

static bool wanted(const struct options *options, const char *name)
{
	if (options->without && !strcmp(options->without, name))
		return false;
	for (int i = 0; i < options->name_count; i++)
		if (!strcmp(options->names[i], name))
			return true;
	return options->name_count == 0;
}

struct totals {
	int passed, failed, skipped;
};

static void run_table(const struct test_case *table, const struct options *options,
		      struct totals *totals)
{
	for (const struct test_case *test = table; test->name; test++) {
		int result;

		if (!wanted(options, test->name))
			continue;
		result = run_case(test);
		totals->passed += result == 0;
		totals->skipped += result == SKIPPED;
		totals->failed += result < 0 || (result == SKIPPED && options->require_all);
	}
}

/* The second engine is in a process that knows nothing of what this one does from now on. */
static void begin_apart(const struct options *options)
{
	rig_memory = mmap(NULL, RIG_MEMORY_BYTES, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (rig_memory == MAP_FAILED) {
		printf("FAILED: no memory\n");
		exit(1);
	}
	rig_with = apart_begin(rig_with ? rig_with : options->engine, rig_memory, RIG_MEMORY_BYTES);
}

/* Nothing failed, and it was what it should be. */
static bool was_apart(void)
{
	uint64_t images, runs;

	apart_counts(&images, &runs);
	printf("%lu images to the other process and back, %lu runs there\n", (unsigned long)images,
	       (unsigned long)runs);
	return images && runs;
}

int main(int argc, char **argv)
{
	struct options options = parse_options(argc, argv);
	struct totals totals = { 0 };
	char why[256] = "";
	int err;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (options.apart)
		begin_apart(&options);
	catch_alarm();
	running = "probe";
	rig_ops = options.engine;
	alarm(TEST_SECONDS);
	err = rig_ops->probe(&rig_features, why, sizeof(why));
	if (err == -ENODEV && !options.require_all) {
		printf("skip    all: %s\n", why);
		return EXIT_SKIPPED;
	}
	if (err) {
		printf("FAILED  probe: %s\n0 passed, 1 failed, 0 skipped\n", why);
		return 1;
	}
	if (rig_with && offer_common(why, sizeof(why))) {
		printf("FAILED  probe: %s\n0 passed, 1 failed, 0 skipped\n", why);
		return 1;
	}
	if (options.vendor)
		set_vendor(&rig_features.offer, options.vendor);
	rig_emulated = rig_ops == &engine_kvm && !cpu_virtualizes();
	for (size_t i = 0; i < TABLE_COUNT; i++)
		run_table(tables[i], &options, &totals);
	if (options.apart && !was_apart())
		totals.failed++;
	printf("%d passed, %d failed, %d skipped\n", totals.passed, totals.failed, totals.skipped);
	return totals.failed || totals.passed == 0;
}

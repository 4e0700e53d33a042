/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU benchmark's driver: what its parts share.
 *
 *      cpu.c           rounds: starts the subjects, reads what cpu_items says in them
 *      cpu_report.c    medians, ratios, thresholds: the table and the JSON
 *
 * A subject is a machine to run on: this one, a guest on the engine soft, a guest in QEMU TCG. In
 * every round each boots and runs all items once; times are nanoseconds a unit, by the subject's own clock.
 */
#ifndef BENCH_CPU_H
#define BENCH_CPU_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CPU_ROUNDS_MAX 21u
#define CPU_ITEMS_MAX  32u

enum cpu_subject { CPU_NATIVE, CPU_SOFT, CPU_TCG_MAX, CPU_TCG_QEMU64, CPU_SOFT_2, CPU_SUBJECTS };

/* What an item counts for. */
enum cpu_group {
	CPU_USER,     /* user code */
	CPU_DOUBLES,  /* the same, and it has a threshold of its own */
	CPU_PROGRAMS, /* likewise: whole programs' libraries */
	CPU_BULK,     /* libc's copy and fill */
	CPU_KERNEL,
	CPU_THREADS, /* with 2 vCPUs only */
};

struct cpu_kind {
	const char *name; /* as cpu_items knows it */
	const char *text;
	enum cpu_group group;
};

struct cpu_result {
	bool have;
	double ns, first_ns, speedup, evenness;
};

struct cpu_bench {
	uint32_t rounds, round;
	uint32_t budget_ms; /* a subject's time for an item in a round */
	bool subject[CPU_SUBJECTS], item[CPU_ITEMS_MAX];
	bool realtime; /* on a machine that others use too: they wait meanwhile */
	const char *append, *kernel, *initrd, *items_program, *boot_one;
	uint32_t cores, tsc_khz;

	struct cpu_result result[CPU_SUBJECTS][CPU_ITEMS_MAX][CPU_ROUNDS_MAX];
	struct cpu_result boot[CPU_SUBJECTS][CPU_ROUNDS_MAX];
	uint64_t checksum[CPU_ITEMS_MAX];
	bool has_checksum[CPU_ITEMS_MAX];
	uint32_t failed[CPU_SUBJECTS]; /* items and boots that went wrong: said on standard error */
};

/* Ends with an entry without a name. */
extern const struct cpu_kind cpu_kinds[];
extern const char *const cpu_subject_name[CPU_SUBJECTS];

void cpu_print(const struct cpu_bench *bench, FILE *to);
void cpu_print_json(const struct cpu_bench *bench, FILE *to);

#endif

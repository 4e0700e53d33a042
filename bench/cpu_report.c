/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the CPU benchmark says (contract: cpu.h).
 *
 * A figure is the median of the boots' figures, a ratio the median of the rounds' ratios, each of two
 * boots of the same minute. TCG's two CPU models both run; for each item the one that is faster (by
 * its median) counts. Beside a ratio is its spread: how far the boot was off that was farthest from
 * the median.
 */
#include "bench/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct goal {
	const char *name, *item; /* the item that decides, or NULL */
	bool have, at_least;
	double value, must, aim;
};

#define GOALS 8u

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/*
 * The median over the rounds of a row, or of its ratio to another, and how far at most one of them
 * is off, as a part of it; false: not measured.
 */
static bool median_spread(const struct cpu_bench *bench, const struct cpu_result *over,
			  const struct cpu_result *under, double *ret_value, double *ret_spread)
{
	double all[CPU_ROUNDS_MAX], below, above;
	uint32_t count = 0;

	for (uint32_t i = 0; i < bench->rounds; i++) {
		if (!over[i].have || (under && !under[i].have))
			continue;
		all[count++] = under ? over[i].ns / under[i].ns : over[i].ns;
	}
	if (count == 0)
		return false;
	qsort(all, count, sizeof(all[0]), by_value);
	*ret_value = count % 2 ? all[count / 2] : (all[count / 2 - 1] + all[count / 2]) / 2;
	below = *ret_value - all[0];
	above = all[count - 1] - *ret_value;
	*ret_spread = (below > above ? below : above) / *ret_value;
	return true;
}

static bool median(const struct cpu_bench *bench, const struct cpu_result *over,
		   const struct cpu_result *under, double *ret_value)
{
	double spread;

	return median_spread(bench, over, under, ret_value, &spread);
}

/* The better of TCG's two, by medians. */
static const struct cpu_result *better(const struct cpu_bench *bench, const struct cpu_result *max,
				       const struct cpu_result *qemu64)
{
	double a, b;

	if (!median(bench, max, NULL, &a))
		return qemu64;
	return median(bench, qemu64, NULL, &b) && b < a ? qemu64 : max;
}

static const struct cpu_result *item_tcg(const struct cpu_bench *bench, uint32_t item)
{
	return better(bench, bench->result[CPU_TCG_MAX][item], bench->result[CPU_TCG_QEMU64][item]);
}

static bool tcg_over_soft(const struct cpu_bench *bench, uint32_t item, double *ret_ratio)
{
	return median(bench, item_tcg(bench, item), bench->result[CPU_SOFT][item], ret_ratio);
}

static bool soft_over_native(const struct cpu_bench *bench, uint32_t item, double *ret_ratio)
{
	return median(bench, bench->result[CPU_SOFT][item], bench->result[CPU_NATIVE][item],
		      ret_ratio);
}

static bool boot_ratio(const struct cpu_bench *bench, double *ret_ratio)
{
	return median(bench, better(bench, bench->boot[CPU_TCG_MAX], bench->boot[CPU_TCG_QEMU64]),
		      bench->boot[CPU_SOFT], ret_ratio);
}

/* The number of an item that there is. */
static uint32_t find(const char *name)
{
	uint32_t i = 0;

	while (strcmp(cpu_kinds[i].name, name) != 0)
		i++;
	return i;
}

/* How much faster two threads do twice the work of one, and how even they are: medians of the
 * rounds. */
static bool speed_up(const struct cpu_bench *bench, enum cpu_subject subject, double *ret_ratio,
		     double *ret_even)
{
	const struct cpu_result *rounds = bench->result[subject][find("threads")];
	struct cpu_result speedup[CPU_ROUNDS_MAX], even[CPU_ROUNDS_MAX];

	for (uint32_t i = 0; i < bench->rounds; i++) {
		speedup[i] = (struct cpu_result){ .have = rounds[i].have, .ns = rounds[i].speedup };
		even[i] = (struct cpu_result){ .have = rounds[i].have, .ns = rounds[i].evenness };
	}
	return median(bench, speedup, NULL, ret_ratio) && median(bench, even, NULL, ret_even);
}

static void find_means(const struct cpu_bench *bench, struct goal *user, struct goal *worst,
		       struct goal *kernel)
{
	double log_user = 0, log_kernel = 0, ratio;
	uint32_t users = 0, kernels = 0;

	for (uint32_t i = 0; cpu_kinds[i].name; i++) {
		if (cpu_kinds[i].group == CPU_BULK || !tcg_over_soft(bench, i, &ratio))
			continue;
		if (cpu_kinds[i].group == CPU_KERNEL) {
			log_kernel += log(ratio);
			kernels++;
			continue;
		}
		log_user += log(ratio);
		users++;
		if (users == 1 || ratio < worst->value) {
			worst->value = ratio;
			worst->item = cpu_kinds[i].name;
		}
	}
	user->have = worst->have = users > 0;
	kernel->have = kernels > 0;
	user->value = exp(log_user / (users ? users : 1));
	kernel->value = exp(log_kernel / (kernels ? kernels : 1));
}

/* The worst of the group's items. */
static void find_worst_to_native(const struct cpu_bench *bench, enum cpu_group group,
				 struct goal *goal)
{
	double ratio;

	for (uint32_t i = 0; cpu_kinds[i].name; i++) {
		if (cpu_kinds[i].group != group || !soft_over_native(bench, i, &ratio))
			continue;
		if (!goal->have || ratio > goal->value) {
			goal->value = ratio;
			goal->item = cpu_kinds[i].name;
		}
		goal->have = true;
	}
}

static void find_goals(const struct cpu_bench *bench, struct goal goal[GOALS])
{
	double even;
	goal[0] = (struct goal){ .name = "user code: TCG / soft, geometric mean",
				 .at_least = true,
				 .must = 3.6,
				 .aim = 4.5 };
	goal[1] = (struct goal){ .name = "user code: TCG / soft, worst item",
				 .at_least = true,
				 .must = 1.1,
				 .aim = 1.5 };
	goal[2] = (struct goal){ .name = "kernel part: TCG / soft, geometric mean",
				 .at_least = true,
				 .must = 2.8,
				 .aim = 4.0 };
	goal[3] = (struct goal){
		.name = "boot to init: TCG / soft", .at_least = true, .must = 1.0, .aim = 2.0
	};
	goal[4] = (struct goal){ .name = "doubles: soft / native, worst", .must = 2.0, .aim = 1.2 };
	goal[5] = (struct goal){ .name = "zstd, SQLite, Lua: soft / native, worst",
				 .must = 4.5,
				 .aim = 3.0 };
	goal[6] = (struct goal){ .name = "bulk copy and fill: soft / native, worst",
				 .must = 4.0,
				 .aim = 1.3 };
	goal[7] = (struct goal){ .name = "2 vCPUs, parallel compute: speed-up",
				 .at_least = true,
				 .must = 1.8,
				 .aim = 1.95 };
	find_means(bench, &goal[0], &goal[1], &goal[2]);
	goal[3].have = boot_ratio(bench, &goal[3].value);
	find_worst_to_native(bench, CPU_DOUBLES, &goal[4]);
	find_worst_to_native(bench, CPU_PROGRAMS, &goal[5]);
	find_worst_to_native(bench, CPU_BULK, &goal[6]);
	goal[7].have = speed_up(bench, CPU_SOFT_2, &goal[7].value, &even);
}

static const char *verdict(const struct goal *goal)
{
	if (goal->at_least ? goal->value >= goal->aim : goal->value <= goal->aim)
		return "met, aim reached";
	return (goal->at_least ? goal->value >= goal->must : goal->value <= goal->must) ? "met"
											: "MISSED";
}

/* --- the table --- */

static void print_number(FILE *to, bool have, double value, int width, int digits)
{
	if (have)
		fprintf(to, " %*.*f", width, digits, value);
	else
		fprintf(to, " %*s", width, "-");
}

/* With its spread. */
static void print_ratio(const struct cpu_bench *bench, FILE *to, const struct cpu_result *over,
			const struct cpu_result *under)
{
	double value = 0, spread = 0;
	bool have = median_spread(bench, over, under, &value, &spread);

	print_number(to, have, value, 7, 2);
	print_number(to, have, spread * 100, 4, 0);
	fputc(have ? '%' : ' ', to);
}

static void print_row(const struct cpu_bench *bench, FILE *to, uint32_t item)
{
	static const enum cpu_subject columns[] = { CPU_NATIVE, CPU_SOFT, CPU_TCG_MAX,
						    CPU_TCG_QEMU64 };
	const struct cpu_result *native = bench->result[CPU_NATIVE][item];
	const struct cpu_result *soft = bench->result[CPU_SOFT][item];
	double value = 0;
	bool have;

	fprintf(to, "%-28s", cpu_kinds[item].text);
	for (uint32_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
		have = median(bench, bench->result[columns[i]][item], NULL, &value);
		print_number(to, have, value / 1e6, 9, 3);
	}
	print_ratio(bench, to, soft, native);
	print_ratio(bench, to, item_tcg(bench, item), soft);
	fprintf(to, "\n");
}

static void print_boot(const struct cpu_bench *bench, FILE *to)
{
	double value = 0;
	bool have;

	fprintf(to, "%-28s %9s", "boot to init, wall clock", "");
	have = median(bench, bench->boot[CPU_SOFT], NULL, &value);
	print_number(to, have, value / 1e6, 9, 0);
	have = median(bench, bench->boot[CPU_TCG_MAX], NULL, &value);
	print_number(to, have, value / 1e6, 9, 0);
	have = median(bench, bench->boot[CPU_TCG_QEMU64], NULL, &value);
	print_number(to, have, value / 1e6, 9, 0);
	fprintf(to, " %7s %5s", "", "");
	print_ratio(bench, to, better(bench, bench->boot[CPU_TCG_MAX], bench->boot[CPU_TCG_QEMU64]),
		    bench->boot[CPU_SOFT]);
	fprintf(to, "\n");
}

/* A core that is slower than the other, for reasons of its own, bounds the speed-up. */
static void print_threads(const struct cpu_bench *bench, enum cpu_subject subject, FILE *to)
{
	double ratio, even;

	if (speed_up(bench, subject, &ratio, &even))
		fprintf(to,
			"(two threads, %s: %.2f; the quicker one took %.0f%% of the slower one's time)\n",
			cpu_subject_name[subject], ratio, even * 100);
}

static void print_goals(const struct cpu_bench *bench, FILE *to)
{
	struct goal goal[GOALS];

	find_goals(bench, goal);
	fprintf(to, "\n%-42s %7s %8s %8s\n", "", "figure", "must", "aim");
	for (uint32_t i = 0; i < GOALS; i++) {
		if (!goal[i].have)
			continue;
		fprintf(to, "%-42s %7.2f %4s%5.2f %4s%5.2f  %s%s%s%s\n", goal[i].name,
			goal[i].value, goal[i].at_least ? ">=" : "<=", goal[i].must,
			goal[i].at_least ? ">=" : "<=", goal[i].aim, verdict(&goal[i]),
			goal[i].item ? " (" : "", goal[i].item ? goal[i].item : "",
			goal[i].item ? ")" : "");
	}
	print_threads(bench, CPU_SOFT_2, to);
	print_threads(bench, CPU_NATIVE, to);
}

static bool has_results(const struct cpu_bench *bench, uint32_t item)
{
	double value;

	for (uint32_t i = 0; i < CPU_SUBJECTS; i++) {
		if (median(bench, bench->result[i][item], NULL, &value))
			return true;
	}
	return false;
}

void cpu_print(const struct cpu_bench *bench, FILE *to)
{
	fprintf(to,
		"%u cores, medians of %u boots, and how far off the farthest was; milliseconds a unit; "
		"1 vCPU, 512 MiB\n\n",
		bench->cores, bench->rounds);
	fprintf(to, "%-28s %9s %9s %9s %9s %7s %5s %7s\n", "", "", "", "TCG", "TCG", "soft/", "",
		"TCG/");
	fprintf(to, "%-28s %9s %9s %9s %9s %7s %5s %7s\n", "", "native", "soft", "max", "qemu64",
		"native", "", "soft");
	for (uint32_t i = 0; cpu_kinds[i].name; i++) {
		if (cpu_kinds[i].group != CPU_THREADS && has_results(bench, i))
			print_row(bench, to, i);
	}
	print_boot(bench, to);
	print_goals(bench, to);
	for (uint32_t i = 0; i < CPU_SUBJECTS; i++) {
		if (bench->failed[i])
			fprintf(to, "%s: %u failures\n", cpu_subject_name[i], bench->failed[i]);
	}
}

/* --- JSON --- */

static double median_first(const struct cpu_bench *bench, const struct cpu_result *row)
{
	struct cpu_result first[CPU_ROUNDS_MAX];
	double value = 0;

	for (uint32_t i = 0; i < bench->rounds; i++)
		first[i] = (struct cpu_result){ .have = row[i].have, .ns = row[i].first_ns };
	median(bench, first, NULL, &value);
	return value;
}

static void print_json_ratio(const struct cpu_bench *bench, FILE *to, const char *name,
			     const struct cpu_result *over, const struct cpu_result *under)
{
	double value, spread;

	if (median_spread(bench, over, under, &value, &spread))
		fprintf(to, ", \"%s\": %.3f, \"%s_spread\": %.3f", name, value, name, spread);
}

static void print_json_items(const struct cpu_bench *bench, FILE *to)
{
	const char *comma = "";
	double value;

	for (uint32_t i = 0; cpu_kinds[i].name; i++) {
		if (!has_results(bench, i))
			continue;
		fprintf(to, "%s\n  {\"item\": \"%s\"", comma, cpu_kinds[i].name);
		for (uint32_t s = 0; s < CPU_SUBJECTS; s++) {
			if (median(bench, bench->result[s][i], NULL, &value))
				fprintf(to, ", \"%s\": {\"unit_ns\": %.0f, \"first_ns\": %.0f}",
					cpu_subject_name[s], value,
					median_first(bench, bench->result[s][i]));
		}
		print_json_ratio(bench, to, "soft_native", bench->result[CPU_SOFT][i],
				 bench->result[CPU_NATIVE][i]);
		print_json_ratio(bench, to, "tcg_soft", item_tcg(bench, i),
				 bench->result[CPU_SOFT][i]);
		fprintf(to, "}");
		comma = ",";
	}
}

void cpu_print_json(const struct cpu_bench *bench, FILE *to)
{
	struct goal goal[GOALS];
	const char *comma = "";
	double value;

	fprintf(to, "{\"cores\": %u, \"boots\": %u, \"items\": [", bench->cores, bench->rounds);
	print_json_items(bench, to);
	fprintf(to, "\n], \"boot_ns\": {");
	for (uint32_t s = 0; s < CPU_SUBJECTS; s++) {
		if (s == CPU_NATIVE || !median(bench, bench->boot[s], NULL, &value))
			continue;
		fprintf(to, "%s\"%s\": %.0f", comma, cpu_subject_name[s], value);
		comma = ", ";
	}
	fprintf(to, "}, \"goals\": [");
	comma = "";
	find_goals(bench, goal);
	for (uint32_t i = 0; i < GOALS; i++) {
		if (!goal[i].have)
			continue;
		fprintf(to,
			"%s\n  {\"name\": \"%s\", \"value\": %.3f, \"must\": %.2f, \"aim\": %.2f, \"verdict\": \"%s\"}",
			comma, goal[i].name, goal[i].value, goal[i].must, goal[i].aim,
			verdict(&goal[i]));
		comma = ",";
	}
	fprintf(to, "\n]}\n");
}

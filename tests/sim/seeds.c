/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many seeds in several processes. A worker takes every jobs-th seed and writes where it is into
 * memory that is shared with the parent: so a core that asserts, crashes or hangs in a loop names
 * its seed like any other failure, and another worker goes on behind it.
 */
#include "tests/sim/bound.h"
#include "tests/sim/options.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A seed that computes for so long is a failure: the core, or this program, hangs in a loop. */
#define SEED_SECONDS 120

struct worker {
	pid_t pid;
	uint64_t seed; /* at work on this one */
	uint64_t done, failed, events, instructions, stalls, messages;
	uint64_t worst_stall_permille, worst_progress_permille, slowest_seed, slowest_ms;
	struct coh_stats stats;
};

struct share {
	uint64_t failed; /* of all; only hastens the end, so no more than roughly right */
	struct worker worker[64];
};

static void print_settings(const struct options *options)
{
	for (uint32_t i = 0; i < options->setting_count; i++)
		printf(" --set %s", options->setting[i]);
	putchar('\n');
}

static void print_failure(const struct options *options, const struct plan *plan,
			  const struct verdict *verdict)
{
	printf("FAILED seed %" PRIu64 ": %s at %" PRIu64 " ns, node %u page %u: %s\n", plan->seed,
	       rule_name(verdict->rule), verdict->at_ns, verdict->node, verdict->page,
	       verdict->text);
	printf("       replay: simulator --seed %" PRIu64 " --trace", plan->seed);
	print_settings(options);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void add_result(struct worker *worker, const struct world_result *result, uint64_t ms)
{
	worker->done++;
	worker->events += result->events;
	worker->instructions += result->instructions;
	worker->stalls += result->stalls;
	worker->messages += result->messages;
	worker->stats.deferred_count += result->stats.deferred_count;
	worker->stats.freed_count += result->stats.freed_count;
	worker->stats.evict_push_count += result->stats.evict_push_count;
	worker->stats.evict_drop_count += result->stats.evict_drop_count;
	worker->stats.readahead_count += result->stats.readahead_count;
	if (result->stall_permille > worker->worst_stall_permille)
		worker->worst_stall_permille = result->stall_permille;
	if (result->progress_permille > worker->worst_progress_permille)
		worker->worst_progress_permille = result->progress_permille;
	if (ms >= worker->slowest_ms) {
		worker->slowest_ms = ms;
		worker->slowest_seed = worker->seed;
	}
}

static void run_one(const struct options *options, struct share *share, struct worker *worker)
{
	struct world_result result;
	struct plan plan;
	uint64_t start = now_ms();
	int ret;

	options_plan(options, worker->seed, &plan);
	if (options->trace)
		plan_print(&plan, stdout);
	bound_cpu(SEED_SECONDS);
	ret = world_run(&plan, options->trace, &result);
	if (ret) {
		printf("FAILED seed %" PRIu64 ": its world cannot be made: %s\n", worker->seed,
		       strerror(-ret));
		worker->failed++;
		share->failed++;
		return;
	}
	bound_cpu(0);
	add_result(worker, &result, now_ms() - start);
	if (options->verbose) {
		printf("seed %" PRIu64 ": %s, %" PRIu64 " events, %" PRIu64
		       " instructions, %" PRIu64 " stalls, %" PRIu64 " us, %" PRIu64 " ms: ",
		       worker->seed, rule_name(result.verdict.rule), result.events,
		       result.instructions, result.stalls, result.now_ns / 1000, now_ms() - start);
		plan_print(&plan, stdout);
	}
	if (result.verdict.rule) {
		print_failure(options, &plan, &result.verdict);
		worker->failed++;
		share->failed++;
	}
}

static void work(const struct options *options, struct share *share, uint32_t index, uint64_t from)
{
	struct worker *worker = &share->worker[index];

	for (worker->seed = from; worker->seed <= options->last; worker->seed += options->jobs) {
		if (share->failed >= options->failures_max)
			break;
		run_one(options, share, worker);
	}
	fflush(stdout);
	_exit(0);
}

static int start_worker(const struct options *options, struct share *share, uint32_t index,
			uint64_t from)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody would read what it finds */
		work(options, share, index, from);
	}
	share->worker[index].pid = pid;
	return 0;
}

/* A worker ended. By a signal: that is its seed's failure, and the next seed is another worker's.
 */
static bool worker_ended(const struct options *options, struct share *share, pid_t pid, int status)
{
	for (uint32_t i = 0; i < options->jobs; i++) {
		struct worker *worker = &share->worker[i];

		if (worker->pid != pid)
			continue;
		worker->pid = 0;
		if (!WIFSIGNALED(status))
			return false;
		printf("FAILED seed %" PRIu64 ": %s\n       replay: simulator --seed %" PRIu64
		       " --trace",
		       worker->seed,
		       WTERMSIG(status) == BOUND_SIGNAL ? "computes for ever"
							: strsignal(WTERMSIG(status)),
		       worker->seed);
		print_settings(options);
		worker->failed++;
		share->failed++;
		return !start_worker(options, share, i, worker->seed + options->jobs);
	}
	return false;
}

static void print_sum(const struct options *options, const struct share *share, uint64_t ms)
{
	struct worker sum = { 0 };

	for (uint32_t i = 0; i < options->jobs; i++) {
		const struct worker *w = &share->worker[i];

		sum.done += w->done;
		sum.failed += w->failed;
		sum.events += w->events;
		sum.instructions += w->instructions;
		sum.stalls += w->stalls;
		sum.messages += w->messages;
		sum.stats.deferred_count += w->stats.deferred_count;
		sum.stats.freed_count += w->stats.freed_count;
		sum.stats.evict_push_count += w->stats.evict_push_count;
		sum.stats.evict_drop_count += w->stats.evict_drop_count;
		sum.stats.readahead_count += w->stats.readahead_count;
		if (w->worst_stall_permille > sum.worst_stall_permille)
			sum.worst_stall_permille = w->worst_stall_permille;
		if (w->worst_progress_permille > sum.worst_progress_permille)
			sum.worst_progress_permille = w->worst_progress_permille;
		if (w->slowest_ms >= sum.slowest_ms) {
			sum.slowest_ms = w->slowest_ms;
			sum.slowest_seed = w->slowest_seed;
		}
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " failed: %" PRIu64 " instructions, %" PRIu64
	       " stalls, %" PRIu64 " messages, %" PRIu64 " takings deferred, %" PRIu64
	       " pages pushed, %" PRIu64 " dropped, %" PRIu64 " read ahead, %" PRIu64 " freed\n",
	       sum.done, sum.failed, sum.instructions, sum.stalls, sum.messages,
	       sum.stats.deferred_count, sum.stats.evict_push_count, sum.stats.evict_drop_count,
	       sum.stats.readahead_count, sum.stats.freed_count);
	printf("longest stall %" PRIu64 " permille of its bound, longest instruction %" PRIu64
	       "; %" PRIu64 " events in %" PRIu64 " ms; slowest seed %" PRIu64 " (%" PRIu64
	       " ms)\n",
	       sum.worst_stall_permille, sum.worst_progress_permille, sum.events, ms,
	       sum.slowest_seed, sum.slowest_ms);
}

uint64_t seeds_run(const struct options *options)
{
	struct share *share = mmap(NULL, sizeof(*share), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t start = now_ms(), failed;
	uint32_t running = 0;

	if (share == MAP_FAILED)
		return 1;
	if (options->trace) { /* in this process: a debugger may want to look on */
		share->worker[0].seed = options->first;
		run_one(options, share, &share->worker[0]);
		return share->failed;
	}
	for (uint32_t i = 0; i < options->jobs; i++)
		running += !start_worker(options, share, i, options->first + i);
	while (running) {
		int status;
		pid_t pid = wait(&status);

		if (pid < 0)
			break;
		running -= !worker_ended(options, share, pid, status);
	}
	print_sum(options, share, now_ms() - start);
	failed = share->failed;
	munmap(share, sizeof(*share));
	return failed;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test of the judges: every deliberate defect of the core (core/coherence_broken.h) must be
 * caught by the checker within a bounded number of seeds. What the core finds itself (it answers
 * -EPROTO, or an assert ends it) is counted and passed over: the verdict must come from outside.
 */
#include "tests/sim/bound.h"
#include "tests/sim/options.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/coherence_broken.h"

#define SETTINGS     7
#define PATIENCE     400
#define SEEDS_MAX    3000
#define SEED_SECONDS 60
#define EVENTS_MAX   3000000 /* of small worlds: their bounds come before that */

static const struct variant {
	enum coh_broken broken;
	const char *name;
	/* What the defect is about, so that more seeds are about it. */
	const char *setting[SETTINGS];
} variants[] = {
	{ COH_BROKEN_ACK_FORGOTTEN, "ack forgotten", { NULL } },
	{ COH_BROKEN_INVALIDATE_SKIPPED, "invalidate skipped", { NULL } },
	{ COH_BROKEN_HOLD_IGNORED, "hold ignored", { "pattern=4" } },
	{ COH_BROKEN_STALE_HOME_SERVES, "stale home serves", { "leaves=2" } },
	{ COH_BROKEN_DROP_REQUESTED, "drop requested", { "fill_percent=90" } },
	{ COH_BROKEN_PUSH_UNASKED, "push unasked", { "fill_percent=90" } },
	{ COH_BROKEN_UPGRADE_BLIND, "upgrade blind", { NULL } },
	{ COH_BROKEN_KEEPER_DROPS, "keeper drops", { "fill_percent=90" } },
	{ COH_BROKEN_OWNER_KEEPS_READ, "owner keeps read", { NULL } },
	{ COH_BROKEN_OWNER_KEEPS_WRITE, "owner keeps write", { NULL } },
	{ COH_BROKEN_WAITER_LOST, "waiter lost", { NULL } },
	{ COH_BROKEN_AGE_IGNORED, "age ignored", { "pattern=4" } },
	{ COH_BROKEN_NUDGE_LOST, "nudge lost", { "pattern=4" } },
	{ COH_BROKEN_DONE_EARLY, "done early", { NULL } },
	{ COH_BROKEN_RUN_BLIND, "run blind", { "fill_percent=90" } },
	{ COH_BROKEN_FREE_UNASKED, "free unasked", { "frees=5" } },
	{ COH_BROKEN_FREE_TOGETHER, "free together", { "frees=5" } },
	{ COH_BROKEN_FREE_EARLY, "free early", { "frees=5" } },
	{ COH_BROKEN_FREE_PINNED, "free pinned", { "frees=5" } },
	{ COH_BROKEN_ACTIVE_EARLY, "active early", { "changes=20" } },
	{ COH_BROKEN_SLOT_EARLY, "slot early", { "changes=20" } },
	/* A request must be late for the whole life of its home's heir: then there are two homes. */
	{ COH_BROKEN_VERSION_FORGOTTEN,
	  "version forgotten",
	  { "changes=60", "nodes=3", "vcpus=1", "slow_from=2", "slow_to=0", "slow_ns=5000000" } },
	{ COH_BROKEN_FLUSH_LEFT_OUT, "flush left out", { "changes=20" } },
	{ COH_BROKEN_SHARERS_UNMASKED, "sharers unmasked", { "changes=20" } },
	{ COH_BROKEN_CANCEL_HALF, "cancel half", { "changes=20" } },
};

struct found {
	uint64_t seed, tried;
	uint64_t refused; /* another node's core answered -EPROTO */
	uint64_t crashed; /* an assert of the core ended it */
	enum rule rule;
	char text[200];
};

static void broken_plan(const struct options *options, const struct variant *variant, uint64_t seed,
			struct plan *ret_plan)
{
	options_plan(options, seed, ret_plan);
	for (uint32_t i = 0; i < SETTINGS && variant->setting[i]; i++)
		(void)plan_set(ret_plan, variant->setting[i]);
	if (ret_plan->leaves && ret_plan->nodes < ret_plan->leaves + 2)
		ret_plan->nodes = ret_plan->leaves + 2;
	if (ret_plan->leaves && !ret_plan->leave_percent)
		ret_plan->leave_percent = 20;
	if (ret_plan->nodes > 4 && !ret_plan->leaves)
		ret_plan->nodes = 4;
	if (ret_plan->events_max > EVENTS_MAX)
		ret_plan->events_max = EVENTS_MAX;
	ret_plan->broken = variant->broken;
}

/* The same world with the whole core: its verdict would prove nothing about the defect. */
static bool holds_when_whole(const struct plan *plan)
{
	struct world_result result;
	struct plan whole = *plan;

	whole.broken = COH_BROKEN_NONE;
	return !world_run(&whole, false, &result) && !result.verdict.rule;
}

static void search(const struct options *options, const struct variant *variant,
		   struct found *found)
{
	while (found->tried < SEEDS_MAX) {
		struct world_result result;
		struct plan plan;

		found->seed = options->first + found->tried++;
		broken_plan(options, variant, found->seed, &plan);
		bound_cpu(SEED_SECONDS);
		if (world_run(&plan, false, &result))
			continue;
		if (result.verdict.rule == RULE_ERROR && found->tried < PATIENCE &&
		    variant->broken != COH_BROKEN_VERSION_FORGOTTEN &&
		    /* two homes: they see it first */ !strcmp(result.verdict.text, "-EPROTO")) {
			found->refused++;
			continue;
		}
		if (result.verdict.rule && holds_when_whole(&plan)) {
			found->rule = result.verdict.rule;
			snprintf(found->text, sizeof(found->text), "%s", result.verdict.text);
			return;
		}
	}
}

/* In a process of its own, started again behind a seed at which the core asserts. */
static void search_in_child(const struct options *options, const struct variant *variant,
			    struct found *found)
{
	for (;;) {
		int status;
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			search(options, variant, found);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
			return;
		found->crashed++;
	}
}

uint64_t broken_run(const struct options *options)
{
	size_t count = sizeof(variants) / sizeof(variants[0]);
	struct found *found = mmap(NULL, sizeof(*found), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t missed = count != COH_BROKEN_COUNT - 1;

	if (found == MAP_FAILED)
		return 1;
	if (missed)
		printf("FAILED: the core has %d defects, %zu are tried\n", COH_BROKEN_COUNT - 1,
		       count);
	for (size_t i = 0; i < count; i++) {
		*found = (struct found){ 0 };
		search_in_child(options, &variants[i], found);
		if (!found->rule)
			missed++;
		printf("%s  %-20s by %-15s at seed %4" PRIu64 " (passed over: %" PRIu64
		       " times -EPROTO, %" PRIu64 " asserts)  %s\n",
		       found->rule ? "caught" : "FAILED", variants[i].name, rule_name(found->rule),
		       found->seed, found->refused, found->crashed, found->text);
	}
	munmap(found, sizeof(*found));
	return missed;
}

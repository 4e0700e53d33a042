/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre replay: what another policy of placement would have made of the stalls of a recorded trace;
 * and what the policy that was recorded decided, why, and what came of it.
 * The format, and what such a figure can and cannot say, is in core/placement_trace.h.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "core/placement_trace.h"

static void usage(FILE *to)
{
	fputs("usage: eagre replay TRACE [--policy NAME]\n"
	      "       eagre replay TRACE --explain VCPU\n"
	      "\n"
	      "Runs a policy (default: learned) over a recorded trace of stalls and moves, and prints what they\n"
	      "would have cost, what they cost as recorded, and the least possible in hindsight.\n"
	      "\n"
	      "  --policy NAME   which one: pages, vcpus, base, learned or pinned\n"
	      "  --explain VCPU  instead what was decided about a vCPU when it was recorded: what each threshold\n"
	      "                  was expected to lose, by which features, and what came of it\n",
	      to);
}

static void print(enum placement_policy policy, const struct placement_replay_result *r)
{
	double best = r->best_ns ? (double)r->best_ns : 1;

	printf("%" PRIu64 " stalls in %.3f s\n", r->stall_count, (double)r->last_ns / 1e9);
	printf("recorded:          %10.2f ms lost, %" PRIu64 " moves, %.2f times the best\n",
	       (double)r->recorded_ns / 1e6, r->recorded_moves, (double)r->recorded_ns / best);
	printf("%-8s           %10.2f ms lost, %" PRIu64 " moves, %.2f times the best\n",
	       placement_policy_name(policy), (double)r->policy_ns / 1e6, r->move_count,
	       (double)r->policy_ns / best);
	printf("best in hindsight: %10.2f ms lost\n", (double)r->best_ns / 1e6);
	printf("regret:            %10.2f ms\n",
	       (double)(int64_t)(r->policy_ns - r->best_ns) / 1e6);
	if (r->choice_count > 0 || r->go_count > 0)
		printf("decided:           %" PRIu64 " thresholds (of %" PRIu64
		       " it is known what came of them), %" PRIu64 " moves\n",
		       r->choice_count, r->outcome_count, r->go_count);
	if (r->odd_count > 0)
		printf("%" PRIu64 " thresholds are not what their figures say\n", r->odd_count);
	if (r->move_count > 0 || r->recorded_moves > 0)
		puts("What a vCPU would have stalled on elsewhere was not recorded: this compares\n"
		     "decisions over the same stalls, and is no forecast.");
}

static int replay_file(FILE *file, const char *path, struct placement_replay *replay,
		       struct placement_replay_result *result)
{
	const char *reason = NULL;
	char *line = NULL;
	size_t size = 0;
	uint64_t number = 0;
	ssize_t length;
	int error = 0;

	while (!error && (length = getline(&line, &size, file)) >= 0) {
		number++;
		if (length > 0 && line[length - 1] == '\n')
			length--;
		error = placement_replay_line(replay, line, (size_t)length, &reason);
	}
	free(line);
	if (error == -ENOMEM) {
		complain("%s: no memory", path);
		return STATUS_FAILED;
	}
	if (error) {
		complain("%s, line %" PRIu64 ": %s", path, number, reason);
		return STATUS_FAILED;
	}
	if (ferror(file)) {
		complain("%s: %s", path, strerror(errno));
		return STATUS_FAILED;
	}
	if (placement_replay_finish(replay, result, &reason) != 0) {
		complain("%s: %s", path, reason);
		return STATUS_FAILED;
	}
	return STATUS_OK;
}

struct explained {
	uint32_t vcpu;
	struct placement_record *record;
	size_t count, room;
	bool full; /* no memory for more */
};

static void explain(void *arg, const struct placement_record *record)
{
	struct explained *e = arg;
	struct placement_record *more = e->record;

	if (record->vcpu != e->vcpu || e->full)
		return;
	if (e->count == e->room) {
		e->room = e->room ? 2 * e->room : 64;
		more = reallocarray(e->record, e->room, sizeof(*more));
		e->full = !more;
		if (e->full)
			return;
		e->record = more;
	}
	e->record[e->count++] = *record;
}

/* A choice is told when it is over, and may have been made before a move that was told at once. */
static int by_time(const void *a, const void *b)
{
	const struct placement_record *x = a, *y = b;

	if (x->at_ns != y->at_ns)
		return x->at_ns < y->at_ns ? -1 : 1;
	return x->move - y->move;
}

static int print_explained(struct explained *e)
{
	char text[PLACEMENT_TEXT_BYTES];

	if (e->full) {
		complain("no memory for %zu decisions", e->count);
		return STATUS_FAILED;
	}
	if (e->count > 0)
		qsort(e->record, e->count, sizeof(*e->record), by_time);
	for (size_t i = 0; i < e->count; i++) {
		if (placement_record_text(&e->record[i], text, sizeof(text)) > 0)
			fputs(text, stdout);
	}
	if (e->count == 0)
		printf("nothing was decided about vCPU %u\n", e->vcpu);
	return STATUS_OK;
}

/* When it is known that the whole trace is good: nothing is said of one that is not. */
static int replay_twice(FILE *file, const char *path, enum placement_policy policy,
			struct explained *explained)
{
	struct placement_replay_result result;
	struct placement_replay *replay;
	int status = STATUS_OK;

	for (int pass = 0; status == STATUS_OK && pass < (explained ? 2 : 1); pass++) {
		if (placement_replay_create(policy, 0, &replay) != 0) {
			complain("no memory");
			return STATUS_FAILED;
		}
		if (pass > 0)
			placement_replay_explain(replay, explain, explained);
		rewind(file);
		status = replay_file(file, path, replay, &result);
		placement_replay_destroy(replay);
	}
	if (status == STATUS_OK && !explained)
		print(policy, &result);
	else if (status == STATUS_OK)
		status = print_explained(explained);
	return status;
}

int cmd_replay(int argc, char **argv)
{
	static const struct option options[] = {
		{ "policy", required_argument, NULL, 'p' },
		{ "explain", required_argument, NULL, 'e' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	enum placement_policy policy = PLACEMENT_POLICY_DEFAULT;
	struct explained explained = { 0 };
	bool explains = false;
	unsigned long vcpu;
	FILE *file;
	char *end;
	int status;

	for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
		if (option == 'h') {
			usage(stdout);
			return STATUS_OK;
		}
		if (option == 'e') {
			vcpu = strtoul(optarg, &end, 10);
			if (*optarg < '0' || *optarg > '9' || *end || vcpu >= VCPUS_MAX) {
				complain("--explain %s: must be a vCPU's number", optarg);
				return STATUS_USAGE;
			}
			explained.vcpu = (uint32_t)vcpu;
			explains = true;
			continue;
		}
		if (option != 'p')
			return complain_option(argv, option);
		if (placement_policy_parse(optarg, &policy) != 0) {
			complain("there is no policy '%s'; see eagre replay --help", optarg);
			return STATUS_USAGE;
		}
	}
	if (optind + 1 != argc) {
		complain("replay wants one trace; see eagre replay --help");
		return STATUS_USAGE;
	}
	file = fopen(argv[optind], "re");
	if (!file) {
		complain("%s: %s", argv[optind], strerror(errno));
		return STATUS_FAILED;
	}
	status = replay_twice(file, argv[optind], policy, explains ? &explained : NULL);
	free(explained.record);
	fclose(file);
	return status;
}

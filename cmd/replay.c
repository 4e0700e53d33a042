/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre replay: what another policy of placement would have made of the stalls of a recorded trace.
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
	fputs("usage: eagre replay TRACE [--policy pages|vcpus|base|learned|pinned]\n"
	      "\n"
	      "Runs a policy (default: learned) over a recorded trace of stalls and moves, and prints what they\n"
	      "would have cost, what they cost as recorded, and the least possible in hindsight.\n",
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

int cmd_replay(int argc, char **argv)
{
	static const struct option options[] = {
		{ "policy", required_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	enum placement_policy policy = PLACEMENT_POLICY_DEFAULT;
	struct placement_replay_result result;
	struct placement_replay *replay;
	FILE *file;
	int status;

	for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
		if (option == 'h') {
			usage(stdout);
			return STATUS_OK;
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
	if (placement_replay_create(policy, 0, &replay) != 0) {
		complain("no memory");
		fclose(file);
		return STATUS_FAILED;
	}
	status = replay_file(file, argv[optind], replay, &result);
	if (status == STATUS_OK)
		print(policy, &result);
	placement_replay_destroy(replay);
	fclose(file);
	return status;
}

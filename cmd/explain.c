/* SPDX-License-Identifier: Apache-2.0 */
/* eagre explain: the last decisions about a vCPU of a running guest, in words. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cmd/cmd.h"
#include "cmd/pod_socket.h"

#define DECISIONS_MAX 16u /* of each kind */

static void usage(FILE *to)
{
	fputs("usage: eagre explain VCPU [--shadow] [--pod NAME] [--node NAME] [--socket PATH]\n"
	      "\n"
	      "Says what was decided about a vCPU of late, the oldest first: which moves the policy wanted, and\n"
	      "why; and which thresholds it chose for going where the vCPU stalls, what the learner expected of\n"
	      "each, by which features, and what came of it. Times are the pod's.\n"
	      "\n"
	      "  --shadow       what the policy that rides along would have wanted (eagre policy --shadow)\n"
	      "  --pod NAME     which pod, when nodes of several run here\n"
	      "  --node NAME    ask this node of the pod (any will do)\n"
	      "  --socket PATH  ask the node behind this socket\n",
	      to);
}

struct decisions {
	const json_t *last[DECISIONS_MAX]; /* by time */
	size_t count;
};

static json_int_t time_of(const json_t *decision)
{
	return json_integer_value(json_object_get(decision, "at_ns"));
}

/* In its place by time; the oldest goes when there are too many. */
static void take(struct decisions *d, const json_t *decision)
{
	size_t at = d->count;
	if (d->count == DECISIONS_MAX) {
		if (time_of(decision) <= time_of(d->last[0]))
			return;
		for (at = 0; at + 1 < d->count; at++)
			d->last[at] = d->last[at + 1];
	} else {
		d->count++;
	}
	while (at && time_of(d->last[at - 1]) > time_of(decision)) {
		d->last[at] = d->last[at - 1];
		at--;
	}
	d->last[at] = decision;
}

/* Those about the vCPU, in the lists of this name of all nodes. */
static void take_all(struct decisions *d, const json_t *answer, json_int_t vcpu, bool shadow,
		     const char *list)
{
	const json_t *node, *decision;
	size_t n, i;
	json_array_foreach(json_object_get(answer, "nodes"), n, node)
	{
		const json_t *of = shadow ? json_object_get(node, "shadow") : node;
		json_array_foreach(json_object_get(of, list), i, decision)
		{
			if (json_integer_value(json_object_get(decision, "vcpu")) == vcpu)
				take(d, decision);
		}
	}
}

static int print_decisions(const json_t *answer, json_int_t vcpu, bool shadow)
{
	struct decisions move = { .count = 0 }, choice = { .count = 0 };
	size_t m = 0, c = 0;
	take_all(&move, answer, vcpu, shadow, "decisions");
	take_all(&choice, answer, vcpu, shadow, "choices");
	while (m < move.count || c < choice.count) {
		/* A choice comes before the move that it leads to. */
		bool moves = m < move.count &&
			     (c == choice.count || time_of(move.last[m]) < time_of(choice.last[c]));
		const json_t *next = moves ? move.last[m++] : choice.last[c++];
		fputs(json_string_value(json_object_get(next, "text")) ?: "", stdout);
	}
	if (!move.count)
		printf("%s has not wanted vCPU %lld to move of late\n",
		       shadow ? "a policy that rides along" : "the policy", vcpu);
	return STATUS_OK;
}

static int explain(const struct pod_search *search, const char *word, bool shadow)
{
	char *end;
	unsigned long vcpu = strtoul(word, &end, 10);
	json_t *answer = pod_ask(search->path, "status");
	int status = STATUS_FAILED;
	if (!answer)
		return STATUS_FAILED;
	/* Not so many as are told of: one may be on its way. */
	json_int_t count = json_integer_value(json_object_get(answer, "vcpu_count"));
	if (word[0] < '0' || word[0] > '9' || *end || vcpu >= (unsigned long)count)
		complain("no vCPU %s in this pod: they are 0 to %" JSON_INTEGER_FORMAT, word,
			 count - 1);
	else
		status = print_decisions(answer, (json_int_t)vcpu, shadow);
	json_decref(answer);
	return status;
}

int cmd_explain(int argc, char **argv)
{
	static const struct option options[] = {
		POD_SEARCH_OPTIONS,
		{ "shadow", no_argument, NULL, 'S' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct pod_search search = { 0 };
	bool shadow = false;
	int option;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		switch (option) {
		case 'h':
			usage(stdout);
			return STATUS_OK;
		case 'S':
			shadow = true;
			break;
		default:
			if (!pod_search_take(&search, option, optarg))
				return complain_option(argv, option);
		}
	}
	if (argc - optind != 1) {
		complain("explain takes a vCPU's number; see eagre explain --help");
		return STATUS_USAGE;
	}
	if (!pod_word("vCPU", argv[optind]))
		return STATUS_FAILED;
	return pod_find(&search) ? explain(&search, argv[optind], shadow) : STATUS_FAILED;
}

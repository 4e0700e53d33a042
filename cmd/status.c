/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre status: asks a node of a running pod, over its local socket, what the whole pod does.
 *
 * The node answers with one JSON object; --json passes it on, otherwise it becomes two tables.
 */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/pod_socket.h"
#include "core/placement.h"

static void usage(FILE *to)
{
	fputs("usage: eagre status [--json] [--pod NAME] [--node NAME] [--socket PATH]\n"
	      "\n"
	      "Shows, for a pod with a node on this machine, each node's memory, pages, stalls and traffic,\n"
	      "where each vCPU is, and what the guest has done with each disk. Counts are since the pod started.\n"
	      "\n"
	      "  --json         the same as one JSON object\n"
	      "  --pod NAME     which pod, when nodes of several run here\n"
	      "  --node NAME    ask this node (any gives the same answer, but for times)\n"
	      "  --socket PATH  ask the node behind this socket\n",
	      to);
}

static json_int_t number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));
	return value ? value : "-";
}

static const char *const why[] = { "paid", "eager", "always", "gather", "spread" };

/* Of a node: "" if it is a member, as most are. */
static const char *state_of(const json_t *node)
{
	const char *state = text(node, "state");
	return strcmp(state, "member") == 0 || strcmp(state, "-") == 0 ? "" : state;
}

static void print_nodes(const json_t *nodes)
{
	printf("%-3s %-12s %-21s %-6s %5s %9s %9s %8s %8s %9s %9s %9s %9s %8s %8s %10s %8s %9s\n",
	       "no", "node", "address", "engine", "vcpus", "resident", "promised", "owned",
	       "shared", "st.zero", "st.read", "st.write", "st.upgr", "p50 us", "p99 us",
	       "messages", "MiB out", "clock ns");
	size_t i;
	json_t *n;
	json_array_foreach(nodes, i, n)
	{
		const json_t *stalls = json_object_get(n, "stalls");
		const char *state = state_of(n);
		if (json_object_get(n, "error")) {
			printf("%-3zu %-12s %-21s %s%s%s\n", i, text(n, "name"), text(n, "address"),
			       state, *state ? ": " : "", text(n, "error"));
			continue;
		}
		printf("%-3zu %-12s %-21s %-6s %5lld %8lldM %8lldM %8lld %8lld %9lld %9lld %9lld %9lld %8.1f %8.1f "
		       "%10lld %8.1f %9lld%s%s\n",
		       i, text(n, "name"), text(n, "address"), text(n, "engine"),
		       number(n, "vcpus"), number(n, "resident_bytes") >> 20,
		       number(n, "promised_bytes") >> 20, number(n, "pages_owned"),
		       number(n, "pages_shared"), number(stalls, "zero"), number(stalls, "read"),
		       number(stalls, "write"), number(stalls, "upgrade"),
		       (double)number(n, "stall_p50_ns") / 1e3,
		       (double)number(n, "stall_p99_ns") / 1e3, number(n, "messages"),
		       (double)number(n, "bytes_out") / (1 << 20), number(n, "clock_error_ns"),
		       *state ? "  " : "", state);
	}
}

static void print_why(const json_t *nodes, const char *of)
{
	for (size_t k = 0; k < sizeof(why) / sizeof(why[0]); k++) {
		json_int_t sum = 0;
		const json_t *n;
		size_t i;
		json_array_foreach(nodes, i, n) sum +=
			number(json_object_get(json_object_get(n, of), "why"), why[k]);
		if (sum)
			printf(" %s %lld", why[k], sum);
	}
}

/* What a policy that rides along would have done; nothing where none does. */
static void print_shadow(const json_t *nodes)
{
	json_int_t wishes = 0, agreed = 0;
	const char *name = NULL;
	const json_t *n;
	size_t i;
	json_array_foreach(nodes, i, n)
	{
		const json_t *shadow = json_object_get(n, "shadow");
		if (!shadow)
			continue;
		name = text(shadow, "policy");
		wishes += number(shadow, "wishes");
		agreed += number(shadow, "agreed");
	}
	if (name)
		printf("shadow %s: %lld moves wished, %lld of them by the policy, too\n", name,
		       wishes, agreed);
}

/* Where the learner was switched off, and where it is back; nothing where it never was. */
static void print_learner(const json_t *nodes)
{
	const json_t *n;
	size_t i;
	json_array_foreach(nodes, i, n)
	{
		const json_t *p = json_object_get(n, "placement");
		json_int_t now_ns = number(n, "time_ns"), times = number(p, "learner_off_count");
		if (number(p, "learner_off"))
			printf("learner off on node %s for %lld s: it lost %.1f %% of the time, the "
			       "base rule %.1f %%; eagre policy learned lets it try again\n",
			       text(n, "name"), (now_ns - number(p, "learner_off_ns")) / 1000000000,
			       (double)number(p, "learner_lost_ppm") / 1e4,
			       (double)number(p, "base_lost_ppm") / 1e4);
		else if (times)
			printf("learner back on node %s for %lld s; switched off %lld times before\n",
			       text(n, "name"),
			       (now_ns - number(p, "learner_back_ns")) / 1000000000, times);
	}
}

/* What the policy has moved, and why; nothing where it never moved anything. */
static void print_policy(const json_t *answer)
{
	const json_t *nodes = json_object_get(answer, "nodes"), *n;
	json_int_t advised = 0, wasted = 0;
	size_t i;
	printf("\npolicy %s", text(answer, "policy"));
	json_array_foreach(nodes, i, n)
	{
		const json_t *placement = json_object_get(n, "placement");
		advised += number(placement, "advised");
		wasted += number(placement, "wasted");
	}
	if (advised)
		printf(": %lld moves advised, %lld of no use;", advised, wasted);
	if (advised)
		print_why(nodes, "placement");
	putchar('\n');
	if (strcmp(text(answer, "policy"), placement_policy_name(PLACEMENT_LEARNED)) == 0)
		print_learner(nodes);
	print_shadow(nodes);
}

/* What all nodes together have counted of a disk. */
static json_int_t disk_sum(const json_t *nodes, size_t disk, const char *key)
{
	const json_t *n;
	json_int_t sum = 0;
	size_t i;
	json_array_foreach(nodes, i, n) sum +=
		number(json_array_get(json_object_get(n, "disks"), disk), key);
	return sum;
}

static const json_t *disks_of(const json_t *nodes)
{
	const json_t *n;
	size_t i;
	json_array_foreach(nodes, i, n) if (json_array_size(json_object_get(
						    n, "disks"))) return json_object_get(n,
											 "disks");
	return NULL;
}

/* Nothing where there are none. */
static void print_disks(const json_t *nodes)
{
	const json_t *disks = disks_of(nodes), *disk;
	size_t i;
	if (!disks)
		return;
	printf("\n%-12s %-12s %10s %10s %10s %8s\n", "disk", "node", "requests", "MiB read",
	       "MiB writ.", "errors");
	json_array_foreach(disks, i, disk)
	{
		const json_t *node = json_array_get(nodes, (size_t)number(disk, "node"));
		printf("%-12s %-12s %10lld %10.1f %10.1f %8lld\n", text(disk, "name"),
		       text(node, "name"), disk_sum(nodes, i, "requests"),
		       (double)disk_sum(nodes, i, "read_bytes") / (1 << 20),
		       (double)disk_sum(nodes, i, "write_bytes") / (1 << 20),
		       disk_sum(nodes, i, "errors"));
	}
}

/* Nothing where there are no disks and cards. */
static void print_queues(const json_t *nodes)
{
	json_int_t rung = 0, sent = 0, sent_on = 0, taken = 0;
	const json_t *n;
	size_t i;
	json_array_foreach(nodes, i, n)
	{
		const json_t *queues = json_object_get(n, "queues");
		rung += number(queues, "doorbells");
		sent += number(queues, "doorbells_sent");
		sent_on += number(queues, "doorbells_sent_on");
		taken += number(queues, "taken");
	}
	if (rung)
		printf("devices: %lld doorbells, %lld of them messages, %lld sent on; queues moved "
		       "%lld times\n",
		       rung, sent, sent_on, taken);
}

static void print_pod(const json_t *answer)
{
	const json_t *vcpus = json_object_get(answer, "vcpus");
	printf("pod %s: %s, up %lld s, engine %s, guest memory %lld MiB, %zu nodes, %zu vCPUs\n\n",
	       text(answer, "pod"), text(answer, "state"), number(answer, "uptime_s"),
	       text(answer, "engine"), number(answer, "memory_bytes") >> 20,
	       json_array_size(json_object_get(answer, "nodes")), json_array_size(vcpus));
	print_nodes(json_object_get(answer, "nodes"));
	print_policy(answer);
	print_queues(json_object_get(answer, "nodes"));
	printf("\n%-5s %-12s %-10s %8s %10s %8s\n", "vcpu", "node", "state", "moves", "stalls",
	       "rekicks");
	size_t i;
	json_t *v;
	json_array_foreach(vcpus, i, v) printf(
		"%-5lld %-12s %-10s %8lld %10lld %8lld\n", number(v, "number"), text(v, "node"),
		text(v, "state"), number(v, "moves"), number(v, "stalls"), number(v, "rekicks"));
	print_disks(json_object_get(answer, "nodes"));
}

int cmd_status(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		POD_SEARCH_OPTIONS,
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct pod_search search = { 0 };
	int json = 0, option;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		switch (option) {
		case 'j':
			json = 1;
			break;
		case 'h':
			usage(stdout);
			return STATUS_OK;
		default:
			if (!pod_search_take(&search, option, optarg))
				return complain_option(argv, option);
		}
	}
	if (optind < argc) {
		complain("status takes no argument '%s'; see eagre status --help", argv[optind]);
		return STATUS_USAGE;
	}
	if (!pod_find(&search))
		return STATUS_FAILED;
	json_t *answer = pod_ask(search.path, "status");
	if (!answer)
		return STATUS_FAILED;
	if (json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_pod(answer);
	}
	json_decref(answer);
	return STATUS_OK;
}

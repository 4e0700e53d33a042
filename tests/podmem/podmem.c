/* SPDX-License-Identifier: Apache-2.0 */
/*
 * podmem: the native pod memory test. See podmem.h.
 *
 *   podmem [--nodes N] [--shards N] [--workers N] [--runs N] [--seconds N] [--seed N] [--spin
 * auto|on|off]
 *          [--litmus | --pressure | --kill | --broken]
 *
 * Without a mode: litmus tests (at least --runs each), then pressure (--seconds). --kill: one node
 * is killed in the middle and the rest must end. --broken: the protocol's deliberate defects must
 * be caught. Exits 0 when all is well, 1 when the memory was wrong, 2 at bad usage.
 */
#include "tests/podmem/podmem.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/coherence_broken.h"

#define ANSWER_SECONDS 120 /* longer than any barrier; an answer that does not come is a hang */
#define COUNT_MS       20  /* between two looks at the nodes' memory */
#define END_SECONDS    30  /* all nodes are gone this long after one died, on a busy machine, too */

enum mode { MODE_ALL, MODE_LITMUS, MODE_PRESSURE, MODE_KILL, MODE_BROKEN };

struct options {
	enum mode mode;
	uint32_t nodes, shards, workers, runs, seconds;
	uint64_t seed;
	enum pager_spin spin;
};

struct pod {
	struct podmem_config config;
	pid_t child[PODMEM_NODES_MAX];
	int fd[PODMEM_NODES_MAX];
	uint64_t next_id, random;
	uint64_t barrier_base[LITMUS_BARRIERS];
	uint64_t counter[LITMUS_TESTS][LAYOUTS]; /* what INC and LOCK must have come to */
	bool counting;				 /* look at the nodes' memory while waiting */
	uint64_t resident_max[PODMEM_NODES_MAX]; /* pages */
	char failure[300];			 /* why the pod ended by itself */
};

/* --- pods --- */

static void start_node(struct pod *pod, uint16_t self)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		perror("podmem: socketpair");
		exit(2);
	}
	fflush(stdout);
	pod->child[self] = fork();
	if (pod->child[self] < 0) {
		perror("podmem: fork");
		exit(2);
	}
	if (pod->child[self] == 0) {
		close(pair[0]);
		for (uint16_t i = 0; i < self; i++)
			close(pod->fd[i]);
		pod_node_main(&pod->config, self, pair[1]);
	}
	close(pair[1]);
	pod->fd[self] = pair[0];
}

static void start_pod(struct pod *pod, const struct options *options, uint32_t broken,
		      uint64_t memory_bytes, uint64_t capacity_bytes)
{
	static uint32_t serial;

	/*
	 * All of 127/8 is this host, and nobody else uses this process's corner of it: no port can
	 * be taken away between choosing and listening.
	 */
	serial++;
	memset(pod, 0, sizeof(*pod));
	pod->random = options->seed;
	pod->config = (struct podmem_config){
		.node_count = (uint16_t)options->nodes,
		.worker_count = (uint16_t)options->workers,
		.shard_count = options->shards,
		.memory_bytes = memory_bytes,
		.capacity_bytes = capacity_bytes,
		.broken = broken,
		.spin = options->spin,
	};
	for (uint16_t i = 0; i < options->nodes; i++)
		snprintf(pod->config.address[i], sizeof(pod->config.address[i]), "127.%u.%u.%u:%u",
			 1 + (uint32_t)getpid() % 250, (uint32_t)getpid() / 250 % 250, 1u + i,
			 20000 + serial % 10000);
	for (uint16_t i = 0; i < options->nodes; i++)
		start_node(pod, i);
}

/* Waits for the nodes to end, and helps at the end of the time. Returns how many had to be helped.
 */
static uint32_t reap(struct pod *pod, uint32_t seconds)
{
	uint64_t end_ns = podmem_now_ns() + seconds * 1000000000ull;
	uint32_t helped = 0;

	for (uint16_t i = 0; i < pod->config.node_count; i++) {
		while (pod->child[i] > 0 && waitpid(pod->child[i], NULL, WNOHANG) == 0) {
			if (podmem_now_ns() > end_ns) {
				kill(pod->child[i], SIGKILL);
				waitpid(pod->child[i], NULL, 0);
				helped++;
				break;
			}
			usleep(2000);
		}
		pod->child[i] = 0;
		close(pod->fd[i]);
	}
	return helped;
}

static void stop_pod(struct pod *pod)
{
	static const struct order quit = { .kind = ORDER_QUIT };

	for (uint16_t i = 0; i < pod->config.node_count; i++)
		(void)!send(pod->fd[i], &quit, sizeof(quit), MSG_NOSIGNAL);
	if (reap(pod, END_SECONDS) > 0 && pod->failure[0] == 0)
		snprintf(pod->failure, sizeof(pod->failure), "a node did not end when told to");
}

/* A pod ends like dominoes: most nodes tell of a link that closed. Looks for a node that knows
 * more. */
static void find_cause(struct pod *pod)
{
	static struct answer answer;

	usleep(300000);
	for (uint16_t i = 0; i < pod->config.node_count; i++) {
		int status;

		while (recv(pod->fd[i], &answer, sizeof(answer), MSG_DONTWAIT) ==
		       (ssize_t)sizeof(answer))
			if (answer.failure[0] != 0 && !strstr(answer.failure, "receiving") &&
			    !strstr(answer.failure, "shard 0: Broken pipe"))
				snprintf(pod->failure, sizeof(pod->failure), "node %u ended: %s", i,
					 answer.failure);
		if (waitpid(pod->child[i], &status, WNOHANG) != pod->child[i])
			continue;
		pod->child[i] = 0;
		if (WIFSIGNALED(status))
			snprintf(pod->failure, sizeof(pod->failure),
				 "node %u was ended by signal %d", i, WTERMSIG(status));
	}
}

/* Which node ends meanwhile is found by whoever waits for its answer. */
static void count_memory(struct pod *pod)
{
	for (uint16_t i = 0; i < pod->config.node_count; i++) {
		uint64_t pages;

		if (podmem_resident(pod->child[i], &pages) == 0 && pages > pod->resident_max[i])
			pod->resident_max[i] = pages;
	}
}

/* Whether an answer came; counts memory every COUNT_MS meanwhile, if that is wanted. */
static bool await_ready(struct pod *pod, uint16_t node)
{
	struct pollfd ready = { .fd = pod->fd[node], .events = POLLIN };
	uint64_t end_ns = podmem_now_ns() + ANSWER_SECONDS * 1000000000ull;

	if (!pod->counting)
		return poll(&ready, 1, ANSWER_SECONDS * 1000) == 1;
	while (podmem_now_ns() < end_ns) {
		if (poll(&ready, 1, COUNT_MS) == 1)
			return true;
		count_memory(pod);
	}
	return false;
}

/* Collects one answer. false: the node ended or hangs; pod->failure says how. */
static bool await(struct pod *pod, uint16_t node, struct answer *answer)
{
	ssize_t got;

	if (!await_ready(pod, node)) {
		snprintf(pod->failure, sizeof(pod->failure), "node %u does not answer: a hang",
			 node);
		return false;
	}
	got = recv(pod->fd[node], answer, sizeof(*answer), 0);
	if (got != (ssize_t)sizeof(*answer)) {
		snprintf(pod->failure, sizeof(pod->failure), "node %u ended without a word", node);
		find_cause(pod);
		return false;
	}
	if (answer->failure[0] != 0) {
		snprintf(pod->failure, sizeof(pod->failure), "node %u ended: %s", node,
			 answer->failure);
		return false;
	}
	if (answer->barrier_timeout) {
		snprintf(pod->failure, sizeof(pod->failure),
			 "a barrier in the shared memory did not come together (node %u)", node);
		return false;
	}
	return true;
}

/* An order for all, and all answers. */
static bool order_all(struct pod *pod, const struct order *order, struct answer *answer)
{
	for (uint16_t i = 0; i < pod->config.node_count; i++) {
		if (send(pod->fd[i], order, sizeof(*order), MSG_NOSIGNAL) < 0) {
			/* Its last words may be there. */
			if (await(pod, i, answer))
				snprintf(pod->failure, sizeof(pod->failure), "node %u is gone", i);
			return false;
		}
	}
	for (uint16_t i = 0; i < pod->config.node_count; i++)
		if (!await(pod, i, &answer[i]))
			return false;
	return true;
}

/* --- litmus --- */

/* Roles go to random workers of random nodes: mostly of different ones. */
static void cast(struct pod *pod, struct litmus_batch *batch)
{
	uint32_t nodes = pod->config.node_count, workers = pod->config.worker_count;
	uint32_t taken = 0;

	for (uint32_t role = 0; role < batch->role_count; role++) {
		uint32_t pick;

		do {
			pick = (uint32_t)(podmem_random(&pod->random) % (nodes * workers));
		} while (taken & 1u << pick);
		taken |= 1u << pick;
		batch->role[role] =
			(struct litmus_role){ (uint16_t)(pick % nodes), (uint16_t)(pick / nodes) };
	}
}

static bool run_batch(struct pod *pod, uint32_t test, uint32_t layout, uint32_t runs,
		      struct litmus_tally *tally)
{
	static struct answer answer[PODMEM_NODES_MAX];
	static struct litmus_result result[ROLES_MAX];
	struct order order = { .kind = ORDER_LITMUS };
	struct litmus_batch *batch = &order.litmus;

	*batch = (struct litmus_batch){ .id = ++pod->next_id,
					.test = test,
					.layout = layout,
					.runs = runs,
					.role_count = litmus_role_count(test),
					.seed = podmem_random(&pod->random) };
	cast(pod, batch);
	pod->barrier_base[batch->id % LITMUS_BARRIERS] += batch->role_count;
	if (pod->config.broken == 0)
		batch->barrier_target = pod->barrier_base[batch->id % LITMUS_BARRIERS];
	batch->start_ns = podmem_now_ns() + 3000000u;
	if (!order_all(pod, &order, answer))
		return false;
	for (uint32_t role = 0; role < batch->role_count; role++)
		result[role] = answer[batch->role[role].node].litmus[role];
	litmus_judge(batch, result, tally);
	pod->counter[test][layout] += (uint64_t)runs * batch->role_count;
	return true;
}

/* Every node must see what the counters came to. */
static bool check_counters(struct pod *pod, uint32_t test, uint32_t layout,
			   struct litmus_tally *tally)
{
	static struct answer answer[PODMEM_NODES_MAX];
	struct order order = { .kind = ORDER_COUNTER,
			       .litmus = { .test = test, .layout = layout } };

	if (test != LITMUS_INC && test != LITMUS_LOCK)
		return true;
	if (!order_all(pod, &order, answer))
		return false;
	for (uint16_t i = 0; i < pod->config.node_count; i++)
		tally->forbidden += answer[i].counter != pod->counter[test][layout];
	return true;
}

static bool litmus_one(struct pod *pod, uint32_t test, uint32_t runs, struct litmus_tally *tally)
{
	static const uint32_t share[LAYOUTS] = { 45, 40, 10, 5 }; /* per cent */

	for (uint32_t layout = 0; layout < LAYOUTS; layout++) {
		uint64_t want = tally->runs + (uint64_t)runs * share[layout] / 100;

		while (tally->runs < want) {
			if (!run_batch(pod, test, layout, RUNS_MAX, tally))
				return false;
		}
		if (!check_counters(pod, test, layout, tally))
			return false;
	}
	return true;
}

/* The litmus tests in one pod. Returns whether all was well. */
static bool litmus_all(struct pod *pod, uint32_t runs, struct litmus_tally *ret_sum)
{
	uint64_t start_ns = podmem_now_ns();

	printf("%-10s %9s %10s %8s %12s %9s %7s\n", "litmus", "runs", "forbidden", "corrupt",
	       "interleaved", "relaxed", "s");
	for (uint32_t test = 0; test < LITMUS_TESTS; test++) {
		struct litmus_tally tally = { 0 };
		uint64_t test_ns = podmem_now_ns();
		bool alive = litmus_one(pod, test, runs, &tally);

		printf("%-10s %9lu %10lu %8lu %12lu %9lu %7.1f\n", litmus_name(test), tally.runs,
		       tally.forbidden, tally.corrupt, tally.interleaved, tally.relaxed,
		       (double)(podmem_now_ns() - test_ns) / 1e9);
		fflush(stdout);
		ret_sum->runs += tally.runs;
		ret_sum->forbidden += tally.forbidden;
		ret_sum->corrupt += tally.corrupt;
		ret_sum->interleaved += tally.interleaved;
		ret_sum->relaxed += tally.relaxed;
		if (!alive)
			return false;
	}
	printf("litmus: %lu runs in %.1f s: %lu forbidden, %lu corrupt; overlapping outcomes seen: "
	       "%lu interleaved, %lu relaxed\n",
	       ret_sum->runs, (double)(podmem_now_ns() - start_ns) / 1e9, ret_sum->forbidden,
	       ret_sum->corrupt, ret_sum->interleaved, ret_sum->relaxed);
	return true;
}

static void print_stats(struct pod *pod)
{
	static struct answer answer[PODMEM_NODES_MAX];
	static const char *const kind[COH_STALL_KINDS] = { "first touch", "read", "write",
							   "upgrade" };
	struct order order = { .kind = ORDER_STATS };

	usleep(50000);
	if (!order_all(pod, &order, answer))
		return;
	for (uint16_t i = 0; i < pod->config.node_count; i++) {
		const struct pager_stats *s = &answer[i].stats;

		printf("node %u:", i);
		for (uint32_t k = 0; k < COH_STALL_KINDS; k++)
			printf(" %s %lu (p50 %.0f p99 %.0f us),", kind[k], s->stall_count[k],
			       (double)pager_stats_quantile_ns(s, k, 0.5) / 1e3,
			       (double)pager_stats_quantile_ns(s, k, 0.99) / 1e3);
		printf(" pushed %lu, dropped %lu, deferred %lu\n", s->evict_push_count,
		       s->evict_drop_count, s->deferred_count);
	}
}

#define LITMUS_MEMORY (64ull << 20)

static bool do_litmus(const struct options *options)
{
	struct litmus_tally sum = { 0 };
	struct pod pod;
	bool good;

	start_pod(&pod, options, COH_BROKEN_NONE, LITMUS_MEMORY, LITMUS_MEMORY);
	good = litmus_all(&pod, options->runs, &sum);
	if (good)
		print_stats(&pod);
	stop_pod(&pod);
	if (pod.failure[0] != 0)
		printf("litmus: the pod ended: %s\n", pod.failure);
	/* A test whose roles never overlap proves nothing. */
	if (good && sum.interleaved == 0)
		printf("litmus: no two runs ever overlapped\n");
	return good && pod.failure[0] == 0 && sum.forbidden == 0 && sum.corrupt == 0 &&
	       sum.interleaved > 0;
}

/* --- pressure --- */

/* Guest memory is 0.9 of what the nodes promise. */
#define PRESSURE_CAPACITY (16ull << 20)

static bool run_pressure(struct pod *pod, const struct options *options)
{
	static struct answer answer[PODMEM_NODES_MAX];
	struct order order = { .kind = ORDER_PRESSURE };
	struct pressure_result sum = { 0 };
	bool good = true, alive;

	order.pressure = (struct pressure_order){ .milliseconds = options->seconds * 1000,
						  .seed = options->seed,
						  .node_count = pod->config.node_count,
						  .worker_count = pod->config.worker_count };
	pod->counting = true;
	alive = order_all(pod, &order, answer);
	pod->counting = false;
	if (!alive)
		return false;
	for (uint16_t i = 0; i < pod->config.node_count; i++) {
		const struct pressure_result *r = &answer[i].pressure;
		uint64_t resident = pod->resident_max[i];
		uint64_t capacity = pod->config.capacity_bytes / PAGE_BYTES;

		printf("pressure: node %u: %lu reads, %lu writes, %lu stale, %lu lost, %lu corrupt; resident at most "
		       "%lu of %lu pages (%.1f%%)\n",
		       i, r->reads, r->writes, r->stale, r->lost, r->corrupt, resident, capacity,
		       100.0 * (double)resident / (double)capacity);
		if (r->stale + r->lost + r->corrupt > 0)
			printf("pressure: node %u: first at gpa 0x%lx\n", i, r->first_bad_gpa);
		good &= resident <= capacity && r->stale + r->lost + r->corrupt == 0;
		sum.writes += r->writes;
	}
	return good && sum.writes > 0;
}

static bool do_pressure(const struct options *options)
{
	uint64_t memory = PRESSURE_CAPACITY * options->nodes * 9 / 10 / CHUNK_BYTES * CHUNK_BYTES;
	uint64_t start_ns = podmem_now_ns();
	struct pod pod;
	bool good;

	start_pod(&pod, options, COH_BROKEN_NONE, memory, PRESSURE_CAPACITY);
	good = run_pressure(&pod, options);
	if (good)
		print_stats(&pod);
	stop_pod(&pod);
	if (pod.failure[0] != 0)
		printf("pressure: the pod ended: %s\n", pod.failure);
	printf("pressure: %lu MiB in a pod of %u times %llu MiB, %.1f s: %s\n", memory >> 20,
	       options->nodes, PRESSURE_CAPACITY >> 20, (double)(podmem_now_ns() - start_ns) / 1e9,
	       good && pod.failure[0] == 0 ? "well" : "WRONG");
	return good && pod.failure[0] == 0;
}

/* --- a node dies --- */

static bool do_kill(const struct options *options)
{
	struct order order = { .kind = ORDER_PRESSURE };
	struct pod pod;
	uint64_t start_ns;
	uint32_t helped;
	uint16_t victim = (uint16_t)(options->seed % options->nodes);

	start_pod(&pod, options, COH_BROKEN_NONE, LITMUS_MEMORY, LITMUS_MEMORY);
	order.pressure = (struct pressure_order){ .milliseconds = 60000,
						  .seed = options->seed,
						  .node_count = pod.config.node_count,
						  .worker_count = pod.config.worker_count };
	for (uint16_t i = 0; i < pod.config.node_count; i++)
		(void)!send(pod.fd[i], &order, sizeof(order), MSG_NOSIGNAL);
	usleep(1500000);
	start_ns = podmem_now_ns();
	kill(pod.child[victim], SIGKILL);
	helped = reap(&pod, END_SECONDS);
	printf("kill: node %u killed; %u of %u nodes had to be killed too; all gone after %.2f s\n",
	       victim, helped, options->nodes, (double)(podmem_now_ns() - start_ns) / 1e9);
	return helped == 0;
}

/* --- defects --- */

struct defect {
	uint32_t broken;
	const char *name;
};

/* Those that show in a pod without handing on homes, by what the memory then does. */
static const struct defect defects[] = {
	{ COH_BROKEN_ACK_FORGOTTEN, "a write begins before all acks" },
	{ COH_BROKEN_INVALIDATE_SKIPPED, "a sharer is not told of a write" },
	{ COH_BROKEN_OWNER_KEEPS_READ, "the old owner keeps a read-only copy" },
	{ COH_BROKEN_OWNER_KEEPS_WRITE, "the old owner keeps a writable copy" },
};

/* Runs litmus tests over and over until something is wrong, or the time is over. */
static bool catch_defect(struct pod *pod, uint32_t seconds, char *ret_how, size_t size)
{
	uint64_t end_ns = podmem_now_ns() + seconds * 1000000000ull;
	uint64_t runs = 0;

	for (uint32_t test = 0; podmem_now_ns() < end_ns; test = (test + 1) % LITMUS_TESTS) {
		struct litmus_tally tally = { 0 };
		bool alive = litmus_one(pod, test, 2000, &tally);

		runs += tally.runs;
		if (tally.forbidden + tally.corrupt > 0) {
			snprintf(ret_how, size, "%s, %lu forbidden and %lu corrupt after %lu runs",
				 litmus_name(test), tally.forbidden, tally.corrupt, runs);
			return true;
		}
		if (!alive) {
			snprintf(ret_how, size, "%s, after %lu runs: %s", litmus_name(test), runs,
				 pod->failure);
			return true;
		}
	}
	snprintf(ret_how, size, "%lu runs", runs);
	return false;
}

static bool do_broken(const struct options *options)
{
	bool good = true;

	for (size_t i = 0; i < sizeof(defects) / sizeof(defects[0]); i++) {
		struct pod pod;
		char how[400];
		bool caught;

		start_pod(&pod, options, defects[i].broken, LITMUS_MEMORY, LITMUS_MEMORY);
		caught = catch_defect(&pod, options->seconds, how, sizeof(how));
		printf("defect: %s: %s: %s\n", defects[i].name, caught ? "caught" : "NOT CAUGHT",
		       how);
		fflush(stdout);
		for (uint16_t node = 0; node < pod.config.node_count; node++)
			if (pod.child[node] > 0)
				kill(pod.child[node], SIGKILL);
		reap(&pod, END_SECONDS);
		good &= caught;
	}
	return good;
}

/* --- the command --- */

static void usage(FILE *to)
{
	fprintf(to,
		"usage: podmem [--litmus | --pressure | --kill | --broken] [--nodes N] [--shards N]\n"
		"              [--workers N] [--runs N] [--seconds N] [--seed N] [--spin auto|on|off]\n");
}

static bool number(const char *text, uint64_t low, uint64_t high, uint64_t *ret_value)
{
	char *end;

	errno = 0;
	*ret_value = strtoull(text, &end, 0);
	return errno == 0 && *end == 0 && end != text && *ret_value >= low && *ret_value <= high;
}

static bool parse_spin(const char *text, enum pager_spin *ret_spin)
{
	static const char *const name[] = {
		[PAGER_SPIN_AUTO] = "auto", [PAGER_SPIN_OFF] = "off", [PAGER_SPIN_ON] = "on"
	};

	for (uint32_t i = 0; i < 3; i++) {
		if (strcmp(text, name[i]) == 0) {
			*ret_spin = i;
			return true;
		}
	}
	return false;
}

static bool parse(int argc, char **argv, struct options *options)
{
	static const struct option known[] = {
		{ "litmus", 0, NULL, 'L' },  { "pressure", 0, NULL, 'P' },
		{ "kill", 0, NULL, 'K' },    { "broken", 0, NULL, 'B' },
		{ "nodes", 1, NULL, 'n' },   { "shards", 1, NULL, 's' },
		{ "workers", 1, NULL, 'w' }, { "runs", 1, NULL, 'r' },
		{ "seconds", 1, NULL, 't' }, { "seed", 1, NULL, 'S' },
		{ "spin", 1, NULL, 'p' },    { NULL, 0, NULL, 0 },
	};
	uint64_t value = 0;
	bool good = true;
	int option;

	while (good && (option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'L':
			options->mode = MODE_LITMUS;
			break;
		case 'P':
			options->mode = MODE_PRESSURE;
			break;
		case 'K':
			options->mode = MODE_KILL;
			break;
		case 'B':
			options->mode = MODE_BROKEN;
			break;
		case 'n':
			good = number(optarg, 1, PODMEM_NODES_MAX, &value);
			options->nodes = (uint32_t)value;
			break;
		case 's':
			good = number(optarg, 1, SHARDS_MAX, &value);
			options->shards = (uint32_t)value;
			break;
		case 'w':
			good = number(optarg, 1, PODMEM_WORKERS_MAX, &value);
			options->workers = (uint32_t)value;
			break;
		case 'r':
			good = number(optarg, 1, 1u << 30, &value);
			options->runs = (uint32_t)value;
			break;
		case 't':
			good = number(optarg, 1, 3600, &value);
			options->seconds = (uint32_t)value;
			break;
		case 'S':
			good = number(optarg, 1, UINT64_MAX, &options->seed);
			break;
		case 'p':
			good = parse_spin(optarg, &options->spin);
			break;
		default:
			good = false;
		}
	}
	/* IRIW and others have four roles, each a thread of its own. */
	return good && optind == argc && options->nodes * options->workers >= ROLES_MAX;
}

int main(int argc, char **argv)
{
	struct options options = { .mode = MODE_ALL,
				   .nodes = 3,
				   .shards = 1,
				   .workers = 2,
				   .runs = 100000,
				   .seconds = 20,
				   .seed = podmem_now_ns() | 1 };
	bool good = true;

	if (!parse(argc, argv, &options)) {
		usage(stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("podmem: %u nodes, %u workers each, %u shards, seed %lu\n", options.nodes,
	       options.workers, options.shards, options.seed);
	if (options.mode == MODE_ALL || options.mode == MODE_LITMUS)
		good &= do_litmus(&options);
	if (options.mode == MODE_ALL || options.mode == MODE_PRESSURE)
		good &= do_pressure(&options);
	if (options.mode == MODE_KILL)
		good &= do_kill(&options);
	if (options.mode == MODE_BROKEN)
		good &= do_broken(&options);
	printf("podmem: %s\n", good ? "passed" : "FAILED");
	return good ? 0 : 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real stack under the stall benchmark: node processes with pager and mesh over TCP. A node's
 * main thread is its one vCPU: it takes an order from the parent, touches pages, and times each
 * touch.
 */
#include "bench/bench.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "link/mesh.h"
#include "pager/pager.h"
#include "wire/handshake.h"

struct bench_answer {
	uint64_t ns; /* the whole order */
};

/* A node's memory in common with the parent. */
struct bench_common {
	struct bench_samples samples;
	struct bench_counts counts;
	atomic_bool enough; /* ends BENCH_BUSY */
};

struct bench_pod {
	struct bench_pod_config config;
	char address[BENCH_NODES_MAX][32];
	pid_t child[BENCH_NODES_MAX];
	int fd[BENCH_NODES_MAX];
	struct bench_common *common[BENCH_NODES_MAX];
};

struct bench_node {
	struct bench_pod *pod;
	uint16_t self;
	struct guest_memory *memory;
	struct mesh *mesh;
	struct pager *pager;
};

/* --- a node --- */

static void node_failed(void *arg, uint16_t peer, int error, const char *cause)
{
	const struct bench_node *node = arg;

	/* The parent closed the pod: the other end went first. */
	if (error != -EPIPE && error != -ECONNRESET)
		fprintf(stderr, "stalls: node %u: %s\n", node->self, cause);
	_exit(1);
}

static void mesh_failed(void *ctx, uint16_t peer, const char *cause)
{
	_exit(1);
}

static void bring_up(struct bench_node *node)
{
	struct bench_pod *pod = node->pod;
	struct mesh_node nodes[BENCH_NODES_MAX];
	char name[BENCH_NODES_MAX][16], why[MESH_WHY_MAX] = "";
	struct mesh_config mesh = { .pod_name = "stalls",
				    .self = node->self,
				    .node_count = (uint16_t)pod->config.nodes,
				    .node = nodes,
				    .shard_count = 1,
				    .capabilities = HANDSHAKE_CAP_NATIVE_TEST,
				    .secret = "stalls, for the time being",
				    .secret_size = sizeof("stalls, for the time being"),
				    .encrypt = pod->config.encrypt,
				    .timeout_ms = 20000,
				    .down = mesh_failed };
	struct guest_memory_config memory = { { { 0, pod->config.memory_bytes } }, 1, 1 };
	struct pager_config pager = { .self = node->self,
				      .node_count = (uint16_t)pod->config.nodes,
				      .vcpu_count = 1,
				      .capacity_bytes = pod->config.memory_bytes,
				      .spin = pod->config.spin ? PAGER_SPIN_ON : PAGER_SPIN_OFF,
				      .failed = node_failed,
				      .arg = node };

	if (node->self == 0 && pod->config.capacity_bytes)
		pager.capacity_bytes = pod->config.capacity_bytes;
	for (uint32_t i = 0; i < pod->config.nodes; i++) {
		snprintf(name[i], sizeof(name[i]), "n%u", i);
		nodes[i] = (struct mesh_node){ name[i], pod->address[i] };
	}
	if (mesh_create(&mesh, &node->mesh, why, sizeof(why)) < 0 ||
	    mesh_bring_up(node->mesh, -1, why, sizeof(why)) < 0) {
		fprintf(stderr, "stalls: node %u: %s\n", node->self, why);
		_exit(1);
	}
	if (guest_memory_create(&memory, &node->memory) < 0)
		bench_die("guest memory");
	pager.memory = node->memory;
	if (pager_create(&pager, &node->pager) < 0)
		bench_die("pager");
	for (uint16_t peer = 0; peer < pod->config.nodes; peer++)
		if (peer != node->self &&
		    pager_add_channel(node->pager, 0, mesh_pages(node->mesh, peer, 0)) < 0)
			bench_die("channel");
	if (pager_start(node->pager) < 0 ||
	    pager_bind_actor(node->pager, 0, (pid_t)syscall(SYS_gettid)) < 0)
		bench_die("pager");
}

/* A permutation of 0..count-1 that has no runs: read-ahead must not see one. */
static uint32_t shuffled(uint32_t i, uint32_t count)
{
	/* 40503 is prime and divides no count in use. */
	return (uint32_t)((uint64_t)i * 40503u % count);
}

static void touch(struct bench_node *node, const struct bench_order *order,
		  struct bench_samples *samples)
{
	uint64_t sum = 0;

	samples->count = order->count < BENCH_SAMPLES_MAX ? order->count : BENCH_SAMPLES_MAX;
	for (uint32_t i = 0; i < order->count; i++) {
		uint32_t at = order->shuffled ? shuffled(i, order->count) : i;
		volatile uint64_t *page =
			guest_memory_hva(node->memory, (order->gpn + at) << PAGE_SHIFT);
		uint64_t start_ns = order->count <= BENCH_SAMPLES_MAX ? bench_now_ns() : 0;

		if (order->op == BENCH_WRITE)
			*page = order->gpn + at;
		else
			sum += *page;
		if (order->count <= BENCH_SAMPLES_MAX)
			samples->ns[i] = (uint32_t)(bench_now_ns() - start_ns);
	}
	(void)sum;
}

/* Each turn: from our write until the other's write has come back. */
static void ping_pong(struct bench_node *node, const struct bench_order *order,
		      struct bench_samples *samples)
{
	volatile uint64_t *page = guest_memory_hva(node->memory, order->gpn << PAGE_SHIFT);

	samples->count = order->count;
	for (uint32_t i = 0; i < order->count; i++) {
		uint64_t start_ns = bench_now_ns();

		while (__atomic_load_n(page, __ATOMIC_ACQUIRE) != 2ull * i + order->turn)
			;
		__atomic_store_n(page, 2ull * i + order->turn + 1, __ATOMIC_RELEASE);
		samples->ns[i] = (uint32_t)(bench_now_ns() - start_ns);
	}
}

static void be_busy(struct bench_common *common)
{
	bench_keep_on_last();
	while (!atomic_load(&common->enough))
		;
	atomic_store(&common->enough, false);
	bench_keep_off_last(true);
}

/* The shards publish theirs when they go to sleep, or every 20 ms. */
static void count(struct bench_node *node, struct bench_counts *ret_counts)
{
	struct pager_stats stats;

	usleep(25000);
	pager_stats_get(node->pager, &stats);
	*ret_counts = (struct bench_counts){ .calls = stats.call_count,
					     .shootdowns = stats.shootdown_count,
					     .sleeps = stats.sleep_count };
	for (uint32_t kind = 0; kind < COH_STALL_KINDS; kind++)
		ret_counts->stalls += stats.stall_count[kind];
}

static void obey(struct bench_node *node, const struct bench_order *order)
{
	struct bench_common *common = node->pod->common[node->self];

	switch (order->op) {
	case BENCH_PING_PONG:
		ping_pong(node, order, &common->samples);
		break;
	case BENCH_BUSY:
		be_busy(common);
		break;
	case BENCH_COUNT:
		count(node, &common->counts);
		break;
	default:
		touch(node, order, &common->samples);
	}
}

static void node_main(struct bench_pod *pod, uint16_t self, int fd) __attribute__((noreturn));

static void node_main(struct bench_pod *pod, uint16_t self, int fd)
{
	struct bench_node node = { .pod = pod, .self = self };
	struct bench_answer answer = { 0 };
	struct bench_order order;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pod->config.off_last)
		bench_keep_off_last(true);
	bring_up(&node);
	bench_favour(true);
	if (send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
		_exit(1);
	while (recv(fd, &order, sizeof(order), 0) == (ssize_t)sizeof(order) &&
	       order.op != BENCH_QUIT) {
		uint64_t start_ns = bench_now_ns();

		obey(&node, &order);
		answer.ns = bench_now_ns() - start_ns;
		if (send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			break;
	}
	_exit(0);
}

/* --- the parent --- */

/*
 * An address of this pod's own: all of 127/8 is this host, and nobody else uses this process's
 * corner of it, so no port can be taken away between choosing and listening.
 */
static void choose_address(struct bench_pod *pod, uint32_t node, uint32_t serial)
{
	uint32_t pid = (uint32_t)getpid();

	snprintf(pod->address[node], sizeof(pod->address[node]), "127.%u.%u.%u:%u", 1 + pid % 250,
		 pid / 250 % 250, 1 + node, 20000 + serial % 10000);
}

static void await(struct bench_pod *pod, uint32_t node, struct bench_answer *answer)
{
	if (recv(pod->fd[node], answer, sizeof(*answer), 0) == (ssize_t)sizeof(*answer))
		return;
	fprintf(stderr, "stalls: node %u ended\n", node);
	exit(1);
}

struct bench_pod *bench_pod_start(const struct bench_pod_config *config)
{
	static uint32_t serial;
	uint32_t nodes = config->nodes;
	struct bench_pod *pod = calloc(1, sizeof(*pod));
	struct bench_answer ready;

	if (!pod)
		bench_die("calloc");
	pod->config = *config;
	serial++;
	for (uint32_t i = 0; i < nodes; i++) {
		choose_address(pod, i, serial);
		pod->common[i] = bench_shared(sizeof(*pod->common[i]));
	}
	fflush(stdout);
	for (uint32_t i = 0; i < nodes; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
			bench_die("socketpair");
		pod->child[i] = fork();
		if (pod->child[i] < 0)
			bench_die("fork");
		if (pod->child[i] == 0) {
			for (uint32_t j = 0; j < i; j++)
				close(pod->fd[j]);
			close(pair[0]);
			node_main(pod, (uint16_t)i, pair[1]);
		}
		close(pair[1]);
		pod->fd[i] = pair[0];
	}
	for (uint32_t i = 0; i < nodes; i++)
		await(pod, i, &ready);
	return pod;
}

void bench_pod_stop(struct bench_pod *pod)
{
	for (uint32_t i = 0; i < pod->config.nodes; i++)
		kill(pod->child[i], SIGKILL);
	for (uint32_t i = 0; i < pod->config.nodes; i++) {
		waitpid(pod->child[i], NULL, 0);
		close(pod->fd[i]);
		munmap(pod->common[i], sizeof(*pod->common[i]));
	}
	free(pod);
}

void bench_pod_begin(struct bench_pod *pod, uint32_t node, const struct bench_order *order)
{
	if (send(pod->fd[node], order, sizeof(*order), MSG_NOSIGNAL) < 0)
		bench_die("order");
}

uint64_t bench_pod_end(struct bench_pod *pod, uint32_t node, struct bench_samples *ret_samples)
{
	struct bench_answer answer;

	atomic_store(&pod->common[node]->enough, true);
	await(pod, node, &answer);
	atomic_store(&pod->common[node]->enough, false);
	if (ret_samples)
		memcpy(ret_samples, &pod->common[node]->samples, sizeof(*ret_samples));
	return answer.ns;
}

void bench_pod_counts(struct bench_pod *pod, struct bench_counts ret_counts[BENCH_NODES_MAX])
{
	struct bench_order order = { .op = BENCH_COUNT };

	for (uint32_t node = 0; node < pod->config.nodes; node++)
		bench_pod_begin(pod, node, &order);
	for (uint32_t node = 0; node < pod->config.nodes; node++) {
		bench_pod_end(pod, node, NULL);
		ret_counts[node] = pod->common[node]->counts;
	}
}

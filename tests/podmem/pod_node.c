/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node process of the pod memory test: guest memory, pager, mesh over TCP, and worker threads
 * that touch the memory as vCPUs would. The main thread takes orders from the parent and never
 * touches guest memory.
 *
 * A peer that dies, a protocol error or the parent's end (its socket closes) ends this process at
 * once: workers may be blocked in faults that nobody will answer, and exiting is what frees them.
 */
#include "tests/podmem/podmem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "link/mesh.h"
#include "wire/handshake.h"

struct worker {
	struct pod_node *node;
	uint16_t index;
	pthread_t thread;
	struct pressure_worker *pressure;
	/* Guarded by the node's mutex. */
	bool busy;
	/* Written before busy is set, read by the worker; and back. */
	uint32_t role;
	bool barrier_timeout;
	struct litmus_result litmus;
	uint64_t counter;
	struct pressure_result pressure_result;
};

struct pod_node {
	const struct podmem_config *config;
	uint16_t self;
	int order_fd;
	struct guest_memory *memory;
	struct mesh *mesh;
	struct pager *pager;
	struct worker worker[PODMEM_WORKERS_MAX];
	pthread_mutex_t mutex; /* guards order, round, worker[].busy */
	pthread_cond_t changed;
	struct order order;
	_Atomic uint32_t failing;
};

/* One line to the parent, and out. Any thread; the first wins. */
static void give_up(struct pod_node *node, const char *text) __attribute__((noreturn));

static void give_up(struct pod_node *node, const char *text)
{
	static struct answer answer;
	uint32_t none = 0;

	if (!atomic_compare_exchange_strong(&node->failing, &none, 1)) {
		for (;;)
			pause();
	}
	answer.kind = ORDER_QUIT;
	snprintf(answer.failure, sizeof(answer.failure), "%s", text);
	(void)!send(node->order_fd, &answer, sizeof(answer), MSG_NOSIGNAL);
	_exit(3);
}

static void pager_failed(void *arg, uint16_t peer, int error, const char *cause)
{
	char text[240];

	if (peer == NODE_NONE)
		snprintf(text, sizeof(text), "%s", cause);
	else
		snprintf(text, sizeof(text), "node %u: %s", peer, cause);
	give_up(arg, text);
}

static void mesh_failed(void *ctx, uint16_t peer, const char *cause)
{
	give_up(ctx, cause);
}

static void bring_up_links(struct pod_node *node)
{
	const struct podmem_config *config = node->config;
	struct mesh_node nodes[PODMEM_NODES_MAX];
	char name[PODMEM_NODES_MAX][16], why[MESH_WHY_MAX] = "";
	struct mesh_config mesh = {
		.pod_name = "podmem",
		.self = node->self,
		.node_count = config->node_count,
		.node = nodes,
		.shard_count = (uint16_t)config->shard_count,
		.capabilities = HANDSHAKE_CAP_NATIVE_TEST,
		.timeout_ms = 20000,
		.down = mesh_failed,
		.ctx = node,
	};

	for (uint16_t i = 0; i < config->node_count; i++) {
		snprintf(name[i], sizeof(name[i]), "n%u", i);
		nodes[i] = (struct mesh_node){ name[i], config->address[i] };
	}
	if (mesh_create(&mesh, &node->mesh, why, sizeof(why)) < 0 ||
	    mesh_bring_up(node->mesh, -1, why, sizeof(why)) < 0)
		give_up(node, why);
}

static void bring_up_memory(struct pod_node *node)
{
	const struct podmem_config *config = node->config;
	struct guest_memory_config memory = { .range = { { 0, config->memory_bytes } },
					      .range_count = 1,
					      .shard_count = config->shard_count };
	struct pager_config pager = {
		.self = node->self,
		.node_count = config->node_count,
		.vcpu_count = config->worker_count,
		.capacity_bytes = config->capacity_bytes,
		.broken = config->broken,
		.spin = config->spin,
		.failed = pager_failed,
		.arg = node,
	};

	if (guest_memory_create(&memory, &node->memory) < 0)
		give_up(node, "guest memory cannot be made");
	pager.memory = node->memory;
	if (pager_create(&pager, &node->pager) < 0)
		give_up(node, "the pager cannot be made");
	for (uint32_t shard = 0; shard < config->shard_count; shard++)
		for (uint16_t peer = 0; peer < config->node_count; peer++)
			if (peer != node->self &&
			    pager_add_channel(node->pager, shard,
					      mesh_pages(node->mesh, peer, (uint16_t)shard)) < 0)
				give_up(node, "a channel was refused");
	if (pager_start(node->pager) < 0)
		give_up(node, "the pager cannot be started");
}

/* --- workers --- */

static void work(struct worker *worker, const struct order *order)
{
	struct guest_memory *memory = worker->node->memory;

	switch (order->kind) {
	case ORDER_LITMUS:
		worker->barrier_timeout =
			!litmus_run(memory, &order->litmus, worker->role, &worker->litmus);
		break;
	case ORDER_COUNTER:
		worker->counter = litmus_counter(memory, order->litmus.test, order->litmus.layout);
		break;
	case ORDER_PRESSURE:
		pressure_run(worker->pressure, &order->pressure, worker->index,
			     &worker->pressure_result);
		break;
	}
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct pod_node *node = worker->node;
	struct order order;

	/* The timed runs are a tenth of a millisecond apart; the default slack is half of that. */
	prctl(PR_SET_TIMERSLACK, 1000ul);
	if (pager_bind_actor(node->pager, worker->index, (pid_t)syscall(SYS_gettid)) < 0)
		give_up(node, "a worker cannot be an actor");
	pthread_mutex_lock(&node->mutex);
	for (;;) {
		while (!worker->busy)
			pthread_cond_wait(&node->changed, &node->mutex);
		order = node->order;
		pthread_mutex_unlock(&node->mutex);
		work(worker, &order);
		pthread_mutex_lock(&node->mutex);
		worker->busy = false;
		pthread_cond_broadcast(&node->changed);
	}
	return NULL;
}

/* Which workers an order is for, and as whom. */
static bool has_part(const struct pod_node *node, const struct order *order, uint16_t worker,
		     uint32_t *ret_role)
{
	*ret_role = 0;
	if (order->kind == ORDER_COUNTER)
		return worker == 0;
	if (order->kind == ORDER_PRESSURE)
		return true;
	for (uint32_t role = 0; role < order->litmus.role_count; role++) {
		if (order->litmus.role[role].node == node->self &&
		    order->litmus.role[role].worker == worker) {
			*ret_role = role;
			return true;
		}
	}
	return false;
}

static void wait_for_workers(struct pod_node *node)
{
	pthread_mutex_lock(&node->mutex);
	for (uint16_t i = 0; i < node->config->worker_count; i++)
		while (node->worker[i].busy)
			pthread_cond_wait(&node->changed, &node->mutex);
	pthread_mutex_unlock(&node->mutex);
}

static void carry_out(struct pod_node *node, const struct order *order, struct answer *answer)
{
	bool part[PODMEM_WORKERS_MAX] = { false };

	pthread_mutex_lock(&node->mutex);
	node->order = *order;
	for (uint16_t i = 0; i < node->config->worker_count; i++) {
		part[i] = has_part(node, order, i, &node->worker[i].role);
		node->worker[i].busy = part[i];
	}
	pthread_cond_broadcast(&node->changed);
	pthread_mutex_unlock(&node->mutex);
	wait_for_workers(node);

	for (uint16_t i = 0; i < node->config->worker_count; i++) {
		struct worker *worker = &node->worker[i];
		struct pressure_result *sum = &answer->pressure;

		if (!part[i])
			continue;
		answer->barrier_timeout |= order->kind == ORDER_LITMUS && worker->barrier_timeout;
		if (order->kind == ORDER_LITMUS)
			answer->litmus[worker->role] = worker->litmus;
		answer->counter = worker->counter;
		if (sum->stale + sum->lost + sum->corrupt == 0)
			sum->first_bad_gpa = worker->pressure_result.first_bad_gpa;
		sum->reads += worker->pressure_result.reads;
		sum->writes += worker->pressure_result.writes;
		sum->stale += worker->pressure_result.stale;
		sum->lost += worker->pressure_result.lost;
		sum->corrupt += worker->pressure_result.corrupt;
	}
}

static void serve(struct pod_node *node)
{
	static struct answer answer;
	static struct order order;

	for (;;) {
		ssize_t got = recv(node->order_fd, &order, sizeof(order), 0);

		if (got != (ssize_t)sizeof(order) || order.kind == ORDER_QUIT)
			return;
		memset(&answer, 0, sizeof(answer));
		answer.kind = order.kind;
		order.pressure.node = node->self;
		if (order.kind == ORDER_STATS)
			pager_stats_get(node->pager, &answer.stats);
		else
			carry_out(node, &order, &answer);
		if (send(node->order_fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			return;
	}
}

void pod_node_main(const struct podmem_config *config, uint16_t self, int order_fd)
{
	static struct pod_node node;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	node.config = config;
	node.self = self;
	node.order_fd = order_fd;
	pthread_mutex_init(&node.mutex, NULL);
	pthread_cond_init(&node.changed, NULL);
	bring_up_links(&node);
	bring_up_memory(&node);
	for (uint16_t i = 0; i < config->worker_count; i++) {
		struct worker *worker = &node.worker[i];

		worker->node = &node;
		worker->index = i;
		if (pressure_worker_create(node.memory, &worker->pressure) < 0 ||
		    pthread_create(&worker->thread, NULL, worker_main, worker) != 0)
			give_up(&node, "a worker cannot be made");
	}
	serve(&node);
	/* Everybody is told to quit; a link that closes now is no failure. */
	atomic_store(&node.failing, 1);
	_exit(0);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A pod inside one process: see pod.h. */
#include "tests/test.h"
#include "tests/memory/pod.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link/tcp.h"

static void failed(void *arg, uint16_t node, int error, const char *cause)
{
	struct pod_node *pod_node = arg;
	struct pod_failure *failure = &pod_node->failure;

	failure->count++;
	failure->node = node;
	failure->error = error;
	snprintf(failure->cause, sizeof(failure->cause), "%s", cause);
}

/* Takes so long that a node that has been told already would be seen to have the page. */
static void lost(void *arg, uint64_t gpa, uint64_t bytes)
{
	struct pod_node *node = arg;

	usleep(5000);
	pthread_mutex_lock(&node->lost.lock);
	node->lost.count++;
	node->lost.pages += bytes >> PAGE_SHIFT;
	node->lost.gpa = gpa;
	node->lost.late |= atomic_load(&node->lost.told);
	pthread_mutex_unlock(&node->lost.lock);
}

static void stalled(void *arg, const struct pager_stall *stall)
{
	struct pod_node *node = arg;

	pthread_mutex_lock(&node->stalled.lock);
	node->stalled.last[stall->kind] = *stall;
	node->stalled.count[stall->kind]++;
	pthread_mutex_unlock(&node->stalled.lock);
}

static void window_ready(void *arg)
{
	struct pod_node *node = arg;

	atomic_fetch_add(&node->ready, 1);
}

static void create_node(struct pod *pod, uint16_t self, const struct pod_options *options)
{
	struct pod_node *node = &pod->node[self];
	struct guest_memory_config memory = { .range = { { 0, options->memory_bytes } },
					      .range_count = 1,
					      .shard_count = options->shard_count };
	struct pager_config config = {
		.self = self,
		.node_count = options->node_count,
		.vcpu_count = 4,
		.port_count = options->port_count ? options->port_count : 2,
		.window_count = options->window_count,
		.capacity_bytes = options->capacity_bytes,
		.hold_ns = options->hold_ns,
		.hold_ns_max = options->hold_ns,
		.spin = options->spin,
		.failed = failed,
		.lost = options->watch_lost ? lost : NULL,
		.stalled = stalled,
		.window_ready = window_ready,
		.arg = node,
	};

	pthread_mutex_init(&node->lost.lock, NULL);
	pthread_mutex_init(&node->stalled.lock, NULL);
	assert_int_equal(guest_memory_create(&memory, &node->memory), 0);
	config.memory = node->memory;
	assert_int_equal(pager_create(&config, &node->pager), 0);
}

static void join(struct pod *pod, uint16_t a, uint16_t b, uint32_t shard)
{
	struct pod_node *na = &pod->node[a], *nb = &pod->node[b];
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	assert_int_equal(tcp_page_create(stream_plain(fd[0]), b, 0, &na->channel[shard][b]), 0);
	assert_int_equal(tcp_page_create(stream_plain(fd[1]), a, 0, &nb->channel[shard][a]), 0);
	assert_int_equal(pager_add_channel(na->pager, shard, na->channel[shard][b]), 0);
	assert_int_equal(pager_add_channel(nb->pager, shard, nb->channel[shard][a]), 0);
}

void pod_create(struct pod *pod, const struct pod_options *options)
{
	memset(pod, 0, sizeof(*pod));
	pod->node_count = options->node_count;
	pod->shard_count = options->shard_count;
	for (uint16_t i = 0; i < pod->node_count; i++)
		create_node(pod, i, options);
	for (uint32_t shard = 0; shard < pod->shard_count; shard++)
		for (uint16_t a = 0; a < pod->node_count; a++)
			for (uint16_t b = (uint16_t)(a + 1); b < pod->node_count; b++)
				join(pod, a, b, shard);
	for (uint16_t i = 0; i < pod->node_count; i++)
		assert_int_equal(pager_start(pod->node[i].pager), 0);
}

void pod_destroy(struct pod *pod)
{
	for (uint16_t i = 0; i < pod->node_count; i++)
		pager_stop(pod->node[i].pager);
	for (uint16_t i = 0; i < pod->node_count; i++) {
		struct pod_node *node = &pod->node[i];

		pager_destroy(node->pager);
		for (uint32_t shard = 0; shard < pod->shard_count; shard++)
			for (uint16_t peer = 0; peer < pod->node_count; peer++)
				if (node->channel[shard][peer])
					node->channel[shard][peer]->ops->destroy(
						node->channel[shard][peer]);
		guest_memory_destroy(node->memory);
	}
}

void *pod_at(struct pod *pod, uint16_t node, uint64_t gpa)
{
	return guest_memory_hva(pod->node[node].memory, gpa);
}

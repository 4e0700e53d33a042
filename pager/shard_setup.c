/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard's beginning and end: what it watches, its part of the node's memory, its page protocol.
 * Tested in tests/memory/test_pager.c.
 */
#include "pager/shard_inside.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define TAKEN_PART 32u /* of the capacity is for pages that were moved out */

static int watch(struct shard *shard, int fd, uint32_t events, uint32_t data)
{
	struct epoll_event event = { .events = events, .data.u32 = data };

	return epoll_ctl(shard->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/*
 * The shard's part of the node's capacity: in proportion to the RAM it has, so that where guest
 * memory is nearly the sum of all capacities, that is so in every shard and not more in one.
 */
static uint32_t capacity_of(const struct shard *shard)
{
	const struct guest_memory *memory = shard->pager->config.memory;
	uint64_t total = 0, own = guest_memory_shard_pages(memory, shard->index);
	uint64_t pages;

	for (uint32_t i = 0; i < shard->pager->shard_count; i++)
		total += guest_memory_shard_pages(memory, i);
	pages = (uint64_t)((unsigned __int128)(shard->pager->config.capacity_bytes / PAGE_BYTES) *
			   own / total);
	return pages < PAGER_SHARD_PAGES_MIN ? PAGER_SHARD_PAGES_MIN : (uint32_t)pages;
}

/*
 * What was moved out takes memory until it is given back, and the promise counts it. A little is
 * enough: a 32nd is the longest run where the capacity is small.
 */
static uint32_t capacity_left(const struct shard *shard, uint32_t pages)
{
	uint32_t taken = guest_memory_limit_taken(shard->pager->config.memory, shard->index,
						  pages / TAKEN_PART);

	return pages - taken;
}

static bool close_gate(void *arg, uint64_t gpn, enum coh_access after, bool tell)
{
	return gate_close(arg, gpn, after, tell);
}

static void allow_gate(void *arg, uint64_t gpn, enum coh_access access)
{
	gate_allow(arg, gpn, access);
}

static int create_core(struct shard *shard, uint32_t actor_count)
{
	const struct pager_config *config = &shard->pager->config;
	uint32_t ranges = guest_memory_range_count(config->memory);
	struct guest_memory_range low = guest_memory_range(config->memory, 0);
	struct coh_config core = {
		.self = config->self,
		.node_count = config->node_count,
		.members = config->members,
		.joins = config->joins,
		.actor_count = actor_count,
		.gpn_limit = guest_memory_top(config->memory) >> PAGE_SHIFT,
		.capacity = capacity_left(shard, capacity_of(shard)),
		.window = config->window,
		.readahead = config->readahead,
		.zero_batch = config->zero_batch,
		.neighbours = shard->pager->shard_count == 1 && ranges <= 2,
		.gap_gpn = ranges == 2 ? (low.gpa + low.size) >> PAGE_SHIFT : 0,
		.refetch = config->refetch,
		.hold_ns = config->hold_ns,
		.hold_ns_max = config->hold_ns_max,
		.broken = config->broken,
		.actors = shard->pager->coh_actors,
		.close = shard->plan.gates ? close_gate : NULL,
		.allow = shard->plan.gates ? allow_gate : NULL,
		.close_arg = shard->plan.gates,
	};

	return coh_create(&core, &shard->coh);
}

int shard_init(struct shard *shard, struct pager *pager, uint32_t index)
{
	uint32_t actors = pager->actors.vcpu_count + pager->actors.port_count +
			  pager->actors.asker_count + NAMELESS_ACTORS;
	cpu_set_t cores;
	int error;

	shard->pager = pager;
	shard->index = index;
	shard->from = NODE_NONE;
	shard->hot_node = NODE_NONE;
	shard->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (shard->epoll_fd < 0)
		return -errno;
	shard_stats_init(&shard->stats);
	CPU_ZERO(&cores);
	(void)sched_getaffinity(0, sizeof(cores), &cores);
	spinner_init(&shard->spinner, pager->config.spin, pager->config.spin_ns_max,
		     (uint32_t)CPU_COUNT(&cores));
	shard->want_writable = calloc(pager->config.node_count, sizeof(*shard->want_writable));
	shard->unread = calloc(pager->config.node_count, sizeof(*shard->unread));
	shard->wait = calloc(actors, sizeof(*shard->wait));
	shard->cached_tid = calloc(TID_CACHE, sizeof(*shard->cached_tid));
	shard->cached_actor = calloc(TID_CACHE, sizeof(*shard->cached_actor));
	shard->fetch_posted = calloc(pager->actors.vcpu_count + 1, sizeof(*shard->fetch_posted));
	if (!shard->want_writable || !shard->unread || !shard->wait || !shard->cached_tid ||
	    !shard->cached_actor || !shard->fetch_posted)
		return -ENOMEM;
	error = plan_init(&shard->plan, pager->config.memory, index, pager->config.node_count);
	/* A defect that is wanted may take pages that are in use. */
	if (pager->windows.gates.word && !pager->config.broken)
		shard->plan.gates = &pager->windows.gates;
	shard->plan.lost = pager->config.lost;
	shard->plan.lost_arg = pager->config.arg;
	if (error == 0)
		error = pager_queue_init(
			&shard->queue, 2 * (pager->actors.port_count + pager->actors.asker_count) +
					       pager->actors.vcpu_count + 5 +
					       PAGER_MEMBER_COMMANDS(pager->config.node_count));
	if (error == 0)
		error = watch(shard, shard->queue.event_fd, EPOLLIN, EVENT_COMMAND);
	if (error == 0)
		error = watch(shard, guest_memory_fd(pager->config.memory, index), EPOLLIN,
			      EVENT_FAULT);
	if (error == 0)
		error = create_core(shard, actors);
	if (error == 0)
		error = shard_members_init(shard);
	return error;
}

int shard_add_channel(struct shard *shard, struct page_channel *channel)
{
	struct plan_peer *peer = &shard->plan.peer[channel->peer];
	int error;

	if (peer->channel)
		return -EEXIST;
	error = watch(shard, channel->ops->fd(channel), shard_watches(shard, channel->peer),
		      channel->peer);
	if (error == 0) {
		peer->channel = channel;
		atomic_store(&shard->members.linked[channel->peer], true);
	}
	return error;
}

void shard_fini(struct shard *shard)
{
	plan_fini(&shard->plan);
	coh_destroy(shard->coh);
	pager_queue_destroy(&shard->queue);
	free(shard->want_writable);
	free(shard->unread);
	free(shard->wait);
	free(shard->cached_tid);
	free(shard->cached_actor);
	free(shard->fetch_posted);
	shard_members_fini(shard);
	if (shard->epoll_fd >= 0)
		close(shard->epoll_fd);
}

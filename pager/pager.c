/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager as the node sees it: its life, its ports, who is which actor, its numbers. The work is
 * done in shard.c. Tested in tests/memory/test_pager.c, tests/podmem.
 */
#include "pager/pager.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pager/shard.h"

/* Measured by bench/stalls; docs/benchmarks.md. */
#define WINDOW_DEFAULT	    256u
#define READAHEAD_DEFAULT   128u
#define ZERO_BATCH_DEFAULT  128u
#define HOLD_NS_MAX_DEFAULT 20000000u
#define SPIN_NS_DEFAULT	    50000u
#define UNLINK_NS_DEFAULT   5000000000u /* as long as a silent node is waited for */

_Static_assert(PAGER_ACTORS_MAX + NAMELESS_ACTORS <= WINDOW_DEFAULT, "each may have a request out");

static uint64_t monotonic_ns(void *arg)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void fill_in(struct pager_config *config)
{
	if (config->window == 0)
		config->window = WINDOW_DEFAULT;
	if (config->readahead == 0)
		config->readahead = READAHEAD_DEFAULT;
	else if (config->readahead == UINT32_MAX)
		config->readahead = 0;
	if (config->zero_batch == 0)
		config->zero_batch = ZERO_BATCH_DEFAULT;
	else if (config->zero_batch == UINT32_MAX)
		config->zero_batch = 1;
	if (config->hold_ns == 0)
		config->hold_ns = COH_HOLD_NS_DEFAULT;
	if (config->hold_ns_max == 0)
		config->hold_ns_max = HOLD_NS_MAX_DEFAULT;
	if (config->spin_ns_max == 0)
		config->spin_ns_max = SPIN_NS_DEFAULT;
	if (config->unlink_ns == 0)
		config->unlink_ns = UNLINK_NS_DEFAULT;
	if (!config->now_ns)
		config->now_ns = monotonic_ns;
}

static uint32_t asker_count(const struct pager_config *config)
{
	uint32_t left = PAGER_ACTORS_MAX - config->vcpu_count - config->port_count;
	uint32_t most = left < ASKERS_MAX ? left : ASKERS_MAX;

	return config->window_count < most ? config->window_count : most;
}

static bool config_valid(const struct pager_config *config)
{
	uint64_t pages;

	if (!config->memory || config->node_count == 0 || config->node_count > NODES_MAX ||
	    config->self >= config->node_count || config->vcpu_count > PAGER_ACTORS_MAX ||
	    config->port_count > PAGER_ACTORS_MAX - config->vcpu_count ||
	    (config->window_count > 0 && asker_count(config) == 0))
		return false;
	if (!pager_members_valid(config))
		return false;
	pages = config->capacity_bytes / PAGE_BYTES / guest_memory_shard_count(config->memory);
	return pages >= PAGER_SHARD_PAGES_MIN && pages <= UINT32_MAX;
}

/* --- ports --- */

/* Posts a command and waits for its answer. */
static int port_ask(struct memory_port *memory_port, enum pager_command_kind kind, uint64_t gpn,
		    enum coh_access want)
{
	struct pager_port *port = (struct pager_port *)memory_port;
	struct pager *pager = port->pager;
	struct shard *shard = &pager->shard[guest_memory_shard(pager->config.memory, gpn)];
	struct pager_command command = {
		.kind = kind, .want = want, .actor = port->actor, .gpn = gpn
	};
	int error;

	pthread_mutex_lock(&port->mutex);
	port->state = -EINPROGRESS;
	pthread_mutex_unlock(&port->mutex);
	error = pager_queue_post(&shard->queue, &command);
	if (error < 0)
		return error;
	pthread_mutex_lock(&port->mutex);
	while (port->state == -EINPROGRESS)
		pthread_cond_wait(&port->done, &port->mutex);
	error = port->state;
	pthread_mutex_unlock(&port->mutex);
	return error;
}

static int port_pin(struct memory_port *port, uint64_t gpn, enum coh_access want)
{
	return port_ask(port, PAGER_PIN, gpn, want);
}

static int port_pin_here(struct memory_port *port, uint64_t gpn, enum coh_access want)
{
	return port_ask(port, PAGER_PIN_HERE, gpn, want);
}

static void port_unpin(struct memory_port *memory_port, uint64_t gpn)
{
	struct pager_port *port = (struct pager_port *)memory_port;
	struct pager *pager = port->pager;
	struct shard *shard = &pager->shard[guest_memory_shard(pager->config.memory, gpn)];
	struct pager_command command = { .kind = PAGER_UNPIN, .actor = port->actor, .gpn = gpn };

	/* A pager that stopped has no pins to undo. */
	(void)pager_queue_post(&shard->queue, &command);
}

static const struct memory_port_ops port_ops = { .pin = port_pin,
						 .pin_here = port_pin_here,
						 .unpin = port_unpin };

static void port_finish(struct pager_port *port, int error)
{
	pthread_mutex_lock(&port->mutex);
	if (port->state == -EINPROGRESS) {
		port->state = error;
		pthread_cond_signal(&port->done);
	}
	pthread_mutex_unlock(&port->mutex);
}

void pager_port_complete(struct pager *pager, uint32_t actor, int error)
{
	uint32_t index = actor - pager->actors.vcpu_count;

	assert(index < pager->actors.port_count);
	port_finish(&pager->port[index], error);
}

void pager_close_ports(struct pager *pager, int error)
{
	for (uint32_t i = 0; i < pager->shard_count; i++)
		pager_queue_close(&pager->shard[i].queue);
	for (uint32_t i = 0; i < pager->actors.port_count; i++)
		port_finish(&pager->port[i], error);
}

void pager_interrupt(struct pager *pager)
{
	pager_close_ports(pager, -ESHUTDOWN);
}

void pager_actor_idle(struct pager *pager, uint32_t vcpu, bool idle)
{
	coh_actors_idle(pager->coh_actors, vcpu, idle);
}

void pager_hints_leave(struct pager *pager, uint32_t vcpu, struct page_hints *ret_hints)
{
	struct pager_hints *hints = &pager->actors.hints[vcpu];

	pthread_mutex_lock(&hints->lock);
	*ret_hints = hints->list;
	/* It has left: nothing more is asked for here. */
	for (uint32_t i = 0; i < hints->list.count; i++)
		hints->list.hint[i].ask = false;
	pager_hints_unlock(pager, vcpu);
}

/* Holes between ranges of RAM are no shard's. */
static void leave_out_holes(const struct pager *pager, struct page_hints *hints)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < hints->count; i++)
		if (guest_memory_is_ram(pager->config.memory, hints->hint[i].gpn << PAGE_SHIFT,
					PAGE_BYTES))
			hints->hint[kept++] = hints->hint[i];
	hints->count = kept;
}

/* A pager that stopped asks for nothing. */
void shard_post_fetch(struct shard *shard, uint32_t vcpu)
{
	struct pager_command command = { .kind = PAGER_FETCH, .actor = vcpu };

	if (!atomic_exchange(&shard->fetch_posted[vcpu], true))
		(void)pager_queue_post(&shard->queue, &command);
}

bool pager_hints_trylock(struct pager *pager, uint32_t vcpu)
{
	struct pager_hints *hints = &pager->actors.hints[vcpu];

	if (pthread_mutex_trylock(&hints->lock) == 0)
		return true;
	atomic_store(&hints->missed, true);
	return pthread_mutex_trylock(&hints->lock) == 0;
}

void pager_hints_unlock(struct pager *pager, uint32_t vcpu)
{
	struct pager_hints *hints = &pager->actors.hints[vcpu];

	pthread_mutex_unlock(&hints->lock);
	if (!atomic_load(&hints->missed) || !atomic_exchange(&hints->missed, false))
		return;
	for (uint32_t i = 0; i < pager->shard_count; i++)
		shard_post_fetch(&pager->shard[i], vcpu);
}

/* Which shards have pages to ask for. */
static void post_fetches(struct pager *pager, uint32_t vcpu, const struct page_hints *hints)
{
	for (uint32_t i = 0; i < hints->count; i++)
		if (hints->hint[i].ask)
			shard_post_fetch(&pager->shard[guest_memory_shard(pager->config.memory,
									  hints->hint[i].gpn)],
					 vcpu);
}

void pager_hints_arrive(struct pager *pager, uint32_t vcpu, const struct page_hints *hints,
			bool fetch)
{
	struct pager_hints *own = &pager->actors.hints[vcpu];
	struct page_hints list = *hints;

	leave_out_holes(pager, &list);
	if (fetch)
		page_hints_ask(&list);
	pthread_mutex_lock(&own->lock);
	own->list = list;
	pager_hints_unlock(pager, vcpu);
	if (fetch)
		post_fetches(pager, vcpu, &list);
}

int pager_open_port(struct pager *pager, struct memory_port **ret_port)
{
	int error = -EMFILE;

	pthread_mutex_lock(&pager->mutex);
	for (uint32_t i = 0; i < pager->actors.port_count; i++) {
		if (pager->port[i].open)
			continue;
		pager->port[i].open = true;
		pager->port[i].port.gpn = MEMORY_PORT_IDLE;
		*ret_port = &pager->port[i].port;
		error = 0;
		break;
	}
	pthread_mutex_unlock(&pager->mutex);
	return error;
}

void pager_close_port(struct pager *pager, struct memory_port *port)
{
	memory_release(port);
	pthread_mutex_lock(&pager->mutex);
	((struct pager_port *)port)->open = false;
	pthread_mutex_unlock(&pager->mutex);
}

/* --- life --- */

static int create_ports(struct pager *pager)
{
	pager->port = calloc(pager->actors.port_count + 1, sizeof(*pager->port));
	if (!pager->port)
		return -ENOMEM;
	for (uint32_t i = 0; i < pager->actors.port_count; i++) {
		struct pager_port *port = &pager->port[i];

		port->port = (struct memory_port){ .ops = &port_ops,
						   .memory = pager->config.memory,
						   .gpn = MEMORY_PORT_IDLE };
		port->pager = pager;
		port->actor = pager->actors.vcpu_count + i;
		pthread_mutex_init(&port->mutex, NULL);
		pthread_cond_init(&port->done, NULL);
	}
	return 0;
}

static int create_actors(struct pager *pager)
{
	const struct pager_config *config = &pager->config;
	struct pager_actors *actors = &pager->actors;

	actors->vcpu_count = config->vcpu_count;
	actors->port_count = config->port_count;
	actors->asker_count = asker_count(config);
	actors->tid = calloc(config->vcpu_count + 1, sizeof(*actors->tid));
	actors->stalls = calloc(config->vcpu_count + 1, sizeof(*actors->stalls));
	actors->stalled = calloc(config->vcpu_count + 1, sizeof(*actors->stalled));
	actors->hints = calloc(config->vcpu_count + 1, sizeof(*actors->hints));
	if (!actors->tid || !actors->stalls || !actors->stalled || !actors->hints)
		return -ENOMEM;
	for (uint32_t i = 0; i < config->vcpu_count; i++)
		pthread_mutex_init(&actors->hints[i].lock, NULL);
	return coh_actors_create(config->vcpu_count + config->port_count + actors->asker_count +
					 NAMELESS_ACTORS,
				 config->hold_ns, config->hold_ns_max, &pager->coh_actors);
}

int pager_create(const struct pager_config *config, struct pager **ret_pager)
{
	struct pager *pager;
	int error;

	if (!config_valid(config))
		return -EINVAL;
	pager = calloc(1, sizeof(*pager));
	if (!pager)
		return -ENOMEM;
	pager->config = *config;
	fill_in(&pager->config);
	pager_members_init(pager);
	pthread_mutex_init(&pager->mutex, NULL);
	atomic_flag_clear(&pager->failure_reported);
	pager->shard_count = guest_memory_shard_count(config->memory);
	pager->shard = calloc(pager->shard_count, sizeof(*pager->shard));
	error = pager->shard ? 0 : -ENOMEM;
	for (uint32_t i = 0; error == 0 && i < pager->shard_count; i++)
		pager->shard[i].epoll_fd = -1;
	if (error == 0)
		error = create_actors(pager);
	if (error == 0)
		error = create_ports(pager);
	if (error == 0)
		error = pager_windows_init(pager);
	for (uint32_t i = 0; error == 0 && i < pager->shard_count; i++)
		error = shard_init(&pager->shard[i], pager, i);
	if (error < 0) {
		pager_destroy(pager);
		return error;
	}
	*ret_pager = pager;
	return 0;
}

int pager_add_channel(struct pager *pager, uint32_t shard, struct page_channel *channel)
{
	if (shard >= pager->shard_count || channel->peer >= pager->config.node_count ||
	    !pager_members_needs(pager, channel->peer) || pager->shard[shard].started)
		return -EINVAL;
	return shard_add_channel(&pager->shard[shard], channel);
}

static bool channels_complete(const struct pager *pager)
{
	for (uint32_t i = 0; i < pager->shard_count; i++)
		for (uint16_t node = 0; node < pager->config.node_count; node++)
			if (pager_members_needs(pager, node) &&
			    !pager->shard[i].plan.peer[node].channel)
				return false;
	return true;
}

int pager_start(struct pager *pager)
{
	sigset_t all, before;
	int error = 0;

	if (!channels_complete(pager))
		return -ENOTCONN;
	/* Signals are for the node's other threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (uint32_t i = 0; error == 0 && i < pager->shard_count; i++) {
		error = -pthread_create(&pager->shard[i].thread, NULL, shard_run, &pager->shard[i]);
		pager->shard[i].started = error == 0;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error < 0)
		pager_stop(pager);
	return error;
}

void pager_stop(struct pager *pager)
{
	if (atomic_exchange(&pager->stopping, true))
		return;
	pager_close_ports(pager, -ESHUTDOWN);
	for (uint32_t i = 0; i < pager->shard_count; i++) {
		if (pager->shard[i].started)
			pthread_join(pager->shard[i].thread, NULL);
		pager->shard[i].started = false;
	}
	/* A pin that was completed by nobody between the closing and the end. */
	pager_close_ports(pager, -ESHUTDOWN);
}

static void destroy_ports(struct pager *pager)
{
	for (uint32_t i = 0; pager->port && i < pager->actors.port_count; i++) {
		pthread_mutex_destroy(&pager->port[i].mutex);
		pthread_cond_destroy(&pager->port[i].done);
	}
	free(pager->port);
}

void pager_destroy(struct pager *pager)
{
	if (!pager)
		return;
	if (pager->shard && pager->shard[0].started)
		pager_stop(pager);
	for (uint32_t i = 0; pager->shard && i < pager->shard_count; i++)
		shard_fini(&pager->shard[i]);
	free(pager->shard);
	coh_actors_destroy(pager->coh_actors);
	destroy_ports(pager);
	pager_windows_fini(pager);
	free(pager->actors.tid);
	free(pager->actors.stalls);
	free(pager->actors.stalled);
	free(pager->actors.hints);
	pthread_mutex_destroy(&pager->mutex);
	free(pager);
}

/* --- actors and numbers --- */

int pager_bind_actor(struct pager *pager, uint32_t vcpu, pid_t tid)
{
	if (vcpu >= pager->actors.vcpu_count)
		return -EINVAL;
	atomic_store_explicit(&pager->actors.tid[vcpu], tid, memory_order_relaxed);
	return 0;
}

uint64_t pager_vcpu_stalls(const struct pager *pager, uint32_t vcpu)
{
	if (vcpu >= pager->actors.vcpu_count)
		return 0;
	return atomic_load_explicit(&pager->actors.stalls[vcpu], memory_order_relaxed);
}

uint64_t pager_vcpu_stalled_ns(const struct pager *pager, uint32_t vcpu)
{
	if (vcpu >= pager->actors.vcpu_count)
		return 0;
	return stall_time_ns(&pager->actors.stalled[vcpu], monotonic_ns(NULL));
}

void pager_stats_get(const struct pager *pager, struct pager_stats *ret_stats)
{
	memset(ret_stats, 0, sizeof(*ret_stats));
	for (uint32_t i = 0; i < pager->shard_count; i++)
		shard_stats_sum(&pager->shard[i].stats, ret_stats);
}

static int by_count_descending(const void *a, const void *b)
{
	const struct pager_hot_page *x = a, *y = b;

	return x->count < y->count ? 1 : x->count > y->count ? -1 : 0;
}

static int by_offset_count_descending(const void *a, const void *b)
{
	const struct pager_hot_offset *x = a, *y = b;

	return x->count < y->count ? 1 : x->count > y->count ? -1 : 0;
}

static void hot_page_get(const struct hot_page *hot, struct pager_hot_page *ret_page)
{
	*ret_page = (struct pager_hot_page){ .gpn = stat_get(&hot->gpn.key),
					     .count = stat_get(&hot->gpn.count) };
	for (uint32_t i = 0; i < PAGER_HOT_OFFSETS; i++) {
		uint64_t offset = stat_get(&hot->offset[i].key);

		if (offset != UINT64_MAX)
			ret_page->offset[ret_page->offset_count++] =
				(struct pager_hot_offset){ offset,
							   stat_get(&hot->offset[i].count) };
	}
	qsort(ret_page->offset, ret_page->offset_count, sizeof(ret_page->offset[0]),
	      by_offset_count_descending);
}

uint32_t pager_hot_pages(const struct pager *pager, struct pager_hot_page *ret_page, uint32_t max)
{
	struct pager_hot_page all[SHARDS_MAX * HOT_PAGES];
	uint32_t count = 0;

	for (uint32_t i = 0; i < pager->shard_count; i++) {
		for (uint32_t j = 0; j < HOT_PAGES; j++) {
			hot_page_get(&pager->shard[i].stats.hot[j], &all[count]);
			if (all[count].gpn != UINT64_MAX)
				count++;
		}
	}
	qsort(all, count, sizeof(all[0]), by_count_descending);
	if (count > max)
		count = max;
	memcpy(ret_page, all, count * sizeof(all[0]));
	return count;
}

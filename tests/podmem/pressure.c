/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random reads and writes against versioned contents, with more guest memory in use than a node may
 * keep.
 *
 * Every page has SLOTS slots. A slot has one writer in the pod (so pages have several: false
 * sharing), and its value says where it is and how often it was written. The writer knows its
 * slots' versions: another one is a lost write (lower) or a corruption. Everybody remembers the
 * version last seen of every slot: a lower one later is a stale read. What is remembered is private
 * memory, so nothing that is judged depends on the pod.
 */
#include "tests/podmem/podmem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS	   8u
#define SLOT_BYTES (PAGE_BYTES / SLOTS)
#define TURN_NS                                                                                    \
	300000000u /* a node works most for so long, and comes to own more than it may keep */

struct pressure_worker {
	struct guest_memory *memory;
	uint64_t pages;
	uint32_t *seen; /* version, by slot of all memory */
	uint64_t random;
	uint32_t self, worker_count; /* over the pod */
	struct pressure_result result;
};

int pressure_worker_create(struct guest_memory *memory, struct pressure_worker **ret_worker)
{
	struct pressure_worker *worker = calloc(1, sizeof(*worker));

	if (!worker)
		return -1;
	worker->memory = memory;
	worker->pages = guest_memory_top(memory) >> PAGE_SHIFT;
	worker->seen = calloc(worker->pages * SLOTS, sizeof(*worker->seen));
	if (!worker->seen) {
		free(worker);
		return -1;
	}
	*ret_worker = worker;
	return 0;
}

void pressure_worker_destroy(struct pressure_worker *worker)
{
	if (worker)
		free(worker->seen);
	free(worker);
}

/* Where the slot lies in its page wanders from page to page. */
static uint64_t slot_gpa(uint64_t slot)
{
	uint64_t page = slot / SLOTS;

	return page * PAGE_BYTES + slot % SLOTS * SLOT_BYTES + (page * 8 % SLOT_BYTES & ~7ull);
}

static uint32_t tag(uint64_t slot)
{
	return (uint32_t)(slot * 2654435761u >> 3) | 1;
}

static uint32_t writer_of(const struct pressure_worker *worker, uint64_t slot)
{
	return (uint32_t)((slot ^ slot / SLOTS * 5) % worker->worker_count);
}

static void bad(struct pressure_worker *worker, uint64_t *counter, uint64_t slot)
{
	if (worker->result.stale + worker->result.lost + worker->result.corrupt == 0)
		worker->result.first_bad_gpa = slot_gpa(slot);
	(*counter)++;
}

/* One access. The value is version << 32 | tag, or 0 as long as nobody wrote. */
static void visit(struct pressure_worker *worker, uint64_t slot, bool write)
{
	volatile uint64_t *at = guest_memory_hva(worker->memory, slot_gpa(slot));
	uint64_t value = __atomic_load_n(at, __ATOMIC_RELAXED);
	uint32_t version = (uint32_t)(value >> 32);
	bool mine = writer_of(worker, slot) == worker->self;

	worker->result.reads++;
	if (value != 0 && (uint32_t)value != tag(slot))
		bad(worker, &worker->result.corrupt, slot);
	else if (mine && version != worker->seen[slot])
		bad(worker,
		    version < worker->seen[slot] ? &worker->result.lost : &worker->result.corrupt,
		    slot);
	else if (version < worker->seen[slot])
		bad(worker, &worker->result.stale, slot);
	worker->seen[slot] = version;
	if (!write || !mine)
		return;
	worker->seen[slot] = version + 1;
	worker->result.writes++;
	__atomic_store_n(at, (uint64_t)(version + 1) << 32 | tag(slot), __ATOMIC_RELAXED);
}

/* Some accesses to one page: all its slots in turn from a random one, or a few. */
static void visit_page(struct pressure_worker *worker, uint64_t page)
{
	uint64_t r = podmem_random(&worker->random);
	uint32_t first = r >> 8 & 7, count = (r & 3) == 0 ? SLOTS : 1 + (r >> 4 & 3);

	/* Half of the time to write, so at a slot of this worker's, if the page has one. */
	for (uint32_t i = 0; i < SLOTS && (r >> 16 & 1); i++, first++)
		if (writer_of(worker, page * SLOTS + first % SLOTS) == worker->self)
			break;
	for (uint32_t i = 0; i < count; i++)
		visit(worker, page * SLOTS + (first + i) % SLOTS, r >> 16 & 1);
}

/* A stretch of work: random pages, a hot set that all share, or a scan. */
static void stretch(struct pressure_worker *worker)
{
	uint64_t r = podmem_random(&worker->random);
	uint64_t start = podmem_random(&worker->random) % worker->pages;

	for (uint32_t i = 0; i < 64; i++) {
		uint64_t page;

		if ((r & 3) == 0)
			page = (start + i) % worker->pages;
		else if ((r & 3) == 1)
			page = podmem_random(&worker->random) % 32 * 97 % worker->pages;
		else
			page = podmem_random(&worker->random) % worker->pages;
		visit_page(worker, page);
	}
}

void pressure_run(struct pressure_worker *worker, const struct pressure_order *order,
		  uint16_t worker_index, struct pressure_result *ret_result)
{
	uint64_t start_ns = podmem_now_ns();
	uint64_t end_ns = start_ns + order->milliseconds * 1000000ull;

	worker->self = (uint32_t)order->node * order->worker_count + worker_index;
	worker->worker_count = (uint32_t)order->node_count * order->worker_count;
	worker->random = order->seed * 6364136223846793005u + worker->self + 1;
	memset(&worker->result, 0, sizeof(worker->result));
	for (uint64_t now_ns = start_ns; now_ns < end_ns; now_ns = podmem_now_ns()) {
		bool turn = (now_ns - start_ns) / TURN_NS % order->node_count == order->node;

		if (turn || podmem_random(&worker->random) % 8 == 0)
			stretch(worker);
		else
			usleep(1000);
	}
	for (uint64_t page = 0; page < worker->pages; page++)
		for (uint32_t i = 0; i < SLOTS; i++)
			visit(worker, page * SLOTS + i, false);
	*ret_result = worker->result;
}

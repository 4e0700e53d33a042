/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory alone: layout and stripes, each operation, and a page that is taken out under a
 * thread that writes it. A helper thread touches pages; the test is its shard thread.
 */
#include "tests/test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory/guest_memory.h"
#include "memory/uffd_move.h"
#include "memory/uffd_probe.h"

#define GIB (1ull << 30)
#define MIB (1ull << 20)

/* The kernel moves pages and says that it has not. */
static bool moves_lie;

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;
	int r;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	r = __real_ioctl(fd, request, arg);
	if (request == UFFDIO_MOVE && moves_lie) {
		((struct uffdio_move *)arg)->move = -EAGAIN;
		errno = EAGAIN;
		return -1;
	}
	return r;
}

static struct guest_memory *create(uint32_t shards, uint64_t low, uint64_t high)
{
	struct guest_memory_config config = { .range = { { 0, low }, { 4 * GIB, high } },
					      .range_count = high ? 2 : 1,
					      .shard_count = shards };
	struct guest_memory *memory = NULL;

	assert_int_equal(guest_memory_create(&config, &memory), 0);
	return memory;
}

static void bad_configs_are_refused(void **state)
{
	struct guest_memory *memory = NULL;
	struct guest_memory_config none = { .range_count = 0, .shard_count = 1 };
	struct guest_memory_config odd = { { { 0, MIB } }, 1, 1 };
	struct guest_memory_config overlap = { { { 0, 4 * MIB }, { 2 * MIB, 4 * MIB } }, 2, 1 };
	struct guest_memory_config shards = { { { 0, 4 * MIB } }, 1, SHARDS_MAX + 1 };
	struct guest_memory_config high = { { { GPA_LIMIT - 2 * MIB, 4 * MIB } }, 1, 1 };

	assert_int_equal(guest_memory_create(&none, &memory), -EINVAL);
	assert_int_equal(guest_memory_create(&odd, &memory), -EINVAL);
	assert_int_equal(guest_memory_create(&overlap, &memory), -EINVAL);
	assert_int_equal(guest_memory_create(&shards, &memory), -EINVAL);
	assert_int_equal(guest_memory_create(&high, &memory), -EINVAL);
	assert_null(memory);
}

static void the_hole_is_no_ram(void **state)
{
	struct guest_memory *memory = create(1, 3 * GIB, 64 * GIB);

	assert_true(guest_memory_is_ram(memory, 0, 3 * GIB));
	assert_false(guest_memory_is_ram(memory, 3 * GIB - 1, 2));
	assert_false(guest_memory_is_ram(memory, 3 * GIB, 1));
	assert_true(guest_memory_is_ram(memory, 4 * GIB, 64 * GIB));
	assert_false(guest_memory_is_ram(memory, 4 * GIB, UINT64_MAX));
	assert_false(guest_memory_is_ram(memory, 68 * GIB, 1));
	assert_null(guest_memory_hva(memory, 3 * GIB));
	assert_ptr_equal(guest_memory_hva(memory, 4 * GIB + 5),
			 (char *)guest_memory_base(memory) + 4 * GIB + 5);
	assert_int_equal((uintptr_t)guest_memory_base(memory) % CHUNK_BYTES, 0);
	assert_int_equal(guest_memory_top(memory), 68 * GIB);
	guest_memory_destroy(memory);
}

/* Every page has a shard, runs never cross a stripe or a range, and all shards get about the same.
 */
static void stripes_share_out_all_chunks(void **state)
{
	for (uint32_t shards = 1; shards <= SHARDS_MAX; shards *= 2) {
		struct guest_memory *memory = create(shards, 3 * GIB, 5 * GIB);
		uint64_t pages[SHARDS_MAX] = { 0 };
		uint32_t stripes = 0;

		for (uint64_t gpn = 0; gpn < 9 * GIB >> PAGE_SHIFT;) {
			uint32_t shard, run;

			if (gpn == 3 * GIB >> PAGE_SHIFT)
				gpn = 4 * GIB >> PAGE_SHIFT;
			shard = guest_memory_shard(memory, gpn);
			run = guest_memory_run(memory, gpn, UINT32_MAX);
			assert_true(run > 0 && run % CHUNK_PAGES == 0);
			assert_int_equal(guest_memory_shard(memory, gpn + run - 1), shard);
			assert_true(guest_memory_is_ram(memory, gpn << PAGE_SHIFT,
							(uint64_t)run << PAGE_SHIFT));
			assert_int_equal(guest_memory_run(memory, gpn + run - 1, 7), 1);
			pages[shard] += run;
			gpn += run;
			stripes++;
		}
		assert_true(stripes <= shards * 4 + 2);
		for (uint32_t i = 0; i < shards; i++)
			assert_int_equal(pages[i], guest_memory_shard_pages(memory, i));
		for (uint32_t i = 0; i < shards; i++)
			assert_true(pages[i] > (8 * GIB >> PAGE_SHIFT) / shards / 2);
		guest_memory_destroy(memory);
	}
}

/* A thread that does one thing to guest memory. */
struct toucher {
	volatile uint8_t *at;
	bool write;
	uint8_t value;	   /* written, or what was read */
	_Atomic pid_t tid; /* known to the test by the fault, which orders nothing for C */
	atomic_bool done;
	pthread_t thread;
};

static void *touch(void *arg)
{
	struct toucher *toucher = arg;

	toucher->tid = (pid_t)syscall(SYS_gettid);
	if (toucher->write)
		*toucher->at = toucher->value;
	else
		toucher->value = *toucher->at;
	atomic_store(&toucher->done, true);
	return NULL;
}

static void begin(struct toucher *toucher, struct guest_memory *memory, uint64_t gpa, bool write,
		  uint8_t value)
{
	*toucher = (struct toucher){ .at = guest_memory_hva(memory, gpa),
				     .write = write,
				     .value = value };
	assert_int_equal(pthread_create(&toucher->thread, NULL, touch, toucher), 0);
}

static uint8_t end(struct toucher *toucher)
{
	assert_int_equal(pthread_join(toucher->thread, NULL), 0);
	return toucher->value;
}

static struct guest_fault next_fault(struct guest_memory *memory, uint32_t shard)
{
	struct pollfd ready = { .fd = guest_memory_fd(memory, shard), .events = POLLIN };
	struct guest_fault fault[4];

	assert_int_equal(poll(&ready, 1, 20000), 1);
	assert_int_equal(guest_memory_faults(memory, shard, fault, 4), 1);
	return fault[0];
}

static uint64_t resident(const struct guest_memory *memory)
{
	uint64_t pages;

	assert_int_equal(guest_memory_resident(memory, &pages), 0);
	return pages;
}

static void a_page_comes_changes_and_goes(void **state)
{
	struct guest_memory *memory = create(2, 16 * MIB, 0);
	uint64_t gpa = 14 * MIB + 5 * PAGE_BYTES, gpn = gpa >> PAGE_SHIFT;
	uint32_t shard = guest_memory_shard(memory, gpn);
	static uint8_t page[PAGE_BYTES] __attribute__((aligned(4096)));
	struct guest_fault fault;
	struct toucher toucher;

	assert_int_equal(shard, 1);
	memset(page, 7, sizeof(page));
	begin(&toucher, memory, gpa + 9, false, 0);
	fault = next_fault(memory, shard);
	assert_int_equal(fault.gpn, gpn);
	assert_int_equal(fault.tid, toucher.tid);
	assert_false(fault.write || fault.wp);
	assert_int_equal(guest_memory_install(memory, gpn, 1, page, COH_READ, true), 0);
	assert_int_equal(end(&toucher), 7);
	assert_int_equal(resident(memory), 1);

	begin(&toucher, memory, gpa + 9, true, 8);
	fault = next_fault(memory, shard);
	assert_true(fault.write && fault.wp && fault.gpn == gpn);
	assert_false(atomic_load(&toucher.done));
	assert_int_equal(guest_memory_protect(memory, gpn, 1, COH_WRITE, true), 0);
	end(&toucher);
	assert_int_equal(((uint8_t *)guest_memory_hva(memory, gpa))[9], 8);

	assert_int_equal(guest_memory_install(memory, gpn, 1, page, COH_READ, true), -EEXIST);
	assert_int_equal(guest_memory_drop(memory, gpn, 1), 0);
	assert_int_equal(resident(memory), 0);

	begin(&toucher, memory, gpa, true, 9);
	fault = next_fault(memory, shard);
	assert_true(fault.write && !fault.wp);
	assert_int_equal(guest_memory_install(memory, gpn, 1, NULL, COH_WRITE, true), 0);
	end(&toucher);
	assert_int_equal(((uint8_t *)guest_memory_hva(memory, gpa))[1], 0);
	guest_memory_destroy(memory);
}

static void nobody_wakes_unasked(void **state)
{
	struct guest_memory *memory = create(1, 2 * MIB, 0);
	struct toucher toucher;

	begin(&toucher, memory, 0, true, 1);
	next_fault(memory, 0);
	assert_int_equal(guest_memory_install(memory, 0, 1, NULL, COH_READ, false), 0);
	usleep(20000);
	assert_int_equal(guest_memory_protect(memory, 0, 1, COH_WRITE, false), 0);
	usleep(20000);
	assert_false(atomic_load(&toucher.done));
	assert_int_equal(guest_memory_wake(memory, 0, 1), 0);
	end(&toucher);
	guest_memory_destroy(memory);
}

static void many_pages_in_one_call(void **state)
{
	struct guest_memory *memory = create(1, 2 * MIB, 0);
	static uint8_t data[32 * PAGE_BYTES] __attribute__((aligned(4096)));
	const void *taken;
	uint8_t *base = guest_memory_base(memory);

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i >> PAGE_SHIFT);
	assert_int_equal(guest_memory_install(memory, 10, 32, data, COH_WRITE, true), 0);
	assert_int_equal(guest_memory_install(memory, 100, 200, NULL, COH_WRITE, true), 0);
	assert_int_equal(resident(memory), 232);
	assert_int_equal(base[299 * PAGE_BYTES], 0);
	base[20 * PAGE_BYTES + 3] = 99;
	assert_int_equal(guest_memory_take(memory, 10, 32, &taken), 0);
	assert_int_equal(resident(memory), 200);
	for (uint32_t i = 0; i < 32; i++)
		assert_int_equal(((const uint8_t *)taken)[i * PAGE_BYTES], i);
	assert_int_equal(((const uint8_t *)taken)[10 * PAGE_BYTES + 3], 99);
	assert_int_equal(guest_memory_takeable(memory, 0), 512 - 32);
	assert_int_equal(guest_memory_take(memory, 100, 200, &taken), 0);
	assert_int_equal(guest_memory_install(memory, 310, 40, NULL, COH_WRITE, true), 0);
	assert_int_equal(guest_memory_take(memory, 310, 40, &taken), 0);
	assert_int_equal(guest_memory_take(memory, 0, 300, &taken), -ENOSPC);
	assert_int_equal(guest_memory_recycle(memory, 0), 0);
	assert_int_equal(guest_memory_takeable(memory, 0), 512);
	assert_int_equal(guest_memory_drop(memory, 0, 512), 0);
	assert_int_equal(resident(memory), 0);
	guest_memory_destroy(memory);
}

/* Written, write-protected and never written pages alike. */
static void pages_of_every_kind_can_be_taken(void **state)
{
	struct guest_memory *memory = create(1, 2 * MIB, 0);
	uint8_t *base = guest_memory_base(memory);
	const uint8_t *taken;

	assert_int_equal(guest_memory_install(memory, 0, 8, NULL, COH_WRITE, true), 0);
	base[2 * PAGE_BYTES] = 5;
	assert_int_equal(guest_memory_protect(memory, 2, 3, COH_READ, false), 0);
	assert_int_equal(guest_memory_take(memory, 0, 8, (const void **)&taken), 0);
	assert_int_equal(taken[2 * PAGE_BYTES], 5);
	assert_int_equal(taken[7 * PAGE_BYTES], 0);
	assert_int_equal(resident(memory), 0);
	guest_memory_destroy(memory);
}

/* What was moved although the kernel says no is there all the same. */
static void moves_that_are_denied(void **state)
{
	struct guest_memory *memory = create(1, 4 * MIB, 0);
	uint8_t page[4 * PAGE_BYTES];
	const void *taken;
	struct guest_memory_counts counts;
	struct uffd_probe probe;
	char why[256];

	for (int i = 0; i < 4; i++)
		memset(page + i * PAGE_BYTES, i + 1, PAGE_BYTES);
	assert_int_equal(guest_memory_install(memory, 16, 4, page, COH_WRITE, false), 0);
	moves_lie = true;
	assert_int_equal(guest_memory_take(memory, 16, 1, &taken), 0);
	assert_memory_equal(taken, page, PAGE_BYTES);
	assert_int_equal(guest_memory_take(memory, 17, 3, &taken), 0);
	assert_memory_equal(taken, page + PAGE_BYTES, 3 * PAGE_BYTES);
	moves_lie = false;
	if (uffd_probe(&probe, why, sizeof(why)) == 0 && probe.move_in_batches) {
		guest_memory_counts(memory, 0, &counts);
		assert_int_equal(counts.moves_denied, 2);
		assert_int_equal(counts.move_error, EAGAIN);
	}
	guest_memory_destroy(memory);
}

/* Where a pod has promised little, what was moved out must take less, too. */
static void what_is_out_has_a_limit(void **state)
{
	struct guest_memory *memory = create(1, 2 * MIB, 0);
	unsigned char present[40];
	const void *taken, *again;
	struct uffd_probe probe;
	char why[256];

	assert_int_equal(guest_memory_install(memory, 0, 100, NULL, COH_WRITE, true), 0);
	assert_int_equal(guest_memory_limit_taken(memory, 0, 40), 40);
	assert_int_equal(guest_memory_take(memory, 0, 41, &taken), -ENOSPC);
	assert_int_equal(guest_memory_take(memory, 0, 20, &taken), 0);
	assert_int_equal(guest_memory_recycle(memory, 0), 0); /* so few may stay */
	assert_int_equal(guest_memory_takeable(memory, 0), 20);
	assert_int_equal(guest_memory_take(memory, 20, 20, &again), 0);
	assert_int_equal(guest_memory_takeable(memory, 0), 0);
	assert_int_equal(guest_memory_take(memory, 40, 1, &again), -ENOSPC);
	assert_int_equal(guest_memory_recycle(memory, 0), 0);
	assert_int_equal(guest_memory_takeable(memory, 0), 40);
	assert_int_equal(uffd_probe(&probe, why, sizeof(why)), 0);
	if (probe.move_in_batches) { /* else what is taken was copied */
		assert_int_equal(
			mincore((void *)(uintptr_t)taken, sizeof(present) * PAGE_BYTES, present),
			0);
		for (size_t i = 0; i < sizeof(present); i++)
			assert_int_equal(present[i] & 1, 0);
	}
	assert_int_equal(guest_memory_limit_taken(memory, 0, 0), 1);
	assert_int_equal(guest_memory_take(memory, 40, 1, &taken), 0);
	assert_int_equal(guest_memory_recycle(memory, 0), 0);
	assert_int_equal(guest_memory_limit_taken(memory, 0, 1u << 30), 512);
	guest_memory_destroy(memory);
}

static uint64_t shootdowns(const struct guest_memory *memory)
{
	struct guest_memory_counts counts;

	guest_memory_counts(memory, 0, &counts);
	return counts.shootdowns;
}

/* A shootdown is for many pages; what comes costs none. */
static void shootdowns_are_counted_and_few(void **state)
{
	struct guest_memory *memory = create(1, 2 * MIB, 0);
	struct guest_memory_counts counts;
	const void *taken;
	uint64_t before;

	assert_int_equal(guest_memory_install(memory, 0, 512, NULL, COH_WRITE, true), 0);
	assert_int_equal(shootdowns(memory), 0);
	assert_int_equal(guest_memory_protect(memory, 0, 64, COH_READ, false), 0);
	assert_int_equal(guest_memory_protect(memory, 0, 32, COH_WRITE, false), 0);
	assert_int_equal(guest_memory_drop(memory, 0, 64), 0);
	assert_int_equal(shootdowns(memory), 3);
	guest_memory_counts(memory, 0, &counts);
	assert_int_equal(counts.shootdown_pages, 64 + 32 + 64);
	assert_true(counts.calls >= 4);
	before = counts.shootdowns;
	assert_int_equal(guest_memory_take(memory, 64, 64, &taken), 0);
	assert_true(shootdowns(memory) - before <= 2);
	/* One page at a time: one each, and to give them back some more, but few. */
	before = shootdowns(memory);
	for (uint64_t gpn = 128; gpn < 512; gpn++) {
		assert_int_equal(guest_memory_take(memory, gpn, 1, &taken), 0);
		assert_int_equal(guest_memory_recycle(memory, 0), 0);
	}
	assert_in_range(shootdowns(memory) - before, 384, 2 * 384 + 2);
	guest_memory_counts(memory, 0, &counts);
	if (counts.shootdowns - before < 2 * 384) /* where pages can be moved */
		assert_in_range(counts.shootdowns - before, 384, 384 + 2);
	guest_memory_destroy(memory);
}

struct counter {
	_Atomic uint64_t *at;
	_Atomic uint64_t own;
	atomic_bool stop;
};

static void *count_up(void *arg)
{
	struct counter *counter = arg;

	while (!atomic_load_explicit(&counter->stop, memory_order_relaxed)) {
		atomic_fetch_add(counter->at, 1);
		atomic_fetch_add(&counter->own, 1);
	}
	return NULL;
}

/* A busy machine may let it run again only when its page is gone once more, each time. */
static void wait_for_count(struct counter *counter)
{
	uint64_t before = atomic_load(&counter->own);

	for (int ms = 0; ms < 20000 && atomic_load(&counter->own) == before; ms++)
		usleep(1000);
	assert_true(atomic_load(&counter->own) > before);
}

/* No write is lost, however often the page is taken out and put back under a thread that counts in
 * it. */
static void a_taken_page_has_every_write(void **state)
{
	struct guest_memory *memory = create(1, 2 * MIB, 0);
	struct counter counter = { .at = guest_memory_base(memory) };
	struct pollfd ready = { .fd = guest_memory_fd(memory, 0), .events = POLLIN };
	struct guest_fault fault[4];
	pthread_t thread;
	uint64_t last = 0;

	assert_int_equal(guest_memory_install(memory, 0, 1, NULL, COH_WRITE, true), 0);
	assert_int_equal(pthread_create(&thread, NULL, count_up, &counter), 0);
	for (int round = 0; round < 2000; round++) {
		const void *taken;
		uint64_t seen;

		assert_int_equal(guest_memory_take(memory, 0, 1, &taken), 0);
		memcpy(&seen, taken, sizeof(seen));
		assert_true(seen >= last);
		last = seen;
		poll(&ready, 1, 100);
		assert_true(guest_memory_faults(memory, 0, fault, 4) >= 0);
		assert_int_equal(guest_memory_install(memory, 0, 1, taken, COH_WRITE, true), 0);
		assert_int_equal(guest_memory_recycle(memory, 0), 0);
		if (round % 20 == 0)
			wait_for_count(&counter);
	}
	atomic_store(&counter.stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(last > 0);
	assert_int_equal(atomic_load(counter.at), atomic_load(&counter.own));
	guest_memory_destroy(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_configs_are_refused),
		cmocka_unit_test(the_hole_is_no_ram),
		cmocka_unit_test(stripes_share_out_all_chunks),
		cmocka_unit_test(a_page_comes_changes_and_goes),
		cmocka_unit_test(nobody_wakes_unasked),
		cmocka_unit_test(many_pages_in_one_call),
		cmocka_unit_test(pages_of_every_kind_can_be_taken),
		cmocka_unit_test(moves_that_are_denied),
		cmocka_unit_test(what_is_out_has_a_limit),
		cmocka_unit_test(shootdowns_are_counted_and_few),
		cmocka_unit_test(a_taken_page_has_every_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The TLB as data (engine/soft/tlb/): what it finds, forgets, and gives back to the host;
 * and the table of jumps and doors, which sleep meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "engine/soft/tlb/doors.h"
#include "engine/soft/tlb/jumps.h"
#include "engine/soft/tlb/tlb.h"

#define PAGES_ALL (1ull << 20)

static struct engine_vcpu *vcpu;
static struct engine machine;

static int set_up(void **state)
{
	(void)state;
	vcpu = mmap(NULL, sizeof(*vcpu), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vcpu == MAP_FAILED)
		return -1;
	machine = (struct engine){ .tlb_words_max = UINT32_MAX };
	vcpu->engine = &machine;
	soft_tlb_create(vcpu);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return munmap(vcpu, sizeof(*vcpu));
}

static void enter(uint64_t linear)
{
	struct soft_tlb_page page = { .host = (uint8_t *)(uintptr_t)(0x100000000000ull + linear),
				      .readable = true,
				      .writable = true };

	soft_tlb_enter(vcpu, VIEW_USER, linear, ACCESS_READ, &page);
}

static bool has(uint64_t linear)
{
	return soft_tlb_find(vcpu, VIEW_USER, linear, ACCESS_READ) != NULL;
}

static void put_stack(uint32_t i, uint64_t page, uint64_t host)
{
	for (int write = 0; write < 2; write++)
		vcpu->stack_page[write][i] =
			(struct soft_stack_page){ .page = page, .addend = host - page };
}

static bool has_stack(bool write, uint32_t i, uint64_t page)
{
	return vcpu->stack_page[write][i].page == page;
}

/* What looks off rsp ask first goes where the TLB's entry goes. */
static void test_stack_pages(void **state)
{
	static const uint64_t page = 0x7ffc12345000, other = 0x7ffc12346000, host = 0x5500000000;

	(void)state;
	for (int write = 0; write < 2; write++)
		for (uint32_t i = 0; i < STACK_PAGES; i++)
			assert_true(has_stack(write, i, STACK_NOWHERE));
	put_stack(0, page, host);
	put_stack(STACK_PAGES - 1, page, host);
	put_stack(1, other, host + 0x1000);
	soft_tlb_flush_page(vcpu, page + 0x123);
	for (int write = 0; write < 2; write++) {
		assert_true(has_stack(write, 0, STACK_NOWHERE));
		assert_true(has_stack(write, STACK_PAGES - 1, STACK_NOWHERE));
		assert_true(has_stack(write, 1, other));
	}
	put_stack(0, page, host);
	soft_tlb_forget_write(vcpu, (const uint8_t *)(uintptr_t)(host + 0x1008));
	assert_true(has_stack(true, 0, page) && has_stack(false, 0, page));
	assert_true(has_stack(true, 1, STACK_NOWHERE) && has_stack(false, 1, other));
	soft_tlb_flush(vcpu, false);
	assert_true(has_stack(true, 0, STACK_NOWHERE) && has_stack(false, 1, STACK_NOWHERE));
}

/* A piece of a large page goes with the others. */
static void test_stack_large(void **state)
{
	struct soft_tlb_page large = {
		.host = (uint8_t *)0x5500000000, .readable = true, .writable = true, .level = 1
	};

	(void)state;
	soft_tlb_enter(vcpu, VIEW_USER, 0x7ffc12345000, ACCESS_READ, &large);
	put_stack(2, 0x7ffc12345000, 0x5500000000);
	put_stack(3, 0x7ffc12400000, 0x5500000000);
	soft_tlb_flush_page(vcpu, 0x7ffc12200000);
	assert_true(has_stack(false, 2, STACK_NOWHERE) && has_stack(true, 2, STACK_NOWHERE));
	assert_true(has_stack(false, 3, 0x7ffc12400000));
}

static uint64_t resident(void)
{
	static unsigned char map[sizeof(vcpu->tlb[0]) / PAGE_BYTES];
	uint64_t count = 0;

	assert_int_equal(mincore(&vcpu->tlb[VIEW_USER], sizeof(vcpu->tlb[0]), map), 0);
	for (size_t i = 0; i < sizeof(map); i++)
		count += map[i] & 1;
	return count;
}

static void test_finds(void **state)
{
	(void)state;
	/* nothing is known, whatever the address; page 0 is the one whose tag is 0, too */
	assert_false(has(0));
	for (uint64_t bit = 12; bit < 64; bit++)
		assert_false(has(1ull << bit));
	enter(0);
	enter(0x7ffffffff000);
	assert_true(has(0) && has(0x7ffffffff000));
	assert_false(has(PAGES_ALL << PAGE_SHIFT)); /* the same place as 0 */
	enter(PAGES_ALL << PAGE_SHIFT);
	assert_false(has(0));
	soft_tlb_flush(vcpu, true);
	assert_false(has(0) || has(PAGES_ALL << PAGE_SHIFT) || has(0x7ffffffff000));
}

/* A guest that goes over all of its address space does not keep the host's memory for ever. */
static void test_gives_back(void **state)
{
	(void)state;
	for (uint64_t page = 0; page < PAGES_ALL; page++)
		enter(page << PAGE_SHIFT);
	assert_true(has(0) && has(12345ull << PAGE_SHIFT));
	assert_true(resident() > 4096);
	soft_tlb_flush(vcpu, true);
	assert_true(resident() < 16);
	for (uint64_t page = 0; page < PAGES_ALL; page += 997)
		assert_false(has(page << PAGE_SHIFT));
	/* and it works as before */
	enter(0);
	enter(12345ull << PAGE_SHIFT);
	assert_true(has(0) && has(12345ull << PAGE_SHIFT));
	soft_tlb_flush(vcpu, true);
	assert_false(has(0) || has(12345ull << PAGE_SHIFT));
}

/* One page in 2 MiB takes as much of the host's memory as all of them. */
static void test_gives_back_few(void **state)
{
	(void)state;
	for (uint64_t page = 5; page < PAGES_ALL; page += 512)
		enter(page << PAGE_SHIFT);
	assert_true(has(5ull << PAGE_SHIFT));
	assert_true(resident() > 4096);
	soft_tlb_flush(vcpu, true);
	assert_true(resident() < 16);
	for (uint64_t page = 5; page < PAGES_ALL; page += 512)
		assert_false(has(page << PAGE_SHIFT));
}

/* Enters a page in each 2 MiB from `first` on, in all views. */
static void enter_sparsely(struct engine_vcpu *v, uint64_t first, uint64_t count)
{
	struct soft_tlb_page page = { .host = (uint8_t *)0x100000000000, .readable = true };

	for (int view = 0; view < VIEW_COUNT; view++)
		for (uint64_t i = first; i < first + count; i++) {
			uint64_t linear = i << 21;

			soft_tlb_enter(v, (enum soft_view)view, linear, ACCESS_READ, &page);
			assert_non_null(
				soft_tlb_find(v, (enum soft_view)view, linear, ACCESS_READ));
		}
}

/*
 * Tables of all vCPUs keep what all may have and each one's own; who wants more than his own then begins
 * anew, and the others keep theirs.
 */
static void test_bounded(void **state)
{
	struct engine_vcpu *other = mmap(NULL, sizeof(*other), PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint32_t most = 0;

	(void)state;
	assert_true(other != MAP_FAILED);
	other->engine = &machine;
	soft_tlb_create(other);
	machine.tlb_words_max = 1000;
	enter_sparsely(other, 0, 100);
	assert_int_equal(atomic_load(&machine.tlb_words), 300);
	for (uint64_t first = 0; first < 2048; first += 32) {
		enter_sparsely(vcpu, first, 32);
		if (atomic_load(&machine.tlb_words) > most)
			most = atomic_load(&machine.tlb_words);
	}
	assert_in_range(most, 900, 1000 + TLB_WORDS_OWN);
	assert_true(resident() <= (uint64_t)(most + 1) * 5);
	/* What the other one has stays his, and he may have his own whatever the first one keeps. */
	assert_non_null(soft_tlb_find(other, VIEW_KERNEL, 99ull << 21, ACCESS_READ));
	machine.tlb_words_max = 0;
	soft_tlb_release(other);
	enter_sparsely(other, 0, TLB_WORDS_OWN / 3);
	assert_non_null(soft_tlb_find(other, VIEW_USER, 0, ACCESS_READ));
	soft_tlb_release(vcpu);
	assert_int_equal(atomic_load(&machine.tlb_words), TLB_WORDS_OWN / 3 * 3);
	assert_true(resident() < 16);
	munmap(other, sizeof(*other));
}

/* ---- the table of jumps ---- */

#define RIP   0x401230ull
#define OTHER (RIP + 8ull * JUMP_ENTRIES) /* has the same first place */
#define EDGE  0x401ff8ull		  /* may reach into the next page */

static const uint8_t code[4];

static void fetch_level(uint64_t linear, uint64_t host, uint8_t level)
{
	struct soft_tlb_page page = { .host = (uint8_t *)(uintptr_t)host,
				      .readable = true,
				      .level = level };

	soft_tlb_enter(vcpu, VIEW_USER, linear, ACCESS_FETCH, &page);
}

static void fetch(uint64_t linear, uint64_t host)
{
	fetch_level(linear, host, 0);
}

/* The places at which translated code looks, and the stub: they compare the address alone. */
static bool leads_to(uint64_t rip, const uint8_t *to)
{
	const struct soft_jump_entry
		*first = &vcpu->jump[VIEW_USER][soft_jump_index(rip)],
		*second = &vcpu->jump[VIEW_USER][soft_jump_index(rip) ^ JUMP_INDEX_SECOND / 16];

	if (!to && (first->rip == rip || second->rip == rip))
		return false;
	return soft_jump_find(vcpu, rip) == to;
}

static void remember_all(uint64_t host)
{
	fetch(RIP, host);
	fetch(OTHER, host + PAGE_BYTES);
	soft_jump_remember(vcpu, RIP, &code[0]);
	soft_jump_remember(vcpu, OTHER, &code[1]); /* and RIP to its second place */
	soft_jump_remember(vcpu, EDGE, &code[2]);
	assert_true(leads_to(RIP, &code[0]) && leads_to(OTHER, &code[1]) &&
		    leads_to(EDGE, &code[2]));
}

static void assert_nobody(void)
{
	for (uint64_t bit = 3; bit < 64; bit++)
		assert_true(leads_to(RIP ^ 1ull << bit, NULL));
	assert_true(leads_to(RIP, NULL) && leads_to(OTHER, NULL) && leads_to(EDGE, NULL));
}

/* Nothing is known at first, whatever the address. */
static void test_jumps_empty(void **state)
{
	(void)state;
	assert_true(leads_to(0, NULL));
	for (uint64_t bit = 3; bit < 64; bit++)
		assert_true(leads_to(1ull << bit, NULL));
	/* nor when a page wakes up in which nothing slept */
	soft_jump_remember(vcpu, 16, &code[0]);
	fetch(0, 0x100000);
	soft_jump_remember(vcpu, 16, &code[0]);
	soft_tlb_flush(vcpu, true);
	fetch(0, 0x100000);
	assert_true(leads_to(0, NULL) && leads_to(8, NULL) && leads_to(16, &code[0]));
}

static void test_jumps_sleep(void **state)
{
	(void)state;
	remember_all(0x100000);
	soft_tlb_flush(vcpu, true);
	assert_nobody();
	soft_tlb_flush(vcpu, true);
	fetch(0x402000, 0x200000); /* another page */
	assert_nobody();
	fetch(RIP, 0x100000);
	assert_true(leads_to(RIP, &code[0]) && leads_to(OTHER, NULL) && leads_to(EDGE, NULL));
	fetch(OTHER, 0x101000);
	assert_true(leads_to(RIP, &code[0]) && leads_to(OTHER, &code[1]) && leads_to(EDGE, NULL));
	/* one page alone */
	soft_tlb_flush_page(vcpu, RIP);
	assert_true(leads_to(RIP, NULL) && leads_to(OTHER, &code[1]));
	fetch(RIP, 0x100000);
	assert_true(leads_to(RIP, &code[0]));
	/* and who may reach into it */
	soft_jump_remember(vcpu, EDGE, &code[2]);
	fetch(0x402000, 0x200000);
	soft_tlb_flush_page(vcpu, 0x402000);
	assert_true(leads_to(EDGE, NULL) && leads_to(RIP, &code[0]));
	soft_jump_remember(vcpu, EDGE, &code[2]);
	fetch(EDGE, 0x100000);
	soft_tlb_flush_page(vcpu, EDGE);
	assert_true(leads_to(EDGE, NULL));
}

/* Another page has come to that address: what is known of it is wrong for good. */
static void test_jumps_moved(void **state)
{
	(void)state;
	remember_all(0x100000);
	soft_tlb_flush(vcpu, true);
	fetch(RIP, 0x300000);
	assert_true(leads_to(RIP, NULL) && leads_to(OTHER, NULL));
	soft_tlb_flush(vcpu, true);
	fetch(RIP, 0x100000);
	assert_true(leads_to(RIP, NULL));
	fetch(OTHER, 0x101000);
	assert_true(leads_to(OTHER, &code[1]));
	/* nor does what was awake outlive it */
	soft_jump_remember(vcpu, RIP, &code[0]);
	fetch(RIP + (JUMP_PAGES * (uint64_t)PAGE_BYTES), 0x400000);
	fetch(RIP + (PAGES_ALL << PAGE_SHIFT), 0x500000);
	fetch(RIP, 0x300000);
	soft_tlb_flush(vcpu, true);
	fetch(RIP, 0x300000);
	assert_true(leads_to(RIP, NULL));
	/* nor is it right because another page has been there */
	soft_tlb_flush(vcpu, true);
	remember_all(0x100000);
	fetch(RIP + (JUMP_PAGES * (uint64_t)PAGE_BYTES), 0x300000);
	soft_tlb_flush(vcpu, true);
	fetch(RIP, 0x300000);
	assert_true(leads_to(RIP, NULL));
	/* nor does what was fetched, if the page moves by a read */
	soft_tlb_flush(vcpu, true);
	remember_all(0x100000);
	enter(RIP);
	fetch(RIP, 0x100000000000ull + (RIP & ~0xfffull));
	assert_true(leads_to(RIP, NULL));
}

/* INVLPG of any address of a large page forgets all of it: jumps into other pieces, too. */
static void test_jumps_large(void **state)
{
	(void)state;
	fetch_level(RIP, 0x100000, 1);
	soft_jump_remember(vcpu, RIP, &code[0]);
	soft_tlb_flush_page(vcpu, 0x600000); /* the next one */
	assert_true(leads_to(RIP, &code[0]));
	soft_tlb_flush_page(vcpu, 0x400000);
	assert_true(leads_to(RIP, NULL));
	fetch_level(RIP, 0x300000, 1);
	assert_true(leads_to(RIP, NULL));
	soft_jump_remember(vcpu, RIP, &code[0]);
	soft_tlb_flush_page(vcpu, 0x5ff000);
	assert_true(leads_to(RIP, NULL));
}

/* A program's small pages are not taken for pieces of a kernel's large ones. */
static void test_jumps_small(void **state)
{
	(void)state;
	for (uint64_t gib = 0; gib < 512; gib++)
		fetch_level(0xffff800000410000 + (gib << 30), 0x100000, 1);
	fetch(RIP, 0x100000);
	soft_jump_remember(vcpu, RIP, &code[0]);
	soft_tlb_flush_page(vcpu, 0x5ff000);
	assert_true(leads_to(RIP, &code[0]));
}

/* The code is no more. */
static void test_jumps_flushed(void **state)
{
	(void)state;
	remember_all(0x100000);
	soft_tlb_flush(vcpu, true);
	soft_jump_flush(vcpu, VIEW_USER);
	fetch(RIP, 0x100000);
	fetch(OTHER, 0x101000);
	assert_nobody();
	soft_jump_remember(vcpu, RIP - 16, &code[3]); /* OTHER's neighbour */
	soft_tlb_flush(vcpu, true);
	fetch(RIP, 0x100000);
	fetch(OTHER, 0x101000);
	assert_true(leads_to(RIP, NULL) && leads_to(OTHER, NULL) && leads_to(RIP - 16, &code[3]));
	remember_all(0x100000);
	soft_jump_flush(vcpu, VIEW_USER);
	assert_nobody();
}

/* ---- doors ---- */

#define DOORS	       8u
#define LIST_NEIGHBOUR (RIP + DOOR_LISTS * (uint64_t)PAGE_BYTES) /* is in the same list */

static const uint8_t way_out[DOORS];

static int set_up_doors(void **state)
{
	static struct engine engine;
	static uint64_t ways_out[DOORS];

	if (set_up(state))
		return -1;
	engine = (struct engine){ .door_way_out = ways_out, .door_count = 1 };
	vcpu->engine = &engine;
	engine.vcpu[5] = vcpu;
	for (uint32_t door = 1; door < DOORS / 2; door++)
		soft_door_make(&engine, &way_out[door]);
	if (vcpu->door[1]) /* who has never run has none */
		return -1;
	soft_door_create(vcpu);
	for (uint32_t door = DOORS / 2; door < DOORS; door++)
		soft_door_make(&engine, &way_out[door]);
	return 0;
}

static bool is_open(uint32_t door, const uint8_t *to)
{
	assert_int_equal(soft_door_offset(door), (uintptr_t)&vcpu->door[door] - (uintptr_t)vcpu);
	return vcpu->door[door] == (uintptr_t)to;
}

static bool is_shut(uint32_t door)
{
	return is_open(door, &way_out[door]);
}

/* Two to one place, one to another of that page, one to another page of the same list. */
static void open_all(uint64_t host)
{
	fetch(RIP, host);
	fetch(LIST_NEIGHBOUR, host + PAGE_BYTES);
	soft_door_open(vcpu, 1, RIP, &code[0]);
	soft_door_open(vcpu, 2, LIST_NEIGHBOUR, &code[1]);
	soft_door_open(vcpu, 3, RIP + 8, &code[2]);
	soft_door_open(vcpu, 4, RIP, &code[0]);
	assert_true(is_open(1, &code[0]) && is_open(2, &code[1]) && is_open(3, &code[2]) &&
		    is_open(4, &code[0]) && is_shut(5));
}

static bool all_shut(void)
{
	for (uint32_t door = 1; door < DOORS; door++)
		if (!is_shut(door))
			return false;
	return true;
}

static void test_doors_sleep(void **state)
{
	(void)state;
	assert_true(all_shut());
	for (int again = 0; again < 2; again++) { /* and when they are opened once more */
		open_all(0x100000);
		soft_tlb_flush(vcpu, true);
		assert_true(all_shut());
		soft_tlb_flush(vcpu, true);
		fetch(RIP, 0x100000);
		assert_true(is_open(1, &code[0]) && is_shut(2) && is_open(3, &code[2]) &&
			    is_open(4, &code[0]));
		fetch(LIST_NEIGHBOUR, 0x101000);
		assert_true(is_open(1, &code[0]) && is_open(2, &code[1]));
		/* one page alone */
		soft_tlb_flush_page(vcpu, RIP);
		assert_true(is_shut(1) && is_open(2, &code[1]) && is_shut(3) && is_shut(4));
		fetch(RIP, 0x100000);
		assert_true(is_open(1, &code[0]) && is_open(3, &code[2]));
		/* opened by C while it sleeps: once in a list is enough */
		soft_tlb_flush(vcpu, true);
		soft_door_open(vcpu, 1, RIP, &code[3]);
		assert_true(is_open(1, &code[3]) && is_shut(4));
		fetch(RIP, 0x100000);
		assert_true(is_open(1, &code[3]) && is_open(4, &code[0]));
		soft_tlb_flush(vcpu, true);
		assert_true(all_shut());
		/* who falls asleep later joins who sleeps already */
		soft_door_open(vcpu, 2, LIST_NEIGHBOUR, &code[1]);
		soft_tlb_flush(vcpu, true);
		fetch(RIP, 0x100000);
		assert_true(is_open(1, &code[3]) && is_shut(2) && is_open(3, &code[2]));
		soft_tlb_flush(vcpu, true);
	}
}

/* Another page has come to that address. */
static void test_doors_moved(void **state)
{
	(void)state;
	open_all(0x100000);
	soft_tlb_flush(vcpu, true);
	fetch(RIP, 0x300000);
	fetch(LIST_NEIGHBOUR, 0x101000);
	assert_true(is_shut(1) && is_open(2, &code[1]) && is_shut(3) && is_shut(4));
	soft_tlb_flush(vcpu, true);
	fetch(RIP, 0x100000);
	assert_true(all_shut());
	/* nor does what was awake outlive it */
	open_all(0x100000);
	fetch(RIP + (PAGES_ALL << PAGE_SHIFT), 0x500000);
	fetch(RIP, 0x300000);
	assert_true(is_shut(1) && is_open(2, &code[1]) && is_shut(3) && is_shut(4));
}

/* A block is no longer valid, or all are not. */
static void test_doors_shut(void **state)
{
	(void)state;
	open_all(0x100000);
	soft_door_shut(vcpu, RIP);
	assert_true(is_shut(1) && is_open(2, &code[1]) && is_open(3, &code[2]) && is_shut(4));
	soft_tlb_flush(vcpu, true);
	fetch(RIP, 0x100000);
	assert_true(is_shut(1) && is_open(3, &code[2]) && is_shut(4));
	open_all(0x100000);
	soft_jump_flush(vcpu, VIEW_KERNEL);
	assert_true(is_open(1, &code[0]));
	soft_jump_flush(vcpu, VIEW_USER);
	assert_true(all_shut());
	open_all(0x100000);
	soft_tlb_flush(vcpu, true);
	soft_jump_flush(vcpu, VIEW_USER);
	fetch(RIP, 0x100000);
	fetch(LIST_NEIGHBOUR, 0x101000);
	assert_true(all_shut());
}

static void test_doors_large(void **state)
{
	(void)state;
	fetch_level(RIP, 0x100000, 1);
	soft_door_open(vcpu, 1, RIP, &code[0]);
	soft_tlb_flush_page(vcpu, 0x600000); /* the next one */
	assert_true(is_open(1, &code[0]));
	soft_tlb_flush_page(vcpu, 0x400000);
	assert_true(is_shut(1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stack_pages, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stack_large, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_finds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gives_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gives_back_few, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_jumps_empty, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_jumps_sleep, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_jumps_moved, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_jumps_large, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_jumps_small, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_jumps_flushed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_doors_sleep, set_up_doors, tear_down),
		cmocka_unit_test_setup_teardown(test_doors_moved, set_up_doors, tear_down),
		cmocka_unit_test_setup_teardown(test_doors_shut, set_up_doors, tear_down),
		cmocka_unit_test_setup_teardown(test_doors_large, set_up_doors, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

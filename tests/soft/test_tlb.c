/* SPDX-License-Identifier: Apache-2.0 */
/* The TLB as data (engine/soft/tlb/): what it finds, forgets, and gives back to the host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "engine/soft/tlb/tlb.h"

#define PAGES_ALL (1ull << 20)

static struct engine_vcpu *vcpu;

static int set_up(void **state)
{
	(void)state;
	vcpu = mmap(NULL, sizeof(*vcpu), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vcpu == MAP_FAILED)
		return -1;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_finds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gives_back, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

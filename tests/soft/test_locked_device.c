/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locked instructions on devices, and across a page and a device, are executed on a copy. Some hosts
 * forbid locked accesses across two cache lines (split_lock_detect=fatal): the copy must not be one,
 * or the instruction traps, is broken off and starts anew, for ever. Few machines have such a CPU,
 * so this looks where the copy is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "engine/soft/vcpu.h"
#include "tests/engine/rig.h"

#define LINE_BYTES 64u
#define DEVICE	   0xfed00000u

__asm__(".pushsection .rodata\n"
	"guest_locked_device:\n"
	"	mov	$0xfed0003d, %ebx\n"
	"	mov	$5, %eax\n"
	"	lock incl (%rbx)\n"
	"	lock xadd %eax, (%rbx)\n"
	"	xchg	%ecx, (%rbx)\n"
	"	lock btsl $1, (%rbx)\n"
	"	lock addq $9, (%rbx)\n"
	"	mov	$0x3ffffd, %ebx\n" /* memory's last bytes, and what is behind it */
	"	lock addl $7, (%rbx)\n"
	"	hlt\n"
	"guest_locked_device_end:\n"
	".popsection\n");

static uint8_t device[2 * LINE_BYTES], behind[8];

static uint8_t *device_at(uint64_t gpa)
{
	return gpa >= DEVICE ? device + (gpa - DEVICE) : behind + (gpa - RIG_MEMORY_BYTES);
}

static uint64_t value_at(const uint8_t *at, size_t bytes)
{
	uint64_t value = 0;

	memcpy(&value, at, bytes);
	return value;
}

static void test_copy_in_one_line(void **state)
{
	extern const uint8_t guest_locked_device[], guest_locked_device_end[];
	const struct guest guest = { guest_locked_device, guest_locked_device_end };
	struct rig rig;
	const struct engine_exit *exit = &rig.exit[0];
	uint32_t writes = 0;

	(void)state;
	assert_int_equal(rig_open(&rig, NULL), 0);
	assert_int_equal(rig_start(&rig, 0, guest, RIG_LONG), 0);
	while (rig_run(&rig, 0) == 0 && exit->kind == EXIT_MMIO) {
		uint8_t *at = device_at(exit->mmio.gpa);

		if (!exit->mmio.write) {
			memcpy(exit->mmio.data, at, exit->mmio.size);
			continue;
		}
		memcpy(at, exit->mmio.data, exit->mmio.size);
		assert_true((rig.vcpu[0]->exec_address & (LINE_BYTES - 1)) + 8 <= LINE_BYTES);
		writes++;
	}
	assert_int_equal(exit->kind, EXIT_HLT);
	assert_true(writes >= 6);
	/* 1, 6, 0 (ecx), 2, and 9 more. */
	assert_int_equal(value_at(device + 0x3d, 8), 11);
	assert_int_equal(value_at(rig.memory + RIG_MEMORY_BYTES - 3, 3), 7);
	assert_int_equal(value_at(behind, 1), 0);
	rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_copy_in_one_line) };
	char why[256] = "";

	rig_ops = &engine_soft;
	if (rig_ops->probe(&rig_features, why, sizeof(why))) {
		printf("probe: %s\n", why);
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

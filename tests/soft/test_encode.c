/* SPDX-License-Identifier: Apache-2.0 */
/* Host forms of instructions (engine/soft/encode.c): what is put in front, in the middle, behind.
 */
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include "engine/soft/insn/decode.h"

static struct soft_offer *offer; /* everything, as Intel has it */

struct form {
	enum soft_code_size size;
	struct host_operand at;
	const char *guest, *host; /* bytes as hexadecimal text */
};

static const struct form forms[] = {
	/* mov rax, [rbx + rcx * 4 + 0x10] */
	{ CODE_64, { 14, -1, 0, 0 }, "488b448b10", "498b06" },
	{ CODE_64, { 15, -1, 0, 0 }, "488b448b10", "498b07" },
	{ CODE_64, { 6, -1, 0, 0 }, "488b448b10", "488b06" },
	/* mov [r13 + 0], r12b: the base's REX bit goes, the register's stays */
	{ CODE_64, { 6, -1, 0, 0 }, "45886500", "448826" },
	/* mov eax, [rip + 0x1000] */
	{ CODE_64, { 14, -1, 0, 0 }, "8b0500100000", "418b06" },
	/* lock add dword ptr fs:[0x10], 5: no segment any more */
	{ CODE_64, { 14, -1, 0, 0 }, "64f08304251000000005", "f041830605" },
	/* mov word ptr [rax], 0x1234 */
	{ CODE_64, { 14, -1, 0, 0 }, "66c7003412", "6641c7063412" },
	/* movabs al, [0x1122334455667788] */
	{ CODE_64, { 14, -1, 0, 0 }, "a08877665544332211", "418a06" },
	/* pshufd xmm1, [rax + 0x20], 0x1b: a mandatory prefix, and an immediate */
	{ CODE_64, { 14, -1, 0, 0 }, "660f7048201b", "66410f700e1b" },
	/* vaddps ymm1, ymm2, [rax]: the two-byte prefix becomes three */
	{ CODE_64, { 14, -1, 0, 0 }, "c5ec5808", "c4c16c580e" },
	/* vblendvps xmm1, xmm2, [r9 + r10], xmm4: a register in the immediate */
	{ CODE_64, { 14, -1, 0, 0 }, "c483694a0c1140", "c4c3694a0e40" },
	/* and 16 and 32-bit code: inc ax; inc eax; mov ax, [bx]; mov eax, [ebx] */
	{ CODE_16_REAL, { 14, -1, 0, 0 }, "40", "66ffc0" },
	{ CODE_32, { 14, -1, 0, 0 }, "40", "ffc0" },
	{ CODE_16_REAL, { 6, -1, 0, 0 }, "8b07", "668b06" },
	{ CODE_32, { 6, -1, 0, 0 }, "8b03", "8b06" },
	{ CODE_32, { 6, -1, 0, 0 }, "668b03", "668b06" },
	{ CODE_16_REAL, { 6, -1, 0, 0 }, "66678b03", "8b06" },
	/* with an index, with displacements, with bases that need more bytes */
	{ CODE_64, { 3, 15, 0x10, 0 }, "488b4310", "4a8b443b10" },
	{ CODE_64, { 5, 14, 0, 0 }, "488b4500", "4a8b443500" },
	{ CODE_64, { 4, 15, 0, 0 }, "48890424", "4a89043c" },
	{ CODE_64, { 12, 15, 0x12345, 0 }, "4d89842445230100", "4f89843c45230100" },
	{ CODE_64, { 14, -1, 0xff8, 0 }, "8b05f80f0000", "418b86f80f0000" },
	{ CODE_64, { 14, 1, 0x10, 3 }, "488b44cb10", "498b44ce10" },
	{ CODE_64, { 15, 13, 0, 2 }, "46892ca8", "47892caf" },
	{ CODE_64, { 13, 15, -128, 0 }, "f20f584580", "f2430f58443d80" },
	{ CODE_64, { 2, 14, 0x20, 0 }, "c5ec584220", "c4a16c58443220" },
};

static uint32_t from_text(const char *text, uint8_t *bytes)
{
	uint32_t count = 0;
	unsigned int byte;

	for (; sscanf(text, "%2x", &byte) == 1; text += 2)
		bytes[count++] = (uint8_t)byte;
	return count;
}

static void test_forms(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		uint8_t guest[32] = { 0 }, wanted[32] = { 0 }, host[HOST_INSN_MAX] = { 0 };
		uint32_t size = from_text(forms[i].guest, guest), length;
		struct soft_insn insn;

		assert_int_equal(soft_decode(offer, forms[i].size, guest, size, &insn), 0);
		assert_int_equal(insn.length, size);
		length = soft_encode(&insn, forms[i].at, host);
		assert_int_equal(length, from_text(forms[i].host, wanted));
		assert_memory_equal(host, wanted, length);
	}
}

static struct soft_insn decode(const char *text)
{
	uint8_t bytes[32] = { 0 };
	struct soft_insn insn;

	assert_int_equal(soft_decode(offer, CODE_64, bytes, from_text(text, bytes), &insn), 0);
	return insn;
}

static void test_what_is_plain(void **state)
{
	static const char *const plain[] = { "4801d8", "48833805", "f3480f2ac0", "f00fb10b",
					     "d9ee" };
	static const char *const other[] = { "f4",     "0fa2", "e800000000", "50",
					     "a4",     "8ed8", "0f22d8",     "0f05",
					     "0f01d0", "48cf", "0fae20",     "d7" };

	(void)state;
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		struct soft_insn insn = decode(plain[i]);

		assert_true(soft_insn_is_plain(&insn));
	}
	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
		struct soft_insn insn = decode(other[i]);

		assert_false(soft_insn_is_plain(&insn));
	}
}

static void test_flags(void **state)
{
	struct soft_insn adc = decode("4811d8"), inc = decode("48ffc0"), shift = decode("48d3e0");

	(void)state;
	assert_int_equal(adc.flags_read, FLAG_CF);
	assert_int_equal(adc.flags_write, FLAGS_ARITHMETIC);
	assert_int_equal(inc.flags_write, FLAGS_ARITHMETIC & ~FLAG_CF);
	/* By cl, which may be 0: then all flags stay. */
	assert_int_equal(shift.flags_write, 0);
	assert_int_equal(shift.flags_read, FLAGS_ARITHMETIC);
}

static int make_offer(void **state)
{
	(void)state;
	offer = soft_offer_create(NULL);
	return offer ? 0 : -1;
}

static int free_offer(void **state)
{
	(void)state;
	soft_offer_destroy(offer);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_forms),
					    cmocka_unit_test(test_what_is_plain),
					    cmocka_unit_test(test_flags) };

	return cmocka_run_group_tests(tests, make_offer, free_offer);
}

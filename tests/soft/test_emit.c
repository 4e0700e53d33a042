/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host code by name (engine/soft/insn/emit.h, emit_jump.h): what each function writes, decoded, is
 * what its name says, for every register that it takes.
 */
#include "tests/test.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/soft/insn/decode.h"
#include "engine/soft/insn/emit.h"
#include "engine/soft/insn/emit_jump.h"

#define OFFSET 0x123456u /* of the vCPU */

static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
				       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
static const char *const names32[16] = { "eax",	 "ecx",	 "edx",	 "ebx", "esp",	"ebp",
					 "esi",	 "edi",	 "r8d",	 "r9d", "r10d", "r11d",
					 "r12d", "r13d", "r14d", "r15d" };
static const char *const names16[16] = { "ax",	 "cx",	 "dx",	 "bx",	"sp",	"bp",
					 "si",	 "di",	 "r8w",	 "r9w", "r10w", "r11w",
					 "r12w", "r13w", "r14w", "r15w" };
static const char *const names8[4] = { "al", "cl", "dl", "bl" };
static const char *const conditions[16] = { "o", "no", "b", "nb", "z", "nz", "be", "nbe",
					    "s", "ns", "p", "np", "l", "nl", "le", "nle" };

/* Jumps lead as far below and above what is written. */
#define FAR	     0x1000
#define BUFFER_BYTES 64
static _Alignas(8) uint8_t around[2 * FAR + BUFFER_BYTES];
static uint8_t *const buffer = around + FAR;
static struct emit emit, *const e = &emit;
static ZydisDecoder decoder;
static ZydisFormatter formatter;

static void begin(void)
{
	emit = (struct emit){ .at = buffer, .end = buffer + BUFFER_BYTES };
}

static int begin_test(void **state)
{
	(void)state;
	begin();
	return 0;
}

/* The instruction at `at` as text; its length. */
static uint32_t text_of(const uint8_t *at, char *text, size_t size)
{
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZyanStatus status =
		ZydisDecoderDecodeFull(&decoder, at, (size_t)(emit.at - at), &insn, operands);

	assert_true(ZYAN_SUCCESS(status));
	status = ZydisFormatterFormatInstruction(&formatter, &insn, operands,
						 insn.operand_count_visible, text, size,
						 (uintptr_t)at, NULL);
	assert_true(ZYAN_SUCCESS(status));
	return insn.length;
}

/* Since the last time one instruction was written, and it is this. */
__attribute__((format(printf, 1, 2))) static void wrote(const char *format, ...)
{
	char wanted[128], text[128];
	uint32_t length;
	va_list args;

	va_start(args, format);
	vsnprintf(wanted, sizeof(wanted), format, args);
	va_end(args);
	length = text_of(buffer, text, sizeof(text));
	assert_string_equal(text, wanted);
	assert_int_equal(length, emit.at - buffer);
	assert_false(emit.full);
	begin();
}

static void test_vcpu(void **state)
{
	(void)state;
	for (int r = 0; r < 16; r++) {
		const char *n = names[r], *n32 = names32[r];

		emit_load(e, r, OFFSET);
		wrote("mov %s, gs:[0x123456]", n);
		emit_load32(e, r, OFFSET);
		wrote("mov %s, gs:[0x123456]", n32);
		emit_store(e, r, OFFSET);
		wrote("mov gs:[0x123456], %s", n);
		emit_store32(e, r, OFFSET);
		wrote("mov gs:[0x123456], %s", n32);
		emit_load16(e, r, OFFSET);
		wrote("movzx %s, word ptr gs:[0x123456]", n32);
		emit_add_gs(e, r, OFFSET);
		wrote("add %s, gs:[0x123456]", n);
		emit_sub_gs(e, r, OFFSET);
		wrote("sub %s, gs:[0x123456]", n);
		emit_cmp_gs(e, r, OFFSET);
		wrote("cmp %s, gs:[0x123456]", n);
		emit_or_gs(e, r, OFFSET);
		wrote("or %s, gs:[0x123456]", n);
		emit_and32_gs(e, r, OFFSET);
		wrote("and %s, gs:[0x123456]", n32);
		emit_or32_gs(e, r, OFFSET);
		wrote("or %s, gs:[0x123456]", n32);
		emit_or32_to_gs(e, r, OFFSET);
		wrote("or gs:[0x123456], %s", n32);
	}
}

static void test_vcpu_constants(void **state)
{
	(void)state;
	emit_store_imm(e, 0x11223344, OFFSET);
	wrote("mov qword ptr gs:[0x123456], 0x11223344");
	emit_store_imm(e, 0xfffffff0, OFFSET);
	wrote("mov qword ptr gs:[0x123456], 0xfffffffffffffff0");
	emit_store32_imm(e, 0x11223344, OFFSET);
	wrote("mov dword ptr gs:[0x123456], 0x11223344");
	emit_store8_imm(e, 0x42, OFFSET);
	wrote("mov byte ptr gs:[0x123456], 0x42");
	emit_or32_gs_imm(e, OFFSET, 0x40000);
	wrote("or dword ptr gs:[0x123456], 0x40000");
	emit_and32_gs_imm(e, OFFSET, 0x40000);
	wrote("and dword ptr gs:[0x123456], 0x40000");
	emit_sub32_gs_imm8(e, OFFSET, 1);
	wrote("sub dword ptr gs:[0x123456], 0x1");
	emit_cmp8_gs_imm(e, OFFSET, 0x42);
	wrote("cmp byte ptr gs:[0x123456], 0x42");
	emit_test8_gs_imm(e, OFFSET, 0x20);
	wrote("test byte ptr gs:[0x123456], 0x20");
	emit_jmp_gs(e, OFFSET);
	wrote("jmp gs:[0x123456]");
}

static void test_vcpu_tables(void **state)
{
	(void)state;
	for (int r = 0; r < 16; r++) {
		for (int other = 0; other < 16; other++) {
			const char *n = names[r], *o = names[other];

			if (other != RSP) {
				emit_load_table(e, r, other, OFFSET);
				wrote("mov %s, gs:[%s*8+0x123456]", n, o);
				emit_add_table(e, r, other, OFFSET);
				wrote("add %s, gs:[%s*8+0x123456]", n, o);
				emit_sub_table(e, r, other, OFFSET);
				wrote("sub %s, gs:[%s*8+0x123456]", n, o);
			}
			if (other != RSP && other != R12) {
				emit_cmp_gs_base(e, r, other, OFFSET);
				wrote("cmp %s, gs:[%s+0x123456]", n, o);
				emit_jmp_gs_base(e, other, OFFSET);
				wrote("jmp gs:[%s+0x123456]", o);
			}
		}
	}
}

static void test_two_registers(void **state)
{
	(void)state;
	for (int to = 0; to < 16; to++) {
		for (int from = 0; from < 16; from++) {
			const char *t = names[to], *f = names[from];

			emit_mov(e, to, from);
			wrote("mov %s, %s", t, f);
			emit_mov32(e, to, from);
			wrote("mov %s, %s", names32[to], names32[from]);
			emit_movsx32(e, to, from);
			wrote("movsxd %s, %s", t, names32[from]);
			emit_movsx16(e, to, from);
			wrote("movsx %s, %s", t, names16[from]);
			emit_add(e, to, from);
			wrote("add %s, %s", t, f);
			emit_sub(e, to, from);
			wrote("sub %s, %s", t, f);
			emit_cmp(e, to, from);
			wrote("cmp %s, %s", t, f);
			for (int c = 0; c < 16; c++) {
				emit_cmov(e, (enum host_condition)c, to, from);
				wrote("cmov%s %s, %s", conditions[c], t, f);
			}
		}
	}
}

static void test_one_register(void **state)
{
	(void)state;
	for (int r = 0; r < 16; r++) {
		const char *n = names[r], *n32 = names32[r];

		emit_mul(e, r);
		wrote("mul %s", n);
		emit_shrd_imm(e, r, RDX, 48);
		wrote("shrd %s, rdx, 0x30", n);
		emit_neg(e, r);
		wrote("neg %s", n);
		emit_cmp_imm(e, r, 0x1234);
		wrote("cmp %s, 0x1234", n);
		emit_cmp_imm(e, r, 0xffffff00);
		wrote("cmp %s, 0xffffffffffffff00", n);
		emit_and32_imm(e, r, 0x3fff0);
		wrote("and %s, 0x3fff0", n32);
		emit_or32_imm(e, r, 0xa0fb0000);
		wrote("or %s, 0xa0fb0000", n32);
		emit_or32_imm8(e, r, 2);
		wrote("or %s, 0x2", n32);
		emit_shl_imm(e, r, 3);
		wrote("shl %s, 0x3", n);
		emit_shl32_imm(e, r, 11);
		wrote("shl %s, 0xb", n32);
		emit_shr_imm(e, r, 3);
		wrote("shr %s, 0x3", n);
		emit_shr32_imm(e, r, 12);
		wrote("shr %s, 0xc", n32);
		emit_sar_imm(e, r, 6);
		wrote("sar %s, 0x6", n);
		emit_pop(e, r);
		wrote("pop %s", n);
		emit_lea_rip(e, r, buffer + FAR);
		wrote("lea %s, [0x%" PRIxPTR "]", n, (uintptr_t)buffer + FAR);
		emit_lea_rip(e, r, buffer - FAR);
		wrote("lea %s, [0x%" PRIxPTR "]", n, (uintptr_t)buffer - FAR);
	}
}

static void test_strings(void **state)
{
	static const char *const suffix[] = { "b", "w", "d", "q" };

	(void)state;
	for (uint32_t scale = 0; scale < 4; scale++) {
		emit_rep_movs(e, scale);
		wrote("rep movs%s", suffix[scale]);
		emit_rep_stos(e, scale);
		wrote("rep stos%s", suffix[scale]);
	}
}

static void test_none(void **state)
{
	(void)state;
	emit_cld(e);
	wrote("cld");
	emit_lahf(e);
	wrote("lahf");
	emit_sahf(e);
	wrote("sahf");
	emit_pushfq(e);
	wrote("pushfq");
	emit_rdtsc(e);
	wrote("rdtsc");
	emit_rdtscp(e);
	wrote("rdtscp");
	emit_add_al_imm(e, 127);
	wrote("add al, 0x7f");
	for (int r = RAX; r <= RBX; r++) {
		for (int c = 0; c < 16; c++) {
			emit_set8(e, (enum host_condition)c, r);
			wrote("set%s %s", conditions[c], names8[r]);
		}
	}
}

static void test_constants(void **state)
{
	(void)state;
	for (int r = 0; r < 16; r++) {
		emit_mov_imm(e, r, 0);
		wrote("mov %s, 0x0", names32[r]);
		emit_mov_imm(e, r, UINT32_MAX);
		wrote("mov %s, 0xffffffff", names32[r]);
		emit_mov_imm(e, r, (uint64_t)INT32_MIN);
		wrote("mov %s, 0xffffffff80000000", names[r]);
		emit_mov_imm(e, r, (uint64_t)UINT32_MAX + 1);
		wrote("mov %s, 0x100000000", names[r]);
		emit_mov_imm(e, r, 0x1122334455667788);
		wrote("mov %s, 0x1122334455667788", names[r]);
	}
}

static void test_lea(void **state)
{
	static const int32_t displacements[] = {
		1, -8, 127, -128, 128, -129, INT32_MAX, INT32_MIN
	};

	(void)state;
	for (int to = 0; to < 16; to++) {
		for (int base = 0; base < 16; base++) {
			emit_lea(e, to, base, 0);
			wrote("mov %s, %s", names[to], names[base]);
			for (size_t i = 0; i < sizeof(displacements) / sizeof(displacements[0]);
			     i++) {
				int64_t d = displacements[i];

				emit_lea(e, to, base, (int32_t)d);
				wrote("lea %s, [%s%c0x%" PRIx64 "]", names[to], names[base],
				      d < 0 ? '-' : '+', d < 0 ? -d : d);
			}
			if (base == RSP)
				continue;
			emit_lea32_twice(e, to, base);
			wrote("lea %s, [%s+%s*1]", names32[to], names[base], names[base]);
			emit_lea_index(e, to, R15, base, 3, -16);
			wrote("lea %s, [r15+%s*8-0x10]", names[to], names[base]);
			emit_lea_index(e, R14, to, base, 0, 0x10);
			wrote("lea r14, [%s+%s*1+0x10]", names[to], names[base]);
		}
	}
}

/* MOV with the operands that the translator makes (encode.c). */
static void test_mov_memory(void **state)
{
	uint8_t bytes[HOST_INSN_MAX];

	(void)state;
	for (int r = 0; r < 16; r++) {
		struct host_operand plain = { R14, -1, 0, 0 }, indexed = { RSP, R15, -8, 0 };

		emit_bytes(e, bytes, soft_encode_load(r, plain, bytes));
		wrote("mov %s, [r14]", names[r]);
		emit_bytes(e, bytes, soft_encode_store(r, plain, bytes));
		wrote("mov [r14], %s", names[r]);
		emit_bytes(e, bytes, soft_encode_load(r, indexed, bytes));
		wrote("mov %s, [rsp+r15*1-0x8]", names[r]);
		emit_bytes(e, bytes, soft_encode_store(r, indexed, bytes));
		wrote("mov [rsp+r15*1-0x8], %s", names[r]);
	}
	for (int r = 14; r < 16; r++) {
		struct host_operand plain = { r, -1, 0, 0 }, indexed = { RSP, r, -8, 0 };

		emit_bytes(e, bytes, soft_encode_store_imm(0x12345678, plain, bytes));
		wrote("mov qword ptr [%s], 0x12345678", names[r]);
		emit_bytes(e, bytes, soft_encode_store_imm(-2, indexed, bytes));
		wrote("mov qword ptr [rsp+%s*1-0x8], 0xfffffffffffffffe", names[r]);
	}
}

/* The address of a guest instruction's operand, without its segment. */
static void test_lea_of_operand(void **state)
{
	static const struct {
		uint8_t guest[12];
		uint32_t size;
		const char *lea;
	} cases[] = {
		/* mov rax, fs:[rbx + rcx * 4 + 0x10] */
		{ { 0x64, 0x48, 0x8b, 0x44, 0x8b, 0x10 }, 6, "lea r14, [rbx+rcx*4+0x10]" },
		/* mov [r12], bl */
		{ { 0x41, 0x88, 0x1c, 0x24 }, 4, "lea r14, [r12]" },
		/* mov eax, [r9d + r10d] */
		{ { 0x67, 0x43, 0x8b, 0x04, 0x11 }, 5, "lea r14d, [r9+r10*1]" },
		/* vaddps ymm1, ymm2, [r9 + r10 - 0x80] */
		{ { 0xc4, 0x81, 0x6c, 0x58, 0x4c, 0x11, 0x80 }, 7, "lea r14, [r9+r10*1-0x80]" },
		/* vaddps ymm1, ymm2, [rax] */
		{ { 0xc5, 0xec, 0x58, 0x08 }, 4, "lea r14, [rax]" },
	};
	struct soft_offer *offer = soft_offer_create(NULL);

	(void)state;
	assert_non_null(offer);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t bytes[HOST_INSN_MAX];
		struct soft_insn insn;

		assert_int_equal(soft_decode(offer, CODE_64, cases[i].guest, cases[i].size, &insn),
				 0);
		emit_bytes(e, bytes, soft_encode_lea(&insn, R14, bytes));
		wrote("%s", cases[i].lea);
	}
	soft_offer_destroy(offer);
}

static void test_jumps(void **state)
{
	uint8_t *site;

	(void)state;
	emit_jmp(e, buffer - FAR);
	wrote("jmp 0x%" PRIxPTR, (uintptr_t)buffer - FAR);
	emit_jmp_open(e); /* to behind it, until it is patched */
	wrote("jmp 0x%" PRIxPTR, (uintptr_t)buffer + 5);
	site = emit_jmp_open(e);
	emit_patch32(site, 0, buffer + FAR);
	wrote("jmp 0x%" PRIxPTR, (uintptr_t)buffer + FAR);
	for (int c = 0; c < 16; c++) {
		site = emit_jcc(e, (enum host_condition)c, buffer - FAR);
		assert_ptr_equal(site, emit.at - 4);
		wrote("j%s 0x%" PRIxPTR, conditions[c], (uintptr_t)buffer - FAR);
		emit_jcc_open(e, (enum host_condition)c);
		wrote("j%s 0x%" PRIxPTR, conditions[c], (uintptr_t)buffer + 6);
		site = emit_jcc_open(e, (enum host_condition)c);
		emit_patch32(site, 0, buffer + FAR);
		wrote("j%s 0x%" PRIxPTR, conditions[c], (uintptr_t)buffer + FAR);
	}
}

/* What `behind` was returned for lands behind a few bytes. */
static void lands(uint8_t *behind, const char *mnemonic)
{
	char wanted[64], text[64];

	emit_nops(e, 17);
	emit_land(e, behind);
	snprintf(wanted, sizeof(wanted), "%s 0x%" PRIxPTR, mnemonic, (uintptr_t)emit.at);
	assert_int_equal(text_of(buffer, text, sizeof(text)), 2);
	assert_string_equal(text, wanted);
	begin();
}

static void test_short_jumps(void **state)
{
	static const char *const loops[4] = { "loopne", "loope", "loop", "jrcxz" };
	char mnemonic[8];

	(void)state;
	lands(emit_jmp_short(e), "jmp");
	for (int c = 0; c < 16; c++) {
		snprintf(mnemonic, sizeof(mnemonic), "j%s", conditions[c]);
		lands(emit_jcc_short(e, (enum host_condition)c), mnemonic);
	}
	for (int loop = 0; loop < 4; loop++)
		lands(emit_loop_short(e, (enum host_loop)loop), loops[loop]);
}

/* So many NOPs make so many bytes. */
static void are_nops(const uint8_t *at, uint32_t bytes, uint32_t count)
{
	char text[64];

	assert_int_equal(emit.at - at, bytes);
	for (; count; count--) {
		const uint8_t *opcode = at + (at[0] == 0x66);

		/* The hints of 0F 1E, which CET uses, are NOPs for Zydis as well. */
		assert_true(opcode[0] == 0x90 || (opcode[0] == 0x0f && opcode[1] == 0x1f));
		at += text_of(at, text, sizeof(text));
		assert_memory_equal(text, "nop", 3);
	}
	assert_ptr_equal(at, emit.at);
}

static void test_nops(void **state)
{
	(void)state;
	for (uint32_t bytes = 0; bytes <= 40; bytes++) {
		emit_nops(e, bytes);
		are_nops(buffer, bytes, (bytes + 8) / 9);
		begin();
	}
}

static void test_aligned_field(void **state)
{
	(void)state;
	for (uint32_t at = 0; at < 8; at++) {
		for (uint32_t ahead = 1; ahead <= 2; ahead++) {
			uint8_t *begin_at = buffer + at, *site;
			uint32_t bytes;
			char text[64];

			emit.at = begin_at;
			emit_align_field(e, ahead);
			bytes = (uint32_t)(emit.at - begin_at);
			assert_int_equal(bytes, (at + ahead) % 8 > 4 ? 8 - (at + ahead) % 8 : 0);
			site = ahead == 2 ? emit_jcc_open(e, CC_E) : emit_jmp_open(e);
			assert_in_range((uintptr_t)site % 8, 0, 4);
			/* One instruction, from the first byte on. */
			assert_int_equal(text_of(begin_at, text, sizeof(text)), emit.at - begin_at);
			begin();
		}
	}
}

static void test_full(void **state)
{
	(void)state;
	for (uint32_t room = 0; room < 10; room++) {
		uint8_t *behind = buffer + 2;

		memset(buffer, 0xcc, BUFFER_BYTES);
		emit.end = buffer + room;
		emit_load(e, R14, OFFSET); /* 9 bytes */
		emit_land(e, behind);
		assert_ptr_equal(emit.at, buffer + (room < 9 ? room : 9));
		assert_int_equal(emit.full, room < 9);
		for (uint32_t i = room; i < BUFFER_BYTES; i++)
			assert_true(buffer[i] == 0xcc || !emit.full);
		begin();
	}
}

static int set_up(void **state)
{
	(void)state;
	if (!ZYAN_SUCCESS(
		    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)) ||
	    !ZYAN_SUCCESS(ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)))
		return -1;
	/* Numbers as C writes them. */
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_IMM_SIGNEDNESS,
				  ZYDIS_SIGNEDNESS_UNSIGNED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE,
				  ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_DISP_PADDING,
				  ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_IMM_PADDING,
				  ZYDIS_PADDING_DISABLED);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_vcpu, begin_test),
		cmocka_unit_test_setup(test_vcpu_constants, begin_test),
		cmocka_unit_test_setup(test_vcpu_tables, begin_test),
		cmocka_unit_test_setup(test_two_registers, begin_test),
		cmocka_unit_test_setup(test_one_register, begin_test),
		cmocka_unit_test_setup(test_strings, begin_test),
		cmocka_unit_test_setup(test_none, begin_test),
		cmocka_unit_test_setup(test_constants, begin_test),
		cmocka_unit_test_setup(test_lea, begin_test),
		cmocka_unit_test_setup(test_mov_memory, begin_test),
		cmocka_unit_test_setup(test_lea_of_operand, begin_test),
		cmocka_unit_test_setup(test_jumps, begin_test),
		cmocka_unit_test_setup(test_short_jumps, begin_test),
		cmocka_unit_test_setup(test_nops, begin_test),
		cmocka_unit_test_setup(test_aligned_field, begin_test),
		cmocka_unit_test_setup(test_full, begin_test),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}

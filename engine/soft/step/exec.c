/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain instructions, executed by the host's CPU with all of the guest's registers.
 *
 *   operand in one page of memory    executed in place, so that LOCK means what it says
 *   operand across pages, a device   executed on a copy, which is then written back
 *   the same with LOCK               likewise, but nobody else sees either page meanwhile
 *
 * The copy keeps the operand's alignment, so that the CPU's alignment faults are the guest's; but
 * for LOCK, whose operand must not lie in two lines of the host's.
 * Everything that can fault is tried before; if a device still has to be asked after the execution,
 * the registers go back to what they were, and the instruction starts anew with the answer.
 *
 * Left out: LOCK on an operand of which a part is a device's.
 */
#include "engine/soft/step/step.h"

#include <string.h>

#include "engine/soft/cache/cache.h"
#include "engine/soft/cache/code_page.h"
#include "engine/soft/cache/pause.h"
#include "engine/soft/cpu/extended.h"
#include "engine/soft/cpu/mmu.h"
#include "engine/soft/insn/emit.h"
#include "engine/soft/insn/emit_jump.h"

#define OPERAND_MAX 1024u
#define XSAVE_MXCSR 24u
#define MXCSR_MM    BIT64(17)

/* A register for the operand's address: no REX prefix, no SIB byte, and not the instruction's. */
static int choose_base(const struct soft_insn *insn)
{
	static const uint8_t candidates[] = { RSI, RDI, RBX, RCX, RDX, RAX };

	for (size_t i = 0; i < sizeof(candidates); i++)
		if (!(insn->operand_registers >> candidates[i] & 1))
			return candidates[i];
	return -1;
}

int soft_fault_from_host(struct engine_vcpu *vcpu)
{
	uint8_t vector = (uint8_t)vcpu->argument;

	if (vector == FAULT_OF_ENGINE) {
		vcpu->pending.kind = EXIT_FAILED;
		vcpu->pending.fail.reason = "guest memory is not accessible on this host";
		vcpu->pending.fail.detail = vcpu->rip;
		return SOFT_EXIT;
	}
	if (vector == VECTOR_GP || vector == VECTOR_SS)
		return soft_raise_error(vcpu, vector, 0);
	if (vector == VECTOR_PF) /* the host's: soft_step_fault() makes the guest's of it */
		return soft_raise_page_fault(vcpu, vcpu->host_fault, 0);
	if (vector == VECTOR_XM && !(vcpu->state.cr4 & CR4_OSXMMEXCPT))
		vector = VECTOR_UD;
	return soft_raise(vcpu, vector);
}

/*
 * The vCPU's buffer has room for several instructions, and what is there already is not written
 * again: a host's CPU that finds code changed which it has just executed starts all over.
 */
static uint8_t *exec_place(const struct engine_vcpu *vcpu, const struct soft_insn *insn)
{
	uint64_t low = 0, high = 0;

	memcpy(&low, insn->bytes, 8);
	memcpy(&high, insn->bytes + 8, 8);
	low = (low ^ high * 0x9e3779b97f4a7c15ull) * 0x9e3779b97f4a7c15ull;
	return vcpu->exec + (low >> 32) % SOFT_EXEC_PLACES * SOFT_EXEC_BYTES;
}

/* Whole words of it. Not by the C library, which would use vector registers. */
static void put_code(struct engine_vcpu *vcpu, const uint8_t *place, const uint64_t *code)
{
	uint8_t *written = (uint8_t *)(uintptr_t)place + soft_cache_alias(vcpu->engine);
	bool changed = false;

	for (uint32_t i = 0; i < SOFT_EXEC_BYTES / 8; i++) {
		uint64_t there;

		memcpy(&there, place + 8 * i, 8);
		if (there == code[i])
			continue;
		memcpy(written + 8 * i, &code[i], 8);
		changed = true;
	}
	if (changed) /* nobody else executes it */
		vcpu->code_writes_seen = UINT64_MAX;
}

int soft_execute_at(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint8_t *host, int base)
{
	uint64_t words[SOFT_EXEC_BYTES / 8] = { 0 };
	uint8_t *code = (uint8_t *)words, *place = exec_place(vcpu, insn), bytes[HOST_INSN_MAX];
	struct emit e = { .at = code, .end = code + SOFT_EXEC_BYTES };

	if (base < 0)
		base = host ? choose_base(insn) : 0;
	emit_load(&e, R10, VCPU_GPR + 8 * R10);
	emit_load(&e, R11, VCPU_GPR + 8 * R11);
	if (host)
		emit_load(&e, base, VCPU_EXEC_ADDRESS);
	vcpu->exec_insn = place + (e.at - code);
	emit_bytes(&e, bytes, soft_encode(insn, (struct host_operand){ base, -1, 0, 0 }, bytes));
	emit_store(&e, R10, VCPU_GPR + 8 * R10);
	emit_store(&e, R11, VCPU_GPR + 8 * R11);
	if (host)
		emit_load(&e, base, VCPU_GPR + 8 * (uint32_t)base);
	emit_store_imm(&e, SOFT_REASON_EXEC, VCPU_REASON);
	/* As far from here as it will be from its place. */
	emit_jmp(&e, code + (soft_cache_exit(vcpu->engine) - place));
	put_code(vcpu, place, words);
	vcpu->exec_address = (uintptr_t)host;
	if (insn->z.meta.category == ZYDIS_CATEGORY_X87_ALU) {
		vcpu->x87.stepped_rip = vcpu->rip;
		vcpu->x87.stepped_host = (uint32_t)(uintptr_t)host;
	}
	switch (soft_enter(vcpu, place)) {
	case SOFT_REASON_EXEC:
		return SOFT_OK;
	case SOFT_REASON_FAULT:
		return soft_fault_from_host(vcpu);
	default:
		return SOFT_AGAIN;
	}
}

static int execute_here(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint8_t *host)
{
	return soft_execute_at(vcpu, insn, host, -1);
}

int soft_execute_copy(struct engine_vcpu *vcpu, const struct soft_insn *insn)
{
	return execute_here(vcpu, insn, vcpu->bounce);
}

/* Bytes from the operand's address to the word with the bit (SDM vol. 2, BT). */
static int64_t bit_distance(const struct engine_vcpu *vcpu, const struct soft_insn *insn)
{
	uint64_t bit = soft_get_register(vcpu, insn->op[1].reg.value);
	uint32_t bytes = insn->memory_bytes, shift = 64 - 8 * bytes;
	int64_t number = (int64_t)(bit << shift) >> shift;

	return (number >> (bytes == 8 ? 6 : bytes == 4 ? 5 : 4)) * (int64_t)bytes;
}

#define X87_BYTES 576u /* of an XSAVE image: x87, SSE, the header */

struct undo {
	uint64_t gpr[GPR_COUNT];
	uint64_t flags;
	bool x87; /* the image counts: a store of x87's may pop what it has stored */
	uint8_t image[X87_BYTES];
};

static void begin_undo(struct engine_vcpu *vcpu, const struct soft_insn *insn, struct undo *undo)
{
	soft_copy(undo->gpr, vcpu->gpr, sizeof(undo->gpr));
	undo->flags = vcpu->flags;
	undo->x87 = insn->memory_write && insn->z.meta.category == ZYDIS_CATEGORY_X87_ALU;
	if (!undo->x87)
		return;
	soft_fpu_release(vcpu);
	soft_copy(undo->image, vcpu->xsave, X87_BYTES);
}

static void undo_all(struct engine_vcpu *vcpu, const struct undo *undo)
{
	soft_copy(vcpu->gpr, undo->gpr, sizeof(undo->gpr));
	vcpu->flags = undo->flags;
	if (!undo->x87)
		return;
	soft_fpu_release(vcpu);
	soft_copy(vcpu->xsave, undo->image, X87_BYTES);
}

#define IMAGE_XMM8	 288u /* XMM8 to XMM15 in FXSAVE's image */
#define IMAGE_HIGH_BYTES 128u

static bool loads_image(const struct soft_insn *insn)
{
	return soft_insn_has_pointers(insn) && !insn->memory_write;
}

/* 32-bit code has no XMM8 to XMM15: they stay, in the image or in the registers. */
static void begin_image(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint8_t *copy,
			uint8_t *high)
{
	if (!soft_insn_saves_vectors(insn) || soft_code64(vcpu))
		return;
	if (loads_image(insn))
		soft_copy(copy + IMAGE_XMM8, vcpu->xsave + IMAGE_XMM8, IMAGE_HIGH_BYTES);
	else
		soft_copy(high, copy + IMAGE_XMM8, IMAGE_HIGH_BYTES);
}

static void finish_image(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint8_t *copy,
			 const uint8_t *high)
{
	bool wide_environment = insn->memory_bytes == 28 || insn->memory_bytes == 108;

	if (!soft_insn_has_pointers(insn))
		return;
	if (!soft_insn_saves_vectors(insn)) {
		if (loads_image(insn))
			soft_x87_load_environment(vcpu, copy, wide_environment);
		else
			soft_x87_show_environment(vcpu, copy, wide_environment);
		return;
	}
	if (loads_image(insn)) {
		soft_x87_load(vcpu, copy, insn->z.raw.rex.W);
		return;
	}
	soft_x87_show(vcpu, copy, insn->z.raw.rex.W);
	if (!soft_code64(vcpu))
		soft_copy(copy + IMAGE_XMM8, high, IMAGE_HIGH_BYTES);
}

/*
 * On a copy: across pages, or a device's. A host that forbids locked accesses across two lines is
 * not to see one here, which would be done anew for ever; what alignment the guest's must have has
 * been looked at before.
 */
static int execute_on_copy(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint64_t linear,
			   int64_t distance)
{
	uint8_t *copy = vcpu->bounce + (soft_insn_is_locked(insn) ? 0 : linear & (LINE_BYTES - 1));
	uint32_t bytes = insn->memory_bytes;
	uint8_t high[IMAGE_HIGH_BYTES];
	struct undo undo;
	int err = SOFT_OK;

	if (insn->memory_write)
		err = soft_probe_write(vcpu, vcpu->view, linear, bytes);
	if (!err && (insn->memory_read || !vcpu->bounce_device))
		err = soft_read(vcpu, vcpu->view, linear, copy, bytes);
	if (err)
		return err;
	begin_undo(vcpu, insn, &undo);
	vcpu->committing = true;
	begin_image(vcpu, insn, copy, high);
	err = execute_here(vcpu, insn, copy - distance);
	if (!err)
		finish_image(vcpu, insn, copy, high);
	if (!err && insn->memory_write)
		err = soft_write(vcpu, vcpu->view, linear, copy, bytes);
	if (err)
		undo_all(vcpu, &undo);
	vcpu->committing = false;
	return err;
}

/* An operand of a locked instruction: its part in each page. */
struct locked_operand {
	struct {
		uint8_t *host;
		uint64_t gpa;
		uint32_t bytes;
	} part[ENGINE_PAGES_MAX];
	uint32_t count;
	bool device;
};

static int find_locked_operand(struct engine_vcpu *vcpu, uint64_t linear, uint32_t bytes,
			       struct locked_operand *operand)
{
	*operand = (struct locked_operand){ 0 };
	for (uint32_t i = 0; bytes; i++) {
		uint32_t room = PAGE_BYTES - (uint32_t)(linear & (PAGE_BYTES - 1));
		uint32_t part = bytes < room ? bytes : room;
		struct soft_page page;
		int err = soft_translate(vcpu, vcpu->view, linear, ACCESS_WRITE, &page);

		if (err)
			return err;
		operand->device |= !page.host;
		operand->part[i].host = page.host;
		operand->part[i].gpa = soft_memory_gpa(vcpu->engine, page.host);
		operand->part[i].bytes = part;
		operand->count = i + 1;
		linear += part;
		bytes -= part;
	}
	return SOFT_OK;
}

/* The pages of it that are different ones: a guest may have mapped one page twice. */
static int keep_pages(const struct engine *engine, const struct locked_operand *operand)
{
	uint64_t gpa[ENGINE_PAGES_MAX];
	uint32_t count = 0;

	if (!engine->pages.keep)
		return 0;
	for (uint32_t i = 0; i < operand->count; i++)
		if (!count || (operand->part[i].gpa ^ gpa[0]) >= PAGE_BYTES)
			gpa[count++] = operand->part[i].gpa;
	return engine->pages.keep(engine->pages.arg, gpa, count);
}

/*
 * With all other vCPUs of this node paused. SOFT_AGAIN: the pages were not both here. The copy is
 * aligned: the host's CPU has nothing to lock but that.
 */
static int execute_alone(struct engine_vcpu *vcpu, const struct soft_insn *insn,
			 const struct locked_operand *operand, int64_t distance)
{
	struct engine *engine = vcpu->engine;
	uint32_t offset = 0;
	int err;

	soft_fpu_release(vcpu); /* what is called may be anybody's code */
	if (keep_pages(engine, operand))
		return SOFT_AGAIN;
	vcpu->committing = true;
	for (uint32_t i = 0; i < operand->count; offset += operand->part[i++].bytes)
		soft_copy(vcpu->bounce + offset, operand->part[i].host, operand->part[i].bytes);
	err = execute_here(vcpu, insn, vcpu->bounce - distance);
	offset = 0;
	for (uint32_t i = 0; !err && i < operand->count; offset += operand->part[i++].bytes) {
		soft_copy(operand->part[i].host, vcpu->bounce + offset, operand->part[i].bytes);
		soft_code_note_write(vcpu, operand->part[i].gpa, operand->part[i].bytes);
	}
	vcpu->committing = false;
	soft_fpu_release(vcpu);
	if (engine->pages.keep)
		engine->pages.release(engine->pages.arg);
	return err;
}

/*
 * A locked instruction on two pages is one step to everybody else:
 *
 *   both pages are touched, as a write does   may wait for them, and be broken off, like any access
 *   the other vCPUs of this node are paused   as by a CPU's bus lock; may be paused itself first
 *   both pages are kept here                  or, if one is gone again, all starts anew
 *   copy, execute, write back                 no other node has them; nothing waits
 *
 * That it comes to the end in a fight for the pages is for the holds of the page protocol to see
 * to, as for any instruction that needs two pages. While the pages are kept nothing is waited for
 * and no page table is read. The translations from before the pause are still good: who changes
 * them has to tell this vCPU by an interrupt, which comes between instructions only.
 */
static int execute_split_lock(struct engine_vcpu *vcpu, const struct soft_insn *insn,
			      uint64_t linear, int64_t distance)
{
	uint64_t generation = soft_cache_generation(vcpu->engine);
	struct locked_operand operand;
	int err = find_locked_operand(vcpu, linear, insn->memory_bytes, &operand);

	if (err)
		return err;
	if (operand.device)
		return execute_on_copy(vcpu, insn, linear, distance);
	for (uint32_t i = 0; i < operand.count; i++)
		soft_touch(operand.part[i].host);
	soft_pause_others(vcpu, UINT64_MAX);
	/* It was paused, and somebody emptied the cache: insn may have been there. */
	if (soft_cache_generation(vcpu->engine) != generation)
		err = SOFT_AGAIN;
	else
		err = execute_alone(vcpu, insn, &operand, distance);
	soft_resume_others(vcpu);
	return err;
}

/* In one page, but the host would not have it. */
static bool is_split_here(const struct engine_vcpu *vcpu, const struct soft_insn *insn,
			  uint64_t linear)
{
	return atomic_load_explicit(&vcpu->engine->split_locks_trap, memory_order_relaxed) &&
	       (linear & (LINE_BYTES - 1)) + insn->memory_bytes > LINE_BYTES &&
	       soft_insn_is_locked(insn);
}

/* On its operand in memory at `linear`, and `distance` bytes before what it is told. */
static int execute_on_memory(struct engine_vcpu *vcpu, const struct soft_insn *insn,
			     uint64_t linear, int64_t distance)
{
	struct soft_page page;
	int err = soft_translate(vcpu, vcpu->view, linear,
				 insn->memory_write ? ACCESS_WRITE : ACCESS_READ, &page);

	if (err)
		return err;
	vcpu->bounce_device = !page.host;
	vcpu->x87.stepped_data = linear;
	if (!page.host || soft_insn_has_pointers(insn) ||
	    (linear & (PAGE_BYTES - 1)) + insn->memory_bytes > PAGE_BYTES) {
		if (insn->memory_bytes > OPERAND_MAX)
			return soft_raise(vcpu, VECTOR_UD);
		if (page.host && soft_insn_is_locked(insn))
			return execute_split_lock(vcpu, insn, linear, distance);
		return execute_on_copy(vcpu, insn, linear, distance);
	}
	if (is_split_here(vcpu, insn, linear))
		return execute_split_lock(vcpu, insn, linear, distance);
	err = execute_here(vcpu, insn, page.host - distance);
	if (page.code && !err)
		soft_code_written(vcpu, page.gpa, insn->memory_bytes);
	return err;
}

/* AMD's MXCSR.MM: most operands of 16 bytes need not be aligned, and which the CPU knows. */
static bool misalignment_is_masked(const struct engine_vcpu *vcpu)
{
	uint32_t mxcsr;

	if (vcpu->fpu_live)
		__asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
	else
		soft_copy(&mxcsr, vcpu->xsave + XSAVE_MXCSR, sizeof(mxcsr));
	return mxcsr & MXCSR_MM;
}

static bool is_misaligned(const struct engine_vcpu *vcpu, const struct soft_insn *insn,
			  enum vcpu_segment segment, uint64_t offset)
{
	if (insn->alignment == 1)
		return false;
	if (!soft_code64(vcpu) || segment == SEG_FS || segment == SEG_GS)
		offset += vcpu->state.segment[segment].base;
	if (!(offset & (insn->alignment - 1)))
		return false;
	return !(soft_insn_is_vector(insn) && !soft_insn_saves_vectors(insn) &&
		 misalignment_is_masked(vcpu));
}

/* Of what Intel's CPUs access in 8 bytes and in vectors' ways. */
static bool is_never_checked(const struct engine_vcpu *vcpu, const struct soft_insn *insn)
{
	return (insn->z.mnemonic == ZYDIS_MNEMONIC_VCVTPH2PS ||
		insn->z.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH) &&
	       !vcpu->engine->offer->amd;
}

int soft_step_plain(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const struct soft_insn *insn = step->insn;
	uint64_t offset, linear;
	enum vcpu_segment segment;
	int64_t distance;
	int err;

	if (insn->memory < 0)
		return execute_here(vcpu, insn, NULL);
	distance = soft_insn_is_bit_string(insn) ? bit_distance(vcpu, insn) : 0;
	segment = soft_segment_of(insn->op[insn->memory].mem.segment);
	offset = (soft_effective_address(vcpu, step, &insn->op[insn->memory].mem) +
		  (uint64_t)distance) &
		 soft_mask(insn->z.address_width / 8u);
	/*
	 * The CPU looks at this before it looks for the page, or at the rest of the address; FXSAVE
	 * and FXRSTOR have it the other way round.
	 */
	if (!soft_insn_saves_vectors(insn) && is_misaligned(vcpu, insn, segment, offset))
		err = soft_raise_error(vcpu, VECTOR_GP, 0);
	else if (soft_insn_is_masked(insn) || is_never_checked(vcpu, insn))
		err = soft_linear_aligned(vcpu, segment, offset, insn->memory_bytes, 1,
					  insn->memory_write, &linear);
	else
		err = soft_linear(vcpu, segment, offset, insn->memory_bytes, insn->memory_write,
				  &linear);
	if (!err && soft_insn_saves_vectors(insn) && is_misaligned(vcpu, insn, segment, offset))
		err = soft_raise_error(vcpu, VECTOR_GP, 0);
	if (err == SOFT_FAULT && soft_fault_is_hosts(insn))
		return soft_step_absent(vcpu, insn);
	if (err)
		return err;
	err = execute_on_memory(vcpu, insn, linear, distance);
	if (err == SOFT_FAULT && vcpu->fault.vector == VECTOR_PF && soft_fault_is_hosts(insn))
		err = soft_step_fault(vcpu, insn, linear);
	return err;
}

int soft_step_pointers(struct engine_vcpu *vcpu, struct soft_step *step)
{
	ZydisMnemonic mnemonic = step->insn->z.mnemonic;
	bool resets = mnemonic == ZYDIS_MNEMONIC_FNINIT || mnemonic == ZYDIS_MNEMONIC_FNSAVE;
	int err;

	soft_fpu_release(vcpu);
	soft_x87_expect_load(vcpu, resets || loads_image(step->insn));
	err = soft_step_plain(vcpu, step);
	soft_x87_expect_load(vcpu, false);
	if (!err && resets)
		soft_x87_load(vcpu, NULL, false);
	return err;
}

/* ---- gathers: several operands, each on its own (SDM vol. 2, VPGATHERDD) -------------------- */

#define XSAVE_XMM 160u
#define XSAVE_YMM 576u

static uint8_t *vector_byte(struct engine_vcpu *vcpu, ZydisRegister reg, uint32_t offset)
{
	uint32_t number = (uint32_t)(reg >= ZYDIS_REGISTER_YMM0 ? reg - ZYDIS_REGISTER_YMM0
								: reg - ZYDIS_REGISTER_XMM0);

	return vcpu->xsave + (offset < 16 ? XSAVE_XMM + 16 * number + offset
					  : XSAVE_YMM + 16 * number + offset - 16);
}

static uint64_t vector_get(struct engine_vcpu *vcpu, ZydisRegister reg, uint32_t offset,
			   uint32_t bytes)
{
	uint64_t value = 0;

	soft_copy(&value, vector_byte(vcpu, reg, offset), bytes);
	return value;
}

static bool indexes_are_wide(ZydisMnemonic mnemonic)
{
	return mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ ||
	       mnemonic == ZYDIS_MNEMONIC_VGATHERQPS || mnemonic == ZYDIS_MNEMONIC_VGATHERQPD;
}

static void put_element(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint32_t offset,
			uint64_t value, uint32_t bytes)
{
	static const uint64_t zero[2];

	soft_copy(vector_byte(vcpu, insn->op[0].reg.value, offset), &value, bytes);
	if (!vcpu->engine->offer->amd && !insn->z.raw.vex.L)
		soft_copy(vector_byte(vcpu, insn->op[0].reg.value, 16), zero, sizeof(zero));
}

static int gather_one(struct engine_vcpu *vcpu, const struct soft_step *step, uint32_t i,
		      uint32_t bytes, uint32_t index_bytes)
{
	const ZydisDecodedOperand *op = step->insn->op;
	const ZydisDecodedOperandMem *mem = &op[1].mem;
	ZydisDecodedOperandMem plain = *mem;
	uint64_t index = vector_get(vcpu, mem->index, i * index_bytes, index_bytes), linear,
		 zero = 0;
	uint64_t value = 0;
	int err = SOFT_OK;

	if (index_bytes == 4)
		index = (uint64_t)(int64_t)(int32_t)index;
	plain.index = ZYDIS_REGISTER_NONE;
	if (vector_get(vcpu, op[2].reg.value, i * bytes, bytes) >> (8 * bytes - 1) & 1) {
		err = soft_linear_aligned(
			vcpu, soft_segment_of(mem->segment),
			(soft_effective_address(vcpu, step, &plain) + index * mem->scale) &
				soft_mask(step->insn->z.address_width / 8u),
			bytes, vcpu->engine->offer->amd ? bytes : 1, false, &linear);
		if (!err)
			err = soft_read(vcpu, vcpu->view, linear, &value, bytes);
		if (!err)
			put_element(vcpu, step->insn, i * bytes, value, bytes);
	}
	if (!err)
		soft_copy(vector_byte(vcpu, op[2].reg.value, i * bytes), &zero, bytes);
	return err;
}

/*
 * A fault finds both registers as they were on AMD's CPUs, but for elements that are done. On Intel's
 * all bits of a mask's element are its sign then, used or not, and zero lies above the vector; in the
 * destination as soon as it has an element.
 */
static void prepare_mask(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint32_t bytes)
{
	ZydisRegister mask = insn->op[2].reg.value;
	uint32_t length = insn->z.raw.vex.L ? 32 : 16;
	uint64_t value;

	for (uint32_t offset = 0; offset < 32; offset += bytes) {
		value = vector_get(vcpu, mask, offset, bytes) >> (8 * bytes - 1) & 1;
		value = offset < length && value ? UINT64_MAX : 0;
		soft_copy(vector_byte(vcpu, mask, offset), &value, bytes);
	}
}

int soft_step_gather(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const ZydisDecodedOperand *op = step->insn->op;
	uint32_t bytes, index_bytes, count;
	uint64_t zero = 0;

	index_bytes = indexes_are_wide(step->insn->z.mnemonic) ? 8 : 4;
	bytes = step->insn->z.raw.vex.W ? 8 : 4;
	/* As many as both registers hold. */
	count = (step->insn->z.raw.vex.L ? 32u : 16u) / (bytes > index_bytes ? bytes : index_bytes);
	soft_fpu_release(vcpu);
	vcpu->xsave[512] |= 6;
	if (!vcpu->engine->offer->amd)
		prepare_mask(vcpu, step->insn, bytes);
	for (uint32_t i = 0; i < count; i++) {
		int err = gather_one(vcpu, step, i, bytes, index_bytes);

		if (err)
			return err;
	}
	/* What lies above the elements is zero, in destination and mask. */
	for (uint32_t offset = count * bytes; offset < 32; offset += 4) {
		soft_copy(vector_byte(vcpu, op[0].reg.value, offset), &zero, 4);
		soft_copy(vector_byte(vcpu, op[2].reg.value, offset), &zero, 4);
	}
	return SOFT_OK;
}

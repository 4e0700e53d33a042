/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions, with and without REP: in chunks that lie in one page on both sides, done by
 * the host in one go where it means the same (MOVS and STOS upwards), else item by item.
 *
 * A chunk is complete in itself: rcx, rsi, rdi say how far it is, and rip stays at the instruction
 * until rcx is 0, so that interrupts and page faults may come between chunks (SDM vol. 2, REP).
 *
 * Port strings (INS, OUTS) exit with as many items as the page holds.
 */
#include "engine/soft/step/step.h"

#include <string.h>

#include "engine/soft/cache/code_page.h"
#include "engine/soft/cpu/mmu.h"

#define ITEMS_MAX  4096u
#define CHUNKS_MAX 64

struct string {
	uint32_t item;	  /* bytes */
	uint32_t address; /* bytes of rsi, rdi, rcx that count */
	bool repeat, until_equal, until_different;
	int64_t step; /* +item or -item */
	uint64_t count;
	enum vcpu_segment source_segment;
};

static struct string describe(const struct engine_vcpu *vcpu, const struct soft_step *step)
{
	const struct soft_insn *insn = step->insn;
	uint64_t attributes = insn->z.attributes;
	struct string s = { .source_segment = SEG_DS };

	s.item = insn->z.operand_width / 8u;
	for (int i = 0; i < insn->z.operand_count && i < INSN_OPERANDS; i++)
		if (insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			s.item = insn->op[i].size / 8u;
	s.address = insn->z.address_width / 8u;
	s.repeat = attributes &
		   (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
	s.until_different = attributes & ZYDIS_ATTRIB_HAS_REPE;
	s.until_equal = attributes & ZYDIS_ATTRIB_HAS_REPNE;
	s.step = vcpu->flags & FLAG_DF ? -(int64_t)s.item : (int64_t)s.item;
	s.count = s.repeat ? vcpu->gpr[GPR_RCX] & soft_mask(s.address) : 1;
	for (int i = 0; i < insn->z.operand_count && i < INSN_OPERANDS; i++)
		if (insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    (insn->op[i].mem.base == ZYDIS_REGISTER_RSI ||
		     insn->op[i].mem.base == ZYDIS_REGISTER_ESI ||
		     insn->op[i].mem.base == ZYDIS_REGISTER_SI))
			s.source_segment = soft_segment_of(insn->op[i].mem.segment);
	return s;
}

/*
 * In 64-bit code, REP with 32-bit addresses: Intel's CPUs clear the upper halves of rcx, and of the
 * pointers of MOVS and STOS, even when nothing is done; AMD's as soon as an item
 * is. Not of port strings: a port that is not allowed comes first.
 */
static struct string begin(struct engine_vcpu *vcpu, const struct soft_step *step)
{
	struct string s = describe(vcpu, step);
	const struct soft_insn *insn = step->insn;
	bool moves = insn->z.opcode == 0xa4 || insn->z.opcode == 0xa5;

	if (!s.repeat || s.address != 4 || !soft_code64(vcpu) || vcpu->engine->offer->amd)
		return s;
	vcpu->gpr[GPR_RCX] &= UINT32_MAX;
	if (moves || insn->z.opcode == 0xaa || insn->z.opcode == 0xab) /* STOS */
		vcpu->gpr[GPR_RDI] &= UINT32_MAX;
	if (moves)
		vcpu->gpr[GPR_RSI] &= UINT32_MAX;
	return s;
}

static int source_linear(struct engine_vcpu *vcpu, const struct string *s, uint64_t *ret_linear)
{
	return soft_linear(vcpu, s->source_segment, vcpu->gpr[GPR_RSI] & soft_mask(s->address),
			   s->item, false, ret_linear);
}

static int target_linear(struct engine_vcpu *vcpu, const struct string *s, bool write,
			 uint64_t *ret_linear)
{
	return soft_linear(vcpu, SEG_ES, vcpu->gpr[GPR_RDI] & soft_mask(s->address), s->item, write,
			   ret_linear);
}

static void advance(struct engine_vcpu *vcpu, const struct string *s, int gpr, uint64_t items)
{
	uint64_t value = vcpu->gpr[gpr] + (uint64_t)s->step * items, mask = soft_mask(s->address);

	if (s->address == 2)
		vcpu->gpr[gpr] = (vcpu->gpr[gpr] & ~mask) | (value & mask);
	else
		vcpu->gpr[gpr] = value & mask;
}

/* Counts the items done; true: the instruction is through. */
static bool finish(struct engine_vcpu *vcpu, struct soft_step *step, const struct string *s,
		   uint64_t items)
{
	uint64_t mask = soft_mask(s->address), left = s->count - items;

	if (!s->repeat || !s->count) /* no register changes, but for begin() */
		return true;
	if (s->address == 2)
		vcpu->gpr[GPR_RCX] = (vcpu->gpr[GPR_RCX] & ~mask) | left;
	else
		vcpu->gpr[GPR_RCX] = left;
	if (left == 0)
		return true;
	step->jumped = true; /* rip stays */
	return false;
}

/* Items that can be done at once from this address on: at least one. */
static uint64_t items_in_page(const struct string *s, uint64_t linear, uint64_t items)
{
	uint64_t offset = linear & (PAGE_BYTES - 1);
	uint64_t room = s->step > 0 ? (PAGE_BYTES - offset) / s->item : 1;

	if (room == 0)
		room = 1;
	return room < items ? room : items;
}

static bool in_one_page(uint64_t linear, uint64_t bytes)
{
	return (linear & (PAGE_BYTES - 1)) + bytes <= PAGE_BYTES;
}

/* Nothing to do, or a legacy mode's limit would have to be looked at item by item. */
static uint64_t chunk_of(const struct engine_vcpu *vcpu, const struct string *s)
{
	if (!soft_code64(vcpu) || soft_traced(vcpu))
		return s->count ? 1 : 0;
	return s->count < ITEMS_MAX ? s->count : ITEMS_MAX;
}

/*
 * Not behind a device: its answer may have been waited for by who wants to save the vCPU, for whom
 * the next question would be one more to wait for.
 */
static int in_chunks(struct engine_vcpu *vcpu, struct soft_step *step, soft_handler *chunk)
{
	int err = chunk(vcpu, step);

	for (int i = 0; i < CHUNKS_MAX && !err && step->jumped; i++) {
		if (vcpu->slow || vcpu->device_seen ||
		    atomic_load_explicit(&vcpu->stop, memory_order_relaxed))
			break;
		step->jumped = false;
		vcpu->device_count = vcpu->device_seen = 0;
		soft_step_commit(vcpu);
		err = chunk(vcpu, step);
	}
	return err;
}

static int move_one(struct engine_vcpu *vcpu, const struct string *s, uint64_t from, uint64_t to)
{
	uint64_t value = 0;
	int err = soft_read(vcpu, vcpu->view, from, &value, s->item);

	if (!err)
		err = soft_probe_write(vcpu, vcpu->view, to, s->item);
	if (err)
		return err;
	vcpu->committing = true; /* it may overwrite its own source */
	err = soft_write(vcpu, vcpu->view, to, &value, s->item);
	vcpu->committing = false;
	return err;
}

static void copy_items(const struct string *s, uint8_t *to, const uint8_t *from, uint64_t items)
{
	uint64_t bytes = items * s->item;

	/* Overlapping upwards: item by item has a meaning that a faster copy has not. */
	if ((uintptr_t)to - (uintptr_t)from >= bytes) {
		soft_copy(to, from, bytes);
		return;
	}
	for (uint64_t i = 0; i < items; i++)
		soft_copy(to + i * s->item, from + i * s->item, s->item);
}

/* May it start anew after it has been broken off? Not if it overwrites its own source. */
static bool overlap(const uint8_t *to, const uint8_t *from, uint64_t bytes)
{
	return (uintptr_t)to - (uintptr_t)from < bytes || (uintptr_t)from - (uintptr_t)to < bytes;
}

static int move_chunk(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct string s = begin(vcpu, step);
	uint64_t items = chunk_of(vcpu, &s), from, to;
	struct soft_page source, target;
	int err;

	if (!items) {
		finish(vcpu, step, &s, 0);
		return SOFT_OK;
	}
	err = source_linear(vcpu, &s, &from);
	if (!err)
		err = target_linear(vcpu, &s, true, &to);
	if (err)
		return err;
	items = items_in_page(&s, from, items_in_page(&s, to, items));
	if (!in_one_page(from, s.item) || !in_one_page(to, s.item)) {
		err = move_one(vcpu, &s, from, to);
	} else {
		err = soft_translate(vcpu, vcpu->view, from, ACCESS_READ, &source);
		if (!err)
			err = soft_translate(vcpu, vcpu->view, to, ACCESS_WRITE, &target);
		if (!err && (!source.host || !target.host)) {
			items = 1;
			err = move_one(vcpu, &s, from, to);
		} else if (!err) {
			if (overlap(target.host, source.host, items * s.item)) {
				(void)soft_load8(source.host); /* here it may wait for the pages */
				(void)soft_load8(target.host);
				vcpu->committing = true;
			}
			copy_items(&s, target.host, source.host, items);
			vcpu->committing = false;
			if (target.code)
				soft_code_written(vcpu, target.gpa, items * s.item);
		}
	}
	if (err)
		return err;
	advance(vcpu, &s, GPR_RSI, items);
	advance(vcpu, &s, GPR_RDI, items);
	finish(vcpu, step, &s, items);
	return SOFT_OK;
}

static void store_items(const struct string *s, uint8_t *to, uint64_t value, uint64_t items)
{
	uint64_t bytes = items * s->item;

	for (uint32_t i = s->item; i < 8; i *= 2)
		value = (value & soft_mask(i)) | value << (8 * i);
	soft_fill(to, value, bytes / 8);
	if (bytes % 8)
		soft_copy(to + (bytes & ~7ull), &value, bytes % 8);
}

static int store_chunk(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct string s = begin(vcpu, step);
	uint64_t items = chunk_of(vcpu, &s), to, value = vcpu->gpr[GPR_RAX];
	struct soft_page target;
	int err;

	if (!items) {
		finish(vcpu, step, &s, 0);
		return SOFT_OK;
	}
	err = target_linear(vcpu, &s, true, &to);
	if (!err)
		err = soft_translate(vcpu, vcpu->view, to, ACCESS_WRITE, &target);
	if (err)
		return err;
	items = items_in_page(&s, to, items);
	if (!target.host || !in_one_page(to, s.item)) {
		items = 1;
		err = soft_write(vcpu, vcpu->view, to, &value, s.item);
		if (err)
			return err;
	} else {
		store_items(&s, target.host, value, items);
		if (target.code)
			soft_code_written(vcpu, target.gpa, items * s.item);
	}
	advance(vcpu, &s, GPR_RDI, items);
	finish(vcpu, step, &s, items);
	return SOFT_OK;
}

/* One chunk after the other, while nothing else is due: each is complete in itself. */
static int step_movs(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return in_chunks(vcpu, step, move_chunk);
}

static int step_stos(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return in_chunks(vcpu, step, store_chunk);
}

static int step_lods(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct string s = begin(vcpu, step);
	uint64_t from, value = 0;
	int err;

	if (!s.count) {
		finish(vcpu, step, &s, 0);
		return SOFT_OK;
	}
	err = source_linear(vcpu, &s, &from);
	if (!err)
		err = soft_read(vcpu, vcpu->view, from, &value, s.item);
	if (err)
		return err;
	soft_set_gpr(vcpu, GPR_RAX, s.item, value);
	advance(vcpu, &s, GPR_RSI, 1);
	finish(vcpu, step, &s, 1);
	return SOFT_OK;
}

/* Flags of left - right, as CMP sets them. */
static void compare(struct engine_vcpu *vcpu, uint32_t bytes, uint64_t left, uint64_t right)
{
	uint32_t shift = 64 - 8 * bytes;
	uint64_t a = left << shift, b = right << shift, flags;

	__asm__("cmp %2, %1\n\tpushfq\n\tpop %0" : "=r"(flags) : "r"(a), "r"(b) : "cc", "memory");
	/* Shifted operands give all flags but parity and the carry out of bit 3. */
	flags &= ~(FLAG_PF | FLAG_AF);
	if (!(__builtin_popcount((uint32_t)(left - right) & 0xff) & 1))
		flags |= FLAG_PF;
	if ((left & 15) < (right & 15))
		flags |= FLAG_AF;
	vcpu->flags = (vcpu->flags & ~FLAGS_ARITHMETIC) | (flags & FLAGS_ARITHMETIC);
}

/*
 * CMPS and SCAS: item by item, a bounded number at a time. Who looks in between (a fault, a trap, an
 * interrupt) sees flags of the last item on AMD's CPUs, on Intel's those of before the instruction.
 */
static int compare_items(struct engine_vcpu *vcpu, struct soft_step *step, bool scan)
{
	struct string s = begin(vcpu, step);
	uint64_t done = 0, from, to, left, right, before = vcpu->flags;
	bool device = false; /* as in_chunks() */
	int err = SOFT_OK;

	while (done < s.count && done < (soft_traced(vcpu) ? 1 : 64) && !device) {
		left = right = 0;
		if (scan)
			left = vcpu->gpr[GPR_RAX] & soft_mask(s.item);
		else
			err = source_linear(vcpu, &s, &from);
		if (!err && !scan)
			err = soft_read(vcpu, vcpu->view, from, &left, s.item);
		if (!err)
			err = target_linear(vcpu, &s, false, &to);
		if (!err)
			err = soft_read(vcpu, vcpu->view, to, &right, s.item);
		if (err)
			break;
		compare(vcpu, s.item, left, right);
		if (!scan)
			advance(vcpu, &s, GPR_RSI, 1);
		advance(vcpu, &s, GPR_RDI, 1);
		done++;
		if (finish(vcpu, step, &s, done) || (s.until_different && left != right) ||
		    (s.until_equal && left == right)) {
			step->jumped = false;
			return SOFT_OK;
		}
		device = vcpu->device_seen;
		vcpu->device_count = vcpu->device_seen = 0;
	}
	if (done == 0 && !err)
		finish(vcpu, step, &s, 0);
	if (!vcpu->engine->offer->amd)
		vcpu->flags = before;
	return err;
}

static int step_cmps(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return compare_items(vcpu, step, false);
}

static int step_scas(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return compare_items(vcpu, step, true);
}

/* ---- port strings ---------------------------------------------------------------------------- */

/* With the caller's answer. */
static int finish_port_string(struct engine_vcpu *vcpu, struct soft_step *step, bool write,
			      uint32_t items)
{
	struct string s = describe(vcpu, step);
	uint64_t linear;
	int err = SOFT_OK;

	if (!write) {
		err = target_linear(vcpu, &s, true, &linear);
		if (!err)
			err = soft_write(vcpu, vcpu->view, linear, vcpu->io_data, items * s.item);
	}
	if (err)
		return err;
	advance(vcpu, &s, write ? GPR_RSI : GPR_RDI, items);
	finish(vcpu, step, &s, items);
	return SOFT_OK;
}

/* A device's items go one by one: each is an exit of its own. */
static int items_of_memory(struct engine_vcpu *vcpu, uint64_t linear, bool write, uint64_t *items)
{
	struct soft_page page;
	int err =
		soft_translate(vcpu, vcpu->view, linear, write ? ACCESS_READ : ACCESS_WRITE, &page);

	if (!err && !page.host)
		*items = 1;
	return err;
}

/* The answer is kept while the device that INS writes to is asked. */
static int answered_port_string(struct engine_vcpu *vcpu, struct soft_step *step, bool write)
{
	int err;

	if (vcpu->answered)
		vcpu->io_answered = vcpu->pending.io.count;
	err = finish_port_string(vcpu, step, write, vcpu->io_answered);
	if (err == SOFT_OK || err == SOFT_FAULT)
		vcpu->io_answered = 0;
	return err;
}

static int port_string(struct engine_vcpu *vcpu, struct soft_step *step, bool write)
{
	struct string s = describe(vcpu, step);
	uint64_t items = chunk_of(vcpu, &s), linear;
	int err;

	if (vcpu->answered || vcpu->io_answered)
		return answered_port_string(vcpu, step, write);
	err = soft_check_port(vcpu, (uint16_t)vcpu->gpr[GPR_RDX], s.item);
	if (!err && !items) {
		finish(vcpu, step, &s, 0);
		return SOFT_OK;
	}
	if (!err)
		err = write ? source_linear(vcpu, &s, &linear)
			    : target_linear(vcpu, &s, true, &linear);
	if (!err)
		err = items_of_memory(vcpu, linear, write, &items);
	if (err)
		return err;
	items = items_in_page(&s, linear, items);
	if (write)
		err = soft_read(vcpu, vcpu->view, linear, vcpu->io_data, (uint32_t)items * s.item);
	else
		err = soft_probe_write(vcpu, vcpu->view, linear, (uint32_t)items * s.item);
	if (err)
		return err;
	vcpu->open = OPEN_IO;
	vcpu->pending.kind = EXIT_IO;
	vcpu->pending.io.port = (uint16_t)vcpu->gpr[GPR_RDX];
	vcpu->pending.io.size = (uint8_t)s.item;
	vcpu->pending.io.write = write;
	vcpu->pending.io.count = (uint32_t)items;
	vcpu->pending.io.data = vcpu->io_data;
	return SOFT_EXIT;
}

static int step_ins(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return port_string(vcpu, step, false);
}

static int step_outs(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return port_string(vcpu, step, true);
}

soft_handler *soft_string_handler(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
		return step_movs;
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		return step_stos;
	case ZYDIS_MNEMONIC_LODSB:
	case ZYDIS_MNEMONIC_LODSW:
	case ZYDIS_MNEMONIC_LODSD:
	case ZYDIS_MNEMONIC_LODSQ:
		return step_lods;
	case ZYDIS_MNEMONIC_CMPSB:
	case ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_CMPSD:
	case ZYDIS_MNEMONIC_CMPSQ:
		return step_cmps;
	case ZYDIS_MNEMONIC_SCASB:
	case ZYDIS_MNEMONIC_SCASW:
	case ZYDIS_MNEMONIC_SCASD:
	case ZYDIS_MNEMONIC_SCASQ:
		return step_scas;
	case ZYDIS_MNEMONIC_INSB:
	case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_INSD:
		return step_ins;
	case ZYDIS_MNEMONIC_OUTSB:
	case ZYDIS_MNEMONIC_OUTSW:
	case ZYDIS_MNEMONIC_OUTSD:
		return step_outs;
	default:
		return NULL;
	}
}

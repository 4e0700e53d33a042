/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which fault comes first, and whether there is one at all: asked of the host's CPU.
 *
 * The walk of the guest's page tables has said that a vector instruction's operand is not there.
 * But an x87 exception that waits comes before the page fault, and elements that a mask disables do
 * not fault. So the instruction is executed on an operand whose
 * pages are as the guest's: copies of those that are there, and pages that nobody may access.
 *
 *   fault_pages:   present | absent | present | absent | absent
 *   operand from:    here: its second page is absent    here: both are
 *                            here: only its first is
 *
 * Masked stores need their mask too (maskmovq, maskmovdqu): executed twice on copies of different
 * contents, what became equal was written.
 */
#include "engine/soft/step/step.h"

#include <sys/mman.h>

#include "engine/soft/cpu/mmu.h"

static uint8_t *fault_pages(struct engine_vcpu *vcpu)
{
	static const uint8_t absent[] = { 1, 3, 4 };
	uint8_t *pages;

	if (vcpu->fault_pages)
		return vcpu->fault_pages;
	pages = mmap(NULL, (size_t)SOFT_FAULT_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED)
		return NULL;
	for (size_t i = 0; i < sizeof(absent); i++)
		mprotect(pages + (size_t)absent[i] * PAGE_BYTES, PAGE_BYTES, PROT_NONE);
	return vcpu->fault_pages = pages;
}

bool soft_in_fault_pages(const struct engine_vcpu *vcpu, const void *host)
{
	return vcpu->fault_pages && (uintptr_t)host - (uintptr_t)vcpu->fault_pages <
					    (uintptr_t)SOFT_FAULT_PAGES * PAGE_BYTES;
}

void soft_fault_pages_free(struct engine_vcpu *vcpu)
{
	if (vcpu->fault_pages)
		munmap(vcpu->fault_pages, (size_t)SOFT_FAULT_PAGES * PAGE_BYTES);
	vcpu->fault_pages = NULL;
}

bool soft_insn_is_masked(const struct soft_insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
		return true;
	default:
		return false;
	}
}

bool soft_fault_is_hosts(const struct soft_insn *insn)
{
	/* Not by instruction set: Zydis 4.0 has one form of FISTTP among SSE3's. */
	if (soft_insn_is_masked(insn) || insn->z.meta.category == ZYDIS_CATEGORY_X87_ALU)
		return true;
	for (int i = 0; i < insn->z.operand_count && i < INSN_OPERANDS; i++)
		if (insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    insn->op[i].reg.value >= ZYDIS_REGISTER_MM0 &&
		    insn->op[i].reg.value <= ZYDIS_REGISTER_MM7)
			return true;
	return false;
}

/* A page of the operand: is it there? SOFT_FAULT: no. Its part of the operand is copied. */
static int copy_part(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint64_t linear,
		     uint32_t bytes, uint8_t *to)
{
	enum soft_access access = insn->memory_write ? ACCESS_WRITE : ACCESS_READ;
	struct soft_page page;
	int err = soft_translate(vcpu, vcpu->view, linear, access, &page);

	if (err)
		return err;
	if (!page.host)
		return SOFT_FAULT; /* a device's: as if absent, and found out below */
	soft_copy(to, page.host, bytes);
	return SOFT_OK;
}

/* The fault of the page in which the host's CPU has found its own. */
static int raise_there(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint64_t linear)
{
	enum soft_access access = insn->memory_write ? ACCESS_WRITE : ACCESS_READ;
	struct soft_page page;
	int err = soft_translate(vcpu, vcpu->view, linear, access, &page);

	if (err)
		return err;
	if (page.host)
		return SOFT_AGAIN; /* another vCPU has made it present meanwhile */
	vcpu->pending.kind = EXIT_FAILED;
	vcpu->pending.fail.reason = "a masked access to a device, beside a page that is not there";
	vcpu->pending.fail.detail = linear;
	return SOFT_EXIT;
}

int soft_step_fault(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint64_t linear)
{
	uint32_t in_page = (uint32_t)(linear & (PAGE_BYTES - 1)), first, second;
	uint8_t *pages = fault_pages(vcpu), *host;
	int there[2] = { SOFT_FAULT, SOFT_FAULT }, err;

	if (!pages)
		return SOFT_FAULT;
	first = PAGE_BYTES - in_page < insn->memory_bytes ? PAGE_BYTES - in_page
							  : insn->memory_bytes;
	second = insn->memory_bytes - first;
	there[0] = copy_part(vcpu, insn, linear, first, pages + in_page);
	if (second)
		there[1] = copy_part(vcpu, insn, linear + first, second,
				     pages + (size_t)2 * PAGE_BYTES);
	if (there[0] == SOFT_AGAIN || there[1] == SOFT_AGAIN)
		return SOFT_AGAIN;
	host = pages + in_page +
	       (there[0] == SOFT_OK   ? 0u
		: there[1] == SOFT_OK ? PAGE_BYTES
				      : 3 * PAGE_BYTES);
	err = soft_execute_at(vcpu, insn, host, -1);
	if (err == SOFT_FAULT && vcpu->fault.vector == VECTOR_PF)
		return raise_there(vcpu, insn, linear + (vcpu->fault.cr2 - (uintptr_t)host));
	if (err || !insn->memory_write)
		return err;
	if (there[0] == SOFT_OK)
		return soft_write(vcpu, vcpu->view, linear, host, first);
	if (there[1] == SOFT_OK)
		return soft_write(vcpu, vcpu->view, linear + first, host + first, second);
	return SOFT_OK;
}

int soft_step_absent(struct engine_vcpu *vcpu, const struct soft_insn *insn)
{
	struct soft_fault fault = vcpu->fault;
	uint8_t *pages = fault_pages(vcpu);
	int err = SOFT_FAULT;

	if (pages)
		err = soft_execute_at(vcpu, insn, pages + (size_t)3 * PAGE_BYTES, -1);
	if (err == SOFT_FAULT && vcpu->fault.vector == VECTOR_PF)
		vcpu->fault = fault;
	return err;
}

/* [rdi] in the segment and address size of the instruction. */
static int masked_linear(struct engine_vcpu *vcpu, struct soft_step *step, uint32_t bytes,
			 uint64_t *ret_linear)
{
	const struct soft_insn *insn = step->insn;

	for (int i = 0; i < insn->z.operand_count && i < INSN_OPERANDS; i++)
		if (insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return soft_linear_aligned(
				vcpu, soft_segment_of(insn->op[i].mem.segment),
				soft_effective_address(vcpu, step, &insn->op[i].mem), bytes, 8,
				true, ret_linear);
	return soft_raise(vcpu, VECTOR_UD);
}

bool soft_insn_is_masked_store(const struct soft_insn *insn)
{
	return insn->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

int soft_step_masked(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = step->insn->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16;
	uint8_t *zeros = vcpu->bounce, *ones = vcpu->bounce + 64;
	uint64_t linear;
	int err;

	for (uint32_t i = 0; i < bytes; i++) {
		zeros[i] = 0;
		ones[i] = 0xff;
	}
	err = soft_execute_at(vcpu, step->insn, zeros, GPR_RDI);
	if (!err)
		err = masked_linear(vcpu, step, bytes, &linear);
	if (!err) /* all of it must be writable: that is how AMD's do it, and Intel's may */
		err = soft_probe_write(vcpu, vcpu->view, linear, bytes);
	if (!err)
		err = soft_execute_at(vcpu, step->insn, ones, GPR_RDI);
	for (uint32_t i = 0; i < bytes && !err; i++)
		if (zeros[i] == ones[i])
			err = soft_write(vcpu, vcpu->view, linear + i, &zeros[i], 1);
	return err;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The stepper: ports and HLT. The string forms INS and OUTS are in step/string.c. */
#include "engine/soft/step/system.h"

#include <string.h>

#define TSS_32_BIT 8u /* of the type: those of 16 bits have no bitmap */

int soft_check_port(struct engine_vcpu *vcpu, uint16_t port, uint32_t bytes)
{
	const struct vcpu_segment_state *tr = &vcpu->state.segment[SEG_TR];
	uint64_t offset = 0, bits = 0;
	int err;

	/* In virtual-8086 mode IOPL says nothing about ports. */
	if (!soft_virtual_8086(vcpu) && vcpu->cpl <= (vcpu->system_flags & FLAG_IOPL) >> 12)
		return SOFT_OK;
	if (tr->limit < 103 || !(tr->attributes & TSS_32_BIT))
		return soft_not_privileged(vcpu);
	err = soft_read(vcpu, VIEW_KERNEL, tr->base + 102, &offset, 2);
	if (err)
		return err;
	offset += port / 8u;
	if (offset + 1 > tr->limit)
		return soft_not_privileged(vcpu);
	err = soft_read(vcpu, VIEW_KERNEL, tr->base + offset, &bits, 2);
	if (err)
		return err;
	return bits >> (port % 8u) & ((1u << bytes) - 1) ? soft_not_privileged(vcpu) : SOFT_OK;
}

int soft_step_port(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const ZydisDecodedOperand *op = step->insn->op;
	bool write = step->insn->z.mnemonic == ZYDIS_MNEMONIC_OUT;
	const ZydisDecodedOperand *data = &op[write ? 1 : 0], *port = &op[write ? 0 : 1];
	uint32_t bytes = data->size / 8u;
	uint64_t value = 0;
	uint16_t number;
	int err;

	number = port->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (uint16_t)port->imm.value.u
							    : (uint16_t)vcpu->gpr[GPR_RDX];
	if (vcpu->answered) {
		memcpy(&value, vcpu->io_data, 4);
		if (!write)
			soft_set_gpr(vcpu, GPR_RAX, bytes, value);
		return SOFT_OK;
	}
	err = soft_check_port(vcpu, number, bytes);
	if (err)
		return err;
	memset(vcpu->io_data, 0, 8);
	if (write)
		memcpy(vcpu->io_data, &vcpu->gpr[GPR_RAX], 4);
	vcpu->open = OPEN_IO;
	vcpu->pending.kind = EXIT_IO;
	vcpu->pending.io.port = number;
	vcpu->pending.io.size = (uint8_t)bytes;
	vcpu->pending.io.write = write;
	vcpu->pending.io.count = 1;
	vcpu->pending.io.data = vcpu->io_data;
	return SOFT_EXIT;
}

int soft_step_hlt(struct engine_vcpu *vcpu, struct soft_step *step)
{
	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	/* A single step's trap comes behind it, and ends it at once (SDM vol. 2, HLT). */
	if (step->trap)
		return SOFT_OK;
	vcpu->rip = step->next;
	vcpu->pending.kind = EXIT_HLT;
	return SOFT_EXIT;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's extended state (x87, SSE, AVX) is in the host's registers from entering guest code
 * until C that might use them is called, or the vCPU stops running.
 *
 * x87 remembers where its last instruction and that one's operand were. In the host's registers
 * these are addresses of translated code and of memory of this process, which no guest may see: so
 * when the state is released they are made the guest's and kept apart, and the host's registers
 * begin with zeroes. What is found there at the next release is new. On a host of AMD's it may be
 * lost before that, as any program's is: XSAVE stores zeroes if no exception waits, so a signal and
 * a switch of threads forget it.
 */
#include "engine/soft/cpu/extended.h"

#include <string.h>

#include "engine/soft/cache/cache.h"
#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/host.h"
#include "engine/soft/insn/decode.h"

#define XSAVE_PARTS 7u

static void fpu_acquire(struct engine_vcpu *vcpu)
{
	if (vcpu->fpu_live)
		return;
	vcpu->fpu_live = true;
	__asm__ volatile("xrstor64 %0" : : "m"(vcpu->xsave), "a"(XSAVE_PARTS), "d"(0) : "memory");
}

struct x87_environment {
	uint32_t control, status, tag, rip, opcode_cs, data, data_selector;
};

#define IMAGE_STATUS  2u
#define IMAGE_OPCODE  6u
#define IMAGE_RIP     8u
#define IMAGE_DATA    16u
#define IMAGE_POINTED 24u
#define STATUS_WAITS  0x80u /* FSW.ES */
#define OPCODE_MASK   0x7ffu

static void keep_stepped(struct engine_vcpu *vcpu, uint32_t data)
{
	vcpu->x87.rip = vcpu->x87.stepped_rip;
	vcpu->x87.data = data;
	vcpu->x87.data_host = true;
	if (data == vcpu->x87.stepped_host) {
		vcpu->x87.data = vcpu->x87.stepped_data;
		vcpu->x87.data_host = false;
	}
}

/* What is found there if it is not ours is nobody's: CPUs of AMD let some kernels leave theirs. */
static void keep_pointers(struct engine_vcpu *vcpu, const struct x87_environment *e)
{
	uint64_t pc = soft_cache_widen(vcpu->engine, e->rip);
	const struct soft_block *block;
	const struct soft_record *record;

	if (!pc)
		return;
	vcpu->x87.opcode = e->opcode_cs >> 16 & OPCODE_MASK;
	vcpu->x87.cs = vcpu->state.segment[SEG_CS].selector;
	vcpu->x87.view = vcpu->view;
	if (soft_cache_place(vcpu->engine, pc) == PLACE_EXEC) {
		keep_stepped(vcpu, e->data);
		return;
	}
	vcpu->x87.data = e->data;
	vcpu->x87.data_host = true;
	record = soft_record_find(vcpu->engine, pc, &block);
	vcpu->x87.rip = record ? record->rip : 0;
	/* A user's operand is not to become where the kernel has that page. */
	if (record)
		vcpu->x87.view = block->mode & MODE_VIEW;
}

/*
 * The registers are saved, but still there. CPUs of AMD leave the pointers alone when a state is
 * loaded in which no exception waits: they are not to be found once more then, as if they were new.
 */
static void take_pointers(struct engine_vcpu *vcpu)
{
	struct x87_environment e;

	__asm__ volatile("fnstenv %0" : "=m"(e));
	if (e.rip || e.data || (e.opcode_cs >> 16 & OPCODE_MASK)) {
		if (!vcpu->x87.loading)
			keep_pointers(vcpu, &e);
		__asm__ volatile("fninit");
	}
	memset(vcpu->xsave + IMAGE_OPCODE, 0, IMAGE_POINTED - IMAGE_OPCODE);
}

/* The page is looked for among those that the vCPU has in use: its address, or 0. */
uint64_t soft_x87_data(struct engine_vcpu *vcpu)
{
	uint32_t page = (uint32_t)vcpu->x87.data & ~(uint32_t)(PAGE_BYTES - 1);
	const struct soft_tlb *tlb = &vcpu->tlb[vcpu->x87.view];

	if (!vcpu->x87.data_host)
		return vcpu->x87.data;
	vcpu->x87.data_host = false;
	for (uint32_t i = 0; page && i < TLB_ENTRIES; i++) {
		if ((uint32_t)tlb->host[i] != page)
			continue;
		vcpu->x87.data =
			(tlb->host[i] - tlb->addend[i]) | (vcpu->x87.data & (PAGE_BYTES - 1));
		return vcpu->x87.data;
	}
	return vcpu->x87.data = 0;
}

void soft_x87_show(struct engine_vcpu *vcpu, uint8_t *image, bool wide)
{
	uint64_t rip = vcpu->x87.rip, data;

	memset(image + IMAGE_OPCODE, 0, IMAGE_POINTED - IMAGE_OPCODE);
	if (vcpu->engine->offer->amd && !(image[IMAGE_STATUS] & STATUS_WAITS))
		return;
	data = soft_x87_data(vcpu); /* not before: it may look through the whole TLB */
	memcpy(image + IMAGE_OPCODE, &vcpu->x87.opcode, 2);
	memcpy(image + IMAGE_RIP, &rip, wide ? 8 : 4);
	memcpy(image + IMAGE_DATA, &data, wide ? 8 : 4);
	if (!wide)
		memcpy(image + IMAGE_RIP + 4, &vcpu->x87.cs, 2);
}

void soft_x87_forget(struct engine_vcpu *vcpu)
{
	vcpu->x87.rip = vcpu->x87.data = 0;
	vcpu->x87.opcode = vcpu->x87.cs = 0;
	vcpu->x87.data_host = false;
}

void soft_x87_expect_load(struct engine_vcpu *vcpu, bool expected)
{
	if (SOFT_C_USES_VECTORS)
		vcpu->x87.loading = expected;
}

struct x87_pointers {
	uint64_t rip, data;
	uint16_t opcode, cs;
};

static void load_pointers(struct engine_vcpu *vcpu, const struct x87_pointers *loaded)
{
	vcpu->x87.loading = true;
	soft_fpu_release(vcpu);
	vcpu->x87.loading = false;
	vcpu->x87.rip = loaded->rip;
	vcpu->x87.data = loaded->data;
	vcpu->x87.data_host = false;
	vcpu->x87.opcode = loaded->opcode & OPCODE_MASK;
	vcpu->x87.cs = loaded->cs;
}

void soft_x87_load(struct engine_vcpu *vcpu, const uint8_t *image, bool wide)
{
	struct x87_pointers loaded = { 0 };

	if (image) {
		soft_copy(&loaded.opcode, image + IMAGE_OPCODE, 2);
		soft_copy(&loaded.rip, image + IMAGE_RIP, wide ? 8 : 4);
		soft_copy(&loaded.data, image + IMAGE_DATA, wide ? 8 : 4);
		if (!wide)
			soft_copy(&loaded.cs, image + IMAGE_RIP + 4, 2);
	}
	load_pointers(vcpu, &loaded);
}

/*
 * FNSTENV's environment (SDM vol. 1, 8.1.10): seven words, or as many of twice that size if it is
 * wide. In real mode and virtual-8086 mode the fourth to the seventh are the halves of linear
 * addresses.
 */
void soft_x87_show_environment(struct engine_vcpu *vcpu, uint8_t *image, bool wide)
{
	uint32_t size = wide ? 4 : 2, rip = (uint32_t)vcpu->x87.rip, cs = vcpu->x87.cs;
	uint32_t data = (uint32_t)soft_x87_data(vcpu), above = 0;

	if (soft_8086(vcpu)) {
		rip += cs << 4;
		cs = rip >> 16 << 12 | vcpu->x87.opcode;
		above = data >> 16 << 12;
		soft_copy(image + 3 * (size_t)size, &rip, 2);
		soft_copy(image + 4 * (size_t)size, &cs, size);
		soft_copy(image + 5 * (size_t)size, &data, 2);
		soft_copy(image + 6 * (size_t)size, &above, size);
		return;
	}
	soft_copy(image + 3 * (size_t)size, &rip, size);
	soft_copy(image + 4 * (size_t)size, &cs, 2);
	if (wide)
		soft_copy(image + 18, &vcpu->x87.opcode, 2);
	soft_copy(image + 5 * (size_t)size, &data, size);
	soft_copy(image + 6 * (size_t)size, &above, 2);
}

void soft_x87_load_environment(struct engine_vcpu *vcpu, const uint8_t *image, bool wide)
{
	uint32_t size = wide ? 4 : 2, word[7] = { 0 };
	struct x87_pointers loaded = { 0 };

	for (uint32_t i = 0; i < 7; i++)
		soft_copy(&word[i], image + (size_t)i * size, size);
	if (soft_8086(vcpu)) {
		loaded.rip = (word[3] & 0xffff) | (word[4] >> 12 & 0xffff) << 16;
		loaded.opcode = (uint16_t)word[4];
		loaded.data = (word[5] & 0xffff) | (word[6] >> 12 & 0xffff) << 16;
	} else {
		loaded.rip = word[3];
		loaded.cs = (uint16_t)word[4];
		loaded.opcode = (uint16_t)(word[4] >> 16);
		loaded.data = word[5];
	}
	load_pointers(vcpu, &loaded);
}

void soft_fpu_release(struct engine_vcpu *vcpu)
{
	if (!vcpu->fpu_live)
		return;
	__asm__ volatile("xsave64 %0" : "+m"(vcpu->xsave) : "a"(XSAVE_PARTS), "d"(0) : "memory");
	take_pointers(vcpu);
	vcpu->fpu_live = false;
}

/* The upper halves are left as if never used: else every SSE instruction of the library pays. */
void soft_fpu_reset(void)
{
	static const uint32_t mxcsr = 0x1f80;

	if (soft_host_has_avx())
		__asm__ volatile("vzeroupper");
	__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
}

/*
 * By IRET to what follows (SDM volume 3, 9.3, instructions that serialize): CPUID may be an exit of a
 * virtual machine. Not where QEMU emulates the CPU: it finds changed code by the memory that it is in, and
 * some versions (7.2) take the stack of a user's IRET for the kernel's, which SMAP forbids.
 */
static void serialize(void)
{
	uint64_t value, stack;

	__asm__ volatile("mov %%rsp, %1\n\t"
			 "mov %%ss, %k0\n\t"
			 "push %0\n\t"
			 "push %1\n\t"
			 "pushfq\n\t"
			 "mov %%cs, %k0\n\t"
			 "push %0\n\t"
			 "lea 1f(%%rip), %0\n\t"
			 "push %0\n\t"
			 "iretq\n"
			 "1:"
			 : "=&r"(value), "=&r"(stack)
			 :
			 : "cc", "memory");
}

uint64_t soft_enter(struct engine_vcpu *vcpu, const void *code)
{
	uint64_t writes = atomic_load_explicit(&vcpu->engine->code_writes, memory_order_acquire);

	if (writes != vcpu->code_writes_seen) {
		vcpu->code_writes_seen = writes;
		if (!vcpu->engine->host_is_tcg)
			serialize();
	}
	fpu_acquire(vcpu);
	soft_cache_enter(vcpu->engine)(code);
	if (SOFT_C_USES_VECTORS)
		soft_fpu_release(vcpu);
	return vcpu->reason;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the soft engine's decoder front, translator and page walker: a guest that is hostile.
 *
 *   input: 16 bytes of choices | patches of 10 bytes for page tables and descriptors | code
 *
 * The guest is 512 KiB: page tables that map it to itself, descriptors, handlers that return, code
 * and data. Patches write eight bytes anywhere in the first 64 KiB (tables, descriptors), so that
 * walks meet every kind of entry. It runs in real, protected (without paging, with 32-bit tables or
 * PAE's), compatibility or long mode, at CPL 0 or 3, for a bounded number of exits; a thread kicks
 * it all the time. Judged: nothing crashes; memory outside the guest's, in the middle of a reserved
 * range, is not written; a kick ends every run (libFuzzer's -timeout); and whatever comes out is a
 * state that the engine takes back.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "engine/engine.h"

#define MEMORY_BYTES  (512u << 10)
#define RESERVE	      (1ull << 32)
#define TABLES	      0x1000u /* four levels, then the page table itself */
#define GDT	      0x6000u
#define IDT	      0x7000u
#define TSS	      0x8000u
#define HANDLER	      0x9000u
#define HANDLER_32    0x9010u
#define PAGES_32      0x5000u /* page directory; its table is at TABLE_32 */
#define TABLE_32      0xa000u
#define PAGES_PAE     0xb000u /* four entries; the directory is at DIRECTORY_PAE */
#define DIRECTORY_PAE 0xc000u
#define IDT_32	      0xd000u
#define TSS_32	      0xe000u
#define PATCHED	      0x10000u
#define CODE	      0x10000u
#define STACK	      0x40000u
#define CHOICES	      16u
#define PATCH	      10u
#define EXITS_MAX     12u
#define KICK_NS	      300000L

static struct engine *engine;
static struct engine_vcpu *vcpu;
static struct cpuid_set cpuid;
static uint8_t *memory;
static struct engine_exit exit_; /* alive between runs */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/* What a vCPU owns hangs on memory that the leak checker does not look into. */
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

static void *kick_forever(void *unused)
{
	struct timespec pause = { 0, KICK_NS };

	(void)unused;
	for (;;) {
		nanosleep(&pause, NULL);
		engine_soft.vcpu_kick(vcpu);
	}
	return NULL;
}

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "fuzz_soft: %s\n", what);
	abort();
}

static void begin(void)
{
	struct engine_features features;
	struct engine_config config = { .vcpu_max = 1, .cpuid = &cpuid };
	pthread_t kicker;
	char why[256] = "";
	uint8_t *range = mmap(NULL, 2 * RESERVE, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	must(range != MAP_FAILED, "mmap");
	memory = mmap(range + RESERVE, MEMORY_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	must(memory != MAP_FAILED, "mmap");
	must(engine_soft.probe(&features, why, sizeof(why)) == 0, why);
	must(cpuid_finish(&features.offer, 1, &cpuid) == 0, "cpuid");
	config.tsc_khz = features.tsc_khz;
	must(engine_soft.create(&config, &engine, why, sizeof(why)) == 0, why);
	must(engine_soft.add_memory(engine, 0, memory, MEMORY_BYTES) == 0, "memory");
	must(engine_soft.vcpu_create(engine, 0, &vcpu) == 0, "vCPU");
	must(engine_soft.vcpu_bind(vcpu) == 0, "bind");
	must(pthread_create(&kicker, NULL, kick_forever, NULL) == 0, "thread");
}

static void put64(uint32_t gpa, uint64_t value)
{
	memcpy(memory + gpa, &value, sizeof(value));
}

static void put32(uint32_t gpa, uint32_t value)
{
	memcpy(memory + gpa, &value, sizeof(value));
}

/* The same for protected mode. */
static void build_protected(void)
{
	put32(PAGES_32, TABLE_32 | 7);
	put32(PAGES_32 + 4, 0x87);
	for (uint32_t page = 0; page < MEMORY_BYTES >> 12; page++)
		put32(TABLE_32 + page * 4, page << 12 | 7);
	put64(PAGES_PAE, DIRECTORY_PAE | 1);
	put64(DIRECTORY_PAE, (TABLES + 0x3000) | 7);
	put64(DIRECTORY_PAE + 8, 0x87);
	put64(GDT + 56, 0x00cf9b000000ffff);
	for (uint32_t v = 0; v < 256; v++)
		put64(IDT_32 + v * 8, HANDLER_32 | 0x38ull << 16 | 0xee00ull << 32);
	put32(TSS_32 + 4, STACK);
	put32(TSS_32 + 8, 16);
	memory[HANDLER_32] = 0xcf;
}

static void build_guest(void)
{
	memset(memory, 0, MEMORY_BYTES);
	for (uint32_t level = 0; level < 3; level++)
		put64(TABLES + level * 0x1000, (TABLES + (level + 1) * 0x1000) | 7);
	for (uint32_t page = 0; page < MEMORY_BYTES >> 12; page++)
		put64(TABLES + 0x3000 + page * 8, page << 12 | 7);
	put64(TABLES + 0x3000 + 200 * 8, 0xfee00007); /* a device */
	put64(GDT + 8, 0x00af9b000000ffff);
	put64(GDT + 16, 0x00cf93000000ffff);
	put64(GDT + 24, 0x00cffb000000ffff);
	put64(GDT + 32, 0x00cff3000000ffff);
	put64(GDT + 40, 0x00affb000000ffff);
	put64(GDT + 48, 0x00008b0080000067ull);
	put64(TSS + 4, STACK);
	for (uint32_t v = 0; v < 256; v++)
		put64(IDT + v * 16, HANDLER | 8ull << 16 | 0xee00ull << 32);
	memcpy(memory + HANDLER, "\x48\xcf", 2); /* iretq, error code or not */
	build_protected();
}

static void set_segment(struct vcpu_segment_state *segment, uint16_t selector, uint16_t attributes)
{
	*segment = (struct vcpu_segment_state){ .limit = 0xffffffff,
						.selector = selector,
						.attributes = attributes };
}

/* choices: 0 mode, 1 flags of control registers, 2..3 rflags, 4..15 registers. */
static void long_mode(const uint8_t *choice, struct vcpu_state *state)
{
	static const uint16_t code[4] = { 0xa09b, 0xa0fb, 0xc0fb, 0xa0fb };
	static const uint16_t selector[4] = { 0x08, 0x2b, 0x1b, 0x2b };
	uint8_t level = choice[0] & 3 ? 3 : 0;

	set_segment(&state->segment[SEG_CS], selector[choice[0] & 3], code[choice[0] & 3]);
	for (int i = SEG_ES; i <= SEG_GS; i++)
		if (i != SEG_CS)
			set_segment(&state->segment[i], level ? 0x23 : 16, level ? 0xc0f3 : 0xc093);
	set_segment(&state->segment[SEG_TR], 0x30, 0x8b);
	state->segment[SEG_TR].base = TSS;
	state->segment[SEG_TR].limit = 0x67;
	state->gdt = (struct vcpu_table_state){ .base = GDT, .limit = 63 };
	state->idt = (struct vcpu_table_state){ .base = IDT, .limit = 0xfff };
	state->cr0 = 0x80050033;
	state->cr3 = TABLES;
	state->cr4 = 0x620 | (choice[1] & 1 ? 0x300000 : 0) | (choice[1] & 2 ? 0x10000 : 0);
	state->efer = 0xd01;
	if ((cpuid_xcr0(&cpuid) & 4) && (choice[1] & 4)) {
		state->cr4 |= 1 << 18;
		state->xcr0 = 7;
	}
}

/* choice 1: 0x10 paging, 0x20 PAE; 0x40 NX or large pages. */
static void protected_mode(const uint8_t *choice, struct vcpu_state *state)
{
	bool user = choice[0] & 3, paging = choice[1] & 0x10, pae = choice[1] & 0x20;

	set_segment(&state->segment[SEG_CS], user ? 0x1b : 0x38, user ? 0xc0fb : 0xc09b);
	for (int i = SEG_ES; i <= SEG_GS; i++)
		if (i != SEG_CS)
			set_segment(&state->segment[i], user ? 0x23 : 16, user ? 0xc0f3 : 0xc093);
	set_segment(&state->segment[SEG_TR], 0x30, 0x8b);
	state->segment[SEG_TR].base = TSS_32;
	state->segment[SEG_TR].limit = 0x67;
	state->gdt = (struct vcpu_table_state){ .base = GDT, .limit = 63 };
	state->idt = (struct vcpu_table_state){ .base = IDT_32, .limit = 0x7ff };
	state->cr0 = 0x00050033 | (paging ? 0x80000000 : 0);
	state->cr3 = pae ? PAGES_PAE : PAGES_32;
	state->cr4 = 0x600 | (pae ? 0x20 : 0) | (choice[1] & 0x40 ? 0x10 : 0);
	state->efer = choice[1] & 0x40 ? 0x800 : 0;
}

static void make_state(const uint8_t *choice, struct vcpu_state *state)
{
	vcpu_state_reset(state, 0);
	state->run_state = VCPU_RUNNABLE;
	state->rip = CODE;
	state->rflags = 2 | ((choice[2] | choice[3] << 8) & 0x4fd5);
	for (int i = 0; i < GPR_COUNT; i++)
		state->gpr[i] = STACK - 0x8000u + choice[4 + i % 12] * 0x101u;
	state->gpr[GPR_RSP] = STACK - 0x100u + (choice[4] & 15);
	if (choice[0] & 0x80) {
		state->segment[SEG_CS].selector = 0x1000;
		state->segment[SEG_CS].base = CODE;
		state->rip = 0;
	} else if (choice[0] & 0x40) {
		protected_mode(choice, state);
	} else {
		long_mode(choice, state);
	}
}

static void answer(const uint8_t *data, size_t size, uint32_t round)
{
	uint8_t byte = data[round % size];

	switch (exit_.kind) {
	case EXIT_IO:
		if (!exit_.io.write)
			memset(exit_.io.data, byte, (size_t)exit_.io.count * exit_.io.size);
		break;
	case EXIT_MMIO:
		must(exit_.mmio.size >= 1 && exit_.mmio.size <= 8, "size of MMIO");
		if (!exit_.mmio.write)
			memset(exit_.mmio.data, byte, exit_.mmio.size);
		break;
	case EXIT_MSR_READ:
	case EXIT_MSR_WRITE:
		exit_.msr.fault = byte & 1;
		break;
	default:
		break;
	}
}

/* False: that was the end. */
static bool run_once(const uint8_t *data, size_t size, uint32_t round)
{
	must(engine_soft.vcpu_run(vcpu, &exit_) == 0, "run");
	if (exit_.kind == EXIT_SHUTDOWN || exit_.kind == EXIT_FAILED)
		return false;
	answer(data, size, round);
	if (engine_soft.vcpu_can_interrupt(vcpu))
		engine_soft.vcpu_interrupt(vcpu, data[round % size]);
	else if (exit_.kind == EXIT_HLT)
		return false;
	return true;
}

static void check_result(void)
{
	static struct vcpu_state state;
	const char *why = "";
	int err;

	for (uint32_t tries = 0; tries < EXITS_MAX; tries++) {
		err = engine_soft.vcpu_save(vcpu, &state);
		if (err != -EAGAIN)
			break;
		must(engine_soft.vcpu_run(vcpu, &exit_) == 0, "run");
		answer((const uint8_t *)"", 1, 0);
	}
	if (err == -EAGAIN)
		return;
	must(err == 0, "save");
	must(vcpu_state_check(&state, &why) == 0, why);
	must(engine_soft.vcpu_load(vcpu, &state) == 0, "its own state is refused");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vcpu_state state;
	size_t patches, at = CHOICES;

	if (!engine)
		begin();
	if (size < CHOICES + 1 || size > 4096)
		return 0;
	build_guest();
	engine_soft.page_lost(engine, 0, MEMORY_BYTES);
	patches = data[15] & 7;
	for (; patches && at + PATCH < size; patches--, at += PATCH) {
		uint32_t offset = data[at] | (uint32_t)data[at + 1] << 8;

		memcpy(memory + (offset & (PATCHED - 1) & ~7u), data + at + 2, 8);
	}
	memcpy(memory + CODE, data + at, size - at);
	make_state(data, &state);
	must(engine_soft.vcpu_load(vcpu, &state) == 0, "load");
	memset(&exit_, 0, sizeof(exit_));
	for (uint32_t round = 0; round < EXITS_MAX && run_once(data, size, round); round++)
		;
	check_result();
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's side: one vCPU in long mode, with the same virtual addresses as the native side.
 *
 * Every vector's handler is a HLT of its own, reached over an interrupt stack (IST 1), so that a
 * fault changes nothing but that stack, CS and SS: the vCPU's saved state is the state at the
 * fault, and the frame has the rest. Sequences run at CPL 3, or at CPL 0 on the same page tables.
 * Guest-physical pages are scattered, so that what crosses a page is not contiguous anywhere. Each
 * sequence begins with the same memory, see diff.h, and at CPL 0 with the same descriptors.
 *
 * A thread watches that sequences end, and kicks the vCPU if not. It may also kick all the time:
 * then every kick is followed by saving the state and loading it again.
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
#include "tests/soft/diff.h"

#define MEMORY_BYTES (4u << 20)
#define GDT_GPA	     0x10000u
#define IDT_GPA	     0x11000u
#define TSS_GPA	     0x12000u
#define HANDLERS_GPA 0x13000u
#define LDT_GPA	     0x14000u
#define SYSTEM_END   0x15000u /* of what is the same for all */
#define STACK_TOP    0x17000u
#define TABLES_GPA   0x20000u
#define TABLES_END   0x60000u
#define DATA_GPA     0x100000u
#define CODE_GPA     0x200000u
#define SYSTEM_VA    0xffff800000000000ull /* + gpa: all the above, for CPL 0 only */

#define PTE_PRESENT 1ull
#define PTE_WRITE   2ull
#define PTE_USER    4ull
#define PTE_DIRTY   0x40ull
#define PTE_NX	    (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull

#define CR3_PCD 0x10u

#define VECTORS	     32u
#define HANDLER_STEP 16u
#define LDT_SELECTOR 0x50u
#define TR_SELECTOR  0x40u
#define KERNEL_CS    0x10u
#define KERNEL_SS    0x18u
#define TICK_NS	     20000000L
#define KICK_NS	     50000L
#define CPU_NS_MAX   3000000000ull /* of its own: the machine may be busy */
#define TICKS_MAX    3000u	   /* a minute, if it sleeps */
#define EXITS_MAX    100000u

struct diff_guest {
	const struct engine_ops *ops;
	struct engine *engine;
	struct engine_vcpu *vcpu;
	struct engine_exit exit;
	struct cpuid_set cpuid;
	uint8_t *memory;
	uint8_t system[SYSTEM_END - GDT_GPA]; /* as it was built */
	uint32_t tables_next;
	uint64_t window; /* what is mapped of the code: 0: nothing yet */
	bool avx, fsgsbase, kicks;
	struct vcpu_state base; /* what all sequences start from */
	struct vcpu_state state;
	uint64_t reloads;
	clockid_t runner; /* the CPU time of who runs the vCPU */
	/* The watch thread's: progress is the runner's, the others its own. */
	pthread_t watch;
	bool watching;
	atomic_uint progress;
	atomic_bool expired, quit;
};

static void put64(struct diff_guest *guest, uint32_t gpa, uint64_t value)
{
	memcpy(guest->memory + gpa, &value, sizeof(value));
}

static uint64_t get64(const struct diff_guest *guest, uint32_t gpa)
{
	uint64_t value;

	memcpy(&value, guest->memory + gpa, sizeof(value));
	return value;
}

/* The last level's entry; the tables above are made. */
static uint32_t entry_of(struct diff_guest *guest, uint64_t va)
{
	uint32_t table = TABLES_GPA;

	for (int shift = 39; shift > 12; shift -= 9) {
		uint32_t slot = table + (uint32_t)(va >> shift & 511) * 8;

		if (!(get64(guest, slot) & PTE_PRESENT)) {
			if (guest->tables_next == TABLES_END)
				abort();
			put64(guest, slot, guest->tables_next | PTE_PRESENT | PTE_WRITE | PTE_USER);
			guest->tables_next += DIFF_PAGE;
		}
		table = (uint32_t)(get64(guest, slot) & PTE_ADDRESS);
	}
	return table + (uint32_t)(va >> 12 & 511) * 8;
}

static void map_page(struct diff_guest *guest, uint64_t va, uint32_t gpa, uint64_t flags)
{
	put64(guest, entry_of(guest, va), gpa | flags | PTE_PRESENT);
}

static uint32_t data_gpa(uint32_t page)
{
	return DATA_GPA + (page * 11 % 16) * 2 * DIFF_PAGE;
}

static uint32_t code_gpa(uint32_t page)
{
	return CODE_GPA + (page * 37 % DIFF_CODE_PAGES) * DIFF_PAGE;
}

/* Not accessed, not dirty. */
static void map_data(struct diff_guest *guest)
{
	for (uint32_t i = 0; i < DIFF_DATA_PAGES; i++)
		map_page(guest, diff_pages[i].va, data_gpa(i),
			 PTE_USER | PTE_NX | (diff_pages[i].writable ? PTE_WRITE : 0));
}

static void build_tables(struct diff_guest *guest)
{
	guest->tables_next = TABLES_GPA + DIFF_PAGE;
	for (uint32_t gpa = GDT_GPA; gpa < STACK_TOP; gpa += DIFF_PAGE)
		map_page(guest, SYSTEM_VA + gpa, gpa, PTE_WRITE);
	map_data(guest);
}

/* Selectors as Linux has them; a TSS with IST 1; a gate and a HLT for every exception. */
static void build_descriptors(struct diff_guest *guest)
{
	uint64_t tss = SYSTEM_VA + TSS_GPA;

	put64(guest, GDT_GPA + 0x08, 0x00cf9b000000ffff);
	put64(guest, GDT_GPA + 0x10, 0x00af9b000000ffff);
	put64(guest, GDT_GPA + 0x18, 0x00cf93000000ffff);
	put64(guest, GDT_GPA + 0x20, 0x00cffb000000ffff);
	put64(guest, GDT_GPA + 0x28, 0x00cff3000000ffff);
	put64(guest, GDT_GPA + 0x30, 0x00affb000000ffff);
	put64(guest, GDT_GPA + 0x40,
	      103 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56);
	put64(guest, GDT_GPA + 0x48, tss >> 32);
	put64(guest, LDT_GPA, 0x00cffb000000ffff);
	put64(guest, TSS_GPA + 4, SYSTEM_VA + STACK_TOP);
	put64(guest, TSS_GPA + 36, SYSTEM_VA + STACK_TOP);
	put64(guest, TSS_GPA + 102 - 6, 104ull << 48); /* no I/O bitmap */
	for (uint32_t v = 0; v < VECTORS; v++) {
		uint64_t at = SYSTEM_VA + HANDLERS_GPA + v * HANDLER_STEP;
		uint64_t type = v == VECTOR_BP || v == 4 ? 0xee01 : 0x8e01;

		put64(guest, IDT_GPA + v * 16,
		      (at & 0xffff) | (uint64_t)KERNEL_CS << 16 | type << 32 |
			      (at >> 16 & 0xffff) << 48);
		put64(guest, IDT_GPA + v * 16 + 8, at >> 32);
		memcpy(guest->memory + HANDLERS_GPA + v * HANDLER_STEP, "\xf4\xeb\xfd", 3);
	}
	memcpy(guest->system, guest->memory + GDT_GPA, sizeof(guest->system));
}

static void build_state(struct diff_guest *guest)
{
	struct vcpu_state *s = &guest->base;

	vcpu_state_reset(s, 0);
	s->run_state = VCPU_RUNNABLE;
	s->gdt = (struct vcpu_table_state){ .base = SYSTEM_VA + GDT_GPA, .limit = 127 };
	s->idt = (struct vcpu_table_state){ .base = SYSTEM_VA + IDT_GPA, .limit = 0xfff };
	for (int i = SEG_ES; i <= SEG_GS; i++)
		s->segment[i] = (struct vcpu_segment_state){ .unusable = 1 };
	s->segment[SEG_TR] = (struct vcpu_segment_state){ .base = SYSTEM_VA + TSS_GPA,
							  .limit = 103,
							  .selector = TR_SELECTOR,
							  .attributes = 0x8b };
	s->segment[SEG_LDTR] = (struct vcpu_segment_state){ .base = SYSTEM_VA + LDT_GPA,
							    .limit = 7,
							    .selector = LDT_SELECTOR,
							    .attributes = 0x82 };
	s->cr0 = 0x80050033;
	s->cr3 = TABLES_GPA;
	s->cr4 = 0x620 | (guest->fsgsbase ? 1 << 16 : 0) | (guest->avx ? 1 << 18 : 0);
	s->efer = 0xd01;
	s->xcr0 = guest->avx ? 7 : 1;
}

static uint64_t runner_ns(const struct diff_guest *guest)
{
	struct timespec now = { 0 };

	clock_gettime(guest->runner, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void *watch(void *argument)
{
	struct diff_guest *guest = argument;
	uint64_t since = 0;
	uint32_t seen = 0, same = 0, ticks_max = guest->kicks ? TICKS_MAX * 400 : TICKS_MAX;
	struct timespec tick = { 0, guest->kicks ? KICK_NS : TICK_NS };

	while (!atomic_load(&guest->quit)) {
		uint32_t now = atomic_load(&guest->progress);

		same = now == seen && (now & 1) ? same + 1 : 0;
		seen = now;
		if (!same)
			since = runner_ns(guest);
		if (guest->kicks && (now & 1))
			guest->ops->vcpu_kick(guest->vcpu);
		if (same >= ticks_max || (same && runner_ns(guest) - since > CPU_NS_MAX)) {
			atomic_store(&guest->expired, true);
			guest->ops->vcpu_kick(guest->vcpu);
		}
		nanosleep(&tick, NULL);
	}
	return NULL;
}

static int start_engine(struct diff_guest *guest, char *why, size_t why_size)
{
	struct engine_features features;
	struct engine_config config = { .vcpu_max = 1, .cpuid = &guest->cpuid };
	int err = guest->ops->probe(&features, why, why_size);

	if (err)
		return err;
	err = cpuid_finish(&features.offer, 1, &guest->cpuid);
	if (err)
		return err;
	config.tsc_khz = features.tsc_khz;
	err = guest->ops->create(&config, &guest->engine, why, why_size);
	if (!err)
		err = guest->ops->add_memory(guest->engine, 0, guest->memory, MEMORY_BYTES);
	if (!err)
		err = guest->ops->vcpu_create(guest->engine, 0, &guest->vcpu);
	if (!err)
		err = guest->ops->vcpu_bind(guest->vcpu);
	if (err && !why[0])
		snprintf(why, why_size, "cannot start the engine: %s", strerrordesc_np(-err));
	return err;
}

static void stop_engine(struct diff_guest *guest)
{
	if (guest->watching) {
		atomic_store(&guest->quit, true);
		pthread_join(guest->watch, NULL);
		atomic_store(&guest->quit, false);
		guest->watching = false;
	}
	if (guest->vcpu)
		guest->ops->vcpu_destroy(guest->vcpu);
	if (guest->engine)
		guest->ops->destroy(guest->engine);
	guest->vcpu = NULL;
	guest->engine = NULL;
	memset(&guest->exit, 0, sizeof(guest->exit));
}

static int start(struct diff_guest *guest, char *why, size_t why_size)
{
	const struct cpuid_leaf *leaf;
	int err;

	why[0] = '\0';
	err = start_engine(guest, why, why_size);
	if (err)
		return err;
	leaf = cpuid_find(&guest->cpuid, 7, 0);
	guest->fsgsbase = leaf && (leaf->ebx & 1);
	guest->avx = (cpuid_xcr0(&guest->cpuid) & 7) == 7;
	build_state(guest);
	err = -pthread_getcpuclockid(pthread_self(), &guest->runner);
	if (!err)
		err = -pthread_create(&guest->watch, NULL, watch, guest);
	guest->watching = !err;
	return err;
}

int diff_guest_create(const struct engine_ops *ops, bool kicks, struct diff_guest **ret_guest,
		      char *why, size_t why_size)
{
	struct diff_guest *guest = diff_allocate(sizeof(*guest));
	int err;

	if (!guest)
		return -ENOMEM;
	guest->ops = ops;
	guest->kicks = kicks;
	guest->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guest->memory == MAP_FAILED) {
		free(guest);
		return -ENOMEM;
	}
	build_tables(guest);
	build_descriptors(guest);
	err = start(guest, why, why_size);
	if (err) {
		diff_guest_destroy(guest);
		return err;
	}
	*ret_guest = guest;
	return 0;
}

void diff_guest_destroy(struct diff_guest *guest)
{
	if (!guest)
		return;
	stop_engine(guest);
	munmap(guest->memory, MEMORY_BYTES);
	free(guest);
}

int diff_guest_forget(struct diff_guest *guest)
{
	char why[128];

	stop_engine(guest);
	return start(guest, why, sizeof(why));
}

bool diff_guest_has_avx(const struct diff_guest *guest)
{
	return guest->avx;
}

uint64_t diff_guest_reloads(const struct diff_guest *guest)
{
	return guest->reloads;
}

bool diff_guest_has_fsgsbase(const struct diff_guest *guest)
{
	return guest->fsgsbase;
}

/* Where that page of the code's window is: guest-physical. */
static uint32_t window_gpa(uint64_t window, uint32_t page)
{
	return code_gpa((uint32_t)((window - DIFF_CODE_VA) / DIFF_PAGE) + page);
}

/* The pages of the code that lie elsewhere become holes. */
static void move_window(struct diff_guest *guest, const struct diff_case *c)
{
	uint64_t window = diff_window(c);

	if (window == guest->window)
		return;
	for (uint32_t at = 0; guest->window && at < DIFF_WINDOW; at += DIFF_PAGE)
		put64(guest, entry_of(guest, guest->window + at), 0);
	for (uint32_t at = 0; at < diff_window_bytes(c); at += DIFF_PAGE)
		map_page(guest, window + at, window_gpa(window, at / DIFF_PAGE),
			 PTE_USER | PTE_WRITE);
	guest->window = window;
}

/* What is there already stays, translated as it is. */
static void restore(struct diff_guest *guest, uint32_t gpa, const uint8_t *from, uint32_t bytes)
{
	if (!memcmp(guest->memory + gpa, from, bytes))
		return;
	if (guest->ops->page_lost)
		guest->ops->page_lost(guest->engine, gpa, bytes);
	memcpy(guest->memory + gpa, from, bytes);
}

static void fill(struct diff_guest *guest, const struct diff_case *c)
{
	const uint8_t(*image)[DIFF_PAGE] = diff_image(c->image);
	uint8_t window[DIFF_WINDOW];
	uint32_t bytes = diff_window_fill(c, window);

	move_window(guest, c);
	for (uint32_t at = 0; at < bytes; at += DIFF_PAGE)
		restore(guest, window_gpa(guest->window, at / DIFF_PAGE), window + at, DIFF_PAGE);
	for (uint32_t i = 0; i < DIFF_DATA_PAGES; i++)
		memcpy(guest->memory + data_gpa(i), image[i], DIFF_PAGE);
	restore(guest, GDT_GPA, guest->system, sizeof(guest->system));
	if (c->seed & 1)
		map_data(guest);
	/* So that KVM, too, forgets what it knows of the page tables when the state is loaded. */
	guest->base.cr3 ^= CR3_PCD;
}

static const struct vcpu_segment_state code_segment[MODE_COUNT] = {
	[MODE_USER] = { .limit = 0xffffffff, .selector = DIFF_CS, .attributes = 0xa0fb },
	[MODE_SYSTEM] = { .limit = 0xffffffff, .selector = KERNEL_CS, .attributes = 0xa09b },
	[MODE_COMPAT] = { .limit = 0xffffffff, .selector = DIFF_CS32, .attributes = 0xc0fb },
};
static const struct vcpu_segment_state user_data = { .limit = 0xffffffff,
						     .selector = DIFF_SS,
						     .attributes = 0xc0f3 };
static const struct vcpu_segment_state system_data = { .limit = 0xffffffff,
						       .selector = KERNEL_SS,
						       .attributes = 0xc093 };

static int load(struct diff_guest *guest, const struct diff_case *c)
{
	struct vcpu_state *s = &guest->state;
	const struct diff_state *from = &c->start;
	uint64_t parts = guest->avx ? 7 : 3;

	*s = guest->base;
	memcpy(s->gpr, from->gpr, sizeof(s->gpr));
	s->rip = from->rip;
	s->rflags = from->rflags;
	s->segment[SEG_CS] = code_segment[c->mode];
	s->segment[SEG_SS] = c->mode == MODE_SYSTEM ? system_data : user_data;
	if (c->mode == MODE_COMPAT)
		s->segment[SEG_DS] = s->segment[SEG_ES] = user_data;
	s->segment[SEG_FS].base = from->fs_base;
	s->segment[SEG_GS].base = from->gs_base;
	memcpy(s->xsave, from->xsave, DIFF_XSAVE_BYTES);
	memcpy(s->xsave + 512, &parts, sizeof(parts));
	return guest->ops->vcpu_load(guest->vcpu, s);
}

static bool has_error_code(uint32_t vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

static void take_extended(const struct vcpu_state *s, uint8_t *xsave)
{
	uint64_t parts;

	memcpy(&parts, s->xsave + 512, sizeof(parts));
	memset(xsave, 0, DIFF_XSAVE_BYTES);
	memcpy(xsave + 24, s->xsave + 24, 4);
	if (parts & 1) {
		memcpy(xsave, s->xsave, 24);
		memcpy(xsave + 32, s->xsave + 32, 128);
	} else {
		memcpy(xsave, "\x7f\x03", 2);
	}
	if (parts & 2)
		memcpy(xsave + 160, s->xsave + 160, 256);
	if (parts & 4)
		memcpy(xsave + 576, s->xsave + 576, 256);
}

static void take(struct diff_guest *guest, const struct diff_case *c, struct diff_outcome *outcome)
{
	const struct vcpu_state *s = &guest->state;
	struct diff_state *to = &outcome->state;

	outcome->error =
		has_error_code(outcome->vector) ? (uint32_t)get64(guest, STACK_TOP - 48) : 0;
	outcome->cr2 = s->cr2;
	memcpy(to->gpr, s->gpr, sizeof(to->gpr));
	to->gpr[GPR_RSP] = get64(guest, STACK_TOP - 16);
	to->rip = get64(guest, STACK_TOP - 40);
	to->rflags = get64(guest, STACK_TOP - 24);
	to->cs = (uint16_t)get64(guest, STACK_TOP - 32);
	to->ss = (uint16_t)get64(guest, STACK_TOP - 8);
	to->ds = s->segment[SEG_DS].selector;
	to->es = s->segment[SEG_ES].selector;
	to->fs_base = s->segment[SEG_FS].base;
	to->gs_base = s->segment[SEG_GS].base;
	take_extended(s, to->xsave);
	if (!guest->avx) /* not its business */
		memcpy(to->xsave + 576, c->start.xsave + 576, 256);
	for (uint32_t i = 0; i < DIFF_DATA_PAGES; i++)
		memcpy(outcome->memory[i], guest->memory + data_gpa(i), DIFF_PAGE);
	for (uint32_t at = 0; at < diff_window_bytes(c); at += DIFF_PAGE)
		memcpy(outcome->code + at,
		       guest->memory + window_gpa(guest->window, at / DIFF_PAGE), DIFF_PAGE);
}

static void fail(struct diff_outcome *outcome, int status, const char *what, uint64_t detail)
{
	outcome->status = status;
	snprintf(outcome->detail, sizeof(outcome->detail), "%s (%lx)", what, (unsigned long)detail);
}

static void check_dirty(struct diff_guest *guest, const struct diff_case *c,
			struct diff_outcome *outcome)
{
	const uint8_t(*image)[DIFF_PAGE] = diff_image(c->image);

	for (uint32_t i = 0; i < DIFF_DATA_PAGES; i++)
		if (!(get64(guest, entry_of(guest, diff_pages[i].va)) & PTE_DIRTY) &&
		    memcmp(outcome->memory[i], image[i], DIFF_PAGE) != 0)
			fail(outcome, -EPROTO, "written, and not dirty", diff_pages[i].va);
}

static int reload(struct diff_guest *guest)
{
	int err = guest->ops->vcpu_save(guest->vcpu, &guest->state);

	guest->reloads++;
	return err ? err : guest->ops->vcpu_load(guest->vcpu, &guest->state);
}

/* Until the HLT of a handler. 0; outcome->status says how it went. */
static int run(struct diff_guest *guest, struct diff_outcome *outcome)
{
	uint64_t handler;
	int err;

	for (uint32_t exits = 0;; exits++) {
		err = guest->ops->vcpu_run(guest->vcpu, &guest->exit);
		if (err)
			return err;
		if (guest->exit.kind == EXIT_FAILED) {
			fail(outcome, -ENOTSUP, guest->exit.fail.reason, guest->exit.fail.detail);
			return 0;
		}
		if (guest->exit.kind != EXIT_KICKED)
			break;
		if (atomic_load(&guest->expired) || exits == EXITS_MAX) {
			fail(outcome, -ETIME, "does not end", 0);
			return 0;
		}
		if (guest->kicks)
			err = reload(guest);
		if (err)
			return err;
	}
	if (guest->exit.kind != EXIT_HLT) {
		fail(outcome, -EPROTO, "an unexpected exit", guest->exit.kind);
		return 0;
	}
	err = guest->ops->vcpu_save(guest->vcpu, &guest->state);
	if (err)
		return err;
	handler = guest->state.rip - SYSTEM_VA - HANDLERS_GPA - 1;
	if (handler % HANDLER_STEP || handler >= VECTORS * HANDLER_STEP)
		fail(outcome, -EPROTO, "HLT at", guest->state.rip);
	outcome->vector = (uint32_t)(handler / HANDLER_STEP);
	return 0;
}

int diff_guest_run(struct diff_guest *guest, const struct diff_case *c,
		   struct diff_outcome *outcome)
{
	int err;

	outcome->status = 0;
	outcome->detail[0] = '\0';
	fill(guest, c);
	err = load(guest, c);
	if (err)
		return err;
	atomic_store(&guest->expired, false);
	atomic_fetch_add(&guest->progress, 1); /* odd: running */
	err = run(guest, outcome);
	atomic_fetch_add(&guest->progress, 1);
	if (!err && outcome->status == 0) {
		take(guest, c, outcome);
		check_dirty(guest, c, outcome);
	}
	return err;
}

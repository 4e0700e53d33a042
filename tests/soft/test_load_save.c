/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node does with a vCPU between runs, where it meets what the engine is in the middle of: a
 * task switch of which the segments are still to be loaded, a pause, an XRSTOR that a kick breaks
 * off, a store of x87's that starts anew with the device's answer, a string instruction on a device.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

#include "engine/soft/cache/pause.h"
#include "engine/soft/vcpu.h"
#include "tests/engine/rig.h"

/* Into another task, by a pointer that a device has. */
__asm__(".pushsection .rodata\n"
	".code16\n"
	"guest_task:\n"
	"	xor	%ax, %ax\n"
	"	mov	%ax, %ds\n"
	"	lgdtl	9f - guest_task + 0x1000\n"
	"	mov	$0x11, %eax\n"
	"	mov	%eax, %cr0\n"
	"	ljmpl	$8, $(1f - guest_task + 0x1000)\n"
	".code32\n"
	"1:	mov	$16, %eax\n"
	"	mov	%eax, %ds\n"
	"	mov	%eax, %ss\n"
	"	mov	%eax, 0x31050\n" /* ss, of the new TSS */
	"	mov	%eax, 0x31054\n" /* ds */
	"	movl	$8, 0x3104c\n"	 /* cs */
	"	movl	$2, 0x31024\n"	 /* eflags */
	"	movl	$(2f - guest_task + 0x1000), 0x31020\n"
	"	mov	$24, %eax\n"
	"	ltr	%ax\n"
	"	ljmp	*0xfed00000\n"
	"2:	mov	$0x99, %eax\n"
	"	out	%eax, $0x10\n"
	"	hlt\n"
	"	.balign	8\n"
	"8:	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
	"	.quad	0x0000890300000067, 0x0000890310000067\n"
	"9:	.word	39\n"
	"	.long	8b - guest_task + 0x1000\n"
	"guest_task_end:\n"
	".code64\n"
	".popsection\n");

/* As node/vcpu.c does when the vCPU is to leave: save, or kick it, run on, and come again. */
static int save_some_time(struct rig *rig, struct vcpu_state *state)
{
	int err = -EAGAIN;

	for (int i = 0; i < 10 && err == -EAGAIN; i++) {
		err = rig_ops->vcpu_save(rig->vcpu[0], state);
		if (err != -EAGAIN)
			break;
		rig_ops->vcpu_kick(rig->vcpu[0]);
		assert_int_equal(rig_run(rig, 0), 0);
		assert_int_equal(rig->exit[0].kind, EXIT_KICKED);
	}
	return err;
}

static void test_saved_in_task_switch(void **unused)
{
	extern const uint8_t guest_task[], guest_task_end[];
	const struct guest guest = { guest_task, guest_task_end };
	static const uint16_t selector = 32;
	struct vcpu_state state;
	struct rig rig;

	(void)unused;
	assert_int_equal(rig_open(&rig, NULL), 0);
	assert_int_equal(rig_start(&rig, 0, guest, RIG_REAL), 0);
	assert_int_equal(rig_expect(&rig, 0, EXIT_MMIO), 0);
	memset(rig.exit[0].mmio.data, 0, 4);
	assert_int_equal(rig_expect(&rig, 0, EXIT_MMIO), 0);
	memcpy(rig.exit[0].mmio.data, &selector, 2);
	vcpu_state_reset(&state, 0);
	assert_int_equal(save_some_time(&rig, &state), 0);
	assert_int_equal(state.segment[SEG_TR].selector, selector);
	assert_int_equal(state.segment[SEG_CS].limit, 0xffffffff);
	assert_int_equal(rig_ops->vcpu_load(rig.vcpu[0], &state), 0);
	assert_int_equal(rig_run(&rig, 0), 0);
	if (rig.exit[0].kind == EXIT_KICKED)
		assert_int_equal(rig_run(&rig, 0), 0);
	assert_int_equal(rig.exit[0].kind, EXIT_HLT);
	assert_true(rig.out_count == 1 && rig.out[0] == 0x99);
	rig_close(&rig);
}

struct kicker {
	struct rig *rig;
	uint32_t spins;
	_Atomic bool stop;
};

struct loader {
	struct rig *rig;
	bool parks;
	struct vcpu_state state;
	_Atomic bool bound, loaded;
};

static void *load(void *arg)
{
	struct loader *loader = arg;
	struct engine_vcpu *vcpu = loader->rig->vcpu[1];

	assert_int_equal(rig_ops->vcpu_bind(vcpu), 0);
	atomic_store(&loader->bound, true);
	if (loader->parks)
		rig_ops->vcpu_parked(vcpu);
	else
		assert_int_equal(rig_ops->vcpu_load(vcpu, &loader->state), 0);
	atomic_store(&loader->loaded, true);
	return NULL;
}

/*
 * Loading changes the vCPU's TLB and table of jumps, so does parking, and so may who has paused the
 * others. So they wait, as guest code does.
 */
static void between_runs_while_paused(bool parks)
{
	struct loader loader = { .parks = parks };
	pthread_t thread;
	struct rig rig;

	assert_int_equal(rig_open(&rig, NULL), 0);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(rig_ops->vcpu_create(rig.engine, i, &rig.vcpu[i]), 0);
	loader.rig = &rig;
	rig_state(&rig, 1, RIG_LONG, &loader.state);
	soft_pause_others(rig.vcpu[0], UINT64_MAX);
	assert_int_equal(pthread_create(&thread, NULL, load, &loader), 0);
	while (!atomic_load(&loader.bound))
		rig_sleep_ms(1);
	rig_sleep_ms(50);
	assert_false(atomic_load(&loader.loaded));
	soft_resume_others(rig.vcpu[0]);
	pthread_join(thread, NULL);
	assert_true(atomic_load(&loader.loaded));
	rig_close(&rig);
}

static void test_loaded_while_paused(void **unused)
{
	(void)unused;
	between_runs_while_paused(false);
}

static void test_parked_while_paused(void **unused)
{
	(void)unused;
	between_runs_while_paused(true);
}

/* 32-bit code has no XMM8, so what its XRSTOR finds there in memory is nothing to it. */
#define IMAGE	      0x8000u
#define XMM8	      288u
#define KICKS	      20000u
#define KICKS_SECONDS 1u

static void start_restoring(struct rig *rig)
{
	static const uint8_t code[] = { 0x0f, 0xae, 0x2e, 0xeb, 0xfb }; /* xrstor (%esi); jmp . */
	const struct guest guest = { code, code + sizeof(code) };
	struct vcpu_state state;

	assert_int_equal(rig_start(rig, 0, guest, RIG_REAL), 0);
	rig_state(rig, 0, RIG_REAL, &state);
	for (int i = SEG_ES; i <= SEG_GS; i++)
		state.segment[i] = (struct vcpu_segment_state){
			.limit = 0xffffffff,
			.selector = i == SEG_CS ? 8 : 16,
			.attributes = i == SEG_CS ? 0xc09b : 0xc093,
		};
	state.cr0 = 0x33;
	state.cr4 = 0x40600; /* OSXSAVE, OSXMMEXCPT, OSFXSR */
	state.xcr0 = 3;
	state.gpr[GPR_RAX] = 3;
	state.gpr[GPR_RSI] = IMAGE;
	state.xsave[512] = 2;
	memset(state.xsave + XMM8, 0x11, 16);
	memset(rig->memory + IMAGE + XMM8, 0x77, 16);
	rig->memory[IMAGE + 25] = 0x1f; /* MXCSR */
	rig->memory[IMAGE + 512] = 2;
	assert_int_equal(rig_ops->vcpu_load(rig->vcpu[0], &state), 0);
}

static void *kick(void *arg)
{
	struct kicker *kicker = arg;

	while (!atomic_load(&kicker->stop)) {
		for (uint32_t i = 0; i < kicker->spins; i++)
			__builtin_ia32_pause();
		kicker->spins = kicker->spins * 29 % 1999;
		rig_ops->vcpu_kick(kicker->rig->vcpu[0]);
	}
	return NULL;
}

static void test_kicked_in_restore(void **unused)
{
	struct rig rig;
	struct kicker kicker = { .rig = &rig, .spins = 1 };
	uint64_t end_ns = rig_now_ns() + KICKS_SECONDS * 1000000000ull;
	uint8_t wanted[16];
	struct vcpu_state state;
	pthread_t thread;

	(void)unused;
	memset(wanted, 0x11, sizeof(wanted));
	assert_int_equal(rig_open(&rig, NULL), 0);
	start_restoring(&rig);
	assert_int_equal(pthread_create(&thread, NULL, kick, &kicker), 0);
	for (uint32_t i = 0; i < KICKS && rig_now_ns() < end_ns; i++) {
		assert_int_equal(rig_run(&rig, 0), 0);
		assert_int_equal(rig.exit[0].kind, EXIT_KICKED);
		vcpu_state_reset(&state, 0);
		assert_int_equal(rig_ops->vcpu_save(rig.vcpu[0], &state), 0);
		assert_memory_equal(state.xsave + XMM8, wanted, sizeof(wanted));
	}
	atomic_store(&kicker.stop, true);
	pthread_join(thread, NULL);
	rig_close(&rig);
}

/* 2 and 1 go to a device, and 3 is left. */
__asm__(".pushsection .rodata\n"
	"guest_pops:\n"
	"	mov	$0xfed00000, %ebx\n"
	"	mov	$0x80000, %ecx\n"
	"	movl	$3, (%rcx)\n"
	"	movl	$2, 4(%rcx)\n"
	"	fninit\n"
	"	fildl	(%rcx)\n"
	"	fld1\n"
	"	fildl	4(%rcx)\n"
	"	fistpll	(%rbx)\n"
	"	fistpl	4094(%rbx)\n" /* across two pages */
	"	fistpl	(%rcx)\n"
	"	mov	(%rcx), %eax\n"
	"	out	%eax, $0x10\n"
	"	hlt\n"
	"guest_pops_end:\n"
	".popsection\n");

static void test_pops_once(void **unused)
{
	extern const uint8_t guest_pops[], guest_pops_end[];
	const struct guest guest = { guest_pops, guest_pops_end };
	static uint8_t device[2 * PAGE_BYTES];
	uint64_t first;
	uint32_t second;
	struct rig rig;

	(void)unused;
	assert_int_equal(rig_open(&rig, NULL), 0);
	assert_int_equal(rig_start(&rig, 0, guest, RIG_LONG), 0);
	while (rig_run(&rig, 0) == 0 && rig.exit[0].kind == EXIT_MMIO) {
		assert_true(rig.exit[0].mmio.write);
		memcpy(device + (rig.exit[0].mmio.gpa - 0xfed00000), rig.exit[0].mmio.data,
		       rig.exit[0].mmio.size);
	}
	assert_int_equal(rig.exit[0].kind, EXIT_HLT);
	memcpy(&first, device, sizeof(first));
	memcpy(&second, device + 4094, sizeof(second));
	assert_true(first == 2 && second == 1);
	assert_true(rig.out_count == 1 && rig.out[0] == 3);
	rig_close(&rig);
}

/* Who is to leave in the middle of REP STOS to a device does not have to wait for its end. */
static void test_saved_in_string(void **unused)
{
	/* mov $0xfed00000, %edi; mov $1000, %ecx; rep stosb; rep cmpsb; hlt */
	static const uint8_t code[] = { 0xbf, 0,    0,	  0xd0, 0xfe, 0xb9, 0xe8, 3,	0,   0,
					0xf3, 0xaa, 0xb1, 100,	0x89, 0xfe, 0xf3, 0xa6, 0xf4 };
	const struct guest guest = { code, code + sizeof(code) };
	struct vcpu_state state;
	struct rig rig;
	uint32_t saved = 0;

	(void)unused;
	assert_int_equal(rig_open(&rig, NULL), 0);
	assert_int_equal(rig_start(&rig, 0, guest, RIG_LONG), 0);
	while (rig_run(&rig, 0) == 0 && rig.exit[0].kind == EXIT_MMIO) {
		vcpu_state_reset(&state, 0);
		if (!rig.exit[0].mmio.write)
			memset(rig.exit[0].mmio.data, 0, rig.exit[0].mmio.size);
		saved += rig_ops->vcpu_save(rig.vcpu[0], &state) == 0;
		if (saved == 1)
			assert_int_equal(state.gpr[GPR_RCX], 999);
	}
	assert_int_equal(rig.exit[0].kind, EXIT_HLT);
	assert_int_equal(saved, 1100); /* of an item's two reads there is no middle to save */
	rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_saved_in_task_switch),
		cmocka_unit_test(test_loaded_while_paused),
		cmocka_unit_test(test_parked_while_paused),
		cmocka_unit_test(test_kicked_in_restore),
		cmocka_unit_test(test_pops_once),
		cmocka_unit_test(test_saved_in_string),
	};
	char why[256] = "";

	rig_ops = &engine_soft;
	if (rig_ops->probe(&rig_features, why, sizeof(why))) {
		printf("probe: %s\n", why);
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

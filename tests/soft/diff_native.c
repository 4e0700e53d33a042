/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native side: a child that executes sequences itself.
 *
 * It has code and data pages mapped at the guest's virtual addresses, loads a random state and
 * goes on at the sequence by iretq (diff_native_entry.S). Any fault, and the int3 at the end, is a
 * signal; its handler runs on an alternate stack (rsp is random, so SS_AUTODISARM), takes the
 * state, vector, error code and CR2 that the kernel has put into the signal frame, and returns to
 * diff_native_leave instead. A timer of CPU time ends sequences that do not.
 *
 * A child, because the engine under test has signal handlers of its own, and because nothing stops
 * a sequence from damaging the process it runs in. Parent and child share one mapping of cases and
 * outcomes and a pair of pipes.
 */
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/soft/cpu/host.h"
#include "tests/soft/diff.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

#define ALT_STACK_BYTES 65536u
#define TICK_US		20000
#define XSTATE_MAGIC	0x46505853u /* FP_XSTATE_MAGIC1 */
#define SW_RESERVED	464u	    /* where the kernel describes the frame's xsave area */
#define XSAVE_HEADER	512u
#define AVX_OFFSET	576u
#define REFUSED_TRIES	4

struct shared {
	uint32_t count, at; /* at: the case being run */
	struct diff_case cases[DIFF_BATCH];
	struct diff_outcome outcomes[DIFF_BATCH];
};

struct diff_native {
	struct shared *shared;
	pid_t child;
	int to_child, from_child;
};

struct diff_native_frame {
	uint64_t ds; /* and es */
	uint64_t fs_base, gs_base;
	uint64_t gpr[15]; /* r15..r8, rdi, rsi, rbp, rbx, rdx, rcx, rax */
	uint64_t rip, cs, rflags, rsp, ss;
};

/* The child's, shared with diff_native_entry.S. */
uint64_t diff_native_host_rsp, diff_native_host_fs_base;
uint64_t diff_native_fs_base, diff_native_gs_base;
bool diff_native_keeps_bases; /* what WRFSBASE and WRGSBASE write */
void diff_native_enter(struct diff_native_frame *frame, const void *xsave, uint64_t mask);
void diff_native_leave(void);
void diff_native_signal(int number, siginfo_t *info, void *context);
void diff_native_on_signal(int number, siginfo_t *info, void *context);

static struct shared *child_shared;
static uint64_t child_mask; /* XCR0 bits to load */
static bool child_busy;
static uint64_t child_window;		     /* 0: none yet */
static uint64_t child_runs, child_tick_runs; /* of run_one(); at the last tick */

/* The order in which the frame's words are popped. */
static const uint8_t pop_order[15] = { 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 3, 2, 1, 0 };

static const uint8_t context_gpr[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
					 REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
					 REG_R12, REG_R13, REG_R14, REG_R15 };

/* The kernel's standard format, parts in their initial state left out, to all of them. */
static void take_extended(const uint8_t *frame, uint8_t *ret_xsave)
{
	uint32_t magic;
	uint64_t parts = 3;

	memset(ret_xsave, 0, DIFF_XSAVE_BYTES);
	memcpy(&magic, frame + SW_RESERVED, sizeof(magic));
	if (magic == XSTATE_MAGIC)
		memcpy(&parts, frame + XSAVE_HEADER, sizeof(parts));
	memcpy(ret_xsave, frame, 416);
	memset(ret_xsave + 28, 0, 4);
	if (!(parts & 1)) {
		static const uint8_t fcw[2] = { 0x7f, 0x03 };

		memset(ret_xsave, 0, 24);
		memset(ret_xsave + 32, 0, 128);
		memcpy(ret_xsave, fcw, sizeof(fcw));
	}
	if (!(parts & 2))
		memset(ret_xsave + 160, 0, 256);
	if (parts & 4)
		memcpy(ret_xsave + AVX_OFFSET, frame + AVX_OFFSET, 256);
}

static void take_state(const ucontext_t *context, struct diff_outcome *outcome)
{
	const long long *gregs = context->uc_mcontext.gregs;
	struct diff_state *state = &outcome->state;
	uint64_t segments = (uint64_t)gregs[REG_CSGSFS]; /* cs, gs, fs, ss */
	uint16_t ds, es;

	for (int i = 0; i < 16; i++)
		state->gpr[i] = (uint64_t)gregs[context_gpr[i]];
	state->rip = (uint64_t)gregs[REG_RIP];
	state->rflags = (uint64_t)gregs[REG_EFL];
	state->fs_base = diff_native_fs_base;
	state->gs_base = diff_native_gs_base;
	state->cs = (uint16_t)segments;
	state->ss = (uint16_t)(segments >> 48);
	__asm__("mov %%ds, %0; mov %%es, %1" : "=r"(ds), "=r"(es));
	state->ds = ds;
	state->es = es;
	take_extended((const uint8_t *)context->uc_mcontext.fpregs, state->xsave);
	outcome->vector = (uint32_t)gregs[REG_TRAPNO];
	outcome->error = (uint32_t)gregs[REG_ERR];
	outcome->cr2 = (uint64_t)gregs[REG_CR2];
}

static void leave(ucontext_t *context)
{
	child_busy = false;
	context->uc_mcontext.gregs[REG_RIP] = (long long)(uintptr_t)diff_native_leave;
	context->uc_mcontext.gregs[REG_RSP] = (long long)diff_native_host_rsp;
	context->uc_mcontext.gregs[REG_EFL] &= ~(long long)(FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC);
	context->uc_mcontext.gregs[REG_CSGSFS] =
		(context->uc_mcontext.gregs[REG_CSGSFS] & 0xffffffff0000ll) | (long long)DIFF_CS |
		(long long)DIFF_SS << 48;
	diff_native_fs_base = diff_native_host_fs_base;
	diff_native_gs_base = 0;
}

static void on_tick(ucontext_t *context)
{
	if (!child_busy || child_tick_runs != child_runs) {
		child_tick_runs = child_runs;
		return;
	}
	/* Twice in the same sequence; but not while the stub is loading its state. */
	if ((uint64_t)context->uc_mcontext.gregs[REG_RIP] - DIFF_CODE_VA >
	    DIFF_CODE_PAGES * DIFF_PAGE)
		return;
	child_shared->outcomes[child_shared->at].status = -ETIME;
	leave(context);
}

void diff_native_on_signal(int number, siginfo_t *info, void *opaque)
{
	ucontext_t *context = opaque;

	(void)info;
	if (number == SIGPROF) {
		on_tick(context);
		return;
	}
	if (!child_busy)
		_exit(100 + number);
	child_shared->outcomes[child_shared->at].status = 0;
	take_state(context, &child_shared->outcomes[child_shared->at]);
	leave(context);
}

static int map_pages(void)
{
	static const int fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	void *code = (void *)DIFF_CODE_VA;

	for (uint32_t i = 0; i < DIFF_DATA_PAGES; i++)
		if (mmap((void *)diff_pages[i].va, DIFF_PAGE, PROT_READ | PROT_WRITE,
			 fixed | MAP_POPULATE, -1, 0) != (void *)diff_pages[i].va)
			return -errno;
	if (mmap(code, DIFF_CODE_PAGES * DIFF_PAGE, PROT_NONE, fixed, -1, 0) != code)
		return -errno;
	return 0;
}

/* Read-only pages are the same in all images: filled once. */
static void fill_read_only(void)
{
	for (uint32_t i = 0; i < DIFF_DATA_PAGES; i++) {
		if (diff_pages[i].writable)
			continue;
		memcpy((void *)diff_pages[i].va, diff_image(0)[i], DIFF_PAGE);
		mprotect((void *)diff_pages[i].va, DIFF_PAGE, PROT_READ);
	}
}

static void move_window(const struct diff_case *c)
{
	static const int rwx = PROT_READ | PROT_WRITE | PROT_EXEC;
	uint64_t window = diff_window(c);

	if (window == child_window)
		return;
	if (mprotect((void *)DIFF_CODE_VA, DIFF_CODE_PAGES * DIFF_PAGE, PROT_NONE) ||
	    mprotect((void *)window, diff_window_bytes(c), rwx))
		_exit(98);
	child_window = window;
}

static void fill(const struct diff_case *c)
{
	const uint8_t(*image)[DIFF_PAGE] = diff_image(c->image);
	uint8_t window[DIFF_WINDOW];
	uint32_t bytes = diff_window_fill(c, window);

	move_window(c);
	for (uint32_t i = 0; i < DIFF_DATA_PAGES; i++)
		if (diff_pages[i].writable)
			memcpy((void *)diff_pages[i].va, image[i], DIFF_PAGE);
	memcpy((void *)diff_window(c), window, bytes);
}

static void take_memory(const struct diff_case *c, struct diff_outcome *outcome)
{
	for (uint32_t i = 0; i < DIFF_DATA_PAGES; i++)
		memcpy(outcome->memory[i], (void *)diff_pages[i].va, DIFF_PAGE);
	memcpy(outcome->code, (void *)diff_window(c), diff_window_bytes(c));
}

/* The engine alone is asked: as if undefined. */
static void leave_out(const struct diff_case *c, struct diff_outcome *outcome)
{
	outcome->vector = VECTOR_UD;
	outcome->error = 0;
	outcome->state = c->start;
	diff_window_fill(c, outcome->code);
}

static void run_once(const struct diff_case *c, struct diff_outcome *outcome)
{
	const struct diff_state *start = &c->start;
	struct diff_native_frame frame = {
		.fs_base = start->fs_base,
		.gs_base = start->gs_base,
		.ds = start->ds,
		.rip = start->rip,
		.cs = start->cs,
		.rflags = start->rflags,
		.rsp = start->gpr[4],
		.ss = start->ss,
	};

	outcome->status = 0;
	for (int i = 0; i < 15; i++)
		frame.gpr[i] = start->gpr[pop_order[i]];
	fill(c);
	child_runs++;
	child_busy = true;
	diff_native_enter(&frame, start->xsave, child_mask);
	if (outcome->status == 0)
		take_memory(c, outcome);
}

/*
 * A host that is a paravirtual machine may be unable to return to a stack pointer that is not
 * canonical: whatever interrupts a sequence, the timer, say, is #GP then. A sequence's own comes
 * each time.
 */
static void run_one(const struct diff_case *c, struct diff_outcome *outcome)
{
	uint32_t tries = REFUSED_TRIES;

	if (c->single && diff_judge_of(c) >= JUDGE_UNDEFINED) {
		outcome->status = 0;
		leave_out(c, outcome);
		return;
	}
	do
		run_once(c, outcome);
	while (--tries && outcome->status == 0 && outcome->vector == VECTOR_GP &&
	       (int64_t)(outcome->state.gpr[4] << 16) >> 16 != (int64_t)outcome->state.gpr[4]);
}

static int handle_signals(void)
{
	static const int numbers[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGPROF };
	stack_t stack = { .ss_size = ALT_STACK_BYTES, .ss_flags = (int)SS_AUTODISARM };
	struct sigaction action = { .sa_sigaction = diff_native_signal,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	struct itimerval tick = { .it_interval = { 0, TICK_US }, .it_value = { 0, TICK_US } };

	stack.ss_sp = mmap(NULL, ALT_STACK_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL))
		return -errno;
	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (sigaction(numbers[i], &action, NULL))
			return -errno;
	return setitimer(ITIMER_PROF, &tick, NULL) ? -errno : 0;
}

/* DIFF_CS32. A kernel without modify_ldt() can do without: its compat sequences end in #GP. */
static void make_compat_segment(void)
{
	struct user_desc desc = { .limit = 0xfffff,
				  .seg_32bit = 1,
				  .contents = 2 /* code */,
				  .limit_in_pages = 1,
				  .useable = 1 };

	syscall(SYS_modify_ldt, 1, &desc, sizeof(desc));
}

static void child_main(struct shared *shared, int in, int out)
{
	char byte;

	child_shared = shared;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	child_mask = 3 | (__builtin_cpu_supports("avx") ? 4 : 0);
	diff_native_keeps_bases = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT;
	syscall(SYS_arch_prctl, ARCH_GET_FS, &diff_native_host_fs_base);
	if (map_pages() || handle_signals())
		_exit(99);
	fill_read_only();
	make_compat_segment();
	while (read(in, &byte, 1) == 1) {
		for (shared->at = 0; shared->at < shared->count; shared->at++)
			run_one(&shared->cases[shared->at], &shared->outcomes[shared->at]);
		if (write(out, &byte, 1) != 1)
			break;
	}
	_exit(0);
}

static int start_child(struct diff_native *native)
{
	int to[2], from[2];

	if (pipe2(to, O_CLOEXEC))
		return -errno;
	if (pipe2(from, O_CLOEXEC)) {
		close(to[0]);
		close(to[1]);
		return -errno;
	}
	fflush(NULL);
	native->child = fork();
	if (native->child == 0) {
		close(to[1]);
		close(from[0]);
		child_main(native->shared, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	native->to_child = to[1];
	native->from_child = from[0];
	return native->child < 0 ? -errno : 0;
}

static void stop_child(struct diff_native *native)
{
	close(native->to_child);
	close(native->from_child);
	if (native->child > 0) {
		kill(native->child, SIGKILL);
		waitpid(native->child, NULL, 0);
	}
}

int diff_native_create(struct diff_native **ret_native)
{
	struct diff_native *native = calloc(1, sizeof(*native));
	int err;

	if (!native)
		return -ENOMEM;
	diff_image(0); /* before fork(), once for both */
	native->shared = mmap(NULL, sizeof(*native->shared), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (native->shared == MAP_FAILED) {
		free(native);
		return -ENOMEM;
	}
	err = start_child(native);
	if (err) {
		munmap(native->shared, sizeof(*native->shared));
		free(native);
		return err;
	}
	*ret_native = native;
	return 0;
}

void diff_native_destroy(struct diff_native *native)
{
	if (!native)
		return;
	stop_child(native);
	munmap(native->shared, sizeof(*native->shared));
	free(native);
}

int diff_native_run(struct diff_native *native, const struct diff_case *cases, uint32_t count,
		    struct diff_outcome *outcomes, uint32_t *ret_at)
{
	char byte = 0;
	ssize_t got;
	int err;

	memcpy(native->shared->cases, cases, count * sizeof(cases[0]));
	native->shared->count = count;
	if (write(native->to_child, &byte, 1) != 1)
		return -EPIPE;
	do {
		got = read(native->from_child, &byte, 1);
	} while (got < 0 && errno == EINTR);
	if (got == 1) {
		memcpy(outcomes, native->shared->outcomes, count * sizeof(outcomes[0]));
		return 0;
	}
	*ret_at = native->shared->at;
	stop_child(native);
	err = start_child(native);
	return err ? err : -EIO;
}

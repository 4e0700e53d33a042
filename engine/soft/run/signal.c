/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals: what the host's CPU reports while it executes for the guest, and kicks.
 *
 * Guest code runs with the guest's stack pointer, so handlers run on a stack of their own, which is
 * disarmed meanwhile (SS_AUTODISARM): a hostile stack pointer into it would not be noticed else.
 *
 *   pc in a block         the state before its instruction is known (cache.h): taken out
 *   pc on the way in      nothing has happened yet: left at once
 *   pc between blocks     as if the next one had not been found
 *   pc in the stepper's   before or at the guest's instruction: left, it starts anew
 *   pc in an access       of C to guest memory: broken off (access.c), if that may still be
 *   elsewhere             `stop` is set and will be seen (vcpu.c says why)
 */
#include "engine/soft/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/soft/cache/cache.h"
#include "engine/soft/cpu/access.h"
#include "engine/soft/run/run.h"
#include "engine/soft/step/stepper.h"
#include "engine/soft/translate/translator.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

static _Thread_local void *thread_stack;

void soft_signals_thread(struct engine_vcpu *vcpu)
{
	stack_t stack = { .ss_sp = vcpu->signal_stack,
			  .ss_size = SIGNAL_STACK_BYTES,
			  .ss_flags = (int)SS_AUTODISARM };

	if (thread_stack == vcpu->signal_stack)
		return;
	sigaltstack(&stack, NULL);
	thread_stack = vcpu->signal_stack;
}

void soft_signals_forget(struct engine_vcpu *vcpu)
{
	stack_t none = { .ss_flags = SS_DISABLE };

	if (thread_stack != vcpu->signal_stack)
		return;
	sigaltstack(&none, NULL);
	thread_stack = NULL;
}

static void leave(struct engine_vcpu *vcpu, greg_t *regs, uint64_t reason, uint64_t argument)
{
	vcpu->reason = reason;
	vcpu->argument = argument;
	regs[REG_RIP] = (greg_t)(uintptr_t)soft_cache_left(vcpu->engine);
	regs[REG_EFL] &= ~(greg_t)(FLAG_DF | FLAG_TF);
}

/* Stopped between two blocks: there is no way to the next one but by C. */
static void leave_lookup(const struct engine_vcpu *vcpu, greg_t *regs)
{
	regs[REG_RIP] = (greg_t)(uintptr_t)soft_cache_unknown(vcpu->engine);
}

static void on_kick(int number, siginfo_t *info, void *context)
{
	struct engine_vcpu *vcpu = soft_this_vcpu;
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t pc = (uint64_t)regs[REG_RIP];
	int saved_errno = errno;

	(void)number;
	(void)info;
	if (!vcpu || !vcpu->running || !atomic_load(&vcpu->stop))
		return;
	switch (soft_cache_place(vcpu->engine, pc)) {
	case PLACE_BLOCK:
		soft_translated_stop(vcpu, context);
		break;
	case PLACE_ENTERING:
		leave(vcpu, regs, SOFT_REASON_STOP, 0);
		break;
	case PLACE_LOOKUP:
		leave_lookup(vcpu, regs);
		break;
	case PLACE_EXEC:
		if (pc <= (uintptr_t)vcpu->exec_insn)
			leave(vcpu, regs, SOFT_REASON_STOP, 0);
		break;
	case PLACE_OUTSIDE:
		if (!soft_in_access(pc) || vcpu->committing)
			break;
		regs[REG_RSP] = ((regs[REG_RSP] - 256) & ~15ll) - 8;
		regs[REG_RDI] = (greg_t)(uintptr_t)vcpu;
		regs[REG_RIP] = (greg_t)(uintptr_t)soft_access_break_off;
		break;
	default:
		break;
	}
	errno = saved_errno;
}

static uint8_t vector_of(int number, const siginfo_t *info, const greg_t *regs)
{
	switch (number) {
	case SIGFPE: /* #DE, #MF or #XM: Linux has the vector in the signal's frame */
		return (uint8_t)regs[REG_TRAPNO];
	case SIGILL:
		return VECTOR_UD;
	case SIGTRAP:
		return VECTOR_DB;
	case SIGSEGV:
		/* The CPU itself refused (alignment): no address was missing. */
		return info->si_code == SI_KERNEL ? VECTOR_GP : FAULT_OF_ENGINE;
	default:
		return FAULT_OF_ENGINE;
	}
}

/*
 * A locked access across two cache lines, on a host that forbids it (split_lock_detect=fatal): the
 * CPU has not done it (#AC), and C will do it another way (step/exec.c). Where the host counts bus
 * locks instead (bus_lock_detect), it has done it, and the next instruction is stepped in its
 * stead, or nothing. The engine's own code has no such access.
 */
static void on_split_lock(struct engine_vcpu *vcpu, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t pc = (uint64_t)regs[REG_RIP];

	if (!vcpu || !vcpu->running)
		return;
	atomic_store(&vcpu->engine->split_locks_trap, true);
	switch (soft_cache_place(vcpu->engine, pc)) {
	case PLACE_BLOCK:
		soft_translated_step(vcpu, context);
		break;
	case PLACE_EXEC:
		if (pc <= (uintptr_t)vcpu->exec_insn)
			leave(vcpu, regs, SOFT_REASON_STOP, 0);
		break;
	default:
		break;
	}
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	struct engine_vcpu *vcpu = soft_this_vcpu;
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t pc = (uint64_t)regs[REG_RIP];
	uint8_t vector = vector_of(number, info, regs);

	if (number == SIGBUS && info->si_code == BUS_ADRALN) {
		on_split_lock(vcpu, context);
		return;
	}
	if (vcpu && vcpu->running) {
		if (number == SIGTRAP && vcpu->tracing) {
			vcpu->tracing = false;
			regs[REG_EFL] &= ~(greg_t)FLAG_TF;
			if (soft_cache_place(vcpu->engine, pc) == PLACE_BLOCK)
				soft_translated_stop(vcpu, context);
			else if (soft_cache_place(vcpu->engine, pc) == PLACE_LOOKUP)
				leave_lookup(vcpu, regs);
			return;
		}
		switch (soft_cache_place(vcpu->engine, pc)) {
		case PLACE_BLOCK:
			soft_translated_fault(vcpu, context, vector);
			return;
		case PLACE_EXEC:
			vcpu->host_fault = (uintptr_t)info->si_addr;
			if (vector == FAULT_OF_ENGINE && soft_in_fault_pages(vcpu, info->si_addr))
				vector = VECTOR_PF;
			leave(vcpu, regs, SOFT_REASON_FAULT, vector);
			return;
		default:
			break;
		}
	}
	/* Not the guest's: let it end the process as it would have. */
	signal(number, SIG_DFL);
}

int soft_signals_install(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction action = { .sa_sigaction = on_kick,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };

	/* What a handler interrupts is never another one: see on_kick(). */
	sigfillset(&action.sa_mask);
	if (sigaction(ENGINE_KICK_SIGNAL, &action, NULL))
		return -errno;
	action.sa_sigaction = on_fault;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		if (sigaction(faults[i], &action, NULL))
			return -errno;
	return 0;
}

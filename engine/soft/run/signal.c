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
 *   pc on the way out     goes on
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
#include <x86intrin.h>

#include "engine/soft/cache/cache.h"
#include "engine/soft/cpu/access.h"
#include "engine/soft/run/run.h"
#include "engine/soft/split.h"
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

static void leave(struct engine_vcpu *vcpu, void *context, uint64_t reason, uint64_t argument)
{
	vcpu->reason = reason;
	vcpu->argument = argument;
	soft_leave(vcpu, context);
}

/*
 * Hosts that are paravirtual machines may be unable to return to a stack pointer that is not
 * canonical: whatever interrupts such a guest, the host's timer, say, ends in #GP at the instruction
 * that was next. It is C's, then, or where nothing of the guest's is there, what is left is done
 * here. In the middle of an instruction one host instruction after the other is let run with a stack
 * pointer that is none: it moves that or sets another one; of what it does only that is known.
 */
#define STAND_IN_RSP 0x5555aaaa0000u /* canonical */
#define MOVES_MAX    0x100000u
#define TWICE_WITHIN (1ull << 32) /* cycles: a second or two */

static bool is_refused(int number, const siginfo_t *info, const greg_t *regs)
{
	return number == SIGSEGV && info->si_code == SI_KERNEL &&
	       !soft_is_canonical((uint64_t)regs[REG_RSP]);
}

static void hold_rsp(struct engine_vcpu *vcpu, greg_t *regs)
{
	vcpu->held_rsp = (uint64_t)regs[REG_RSP];
	vcpu->holds_rsp = true;
	regs[REG_RSP] = (greg_t)STAND_IN_RSP;
	regs[REG_EFL] |= FLAG_TF;
}

/* Whether it was held. */
static bool unhold_rsp(struct engine_vcpu *vcpu, greg_t *regs)
{
	uint64_t moved = (uint64_t)regs[REG_RSP] - STAND_IN_RSP;

	if (!vcpu->holds_rsp)
		return false;
	vcpu->holds_rsp = false;
	regs[REG_EFL] &= ~(greg_t)FLAG_TF;
	if (moved + MOVES_MAX < (uint64_t)2 * MOVES_MAX)
		regs[REG_RSP] = (greg_t)(vcpu->held_rsp + moved);
	return true;
}

/*
 * Whether the host's #GP, or #UD, has come at this pc before, just now. What an instruction raises
 * itself comes each time that it is tried.
 */
static bool is_told_twice(struct engine_vcpu *vcpu, uint64_t pc)
{
	uint64_t now = __rdtsc();
	bool twice = vcpu->told_pc == pc && now - vcpu->told_tsc < TWICE_WITHIN;

	vcpu->told_pc = twice ? 0 : pc;
	vcpu->told_tsc = now;
	return twice;
}

/* False: the pc is not where guest code is. */
static bool on_refused(struct engine_vcpu *vcpu, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t pc = (uint64_t)regs[REG_RIP];

	switch (soft_cache_place(vcpu->engine, pc)) {
	case PLACE_BLOCK:
		if (!soft_translated_step(vcpu, context) &&
		    !soft_is_canonical((uint64_t)regs[REG_RSP]))
			hold_rsp(vcpu, regs);
		return true;
	case PLACE_ENTERING:
		leave(vcpu, context, SOFT_REASON_STOP, 0);
		return true;
	case PLACE_LOOKUP:
		soft_leave_lookup(vcpu, context);
		return true;
	case PLACE_LEAVING:
		soft_leave_half(vcpu, context);
		return true;
	case PLACE_EXEC:
		if (pc > (uintptr_t)vcpu->exec_insn)
			hold_rsp(vcpu, regs);
		else if (pc == (uintptr_t)vcpu->exec_insn && is_told_twice(vcpu, pc))
			leave(vcpu, context, SOFT_REASON_FAULT, VECTOR_GP);
		else
			leave(vcpu, context, SOFT_REASON_STOP, 0);
		return true;
	default:
		return false;
	}
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
	(void)unhold_rsp(vcpu, regs);
	switch (soft_cache_place(vcpu->engine, pc)) {
	case PLACE_BLOCK:
		soft_translated_stop(vcpu, context);
		break;
	case PLACE_ENTERING:
		leave(vcpu, context, SOFT_REASON_STOP, 0);
		break;
	case PLACE_LOOKUP:
		soft_leave_lookup(vcpu, context);
		break;
	case PLACE_EXEC:
		if (pc <= (uintptr_t)vcpu->exec_insn)
			leave(vcpu, context, SOFT_REASON_STOP, 0);
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
 * stead, or nothing. The engine's own code has no such access, but the one that is tried (split.c).
 */
static void on_split_lock(struct engine_vcpu *vcpu, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t pc = (uint64_t)regs[REG_RIP];

	soft_split_forbidden();
	if (!vcpu || !vcpu->running)
		return;
	atomic_store(&vcpu->engine->split_locks_trap, true);
	switch (soft_cache_place(vcpu->engine, pc)) {
	case PLACE_BLOCK:
		(void)soft_translated_step(vcpu, context);
		break;
	case PLACE_EXEC:
		if (pc <= (uintptr_t)vcpu->exec_insn)
			leave(vcpu, context, SOFT_REASON_STOP, 0);
		break;
	default:
		break;
	}
}

/* An access off a stack pointer that is STACK_NOWHERE: the stepper knows its fault. */
static bool is_nowhere(int number, const siginfo_t *info)
{
	return number == SIGSEGV && info->si_code != SI_KERNEL &&
	       (uintptr_t)info->si_addr < (uintptr_t)2 * PAGE_BYTES;
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
		bool held = unhold_rsp(vcpu, regs);

		if (number == SIGTRAP && vcpu->tracing) {
			vcpu->tracing = false;
			regs[REG_EFL] &= ~(greg_t)FLAG_TF;
			if (soft_cache_place(vcpu->engine, pc) == PLACE_BLOCK)
				soft_translated_stop(vcpu, context);
			else if (soft_cache_place(vcpu->engine, pc) == PLACE_LOOKUP)
				soft_leave_lookup(vcpu, context);
			return;
		}
		/* With one that stands in, it was no refusal. */
		if ((held ? number == SIGTRAP : is_refused(number, info, regs)) &&
		    on_refused(vcpu, context))
			return;
		/*
		 * What is in the code cache was decoded, and the host offers it. A hypervisor may say
		 * #UD all the same: it has lost a page's mapping for a moment, and tries to execute
		 * an instruction itself that it does not know.
		 */
		if (number == SIGILL && soft_cache_place(vcpu->engine, pc) >= PLACE_EXEC &&
		    !is_told_twice(vcpu, pc))
			return;
		switch (soft_cache_place(vcpu->engine, pc)) {
		case PLACE_BLOCK:
			if (is_nowhere(number, info))
				(void)soft_translated_step(vcpu, context);
			else
				soft_translated_fault(vcpu, context, vector);
			return;
		case PLACE_EXEC:
			vcpu->host_fault = (uintptr_t)info->si_addr;
			if (vector == FAULT_OF_ENGINE && soft_in_fault_pages(vcpu, info->si_addr))
				vector = VECTOR_PF;
			leave(vcpu, context, SOFT_REASON_FAULT, vector);
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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a vCPU: exits out, answers in, kicks in between.
 *
 * Kicks (KVM API 5, immediate_exit). Kicker and runner share two flags:
 *
 *   kicker                            runner
 *   1. kicked := 1                    a. KVM_RUN; -EINTR if a signal pends or immediate_exit is set
 *   2. immediate_exit := 1            b. on -EINTR: immediate_exit := 0
 *   3. signal to the thread           c.            kicked := 0, report EXIT_KICKED
 *
 * A signal that comes before the runner is inside KVM_RUN does nothing by itself, but then 2 came
 * first and KVM_RUN returns at once; a signal that comes later interrupts it. A kick between b and
 * c is covered by the report that follows, and leaves immediate_exit set for the next run. Other
 * exits leave both flags alone. So no kick is lost, and some come twice. The signal's handler has
 * nothing to do. `kicked` is only for finish_exit(), which sets immediate_exit for its own use.
 *
 * A vCPU thread blocked in a userfaultfd fault is woken by the same signal (Linux 6.2): KVM_RUN
 * returns -EINTR and the next run repeats the access. Tested by tests/engine/cases_*.c.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kick.h"
#include "vcpu/msr.h"

#define DROPPED_EXITS_MAX 16 /* of one instruction */

static void on_kick(int signal_number)
{
	(void)signal_number;
}

int kvm_kick_signal_install(void)
{
	struct sigaction action = { .sa_handler = on_kick, .sa_flags = SA_RESTART };

	sigemptyset(&action.sa_mask);
	return sigaction(ENGINE_KICK_SIGNAL, &action, NULL) ? -errno : 0;
}

int kvm_vcpu_bind(struct engine_vcpu *vcpu)
{
	pid_t thread;
	int err = engine_kick_accept(&thread);

	if (err == 0)
		atomic_store(&vcpu->thread, thread);
	return err;
}

static void set_immediate_exit(struct engine_vcpu *vcpu, uint8_t value)
{
	__atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

void kvm_vcpu_kick(struct engine_vcpu *vcpu)
{
	atomic_store(&vcpu->kicked, 1);
	set_immediate_exit(vcpu, 1);
	engine_kick_send(atomic_load(&vcpu->thread));
}

static void fail(struct engine_exit *exit, const char *reason, uint64_t detail)
{
	exit->kind = EXIT_FAILED;
	exit->fail.reason = reason;
	exit->fail.detail = detail;
}

static void report_internal_error(const struct kvm_run *run, struct engine_exit *exit)
{
	switch (run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		fail(exit, "KVM cannot emulate the guest's instruction", 0);
		break;
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		fail(exit, "KVM: exceptions on top of each other", 0);
		break;
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		fail(exit, "KVM: an exit while an event was delivered",
		     run->internal.ndata > 1 ? run->internal.data[1] : 0);
		break;
	default:
		fail(exit, "KVM: internal error", run->internal.suberror);
		break;
	}
}

static void report_errno(struct engine_exit *exit, int err)
{
	if (err == EFAULT)
		fail(exit, "KVM cannot reach the guest memory it needs (EFAULT)", EFAULT);
	else
		fail(exit, "KVM_RUN failed", (uint64_t)err);
}

/* An MSR exit: the caller's, or answered here (false: run on). */
static bool report_msr(struct engine_vcpu *vcpu, struct engine_exit *exit, bool write)
{
	struct kvm_run *run = vcpu->run;
	uint64_t value = run->msr.data;

	if (!vcpu_msr_is_callers(run->msr.index)) {
		run->msr.error = kvm_msr_faults(vcpu, run->msr.index, write, &value);
		run->msr.data = value;
		return false;
	}
	exit->kind = write ? EXIT_MSR_WRITE : EXIT_MSR_READ;
	exit->msr.index = run->msr.index;
	exit->msr.fault = 0;
	exit->msr.value = write ? run->msr.data : 0;
	exit->msr.tsc_adjust = 0;
	if (write && run->msr.index == MSR_INDEX_TSC_DEADLINE)
		(void)kvm_msr_tsc_adjust(vcpu, &exit->msr.tsc_adjust);
	return true;
}

static void report_io(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	const struct kvm_run *run = vcpu->run;

	exit->kind = EXIT_IO;
	exit->io.port = run->io.port;
	exit->io.size = run->io.size;
	exit->io.write = run->io.direction == KVM_EXIT_IO_OUT;
	exit->io.count = run->io.count;
	exit->io.data = (uint8_t *)vcpu->run + run->io.data_offset;
}

static void report_mmio(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	struct kvm_run *run = vcpu->run;

	exit->kind = EXIT_MMIO;
	exit->mmio.gpa = run->mmio.phys_addr;
	exit->mmio.size = (uint8_t)run->mmio.len;
	exit->mmio.write = run->mmio.is_write;
	exit->mmio.data = run->mmio.data;
}

/* Translates KVM's exit. False: it was dealt with here, run on. */
static bool report(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		report_io(vcpu, exit);
		return true;
	case KVM_EXIT_MMIO:
		report_mmio(vcpu, exit);
		return true;
	case KVM_EXIT_X86_RDMSR:
		return report_msr(vcpu, exit, false);
	case KVM_EXIT_X86_WRMSR:
		return report_msr(vcpu, exit, true);
	case KVM_EXIT_HLT:
		exit->kind = EXIT_HLT;
		return true;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		exit->kind = EXIT_WINDOW;
		return true;
	case KVM_EXIT_SET_TPR:
	case KVM_EXIT_INTR:
		exit->kind = EXIT_KICKED;
		return true;
	case KVM_EXIT_SHUTDOWN:
		exit->kind = EXIT_SHUTDOWN;
		return true;
	case KVM_EXIT_FAIL_ENTRY:
		fail(exit, "the CPU refuses the guest's state",
		     run->fail_entry.hardware_entry_failure_reason);
		return true;
	case KVM_EXIT_INTERNAL_ERROR:
		report_internal_error(run, exit);
		return true;
	case KVM_EXIT_MEMORY_FAULT:
		fail(exit, "KVM cannot reach the guest memory it needs", 0);
		return true;
	default:
		fail(exit, "KVM: an exit that nobody asked for", run->exit_reason);
		return true;
	}
}

static bool is_msr_exit(const struct engine_exit *exit)
{
	return exit && (exit->kind == EXIT_MSR_READ || exit->kind == EXIT_MSR_WRITE);
}

/* Hands the caller's answer to the last exit to KVM; data of I/O and MMIO is in place already. */
static void take_answer(struct engine_vcpu *vcpu)
{
	const struct engine_exit *exit = vcpu->exit;

	vcpu->exit = NULL;
	if (!is_msr_exit(exit))
		return;
	vcpu->run->msr.error = exit->msr.fault != 0;
	vcpu->run->msr.data = exit->msr.value;
}

/* One KVM_RUN with its bookkeeping: 0, or negative errno. */
static int enter(struct engine_vcpu *vcpu)
{
	int err = ioctl(vcpu->fd, KVM_RUN, 0) ? -errno : 0;

	vcpu->msr_hot_known = false;
	vcpu->ready = vcpu->run->ready_for_interrupt_injection && vcpu->run->if_flag;
	return err;
}

int kvm_vcpu_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	int err;

	if (vcpu->has_stashed) {
		vcpu->has_stashed = false;
		*exit = vcpu->stashed;
		vcpu->exit = exit;
		return 0;
	}
	take_answer(vcpu);
	do {
		err = enter(vcpu);
		if (err == -EINTR) {
			set_immediate_exit(vcpu, 0);
			atomic_store(&vcpu->kicked, 0);
			exit->kind = EXIT_KICKED;
			return 0;
		}
		if (err) {
			report_errno(exit, -err);
			return 0;
		}
	} while (!report(vcpu, exit));
	vcpu->exit = exit;
	return 0;
}

/* A kick stays due. Look after clearing: the kicker sets the flags in the other order. */
static void allow_entry(struct engine_vcpu *vcpu)
{
	set_immediate_exit(vcpu, 0);
	if (atomic_load(&vcpu->kicked))
		set_immediate_exit(vcpu, 1);
}

int kvm_vcpu_finish_exit(struct engine_vcpu *vcpu)
{
	int err;

	if (vcpu->has_stashed)
		return -EAGAIN;
	take_answer(vcpu);
	vcpu->run->kvm_valid_regs = vcpu->engine->syncs;
	do {
		set_immediate_exit(vcpu, 1);
		err = enter(vcpu);
	} while (!err && !report(vcpu, &vcpu->stashed));
	vcpu->run->kvm_valid_regs = 0;
	allow_entry(vcpu);
	if (err == -EINTR)
		return 0;
	if (err)
		return err;
	vcpu->has_stashed = true;
	return -EAGAIN;
}

int kvm_vcpu_drop_exit(struct engine_vcpu *vcpu)
{
	bool open = vcpu->exit || vcpu->has_stashed;
	int err = 0;

	vcpu->exit = NULL;
	vcpu->has_stashed = false;
	for (int i = 0; open && i < DROPPED_EXITS_MAX; i++) {
		err = kvm_vcpu_enter_with(vcpu, 0);
		open = err == -EAGAIN;
	}
	return err;
}

int kvm_vcpu_enter_with(struct engine_vcpu *vcpu, uint32_t dirty)
{
	int err;

	vcpu->run->kvm_dirty_regs = dirty;
	set_immediate_exit(vcpu, 1);
	err = enter(vcpu);
	vcpu->run->kvm_dirty_regs = 0;
	allow_entry(vcpu);
	return err == -EINTR ? 0 : err ? err : -EAGAIN;
}

/* With #GP on its way (an MSR answer) an interrupt would be delivered first, wrongly. */
bool kvm_vcpu_can_interrupt(struct engine_vcpu *vcpu)
{
	return vcpu->ready && !(is_msr_exit(vcpu->exit) && vcpu->exit->msr.fault);
}

int kvm_vcpu_interrupt(struct engine_vcpu *vcpu, uint8_t vector)
{
	struct kvm_interrupt interrupt = { .irq = vector };

	if (!kvm_vcpu_can_interrupt(vcpu))
		return -EBUSY;
	if (ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt))
		return -errno;
	vcpu->ready = false;
	return 0;
}

int kvm_vcpu_nmi(struct engine_vcpu *vcpu)
{
	return ioctl(vcpu->fd, KVM_NMI) ? -errno : 0;
}

void kvm_vcpu_want_window(struct engine_vcpu *vcpu, bool want)
{
	vcpu->run->request_interrupt_window = want;
}

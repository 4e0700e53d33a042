/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kvm engine: a VM of the host's KVM that has CPUs and memory and nothing else.
 *
 * There is no in-kernel irqchip: local APICs, their timers and everything else that is state stay
 * with the caller, so a vCPU is all in struct vcpu_state and can go on in another VM on another
 * host. KVM executes the guest's instructions, keeps the TSC, and exits for the rest.
 *
 * KVM cannot remove a vCPU from a VM. One that is destroyed (because it moved away) is parked, and
 * taken again when it comes back; vcpu_load() overwrites all of it.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Intel hosts without unrestricted guests keep these pages in the guest's space (KVM
 * API 4.41, 4.37). */
#define IDENTITY_MAP_GPA 0xfeffc000ull
#define TSS_GPA		 0xfeffd000ull
/* KVM takes 2^31 - 1 pages a slot (KVM_MEM_MAX_NR_PAGES): 2 MiB less than 8 TiB, to keep chunks whole. */
#define SLOT_BYTES_MAX ((1ull << 43) - (2ull << 20))

#define SYNCS (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)

static int explain(char *why, size_t why_size, int err, const char *what)
{
	snprintf(why, why_size, "KVM: %s failed: %s", what, strerrordesc_np(-err));
	return err;
}

static int create_vm(struct engine *engine, char *why, size_t why_size)
{
	uint64_t identity = IDENTITY_MAP_GPA;
	struct kvm_enable_cap payload = { .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { 1 } };
	int bytes, err;

	engine->vm_fd = ioctl(engine->kvm_fd, KVM_CREATE_VM, 0);
	if (engine->vm_fd < 0)
		return explain(why, why_size, -errno, "KVM_CREATE_VM");
	ioctl(engine->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (ioctl(engine->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA) &&
	    kvm_host_vendor() == KVM_VENDOR_INTEL)
		return explain(why, why_size, -errno, "KVM_SET_TSS_ADDR");
	err = kvm_msr_exits_enable(engine->vm_fd);
	if (err)
		return explain(why, why_size, err, "letting MSR accesses exit");
	if (ioctl(engine->vm_fd, KVM_ENABLE_CAP, &payload))
		return explain(why, why_size, -errno, "KVM_CAP_EXCEPTION_PAYLOAD");
	bytes = ioctl(engine->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (bytes < (int)sizeof(struct kvm_run))
		return explain(why, why_size, -EIO, "KVM_GET_VCPU_MMAP_SIZE");
	engine->run_bytes = (uint32_t)bytes;
	return 0;
}

int kvm_engine_create(const struct engine_config *config, struct engine **ret_engine, char *why,
		      size_t why_size)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int err;

	if (!engine)
		return explain(why, why_size, -ENOMEM, "creating the VM");
	engine->vm_fd = -1;
	engine->tsc_khz = config->tsc_khz;
	engine->cpuid = *config->cpuid;
	kvm_xsave_layout(engine->xsave_offset);
	engine->kvm_fd = err = kvm_open_checked(why, why_size);
	if (err < 0)
		goto out;
	err = kvm_read_tsc_khz(engine->kvm_fd);
	if (err < 0) {
		explain(why, why_size, err, "KVM_GET_TSC_KHZ");
		goto out;
	}
	engine->kvm_khz = (uint32_t)err;
	engine->tsc_scales = ioctl(engine->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
	err = ioctl(engine->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);
	engine->syncs = err >= 0 && (err & SYNCS) == SYNCS ? SYNCS : 0;
	err = create_vm(engine, why, why_size);
	if (err)
		goto out;
	err = kvm_kick_signal_install();
	if (err) {
		explain(why, why_size, err, "installing the kick signal");
		goto out;
	}
	*ret_engine = engine;
	return 0;
out:
	kvm_engine_destroy(engine);
	return err;
}

static void free_vcpu(struct engine_vcpu *vcpu)
{
	if (!vcpu)
		return;
	if (vcpu->run)
		munmap(vcpu->run, vcpu->engine->run_bytes);
	if (vcpu->fd >= 0)
		close(vcpu->fd);
	free(vcpu);
}

void kvm_engine_destroy(struct engine *engine)
{
	if (!engine)
		return;
	for (uint32_t i = 0; i < VCPUS_MAX; i++)
		free_vcpu(engine->parked[i]);
	if (engine->vm_fd >= 0)
		close(engine->vm_fd);
	if (engine->kvm_fd >= 0)
		close(engine->kvm_fd);
	free(engine);
}

int kvm_engine_add_memory(struct engine *engine, uint64_t gpa, void *hva, uint64_t bytes)
{
	for (uint64_t done = 0, piece; done < bytes; done += piece) {
		piece = bytes - done < SLOT_BYTES_MAX ? bytes - done : SLOT_BYTES_MAX;
		struct kvm_userspace_memory_region region = {
			.slot = engine->slot_count,
			.guest_phys_addr = gpa + done,
			.memory_size = piece,
			.userspace_addr = (uintptr_t)hva + done,
		};

		if (ioctl(engine->vm_fd, KVM_SET_USER_MEMORY_REGION, &region))
			return -errno;
		engine->slot_count++;
	}
	return 0;
}

/*
 * KVM's paravirtual registers and hypercalls answer whatever CPUID says, unless told otherwise
 * (Linux 5.10, KVM_CAP_ENFORCE_PV_FEATURE_CPUID): a guest's clock page would then be written by one
 * node's kernel, behind the page protocol's back. A KVM that does not know this has fewer of them.
 */
static void enforce_pv_features(struct engine_vcpu *vcpu)
{
	struct kvm_enable_cap enforce = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = { 1 } };

	(void)ioctl(vcpu->fd, KVM_ENABLE_CAP, &enforce);
}

static int set_cpuid(struct engine_vcpu *vcpu)
{
	struct cpuid_set set;
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[CPUID_LEAVES_MAX];
	} list = { 0 };

	cpuid_for_vcpu(&vcpu->engine->cpuid, vcpu->number, &set);
	list.head.nent = set.count;
	for (uint32_t i = 0; i < set.count; i++)
		list.entry[i] = (struct kvm_cpuid_entry2){
			.function = set.leaf[i].function,
			.index = set.leaf[i].index,
			.flags = set.leaf[i].index_matters ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = set.leaf[i].eax,
			.ebx = set.leaf[i].ebx,
			.ecx = set.leaf[i].ecx,
			.edx = set.leaf[i].edx,
		};
	return ioctl(vcpu->fd, KVM_SET_CPUID2, &list) ? -errno : 0;
}

/* ---- the TSC ---- */

uint64_t kvm_tsc_nearest(uint64_t wanted, uint32_t kvm_khz, bool scales, uint32_t ratio_bits)
{
	uint64_t khz = (uint64_t)((unsigned __int128)wanted * kvm_khz >> TSC_RATIO_BITS);
	uint64_t difference = khz > kvm_khz ? khz - kvm_khz : kvm_khz - khz;

	if (!scales || difference * 1000000 <= (uint64_t)kvm_khz * KVM_TSC_TOLERANCE_PPM)
		return TSC_RATIO_ONE;
	return (uint64_t)(((unsigned __int128)khz << ratio_bits) / kvm_khz)
	       << (TSC_RATIO_BITS - ratio_bits);
}

uint32_t kvm_tsc_khz_for(uint64_t ratio, uint32_t kvm_khz)
{
	/* Up: the ratio was cut off, by less than a part in 2^32. */
	return (uint32_t)(((unsigned __int128)ratio * kvm_khz + TSC_RATIO_ONE - 1) >>
			  TSC_RATIO_BITS);
}

/* KVM is told whole kHz, and makes of them a number with 32 binary digits behind the point on AMD
 * (APM vol. 2, 15.30.5) and 48 on Intel (SDM vol. 3, 24.6.5). */
static uint64_t kvm_tsc_ratio(const struct engine *engine, uint64_t wanted)
{
	return kvm_tsc_nearest(wanted, engine->kvm_khz, engine->tsc_scales,
			       kvm_host_vendor() == KVM_VENDOR_INTEL ? 48 : 32);
}

static int set_tsc_khz(struct engine_vcpu *vcpu, uint32_t khz)
{
	if (khz == vcpu->khz)
		return 0;
	if (ioctl(vcpu->fd, KVM_SET_TSC_KHZ, (unsigned long)khz))
		return -errno;
	vcpu->khz = khz;
	return 0;
}

static int start_tsc(struct engine_vcpu *vcpu)
{
	const struct engine *engine = vcpu->engine;
	uint64_t ratio = kvm_tsc_ratio(engine, tsc_ratio(engine->tsc_khz, engine->kvm_khz));

	vcpu->khz = engine->kvm_khz; /* a new vCPU's */
	return set_tsc_khz(vcpu, kvm_tsc_khz_for(ratio, engine->kvm_khz));
}

static int open_vcpu(struct engine_vcpu *vcpu)
{
	void *run;
	int err;

	vcpu->fd = ioctl(vcpu->engine->vm_fd, KVM_CREATE_VCPU, vcpu->number);
	if (vcpu->fd < 0)
		return -errno;
	run = mmap(NULL, vcpu->engine->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	vcpu->run = run;
	enforce_pv_features(vcpu);
	err = set_cpuid(vcpu);
	if (err)
		return err;
	err = start_tsc(vcpu);
	if (err)
		return err;
	kvm_msr_find(vcpu);
	return 0;
}

int kvm_vcpu_create(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu)
{
	struct engine_vcpu *vcpu;
	int err;

	if (number >= VCPUS_MAX)
		return -EINVAL;
	vcpu = engine->parked[number];
	if (vcpu) {
		engine->parked[number] = NULL;
		*ret_vcpu = vcpu;
		return 0;
	}
	vcpu = calloc(1, sizeof(*vcpu));
	if (!vcpu)
		return -ENOMEM;
	vcpu->engine = engine;
	vcpu->number = number;
	err = open_vcpu(vcpu);
	if (err) {
		free_vcpu(vcpu);
		return err;
	}
	*ret_vcpu = vcpu;
	return 0;
}

void kvm_vcpu_destroy(struct engine_vcpu *vcpu)
{
	if (!vcpu)
		return;
	atomic_store(&vcpu->thread, 0);
	atomic_store(&vcpu->kicked, 0);
	vcpu->run->immediate_exit = 0;
	vcpu->run->request_interrupt_window = 0;
	/* What KVM has been asked last is open there still: the next load drops it. */
	vcpu->has_stashed = vcpu->has_stashed || vcpu->exit;
	vcpu->exit = NULL;
	vcpu->ready = false;
	vcpu->engine->parked[vcpu->number] = vcpu;
}

/*
 * KVM_VCPU_TSC_OFFSET sets the offset itself (Linux 5.16), so nothing depends on when the call
 * happens, and KVM does not guess (as for MSR writes) that two vCPUs' nearly equal values were
 * meant to be equal.
 */
static int kvm_vcpu_set_tsc(struct engine_vcpu *vcpu, const struct tsc_line *line)
{
	uint64_t adjust, scaled, offset;
	struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL,
					.attr = KVM_VCPU_TSC_OFFSET,
					.addr = (uintptr_t)&offset };
	int err;

	err = kvm_msr_tsc_adjust(vcpu, &adjust);
	if (err)
		return err;
	err = set_tsc_khz(vcpu, kvm_tsc_khz_for(line->ratio, vcpu->engine->kvm_khz));
	if (err)
		return err;
	scaled = (uint64_t)((unsigned __int128)line->host_tsc * line->ratio >> TSC_RATIO_BITS);
	offset = line->guest_tsc + adjust - scaled;
	return ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr) ? -errno : 0;
}

static uint8_t kvm_vcpu_tpr(struct engine_vcpu *vcpu)
{
	return (uint8_t)(vcpu->run->cr8 & 0xf);
}

/* Without an irqchip KVM_RUN takes CR8 from struct kvm_run at every entry. */
static void kvm_vcpu_set_tpr(struct engine_vcpu *vcpu, uint8_t cr8)
{
	vcpu->run->cr8 = cr8 & 0xf;
}

/*
 * The kernel's: a vCPU with its caches of pages for page tables (40 and more), its FPU's state, and its
 * run pages; and page tables of the guest's memory.
 */
#define VCPU_BYTES (320u << 10)

static uint64_t kvm_kept_bytes(uint32_t vcpu_count, uint64_t guest_bytes)
{
	return vcpu_count * (uint64_t)VCPU_BYTES + guest_bytes / 512;
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.probe = kvm_probe,
	.create = kvm_engine_create,
	.destroy = kvm_engine_destroy,
	.kept_bytes = kvm_kept_bytes,
	.add_memory = kvm_engine_add_memory,
	.tsc_ratio = kvm_tsc_ratio,
	.vcpu_create = kvm_vcpu_create,
	.vcpu_destroy = kvm_vcpu_destroy,
	.vcpu_bind = kvm_vcpu_bind,
	.vcpu_load = kvm_vcpu_load,
	.vcpu_save = kvm_vcpu_save,
	.vcpu_set_tsc = kvm_vcpu_set_tsc,
	.vcpu_run = kvm_vcpu_run,
	.vcpu_kick = kvm_vcpu_kick,
	.vcpu_can_interrupt = kvm_vcpu_can_interrupt,
	.vcpu_interrupt = kvm_vcpu_interrupt,
	.vcpu_nmi = kvm_vcpu_nmi,
	.vcpu_want_window = kvm_vcpu_want_window,
	.vcpu_tpr = kvm_vcpu_tpr,
	.vcpu_set_tpr = kvm_vcpu_set_tpr,
	.vcpu_rip = kvm_vcpu_rip,
	.vcpu_cr3 = kvm_vcpu_cr3,
};

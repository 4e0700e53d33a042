/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can this host run the kvm engine, and with what?
 *
 * A /dev/kvm proves nothing: some hosts have one that emulates instruction by instruction and
 * cannot run a kernel. So first the CPU's own flags are asked (svm, vmx), then the kernel's version
 * and KVM's capabilities, and at last a tiny guest runs: it writes the TSC-deadline MSR, and the
 * deadline timer is offered only if that write was seen here (on Intel with the VMX preemption
 * timer it never is).
 *
 * EAGRE_KVM_EMULATED=1 in the environment accepts an emulating device: for tests of single ioctls.
 * Tested by tests/engine/test_kvm_probe.c and, where it is real, by cases_machine.c.
 */
#include "engine/kvm/kvm.h"
#include "engine/tsc_rate.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#define KERNEL_MAJOR 6
#define KERNEL_MINOR 2
#define RAW_LEAVES   256
#define PROBE_EXITS  8

static const struct {
	uint32_t cap;
	const char *name;
} capabilities[] = {
	{ KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR (5.10)" },
	{ KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER (5.10)" },
	{ KVM_CAP_SREGS2, "KVM_CAP_SREGS2 (5.14)" },
	{ KVM_CAP_VCPU_ATTRIBUTES, "KVM_CAP_VCPU_ATTRIBUTES (5.16)" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT (4.13)" },
	{ KVM_CAP_EXCEPTION_PAYLOAD, "KVM_CAP_EXCEPTION_PAYLOAD (4.20)" },
	{ KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
	{ KVM_CAP_XCRS, "KVM_CAP_XCRS" },
	{ KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ" },
};

static const char eptad_advice[] =
	"kvm_intel runs with eptad=1, so guest page-table walks count as writes and pods of several nodes "
	"are slow: reload it with 'modprobe -r kvm_intel && modprobe kvm_intel eptad=0'";

enum kvm_vendor kvm_host_vendor(void)
{
	uint32_t eax, ebx, ecx, edx;

	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 2)))
		return KVM_VENDOR_AMD;
	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 5)))
		return KVM_VENDOR_INTEL;
	return KVM_VENDOR_NONE;
}

static bool emulation_allowed(void)
{
	const char *value = getenv("EAGRE_KVM_EMULATED");

	return value && !strcmp(value, "1");
}

static const char *module_name(void)
{
	return kvm_host_vendor() == KVM_VENDOR_INTEL ? "kvm_intel" : "kvm_amd";
}

static int check_kernel(char *why, size_t why_size)
{
	struct utsname name;
	unsigned int major = 0, minor = 0;

	uname(&name);
	if (sscanf(name.release, "%u.%u", &major, &minor) != 2)
		return 0;
	if (major > KERNEL_MAJOR || (major == KERNEL_MAJOR && minor >= KERNEL_MINOR))
		return 0;
	snprintf(
		why, why_size,
		"Linux %u.%u is too old for the kvm engine: from 6.2 on a vCPU that waits for a page can be "
		"stopped; install 6.2 or newer (6.12 is in bookworm-backports)",
		major, minor);
	return -ENOTSUP;
}

static int explain_open(int err, char *why, size_t why_size)
{
	if (err == -EACCES || err == -EPERM) {
		snprintf(
			why, why_size,
			"no permission to open /dev/kvm: run as root or add the user to group kvm");
		return -EACCES;
	}
	if (err == -ENOENT || err == -ENXIO || err == -ENODEV)
		snprintf(why, why_size, "no /dev/kvm: load %s (modprobe %s)", module_name(),
			 module_name());
	else
		snprintf(why, why_size, "cannot open /dev/kvm: %s", strerrordesc_np(-err));
	return -ENODEV;
}

static int check_device(int fd, char *why, size_t why_size)
{
	int version = ioctl(fd, KVM_GET_API_VERSION, 0);

	if (version != KVM_API_VERSION) {
		snprintf(why, why_size, "/dev/kvm speaks API version %d, not %d", version,
			 KVM_API_VERSION);
		return -ENOTSUP;
	}
	for (size_t i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]); i++) {
		if (ioctl(fd, KVM_CHECK_EXTENSION, capabilities[i].cap) > 0)
			continue;
		snprintf(why, why_size, "/dev/kvm lacks %s: use a newer kernel",
			 capabilities[i].name);
		return -ENOTSUP;
	}
	return 0;
}

int kvm_open_checked(char *why, size_t why_size)
{
	int fd, err;

	if (kvm_host_vendor() == KVM_VENDOR_NONE && !emulation_allowed()) {
		bool device = access("/dev/kvm", F_OK) == 0;

		snprintf(why, why_size,
			 "no hardware virtualization (the CPU has neither svm nor vmx%s): take "
			 "--engine soft, or another host",
			 device ? "; /dev/kvm only emulates" : "");
		return -ENODEV;
	}
	err = check_kernel(why, why_size);
	if (err)
		return err;
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return explain_open(-errno, why, why_size);
	err = check_device(fd, why, why_size);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

/* What KVM supports, as raw leaves; the count, or negative errno. */
static int read_supported(int fd, struct cpuid_leaf *ret_leaf)
{
	struct kvm_cpuid2 *list;
	int count;

	list = calloc(1, sizeof(*list) + RAW_LEAVES * sizeof(list->entries[0]));
	if (!list)
		return -ENOMEM;
	list->nent = RAW_LEAVES;
	if (ioctl(fd, KVM_GET_SUPPORTED_CPUID, list)) {
		count = -errno;
		free(list);
		return count;
	}
	count = (int)list->nent;
	for (int i = 0; i < count; i++) {
		const struct kvm_cpuid_entry2 *entry = &list->entries[i];

		ret_leaf[i] = (struct cpuid_leaf){
			.function = entry->function,
			.index = entry->index,
			.index_matters = (entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
			.eax = entry->eax,
			.ebx = entry->ebx,
			.ecx = entry->ecx,
			.edx = entry->edx,
		};
	}
	free(list);
	return count;
}

static int read_offer(int fd, bool tsc_deadline, struct cpuid_set *ret_offer)
{
	struct cpuid_leaf *raw = calloc(RAW_LEAVES, sizeof(*raw));
	int count;

	if (!raw)
		return -ENOMEM;
	count = read_supported(fd, raw);
	if (count >= 0)
		count = cpuid_offer(raw, (size_t)count, tsc_deadline, ret_offer);
	free(raw);
	return count;
}

/* mov $0x6e0, %ecx; xor %edx, %edx; mov $1, %eax; wrmsr; hlt: in real mode, at 0x1000 */
static const uint8_t probe_code[] = { 0x66, 0xb9, 0xe0, 0x06, 0x00, 0x00, 0x66, 0x31, 0xd2,
				      0x66, 0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0x30, 0xf4 };
#define PROBE_GPA 0x1000u

/* Runs the tiny guest to its HLT. 1: its MSR write exited, 0: it did not; negative: it never got
 * there. */
static int run_probe_guest(struct engine_vcpu *vcpu, const char **ret_reason)
{
	struct engine_exit exit = { 0 };
	int seen = 0, err = 0;

	for (int i = 0; i < PROBE_EXITS; i++) {
		err = kvm_vcpu_run(vcpu, &exit);
		if (err)
			break;
		if (exit.kind == EXIT_HLT)
			return seen;
		if (exit.kind == EXIT_MSR_WRITE && exit.msr.index == 0x6e0)
			seen = 1;
		if (exit.kind == EXIT_FAILED) {
			*ret_reason = exit.fail.reason;
			return -EIO;
		}
	}
	*ret_reason = "it did not come to its end";
	return -EIO;
}

static int start_probe_guest(struct engine *engine, void *page, const char **ret_reason)
{
	struct vcpu_state *state = aligned_alloc(_Alignof(struct vcpu_state), sizeof(*state));
	struct engine_vcpu *vcpu = NULL;
	int result = -ENOMEM;

	*ret_reason = "it could not be set up";
	if (!state)
		return result;
	memcpy(page, probe_code, sizeof(probe_code));
	vcpu_state_reset(state, 0);
	state->segment[SEG_CS].selector = 0;
	state->segment[SEG_CS].base = 0;
	state->rip = PROBE_GPA;
	result = kvm_engine_add_memory(engine, PROBE_GPA, page, PAGE_BYTES);
	if (!result)
		result = kvm_vcpu_create(engine, 0, &vcpu);
	if (!result)
		result = kvm_vcpu_bind(vcpu);
	if (!result)
		result = kvm_vcpu_load(vcpu, state);
	if (!result)
		result = run_probe_guest(vcpu, ret_reason);
	kvm_vcpu_destroy(vcpu);
	free(state);
	return result;
}

/* Like run_probe_guest(). */
static int probe_deadline(int fd, uint32_t tsc_khz, char *why, size_t why_size)
{
	struct cpuid_set offer, pod;
	struct engine_config config = { .vcpu_max = 1, .tsc_khz = tsc_khz, .cpuid = &pod };
	struct engine *engine = NULL;
	const char *reason = NULL;
	void *page;
	int result = read_offer(fd, true, &offer);

	if (!result)
		result = cpuid_finish(&offer, 1, &pod);
	if (result) {
		snprintf(why, why_size, "KVM offers no usable x86-64 CPU here: use another host");
		return result;
	}
	page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return -ENOMEM;
	result = kvm_engine_create(&config, &engine, why, why_size);
	if (!result) {
		result = start_probe_guest(engine, page, &reason);
		if (result < 0)
			snprintf(why, why_size,
				 "KVM cannot run the smallest guest: %s (%s): use another host",
				 reason, strerrordesc_np(-result));
	}
	kvm_engine_destroy(engine);
	munmap(page, PAGE_BYTES);
	return result;
}

/* The host's TSC frequency, which only a vCPU tells. */
int kvm_read_tsc_khz(int fd)
{
	int vm = ioctl(fd, KVM_CREATE_VM, 0), vcpu, khz;

	if (vm < 0)
		return -errno;
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	khz = vcpu < 0 ? -errno : ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
	if (vcpu >= 0)
		close(vcpu);
	close(vm);
	return khz > 0 ? khz : -EIO;
}

/* SDM vol. 3, 28.3.5: with accessed and dirty flags for EPT on, page-table walks count as writes.
 */
static bool eptad_enabled(void)
{
	char value = 'Y';
	int fd = open("/sys/module/kvm_intel/parameters/eptad", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return true;
	if (read(fd, &value, 1) != 1)
		value = 'Y';
	close(fd);
	return value != 'N' && value != '0';
}

int kvm_probe(struct engine_features *ret_features, char *why, size_t why_size)
{
	struct engine_features features = { .walks_write = true };
	int fd = kvm_open_checked(why, why_size), seen, khz;
	struct tsc_rate rate;

	if (fd < 0)
		return fd;
	khz = kvm_read_tsc_khz(fd);
	if (khz < 0) {
		snprintf(why, why_size, "KVM cannot create a VM here: %s", strerrordesc_np(-khz));
		seen = -ENOTSUP;
		goto out;
	}
	seen = tsc_rate_measure((uint32_t)khz, &rate, why, why_size);
	if (seen)
		goto out;
	features.tsc_khz = rate.khz;
	features.tsc_source = rate.source;
	features.tsc_scaling = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
	features.tsc_margin_ppm = KVM_TSC_TOLERANCE_PPM + KVM_TSC_ROOM_PPM;
	seen = probe_deadline(fd, (uint32_t)khz, why, why_size);
	if (seen < 0) {
		seen = -ENOTSUP;
		goto out;
	}
	features.tsc_deadline = seen;
	seen = read_offer(fd, features.tsc_deadline, &features.offer);
	if (seen)
		goto out;
	if (kvm_host_vendor() == KVM_VENDOR_INTEL) {
		features.walks_write = eptad_enabled();
		features.advice = features.walks_write ? eptad_advice : NULL;
	}
	*ret_features = features;
out:
	close(fd);
	return seen;
}

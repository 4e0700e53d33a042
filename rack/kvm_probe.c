/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_probe: is this host fit to run a node? The smallest program that finds out for real.
 *
 * It makes a VM without an in-kernel irqchip, runs a few instructions of real mode to HLT and, on
 * the way, measures what an exit costs, whether the guest's TSC is offset and scaled as asked, and
 * what a userfaultfd fault under the running vCPU costs. Prints one line of key=value; status 0 if
 * the host is fit. Static, so that it runs in any initramfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define MEMORY_SIZE  (1u << 20)
#define CODE_ADDRESS 0x1000
#define DATA_PAGES   64
#define DATA_ADDRESS 0x10000
#define EXIT_ROUNDS  500
#define IA32_TSC     0x10

/*
 * Real mode, loaded at 0x1000:
 *   again: rdtsc; mov [0x2000], eax; mov [0x2004], edx; mov ecx, 10; loop: dec ecx; jnz loop;
 *          out 0x80, al; cmp byte [0x2008], 0; je again; walk...; hlt
 * The walk writes one byte into each page from 0x10000 on, through es.
 */
static const uint8_t guest_code[] = {
	0x0f, 0x31,				  /* rdtsc */
	0x66, 0xa3,	  0x00, 0x20,		  /* mov [0x2000], eax */
	0x66, 0x89,	  0x16, 0x04, 0x20,	  /* mov [0x2004], edx */
	0xb9, 0x0a,	  0x00,			  /* mov cx, 10 */
	0x49,					  /* dec cx */
	0x75, 0xfd,				  /* jnz -3 */
	0xe6, 0x80,				  /* out 0x80, al */
	0x80, 0x3e,	  0x08, 0x20, 0x00,	  /* cmp byte [0x2008], 0 */
	0x74, 0xe6,				  /* je again */
	0xb8, 0x00,	  0x10,			  /* mov ax, 0x1000 */
	0xb9, DATA_PAGES, 0x00,			  /* mov cx, DATA_PAGES */
	0x8e, 0xc0,				  /* walk: mov es, ax */
	0x26, 0xc6,	  0x06, 0x00, 0x00, 0x01, /* mov byte es:[0], 1 */
	0x05, 0x00,	  0x01,			  /* add ax, 0x100 */
	0x49,					  /* dec cx */
	0x75, 0xf2,				  /* jnz walk */
	0xf4,					  /* hlt */
};

struct probe {
	int kvm, vm, vcpu, uffd;
	uint8_t *memory;
	struct kvm_run *run;
	uint64_t exit_ns;
	uint64_t fault_ns;
	int64_t tsc_error; /* guest TSC minus what was asked for, in cycles */
	int tsc_khz;
	int tsc_control;
	int uffd_wp;
	int uffd_move;
};

static int fail(const char *what)
{
	printf("kvm=no what=\"%s\" error=\"%s\"\n", what, strerror(errno));
	return 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int run_until(struct probe *p, uint32_t reason)
{
	do {
		if (ioctl(p->vcpu, KVM_RUN, 0) && errno != EINTR)
			return -errno;
	} while (p->run->exit_reason == KVM_EXIT_INTR);
	if (p->run->exit_reason != reason) {
		errno = ENOEXEC;
		return -ENOEXEC;
	}
	return 0;
}

static int vm_create(struct probe *p)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE };
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = CODE_ADDRESS, .rflags = 2 };
	long run_size;

	p->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p->kvm < 0)
		return fail("/dev/kvm");
	p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
	if (p->vm < 0)
		return fail("KVM_CREATE_VM");
	region.userspace_addr = (uintptr_t)p->memory;
	if (ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region))
		return fail("KVM_SET_USER_MEMORY_REGION");
	p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
	if (p->vcpu < 0)
		return fail("KVM_CREATE_VCPU");
	run_size = ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	p->run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	if (p->run == MAP_FAILED)
		return fail("mmap of kvm_run");
	if (ioctl(p->vcpu, KVM_GET_SREGS, &sregs))
		return fail("KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(p->vcpu, KVM_SET_SREGS, &sregs) || ioctl(p->vcpu, KVM_SET_REGS, &regs))
		return fail("KVM_SET_REGS");
	return 0;
}

static int measure_exits(struct probe *p)
{
	uint64_t start;

	if (run_until(p, KVM_EXIT_IO))
		return fail("KVM_RUN to the first exit");
	start = now_ns();
	for (int i = 0; i < EXIT_ROUNDS; i++) {
		if (run_until(p, KVM_EXIT_IO))
			return fail("KVM_RUN");
	}
	p->exit_ns = (now_ns() - start) / EXIT_ROUNDS;
	return 0;
}

static uint64_t guest_tsc(const struct probe *p)
{
	uint64_t tsc;

	memcpy(&tsc, p->memory + 0x2000, sizeof(tsc));
	return tsc;
}

/* Asks for a TSC and looks how far off the guest's own RDTSC is soon after. */
static int measure_tsc(struct probe *p)
{
	union {
		struct kvm_msrs head;
		uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} msrs = { .head.nmsrs = 1 };
	const uint64_t want = 1ull << 50;
	uint64_t host, got;

	p->tsc_khz = ioctl(p->vcpu, KVM_GET_TSC_KHZ, 0);
	p->tsc_control = ioctl(p->kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL);
	if (run_until(p, KVM_EXIT_IO))
		return fail("KVM_RUN");
	msrs.head.entries[0].index = IA32_TSC;
	msrs.head.entries[0].data = want;
	host = __rdtsc();
	if (ioctl(p->vcpu, KVM_SET_MSRS, &msrs) != 1)
		return fail("KVM_SET_MSRS of the TSC");
	if (run_until(p, KVM_EXIT_IO))
		return fail("KVM_RUN");
	got = guest_tsc(p) - want;
	p->tsc_error = (int64_t)(got - (__rdtsc() - host));
	return 0;
}

static void *serve_faults(void *arg)
{
	static uint8_t zeros[4096] __attribute__((aligned(4096)));
	struct probe *p = arg;
	struct uffd_msg msg;

	for (int i = 0; i < DATA_PAGES; i++) {
		struct uffdio_copy copy = { .src = (uintptr_t)zeros, .len = sizeof(zeros) };

		if (read(p->uffd, &msg, sizeof(msg)) != sizeof(msg))
			return p;
		copy.dst = msg.arg.pagefault.address & ~4095ull;
		if (ioctl(p->uffd, UFFDIO_COPY, &copy))
			return p;
	}
	return NULL;
}

static int uffd_open(struct probe *p)
{
	const uint64_t want = UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		return fail("userfaultfd");
	p->uffd_wp = (api.features & want) == want;
	p->uffd_move = (api.features & (1u << 16)) != 0; /* UFFD_FEATURE_MOVE, Linux 6.8 */
	close(fd);
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	api = (struct uffdio_api){ .api = UFFD_API, .features = want };
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		return fail("userfaultfd with WP and THREAD_ID");
	p->uffd = fd;
	return 0;
}

static int measure_faults(struct probe *p)
{
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)p->memory + DATA_ADDRESS, .len = DATA_PAGES * 4096 },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};
	pthread_t server;
	void *failed;
	uint64_t start;

	if (uffd_open(p))
		return 1;
	if (ioctl(p->uffd, UFFDIO_REGISTER, &range))
		return fail("UFFDIO_REGISTER");
	if (pthread_create(&server, NULL, serve_faults, p))
		return fail("pthread_create");
	p->memory[0x2008] = 1;
	start = now_ns();
	if (run_until(p, KVM_EXIT_HLT))
		return fail("KVM_RUN to HLT");
	p->fault_ns = (now_ns() - start) / DATA_PAGES;
	pthread_join(server, &failed);
	return failed ? fail("UFFDIO_COPY") : 0;
}

int main(void)
{
	struct probe p = { 0 };

	p.memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p.memory == MAP_FAILED)
		return fail("mmap");
	memcpy(p.memory + CODE_ADDRESS, guest_code, sizeof(guest_code));
	if (vm_create(&p) || measure_exits(&p) || measure_tsc(&p) || measure_faults(&p))
		return 1;
	printf("kvm=yes exit_us=%.1f fault_us=%.1f tsc_khz=%d tsc_control=%d tsc_error=%" PRId64
	       " uffd_wp=%d uffd_move=%d\n",
	       (double)p.exit_ns / 1e3, (double)p.fault_ns / 1e3, p.tsc_khz, p.tsc_control,
	       p.tsc_error, p.uffd_wp, p.uffd_move);
	return p.uffd_wp ? 0 : 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot_one: boots a Linux guest on this host alone, on plain memory: the machine, the engine and
 * the vCPU threads without nodes, pages or links. It shows that the PC is one that Linux likes, and
 * is the first thing to try when a guest misbehaves on a pod.
 *
 * usage: boot_one [--engine kvm|soft] KERNEL INITRD VCPUS MEMORY_MIB [APPEND] [nodeadline]
 *
 * The console is standard input and output. Ends with 0 when the guest powers off, 2: wrong usage
 * or host, 3: the guest reset, 4: it panicked, 5: a vCPU ended otherwise.
 *
 * Main thread: pumps the console and the devices' deadlines. One lock guards the pc.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "core/interrupt_route.h"
#include "engine/engine.h"
#include "machine/loader.h"
#include "machine/pc.h"
#include "node/vcpu.h"
#include "tests/node/post.h"

#define VCPUS_HERE_MAX 64u

static const struct engine_ops *ops = &engine_kvm;

struct boot {
	struct engine *engine;
	struct engine_features features;
	uint8_t *memory;
	struct memory_map map;
	uint32_t vcpu_count;
	struct vcpu *vcpu[VCPUS_HERE_MAX];
	uint64_t epoch_ns;

	pthread_mutex_t lock; /* pc, waits_until_ns */
	struct pc *pc;
	uint64_t waits_until_ns;

	int wake_fd;
	_Atomic int status; /* -1: goes on */
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "boot_one: %s\n", what);
	exit(2);
}

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t now_ns(void *ctx)
{
	const struct boot *boot = ctx;

	return monotonic_ns() - boot->epoch_ns;
}

static void get_tsc(void *ctx, struct tsc_line *ret_tsc)
{
	const struct boot *boot = ctx;

	ret_tsc->ratio = TSC_RATIO_ONE;
	ret_tsc->host_tsc = __rdtsc();
	ret_tsc->guest_tsc =
		(uint64_t)((unsigned __int128)now_ns(ctx) * boot->features.tsc_khz / 1000000u);
}

static void wake_main(struct boot *boot)
{
	uint64_t one = 1;

	if (write(boot->wake_fd, &one, sizeof(one)) != sizeof(one))
		die("cannot wake the main thread");
}

static void end(struct boot *boot, int status)
{
	int going = -1;

	atomic_compare_exchange_strong(&boot->status, &going, status);
	wake_main(boot);
}

static void deliver(void *ctx, const struct interrupt *interrupt)
{
	struct boot *boot = ctx;
	struct vcpu_set set;

	if (interrupt_route(interrupt, boot->vcpu_count, &set))
		return;
	for (uint32_t v = vcpu_set_next(&set, 0); v < VCPUS_MAX; v = vcpu_set_next(&set, v + 1))
		post_to(boot->vcpu[v], interrupt->mode, interrupt->vector, interrupt->level);
}

static size_t output(void *ctx, enum pc_serial port, const uint8_t *bytes, size_t count)
{
	(void)ctx;
	if (port == PC_CONSOLE && write(STDOUT_FILENO, bytes, count) < 0)
		die("cannot write to standard output");
	return count;
}

static void power_off(void *ctx)
{
	end(ctx, 0);
}

static void reset(void *ctx, enum pc_reset why)
{
	end(ctx, why == PC_RESET_WARM ? 4 : 3);
}

static const struct pc_ops pc_ops = {
	.interrupt = deliver, .output = output, .power_off = power_off, .reset = reset
};

/* Device accesses: under the lock; the main thread must know of an earlier deadline. */
static void unlock_pc(struct boot *boot)
{
	bool earlier = pc_deadline(boot->pc) < boot->waits_until_ns;

	pthread_mutex_unlock(&boot->lock);
	if (earlier)
		wake_main(boot);
}

static int do_io(void *ctx, uint32_t vcpu, const struct pc_access *access)
{
	struct boot *boot = ctx;

	(void)vcpu;
	pthread_mutex_lock(&boot->lock);
	pc_io(boot->pc, access, now_ns(boot));
	unlock_pc(boot);
	return 0;
}

static int do_mmio(void *ctx, uint32_t vcpu, const struct pc_access *access)
{
	struct boot *boot = ctx;

	(void)vcpu;
	pthread_mutex_lock(&boot->lock);
	pc_mmio(boot->pc, access, now_ns(boot));
	unlock_pc(boot);
	return 0;
}

static void eoi(void *ctx, uint32_t vcpu, uint8_t vector)
{
	struct boot *boot = ctx;

	(void)vcpu;
	pthread_mutex_lock(&boot->lock);
	pc_eoi(boot->pc, vector);
	unlock_pc(boot);
}

static void ended(void *ctx, uint32_t vcpu, const struct vcpu_end *vcpu_end)
{
	static const char *const kind[] = { "stopped", "triple fault", "failed", "INIT" };

	if (vcpu_end->kind == VCPU_END_STOPPED)
		return;
	fprintf(stderr, "boot_one: vCPU %u: %s at %#llx: %s (%llu)\n", vcpu, kind[vcpu_end->kind],
		(unsigned long long)vcpu_end->rip, vcpu_end->reason ? vcpu_end->reason : "-",
		(unsigned long long)vcpu_end->detail);
	end(ctx, 5);
}

static const struct vcpu_ops vcpu_ops = { .now_ns = now_ns,
					  .tsc = get_tsc,
					  .io = do_io,
					  .mmio = do_mmio,
					  .send_interrupt = deliver,
					  .eoi = eoi,
					  .ended = ended };

static struct loader_file map_file(const char *name)
{
	struct loader_file file = { .name = name };
	struct stat stat;
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	void *data;

	if (fd < 0 || fstat(fd, &stat) < 0 || stat.st_size == 0)
		die("cannot open the kernel or the initrd");
	data = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		die("cannot map the kernel or the initrd");
	close(fd);
	file.data = data;
	file.bytes = (size_t)stat.st_size;
	return file;
}

static int write_memory(void *ctx, uint64_t gpa, const void *data, size_t bytes)
{
	struct boot *boot = ctx;

	/* All the loader writes is in the low range. */
	if (gpa + bytes > boot->map.range[0].bytes)
		return -EFAULT;
	memcpy(boot->memory + gpa, data, bytes);
	return 0;
}

static void create_engine(struct boot *boot, uint64_t memory_bytes)
{
	static struct cpuid_set cpuid;
	struct engine_config config = { .vcpu_max = boot->vcpu_count, .cpuid = &cpuid };
	char why[256] = "";
	uint64_t offset = 0;

	if (cpuid_finish(&boot->features.offer, boot->vcpu_count, &cpuid))
		die("cannot make a CPUID");
	config.tsc_khz = boot->features.tsc_khz;
	if (ops->create(&config, &boot->engine, why, sizeof(why)))
		die(why);
	boot->memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (boot->memory == MAP_FAILED)
		die("cannot map guest memory");
	/* As QEMU does it; where there are no huge pages, small ones do. */
	madvise(boot->memory, memory_bytes, MADV_HUGEPAGE);
	for (uint32_t i = 0; i < boot->map.count; i++) {
		if (ops->add_memory(boot->engine, boot->map.range[i].gpa, boot->memory + offset,
				    boot->map.range[i].bytes))
			die("cannot add guest memory");
		offset += boot->map.range[i].bytes;
	}
}

static void load(struct boot *boot, char **argv, const char *extra, struct vcpu_state *ret_bsp)
{
	char why[256] = "", cmdline[LOADER_CMDLINE_MAX + 1];
	struct loader_cmdline_config cmdline_config = { .tsc_khz = boot->features.tsc_khz,
							.translated = ops->translates,
							.extra = extra };
	struct loader_config config = {
		.map = boot->map,
		.high_window = memory_map_high_window(&boot->map,
						      cpuid_physical_bits(&boot->features.offer)),
		.kernel = map_file(argv[1]),
		.initrd = map_file(argv[2]),
		.cmdline = cmdline,
		.vcpu_count = boot->vcpu_count,
		.xcr0 = cpuid_xcr0(&boot->features.offer),
		.write = write_memory,
		.ctx = boot,
	};
	struct loader_result result;

	if (loader_cmdline(&cmdline_config, cmdline, sizeof(cmdline)))
		die("the command line is too long");
	if (loader_load(&config, ret_bsp, &result, why, sizeof(why)))
		die(why);
}

static void start_vcpus(struct boot *boot, const struct vcpu_state *bsp)
{
	static struct vcpu_state state;
	struct vcpu_config config = {
		.engine_ops = ops,
		.engine = boot->engine,
		.lapic = { .tsc_khz = boot->features.tsc_khz,
			   .tsc_deadline = cpuid_has_tsc_deadline(&boot->features.offer) },
		.ops = &vcpu_ops,
		.ctx = boot,
	};

	for (uint32_t number = 0; number < boot->vcpu_count; number++) {
		if (number)
			loader_secondary(number, cpuid_xcr0(&boot->features.offer), &state);
		config.number = number;
		if (vcpu_create(&config, number ? &state : bsp, &boot->vcpu[number]))
			die("cannot create a vCPU");
	}
	for (uint32_t number = 0; number < boot->vcpu_count; number++) {
		if (vcpu_start(boot->vcpu[number]))
			die("cannot start a vCPU");
	}
}

static int poll_timeout_ms(struct boot *boot)
{
	uint64_t deadline, now = now_ns(boot);

	pthread_mutex_lock(&boot->lock);
	deadline = pc_deadline(boot->pc);
	boot->waits_until_ns = deadline;
	pthread_mutex_unlock(&boot->lock);
	if (deadline <= now)
		return 0;
	return deadline - now > 1000000000ull ? 1000 : (int)((deadline - now + 999999) / 1000000);
}

/* False: standard input has ended. */
static bool pump_input(struct boot *boot)
{
	uint8_t bytes[256];
	size_t room;
	ssize_t count;

	pthread_mutex_lock(&boot->lock);
	room = pc_serial_room(boot->pc, PC_CONSOLE);
	pthread_mutex_unlock(&boot->lock);
	if (room == 0)
		return true;
	count = read(STDIN_FILENO, bytes, room < sizeof(bytes) ? room : sizeof(bytes));
	if (count <= 0)
		return count < 0 && errno == EAGAIN;
	pthread_mutex_lock(&boot->lock);
	pc_serial_input(boot->pc, PC_CONSOLE, bytes, (size_t)count, now_ns(boot));
	pthread_mutex_unlock(&boot->lock);
	return true;
}

static void run(struct boot *boot)
{
	struct pollfd fds[2] = { { .fd = boot->wake_fd, .events = POLLIN },
				 { .fd = STDIN_FILENO, .events = POLLIN } };
	uint64_t wakes;

	while (boot->status < 0) {
		poll(fds, 2, poll_timeout_ms(boot));
		if ((fds[0].revents & POLLIN) &&
		    read(boot->wake_fd, &wakes, sizeof(wakes)) != sizeof(wakes))
			die("cannot read the event counter");
		if (fds[1].revents && !pump_input(boot))
			fds[1].fd = -1;
		pthread_mutex_lock(&boot->lock);
		pc_tick(boot->pc, now_ns(boot));
		pthread_mutex_unlock(&boot->lock);
	}
}

static void report(struct boot *boot)
{
	struct vcpu_stats stats;

	for (uint32_t number = 0; number < boot->vcpu_count; number++) {
		vcpu_stats(boot->vcpu[number], &stats);
		fprintf(stderr,
			"boot_one: vCPU %u: exits io %llu mmio %llu msr %llu+%llu hlt %llu "
			"window %llu kicked %llu; interrupts %llu ipis %llu slept %llu ms\n",
			number, (unsigned long long)stats.exit_count[EXIT_IO],
			(unsigned long long)stats.exit_count[EXIT_MMIO],
			(unsigned long long)stats.exit_count[EXIT_MSR_READ],
			(unsigned long long)stats.exit_count[EXIT_MSR_WRITE],
			(unsigned long long)stats.exit_count[EXIT_HLT],
			(unsigned long long)stats.exit_count[EXIT_WINDOW],
			(unsigned long long)stats.exit_count[EXIT_KICKED],
			(unsigned long long)stats.interrupt_count,
			(unsigned long long)stats.ipi_count,
			(unsigned long long)(stats.sleep_ns / 1000000));
	}
	fprintf(stderr, "boot_one: %llu ms of pod clock\n",
		(unsigned long long)(now_ns(boot) / 1000000));
}

/* As on hosts where writes of that MSR do not exit. */
static void hide_tsc_deadline(struct cpuid_set *offer)
{
	for (uint32_t i = 0; i < offer->count; i++) {
		if (offer->leaf[i].function == 1)
			offer->leaf[i].ecx &= ~(1u << 24);
	}
}

int main(int argc, char **argv)
{
	static struct boot boot = { .status = -1, .lock = PTHREAD_MUTEX_INITIALIZER };
	static struct vcpu_state bsp;
	struct pc_config pc_config = { .wall_epoch_s = time(NULL) };
	char why[256] = "";
	uint64_t memory_bytes;

	if (argc > 2 && strcmp(argv[1], "--engine") == 0) {
		ops = strcmp(argv[2], "soft") == 0 ? &engine_soft : &engine_kvm;
		argc -= 2;
		argv += 2;
	}
	if (argc < 5)
		die("usage: boot_one [--engine kvm|soft] KERNEL INITRD VCPUS MEMORY_MIB [APPEND]");
	boot.vcpu_count = (uint32_t)atoi(argv[3]);
	memory_bytes = strtoull(argv[4], NULL, 10) << 20;
	if (boot.vcpu_count < 1 || boot.vcpu_count > VCPUS_HERE_MAX ||
	    memory_map_build(memory_bytes, &boot.map))
		die("1 to 64 vCPUs and at least 64 MiB, please");
	if (ops->probe(&boot.features, why, sizeof(why)))
		die(why);
	if (argc > 6 && strcmp(argv[6], "nodeadline") == 0)
		hide_tsc_deadline(&boot.features.offer);
	fprintf(stderr, "boot_one: TSC %u kHz, TSC deadline %s\n", boot.features.tsc_khz,
		cpuid_has_tsc_deadline(&boot.features.offer) ? "yes" : "no");
	boot.wake_fd = eventfd(0, EFD_CLOEXEC);
	boot.epoch_ns = monotonic_ns();
	create_engine(&boot, memory_bytes);
	load(&boot, argv, argc > 5 ? argv[5] : NULL, &bsp);
	if (pc_create(&pc_config, &pc_ops, &boot, &boot.pc))
		die("out of memory");
	start_vcpus(&boot, &bsp);
	run(&boot);
	report(&boot);
	/* All stop before any is freed: they post to each other. */
	for (uint32_t number = 0; number < boot.vcpu_count; number++)
		vcpu_stop(boot.vcpu[number]);
	for (uint32_t number = 0; number < boot.vcpu_count; number++)
		vcpu_join(boot.vcpu[number]);
	for (uint32_t number = 0; number < boot.vcpu_count; number++)
		vcpu_destroy(boot.vcpu[number]);
	ops->destroy(boot.engine);
	pc_destroy(boot.pc);
	return boot.status;
}

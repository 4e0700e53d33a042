/* SPDX-License-Identifier: Apache-2.0 */
/* See rig.h. */
#include "tests/engine/rig.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ROUNDS_MAX 100000

struct engine_features rig_features;
bool rig_emulated;
const struct engine_ops *rig_ops;
const struct engine_ops *rig_with;
const char *rig_only;
bool rig_marked;
uint64_t rig_rounds;
uint32_t rig_shutdown_first, rig_shutdown_last;
enum rig_host rig_host;
struct engine_pages rig_pages;
uint8_t *rig_memory;

/* A thread, not a timer's signal: signals are the engine's business. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool started, barked;
	struct engine_vcpu *vcpu; /* NULL: nothing to watch */
	struct timespec deadline;
} watch = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void *watch_thread(void *unused)
{
	sigset_t all;

	(void)unused;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_mutex_lock(&watch.lock);
	for (;;) {
		if (!watch.vcpu) {
			pthread_cond_wait(&watch.changed, &watch.lock);
		} else if (pthread_cond_clockwait(&watch.changed, &watch.lock, CLOCK_MONOTONIC,
						  &watch.deadline) == ETIMEDOUT &&
			   watch.vcpu) {
			watch.barked = true;
			rig_ops->vcpu_kick(watch.vcpu);
			watch.vcpu = NULL;
		}
	}
	return NULL;
}

void rig_watch(struct engine_vcpu *vcpu, unsigned int seconds)
{
	pthread_mutex_lock(&watch.lock);
	if (!watch.started)
		watch.started = pthread_create(&watch.thread, NULL, watch_thread, NULL) == 0;
	clock_gettime(CLOCK_MONOTONIC, &watch.deadline);
	watch.deadline.tv_sec += seconds;
	watch.vcpu = vcpu;
	if (vcpu)
		watch.barked = false;
	pthread_cond_signal(&watch.changed);
	pthread_mutex_unlock(&watch.lock);
}

bool rig_watch_barked(void)
{
	bool barked;

	pthread_mutex_lock(&watch.lock);
	barked = watch.barked;
	pthread_mutex_unlock(&watch.lock);
	return barked;
}

uint64_t rig_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void rig_sleep_ms(unsigned int ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&time, &time) && errno == EINTR)
		;
}

const char *rig_kind_name(enum engine_exit_kind kind)
{
	static const char *const names[] = {
		[EXIT_IO] = "IO",
		[EXIT_MMIO] = "MMIO",
		[EXIT_MSR_READ] = "MSR_READ",
		[EXIT_MSR_WRITE] = "MSR_WRITE",
		[EXIT_HLT] = "HLT",
		[EXIT_WINDOW] = "WINDOW",
		[EXIT_KICKED] = "KICKED",
		[EXIT_SHUTDOWN] = "SHUTDOWN",
		[EXIT_FAILED] = "FAILED",
	};

	return (size_t)kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "?";
}

int rig_create(struct rig *rig, const struct engine_ops *ops, struct engine **ret_engine)
{
	struct engine_config config = { .vcpu_max = RIG_VCPUS,
					.tsc_khz = rig_features.tsc_khz,
					.cpuid = &rig->cpuid,
					.pages = rig_pages };
	char why[256] = "";

	CHECK(ops->create(&config, ret_engine, why, sizeof(why)) == 0, "%s", why);
	CHECK(ops->add_memory(*ret_engine, 0, rig->memory, RIG_MEMORY_BYTES) == 0, "memory");
	return 0;
}

int rig_open(struct rig *rig, uint8_t *memory)
{
	memset(rig, 0, sizeof(*rig));
	rig->memory = memory ? memory : rig_memory;
	rig->memory_shared = rig->memory != NULL;
	if (!memory && rig_memory)
		memset(rig_memory, 0, RIG_MEMORY_BYTES);
	else if (!memory)
		rig->memory = mmap(NULL, RIG_MEMORY_BYTES, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(rig->memory != MAP_FAILED, "mmap");
	CHECK(cpuid_finish(&rig_features.offer, RIG_VCPUS, &rig->cpuid) == 0, "cpuid");
	return rig_create(rig, rig_ops, &rig->engine);
}

void rig_close(struct rig *rig)
{
	if (rig->engine) {
		for (uint32_t i = 0; i < RIG_VCPUS; i++)
			rig_ops->vcpu_destroy(rig->vcpu[i]);
		rig_ops->destroy(rig->engine);
	}
	if (rig->memory && rig->memory != MAP_FAILED && !rig->memory_shared)
		munmap(rig->memory, RIG_MEMORY_BYTES);
	memset(rig, 0, sizeof(*rig));
}

static void put64(struct rig *rig, uint32_t gpa, uint64_t value)
{
	memcpy(rig->memory + gpa, &value, sizeof(value));
}

/* PML4, PDPT, and a page directory of 2 MiB pages for the first and the fourth GiB. */
static void build_page_tables(struct rig *rig)
{
	uint32_t base = RIG_PAGE_TABLES;

	put64(rig, base, (base + 0x1000) | 3);
	put64(rig, base + 0x1000, (base + 0x2000) | 3);
	put64(rig, base + 0x1000 + 3 * 8, (base + 0x3000) | 3);
	for (uint32_t i = 0; i < 512; i++) {
		put64(rig, base + 0x2000 + i * 8, (uint64_t)i << 21 | 0x83);
		put64(rig, base + 0x3000 + i * 8, (3ull << 30) + ((uint64_t)i << 21) + 0x83);
	}
	put64(rig, RIG_GDT + 8, 0x00af9b000000ffffull);
	put64(rig, RIG_GDT + 16, 0x00cf93000000ffffull);
}

/* An interrupt gate (SDM vol. 3, 6.14.1). */
void rig_set_handler(struct rig *rig, uint8_t vector, uint32_t address)
{
	put64(rig, RIG_IDT + vector * 16u,
	      (address & 0xffff) | 8ull << 16 | 0x8e00ull << 32 | (uint64_t)(address >> 16) << 48);
	put64(rig, RIG_IDT + vector * 16u + 8, 0);
}

static void set_flat(struct vcpu_segment_state *segment, uint16_t selector, uint16_t attributes)
{
	*segment = (struct vcpu_segment_state){ .limit = 0xffffffff,
						.selector = selector,
						.attributes = attributes };
}

void rig_state(struct rig *rig, uint32_t number, enum rig_mode mode, struct vcpu_state *ret_state)
{
	struct vcpu_state *state = ret_state;

	vcpu_state_reset(state, number);
	state->run_state = VCPU_RUNNABLE;
	state->rip = RIG_LOAD;
	state->segment[SEG_CS].selector = 0;
	state->segment[SEG_CS].base = 0;
	build_page_tables(rig);
	if (mode == RIG_REAL)
		return;
	set_flat(&state->segment[SEG_CS], 8, 0xa09b);
	for (int i = SEG_ES; i <= SEG_GS; i++)
		if (i != SEG_CS)
			set_flat(&state->segment[i], 16, 0xc093);
	state->segment[SEG_FS].base = RIG_FS + number * 0x1000;
	state->gdt = (struct vcpu_table_state){ .base = RIG_GDT, .limit = 23 };
	state->idt = (struct vcpu_table_state){ .base = RIG_IDT, .limit = 0xfff };
	state->cr0 = 0x80000033;
	state->cr3 = RIG_PAGE_TABLES;
	state->cr4 = 0x620;
	state->efer = 0x500;
	state->gpr[GPR_RSP] = RIG_STACK - number * 0x4000;
	if (cpuid_xcr0(&rig->cpuid) & 4) {
		state->cr4 |= 1 << 18;
		state->xcr0 = 7;
	}
}

int rig_start(struct rig *rig, uint32_t number, struct guest guest, enum rig_mode mode)
{
	struct vcpu_state state;

	memcpy(rig->memory + RIG_LOAD, guest.start, (size_t)(guest.end - guest.start));
	if (!rig->vcpu[number])
		CHECK(rig_ops->vcpu_create(rig->engine, number, &rig->vcpu[number]) == 0, "vCPU %u",
		      number);
	CHECK(rig_ops->vcpu_bind(rig->vcpu[number]) == 0, "vCPU %u", number);
	rig_state(rig, number, mode, &state);
	CHECK(rig_ops->vcpu_load(rig->vcpu[number], &state) == 0, "vCPU %u", number);
	return 0;
}

static void record(struct rig *rig, const struct engine_exit *exit)
{
	for (uint32_t i = 0; i < exit->io.count && rig->out_count < RIG_OUT_MAX; i++) {
		uint32_t value = 0;

		memcpy(&value, exit->io.data + (size_t)i * exit->io.size, exit->io.size);
		rig->out[rig->out_count++] = value;
	}
}

/* For whoever is told of a shutdown that has not been. */
static void pretend(struct engine_exit *exit)
{
	static uint32_t count;

	if (!rig_shutdown_last || exit->kind == EXIT_KICKED)
		return;
	count++;
	if (count >= rig_shutdown_first && count <= rig_shutdown_last)
		exit->kind = EXIT_SHUTDOWN;
}

int rig_run(struct rig *rig, uint32_t number)
{
	struct engine_exit *exit = &rig->exit[number];

	for (int round = 0; round < ROUNDS_MAX; round++) {
		int err = rig_ops->vcpu_run(rig->vcpu[number], exit);

		CHECK(err == 0, "run: %d", err);
		pretend(exit);
		if (exit->kind != EXIT_IO || !exit->io.write || exit->io.port != PORT_OUT)
			return 0;
		record(rig, exit);
	}
	CHECK(false, "the guest does not stop talking");
}

int rig_expect(struct rig *rig, uint32_t number, enum engine_exit_kind kind)
{
	const struct engine_exit *exit = &rig->exit[number];

	if (rig_run(rig, number))
		return -1;
	if (exit->kind == EXIT_FAILED && kind != EXIT_FAILED)
		printf("  %s (%lu)\n", exit->fail.reason, (unsigned long)exit->fail.detail);
	CHECK(exit->kind == kind, "%s instead of %s at rip %lx", rig_kind_name(exit->kind),
	      rig_kind_name(kind), (unsigned long)rig_ops->vcpu_rip(rig->vcpu[number]));
	return 0;
}

int rig_said(struct rig *rig, const uint32_t *values, uint32_t count)
{
	bool same = rig->out_count == count && !memcmp(rig->out, values, count * sizeof(values[0]));

	if (same)
		return 0;
	printf("  said:");
	for (uint32_t i = 0; i < rig->out_count && i < 24; i++)
		printf(" %x", rig->out[i]);
	printf("\n  meant:");
	for (uint32_t i = 0; i < count && i < 24; i++)
		printf(" %x", values[i]);
	printf("\n");
	return -1;
}

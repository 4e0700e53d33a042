/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The soft engine: a VM made of a code cache and vCPUs, all in this process. See docs/soft.md.
 */
#include "engine/soft/vcpu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/soft/cache/cache.h"
#include "engine/soft/cache/code_page.h"
#include "engine/soft/cache/pause.h"
#include "engine/soft/cpu/host.h"
#include "engine/soft/insn/decode.h"
#include "engine/soft/probe.h"
#include "engine/soft/run/run.h"
#include "engine/soft/split.h"
#include "engine/soft/step/stepper.h"
#include "engine/soft/tlb/jumps.h"
#include "engine/soft/tlb/tlb.h"

/* It is not in run. Its seat stays. */
static void soft_vcpu_destroy(struct engine_vcpu *vcpu)
{
	if (!vcpu)
		return;
	soft_signals_forget(vcpu);
	pthread_mutex_lock(&vcpu->engine->lock);
	vcpu->seated = false;
	atomic_store(&vcpu->thread, 0);
	pthread_mutex_unlock(&vcpu->engine->lock);
}

#define INSNS_BYTES   (BLOCK_INSNS_MAX * sizeof(struct soft_insn))
#define DECODED_BYTES (DECODED_COUNT * sizeof(struct soft_decoded))

/*
 * Zero, and no memory before it is touched: a node has seats for all vCPUs of its pod, and few of
 * them run. NULL: none.
 */
static void *map_lazy(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static void unmap(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

static void free_seat(struct engine_vcpu *vcpu)
{
	if (!vcpu)
		return;
	unmap(vcpu->insns, INSNS_BYTES);
	unmap(vcpu->decoded, DECODED_BYTES);
	soft_fault_pages_free(vcpu);
	unmap(vcpu->signal_stack, SIGNAL_STACK_BYTES);
	unmap(vcpu, sizeof(*vcpu));
}

static void soft_engine_destroy(struct engine *engine)
{
	if (!engine)
		return;
	for (uint32_t i = 0; i < VCPUS_MAX; i++)
		free_seat(engine->vcpu[i]);
	soft_cache_destroy(engine);
	soft_code_remove_memory(engine);
	soft_offer_destroy(engine->offer);
	pthread_mutex_destroy(&engine->lock);
	free(engine);
}

static int soft_engine_create(const struct engine_config *config, struct engine **ret_engine,
			      char *why, size_t why_size)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int err = -ENOMEM;

	if (!engine)
		goto out;
	pthread_mutex_init(&engine->lock, NULL);
	engine->cpuid = *config->cpuid;
	engine->tsc_khz = config->tsc_khz;
	engine->vcpu_max = config->vcpu_max;
	engine->pages = config->pages;
	engine->tlb_words_max = TLB_BYTES_ALL / TLB_WORD_BYTES;
	engine->host_is_tcg = soft_host_is_tcg();
	engine->exact_flags = getenv("EAGRE_SOFT_EXACT_FLAGS") != NULL;
	engine->offer = soft_offer_create(&engine->cpuid);
	if (engine->offer)
		err = soft_cache_create(engine);
	if (!err)
		err = soft_signals_install();
	if (err)
		goto out;
	engine->split_locks_looked_for = soft_split_locks_trap();
	atomic_store(&engine->split_locks_trap, engine->split_locks_looked_for);
	*ret_engine = engine;
	return 0;
out:
	snprintf(why, why_size, "soft: creating the engine failed: %s", strerrordesc_np(-err));
	soft_engine_destroy(engine);
	return err;
}

/* Of a seat that somebody has sat on for long; and page tables for what is looked at and not there. */
#define SEAT_BYTES                                                                                 \
	(offsetof(struct engine_vcpu, tlb) + TLB_WORDS_OWN * TLB_WORD_BYTES +                      \
	 sizeof(struct engine_vcpu) / 512 + SIGNAL_STACK_BYTES + INSNS_BYTES + DECODED_BYTES +     \
	 SOFT_FAULT_PAGES * PAGE_BYTES)

static uint64_t soft_kept_bytes(uint32_t vcpu_count, uint64_t guest_bytes)
{
	return soft_cache_kept_bytes() + soft_code_kept_bytes(guest_bytes) + TLB_BYTES_ALL +
	       guest_bytes / TLB_BYTES_OF + vcpu_count * (uint64_t)SEAT_BYTES;
}

static int soft_add_memory(struct engine *engine, uint64_t gpa, void *hva, uint64_t bytes)
{
	if (engine->memory_count == MEMORY_RANGES_MAX)
		return -ENOSPC;
	engine->memory[engine->memory_count++] =
		(struct soft_memory){ .gpa = gpa, .bytes = bytes, .host = hva };
	engine->tlb_words_max += (uint32_t)(bytes / TLB_BYTES_OF / TLB_WORD_BYTES);
	return soft_code_add_memory(engine, engine->memory_count - 1);
}

static struct engine_vcpu *new_seat(void)
{
	struct engine_vcpu *vcpu = map_lazy(sizeof(*vcpu));

	if (!vcpu)
		return NULL;
	vcpu->signal_stack = map_lazy(SIGNAL_STACK_BYTES);
	vcpu->insns = map_lazy(INSNS_BYTES);
	vcpu->decoded = map_lazy(DECODED_BYTES);
	if (vcpu->signal_stack && vcpu->insns && vcpu->decoded)
		return vcpu;
	free_seat(vcpu);
	return NULL;
}

/* Somebody had it before: as new, but for what it has of its own. */
static void clean_seat(struct engine_vcpu *vcpu)
{
	struct soft_insn *insns = vcpu->insns;
	struct soft_decoded *decoded = vcpu->decoded;
	uint8_t *fault_pages = vcpu->fault_pages;
	void *stack = vcpu->signal_stack;

	/* Jumps first: who pauses now may flush them, too, but must meet none that falls asleep. */
	for (int view = 0; view < VIEW_COUNT; view++)
		soft_jump_flush(vcpu, (enum soft_view)view);
	soft_tlb_release(vcpu);
	memset(vcpu, 0, offsetof(struct engine_vcpu, jump));
	vcpu->insns = insns;
	vcpu->decoded = decoded;
	vcpu->fault_pages = fault_pages;
	vcpu->signal_stack = stack;
}

/* Lock held: whoever looks at all vCPUs meanwhile finds this one standing still. */
static void take_seat(struct engine *engine, struct engine_vcpu *vcpu, uint32_t number)
{
	vcpu->engine = engine;
	vcpu->number = number;
	vcpu->tsc_ratio = TSC_RATIO_ONE;
	vcpu->small_stack_top = (uintptr_t)(vcpu->small_stack + 16);
	vcpu->physical_mask = BIT64(cpuid_physical_bits(&engine->cpuid)) - 1;
	vcpu->exec = soft_cache_exec(engine, number);
	cpuid_for_vcpu(&engine->cpuid, number, &vcpu->cpuid);
	vcpu_state_reset(&vcpu->state, number);
	soft_tlb_create(vcpu);
	/* Who pauses has asked those who were there, and will let all go on. */
	atomic_store(&vcpu->pause, atomic_load(&engine->pauser) != NULL);
	atomic_store(&vcpu->stop, 1);
	vcpu->seated = true;
	engine->vcpu[number] = vcpu;
}

static int soft_vcpu_create(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu)
{
	struct engine_vcpu *vcpu;
	int err = -EINVAL;

	if (number >= VCPUS_MAX)
		return err;
	pthread_mutex_lock(&engine->lock);
	vcpu = engine->vcpu[number];
	if (!vcpu) {
		vcpu = new_seat();
		err = vcpu ? 0 : -ENOMEM;
	} else if (!vcpu->seated) {
		clean_seat(vcpu);
		err = 0;
	}
	if (!err)
		take_seat(engine, vcpu, number);
	pthread_mutex_unlock(&engine->lock);
	if (!err)
		*ret_vcpu = vcpu;
	return err;
}

/*
 * What is known of pages and jumps is of no use to who comes next. As in vcpu_load(), not at the same
 * time as who has paused the other vCPUs and changes their tables: of jumps that are put to sleep
 * under its hands it may miss some, which then lead into code that is no more.
 */
static void soft_vcpu_parked(struct engine_vcpu *vcpu)
{
	soft_run_begin(vcpu);
	soft_tlb_flush(vcpu, true);
	soft_run_end(vcpu);
}

/* RDTSC is a multiplication here, so any slope will do. */
static uint64_t soft_tsc_ratio(const struct engine *engine, uint64_t wanted)
{
	(void)engine;
	return wanted;
}

static int soft_vcpu_set_tsc(struct engine_vcpu *vcpu, const struct tsc_line *line)
{
	uint64_t scaled =
		(uint64_t)((unsigned __int128)line->host_tsc * line->ratio >> TSC_RATIO_BITS);

	vcpu->tsc_ratio = line->ratio;
	vcpu->tsc_offset = line->guest_tsc + vcpu->state.msr[MSR_TSC_ADJUST] - scaled;
	return 0;
}

static uint8_t soft_vcpu_tpr(struct engine_vcpu *vcpu)
{
	return (uint8_t)(vcpu->state.cr8 & 0xf);
}

static void soft_vcpu_set_tpr(struct engine_vcpu *vcpu, uint8_t cr8)
{
	vcpu->state.cr8 = cr8 & 0xf;
}

static uint64_t soft_vcpu_rip(struct engine_vcpu *vcpu)
{
	return vcpu->rip;
}

static uint64_t soft_vcpu_cr3(struct engine_vcpu *vcpu)
{
	return vcpu->state.cr3;
}

const struct engine_ops engine_soft = {
	.name = "soft",
	.translates = true,
	.probe = soft_probe,
	.create = soft_engine_create,
	.destroy = soft_engine_destroy,
	.kept_bytes = soft_kept_bytes,
	.add_memory = soft_add_memory,
	.page_lost = soft_page_lost,
	.tsc_ratio = soft_tsc_ratio,
	.vcpu_create = soft_vcpu_create,
	.vcpu_destroy = soft_vcpu_destroy,
	.vcpu_bind = soft_vcpu_bind,
	.vcpu_load = soft_vcpu_load,
	.vcpu_save = soft_vcpu_save,
	.vcpu_parked = soft_vcpu_parked,
	.vcpu_set_tsc = soft_vcpu_set_tsc,
	.vcpu_run = soft_vcpu_run,
	.vcpu_kick = soft_vcpu_kick,
	.vcpu_work = soft_vcpu_work,
	.vcpu_can_interrupt = soft_vcpu_can_interrupt,
	.vcpu_interrupt = soft_vcpu_interrupt,
	.vcpu_nmi = soft_vcpu_nmi,
	.vcpu_want_window = soft_vcpu_want_window,
	.vcpu_tpr = soft_vcpu_tpr,
	.vcpu_set_tpr = soft_vcpu_set_tpr,
	.vcpu_rip = soft_vcpu_rip,
	.vcpu_cr3 = soft_vcpu_cr3,
};
